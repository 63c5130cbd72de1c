"""When the kernel may answer a listing itself: of directories that were made here, as long as nothing changes in them."""

import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from volume import Volume, wait_until

NAMES = ["f%d" % i for i in range(30)]


def asked(volume):
    """How many listings the kernel asked for."""
    return volume.metric('sluice_fs_request_seconds_count{op="readdir"}')


class Listing(unittest.TestCase):
    def start(self, objects=(), options=()):
        volume = Volume(options=list(options))
        self.addCleanup(volume.close)
        for key in objects:
            volume.put_object(key, b"x")
        volume.mount()
        return volume

    def fill(self, volume, name):
        os.mkdir(volume.path(name))
        for f in NAMES:
            volume.write(name + "/" + f, b"x")
        self.assertEqual(sorted(os.listdir(volume.path(name))), sorted(NAMES))

    def test_a_second_listing_of_what_was_made_here_is_not_asked_for(self):
        v = self.start()
        self.fill(v, "made")

        def is_kept():
            before = asked(v)
            for _ in range(3):
                self.assertEqual(sorted(os.listdir(v.path("made"))), sorted(NAMES))
            return asked(v) == before

        # A handle that the kernel is still closing has the listing until the mount learns of that.
        wait_until("listings without a question", is_kept)

    def test_each_change_is_listed_at_once(self):
        v = self.start()
        self.fill(v, "made")
        names = set(NAMES)

        def check():
            for _ in range(2):
                self.assertEqual(set(os.listdir(v.path("made"))), names)

        v.write("made/new", b"x")
        names.add("new")
        check()
        os.unlink(v.path("made/f3"))
        names.remove("f3")
        check()
        os.rename(v.path("made/f4"), v.path("made/moved"))
        names ^= {"f4", "moved"}
        check()
        os.mkdir(v.path("made/below"))
        names.add("below")
        check()
        os.rename(v.path("made/f5"), v.path("gone"))
        names.remove("f5")
        check()
        os.rename(v.path("gone"), v.path("made/back"))
        names.add("back")
        check()
        v.settle()
        check()

    def test_what_another_client_put_there_is_listed_after_a_refresh(self):
        v = self.start()
        self.fill(v, "made")
        v.settle()
        os.listdir(v.path("made"))
        v.put_object("made/theirs", b"theirs")
        v.refresh()
        wait_until("their name", lambda: "theirs" in os.listdir(v.path("made")))
        v.delete_object("made/theirs")
        v.refresh()
        wait_until("it to go", lambda: "theirs" not in os.listdir(v.path("made")))

    def test_a_directory_of_the_bucket_is_asked_for_again(self):
        v = self.start(["theirs/a", "theirs/b"], ["--import-ttl", "100ms"])
        self.assertEqual(sorted(os.listdir(v.path("theirs"))), ["a", "b"])
        v.put_object("theirs/c", b"x")
        wait_until("a new name", lambda: sorted(os.listdir(v.path("theirs"))) == ["a", "b", "c"])


if __name__ == "__main__":
    unittest.main()
