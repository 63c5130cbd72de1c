"""A workload with a model, for crash tests: what was acknowledged must be there afterwards, what was in flight may be old or new.

One Workload changes one directory from one thread, deterministic by its seed. After the mount died, `verify` compares.
"""

import errno
import os
import random

MISSING = None


def write_all(file, data):
    """The kernel sends a write in pieces; if the mount dies between them, the call ends with the first: what follows was not acknowledged."""
    if file.write(data) != len(data):
        raise OSError(errno.EIO, "a part was written")


def mix_allowed(found, old, new):
    """Each byte is the old or the new one at its place, and the length is one that the change could leave."""
    old, new = old or b"", new or b""
    low, high = min(len(old), len(new)), max(len(old), len(new))
    if not low <= len(found) <= high and len(found) != 0:
        return False
    for i, byte in enumerate(found):
        choices = [text[i] for text in (old, new) if i < len(text)]
        if byte not in choices and byte != 0:
            return False
    return True


class Workload:
    def __init__(self, root, seed, large=600000):
        self.root, self.large = root, large
        self.random = random.Random(seed)
        self.files = {}         # name → bytes, as acknowledged
        self.directories = {""}
        self.flying = []        # [(name, old, new)] of the call in progress
        self.done = 0

    def at(self, name):
        return os.path.join(self.root, name)

    def content(self, n):
        return self.random.randbytes(n)

    def begin(self, *changes):
        self.flying = list(changes)

    def commit(self):
        for name, _, new in self.flying:
            if new is MISSING:
                self.files.pop(name, None)
            else:
                self.files[name] = new
        self.flying = []
        self.done += 1

    def new_name(self):
        directory = self.random.choice(sorted(self.directories))
        return os.path.join(directory, "f%06x" % self.random.getrandbits(24))

    def some_file(self):
        return self.random.choice(sorted(self.files)) if self.files else None

    # One step each; raises OSError when the mount dies.
    def create(self):
        name = self.new_name()
        size = self.random.choice([0, 10, 4000, 20000, 40000, self.large])
        data = self.content(size)
        self.begin((name, self.files.get(name), data))
        with open(self.at(name), "wb", buffering=0) as f:
            for i in range(0, size, 100000):
                write_all(f, data[i:i + 100000])
        self.commit()

    def patch(self):
        name = self.some_file()
        if not name:
            return
        old = self.files[name]
        at, data = self.random.randrange(len(old) + 1), self.content(self.random.choice([1, 700, 5000]))
        new = old[:at] + data + old[at + len(data):]
        self.begin((name, old, new))
        with open(self.at(name), "r+b", buffering=0) as f:
            f.seek(at)
            write_all(f, data)
            self.commit()  # an acknowledged write survives the daemon's death
            if self.random.random() < 0.5:
                self.begin((name, new, new))
                os.fsync(f.fileno())
                self.commit()

    def cut(self):
        name = self.some_file()
        if not name:
            return
        old = self.files[name]
        size = self.random.randrange(len(old) + 1)
        self.begin((name, old, old[:size]))
        os.truncate(self.at(name), size)
        self.commit()

    def rename(self):
        name = self.some_file()
        if not name:
            return
        target = self.some_file() if self.random.random() < 0.3 else self.new_name()
        if target == name:
            return
        self.begin((name, self.files[name], MISSING), (target, self.files.get(target), self.files[name]))
        os.rename(self.at(name), self.at(target))
        self.commit()

    def unlink(self):
        name = self.some_file()
        if not name:
            return
        self.begin((name, self.files[name], MISSING))
        os.unlink(self.at(name))
        self.commit()

    def mkdir(self):
        if len(self.directories) > 6:
            return
        name = "d%06x" % self.random.getrandbits(24)
        self.begin()
        os.mkdir(self.at(name))
        self.directories.add(name)
        self.commit()

    def rename_directory(self):
        names = sorted(self.directories - {""})
        if not names:
            return
        old, new = self.random.choice(names), "r%06x" % self.random.getrandbits(24)
        moved = [n for n in self.files if n.startswith(old + "/")]
        self.begin(*[(n, self.files[n], MISSING) for n in moved],
                   *[(new + n[len(old):], MISSING, self.files[n]) for n in moved])
        self.moving = (old, new)
        os.rename(self.at(old), self.at(new))
        self.moving = None
        self.directories.remove(old)
        self.directories.add(new)
        self.commit()

    moving = None
    STEPS = [(create, 8), (patch, 5), (cut, 1), (rename, 4), (unlink, 2), (mkdir, 1), (rename_directory, 1)]

    def step(self):
        kinds, weights = zip(*self.STEPS)
        self.random.choices(kinds, weights)[0](self)

    def run(self, steps):
        """Steps until the mount dies; True if it did."""
        for _ in range(steps):
            try:
                self.step()
            except OSError:
                return True
        return False

    def present(self):
        found = {}
        for at, _, names in os.walk(self.root):
            for n in names:
                path = os.path.join(at, n)
                with open(path, "rb") as f:
                    found[os.path.relpath(path, self.root)] = f.read()
        return found

    def verify(self):
        """Compares; returns a list of what is wrong. The model becomes what was found."""
        found, wrong = self.present(), []
        if self.moving:
            wrong += self.check_moved_directory(found)
        else:
            flying = {name: (old, new) for name, old, new in self.flying}
            for name in sorted(set(found) | set(self.files) | set(flying)):
                wrong += self.check_one(name, found.get(name), flying)
            wrong += self.check_rename(found)
        self.files = found
        self.directories = {""} | {os.path.relpath(os.path.join(at, d), self.root) for at, ds, _ in os.walk(self.root) for d in ds}
        self.flying, self.moving = [], None
        return wrong

    def check_one(self, name, found, flying):
        if name in flying:
            old, new = flying[name]
            if found in (old, new) or (found is not None and mix_allowed(found, old, new)):
                return []
            at = next((i for i in range(len(found or b"")) if not mix_allowed(found[i:i + 1], (old or b"")[i:i + 1], (new or b"")[i:i + 1])), None)
            sizes = ["none" if text is None else str(len(text)) for text in (found, old, new)]
            return ["%s: neither the old nor the new content after an unfinished call (%s bytes, was %s, should become %s; differs at %s)"
                    % (name, *sizes, at)]
        want = self.files.get(name)
        if found == want:
            return []
        if found is None:
            return ["%s: lost (%d bytes were acknowledged)" % (name, len(want))]
        if want is None:
            return ["%s: is there, but was removed or never made" % name]
        at = next((i for i, (a, b) in enumerate(zip(found, want)) if a != b), min(len(found), len(want)))
        return ["%s: differs at byte %d (size %d, should be %d)" % (name, at, len(found), len(want))]

    def check_rename(self, found):
        if len(self.flying) == 2 and self.flying[0][2] is MISSING:
            source, target = self.flying[0][0], self.flying[1][0]
            if source in found and self.flying[1][1] is MISSING and target in found:
                return ["rename %s → %s: both names are there" % (source, target)]
            if source not in found and target not in found:
                return ["rename %s → %s: neither name is there" % (source, target)]
        return []

    def check_moved_directory(self, found):
        old, new = self.moving
        before = dict(self.files)
        after = {(new + n[len(old):] if n.startswith(old + "/") else n): d for n, d in self.files.items()}
        return [] if found in (before, after) else ["rename of directory %s → %s: half done" % (old, new)]
