"""Markers of directories, empty objects `dir/` that other S3 clients put, go with the directories that are removed or renamed on a mount."""

import os
import shutil
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from gateway import Gateway
from volume import Volume, wait_until


class Markers(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = cls.enterClassContext(Gateway())

    def start(self, objects, **options):
        v = Volume(gateway=self.gateway, **options)
        self.addCleanup(v.close)
        for key, data in objects.items():
            v.put_object(key, data)
        return v.mount()

    def names(self, v, name=""):
        v.refresh()
        return sorted(os.listdir(v.path(name)))

    def wait_for_keys(self, v, *keys):
        wait_until("the keys to be %s" % (keys,), lambda: v.keys() == list(keys))

    def test_removed(self):
        v = self.start({"d/": b"", "d/sub/": b"", "d/sub/f": b"f", "empty/": b"", "keep/": b""}, gc_delay="3s")
        shutil.rmtree(v.path("d"))
        os.rmdir(v.path("empty"))
        self.assertEqual(self.names(v), ["keep"])  # they are still in the bucket
        self.assertIn("empty/", v.keys())
        self.wait_for_keys(v, "keep/")
        self.assertEqual(self.names(v), ["keep"])
        v.put_object("d/", b"")
        self.assertEqual(self.names(v), ["d", "keep"])
        v.unmount()
        self.assertEqual(v.check_metadata(), "")

    def test_renamed(self):
        v = self.start({"d/": b"", "d/f": b"f", "d/sub/": b"", "d/sub/g": b"g", "d/void/": b"", "e/": b"", "empty/": b""})
        os.rename(v.path("d"), v.path("new"))
        os.rename(v.path("empty"), v.path("e"))  # over another one
        self.assertEqual(self.names(v), ["e", "new"])
        v.settle()
        self.wait_for_keys(v, "new/f", "new/sub/g")
        self.assertEqual(self.names(v), ["e", "new"])
        self.assertEqual(self.names(v, "new"), ["f", "sub", "void"])
        v.unmount()
        self.assertEqual(v.check_metadata(), "")

    def test_put_again_in_between_stays(self):
        v = self.start({"d/": b"", "e/": b""}, gc_delay="4s")
        os.listdir(v.path("d"))
        os.rename(v.path("e"), v.path("x"))
        os.rmdir(v.path("d"))
        time.sleep(2.1)  # times of objects are in seconds
        v.delete_object("d/")
        v.put_object("d/", b"")
        wait_until("gc to look at it", lambda: v.status()["volume"]["gc"]["left_to_others"] == 1)
        self.assertEqual(self.names(v), ["d", "x"])
        self.wait_for_keys(v, "d/")  # that of e goes when e is settled

    def test_what_got_bytes_stays(self):
        v = self.start({"d/": b""}, gc_delay="3s")
        os.rmdir(v.path("d"))
        self.gateway.delete(v.bucket, "d/")
        v.put_object("d/file", b"of others")
        wait_until("the directory of others", lambda: self.names(v) == ["d"])
        self.assertEqual(v.read("d/file"), b"of others")

    def test_killed_in_between(self):
        v = self.start({"d/": b"", "d/f": b"f", "e/": b"", "e/f": b"f"}, gc_delay="3s")
        shutil.rmtree(v.path("d"))
        os.rename(v.path("e"), v.path("new"))
        v.kill()
        v.mount()
        self.assertEqual(self.names(v), ["new"])
        v.settle()
        self.wait_for_keys(v, "new/f")
        self.assertEqual(self.names(v), ["new"])
        v.unmount()
        self.assertEqual(v.check_metadata(), "")

    def test_after_a_rebuild(self):
        v = self.start({"d/": b"", "d/f": b"f"})
        v.unmount()
        shutil.rmtree(os.path.join(v.directory, "meta"))
        v.sluice("rebuild", v.url, "--meta-dir", os.path.join(v.directory, "meta"))
        v.mount()
        os.unlink(v.path("d/f"))
        os.rmdir(v.path("d"))
        self.wait_for_keys(v)
        self.assertEqual(self.names(v), [])

    def test_read_only_leaves_them(self):
        v = self.start({"d/": b""}, options=("--read-only",))
        with self.assertRaises(OSError):
            os.rmdir(v.path("d"))
        self.assertEqual((self.names(v), v.keys()), (["d"], ["d/"]))


if __name__ == "__main__":
    unittest.main()
