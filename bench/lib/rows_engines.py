"""Rows on the engines that people run: Hadoop's client beside HDFS and file://, and a small Spark job beside ext4 and S3A.

What they run is fetched once by package name into the cache of tests/e2e (a few hundred MB).
"""

import contextlib
import glob
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

from places import ROOT, Directory, Sluice
from results import Row
from rows_meta import in_order
from volume import WAIT_S, wait_until

sys.path.append(os.path.join(ROOT, "tests", "e2e"))
import engines
import spark as spark_jobs
import tpch

JAR, LOCAL, MAGIC = "sluice, the jar", "file:// on the local disk", "S3A, magic committer"
HDFS, HDFS_SYNCED = "HDFS that syncs nothing", "HDFS, log synced"
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
def hdfs(directory, synced):
    """A NameNode and a DataNode in one process; their URL. MiniDFSCluster's own way is not to sync the NameNode's log."""
    project = os.path.join(ROOT, "tests", "e2e", "hdfs")
    base, url = os.path.join(directory, "synced" if synced else "hdfs"), os.path.join(directory, "synced.url" if synced else "hdfs.url")
    libraries = classpath(directory, project)
    with open(base + ".log", "wb") as log:
        child = subprocess.Popen(["java", "-Xmx1g", "-cp", libraries, os.path.join(project, "Hdfs.java"), base, url, str(synced)],
                                 stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=engines.environment(), cwd=directory)
    try:
        wait_until("HDFS", lambda: child.poll() is not None or os.path.exists(url))
        if child.poll() is not None:
            raise RuntimeError("HDFS does not start: see %s" % log.name)
        with open(url, encoding="utf-8") as f:
            yield f.read(), libraries
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
    with machine.places(lambda: Sluice("sluice", gateway), "local") as (volume, local), tempfile.TemporaryDirectory() as directory, \
            hdfs(directory, False) as (url, libraries), hdfs(directory, True) as (synced_url, _):
        mine, theirs = ":".join([*own, classpath(directory, engines.HADOOP, "-DincludeScope=test")]), ":".join([*own, libraries])
        made = [(JAR, "sluice://" + volume.path("rate"), mine), (LOCAL, "file://" + local.path("rate"), mine), (HDFS, url + "/rate", theirs),
                (HDFS_SYNCED, synced_url + "/rate", theirs)]
        for name, base, path in in_order(made, machine.round):
            machine.say(name)
            _, text = engines.run(["java", "-Xmx512m", "-cp", path, "io.sluice.hadoop.Rate", base, str(files), "8", str(commit)])
            found = dict(line.split() for line in text.splitlines() if len(line.split()) == 2)
            for key, row in rows.items():
                row.add(name, float(found[key]))
            took.add(name, float(found["commit_seconds"]))
    for key, _, against_hdfs, against_local in CALLS:
        rows[key].ratio(JAR, HDFS, against_hdfs and (">=", against_hdfs))
        rows[key].ratio(JAR, HDFS_SYNCED)
        rows[key].ratio(JAR, LOCAL, against_local and (">=", against_local))
    for other in (HDFS, HDFS_SYNCED, LOCAL):
        took.ratio(JAR, other)
    out.rows += [*rows.values(), took]


def s3a_conf(gateway):
    return {"fs.s3a.endpoint": gateway.endpoint, "fs.s3a.path.style.access": "true", "fs.s3a.access.key": gateway.access,
            "fs.s3a.secret.key": gateway.secret, "fs.s3a.endpoint.region": gateway.region, "fs.s3a.change.detection.mode": "none",
            # The server refuses to delete a marker of a directory that holds something.
            "fs.s3a.directory.marker.retention": "keep"}


def magic_commit(machine, out):
    """Both with the Hadoop client that comes with Spark: S3A's newer ones need another 600 MB."""
    count = 100 if machine.options.quick else 10_000
    row = Row("magic-commit", "job commit of %d files" % count, "s", better="lower")
    interpreter = engines.python("spark35", *spark_jobs.PACKAGES)
    (jars,) = glob.glob(os.path.join(os.path.dirname(os.path.dirname(interpreter)), "lib", "*", "site-packages", "pyspark", "jars"))
    engines.maven("-q", "test-compile")
    target = os.path.join(engines.HADOOP, "target")
    path = ":".join([os.path.join(target, "classes"), os.path.join(target, "test-classes"), *(engines.maven_jar(*package) for package in (HADOOP_AWS, AWS_SDK)),
                     os.path.join(jars, "*")])
    gateway = machine.gateway()
    gateway.make_bucket("s3a")
    magic = {**s3a_conf(gateway), "fs.s3a.committer.name": "magic", "fs.s3a.committer.magic.enabled": "true",
             "mapreduce.outputcommitter.factory.scheme.s3a": "org.apache.hadoop.fs.s3a.commit.S3ACommitterFactory"}
    with machine.places(lambda: Sluice("sluice", gateway)) as (volume,):
        made = [(JAR, "sluice://" + volume.path("rate"), {}), (MAGIC, "s3a://s3a/rate", magic)]
        for name, base, conf in in_order(made, machine.round):
            machine.say(name)
            _, text = engines.run(["java", "-Xmx512m", "-cp", path, "io.sluice.hadoop.Rate", base, "0", "8", str(count),
                                   *("%s=%s" % item for item in conf.items())])
            found = dict(line.split() for line in text.splitlines() if len(line.split()) == 2)
            row.add(name, float(found["commit_seconds"]))
    row.ratio(JAR, MAGIC, ("<=", 0.5))
    out.rows.append(row)


