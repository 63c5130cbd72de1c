"""POSIX access control lists (--posix-acl): the same steps on the mount and on a local file system that knows them."""

import errno
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib"))
from service import ServiceVolume
from volume import WAIT_S, Volume

ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
OWNER, USER, GROUP, NAMED_GROUP, MASK, OTHER = 1, 2, 4, 8, 16, 32
NOBODY = 65534
STRANGER = 12345


def acl(*entries):
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", tag, perm, who) for tag, perm, who in
                                           [e if len(e) == 3 else (*e, 0xFFFFFFFF) for e in entries])


LIST = acl((OWNER, 7), (USER, 5, NOBODY), (GROUP, 4), (NAMED_GROUP, 6, 100), (MASK, 7), (OTHER, 0))
PLAIN = acl((OWNER, 6), (GROUP, 4), (OTHER, 4))
PLAIN_TEXT = ["user::rw-", "group::r--", "other::r--"]
BAD = (b"", b"\1\0\0\0", LIST[:-1], acl((OWNER, 7), (OTHER, 0)), acl((OWNER, 7), (USER, 5, NOBODY), (GROUP, 4), (OTHER, 0)),
       acl((GROUP, 4), (OWNER, 7), (OTHER, 0)), acl((OWNER, 9), (GROUP, 4), (OTHER, 0)), acl((OWNER, 7), (GROUP, 4), (OTHER, 0), (64, 0)))


def attribute(path, name):
    try:
        return os.getxattr(path, name)
    except OSError as e:
        return errno.errorcode[e.errno]


def attempt(call, *arguments):
    try:
        return call(*arguments)
    except OSError as e:
        return errno.errorcode[e.errno]


def state(path):
    st = os.lstat(path)
    return oct(st.st_mode), attribute(path, ACCESS), attribute(path, DEFAULT) if os.path.isdir(path) else None


def steps(root):
    """Does what lists are used for below a directory; what was seen after each step."""
    seen = []

    def path(name):
        return os.path.join(root, name)

    def see(*names):
        seen.extend(state(path(n)) for n in names)

    os.umask(0o022)
    with open(path("f"), "w") as f:
        f.write("x")
    see("f")
    os.setxattr(path("f"), ACCESS, LIST)
    see("f")
    for mode in (0o600, 0o2775, 0o070):
        os.chmod(path("f"), mode)
        see("f")
    os.setxattr(path("f"), ACCESS, PLAIN)
    see("f")
    os.setxattr(path("f"), ACCESS, LIST)
    os.removexattr(path("f"), ACCESS)
    see("f")
    seen.append(attempt(os.setxattr, path("f"), DEFAULT, LIST))
    for bad in BAD:
        seen.append(attempt(os.setxattr, path("f"), ACCESS, bad) is None)
    see("f")
    os.mkdir(path("d"), 0o755)
    os.setxattr(path("d"), DEFAULT, LIST)
    see("d")
    os.close(os.open(path("d/f"), os.O_CREAT | os.O_WRONLY, 0o666))
    os.close(os.open(path("d/private"), os.O_CREAT | os.O_WRONLY, 0o600))
    os.mkdir(path("d/sub"), 0o777)
    os.mkdir(path("d/sub/deep"), 0o700)
    os.mknod(path("d/fifo"), 0o666 | 0o010000)
    os.symlink("f", path("d/link"))
    see("d/f", "d/private", "d/sub", "d/sub/deep", "d/fifo")
    fd = os.open(path("d"), os.O_TMPFILE | os.O_RDWR, 0o666)
    seen.append((oct(os.fstat(fd).st_mode), attribute(fd, ACCESS)))
    os.close(fd)
    os.setxattr(path("d"), DEFAULT, PLAIN)
    os.close(os.open(path("d/plain"), os.O_CREAT | os.O_WRONLY, 0o666))
    see("d", "d/plain")
    os.removexattr(path("d"), DEFAULT)
    os.close(os.open(path("d/none"), os.O_CREAT | os.O_WRONLY, 0o666))
    see("d", "d/none", "d/sub")
    return seen


def as_somebody(uid, *code):
    """Whether a program of another user ends well."""
    return subprocess.run([sys.executable, "-c", "import os, sys\nos.setgroups([])\nos.setgid(%d)\nos.setuid(%d)\n%s" % (uid, uid, "\n".join(code))],
                          stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=WAIT_S, check=False).returncode == 0


