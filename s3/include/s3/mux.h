/*
 * Several stores behind one: a key "/N/key" (N from 1 to STORE_MUX_MAX, decimal) is `key` in store
 * number N, every other key is one of the mux's own store. No key of a volume begins with '/', as
 * no component of a path is empty, so the two are never mistaken for each other.
 *
 * A store that is not there (yet) answers -EIO with a sentence that says why. One request stays in
 * one store: COPY and PART_COPY from another end in -EXDEV, so does DELETE_MANY of keys in several.
 */
#ifndef SLUICE_S3_MUX_H
#define SLUICE_S3_MUX_H

#include "s3/store.h"

#define STORE_MUX_MAX 63
#define STORE_ROUTE_MAX 4 /* bytes of "/63/" */

/* The number of the store that a key, or a prefix, is in: 0, the mux's own. *skip: where the
 * store's own key begins. The key need not end in NUL. */
unsigned store_route(const char *key, size_t len, size_t *skip);
/* Writes what keys of a store begin with, "" for 0, with NUL. Returns its length. */
size_t store_route_print(unsigned number, char out[STORE_ROUTE_MAX + 1]);

/* Takes ownership of `own`, whose name and abilities it shows. */
int store_mux_new(struct store *own, struct store **out);
bool store_is_mux(const struct store *store);
/* Puts a store of the same loop at a number, taken over, in place of what is there; NULL: `why`
 * (copied) is what its requests are answered. `name` (copied) stands in messages. Waits for the
 * requests that are under way to the former one, then frees it. Not on the loop thread; one call at
 * a time. -ENOMEM leaves all as it was, and `store` with the caller. */
int store_mux_set(struct store *mux, unsigned number, const char *name, struct store *store,
                  const char *why);
/* While it is held, requests to other stores than the mux's own wait: what a number means may have
 * changed. Any thread; never blocks. */
void store_mux_hold(struct store *mux, bool hold);

#endif
