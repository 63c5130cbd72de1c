/*
 * Operations that only read, on any thread. Single records come through the cache and are the
 * newest; what must fit together (a file's extents and their objects) is read from one snapshot.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "engine_impl.h"

#define READDIR_DEFAULT 128
#define READDIR_MAX 8192
#define OLDEST_SCAN 1000
#define DEPTH_MAX 100000
#define TRIES 5

int engine_read_inode(struct engine *engine, uint64_t ino, struct record_inode *out,
                      uint8_t room[ENGINE_RECORD_MAX])
{
    struct record_key key;
    record_key_u64(&key, ino);
    int rc = engine_db_get(engine, TABLE_INODE, key.bytes, key.len, room);
    if (rc < 0)
        return rc;
    return record_inode_decode(room, (size_t)rc, out) < 0 ? -EIO : 0;
}

static int read_dir(struct engine *engine, uint64_t ino, struct record_inode *out)
{
    uint8_t room[ENGINE_RECORD_MAX];
    int rc = engine_read_inode(engine, ino, out, room);
    return rc == 0 && !S_ISDIR(out->mode) ? -ENOTDIR : rc;
}

/* 1: the listing is believed; 0: it is old; -1: there is none yet. A directory without origin has
 * all its entries here. */
static int listing_state(const struct record_inode *dir, uint64_t now_ns, uint64_t ttl_ns)
{
    if (!(dir->flags & RECORD_ORIGIN))
        return 1;
    if (dir->listed_ns == 0)
        return -1;
    return ttl_ns == 0 || now_ns < dir->listed_ns + ttl_ns;
}

static int lookup_once(struct engine *engine, const struct meta_op *op, uint64_t ttl_ns,
                       struct meta_reply *reply)
{
    struct record_inode dir, inode;
    struct record_key key;
    struct record_dentry dentry;
    uint8_t room[ENGINE_RECORD_MAX];
    int rc = read_dir(engine, op->parent, &dir);
    if (rc < 0)
        return rc;
    int listed = listing_state(&dir, op->time_ns, ttl_ns);
    record_key_named(&key, op->parent, op->name.bytes, op->name.len);
    rc =
        dir.children == 0 ? -ENOENT : engine_db_get(engine, TABLE_DENTRY, key.bytes, key.len, room);
    if (rc == -ENOENT && listed <= 0) {
        reply->need_import = true;
        return -EAGAIN;
    }
    if (rc < 0)
        return rc;
    if (record_dentry_decode(room, (size_t)rc, &dentry) < 0)
        return -EIO;
    rc = engine_read_inode(engine, dentry.ino, &inode, room);
    if (rc < 0)
        return rc == -ENOENT ? -ESTALE : rc;
    engine_attr(dentry.ino, &inode, &reply->attr);
    if (listed == 0) {
        reply->need_import = true;
        return -EAGAIN;
    }
    return 0;
}

static int read_lookup(struct engine *engine, const struct meta_op *op, uint64_t ttl_ns,
                       struct meta_reply *reply)
{
    int rc = engine_name_check(&op->name);
    if (rc < 0)
        return rc;
    /* A name and its inode are two reads: the inode may have gone in between. */
    for (int i = 0; i < TRIES; i++) {
        rc = lookup_once(engine, op, ttl_ns, reply);
        if (rc != -ESTALE)
            return rc;
    }
    return -ENOENT;
}

static int read_getattr(struct engine *engine, const struct meta_op *op, struct meta_reply *reply)
{
    struct record_inode inode;
    uint8_t room[ENGINE_RECORD_MAX];
    int rc = engine_read_inode(engine, op->ino, &inode, room);
    if (rc == 0)
        engine_attr(op->ino, &inode, &reply->attr);
    return rc;
}

/* Inodes for a listing. Names that were made one after the other often have numbers one after the
 * other: those are read by one scan, which is several times cheaper than a read of each. */
struct inode_scan {
    struct engine *engine;
    struct engine_iter iter;
    bool open;
    uint64_t last; /* the last that was asked for */
};

#define SCAN_GAP 8 /* so many records may lie between two */

