"""Files of a service's volume that the kernel of one mount reads from its cache by itself, while another mount writes them."""

import errno
import mmap
import os
import random
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from service import ServiceVolume
from test_cache import noise
from test_passthrough import MIB, reads
from volume import wait_until

OPTIONS = ["--cache-size", "256M"]


class Shared(unittest.TestCase):
    def open_passed(self, v, name):
        """A descriptor whose reads do not come to the mount: then those of another one, past the page cache, do not either."""

        def passed():
            fd = os.open(v.path(name), os.O_RDONLY)
            other = os.open(v.path(name), os.O_RDONLY | os.O_DIRECT)
            before = reads(v)
            os.preadv(other, [mmap.mmap(-1, 65536)], 0)
            os.close(other)
            if reads(v) == before:
                self.fd = fd
                return True
            os.close(fd)
            v.sluice("warm", "--wait", v.path(name))  # a page that found no room on a busy machine was not cached
            return False

        wait_until("passthrough of %s" % name, passed)
        self.addCleanup(self.close, self.fd)
        return self.fd

    def close(self, fd):
        try:
            os.close(fd)
        except OSError as error:
            self.assertEqual(error.errno, errno.EBADF)

    @classmethod
    def setUpClass(cls):
        # Nobody is waited for in vain: who does not confirm would hold the writer up until the test gives up.
        cls.a = ServiceVolume(options=OPTIONS, settle_delay="1h", service_options=["--lease", "300s"])
        cls.addClassCleanup(cls.a.close)
        cls.a.mount()
        cls.others = []
        for _ in range(2):
            other = ServiceVolume(service=cls.a.service, bucket=cls.a.bucket, options=OPTIONS)
            cls.addClassCleanup(other.close)
            cls.others.append(other.mount())
        cls.b = cls.others[0]

    def passed(self, name, size, seed=1, volumes=None):
        """The bytes that `a` wrote, and a descriptor on each other mount whose reads do not come to it."""
        data = bytearray(noise(size, seed))
        self.a.write(name, bytes(data))
        fds = []
        for v in volumes or [self.b]:
            self.assertEqual(v.read(name), data)
            fds.append(self.open_passed(v, name))
        return data, fds

    def change(self, name, data, offset, new):
        """On the first mount; acknowledged when this returns."""
        fd = os.open(self.a.path(name), os.O_WRONLY)
        self.assertEqual(os.pwrite(fd, new, offset), len(new))
        os.close(fd)
        data[len(data):offset] = bytes(max(0, offset - len(data)))
        data[offset:offset + len(new)] = new

    def test_an_open_file_has_what_another_mount_wrote(self):
        """When close returns there, whoever reads here sees it: by a descriptor of before, a mapping, or a new descriptor, none of which asks the mount."""
        data, fds = self.passed("f", 3 * MIB + 1234, volumes=self.others)
        before = [reads(v) for v in self.others]
        with mmap.mmap(fds[0], 0, prot=mmap.PROT_READ) as view:
            for seed, (offset, length) in enumerate([(5, 100), (MIB - 7, 5000), (2 * MIB, 200 * 1024), (0, 1)]):
                self.change("f", data, offset, noise(length, 100 + seed))
                self.assertEqual(view[:], data)
                for v, fd in zip(self.others, fds):
                    self.assertEqual(os.pread(fd, 8 * MIB, 0), data)
                    self.assertEqual(v.read("f"), data)
        self.assertEqual([reads(v) for v in self.others], before)
        for fd in fds:
            os.close(fd)
        for v in self.others:
            self.assertEqual(v.read("f"), data)

    def test_it_grows_shrinks_and_is_written_anew(self):
        data, (fd,) = self.passed("g", 2 * MIB)
        for i in range(3):
            self.change("g", data, len(data), b"line %d\n" % i)
            self.assertEqual(os.pread(fd, 8 * MIB, 0), data)
            self.a.settle("g")  # the same bytes, in one object again
            self.assertEqual(os.pread(fd, 8 * MIB, 0), data)
        os.truncate(self.a.path("g"), MIB + 5)
        del data[MIB + 5:]
        wait_until("the truncate", lambda: os.stat(self.b.path("g")).st_size == MIB + 5)
        self.assertEqual(os.pread(fd, 8 * MIB, 0), data)
        self.change("g", data, 3 * MIB, b"after a hole")
        self.assertEqual(os.pread(fd, 8 * MIB, 0), data)
        data = noise(5 * MIB, 7)
        self.a.write("g", data)
        self.assertEqual(os.pread(fd, 8 * MIB, 0), data)
        self.assertEqual(self.b.read("g"), data)

    def test_what_is_written_here_stays(self):
        """Two mounts write other places of the file, and this one has not closed yet."""
        data, (fd,) = self.passed("w", 2 * MIB)
        writer = os.open(self.b.path("w"), os.O_WRONLY)
        self.addCleanup(self.close, writer)
        for i in range(3):
            mine = noise(300 * 1024, 50 + i)
            offset = 100 * 1024 + i * 1000
            os.pwrite(writer, mine, offset)
            data[offset:offset + len(mine)] = mine
            self.change("w", data, MIB + i * 10, noise(3000, 60 + i))
            self.assertEqual(os.pread(fd, 8 * MIB, 0), data)
        os.close(writer)
        self.assertEqual(os.pread(fd, 8 * MIB, 0), data)
        for v in (self.a, self.b):
            self.assertEqual(v.read("w"), data)

    def test_too_much_to_wait_for(self):
        """Who has it open keeps what he had, as a whole; who opens it has the new content."""
        size = 34 * MIB
        data, (fd,) = self.passed("big", size)
        new = noise(size, 9)
        self.a.write("big", new)
        self.assertEqual(self.b.read("big"), new)
        self.assertEqual(os.pread(fd, size + 1, 0), data)
        os.close(fd)
        self.assertEqual(self.b.read("big"), new)

    def test_random_changes(self):
        rng = random.Random(3)
        data, fds = self.passed("r", MIB, volumes=self.others)
        fd = os.open(self.a.path("r"), os.O_WRONLY)
        self.addCleanup(self.close, fd)
        for i in range(30):
            for _ in range(rng.randrange(1, 4)):
                offset, new = rng.randrange(MIB + MIB // 4), noise(rng.randrange(1, 1 << rng.randrange(1, 18)), i)
                os.pwrite(fd, new, offset)
                data[len(data):offset] = bytes(max(0, offset - len(data)))
                data[offset:offset + len(new)] = new
            if rng.random() < 0.2:
                del data[rng.randrange(MIB // 2, len(data)):]
                os.ftruncate(fd, len(data))
            os.fsync(fd)
            for other in fds:
                self.assertEqual(os.pread(other, 4 * MIB, 0), data, i)


if __name__ == "__main__":
    unittest.main()
