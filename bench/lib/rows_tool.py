"""What `sluice bench` itself costs: the same work by a plain loop of system calls, and by fio."""

import json
import os

import places
from places import Directory, run
from process import MIB
from results import Row
from rows_data import fio

LOOP = {"create": "create and close", "stat": "stat", "open_read": "open, read, close", "unlink": "unlink"}
BENCH, PLAIN, FIO = "sluice bench", "plain loop", "fio"
SECONDS = 3 # of each round of reads
LIMIT = 0.95  # an overhead below 5 %


def bench(place, only, **options):
    """{row: what `sluice bench` says}, one thread."""
    words = [w for name, value in options.items() for w in ("--" + name, str(value))]
    text = run(places.binary(), "bench", "--json-lines", "--only", only, "--directories", "private", "--rounds", "1", "--threads", "1", *words, place.path())
    return {r["row"]: r for r in map(json.loads, text.splitlines())}


def loop(place, files):
    text = run(places.tool("bench", "plain_loop"), place.path(), str(files))
    return {kind: float(rate) for kind, rate in map(str.split, text.splitlines())}


def tool(machine, out):
    files = 500 if machine.options.quick else 50_000
    size = (16 if machine.options.quick else 256) * MIB
    rows = {kind: Row("tool-" + kind, "%s in memory (tmpfs), 1 thread, by each tool" % what, "op/s") for kind, what in LOOP.items()}
    read = Row("tool-read", "random 4 KiB reads of a file of %d MiB in memory, by each tool" % (size // MIB), "op/s")
    # Where calls are fastest, so that what a tool adds shows most.
    with machine.places(lambda: Directory("memory", machine.memory)) as (place,):
        with open(place.path("large"), "wb") as f:
            for _ in range(size // MIB):
                f.write(os.urandom(MIB))
        # Each second round the other way round.
        for what in (BENCH, PLAIN, FIO)[::1 if machine.round % 2 == 0 else -1]:
            if what == PLAIN:
                for kind, rate in loop(place, files).items():
                    rows[kind].add(PLAIN, rate)
            elif what == BENCH:
                for kind, row in bench(place, ",".join(LOOP), files=files, time="1h").items():
                    if kind in rows:
                        rows[kind].add(BENCH, row["per_second"])
                read.add(BENCH, bench(place, "random_read_4k", size=size, time="%ds" % SECONDS)["random_read_4k"]["per_second"])
            else:
                read.add(FIO, fio(place, "buffered-read-4k", SIZE=size, SECONDS=SECONDS)["read"]["iops"])
    for row in rows.values():
        row.ratio(BENCH, PLAIN, (">=", LIMIT) if not machine.options.quick else None)
    read.ratio(BENCH, FIO, (">=", LIMIT) if not machine.options.quick else None)
    out.rows += [*rows.values(), read]
