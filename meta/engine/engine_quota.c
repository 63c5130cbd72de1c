/* See engine_quota.h. */
#include "engine_quota.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <uthash.h>

#include "base/cleanup.h"
#include "engine_impl.h"

#define LIST_MAX 10000

/* A directory with a limit, or with reserved bytes at or below it. */
struct quota_dir {
    uint64_t ino;
    bool limited;
    struct record_quota limit;
    uint64_t reserved; /* bytes, recursive, for each name of a file */
    UT_hash_handle hh;
};

/* A file that may grow up to `size`. */
struct quota_file {
    uint64_t ino, size;
    UT_hash_handle hh;
};

struct engine_quota {
    pthread_mutex_t lock;
    _Atomic uint64_t count; /* of limited directories; changes under lock */
    _Atomic uint64_t turns; /* that it became 1 after 0 */
    /* under lock */
    struct quota_dir *dirs;
    struct quota_file *files;
};

int engine_quota_new(struct engine_quota **out)
{
    struct engine_quota *q = calloc(1, sizeof(*q));
    if (!q)
        return -ENOMEM;
    pthread_mutex_init(&q->lock, NULL);
    *out = q;
    return 0;
}

static void free_dirs(struct engine_quota *q)
{
    struct quota_dir *dir, *next;
    HASH_ITER(hh, q->dirs, dir, next)
    {
        HASH_DEL(q->dirs, dir);
        free(dir);
    }
}

static void free_files(struct engine_quota *q)
{
    struct quota_file *file, *next;
    HASH_ITER(hh, q->files, file, next)
    {
        HASH_DEL(q->files, file);
        free(file);
    }
}

void engine_quota_free(struct engine_quota *q)
{
    if (!q)
        return;
    free_dirs(q);
    free_files(q);
    pthread_mutex_destroy(&q->lock);
    free(q);
}

static struct quota_dir *find_dir(struct engine_quota *q, uint64_t ino)
{
    struct quota_dir *dir;
    HASH_FIND(hh, q->dirs, &ino, sizeof(ino), dir);
    return dir;
}

static struct quota_file *find_file(struct engine_quota *q, uint64_t ino)
{
    struct quota_file *file;
    HASH_FIND(hh, q->files, &ino, sizeof(ino), file);
    return file;
}

static struct quota_dir *need_dir(struct engine_quota *q, uint64_t ino)
{
    struct quota_dir *dir = find_dir(q, ino);
    if (dir)
        return dir;
    dir = calloc(1, sizeof(*dir));
    if (!dir)
        return NULL;
    dir->ino = ino;
    HASH_ADD(hh, q->dirs, ino, sizeof(dir->ino), dir);
    return dir;
}

static void tidy_dir(struct engine_quota *q, struct quota_dir *dir)
{
    if (dir->limited || dir->reserved)
        return;
    HASH_DEL(q->dirs, dir);
    free(dir);
}

static void set_limit(struct engine_quota *q, uint64_t ino, const struct record_quota *limit)
{
    struct quota_dir *dir = limit ? need_dir(q, ino) : find_dir(q, ino);
    if (!dir)
        return;
    bool limited = limit != NULL;
    if (limited)
        dir->limit = *limit;
    if (limited != dir->limited) {
        uint64_t was = atomic_fetch_add(&q->count, limited ? 1 : UINT64_MAX);
        atomic_fetch_add(&q->turns, limited && was == 0);
    }
    dir->limited = limited;
    tidy_dir(q, dir);
}

static uint64_t excess(uint64_t size, uint64_t committed)
{
    return size > committed ? size - committed : 0;
}

/* ---- reservations ---- */

/* One pass over all directories above all names of a file. */
struct spread {
    struct engine *engine;
    int64_t delta;
    uint64_t done, stop; /* directories: changed; to be changed at most */
    bool over;           /* a limit is passed now */
};

