"""Spark 4 on a mount: the jobs of Spark 3.5, and Hadoop's manifest committer, which renames file by file and says so in _SUCCESS."""

import json
import os
import unittest

import engines
import spark
from test_spark import Jobs, expected

PACKAGES = ("pyspark==4.0.1", *spark.PACKAGES[1:])
CLOUD = ("org.apache.spark", "spark-hadoop-cloud_2.13", "4.0.1")
MANIFEST = "org.apache.hadoop.mapreduce.lib.output.committer.manifest.ManifestCommitterFactory"
ROWS = 20000


class Spark4:
    environment, packages = "spark40", PACKAGES


class Manifest(Spark4):
    def manifest(self, v):
        """What makes Spark use it for paths of this scheme."""
        return {"spark.jars": engines.maven_jar(*CLOUD),
                "spark.hadoop.mapreduce.outputcommitter.factory.scheme." + self.base(v).partition(":")[0]: MANIFEST,
                "spark.sql.sources.commitProtocolClass": "org.apache.spark.internal.io.cloud.PathOutputCommitProtocol",
                "spark.sql.parquet.output.committer.class": "org.apache.spark.internal.io.cloud.BindingParquetOutputCommitter"}

    def test_manifest_committer(self):
        with engines.engine_volume() as v:
            before = v.status()["mount"]["failed_renames"]
            got = self.job(v, "spark_manifest", rows=ROWS, conf=self.manifest(v))
            self.assertEqual(got["written"], expected(range(ROWS)))
            self.assertEqual(got["appended"], expected(range(ROWS + 500)))
            with open(v.path("jobs", "written", "_SUCCESS"), encoding="utf-8") as file:
                self.assertIn("manifest", json.load(file)["committer"].lower())
            self.assertEqual(v.status()["mount"]["failed_renames"], before)
            self.check_strays(v)
            v.check_plain_objects()
            v.check_end()

    def test_manifest_committer_killed(self):
        with engines.engine_volume() as v:
            manifests = v.path("jobs", "killed", "_temporary")

            def some_tasks():
                return sum(name.endswith("-manifest.json") for _, _, names in os.walk(manifests) for name in names) >= 3

            conf = self.manifest(v)
            self.kill_when(v, "spark_slow", "the commit of tasks", some_tasks, rows=400000, conf=conf)
            self.assertFalse(os.path.exists(v.path("jobs", "killed", "_SUCCESS")))
            got = self.job(v, "spark_slow", rows=400000, conf=conf)
            self.assertEqual(got["killed"], [400000, 400000 * 399999 // 2, 400000])
            self.check_strays(v)
            v.check_plain_objects()
            v.check_end()


class Plain(Manifest, Jobs, spark.PlainCase):
    def check_strays(self, v):
        v.check_no_strays((r"_temporary", r"\.spark-staging", r"\.hive-staging", r"\.tmp$"))


class Jar(Spark4, Jobs, spark.JarCase):
    pass


class JarOwnScheme(Manifest, spark.JarCase):
    """The manifest committer refuses the scheme s3a, whatever is behind it."""

    def base(self, v):
        return "sluice://" + v.path("jobs")

    def conf(self, v, **more):
        return super().conf(v, **{"spark.hadoop.fs.sluice.impl": "io.sluice.hadoop.SluiceFileSystem",
                                  "spark.hadoop.fs.AbstractFileSystem.sluice.impl": "io.sluice.hadoop.SluiceFs", **more})

    def check_strays(self, v):
        v.check_no_strays()


if __name__ == "__main__":
    unittest.main()
