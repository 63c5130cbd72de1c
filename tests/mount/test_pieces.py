"""A file that was written in pieces of pages, as tar does: the kernel has holes in its cache, and must not ask for each by itself.
With a cache of ours such a file is written past the kernel's pages, and nobody sees old ones."""

import errno
import mmap
import os
import struct
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from volume import Volume

PIECE = 10240
DATA = bytes(range(1, 201)) * 1024


class Pieces(unittest.TestCase):
    def start(self, *options):
        volume = Volume(options=["--no-cache", "--no-settle", *options])
        self.addCleanup(volume.close)
        return volume.mount()

    def reads(self, volume):
        return volume.metric('sluice_fs_request_seconds_count{op="read"}')

    def write(self, volume, piece):
        with open(volume.path("f"), "wb", buffering=0) as f:
            for at in range(0, len(DATA), piece):
                f.write(DATA[at:at + piece])

    def asked_to_read(self, volume):
        before = self.reads(volume)
        with open(volume.path("f"), "rb", buffering=0) as f:
            self.assertEqual(f.read(2 * len(DATA)), DATA)
        return self.reads(volume) - before

    def test_holes_are_read_at_once(self):
        v = self.start()
        self.write(v, PIECE)
        self.assertLessEqual(self.asked_to_read(v), 2)  # there are ten holes
        self.assertEqual(self.asked_to_read(v), 0)

    def test_whole_pages_are_kept(self):
        v = self.start()
        self.write(v, 8192)
        self.assertEqual(self.asked_to_read(v), 0)

    def test_what_the_kernel_collects_is_kept(self):
        v = self.start("--writeback")
        self.write(v, PIECE)
        self.assertEqual(self.asked_to_read(v), 0)

    def test_what_the_kernel_collects_is_no_hole(self):
        v = self.start("--writeback")
        with open(v.path("f"), "wb", buffering=0) as f:
            f.truncate(1 << 20)
            f.seek(1 << 19)
            f.write(b"x" * 4096)
            start = os.lseek(f.fileno(), 0, os.SEEK_DATA)
            self.assertLessEqual(start, 1 << 19)
            self.assertGreaterEqual(os.lseek(f.fileno(), start, os.SEEK_HOLE), (1 << 19) + 4096)

    def test_another_reader_keeps_what_it_has(self):
        v = self.start()
        self.write(v, PIECE)
        with open(v.path("f"), "rb", buffering=0) as first:
            self.assertEqual(first.read(5000), DATA[:5000])
            with open(v.path("f"), "r+b", buffering=0) as f:
                for at in range(0, len(DATA), PIECE):
                    f.seek(at + 1)
                    f.write(b"+")
            with open(v.path("f"), "rb") as second:
                changed = second.read()
            self.assertEqual(changed[5000:], first.read(2 * len(DATA)))
        self.assertEqual(changed[::PIECE], DATA[::PIECE])
        self.assertEqual(set(changed[1::PIECE]), {ord("+")})


class PastThePages(unittest.TestCase):
    """A new file that is only written, of a mount with a cache."""

    @classmethod
    def setUpClass(cls):
        cls.volume = Volume(options=["--no-settle", "--cache-size", "64M"])
        cls.addClassCleanup(cls.volume.close)
        cls.volume.mount()

    def count(self, op):
        return self.volume.metric('sluice_fs_request_seconds_count{op="%s"}' % op)

    def new(self, name):
        return open(self.volume.path(name), "xb", buffering=0)

    def test_each_write_is_one_request(self):
        writes, questions = self.count("write"), self.count("xattr")
        with self.new("one") as f:
            for at in range(0, len(DATA), PIECE):
                f.write(DATA[at:at + PIECE])
        self.assertEqual(self.count("write") - writes, len(DATA) // PIECE)
        self.assertEqual(self.count("xattr") - questions, 0)
        with open(self.volume.path("one"), "rb") as f:
            self.assertEqual(f.read(), DATA)

    def test_readers_see_what_was_written(self):
        """By read, by the kernel's own copies and by a mapping; opened before and while the file is changed and grows."""
        path, page = self.volume.path("grows"), mmap.PAGESIZE
        with self.new("grows") as f, open(path, "rb", buffering=0) as reader:
            pipe = os.pipe()
            self.addCleanup(os.close, pipe[0])
            self.addCleanup(os.close, pipe[1])
            f.write(bytes(page))
            expected = bytearray(page)
            with mmap.mmap(reader.fileno(), page, prot=mmap.PROT_READ) as mapped:
                for at in range(0, page - 50, 50):
                    piece = b"%050d" % at
                    os.pwrite(f.fileno(), piece, at)
                    expected[at:at + 50] = piece
                    self.assertEqual(mapped[:], expected[:page])
                    f.write(piece)
                    expected += piece
                    self.assertEqual(os.pread(reader.fileno(), 100, len(expected) - 50), piece)
                    moved = os.splice(reader.fileno(), pipe[1], page, offset_src=len(expected) - 50)
                    self.assertEqual(os.read(pipe[0], page), piece)
                    self.assertEqual(moved, 50)
                    with open(path, "rb") as late:
                        self.assertEqual(late.read(), expected)
        with open(path, "rb") as after:
            self.assertEqual(after.read(), expected)

    def test_a_mapping_that_is_written_to_meanwhile(self):
        path = self.volume.path("both")
        with self.new("both") as f:
            f.write(bytes(2 * mmap.PAGESIZE))
            with open(path, "r+b", buffering=0) as other, mmap.mmap(other.fileno(), 2 * mmap.PAGESIZE) as mapped:
                mapped[:4] = b"mine"
                os.pwrite(f.fileno(), b"yours", 100)
                self.assertEqual(mapped[:4] + mapped[100:105], b"mineyours")
                mapped[mmap.PAGESIZE:mmap.PAGESIZE + 4] = b"late"
        with open(path, "rb") as after:
            got = after.read()
        self.assertEqual([got[:4], got[100:105], got[mmap.PAGESIZE:mmap.PAGESIZE + 4]], [b"mine", b"yours", b"late"])

    def test_capabilities_do_not_survive_a_write(self):
        path = self.volume.path("caps")
        with self.new("caps") as f:
            f.write(b"#!")
            try:
                os.setxattr(path, "security.capability", struct.pack("<5I", 0x02000000, 1 << 10, 0, 0, 0))
            except PermissionError:
                self.skipTest("who runs this may not give capabilities")
            f.write(b"/bin/sh")
        with self.assertRaises(OSError) as raised:
            os.getxattr(path, "security.capability")
        self.assertEqual(raised.exception.errno, errno.ENODATA)


if __name__ == "__main__":
    unittest.main()
