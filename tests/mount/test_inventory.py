"""`sluice import --inventory`: names from an inventory that lies in a bucket, through kills. On a real S3 server."""

import gzip
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import unittest
import urllib.parse

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import crash_points
from gateway import Gateway
from service import ServiceVolume
from volume import WAIT_S, Volume, binary

KEYS = ["top", "a/b/c", "a/b/d e", "a/+x", "z/last"] + [f"many/{i:03}" for i in range(40)]


class Inventory(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = cls.enterClassContext(Gateway())

    def setUp(self):
        self.v = Volume(gateway=self.gateway)
        self.addCleanup(self.v.close)
        self.bucket = self.v.bucket
        for key in KEYS:
            self.gateway.put(self.bucket, key, key.encode())
        self.reports = self.bucket + "-reports"
        self.gateway.make_bucket(self.reports)

    def publish(self, keys=KEYS, damage=b""):
        """The inventory of the bucket as it is now, in two files. Returns the manifest's URL."""
        files = []
        for i, part in enumerate((keys[1::2], keys[0::2])):
            rows = []
            for key in part:
                body = self.gateway.get(self.bucket, key)
                rows.append(f'"{self.bucket}","{urllib.parse.quote_plus(key)}","{len(body)}",'
                            f'"2026-11-20T10:11:12.000Z","{hashlib.md5(body).hexdigest()}"\n')
            data = gzip.compress("".join(rows).encode())
            key = f"all/data/{i}.csv.gz"
            self.gateway.put(self.reports, key, data + damage)
            files.append({"key": key, "size": len(data), "MD5checksum": hashlib.md5(data).hexdigest()})
        manifest = {"sourceBucket": self.bucket, "destinationBucket": "arn:aws:s3:::" + self.reports, "version": "2016-11-30",
                    "creationTimestamp": str(int(time.time() * 1000)), "fileFormat": "CSV",
                    "fileSchema": "Bucket, Key, Size, LastModifiedDate, ETag", "files": files}
        self.gateway.put(self.reports, "all/2026-11-20T00-00Z/manifest.json", json.dumps(manifest).encode())
        return f"s3://{self.reports}/all/2026-11-20T00-00Z/manifest.json"

    def run_import(self, url, **env):
        return subprocess.run(
            [binary(), "import", self.v.url, "--inventory", url, "--meta-dir", os.path.join(self.v.directory, "meta"), "--json"],
            env=dict(self.v.env, **env), stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=WAIT_S)

    def found(self, v):
        found = []
        for root, directories, files in os.walk(v.mountpoint):
            if root == v.mountpoint and ".sluice" in directories:
                directories.remove(".sluice")
            found += [os.path.relpath(os.path.join(root, name), v.mountpoint) for name in files]
        return sorted(found)

    def check_names(self):
        self.v.mount("--import-ttl", "1d")
        before = self.v.status()["volume"]["import"]
        self.assertEqual(self.found(self.v), sorted(KEYS))
        for key in KEYS:
            self.assertEqual(self.v.read(key), key.encode())
        self.assertEqual(self.v.status()["volume"]["import"]["listed_directories"], before["listed_directories"])

    def test_names_without_a_listing(self):
        done = self.run_import(self.publish())
        self.assertEqual(done.returncode, 0, done.stderr)
        said = json.loads(done.stdout)
        self.assertEqual((said["rows"], said["files"], said["listed_directories"]), (len(KEYS), len(KEYS), 5))
        self.check_names()
        # It is a volume like any other, and `refresh` sees what came later.
        self.gateway.put(self.bucket, "a/later", b"l")
        self.v.refresh("a")
        self.assertEqual(self.v.read("a/later"), b"l")
        self.v.write("a/b/c", b"changed here")
        self.v.settle()
        self.assertEqual(self.gateway.get(self.bucket, "a/b/c"), b"changed here")
        # Not while it is mounted.
        self.assertNotEqual(self.run_import(self.publish()).returncode, 0)
        self.v.unmount()
        self.assertEqual(self.v.check_metadata(), "")

    def test_goes_on_after_it_was_killed(self):
        url = self.publish()
        meta, points = os.path.join(self.v.directory, "meta"), os.path.join(self.v.directory, "points")
        self.assertEqual(self.run_import(url, SLUICE_CRASH_LIST=points).returncode, 0)
        with open(points) as f:
            reached = [p for p in f.read().split() if p.startswith("inventory.")]
        self.assertEqual(sorted(set(reached)), crash_points.of_source("inventory"))
        for point in reached:
            shutil.rmtree(meta)
            self.assertEqual(self.run_import(url, SLUICE_CRASH_AT=point).returncode, -signal.SIGKILL, point)
            again = self.run_import(url)
            self.assertEqual(again.returncode, 0, again.stderr)
            self.assertEqual(self.v.check_metadata(), "", point)
            self.assertFalse(os.path.exists(os.path.join(meta, "inventory")))
        self.check_names()

    def import_into(self, v, url, *more, code=0):
        done = v.sluice("import", v.mountpoint, "--inventory", url, "--json", *more, check=False)
        self.assertEqual(done.returncode, code, "%s\n%s" % (done.stdout, v.output()))
        return json.loads(done.stdout) if code == 0 else done.stdout

    def test_into_a_mount_in_use(self):
        v = self.v
        v.mount("--import-ttl", "1d")
        self.assertEqual(sorted(os.listdir(v.path("z"))), ["last"])  # it is known already
        v.write("a/b/mine", b"m")
        v.write("a/b/c", b"changed here")
        self.gateway.put(self.bucket, "z/later", b"z/later")  # before the inventory, and after what is known
        with open(v.path("top"), "rb") as held:
            url = self.publish(KEYS + ["z/later"])
            os.rename(v.path("many"), v.path("moved"))
            said = self.import_into(v, url)
            self.assertEqual(held.read(), b"top")
        # The names of the directory that was moved did not come: they are listed when they are asked for.
        self.assertEqual((said["rows"], said["files"]), (len(KEYS) + 1, len([k for k in KEYS if "many/" not in k]) + 1))
        before = v.status()["volume"]["import"]["listed_directories"]
        self.assertEqual(sorted(os.listdir(v.path("z"))), ["last", "later"])
        self.assertEqual(sorted(os.listdir(v.path("a", "b"))), ["c", "d e", "mine"])
        self.assertEqual(sorted(os.listdir(v.path("a"))), ["+x", "b"])
        self.assertEqual(v.status()["volume"]["import"]["listed_directories"], before)
        self.assertEqual(self.found(v), sorted([k.replace("many/", "moved/") for k in KEYS] + ["z/later", "a/b/mine"]))
        self.assertEqual(v.read("a/b/c"), b"changed here")
        self.assertEqual(v.read("moved/007"), b"many/007")
        v.settle()
        self.assertEqual(self.gateway.get(self.bucket, "moved/007"), b"many/007")
        self.assertEqual(v.read("moved/007"), b"many/007")
        # A local file will do, too, and what is bad is refused.
        self.assertIn("no such file", self.import_into(v, "/nowhere/manifest.json", code=1).lower())
        self.assertIn("is not what the manifest says", self.import_into(v, self.publish(["top"], damage=b"x"), code=1))
        v.unmount()
        self.assertEqual(v.check_metadata(), "")

    def test_into_a_mount_that_is_killed(self):
        url = self.publish()
        for point in crash_points.of_source("inventory"):
            self.v.env["SLUICE_CRASH_AT"] = point
            self.v.mount("--import-ttl", "1d")
            self.import_into(self.v, url, code=1)
            self.v.reap()
            del self.v.env["SLUICE_CRASH_AT"]
            self.v.mount("--import-ttl", "1d")
            self.import_into(self.v, url)
            self.assertFalse(os.path.exists(os.path.join(self.v.directory, "meta", "inventory")))
            self.assertEqual(self.found(self.v), sorted(KEYS))
            self.assertEqual(self.v.status()["volume"]["import"]["listed_directories"], 0)
            self.v.unmount()
            self.assertEqual(self.v.check_metadata(), "", point)
            shutil.rmtree(os.path.join(self.v.directory, "meta"))

    def test_by_a_service(self):
        a = ServiceVolume(gateway=self.gateway, bucket=self.bucket)
        self.addCleanup(a.close)
        a.mount()
        b = ServiceVolume(service=a.service, gateway=self.gateway, bucket=self.bucket)
        self.addCleanup(b.close)
        b.mount()
        b.write("a/b/mine", b"m")
        url = self.publish()
        before = a.status()["volume"]["import"]["listed_directories"]
        said = self.import_into(a, url)
        self.assertEqual((said["rows"], said["files"], said["listed_directories"]), (len(KEYS), len(KEYS), 5))
        for v in a, b:
            self.assertEqual(self.found(v), sorted(KEYS + ["a/b/mine"]))
            self.assertEqual(v.read("a/b/d e"), b"a/b/d e")
        self.assertEqual(a.status()["volume"]["import"]["listed_directories"], before)
        with open(os.path.join(a.directory, "manifest.json"), "w") as f:
            f.write("{}")
        self.assertIn("from a bucket", self.import_into(a, f.name, code=1))

    def test_damage_is_refused(self):
        done = self.run_import(self.publish(damage=b"x"))
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"is not what the manifest says", done.stdout + done.stderr)
        done = self.run_import(f"s3://{self.reports}/no/manifest.json")
        self.assertEqual(done.returncode, 1)


if __name__ == "__main__":
    unittest.main()
