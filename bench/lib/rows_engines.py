"""Rows on the engines that people run: Hadoop's client beside HDFS and file://, and a small Spark job beside ext4 and S3A.

What they run is fetched once by package name into the cache of tests/e2e (a few hundred MB).
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

from places import ROOT, Directory, Sluice
from results import Row
from rows_meta import in_order
from volume import WAIT_S, wait_until

sys.path.append(os.path.join(ROOT, "tests", "e2e"))
import engines
import spark as spark_jobs
import tpch

JAR, LOCAL, HDFS = "sluice, the jar", "file:// on the local disk", "HDFS"
# what Rate.java prints, what it is, what is to be reached against HDFS and against file://
CALLS = (("create", "create and close", 2, 3), ("write4k", "create, write 4 KiB, close", None, None), ("stat", "stat", 2, None),
         ("read4k", "open, read 4 KiB, close", 2, None), ("list_entries", "entries of listings", 2, None), ("rename", "rename", 2, None),
         ("delete", "delete", 2, None), ("delete_tree", "files of a tree that is deleted", None, None))
HADOOP_AWS = ("org.apache.hadoop", "hadoop-aws", "3.3.4")
AWS_SDK = ("com.amazonaws", "aws-java-sdk-bundle", "1.12.262")


def classpath(directory, project, *arguments):
    path = os.path.join(directory, "classpath")
    engines.maven("-q", "dependency:build-classpath", "-Dmdep.outputFile=" + path, *arguments, cwd=project)
    with open(path, encoding="utf-8") as f:
        return f.read().strip()


@contextlib.contextmanager
def hdfs(directory):
    """A NameNode and a DataNode in one process; their URL."""
    details = os.path.join(directory, "details")
    libraries = classpath(directory, os.path.join(ROOT, "tests", "e2e", "hdfs"))
    with open(os.path.join(directory, "hdfs.log"), "wb") as log:
        child = subprocess.Popen(["java", "-Xmx1g", "-Dhdfs.minidfs.basedir=" + directory, "-cp", libraries, "org.apache.hadoop.test.MiniDFSClusterManager",
                                  "-datanodes", "1", "-nnport", "0", "-httpport", "0", "-format", "-writeDetails", details],
                                 stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=engines.environment(), cwd=directory)
    try:
        wait_until("HDFS", lambda: child.poll() is not None or (os.path.exists(details) and os.path.getsize(details)))
        if child.poll() is not None:
            raise RuntimeError("HDFS does not start: see %s" % log.name)
        with open(details, encoding="utf-8") as f:
            yield "hdfs://localhost:%d" % json.load(f)["namenode_port"], libraries
    finally:
        child.terminate()
        child.wait(WAIT_S)


def hadoop(machine, out):
    """Calls of Hadoop's client, 8 threads, and the commit of a job."""
    files, commit = (200, 100) if machine.options.quick else (4000, 10_000)
    rows = {key: Row("hadoop-" + key.replace("_", "-"), "%s by Hadoop's client, 8 threads" % what, "op/s") for key, what, _, _ in CALLS}
    took = Row("hadoop-commit", "job commit of %d files, FileOutputCommitter 1" % commit, "s", better="lower")
    engines.maven("-q", "test-compile")
    target = os.path.join(engines.HADOOP, "target")
    own = [os.path.join(target, "classes"), os.path.join(target, "test-classes")]
    gateway = machine.gateway()
    with machine.places(lambda: Sluice("sluice", gateway), "local") as (volume, local), tempfile.TemporaryDirectory() as directory, hdfs(directory) as (url, libraries):
        mine = ":".join([*own, classpath(directory, engines.HADOOP, "-DincludeScope=test")])
        made = [(JAR, "sluice://" + volume.path("rate"), mine), (LOCAL, "file://" + local.path("rate"), mine),
                (HDFS, url + "/rate", ":".join([*own, libraries]))]
        for number in range(min(3, machine.options.rounds)):
            for name, base, path in in_order(made, number):
                machine.say("round %d: %s" % (number + 1, name))
                _, text = engines.run(["java", "-Xmx512m", "-cp", path, "io.sluice.hadoop.Rate", base, str(files), "8", str(commit)])
                found = dict(line.split() for line in text.splitlines() if len(line.split()) == 2)
                for key, row in rows.items():
                    row.add(name, float(found[key]))
                took.add(name, float(found["commit_seconds"]))
    for key, _, against_hdfs, against_local in CALLS:
        rows[key].ratio(JAR, HDFS, against_hdfs and (">=", against_hdfs))
        rows[key].ratio(JAR, LOCAL, against_local and (">=", against_local))
    took.ratio(JAR, HDFS)
    took.ratio(JAR, LOCAL)
    out.rows += [*rows.values(), took]


