"""The same random calls on three mounts of one volume, in turns, and on a local directory: the same results, errors and trees on all of
them, and the same attributes on all mounts. Also with a service that is killed, and connections that are cut. Seeds are printed by a failure.

SLUICE_MODEL_SEEDS (first:last) and SLUICE_MODEL_STEPS make it longer.
"""

import ctypes
import mmap
import os
import random
import sys
import threading
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "lib")]
from service import Service, ServiceVolume
from test_model import Caller, Generator, checked, libc, outcome, shown
from wire_proxy import WireProxy

STEPS = int(os.environ.get("SLUICE_MODEL_STEPS", "250"))
SEEDS = os.environ.get("SLUICE_MODEL_SEEDS")
MOUNTS = 3


class SharedCaller(Caller):
    """What a handle writes is seen by other mounts after an fsync or the close, so each write is followed by one."""

    def drop_nameless(self):
        """What is written to a file without a name is seen on its own mount only."""
        for slot in [s for s, fd in self.open.items() if os.fstat(fd).st_nlink == 0]:
            self.drop(slot)

    def held_write(self, slot, offset, data):
        done = super().held_write(slot, offset, data)
        self.held_fsync(slot)
        return done

    def held_truncate(self, slot, size):
        super().held_truncate(slot, size)
        self.held_fsync(slot)

    def punch(self, slot, offset, length):
        super().punch(slot, offset, length)
        self.held_fsync(slot)

    def held_size(self, slot):
        if slot not in self.open:
            return None
        st = os.fstat(self.open[slot])
        return st.st_size, st.st_nlink, st.st_mode

    def extend(self, slot, offset, length):
        if slot in self.open:
            checked(libc.fallocate(self.open[slot], 0, ctypes.c_long(offset), ctypes.c_long(length)))
            self.held_fsync(slot)

    def mapped(self, slot):
        """All bytes, through a mapping of this moment."""
        if slot not in self.open or not os.fstat(self.open[slot]).st_size:
            return None
        with mmap.mmap(self.open[slot], 0, prot=mmap.PROT_READ) as m:
            return bytes(m)

    def utime(self, name, ns):
        os.utime(self.at(name), ns=(ns, ns), follow_symlinks=False)
        return os.lstat(self.at(name)).st_mtime_ns

    def set_xattr(self, name, key, value, flags):
        os.setxattr(self.at(name), key, value, flags, follow_symlinks=False)

    def get_xattr(self, name, key):
        return os.getxattr(self.at(name), key, follow_symlinks=False)

    def list_xattr(self, name):
        return sorted(n for n in os.listxattr(self.at(name), follow_symlinks=False) if n.startswith("user."))

    def remove_xattr(self, name, key):
        os.removexattr(self.at(name), key, follow_symlinks=False)

    def copy(self, old, new, length):
        with open(self.at(old), "rb") as a, open(self.at(new), "r+b") as b:
            return os.copy_file_range(a.fileno(), b.fileno(), length)

    def replace(self, name, data):
        """As programs save a file."""
        at = self.at(name)
        with open(at + "~", "wb") as f:
            f.write(data)
        os.rename(at + "~", at)

    def seen(self, name):
        """All that two mounts must show alike."""
        st = os.lstat(self.at(name))
        return st.st_mode, st.st_uid, st.st_gid, st.st_nlink, st.st_size, st.st_mtime_ns, st.st_ctime_ns, st.st_ino


def differing(got, want):
    """Of long bytes, from where they differ."""
    if not isinstance(got, bytes) or not isinstance(want, bytes):
        return "%.80r" % (got,), "%.80r" % (want,)
    at = next((i for i in range(min(len(got), len(want))) if got[i] != want[i]), min(len(got), len(want)))
    return tuple("%d bytes, at %d %.60r" % (len(b), at, b[at:at + 20]) for b in (got, want))


class SharedGenerator(Generator):
    def call(self):
        r, slot = self.random, self.random.randrange(4)
        if r.random() < 0.7:
            return super().call()
        key = "user." + r.choice("ab")
        return r.choice([
            lambda: ("held_size", slot),
            lambda: ("held_size", slot),
            lambda: ("mapped", slot),
            lambda: ("mapped", slot),
            lambda: ("extend", slot, self.offset(), self.length() + 1),
            lambda: ("utime", self.name(), r.randrange(1, 1 << 60)),
            lambda: ("set_xattr", self.name(), key, b"v%d" % r.randrange(9), r.choice([0, 0, 1, 2])),
            lambda: ("get_xattr", self.name(), key),
            lambda: ("list_xattr", self.name()),
            lambda: ("remove_xattr", self.name(), key),
            lambda: ("copy", self.name(), self.name(), self.length() + 1),
            lambda: ("replace", self.name(), self.data()),
            lambda: ("replace", self.name(), self.data()),
        ])()


