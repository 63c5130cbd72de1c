"""A file that was written in pieces of pages, as tar does: the kernel has holes in its cache, and must not ask for each by itself."""

import os
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


if __name__ == "__main__":
    unittest.main()
