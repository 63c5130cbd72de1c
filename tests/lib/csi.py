"""The CSI driver for tests: build/sluice csi on a socket of its own, and a client.

    with Driver(gateway) as d:
        volume = d.create("name")
        d.stage(volume); d.publish(volume, "a")      # real FUSE mounts below d.directory
        d.call("Node/NodeGetInfo", {}, code=0)
"""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading

from started import Started
from volume import WAIT_S, binary, is_mounted, wait_until

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
OK, CANCELLED, INVALID, DEADLINE, NOT_FOUND, EXISTS, DENIED = 0, 1, 3, 4, 5, 6, 7
PRECONDITION, ABORTED, OUT_OF_RANGE, UNIMPLEMENTED, INTERNAL, UNAVAILABLE = 9, 10, 11, 12, 13, 14
WRITER, READER, MANY_READERS, MANY_WRITERS, SINGLE_WRITER = 1, 2, 3, 5, 6


def capability(mode=WRITER, flags=(), group=""):
    return {"mount": {"mount_flags": list(flags), "volume_mount_group": group}, "access_mode": {"mode": mode}}


class Client:
    """One connection; calls one after the other."""

    def __init__(self, socket, timeout_ms=WAIT_S * 1000):
        build = os.environ.get("SLUICE_BUILD") or os.path.join(ROOT, "build")
        self.process = subprocess.Popen(
            [os.path.join(build, "tests", "tools", "csi_call"), socket, str(timeout_ms)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def call(self, method, request):
        self.process.stdin.write(json.dumps({"method": method, "request": request}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=WAIT_S)
        self.process.stdout.close()


class Driver(Started):
    def __init__(self, gateway=None, options=(), parameters=None, directory=None):
        self.gateway = gateway
        self.options = list(options)
        self.directory = directory or tempfile.mkdtemp(prefix="csi.")
        self.socket = os.path.join(self.directory, "s")
        self.state = os.path.join(self.directory, "state")
        self.log = os.path.join(self.directory, "log")
        self.secrets, self.parameters = {}, dict(parameters or {})
        if gateway:
            self.secrets = {"access-key": gateway.access, "secret-key": gateway.secret}
            self.parameters = {"bucket": "bucket", "prefix": "volumes", "endpoint": gateway.endpoint, **self.parameters}
        self.process = self.client = None
        self.lock = threading.Lock()

    def command(self):
        return [binary(), "csi", "--endpoint", "unix://" + self.socket, "--state-dir", self.state,
                "--node-id", "node1", *self.options]

    def start(self):
        env = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command(), env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

        def ready():
            if self.process.poll() is not None:
                raise AssertionError("the driver ended: " + self.text())
            return os.path.exists(self.socket)

        wait_until("the driver's socket", ready)
        self.client = Client(self.socket)
        return self

    def text(self):
        with open(self.log, errors="replace") as f:
            return f.read()[-8000:]

    def stop(self, number=signal.SIGTERM):
        if self.client:
            self.client.close()
            self.client = None
        if self.process:
            self.process.send_signal(number)
            self.process.wait(timeout=WAIT_S)
            self.process = None
        if number == signal.SIGKILL and os.path.exists(self.socket):
            os.unlink(self.socket)

    # --- calls

    def answer(self, method, request, client=None):
        with self.lock:
            return (client or self.client).call(method, request)

    def call(self, method, request, code=OK, client=None):
        """The reply, or with another expected code the sentence."""
        answer = self.answer(method, request, client)
        if answer["code"] != code:
            raise AssertionError("%s: %s, expected %d\n%s" % (method, answer, code, self.text()))
        return answer["message"] if code else answer["reply"]

    def create(self, name, size=1 << 30, code=OK, modes=(WRITER,), **more):
        request = {"name": name, "capacity_range": {"required_bytes": size},
                   "volume_capabilities": [capability(m) for m in modes],
                   "parameters": dict(self.parameters, **more), "secrets": self.secrets}
        reply = self.call("Controller/CreateVolume", request, code)
        if code:
            return reply
        volume = reply["volume"]
        volume["volume_context"] = {p["key"]: p["value"] for p in volume["volume_context"]}
        return volume

    def delete(self, volume, code=OK):
        return self.call("Controller/DeleteVolume", {"volume_id": volume["volume_id"], "secrets": self.secrets}, code)

    def staging(self, volume):
        """A place for the volume, as the kubelet makes it."""
        path = os.path.join(self.directory, "staging", str(abs(hash(volume["volume_id"]))))
        if not is_mounted(path):  # which may be dead
            os.makedirs(path, exist_ok=True)
        return path

    def target(self, name):
        os.makedirs(os.path.join(self.directory, "pods"), exist_ok=True)
        return os.path.join(self.directory, "pods", name)

    def stage(self, volume, code=OK, mode=WRITER, client=None, **capability_more):
        return self.call("Node/NodeStageVolume", {
            "volume_id": volume["volume_id"], "staging_target_path": self.staging(volume),
            "volume_capability": capability(mode, **capability_more), "secrets": self.secrets,
            "volume_context": volume.get("volume_context", {})}, code, client)

    def publish_request(self, volume, name, mode=WRITER, readonly=False, **capability_more):
        return {"volume_id": volume["volume_id"], "staging_target_path": self.staging(volume),
                "target_path": self.target(name), "readonly": readonly,
                "volume_capability": capability(mode, **capability_more),
                "volume_context": volume.get("volume_context", {})}

    def publish(self, volume, name, code=OK, **more):
        self.call("Node/NodePublishVolume", self.publish_request(volume, name, **more), code)
        return self.target(name)

    def unpublish(self, volume, name, code=OK):
        return self.call("Node/NodeUnpublishVolume",
                         {"volume_id": volume["volume_id"], "target_path": self.target(name)}, code)

    def unstage(self, volume, code=OK):
        return self.call("Node/NodeUnstageVolume",
                         {"volume_id": volume["volume_id"], "staging_target_path": self.staging(volume)}, code)

    # --- what is there

    def mounts(self):
        with open("/proc/self/mounts") as f:
            return [line.split()[1] for line in f if line.split()[1].startswith(self.directory + "/")]

    def daemons(self):
        """{process id: command line} of the mounts of this driver."""
        found = {}
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open("/proc/%s/cmdline" % pid, "rb") as f:
                    words = f.read().decode("utf-8", "replace").split("\0")
                with open("/proc/%s/stat" % pid) as f:
                    dead = f.read().rsplit(")", 1)[1].split()[0] == "Z"
            except (FileNotFoundError, ProcessLookupError):
                continue
            if not dead and "mount" in words[:2] and any(self.state in w for w in words):
                found[int(pid)] = words
        return found

    def close(self):
        self.stop(signal.SIGKILL)
        for path in reversed(self.mounts()):
            subprocess.run(["umount", "-f", "-l", path], check=False, timeout=WAIT_S)
        for pid in self.daemons():
            os.kill(pid, signal.SIGKILL)
        wait_until("the daemons' end", lambda: not self.daemons())
        shutil.rmtree(self.directory, ignore_errors=True)


__all__ = [n for n in dir() if not n.startswith("_")]
