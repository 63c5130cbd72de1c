"""Rows on bytes: large files written and read, random reads; memory under streams."""

import json
import os
import random
import statistics
import time

import process
from places import ROOT, Sluice, bare_ranges, run
from results import Row
from rows_meta import in_order

PART = 8 << 20
BLOCK = 128 << 10
# Were all processors busy all the time with the server, its bare client, fio, and a FUSE daemon that does nothing. What a file system does itself is not in it.
ALLOWED = "all that the processors allow"
AND_FUSE = "bare range GETs + null_fuse"


def fio(place, job, **values):
    """Runs bench/jobs/JOB.fio in a place; its result for the (joined) job."""
    env = dict(os.environ, DIRECTORY=place.path(), FILE="large", **{k: str(v) for k, v in values.items()})
    text = run("fio", "--output-format=json", os.path.join(ROOT, "bench", "jobs", job + ".fio"), env=env)
    # Notes may stand before the JSON.
    return json.loads(text[text.index("{"):])["jobs"][0]


def large_size(machine):
    return (64 if machine.options.quick else 4096 if machine.options.full else 1024) * process.MIB


def null_cpu_s(machine, job, size):
    """Processor time of fio and of a FUSE daemon that does nothing, for the same calls."""
    with machine.places("null") as (place,):
        with open(place.path("large"), "wb") as f:
            f.truncate(size if job == "seq-read" else 0)
        daemon = process.cpu_s(place.pid)
        result = fio(place, job, SIZE=size)
        return process.cpu_s(place.pid) - daemon + (result["usr_cpu"] + result["sys_cpu"]) / 100 * result["job_runtime"] / 1000


def client_and_server_s(raw, size):
    return raw["cpu_s_gib"] * size / (1 << 30) + raw["server_cpu_s"]


