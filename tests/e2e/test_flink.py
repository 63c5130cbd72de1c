"""Flink on a mount: a stream into files, with its checkpoints on the mount too. The TaskManager is killed; then both
processes are, and the job goes on from its checkpoint on another mount. And the same by a savepoint, with a bulk format."""

import glob
import os
import unittest

import engines
import flink
from flink import BULK_FORMAT, ROWS, avro_ids


class Flink(flink.FlinkCase):
    def stop_with_savepoint(self, v, job):
        """The savepoint's path."""
        asked = self.ask("/jobs/%s/stop" % job, {"targetDirectory": "file://" + v.path("savepoints"), "drain": False})
        reply = {}

        def completed():
            reply.update(self.ask("/jobs/%s/savepoints/%s" % (job, asked["request-id"])) or {})
            return reply.get("status", {}).get("id") == "COMPLETED"

        self.wait_for("the savepoint", completed)
        self.assertIn("location", reply["operation"], reply)
        self.wait_for("the job's end", lambda: self.state(job) == "FINISHED")
        return reply["operation"]["location"].replace("file:", "", 1)

    def test_savepoint_and_bulk_format_on_another_mount(self):
        """A mount at another place that knows the bucket only goes on where the first one stopped."""
        with engines.engine_volume() as v:
            self.start_cluster(v)
            job = self.submit(v, BULK_FORMAT)
            self.wait_for("checkpoints", lambda: self.completed(job)[0] >= 3)
            kept = glob.glob(v.path("checkpoints", job, "chk-*"))
            self.assertLessEqual(len(kept), 2, "old checkpoints stay")  # the last one, and one that is being made
            savepoint = os.path.relpath(self.stop_with_savepoint(v, job), v.mountpoint)
            # An empty directory may stay of one that was being made.
            self.wait_for("the checkpoints to be cleaned away", lambda: not glob.glob(v.path("checkpoints", job, "chk-*", "*")))
            self.kill("TaskManager", "JobManager")
            before = self.rows(v, avro_ids)
            self.assertEqual(before, list(range(len(before))))
            self.assertTrue(0 < len(before) < ROWS, len(before))
            v.check_plain_objects()
            v.check_end()
            with engines.EngineVolume(gateway=v.gateway, bucket=v.bucket) as second:
                self.start_cluster(second)
                job = self.submit(second, BULK_FORMAT, **{"execution.state-recovery.path": "file://" + second.path(savepoint)})
                self.wait_for("the job's end", lambda: self.state(job) == "FINISHED")
                self.kill("TaskManager", "JobManager")
                rows = self.rows(second, avro_ids)
                self.assertEqual(len(rows), ROWS)
                self.assertEqual(rows, list(range(ROWS)))
                second.check_no_strays()
                second.check_plain_objects()
                second.check_end()

    def test_exactly_once(self):
        with engines.engine_volume() as v:
            self.start_cluster(v)
            job = self.submit(v)
            self.wait_for("checkpoints", lambda: self.completed(job)[0] >= 3)

            self.kill("TaskManager")
            before = self.completed(job)[0]
            self.start_taskmanager()
            self.wait_for("checkpoints after the TaskManager's end", lambda: self.completed(job)[0] >= before + 3)

            checkpoint = self.completed(job)[1]
            self.assertEqual(self.state(job), "RUNNING", "the job ended before it was killed")
            self.kill("TaskManager", "JobManager")
            shown = set(self.rows(v))
            self.assertLess(len(shown), ROWS)
            v.kill()
            v.mount()
            self.assertTrue(os.path.exists(os.path.join(checkpoint.replace("file:", "", 1), "_metadata")))
            self.start_jobmanager()
            self.start_taskmanager()
            self.wait_for("a slot", lambda: (self.ask("/overview") or {}).get("slots-total"))
            job = self.submit(v, **{"execution.state-recovery.path": checkpoint})
            self.wait_for("the job's end", lambda: self.state(job) == "FINISHED")
            self.kill("TaskManager", "JobManager")
            rows = self.rows(v)
            self.assertEqual(len(rows), ROWS)
            self.assertEqual(rows, list(range(ROWS)))
            v.check_plain_objects()
            v.check_end()


if __name__ == "__main__":
    unittest.main()