static int spread_chain(struct spread *s, uint64_t dir_ino)
{
    struct engine_quota *q = s->engine->quota;
    struct record_inode inode;
    uint8_t room[ENGINE_RECORD_MAX];
    for (uint64_t ino = dir_ino; ino != 0 && s->done < s->stop; ino = inode.parent) {
        int rc = engine_read_inode(s->engine, ino, &inode, room);
        if (rc < 0)
            return rc == -ENOENT ? -EIO : rc;
        struct quota_dir *dir = need_dir(q, ino);
        if (!dir)
            return -ENOMEM;
        dir->reserved += (uint64_t)s->delta;
        s->done++;
        if (dir->limited && inode.usage.bytes + dir->reserved > dir->limit.max_bytes)
            s->over = true;
        tidy_dir(q, dir);
    }
    return 0;
}

static int spread_links(struct spread *s, uint64_t ino, const struct record_inode *inode)
{
    if (inode->nlink == 0 || s->delta == 0)
        return 0;
    int rc = spread_chain(s, inode->parent);
    if (rc < 0 || inode->nlink == 1)
        return rc;
    struct record_key key;
    struct engine_iter iter;
    const uint8_t *k;
    size_t k_len;
    record_key_u64(&key, ino);
    engine_iter_init(&iter, s->engine, NULL, TABLE_LINK, &key, NULL, key.len);
    while (rc == 0 && (rc = engine_iter_get(&iter, &k, &k_len, NULL, NULL)) > 0) {
        rc = k_len > 16 ? spread_chain(s, record_get_u64(k + 8)) : -EIO;
        engine_iter_next(&iter);
    }
    engine_iter_done(&iter);
    return rc;
}

/* The reserved size of a file goes from `was` to `size`. */
static int spread_size(struct engine *engine, uint64_t ino, uint64_t was, uint64_t size, bool force)
{
    struct record_inode inode;
    uint8_t room[ENGINE_RECORD_MAX];
    int rc = engine_read_inode(engine, ino, &inode, room);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc; /* nothing counts for it */
    struct spread s = {.engine = engine, .stop = UINT64_MAX};
    s.delta = (int64_t)(excess(size, inode.size) - excess(was, inode.size));
    rc = spread_links(&s, ino, &inode);
    if (rc == 0 && s.over && s.delta > 0 && !force)
        rc = -EDQUOT;
    if (rc < 0) {
        struct spread undo = {.engine = engine, .delta = -s.delta, .stop = s.done};
        spread_links(&undo, ino, &inode);
    }
    return rc;
}

static int reserve_locked(struct engine *engine, uint64_t ino, uint64_t size, bool force)
{
    struct engine_quota *q = engine->quota;
    struct quota_file *file = find_file(q, ino);
    int rc = spread_size(engine, ino, file ? file->size : 0, size, force);
    if (rc < 0)
        return rc;
    if (!file) {
        file = calloc(1, sizeof(*file));
        if (!file) {
            spread_size(engine, ino, size, 0, true);
            return -ENOMEM;
        }
        file->ino = ino;
        HASH_ADD(hh, q->files, ino, sizeof(file->ino), file);
    }
    file->size = size;
    return 0;
}

static void release_locked(struct engine *engine, uint64_t ino)
{
    struct quota_file *file = find_file(engine->quota, ino);
    if (!file)
        return;
    spread_size(engine, ino, file->size, 0, true);
    HASH_DEL(engine->quota->files, file);
    free(file);
}

bool engine_quota_active(struct engine *engine)
{
    return atomic_load(&engine->quota->count) > 0;
}

uint64_t engine_quota_turns(struct engine *engine)
{
    return atomic_load(&engine->quota->turns);
}

int engine_quota_reserve(struct engine *engine, uint64_t ino, uint64_t size, bool force)
{
    if (!engine_quota_active(engine))
        return 0;
    pthread_rwlock_rdlock(&engine->gate);
    pthread_mutex_lock(&engine->quota->lock);
    int rc = engine->db ? reserve_locked(engine, ino, size, force) : -EIO;
    pthread_mutex_unlock(&engine->quota->lock);
    pthread_rwlock_unlock(&engine->gate);
    return rc;
}

