"""What other clients of the bucket do while it is mounted, as the users of the mount see it."""

import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from gateway import Gateway
from volume import Volume, wait_until


class WithGateway(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway()
        cls.gateway.start()
        cls.addClassCleanup(cls.gateway.close)

    def start(self, objects=None, options=(), **more):
        volume = Volume(gateway=self.gateway, options=options, **more)
        self.addCleanup(volume.close)
        for key, data in (objects or {}).items():
            volume.put_object(key, data)
        return volume.mount()


class Gone(WithGateway):
    def test_a_read_that_finds_the_object_gone_takes_the_name_away(self):
        v = self.start({"d/f": b"f" * 200000}, options=["--no-cache"])
        self.assertEqual(os.stat(v.path("d/f")).st_size, 200000)
        fd = os.open(v.path("d/f"), os.O_RDONLY)
        self.addCleanup(os.close, fd)
        v.delete_object("d/f")
        with self.assertRaises(OSError):
            os.pread(fd, 1000, 150000)
        # The kernel may keep names for 60 s; it is told at once.
        wait_until("the name to go", lambda: not os.path.exists(v.path("d/f")), seconds=30)
        self.assertEqual(os.listdir(v.path("d")), [])


class WithoutETag(WithGateway):
    """Files put directly below the gateway's root: it gives no ETag for them."""

    def put_file(self, v, name, data):
        path = os.path.join(self.gateway.buckets, v.bucket, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(data)
        return path

    def test_they_are_read_changed_and_removed(self):
        v = Volume(gateway=self.gateway, options=["--import-ttl", "0"])
        self.addCleanup(v.close)
        path = self.put_file(v, "d/plain", b"p" * 300000)
        self.put_file(v, "d/other", b"other")
        v.mount()
        self.assertEqual(v.read("d/plain"), b"p" * 300000)
        # Another size: seen by who reads, never a mixture.
        with open(v.path("d/plain"), "rb") as f:
            self.assertEqual(f.read(4096), b"p" * 4096)
            with open(path, "r+b") as changed:
                changed.write(b"q" * 400000)
            try:
                self.assertIn(os.pread(f.fileno(), 4096, 200000), (b"p" * 4096, b"q" * 4096))
            except OSError:
                pass
        v.refresh()
        self.assertEqual(v.read("d/plain"), b"q" * 400000)
        # Ours in its place, and the removal of the other, come to the bucket.
        v.write("d/plain", b"ours")
        os.unlink(v.path("d/other"))
        v.settle()
        self.assertEqual(v.object("d/plain"), b"ours")
        wait_until("the removed one to go", lambda: v.keys() == ["d/plain"])
        os.rename(v.path("d/plain"), v.path("moved"))
        v.settle()
        self.assertEqual(v.object("moved"), b"ours")

    def test_a_renamed_one_is_copied(self):
        v = Volume(gateway=self.gateway)
        self.addCleanup(v.close)
        self.put_file(v, "d/large", b"l" * 700000)
        v.mount()
        os.rename(v.path("d/large"), v.path("d/moved"))
        v.settle()
        self.assertEqual(v.object("d/moved"), b"l" * 700000)
        wait_until("the old key to go", lambda: v.keys() == ["d/moved"])


if __name__ == "__main__":
    unittest.main()
