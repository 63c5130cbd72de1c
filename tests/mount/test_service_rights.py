"""Every operation that a client can send, with tokens that do not reach so far: by the wire, past all that a mount would not ask.

The operations are all numbers that there can be, each with all its parts, so a new one is tried as soon as it is there.
"""

import errno
import os
import socket
import struct
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from service import Service, ServiceVolume
from volume import WAIT_S

HELLO, WELCOME, REFUSED, REQUEST, REPLY, TASK, TASK_DONE, INVALIDATE, CONFIRM, BYE = 1, 2, 3, 4, 5, 6, 9, 12, 13, 17
STATUS, STATUS_REPLY, KEYS, KEYS_REPLY, STORES, STORES_REPLY, CLAIM = 10, 11, 22, 23, 24, 25, 14
# meta_kind
DRIFT, OBJECT, FIRST_CHANGE, MKNOD, LINK, RENAME, DROP, RESERVE, ABANDON, COMMIT, CLONE, KINDS = 10, 11, 32, 32, 33, 35, 39, 40, 41, 42, 43, 256
SYNC, REFRESH, SETTLE, OBJECT_CHANGED, RESERVE_SIZE, RESERVED, TASKS = 1, 2, 3, 4, 5, 6, 7
REFUSALS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EINVAL, errno.EPROTO}


