/*
 * A store for tests of reads: every object exists, has GATE_ETAG, and holds bytes that follow from
 * key and offset. With the gate closed, requests wait until gate_open; so a test decides what is
 * under way at the same time.
 */
#ifndef SLUICE_TESTS_GATE_STORE_H
#define SLUICE_TESTS_GATE_STORE_H

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>
#include <utlist.h>

#include "base/clock.h"
#include "s3/backend.h"
#include "test.h"

#define GATE_ETAG "etag-1"

struct gate_waiting {
    struct store_op *op;
    struct gate_waiting *prev, *next;
};

struct gate_store {
    struct store store;
    /* the loop thread's */
    struct gate_waiting *waiting;
    bool closed;
    int fail; /* -errno for the next fail_count GETs */
    unsigned fail_count;
    /* any thread */
    _Atomic uint64_t gets, bytes, cancels, demand_gets;
    _Atomic unsigned waiting_count;
};

static inline uint8_t gate_byte(const char *key, uint64_t offset)
{
    return (uint8_t)((uint8_t)key[0] * 7 + (offset >> 12) * 31 + offset % 251);
}

static inline void gate_end(struct gate_store *gate, struct store_op *op)
{
    if (gate->fail_count > 0) {
        gate->fail_count--;
        store_complete(op, gate->fail);
        return;
    }
    if (!op->if_match || strcmp(op->if_match, GATE_ETAG) != 0) {
        store_complete(op, -EEXIST);
        return;
    }
    for (uint64_t i = 0; i < op->length; i++)
        ((uint8_t *)op->buf)[i] = gate_byte(op->key, op->offset + i);
    op->got = op->length;
    store_complete(op, 0);
}

static inline void gate_submit(struct store *store, struct store_op *op)
{
    struct gate_store *gate = (struct gate_store *)store;
    atomic_fetch_add(&gate->gets, 1);
    atomic_fetch_add(&gate->bytes, op->length);
    if (op->priority == STORE_DEMAND)
        atomic_fetch_add(&gate->demand_gets, 1);
    if (!gate->closed) {
        gate_end(gate, op);
        return;
    }
    struct gate_waiting *waiting = calloc(1, sizeof(*waiting));
    waiting->op = op;
    op->impl = waiting;
    DL_APPEND(gate->waiting, waiting);
    atomic_fetch_add(&gate->waiting_count, 1);
}

static inline struct store_op *gate_take(struct gate_store *gate, struct gate_waiting *waiting)
{
    struct store_op *op = waiting->op;
    DL_DELETE(gate->waiting, waiting);
    free(waiting);
    op->impl = NULL;
    atomic_fetch_sub(&gate->waiting_count, 1);
    return op;
}

static inline void gate_cancel(struct store *store, struct store_op *op)
{
    struct gate_store *gate = (struct gate_store *)store;
    if (!op->impl)
        return;
    atomic_fetch_add(&gate->cancels, 1);
    store_complete(gate_take(gate, op->impl), -ECANCELED);
}

static inline void gate_free(struct store *store)
{
    store_done(store);
    free(store);
}

static const struct store_backend gate_backend = {
    .kind = "gate", .submit = gate_submit, .cancel = gate_cancel, .free = gate_free};

static inline struct gate_store *gate_new(struct loop *loop)
{
    struct gate_store *gate = calloc(1, sizeof(*gate));
    store_init(&gate->store, &gate_backend, loop, NULL, "gate:");
    return gate;
}

static inline void gate_open_call(void *arg)
{
    struct gate_store *gate = arg;
    gate->closed = false;
    while (gate->waiting)
        gate_end(gate, gate_take(gate, gate->waiting));
}

static inline void gate_open(struct gate_store *gate)
{
    loop_call(gate->store.loop, gate_open_call, gate);
}

static inline void gate_close_call(void *arg)
{
    struct gate_store *gate = arg;
    gate->closed = true;
}

static inline void gate_close(struct gate_store *gate)
{
    loop_call(gate->store.loop, gate_close_call, gate);
}

/* Polls for something that another thread does; generous. */
#define wait_until(condition)                                                                      \
    do {                                                                                           \
        uint64_t deadline_ = clock_monotonic_ms() + 120000;                                        \
        while (!(condition)) {                                                                     \
            check(clock_monotonic_ms() < deadline_);                                               \
            nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);                                \
        }                                                                                          \
    } while (0)

#endif
