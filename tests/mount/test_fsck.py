"""sluice fsck and sluice gc on real buckets."""

import json
import os
import sys
import threading
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from gateway import Gateway
from service import ServiceVolume
from volume import Volume


class Check:
    def start(self):
        v = self.make()
        self.addCleanup(v.close)
        return v.mount()

    def run_command(self, v, name, *arguments):
        done = v.sluice(name, v.url, "--meta-dir", os.path.join(v.directory, "meta"), "--json", *arguments, check=False)
        return done.returncode, json.loads(done.stdout)

    def test_bucket_against_records(self):
        v = self.start()
        for name in ("kept", "lost", "changed"):
            v.write(name, name.encode() * 1000)
        os.mkdir(v.path("_temporary"))
        v.write("_temporary/internal", b"i" * 100000)
        v.settle()
        v.unmount()
        code, said = self.run_command(v, "fsck", "--deep")
        self.assertEqual((code, said["violations"], said["bucket"]["objects"]), (0, 0, 4), said)
        self.assertEqual(said["bucket"]["bytes_read"], 4000 + 4000 + 7000 + 100000)
        v.delete_object("lost")
        v.put_object("changed", b"by others")
        code, said = self.run_command(v, "fsck", "--bucket")
        self.assertEqual(code, 1)
        self.assertEqual(sorted((f["kind"], f["key"]) for f in said["bucket"]["findings"]),
                         [("changed", "changed"), ("missing", "lost")])
        code, said = self.run_command(v, "fsck", "--repair")
        self.assertEqual((code, said["bucket"]["repaired"]), (0, 2), said)
        self.assertEqual(self.run_command(v, "fsck", "--bucket")[0], 0)
        v.mount()
        self.assertEqual(sorted(os.listdir(v.mountpoint)), ["_temporary", "changed", "kept"])
        self.assertEqual(v.read("changed"), b"by others")
        self.assertEqual(v.read("_temporary/internal"), b"i" * 100000)

    def test_records_of_a_living_mount(self):
        v = self.start()
        for i in range(200):
            v.write("f%d" % i, b"x")
        done = v.sluice("fsck", v.mountpoint, check=False)
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertIn("is consistent", done.stdout)
        refused = v.sluice("fsck", v.mountpoint, "--repair", check=False)
        self.assertEqual(refused.returncode, 1)
        v.write("after", b"still writable")

    def test_the_bucket_of_a_living_mount_while_it_is_written(self):
        """Nothing that is in use is reported or deleted, however young; what nobody owns is."""
        self.check_living(self.start())

    def test_the_bucket_of_a_volume_of_a_service_while_it_is_written(self):
        v = ServiceVolume(gateway=getattr(self, "gateway", None))
        self.addCleanup(v.close)
        self.check_living(v.mount())

    def check_living(self, v):
        v.write("lost", b"l" * 1000)
        v.settle()
        volume_id = v.status()["volume"]["volume"]["id"]
        orphan = ".sluice/o/%s/aa/%016x" % (volume_id[:8], 0xFFFFFFAA)
        v.put_object(orphan, b"o" * 500)
        v.put_object("theirs", b"foreign")
        end, wrong = threading.Event(), []

        def write():
            i = 0
            os.mkdir(v.path("d"))
            os.mkdir(v.path("_temporary"))
            while not end.is_set():
                # All ways to an object: from the metadata, at its key, at an internal one; replaced, moved, removed.
                name, size = "d/f%d" % (i % 20), (100, 60000, 200000)[i % 3]
                staged = "_temporary/s%d" % (i % 7)
                v.write(name, b"%d" % (i % 10) * size)
                v.write(staged, b"s" * size)
                os.rename(v.path(staged), v.path("d/m%d" % (i % 20)))
                if i % 5 == 4:
                    os.unlink(v.path(name))
                for at in (name, "d/m%d" % (i % 20)):
                    if os.path.exists(v.path(at)) and len(v.read(at)) != size:
                        wrong.append(at)
                i += 1

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for round in range(6):
                done = v.sluice("gc", v.mountpoint, "--json", "--older-than", "0s", "--strays", *["--delete"] * (round > 2), check=False)
                said = json.loads(done.stdout)
                self.assertEqual(done.returncode, 0, done.stdout)
                self.assertEqual([o["key"] for o in said["list"]], [orphan] if round < 4 else [], said)
                self.assertEqual(said["deleted"], 1 if round == 3 else 0)
                said = v.ask(op="check", deep=round == 5)
                self.assertEqual((said["ok"], said.get("findings")), (True, []), said)
        finally:
            end.set()
            writer.join()
        self.assertEqual(wrong, [])
        v.settle()
        self.assertIsNone(v.object(orphan))
        self.assertEqual(v.object("theirs"), b"foreign")
        v.delete_object("lost")
        done = v.sluice("fsck", v.mountpoint, "--bucket", check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("missing: lost: 1000 bytes", done.stdout)
        files = {n: v.read("d/" + n) for n in os.listdir(v.path("d"))}
        v.settle()
        v.unmount()
        if isinstance(v, ServiceVolume):
            v.service.stop()
        for name, data in files.items():
            self.assertEqual(v.object("d/" + name), data)
        self.assertEqual(v.check_metadata(), "")

    def test_orphans(self):
        v = self.start()
        v.write("kept", b"k")
        os.mkdir(v.path("_temporary"))
        v.write("_temporary/internal", b"i" * 100000)
        os.mkdir(v.path("empty"))
        v.settle()
        volume = v.status()["volume"]["volume"]["id"]
        orphan = ".sluice/o/%s/12/0000000000abcdef" % volume[:8]
        v.put_object(orphan, b"left by a crash")
        v.put_object("foreign", b"f")
        before = self.all_keys(v)
        v.unmount()
        code, said = self.run_command(v, "gc")
        self.assertEqual((code, said["young"], said["found"]["objects"]["count"]), (0, 1, 0), said)
        code, said = self.run_command(v, "gc", "--older-than", "0s", "--strays")
        self.assertEqual(said["found"]["objects"], {"count": 1, "bytes": 15})
        self.assertEqual(self.all_keys(v), before)
        code, said = self.run_command(v, "gc", "--older-than", "0s", "--delete")
        self.assertEqual((code, said["deleted"]), (0, 1), said)
        self.assertEqual(self.all_keys(v), [k for k in before if k != orphan])
        v.mount()
        self.assertEqual(v.read("_temporary/internal"), b"i" * 100000)

    def all_keys(self, v):
        if v.gateway:
            return sorted(v.gateway.list(v.bucket, v.prefix))
        return sorted(os.path.relpath(os.path.join(at, f), v.bucket) for at, _, files in os.walk(v.bucket) for f in files)


class OnDirectory(Check, unittest.TestCase):
    def make(self):
        return Volume()


class OnS3(Check, unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = cls.enterClassContext(Gateway())

    def make(self):
        return Volume(gateway=self.gateway)


if __name__ == "__main__":
    unittest.main()
