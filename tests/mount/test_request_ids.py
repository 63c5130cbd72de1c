"""One request is found in the logs of the mount and of the service, and the mount in those of the object store."""

import os
import re
import signal
import socket
import sys
import threading
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from gateway import Gateway
from service import ServiceVolume
from volume import WAIT_S, wait_until


class RequestIds(unittest.TestCase):
    def test_a_slow_request_is_in_both_logs(self):
        a = ServiceVolume(service_options=["--lease", "5s"])
        self.addCleanup(a.close)
        a.mount()
        b = ServiceVolume(service=a.service, bucket=a.bucket)
        self.addCleanup(b.close)
        b.mount()
        a.write("f", b"1")
        self.assertEqual(b.read("f"), b"1")
        # B has it in its caches and says nothing: the change waits for the end of its lease.
        b.process.send_signal(signal.SIGSTOP)
        self.addCleanup(b.process.send_signal, signal.SIGCONT)
        os.chmod(a.path("f"), 0o600)
        pattern = r" %s.*session=(\d+) request=(\d+) op=setattr ms=\d{4,} result=ok"
        logs = []
        for name, text in (("metadata request slow or failed", a.output), ("request slow or failed volume=v", a.service.output)):
            wait_until(name, lambda: re.search(pattern % name, text()))
            logs.append(re.search(pattern % name, text()).groups())
        self.assertEqual(logs[0], logs[1])

    def test_the_store_is_told_which_session_it_is(self):
        with Gateway() as gateway:
            seen, endpoint = self.relay(gateway.endpoint)
            with ServiceVolume(gateway=gateway, options=["--endpoint", endpoint]) as v:
                v.write("f", os.urandom(1 << 20))
                session = v.service.sessions("v")[0]["session"]
            self.assertIn(b"(session %d)\r\n" % session, b"".join(seen))

    def relay(self, endpoint):
        """Passes bytes on and keeps what clients sent."""
        seen = []
        target = endpoint.split("//")[1].split(":")
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)

        def copy(source, sink, keep):
            while True:
                try:
                    data = source.recv(65536)
                    if keep:
                        seen.append(data)
                    sink.sendall(data)
                except OSError:
                    data = b""
                if not data:
                    for s in (source, sink):
                        try:
                            s.shutdown(socket.SHUT_RDWR)
                        except OSError:
                            pass
                    return

        def run():
            while True:
                try:
                    client = listener.accept()[0]
                except OSError:
                    return
                server = socket.create_connection((target[0], int(target[1])), timeout=WAIT_S)
                threading.Thread(target=copy, args=(client, server, True), daemon=True).start()
                threading.Thread(target=copy, args=(server, client, False), daemon=True).start()

        threading.Thread(target=run, daemon=True).start()
        return seen, "http://127.0.0.1:%d" % listener.getsockname()[1]


if __name__ == "__main__":
    unittest.main()
