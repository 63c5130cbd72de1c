"""Quotas through a mount: writes, names and df; what a crash leaves; the command."""

import contextlib
import errno
import json
import os
import sys
import threading
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from service import ServiceVolume
from volume import Volume

KIB = 1024


class Quota(unittest.TestCase):
    def refused(self, action):
        with self.assertRaises(OSError) as caught:
            action()
        self.assertEqual(caught.exception.errno, errno.EDQUOT)

    def test_each_call_that_grows_a_directory(self):
        with Volume() as v:
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
            self.assertEqual(v.check_metadata(), "")

    def test_many_writers_fill_it_to_the_byte(self):
        with Volume() as v:
            os.mkdir(v.path("d"))
            limit = 3_000_001
            v.sluice("quota", "set", v.path("d"), "--bytes", str(limit))
            wrote = [0] * 4

            def fill(i):
                with open(v.path("d", str(i)), "wb", buffering=0) as f:
                    for step in (50_000, 1_000, 1):
                        while True:
                            try:
                                wrote[i] += f.write(b"z" * step)
                            except OSError as e:
                                if e.errno != errno.EDQUOT:
                                    raise
                                break

            threads = [threading.Thread(target=fill, args=(i,)) for i in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
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


class OverTheService(unittest.TestCase):
    """Two mounts of one volume: bytes count when they are committed, so close and fsync refuse."""

    def fill(self, path):
        """Files as large as still go in, down to one byte; what was refused is removed."""
        size, i = 9001, 0
        while size:
            name = "%s-%d" % (path, i)
            i += 1
            fd = os.open(name, os.O_CREAT | os.O_WRONLY)
            os.write(fd, b"x" * size)
            try:
                os.close(fd)
            except OSError as error:
                if error.errno != errno.EDQUOT:
                    raise
                os.unlink(name)
                size //= 2

    def test_both_fill_nested_limits_to_the_byte(self):
        with ServiceVolume() as a, ServiceVolume(service=a.service, bucket=a.bucket) as b:
            os.makedirs(a.path("d", "in"))
            for path, limit in (("d/in", 100_001), ("d", 250_003)):
                a.sluice("quota", "set", a.path(path), "--bytes", str(limit))
            for path, limit in (("d/in", 100_001), ("d", 250_003)):
                threads = [
                    threading.Thread(target=self.fill, args=(v.path(path, name),)) for v, name in ((a, "a"), (b, "b"))
                ]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                quota = json.loads(a.sluice("quota", "get", a.path(path), "--json").stdout)[0]
                self.assertEqual((quota["bytes"], quota["max_bytes"]), (limit, limit))
                self.assertEqual(os.statvfs(b.path(path)).f_bavail, 0)
            b.sluice("quota", "check", b.mountpoint)
            total = sum(os.path.getsize(os.path.join(at, f)) for at, _, files in os.walk(b.path("d")) for f in files)
            self.assertEqual(total, 250_003)


if __name__ == "__main__":
    unittest.main()
