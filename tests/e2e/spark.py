"""How the tests start Spark's jobs (jobs/): on plain paths, or on s3a:// paths through the jar."""

import json
import os
import shutil
import signal
import tempfile
import unittest

import engines

PACKAGES = ("pyspark==3.5.9", "duckdb==1.1.3", "tpchgen-cli==4.0.0")
JOBS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "jobs")


class PlainCase(unittest.TestCase):
    """Jobs on file:// paths."""

    environment, packages = "spark35", PACKAGES

    @classmethod
    def setUpClass(cls):
        cls.python = engines.python(cls.environment, *cls.packages)
        cls.directory = tempfile.mkdtemp(prefix="spark-")
        cls.addClassCleanup(shutil.rmtree, cls.directory, ignore_errors=True)

    def conf(self, v, **more):
        scratch = os.path.join(self.directory, "scratch")
        conf = {
            "spark.master": "local[2]",
            "spark.ui.enabled": "false",
            "spark.driver.memory": "1g",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.driver.host": "127.0.0.1",
            "spark.local.dir": scratch,
            "spark.sql.shuffle.partitions": "4",
            "spark.sql.warehouse.dir": v.path("warehouse"),
            "spark.driver.extraJavaOptions": "-Dderby.stream.error.file=%s/derby.log" % self.directory,
            "spark.hadoop.javax.jdo.option.ConnectionURL":
                "jdbc:derby:;databaseName=%s;create=true" % v.path("metastore"),
        }
        conf.update(more)
        return conf

    def base(self, v):
        return "file://" + v.path("jobs")

    def command(self, v, job, conf=None, **members):
        answers = os.path.join(self.directory, job + ".answers")
        if os.path.exists(answers):
            os.unlink(answers)
        path = os.path.join(self.directory, job + ".json")
        with open(path, "w") as file:
            json.dump(dict(members, conf=self.conf(v, **(conf or {})), base=self.base(v), answers=answers), file)
        return [self.python, os.path.join(JOBS, job + ".py"), path], answers

    def job(self, v, name, **members):
        command, answers = self.command(v, name, **members)
        engines.run(command, cwd=self.directory)
        with open(answers) as file:
            return json.load(file)

    def log(self, name):
        return os.path.join(self.directory, name)

    def job_through(self, v, name, what, condition, fault, **members):
        """Runs a job, and fault() when condition() is true; the job's answers, or None if it failed."""
        command, answers = self.command(v, name, **members)
        code, text = engines.run_through(command, self.log("fault.log"), what, condition, lambda child: fault(), cwd=self.directory)
        if code:
            print(text[-8000:], flush=True)
            return None
        with open(answers) as file:
            return json.load(file)

    def kill_when(self, v, name, what, condition, **members):
        """Starts a job, and kills it with all of its processes when condition() is true."""
        command, answers = self.command(v, name, **members)
        code, _ = engines.run_through(command, self.log("killed.log"), what, condition, engines.stop, cwd=self.directory)
        self.assertEqual(code, -signal.SIGKILL)
        self.assertFalse(os.path.exists(answers))

    def duckdb(self, sql):
        """The rows of a query, by another engine that knows nothing of Hadoop."""
        code = ("import duckdb,json,sys;"
                "print('ROWS'+json.dumps([[str(x) for x in r] for r in duckdb.sql(sys.argv[1]).fetchall()]))")
        _, text = engines.run([self.python, "-c", code, sql])
        return json.loads(text[text.index("ROWS") + 4:])


class JarCase(PlainCase):
    """Jobs on s3a:// paths."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.jar = engines.jar()

    def base(self, v):
        return "s3a://%s/jobs" % v.bucket

    def conf(self, v, **more):
        conf = super().conf(v, **more)
        conf.update({
            "spark.driver.extraClassPath": self.jar,
            "spark.hadoop.fs.s3a.impl": "io.sluice.hadoop.SluiceFileSystem",
            "spark.hadoop.fs.AbstractFileSystem.s3a.impl": "io.sluice.hadoop.SluiceFs",
            # Hadoop's own defaults give s3a a committer that works around the lack of a rename.
            "spark.hadoop.mapreduce.outputcommitter.factory.scheme.s3a":
                "org.apache.hadoop.mapreduce.lib.output.FileOutputCommitterFactory",
            "spark.hadoop.fs.sluice.mounts": "s3://%s/=%s" % (v.bucket, v.mountpoint),
            "spark.sql.warehouse.dir": "s3a://%s/warehouse" % v.bucket,
        })
        conf.update(more)
        return conf
