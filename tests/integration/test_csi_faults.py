"""Hard cases of the CSI driver: everything killed at each step, many calls at once, full disks, busy mounts.

After each of them the same calls are made again until they succeed; then nothing may be left.
"""

import os
import signal
import subprocess
import sys
import threading
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

from csi import *  # noqa: E402,F403
from csi import Client, Driver, capability  # noqa: E402
from gateway import Gateway  # noqa: E402
from service import Service  # noqa: E402
from volume import WAIT_S, is_mounted, wait_until  # noqa: E402

FULL = 8  # RESOURCE_EXHAUSTED


class Base(unittest.TestCase):
    def setUp(self):
        self.gateway = Gateway()
        self.gateway.start()
        self.addCleanup(self.gateway.close)
        self.gateway.make_bucket("bucket")

    def driver(self):
        d = Driver(self.gateway)
        self.addCleanup(d.close)
        return d.start()

    def start_service(self):
        service = Service(env=self.gateway.env()).start()
        self.addCleanup(service.close)
        service.volume("create", "team", "s3://bucket/team", "endpoint=" + self.gateway.endpoint, "settle-delay=200ms", "gc-delay=200ms")
        return service

    def in_service(self, service):
        return {"server": "127.0.0.1:%d" % service.port, "volume": "team", "prefix": "volumes"}


class Killed(Base):
    """One program is killed while a call is in work, at each call of a volume's life."""

    # A mount that died holds its prefix until its lease is over, or until it was mounted again.
    STEPS = "create", "stage", "publish", "write", "unpublish", "unstage", "again", "delete"

    def requests(self, d, name, parameters):
        volume = {"volume_id": None, "volume_context": {}}
        with_id = lambda **more: dict(more, volume_id=volume["volume_id"])  # noqa: E731

        def created(reply):
            volume["volume_id"] = reply["volume"]["volume_id"]
            volume["volume_context"] = {p["key"]: p["value"] for p in reply["volume"]["volume_context"]}

        return volume, created, {
            "create": lambda: ("Controller/CreateVolume", {
                "name": name, "volume_capabilities": [capability()], "capacity_range": {"required_bytes": 1 << 30},
                "parameters": dict(parameters, onDelete="delete"), "secrets": d.secrets}),
            "stage": lambda: ("Node/NodeStageVolume", with_id(
                staging_target_path=d.staging(volume), volume_capability=capability(), secrets=d.secrets, volume_context=volume["volume_context"])),
            "publish": lambda: ("Node/NodePublishVolume", dict(d.publish_request(volume, name), secrets=d.secrets)),
            "unpublish": lambda: ("Node/NodeUnpublishVolume", with_id(target_path=d.target(name))),
            "unstage": lambda: ("Node/NodeUnstageVolume", with_id(staging_target_path=d.staging(volume))),
            "delete": lambda: ("Controller/DeleteVolume", with_id(secrets=d.secrets)),
        }

    def call_through(self, d, method, request, kill, delay_s):
        """The call with a kill in it, then the call again until it succeeds."""
        client, answers = Client(d.socket, 20000), []

        def first():
            try:
                answers.append(client.call(method, request))
            except ValueError:
                pass  # the client lost its server

        thread = threading.Thread(target=first)
        thread.start()
        time.sleep(delay_s)
        kill()
        thread.join(WAIT_S)
        client.close()

        def again():
            answers.append(d.answer(method, request))
            return answers[-1]["code"] == OK

        wait_until("%s to succeed: %s" % (method, answers[-1:]), again)
        return answers[-1]["reply"]

    def kill_driver(self, d):
        d.stop(signal.SIGKILL)
        d.start()

    def kill_daemon(self, d):
        for pid in d.daemons():
            os.kill(pid, signal.SIGKILL)

    def kill_store(self):
        self.gateway.process.kill()
        self.gateway.stop()
        self.gateway.start()

    def live(self, d, name, parameters, kill, left):
        volume, created, requests = self.requests(d, name, parameters)
        written = False
        for n, step in enumerate(self.STEPS):
            if step == "write":
                wait_until("the volume to be there (again)", lambda: self.write(d, volume, requests, name))
                written = True
                continue
            if step == "again":
                for other in "stage", "unstage":
                    d.call(*requests[other]())
                continue
            method, request = requests[step]()
            reply = self.call_through(d, method, request, kill, (0.002, 0.02, 0.06)[n % 3])
            if step == "create":
                created(reply)
        self.assertTrue(written)
        wait_until("mounts and daemons to go", lambda: not d.mounts() and not d.daemons())
        self.assertFalse(os.path.exists(d.target(name)))
        wait_until("the objects to go", lambda: left() == [])

    def write(self, d, volume, requests, name):
        """Whatever was killed: after Stage and Publish again, files can be written."""
        try:
            with open(d.target(name) + "/file", "w") as f:
                f.write("x" * 100000)
                f.flush()
                os.fsync(f.fileno())
            return True
        except OSError:
            for step in "unpublish", "publish":  # as a kubelet would for a new pod
                d.answer(*requests[step]())
            return False

    def run_victims(self, parameters, left, victims):
        self.gateway.put("bucket", "foreign/file", b"of others")
        for name, kill in victims:
            d = self.driver()
            with self.subTest(name):
                self.live(d, "pvc-" + name, parameters(d), lambda: kill(d), left)
            d.close()
        self.assertEqual(self.gateway.get("bucket", "foreign/file"), b"of others")

    def test_volumes_of_a_bucket(self):
        self.run_victims(lambda d: d.parameters, lambda: list(self.gateway.list("bucket", "volumes/")), (
            ("driver", self.kill_driver), ("daemon", self.kill_daemon), ("store", lambda d: self.kill_store())))

    def test_volumes_of_a_service(self):
        service = self.start_service()

        def kill_service(_):
            service.kill()
            service.start()

        def left():
            return [k for k in self.gateway.list("bucket", "team/") if "/.sluice/" not in k]

        self.run_victims(lambda d: self.in_service(service), left, (
            ("driver", self.kill_driver), ("daemon", self.kill_daemon), ("service", kill_service)))


