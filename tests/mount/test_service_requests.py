"""What a mount asks the service for, counted on the wire: each request is a round trip of the network."""

import collections
import fcntl
import os
import re
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from service import Service, ServiceVolume
from volume import wait_until
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

    def asked_by_kernel(self):
        """How many requests of each kind the kernel has made so far, of those that are asked about."""
        found = re.findall(r'sluice_fs_request_seconds_count\{op="(\w+)"\} (\d+)', self.ask(op="metrics")["text"])
        return collections.Counter({op: int(count) for op, count in found if op in ("open", "flush", "getattr", "read")})

    def sent(self):
        """How many requests, tasks and confirmations went out since the last call, and invalidations came in."""
        found, self.proxy.frames = self.proxy.frames, collections.deque()
        kinds = collections.Counter(kind for direction, kind in found if (direction == "to_service") == (kind != INVALIDATE))
        return {kind: kinds[kind] for kind in (REQUEST, TASK, INVALIDATE, CONFIRM)}


def two_mounts(cls):
    """cls.a and cls.b, mounts of one volume, until the end of the class's tests."""
    cls.service = Service(options=["--lease", "300s"])
    cls.addClassCleanup(cls.service.close)
    cls.service.start()
    cls.bucket = os.path.join(cls.service.directory, "bucket")
    os.mkdir(cls.bucket)
    cls.service.volume("create", "v", "file://" + cls.bucket, "settle-delay=1h")
    for name in "ab":
        mount = Mount(cls.service, cls.bucket)
        cls.addClassCleanup(mount.close)
        mount.mount()
        setattr(cls, name, mount)


