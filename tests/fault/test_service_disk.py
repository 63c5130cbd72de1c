"""The disk of the metadata service is full: writers are refused, readers go on, and all works again when there is space."""

import errno
import os
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from service import Service, ServiceVolume
from volume import fill_disk, wait_until

SIZE = "96M"


class ServiceDisk(unittest.TestCase):
    def setUp(self):
        self.service = Service(options=["--lease", "60s"])
        self.addCleanup(self.service.close)
        os.mkdir(self.service.data)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=" + SIZE, "sluice-test", self.service.data], check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", self.service.data], check=True)
        self.service.start()
        bucket = os.path.join(self.service.directory, "bucket")
        os.mkdir(bucket)
        self.service.volume("create", "v", "file://" + bucket, "settle-delay=1h", "inline-max=32K")
        self.writer, self.reader = (ServiceVolume(service=self.service, bucket=bucket) for _ in range(2))
        # Cleanups run last in, first out: the service must be gone before its disk is.
        self.addCleanup(lambda: self.service.process and self.service.kill())
        for mount in (self.writer, self.reader):
            self.addCleanup(mount.close)
            mount.mount()

    def fill(self):
        fill_disk(os.path.join(self.service.data, "ballast"))

    def write_until_full(self):
        """Small files until one is refused; the acknowledged ones, and why it was."""
        made = {}
        for i in range(20000):
            data = os.urandom(20000)
            try:
                self.writer.write("n%d" % i, data)
            except OSError as error:
                return made, error.errno
            made["n%d" % i] = data
        self.fail("the disk never got full")

    def compare(self, mount, files):
        for name, data in files.items():
            self.assertTrue(mount.read(name) == data, name + " differs")

    def test_full_then_space_again(self):
        before = {"f%d" % i: os.urandom(20000) for i in range(20)}
        for name, data in before.items():
            self.writer.write(name, data)
        self.fill()
        made, why = self.write_until_full()
        self.assertEqual(why, errno.ENOSPC)
        # Nobody who only reads sees anything of it, in files that were never read there either.
        self.compare(self.reader, before)
        self.compare(self.reader, made)
        self.assertEqual(set(before) | set(made), {n for n in os.listdir(self.reader.mountpoint) if n in before or n in made})
        self.compare(self.writer, made)
        # A new mount is let in: somebody has to remove something.
        with ServiceVolume(service=self.service, bucket=self.writer.bucket) as another:
            name = next(iter(made))
            os.unlink(another.path(name))
            del made[name]
            another.unmount()
        os.unlink(os.path.join(self.service.data, "ballast"))

        def works():
            try:
                self.writer.write("after", b"space again")
                return True
            except OSError:
                return False

        wait_until("writing to work again", works)
        self.assertEqual(self.reader.read("after"), b"space again")
        self.compare(self.reader, made)
        self.service.stop()
        self.service.start()
        self.compare(self.reader, {**before, **made, "after": b"space again"})


if __name__ == "__main__":
    unittest.main()
