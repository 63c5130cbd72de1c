"""The SSD cache under a mount: what was read once is not asked of the store again, and is never wrong."""

import json
import mmap
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from gateway import Gateway
from volume import Volume, wait_until

MIB = 1 << 20


def setUpModule():
    global gateway
    gateway = Gateway().__enter__()


def tearDownModule():
    gateway.__exit__(None, None, None)


def noise(length, seed):
    return random.Random(seed).randbytes(length)


def gets(volume):
    """GETs that reads have made since the mount."""
    return volume.metric("sluice_fetch_requests_total")


def fetched(volume):
    """Bytes of these."""
    return volume.metric("sluice_fetch_bytes_total")


def cache(volume):
    return volume.status()["mount"]["cache"]


def anonymous(volume):
    """Bytes of memory of its own, huge pages that the kernel chose to give not counted."""
    held = {}
    with open("/proc/%d/smaps_rollup" % volume.process.pid) as rollup:
        for line in rollup:
            name, *value = line.split()
            if len(value) == 2:
                held[name] = int(value[0]) << 10
    return held["Anonymous:"] - held["AnonHugePages:"]


def wait_cached(volume, size):
    """Fills go on behind the reads."""
    wait_until("%d cached bytes" % size, lambda: cache(volume)["bytes"] >= size)


