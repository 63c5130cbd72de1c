"""The benchmark runs, and what it says is of its schema and possible. No time is judged."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [os.path.join(ROOT, "tests", "lib"), os.path.join(ROOT, "bench", "lib")]
import results
from gateway import Gateway
from service import ServiceVolume
from volume import WAIT_S, Volume, binary, wait_until

GROUPS = ["metadata", "rename-dir", "list", "csi", "source", "tool", "memory"]


def report(*arguments):
    return subprocess.run([sys.executable, os.path.join(ROOT, "bench", "report"), *arguments], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=WAIT_S, check=False)


class BenchSmoke(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.directory = cls.enterClassContext(tempfile.TemporaryDirectory())
        cls.file = os.path.join(cls.directory, "results.json")
        other = os.path.join(cls.directory, "other")
        os.mkdir(other)
        command = [sys.executable, os.path.join(ROOT, "bench", "run"), "--quick", "--only", ",".join(GROUPS), "--work", cls.directory,
                   "--ref", "other=" + other, "--peer", "s3fs", "--json", cls.file]
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            cls.output = child.communicate(timeout=4 * WAIT_S)[0]
        except subprocess.TimeoutExpired:
            # It takes its mounts away itself.
            child.send_signal(signal.SIGTERM)
            raise AssertionError("bench/run does not end:\n" + child.communicate(timeout=WAIT_S)[0]) from None
        if child.returncode != 0:
            raise AssertionError("bench/run ended with %d:\n%s" % (child.returncode, cls.output))
        cls.left = os.listdir(other)
        with open(cls.file, encoding="utf-8") as f:
            cls.data = json.load(f)

    def row(self, name):
        return next(r for r in self.data["rows"] if r["row"] == name)

    def cell(self, row, place):
        return next(c for c in self.row(row)["cells"] if c["place"] == place)

    def test_results_are_of_the_schema(self):
        results.check(self.data)
        self.assertEqual(self.data["run"]["failed"], [])
        self.assertEqual({r["group"] for r in self.data["rows"]}, set(GROUPS))

    def test_what_took_time_is_more_than_nothing(self):
        for row in self.data["rows"]:
            for cell in row["cells"]:
                self.assertGreater(cell["min"], 0, "%s, %s" % (row["row"], cell["place"]))
                for name, amount in cell["used"].items():
                    self.assertGreaterEqual(amount, 0, "%s, %s, %s" % (row["row"], cell["place"], name))

    def test_all_places_are_measured(self):
        places = {c["place"] for c in self.row("create-1")["cells"]}
        self.assertEqual(places, {"null_fuse", "null_fuse, libfuse's threads", "null_fuse + fdatasync", "sluice", "sluice --sync=always", "local", "other", "s3fs"})

    def test_what_was_made_in_a_reference_is_removed(self):
        self.assertEqual(self.left, [])

    def test_counts_come_from_the_mount(self):
        self.assertEqual(self.cell("rename-dir", "sluice")["used"]["store_requests"], 0)
        self.assertGreater(self.cell("list-s3", "sluice")["used"]["store_requests"], 0)
        self.assertGreater(self.cell("memory-writers", "sluice")["used"]["store_written_mib"], 0)
        self.assertGreater(self.cell("memory-idle", "sluice")["median"], 1)

    def test_report_makes_a_table(self):
        done = report(self.file)
        self.assertEqual(done.returncode, 0, done.stdout)
        for row in self.data["rows"]:
            self.assertIn(row["title"], done.stdout)

    def test_report_makes_a_page_that_refers_to_nothing(self):
        page = os.path.join(self.directory, "page.html")
        done = report(self.file, "--html", page)
        self.assertEqual(done.returncode, 0, done.stdout)
        with open(page, encoding="utf-8") as f:
            text = f.read()
        self.assertEqual(text.count("<svg"), len(self.data["rows"]))
        for reference in ("http:", "https:", "src=", 'href="', "url("):
            self.assertNotIn(reference, text)

    def test_compare_finds_nothing_in_the_same_results(self):
        done = report("--compare", self.file, self.file)
        self.assertEqual(done.returncode, 0)
        self.assertTrue(done.stdout.startswith("no difference beyond the noise\nnote: not compared"), done.stdout)

    def test_report_refuses_what_is_no_result(self):
        bad = os.path.join(self.directory, "bad.json")
        for text in ("", "[]", '{"schema": "other"}', '{"schema": "%s", "run": {}, "rows": [{}]}' % results.SCHEMA):
            with open(bad, "w", encoding="utf-8") as f:
                f.write(text)
            done = report(bad)
            self.assertEqual(done.returncode, 2, done.stdout)
            self.assertEqual(done.stdout.count("\n"), 1, done.stdout)


def sluice(*arguments, **kwargs):
    return subprocess.run([binary(), *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=2 * WAIT_S,
                          check=False, **kwargs)


class BenchCommand(unittest.TestCase):
    """`sluice bench` on a mount of ours."""

    SMALL = ("--files", "60", "--size", "8M", "--time", "60s", "--threads", "1,3")

    @classmethod
    def setUpClass(cls):
        cls.volume = cls.enterClassContext(Volume())

    def test_every_row_works_and_nothing_is_left(self):
        done = sluice("bench", "--json", *self.SMALL, "--time", "2s", self.volume.path())
        self.assertEqual(done.returncode, 0, done.stderr)
        data = json.loads(done.stdout)
        self.assertEqual(data["schema"], "sluice-bench-path/1")
        named = {line.split()[1] for line in sluice("bench", "--list").stdout.splitlines()}
        self.assertEqual({r["row"] for r in data["rows"]}, named)
        for row in data["rows"]:
            self.assertNotIn("error", row)
            self.assertGreater(row["operations"], 0, row["row"])
            latency = row["latency"]
            self.assertEqual(latency["count"], row["operations"])
            self.assertLessEqual(latency["p50_us"], latency["p99_us"])
            self.assertLessEqual(latency["p99_us"], latency["max_us"])
        self.assertEqual(os.listdir(self.volume.path()), [])

    def test_people_get_a_table(self):
        done = sluice("bench", "--only", "small", *self.SMALL, self.volume.path())
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("create, write 4 KiB, close", done.stdout)
        self.assertNotIn("FAILED", done.stdout)

    def test_an_interrupt_removes_what_was_made(self):
        with subprocess.Popen([binary(), "bench", "--only", "metadata", "--files", "10000000", "--time", "1h", self.volume.path()],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as child:
            wait_until("something is made", lambda: os.listdir(self.volume.path()))
            child.send_signal(signal.SIGINT)
            output = child.communicate(timeout=2 * WAIT_S)[0]
        self.assertEqual(child.returncode, 1, output)
        self.assertIn("interrupted", output)
        self.assertEqual(os.listdir(self.volume.path()), [])

    def test_what_a_killed_run_left_is_named_and_not_touched(self):
        with tempfile.TemporaryDirectory() as directory:
            left = os.path.join(directory, "sluice-bench.abc123", "work0")
            os.makedirs(left)
            done = sluice("bench", "--only", "create", "--threads", "1", "--rounds", "1", "--files", "2", directory)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("sluice-bench.abc123", done.stderr)
            self.assertTrue(os.path.isdir(left))

    def test_bad_input_is_one_line(self):
        for arguments in (["--only", "nonsense"], ["--threads", "0"], ["--threads", "1,x"], ["--size", "1"], ["--files", "-1"],
                          ["--size", "9999T"]):
            done = sluice("bench", *arguments, self.volume.path())
            self.assertIn(done.returncode, (1, 2), arguments)
            self.assertLessEqual(done.stderr.count("\n"), 2, done.stderr)
        done = sluice("bench", self.volume.path("absent"))
        self.assertEqual((done.returncode, done.stdout, done.stderr.count("\n")), (1, "", 1), done.stderr)
        self.assertEqual(sluice("bench").returncode, 2)
        self.assertEqual(os.listdir(self.volume.path()), [])


class Trace(unittest.TestCase):
    """Record programs on a local directory, do it again on a mount of ours."""

    def setUp(self):
        self.directory = self.enterContext(tempfile.TemporaryDirectory())
        self.source, self.seen = os.path.join(self.directory, "source"), os.path.join(self.directory, "seen")
        self.file = os.path.join(self.directory, "job.trace")
        os.makedirs(os.path.join(self.source, "input"))
        os.mkdir(self.seen)
        with open(os.path.join(self.source, "input", "data"), "wb") as f:
            f.write(os.urandom(300000))
        os.symlink("data", os.path.join(self.source, "input", "link"))

    def record(self, *programs):
        with subprocess.Popen([binary(), "trace", "record", self.source, self.seen, "--to", self.file], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as child:
            try:
                wait_until("it is mounted", lambda: os.path.ismount(self.seen) or child.poll() is not None)
                for program in programs:
                    subprocess.run(["sh", "-e", "-c", program], cwd=self.seen, check=True, timeout=WAIT_S, stdin=subprocess.DEVNULL)
            finally:
                child.send_signal(signal.SIGINT)
                output = child.communicate(timeout=WAIT_S)[0]
        self.assertEqual(child.returncode, 0, output)
        self.assertFalse(os.path.ismount(self.seen))

    def test_a_job_has_the_same_outcome_on_a_mount(self):
        self.record("mkdir -p out/_temporary/0; cat input/data input/link > out/_temporary/0/part; head -c 1000 input/data >> out/_temporary/0/part",
                    "mv out/_temporary/0/part 'out/part 0'; rm -r out/_temporary; touch out/_SUCCESS; ls -lR . > /dev/null",
                    "mv input moved; cmp moved/data moved/link; ln moved/data hard; truncate -s 10 hard; rm moved/link; ! mkdir out; ! rmdir moved")
        self.assertEqual(os.path.getsize(os.path.join(self.source, "out", "part 0")), 601000)
        self.assertEqual(os.path.getsize(os.path.join(self.source, "hard")), 10)
        with Volume() as volume:
            done = sluice("trace", "replay", "--json", self.file, volume.path())
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            data = json.loads(done.stdout)
            with open(self.file, encoding="ascii") as f:
                self.assertEqual(data["calls"], len(f.readlines()) - 1)
            self.assertEqual(data["differing"], 0)
            self.assertEqual(data["ops"]["write"]["bytes"], 601000)
            for call in ("mkdir", "rename", "unlink", "rmdir", "create", "open", "read", "close", "list", "link", "truncate", "readlink"):
                self.assertGreater(data["ops"][call]["replayed"]["count"], 0, call)
            self.assertEqual(os.listdir(volume.path()), [])

    def test_bad_input_is_one_line(self):
        with open(self.file, "w", encoding="ascii") as f:
            f.write("rubbish\n")
        for arguments in (["replay", self.file, self.directory], ["replay", self.source, self.directory], ["replay", "absent", self.directory],
                          ["record", self.source, "/nonexistent", "--to", os.path.join(self.directory, "new")],
                          ["record", self.source, self.seen, "--to", self.file], ["replay", "--speed", "-1", self.file, self.directory]):
            done = sluice("trace", *arguments)
            self.assertIn(done.returncode, (1, 2), arguments)
            self.assertTrue(done.stderr, arguments)
            self.assertLessEqual(len(done.stderr.splitlines()), 3, done.stderr)
        self.assertEqual(sorted(os.listdir(self.directory)), ["job.trace", "seen", "source"])


class BenchStore(unittest.TestCase):
    def test_a_real_server_and_nothing_is_left(self):
        with Gateway() as gateway:
            gateway.make_bucket("bucket")
            done = sluice("bench-store", "--json", "--sizes", "4K,5M", "--parallel", "1,4", "--count", "6", "--time", "60s",
                          "s3://bucket/some/prefix", env=gateway.env())
            self.assertEqual(done.returncode, 0, done.stderr)
            data = json.loads(done.stdout)
            self.assertEqual(data["schema"], "sluice-bench-store/1")
            self.assertIn("put-if-none-match", {f["what"] for f in data["supports"]})
            ops = {(r["op"], r["bytes"]) for r in data["rows"]}
            for op in (("put", 4096), ("get", 5 << 20), ("parts", 5 << 20), ("copy", 4096), ("list", 0), ("delete", 0)):
                self.assertIn(op, ops)
            for row in data["rows"]:
                self.assertEqual(row["failed"], 0, row)
                self.assertGreater(row["per_second"], 0, row)
            self.assertEqual(gateway.list("bucket"), {})

    def test_bad_input_is_one_line(self):
        with tempfile.TemporaryDirectory() as directory:
            url = "file://" + directory
            for arguments in (["--ops", "nonsense", url], ["--sizes", "0", url], ["--sizes", "2G", url], ["--parallel", "9999", url],
                              ["--ops", "get", url], ["gopher://x"]):
                done = sluice("bench-store", "--no-probe", *arguments)
                self.assertIn(done.returncode, (1, 2), arguments)
                self.assertLessEqual(done.stderr.count("\n"), 2, done.stderr)


class BenchService(unittest.TestCase):
    def test_rows_and_nothing_is_left(self):
        with ServiceVolume() as volume:
            done = sluice("bench-service", "--json", "--connections", "3", "--depth", "4", "--count", "20", volume.service.url("v"))
            self.assertEqual(done.returncode, 0, done.stderr)
            data = json.loads(done.stdout)
            self.assertEqual(data["schema"], "sluice-bench-service/1")
            self.assertEqual([r["op"] for r in data["rows"]], ["create-shared", "create", "lookup", "rename", "unlink", "unlink-shared"])
            for row in data["rows"]:
                self.assertEqual((row["operations"], row["failed"], row["connections"], row["depth"]), (60, 0, 3, 4), row)
                self.assertGreater(row["per_second"], 0, row)
            self.assertEqual(os.listdir(volume.mountpoint), [])
            done = sluice("bench-service", "--connections", "40", "--idle", "10ms", volume.service.url("v"))
            self.assertEqual((done.returncode, done.stdout), (0, "40 sessions are there\n"))
            for bad in (["sluice://127.0.0.1:%d/nothing" % volume.service.port], ["sluices://127.0.0.1:1/v"], ["nonsense"],
                        ["--depth", "999", volume.service.url("v")]):
                done = sluice("bench-service", *bad)
                self.assertIn(done.returncode, (1, 2), bad)
                self.assertLessEqual(done.stderr.count("\n"), 3, done.stderr)


if __name__ == "__main__":
    unittest.main()
