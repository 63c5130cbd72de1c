"""New files of the classes local and scratch that the kernel writes by itself in their staging file: what the mount learns late is not lost."""

import mmap
import os
import random
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from test_durability import data_of, forget_boot, noise
from volume import Volume, wait_until

MIB = 1 << 20
CLOCK_REALTIME_COARSE = 5  # what file systems take times from; no name in Python


def requests(volume, op):
    return volume.metric('sluice_fs_request_seconds_count{op="%s"}' % op)


def switches(volume, name):
    """How often the threads of that name have waited for something."""
    sum_of = 0
    for task in os.listdir("/proc/%d/task" % volume.process.pid):
        with open("/proc/%d/task/%s/status" % (volume.process.pid, task)) as f:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)
        if status["Name"].startswith(name):
            sum_of += int(status["voluntary_ctxt_switches"])
    return sum_of


class PassedWrites(unittest.TestCase):
    def start(self, *options, **more):
        v = Volume(options=list(options), **more)
        self.addCleanup(v.close)
        return v.mount()

    def local(self, *options, **more):
        return self.start("--durability", "local", "--upload-delay", "1h", *options, **more)

    def open(self, v, name, flags=os.O_RDWR | os.O_CREAT):
        fd = os.open(v.path(name), flags, 0o644)
        self.addCleanup(self.close, fd)
        return fd

    def close(self, fd):
        try:
            os.close(fd)
        except OSError:
            pass  # closed by the test, or of a mount that is gone

    def settled(self, v, files):
        for name, data in files.items():
            self.assertTrue(v.read(name) == data, name + " differs")
        v.settle()
        for name, data in files.items():
            self.assertTrue(v.object(name) == data, "object %s differs" % name)
        self.assertEqual(data_of(v)["backlog"]["files"], 0)
        v.unmount()
        self.assertEqual(v.check_metadata(), "")

    def test_line_by_line_asks_the_mount_once_for_each_line(self):
        v = self.local()
        fd = self.open(v, "sink", os.O_WRONLY | os.O_CREAT)
        before = {op: requests(v, op) for op in ("write", "getattr")}
        for n in range(500):
            self.assertEqual(os.fstat(fd).st_size, 30 * n)
            os.write(fd, b"a" * 15)
            os.write(fd, b"b" * 15)
        os.fsync(fd)
        self.assertEqual(requests(v, "write"), before["write"])
        self.assertLessEqual(requests(v, "getattr"), before["getattr"] + 502)
        self.assertGreater(os.fstat(fd).st_mtime, 0)
        os.close(fd)
        self.settled(v, {"sink": (b"a" * 15 + b"b" * 15) * 500})

    def test_fsync_is_done_by_the_thread_that_was_asked(self):
        for options in ((), ("--no-passthrough",)):
            v = self.local(*options)
            fd = self.open(v, "f")
            os.write(fd, noise(MIB, 1))
            os.fsync(fd)
            before = switches(v, "data-sync")
            for n in range(20):
                os.pwrite(fd, noise(4096, n), n * 8192)
                os.fsync(fd)
            self.assertEqual(switches(v, "data-sync"), before)
            os.close(fd)
            v.unmount()

    def test_the_time_of_an_overwrite_survives_a_kill_though_fsync_does_not_ask_for_it(self):
        v = self.local()
        fd = self.open(v, "f")
        os.write(fd, noise(MIB, 1))
        os.fsync(fd)
        before = os.fstat(fd).st_mtime_ns
        wait_until("a tick of the clock", lambda: time.clock_gettime_ns(CLOCK_REALTIME_COARSE) > before)
        os.pwrite(fd, noise(4096, 2), 8192)
        os.fsync(fd)
        v.kill()
        self.close(fd)
        v.mount()
        self.assertGreater(os.stat(v.path("f")).st_mtime_ns, before)
        self.settled(v, {"f": noise(MIB, 1)[:8192] + noise(4096, 2) + noise(MIB, 1)[12288:]})

    def test_no_passthrough_gives_the_same(self):
        v = self.local("--no-passthrough")
        before = requests(v, "write")
        fd = self.open(v, "f")
        os.write(fd, b"x" * 100000)
        os.close(fd)
        wait_until("the write", lambda: requests(v, "write") > before)
        self.settled(v, {"f": b"x" * 100000})

    def test_two_handles_a_mapping_and_all_that_changes_a_file(self):
        v = self.local()
        rng = random.Random(4)
        first, second = self.open(v, "f"), self.open(v, "f")
        direct = self.open(v, "f", os.O_RDWR | os.O_DIRECT)
        reader = self.open(v, "f", os.O_RDONLY)
        page = mmap.mmap(-1, 4096)
        model = bytearray()

        def write(fd, at, data):
            self.assertEqual(os.pwrite(fd, data, at), len(data))
            model.extend(bytes(max(0, at + len(data) - len(model))))
            model[at:at + len(data)] = data

        before = requests(v, "write")
        for step in range(250):
            what = rng.randrange(8)
            at = rng.randrange(0, 300000)
            if what < 3:
                write(rng.choice((first, second)), at, rng.randbytes(rng.randrange(1, 20000)))
            elif what == 3:
                page[:] = rng.randbytes(4096)
                at &= ~4095
                self.assertEqual(os.pwritev(direct, [page], at), 4096)
                model.extend(bytes(max(0, at + 4096 - len(model))))
                model[at:at + 4096] = page[:]
            elif what == 4:
                size = rng.randrange(0, 350000)
                os.ftruncate(first, size)
                del model[size:]
                model.extend(bytes(size - len(model)))
            elif what == 5:
                os.posix_fallocate(second, at, 5000)
                model.extend(bytes(max(0, at + 5000 - len(model))))
            elif what == 6 and len(model) > 8192:
                with mmap.mmap(first, 8192) as view:
                    view[100:200] = model[100:200] = rng.randbytes(100)
            else:
                os.fsync(rng.choice((first, second)))
            self.assertEqual(os.fstat(second).st_size, len(model))
            self.assertEqual(os.stat(v.path("f")).st_size, len(model))
            if step % 10 == 0:
                self.assertTrue(os.pread(reader, 400000, 0) == model)
        self.assertEqual(requests(v, "write"), before)
        # The mount's own view of it.
        v.write("copy", b"")
        with open(v.path("copy"), "r+b") as to:
            os.copy_file_range(first, to.fileno(), min(len(model), 400000), 0, 0)
        self.assertTrue(v.read("copy") == model)
        for fd in (first, second, direct, reader):
            os.close(fd)
        self.settled(v, {"f": bytes(model), "copy": bytes(model)})

    def test_holes_take_no_room(self):
        v = self.local()
        fd = self.open(v, "f")
        os.ftruncate(fd, 8 << 30)
        os.pwrite(fd, b"x" * 4096, 5 << 30)
        os.fsync(fd)
        self.assertLess(data_of(v)["staged_bytes"], MIB)
        self.assertEqual(os.lseek(fd, 0, os.SEEK_DATA), 5 << 30)
        v.kill()
        v.mount()
        self.assertEqual(os.stat(v.path("f")).st_size, 8 << 30)
        self.assertLess(data_of(v)["staged_bytes"], MIB)
        with open(v.path("f"), "rb") as f:
            self.assertEqual(os.pread(f.fileno(), 8192, (5 << 30) - 4096), bytes(4096) + b"x" * 4096)
        os.unlink(v.path("f"))

    def test_killed_while_it_is_written(self):
        v = self.local()
        data, more = noise(3 * MIB + 5, 1), noise(70001, 2)
        fd = self.open(v, "f")
        os.write(fd, data)
        os.fsync(fd)
        os.write(fd, more)  # not synced
        new = self.open(v, "new")
        os.write(new, more)
        v.kill()
        # Who outlived the mount may write on: into nothing.
        os.write(fd, b"late")
        v.mount()
        os.pwrite(fd, b"late", 0)
        os.pwrite(new, b"late", 10)
        want = {"new": more}
        f = v.read("f")
        self.assertIn(f, (data + more, data + more + b"late"))
        want["f"] = f
        os.write(fd, b"later")
        self.settled(v, want)

    def test_power_loss_keeps_what_was_synced(self):
        v = self.local()
        data = noise(2 * MIB, 3)
        fd, closed = self.open(v, "f"), self.open(v, "closed")
        os.write(fd, data)
        os.fsync(fd)
        os.write(fd, b"not synced" * 1000)
        cut = self.open(v, "cut")
        os.write(cut, data)
        os.fsync(cut)
        os.ftruncate(cut, 1000)
        os.write(closed, data[::-1])
        os.close(closed)
        v.kill()
        self.assertGreaterEqual(forget_boot(v), 3)
        v.mount()
        # What was not synced may be there, as on any local disk.
        self.assertIn(v.read("f"), (data, data + b"not synced" * 1000))
        self.assertIn(v.read("cut"), (data, data[:1000]))
        self.settled(v, {"f": v.read("f"), "closed": data[::-1], "cut": v.read("cut")})

    def test_small_files_are_committed_with_their_close(self):
        v = self.local()
        v.write("small", b"abc" * 1000)
        wait_until("the commit", lambda: data_of(v)["dirty_files"] == 0)
        fd = self.open(v, "again")
        os.write(fd, b"one")
        os.fsync(fd)
        os.pwrite(fd, b"two", 0)
        os.close(fd)
        v.kill()
        v.mount()
        self.settled(v, {"small": b"abc" * 1000, "again": b"two"})

    def test_what_is_uploaded_while_it_is_written_is_uploaded_again(self):
        v = self.local()
        fd = self.open(v, "f")
        data = noise(MIB, 6)
        os.write(fd, data)
        self.assertTrue(v.ask(op="flush")["ok"])
        self.assertEqual(v.object("f"), data)
        os.pwrite(fd, b"changed", 1000)
        os.close(fd)
        self.settled(v, {"f": data[:1000] + b"changed" + data[1007:]})

    def test_a_mapping_outlives_its_handle(self):
        v = self.local("--upload-delay", "0s")
        fd = self.open(v, "f")
        data = noise(200000, 7)
        os.write(fd, data)
        with mmap.mmap(fd, len(data)) as view:
            os.close(fd)
            view[5:10] = b"after"
            wait_until("the look at it", lambda: data_of(v)["open_files"] > 0)
            self.assertEqual(v.read("f")[:10], data[:5] + b"after")
            view[15:20] = b"later"
        self.settled(v, {"f": data[:5] + b"after" + data[10:15] + b"later" + data[20:]})

    def test_scratch_that_moves_out_while_it_is_written(self):
        v = self.start("--durability-for", "tmp*=scratch")
        os.mkdir(v.path("tmp"))
        data = noise(400000, 8)
        before = requests(v, "write")
        fd = self.open(v, "tmp/f")
        os.write(fd, data)
        os.rename(v.path("tmp", "f"), v.path("f"))
        os.write(fd, b"more")
        gone = self.open(v, "tmp/gone")
        os.write(gone, data)
        self.assertEqual(requests(v, "write"), before)
        os.close(fd)  # of class store now
        self.assertEqual(v.object("f"), data + b"more")
        v.kill()
        v.mount()
        self.assertEqual(os.listdir(v.path("tmp")), [])
        self.settled(v, {"f": data + b"more"})

    def test_not_when_room_is_short(self):
        v = self.local("--staging-max", "64M", "--durability-for", "tmp*=scratch")
        v.write("tmp", noise(33 * MIB, 9))
        wait_until("the count", lambda: data_of(v)["staged_bytes"] == 33 * MIB)
        before = requests(v, "write")
        fd = self.open(v, "f")
        os.write(fd, b"x" * 50000)
        wait_until("the write", lambda: requests(v, "write") > before)
        os.close(fd)

    def test_what_is_written_counts(self):
        v = self.local()
        fd = self.open(v, "f")
        os.write(fd, noise(5 * MIB, 10))
        wait_until("the count", lambda: data_of(v)["staged_bytes"] == 5 * MIB)
        os.unlink(v.path("f"))
        os.write(fd, b"x" * 10)
        self.assertEqual(os.fstat(fd).st_size, 5 * MIB + 10)
        os.close(fd)
        wait_until("no bytes", lambda: data_of(v)["staged_bytes"] == 0)


if __name__ == "__main__":
    unittest.main()
