/*
 * Quotas of an engine: limits on directories (records `quota/<ino>`), and in memory what was
 * admitted but is not committed yet.
 *
 * A file that is written grows before its commit. Who accepts the bytes reserves the size first
 * (engine_quota_reserve): the growth above the committed size counts in every directory above each
 * of the file's names, exactly as usage does, and moves with them. So usage + reserved never passes
 * a limit by an accepted write, and the commit of what was reserved needs no room of its own.
 *
 * Reservations are no part of the state machine: they make it refuse operations (which then change
 * nothing), never accept other ones. A replay of the accepted operations gives the same database.
 *
 * Lock: one mutex, held by an apply from its begin to its end while there is any quota, and by a
 * reservation. Above it: the engine's gate. Below it: the record caches. Without quotas nobody
 * takes it.
 */
#ifndef SLUICE_META_ENGINE_QUOTA_H
#define SLUICE_META_ENGINE_QUOTA_H

#include <stdbool.h>
#include <stdint.h>

#include "meta/op.h"

struct engine;
struct engine_txn;
struct engine_node;
struct engine_quota;

int engine_quota_new(struct engine_quota **out);
void engine_quota_free(struct engine_quota *quota);
/* The database was opened (again): reads the records, counts all reservations anew. */
int engine_quota_load(struct engine *engine);

/* How often the volume has got its first limit, or its first one again after the last was gone. */
uint64_t engine_quota_turns(struct engine *engine);

/* Around one apply, on the applying thread. check: -EDQUOT if a directory passes its limit by this
 * operation; limits bind only what users do, not what imports and settles find. end: `written` says
 * whether the changes are in the database. */
void engine_quota_begin(struct engine_txn *t, const struct meta_op *op);
int engine_quota_check(struct engine_txn *t, const struct meta_op *op);
void engine_quota_end(struct engine_txn *t, const struct meta_op *op, bool written);
/* Within an apply: the database is about to be opened again. The lock is let go, which comes after
 * the gate; engine_quota_load counts what there is to count, so engine_quota_end has nothing to do.
 */
void engine_quota_let_go(struct engine_txn *t);

/* A name of `node` comes to (sign 1) or goes from (-1) directory `dir`: what is reserved for it, or
 * below it, moves. */
int engine_quota_name(struct engine_txn *t, uint64_t dir, const struct engine_node *node, int sign);
/* How the reserved part of a file changes when its committed size does. */
int64_t engine_quota_resized(struct engine_txn *t, uint64_t ino, uint64_t from, uint64_t to);
/* Adds to what is reserved in `dir` and all above it. */
int engine_quota_shift(struct engine_txn *t, uint64_t dir, int64_t delta);

int engine_apply_quota_set(struct engine_txn *t, const struct meta_op *op,
                           struct meta_reply *reply);
/* A directory goes away, and its quota with it. */
int engine_quota_drop(struct engine_txn *t, struct engine_node *node);
int engine_read_quota(struct engine *engine, const struct meta_op *op, struct meta_reply *reply);

#endif
