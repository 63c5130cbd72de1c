/*
 * What the bucket carries of an inode besides its content: an entry below `.sluice/e/`
 * (docs/rebuild.md). A row of the work table says that an entry may be out of date; its stamp steps
 * with each change, so that a change while the entry is being written is not lost. A flag of the
 * inode, set before the first entry is written, says that there may be one.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "engine_impl.h"

static void row_key(uint64_t ino, struct record_key *key)
{
    record_key_work(key, RECORD_WORK_CARRY, ino);
}

static int row_put(struct engine_txn *t, uint64_t ino)
{
    struct record_key key;
    struct record_carry row = {.stamp = t->counters.applied + 1, .time_ns = t->time_ns};
    struct buf *b = engine_txn_scratch(t);
    record_carry_encode(b, &row);
    row_key(ino, &key);
    return buf_error(b) ? -ENOMEM : engine_txn_put(t, TABLE_WORK, &key, b->data, b->len);
}

static int row_delete(struct engine_txn *t, uint64_t ino)
{
    struct record_key key;
    row_key(ino, &key);
    return engine_txn_delete(t, TABLE_WORK, &key);
}

int engine_carry_queue(struct engine_txn *t, struct engine_node *node)
{
    node->now.flags |= RECORD_CARRY_DUE;
    node->dirty = true;
    return row_put(t, node->ino);
}

int engine_carry_changed(struct engine_txn *t, struct engine_node *node)
{
    return node->now.flags & RECORD_CARRIED ? engine_carry_queue(t, node) : 0;
}

int engine_carry_settled(struct engine_txn *t, struct engine_node *node, bool same_attributes)
{
    const struct record_inode *inode = &node->now;
    if (!(inode->flags & (RECORD_CARRIED | RECORD_CARRY_DUE)))
        return same_attributes ? 0 : engine_carry_queue(t, node);
    if (!same_attributes || inode->flags & RECORD_CARRIED || inode->xattrs || inode->nlink > 1)
        return engine_carry_queue(t, node);
    /* The new object says it all. */
    node->now.flags &= ~(uint32_t)RECORD_CARRY_DUE;
    node->dirty = true;
    return row_delete(t, node->ino);
}

int engine_carry_purge(struct engine_txn *t, struct engine_node *node)
{
    if (node->now.flags & RECORD_CARRIED)
        return row_put(t, node->ino);
    return node->now.flags & RECORD_CARRY_DUE ? row_delete(t, node->ino) : 0;
}

int engine_apply_carry_begin(struct engine_txn *t, const struct meta_op *op,
                             struct meta_reply *reply)
{
    struct engine_node *node;
    char key[META_KEY_MAX + 1];
    size_t len;
    int rc = engine_txn_inode(t, op->ino, &node);
    if (rc < 0)
        return rc;
    rc = node->now.nlink ? engine_key_natural(t, node, key, &len) : 0;
    if (rc <= 0)
        return rc;
    reply->end = true;
    if (!(node->now.flags & RECORD_CARRIED)) {
        node->now.flags |= RECORD_CARRIED;
        node->dirty = true;
    }
    return 0;
}

int engine_apply_carry_done(struct engine_txn *t, const struct meta_op *op,
                            struct meta_reply *reply)
{
    struct engine_node *node = NULL;
    struct record_key key;
    struct record_carry row;
    const uint8_t *value;
    size_t len;
    int found = engine_txn_inode(t, op->ino, &node);
    if (found < 0 && found != -ENOENT)
        return found;
    if (found == 0 && op->flags & META_NOT_WRITTEN && node->now.flags & RECORD_CARRIED) {
        node->now.flags &= ~(uint32_t)RECORD_CARRIED;
        node->dirty = true;
    }
    row_key(op->ino, &key);
    int rc = engine_txn_get(t, TABLE_WORK, &key, &value, &len);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    if (record_carry_decode(value, len, &row) < 0)
        return -EIO;
    if (row.stamp != op->length)
        return 0;
    if (found == 0) {
        node->now.flags &= ~(uint32_t)RECORD_CARRY_DUE;
        node->dirty = true;
    }
    return row_delete(t, op->ino);
}

/* Reading: any thread */

int engine_carry_rows(struct engine *engine, uint64_t after, struct engine_carry *out, int max)
{
    struct record_key lower, upper;
    struct engine_iter iter;
    const uint8_t *k, *v;
    size_t k_len, len;
    int count = 0, rc = 0;
    record_key_work(&lower, RECORD_WORK_CARRY, after + 1);
    record_key_work(&upper, RECORD_WORK_CARRY + 1, 0);
    pthread_rwlock_rdlock(&engine->gate);
    if (!engine->db) {
        pthread_rwlock_unlock(&engine->gate);
        return -EIO;
    }
    engine_iter_init(&iter, engine, NULL, TABLE_WORK, &lower, &upper, 0);
    while (count < max && (rc = engine_iter_get(&iter, &k, &k_len, &v, &len)) > 0) {
        struct record_carry row;
        if (k_len != 9 || record_carry_decode(v, len, &row) < 0) {
            rc = -EIO;
            break;
        }
        out[count++] = (struct engine_carry){
            .ino = record_get_u64(k + 1), .stamp = row.stamp, .time_ns = row.time_ns};
        engine_iter_next(&iter);
    }
    engine_iter_done(&iter);
    pthread_rwlock_unlock(&engine->gate);
    return rc < 0 ? rc : count;
}

int engine_carry_look(struct engine *engine, uint64_t ino, struct engine_carry_facts *out)
{
    struct record_inode inode;
    uint8_t room[ENGINE_RECORD_MAX];
    pthread_rwlock_rdlock(&engine->gate);
    int rc = engine->db ? engine_read_inode(engine, ino, &inode, room) : -EIO;
    pthread_rwlock_unlock(&engine->gate);
    if (rc < 0)
        return rc;
    engine_attr(ino, &inode, &out->attr);
    out->carried = inode.flags & RECORD_CARRIED;
    out->unsettled = S_ISREG(inode.mode) && inode.due_ns;
    out->children = inode.children;
    out->object = S_ISREG(inode.mode) && inode.body == RECORD_BODY_OBJECT ? inode.object : 0;
    return 0;
}

int engine_below(struct engine *engine, uint64_t ino, uint64_t top)
{
    pthread_rwlock_rdlock(&engine->gate);
    int rc = engine->db ? engine_read_below(engine, ino, top) : -EIO;
    pthread_rwlock_unlock(&engine->gate);
    return rc;
}

int engine_links(struct engine *engine, uint64_t ino,
                 int (*each)(void *arg, uint64_t parent, const char *name, size_t len), void *arg)
{
    struct record_key key;
    struct engine_iter iter;
    const uint8_t *k;
    size_t k_len;
    int rc;
    record_key_u64(&key, ino);
    pthread_rwlock_rdlock(&engine->gate);
    if (!engine->db) {
        pthread_rwlock_unlock(&engine->gate);
        return -EIO;
    }
    engine_iter_init(&iter, engine, NULL, TABLE_LINK, &key, NULL, key.len);
    while ((rc = engine_iter_get(&iter, &k, &k_len, NULL, NULL)) > 0) {
        rc = k_len > 16 ? each(arg, record_get_u64(k + 8), (const char *)k + 16, k_len - 16) : -EIO;
        if (rc != 0)
            break;
        engine_iter_next(&iter);
    }
    engine_iter_done(&iter);
    pthread_rwlock_unlock(&engine->gate);
    return rc < 0 ? rc : 0;
}
