"""kill -9 of a mount under load, at random moments and at every named crash point, on both stores; then everything acknowledged is compared.

SLUICE_CRASH_ROUNDS (default 6) random kills for each store.
"""

import os
import random
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import crash_points
from gateway import Gateway
from volume import Volume, wait_until
from workload import Workload

ROUNDS = int(os.environ.get("SLUICE_CRASH_ROUNDS", "6"))
THREADS = 3
# What a workload of this size must reach; the rest of the list comes from running it.
EXPECTED_POINTS = ["flush.reserved", "flush.committed", "settle.begun", "settle.swapped", "gc.deleted"]


class Crash:
    def start(self, seed, **options):
        v = self.make(**options)
        self.addCleanup(v.close)
        v.mount()
        loads = []
        for n in range(THREADS):
            os.mkdir(v.path("w%d" % n))
            loads.append(Workload(v.path("w%d" % n), seed * 10 + n))
        return v, loads

    def run_until_dead(self, v, loads, steps, kill_after=None):
        threads = [threading.Thread(target=w.run, args=(steps,)) for w in loads]
        for t in threads:
            t.start()
        if kill_after is not None:
            time.sleep(kill_after)
            v.process.kill()
        for t in threads:
            t.join()

    def check(self, v, loads):
        for w in loads:
            self.assertEqual(w.verify(), [])
        v.settle()
        for n, w in enumerate(loads):
            self.assertEqual(w.verify(), [])
            for name, data in w.files.items():
                self.assertEqual(v.object("w%d/%s" % (n, name)), data, name)
        want = sorted("w%d/%s" % (n, name) for n, w in enumerate(loads) for name in w.files)
        wait_until("unused objects to go", lambda: v.keys() == want)

    def test_killed_at_random_moments(self):
        rng = random.Random(4711)
        v, loads = self.start(1)
        for _ in range(ROUNDS):
            self.run_until_dead(v, loads, 100000, kill_after=rng.uniform(0.05, 1.2))
            v.kill()
            v.mount()
            for w in loads:
                self.assertEqual(w.verify(), [])
        self.check(v, loads)
        v.unmount()
        self.assertEqual(v.check_metadata(), "")

    def test_killed_at_every_crash_point(self):
        points = self.points_reached()
        for name in self.expected:
            self.assertIn(name, points)
        for i, point in enumerate(points):
            with self.subTest(point=point):
                self.kill_at(point, 1 + i % 3, 100 + i)

    def points_reached(self):
        v, loads = self.start(7)
        v.unmount()
        listing = os.path.join(v.directory, "points")
        v.env["SLUICE_CRASH_LIST"] = listing
        v.mount()
        self.run_until_dead(v, loads, 60)
        self.check(v, loads)
        v.unmount()
        with open(listing) as f:
            return sorted(set(f.read().split()))

    def kill_at(self, point, nth, seed):
        v, loads = self.start(seed)
        try:
            v.unmount()
            v.env["SLUICE_CRASH_AT"] = "%s:%d" % (point, nth)
            try:
                v.mount()
                self.run_until_dead(v, loads, 60)
                # What the foreground did not reach, the workers will.
                if v.process.poll() is None:
                    v.sluice("settle", "--wait", v.mountpoint, check=False)
                if v.process.poll() is None:
                    end = time.monotonic() + 3
                    while v.process.poll() is None and time.monotonic() < end:
                        time.sleep(0.02)
            except AssertionError:
                pass  # it died while it was mounting
            v.kill()
            del v.env["SLUICE_CRASH_AT"]
            v.mount()
            self.check(v, loads)
            v.unmount()
            self.assertEqual(v.check_metadata(), "")
        finally:
            v.close()


class Points(unittest.TestCase):
    # Enumerated by running: rebuild in tests/mount/test_rebuild.py, the inventory in test_inventory.py, the store on a directory here.
    ENUMERATED = ("rebuild", "inventory", "file")

    def test_each_point_of_the_source_is_one_that_a_test_dies_at(self):
        named = crash_points.named_by_tests()
        named |= set(OnS3.expected) | set(OnDirectory.expected)
        left = [p for p in crash_points.of_source() if p not in named and p.split(".")[0] not in self.ENUMERATED]
        self.assertEqual(left, [])


class OnDirectory(Crash, unittest.TestCase):
    expected = EXPECTED_POINTS + crash_points.of_source("file")

    def make(self, **options):
        return Volume(**options)


class OnS3(Crash, unittest.TestCase):
    expected = EXPECTED_POINTS + ["flush.given", "cache.adopted"]

    @classmethod
    def setUpClass(cls):
        cls.gateway = cls.enterClassContext(Gateway())

    def make(self, **options):
        return Volume(gateway=self.gateway, options=["--cache-size", "256M"], **options)


if __name__ == "__main__":
    unittest.main()
