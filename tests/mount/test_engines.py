"""What data engines (Spark, Hive, Flink, Hadoop) ask of a mount beyond POSIX or at its edges:
docs/hadoop.md. Their own jobs run in tests/e2e."""

import errno
import json
import os
import threading
import unittest

import volume


class Engines(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.volume = volume.Volume()
        cls.volume.mount()
        cls.addClassCleanup(cls.volume.close)

    def setUp(self):
        self.dir = self.volume.path(self._testMethodName)
        os.mkdir(self.dir)

    def p(self, *names):
        return os.path.join(self.dir, *names)

    def ask(self, op, **members):
        return self.volume.ask(op=op, **members)

    def below(self, *names):
        return "/" + "/".join([self._testMethodName, *names])

    def fill(self, *names):
        os.makedirs(self.p(*names[:-1]), exist_ok=True)
        with open(self.p(*names), "w") as file:
            file.write("/".join(names))

    def failed_renames(self):
        return self.ask("status")["mount"]["failed_renames"]

    def refused(self, code, call, *arguments):
        with self.assertRaises(OSError) as caught:
            call(*arguments)
        self.assertEqual(caught.exception.errno, code)

    def test_remove_takes_a_tree_in_one_request(self):
        for i in range(40):
            self.fill("t", f"d{i % 7}", "e", f"f{i}")
        os.symlink("nowhere", self.p("t", "d0", "link"))
        self.fill("stays")
        # The kernel has names of it by now, and must not go on believing in them.
        self.assertTrue(os.path.exists(self.p("t", "d3", "e", "f3")))
        inside = os.open(self.p("t", "d3", "e"), os.O_RDONLY | os.O_DIRECTORY)
        self.addCleanup(os.close, inside)
        reply = self.ask("remove", path=self.below("t"))
        self.assertEqual(reply, {"ok": True, "files": 41, "directories": 15})
        self.assertEqual(os.listdir(self.dir), ["stays"])
        self.refused(errno.ENOENT, os.stat, self.p("t", "d3", "e", "f3"))
        self.refused(errno.ENOENT, os.stat, self.p("t"))
        self.refused(errno.ENOENT, lambda: os.stat("f3", dir_fd=inside))
        os.mkdir(self.p("t"))
        self.assertEqual(os.listdir(self.p("t")), [])

    def test_remove_of_a_file_that_is_open_leaves_its_handle_the_bytes(self):
        self.fill("d", "f")
        with open(self.p("d", "f"), "rb") as file:
            self.assertEqual(self.ask("remove", path=self.below("d"))["files"], 1)
            self.assertEqual(file.read(), b"d/f")
        self.assertFalse(os.path.exists(self.p("d")))

    def test_remove_with_more_names_than_a_page_holds(self):
        os.mkdir(self.p("d"))
        for i in range(1100):
            os.mkdir(self.p("d", f"{i}"))
        os.mkdir(self.p("d", "5", "x"))
        reply = self.ask("remove", path=self.below("d"))
        self.assertEqual(reply, {"ok": True, "files": 0, "directories": 1102})
        self.assertFalse(os.path.exists(self.p("d")))

    def test_remove_refuses(self):
        self.assertEqual(self.ask("remove", path="/")["error"], "EBUSY")
        self.assertEqual(self.ask("remove", path=self.below("none"))["error"], "ENOENT")
        self.fill("file")
        self.assertEqual(self.ask("remove", path=self.below("file", "x"))["error"], "ENOTDIR")

    def test_remove_needs_the_callers_rights(self):
        self.fill("locked", "f")
        os.chmod(self.dir, 0o777)
        os.chmod(self.p("locked"), 0o755)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
                reply = self.ask("remove", path=self.below("locked"))
            except OSError as error:
                reply = {"error": str(error)}
            os.write(writer, json.dumps(reply).encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            reply = json.loads(pipe.read())
        os.waitpid(child, 0)
        self.assertEqual(reply["error"], "EACCES")
        self.assertTrue(os.path.exists(self.p("locked", "f")))

    def test_failed_renames_are_counted(self):
        # Hadoop's RawLocalFileSystem answers any failed rename with a copy: it must be seen.
        self.fill("a", "f")
        self.fill("b", "f")
        before = self.failed_renames()
        os.rename(self.p("a", "f"), self.p("b", "f"))
        self.assertEqual(self.failed_renames(), before)
        self.refused(errno.ENOTEMPTY, os.rename, self.p("a"), self.p("b"))
        self.refused(errno.EISDIR, os.rename, self.p("b", "f"), self.p("a"))
        self.assertGreater(self.failed_renames(), before)

    def test_unlink_of_a_directory_is_eisdir(self):
        # remove(3), and so Java's File.delete, tries rmdir only then.
        os.mkdir(self.p("d"))
        self.refused(errno.EISDIR, os.unlink, self.p("d"))
        self.fill("d", "f")
        self.refused(errno.ENOTEMPTY, os.rmdir, self.p("d"))

    def test_one_of_two_renames_to_a_name_wins(self):
        # Two drivers commit the same version: through the control file one of them is told so.
        rounds = 50
        wins = []
        barrier = threading.Barrier(2)

        def commit(who):
            for i in range(rounds):
                self.fill(f"{i}.{who}.tmp")
                barrier.wait(120)
                reply = self.ask("rename", path=self.below(f"{i}.{who}.tmp"), to=self.below(f"{i}.json"))
                wins.append((i, who, reply.get("error")))

        threads = [threading.Thread(target=commit, args=(who,)) for who in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for i in range(rounds):
            results = {who: error for at, who, error in wins if at == i}
            self.assertEqual(sorted(results.values(), key=str), ["EEXIST", None])
            winner = next(who for who, error in results.items() if error is None)
            with open(self.p(f"{i}.json")) as file:
                self.assertEqual(file.read(), f"{i}.{winner}.tmp")

    def test_list_has_all_attributes(self):
        self.fill("f")
        os.utime(self.p("f"), ns=(1_000_000_000, 2_000_000_001))
        (entry,) = self.ask("list", path=self.below())["entries"]
        self.assertEqual((entry["atime_ns"], entry["mtime_ns"]), (1_000_000_000, 2_000_000_001))

    def test_list_as_rows_says_what_objects_say(self):
        names = ["f", 'q"\\', "\x01\n", "gr\u00fcn", "\U0001d11e", os.fsdecode(b"\xff\xfe")]
        for name in names:
            with open(self.p(name), "w") as file:
                file.write("x" * len(name))
        os.mkdir(self.p("d"))
        entries = self.ask("list", path=self.below())["entries"]
        rows = self.ask("list", path=self.below(), rows=True, cached=True)["entries"]
        self.assertEqual([len(row) for row in rows if row[0] == "d"], [7])
        members = ("mode", "uid", "gid", "size", "mtime_ns", "atime_ns")
        self.assertEqual([row[:7] for row in rows], [
            [e["name"] if "name" in e else {"name64": e["name64"]}, *(e[m] for m in members)] for e in entries])
        self.assertEqual({e["name64"] for e in entries if "name64" in e}, {"//4="})
        self.assertEqual({e["name"] for e in entries if "name" in e}, {"d", *names[:-1]})

    def test_rename_by_the_control_file_is_seen_by_who_knew_the_directories(self):
        for at, asked in enumerate((False, True)):
            old, new = f"{at}.old", f"{at}.new"
            self.fill(old, "f")
            self.fill(new, "other")
            self.assertEqual(os.listdir(self.p(new)), ["other"])
            if asked:  # the kernel has the name, as one that is not there
                self.assertFalse(os.path.exists(self.p(new, "g")))
            before = os.stat(self.p(old)).st_mtime_ns, os.stat(self.p(new)).st_mtime_ns
            reply = self.ask("rename", path=self.below(old, "f"), to=self.below(new, "g"))
            self.assertEqual(reply, {"ok": True})
            self.assertGreater(os.stat(self.p(old)).st_mtime_ns, before[0])
            self.assertGreater(os.stat(self.p(new)).st_mtime_ns, before[1])
            self.assertFalse(os.path.exists(self.p(old, "f")))
            self.assertEqual((os.listdir(self.p(old)), sorted(os.listdir(self.p(new)))), ([], ["g", "other"]))
            with open(self.p(new, "g")) as file:
                self.assertEqual(file.read(), f"{old}/f")

    def doctor(self, engine, text):
        conf = os.path.join(self.volume.directory, "conf")
        with open(conf, "w") as file:
            file.write(text)
        done = self.volume.sluice("doctor", engine, "--conf", conf, check=False)
        return done.returncode, done.stdout

    def test_doctor_reads_the_configuration_of_an_engine(self):
        code, said = self.doctor("spark", f"spark.local.dir {self.p('scratch', 'that', 'is', 'not', 'there')}\n")
        self.assertEqual(code, 1, said)
        self.assertIn("BAD   spark.local.dir", said)
        self.assertIn("\nspark.local.dir /tmp\n", said)
        code, said = self.doctor("spark", "spark.local.dir /var/tmp\n")
        self.assertEqual(code, 0, said)
        self.assertIn("ok    spark.local.dir", said)
        code, said = self.doctor("hive", "<configuration><property><name>fs.s3a.impl</name>"
                                 "<value>io.sluice.hadoop.SluiceFileSystem</value></property></configuration>")
        self.assertEqual(code, 1, said)
        self.assertIn("<name>fs.sluice.mounts</name><value>s3://BUCKET/=/mnt/BUCKET</value>", said)
        code, said = self.doctor("flink", "execution:\n  checkpointing:\n    dir: s3://bucket/checkpoints\n")
        self.assertEqual(code, 0, said)
        self.assertIn("execution.checkpointing.dir: file:///mnt/BUCKET", said)
        code, said = self.doctor("hive", "<configuration>")
        self.assertEqual(code, 2, said)
        self.assertIn("line 1", said)


if __name__ == "__main__":
    unittest.main()
