/*
 * The storage class of objects, by directory and age. A file that is one object at its own key, of
 * another class than its directory wants, gets it in place: the object is replaced in the bucket by
 * a copy of itself. It stays the same object (id, key, content id), so whatever else uses it is not
 * concerned; its ETag may be another one afterwards. That it may be replaced is recorded in the
 * object, and synced, before it is begun: whoever then finds another object at the key knows the
 * copy by its tags (number of the object and of the change), and tells by META_CLASS_DONE. The
 * change has a reserved object besides, with the same key, which leads gc to uploads that a crash
 * leaves. docs/stores.md.
 */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine_impl.h"

bool engine_class_is_as_wished(const struct record_object *object, const char *wish)
{
    size_t len = strlen(wish);
    return !object->changing &&
           (!len || (object->class_len == len && !memcmp(object->class, wish, len)));
}

int engine_class_step(struct engine_txn *t, struct engine_node *node, struct record_step *step,
                      struct record_object *object)
{
    struct record_object other;
    char key[META_KEY_MAX + 1], wish[META_CLASS_MAX + 1];
    size_t len;
    if (node->now.flags & RECORD_EVICT || node->now.nlink == 0)
        return 0;
    int rc = engine_key_and_class(t, node, key, &len, wish);
    if (rc > 0)
        rc = engine_one_object(t, node, object);
    if (rc <= 0 || object->key_len != len || memcmp(object->key, key, len) != 0 ||
        engine_class_is_as_wished(object, wish))
        return MIN(rc, 0);
    *step = (struct record_step){.action = META_SETTLE_CLASS,
                                 .natural = true,
                                 .replaces = true,
                                 .old_object = node->now.object,
                                 .old_etag = object->etag,
                                 .old_etag_len = object->etag_len,
                                 .data_version = node->now.data_version};
    rc = engine_object_reserve(t, node, key, len, &step->target, &other);
    other.replaces = node->now.object;
    if (rc == 0)
        rc = engine_object_put(t, step->target, &other);
    if (rc < 0)
        return rc;
    /* What an earlier try may have written is of its class. */
    if (!object->changing) {
        object->changing = step->target;
        object->next_class = arena_copy(&t->arena, wish, strlen(wish));
        object->next_class_len = strlen(wish);
        if (!object->next_class)
            return -ENOMEM;
        rc = engine_object_put(t, node->now.object, object);
    }
    if (rc == 0)
        rc = engine_step_put(t, node, step);
    return rc < 0 ? rc : 1;
}

/* The file's step is over, and nothing of it is left in the store but the object itself. */
static int end_step(struct engine_txn *t, uint64_t ino, uint64_t change)
{
    struct engine_node *node;
    struct record_step step;
    struct record_object reserved;
    int rc = engine_txn_inode(t, ino, &node);
    if (rc == 0)
        rc = engine_step_get(t, node, &step);
    if (rc < 0 || step.action != META_SETTLE_CLASS || step.target != change)
        return rc == -ENOENT ? 0 : rc;
    rc = engine_object_get(t, change, &reserved);
    if (rc == 0 && reserved.state == META_OBJECT_RESERVED)
        rc = engine_object_forget(t, change, &reserved);
    if (rc == 0 || rc == -ENOENT)
        rc = engine_step_drop(t, node);
    if (rc < 0 || !node->now.due_ns || !node->now.nlink)
        return rc;
    rc = engine_settle_is_done(t, node);
    if (rc < 0)
        return rc;
    return rc ? engine_settle_unqueue(t, node)
              : engine_settle_requeue(t, node, t->time_ns, NULL, 0);
}

int engine_apply_class_done(struct engine_txn *t, const struct meta_op *op,
                            struct meta_reply *reply)
{
    struct record_object object;
    struct engine_node *node;
    if (op->entry_count != 1)
        return -EINVAL;
    size_t etag_len = strnlen(op->entries[0].etag, META_ETAG_MAX);
    if (!etag_len || etag_len >= META_ETAG_MAX)
        return -EINVAL;
    int rc = engine_object_get(t, op->object, &object);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    bool is_copy = object.changing && op->new_ino >= object.changing && !object.lost &&
                   op->entries[0].size == object.size;
    if (is_copy) {
        object.class = object.next_class;
        object.class_len = object.next_class_len;
        object.changing = 0;
        object.next_class_len = 0;
        object.etag = op->entries[0].etag;
        object.etag_len = etag_len;
        object.foreign = false;
        object.mtime_ns = t->time_ns;
        rc = engine_object_put(t, op->object, &object);
        reply->end = true;
    }
    /* What the bucket says of the file besides is about the object by its ETag. */
    int found = is_copy && rc == 0 ? engine_txn_inode(t, object.ino, &node) : -ENOENT;
    if (found == 0)
        rc = engine_carry_changed(t, node);
    else if (found != -ENOENT)
        rc = found;
    return rc < 0 || !op->ino ? rc : end_step(t, op->ino, op->length);
}
