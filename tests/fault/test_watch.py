"""kill -9 of a mount while one of its threads waits in the kernel for this very mount: programs get ENOTCONN, and the process ends.

Such a thread cannot be killed, and holds the connection open; cli/mount_watch.c breaks it.
"""

import ctypes
import errno
import os
import re
import signal
import subprocess
import sys
import threading
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
sys.path.insert(0, os.path.join(HERE, "..", "tools"))
from fault_proxy import FaultProxy
from gateway import Gateway
from volume import WAIT_S, Volume, binary, is_mounted, wait_until

PIDFD_GETFD = 438  # asm-generic/unistd.h


def stat_of(path):
    """(name, state, parent) of a process or thread."""
    try:
        with open(path) as f:
            head, tail = f.read().rsplit(")", 1)
        return head.split("(", 1)[1], tail.split()[0], int(tail.split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return "", "X", 0


def watchers(pid):
    every = (int(p) for p in os.listdir("/proc") if p.isdigit())
    return [p for p in every if stat_of("/proc/%d/stat" % p)[::2] == ("fuse-watch", pid)]


def link_of(path):
    try:
        return os.readlink(path)
    except FileNotFoundError:
        return ""


def end_of_process(pid, watcher):
    """A copy of the process's end of what connects the two."""
    theirs = re.fullmatch(r"socket:\[(\d+)\]", os.readlink("/proc/%d/fd/3" % watcher)).group(1)
    every = subprocess.run(["ss", "-xaH"], check=True, capture_output=True, text=True, timeout=WAIT_S).stdout
    [peer] = [f[7] for f in map(str.split, every.splitlines()) if len(f) > 7 and f[5] == theirs]
    mine = "/proc/%d/fd" % pid
    [number] = [int(n) for n in os.listdir(mine) if os.readlink(os.path.join(mine, n)) == "socket:[%s]" % peer]
    process = os.pidfd_open(pid)
    try:
        fd = ctypes.CDLL(None, use_errno=True).syscall(PIDFD_GETFD, process, number, 0)
        if fd < 0:
            raise OSError(ctypes.get_errno(), "pidfd_getfd")
        return fd
    finally:
        os.close(process)


def calls_to_write(pid):
    with open("/proc/%d/io" % pid) as f:
        return int(dict(line.split(": ") for line in f.read().splitlines())["syscw"])


class Watch(unittest.TestCase):
    def volume(self, *options):
        v = Volume(options=options)
        self.addCleanup(v.close)
        return v.mount()

    def test_a_thread_that_waits_for_its_own_mount(self):
        """A page is being read, and its object replaced: who tells the kernel waits for the page."""
        gateway = self.enterContext(Gateway())
        proxy = self.enterContext(FaultProxy(gateway.host, gateway.port))
        v = Volume(gateway=gateway)
        self.addCleanup(v.close)
        v.env["AWS_ENDPOINT_URL_S3"] = proxy.endpoint
        v.put_object("file", b"old" * 10000)
        v.mount()
        self.assertEqual(os.listdir(v.mountpoint), ["file"])  # so a refresh lists again
        proxy.rules([{"action": "hang", "method": "GET", "path": r"/file(\?|$)"}])
        reader = subprocess.Popen(["cat", v.path("file")], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.addCleanup(reader.stderr.close)
        self.addCleanup(reader.wait)
        self.addCleanup(reader.kill)
        wait_until("the read", lambda: sum(proxy.stats()["hits"]) > 0)
        v.put_object("file", b"new" * 20000)
        refresh = subprocess.Popen([binary(), "refresh", v.mountpoint], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(refresh.wait)
        self.addCleanup(refresh.kill)
        self.addCleanup(v.close)  # before those are waited for
        folder = "/proc/%d/task/" % v.process.pid
        wait_until("the wait", lambda: any(stat_of(folder + t + "/stat")[:2] == ("fs-notify", "D") for t in os.listdir(folder)))
        v.process.send_signal(signal.SIGKILL)
        wait_until("the process's end", lambda: v.process.poll() is not None)
        self.assertTrue(is_mounted(v.mountpoint))
        with self.assertRaises(OSError) as raised:
            os.listdir(v.mountpoint)
        self.assertEqual(raised.exception.errno, errno.ENOTCONN)
        self.assertNotEqual(reader.wait(timeout=WAIT_S), 0)

    def test_the_next_mount_with_the_same_device_number_is_left_alone(self):
        """The mount is taken away while its process still dies: its watcher must not break who has the number now."""
        a = Volume()
        self.addCleanup(a.close)
        mounting = threading.Thread(target=a.mount)
        mounting.start()
        while not (a.process and watchers(a.process.pid)):
            pass
        [watcher] = watchers(a.process.pid)
        # Before there is a mount, where that can be had: what it is told then it learns when all is over.
        wait_until("the watcher", lambda: link_of("/proc/%d/fd/4" % watcher) == "anon_inode:[signalfd]")
        os.kill(watcher, signal.SIGSTOP)
        mounting.join()
        device = os.stat(a.mountpoint).st_dev
        # As long as this is open the process seems to be there.
        held = end_of_process(a.process.pid, watcher)
        try:
            a.kill()
            b = self.volume()
            while os.stat(b.mountpoint).st_dev != device:  # the lowest free one is given: soon it is this
                b = self.volume()
            before = calls_to_write(watcher)
            os.kill(watcher, signal.SIGCONT)
            wait_until("the watcher to act", lambda: calls_to_write(watcher) >= before + 3)
            b.write("f", b"alive")
            self.assertEqual(b.read("f"), b"alive")
        finally:
            os.close(held)
        wait_until("the watcher's end", lambda: not os.path.exists("/proc/%d" % watcher))

    def test_a_watcher_comes_and_goes_with_its_mount(self):
        v = self.volume()
        pid = v.process.pid
        found = watchers(pid)
        self.assertEqual(len(found), 1)
        folder = "/proc/%d/" % found[0]
        with open(folder + "cmdline", "rb") as f:
            self.assertEqual(f.read().rstrip(b"\0"), b"fuse-watch")
        self.assertNotEqual(os.getsid(found[0]), os.getsid(pid))
        self.assertEqual({os.path.basename(os.readlink(folder + "fd/" + fd)).split(":")[0] for fd in os.listdir(folder + "fd")},
                         {"null", "socket", "anon_inode", "abort"})
        os.kill(found[0], signal.SIGTERM)  # as systemd does with all of a unit
        os.kill(found[0], signal.SIGINT)
        v.write("file", b"x")
        self.assertEqual(watchers(pid), found)
        subprocess.run(["umount", v.mountpoint], check=True, timeout=WAIT_S)
        v.process.wait(timeout=WAIT_S)
        self.assertEqual([p for p in found if os.path.exists("/proc/%d" % p)], [])
        v.mount()
        found = watchers(v.process.pid)
        self.assertEqual(len(found), 1)
        v.process.send_signal(signal.SIGKILL)
        v.process.wait(timeout=WAIT_S)
        wait_until("the watcher's end", lambda: not os.path.exists("/proc/%d" % found[0]))
        self.assertTrue(is_mounted(v.mountpoint))
        # A watcher that was killed is missed by nobody.
        v.kill()
        v.mount()
        os.kill(watchers(v.process.pid)[0], signal.SIGKILL)
        v.write("file", b"y")
        v.unmount()


if __name__ == "__main__":
    unittest.main()
