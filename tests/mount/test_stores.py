"""Other stores of a mount: a second S3 server, with credentials of its own, attached at a directory; and a
volume that moves to it while fio writes and verifies, and through kill -9."""

import hashlib
import json
import os
import random
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import gateway  # noqa: E402
from volume import WAIT_S, Volume, wait_until  # noqa: E402


class Stores(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.first = cls.enterClassContext(gateway.Gateway())
        cls.second = cls.enterClassContext(
            gateway.Gateway(access="secondaccess", secret="secondsecretsecret", region="eu-central-1"))

    def setUp(self):
        self.v = Volume(gateway=self.first, prefix="home/")
        self.addCleanup(self.v.close)
        profile = os.path.join(self.v.directory, "credentials")
        with open(profile, "w") as f:
            f.write("[second]\naws_access_key_id = %s\naws_secret_access_key = %s\n" % (self.second.access, self.second.secret))
        self.v.env["AWS_SHARED_CREDENTIALS_FILE"] = profile
        self.v.mount()
        self.bucket = "s" + self.v.bucket[1:]
        self.second.make_bucket(self.bucket)

    def store(self, *arguments, check=True):
        done = self.v.sluice("store", *arguments, check=False)
        if check and done.returncode != 0:
            raise AssertionError("store %s: %s\n%s" % (" ".join(arguments), done.stdout, self.v.output()))
        return done

    def options(self):
        return ("--profile", "second", "--endpoint", self.second.endpoint, "--region", self.second.region)

    def listed(self):
        return json.loads(self.store("list", self.v.mountpoint, "--json").stdout)

    def keys_of_second(self):
        return sorted(k for k in self.second.list(self.bucket) if "/.sluice/" not in "/" + k)

    def test_attach_write_rename_detach(self):
        v = self.v
        self.second.put(self.bucket, "old/a", b"from the second")
        self.second.put(self.bucket, "old/dir/b", b"deeper")
        os.mkdir(v.path("at"))
        v.write("mine", b"from the first")
        self.store("attach", "s3://%s/old" % self.bucket, v.path("at"), "--name", "two", *self.options())
        self.assertEqual(sorted(os.listdir(v.path("at"))), ["a", "dir"])
        self.assertEqual(v.read("at/dir/b"), b"deeper")
        v.write("at/new", b"n" * 100000)
        os.rename(v.path("mine"), v.path("at/mine"))
        os.rename(v.path("at/a"), v.path("a"))
        v.settle()
        self.assertEqual(self.second.get(self.bucket, "old/new"), b"n" * 100000)
        self.assertEqual(self.second.get(self.bucket, "old/mine"), b"from the first")
        self.assertEqual(v.object("a"), b"from the second")
        wait_until("gc", lambda: self.second.head(self.bucket, "old/a") is None and v.object("mine") is None)
        self.assertEqual(os.getxattr(v.path("at/mine"), "user.sluice.store"), b"two")
        self.assertEqual(os.getxattr(v.path("at/mine"), "user.sluice.key"), b"old/mine")
        self.assertEqual(os.getxattr(v.path("a"), "user.sluice.store"), b"main")

        with open(os.path.join(v.directory, "credentials")) as f:
            secret = f.read().split()[-1]
        self.assertNotIn(secret, json.dumps(self.listed()))
        with self.assertRaises(OSError):
            os.rmdir(v.path("at"))
        self.assertIn("is not empty", self.store("attach", "s3://" + self.bucket, v.mountpoint + "/at", check=False).stdout
                      + self.store("attach", "s3://%s" % self.bucket, v.path("at"), "--name", "x", check=False).stdout)

        v.kill()
        v.mount()
        self.assertEqual(v.read("at/new"), b"n" * 100000)
        self.store("detach", "two", v.mountpoint)
        self.assertEqual(os.listdir(v.path("at")), [])
        self.assertEqual(self.keys_of_second(), ["old/dir/b", "old/mine", "old/new"])
        self.assertEqual([s["name"] for s in self.listed()["stores"]], ["main"])
        v.unmount()
        self.assertEqual(v.check_metadata(), "")

    def test_wrong_calls(self):
        v = self.v
        os.mkdir(v.path("d"))
        for arguments, code, text in (
            (("attach", "s3://" + self.bucket, v.path("d"), "--name", "a/b"), 2, "a store's name has"),
            (("attach", "nonsense", v.path("d")), 2, "nonsense"),
            (("attach", "s3://" + self.bucket, v.mountpoint), 1, "the root is the volume's own store"),
            (("attach", v.url, v.path("d"), "--name", "self"), 1, "lies in a place of this volume already"),
            (("attach", "s3://no-such-bucket-here", v.path("d")), 1, ""),
            (("detach", "nobody", v.mountpoint), 1, "there is no store nobody"),
            (("frobnicate",), 2, "use attach URL DIR"),
            (("add", "s3://" + self.bucket, v.mountpoint, "--read-only"), 2, "nothing can be moved"),
        ):
            done = self.store(*arguments, check=False)
            self.assertEqual(done.returncode, code, (arguments, done.stdout))
            self.assertIn(text, done.stdout)
            self.assertEqual(len(done.stdout.strip().splitlines()), 1, done.stdout)
        done = v.sluice("migrate", v.path("d"), "--to", "nobody", check=False)
        self.assertEqual((done.returncode, done.stdout), (1, "sluice migrate: there is no store nobody\n"))
        self.assertEqual([s["name"] for s in self.listed()["stores"]], ["main"])
        self.assertEqual(self.second.list(self.bucket), {})

    def fill(self, seed):
        """A tree, and what its files must be: path → bytes."""
        rng, model = random.Random(seed), {}
        for i in range(40):
            model["data/d%d/f%02d" % (i % 4, i)] = rng.randbytes(rng.choice((0, 10, 5000, 70000)))
        model["data/big"] = rng.randbytes((20 << 20) + 17)
        model["data/_temporary/part"] = rng.randbytes(100000)
        for path, data in model.items():
            os.makedirs(os.path.dirname(self.v.path(path)), exist_ok=True)
            self.v.write(path, data)
        self.v.settle()
        return model

    def check_moved(self, model, fio=()):
        """Every file is its bytes through the mount and a plain object of the second server; the first has none."""
        for path, data in model.items():
            self.assertEqual(hashlib.sha256(self.v.read(path)).digest(), hashlib.sha256(data).digest(), path)
        plain = {p for p in model if "_temporary" not in p} | set(fio)
        self.assertEqual(self.keys_of_second(), sorted(plain))
        for path in plain - set(fio):
            self.assertEqual(self.second.get(self.bucket, path), model[path], path)
        for path in fio:
            self.assertEqual(self.second.get(self.bucket, path), self.v.read(path), path)

        def left():
            keys = self.first.list(self.v.bucket, "home/")
            return [k for k in keys if not k.startswith("home/.sluice/") or k.startswith("home/.sluice/o/")]

        wait_until("the first server to have nothing of it", lambda: left() == [])
        wait_until("no uploads", lambda: self.first.uploads(self.v.bucket) == [] and self.second.uploads(self.bucket) == [])

    def test_migrates_while_fio_writes_and_verifies(self):
        v = self.v
        model = self.fill(1)
        self.store("add", "s3://" + self.bucket, v.mountpoint, "--name", "new", *self.options())
        handle = open(v.path("data/big"), "rb")
        self.addCleanup(handle.close)
        start = handle.read(1 << 20)
        fio = subprocess.Popen(
            ["fio", "--name=v", "--filename=" + v.path("data/fio"), "--size=16M", "--rw=randwrite", "--bsrange=4k-128k",
             "--verify=crc32c", "--verify_backlog=64", "--loops=4", "--rate=6m", "--fsync=40", "--randseed=7"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=v.directory)
        try:
            wait_until("fio to write", lambda: os.path.exists(v.path("data/fio")) and os.path.getsize(v.path("data/fio")))
            v.sluice("migrate", v.mountpoint, "--to", "new")
            os.rename(v.path("data/d1/f01"), v.path("data/renamed"))
            model["data/renamed"] = model.pop("data/d1/f01")
            v.write("data/d2/late", b"made meanwhile")
            model["data/d2/late"] = b"made meanwhile"
            said = fio.communicate(timeout=WAIT_S * 2)[0]
        finally:
            fio.kill()
            fio.wait()
        self.assertEqual(fio.returncode, 0, said)
        self.assertEqual(start + handle.read(), model["data/big"])
        handle.close()
        v.sluice("migrate", v.mountpoint, "--wait")
        moves = self.listed()["migrations"]
        self.assertEqual([(m["path"], m["to"], m["left_files"], m["listing"]) for m in moves], [("", "new", 0, False)])
        self.assertIn("0 of %d files" % (len(model) + 1), v.sluice("migrate", v.mountpoint).stdout)
        self.check_moved(model, fio=["data/fio"])
        v.unmount()
        self.assertEqual(v.check_metadata(), "")

    def test_migration_survives_kills(self):
        v = self.v
        model = self.fill(2)
        self.store("add", "s3://" + self.bucket, v.mountpoint, "--name", "new", *self.options())
        v.sluice("migrate", v.path("data"), "--to", "new")
        for some in (1, 15, 30):
            wait_until("a part of it to be moved", lambda: len(self.keys_of_second()) >= some)
            v.kill()
            v.mount()
        v.sluice("migrate", v.path("data"), "--wait")
        self.check_moved(model)
        v.unmount()
        self.assertEqual(v.check_metadata(), "")

    def test_old_files_move_young_ones_stay(self):
        v = self.v
        os.mkdir(v.path("logs"))
        old, young = b"o" * 200000, b"y" * 200000
        v.write("logs/old", old)
        v.write("logs/young", young)
        v.write("beside", old)
        for name in ("logs/old", "beside"):
            os.utime(v.path(name), (1, 1))
        self.store("add", "s3://" + self.bucket, v.mountpoint, "--name", "cold", *self.options())
        for wrong in ("30", "x", "0s", "-1d"):
            done = v.sluice("migrate", v.path("logs"), "--to", "cold", "--after=" + wrong, check=False)
            self.assertEqual((done.returncode, len(done.stdout.splitlines())), (2, 1), done.stdout)
        v.sluice("migrate", v.path("logs"), "--to", "cold", "--after", "20h", "--wait")
        self.assertEqual(self.keys_of_second(), ["logs/old"])
        self.assertEqual(self.second.get(self.bucket, "logs/old"), old)
        self.assertIn("when not changed for 20h", self.store("list", v.mountpoint).stdout)
        wait_until("gc", lambda: v.object("logs/old") is None)
        self.assertEqual((v.object("logs/young"), v.object("beside"), v.read("logs/old")), (young, old, old))

        # A change brings a file back; its listing does not take the others away.
        v.write("logs/old", young)
        v.sluice("refresh", v.mountpoint)
        v.settle()
        self.assertEqual(v.object("logs/old"), young)
        wait_until("gc", lambda: self.keys_of_second() == [])

        # Files that become old follow by themselves, also after a kill.
        v.sluice("migrate", v.path("logs"), "--to", "cold", "--after", "1h")
        v.sluice("migrate", v.path("logs"), "--to", "cold", "--after", "15s")
        os.utime(v.path("logs/young"), (1, 1))
        v.kill()
        v.mount()
        wait_until("the file that is old now", lambda: "logs/young" in self.keys_of_second())
        self.assertEqual(v.read("logs/young"), young)
        v.sluice("migrate", v.path("logs"), "--cancel", "--wait")
        wait_until("all to be back", lambda: self.keys_of_second() == [])
        self.store("detach", "cold", v.mountpoint)
        v.unmount()
        self.assertEqual(v.check_metadata(), "")

    def test_checked_and_collected_offline(self):
        v = self.v
        os.mkdir(v.path("at"))
        self.store("attach", "s3://%s/p" % self.bucket, v.path("at"), "--name", "two", *self.options())
        for name in ("gone", "stays"):
            v.write("at/" + name, b"x" * 200000)
        volume = json.loads(v.sluice("status", v.mountpoint, "--json").stdout)["volume"]["volume"]["id"]
        v.unmount()
        lost = "p/.sluice/o/%s/00/%016x" % (volume[:8], 1 << 40)
        self.second.put(self.bucket, lost, b"lost")
        self.second.delete(self.bucket, "p/gone")

        def run(*arguments):
            return v.sluice(arguments[0], v.url, "--meta-dir", os.path.join(v.directory, "meta"), *arguments[1:], "--json", check=False)

        found = json.loads(run("gc", "--older-than", "0s").stdout)
        self.assertEqual(found["found"]["objects"]["count"], 1, found)
        done = run("gc", "--delete", "--older-than", "0s")
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertIsNone(self.second.head(self.bucket, lost))
        done = run("fsck", "--deep")
        self.assertEqual(done.returncode, 1, done.stdout)
        report = json.loads(done.stdout)["bucket"]
        self.assertEqual([(f["kind"], f["key"]) for f in report["findings"]], [("missing", "/1/p/gone")])
        self.assertEqual(report["bytes_read"], 200000)
        done = run("fsck", "--repair")
        self.assertEqual(done.returncode, 0, done.stdout)
        self.second.stop()
        self.addCleanup(lambda: self.second.process or self.second.start())
        self.assertIn("store two: ", run("fsck", "--bucket").stdout)
        self.second.start()
        v.mount()
        wait_until("the store", lambda: "NOT CONNECTED" not in self.store("list", v.mountpoint).stdout)
        self.assertEqual(os.listdir(v.path("at")), ["stays"])
        self.assertEqual(v.read("at/stays"), b"x" * 200000)

    def test_mounts_without_a_store_that_is_away(self):
        v = self.v
        self.second.put(self.bucket, "a", b"away for a while")
        os.mkdir(v.path("at"))
        v.write("own", b"here")
        self.store("attach", "s3://" + self.bucket, v.path("at"), "--name", "two", *self.options())
        v.unmount()
        self.second.stop()
        self.addCleanup(lambda: self.second.process or self.second.start())
        v.mount()
        self.assertEqual(v.read("own"), b"here")
        with self.assertRaises(OSError):
            v.read("at/a")
        self.assertIn("NOT CONNECTED", self.store("list", v.mountpoint).stdout)
        self.assertIn("store not connected", v.output())
        self.second.start()
        wait_until("the store to be back", lambda: "NOT CONNECTED" not in self.store("list", v.mountpoint).stdout)
        self.assertEqual(v.read("at/a"), b"away for a while")


if __name__ == "__main__":
    unittest.main()
