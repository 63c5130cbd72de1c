"""TLS between mounts and the service: both proofs, renewal while it runs, and everybody who must stay outside."""

import os
import shutil
import signal
import socket
import ssl
import struct
import sys
import tempfile
import threading
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from certs import Certs
from service import Service, ServiceVolume
from volume import WAIT_S, wait_until
from wire_proxy import WireProxy


class Tls(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix="sluice-tls.")
        self.addCleanup(shutil.rmtree, self.directory, True)
        self.certs = Certs(self.directory)
        self.certs.make("server")

    def serve(self, *options):
        service = Service(options=["--metrics-address", "127.0.0.1:0", *self.certs.server(), *options], scheme="sluices")
        self.addCleanup(service.close)
        service.start()
        self.bucket = os.path.join(self.directory, "bucket")
        service.volume("create", "v", "file://" + self.bucket)
        return service

    def volume(self, service, options):
        v = ServiceVolume(service=service, bucket=self.bucket, options=options)
        self.addCleanup(v.close)
        return v

    def refused(self, service, options, word):
        code, text = self.volume(service, options).mount_fails()
        self.assertEqual(code, 1)
        self.assertIn(word, text)
        lines = [line for line in text.splitlines() if line.startswith("sluice mount:")]
        self.assertEqual(len(lines), 1, text)

    def client_context(self, name=None):
        context = ssl.create_default_context(cafile=self.certs.path("ca.pem"))
        if name:
            context.load_cert_chain(self.certs.path(name + ".pem"), self.certs.path(name + ".key"))
        return context

    def served_certificate(self, service):
        """The serial number that the service shows to a new client."""
        with socket.create_connection(("127.0.0.1", service.port), timeout=WAIT_S) as plain:
            with self.client_context().wrap_socket(plain, server_hostname="localhost") as s:
                return s.getpeercert()["serialNumber"]


class Proofs(Tls):
    def test_mount_works_and_nothing_is_readable_between(self):
        service = self.serve()
        proxy = self.enterContext(WireProxy(service.port, keep=True))
        v = self.volume(service, self.certs.client())
        v.command = self.through(v, proxy.port)
        v.mount()
        v.write("name-to-look-for", b"content to look for")
        self.assertEqual(v.read("name-to-look-for"), b"content to look for")
        v.unmount()
        self.assertGreater(sum(len(data) for data in proxy.seen), 1000)
        self.assertNotIn(b"look", b"".join(proxy.seen))

    def through(self, v, port):
        command = v.command()
        command[2] = command[2].replace(":%d/" % v.service.port, ":%d/" % port)
        return lambda *extra: command + list(extra)

    def test_who_the_service_is(self):
        service = self.serve()
        Certs(self.directory, "other")
        self.refused(service, ["--tls-ca", self.certs.path("other.pem")], "certificate of the service is not accepted")
        self.refused(service, [*self.certs.client(), "--tls-server-name", "elsewhere.example"], "mismatch")
        self.refused(service, ["--tls-ca", self.certs.path("nothing.pem")], "nothing.pem")
        with self.volume(service, [*self.certs.client(), "--tls-server-name", "localhost"]) as v:
            v.write("f", b"x")
            self.assertEqual(v.read("f"), b"x")

    def test_who_the_client_is(self):
        self.certs.make("client", common_name="node-7")
        self.certs.make("expired", days=-1)
        service = self.serve("--tls-client-ca", self.certs.path("ca.pem"))
        other = Certs(os.path.join(self.directory, "elsewhere"))
        other.make("client")
        foreign = [*self.certs.client(), "--tls-cert", other.path("client.pem"), "--tls-key", other.path("client.key")]
        self.refused(service, self.certs.client(), "does not accept the certificate of this side")
        self.refused(service, self.certs.client("expired"), "expired")
        self.refused(service, foreign, "does not accept the certificate of this side")
        self.assertGreaterEqual(service.metric('sluice_serve_tls_failures_total{reason="certificate"}'), 3)
        with self.volume(service, self.certs.client("client")) as v:
            v.write("f", b"x")
            self.assertEqual(v.read("f"), b"x")

    def fake_service(self, context):
        """Somebody else at the address: speaks TLS, and nothing after it."""
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)

        def run():
            while True:
                try:
                    with listener.accept()[0] as plain:
                        with context.wrap_socket(plain, server_side=True) as s:
                            s.recv(100)
                except ssl.SSLError:
                    continue
                except OSError:
                    if listener.fileno() < 0:
                        return

        threading.Thread(target=run, daemon=True).start()
        return listener.getsockname()[1]

    def test_service_with_an_old_certificate_or_an_old_protocol(self):
        self.certs.make("expired", days=-1)
        for name, version, word in (("expired", ssl.TLSVersion.TLSv1_3, "certificate has expired"),
                                    ("server", ssl.TLSVersion.TLSv1_2, "does not speak TLS 1.3")):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certs.path(name + ".pem"), self.certs.path(name + ".key"))
            context.maximum_version = version
            service = Service(scheme="sluices")
            self.addCleanup(service.close)
            service.port = self.fake_service(context)
            self.bucket = self.directory
            self.refused(service, self.certs.client(), word)

    def test_service_does_not_start_with_an_expired_certificate(self):
        self.certs.make("server", days=-1)
        service = Service(options=self.certs.server())
        self.addCleanup(service.close)
        with self.assertRaisesRegex(AssertionError, "has expired"):
            service.start()

    def test_plain_and_tls_do_not_meet(self):
        service = self.serve()
        service.scheme = "sluice"
        self.refused(service, [], "speaks TLS only")
        self.assertEqual(service.metric('sluice_serve_tls_failures_total{reason="plain"}'), 1)
        plain = Service()
        self.addCleanup(plain.close)
        plain.start()
        plain.volume("create", "v", "file://" + self.bucket + ".plain")
        plain.scheme = "sluices"
        self.refused(plain, self.certs.client(), "does not speak TLS there: sluice:// is needed")
        wait_until("the reason in the log", lambda: "does not speak TLS" in plain.output())
        plain.scheme = "sluice"
        self.refused(plain, self.certs.client(), "TLS options are for sluices")


