"""What people do with a volume on Kubernetes. Run by tests/k8s/run inside the node."""

import json
import os
import subprocess
import sys
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

from gateway import Gateway  # noqa: E402
from volume import WAIT_S, wait_until  # noqa: E402

NODE_IP = "10.99.0.1"
NODE_DIR = os.environ.get("NODE_DIR", "/tmp/sluice-node")
HOST_DIR = os.path.join(NODE_DIR, "sluice")
os.environ["KUBECONFIG"] = os.path.join(NODE_DIR, "admin.conf")
gateway = None


def run(*words, stdin=None, check=True):
    done = subprocess.run(words, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=WAIT_S * 3)
    if check and done.returncode:
        raise AssertionError("%s: %s" % (" ".join(words), done.stdout[-4000:]))
    return done.stdout.strip()


def kubectl(*words, **more):
    return run("kubectl", *words, **more)


def apply(*objects):
    kubectl("apply", "--validate=strict", "-f", "-", stdin="\n---\n".join(json.dumps(o) for o in objects))


def setUpModule():
    global gateway
    gateway = Gateway()
    gateway.host = NODE_IP
    gateway.start()
    unittest.addModuleCleanup(gateway.close)
    gateway.make_bucket("bucket")
    apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys", "namespace": "default"},
           "stringData": {"access-key": gateway.access, "secret-key": gateway.secret}})
    values = {
        "image": {"repository": "local.test/sluice", "tag": "test", "pullPolicy": "Never"},
        "hostDir": HOST_DIR,
        "controller": {"replicas": 1},
        "node": {"mountCgroup": os.environ["SLUICE_TEST_CGROUP"]},
        "sidecars": {"registry": "local.test", "pullPolicy": "Never",
                     "provisioner": {"image": "csi-provisioner", "tag": "test"},
                     "resizer": {"image": "csi-resizer", "tag": "test"}},
        "storageClasses": [{"name": "sluice", "secret": {"name": "keys", "namespace": "default"},
                            "parameters": {"bucket": "bucket", "prefix": "volumes", "endpoint": gateway.endpoint, "onDelete": "delete"}}],
    }
    path = os.path.join(NODE_DIR, "values.json")
    with open(path, "w") as f:
        json.dump(values, f)
    began = time.monotonic()
    run("helm", "install", "sluice", os.path.join(ROOT, "deploy", "helm", "sluice"), "--namespace", "kube-system",
        "--values", path, "--wait", "--timeout", "5m")
    print("helm install --wait: %.1f s" % (time.monotonic() - began))


def claim(name, mode="ReadWriteOnce", size="1Gi"):
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
            "spec": {"storageClassName": "sluice", "accessModes": [mode], "resources": {"requests": {"storage": size}}}}


def pod(name, volume, command, mounts=None, **spec):
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
        "terminationGracePeriodSeconds": 1, "volumes": [dict(volume, name="v")],
        "containers": [{"name": "c", "image": "local.test/busybox:1.35", "imagePullPolicy": "Never",
                        "command": ["/bin/sh", "-c", command], "volumeMounts": mounts or [{"name": "v", "mountPath": "/data"}]}], **spec}}


def of_claim(name):
    return {"persistentVolumeClaim": {"claimName": name}}


STAY = " && while :; do sleep 1; done"


