"""Rows on names: create, stat, rename, unlink, small files; directories renamed and listed."""

import json
import multiprocessing
import os
import subprocess
import time

import places
from places import Null, Sluice, run
from process import cpu_s
from results import Row

LIBFUSE_LOOP = "null_fuse, libfuse's threads"
NULL_FDATASYNC = "null_fuse + fdatasync"
CHANGES = ("create", "rename", "unlink", "small", "small_replace", "small_unlink")
# More syncs for each change than this are not those that come every --sync-interval.
SYNCS = 0.3
TITLES = {
    "create": "create and close an empty file",
    "stat": "stat, from the kernel's cache where allowed",
    "stat_sync": "stat that asks the file system",
    "absent": "stat of a name that does not exist",
    "open_read": "open, read, close",
    "rename": "rename a file",
    "unlink": "unlink",
    "list": "list the whole directory",
    "small": "create, write 4 KiB, close",
    "small_read": "open, read 4 KiB, close, shuffled",
    "small_replace": "rename over another small file",
    "small_unlink": "unlink of small files",
}
# (operation, what of it is to be reached against the null file system)
REACH = {"create": 0.7, "stat": 0.7, "stat_sync": 0.7, "rename": 0.7, "unlink": 0.7, "small": 0.4}


def metabench(place, threads, files, at_row=None):
    """Runs `sluice bench` on names and small files; {operation: (per second, daemon's CPU µs per operation or None)}. Its
    rows are read as each ends, so that the daemon's time is known for each."""
    command = [places.binary(), "bench", "--json-lines", "--only", "metadata,small", "--directories", "private", "--rounds", "1", "--time", "1h",
               "--threads", str(threads), "--files", str(files), place.path()]
    found = {}
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        before = cpu_s(place.pid) if place.pid else 0
        for line in child.stdout:
            row = json.loads(line)
            if "error" in row:
                raise RuntimeError("%s on %s: %s" % (row["row"], place.name, row["error"]))
            now = cpu_s(place.pid) if place.pid else 0
            name = row["row"]
            if name in TITLES:
                found[name] = (row["per_second"], (now - before) * 1e6 / row["operations"] if place.pid else None)
                if at_row:
                    at_row(name)
            before = now
        errors = child.stderr.read()
        if child.wait() != 0:
            raise RuntimeError("sluice bench on %s: %s" % (place.name, errors.strip()))
    return found


def in_order(made, number):
    """Each second round the other way round, so that no place always follows the same other."""
    return made if number % 2 == 0 else made[::-1]


def syncs_per_operation(volume, files):
    """{operation: syncs of the disk for each call of one thread}, from the volume's own counter. Also warms up."""
    def syncs():
        return volume.metrics().get("sluice_meta_sync_seconds_count", 0)

    counts, names = [syncs()], []

    def at_row(name):
        names.append(name)
        counts.append(syncs())

    metabench(volume, 1, files, at_row)
    return {name: (b - a) / files for name, a, b in zip(names, counts, counts[1:])}


def with_fdatasync(rate, threads, sync_s):
    """What a file system would do that answers like the null one, after the disk has its data."""
    return threads / (threads / rate + sync_s)


