"""Locks between two mounts of one volume of the service: who waits, who gets what, and what ends them."""

import errno
import fcntl
import json
import os
import signal
import sqlite3
import struct
import subprocess
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from service import ServiceVolume
from volume import WAIT_S, wait_until

FLOCK = struct.Struct("hhqqi4x")  # type, whence, start, length, pid

# A process that locks when it is told to, one line for each command, one answer for each.
HOLDER = r"""
import errno, fcntl, os, signal, struct, sys
FLOCK = struct.Struct("hhqqi4x")
class Interrupted(Exception):
    pass
def on_signal(*_):
    raise Interrupted()
signal.signal(signal.SIGUSR1, on_signal)
files = {}
def lock(name, kind, wait, start, length):
    fcntl.fcntl(files[name], fcntl.F_SETLKW if wait else fcntl.F_SETLK,
                FLOCK.pack(kind, 0, start, length, 0))
def test(name, start, length):
    kind, _, at, size, pid = FLOCK.unpack(fcntl.fcntl(files[name], fcntl.F_GETLK, FLOCK.pack(fcntl.F_WRLCK, 0, start, length, 0)))
    return "%d %d %d %d" % (kind, at, size, pid)
for line in sys.stdin:
    try:
        print(eval(line), flush=True)
    except Interrupted:
        print("EINTR", flush=True)
    except OSError as e:
        print(errno.errorcode[e.errno], flush=True)
"""


