/*
 * Measures a directory of any filesystem: names, small files, large files, trees.
 *
 * All that it makes is in one new directory "sluice-bench.XXXXXX" below the given one, and nothing
 * else is opened, changed or removed. That directory is removed at the end, also after an error and
 * after `stop`. A row ends when it has done all its operations or when its time is up; what follows
 * works with as much as was made. With more than one round, rows of the machine itself (group
 * "machine") run first in each; how much those vary widens what all others are said to vary by.
 */
#ifndef SLUICE_BENCH_BENCH_H
#define SLUICE_BENCH_BENCH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "bench/histogram.h"
#include "bench/spread.h"

#define BENCH_THREADS_MAX 256
#define BENCH_THREAD_COUNTS_MAX 8

struct bench_row {
    const char *name, *group, *title;
    unsigned threads;
    bool shared;         /* the threads work in one directory, not in one each */
    bool per_byte;       /* its rate is bytes per second, else operations */
    int result;          /* 0, or -errno of the first operation that failed */
    const char *failure; /* what failed, NULL if nothing did */
    /* Of all rounds, by all threads. */
    uint64_t operations, bytes;
    double seconds;           /* from the first operation's start to the last one's end */
    struct histogram latency; /* of each operation */
    /* Per second, bytes or operations. */
    unsigned rounds; /* that are over */
    double rates[SPREAD_VALUES_MAX];
    struct spread rate; /* when it has ended */
};

struct bench_options {
    const char *path; /* an existing directory */
    const char *only; /* names of groups and rows, separated by commas; NULL: all */
    unsigned threads[BENCH_THREAD_COUNTS_MAX];  /* each row runs with each of these; 0 ends */
    bool private_directories, shared_directory; /* of the metadata rows; the second one only with
                                                   more than one thread */
    unsigned rounds;   /* each goes once over all rows; 1 to SPREAD_VALUES_MAX */
    unsigned files;    /* for each thread and round, at most */
    uint64_t size;     /* bytes of the large files of a row, all threads together */
    uint32_t time_ms;  /* of a row, all rounds together */
    bool drop_caches;  /* cold rows drop the caches of the whole kernel (root), else only the
                          pages of their own files */
    atomic_bool *stop; /* set by the caller, from a signal handler: end soon */
    /* On the caller's thread; may be NULL. done of total is how far the row is. */
    void (*began)(void *arg, const struct bench_row *row);
    void (*progress)(void *arg, const struct bench_row *row, uint64_t done, uint64_t total);
    /* A row has had its last round, or what it had when it was stopped. row: only during the call.
     */
    void (*ended)(void *arg, const struct bench_row *row);
    void *arg;
};

/* 1 and 4 threads, both kinds of directories, 5 rounds, 2,000 files, 1 GiB, 10 s. */
void bench_options_init(struct bench_options *options);
/* Names of the groups and rows for --help and checks: one line each, "group  row  title". */
void bench_list(void (*line)(void *arg, const char *group, const char *name, const char *title),
                void *arg);
/* Blocking. 0 even if rows failed (they say so); -EINVAL, -ENOTDIR, -ENOSPC, -ECANCELED (stop) and
 * others, with a sentence. */
int bench_run(const struct bench_options *options, struct error *error);

#endif
