"""TPC-H in Parquet files, asked by DuckDB and read by pyarrow, on a cold and on a warm mount: the answers of the local disk, and no more bytes than they need."""

import hashlib
import json
import os
import shutil
import tempfile
import time
import unittest

import engines
import tpch
from volume import binary

PACKAGES = ("duckdb==1.1.3", "pyarrow==17.0.0")
SCALE = "0.1"

MAKE = """
import duckdb, os, sys
duckdb.sql("CALL dbgen(sf=%s)" % sys.argv[2])
for table in sys.argv[3:]:
    duckdb.sql("COPY %s TO '%s' (FORMAT parquet)" % (table, os.path.join(sys.argv[1], table + ".parquet")))
"""
ASK = """
import duckdb, json, os, sys
db = duckdb.connect(config={"threads": "2"})
for table in json.loads(sys.argv[2]):
    db.sql("CREATE VIEW %s AS SELECT * FROM '%s'" % (table, os.path.join(sys.argv[1], table + ".parquet")))
print("ROWS" + json.dumps({name: [[str(x) for x in row] for row in db.sql(query).fetchall()] for name, query in json.loads(sys.argv[3]).items()}))
"""
COLUMNS = ["l_partkey", "l_extendedprice", "l_comment"]
SCAN = {"scan": "SELECT count(*), sum(l_partkey), sum(l_extendedprice), sum(length(l_comment)) FROM lineitem"}
SIZES = """
import pyarrow.parquet as pq, sys
meta = pq.ParquetFile(sys.argv[1]).metadata
groups = [meta.row_group(i) for i in range(meta.num_row_groups)]
print("ROWS" + str(sum(g.column(i).total_compressed_size for g in groups for i in range(g.num_columns) if g.column(i).path_in_schema in sys.argv[2:])))
"""
ARROW = """
import hashlib, json, pyarrow as pa, pyarrow.dataset as ds, sys
table = ds.dataset(sys.argv[1], format="parquet").to_table(columns=sys.argv[2:]).combine_chunks()
with pa.BufferOutputStream() as sink:
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    print("ROWS" + json.dumps([table.num_rows, hashlib.sha256(sink.getvalue()).hexdigest()]))
"""

REPORT = """
import datetime, pyarrow as pa, pyarrow.orc, pyarrow.parquet, sys
keys = sys.argv[3:]
table = pa.table({"bucket": ["data"] * len(keys) + ["data"], "key": keys + ["gone"], "is_latest": [True] * len(keys) + [False],
                  "size": pa.array([*range(len(keys)), None], pa.int64()), "e_tag": ["0123"] * (len(keys) + 1), "storage_class": ["STANDARD"] * (len(keys) + 1),
                  "last_modified_date": pa.array([datetime.datetime(2026, 11, 20, 10, 11, 12, 345000)] * (len(keys) + 1), pa.timestamp("ms"))})
(pa.parquet.write_table if sys.argv[1] == "Parquet" else pa.orc.write_table)(table, sys.argv[2])
print("ROWS0")
"""
REPORT_SCHEMA = "message s3.inventory { bucket key is_latest size e_tag storage_class last_modified_date }"

PAGE = """
import duckdb, json, sys
with duckdb.connect(sys.argv[1] + "/db.duckdb") as db:
    db.sql("CREATE TABLE t AS SELECT range AS id FROM range(1000)")
asked = [duckdb.sql(statement) for statement in json.loads(sys.argv[2])]
groups = [sorted(one.fetchall()) for one in asked if one]
names = {}
exec(sys.argv[3], names)
print("ROWS" + json.dumps([groups, duckdb.sql("SELECT count(*), sum(id) FROM db.t").fetchall(), names["table"].num_rows, names["table"].column_names]))
"""


def examples(section, mount):
    """The lines of a section of docs/engines.md, for this mount."""
    with open(os.path.join(engines.ROOT, "docs", "engines.md"), encoding="utf-8") as page:
        (text,) = [part for part in page.read().split("\n## ") if part.startswith(section + "\n")]
    return [line.strip().replace("/mnt/bucket", mount) for line in text.splitlines() if line.startswith("    ")]


