"""Rows on writing that the local disk acknowledges (--durability=local), against a file on the same disk."""

import concurrent.futures
import os
import shutil
import time

import process
from places import Sluice
from results import Row
from rows_data import fio
from rows_meta import in_order

LINE = b"fifteen bytes.\n"
WRITEBACK = "sluice, writeback"
STORE = "sluice, store"
EACH_SYNCED = "local, each file synced"


def tiny_writes(place, count):
    """What Flink's sink does for each record: fstat, and two writes of 15 bytes; at the end fsync."""
    fd = os.open(place.path("tiny"), os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    began = time.perf_counter()
    for _ in range(count):
        os.fstat(fd)
        os.write(fd, LINE)
        os.write(fd, LINE)
    os.fsync(fd)
    took = time.perf_counter() - began
    os.close(fd)
    os.unlink(place.path("tiny"))
    return count / took


def checkpoint(place, files, size, sync=False):
    """The calls of a Flink checkpoint: state files by four threads, each made, written and closed; then the metadata, which is
    synced and renamed. Seconds. `sync`: with an fsync of each state file, which Flink leaves out."""
    directory, state = place.path("chk-1"), bytes(range(256)) * (size >> 8)
    began = time.perf_counter()
    os.mkdir(directory)

    def write(first):
        for i in range(first, files, 4):
            with open(os.path.join(directory, "state-%d" % i), "wb", buffering=0) as file:
                file.write(state)
                if sync:
                    os.fsync(file.fileno())

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    fd = os.open(os.path.join(directory, "._metadata.inprogress.1"), os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    for _ in range(files):
        os.write(fd, LINE)
    os.fsync(fd)
    os.close(fd)
    os.rename(os.path.join(directory, "._metadata.inprogress.1"), os.path.join(directory, "_metadata"))
    took = time.perf_counter() - began
    shutil.rmtree(directory)
    return took


def flink_checkpoint(machine, out):
    """A checkpoint of many state files, acknowledged by the local disk and by the store."""
    files, size = (50, 64 << 10) if machine.options.quick else (2000, 512 << 10)
    row = Row("flink-checkpoint", "the calls of a Flink checkpoint of %d MiB in %d files" % (files * size >> 20, files), "s", better="lower")
    gateway = machine.gateway()
    local_options = ["--durability", "local", "--upload-delay", "1h"]
    with machine.places(lambda: Sluice("sluice", gateway, options=local_options), lambda: Sluice(STORE, gateway), "local", "refs") as made:
        for place in in_order(made, machine.round):
            machine.say(place.name)
            used = place.used()
            row.add(place.name, checkpoint(place, files, size), **used.end(gib=files * size / (1 << 30)))
            if place.name == "local":
                row.add(EACH_SYNCED, checkpoint(place, files, size, sync=True))
    row.ratio("local", "sluice", (">=", 0.9), "speed against the local disk")
    row.ratio(EACH_SYNCED, "sluice", None, "speed against the local disk with each file synced, which is what a close of the class `local` promises")
    row.ratio("local", STORE, None, "speed against the local disk, acknowledged by the store")
    out.rows.append(row)


def local(machine, out):
    quick = machine.options.quick
    size = (32 if quick else 1024) * process.MIB
    syncs, records = (50, 1000) if quick else (2000, 100000)
    large = Row("local-seq-write", "write a file of %d MiB, fsync, close" % (size >> 20), "MiB/s")
    sync = Row("local-write-fsync", "random write of 4 KiB into a file of 32 MiB, fsync, each time", "operations/s")
    tiny = Row("local-tiny-writes", "%d times fstat and two writes of 15 bytes, then fsync" % records, "records/s")
    gateway = machine.gateway()
    # The upload comes after what is measured.
    options = ["--durability", "local", "--upload-delay", "1h"]
    with machine.places(lambda: Sluice("sluice", gateway, options=options),
                        lambda: Sluice(WRITEBACK, gateway, options=[*options, "--writeback"]), "local", "refs") as made:
        for place in made:
            fio(place, "seq-write", SIZE=32 * process.MIB)
            os.rename(place.path("large"), place.path("synced"))
        for place in in_order(made, machine.round):
            machine.say(place.name)
            used = place.used()
            took = fio(place, "seq-write", SIZE=size)["write"]["runtime"] / 1000
            large.add(place.name, size / process.MIB / took, **used.end(gib=size / (1 << 30)))
            os.unlink(place.path("large"))
            os.rename(place.path("synced"), place.path("large"))
            used = place.used()
            took = fio(place, "random-write-sync", SIZE=32 * process.MIB, AMOUNT=syncs * 4096)["write"]["runtime"] / 1000
            sync.add(place.name, syncs / took, **used.end(operations=syncs))
            os.rename(place.path("large"), place.path("synced"))
            used = place.used()
            tiny.add(place.name, tiny_writes(place, records), **used.end(operations=records))
    for name in ("sluice", WRITEBACK):
        large.ratio(name, "local", (">=", 0.9) if name == "sluice" else None)
        sync.ratio(name, "local", (">=", 0.9) if name == "sluice" else None)
        tiny.ratio(name, "local", None, "speed against the local disk")
    out.rows += [large, sync, tiny]