static int scan_get(struct inode_scan *scan, uint64_t ino, struct record_inode *out,
                    uint8_t room[ENGINE_RECORD_MAX])
{
    bool near = scan->last && ino > scan->last && ino - scan->last <= SCAN_GAP;
    scan->last = ino;
    if (!near)
        return engine_read_inode(scan->engine, ino, out, room);
    struct record_key key, upper;
    record_key_u64(&key, ino);
    record_key_u64(&upper, UINT64_MAX);
    if (!scan->open)
        engine_iter_init(&scan->iter, scan->engine, NULL, TABLE_INODE, &key, &upper, 0);
    scan->open = true;
    for (int i = 0; i <= SCAN_GAP; i++) {
        const uint8_t *k, *v;
        size_t k_len, v_len;
        int rc = engine_iter_get(&scan->iter, &k, &k_len, &v, &v_len);
        if (rc < 0)
            return rc;
        uint64_t at = rc > 0 && k_len == 8 ? record_get_u64(k) : UINT64_MAX;
        if (at == ino && v_len <= ENGINE_RECORD_MAX) {
            memcpy(room, v, v_len);
            if (record_inode_decode(room, v_len, out) < 0)
                return -EIO;
            /* A directory's newest record may be a hot one. */
            return S_ISDIR(out->mode) ? engine_read_inode(scan->engine, ino, out, room) : 0;
        }
        if (at > ino || i == SCAN_GAP)
            break;
        engine_iter_next(&scan->iter);
    }
    /* It stands elsewhere, or the inode is newer than the scan. */
    rocksdb_iter_seek(scan->iter.it, (const char *)key.bytes, key.len);
    return engine_read_inode(scan->engine, ino, out, room);
}

static void scan_done(struct inode_scan *scan)
{
    if (scan->open)
        engine_iter_done(&scan->iter);
}

/* One more entry: 1, 0 if its inode has gone meanwhile, or -errno. */
static int readdir_entry(struct inode_scan *scan, const struct meta_op *op, const uint8_t *key,
                         size_t key_len, const struct record_dentry *dentry,
                         struct meta_reply *reply, struct meta_entry *entry)
{
    memset(entry, 0, offsetof(struct meta_entry, etag));
    entry->etag[0] = '\0';
    entry->ino = dentry->ino;
    entry->attr.ino = dentry->ino;
    entry->attr.mode = dentry->type;
    if (op->plus) {
        struct record_inode inode;
        uint8_t room[ENGINE_RECORD_MAX];
        int rc = scan_get(scan, dentry->ino, &inode, room);
        if (rc < 0)
            return rc == -ENOENT ? 0 : rc;
        engine_attr(dentry->ino, &inode, &entry->attr);
    }
    entry->is_dir = S_ISDIR(dentry->type);
    entry->name_len = key_len - 8;
    char *name = meta_reply_alloc(reply, entry->name_len + 1);
    if (!name)
        return -ENOMEM;
    memcpy(name, key + 8, entry->name_len);
    name[entry->name_len] = '\0';
    entry->name = name;
    return 1;
}

