"""The metadata service: several mounts of one volume, restarts under load, lost clients, bad clients."""

import errno
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from service import Service, ServiceVolume
from volume import WAIT_S, wait_until


class TwoMounts(unittest.TestCase):
    """Each sees at once what the other did."""

    @classmethod
    def setUpClass(cls):
        # A wait that ended only with the lease would be seen.
        cls.a = ServiceVolume(service_options=["--lease", "300s"])
        cls.addClassCleanup(cls.a.close)
        cls.a.mount()
        cls.b = ServiceVolume(service=cls.a.service, bucket=cls.a.bucket)
        cls.addClassCleanup(cls.b.close)
        cls.b.mount()

    def setUp(self):
        self.dir = self.id().rsplit(".", 1)[1]
        os.mkdir(self.a.path(self.dir))

    def on_a(self, *names):
        return self.a.path(self.dir, *names)

    def on_b(self, *names):
        return self.b.path(self.dir, *names)

    def warm(self, *names):
        """Whatever the kernel of B keeps of these, it has now."""
        for name in names:
            try:
                os.stat(self.on_b(name))
            except FileNotFoundError:
                pass
        os.listdir(self.on_b())

    def put(self, path, data):
        with open(path, "wb") as f:
            f.write(data)

    def get(self, path):
        with open(path, "rb") as f:
            return f.read()

    def test_create_and_unlink(self):
        for i in range(20):
            name = "f%d" % i
            self.warm(name)
            self.put(self.on_a(name), b"x")
            self.assertTrue(os.path.exists(self.on_b(name)))
            self.assertIn(name, os.listdir(self.on_b()))
            os.unlink(self.on_a(name))
            self.assertFalse(os.path.exists(self.on_b(name)))
            self.assertNotIn(name, os.listdir(self.on_b()))

    def test_rename(self):
        self.put(self.on_a("old"), b"1")
        for i in range(20):
            self.warm("old", "new")
            os.rename(self.on_a("old"), self.on_a("new"))
            self.assertEqual(sorted(os.listdir(self.on_b())), ["new"])
            self.assertFalse(os.path.exists(self.on_b("old")))
            self.assertEqual(self.get(self.on_b("new")), b"1")
            self.warm("old", "new")
            os.rename(self.on_b("new"), self.on_b("old"))
            self.assertEqual(self.get(self.on_a("old")), b"1")

    def test_rename_of_a_directory_above(self):
        os.makedirs(self.on_a("x", "y"))
        self.put(self.on_a("x", "y", "f"), b"deep")
        self.assertEqual(self.get(self.on_b("x", "y", "f")), b"deep")
        os.rename(self.on_a("x"), self.on_a("z"))
        self.assertFalse(os.path.exists(self.on_b("x", "y", "f")))
        self.assertEqual(self.get(self.on_b("z", "y", "f")), b"deep")

    def test_attributes(self):
        self.put(self.on_a("f"), b"x")
        for mode in (0o600, 0o644, 0o755):
            self.warm("f")
            os.chmod(self.on_a("f"), mode)
            self.assertEqual(os.stat(self.on_b("f")).st_mode & 0o777, mode)
        os.link(self.on_a("f"), self.on_a("g"))
        self.assertEqual(os.stat(self.on_b("f")).st_nlink, 2)

    def test_read_after_close(self):
        for size in (10, 20000, 200000, 3 << 20):
            for generation in range(3):
                data = bytes([65 + generation]) * size
                self.put(self.on_a("f"), data)
                self.assertEqual(self.get(self.on_b("f")), data)
                data = bytes([97 + generation]) * (size + 1)
                self.put(self.on_b("f"), data)
                self.assertEqual(self.get(self.on_a("f")), data)

    def test_open_file_sees_new_content(self):
        self.put(self.on_a("f"), b"1" * 5000)
        fd = os.open(self.on_b("f"), os.O_RDONLY)
        self.addCleanup(os.close, fd)
        self.assertEqual(os.pread(fd, 9000, 0), b"1" * 5000)
        self.put(self.on_a("f"), b"2" * 7000)
        self.assertEqual(os.fstat(fd).st_size, 7000)
        self.assertEqual(os.pread(fd, 9000, 0), b"2" * 7000)
        with open(self.on_a("f"), "r+b") as f:
            f.seek(100)
            f.write(b"3")
        self.assertEqual(os.pread(fd, 3, 99), b"232")

    def test_open_file_survives_its_unlink(self):
        self.put(self.on_a("f"), b"kept" * 50000)
        fd = os.open(self.on_b("f"), os.O_RDONLY)
        os.unlink(self.on_a("f"))
        self.a.settle()
        self.assertEqual(os.pread(fd, 8, 0), b"keptkept")
        self.assertEqual(os.fstat(fd).st_nlink, 0)
        inodes = self.a.status()["volume"]["database"]["inodes"]
        os.close(fd)
        # Then it is dropped at last.
        wait_until("the unlinked file to be dropped", lambda: self.a.status()["volume"]["database"]["inodes"] < inodes)

    def test_what_was_made_without_a_name_survives_its_unlink(self):
        made = os.open(self.on_a(), os.O_TMPFILE | os.O_RDWR, 0o644)
        os.write(made, b"kept" * 50000)
        directory = os.open(self.on_a(), os.O_RDONLY)
        self.addCleanup(os.close, directory)
        os.link("/proc/self/fd/%d" % made, "f", dst_dir_fd=directory, follow_symlinks=True)
        fd = os.open(self.on_b("f"), os.O_RDONLY)
        self.addCleanup(os.close, fd)
        os.unlink(self.on_a("f"))
        # Its maker drops it as the last of two files, so it is seen when that has been done.
        later = os.open(self.on_a(), os.O_TMPFILE | os.O_RDWR, 0o644)
        inodes = self.a.status()["volume"]["database"]["inodes"]
        os.close(made)
        os.close(later)
        wait_until("the maker to drop its files", lambda: self.a.status()["volume"]["database"]["inodes"] < inodes)
        self.assertEqual(os.fstat(fd).st_nlink, 0)
        self.assertEqual(os.pread(fd, 200001, 0), b"kept" * 50000)

    def test_truncate_by_name_of_what_is_open(self):
        """Nobody closes anything after it."""
        for flags in (os.O_RDONLY, os.O_RDWR):
            for size in (20000, 300000):
                self.put(self.on_a("f"), b"x" * size)
                fd = os.open(self.on_a("f"), flags)
                try:
                    for cut in (size + 10, size // 2, 0):
                        self.warm("f")
                        os.truncate(self.on_a("f"), cut)
                        self.assertEqual(os.stat(self.on_b("f")).st_size, cut)
                        self.assertEqual(self.get(self.on_b("f")), (b"x" * size + b"\0" * 10)[:cut])
                finally:
                    os.close(fd)

    def test_two_create_the_same_name(self):
        for i in range(50):
            won = []

            def create(path):
                try:
                    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
                    won.append(path)
                except FileExistsError:
                    pass

            threads = [threading.Thread(target=create, args=(p,)) for p in (self.on_a("n%d" % i), self.on_b("n%d" % i))]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
            self.assertEqual(len(won), 1)

    def test_both_change_one_directory(self):
        """Names come and go from both sides at once; nobody waits for the other for ever."""
        failures = []

        def work(base, mark):
            try:
                for i in range(150):
                    path = os.path.join(base, "%s%d" % (mark, i))
                    self.put(path, b"x")
                    os.rename(path, path + "r")
                    os.listdir(base)
                    if i % 2:
                        os.unlink(path + "r")
            except OSError as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(base, mark)) for base, mark in
                   ((self.on_a(), "a"), (self.on_b(), "b"), (self.on_a(), "c"), (self.on_b(), "d"))]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(failures, [])
        left = sorted("%s%dr" % (mark, i) for mark in "abcd" for i in range(0, 150, 2))
        self.assertEqual(sorted(os.listdir(self.on_a())), left)
        self.assertEqual(sorted(os.listdir(self.on_b())), left)

    def requests(self):
        return json.loads(self.a.service.admin("status"))["requests_total"]

    def test_what_is_cached_needs_no_request(self):
        for i in range(100):
            self.put(self.on_a("f%d" % i), b"x" * 100)
        os.mkdir(self.on_a("d"))

        def look():
            for name in os.listdir(self.on_b()):
                os.stat(self.on_b(name))
            self.assertFalse(os.path.exists(self.on_b("d", "nothing")))
            return self.get(self.on_b("f7"))

        look()
        look()
        names = ["f%d" % i for i in range(100)]

        def is_known():
            before = self.requests()
            for _ in range(20):
                for name in names:
                    os.stat(self.on_b(name))
                os.listdir(self.on_b())
            return self.requests() == before

        # A handle that the kernel is still closing has the listing until the mount learns of that.
        wait_until("rounds without a request", is_known)
        # And none of it is stale.
        os.chmod(self.on_a("f3"), 0o600)
        os.rename(self.on_a("f4"), self.on_a("g4"))
        self.put(self.on_a("f5"), b"new")
        self.assertEqual(os.stat(self.on_b("f3")).st_mode & 0o777, 0o600)
        self.assertFalse(os.path.exists(self.on_b("f4")))
        self.assertIn("g4", os.listdir(self.on_b()))
        self.assertEqual((os.stat(self.on_b("f5")).st_size, self.get(self.on_b("f5"))), (3, b"new"))

    def test_one_writes_what_the_other_polls(self):
        """What was acknowledged on A is what B sees, each time, with whatever it has in its caches."""
        self.put(self.on_a("value"), b"0")
        wrong, stop, done = [], threading.Event(), [0]

        def poll():
            while not stop.is_set():
                least = done[0]
                seen = int(self.get(self.on_b("value")))
                if seen < least:
                    wrong.append((least, seen))
                if not os.path.exists(self.on_b("n%d" % least)) and done[0] == least and least:
                    wrong.append(("name", least))

        thread = threading.Thread(target=poll)
        thread.start()
        try:
            for i in range(1, 200):
                self.put(self.on_a("new"), b"%d" % i)
                os.rename(self.on_a("new"), self.on_a("value"))
                os.close(os.open(self.on_a("n%d" % i), os.O_CREAT | os.O_WRONLY))
                before, done[0] = done[0], i
                if before:
                    os.unlink(self.on_a("n%d" % before))
        finally:
            stop.set()
            thread.join()
        self.assertEqual(wrong, [])

    def test_control_requests(self):
        self.put(self.on_a("f"), b"settled")
        self.b.settle(self.dir)
        self.assertEqual(self.a.object(self.dir + "/f"), b"settled")
        self.assertIn("drift", self.b.status()["volume"])
        self.a.put_object("outside", b"by another program")
        self.b.refresh()
        self.assertEqual(self.a.read("outside"), b"by another program")
        self.a.put_object("outside", b"changed")
        self.a.refresh()
        self.assertEqual(self.b.read("outside"), b"changed")


