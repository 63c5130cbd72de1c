"""What benchmarks say of the next run: on made-up machines whose speed drifts, and by the same formula in `sluice bench` and bench/run. No time is judged."""

import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [os.path.join(ROOT, "tests", "lib"), os.path.join(ROOT, "bench", "lib")]
import results
from compare import compare
from volume import WAIT_S, binary

ROUNDS = 5
STEPS = 10  # of the machine in each round
RUNS = 400
REPORT = os.path.join(ROOT, "bench", "report")


class Machine:
    """Its speed wanders around 1 by `drift` (0.06: 6 %) and forgets where it was after `memory` runs; each look at it has noise, too. With an
    endless memory it never comes back, and has wandered by `drift` after one run."""

    def __init__(self, seed, drift, memory, noise=0.02):
        self.random, self.noise = random.Random(seed), noise
        self.keep = math.exp(-1 / (memory * ROUNDS * STEPS))
        self.step = drift / math.sqrt(ROUNDS * STEPS) if math.isinf(memory) else drift * math.sqrt(1 - self.keep ** 2)
        self.at = 0.0 if math.isinf(memory) else self.random.gauss(0, drift)

    def look(self, speed=1.0):
        return speed * math.exp(self.at + self.random.gauss(0, self.noise))

    def run(self, speed=1.0):
        """(rates of a row, rates of the machine's own loop), one for each round."""
        pairs = []
        for _ in range(ROUNDS):
            for _ in range(STEPS):
                self.at = self.keep * self.at + self.random.gauss(0, self.step)
            pairs.append((self.look(speed), self.look()))
        return list(zip(*pairs))


def result_file(rates, loop, reference=None):
    row = results.Row("create-1", "create", "op/s")
    for i, rate in enumerate(rates):
        one = results.Row("create-1", "create", "op/s")
        one.add("sluice", rate)
        if reference:
            one.add("null_fuse", reference[i])
        one.ratio("sluice", "null_fuse", (">=", 0.7))
        row.add_round(one)
    machine = {"machine_processor": results.spread(loop)}
    return results.check({"schema": results.SCHEMA, "run": {"size": "default", "machine": machine}, "rows": [row.json("metadata", results.deviation(loop))]})


MACHINES = [(drift, memory) for drift in (0.0, 0.02, 0.06) for memory in (0.1, 0.3, 1, 3, 10, math.inf)]


class Interval(unittest.TestCase):
    def test_covers_the_next_runs_median_as_often_as_is_said(self):
        for drift, memory in MACHINES:
            covered = narrow = 0
            for seed in range(RUNS):
                machine = Machine(seed, drift, memory)
                rates, loop = machine.run()
                following = statistics.median(machine.run()[0])
                low, high = results.interval(rates, results.deviation(loop))
                covered += low <= following <= high
                narrow += min(rates) <= following <= max(rates)
            self.assertGreaterEqual(covered / RUNS, 0.90, "drift %g, memory %g" % (drift, memory))
            # What it is instead of: min to max of the rounds.
            if math.isinf(memory) and drift == 0.06:
                self.assertLess(narrow / RUNS, 0.75)

    def test_two_runs_agree_and_also_when_time_has_passed_between(self):
        for drift, memory in MACHINES:
            if math.isinf(memory):
                continue
            found = 0
            for seed in range(RUNS):
                machine = Machine(seed, drift, memory)
                first = machine.run()
                for _ in range(seed % 4):
                    machine.run()
                found += bool(compare(result_file(*first), result_file(*machine.run()))[0])
            self.assertLessEqual(found / RUNS, 0.02, "drift %g, memory %g" % (drift, memory))

    def test_a_fifth_less_is_named_on_a_steady_machine(self):
        found = 0
        for seed in range(RUNS):
            machine = Machine(seed, 0.01, 1)
            before, after = machine.run(), machine.run(speed=0.8)
            names = compare(result_file(*before), result_file(*after))[0]
            found += any(worse and text.startswith("SLOWER create-1, sluice: op/s") for worse, text in names)
        self.assertGreaterEqual(found / RUNS, 0.9)

    def test_a_ratio_names_it_where_the_machine_drifts(self):
        """Both sides of a ratio are of the same moment."""
        found = 0
        for seed in range(RUNS):
            machine = Machine(seed, 0.10, 0.3, noise=0.0)
            files = []
            for speed in (1.0, 0.8):
                rates, loop = machine.run()
                files.append(result_file([r * speed * machine.random.gauss(1, 0.02) for r in rates], loop, rates))
            found += any(worse and "null_fuse" in text for worse, text in compare(*files)[0])
        self.assertGreaterEqual(found / RUNS, 0.9)

    def test_another_machine_is_said_to_be_another_one(self):
        before = result_file([100, 101, 99, 100, 100], [10, 10, 10, 10, 10])
        after = result_file([70, 71, 69, 70, 70], [7, 7, 7, 7, 7])
        found, notes = compare(before, after)
        self.assertEqual(found, [])
        self.assertIn("the machine itself is another one: processor -30 %", notes[0])

    def test_one_round_knows_nothing_of_the_next(self):
        self.assertIsNone(results.interval([5.0], 0.1))
        self.assertIsNone(results.interval([5.0, 6.0], 0.1))
        found, notes = compare(result_file([100], [1]), result_file([50], [1]))
        self.assertEqual(found, [])
        self.assertIn("create-1", notes[0])

    def test_an_amount_is_not_widened_by_the_machine(self):
        row = results.Row("requests", "requests for each file", "requests")
        for _ in range(ROUNDS):
            row.add("sluice", 2)
        self.assertEqual(tuple(row.json("commit", 0.3)["cells"][0]["next"]), (2, 2))


