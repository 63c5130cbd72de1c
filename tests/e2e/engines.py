"""The engines of the end-to-end tests: where they come from, and what all their tests check.

Everything that is fetched stays in SLUICE_E2E_CACHE (default ~/.cache/sluice/e2e): a Maven repository
and a Python environment for each set of packages. Engines run at low priority, one at a time.
"""

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "lib"))

import gateway  # noqa: E402
import service  # noqa: E402
import volume  # noqa: E402

CACHE = os.environ.get("SLUICE_E2E_CACHE") or os.path.join(
    os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "sluice", "e2e")
HADOOP = os.path.join(ROOT, "hadoop")
INSTALL_S = 1800
JOB_S = 900
GC_S = 60  # gc begins after its delay, and waits while users are busy
POLITE = ["nice", "-n", "10"]
# The staging names of a volume (docs/open-layout.md) that engines use.
STAGING = re.compile(r"(^|/)(_temporary|\.hive-staging|\.spark-staging|\.[^/]*\.inprogress)")


def environment(extra=None):
    """For engines: file names are UTF-8, and AWS_ names of the caller mean nothing."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "SPARK_", "HADOOP_"))}
    env.update(LANG="C.UTF-8", LC_ALL="C.UTF-8", TZ="UTC", PYTHONDONTWRITEBYTECODE="1")
    env.update(extra or {})
    return env


def run(command, limit=JOB_S, env=None, check=True, cwd=None, log=None):
    """Runs a program to its end at low priority; its output as text. It is shown when it fails."""
    out = open(log, "ab") if log else subprocess.PIPE
    try:
        done = subprocess.run(POLITE + command, stdin=subprocess.DEVNULL, stdout=out,
                              stderr=subprocess.STDOUT, timeout=limit, env=env or environment(),
                              cwd=cwd or CACHE, check=False)
    finally:
        if log:
            out.close()
    text = open(log, errors="replace").read() if log else done.stdout.decode(errors="replace")
    if check and done.returncode != 0:
        print(text[-20000:], flush=True)
        raise AssertionError("%s ended with %d" % (os.path.basename(command[0]), done.returncode))
    return done.returncode, text


def start(command, log, env=None, cwd=None):
    """Starts a program at low priority, its output in a file. It has a session of its own, which stop() ends as a whole."""
    with open(log, "ab") as output:
        return subprocess.Popen(POLITE + command, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                env=env or environment(), cwd=cwd or CACHE, start_new_session=True)


def stop(child):
    """kill -9 of what start() started, if it still runs."""
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def run_through(command, log, what, condition, fault, env=None, cwd=None):
    """Runs a program to its end, and fault() as soon as condition() is true, which must be before that end; its exit
    code and its output. fault(child) may stop() it."""
    if os.path.exists(log):
        os.unlink(log)
    child = start(command, log, env, cwd)

    def said():
        with open(log, errors="replace") as file:
            return file.read()

    try:
        volume.wait_until(what, lambda: condition() or child.poll() is not None, JOB_S)
        if child.poll() is not None:
            raise AssertionError("the program ended before the fault:\n" + said()[-8000:])
        fault(child)
        return child.wait(timeout=JOB_S), said()
    finally:
        stop(child)


def maven(*arguments, limit=INSTALL_S, check=True, cwd=HADOOP):
    os.makedirs(CACHE, exist_ok=True)
    return run(["mvn", "-B", "-ntp", "-Dstyle.color=never",
                "-Dmaven.repo.local=" + os.path.join(CACHE, "m2"), *arguments],
               limit=limit, check=check, cwd=cwd)


def jar():
    """Builds hadoop/ and returns the jar."""
    maven("-q", "package", "-DskipTests")
    target = os.path.join(HADOOP, "target")
    (name,) = [f for f in os.listdir(target) if re.fullmatch(r"sluice-hadoop-[\d.]+\.jar", f)]
    return os.path.join(target, name)


def maven_jar(group, artifact, version):
    """The jar of a package, without what it depends on."""
    path = os.path.join(CACHE, "m2", *group.split("."), artifact, version,
                        "%s-%s.jar" % (artifact, version))
    if not os.path.exists(path):
        maven("-q", "dependency:get", "-Dartifact=%s:%s:%s" % (group, artifact, version),
              "-Dtransitive=false")
    return path


def python(name, *packages, pip=()):
    """The interpreter of an environment with these packages. `pip`: more arguments."""
    home = os.path.join(CACHE, name)
    interpreter = os.path.join(home, "bin", "python")
    stamp = os.path.join(home, "installed")
    wanted = "\n".join(packages)
    if not os.path.exists(stamp) or open(stamp).read() != wanted:
        shutil.rmtree(home, ignore_errors=True)
        os.makedirs(CACHE, exist_ok=True)
        run([sys.executable, "-m", "venv", home], limit=INSTALL_S)
        run([interpreter, "-m", "pip", "install", "-q", *pip, *packages], limit=INSTALL_S,
            env=dict(os.environ))
        with open(stamp, "w") as file:
            file.write(wanted)
    return interpreter


class Checks:
    """What must be true of a mount after each job on it."""

    inline_max = None

    def files(self):
        """Path below the mount: its size, of all that is no directory."""
        found = {}
        for at, _, names in os.walk(self.mountpoint):
            for name in names:
                path = os.path.join(at, name)
                found[os.path.relpath(path, self.mountpoint)] = os.lstat(path).st_size
        return found

    def plain_objects(self):
        keys = self.gateway.list(self.bucket, self.prefix)
        return {k[len(self.prefix):]: size for k, size in keys.items()
                if not k[len(self.prefix):].startswith(".sluice") and not k.endswith("/")}

    def check_plain_objects(self):
        """After settle, and gc of what was removed, the bucket holds each file as one object with its
        bytes, and nothing else: what a killed engine left under a staging name is not at its own key."""
        self.settle()
        files = {name: size for name, size in self.files().items() if not STAGING.search(name)}
        end = time.monotonic() + GC_S
        while (plain := self.plain_objects()) != files:
            if time.monotonic() > end:
                only = sorted(set(files.items()) ^ set(plain.items()))
                raise AssertionError("the bucket and the mount differ: %r" % only[:20])
            time.sleep(0.2)
        for name in files:
            with open(self.path(name), "rb") as file:
                mine = hashlib.sha256(file.read()).hexdigest()
            theirs = hashlib.sha256(self.gateway.get(self.bucket, self.prefix + name)).hexdigest()
            if mine != theirs:
                raise AssertionError("the object of %s has other bytes" % name)
        return len(files)

    def check_no_strays(self, patterns=(r"_temporary", r"\.spark-staging", r"\.hive-staging",
                                        r"\.crc$", r"\.inprogress", r"\.tmp$")):
        """Nothing of what engines use only while they work."""
        strays = [name for at, folders, names in os.walk(self.mountpoint)
                  for name in (os.path.relpath(os.path.join(at, n), self.mountpoint)
                               for n in folders + names)
                  if any(re.search(p, name) for p in patterns)]
        if strays:
            raise AssertionError("left behind: %r" % strays[:20])

    def check_end(self):
        """Unmounts, and checks every record of the namespace."""
        self.unmount()
        wrong = self.check_metadata()
        if wrong:
            raise AssertionError("fsck: " + wrong)


class EngineVolume(Checks, volume.Volume):
    """A mount over a real S3 server."""


class EngineServiceVolume(Checks, service.ServiceVolume):
    """A mount of a metadata service's volume over a real S3 server."""

    def check_end(self):
        self.unmount()
        self.service.stop()
        wrong = self.check_metadata()
        if wrong:
            raise AssertionError("fsck: " + wrong)


@contextlib.contextmanager
def engine_volume(**options):
    """A gateway with a mounted volume on a new bucket."""
    with gateway.Gateway() as gw, EngineVolume(gateway=gw, **options) as v:
        yield v


@contextlib.contextmanager
def engine_service_volume(**options):
    """The same by a metadata service of its own."""
    with gateway.Gateway() as gw, EngineServiceVolume(gateway=gw, **options) as v:
        yield v