# Runs beside the tests: a process that starts the service must not have inherited an open file of a mount that
# waits for it. Each call fails if it is applied twice.
WORK = """
import os, sys
base, stop, count = sys.argv[1], sys.argv[2], sys.argv[3]
os.mkdir(base)
i = 0
while not os.path.exists(stop):
    path = os.path.join(base, "f%d" % i)
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    os.write(fd, b"%d" % i)
    os.close(fd)
    os.rename(path, path + ".done")
    os.mkdir(path)
    os.rmdir(path)
    i += 1
    with open(count + ".new", "w") as f:
        f.write(str(i))
    os.rename(count + ".new", count)
"""


class Restart(unittest.TestCase):
    """kill -9 of the service under load: programs see nothing of it, and nothing is done twice."""

    def test_under_load(self):
        a = ServiceVolume(service_options=["--lease", "60s"])
        self.addCleanup(a.close)
        a.mount()
        b = ServiceVolume(service=a.service, bucket=a.bucket)
        self.addCleanup(b.close)
        b.mount()
        stop = os.path.join(a.directory, "stop")
        marks = {"a0": a, "a1": a, "b0": b, "b1": b}
        workers = {}
        for mark, volume in marks.items():
            workers[mark] = subprocess.Popen(
                [sys.executable, "-c", WORK, volume.path(mark), stop, os.path.join(a.directory, mark)],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            self.addCleanup(workers[mark].kill)

        def count(mark):
            try:
                with open(os.path.join(a.directory, mark)) as f:
                    return int(f.read())
            except FileNotFoundError:
                return 0

        def progress(more):
            before = {m: count(m) for m in marks}
            wait_until("work to go on", lambda: any(w.poll() is not None for w in workers.values()) or
                       all(count(m) >= before[m] + more for m in marks))

        a.write("sustained", b"open and unlinked")
        fd = os.open(a.path("sustained"), os.O_RDONLY)
        self.addCleanup(lambda: fd is None or os.close(fd))
        os.unlink(a.path("sustained"))
        for _ in range(3):
            progress(5)
            a.service.kill()
            a.service.start()
        progress(5)
        with open(stop, "w"):
            pass
        for worker in workers.values():
            self.assertEqual((worker.communicate(timeout=WAIT_S)[0], worker.returncode), (b"", 0))
        for volume in (a, b):
            for mark in marks:
                self.assertEqual(sorted(os.listdir(volume.path(mark))), sorted("f%d.done" % i for i in range(count(mark))))
                last = count(mark) - 1
                self.assertEqual(volume.read("%s/f%d.done" % (mark, last)), b"%d" % last)
        self.assertEqual(os.pread(fd, 100, 0), b"open and unlinked")
        os.close(fd)
        fd = None
        a.unmount()
        b.unmount()
        a.service.stop()
        self.assertEqual(a.check_metadata(), "")

    def test_stopped_and_started(self):
        with ServiceVolume() as a:
            a.write("f", b"1")
            a.service.stop()
            writer = subprocess.Popen([sys.executable, "-c", "import sys; open(sys.argv[1], 'wb').write(b'2')", a.path("g")])
            self.addCleanup(writer.kill)
            a.service.start()
            self.assertEqual(writer.wait(timeout=WAIT_S), 0)
            self.assertEqual((a.read("f"), a.read("g")), (b"1", b"2"))


class LostClients(unittest.TestCase):
    def two(self, lease):
        a = ServiceVolume(service_options=["--lease", lease])
        self.addCleanup(a.close)
        a.mount()
        b = ServiceVolume(service=a.service, bucket=a.bucket)
        self.addCleanup(b.close)
        b.mount()
        return a, b

    def sessions(self, volume):
        return len(json.loads(volume.service.admin("status"))["volumes"]["v"]["sessions"])

    def test_frozen_client(self):
        """It holds others up for a lease; then it is out, and nothing of it lands any more."""
        a, b = self.two("2s")
        b.write("f", b"before")
        fd = os.open(b.path("g"), os.O_CREAT | os.O_RDWR)
        os.write(fd, b"late")
        os.stat(b.path("f"))
        b.process.send_signal(signal.SIGSTOP)
        try:
            a.write("f", b"after")
            os.rename(a.path("f"), a.path("h"))
            wait_until("the lease to end", lambda: self.sessions(a) == 1)
        finally:
            b.process.send_signal(signal.SIGCONT)

        def goes_on():
            try:
                return b.read("h") == b"after" and not os.path.exists(b.path("f"))
            except OSError as error:
                self.assertIn(error.errno, (errno.ESTALE, errno.ENOENT, errno.EIO))
                return False

        wait_until("the client to begin anew", goes_on)
        with self.assertRaises(OSError) as caught:
            os.write(fd, b"later")
        self.assertEqual(caught.exception.errno, errno.ESTALE)
        with self.assertRaises(OSError):
            os.fsync(fd)
        with self.assertRaises(OSError):
            os.close(fd)
        self.assertIn("written bytes given up", b.output())
        self.assertIn("session ended by the metadata service", b.output())
        self.assertEqual(sorted(os.listdir(a.mountpoint)), ["g", "h"])
        self.assertEqual((a.read("h"), os.stat(a.path("g")).st_size), (b"after", 0))
        b.write("g", b"new")
        self.assertEqual(a.read("g"), b"new")
        a.write("h", b"seen")
        self.assertEqual(b.read("h"), b"seen")
        self.assertEqual(self.sessions(a), 2)

    def test_lost_lease_with_much_open(self):
        """Uploads under way, readers, unlinked files, directories: each ends, and the mount goes on."""
        a, b = self.two("2s")
        b.write("read", b"r" * 300000)
        b.write("gone", b"g" * 300000)
        reader = os.open(b.path("read"), os.O_RDONLY)
        gone = os.open(b.path("gone"), os.O_RDWR)
        os.unlink(b.path("gone"))
        stream = os.open(b.path("stream"), os.O_CREAT | os.O_RDWR)
        for _ in range(40):
            os.write(stream, b"s" * (1 << 20))
        # No process is begun here: its copies of the descriptors would be closed, and wait.
        b.process.send_signal(signal.SIGSTOP)
        try:
            wait_until("the lease to end", lambda: self.sessions(a) == 1)
        finally:
            b.process.send_signal(signal.SIGCONT)
        wait_until("a new session", lambda: self.sessions(a) == 2)
        wait_until("the mount", lambda: self.opens(b.path("read")))
        for fd in (reader, gone):
            with self.assertRaises(OSError) as caught:
                os.pread(fd, 10, 250000)
            self.assertIn(caught.exception.errno, (errno.ESTALE, errno.ENOENT))
        for action in (lambda: os.write(stream, b"s"), lambda: os.fsync(stream), lambda: os.fsync(gone)):
            with self.assertRaises(OSError) as caught:
                action()
            self.assertEqual(caught.exception.errno, errno.ESTALE)
        for fd in (reader, gone, stream):
            try:
                os.close(fd)
            except OSError:
                pass
        self.assertEqual(os.stat(a.path("stream")).st_size, 0)
        self.assertEqual(b.read("read"), b"r" * 300000)
        # An upload of the lost session that was under way ends first; until then its file cannot be opened.
        wait_until("the upload to end", lambda: self.opens(b.path("stream")))
        b.write("stream", b"again" * 100000)
        self.assertEqual(a.read("stream"), b"again" * 100000)
        b.unmount()
        a.unmount()
        a.service.stop()
        self.assertEqual(a.check_metadata(), "")

    def opens(self, path):
        try:
            os.close(os.open(path, os.O_RDONLY))
            return True
        except OSError:
            return False

    def test_killed_client(self):
        """What it had open and unlinked is dropped when its lease is over."""
        a, b = self.two("2s")
        b.write("f", b"x" * 100000)
        inodes = a.status()["volume"]["database"]["inodes"]
        fd = os.open(b.path("f"), os.O_RDONLY)
        os.unlink(a.path("f"))
        self.assertEqual(os.pread(fd, 1, 0), b"x")
        b.process.kill()
        try:
            os.close(fd)
        except OSError:
            pass
        b.reap()
        wait_until("its file to be dropped", lambda: a.status()["volume"]["database"]["inodes"] < inodes)
        self.assertEqual(self.sessions(a), 1)


class Volumes(unittest.TestCase):
    def test_create_show_set_list_delete(self):
        with Service() as s:
            bucket = os.path.join(s.directory, "bucket")
            url = "file://" + bucket
            s.volume("create", "one", url, "settle-delay=1s")
            self.assertEqual(json.loads(s.volume("show", "one").stdout),
                             {"name": "one", "url": url, "options": {"settle-delay": "1s"}})
            self.assertIn("one", s.volume("list").stdout)
            for words, what in ((("create", "one", url), "already"), (("create", "a/b", url), "name has"),
                                (("create", "two", url, "nothing=1"), "no option"),
                                (("create", "two", url, "settle-delay=x"), "settle-delay"),
                                (("create", "two", url, "secret-key=x"), "not kept"),
                                (("create", "two", url, "durability=local"), "only store"),
                                (("set", "one", "durability=soon"), "only store"),
                                (("create", "two", "http://x"), "http"),
                                (("show", "two"), "no volume"), (("set", "two", "a=b"), "no volume"),
                                (("frob",), "needed")):
                done = s.volume(*words, check=False)
                self.assertEqual(done.returncode, 1, words)
                self.assertIn(what, done.stdout)
            self.assertEqual(sorted(n for n in os.listdir(s.data) if not n.endswith(".sock")), ["lock", "one"])
            with ServiceVolume(service=s, name="one", bucket=bucket) as v:
                v.write("f", b"settled")
                s.volume("set", "one", "settle-delay=200ms", "region=eu-central-1", "durability=store")
                self.assertEqual(v.read("f"), b"settled")
                self.assertEqual(json.loads(s.volume("show", "one").stdout)["options"]["durability"], "store")
                self.assertEqual(json.loads(s.volume("show", "one").stdout)["options"]["region"], "eu-central-1")
                v.settle()
            s.volume("delete", "one")
            self.assertEqual(s.volume("list").stdout, "")
            with open(os.path.join(bucket, "f"), "rb") as f:
                self.assertEqual(f.read(), b"settled")

    def test_delete_keeps_what_is_in_no_object(self):
        with ServiceVolume(settle_delay="1h") as v:
            v.write("f", b"only here")
            done = v.service.volume("delete", "v", check=False)
            self.assertEqual((done.returncode, "not in the bucket yet" in done.stdout), (1, True))
            self.assertEqual(v.read("f"), b"only here")
            v.unmount()
            v.service.stop()
            done = v.service.volume("delete", "v", check=False)
            self.assertEqual((done.returncode, "not in the bucket yet" in done.stdout), (1, True))
            v.service.volume("delete", "v", "--force")
            self.assertEqual(v.service.volume("list").stdout, "")

    def test_quota_of_a_volume(self):
        with ServiceVolume(volume_options=("quota-bytes=1M", "quota-inodes=3")) as v:
            v.write("a", b"x" * 600000)
            with self.assertRaises(OSError) as raised:
                v.write("b", b"x" * 600000)
            self.assertEqual(raised.exception.errno, errno.EDQUOT)
            self.assertEqual(os.statvfs(v.mountpoint).f_blocks * os.statvfs(v.mountpoint).f_frsize, 1 << 20)
            for word in ("quota-bytes=much", "quota-inodes=-1"):
                done = v.service.volume("set", "v", word, check=False)
                self.assertEqual((done.returncode, word.split("=")[0] in done.stdout), (1, True), done.stdout)
            v.service.volume("set", "v", "quota-bytes=none")
            v.write("b", b"x" * 600000)
            v.write("c", b"")
            with self.assertRaises(OSError) as raised:
                v.write("d", b"")
            self.assertEqual(raised.exception.errno, errno.EDQUOT)

    def test_mount_of_what_is_not_there(self):
        with Service() as s:
            v = ServiceVolume(service=s, name="nothing")
            self.addCleanup(v.close)
            code, text = v.mount_fails()
            self.assertEqual(code, 1)
            self.assertIn("there is no volume 'nothing'", text)

    def test_read_only_mount(self):
        with ServiceVolume() as a:
            a.write("f", b"1")
            b = ServiceVolume(service=a.service, bucket=a.bucket, options=["--read-only"])
            with b:
                self.assertEqual(b.read("f"), b"1")
                with self.assertRaises(OSError):
                    b.write("g", b"")
                a.write("f", b"22")
                self.assertEqual(b.read("f"), b"22")


class BadClients(unittest.TestCase):
    def test_garbage_is_refused_and_counted(self):
        with ServiceVolume() as v:
            address = ("127.0.0.1", v.service.port)
            hello = b"sluice" + bytes([1, 1, 1]) + b"v" + bytes([0, 0]) + b"k" * 16 + bytes([0, 0])

            def frame(kind, body, length=None):
                return struct.pack(">IB", len(body) + 1 if length is None else length, kind) + body

            sent = [b"GET / HTTP/1.1\r\n\r\n", b"\0" * 100, frame(1, b"x" * 50), frame(4, hello), frame(1, hello, 1 << 31),
                    frame(1, hello) + frame(4, b"\xff" * 30), frame(1, hello) + frame(2, b""),
                    frame(1, hello) + frame(13, b"\x7f"), frame(1, hello.replace(b"v", b"w", 1))]
            for data in sent:
                with socket.create_connection(address, timeout=120) as s:
                    s.sendall(data)
                    while s.recv(65536):
                        pass
            status = json.loads(v.service.admin("status"))
            self.assertGreaterEqual(status["refused"], len(sent))
            v.write("f", b"goes on")
            self.assertEqual(v.read("f"), b"goes on")

    def test_versions(self):
        """The highest that both speak; if there is none, the reason."""
        with ServiceVolume() as v:
            for lowest, highest, expected in ((1, 1, 1), (1, 9, 2), (2, 2, 2), (3, 9, None), (0, 0, None)):
                hello = b"sluice" + bytes([lowest, highest, 1]) + b"v" + bytes([0, 0]) + os.urandom(16) + bytes([0, 0])
                with socket.create_connection(("127.0.0.1", v.service.port), timeout=120) as s:
                    s.sendall(struct.pack(">IB", len(hello) + 1, 1) + hello)
                    answer = b""
                    while len(answer) < 7:
                        answer += s.recv(65536)
                self.assertEqual(answer[4:6] if expected else answer[4:5], bytes([2, expected] if expected else [3]))

    def test_silent_connections_are_closed(self):
        with ServiceVolume() as v:
            silent = [socket.create_connection(("127.0.0.1", v.service.port), timeout=120) for _ in range(20)]
            silent[0].sendall(b"\0\0\0")
            v.write("f", b"x")
            for s in silent:
                while s.recv(65536):
                    pass
                s.close()
            self.assertEqual(v.read("f"), b"x")


if __name__ == "__main__":
    unittest.main()
