"""A bucket that others fill, change and read: import, refresh, outside changes, settle, ownership. On both stores."""

import errno
import os
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from gateway import Gateway
from volume import Volume, is_mounted, wait_until


class Bucket:
    """Mixed into a TestCase that makes volumes; each test has one of its own, with the bucket filled before it is mounted."""

    def start(self, objects=None, **options):
        volume = self.make(options.pop("options", ()), **options)
        self.addCleanup(volume.close)
        for key, data in (objects or {}).items():
            volume.put_object(key, data)
        volume.mount()
        return volume

    def test_existing_objects_are_files(self):
        v = self.start({"a.txt": b"aa", "d/b.txt": b"b" * 100000, "d/e/c": b"", "däß/ü": b"x"})
        self.assertEqual(v.read("d/b.txt"), b"b" * 100000)
        self.assertEqual(sorted(os.listdir(v.mountpoint)), ["a.txt", "d", "däß"])
        self.assertEqual(sorted(os.listdir(v.path("d"))), ["b.txt", "e"])
        self.assertEqual(os.stat(v.path("d/e/c")).st_size, 0)
        self.assertEqual(v.read("däß/ü"), b"x")
        v.unmount()

    def test_lookup_without_listing(self):
        v = self.start({"deep/er/file": b"found"})
        self.assertEqual(v.read("deep/er/file"), b"found")
        with self.assertRaises(FileNotFoundError):
            os.stat(v.path("deep/er/other"))

    def test_many_objects(self):
        v = self.make(())
        self.addCleanup(v.close)
        for i in range(2300):
            v.put_object("many/%05d" % i, b"%d" % i)
        v.mount()
        names = os.listdir(v.path("many"))
        self.assertEqual(sorted(names), ["%05d" % i for i in range(2300)])
        self.assertEqual(v.read("many/02299"), b"2299")

    def test_import_then_rename_overwrite_delete(self):
        v = self.start({"d/one": b"1" * 70000, "d/two": b"2", "d/three": b"3", "keep": b"k"})
        os.rename(v.path("d/one"), v.path("d/uno"))
        v.write("d/two", b"two is new")
        os.unlink(v.path("d/three"))
        v.settle()
        wait_until("old keys to go", lambda: v.keys() == ["d/two", "d/uno", "keep"])
        self.assertEqual(v.object("d/uno"), b"1" * 70000)
        self.assertEqual(v.object("d/two"), b"two is new")
        v.refresh()
        self.assertEqual(sorted(os.listdir(v.path("d"))), ["two", "uno"])
        v.unmount()

    def test_renamed_import_directory(self):
        v = self.start({"old/a": b"a", "old/sub/b": b"b" * 50000})
        self.assertEqual(os.listdir(v.mountpoint), ["old"])
        os.rename(v.path("old"), v.path("new"))
        self.assertEqual(v.read("new/sub/b"), b"b" * 50000)
        v.refresh()
        self.assertEqual(os.listdir(v.mountpoint), ["new"])
        v.settle()
        wait_until("old keys to go", lambda: v.keys() == ["new/a", "new/sub/b"])
        os.mkdir(v.path("old"))
        v.write("old/a", b"other")
        v.settle()
        self.assertEqual((v.object("old/a"), v.object("new/a")), (b"other", b"a"))

    def test_outside_put_and_delete_seen_after_refresh(self):
        v = self.start({"d/x": b"old", "d/y": b"y"})
        self.assertEqual(v.read("d/x"), b"old")
        v.put_object("d/x", b"changed outside")
        v.put_object("d/new", b"n")
        v.delete_object("d/y")
        v.refresh()
        self.assertEqual(v.read("d/x"), b"changed outside")
        self.assertEqual(sorted(os.listdir(v.path("d"))), ["new", "x"])

    def test_outside_change_is_never_mixed(self):
        old, new = b"o" * (3 << 20), b"n" * (3 << 20)
        v = self.start({"f": old})
        fd = os.open(v.path("f"), os.O_RDONLY)
        self.assertEqual(os.pread(fd, 4096, 0), b"o" * 4096)
        v.put_object("f", new)
        try:
            rest = os.pread(fd, 65536, 2 << 20)
            self.assertEqual(rest, b"o" * 65536)
        except OSError as e:
            self.assertEqual(e.errno, errno.ESTALE)
        os.close(fd)
        v.refresh()
        self.assertEqual(v.read("f"), new)

    def test_foreign_object_is_not_overwritten_by_settle(self):
        v = self.start({}, settle_delay="1h")
        v.write("f", b"ours")
        v.put_object("f", b"theirs")
        v.settle()
        self.assertEqual(v.object("f"), b"theirs")
        self.assertEqual(v.read("f"), b"theirs")
        beside, = (name for name in os.listdir(v.mountpoint) if name != "f")
        self.assertTrue(beside.startswith("f.sluice-conflict-"), beside)
        self.assertEqual((v.read(beside), v.object(beside)), (b"ours", b"ours"))

    def test_foreign_object_is_not_overwritten_by_direct_write(self):
        v = self.start({})
        with open(v.path("f"), "wb") as f:
            f.write(b"o" * (20 << 20))
            f.flush()
            v.put_object("f", b"theirs")
        self.assertEqual(v.read("f"), b"o" * (20 << 20))
        self.assertEqual(v.object("f"), b"theirs")

    def test_remount_keeps_everything(self):
        v = self.start({"imported": b"i"})
        os.makedirs(v.path("a/b"))
        v.write("a/b/file", b"f" * 300000)
        v.write("a/small", b"s")
        os.symlink("a", v.path("link"))
        os.setxattr(v.path("a"), "user.x", b"y")
        v.unmount()
        v.mount()
        self.assertEqual((v.read("a/b/file"), v.read("a/small"), v.read("imported")), (b"f" * 300000, b"s", b"i"))
        self.assertEqual((os.readlink(v.path("link")), os.getxattr(v.path("a"), "user.x")), ("a", b"y"))
        v.unmount()

    def test_new_metadata_reads_settled_bucket(self):
        v = self.start({})
        os.mkdir(v.path("d"))
        v.write("d/f", b"plain")
        os.chmod(v.path("d/f"), 0o640)
        v.write("g", b"G" * 100000)
        v.settle()
        v.unmount()
        os.rename(os.path.join(v.directory, "meta"), os.path.join(v.directory, "lost"))
        v.mount("--take-over")
        self.assertEqual((v.read("d/f"), v.read("g")), (b"plain", b"G" * 100000))

    def test_second_writer_is_refused(self):
        v = self.start({})
        other = self.make((), bucket=v.bucket)
        self.addCleanup(other.close)
        code, text = other.mount_fails()
        self.assertNotEqual(code, 0)
        self.assertIn(v.mountpoint, text)
        self.assertFalse(is_mounted(other.mountpoint))
        v.write("still", b"works")
        v.settle()
        v.unmount()
        self.assertEqual(v.object("still"), b"works")
        other.mount()
        self.assertEqual(other.read("still"), b"works")
        other.unmount()

    def test_read_only_beside_a_writer(self):
        v = self.start({"f": b"content"})
        other = self.make(["--read-only"], bucket=v.bucket)
        self.addCleanup(other.close)
        other.mount()
        self.assertEqual(other.read("f"), b"content")
        for call in (lambda: other.write("new", b""), lambda: os.unlink(other.path("f")), lambda: os.mkdir(other.path("d")),
                     lambda: os.rename(other.path("f"), other.path("g")), lambda: os.chmod(other.path("f"), 0o600)):
            with self.assertRaises(OSError) as caught:
                call()
            self.assertEqual(caught.exception.errno, errno.EROFS)
        before = other.keys()
        other.unmount()
        self.assertEqual(v.keys(), before)

    def test_usage_is_exact(self):
        v = self.start({})
        os.makedirs(v.path("a/b"))
        v.write("a/b/1", b"x" * 1000)
        v.write("a/2", b"y" * 50000)
        os.symlink("x", v.path("a/l"))
        usage = v.sluice("usage", "--json", v.path("a")).stdout
        self.assertIn('"bytes": 51000', usage)
        self.assertIn('"files": 3', usage)
        self.assertIn('"directories": 1', usage)

    def test_attributes_that_tell_of_the_object(self):
        v = self.start({"imported": b"i"}, settle_delay="1h")
        v.write("f", b"x" * 100)

        def get(name, attribute):
            return os.getxattr(v.path(name), "user.sluice." + attribute).decode()

        self.assertEqual((get("f", "settled"), get("f", "drift"), get("", "drift")), ("0", "1 100", "1 100"))
        with self.assertRaises(OSError) as caught:
            get("f", "key")
        self.assertEqual(caught.exception.errno, errno.ENODATA)
        v.settle()
        self.assertEqual((get("f", "settled"), get("f", "drift"), get("", "settled")), ("1", "0 0", "1"))
        self.assertEqual((get("f", "key"), get("imported", "key")), (v.prefix + "f", v.prefix + "imported"))
        self.assertTrue(get("f", "etag"))
        cid = get("f", "cid")
        os.rename(v.path("f"), v.path("g"))
        self.assertEqual((get("g", "settled"), get("g", "key")), ("0", v.prefix + "f"))
        v.settle()
        self.assertEqual((get("g", "settled"), get("g", "key"), get("g", "cid")), ("1", v.prefix + "g", cid))
        self.assertEqual(os.listxattr(v.path("g")), [])
        for change in (lambda: os.setxattr(v.path("g"), "user.sluice.key", b"x"), lambda: os.removexattr(v.path("g"), "user.sluice.key")):
            with self.assertRaises(OSError) as caught:
                change()
            self.assertEqual(caught.exception.errno, errno.EPERM)

    def test_status_tells_drift(self):
        v = self.start({}, settle_delay="1h")
        v.write("f", b"x" * 100)
        self.assertEqual(v.status()["volume"]["drift"]["files"], 1)
        v.settle()
        self.assertEqual(v.status()["volume"]["drift"]["files"], 0)


class OnDirectory(Bucket, unittest.TestCase):
    def make(self, options, **more):
        return Volume(options=options, **more)


class OnS3(Bucket, unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = cls.enterClassContext(Gateway())

    def make(self, options, **more):
        return Volume(gateway=self.gateway, options=options, **more)

    def test_prefix_of_a_bucket(self):
        v = Volume(gateway=self.gateway, prefix="in/side/")
        self.addCleanup(v.close)
        self.gateway.put(v.bucket, "out", b"not ours")
        self.gateway.put(v.bucket, "in/side/f", b"ours")
        v.mount()
        self.assertEqual(os.listdir(v.mountpoint), ["f"])
        v.write("g", b"g" * 100000)
        v.settle()
        self.assertEqual(self.gateway.get(v.bucket, "in/side/g"), b"g" * 100000)
        self.assertEqual(self.gateway.get(v.bucket, "out"), b"not ours")


if __name__ == "__main__":
    unittest.main()
