"""A disk of its own for a test: a file system on a loop device."""

import fcntl
import os
import struct
import subprocess
import tempfile
import unittest

from volume import WAIT_S

LOOP_SET_STATUS64, LOOP_GET_STATUS64 = 0x4C04, 0x4C05
LOOP_INFO64 = 232  # bytes of struct loop_info64
SIZE_LIMIT_AT = 32  # lo_sizelimit in it


def run(*command):
    return subprocess.run(command, check=True, timeout=WAIT_S, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout


class Disk:
    """An ext4 on a loop device, mounted; its failures are those of a real disk. Without a journal unless `features` say otherwise."""

    def __init__(self, test, size, features=("-O", "^has_journal"), options="errors=continue"):
        self.directory = tempfile.mkdtemp(prefix="sluice-disk.")
        test.addCleanup(os.rmdir, self.directory)
        self.mount = os.path.join(self.directory, "mnt")
        image = self.make_image(test, size)
        run("mkfs.ext4", "-q", "-F", *features, "-m", "0", image)
        try:
            self.device = run("losetup", "--find", "--show", image).strip()
        except (OSError, subprocess.CalledProcessError) as error:
            raise unittest.SkipTest("no loop devices here: %s" % error)
        test.addCleanup(run, "losetup", "-d", self.device)
        os.mkdir(self.mount)
        test.addCleanup(os.rmdir, self.mount)
        run("mount", "-o", options, self.device, self.mount)
        test.addCleanup(self.unmount)

    def make_image(self, test, size):
        image = os.path.join(self.directory, "image")
        with open(image, "wb") as f:
            f.truncate(size)
        test.addCleanup(os.unlink, image)
        return image

    def unmount(self):
        self.limit(0)
        run("umount", "-l", self.mount)

    def limit(self, size):
        """Bytes of the device that are there (0: all): all others fail with EIO."""
        fd = os.open(self.device, os.O_RDWR)
        try:
            info = bytearray(LOOP_INFO64)
            fcntl.ioctl(fd, LOOP_GET_STATUS64, info)
            struct.pack_into("=Q", info, SIZE_LIMIT_AT, size)
            fcntl.ioctl(fd, LOOP_SET_STATUS64, bytes(info))
        finally:
            os.close(fd)