def number(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def text(value):
    return number(len(value)) + value


def take_number(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if not data[at - 1] & 0x80:
            return value, at


def frame(kind, body):
    return struct.pack(">IB", len(body) + 1, kind) + body


def operation(kind, ino=0, parent=0, new_parent=0, new_ino=0, name=b"a", new_name=b"b", inner=0, size=1, lists=()):
    """docs/data-model.md, "Operations as bytes": all parts but the last three."""
    attr = number(0) + number(0o100777) + number(7) * 2 + number(1) + number(0) + number(size) + number(1) * 4 + number(0) * 2 + b"\0"
    made = number(inner) + bytes([2, 0]) + text(b"key") + number(size) + number(0) + text(b"etag") + number(0) + number(0)
    extent = bytes([1]) + number(0) + number(size) + number(inner) + number(0)
    inos = lists or (ino,)
    return (bytes([1, kind]) + bytes(8) + number((1 << 14) - 1) + number(ino) + number(parent) + number(new_parent) + number(new_ino) + text(name) +
            text(new_name) + number(0) + number(size) + number(0) + number(0) + number(0) + number(8) + b"\0" + attr + text(b"data") +
            number(len(inos)) + b"".join(map(number, inos)) + number(inner) + number(1) + made + number(1) + extent)


class Client:
    def __init__(self, service, volume, token, read_only=False):
        self.socket = socket.create_connection(("127.0.0.1", service.port), timeout=WAIT_S)
        self.rest = b""
        self.id = self.change = 0
        self.socket.sendall(frame(HELLO, b"sluice" + bytes([1, 1]) + text(volume.encode()) + text(token.encode()) + text(b"") + b"k" * 16 +
                                  bytes([0, int(read_only)])))
        self.first = self.next_frame()

    def next_frame(self):
        while len(self.rest) < 5 or len(self.rest) < 4 + struct.unpack(">I", self.rest[:4])[0]:
            data = self.socket.recv(65536)
            if not data:
                raise AssertionError("the service has closed the connection")
            self.rest += data
        end = 4 + struct.unpack(">I", self.rest[:4])[0]
        whole, self.rest = self.rest[4:end], self.rest[end:]
        return whole[0], whole[1:]

    def ask(self, kind, answer, body=b""):
        """(errno or 0, the rest) of the answer to a message that begins with its number."""
        self.id += 1
        self.socket.sendall(frame(kind, number(self.id) + body))
        while True:
            got, data = self.next_frame()
            if got == INVALIDATE:
                self.socket.sendall(frame(CONFIRM, number(struct.unpack(">Q", data[:8])[0])))
            elif got == answer and take_number(data, 0)[0] == self.id:
                return data[take_number(data, 0)[1]:]
            elif got == REFUSED:
                raise AssertionError("refused: %r" % data)

    def request(self, op, retry=False):
        """errno, and what came with 0."""
        self.change += 1
        changes = op[1] >= FIRST_CHANGE
        body = self.ask(REQUEST, REPLY, number(self.change if changes else 0) + bytes([2 * (retry and changes)]) + op)
        result, at = take_number(body, 0)
        return result, body[at:]

    def task(self, kind, ino, inner=0):
        body = self.ask(TASK, TASK_DONE, bytes([kind]) + number(ino) + number(inner))
        _, at = take_number(body, 0)
        return take_number(body, at)[0]

    def close(self):
        self.socket.sendall(frame(BYE, number(0)))
        self.socket.close()


class Rights(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.service = Service(options=["--lease", "60s"]).start()
        cls.addClassCleanup(cls.service.close)
        cls.bucket = os.path.join(cls.service.directory, "bucket")
        cls.service.volume("create", "v", "file://" + cls.bucket, "settle-delay=200ms", "gc-delay=500ms")
        cls.admin = cls.token("--rights", "admin")
        cls.all = ServiceVolume(service=cls.service, bucket=cls.bucket, env={"SLUICE_TOKEN": cls.admin})
        cls.addClassCleanup(cls.all.close)
        cls.all.mount()
        for d in ("in", "out"):
            os.makedirs(cls.all.path(d, "a"))
            cls.all.write(d + "/f", d.encode() * 30000)
            os.symlink("secret", cls.all.path(d, "s"))
            os.setxattr(cls.all.path(d, "f"), "user.x", b"secret")
        cls.all.settle()

    @classmethod
    def token(cls, *options):
        return cls.service.volume("token", "create", "v", *options).stdout.strip()

    def client(self, token, volume="v", read_only=False):
        client = Client(self.service, volume, token, read_only)
        self.addCleanup(client.socket.close)
        self.assertEqual(client.first[0], WELCOME, client.first)
        return client

    def ino(self, *names):
        return os.lstat(self.all.path(*names)).st_ino

    def seen(self, directory):
        """All of it but times of reading."""
        found = {}
        for at, ds, fs in os.walk(self.all.path(directory)):
            for path in [at] + [os.path.join(at, n) for n in ds + fs]:
                st = os.lstat(path)
                content = b""
                if os.path.islink(path):
                    content = os.readlink(path)
                elif os.path.isfile(path):
                    with open(path, "rb") as f:
                        content = f.read()
                found[path] = (st.st_mode, st.st_uid, st.st_nlink, st.st_size, st.st_mtime_ns, st.st_ctime_ns, content,
                               os.listxattr(path, follow_symlinks=False))
        return found

    def reserved(self, client, ino):
        """The number of an object that the client is writing."""
        result, body = client.request(operation(RESERVE, ino=ino))
        self.assertEqual(result, 0)
        _, at = take_number(body, 1)
        _, at = take_number(body, at)
        return take_number(body, at)[0]

    def test_a_token_for_reading_changes_nothing(self):
        before = self.seen("in")
        token = self.token("--rights", "read")
        writer = self.client(self.admin)
        inner = self.reserved(writer, self.ino("in", "f"))
        writing = Client(self.service, "v", token)
        self.addCleanup(writing.socket.close)
        self.assertEqual(writing.first[0], REFUSED)
        reader = self.client(token, read_only=True)
        f, d = self.ino("in", "f"), self.ino("in")
        for kind in range(FIRST_CHANGE, KINDS):
            for retry in (False, True):
                for ino in (f, self.ino("in", "a")):
                    result, _ = reader.request(operation(kind, ino=ino, parent=d, new_parent=d, new_ino=f, inner=inner), retry)
                    if kind != DROP:
                        self.assertIn(result, REFUSALS, kind)
        for kind in (SETTLE, RESERVE_SIZE, RESERVED):
            self.assertEqual(reader.task(kind, f, 100), errno.EROFS, kind)
        for op in ("attach", "detach", "migrate", "examine"):
            request = b'{"op":"%s","delete":true,"url":"file:///x","name":"x","ino":1,"what":0}' % op.encode()
            answer = reader.ask(STORES, STORES_REPLY, text(request))
            self.assertIn(b'"error"', answer, op)
        reader.close()
        self.assertEqual(writer.request(operation(ABANDON, inner=inner))[0], 0)
        writer.close()
        self.assertEqual(self.seen("in"), before)

    def test_a_token_for_a_directory_sees_and_changes_nothing_outside(self):
        token = self.token("--rights", "admin", "--path", "/in")
        writer = self.client(self.admin)
        inner = self.reserved(writer, self.ino("out", "f"))
        before = self.seen("out")
        f, d, a = self.ino("out", "f"), self.ino("out"), self.ino("out", "a")
        in_f, in_d = self.ino("in", "f"), self.ino("in")
        client = self.client(token, "v/in")
        for kind in range(1, KINDS):
            for retry in (False, True):
                for ino in (f, a, self.ino("out", "s"), 1 << 40):
                    op = operation(kind, ino=ino, parent=d, new_parent=d, new_ino=f, name=b"user.x", inner=inner, lists=(f, a, inner))
                    result, _ = client.request(op, retry)
                    if kind != DROP:
                        self.assertIn(result, REFUSALS, (kind, ino))
                # One of its numbers is outside only.
                inside = {"ino": in_f, "parent": in_d, "new_parent": in_d, "new_ino": in_f, "name": b"none", "new_name": b"neither"}
                for field, outside in (("ino", f), ("parent", d), ("new_parent", d), ("new_ino", f)):
                    self.assertIn(client.request(operation(kind, **{**inside, field: outside}), retry)[0],
                                  REFUSALS if kind != DROP else REFUSALS | {0}, (kind, field))
                if kind in (OBJECT, ABANDON, COMMIT):
                    self.assertEqual(client.request(operation(kind, inner=inner, size=10, **inside), retry)[0], errno.EACCES, kind)
        for kind in range(1, TASKS):
            self.assertEqual(client.task(kind, f, 100), errno.EACCES, kind)
        client.socket.sendall(frame(CLAIM, number(1) + number(inner)))
        self.assertNotEqual(take_number(client.ask(KEYS, KEYS_REPLY), 0)[0], 0)
        self.assertNotIn(b"/out", client.ask(STATUS, STATUS_REPLY))
        for op in ("attach", "detach", "migrate", "examine"):
            request = b'{"op":"%s","url":"file:///x","name":"x","ino":%d,"what":0}' % (op.encode(), a)
            answer = client.ask(STORES, STORES_REPLY, text(request))
            self.assertIn(b'"error":-13', answer, op)
        client.close()
        # Whose object it is, may still bring it.
        self.assertEqual(writer.request(operation(ABANDON, inner=inner))[0], 0)
        writer.close()
        self.assertEqual(self.seen("out"), before)


if __name__ == "__main__":
    unittest.main()
