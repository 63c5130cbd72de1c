/*
 * Measures an object store through our client of it. All keys are below
 * "<prefix>sluice-bench-<random>/"; they, and the unfinished uploads, are removed by
 * store_bench_done.
 */
#ifndef SLUICE_BENCH_STORE_H
#define SLUICE_BENCH_STORE_H

#include <stdatomic.h>

#include "bench/histogram.h"
#include "s3/store.h"

enum store_bench_op {
    STORE_BENCH_PUT,     /* new objects of `size` bytes: the other rows use them */
    STORE_BENCH_PUT_NEW, /* the same with If-None-Match, then removed */
    STORE_BENCH_HEAD,
    STORE_BENCH_GET,
    STORE_BENCH_COPY, /* at the server */
    STORE_BENCH_LIST, /* all objects of this run, a page of 1,000 for each request */
    STORE_BENCH_DELETE,
    STORE_BENCH_PARTS, /* parts of one upload; its completion is a row of its own (COMPLETE) */
    STORE_BENCH_COMPLETE,
    STORE_BENCH_RANGE, /* pieces of what PARTS made */
    STORE_BENCH_OP_COUNT
};

struct store_bench_row {
    enum store_bench_op op;
    size_t size;               /* bytes of each request's body, 0 if it has none */
    unsigned parallel;         /* requests at once */
    unsigned requests, failed; /* that ended; of these with an error */
    double seconds, cpu_s;     /* wall time; processor time of this process */
    struct histogram latency;  /* of what succeeded */
    struct error error;        /* of the last failure */
};

struct store_bench;

/* Borrows the store until store_bench_done. `stop` may be NULL. */
int store_bench_new(struct store *store, const char *prefix, atomic_bool *stop,
                    struct store_bench **out);
/* Removes what is left in the bucket, however far it came. Returns how many objects it could not
 * remove: those of keys with "sluice-bench-" below the prefix. Blocking. NULL is allowed. */
unsigned store_bench_done(struct store_bench *bench);

/* "put", "get", …; -1 if there is no such name. */
const char *store_bench_name(enum store_bench_op op);
int store_bench_find(const char *name);

/* Does up to `count` requests, `parallel` at once, none begun later than time_ms. Blocking, not on
 * the store's loop thread. HEAD, GET, COPY and DELETE use what the last PUT made, with its size;
 * RANGE what the last PARTS made. -ENOENT with a sentence if there is nothing; -ENOMEM. 0: row[0]
 * says what was done, also if requests failed; row[1] is the COMPLETE of PARTS (requests 0: there
 * was none), and empty otherwise. */
int store_bench_run(struct store_bench *bench, enum store_bench_op op, size_t size, unsigned count,
                    unsigned parallel, uint32_t time_ms, struct store_bench_row row[2],
                    struct error *error);

#endif
