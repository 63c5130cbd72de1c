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
from volume import WAIT_S

GROUPS = ["metadata", "rename-dir", "list", "source", "memory"]


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
                   "--ref", "other=" + other, "--json", cls.file]
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
        self.assertEqual(places, {"null_fuse", "null_fuse + fdatasync", "sluice", "sluice --sync=always", "local", "other"})

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
        for reference in ("http:", "https:", "src=", "href=", "url("):
            self.assertNotIn(reference, text)

    def test_compare_finds_nothing_in_the_same_results(self):
        done = report("--compare", self.file, self.file)
        self.assertEqual((done.returncode, done.stdout), (0, "no difference beyond the noise\n"))

    def test_compare_names_what_became_slower(self):
        changed = json.loads(json.dumps(self.data))
        cell = next(c for r in changed["rows"] if r["row"] == "rename-1" for c in r["cells"] if c["place"] == "sluice")
        for key in ("median", "min", "max"):
            cell[key] /= 2
        slower = os.path.join(self.directory, "slower.json")
        with open(slower, "w", encoding="utf-8") as f:
            json.dump(changed, f)
        done = report("--compare", self.file, slower)
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertIn("SLOWER rename-1, sluice", done.stdout)

    def test_report_refuses_what_is_no_result(self):
        bad = os.path.join(self.directory, "bad.json")
        for text in ("", "[]", '{"schema": "other"}', '{"schema": "%s", "run": {}, "rows": [{}]}' % results.SCHEMA):
            with open(bad, "w", encoding="utf-8") as f:
                f.write(text)
            done = report(bad)
            self.assertEqual(done.returncode, 2, done.stdout)
            self.assertEqual(done.stdout.count("\n"), 1, done.stdout)


if __name__ == "__main__":
    unittest.main()
