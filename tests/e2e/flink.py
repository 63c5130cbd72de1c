"""How the tests start a JobManager, a TaskManager and the job that both run: numbers into files, with checkpoints on the mount."""

import csv
import glob
import json
import os
import re
import shutil
import tempfile
import unittest
import urllib.request
import zlib

import engines
import gateway
import volume

VERSION = "2.3.0"
PACKAGE = "apache-flink-libraries==" + VERSION
ROWS = 90000
ROWS_PER_S = 1500
OPENS = ["java.lang", "java.lang.reflect", "java.io", "java.net", "java.nio", "java.text", "java.time",
         "java.util", "java.util.concurrent", "java.util.concurrent.atomic", "java.util.concurrent.locks",
         "sun.nio.ch"]

SQL = """
SET 'pipeline.name' = 'e2e';
%(more)s
CREATE TABLE numbers (id BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '%(rate)d',
    'fields.id.kind' = 'sequence', 'fields.id.start' = '0', 'fields.id.end' = '%(last)d');
CREATE TABLE files (id BIGINT, part BIGINT) PARTITIONED BY (part) WITH ('connector' = 'filesystem',
    'path' = 'file://%(out)s', %(format)s);
INSERT INTO files SELECT id, MOD(id, 3) FROM numbers;
"""

ROW_FORMAT = "'format' = 'csv', 'sink.rolling-policy.file-size' = '64kb', 'sink.rolling-policy.check-interval' = '1s'"
BULK_FORMAT = "'format' = 'avro', 'avro.codec' = 'deflate'"


def csv_ids(path):
    with open(path, newline="") as file:
        return [int(row[0]) for row in csv.reader(file)]


def avro_ids(path):
    """The column id of an Avro file, all of whose columns are BIGINT."""
    with open(path, "rb") as file:
        whole = file.read()
    if whole[:4] != b"Obj\x01":
        raise AssertionError("%s is no Avro file" % path)
    data, at, about = whole, 4, {}

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return (value >> 1) ^ -(value & 1)

    def take(length):
        nonlocal at
        at += length
        return data[at - length:at]

    while count := number():
        for _ in range(count):
            name = take(number())
            about[name] = take(number())
    if about[b"avro.codec"] != b"deflate":
        raise AssertionError("%s has the codec %r" % (path, about[b"avro.codec"]))

    def read(kind):
        if isinstance(kind, list):  # a union says first which of its types follows
            return read(kind[number()])
        if isinstance(kind, dict):
            return {f["name"]: read(f["type"]) for f in kind["fields"]} if kind["type"] == "record" else read(kind["type"])
        return None if kind == "null" else number()

    schema, sync, ids = json.loads(about[b"avro.schema"]), take(16), []
    while at < len(whole):
        count, block = number(), take(number())
        if take(16) != sync:
            raise AssertionError("%s is torn" % path)
        after, data, at = at, zlib.decompress(block, -15), 0
        ids += [read(schema)["id"] for _ in range(count)]
        if at != len(data):
            raise AssertionError("%s has more than %r" % (path, schema))
        data, at = whole, after
    return ids


