/*
 * Keys of a bucket become names, one after the other: a stack of the directories above the current
 * key is all that is remembered. In bytewise order each directory is met once, and is as if listed
 * when it is left.
 *
 * A file `a` waits (held) as long as keys like `a-b` come after it, because `a/c` may still follow:
 * then the directory is shown and the file is not, as a listing by directory has it.
 *
 * With asked_ns the keys are those of an inventory of that time: in any order, some maybe twice,
 * and none is newer than what is known (META_IMPORT_OLD).
 */
#ifndef SLUICE_META_REBUILD_TREE_H
#define SLUICE_META_REBUILD_TREE_H

#include "meta/op.h"
#include "meta/rebuild.h"

struct meta;
struct names_hidden;
struct rebuild_level;

struct rebuild_tree {
    struct meta *meta;
    size_t prefix_len;
    struct rebuild_level *levels; /* owned; [0] is the root */
    size_t depth, cap;
    char path[META_KEY_MAX + 1]; /* the key whose directories the levels are */
    struct names_hidden *hidden; /* owned; the caller frees it */
    struct rebuild_counts *counts;
    struct error *error;
    uint64_t asked_ns; /* may be set after rebuild_tree_begin */
};

int rebuild_tree_begin(struct rebuild_tree *t, struct meta *meta, struct rebuild_counts *counts,
                       struct error *error);
/* `file`: size, times, ETag and maybe attributes; its name is not used. `key` begins with the
 * volume's prefix. */
int rebuild_tree_add(struct rebuild_tree *t, const char *key, const struct meta_entry *file);
/* All that was added is applied: 0; or 1: of some that cannot be decided yet. */
int rebuild_tree_flush(struct rebuild_tree *t);
/* `whole`: these were all keys. */
int rebuild_tree_end(struct rebuild_tree *t, bool whole);

#endif
