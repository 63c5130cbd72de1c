#!/usr/bin/env python3
"""Runs the unittest cases of one file and writes the counts as JSON.

Usage: runner.py FILE [--summary PATH] [--limit SECONDS] [PART-OF-NAME ...]

Each test has a line when it begins and one when it ends, so that a log shows where a file hung. A
test that takes longer than the limit ends the whole file, with the stacks of all its threads.
"""

import argparse
import faulthandler
import importlib.util
import json
import os
import signal
import sys
import time
import unittest

LIB = os.path.dirname(os.path.abspath(__file__))


class Result(unittest.TestResult):
    """One verdict for each test, whatever its sub-tests did."""

    def __init__(self, limit):
        super().__init__()
        self.limit = limit
        self.passed, self.failed, self.skipped_names = [], [], []
        self.bad = False
        self.why_skipped = None
        self.began = 0.0

    def startTest(self, test):
        super().startTest(test)
        self.bad, self.why_skipped = False, None
        self.began = time.monotonic()
        print(f"--- {test.id()}", flush=True)
        faulthandler.dump_traceback_later(self.limit, exit=True)

    def stopTest(self, test):
        faulthandler.cancel_dump_traceback_later()
        super().stopTest(test)
        if self.bad:
            verdict = "FAILED"
            self.failed.append(test.id())
        elif self.why_skipped is not None:
            verdict = f"skipped: {self.why_skipped}"
            self.skipped_names.append(test.id())
        else:
            verdict = "ok"
            self.passed.append(test.id())
        print(f"    {test.id()}: {verdict} ({time.monotonic() - self.began:.1f} s)", flush=True)

    def _problem(self, test, err):
        print(self._exc_info_to_string(err, test), flush=True)
        self.bad = True
        if not isinstance(test, unittest.TestCase):
            # The set-up of a class or module: none of its tests is begun.
            self.failed.append(str(test))

    def addError(self, test, err):
        super().addError(test, err)
        self._problem(test, err)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self._problem(test, err)

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            print(f"in {subtest.id()}:", flush=True)
            self._problem(test, err)

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        print("expected to fail, but passed", flush=True)
        self.bad = True

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.why_skipped = reason
        if not isinstance(test, unittest.TestCase):
            print(f"    {test}: skipped: {reason}", flush=True)
            self.skipped_names.append(str(test))


def flatten(suite):
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from flatten(item)
        else:
            yield item


def load(path):
    sys.path[:0] = [LIB, os.path.dirname(os.path.abspath(path))]
    name = os.path.splitext(os.path.basename(path))[0]
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return unittest.defaultTestLoader.loadTestsFromModule(module)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file")
    parser.add_argument("parts", nargs="*", help="only tests whose name holds one of these")
    parser.add_argument("--summary", help="where to write the counts")
    parser.add_argument("--limit", type=float, default=600, help="seconds for one test (%(default)s)")
    args = parser.parse_args()

    # A shell has what it starts in the background ignore this; programs that are tested would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    faulthandler.enable()
    # Who ends this from outside sees where it hung.
    faulthandler.register(signal.SIGTERM, chain=True)
    suite = load(args.file)
    if args.parts:
        suite = unittest.TestSuite(
            test for test in flatten(suite) if any(part in test.id() for part in args.parts))
    result = Result(args.limit)
    suite.run(result)
    summary = {
        "passed": len(result.passed),
        "failed": len(result.failed),
        "skipped": len(result.skipped_names),
        "failures": result.failed,
    }
    if args.summary:
        with open(args.summary, "w", encoding="utf-8") as out:
            json.dump(summary, out)
    print(json.dumps(summary), flush=True)
    return 1 if result.failed else 0


if __name__ == "__main__":
    sys.exit(main())
