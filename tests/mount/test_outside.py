"""What other clients of the bucket do while it is mounted, as the users of the mount see it."""

import http.client
import json
import mmap
import os
import signal
import subprocess
import sys
import threading
import unittest
import urllib.parse

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from gateway import Gateway
from volume import WAIT_S, Volume, binary, wait_until


class WithGateway(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway()
        cls.gateway.start()
        cls.addClassCleanup(cls.gateway.close)

    def start(self, objects=None, options=(), **more):
        volume = Volume(gateway=self.gateway, options=options, **more)
        self.addCleanup(volume.close)
        for key, data in (objects or {}).items():
            volume.put_object(key, data)
        return volume.mount()


class Size(unittest.TestCase):
    def test_with_writeback_a_closed_file_has_the_size_that_others_gave_it(self):
        """The kernel believes in its own size there, as long as it has the inode."""
        with Volume(options=["--writeback"]) as v:
            for data in (b"0" * 10, b"1" * 20, b"2" * 5, b"3" * 300000):
                v.put_object("f", data)
                v.refresh()
                self.assertEqual(v.read("f"), data)
                self.assertEqual(os.stat(v.path("f")).st_size, len(data))


class Gone(WithGateway):
    def test_a_read_that_finds_the_object_gone_takes_the_name_away(self):
        v = self.start({"d/f": b"f" * 200000}, options=["--no-cache"])
        self.assertEqual(os.stat(v.path("d/f")).st_size, 200000)
        fd = os.open(v.path("d/f"), os.O_RDONLY)
        self.addCleanup(os.close, fd)
        v.delete_object("d/f")
        with self.assertRaises(OSError):
            os.pread(fd, 1000, 150000)
        # The kernel may keep names for 60 s; it is told at once.
        wait_until("the name to go", lambda: not os.path.exists(v.path("d/f")), seconds=30)
        self.assertEqual(os.listdir(v.path("d")), [])


class Read(WithGateway):
    """What was settled is read by others while the mount goes on writing."""

    def write_on(self, v, ending, wrong):
        try:
            n = 0
            while not ending.wait(0.02):
                os.makedirs(v.path("live%d" % n), exist_ok=True)
                v.write("live%d/f" % n, bytes([n % 256]) * (70000 if n % 2 else 100))
                os.rename(v.path("live%d" % n), v.path("done%d" % n))
                n += 1
            self.assertGreater(n, 0)
        except (OSError, AssertionError) as e:
            wrong.append(e)

    def job(self, v, name):
        """Written under a staging name and renamed, as jobs do; path → bytes."""
        os.makedirs(v.path(name, "_temporary/0"))
        files = {}
        for i, size in enumerate((0, 100, 50000, 300000, (9 if name == "job1" else 1) << 20)):
            files["%s/part-%d" % (name, i)] = os.urandom(size)
            v.write("%s/_temporary/0/part-%d" % (name, i), files["%s/part-%d" % (name, i)])
        for path in files:
            os.rename(v.path(name, "_temporary/0", os.path.basename(path)), v.path(path))
        os.rmdir(v.path(name, "_temporary/0"))
        os.rmdir(v.path(name, "_temporary"))
        return files

    def same(self, v, name, files):
        listed = self.gateway.list(v.bucket, name + "/")
        self.assertEqual(listed, {path: len(data) for path, data in files.items()})
        for path, data in files.items():
            self.assertTrue(self.gateway.get(v.bucket, path) == data, path)

    def test_settled_files_are_objects_with_equal_bytes(self):
        v, ending, wrong, jobs = self.start(), threading.Event(), [], {}
        writer = threading.Thread(target=self.write_on, args=(v, ending, wrong))
        writer.start()
        try:
            for name in ("job1", "job2", "job3"):
                jobs[name] = self.job(v, name)
                v.settle(name)
                self.same(v, name, jobs[name])
            os.rename(v.path("job1"), v.path("moved"))
            v.settle("moved")
            jobs["moved"] = {p.replace("job1/", "moved/"): data for p, data in jobs.pop("job1").items()}
            for name, files in jobs.items():
                self.same(v, name, files)
        finally:
            ending.set()
            writer.join()
        self.assertEqual(wrong, [])


class Cached(WithGateway):
    """What is not in the bucket any more is not in the cache either: nobody would ask for it."""

    def holds(self, v, files):
        return v.status()["mount"]["cache"]["contents"] == files

    def test_what_was_deleted_or_replaced_leaves_the_cache(self):
        v = self.start({"gone": b"g" * 300000, "new": b"n" * 300000, "open": b"o" * 300000, "mapped": b"m" * 300000, "kept": b"k" * 300000},
                       options=["--cache-size", "1G"])
        v.refresh()
        v.sluice("warm", v.mountpoint)
        wait_until("the fills", lambda: self.holds(v, 5))
        v.delete_object("gone")
        v.put_object("new", b"N" * 300000)
        v.refresh()
        wait_until("two to leave the cache", lambda: self.holds(v, 3))
        # With passthrough, where there is any, it goes when the kernel reads it no more.
        with open(v.path("open"), "rb") as reader:
            self.assertEqual(reader.read(10), b"o" * 10)
            v.put_object("open", b"O" * 300000)
            v.refresh()
        wait_until("a third to leave the cache", lambda: self.holds(v, 2))
        with open(v.path("mapped"), "rb") as reader:
            view = mmap.mmap(reader.fileno(), 0, prot=mmap.PROT_READ)
        self.assertEqual(view[5], ord("m"))
        v.delete_object("mapped")
        v.refresh()
        self.assertEqual(view[299999], ord("m"))
        view.close()
        wait_until("all but one to leave the cache", lambda: self.holds(v, 1))
        self.assertEqual(v.read("kept"), b"k" * 300000)


class Notify(WithGateway):
    """Notifications in place of waiting for --import-ttl (60 s)."""

    def records(self, v, *keys, name="ObjectCreated:Put", bucket=None):
        return json.dumps({"Records": [
            {"eventName": name, "s3": {"bucket": {"name": bucket or v.bucket},
                                       "object": {"key": urllib.parse.quote_plus(v.prefix + key), "eTag": "x", "size": 1}}}
            for key in keys]})

    def notify(self, v, text, code=0):
        done = subprocess.run([binary(), "notify", v.mountpoint], env=v.env, input=text, text=True, timeout=WAIT_S,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.assertEqual(done.returncode, code, done.stdout)
        return done.stdout

    def test_keys_are_seen_at_once(self):
        v = Volume(gateway=self.gateway, prefix="in/")
        self.addCleanup(v.close)
        for key in ("d/old", "d/gone", "top"):
            v.put_object(key, b"1")
        v.mount()
        self.assertEqual(sorted(os.listdir(v.path("d"))), ["gone", "old"])
        self.assertEqual(sorted(os.listdir(v.mountpoint)), ["d", "top"])
        os.mkdir(v.path("made here"))
        v.put_object("d/old", b"changed")
        v.put_object("d/new", b"n")
        v.put_object("deep/er/file", b"f")
        v.put_object("made here/theirs", b"t")
        v.delete_object("d/gone")
        self.assertEqual(sorted(os.listdir(v.path("d"))), ["gone", "old"])
        said = self.notify(v, self.records(v, "d/old", "d/new", "deep/er/file", "made here/theirs") + "\n\n"
                           + self.records(v, "d/gone", name="s3:ObjectRemoved:Delete") + "\n")
        self.assertIn("5 keys looked at, 0 passed over", said)
        self.assertEqual(sorted(os.listdir(v.path("d"))), ["new", "old"])
        self.assertEqual(v.read("d/old"), b"changed")
        self.assertEqual(sorted(os.listdir(v.mountpoint)), ["d", "deep", "made here", "top"])
        self.assertEqual(v.read("deep/er/file"), b"f")
        self.assertEqual(v.read("made here/theirs"), b"t")

    def test_what_is_not_ours_or_not_right_changes_nothing(self):
        v = self.start({"a": b"a"})
        said = self.notify(v, self.records(v, "a", bucket="another") + "\n" + '{"Event": "s3:TestEvent"}\n')
        self.assertIn("0 keys looked at, 1 passed over", said)
        self.assertIn("notification 1: not JSON", self.notify(v, "rubbish\n", code=1))
        self.assertIn("notification 2 is cut short", self.notify(v, self.records(v, "a") + '\n{"Records": [\n', code=1))
        self.assertIn("no eventName", self.notify(v, '{"Records": [{}]}\n', code=1))
        pretty = json.dumps(json.loads(self.records(v, "a")), indent=1)
        self.assertIn("1 keys looked at", self.notify(v, pretty + "\n"))

    def test_by_http(self):
        v = self.start({"d/a": b"a"})
        self.assertEqual(os.listdir(v.path("d")), ["a"])
        server = subprocess.Popen([binary(), "notify", v.mountpoint, "--listen", "127.0.0.1:0"], env=v.env,
                                  stdout=subprocess.PIPE, text=True)
        self.addCleanup(server.stdout.close)
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)
        port = int(server.stdout.readline().split()[-1])

        def post(body):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
            try:
                connection.request("POST", "/", body)
                answer = connection.getresponse()
                return answer.status, answer.read().decode()
            finally:
                connection.close()

        v.put_object("d/b", b"b")
        self.assertEqual(post(self.records(v, "d/b")), (200, "1 records\n"))
        self.assertEqual(sorted(os.listdir(v.path("d"))), ["a", "b"])
        self.assertEqual(post("{")[0], 400)
        self.assertEqual(post(b" " * (2 << 20))[0], 413)
        server.send_signal(signal.SIGTERM)
        self.assertEqual(server.wait(timeout=WAIT_S), 0)


class WithoutETag(WithGateway):
    """Files put directly below the gateway's root: it gives no ETag for them."""

    def put_file(self, v, name, data):
        path = os.path.join(self.gateway.buckets, v.bucket, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(data)
        return path

    def test_they_are_read_changed_and_removed(self):
        v = Volume(gateway=self.gateway, options=["--import-ttl", "0"])
        self.addCleanup(v.close)
        path = self.put_file(v, "d/plain", b"p" * 300000)
        self.put_file(v, "d/other", b"other")
        v.mount()
        self.assertEqual(v.read("d/plain"), b"p" * 300000)
        # Another size: seen by who reads, never a mixture.
        with open(v.path("d/plain"), "rb") as f:
            self.assertEqual(f.read(4096), b"p" * 4096)
            with open(path, "r+b") as changed:
                changed.write(b"q" * 400000)
            try:
                self.assertIn(os.pread(f.fileno(), 4096, 200000), (b"p" * 4096, b"q" * 4096))
            except OSError:
                pass
        v.refresh()
        self.assertEqual(v.read("d/plain"), b"q" * 400000)
        # Ours in its place, and the removal of the other, come to the bucket.
        v.write("d/plain", b"ours")
        os.unlink(v.path("d/other"))
        v.settle()
        self.assertEqual(v.object("d/plain"), b"ours")
        wait_until("the removed one to go", lambda: v.keys() == ["d/plain"])
        os.rename(v.path("d/plain"), v.path("moved"))
        v.settle()
        self.assertEqual(v.object("moved"), b"ours")

    def test_a_renamed_one_is_copied(self):
        v = Volume(gateway=self.gateway)
        self.addCleanup(v.close)
        self.put_file(v, "d/large", b"l" * 700000)
        v.mount()
        os.rename(v.path("d/large"), v.path("d/moved"))
        v.settle()
        self.assertEqual(v.object("d/moved"), b"l" * 700000)
        wait_until("the old key to go", lambda: v.keys() == ["d/moved"])


if __name__ == "__main__":
    unittest.main()
