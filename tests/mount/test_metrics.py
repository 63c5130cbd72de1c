"""The metrics endpoint of a mount: its text, the probes, and that alert rules and dashboard name only what a mount has."""

import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from volume import ROOT, Volume, binary, wait_until

MONITORING = os.path.join(ROOT, "deploy", "monitoring")
SAMPLE = re.compile(r'^([a-z_:][a-z0-9_:]*)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\.)*",?)*)\})? (-?[0-9.]+(?:e[+-]?[0-9]+)?|\+Inf|NaN)$')
NAME = re.compile(r"\b((?:sluice|process)_[a-z0-9_]+)\b")


def get(port, path, method="GET"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request(method, path)
        reply = connection.getresponse()
        return reply.status, reply.read().decode()
    finally:
        connection.close()


def port_of(v):
    return port_in(v.log)


def port_in(log):
    found = []

    def said():
        if os.path.exists(log):
            with open(log) as f:
                found[:] = re.findall(r"metrics served address=\S+ port=(\d+)", f.read())
        return found

    wait_until("the address of the metrics", said)
    return int(found[-1])


def families(text):
    """name: (type, [(sample name, labels, value)]); fails on what is not the format."""
    found = {}
    current = None
    for line in text.splitlines():
        if line.startswith("# HELP "):
            current = line.split(" ", 3)[2]
            assert current not in found, current + " comes twice"
            assert len(line.split(" ", 3)[3]) > 10, line
            found[current] = [None, []]
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name == current and kind in ("counter", "gauge", "histogram"), line
            found[name][0] = kind
        else:
            sample = SAMPLE.match(line)
            assert sample, line
            base = sample[1]
            if found[current][0] == "histogram":
                base = re.sub(r"_(bucket|sum|count)$", "", base)
            assert base == current, line
            found[current][1].append((sample[1], sample[2] or "", float(sample[3])))
    return found


class Metrics(unittest.TestCase):
    def mounted(self, *options):
        v = Volume(options=("--metrics-address", "127.0.0.1:0", "--cache-size", "64M", *options))
        self.addCleanup(v.close)
        return v.mount()

    def test_text_and_probes(self):
        v = self.mounted("--backup-interval", "1s")
        port = port_of(v)
        v.write("a", b"x" * 100_000)
        v.settle()
        wait_until("a backup", lambda: "sluice_backups_total{result=\"complete\"} 0" not in get(port, "/metrics")[1])
        status, text = get(port, "/metrics")
        self.assertEqual(status, 200)
        found = families(text)
        for name, (kind, samples) in found.items():
            self.assertTrue(samples, name)
            self.assertEqual(name.endswith("_total"), kind == "counter", name)
            if kind == "histogram":
                self.assertTrue(name.endswith("_seconds"), name)
        value = lambda name: sum(v for _, _, v in found[name][1])
        self.assertEqual(value("sluice_volume_bytes"), 100_000)
        self.assertEqual(value("sluice_volume_files"), 1)
        self.assertEqual(value("sluice_mount_ready"), 1)
        self.assertGreater(value("process_resident_memory_bytes"), 1 << 20)
        writes = [v for name, labels, v in found["sluice_fs_request_seconds"][1] if name.endswith("_count") and 'op="write"' in labels]
        self.assertGreaterEqual(sum(writes), 1)
        for path, want in (("/healthz", 200), ("/readyz", 200), ("/", 404)):
            self.assertEqual(get(port, path)[0], want, path)
        if shutil.which("promtool"):
            done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=120)
            self.assertEqual((done.returncode, done.stdout + done.stderr), (0, ""))
        self.rules_and_dashboard(found)
        v.unmount()

    def rules_and_dashboard(self, found):
        """Every name in the rules and the dashboard is one that this mount has. What belongs to S3 alone is not there with file://."""
        names = set(found)
        for name, (kind, _) in found.items():
            if kind == "histogram":
                names |= {name + "_bucket", name + "_sum", name + "_count"}
        with open(os.path.join(MONITORING, "alerts.yml")) as f:
            rules = f.read()
        used = {n for line in rules.splitlines() if line.strip().startswith("expr:") for n in NAME.findall(line)}
        with open(os.path.join(MONITORING, "grafana-dashboard.json")) as f:
            dashboard = json.load(f)
        for panel in dashboard["panels"]:
            for target in panel["targets"]:
                used |= set(NAME.findall(target["expr"]))
        self.assertGreater(len(used), 15)
        self.assertEqual({n for n in used - names if not n.startswith("sluice_csi_")}, set())  # those: tests/integration/test_csi_metrics.py
        alerts = re.findall(r"alert: (\w+)", rules)
        with open(os.path.join(ROOT, "docs", "runbook.md")) as f:
            self.assertEqual(re.findall(r"^## (\w+)$", f.read(), re.M), alerts)
        self.assertEqual(re.findall(r"runbook.md#(\w+)", rules), [a.lower() for a in alerts])

    @unittest.skipUnless(shutil.which("promtool"), "promtool is not there")
    def test_rules(self):
        for command in (["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"], ["check", "config", "prometheus.yml"]):
            done = subprocess.run(["promtool", *command], cwd=MONITORING, capture_output=True, text=True, timeout=120)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    @unittest.skipUnless(shutil.which("promtool"), "promtool is not there")
    def test_scrape_configuration_for_kubernetes(self):
        """Distributions build Prometheus without its discovery: that part is left out. tests/k8s runs the rest on a real node."""
        with open(os.path.join(MONITORING, "prometheus-kubernetes.yml")) as f, tempfile.TemporaryDirectory() as d:
            text = re.sub(r"  kubernetes_sd_configs:\n.*?(?=  relabel_configs)", "  static_configs: [{targets: [a]}]\n", f.read(), flags=re.S)
            path = os.path.join(d, "prometheus.yml")
            with open(path, "w") as out:
                out.write(text.replace("alerts.yml", os.path.join(MONITORING, "alerts.yml")))
            done = subprocess.run(["promtool", "check", "config", path], capture_output=True, text=True, timeout=120)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_bad_address(self):
        with Volume() as v:
            v.unmount()
            for address in ("nowhere", "localhost:1", "127.0.0.1:99999"):
                code, said = v.mount_fails("--metrics-address", address)
                self.assertEqual(code, 1)
                self.assertIn("--metrics-address", said)

    def test_of_the_service(self):
        with tempfile.TemporaryDirectory() as d:
            log = os.path.join(d, "log")
            with open(os.path.join(d, "output"), "wb") as out:
                service = subprocess.Popen([binary(), "serve", "--listen", "tcp://127.0.0.1:0", "--data-dir", os.path.join(d, "data"),
                                            "--log-file", log, "--metrics-address", "127.0.0.1:0"], stdout=out, stderr=out)
            try:
                port = port_in(log)
                self.assertTrue(families(get(port, "/metrics")[1]))
                self.assertEqual(get(port, "/readyz")[0], 200)
            finally:
                service.terminate()
                self.assertEqual(service.wait(timeout=120), 0)

    @unittest.skipUnless(shutil.which("systemd-analyze"), "systemd-analyze is not there")
    def test_units(self):
        with tempfile.TemporaryDirectory() as d:
            for name, source in (("sluice@data.service", "sluice@.service"), ("sluice-serve.service", "sluice-serve.service")):
                unit = os.path.join(d, name)
                shutil.copy(os.path.join(ROOT, "deploy", "systemd", source), unit)
                done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, timeout=120)
                lines = [line for line in (done.stdout + done.stderr).splitlines() if name in line]
                self.assertEqual(lines, [])


if __name__ == "__main__":
    unittest.main()
