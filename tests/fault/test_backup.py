"""Backups of a mounted volume and their way back, on both stores; kill -9 at each point of a backup."""

import errno
import json
import os
import shutil
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from gateway import Gateway
from service import ServiceVolume
from volume import Volume, wait_until

# Names that are gone are forgotten so soon by the kernel.
OPTIONS = ("--import-ttl", "1s")


def tree(v):
    """Names, modes, link counts and content below the mount."""
    found = {}
    for at, _, files in os.walk(v.mountpoint):
        for name in files:
            path = os.path.join(at, name)
            try:
                found[os.path.relpath(path, v.mountpoint)] = look_at(path)
            except FileNotFoundError:
                pass
    return found


def look_at(path):
    """A file whose object is not what it was is found out by the first read, which fails; the next ones show what is there."""
    seen = []

    def once():
        try:
            with open(path, "rb") as f:
                data = f.read()
            st = os.stat(path)
            seen.append((st.st_mode, st.st_nlink, data))
        except FileNotFoundError:
            raise
        except OSError as e:
            if e.errno != errno.ESTALE:
                raise
        return seen

    wait_until("%s to be found out" % path, once)
    return seen[0]


class Backup:
    def fill(self, v):
        os.makedirs(v.path("a", "b"))
        for i in range(40):
            v.write("a/b/f%d" % i, b"%d" % i * (1 + i * 700))
        os.link(v.path("a/b/f1"), v.path("a/second"))
        os.setxattr(v.path("a/b/f2"), "user.k", b"v")
        os.chmod(v.path("a/b/f3"), 0o600)
        v.settle()

    def lose_metadata(self, v):
        shutil.rmtree(os.path.join(v.directory, "meta"))

    def restore(self, v, *extra, check=True):
        return v.sluice("restore", v.url, "--meta-dir", os.path.join(v.directory, "meta"), *extra, check=check)

    def test_a_lost_directory_comes_back(self):
        with self.make() as v:
            self.fill(v)
            before = tree(v)
            first = json.loads(v.sluice("backup", v.mountpoint, "--json").stdout)
            self.assertEqual(first["sent_files"], first["files"])
            # What happens after the backup is in the bucket alone.
            v.write("a/later", b"later")
            os.rename(v.path("a/b/f5"), v.path("a/b/moved"))
            os.unlink(v.path("a/b/f6"))
            v.write("a/b/f7", b"rewritten")
            v.settle()
            wait_until("the objects of renamed and removed files to go", lambda: v.object("a/b/f5") is None and v.object("a/b/f6") is None)
            v.unmount()
            self.assertEqual(self.restore(v, check=False).returncode, 1)  # there is metadata
            self.lose_metadata(v)
            said = self.restore(v).stdout
            self.assertIn(first["time"], said)
            self.assertIn("a/b/f5: its object ", said)
            self.assertIn("a/b/f7: its object ", said)
            self.assertEqual(v.check_metadata(), "")
            v.mount()
            v.refresh()
            after = tree(v)
            for name, value in before.items():
                if name not in ("a/b/f5", "a/b/f6", "a/b/f7"):
                    self.assertEqual(after[name], value, name)
            self.assertEqual(os.getxattr(v.path("a/b/f2"), "user.k"), b"v")
            self.assertEqual(after["a/later"][2], b"later")
            self.assertEqual(after["a/b/moved"][2], before["a/b/f5"][2])
            self.assertEqual(after["a/b/f7"][2], b"rewritten")
            self.assertNotIn("a/b/f5", after)
            self.assertNotIn("a/b/f6", after)
            # New work goes on beside what the lost metadata had written.
            for i in range(20):
                v.write("a/new%d" % i, b"n" * 50000)
            os.unlink(v.path("a/b/f8"))
            v.settle()
            wait_until("the removed file's object to go", lambda: v.object("a/b/f8") is None)
            self.assertEqual(v.object("a/later"), b"later")
            self.assertEqual(v.object("a/b/moved"), before["a/b/f5"][2])
            v.unmount()
            self.assertEqual(v.check_metadata(), "")

    def test_what_settled_after_the_backup_is_nobodys_garbage(self):
        with self.make(settle_delay="1h") as v:
            os.makedirs(v.path("d"))
            v.write("d/same", b"same")
            v.write("d/rewritten", b"old")
            v.sluice("backup", v.mountpoint)
            v.write("d/rewritten", b"newer")
            os.chmod(v.path("d/rewritten"), 0o600)
            v.write("d/later", b"later")
            v.settle()
            v.unmount()
            self.lose_metadata(v)
            self.restore(v)
            # Before their directory was listed, the restored metadata knows none of these objects.
            meta = ("--meta-dir", os.path.join(v.directory, "meta"))
            v.sluice("gc", v.url, *meta, "--strays", "--older-than", "0s", "--delete")
            self.assertEqual(v.object("d/later"), b"later")
            self.assertEqual(v.object("d/rewritten"), b"newer")
            v.mount()
            self.assertEqual(v.read("d/rewritten"), b"old")
            v.settle()
            v.refresh()
            v.sluice("gc", v.mountpoint, "--strays", "--older-than", "0s", "--delete")
            self.assertEqual(v.read("d/later"), b"later")
            self.assertEqual(v.read("d/same"), b"same")
            # Both versions of what was not settled at the backup, and is another one now.
            self.assertEqual(v.read("d/rewritten"), b"newer")
            self.assertEqual(os.stat(v.path("d/rewritten")).st_mode & 0o777, 0o600)
            beside = sorted(n for n in os.listdir(v.path("d")) if "conflict" in n)
            if v.url.startswith("s3://"):  # a directory's ETags tell nothing of the content
                self.assertEqual(len(beside), 1)
            self.assertEqual(v.read("d/" + beside[0]), b"old")
            v.unmount()
            self.assertEqual(v.check_metadata(), "")

    def test_killed_at_each_point_the_old_backup_stays_good(self):
        with self.make() as v:
            self.fill(v)
            first = json.loads(v.sluice("backup", v.mountpoint, "--json").stdout)["time"]
            before = tree(v)
            for point in ("backup.file_sent:1", "backup.file_sent:3"):
                v.write("a/more-" + point, b"x" * 1000)
                v.env["SLUICE_CRASH_AT"] = point
                self.assertEqual(v.sluice("backup", v.mountpoint, "--keep", "1", check=False).returncode, -9)
                del v.env["SLUICE_CRASH_AT"]
                self.assertEqual(self.restore(v, "--list").stdout.split(), [first])
            v.env["SLUICE_CRASH_AT"] = "backup.complete"
            self.assertEqual(v.sluice("backup", v.mountpoint, "--keep", "1", check=False).returncode, -9)
            del v.env["SLUICE_CRASH_AT"]
            self.assertEqual(len(self.restore(v, "--list").stdout.split()), 2)
            v.unmount()
            self.lose_metadata(v)
            self.restore(v, "--at", first)
            v.mount()
            after = tree(v)
            self.assertEqual({k: after[k] for k in before}, before)
            # The mount's own checkpoint of the killed command is not in the way.
            v.sluice("backup", v.mountpoint, "--keep", "1")
            self.assertEqual(len(self.restore(v, "--list").stdout.split()), 1)

    def test_not_while_it_is_mounted(self):
        with self.make() as v:
            v.write("f", b"1")
            v.sluice("backup", v.mountpoint)
            other = os.path.join(v.directory, "other")
            refused = v.sluice("restore", v.url, "--meta-dir", other, check=False)
            self.assertEqual(refused.returncode, 1)
            self.assertIn("--take-over", refused.stdout)
            v.sluice("restore", v.url, "--meta-dir", other, "--take-over")


