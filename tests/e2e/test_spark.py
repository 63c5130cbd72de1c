"""Spark's own jobs on a mount: on plain paths, and on s3a:// paths through the jar."""

import decimal
import json
import os
import unittest

import engines
import spark
import tpch

ROWS = 20000
SLOW_ROWS = 400000
SCALE = "0.02"


def expected(ids):
    """What spark_tables.answer must say of a table with these rows."""
    ids = list(ids)
    return [len(ids), sum(ids), sum(len("v%d" % i) for i in ids), len(set(ids)), sum(i % 5 for i in ids)]


def numbers(rows):
    """Engines give sums different scales."""
    def one(text):
        try:
            return round(decimal.Decimal(text), 2)
        except decimal.InvalidOperation:
            return text
    return [[one(x) for x in row] for row in rows]


class Jobs:
    """The tests of both."""

    def check_strays(self, v):
        v.check_no_strays()

    def test_tables(self):
        with engines.engine_volume() as v:
            before = v.status()["mount"]["failed_renames"]
            got = self.job(v, "spark_tables", rows=ROWS, hive=True, conf={
                "spark.speculation": "true", "spark.speculation.interval": "100ms",
                "spark.speculation.quantile": "0.5"})
            all_ids = range(ROWS)
            appended = list(all_ids) + list(range(ROWS, ROWS + 500))
            dynamic = [i for i in all_ids if i % 5 not in (1, 3)] + [
                i for i in range(10 * ROWS, 10 * ROWS + 1000) if i % 5 in (1, 3)]
            for name in ("committer1", "committer2", "orc", "json", "csv"):
                self.assertEqual(got[name], expected(all_ids), name)
            for name in ("appended1", "appended2", "untouched"):
                self.assertEqual(got[name], expected(appended), name)
            self.assertEqual(got["dynamic"], expected(dynamic))
            self.assertEqual(got["errorifexists"], "refused")
            self.assertEqual(got["speculation"], sorted("01234567"))
            count, total, length, distinct, parts = expected(i for i in all_ids if i % 5 != 4)
            moved = len([i for i in all_ids if i % 5 == 2]) * 1000000
            self.assertEqual(got["hive"], [count, total + moved, length, distinct, parts])
            self.assertEqual(got["hive_ctas"], got["hive"])
            self.assertEqual(got["hive_tables"], ["t"])
            (row,) = self.duckdb(
                "SELECT count(*), sum(id), sum(length(text)), count(DISTINCT id), sum(part) FROM "
                "read_parquet('%s/jobs/dynamic/**/*.parquet', hive_partitioning=true)" % v.mountpoint)
            self.assertEqual([int(x) for x in row], expected(dynamic))
            # Nothing of the attempt that lost, and no rename that Hadoop would answer with a copy.
            parts = [n for n in os.listdir(v.path("jobs", "speculation")) if not n.startswith((".", "_"))]
            self.assertEqual(len(parts), 8)
            self.assertEqual(v.status()["mount"]["failed_renames"], before)
            self.check_strays(v)
            v.check_plain_objects()
            v.check_end()

    def test_driver_killed_in_the_commit_of_tasks(self):
        with engines.engine_volume() as v:
            done = v.path("jobs", "killed", "_temporary", "0")

            def some_tasks():
                try:
                    return len([n for n in os.listdir(done) if n.startswith("task_")]) >= 3
                except FileNotFoundError:
                    return False

            self.kill_when(v, "spark_slow", "the commit of tasks", some_tasks, rows=SLOW_ROWS)
            self.assertFalse(os.path.exists(v.path("jobs", "killed", "_SUCCESS")))
            self.assertTrue(os.path.isdir(done))
            got = self.job(v, "spark_slow", rows=SLOW_ROWS)
            self.assertEqual(got["killed"], [SLOW_ROWS, SLOW_ROWS * (SLOW_ROWS - 1) // 2, SLOW_ROWS])
            self.check_strays(v)
            v.check_plain_objects()
            v.check_end()

    def test_stream_killed_and_restarted(self):
        with engines.engine_volume() as v:
            os.makedirs(v.path("jobs", "in"))
            files, rows = 20, 50
            for i in range(files):
                with open(v.path("jobs", "in", "%03d.json" % i), "w") as file:
                    for k in range(rows):
                        file.write(json.dumps({"id": i * rows + k, "text": "t"}) + "\n")
            commits = v.path("jobs", "checkpoint", "commits")

            def some_batches():
                try:
                    return len([n for n in os.listdir(commits) if n.isdigit()]) >= 4
                except FileNotFoundError:
                    return False

            self.kill_when(v, "spark_stream", "four batches", some_batches)
            self.assertLess(len([n for n in os.listdir(commits) if n.isdigit()]), files)
            got = self.job(v, "spark_stream")
            total = files * rows
            self.assertEqual(got["stream"], [total, total * (total - 1) // 2, total])
            v.check_plain_objects()
            v.check_end()

    def test_tpch(self):
        with engines.engine_volume() as v:
            raw = v.path("jobs", "raw")
            os.makedirs(raw)
            engines.run([os.path.join(os.path.dirname(self.python), "tpchgen-cli"), "parquet", "-s", SCALE,
                         "--output-dir", raw], cwd=self.directory)
            got = self.job(v, "spark_tpch", tables=tpch.TABLES, queries=tpch.QUERIES)
            views = "".join("CREATE VIEW %s AS SELECT * FROM '%s/%s.parquet';" % (t, raw, t) for t in tpch.TABLES)
            for name, query in tpch.QUERIES.items():
                wanted = self.duckdb(views + query)
                self.assertEqual(numbers(got[name]), numbers(wanted), name)
                self.assertTrue(wanted, name)
            v.check_plain_objects()
            v.check_end()


class Plain(Jobs, spark.PlainCase):
    def check_strays(self, v):
        # .crc files are what Hadoop's local file system leaves beside each of its files.
        v.check_no_strays((r"_temporary", r"\.spark-staging", r"\.hive-staging", r"\.tmp$"))


class Jar(Jobs, spark.JarCase):
    pass


if __name__ == "__main__":
    unittest.main()
