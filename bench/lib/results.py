"""The one schema of results (docs/benchmarks.md), and its arithmetic.

A file: {"schema": "sluice-bench/1", "run": {…}, "rows": [row, …]}
A row:  {"row": id, "group": what --only takes, "title": text, "unit": text, "better": "higher"|"lower",
         "cells": [cell, …], "comparisons": [comparison, …], "notes": [text, …]}
A cell: {"place": name, "median": x, "min": x, "max": x, "values": [one for each round], "next": [low, high] or null,
         "used": {name: number}}        what the daemon and the store spent, medians over the rounds
A comparison: {"what": text, "of": place, "to": place or null, "median": x, "min": x, "max": x, "values": […], "next": …,
         "reach": {"op": ">="|"<=", "value": x} or null, "reached": bool or null}
A comparison's values are taken pair by pair: both sides of a pair ran one after the other in the same round.
"next" is where the median of another run may be expected (bench/spread.c does the same for `sluice bench`).
"""

import math
import statistics

SCHEMA = "sluice-bench/1"
# Amounts, which a slow moment of the machine does not change.
AMOUNTS = ("requests", "MiB")
# Student's t, 97.5 %, by the number of rounds. More rounds count as five: rounds that follow each other are alike, and know less of the
# machine than as many of different hours.
STUDENT = {3: 4.303, 4: 3.182, 5: 2.776}


def deviation(values):
    """Standard deviation of the logarithms: 0.02 is 2 %. 0 if there is one value, or one that is not above 0."""
    if len(values) < 2 or min(values) <= 0:
        return 0.0
    return statistics.stdev(map(math.log, values))


def interval(values, machine=0.0):
    """(low, high) for the median of another run; None after one or two rounds, which know nothing of it. `machine` is the deviation of what the machine
    itself did meanwhile: nothing is believed to be steadier than that."""
    if len(values) < min(STUDENT):
        return None
    if min(values) <= 0:
        return min(values), max(values)
    known = min(len(values), max(STUDENT))
    width = math.exp(STUDENT[known] * max(deviation(values), machine) * math.sqrt(1 + 1 / known))
    middle = statistics.median(values)
    return middle / width, middle * width


def spread(values, machine=0.0):
    values = [float(v) for v in values]
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "values": values, "next": interval(values, machine)}


class Row:
    """One line of the table while it is measured."""

    def __init__(self, row, title, unit, better="higher"):
        self.row, self.title, self.unit, self.better = row, title, unit, better
        self.values, self.used, self.comparisons, self.notes = {}, {}, [], []

    def add(self, place, value, **used):
        self.values.setdefault(place, []).append(value)
        for name, amount in used.items():
            if amount is not None:
                self.used.setdefault(place, {}).setdefault(name, []).append(amount)

    def note(self, text):
        if text not in self.notes:
            self.notes.append(text)

    def _compare(self, what, of, to, values, reach):
        self.comparisons.append({"what": what, "of": of, "to": to, "values": values, "reach": {"op": reach[0], "value": reach[1]} if reach else None})

    def add_round(self, other):
        """The same row of another round. What a round has several values of counts as their median: they share its moment."""
        for place, values in other.values.items():
            self.values.setdefault(place, []).append(statistics.median(values))
        for place, used in other.used.items():
            for name, amounts in used.items():
                self.used.setdefault(place, {}).setdefault(name, []).append(statistics.median(amounts))
        mine = {(c["what"], c["of"]): c for c in self.comparisons}
        for c in other.comparisons:
            if (c["what"], c["of"]) not in mine:
                mine[c["what"], c["of"]] = dict(c, values=[])
                self.comparisons.append(mine[c["what"], c["of"]])
            mine[c["what"], c["of"]]["values"].append(statistics.median(c["values"]))
        for text in other.notes:
            self.note(text)

    def ratio(self, of, to, reach=None, what=None):
        """of / to, pair by pair."""
        if of in self.values and to in self.values:
            pairs = [a / b for a, b in zip(self.values[of], self.values[to]) if b]
            if pairs:
                self._compare(what or "%s / %s" % (of, to), of, to, pairs, reach)

    def speed(self, of, to):
        """How many times as fast: above 1 is better for `of`, whichever way the unit counts."""
        what = "%s: speed against %s" % (of, to)
        self.ratio(*((of, to) if self.better == "higher" else (to, of)), what=what)

    def absolute(self, of, reach, what=None, used=None):
        """The value itself, or something used, against a fixed limit."""
        values = self.used.get(of, {}).get(used) if used else self.values.get(of)
        if values:
            self._compare(what or (used or self.unit), of, None, values, reach)

    def json(self, group, machine=0.0):
        """`machine`: see interval(). Not for what is compared: a ratio is taken within a round, so what the machine does meanwhile is in both sides."""
        machine = 0.0 if self.unit in AMOUNTS else machine
        cells = []
        for place, values in self.values.items():
            used = {name: statistics.median(v) for name, v in self.used.get(place, {}).items()}
            cells.append({"place": place, **spread(values, machine), "used": used})
        comparisons = []
        for c in self.comparisons:
            c = {**c, **spread(c["values"]), "reached": None}
            if c["reach"]:
                c["reached"] = c["median"] >= c["reach"]["value"] if c["reach"]["op"] == ">=" else c["median"] <= c["reach"]["value"]
            comparisons.append(c)
        return {"row": self.row, "group": group, "title": self.title, "unit": self.unit, "better": self.better,
                "cells": cells, "comparisons": comparisons, "notes": self.notes}


def check(data):
    """Raises ValueError that says what is wrong with a result file."""
    def need(condition, text):
        if not condition:
            raise ValueError(text)

    def numbers(entry, where):
        for key in ("median", "min", "max"):
            need(isinstance(entry.get(key), (int, float)), "%s: no %s" % (where, key))
        need(isinstance(entry.get("values"), list) and entry["values"], "%s: no values" % where)
        need(entry["min"] <= entry["median"] <= entry["max"], "%s: the median is outside" % where)

    need(isinstance(data, dict) and data.get("schema") == SCHEMA, "not a result file of schema " + SCHEMA)
    need(isinstance(data.get("run"), dict), "no run")
    need(isinstance(data.get("rows"), list), "no rows")
    seen = set()
    for row in data["rows"]:
        where = str(row.get("row"))
        for key in ("row", "group", "title", "unit", "better"):
            need(isinstance(row.get(key), str), "%s: no %s" % (where, key))
        need(where not in seen, "%s: twice" % where)
        seen.add(where)
        need(row["better"] in ("higher", "lower"), "%s: better is neither higher nor lower" % where)
        need(isinstance(row.get("cells"), list) and row["cells"], "%s: no cells" % where)
        for cell in row["cells"]:
            need(isinstance(cell.get("place"), str), "%s: a cell without a place" % where)
            numbers(cell, "%s, %s" % (where, cell["place"]))
            need(isinstance(cell.get("used"), dict), "%s, %s: no used" % (where, cell["place"]))
        for comparison in row.get("comparisons", []):
            need(isinstance(comparison.get("what"), str), "%s: a comparison without a name" % where)
            numbers(comparison, "%s, %s" % (where, comparison["what"]))
    return data
