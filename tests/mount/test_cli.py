"""The commands as a user types them: help, wrong calls, background start, signals, mount(8), doctor."""

import contextlib
import errno
import json
import os
import pty
import resource
import signal
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from gateway import Gateway
from volume import ROOT, WAIT_S, Volume, binary, is_mounted, wait_until

def ended(pid):
    """Gone, or dead and not yet waited for by its parent."""
    try:
        with open("/proc/%d/stat" % pid) as f:
            return f.read().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


COMMANDS = ("mount umount status refresh notify settle du usage warm evict pin unpin cache quota store migrate doctor fsck gc import rebuild prefix backup restore "
            "csi bench bench-service bench-store trace serve volume version").split()


def sluice(*arguments, env=None):
    done = subprocess.run([binary(), *arguments], env=dict(os.environ, **(env or {})), stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)
    return done.returncode, done.stdout


def on_terminal(*arguments):
    """Exit status, and what the command says when its standard error is a terminal."""
    master, slave = pty.openpty()
    shown = b""
    with os.fdopen(master, "rb", buffering=0) as terminal:
        with os.fdopen(slave, "wb", buffering=0) as errors:
            process = subprocess.Popen([binary(), *arguments], stdin=subprocess.DEVNULL, stderr=errors)
        # The other side is closed: EIO.
        with contextlib.suppress(OSError):
            while part := terminal.read(4096):
                shown += part
        code = process.wait(120)
    return code, shown.decode()


class Calls(unittest.TestCase):
    def test_help_of_all(self):
        code, text = sluice("--help")
        self.assertEqual(code, 0)
        listed = text.split("Commands:\n")[1].split("\n\n")[0].splitlines()
        self.assertEqual([line.split()[0] for line in listed], COMMANDS)
        for command in COMMANDS:
            code, help_text = sluice(command, "--help")
            self.assertEqual(code, 0, command)
            self.assertGreater(len(help_text), 80, command)
            # A line of an example or a list that was too wide goes on at the margin.
            self.assertNotRegex(help_text, r"\n  (sluice|[a-z]+  ).*\n[^ \nA-Z]", command)

    def test_completion_knows_commands_actions_and_options(self):
        script = os.path.join(ROOT, "deploy/completion/sluice.bash")
        for line, words in (("sluice mou", ["mount"]), ("sluice cache ", ["status", "verify", "clear"]), ("sluice store a", ["attach", "add"]),
                            ("sluice mount --cache-s", ["--cache-size="]), ("sluice nonsense --", [])):
            asked = [binary(), *line.split(" ")[1:]]
            done = subprocess.run(["bash", "-c", 'source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _sluice; printf "%s\n" "${COMPREPLY[@]}"',
                                   script, *asked], capture_output=True, text=True, timeout=60, check=True)
            self.assertEqual(sorted(done.stdout.split()), sorted(words), line)

    def test_version(self):
        for arguments in (["version"], ["--version"], ["-V"]):
            code, text = sluice(*arguments)
            self.assertEqual(code, 0, text)
            self.assertRegex(text, r"^sluice \d+\.\d+\.\d+\n")

    def test_wrong_calls_end_with_2_and_one_reason(self):
        for arguments in ([], ["nonsense"], ["mount"], ["mount", "file:///x"], ["mount", "a", "b", "c"], ["mount", "--no-such-option", "a", "b"],
                          ["mount", "--memory", "lots", "file:///x", "/mnt"], ["mount", "--memory", "1K", "file:///x", "/mnt"],
                          ["mount", "--sync", "sometimes", "file:///x", "/mnt"], ["mount", "-o", "nonsense=1", "file:///x", "/mnt"],
                          ["umount"], ["usage", "--no-such-option"], ["version", "x"], ["fsck"], ["warm"], ["quota", "check", "/", "--json"], ["store"],
                          ["bench-store", "--ops", "nonsense", "file:///nonexistent"]):
            code, text = sluice(*arguments)
            self.assertEqual(code, 2, (arguments, text))
            self.assertGreater(len(text), 10, arguments)
            self.assertLessEqual(len(text.splitlines()), 60 if not arguments else 2, text)
        self.assertFalse(os.path.exists("/nonexistent"))

    def test_help_by_name(self):
        self.assertEqual(sluice("help", "umount"), sluice("umount", "--help"))

    def test_a_value_out_of_range_is_answered_with_the_range(self):
        for option, value, word in (("--memory", "1M", "128M is the least"), ("--import-ttl", "99d", "49 days"), ("--connections", "0", "between 1 and"),
                                    ("--part-size", "6G", "between 5M and")):
            code, text = sluice("mount", option, value, "file:///x", "/mnt")
            self.assertEqual(code, 2, text)
            self.assertIn(word, text)