class Etl:
    """The job of tests/e2e/jobs/spark_tpch.py: loads eight tables into partitioned ones, and asks eight questions."""

    def __init__(self, directory, interpreter):
        self.directory, self.interpreter = directory, interpreter

    def seconds(self, base, **conf):
        scratch = os.path.join(self.directory, "scratch")
        path, answers = os.path.join(self.directory, "job.json"), os.path.join(self.directory, "answers")
        conf = {"spark.master": "local[2]", "spark.ui.enabled": "false", "spark.driver.memory": "1500m", "spark.driver.bindAddress": "127.0.0.1",
                "spark.driver.host": "127.0.0.1", "spark.local.dir": scratch, "spark.sql.shuffle.partitions": "4", **conf}
        with open(path, "w", encoding="utf-8") as f:
            json.dump({"conf": conf, "base": base, "answers": answers, "tables": tpch.TABLES, "queries": tpch.QUERIES}, f)
        began = time.perf_counter()
        engines.run([self.interpreter, os.path.join(spark_jobs.JOBS, "spark_tpch.py"), path], cwd=self.directory)
        took = time.perf_counter() - began
        with open(answers, encoding="utf-8") as f:
            return took, json.load(f)


def spark(machine, out):
    """The same job on the local disk, on the mount with what it reads warm and cold, and by Hadoop's own S3A on the same server."""
    scale = "0.01" if machine.options.quick else "0.2"
    row = Row("spark-etl", "Spark: load TPC-H tables (scale %s), write them partitioned, eight queries" % scale, "s", better="lower")
    interpreter = engines.python("spark35", *spark_jobs.PACKAGES)
    s3a = ",".join(engines.maven_jar(*package) for package in (HADOOP_AWS, AWS_SDK))
    gateway = machine.gateway()
    gateway.make_bucket("s3a")
    with machine.places(lambda: Sluice("sluice, warm", gateway), lambda: Sluice("sluice, cold", gateway), lambda: Directory("local", machine.work)) as made, \
            tempfile.TemporaryDirectory() as directory:
        etl, expected = Etl(directory, interpreter), None
        raw = os.path.join(directory, "raw")
        engines.run([os.path.join(os.path.dirname(interpreter), "tpchgen-cli"), "parquet", "-s", scale, "--output-dir", raw], cwd=directory)
        for name in os.listdir(raw):
            with open(os.path.join(raw, name), "rb") as f:
                gateway.put("s3a", "jobs/raw/" + name, f.read())
        for place in made:
            shutil.copytree(raw, place.path("jobs", "raw"))
            if isinstance(place, Sluice):
                place.settle()
        conf = {"spark.jars": s3a, "spark.hadoop.fs.s3a.endpoint": gateway.endpoint, "spark.hadoop.fs.s3a.path.style.access": "true",
                "spark.hadoop.fs.s3a.access.key": gateway.access, "spark.hadoop.fs.s3a.secret.key": gateway.secret,
                "spark.hadoop.fs.s3a.endpoint.region": gateway.region, "spark.hadoop.fs.s3a.change.detection.mode": "none",
                # The server refuses to delete a marker of a directory that holds something.
                "spark.hadoop.fs.s3a.directory.marker.retention": "keep"}
        places = [(place.name, place, "file://" + place.path("jobs"), {}) for place in made] + [("S3A", None, "s3a://s3a/jobs", conf)]
        for number in range(min(3, machine.options.rounds)):
            for name, place, base, more in in_order(places, number):
                machine.say("round %d: %s" % (number + 1, name))
                if name == "sluice, cold":
                    place.drop_caches()
                used = place.used() if place else None
                took, answers = etl.seconds(base, **more)
                if expected not in (None, answers):
                    raise RuntimeError("%s: other answers than before" % name)
                expected = answers
                row.add(name, took, **(used.end() if place else {}))
    row.ratio("local", "sluice, warm", (">=", 0.95), "speed of the warm mount against the local disk")
    row.ratio("S3A", "sluice, cold", (">=", 1.3), "speed of the cold mount against S3A")
    out.rows.append(row)
