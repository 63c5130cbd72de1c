"""A token service for tests: AssumeRoleWithWebIdentity, for the tokens that it is told of. Its keys have no session
token: the S3 server of the tests knows none.

    with Sts(access, secret) as sts:
        sts.accept("token"); sts.endpoint; sts.asked  # [(role, token), …]
"""

import datetime
import http.server
import threading
import urllib.parse


class Sts:
    def __init__(self, access, secret, life_s=3600):
        self.access, self.secret, self.life_s = access, secret, life_s
        self.accepted, self.asked = set(), []
        self.accepts = lambda token: token in self.accepted
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
                fields = dict(urllib.parse.parse_qsl(body))
                outer.asked.append((fields.get("RoleArn"), fields.get("WebIdentityToken")))
                status, text = outer.answer(fields)
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.endpoint = "http://127.0.0.1:%d/" % self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever)

    def accept(self, *tokens):
        self.accepted = set(tokens)

    def answer(self, fields):
        if fields.get("Action") != "AssumeRoleWithWebIdentity" or not self.accepts(fields.get("WebIdentityToken", "")):
            return 403, "<ErrorResponse><Error><Code>InvalidIdentityToken</Code><Message>no</Message></Error></ErrorResponse>"
        end = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=self.life_s)
        return 200, ("<AssumeRoleWithWebIdentityResponse xmlns=\"x\"><AssumeRoleWithWebIdentityResult><Credentials>"
                     "<AccessKeyId>%s</AccessKeyId><SecretAccessKey>%s</SecretAccessKey><SessionToken></SessionToken>"
                     "<Expiration>%s</Expiration></Credentials></AssumeRoleWithWebIdentityResult>"
                     "</AssumeRoleWithWebIdentityResponse>" % (self.access, self.secret, end.strftime("%Y-%m-%dT%H:%M:%SZ")))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
