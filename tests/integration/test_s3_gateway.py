"""The S3 backend against a real server: conformance, other clients, TLS, styles, credentials."""

import http.server
import json
import os
import subprocess
import sys
import tempfile
import threading
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "lib")]

from gateway import Gateway  # noqa: E402
from s3_tools import store, tool  # noqa: E402

ENOENT, EIO, EACCES, EEXIST, EINVAL = 2, 5, 13, 17, 22
URL = "s3://bucket"


class Conformance(unittest.TestCase):
    def conforms(self, gateway, *arguments):
        gateway.make_bucket("bucket")
        done = tool("store_conformance", *arguments, env=gateway.env())
        print(done.stdout.decode(), flush=True)
        self.assertEqual(done.returncode, 0)
        self.assertIn(b" 0 failed", done.stdout)

    def test_as_a_mount_opens_it(self):
        with Gateway() as gateway:
            self.conforms(gateway, "--probe", URL, "some/prefix/")
            # A request that was cancelled may still be carried out by the server later.
            left = [key for key in gateway.list("bucket") if "/cancelled" not in key]
            self.assertEqual(left, [], "it removes what it made")
            self.assertEqual(gateway.uploads("bucket"), [])

    def test_of_the_bare_backend(self):
        with Gateway() as gateway:
            self.conforms(gateway, "--bare", "--probe", URL)

    def test_with_a_server_that_closes_each_connection(self):
        with Gateway(keep_alive=False) as gateway:
            self.conforms(gateway, "--probe", URL)


