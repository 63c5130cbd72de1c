"""TPC-DS: DuckDB makes the data, Spark loads it into tables on the mount and asks, DuckDB gives the same answers; DuckDB and pyarrow read Spark's tables."""

import json
import os
import re
import unittest

import engines
import spark

SCALE = "0.02"
# What both dialects know, over all three channels, with windows, unions, subqueries and CASE.
QUERIES = (3, 7, 13, 15, 19, 25, 26, 29, 33, 37, 42, 43, 46, 48, 52, 55, 61, 65, 68, 73, 79, 89, 93, 96, 98)
ARROW = "pyarrow==17.0.0"

MAKE = """
import duckdb, json, os, sys
raw = sys.argv[1]
duckdb.sql("CALL dsdgen(sf=%s)" % sys.argv[2])
tables = [r[0] for r in duckdb.sql("SELECT table_name FROM duckdb_tables() ORDER BY 1").fetchall()]
for t in tables:
    duckdb.sql("COPY %s TO '%s' (FORMAT parquet)" % (t, os.path.join(raw, t + ".parquet")))
queries = {str(n): q for n, q in duckdb.sql("SELECT query_nr, query FROM tpcds_queries()").fetchall()}
print("MADE" + json.dumps([tables, queries]))
"""
READ = """
import pyarrow.dataset as ds, pyarrow.compute as pc, sys
table = ds.dataset(sys.argv[1], format="parquet", partitioning="hive").to_table(columns=["ss_quantity", "ss_store_sk"])
print("READ", table.num_rows, pc.sum(table["ss_quantity"]).as_py(), pc.sum(table["ss_store_sk"]).as_py())
"""


def rows(answer):
    """In an order of their own: ties may come in any. Engines give averages different scales."""
    def one(text):
        try:
            return round(float(text), 1)
        except ValueError:
            return text.strip()
    return sorted(([one(x) for x in row] for row in answer), key=str)


class TpcDs(spark.JarCase):
    def same(self, name, got, wanted):
        got, wanted = rows(got), rows(wanted)
        self.assertEqual(len(got), len(wanted), name)
        for mine, theirs in zip(got, wanted):
            for a, b in zip(mine, theirs):
                if isinstance(a, float) and isinstance(b, float):
                    self.assertAlmostEqual(a, b, delta=0.11, msg="query %s: %r, %r" % (name, mine, theirs))
                else:
                    self.assertEqual(a, b, "query %s: %r, %r" % (name, mine, theirs))

    def test_queries(self):
        with engines.engine_volume() as v:
            raw = v.path("jobs", "raw")
            os.makedirs(raw)
            _, text = engines.run([self.python, "-c", MAKE, raw, SCALE], cwd=self.directory)
            tables, queries = json.loads(text[text.index("MADE") + 4:])
            self.assertEqual(len(tables), 24)
            # Without the limit, which of several equal rows come is no question.
            chosen = {str(n): re.sub(r"LIMIT\s+\d+\s*;?\s*$", "", queries[str(n)].strip().rstrip(";")) for n in QUERIES}
            got = self.job(v, "spark_tpcds", tables=tables, queries=chosen)
            views = "".join("CREATE VIEW %s AS SELECT * FROM '%s/%s.parquet';" % (t, raw, t) for t in tables)
            answered = 0
            for name, query in chosen.items():
                wanted = self.duckdb(views + query)
                self.same(name, got[name], wanted)
                answered += bool(wanted)
            print("%d queries, %d with rows" % (len(chosen), answered))
            self.assertGreater(answered, len(chosen) // 2)
            # Other readers of the same tables.
            for table in tables:
                path = v.path("jobs", "tables", table)
                (mine,) = self.duckdb("SELECT count(*) FROM read_parquet('%s/**/*.parquet', hive_partitioning=true)" % path)
                (made,) = self.duckdb("SELECT count(*) FROM '%s/%s.parquet'" % (raw, table))
                self.assertEqual(mine, made, table)
            sales = v.path("jobs", "tables", "store_sales")
            (wanted,) = self.duckdb("SELECT count(*), sum(ss_quantity), sum(ss_store_sk) FROM '%s/store_sales.parquet'" % raw)
            (duck,) = self.duckdb("SELECT count(*), sum(ss_quantity), sum(try_cast(ss_store_sk AS BIGINT)) FROM "
                                  "read_parquet('%s/**/*.parquet', hive_partitioning=true)" % sales)
            _, arrow = engines.run([engines.python("arrow17", ARROW), "-c", READ, sales])
            self.assertEqual(duck, wanted)
            self.assertEqual(re.search(r"^READ (.*)$", arrow, re.M).group(1).split(), wanted)
            v.check_no_strays()
            v.check_plain_objects()
            v.check_end()


if __name__ == "__main__":
    unittest.main()
