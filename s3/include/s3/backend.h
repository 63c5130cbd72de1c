/*
 * For those who write a backend or a decorator; users of stores include s3/store.h only.
 *
 * A backend embeds struct store first in its own struct and fills in a table. `submit` runs on the
 * loop thread (store_submit posts there), with checked inputs; it ends the op by store_complete
 * exactly once, from the loop thread, directly or later (store_complete defers `done` if it is
 * called inside submit).
 */
#ifndef SLUICE_S3_BACKEND_H
#define SLUICE_S3_BACKEND_H

#include "base/metrics.h"
#include "s3/open.h"
#include "s3/store.h"

struct store_backend {
    const char *kind; /* "s3", "file", "memory", "retry", … */
    void (*submit)(struct store *store, struct store_op *op);
    void (*cancel)(struct store *store, struct store_op *op);
    void (*free)(struct store *store); /* not on the loop thread */
    /* Abilities that depend on the key; NULL: store->caps. Any thread. */
    const struct store_caps *(*caps)(const struct store *store, const char *key);
};

struct store {
    const struct store_backend *backend;
    struct loop *loop;
    struct store_caps caps; /* a decorator copies those of what it decorates */
    struct store *below;    /* a decorator's; NULL at the bottom. Owned. */
    char *name;             /* owned */
};

void store_init(struct store *store, const struct store_backend *backend, struct loop *loop,
                struct store *below, const char *name);
/* Frees what store_init took and made: the store below and the name. Called by backend->free last.
 */
void store_done(struct store *store);
/* Sets op->result (and op->error if `result` < 0 and error has no code yet) and calls op->done
 * soon, on the loop thread. */
void store_complete(struct store_op *op, int result);
/* Memory that lives until store_op_reset; NULL without memory. */
void *store_op_alloc(struct store_op *op, size_t len);
char *store_op_strdup(struct store_op *op, const char *text);
/* Appends to out_meta / out_list. -ENOMEM. */
int store_op_add_meta(struct store_op *op, const char *name, const char *value);
int store_op_add_entry(struct store_op *op, const char *name, uint64_t size, uint64_t mtime_ns,
                       const char *etag, bool is_prefix);
/* Copies the outputs of a sub-request to the caller's op (moves the arena). */
void store_op_move_result(struct store_op *to, struct store_op *from);
/* A new op with the inputs of another, for a decorator that submits below with its own `done`. */
void store_op_copy_request(struct store_op *to, const struct store_op *from);

/* The parts. Each takes ownership of `below` on success. */
int store_s3_new(const struct store_url *url, const struct store_options *options,
                 struct loop *loop, struct metrics *metrics, struct store **out,
                 struct error *error);
int store_file_new(const char *directory, bool read_only, struct loop *loop, struct store **out,
                   struct error *error);
/* Tests may lower (*out)->caps.part_min before the first request. */
int store_memory_new(struct loop *loop, struct store **out);
int store_retry_new(struct store *below, const struct store_options *options,
                    struct metrics *metrics, struct store **out);
int store_hedge_new(struct store *below, const struct store_options *options,
                    struct metrics *metrics, struct store **out);
int store_trace_new(struct store *below, struct metrics *metrics, struct store **out);

/* Fault injection for tests: rules are taken in order, the first that matches and has `count` left
 * acts. */
struct store_fault_rule {
    int kind;             /* enum store_kind, or -1 for all */
    const char *key_part; /* substring of the key, or NULL */
    unsigned skip,
        count;  /* passes over the first `skip` matches, then acts `count` times (0 = for ever) */
    int result; /* -errno to end with; 0 = none */
    bool after; /* does the real thing first, then reports the error: a lost reply */
    uint32_t delay_ms;
    bool corrupt; /* GET: one byte of the data is flipped; PUT: stored truncated by one byte */
    const char *instead; /* HEAD: what stands at this key is told; a store that lags */
};
int store_fault_new(struct store *below, struct store **out);
/* Any thread. Replaces all rules (copied). */
void store_fault_set(struct store *fault, const struct store_fault_rule *rules, unsigned count);
/* How often rules have acted since they were set: a rule that never met its request tests nothing.
 */
unsigned store_fault_acted(struct store *fault);
/* Requests seen per kind so far. */
uint64_t store_fault_seen(struct store *fault, enum store_kind kind);

#endif
