/*
 * How far a rebuild came: a small JSON file beside the database, as long as the rebuild is not
 * complete. Replaced as a whole.
 */
#ifndef SLUICE_META_REBUILD_STATE_H
#define SLUICE_META_REBUILD_STATE_H

#include "meta/rebuild.h"

struct rebuild_state {
    char after[META_KEY_MAX + 1]; /* all keys up to here are in the database, synced */
    struct rebuild_counts counts;
};

/* Text that anybody may have written: 0, or -EBADMSG. */
int rebuild_state_parse(const void *data, size_t len, struct rebuild_state *out);
/* Before the database is opened: 0 with what is to go on from, or -EEXIST if there is a database
 * that no rebuild began. */
int rebuild_state_begin(const char *directory, struct rebuild_state *out, struct error *error);
/* The rebuild did not begin: forgets the file, unless there is a database. */
void rebuild_state_drop(const char *directory);
/* `name` of the file: "rebuild", or another's that keeps the same things (inventory.c). */
int rebuild_state_save(const char *directory, const char *name, const struct rebuild_state *state,
                       struct error *error);
/* -ENOENT: there is none; -EBADMSG. */
int rebuild_state_load(const char *directory, const char *name, struct rebuild_state *out);
/* It is complete. */
int rebuild_state_end(const char *directory, const char *name, struct error *error);

#endif
