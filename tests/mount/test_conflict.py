"""Settle on a real S3 server: what it costs in requests, and what becomes of files whose key somebody else has written."""

import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from gateway import Gateway
from service import ServiceVolume
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
        found = {}
        for line in v.ask(op="metrics")["text"].splitlines():
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


class Conflict:
    """A file that was changed in the mount, and its key by somebody else: both are kept."""

    def beside(self, v, directory, name):
        found = [n for n in os.listdir(v.path(directory)) if n.startswith(name + ".sluice-conflict-")]
        self.assertEqual(len(found), 1, os.listdir(v.path(directory)))
        return directory + "/" + found[0]

    def test_both_are_kept(self):
        v = self.make()
        os.mkdir(v.path("d"))
        v.write("d/changed", b"first")
        v.write("d/large", b"first" * 50000)
        v.write("d/deleted", b"first")
        v.settle()
        v.write("d/changed", b"ours")
        v.write("d/large", b"ours" * 60000)
        v.write("d/deleted", b"ours")
        open_file = os.open(v.path("d/new"), os.O_RDWR | os.O_CREAT)
        self.addCleanup(os.close, open_file)
        os.write(open_file, b"ours")
        os.fsync(open_file)
        ino = os.fstat(open_file).st_ino
        for name in ("changed", "large", "new"):
            v.put_object("d/" + name, b"theirs " + name.encode())
        v.delete_object("d/deleted")
        v.settle()
        for at in self.mounts(v):
            for name, ours in (("changed", b"ours"), ("large", b"ours" * 60000), ("new", b"ours")):
                beside = self.beside(at, "d", name)
                self.assertEqual(at.read("d/" + name), b"theirs " + name.encode())
                self.assertEqual(at.read(beside), ours)
                self.assertEqual(v.object("d/" + name), b"theirs " + name.encode())
                self.assertEqual(v.object(beside), ours)
            self.assertEqual(at.read("d/deleted"), b"ours")
        self.assertEqual(v.object("d/deleted"), b"ours")
        # The open file is ours, as before.
        os.write(open_file, b" and more")
        os.fsync(open_file)
        self.assertEqual(os.stat(v.path(self.beside(v, "d", "new"))).st_ino, ino)
        self.assertEqual(v.read(self.beside(v, "d", "new")), b"ours and more")
        self.assertEqual(v.read("d/new"), b"theirs new")

    def mounts(self, v):
        return [v]


class ConflictOnS3(Conflict, WithGateway):
    def make(self):
        return self.start(settle_delay="1h")

    def test_it_is_said(self):
        v = self.make()
        os.mkdir(v.path("d"))
        v.write("d/f", b"ours")
        v.put_object("d/f", b"theirs")
        v.settle()
        said = v.status()["volume"]["settle"]
        self.assertEqual((said["conflicts"], said["conflict_names"]), (1, [self.beside(v, "d", "f")]))
        self.assertEqual(said["failing"], [])
        self.assertIn("somebody else wrote the key of a changed file", v.output())


class ConflictAtAService(Conflict, unittest.TestCase):
    def make(self):
        self.a = ServiceVolume(settle_delay="1h")
        self.addCleanup(self.a.close)
        self.b = ServiceVolume(service=self.a.service, bucket=self.a.bucket)
        self.addCleanup(self.b.close)
        self.b.mount()
        return self.a.mount()

    def mounts(self, v):
        return [v, self.b]


if __name__ == "__main__":
    unittest.main()
