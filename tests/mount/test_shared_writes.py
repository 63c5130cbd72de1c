"""Two mounts write different parts of one file at once: what one has closed stays, whatever the other one closes after it."""

import os
import sys
import threading
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from service import ServiceVolume

KIB = 1 << 10
ROUNDS = 12


def fifty_at(offset):
    def write(f):
        f.seek(offset)
        f.write(b"a" * 50)
    return write


class Writes(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.a = ServiceVolume(service_options=["--lease", "300s"])
        cls.addClassCleanup(cls.a.close)
        cls.a.mount()
        cls.b = ServiceVolume(service=cls.a.service, bucket=cls.a.bucket)
        cls.addClassCleanup(cls.b.close)
        cls.b.mount()

    def check(self, name, expected):
        for v in (self.a, self.b):
            self.assertEqual(os.stat(v.path(name)).st_size, len(expected))
            with open(v.path(name), "rb") as f:
                self.assertTrue(f.read() == expected, "other bytes on " + ("a" if v is self.a else "b"))

    def both(self, name, before, at, by_a, b_offset, b_bytes):
        """B writes, A changes the file and closes it, then B closes. by_a(descriptor)."""
        with open(self.a.path(name), "wb") as f:
            f.write(before)
        fd = os.open(self.b.path(name), os.O_RDWR)
        os.pwrite(fd, b_bytes, b_offset)
        with open(self.a.path(name), "r+b") as f:
            by_a(f)
        self.assertEqual(os.fstat(fd).st_size, max(at, b_offset + len(b_bytes)), "on B, before it closes")
        os.close(fd)

    def test_what_was_appended_stays(self):
        for size in (100, 3 << 20):
            with self.subTest(size=size):
                self.both("append%d" % size, b"0" * size, size + 50, fifty_at(size), 0, b"bbbbb")
                self.check("append%d" % size, b"bbbbb" + b"0" * (size - 5) + b"a" * 50)

    def test_both_append(self):
        for size in (100, 3 << 20):
            with self.subTest(size=size):
                self.both("both%d" % size, b"0" * size, size + 50, fifty_at(size), size, b"b" * 10)
                self.check("both%d" % size, b"0" * size + b"b" * 10 + b"a" * 40)

    def test_a_file_that_was_empty(self):
        self.both("empty", b"", 150, fifty_at(100), 0, b"bbbbb")
        self.check("empty", b"bbbbb" + bytes(95) + b"a" * 50)

    def test_a_cut_stays_where_nothing_was_written(self):
        for size in (100, 3 << 20):
            with self.subTest(size=size):
                self.both("cut%d" % size, b"0" * size, 10, lambda f: f.truncate(10), 0, b"bbbbb")
                self.check("cut%d" % size, b"bbbbb00000")

    def test_what_the_other_one_cuts_itself_is_cut(self):
        name = "own"
        with open(self.a.path(name), "wb") as f:
            f.write(b"0" * 100)
        fd = os.open(self.b.path(name), os.O_RDWR)
        os.ftruncate(fd, 20)
        with open(self.a.path(name), "r+b") as f:
            f.write(b"aaaaa")
        os.close(fd)
        self.check(name, b"aaaaa" + b"0" * 15)

    def write_parts(self, name, part, parts):
        failed = []

        def write(v, first):
            try:
                for i in range(first, parts, 2):
                    fd = os.open(v.path(name), os.O_RDWR)
                    os.pwrite(fd, bytes([i + 1]) * part, i * part)
                    os.close(fd)
            except OSError as e:
                failed.append(e)

        open(self.a.path(name), "wb").close()
        threads = [threading.Thread(target=write, args=arguments) for arguments in ((self.a, 0), (self.b, 1))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failed, [])
        self.check(name, b"".join(bytes([i + 1]) * part for i in range(parts)))

    def test_each_its_own_parts_at_the_same_time(self):
        """Commits that meet each other on the way: neither takes away what the other one brought."""
        for part in (512, 5000, 70 * KIB):
            for i in range(ROUNDS):
                with self.subTest(part=part, round=i):
                    self.write_parts("parts%d-%d" % (part, i), part, 24)


if __name__ == "__main__":
    unittest.main()
