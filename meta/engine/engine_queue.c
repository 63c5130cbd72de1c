/*
 * The queue of what is to be settled: regular files, and directories whose subtree was renamed. A
 * row stands at its due time; the inode's record knows that time, so that a later change need not
 * move the row: who takes a file from the queue looks at its last change and puts it back if it is
 * not quiet yet.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "engine_impl.h"
#include "s3/mux.h"

static void row_key(const struct engine_node *node, struct record_key *key)
{
    record_key_work2(key, RECORD_WORK_SETTLE, node->now.due_ns, node->ino);
}

static int row_put(struct engine_txn *t, struct engine_node *node, uint64_t due_ns,
                   const struct record_queue *queue)
{
    struct record_key key;
    node->now.due_ns = MAX(due_ns, 1);
    node->dirty = true;
    t->queued_ns[ENGINE_QUEUE_SETTLE] = MIN(t->queued_ns[ENGINE_QUEUE_SETTLE], node->now.due_ns);
    row_key(node, &key);
    struct buf *b = engine_txn_scratch(t);
    record_queue_encode(b, queue);
    return buf_error(b) ? -ENOMEM : engine_txn_put(t, TABLE_WORK, &key, b->data, b->len);
}

static int cursor_drop(struct engine_txn *t, struct engine_node *node)
{
    struct record_key key;
    record_key_work(&key, RECORD_WORK_CURSOR, node->ino);
    return S_ISDIR(node->now.mode) ? engine_txn_delete(t, TABLE_WORK, &key) : 0;
}

int engine_settle_queue(struct engine_txn *t, struct engine_node *node, uint64_t due_ns)
{
    int rc = cursor_drop(t, node);
    if (rc < 0)
        return rc;
    /* What failed waits long; with the change it may not fail any more. */
    if (node->now.due_ns)
        return node->now.due_ns <= due_ns ? 0 : engine_settle_requeue(t, node, due_ns, NULL, 0);
    struct record_queue queue = {.subtree = S_ISDIR(node->now.mode), .since_ns = t->time_ns};
    return row_put(t, node, due_ns, &queue);
}

int engine_settle_requeue(struct engine_txn *t, struct engine_node *node, uint64_t due_ns,
                          const char *reason, size_t reason_len)
{
    struct record_queue queue = {.subtree = S_ISDIR(node->now.mode), .since_ns = t->time_ns};
    if (node->now.due_ns) {
        struct record_key key;
        const uint8_t *value;
        size_t len;
        row_key(node, &key);
        int rc = engine_txn_get(t, TABLE_WORK, &key, &value, &len);
        if (rc == 0 && record_queue_decode(value, len, &queue) < 0)
            rc = -EIO;
        if (rc == 0)
            rc = engine_txn_delete(t, TABLE_WORK, &key);
        if (rc < 0)
            return rc == -ENOENT ? -EIO : rc;
    }
    queue.reason = reason;
    queue.reason_len = reason_len;
    return row_put(t, node, due_ns, &queue);
}

int engine_settle_unqueue(struct engine_txn *t, struct engine_node *node)
{
    struct record_key key;
    if (!node->now.due_ns)
        return 0;
    row_key(node, &key);
    node->now.due_ns = 0;
    node->now.flags &= ~(uint32_t)(RECORD_HURRY | RECORD_EVICT);
    node->dirty = true;
    int rc = cursor_drop(t, node);
    return rc < 0 ? rc : engine_txn_delete(t, TABLE_WORK, &key);
}

uint64_t engine_settle_delay_ns(const struct engine *engine)
{
    return (uint64_t)engine->volume.settle_delay_ms * 1000000;
}

static bool is_internal(const struct engine *engine, const char *key, size_t len)
{
    size_t base = engine_key_base(engine, key, len);
    static const char internal[] = ".sluice/o/";
    return len > base + sizeof(internal) - 1 &&
           memcmp(key + base, internal, sizeof(internal) - 1) == 0;
}

