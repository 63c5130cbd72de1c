"""Programs on one mount: does operations in the groups that tests/linear/history.py has made, and writes what it asked, when, and
what it was told, one JSON object on each line. Started by history.py, a process for each mount; see there.

    worker.py MOUNTPOINT FIRST-CLIENT THREADS SEED START-NS GROUP-MS GROUPS HISTORY
"""

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import random
import sys
import threading
import time

DEFINITE = {errno.ENOENT: "ENOENT", errno.EEXIST: "EEXIST"}
SHARED = 3  # names that all use; name SHARED + c is of client c, and only c takes it away or puts it there
NAMES = SHARED + 8  # that there may be
PAUSE_S = 0.012
MARK = "user.mark"
WAYS = {"": 0, "noreplace": 1, "exchange": 2}  # of renameat2
libc = ctypes.CDLL(None, use_errno=True)


def directory_of(name):
    return "xy"[name % 2]


def rename_at(old_fd, old, new_fd, new, how):
    if libc.renameat2(old_fd, old.encode(), new_fd, new.encode(), WAYS[how]) < 0:
        raise OSError(ctypes.get_errno(), "renameat2")


class Gone(Exception):
    """The mount does not answer as it should; what was asked may be done or not."""


class Order:
    """Many may look at once; who changes something does so alone.

    While a program's change is under way, the kernel of its own host still answers others there from what it has, though another host
    may see the change already: docs/service.md says so. Nothing is promised there, so nothing is recorded there. A change that was
    lost with the mount is never over in this sense: the kernel of a dead mount answers from what it has. So its group is left.
    """

    def __init__(self):
        self.free = threading.Condition()
        self.looking, self.changing = 0, False
        self.left = None  # a group in which a change was lost

    def check(self, group):
        if group == self.left:
            raise Gone()

    @contextlib.contextmanager
    def look(self, group):
        with self.free:
            self.free.wait_for(lambda: not self.changing)
            self.check(group)
            self.looking += 1
        try:
            yield
        finally:
            with self.free:
                self.looking -= 1
                self.free.notify_all()

    @contextlib.contextmanager
    def change(self, group):
        with self.free:
            self.free.wait_for(lambda: not self.changing and not self.looking)
            self.check(group)
            self.changing = True
        try:
            yield
        except Gone:
            self.left = group
            raise
        finally:
            with self.free:
                self.changing = False
                self.free.notify_all()


