"""The storage class of objects is changed where they are, while they are used: sluice migrate --class, on a server behind a proxy that remembers classes."""

import json
import os
import random
import sys
import threading
import unittest
import urllib.parse

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "lib"), os.path.join(HERE, "..", "tools")]
from fault_proxy import FaultProxy
from gateway import Gateway
from volume import Volume, wait_until

COLD = "STANDARD_IA"
CLASSES = {"action": "classes"}


class Workers:
    """Reads what must stay as it is, and writes files of its own; stopped before the mount is killed."""

    def __init__(self, v, model):
        self.v, self.model, self.wrong, self.rounds = v, model, None, 0
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        rng, names = random.Random(3), sorted(n for n, data in self.model.items() if len(data) < 1 << 20)
        try:
            while not self.ending.wait(0.05):  # a pause: settle steps back for who works without one
                name = rng.choice(names)
                if self.v.read(name) != self.model[name]:
                    raise AssertionError("wrong bytes in " + name)
                mine = "data/mine%d" % (self.rounds % 4)
                data = rng.randbytes(rng.choice((100, 70000)))
                self.v.write(mine, data)
                if self.v.read(mine) != data:
                    raise AssertionError("wrong bytes in " + mine)
                self.rounds += 1
        except (OSError, AssertionError) as e:
            self.wrong = e

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ending.set()
        self.thread.join()
        if self.wrong:
            raise self.wrong


