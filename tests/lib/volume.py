"""A mounted volume for tests: a real FUSE mount of build/sluice over a directory or a real S3 server.

    with Volume() as v:                       # file://
    with Volume(gateway=gw) as v:             # s3://, on a running tests/lib/gateway.py Gateway
        open(v.path("a"), "w").write("x")
        v.kill(); v.mount()                   # kill -9, and mount again on the same metadata
        assert v.object("a") == b"x"          # the bytes in the bucket, read around Sluice

Everything lives in one temporary directory, which is removed at the end, mounted or not.
"""

import errno
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid

from gateway import S3Error

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
WAIT_S = 120


def binary():
    """The program under test: SLUICE_BINARY, or what the build made."""
    return os.environ.get("SLUICE_BINARY") or os.path.join(ROOT, "build", "sluice")


def wait_until(what, condition, seconds=WAIT_S):
    """Polls until condition() is true; fails with `what` after a generous time."""
    end = time.monotonic() + seconds
    pause = 0.005
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("waited %d s for: %s" % (seconds, what))
        time.sleep(pause)
        pause = min(pause * 1.5, 0.25)


def is_mounted(path):
    with open("/proc/self/mounts") as mounts:
        return any(line.split()[1] == path for line in mounts)


def is_zombie(pid):
    """Its first thread is gone; others may still be there."""
    try:
        with open("/proc/%d/stat" % pid) as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def fill_disk(path):
    """A file that takes all the space that is left."""
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    for size in (1 << 20, 4096, 1):
        try:
            while True:
                os.write(fd, b"b" * size)
        except OSError as e:
            if e.errno != errno.ENOSPC:
                raise
    os.close(fd)


