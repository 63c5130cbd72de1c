"""Rows on what is fetched from the store for what is asked, cold."""

import importlib.util
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time

import process
from places import Sluice
from results import Row
from rows_data import PART, large_size, write_large

PAGE = 128 << 10
STREAMS = 8


def sent(gateway):
    return process.io(gateway.process.pid)["wchar"]


def fetched(machine, out):
    """Random reads of 4 KiB (a page is fetched for each) and of 1 MiB."""
    size = large_size(machine)
    gateway = machine.gateway()
    with machine.places(lambda: Sluice("sluice", gateway)) as (volume,):
        machine.say("filling")
        write_large(volume, size)
        for length, name, count, reach in ((4096, "4 KiB", 200, 32), (1 << 20, "1 MiB", 24, 1.1)):
            row = Row("fetched-%s" % name.lower().replace(" ", ""), "bytes fetched for each byte of cold random %s reads of %d MiB" % (name, size >> 20),
                      "bytes", better="lower")
            machine.say(name)
            rng = random.Random(machine.round)
            unit = max(length, PAGE)
            offsets = [at + rng.randrange(0, unit - length + 1, 4096) for at in rng.sample(range(0, size, unit), count)]
            volume.drop_caches()
            with open(volume.path("large"), "rb", buffering=0) as f:
                os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
                used = volume.used()
                for offset in offsets:
                    if len(os.pread(f.fileno(), length, offset)) != length:
                        raise RuntimeError("a short read")
                spent = used.end(operations=count)
                row.add("sluice", spent["store_read_mib"] * process.MIB / (count * length), **spent)
            row.absolute("sluice", ("<=", reach))
            out.rows.append(row)


def read_streams(path, size, count):
    """So many threads read a part of the file each; bytes/s of all."""
    def one(number):
        with open(path, "rb", buffering=0) as f:
            f.seek(size // count * number)
            left = size // count
            while left > 0:
                left -= len(f.read(min(left, 1 << 20)))

    threads = [threading.Thread(target=one, args=(n,)) for n in range(count)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return size / (time.perf_counter() - began)


def streams(machine, out):
    size = large_size(machine)
    row = Row("seq-read-8", "read a cold file of %d MiB by %d threads, a part each" % (size >> 20, STREAMS), "MiB/s")
    gateway = machine.gateway()
    gateway.make_bucket("rawstreams")
    with machine.places(lambda: Sluice("sluice", gateway)) as (volume,):
        machine.say("filling")
        write_large(volume, size)
        raw = machine.store_bench("rawstreams", "parts,range", PART, size // PART, STREAMS)["range"]
        row.add("parallel range GETs", raw["mib_per_second"], cpu_s_per_gib=raw["cpu_s_gib"])
        volume.drop_caches()
        used = volume.used()
        row.add("sluice", read_streams(volume.path("large"), size, STREAMS) / process.MIB, **used.end(gib=size / (1 << 30)))
    row.ratio("sluice", "parallel range GETs", (">=", 0.9))
    out.rows.append(row)


QUERY = """
import duckdb, sys
db = duckdb.connect(config={"threads": "2"})
print(db.sql("SELECT count(*), sum(c3 % 1000), max(c7), min(c11) FROM '" + sys.argv[1] + "'").fetchall())
"""
MAKE = """
import duckdb, sys
duckdb.sql("COPY (SELECT " + ", ".join("hash(i * 16 + %d) AS c%d" % (c, c) for c in range(16)) + " FROM range(" + sys.argv[2] + ") r(i)) TO '"
           + sys.argv[1] + "' (FORMAT parquet, ROW_GROUP_SIZE 120000)")
print(duckdb.sql("SELECT sum(total_compressed_size) FROM parquet_metadata('" + sys.argv[1] + "') WHERE column_id IN (3, 7, 11)").fetchall()[0][0])
"""


def python(program, *arguments):
    return subprocess.run([sys.executable, "-c", program, *map(str, arguments)], check=True, stdout=subprocess.PIPE, text=True, timeout=600).stdout.strip()


def columns(machine, out):
    """DuckDB asks for 3 of the 16 columns of a Parquet file; what these take in the file is what is asked for."""
    row = Row("columns", "bytes fetched for each byte of 3 of 16 Parquet columns, cold, by DuckDB", "bytes", better="lower")
    took = Row("columns-time", "that query", "s", better="lower")
    if not importlib.util.find_spec("duckdb"):
        machine.say("Python has no duckdb here: left out")
        return
    gateway = machine.gateway()
    with tempfile.TemporaryDirectory(dir=machine.options.work) as local, machine.places(lambda: Sluice("sluice", gateway)) as (volume,):
        file = os.path.join(local, "t.parquet")
        asked = int(python(MAKE, file, 500000 if machine.options.quick else 8000000))
        want = python(QUERY, file)
        shutil.copy(file, volume.path("t.parquet"))
        volume.settle()
        volume.drop_caches()
        for name in ("sluice", "sluice, warm"):
            before, used, began = sent(gateway), volume.used(), time.perf_counter()
            if python(QUERY, volume.path("t.parquet")) != want:
                raise RuntimeError("another answer than from the local disk")
            took.add(name, time.perf_counter() - began, **used.end(operations=1))
            row.add(name, (sent(gateway) - before) / asked)
        began = time.perf_counter()
        python(QUERY, file)
        took.add("local", time.perf_counter() - began)
    row.absolute("sluice", ("<=", 1.2))
    out.rows += [row, took]
