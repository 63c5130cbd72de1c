"""Spark's jobs while what is below them fails: the store, the metadata service, the cache disk, the mount's daemon, an
executor. At the end the table is the answer, exactly once, and the bucket and the namespace are clean."""

import os
import signal
import sys
import time
import unittest

import engines
import spark

sys.path[1:1] = [os.path.join(engines.ROOT, "tests", name) for name in ("tools", "fault")]
from fault_proxy import FaultProxy
from test_cache_disk import Disk

ROWS = 400000
ANSWER = [ROWS, ROWS * (ROWS - 1) // 2, ROWS]
MIB = 1 << 20


class Faults(spark.JarCase):
    def some_tasks(self, v):
        """Whether a few of the job's 40 tasks have committed."""
        try:
            return len([n for n in os.listdir(v.path("jobs", "killed", "_temporary", "0")) if n.startswith("task_")]) >= 3
        except OSError:
            return False

    def run_through(self, v, fault, **conf):
        """The job, with the fault in the middle of it; its answer, or None if it failed."""
        return self.job_through(v, "spark_slow", "the commit of tasks", lambda: self.some_tasks(v), fault, rows=ROWS, conf=conf)

    def check(self, v, got):
        self.assertEqual(got, {"killed": ANSWER})
        (row,) = self.duckdb("SELECT count(*), sum(id), count(DISTINCT id) FROM read_parquet('%s/*.parquet')" % v.path("jobs", "killed"))
        self.assertEqual([int(x) for x in row], ANSWER)
        v.check_no_strays()
        v.check_plain_objects()
        v.check_end()

    def test_the_store_says_503_for_half_a_minute(self):
        with engines.engine_volume() as v, FaultProxy(v.gateway.host, v.gateway.port) as proxy:
            v.unmount()
            v.env["AWS_ENDPOINT_URL_S3"] = proxy.endpoint
            v.mount()

            def fault():
                proxy.rules([{"action": "status", "status": 503, "code": "SlowDown"}])
                time.sleep(30)
                self.assertGreater(sum(proxy.stats()["hits"]), 0)
                proxy.rules([])

            self.check(v, self.run_through(v, fault))

    def test_the_metadata_service_is_killed(self):
        with engines.engine_service_volume() as v:
            def fault():
                v.service.kill()
                v.service.start()

            self.check(v, self.run_through(v, fault))

    def test_the_cache_disk_is_filled_by_others(self):
        disk = Disk(self, 160 * MIB)
        with engines.engine_volume(options=["--cache-dir", os.path.join(disk.mount, "c")]) as v:
            def fault():
                with open(os.path.join(disk.mount, "other"), "wb", buffering=0) as file:
                    try:
                        while True:
                            file.write(bytes(MIB))
                    except OSError:
                        pass

            self.check(v, self.run_through(v, fault))

    def test_the_daemon_is_killed_and_mounted_again(self):
        with engines.engine_volume() as v:
            def fault():
                v.kill()
                v.mount()

            got = self.run_through(v, fault, **{"spark.master": "local[2,8]"})
            if got is None:  # the driver itself may have asked while nothing was mounted
                self.assertFalse(os.path.exists(v.path("jobs", "killed", "_SUCCESS")))
                got = self.job(v, "spark_slow", rows=ROWS)
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


if __name__ == "__main__":
    unittest.main()
