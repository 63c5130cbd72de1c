/*
 * Traces: what programs ask of a directory, recorded and done again elsewhere.
 *
 * trace_record mounts a directory a second time, at a mount point, by a FUSE filesystem that passes
 * every call on and notes it. trace_replay does the same calls in another directory: with as many
 * threads, and each call after those that had ended when it began. A trace is a text file, one JSON
 * object on each line (docs/traces.md). Contents are not in it; names are.
 */
#ifndef SLUICE_BENCH_TRACE_H
#define SLUICE_BENCH_TRACE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"
#include "bench/histogram.h"

#define TRACE_SCHEMA "sluice-trace/1"
#define TRACE_PATH_MAX 4096
#define TRACE_LINE_MAX (64u << 10)
#define TRACE_IO_MAX (16u << 20) /* bytes of one read or write */

enum trace_op {
    TRACE_STAT, /* len: the size */
    TRACE_READLINK,
    TRACE_LIST, /* a whole directory */
    TRACE_MKDIR,
    TRACE_RMDIR,
    TRACE_UNLINK,
    TRACE_RENAME,
    TRACE_LINK,
    TRACE_SYMLINK, /* path is the new name, to what it points to */
    TRACE_CHMOD,
    TRACE_UTIMES,
    TRACE_TRUNCATE, /* len: the new size */
    TRACE_CREATE,
    TRACE_OPEN, /* len: the size that the file had */
    TRACE_READ,
    TRACE_WRITE,
    TRACE_FSYNC,
    TRACE_CLOSE,
    TRACE_OP_COUNT
};

struct trace_event {
    enum trace_op op;
    uint64_t start_ns, took_ns; /* since the trace's start */
    uint32_t thread;
    uint32_t handle;       /* CREATE, OPEN: a new number; READ … CLOSE: that number; else 0 */
    const char *path, *to; /* below the directory, without leading '/'; "" is the directory */
    uint64_t offset, len;
    int flags;     /* OPEN, CREATE: of open(2), without O_CREAT and O_EXCL; RENAME: of renameat2 */
    uint32_t mode; /* STAT: with the type; MKDIR, CHMOD, CREATE: permissions */
    int result;    /* 0, the bytes, or -errno */
};

const char *trace_op_name(enum trace_op op);

/* Appends the event as one line. -EIO. */
int trace_write(FILE *to, const struct trace_event *event);
int trace_write_head(FILE *to, const char *directory);

/* A whole trace in memory, in the order of start_ns. */
struct trace {
    struct trace_event *events;
    size_t count;
    uint32_t threads, handles; /* numbers are below these */
    char **strings;            /* owned: what the events' strings are in */
    size_t string_count;
};

/* One line. The strings of *out live in *room (TRACE_LINE_MAX bytes). -EINVAL with a sentence:
 * unknown or missing fields, names that leave the directory, sizes out of bounds. */
int trace_parse(const char *line, size_t len, char *room, struct trace_event *out,
                struct error *error);
/* Reads and checks a file; "-" is not special. -EINVAL names the line. */
int trace_load(const char *file, struct trace *out, struct error *error);
void trace_done(struct trace *trace);

struct trace_result {
    double recorded_s, replayed_s;
    uint64_t calls, differing; /* calls whose success, or error, was not that of the record */
    struct {
        struct histogram recorded, replayed;
        uint64_t bytes;
    } ops[TRACE_OP_COUNT];
};

struct trace_replay_options {
    const char *path;  /* an existing directory: a new one "sluice-replay.XXXXXX" is made in it, and
                          removed at the end */
    double speed;      /* 1: as recorded; 2: twice as quick; 0: each call as soon as it may begin */
    atomic_bool *stop; /* may be NULL */
    void (*progress)(void *arg, uint64_t done, uint64_t total); /* may be NULL */
    void *arg;
};

/* Makes what the trace expects to find, drops no caches, then does the calls. Blocking. */
int trace_replay(const struct trace *trace, const struct trace_replay_options *options,
                 struct trace_result *out, struct error *error);

/* Mounts `source` at `mountpoint` and records until it is unmounted, or SIGINT or SIGTERM comes.
 * Blocking; only once in a process. Needs the right to mount. `ready` is called when programs may
 * begin. *events: how many were recorded. */
int trace_record(const char *source, const char *mountpoint, FILE *to, void (*ready)(void *arg),
                 void *arg, uint64_t *events, struct error *error);

#endif
