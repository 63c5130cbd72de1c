"""Hosts that lose each other: the service and each mount in a network namespace of its own (tests/lib/hosts.py). Packets are lost one way or
both ways, connections stay half open, addresses change; within the lease all goes on, past it nothing of the lost host lands late."""

import errno
import fcntl
import json
import os
import signal
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from hosts import Hosts
from service import Service, ServiceVolume
from volume import wait_until


class HostVolume(ServiceVolume):
    """A mount on a host of its own."""

    def __init__(self, host, **rest):
        super().__init__(**rest)
        self.host = host

    def command(self, *extra):
        words = super().command(*extra)
        url = "sluice://%s:%d/%s" % (self.host.service, self.service.port, self.name)
        return [*self.host.prefix, *(url if word.startswith("sluice://") else word for word in words)]


class Pending(threading.Thread):
    """A call that may take as long as the partition."""

    def __init__(self, call):
        super().__init__()
        self.call, self.error = call, None
        self.start()

    def run(self):
        try:
            self.call()
        except OSError as error:
            self.error = error


class Partition(unittest.TestCase):
    def cluster(self, lease, count):
        hosts = Hosts()
        self.addCleanup(hosts.close)
        service = Service(options=["--lease", lease, "--no-auth"], host="0.0.0.0", prefix=hosts.prefix)
        self.addCleanup(service.close)
        service.start()
        mounts = []
        for _ in range(count):
            # The first one makes the bucket, the others share it.
            mounts.append(HostVolume(hosts.add(), service=service, bucket=mounts[0].bucket if mounts else None))
            self.addCleanup(mounts[-1].close)
        service.volume("create", "v", mounts[0].url, "settle-delay=200ms", "gc-delay=500ms")
        for mount in mounts:
            mount.mount()
        return mounts

    def sessions(self, mount):
        return {s["client"]: s["session"] for s in mount.service.sessions("v")}

    def put(self, mount, name, data):
        with open(mount.path(name), "wb") as f:
            f.write(data)

    def held(self, a, name):
        with open(a.path(name), "rb") as f:
            try:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def test_within_the_lease(self):
        """Handles, locks, staged bytes and calls under way go on: lost one way, the other, both, and a host with a new address."""
        a, *others = self.cluster("20s", 5)
        ways = ("to_service", "to_client", "both", "moved")
        before = self.sessions(a)
        self.assertEqual(len(before), 5)
        self.put(a, "shared", b"old")
        fds = []
        for mount, way in zip(others, ways):
            fd = os.open(mount.path("own-" + way), os.O_CREAT | os.O_RDWR)
            self.addCleanup(os.close, fd)
            fcntl.flock(fd, fcntl.LOCK_EX)
            os.write(fd, b"staged ")
            fds.append(fd)
            self.assertEqual(mount.read("shared"), b"old")
        calls = []
        for mount, way in zip(others, ways):
            if way == "moved":
                mount.host.move()
            else:
                mount.host.cut(way)
            calls.append(Pending(lambda path=mount.path("made-" + way): os.mkdir(path)))
        change = Pending(lambda: self.put(a, "shared", b"new"))
        # TCP by itself would try at 12.6 s, and then at 25.4 s: past the lease.
        time.sleep(13.5)
        for mount in others:
            mount.host.heal()
        for call in (change, *calls):
            call.join(120)
            self.assertFalse(call.is_alive())
            self.assertIsNone(call.error, "".join(m.output() for m in others) + a.service.output())
        self.assertEqual(self.sessions(a), before)
        self.assertEqual(sorted(n for n in os.listdir(a.mountpoint) if n.startswith("made-")), sorted("made-" + w for w in ways))
        for mount, way, fd in zip(others, ways, fds):
            self.assertEqual(mount.read("shared"), b"new")
            self.assertTrue(self.held(a, "own-" + way), way)
            os.write(fd, b"and more")
            os.fsync(fd)
            self.assertEqual(a.read("own-" + way), b"staged and more")
            fcntl.flock(fd, fcntl.LOCK_UN)
            self.assertFalse(self.held(a, "own-" + way), way)
        self.service_dies_without_a_word(a, others, before)

    def service_dies_without_a_word(self, a, others, before):
        """No packet says that the connections have ended: each is found out by who uses it."""
        for mount in (a, *others):
            mount.host.cut("both")
        a.service.kill()
        a.service.start()
        for mount in (a, *others):
            mount.host.heal()
        for i, mount in enumerate((a, *others)):
            self.put(mount, "again%d" % i, b"x")
        self.assertEqual(self.sessions(a), before)
        self.assertEqual(sum(n.startswith("again") for n in os.listdir(a.mountpoint)), 5)

    def test_past_the_lease(self):
        """Others go on after a lease; what the lost hosts had begun does not land, neither while they are away nor later."""
        a, *others = self.cluster("3s", 5)
        ways = ("to_service", "to_client", "both", "frozen")
        lost = dict(zip(ways, others))
        self.put(a, "shared", b"old")
        fds = {}
        for way, mount in lost.items():
            self.put(mount, "moves-" + way, b"x")
            fds[way] = os.open(mount.path("late-" + way), os.O_CREAT | os.O_RDWR)
            os.write(fds[way], b"late")
            self.assertEqual(mount.read("shared"), b"old")
        calls = {}
        for way, mount in lost.items():
            # Frozen, and half open: the word that its session is over is lost, too.
            mount.host.cut("both" if way == "frozen" else way)
            if way == "frozen":
                mount.process.send_signal(signal.SIGSTOP)
                self.addCleanup(mount.process.send_signal, signal.SIGCONT)
            calls[way] = (Pending(lambda m=mount, w=way: os.rename(m.path("moves-" + w), m.path("moved-" + w))),
                          Pending(lambda fd=fds[way]: os.fsync(fd)))
        self.put(a, "shared", b"new")
        wait_until("the leases to end", lambda: len(self.sessions(a)) == 1)
        names = set(os.listdir(a.mountpoint))
        sizes = {way: os.stat(a.path("late-" + way)).st_size for way in ways}
        for way in ("to_service", "both", "frozen"):
            self.assertIn("moves-" + way, names)
            self.assertEqual(sizes[way], 0)
        for mount in others:
            mount.host.heal()
        lost["frozen"].process.send_signal(signal.SIGCONT)
        wait_until("new sessions", lambda: len(self.sessions(a)) == 5)
        for way, (rename, sync) in calls.items():
            rename.join(120)
            sync.join(120)
            self.assertFalse(rename.is_alive() or sync.is_alive())
            if sizes[way] == 0:
                self.assertIn(sync.error and sync.error.errno, (errno.ESTALE, errno.EIO), way)
            # The kernel asks once more for a name that was ESTALE: the call is one of the new session then, and did what it says.
            if rename.error is None:
                names = names - {"moves-" + way} | {"moved-" + way}
            else:
                self.assertIn(rename.error.errno, (errno.ESTALE, errno.EIO), way)
        for way, fd in fds.items():
            with self.assertRaises(OSError) as caught:
                os.write(fd, b"later")
            self.assertEqual(caught.exception.errno, errno.ESTALE)
            try:
                os.close(fd)
            except OSError:
                pass
        for way, mount in lost.items():
            self.assertEqual(mount.read("shared"), b"new")
            self.assertEqual(set(os.listdir(mount.mountpoint)), names)
            self.assertEqual(os.stat(a.path("late-" + way)).st_size, sizes[way])
            self.put(mount, "late-" + way, b"again")
            self.assertEqual(a.read("late-" + way), b"again")


if __name__ == "__main__":
    unittest.main()
