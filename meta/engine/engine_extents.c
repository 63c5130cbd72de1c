/*
 * What a file is made of. Most files are one extent from offset 0 on: a whole object (kept in the
 * inode's record) or inline bytes (one record). Others have one record for each extent. All changes
 * go by way of an edit: it loads the extents that a range touches, changes the list in memory, and
 * at its end writes the difference and moves the objects' reference counts by it.
 */
#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "engine_impl.h"

#define LOAD_ALL 16            /* a file of so few extents is loaded as a whole */
#define INLINE_JOIN (16 << 10) /* neighbours are joined up to this many bytes */
#define FILE_SIZE_MAX ((uint64_t)INT64_MAX)

static int list_push(struct arena *arena, struct meta_extent **list, size_t *count, size_t *cap,
                     const struct meta_extent *extent)
{
    if (*count == *cap) {
        size_t more = *cap ? *cap * 2 : 8;
        struct meta_extent *bigger = arena_alloc(arena, more * sizeof(**list));
        if (!bigger)
            return -ENOMEM;
        if (*count)
            memcpy(bigger, *list, *count * sizeof(**list));
        *list = bigger;
        *cap = more;
    }
    (*list)[(*count)++] = *extent;
    return 0;
}

static struct meta_extent body_extent(const struct record_inode *inode)
{
    return (struct meta_extent){.kind = META_EXTENT_OBJECT,
                                .length = inode->object_length,
                                .object = inode->object,
                                .object_offset = inode->object_offset};
}

static uint64_t end_of(const struct meta_extent *e)
{
    return e->offset + e->length;
}

/* Cuts an extent to [from, to). */
static void clip(struct meta_extent *e, uint64_t from, uint64_t to)
{
    if (e->offset < from) {
        uint64_t skip = from - e->offset;
        e->offset = from;
        e->length -= skip;
        if (e->kind == META_EXTENT_OBJECT)
            e->object_offset += skip;
        else
            e->data = (const uint8_t *)e->data + skip;
    }
    if (end_of(e) > to)
        e->length = to - e->offset;
}

/* Where to begin so that an extent which reaches `offset` (or ends there) is met. */
static void seek_start(struct engine_iter *iter, uint64_t ino, uint64_t offset, uint64_t floor)
{
    struct record_key key;
    record_key_u64x2(&key, ino, offset);
    if (offset > floor) {
        const uint8_t *k, *v;
        size_t k_len, v_len;
        struct meta_extent e;
        rocksdb_iter_seek_for_prev(iter->it, (const char *)key.bytes, key.len);
        if (engine_iter_get(iter, &k, &k_len, &v, &v_len) > 0 && k_len == 16 &&
            record_get_u64(k) == ino && record_get_u64(k + 8) >= floor &&
            record_extent_decode(v, v_len, &e) == 0 && record_get_u64(k + 8) + e.length >= offset)
            return;
    }
    rocksdb_iter_seek(iter->it, (const char *)key.bytes, key.len);
}

static int load_rows(struct engine *engine, const rocksdb_snapshot_t *snapshot, uint64_t ino,
                     uint64_t offset, uint64_t end, uint64_t floor, struct arena *arena,
                     struct meta_extent **list, size_t *count, size_t *cap)
{
    struct record_key lower, upper;
    struct engine_iter iter;
    int rc;
    record_key_u64x2(&lower, ino, offset);
    record_key_u64x2(&upper, ino, end);
    engine_iter_init(&iter, engine, snapshot, TABLE_EXTENT, &lower, &upper, 0);
    seek_start(&iter, ino, offset, floor);
    const uint8_t *k, *v;
    size_t k_len, v_len;
    while ((rc = engine_iter_get(&iter, &k, &k_len, &v, &v_len)) > 0) {
        struct meta_extent e;
        if (k_len != 16 || record_extent_decode(v, v_len, &e) < 0 || e.length == 0) {
            rc = -EIO;
            break;
        }
        e.offset = record_get_u64(k + 8);
        if (e.kind == META_EXTENT_INLINE)
            e.data = arena_copy(arena, e.data, e.length);
        rc = e.kind == META_EXTENT_INLINE && !e.data ? -ENOMEM
                                                     : list_push(arena, list, count, cap, &e);
        if (rc < 0)
            break;
        engine_iter_next(&iter);
    }
    engine_iter_done(&iter);
    return rc;
}

