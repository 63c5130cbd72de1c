"""Where the rows are run: mounts of Sluice, the null file system, the local disk, any other directory; and the store behind."""

import contextlib
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [os.path.join(ROOT, "tests", "lib"), os.path.join(ROOT, "tests", "tools")]

import process
from fault_proxy import FaultProxy
from gateway import Client, Gateway, find_binary
from service import Service
from volume import Volume, binary, is_mounted, wait_until

COMMAND_MAX_S = 3600


def build_directory():
    return os.environ.get("SLUICE_BUILD") or os.path.dirname(os.path.abspath(binary()))


def tool(*names):
    """A program that the build made: tool("bench", "null_fuse")."""
    path = os.path.join(build_directory(), *names)
    if not os.access(path, os.X_OK):
        raise FileNotFoundError("%s is not there: build it first (ninja -C build)" % path)
    return path


def run(*command, cwd=None, env=None, stdout=subprocess.PIPE):
    done = subprocess.run(command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE,
                          text=True, timeout=COMMAND_MAX_S)
    if done.returncode != 0:
        raise RuntimeError("%s ended with %d: %s" % (" ".join(command), done.returncode, done.stderr[-2000:]))
    return done.stdout


class Directory:
    """A place without a daemon that we know: the local disk, or what --ref names."""

    def __init__(self, name, path):
        self.name, self.pid = name, None
        self.directory = tempfile.mkdtemp(prefix="sluice-bench.", dir=path)

    def path(self, *names):
        return os.path.join(self.directory, *names)

    def drop_caches(self):
        os.sync()
        with contextlib.suppress(OSError), open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as f:
            f.write("3")

    def close(self):
        shutil.rmtree(self.directory, ignore_errors=True)

    def used(self):
        return Used(self)


class Null(Directory):
    """A FUSE daemon that answers from memory, served by the threads of a mount of ours: what the kernel and libfuse cost without a
    file system behind."""

    def __init__(self, name="null_fuse", *options):
        self.name = name
        self.directory = tempfile.mkdtemp(prefix="sluice-bench-null.")
        self.process = subprocess.Popen([tool("bench", "null_fuse"), self.directory, *options], stdin=subprocess.DEVNULL)
        self.pid = self.process.pid
        wait_until("the null file system", lambda: is_mounted(self.directory) or self.process.poll() is not None)
        if self.process.poll() is not None:
            raise RuntimeError("null_fuse ended with %d" % self.process.returncode)

    def close(self):
        for _ in range(2):
            if is_mounted(self.directory):
                subprocess.run(["umount", "-l", self.directory], check=False)
        self.process.terminate()
        self.process.wait(60)
        with contextlib.suppress(OSError):
            os.rmdir(self.directory)


class Sluice(Volume):
    """A mount with the defaults that a user gets."""

    inline_max = None

    def __init__(self, name, gateway=None, proxy=None, options=(), **more):
        more.setdefault("settle_delay", "5s")
        more.setdefault("gc_delay", "10s")
        super().__init__(gateway=gateway, options=options, **more)
        self.name = name
        if proxy:
            self.env["AWS_ENDPOINT_URL_S3"] = proxy.endpoint
        try:
            self.mount()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self):
        return self.process.pid if self.process else None

    def used(self):
        return Used(self)

    def drop_caches(self):
        """Cold: a new daemon and a new mount without its SSD cache, so neither they nor the kernel have anything."""
        self.unmount()
        shutil.rmtree(os.path.join(self.directory, "meta", "cache"), ignore_errors=True)
        self.mount()

    def fresh(self):
        """A new mount of the same bucket without its metadata: everything is to be listed again."""
        self.unmount()
        shutil.rmtree(os.path.join(self.directory, "meta"))
        self.mount()

    def close(self):
        with contextlib.suppress(AssertionError, subprocess.SubprocessError):
            if self.process and self.process.poll() is None:
                self.unmount()
        super().close()
        if self.gateway:
            shutil.rmtree(os.path.join(self.gateway.buckets, self.bucket), ignore_errors=True)

    def request(self, **request):
        """A question to the control file that must have an answer."""
        reply = self.ask(**request)
        if not reply.get("ok"):
            raise RuntimeError("%s: %s" % (request, reply.get("message")))
        return reply

    def metrics(self):
        """{name: sum over all labels}"""
        sums = {}
        for line in self.request(op="metrics")["text"].splitlines():
            found = re.match(r"([a-z_0-9]+)(?:\{[^}]*\})? ([-+0-9.e]+)$", line)
            if found:
                sums[found[1]] = sums.get(found[1], 0) + float(found[2])
        return sums

    def store(self):
        """Requests to the store so far, and bytes from and to it."""
        m = self.metrics()
        return {"requests": m.get("sluice_store_requests_total", 0), "read": m.get("sluice_store_read_bytes_total", 0),
                "written": m.get("sluice_store_written_bytes_total", 0)}


