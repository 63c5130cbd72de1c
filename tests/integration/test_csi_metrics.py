"""Metrics of all mounts of a node, on one port of the driver."""

import http.client
import os
import re
import shutil
import signal
import subprocess
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

from csi import Driver  # noqa: E402
from gateway import Gateway  # noqa: E402
from volume import ROOT, WAIT_S, wait_until  # noqa: E402


class Metrics(unittest.TestCase):
    def setUp(self):
        self.gateway = Gateway()
        self.gateway.start()
        self.addCleanup(self.gateway.close)
        self.gateway.make_bucket("bucket")
        self.d = Driver(self.gateway, options=["--metrics-address", "127.0.0.1:0"])
        self.addCleanup(self.d.close)
        self.d.start()
        self.port = int(re.findall(r"metrics served address=\S+ port=(\d+)", self.d.text())[0])

    def scrape(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        try:
            connection.request("GET", "/metrics")
            reply = connection.getresponse()
            self.assertEqual(reply.status, 200)
            return reply.read().decode()
        finally:
            connection.close()

    def sample(self, text, name, **labels):
        """The value of the only sample with these labels, or None."""
        found = []
        for line in text.splitlines():
            if line.startswith(name + "{") and all('%s="%s"' % pair in line for pair in labels.items()):
                found.append(float(line.rsplit(" ", 1)[1]))
        self.assertLessEqual(len(found), 1, (name, labels))
        return found[0] if found else None

    def go_on(self, pid):
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            pass

    def test_mounts_of_a_node(self):
        d = self.d
        self.assertNotIn("sluice_csi_mount_up", self.scrape())
        volumes = [d.create("pvc-%d" % i) for i in range(2)]
        ids = [v["volume_id"] for v in volumes]
        for i, volume in enumerate(volumes):
            d.stage(volume)
            with open(d.publish(volume, str(i)) + "/file", "wb") as f:
                f.write(b"x" * (1000 * (i + 1)))
        text = self.scrape()
        for i, volume in enumerate(ids):
            self.assertEqual(self.sample(text, "sluice_csi_mount_up", volume=volume), 1)
            self.assertEqual(self.sample(text, "sluice_mount_ready", volume=volume), 1)
            self.assertGreater(self.sample(text, "sluice_fs_request_seconds_count", volume=volume, op="create"), 0)
        wait_until("the usage", lambda: [self.sample(self.scrape(), "sluice_volume_bytes", volume=v) for v in ids] == [1000, 2000])
        self.assertEqual(self.sample(text, "sluice_csi_calls_total", method="NodeStageVolume", code="OK"), 2)
        self.assertEqual(self.sample(text, "sluice_csi_call_seconds_count", method="NodePublishVolume"), 2)
        self.assertNotIn(self.gateway.secret, text)
        if shutil.which("promtool"):
            done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=WAIT_S)
            self.assertEqual((done.returncode, done.stdout + done.stderr), (0, ""))
        with open(os.path.join(ROOT, "deploy", "monitoring", "alerts.yml")) as f:
            self.assertLessEqual(set(re.findall(r"\bsluice_csi_\w+", f.read())), {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")})

        # One that does not answer, scrape after scrape, and one that died.
        hanging, = [p for p, words in d.daemons().items() if d.staging(volumes[0]) in words]
        os.kill(hanging, signal.SIGSTOP)
        self.addCleanup(self.go_on, hanging)
        for _ in range(2):
            text = self.scrape()
            self.assertEqual([self.sample(text, "sluice_csi_mount_up", volume=v) for v in ids], [0, 1])
            self.assertEqual([self.sample(text, "sluice_mount_ready", volume=v) for v in ids], [None, 1])
        threads = len(os.listdir("/proc/%d/task" % d.process.pid))
        for _ in range(3):
            self.scrape()  # nobody asks it again
        wait_until("the threads to be as before", lambda: len(os.listdir("/proc/%d/task" % d.process.pid)) <= threads)
        os.kill(hanging, signal.SIGCONT)
        wait_until("it to answer again", lambda: self.sample(self.scrape(), "sluice_csi_mount_up", volume=ids[0]) == 1)
        os.kill(hanging, signal.SIGKILL)
        wait_until("its end", lambda: self.sample(self.scrape(), "sluice_csi_mount_up", volume=ids[0]) == 0)
        for i, volume in enumerate(volumes):
            d.unpublish(volume, str(i))
            d.unstage(volume)
        self.assertNotIn("sluice_csi_mount_up", self.scrape())


if __name__ == "__main__":
    unittest.main()