/* The only row of a file: no scan. */
static int load_first(struct engine *engine, const rocksdb_snapshot_t *snapshot, uint64_t ino,
                      struct arena *arena, struct meta_extent **list, size_t *count, size_t *cap)
{
    struct record_key key;
    struct meta_extent e;
    const uint8_t *value;
    size_t len;
    record_key_u64x2(&key, ino, 0);
    int rc = engine_db_copy(engine, snapshot, TABLE_EXTENT, &key, arena, &value, &len);
    if (rc == 0 && record_extent_decode(value, len, &e) < 0)
        rc = -EIO;
    return rc < 0 ? rc : list_push(arena, list, count, cap, &e);
}

int engine_extents_load(struct engine *engine, const rocksdb_snapshot_t *snapshot, uint64_t ino,
                        const struct record_inode *inode, uint64_t offset, uint64_t end,
                        struct arena *arena, struct meta_extent **out, size_t *count)
{
    struct meta_extent *list = NULL;
    size_t n = 0, cap = 0;
    int rc = 0;
    if (inode->body == RECORD_BODY_OBJECT) {
        struct meta_extent e = body_extent(inode);
        rc = list_push(arena, &list, &n, &cap, &e);
    } else if (inode->body == RECORD_BODY_INLINE) {
        rc = load_first(engine, snapshot, ino, arena, &list, &n, &cap);
    } else if (inode->body == RECORD_BODY_MANY) {
        rc = load_rows(engine, snapshot, ino, offset, end, 0, arena, &list, &n, &cap);
    }
    if (rc < 0)
        return rc;
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        if (list[i].offset >= end || end_of(&list[i]) <= offset)
            continue;
        list[kept] = list[i];
        clip(&list[kept++], offset, end);
    }
    *out = list;
    *count = kept;
    return 0;
}

static bool in_table(enum record_body body)
{
    return body == RECORD_BODY_INLINE || body == RECORD_BODY_MANY;
}

/* Loads the extents that begin below `end` and reach `start`, as far as they are not here. */
static int edit_load(struct engine_edit *edit, uint64_t start, uint64_t end)
{
    if (edit->whole)
        return 0;
    if (edit->node->now.extents <= LOAD_ALL && edit->covered == 0) {
        start = 0;
        end = UINT64_MAX;
    }
    if (end <= edit->covered)
        return 0;
    bool whole = start == 0 && end == UINT64_MAX && edit->covered == 0;
    size_t first = edit->old_count;
    int rc;
    if (edit->node->now.body == RECORD_BODY_INLINE)
        rc = load_first(edit->t->engine, NULL, edit->node->ino, &edit->t->arena, &edit->old,
                        &edit->old_count, &edit->old_cap);
    else
        rc =
            load_rows(edit->t->engine, NULL, edit->node->ino, MAX(start, edit->covered), end,
                      edit->covered, &edit->t->arena, &edit->old, &edit->old_count, &edit->old_cap);
    if (rc < 0)
        return rc == -ENOENT ? -EIO : rc;
    for (size_t i = first; rc == 0 && i < edit->old_count; i++)
        rc =
            list_push(&edit->t->arena, &edit->now, &edit->now_count, &edit->now_cap, &edit->old[i]);
    edit->whole = whole;
    edit->covered = end;
    return rc;
}

int engine_edit_begin(struct engine_edit *edit, struct engine_txn *t, struct engine_node *node)
{
    *edit = (struct engine_edit){.t = t, .node = node, .whole = !in_table(node->now.body)};
    if (node->now.body != RECORD_BODY_OBJECT)
        return 0;
    struct meta_extent e = body_extent(&node->now);
    int rc = list_push(&t->arena, &edit->old, &edit->old_count, &edit->old_cap, &e);
    /* A settled empty file references its object by an extent without bytes: any edit drops it. */
    if (rc == 0 && e.length > 0)
        rc = list_push(&t->arena, &edit->now, &edit->now_count, &edit->now_cap, &e);
    return rc;
}

/* Puts up to 3 extents in place of now[from, to). */
static int splice(struct engine_edit *edit, size_t from, size_t to, const struct meta_extent *with,
                  size_t with_count)
{
    struct meta_extent nothing = {0};
    int rc = 0;
    for (size_t have = to - from; rc == 0 && have < with_count; have++)
        rc = list_push(&edit->t->arena, &edit->now, &edit->now_count, &edit->now_cap, &nothing);
    if (rc < 0)
        return rc;
    size_t old_count = edit->now_count;
    if (with_count > to - from)
        old_count -= with_count - (to - from);
    if (old_count > to)
        memmove(edit->now + from + with_count, edit->now + to,
                (old_count - to) * sizeof(*edit->now));
    if (with_count)
        memcpy(edit->now + from, with, with_count * sizeof(*with));
    edit->now_count = old_count - (to - from) + with_count;
    return 0;
}