class Parquet(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.python = engines.python("parquet", *PACKAGES)
        cls.local = tempfile.mkdtemp(prefix="parquet-")
        cls.addClassCleanup(shutil.rmtree, cls.local, ignore_errors=True)
        engines.run([cls.python, "-c", MAKE, cls.local, SCALE, *tpch.TABLES])

    def run_python(self, program, *arguments):
        _, text = engines.run([self.python, "-c", program, *arguments])
        return json.loads(text[text.index("ROWS") + 4:])

    def ask(self, directory, queries):
        return self.run_python(ASK, directory, json.dumps(tpch.TABLES), json.dumps(queries))

    def fetched(self, v):
        text = v.ask(op="metrics")["text"]
        return int(float(text.split("\nsluice_fetch_bytes_total ")[1].split()[0]))

    def cold(self, v):
        """A new daemon on a new mount, without its cache."""
        v.unmount()
        shutil.rmtree(os.path.join(v.directory, "meta", "cache"), ignore_errors=True)
        v.mount()

    def warm(self, v, program):
        """Bytes fetched by a first run. It must give the answer of the local disk, and so must one that the cache's disk serves."""
        wanted = program(self.local)
        self.cold(v)
        before = self.fetched(v)
        self.assertEqual(program(v.path("tpch")), wanted)
        cold = self.fetched(v) - before
        v.unmount()
        v.mount()  # neither the kernel nor the daemon has anything
        before = self.fetched(v)
        self.assertEqual(program(v.path("tpch")), wanted)
        # A disk that is busy for long is passed by: so this is not always 0.
        self.assertLess(self.fetched(v) - before, cold / 4)
        return cold

    def near(self, fetched, asked, bound):
        print("%.2f bytes fetched for each byte asked" % (fetched / asked), flush=True)
        self.assertLess(fetched / asked, bound)

    def test_cold_and_warm(self):
        file = os.path.join(self.local, "lineitem.parquet")
        with engines.engine_volume() as v:
            shutil.copytree(self.local, v.path("tpch"))
            v.settle()
            with self.subTest("queries"):
                self.warm(v, lambda directory: self.ask(directory, tpch.QUERIES))
            asked = self.run_python(SIZES, file, *COLUMNS)
            with self.subTest("DuckDB, 3 columns of 16"):
                # The kernel rounds reads of 256 KiB and more up to its read-ahead of 1 MiB (docs/benchmarks.md).
                self.near(self.warm(v, lambda directory: self.ask(directory, SCAN)), asked, 2)
            with self.subTest("pyarrow, 3 columns of 16"):
                arrow = lambda directory: self.run_python(ARROW, os.path.join(directory, "lineitem.parquet"), *COLUMNS)
                self.near(self.warm(v, arrow), asked, 1.2)
            v.check_end()

    def test_examples_of_the_page(self):
        rows, parts = 100000, 4
        with engines.engine_volume() as v:
            groups, database, count, columns = self.run_python(PAGE, v.mountpoint, json.dumps(examples("DuckDB", v.mountpoint)),
                                                               "\n".join(examples("pyarrow", v.mountpoint)))
            self.assertEqual(groups, [[[part, rows // parts, sum(range(part, rows, parts))] for part in range(parts)]])
            self.assertEqual((database, count, columns), ([[1000, sum(range(1000))]], rows, ["id", "part"]))
            v.check_plain_objects()
            v.check_end()

    def test_inventories_of_parquet_and_orc(self):
        keys = ["a/x y", "b%c", "d'e/f\"g", "\u00fc/\u00f6", "p+q"]
        for kind in "Parquet", "ORC":
            with self.subTest(kind), tempfile.TemporaryDirectory(prefix="inventory-") as directory:
                os.mkdir(os.path.join(directory, "data"))
                report, manifest = os.path.join(directory, "it's.report"), os.path.join(directory, "manifest.json")
                self.run_python(REPORT, kind, report, *keys)
                with open(report, "rb") as f:
                    data = f.read()
                with open(manifest, "w", encoding="utf-8") as f:
                    json.dump({"sourceBucket": "data", "creationTimestamp": str(int(time.time() * 1000)), "fileFormat": kind, "fileSchema": REPORT_SCHEMA,
                               "files": [{"key": "it's.report", "size": len(data), "MD5checksum": hashlib.md5(data).hexdigest()}]}, f)
                _, text = engines.run([binary(), "import", "file://" + os.path.join(directory, "data"), "--inventory", manifest, "--json",
                                       "--meta-dir", os.path.join(directory, "meta")], env=engines.environment({"PATH": os.path.dirname(self.python) + ":" + os.environ["PATH"]}))
                said = json.loads(text[text.index("{"):])
                self.assertEqual([said[name] for name in ("rows", "files", "skipped", "bytes")], [len(keys) + 1, len(keys), 1, sum(range(len(keys)))])


if __name__ == "__main__":
    unittest.main()