void engine_quota_release(struct engine *engine, uint64_t ino)
{
    if (!engine_quota_active(engine))
        return;
    pthread_rwlock_rdlock(&engine->gate);
    pthread_mutex_lock(&engine->quota->lock);
    if (engine->db)
        release_locked(engine, ino);
    pthread_mutex_unlock(&engine->quota->lock);
    pthread_rwlock_unlock(&engine->gate);
}

/* ---- one apply ---- */

void engine_quota_begin(struct engine_txn *t, const struct meta_op *op)
{
    t->quota_locked = engine_quota_active(t->engine) || op->kind == META_QUOTA_SET;
    if (t->quota_locked)
        pthread_mutex_lock(&t->engine->quota->lock);
}

/* What is reserved for one name of an inode, as this apply has it. */
static uint64_t reserved_of(struct engine_txn *t, const struct engine_node *node)
{
    struct engine_quota *q = t->engine->quota;
    if (S_ISDIR(node->now.mode)) {
        struct quota_dir *dir = find_dir(q, node->ino);
        return (dir ? dir->reserved : 0) + (uint64_t)node->reserved;
    }
    struct quota_file *file = find_file(q, node->ino);
    return file ? excess(file->size, node->now.size) : 0;
}

int engine_quota_shift(struct engine_txn *t, uint64_t dir, int64_t delta)
{
    while (dir != 0 && delta != 0) {
        struct engine_node *node;
        int rc = engine_txn_inode(t, dir, &node);
        if (rc < 0)
            return rc == -ENOENT ? -EIO : rc;
        if (!need_dir(t->engine->quota, dir)) /* so that the end of the apply cannot fail */
            return -ENOMEM;
        node->reserved += delta;
        dir = node->now.parent;
    }
    return 0;
}

int engine_quota_name(struct engine_txn *t, uint64_t dir, const struct engine_node *node, int sign)
{
    if (!t->quota_locked)
        return 0;
    return engine_quota_shift(t, dir, sign * (int64_t)reserved_of(t, node));
}

int64_t engine_quota_resized(struct engine_txn *t, uint64_t ino, uint64_t from, uint64_t to)
{
    struct quota_file *file = t->quota_locked ? find_file(t->engine->quota, ino) : NULL;
    return file ? (int64_t)(excess(file->size, to) - excess(file->size, from)) : 0;
}

static bool is_bound(const struct meta_op *op)
{
    switch (op->kind) {
    case META_MKNOD:
    case META_LINK:
    case META_RENAME:
    case META_SETATTR:
    case META_CLONE:
    case META_PUNCH:
        return true;
    case META_COMMIT:
        return !(op->flags & META_ACCEPTED);
    default:
        return false;
    }
}

static uint64_t inodes_of(const struct meta_usage *usage)
{
    return usage->files + usage->directories;
}

static bool passes(const struct quota_dir *dir, const struct engine_node *node)
{
    uint64_t was = node->before.usage.bytes + dir->reserved;
    uint64_t now = node->now.usage.bytes + dir->reserved + (uint64_t)node->reserved;
    if (now > was && now > dir->limit.max_bytes)
        return true;
    was = inodes_of(&node->before.usage);
    now = inodes_of(&node->now.usage);
    return now > was && now > dir->limit.max_inodes;
}

int engine_quota_check(struct engine_txn *t, const struct meta_op *op)
{
    if (!t->quota_locked || !is_bound(op))
        return 0;
    for (size_t i = 0; i < t->nodes.cap; i++) {
        const struct engine_node *node = t->nodes.slots[i];
        if (!node || !node->exists || !(node->now.flags & RECORD_QUOTA))
            continue;
        struct quota_dir *dir = find_dir(t->engine->quota, node->ino);
        if (dir && dir->limited && passes(dir, node))
            return -EDQUOT;
    }
    return 0;
}

static void end_node(struct engine_quota *q, const struct engine_node *node, bool written)
{
    struct quota_dir *dir = node->reserved ? find_dir(q, node->ino) : NULL;
    if (dir) {
        dir->reserved += written ? (uint64_t)node->reserved : 0;
        tidy_dir(q, dir);
    }
    if (!written)
        return;
    bool had = node->before.flags & RECORD_QUOTA;
    bool has = node->exists && node->now.flags & RECORD_QUOTA;
    if (had && !has)
        set_limit(q, node->ino, NULL);
}

