"""Other stores of a volume of a service: every mount reads and writes them with credentials of its own; a migration
under fio and through kill -9 of the service and of a mount."""

import json
import os
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import gateway  # noqa: E402
from service import ServiceVolume  # noqa: E402
from volume import WAIT_S, wait_until  # noqa: E402


class ServiceStores(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.first = cls.enterClassContext(gateway.Gateway())
        cls.second = cls.enterClassContext(
            gateway.Gateway(access="secondaccess", secret="secondsecretsecret", region="eu-central-1"))

    def setUp(self):
        self.a = ServiceVolume(gateway=self.first)
        self.addCleanup(self.a.close)
        profile = os.path.join(self.a.service.directory, "credentials")
        with open(profile, "w") as f:
            f.write("[second]\naws_access_key_id = %s\naws_secret_access_key = %s\n" % (self.second.access, self.second.secret))
        self.profile = {"AWS_SHARED_CREDENTIALS_FILE": profile}
        self.a.service.env.update(self.profile)
        self.a.service.stop()
        self.a.service.start()
        self.a.env.update(self.profile)
        self.a.mount()
        self.b = self.another()
        self.bucket = "s" + self.a.bucket[1:]
        self.second.make_bucket(self.bucket)

    def another(self, profile=True):
        b = ServiceVolume(service=self.a.service, gateway=self.first, bucket=self.a.bucket)
        self.addCleanup(b.close)
        b.env.update(self.profile if profile else {"AWS_SHARED_CREDENTIALS_FILE": "/dev/null"})
        b.mount()
        return b

    def store(self, volume, *arguments, check=True):
        done = volume.sluice("store", *arguments, check=False)
        if check and done.returncode != 0:
            raise AssertionError("store %s: %s\n%s\n%s" % (
                " ".join(arguments), done.stdout, volume.output(), self.a.service.output()))
        return done

    def options(self):
        return ("--profile", "second", "--endpoint", self.second.endpoint, "--region", self.second.region)

    def listed(self, volume):
        return json.loads(self.store(volume, "list", volume.mountpoint, "--json").stdout)

    def keys_of_second(self):
        return sorted(k for k in self.second.list(self.bucket) if "/.sluice/" not in "/" + k)

    def test_attached_on_one_mount_used_on_all(self):
        a, b = self.a, self.b
        self.second.put(self.bucket, "old/a", b"from the second")
        os.mkdir(a.path("at"))
        self.store(a, "attach", "s3://%s/old" % self.bucket, a.path("at"), "--name", "two", *self.options())
        self.assertEqual(b.read("at/a"), b"from the second")
        b.write("at/big", b"b" * 300000)
        self.assertEqual(a.read("at/big"), b"b" * 300000)
        self.assertEqual(self.second.get(self.bucket, "old/big"), b"b" * 300000)
        a.write("mine", b"m" * 200000)
        os.rename(a.path("mine"), a.path("at/mine"))
        b.settle()
        self.assertEqual(self.second.get(self.bucket, "old/mine"), b"m" * 200000)
        self.assertEqual(b.read("at/mine"), b"m" * 200000)
        self.assertEqual(os.getxattr(b.path("at/mine"), "user.sluice.store"), b"two")

        # Of a mount without the credentials only what is there fails, and it says why.
        c = self.another(profile=False)
        c.write("own", b"o" * 200000)
        self.assertEqual(a.read("own"), b"o" * 200000)
        with self.assertRaises(OSError):
            c.read("at/big")
        self.assertIn("NOT CONNECTED: from this mount:", self.store(c, "list", c.mountpoint).stdout)
        self.assertNotIn("NOT CONNECTED", self.store(a, "list", a.mountpoint).stdout)

        # Both ends come back to it.
        a.service.kill()
        a.service.start()
        self.assertEqual(a.read("at/mine"), b"m" * 200000)
        b.kill()
        b.mount()
        self.assertEqual(b.read("at/a"), b"from the second")

        self.store(b, "detach", "two", b.mountpoint)
        self.assertEqual(os.listdir(a.path("at")), [])
        self.assertEqual(self.keys_of_second(), ["old/a", "old/big", "old/mine"])
        self.assertEqual([s["name"] for s in self.listed(a)["stores"]], ["main"])

    def test_a_number_means_another_store_later(self):
        a, b = self.a, self.b
        other = "o" + self.bucket[1:]
        self.second.make_bucket(other)
        self.second.put(self.bucket, "f", b"x" * 1000)
        self.second.put(other, "f", b"y" * 1000)
        os.mkdir(a.path("at"))
        self.store(a, "attach", "s3://" + self.bucket, a.path("at"), "--name", "x", *self.options())
        self.assertEqual(b.read("at/f"), b"x" * 1000)
        self.store(a, "detach", "x", a.mountpoint)
        self.store(a, "attach", "s3://" + other, a.path("at"), "--name", "y", *self.options())
        self.assertEqual(b.read("at/f"), b"y" * 1000)
        b.write("at/g", b"g" * 300000)
        self.assertEqual(self.second.get(other, "g"), b"g" * 300000)
        self.assertIsNone(self.second.head(self.bucket, "g"))

    def test_refused(self):
        a = self.a
        os.mkdir(a.path("d"))
        done = self.store(a, "attach", "file://" + a.directory, a.path("d"), check=False)
        self.assertIn("only root or the service's user", done.stdout)
        done = self.store(a, "attach", "s3://no-such-bucket-here", a.path("d"), *self.options(), check=False)
        self.assertEqual(done.returncode, 1)
        writer = a.service.volume("token", "create", "v", "--rights", "write", check=False)
        self.assertEqual(writer.returncode, 0, writer.stdout)
        token = next(w for w in writer.stdout.split() if w.startswith("slc_") or len(w) > 40)
        c = ServiceVolume(service=a.service, gateway=self.first, bucket=a.bucket)
        self.addCleanup(c.close)
        c.env.update(self.profile, SLUICE_TOKEN=token)
        c.mount()
        done = self.store(c, "add", "s3://" + self.bucket, c.mountpoint, *self.options(), check=False)
        self.assertIn("the token of this mount is not for that", done.stdout)
        self.assertEqual([s["name"] for s in self.listed(c)["stores"]], ["main"])

    def test_migrates_under_fio_and_kills(self):
        a, b = self.a, self.b
        model = {"data/f%02d" % i: os.urandom(1000 * i * i) for i in range(20)}
        os.mkdir(a.path("data"))
        for path, data in model.items():
            a.write(path, data)
        a.settle()
        self.store(a, "add", "s3://" + self.bucket, a.mountpoint, "--name", "new", *self.options())
        fio = subprocess.Popen(
            ["fio", "--name=v", "--filename=" + a.path("data/fio"), "--size=8M", "--rw=randwrite", "--bsrange=4k-128k",
             "--verify=crc32c", "--verify_backlog=64", "--loops=3", "--rate=4m", "--fsync=40", "--randseed=7"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=a.directory)
        try:
            wait_until("fio to write", lambda: os.path.exists(a.path("data/fio")) and os.path.getsize(a.path("data/fio")))
            b.sluice("migrate", b.mountpoint, "--to", "new")
            wait_until("a part of it to be moved", lambda: self.keys_of_second())
            a.service.kill()
            a.service.start()
            b.kill()
            b.mount()
            said = fio.communicate(timeout=WAIT_S * 2)[0]
        finally:
            fio.kill()
            fio.wait()
        self.assertEqual(fio.returncode, 0, said)
        b.sluice("migrate", b.mountpoint, "--wait")
        model["data/fio"] = a.read("data/fio")
        for path, data in model.items():
            self.assertEqual(self.second.get(self.bucket, path), data, path)
            self.assertEqual(b.read(path), data, path)
        self.assertEqual(self.keys_of_second(), sorted(model))


if __name__ == "__main__":
    unittest.main()
