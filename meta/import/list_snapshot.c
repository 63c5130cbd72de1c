#include "list_snapshot.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/names.h"

#define STEP 1000 /* names of one question to the database */

struct list_seen {
    uint64_t ino, data_version, meta_version;
    size_t len;
    char *name; /* owned */
};

void list_snapshot_done(struct list_snapshot *snapshot)
{
    for (size_t i = 0; i < snapshot->count; i++)
        free(snapshot->entries[i].name);
    free(snapshot->entries);
}

static int add(struct list_snapshot *s, const struct meta_entry *e)
{
    if (s->count == s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 256;
        struct list_seen *grown = reallocarray(s->entries, cap, sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        s->entries = grown;
        s->cap = cap;
    }
    char *name = strndup(e->name, e->name_len);
    if (!name)
        return -ENOMEM;
    s->entries[s->count++] = (struct list_seen){.ino = e->attr.ino,
                                                .data_version = e->attr.data_version,
                                                .meta_version = e->attr.meta_version,
                                                .len = e->name_len,
                                                .name = name};
    return 0;
}

int list_snapshot_take(struct meta *meta, uint64_t ino, const struct meta_name *from,
                       const struct meta_name *to, struct list_snapshot *snapshot)
{
    char after[META_NAME_MAX + 1];
    size_t after_len = from->len;
    memcpy(after, from->bytes, from->len);
    bool end = false;
    while (!end) {
        struct meta_op op = {.kind = META_READDIR,
                             .ino = ino,
                             .name = {after, after_len},
                             .count = STEP,
                             .plus = true};
        struct meta_reply reply;
        int rc = volume_read(meta, &op, &reply);
        end = rc || reply.end || !reply.entry_count;
        for (size_t i = 0; !rc && i < reply.entry_count; i++) {
            const struct meta_entry *e = &reply.entries[i];
            if (to->len && names_compare(e->name, e->name_len, to->bytes, to->len) > 0) {
                end = true;
                break;
            }
            rc = add(snapshot, e);
            after_len = MIN(e->name_len, (size_t)META_NAME_MAX);
            memcpy(after, e->name, after_len);
        }
        meta_reply_done(&reply);
        if (rc)
            return rc;
    }
    return 0;
}

void list_snapshot_tell(struct meta *meta, uint64_t ino, const struct list_snapshot *before,
                        const struct list_snapshot *after)
{
    size_t i = 0, j = 0;
    while (i < before->count || j < after->count) {
        const struct list_seen *b = i < before->count ? &before->entries[i] : NULL;
        const struct list_seen *a = j < after->count ? &after->entries[j] : NULL;
        int order = !b ? 1 : !a ? -1 : names_compare(b->name, b->len, a->name, a->len);
        if (order < 0 || (!order && b->ino != a->ino))
            volume_entry_changed(meta, ino, b->name, b->len);
        else if (order > 0)
            volume_entry_changed(meta, ino, a->name, a->len);
        else if (b->data_version != a->data_version || b->meta_version != a->meta_version)
            volume_inode_changed(meta, a->ino, b->data_version != a->data_version);
        i += order <= 0;
        j += order >= 0;
    }
}