class Case(unittest.TestCase):
    maxDiff = 2000

    def setUp(self):
        self.service = Service(options=["--lease", "20s"]).start()
        self.addCleanup(self.service.close)
        self.volumes, self.proxies = [], []
        for i in range(MOUNTS):
            v = ServiceVolume(service=self.service, bucket=self.volumes[0].bucket if i else None)
            if not i:
                self.service.volume("create", v.name, v.url, "settle-delay=100ms", "gc-delay=300ms", "inline-max=32K")
            self.addCleanup(v.close)
            if "cut" in self.id():
                proxy = WireProxy(self.service.port)
                self.addCleanup(proxy.close)
                v.command = lambda *extra, v=v, proxy=proxy: [
                    w.replace(":%d/" % self.service.port, ":%d/" % proxy.port) for w in ServiceVolume.command(v, *extra)]
                self.proxies.append(proxy)
            self.volumes.append(v.mount())

    def names(self, call):
        return [a for a in call[1:] if isinstance(a, str) and not a.startswith("user.")]

    def look(self, where, names, mounts, local, order):
        """The touched names and their directories, on every mount."""
        for name in names:
            for n in (name, os.path.dirname(name)):
                want = outcome(local, ("stat", n)), outcome(local, ("list", n)) if n != name or order.random() < 0.3 else None
                seen = []
                for i, m in enumerate(mounts):
                    got = outcome(m, ("stat", n)), outcome(m, ("list", n)) if want[1] is not None else None
                    self.assertEqual(got, want, "%s: mount %d: %s" % (where, i, n))
                    seen.append(outcome(m, ("seen", n)))
                self.assertTrue(all(s == seen[0] for s in seen), "%s: mounts differ at %s: %s" % (where, n, seen))

    def compare(self, where, mounts, local):
        want = local.tree()
        for i, m in enumerate(mounts):
            got = m.tree()
            self.assertEqual(sorted(got), sorted(want), "%s: mount %d" % (where, i))
            for name in want:
                self.assertTrue(got[name] == want[name], "%s: mount %d: %s differs: %.80r, %.80r" % (where, i, name, got[name], want[name]))

    def run_seed(self, seed, between=lambda order: None):
        order = random.Random("turns %d" % seed)
        root = "s%d" % seed
        os.mkdir(self.volumes[0].path(root))
        local_root = os.path.join(self.volumes[0].directory, "local%d" % seed)
        os.mkdir(local_root)
        mounts = [SharedCaller(v.path(root)) for v in self.volumes]
        locals_ = [SharedCaller(local_root) for _ in mounts]  # handles are a mount's own
        generator, history = SharedGenerator(seed), []
        for i in range(STEPS):
            between(order)
            at = order.randrange(len(mounts))
            call = generator.call()
            # A page fault keeps the interpreter's lock, which the proxies need to bring the page.
            if call[0] == "mapped" and self.proxies:
                call = ("held_read", call[1], 0, 1 << 20)
            got, want = outcome(mounts[at], call), outcome(locals_[at], call)
            for caller in mounts + locals_:
                caller.drop_nameless()
            history.append((at, *shown(call), want if isinstance(want, str) else ""))
            where = "seed %d, call %d: mount %d: %s; before it:\n%s" % (seed, i, at, shown(call), "\n".join(map(str, history[-12:-1])))
            self.assertTrue(got == want, "%s\ngave %s, a local directory %s" % (where, *differing(got, want)))
            if order.random() < 0.5:
                self.look(where, self.names(call), mounts, locals_[0], order)
            if order.random() < 0.02:
                self.compare(where, mounts, locals_[0])
        self.compare("seed %d, end" % seed, mounts, locals_[0])
        for caller in mounts + locals_:
            for slot in list(caller.open):
                caller.drop(slot)
        self.compare("seed %d, closed" % seed, mounts, locals_[0])

    def seeds(self, first, count):
        if SEEDS:
            first, last = map(int, SEEDS.split(":"))
            return range(first, last + 1)
        return range(first, first + count)

    def end(self):
        for v in self.volumes:
            v.unmount()
        self.service.stop()
        self.assertEqual(self.volumes[0].check_metadata(), "")

    def test_in_turns(self):
        for seed in self.seeds(1, 3):
            self.run_seed(seed)
        self.end()

    def test_service_killed(self):
        def between(order):
            if order.random() < 0.01:
                self.service.kill()
                self.service.start()

        for seed in self.seeds(101, 1):
            self.run_seed(seed, between)
        self.end()

    def test_connections_cut(self):
        """At any moment, in the middle of a call too."""
        done = threading.Event()
        order = random.Random(7)

        def cut():
            while not done.wait(order.random() * 0.1):
                order.choice(self.proxies).cut()

        thread = threading.Thread(target=cut)
        thread.start()
        try:
            for seed in self.seeds(201, 1):
                self.run_seed(seed)
        finally:
            done.set()
            thread.join()
        self.end()


if __name__ == "__main__":
    unittest.main()
