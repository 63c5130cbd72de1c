"""Hosts for tests: network namespaces, each joined to the one of the service by a pair of veth. Needs root and ip(8).

    with Hosts() as hosts:
        Service(prefix=hosts.prefix, host="0.0.0.0")     # started where all meet
        b = hosts.add()
        b.prefix                                         # before a command: it runs on that host
        b.service                                        # address of the service, as seen there
        b.cut("to_service")                              # packets that way are lost, and nobody is told ("to_client", "both")
        b.heal()
        b.move()                                         # the host has another address from now on

What is lost is sent to a hardware address that nobody has, so no firewall or packet scheduler is needed of the kernel.
"""

import shlex
import subprocess

WAIT_S = 60
NOBODY = "02:00:00:00:00:fe"


class Namespace:
    """Lasts as long as its shell, which runs the commands, too: a child of the test would close copies of its files, and wait with them."""

    def __init__(self):
        script = "echo 0; while read -r line; do eval \"$line\" </dev/null >/dev/null 2>&1; echo $?; done"
        self.process = subprocess.Popen(["unshare", "--net", "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.process.stdout.readline()
        self.prefix = ["nsenter", "--net=/proc/%d/ns/net" % self.process.pid]

    def run(self, *words):
        self.process.stdin.write(shlex.join(words) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def ip(self, *words):
        code = self.run("ip", *words)
        if code:
            raise AssertionError("ip %s ended with %d" % (" ".join(words), code))

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=WAIT_S)
        self.process.stdout.close()


class Host(Namespace):
    def __init__(self, middle, number):
        super().__init__()
        self.middle = middle
        self.near, self.far = "h%d" % number, "eth0"
        self.service, self.address = "10.9.%d.1" % number, "10.9.%d.2" % number
        self.moves = 0
        self.middle.ip("link", "add", self.near, "type", "veth", "peer", "name", self.far, "netns", str(self.process.pid))
        self.middle.ip("addr", "add", self.service + "/24", "dev", self.near)
        self.middle.ip("link", "set", self.near, "up")
        self.ip("link", "set", "lo", "up")
        self.ip("link", "set", self.far, "up")
        self.ip("addr", "add", self.address + "/24", "dev", self.far)

    def cut(self, way):
        if way in ("to_service", "both"):
            self.ip("neigh", "replace", self.service, "lladdr", NOBODY, "dev", self.far, "nud", "permanent")
        if way in ("to_client", "both"):
            self.middle.ip("neigh", "replace", self.address, "lladdr", NOBODY, "dev", self.near, "nud", "permanent")

    def heal(self):
        self.run("ip", "neigh", "del", self.service, "dev", self.far)
        self.middle.run("ip", "neigh", "del", self.address, "dev", self.near)

    def move(self):
        self.ip("addr", "del", self.address + "/24", "dev", self.far)
        self.moves += 1
        self.address = self.address.rsplit(".", 1)[0] + ".%d" % (2 + self.moves)
        self.ip("addr", "add", self.address + "/24", "dev", self.far)


class Hosts(Namespace):
    def __init__(self):
        super().__init__()
        self.hosts = []
        self.ip("link", "set", "lo", "up")

    def add(self):
        self.hosts.append(Host(self, len(self.hosts) + 1))
        return self.hosts[-1]

    def close(self):
        for host in self.hosts:
            host.close()
        super().close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
