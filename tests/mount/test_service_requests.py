"""What a mount asks the service for, counted on the wire: each request is a round trip of the network."""

import collections
import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from service import Service, ServiceVolume
from wire_proxy import WireProxy

REQUEST, TASK, INVALIDATE, CONFIRM = 4, 6, 12, 13
FILES = 20


class Mount(ServiceVolume):
    def __init__(self, service, bucket, oldest=False):
        super().__init__(service=service, bucket=bucket)
        self.proxy = WireProxy(service.port, count=True, oldest=oldest)

    def command(self, *extra):
        return [word.replace(":%d/" % self.service.port, ":%d/" % self.proxy.port) if word.startswith("sluice://") else word
                for word in super().command(*extra)]

    def close(self):
        try:
            super().close()
        finally:
            self.proxy.close()

    def sent(self):
        """How many requests, tasks and confirmations went out since the last call, and invalidations came in."""
        found, self.proxy.frames = self.proxy.frames, collections.deque()
        kinds = collections.Counter(kind for direction, kind in found if (direction == "to_service") == (kind != INVALIDATE))
        return {kind: kinds[kind] for kind in (REQUEST, TASK, INVALIDATE, CONFIRM)}


class Requests(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.service = Service(options=["--lease", "300s"])
        cls.addClassCleanup(cls.service.close)
        cls.service.start()
        bucket = os.path.join(cls.service.directory, "bucket")
        os.mkdir(bucket)
        cls.bucket = bucket
        cls.service.volume("create", "v", "file://" + bucket, "settle-delay=1h")
        for name in "ab":
            mount = Mount(cls.service, bucket)
            cls.addClassCleanup(mount.close)
            mount.mount()
            setattr(cls, name, mount)

    def each(self, function):
        """Requests and tasks for each of so many calls."""
        self.a.sent()
        for i in range(FILES):
            function(i)
        sent = self.a.sent()
        return sent[REQUEST] / FILES, sent[TASK] / FILES

    def test_of_one_mount(self):
        directory = self.a.path("d")
        os.mkdir(directory)

        def name(kind, i):
            return os.path.join(directory, "%s%d" % (kind, i))

        def write(kind, i, data):
            with open(name(kind, i), "wb", buffering=0) as f:
                if data:
                    f.write(data)

        def read(i):
            with open(name("f", i), "rb", buffering=0) as f:
                f.read(8192)

        # A few more are allowed than there are: settle, and inodes that are dropped, are asked for beside.
        def check(function, requests, tasks=0.0):
            got = self.each(function)
            self.assertLessEqual(got[0], requests + 0.5)
            self.assertLessEqual(got[1], tasks)

        for i in range(3):  # who has closed some empty files makes more of them
            write("g", i, b"")
        check(lambda i: write("e", i, b""), 1)           # make it, durable. That there is none is known
        check(lambda i: write("f", i, b"x" * 4096), 1 + 1)  # make it; its bytes, durable
        check(lambda i: os.stat(name("f", i)), 0)
        check(lambda i: self.assertFalse(os.path.exists(name("none", i))), 0)
        check(read, 0)  # what this mount has written
        check(lambda i: os.rename(name("e", i), name("r", i)), 1)
        check(lambda i: os.rename(name("f", i), name("r", i)), 1)  # the kernel looks the target up before
        check(lambda i: os.unlink(name("r", i)), 1)

    def is_asked(self, mount, directory, new="none"):
        """Whether the service is asked for names that are not there."""
        mount.sent()
        for i in range(FILES):
            self.assertFalse(os.path.exists(mount.path(directory, "%s%d" % (new, i))))
        asked = mount.sent()[REQUEST]
        self.assertTrue(asked >= FILES or asked <= FILES / 2, asked)
        return asked >= FILES

    def test_names_that_are_not_there(self):
        """A directory that this mount has made, or listed: until another one changes it, nobody is asked for what it does not have."""
        os.mkdir(self.a.path("n"))
        self.assertFalse(self.is_asked(self.a, "n"))
        self.assertFalse(os.path.exists(self.a.path("n/1")))
        self.b.write("n/1", b"x")
        self.assertEqual(self.a.read("n/1"), b"x")
        self.assertTrue(self.is_asked(self.a, "n"))
        self.assertEqual(os.listdir(self.a.path("n")), ["1"])
        self.assertFalse(self.is_asked(self.a, "n", "others"))
        for i in range(2, 5):  # each is seen at once, whoever made it
            self.assertEqual(os.listdir(self.a.path("n")), [str(i - 1)])
            self.assertFalse(os.path.exists(self.a.path("n/%d" % i)))
            os.rename(self.b.path("n/%d" % (i - 1)), self.b.path("n/%d" % i))
            self.assertEqual(self.a.read("n/%d" % i), b"x")

    def test_names_of_the_bucket_are_asked_for(self):
        """What others put there comes to light by a question: so a directory that comes from the bucket is not known whole."""
        os.mkdir(os.path.join(self.bucket, "from"))
        with open(os.path.join(self.bucket, "from", "one"), "wb") as f:
            f.write(b"1")
        self.assertEqual(os.listdir(self.a.path("from")), ["one"])
        self.assertTrue(self.is_asked(self.a, "from"))

    def test_first_version_of_the_protocol(self):
        """A mount that speaks it is not told that it knows a directory whole, and works."""
        with Mount(self.service, self.bucket, oldest=True) as old:
            try:
                os.mkdir(old.path("o"))
                self.assertTrue(self.is_asked(old, "o"))
                old.write("o/f", b"x")
                self.assertEqual(self.a.read("o/f"), b"x")
            finally:
                old.unmount()  # without a word, others would wait for it as long as its lease

    def test_from_close_to_the_other_mount(self):
        """Close asks once, and waits for one push and its confirmation; who reads then asks once, for the attributes
        and the bytes together: so the new content is seen two round trips after the close."""
        for size in (100, 4096):
            with self.subTest(size):
                self.a.write("f", b"1" * size)
                for _ in range(2):
                    self.assertEqual(self.b.read("f"), b"1" * size)
                fd = os.open(self.a.path("f"), os.O_WRONLY)
                os.pwrite(fd, b"2" * size, 0)
                self.a.sent()
                self.b.sent()
                os.close(fd)
                sent, told = self.a.sent(), self.b.sent()
                self.assertEqual((sent[REQUEST], sent[TASK], told[INVALIDATE], told[CONFIRM]), (1, 0, 1, 1))
                self.assertEqual(self.b.read("f"), b"2" * size)
                self.assertEqual((self.b.sent()[REQUEST], told[REQUEST]), (1, 0))
                self.assertEqual(self.b.read("f"), b"2" * size)
                self.assertEqual(self.b.sent()[REQUEST], 0)


if __name__ == "__main__":
    unittest.main()
