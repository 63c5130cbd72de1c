"""The one schema of results (docs/benchmarks.md), and its arithmetic.

A file: {"schema": "sluice-bench/1", "run": {…}, "rows": [row, …]}
A row:  {"row": id, "group": what --only takes, "title": text, "unit": text, "better": "higher"|"lower",
         "cells": [cell, …], "comparisons": [comparison, …], "notes": [text, …]}
A cell: {"place": name, "median": x, "min": x, "max": x, "values": [one for each round],
         "used": {name: number}}        what the daemon and the store spent, medians over the rounds
A comparison: {"what": text, "of": place, "to": place or null, "median": x, "min": x, "max": x, "values": […],
         "reach": {"op": ">="|"<=", "value": x} or null, "reached": bool or null}
A comparison's values are taken pair by pair: both sides of a pair ran one after the other in the same round.
"""

import statistics

SCHEMA = "sluice-bench/1"


def spread(values):
    values = [float(v) for v in values]
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "values": values}


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
        op, limit = reach if reach else (None, None)
        entry = {"what": what, "of": of, "to": to, **spread(values),
                 "reach": {"op": op, "value": limit} if reach else None, "reached": None}
        if reach:
            entry["reached"] = entry["median"] >= limit if op == ">=" else entry["median"] <= limit
        self.comparisons.append(entry)

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

    def json(self, group):
        cells = []
        for place, values in self.values.items():
            used = {name: statistics.median(v) for name, v in self.used.get(place, {}).items()}
            cells.append({"place": place, **spread(values), "used": used})
        return {"row": self.row, "group": group, "title": self.title, "unit": self.unit, "better": self.better,
                "cells": cells, "comparisons": self.comparisons, "notes": self.notes}


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
