"""How often a mount waits for the disk: once for each close, fsync and rename that must, and never without need."""

import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from volume import Volume


class Syncs(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        # No sync but those that somebody waits for.
        cls.volume = Volume(options=["--sync-interval=60s", "--no-settle"])
        cls.volume.mount()
        cls.addClassCleanup(cls.volume.close)

    @classmethod
    def tearDownClass(cls):
        cls.volume.unmount()

    def count(self):
        return self.volume.metric("sluice_meta_sync_seconds_count")

    def assertSyncs(self, expected, call):
        before = self.count()
        result = call()
        self.assertEqual(self.count() - before, expected)
        return result

    def create(self, name, data=b""):
        fd = os.open(self.volume.path(name), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        if data:
            os.write(fd, data)
        os.close(fd)

    def test_close_of_an_empty_file_syncs_once(self):
        self.assertSyncs(1, lambda: self.create("empty"))

    def test_close_of_a_small_file_syncs_once(self):
        self.assertSyncs(1, lambda: self.create("small", b"x" * 4096))

    def test_close_of_what_was_not_changed_does_not_sync(self):
        self.create("read")
        os.mkdir(self.volume.path("unsynced"))
        self.assertSyncs(0, lambda: os.close(os.open(self.volume.path("read"), os.O_RDONLY)))
        self.assertSyncs(0, lambda: os.close(os.open(self.volume.path("read"), os.O_RDWR)))

    def test_second_close_of_a_created_file_does_not_sync(self):
        fd = os.open(self.volume.path("twice"), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        copy = os.dup(fd)
        self.assertSyncs(1, lambda: os.close(copy))
        os.mkdir(self.volume.path("later"))
        self.assertSyncs(0, lambda: os.close(fd))

    def test_fsync_syncs_only_when_something_changed(self):
        fd = os.open(self.volume.path("fsync"), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        self.addCleanup(os.close, fd)
        self.assertSyncs(1, lambda: os.fsync(fd))
        self.assertSyncs(0, lambda: os.fsync(fd))
        os.write(fd, b"more")
        self.assertSyncs(1, lambda: os.fsync(fd))
        self.assertSyncs(0, lambda: os.fdatasync(fd))
        os.fchmod(fd, 0o600)
        self.assertSyncs(1, lambda: os.fsync(fd))

    def test_fsync_of_what_was_not_changed_does_not_sync_what_others_changed(self):
        os.mkdir(self.volume.path("still"))
        fd = os.open(self.volume.path("unchanged"), os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
        self.addCleanup(os.close, fd)
        other = os.open(self.volume.path("still"), os.O_RDONLY)
        self.addCleanup(os.close, other)
        os.fsync(fd)
        for change, changed in ((lambda: os.mkdir(self.volume.path("by others")), ()),
                                (lambda: os.link(self.volume.path("unchanged"), self.volume.path("second name")), (fd,)),
                                (lambda: os.write(fd, b"x"), (fd,)),
                                (lambda: os.setxattr(fd, "user.a", b"x"), (fd,)),
                                (lambda: os.utime(fd, (1, 1)), (fd,)),
                                (lambda: os.unlink(self.volume.path("second name")), (fd,)),
                                (lambda: os.mkdir(self.volume.path("still", "sub")), (other,)),
                                (lambda: os.rmdir(self.volume.path("still", "sub")), (other,))):
            change()
            for one in (fd, other):
                if one not in changed:
                    self.assertSyncs(0, lambda one=one: os.fsync(one))
            for one in changed:
                self.assertSyncs(1, lambda one=one: os.fsync(one))

    def test_rename_syncs_once(self):
        self.create("from")
        self.assertSyncs(1, lambda: os.rename(self.volume.path("from"), self.volume.path("to")))

    def test_others_do_not_sync(self):
        self.create("gone")
        self.assertSyncs(0, lambda: os.unlink(self.volume.path("gone")))
        self.assertSyncs(0, lambda: os.mkdir(self.volume.path("made")))
        self.assertSyncs(0, lambda: os.rmdir(self.volume.path("made")))


if __name__ == "__main__":
    unittest.main()
