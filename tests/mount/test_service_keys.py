"""Keys of the bucket that stay with the service: mounts without any, that get keys for a day."""

import errno
import json
import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from gateway import Gateway
from service import Service, ServiceVolume
from volume import wait_until

BIG = os.urandom(3 << 20)


class Keys(unittest.TestCase):
    def setUp(self):
        self.gateway = Gateway()
        self.addCleanup(self.gateway.close)
        self.gateway.start()
        self.gateway.make_bucket("bucket")
        profiles = os.path.join(self.gateway.directory, "profiles")
        with open(profiles, "w") as f:
            f.write("[reader]\naws_access_key_id=%s\naws_secret_access_key=%s\n"
                    % (self.gateway.access, self.gateway.secret))
        env = dict(self.gateway.env(), AWS_SHARED_CREDENTIALS_FILE=profiles)
        self.service = Service(env=env, options=["--lease", "60s", "--audit", os.path.join(self.gateway.directory, "audit")])
        self.addCleanup(self.service.close)
        self.service.start()

    def create(self, *options):
        self.service.volume("create", "v", "s3://bucket/data", "endpoint=" + self.gateway.endpoint, "settle-delay=200ms",
                            "gc-delay=500ms", "inline-max=4K", *options)

    def token(self, *options):
        return self.service.volume("token", "create", "v", *options).stdout.strip()

    def volume(self, token=None, options=(), directory=""):
        """A mount that finds no credentials anywhere."""
        v = ServiceVolume(service=self.service, name="v" + directory, options=options)
        v.env = {k: w for k, w in os.environ.items() if not k.startswith("AWS_")}
        v.env.update(AWS_EC2_METADATA_DISABLED="true", AWS_CONFIG_FILE="/dev/null",
                     AWS_SHARED_CREDENTIALS_FILE="/dev/null", **({"SLUICE_TOKEN": token} if token else {}))
        self.addCleanup(v.close)
        return v

    def audited(self):
        with open(os.path.join(self.gateway.directory, "audit")) as f:
            return [r for r in map(json.loads, f) if r["event"] == "keys"]

    def test_mount_without_credentials(self):
        self.create("credentials=service")
        a, b = self.volume(), self.volume()
        a.mount()
        a.write("f", BIG)
        wait_until("the object", lambda: self.gateway.head("bucket", "data/f"))
        self.assertEqual(self.gateway.get("bucket", "data/f"), BIG)
        b.mount()
        self.assertEqual(b.read("f"), BIG)
        self.assertEqual(len(self.audited()), 2)
        # The secret itself is with the service alone.
        with open("/proc/%d/environ" % b.process.pid, "rb") as f:
            self.assertNotIn(self.gateway.secret.encode(), f.read())
        for place in (a.output(), b.output(), self.service.output(whole=True)):
            self.assertNotIn(self.gateway.secret, place)

    def test_only_if_the_volume_says_so(self):
        self.create()
        code, text = self.volume().mount_fails()
        self.assertEqual((code, "no credentials" in text), (1, True), text)
        self.assertEqual(self.audited(), [])
        self.service.volume("set", "v", "credentials=service")
        self.volume().mount()
        for bad in (["credentials=all"], ["keys-lifetime=1s"], ["credentials=", "reader-profile=reader"]):
            done = self.service.volume("set", "v", *bad, check=False)
            self.assertEqual(done.returncode, 1, done.stdout)
        done = self.service.volume("create", "f", "file:///tmp", "credentials=service", check=False)
        self.assertEqual((done.returncode, "only S3" in done.stdout), (1, True), done.stdout)

    def test_renewed_as_long_as_the_token_is_good(self):
        self.create("credentials=service", "keys-lifetime=2s")
        token = self.token()
        v = self.volume(token, options=["--no-cache", "--deadline", "2s"])
        v.mount()
        v.write("f", BIG)
        wait_until("the object", lambda: self.gateway.head("bucket", "data/f"))
        fd = os.open(v.path("f"), os.O_RDONLY)
        self.addCleanup(os.close, fd)

        def read():
            """From the bucket."""
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            self.assertEqual(os.pread(fd, 4096, 1 << 20), BIG[1 << 20:(1 << 20) + 4096])
            return len(self.audited())

        count = read()
        wait_until("renewals", lambda: read() >= count + 3)
        # The service away, and back: they are asked for again.
        self.service.stop()
        self.service.start()
        count = len(self.audited())
        wait_until("a renewal after a restart", lambda: read() > count)
        # Taken back: no new ones, and those of before end.
        self.service.volume("token", "revoke", "v", token.split("_")[1])
        count = len(self.audited())

        def is_out():
            try:
                read()
            except OSError:
                return True
            return False

        wait_until("the end of the keys", is_out)
        self.assertEqual(len(self.audited()), count)

    def test_rights(self):
        self.create("credentials=service")
        writer = self.volume(self.token())
        writer.mount()
        os.mkdir(writer.path("d"))
        writer.write("f", BIG)
        read = self.token("--rights", "read")
        code, text = self.volume(read, options=["--read-only"]).mount_fails()
        self.assertEqual((code, "reader-profile" in text), (1, True), text)
        code, text = self.volume(self.token("--path", "/d")).mount_fails()
        self.assertEqual((code, "a token for a directory gets no keys" in text), (1, True), text)
        writer.unmount()
        self.service.volume("set", "v", "reader-profile=reader")
        reader = self.volume(read, options=["--read-only"])
        reader.mount()
        self.assertEqual(reader.read("f"), BIG)
        with self.assertRaises(OSError) as caught:
            reader.write("g", b"")
        self.assertEqual(caught.exception.errno, errno.EROFS)


if __name__ == "__main__":
    unittest.main()
