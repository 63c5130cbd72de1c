"""What people do with a volume on Kubernetes. Run by tests/k8s/run inside the node."""

import base64
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.parse
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

from certs import Certs  # noqa: E402
from gateway import Gateway  # noqa: E402
from sts import Sts  # noqa: E402
from volume import WAIT_S, wait_until  # noqa: E402

NODE_IP = "10.99.0.1"
NODE_DIR = os.environ.get("NODE_DIR", "/tmp/sluice-node")
HOST_DIR = os.path.join(NODE_DIR, "sluice")
METADATA_IP = "10.96.77.7"  # there is no DNS here
VALUES = os.path.join(NODE_DIR, "values.json")
CHART = os.path.join(ROOT, "deploy", "helm", "sluice")
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
    certs = Certs(os.path.join(NODE_DIR, "certs"))
    certs.make("server", names="IP:" + METADATA_IP)
    apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "metadata-tls", "namespace": "kube-system"}, "type": "kubernetes.io/tls",
           "stringData": {"tls.crt": text_of(certs.path("server.pem")), "tls.key": text_of(certs.path("server.key"))}},
          secret("kube-system"))
    os.makedirs(os.path.join(NODE_DIR, "metadata"))
    apply({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "metadata"}, "spec": {
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "disk", "local": {"path": os.path.join(NODE_DIR, "metadata")},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
            {"key": "kubernetes.io/hostname", "operator": "In", "values": ["node1"]}]}]}}}})
    keys = {"name": "keys", "namespace": "default"}
    values = {
        "image": {"repository": "local.test/sluice", "tag": "test", "pullPolicy": "Never"},
        "hostDir": HOST_DIR,
        "controller": {"replicas": 1},
        "podIdentity": {"enabled": True, "audience": "sts.test", "expirationSeconds": 600},
        "node": {"mountCgroup": os.environ["SLUICE_TEST_CGROUP"]},
        "sidecars": {"registry": "local.test", "pullPolicy": "Never",
                     "provisioner": {"image": "csi-provisioner", "tag": "test"},
                     "resizer": {"image": "csi-resizer", "tag": "test"}},
        "metadata": {
            "enabled": True, "credentials": {"secretName": "keys"}, "storage": {"size": "1Gi", "storageClassName": "disk"},
            "service": {"clusterIP": METADATA_IP}, "tls": {"secretName": "metadata-tls"},
            "volumes": [{"name": "team", "url": "s3://bucket/team", "options": {"endpoint": gateway.endpoint, "settle-delay": "1s"}}]},
        "storageClasses": [
            {"name": "sluice", "secret": keys, "parameters": {"bucket": "bucket", "prefix": "volumes", "endpoint": gateway.endpoint, "onDelete": "delete"}},
            {"name": "shared", "secret": keys, "metadataVolume": "team", "parameters": {"prefix": "claims", "onDelete": "delete"}}],
    }
    with open(VALUES, "w") as f:
        json.dump(values, f)
    began = time.monotonic()
    helm("install")
    print("helm install --wait: %.1f s" % (time.monotonic() - began))
    token = kubectl("-n", "kube-system", "exec", "sluice-metadata-0", "-c", "serve", "--", "/runtime/sluice", "volume", "token", "create", "team",
                    "--rights", "admin", "--data-dir", "/data/serve").split()[-1]
    apply(secret("default", token=token, **{"service-ca": text_of(certs.path("ca.pem"))}))


def text_of(path):
    with open(path) as f:
        return f.read()


def secret(namespace, **more):
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys", "namespace": namespace},
            "stringData": dict({"access-key": gateway.access, "secret-key": gateway.secret}, **more)}


def helm(verb, *more):
    run("helm", verb, "sluice", CHART, "--namespace", "kube-system", "--values", VALUES, "--wait", "--timeout", "5m", *more)