class Renewal(Tls):
    def test_new_files_are_taken_over_and_bad_ones_are_not(self):
        service = self.serve()
        v = self.volume(service, self.certs.client())
        v.mount()
        first = self.served_certificate(service)
        self.certs.make("server")
        service.process.send_signal(signal.SIGHUP)
        wait_until("the new certificate", lambda: self.served_certificate(service) != first)
        v.write("f", b"over the old connection")
        second = self.served_certificate(service)
        with open(self.certs.path("server.pem"), "w") as f:
            f.write("no certificate")
        service.process.send_signal(signal.SIGHUP)
        wait_until("the refusal", lambda: "new certificates not used" in service.output())
        self.assertEqual(self.served_certificate(service), second)
        self.certs.make("server", days=-1)
        service.process.send_signal(signal.SIGHUP)
        wait_until("the second refusal", lambda: service.metric('sluice_serve_tls_reloads_total{result="refused"}') == 2)
        self.assertEqual(self.served_certificate(service), second)
        self.assertEqual(v.read("f"), b"over the old connection")

    def test_new_files_are_seen_without_a_signal(self):
        service = self.serve()
        first = self.served_certificate(service)
        self.certs.make("server")
        wait_until("the new certificate", lambda: self.served_certificate(service) != first)

    def test_client_takes_a_new_certificate_when_it_connects_again(self):
        self.certs.make("client")
        service = self.serve("--tls-client-ca", self.certs.path("ca.pem"), "--lease", "60s")
        v = self.volume(service, self.certs.client("client"))
        v.mount()
        v.write("f", b"x")
        # Another CA for everything: what the client read at first is worth nothing now.
        self.certs = Certs(self.directory)
        self.certs.make("server")
        self.certs.make("client")
        service.kill()
        service.start()
        v.write("g", b"y")
        self.assertEqual((v.read("f"), v.read("g")), (b"x", b"y"))


