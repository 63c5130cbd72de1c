"""An HTTP/1.1 proxy between an S3 client and a real server that fails on purpose.

    with FaultProxy(gateway.host, gateway.port) as proxy:
        proxy.rules([{"action": "status", "status": 503, "method": "PUT", "count": 2}])
        env["AWS_ENDPOINT_URL_S3"] = proxy.endpoint
        ...
        proxy.stats()["hits"]     # how often each rule acted

It runs in a process of its own and is told what to do over a control port. The first rule that
matches and has something left acts; "latency", "strip" and "classes" rules act and let later ones act, too.

A rule: {"action": NAME, ...}, and what it matches (all optional):
  "method": "PUT"        "path": regular expression, searched in path and query
  "with": "x-amz-"       beginning of the name of a header that the request has
  "skip": 3              passes over the first three matches
  "count": 2             acts twice; 0 or none: always
Actions and what they take:
  latency   ms                       waits before it forwards
  strip     headers [names]          removes request headers (default if-match, if-none-match)
  classes   -                        remembers storage classes and tells them, for a server without them
  status    status, code, retry_after, message   an S3 error in place of an answer
  reply     status, headers {}, body any answer in its place
  html      status                   a web page in its place
  reset     -                        resets the connection before it forwards
  hang      -                        takes the request and never answers
  lost_reply  reset                  forwards, waits for the answer, closes without sending it
  truncate  after                    closes after so many bytes of the answer's body
  reset_body after                   resets there
  trickle   bytes_per_s, after       sends the answer's body slowly from there on
  stall     after                    sends so many bytes of the body and then nothing
  corrupt   at                       flips a bit of the answer's body
  corrupt_upload at                  flips a bit of the request's body
  slow_upload bytes_per_s            takes the request's body slowly
  replace   old, new                 replaces text in the answer's body (not in one that comes in chunks)
  header    name, value              replaces a header of the answer (value null: removes it)
"""

import asyncio
import http.client
import json
import os
import re
import socket
import struct
import subprocess
import sys
import urllib.parse

CHUNK = 1 << 18
HEAD_MAX = 1 << 16
WAIT_S = 120
PASSING = ("latency", "strip", "classes")


class Rule:
    def __init__(self, spec):
        self.spec = spec
        self.action = spec["action"]
        self.method = spec.get("method")
        self.path = re.compile(spec["path"]) if spec.get("path") else None
        self.name = spec.get("with")
        self.skip = spec.get("skip", 0)
        self.count = spec.get("count", 0)
        self.seen = 0
        self.hits = 0

    def takes(self, method, target, head):
        if self.method and self.method != method:
            return False
        if self.path and not self.path.search(target):
            return False
        if self.name and not any(k.lower().startswith(self.name) for k, _ in head.headers):
            return False
        self.seen += 1
        if self.seen <= self.skip or (self.count and self.hits >= self.count):
            return False
        self.hits += 1
        return True


class Head:
    """The first line and the headers of a message."""

    def __init__(self, data):
        lines = data.decode("latin-1").split("\r\n")
        self.first = lines[0]
        self.headers = [tuple(p.strip() for p in l.split(":", 1)) for l in lines[1:] if ":" in l]

    def get(self, name):
        for key, value in self.headers:
            if key.lower() == name:
                return value
        return None

    def remove(self, names):
        self.headers = [(k, v) for k, v in self.headers if k.lower() not in names]

    def encode(self):
        lines = [self.first] + ["%s: %s" % h for h in self.headers]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