class Served(Sluice):
    """A mount of a volume of a metadata service of its own, on the loopback interface."""

    service = None

    def mount(self, *extra):
        if not self.service:
            self.service = Service(env=self.env).start()
            self.service.volume("create", "v", self.url, "settle-delay=" + self.settle_delay, "gc-delay=" + self.gc_delay)
        super().mount(*extra)

    def command(self, *extra):
        return [binary(), "mount", self.service.url("v"), self.mountpoint, "--foreground", "--meta-dir", os.path.join(self.directory, "meta"),
                "--log-file", self.log, *self.options, *extra]

    def close(self):
        super().close()
        if self.service:
            self.service.close()


class Used:
    """What a place's daemon and the store spent since it was made; for places without a daemon, nothing."""

    def __init__(self, place):
        self.place, self.pid = place, place.pid
        self.store = place.store() if isinstance(place, Sluice) else None
        self.cpu = process.cpu_s(self.pid) if self.pid else 0
        self.began = time.monotonic()

    def end(self, operations=0, gib=0):
        """As keyword arguments for Row.add."""
        self.seconds = time.monotonic() - self.began
        out = {}
        if self.pid:
            cpu = process.cpu_s(self.pid) - self.cpu
            memory = process.memory(self.pid)
            out = {"cpu_s": cpu, "rss_mib": memory["rss"] / process.MIB, "peak_mib": memory["peak"] / process.MIB}
            if operations:
                out["cpu_us_per_op"] = cpu * 1e6 / operations
            if gib:
                out["cpu_s_per_gib"] = cpu / gib
        if self.store:
            now = self.place.store()
            out["store_requests"] = now["requests"] - self.store["requests"]
            out["store_read_mib"] = (now["read"] - self.store["read"]) / process.MIB
            out["store_written_mib"] = (now["written"] - self.store["written"]) / process.MIB
        return out


class FarGateway(Gateway):
    """An S3 server with a proxy in front of it that adds latency (bench/run --store-latency)."""

    far = None

    @property
    def endpoint(self):
        return self.far or super().endpoint