int engine_edit_load_all(struct engine_edit *edit)
{
    assert(edit->whole || edit->covered == 0);
    return edit_load(edit, 0, UINT64_MAX);
}

int engine_edit_replace(struct engine_edit *edit, const struct meta_extent *extent)
{
    uint64_t start = extent->offset, end = end_of(extent);
    if (extent->length == 0)
        return 0;
    int rc = edit_load(edit, start, end);
    if (rc < 0)
        return rc;
    /* The list is in order: the first that ends behind start, the first that begins at end. */
    size_t from = 0, to = edit->now_count;
    while (from < to) {
        size_t middle = from + (to - from) / 2;
        if (end_of(&edit->now[middle]) <= start)
            from = middle + 1;
        else
            to = middle;
    }
    for (to = from; to < edit->now_count && edit->now[to].offset < end;)
        to++;
    struct meta_extent with[3];
    size_t n = 0;
    if (from < to && edit->now[from].offset < start) {
        with[n] = edit->now[from];
        clip(&with[n++], 0, start);
    }
    if (extent->kind != META_EXTENT_HOLE)
        with[n++] = *extent;
    if (from < to && end_of(&edit->now[to - 1]) > end) {
        with[n] = edit->now[to - 1];
        clip(&with[n++], end, UINT64_MAX);
    }
    return splice(edit, from, to, with, n);
}

int engine_edit_cut(struct engine_edit *edit, uint64_t offset)
{
    struct meta_extent hole = {
        .kind = META_EXTENT_HOLE, .offset = offset, .length = UINT64_MAX - offset};
    return engine_edit_replace(edit, &hole);
}

/* Neighbours that continue each other become one. */
static int edit_join(struct engine_edit *edit)
{
    size_t kept = 0;
    for (size_t i = 0; i < edit->now_count; i++) {
        struct meta_extent *e = &edit->now[i], *last = kept ? &edit->now[kept - 1] : NULL;
        bool touch = last && end_of(last) == e->offset && last->kind == e->kind;
        if (touch && e->kind == META_EXTENT_OBJECT && last->object == e->object &&
            last->object_offset + last->length == e->object_offset) {
            last->length += e->length;
        } else if (touch && e->kind == META_EXTENT_INLINE &&
                   last->length + e->length <= INLINE_JOIN) {
            uint8_t *data = arena_alloc(&edit->t->arena, last->length + e->length);
            if (!data)
                return -ENOMEM;
            memcpy(data, last->data, last->length);
            memcpy(data + last->length, e->data, e->length);
            last->data = data;
            last->length += e->length;
        } else {
            edit->now[kept++] = *e;
        }
    }
    edit->now_count = kept;
    return 0;
}

static bool same_extent(const struct meta_extent *a, const struct meta_extent *b)
{
    return a->kind == b->kind && a->length == b->length && a->object == b->object &&
           a->object_offset == b->object_offset && a->data == b->data;
}

static enum record_body body_of(const struct engine_edit *edit)
{
    if (!edit->whole)
        return RECORD_BODY_MANY;
    if (edit->now_count == 0)
        return RECORD_BODY_EMPTY;
    const struct meta_extent *e = edit->now;
    if (edit->now_count > 1 || e->offset > 0)
        return RECORD_BODY_MANY;
    return e->kind == META_EXTENT_OBJECT ? RECORD_BODY_OBJECT : RECORD_BODY_INLINE;
}

static int row_put(struct engine_edit *edit, const struct meta_extent *e)
{
    struct record_key key;
    record_key_u64x2(&key, edit->node->ino, e->offset);
    struct buf *b = engine_txn_scratch(edit->t);
    record_extent_encode(b, e);
    return buf_error(b) ? -ENOMEM : engine_txn_put(edit->t, TABLE_EXTENT, &key, b->data, b->len);
}

static int row_delete(struct engine_edit *edit, const struct meta_extent *e)
{
    struct record_key key;
    record_key_u64x2(&key, edit->node->ino, e->offset);
    return engine_txn_delete(edit->t, TABLE_EXTENT, &key);
}

struct ref {
    uint64_t object;
    int64_t delta;
};

