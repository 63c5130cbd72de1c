"""What engines do that goes wrong on file systems that are almost right: their call patterns, without them (docs/hadoop.md, docs/spark.md,
docs/hive.md, docs/flink.md). The engines themselves run in tests/e2e."""

import contextlib
import errno
import json
import os
import signal
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor

from gateway import Gateway
from service import ServiceVolume
from volume import WAIT_S, Volume, wait_until

TASKS, FILES = 8, 12


def fill(directory, names, text="x"):
    os.makedirs(directory, exist_ok=True)
    for name in names:
        with open(os.path.join(directory, name), "w") as file:
            file.write(text + name)


class Traps(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.volume = Volume().mount()
        cls.addClassCleanup(cls.volume.close)

    def setUp(self):
        self.dir = self.volume.path(self._testMethodName)
        os.mkdir(self.dir)

    def p(self, *names):
        return os.path.join(self.dir, *names)

    def ask(self, op, path, **members):
        return self.volume.ask(op=op, path="/%s/%s" % (self._testMethodName, path), **members)

    def failed_renames(self):
        return self.volume.ask(op="status")["mount"]["failed_renames"]

    def test_no_rename_within_a_volume_crosses_devices(self):
        """Hadoop's local file system answers any failed rename with a copy that is no commit."""
        before = self.failed_renames()
        places = ("plain", "_temporary/0/task_1", ".hive-staging_1/-ext-1", ".spark-staging-1/part=1", "limited")
        os.makedirs(self.p("limited"))
        self.assertTrue(self.ask("quota-set", "limited", max_bytes=1 << 30)["ok"])
        for source in places:
            for target in places:
                fill(self.p(source, "d"), ["f"], source)
                os.makedirs(self.p(target), exist_ok=True)
                os.rename(self.p(source, "d"), self.p(target, "moved"))
                os.rename(self.p(target, "moved", "f"), self.p(source, "g"))
                with open(self.p(source, "g")) as file:
                    self.assertEqual(file.read(), source + "f")
                os.rmdir(self.p(target, "moved"))
                os.unlink(self.p(source, "g"))
        self.assertEqual(self.failed_renames(), before)
        fill(self.p("full"), ["f"])
        fill(self.p("other"), ["f"])
        with self.assertRaises(OSError) as caught:
            os.rename(self.p("other"), self.p("full"))
        self.assertIn(caught.exception.errno, (errno.ENOTEMPTY, errno.EEXIST))
        self.assertEqual(self.failed_renames(), before + 1)

    def test_rename_onto_a_directory_neither_nests_nor_mixes(self):
        fill(self.p("new"), ["a"])
        fill(self.p("old"), ["b"])
        self.assertEqual(self.ask("rename", "new", to="/%s/old" % self._testMethodName)["error"], "EEXIST")
        with self.assertRaises(OSError):
            os.rename(self.p("new"), self.p("old"))
        self.assertEqual((os.listdir(self.p("new")), os.listdir(self.p("old"))), (["a"], ["b"]))
        os.mkdir(self.p("empty"))
        os.rename(self.p("new"), self.p("empty"))
        self.assertEqual(os.listdir(self.p("empty")), ["a"])

    def test_the_attempt_that_loses_takes_nothing_of_the_winner(self):
        """Speculation: two attempts write the same names; one is committed, the other is deleted at the same time."""
        names = ["part-%05d" % i for i in range(FILES)]
        for task in range(TASKS):
            for attempt in (0, 1):
                fill(self.p("_temporary/0/_temporary", "attempt_%d_%d" % (task, attempt), "part=1"), names, "%d.%d " % (task, attempt))
        base = "_temporary/0/_temporary/attempt_%d_%d"
        with ThreadPoolExecutor(2 * TASKS) as pool:
            done = []
            for task in range(TASKS):
                done.append(pool.submit(os.rename, self.p(base % (task, task % 2)), self.p("_temporary/0/task_%d" % task)))
                done.append(pool.submit(self.ask, "remove", base % (task, 1 - task % 2)))
            for one in done:
                one.result()
        self.assertEqual(os.listdir(self.p("_temporary/0/_temporary")), [])
        for task in range(TASKS):
            where = self.p("_temporary/0/task_%d" % task, "part=1")
            self.assertEqual(sorted(os.listdir(where)), names)
            for name in names:
                with open(os.path.join(where, name)) as file:
                    self.assertEqual(file.read(), "%d.%d %s" % (task, task % 2, name))

    def test_directories_are_deleted_and_renamed_into_place_by_many(self):
        """Hive's move task: an empty target is removed, and the staging directory takes its name, eight threads at once."""
        names = ["000000_0", "000001_0"]
        for i in range(24):
            fill(self.p(".hive-staging_1/-ext-10000", "part=%d" % i), names, "%d " % i)

        def move(i):
            os.mkdir(self.p("part=%d" % i))
            os.rmdir(self.p("part=%d" % i))
            os.rename(self.p(".hive-staging_1/-ext-10000", "part=%d" % i), self.p("part=%d" % i))
            return sorted(os.listdir(self.p("part=%d" % i)))

        with ThreadPoolExecutor(8) as pool:
            self.assertEqual(list(pool.map(move, range(24))), [names] * 24)
        self.assertEqual(os.listdir(self.p(".hive-staging_1/-ext-10000")), [])
        self.assertEqual(len(os.listdir(self.dir)), 25)

    def test_what_the_kernel_knows_by_an_old_name_goes(self):
        """The kernel does not see the jar's renames and removals: what it keeps by names of before must not keep objects."""
        v = self.volume
        for name, moved in (("f", "g"), ("d", "e")):
            path = self.p(name) if name == "f" else self.p(name, "f")
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w") as file:
                file.write("text")
            v.settle()
            key = os.path.relpath(path, v.mountpoint)
            self.assertEqual(v.object(key), b"text")
            self.assertTrue(self.ask("rename", name, to="/%s/%s" % (self._testMethodName, moved))["ok"])
            self.assertTrue(self.ask("remove", moved)["ok"])
            wait_until("the object is deleted", lambda key=key: v.object(key) is None)

    def test_probed_names_are_seen_when_they_are_taken(self):
        """Hive asks for 000000_0_copy_1, _copy_2, … until one is free; "is not there" must not be remembered longer than it is true."""
        fill(self.p("t"), ["000000_0"])
        for i in range(1, 20):
            fill(self.p("staging"), ["f"], str(i))
            free = next(n for n in range(1, 100) if not os.path.exists(self.p("t", "000000_0_copy_%d" % n)))
            self.assertEqual(free, i)
            target = "/%s/t/000000_0_copy_%d" % (self._testMethodName, i)
            if i % 2:  # not through this kernel's rename: it does not see that the name is taken
                self.assertTrue(self.ask("rename", "staging/f", to=target)["ok"])
            else:
                os.rename(self.p("staging", "f"), self.volume.mountpoint + target)
            with open(self.volume.mountpoint + target) as file:
                self.assertEqual(file.read(), "%df" % i)


class Waiting(unittest.TestCase):
    """The control file's renames whose write says how they ended, as the jar asks for them."""

    @contextlib.contextmanager
    def handle(self, v, waits=True):
        fd = os.open(v.path(".sluice", "ctl"), os.O_RDWR)
        try:
            if waits:
                self.assertEqual(self.ask(fd, op="wait"), {"ok": True})
            yield fd
        finally:
            os.close(fd)

    def ask(self, fd, **request):
        os.write(fd, json.dumps(request).encode())
        return json.loads(os.read(fd, 4096))

    def rename(self, fd, name, to):
        request = json.dumps({"op": "rename", "path": name, "to": to}).encode()
        self.assertEqual(os.pwrite(fd, request, 0), len(request))

    def assertRefused(self, error, fd, name, to):
        with self.assertRaises(OSError) as caught:
            self.rename(fd, name, to)
        self.assertEqual(caught.exception.errno, error)
        reply = json.loads(os.read(fd, 4096))
        self.assertEqual((reply["ok"], reply["errno"]), (False, error))

    def test_the_write_says_how_it_ended(self):
        with Volume().mount() as v:
            fill(v.mountpoint, ["a0", "taken"])
            with self.handle(v) as fd:
                for i in range(20):  # no reply is read
                    self.rename(fd, "/a%d" % i, "/a%d" % (i + 1))
                    self.assertEqual(sorted(os.listdir(v.mountpoint)), ["a%d" % (i + 1), "taken"])
                self.assertRefused(errno.EEXIST, fd, "/a20", "/taken")
                self.assertRefused(errno.ENOENT, fd, "/a0", "/c")
                self.assertRefused(errno.EINVAL, fd, "/" + "n" * 256, "/c")  # by who reads requests
                self.assertEqual(self.ask(fd, op="usage")["files"], 2)  # what has more to say is read, as ever
                self.rename(fd, "/a20", "/c")
            with self.handle(v, waits=False) as fd:
                self.rename(fd, "/c", "/taken")
                self.assertEqual(json.loads(os.read(fd, 4096))["error"], "EEXIST")
            self.assertEqual(sorted(os.listdir(v.mountpoint)), ["c", "taken"])

    def test_one_that_waits_holds_up_no_other(self):
        with ServiceVolume(service_options=["--lease", "300s"]) as v, self.handle(v) as fd, self.handle(v) as other:
            fill(v.mountpoint, ["a"])
            v.service.process.send_signal(signal.SIGSTOP)
            with ThreadPoolExecutor(2) as pool:
                try:
                    moved = pool.submit(self.rename, fd, "/a", "/b")
                    time.sleep(0.5)  # it waits by then; else nothing is held up, which is right too
                    pool.submit(self.assertRefused, errno.EINVAL, other, "/..", "/b").result(WAIT_S)
                    self.assertFalse(moved.done())
                finally:
                    v.service.process.send_signal(signal.SIGCONT)
                moved.result(WAIT_S)
            self.assertEqual(os.listdir(v.mountpoint), ["b"])


class Recovery(unittest.TestCase):
    def test_a_part_file_is_cut_and_appended_after_a_crash(self):
        """Flink's sink: what was synced before kill -9 is there; the file is cut to the checkpoint's length, appended and renamed."""
        with Gateway() as gateway, Volume(gateway=gateway) as v:
            name = ".part-0.inprogress.1"
            for size in (5000, 300000):
                with contextlib.suppress(OSError), open(v.path(name), "xb", buffering=0) as file:  # its close finds no daemon
                    for i in range(0, size, 1000):
                        file.write(b"%07d\n" % i * 125)
                    os.fsync(file.fileno())
                    file.write(b"not acknowledged")
                    v.kill()
                v.mount()
                self.assertGreaterEqual(os.stat(v.path(name)).st_size, size)
                keep = size - 1500
                os.truncate(v.path(name), keep)
                with open(v.path(name), "ab", buffering=0) as file:
                    file.write(b"after")
                    os.fsync(file.fileno())
                os.rename(v.path(name), v.path("part-%d" % size))
                wanted = b"".join(b"%07d\n" % i * 125 for i in range(0, size, 1000))[:keep] + b"after"
                self.assertEqual(v.read("part-%d" % size), wanted)
                v.settle()
                self.assertEqual(v.object("part-%d" % size), wanted)


class OtherHost(unittest.TestCase):
    def test_a_listing_after_the_commit_shows_all_or_nothing(self):
        with ServiceVolume() as one, ServiceVolume(one.service, one.name) as other:
            stop, wrong = threading.Event(), []

            def look():
                while not stop.is_set():
                    try:
                        parts = os.listdir(other.path("table"))
                    except FileNotFoundError:
                        continue
                    for part in parts:
                        names = os.listdir(other.path("table", part))
                        sizes = {os.stat(other.path("table", part, name)).st_size for name in names}
                        if len(names) != FILES or len(sizes) != 1:
                            wrong.append((part, len(names), sizes))

            os.mkdir(one.path("table"))
            watcher = threading.Thread(target=look)
            watcher.start()
            try:
                for i in range(TASKS):
                    fill(one.path("_temporary", "part=%d" % i), ["f%02d" % k for k in range(FILES)])
                    os.rename(one.path("_temporary", "part=%d" % i), one.path("table", "part=%d" % i))
                    self.assertEqual(sorted(os.listdir(other.path("table"))), ["part=%d" % k for k in range(i + 1)])
                    self.assertEqual(len(os.listdir(other.path("table", "part=%d" % i))), FILES)
            finally:
                stop.set()
                watcher.join()
            self.assertEqual(wrong, [])


if __name__ == "__main__":
    unittest.main()
