/*
 * Rebuild: a new metadata database from a bucket alone, when the old one is lost. One flat listing
 * gives the names; the user metadata of each object gives modes, owners and times. What else the
 * bucket carries: docs/rebuild.md.
 */
#ifndef SLUICE_META_REBUILD_H
#define SLUICE_META_REBUILD_H

#include <jansson.h>

#include "meta/meta.h"

struct rebuild_counts {
    uint64_t keys; /* seen, the volume's own not counted */
    uint64_t files, directories, bytes;
    uint64_t with_attributes; /* files whose object says mode, owner and time */
    uint64_t entries;         /* directories, links and attributes from `.sluice/e/` */
    uint64_t hidden;          /* keys that are no paths */
};

struct rebuild_config {
    /* directory, store, prefix, format, take_over, memory_bytes, owner_text. The directory is made
     * by the caller; it must have no database, or one of an interrupted rebuild, which goes on
     * where it was. */
    struct meta_config volume;
    bool no_attributes; /* do not ask each object for its user metadata: as fast as the listing */
    unsigned parallel;  /* such requests at once; default 64 */
    /* Now and then, on the calling thread. May be NULL. */
    void (*progress)(void *arg, const struct rebuild_counts *counts);
    void *arg;
};

/* Blocking; not on a store's loop thread. -EEXIST: the directory has a database · -EBUSY: the
 * prefix is held by another mount (volume.take_over) · errors of the store and the disk. After an
 * error, or the death of the process, the same call goes on. `hidden` (may be NULL): an object that
 * gets "hidden_keys" and "hidden" as `sluice status` shows them. */
int meta_rebuild(const struct rebuild_config *config, struct rebuild_counts *counts, json_t *hidden,
                 struct error *error);

#endif
