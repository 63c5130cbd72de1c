"""How the tests start Hive's command line: on plain paths, or on s3a:// paths through the jar."""

import os
import shutil
import tempfile
import unittest

import engines

OPENS = ["java.base/java.lang", "java.base/java.lang.reflect", "java.base/java.io", "java.base/java.net",
         "java.base/java.nio", "java.base/java.text", "java.base/java.util", "java.base/java.util.concurrent",
         "java.base/java.util.concurrent.atomic", "java.base/java.util.regex", "java.base/java.time",
         "java.base/sun.nio.ch", "java.sql/java.sql"]
ROWS = 600


class PlainCase(unittest.TestCase):
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

    def answers(self, text):
        """What a script said."""
        rows = [line.split("\t") for line in text.splitlines()]
        return {row[1]: [int(x) for x in row[2:]] for row in rows if row[0] == "ANSWER"}

    def check_answers(self, v, script, wanted):
        """Runs a script to its end."""
        command, environment = self.command(v, script)
        _, text = engines.run(command, cwd=self.directory, env=environment)
        got = self.answers(text)
        if got != wanted:
            print(text[-20000:])
        self.assertEqual(got, wanted)

    def make_source(self):
        self.source = os.path.join(self.directory, "rows.csv")
        with open(self.source, "w") as file:
            file.writelines("%d,v%d\n" % (i, i) for i in range(ROWS))

    def check_strays(self, v):
        # .crc files are what Hadoop's local file system leaves beside each of its files.
        v.check_no_strays((r"_temporary", r"\.hive-staging", r"_task_tmp", r"-tmp\."))


class JarCase(PlainCase):
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

    def check_strays(self, v):
        v.check_no_strays((r"_temporary", r"\.hive-staging", r"_task_tmp", r"-tmp\.", r"\.crc$"))
