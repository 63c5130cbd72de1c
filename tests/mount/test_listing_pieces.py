"""Listings that are read in pieces while the directory changes: what is there all the time is seen exactly once. The kernel keeps one
listing for all handles of a directory, and its positions mean something to the mount only."""

import ctypes
import os
import struct
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from service import ServiceVolume
from volume import Volume

COUNT = 300
GETDENTS64 = {"x86_64": 217, "aarch64": 61}[os.uname().machine]
libc = ctypes.CDLL(None, use_errno=True)


class Reader:
    """A handle, and the names that it has given so far."""

    def __init__(self, path):
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        self.names = []

    def read(self, size):
        """A piece; False: there is no more."""
        room = ctypes.create_string_buffer(size)
        n = libc.syscall(GETDENTS64, self.fd, room, size)
        if n < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        at = 0
        while at < n:
            length, = struct.unpack_from("=H", room.raw, at + 16)
            self.names.append(room.raw[at + 19:at + length].split(b"\0")[0].decode())
            at += length
        return n > 0

    def rest(self):
        while self.read(30000):
            pass
        os.close(self.fd)
        return sorted(n for n in self.names if n not in (".", ".."))


class Pieces:
    """`reader` has the mount that lists, `writer` the one that changes."""

    def fill(self, name):
        self.at = os.path.join(self.writer.mountpoint, name)
        os.mkdir(self.at)
        for i in range(COUNT):
            self.make("f%04d" % i)
        return self.reader.path(name)

    def make(self, name):
        os.close(os.open(os.path.join(self.at, name), os.O_CREAT | os.O_EXCL | os.O_WRONLY))

    def change(self, last):
        """Before where the reader is, there itself, and behind it."""
        for i in range(10):
            self.make("a%04d" % i)
            self.make("z%04d" % i)
        gone = ["f%04d" % i for i in range(5)] + [last]
        for name in gone:
            os.unlink(os.path.join(self.at, name))
        return gone

    def check(self, found, gone):
        stayed = sorted({"f%04d" % i for i in range(COUNT)} - set(gone))
        self.assertEqual([n for n in found if n in stayed], stayed)
        self.assertEqual(len(found), len(set(found)))

    def test_one_reader(self):
        for listed_before in (0, 2):
            path = self.fill("one%d" % listed_before)
            for _ in range(listed_before):
                self.assertEqual(len(os.listdir(path)), COUNT)
            reader = Reader(path)
            reader.read(1000)
            gone = self.change(reader.names[-1])
            self.check(reader.rest(), gone)
            self.assertEqual(sorted(os.listdir(path)), sorted(os.listdir(self.at)))

    def test_somebody_lists_it_anew_meanwhile(self):
        for listed_before in (0, 2):
            path = self.fill("anew%d" % listed_before)
            for _ in range(listed_before):
                self.assertEqual(len(os.listdir(path)), COUNT)
            readers = [Reader(path), Reader(path)]
            for reader in readers:
                reader.read(1000)
            gone = self.change(readers[0].names[-1])
            self.assertEqual(sorted(os.listdir(path)), sorted(os.listdir(self.at)))
            self.assertEqual(sorted(os.listdir(path)), sorted(os.listdir(self.at)))
            for reader in readers:
                self.check(reader.rest(), gone)


class OneMount(Pieces, unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.reader = cls.writer = cls.enterClassContext(Volume())


class TwoMounts(Pieces, unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.writer = cls.enterClassContext(ServiceVolume())
        cls.reader = cls.enterClassContext(ServiceVolume(service=cls.writer.service, bucket=cls.writer.bucket))


if __name__ == "__main__":
    unittest.main()
