"""A real Prometheus scrapes a mount and a service; faults make the alert rules fire, and their end makes them stop.

The rules are those of deploy/monitoring/alerts.yml with minutes and hours cut to seconds.
"""

import errno
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import unittest
import urllib.parse
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from gateway import Gateway
from service import Service
from test_metrics import MONITORING, port_of, port_in
from volume import Volume, WAIT_S, wait_until

WINDOW = "4s"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@unittest.skipUnless(shutil.which("prometheus"), "prometheus is not there")
class Prometheus(unittest.TestCase):
    def start(self, targets):
        directory = tempfile.mkdtemp(prefix="prometheus.")
        self.addCleanup(shutil.rmtree, directory, ignore_errors=True)
        with open(os.path.join(MONITORING, "alerts.yml")) as f:
            rules = f.read()
        rules = re.sub(r"\[\d+[mh]\]", "[%s]" % WINDOW, re.sub(r"for: \d+m", "for: 0s", rules))
        with open(os.path.join(directory, "alerts.yml"), "w") as f:
            f.write(rules)
        config = {"global": {"scrape_interval": "300ms", "scrape_timeout": "300ms", "evaluation_interval": "300ms"}, "rule_files": ["alerts.yml"],
                  "scrape_configs": [{"job_name": name, "static_configs": [{"targets": ["127.0.0.1:%d" % port]}]} for name, port in targets.items()]}
        path = os.path.join(directory, "prometheus.json")  # JSON is YAML
        with open(path, "w") as f:
            json.dump(config, f)
        log = open(os.path.join(directory, "log"), "wb")
        self.addCleanup(log.close)

        def begin():
            self.port = free_port()
            self.process = subprocess.Popen(
                ["prometheus", "--config.file=" + path, "--storage.tsdb.path=" + os.path.join(directory, "data"),
                 "--web.listen-address=127.0.0.1:%d" % self.port, "--log.level=warn"],
                cwd=directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

        begin()
        self.addCleanup(self.stop)

        def up():
            if self.process.poll() is not None:  # somebody was quicker with the port
                begin()
            try:
                return sorted(r["metric"]["job"] for r in self.query("up == 1")) == sorted(targets)
            except (OSError, ValueError):
                return False

        wait_until("the targets to be scraped", up)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=WAIT_S)

    def ask(self, path):
        with urllib.request.urlopen("http://127.0.0.1:%d/api/v1/%s" % (self.port, path), timeout=WAIT_S) as reply:
            answer = json.load(reply)
        self.assertEqual(answer["status"], "success")
        return answer["data"]

    def query(self, text):
        return self.ask("query?" + urllib.parse.urlencode({"query": text}))["result"]

    def firing(self):
        return {a["labels"]["alertname"] for a in self.ask("alerts")["alerts"] if a["state"] == "firing"}

    def test_alerts_fire_on_faults(self):
        gateway = Gateway()
        self.addCleanup(gateway.close)
        gateway.start()
        gateway.make_bucket("bucket")
        service = Service(options=["--metrics-address", "127.0.0.1:0"])
        self.addCleanup(service.close)
        service.start()
        v = Volume(gateway=gateway, options=("--metrics-address", "127.0.0.1:0", "--no-cache", "--staging-max", "64M", "--deadline", "1s"))
        self.addCleanup(v.close)
        v.mount()
        v.write("before", b"x" * 300_000)
        v.settle()
        self.start({"mount": port_of(v), "service": port_in(service.log)})
        self.assertEqual(self.firing(), set())
        with open(os.path.join(MONITORING, "grafana-dashboard.json")) as f:
            panels = json.load(f)["panels"]
        for expr in (t["expr"] for p in panels for t in p["targets"]):
            expr = re.sub(r"\$__(rate_)?interval", WINDOW, expr)
            self.query(re.sub(r'=~?"\$\w+"', '=~".*"', expr))
        self.assertEqual([r["value"][1] for r in self.query('sluice_mount_ready{job="mount"}')], ["1"])

        file = open(os.path.join(v.mountpoint, "large"), "wb")
        gateway.stop()

        def fill():
            """More than the staging area holds: it waits for the store, or is told that there is no room."""
            try:
                with file:
                    for _ in range(80):
                        file.write(b"y" * (1 << 20))
            except OSError as e:
                self.assertEqual(e.errno, errno.ENOSPC)

        writer = threading.Thread(target=fill)
        writer.start()
        wanted = {"SluiceFlushesFail", "SluiceStoreErrors", "SluiceStagingNearlyFull"}
        seen = set()

        def all_seen():
            seen.update(self.firing())
            return wanted <= seen

        try:
            wait_until("the alerts to fire", all_seen)
        finally:
            gateway.start()
            writer.join(WAIT_S)
        self.assertFalse(writer.is_alive())
        wait_until("the alerts to end", lambda: not self.firing())
        v.unmount()


if __name__ == "__main__":
    unittest.main()
