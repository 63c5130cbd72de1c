"""Quotas through a mount: writes, names and df; what a crash leaves; the command."""

import contextlib
import errno
import json
import os
import subprocess
import sys
import threading
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from service import ServiceVolume
from volume import Volume, wait_until

KIB = 1024


def fill(path, steps=(50_000, 1_000, 1)):
    """Appends until not one byte more is taken; how many were."""
    wrote = 0
    with open(path, "ab", buffering=0) as f:
        for step in steps:
            while True:
                try:
                    wrote += f.write(b"z" * step)
                except OSError as error:
                    if error.errno != errno.EDQUOT:
                        raise
                    break
    return wrote


def fill_all(paths):
    """All at once; what each took."""
    wrote = [0] * len(paths)

    def work(i):
        wrote[i] = fill(paths[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(paths))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return wrote


WRITER = """
import errno, os, sys
fd = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
for line in sys.stdin:
    try:
        print(os.write(fd, bytes(int(line))), flush=True)
    except OSError as error:
        print(errno.errorcode[error.errno], flush=True)
"""


class Writer:
    """Has a file open in a process of its own: a child of this one would flush it by closing what it inherited."""

    def __init__(self, path):
        self.process = subprocess.Popen([sys.executable, "-c", WRITER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def write(self, count):
        self.process.stdin.write("%d\n" % count)
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def close(self):
        if not self.process.stdin.closed:
            self.process.stdin.close()
            self.process.stdout.close()
            self.process.wait(120)


class Refused(unittest.TestCase):
    def refused(self, action):
        with self.assertRaises(OSError) as caught:
            action()
        self.assertEqual(caught.exception.errno, errno.EDQUOT)


class Quota(Refused):
    def test_each_call_that_grows_a_directory(self):
        self.check_each_call(Volume)

    def test_each_call_over_the_service(self):
        self.check_each_call(ServiceVolume)

    def check_each_call(self, kind):
        with kind() as v:
            os.makedirs(v.path("d", "sub"))
            v.write("outside", b"o" * 5000)
            v.sluice("quota", "set", v.path("d"), "--bytes", "100K", "--inodes", "6")
            v.write("d/a", b"a" * (96 * KIB))
            with open(v.path("d/sub/b"), "wb", buffering=0) as f:
                self.assertEqual(f.write(b"b" * 4096), 4096)
                self.refused(lambda: f.write(b"x"))
                self.refused(lambda: os.ftruncate(f.fileno(), 4097))
                self.refused(lambda: os.posix_fallocate(f.fileno(), 0, 4097))
            self.refused(lambda: os.truncate(v.path("d/a"), 96 * KIB + 1))
            self.refused(lambda: os.rename(v.path("outside"), v.path("d/in")))
            self.refused(lambda: os.link(v.path("outside"), v.path("d/in")))
            self.assertEqual(v.read("d/sub/b"), b"b" * 4096)
            stat = os.statvfs(v.path("d/sub"))
            self.assertEqual((stat.f_blocks * stat.f_frsize, stat.f_bavail, stat.f_files, stat.f_ffree), (100 * KIB, 0, 6, 3))
            self.assertGreater(os.statvfs(v.mountpoint).f_bavail, 1 << 20)
            os.truncate(v.path("d/a"), 1)
            for name in ("e", "f", "g"):
                os.mkdir(v.path("d", name))
            self.refused(lambda: os.mkdir(v.path("d/h")))
            self.refused(lambda: os.symlink("x", v.path("d/h")))
            self.refused(lambda: os.rename(v.path("outside"), v.path("d/e/in")))
            os.rename(v.path("d/e"), v.path("e"))
            os.mkdir(v.path("d/h"))
            v.sluice("quota", "check", v.mountpoint)
            v.unmount()
            if kind is ServiceVolume:
                v.service.stop()
            self.assertEqual(v.check_metadata(), "")

    def test_many_writers_fill_it_to_the_byte(self):
        with Volume() as v:
            os.mkdir(v.path("d"))
            limit = 3_000_001
            v.sluice("quota", "set", v.path("d"), "--bytes", str(limit))
            wrote = fill_all([v.path("d", str(i)) for i in range(4)])
            self.assertEqual(sum(wrote), limit)
            self.assertEqual([os.path.getsize(v.path("d", str(i))) for i in range(4)], wrote)
            v.settle()
            self.assertEqual(sum(len(v.object("d/%d" % i)) for i in range(4)), limit)

    def test_accepted_bytes_survive_a_crash_and_still_count(self):
        with Volume() as v:
            os.mkdir(v.path("d"))
            v.sluice("quota", "set", v.path("d"), "--bytes", "1M")
            f = os.open(v.path("d/a"), os.O_CREAT | os.O_WRONLY)
            os.write(f, b"a" * 1_000_000)
            v.kill()
            with contextlib.suppress(OSError):
                os.close(f)
            v.mount()
            self.assertEqual(v.read("d/a"), b"a" * 1_000_000)
            with open(v.path("d/b"), "wb", buffering=0) as g:
                self.refused(lambda: g.write(b"b" * (KIB * KIB - 1_000_000 + 1)))
                g.write(b"b" * (KIB * KIB - 1_000_000))

    def test_the_command(self):
        with Volume() as v:
            os.makedirs(v.path("d", "sub"))
            v.write("d/f", b"12345")
            self.assertIn("no quota", v.sluice("quota", "list", v.mountpoint).stdout)
            v.sluice("quota", "set", v.path("d"), "--bytes", "10", "--inodes", "1K")
            v.sluice("quota", "set", v.path("d/sub"), "--inodes", "7")
            self.assertIn("/d: 5 B of 10 B, 2 of 1024 inodes", v.sluice("quota", "get", v.path("d/f")).stdout)
            listed = v.sluice("quota", "list", v.mountpoint).stdout
            self.assertIn("/d/sub: 0 B of no limit, 0 of 7 inodes", listed)
            v.sluice("quota", "set", v.path("d/sub"), "--inodes", "none")
            self.assertNotIn("d/sub", v.sluice("quota", "list", v.mountpoint).stdout)
            self.assertIn("1 quotas: all right", v.sluice("quota", "check", v.mountpoint).stdout)
            v.sluice("quota", "set", v.path("d"), "--bytes", "4")
            over = v.sluice("quota", "check", v.mountpoint, check=False)
            self.assertEqual((over.returncode, over.stdout), (1, "/d: over its limit\n"))
            self.assertEqual(v.sluice("du", v.path("d")).stdout, v.sluice("usage", v.path("d")).stdout)
            for wrong in (["frob", v.path("d")], ["set", v.path("d")], ["set", v.path("d"), "--bytes", "lots"], ["set"]):
                self.assertEqual(v.sluice("quota", *wrong, check=False).returncode, 2, wrong)
            self.assertEqual(v.sluice("quota", "set", v.path("d/f"), "--bytes", "1", check=False).returncode, 1)
            if os.getuid() == 0:
                os.chmod(v.mountpoint, 0o755)
                reply = ask_as_nobody(v, {"op": "quota-set", "path": "/d", "max_bytes": 99})
                self.assertEqual((reply["ok"], reply["error"]), (False, "EPERM"))


def ask_as_nobody(v, request):
    """The control file's answer to another user, in a process of his own."""
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            ctl = os.open(v.path(".sluice", "ctl"), os.O_RDWR)
            os.write(ctl, json.dumps(request).encode())
            os.write(into, os.read(ctl, 65536))
        finally:
            os._exit(0)
    os.close(into)
    with os.fdopen(out, "rb") as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return json.loads(text)


class OverTheService(Refused):
    """Mounts of one volume: each reserves sizes with the service before it takes bytes."""

    def two(self):
        a = ServiceVolume(service_options=["--lease", "3s"])
        self.addCleanup(a.close)
        a.mount()
        b = ServiceVolume(service=a.service, bucket=a.bucket)
        self.addCleanup(b.close)
        b.mount()
        return a, b

    def limit(self, v, path, limit):
        v.sluice("quota", "set", v.path(path), "--bytes", str(limit))

    def usage(self, v, path):
        quota = v.ask(op="quota-get", path="/" + path)["quotas"][0]
        return quota["bytes"], quota["reserved_bytes"]

    def writer(self, path):
        writer = Writer(path)
        self.addCleanup(writer.close)
        return writer

    def test_both_fill_nested_limits_to_the_byte(self):
        a, b = self.two()
        os.makedirs(a.path("d", "in"))
        for path, limit in (("d/in", 1_100_001), ("d", 2_500_003)):
            self.limit(a, path, limit)
        for path, limit in (("d/in", 1_100_001), ("d", 2_500_003)):
            fill_all([v.path(path, "%s%d" % (name, i)) for v, name in ((a, "a"), (b, "b")) for i in range(2)])
            wait_until("all to be committed", lambda path=path, limit=limit: self.usage(a, path) == (limit, 0))
            self.assertEqual(os.statvfs(b.path(path)).f_bavail, 0)
        b.sluice("quota", "check", b.mountpoint)
        total = sum(os.path.getsize(os.path.join(at, f)) for at, _, files in os.walk(b.path("d")) for f in files)
        self.assertEqual(total, 2_500_003)

    def test_a_stream_gives_back_what_it_does_not_use(self):
        a, b = self.two()
        os.mkdir(a.path("d"))
        self.limit(a, "d", 1_000_000)
        stream = self.writer(a.path("d/stream"))
        for _ in range(3):
            self.assertEqual(stream.write(100_000), "100000")
        # It has asked twice, so it was given more than it asked for.
        self.assertGreater(self.usage(a, "d")[1], 300_000)
        self.assertEqual(fill(b.path("d/b")), 700_000)
        self.assertEqual(stream.write(1), "EDQUOT")
        stream.close()
        self.assertEqual(a.read("d/b"), b"z" * 700_000)
        self.assertEqual(os.stat(b.path("d/stream")).st_size, 300_000)

    def test_written_before_the_first_limit(self):
        a, b = self.two()
        os.mkdir(a.path("d"))
        early = self.writer(b.path("d/early"))
        self.assertEqual(early.write(100_000), "100000")
        self.limit(a, "d", 100_001)
        self.assertEqual(self.usage(a, "d"), (0, 100_000))
        self.refused(lambda: a.write("d/two", b"22"))
        a.write("d/one", b"1")
        self.assertEqual(early.write(1), "EDQUOT")
        early.close()
        self.assertEqual(os.stat(a.path("d/early")).st_size, 100_000)

    def test_over_a_restart_and_after_a_lost_mount(self):
        a, b = self.two()
        os.mkdir(a.path("d"))
        self.limit(a, "d", 100_001)
        writer = self.writer(b.path("d/b"))
        self.assertEqual(writer.write(100_000), "100000")
        a.service.kill()
        a.service.start()
        self.refused(lambda: a.write("d/two", b"22"))
        self.assertEqual(writer.write(1), "1")
        self.assertEqual(writer.write(1), "EDQUOT")
        self.assertEqual(self.usage(a, "d"), (0, 100_001))
        b.kill()
        writer.close()
        wait_until("its lease to end", lambda: self.usage(a, "d") == (0, 0))
        self.assertEqual(fill(a.path("d/a")), 100_001)


if __name__ == "__main__":
    unittest.main()