def drop_pages(volume, *names):
    """The kernel forgets its copies: the next read asks the mount."""
    for name in names:
        fd = os.open(volume.path(name), os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


class Room(unittest.TestCase):
    """How long what was cached stays, and how much of the disk is left to others."""

    def cached(self, *options):
        v = Volume(gateway=gateway, options=["--cache-size", "1G", *options])
        self.addCleanup(v.close)
        v.put_object("f", noise(3 * MIB, 1))
        v.mount()
        self.assertEqual(v.read("f"), noise(3 * MIB, 1))
        return v

    def test_what_nobody_reads_goes_after_its_time(self):
        v = self.cached("--cache-ttl", "2s")
        wait_cached(v, 3 * MIB)
        wait_until("it to go", lambda: cache(v)["bytes"] == 0)
        self.assertEqual(v.read("f"), noise(3 * MIB, 1))

    def test_a_disk_that_is_too_full_gets_nothing(self):
        """No disk of a test has 95 % free; the reads are right, and nothing is kept."""
        v = self.cached("--cache-free", "95")
        disk = os.statvfs(v.directory)
        self.assertLess(disk.f_bavail / disk.f_blocks, 0.95)
        wait_until("the fills to be refused", lambda: cache(v)["fills_dropped"] > 0)
        self.assertEqual(cache(v)["bytes"], 0)


class CacheTest(unittest.TestCase):
    def volume(self, *options, **more):
        v = Volume(gateway=gateway, options=["--cache-size", "512M", *options], **more)
        self.addCleanup(v.close)
        return v.mount()

    def again(self, volume):
        volume.unmount()
        volume.mount()

    def filled(self, files, *options):
        """A mount whose cache holds `files` (name: bytes), mounted again."""
        v = self.volume(*options)
        for name, data in files.items():
            v.put_object(name, data)
        for name, data in files.items():
            self.assertEqual(v.read(name), data)
        wait_cached(v, sum(len(data) for data in files.values()))
        self.again(v)
        return v

    def test_small_files_stay_warm_when_they_settle(self):
        v = self.volume()
        files = {"s%d" % i: noise(size, i) for i, size in enumerate((1, 4096, 70001, 128 << 10))}
        for name, data in files.items():
            v.write(name, data)
        v.settle()
        wait_cached(v, sum(map(len, files.values())))
        self.again(v)
        for name, data in files.items():
            self.assertEqual(v.object(name), data)
            self.assertEqual(v.read(name), data)
        self.assertEqual(gets(v), 0)

    def away_and_back(self, *options):
        """A volume with a cached file, another one, and its server, which has just gone."""
        own = Gateway().__enter__()
        self.addCleanup(own.__exit__, None, None, None)
        v = Volume(gateway=own, options=["--cache-size", "512M", "--no-passthrough", "--import-ttl", "100ms",
                                         "--deadline", "1s", *options])
        self.addCleanup(v.close)
        v.mount()
        data = noise(3 * MIB, 5)
        v.put_object("dir/cached", data)
        v.put_object("dir/other", data)
        self.assertEqual(sorted(os.listdir(v.path("dir"))), ["cached", "other"])
        self.assertEqual(v.read("dir/cached"), data)
        wait_cached(v, len(data))
        drop_pages(v, "dir/cached")
        own.stop()
        return v, own, data

    def fails(self, call, *arguments):
        try:
            call(*arguments)
        except OSError:
            return True
        return False

    def test_cached_files_stay_readable_while_the_bucket_is_away(self):
        v, own, data = self.away_and_back("--offline", "1h")
        for _ in range(3):
            self.assertEqual(v.read("dir/cached"), data)
            self.assertEqual(sorted(os.listdir(v.path("dir"))), ["cached", "other"])
            drop_pages(v, "dir/cached")
        self.assertTrue(self.fails(v.read, "dir/other"))
        self.assertTrue(self.fails(os.stat, v.path("dir", "unknown")))
        own.start()
        v.put_object("dir/cached", data[::-1])
        wait_until("the bucket's new bytes", lambda: not self.fails(v.read, "dir/other") and v.read("dir/cached") == data[::-1])

    def test_without_the_setting_or_after_its_time_they_do_not(self):
        for options in ([], ["--offline", "200ms"]):
            v, _, _ = self.away_and_back(*options)
            wait_until("an error", lambda: self.fails(v.read, "dir/cached"))

    def test_cold_small_file_costs_one_request(self):
        for options in ([], ["--no-cache"]):
            v = self.volume(*options)
            for size, first in ((900 << 10, 0), (1 << 20, 0), (100 << 10, 70000)):
                name = "f%d" % size
                data = noise(size, size)
                v.put_object(name, data)
                before = gets(v)
                with open(v.path(name), "rb", buffering=0) as f:
                    self.assertEqual(os.pread(f.fileno(), 1000, first), data[first:first + 1000])
                    self.assertEqual(b"".join(iter(lambda: f.read(50000), b"")), data)
                self.assertEqual(gets(v) - before, 1, (size, options))

    def test_idle_mount_holds_no_buffers_and_knows_its_disk(self):
        v = self.volume()
        self.assertGreater(cache(v)["directories"][0]["disk_free_bytes"], 0)
        self.assertLess(anonymous(v), 14 * MIB)

    def test_a_second_mount_asks_the_store_for_nothing(self):
        files = {"large": noise(9 * MIB + 123, 1), "page": noise(128 << 10, 2), "tiny": b"x", "odd": noise(70001, 3)}
        v = self.filled(files)
        for name, data in files.items():
            self.assertEqual(v.read(name), data)
        self.assertEqual(gets(v), 0)
        status = cache(v)
        self.assertEqual(status["miss_bytes"], 0)
        self.assertEqual(status["directories"][0]["health"], "good")

    def test_without_a_cache_it_asks_again(self):
        v = self.filled({"f": noise(MIB, 1)})
        v.unmount()
        v.mount("--no-cache")
        self.assertEqual(v.read("f"), noise(MIB, 1))
        self.assertGreater(gets(v), 0)
        self.assertIsNone(cache(v))

    def test_what_is_missing_comes_from_the_store_and_the_rest_from_the_cache(self):
        data = noise(8 * MIB + 777, 4)
        v = self.volume()
        v.put_object("f", data)
        pieces = [(1 * MIB, 300000), (5 * MIB + 1000, 4096), (8 * MIB, 777)]
        with open(v.path("f"), "rb", buffering=0) as f:
            for offset, length in pieces:
                self.assertEqual(os.pread(f.fileno(), length, offset), data[offset:offset + length])
        wait_until("fills", lambda: cache(v)["bytes"] > 300000)
        self.again(v)
        self.assertEqual(v.read("f"), data)
        status = cache(v)
        self.assertGreater(status["hit_bytes"], 0)
        wait_cached(v, len(data))
        drop_pages(v, "f")
        before = gets(v)
        self.assertEqual(v.read("f"), data)
        self.assertEqual(gets(v), before)

    def test_columns_of_a_file_are_fetched_without_their_neighbours(self):
        v = self.volume()
        size, column, header = 48 * MIB, 967 << 10, 100
        data = noise(size, 18)
        v.write("t.parquet", data)
        v.settle()
        v.unmount()
        shutil.rmtree(os.path.join(v.directory, "meta", "cache"))
        v.mount()
        before, asked = fetched(v), 128 << 10  # the index at the end, once
        for _ in range(2):  # two handles: the second has the index from the kernel
            with open(v.path("t.parquet"), "rb", buffering=0) as f:
                for tail in (8, 60000):
                    self.assertEqual(os.pread(f.fileno(), tail, size - tail), data[-tail:])
        with open(v.path("t.parquet"), "rb", buffering=0) as f:
            self.assertEqual(os.pread(f.fileno(), 8, size - 8), data[-8:])
            for offset in range(2900205, size - 8 * column, 4 * column):
                self.assertEqual(os.pread(f.fileno(), header, offset), data[offset:offset + header])
                rest = os.pread(f.fileno(), column - header, offset + header)
                self.assertEqual(rest, data[offset + header:offset + column])
                asked += column
        self.assertLess((fetched(v) - before) / asked, 1.1)

    def test_what_is_removed_or_rewritten_leaves_the_cache(self):
        v = self.volume()
        kept, data = noise(MIB, 20), noise(4 * MIB, 19)
        v.write("kept", kept)
        os.makedirs(v.path("_temporary/0"))
        v.write("_temporary/0/part", data)
        v.write("rewritten", data[:2 * MIB])
        wait_cached(v, 7 * MIB)
        os.rename(v.path("_temporary/0/part"), v.path("part"))
        v.settle()  # its bytes are in another object now
        self.assertEqual(cache(v)["bytes"], 7 * MIB)
        os.unlink(v.path("part"))
        v.write("rewritten", kept[::-1])
        wait_until("their contents to go", lambda: cache(v)["bytes"] == 2 * MIB)
        before = gets(v)
        drop_pages(v, "kept")
        self.assertEqual(v.read("kept"), kept)
        self.assertEqual(gets(v), before)

    def test_it_survives_renames_and_the_copies_of_settle(self):
        data = noise(3 * MIB, 5)
        v = self.volume()
        os.mkdir(v.path("a"))
        v.write("a/f", data)
        v.settle()
        drop_pages(v, "a/f")
        self.assertEqual(v.read("a/f"), data)
        wait_cached(v, len(data))
        os.rename(v.path("a"), v.path("b"))
        v.settle()
        self.assertEqual(v.object("b/f"), data)
        self.again(v)
        self.assertEqual(v.read("b/f"), data)
        self.assertEqual(gets(v), 0)

    def test_what_is_written_is_cached(self):
        v = self.volume()
        files = {"streamed": noise(20 * MIB + 5, 1), "put": noise(200000, 2)}
        for name, data in files.items():
            v.write(name, data)
        wait_cached(v, sum(len(data) for data in files.values()))
        v.settle()
        drop_pages(v, *files)
        for name, data in files.items():
            self.assertEqual(v.read(name), data)
        self.again(v)
        for name, data in files.items():
            self.assertEqual(v.read(name), data)
        self.assertEqual(gets(v), 0)

    def test_the_staging_file_becomes_the_cached_file(self):
        v = self.volume()
        adopted = "sluice_data_written_adopted_total %d"
        data = noise(9 * MIB + 5, 11)
        v.write("f", data)
        # When close has returned, not later.
        self.assertEqual(cache(v)["bytes"], -(-len(data) // 4096) * 4096)
        self.assertIn(adopted % 1, v.ask(op="metrics")["text"])
        # Backwards, in odd pieces; a page is written twice.
        with open(v.path("g"), "wb", buffering=0) as f:
            for offset in reversed(range(0, len(data), 300001)):
                os.pwrite(f.fileno(), data[offset:offset + 300001], offset)
            os.pwrite(f.fileno(), data[500:1000], 500)
        self.assertIn(adopted % 2, v.ask(op="metrics")["text"])
        for _ in range(2):
            done = v.sluice("cache", "verify", "--json", v.mountpoint)
            self.assertEqual(json.loads(done.stdout)["corrupt_pages"], 0)
            for name in ("f", "g"):
                drop_pages(v, name)
                self.assertEqual(v.read(name), data)
            self.again(v)
        self.assertEqual(gets(v), 0)

    def test_written_files_are_copied_to_a_cache_on_another_file_system(self):
        v = Volume(gateway=gateway)
        self.addCleanup(v.close)
        other = tempfile.mkdtemp(prefix="sluice-test.", dir="/dev/shm")
        self.addCleanup(shutil.rmtree, other)
        v.options = ["--cache-dir", "%s:%s" % (os.path.join(v.directory, "one"), other), "--cache-size", "128M"]
        v.mount()
        files = {"f%d" % i: noise(200000 + i, i) for i in range(16)}
        for name, data in files.items():
            v.write(name, data)
        wait_cached(v, 16 * 200000)
        for name, data in files.items():
            drop_pages(v, name)
            self.assertEqual(v.read(name), data)
        self.assertEqual(gets(v), 0)

    def test_what_is_overwritten_while_it_is_uploaded_is_not_cached_wrongly(self):
        v = self.volume()
        data = bytearray(noise(24 * MIB, 3))
        fd = os.open(v.path("f"), os.O_RDWR | os.O_CREAT)
        for turn in range(4):
            os.pwrite(fd, data, 0)
            syncer = threading.Thread(target=os.fsync, args=(fd,))
            syncer.start()
            for i in range(200):
                at = (i * 7919 * 4096) % (24 * MIB - 100)
                data[at:at + 100] = noise(100, turn * 1000 + i)
                os.pwrite(fd, data[at:at + 100], at)
            syncer.join()
        os.close(fd)
        v.settle()
        drop_pages(v, "f")
        self.assertEqual(v.read("f"), data)
        self.again(v)
        self.assertEqual(v.read("f"), data)
        self.assertEqual(v.object("f"), data)

    def test_a_change_from_outside_is_another_content(self):
        old, new = noise(2 * MIB, 6), noise(2 * MIB, 7)
        v = self.filled({"f": old})
        self.assertEqual(v.read("f"), old)
        v.put_object("f", new)
        v.refresh()
        self.assertEqual(v.read("f"), new)
        self.again(v)
        self.assertEqual(v.read("f"), new)

    def test_rewritten_files_read_as_written(self):
        v = self.filled({"f": noise(2 * MIB, 8)})
        data = bytearray(noise(2 * MIB, 8))
        with open(v.path("f"), "r+b") as f:
            for i in range(40):
                at = (i * 7919 * 31) % (2 * MIB - 5000)
                data[at:at + 5000] = noise(5000, i)
                f.seek(at)
                f.write(data[at:at + 5000])
        v.settle()
        for _ in range(2):
            drop_pages(v, "f")
            self.assertEqual(v.read("f"), data)
            self.again(v)

    def test_damage_on_the_disk_is_found_and_fetched_again(self):
        data = noise(2 * MIB, 9)
        v = self.filled({"f": data})
        v.unmount()
        hurt = 0
        for at, _, names in os.walk(os.path.join(v.directory, "meta", "cache")):
            for name in names:
                path = os.path.join(at, name)
                if os.sep + "files" + os.sep in path and os.path.getsize(path) == len(data):
                    with open(path, "r+b") as f:
                        f.seek(300 << 10)
                        f.write(b"damage")
                    hurt += 1
        self.assertEqual(hurt, 1)
        v.mount()
        self.assertEqual(v.read("f"), data)
        self.assertEqual(cache(v)["corrupt_pages"], 1)
        wait_cached(v, len(data))

    def test_a_cache_that_is_lost_or_unusable_is_no_error(self):
        data = noise(MIB, 10)
        v = self.filled({"f": data})
        v.unmount()
        shutil.rmtree(os.path.join(v.directory, "meta", "cache"))
        v.mount()
        self.assertEqual(v.read("f"), data)
        v.unmount()
        place = os.path.join(v.directory, "a-file")
        with open(place, "w"):
            pass
        shutil.rmtree(os.path.join(v.directory, "meta", "cache"))
        with open(os.path.join(v.directory, "meta", "cache"), "w"):
            pass
        v.mount()
        self.assertEqual(v.read("f"), data)
        self.assertIsNone(cache(v))

    def test_several_directories_share_what_is_cached(self):
        v = Volume(gateway=gateway)
        self.addCleanup(v.close)
        places = [os.path.join(v.directory, name) for name in ("one", "two")]
        v.options = ["--cache-dir", ":".join(places), "--cache-size", "128M"]
        v.mount()
        files = {"f%d" % i: noise(200000, i) for i in range(16)}
        for name, data in files.items():
            v.put_object(name, data)
            self.assertEqual(v.read(name), data)
        wait_cached(v, 16 * 200000)
        for directory in cache(v)["directories"]:
            self.assertGreater(directory["contents"], 0)
        self.again(v)
        for name, data in files.items():
            self.assertEqual(v.read(name), data)
        self.assertEqual(gets(v), 0)

    def test_a_read_only_mount_has_a_cache_of_its_own(self):
        old, new = noise(MIB, 11), noise(MIB, 12)
        v = Volume(gateway=gateway, options=["--cache-size", "64M", "--read-only"])
        self.addCleanup(v.close)
        v.put_object("f", old)
        v.put_object("g", old[:5000])
        v.mount()
        self.assertEqual((v.read("f"), v.read("g")), (old, old[:5000]))
        wait_cached(v, MIB + 5000)
        self.again(v)
        self.assertEqual((v.read("f"), v.read("g")), (old, old[:5000]))
        self.assertEqual(gets(v), 0)
        v.unmount()
        v.put_object("f", new)
        v.mount()
        self.assertEqual(v.read("f"), new)

    def test_fio_verifies_what_a_small_cache_serves(self):
        v = Volume(gateway=gateway, options=["--cache-size", "16M"])
        self.addCleanup(v.close)
        v.mount()
        fio = ["fio", "--name=v", "--filename=" + v.path("f"), "--size=160M", "--bs=64k", "--verify=crc32c", "--verify_fatal=1",
               "--output-format=terse"]
        for more in (["--rw=write", "--do_verify=0"], ["--rw=randread", "--direct=1", "--ioengine=libaio", "--iodepth=8", "--io_size=240M"]):
            done = subprocess.run(fio + more, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=240, cwd=v.directory)
            self.assertEqual(done.returncode, 0, done.stdout)
        self.assertLessEqual(cache(v)["bytes"], 16 * MIB)

    def test_reads_that_mix_cached_missing_and_evicted_pages(self):
        """A cache of a tenth of the data, four readers, and every byte compared."""
        size = 160 * MIB
        v = Volume(gateway=gateway, options=["--cache-size", "16M"])
        self.addCleanup(v.close)
        data = noise(size, 13)
        v.put_object("f", data)
        v.mount()
        wrong = []

        def read(seed):
            rng = random.Random(seed)
            fd = os.open(v.path("f"), os.O_RDONLY | os.O_DIRECT)
            room = mmap.mmap(-1, MIB)
            try:
                for _ in range(150):
                    length = rng.choice((4096, 65536, 131072, MIB))
                    # Half of the reads go to one part, so that there are hits, too.
                    within = 12 * MIB if rng.random() < 0.5 else size
                    at = rng.randrange((within - length) // 4096 + 1) * 4096
                    got = os.preadv(fd, [memoryview(room)[:length]], at)
                    if got != length or room[:length] != data[at:at + length]:
                        wrong.append((at, length, got))
            finally:
                os.close(fd)

        threads = [threading.Thread(target=read, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(wrong, [])
        status = cache(v)
        self.assertGreater(status["hit_bytes"], 0)
        self.assertGreater(status["evicted_bytes"], 0)
        self.assertLessEqual(status["bytes"], 16 * MIB)

    def test_warm_evict_pin_by_command(self):
        v = self.volume()
        files = {"d/f%d" % i: noise(300000 + i, i) for i in range(6)}
        for name, data in files.items():
            v.put_object(name, data)
        v.refresh()
        total = sum(len(data) for data in files.values())
        done = json.loads(v.sluice("warm", "--json", v.path("d")).stdout)
        self.assertEqual(done, {"files": 6, "bytes": total, "cached_bytes": total, "failed": 0})
        self.again(v)
        done = json.loads(v.sluice("warm", "--json", "--wait", v.path("d", "*")).stdout)
        self.assertEqual((done["files"], gets(v)), (6, 0))
        self.assertIn("6 files pinned", v.sluice("pin", v.path("d")).stdout)
        self.assertTrue(v.ask(op="cached", path="/d/f0")["pinned"])
        self.assertIn("6 files unpinned", v.sluice("unpin", v.path("d")).stdout)
        self.assertFalse(v.ask(op="cached", path="/d/f0")["pinned"])
        names = os.path.join(v.directory, "names")
        with open(names, "w") as f:
            f.write(v.path("d/f0") + "\n" + v.path("d/f1") + "\n")
        self.assertIn("2 files evicted", v.sluice("evict", "--from-list", names).stdout)
        self.assertEqual(v.ask(op="cached", path="/d/f0")["cached_bytes"], 0)
        self.assertEqual(v.ask(op="cached", path="/d/f2")["cached_bytes"], 300002)
        found = json.loads(v.sluice("cache", "verify", "--json", v.mountpoint).stdout)
        self.assertEqual((found["corrupt_pages"], found["unreadable_pages"], found["pages"]), (0, 0, 12))
        self.assertIn("cached", v.sluice("cache", "status", v.mountpoint).stdout)
        told = json.loads(v.sluice("cache", "status", "--json", v.mountpoint).stdout)
        self.assertEqual(told["pages"], cache(v)["pages"])
        self.assertTrue(json.loads(v.sluice("cache", "clear", "--json", v.mountpoint).stdout)["ok"])
        self.assertEqual(cache(v)["bytes"], 0)
        for name, data in files.items():
            self.assertEqual(v.read(name), data)

    def test_warm_says_what_does_not_fit(self):
        v = Volume(gateway=gateway, options=["--cache-size", "16M"])
        self.addCleanup(v.close)
        v.put_object("f", bytes(40 * MIB))
        v.mount()
        done = v.sluice("warm", v.path("f"), check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("is it large enough", done.stdout)
        done = v.sluice("warm", v.path("nothing"), check=False)
        self.assertEqual(done.returncode, 1)
        # Not a look at all that is there, one by one.
        done = v.sluice("warm", v.path("f"), v.directory, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("is not in a mount", done.stdout)
        self.assertEqual(done.stdout.count("\n"), 1)
        v.unmount()
        v.mount("--no-cache")
        done = v.sluice("evict", v.path("f"), check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("no cache", done.stdout)

    def test_kill_in_the_middle_of_fills(self):
        files = {"f%d" % i: noise(12 * MIB + i, i) for i in range(4)}
        v = Volume(gateway=gateway, options=["--cache-size", "32M"])
        self.addCleanup(v.close)
        for name, data in files.items():
            v.put_object(name, data)
        v.mount()
        for turn in range(4):
            reader = subprocess.Popen(
                ["cat", *[v.path(name) for name in files]], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            target = 3 * MIB * (turn + 1)
            wait_until("fills", lambda: reader.poll() is not None or cache(v)["filled_bytes"] >= target)
            v.kill()
            reader.wait(timeout=120)
            v.mount()
            for name, data in files.items():
                self.assertEqual(v.read(name), data)
        self.assertEqual(cache(v)["corrupt_pages"], 0)


if __name__ == "__main__":
    unittest.main()
