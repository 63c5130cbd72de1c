"""Tokens of a service's volumes: who may do what, and what happens when that changes while mounts live."""

import errno
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from service import Service, ServiceVolume
from volume import WAIT_S, wait_until


def hello(volume, token="", read_only=False):
    """The first frame of a client."""
    def text(value):
        data = value.encode()
        length = bytes([len(data)]) if len(data) < 128 else bytes([len(data) & 127 | 128, len(data) >> 7])
        return length + data

    body = b"sluice" + bytes([1, 1]) + text(volume) + text(token) + text("") + b"k" * 16 + bytes([0, int(read_only)])
    return struct.pack(">IB", len(body) + 1, 1) + body


def answer(address, frame):
    """Type of the service's answer, and what else it said."""
    with socket.create_connection(address, timeout=WAIT_S) as s:
        s.sendall(frame)
        data = b""
        while len(data) < 5 or len(data) < 4 + struct.unpack(">I", data[:4])[0]:
            more = s.recv(65536)
            if not more:
                break
            data += more
    return data[4], data[5:]


WELCOME, REFUSED = 2, 3


class Auth(unittest.TestCase):
    def setUp(self):
        self.service = Service(options=["--lease", "60s", "--metrics-address", "127.0.0.1:0"])
        self.addCleanup(self.service.close)
        self.service.start()
        self.bucket = os.path.join(self.service.directory, "bucket")
        self.service.volume("create", "v", "file://" + self.bucket, "settle-delay=200ms", "gc-delay=500ms")

    def token(self, *options, volume="v"):
        return self.service.volume("token", "create", volume, *options).stdout.strip()

    def revoke(self, token):
        self.service.volume("token", "revoke", "v", token.split("_")[1])

    def volume(self, token=None, file=None, options=(), directory=""):
        v = ServiceVolume(service=self.service, bucket=self.bucket, options=options, name="v" + directory,
                          env={"SLUICE_TOKEN": token} if token else None)
        if file:
            v.options += ["--token-file", file]
        self.addCleanup(v.close)
        return v

    def put_token(self, path, token):
        with open(path + ".new", "w") as f:
            f.write(token + "\n")
        os.rename(path + ".new", path)


