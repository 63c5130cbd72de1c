"""Volumes of the metadata service through the CSI driver: two drivers are two nodes."""

import errno
import os
import stat
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

from csi import *  # noqa: E402,F403
from certs import Certs  # noqa: E402
from csi import Driver  # noqa: E402
from gateway import Gateway  # noqa: E402
from service import Service  # noqa: E402
from volume import wait_until  # noqa: E402


def write(path, text):
    with open(path, "w") as f:
        f.write(text)


def read(path):
    with open(path) as f:
        return f.read()


class Shared(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway()
        cls.gateway.start()
        cls.addClassCleanup(cls.gateway.close)
        cls.gateway.make_bucket("bucket")
        cls.service = Service(env=cls.gateway.env()).start()
        cls.addClassCleanup(cls.service.close)
        cls.service.volume("create", "team", "s3://bucket/team", "endpoint=" + cls.gateway.endpoint, "settle-delay=200ms", "gc-delay=200ms")

    def driver(self, *options):
        d = Driver(self.gateway, options=options)
        d.parameters = {"server": "127.0.0.1:%d" % self.service.port, "volume": "team", "prefix": "volumes"}
        self.addCleanup(d.close)
        return d.start()

    def name(self):
        return "pvc-" + self.id().rsplit(".", 1)[1].replace("_", "-")[:40]

    def up(self, d, volume, target="a", **more):
        d.stage(volume, mode=MANY_WRITERS, **more)
        return d.publish(volume, target, mode=MANY_WRITERS)

    def down(self, d, volume, target="a"):
        d.unpublish(volume, target)
        d.unstage(volume)

    def test_two_nodes_write_one_volume(self):
        one, two = self.driver(), self.driver()
        volume = one.create(self.name(), modes=(MANY_WRITERS,), onDelete="delete")
        other = one.create(self.name() + "-other", modes=(MANY_WRITERS,))
        self.assertEqual(volume["volume_context"]["url"], "sluice://127.0.0.1:%d/team/volumes/%s" % (self.service.port, self.name()))
        a, b, beside = self.up(one, volume), self.up(two, volume), self.up(one, other, "beside")
        write(beside + "/kept", "other volume")
        write(a + "/first", "1")
        self.assertEqual(read(b + "/first"), "1")
        os.rename(b + "/first", b + "/second")
        self.assertEqual(os.listdir(a), ["second"])
        with self.assertRaises(FileNotFoundError):
            os.stat(a + "/first")
        os.makedirs(a + "/dir/deep")
        for i in range(300):
            write("%s/dir/%d" % ((a, b)[i % 2], i), str(i))
        self.assertEqual(len(os.listdir(b + "/dir")), 301)
        reader = two.publish(volume, "reader", mode=MANY_WRITERS, readonly=True)
        self.assertEqual(read(reader + "/second"), "1")
        with self.assertRaises(OSError):
            write(reader + "/no", "x")
        two.unpublish(volume, "reader")
        self.assertEqual(len(one.daemons()), 2)
        self.down(two, volume)
        self.assertEqual((two.mounts(), two.daemons()), ([], {}))
        write(a + "/after", "still mounted on the other node")
        self.down(one, volume)
        one.delete(volume)
        one.delete(volume)
        self.assertEqual(read(beside + "/kept"), "other volume")
        self.assertIn("no volume", one.stage(volume, code=NOT_FOUND, mode=MANY_WRITERS))
        self.down(one, other, "beside")
        wait_until("the objects of the deleted volume to go", lambda: [
            k for k in self.gateway.list("bucket", "team/volumes/" + self.name() + "/")] == [])
        one.delete(other)
        wait_until("the other volume's file to be an object", lambda: self.gateway.list("bucket", "team/volumes/%s-other/kept" % self.name()))
        self.assertEqual((one.mounts(), one.daemons()), ([], {}))

    def test_create_and_expand(self):
        d = self.driver()
        volume = d.create(self.name(), size=1 << 20, modes=(MANY_WRITERS,))
        self.assertEqual(d.create(self.name(), size=1 << 20, modes=(MANY_WRITERS,)), volume)
        d.create(self.name(), size=2 << 20, code=EXISTS)
        path = self.up(d, volume)
        self.assertEqual(os.statvfs(path).f_blocks * os.statvfs(path).f_frsize, 1 << 20)

        def fill():
            with open(path + "/big", "wb", buffering=0) as f:
                for _ in range(2):  # the one that does not fit is refused
                    self.assertEqual(f.write(b"x" * (1 << 20)), 1 << 20)
                os.fsync(f.fileno())

        with self.assertRaises(OSError) as raised:
            fill()
        self.assertEqual(raised.exception.errno, errno.EDQUOT)
        answer = d.call("Controller/ControllerExpandVolume", {
            "volume_id": volume["volume_id"], "secrets": d.secrets, "capacity_range": {"required_bytes": 4 << 20}})
        self.assertEqual((int(answer["capacity_bytes"]), answer.get("node_expansion_required", False)), (4 << 20, False))
        d.call("Node/NodeExpandVolume", {"volume_id": volume["volume_id"], "volume_path": path, "capacity_range": {"required_bytes": 4 << 20}})
        fill()
        self.assertEqual(os.stat(path + "/big").st_size, 2 << 20)
        stats = d.call("Node/NodeGetVolumeStats", {"volume_id": volume["volume_id"], "volume_path": path})
        self.assertEqual([u["total"] for u in stats["usage"]][0], 4 << 20)
        self.down(d, volume)
        d.delete(volume)
        self.assertIn("files in the directory", d.create(self.name(), code=EXISTS))

    def test_the_group_is_that_of_what_is_published(self):
        d = self.driver()
        volume = d.create(self.name(), modes=(MANY_WRITERS,))
        os.makedirs(self.up(d, volume) + "/part")
        self.down(d, volume)
        part = dict(volume, volume_context=dict(volume["volume_context"], directory="part"))
        path = self.up(d, part, group="4711")
        info, above = os.stat(path), os.stat(d.staging(volume))
        self.assertEqual((info.st_gid, stat.S_IMODE(info.st_mode) & 0o2070), (4711, 0o2070))
        self.assertNotEqual(above.st_gid, 4711)
        self.down(d, volume)

    def test_static_volumes_of_a_service(self):
        d = self.driver()
        whole = {"volume_id": "whole", "volume_context": {k: d.parameters[k] for k in ("server", "volume")}}
        path = self.up(d, whole)
        os.makedirs(path + "/teams/red")
        write(path + "/teams/red/file", "x")
        part = {"volume_id": "part", "volume_context": dict(whole["volume_context"], directory="teams/red")}
        self.assertEqual(os.listdir(self.up(d, part, "part")), ["file"])
        for bad in {"volume": "missing"}, {"server": "127.0.0.1:1"}:
            context = dict(whole["volume_context"], **bad)
            answer = d.answer("Node/NodeStageVolume", {
                "volume_id": "bad", "staging_target_path": d.staging({"volume_id": "bad"}), "volume_capability": capability(MANY_WRITERS),
                "secrets": d.secrets, "volume_context": context})
            self.assertNotEqual(answer["code"], OK)
        self.down(d, part, "part")
        self.down(d, whole)
        d.delete(whole)  # a volume that was made at the service is not ended by a claim
        self.assertEqual((d.mounts(), d.daemons()), ([], {}))

    def test_certificates_come_from_the_secret(self):
        certs = Certs(os.path.join(self.service.directory, "certs"))
        certs.make("server", names="IP:127.0.0.1")
        certs.make("client")
        service = Service(scheme="sluices", env=self.gateway.env(), options=[
            "--tls-cert", certs.path("server.pem"), "--tls-key", certs.path("server.key"), "--tls-client-ca", certs.path("ca.pem")])
        self.addCleanup(service.close)
        service.start()
        service.volume("create", "safe", "s3://bucket/safe", "endpoint=" + self.gateway.endpoint)
        d = self.driver()
        d.parameters = {"server": "127.0.0.1:%d" % service.port, "volume": "safe", "tls": "true"}
        d.create(self.name(), code=UNAVAILABLE, modes=(MANY_WRITERS,))
        for key, name in ("service-ca", "ca.pem"), ("service-cert", "client.pem"), ("service-key", "client.key"):
            d.secrets[key] = read(certs.path(name))
        volume = d.create(self.name(), modes=(MANY_WRITERS,), onDelete="delete")
        self.assertTrue(volume["volume_id"].startswith("sluices://"))
        path = self.up(d, volume)
        write(path + "/file", "x")
        self.down(d, volume)
        d.delete(volume)
        self.assertEqual((d.mounts(), d.daemons()), ([], {}))
        self.assertEqual([n for n in os.listdir(d.state) if n.startswith("prefix.")], [])
        os.makedirs(d.state + "/prefix.left")  # as by a driver that was killed
        write(d.state + "/prefix.left/service-key.pem", "secret")
        d.stop()
        d.start()
        self.assertEqual([n for n in os.listdir(d.state) if n.startswith("prefix.")], [])

    def test_the_service_is_killed_between_and_under_calls(self):
        d = self.driver()
        volume = d.create(self.name(), modes=(MANY_WRITERS,))
        path = self.up(d, volume)
        with open(path + "/log", "w") as f:
            for i in range(3):
                f.write("%d\n" % i)
                f.flush()
                os.fsync(f.fileno())
                self.service.kill()
                if i == 0:  # a call in which the service is away
                    answer = d.answer("Controller/CreateVolume", {
                        "name": self.name() + "-late", "volume_capabilities": [capability(MANY_WRITERS)],
                        "parameters": d.parameters, "secrets": d.secrets})
                    self.assertIn(answer["code"], (UNAVAILABLE, DEADLINE), answer)
                self.service.start()
        self.assertEqual(read(path + "/log"), "0\n1\n2\n")
        late = d.create(self.name() + "-late", modes=(MANY_WRITERS,), onDelete="delete")
        d.delete(late)
        self.down(d, volume)
        d.delete(volume)
        self.assertEqual((d.mounts(), d.daemons()), ([], {}))


if __name__ == "__main__":
    unittest.main()
