"""Sockets that the service was started with (systemd's way: LISTEN_PID, LISTEN_FDS, descriptors from 3 on)."""

import os
import socket
import subprocess
import sys
import threading
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from service import Service, ServiceVolume
from volume import WAIT_S, binary, wait_until


class HeldSockets(Service):
    """A service whose sockets stay when it ends, as systemd's do."""

    def __init__(self, **rest):
        super().__init__(**rest)
        self.path = os.path.join(self.directory, "socket")
        self.sockets = [socket.create_server(("127.0.0.1", 0)), socket.create_server(self.path, family=socket.AF_UNIX)]
        self.port = self.sockets[0].getsockname()[1]

    def start(self):
        with open(os.path.join(self.directory, "output"), "wb") as output:
            self.process = start_with(self.sockets, [binary(), "serve", "--data-dir", self.data, "--log-file", self.log, *self.options],
                                      env=self.env, stdout=output, stderr=output)
        wait_until("the service", lambda: self.output().count("listening on ") >= len(self.sockets))
        return self

    def close(self):
        super().close()
        for s in self.sockets:
            s.close()


def start_with(sockets, command, count=None, **rest):
    descriptors = [s.fileno() for s in sockets]
    # First out of the way, then to their places.
    moves = ["exec %d<&%d" % (100 + i, fd) for i, fd in enumerate(descriptors)] + ["exec %d<&%d" % (3 + i, 100 + i) for i in range(len(sockets))]
    moves.append('LISTEN_PID=$$ LISTEN_FDS=%s exec "$@"' % (len(sockets) if count is None else count))
    return subprocess.Popen(["bash", "-c", "\n".join(moves), "bash", *command], stdin=subprocess.DEVNULL, pass_fds=descriptors, **rest)


class OverUnix(ServiceVolume):
    def command(self, *extra):
        words = super().command(*extra)
        words[2] = "sluice+unix://%s:%s" % (self.service.path, self.name)
        return words


class Inherited(unittest.TestCase):
    def test_tcp_and_unix_serve_and_clients_wait_for_a_restart(self):
        with HeldSockets() as s:
            self.assertIn("listening on unix://" + s.path, s.output())
            self.assertIn("listening on tcp://127.0.0.1:%d" % s.port, s.output())
            bucket = os.path.join(s.directory, "bucket")
            s.volume("create", "v", "file://" + bucket)
            with ServiceVolume(service=s, name="v", bucket=bucket) as a, OverUnix(service=s, name="v", bucket=bucket) as b:
                a.write("f", b"1")
                self.assertEqual(b.read("f"), b"1")
                s.kill()
                # Nobody serves, and nobody is refused: the connection waits in the socket.
                waiting = socket.create_connection(("127.0.0.1", s.port), timeout=WAIT_S)
                writer = threading.Thread(target=a.write, args=("g", b"2"))
                writer.start()
                s.start()
                writer.join(WAIT_S)
                self.assertFalse(writer.is_alive())
                self.assertEqual(b.read("g"), b"2")
                waiting.close()
            s.stop()
            self.assertTrue(os.path.exists(s.path), "it took away a socket file that is not its own")

    def test_others_and_wrong_ones(self):
        s = Service()
        self.addCleanup(s.close)
        command = [binary(), "serve", "--data-dir", s.data, "--listen", "tcp://127.0.0.1:0"]
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        deaf = socket.socket()
        self.addCleanup(udp.close)
        self.addCleanup(deaf.close)
        for sockets, count, word in (([udp], None, "no stream socket"), ([deaf], None, "no stream socket"), ([], "many", "LISTEN_FDS=many"),
                                     ([], "0", "LISTEN_FDS=0"), ([], "1000000", "LISTEN_FDS=1000000")):
            with self.subTest(count=count, word=word):
                done = start_with(sockets, command, count, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
                self.assertIn(word, done.communicate(timeout=WAIT_S)[0])
                self.assertEqual(done.returncode, 1)
        # Meant for another process: not looked at.
        s.env.update(LISTEN_PID="1", LISTEN_FDS="many")
        s.start()
        s.stop()


if __name__ == "__main__":
    unittest.main()
