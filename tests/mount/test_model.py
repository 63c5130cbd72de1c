"""The same random calls on a mount and on a local directory: the same results, errors and trees. Seeds are printed by a failure.

SLUICE_MODEL_STEPS (default 1500) calls for each seed.
"""

import ctypes
import os
import random
import stat
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from gateway import Gateway
from volume import Volume

STEPS = int(os.environ.get("SLUICE_MODEL_STEPS", "1500"))
libc = ctypes.CDLL(None, use_errno=True)


def checked(result):
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


class Caller:
    """One of the two trees. A call is made by name, so that both get exactly the same."""

    def __init__(self, root):
        self.root = root
        self.open = {}

    def at(self, name):
        return os.path.join(self.root, name)

    def write(self, name, offset, data, flags):
        fd = os.open(self.at(name), os.O_WRONLY | flags, 0o644)
        try:
            return os.pwrite(fd, data, offset)
        finally:
            os.close(fd)

    def append(self, name, data):
        fd = os.open(self.at(name), os.O_WRONLY | os.O_APPEND)
        try:
            return os.write(fd, data)
        finally:
            os.close(fd)

    def read(self, name, offset, length):
        fd = os.open(self.at(name), os.O_RDONLY)
        try:
            return os.pread(fd, length, offset)
        finally:
            os.close(fd)

    def hold(self, name, slot):
        """A handle that stays open over later calls."""
        self.drop(slot)
        self.open[slot] = os.open(self.at(name), os.O_RDWR)

    def drop(self, slot):
        if slot in self.open:
            os.close(self.open.pop(slot))

    def held_write(self, slot, offset, data):
        return os.pwrite(self.open[slot], data, offset) if slot in self.open else None

    def held_read(self, slot, offset, length):
        return os.pread(self.open[slot], length, offset) if slot in self.open else None

    def held_truncate(self, slot, size):
        return os.ftruncate(self.open[slot], size) if slot in self.open else None

    def held_fsync(self, slot):
        return os.fsync(self.open[slot]) if slot in self.open else None

    def punch(self, slot, offset, length):
        if slot in self.open:
            checked(libc.fallocate(self.open[slot], 3, ctypes.c_long(offset), ctypes.c_long(length)))

    def truncate(self, name, size):
        os.truncate(self.at(name), size)

    def mkdir(self, name):
        os.mkdir(self.at(name), 0o755)

    def rmdir(self, name):
        os.rmdir(self.at(name))

    def unlink(self, name):
        os.unlink(self.at(name))

    def rename(self, old, new, flags):
        checked(libc.renameat2(-100, self.at(old).encode(), -100, self.at(new).encode(), flags))

    def link(self, old, new):
        os.link(self.at(old), self.at(new))

    def symlink(self, target, name):
        os.symlink(target, self.at(name))

    def chmod(self, name, mode):
        os.chmod(self.at(name), mode)

    def stat(self, name):
        st = os.lstat(self.at(name))
        return (stat.S_IFMT(st.st_mode), stat.S_IMODE(st.st_mode), st.st_nlink if not stat.S_ISDIR(st.st_mode) else 0,
                st.st_size if not stat.S_ISDIR(st.st_mode) else 0)

    def list(self, name):
        return sorted(os.listdir(self.at(name)))

    def tree(self):
        found = {}
        for at, ds, fs in os.walk(self.root):
            for n in ds + fs:
                path = os.path.join(at, n)
                name = os.path.relpath(path, self.root)
                content = None
                if os.path.islink(path):
                    content = os.readlink(path)
                elif os.path.isfile(path):
                    with open(path, "rb") as f:
                        content = f.read()
                found[name] = (self.stat(name), content)
        return found


