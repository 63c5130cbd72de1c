/*
 * A set of byte ranges, sorted, without overlap; neighbours that touch differ in epoch or kind.
 * Pure memory; the caller's lock.
 */
#ifndef SLUICE_FS_STAGING_RANGES_H
#define SLUICE_FS_STAGING_RANGES_H

#include <stddef.h>

#include "staging.h"

struct ranges {
    struct staging_range *items; /* owned */
    size_t count, cap;
    uint64_t bytes; /* of those that are no holes */
};

void ranges_done(struct ranges *set);
/* *out is another set of the same ranges, or empty with -ENOMEM. */
int ranges_copy(const struct ranges *set, struct ranges *out);
/* The range now has this epoch and kind, whatever was there. -ENOMEM: nothing changed. */
int ranges_set(struct ranges *set, uint64_t offset, uint64_t length, uint64_t epoch, bool hole);
/* Removes what of the range has an epoch up to max_epoch. -ENOMEM: nothing changed. */
int ranges_clear(struct ranges *set, uint64_t offset, uint64_t length, uint64_t max_epoch);
/* Index of the first range that ends after `offset`; count if none. */
size_t ranges_find(const struct ranges *set, uint64_t offset);

#endif
