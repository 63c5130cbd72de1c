"""--durability=local and scratch: what close has acknowledged survives kill -9 and a power loss, whatever the store does; scratch files go with the mount.

SLUICE_CRASH_ROUNDS (default 6) random kills for each store.
"""

import glob
import os
import random
import shutil
import struct
import subprocess
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from gateway import Gateway
from volume import Volume, binary, wait_until
from workload import Workload

ROUNDS = int(os.environ.get("SLUICE_CRASH_ROUNDS", "6"))
MIB = 1 << 20
BOOT_ID = 36


def noise(length, seed):
    return random.Random(seed).randbytes(length)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def forget_boot(volume):
    """What is staged is of before a restart of the host: only what was synced may count. How many files are staged: those with a log, and those
    whose bytes say all by themselves."""
    logs = set()
    alone = set()
    for path in glob.glob(os.path.join(volume.directory, "**", "staging", "*"), recursive=True):
        name = os.path.basename(path)
        with open(path, "r+b") as f:
            if name == "small":
                f.seek(16)
                f.write(b"x" * BOOT_ID)
            elif len(name) == 16:  # docs/data-path.md: header of a log
                header = bytearray(f.read(32 + BOOT_ID + 12))
                header[32:32 + BOOT_ID] = b"x" * BOOT_ID
                header[-4:] = struct.pack("=I", crc32c(bytes(header[:-4])))
                f.seek(0)
                f.write(header)
                logs.add(name)
            elif len(name) == 33 and name[17] >= "8":
                alone.add(name[:16])
    return len(logs | alone)


def data_of(volume):
    return volume.status()["mount"]["data"]


