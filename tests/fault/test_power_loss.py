"""The host loses its power: an ext4 of its own with all that the mount keeps is shut down at once, so what was not synced is gone, of names too.
What close and fsync of the class local have acknowledged is there afterwards."""

import fcntl
import os
import random
import struct
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from loop_disk import Disk, run
from volume import WAIT_S, Volume, wait_until

MIB = 1 << 20
EXT4_IOC_SHUTDOWN = 0x8004587D
WITHOUT_JOURNAL = 2  # what is in its memory is lost


def noise(length, seed):
    return random.Random(seed).randbytes(length)


class PowerLoss(unittest.TestCase):
    def start(self, *options):
        # No commit of the journal but those that somebody asks for.
        disk = Disk(self, 512 * MIB, features=(), options="commit=300")
        v = Volume(options=["--durability", "local", "--upload-delay", "1h", *options])
        self.addCleanup(v.close)
        self.disk, self.fds = disk, []
        os.symlink(os.path.join(disk.mount, "meta"), os.path.join(v.directory, "meta"))
        os.mkdir(os.path.join(disk.mount, "meta"))
        fd = os.open(disk.mount, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        return v.mount()

    def lose_power(self, v):
        fd = os.open(self.disk.mount, os.O_RDONLY)
        fcntl.ioctl(fd, EXT4_IOC_SHUTDOWN, struct.pack("=I", WITHOUT_JOURNAL))
        os.close(fd)
        v.kill()
        while self.fds:
            self.close(self.fds.pop())
        wait_until("no file of the disk is open", lambda: subprocess.run(("umount", self.disk.mount), stderr=subprocess.DEVNULL, timeout=WAIT_S).returncode == 0)
        run("mount", "-o", "commit=300", self.disk.device, self.disk.mount)
        v.mount()

    def open(self, v, name, flags=os.O_RDWR | os.O_CREAT):
        self.fds.append(os.open(v.path(name), flags, 0o644))
        return self.fds[-1]

    def close(self, fd):
        try:
            os.close(fd)
        except OSError:
            pass  # of a mount that is gone

    def check(self, v, files):
        for name, data in files.items():
            self.assertTrue(v.read(name) == data, name + " differs")

    def settled(self, v, files):
        self.check(v, files)
        v.settle()
        self.check(v, files)
        for name, data in files.items():
            self.assertTrue(v.object(name) == data, "object %s differs" % name)
        while self.fds:
            self.close(self.fds.pop())
        v.unmount()
        self.assertEqual(v.check_metadata(), "")

    def lost_at_each_end(self, *options):
        """After each kind of acknowledgement, with nothing after it that could sync by chance."""
        v = self.start(*options)
        want = {}

        def closed():
            v.write("closed", noise(700000, 1))
            want["closed"] = noise(700000, 1)

        def synced():
            fd = self.open(v, "synced")
            os.write(fd, noise(300000, 2))
            os.fsync(fd)
            want["synced"] = noise(300000, 2)

        def appended():
            fd = self.open(v, "synced", os.O_WRONLY | os.O_APPEND)
            for n in range(3):
                os.write(fd, noise(4096, n))
                os.fsync(fd)
                want["synced"] += noise(4096, n)

        def changed():
            fd = self.open(v, "synced")
            os.pwrite(fd, b"changed", 1000)
            os.fsync(fd)
            want["synced"] = want["synced"][:1000] + b"changed" + want["synced"][1007:]

        def holes():
            fd = self.open(v, "holes")
            os.pwrite(fd, b"x" * 4096, 3 * MIB)
            os.fsync(fd)
            want["holes"] = bytes(3 * MIB) + b"x" * 4096

        def cut():
            fd = self.open(v, "cut")
            os.write(fd, noise(500000, 3))
            os.fsync(fd)
            os.ftruncate(fd, 200000)
            os.fsync(fd)
            want["cut"] = noise(500000, 3)[:200000]

        def again():
            """One that was cut to nothing with a synced log, and is written anew."""
            fd = self.open(v, "cut")
            os.ftruncate(fd, 0)
            os.fsync(fd)
            os.write(fd, noise(400000, 4))
            os.fsync(fd)
            want["cut"] = noise(400000, 4)

        def renamed():
            v.write("before", noise(600000, 5))
            os.rename(v.path("before"), v.path("after"))
            want["after"] = noise(600000, 5)

        for step in (closed, synced, appended, changed, holes, cut, again, renamed):
            with self.subTest(step=step.__name__):
                step()
                self.lose_power(v)
                self.check(v, want)
        self.settled(v, want)

    def test_what_was_acknowledged_is_there(self):
        self.lost_at_each_end()

    def test_what_was_acknowledged_is_there_without_passthrough(self):
        self.lost_at_each_end("--no-passthrough")

    def test_of_a_file_that_was_uploaded_and_changed_meanwhile(self):
        v = self.start()
        data = noise(MIB, 6)
        fd = self.open(v, "f")
        os.write(fd, data)
        os.fsync(fd)
        self.assertTrue(v.ask(op="flush")["ok"])
        os.pwrite(fd, b"changed", 1000)
        os.fsync(fd)
        want = {"f": data[:1000] + b"changed" + data[1007:]}
        self.lose_power(v)
        self.check(v, want)
        self.settled(v, want)

    def test_what_was_removed_or_committed_does_not_come_back(self):
        v = self.start()
        v.write("gone", noise(300000, 7))
        v.write("f", noise(300000, 8))
        v.settle()
        os.unlink(v.path("gone"))
        v.write("f", noise(200000, 9))
        v.settle()
        v.write("new", noise(300000, 10))
        self.lose_power(v)
        want = {"f": noise(200000, 9), "new": noise(300000, 10)}
        self.assertEqual(sorted(os.listdir(v.mountpoint)), ["f", "new"])
        v.settle()
        wait_until("what was removed is deleted", lambda: v.keys() == ["f", "new"])
        self.settled(v, want)


if __name__ == "__main__":
    unittest.main()
