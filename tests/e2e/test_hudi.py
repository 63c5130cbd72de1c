"""Hudi tables of both kinds, on plain paths and through the jar: one driver writes, another one and DuckDB read."""

import glob
import os
import unittest

import engines
import spark

ROWS = 300


def wanted():
    """What the job leaves of its rows."""
    table = {i: "first" for i in range(ROWS)}
    table.update((i, "second") for i in range(0, ROWS + ROWS // 2, 3))
    for i in range(0, ROWS, 10):
        del table[i]
    return [[i, text, i % 4] for i, text in sorted(table.items())]


class Tables:
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.bundle = engines.maven_jar("org.apache.hudi", "hudi-spark3.5-bundle_2.12", "1.0.2")

    def conf(self, v, **more):
        conf = super().conf(v, **more)
        conf.update({
            "spark.driver.extraClassPath": ":".join(filter(None, [conf.get("spark.driver.extraClassPath"), self.bundle])),
            "spark.serializer": "org.apache.spark.serializer.KryoSerializer",
            "spark.kryo.registrator": "org.apache.spark.HoodieSparkKryoRegistrar",
            "spark.sql.extensions": "org.apache.spark.sql.hudi.HoodieSparkSessionExtension",
            "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.hudi.catalog.HoodieCatalog",
        })
        return conf

    def newest_files(self, table):
        """Of a copy-on-write table: names are GROUP_TASK_INSTANT.parquet."""
        newest = {}
        for path in glob.glob(os.path.join(table, "part=*", "*.parquet")):
            group, _, instant = os.path.basename(path)[:-len(".parquet")].split("_")
            newest[group] = max(newest.get(group, ("", "")), (instant, path))
        return [path for _, path in newest.values()]

    def test_insert_upsert_delete(self):
        with engines.engine_volume() as v:
            before = v.status()["mount"]["failed_renames"]
            self.job(v, "spark_hudi", rows=ROWS, write=True)
            tables = self.job(v, "spark_hudi", rows=ROWS, write=False)["tables"]
            for kind in ("COPY_ON_WRITE", "MERGE_ON_READ"):
                self.assertEqual(tables[kind], wanted(), kind)
            files = self.newest_files(v.path("jobs", "hudi-copy_on_write"))
            rows = self.duckdb("SELECT id, text, id %% 4 FROM read_parquet(%r) ORDER BY id" % files)
            self.assertEqual(rows, [[str(x) for x in row] for row in wanted()])
            self.assertEqual(v.status()["mount"]["failed_renames"], before)
            v.check_plain_objects()
            v.check_end()


class Plain(Tables, spark.PlainCase):
    """On file:// paths."""


class Jar(Tables, spark.JarCase):
    """On s3a:// paths."""


if __name__ == "__main__":
    unittest.main()