class Classes:
    """The storage class of each object whose write went through: {"/bucket/key": "STANDARD_IA"}."""

    def __init__(self):
        self.of, self.uploads = {}, {}

    def tell(self, method, target, head):
        path = target.partition("?")[0]
        if method in ("GET", "HEAD") and self.of.get(path, "STANDARD") != "STANDARD":
            head.remove(["x-amz-storage-class"])
            head.headers.append(("x-amz-storage-class", self.of[path]))

    def note(self, method, target, asked, body):
        """After an answer of 2xx to a request that asked for a class, or for none."""
        path, _, query = target.partition("?")
        upload = re.search("uploadId=([^&]*)", query)
        if method == "POST" and re.search("(^|&)uploads(=|&|$)", query):
            made = re.search(rb"<UploadId>([^<]*)", body)
            self.uploads[made[1].decode()] = asked or "STANDARD"
        elif method == "POST" and upload and b"<Error" not in body:
            self.of[path] = self.uploads.pop(urllib.parse.unquote(upload[1]), "STANDARD")
        elif method == "PUT" and not query.replace("x-id=PutObject", ""):
            self.of[path] = asked or "STANDARD"
        elif method == "DELETE" and not upload:
            self.of.pop(path, None)


class Cut(Exception):
    """Ends the client's connection."""

    def __init__(self, reset):
        super().__init__("cut")
        self.reset = reset


