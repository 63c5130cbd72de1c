"""Records what programs on four mounts of one volume see while hosts and connections fail, and has it checked.

A history is good if there is one order of all operations, each between its call and its return, that a single machine could have
answered in. The checker is tests/linear/checker, on porcupine. What is checked together is a group: two directories with a few names
that all clients fight for. Each group is used for GROUP_MS, so what a fault leaves open touches few operations.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
from service import Service, ServiceVolume
from volume import ROOT, WAIT_S, is_mounted, wait_until
from wire_proxy import WireProxy

MOUNTS = 4
THREADS = 2
GROUP_MS = 500
LEASE_S = 3


def checker():
    path = os.environ.get("SLUICE_LINEAR_CHECK") or os.path.join(ROOT, "deps", "bin", "linear_check")
    if not os.path.exists(path):
        raise AssertionError("%s is not there: run ./setup --tests" % path)
    return path


def check(*files, html=None):
    """(whether it is linearizable, what the checker said). Neither: AssertionError."""
    command = [checker(), "-timeout", "60s", *(["-html", html] if html else []), *files]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=1800, check=False)
    if done.returncode not in (0, 1):
        raise AssertionError("the checker ended with %d: %s" % (done.returncode, done.stdout))
    return done.returncode == 0, done.stdout.strip()


class Mount(ServiceVolume):
    """A mount whose connection goes through a proxy of its own."""

    def __init__(self, service, bucket, lie=False):
        super().__init__(service=service, bucket=bucket)
        self.proxy = WireProxy(service.port, lie=lie)

    def command(self, *extra):
        return [word.replace(":%d/" % self.service.port, ":%d/" % self.proxy.port) if word.startswith("sluice://") else word
                for word in super().command(*extra)]

    def again(self):
        """A new client in place of one that is lost."""
        self.kill()
        self.mount()

    def close(self):
        try:
            super().close()
        finally:
            self.proxy.close()


class Cluster:
    """A service and its mounts. `liar`: the number of a mount that keeps what it was told to drop."""

    def __init__(self, liar=None):
        self.directory = tempfile.mkdtemp(prefix="sluice-linear.")
        self.mounts, self.workers = [], []
        self.service = Service(options=["--lease", "%ds" % LEASE_S])
        try:
            self.service.start()
            bucket = os.path.join(self.directory, "bucket")
            os.mkdir(bucket)
            self.service.volume("create", "v", "file://" + bucket, "settle-delay=200ms", "gc-delay=500ms")
            for i in range(MOUNTS):
                self.mounts.append(Mount(self.service, bucket, lie=i == liar))
                self.mounts[-1].mount()
        except BaseException:
            self.close()
            raise

    def close(self):
        for worker in self.workers:
            if worker.poll() is None:
                worker.kill()
        for mount in self.mounts:
            if mount.process and mount.process.poll() is None:
                mount.process.send_signal(signal.SIGCONT)
            mount.proxy.let_go()
            mount.close()
        for worker in self.workers:
            worker.wait(timeout=WAIT_S)
        self.service.close()
        subprocess.run(["rm", "-rf", self.directory], check=False)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def sessions(self):
        """Texts of those that are there."""
        text = self.service.admin("status")
        return text.count('"session":')

    def start(self, seed, groups):
        for group in range(groups):
            for d in "xy":
                os.makedirs(self.mounts[0].path("g%d" % group, d))
            self.mounts[0].write("g%d/lock" % group, b"")
        self.files = [os.path.join(self.directory, "history.%d" % i) for i in range(MOUNTS)]
        start_ns = time.monotonic_ns() + 200000000
        for i, mount in enumerate(self.mounts):
            # A process of its own for each: none has inherited an open file of a mount that waits.
            self.workers.append(subprocess.Popen(
                [sys.executable, os.path.join(HERE, "worker.py"), mount.mountpoint, str(i * THREADS), str(THREADS), str(seed), str(start_ns),
                 str(GROUP_MS), str(groups), self.files[i]], stdin=subprocess.DEVNULL, close_fds=True))

    def running(self):
        return any(worker.poll() is None for worker in self.workers)

    def wait(self):
        for worker in self.workers:
            if worker.wait(timeout=WAIT_S) != 0:
                raise AssertionError("a worker ended with %d" % worker.returncode)

    # Faults. Each ends with four mounts that work.

    def kill_service(self, pause):
        self.service.kill()
        time.sleep(pause.random() * 0.5)
        self.service.start()

    def kill_client(self, pause):
        self.mounts[pause.randrange(MOUNTS)].again()

    def freeze_client(self, pause):
        """Past its lease: it is out when it wakes up."""
        mount = self.mounts[pause.randrange(MOUNTS)]
        before = self.sessions()
        mount.process.send_signal(signal.SIGSTOP)
        try:
            wait_until("the lease to end", lambda: self.sessions() < before)
            time.sleep(pause.random() * 0.3)
        finally:
            mount.process.send_signal(signal.SIGCONT)
        time.sleep(0.5)  # programs on it see what it answers now
        mount.again()

    def freeze_shortly(self, pause):
        """Within its lease: all wait for it, and go on."""
        mount = self.mounts[pause.randrange(MOUNTS)]
        mount.process.send_signal(signal.SIGSTOP)
        time.sleep(0.2 + pause.random())
        mount.process.send_signal(signal.SIGCONT)

    def cut(self, pause):
        for mount in pause.sample(self.mounts, 2):
            mount.proxy.cut()

    def partition_shortly(self, pause):
        """One way or both, within the lease."""
        proxy = pause.choice(self.mounts).proxy
        proxy.hold(pause.choice(("to_service", "to_client", "both")))
        time.sleep(0.2 + pause.random())
        proxy.let_go()

    def partition(self, pause):
        """Until the service has given the client up."""
        mount = self.mounts[pause.randrange(MOUNTS)]
        before = self.sessions()
        mount.proxy.hold(pause.choice(("to_service", "both")))
        try:
            wait_until("the lease to end", lambda: self.sessions() < before)
        finally:
            mount.proxy.let_go()
        time.sleep(0.5)
        mount.again()


FAULTS = {
    "kill-service": Cluster.kill_service,
    "kill-client": Cluster.kill_client,
    "freeze-client": Cluster.freeze_client,
    "freeze-shortly": Cluster.freeze_shortly,
    "cut": Cluster.cut,
    "partition": Cluster.partition,
    "partition-shortly": Cluster.partition_shortly,
}


def record(cluster, seed, seconds, faults, say=lambda text: None):
    """Runs clients for so long, with these faults in the seed's order; the history is in cluster.files."""
    order = random.Random(seed)
    cluster.start(seed, int(seconds * 1000 / GROUP_MS))
    names = []
    while faults and cluster.running():
        time.sleep(0.3 + order.random() * 0.5)
        if not names:
            names = order.sample(list(faults), len(faults))
        name = names.pop()
        if not cluster.running():
            break
        say(name)
        FAULTS[name](cluster, order)
    cluster.wait()
    for mount in cluster.mounts:
        if not is_mounted(mount.mountpoint):
            raise AssertionError("a mount is gone:\n" + mount.output())