class Many(Base):
    def test_200_publishes_of_mixed_volumes(self):
        d, service = self.driver(), self.start_service()
        bucket = [d.create("pvc-%d" % i) for i in range(3)]
        shared = [d.create("shared-%d" % i, modes=(MANY_WRITERS,), bucket="", endpoint="", **self.in_service(service)) for i in range(2)]
        staged = [(v, WRITER) for v in bucket] + [(v, MANY_WRITERS) for v in shared]
        for volume, mode in staged:
            d.stage(volume, mode=mode)
        fds = "/proc/%d/fd" % d.process.pid
        before = len(os.listdir(fds))
        clients = [Client(d.socket) for _ in range(200)]
        problems = []

        def until_done(client, method, request):
            while True:
                answer = client.call(method, request)
                if answer["code"] != ABORTED:
                    break
            if answer["code"] != OK:
                problems.append((method, answer))

        def work(i, client):
            name = "pod%d" % i
            if i % 20 == 19:  # an inline volume has a mount of its own
                volume = {"volume_id": "csi-%d" % i, "volume_context": {
                    "csi.storage.k8s.io/ephemeral": "true", "bucket": "bucket", "prefix": name, "endpoint": self.gateway.endpoint}}
                request = dict(d.publish_request(volume, name), secrets=d.secrets)
                del request["staging_target_path"]
            else:
                volume, mode = staged[i % len(staged)]
                request = d.publish_request(volume, name, mode=mode, readonly=i % 3 == 0)
            until_done(client, "Node/NodePublishVolume", request)
            if not is_mounted(request["target_path"]):
                problems.append("not mounted: " + name)
            until_done(client, "Node/NodeUnpublishVolume", {"volume_id": volume["volume_id"], "target_path": request["target_path"]})

        threads = [threading.Thread(target=work, args=a) for a in enumerate(clients)]
        for t in threads:
            t.start()
        for t in threads:
            t.join(WAIT_S * 2)
        for client in clients:
            client.close()
        self.assertEqual(problems, [])
        self.assertEqual(sorted(d.mounts()), sorted(d.staging(v) for v, _ in staged))
        self.assertEqual(len(d.daemons()), len(staged))
        self.assertEqual(os.listdir(d.directory + "/pods"), [])
        wait_until("descriptors to be as before", lambda: len(os.listdir(fds)) <= before)
        for volume, _ in staged:
            d.unstage(volume)
        self.assertEqual((d.mounts(), d.daemons()), ([], {}))


class Refused(Base):
    def test_a_busy_mount_is_left_alone(self):
        d = self.driver()
        volume = d.create("busy")
        d.stage(volume)
        path = d.publish(volume, "a")
        with open(path + "/file", "w") as f:
            self.assertIn("busy", d.unpublish(volume, "a", code=PRECONDITION))
            self.assertTrue(is_mounted(path))
            f.write("still there")
        d.unpublish(volume, "a")
        self.assertFalse(os.path.exists(path))
        d.unstage(volume)
        self.assertEqual(self.gateway.get("bucket", "volumes/busy/file"), b"still there")

    def test_a_full_disk(self):
        d = self.driver()
        volume = d.create("full")
        inline = {"volume_id": "csi-full", "volume_context": {
            "csi.storage.k8s.io/ephemeral": "true", "bucket": "bucket", "prefix": "inline", "endpoint": self.gateway.endpoint}}
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", d.state], check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", d.state], check=True)
        for fill in 200, 256:  # room for a record, but not for metadata; and none at all
            with open(d.state + "/filler", "wb") as f:
                try:
                    f.write(b"x" * (fill << 10))
                except OSError:
                    pass
            self.assertIn("No space left", d.stage(volume, code=FULL))
            request = dict(d.publish_request(inline, "inline"), secrets=d.secrets)
            self.assertEqual(d.answer("Node/NodePublishVolume", request)["code"], FULL)
            self.assertEqual(([m for m in d.mounts() if m != d.state], d.daemons()), ([], {}))
        os.unlink(d.state + "/filler")
        subprocess.run(["mount", "-o", "remount,size=200m", d.state], check=True)
        d.stage(volume)
        path = d.publish(volume, "a")
        with open(path + "/file", "w") as f:
            f.write("now")
        d.unpublish(volume, "a")
        d.unstage(volume)
        self.assertEqual(self.gateway.get("bucket", "volumes/full/file"), b"now")

    def test_missing_secrets(self):
        d = self.driver()
        volume = d.create("secret")
        keys, d.secrets = d.secrets, {}
        self.assertIn("credentials", d.stage(volume, code=DENIED))
        d.create("other", code=DENIED)
        d.delete(volume, code=DENIED)
        self.assertEqual((d.mounts(), d.daemons()), ([], {}))
        d.secrets = keys
        self.assertIn("volumes/secret/.sluice/csi", self.gateway.list("bucket", "volumes/"))
        d.delete(volume)


if __name__ == "__main__":
    unittest.main()