static int ref_order(const void *a, const void *b)
{
    const struct ref *x = a, *y = b;
    return x->object < y->object ? -1 : x->object > y->object;
}

/* Sums up by object, so that one that only moved never counts 0 in between. */
static int apply_refs(struct engine_edit *edit, struct ref *refs, size_t count)
{
    qsort(refs, count, sizeof(*refs), ref_order);
    for (size_t i = 0; i < count;) {
        uint64_t object = refs[i].object;
        int64_t delta = 0;
        for (; i < count && refs[i].object == object; i++)
            delta += refs[i].delta;
        int rc = delta ? engine_object_ref(edit->t, object, delta, edit->node->ino) : 0;
        if (rc < 0)
            return rc;
    }
    return 0;
}

int engine_edit_end(struct engine_edit *edit)
{
    struct record_inode *inode = &edit->node->now;
    int rc = edit_join(edit);
    if (rc < 0)
        return rc;
    enum record_body body = body_of(edit);
    bool was_rows = in_table(inode->body), rows = in_table(body);
    struct ref *refs =
        arena_alloc(&edit->t->arena, (edit->old_count + edit->now_count + 1) * sizeof(*refs));
    if (!refs)
        return -ENOMEM;
    size_t i = 0, j = 0, ref_count = 0;
    int64_t added = 0;
    while (rc == 0 && (i < edit->old_count || j < edit->now_count)) {
        const struct meta_extent *old = i < edit->old_count ? &edit->old[i] : NULL;
        const struct meta_extent *now = j < edit->now_count ? &edit->now[j] : NULL;
        if (old && now && old->offset != now->offset)
            *(old->offset < now->offset ? &now : &old) = NULL;
        i += old != NULL;
        j += now != NULL;
        added += (now != NULL) - (old != NULL);
        bool same = old && now && same_extent(old, now);
        if (old && old->kind == META_EXTENT_OBJECT)
            refs[ref_count++] = (struct ref){old->object, -1};
        if (now && now->kind == META_EXTENT_OBJECT)
            refs[ref_count++] = (struct ref){now->object, 1};
        if (now && rows && !(same && was_rows))
            rc = row_put(edit, now);
        else if (old && was_rows && !(now && rows))
            rc = row_delete(edit, old);
    }
    if (rc == 0)
        rc = apply_refs(edit, refs, ref_count);
    if (rc < 0)
        return rc;
    uint64_t count = was_rows ? inode->extents + (uint64_t)added : edit->now_count;
    inode->body = !edit->whole && count == 0 ? RECORD_BODY_EMPTY : body;
    inode->extents = rows ? count : 0;
    inode->object = inode->object_offset = inode->object_length = 0;
    if (inode->body == RECORD_BODY_OBJECT) {
        inode->object = edit->now[0].object;
        inode->object_offset = edit->now[0].object_offset;
        inode->object_length = edit->now[0].length;
    }
    edit->node->dirty = true;
    return 0;
}

int engine_edit_whole_object(struct engine_edit *edit, uint64_t object, uint64_t size)
{
    struct record_inode *inode = &edit->node->now;
    struct meta_extent e = {.kind = META_EXTENT_OBJECT, .length = size, .object = object};
    int rc = engine_edit_cut(edit, 0);
    if (rc == 0)
        rc = engine_edit_replace(edit, &e);
    if (rc == 0)
        rc = engine_edit_end(edit);
    if (rc < 0 || size > 0)
        return rc;
    inode->body = RECORD_BODY_OBJECT;
    inode->object = object;
    return engine_object_ref(edit->t, object, 1, edit->node->ino);
}

int engine_content_changed(struct engine_txn *t, struct engine_node *node, uint64_t size)
{
    int rc = engine_usage_resize(t, node, node->now.size, size);
    node->now.size = size;
    node->now.data_version++;
    node->now.mtime_ns = t->time_ns;
    engine_node_touch(t, node);
    /* Attributes that were changed while the bytes were inline are in no queue: settle was to write
     * them with the bytes. */
    if (rc == 0 && node->before.body == RECORD_BODY_INLINE && node->now.body != RECORD_BODY_INLINE)
        rc = engine_carry_queue(t, node);
    return rc < 0 ? rc : engine_settle_changed(t, node);
}