class Rounds(unittest.TestCase):
    def test_what_a_round_has_several_values_of_counts_as_their_median(self):
        whole = results.Row("rename-dir", "rename", "ms", better="lower")
        for number in range(3):
            one = results.Row("rename-dir", "rename", "ms", better="lower")
            for value in (1, 2 + number, 100):
                one.add("sluice", value, requests=value)
            one.absolute("sluice", ("<=", 5), "ms")
            one.note("once")
            whole.add_round(one)
        data = whole.json("rename-dir")
        self.assertEqual(data["cells"][0]["values"], [2, 3, 4])
        self.assertEqual(data["cells"][0]["used"], {"requests": 3})
        self.assertEqual(data["comparisons"][0]["values"], [2, 3, 4])
        self.assertTrue(data["comparisons"][0]["reached"])
        self.assertEqual(data["notes"], ["once"])


class Commands(unittest.TestCase):
    def test_sluice_bench_says_the_same_as_this_formula(self):
        with tempfile.TemporaryDirectory() as directory:
            done = subprocess.run([binary(), "bench", "--json", "--only", "create,stat", "--threads", "1", "--rounds", "3", "--files", "50", directory],
                                  stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=WAIT_S, check=False)
            self.assertEqual((done.returncode, os.listdir(directory)), (0, []), done.stderr)
        rows = json.loads(done.stdout)["rows"]
        self.assertEqual([r["group"] for r in rows], ["machine"] * 3 + ["metadata"] * 2)
        machine = max(results.deviation(r["rates"]) for r in rows[:3])
        for row in rows[3:]:
            self.assertEqual(len(row["rates"]), 3)
            self.assertAlmostEqual(row["per_second"] / statistics.median(row["rates"]), 1, delta=1e-4)
            for said, computed in zip(row["next_run"], results.interval(row["rates"], machine)):
                self.assertAlmostEqual(said / computed, 1, delta=1e-2)

    def test_report_names_what_became_slower_and_ends_with_1(self):
        rates, loop = [100, 101, 99, 100, 102], [10, 10.1, 9.9, 10, 10]
        with tempfile.TemporaryDirectory() as directory:
            files = [os.path.join(directory, name) for name in ("before.json", "after.json")]
            for path, factor in zip(files, (1, 0.8)):
                with open(path, "w", encoding="utf-8") as f:
                    json.dump(result_file([factor * r for r in rates], loop), f)
            done = subprocess.run([sys.executable, REPORT, "--compare", *files], capture_output=True, text=True, timeout=WAIT_S, check=False)
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertTrue(done.stdout.startswith("SLOWER create-1, sluice: op/s 100 ("), done.stdout)
            self.assertIn("(-20 %)", done.stdout)
            done = subprocess.run([sys.executable, REPORT, "--compare", *files[::-1]], capture_output=True, text=True, timeout=WAIT_S, check=False)
            self.assertEqual((done.returncode, done.stdout[:6]), (0, "better"), done.stderr)


if __name__ == "__main__":
    unittest.main()
