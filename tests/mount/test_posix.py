"""What POSIX promises, on a real mount, over a directory, over a real S3 server, and through the metadata service.

Each behaviour is one test; the classes at the end run all of them on each.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from gateway import Gateway
from service import ServiceVolume
from volume import Volume, wait_until

libc = ctypes.CDLL(None, use_errno=True)
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE = 1, 2, 16


def renameat2(old, new, flags):
    if libc.renameat2(-100, old.encode(), -100, new.encode(), flags) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def fallocate(fd, mode, offset, length):
    if libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def pattern(length, seed=1):
    """Bytes that differ by position, so that a shifted or repeated block shows."""
    return bytes((i * 131 + (i >> 8) * 17 + (i >> 16) * 29 + seed) & 0xFF for i in range(min(length, 1 << 16))) * (
        length // (1 << 16) + 1
    )


class Posix:
    """Mixed into a TestCase with `volume`; every test has a directory of its own."""

    def setUp(self):
        self.dir = self.volume.path(self.id().rsplit(".", 1)[1])
        os.mkdir(self.dir)

    def p(self, *names):
        return os.path.join(self.dir, *names)

    def put(self, name, data=b""):
        with open(self.p(name), "wb") as f:
            f.write(data)
        return self.p(name)

    def get(self, name):
        with open(self.p(name), "rb") as f:
            return f.read()

    def refused(self, code, call, *args, **kw):
        with self.assertRaises(OSError) as caught:
            call(*args, **kw)
        self.assertEqual(errno.errorcode[caught.exception.errno], errno.errorcode[code])

    # Names.
    def test_lookup_of_nothing(self):
        self.refused(errno.ENOENT, os.stat, self.p("nothing"))

    def test_create_then_stat(self):
        before = time.time() - 1
        st = os.stat(self.put("f", b"abc"))
        self.assertEqual((st.st_size, st.st_nlink, stat.S_ISREG(st.st_mode)), (3, 1, True))
        self.assertTrue(before <= st.st_mtime <= time.time() + 1)

    def test_create_exclusive(self):
        self.put("f")
        self.refused(errno.EEXIST, os.open, self.p("f"), os.O_CREAT | os.O_EXCL)

    def test_umask_and_mode(self):
        old = os.umask(0o027)
        try:
            os.close(os.open(self.p("f"), os.O_CREAT | os.O_WRONLY, 0o666))
            os.mkdir(self.p("d"), 0o777)
        finally:
            os.umask(old)
        self.assertEqual(stat.S_IMODE(os.stat(self.p("f")).st_mode), 0o640)
        self.assertEqual(stat.S_IMODE(os.stat(self.p("d")).st_mode), 0o750)

    def test_name_too_long(self):
        self.put("n" * 255)
        self.refused(errno.ENAMETOOLONG, self.put, "n" * 256)

    def test_names_of_any_bytes(self):
        names = [b"a b", b"tab\t", b"new\nline", b"\xff\xfe", "ä€😀".encode(), b"-", b"%2F", b"a\\b", b"*?", b"..."]
        at = self.dir.encode()
        for name in names:
            with open(os.path.join(at, name), "wb") as f:
                f.write(name)
        self.assertEqual(sorted(os.listdir(at)), sorted(names))
        for name in names:
            with open(os.path.join(at, name), "rb") as f:
                self.assertEqual(f.read(), name)

    def test_mkdir_rmdir_links(self):
        os.mkdir(self.p("d"))
        self.assertEqual(os.stat(self.dir).st_nlink, 3)
        self.refused(errno.EEXIST, os.mkdir, self.p("d"))
        os.rmdir(self.p("d"))
        self.assertEqual(os.stat(self.dir).st_nlink, 2)

    def test_rmdir_not_empty(self):
        os.makedirs(self.p("d", "e"))
        self.refused(errno.ENOTEMPTY, os.rmdir, self.p("d"))

    def test_rmdir_of_file_and_unlink_of_directory(self):
        self.put("f")
        os.mkdir(self.p("d"))
        self.refused(errno.ENOTDIR, os.rmdir, self.p("f"))
        self.refused(errno.EISDIR, os.unlink, self.p("d"))

    def test_file_as_directory(self):
        self.put("f")
        self.refused(errno.ENOTDIR, os.stat, self.p("f", "x"))

    def test_unlink_gone(self):
        self.put("f")
        os.unlink(self.p("f"))
        self.refused(errno.ENOENT, os.stat, self.p("f"))
        self.refused(errno.ENOENT, os.unlink, self.p("f"))

    def test_recreate_has_new_content(self):
        self.put("f", b"old")
        os.unlink(self.p("f"))
        self.put("f", b"newer")
        self.assertEqual(self.get("f"), b"newer")

    def test_parent_times_move(self):
        before = os.stat(self.dir)
        time.sleep(0.01)
        self.put("f")
        after = os.stat(self.dir)
        self.assertGreater(after.st_mtime_ns, before.st_mtime_ns)
        self.assertGreater(after.st_ctime_ns, before.st_ctime_ns)

    # Rename.
    def test_rename_file(self):
        self.put("a", b"x")
        os.rename(self.p("a"), self.p("b"))
        self.assertEqual((os.listdir(self.dir), self.get("b")), (["b"], b"x"))

    def test_rename_replaces(self):
        self.put("a", b"new")
        self.put("b", b"old")
        os.rename(self.p("a"), self.p("b"))
        self.assertEqual((os.listdir(self.dir), self.get("b")), (["b"], b"new"))

    def test_rename_over_open_file(self):
        self.put("a", b"new")
        self.put("b", b"old")
        with open(self.p("b"), "rb") as held:
            os.rename(self.p("a"), self.p("b"))
            self.assertEqual((held.read(), self.get("b")), (b"old", b"new"))

    def test_rename_directory_with_content(self):
        os.makedirs(self.p("d", "e"))
        self.put("d/e/f", b"deep")
        os.rename(self.p("d"), self.p("moved"))
        self.assertEqual(self.get("moved/e/f"), b"deep")
        self.refused(errno.ENOENT, os.stat, self.p("d"))

    def test_rename_into_itself(self):
        os.makedirs(self.p("d", "e"))
        self.refused(errno.EINVAL, os.rename, self.p("d"), self.p("d", "e", "d"))

    def test_rename_directory_over_directory(self):
        os.mkdir(self.p("a"))
        os.mkdir(self.p("b"))
        os.rename(self.p("a"), self.p("b"))
        os.mkdir(self.p("a"))
        self.put("b/f")
        self.refused(errno.ENOTEMPTY, os.rename, self.p("a"), self.p("b"))

    def test_rename_kinds_do_not_mix(self):
        self.put("f")
        os.mkdir(self.p("d"))
        self.refused(errno.EISDIR, os.rename, self.p("f"), self.p("d"))
        self.refused(errno.ENOTDIR, os.rename, self.p("d"), self.p("f"))

    def test_rename_noreplace(self):
        self.put("a", b"a")
        self.put("b", b"b")
        self.refused(errno.EEXIST, renameat2, self.p("a"), self.p("b"), RENAME_NOREPLACE)
        renameat2(self.p("a"), self.p("c"), RENAME_NOREPLACE)
        self.assertEqual((self.get("b"), self.get("c")), (b"b", b"a"))

    def test_rename_exchange(self):
        self.put("f", b"file")
        os.mkdir(self.p("d"))
        self.put("d/x", b"inside")
        renameat2(self.p("f"), self.p("d"), RENAME_EXCHANGE)
        self.assertEqual((self.get("d"), self.get("f/x")), (b"file", b"inside"))
        self.refused(errno.ENOENT, renameat2, self.p("f"), self.p("nothing"), RENAME_EXCHANGE)

    def test_rename_onto_hard_link_does_nothing(self):
        self.put("a", b"x")
        os.link(self.p("a"), self.p("b"))
        os.rename(self.p("a"), self.p("b"))
        self.assertEqual(sorted(os.listdir(self.dir)), ["a", "b"])

    def test_rename_swap_and_ring_of_contents(self):
        for n in "abc":
            self.put(n, n.encode() * 40000)
        os.rename(self.p("a"), self.p("t"))
        os.rename(self.p("b"), self.p("a"))
        os.rename(self.p("c"), self.p("b"))
        os.rename(self.p("t"), self.p("c"))
        self.volume.settle(os.path.basename(self.dir))
        for name, was in (("a", b"b"), ("b", b"c"), ("c", b"a")):
            self.assertEqual(self.get(name), was * 40000)
            self.assertEqual(self.volume.object(os.path.basename(self.dir) + "/" + name), was * 40000)

    # Links, kinds.
    def test_hard_link(self):
        self.put("a", b"one")
        os.link(self.p("a"), self.p("b"))
        self.assertEqual(os.stat(self.p("a")).st_nlink, 2)
        self.assertEqual(os.stat(self.p("a")).st_ino, os.stat(self.p("b")).st_ino)
        with open(self.p("b"), "ab") as f:
            f.write(b"+two")
        self.assertEqual(self.get("a"), b"one+two")
        os.unlink(self.p("a"))
        self.assertEqual((self.get("b"), os.stat(self.p("b")).st_nlink), (b"one+two", 1))

    def test_hard_link_of_directory(self):
        os.mkdir(self.p("d"))
        self.refused(errno.EPERM, os.link, self.p("d"), self.p("e"))

    def test_symlink(self):
        os.symlink("some/where", self.p("l"))
        st = os.lstat(self.p("l"))
        self.assertEqual((os.readlink(self.p("l")), st.st_size, stat.S_ISLNK(st.st_mode)), ("some/where", 10, True))
        self.put("f", b"x")
        os.symlink("f", self.p("m"))
        self.assertEqual(self.get("m"), b"x")
        os.unlink(self.p("m"))
        self.assertEqual(self.get("f"), b"x")

    def test_symlink_loop(self):
        os.symlink("b", self.p("a"))
        os.symlink("a", self.p("b"))
        self.refused(errno.ELOOP, os.stat, self.p("a"))

    def test_fifo_socket_device(self):
        os.mkfifo(self.p("fifo"))
        os.mknod(self.p("null"), stat.S_IFCHR | 0o666, os.makedev(1, 3))
        s = socket.socket(socket.AF_UNIX)
        here = os.getcwd()
        os.chdir(self.dir)
        try:
            s.bind("sock")
        finally:
            os.chdir(here)
            s.close()
        self.assertTrue(stat.S_ISFIFO(os.stat(self.p("fifo")).st_mode))
        self.assertEqual(os.stat(self.p("null")).st_rdev, os.makedev(1, 3))
        self.assertTrue(stat.S_ISSOCK(os.stat(self.p("sock")).st_mode))

    def test_fifo_carries_bytes(self):
        os.mkfifo(self.p("fifo"))
        got = []
        reader = threading.Thread(target=lambda: got.append(open(self.p("fifo"), "rb").read()))
        reader.start()
        with open(self.p("fifo"), "wb") as f:
            f.write(b"through")
        reader.join()
        self.assertEqual(got, [b"through"])

    # Attributes.
    def test_chmod_chown(self):
        self.put("f")
        os.chmod(self.p("f"), 0o4751)
        self.assertEqual(stat.S_IMODE(os.stat(self.p("f")).st_mode), 0o4751)
        os.chown(self.p("f"), 1234, 2345)
        st = os.stat(self.p("f"))
        self.assertEqual((st.st_uid, st.st_gid), (1234, 2345))
        self.assertEqual(stat.S_IMODE(st.st_mode), 0o751)

    def test_write_clears_setuid(self):
        self.put("f", b"x")
        os.chown(self.p("f"), 65534, 65534)
        os.chmod(self.p("f"), 0o6777)
        child = subprocess.run(
            [sys.executable, "-c", "import os,sys; os.setgid(65534); os.setuid(65534); f=os.open(sys.argv[1],os.O_WRONLY); os.write(f,b'y')", self.p("f")],
            check=False)
        self.assertEqual(child.returncode, 0)
        self.assertEqual(stat.S_IMODE(os.stat(self.p("f")).st_mode) & 0o6000, 0)

    def test_fallocate_and_chown_clear_setuid(self):
        self.put("f", b"x")
        changes = {
            "fallocate": "os.setgid(65534); os.setuid(65534); os.posix_fallocate(os.open(sys.argv[1], os.O_RDWR), 0, 9)",
            "chown": "os.chown(sys.argv[1], -1, -1)",
        }
        for change, code in changes.items():
            os.chmod(self.p("f"), 0o6777)
            subprocess.run([sys.executable, "-c", "import os,sys; " + code, self.p("f")], check=True)
            self.assertEqual(stat.S_IMODE(os.stat(self.p("f")).st_mode), 0o777, change)

    def test_truncate_on_open_without_writing(self):
        for name, data in (("small", b"x"), ("large", b"x" * 300000)):
            self.put(name, data)
            with open(self.p(name), "rb") as reader:
                os.close(os.open(self.p(name), os.O_RDONLY | os.O_TRUNC))
                self.assertEqual(reader.read(), b"")
            self.assertEqual(os.stat(self.p(name)).st_size, 0)

    def test_utimens_nanoseconds(self):
        self.put("f")
        os.utime(self.p("f"), ns=(1000000000123456789, 1500000000987654321))
        st = os.stat(self.p("f"))
        self.assertEqual((st.st_atime_ns, st.st_mtime_ns), (1000000000123456789, 1500000000987654321))

    def test_times_that_cannot_be_kept(self):
        self.put("f")
        for seconds, kept in ((-5, 0), (1 << 38, ((1 << 64) // 10**9 - 1) * 10**9)):
            os.utime(self.p("f"), (seconds, seconds))
            st = os.stat(self.p("f"))
            self.assertEqual((st.st_atime_ns, st.st_mtime_ns), (kept, kept))

    def test_touch_sets_the_time_of_now(self):
        long_ago = 10**18
        os.mkdir(self.p("d"))
        self.put("f", b"x")
        for name in ("f", "d"):
            for option, atime_moves, mtime_moves in (("-c", True, True), ("-a", True, False), ("-m", False, True)):
                os.utime(self.p(name), ns=(long_ago, long_ago))
                subprocess.run(["touch", option, self.p(name)], check=True)
                st = os.stat(self.p(name))
                self.assertEqual((st.st_atime_ns, st.st_mtime_ns),
                                 (st.st_ctime_ns if atime_moves else long_ago, st.st_ctime_ns if mtime_moves else long_ago), (name, option))
                self.assertGreater(st.st_ctime_ns, long_ago)

    def test_utimens_survives_close_of_written_file(self):
        with open(self.p("f"), "wb") as f:
            f.write(b"x" * 100000)
            f.flush()
            os.utime(self.p("f"), ns=(5 * 10**9, 7 * 10**9 + 3))
        self.assertEqual(os.stat(self.p("f")).st_mtime_ns, 7 * 10**9 + 3)

    def test_setgid_directory_gives_group(self):
        os.mkdir(self.p("d"))
        os.chown(self.p("d"), 0, 4321)
        os.chmod(self.p("d"), 0o2775)
        self.put("d/f")
        os.mkdir(self.p("d", "e"))
        self.assertEqual(os.stat(self.p("d/f")).st_gid, 4321)
        self.assertEqual(os.stat(self.p("d/e")).st_gid, 4321)
        self.assertTrue(os.stat(self.p("d/e")).st_mode & stat.S_ISGID)

    def as_nobody(self, code, *args):
        return subprocess.run([sys.executable, "-c", "import os,sys; os.setgid(65534); os.setuid(65534); " + code, *args],
                              check=False, stderr=subprocess.PIPE).returncode

    def test_permissions_are_checked(self):
        self.put("f", b"secret")
        os.chmod(self.p("f"), 0o600)
        self.assertNotEqual(self.as_nobody("open(sys.argv[1])", self.p("f")), 0)
        os.chmod(self.p("f"), 0o644)
        self.assertEqual(self.as_nobody("open(sys.argv[1])", self.p("f")), 0)
        self.assertNotEqual(self.as_nobody("open(sys.argv[1],'w')", self.p("f")), 0)

    def test_sticky_directory(self):
        os.chmod(self.dir, 0o1777)
        self.put("f")
        os.chmod(self.p("f"), 0o666)
        self.assertNotEqual(self.as_nobody("os.unlink(sys.argv[1])", self.p("f")), 0)
        os.chown(self.p("f"), 65534, 65534)
        self.assertEqual(self.as_nobody("os.unlink(sys.argv[1])", self.p("f")), 0)

    def test_xattr(self):
        self.put("f")
        os.setxattr(self.p("f"), "user.a", b"1")
        os.setxattr(self.p("f"), "user.b", b"\0\xff" * 100)
        self.assertEqual(sorted(os.listxattr(self.p("f"))), ["user.a", "user.b"])
        self.assertEqual(os.getxattr(self.p("f"), "user.b"), b"\0\xff" * 100)
        self.refused(errno.EEXIST, os.setxattr, self.p("f"), "user.a", b"2", os.XATTR_CREATE)
        self.refused(errno.ENODATA, os.setxattr, self.p("f"), "user.c", b"2", os.XATTR_REPLACE)
        os.setxattr(self.p("f"), "user.a", b"2", os.XATTR_REPLACE)
        os.removexattr(self.p("f"), "user.b")
        self.assertEqual((os.listxattr(self.p("f")), os.getxattr(self.p("f"), "user.a")), (["user.a"], b"2"))
        self.refused(errno.ENODATA, os.getxattr, self.p("f"), "user.b")
        self.refused(errno.ENODATA, os.removexattr, self.p("f"), "user.b")

    def test_statvfs(self):
        st = os.statvfs(self.dir)
        self.assertGreater(st.f_blocks, 0)
        self.assertGreater(st.f_bavail, 0)
        self.assertEqual(st.f_namemax, 255)

    # Data.
    def test_append(self):
        fd1 = os.open(self.p("f"), os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        fd2 = os.open(self.p("f"), os.O_WRONLY | os.O_APPEND)
        for i in range(20):
            os.write(fd1 if i % 2 else fd2, b"%02d" % i)
        os.close(fd1)
        os.close(fd2)
        self.assertEqual(self.get("f"), b"".join(b"%02d" % i for i in range(20)))

    def test_hole_reads_zeros(self):
        with open(self.p("f"), "wb") as f:
            f.seek(300000)
            f.write(b"end")
        self.assertEqual(self.get("f"), bytes(300000) + b"end")

    def test_overwrite_in_the_middle(self):
        data = bytearray(pattern(1 << 20))
        self.put("f", data)
        with open(self.p("f"), "r+b") as f:
            for at, n in ((0, 1), (4095, 2), (131071, 131074), (999999, 7)):
                f.seek(at)
                f.write(b"\xee" * n)
                data[at:at + n] = b"\xee" * n
        self.assertEqual(self.get("f"), bytes(data))

    def test_read_what_is_not_flushed(self):
        fd = os.open(self.p("f"), os.O_CREAT | os.O_RDWR)
        os.write(fd, b"a" * 200000)
        os.pwrite(fd, b"b", 100000)
        self.assertEqual(os.pread(fd, 3, 99999), b"aba")
        self.assertEqual(os.pread(fd, 10, 199995), b"a" * 5)
        self.assertEqual(os.pread(fd, 10, 200000), b"")
        os.close(fd)

    def test_other_handle_sees_unflushed_bytes(self):
        with open(self.p("f"), "wb", buffering=0) as writer:
            writer.write(b"fresh" * 20000)
            self.assertEqual(os.stat(self.p("f")).st_size, 100000)
            self.assertEqual(self.get("f"), b"fresh" * 20000)

    def test_truncate_down_and_up(self):
        self.put("f", b"x" * 100000)
        os.truncate(self.p("f"), 10)
        os.truncate(self.p("f"), 50)
        self.assertEqual(self.get("f"), b"x" * 10 + bytes(40))

    def test_truncate_open_file(self):
        with open(self.p("f"), "w+b", buffering=0) as f:
            f.write(pattern(300000)[:300000])
            f.truncate(70000)
            f.truncate(90000)
            f.seek(0)
            self.assertEqual(f.read(), pattern(300000)[:70000] + bytes(20000))
        self.assertEqual(self.get("f"), pattern(300000)[:70000] + bytes(20000))

    def test_open_truncates(self):
        self.put("f", b"long" * 30000)
        self.put("f", b"short")
        self.assertEqual(self.get("f"), b"short")

    def test_large_file_in_parts(self):
        block = pattern(1 << 20)[:1 << 20]
        with open(self.p("f"), "wb") as f:
            for i in range(40):
                f.write(bytes([i]) + block[1:])
        with open(self.p("f"), "rb") as f:
            for i in range(40):
                self.assertTrue(f.read(1 << 20) == bytes([i]) + block[1:], "MiB %d differs" % i)
        self.volume.settle(os.path.basename(self.dir))
        self.assertEqual(len(self.volume.object(os.path.basename(self.dir) + "/f")), 40 << 20)

    def test_write_beyond_4_gib(self):
        with open(self.p("f"), "wb") as f:
            f.seek(5 << 30)
            f.write(b"far")
        with open(self.p("f"), "rb") as f:
            f.seek((5 << 30) - 4)
            self.assertEqual(f.read(), bytes(4) + b"far")
        self.assertEqual(os.stat(self.p("f")).st_size, (5 << 30) + 3)
        os.unlink(self.p("f"))

    def test_unlinked_open_file(self):
        fd = os.open(self.p("f"), os.O_CREAT | os.O_RDWR)
        os.write(fd, b"here" * 20000)
        os.unlink(self.p("f"))
        self.assertEqual(os.listdir(self.dir), [])
        self.assertEqual(os.pread(fd, 8, 0), b"herehere")
        os.pwrite(fd, b"T", 0)
        os.fsync(fd)
        self.assertEqual((os.pread(fd, 4, 0), os.fstat(fd).st_nlink), (b"Tere", 0))
        os.close(fd)

    def link_descriptor(self, fd, path):
        """linkat of an open file; follow_symlinks alone would not make Python say AT_SYMLINK_FOLLOW."""
        here = os.open("/", os.O_RDONLY)
        try:
            os.link("/proc/self/fd/%d" % fd, path, src_dir_fd=here)
        finally:
            os.close(here)

    def test_file_without_a_name(self):
        for length in (100, 3 << 20):
            data = pattern(length, 11)[:length]
            fd = os.open(self.dir, os.O_TMPFILE | os.O_RDWR, 0o640)
            os.write(fd, data)
            os.fsync(fd)
            self.assertEqual((os.fstat(fd).st_nlink, os.fstat(fd).st_mode & 0o777), (0, 0o640))
            self.assertEqual((os.listdir(self.dir), os.pread(fd, 9, 50)), ([], data[50:59]))
            self.put("taken")
            self.refused(errno.EEXIST, self.link_descriptor, fd, self.p("taken"))
            self.link_descriptor(fd, self.p("named"))
            self.assertEqual(os.fstat(fd).st_nlink, 1)
            os.pwrite(fd, b"more", length)
            os.close(fd)
            self.assertEqual(self.get("named"), data + b"more")
            self.volume.settle(self.p("named"))
            self.assertEqual(self.volume.object(os.path.relpath(self.p("named"), self.volume.path())), data + b"more")
            os.unlink(self.p("named"))
            os.unlink(self.p("taken"))

    def test_file_without_a_name_goes_with_its_descriptor(self):
        fd = os.open(self.dir, os.O_TMPFILE | os.O_WRONLY | os.O_EXCL, 0o600)
        os.write(fd, bytes(200000))
        self.refused(errno.ENOENT, self.link_descriptor, fd, self.p("never"))
        os.close(fd)
        os.rmdir(self.dir)

    def test_fsync_then_write_on(self):
        with open(self.p("f"), "wb", buffering=0) as f:
            for i in range(10):
                f.write(bytes([i]) * 50000)
                os.fsync(f.fileno())
                os.fdatasync(f.fileno())
        self.assertEqual(self.get("f"), b"".join(bytes([i]) * 50000 for i in range(10)))

    def test_fsync_directory(self):
        fd = os.open(self.dir, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(fd)
        os.close(fd)

    def test_mmap_shared_write(self):
        self.put("f", bytes(100000))
        with open(self.p("f"), "r+b") as f:
            m = mmap.mmap(f.fileno(), 100000)
            m[50000:50005] = b"mapped"[:5]
            m.flush()
            m.close()
        self.assertEqual(self.get("f")[49999:50006], b"\0mappe\0")

    def test_mmap_written_after_close(self):
        self.put("f", bytes(8192))
        with open(self.p("f"), "r+b") as f:
            m = mmap.mmap(f.fileno(), 8192)
        m[0:4] = b"late"
        m.close()
        self.assertEqual(self.get("f")[:6], b"late\0\0")

    def test_direct_io(self):
        fd = os.open(self.p("f"), os.O_CREAT | os.O_RDWR | os.O_DIRECT)
        page = mmap.mmap(-1, 8192)
        page[:] = b"d" * 8192
        self.assertEqual(os.write(fd, page), 8192)
        page[:] = bytes(8192)
        self.assertEqual(os.preadv(fd, [page], 0), 8192)
        self.assertEqual(page[:], b"d" * 8192)
        os.close(fd)

    def test_fallocate_extends(self):
        with open(self.p("f"), "w+b") as f:
            fallocate(f.fileno(), 0, 0, 100000)
            self.assertEqual(os.fstat(f.fileno()).st_size, 100000)
            fallocate(f.fileno(), FALLOC_KEEP_SIZE, 0, 200000)
            self.assertEqual(os.fstat(f.fileno()).st_size, 100000)

    def test_punch_hole_and_zero_range(self):
        data = bytearray(b"p" * 300000)
        self.put("f", data)
        with open(self.p("f"), "r+b") as f:
            fallocate(f.fileno(), FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, 1000, 150000)
            fallocate(f.fileno(), FALLOC_ZERO_RANGE, 290000, 20000)
        data[1000:151000] = bytes(150000)
        data[290000:] = bytes(20000)
        self.assertEqual(self.get("f"), bytes(data))

    def test_seek_data_and_hole(self):
        with open(self.p("f"), "w+b") as f:
            f.truncate(1 << 20)
            f.seek(512 << 10)
            f.write(b"d" * (128 << 10))
            f.flush()
            os.fsync(f.fileno())
            fd = f.fileno()
            self.assertEqual(os.lseek(fd, 0, os.SEEK_DATA), 512 << 10)
            self.assertEqual(os.lseek(fd, 0, os.SEEK_HOLE), 0)
            self.assertEqual(os.lseek(fd, 512 << 10, os.SEEK_HOLE), 640 << 10)
            self.refused(errno.ENXIO, os.lseek, fd, 640 << 10, os.SEEK_DATA)
            self.refused(errno.ENXIO, os.lseek, fd, 1 << 20, os.SEEK_HOLE)

    def test_copy_file_range(self):
        data = pattern(500000)[:500000]
        self.put("a", data)
        with open(self.p("a"), "rb") as a, open(self.p("b"), "w+b") as b:
            done = 0
            while done < 400000:
                n = os.copy_file_range(a.fileno(), b.fileno(), 400000 - done, 50000 + done, 10 + done)
                self.assertGreater(n, 0)
                done += n
        self.assertEqual(self.get("b"), bytes(10) + data[50000:450000])
        os.unlink(self.p("a"))
        self.assertEqual(self.get("b"), bytes(10) + data[50000:450000])

    def test_locks(self):
        with open(self.put("f", b"x" * 10), "r+b") as f:
            fcntl.lockf(f, fcntl.LOCK_EX, 5, 0)
            other = "import fcntl,sys; f=open(sys.argv[1],'r+b'); fcntl.lockf(f,fcntl.LOCK_EX|fcntl.LOCK_NB,%d,%d)"
            run = lambda n, at: subprocess.run([sys.executable, "-c", other % (n, at), self.p("f")], check=False, stderr=subprocess.DEVNULL).returncode
            self.assertNotEqual(run(5, 3), 0)
            self.assertEqual(run(5, 5), 0)
            fcntl.lockf(f, fcntl.LOCK_UN)
            self.assertEqual(run(5, 3), 0)

    def test_flock(self):
        with open(self.put("f"), "rb") as one, open(self.p("f"), "rb") as two:
            fcntl.flock(one, fcntl.LOCK_EX)
            self.refused(errno.EWOULDBLOCK, fcntl.flock, two, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(one, fcntl.LOCK_UN)
            fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def test_many_open_handles(self):
        fds = [os.open(self.p("f%d" % i), os.O_CREAT | os.O_RDWR) for i in range(500)]
        for i, fd in enumerate(fds):
            os.write(fd, b"%d" % i)
        for fd in fds:
            os.close(fd)
        for i in range(500):
            self.assertEqual(self.get("f%d" % i), b"%d" % i)

    def test_concurrent_writers_of_one_file(self):
        self.put("f", bytes(8 * 65536))

        def write(n):
            fd = os.open(self.p("f"), os.O_WRONLY)
            for i in range(16):
                os.pwrite(fd, bytes([n + 1]) * 4096, n * 65536 + i * 4096)
                if i % 4 == 0:
                    os.fsync(fd)
            os.close(fd)

        threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(self.get("f"), b"".join(bytes([n + 1]) * 65536 for n in range(8)))

    # Directories.
    def test_readdir_many(self):
        names = ["e%04d" % i for i in range(3000)]
        for n in names:
            os.close(os.open(self.p(n), os.O_CREAT | os.O_WRONLY))
        with os.scandir(self.dir) as it:
            found = {e.name: e.inode() for e in it}
        self.assertEqual(sorted(found), names)
        self.assertEqual(found["e0007"], os.stat(self.p("e0007")).st_ino)

    def test_readdir_while_removing(self):
        for i in range(1500):
            os.close(os.open(self.p("e%04d" % i), os.O_CREAT | os.O_WRONLY))
        with os.scandir(self.dir) as it:
            for entry in it:
                os.unlink(entry.path)
        self.assertEqual(os.listdir(self.dir), [])
        os.rmdir(self.dir)
        os.mkdir(self.dir)

    def test_readdir_sees_each_stable_name_once(self):
        stable = ["s%03d" % i for i in range(400)]
        for n in stable:
            self.put(n)
        seen = []
        with os.scandir(self.dir) as it:
            for i, entry in enumerate(it):
                seen.append(entry.name)
                if i % 10 == 0:
                    self.put("new%04d" % i)
        self.assertEqual(sorted(n for n in seen if n in set(stable)), stable)

    def test_rewinddir(self):
        self.put("a")
        fd = os.open(self.dir, os.O_RDONLY)
        self.assertEqual(os.listdir(fd), ["a"])
        self.put("b")
        self.assertEqual(sorted(os.listdir(fd)), ["a", "b"])
        os.close(fd)

    def test_removed_directory_is_empty(self):
        os.mkdir(self.p("d"))
        fd = os.open(self.p("d"), os.O_RDONLY)
        os.rmdir(self.p("d"))
        self.assertEqual(os.listdir(fd), [])
        self.refused(errno.ENOENT, os.open, "x", os.O_CREAT | os.O_WRONLY, dir_fd=fd)
        os.close(fd)

    def test_dev_null_and_exec(self):
        self.put("run", b"#!/bin/sh\necho ran\n")
        os.chmod(self.p("run"), 0o755)
        self.assertEqual(subprocess.run([self.p("run")], stdout=subprocess.PIPE, check=True).stdout, b"ran\n")

    # What was written is a plain object, under its present name.
    def test_objects_are_plain_after_settle(self):
        base = os.path.basename(self.dir)
        self.put("small", b"inline bytes")
        self.put("large", pattern(3 << 20)[:3 << 20])
        self.put("empty")
        os.mkdir(self.p("d"))
        self.put("d/moved", b"m" * 100000)
        os.rename(self.p("d"), self.p("e"))
        with open(self.p("large"), "r+b") as f:
            f.seek(1 << 20)
            f.write(b"patched")
        self.volume.settle(base)
        want = bytearray(pattern(3 << 20)[:3 << 20])
        want[1 << 20:(1 << 20) + 7] = b"patched"
        self.assertEqual(self.volume.object(base + "/small"), b"inline bytes")
        self.assertEqual(self.volume.object(base + "/large"), bytes(want))
        self.assertEqual(self.volume.object(base + "/empty"), b"")
        self.assertEqual(self.volume.object(base + "/e/moved"), b"m" * 100000)
        wait_until("the old name to go", lambda: self.volume.object(base + "/d/moved") is None)
        self.assertEqual((self.get("small"), self.get("large"), self.get("e/moved")), (b"inline bytes", bytes(want), b"m" * 100000))

    def test_staging_names_stay_off_their_keys(self):
        base = os.path.basename(self.dir)
        os.mkdir(self.p("_temporary"))
        self.put("_temporary/part-0", b"t" * 50000)
        self.volume.settle(base)
        self.assertIsNone(self.volume.object(base + "/_temporary/part-0"))
        os.rename(self.p("_temporary/part-0"), self.p("part-0"))
        self.volume.settle(base)
        self.assertEqual(self.volume.object(base + "/part-0"), b"t" * 50000)


class OnDirectory(Posix, unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.volume = Volume()
        cls.volume.mount()
        cls.addClassCleanup(cls.volume.close)

    @classmethod
    def tearDownClass(cls):
        cls.volume.unmount()


class OnService(Posix, unittest.TestCase):
    """Through the metadata service: the same behaviour."""

    @classmethod
    def setUpClass(cls):
        cls.volume = ServiceVolume()
        cls.addClassCleanup(cls.volume.close)
        cls.volume.mount()

    @classmethod
    def tearDownClass(cls):
        cls.volume.unmount()


class OnS3(Posix, unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = cls.enterClassContext(Gateway())
        cls.volume = Volume(gateway=cls.gateway)
        cls.volume.mount()
        cls.addClassCleanup(cls.volume.close)

    @classmethod
    def tearDownClass(cls):
        cls.volume.unmount()


if __name__ == "__main__":
    unittest.main()
