"""Other S3 servers: how each is installed by its package's name, and started on a free port."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse

from gateway import Client, WAIT_S, free_port
from started import Started, end

CACHE = os.environ.get("SLUICE_SERVERS_CACHE") or os.path.join(
    os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "sluice", "servers")
INSTALL_S = 3600
ACCESS, SECRET = "sluicetest", "sluicetestsecret"
S3PROXY = "2.6.0"
POM = """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>sluice</groupId><artifactId>servers</artifactId><version>1</version><dependencies><dependency>
<groupId>org.gaul</groupId><artifactId>s3proxy</artifactId><version>%s</version></dependency></dependencies></project>
"""
LOGBACK = "<configuration><root level=\"OFF\"/></configuration>\n"


def install(path, *commands, cwd=None, env=None):
    """What the commands make at `path`, unless it is there."""
    if not os.path.exists(path):
        for command in commands:
            subprocess.run(["nice", "-n", "10", *command], check=True, timeout=INSTALL_S, cwd=cwd, stdin=subprocess.DEVNULL,
                           env=dict(os.environ, **(env or {})))
    return path


def moto(server):
    home = os.path.join(CACHE, "moto")
    program = install(os.path.join(home, "bin", "moto_server"), [sys.executable, "-m", "venv", home],
                      [os.path.join(home, "bin", "pip"), "-q", "install", "moto[server]"])
    return [program, "-H", server.host, "-p", str(server.port)], {}


def s3proxy(server, provider="filesystem-nio2"):
    home = os.path.join(CACHE, "s3proxy-" + S3PROXY)
    os.makedirs(home, exist_ok=True)
    with open(os.path.join(home, "pom.xml"), "w") as file:
        file.write(POM % S3PROXY)
    jars = install(os.path.join(home, "lib"), ["mvn", "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=lib"], cwd=home)
    options = {"s3proxy.authorization": "aws-v2-or-v4", "s3proxy.endpoint": server.endpoint, "s3proxy.identity": ACCESS,
               "s3proxy.credential": SECRET, "jclouds.provider": provider, "jclouds.identity": ACCESS,
               "jclouds.credential": SECRET, "jclouds.filesystem.basedir": server.data}
    settings, logback = os.path.join(server.directory, "conf"), os.path.join(server.directory, "logback.xml")
    with open(settings, "w") as file:
        file.writelines("%s=%s\n" % option for option in options.items())
    with open(logback, "w") as file:
        file.write(LOGBACK)
    return ["java", "-Xmx512m", "-Dlogback.configurationFile=" + logback, "-cp", os.path.join(jars, "*"), "org.gaul.s3proxy.Main",
            "--properties", settings], {}


def s3proxy_memory(server):
    return s3proxy(server, "transient-nio2")


def go(package):
    program = os.path.join(CACHE, "bin", package.split("@")[0].rsplit("/", 1)[1])
    return install(program, ["go", "install", "-p", "1", package], env={"GOBIN": os.path.dirname(program)})


def minio(server):
    return [go("github.com/minio/minio@latest"), "server", "--quiet", "--address", "%s:%d" % (server.host, server.port), server.data], {
        "MINIO_ROOT_USER": ACCESS, "MINIO_ROOT_PASSWORD": SECRET, "MINIO_BROWSER": "off"}


ALL = {"moto": moto, "s3proxy": s3proxy, "s3proxy-memory": s3proxy_memory, "minio": minio}


class Server(Started, Client):
    """One of ALL by its name, or the one at a URL. Stands in for a Gateway."""

    def __init__(self, name):
        self.process = self.directory = None
        self.name, url = name, urllib.parse.urlsplit(name)
        self.own = not url.scheme
        if self.own:
            super().__init__("127.0.0.1", free_port(), ACCESS, SECRET)
            self.directory = tempfile.mkdtemp(prefix="sluice-server-")
            self.data = os.path.join(self.directory, "data")
            os.mkdir(self.data)
        else:
            super().__init__(url.hostname, url.port or 80, os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"],
                             os.environ.get("AWS_REGION", "us-east-1"))

    @property
    def endpoint(self):
        return "http://%s:%d" % (self.host, self.port)

    def env(self, base=None):
        env = {k: v for k, v in (os.environ if base is None else base).items() if not k.startswith("AWS_")}
        env.update(AWS_ACCESS_KEY_ID=self.access, AWS_SECRET_ACCESS_KEY=self.secret, AWS_REGION=self.region,
                   AWS_ENDPOINT_URL_S3=self.endpoint, AWS_EC2_METADATA_DISABLED="true", AWS_CONFIG_FILE="/dev/null",
                   AWS_SHARED_CREDENTIALS_FILE="/dev/null")
        return env

    def start(self):
        if not self.own:
            return self
        command, env = ALL[self.name](self)
        with open(os.path.join(self.directory, "log"), "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.directory,
                                            env=dict(self.env(), HOME=self.directory, **env))
        end = time.monotonic() + WAIT_S
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > end:
                with open(os.path.join(self.directory, "log"), errors="replace") as log:
                    raise RuntimeError("%s does not start: %s" % (self.name, log.read()[-2000:]))
            time.sleep(0.1)
        return self

    def _answers(self):
        try:
            return self.request("GET", "/", ok=None)[0] == 200
        except (OSError, ValueError):
            return False

    def close(self):
        end(self.process)
        if self.directory:
            shutil.rmtree(self.directory, ignore_errors=True)