class BadClients(Tls):
    def refused_count(self, service):
        return service.metric("sluice_serve_refused_total")

    def drained(self, s):
        try:
            while s.recv(65536):
                pass
        except OSError:
            pass

    def test_garbage_is_refused_and_the_others_go_on(self):
        service = self.serve()
        v = self.volume(service, self.certs.client())
        v.mount()
        address = ("127.0.0.1", service.port)
        before = self.refused_count(service)
        handshake = b"\x16\x03\x01"
        sent = [b"GET / HTTP/1.1\r\n\r\n", b"\x16" * 100, handshake + struct.pack(">H", 5) + b"\xff" * 5,
                handshake + b"\xff\xff" + b"x" * 70000, b"\xff" * 2000]
        for data in sent:
            with socket.create_connection(address, timeout=WAIT_S) as s:
                try:
                    s.sendall(data)
                except OSError:
                    pass
                self.drained(s)
        context = self.client_context()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with socket.create_connection(address, timeout=WAIT_S) as s:
            with self.assertRaises(ssl.SSLError):
                context.wrap_socket(s, server_hostname="localhost")
        self.assertEqual(service.metric('sluice_serve_tls_failures_total{reason="version"}'), 1)
        # Garbage inside of a good connection.
        with socket.create_connection(address, timeout=WAIT_S) as plain:
            with self.client_context().wrap_socket(plain, server_hostname="localhost") as s:
                s.sendall(b"\0\0\0\5garbage")
                self.assertIn(b"not what a Sluice client sends", s.recv(1000))
        self.assertGreaterEqual(self.refused_count(service), before + len(sent) + 2)
        v.write("f", b"goes on")
        self.assertEqual(v.read("f"), b"goes on")

    def test_slow_and_silent_ones_are_closed(self):
        service = self.serve()
        v = self.volume(service, self.certs.client())
        v.mount()
        address = ("127.0.0.1", service.port)
        before = self.refused_count(service)
        silent = [socket.create_connection(address, timeout=WAIT_S) for _ in range(10)]
        for s in silent[:5]:
            s.sendall(b"\x16\x03\x01\x02\x00\x01\x00")  # the first bytes of a handshake
        done = self.client_context().wrap_socket(socket.create_connection(address, timeout=WAIT_S), server_hostname="localhost")
        done.sendall(b"\0\0")  # the handshake is over, the hello never comes
        # Halves that never end: each is closed by the service, not by its own side.
        slow = socket.create_connection(address, timeout=WAIT_S)
        stop = threading.Event()

        def drip():
            try:
                while not stop.wait(0.2):
                    slow.sendall(b"\x16")
            except OSError:
                pass

        thread = threading.Thread(target=drip)
        thread.start()
        v.write("f", b"meanwhile")
        for s in silent + [done, slow]:
            self.drained(s)
        stop.set()
        thread.join()
        for s in silent + [done, slow]:
            s.close()
        self.assertGreaterEqual(self.refused_count(service), before + len(silent) + 2)
        wait_until("all to be gone", lambda: service.metric("sluice_serve_connections_pending") == 0)
        self.assertEqual(v.read("f"), b"meanwhile")

    def test_replayed_bytes_are_worth_nothing(self):
        """What was recorded of a good connection, sent again."""
        service = self.serve()
        recorder = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(recorder.close)
        context = self.client_context()
        recorded = []

        def record():
            with recorder.accept()[0] as client, socket.create_connection(("127.0.0.1", service.port)) as server:
                client.settimeout(WAIT_S)
                server.settimeout(WAIT_S)
                threading.Thread(target=back, args=(server, client), daemon=True).start()
                while True:
                    data = client.recv(65536)
                    if not data:
                        return
                    recorded.append(data)
                    server.sendall(data)

        def back(server, client):
            try:
                while True:
                    data = server.recv(65536)
                    if not data:
                        return
                    client.sendall(data)
            except OSError:
                pass

        thread = threading.Thread(target=record)
        thread.start()
        hello = b"sluice" + bytes([1, 1, 1]) + b"v" + bytes([0, 0]) + b"k" * 16 + bytes([0, 0])
        with socket.create_connection(recorder.getsockname(), timeout=WAIT_S) as plain:
            with context.wrap_socket(plain, server_hostname="localhost") as s:
                s.sendall(struct.pack(">IB", len(hello) + 1, 1) + hello)
                self.assertEqual(s.recv(5)[4], 2)
        thread.join()
        before = len(service.sessions("v"))
        self.assertGreaterEqual(before, 1)
        failures = service.metric("sluice_serve_refused_total")
        with socket.create_connection(("127.0.0.1", service.port), timeout=WAIT_S) as s:
            try:
                for data in recorded:
                    s.sendall(data)
            except OSError:
                pass
            self.drained(s)
        wait_until("the refusal", lambda: service.metric("sluice_serve_refused_total") > failures)
        self.assertLessEqual(len(service.sessions("v")), before)

    def test_address_that_fails_too_often_is_not_heard(self):
        service = self.serve()
        address = ("127.0.0.1", service.port)

        def fail():
            with socket.create_connection(address, timeout=WAIT_S) as s:
                try:
                    s.sendall(b"garbage")
                except OSError:
                    pass
                self.drained(s)

        for _ in range(100):
            fail()
        wait_until("the address to be refused", lambda: fail() or
                   service.metric('sluice_serve_gate_refused_total{reason="failures"}') > 0)
        # Not for ever.
        v = self.volume(service, self.certs.client())
        v.mount()
        v.write("f", b"x")
        self.assertEqual(v.read("f"), b"x")


if __name__ == "__main__":
    unittest.main()
