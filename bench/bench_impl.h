/* Between the driver (bench.c) and the rows (rows_*.c). */
#ifndef SLUICE_BENCH_IMPL_H
#define SLUICE_BENCH_IMPL_H

#include <pthread.h>

#include "bench/bench.h"

#define BENCH_SMALL 4096u      /* bytes of a small file, and of a small read or write */
#define BENCH_BLOCK (1u << 20) /* bytes of a large read or write */
#define BENCH_MIDDLE (128u << 10)
#define BENCH_NAME_MAX 64

struct bench {
    const struct bench_options *options;
    int directory;       /* ours, below the caller's */
    unsigned threads;    /* of the present round */
    uint64_t large_size; /* bytes of each thread's large file */
    /* All rows of the run, in the order in which they come in each round. */
    struct bench_row **rows;
    unsigned row_count, at,
        reported;   /* there are; whose turn is next; before it all had their last round */
    double machine; /* deviation of the machine's own rows */
};

/* One thread of a row. Its fields outlive a row: what one row made the next one uses. */
struct worker {
    struct bench *bench;
    pthread_t thread;
    unsigned index;
    int directory;    /* where its small files are */
    unsigned made;    /* of them */
    unsigned renamed; /* of those that the row metadata made, from the first on */
    char *buf;        /* BENCH_BLOCK bytes, aligned for O_DIRECT */
    int fd;           /* of the large file in data rows, -1 if it is not open */
    uint64_t written; /* bytes of the large file that exist */
    uint64_t random;  /* state */
    unsigned at;      /* free for the rows */
    /* Of the present row. */
    const struct row_spec *spec;
    pthread_barrier_t *start;
    const struct bench_row *alone; /* the row, if it has no other worker: shows its own progress */
    uint64_t limit;                /* operations */
    atomic_ullong done;
    uint64_t bytes, began_ns, ended_ns;
    int result;
    const char *failure;
    struct histogram latency;
};

struct row_spec {
    const char *name, *title;
    bool per_byte;
    bool makes; /* what later rows use: runs also if it is not asked for */
    /* All but `op` may be NULL. Each is 0 or -errno. `prepare` and `after` are not timed; `finish`
     * is part of the row, but of no operation. -EOPNOTSUPP from `prepare`: the row is left out. */
    int (*prepare)(struct worker *w);
    uint64_t (*limit)(const struct worker *w); /* operations; NULL: options.files */
    int (*op)(struct worker *w, uint64_t i);
    int (*finish)(struct worker *w);
    int (*after)(struct worker *w);
};

struct group_spec {
    const char *name;
    const struct row_spec *rows;
    unsigned row_count;
    bool in_directories; /* runs for private and for shared directories */
    bool one_thread;     /* runs in the first round only, with one thread */
    bool needs_size;     /* of the large files */
    bool always;         /* runs whatever is asked for, if there is more than one round */
};

extern const struct group_spec bench_machine_group, bench_meta_group, bench_small_group,
    bench_data_group, bench_tree_group;

uint64_t bench_random(struct worker *w);
/* Removes a directory of ours with all below it. */
int bench_remove_tree(int parent, const char *name);

#endif
