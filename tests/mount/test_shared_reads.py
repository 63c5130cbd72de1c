"""Many mounts read a file that another one rewrites in place, on handles that stay open."""

import os
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from service import ServiceVolume
from volume import WAIT_S, wait_until

PAGES = 64

# Processes of their own: who starts the service must have inherited no open file of a mount that waits for it.
READ = """
import os, random, sys, threading
fd, stop = os.open(sys.argv[1], os.O_RDONLY), sys.argv[2]
wrong = []

def read(seed):
    pages, newest = random.Random(seed), {}
    while not os.path.exists(stop):
        for _ in range(100):
            page = pages.randrange(%d)
            value = int(os.pread(fd, 8, page * 4096))
            if value < newest.get(page, 0):
                wrong.append((page, value, newest[page]))
            newest[page] = value

threads = [threading.Thread(target=read, args=(i,)) for i in range(3)]
for t in threads: t.start()
for t in threads: t.join()
if wrong: sys.exit(repr(wrong))
""" % PAGES

WRITE = """
import os, sys
fd, stop, count = os.open(sys.argv[1], os.O_WRONLY), sys.argv[2], sys.argv[3]
i = 0
while not os.path.exists(stop):
    i += 1
    os.pwrite(fd, b"%%08d" %% i, i %% %d * 4096)
    os.fsync(fd)
    with open(count + ".new", "w") as f:
        f.write(str(i))
    os.rename(count + ".new", count)
os.close(fd)
""" % PAGES


class OneWritesManyRead(unittest.TestCase):
    def test_goes_on(self):
        """Kernels wait for each other's reads to end, and the service for both: nobody may wait for ever."""
        with ServiceVolume(service_options=["--lease", "300s"]) as a:
            volumes = [a]
            for _ in range(2):
                volumes.append(ServiceVolume(service=a.service, bucket=a.bucket))
                self.addCleanup(volumes[-1].close)
                volumes[-1].mount()
            a.write("f", b"00000000".ljust(4096) * PAGES)
            stop, count = os.path.join(a.directory, "stop"), os.path.join(a.directory, "count")
            started = [subprocess.Popen([sys.executable, "-c", READ, v.path("f"), stop], stdin=subprocess.DEVNULL) for v in volumes[1:]]
            started.append(subprocess.Popen([sys.executable, "-c", WRITE, a.path("f"), stop, count], stdin=subprocess.DEVNULL))
            for child in started:
                self.addCleanup(child.wait)
                self.addCleanup(child.kill)
            done = [0]

            def written(more):
                before = done[0]

                def enough():
                    try:
                        with open(count, encoding="ascii") as f:
                            done[0] = int(f.read())
                    except FileNotFoundError:
                        pass
                    return done[0] >= before + more or any(child.poll() is not None for child in started)

                wait_until("the writer to go on", enough)

            written(60)
            a.service.kill()
            a.service.start()
            written(60)
            with open(stop, "w", encoding="ascii"):
                pass
            for child in started:
                self.assertEqual(child.wait(timeout=WAIT_S), 0)


if __name__ == "__main__":
    unittest.main()
