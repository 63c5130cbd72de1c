/*
 * A decorator for tests that holds back the requests of one kind, or their answers, until told. So
 * an answer can be made older than what happened since, and a request come after it.
 */
#ifndef SLUICE_TESTS_LATE_STORE_H
#define SLUICE_TESTS_LATE_STORE_H

#include "s3/backend.h"

int late_store_new(struct store *below, struct store **out);
/* Any thread. From now on requests of this kind are held back. */
void late_store_hold_requests(struct store *store, enum store_kind kind);
/* They are carried out at once, but their answers are held back. */
void late_store_hold_answers(struct store *store, enum store_kind kind);
/* How many are held back now. */
unsigned late_store_held(struct store *store);
/* Lets all of them go on, and holds no more. */
void late_store_release(struct store *store);

#endif
