/*
 * What the database has of a directory, before a page of a listing is applied and after it: the
 * difference is told to the mount, which may have cached names and attributes of it. Work thread.
 */
#ifndef SLUICE_META_LIST_SNAPSHOT_H
#define SLUICE_META_LIST_SNAPSHOT_H

#include "volume/volume.h"

struct list_snapshot {
    struct list_seen *entries; /* by name; owned */
    size_t count, cap;
};

/* The names after `from` up to `to` (length 0: the end). 0, -ENOMEM, or what the database said; in
 * every case list_snapshot_done follows. */
int list_snapshot_take(struct meta *meta, uint64_t ino, const struct meta_name *from,
                       const struct meta_name *to, struct list_snapshot *snapshot);
void list_snapshot_done(struct list_snapshot *snapshot);
void list_snapshot_tell(struct meta *meta, uint64_t ino, const struct list_snapshot *before,
                        const struct list_snapshot *after);

#endif
