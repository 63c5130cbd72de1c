"""Certificates for tests, made by the openssl program.

    certs = Certs(directory)
    certs.make("server", names="DNS:localhost,IP:127.0.0.1")   # server.pem, server.key, by the CA ca.pem
    certs.make("old", days=-1)                                 # has expired
"""

import os
import subprocess

from volume import WAIT_S


class Certs:
    def __init__(self, directory, ca="ca"):
        self.directory = directory
        self.ca = ca
        os.makedirs(directory, exist_ok=True)
        self.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "10",
                     "-subj", "/CN=test " + ca, "-keyout", ca + ".key", "-out", ca + ".pem")

    def openssl(self, *arguments):
        done = subprocess.run(["openssl", *arguments], cwd=self.directory, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=WAIT_S, text=True)
        if done.returncode:
            raise AssertionError("openssl %s: %s" % (" ".join(arguments), done.stdout))

    def path(self, name):
        return os.path.join(self.directory, name)

    def make(self, name, names="DNS:localhost,IP:127.0.0.1", days=10, common_name=None):
        """name.pem and name.key, both replaced at once as a running service would see it: the key first."""
        with open(self.path("extensions"), "w") as f:
            f.write("subjectAltName=%s\n" % names)
        self.openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
                     "/CN=" + (common_name or name), "-keyout", name + ".key.new", "-out", name + ".csr")
        self.openssl("x509", "-req", "-in", name + ".csr", "-CA", self.ca + ".pem", "-CAkey", self.ca + ".key",
                     "-CAcreateserial", "-days", str(days), "-extfile", "extensions", "-out", name + ".pem.new")
        os.rename(self.path(name + ".key.new"), self.path(name + ".key"))
        os.rename(self.path(name + ".pem.new"), self.path(name + ".pem"))

    def client(self, name=None):
        """Options of `sluice mount`: trust the CA, and show the certificate `name`."""
        options = ["--tls-ca", self.path(self.ca + ".pem")]
        if name:
            options += ["--tls-cert", self.path(name + ".pem"), "--tls-key", self.path(name + ".key")]
        return options

    def server(self, name="server"):
        """Options of `sluice serve`."""
        return ["--tls-cert", self.path(name + ".pem"), "--tls-key", self.path(name + ".key")]