class OneServer(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway()
        cls.gateway.start()
        cls.addClassCleanup(cls.gateway.close)
        cls.gateway.make_bucket("bucket")

    def setUp(self):
        self.env = self.gateway.env()

    def ok(self, *arguments, body=b"", env=None):
        status, out, message = store(env or self.env, *arguments, body=body)
        self.assertEqual(status, 0, message)
        return out

    def fails(self, *arguments, body=b"", env=None):
        status, _, message = store(env or self.env, *arguments, body=body)
        self.assertNotEqual(status, 0)
        return status, message

    def test_reads_what_another_client_wrote(self):
        for key in ("plain", "with space+plus", "per%20cent", "\u00fcml\u00e4ut/\u65e5\u672c",
                    "a&b=c?d#e", "quote'\"<>"):
            self.gateway.put("bucket", "in/" + key, key.encode(), {"x-amz-meta-note": "n 1"})
            self.assertEqual(self.ok(URL, "get", "in/" + key), key.encode())
            head = self.ok(URL, "head", "in/" + key).decode()
            self.assertIn("meta note n 1", head)
        self.assertEqual(self.ok(URL, "get", "in/plain", "2", "2"), b"ai")

    def test_another_client_reads_what_it_wrote(self):
        for key in ("plain", "with space+plus", "per%20cent", "\u00fcml\u00e4ut/\u65e5\u672c"):
            body = os.urandom(100000)
            self.ok("--meta=mode=33188", URL, "put", "out/" + key, body=body)
            self.assertEqual(self.gateway.get("bucket", "out/" + key), body)
            self.assertEqual(self.gateway.head("bucket", "out/" + key)["x-amz-meta-mode"], "33188")
        self.ok(URL, "parts", "out/large", "3", str(5 << 20))
        self.assertEqual(self.gateway.get("bucket", "out/large"),
                         b"a" * (5 << 20) + b"b" * (5 << 20) + b"c" * (5 << 20))

    def test_lists_page_by_page(self):
        names = {"many/%04d" % i for i in range(1100)}
        for name in names:
            path = os.path.join(self.gateway.buckets, "bucket", name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb"):
                pass
        listed = [line.split(" ", 2)[2]
                  for line in self.ok(URL, "list", "many/").decode().splitlines()]
        self.assertEqual(listed, sorted(names))

    def test_conditions(self):
        etag = self.ok("--if-none-match", URL, "put", "once", body=b"1").decode().strip()
        status, message = self.fails("--if-none-match", URL, "put", "once", body=b"2")
        self.assertEqual(status, EEXIST, message)
        self.ok("--if-match=" + etag, URL, "put", "once", body=b"3")
        self.assertEqual(self.fails("--if-match=" + etag, URL, "get", "once")[0], EEXIST)
        self.assertEqual(self.fails("--if-match=" + etag, URL, "put", "once", body=b"4")[0], EEXIST)
        self.assertEqual(self.gateway.get("bucket", "once"), b"3")

    def test_says_what_is_wrong(self):
        status, message = self.fails(URL, "get", "nothing-here")
        self.assertEqual((status, "NoSuchKey" in message), (ENOENT, True), message)
        status, message = self.fails("s3://no-such-bucket", "list")
        self.assertEqual((status, "NoSuchBucket" in message), (ENOENT, True), message)
        wrong = dict(self.env, AWS_SECRET_ACCESS_KEY="wrong")
        status, message = self.fails(URL, "get", "k", env=wrong)
        self.assertEqual((status, "SignatureDoesNotMatch" in message), (EACCES, True), message)
        wrong = dict(self.env, AWS_ACCESS_KEY_ID="nobody")
        status, message = self.fails(URL, "get", "k", env=wrong)
        self.assertEqual((status, "access key" in message), (EACCES, True), message)
        status, message = self.fails("--anonymous", URL, "get", "k")
        self.assertEqual((status, "AccessDenied" in message), (EACCES, True), message)
        wrong = dict(self.env, AWS_ENDPOINT_URL_S3="http://127.0.0.1:1")
        status, message = self.fails("--deadline-ms=300", URL, "get", "k", env=wrong)
        self.assertEqual((status, "127.0.0.1" in message), (EIO, True), message)
        wrong = dict(self.env, AWS_ENDPOINT_URL_S3="ftp://127.0.0.1")
        status, message = self.fails(URL, "get", "k", env=wrong)
        self.assertEqual((status, "http[s]://" in message), (EINVAL, True), message)

    def test_deletes_many(self):
        keys = ["gone/" + name for name in ("a", "b&<>\"'", "c\td", "\u00fc")]
        for key in keys[:2] + keys[3:]:
            self.gateway.put("bucket", key, b"x")
        self.assertEqual(self.ok(URL, "rm", *keys, "gone/not-there"), b"")
        self.assertEqual(self.gateway.list("bucket", "gone/"), {})
        # What XML cannot say is not sent.
        self.gateway.put("bucket", "gone/e", b"x")
        out = self.ok(URL, "rm", "gone/e", "gone/\x01").decode()
        self.assertEqual(out, "gone/\x01: Invalid argument\n")
        self.assertEqual(self.gateway.list("bucket", "gone/"), {})
        self.assertIn("Invalid argument", self.ok(URL, "rm", "\x01", "\x02").decode())

    def test_without_any_credentials(self):
        env = {k: v for k, v in self.env.items() if "ACCESS_KEY" not in k}
        status, message = self.fails(URL, "get", "k", env=env)
        self.assertEqual((status, "no credentials" in message), (EACCES, True), message)

    def test_wrong_region(self):
        status, message = self.fails("--region=eu-west-1", URL, "get", "k")
        self.assertIn(status, (EACCES, EINVAL), message)
        self.assertIn("us-east-1", message)


class VirtualHosts(unittest.TestCase):
    def test_bucket_in_the_host_name(self):
        with Gateway(arguments=["--virtual-domain", "localhost"]) as gateway:
            os.mkdir(os.path.join(gateway.buckets, "bucket"))
            env = dict(gateway.env(), AWS_ENDPOINT_URL_S3="http://localhost:%d" % gateway.port)
            status, _, message = store(env, "--path-style=0", URL, "put", "dir/key", body=b"text")
            self.assertEqual(status, 0, message)
            with open(os.path.join(gateway.buckets, "bucket", "dir", "key"), "rb") as file:
                self.assertEqual(file.read(), b"text")
            self.assertEqual(store(env, "--path-style=0", URL, "get", "dir/key")[1], b"text")
            self.assertEqual(store(env, "--path-style=0", URL, "list")[1], b"key 4 dir/key\n")


class Tls(unittest.TestCase):
    def test_own_authority(self):
        with tempfile.TemporaryDirectory() as directory:
            cert, key = os.path.join(directory, "cert.pem"), os.path.join(directory, "key.pem")
            subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key,
                            "-out", cert, "-days", "2", "-subj", "/CN=127.0.0.1", "-addext",
                            "subjectAltName=IP:127.0.0.1"], check=True, stderr=subprocess.DEVNULL)
            with Gateway(cert=cert, key=key) as gateway:
                os.mkdir(os.path.join(gateway.buckets, "bucket"))
                env, body = gateway.env(), os.urandom(3 << 20)
                status, _, message = store(env, "--ca-file=" + cert, URL, "put", "k", body=body)
                self.assertEqual(status, 0, message)
                self.assertEqual(store(env, "--ca-file=" + cert, URL, "get", "k")[1], body)
                status, _, message = store(dict(env, AWS_CA_BUNDLE=cert), URL, "head", "k")
                self.assertEqual(status, 0, message)
                # Not trusted: said at once, not tried again.
                status, _, message = store(env, URL, "get", "k")
                self.assertEqual(status, EIO)
                self.assertIn("certificate", message)
                self.assertNotIn("tries", message)
                status, _, message = store(env, "--ca-file=/nowhere.pem", URL, "get", "k")
                self.assertNotEqual(status, 0)
                self.assertIn("/nowhere.pem", message)