class StorageClass(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = cls.enterClassContext(Gateway())

    def start(self, **more):
        self.proxy = FaultProxy(self.gateway.host, self.gateway.port)
        self.addCleanup(self.proxy.close)
        self.proxy.rules([CLASSES])
        v = Volume(gateway=self.gateway, **more)
        v.env["AWS_ENDPOINT_URL_S3"] = self.proxy.endpoint
        self.addCleanup(v.close)
        return v

    def classes(self, v):
        """Of all files: key → class. What was put around the proxy has the default one."""
        told = self.proxy.stats()["classes"]
        return {k: told.get(urllib.parse.quote("/%s/%s" % (v.bucket, k)), "STANDARD") for k in v.keys()}

    def cold(self, v):
        return sorted(k for k, name in self.classes(v).items() if name == COLD)

    def fill(self, v):
        rng = random.Random(1)
        model = {"data/f%02d" % i: rng.randbytes((0, 10, 5000, 70000, 300000)[i % 5]) for i in range(40)}
        model["data/big"] = rng.randbytes((9 << 20) + 17)
        model["data/theirs"] = rng.randbytes(1000)
        v.put_object("data/theirs", model["data/theirs"])
        v.mount()
        for name, data in model.items():
            if name != "data/theirs":
                os.makedirs(os.path.dirname(v.path(name)), exist_ok=True)
                v.write(name, data)
        v.write("beside", b"stays where it is")
        v.settle()
        return model

    def test_while_files_are_used_and_the_mount_is_killed(self):
        v = self.start()
        model = self.fill(v)
        self.assertEqual(self.cold(v), [])
        inodes = {name: os.stat(v.path(name)).st_ino for name in model}
        handle = open(v.path("data/big"), "rb")
        self.addCleanup(handle.close)
        start = handle.read(1 << 20)
        # Some are replaced (one without a word about it), then none until the mount is killed.
        stop = {"action": "status", "status": 503, "method": "PUT", "path": "/data/[fbt]", "skip": 12}
        lose = {"action": "lost_reply", "method": "PUT", "path": "/data/[fbt]", "count": 1, "reset": True}
        self.proxy.rules([CLASSES, lose, stop])
        with Workers(v, model):
            v.sluice("migrate", v.path("data"), "--class", COLD)
            wait_until("the first ones", lambda: min(self.proxy.stats()["hits"][1:]) > 0)
            rest = handle.read()
            handle.close()
        self.assertEqual(start + rest, model["data/big"])
        v.kill()
        some = len(self.cold(v))
        self.proxy.rules([CLASSES, lose, stop])
        v.mount()
        with Workers(v, model):
            wait_until("more", lambda: min(self.proxy.stats()["hits"][1:]) > 0)
        v.kill()
        self.assertLess(some, len(self.cold(v)))
        self.assertLess(len(self.cold(v)), len(model))
        self.proxy.rules([CLASSES])
        v.mount()
        with Workers(v, model) as workers:
            v.sluice("migrate", v.path("data"), "--class", COLD, "--wait")
            wait_until("both to be used", lambda: workers.rounds > 0 or workers.wrong)
        v.settle()
        for name, data in model.items():
            self.assertEqual(v.read(name), data, name)
            self.assertEqual(v.object(name), data, name)
            self.assertEqual(os.stat(v.path(name)).st_ino, inodes[name], name)
        classes = self.classes(v)
        self.assertEqual({name: classes[name] for name in model}, dict.fromkeys(model, COLD))
        self.assertEqual(classes["beside"], "STANDARD")
        self.assertEqual(set(classes) - set(model) - {"data/mine%d" % i for i in range(4)}, {"beside"})
        wait_until("no garbage", lambda: v.status()["volume"]["drift"]["garbage_objects"] == 0)
        self.assertEqual(self.gateway.uploads(v.bucket), [])
        v.unmount()
        self.assertEqual(v.check_metadata(), "")

    def test_what_others_put_meanwhile_stays(self):
        v = self.start()
        for name, size in (("small", 1000), ("large", 700000)):
            v.put_object("data/" + name, b"1" * size)
        v.mount()
        for name in os.listdir(v.path("data")):
            os.stat(v.path("data", name))
        # Each is read, and its replacement held up until others have written the key.
        hold = [{"action": "status", "status": 503, "method": "PUT", "path": "/data/small"},
                {"action": "status", "status": 503, "method": "POST", "path": "/data/large.*uploadId="}]
        self.proxy.rules([CLASSES, *hold])
        v.sluice("migrate", v.path("data"), "--class", COLD)
        wait_until("both replacements", lambda: min(self.proxy.stats()["hits"][1:]) > 0)
        for name in ("small", "large"):
            v.put_object("data/" + name, b"theirs, " + name.encode())
        self.proxy.rules([CLASSES])
        wait_until("what they put to have the class", lambda: self.cold(v) == ["data/large", "data/small"])
        for name in ("small", "large"):
            theirs = b"theirs, " + name.encode()
            self.assertEqual(v.object("data/" + name), theirs)
            self.assertEqual(v.read("data/" + name), theirs)
        self.assertEqual(sorted(os.listdir(v.path("data"))), ["large", "small"])
        wait_until("no uploads", lambda: self.gateway.uploads(v.bucket) == [])

    def test_old_files_only(self):
        v = self.start().mount()
        os.mkdir(v.path("logs"))
        for name in ("old", "young", "later"):
            v.write("logs/" + name, name.encode() * 20000)
        os.utime(v.path("logs/old"), (1, 1))
        v.settle()
        v.sluice("migrate", v.path("logs"), "--class", COLD, "--after", "30d", "--wait")
        self.assertEqual(self.cold(v), ["logs/old"])
        self.assertIn("files not changed for 30d to " + COLD, v.sluice("migrate", v.path("logs")).stdout)
        v.kill()
        v.mount()
        os.utime(v.path("logs/later"), (1, 1))
        v.sluice("migrate", v.path("logs"), "--class", COLD, "--after", "30d", "--wait")
        self.assertEqual(self.cold(v), ["logs/later", "logs/old"])
        # What is written again is a file like any other: it is young.
        v.write("logs/old", b"again")
        v.settle()
        self.assertEqual(self.cold(v), ["logs/later"])
        v.sluice("migrate", v.path("logs"), "--cancel")
        self.assertEqual(json.loads(v.sluice("store", "list", v.mountpoint, "--json").stdout)["migrations"], [])
        self.assertEqual(v.read("logs/later"), b"later" * 20000)

    def test_a_directory_as_the_store_has_no_classes(self):
        v = self.enterContext(Volume())
        v.write("f", b"x")
        done = v.sluice("migrate", v.mountpoint, "--class", COLD, check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertRegex(done.stdout, r"\Asluice migrate: .+\n\Z")
        self.assertEqual(json.loads(v.sluice("store", "list", v.mountpoint, "--json").stdout)["migrations"], [])

    def test_wrong_calls_change_nothing(self):
        v = self.start().mount()
        os.mkdir(v.path("d"))
        v.write("d/f", b"x" * 100000)
        v.settle()
        for arguments in (("--class", "standard_ia"), ("--class", "A B"), ("--class", "A" * 32), ("--class", COLD, "--to", "main"),
                          ("--class", COLD, "--after", "30"), ("--class", COLD, "--cancel")):
            done = v.sluice("migrate", v.path("d"), *arguments, check=False)
            self.assertNotEqual(done.returncode, 0, arguments)
            self.assertRegex(done.stdout, r"\Asluice migrate: .+\n\Z", arguments)
        done = v.sluice("migrate", v.path("d/f"), "--class", COLD, check=False)
        self.assertRegex(done.stdout, r"\Asluice migrate: .+\n\Z")
        self.assertEqual(json.loads(v.sluice("store", "list", v.mountpoint, "--json").stdout)["migrations"], [])
        v.settle()
        self.assertEqual(self.cold(v), [])


if __name__ == "__main__":
    unittest.main()
