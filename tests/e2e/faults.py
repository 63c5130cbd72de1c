"""What fails below an engine while its job runs: the store, the metadata service, the cache disk, the mount's daemon."""

import os
import sys
import time

import engines

sys.path[1:1] = [os.path.join(engines.ROOT, "tests", name) for name in ("tools", "fault")]
from fault_proxy import FaultProxy  # noqa: E402
from test_cache_disk import Disk  # noqa: E402

MIB = 1 << 20


class Below:
    """Tests of any engine, for a unittest.TestCase that has

        through(v, fault, harmless)

    which runs a job on the mount, calls fault() in the middle of it, and checks answers and mount. `harmless`: the job must
    not notice; otherwise it may fail in part or as a whole, and is begun again as the engine's users do."""

    # Of each mount, beside those that a fault needs.
    options = ()

    def test_the_store_says_503_for_half_a_minute(self):
        with engines.engine_volume(options=self.options) as v, FaultProxy(v.gateway.host, v.gateway.port) as proxy:
            v.unmount()
            v.env["AWS_ENDPOINT_URL_S3"] = proxy.endpoint
            v.mount()

            def fault():
                proxy.rules([{"action": "status", "status": 503, "code": "SlowDown"}])
                time.sleep(30)
                self.assertGreater(sum(proxy.stats()["hits"]), 0)
                proxy.rules([])

            self.through(v, fault, harmless=True)

    def test_the_metadata_service_is_killed(self):
        with engines.engine_service_volume() as v:
            def fault():
                v.service.kill()
                v.service.start()

            self.through(v, fault, harmless=True)

    def test_the_cache_disk_is_filled_by_others(self):
        disk = Disk(self, 160 * MIB)
        with engines.engine_volume(options=[*self.options, "--cache-dir", os.path.join(disk.mount, "c")]) as v:
            def fault():
                with open(os.path.join(disk.mount, "other"), "wb", buffering=0) as file:
                    try:
                        while True:
                            file.write(bytes(MIB))
                    except OSError:
                        pass

            self.through(v, fault, harmless=True)

    def test_the_daemon_is_killed_and_mounted_again(self):
        with engines.engine_volume(options=self.options) as v:
            def fault():
                v.kill()
                v.mount()

            self.through(v, fault, harmless=False)
