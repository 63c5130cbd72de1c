"""Hadoop's own contract tests and jobs, and a write-ahead log, through the jar, on a live mount over a real S3 server."""

import glob
import os
import re
import signal
import subprocess
import unittest
import xml.etree.ElementTree

import engines
import volume
from service import ServiceVolume

SORT_ROWS = 100000
FILES, FILE_MB = 4, 8
OPENS = ["--add-opens=java.base/%s=ALL-UNNAMED" % name for name in ("java.lang", "java.util", "java.nio")]


class Hadoop(unittest.TestCase):
    def test_contract(self):
        with engines.engine_volume(options=["--posix-acl"]) as v:
            code, text = engines.maven("test", "-Dsluice.test.mount=" + v.mountpoint, check=False)
            failed, passed, skipped = [], 0, []
            folder = os.path.join(engines.HADOOP, "target", "surefire-reports")
            if code and not os.path.isdir(folder):
                self.fail(text[-20000:])
            for name in sorted(os.listdir(folder)):
                if not re.fullmatch(r"TEST-.*\.xml", name):
                    continue
                for case in xml.etree.ElementTree.parse(os.path.join(folder, name)).iter("testcase"):
                    title = case.get("classname").rpartition(".")[2] + "." + case.get("name")
                    if case.find("failure") is not None or case.find("error") is not None:
                        failed.append(title)
                    elif case.find("skipped") is not None:
                        skipped.append(title)
                    else:
                        passed += 1
            print("contract tests: %d passed, %d failed, %d skipped" % (passed, len(failed), len(skipped)))
            print("skipped: " + ", ".join(skipped))
            if code != 0 or failed:
                print(text[-20000:])
            self.assertEqual(failed, [])
            self.assertEqual(code, 0)
            self.assertGreater(passed, 250)
            v.check_no_strays()
            v.check_plain_objects()
            v.check_end()


