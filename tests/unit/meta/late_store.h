/*
 * A decorator for tests: carries requests out at once, and holds back the answers of one kind until
 * told. So an answer can be made older than what happened since.
 */
#ifndef SLUICE_TESTS_LATE_STORE_H
#define SLUICE_TESTS_LATE_STORE_H

#include "s3/backend.h"

int late_store_new(struct store *below, struct store **out);
/* Any thread. From now on answers of this kind are held back. */
void late_store_hold(struct store *late, enum store_kind kind);
/* How many are held back now. */
unsigned late_store_held(struct store *late);
/* Gives all of them, and holds no more. */
void late_store_release(struct store *late);

#endif