class FlinkCase(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        python = engines.python("flink23", PACKAGE, pip=("--no-deps",))
        (home,) = glob.glob(os.path.join(os.path.dirname(os.path.dirname(python)), "lib", "*", "site-packages",
                                         "pyflink"))
        # The client asks for the Python part, whether it is used or not.
        client = [glob.glob(os.path.join(home, "opt", name))[0]
                  for name in ("flink-sql-client*.jar", "flink-python*.jar")]
        cls.classpath = ":".join([os.path.join(home, "lib", "*"), *(engines.maven_jar(
            "org.apache.flink", name, VERSION) for name in ("flink-connector-datagen", "flink-sql-avro"))])
        # These the wheel has not.
        client += [engines.maven_jar("org.apache.flink", name, VERSION)
                   for name in ("flink-sql-gateway", "flink-sql-gateway-api")]
        cls.client_classpath = ":".join([cls.classpath, *client])
        cls.directory = tempfile.mkdtemp(prefix="flink-")
        cls.addClassCleanup(shutil.rmtree, cls.directory, ignore_errors=True)

    def setUp(self):
        self.processes = {}
        self.addCleanup(self.kill, "JobManager", "TaskManager")

    def configure(self, v, **more):
        self.rest = gateway.free_port()
        conf = {
            "jobmanager.rpc.address": "127.0.0.1",
            "jobmanager.rpc.port": gateway.free_port(),
            "jobmanager.bind-host": "127.0.0.1",
            "rest.address": "127.0.0.1",
            "rest.bind-address": "127.0.0.1",
            "rest.port": self.rest,
            "taskmanager.host": "127.0.0.1",
            "taskmanager.bind-host": "127.0.0.1",
            "taskmanager.numberOfTaskSlots": 2,
            "taskmanager.cpu.cores": 2,
            "taskmanager.memory.framework.heap.size": "128mb",
            "taskmanager.memory.framework.off-heap.size": "64mb",
            "taskmanager.memory.task.heap.size": "128mb",
            "taskmanager.memory.task.off-heap.size": "0mb",
            "taskmanager.memory.managed.size": "64mb",
            "taskmanager.memory.network.min": "32mb",
            "taskmanager.memory.network.max": "32mb",
            "taskmanager.memory.jvm-metaspace.size": "192mb",
            "taskmanager.memory.jvm-overhead.min": "64mb",
            "taskmanager.memory.jvm-overhead.max": "64mb",
            "parallelism.default": 2,
            "io.tmp.dirs": self.directory,
            "execution.checkpointing.interval": "2s",
            "execution.checkpointing.dir": "file://" + v.path("checkpoints"),
            "execution.checkpointing.data-inline-threshold": "0",
            "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
            "restart-strategy.type": "fixed-delay",
            "restart-strategy.fixed-delay.attempts": 1000,
            "restart-strategy.fixed-delay.delay": "1s",
            "heartbeat.timeout": "60s",
            "pekko.startup-timeout": "2min",  # 10 s by default, in which a busy machine does not load its classes
            **more,
        }
        self.conf = os.path.join(self.directory, "conf")
        os.makedirs(self.conf, exist_ok=True)
        with open(os.path.join(self.conf, "config.yaml"), "w") as file:
            file.writelines("%s: %s\n" % item for item in conf.items())
        with open(os.path.join(self.conf, "log4j.properties"), "w") as file:
            file.write("rootLogger.level = INFO\nrootLogger.appenderRef.c.ref = C\nappender.c.name = C\n"
                       "appender.c.type = CONSOLE\nappender.c.layout.type = PatternLayout\n"
                       "appender.c.layout.pattern = %d %p %c{1} %m%n\n")

    def java(self, classpath, heap, *command):
        return ["java", "-Xmx" + heap, *("--add-opens=java.base/%s=ALL-UNNAMED" % p for p in OPENS),
                "-Dlog4j.configurationFile=file:" + os.path.join(self.conf, "log4j.properties"),
                "-cp", classpath, *command]

    def start(self, name, main):
        self.processes[name] = engines.start(
            self.java(self.classpath, "512m", main, "--configDir", self.conf), os.path.join(self.directory, name + ".log"),
            engines.environment({"FLINK_CONF_DIR": self.conf}), self.directory)

    def start_jobmanager(self):
        self.start("JobManager", "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint")

    def start_taskmanager(self):
        self.start("TaskManager", "org.apache.flink.runtime.taskexecutor.TaskManagerRunner")

    def kill(self, *names):
        for name in names:
            child = self.processes.pop(name, None)
            if child:
                engines.stop(child)

    def ask(self, path, body=None):
        """The reply of the JobManager; None while it has none. `body`: a POST."""
        request = urllib.request.Request("http://127.0.0.1:%d%s" % (self.rest, path), headers={"Content-Type": "application/json"},
                                         data=None if body is None else json.dumps(body).encode())
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return json.load(reply)
        except (OSError, ValueError):
            return None

    def wait_for(self, what, condition):
        def check():
            for name, child in self.processes.items():
                if child.poll() is not None:
                    raise AssertionError("%s ended with %d:\n%s" % (name, child.returncode, self.log(name)))
            return condition()
        try:
            volume.wait_until(what, check, engines.JOB_S)
        except AssertionError:
            for name in self.processes:
                print(self.log(name))
            raise

    def log(self, name):
        with open(os.path.join(self.directory, name + ".log"), errors="replace") as file:
            return file.read()[-6000:]

    def start_cluster(self, v, **more):
        """One of each, which wait for a job."""
        self.configure(v, **more)
        self.start_jobmanager()
        self.start_taskmanager()
        self.wait_for("a slot", lambda: (self.ask("/overview") or {}).get("slots-total"))

    def submit(self, v, form=ROW_FORMAT, rows=ROWS, **settings):
        script = os.path.join(self.directory, "job.sql")
        more = "".join("SET '%s' = '%s';\n" % item for item in settings.items())
        with open(script, "w") as file:
            file.write(SQL % {"more": more, "rate": ROWS_PER_S, "last": rows - 1, "out": v.path("out"), "format": form})
        _, text = engines.run(
            self.java(self.client_classpath, "512m", "org.apache.flink.table.client.SqlClient", "embedded", "-f",
                      script),
            cwd=self.directory, env=engines.environment({"FLINK_CONF_DIR": self.conf}))
        found = re.findall(r"Job ID: ([0-9a-f]{32})", text)
        self.assertEqual(len(found), 1, text[-5000:])
        return found[0]

    def completed(self, job):
        """How many checkpoints the job has completed, and the path of the last."""
        reply = self.ask("/jobs/%s/checkpoints" % job)
        last = reply and reply.get("latest", {}).get("completed")
        return (reply["counts"]["completed"], last["external_path"]) if last else (0, None)

    def state(self, job):
        return (self.ask("/jobs/" + job) or {}).get("state")

    def failures(self, job):
        """What made the job begin anew, each time."""
        history = self.ask("/jobs/%s/exceptions" % job)["exceptionHistory"]
        return [entry["exceptionName"] + ": " + entry["stacktrace"][:2000] for entry in history["entries"]]

    def rows(self, v, read=csv_ids):
        return sorted(i for path in glob.glob(v.path("out", "part=*", "part-*")) for i in read(path))