def metadata(machine, out):
    gateway = machine.gateway()
    for threads in (1, 4):
        files = 100 if machine.options.quick else 2000 if threads == 1 else 1000
        rows = {op: Row("%s-%d" % (op.replace("_", "-"), threads), "%s, %d thread%s" % (title, threads, "s" * (threads > 1)), "op/s")
                for op, title in TITLES.items()}
        with machine.places("null", lambda: Sluice("sluice", gateway), lambda: Null(LIBFUSE_LOOP, "--libfuse-loop"),
                            lambda: Sluice("sluice --sync=always", gateway, options=["--sync", "always"]),
                            "local", "refs") as made:
            syncs = syncs_per_operation(made[1], min(files, 500))
            for place in made:
                if place is not made[1]:
                    metabench(place, threads, min(files, 200))
            null, sync_s = {}, machine.fdatasync_s()
            for place in in_order(made, machine.round):
                machine.say("%d thread%s: %s" % (threads, "s" * (threads > 1), place.name))
                found = metabench(place, threads, files)
                # The least of several looks: a moment when the disk was busy must not flatter.
                sync_s = min(sync_s, machine.fdatasync_s())
                null = found if place.name == "null_fuse" else null
                for op, (rate, cpu) in found.items():
                    rows[op].add(place.name, rate, cpu_us_per_op=cpu)
            for op, (rate, _) in null.items():
                rows[op].add(NULL_FDATASYNC, with_fdatasync(rate, threads, sync_s))
            out.used_fdatasync(sync_s)
        for op, row in rows.items():
            waited = op in CHANGES and syncs.get(op, 0) > SYNCS
            reach = (">=", REACH[op]) if op in REACH else None
            if waited:
                row.note("waits for the disk, so its reference has that wait added")
            row.ratio("sluice", NULL_FDATASYNC if waited else "null_fuse", reach)
            if waited:
                row.ratio("sluice", "null_fuse")
            row.ratio("sluice --sync=always", NULL_FDATASYNC if op in CHANGES else "null_fuse")
            out.rows.append(row)


def latency(machine, out):
    """Small files do not wait for the store: the same with 20 ms in front of it."""
    gateway = machine.gateway()
    for threads in (1, 4):
        files = 100 if machine.options.quick else 1500
        row = Row("small-latency-%d" % threads, "create, write 4 KiB, close, %d thread%s, the store 20 ms away" % (threads, "s" * (threads > 1)), "op/s")
        with machine.proxy(20) as proxy, machine.places(
                lambda: Sluice("sluice", gateway), lambda: Sluice("sluice, 20 ms", gateway, proxy=proxy)) as made:
            for place in made:
                metabench(place, threads, min(files, 200))
            for place in in_order(made, machine.round):
                machine.say("%d thread%s: %s" % (threads, "s" * (threads > 1), place.name))
                rate, cpu = metabench(place, threads, files)["small"]
                row.add(place.name, rate, cpu_us_per_op=cpu)
        row.ratio("sluice, 20 ms", "sluice", (">=", 0.9))
        out.rows.append(row)


def _do_all(function, work):
    for arguments in work:
        function(arguments)


def in_processes(function, work):
    """Four processes share the work. (Not a Pool: its threads and a fork can wait for each other for ever.)"""
    context = multiprocessing.get_context("fork")
    made = [context.Process(target=_do_all, args=(function, work[i::4])) for i in range(4)]
    for one in made:
        one.start()
    for one in made:
        one.join()
    if any(one.exitcode for one in made):
        raise RuntimeError("%s: a process ended with %s" % (function.__name__, [one.exitcode for one in made]))


