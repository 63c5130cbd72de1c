"""A mount on a server that ignores If-Match and If-None-Match (a proxy takes them away): docs/open-layout.md, "Weaker stores"."""

import errno
import os
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "lib"), os.path.join(HERE, "..", "tools")]
from fault_proxy import FaultProxy
from gateway import Gateway
from volume import Volume, wait_until

LARGE = bytes(range(256)) * 4 * 9000  # 9 MB: an upload in parts


class WeakStore(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = cls.enterClassContext(Gateway())

    def start(self, rules=({"action": "strip"},), **more):
        proxy = FaultProxy(self.gateway.host, self.gateway.port)
        self.addCleanup(proxy.close)
        proxy.rules(list(rules))
        v = Volume(gateway=self.gateway, **more)
        v.env["AWS_ENDPOINT_URL_S3"] = proxy.endpoint
        self.addCleanup(v.close)
        return v.mount()

    def put(self, v, key, body):
        self.gateway.put(v.bucket, key, body)

    def get(self, v, key):
        return self.gateway.get(v.bucket, key)

    def test_a_server_that_refuses_what_it_does_not_know(self):
        """Conditions on writes and deletes, and checksums, answered with 501: they are left out."""
        refuse = {"action": "status", "status": 501, "code": "NotImplemented"}
        v = self.start([dict(refuse, method="PUT", **{"with": "if-"}), dict(refuse, method="POST", **{"with": "if-"}),
                        dict(refuse, method="DELETE", **{"with": "if-"}), dict(refuse, **{"with": "x-amz-checksum-"})])
        self.check_settled(v)
        self.assertEqual(v.read("done/large"), LARGE)

    def test_settled_files_are_plain_objects(self):
        self.check_settled(self.start())

    def check_settled(self, v):
        with open(v.log) as log:
            self.assertIn("put-if-none-match", log.read())
        os.makedirs(v.path("job/_temporary"))
        v.write("job/_temporary/large", LARGE)
        v.write("job/_temporary/small", b"s" * 100)
        os.rename(v.path("job/_temporary/large"), v.path("job/large"))
        os.rename(v.path("job/_temporary/small"), v.path("job/small"))
        v.settle()
        self.assertEqual(self.get(v, "job/large"), LARGE)
        self.assertEqual(self.get(v, "job/small"), b"s" * 100)
        v.write("job/small", b"again")  # replaces what is ours
        os.rename(v.path("job"), v.path("done"))
        v.settle()
        self.assertEqual((self.get(v, "done/large"), self.get(v, "done/small")), (LARGE, b"again"))
        wait_until("old objects to go", lambda: v.status()["volume"]["drift"]["garbage_objects"] == 0)
        self.assertEqual(sorted(k for k in self.gateway.list(v.bucket) if not k.startswith(".sluice/")), ["done/large", "done/small"])
        v.unmount()
        self.assertEqual(v.check_metadata(), "")
        v.mount()

    def test_what_others_have_put_stays(self):
        v = self.start(settle_delay="1h")
        os.mkdir(v.path("d"))
        for name, body in (("small", b"ours"), ("large", LARGE)):
            with open(v.path("d/" + name), "wb") as f:
                f.write(body)
                self.put(v, "d/" + name, b"theirs")  # before ours comes there
        v.settle()
        for name, body in (("small", b"ours"), ("large", LARGE)):
            self.assertEqual(self.get(v, "d/" + name), b"theirs")
            beside = [n for n in os.listdir(v.path("d")) if n.startswith(name + ".sluice-conflict-")]
            self.assertEqual(len(beside), 1, os.listdir(v.path("d")))
            self.assertEqual(v.read("d/" + beside[0]), body)

    def test_gc_leaves_what_others_put(self):
        v = self.start()
        os.mkdir(v.path("d"))
        v.write("d/f", b"ours" * 10000)
        v.settle()
        self.put(v, "d/f", b"theirs")
        os.unlink(v.path("d/f"))
        wait_until("gc", lambda: v.status()["volume"]["gc"]["left_to_others"] == 1)
        self.assertEqual(self.get(v, "d/f"), b"theirs")

    def test_a_reader_gets_no_mixture(self):
        v = self.start()
        first, second = b"1" * (4 << 20), b"2" * (4 << 20)
        self.put(v, "f", first)
        with open(v.path("f"), "rb", buffering=0) as f:
            self.assertEqual(f.read(1000), first[:1000])
            self.put(v, "f", second)
            try:
                rest = f.read(3 << 20)
                self.assertEqual(len(set(rest)), 1)
            except OSError as e:
                self.assertEqual(e.errno, 116)  # ESTALE
        v.refresh()
        self.assertEqual(v.read("f"), second)

    def test_an_object_that_became_shorter_is_found_out(self):
        v = self.start(options=["--no-cache"])
        self.put(v, "k", LARGE)
        with open(v.path("k"), "rb", buffering=0) as f:
            self.assertEqual(os.pread(f.fileno(), 10, 0), LARGE[:10])
            self.put(v, "k", b"short")
            with self.assertRaises(OSError) as caught:
                os.pread(f.fileno(), 10, 8 << 20)
            self.assertEqual(caught.exception.errno, errno.ESTALE)
        self.assertEqual(v.read("k"), b"short")

    def test_a_second_owner_is_refused(self):
        v = self.start()
        other = Volume(gateway=self.gateway, bucket=v.bucket, env=None)
        other.env["AWS_ENDPOINT_URL_S3"] = v.env["AWS_ENDPOINT_URL_S3"]
        self.addCleanup(other.close)
        code, said = other.mount_fails()
        self.assertEqual(code, 1)
        self.assertIn("the prefix belongs to", said)


if __name__ == "__main__":
    unittest.main()