def seq_write(machine, out):
    size = large_size(machine)
    gib = size / (1 << 30)
    row = Row("seq-write", "write a file of %d MiB, fsync, close" % (size >> 20), "MiB/s")
    gateway = machine.gateway()
    gateway.make_bucket("rawwrite")
    with machine.places(lambda: Sluice("sluice", gateway), "local", "refs") as made:
        machine.say("parallel PUTs")
        server = process.cpu_s(gateway.process.pid)
        raw = machine.store_bench("rawwrite", "put,delete", PART, size // PART, 8)["put"]
        row.add("parallel PUTs", raw["mib_per_second"], cpu_s_per_gib=raw["cpu_s_gib"],
                server_cpu_s_per_gib=(process.cpu_s(gateway.process.pid) - server) / gib)
        machine.say("what the processors allow")
        gateway.make_bucket("rawparts")
        parts = machine.store_bench("rawparts", "parts", PART, size // PART, 8)
        # The server joins the parts by one thread; before that all processors may be busy.
        least = parts["complete"]["seconds"] + (client_and_server_s(parts["parts"], size) + null_cpu_s(machine, "seq-write", size)) / os.cpu_count()
        row.add(ALLOWED, size / process.MIB / least)
        for place in in_order(made, machine.round):
            machine.say(place.name)
            used, server = place.used(), process.cpu_s(gateway.process.pid)
            result = fio(place, "seq-write", SIZE=size)
            took = result["write"]["runtime"] / 1000
            row.add(place.name, size / process.MIB / took, **used.end(gib=gib),
                    **({"server_cpu_s_per_gib": (process.cpu_s(gateway.process.pid) - server) / gib} if place.pid else {}))
            os.unlink(place.path("large"))
    row.ratio("sluice", "parallel PUTs", (">=", 0.9))
    row.ratio("sluice", ALLOWED)
    row.absolute("sluice", ("<=", 0.8), "daemon CPU, s/GiB", used="cpu_s_per_gib")
    out.rows.append(row)


def write_large(place, size):
    block = random.Random(1).randbytes(1 << 20)
    with open(place.path("large"), "wb") as f:
        for i in range(size >> 20):
            f.write(i.to_bytes(8, "big") + block[8:])
    if isinstance(place, Sluice):
        place.settle()


def seq_read(machine, out):
    size = large_size(machine)
    gib = size / (1 << 30)
    row = Row("seq-read", "read a cold file of %d MiB" % (size >> 20), "MiB/s")
    gateway = machine.gateway()
    gateway.make_bucket("rawread")
    with machine.places(lambda: Sluice("sluice", gateway), "local", "refs") as made:
        for place in made:
            machine.say("filling %s" % place.name)
            write_large(place, size)
        machine.say("parallel range GETs")
        raw = machine.store_bench("rawread", "parts,range", PART, size // PART, 8)["range"]
        row.add("parallel range GETs", raw["mib_per_second"], cpu_s_per_gib=raw["cpu_s_gib"], server_cpu_s_per_gib=raw["server_cpu_s"] / gib)
        machine.say("what the processors allow")
        least = (client_and_server_s(raw, size) + null_cpu_s(machine, "seq-read", size)) / os.cpu_count()
        row.add(ALLOWED, size / process.MIB / least)
        for place in in_order(made, machine.round):
            machine.say(place.name)
            place.drop_caches()
            used = place.used()
            result = fio(place, "seq-read", SIZE=size)
            row.add(place.name, size / process.MIB / (result["read"]["runtime"] / 1000), **used.end(gib=gib))
    row.ratio("sluice", "parallel range GETs", (">=", 0.9))
    row.ratio("sluice", ALLOWED)
    row.absolute("sluice", ("<=", 0.8), "daemon CPU, s/GiB", used="cpu_s_per_gib")
    out.rows.append(row)


def random_reads(place, offsets):
    """Seconds of each read of a block, one at a time."""
    times = []
    with open(place.path("large"), "rb", buffering=0) as f:
        for offset in offsets:
            began = time.perf_counter()
            data = os.pread(f.fileno(), BLOCK, offset)
            times.append(time.perf_counter() - began)
            if len(data) != BLOCK:
                raise RuntimeError("a short read")
    return times


def random_read(machine, out):
    size = large_size(machine)
    asked = (2 if machine.options.quick else 25) * process.MIB
    fetched = Row("random-read-bytes", "bytes fetched for %d MiB of cold random 128 KiB reads of %d MiB" % (asked >> 20, size >> 20), "MiB", better="lower")
    mean = Row("random-read-latency", "mean latency of those", "ms", better="lower")
    gateway = machine.gateway()
    with machine.places(lambda: Sluice("sluice", gateway), "local", "refs") as made:
        volume = made[0]
        for place in made:
            machine.say("filling %s" % place.name)
            write_large(place, size)
        offsets = random.Random(machine.round).sample(range(0, size, BLOCK), asked // BLOCK)
        machine.say("bare range GETs")
        server = process.io(gateway.process.pid)["wchar"]
        times = bare_ranges(gateway, volume.bucket, "large", offsets, BLOCK)
        mean.add("bare range GETs", statistics.mean(times) * 1000, p99_ms=sorted(times)[len(times) * 99 // 100] * 1000)
        fetched.add("bare range GETs", (process.io(gateway.process.pid)["wchar"] - server) / process.MIB)
        with machine.places("null") as (null,):
            with open(null.path("large"), "wb") as f:
                f.truncate(size)
            mean.add(AND_FUSE, (statistics.mean(times) + statistics.mean(random_reads(null, offsets))) * 1000)
        for place in in_order(made, machine.round):
            machine.say(place.name)
            place.drop_caches()
            server, used = process.io(gateway.process.pid)["wchar"], place.used()
            times = random_reads(place, offsets)
            spent = used.end(operations=len(offsets))
            mean.add(place.name, statistics.mean(times) * 1000, p99_ms=sorted(times)[len(times) * 99 // 100] * 1000, **spent)
            if place is volume:
                fetched.add(place.name, (process.io(gateway.process.pid)["wchar"] - server) / process.MIB, **spent)
    fetched.absolute("sluice", ("<=", 1.1 * asked / process.MIB), "MiB that the server sent")
    mean.ratio("sluice", "bare range GETs", ("<=", 1.3))
    mean.ratio("sluice", AND_FUSE)
    out.rows += [fetched, mean]


def memory(machine, out):
    """Resident memory: idle, and the most while 16 writers stream."""
    size = (4 if machine.options.quick else 256) * process.MIB
    idle = Row("memory-idle", "resident memory of a mount, idle", "MiB", better="lower")
    busy = Row("memory-writers", "most resident memory, 16 writers x %d MiB" % (size >> 20), "MiB", better="lower")
    gateway = machine.gateway()
    with machine.places(lambda: Sluice("sluice", gateway)) as (volume,):
        os.listdir(volume.mountpoint)
        idle.add("sluice", process.memory(volume.pid)["rss"] / process.MIB)
        used = volume.used()
        result = fio(volume, "writers", SIZE=size, JOBS=16)
        spent = used.end(gib=16 * size / (1 << 30))
        buffers = volume.request(op="status")["mount"]["data"]["buffer_peak_bytes"] / process.MIB
        busy.add("sluice", process.memory(volume.pid)["peak"] / process.MIB, buffer_peak_mib=buffers,
                 mib_s=result["write"]["bw_bytes"] / process.MIB, **spent)
    idle.absolute("sluice", ("<=", 64), "MiB")
    busy.absolute("sluice", ("<=", 256), "MiB")
    out.rows += [idle, busy]
