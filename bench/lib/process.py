"""What a process used: processor time, memory, bytes that it wrote and read."""

import os

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
MIB = 1 << 20


def cpu_s(pid):
    """User and system time of all its threads, the ended ones too; steps of 10 ms."""
    with open("/proc/%d/stat" % pid, "rb") as f:
        fields = f.read().rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def memory(pid):
    """Resident bytes, and the most there ever were: {"rss", "peak"}."""
    found = {}
    with open("/proc/%d/status" % pid, encoding="ascii", errors="replace") as f:
        for line in f:
            name, _, value = line.partition(":")
            if name in ("VmRSS", "VmHWM"):
                found[name] = int(value.split()[0]) << 10
    return {"rss": found.get("VmRSS", 0), "peak": found.get("VmHWM", 0)}


def children(pids):
    """Processes whose parent is one of these."""
    found = []
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        try:
            with open("/proc/%d/stat" % pid, "rb") as f:
                parent = int(f.read().rpartition(b")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent in pids:
            found.append(pid)
    return found


def io(pid):
    """Bytes through read- and write-like calls, sockets too: {"rchar", "wchar"}."""
    found = {}
    with open("/proc/%d/io" % pid, encoding="ascii") as f:
        for line in f:
            name, _, value = line.partition(":")
            found[name] = int(value)
    return {"rchar": found["rchar"], "wchar": found["wchar"]}


def machine_busy_s():
    """Processor time of the whole machine that was not idle."""
    with open("/proc/stat", encoding="ascii") as f:
        fields = [int(x) for x in f.readline().split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) * TICK_S