def _fill(arguments):
    path, first, last, per_directory, data = arguments
    for i in range(first, last):
        if per_directory and (i % per_directory == 0 or i == first):
            at = "%s/d%05d" % (path, i // per_directory)
            os.makedirs(at, exist_ok=True)
        name = "%s/f%07d" % (at if per_directory else path, i)
        fd = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        if data:
            os.write(fd, data)
        os.close(fd)


def fill(path, count, per_directory=0, data=b""):
    """`count` files, by four processes."""
    os.makedirs(path, exist_ok=True)
    step = -(-count // 16)
    in_processes(_fill, [(path, i, min(i + step, count), per_directory, data) for i in range(0, count, step)])


def rename_dir(machine, out):
    count = 1000 if machine.options.quick else 1_000_000 if machine.options.full else 100_000
    row = Row("rename-dir", "rename a directory with %d files below it" % count, "ms", better="lower")
    gateway = machine.gateway()
    with machine.places(lambda: Sluice("sluice", gateway, options=["--no-settle"]), "local", "refs") as made:
        for place in made:
            machine.say("filling %s" % place.name)
            fill(place.path("a", "tree"), count, per_directory=1000)
            os.mkdir(place.path("b"))
        for number in range(6):  # there and back
            for place in in_order(made, number):
                one, other = place.path("a", "tree"), place.path("b", "tree")
                used = place.used()
                began = time.perf_counter()
                os.rename(*((one, other) if number % 2 == 0 else (other, one)))
                took = time.perf_counter() - began
                row.add(place.name, took * 1000, **used.end())
    row.absolute("sluice", ("<=", 5), "ms")
    row.absolute("sluice", ("<=", 0), "requests to the store", used="store_requests")
    row.note("with --no-settle, so that no background work is counted as the rename's")
    out.rows.append(row)


def ls(machine, out):
    count = 500 if machine.options.quick else 100_000
    warm = Row("ls-l", "ls -l of %d files in one directory, again" % count, "s", better="lower")
    cold = Row("ls-l-cold", "ls -l of them after a new mount (local disk: dropped caches)", "s", better="lower")
    gateway = machine.gateway()

    def list_once(place, row):
        used = place.used()
        began = time.perf_counter()
        run("ls", "-l", place.path("many"), env=dict(os.environ, LC_ALL="C"), stdout=subprocess.DEVNULL)
        took = time.perf_counter() - began
        row.add(place.name, took, **used.end(operations=count))

    with machine.places(lambda: Sluice("sluice", gateway, options=["--no-settle"]), "local", "refs") as made:
        for place in made:
            machine.say("filling %s" % place.name)
            fill(place.path("many"), count)
        for place in in_order(made, machine.round):
            machine.say(place.name)
            place.drop_caches()
            list_once(place, cold)
        for place in in_order(made, machine.round):
            machine.say("%s, again" % place.name)
            list_once(place, warm)
    warm.ratio("local", "sluice", (">=", 0.5), "speed against the local disk")
    cold.ratio("local", "sluice", None, "speed against the local disk")
    out.rows += [warm, cold]


def put_keys(gateway, bucket, count, prefix):
    """`count` small objects, by four processes of curl-like clients."""
    step = -(-count // 8)
    in_processes(_put_keys, [(gateway.port, gateway.access, gateway.secret, bucket, prefix, i, min(i + step, count)) for i in range(0, count, step)])


def _put_keys(arguments):
    port, access, secret, bucket, prefix, first, last = arguments
    client = places.Client("127.0.0.1", port, access, secret)
    for i in range(first, last):
        client.put(bucket, "%s%07d" % (prefix, i), b"x")


def list_prefix(machine, out):
    """The first listing of a prefix that nobody looked at, on the S3 server and on a directory."""
    quick, full = machine.options.quick, machine.options.full
    for kind, count in (("s3", 300 if quick else 100_000 if full else 20_000), ("file", 300 if quick else 100_000)):
        gateway = machine.gateway() if kind == "s3" else None
        row = Row("list-%s" % kind, "first listing of a prefix with %d keys, %s://" % (count, kind), "s", better="lower")
        with machine.places(lambda: Sluice("sluice", gateway, settle_delay="1h")) as (volume,):
            machine.say("%s: filling the bucket" % kind)
            if gateway:
                put_keys(gateway, volume.bucket, count, "data/")
            else:
                os.makedirs(os.path.join(volume.bucket, "data"))
                for i in range(count):
                    with open("%s/data/%07d" % (volume.bucket, i), "wb") as f:
                        f.write(b"x")
            machine.say("%s: bare listing" % kind)
            began = time.perf_counter()
            run(places.tool("tests", "tools", "store_tool"), volume.url.rstrip("/"), "list", "data/", env=volume.env, stdout=subprocess.DEVNULL)
            row.add("bare listing", time.perf_counter() - began)
            machine.say("%s: sluice" % kind)
            volume.fresh()
            used = volume.used()
            began = time.perf_counter()
            found = len(os.listdir(volume.path("data")))
            took = time.perf_counter() - began
            row.add("sluice", took, **used.end(operations=count))
            if found != count:
                raise RuntimeError("%d of %d keys were listed" % (found, count))
        row.ratio("sluice", "bare listing", ("<=", 1.2))
        if kind == "s3":
            row.note("the server scans the whole directory for each page, so its listing is quadratic")
        out.rows.append(row)