class Connection:
    """One client connection, with its own connection to the server."""

    def __init__(self, proxy, reader, writer):
        self.proxy, self.reader, self.writer = proxy, reader, writer
        self.up_reader = self.up_writer = None

    async def run(self):
        reset = False
        try:
            while True:
                data = await self.reader.readuntil(b"\r\n\r\n")
                await self.one(Head(data[:-4]))
        except Cut as cut:
            reset = cut.reset
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            self.close(reset)

    def close(self, reset):
        if reset:
            sock = self.writer.get_extra_info("socket")
            if sock is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.writer.transport.abort()
        else:
            self.writer.close()
        self.close_upstream()

    def close_upstream(self):
        if self.up_writer is not None:
            self.up_writer.close()
        self.up_reader = self.up_writer = None

    async def one(self, head):
        method, target, _ = head.first.split(" ", 2)
        rule, before = self.proxy.choose(method, target, head)
        asked = None  # what class; None: they are not remembered
        for passing in before:
            if passing.action == "latency":
                await asyncio.sleep(passing.spec.get("ms", 0) / 1000)
            elif passing.action == "classes":
                asked = head.get("x-amz-storage-class") or ""
            else:
                head.remove(passing.spec.get("headers", ["if-match", "if-none-match"]))
        spec = rule.spec if rule else {}
        action = rule.action if rule else None
        length = int(head.get("content-length") or 0)
        if action in ("status", "reply", "html", "hang", "reset"):
            if action == "reset":
                raise Cut(True)
            await self.drain(length)
            if action == "hang":
                await self.reader.read(1)
                raise Cut(False)
            await self.send_own(method, action, spec)
            return
        await self.forward(head, length, spec if action in ("corrupt_upload", "slow_upload") else {})
        await self.answer(method, target, action, spec, asked)

    async def drain(self, length):
        while length > 0:
            data = await self.reader.read(min(CHUNK, length))
            if not data:
                raise Cut(False)
            length -= len(data)

    async def send_own(self, method, action, spec):
        status = spec.get("status", 200 if action == "html" else 503)
        headers = dict(spec.get("headers", {}))
        if action == "html":
            body = b"<!DOCTYPE html><html><body>Sign in to the network</body></html>"
            headers.setdefault("Content-Type", "text/html")
        elif action == "reply":
            body = spec.get("body", "").encode()
        else:
            code = spec.get("code", {503: "SlowDown", 500: "InternalError",
                                     412: "PreconditionFailed", 403: "AccessDenied",
                                     404: "NoSuchKey"}.get(status, "InternalError"))
            body = ("<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>%s</Code><Message>%s"
                    "</Message><RequestId>proxy</RequestId></Error>"
                    % (code, spec.get("message", "made by the fault proxy"))).encode()
            headers.setdefault("Content-Type", "application/xml")
            if "retry_after" in spec:
                headers["Retry-After"] = str(spec["retry_after"])
        headers["Content-Length"] = str(len(body))
        head = Head(("HTTP/1.1 %d Made" % status).encode())
        head.headers = list(headers.items())
        self.writer.write(head.encode() + (b"" if method == "HEAD" else body))
        await self.writer.drain()

    async def forward(self, head, length, spec):
        """Sends the request on. A kept connection that the server closed is opened anew."""
        for attempt in (1, 2):
            fresh = self.up_writer is None
            if fresh:
                self.up_reader, self.up_writer = await asyncio.open_connection(
                    *self.proxy.upstream, limit=HEAD_MAX + CHUNK)
            try:
                if self.up_reader.at_eof():
                    raise ConnectionResetError
                self.up_writer.write(head.encode())
                await self.up_writer.drain()
                break
            except OSError:
                self.close_upstream()
                if fresh or attempt == 2:
                    raise Cut(True) from None
        at = spec.get("at", 0) if spec.get("action") == "corrupt_upload" else -1
        rate = spec.get("bytes_per_s")
        if rate:
            self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        sent = 0
        while sent < length:
            data = await self.reader.read(min(rate // 20 if rate else CHUNK, length - sent))
            if not data:
                raise Cut(False)
            if rate:
                await asyncio.sleep(len(data) / rate)
            self.up_writer.write(flip(data, at - sent))
            sent += len(data)
            await self.up_writer.drain()

    async def answer(self, method, target, action, spec, asked):
        while True:
            data = await self.up_reader.readuntil(b"\r\n\r\n")
            head = Head(data[:-4])
            status = int(head.first.split(" ", 2)[1])
            if status >= 200:
                break
        if action == "header":
            head.remove([spec["name"].lower()])
            if spec.get("value") is not None:
                head.headers.append((spec["name"], spec["value"]))
        if asked is not None:
            self.proxy.classes.tell(method, target, head)
        body = Body(self, head, method, status)
        if action == "replace":
            data = b"".join([piece async for piece in body]).replace(spec["old"].encode(), spec["new"].encode())
            head.remove(["content-length"])
            head.headers.append(("Content-Length", str(len(data))))
            body = Pieces([data])
        if asked is not None and method != "GET" and status < 300:
            # Whole, and noted before the client can know.
            body = Pieces([piece async for piece in body])
            self.proxy.classes.note(method, target, asked, b"".join(body.pieces))
        if action == "lost_reply":
            async for _ in body:
                pass
            raise Cut(bool(spec.get("reset")))
        self.writer.write(head.encode())
        after, sent = spec.get("after", 0), 0
        async for data in body:
            if action in ("truncate", "reset_body", "stall") and sent + len(data) > after:
                self.writer.write(data[:max(0, after - sent)])
                await self.writer.drain()
                if action == "stall":
                    await self.reader.read(1)
                raise Cut(action == "reset_body")
            if action == "corrupt":
                data = flip(data, spec.get("at", 0) - sent)
            if action == "trickle":
                await self.trickle(data, spec, sent)
            else:
                self.writer.write(data)
            sent += len(data)
            await self.writer.drain()
        await self.writer.drain()
        if (head.get("connection") or "").lower() == "close":
            raise Cut(False)

    async def trickle(self, data, spec, sent):
        rate, after = spec.get("bytes_per_s", 1024), spec.get("after", 0)
        fast = max(0, min(len(data), after - sent))
        self.writer.write(data[:fast])
        step = max(1, rate // 20)
        for i in range(fast, len(data), step):
            self.writer.write(data[i:i + step])
            await self.writer.drain()
            await asyncio.sleep(step / rate)


class Body:
    """The body of an answer, piece by piece as it comes (chunks with their framing)."""

    def __init__(self, connection, head, method, status):
        self.connection, self.reader = connection, connection.up_reader
        self.empty = method == "HEAD" or status in (204, 304)
        self.chunked = "chunked" in (head.get("transfer-encoding") or "").lower()
        length = head.get("content-length")
        self.length = None if length is None else int(length)

    async def __aiter__(self):
        if self.empty:
            return
        if self.chunked:
            while True:
                line = await self.reader.readuntil(b"\r\n")
                size = int(line.split(b";")[0], 16)
                data = await self.reader.readexactly(size + 2)
                yield line + data
                if size == 0:
                    return
        left = self.length
        while left is None or left > 0:
            data = await self.reader.read(CHUNK if left is None else min(CHUNK, left))
            if not data:
                if left is None:
                    self.connection.close_upstream()
                    return
                raise Cut(False)
            if left is not None:
                left -= len(data)
            yield data


class Pieces:
    """The same, when it has come."""

    def __init__(self, pieces):
        self.pieces = pieces

    async def __aiter__(self):
        for piece in self.pieces:
            yield piece


def flip(data, at):
    if 0 <= at < len(data):
        data = bytearray(data)
        data[at] ^= 1
    return bytes(data)


class Proxy:
    """The proxy's own process."""

    def __init__(self, upstream):
        self.upstream = upstream
        self.rules, self.requests, self.log = [], 0, []
        self.classes = Classes()

    def choose(self, method, target, head):
        self.requests += 1
        self.log.append("%s %s" % (method, target))
        del self.log[:-2000]
        before = []
        for rule in self.rules:
            if not rule.takes(method, target, head):
                continue
            if rule.action not in PASSING:
                return rule, before
            before.append(rule)
        return None, before

    async def on_client(self, reader, writer):
        sock = writer.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await Connection(self, reader, writer).run()

    async def on_control(self, reader, writer):
        try:
            head = Head((await reader.readuntil(b"\r\n\r\n"))[:-4])
            body = await reader.readexactly(int(head.get("content-length") or 0))
            method, target, _ = head.first.split(" ", 2)
            if method == "PUT" and target == "/rules":
                self.rules = [Rule(spec) for spec in json.loads(body)]
                self.requests, self.log = 0, []
            reply = json.dumps({"requests": self.requests, "log": self.log,
                                "classes": self.classes.of,
                                "hits": [rule.hits for rule in self.rules]}).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
                         % len(reply) + reply)
            await writer.drain()
        finally:
            writer.close()

    async def serve(self):
        limit = HEAD_MAX + CHUNK
        server = await asyncio.start_server(self.on_client, "127.0.0.1", 0, limit=limit)
        control = await asyncio.start_server(self.on_control, "127.0.0.1", 0)
        print(server.sockets[0].getsockname()[1], control.sockets[0].getsockname()[1], flush=True)
        # The one who started it holds the other end: gone means end.
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, sys.stdin.buffer.read)
        # At once: connections that still hang must not hold up the end.
        os._exit(0)


class FaultProxy:
    """Starts the proxy and talks to it."""

    def __init__(self, host, port):
        self.host = "127.0.0.1"
        self.process = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), "%s:%d" % (host, port)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline().split()
        if len(line) != 2:
            self.close()
            raise RuntimeError("the fault proxy does not start")
        self.port, self.control_port = int(line[0]), int(line[1])

    @property
    def endpoint(self):
        return "http://%s:%d" % (self.host, self.port)

    def _control(self, method, path, body=None):
        connection = http.client.HTTPConnection(self.host, self.control_port, timeout=WAIT_S)
        try:
            connection.request(method, path, body)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    def rules(self, rules):
        """Replaces all rules and forgets what was counted."""
        for rule in rules:
            Rule(rule)
        return self._control("PUT", "/rules", json.dumps(rules))

    def stats(self):
        """{"requests": n, "log": ["PUT /…", …], "hits": [per rule]} since the last rules(), and
        "classes": {"/bucket/key": class}."""
        return self._control("GET", "/stats")

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


if __name__ == "__main__":
    address = sys.argv[1].rsplit(":", 1)
    asyncio.run(Proxy((address[0], int(address[1]))).serve())
