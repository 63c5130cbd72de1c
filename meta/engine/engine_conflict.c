/*
 * A file was changed here, and somebody else wrote its key: both are kept. The name goes to what is
 * in the bucket, as every other reader of the bucket sees it; ours gets a name beside it, and is
 * settled there. It is one batch, so that a crash leaves both as they were or as they will be.
 * docs/open-layout.md.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/cleanup.h"
#include "engine_impl.h"

#define NS ((uint64_t)1000000000)
#define TRIES 99

/* Bytes of a name that are left when it is cut to `max`: no character is cut in two. */
static size_t cut(const uint8_t *name, size_t len, size_t max)
{
    if (len <= max)
        return len;
    size_t end = max;
    while (end > 0 && (name[end] & 0xc0) == 0x80)
        end--;
    return end ? end : max;
}

/* A free name beside the file's own. */
static int name_beside(struct engine_txn *t, const struct engine_node *node,
                       char out[META_NAME_MAX + 1], struct meta_name *name)
{
    char when[32], suffix[96];
    struct tm tm;
    time_t seconds = (time_t)(t->time_ns / NS);
    struct record_dentry dentry;
    if (!gmtime_r(&seconds, &tm) || !strftime(when, sizeof(when), "%Y%m%dT%H%M%SZ", &tm))
        return -EINVAL;
    for (int i = 1; i <= TRIES; i++) {
        int more = i == 1 ? snprintf(suffix, sizeof(suffix), META_CONFLICT_SUFFIX "%s", when)
                          : snprintf(suffix, sizeof(suffix), META_CONFLICT_SUFFIX "%s-%d", when, i);
        size_t keep = cut(node->now.name, node->now.name_len, META_NAME_MAX - (size_t)more);
        memcpy(out, node->now.name, keep);
        memcpy(out + keep, suffix, (size_t)more);
        *name = (struct meta_name){out, keep + (size_t)more};
        int rc = engine_dentry_get(t, node->now.parent, out, name->len, &dentry);
        if (rc != 0)
            return rc == -ENOENT ? 0 : rc;
    }
    return -EEXIST;
}

static int tell_name(struct meta_reply *reply, size_t i, const void *name, size_t len,
                     struct engine_node *node)
{
    char *copy = meta_reply_alloc(reply, len + 1);
    if (!copy)
        return -ENOMEM;
    memcpy(copy, name, len);
    copy[len] = '\0';
    struct meta_entry *e = &reply->entries[i];
    *e = (struct meta_entry){.name = copy, .name_len = len, .ino = node->ino};
    engine_attr(node->ino, &node->now, &e->attr);
    return 0;
}

int engine_conflict_part(struct engine_txn *t, struct engine_node *node,
                         const struct meta_entry *theirs, const char *key, size_t len,
                         struct meta_reply *reply)
{
    char room[META_NAME_MAX + 1];
    struct meta_name beside;
    struct engine_node *dir, *other;
    struct meta_entry entry = *theirs;
    int rc = engine_txn_dir(t, node->now.parent, &dir);
    if (rc == 0)
        rc = name_beside(t, node, room, &beside);
    if (rc < 0)
        return rc;
    entry.name_len = node->now.name_len;
    entry.name = arena_copy(&t->arena, node->now.name, node->now.name_len);
    key = arena_copy(&t->arena, key, len);
    beside.bytes = arena_copy(&t->arena, beside.bytes, beside.len);
    reply->entries = meta_reply_alloc(reply, 2 * sizeof(*reply->entries));
    if (!entry.name || !key || !beside.bytes || !reply->entries)
        return -ENOMEM;
    rc = engine_name_change(t, dir, node, &beside);
    if (rc == 0)
        rc = engine_import_file(t, dir, &entry, key, len, &other);
    if (rc == 0)
        rc = tell_name(reply, 0, beside.bytes, beside.len, node);
    if (rc == 0)
        rc = tell_name(reply, 1, entry.name, entry.name_len, other);
    if (rc < 0)
        return rc;
    reply->entry_count = 2;
    engine_attr(node->ino, &node->now, &reply->attr);
    engine_attr(other->ino, &other->now, &reply->replaced);
    engine_attr(dir->ino, &dir->now, &reply->parent);
    reply->end = true;
    return 0;
}

/* The step's objects go: what was at the key is somebody else's, so there is nothing to collect. */
static int drop_step(struct engine_txn *t, struct engine_node *node, const struct record_step *step)
{
    struct record_object old;
    int rc = step->replaces ? engine_object_get(t, step->old_object, &old) : -ENOENT;
    if (rc == 0 && old.state == META_OBJECT_GARBAGE)
        rc = engine_object_forget(t, step->old_object, &old);
    if (rc == 0 || rc == -ENOENT)
        rc = engine_object_lost(t, step->target);
    return rc < 0 ? rc : engine_settle_abandon(t, node);
}

int engine_apply_conflict(struct engine_txn *t, const struct meta_op *op, struct meta_reply *reply)
{
    struct engine_node *node;
    struct record_step step;
    struct record_object target;
    char key[META_KEY_MAX + 1];
    size_t len;
    uint64_t holder;
    if (op->entry_count != 1)
        return -EINVAL;
    int rc = engine_txn_inode(t, op->ino, &node);
    if (rc == 0)
        rc = engine_step_get(t, node, &step);
    if (rc == 0 && (!step.natural || step.target != op->object || !node->now.nlink))
        rc = -ENOENT;
    if (rc == 0)
        rc = engine_object_get(t, step.target, &target);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    rc = engine_key_natural(t, node, key, &len);
    if (rc <= 0 || target.key_len != len || memcmp(target.key, key, len) != 0)
        return MIN(rc, 0); /* renamed meanwhile */
    rc = drop_step(t, node, &step);
    if (rc == 0)
        rc = engine_key_holder(t, key, len, &holder);
    if (rc == 0 && holder)
        rc = -EIO;
    return rc < 0 ? rc : engine_conflict_part(t, node, op->entries, key, len, reply);
}