/* A whole object that is no natural one may stay where it is. */
static int may_stay(struct engine_txn *t, struct engine_node *node,
                    const struct record_object *object)
{
    struct engine_home home;
    size_t skip;
    unsigned store = store_route(object->key, object->key_len, &skip);
    int rc = engine_home(t, node, &home);
    if (rc < 0)
        return rc;
    if (!home.writable && store == home.store)
        return 1;
    return is_internal(t->engine, object->key, object->key_len) &&
           store == (home.writable ? home.store : 0);
}

int engine_one_object(struct engine_txn *t, const struct engine_node *node,
                      struct record_object *object)
{
    const struct record_inode *inode = &node->now;
    if (inode->body != RECORD_BODY_OBJECT || inode->object_offset != 0 ||
        inode->object_length != inode->size)
        return 0;
    int rc = engine_object_get(t, inode->object, object);
    if (rc < 0)
        return rc == -ENOENT ? -EIO : rc;
    return object->size == inode->size && !object->lost;
}

int engine_settle_is_done(struct engine_txn *t, struct engine_node *node)
{
    struct record_object object;
    char key[META_KEY_MAX + 1], class[META_CLASS_MAX + 1];
    size_t len;
    int natural = engine_key_and_class(t, node, key, &len, class);
    int one = natural < 0 ? natural : engine_one_object(t, node, &object);
    if (one < 0)
        return one;
    if (natural)
        return one && object.key_len == len && memcmp(object.key, key, len) == 0 &&
               engine_class_is_as_wished(&object, class);
    /* Without a natural key bytes may stay in the metadata. */
    if (node->now.body == RECORD_BODY_EMPTY || node->now.body == RECORD_BODY_INLINE)
        return 1;
    return one ? may_stay(t, node, &object) : 0;
}

int engine_settle_changed(struct engine_txn *t, struct engine_node *node)
{
    if (!S_ISREG(node->now.mode) || node->now.nlink == 0)
        return 0;
    node->now.changed_ns = t->time_ns;
    node->now.flags &= ~(uint32_t)RECORD_HURRY;
    node->dirty = true;
    int carry = engine_carry_changed(t, node);
    if (carry < 0)
        return carry;
    int done = node->now.body == RECORD_BODY_OBJECT ? engine_settle_is_done(t, node) : 0;
    if (done < 0)
        return done;
    if (done && !(node->now.flags & RECORD_HAS_STEP))
        return engine_settle_unqueue(t, node);
    return engine_settle_queue(t, node, t->time_ns + engine_settle_delay_ns(t->engine));
}

int engine_step_get(struct engine_txn *t, const struct engine_node *node, struct record_step *out)
{
    struct record_key key;
    const uint8_t *value;
    size_t len;
    if (!(node->now.flags & RECORD_HAS_STEP))
        return -ENOENT;
    record_key_work(&key, RECORD_WORK_STEP, node->ino);
    int rc = engine_txn_get(t, TABLE_WORK, &key, &value, &len);
    if (rc < 0)
        return rc == -ENOENT ? -EIO : rc;
    return record_step_decode(value, len, out) < 0 ? -EIO : 0;
}

int engine_step_put(struct engine_txn *t, struct engine_node *node, const struct record_step *step)
{
    struct record_key key;
    struct buf *b = engine_txn_scratch(t);
    record_step_encode(b, step);
    node->now.flags |= RECORD_HAS_STEP;
    node->dirty = true;
    record_key_work(&key, RECORD_WORK_STEP, node->ino);
    return buf_error(b) ? -ENOMEM : engine_txn_put(t, TABLE_WORK, &key, b->data, b->len);
}

int engine_step_drop(struct engine_txn *t, struct engine_node *node)
{
    struct record_key key;
    node->now.flags &= ~(uint32_t)RECORD_HAS_STEP;
    node->dirty = true;
    record_key_work(&key, RECORD_WORK_STEP, node->ino);
    return engine_txn_delete(t, TABLE_WORK, &key);
}

int engine_settle_abandon(struct engine_txn *t, struct engine_node *node)
{
    struct record_step step;
    struct record_object object;
    int rc = engine_step_get(t, node, &step);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    rc = engine_object_get(t, step.target, &object);
    if (rc == 0 && object.state == META_OBJECT_RESERVED)
        rc = engine_object_discard(t, step.target, &object);
    if (rc < 0 && rc != -ENOENT)
        return rc;
    return engine_step_drop(t, node);
}