class Generator:
    NAMES = ["a", "b", "c", "dir", "e.txt", "_temporary"]

    def __init__(self, seed):
        self.random = random.Random(seed)

    def name(self):
        return "/".join(self.random.choice(self.NAMES) for _ in range(self.random.choice([1, 1, 2, 2, 3])))

    def offset(self):
        return self.random.choice([0, 1, 100, 4096, 40000, 131072, 300000])

    def length(self):
        return self.random.choice([0, 1, 100, 4096, 33000, 140000])

    def data(self):
        return self.random.randbytes(self.random.choice([1, 50, 4096, 40000, 200000]))

    def call(self):
        r, slot = self.random, self.random.randrange(4)
        kinds = [
            (10, lambda: ("write", self.name(), self.offset(), self.data(), r.choice([0, os.O_CREAT, os.O_CREAT, os.O_CREAT | os.O_TRUNC, os.O_CREAT | os.O_EXCL]))),
            (3, lambda: ("append", self.name(), self.data())),
            (8, lambda: ("read", self.name(), self.offset(), self.length())),
            (4, lambda: ("hold", self.name(), slot)),
            (2, lambda: ("drop", slot)),
            (5, lambda: ("held_write", slot, self.offset(), self.data())),
            (5, lambda: ("held_read", slot, self.offset(), self.length())),
            (2, lambda: ("held_truncate", slot, self.offset())),
            (2, lambda: ("held_fsync", slot)),
            (2, lambda: ("punch", slot, self.offset(), self.length() + 1)),
            (3, lambda: ("truncate", self.name(), self.offset())),
            (6, lambda: ("mkdir", self.name())),
            (3, lambda: ("rmdir", self.name())),
            (6, lambda: ("unlink", self.name())),
            (8, lambda: ("rename", self.name(), self.name(), r.choice([0, 0, 0, 1, 2]))),
            (3, lambda: ("link", self.name(), self.name())),
            (2, lambda: ("symlink", self.name(), self.name())),
            (3, lambda: ("chmod", self.name(), r.choice([0o644, 0o600, 0o755]))),
            (6, lambda: ("stat", self.name())),
            (4, lambda: ("list", self.name())),
        ]
        return r.choices([k for _, k in kinds], [w for w, _ in kinds])[0]()


def outcome(caller, call):
    try:
        return getattr(caller, call[0])(*call[1:])
    except OSError as e:
        return "errno %d" % e.errno


def shown(call):
    return tuple(a if not isinstance(a, bytes) else "%d bytes" % len(a) for a in call)


class Model:
    def run_seed(self, seed, volume):
        os.mkdir(volume.path("s%d" % seed))
        local_root = os.path.join(volume.directory, "local%d" % seed)
        os.mkdir(local_root)
        mount, local = Caller(volume.path("s%d" % seed)), Caller(local_root)
        generator, history = Generator(seed), []
        for i in range(STEPS):
            call = generator.call()
            history.append(shown(call))
            got, want = outcome(mount, call), outcome(local, call)
            self.assertTrue(got == want, "seed %d, call %d: %s gave %.80r, a local directory %.80r; before it: %s"
                            % (seed, i, shown(call), got, want, history[-6:-1]))
        for caller in (mount, local):
            for slot in list(caller.open):
                caller.drop(slot)
        self.compare(seed, mount, local)
        return mount, local

    def compare(self, seed, mount, local):
        got, want = mount.tree(), local.tree()
        self.assertEqual(sorted(got), sorted(want), "seed %d" % seed)
        for name in want:
            self.assertTrue(got[name] == want[name], "seed %d: %s differs: %.80r, %.80r" % (seed, name, got[name], want[name]))

    def test_same_as_a_local_directory(self):
        volume = self.make()
        self.addCleanup(volume.close)
        volume.mount()
        pairs = [(seed, *self.run_seed(seed, volume)) for seed in self.SEEDS]
        # The same after everything became plain objects, and after a remount.
        volume.settle()
        for seed, mount, local in pairs:
            self.compare(seed, mount, local)
        volume.unmount()
        self.assertEqual(volume.check_metadata(), "")
        volume.mount()
        for seed, mount, local in pairs:
            self.compare(seed, mount, local)
        volume.refresh()
        for seed, mount, local in pairs:
            self.compare(seed, mount, local)
        volume.unmount()


class OnDirectory(Model, unittest.TestCase):
    SEEDS = range(1, 6)

    def make(self):
        return Volume(settle_delay="100ms", options=["--import-ttl", "500ms"])


class OnS3(Model, unittest.TestCase):
    SEEDS = range(11, 14)

    @classmethod
    def setUpClass(cls):
        cls.gateway = cls.enterClassContext(Gateway())

    def make(self):
        return Volume(gateway=self.gateway, settle_delay="100ms", options=["--import-ttl", "500ms"])


if __name__ == "__main__":
    unittest.main()
