/*
 * Whether a sync of the metadata log waits for those who will want it next. While one sync runs,
 * the next ones gather for the one after it; but those whom it answers come back when that has
 * begun, and wait for the third: each waits for nearly two. When as many as there are came within
 * the time of one sync, one serves them all. Counts only: no clock, no lock.
 */
#ifndef SLUICE_META_GATHER_H
#define SLUICE_META_GATHER_H

#include <stdbool.h>

struct gather {
    unsigned users;        /* answered by the last sync, or waiting when it ended */
    unsigned skip, missed; /* rounds that do not wait; misses in a row */
};

/* How many must be waiting before the sync begins; `waiting` are. Not more than that: it begins. */
unsigned gather_begin(struct gather *gather, unsigned waiting);
/* After a wait: whether all came in time. */
void gather_end(struct gather *gather, bool came);
/* After a sync: it answers so many, others wait already. */
void gather_synced(struct gather *gather, unsigned answered, unsigned waiting);

#endif