class Output(unittest.TestCase):
    def test_full_disk_is_no_success(self):
        with open("/dev/full", "w") as full:
            for arguments in (["--help"], ["mount", "--help"], ["version"], ["bench", "--list"]):
                done = subprocess.run([binary(), *arguments], stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
                self.assertEqual((done.returncode, "No space left" in done.stderr), (1, True), (arguments, done.stderr))

    def test_a_benchmark_that_nobody_reads_removes_what_it_made(self):
        with tempfile.TemporaryDirectory() as directory:
            process = subprocess.Popen([binary(), "bench", "--only", "metadata", "-n", "10", "-r", "2", "-t", "1", directory],
                                       stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            process.stdout.close()
            self.assertNotIn(process.wait(120), (0, -signal.SIGPIPE))
            self.assertEqual(os.listdir(directory), [])


class Bad(unittest.TestCase):
    """Bad input: one clear line, a non-zero exit, nothing changed."""

    def setUp(self):
        self.v = Volume()
        self.addCleanup(self.v.close)

    def fails(self, word, *arguments, env=None):
        code, text = sluice(*arguments, env=env)
        self.assertNotEqual(code, 0, text)
        self.assertEqual(len(text.strip().splitlines()), 1, text)
        self.assertIn(word, text)
        self.assertFalse(is_mounted(self.v.mountpoint))
        self.assertFalse(os.path.exists(os.path.join(self.v.directory, "meta")))

    def mount_fails(self, word, url=None, mountpoint=None, options=(), env=None):
        self.fails(word, "mount", url or self.v.url, mountpoint or self.v.mountpoint, "--meta-dir", os.path.join(self.v.directory, "meta"), *options, env=env)

    def test_urls(self):
        for url, word in (("bucket", "bucket"), ("http://x/y", "http"), ("s3://", "bucket name"), ("s3://UPPER_case", "bucket"), ("s3://buck/../c", ".."),
                          ("file://relative", "file://"), ("file:///a/../b", ".."), ("s3://buck/a//b", "empty"),
                          ("sluice://127.0.0.1:99999/v", "HOST:PORT"), ("sluice://127.0.0.1:0/v", "HOST:PORT")):
            self.mount_fails(word, url=url)

    def test_writeback_is_not_for_volumes_of_a_service(self):
        self.mount_fails("--writeback", url="sluice://127.0.0.1:9/v", options=["--writeback"])

    def test_mount_point_that_is_not_there(self):
        self.mount_fails("No such file", mountpoint="/nonexistent/mnt")

    def test_mount_point_that_is_a_file(self):
        path = os.path.join(self.v.directory, "file")
        open(path, "w").close()
        self.mount_fails("not a directory", mountpoint=path)

    def test_mount_point_inside_the_bucket(self):
        inside = os.path.join(self.v.bucket, "mnt")
        os.mkdir(inside)
        self.mount_fails("inside the bucket", mountpoint=inside)

    def test_bucket_or_metadata_that_is_not_there(self):
        nowhere, meta = os.path.join(self.v.directory, "nowhere"), os.path.join(self.v.directory, "meta")
        for command in ("rebuild", "fsck", "gc", "backup", "restore"):
            self.fails("nowhere" if command in ("rebuild", "restore") else "no metadata", command, "file://" + nowhere, "--meta-dir", meta)
            self.fails("inside the bucket", command, self.v.url, "--meta-dir", os.path.join(self.v.bucket, "meta"))
        self.assertFalse(os.path.exists(nowhere) or os.path.exists(meta))
        self.assertEqual(os.listdir(self.v.bucket), [])

    def test_bucket_in_a_directory_that_is_not_there(self):
        above = os.path.join(self.v.directory, "no")
        code, text = sluice("mount", "file://%s/such" % above, self.v.mountpoint, "--meta-dir", os.path.join(self.v.directory, "meta"))
        self.assertEqual((code, len(text.splitlines()), "No such file" in text), (1, 1, True), text)
        self.assertFalse(os.path.exists(above))

    def test_configuration_files(self):
        path = os.path.join(self.v.directory, "config.json")
        for text, word in (("{", "config.json:1"), ("[]", "object"), ('{"no-such": 1}', "no-such"), ('{"memory": "much"}', "memory"), ('{"read-only": 3}', "read-only")):
            with open(path, "w") as f:
                f.write(text)
            self.mount_fails(word, options=["--config", path])
        self.mount_fails("No such file", options=["--config", path + ".gone"])

    def test_environment(self):
        self.mount_fails("SLUICE_MEMORY", env={"SLUICE_MEMORY": "much"})

    def test_commands_outside_of_a_mount(self):
        for command in ("status", "refresh", "settle", "usage", "umount"):
            self.fails("not in a mount", command, self.v.directory)
            self.fails("No such file", command, os.path.join(self.v.directory, "no/such"))


    def test_volumes_of_a_directory_that_is_not_there(self):
        missing = os.path.join(self.v.directory, "missing")
        self.fails("%s: No such file" % missing, "volume", "list", "--data-dir", missing)
        self.assertEqual(sluice("volume", "list", env={"HOME": missing, "XDG_STATE_HOME": missing})[0], 0)


class Life(unittest.TestCase):
    def setUp(self):
        self.v = Volume()
        self.addCleanup(self.v.close)
        self.meta = os.path.join(self.v.directory, "meta")

    def pid(self):
        return json.loads(sluice("status", "--json", self.v.mountpoint)[1])["mount"]["pid"]

    def take_away(self, pid):
        if is_mounted(self.v.mountpoint):
            os.kill(pid, signal.SIGKILL)

    def start(self, *options, env=None):
        code, text = sluice("mount", self.v.url, self.v.mountpoint, "--meta-dir", self.meta, *options, env=env)
        self.assertEqual(code, 0, text)
        self.assertTrue(is_mounted(self.v.mountpoint), "it came back before it was ready")
        pid = self.pid()
        self.addCleanup(self.take_away, pid)
        return pid

    def test_background_start_and_umount(self):
        pid = self.start()
        self.v.write("f", b"x" * 100000)
        code, text = sluice("umount", self.v.mountpoint)
        self.assertEqual((code, is_mounted(self.v.mountpoint)), (0, False), text)
        self.assertTrue(ended(pid), "it came back before the daemon ended")
        self.assertEqual(self.v.object("f"), b"x" * 100000)

    def test_a_second_mount_at_the_same_place_is_refused(self):
        self.start()
        other = tempfile.mkdtemp(dir=self.v.directory)
        code, text = sluice("mount", "file://" + other, self.v.mountpoint, "--meta-dir", self.meta + ".other")
        self.assertEqual(code, 1, text)
        self.assertIn("a mount of Sluice already", text)
        self.assertEqual(os.listdir(other), [], "it changed the other bucket")
        self.assertFalse(os.path.exists(self.meta + ".other"))

    def test_who_is_refused_leaves_no_metadata(self):
        """It would keep rebuild and restore from their work, as if something were known to it alone."""
        self.start()
        other = self.meta + ".other"
        with tempfile.TemporaryDirectory() as place:
            for command in (["mount", self.v.url, place], ["rebuild", self.v.url]):
                code, text = sluice(*command, "--meta-dir", other)
                self.assertEqual((code, len(text.splitlines())), (1, 1), text)
                self.assertIn("the prefix belongs to", text)
                self.assertFalse(os.path.exists(other), command)

    def test_errors_name_the_path_in_one_line(self):
        self.start()
        self.v.write("two\nlines", b"")
        missing = self.v.path("missing")
        for command in (["du"], ["settle"], ["refresh"], ["status"], ["cache", "status"], ["store", "list"], ["migrate"], ["quota", "get"],
                        ["quota", "set", "--bytes", "1G"]):
            code, text = sluice(*command, missing)
            self.assertEqual((code, len(text.splitlines())), (1, 1), text)
            self.assertRegex(text, "^sluice %s.*: %s: No such file or directory\n" % (command[0], missing))
        os.symlink("nothing", self.v.path("dangling"))
        self.assertEqual(sluice("status", self.v.path("dangling"))[0], 0)
        code, text = sluice("pin", self.v.path("two\nlines"))  # a mount without a cache
        self.assertEqual((code, len(text.splitlines())), (1, 2), text)
        self.assertEqual(text.count("two lines"), 1, text)
        code, text = sluice("store", "detach", "main", self.v.mountpoint)
        self.assertIn("own store", text)
        self.assertEqual(json.loads(sluice("restore", self.v.url, "--list", "--json")[1]), {"backups": []})

    def test_read_only_mount_starts_in_silence(self):
        code, text = sluice("mount", self.v.url, self.v.mountpoint, "--read-only")
        self.addCleanup(self.take_away, self.pid())
        self.assertEqual((code, text), (0, ""))

    def test_umount_leaves_plain_objects_and_keep_does_not(self):
        self.start("--settle-delay", "1h")
        self.v.write("small", b"inline")
        code, text = sluice("umount", self.v.mountpoint)
        self.assertEqual((code, text), (0, ""))
        self.assertEqual(self.v.object("small"), b"inline")
        self.start()
        self.v.write("later", b"inline")
        self.assertEqual(sluice("umount", "--keep", self.v.mountpoint)[0], 0)
        self.assertEqual(self.v.object("later"), None)
        self.start()
        self.assertEqual(self.v.read("later"), b"inline")
        self.assertEqual(sluice("umount", self.v.mountpoint)[0], 0)
        self.assertEqual(self.v.object("later"), b"inline")

    def test_umount_names_what_cannot_be_settled(self):
        self.start("--settle-delay", "1h", "--import-ttl", "1h")
        self.v.write("taken", b"mine")
        os.mkdir(os.path.join(self.v.bucket, "taken"))  # a store on a filesystem cannot have both
        with open(os.path.join(self.v.bucket, "taken", "x"), "wb") as f:
            f.write(b"somebody else's")
        code, text = sluice("umount", self.v.mountpoint)
        self.assertEqual((code, is_mounted(self.v.mountpoint)), (0, False), text)
        self.assertIn("not all is settled", text)
        self.start()
        self.assertEqual(self.v.read("taken"), b"mine")
        self.assertEqual(sluice("umount", "--keep", self.v.mountpoint)[0], 0)

    def test_umount_shows_what_is_left_to_upload(self):
        self.start("--durability", "local", "--upload-delay", "1h")
        self.v.write("f", bytes(20 << 20))
        data = self.v.status()["mount"]["data"]
        self.assertGreater(data["unsent_bytes"], 0)
        code, shown = on_terminal("umount", self.v.mountpoint)
        self.assertIn("uploading [", shown)
        self.assertIn("MiB left", shown)
        self.assertEqual(code, 0, shown)
        self.assertEqual(self.v.object("f"), bytes(20 << 20))

    def test_umount_in_use_is_refused(self):
        self.start()
        with open(self.v.path("f"), "w"):
            code, text = sluice("umount", self.v.mountpoint)
            self.assertEqual(code, 1)
            self.assertIn("in use", text)
        self.assertEqual(sluice("umount", self.v.mountpoint)[0], 0)

    def test_umount_in_use_is_refused_before_it_settles(self):
        self.start("--settle-delay", "1h", "--inline-max", "128K")
        self.v.write("f", b"x" * 50000)
        with open(self.v.path("f"), "rb"):
            code, text = sluice("umount", self.v.mountpoint)
        self.assertEqual(code, 1, text)
        self.assertIn("in use", text)
        self.assertIsNone(self.v.object("f"))
        self.assertEqual(sluice("umount", self.v.mountpoint)[0], 0)
        self.assertEqual(self.v.object("f"), b"x" * 50000)

    def test_umount_ends_copies_in_other_namespaces(self):
        pid = self.start()
        self.v.write("f", b"x" * 50000)
        # A mount namespace that nothing is told to, as of a container that was started meanwhile.
        other = subprocess.Popen(["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo ready; read end"],
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.addCleanup(other.wait, 120)
        self.addCleanup(other.stdin.close)
        self.addCleanup(other.stdout.close)
        self.assertEqual(other.stdout.readline(), "ready\n")
        code, text = sluice("umount", self.v.mountpoint)
        self.assertEqual(code, 0, text)
        self.assertTrue(ended(pid))
        self.assertFalse(is_mounted(self.v.mountpoint))
        self.assertEqual(self.v.object("f"), b"x" * 50000)
        copy = "/proc/%d/root%s/f" % (other.pid, self.v.mountpoint)
        with self.assertRaises(OSError) as caught:
            open(copy, "rb")
        self.assertEqual(caught.exception.errno, errno.ENOTCONN)

    def test_umount_while_requests_wait(self):
        """The kernel tells a thread that holds one of them of an abort, as it does the others of the end."""
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
        for _ in range(12):
            self.v.mount()
            self.v.write("f", b"x")
            handles = [os.open(self.v.path("f"), os.O_RDONLY) for _ in range(min(3500, limits[1] - 100))]
            for fd in handles:
                os.close(fd)  # a RELEASE each that nobody waits for
            subprocess.run(["umount", self.v.mountpoint], check=True, timeout=WAIT_S)
            self.assertEqual(self.v.process.wait(timeout=WAIT_S), 0, self.v.output())
            self.v.process = None

    def test_sigterm_unmounts_cleanly(self):
        pid = self.start("--inline-max", "128K")
        self.v.write("f", b"x" * 300000)
        os.kill(pid, signal.SIGTERM)
        wait_until("the daemon to end", lambda: ended(pid))
        self.assertFalse(is_mounted(self.v.mountpoint))
        self.assertEqual(self.v.object("f"), b"x" * 300000)

    def test_configuration_file_and_environment(self):
        path = os.path.join(self.v.directory, "config.json")
        with open(path, "w") as f:
            json.dump({"read-only": True, "log-level": "debug"}, f)
        pid = self.start("--config", path)
        with self.assertRaises(OSError):
            self.v.write("f", b"")
        os.kill(pid, signal.SIGTERM)
        wait_until("the daemon to end", lambda: ended(pid))

    def test_as_a_helper_of_mount(self):
        """How mount -t fuse.sluice and /etc/fstab call it: by way of mount.fuse, or as mount.fuse.sluice."""
        link = os.path.join(self.v.directory, "mount.fuse.sluice")
        os.symlink(binary(), link)
        options = "rw,_netdev,noatime,x-systemd.automount,meta-dir=%s,settle_delay=1s" % self.meta
        for program in (binary(), link):
            done = subprocess.run([program, self.v.url, self.v.mountpoint, "-o", options],
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)
            self.assertEqual(done.returncode, 0, done.stdout)
            self.addCleanup(self.take_away, self.pid())
            self.v.write("f", b"by fstab")
            self.assertEqual(self.v.read("f"), b"by fstab")
            self.assertEqual(sluice("umount", self.v.mountpoint)[0], 0)

    def test_default_places(self):
        env = {"HOME": self.v.directory, "XDG_STATE_HOME": ""}
        code, text = sluice("fsck", "file:///nonexistent/%s" % os.path.basename(self.v.directory), env=env)
        self.assertEqual(code, 1)
        self.assertIn("/sluice/", text)


class Doctor(unittest.TestCase):
    def test_of_a_good_bucket(self):
        with Gateway() as gw:
            gw.make_bucket("bucket")
            code, text = sluice("doctor", "s3://bucket/some/prefix", env=gw.env())
            self.assertEqual(code, 0, text)
            self.assertRegex(text, r"ok +put-if-none-match")
            self.assertEqual(list(gw.list("bucket")), [], "it left something behind")

    def test_of_a_bucket_that_is_not_there(self):
        with Gateway() as gw:
            code, text = sluice("doctor", "s3://missing", env=gw.env())
            self.assertEqual((code, text.count("NoSuchBucket")), (1, 1), text)
            self.assertIn("make the bucket first", text)
            self.assertNotIn("probe", text)

    def test_of_a_directory(self):
        v = Volume()
        self.addCleanup(v.close)
        code, text = sluice("doctor", v.url)
        self.assertEqual(code, 0, text)
        self.assertEqual([n for n in os.listdir(v.bucket) if not n.startswith(".sluice")], [])

    def test_of_nothing(self):
        code, text = sluice("doctor", "s3://bucket", "--endpoint", "http://127.0.0.1:9", "--access-key", "a", "--secret-key", "b", "--deadline", "1s")
        self.assertEqual(code, 1)
        self.assertIn("BAD", text)


if __name__ == "__main__":
    unittest.main()