class FileStore(Backup, unittest.TestCase):
    def make(self, **more):
        return Volume(options=OPTIONS, **more)

    def test_by_itself_and_elsewhere(self):
        with self.make() as v:
            place = os.path.join(v.directory, "vault")
            os.mkdir(place)
            self.fill(v)
            v.unmount()
            v.mount("--backup-interval", "1s", "--backup-to", "file://" + place, "--backup-keep", "2")
            times = lambda: self.restore(v, "--from", "file://" + place, "--list").stdout.split()
            wait_until("a first backup", times)
            first = times()[0]
            wait_until("it to be removed for newer ones", lambda: len(times()) == 2 and times()[0] > first)
            before = tree(v)
            v.unmount()
            # Offline, by the URL, to the same place.
            v.sluice("backup", v.url, "--meta-dir", os.path.join(v.directory, "meta"), "--to", "file://" + place)
            self.assertEqual(len(times()), 3)
            self.lose_metadata(v)
            self.restore(v, "--from", "file://" + place)
            v.mount()
            self.assertEqual(tree(v), before)


class OfAService(unittest.TestCase):
    """The service makes them while it serves; the command restores on its host."""

    def test_volume_of_a_service_is_backed_up_while_it_is_served_and_comes_back(self):
        with ServiceVolume(volume_options=("backup-interval=1s", "backup-keep=2"), service_options=("--metrics-address", "127.0.0.1:0"), options=OPTIONS) as v:
            complete = 'sluice_backups_total{result="complete",volume="v"}'
            Backup.fill(self, v)
            v.write("not settled", b"in the metadata only")
            before = tree(v)
            seen = v.service.metric(complete)
            # The second one from here began after all this.
            wait_until("two backups", lambda: v.service.metric(complete) >= seen + 2)
            v.unmount()
            v.service.kill()
            shutil.rmtree(v.service.data)
            v.service.volume("create", "v", v.url, "gc-delay=0s")
            meta = os.path.join(v.service.data, "v", "meta")
            self.assertLessEqual(len(v.sluice("restore", v.url, "--list").stdout.split()), 3)
            v.sluice("restore", v.url, "--meta-dir", meta, "--take-over")
            v.service.start()
            v.mount()
            self.assertEqual(tree(v), before)

    def test_a_wrong_place_is_refused_and_nothing_changes(self):
        with ServiceVolume() as v:
            before = v.service.volume("show", "v").stdout
            for word, what in (("backup-interval=often", "backup-interval"), ("backup-keep=-1", "backup-keep"), ("backup-to=http://x", "backup-to")):
                done = v.service.volume("set", "v", "backup-interval=1h", word, check=False)
                self.assertEqual((done.returncode, what in done.stdout), (1, True), done.stdout)
            self.assertEqual(v.service.volume("show", "v").stdout, before)


class S3(Backup, unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = cls.enterClassContext(Gateway())

    def make(self, **more):
        return Volume(gateway=self.gateway, prefix="p/", options=OPTIONS, **more)


if __name__ == "__main__":
    unittest.main()
