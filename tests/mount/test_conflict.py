"""Settle on a real S3 server: what it costs in requests, and what becomes of files whose key somebody else has written."""

import json
import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from gateway import Gateway
from volume import Volume


class WithGateway(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway()
        cls.gateway.start()
        cls.addClassCleanup(cls.gateway.close)

    def start(self, **more):
        volume = Volume(gateway=self.gateway, **more)
        self.addCleanup(volume.close)
        return volume.mount()


class Requests(WithGateway):
    def requests(self, v):
        """By kind, since the mount."""
        fd = os.open(v.path(".sluice/ctl"), os.O_RDWR)
        try:
            os.write(fd, b'{"op":"metrics"}')
            reply = b""
            while part := os.read(fd, 65536):
                reply += part
        finally:
            os.close(fd)
        found = {}
        for line in json.loads(reply)["text"].splitlines():
            if line.startswith("sluice_store_requests_total{"):
                found[line.split('"')[1]] = int(float(line.rsplit(" ", 1)[1]))
        return found

    def check_spent(self, v, before, **expected):
        """No kind but these, give or take two: the owner's record is renewed every 30 s."""
        spent = {k: n - before.get(k, 0) for k, n in self.requests(v).items()}
        for kind in ("put", "get", "head", "copy", "mpu_create", "mpu_part", "mpu_part_copy", "mpu_complete"):
            least = expected.get(kind, 0)
            self.assertIn(spent.get(kind, 0), range(least, least + 3), "%s: %s" % (kind, spent))

    def test_a_file_written_once_costs_one_put(self):
        v = self.start()
        os.mkdir(v.path("d"))  # made here: no name in it is asked for
        v.write("d/first", b"first")
        v.settle()
        before = self.requests(v)
        for i in range(30):
            v.write("d/%d" % i, b"%d" % i * 1000)
        v.settle()
        self.check_spent(v, before, put=30)
        self.assertEqual(v.object("d/7"), b"7" * 1000)

    def test_a_renamed_file_costs_a_put_and_a_copy(self):
        v = self.start(options=["--settle-delay", "1h"])
        os.makedirs(v.path("d/_temporary"))
        v.write("d/first", b"first")
        v.settle()
        before = self.requests(v)
        for i in range(10):
            v.write("d/_temporary/%d" % i, b"%d" % i * 400000)
            os.rename(v.path("d/_temporary/%d" % i), v.path("d/%d" % i))
        v.settle()
        # A copy onto a key is an upload of one copied part: only that can have a condition.
        self.check_spent(v, before, put=10, mpu_create=10, mpu_part_copy=10, mpu_complete=10)
        self.assertEqual(v.object("d/7"), b"7" * 400000)

    def test_staging_that_stays_in_the_metadata_costs_one_put(self):
        v = self.start(options=["--settle-delay", "1h"])
        os.makedirs(v.path("d/_temporary"))
        v.write("d/first", b"first")
        v.settle()
        before = self.requests(v)
        for i in range(10):
            v.write("d/_temporary/%d" % i, b"%d" % i * 10000)
        os.rename(v.path("d/_temporary"), v.path("d/out"))
        v.settle()
        self.check_spent(v, before, put=10)


if __name__ == "__main__":
    unittest.main()
