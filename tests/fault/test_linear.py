"""Linearizability: what programs on four mounts of one volume saw under faults has one order that a single machine could have answered
in. tests/linear has the clients, the faults and the checker; tests/linear/run runs it longer."""

import json
import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "linear"))
import history

SEED = 20240917
SECONDS = 20


class Mounts(unittest.TestCase):
    def round(self, cluster, seed, seconds, faults):
        print("seed %d" % seed, flush=True)
        history.record(cluster, seed, seconds, faults, say=lambda text: print(text, flush=True))

    def test_under_faults(self):
        minutes = float(os.environ.get("SLUICE_TEST_MINUTES", "0"))
        with history.Cluster() as cluster:
            self.round(cluster, SEED, max(SECONDS, minutes * 60), sorted(history.FAULTS))
            good, text = history.check(*cluster.files)
            self.assertTrue(good, text)
            self.assertGreater(sum(1 for file in cluster.files for _ in open(file, encoding="ascii")), 500)

    def test_a_stale_client_is_found(self):
        """One that says that it dropped what it was told to, and did not: or the checker would find nothing anywhere."""
        with history.Cluster(liar=1) as cluster:
            self.round(cluster, SEED, 6, ())
            good, text = history.check(*cluster.files)
            self.assertGreater(cluster.mounts[1].proxy.swallowed, 0)
            self.assertFalse(good, text)


class Checker(unittest.TestCase):
    """Small histories whose verdict is known. Each is accepted, and with its last line refused."""

    def verdict(self, lines):
        path = os.path.join(os.environ.get("TMPDIR", "/tmp"), "history.json")
        with open(path, "w", encoding="ascii") as f:
            for i, line in enumerate(lines):
                line = {"client": i % 2, "group": 0, "result": "ok", "call": 10 * i + 10, "return": 10 * i + 15, **line}
                f.write(json.dumps(line) + "\n")
        return history.check(path)[0]

    def test_verdicts(self):
        made = [{"op": "create", "name": 0, "ino": 5}]
        cases = {
            "lost create": (made, {"op": "open", "name": 0, "ino": 0}),
            "created twice": (made, {"op": "create", "name": 0, "ino": 6}),
            "old content": (made + [{"op": "write", "ino": 5, "value": 1}, {"op": "write", "ino": 5, "value": 2}],
                            {"op": "read", "ino": 5, "value": 1}),
            "both names": (made + [{"op": "rename", "name": 0, "to": 1}, {"op": "open", "name": 1, "ino": 5}], {"op": "open", "name": 0, "ino": 5}),
            "moved twice": (made + [{"op": "rename", "name": 0, "to": 1}], {"op": "rename", "name": 0, "to": 2}),
            "resurrected": (made + [{"op": "unlink", "name": 0}, {"op": "open", "name": 0, "ino": 0}], {"op": "open", "name": 0, "ino": 5}),
            "links not counted": (made + [{"op": "link", "ino": 5, "to": 1}, {"op": "attr", "ino": 5, "value": 2}], {"op": "attr", "ino": 5, "value": 1}),
            "done after it was seen undone": ([{"op": "create", "name": 0, "result": "unknown"}, {"op": "open", "name": 0, "ino": 0},
                                               {"op": "open", "name": 0, "ino": 5}], {"op": "open", "name": 0, "ino": 6}),
            "a name listed after it went": (made + [{"op": "list", "name": 0, "value": 1}, {"op": "list", "name": 1, "value": 0},
                                                    {"op": "unlink", "name": 0}, {"op": "list", "name": 0, "value": 0}],
                                           {"op": "list", "name": 0, "value": 1}),
            "half an exchange": (made + [{"op": "create", "name": 1, "ino": 6}, {"op": "mark", "ino": 6, "value": 7},
                                         {"op": "rename", "name": 0, "to": 1, "how": "exchange"}, {"op": "open", "name": 1, "ino": 5},
                                         {"op": "marked", "ino": 6, "value": 7}], {"op": "open", "name": 0, "ino": 0}),
            "replaced in spite of the word": (made + [{"op": "create", "name": 1, "ino": 6},
                                                      {"op": "rename", "name": 0, "to": 1, "how": "noreplace", "result": "EEXIST"}],
                                              {"op": "rename", "name": 0, "to": 1, "how": "noreplace"}),
            "an old mark": (made + [{"op": "marked", "ino": 5, "value": 0}, {"op": "mark", "ino": 5, "value": 3},
                                    {"op": "link", "ino": 5, "to": 1}, {"op": "unlink", "name": 0}, {"op": "marked", "ino": 5, "value": 3}],
                            {"op": "marked", "ino": 5, "value": 0}),
            "two owners of a lock": ([{"op": "lock"}, {"op": "lock", "result": "EAGAIN"}], {"op": "lock"}),
        }
        for name, (good, last) in cases.items():
            with self.subTest(name):
                self.assertTrue(self.verdict(good))
                self.assertFalse(self.verdict(good + [last]))

    def test_bad_history(self):
        for line in ({"op": "fly"}, {"op": "open", "name": 99}, {"op": "open", "return": 1}, {"op": "open", "result": "perhaps"},
                     {"op": "rename", "how": "perhaps"}):
            with self.assertRaises(AssertionError):
                self.verdict([line])


if __name__ == "__main__":
    unittest.main()