void engine_quota_end(struct engine_txn *t, const struct meta_op *op, bool written)
{
    if (!t->quota_locked)
        return;
    struct engine_quota *q = t->engine->quota;
    for (size_t i = 0; i < t->nodes.cap; i++)
        if (t->nodes.slots[i])
            end_node(q, t->nodes.slots[i], written);
    struct quota_dir *dir = op->kind == META_QUOTA_SET ? find_dir(q, op->ino) : NULL;
    if (dir && written && t->quota_new)
        set_limit(q, op->ino, t->quota_new);
    else if (dir)
        tidy_dir(q, dir);
    /* Without any quota nobody keeps the reservations right. */
    if (!engine_quota_active(t->engine)) {
        free_files(q);
        free_dirs(q);
    }
    t->quota_locked = false;
    pthread_mutex_unlock(&q->lock);
}

void engine_quota_let_go(struct engine_txn *t)
{
    if (!t->quota_locked)
        return;
    t->quota_locked = false;
    pthread_mutex_unlock(&t->engine->quota->lock);
}

/* ---- limits ---- */

static int limit_get(struct engine_txn *t, uint64_t ino, struct record_quota *out)
{
    struct record_key key;
    const uint8_t *value;
    size_t len;
    record_key_quota(&key, ino);
    int rc = engine_txn_get(t, TABLE_SYSTEM, &key, &value, &len);
    if (rc < 0)
        return rc;
    return record_quota_decode(value, len, out) < 0 ? -EIO : 0;
}

int engine_quota_drop(struct engine_txn *t, struct engine_node *node)
{
    struct record_key key;
    if (!(node->now.flags & RECORD_QUOTA))
        return 0;
    record_key_quota(&key, node->ino);
    node->now.flags &= ~(uint32_t)RECORD_QUOTA;
    node->dirty = true;
    return engine_txn_delete(t, TABLE_SYSTEM, &key);
}

int engine_apply_quota_set(struct engine_txn *t, const struct meta_op *op, struct meta_reply *reply)
{
    struct record_quota limit = {META_QUOTA_NONE, META_QUOTA_NONE};
    struct engine_node *node = NULL;
    struct record_key key;
    t->quota_new = NULL;
    if (!(op->valid & (META_QUOTA_BYTES | META_QUOTA_INODES)))
        return -EINVAL;
    int rc = engine_txn_dir(t, op->ino, &node);
    if (rc == 0 && node->now.flags & RECORD_QUOTA)
        rc = limit_get(t, op->ino, &limit);
    if (rc < 0)
        return rc;
    if (op->valid & META_QUOTA_BYTES)
        limit.max_bytes = op->offset;
    if (op->valid & META_QUOTA_INODES)
        limit.max_inodes = op->length;
    engine_attr(node->ino, &node->now, &reply->attr);
    if (limit.max_bytes == META_QUOTA_NONE && limit.max_inodes == META_QUOTA_NONE)
        return engine_quota_drop(t, node);
    struct buf *b = engine_txn_scratch(t);
    record_quota_encode(b, &limit);
    record_key_quota(&key, op->ino);
    rc = buf_error(b) ? -ENOMEM : engine_txn_put(t, TABLE_SYSTEM, &key, b->data, b->len);
    if (rc == 0 && !need_dir(t->engine->quota, op->ino))
        rc = -ENOMEM;
    node->now.flags |= RECORD_QUOTA;
    node->dirty = true;
    t->quota_new = arena_copy(&t->arena, &limit, sizeof(limit));
    return rc == 0 && !t->quota_new ? -ENOMEM : rc;
}

