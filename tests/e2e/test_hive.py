"""Hive's own jobs on a mount: on plain paths, and on s3a:// paths through the jar."""

import unittest

import engines
import hive
from hive import ROWS

SCRIPT = """
CREATE DATABASE e2e LOCATION '%(base)s/e2e.db';
USE e2e;
CREATE TABLE raw (id BIGINT, text STRING) ROW FORMAT DELIMITED FIELDS TERMINATED BY ',' STORED AS TEXTFILE;
LOAD DATA LOCAL INPATH '%(input)s' INTO TABLE raw;
CREATE TABLE t (id BIGINT, text STRING) PARTITIONED BY (part BIGINT) STORED AS ORC;
INSERT INTO t PARTITION (part) SELECT id, text, id %% 5 FROM raw;
SELECT 'ANSWER', 'dynamic', count(*), sum(id), count(DISTINCT part) FROM t;
INSERT INTO t PARTITION (part = 1) SELECT id + 10000, text FROM raw WHERE id < 100;
INSERT OVERWRITE TABLE t PARTITION (part = 2) SELECT id + 20000, text FROM raw WHERE id %% 5 = 2;
SELECT 'ANSWER', 'static', count(*), sum(id), count(DISTINCT part) FROM t;
INSERT OVERWRITE TABLE t PARTITION (part) SELECT id + 30000, text, id %% 5 FROM raw WHERE id %% 5 IN (3, 4);
SELECT 'ANSWER', 'overwritten', count(*), sum(id), count(DISTINCT part) FROM t;
CREATE TABLE u STORED AS PARQUET AS SELECT part, count(*) AS n FROM t GROUP BY part;
SELECT 'ANSWER', 'ctas', count(*), sum(n), sum(part) FROM u;
SELECT 'ANSWER', 'join', count(*), sum(t.id), sum(u.n) FROM t JOIN u ON t.part = u.part WHERE t.part = 0;
CREATE TABLE moved LIKE t;
ALTER TABLE moved EXCHANGE PARTITION (part = 0) WITH TABLE t;
SELECT 'ANSWER', 'exchanged', count(*), sum(id), min(part) FROM moved;
ALTER TABLE t DROP PARTITION (part = 4);
SELECT 'ANSWER', 'dropped', count(*), sum(id), count(DISTINCT part) FROM t;
DROP TABLE u;
"""


def answers():
    """The same in Python."""
    raw = list(range(ROWS))
    table = {p: [i for i in raw if i % 5 == p] for p in range(5)}

    def whole():
        ids = [i for part in table.values() for i in part]
        return [len(ids), sum(ids), len(table)]

    wanted = {"dynamic": whole()}
    table[1] = table[1] + [i + 10000 for i in raw if i < 100]
    table[2] = [i + 20000 for i in raw if i % 5 == 2]
    wanted["static"] = whole()
    for p in (3, 4):
        table[p] = [i + 30000 for i in raw if i % 5 == p]
    wanted["overwritten"] = whole()
    wanted["ctas"] = [5, whole()[0], 10]
    wanted["join"] = [len(table[0]), sum(table[0]), len(table[0]) ** 2]
    wanted["exchanged"] = [len(table[0]), sum(table[0]), 0]
    del table[0], table[4]
    wanted["dropped"] = whole()
    return wanted


class Tables:
    def test_tables(self):
        self.make_source()
        with engines.engine_volume() as v:
            before = v.status()["mount"]["failed_renames"]
            self.check_answers(v, SCRIPT, answers())
            self.assertEqual(v.status()["mount"]["failed_renames"], before)
            self.check_strays(v)
            v.check_plain_objects()
            v.check_end()


class Plain(Tables, hive.PlainCase):
    """On file:// paths."""


class Jar(Tables, hive.JarCase):
    """On s3a:// paths."""


if __name__ == "__main__":
    unittest.main()
