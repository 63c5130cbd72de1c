"""The crash points that the source names: crash_point("part.step") of base/crash.h."""

import os
import re

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PARTS = ("base", "cache", "cli", "csi", "fs", "meta", "s3")
POINT = re.compile(r'\bcrash_point\("([^"]+)"\)')


def texts(folders, endings):
    for folder in folders:
        for path, _, names in os.walk(os.path.join(ROOT, folder)):
            for name in sorted(names):
                if name.endswith(endings):
                    with open(os.path.join(path, name), encoding="utf-8") as f:
                        yield f.read()


def of_source(*parts):
    """Of these parts ("rebuild"), or of all, sorted."""
    found = {point for text in texts(PARTS, (".c", ".h")) for point in POINT.findall(text)}
    return sorted(p for p in found if not parts or p.split(".")[0] in parts)


def named_by_tests():
    """Points that a test names as its place to die; the test fails if it lives."""
    return {point for text in texts(("tests",), (".c", ".py")) for point in re.findall(r'"([a-z]+\.[a-z_]+)(?::\d+)?"', text)}
