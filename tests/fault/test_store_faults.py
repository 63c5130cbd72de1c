"""A store that fails between a mount and the real S3 server: success after retries, or EIO with the cause in the log; never wrong bytes, nothing acknowledged lost."""

import errno
import os
import re
import subprocess
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
sys.path.insert(0, os.path.join(HERE, "..", "tools"))
from fault_proxy import FaultProxy
from gateway import Gateway
from volume import Volume, wait_until

OBJECT = r"^/[^/?]+/(?!\.sluice/)[^?]"  # a request for a file's own key
PARTS = r"partNumber="


class StoreFaults(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = cls.enterClassContext(Gateway())
        cls.proxy = cls.enterClassContext(FaultProxy(cls.gateway.host, cls.gateway.port))

    def setUp(self):
        self.proxy.rules([])

    def tearDown(self):
        self.proxy.rules([])

    def start(self, *options, objects=None):
        v = Volume(gateway=self.gateway, options=["--deadline", "20s", *options], settle_delay="1h")
        self.addCleanup(v.close)
        v.env["AWS_ENDPOINT_URL_S3"] = self.proxy.endpoint
        for key, data in (objects or {}).items():
            v.put_object(key, data)
        return v.mount()

    def hits(self):
        return sum(self.proxy.stats()["hits"])

    def metrics(self, v):
        return v.ask(op="metrics")["text"]

    # Reads.
    def read_through(self, *rules, size=3 << 20, options=()):
        data = os.urandom(size)
        v = self.start(*options, objects={"f": data})
        self.proxy.rules(list(rules))
        self.assertTrue(v.read("f") == data, "wrong bytes")
        self.assertGreater(self.hits(), 0)

    def test_read_through_500(self):
        self.read_through({"action": "status", "status": 500, "method": "GET", "path": OBJECT, "count": 3})

    def test_read_through_503_slow_down(self):
        self.read_through({"action": "status", "status": 503, "code": "SlowDown", "retry_after": 1, "method": "GET", "path": OBJECT, "count": 2})

    def test_read_through_reset_in_the_body(self):
        self.read_through({"action": "reset_body", "after": 70000, "method": "GET", "path": OBJECT, "count": 2})

    def test_read_through_truncated_body(self):
        self.read_through({"action": "truncate", "after": 100, "method": "GET", "path": OBJECT, "count": 2})

    def test_read_through_reset_before_an_answer(self):
        self.read_through({"action": "reset", "method": "GET", "path": OBJECT, "count": 2})

    def test_read_through_html(self):
        self.read_through({"action": "html", "status": 502, "method": "GET", "path": OBJECT, "count": 2})

    def test_read_through_a_slow_trickle(self):
        self.read_through({"action": "trickle", "bytes_per_s": 2000, "after": 1000, "method": "GET", "path": OBJECT, "count": 1}, size=200000)

    def test_read_of_a_store_that_stays_broken_is_eio_with_a_cause(self):
        v = self.start("--deadline", "2s", objects={"f": b"x" * 100000})
        os.stat(v.path("f"))
        self.proxy.rules([{"action": "status", "status": 500, "code": "InternalError", "method": "GET", "path": OBJECT}])
        with self.assertRaises(OSError) as caught:
            v.read("f")
        self.assertEqual(caught.exception.errno, errno.EIO)
        self.assertIn("InternalError", v.output())
        self.proxy.rules([])
        self.assertEqual(v.read("f"), b"x" * 100000)

    def test_wrong_etag_never_gives_mixed_bytes(self):
        v = self.start(objects={"f": b"a" * 500000})
        os.stat(v.path("f"))
        self.proxy.rules([{"action": "status", "status": 412, "code": "PreconditionFailed", "method": "GET", "path": OBJECT, "count": 1}])
        try:
            self.assertEqual(v.read("f"), b"a" * 500000)
        except OSError as e:
            self.assertIn(e.errno, (errno.ESTALE, errno.EIO))
        self.proxy.rules([])
        self.assertEqual(v.read("f"), b"a" * 500000)

    # Writes.
    def write_through(self, *rules, size=20 << 20):
        v = self.start()
        self.proxy.rules(list(rules))
        data = os.urandom(size)
        v.write("f", data)
        self.assertGreater(self.hits(), 0)
        self.proxy.rules([])
        self.assertTrue(v.read("f") == data, "wrong bytes")
        v.settle()
        self.assertTrue(v.object("f") == data, "wrong bytes in the bucket")
        self.assertEqual(self.gateway.uploads(v.bucket), [])

    def test_parts_through_500(self):
        self.write_through({"action": "status", "status": 500, "method": "PUT", "path": PARTS, "count": 2})

    def test_writers_that_wait_for_the_store_hold_no_thread(self):
        v = self.start("--max-threads", "1", "--transport", "classic", "--staging-max", "64MiB", "--deadline", "600s")
        self.proxy.rules([{"action": "hang", "method": "PUT", "path": PARTS}])
        code = "import sys\nf = open(sys.argv[1], 'wb', buffering=0)\nfor _ in range(72): f.write(bytes(1 << 20))\nf.close()"
        writers = [subprocess.Popen([sys.executable, "-c", code, v.path("f%d" % i)]) for i in range(2)]
        try:
            # Each has more than there is room for. What follows are answers of the one thread, while both wait.
            waits = re.compile(r"sluice_data_write_waits_total (\d+)")
            wait_until("both to wait", lambda: int(waits.search(self.metrics(v))[1]) >= 2)
            with self.assertRaises(FileNotFoundError):
                os.stat(v.path("nothing"))
            os.mkdir(v.path("d"))
            self.assertEqual([w.poll() for w in writers], [None, None])
            self.proxy.rules([])
            self.assertEqual([w.wait(120) for w in writers], [0, 0])
        finally:
            for w in writers:
                w.kill()
                w.wait(120)
        for i in range(2):
            self.assertTrue(v.read("f%d" % i) == bytes(72 << 20), "wrong bytes")

    def test_parts_through_resets(self):
        self.write_through({"action": "reset", "method": "PUT", "path": PARTS, "count": 2})

    def test_parts_through_lost_replies(self):
        self.write_through({"action": "lost_reply", "method": "PUT", "path": PARTS, "count": 2})

    def test_parts_through_corruption_on_the_way(self):
        self.write_through({"action": "corrupt_upload", "at": 5000, "method": "PUT", "path": PARTS, "count": 1})

    def test_complete_through_a_lost_reply(self):
        self.write_through({"action": "lost_reply", "method": "POST", "path": r"uploadId=", "count": 1})

    def test_complete_through_503(self):
        self.write_through({"action": "status", "status": 503, "method": "POST", "path": r"uploadId=", "count": 2})

    def test_create_through_a_lost_reply(self):
        v = self.start()
        self.proxy.rules([{"action": "lost_reply", "method": "POST", "path": r"\?uploads", "count": 1}])
        data = os.urandom(20 << 20)
        v.write("f", data)
        self.assertEqual(self.hits(), 1)
        self.assertTrue(v.read("f") == data, "wrong bytes")

    def test_put_through_a_lost_reply(self):
        self.write_through({"action": "lost_reply", "method": "PUT", "path": OBJECT, "count": 1}, size=500000)

    def test_put_through_500(self):
        self.write_through({"action": "status", "status": 500, "method": "PUT", "path": OBJECT, "count": 2}, size=500000)

    def test_settle_through_faults(self):
        v = self.start()
        for i in range(20):
            v.write("s%d" % i, b"%d" % i)
        v.write("big", os.urandom(6 << 20))
        os.rename(v.path("big"), v.path("moved"))
        self.proxy.rules([
            {"action": "lost_reply", "method": "PUT", "count": 3},
            {"action": "status", "status": 503, "count": 3},
            {"action": "lost_reply", "method": "POST", "count": 2},
            {"action": "reset", "method": "HEAD", "count": 2},
        ])
        v.settle()
        self.proxy.rules([])
        for i in range(20):
            self.assertEqual(v.object("s%d" % i), b"%d" % i)
        self.assertTrue(v.object("moved") == v.read("moved"))

    def test_settle_through_copies_that_fail_behind_a_good_status(self):
        v = self.start()
        body = "<?xml version=\"1.0\"?>\n<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>"
        failed = {"action": "reply", "status": 200, "body": body, "count": 1}
        data = os.urandom(6 << 20)
        os.makedirs(v.path("_temporary"))
        v.write("_temporary/f", data)
        os.rename(v.path("_temporary/f"), v.path("f"))  # UploadPartCopy and CompleteMultipartUpload
        self.proxy.rules([dict(failed, method="PUT", path=PARTS), dict(failed, method="POST", path=r"uploadId=")])
        v.settle()
        self.assertEqual(self.proxy.stats()["hits"], [1, 1])
        self.assertTrue(v.object("f") == data, "wrong bytes in the bucket")
        os.rename(v.path("f"), v.path("_temporary/f"))  # CopyObject
        self.proxy.rules([dict(failed, method="PUT", path=r"\.sluice/o/")])
        v.settle()
        self.assertEqual(self.proxy.stats()["hits"], [1])
        self.proxy.rules([])
        self.assertTrue(v.read("_temporary/f") == data, "wrong bytes")
        self.assertEqual(self.gateway.uploads(v.bucket), [])

    def test_gc_tries_again_what_a_good_status_says_was_not_deleted(self):
        v = self.start()
        os.makedirs(v.path("_temporary"))
        v.write("_temporary/f", os.urandom(100000))
        (key,) = [k for k in self.gateway.list(v.bucket) if k.startswith(".sluice/o/")]
        body = ("<?xml version=\"1.0\"?>\n<DeleteResult><Error><Key>%s</Key><Code>InternalError</Code><Message>We encountered an internal error."
                "</Message></Error></DeleteResult>" % key)
        self.proxy.rules([{"action": "reply", "status": 200, "body": body, "count": 1, "method": "POST", "path": r"\?delete"}])
        os.unlink(v.path("_temporary/f"))
        wait_until("the first try", lambda: v.status()["volume"]["gc"]["failed"] == 1)
        self.assertEqual(self.hits(), 1)
        wait_until("the second", lambda: self.gateway.head(v.bucket, key) is None)

    def test_close_fails_when_the_store_stays_broken_and_nothing_is_lost(self):
        v = self.start("--deadline", "2s")
        data = os.urandom(3 << 20)
        self.proxy.rules([{"action": "status", "status": 500, "code": "InternalError", "method": "PUT"},
                          {"action": "status", "status": 500, "code": "InternalError", "method": "POST"}])
        fd = os.open(v.path("f"), os.O_CREAT | os.O_WRONLY)
        os.write(fd, data)
        with self.assertRaises(OSError) as caught:
            os.fsync(fd)
        self.assertEqual(caught.exception.errno, errno.EIO)
        self.assertIn("InternalError", v.output())
        self.assertTrue(v.read("f") == data, "not readable while it waits")
        self.proxy.rules([])
        os.fsync(fd)
        os.close(fd)
        v.settle()
        self.assertTrue(v.object("f") == data)

    def test_expired_credentials_are_an_error_that_says_so(self):
        v = self.start("--deadline", "2s", objects={"f": b"x" * 1000})
        os.stat(v.path("f"))
        self.proxy.rules([{"action": "status", "status": 403, "code": "ExpiredToken", "message": "The provided token has expired."}])
        with self.assertRaises(OSError):
            v.read("f")
        self.assertIn("ExpiredToken", v.output())
        self.proxy.rules([])
        self.assertEqual(v.read("f"), b"x" * 1000)

    def test_store_away_and_back(self):
        """In a directory made here every name is known: only bytes of objects need the store."""
        v = self.start("--deadline", "60s")
        os.mkdir(v.path("d"))
        v.write("d/before", b"b" * 300000)
        self.gateway.stop()
        try:
            v.write("d/small", b"inline needs no store")
            self.assertEqual(v.read("d/small"), b"inline needs no store")
            os.rename(v.path("d/before"), v.path("d/after"))
        finally:
            self.gateway.start()
        self.assertEqual(v.read("d/after"), b"b" * 300000)
        v.settle()
        self.assertEqual(v.object("d/small"), b"inline needs no store")

    # Start.
    def mount_fails(self, *options, rules=(), url=None, env=None):
        v = Volume(gateway=self.gateway, options=["--deadline", "2s", *options])
        self.addCleanup(v.close)
        v.env["AWS_ENDPOINT_URL_S3"] = self.proxy.endpoint
        v.env.update(env or {})
        if url:
            v.url = url
        self.proxy.rules(list(rules))
        code, text = v.mount_fails()
        self.assertNotEqual(code, 0)
        self.assertEqual(len([l for l in text.splitlines() if l.startswith("sluice")]), 1, text)
        return text

    def test_mount_of_no_bucket(self):
        self.assertIn("NoSuchBucket", self.mount_fails(url="s3://there-is-none"))

    def test_mount_with_a_wrong_key(self):
        self.assertRegex(self.mount_fails(env={"AWS_SECRET_ACCESS_KEY": "wrong"}), "SignatureDoesNotMatch|403|refused|denied")

    def test_mount_of_a_web_server(self):
        self.assertRegex(self.mount_fails(rules=[{"action": "html", "status": 200}]), "(?i)html|XML|not .*S3|answer|reply")

    def test_mount_of_nothing_that_listens(self):
        self.assertRegex(self.mount_fails("--endpoint", "http://127.0.0.1:9"), "(?i)connect|refused")


if __name__ == "__main__":
    unittest.main()
