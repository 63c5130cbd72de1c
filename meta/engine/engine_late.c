/*
 * Objects of ours that may yet appear at a natural key: a request to write one was given up, or its
 * answer was lost, and the store carries it out after gc has looked. What then stands there has our
 * tags, but no record: without this it would be taken for somebody else's file. So the last objects
 * that were forgotten are remembered for a while: in LATE_SLOTS rows (by object id), and one more
 * for each key that finds them. docs/open-layout.md.
 */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "engine_impl.h"

#define LATE_SLOTS 4096
#define LATE_NS (3600 * NS_PER_S)
/* What was in use once, others may have copied, with our tags, and may put back: that is no late
 * write of ours. So not for longer than a request that was sent twice may be under way. */
#define LATE_COMMITTED_NS (120 * NS_PER_S)

static int row_get(struct engine_txn *t, const struct record_key *key, struct record_late *out)
{
    const uint8_t *value;
    size_t len;
    int rc = engine_txn_get(t, TABLE_WORK, key, &value, &len);
    if (rc < 0)
        return rc;
    return record_late_decode(value, len, out) < 0 ? -EIO : 0;
}

static int row_put(struct engine_txn *t, const struct record_key *key,
                   const struct record_late *late)
{
    struct buf *b = engine_txn_scratch(t);
    record_late_encode(b, late);
    return buf_error(b) ? -ENOMEM : engine_txn_put(t, TABLE_WORK, key, b->data, b->len);
}

/* The object that had the slot is forgotten. 1: it is the same. */
static int slot_free(struct engine_txn *t, const struct record_key *slot, uint64_t next)
{
    struct record_late old, found;
    struct record_key key;
    int rc = row_get(t, slot, &old);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    if (old.object == next)
        return 1;
    record_key_late(&key, old.key, old.key_len);
    uint64_t id = old.object;
    rc = row_get(t, &key, &found);
    if (rc == 0 && found.object == id)
        return engine_txn_delete(t, TABLE_WORK, &key);
    return rc == -ENOENT ? 0 : rc;
}

int engine_late_note(struct engine_txn *t, uint64_t id, const struct record_object *object)
{
    struct record_key slot, key;
    if (!object->natural || object->foreign)
        return 0;
    record_key_work(&slot, RECORD_WORK_LATE, id % LATE_SLOTS);
    int rc = slot_free(t, &slot, id);
    if (rc != 0)
        return MIN(rc, 0);
    uint64_t until_ns = t->time_ns + (object->etag_len ? LATE_COMMITTED_NS : LATE_NS);
    struct record_late late = {
        .object = id, .until_ns = until_ns, .key = object->key, .key_len = object->key_len};
    record_key_late(&key, object->key, object->key_len);
    rc = row_put(t, &slot, &late);
    late.key_len = 0;
    return rc < 0 ? rc : row_put(t, &key, &late);
}

int engine_late_at(struct engine_txn *t, const char *key, size_t len, uint64_t *id)
{
    struct record_key row;
    struct record_late late;
    record_key_late(&row, key, len);
    int rc = row_get(t, &row, &late);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    *id = late.object;
    return t->time_ns <= late.until_ns;
}

int engine_late_below(struct engine_txn *t, const char *prefix, size_t len)
{
    struct record_key row;
    struct engine_iter iter;
    const uint8_t *k;
    size_t k_len;
    record_key_late(&row, prefix, len);
    engine_iter_init(&iter, t->engine, NULL, TABLE_WORK, &row, NULL, row.len);
    int rc = engine_iter_get(&iter, &k, &k_len, NULL, NULL);
    engine_iter_done(&iter);
    return rc;
}

/* It has a record again, which leads gc to it. */
int engine_apply_late(struct engine_txn *t, const struct meta_op *op, struct meta_reply *reply)
{
    struct record_object object;
    struct record_late late;
    struct record_key slot;
    uint64_t holder;
    if (!op->data_len || op->data_len > META_KEY_MAX)
        return -EINVAL;
    uint64_t id = op->object;
    record_key_work(&slot, RECORD_WORK_LATE, id % LATE_SLOTS);
    int rc = row_get(t, &slot, &late);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    if (late.object != id || late.key_len != op->data_len ||
        memcmp(late.key, op->data, op->data_len) != 0 || t->time_ns > late.until_ns)
        return 0;
    rc = engine_object_get(t, id, &object);
    if (rc != -ENOENT)
        return MIN(rc, 0);
    rc = engine_key_holder(t, op->data, op->data_len, &holder);
    if (rc < 0)
        return rc;
    reply->end = true;
    if (holder)
        return 0;
    object = (struct record_object){.state = META_OBJECT_GARBAGE,
                                    .natural = true,
                                    .key = op->data,
                                    .key_len = op->data_len,
                                    .etag = ""};
    t->counters.garbage_objects++;
    rc = engine_key_put(t, object.key, object.key_len, id);
    return rc < 0 ? rc : engine_object_requeue(t, id, &object, t->time_ns);
}
