"""Jobs of Spark, Hive and Flink while what is below them fails (faults.py), or a part of the engine. At the end the tables
are the answer, exactly once, and the bucket and the namespace are clean."""

import glob
import os
import signal
import unittest

import engines
import faults
import flink
import hive
import spark


class Spark(faults.Below, spark.JarCase):
    ROWS = 400000
    ANSWER = [ROWS, ROWS * (ROWS - 1) // 2, ROWS]

    def some_tasks(self, v):
        """Whether a few of the job's 40 tasks have committed."""
        try:
            return len([n for n in os.listdir(v.path("jobs", "killed", "_temporary", "0")) if n.startswith("task_")]) >= 3
        except OSError:
            return False

    def run_through(self, v, fault, **conf):
        """The job, with the fault in the middle of it; its answer, or None if it failed."""
        return self.job_through(v, "spark_slow", "the commit of tasks", lambda: self.some_tasks(v), fault, rows=self.ROWS, conf=conf)

    def check(self, v, got):
        self.assertEqual(got, {"killed": self.ANSWER})
        (row,) = self.duckdb("SELECT count(*), sum(id), count(DISTINCT id) FROM read_parquet('%s/*.parquet')" % v.path("jobs", "killed"))
        self.assertEqual([int(x) for x in row], self.ANSWER)
        v.check_no_strays()
        v.check_plain_objects()
        v.check_end()

    def through(self, v, fault, harmless):
        # Spark's local master tries a task once, unless told otherwise.
        got = self.run_through(v, fault, **({} if harmless else {"spark.master": "local[2,8]"}))
        if got is None and not harmless:  # the driver itself may have asked while nothing was mounted
            self.assertFalse(os.path.exists(v.path("jobs", "killed", "_SUCCESS")))
            got = self.job(v, "spark_slow", rows=self.ROWS)
        self.check(v, got)

    def test_an_executor_is_killed(self):
        def executor():
            for pid in filter(str.isdigit, os.listdir("/proc")):
                try:
                    with open("/proc/%s/cmdline" % pid, "rb") as file:
                        line = file.read()
                except OSError:
                    continue
                if b"CoarseGrainedExecutorBackend" in line and self.directory.encode() in line:
                    return int(pid)
            raise AssertionError("no executor runs")

        with engines.engine_volume() as v:
            got = self.run_through(v, lambda: os.kill(executor(), signal.SIGKILL), **{
                "spark.master": "local-cluster[2,1,512]", "spark.executor.memory": "512m",
                "spark.executor.extraClassPath": self.jar,
                # It names the test's directory, by which an executor of this job is found.
                "spark.executor.extraJavaOptions": "-Dderby.stream.error.file=%s/derby.log" % self.directory})
            self.check(v, got)


class Hive(faults.Below, hive.PlainCase):
    # So small that each of the tables' files is an object.
    options = ("--inline-max", "0")
    # May be begun again wherever it was broken off.
    SCRIPT = """
CREATE DATABASE IF NOT EXISTS e2e LOCATION '%(base)s/e2e.db';
USE e2e;
CREATE TABLE IF NOT EXISTS raw (id BIGINT, text STRING) ROW FORMAT DELIMITED FIELDS TERMINATED BY ',' STORED AS TEXTFILE;
LOAD DATA LOCAL INPATH '%(input)s' OVERWRITE INTO TABLE raw;
CREATE TABLE IF NOT EXISTS t (id BIGINT, text STRING) PARTITIONED BY (part BIGINT) STORED AS ORC;
INSERT OVERWRITE TABLE t PARTITION (part) SELECT id, text, id %% 5 FROM raw;
INSERT OVERWRITE TABLE t PARTITION (part) SELECT id + 10000, text, id %% 5 + 5 FROM raw;
SELECT 'ANSWER', 'again', count(*), sum(id), count(DISTINCT part) FROM t;
"""
    ANSWER = {"again": [2 * hive.ROWS, hive.ROWS * (hive.ROWS - 1) + hive.ROWS * 10000, 10]}

    def through(self, v, fault, harmless):
        self.make_source()
        command, environment = self.command(v, self.SCRIPT)

        def happens(child):
            fault()
            if not harmless:  # the metastore's database was on the mount: nothing of this process can go on
                engines.stop(child)

        code, text = engines.run_through(
            command, os.path.join(self.directory, "fault.log"), "a write of partitions",
            lambda: glob.glob(v.path("hive", "e2e.db", "t", ".hive-staging*", "*")), happens, environment, self.directory)
        if harmless:
            self.assertEqual(code, 0, text[-8000:])
            self.assertEqual(self.answers(text), self.ANSWER, text[-8000:])
            self.check_strays(v)
        else:
            self.check_answers(v, self.SCRIPT, self.ANSWER)
            for at, _, names in os.walk(v.path("hive")):
                # What the killed run had not moved to its place is below a staging name of its own.
                self.assertFalse(names and "-tmp." in at and ".hive-staging" not in at, at)
        v.check_plain_objects()
        v.check_end()

    def test_the_driver_is_killed(self):
        """Its tasks, too: they are threads of it."""
        with engines.engine_volume(options=self.options) as v:
            self.through(v, lambda: None, harmless=False)


class Flink(faults.Below, flink.FlinkCase):
    ROWS = 60000

    def begin(self, v, **more):
        """A job that has completed checkpoints, and runs."""
        self.start_cluster(v, **more)
        job = self.submit(v, rows=self.ROWS)
        self.wait_for("checkpoints", lambda: self.completed(job)[0] >= 2)
        self.assertEqual(self.state(job), "RUNNING", "the job ended before the fault")
        return job

    def check(self, v, stopped=True):
        """`stopped`: a task was, and so left its part files in progress behind."""
        self.kill("TaskManager", "JobManager")
        rows = self.rows(v)
        self.assertEqual((len(rows), len(set(rows))), (self.ROWS, self.ROWS))  # said so first: lists of that size take minutes to compare
        self.assertEqual(rows, list(range(self.ROWS)))
        if not stopped:
            v.check_no_strays()
        v.check_plain_objects()
        v.check_end()

    def through(self, v, fault, harmless):
        job = self.begin(v)
        fault()
        self.wait_for("the job's end", lambda: self.state(job) == "FINISHED")
        failures = self.failures(job)
        self.assertEqual(failures == [], harmless, failures)
        self.check(v, stopped=not harmless)

    def test_the_jobmanager_is_killed(self):
        """The TaskManager lives, and writes until it misses its leader; the next JobManager gets it with its old job's files."""
        self.ROWS *= 2  # the old job must not come to its end before that
        with engines.engine_volume(options=self.options) as v:
            job = self.begin(v, **{"heartbeat.interval": "4s", "heartbeat.timeout": "16s"})
            self.kill("JobManager")
            checkpoints = [os.path.dirname(name) for name in glob.glob(v.path("checkpoints", job, "chk-*", "_metadata"))]
            newest = max(checkpoints, key=lambda path: int(path.rpartition("-")[2]))
            self.start_jobmanager()
            self.wait_for("its slots", lambda: (self.ask("/overview") or {}).get("slots-available") == 2)
            # A source that comes to its end publishes its files without any JobManager.
            self.assertLess(len(self.rows(v)), self.ROWS, "the old job came to its end")
            job = self.submit(v, rows=self.ROWS, **{"execution.state-recovery.path": "file://" + newest})
            self.wait_for("the job's end", lambda: self.state(job) == "FINISHED")
            self.check(v)


if __name__ == "__main__":
    unittest.main()
