"""Rows on the open layout: what it costs to bring files to their own keys, and to check and rebuild the metadata."""

import os
import shutil
import subprocess
import time

import places
import process
from places import Sluice, run
from results import Row
from rows_data import fio
from rows_meta import fill, put_keys

PARALLEL = 8  # files that settle works on at once
DELAY_S = 5   # settle_delay of these mounts
FILE = 64 << 10


def wait_settled(volume, limit=3600):
    end = time.monotonic() + limit
    while volume.request(op="drift", path="/")["files"]:
        if time.monotonic() > end:
            raise RuntimeError("files are still not settled after %d s" % limit)
        time.sleep(0.5)  # settle waits for a pause of the requests: looking must leave it some


def drop_pages(path):
    """The kernel's, of one file."""
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def commit(machine, out):
    """A job writes below _temporary and commits by renaming: until all is at its own key, and by how many requests."""
    count = 100 if machine.options.quick else 10_000
    drift = Row("commit-drift", "drift zero after the commit of %d files of 64 KiB, beyond the settle delay" % count, "s", better="lower")
    requests = Row("commit-requests", "requests for each of these files, from its writing to its own key", "requests", better="lower")
    once = Row("write-requests", "requests for each file that is written once to its own path", "requests", better="lower")
    gateway = machine.gateway()
    gateway.make_bucket("rawcopies")
    data = os.urandom(FILE)
    with machine.places(lambda: Sluice("sluice", gateway, settle_delay="%ds" % DELAY_S)) as (volume,):
        machine.say("bare reads and conditional writes")
        raw = machine.store_bench("rawcopies", "put,get,put_new,delete", FILE, count, PARALLEL)
        drift.add("bare GET and PUT", raw["get"]["seconds"] + raw["put_new"]["seconds"])
        machine.say("sluice")
        job = volume.path("job")
        used = volume.used()
        fill(os.path.join(job, "_temporary", "task"), count, per_directory=1000, data=data)
        before = volume.store()["requests"] - used.store["requests"]
        os.rename(os.path.join(job, "_temporary", "task"), os.path.join(job, "part"))
        began = time.monotonic()
        wait_settled(volume)
        took = time.monotonic() - began - DELAY_S
        spent = used.end(operations=count)
        drift.add("sluice", max(took, 0.01), **spent)
        requests.add("sluice", spent["store_requests"] / count, while_writing=before / count)
        used = volume.used()
        fill(volume.path("once"), count, per_directory=1000, data=data)
        wait_settled(volume)
        once.add("sluice", used.end()["store_requests"] / count)
    drift.ratio("sluice", "bare GET and PUT", ("<=", 1.2))
    once.absolute("sluice", ("<=", 1.1) if not machine.options.quick else None, "requests")
    out.rows += [drift, requests, once]


def backlog(machine, out):
    """A user's streams while settle has much to do."""
    size = (16 if machine.options.quick else 512) * process.MIB
    count = 100 if machine.options.quick else 8_000
    rows = {"write": Row("backlog-write", "write a file of %d MiB while %d MiB settle" % (size >> 20, count * FILE >> 20), "MiB/s"),
            "read": Row("backlog-read", "read it, cold, meanwhile", "MiB/s")}
    gateway = machine.gateway()
    data = os.urandom(FILE)

    def streams(volume, place):
        for kind, job in (("write", "seq-write"), ("read", "seq-read")):
            if kind == "read":
                volume.sluice("evict", volume.path("large"))
                drop_pages(volume.path("large"))
            result = fio(volume, job, SIZE=size)[kind]
            rows[kind].add(place, size / process.MIB / (result["runtime"] / 1000))
        os.unlink(volume.path("large"))

    with machine.places(lambda: Sluice("sluice", gateway, settle_delay="1s")) as (volume,):
        machine.say("without")
        wait_settled(volume)
        streams(volume, "nothing settles")
        machine.say("with a backlog")
        fill(volume.path("many"), count, per_directory=1000, data=data)
        time.sleep(1)
        streams(volume, "sluice")
        if not volume.request(op="drift", path="/")["files"]:
            rows["read"].note("the backlog was gone before the end of a round")
    for row in rows.values():
        row.ratio("sluice", "nothing settles", (">=", 0.9))
        out.rows.append(row)


def rebuild(machine, out):
    """The metadata is lost, or doubted."""
    quick, full = machine.options.quick, machine.options.full
    count = 300 if quick else 100_000 if full else 20_000
    listing = Row("rebuild", "rebuild of the names of %d files from the bucket (--no-attributes)" % count, "s", better="lower")
    check = Row("fsck", "fsck of these, records only", "s", better="lower")
    bucket = Row("fsck-bucket", "fsck of these with the bucket", "s", better="lower")
    gateway = machine.gateway()
    with machine.places(lambda: Sluice("sluice", gateway)) as (volume,):
        machine.say("filling the bucket")
        for i in range(0, count, 1000):
            put_keys(gateway, volume.bucket, min(1000, count - i), "d%04d/" % (i // 1000))
        volume.unmount()
        meta = os.path.join(volume.directory, "meta")
        commands = ((listing, "rebuild", "--no-attributes"), (check, "fsck"), (bucket, "fsck", "--bucket"))
        began = time.perf_counter()
        run(places.tool("tests", "tools", "store_tool"), volume.url.rstrip("/"), "list", "", env=volume.env, stdout=subprocess.DEVNULL)
        listing.add("bare listing", time.perf_counter() - began)
        shutil.rmtree(meta, ignore_errors=True)
        for row, command, *options in commands:
            began = time.perf_counter()
            run(places.binary(), command, volume.url, "--meta-dir", meta, *options, env=volume.env)
            row.add("sluice", time.perf_counter() - began)
        volume.mount()
    listing.ratio("bare listing", "sluice", (">=", 0.8), "rate against the bare listing")
    for row in (check, bucket):
        row.absolute("sluice", ("<=", 60 * count / 1e6) if not quick else None, "s")
        row.note("to reach: 60 s for 1,000,000 files")
    out.rows += [listing, check, bucket]