class Requests(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        two_mounts(cls)

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

    def another_mount(self):
        """It says when it goes: others would wait for it as long as its lease."""
        mount = Mount(self.service, self.bucket)
        self.addCleanup(mount.close)
        mount.mount()
        self.addCleanup(mount.unmount)
        return mount

    def test_of_the_kernel(self):
        """What the kernel asks the mount for; each is two changes of threads."""
        mount = self.another_mount()
        fewest = {}
        os.mkdir(mount.path("k"))

        def each(what, flags, use):
            before = mount.asked_by_kernel()
            for i in range(FILES):
                fd = os.open(mount.path("k", str(i)), flags, 0o644)
                use(fd)
                os.close(fd)
            spent = mount.asked_by_kernel() - before
            fewest[what] = min((fewest.get(what, spent), spent), key=lambda c: c.total())

        def read(fd):
            self.assertEqual(len(os.read(fd, 4096)), 4096)

        # The best of some rounds: a program that has to wait for the processor may be asked for attributes once more.
        for _ in range(3):
            each("make", os.O_CREAT | os.O_EXCL | os.O_WRONLY, lambda fd: os.write(fd, b"x" * 4096))
            each("read", os.O_RDONLY, read)
            each("again", os.O_RDONLY, read)
            for i in range(FILES):
                os.unlink(mount.path("k", str(i)))
        self.assertLess(fewest["make"]["getattr"], FILES * 1.5)  # the directory's
        self.assertEqual(fewest["again"].total(), fewest["again"]["open"])
        self.assertEqual(fewest["read"]["flush"], 0)
        # Who takes locks must be told of closes.
        with open(mount.path("lock"), "wb") as f:
            fcntl.lockf(f, fcntl.LOCK_EX)
        each("make", os.O_CREAT | os.O_EXCL | os.O_WRONLY, lambda fd: os.write(fd, b"x" * 4096))
        each("after a lock", os.O_RDONLY, read)
        self.assertEqual(fewest["after a lock"]["flush"], FILES)

    def write_at_once(self, mount, number):
        """Whether a file that was written when it was made, within 5 ms, has the time of then; None: it was not within 5 ms."""
        began = time.monotonic()
        fd = os.open(mount.path("t%d" % number), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        made = os.fstat(fd).st_mtime_ns
        os.write(fd, b"x")
        took = time.monotonic() - began
        os.close(fd)
        return None if took > 0.005 else os.stat(mount.path("t%d" % number)).st_mtime_ns == made

    def clock_error_s(self, mount):
        """How far the times of the mount's writes are from ours. It knows the clock of the service from its first message."""
        fd = os.open(mount.path("clock"), os.O_CREAT | os.O_WRONLY, 0o644)
        time.sleep(0.05)  # longer than a tick of the file's time
        earliest = time.time_ns()
        os.write(fd, b"x")
        latest = time.time_ns()
        written = os.fstat(fd).st_mtime_ns
        os.close(fd)
        self.assertGreater(written, earliest - 10**9)
        return max(abs(written - earliest), abs(latest - written)) / 1e9

    def test_the_kernel_keeps_what_is_written_at_once(self):
        """It drops pages of a file whose time has moved. That moves in ticks of 10 ms."""
        for _ in range(20):
            mount = self.another_mount()
            found = [self.write_at_once(mount, i) for i in range(50)]
            for i in range(50):
                os.unlink(mount.path("t%d" % i))
            if self.clock_error_s(mount) < 0.002 and not all(f is None for f in found):
                self.assertNotIn(False, found)
                return
        self.fail("the machine is too slow for this")

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


class Overtaken(unittest.TestCase):
    """An answer that was made before another mount's change comes after the push of that change: the service may
    have to wait with it for a third mount. What it says is not true any more."""

    @classmethod
    def setUpClass(cls):
        two_mounts(cls)

    def overtaken(self, ask, change):
        """The outcome of ask() on one mount, whose answer is held until change() on the other one has returned."""
        self.b.proxy.hold_answers()
        found = []
        thread = threading.Thread(target=lambda: found.append(ask()))
        thread.start()
        try:
            wait_until("the answer", lambda: self.b.proxy.held)
            self.b.sent()
            change()
            told = self.b.sent()
            self.assertGreaterEqual(told[INVALIDATE], 1)
            self.assertEqual((told[CONFIRM], found), (told[INVALIDATE], []))
        finally:
            self.b.proxy.let_answers_go()
            thread.join()
        return found[0]

    def rewrite(self, name, data):
        """With one change: no truncation before."""
        fd = os.open(self.a.path(name), os.O_WRONLY)
        os.write(fd, data)
        os.close(fd)

    def test_open(self):
        for old, new in ((b"1" * 4096, b"2" * 4096), (b"1" * 100, b"2" * 4096)):
            with self.subTest(old=len(old), new=len(new)):
                self.a.write("f", old)
                path = self.b.path("f")
                self.assertEqual(os.stat(path).st_size, len(old))
                # The mount knows no attributes of what it changes itself, while the kernel still knows whose file it is: so it only opens.
                os.setxattr(path, "user.note", b"x")
                fd = self.overtaken(lambda: os.open(path, os.O_RDONLY), lambda: self.rewrite("f", new))
                try:
                    self.assertEqual(os.read(fd, 8192), new)
                    self.assertEqual(os.fstat(fd).st_size, len(new))
                finally:
                    os.close(fd)
                self.assertEqual(self.b.read("f"), new)

    def test_stat(self):
        self.a.write("s", b"1" * 100)
        path = self.b.path("s")
        os.stat(path)
        self.rewrite("s", b"2" * 200)  # and what both knew of it is not known
        self.overtaken(lambda: os.stat(path), lambda: self.rewrite("s", b"3" * 300))
        self.assertEqual(os.stat(path).st_size, 300)
        self.assertEqual(self.b.read("s"), b"3" * 300)

    def test_lookup(self):
        os.mkdir(self.a.path("l"))
        self.a.write("l/old", b"1")
        with open(self.b.path("l", "old"), "rb") as f:
            found = self.overtaken(lambda: os.path.exists(self.b.path("l", "new")), lambda: os.rename(self.a.path("l/old"), self.a.path("l/new")))
            self.assertFalse(found)  # it was asked before
            self.assertTrue(os.path.exists(self.b.path("l", "new")))
            self.assertFalse(os.path.exists(self.b.path("l", "old")))
            self.assertEqual(f.read(), b"1")


if __name__ == "__main__":
    unittest.main()