def claim(name, mode="ReadWriteOnce", size="1Gi", of="sluice"):
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
            "spec": {"storageClassName": of, "accessModes": [mode], "resources": {"requests": {"storage": size}}}}


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

    def sh(self, name, command):
        return kubectl("exec", name, "--", "/bin/sh", "-c", command)

    def gone(self):
        """Pods and claims were removed: so are volumes and mounts."""
        wait_until("the volumes to be gone", lambda: [v for v in kubectl("get", "pv", "-o", "name").split() if not v.endswith("/metadata")] == [])
        wait_until("the mounts' end", lambda: not self.daemons())

    def handle(self, name):
        """The volume's id of a claim."""
        volume = kubectl("get", "pvc", name, "-o", "jsonpath={.spec.volumeName}")
        return kubectl("get", "pv", volume, "-o", "jsonpath={.spec.csi.volumeHandle}")

    def driver_steps(self, handle):
        log = kubectl("-n", "kube-system", "logs", "daemonset/sluice-node", "-c", "driver")
        return ["%s %s ms" % found.groups() for line in log.splitlines() if handle in line
                for found in [re.search(r"method=Node(\w+)Volume .* ms=(\d+)", line)] if found]

    def restarts(self, name):
        return kubectl("get", "pod", name, "-o", "jsonpath={.status.containerStatuses[0].restartCount}")

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
        wait_until("the claim to be bound", lambda: kubectl("get", "pvc", "claim", "-o", "jsonpath={.status.phase}") == "Bound")
        bound = time.monotonic()
        self.ready("writer")
        ready = time.monotonic()
        self.assertEqual(self.sh("writer", "head -c 1 /data/hello"), "h")
        print("claim to volume %.1f s, to running pod %.1f s, to first byte read %.1f s; the driver's part: %s" % (
            bound - began, ready - began, time.monotonic() - began, ", ".join(self.driver_steps(self.handle("claim")))))
        wait_until("the files in the bucket", lambda: {"hello", "logs/log"} <= set(self.keys()))
        self.assertEqual(gateway.get("bucket", self.keys()["hello"]), b"hello\n")
        self.assertEqual(kubectl("exec", "writer", "--", "stat", "-c", "%g", "/data"), "2000")
        kubectl("patch", "pvc", "claim", "-p", '{"spec":{"resources":{"requests":{"storage":"2Gi"}}}}')
        wait_until("the new size in the pod", lambda: "2097152" in kubectl("exec", "writer", "--", "df", "-k", "/data"))
        wait_until("the claim's new size", lambda: kubectl("get", "pvc", "claim", "-o", "jsonpath={.status.capacity.storage}") == "2Gi")
        self.remove("pod/writer", "pvc/claim")
        self.gone()
        self.assertEqual(gateway.list("bucket", "volumes/"), {})

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
        self.assertEqual(self.restarts("counter"), "0")
        kubectl("delete", "pod", "counter", "--grace-period=0", "--force")
        self.remove("pvc/busy")
        self.gone()

    def test_a_killed_mount_comes_back_with_the_next_pod(self):
        """As when the kernel has no memory left: the pod gets ENOTCONN, and what was acknowledged is there for the next one."""
        self.addCleanup(self.remove, "pod/first", "pod/next", "pvc/killed")
        apply(claim("killed"), pod("first", of_claim("killed"), "true" + STAY))
        self.ready("first")
        self.sh("first", "echo kept > /data/f && sync /data/f")
        for pid in self.daemons():
            os.kill(int(pid), signal.SIGKILL)
        wait_until("the daemon's end", lambda: not self.daemons())
        self.assertIn("not connected", kubectl("exec", "first", "--", "cat", "/data/f", check=False))
        kubectl("delete", "pod", "first", "--grace-period=0", "--force")
        apply(pod("next", of_claim("killed"), "cat /data/f" + STAY))
        self.ready("next")
        self.assertEqual(kubectl("logs", "next"), "kept")
        self.remove("pod/next", "pvc/killed")
        self.gone()

    def test_a_drained_node_has_brought_all_to_the_bucket(self):
        self.addCleanup(kubectl, "uncordon", "node1")
        self.addCleanup(self.remove, "pod/away", "pod/back", "pvc/drained")
        apply(claim("drained"), dict(pod("away", of_claim("drained"), "true" + STAY), metadata={"name": "away", "labels": {"drain": "me"}}))
        self.ready("away")
        self.sh("away", "seq 1000 > /data/f")
        kubectl("drain", "node1", "--pod-selector=drain=me", "--ignore-daemonsets", "--force", "--timeout=%ds" % WAIT_S)
        wait_until("the mount's end", lambda: not self.daemons())
        self.assertEqual(gateway.get("bucket", self.keys()["f"]).split()[-1], b"1000")
        kubectl("uncordon", "node1")
        apply(pod("back", of_claim("drained"), "wc -l < /data/f" + STAY))
        self.ready("back")
        self.assertEqual(kubectl("logs", "back"), "1000")
        self.remove("pod/back", "pvc/drained")
        self.gone()

    def test_keys_are_changed_in_the_secret(self):
        self.addCleanup(self.remove, "pod/rotated", "pvc/rotated", "pv/rotated", "secret/rotated")
        gateway.put("bucket", "rotated/file", b"there\n")
        keys = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "rotated"}, "stringData": {"access-key": gateway.access, "secret-key": "old"}}
        apply(keys, {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "rotated"}, "spec": {
            "capacity": {"storage": "1Ti"}, "accessModes": ["ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "", "claimRef": {"name": "rotated", "namespace": "default"}, "mountOptions": ["offline=10m", "durability=local"],
            "csi": {"driver": "csi.sluice.dev", "volumeHandle": "rotated", "nodeStageSecretRef": {"name": "rotated", "namespace": "default"},
                    "volumeAttributes": {"bucket": "bucket", "prefix": "rotated", "endpoint": gateway.endpoint}}}},
              dict(claim("rotated"), spec={"storageClassName": "", "volumeName": "rotated", "accessModes": ["ReadWriteOnce"],
                                           "resources": {"requests": {"storage": "1Ti"}}}),
              pod("rotated", of_claim("rotated"), "cat /data/file && echo new > /data/new" + STAY))
        wait_until("the old keys to be refused", lambda: "PermissionDenied" in kubectl(
            "get", "events", "--field-selector", "involvedObject.name=rotated,reason=FailedMount", "-o", "jsonpath={.items[*].message}"))
        apply(dict(keys, stringData=dict(keys["stringData"], **{"secret-key": gateway.secret})))
        self.ready("rotated")
        self.assertEqual(kubectl("logs", "rotated"), "there")
        self.remove("pod/rotated", "pvc/rotated", "pv/rotated")
        wait_until("the mount's end", lambda: not self.daemons())
        self.assertEqual(gateway.get("bucket", "rotated/new"), b"new\n")

    def test_a_prometheus_finds_the_metrics_of_all_mounts(self):
        """A real one, with the scrape configuration that is shipped. The distribution's has no discovery of pods: what that
        would say of them is given by a file, and the configuration's own rules choose and name the targets."""
        self.addCleanup(self.remove, "pod/seen", "pvc/seen")
        apply(claim("seen"), pod("seen", of_claim("seen"), "echo hello > /data/f" + STAY))
        self.ready("seen")
        targets = []
        for found in json.loads(kubectl("-n", "kube-system", "get", "pod", "-l", "app.kubernetes.io/name=sluice", "-o", "json"))["items"]:
            labels = {"__meta_kubernetes_pod_name": found["metadata"]["name"], "__meta_kubernetes_pod_ip": found["status"]["podIP"],
                      "__meta_kubernetes_pod_node_name": found["spec"]["nodeName"]}
            for name, value in found["metadata"].get("annotations", {}).items():
                labels["__meta_kubernetes_pod_annotation_" + re.sub(r"\W", "_", name)] = value
            for kind in "initContainers", "containers":
                targets += [{"targets": [found["status"]["podIP"]], "labels": dict(labels, **{
                    "__meta_kubernetes_pod_container_name": c["name"], "__meta_kubernetes_pod_container_init": str(kind != "containers").lower()})}
                    for c in found["spec"].get(kind, [])]
        monitoring = os.path.join(ROOT, "deploy", "monitoring")
        with tempfile.TemporaryDirectory() as d:
            with open(os.path.join(d, "pods.json"), "w") as f:
                json.dump(targets, f)
            text = re.sub(r"  kubernetes_sd_configs:\n.*?(?=  relabel_configs)", "  file_sd_configs: [{files: [%s/pods.json]}]\n" % d,
                          text_of(os.path.join(monitoring, "prometheus-kubernetes.yml")), flags=re.S)
            with open(os.path.join(d, "prometheus.yml"), "w") as f:
                f.write("global: {scrape_interval: 1s}\n" + text.replace("alerts.yml", os.path.join(monitoring, "alerts.yml")))
            with open(os.path.join(NODE_DIR, "log", "prometheus"), "w") as log:
                prometheus = subprocess.Popen(["prometheus", "--config.file", d + "/prometheus.yml", "--storage.tsdb.path", d + "/data",
                                               "--web.listen-address", "127.0.0.1:9490"], stdout=log, stderr=log)
            try:
                def ask(query):
                    try:
                        with urllib.request.urlopen("http://127.0.0.1:9490/api/v1/query?query=" + urllib.parse.quote(query), timeout=WAIT_S) as reply:
                            return [(r["metric"], r["value"][1]) for r in json.load(reply)["data"]["result"]]
                    except OSError:
                        return []

                handle = self.handle("seen")
                wait_until("the mount's metrics", lambda: ask('sluice_csi_mount_up{volume="%s"} == 1' % handle))
                wait_until("the write", lambda: ask('sluice_volume_files{volume="%s"} == 1' % handle))
                wait_until("both parts", lambda: sorted(m["pod"].rsplit("-", 1)[0] for m, v in ask("up") if v == "1") == ["sluice-metadata", "sluice-node"])
                self.assertEqual({(m["job"], m["node"], v) for m, v in ask("up")}, {("sluice", "node1", "1")})
            finally:
                prometheus.terminate()
                prometheus.wait(timeout=WAIT_S)
        self.remove("pod/seen", "pvc/seen")
        self.gone()

    def test_examples_are_accepted(self):
        """Those of kinds that a cluster has by itself; flink.yaml and volcano.yaml need their operators' definitions."""
        folder = os.path.join(ROOT, "deploy", "examples")
        for name in sorted(set(os.listdir(folder)) - {"flink.yaml", "volcano.yaml"}):
            with self.subTest(name):
                text = text_of(os.path.join(folder, name)).replace("{name: sluice}", "{name: example}")  # that class is there already
                self.assertIn("dry run", kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=text))

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

    def test_one_volume_written_by_many(self):
        """Pods of one claim share a mount; a volume by hand at the same directory has its own, as on another node."""
        self.addCleanup(self.remove, "pod/one", "pod/two", "pod/three", "pod/reader", "pvc/team", "pvc/other", "pv/other")
        apply(claim("team", "ReadWriteMany", of="shared"),
              *(pod(n, of_claim("team"), "true" + STAY) for n in ("one", "two")),
              pod("reader", {"persistentVolumeClaim": {"claimName": "team", "readOnly": True}}, "true" + STAY))
        for name in "one", "two", "reader":
            self.ready(name)
        volume = json.loads(kubectl("get", "pv", kubectl("get", "pvc", "team", "-o", "jsonpath={.spec.volumeName}"), "-o", "json"))["spec"]["csi"]
        self.assertTrue(volume["volumeHandle"].startswith("sluices://%s:7700/team/claims/pvc-" % METADATA_IP), volume["volumeHandle"])
        apply({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "other"}, "spec": {
            "capacity": {"storage": "1Ti"}, "accessModes": ["ReadWriteMany"], "persistentVolumeReclaimPolicy": "Retain", "storageClassName": "",
            "claimRef": {"name": "other", "namespace": "default"},
            "csi": {"driver": "csi.sluice.dev", "volumeHandle": "other", "nodeStageSecretRef": {"name": "keys", "namespace": "default"},
                    "volumeAttributes": {"server": METADATA_IP + ":7700", "volume": "team", "tls": "true", "prefix": volume["volumeHandle"].split("/team/")[1]}}}},
              dict(claim("other"), spec={"storageClassName": "", "volumeName": "other", "accessModes": ["ReadWriteMany"],
                                         "resources": {"requests": {"storage": "1Ti"}}}),
              pod("three", of_claim("other"), "true" + STAY))
        self.ready("three")
        self.assertEqual(len(self.daemons()), 2)
        self.sh("one", "mkdir /data/d && echo 1 > /data/d/a")
        for n, name in enumerate(("two", "three", "one", "three", "two")):
            self.assertEqual(self.sh(name, "ls /data/d"), "a" if n % 2 == 0 else "b")
            self.sh(name, "cd /data/d && mv %s && echo %d >> %s" % (("a b", n, "b") if n % 2 == 0 else ("b a", n, "a")))
        self.assertEqual(self.sh("reader", "cat /data/d/b").split(), ["1", "0", "1", "2", "3", "4"])
        self.assertIn("refused", self.sh("reader", "touch /data/no 2>/dev/null || echo refused"))
        for name in "one", "two", "three":
            self.sh(name, "for i in $(seq 50); do echo $i > /data/d/%s.$i; done" % name)
        self.assertEqual(self.sh("reader", "ls /data/d | wc -l"), "151")
        # The service is started anew while a pod writes.
        self.sh("three", "(n=0; while [ ! -e /tmp/stop ]; do n=$((n+1)); echo $n >> /data/n || touch /data/failed; done) >/dev/null 2>&1 &")
        kubectl("-n", "kube-system", "delete", "pod", "sluice-metadata-0", "--timeout=%ds" % WAIT_S)
        kubectl("-n", "kube-system", "rollout", "status", "statefulset/sluice-metadata", "--timeout=%ds" % WAIT_S)
        count = int(self.sh("one", "wc -l < /data/n"))
        wait_until("more lines", lambda: int(self.sh("one", "wc -l < /data/n")) > count + 10)
        self.sh("three", "touch /tmp/stop")
        self.assertEqual(self.sh("one", "ls /data").split(), ["d", "n"])
        kubectl("patch", "pvc", "team", "-p", '{"spec":{"resources":{"requests":{"storage":"2Gi"}}}}')
        wait_until("the claim's new size", lambda: kubectl("get", "pvc", "team", "-o", "jsonpath={.status.capacity.storage}") == "2Gi")
        self.remove("pod/one", "pod/two", "pod/three", "pod/reader", "pvc/other", "pv/other", "pvc/team")
        self.gone()
        wait_until("the objects to go", lambda: [k for k in gateway.list("bucket", "team/claims/")] == [])

    def test_fio_while_the_driver_is_killed_and_upgraded(self):
        self.addCleanup(self.remove, "pod/fio", "pod/fio-shared", "pvc/fio", "pvc/fio-shared")
        command = ("while [ ! -e /tmp/stop ]; do fio --name=f --directory=/data --size=8M --rw=randrw --bsrange=4k-64k --verify=crc32c --do_verify=1"
                   " --verify_fatal=1 --ioengine=psync --thread --fsync=32 > /tmp/out 2>&1 || { cat /tmp/out; exit 1; }; echo ok; done")
        names = ("fio", "sluice"), ("fio-shared", "shared")
        apply(*(o for name, of in names for o in (claim(name, of=of), pod(name, of_claim(name), command, restartPolicy="Never"))))
        for name, _ in names:
            self.ready(name)

        def rounds():
            return [kubectl("logs", name).split().count("ok") for name, _ in names]

        def more(when):
            before = rounds()
            wait_until("fio to go on " + when, lambda: all(now > b + 1 for b, now in zip(before, rounds())))

        more("before")
        mounts = self.daemons()
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with open("/proc/%s/cmdline" % pid, "rb") as f:
                if b"--role=node" in f.read().split(b"\0"):
                    os.kill(int(pid), signal.SIGKILL)
        more("after the driver was killed")
        self.addCleanup(helm, "upgrade")
        helm("upgrade", "--set", "image.tag=next")
        kubectl("-n", "kube-system", "rollout", "status", "daemonset/sluice-node", "--timeout=%ds" % WAIT_S)
        self.assertIn(":next", kubectl("-n", "kube-system", "get", "pod", "-l", "app.kubernetes.io/component=node", "-o", "jsonpath={.items[*].spec.containers[0].image}"))
        more("after the upgrade")
        self.assertEqual(self.daemons(), mounts)
        for name, _ in names:
            self.sh(name, "touch /tmp/stop")
            kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/" + name, "--timeout=%ds" % WAIT_S)
        self.remove("pod/fio", "pod/fio-shared", "pvc/fio", "pvc/fio-shared")
        self.gone()

    def restart(self, *words):
        """A program of the node is ended and started again as it was, as often as it needs (a kubelet ends when containerd
        does not answer yet)."""
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with open("/proc/%s/cmdline" % pid, "rb") as f:
                argv = [w.decode() for w in f.read().split(b"\0")[:-1]]
            if [os.path.basename(w) for w in argv[:len(words)]] != list(words):
                continue
            with open("/proc/%s/environ" % pid, "rb") as f:
                env = dict(e.decode().split("=", 1) for e in f.read().split(b"\0") if b"=" in e)
            os.kill(int(pid), signal.SIGKILL)
            wait_until("the end of " + words[0], lambda: not os.path.exists("/proc/" + pid))
            with open(os.path.join(NODE_DIR, "log", words[-1]), "ab") as log:
                subprocess.Popen(["/bin/sh", "-c", 'while :; do "$@"; sleep 0.5; done', "supervisor", *argv], env=env,
                                 stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
            return
        self.fail("no " + " ".join(words))

    def test_kubelet_and_containerd_are_started_anew(self):
        self.addCleanup(self.remove, "pod/counter", "pod/late", "pvc/counter")
        apply(claim("counter", "ReadWriteMany", of="shared"),
              pod("counter", of_claim("counter"), "n=0; while :; do n=$((n+1)); echo $n >> /data/n || exit 1; sleep 0.05; done"))
        self.ready("counter")
        before = self.daemons()
        self.restart("containerd")
        self.restart("k8snode", "kubelet")
        apply(pod("late", of_claim("counter"), "head -n 1 /data/n" + STAY))
        self.ready("late")
        self.assertEqual(kubectl("logs", "late"), "1")
        count = int(self.sh("late", "wc -l < /data/n"))
        wait_until("more lines", lambda: int(self.sh("late", "wc -l < /data/n")) > count)
        self.assertEqual((self.daemons(), self.restarts("counter")), (before, "0"))
        self.remove("pod/late", "pod/counter", "pvc/counter")
        self.gone()

    def test_modes_and_ephemeral_volumes(self):
        self.addCleanup(self.remove, "pod/alone", "pod/second", "pod/scratch", "pvc/alone")
        apply(claim("alone", "ReadWriteOncePod"), pod("alone", of_claim("alone"), "echo mine > /data/f" + STAY))
        self.ready("alone")
        template = {"spec": dict(claim("x")["spec"])}
        apply(pod("second", of_claim("alone"), "true" + STAY),
              pod("scratch", {"ephemeral": {"volumeClaimTemplate": template}}, "echo temporary > /data/f" + STAY))
        self.ready("scratch")
        wait_until("the second pod to be refused", lambda: "ReadWriteOncePod" in kubectl("get", "pod", "second", "-o", "jsonpath={.status.conditions[*].message}"))
        wait_until("both files in the bucket", lambda: len([k for k in gateway.list("bucket", "volumes/") if k.endswith("/f")]) == 2)
        self.remove("pod/scratch")
        wait_until("the ephemeral volume to go", lambda: len([k for k in gateway.list("bucket", "volumes/") if k.endswith("/f")]) == 1)
        kubectl("delete", "pod", "alone", "--grace-period=0", "--force")
        self.ready("second")
        self.assertEqual(self.sh("second", "cat /data/f"), "mine")
        self.remove("pod/second", "pvc/alone")
        self.gone()

    def test_a_pod_mounts_with_its_own_identity(self):
        """No Secret anywhere: the token of the pod's service account is exchanged for keys."""
        self.addCleanup(self.remove, "pod/known", "pod/unknown", "pvc/own", "pv/own", "serviceaccount/known", "serviceaccount/unknown")
        with Sts(gateway.access, gateway.secret) as sts:
            def is_known(token):
                part = token.split(".")[1]
                claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
                return claims["sub"] == "system:serviceaccount:default:known" and claims["aud"] == ["sts.test"]

            sts.accepts = is_known
            account = {"apiVersion": "v1", "kind": "ServiceAccount", "automountServiceAccountToken": False}
            apply(*(dict(account, metadata={"name": n}) for n in ("known", "unknown")),
                  {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "own"}, "spec": {
                      "capacity": {"storage": "1Ti"}, "accessModes": ["ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Retain",
                      "storageClassName": "", "claimRef": {"name": "own", "namespace": "default"},
                      "csi": {"driver": "csi.sluice.dev", "volumeHandle": "own", "volumeAttributes": {
                          "bucket": "bucket", "prefix": "own", "endpoint": gateway.endpoint, "identity": "pod",
                          "roleArn": "arn:aws:iam::1:role/pods", "stsEndpoint": sts.endpoint}}}},
                  dict(claim("own"), spec={"storageClassName": "", "volumeName": "own", "accessModes": ["ReadWriteOnce"],
                                           "resources": {"requests": {"storage": "1Ti"}}}),
                  pod("unknown", of_claim("own"), "true" + STAY, serviceAccountName="unknown"))
            wait_until("the unknown account to be refused", lambda: "InvalidIdentityToken" in kubectl(
                "get", "events", "--field-selector", "involvedObject.name=unknown,reason=FailedMount", "-o", "jsonpath={.items[*].message}"))
            self.remove("pod/unknown")
            apply(pod("known", of_claim("own"), "echo mine > /data/f" + STAY, serviceAccountName="known"))
            self.ready("known")
            self.remove("pod/known", "pvc/own", "pv/own")
            self.gone()
            self.assertEqual(gateway.get("bucket", "own/f"), b"mine\n")


if __name__ == "__main__":
    unittest.main()