def make_partitions(place, count):
    """A table of directories with one empty file each: Spark leaves out those that have none."""
    table = place.path("jobs", "table")
    os.makedirs(table)

    def make(i):
        part = os.path.join(table, "part=%d" % i)
        os.mkdir(part)
        os.close(os.open(os.path.join(part, "f.csv"), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))

    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(make, range(count)):
            pass


def partitions(machine, out):
    """A table of many partitions: how long Spark looks before it reads."""
    count = 200 if machine.options.quick else 50_000
    row = Row("spark-partitions", "Spark finds the %d partitions of a table" % count, "s", better="lower")
    interpreter, jar = engines.python("spark35", *spark_jobs.PACKAGES), engines.jar()
    gateway = machine.gateway()
    # Nothing settles meanwhile: who looks has the machine for himself.
    with machine.places(lambda: Sluice("sluice", gateway, settle_delay="1h"), "local") as (volume, local), tempfile.TemporaryDirectory() as directory:
        job = Job(directory, interpreter, "spark_partitions")
        for place in (volume, local):
            machine.say("%s: %d partitions are made" % (place.name, count))
            make_partitions(place, count)
        # By default Spark makes a task for each directory, up to 10,000: on two processors it measures how it starts tasks then, minutes of it.
        tasks = {"spark.sql.sources.parallelPartitionDiscovery.parallelism": "8"}
        own = {"spark.driver.extraClassPath": jar, "spark.hadoop.fs.sluice.impl": "io.sluice.hadoop.SluiceFileSystem"}
        made = [("local", local, "file://", {}), ("sluice", volume, "file://", {}), (JAR, volume, "sluice://", own)]
        for name, place, scheme, conf in in_order(made, machine.round):
            machine.say(name)
            used = place.used()
            _, answers = job.seconds(scheme + place.path("jobs"), **tasks, **conf)
            if answers["rows"] != [count, count * (count - 1) // 2]:
                raise RuntimeError("%s: other partitions than were made: %s" % (name, answers["rows"]))
            row.add(name, answers["seconds"], **used.end())
        volume.kill()  # an unmount would settle it all
    for name in ("sluice", JAR):
        row.ratio(name, "local", ("<=", 1.5))
    out.rows.append(row)


class Job:
    """A job of tests/e2e/jobs."""

    def __init__(self, directory, interpreter, name, **members):
        self.directory, self.interpreter, self.name, self.members = directory, interpreter, name, members

    def seconds(self, base, **conf):
        scratch = os.path.join(self.directory, "scratch")
        path, answers = os.path.join(self.directory, "job.json"), os.path.join(self.directory, "answers")
        conf = {"spark.master": "local[2]", "spark.ui.enabled": "false", "spark.driver.memory": "1500m", "spark.driver.bindAddress": "127.0.0.1",
                "spark.driver.host": "127.0.0.1", "spark.local.dir": scratch, "spark.sql.shuffle.partitions": "4", **conf}
        with open(path, "w", encoding="utf-8") as f:
            json.dump({"conf": conf, "base": base, "answers": answers, **self.members}, f)
        began = time.perf_counter()
        engines.run([self.interpreter, os.path.join(spark_jobs.JOBS, self.name + ".py"), path], cwd=self.directory)
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
        etl, expected = Job(directory, interpreter, "spark_tpch", tables=tpch.TABLES, queries=tpch.QUERIES), None
        raw = os.path.join(directory, "raw")
        engines.run([os.path.join(os.path.dirname(interpreter), "tpchgen-cli"), "parquet", "-s", scale, "--output-dir", raw], cwd=directory)
        for name in os.listdir(raw):
            with open(os.path.join(raw, name), "rb") as f:
                gateway.put("s3a", "jobs/raw/" + name, f.read())
        for place in made:
            shutil.copytree(raw, place.path("jobs", "raw"))
            if isinstance(place, Sluice):
                place.settle()
        conf = {"spark.jars": s3a, **{"spark.hadoop." + name: value for name, value in s3a_conf(gateway).items()}}
        places = [(place.name, place, "file://" + place.path("jobs"), {}) for place in made] + [("S3A", None, "s3a://s3a/jobs", conf)]
        for name, place, base, more in in_order(places, machine.round):
            machine.say(name)
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