class Client(threading.Thread):
    def __init__(self, mountpoint, number, seed, start_ns, group_ms, groups, out, order):
        super().__init__()
        self.mountpoint, self.number, self.groups, self.out, self.order = mountpoint, number, groups, out, order
        self.start_ns, self.group_ns = start_ns, group_ms * 1000000
        self.random = random.Random("%s/%d" % (seed, number))
        self.group, self.fds = None, {}
        self.values, self.held_ns = 0, 0
        self.error = None

    # What is asked of the mount, and what it said.

    def record(self, op, call, result="ok", **rest):
        line = {"client": self.number, "group": self.group, "op": op, "result": result, "call": call,
                "return": time.monotonic_ns(), **rest}
        self.out.append(line)

    def change(self, op, function, **rest):
        """One call that changes something: recorded also when nobody knows its end. What it returned."""
        with self.order.change(self.group):
            call = time.monotonic_ns()
            try:
                value = function()
            except OSError as error:
                result = DEFINITE.get(error.errno, "unknown")
                self.record(op, call, result, **rest)
                if result == "unknown":
                    raise Gone() from error
                return None
            self.record(op, call, **rest)
            return value

    def ask(self, op, function, **rest):
        """One call that changes nothing: without an answer it says nothing."""
        with self.order.look(self.group):
            call = time.monotonic_ns()
            try:
                value = function()
            except OSError as error:
                raise Gone() from error
            self.record(op, call, value=value, **rest)

    def at(self, name):
        return {"dir_fd": self.fds[directory_of(name)]}

    def open(self, name, flags):
        """A handle, and its inode; None if there is no such name."""
        with self.order.look(self.group):
            call = time.monotonic_ns()
            try:
                fd = os.open("n%d" % name, flags, **self.at(name))
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise Gone() from error
                self.record("open", call, name=name, ino=0)
                return None, 0
            end = time.monotonic_ns()
        return fd, self.inode(fd, {"op": "open", "call": call, "return": end, "name": name})

    def inode(self, fd, line):
        """Of a handle; then the call that made it is recorded."""
        try:
            line.update(ino=os.fstat(fd).st_ino, result="ok")
        except OSError as error:
            self.shut(fd)
            if line["op"] == "create":
                self.out.append({"client": self.number, "group": self.group, "result": "unknown", **line})
            raise Gone() from error
        self.out.append({"client": self.number, "group": self.group, **line})
        return line["ino"]

    @staticmethod
    def shut(fd):
        try:
            os.close(fd)
        except OSError:
            pass

    # The operations.

    def own(self):
        return SHARED + self.number

    def create(self):
        name = self.random.randrange(SHARED)
        with self.order.change(self.group):
            call = time.monotonic_ns()
            try:
                fd = os.open("n%d" % name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644, **self.at(name))
            except OSError as error:
                result = DEFINITE.get(error.errno, "unknown")
                self.record("create", call, result, name=name)
                if result == "unknown":
                    raise Gone() from error
                return
            end = time.monotonic_ns()
        self.inode(fd, {"op": "create", "call": call, "return": end, "name": name})
        self.shut(fd)

    def unlink(self):
        name = self.random.choice((self.random.randrange(SHARED), self.own()))
        self.change("unlink", lambda: os.unlink("n%d" % name, **self.at(name)), name=name)

    # One of the two names is this client's own, so that it cannot be moved between the kernel's looking for the one and for the other:
    # two names of one file are left as they are by the kernel, which finds that out without the file system.
    def rename(self):
        names = [self.random.randrange(SHARED), self.own()]
        self.random.shuffle(names)
        old, new = names
        how = self.random.choice(("", "", "noreplace", "exchange"))
        self.change("rename", lambda: rename_at(self.at(old)["dir_fd"], "n%d" % old, self.at(new)["dir_fd"], "n%d" % new, how),
                    name=old, to=new, how=how)

    def link(self):
        old = self.random.randrange(SHARED)
        new = self.random.choice((self.random.randrange(SHARED), self.own()))
        fd, ino = self.open(old, os.O_PATH)
        if fd is None:
            return
        try:
            self.change("link", lambda: os.link("/proc/self/fd/%d" % fd, "n%d" % new, dst_dir_fd=self.at(new)["dir_fd"],
                                                follow_symlinks=True), ino=ino, to=new)
        finally:
            self.shut(fd)

    def stat(self):
        name = self.random.randrange(SHARED + 4)
        fd, ino = self.open(name, os.O_PATH)
        if fd is None:
            return
        try:
            self.ask("attr", lambda: os.fstat(fd).st_nlink, ino=ino)
        finally:
            self.shut(fd)

    # Until its close a write is seen by the programs of its own mount and by no others.
    def write(self):
        fd, ino = self.open(self.random.choice((self.random.randrange(SHARED), self.own())), os.O_WRONLY)
        if fd is None:
            return
        self.values += 1
        value = self.number * 1000000 + self.values

        def put():
            handle = fd
            try:
                os.pwrite(handle, b"%016d" % value, 0)
                closing, handle = handle, -1
                os.close(closing)
            finally:
                if handle >= 0:
                    self.shut(handle)

        self.change("write", put, ino=ino, value=value)

    def read(self):
        fd, ino = self.open(self.random.choice((self.random.randrange(SHARED), self.own())), os.O_RDONLY)
        if fd is None:
            return
        try:
            self.ask("read", lambda: int(os.pread(fd, 16, 0) or b"0"), ino=ino)
        finally:
            self.shut(fd)

    # An extended attribute.
    def mark(self):
        fd, ino = self.open(self.random.choice((self.random.randrange(SHARED), self.own())), os.O_RDONLY)
        if fd is None:
            return
        self.values += 1
        value = self.number * 1000000 + self.values
        try:
            self.change("mark", lambda: os.setxattr(fd, MARK, b"%d" % value), ino=ino, value=value)
        finally:
            self.shut(fd)

    def marked(self):
        fd, ino = self.open(self.random.randrange(SHARED), os.O_RDONLY)
        if fd is None:
            return

        def get():
            try:
                return int(os.getxattr(fd, MARK))
            except OSError as error:
                if error.errno == errno.ENODATA:
                    return 0
                raise

        try:
            self.ask("marked", get, ino=ino)
        finally:
            self.shut(fd)

    # By a handle of its own, or by one that has listed before.
    def list(self):
        directory = self.random.choice("xy")

        def names():
            fd = self.fds[directory]
            if self.random.random() < 0.5:
                return os.listdir(fd)
            again = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
            try:
                return os.listdir(again)
            finally:
                self.shut(again)

        with self.order.look(self.group):
            call = time.monotonic_ns()
            try:
                found = {int(name[1:]) for name in names()}
            except OSError as error:
                raise Gone() from error
            # Nobody promises that they were there together, but each was, or was not, at some time since the call.
            line = {"result": "ok", "call": call, "return": time.monotonic_ns()}
            for name in range(NAMES):
                if directory == directory_of(name):
                    self.out.append({"client": self.number, "group": self.group, "op": "list", "name": name, "value": int(name in found), **line})

    # The group's lock, waited for or tried. Not in the order of Order: who waits would keep the one from giving it up that he waits for.
    def lock(self):
        try:
            fd = os.open(os.path.join(self.mountpoint, "g%d" % self.group, "lock"), os.O_RDWR)
        except OSError as error:
            raise Gone() from error
        try:
            if self.take_lock(fd):
                time.sleep(self.random.random() * PAUSE_S)
                self.give_lock(fd)
        finally:
            self.shut(fd)

    def take_lock(self, fd):
        call = time.monotonic_ns()
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | self.random.choice((0, fcntl.LOCK_NB)))
        except OSError as error:
            if error.errno == errno.EAGAIN:
                self.record("lock", call, "EAGAIN")
                return False
            # Had or not, it is given up by the service when that knows that this client is lost.
            self.record("lock", call, "unknown")
            self.record("unlock", call, "unknown")
            raise Gone() from error
        self.held_ns = time.monotonic_ns()
        self.record("lock", call)
        return True

    def give_lock(self, fd):
        call = time.monotonic_ns()
        try:
            fcntl.flock(fd, fcntl.LOCK_UN)
        except OSError as error:
            self.record("unlock", self.held_ns, "unknown")  # at any time since, as soon as the lease was over
            raise Gone() from error
        self.record("unlock", call)

    # A turn.

    def enter(self, group):
        for fd in self.fds.values():
            self.shut(fd)
        self.fds = {}
        try:
            self.fds = {d: os.open(os.path.join(self.mountpoint, "g%d" % group, d), os.O_RDONLY | os.O_DIRECTORY) for d in "xy"}
        except OSError as error:
            raise Gone() from error
        self.group = group

    def turn(self):
        group = (time.monotonic_ns() - self.start_ns) // self.group_ns
        if group >= self.groups:
            return False
        try:
            self.order.check(group)
            if group != self.group or len(self.fds) < 2:
                self.enter(group)
            self.random.choice((self.create, self.create, self.unlink, self.rename, self.rename, self.link, self.stat, self.stat, self.write,
                                self.write, self.read, self.read, self.mark, self.marked, self.list, self.list, self.lock, self.lock))()
        except Gone:
            self.group = None  # the mount may be another one soon
            time.sleep(0.1)
        time.sleep(self.random.random() * PAUSE_S)
        return True

    def run(self):
        try:
            while self.turn():
                pass
        except Exception as error:  # pylint: disable=broad-except
            self.error = error
        for fd in self.fds.values():
            self.shut(fd)


def main(mountpoint, first, threads, seed, start_ns, group_ms, groups, history):
    out, order = [], Order()
    clients = [Client(mountpoint, int(first) + i, seed, int(start_ns), int(group_ms), int(groups), out, order) for i in range(int(threads))]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    with open(history, "w", encoding="ascii") as f:
        for line in out:
            f.write(json.dumps(line) + "\n")
    for client in clients:
        if client.error:
            raise client.error


if __name__ == "__main__":
    main(*sys.argv[1:])
