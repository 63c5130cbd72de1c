"""Hive's own jobs on a mount: on plain paths, and on s3a:// paths through the jar."""

import glob
import os
import shutil
import subprocess
import tempfile
import unittest

import engines
import volume

OPENS = ["java.base/java.lang", "java.base/java.lang.reflect", "java.base/java.io", "java.base/java.net",
         "java.base/java.nio", "java.base/java.text", "java.base/java.util", "java.base/java.util.concurrent",
         "java.base/java.util.concurrent.atomic", "java.base/java.util.regex", "java.base/java.time",
         "java.base/sun.nio.ch", "java.sql/java.sql"]
ROWS = 600

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

# May be begun again wherever it was broken off.
AGAIN = """
CREATE DATABASE IF NOT EXISTS e2e LOCATION '%(base)s/e2e.db';
USE e2e;
CREATE TABLE IF NOT EXISTS raw (id BIGINT, text STRING) ROW FORMAT DELIMITED FIELDS TERMINATED BY ',' STORED AS TEXTFILE;
LOAD DATA LOCAL INPATH '%(input)s' OVERWRITE INTO TABLE raw;
CREATE TABLE IF NOT EXISTS t (id BIGINT, text STRING) PARTITIONED BY (part BIGINT) STORED AS ORC;
INSERT OVERWRITE TABLE t PARTITION (part) SELECT id, text, id %% 5 FROM raw;
INSERT OVERWRITE TABLE t PARTITION (part) SELECT id + 10000, text, id %% 5 + 5 FROM raw;
SELECT 'ANSWER', 'again', count(*), sum(id), count(DISTINCT part) FROM t;
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


class Plain(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.jars = os.path.join(engines.CACHE, "hive401")
        if not os.path.exists(os.path.join(cls.jars, "complete")):
            engines.maven("-q", "dependency:copy-dependencies", "-DincludeScope=runtime",
                          "-DoutputDirectory=" + cls.jars,
                          cwd=os.path.join(os.path.dirname(os.path.abspath(__file__)), "hive"))
            open(os.path.join(cls.jars, "complete"), "w").close()
        cls.directory = tempfile.mkdtemp(prefix="hive-")
        cls.addClassCleanup(shutil.rmtree, cls.directory, ignore_errors=True)

    def base(self, v):
        return "file://" + v.path("hive")

    def classpath(self):
        return os.path.join(self.jars, "*")

    def conf(self, v):
        def local(name):
            return os.path.join(self.directory, name)
        return {
            "fs.defaultFS": "file:///",
            "javax.jdo.option.ConnectionURL": "jdbc:derby:;databaseName=%s;create=true" % v.path("metastore"),
            "javax.jdo.option.ConnectionDriverName": "org.apache.derby.jdbc.EmbeddedDriver",
            "datanucleus.schema.autoCreateAll": "true",
            "hive.metastore.schema.verification": "false",
            "metastore.try.direct.sql": "false",
            "hive.stats.column.autogather": "false",
            "hive.metastore.warehouse.dir": self.base(v) + "/warehouse",
            "hive.metastore.warehouse.external.dir": self.base(v) + "/external",
            "hive.execution.engine": "mr",
            "mapreduce.framework.name": "local",
            "mapreduce.cluster.local.dir": local("mapred"),
            "mapreduce.jobtracker.staging.root.dir": local("staging"),
            "hive.exec.scratchdir": local("scratch"),
            "hive.exec.local.scratchdir": local("scratch-local"),
            "hive.downloaded.resources.dir": local("resources"),
            "hive.querylog.location": local("querylog"),
            "hive.exec.dynamic.partition.mode": "nonstrict",
            "hive.auto.convert.join": "false",
            "hive.exec.submit.local.task.via.child": "false",
            "hive.query.results.cache.enabled": "false",
            "hive.security.authorization.enabled": "false",
            "hive.notification.event.poll.interval": "0",
        }

    def command(self, v, text):
        """Hive's command line on this script, and its environment."""
        script = os.path.join(self.directory, "script.sql")
        with open(script, "w") as file:
            file.write(text % {"base": self.base(v), "input": self.source})
        conf = os.path.join(self.directory, "conf")
        os.makedirs(conf, exist_ok=True)
        with open(os.path.join(conf, "hive-site.xml"), "w") as file:
            file.write("<configuration>%s</configuration>" % "".join(
                "<property><name>%s</name><value>%s</value></property>" % item
                for item in self.conf(v).items()))
        shutil.copy(os.path.join(conf, "hive-site.xml"), os.path.join(conf, "core-site.xml"))
        return (["java", "-Xmx1g", *("--add-opens=%s=ALL-UNNAMED" % name for name in OPENS),
                 "-Dderby.stream.error.file=" + os.path.join(self.directory, "derby.log"),
                 "-cp", conf + ":" + self.classpath(), "org.apache.hadoop.hive.cli.CliDriver", "-f", script],
                engines.environment({"HIVE_CONF_DIR": conf}))

    def check_answers(self, v, script, wanted):
        """Runs a script to its end."""
        command, environment = self.command(v, script)
        _, text = engines.run(command, cwd=self.directory, env=environment)
        got = {}
        for line in text.splitlines():
            cells = line.split("\t")
            if cells[0] == "ANSWER":
                got[cells[1]] = [int(x) for x in cells[2:]]
        if got != wanted:
            print(text[-20000:])
        self.assertEqual(got, wanted)

    def make_source(self):
        self.source = os.path.join(self.directory, "rows.csv")
        with open(self.source, "w") as file:
            file.writelines("%d,v%d\n" % (i, i) for i in range(ROWS))

    def test_tables(self):
        self.make_source()
        with engines.engine_volume() as v:
            before = v.status()["mount"]["failed_renames"]
            self.check_answers(v, SCRIPT, answers())
            self.assertEqual(v.status()["mount"]["failed_renames"], before)
            self.check_strays(v)
            v.check_plain_objects()
            v.check_end()

    def test_daemon_killed(self):
        """The mount's daemon dies while partitions are written; what was begun is done again on the new mount."""
        self.make_source()
        with engines.engine_volume() as v:
            command, environment = self.command(v, AGAIN)
            with open(os.path.join(self.directory, "killed.log"), "wb") as log:
                child = subprocess.Popen(engines.POLITE + command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                         env=environment, cwd=self.directory)
            try:
                volume.wait_until("a write of partitions", lambda: child.poll() is not None or
                                  glob.glob(v.path("hive", "e2e.db", "t", ".hive-staging*", "*")), engines.JOB_S)
                self.assertIsNone(child.poll(), "the script ended before the daemon was killed")
                v.kill()
            finally:
                child.kill()
                child.wait()
            v.mount()
            self.check_answers(v, AGAIN, {"again": [2 * ROWS, ROWS * (ROWS - 1) + ROWS * 10000, 10]})
            for at, _, names in os.walk(v.path("hive")):
                # What the killed run had not moved to its place is below a staging name of its own.
                self.assertFalse(names and "-tmp." in at and ".hive-staging" not in at, at)
            v.check_plain_objects()
            v.check_end()

    def check_strays(self, v):
        # .crc files are what Hadoop's local file system leaves beside each of its files.
        v.check_no_strays((r"_temporary", r"\.hive-staging", r"_task_tmp", r"-tmp\."))


class Jar(Plain):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.jar = engines.jar()

    def base(self, v):
        return "s3a://%s/hive" % v.bucket

    def classpath(self):
        return self.jar + ":" + super().classpath()

    def conf(self, v):
        conf = super().conf(v)
        conf.update({
            "fs.s3a.impl": "io.sluice.hadoop.SluiceFileSystem",
            "fs.AbstractFileSystem.s3a.impl": "io.sluice.hadoop.SluiceFs",
            "fs.sluice.mounts": "s3://%s/=%s" % (v.bucket, v.mountpoint),
            "mapreduce.outputcommitter.factory.scheme.s3a":
                "org.apache.hadoop.mapreduce.lib.output.FileOutputCommitterFactory",
            "hive.blobstore.optimizations.enabled": "false",
        })
        return conf

    test_daemon_killed = None  # plain paths have it

    def check_strays(self, v):
        v.check_no_strays((r"_temporary", r"\.hive-staging", r"_task_tmp", r"-tmp\.", r"\.crc$"))


if __name__ == "__main__":
    unittest.main()