int engine_truncate(struct engine_txn *t, struct engine_node *node, uint64_t size)
{
    if (size > FILE_SIZE_MAX)
        return -EFBIG;
    int rc = 0;
    if (size < node->now.size) {
        struct engine_edit edit;
        rc = engine_edit_begin(&edit, t, node);
        if (rc == 0)
            rc = engine_edit_cut(&edit, size);
        if (rc == 0)
            rc = engine_edit_end(&edit);
    }
    return rc < 0 ? rc : engine_content_changed(t, node, size);
}

/* A regular file whose content may change. */
static int content_node(struct engine_txn *t, uint64_t ino, struct engine_node **out)
{
    int rc = engine_txn_inode(t, ino, out);
    if (rc < 0)
        return rc;
    if (!S_ISREG((*out)->now.mode))
        return S_ISDIR((*out)->now.mode) ? -EISDIR : -EINVAL;
    return 0;
}

/* Reserved objects that were written become live. */
static int commit_objects(struct engine_txn *t, const struct meta_op *op, struct engine_node *node)
{
    for (size_t i = 0; i < op->object_count; i++) {
        const struct meta_object *written = &op->objects[i];
        struct record_object object;
        int rc = engine_object_get(t, written->id, &object);
        if (rc == -ENOENT || (rc == 0 && object.state != META_OBJECT_RESERVED))
            return -ESTALE;
        if (rc == 0)
            rc = engine_object_written(t, written, node->ino, &object);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int commit_check_extent(struct engine_txn *t, const struct meta_extent *e)
{
    struct record_object object;
    if (e->length == 0 || e->offset > FILE_SIZE_MAX || e->length > FILE_SIZE_MAX - e->offset)
        return e->length ? -EFBIG : -EINVAL;
    if (e->kind == META_EXTENT_HOLE || (e->kind == META_EXTENT_INLINE && e->data))
        return 0;
    if (e->kind != META_EXTENT_OBJECT)
        return -EINVAL;
    int rc = engine_object_get(t, e->object, &object);
    if (rc == -ENOENT || (rc == 0 && object.state != META_OBJECT_LIVE))
        return -ESTALE;
    if (rc == 0 && (e->object_offset > object.size || e->length > object.size - e->object_offset))
        rc = -EINVAL;
    return rc;
}

static int extent_order(const void *a, const void *b)
{
    const struct meta_extent *x = a, *y = b;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* The extents of a commit in order; they must not overlap. */
static int commit_extents(struct engine_txn *t, const struct meta_op *op, struct meta_extent **out)
{
    size_t n = op->extent_count;
    struct meta_extent *list = arena_alloc(&t->arena, (n + 1) * sizeof(*list));
    if (!list)
        return -ENOMEM;
    if (n)
        memcpy(list, op->extents, n * sizeof(*list));
    qsort(list, n, sizeof(*list), extent_order);
    for (size_t i = 0; i < n; i++) {
        int rc = commit_check_extent(t, &list[i]);
        if (rc < 0)
            return rc;
        if (i > 0 && end_of(&list[i - 1]) > list[i].offset)
            return -EINVAL;
        if (list[i].kind == META_EXTENT_INLINE) {
            list[i].object = list[i].object_offset = 0;
            list[i].data = arena_copy(&t->arena, list[i].data, list[i].length);
            if (!list[i].data)
                return -ENOMEM;
        } else {
            list[i].data = NULL;
        }
    }
    *out = list;
    return 0;
}

static int commit_edit(struct engine_txn *t, const struct meta_op *op, struct engine_node *node,
                       uint64_t *size)
{
    struct engine_edit edit;
    struct meta_extent *list = NULL;
    int rc = commit_extents(t, op, &list);
    if (rc == 0)
        rc = engine_edit_begin(&edit, t, node);
    if (rc == 0 && op->flags & META_REPLACE)
        rc = engine_edit_cut(&edit, 0);
    uint64_t end = op->flags & META_REPLACE ? 0 : node->now.size;
    for (size_t i = 0; rc == 0 && i < op->extent_count; i++) {
        if (list[i].kind != META_EXTENT_HOLE)
            end = MAX(end, end_of(&list[i]));
    }
    *size = op->valid & META_SET_SIZE ? op->attr.size : end;
    if (*size > FILE_SIZE_MAX)
        return -EFBIG;
    /* An edit goes upwards only, unless all is loaded. */
    if (rc == 0 && *size < end)
        rc = engine_edit_load_all(&edit);
    for (size_t i = 0; rc == 0 && i < op->extent_count; i++)
        rc = engine_edit_replace(&edit, &list[i]);
    if (rc == 0 && *size < end)
        rc = engine_edit_cut(&edit, *size);
    return rc < 0 ? rc : engine_edit_end(&edit);
}

int engine_apply_commit(struct engine_txn *t, const struct meta_op *op, struct meta_reply *reply)
{
    struct engine_node *node;
    uint64_t size;
    int rc = content_node(t, op->ino, &node);
    if (rc == 0)
        rc = commit_objects(t, op, node);
    if (rc == 0)
        rc = commit_edit(t, op, node, &size);
    for (size_t i = 0; rc == 0 && i < op->object_count; i++) {
        struct record_object object;
        rc = engine_object_get(t, op->objects[i].id, &object);
        if (rc == 0 && object.refs == 0 && object.state == META_OBJECT_LIVE)
            rc = engine_object_discard(t, op->objects[i].id, &object);
    }
    if (rc == 0)
        rc = engine_content_changed(t, node, size);
    if (rc < 0)
        return rc;
    if (op->valid & META_SET_MTIME)
        node->now.mtime_ns = op->attr.mtime_ns;
    if (op->valid & META_KILL_SUID)
        engine_kill_suid(node);
    engine_attr(node->ino, &node->now, &reply->attr);
    return 0;
}

int engine_apply_clone(struct engine_txn *t, const struct meta_op *op, struct meta_reply *reply)
{
    struct engine_node *from, *to;
    struct engine_edit edit;
    struct meta_extent *list = NULL;
    size_t count;
    int rc = content_node(t, op->ino, &from);
    if (rc == 0)
        rc = content_node(t, op->new_ino, &to);
    if (rc < 0)
        return rc;
    uint64_t length =
        op->offset < from->now.size ? MIN(op->length, from->now.size - op->offset) : 0;
    uint64_t end = op->offset + length, new_end = op->new_offset + length;
    if (op->new_offset > FILE_SIZE_MAX || length > FILE_SIZE_MAX - op->new_offset)
        return -EFBIG;
    if (from == to && op->offset < new_end && op->new_offset < end)
        return -EINVAL;
    rc = engine_extents_load(t->engine, NULL, from->ino, &from->now, op->offset, end, &t->arena,
                             &list, &count);
    if (rc == 0)
        rc = engine_edit_begin(&edit, t, to);
    uint64_t at = op->new_offset;
    for (size_t i = 0; rc == 0 && i <= count; i++) {
        struct meta_extent e = {.kind = META_EXTENT_HOLE, .offset = at};
        uint64_t next = i < count ? list[i].offset - op->offset + op->new_offset : new_end;
        e.length = next - at;
        rc = engine_edit_replace(&edit, &e);
        if (rc < 0 || i == count)
            break;
        e = list[i];
        e.offset = next;
        at = end_of(&e);
        rc = engine_edit_replace(&edit, &e);
        if (rc == 0 && e.kind == META_EXTENT_OBJECT)
            rc = engine_object_share(t, e.object, to->ino);
    }
    if (rc == 0)
        rc = engine_edit_end(&edit);
    if (rc == 0 && length > 0)
        rc = engine_content_changed(t, to, MAX(to->now.size, new_end));
    if (rc == 0)
        engine_attr(to->ino, &to->now, &reply->attr);
    return rc;
}

int engine_apply_punch(struct engine_txn *t, const struct meta_op *op, struct meta_reply *reply)
{
    struct engine_node *node;
    struct engine_edit edit;
    int rc = content_node(t, op->ino, &node);
    if (rc < 0)
        return rc;
    if (op->offset > FILE_SIZE_MAX || op->length > FILE_SIZE_MAX - op->offset ||
        (op->valid & META_SET_SIZE && op->attr.size > FILE_SIZE_MAX))
        return -EFBIG;
    struct meta_extent hole = {
        .kind = META_EXTENT_HOLE, .offset = op->offset, .length = op->length};
    uint64_t size = op->valid & META_SET_SIZE ? op->attr.size : node->now.size;
    rc = engine_edit_begin(&edit, t, node);
    if (rc == 0 && size < node->now.size)
        rc = engine_edit_load_all(&edit);
    if (rc == 0)
        rc = engine_edit_replace(&edit, &hole);
    if (rc == 0 && size < node->now.size)
        rc = engine_edit_cut(&edit, size);
    if (rc == 0)
        rc = engine_edit_end(&edit);
    if (rc == 0)
        rc = engine_content_changed(t, node, size);
    if (rc == 0)
        engine_attr(node->ino, &node->now, &reply->attr);
    return rc;
}