class Jobs(unittest.TestCase):
    """By the local job runner, all data on sluice:// paths."""

    @classmethod
    def setUpClass(cls):
        cls.jar = engines.jar()
        path = os.path.join(engines.CACHE, "mapred.classpath")
        engines.maven("-q", "dependency:build-classpath", "-Dmdep.outputFile=" + path,
                      cwd=os.path.join(os.path.dirname(os.path.abspath(__file__)), "mapred"))
        with open(path, encoding="utf-8") as file:
            cls.classpath = cls.jar + ":" + file.read().strip()

    def run_main(self, v, main, *arguments):
        scratch = os.path.join(v.directory, "scratch")
        conf = {"fs.defaultFS": "sluice://v", "fs.sluice.mounts": "sluice://v/=" + v.mountpoint, "fs.sluice.impl": "io.sluice.hadoop.SluiceFileSystem",
                "fs.AbstractFileSystem.sluice.impl": "io.sluice.hadoop.SluiceFs", "mapreduce.framework.name": "local",
                "hadoop.tmp.dir": scratch, "mapreduce.cluster.local.dir": scratch,
                "mapreduce.jobtracker.staging.root.dir": "/staging"}
        # Not all of them take -D options.
        os.makedirs(scratch, exist_ok=True)
        with open(os.path.join(scratch, "core-site.xml"), "w") as file:
            file.write("<configuration>%s</configuration>" % "".join(
                "<property><name>%s</name><value>%s</value></property>" % item for item in conf.items()))
        return engines.run(["java", "-Xmx512m", *OPENS, "-cp", scratch + ":" + self.classpath, main, *arguments], cwd=scratch)[1]

    def test_terasort(self):
        with engines.engine_volume() as v:
            examples = "org.apache.hadoop.examples.terasort."
            self.run_main(v, examples + "TeraGen", "-Dmapreduce.job.maps=4", str(SORT_ROWS), "/gen")
            self.run_main(v, examples + "TeraSort", "-Dmapreduce.job.reduces=3", "/gen", "/sorted")
            self.run_main(v, examples + "TeraValidate", "/sorted", "/report")

            def rows(name):
                found = []
                for path in sorted(glob.glob(v.path(name, "part-*"))):
                    with open(path, "rb") as file:
                        data = file.read()
                    found += [data[i:i + 100] for i in range(0, len(data), 100)]
                return found

            made, ordered = rows("gen"), rows("sorted")
            self.assertEqual(len(made), SORT_ROWS)
            self.assertEqual([row[:10] for row in ordered], sorted(row[:10] for row in made))
            self.assertEqual(sorted(ordered), sorted(made))
            with open(glob.glob(v.path("report", "part-*"))[0]) as file:
                report = file.read()
            self.assertIn("checksum", report)
            self.assertNotIn("error", report)
            v.check_no_strays()
            v.check_plain_objects()
            v.check_end()

    def test_dfsio(self):
        with engines.engine_volume() as v:
            for what in ("-write", "-read", "-append", "-truncate"):
                size = FILE_MB // 2 if what == "-truncate" else FILE_MB
                text = self.run_main(v, "org.apache.hadoop.fs.TestDFSIO", what, "-nrFiles", str(FILES), "-size", "%dMB" % size, "-resFile",
                                     os.path.join(v.directory, "scratch", "results"))
                self.assertIn("Number of files: %d" % FILES, text)
                sizes = [os.path.getsize(path) >> 20 for path in glob.glob(v.path("benchmarks", "TestDFSIO", "io_data", "*"))]
                wanted = {"-append": 2 * FILE_MB, "-truncate": FILE_MB // 2}.get(what, FILE_MB)
                self.assertEqual(sizes, [wanted] * FILES, what)
            v.check_plain_objects()
            v.check_end()


class WriteAheadLog(unittest.TestCase):
    """A log as a region server keeps one (fs.sluice.leases): its writer is killed, or loses it; another client has every record."""

    @classmethod
    def setUpClass(cls):
        engines.maven("-q", "test-compile")
        path = os.path.join(engines.CACHE, "wal.classpath")
        engines.maven("-q", "dependency:build-classpath", "-Dmdep.outputFile=" + path, "-DincludeScope=test")
        target = os.path.join(engines.HADOOP, "target")
        with open(path, encoding="utf-8") as file:
            cls.classpath = ":".join([os.path.join(target, "classes"), os.path.join(target, "test-classes"), file.read().strip()])

    def command(self, v, *arguments):
        what, *rest = arguments
        return ["java", "-Xmx256m", "-cp", self.classpath, "io.sluice.hadoop.Wal", what, "sluice://" + v.path("wal", "log"), *rest]

    def write(self, v):
        """A writer, when it has acknowledged some records."""
        self.log = os.path.join(v.directory, "acks")
        with open(self.log, "wb") as out:
            child = subprocess.Popen(self.command(v, "write"), stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.PIPE, env=engines.environment())
        self.addCleanup(child.wait)
        self.addCleanup(child.stderr.close)
        self.addCleanup(child.kill)
        volume.wait_until("records", lambda: self.acknowledged() >= 150 or child.poll() is not None)
        return child

    def acknowledged(self):
        with open(self.log, "rb") as file:
            return file.read().count(b"\n")

    def recover(self, v):
        _, text = engines.run(self.command(v, "recover"))
        return int(re.search(r"^records (\d+)$", text, re.M).group(1))

    def check_more(self, v, count):
        engines.run(self.command(v, "more", "20"))
        self.assertEqual(self.recover(v), count + 20)
        self.assertEqual(os.listdir(v.path("wal")), ["log"])

    def test_writer_killed(self):
        with engines.engine_volume() as v:
            child = self.write(v)
            child.send_signal(signal.SIGKILL)
            child.wait()
            count = self.recover(v)
            self.assertGreaterEqual(count, self.acknowledged())
            self.check_more(v, count)
            v.check_plain_objects()
            v.check_end()

    def test_writer_lives_on(self):
        with engines.engine_volume() as v:
            child = self.write(v)
            before = self.recover(v)
            self.assertEqual(child.wait(timeout=volume.WAIT_S), 1)
            self.assertIn(b"IOException", child.stderr.read())
            self.assertGreaterEqual(before, self.acknowledged())
            self.check_more(v, before)
            v.check_plain_objects()
            v.check_end()

    def test_host_killed_and_another_takes_over(self):
        with engines.engine_service_volume() as first:
            with ServiceVolume(first.service, first.name, gateway=first.gateway, bucket=first.bucket) as second:
                child = self.write(first)
                first.kill()
                child.kill()
                child.wait()
                count = self.recover(second)
                self.assertGreaterEqual(count, self.acknowledged())
                self.check_more(second, count)
                second.unmount()
            first.mount()
            self.assertEqual(self.recover(first), count + 20)
            first.check_plain_objects()
            first.check_end()

    def test_writer_on_another_host_lives_on(self):
        with engines.engine_service_volume() as first:
            with ServiceVolume(first.service, first.name, gateway=first.gateway, bucket=first.bucket) as second:
                child = self.write(first)
                count = self.recover(second)
                self.assertEqual(child.wait(timeout=volume.WAIT_S), 1)
                self.assertGreaterEqual(count, self.acknowledged())
                self.check_more(second, count)
                second.unmount()
            first.check_plain_objects()
            first.check_end()


if __name__ == "__main__":
    unittest.main()