static int load_rows(struct engine *engine)
{
    struct record_key prefix;
    struct record_quota limit;
    struct engine_iter iter;
    const uint8_t *k, *v;
    size_t k_len, v_len;
    int rc;
    record_key_text(&prefix, RECORD_QUOTA_PREFIX);
    engine_iter_init(&iter, engine, NULL, TABLE_SYSTEM, &prefix, NULL, prefix.len);
    while ((rc = engine_iter_get(&iter, &k, &k_len, &v, &v_len)) > 0) {
        if (k_len != prefix.len + 8 || record_quota_decode(v, v_len, &limit) < 0) {
            rc = -EIO;
            break;
        }
        set_limit(engine->quota, record_get_u64(k + prefix.len), &limit);
        engine_iter_next(&iter);
    }
    engine_iter_done(&iter);
    return rc;
}

int engine_quota_load(struct engine *engine)
{
    struct engine_quota *q = engine->quota;
    struct quota_file *file, *next;
    pthread_mutex_lock(&q->lock);
    free_dirs(q);
    uint64_t turns = atomic_load(&q->turns);
    atomic_store(&q->count, 0);
    int rc = load_rows(engine);
    atomic_store(&q->turns, turns); /* what is reserved stays */
    HASH_ITER(hh, q->files, file, next)
    {
        if (rc == 0)
            rc = spread_size(engine, file->ino, 0, file->size, true);
    }
    pthread_mutex_unlock(&q->lock);
    return rc;
}

/* ---- reading ---- */

static int put_quota(struct engine *engine, const struct quota_dir *dir, struct meta_quota *out)
{
    struct record_inode inode;
    uint8_t room[ENGINE_RECORD_MAX];
    int rc = engine_read_inode(engine, dir->ino, &inode, room);
    if (rc == 0)
        *out = (struct meta_quota){.ino = dir->ino,
                                   .max_bytes = dir->limit.max_bytes,
                                   .max_inodes = dir->limit.max_inodes,
                                   .usage = inode.usage,
                                   .reserved_bytes = dir->reserved};
    return rc;
}

static int list_above(struct engine *engine, uint64_t ino, struct meta_quota *out, size_t max,
                      size_t *count)
{
    struct record_inode inode;
    uint8_t room[ENGINE_RECORD_MAX];
    for (; ino != 0 && *count < max; ino = inode.parent) {
        int rc = engine_read_inode(engine, ino, &inode, room);
        if (rc < 0)
            return rc;
        struct quota_dir *dir = find_dir(engine->quota, ino);
        if (dir && dir->limited)
            rc = put_quota(engine, dir, &out[(*count)++]);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int list_below(struct engine *engine, uint64_t top, struct meta_quota *out, size_t max,
                      size_t *count)
{
    struct quota_dir *dir, *next;
    HASH_ITER(hh, engine->quota->dirs, dir, next)
    {
        if (!dir->limited)
            continue;
        int rc = engine_read_below(engine, dir->ino, top);
        if (rc > 0 && *count < max)
            rc = put_quota(engine, dir, &out[(*count)++]);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int quota_order(const void *a, const void *b)
{
    const struct meta_quota *x = a, *y = b;
    return x->ino < y->ino ? -1 : x->ino > y->ino;
}

int engine_read_quota(struct engine *engine, const struct meta_op *op, struct meta_reply *reply)
{
    struct engine_quota *q = engine->quota;
    size_t max = MIN(atomic_load(&q->count), (uint64_t)LIST_MAX);
    int rc = 0;
    if (max == 0)
        return 0;
    struct meta_quota *list = meta_reply_alloc(reply, max * sizeof(*list));
    if (!list)
        return -ENOMEM;
    pthread_mutex_lock(&q->lock);
    struct quota_dir *dir = find_dir(q, op->ino);
    if (op->flags & META_QUOTA_ABOVE)
        rc = list_above(engine, op->ino, list, max, &reply->quota_count);
    else if (op->flags & META_QUOTA_BELOW)
        rc = list_below(engine, op->ino, list, max, &reply->quota_count);
    else if (dir && dir->limited)
        rc = put_quota(engine, dir, &list[reply->quota_count++]);
    pthread_mutex_unlock(&q->lock);
    if (op->flags & META_QUOTA_BELOW)
        qsort(list, reply->quota_count, sizeof(*list), quota_order);
    reply->quotas = list;
    return rc;
}