static int read_readdir(struct engine *engine, const struct meta_op *op, uint64_t ttl_ns,
                        struct meta_reply *reply)
{
    struct record_inode dir;
    struct inode_scan scan = {.engine = engine};
    int rc = read_dir(engine, op->ino, &dir);
    if (rc < 0)
        return rc;
    if (op->name.len > META_NAME_MAX)
        return -EINVAL;
    int listed = listing_state(&dir, op->time_ns, ttl_ns);
    /* An old listing is still good for going on with. */
    if (listed < 0 || (listed == 0 && op->name.len == 0)) {
        reply->need_import = true;
        return -EAGAIN;
    }
    engine_attr(op->ino, &dir, &reply->attr);
    reply->end = dir.children == 0;
    if (reply->end)
        return 0;
    size_t max = op->count ? MIN(op->count, READDIR_MAX) : READDIR_DEFAULT;
    max = MIN(max, dir.children);
    reply->entries = meta_reply_alloc(reply, max * sizeof(*reply->entries));
    if (!reply->entries)
        return -ENOMEM;
    struct record_key key;
    struct engine_iter iter;
    const uint8_t *k, *v;
    size_t k_len, v_len;
    record_key_named(&key, op->ino, op->name.bytes, op->name.len);
    if (op->name.len > 0)
        key.bytes[key.len++] = 0; /* the first behind it */
    engine_iter_init(&iter, engine, NULL, TABLE_DENTRY, &key, NULL, 8);
    while ((rc = engine_iter_get(&iter, &k, &k_len, &v, &v_len)) > 0 && reply->entry_count < max) {
        struct record_dentry dentry;
        rc = k_len > 8 && k_len <= 8 + META_NAME_MAX ? record_dentry_decode(v, v_len, &dentry)
                                                     : -EBADMSG;
        if (rc == 0)
            rc = readdir_entry(&scan, op, k, k_len, &dentry, reply,
                               &reply->entries[reply->entry_count]);
        if (rc < 0)
            break;
        reply->entry_count += (size_t)rc;
        engine_iter_next(&iter);
    }
    reply->end = rc == 0;
    engine_iter_done(&iter);
    scan_done(&scan);
    return rc < 0 ? (rc == -EBADMSG ? -EIO : rc) : 0;
}

static int reply_bytes(struct meta_reply *reply, const void *data, size_t len)
{
    char *copy = meta_reply_alloc(reply, len + 1);
    if (!copy)
        return -ENOMEM;
    if (len)
        memcpy(copy, data, len);
    copy[len] = '\0';
    reply->data = copy;
    reply->data_len = len;
    return 0;
}

static int read_readlink(struct engine *engine, const struct meta_op *op, struct meta_reply *reply)
{
    struct record_inode inode;
    uint8_t room[ENGINE_RECORD_MAX];
    int rc = engine_read_inode(engine, op->ino, &inode, room);
    if (rc < 0)
        return rc;
    return S_ISLNK(inode.mode) ? reply_bytes(reply, inode.target, inode.target_len) : -EINVAL;
}

static int read_getxattr(struct engine *engine, const struct meta_op *op, struct meta_reply *reply)
{
    struct record_inode inode;
    struct record_key key;
    struct arena arena = {0};
    const uint8_t *value;
    size_t len;
    uint8_t room[ENGINE_RECORD_MAX];
    int rc = engine_read_inode(engine, op->ino, &inode, room);
    if (rc < 0)
        return rc;
    if (engine_xattr_is_virtual(&op->name))
        return engine_read_virtual_xattr(engine, op, reply);
    if (inode.xattrs == 0)
        return -ENODATA;
    if (op->name.len == 0 || op->name.len > META_XATTR_NAME_MAX)
        return -ERANGE;
    record_key_named(&key, op->ino, op->name.bytes, op->name.len);
    rc = engine_db_copy(engine, NULL, TABLE_XATTR, &key, &arena, &value, &len);
    if (rc == 0)
        rc = len > 0 ? reply_bytes(reply, value + 1, len - 1) : -EIO;
    arena_done(&arena);
    return rc == -ENOENT ? -ENODATA : rc;
}

static int read_listxattr(struct engine *engine, const struct meta_op *op, struct meta_reply *reply)
{
    struct record_inode inode;
    uint8_t room[ENGINE_RECORD_MAX];
    int rc = engine_read_inode(engine, op->ino, &inode, room);
    if (rc < 0 || inode.xattrs == 0)
        return rc;
    struct record_key key;
    struct engine_iter iter;
    const uint8_t *k;
    size_t k_len;
    struct buf names;
    buf_init(&names, 0);
    record_key_u64(&key, op->ino);
    engine_iter_init(&iter, engine, NULL, TABLE_XATTR, &key, NULL, 8);
    while ((rc = engine_iter_get(&iter, &k, &k_len, NULL, NULL)) > 0) {
        buf_put(&names, k + 8, k_len - 8);
        buf_put_u8(&names, 0);
        engine_iter_next(&iter);
    }
    engine_iter_done(&iter);
    if (rc == 0 && buf_error(&names))
        rc = -ENOMEM;
    if (rc == 0)
        rc = reply_bytes(reply, names.data, names.len);
    buf_done(&names);
    return rc;
}

