"""Mounts of one directory of a service's volume: its root cannot be left, by names or by numbers."""

import ctypes
import errno
import os
import struct
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from service import ServiceVolume
from volume import wait_until

KIB = 1024
FUSE_HANDLE = 0x81  # number of the inode (two words), generation
GENERATION = 1
libc = ctypes.CDLL(None, use_errno=True)


def open_by_number(mountpoint, ino):
    """Opens what the file system has by this number, as an NFS server does with an old handle."""
    handle = ctypes.create_string_buffer(struct.pack("=IiIII", 12, FUSE_HANDLE, ino >> 32, ino & 0xFFFFFFFF, GENERATION))
    root = os.open(mountpoint, os.O_RDONLY)
    try:
        fd = libc.open_by_handle_at(root, handle, os.O_RDONLY)
        if fd < 0:
            raise OSError(ctypes.get_errno(), "open_by_handle_at")
        return fd
    finally:
        os.close(root)


class Subtree(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.all = ServiceVolume()
        cls.addClassCleanup(cls.all.close)
        cls.all.mount()
        os.makedirs(cls.all.path("top", "sub", "in"))
        cls.all.write("top/secret", b"s" * 100)
        cls.all.write("top/sub/f", b"inside")
        cls.sub = ServiceVolume(service=cls.all.service, name="v/top//sub/", bucket=cls.all.bucket)
        cls.addClassCleanup(cls.sub.close)
        cls.sub.mount()

    def refused(self, error, action, *arguments):
        with self.assertRaises(OSError) as caught:
            action(*arguments)
        self.assertEqual(caught.exception.errno, error)

    def test_it_is_a_root_of_its_own(self):
        self.assertIn("f", os.listdir(self.sub.mountpoint))
        self.assertEqual(os.stat(self.sub.mountpoint).st_ino, 1)
        self.assertEqual(self.sub.read("f"), b"inside")
        self.assertNotIn("secret", os.listdir(self.sub.path("in", "..", "..", "mnt")))
        self.sub.write("in/g", b"made")
        self.assertEqual(self.all.read("top/sub/in/g"), b"made")
        os.rename(self.sub.path("in/g"), self.sub.path("g"))
        self.all.write("top/sub/g", b"changed")
        self.assertEqual(self.sub.read("g"), b"changed")
        os.chmod(self.sub.mountpoint, 0o751)
        self.assertEqual(os.stat(self.all.path("top/sub")).st_mode & 0o777, 0o751)
        os.chmod(self.all.path("top/sub"), 0o755)
        self.assertEqual(os.stat(self.sub.mountpoint).st_mode & 0o777, 0o755)
        os.unlink(self.sub.path("g"))
        self.assertFalse(os.path.exists(self.all.path("top/sub/g")))

    def test_names_of_the_root_change(self):
        os.listdir(self.sub.mountpoint)
        for i in range(5):
            self.all.write("top/sub/new", b"%d" % i)
            self.assertEqual(self.sub.read("new"), b"%d" % i)
            os.unlink(self.all.path("top/sub/new"))
            self.assertFalse(os.path.exists(self.sub.path("new")))

    def test_numbers_of_others_are_refused(self):
        fd = open_by_number(self.sub.mountpoint, os.stat(self.all.path("top/sub/f")).st_ino)
        self.addCleanup(os.close, fd)
        self.assertEqual(os.read(fd, 100), b"inside")
        for name in ("top/secret", "top"):
            ino = os.stat(self.all.path(name)).st_ino
            with self.assertRaises(OSError):
                os.close(open_by_number(self.sub.mountpoint, ino))
            os.close(open_by_number(self.all.mountpoint, ino))

    def test_what_is_moved_out_is_gone(self):
        os.mkdir(self.all.path("top/sub/leaves"))
        self.all.write("top/sub/leaves/f", b"x" * 200000)
        fd = os.open(self.sub.path("leaves/f"), os.O_RDONLY)
        self.addCleanup(os.close, fd)
        self.assertEqual(os.pread(fd, 1, 0), b"x")
        os.rename(self.all.path("top/sub/leaves"), self.all.path("top/left"))
        self.assertFalse(os.path.exists(self.sub.path("leaves")))
        self.all.write("top/left/f", b"y" * 200000)
        self.refused(errno.EACCES, os.fstat, fd)
        os.rename(self.all.path("top/left"), self.all.path("top/sub/back"))
        self.assertEqual(self.sub.read("back/f"), b"y" * 200000)
        self.assertEqual(os.pread(fd, 1, 0), b"y")

    def test_hard_links_and_unlinked_files(self):
        self.all.write("top/outside", b"linked")
        ino = os.stat(self.all.path("top/outside")).st_ino
        with self.assertRaises(OSError):
            os.close(open_by_number(self.sub.mountpoint, ino))
        os.link(self.all.path("top/outside"), self.all.path("top/sub/link"))
        fd = os.open(self.sub.path("link"), os.O_RDWR)
        self.assertEqual(os.read(fd, 10), b"linked")
        os.unlink(self.all.path("top/outside"))
        os.unlink(self.all.path("top/sub/link"))
        os.pwrite(fd, b"still!", 0)
        os.fsync(fd)
        self.assertEqual(os.pread(fd, 10, 0), b"still!")
        os.close(fd)

    def test_df_and_quotas(self):
        os.makedirs(self.all.path("top/sub/q"))
        self.all.sluice("quota", "set", self.all.path("top/sub"), "--bytes", "1M", "--inodes", "100")
        try:
            free = os.statvfs(self.sub.mountpoint)
            self.assertEqual((free.f_blocks * free.f_frsize, free.f_files), (1024 * KIB, 100))
            self.sub.write("q/f", b"q" * 512 * KIB)
            now = os.statvfs(self.sub.mountpoint)
            self.assertEqual((free.f_bavail - now.f_bavail) * free.f_frsize, 512 * KIB)
            self.assertIn("of 1.0 MiB", self.sub.sluice("quota", "get", self.sub.path("q")).stdout)
            self.sub.sluice("quota", "set", self.sub.path("q"), "--bytes", "600K")
            self.assertIn("/q:", self.sub.sluice("quota", "list", self.sub.mountpoint).stdout)
            self.assertEqual(os.statvfs(self.sub.path("q")).f_blocks * free.f_frsize, 600 * KIB)
            self.sub.sluice("quota", "check", self.sub.mountpoint)
            # The limit of the root is for those who are outside.
            self.assertNotEqual(self.sub.sluice("quota", "set", self.sub.mountpoint, "--bytes", "2M", check=False).returncode, 0)
        finally:
            self.all.sluice("quota", "set", self.all.path("top/sub"), "--bytes", "none", "--inodes", "none")

    def test_usage_is_that_of_the_directory(self):
        outside = os.statvfs(self.all.mountpoint)
        self.all.write("top/big", b"b" * 4096 * KIB)
        after = os.statvfs(self.all.mountpoint)
        self.assertEqual((outside.f_bavail - after.f_bavail) * after.f_frsize, 4096 * KIB)
        self.assertGreater(os.statvfs(self.sub.mountpoint).f_bavail, after.f_bavail)

    def test_a_restart_of_the_service_keeps_the_root(self):
        ino = os.stat(self.all.path("top/secret")).st_ino
        self.all.service.kill()
        self.all.service.start()
        self.sub.write("kept", b"after")
        self.assertEqual(self.all.read("top/sub/kept"), b"after")
        self.assertNotIn("secret", os.listdir(self.sub.mountpoint))
        with self.assertRaises(OSError):
            os.close(open_by_number(self.sub.mountpoint, ino))

    def test_directories_that_are_none(self):
        for name, words in (("v/none", "no directory 'none'"), ("v/top/secret", "is not a directory"),
                            ("v/../x", "without '.' and '..'"), ("w/top", "no volume 'w'")):
            other = ServiceVolume(service=self.all.service, name=name, bucket=self.all.bucket)
            self.addCleanup(other.close)
            code, text = other.mount_fails()
            self.assertNotEqual(code, 0)
            self.assertIn(words, text)


class Status(unittest.TestCase):
    def test_names_of_what_lies_elsewhere_are_not_told(self):
        with ServiceVolume() as whole:
            os.makedirs(whole.path("t", "sub"))
            # By another program: now the bucket cannot have what is below "t".
            with open(os.path.join(whole.bucket, "t"), "w"):
                pass
            whole.write("t/secret", b"s" * 100)
            wait_until("settle to fail", lambda: whole.status()["volume"]["settle"]["failing"])
            # A file whose key somebody else takes gets another name.
            os.mkdir(whole.path("u"))
            os.mkdir(os.path.join(whole.bucket, "u"))
            with open(os.path.join(whole.bucket, "u", "secret"), "w") as f:
                f.write("theirs")
            whole.write("u/secret", b"s" * 100)
            wait_until("the conflict", lambda: whole.status()["volume"]["settle"]["conflict_names"])
            with ServiceVolume(service=whole.service, name="v/t/sub", bucket=whole.bucket) as sub:
                self.assertNotIn("secret", str(sub.status()))
                self.assertEqual(sub.status()["volume"]["settle"]["failed_tries"] > 0, True)


if __name__ == "__main__":
    unittest.main()
