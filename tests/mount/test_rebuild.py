"""The metadata is lost: `sluice rebuild` makes it anew from the bucket. On both stores."""

import json
import os
import shutil
import signal
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import crash_points
from gateway import Gateway
from volume import WAIT_S, Volume, binary, wait_until


def tree(root, directories="%P %y %m %U %G\n"):
    """What find prints of a tree: of directories all but times, of the rest with size, time and target."""
    done = subprocess.run(
        ["find", root, "-path", os.path.join(root, ".sluice"), "-prune", "-o", "-mindepth", "1",
         "(", "-type", "d", "-printf", directories, "-o", "-printf", "%P %y %m %U %G %s %T@ %l\n", ")"],
        check=True, stdout=subprocess.PIPE, timeout=WAIT_S)
    return sorted(line for line in done.stdout.decode("utf-8", "surrogateescape").split("\n") if line)


class Rebuild:
    def start(self, **options):
        v = self.make(**options)
        self.addCleanup(v.close)
        return v.mount()

    def clean(self, v):
        """Settled, and what was at old places is deleted."""
        v.settle()
        wait_until("old objects to go", lambda: v.status()["volume"]["drift"]["garbage_objects"] == 0)

    def lose(self, v):
        shutil.rmtree(os.path.join(v.directory, "meta"))

    def meta(self, v):
        return os.path.join(v.directory, "meta")

    def rebuild(self, v, *arguments, check=True):
        return v.sluice("rebuild", v.url, "--meta-dir", self.meta(v), "--settle-delay", v.settle_delay,
                        "--gc-delay", v.gc_delay, *arguments, check=check)

    def fill(self, v):
        os.makedirs(v.path("a/b/c"))
        os.makedirs(v.path("z"))
        for i in range(40):
            v.write("a/b/f%02d" % i, b"%d" % i * 100)
        v.write("a/b.c", b"sorts between a/b and a/b/")
        v.write("a/b/c/big", b"B" * 300000)
        v.write("z/empty", b"")
        v.write("täst ü", b"name")
        os.chmod(v.path("a/b/f00"), 0o600)
        os.utime(v.path("a/b/f00"), (10**9, 10**9))
        if os.geteuid() == 0:
            os.chown(v.path("a/b/f01"), 1234, 4321)

    def fill_special(self, v):
        """What no object at a path of its own can say."""
        os.makedirs(v.path("empty/deeper"))
        os.makedirs(v.path("private/sub"), mode=0o700)
        os.chmod(v.path("private"), 0o700)
        v.write("private/sub/f", b"p" * 50)
        os.symlink("../a/b/f00", v.path("z/link"))
        os.symlink(b"not utf-8 \xff", v.path("z/odd link").encode())
        os.link(v.path("a/b/c/big"), v.path("z/second name"))
        os.mkfifo(v.path("z/fifo"), 0o620)
        os.setxattr(v.path("a/b/f02"), "user.color", b"blue \x00\xff")
        os.setxattr(v.path("private"), "user.note", b"on a directory")

    def change_settled(self, v):
        """Attributes that change after the object was written."""
        os.chmod(v.path("a/b/c/big"), 0o755)
        os.utime(v.path("a/b/c/big"), ns=(10**18, 1234567890123456789))
        os.chmod(v.path("a/b/f03"), 0o444)
        os.chmod(v.path("z"), 0o711)
        os.rename(v.path("empty"), v.path("renamed empty"))
        os.rename(v.path("private"), v.path("moved"))

    def test_tree_is_as_it_was(self):
        v = self.start()
        self.fill(v)
        v.settle()
        before = tree(v.mountpoint)
        v.unmount()
        self.lose(v)
        said = json.loads(self.rebuild(v, "--json").stdout)
        self.assertEqual(said["files"], 44)
        self.assertEqual(v.check_metadata(), "")
        v.mount()
        self.assertEqual(tree(v.mountpoint), before)
        self.assertEqual(v.read("a/b/c/big"), b"B" * 300000)
        # And it is a volume like any other.
        v.write("a/new", b"n")
        os.rename(v.path("a/b"), v.path("moved"))
        v.settle()
        self.assertEqual(v.object("moved/f01"), b"1" * 100)
        v.unmount()
        self.assertEqual(v.check_metadata(), "")

    def test_special_entries(self):
        v = self.start()
        self.fill(v)
        self.fill_special(v)
        v.settle()
        self.change_settled(v)
        self.clean(v)
        before = tree(v.mountpoint)
        self.assertTrue(any(line.startswith("renamed empty/deeper d") for line in before), before)
        v.unmount()
        self.assertEqual(v.check_metadata(), "")
        for times in (1, 2):  # what a rebuild wrote serves the next one as well
            self.lose(v)
            self.rebuild(v)
            self.assertEqual(v.check_metadata(), "")
        v.mount()
        self.assertEqual(tree(v.mountpoint), before)
        self.assertEqual(os.getxattr(v.path("a/b/f02"), "user.color"), b"blue \x00\xff")
        self.assertEqual(os.getxattr(v.path("moved"), "user.note"), b"on a directory")
        self.assertEqual(os.stat(v.path("z/second name")).st_ino, os.stat(v.path("a/b/c/big")).st_ino)
        # What goes has no entry any more, and does not come back.
        shutil.rmtree(v.path("renamed empty"))
        os.unlink(v.path("z/link"))
        os.chmod(v.path("z"), 0o755)
        self.clean(v)
        before = tree(v.mountpoint)
        v.unmount()
        self.lose(v)
        self.rebuild(v)
        v.mount()
        self.assertEqual(tree(v.mountpoint), before)

    def test_agrees_with_import(self):
        v = self.make()
        self.addCleanup(v.close)
        for key in ("d/x", "d-e/y", "d.f", "deep/er/than/one", "o", "p/a-b", "p/a/c"):
            v.put_object(key, key.encode())
        v.mount()
        names = tree(v.mountpoint)
        v.unmount()
        self.lose(v)
        self.rebuild(v)
        v.mount()
        self.assertEqual(tree(v.mountpoint), names)
        v.refresh()
        self.assertEqual(tree(v.mountpoint), names)

    def test_existing_metadata_is_kept(self):
        v = self.start(settle_delay="1h")
        v.write("only here", b"not settled")
        v.kill()
        done = self.rebuild(v, "--take-over", check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("there is metadata in", done.stdout)
        v.mount()
        self.assertEqual(v.read("only here"), b"not settled")

    def test_a_held_prefix_is_refused(self):
        v = self.start()
        v.write("f", b"f")
        v.settle()
        other = os.path.join(v.directory, "other")
        done = v.sluice("rebuild", v.url, "--meta-dir", other, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("the prefix belongs to", done.stdout)
        v.write("g", b"still the owner")
        v.settle()

    def test_goes_on_after_it_was_killed(self):
        v = self.start()
        self.fill(v)
        self.fill_special(v)
        v.settle()
        before = tree(v.mountpoint)
        v.unmount()
        self.lose(v)
        points = os.path.join(v.directory, "points")
        self.rebuild_env(v, SLUICE_CRASH_LIST=points)
        with open(points) as f:
            reached = [p for p in f.read().split() if p.startswith(("rebuild.", "carry."))]
        # Its state is saved every five seconds: a bucket as small as this one is done by then.
        late = {"rebuild.synced", "rebuild.saved"}
        self.assertEqual({p for p in reached if p.startswith("rebuild.")} | late, set(crash_points.of_source("rebuild")))
        for point in reached:
            self.lose(v)
            killed = self.rebuild_env(v, SLUICE_CRASH_AT=point)
            self.assertEqual(killed, -signal.SIGKILL, point)
            self.assertEqual(self.rebuild_env(v), 0, point)
            self.assertEqual(v.check_metadata(), "", point)
        v.mount()
        self.assertEqual(tree(v.mountpoint), before)

    def rebuild_env(self, v, **env):
        return subprocess.run(
            [binary(), "rebuild", v.url, "--meta-dir", self.meta(v), "--settle-delay", v.settle_delay, "--take-over"],
            env=dict(v.env, **env), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=WAIT_S).returncode


class OnDirectory(Rebuild, unittest.TestCase):
    def make(self, **more):
        return Volume(**more)


class OnS3(Rebuild, unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = cls.enterClassContext(Gateway())

    def make(self, **more):
        return Volume(gateway=self.gateway, **more)


if __name__ == "__main__":
    unittest.main()
