"""What limits each row now, in a few words; docs/benchmarks.md says how that was found. By row or group."""

import re

LIMITS = {
    "create": "one fdatasync (half of the daemon's processor time with one thread); five requests of the kernel, each wakes a thread; four records in RocksDB",
    "rename": "one fdatasync; the RocksDB write",
    "unlink": "the transport (a third of the processor time) and the RocksDB write (a quarter); the kernel asks for the directory's attributes again",
    "small": "one fdatasync; six requests of the kernel",
    "small-replace": "one fdatasync; the RocksDB write",
    "stat": "the kernel's cache answers",
    "stat-sync": "the transport: one request of the kernel",
    "absent": "the transport: one request of the kernel",
    "open-read": "the transport: two requests of the kernel",
    "small-read": "the transport: two requests of the kernel",
    "service": "two more threads and a socket for each request; two processors for mount, service and the load",
    "service-small-read": "the kernel asks for attributes before it uses pages",
    "rename-dir": "one batch, one fdatasync",
    "list-s3": "the server, whose listing of a large directory is quadratic",
    "seq-write": "two processors for server, fio and daemon (what they allow stands in the second table); the server joins the parts; four copies of each byte",
    "seq-read": "two processors for server, fio and daemon (what they allow stands in the second table); three copies of each byte",
    "streams": "as seq-read",
    "random-read": "two changes of threads more than a bare GET; HTTP, signing, copies",
    "random-read-bytes": "nothing is read that was not asked for",
    "columns": "the kernel: it rounds the read of a column up to its read-ahead of 1 MiB",
    "cache": "with passthrough the disk; without, one change of threads for each read",
    "local": "one request of the kernel (two changes of threads) beside the one fdatasync of each fsync; the disk",
    "commit": "a conditional PUT and a HEAD for each file",
    "write-requests": "one PUT for each file",
    "extract": "the kernel: 15 requests for each file (two fifths of the processor time), and one fdatasync",
    "git-commit": "the kernel: 26 requests for each file; 1,113 syncs of the disk",
    "magic-commit": "one thread: two requests of the kernel and one fdatasync for each rename, two requests for the stat before it",
    "hadoop-rename": "two requests of the kernel and a change of threads; syncs are shared by the renames of a moment",
    "hadoop-commit": "as magic-commit",
    "rm-tree": "the RocksDB write",
    "rm-rf": "the RocksDB write",
    "service-alone": "one thread: the RocksDB write of each operation",
    "alone-lookup": "one thread: 2.3 µs for each",
    "push": "round trips of the protocol",
    "csi": "the start of a daemon: its mount and the first look at the bucket",
    "tool": "one look at the clock for each call",
}


def limit(row, group):
    """What the row has of its own; "create-4" has that of "create". Nothing, if its group's is all that there is to say."""
    found = LIMITS.get(row) or LIMITS.get(re.sub(r"-\d+$", "", row), "")
    return "" if found == LIMITS.get(group) else found
