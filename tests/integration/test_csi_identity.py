"""Volumes that are mounted with the identity of a pod, and SELinux contexts."""

import json
import os
import stat
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

from csi import *  # noqa: E402,F403
from csi import Driver, capability  # noqa: E402
from gateway import Gateway  # noqa: E402
from sts import Sts  # noqa: E402
from volume import wait_until  # noqa: E402

ROLE = "arn:aws:iam::1:role/pods"


class Identity(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway()
        cls.gateway.start()
        cls.addClassCleanup(cls.gateway.close)
        cls.gateway.make_bucket("bucket")

    def driver(self, sts=None):
        d = Driver(self.gateway, options=["--log-level", "debug"])
        if sts:
            d.parameters.update(identity="pod", roleArn=ROLE, stsEndpoint=sts.endpoint)
        self.addCleanup(d.close)
        return d.start()

    def request(self, d, volume, name, token, account="writer"):
        r = d.publish_request(volume, name)
        r["volume_context"] = dict(r["volume_context"], **{
            "csi.storage.k8s.io/pod.namespace": "team", "csi.storage.k8s.io/serviceAccount.name": account,
            "csi.storage.k8s.io/serviceAccount.tokens": json.dumps({"sts.amazonaws.com": {"token": token, "expirationTimestamp": "x"}})})
        return r

    def test_a_pod_mounts_with_its_own_identity(self):
        with Sts(self.gateway.access, self.gateway.secret, life_s=4) as sts:
            sts.accept("token-1")
            d = self.driver(sts)
            volume = d.create("with-identity")
            keys, d.secrets = d.secrets, {}  # the node has none
            d.stage(volume)
            self.assertEqual(d.daemons(), {}, "the identity comes with Publish")
            d.publish(volume, "a", code=16)
            self.assertEqual((d.mounts(), d.daemons()), ([], {}))
            d.call("Node/NodePublishVolume", self.request(d, volume, "a", "token-1"))
            with open(d.target("a") + "/file", "w") as f:
                f.write("kept")
            self.assertEqual(set(sts.asked), {(ROLE, "token-1")})
            for words in d.daemons().values():
                self.assertNotIn("token-1", " ".join(words))
            # The kubelet calls again with newer tokens; the older ones are worth nothing any more.
            sts.accept("token-2")
            d.call("Node/NodePublishVolume", self.request(d, volume, "a", "token-2"))
            wait_until("the newer token to be used", lambda: (ROLE, "token-2") in sts.asked)
            path, = [os.path.join(folder, "token") for folder, _, files in os.walk(d.state) if "token" in files]
            self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
            with open(path) as f:
                self.assertEqual(f.read(), "token-2")
            self.assertIn("team/writer", d.call("Node/NodePublishVolume", self.request(d, volume, "b", "token-3", "other"), PRECONDITION))
            d.call("Node/NodePublishVolume", self.request(d, volume, "b", "token-2"))
            for name in "ab":
                d.unpublish(volume, name)
            d.unstage(volume)
            self.assertFalse(os.path.exists(path))
            self.assertEqual(self.gateway.get("bucket", "volumes/with-identity/file"), b"kept")
            self.assertEqual((d.mounts(), d.daemons()), ([], {}))
            for token in b"token-1", b"token-2", b"token-3":
                for folder, _, files in os.walk(d.directory):
                    for file in files:
                        if stat.S_ISREG(os.lstat(os.path.join(folder, file)).st_mode):
                            with open(os.path.join(folder, file), "rb") as f:
                                self.assertNotIn(token, f.read(), file)
            d.secrets = keys
            d.delete(volume)

    def test_a_token_that_is_refused_leaves_nothing(self):
        with Sts(self.gateway.access, self.gateway.secret) as sts:
            d = self.driver(sts)
            volume = d.create("refused")
            d.stage(volume)
            answer = d.answer("Node/NodePublishVolume", self.request(d, volume, "a", "stolen"))
            self.assertEqual(answer["code"], DENIED, answer)
            self.assertNotIn("stolen", json.dumps(answer) + d.text())
            self.assertEqual((d.mounts(), d.daemons()), ([], {}))
            d.unpublish(volume, "a")
            d.unstage(volume)
            d.create("half", code=INVALID, roleArn="")

    def test_inline_volume_with_identity(self):
        with Sts(self.gateway.access, self.gateway.secret) as sts:
            sts.accept("inline-token")
            d = self.driver()
            volume = {"volume_id": "csi-" + "1" * 60, "volume_context": {
                "csi.storage.k8s.io/ephemeral": "true", "bucket": "bucket", "prefix": "inline", "endpoint": self.gateway.endpoint,
                "identity": "pod", "roleArn": ROLE, "stsEndpoint": sts.endpoint}}
            d.call("Node/NodePublishVolume", self.request(d, volume, "i", "inline-token"))
            with open(d.target("i") + "/file", "w") as f:
                f.write("x")
            d.unpublish(volume, "i")
            self.assertEqual(self.gateway.get("bucket", "inline/file"), b"x")
            self.assertEqual(os.listdir(d.state + "/volumes"), [])

    def test_selinux_context_is_given_or_refused(self):
        with open("/proc/filesystems") as f:
            selinux = "selinuxfs" in f.read()
        d = self.driver()
        volume = d.create("context")
        flag = 'context="system_u:object_r:container_file_t:s0:c1,c2"'
        if selinux:
            d.stage(volume, flags=[flag])
            self.assertIn("--selinux-context=system_u:object_r:container_file_t:s0:c1,c2", list(d.daemons().values())[0])
            d.unstage(volume)
        else:
            self.assertIn("no SELinux", d.stage(volume, code=INVALID, flags=[flag]))
        for bad in "context=", "context=a b", "context=a;b", "context=" + "x" * 300:
            self.assertIn("context", d.stage(volume, code=INVALID, flags=[bad]))
        self.assertEqual((d.mounts(), d.daemons()), ([], {}))


if __name__ == "__main__":
    unittest.main()