class Sources(http.server.BaseHTTPRequestHandler):
    """The services that hand out credentials, and an S3 server that shows what it was sent."""

    protocol_version = "HTTP/1.1"
    seen = []
    keys = {"AccessKeyId": "AKFETCHED", "SecretAccessKey": "fetched/secret",
            "Expiration": "2500-01-01T00:00:00Z"}

    def log_message(self, *_):
        pass

    def reply(self, status, text="", headers=()):
        body = text.encode()
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def take(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.seen.append((self.command, self.path, dict(self.headers), body))
        return body

    def do_PUT(self):
        self.take()
        if self.path == "/latest/api/token":
            self.reply(200, "metadata-session")
        else:
            self.reply(200, headers=[("ETag", '"0123456789abcdef0123456789abcdef"'),
                                     ("x-amz-checksum-crc32c",
                                      self.headers.get("x-amz-checksum-crc32c"))])

    def do_GET(self):
        self.take()
        path = "/latest/meta-data/iam/security-credentials/"
        if self.path.startswith(path) and self.headers["X-aws-ec2-metadata-token"] != "metadata-session":
            self.reply(401)
        elif self.path == path:
            self.reply(200, "my-role\n")
        elif self.path == path + "my-role":
            self.reply(200, json.dumps(dict(self.keys, Code="Success", Token="instance-token")))
        elif self.path == "/container" and self.headers["Authorization"] == "Bearer x":
            self.reply(200, json.dumps(dict(self.keys, Token="container-token")))
        else:
            self.reply(404)

    def do_POST(self):
        body = self.take()
        if b"WebIdentityToken=a%2Fweb%3Dtoken" not in body:
            self.reply(403, "<ErrorResponse><Error><Code>InvalidIdentityToken</Code>"
                            "<Message>no</Message></Error></ErrorResponse>")
            return
        self.reply(200, "<AssumeRoleWithWebIdentityResponse xmlns=\"x\">"
                        "<AssumeRoleWithWebIdentityResult><Credentials>"
                        "<SessionToken>web-token</SessionToken>"
                        "<SecretAccessKey>fetched/secret</SecretAccessKey>"
                        "<Expiration>2500-01-01T00:00:00Z</Expiration>"
                        "<AccessKeyId>AKFETCHED</AccessKeyId></Credentials>"
                        "</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>")


class Credentials(unittest.TestCase):
    def setUp(self):
        Sources.seen = []
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Sources)
        self.base = "http://127.0.0.1:%d" % self.server.server_address[1]
        thread = threading.Thread(target=self.server.serve_forever)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
        self.env.update(AWS_ENDPOINT_URL_S3=self.base, AWS_CONFIG_FILE="/dev/null",
                        AWS_SHARED_CREDENTIALS_FILE="/dev/null", AWS_REGION="eu-west-9")

    def put_with(self, token, **env):
        status, _, message = store(dict(self.env, **env), URL, "put", "k", body=b"text")
        self.assertEqual(status, 0, message)
        method, path, headers, body = Sources.seen[-1]
        headers = {k.lower(): v for k, v in headers.items()}
        self.assertEqual((method, path, body), ("PUT", "/bucket/k", b"text"))
        self.assertIn("Credential=AKFETCHED/", headers["authorization"])
        self.assertIn("/eu-west-9/s3/aws4_request", headers["authorization"])
        self.assertEqual(headers["x-amz-security-token"], token)
        self.assertIn("x-amz-security-token", headers["authorization"])

    def test_instance_metadata(self):
        self.put_with("instance-token", AWS_EC2_METADATA_SERVICE_ENDPOINT=self.base + "/")

    def test_container(self):
        self.put_with("container-token", AWS_CONTAINER_AUTHORIZATION_TOKEN="Bearer x",
                      AWS_CONTAINER_CREDENTIALS_FULL_URI=self.base + "/container",
                      AWS_EC2_METADATA_DISABLED="true")

    def test_web_identity(self):
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"a/web=token\n")
            file.flush()
            self.put_with("web-token", AWS_WEB_IDENTITY_TOKEN_FILE=file.name,
                          AWS_ROLE_ARN="arn:aws:iam::1:role/x", AWS_ENDPOINT_URL_STS=self.base + "/",
                          AWS_EC2_METADATA_DISABLED="true")

    def headers_of(self, *options):
        env = dict(self.env, AWS_ACCESS_KEY_ID="AK", AWS_SECRET_ACCESS_KEY="s")
        status, _, message = store(env, *options, URL, "put", "k", body=b"text")
        self.assertEqual(status, 0, message)
        return {k.lower(): v for k, v in Sources.seen[-1][2].items()}

    def test_headers_of_options(self):
        headers = self.headers_of("--storage-class=STANDARD_IA", "--request-payer")
        self.assertEqual(headers["x-amz-storage-class"], "STANDARD_IA")
        self.assertEqual(headers["x-amz-request-payer"], "requester")
        self.assertNotIn("x-amz-server-side-encryption", headers)
        self.assertNotIn("expect", headers)
        headers = self.headers_of("--sse=aws:kms", "--sse-key=key-id")
        self.assertEqual(headers["x-amz-server-side-encryption"], "aws:kms")
        self.assertEqual(headers["x-amz-server-side-encryption-aws-kms-key-id"], "key-id")
        self.assertEqual(self.headers_of("--sse=AES256")["x-amz-server-side-encryption"], "AES256")

    def test_encryption_options_are_checked(self):
        env = dict(self.env, AWS_ACCESS_KEY_ID="AK", AWS_SECRET_ACCESS_KEY="s")
        good = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
        for options, says in ((("--sse=rot13",), "none of AES256"), (("--sse-key=x",), "needs a kind"),
                              (("--sse=SSE-C", "--sse-key=short"), "32 bytes"),
                              (("--sse=SSE-C", "--sse-key=" + good), "https")):
            status, _, message = store(env, *options, URL, "head", "k")
            self.assertEqual((status, says in message), (EINVAL, True), message)

    def test_refusals_are_said(self):
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"another")
            file.flush()
            env = dict(self.env, AWS_WEB_IDENTITY_TOKEN_FILE=file.name,
                       AWS_ROLE_ARN="arn:aws:iam::1:role/x", AWS_ENDPOINT_URL_STS=self.base + "/")
            status, _, message = store(env, URL, "put", "k", body=b"text")
            self.assertEqual(status, EACCES)
            self.assertIn("InvalidIdentityToken", message)
        env = dict(self.env, AWS_CONTAINER_CREDENTIALS_FULL_URI=self.base + "/wrong")
        status, _, message = store(env, URL, "put", "k", body=b"text")
        self.assertEqual(status, EACCES)
        self.assertIn("HTTP 404", message)


if __name__ == "__main__":
    unittest.main()