class Durability:
    def start(self, *options, **more):
        v = self.make(options=list(options), **more)
        self.addCleanup(v.close)
        return v.mount()

    def local(self, *options, **more):
        return self.start("--durability", "local", *options, **more)

    def compare(self, v, files):
        for name, data in files.items():
            self.assertTrue(v.read(name) == data, name + " differs")

    def compare_objects(self, v, files):
        for name, data in files.items():
            self.assertTrue(v.object(name) == data, "object %s differs" % name)

    def settled(self, v, files):
        v.settle()
        self.assertEqual(data_of(v)["backlog"]["files"], 0)
        self.compare(v, files)
        self.compare_objects(v, files)

    def unmounted(self, v):
        v.unmount()
        self.assertEqual(v.check_metadata(), "")

    def test_killed_at_random_moments(self):
        rng = random.Random(815)
        v = self.local("--upload-delay", "50ms")
        loads = []
        for n in range(3):
            os.mkdir(v.path("w%d" % n))
            loads.append(Workload(v.path("w%d" % n), 4000 + n, large=400000))
        for _ in range(ROUNDS):
            threads = [threading.Thread(target=w.run, args=(100000,)) for w in loads]
            for t in threads:
                t.start()
            time.sleep(rng.uniform(0.1, 1.2))
            v.process.kill()
            for t in threads:
                t.join()
            v.kill()
            v.mount()
            for w in loads:
                self.assertEqual(w.verify(), [])
        self.settled(v, {"w%d/%s" % (n, name): data for n, w in enumerate(loads) for name, data in w.files.items()})
        self.unmounted(v)

    def test_closed_files_survive_a_power_loss(self):
        v = self.local("--upload-delay", "1h")
        files = {"f%d" % i: noise(200000 + i * 4099, i) for i in range(6)}
        files["inline"] = b"x" * 300
        for name, data in files.items():
            v.write(name, data)
        fd = os.open(v.path("f1"), os.O_RDWR)  # synced once more, and then not
        os.pwrite(fd, b"new", 1000)
        os.fsync(fd)
        files["f1"] = files["f1"][:1000] + b"new" + files["f1"][1003:]
        os.pwrite(fd, b"not synced" * 50000, len(files["f1"]))
        v.kill()
        with self.assertRaises(OSError):
            os.close(fd)
        self.assertGreaterEqual(forget_boot(v), 6)
        v.mount()
        # What was not synced may be there, as on any local disk.
        self.assertIn(v.read("f1"), (files["f1"], files["f1"] + b"not synced" * 50000))
        files["f1"] = v.read("f1")
        self.compare(v, files)
        # And once more, before anything was uploaded.
        v.kill()
        forget_boot(v)
        v.mount()
        self.compare(v, files)
        self.settled(v, files)
        self.unmounted(v)

    def test_a_power_loss_does_not_bring_back_what_was_changed_since(self):
        v = self.local("--upload-delay", "1h")
        first, second = noise(300000, 1), noise(250000, 2)
        v.write("f", first)
        staging = os.path.dirname(next(iter(glob.glob(os.path.join(v.directory, "**", "staging", "lock"), recursive=True))))
        kept = os.path.join(v.directory, "kept")
        shutil.copytree(staging, kept)
        v.settle()
        v.write("f", second)
        v.settle()
        v.write("g", first)
        v.kill()
        # That the old staging was removed did not reach the disk in time.
        for name in os.listdir(kept):
            if name not in ("lock", "small"):
                shutil.copy(os.path.join(kept, name), staging)
        self.assertGreaterEqual(forget_boot(v), 2)
        v.mount()
        self.settled(v, {"f": second, "g": first})
        self.unmounted(v)

    def test_names_in_the_backlog(self):
        v = self.local("--upload-delay", "1h")
        data = noise(700000, 3)
        for name in ("a", "gone", "moved"):
            v.write(name, data)
        os.mkdir(v.path("d"))
        os.rename(v.path("moved"), v.path("d", "there"))
        os.unlink(v.path("gone"))
        with open(v.path("a"), "ab") as f:
            f.write(b"more")
        self.assertEqual(os.stat(v.path("a")).st_size, len(data) + 4)
        want = {"a": data + b"more", "d/there": data}
        self.compare(v, want)
        backlog = data_of(v)["backlog"]
        self.assertEqual((backlog["files"], backlog["bytes"]), (2, 2 * len(data) + 4))
        self.assertIn("backlog", v.sluice("status", v.mountpoint).stdout)
        self.assertEqual(v.metric("sluice_data_backlog_files"), 2)
        # Settle has had its time: it makes no empty objects of them.
        time.sleep(1)
        self.assertEqual(v.keys(), [])
        # Nothing was sent so far, and nothing is ever sent of what is gone.
        self.assertEqual(v.metric("sluice_data_objects_total"), 0)
        self.settled(v, want)
        self.assertEqual(v.metric("sluice_data_objects_total"), 2)
        self.unmounted(v)

    def test_umount_waits_and_keep_does_not(self):
        v = self.local("--upload-delay", "1h")
        data = noise(500000, 4)
        v.write("a", data)
        v.unmount()
        self.assertEqual(v.object("a"), data)
        v.mount()
        v.write("b", data)
        v.sluice("umount", "--keep", v.mountpoint)
        self.assertEqual(v.process.wait(timeout=120), 0)
        v.process = None
        self.assertNotIn("b", v.keys())
        v.mount()
        self.assertEqual(data_of(v)["backlog"]["files"], 1)
        self.compare(v, {"a": data, "b": data})
        self.settled(v, {"a": data, "b": data})
        self.unmounted(v)

    def test_scratch_goes_with_the_mount(self):
        v = self.start("--durability-for", "tmp*=scratch")
        data = noise(300000, 5)
        os.mkdir(v.path("tmp-1"))

        def fill():
            for name in ("a", "b"):
                v.write("tmp-1/" + name, data)
            v.write("tmp-1/empty", b"")
            v.write("tmp-1/small", b"abc")
            os.link(v.path("tmp-1", "a"), v.path("tmp-1", "other"))

        fill()
        v.write("kept", data)
        self.compare(v, {"tmp-1/a": data, "tmp-1/other": data, "tmp-1/small": b"abc", "tmp-1/empty": b""})
        self.assertEqual(data_of(v)["scratch"]["files"], 4)
        self.assertEqual(v.metric("sluice_data_scratch_bytes"), 2 * len(data) + 3)
        v.settle()
        self.assertEqual(v.keys(), ["kept"])
        self.unmounted(v)
        v.mount()
        self.assertEqual(sorted(os.listdir(v.mountpoint)), ["kept", "tmp-1"])
        self.assertEqual(os.listdir(v.path("tmp-1")), [])
        for host in (False, True):
            fill()
            v.kill()
            if host:
                forget_boot(v)
            v.mount()
            self.assertEqual(os.listdir(v.path("tmp-1")), [])
        self.settled(v, {"kept": data})
        self.assertEqual(v.keys(), ["kept"])
        self.unmounted(v)

    def test_scratch_that_moves_out_is_kept(self):
        v = self.start("--durability-for", "tmp*=scratch")
        data = noise(300000, 6)
        os.mkdir(v.path("tmp-1"))
        os.mkdir(v.path("tmp-1", "d"))
        v.write("tmp-1/a", data)
        v.write("tmp-1/d/b", data)
        v.write("tmp-1/c", data)
        os.rename(v.path("tmp-1", "a"), v.path("a"))
        os.rename(v.path("tmp-1", "d"), v.path("d"))
        wait_until("scratch files that moved out", lambda: data_of(v)["scratch"]["files"] == 1)
        self.unmounted(v)
        self.assertEqual(v.object("a"), data)
        self.assertEqual(v.object("d/b"), data)
        v.mount()
        self.assertEqual(os.listdir(v.path("tmp-1")), [])
        self.compare(v, {"a": data, "d/b": data})

    def test_scratch_that_moved_out_survives_a_kill_at_that_moment(self):
        data = noise(300000, 9)
        for whole in (False, True):
            v = self.start("--durability-for", "tmp*=scratch", env={"SLUICE_CRASH_AT": "durability.moved"})
            os.makedirs(v.path("tmp-1", "d"))
            v.write("tmp-1/d/f", data)
            acknowledged = True
            try:
                if whole:
                    os.rename(v.path("tmp-1", "d"), v.path("d"))
                else:
                    os.mkdir(v.path("d"))
                    os.rename(v.path("tmp-1", "d", "f"), v.path("d", "f"))
            except OSError:
                acknowledged = False
            v.reap()  # it dies by itself
            del v.env["SLUICE_CRASH_AT"]
            v.mount()
            if acknowledged:
                self.compare(v, {"d/f": data})
            # And when the rename was answered, and nothing else has happened.
            v.write("tmp-1/g", data)
            os.rename(v.path("tmp-1", "g"), v.path("g"))
            v.kill()
            v.mount()
            self.settled(v, {"g": data})
            self.unmounted(v)

    def test_bad_rules_are_refused(self):
        v = self.make()
        self.addCleanup(v.close)
        for rules, word in (("a=b", "scratch"), ("local", "PATTERN"), ("a/b=local", "component")):
            code, text = v.mount_fails("--durability-for", rules)
            self.assertEqual(code, 1)
            self.assertIn(word, text)
        done = subprocess.run(
            [binary(), "mount", "sluice+unix:///nowhere/socket:vol", v.mountpoint, "--durability", "local"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)
        self.assertEqual((done.returncode, done.stdout.count("\n")), (1, 1))
        self.assertIn("--durability", done.stdout)


class OnDirectory(Durability, unittest.TestCase):
    def make(self, **options):
        return Volume(**options)


class OnS3(Durability, unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = cls.enterClassContext(Gateway())

    def make(self, **options):
        return Volume(gateway=self.gateway, **options)

    # What the store does.
    def write_all(self, v, names, data):
        def run():
            for name in names:
                v.write(name, data)
                self.written += 1

        self.written = 0
        thread = threading.Thread(target=run)
        thread.start()
        self.addCleanup(thread.join)
        return thread

    def test_without_a_store_writers_go_on_until_the_bound(self):
        v = self.local("--upload-delay", "0s", "--staging-max", "64M", "--deadline", "1s")
        # The end of a test that failed: nobody may wait for ever.
        self.addCleanup(v.kill)
        data = noise(8 * MIB, 7)
        # In a directory of the mount's own: it need not ask the bucket for new names.
        os.mkdir(v.path("d"))
        names = ["d/f%02d" % i for i in range(14)]
        self.gateway.stop()
        try:
            thread = self.write_all(v, names, data)
            wait_until("the bound", lambda: data_of(v)["staged_bytes"] >= 64 * MIB)
            wait_until("a writer that waits", lambda: v.metric("sluice_data_write_waits_total") > 0)
            self.assertLess(data_of(v)["staged_bytes"], 68 * MIB)
            self.assertTrue(thread.is_alive())
            self.compare(v, {name: data for name in names[:self.written]})
        finally:
            self.gateway.start()
        thread.join(120)
        self.assertEqual(self.written, len(names))
        self.settled(v, {name: data for name in names})
        self.unmounted(v)

    def test_a_backlog_that_is_too_old_holds_writers(self):
        v = self.local("--upload-delay", "0s", "--backlog-age", "1s", "--deadline", "1s")
        self.addCleanup(v.kill)
        data = noise(300000, 8)
        os.mkdir(v.path("d"))
        self.gateway.stop()
        try:
            v.write("d/first", data)
            wait_until("an old backlog", lambda: data_of(v)["backlog"]["writers_wait"])
            thread = self.write_all(v, ["d/second"], data)
            wait_until("a writer that waits", lambda: v.metric("sluice_data_write_waits_total") > 0)
            self.assertTrue(thread.is_alive())
        finally:
            self.gateway.start()
        thread.join(120)
        self.assertEqual(self.written, 1)
        self.settled(v, {"d/first": data, "d/second": data})
        self.unmounted(v)


if __name__ == "__main__":
    unittest.main()
