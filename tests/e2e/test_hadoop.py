"""Hadoop's own contract tests, through the jar, on a live mount over a real S3 server."""

import os
import re
import unittest
import xml.etree.ElementTree

import engines


class Hadoop(unittest.TestCase):
    def test_contract(self):
        with engines.engine_volume(options=["--posix-acl"]) as v:
            code, text = engines.maven("test", "-Dsluice.test.mount=" + v.mountpoint, check=False)
            failed, passed, skipped = [], 0, []
            folder = os.path.join(engines.HADOOP, "target", "surefire-reports")
            if code and not os.path.isdir(folder):
                self.fail(text[-20000:])
            for name in sorted(os.listdir(folder)):
                if not re.fullmatch(r"TEST-.*\.xml", name):
                    continue
                for case in xml.etree.ElementTree.parse(os.path.join(folder, name)).iter("testcase"):
                    title = case.get("classname").rpartition(".")[2] + "." + case.get("name")
                    if case.find("failure") is not None or case.find("error") is not None:
                        failed.append(title)
                    elif case.find("skipped") is not None:
                        skipped.append(title)
                    else:
                        passed += 1
            print("contract tests: %d passed, %d failed, %d skipped" % (passed, len(failed), len(skipped)))
            print("skipped: " + ", ".join(skipped))
            if code != 0 or failed:
                print(text[-20000:])
            self.assertEqual(failed, [])
            self.assertEqual(code, 0)
            self.assertGreater(passed, 250)
            v.check_no_strays()
            v.check_plain_objects()
            v.check_end()


if __name__ == "__main__":
    unittest.main()
