"""A TCP proxy between a mount and the metadata service: delays, cuts and counts what goes through, on loopback.

    with WireProxy(service.port) as proxy:       # proxy.port is what the mount connects to
        proxy.delay_s = 0.02                     # one way, each way
        proxy.cut()                              # all connections end; new ones are let through
        proxy.hold("to_service")                 # nothing more goes that way, and nobody is told ("to_client", "both")
        proxy.let_go()
        proxy.hold_answers()                     # those to requests; what else comes from the service overtakes them (count=True)
        proxy.held                               # how many there are
        proxy.let_answers_go()
        proxy.seen                               # all bytes of both ways, if it was made with keep=True
        proxy.frames                             # [(direction, type)] of what went through, if it was made with count=True

`oldest=True` makes the client behind it one that speaks the first version of the protocol only. `lie=True` makes the client behind it a stale one: invalidations never reach it, and the service is told that it has confirmed them.
"""

import collections
import queue
import socket
import struct
import threading
import time

HELLO, REPLY, CONFIRM, INVALIDATE = 1, 5, 13, 12
DIRECTIONS = ("to_service", "to_client")


def leb128(number):
    out = bytearray()
    while True:
        low, number = number & 0x7F, number >> 7
        out.append(low | (0x80 if number else 0))
        if not number:
            return bytes(out)


def frame(kind, body):
    return struct.pack(">IB", len(body) + 1, kind) + body


class Frames:
    """Cuts a stream into frames."""

    def __init__(self):
        self.rest = b""

    def add(self, data):
        self.rest += data
        while len(self.rest) >= 5:
            length = struct.unpack(">I", self.rest[:4])[0]
            if len(self.rest) < 4 + length:
                return
            whole, self.rest = self.rest[:4 + length], self.rest[4 + length:]
            yield whole


class Link:
    """One connection of a client, and ours to the service."""

    def __init__(self, proxy, client):
        self.proxy = proxy
        service = socket.create_connection(("127.0.0.1", proxy.target), timeout=120)
        service.settimeout(None)
        for s in (client, service):
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sockets = {"to_service": (client, service), "to_client": (service, client)}
        self.queues = {d: queue.SimpleQueue() for d in DIRECTIONS}
        self.frames = {d: Frames() for d in DIRECTIONS}
        self.closed = False
        for direction in DIRECTIONS:
            for work in (self.receive, self.send):
                threading.Thread(target=work, args=(direction,), daemon=True).start()

    def receive(self, direction):
        source = self.sockets[direction][0]
        try:
            while True:
                data = source.recv(1 << 18)
                if not data:
                    break
                self.take(direction, data)
        except OSError:
            pass
        self.queues[direction].put(None)

    def take(self, direction, data):
        proxy = self.proxy
        if proxy.seen is not None:
            proxy.seen.append(data)
        due = time.monotonic() + proxy.delay_s
        if not proxy.looks:
            self.queues[direction].put((due, data))
            return
        for whole in self.frames[direction].add(data):
            if proxy.lie and direction == "to_client" and whole[4] == INVALIDATE:
                self.queues["to_service"].put((due, frame(CONFIRM, leb128(struct.unpack(">Q", whole[5:13])[0]))))
                proxy.swallowed += 1
                continue
            if proxy.oldest and direction == "to_service" and whole[4] == HELLO:
                whole = whole[:12] + b"\x01" + whole[13:]  # after "sluice" and the lowest version
            if proxy.count:
                proxy.frames.append((direction, whole[4]))
            if direction == "to_client" and whole[4] == REPLY and proxy.is_held(self, whole):
                continue
            self.queues[direction].put((due, whole))

    def send(self, direction):
        to = self.sockets[direction][1]
        try:
            while True:
                item = self.queues[direction].get()
                if item is None:
                    break
                due, data = item
                wait = due - time.monotonic()
                if wait > 0:
                    time.sleep(wait)
                self.proxy.open[direction].wait()
                if self.closed:
                    break
                to.sendall(data)
        except OSError:
            pass
        self.close()

    def close(self):
        self.closed = True
        for s in self.sockets["to_service"]:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            s.close()
        with self.proxy.lock:
            self.proxy.links.discard(self)


class WireProxy:
    def __init__(self, target, lie=False, count=False, oldest=False, keep=False):
        self.target, self.lie, self.count, self.oldest = target, lie, count, oldest
        self.seen = [] if keep else None
        self.looks = lie or count or oldest
        self.delay_s = 0.0
        self.frames = collections.deque()
        self.swallowed = 0
        self.links, self.lock = set(), threading.Lock()
        self.answers = None  # a list while they are held
        self.open = {d: threading.Event() for d in DIRECTIONS}
        self.let_go()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.accept, daemon=True)
        self.thread.start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            try:
                link = Link(self, client)
            except OSError:
                client.close()  # the service is down
                continue
            with self.lock:
                self.links.add(link)

    def cut(self):
        with self.lock:
            links = list(self.links)
        for link in links:
            link.close()

    def hold(self, direction):
        for d in DIRECTIONS:
            if direction in (d, "both"):
                self.open[d].clear()

    def hold_answers(self):
        with self.lock:
            self.answers = []

    @property
    def held(self):
        return len(self.answers or ())

    def is_held(self, link, whole):
        with self.lock:
            if self.answers is None:
                return False
            self.answers.append((link, whole))
            return True

    def let_answers_go(self):
        with self.lock:
            answers, self.answers = self.answers or (), None
            for link, whole in answers:
                link.queues["to_client"].put((0, whole))

    def let_go(self):
        for d in DIRECTIONS:
            self.open[d].set()

    def close(self):
        # A listener that another thread waits on is ended by shutdown, not by close.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.listener.close()
        self.cut()
        self.let_go()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