class Holder:
    def __init__(self):
        self.process = subprocess.Popen([sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def send(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def answer(self):
        return self.process.stdout.readline().strip()

    def do(self, line):
        self.send(line)
        return self.answer()

    def open(self, name, path):
        return self.do("files.__setitem__(%r, os.open(%r, os.O_RDWR | os.O_CREAT, 0o644))" % (name, path))

    def lock(self, name, start=0, length=0, kind=fcntl.F_WRLCK, wait=False):
        return self.do(self.line(name, start, length, kind, wait))

    @staticmethod
    def line(name, start=0, length=0, kind=fcntl.F_WRLCK, wait=True):
        return "lock(%r, %d, %r, %d, %d)" % (name, kind, wait, start, length)

    def unlock(self, name, start=0, length=0):
        return self.lock(name, start, length, fcntl.F_UNLCK)

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def two_mounts(lease, cleanup):
    a = ServiceVolume(service_options=["--lease", lease])
    cleanup(a.close)
    a.mount()
    b = ServiceVolume(service=a.service, bucket=a.bucket)
    cleanup(b.close)
    b.mount()
    return a, b


class Base(unittest.TestCase):
    def setUp(self):
        self.name = self.id().rsplit(".", 1)[1]
        self.a.write(self.name, b"")

    def holder(self, volume, *names):
        h = Holder()
        self.addCleanup(h.close)
        for name in names or (self.name,):
            self.assertEqual(h.open(name, volume.path(name)), "None")
        return h

    def counts(self):
        status = json.loads(self.a.service.admin("status"))
        volume = status["volumes"]["v"]
        return volume["locks"], volume["lock_waits"]

    def waits(self, count):
        wait_until("%d waiting requests" % count, lambda: self.counts()[1] == count)


class Locks(Base):
    @classmethod
    def setUpClass(cls):
        cls.a, cls.b = two_mounts("300s", cls.addClassCleanup)

    def test_ranges(self):
        a, b = self.holder(self.a), self.holder(self.b)
        n = self.name
        self.assertEqual(a.lock(n, 100, 50), "None")
        self.assertEqual(b.lock(n, 140, 1), "EAGAIN")
        self.assertEqual(b.lock(n, 150, 10), "None")
        self.assertEqual(b.do("test(%r, 0, 0)" % n), "%d 100 50 0" % fcntl.F_WRLCK)
        self.assertEqual(a.unlock(n, 110, 10), "None")
        self.assertEqual(b.lock(n, 110, 10, fcntl.F_RDLCK), "None")
        self.assertEqual(a.lock(n, 110, 5, fcntl.F_RDLCK), "None")
        self.assertEqual(a.lock(n, 110, 5), "EAGAIN")
        self.assertEqual(b.lock(n, 105, 5), "EAGAIN")
        other = self.holder(self.a)
        self.assertEqual(other.do("test(%r, 100, 5)" % n), "%d 100 10 %d" % (fcntl.F_WRLCK, a.process.pid))

    def test_waits_in_turn(self):
        a, b, c = self.holder(self.a), self.holder(self.b), self.holder(self.a)
        n = self.name
        self.assertEqual(a.lock(n), "None")
        b.send(b.line(n))
        self.waits(1)
        c.send(c.line(n, kind=fcntl.F_RDLCK))
        self.waits(2)
        a.unlock(n)
        self.assertEqual(b.answer(), "None")
        self.assertEqual(a.lock(n, kind=fcntl.F_RDLCK), "EAGAIN")
        b.unlock(n)
        self.assertEqual(c.answer(), "None")

    def test_handed_on_within_a_mount(self):
        """The service tells of the next holder before it answers who gave up; the next one's close gives up, too."""
        n = self.name
        flock = "fcntl.flock(files[%r], %d)"
        gives_up = {
            "unlock": lambda a: a.unlock(n),
            "a part": lambda a: a.unlock(n, 10, 10),
            "close": lambda a: a.do("os.close(files[%r])" % n),
        }
        for how, give_up in gives_up.items():
            a, b, c = self.holder(self.a), self.holder(self.a), self.holder(self.b)
            self.assertEqual(a.lock(n, wait=True), "None")
            b.send(b.line(n, 12, 3))
            self.waits(1)
            self.assertEqual(give_up(a), "None")
            self.assertEqual(b.answer(), "None")
            self.assertEqual(c.lock(n, 12, 3), "EAGAIN")
            b.do("os.close(files[%r])" % n)
            self.assertEqual(c.lock(n, 12, 3), "None", how)
            for h in (a, b, c):
                h.close()
        a, b, c = self.holder(self.a), self.holder(self.a), self.holder(self.b)
        self.assertEqual(a.do(flock % (n, fcntl.LOCK_SH)), "None")
        b.send(flock % (n, fcntl.LOCK_EX))
        self.waits(1)
        a.send(flock % (n, fcntl.LOCK_EX))  # gives up the other first
        self.assertEqual(b.answer(), "None")
        self.waits(1)
        b.do("os.close(files[%r])" % n)
        self.assertEqual(a.answer(), "None")
        self.assertEqual(c.do(flock % (n, fcntl.LOCK_SH | fcntl.LOCK_NB)), "EAGAIN")

    def test_deadlock_is_found(self):
        n, m = self.name, self.name + "2"
        a, b = self.holder(self.a, n, m), self.holder(self.b, n, m)
        self.assertEqual(a.lock(n), "None")
        self.assertEqual(b.lock(m), "None")
        a.send(a.line(m))
        self.waits(1)
        self.assertEqual(b.lock(n, wait=True), "EDEADLOCK")
        b.unlock(m)
        self.assertEqual(a.answer(), "None")

    def test_interrupted_wait(self):
        a, b = self.holder(self.a), self.holder(self.b)
        self.assertEqual(a.lock(self.name), "None")
        b.send(b.line(self.name))
        self.waits(1)
        b.process.send_signal(signal.SIGUSR1)
        self.assertEqual(b.answer(), "EINTR")
        self.waits(0)
        b.send(b.line(self.name))
        self.waits(1)
        b.process.kill()
        self.waits(0)
        c = self.holder(self.b)
        self.assertEqual(c.lock(self.name), "EAGAIN")
        a.unlock(self.name)
        self.assertEqual(c.lock(self.name), "None")

    def test_close_and_exit_release(self):
        a, b = self.holder(self.a), self.holder(self.b)
        n = self.name
        self.assertEqual(a.lock(n), "None")
        a.do("files.__setitem__('again', os.open(%r, os.O_RDONLY))" % self.a.path(n))
        self.assertEqual(b.lock(n), "EAGAIN")
        a.do("os.close(files.pop('again'))")  # any descriptor of the file
        self.assertEqual(b.lock(n), "None")
        b.send(b.line(n, 5, 5))
        b.answer()
        b.process.kill()
        b.process.wait()
        self.assertEqual(a.lock(n, wait=True), "None")

    def test_the_first_lock_of_a_mount(self):
        """A descriptor that was opened for reading when nobody had locked yet: its lock goes with its last copy."""
        with ServiceVolume(service=self.a.service, bucket=self.a.bucket) as first:
            r, b = Holder(), self.holder(self.b)
            self.addCleanup(r.close)
            r.do("files.__setitem__(%r, os.open(%r, os.O_RDONLY))" % (self.name, first.path(self.name)))
            self.assertEqual(r.lock(self.name, kind=fcntl.F_RDLCK), "None")
            self.assertEqual(b.lock(self.name), "EAGAIN")
            r.do("os.close(files.pop(%r))" % self.name)
            self.assertEqual(b.lock(self.name, wait=True), "None")
            r.close()
            first.unmount()

    def test_flock(self):
        a, b = self.holder(self.a), self.holder(self.b)
        n = self.name
        lock = "fcntl.flock(files[%r], %d)"
        self.assertEqual(a.do(lock % (n, fcntl.LOCK_SH)), "None")
        self.assertEqual(b.do(lock % (n, fcntl.LOCK_SH | fcntl.LOCK_NB)), "None")
        self.assertEqual(b.lock(n), "None")  # the other kind: they do not see each other
        self.assertEqual(a.do(lock % (n, fcntl.LOCK_EX | fcntl.LOCK_NB)), "EAGAIN")
        a.send(lock % (n, fcntl.LOCK_EX))
        self.waits(1)
        b.do(lock % (n, fcntl.LOCK_UN))
        self.assertEqual(a.answer(), "None")
        self.assertEqual(b.do(lock % (n, fcntl.LOCK_SH | fcntl.LOCK_NB)), "EAGAIN")
        # It belongs to the open file, and goes with the last descriptor of it.
        a.do("files.__setitem__('dup', os.dup(files[%r]))" % n)
        a.do("os.close(files[%r])" % n)
        self.assertEqual(b.do(lock % (n, fcntl.LOCK_SH | fcntl.LOCK_NB)), "EAGAIN")
        b.send(lock % (n, fcntl.LOCK_EX))
        self.waits(1)
        a.do("os.close(files['dup'])")
        self.assertEqual(b.answer(), "None")

    def test_locks_of_open_files(self):
        set_lock = 37  # F_OFD_SETLK
        a, b = self.holder(self.a), self.holder(self.b)
        ask = "fcntl.fcntl(files[%r], %d, FLOCK.pack(%d, 0, 0, 10, 0)) and None"
        self.assertEqual(a.do(ask % (self.name, set_lock, fcntl.F_WRLCK)), "None")
        self.assertEqual(b.do(ask % (self.name, set_lock, fcntl.F_WRLCK)), "EAGAIN")
        a.do("os.close(files[%r])" % self.name)
        self.assertEqual(b.do(ask % (self.name, set_lock + 1, fcntl.F_WRLCK)), "None")

    def test_counter_without_fsync(self):
        """What was written under a lock is what the next holder reads."""
        rounds, writers = 25, 4
        self.a.write(self.name, b"%010d" % 0)
        script = r"""
import fcntl, os, sys
kind = sys.argv[3]
fd = os.open(sys.argv[1], os.O_RDWR)
for i in range(int(sys.argv[2])):
    fcntl.lockf(fd, fcntl.LOCK_EX) if kind == "posix" else fcntl.flock(fd, fcntl.LOCK_EX)
    value = int(os.pread(fd, 10, 0))
    os.pwrite(fd, b"%010d" % (value + 1), 0)
    fcntl.lockf(fd, fcntl.LOCK_UN) if kind == "posix" else fcntl.flock(fd, fcntl.LOCK_UN)
"""
        for kind in ("posix", "flock"):
            self.a.write(self.name, b"%010d" % 0)
            children = [
                subprocess.Popen([sys.executable, "-c", script, v.path(self.name), str(rounds), kind])
                for v in (self.a, self.b) for _ in range(writers // 2)
            ]
            for child in children:
                self.assertEqual(child.wait(timeout=WAIT_S), 0)
            self.assertEqual(int(self.b.read(self.name)), rounds * writers)

    def test_sqlite_from_both(self):
        path = self.name + ".db"
        script = r"""
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=110, isolation_level=None)
for i in range(int(sys.argv[3])):
    db.execute("BEGIN IMMEDIATE")
    value = db.execute("SELECT value FROM counter").fetchone()[0]
    db.execute("UPDATE counter SET value = ?", (value + 1,))
    db.execute("INSERT INTO rows VALUES (?, ?, ?)", (sys.argv[2], i, "x" * 300))
    db.execute("COMMIT")
db.close()
"""
        db = sqlite3.connect(self.a.path(path), isolation_level=None)
        db.execute("PRAGMA journal_mode = DELETE")
        db.execute("CREATE TABLE counter (value INTEGER)")
        db.execute("CREATE TABLE rows (who TEXT, i INTEGER, pad TEXT)")
        db.execute("INSERT INTO counter VALUES (0)")
        db.close()
        rounds = 12
        children = [
            subprocess.Popen([sys.executable, "-c", script, v.path(path), "%s%d" % (name, i), str(rounds)])
            for name, v in (("a", self.a), ("b", self.b)) for i in range(2)
        ]
        for child in children:
            self.assertEqual(child.wait(timeout=WAIT_S), 0)
        for v in (self.a, self.b):
            db = sqlite3.connect(v.path(path))
            self.assertEqual(db.execute("PRAGMA integrity_check").fetchone()[0], "ok")
            self.assertEqual(db.execute("SELECT value FROM counter").fetchone()[0], 4 * rounds)
            self.assertEqual(db.execute("SELECT count(DISTINCT who || '/' || i) FROM rows").fetchone()[0], 4 * rounds)
            db.close()


class Faults(Base):
    def setUp(self):
        self.a, self.b = two_mounts("3s", self.addCleanup)
        super().setUp()

    def stop(self, volume):
        volume.process.send_signal(signal.SIGSTOP)
        self.addCleanup(lambda: volume.process and volume.process.send_signal(signal.SIGCONT))

    def test_the_service_is_killed(self):
        a, b, c = self.holder(self.a), self.holder(self.b), self.holder(self.b)
        n = self.name
        self.assertEqual(a.lock(n, 0, 100), "None")
        self.assertEqual(a.unlock(n, 40, 10), "None")
        self.assertEqual(c.do("fcntl.flock(files[%r], fcntl.LOCK_EX)" % n), "None")
        b.send(b.line(n, 0, 20))
        self.waits(1)
        for _ in range(2):
            self.a.service.kill()
            self.a.service.start()
            self.waits(1)
        self.assertEqual(c.lock(n, 40, 10), "None")
        self.assertEqual(c.lock(n, 39, 1), "EAGAIN")
        self.assertEqual(c.lock(n, 50, 1), "EAGAIN")
        self.assertEqual(a.do("fcntl.flock(files[%r], fcntl.LOCK_SH | fcntl.LOCK_NB)" % n), "EAGAIN")
        self.assertEqual(a.unlock(n), "None")
        self.assertEqual(b.answer(), "None")

    def test_nobody_takes_what_another_will_claim(self):
        a, b = self.holder(self.a), self.holder(self.b)
        self.assertEqual(a.lock(self.name), "None")
        self.stop(self.a)
        self.a.service.kill()
        self.a.service.start()
        b.send(b.line(self.name, wait=False))
        wait_until("the other mount", lambda: "restarted=1" in self.b.output())
        self.a.process.send_signal(signal.SIGCONT)
        self.assertEqual(b.answer(), "EAGAIN")

    def test_a_killed_mount(self):
        a, b = self.holder(self.a), self.holder(self.b)
        self.assertEqual(a.lock(self.name), "None")
        b.send(b.line(self.name))
        self.waits(1)
        self.a.kill()
        self.assertEqual(b.answer(), "None")
        self.assertEqual(self.counts(), (1, 0))

    def test_a_killed_mount_whose_requests_wait_for_each_other(self):
        b, first, second = self.holder(self.b), self.holder(self.a), self.holder(self.a)
        self.assertEqual(b.lock(self.name, kind=fcntl.F_RDLCK), "None")
        first.send(first.line(self.name))
        self.waits(1)
        second.send(second.line(self.name, kind=fcntl.F_RDLCK))
        self.waits(2)
        self.a.kill()
        self.waits(0)
        self.assertEqual(self.counts(), (1, 0))
        self.assertIsNone(self.a.service.process.poll())

    def test_a_mount_that_lost_its_lease(self):
        a, b = self.holder(self.a), self.holder(self.b)
        n = self.name
        self.assertEqual(a.lock(n), "None")
        self.assertEqual(a.do("os.pwrite(files[%r], b'first', 0)" % n), "5")
        self.stop(self.a)
        self.assertEqual(b.lock(n, wait=True), "None")
        self.assertEqual(b.do("os.pwrite(files[%r], b'later', 0)" % n), "5")
        self.assertEqual(b.unlock(n), "None")
        self.a.process.send_signal(signal.SIGCONT)
        self.assertIn(a.do("os.fsync(files[%r])" % n), ("ESTALE", "EIO"))
        self.assertIn(a.unlock(n), ("ESTALE", "EIO"))
        self.assertEqual(self.b.read(n), b"later")
        self.assertEqual(a.lock(n), "ESTALE")  # by what was open then
        again = self.holder(self.a)
        self.assertEqual(again.lock(n), "None")
        self.assertEqual(b.lock(n), "EAGAIN")
        self.assertIn("session ended by the metadata service", self.a.output())


if __name__ == "__main__":
    unittest.main()
