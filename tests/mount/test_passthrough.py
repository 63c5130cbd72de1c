"""Reads that the kernel takes from the cache file itself, and what happens to them when the file changes."""

import errno
import mmap
import os
import random
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from gateway import Gateway
from test_cache import cache, noise, wait_cached
from volume import Volume, wait_until

MIB = 1 << 20


def setUpModule():
    global gateway
    gateway = Gateway().__enter__()


def tearDownModule():
    gateway.__exit__(None, None, None)


def reads(volume):
    """Reads that the kernel has sent to the mount."""
    return volume.metric('sluice_fs_request_seconds_count{op="read"}')


class PassthroughTest(unittest.TestCase):
    def volume(self, *options):
        v = Volume(gateway=gateway, options=["--cache-size", "256M", *options])
        self.addCleanup(v.close)
        return v.mount()

    def open_passed(self, v, name):
        """A descriptor whose reads do not come to the mount."""

        def passed():
            fd = os.open(v.path(name), os.O_RDONLY)
            before = reads(v)
            os.pread(fd, 4096, 0)
            os.pread(fd, 4096, os.fstat(fd).st_size // 2)
            # What the mount did with the metrics request is no read of the file.
            if reads(v) == before:
                self.fd = fd
                return True
            os.close(fd)
            return False

        wait_until("passthrough of %s" % name, passed)
        self.addCleanup(self.close, self.fd)
        return self.fd

    def close(self, *fds):
        for fd in fds:
            try:
                os.close(fd)
            except OSError as error:
                self.assertEqual(error.errno, errno.EBADF)

    def passed_file(self, size=3 * MIB + 1234, seed=1, name="f", v=None):
        v = v or self.volume()
        data = bytearray(noise(size, seed))
        v.put_object(name, bytes(data))
        before = cache(v)["bytes"]
        self.assertEqual(v.read(name), data)
        wait_cached(v, before + size)
        return v, data, self.open_passed(v, name)

    def settled(self, v, name, data):
        """The file, read anew, and its object are these bytes."""
        self.assertEqual(v.read(name), data)
        v.settle()
        self.assertEqual(v.object(name), data)
        v.unmount()
        v.mount()
        self.assertEqual(v.read(name), data)

    def whole(self, fd):
        return os.pread(fd, 64 * MIB, 0)

    def test_warm_reads_do_not_come_to_the_mount(self):
        v, data, fd = self.passed_file()
        other = os.open(v.path("f"), os.O_RDONLY | os.O_DIRECT)
        self.addCleanup(self.close, other)
        before = reads(v)
        self.assertEqual(self.whole(fd), data)
        room = mmap.mmap(-1, MIB)
        self.assertEqual(os.preadv(other, [room], MIB), MIB)
        self.assertEqual(room[:], data[MIB:2 * MIB])
        with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as view:
            self.assertEqual(view[:], data)
        self.assertEqual(reads(v), before)
        # Again after a restart: first the pages are checked, behind a reader.
        os.close(fd)
        os.close(other)
        v.unmount()
        v.mount()
        self.assertEqual(v.read("f"), data)
        self.assertEqual(self.whole(self.open_passed(v, "f")), data)

    def test_a_file_just_written_is_passed_through(self):
        v = self.volume()
        data = noise(3 * MIB + 77, 21)
        v.write("f", data)
        before = reads(v)
        fd = os.open(v.path("f"), os.O_RDONLY | os.O_DIRECT)
        self.addCleanup(self.close, fd)
        room = mmap.mmap(-1, MIB)
        self.assertEqual(os.preadv(fd, [room], MIB), MIB)
        self.assertEqual(room[:], data[MIB:2 * MIB])
        self.assertEqual(reads(v), before)

    def test_without_it_all_is_the_same(self):
        v = self.volume("--no-passthrough")
        data = noise(MIB, 2)
        v.put_object("f", data)
        self.assertEqual(v.read("f"), data)
        wait_cached(v, MIB)
        before = reads(v)
        fd = os.open(v.path("f"), os.O_RDONLY | os.O_DIRECT)
        room = mmap.mmap(-1, 4096)
        os.preadv(fd, [room], 8192)
        os.close(fd)
        self.assertEqual(room[:], data[8192:12288])
        self.assertGreater(reads(v), before)

    def test_a_reader_sees_what_is_written(self):
        v, data, fd = self.passed_file()
        view = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
        for flags in (os.O_WRONLY, os.O_RDWR):
            writer = os.open(v.path("f"), flags)
            for at in (0, 4096 + flags, 2 * MIB + 17, len(data) - 50):
                piece = noise(50, at + flags)
                os.pwrite(writer, piece, at)
                data[at:at + 50] = piece
                self.assertEqual(self.whole(fd), data)
                self.assertEqual(view[:], data)
                if flags == os.O_RDWR:
                    self.assertEqual(self.whole(writer), data)
            os.close(writer)
        self.assertEqual(self.whole(fd), data)
        view.close()
        os.close(fd)
        self.settled(v, "f", data)

    def test_appends_and_truncates_reach_a_reader(self):
        v, data, fd = self.passed_file()
        with open(v.path("f"), "ab") as f:
            f.write(b"appended")
        data += b"appended"
        self.assertEqual(self.whole(fd), data)
        os.truncate(v.path("f"), 100000)
        del data[100000:]
        self.assertEqual(self.whole(fd), data)
        self.assertEqual(os.fstat(fd).st_size, 100000)
        os.truncate(v.path("f"), 300000)
        data += bytes(200000)
        self.assertEqual(self.whole(fd), data)
        with open(v.path("f"), "wb") as f:
            self.assertEqual(self.whole(fd), b"")
            f.write(b"new content")
        self.assertEqual(self.whole(fd), b"new content")
        os.close(fd)
        self.settled(v, "f", b"new content")

    def test_holes_and_copies_reach_a_reader(self):
        v, data, fd = self.passed_file()
        source = noise(500000, 9)
        v.write("source", source)
        writer = os.open(v.path("f"), os.O_RDWR)
        subprocess.run(["fallocate", "-p", "-o", "200000", "-l", "300000", v.path("f")], check=True)
        data[200000:500000] = bytes(300000)
        self.assertEqual(self.whole(fd), data)
        other = os.open(v.path("source"), os.O_RDONLY)
        done = 0
        while done < len(source):
            done += os.copy_file_range(other, writer, len(source) - done, done, MIB + done)
        data[MIB:MIB + len(source)] = source
        self.assertEqual(self.whole(fd), data)
        os.close(other)
        os.close(writer)
        os.close(fd)
        self.settled(v, "f", data)

    def test_what_is_written_through_a_mapping_is_kept(self):
        v, data, fd = self.passed_file()
        writer = os.open(v.path("f"), os.O_RDWR)
        view = mmap.mmap(writer, 0)
        for at in (0, 777777, len(data) - 5):
            view[at:at + 5] = b"mmap!"
            data[at:at + 5] = b"mmap!"
        self.assertEqual(self.whole(fd), data)
        self.assertEqual(self.whole(writer), data)
        os.fsync(writer)
        v.settle()
        self.assertEqual(v.object("f"), data)
        view[5:8] = b"two"
        data[5:8] = b"two"
        os.pwrite(writer, b"three", MIB)
        data[MIB:MIB + 5] = b"three"
        view.close()
        os.close(writer)
        os.close(fd)
        self.settled(v, "f", data)

    def test_a_mapping_that_outlives_its_handle_is_kept_too(self):
        v, data, fd = self.passed_file()
        writer = os.open(v.path("f"), os.O_RDWR)
        view = mmap.mmap(writer, 0)  # has a descriptor of its own
        os.close(writer)
        os.close(fd)
        view[100:105] = b"later"
        data[100:105] = b"later"
        view.close()
        wait_until("the last changes", lambda: v.read("f") == data)
        self.settled(v, "f", data)

    def test_a_mapping_keeps_its_bytes_when_the_cache_forgets_them(self):
        v, data, fd = self.passed_file()
        view = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
        os.close(fd)
        filler = noise(32 * MIB, 3)
        for i in range(9):
            v.put_object("filler%d" % i, filler)
            self.assertEqual(v.read("filler%d" % i), filler)
        wait_until("eviction", lambda: cache(v)["evicted_bytes"] > 0)
        self.assertEqual(view[:], data)
        view.close()

    def test_other_names_and_no_name(self):
        v, data, fd = self.passed_file()
        os.link(v.path("f"), v.path("hard"))
        with open(v.path("hard"), "r+b") as f:
            f.write(b"by the other name")
        data[:17] = b"by the other name"
        self.assertEqual(self.whole(fd), data)
        v.write("new", b"another file")
        os.rename(v.path("new"), v.path("f"))
        os.unlink(v.path("hard"))
        self.assertEqual(self.whole(fd), data)
        self.assertEqual(v.read("f"), b"another file")
        v.settle()
        self.assertEqual(self.whole(fd), data)

    def test_a_clone_is_a_file_of_its_own(self):
        v, data, fd = self.passed_file()
        v.write("g", b"")
        with open(v.path("f"), "rb") as source, open(v.path("g"), "r+b") as target:
            os.copy_file_range(source.fileno(), target.fileno(), len(data))
        kept = bytes(data)
        clone = os.open(v.path("g"), os.O_RDONLY)
        with open(v.path("f"), "r+b") as f:
            f.write(b"changed")
        data[:7] = b"changed"
        self.assertEqual(self.whole(fd), data)
        self.assertEqual(self.whole(clone), kept)
        self.close(clone, fd)
        self.assertEqual(v.read("g"), kept)
        self.settled(v, "f", data)
        self.assertEqual(v.read("g"), kept)

    def test_a_change_from_outside(self):
        v, data, fd = self.passed_file()
        new = noise(2 * MIB, 5)
        v.put_object("f", new)
        v.refresh()
        # Who had it open reads the old content, as a whole; the others the new one.
        self.assertEqual(self.whole(fd), data)
        self.assertEqual(v.read("f"), new)
        with self.assertRaises(OSError) as refused:
            os.open(v.path("f"), os.O_RDWR)
        self.assertEqual(refused.exception.errno, errno.ESTALE)
        writer = os.open(v.path("f"), os.O_WRONLY)
        os.pwrite(writer, b"over", 0)
        os.close(writer)
        new = b"over" + new[4:]
        self.assertEqual(self.whole(fd), data)
        os.close(fd)
        self.settled(v, "f", new)

    def test_random_handles_against_a_plain_file(self):
        """Readers, writers, mappings and truncates in any order, on the mount and on a local file alike."""
        for seed in range(6):
            with self.subTest(seed=seed):
                self.random_handles(seed)

    def random_handles(self, seed):
        rng = random.Random(seed)
        v, data, first = self.passed_file(size=600000, seed=seed, name="f%d" % seed, v=getattr(self, "v", None))
        self.v = v
        mounted, plain = v.path("f%d" % seed), os.path.join(v.directory, "plain%d" % seed)
        with open(plain, "wb") as f:
            f.write(data)
        handles = [(first, os.open(plain, os.O_RDONLY), os.O_RDONLY)]
        for step in range(120):
            do = rng.choice(["open", "close", "write", "write", "read", "read", "truncate", "map", "sync"])
            if do == "open" and len(handles) < 6:
                flags = rng.choice([os.O_RDONLY, os.O_RDONLY, os.O_WRONLY, os.O_RDWR])
                handles.append((os.open(mounted, flags), os.open(plain, flags), flags))
            elif do == "close" and handles and (len(handles) > 1 or rng.random() < 0.2):
                self.close(*handles.pop(rng.randrange(len(handles)))[:2])
            elif do == "truncate":
                size = rng.randrange(900000)
                os.truncate(mounted, size)
                os.truncate(plain, size)
            for a, b, flags in rng.sample(handles, min(2, len(handles))):
                at, length = rng.randrange(700000), rng.randrange(1, 70000)
                if do == "write" and flags != os.O_RDONLY:
                    piece = rng.randbytes(length)
                    os.pwrite(a, piece, at)
                    os.pwrite(b, piece, at)
                elif do == "read" and flags != os.O_WRONLY:
                    self.assertEqual(os.pread(a, length, at), os.pread(b, length, at), (seed, step, at, length))
                elif do == "sync":
                    os.fsync(a)
                elif do == "map" and flags == os.O_RDWR and os.fstat(b).st_size > at + 3:
                    for fd in (a, b):
                        with mmap.mmap(fd, os.fstat(fd).st_size) as view:
                            view[at:at + 3] = b"map"
                            view.flush()
        for a, b, _ in handles:
            self.close(a, b)
        with open(plain, "rb") as f:
            data = f.read()

        def same():
            with open(mounted, "rb") as f:
                return f.read() == data

        wait_until("what mappings wrote", same)
        v.settle()
        self.assertEqual(v.object("f%d" % seed), data)


if __name__ == "__main__":
    unittest.main()