class Rights(Auth):
    def test_without_and_with_a_wrong_token(self):
        token = self.token()
        self.service.volume("create", "w", "file://" + self.bucket + ".w")
        other = self.token(volume="w")
        wrong = token[:-1] + ("0" if token[-1] != "0" else "1")
        address = ("127.0.0.1", self.service.port)
        for bad in ("", wrong, other, "x", "x" * 256):
            kind, text = answer(address, hello("v", bad))
            self.assertEqual(kind, REFUSED, bad)
            self.assertIn(b"token", text)
        kind, text = answer(address, hello("nothing", token))
        self.assertEqual((kind, b"not one of this volume" in text), (REFUSED, True))
        self.assertEqual(answer(address, hello("v", token))[0], WELCOME)
        self.assertGreaterEqual(self.service.metric("sluice_serve_denied_total"), 6)
        code, text = self.volume().mount_fails()
        self.assertEqual((code, "a token is needed" in text), (1, True))
        code, text = self.volume(token=wrong).mount_fails()
        self.assertEqual((code, "not one of this volume" in text), (1, True))
        v = self.volume(token=token)
        v.mount()
        v.write("f", b"x")
        self.assertEqual(v.read("f"), b"x")
        # It is nowhere in the clear but in the hands of the client.
        places = [self.service.output(whole=True), v.output()]
        for path in (os.path.join(self.service.data, "v", "tokens.json"), "/proc/%d/cmdline" % v.process.pid):
            with open(path) as f:
                places.append(f.read())
        for place in places:
            self.assertNotIn(token.rsplit("_", 1)[1], place)

    def test_reading_only(self):
        writer = self.volume(token=self.token())
        writer.mount()
        writer.write("f", b"1")
        read = self.token("--rights", "read")
        code, text = self.volume(token=read).mount_fails()
        self.assertEqual((code, "mount with --read-only" in text), (1, True))
        reader = self.volume(token=read, options=["--read-only"])
        reader.mount()
        self.assertEqual(reader.read("f"), b"1")
        with self.assertRaises(OSError) as caught:
            reader.write("g", b"")
        self.assertEqual(caught.exception.errno, errno.EROFS)
        writer.write("f", b"22")
        self.assertEqual(reader.read("f"), b"22")

    def test_limits_need_the_right_to_set_them(self):
        v = self.volume(token=self.token("--rights", "write"))
        v.mount()
        os.mkdir(v.path("d"))
        done = v.sluice("quota", "set", v.path("d"), "--bytes", "1M", check=False)
        self.assertEqual(done.returncode, 1)
        for request in ({"op": "check"}, {"op": "gc", "delete": True}):
            self.assertEqual(v.ask(**request)["error"], "EACCES")
        v.unmount()
        admin = self.volume(token=self.token("--rights", "admin"))
        admin.mount()
        done = admin.sluice("quota", "set", admin.path("d"), "--bytes", "1M", check=False)
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertEqual(admin.ask(op="check")["findings"], [])
        self.assertEqual(admin.ask(op="gc", delete=True)["deleted"], 0)

    def test_one_directory(self):
        v = self.volume(token=self.token())
        v.mount()
        os.makedirs(v.path("a/b"))
        os.makedirs(v.path("ab"))
        v.write("a/b/f", b"inside")
        v.write("secret", b"outside")
        token = self.token("--path", "/a/")
        inside = self.volume(token=token)
        inside.mount()
        self.assertEqual(os.listdir(inside.path("")), ["b"])
        self.assertEqual(inside.read("b/f"), b"inside")
        inside.write("new", b"from inside")
        self.assertEqual(v.read("a/new"), b"from inside")
        deeper = self.volume(token=token, directory="/a/b")
        deeper.mount()
        self.assertEqual(os.listdir(deeper.path("")), ["f"])
        for elsewhere in ("/ab", "/secret", "/nothing"):
            code, text = self.volume(token=token, directory=elsewhere).mount_fails()
            self.assertEqual((code, "not for this directory" in text), (1, True))

    def test_expired(self):
        token = self.token("--expires", "1s")
        wait_until("the token to expire", lambda: "(expired)" in self.service.volume("token", "list", "v").stdout)
        code, text = self.volume(token=token).mount_fails()
        self.assertEqual((code, "the token has expired" in text), (1, True))
        # One that expires while its connection lives: with a time that is long enough for the machine to get there.
        for seconds in (2, 8, 32):
            with socket.create_connection(("127.0.0.1", self.service.port), timeout=WAIT_S) as s:
                s.sendall(hello("v", self.token("--expires", "%ds" % seconds)))
                data = b""
                while True:
                    more = s.recv(65536)
                    if not more:
                        break
                    data += more
            self.assertIn(b"the token has expired", data)
            if data[4] == WELCOME:
                return
        self.fail("no token was good for long enough")

    def test_commands(self):
        token = self.token("--rights", "admin", "--path", "x/y")
        listed = self.service.volume("token", "list", "v").stdout
        self.assertIn(token.split("_")[1], listed)
        self.assertIn("admin", listed)
        self.assertIn("/x/y", listed)
        self.assertNotIn(token, listed)
        for bad in (["create", "nothing"], ["create", "v", "--path", "a/../b"], ["create", "v", "--expires", "soon"],
                    ["create", "v", "--uid-map", "1:2,1:3"], ["create", "v", "--anonymous", "x"], ["revoke", "v", "no"],
                    ["revoke", "v"], ["else", "v"], []):
            done = self.service.volume("token", *bad, check=False)
            self.assertEqual((done.returncode, len(done.stdout.splitlines())), (1, 1), bad)
        self.assertEqual(self.service.volume("token", "list", "v").stdout, listed)
        self.assertEqual(os.stat(os.path.join(self.service.data, "v", "tokens.json")).st_mode & 0o777, 0o600)
        self.service.stop()
        self.revoke(token)
        self.assertEqual(self.service.volume("token", "list", "v").stdout, "")

    def test_tokens_that_cannot_be_read_close_the_volume(self):
        self.token()
        self.service.stop()
        with open(os.path.join(self.service.data, "v", "tokens.json"), "w") as f:
            f.write("{")
        self.service.start()
        self.assertEqual(answer(("127.0.0.1", self.service.port), hello("v"))[0], REFUSED)
        self.assertIn("tokens.json", self.service.output())


