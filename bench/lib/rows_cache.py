"""Rows on the SSD cache: warm reads, against the same reads of a file on the same disk."""

import os
import random
import time

import process
from places import Sluice
from results import Row
from rows_data import fio, write_large
from rows_meta import in_order

# row, what it is, fio's values, what is to be reached with passthrough and without
READS = [
    ("warm-random-1", "warm random direct reads of 4 KiB, one at a time", dict(PATTERN="randread", BLOCK=4096, DEPTH=1, JOBS=1), 0.95, 0.6),
    ("warm-random-16", "warm random direct reads of 4 KiB, 16 at a time", dict(PATTERN="randread", BLOCK=4096, DEPTH=16, JOBS=1), 0.95, 0.6),
    ("warm-random-4x1", "warm random direct reads of 4 KiB, 4 threads, one at a time each", dict(PATTERN="randread", BLOCK=4096, DEPTH=1, JOBS=4), 0.95, 0.6),
    ("warm-seq-1", "warm sequential direct reads of 1 MiB, one at a time", dict(PATTERN="read", BLOCK=1 << 20, DEPTH=1, JOBS=1), 0.95, 0.6),
    ("warm-seq-4x1", "warm sequential direct reads of 1 MiB, 4 threads", dict(PATTERN="read", BLOCK=1 << 20, DEPTH=1, JOBS=4), 0.95, 0.6),
]
PLAIN = "sluice, no passthrough"


def warm(place, *names):
    """All of it is in the cache, and was checked: the next open is passed through."""
    if isinstance(place, Sluice):
        place.sluice("warm", *[place.path(name) for name in names])


def warm_reads(machine, out):
    size = (32 if machine.options.quick else 512) * process.MIB
    seconds = 1 if machine.options.quick else 3
    gateway = machine.gateway()
    rows = {name: Row(name, text, "operations/s" if values["BLOCK"] == 4096 else "MiB/s") for name, text, values, _, _ in READS}
    with machine.places(lambda: Sluice("sluice", gateway), lambda: Sluice(PLAIN, gateway, options=["--no-passthrough"]), "local", "refs") as made:
        for place in made:
            machine.say("filling %s" % place.name)
            write_large(place, size)
            warm(place, "large")
        for name, _, values, _, _ in READS:
            for place in in_order(made, machine.round):
                machine.say("%s, %s" % (name, place.name))
                used = place.used()
                result = fio(place, "warm-read", SIZE=size, SECONDS=seconds, **values)["read"]
                gib = result["io_bytes"] / (1 << 30)
                value = result["iops"] if values["BLOCK"] == 4096 else result["bw_bytes"] / process.MIB
                rows[name].add(place.name, value, **used.end(gib=gib))
    for name, _, values, passed, plain in READS:
        row = rows[name]
        row.ratio("sluice", "local", (">=", passed))
        row.ratio(PLAIN, "local", (">=", plain))
        if name == "warm-seq-1":
            row.absolute("sluice", ("<=", 0.01), "daemon CPU, s/GiB", used="cpu_s_per_gib")
        out.rows.append(row)


def read_files(place, names):
    began = time.perf_counter()
    for name in names:
        fd = os.open(place.path(name), os.O_RDONLY)
        if len(os.read(fd, 8192)) != 4096:
            raise RuntimeError("a short read")
        os.close(fd)
    return len(names) / (time.perf_counter() - began)


def warm_files(machine, out):
    count = 200 if machine.options.quick else 10000
    gateway = machine.gateway()
    row = Row("warm-open-read-close", "open, read and close %d warm files of 4 KiB, shuffled" % count, "files/s")
    with machine.places(lambda: Sluice("sluice", gateway), "null", "local", "refs") as made:
        for place in made:
            machine.say("filling %s" % place.name)
            for i in range(count):
                with open(place.path("f%d" % i), "wb") as f:
                    f.write(bytes(4096))
        names = ["f%d" % i for i in range(count)]
        random.Random(machine.round).shuffle(names)
        for place in in_order(made, machine.round):
            machine.say(place.name)
            read_files(place, names)
            used = place.used()
            row.add(place.name, read_files(place, names), **used.end(operations=count))
    row.ratio("sluice", "null_fuse", (">=", 0.5))
    row.ratio("sluice", "local", None, "speed against the local disk")
    out.rows.append(row)


def cache(machine, out):
    warm_reads(machine, out)
    warm_files(machine, out)
