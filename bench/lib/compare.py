"""What differs between two result files, and what may be noise."""

import math

from results import interval

# A difference smaller than this is none, however small the intervals are.
NOISE = 0.05


def number(x):
    if x == 0:
        return "0"
    if abs(x) >= 1000:
        return "{:,.0f}".format(x)
    return "%.3g" % x


def next_of(entry):
    """Where another run's median may be expected; None after one or two rounds. (Files of before have no "next".)"""
    return entry["next"] if "next" in entry else interval(entry["values"])


def with_interval(entry):
    found = next_of(entry)
    if not found or found[0] == found[1]:
        return number(entry["median"])
    return "%s (%s…%s)" % (number(entry["median"]), number(found[0]), number(found[1]))


def machine_shift(before, after):
    """({loop: how much faster it is in `after`}, the largest of these as a factor of 1 or more)."""
    old, new = before["run"].get("machine", {}), after["run"].get("machine", {})
    shifts = {name: new[name]["median"] / old[name]["median"] for name in new if name in old}
    return shifts, math.exp(max((abs(math.log(x)) for x in shifts.values()), default=0))


def entries(data):
    """{(row, what): (entry, unit, whether more is better, whether the machine's own speed is in it)}"""
    found = {}
    for row in data["rows"]:
        higher = row["better"] == "higher"
        for cell in row["cells"]:
            found[row["row"], cell["place"]] = (cell, row["unit"], higher, True)
        for c in row["comparisons"]:
            if c["to"]:
                more = c["reach"]["op"] == ">=" if c["reach"] else higher or "speed" in c["what"]
                found[row["row"], c["what"]] = (c, "times", more, False)
    return found


def compare(before, after):
    """([(worse, text)] of all that differs beyond the noise: the intervals of both files do not touch; [note])."""
    old, found, unknown = entries(before), [], set()
    shifts, shift = machine_shift(before, after)
    for key, (now, unit, higher, timed) in entries(after).items():
        was = old[key][0] if key in old else None
        if not was or not was["median"]:
            continue
        first, second = next_of(was), next_of(now)
        if not first or not second:
            unknown.add(key[0])
            continue
        widened = shift if timed else 1
        apart = second[0] > first[1] * widened or second[1] * widened < first[0]
        change = now["median"] / was["median"] - 1
        if not apart or abs(change) < NOISE:
            continue
        worse = (change < 0) == higher
        found.append((worse, "%s %s, %s: %s %s -> %s (%+.0f %%)" % (
            "SLOWER" if worse else "better", *key, unit, with_interval(was), with_interval(now), change * 100)))
    notes = []
    if shift > 1 + NOISE:
        notes.append("the machine itself is another one: %s; only what differs by more is named" % ", ".join(
            "%s %+.0f %%" % (name.replace("machine_", ""), (x - 1) * 100) for name, x in shifts.items()))
    if unknown:
        notes.append("not compared, since fewer than three rounds say nothing of the next: %s" % ", ".join(sorted(unknown)))
    return found, notes
