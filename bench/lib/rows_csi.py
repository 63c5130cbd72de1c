"""Rows on the CSI driver: its own part of the way from a claim to a readable volume, and what idle volumes hold."""

import os
import time

import process
from csi import Driver
from results import Row


def proportional(pids):
    """MiB of all these processes together: pages that they share are counted once."""
    total = 0
    for pid in pids:
        with open("/proc/%d/smaps_rollup" % pid, encoding="ascii") as f:
            total += next(int(line.split()[1]) for line in f if line.startswith("Pss:"))
    return total / 1024


def csi(machine, out):
    count = 3 if machine.options.quick else 100
    gateway = machine.gateway()
    gateway.make_bucket("bucket")
    steps = {"create": Row("csi-create", "CreateVolume", "ms", better="lower"),
             "stage": Row("csi-stage", "NodeStageVolume: a new daemon serves", "ms", better="lower"),
             "publish": Row("csi-publish", "NodePublishVolume", "ms", better="lower"),
             "read": Row("csi-first-byte", "from CreateVolume to the first byte written and read", "ms", better="lower"),
             "both": Row("csi-stage-publish", "Stage and Publish, the driver's part of the start of a pod", "ms", better="lower")}
    memory = Row("csi-memory", "memory of an idle volume, of %d on one node with the driver (PSS)" % count, "MiB", better="lower")
    with Driver(gateway) as driver:
        volumes = []
        for number in range(count):
            machine.say("volume %d" % (number + 1))
            at = [time.perf_counter()]
            volume = driver.create("bench-%d" % number)
            volumes.append(volume)
            at.append(time.perf_counter())
            driver.stage(volume)
            at.append(time.perf_counter())
            path = driver.publish(volume, "pod-%d" % number)
            at.append(time.perf_counter())
            with open(os.path.join(path, "f"), "wb") as f:
                f.write(b"x")
            with open(os.path.join(path, "f"), "rb") as f:
                f.read()
            at.append(time.perf_counter())
            for name, first, last in (("create", 0, 1), ("stage", 1, 2), ("publish", 2, 3), ("both", 1, 3), ("read", 0, 4)):
                steps[name].add("sluice", (at[last] - at[first]) * 1000)
        time.sleep(1)
        mounts = list(driver.daemons())
        pids = [driver.process.pid, *mounts, *process.children(mounts)]  # each mount has a watcher
        memory.add("sluice", proportional(pids) / count, rss_mib=sum(process.memory(p)["rss"] for p in pids) / process.MIB / count)
        for number, volume in enumerate(volumes):
            driver.unpublish(volume, "pod-%d" % number)
            driver.unstage(volume)
            driver.delete(volume)
    goal = None if machine.options.quick else True
    steps["both"].absolute("sluice", goal and ("<=", 300), "ms")
    memory.absolute("sluice", goal and ("<=", 32), "MiB of each")
    out.rows += [*steps.values(), memory]
