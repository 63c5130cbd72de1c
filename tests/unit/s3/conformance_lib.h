/* Helpers of the conformance suite: requests with few words, and memory that goes with the run. */
#ifndef SLUICE_TESTS_CONFORMANCE_LIB_H
#define SLUICE_TESTS_CONFORMANCE_LIB_H

#include <stdio.h>
#include <string.h>

#include "s3/store.h"

struct run {
    struct store *store;
    const struct store_caps *caps;
    const char *prefix; /* of the behaviour that is tried: keys are relative to it */
    struct store_op op; /* the last request's outputs */
    char failure[1024]; /* the first; empty: none */
    void *owned;        /* freed at its end */
    size_t part_size;   /* the smallest that a part may have */
};

/* Records the first thing that is not as expected, and goes on: what follows must bear it. */
#define want(r, condition) run_want((r), (condition), __FILE__, __LINE__, #condition)
#define want_int(r, got, expected) run_want_int((r), (got), (expected), __FILE__, __LINE__, #got)
#define want_str(r, got, expected) run_want_str((r), (got), (expected), __FILE__, __LINE__, #got)

bool run_want(struct run *r, bool holds, const char *file, int line, const char *text);
void run_want_int(struct run *r, long long got, long long expected, const char *file, int line,
                  const char *text);
void run_want_str(struct run *r, const char *got, const char *expected, const char *file, int line,
                  const char *text);

/* Memory and text that live until the behaviour is done. */
void *run_alloc(struct run *r, size_t len);
const char *run_key(struct run *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
const char *run_keep(struct run *r, const char *text);
/* `len` bytes that differ from those of another seed. */
uint8_t *run_pattern(struct run *r, size_t len, unsigned seed);
void run_end(struct run *r);

/* Clears r->op for a new request of a key (relative; NULL: none). */
struct store_op *run_begin(struct run *r, enum store_kind kind, const char *key);
int run_do(struct run *r);
void run_body(struct run *r, struct store_op *op, const void *data, size_t len);

/* Whole requests; they return the result, and outputs are in r->op. */
int run_put(struct run *r, const char *key, const char *text);
int run_put_bytes(struct run *r, const char *key, const void *data, size_t len);
int run_get(struct run *r, const char *key, uint64_t offset, size_t len); /* the bytes: r->op.buf */
int run_head(struct run *r, const char *key);
int run_delete(struct run *r, const char *key);
int run_copy(struct run *r, const char *from, const char *to);
int run_list(struct run *r, const char *prefix, const char *delimiter);
const char *run_create(struct run *r, const char *key); /* the upload id; "" on failure */
int run_part(struct run *r, const char *key, const char *id, uint32_t number, const void *data,
             size_t len, struct store_part *out);
int run_complete(struct run *r, const char *key, const char *id, const struct store_part *parts,
                 unsigned count);
int run_abort(struct run *r, const char *key, const char *id);

/* The whole object is this. */
void run_want_object(struct run *r, const char *key, const void *data, size_t len);
/* The names of the last listing without the prefix, "a b/ c"; those of common prefixes in (). */
const char *run_names(struct run *r);
/* Submits all at once and waits for all. */
void run_together(struct run *r, struct store_op *ops, unsigned count);

#endif
