"""file:// as a store: the conformance suite on real filesystems, several processes at once, a full disk."""

import concurrent.futures
import os
import subprocess
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TOOLS = os.path.join(os.environ.get("SLUICE_BUILD") or os.path.join(ROOT, "build"), "tests", "tools")
LIMIT_S = 300
ENOSPC, EEXIST = 28, 17


def run(tool, *arguments, body=None):
    """Exit status and standard output of one of the tools."""
    done = subprocess.run([os.path.join(TOOLS, tool), *arguments], input=body, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=LIMIT_S, check=False)
    if done.stderr:
        print(done.stderr.decode(errors="replace"), end="", flush=True)
    return done.returncode, done.stdout


class FileStore(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="sluice-test.")
        self.addCleanup(directory.cleanup)
        self.directory = directory.name

    def mount_tmpfs(self, size):
        path = os.path.join(self.directory, "small")
        os.mkdir(path)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=" + size, "sluice-test", path], check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", path], check=True)
        try:
            os.setxattr(path, "user.sluice.probe", b"1")
        except OSError:
            self.skipTest("tmpfs of this kernel has no user attributes")
        return path

    def temporary_files(self, bucket):
        """Files in work directories; uploads that live on are not counted."""
        own = os.path.join(bucket, ".sluice-tmp")
        return [os.path.join(folder, name) for work in os.listdir(own) if work.startswith("w-")
                for folder, _, names in os.walk(os.path.join(own, work)) for name in names]

    def conforms(self, *arguments):
        status, out = run("store_conformance", *arguments)
        print(out.decode(), flush=True)
        self.assertEqual(status, 0)
        self.assertIn(b" 0 failed", out)

    def test_conformance_as_a_mount_opens_it(self):
        self.conforms("--probe", "file://" + os.path.join(self.directory, "bucket"), "p/")

    def test_conformance_of_the_backend(self):
        self.conforms("--bare", "file://" + os.path.join(self.directory, "bucket"))

    def test_conformance_on_tmpfs(self):
        self.conforms("file://" + self.mount_tmpfs("256m"))

    def test_one_of_many_processes_wins(self):
        bucket = os.path.join(self.directory, "bucket")
        url = "file://" + bucket
        for round_ in range(3):
            def put(i):
                return run("store_tool", "--if-none-match", url, "put", "k%d" % round_, body=b"by %d" % i)[0]
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                results = list(pool.map(put, range(16)))
            self.assertEqual(results.count(0), 1, results)
            self.assertEqual(results.count(EEXIST), 15, results)
            with open(os.path.join(bucket, "k%d" % round_), "rb") as file:
                self.assertEqual(file.read(), b"by %d" % results.index(0))

    def test_full_disk(self):
        bucket = self.mount_tmpfs("8m")
        url = "file://" + bucket
        data = os.urandom(3 << 20)
        self.assertEqual(run("store_tool", url, "put", "kept", body=data)[0], 0)
        self.assertEqual(run("store_tool", url, "put", "d/large", body=data * 2)[0], ENOSPC)
        self.assertEqual(run("store_tool", url, "put", "kept", body=data * 2)[0], ENOSPC)
        self.assertEqual(self.temporary_files(bucket), [])
        self.assertFalse(os.path.exists(os.path.join(bucket, "d")))
        self.assertTrue(run("store_tool", url, "get", "kept")[1] == data, "the old object changed")
        self.assertEqual(run("store_tool", url, "rm", "kept")[0], 0)
        self.assertEqual(run("store_tool", url, "put", "d/large", body=data * 2)[0], 0)
        self.assertTrue(run("store_tool", url, "get", "d/large")[1] == data * 2, "not what was put")


if __name__ == "__main__":
    unittest.main()
