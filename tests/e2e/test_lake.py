"""Delta and Iceberg tables with two drivers that commit at once, through the jar: no acknowledged commit is lost."""

import json
import os
import subprocess
import unittest

import engines
import spark
import volume

APPENDS = 10


class Drivers(spark.JarCase):
    """Two drivers that run one job at once."""

    def start_driver(self, v, job, who, go):
        os.makedirs(os.path.join(self.directory, who), exist_ok=True)
        ready = os.path.join(self.directory, who, "ready")
        command, answers = self.command(v, job, who=who, create=False, appends=APPENDS, go=go, ready=ready)
        # A configuration of its own: both drivers run the same job.
        path = os.path.join(self.directory, who, "job.json")
        with open(command[-1]) as file:
            conf = json.load(file)
        conf["answers"] = os.path.join(self.directory, who, "answers")
        with open(path, "w") as file:
            json.dump(conf, file)
        log = open(os.path.join(self.directory, who, "log"), "wb")
        child = subprocess.Popen(engines.POLITE + command[:-1] + [path], stdin=subprocess.DEVNULL, stdout=log,
                                 stderr=log, env=engines.environment(), cwd=os.path.join(self.directory, who))
        log.close()
        return child, ready, conf["answers"]

    def run_drivers(self, v, job):
        """What each driver said."""
        go = os.path.join(self.directory, "go")
        if os.path.exists(go):
            os.unlink(go)
        drivers = [self.start_driver(v, job, who, go) for who in ("a", "b")]
        try:
            volume.wait_until("both drivers", lambda: all(
                os.path.exists(ready) or child.poll() is not None for child, ready, _ in drivers), engines.JOB_S)
            open(go, "w").close()
            for child, _, answers in drivers:
                code = child.wait(timeout=engines.JOB_S)
                if code:
                    with open(os.path.join(os.path.dirname(answers), "log"), errors="replace") as file:
                        print(file.read()[-10000:])
                self.assertEqual(code, 0)
        finally:
            for child, _, _ in drivers:
                child.kill()
                child.wait()
        said = []
        for _, _, answers in drivers:
            with open(answers) as file:
                said.append(json.load(file))
            self.assertEqual(said[-1]["failed"], [])
        return said


class Lake(Drivers):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.jars = [
            engines.maven_jar("io.delta", "delta-spark_2.12", "3.3.2"),
            engines.maven_jar("io.delta", "delta-storage", "3.3.2"),
            engines.maven_jar("org.apache.iceberg", "iceberg-spark-runtime-3.5_2.12", "1.10.0"),
        ]

    def conf(self, v, **more):
        conf = super().conf(v, **more)
        conf.update({
            "spark.driver.extraClassPath": ":".join([self.jar, *self.jars]),
            "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension,"
                                    "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
            "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
            "spark.sql.catalog.ice": "org.apache.iceberg.spark.SparkCatalog",
            "spark.sql.catalog.ice.type": "hadoop",
            "spark.sql.catalog.ice.warehouse": self.base(v) + "/ice",
            "spark.delta.logStore.s3a.impl": "io.delta.storage.HDFSLogStore",
            "spark.databricks.delta.snapshotPartitions": "1",
            "spark.master": "local[1]",
        })
        return conf

    def test_two_drivers(self):
        with engines.engine_volume() as v:
            self.job(v, "spark_lake", who="", create=True, appends=0)
            wanted = {"delta": [], "iceberg": []}
            for who, said in zip("ab", self.run_drivers(v, "spark_lake")):
                for name, ids in said["acknowledged"].items():
                    wanted[name] += [[who, i] for i in ids]
            tables = self.job(v, "spark_lake", who="", create=False, appends=0)["tables"]
            for name in wanted:
                self.assertEqual(len(wanted[name]), 2 * APPENDS)
                self.assertEqual(sorted(tables[name]), sorted(wanted[name]), name)
            v.check_plain_objects()
            v.check_end()


if __name__ == "__main__":
    unittest.main()
