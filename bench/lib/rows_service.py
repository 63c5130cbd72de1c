"""Rows on the metadata service: the same work on a mount of it and on an embedded mount."""

from places import Served, Sluice
from results import Row
from rows_meta import TITLES, in_order, metabench

REACH = {1: 0.6, 16: 0.8}


def service(machine, out):
    gateway = machine.gateway()
    for threads in (1, 16):
        files = 100 if machine.options.quick else 1000 if threads == 1 else 300
        rows = {op: Row("service-%s-%d" % (op.replace("_", "-"), threads), "%s, %d thread%s" % (title, threads, "s" * (threads > 1)), "op/s")
                for op, title in TITLES.items()}
        with machine.places(lambda: Served("service", gateway), lambda: Sluice("embedded", gateway)) as made:
            for place in made:
                metabench(place, threads, min(files, 100))
            for place in in_order(made, machine.round):
                machine.say("%d threads: %s" % (threads, place.name))
                for op, (rate, cpu) in metabench(place, threads, files).items():
                    rows[op].add(place.name, rate, cpu_us_per_op=cpu)
        for row in rows.values():
            row.ratio("service", "embedded", (">=", REACH[threads]))
            out.rows.append(row)
