/*
 * A fixed number of threads for work that blocks (local files, RocksDB scans). Tasks are embedded
 * in the caller's request. Tasks start in order of submission. The queue is not bounded here: who
 * submits bounds his requests (tickets, windows).
 */
#ifndef SLUICE_BASE_POOL_H
#define SLUICE_BASE_POOL_H

struct pool;

struct pool_task {
    void (*run)(struct pool_task *task); /* on a pool thread; may free the task */
    struct pool_task *next;              /* the pool's, while queued */
};

/* 0 or -errno. `name` at most 12 characters; threads 1..256. */
int pool_new(struct pool **out, const char *name, unsigned threads);
/* Runs all that was submitted, then ends the threads. Not from a pool thread. NULL is allowed. */
void pool_free(struct pool *pool);
/* Any thread, never blocks, never fails. */
void pool_submit(struct pool *pool, struct pool_task *task);

#endif