class Lists:
    def setUp(self):
        self.v = self.make()
        self.addCleanup(self.v.close)
        self.addCleanup(os.umask, os.umask(0o022))
        self.v.mount()
        os.chmod(self.v.mountpoint, 0o755)

    def test_the_same_as_on_a_local_file_system(self):
        os.mkdir(self.v.path("same"))
        with tempfile.TemporaryDirectory(dir=self.v.directory) as local:
            expected = steps(local)
        for number, (mine, theirs) in enumerate(zip(steps(self.v.path("same")), expected)):
            self.assertEqual(mine, theirs, "step %d" % number)

    def test_the_kernel_decides_by_them(self):
        self.v.write("f", b"secret")
        path = self.v.path("f")
        os.chmod(path, 0o600)
        read = "open(%r).read()" % path
        self.assertFalse(as_somebody(NOBODY, read))
        os.setxattr(path, ACCESS, acl((OWNER, 6), (USER, 4, NOBODY), (GROUP, 0), (MASK, 4), (OTHER, 0)))
        self.assertTrue(as_somebody(NOBODY, read))
        self.assertFalse(as_somebody(NOBODY, "open(%r, 'r+')" % path))
        self.assertFalse(as_somebody(STRANGER, read))
        os.chmod(path, 0o600)  # takes the mask away
        self.assertFalse(as_somebody(NOBODY, read))

    def test_a_set_group_id_bit_stays_for_the_group_and_for_root_only(self):
        def modes(root):
            found = []
            for name, groups in (("root", None), ("member", [100]), ("outsider", [1, 2])):
                path = os.path.join(root, name)
                os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
                os.chown(path, NOBODY, 100)
                os.chmod(path, 0o2770)
                call = "os.setxattr(%r, %r, %r)" % (path, ACCESS, LIST)
                if groups is None:
                    os.setxattr(path, ACCESS, LIST)
                else:
                    subprocess.run([sys.executable, "-c", "import os\nos.setgroups(%r)\nos.setgid(%d)\nos.setuid(%d)\n%s" % (groups, NOBODY, NOBODY, call)],
                                   check=True, timeout=WAIT_S, stdin=subprocess.DEVNULL)
                found.append(state(path))
            return found

        os.mkdir(self.v.path("setgid"))
        os.chmod(self.v.directory, 0o755)
        with tempfile.TemporaryDirectory(dir=self.v.directory) as local:
            os.chmod(local, 0o755)
            expected = modes(local)
        self.assertEqual([mode for mode, _, _ in expected], [oct(0o102770), oct(0o102770), oct(0o100770)])
        self.assertEqual(modes(self.v.path("setgid")), expected)

    def test_a_remount_keeps_them(self):
        os.mkdir(self.v.path("d"))
        os.setxattr(self.v.path("d"), DEFAULT, LIST)
        self.v.write("d/f", b"x")
        before = state(self.v.path("d")), state(self.v.path("d/f"))
        self.v.kill()
        self.v.mount()
        self.assertEqual((state(self.v.path("d")), state(self.v.path("d/f"))), before)
        self.v.write("d/later", b"x")
        self.assertEqual(attribute(self.v.path("d/later"), ACCESS), before[1][1])

    def test_the_control_file_shows_and_sets_them(self):
        self.v.write("f", b"x")
        os.mkdir(self.v.path("d"))
        self.assertEqual(self.v.ask(op="acl-get", path="/f")["entries"], [])
        os.stat(self.v.path("f")), attribute(self.v.path("f"), ACCESS)  # the kernel keeps them
        entries = ["user::rw-", "other::---", "group::r--", "mask::rwx", "group:%d:-w-" % STRANGER, "user:nobody:r-x"]
        self.assertTrue(self.v.ask(op="acl-set", path="/f", entries=entries)["ok"])
        self.assertEqual(attribute(self.v.path("f"), ACCESS),
                         acl((OWNER, 6), (USER, 5, NOBODY), (GROUP, 4), (NAMED_GROUP, 2, STRANGER), (MASK, 7), (OTHER, 0)))
        self.assertEqual(os.stat(self.v.path("f")).st_mode & 0o777, 0o670)
        self.assertEqual(self.v.ask(op="acl-get", path="/f")["entries"],
                         ["user::rw-", "user:nobody:r-x", "group::r--", "group:%d:-w-" % STRANGER, "mask::rwx", "other::---"])
        before = state(self.v.path("f")), state(self.v.path("d"))
        for path, wrong in (("/f", []), ("/f", ["user::rwx"]), ("/f", entries + entries), ("/f", entries + ["default:user::rwx"]),
                            ("/f", [*PLAIN_TEXT, "default:user::rwx", "default:group::---", "default:other::---"]),
                            ("/f", [*PLAIN_TEXT, "user:no such user:rwx", "mask::rwx"]), ("/d", [*PLAIN_TEXT, "default:user::rwx"])):
            self.assertEqual(self.v.ask(op="acl-set", path=path, entries=wrong)["error"], "EINVAL", wrong)
        self.assertEqual((state(self.v.path("f")), state(self.v.path("d"))), before)
        self.assertTrue(self.v.ask(op="acl-set", path="/f", entries=PLAIN_TEXT)["ok"])
        self.assertEqual(attribute(self.v.path("f"), ACCESS), "ENODATA")
        both = [*PLAIN_TEXT, "default:user::rwx", "default:group::r-x", "default:other::---"]
        self.assertTrue(self.v.ask(op="acl-set", path="/d", entries=both)["ok"])
        self.assertEqual(attribute(self.v.path("d"), DEFAULT), acl((OWNER, 7), (GROUP, 5), (OTHER, 0)))
        self.assertTrue(self.v.ask(op="acl-set", path="/d", entries=PLAIN_TEXT)["ok"])
        self.assertEqual(attribute(self.v.path("d"), DEFAULT), "ENODATA")

    def test_the_control_file_asks_who_owns_it(self):
        self.v.write("f", b"x")
        os.chmod(self.v.path("f"), 0o666)
        request = json.dumps({"op": "acl-set", "path": "/f", "entries": PLAIN_TEXT})
        code = ("h = os.open(%r, os.O_RDWR); os.write(h, %r); assert b'EPERM' in os.read(h, 65536)" % (self.v.path(".sluice", "ctl"), request.encode()))
        self.assertTrue(as_somebody(STRANGER, code))

    def test_setfacl_and_getfacl(self):
        self.v.write("f", b"x")
        subprocess.run(["setfacl", "-m", "u:%d:rw,g:%d:r" % (NOBODY, STRANGER), self.v.path("f")], check=True, timeout=WAIT_S)
        shown = subprocess.run(["getfacl", "-n", "-c", self.v.path("f")], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True,
                               timeout=WAIT_S).stdout
        self.assertIn("user:%d:rw-" % NOBODY, shown)
        self.assertIn("mask::rw-", shown)
        subprocess.run(["setfacl", "-b", self.v.path("f")], check=True, timeout=WAIT_S)
        self.assertEqual(attribute(self.v.path("f"), ACCESS), "ENODATA")


class Embedded(Lists, unittest.TestCase):
    def make(self):
        return Volume(options=["--posix-acl"])

    def test_without_the_option_there_are_none(self):
        with Volume() as v:
            v.write("f", b"x")
            self.assertEqual(attempt(os.setxattr, v.path("f"), ACCESS, LIST), "ENOTSUP")
            self.v = v
            self.assertEqual(self.v.ask(op="acl-get", path="/f")["error"], "EOPNOTSUPP")

    def test_rebuild_brings_them_back(self):
        os.mkdir(self.v.path("d"))
        os.setxattr(self.v.path("d"), DEFAULT, LIST)
        self.v.write("d/f", b"x")
        before = state(self.v.path("d")), state(self.v.path("d/f"))
        self.v.settle()
        self.v.unmount()
        shutil.rmtree(os.path.join(self.v.directory, "meta"))
        self.v.sluice("rebuild", self.v.url, "--meta-dir", os.path.join(self.v.directory, "meta"))
        self.v.mount()
        self.assertEqual((state(self.v.path("d")), state(self.v.path("d/f"))), before)


class Served(Lists, unittest.TestCase):
    def make(self):
        return ServiceVolume(options=["--posix-acl"])


if __name__ == "__main__":
    unittest.main()
