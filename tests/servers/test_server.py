"""One S3 server (SLUICE_TEST_SERVER: a name of servers.py, or a URL) below a mount, its objects compared with what a client of our own sees."""

import json
import os
import shutil
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "lib")]

from s3_tools import tool  # noqa: E402
from servers import Server  # noqa: E402
from volume import Volume, wait_until  # noqa: E402

MIB = 1 << 20
NAMES = ("plain", "with space", "pl+us", "per%20cent", "\u00fcml\u00e4ut-\u65e5\u672c", "q?#&=;", "quote'\"<>", "~tilde.", "back\\slash")


class OneServer(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = cls.enterClassContext(Server(os.environ["SLUICE_TEST_SERVER"]))

    def volume(self, *options, **more):
        v = Volume(gateway=self.server, options=options, **more)
        self.addCleanup(v.close)
        return v.mount()

    def collected(self, v):
        wait_until("gc", lambda: v.status()["volume"]["drift"]["garbage_objects"] == 0)

    def test_conformance(self):
        """What the server does otherwise than Amazon is said, not judged: the other tests show what it means."""
        self.server.make_bucket("sluice-conformance")
        done = tool("store_conformance", "--probe", "s3://sluice-conformance", "some/prefix/", env=self.server.env())
        for line in done.stdout.decode().splitlines():
            print(line[:300], flush=True)
        self.assertNotIn(done.returncode, (2, -6, -11))

    def test_doctor_and_bench(self):
        v = Volume(gateway=self.server)
        self.addCleanup(v.close)
        print(v.sluice("doctor", v.url).stdout, flush=True)
        rows = v.sluice("bench-store", "--json-lines", "--sizes=4096,5M", "--count=20", "--parallel=2", v.url).stdout
        self.assertEqual([r for r in map(json.loads, [l for l in rows.splitlines() if l[0] == "{"]) if r.get("failed")], [])

    def test_files_are_plain_objects(self):
        v = self.volume()
        os.makedirs(v.path("job/_temporary/deep"))
        bodies = {name: os.urandom(70000) for name in NAMES}
        bodies["empty"], bodies["small"] = b"", b"inline"
        for name, body in bodies.items():
            v.write("job/_temporary/deep/" + name, body)
        os.rename(v.path("job/_temporary/deep"), v.path("job/out dir"))
        v.settle()
        self.assertEqual(v.keys(), sorted("job/out dir/" + name for name in bodies) + ["job/_temporary/"] * ("job/_temporary/" in v.keys()))
        for name, body in bodies.items():
            self.assertTrue(v.object("job/out dir/" + name) == body, name)
        for name in NAMES:  # replaced, and moved once more
            v.write("job/out dir/" + name, name.encode())
        os.rename(v.path("job/out dir"), v.path("a"))
        v.settle()
        self.collected(v)
        for name in NAMES:
            self.assertEqual(v.object("a/" + name), name.encode())
        v.unmount()
        self.assertEqual(v.check_metadata(), "")
        v.mount()
        self.assertEqual(sorted(os.listdir(v.path("a"))), sorted(bodies))

    def test_large_files(self):
        v = self.volume()
        body = bytearray(os.urandom(MIB + 13) * 100)[:100 * MIB + 4711]
        with open(v.path("large"), "wb") as f:
            for at in range(0, len(body), 777777):
                f.write(body[at:at + 777777])
        v.settle()
        self.assertTrue(v.object("large") == body)
        for at in (3, 50 * MIB + 1, 99 * MIB):  # joined with what is there
            body[at:at + 5000] = b"x" * 5000
            with open(v.path("large"), "r+b") as f:
                f.seek(at)
                f.write(b"x" * 5000)
        with open(v.path("large"), "ab") as f:
            f.write(b"end")
        body += b"end"
        v.settle()
        self.assertTrue(v.object("large") == body)
        os.mkdir(v.path("d"))
        os.rename(v.path("large"), v.path("d/moved"))
        v.settle()
        self.assertTrue(v.object("d/moved") == body)
        self.collected(v)
        self.assertEqual(v.keys(), ["d/moved"])
        v.kill()
        v.mount()
        self.assertTrue(v.read("d/moved") == body)

    def test_what_others_put(self):
        v = self.volume()
        for name in NAMES:
            v.put_object("in/" + name, name.encode())
        v.put_object("in/empty", b"")
        v.put_object("in/marker/", b"")
        v.put_object("in/sub/dir/f", b"f")
        self.assertEqual(sorted(os.listdir(v.path("in"))), sorted([*NAMES, "empty", "marker", "sub"]))
        self.assertEqual({name: v.read("in/" + name) for name in NAMES}, {name: name.encode() for name in NAMES})
        self.assertEqual((v.read("in/empty"), os.listdir(v.path("in/marker"))), (b"", []))
        v.put_object("in/plain", b"changed outside")
        v.delete_object("in/pl+us")
        v.refresh()
        self.assertEqual(v.read("in/plain"), b"changed outside")
        self.assertFalse(os.path.exists(v.path("in/pl+us")))
        os.rename(v.path("in"), v.path("now"))
        v.settle()
        self.collected(v)
        self.assertEqual([k for k in v.keys() if k.startswith("in/")], ["in/marker/"])  # stays, it is no file
        self.assertEqual(v.object("now/sub/dir/f"), b"f")
        shutil.rmtree(v.path("now"))
        self.collected(v)
        self.assertEqual(v.keys(), ["in/marker/"])

    def test_a_file_and_a_directory_of_one_name(self):
        v = self.volume()
        v.write("a", b"a" * 50000)
        v.settle()
        os.rename(v.path("a"), v.path("b"))
        os.mkdir(v.path("a"))
        v.write("a/b", b"b" * 50000)
        v.settle()
        self.collected(v)
        self.assertEqual(v.keys(), ["a/b", "b"])
        self.assertEqual((v.object("a/b"), v.object("b")), (b"b" * 50000, b"a" * 50000))

    def test_many_objects(self):
        v = self.volume()
        for i in range(2100):
            v.put_object("many/k%04d" % i, b"x")
        self.assertEqual(len(os.listdir(v.path("many"))), 2100)
        shutil.rmtree(v.path("many"))
        self.collected(v)
        self.assertEqual(v.keys(), [])

    def test_both_are_kept(self):
        v = self.volume(settle_delay="1h")
        os.mkdir(v.path("d"))
        large = b"ours" * (3 * MIB)
        for name, body in (("small", b"ours"), ("large", large)):
            with open(v.path("d/" + name), "wb") as f:
                f.write(body)
                v.put_object("d/" + name, b"theirs")
        v.settle()
        self.check_kept(v, {"small": b"ours", "large": large})
        for name in ("small", "large"):  # what is ours is replaced only if it is still ours
            v.write("d/again-" + name, b"first" * 20000)
        v.settle()
        for name, body in (("again-small", b"second"), ("again-large", large)):
            v.write("d/" + name, body)
            v.put_object("d/" + name, b"theirs")
        v.settle()
        self.check_kept(v, {"again-small": b"second", "again-large": large})

    def check_kept(self, v, ours):
        for name, body in ours.items():
            self.assertEqual(v.object("d/" + name), b"theirs")
            beside = [n for n in os.listdir(v.path("d")) if n.startswith(name + ".sluice-conflict-")]
            self.assertEqual(len(beside), 1, os.listdir(v.path("d")))
            self.assertTrue(v.read("d/" + beside[0]) == body)

    def test_the_bucket_alone_is_enough(self):
        v = self.volume()
        os.mkdir(v.path("d"))
        v.write("d/file", b"f" * 100000)
        v.write("d/large", b"l" * (9 * MIB))
        os.chmod(v.path("d/file"), 0o640)
        os.chown(v.path("d/file"), 1234, 5678)
        v.settle()
        v.unmount()
        done = v.sluice("fsck", v.url, "--meta-dir", os.path.join(v.directory, "meta"), "--bucket", check=False)
        self.assertEqual(done.returncode, 0, done.stdout)
        done = v.sluice("gc", v.url, "--meta-dir", os.path.join(v.directory, "meta"), "--older-than", "0s", "--json", check=False)
        self.assertEqual(done.returncode, 0, done.stdout)
        shutil.rmtree(os.path.join(v.directory, "meta"))
        print(v.sluice("rebuild", v.url, "--meta-dir", os.path.join(v.directory, "meta"), "--json").stdout, flush=True)
        v.mount()
        stat = os.stat(v.path("d/file"))
        self.assertEqual((stat.st_mode & 0o7777, stat.st_uid, stat.st_gid), (0o640, 1234, 5678))
        self.assertTrue(v.read("d/large") == b"l" * (9 * MIB))


if __name__ == "__main__":
    unittest.main()