class Rotation(Auth):
    def test_a_mount_goes_on_under_a_new_token(self):
        file = os.path.join(self.service.directory, "token")
        first = self.token()
        self.put_token(file, first)
        v = self.volume(file=file)
        v.mount()
        fd = os.open(v.path("f"), os.O_CREAT | os.O_RDWR)
        self.addCleanup(os.close, fd)
        session = self.service.sessions("v")[0]["session"]
        self.put_token(file, self.token())
        self.revoke(first)
        wait_until("the session under the new token", lambda: [s["session"] for s in self.service.sessions("v")
                                                               if s["connected"]] == [session])
        os.write(fd, b"the same handle")
        os.fsync(fd)
        self.assertEqual(v.read("f"), b"the same handle")
        self.assertEqual(answer(("127.0.0.1", self.service.port), hello("v", first))[0], REFUSED)

    def test_one_that_was_taken_back_is_out(self):
        with self.volume(token=self.token()) as first:
            os.mkdir(first.path("d"))
            first.unmount()
        token = self.token()
        v = self.volume(token=token)
        v.mount()
        # In a directory that the other has not seen: what it may have in its caches stays so until its lease is over.
        keeps = self.volume(token=self.token(), directory="/d")
        keeps.mount()
        self.revoke(token)
        wait_until("the connection to be cut", lambda: [s["connected"] for s in self.service.sessions("v")].count(True) == 1)
        self.assertIn("the token was revoked", self.service.output())
        keeps.write("g", b"goes on")
        self.assertEqual(keeps.read("g"), b"goes on")
        began = time.monotonic()
        self.assertRaises(OSError, os.mkdir, v.path("more"))
        self.assertLess(time.monotonic() - began, 40, "who is refused does not wait as for a service that is down")

    def test_first_token_of_a_volume_closes_it_to_those_without(self):
        v = self.volume()
        v.mount()
        v.write("f", b"x")
        self.token()
        wait_until("the connection to be cut", lambda: not any(s["connected"] for s in self.service.sessions("v")))

    def test_file_that_was_put_in_place(self):
        token = self.token()
        path = os.path.join(self.service.data, "v", "tokens.json")
        address = ("127.0.0.1", self.service.port)
        with open(path) as f:
            good = f.read()
        with open(path, "w") as f:
            f.write("{")
        self.service.process.send_signal(signal.SIGHUP)
        wait_until("the refusal", lambda: "new tokens not used" in self.service.output())
        self.assertEqual(answer(address, hello("v", token))[0], WELCOME)
        with open(path, "w") as f:
            f.write(good.replace('"id": "', '"id": "f', 1).replace(token.split("_")[1], token.split("_")[1][:-1], 1))
        self.service.process.send_signal(signal.SIGHUP)
        wait_until("the token to be gone", lambda: answer(address, hello("v", token))[0] == REFUSED)

    def test_restart_of_the_service(self):
        token = self.token("--path", "a")
        whole = self.volume(token=self.token())
        whole.mount()
        os.mkdir(whole.path("a"))
        v = self.volume(token=token)
        v.mount()
        v.write("f", b"x")
        self.service.kill()
        self.service.start()
        v.write("g", b"y")
        self.assertEqual((v.read("f"), v.read("g")), (b"x", b"y"))
        self.assertEqual(sorted(os.listdir(whole.path("a"))), ["f", "g"])


class Owners(Auth):
    def test_root_is_squashed(self):
        v = self.volume(token=self.token("--squash", "root", "--anonymous", "1234:4321"))
        v.mount()
        v.write("f", b"x")
        os.mkdir(v.path("d"))
        for name in ("f", "d"):
            st = os.stat(v.path(name))
            self.assertEqual((st.st_uid, st.st_gid), (1234, 4321))
        os.chown(v.path("f"), 500, 501)
        self.assertEqual((os.stat(v.path("f")).st_uid, os.stat(v.path("f")).st_gid), (500, 501))
        os.chown(v.path("f"), 0, 0)
        self.assertEqual((os.stat(v.path("f")).st_uid, os.stat(v.path("f")).st_gid), (1234, 4321))
        os.chmod(v.path("f"), 0o6755)
        self.assertEqual(os.stat(v.path("f")).st_mode & 0o7777, 0o755)

    def test_everybody_is_squashed(self):
        v = self.volume(token=self.token("--squash", "all"))
        v.mount()
        v.write("f", b"x")
        os.chown(v.path("f"), 500, 501)
        self.assertEqual((os.stat(v.path("f")).st_uid, os.stat(v.path("f")).st_gid), (65534, 65534))

    def test_maps(self):
        plain = self.volume(token=self.token())
        plain.mount()
        v = self.volume(token=self.token("--uid-map", "0:5000:100", "--gid-map", "0:6000:100"))
        v.mount()
        v.write("f", b"x")
        os.chown(v.path("f"), 7, 8)
        os.mkdir(v.path("d"))
        self.assertEqual((os.stat(v.path("f")).st_uid, os.stat(v.path("f")).st_gid), (7, 8))
        self.assertEqual((os.stat(v.path("d")).st_uid, os.stat(v.path("d")).st_gid), (0, 0))
        self.assertEqual((os.stat(plain.path("f")).st_uid, os.stat(plain.path("f")).st_gid), (5007, 6008))
        self.assertEqual((os.stat(plain.path("d")).st_uid, os.stat(plain.path("d")).st_gid), (5000, 6000))
        os.chown(v.path("d"), 3, 4)
        os.mkdir(v.path("d/e"))  # its answer has the directory's attributes
        self.assertEqual((os.stat(v.path("d")).st_uid, os.stat(v.path("d")).st_gid), (3, 4))
        os.chown(v.path("d"), 0, 0)
        os.chown(plain.path("f"), 1, 5005)
        self.assertEqual(os.stat(v.path("f")).st_uid, 65534)
        with os.scandir(v.path("")) as entries:
            self.assertEqual({e.name: e.stat().st_uid for e in entries}, {"f": 65534, "d": 0})


