"""One request is found in the logs of the mount and of the service, and the mount in those of the object store."""

import os
import re
import signal
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from gateway import Gateway
from service import ServiceVolume
from volume import wait_until
from wire_proxy import WireProxy


class RequestIds(unittest.TestCase):
    def test_a_slow_request_is_in_both_logs(self):
        a = ServiceVolume(service_options=["--lease", "5s"])
        self.addCleanup(a.close)
        a.mount()
        b = ServiceVolume(service=a.service, bucket=a.bucket)
        self.addCleanup(b.close)
        b.mount()
        a.write("f", b"1")
        self.assertEqual(b.read("f"), b"1")
        # B has it in its caches and says nothing: the change waits for the end of its lease.
        b.process.send_signal(signal.SIGSTOP)
        self.addCleanup(b.process.send_signal, signal.SIGCONT)
        os.chmod(a.path("f"), 0o600)
        pattern = r" %s.*session=(\d+) request=(\d+) op=setattr ms=\d{4,} result=ok"
        logs = []
        for name, text in (("metadata request slow or failed", a.output), ("request slow or failed volume=v", a.service.output)):
            wait_until(name, lambda: re.search(pattern % name, text()))
            logs.append(re.search(pattern % name, text()).groups())
        self.assertEqual(logs[0], logs[1])

    def test_the_store_is_told_which_session_it_is(self):
        with Gateway() as gateway:
            proxy = self.enterContext(WireProxy(gateway.port, keep=True))
            with ServiceVolume(gateway=gateway, options=["--endpoint", "http://127.0.0.1:%d" % proxy.port]) as v:
                v.write("f", os.urandom(1 << 20))
                session = v.service.sessions("v")[0]["session"]
            self.assertIn(b"(session %d)\r\n" % session, b"".join(proxy.seen))


if __name__ == "__main__":
    unittest.main()
