"""O_APPEND on descriptors that stay open on several mounts: what one mount has synced, the other one's next write goes behind."""

import os
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from service import ServiceVolume
from volume import WAIT_S

LINES = 150

# A process of its own, as locks are.
LOCKED = """
import fcntl, os, sys
fd, name, count = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND), sys.argv[2], int(sys.argv[3])
for i in range(count):
    fcntl.flock(fd, fcntl.LOCK_EX)
    os.write(fd, ("%s %d\\n" % (name, i)).encode() * (1 + i % 400))
    fcntl.flock(fd, fcntl.LOCK_UN)
"""


class Append(unittest.TestCase):
    options = ()

    @classmethod
    def setUpClass(cls):
        cls.a = ServiceVolume(options=cls.options, service_options=["--lease", "300s"])
        cls.addClassCleanup(cls.a.close)
        cls.a.mount()
        cls.b = ServiceVolume(service=cls.a.service, bucket=cls.a.bucket, options=cls.options)
        cls.addClassCleanup(cls.b.close)
        cls.b.mount()

    def open(self, v, name, flags=os.O_RDWR | os.O_APPEND):
        fd = os.open(v.path(name), flags)
        self.addCleanup(os.close, fd)
        return fd

    def append(self, fd, data):
        self.assertEqual(os.write(fd, data), len(data))
        os.fsync(fd)

    def check(self, name, fds, want):
        for fd in fds:
            self.assertEqual(os.pread(fd, len(want) + 100, 0), want)
            self.assertEqual(os.fstat(fd).st_size, len(want))
        for v in (self.a, self.b):
            self.assertEqual(v.read(name), want)

    def test_in_turns(self):
        for size in (0, 10, 4096, 5000, 300000):
            name, want = "turns%d" % size, b"0" * size
            self.a.write(name, want)
            fds = [self.open(self.a, name), self.open(self.b, name)]
            for i in range(6):
                for letter, fd in zip(b"ab", fds):
                    data = bytes([letter]) * (1 + 3000 * i)
                    self.append(fd, data)
                    want += data
            self.check(name, fds, want)

    def test_after_the_other_one_cut_it(self):
        self.a.write("cut", b"0" * 9000)
        fds = [self.open(self.a, "cut"), self.open(self.b, "cut")]
        self.append(fds[1], b"b" * 5000)
        os.truncate(self.a.path("cut"), 3)
        self.append(fds[1], b"new\n")
        self.check("cut", fds, b"000new\n")

    def test_more_than_one_request_takes(self):
        self.a.write("large", b"0" * 100)
        fds = [self.open(self.a, "large"), self.open(self.b, "large")]
        want = b"0" * 100
        for letter, fd in zip(b"abab", fds * 2):
            data = bytes([letter]) * ((3 << 20) + 17)
            self.append(fd, data)
            want += data
        self.check("large", fds, want)

    def test_position_after_it(self):
        """A write at a position stays where it was asked for."""
        self.a.write("position", b"0" * 10)
        fd = self.open(self.b, "position", os.O_RDWR)
        self.append(self.open(self.a, "position"), b"a" * 10)
        self.assertEqual(os.pwrite(fd, b"b" * 5, 10), 5)
        os.fsync(fd)
        self.check("position", [fd], b"0" * 10 + b"b" * 5 + b"a" * 5)

    def test_under_a_lock(self):
        self.a.write("locked", b"")
        writers = [subprocess.Popen([sys.executable, "-c", LOCKED, v.path("locked"), name, str(LINES)])
                   for v, name in ((self.a, "a"), (self.b, "b"), (self.a, "c"), (self.b, "d"))]
        for writer in writers:
            self.assertEqual(writer.wait(timeout=WAIT_S), 0)
        want = {("%s %d\n" % (name, i)).encode(): 1 + i % 400 for name in "abcd" for i in range(LINES)}
        for v in (self.a, self.b):
            found = {}
            for line in v.read("locked").splitlines(keepends=True):
                found[line] = found.get(line, 0) + 1
            self.assertEqual(found, want)


class AppendWithCache(Append):
    options = ["--cache-size", "256M"]


if __name__ == "__main__":
    unittest.main()
