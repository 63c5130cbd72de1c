/*
 * Other stores than the volume's own, and which directory's files belong where. Records: "store/"
 * and "place/" in the system table. What is known of the stores is kept in memory too; it is
 * changed on the applying thread only, which reads it without the lock.
 */
#ifndef SLUICE_META_ENGINE_STORES_H
#define SLUICE_META_ENGINE_STORES_H

#include <pthread.h>

#include "meta/op.h"

struct engine;
struct engine_txn;
struct engine_node;

struct engine_stores {
    pthread_mutex_t lock;                          /* a leaf */
    struct meta_store *known[META_STORES_MAX + 1]; /* by number; owned */
    unsigned count;
};

/* Where the files below a directory belong. */
struct engine_home {
    unsigned store;
    uint64_t top;  /* the directory whose path is the store's prefix */
    bool paused;   /* what is in another store stays there */
    bool writable; /* else the files that change here go to the volume's own store */
};

int engine_stores_load(struct engine *engine);
void engine_stores_free(struct engine *engine);
/* After the commit of what changes a store. */
void engine_stores_note(struct engine *engine, const struct meta_op *op);

/* "main" for the volume's own. Any thread. */
void engine_store_name(struct engine *engine, unsigned number, char out[META_STORE_NAME_MAX + 1]);

/* Applying thread. */

/* For a file: where its directory belongs. For a directory: where its names do. */
int engine_home(struct engine_txn *t, struct engine_node *node, struct engine_home *out);
/* What the keys of a store begin with: its route and its prefix. Its length, or -ENOENT. */
int engine_store_base(const struct engine *engine, unsigned number, char out[META_KEY_MAX + 8]);
/* How much of a key is its store's base. */
size_t engine_key_base(const struct engine *engine, const char *key, size_t len);
/* The store that a key is in; NULL: the volume's own. */
const struct meta_store *engine_key_store(const struct engine *engine, const char *key, size_t len);
bool engine_beside(const struct engine *engine, const char *key, size_t len);
/* 1 and the directory's own record; 0: it has none. */
struct record_place;
int engine_place_get(struct engine_txn *t, const struct engine_node *dir, struct record_place *out);
/* What that says is of `node`, which is at or below the directory: not if it is by age, and the
 * node is too young, or a directory. */
bool engine_place_binds(const struct engine_txn *t, const struct record_place *place,
                        const struct engine_node *node);
int engine_place_drop(struct engine_txn *t, struct engine_node *dir);

int engine_apply_store_set(struct engine_txn *t, const struct meta_op *op,
                           struct meta_reply *reply);
int engine_apply_store_drop(struct engine_txn *t, const struct meta_op *op,
                            struct meta_reply *reply);
int engine_apply_store_place(struct engine_txn *t, const struct meta_op *op,
                             struct meta_reply *reply);
int engine_apply_store_empty(struct engine_txn *t, const struct meta_op *op,
                             struct meta_reply *reply);

#endif
