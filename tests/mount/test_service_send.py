"""What a mount sends while the service does not read: the socket is full, and what it does not take goes later, in order and once."""

import os
import signal
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from service import ServiceVolume
from volume import WAIT_S

FILES = 160
SIZE = 120000  # committed with the metadata: in the request itself. Together more than a socket keeps


class Send(unittest.TestCase):
    def test_more_than_the_socket_takes(self):
        with ServiceVolume(service_options=["--lease", "300s"], volume_options=["inline-max=128K"]) as v:
            def bytes_of(i):
                return (b"%08d" % i) * (SIZE // 8)

            fds = []
            for i in range(FILES):
                fds.append(os.open(v.path("f%d" % i), os.O_CREAT | os.O_WRONLY, 0o644))
                os.write(fds[i], bytes_of(i))
            service = v.service.process
            service.send_signal(signal.SIGSTOP)
            try:
                threads = [threading.Thread(target=os.close, args=(fd,)) for fd in fds]
                for thread in threads:
                    thread.start()
                # Some of them are sent into a full socket by then; the others later, which is right too.
                time.sleep(1)
                self.assertTrue(all(thread.is_alive() for thread in threads))
            finally:
                service.send_signal(signal.SIGCONT)
            for thread in threads:
                thread.join(WAIT_S)
                self.assertFalse(thread.is_alive())
            v.unmount()
            v.mount()
            for i in range(FILES):
                self.assertEqual(v.read("f%d" % i), bytes_of(i))


if __name__ == "__main__":
    unittest.main()
