"""Delta and Iceberg tables with two drivers that commit at once. Through the jar no acknowledged commit is lost; on plain
paths it may be, and the test says how many were."""

import json
import os
import unittest

import engines
import spark
import volume

APPENDS = 10


class Drivers:
    """Two drivers that run one job at once; for a case of spark.py."""

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
        child = engines.start(command[:-1] + [path], os.path.join(self.directory, who, "log"), cwd=os.path.join(self.directory, who))
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
                engines.stop(child)
        said = []
        for _, _, answers in drivers:
            with open(answers) as file:
                said.append(json.load(file))
        return said

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
            "spark.driver.extraClassPath": ":".join(filter(None, [conf.get("spark.driver.extraClassPath"), *self.jars])),
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

    def commit_at_once(self, v):
        """What was acknowledged to both drivers, what failed, and what the tables hold."""
        self.job(v, "spark_lake", who="", create=True, appends=0)
        acknowledged, failed = {"delta": [], "iceberg": []}, []
        for who, said in zip("ab", self.run_drivers(v, "spark_lake")):
            failed += said["failed"]
            for name, ids in said["acknowledged"].items():
                acknowledged[name] += [[who, i] for i in ids]
        return acknowledged, failed, self.job(v, "spark_lake", who="", create=False, appends=0)["tables"]


class Jar(Drivers, spark.JarCase):
    """On s3a:// paths."""

    def test_no_commit_is_lost(self):
        with engines.engine_volume() as v:
            acknowledged, failed, tables = self.commit_at_once(v)
            self.assertEqual(failed, [])
            for name, rows in acknowledged.items():
                self.assertEqual(len(rows), 2 * APPENDS)
                self.assertEqual(sorted(tables[name]), sorted(rows), name)
            v.check_plain_objects()
            v.check_end()


class Plain(Drivers, spark.PlainCase):
    """On file:// paths: both formats look whether the next version's name is there, and rename to it then, which replaces."""

    def test_what_becomes_of_commits(self):
        with engines.engine_volume() as v:
            before = v.status()["mount"]["failed_renames"]
            acknowledged, failed, tables = self.commit_at_once(v)
            self.assertEqual(v.status()["mount"]["failed_renames"], before)
            for name, rows in acknowledged.items():
                # Only a commit that another one has replaced is away; what is there, is there once.
                lost = [row for row in rows if row not in tables[name]]
                self.assertEqual(len(tables[name]), len({tuple(row) for row in tables[name]}), name)
                self.assertGreaterEqual(len(tables[name]), len(rows) // 2, name)
                print("%s: %d commits acknowledged, %d of them lost; %d failed" % (
                    name, len(rows), len(lost), sum(f.startswith(name) for f in failed)), flush=True)
            v.check_plain_objects()
            v.check_end()


if __name__ == "__main__":
    unittest.main()