class Machine:
    """What all rows share, made when first asked for, and taken away at the end."""

    def __init__(self, work, refs, options, peer=None):
        """`peer`: (name, gateway) -> a place, for each of options.peers."""
        self.options, self.refs = options, refs
        self.round = 0  # which one of the run this is, from 0: places take turns to be the first
        self.peers = options.peers
        self.peer = lambda name: peer(name, self.gateway())
        self.stack = contextlib.ExitStack()
        self.work = tempfile.mkdtemp(prefix="sluice-bench.", dir=work)
        self.stack.callback(shutil.rmtree, self.work, ignore_errors=True)
        self._old_tempdir = tempfile.tempdir
        tempfile.tempdir = self.work
        self._gateway = None
        self.memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else self.work

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.stack.close()
        finally:
            tempfile.tempdir = self._old_tempdir

    def gateway(self):
        """One S3 server for the whole run, its data in memory so that the disk is not the limit."""
        if not self._gateway:
            directory = tempfile.mkdtemp(prefix="sluice-bench-s3.", dir=self.memory)
            self.stack.callback(shutil.rmtree, directory, ignore_errors=True)
            self._gateway = self.stack.enter_context(FarGateway(directory=directory))
            if self.options.store_latency:
                self._gateway.far = self.stack.enter_context(self.proxy(self.options.store_latency)).endpoint
        return self._gateway

    @contextlib.contextmanager
    def places(self, *wanted):
        """Makes places ("local", "null", "refs" or a function) and takes them away again."""
        with contextlib.ExitStack() as stack:
            made = []
            for what in wanted:
                if what == "refs":
                    new = [Directory(name, path) for name, path in self.refs]
                    for name in self.peers:
                        new.append(self.peer(name))
                elif what == "local":
                    new = [Directory("local", self.work)]
                elif what == "null":
                    new = [Null()]
                else:
                    new = [what()]
                for place in new:
                    stack.callback(place.close)
                made += new
            yield made

    @contextlib.contextmanager
    def proxy(self, latency_ms):
        gateway = self.gateway()
        with FaultProxy(gateway.host, gateway.port) as proxy:
            proxy.rules([{"action": "latency", "ms": latency_ms}])
            yield proxy

    def fdatasync_s(self, count=100):
        """Median time of fdatasync after an append of 512 bytes, on the disk of the metadata."""
        times = []
        path = os.path.join(self.work, "fdatasync")
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            for _ in range(count):
                os.write(fd, b"x" * 512)
                began = time.perf_counter()
                os.fdatasync(fd)
                times.append(time.perf_counter() - began)
        finally:
            os.close(fd)
            os.unlink(path)
        return statistics.median(times)

    def loops(self):
        """{what: rate} of `sluice bench`'s rows that ask no file system: what the machine itself does now."""
        text = run(binary(), "bench", "--json-lines", "--only", "machine", "--rounds", "1", self.memory)
        return {r["row"]: r["per_second"] for r in map(json.loads, text.splitlines())}

    def store_bench(self, bucket, ops, size, count, parallel):
        """The raw store by our client: one dictionary for each request, with "server_cpu_s", what the server spent since the row before."""
        command = [binary(), "bench-store", "--json-lines", "--ops", ops, "--sizes", str(size), "--count", str(count), "--parallel", str(parallel),
                   "--bytes-max", str(size * count), "--time", "1h", "--no-hedge", "s3://%s/" % bucket]
        server, rows = self.gateway().process.pid, {}
        spent = process.cpu_s(server)
        with subprocess.Popen(command, env=self.gateway().env(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as bench:
            for line in bench.stdout:
                row = json.loads(line)
                before, spent = spent, process.cpu_s(server)
                rows[row["op"]] = dict(row, server_cpu_s=spent - before)
        if bench.returncode != 0:
            raise RuntimeError("%s ended with %d" % (" ".join(command), bench.returncode))
        return rows


def bare_ranges(gateway, bucket, key, offsets, length):
    """Seconds of each range GET over one kept connection; signatures are made before the clock runs."""
    times = []
    with socket.create_connection((gateway.host, gateway.port), timeout=120) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        buffer = bytearray(length + 65536)
        view = memoryview(buffer)
        for offset in offsets:
            path = "/%s/%s" % (bucket, key)
            headers = {"host": "%s:%d" % (gateway.host, gateway.port), "range": "bytes=%d-%d" % (offset, offset + length - 1)}
            gateway._sign("GET", path, "", headers, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
            text = "GET %s HTTP/1.1\r\n%s\r\n\r\n" % (path, "\r\n".join("%s: %s" % h for h in headers.items()))
            began = time.perf_counter()
            s.sendall(text.encode())
            got, end = 0, -1
            while end < 0 or got < end + length:
                n = s.recv_into(view[got:])
                if n == 0:
                    raise RuntimeError("the server closed the connection")
                got += n
                if end < 0:
                    end = buffer.find(b"\r\n\r\n", 0, got)
                    end = end + 4 if end >= 0 else -1
                    if end >= 0 and not buffer.startswith(b"HTTP/1.1 206"):
                        raise RuntimeError(bytes(buffer[:got]).decode("latin-1")[:500])
            times.append(time.perf_counter() - began)
    return times