class Volume:
    # Less than the default, so that files need not be large to be objects when they are closed; None: the default.
    inline_max = "32K"

    def __init__(self, gateway=None, bucket=None, prefix="", options=(), env=None, settle_delay="200ms", gc_delay="500ms"):
        self.directory = tempfile.mkdtemp(prefix="sluice-test.")
        os.chmod(self.directory, 0o711)  # other users reach the mount point, where permissions are tested
        self.mountpoint = os.path.join(self.directory, "mnt")
        os.mkdir(self.mountpoint)
        self.gateway = gateway
        self.prefix = prefix
        self.options = list(options)
        self.env = dict(os.environ, **(env or {}))
        self.settle_delay, self.gc_delay = settle_delay, gc_delay
        self.process = None
        if gateway:
            self.bucket = bucket or "t" + uuid.uuid4().hex[:16]
            if not bucket:
                gateway.make_bucket(self.bucket)
            self.url = "s3://%s/%s" % (self.bucket, prefix)
            self.env = gateway.env(self.env)
        else:
            self.bucket = bucket or os.path.join(self.directory, "bucket")
            os.makedirs(self.bucket, exist_ok=True)
            self.url = "file://" + self.bucket
        self.log = os.path.join(self.directory, "log")

    def command(self, *extra):
        return [
            binary(), "mount", self.url, self.mountpoint, "--foreground",
            "--meta-dir", os.path.join(self.directory, "meta"),
            "--settle-delay", self.settle_delay, "--gc-delay", self.gc_delay,
            "--log-file", self.log, *(("--inline-max", self.inline_max) if self.inline_max else ()), *self.options, *extra,
        ]

    def mount(self, *extra):
        """Starts the daemon and waits until it serves."""
        output = open(os.path.join(self.directory, "output"), "ab")
        self.process = subprocess.Popen(
            self.command(*extra), env=self.env, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        output.close()

        def ready():
            if self.process.poll() is not None:
                raise AssertionError("the mount ended with %d:\n%s" % (self.process.returncode, self.output()))
            return is_mounted(self.mountpoint)

        wait_until("the mount", ready)
        return self

    def mount_fails(self, *extra):
        """Runs a mount that must not come up; returns (exit code, what it said)."""
        done = subprocess.run(
            self.command(*extra), env=self.env, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=WAIT_S,
        )
        return done.returncode, done.stdout.decode("utf-8", "replace")

    def ask(self, **request):
        """One question to the control file, and its answer."""
        fd = os.open(os.path.join(self.mountpoint, ".sluice", "ctl"), os.O_RDWR)
        try:
            os.write(fd, json.dumps(request).encode())
            reply = b""
            while part := os.read(fd, 65536):
                reply += part
            return json.loads(reply)
        finally:
            os.close(fd)

    def metric(self, name):
        """One line of the metrics."""
        for line in self.ask(op="metrics")["text"].splitlines():
            if line.startswith(name + " "):
                return int(float(line.split()[1]))
        raise AssertionError("there is no " + name)

    def output(self):
        text = ""
        for path in (os.path.join(self.directory, "output"), self.log):
            if os.path.exists(path):
                with open(path, errors="replace") as f:
                    text += f.read()
        return text[-8000:]

    def unmount(self):
        """As a user does, and waits for the daemon's end; its exit code must be 0."""
        subprocess.run([binary(), "umount", self.mountpoint], check=True, timeout=WAIT_S * 2, stdout=subprocess.DEVNULL)
        code = self.process.wait(timeout=WAIT_S)
        self.process = None
        if code != 0:
            raise AssertionError("the daemon ended with %d:\n%s" % (code, self.output()))

    def kill(self):
        """kill -9, and the dead mount is taken away."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.reap()

    def reap(self):
        """The daemon has died or is about to: waits for it and takes its dead mount away."""
        if self.process:
            wait_until("the daemon's end", lambda: self.process.poll() is not None or is_zombie(self.process.pid))
            if is_mounted(self.mountpoint):
                # A thread that waits in the kernel for its own mount would keep both for ever: this ends the wait.
                subprocess.run(["umount", "-f", self.mountpoint], check=False, timeout=WAIT_S, stderr=subprocess.DEVNULL)
            self.process.wait(timeout=WAIT_S)
            self.process = None
        while is_mounted(self.mountpoint):
            subprocess.run(["umount", "-f", "-l", self.mountpoint], check=True, timeout=WAIT_S)

    def close(self):
        try:
            self.kill()
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self):
        try:
            return self.mount()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_):
        self.close()

    # The view from the mount.
    def path(self, *names):
        return os.path.join(self.mountpoint, *names)

    def write(self, name, data):
        with open(self.path(name), "wb") as f:
            f.write(data)

    def read(self, name):
        with open(self.path(name), "rb") as f:
            return f.read()

    def sluice(self, *arguments, check=True):
        return subprocess.run(
            [binary(), *arguments], env=self.env, check=check, timeout=WAIT_S * 2,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )

    def settle(self, name=""):
        """Everything below is one object at its own key when this returns."""
        done = self.sluice("settle", "--wait", self.path(name) if name else self.mountpoint, check=False)
        if done.returncode != 0:
            raise AssertionError("settle ended with %d: %s" % (done.returncode, done.stdout))

    def refresh(self, name=""):
        self.sluice("refresh", self.path(name) if name else self.mountpoint)

    def status(self):
        return json.loads(self.sluice("status", "--json", self.mountpoint).stdout)

    def check_metadata(self):
        """Every record against the others, offline; "" or what is wrong."""
        done = self.sluice("fsck", self.url, "--meta-dir", os.path.join(self.directory, "meta"), check=False)
        return "" if done.returncode == 0 else done.stdout

    # The view around it: what another S3 client sees.
    def object(self, key):
        """The bytes of an object, or None."""
        if self.gateway:
            try:
                return self.gateway.get(self.bucket, self.prefix + key)
            except S3Error as error:
                if error.status == 404:
                    return None
                raise
        try:
            with open(os.path.join(self.bucket, key), "rb") as f:
                return f.read()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def put_object(self, key, data):
        if self.gateway:
            self.gateway.put(self.bucket, self.prefix + key, data)
            return
        path = os.path.join(self.bucket, key)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        temporary = path + ".outside"
        with open(temporary, "wb") as f:
            f.write(data)
        os.rename(temporary, path)

    def delete_object(self, key):
        if self.gateway:
            self.gateway.delete(self.bucket, self.prefix + key)
        else:
            os.unlink(os.path.join(self.bucket, key))

    def keys(self):
        """All keys but Sluice's own."""
        if self.gateway:
            names = [k[len(self.prefix):] for k in self.gateway.list(self.bucket, self.prefix)]
        else:
            names = []
            for at, _, files in os.walk(self.bucket):
                names += [os.path.relpath(os.path.join(at, f), self.bucket) for f in files]
        return sorted(n for n in names if not n.startswith(".sluice"))
