"""A metadata service for tests, and mounts of its volumes.

    with Service() as s:
        s.create_volume("v", "file:///dir")
        with ServiceVolume(service=s, name="v") as a, ServiceVolume(service=s, name="v", bucket=a.bucket) as b:
            a.write("f", b"x"); b.read("f")

ServiceVolume has all of Volume; with no service given it has one of its own.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import urllib.request

from started import Started
from volume import Volume, WAIT_S, binary, wait_until


class Service(Started):
    def __init__(self, options=(), env=None, scheme="sluice", host="127.0.0.1", prefix=()):
        self.directory = tempfile.mkdtemp(prefix="sluice-serve.")
        os.chmod(self.directory, 0o711)
        self.data = os.path.join(self.directory, "data")
        self.log = os.path.join(self.directory, "log")
        self.options = list(options)
        self.env = dict(os.environ, **(env or {}))
        self.process = None
        self.port = None
        self.scheme = scheme
        self.host = host
        self.prefix = list(prefix)  # before its command: where it runs

    def start(self):
        output = open(os.path.join(self.directory, "output"), "wb")
        self.process = subprocess.Popen(
            [*self.prefix, binary(), "serve", "--data-dir", self.data, "--listen", "tcp://%s:%d" % (self.host, self.port or 0),
             "--log-file", self.log, *self.options],
            env=self.env, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        output.close()

        def ready():
            if self.process.poll() is not None:
                raise AssertionError("the service ended with %d:\n%s" % (self.process.returncode, self.output()))
            with open(os.path.join(self.directory, "output"), errors="replace") as f:
                for line in f:
                    if line.startswith("listening on tcp://") and line.endswith("\n"):
                        self.port = int(line.rsplit(":", 1)[1])
                        return True
            return False

        wait_until("the service", ready)
        return self

    def output(self, whole=False):
        text = ""
        for name in ("output", "log"):
            path = os.path.join(self.directory, name)
            if os.path.exists(path):
                with open(path, errors="replace") as f:
                    text += f.read()
        return text if whole else text[-8000:]

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(timeout=WAIT_S)
        self.process = None

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=WAIT_S)
        self.process = None
        if code != 0:
            raise AssertionError("the service ended with %d:\n%s" % (code, self.output()))

    def volume(self, *arguments, check=True):
        """`sluice volume …`"""
        return subprocess.run(
            [binary(), "volume", *arguments, "--data-dir", self.data], env=self.env, check=check, timeout=WAIT_S,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def admin(self, line):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(WAIT_S)
            s.connect(os.path.join(self.data, "admin.sock"))
            s.sendall(line.encode() + b"\n")
            reply = b""
            while True:
                data = s.recv(65536)
                if not data:
                    return reply.decode()
                reply += data

    def url(self, name):
        return "%s://%s:%d/%s" % (self.scheme, self.host, self.port, name)

    def sessions(self, name):
        return json.loads(self.admin("status"))["volumes"][name]["sessions"]

    def metric(self, name):
        """One line of /metrics, of a service with --metrics-address 127.0.0.1:0; 0 if it is not there."""
        def ports():
            return re.findall(r"metrics served .*port=(\d+)", self.output(whole=True))

        wait_until("the metrics", ports)
        with urllib.request.urlopen("http://127.0.0.1:%s/metrics" % ports()[-1], timeout=WAIT_S) as reply:
            for line in reply.read().decode().splitlines():
                if line.rsplit(" ", 1)[0] == name:
                    return float(line.rsplit(" ", 1)[1])
        return 0

    def close(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait(timeout=WAIT_S)
        shutil.rmtree(self.directory, ignore_errors=True)


class ServiceVolume(Volume):
    """A mount of a volume of a service: its own one, or (service, name) one that is there."""

    def __init__(self, service=None, name="v", gateway=None, volume_options=(), service_options=(), **rest):
        super().__init__(gateway=gateway, **rest)
        self.own = service is None
        self.name = name
        if self.own:
            self.service = Service(options=service_options, env=self.env if gateway else None).start()
            self.service.volume("create", name, self.url, "settle-delay=" + self.settle_delay, "gc-delay=" + self.gc_delay,
                                *volume_options)
        else:
            self.service = service

    def command(self, *extra):
        return [
            binary(), "mount", self.service.url(self.name), self.mountpoint, "--foreground",
            "--meta-dir", os.path.join(self.directory, "meta"), "--log-file", self.log, *self.options, *extra,
        ]

    def check_metadata(self):
        """With the service stopped."""
        done = self.sluice("fsck", self.url, "--meta-dir", os.path.join(self.service.data, self.name, "meta"),
                           check=False)
        return "" if done.returncode == 0 else done.stdout

    def close(self):
        try:
            super().close()
        finally:
            if self.own:
                self.service.close()
