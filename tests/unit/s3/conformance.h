/*
 * What every store must do, as a table of behaviours. Run by unit tests on the stores in memory and
 * in a directory and on decorators, and by tests/integration/store_conformance on a store with a
 * URL.
 */
#ifndef SLUICE_TESTS_CONFORMANCE_H
#define SLUICE_TESTS_CONFORMANCE_H

#include <stdio.h>

#include "s3/store.h"

struct conformance_result {
    unsigned passed, failed;
    unsigned different; /* behaviours that the store says (store_caps) it does not have */
};

/* Works on keys below `prefix` ("" or "…/"), which should be empty, and removes what it made. A
 * line to `out` for each behaviour that failed or is different, for all with `verbose`. With `only`
 * (may be NULL) those whose name contains it. Not on the loop thread. */
struct conformance_result conformance_run(struct store *store, const char *prefix, const char *only,
                                          bool verbose, FILE *out);

#endif
