"""A real S3 server (versitygw, posix backend) for tests, and a small S3 client beside ours.

    with Gateway() as gw:
        gw.make_bucket("bucket")
        env = gw.env()                 # AWS_* for the program under test
        gw.put("bucket", "key", b"bytes")   # as another S3 tool would
        assert gw.get("bucket", "key") == b"bytes"

Run as a program it serves until it is ended: `python3 tests/lib/gateway.py [--bucket NAME] [--dir DIR]`
prints the environment as shell lines.
"""

import datetime
import hashlib
import hmac
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import xml.etree.ElementTree

from started import Started, end

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
WAIT_S = 120


def find_binary():
    """The server's binary: SLUICE_VERSITYGW, what ./setup built, or one on the PATH."""
    for path in (
        os.environ.get("SLUICE_VERSITYGW"),
        os.path.join(ROOT, "deps", "bin", "versitygw"),
        shutil.which("versitygw"),
    ):
        if path and os.access(path, os.X_OK):
            return path
    raise FileNotFoundError("versitygw is not there: run ./setup --tests")


def free_port():
    """A loopback port that nobody listened on a moment ago."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class S3Error(Exception):
    def __init__(self, status, body):
        super().__init__("HTTP %d: %s" % (status, body[:500]))
        self.status = status
        self.body = body


class Client:
    """Enough of S3 to fill and inspect a bucket: one connection per request, path style."""

    def __init__(self, host, port, access, secret, region="us-east-1"):
        self.host, self.port = host, port
        self.access, self.secret, self.region = access, secret, region

    def _sign(self, method, path, query, headers, digest):
        now = datetime.datetime.now(datetime.timezone.utc)
        headers["x-amz-date"] = now.strftime("%Y%m%dT%H%M%SZ")
        headers["x-amz-content-sha256"] = digest
        scope = "%s/%s/s3/aws4_request" % (now.strftime("%Y%m%d"), self.region)
        names = sorted(headers)
        canonical = "\n".join(
            [method, path, query]
            + ["%s:%s" % (n, headers[n].strip()) for n in names]
            + ["", ";".join(names), digest]
        )
        text = "\n".join(
            [
                "AWS4-HMAC-SHA256",
                headers["x-amz-date"],
                scope,
                hashlib.sha256(canonical.encode()).hexdigest(),
            ]
        )
        key = ("AWS4" + self.secret).encode()
        for part in scope.split("/"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
        headers["authorization"] = (
            "AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%s"
            % (self.access, scope, ";".join(names), signature)
        )

    def request(self, method, path, query=None, headers=None, body=b"", ok=(200, 204, 206)):
        """path begins with "/bucket"; returns (status, headers in lower case, body)."""
        path = urllib.parse.quote(path, safe="/-_.~")
        query = "&".join(
            "%s=%s" % (urllib.parse.quote(k, safe="-_.~"), urllib.parse.quote(v, safe="-_.~"))
            for k, v in sorted((query or {}).items())
        )
        headers = {k.lower(): v for k, v in (headers or {}).items()}
        headers["host"] = "%s:%d" % (self.host, self.port)
        self._sign(method, path, query, headers, hashlib.sha256(body).hexdigest())
        connection = http.client.HTTPConnection(self.host, self.port, timeout=WAIT_S)
        try:
            connection.request(method, path + ("?" + query if query else ""), body, headers)
            reply = connection.getresponse()
            data = reply.read()
        finally:
            connection.close()
        if ok and reply.status not in ok:
            raise S3Error(reply.status, data.decode("utf-8", "replace"))
        return reply.status, {k.lower(): v for k, v in reply.getheaders()}, data

    def make_bucket(self, bucket):
        self.request("PUT", "/" + bucket)

    def put(self, bucket, key, body=b"", headers=None):
        return self.request("PUT", "/%s/%s" % (bucket, key), headers=headers, body=body)[1]["etag"]

    def get(self, bucket, key):
        return self.request("GET", "/%s/%s" % (bucket, key))[2]

    def head(self, bucket, key):
        """Headers in lower case, or None if there is no such key."""
        status, headers, _ = self.request(
            "HEAD", "/%s/%s" % (bucket, key), ok=(200, 404)
        )
        return headers if status == 200 else None

    def delete(self, bucket, key):
        self.request("DELETE", "/%s/%s" % (bucket, key))

    def list(self, bucket, prefix=""):
        """All keys below a prefix, with their sizes."""
        found, token = {}, None
        while True:
            query = {"list-type": "2", "prefix": prefix, "encoding-type": "url"}
            if token:
                query["continuation-token"] = token
            root = xml.etree.ElementTree.fromstring(self.request("GET", "/" + bucket, query)[2])
            space = root.tag[: root.tag.index("}") + 1] if "}" in root.tag else ""
            encoded = root.findtext(space + "EncodingType") == "url"
            for item in root.iter(space + "Contents"):
                key = item.findtext(space + "Key")
                key = urllib.parse.unquote_plus(key) if encoded else key
                found[key] = int(item.findtext(space + "Size") or 0)
            token = root.findtext(space + "NextContinuationToken")
            if not token:
                return found

    def uploads(self, bucket):
        """(key, upload id) of the unfinished multipart uploads."""
        root = xml.etree.ElementTree.fromstring(
            self.request("GET", "/" + bucket, {"uploads": ""})[2]
        )
        space = root.tag[: root.tag.index("}") + 1] if "}" in root.tag else ""
        return [
            (item.findtext(space + "Key"), item.findtext(space + "UploadId"))
            for item in root.iter(space + "Upload")
        ]


class Gateway(Started, Client):
    """The server as a context manager. `directory`: where buckets live (kept); default a new
    temporary one (removed). `port`: fixed port, so that a test may stop and start it again."""

    def __init__(self, directory=None, access="sluicetest", secret="sluicetestsecret",
                 keep_alive=True, region="us-east-1", arguments=(), cert=None, key=None):
        super().__init__("127.0.0.1", 0, access, secret, region)
        self.binary = find_binary()
        self.keep_alive, self.arguments = keep_alive, list(arguments)
        self.cert, self.key = cert, key
        self.own_directory = directory is None
        self.directory = directory or tempfile.mkdtemp(prefix="sluice-gateway-")
        self.buckets = os.path.join(self.directory, "buckets")
        os.makedirs(self.buckets, exist_ok=True)
        self.log_path = os.path.join(self.directory, "gateway.log")
        self.process = None

    @property
    def endpoint(self):
        return "%s://%s:%d" % ("https" if self.cert else "http", self.host, self.port)

    def env(self, base=None):
        """The environment for a client: a copy of `base` (os.environ) without other AWS_ names."""
        env = {k: v for k, v in (os.environ if base is None else base).items()
               if not k.startswith("AWS_")}
        env.update(
            AWS_ACCESS_KEY_ID=self.access,
            AWS_SECRET_ACCESS_KEY=self.secret,
            AWS_REGION=self.region,
            AWS_ENDPOINT_URL_S3=self.endpoint,
            AWS_EC2_METADATA_DISABLED="true",
            AWS_CONFIG_FILE="/dev/null",
            AWS_SHARED_CREDENTIALS_FILE="/dev/null",
        )
        return env

    def start(self):
        """Starts, or starts again on the same port."""
        deadline = time.monotonic() + WAIT_S
        fixed = self.port != 0
        while True:
            if not fixed:
                self.port = free_port()
            command = [self.binary, "--port", "%s:%d" % (self.host, self.port), "--quiet",
                       "--access", self.access, "--secret", self.secret, "--region", self.region]
            if self.keep_alive:
                command.append("--keep-alive")
            if self.cert:
                command += ["--cert", self.cert, "--key", self.key]
            command += self.arguments + ["posix", self.buckets]
            with open(self.log_path, "ab") as log:
                self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log,
                                                stderr=log, cwd=self.directory)
            # The port may have been taken meanwhile: then the server ends, and another one is tried.
            while time.monotonic() < deadline and self.process.poll() is None:
                if self._answers():
                    return self
                time.sleep(0.02)
            self.stop()
            if time.monotonic() >= deadline:
                with open(self.log_path, encoding="utf-8", errors="replace") as log:
                    raise RuntimeError("versitygw does not start: " + log.read()[-2000:])

    def _answers(self):
        if self.cert:
            with socket.socket() as s:
                s.settimeout(WAIT_S)
                return s.connect_ex((self.host, self.port)) == 0
        connection = http.client.HTTPConnection(self.host, self.port, timeout=WAIT_S)
        try:
            connection.request("GET", "/")
            reply = connection.getresponse()
            reply.read()
            return reply.getheader("Server") is not None or reply.status in (200, 403)
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def stop(self):
        """Ends the server; the buckets stay."""
        end(self.process)
        self.process = None

    def close(self):
        self.stop()
        if self.own_directory:
            shutil.rmtree(self.directory, ignore_errors=True)


def main(arguments):
    import argparse

    parser = argparse.ArgumentParser(description="Serve S3 from a local directory until ended.")
    parser.add_argument("--bucket", default="bucket", help="bucket to create")
    parser.add_argument("--dir", help="where the data lives; default: a temporary directory")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with Gateway(directory=options.dir) as gateway:
        if options.bucket not in os.listdir(gateway.buckets):
            gateway.make_bucket(options.bucket)
        for name, value in gateway.env(base={}).items():
            print("export %s=%s" % (name, value))
        sys.stdout.flush()
        try:
            while gateway.process.poll() is None:
                time.sleep(0.2)
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main(sys.argv[1:])
