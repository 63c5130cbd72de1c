"""Other mounts of the same S3 server, by programs that Debian has (bench/run --peer): what people would otherwise use.

Each is started with its own defaults, its local files on the disk of --work, and ended with the row."""

import os
import shutil
import subprocess
import tempfile
import uuid

from places import Directory, Used, is_mounted, wait_until


def s3fs(bucket, mountpoint, directory, gateway):
    password = os.path.join(directory, "password")
    with open(os.open(password, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="ascii") as f:
        f.write("%s:%s\n" % (gateway.access, gateway.secret))
    return ["s3fs", bucket, mountpoint, "-f", "-o", "passwd_file=%s,url=%s,use_path_request_style" % (password, gateway.endpoint)]


def rclone(bucket, mountpoint, directory, gateway):
    # Without "full" it cannot write at random places, and its writes are not what close and fsync promise either way.
    return ["rclone", "mount", ":s3:" + bucket, mountpoint, "--config", "/dev/null", "--vfs-cache-mode", "full",
            "--cache-dir", os.path.join(directory, "cache"), "--s3-provider", "Other", "--s3-endpoint", gateway.endpoint,
            "--s3-env-auth", "--s3-region", gateway.region]


# The name of the program and of its Debian package.
PEERS = {"s3fs": s3fs, "rclone": rclone}


class Peer(Directory):
    def __init__(self, name, gateway):
        if not shutil.which(name):
            raise RuntimeError("--peer %s: it is not installed (apt-get install %s)" % (name, name))
        self.name, self.gateway = name, gateway
        self.bucket = "p" + uuid.uuid4().hex[:16]
        gateway.make_bucket(self.bucket)
        self.base = tempfile.mkdtemp(prefix="sluice-bench-peer.")
        self.directory = os.path.join(self.base, "mnt")
        os.mkdir(self.directory)
        self.process = None
        try:
            self.mount()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self):
        return self.process.pid

    def mount(self):
        local = tempfile.mkdtemp(prefix="local.", dir=self.base)
        with open(os.path.join(self.base, "output"), "ab") as output:
            self.process = subprocess.Popen(PEERS[self.name](self.bucket, self.directory, local, self.gateway), env=self.gateway.env(),
                                            stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        wait_until(self.name, lambda: is_mounted(self.directory) or self.process.poll() is not None)
        if self.process.poll() is not None:
            with open(os.path.join(self.base, "output"), errors="replace", encoding="utf-8") as output:
                raise RuntimeError("%s ended with %d: %s" % (self.name, self.process.returncode, output.read()[-1000:]))

    def unmount(self):
        # rclone uploads some seconds after close, and what it has not uploaded at its end is only on the local disk.
        wait_until("what %s wrote to be in the bucket" % self.name, self._uploaded)
        subprocess.run(["umount", self.directory], check=False)
        self.process.wait(600)

    def _uploaded(self):
        bucket = os.path.join(self.gateway.buckets, self.bucket)
        for at, _, names in os.walk(self.directory):
            for name in names:
                there = os.path.join(bucket, os.path.relpath(at, self.directory), name)
                if not os.path.exists(there) or os.path.getsize(there) != os.path.getsize(os.path.join(at, name)):
                    return False
        return True

    def drop_caches(self):
        """Cold: a new process with nothing on the local disk."""
        self.unmount()
        super().drop_caches()
        self.mount()

    def used(self):
        return Used(self)

    def close(self):
        if self.process and self.process.poll() is None:
            for _ in range(2):
                if is_mounted(self.directory):
                    subprocess.run(["umount", "-l", self.directory], check=False)
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(60)
        if is_mounted(self.directory):
            subprocess.run(["umount", "-f", "-l", self.directory], check=False)
        shutil.rmtree(self.base, ignore_errors=True)
        shutil.rmtree(os.path.join(self.gateway.buckets, self.bucket), ignore_errors=True)