class Audit(unittest.TestCase):
    def test_who_did_what(self):
        service = Service()
        self.addCleanup(service.close)
        log = os.path.join(service.directory, "audit")
        service.options += ["--audit", log]
        service.start()
        bucket = os.path.join(service.directory, "bucket")
        service.volume("create", "v", "file://" + bucket, "settle-delay=200ms", "gc-delay=500ms")
        token = service.volume("token", "create", "v").stdout.strip()
        name = token.split("_")[1]

        def records():
            with open(log) as f:
                return [json.loads(line) for line in f.read().splitlines()]

        def find(**fields):
            return [r for r in records() if all(r.get(k) == v for k, v in fields.items())]

        self.assertEqual(answer(("127.0.0.1", service.port), hello("v", token[:-1] + "x"))[0], REFUSED)
        with ServiceVolume(service=service, bucket=bucket, env={"SLUICE_TOKEN": token}) as v:
            os.mkdir(v.path("d"))
            v.write("d/f", b"x")
            os.rename(v.path("d/f"), v.path("d/g"))
            d = os.stat(v.path("d")).st_ino
            os.rename(log, log + ".1")
            service.process.send_signal(signal.SIGHUP)
            wait_until("the new file", lambda: os.path.exists(log))
            with open(log + ".1") as f:
                old = f.read()
            os.unlink(v.path("d/g"))
            with self.assertRaises(OSError):
                os.rmdir(v.path("d/nothing"))
            session = service.sessions("v")[0]["session"]
            v.unmount()
        wait_until("the end", lambda: find(event="end", session=session))
        new = records()
        self.assertNotIn(token, old + str(new))
        self.assertEqual([(r["parent"], r["token"], r["result"]) for r in new if r.get("op") == "unlink"], [(d, name, "ok")])
        new += [json.loads(line) for line in old.splitlines()]
        self.assertEqual([r["result"] for r in new if r["event"] == "refused"], ["EACCES"])
        self.assertEqual([r["token"] for r in new if r["event"] == "begin"], [name])
        moved = [r for r in new if r.get("op") == "rename"]
        self.assertEqual([(r["name"], r["new_name"], r["parent"], r["new_parent"], r["session"], r["volume"], r["result"])
                          for r in moved], [("f", "g", d, d, session, "v", "ok")])
        self.assertTrue(moved[0]["peer"].startswith("127.0.0.1:"))
        self.assertGreater(moved[0]["request"], 0)
        self.assertEqual([r for r in new if r.get("op") == "lookup"], [])


# Runs in a network of its own, where an address that is not 127.0.0.1 is at hand.
ELSEWHERE = """
import sys
sys.path[:0] = sys.argv[1:3]
import test_service_auth as t
import os
s = t.Service()
try:
    s.host = "10.9.8.7"
    s.start()
    bucket = os.path.join(s.directory, "bucket")
    s.volume("create", "v", "file://" + bucket)
    kind, text = t.answer(("10.9.8.7", s.port), t.hello("v"))
    assert (kind, b"open to this host only" in text) == (t.REFUSED, True), text
    kind, text = t.answer(("10.9.8.7", s.port), t.hello("nothing"))
    assert (kind, b"a token is needed" in text) == (t.REFUSED, True), text
    token = s.volume("token", "create", "v").stdout.strip()
    assert t.answer(("10.9.8.7", s.port), t.hello("v", token))[0] == t.WELCOME
    s.volume("token", "revoke", "v", token.split("_")[1])
    s.stop()
    s.options = ["--no-auth"]
    s.port = None
    s.start()
    assert t.answer(("10.9.8.7", s.port), t.hello("v"))[0] == t.WELCOME
    print("done")
finally:
    s.close()
"""


class Elsewhere(unittest.TestCase):
    def test_other_hosts_need_a_token(self):
        here = os.path.dirname(os.path.abspath(__file__))
        script = "ip link set lo up && ip addr add 10.9.8.7/32 dev lo && exec \"$@\""
        done = subprocess.run(
            ["unshare", "--net", "sh", "-c", script, "sh", sys.executable, "-c", ELSEWHERE, here, os.path.join(here, "..", "lib")],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=WAIT_S, text=True)
        self.assertEqual((done.returncode, done.stdout), (0, "done\n"))


if __name__ == "__main__":
    unittest.main()
