"""The metadata service without mounts: what `sluice bench-service` asks of it, and what idle sessions hold."""

import json
import subprocess
import time

import places
import process
from places import Served, run
from results import Row

REACH = {"create-shared": 100_000, "create": 100_000, "lookup": 500_000}
TITLES = {"create-shared": "durable creates in one directory", "create": "durable creates, each connection in a directory of its own",
          "lookup": "lookups", "rename": "durable renames", "unlink": "unlinks", "unlink-shared": "unlinks in one directory"}


def idle_cpu(served, pid, sessions, seconds):
    """Per cent of a processor that the service takes while so many sessions only keep their leases."""
    command = [places.binary(), "bench-service", "--connections", str(sessions), "--idle", "%ds" % seconds, served.service.url("v")]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=served.env) as child:
        child.stdout.readline()  # they are there
        before, began = process.cpu_s(pid), time.monotonic()
        child.stdout.read()
        took = time.monotonic() - began
        if child.wait() != 0:
            raise RuntimeError("sluice bench-service --idle ended with %d" % child.returncode)
    return (process.cpu_s(pid) - before) / took * 100


def service_alone(machine, out):
    count = 20 if machine.options.quick else 1000
    sessions, seconds = (50, 2) if machine.options.quick else (1000, 20)
    gateway = machine.gateway()
    rows = {}
    with machine.places(lambda: Served("service", gateway)) as (served,):
        pid = served.service.process.pid
        machine.say("64 connections")
        for line in run(places.binary(), "bench-service", "--json-lines", "--count", str(count), served.service.url("v"), env=served.env).splitlines():
            found = json.loads(line)
            name = found["op"]
            row = rows.setdefault(name, Row("alone-" + name.replace("_", "-"), "service alone, 64 connections of 16 requests: %s" % TITLES.get(name, name), "op/s"))
            row.add("service", found["per_second"], p99_ms=found["latency"]["p99_us"] / 1000)
        for name, row in rows.items():
            row.absolute("service", (">=", REACH[name]) if name in REACH and not machine.options.quick else None)
        memory = Row("alone-idle", "memory of the service with %d idle sessions" % sessions, "MiB", better="lower")
        cpu = Row("alone-idle-cpu", "its processor time meanwhile", "% of a processor", better="lower")
        machine.say("%d idle sessions" % sessions)
        # Of a new service: what the rows above left in memory is not the sessions'.
        served.service.stop()
        served.service.start()
        pid = served.service.process.pid
        cpu.add("service", idle_cpu(served, pid, sessions, seconds))
        memory.add("service", process.memory(pid)["peak"] / process.MIB)
    goal = not machine.options.quick
    memory.absolute("service", ("<=", 64) if goal else None)
    cpu.absolute("service", ("<=", 1) if goal else None)
    out.rows += [*rows.values(), memory, cpu]