static int id_order(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* The objects that the reply's extents use, each once. */
static int reply_objects(struct engine *engine, const rocksdb_snapshot_t *snapshot,
                         const struct record_inode *inode, struct arena *arena,
                         struct meta_reply *reply)
{
    uint64_t *ids = arena_alloc(arena, (reply->extent_count + 1) * sizeof(*ids));
    size_t n = 0, unique = 0;
    if (!ids)
        return -ENOMEM;
    for (size_t i = 0; i < reply->extent_count; i++) {
        if (reply->extents[i].kind == META_EXTENT_OBJECT)
            ids[n++] = reply->extents[i].object;
    }
    if (n == 0 && inode->body == RECORD_BODY_OBJECT)
        ids[n++] = inode->object;
    if (n == 0)
        return 0;
    qsort(ids, n, sizeof(*ids), id_order);
    for (size_t i = 0; i < n; i++) {
        if (unique == 0 || ids[unique - 1] != ids[i])
            ids[unique++] = ids[i];
    }
    reply->objects = meta_reply_alloc(reply, unique * sizeof(*reply->objects));
    if (!reply->objects)
        return -ENOMEM;
    for (size_t i = 0; i < unique; i++) {
        struct record_key key;
        struct record_object object;
        const uint8_t *value;
        size_t len;
        uint8_t room[ENGINE_RECORD_MAX];
        record_key_u64(&key, ids[i]);
        int rc;
        if (snapshot) {
            rc = engine_db_copy(engine, snapshot, TABLE_OBJECT, &key, arena, &value, &len);
        } else {
            rc = engine_db_get(engine, TABLE_OBJECT, key.bytes, key.len, room);
            value = room;
            len = rc < 0 ? 0 : (size_t)rc;
        }
        if (rc >= 0 && record_object_decode(value, len, &object) < 0)
            rc = -EIO;
        if (rc < 0)
            return rc;
        engine_object_export(ids[i], &object, &reply->objects[reply->object_count++]);
    }
    return 0;
}

static int extents_of(struct engine *engine, const rocksdb_snapshot_t *snapshot,
                      const struct meta_op *op, const struct record_inode *inode,
                      struct meta_reply *reply)
{
    struct arena arena = {0};
    struct meta_extent *list = NULL;
    size_t count = 0;
    uint64_t end =
        op->length && op->length < UINT64_MAX - op->offset ? op->offset + op->length : UINT64_MAX;
    int rc = engine_extents_load(engine, snapshot, op->ino, inode, op->offset, end, &arena, &list,
                                 &count);
    if (rc == 0 && count > 0) {
        reply->extents = meta_reply_alloc(reply, count * sizeof(*list));
        if (!reply->extents)
            rc = -ENOMEM;
    }
    for (size_t i = 0; rc == 0 && i < count; i++) {
        struct meta_extent *e = &reply->extents[reply->extent_count++];
        *e = list[i];
        if (e->kind != META_EXTENT_INLINE)
            continue;
        void *data = meta_reply_alloc(reply, e->length);
        if (data)
            memcpy(data, e->data, e->length);
        else
            rc = -ENOMEM;
        e->data = data;
    }
    if (rc == 0)
        rc = reply_objects(engine, snapshot, inode, &arena, reply);
    arena_done(&arena);
    return rc;
}

/* The usual file is one extent: two reads, which fit together if the content was the same before
 * and after. -EAGAIN if it was not. */
static int single_extent(struct engine *engine, const struct meta_op *op,
                         const struct record_inode *inode, struct meta_reply *reply)
{
    struct record_inode after;
    uint8_t room[ENGINE_RECORD_MAX];
    int rc = extents_of(engine, NULL, op, inode, reply);
    if (rc == 0)
        rc = engine_read_inode(engine, op->ino, &after, room);
    if (rc == 0 && (after.data_version != inode->data_version || after.body != inode->body ||
                    after.object != inode->object))
        rc = -ENOENT;
    return rc == -ENOENT ? -EAGAIN : rc;
}

static int snapshot_extents(struct engine *engine, const struct meta_op *op,
                            struct meta_reply *reply)
{
    struct record_inode inode;
    struct record_key key;
    struct arena arena = {0};
    const uint8_t *value;
    size_t len;
    const rocksdb_snapshot_t *snapshot = rocksdb_create_snapshot(engine->db);
    record_key_u64(&key, op->ino);
    int rc = engine_db_copy(engine, snapshot, TABLE_INODE, &key, &arena, &value, &len);
    if (rc == 0 && record_inode_decode(value, len, &inode) < 0)
        rc = -EIO;
    if (rc == 0) {
        engine_attr(op->ino, &inode, &reply->attr);
        rc = extents_of(engine, snapshot, op, &inode, reply);
    }
    rocksdb_release_snapshot(engine->db, snapshot);
    arena_done(&arena);
    return rc;
}

static int read_extents(struct engine *engine, const struct meta_op *op, struct meta_reply *reply)
{
    struct record_inode inode;
    uint8_t room[ENGINE_RECORD_MAX];
    int rc = engine_read_inode(engine, op->ino, &inode, room);
    if (rc < 0)
        return rc;
    if (!S_ISREG(inode.mode))
        return S_ISDIR(inode.mode) ? -EISDIR : -EINVAL;
    engine_attr(op->ino, &inode, &reply->attr);
    if (inode.body == RECORD_BODY_EMPTY)
        return 0;
    rc = inode.body == RECORD_BODY_MANY ? -EAGAIN : single_extent(engine, op, &inode, reply);
    if (rc != -EAGAIN)
        return rc;
    reply->extent_count = reply->object_count = 0;
    return snapshot_extents(engine, op, reply);
}

static int read_usage(struct engine *engine, const struct meta_op *op, struct meta_reply *reply)
{
    struct record_inode dir;
    int rc = read_dir(engine, op->ino, &dir);
    if (rc < 0)
        return rc;
    reply->usage = dir.usage;
    engine_attr(op->ino, &dir, &reply->attr);
    return 0;
}

static int read_path(struct engine *engine, const struct meta_op *op, struct meta_reply *reply)
{
    struct buf path, front;
    struct record_inode inode;
    uint8_t room[ENGINE_RECORD_MAX];
    int rc = 0;
    buf_init(&path, 0);
    buf_init(&front, 0);
    for (uint64_t ino = op->ino; rc == 0; ino = inode.parent) {
        rc = engine_read_inode(engine, ino, &inode, room);
        if (rc < 0 || ino == META_ROOT_INO)
            break;
        if (inode.parent == 0)
            rc = -ENOENT;
        buf_reset(&front);
        buf_put(&front, inode.name, inode.name_len);
        if (path.len > 0)
            buf_put_u8(&front, '/');
        buf_put(&front, path.data, path.len);
        struct buf swap = path;
        path = front;
        front = swap;
        if (buf_error(&path))
            rc = -ENOMEM;
    }
    if (rc == 0)
        rc = reply_bytes(reply, path.data, path.len);
    buf_done(&path);
    buf_done(&front);
    return rc;
}

int engine_read_below(struct engine *engine, uint64_t ino, uint64_t top)
{
    struct record_inode inode;
    uint8_t room[ENGINE_RECORD_MAX];
    for (int depth = 0; ino != 0 && depth < DEPTH_MAX; depth++) {
        if (ino == top)
            return 1;
        int rc = engine_read_inode(engine, ino, &inode, room);
        if (rc < 0)
            return rc == -ENOENT ? 0 : rc;
        ino = inode.parent;
    }
    return 0;
}

/* Adds a row of the settle queue to the drift below `top`. */
static int drift_add(struct engine *engine, uint64_t top, uint64_t ino,
                     const struct record_queue *row, struct meta_drift *drift, bool count)
{
    struct record_inode inode;
    uint8_t room[ENGINE_RECORD_MAX];
    int rc = top == META_ROOT_INO ? 1 : engine_read_below(engine, ino, top);
    if (rc <= 0)
        return rc;
    if (drift->oldest_ns == 0 || row->since_ns < drift->oldest_ns)
        drift->oldest_ns = row->since_ns;
    if (!count)
        return 0;
    rc = engine_read_inode(engine, ino, &inode, room);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    drift->files += row->subtree ? inode.usage.files : 1;
    drift->bytes += row->subtree ? inode.usage.bytes : inode.size;
    return 0;
}

static int read_drift(struct engine *engine, const struct meta_op *op, struct meta_reply *reply)
{
    bool all = op->ino == META_ROOT_INO;
    struct record_counters c;
    struct record_key key;
    struct arena arena = {0};
    const uint8_t *k, *v;
    size_t k_len, v_len;
    record_key_text(&key, "counters");
    int rc = engine_db_copy(engine, NULL, TABLE_SYSTEM, &key, &arena, &v, &v_len);
    if (rc == 0 && record_counters_decode(v, v_len, &c) < 0)
        rc = -EIO;
    arena_done(&arena);
    if (rc < 0)
        return rc;
    if (all) {
        reply->drift.files = c.queued_files;
        reply->drift.bytes = c.queued_bytes;
        reply->drift.garbage_objects = c.garbage_objects;
        reply->drift.garbage_bytes = c.garbage_bytes;
    }
    if (c.queued_files + c.queued_subtrees == 0)
        return 0;
    struct engine_iter iter;
    uint64_t seen = 0;
    record_key_work(&key, RECORD_WORK_SETTLE, 0);
    engine_iter_init(&iter, engine, NULL, TABLE_WORK, &key, NULL, 1);
    while ((rc = engine_iter_get(&iter, &k, &k_len, &v, &v_len)) > 0) {
        struct record_queue row;
        if (k_len != 17 || record_queue_decode(v, v_len, &row) < 0) {
            rc = -EIO;
            break;
        }
        /* Of the whole volume the counters know all but what is below renamed directories. */
        if (all && ++seen > OLDEST_SCAN && c.queued_subtrees == 0) {
            rc = 0;
            break;
        }
        rc = drift_add(engine, op->ino, record_get_u64(k + 9), &row, &reply->drift,
                       !all || row.subtree);
        if (rc < 0)
            break;
        engine_iter_next(&iter);
    }
    engine_iter_done(&iter);
    return rc;
}

static int read_object(struct engine *engine, const struct meta_op *op, struct meta_reply *reply)
{
    struct record_key key;
    struct record_object object;
    uint8_t room[ENGINE_RECORD_MAX];
    record_key_u64(&key, op->object);
    int rc = engine_db_get(engine, TABLE_OBJECT, key.bytes, key.len, room);
    if (rc < 0)
        return rc;
    if (record_object_decode(room, (size_t)rc, &object) < 0)
        return -EIO;
    reply->objects = meta_reply_alloc(reply, sizeof(*reply->objects));
    if (!reply->objects)
        return -ENOMEM;
    reply->object_count = 1;
    engine_object_export(op->object, &object, reply->objects);
    return 0;
}

int engine_read_dispatch(struct engine *engine, const struct meta_op *op, uint64_t import_ttl_ns,
                         struct meta_reply *reply)
{
    switch (op->kind) {
    case META_LOOKUP:
        return read_lookup(engine, op, import_ttl_ns, reply);
    case META_GETATTR:
        return read_getattr(engine, op, reply);
    case META_READDIR:
        return read_readdir(engine, op, import_ttl_ns, reply);
    case META_READLINK:
        return read_readlink(engine, op, reply);
    case META_GETXATTR:
        return read_getxattr(engine, op, reply);
    case META_LISTXATTR:
        return read_listxattr(engine, op, reply);
    case META_EXTENTS:
        return read_extents(engine, op, reply);
    case META_USAGE:
        return read_usage(engine, op, reply);
    case META_PATH:
        return read_path(engine, op, reply);
    case META_DRIFT:
        return read_drift(engine, op, reply);
    case META_OBJECT:
        return read_object(engine, op, reply);
    case META_QUOTA:
        return engine_read_quota(engine, op, reply);
    default:
        return -EINVAL;
    }
}
