"""The CSI driver with real FUSE mounts on a real S3 server: csi-sanity, and what it does not look at."""

import errno
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import unittest
import xml.etree.ElementTree

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

from csi import *  # noqa: E402,F403
from csi import Client, Driver, capability  # noqa: E402
from gateway import Gateway  # noqa: E402
from volume import ROOT, WAIT_S, is_mounted, wait_until  # noqa: E402

# What csi-sanity may leave out: specs of capabilities that the driver does not claim.
NOT_CLAIMED = ("Snapshot", "GroupController", "ControllerPublishVolume", "ControllerUnpublishVolume", "ModifyVolume",
               "VolumeHealth", "StorageHealth", "source volume", "source snapshot", "volume attribute class", "Controller Publish", "volume lifecycle")


class Base(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway()
        cls.gateway.start()
        cls.addClassCleanup(cls.gateway.close)
        cls.gateway.make_bucket("bucket")

    def driver(self, *options, **more):
        d = Driver(self.gateway, options=options, **more)
        self.addCleanup(d.close)
        return d.start()

    def name(self):
        return "pvc-" + self.id().rsplit(".", 1)[1].replace("_", "-")[:40]

    def keys(self, volume):
        prefix = volume["volume_context"]["url"].split("/", 3)[3] + "/"
        return {k[len(prefix):] for k in self.gateway.list("bucket", prefix)}


class Sanity(Base):
    def test_csi_sanity(self):
        tool = os.path.join(ROOT, "deps", "bin", "csi-sanity")
        if not os.access(tool, os.X_OK):
            tool = shutil.which("csi-sanity")
        self.assertTrue(tool, "csi-sanity is not there: run ./setup --tests")
        d = self.driver()
        files = {"params": dict(d.parameters, onDelete="delete"),
                 "secrets": {name + "Secret": d.secrets for name in (
                     "CreateVolume", "DeleteVolume", "NodeStageVolume", "NodePublishVolume", "ControllerExpandVolume",
                     "ControllerValidateVolumeCapabilities", "ListSnapshots")}}
        for name, content in files.items():
            with open(os.path.join(d.directory, name), "w") as f:
                json.dump(content, f)
        report = os.path.join(d.directory, "report.xml")
        done = subprocess.run(
            [tool, "-csi.endpoint", "unix://" + d.socket, "-csi.testvolumeparameters", os.path.join(d.directory, "params"),
             "-csi.secrets", os.path.join(d.directory, "secrets"), "-csi.mountdir", os.path.join(d.directory, "mnt"),
             "-csi.stagingdir", os.path.join(d.directory, "stg"), "-ginkgo.no-color", "-ginkgo.junit-report", report],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=WAIT_S * 4)
        self.assertEqual(done.returncode, 0, done.stdout[-6000:] + d.text())
        cases = list(xml.etree.ElementTree.parse(report).getroot().iter("testcase"))
        passed = [c for c in cases if c.get("status") == "passed"]
        self.assertGreaterEqual(len(passed), 49)
        for case in cases:
            if case.get("status") == "skipped":
                self.assertTrue(any(part in case.get("name") for part in NOT_CLAIMED), case.get("name"))
        self.assertEqual(d.mounts(), [])
        self.assertEqual(d.daemons(), {})
        self.assertEqual(self.gateway.list("bucket", "volumes/"), {}, "nothing is left of deleted volumes")


class Life(Base):
    def test_data_reaches_the_bucket_before_unstage_returns(self):
        d = self.driver()
        volume = d.create(self.name())
        d.stage(volume)
        path = d.publish(volume, "a")
        os.makedirs(path + "/dir")
        with open(path + "/dir/small", "w") as f:
            f.write("small")
        with open(path + "/big", "wb") as f:
            f.write(b"x" * 300000)
        self.assertNotIn("dir/small", self.keys(volume))
        d.unpublish(volume, "a")
        self.assertFalse(os.path.exists(path))
        d.unstage(volume)
        self.assertEqual(self.keys(volume), {"dir/small", "big", ".sluice/volume", ".sluice/csi"})
        self.assertEqual((d.mounts(), d.daemons()), ([], {}))

    def test_delete_keeps_what_was_not_asked_for(self):
        d = self.driver()
        kept = d.create(self.name() + "-kept")
        gone = d.create(self.name() + "-gone", onDelete="delete")
        for volume in kept, gone:
            d.stage(volume)
            path = d.publish(volume, "a")
            with open(path + "/ours", "wb") as f:
                f.write(b"x" * 100000)
            d.unpublish(volume, "a")
            d.unstage(volume)
            base = volume["volume_context"]["url"].split("/", 3)[3]
            self.gateway.put("bucket", base + "/theirs", b"of another tool")
            self.gateway.put("bucket", base + "/deeper/.sluice/volume", b"{}")
            self.gateway.put("bucket", base + "/deeper/x", b"y", {"x-amz-meta-sluice-volume": "0" * 32, "x-amz-meta-sluice-object": "1"})
            d.delete(volume)
            d.delete(volume)
        foreign = {"theirs", "deeper/.sluice/volume", "deeper/x"}
        self.assertEqual(self.keys(kept), foreign | {"ours", ".sluice/volume"})
        self.assertEqual(self.keys(gone), foreign)

    def test_a_mounted_volume_is_not_deleted(self):
        d = self.driver()
        volume = d.create(self.name(), onDelete="delete")
        d.stage(volume)
        self.assertIn("mounted by", d.delete(volume, code=PRECONDITION))
        self.assertIn(".sluice/csi", self.keys(volume))
        d.unstage(volume)
        d.delete(volume)
        self.assertEqual(self.keys(volume), set())
        self.assertIn("no volume", d.stage(volume, code=NOT_FOUND))
        self.assertEqual((d.mounts(), d.daemons()), ([], {}))

    def test_create_is_idempotent_and_refuses_a_filled_prefix(self):
        d = self.driver()
        first, again = d.create(self.name()), d.create(self.name())
        self.assertEqual(first, again)
        d.create(self.name(), size=2 << 30, code=EXISTS)
        self.gateway.put("bucket", "volumes/filled/file", b"x")
        self.assertIn("objects", d.create("filled", code=EXISTS))
        d.call("Controller/ControllerExpandVolume", {"volume_id": first["volume_id"], "secrets": d.secrets, "capacity_range": {"required_bytes": 3 << 30}})
        d.create(self.name(), size=3 << 30)

    def test_a_volume_moves_between_nodes(self):
        one, two = self.driver(), self.driver()
        volume = one.create(self.name())

        def visit(d, work):
            d.stage(volume)
            work(d.publish(volume, "a"))
            d.unpublish(volume, "a")
            d.unstage(volume)

        def write(path, text):
            with open(path, "w") as f:
                f.write(text)

        def fill(p):
            for n in "abc":
                write(p + "/" + n, "one")
            os.mkdir(p + "/empty", 0o700)
            os.symlink("c", p + "/link")
            os.chmod(p + "/c", 0o600)

        def change(p):
            self.assertEqual(sorted(os.listdir(p)), ["a", "b", "c", "empty", "link"])
            self.assertEqual((os.readlink(p + "/link"), stat.S_IMODE(os.stat(p + "/c").st_mode), stat.S_IMODE(os.stat(p + "/empty").st_mode)),
                             ("c", 0o600, 0o700))
            os.unlink(p + "/a")
            os.unlink(p + "/link")
            os.rmdir(p + "/empty")
            write(p + "/b", "two")

        visit(one, fill)
        visit(two, change)
        seen = {}
        visit(one, lambda p: seen.update({n: open(p + "/" + n).read() for n in os.listdir(p)}))
        self.assertEqual(seen, {"b": "two", "c": "one"}, "metadata of before the move must not be used")

    def test_a_second_node_is_refused_while_the_first_writes(self):
        one, two = self.driver(), self.driver()
        volume = one.create(self.name())
        one.stage(volume)
        self.assertIn("mounted by", two.stage(volume, code=INTERNAL))
        self.assertEqual((two.mounts(), two.daemons()), ([], {}))
        reader = two.stage(volume, mode=MANY_READERS)
        self.assertEqual(reader, {})
        path = two.publish(volume, "r", mode=MANY_READERS)
        with self.assertRaises(OSError):
            open(path + "/new", "w")

    def test_modes_options_and_groups(self):
        d = self.driver()
        self.assertIn("metadata service", d.create(self.name(), code=INVALID, modes=(MANY_WRITERS,)))
        volume = d.create(self.name())
        d.stage(volume, group="4711", flags=["import-ttl=5s", "noatime"])
        path = d.publish(volume, "rw")
        info = os.stat(path)
        self.assertEqual((info.st_gid, stat.S_IMODE(info.st_mode) & 0o2070), (4711, 0o2070))
        read_only = d.publish(volume, "ro", readonly=True)
        with self.assertRaises(OSError):
            open(read_only + "/x", "w")
        d.publish(volume, "ro", readonly=True)
        d.publish(volume, "ro", code=EXISTS)
        d.publish(volume, "other", mode=SINGLE_WRITER, code=PRECONDITION)
        for pid, words in d.daemons().items():
            self.assertIn("--import-ttl=5s", words)
        os.makedirs(path + "/sub/deep")
        inner = dict(volume, volume_context=dict(volume["volume_context"], directory="sub"))
        self.assertEqual(os.listdir(d.publish(inner, "sub")), ["deep"])
        os.symlink("/", path + "/out")
        for bad in "out", "../x", "nothing":
            inner["volume_context"]["directory"] = bad
            answer = d.answer("Node/NodePublishVolume", d.publish_request(inner, "bad"))
            self.assertIn(answer["code"], (INVALID, PRECONDITION, NOT_FOUND), answer)
            self.assertFalse(is_mounted(d.target("bad")))

    def test_stats_and_expansion(self):
        d = self.driver()
        volume = d.create(self.name())
        d.stage(volume)
        path = d.publish(volume, "a")
        stats = d.call("Node/NodeGetVolumeStats", {"volume_id": volume["volume_id"], "volume_path": path})
        self.assertFalse(stats["volume_condition"]["abnormal"])
        self.assertEqual([u["unit"] for u in stats["usage"]], [1, 2])
        self.assertEqual(stats["usage"][0]["total"], 1 << 30)
        for path_of_it in path, d.staging(volume):
            d.call("Node/NodeExpandVolume", {"volume_id": volume["volume_id"], "volume_path": path_of_it, "capacity_range": {"required_bytes": 2 << 30}})
        self.assertEqual(os.statvfs(path).f_blocks * os.statvfs(path).f_frsize, 2 << 30)
        d.call("Node/NodeGetVolumeStats", {"volume_id": volume["volume_id"], "volume_path": d.directory}, NOT_FOUND)

    def test_the_size_is_a_limit(self):
        d = self.driver()
        volume = d.create(self.name(), size=1 << 20)
        d.stage(volume)
        path = d.publish(volume, "a")

        def fill(size):
            with open(path + "/file", "wb") as f:
                return f.write(b"x" * size)

        with self.assertRaises(OSError) as raised:
            fill((1 << 20) + 1)
        self.assertEqual(raised.exception.errno, errno.EDQUOT)
        d.call("Controller/ControllerExpandVolume", {"volume_id": volume["volume_id"], "secrets": d.secrets, "capacity_range": {"required_bytes": 3 << 20}})
        d.unpublish(volume, "a")
        d.unstage(volume)  # the new size is found at the next Stage, too
        d.stage(volume)
        d.publish(volume, "a")
        self.assertEqual(fill((1 << 20) + 1), (1 << 20) + 1)

    def test_inline_volume(self):
        d = self.driver()
        volume = {"volume_id": "csi-" + "0" * 60, "volume_context": {
            "csi.storage.k8s.io/ephemeral": "true", "csi.storage.k8s.io/pod.name": "p", "bucket": "bucket",
            "prefix": self.name(), "endpoint": self.gateway.endpoint}}
        request = d.publish_request(volume, "inline")
        del request["staging_target_path"]
        # Without keys of its own it does not get those of somebody else.
        self.assertNotEqual(d.answer("Node/NodePublishVolume", request)["code"], OK)
        self.assertEqual((d.mounts(), d.daemons()), ([], {}))
        d.call("Node/NodePublishVolume", dict(request, secrets=d.secrets))
        with open(d.target("inline") + "/file", "w") as f:
            f.write("kept")
        d.unpublish(volume, "inline")
        self.assertEqual(self.gateway.get("bucket", self.name() + "/file"), b"kept")
        self.assertEqual((d.mounts(), d.daemons()), ([], {}))
        self.assertEqual(os.listdir(d.state + "/volumes"), [])

    def test_secrets_are_seen_nowhere(self):
        d = self.driver("--log-level", "debug")
        volume = d.create(self.name())
        d.stage(volume)
        self.assertEqual(len(d.daemons()), 1)
        for words in d.daemons().values():
            self.assertNotIn(self.gateway.secret, " ".join(words))
        d.unstage(volume)
        for folder, _, files in os.walk(d.directory):
            for path in (os.path.join(folder, file) for file in files):
                if stat.S_ISREG(os.lstat(path).st_mode):
                    with open(path, "rb") as f:
                        self.assertNotIn(self.gateway.secret.encode(), f.read(), path)


class Failures(Base):
    def test_mounts_outlive_a_killed_driver(self):
        d = self.driver()
        volume = d.create(self.name())
        d.stage(volume)
        path = d.publish(volume, "a")
        with open(path + "/log", "w") as f:
            f.write("before\n")
            f.flush()
            d.stop(signal.SIGKILL)
            f.write("between\n")
            f.flush()
            os.fsync(f.fileno())
            for record in os.listdir(d.state + "/volumes"):
                os.unlink("%s/volumes/%s/volume.json" % (d.state, record))  # made again from what runs
            d.start()
            f.write("after\n")
        daemons = d.daemons()
        self.assertEqual(len(daemons), 1)
        self.assertEqual(len([r for r in os.listdir(d.state + "/volumes") if os.path.exists("%s/volumes/%s/volume.json" % (d.state, r))]), 1)
        d.stage(volume)
        d.publish(volume, "a")
        d.publish(volume, "b")
        self.assertEqual(d.daemons(), daemons)
        with open(d.target("b") + "/log") as f:
            self.assertEqual(f.read(), "before\nbetween\nafter\n")
        d.unpublish(volume, "a")
        d.unstage(volume, code=PRECONDITION)  # still published
        d.unpublish(volume, "b")
        d.unstage(volume)
        self.assertEqual((d.mounts(), d.daemons()), ([], {}))
        self.assertIn("log", self.keys(volume))

    def test_a_dead_mount_is_reported_and_cleaned(self):
        d = self.driver()
        volume = d.create(self.name())
        d.stage(volume)
        path = d.publish(volume, "a")
        with open(path + "/file", "w") as f:
            f.write("kept")
        for pid in d.daemons():
            os.kill(pid, signal.SIGKILL)
        wait_until("the daemon's end", lambda: not d.daemons())
        stats = d.call("Node/NodeGetVolumeStats", {"volume_id": volume["volume_id"], "volume_path": path})
        self.assertTrue(stats["volume_condition"]["abnormal"])
        d.publish(volume, "b", code=PRECONDITION)
        d.stop(signal.SIGKILL)
        d.start()
        self.assertEqual(d.mounts(), [])
        d.stage(volume)
        with open(d.publish(volume, "a") + "/file") as f:
            self.assertEqual(f.read(), "kept")
        for pid in d.daemons():  # and again, without a restart of the driver
            os.kill(pid, signal.SIGKILL)
        wait_until("the daemon's end", lambda: not d.daemons())
        d.unpublish(volume, "a")
        d.unstage(volume)
        self.assertEqual(d.mounts(), [])

    def go_on(self, pid):
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            pass

    def test_a_hanging_mount_holds_up_only_its_own_volume(self):
        d = self.driver()
        hanging, other = d.create(self.name() + "1"), d.create(self.name() + "2")
        d.stage(hanging)
        d.publish(hanging, "h")
        pids = list(d.daemons())
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
            self.addCleanup(self.go_on, pid)
        d.stop(signal.SIGKILL)
        d.start()
        d.stage(other)
        d.publish(other, "o")
        self.assertEqual(d.call("Node/NodeGetVolumeStats", {"volume_id": other["volume_id"], "volume_path": d.target("o")})["volume_condition"]["abnormal"], False)
        d.unpublish(other, "o")
        d.unstage(other)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)

        def gone():
            for method, request in (("NodeUnpublishVolume", {"target_path": d.target("h")}), ("NodeUnstageVolume", {"staging_target_path": d.staging(hanging)})):
                if d.answer("Node/" + method, dict(request, volume_id=hanging["volume_id"]))["code"] != OK:
                    return False
            return True

        wait_until("the volume that hung to be undone", gone)
        self.assertEqual((d.mounts(), d.daemons()), ([], {}))

    def test_what_is_not_there_is_undone_already(self):
        d = self.driver()
        unknown = {"volume_id": "never-seen"}
        d.unpublish(unknown, "nothing")
        d.unstage(unknown)
        d.delete(unknown)
        d.call("Node/NodeUnpublishVolume", {"volume_id": "x", "target_path": d.directory + "/no/parent/x"})

    def test_hostile_ids_and_paths(self):
        d = self.driver()
        volume = d.create(self.name())
        d.stage(volume)
        before = (d.mounts(), sorted(os.listdir(d.directory)))
        os.symlink(d.directory, d.directory + "/link")
        self.addCleanup(os.unlink, d.directory + "/link")
        base = d.publish_request(volume, "x")
        for path in ("relative", "/", "", "/a/../etc", "/a//b", "/a/./b", "/a/", d.directory + "/../x", "/" + "x" * 5000, "/" + "y" * 300):
            d.call("Node/NodePublishVolume", dict(base, target_path=path), INVALID)
            d.call("Node/NodeUnpublishVolume", {"volume_id": "v", "target_path": path}, INVALID)
            d.call("Node/NodeUnstageVolume", {"volume_id": "v", "staging_target_path": path}, INVALID)
        linked = d.directory + "/link/pods/x"
        d.call("Node/NodePublishVolume", dict(base, target_path=linked), PRECONDITION)
        d.call("Node/NodeUnpublishVolume", {"volume_id": "v", "target_path": linked}, PRECONDITION)
        d.call("Node/NodeUnstageVolume", {"volume_id": "v", "staging_target_path": "/proc"}, PRECONDITION)
        self.assertTrue(is_mounted("/proc"))
        for bad in ("", "x" * 300, "\x01", "a\nb"):
            d.call("Node/NodeStageVolume", {"volume_id": bad, "staging_target_path": d.staging(volume), "volume_capability": capability()}, INVALID)
        for bad in ("file:///etc", "s3://", "s3://b/../c", "s3://b/a b", "s3://b/x;endpoint=http://evil", "ftp://x/y", "s3://b//c", "-v"):
            answer = d.answer("Controller/CreateVolume", {
                "name": "n", "volume_capabilities": [capability()], "parameters": {"url": bad}})
            self.assertIn(answer["code"], (INVALID, DENIED), (bad, answer))
        for key, value in (("meta-dir", "/etc"), ("config", "/etc/passwd"), ("log-file", "/etc/x"), ("access-key", "x"), ("onDelete", "maybe"), ("topology", "x")):
            self.assertIn(key, d.create("n", code=INVALID, **{key: value}))
        for flag in ("meta-dir=/etc", "foreground", "allow-other", "suid", "config=/x", "-o", ""):
            d.stage(dict(volume, volume_id="other"), flags=[flag], code=INVALID)
        d.call("Controller/CreateVolume", {"name": "n", "volume_capabilities": [{"block": {}, "access_mode": {"mode": 1}}], "parameters": d.parameters}, INVALID)
        d.call("Controller/ListVolumes", {"starting_token": "nonsense"}, ABORTED)
        os.unlink(d.directory + "/link")
        self.assertEqual((d.mounts(), [f for f in sorted(os.listdir(d.directory)) if f != "pods"]), before)
        os.symlink("/", d.directory + "/link")  # for the cleanup

    def test_names_of_any_kind_become_one_directory(self):
        d = self.driver()
        for name in ("../../x", "a/b", ".hidden", "ä" * 60, "n" * 128, "x y"):
            volume = d.create(name)
            url = volume["volume_context"]["url"]
            self.assertRegex(url, r"^s3://bucket/volumes/[A-Za-z0-9_-][A-Za-z0-9._-]*$", name)
            self.assertEqual(d.create(name), volume)
            d.delete(volume)

    def test_garbage_on_the_socket(self):
        d = self.driver()
        for bytes_ in (b"\0" * 100000, os.urandom(200000), b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 1000):
            with socket.socket(socket.AF_UNIX) as s:
                s.settimeout(WAIT_S)
                s.connect(d.socket)
                try:
                    s.sendall(bytes_)
                    s.shutdown(socket.SHUT_WR)
                    while s.recv(65536):
                        pass
                except OSError:
                    pass
        # More than a message may have, and more elements than memory is given for.
        for size in (900_000, 2_000_000):
            answer = d.answer("Controller/DeleteVolume", {"volume_id": "x" * size})
            self.assertIn(answer["code"], (INVALID, 8), answer["code"])
        self.assertEqual(d.call("Identity/Probe", {}), {"ready": {"value": True}})

    def test_a_store_that_does_not_answer(self):
        d = self.driver()
        volume = d.create(self.name())
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen(100)
            stuck = dict(volume, volume_context=dict(volume["volume_context"], endpoint="http://127.0.0.1:%d" % silent.getsockname()[1]))
            client, answer = Client(d.socket, 8000), {}
            self.addCleanup(client.close)
            thread = threading.Thread(target=lambda: answer.update(client.call("Node/NodeStageVolume", {
                "volume_id": stuck["volume_id"], "staging_target_path": d.staging(stuck), "volume_capability": capability(),
                "secrets": d.secrets, "volume_context": stuck["volume_context"]})))
            thread.start()
            seen = []
            wait_until("a second call to be refused, or the first to end", lambda: seen.append(d.answer(
                "Node/NodeUnpublishVolume", {"volume_id": stuck["volume_id"], "target_path": d.target("x")})["code"]) or ABORTED in seen or not thread.is_alive())
            self.assertIn(ABORTED, seen)
            thread.join(WAIT_S)
            self.assertEqual(answer["code"], DEADLINE)
        wait_until("nothing to be left", lambda: not d.mounts() and not d.daemons())

        def stage():
            return d.answer("Node/NodeStageVolume", {
                "volume_id": volume["volume_id"], "staging_target_path": d.staging(volume), "volume_capability": capability(),
                "secrets": d.secrets, "volume_context": volume["volume_context"]})["code"] == OK

        wait_until("the same volume to come up", stage)

    def test_wrong_keys_and_missing_buckets(self):
        d = self.driver()
        d.secrets = dict(d.secrets, **{"secret-key": "wrong"})
        d.create(self.name(), code=DENIED)
        d.secrets["secret-key"] = self.gateway.secret
        self.assertIn("ucket", d.create(self.name(), code=NOT_FOUND, bucket="no-such-bucket"))

    def test_concurrent_publishes_leave_nothing(self):
        d = self.driver()
        volumes = [d.create(self.name() + str(i)) for i in range(3)]
        for volume in volumes:
            d.stage(volume)
        fds = "/proc/%d/fd" % d.process.pid
        clients = [Client(d.socket) for _ in range(20)]
        for client in clients:
            client.call("Identity/Probe", {})
        before = len(os.listdir(fds))
        problems = []

        def until_done(client, method, request):
            while True:
                answer = client.call(method, request)
                if answer["code"] == OK:
                    return
                if answer["code"] != ABORTED:
                    problems.append(answer)
                    return

        def work(i, client):
            volume = volumes[i % len(volumes)]
            for turn in range(3):
                request = d.publish_request(volume, "pod%d" % i)
                until_done(client, "Node/NodePublishVolume", request)
                if not is_mounted(request["target_path"]):
                    problems.append("not mounted")
                until_done(client, "Node/NodeUnpublishVolume", {"volume_id": volume["volume_id"], "target_path": request["target_path"]})

        threads = [threading.Thread(target=work, args=a) for a in enumerate(clients)]
        for t in threads:
            t.start()
        for t in threads:
            t.join(WAIT_S * 2)
        self.assertEqual(problems, [])
        wait_until("descriptors to be as before", lambda: len(os.listdir(fds)) <= before)
        for client in clients:
            client.close()
        self.assertEqual(sorted(d.mounts()), sorted(d.staging(v) for v in volumes))
        self.assertEqual(os.listdir(d.directory + "/pods"), [])
        for volume in volumes:
            d.unstage(volume)
        self.assertEqual((d.mounts(), d.daemons()), ([], {}))


if __name__ == "__main__":
    unittest.main()
