"""From close() on one mount of a service to the new content on another one that has the old one in its caches, over a slow network."""

import os
import socket
import subprocess
import sys
import threading
import time

from places import Served
from results import Row
from wire_proxy import WireProxy

ROUND_TRIPS_MS = (1, 20)
PAYLOAD = 4096
PINGS = 20

# Reads until the content is another one; a process of its own, so that it does not keep the proxies from their work.
WATCH = """
import os, sys, time
path, old = sys.argv[1], None
while True:
    fd = os.open(path, os.O_RDONLY)
    now = os.read(fd, 8192)
    os.close(fd)
    if old is None:
        old = now
        print("ready", flush=True)
    elif now != old:
        print(time.monotonic_ns(), flush=True)
        break
    time.sleep(0.0001)
"""


def echo(listener):
    with listener.accept()[0] as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := client.recv(64):
            client.sendall(data)


def round_trips(delays_ms):
    """{delay in ms: the shortest round trip in ms} through a proxy that delays so, without what it takes with no delay: a sleep is a little longer than it was told to be."""
    found = {}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=echo, args=(listener,))
        thread.start()
        with WireProxy(listener.getsockname()[1]) as proxy, socket.create_connection(("127.0.0.1", proxy.port)) as s:
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for ms in (0, *delays_ms):
                proxy.delay_s = ms / 2000
                times = []
                for _ in range(PINGS):
                    began = time.monotonic_ns()
                    s.sendall(b"ping")
                    s.recv(64)
                    times.append((time.monotonic_ns() - began) / 1e6)
                found[ms] = min(times) - found.get(0, 0)
        thread.join()
    return found


class Far(Served):
    """A mount whose way to the service goes through a proxy that delays."""

    def __init__(self, name, gateway, first=None):
        self.first, self.proxy = first, None
        super().__init__(name, gateway)

    def mount(self, *extra):
        if self.first:
            self.service = self.first.service
        super().mount(*extra)

    def command(self, *extra):
        self.proxy = self.proxy or WireProxy(self.service.port)
        return [word.replace(":%d/" % self.service.port, ":%d/" % self.proxy.port) if word.startswith("sluice://") else word
                for word in super().command(*extra)]

    def close(self):
        if self.first:
            self.service = None
        super().close()
        if self.proxy:
            self.proxy.close()


def once(writer, reader, number):
    """Seconds from the close on the one mount until a program on the other one has read the new content."""
    name = "f%d" % number
    with open(writer.path(name), "wb") as f:
        f.write(b"1" * PAYLOAD)
    for _ in range(3):
        with open(reader.path(name), "rb") as f:
            if f.read() != b"1" * PAYLOAD:
                raise RuntimeError("the other mount has another content")
    with subprocess.Popen([sys.executable, "-c", WATCH, reader.path(name)], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as watch:
        watch.stdout.readline()
        fd = os.open(writer.path(name), os.O_WRONLY)
        os.pwrite(fd, b"2" * PAYLOAD, 0)
        time.sleep(0.05)
        began = time.monotonic_ns()
        os.close(fd)
        closed = time.monotonic_ns()
        seen = int(watch.stdout.readline())
    return (seen - began) / 1e9, (closed - began) / 1e9


def push(machine, out):
    gateway = machine.gateway()
    counts = 2 if machine.options.quick else 5
    with machine.places(lambda: Far("writer", gateway)) as (writer,), machine.places(lambda: Far("reader", gateway, writer)) as (reader,):
        rows = [(ms, Row("push-%d" % ms, "from close on one mount to the new content on another, round trip of %d ms" % ms, "round trips", better="lower"))
                for ms in ROUND_TRIPS_MS]
        base, trips = 0, round_trips(ROUND_TRIPS_MS)
        near = Row("push-0", "the same without a delay", "ms", better="lower")
        number = 0
        for ms, row in [(0, near), *rows]:
            for far in (writer, reader):
                far.proxy.delay_s = ms / 2000
            seen, closed = [], []
            for _ in range(counts):
                number += 1
                a, b = once(writer, reader, number)
                seen.append(a)
                closed.append(b)
            if ms:
                row.add("service", (min(seen) * 1000 - base) / trips[ms], close_round_trips=min(closed) * 1000 / trips[ms], whole_ms=min(seen) * 1000,
                        round_trip_ms=trips[ms])
            else:
                base = min(seen) * 1000
                row.add("service", base, close_ms=min(closed) * 1000)
        for far in (writer, reader):
            far.proxy.delay_s = 0
        for _, row in rows:
            row.absolute("service", ("<=", 2) if not machine.options.quick else None)
            row.note("without what the mounts, the service, its disk and the proxies take: push-0 of the same round; the round trip as a ping through a proxy takes it")
        out.rows += [near, *(row for _, row in rows)]