class Node(unittest.TestCase):
    def ready(self, name):
        try:
            kubectl("wait", "--for=condition=Ready", "pod/" + name, "--timeout=%ds" % WAIT_S)
        except AssertionError:
            print(kubectl("describe", "pod", name)[-3000:])
            print(kubectl("-n", "kube-system", "logs", "daemonset/sluice-node", "-c", "driver", "--tail=40", check=False))
            print(kubectl("-n", "kube-system", "logs", "deployment/sluice-controller", "-c", "provisioner", "--tail=20", check=False))
            raise

    def remove(self, *names):
        kubectl("delete", *names, "--ignore-not-found", "--timeout=%ds" % WAIT_S)

    def keys(self):
        return {k.split("/", 2)[2]: k for k in gateway.list("bucket", "volumes/")}

    def daemons(self):
        found = set()
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open("/proc/%s/cmdline" % pid, "rb") as f:
                    words = f.read().split(b"\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if b"mount" in words and any(w.startswith(b"--meta-dir=") for w in words):
                found.add(pid)
        return found

    def test_claim_to_pod_to_bucket_and_back(self):
        self.addCleanup(self.remove, "pod/writer", "pvc/claim")
        began = time.monotonic()
        apply(claim("claim"), pod("writer", of_claim("claim"), "echo hello > /data/hello && echo log > /logs/log" + STAY,
                                  mounts=[{"name": "v", "mountPath": "/data"}, {"name": "v", "mountPath": "/logs", "subPath": "logs"}],
                                  securityContext={"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 2000}))
        self.ready("writer")
        print("claim to running pod: %.1f s" % (time.monotonic() - began))
        wait_until("the files in the bucket", lambda: {"hello", "logs/log"} <= set(self.keys()))
        self.assertEqual(gateway.get("bucket", self.keys()["hello"]), b"hello\n")
        self.assertEqual(kubectl("exec", "writer", "--", "stat", "-c", "%g", "/data"), "2000")
        kubectl("patch", "pvc", "claim", "-p", '{"spec":{"resources":{"requests":{"storage":"2Gi"}}}}')
        wait_until("the new size in the pod", lambda: "2097152" in kubectl("exec", "writer", "--", "df", "-k", "/data"))
        wait_until("the claim's new size", lambda: kubectl("get", "pvc", "claim", "-o", "jsonpath={.status.capacity.storage}") == "2Gi")
        self.remove("pod/writer", "pvc/claim")
        wait_until("the volume to be gone", lambda: not kubectl("get", "pv", "-o", "name"))
        self.assertEqual(gateway.list("bucket", "volumes/"), {})
        self.assertEqual(self.daemons(), set())

    def test_the_driver_is_replaced_under_io(self):
        self.addCleanup(self.remove, "pod/counter", "pvc/busy")
        apply(claim("busy"), pod("counter", of_claim("busy"), "n=0; while :; do n=$((n+1)); echo $n >> /data/n || exit 1; sync /data/n || exit 1; sleep 0.05; done"))
        self.ready("counter")

        def count():
            return int(kubectl("exec", "counter", "--", "sh", "-c", "tail -n 1 /data/n || echo 0") or 0)

        wait_until("the first lines", lambda: count() > 5)
        before, at = self.daemons(), count()
        old = kubectl("-n", "kube-system", "get", "pod", "-l", "app.kubernetes.io/component=node", "-o", "name")
        kubectl("-n", "kube-system", "delete", old, "--timeout=%ds" % WAIT_S)
        kubectl("-n", "kube-system", "rollout", "status", "daemonset/sluice-node", "--timeout=%ds" % WAIT_S)
        wait_until("more lines", lambda: count() > at + 20)
        self.assertEqual(self.daemons(), before)
        lines = kubectl("exec", "counter", "--", "cat", "/data/n").split()
        self.assertEqual(lines, [str(i + 1) for i in range(len(lines))])
        self.assertEqual(kubectl("get", "pod", "counter", "-o", "jsonpath={.status.containerStatuses[0].restartCount}"), "0")
        kubectl("delete", "pod", "counter", "--grace-period=0", "--force")
        self.remove("pvc/busy")
        wait_until("the volume to be gone", lambda: not kubectl("get", "pv", "-o", "name"))
        wait_until("the mount's end", lambda: not self.daemons())

    def test_inline_volume(self):
        self.addCleanup(self.remove, "pod/inline")
        gateway.put("bucket", "inbox/file", b"there before\n")
        apply(pod("inline", {"csi": {"driver": "csi.sluice.dev", "nodePublishSecretRef": {"name": "keys"},
                                     "volumeAttributes": {"bucket": "bucket", "prefix": "inbox", "endpoint": gateway.endpoint}}},
                  "cat /data/file && echo new > /data/new" + STAY))
        self.ready("inline")
        self.assertEqual(kubectl("logs", "inline"), "there before")
        self.remove("pod/inline")
        self.assertEqual(gateway.get("bucket", "inbox/new"), b"new\n")
        wait_until("the mount's end", lambda: not self.daemons())

    def test_many_readers_of_what_is_there(self):
        gateway.put("bucket", "shared/file", b"for all\n")
        self.addCleanup(self.remove, "pod/one", "pod/two", "pvc/shared", "pv/shared")
        apply({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "shared"}, "spec": {
            "capacity": {"storage": "1Ti"}, "accessModes": ["ReadOnlyMany"], "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "", "claimRef": {"name": "shared", "namespace": "default"},
            "csi": {"driver": "csi.sluice.dev", "volumeHandle": "shared", "nodeStageSecretRef": {"name": "keys", "namespace": "default"},
                    "volumeAttributes": {"bucket": "bucket", "prefix": "shared", "endpoint": gateway.endpoint, "readOnly": "true"}}}},
              dict(claim("shared", "ReadOnlyMany", "1Ti"), spec={"storageClassName": "", "volumeName": "shared", "accessModes": ["ReadOnlyMany"],
                                                                 "resources": {"requests": {"storage": "1Ti"}}}),
              pod("one", of_claim("shared"), "cat /data/file; touch /data/x || echo refused" + STAY),
              pod("two", of_claim("shared"), "cat /data/file" + STAY))
        self.ready("one")
        self.ready("two")
        self.assertEqual(len(self.daemons()), 1)
        self.assertIn("refused", kubectl("logs", "one"))
        self.assertEqual(kubectl("logs", "two"), "for all")


if __name__ == "__main__":
    unittest.main()
