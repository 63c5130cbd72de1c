/*
 * Measures a metadata service alone, without mounts: many connections, each with several requests
 * in flight, all served by one thread of this process. All names are in one new directory
 * "sluice-bench.<random>" at the volume's root, which is removed at the end.
 */
#ifndef SLUICE_BENCH_SERVICE_H
#define SLUICE_BENCH_SERVICE_H

#include <stdatomic.h>

#include "base/error.h"
#include "bench/histogram.h"

#define SERVICE_BENCH_CONNECTIONS_MAX 10000
#define SERVICE_BENCH_DEPTH_MAX 256

enum service_bench_op {
    SERVICE_BENCH_CREATE_SHARED, /* durable, all connections in one directory */
    SERVICE_BENCH_CREATE,        /* durable, each in a directory of its own, as all below */
    SERVICE_BENCH_LOOKUP,
    SERVICE_BENCH_RENAME, /* durable */
    SERVICE_BENCH_UNLINK,
    SERVICE_BENCH_UNLINK_SHARED,
    SERVICE_BENCH_OP_COUNT
};

struct service_bench_row {
    enum service_bench_op op;
    unsigned connections, depth;
    uint64_t operations, failed;
    int error;             /* of the last one that failed */
    double seconds, cpu_s; /* wall time; processor time of this process */
    uint64_t told;         /* invalidations that were pushed to us, and confirmed */
    struct histogram latency;
};

struct service_bench_options {
    const char *url;   /* sluice:// or sluice+unix:// */
    const char *token; /* NULL: none */
    unsigned connections, depth;
    unsigned count; /* operations of each connection in each row */
    atomic_bool *stop;
    /* After each row; on the caller's thread. */
    void (*ended)(void *arg, const struct service_bench_row *row);
    void *arg;
};

const char *service_bench_name(enum service_bench_op op);
/* Blocking. 0 also if operations failed (rows say so); -EINVAL, -ECONNREFUSED, -ECANCELED (stop)
 * and others with a sentence. */
int service_bench_run(const struct service_bench_options *options, struct error *error);
/* Holds so many sessions that ask for nothing, for so long; `ready` when all are there. Blocking.
 */
int service_bench_idle(const struct service_bench_options *options, uint32_t time_ms,
                       void (*ready)(void *arg), struct error *error);

#endif
