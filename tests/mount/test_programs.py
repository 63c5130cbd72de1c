"""Programs that people run, on a mount over the real S3 server: a C project, git, sqlite, rsync, tar, fio with verify, large files, many files.

`test_programs.py --full` runs the two large ones at full size (5 GiB, 100,000 files) instead of 512 MiB and 10,000.
"""

import hashlib
import os
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from gateway import Gateway
from volume import Volume

FULL = "--full" in sys.argv
if FULL:
    sys.argv.remove("--full")


def run(*command, cwd=None, text=None):
    done = subprocess.run(command, cwd=cwd, input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=1200)
    if done.returncode != 0:
        raise AssertionError("%s ended with %d:\n%s" % (" ".join(command), done.returncode, done.stdout[-3000:]))
    return done.stdout


def make_project(at, files=400):
    """A C project of many small files with a Makefile and a test."""
    os.makedirs(os.path.join(at, "src"))
    os.makedirs(os.path.join(at, "include"))
    objects = []
    for i in range(files // 10):
        with open(os.path.join(at, "src", "unit%03d.c" % i), "w") as f:
            f.write('#include "all.h"\nint unit%03d(int x)\n{\n    return x + %d;\n}\n' % (i, i))
        objects.append("src/unit%03d.o" % i)
    with open(os.path.join(at, "include", "all.h"), "w") as f:
        f.write("".join("int unit%03d(int x);\n" % i for i in range(files // 10)))
    with open(os.path.join(at, "src", "main.c"), "w") as f:
        f.write('#include <stdio.h>\n#include "all.h"\nint main(void)\n{\n    int x = 0;\n')
        f.write("".join("    x = unit%03d(x);\n" % i for i in range(files // 10)))
        f.write('    printf("%d\\n", x);\n    return 0;\n}\n')
    with open(os.path.join(at, "Makefile"), "w") as f:
        f.write("CFLAGS = -O1 -Iinclude\nOBJECTS = src/main.o %s\n" % " ".join(objects))
        f.write("all: program\nprogram: libunits.a src/main.o\n\t$(CC) -o $@ src/main.o libunits.a\n")
        f.write("libunits.a: %s\n\tar rcs $@ $^\n" % " ".join(objects))
        f.write("check: program\n\ttest `./program` = %d\n" % sum(range(files // 10)))
        f.write("clean:\n\trm -f $(OBJECTS) program libunits.a\n")
    for i in range(files):
        d = os.path.join(at, "data", "%02d" % (i % 20))
        os.makedirs(d, exist_ok=True)
        with open(os.path.join(d, "f%d" % i), "wb") as f:
            f.write(hashlib.sha256(b"%d" % i).digest() * (i % 60))


class Programs(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = cls.enterClassContext(Gateway())
        cls.volume = Volume(gateway=cls.gateway, settle_delay="2s")
        cls.volume.inline_max = None
        cls.volume.mount()
        cls.addClassCleanup(cls.volume.close)
        cls.local = os.path.join(cls.volume.directory, "local")
        make_project(cls.local)

    @classmethod
    def tearDownClass(cls):
        cls.volume.unmount()

    def p(self, *names):
        return self.volume.path(*names)

    def test_build_a_c_project_from_a_tar_file(self):
        tar = os.path.join(self.volume.directory, "project.tar")
        run("tar", "cf", tar, "-C", self.local, ".")
        os.mkdir(self.p("project"))
        run("tar", "xf", tar, "-C", self.p("project"))
        run("make", "-j2", "check", cwd=self.p("project"))
        run("diff", "-r", "--exclude=*.o", "--exclude=program", "--exclude=libunits.a", self.local, self.p("project"))
        run("make", "clean", cwd=self.p("project"))
        run("diff", "-r", self.local, self.p("project"))

    def test_git(self):
        repository = self.p("repository")
        run("cp", "-a", self.local, repository)
        git = ("git", "-c", "user.name=t", "-c", "user.email=t@example.com")
        run("git", "init", "-q", cwd=repository)
        run("git", "add", "-A", cwd=repository)
        run(*git, "commit", "-qm", "first", cwd=repository)
        with open(os.path.join(repository, "Makefile"), "a") as f:
            f.write("# more\n")
        run(*git, "commit", "-qam", "second", cwd=repository)
        run("git", "gc", "-q", cwd=repository)
        run("git", "clone", "-q", "--no-hardlinks", repository, self.p("clone"))
        run("git", "fsck", "--full", "--strict", cwd=self.p("clone"))
        self.assertEqual(run("git", "status", "--porcelain", cwd=self.p("clone")), "")

    def test_sqlite_wal(self):
        database = self.p("test.db")
        script = "PRAGMA journal_mode=WAL; CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT);"
        script += "".join(
            "BEGIN; INSERT INTO t(b) WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x<200) SELECT hex(randomblob(50)) FROM c; COMMIT;"
            for _ in range(20))
        script += "DELETE FROM t WHERE a % 3 = 0; PRAGMA wal_checkpoint(FULL); VACUUM;"
        run("sqlite3", database, text=script)
        self.assertEqual(run("sqlite3", database, "PRAGMA integrity_check; SELECT count(*) FROM t;"), "ok\n2667\n")

    def test_rsync_both_ways(self):
        run("rsync", "-a", self.local + "/", self.p("synced") + "/")
        self.assertEqual(run("rsync", "-a", "--checksum", "--itemize-changes", self.local + "/", self.p("synced") + "/"), "")
        back = os.path.join(self.volume.directory, "back")
        run("rsync", "-a", self.p("synced") + "/", back + "/")
        self.assertEqual(run("rsync", "-a", "--checksum", "--delete", "--itemize-changes", self.local + "/", back + "/"), "")

    def test_fio_verify(self):
        run("fio", "--name=v", "--filename=" + self.p("fio"), "--size=64M", "--rw=randwrite", "--bsrange=512-128k", "--verify=crc32c",
            "--do_verify=1", "--verify_fatal=1", "--verify_state_save=0", "--ioengine=psync", "--fsync=200", "--output-format=terse", "--output=/dev/null")
        run("fio", "--name=d", "--filename=" + self.p("fio-direct"), "--size=32M", "--rw=randwrite", "--bs=4k", "--direct=1", "--ioengine=libaio",
            "--iodepth=8", "--verify=md5", "--do_verify=1", "--verify_fatal=1", "--verify_state_save=0", "--output-format=terse", "--output=/dev/null")

    def test_large_file(self):
        mib, digest = 5120 if FULL else 512, hashlib.md5()
        block = os.urandom(1 << 20)
        with open(self.p("large"), "wb") as f:
            for i in range(mib):
                piece = i.to_bytes(8, "big") + block[8:]
                digest.update(piece)
                f.write(piece)
        found = hashlib.md5()
        with open(self.p("large"), "rb") as f:
            while piece := f.read(1 << 20):
                found.update(piece)
        self.assertEqual(found.hexdigest(), digest.hexdigest())
        self.volume.settle("large")
        self.assertEqual(self.gateway.head(self.volume.bucket, "large")["content-length"], str(mib << 20))
        os.unlink(self.p("large"))

    def test_many_files_in_one_directory(self):
        count = 100000 if FULL else 10000
        os.mkdir(self.p("many"))
        for i in range(count):
            os.close(os.open(self.p("many", "f%06d" % i), os.O_CREAT | os.O_WRONLY))
        self.assertEqual(len(os.listdir(self.p("many"))), count)
        self.assertEqual(len(run("ls", "-lU", self.p("many")).splitlines()), count + 1)
        os.rename(self.p("many"), self.p("moved"))
        run("rm", "-rf", self.p("moved"))
        self.assertFalse(os.path.exists(self.p("moved")))


if __name__ == "__main__":
    unittest.main()
