"""Mounts that do not come up: who refused is said at once, what is waited for too, and nothing is left behind."""

import os
import select
import signal
import socket
import subprocess
import sys
import threading
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from gateway import Gateway, free_port  # noqa: E402
from volume import WAIT_S, Volume, binary, is_mounted  # noqa: E402


WEB_PAGE = b"HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>"


class Silent:
    """Takes connections and says `answer` to each request; b"": nothing."""

    def __init__(self, answer=b""):
        self.answer, self.open = answer, []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.endpoint = "http://127.0.0.1:%d" % self.socket.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        try:
            while True:
                connection, _ = self.socket.accept()
                self.open.append(connection)
                if self.answer and connection.recv(65536):
                    connection.sendall(self.answer)
                    connection.close()
        except OSError:
            return

    def close(self):
        for one in (self.socket, *self.open):
            one.close()


class Refused(unittest.TestCase):
    def setUp(self):
        self.v = Volume()
        self.addCleanup(self.v.close)
        self.state = os.path.join(self.v.directory, "state")
        self.meta = os.path.join(self.state, "deep", "meta")

    def command(self, url, *options):
        return [binary(), "mount", url, self.v.mountpoint, "--meta-dir", self.meta, *options]

    def refused(self, words, url, *options, env=None, prefix=()):
        """Ends with 1 and one line that has the words; nothing is left of it."""
        for place in ("absent", "empty"):
            if place == "empty":
                os.makedirs(self.meta)
            done = subprocess.run([*prefix, *self.command(url, *options)], env=env or self.v.env, stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=WAIT_S)
            self.assertEqual((done.returncode, len(done.stdout.splitlines())), (1, 1), done.stdout)
            for word in words:
                self.assertIn(word, done.stdout)
            self.assertFalse(is_mounted(self.v.mountpoint))
            if place == "absent":
                self.assertFalse(os.path.exists(self.state), self.left())
            else:
                self.assertEqual(self.left(), [])
                os.removedirs(self.meta)

    def left(self):
        return [os.path.join(at, name) for at, dirs, files in os.walk(self.meta) for name in dirs + files]


class ByTheStore(Refused):
    @classmethod
    def setUpClass(cls):
        cls.gateway = cls.enterClassContext(Gateway())
        cls.gateway.make_bucket("bucket")

    def test_keys_that_are_wrong(self):
        env = self.gateway.env()
        for name, word in (("AWS_SECRET_ACCESS_KEY", "secret key"), ("AWS_ACCESS_KEY_ID", "access key")):
            for options in ((), ("--read-only",), ("--foreground", "--log-file", "/dev/null"),
                            ("--read-only", "--foreground", "--log-file", "/dev/null")):
                self.refused(("s3://bucket cannot be used", word), "s3://bucket/p", *options, env=dict(env, **{name: "wrongwrongwrong"}))

    def test_bucket_that_is_not_there(self):
        for options in ((), ("--read-only",)):
            self.refused(("NoSuchBucket", "make the bucket"), "s3://no-such-bucket/p", *options, env=self.gateway.env())
            self.refused(("No such file",), "file://%s/no/such" % self.v.directory, *options)

    def test_read_only_mount_of_an_empty_prefix(self):
        v = Volume(gateway=self.gateway, prefix="nothing/here/", options=["--read-only"])
        with v:
            self.assertEqual(os.listdir(v.mountpoint), [])


class ByThisHost(Refused):
    def test_without_fuse(self):
        """Found out last, when the database, the cache and the staging directory are there."""
        no_fuse = ("unshare", "--mount", "sh", "-c", 'mount --bind /dev/null /dev/fuse && exec "$@"', "sh")
        url = "file://" + self.v.bucket
        self.refused(("fuse",), url, prefix=no_fuse)
        self.refused(("fuse",), url, "--cache-size", "100M", prefix=no_fuse)

    def test_what_was_there_stays(self):
        os.makedirs(self.meta)
        with open(os.path.join(self.meta, "log"), "w") as f:
            f.write("mine\n")
        done = subprocess.run(self.command("s3://bucket", "--endpoint", "http://127.0.0.1:%d" % free_port(), "--deadline", "1s",
                                           "--access-key", "a", "--secret-key", "b"),
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=WAIT_S)
        self.assertEqual(done.returncode, 1, done.stderr)
        with open(os.path.join(self.meta, "log")) as f:
            self.assertTrue(f.read().startswith("mine\n"))


class Waiting(Refused):
    def endpoint(self, endpoint, *options):
        return self.command("s3://bucket", "--endpoint", endpoint, "--access-key", "a", "--secret-key", "b", *options)

    def starts(self, command):
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.wait, WAIT_S)
        self.addCleanup(process.kill)
        return process

    def line(self, process):
        self.assertTrue(select.select([process.stderr], [], [], WAIT_S)[0], "it says nothing")
        return process.stderr.readline().decode()

    def test_says_what_it_waits_for_once(self):
        silent, other = Silent(), Silent(WEB_PAGE)
        self.addCleanup(silent.close)
        self.addCleanup(other.close)
        nothing = "http://127.0.0.1:%d" % free_port()
        for endpoint, word, *options in ((nothing, "127.0.0.1"), (nothing, "127.0.0.1", "--read-only"),
                                         ("http://no-such-host.invalid", "no-such-host.invalid"), (silent.endpoint, "no answer"),
                                         (other.endpoint, "is the endpoint an S3 server?", "--foreground", "--log-file", "/dev/null")):
            process = self.starts(self.endpoint(endpoint, "--deadline", "9s", *options))
            line = self.line(process)
            self.assertIn("sluice mount: still trying s3://bucket at %s: " % endpoint, line)
            self.assertIn(word, line)
            self.assertIn("(9 s at most)", line)
            self.assertNotIn(".sluice/probe", line)
            rest = process.stderr.read().decode()
            self.assertEqual((process.wait(WAIT_S), len(rest.splitlines())), (1, 1), rest)
            self.assertFalse(os.path.exists(self.state), self.left())

    def test_endpoint_that_comes_late(self):
        gateway = Gateway()
        self.addCleanup(gateway.close)
        gateway.start()
        gateway.make_bucket("bucket")
        gateway.stop()
        process = self.starts(self.endpoint(gateway.endpoint)[:-4] + ["--access-key", gateway.access, "--secret-key", gateway.secret])
        self.assertIn("still trying", self.line(process))
        gateway.start()
        self.assertEqual((process.stderr.read(), process.wait(WAIT_S)), (b"", 0))
        self.assertTrue(is_mounted(self.v.mountpoint))
        subprocess.run([binary(), "umount", self.v.mountpoint], check=True, timeout=WAIT_S)

    def test_ctrl_c_ends_it_in_the_background_too(self):
        silent = Silent()
        self.addCleanup(silent.close)
        for options in ((), ("--foreground", "--log-file", "/dev/null"), ("--read-only",)):
            for number in (signal.SIGINT, signal.SIGTERM):
                process = self.starts(self.endpoint(silent.endpoint, "--deadline", "1h", *options))
                self.line(process)
                process.send_signal(number)
                rest = process.stderr.read().decode()  # until the daemon has gone, too
                self.assertEqual((process.wait(WAIT_S), len(rest.splitlines())), (1, 1), rest)
                self.assertIn("stopped", rest)
                self.assertFalse(os.path.exists(self.state), self.left())


if __name__ == "__main__":
    unittest.main()
