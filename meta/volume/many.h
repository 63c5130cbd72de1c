/* Many store requests at once, waited for: for commands that walk a bucket. */
#ifndef SLUICE_META_MANY_H
#define SLUICE_META_MANY_H

#include "s3/store.h"

/* Submits the ops that have a key, at most `parallel` at once, and returns when all have ended;
 * their results are in the ops. `done` and `arg` of the ops are overwritten. Blocking; not on the
 * store's loop thread. */
void many_run(struct store *store, struct store_op *ops, size_t count, unsigned parallel);
/* Deletes keys in batches. 0, or the first error; keys that could not be deleted are counted. */
int many_delete(struct store *store, const char *const *keys, size_t count, uint64_t *failed,
                struct error *error);

#endif
