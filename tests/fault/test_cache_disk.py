"""The cache on a disk of its own (a loop device) that fails and comes back, hangs, is read-only or full, under load:
readers see neither an error nor a wrong byte."""

import os
import random
import subprocess
import sys
import threading
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from gateway import Gateway
from loop_disk import Disk, run
from s3_tools import BUILD
from volume import WAIT_S, Volume, wait_until

MIB = 1 << 20


class SlowDisk(Disk):
    """The same on a file of a file system that delays each request."""

    def make_image(self, test, size):
        image = super().make_image(test, size)
        self.delay_file, mount = os.path.join(self.directory, "delay"), os.path.join(self.directory, "slow")
        self.delay(0)
        test.addCleanup(os.unlink, self.delay_file)
        os.mkdir(mount)
        test.addCleanup(os.rmdir, mount)
        process = subprocess.Popen([os.path.join(BUILD, "tests", "tools", "slow_file"), image, self.delay_file, mount], stdin=subprocess.DEVNULL)
        test.addCleanup(process.wait, WAIT_S)
        test.addCleanup(run, "umount", mount)
        slow = os.path.join(mount, "image")
        wait_until("the slow file", lambda: os.path.exists(slow) or process.poll() is not None)
        return slow

    def delay(self, ms):
        """Each request to the disk takes so much longer from now on."""
        with open(self.delay_file, "w") as f:
            f.write("%d\n" % ms)


class Load:
    """Threads that read random pieces of a file past the kernel's pages, and compare each byte."""

    def __init__(self, volume, name, data, count=3):
        self.path, self.data, self.wrong, self.reads = volume.path(name), data, [], 0
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(i,)) for i in range(count)]
        for thread in self.threads:
            thread.start()

    def run(self, seed):
        rng = random.Random(seed)
        try:
            with open(self.path, "rb", buffering=0) as f:
                while not self.ended.is_set() and not self.wrong:
                    length = rng.choice((4096, 50000, MIB))
                    at = rng.randrange(len(self.data) - length)
                    os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                    if os.pread(f.fileno(), length, at) != self.data[at:at + length]:
                        self.wrong.append("wrong bytes at %d" % at)
                    self.reads += 1
        except OSError as error:
            self.wrong.append(repr(error))

    def more(self):
        """So many more reads have gone well."""
        goal = self.reads + 40
        wait_until("reads", lambda: self.wrong or self.reads >= goal)

    def end(self, test):
        self.ended.set()
        for thread in self.threads:
            thread.join(WAIT_S)
        test.assertEqual(self.wrong, [])


@unittest.skipIf(os.geteuid() != 0, "loop devices need root")
class CacheDiskTest(unittest.TestCase):
    def setUp(self):
        self.gateway = self.enterContext(Gateway())

    def start(self, disk, size=24 * MIB):
        v = Volume(gateway=self.gateway, options=["--no-passthrough", "--cache-dir", os.path.join(disk.mount, "c")])
        self.addCleanup(v.close)
        v.mount()
        data = random.Random(7).randbytes(size)
        v.put_object("f", data)
        return v, data

    def cache(self, v):
        return v.status()["mount"]["cache"]

    def health(self, v):
        return self.cache(v)["directories"][0]["health"]

    def warm(self, v, data):
        """What finds no room on its way to a disk that is slower than its reader stays out: so not by reading alone."""
        self.assertEqual(v.read("f"), data)
        v.sluice("warm", "--wait", v.path("f"))
        wait_until("all of it is cached", lambda: self.cache(v)["bytes"] >= len(data))

    def test_disk_taken_away_and_given_back_under_load(self):
        disk = Disk(self, 96 * MIB)
        v, data = self.start(disk)
        self.warm(v, data)
        load = Load(v, "f", data)
        for _ in range(2):
            load.more()
            disk.limit(4096)
            wait_until("the disk is left alone", lambda: load.wrong or self.health(v) == "failed")
            load.more()
            disk.limit(0)
            wait_until("the disk is used again", lambda: load.wrong or self.health(v) == "good")
            load.more()
        load.end(self)
        self.assertGreater(self.cache(v)["read_errors"], 0)
        v.unmount()

    def test_slow_disk_is_passed_by_and_comes_back(self):
        disk = SlowDisk(self, 96 * MIB)
        v, data = self.start(disk)
        self.warm(v, data)
        self.addCleanup(disk.delay, 0)
        load = Load(v, "f", data)
        load.more()
        disk.delay(500)
        wait_until("the disk is left alone", lambda: load.wrong or self.health(v) == "slow")
        before, reads = self.cache(v)["timeouts"], load.reads
        for _ in range(3):
            load.more()
        # Only now and then one of them tries the disk; the others do not wait for it.
        self.assertLess(self.cache(v)["timeouts"] - before, (load.reads - reads) / 5)
        disk.delay(0)
        wait_until("the disk is used again", lambda: load.wrong or self.health(v) == "good")
        hits = self.cache(v)["hit_bytes"]
        load.more()
        self.assertGreater(self.cache(v)["hit_bytes"], hits)
        load.end(self)
        v.unmount()

    def test_disk_whose_writes_hang(self):
        disk = Disk(self, 96 * MIB)
        v, data = self.start(disk)
        load = Load(v, "f", data)
        load.more()
        run("fsfreeze", "--freeze", disk.mount)
        try:
            load.more()
        finally:
            run("fsfreeze", "--unfreeze", disk.mount)
        wait_until("all of it is cached", lambda: load.wrong or self.cache(v)["bytes"] >= len(data))
        load.end(self)
        v.unmount()

    def test_read_only_disk_is_left_out(self):
        disk = Disk(self, 96 * MIB)
        v, data = self.start(disk)
        self.assertEqual(v.read("f"), data)
        v.unmount()
        # The kernel closes a ring's files a little after its process has ended.
        remount = ["mount", "-o", "remount,ro", disk.mount]
        wait_until("no file is open for writing", lambda: subprocess.run(remount, stderr=subprocess.DEVNULL, timeout=WAIT_S).returncode == 0)
        v.mount("--read-only")  # others need a place for what is written, which is on this disk, too
        self.assertEqual(v.read("f"), data)
        self.assertIn("cache directory cannot be used", v.output())
        v.unmount()

    def test_others_fill_the_disk(self):
        disk = Disk(self, 96 * MIB)
        v, data = self.start(disk, 48 * MIB)
        self.assertEqual(v.read("f"), data)
        load = Load(v, "f", data)
        with open(os.path.join(disk.mount, "other"), "wb") as f:
            try:
                while True:
                    f.write(bytes(MIB))
            except OSError:
                pass
        wait_until("the cache has made room", lambda: load.wrong or self.cache(v)["bytes"] < 16 * MIB)
        load.more()
        os.unlink(os.path.join(disk.mount, "other"))
        wait_until("it is filled again", lambda: load.wrong or self.cache(v)["bytes"] > 24 * MIB)
        load.end(self)
        v.unmount()


if __name__ == "__main__":
    unittest.main()
