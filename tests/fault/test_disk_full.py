"""The local disk is full under the metadata and the staged data: an error to the writer, nothing lost, usable again when there is space."""

import errno
import os
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from volume import Volume, fill_disk, wait_until

SIZE = "160M"


class DiskFull(unittest.TestCase):
    def setUp(self):
        self.v = Volume(settle_delay="1h")
        self.addCleanup(self.v.close)
        self.disk = os.path.join(self.v.directory, "meta")
        os.mkdir(self.disk)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=" + SIZE, "sluice-test", self.disk], check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", self.disk], check=True)
        # Cleanups run last in, first out: the daemon must be gone before its disk is.
        self.addCleanup(self.v.kill)
        self.v.mount()

    def fill(self):
        fill_disk(os.path.join(self.disk, "ballast"))

    def drain(self):
        os.unlink(os.path.join(self.disk, "ballast"))

    def write_until_full(self):
        """Small files until one is refused; returns the acknowledged ones."""
        made = {}
        for i in range(20000):
            data = os.urandom(20000)
            try:
                self.v.write("n%d" % i, data)
            except OSError as e:
                self.assertIn(e.errno, (errno.ENOSPC, errno.EIO))
                return made
            made["n%d" % i] = data
        self.fail("the disk never got full")

    def compare(self, files):
        for name, data in files.items():
            self.assertTrue(self.v.read(name) == data, name + " differs")

    def works_again(self):
        def try_it():
            try:
                self.v.write("after", b"space again")
                return True
            except OSError:
                return False

        wait_until("writing to work again", try_it)
        self.assertEqual(self.v.read("after"), b"space again")

    def test_full_then_space_again(self):
        before = {"f%d" % i: os.urandom(20000) for i in range(50)}
        for name, data in before.items():
            self.v.write(name, data)
        self.fill()
        made = self.write_until_full()
        self.compare(before)
        self.compare(made)
        self.drain()
        self.works_again()
        self.compare(before)
        self.compare(made)
        self.v.unmount()
        self.assertEqual(self.v.check_metadata(), "")
        self.v.mount()
        self.compare(before)
        self.compare(made)

    def test_killed_while_full(self):
        before = {"f%d" % i: os.urandom(20000) for i in range(50)}
        for name, data in before.items():
            self.v.write(name, data)
        self.fill()
        made = self.write_until_full()
        self.v.kill()
        self.drain()
        self.v.mount()
        self.compare(before)
        self.compare(made)
        self.works_again()

    def test_large_file_waits_for_the_store_not_for_space(self):
        """More than fits on the local disk goes through it."""
        block = os.urandom(1 << 20)
        with open(self.v.path("large"), "wb") as f:
            for i in range(400):
                f.write(i.to_bytes(4, "big") + block[4:])
        with open(self.v.path("large"), "rb") as f:
            for i in range(400):
                self.assertTrue(f.read(1 << 20) == i.to_bytes(4, "big") + block[4:], "MiB %d differs" % i)


if __name__ == "__main__":
    unittest.main()
