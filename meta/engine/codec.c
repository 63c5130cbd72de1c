#include "meta/codec.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "codec_parts.h"
#include "records.h"

#define VERSION 1

/* Which parts of an operation follow, in this order. */
enum part {
    PART_INO = 1 << 0,
    PART_PARENT = 1 << 1,
    PART_NEW_PARENT = 1 << 2,
    PART_NEW_INO = 1 << 3,
    PART_NAME = 1 << 4,
    PART_NEW_NAME = 1 << 5,
    PART_RANGE = 1 << 6, /* offset, length, new_offset */
    PART_FLAGS = 1 << 7, /* flags, valid, count, plus */
    PART_ATTR = 1 << 8,
    PART_DATA = 1 << 9,
    PART_INOS = 1 << 10,
    PART_OBJECT = 1 << 11,
    PART_OBJECTS = 1 << 12,
    PART_EXTENTS = 1 << 13,
    PART_ENTRIES = 1 << 14,
    PART_SETTLE = 1 << 15,
    PART_VOLUME = 1 << 16,
    PART_SESSION = 1 << 24, /* session, request, retry */
    PART_ALL = (PART_VOLUME << 1) - 1 + PART_SESSION,
};

static bool attr_is_set(const struct meta_attr *a)
{
    return a->ino || a->mode || a->uid || a->gid || a->nlink || a->rdev || a->size || a->atime_ns ||
           a->mtime_ns || a->ctime_ns || a->btime_ns || a->data_version || a->meta_version ||
           a->has_xattr;
}

static uint32_t parts_of(const struct meta_op *op)
{
    uint32_t parts = 0;
    parts |= op->ino ? PART_INO : 0;
    parts |= op->parent ? PART_PARENT : 0;
    parts |= op->new_parent ? PART_NEW_PARENT : 0;
    parts |= op->new_ino ? PART_NEW_INO : 0;
    parts |= op->name.len ? PART_NAME : 0;
    parts |= op->new_name.len ? PART_NEW_NAME : 0;
    parts |= op->offset || op->length || op->new_offset ? PART_RANGE : 0;
    parts |= op->flags || op->valid || op->count || op->plus ? PART_FLAGS : 0;
    parts |= attr_is_set(&op->attr) ? PART_ATTR : 0;
    parts |= op->data_len ? PART_DATA : 0;
    parts |= op->ino_count ? PART_INOS : 0;
    parts |= op->object ? PART_OBJECT : 0;
    parts |= op->object_count ? PART_OBJECTS : 0;
    parts |= op->extent_count ? PART_EXTENTS : 0;
    parts |= op->entry_count ? PART_ENTRIES : 0;
    parts |= op->settle ? PART_SETTLE : 0;
    parts |= op->volume ? PART_VOLUME : 0;
    parts |= op->session || op->request ? PART_SESSION : 0;
    return parts;
}

void codec_put_attr(struct buf *b, const struct meta_attr *a)
{
    buf_put_varint(b, a->ino);
    buf_put_varint(b, a->mode);
    buf_put_varint(b, a->uid);
    buf_put_varint(b, a->gid);
    buf_put_varint(b, a->nlink);
    buf_put_varint(b, a->rdev);
    buf_put_varint(b, a->size);
    buf_put_varint(b, a->atime_ns);
    buf_put_varint(b, a->mtime_ns);
    buf_put_varint(b, a->ctime_ns);
    buf_put_varint(b, a->btime_ns);
    buf_put_varint(b, a->data_version);
    buf_put_varint(b, a->meta_version);
    buf_put_u8(b, a->has_xattr);
}

void codec_put_object(struct buf *b, const struct meta_object *o)
{
    buf_put_varint(b, o->id);
    buf_put_u8(b, (uint8_t)o->state);
    buf_put_u8(b, o->foreign);
    buf_put_bytes(b, o->key, strnlen(o->key, META_KEY_MAX));
    buf_put_varint(b, o->size);
    buf_put_varint(b, o->mtime_ns);
    buf_put_bytes(b, o->etag, strnlen(o->etag, META_ETAG_MAX - 1));
    buf_put_varint(b, o->cid);
    buf_put_varint(b, o->refs);
}

void codec_put_extent(struct buf *b, const struct meta_extent *e)
{
    buf_put_u8(b, (uint8_t)e->kind);
    buf_put_varint(b, e->offset);
    if (e->kind == META_EXTENT_INLINE) {
        buf_put_bytes(b, e->data, e->length);
        return;
    }
    buf_put_varint(b, e->length);
    buf_put_varint(b, e->object);
    buf_put_varint(b, e->object_offset);
}

static void put_entry(struct buf *b, const struct meta_entry *e)
{
    buf_put_bytes(b, e->name, e->name_len);
    buf_put_varint(b, e->ino);
    buf_put_u8(b, (uint8_t)(e->is_dir | e->has_attr << 1));
    buf_put_varint(b, e->mtime_ns);
    buf_put_varint(b, e->size);
    buf_put_bytes(b, e->etag, strnlen(e->etag, META_ETAG_MAX - 1));
    if (e->has_attr)
        codec_put_attr(b, &e->attr);
}

static void put_settle(struct buf *b, const struct meta_settle *s)
{
    buf_put_u8(b, (uint8_t)s->action);
    buf_put_varint(b, s->ino);
    buf_put_varint(b, s->data_version);
    buf_put_varint(b, s->size);
    codec_put_object(b, &s->target);
    buf_put_u8(b, (uint8_t)(s->target_is_natural | s->replaces << 1));
    buf_put_bytes(b, s->old_etag, strnlen(s->old_etag, META_ETAG_MAX - 1));
    codec_put_attr(b, &s->attr);
}

static void put_lists(struct buf *b, const struct meta_op *op, uint32_t parts)
{
    if (parts & PART_INOS)
        buf_put_varint(b, op->ino_count);
    for (size_t i = 0; i < op->ino_count; i++)
        buf_put_varint(b, op->inos[i]);
    if (parts & PART_OBJECT)
        buf_put_varint(b, op->object);
    if (parts & PART_OBJECTS)
        buf_put_varint(b, op->object_count);
    for (size_t i = 0; i < op->object_count; i++)
        codec_put_object(b, &op->objects[i]);
    if (parts & PART_EXTENTS)
        buf_put_varint(b, op->extent_count);
    for (size_t i = 0; i < op->extent_count; i++)
        codec_put_extent(b, &op->extents[i]);
    if (parts & PART_ENTRIES)
        buf_put_varint(b, op->entry_count);
    for (size_t i = 0; i < op->entry_count; i++)
        put_entry(b, &op->entries[i]);
    if (parts & PART_SETTLE)
        put_settle(b, op->settle);
    if (parts & PART_VOLUME) {
        struct buf volume;
        buf_init(&volume, 0);
        record_volume_encode(&volume, op->volume);
        buf_put_bytes(b, volume.data, volume.len);
        b->failed = b->failed || volume.failed;
        buf_done(&volume);
    }
    if (parts & PART_SESSION) {
        buf_put_varint(b, op->session);
        buf_put_varint(b, op->request);
        buf_put_u8(b, op->retry);
    }
}

void meta_codec_op_put(struct buf *b, const struct meta_op *op)
{
    uint32_t parts = parts_of(op);
    buf_put_u8(b, VERSION);
    buf_put_u8(b, (uint8_t)op->kind);
    buf_put_u64(b, op->time_ns);
    buf_put_varint(b, parts);
    if (parts & PART_INO)
        buf_put_varint(b, op->ino);
    if (parts & PART_PARENT)
        buf_put_varint(b, op->parent);
    if (parts & PART_NEW_PARENT)
        buf_put_varint(b, op->new_parent);
    if (parts & PART_NEW_INO)
        buf_put_varint(b, op->new_ino);
    if (parts & PART_NAME)
        buf_put_bytes(b, op->name.bytes, op->name.len);
    if (parts & PART_NEW_NAME)
        buf_put_bytes(b, op->new_name.bytes, op->new_name.len);
    if (parts & PART_RANGE) {
        buf_put_varint(b, op->offset);
        buf_put_varint(b, op->length);
        buf_put_varint(b, op->new_offset);
    }
    if (parts & PART_FLAGS) {
        buf_put_varint(b, op->flags);
        buf_put_varint(b, op->valid);
        buf_put_varint(b, op->count);
        buf_put_u8(b, op->plus);
    }
    if (parts & PART_ATTR)
        codec_put_attr(b, &op->attr);
    if (parts & PART_DATA)
        buf_put_bytes(b, op->data, op->data_len);
    put_lists(b, op, parts);
}

/* Reading */

uint32_t codec_get_u32(struct codec_reader *d)
{
    uint64_t v = reader_varint(&d->r);
    if (v > UINT32_MAX)
        d->r.failed = true;
    return (uint32_t)v;
}

bool codec_get_bool(struct codec_reader *d)
{
    uint8_t v = reader_u8(&d->r);
    if (v > 1)
        d->r.failed = true;
    return v;
}

uint8_t codec_get_bits(struct codec_reader *d, uint8_t max)
{
    uint8_t v = reader_u8(&d->r);
    if (v > max)
        d->r.failed = true;
    return v;
}

void codec_get_text(struct codec_reader *d, char *out, size_t cap)
{
    size_t len = 0;
    const uint8_t *text = reader_bytes(&d->r, cap - 1, &len);
    if (text && len && memchr(text, 0, len))
        d->r.failed = true;
    if (text && len && !d->r.failed)
        memcpy(out, text, len);
    else
        len = 0;
    out[len] = '\0';
}

static void get_name(struct codec_reader *d, struct meta_name *out)
{
    size_t len = 0;
    out->bytes = (const char *)reader_bytes(&d->r, META_NAME_MAX, &len);
    out->len = len;
}

void *codec_get_list(struct codec_reader *d, size_t size, size_t least, size_t *count)
{
    uint64_t n = reader_varint(&d->r);
    *count = 0;
    if (n == 0 || n > reader_left(&d->r) / least)
        d->r.failed = true;
    if (d->r.failed)
        return NULL;
    void *list = arena_alloc(&d->arena, n * size);
    if (!list) {
        d->no_memory = d->r.failed = true;
        return NULL;
    }
    memset(list, 0, n * size);
    *count = n;
    return list;
}

void codec_get_attr(struct codec_reader *d, struct meta_attr *a)
{
    a->ino = reader_varint(&d->r);
    a->mode = codec_get_u32(d);
    a->uid = codec_get_u32(d);
    a->gid = codec_get_u32(d);
    a->nlink = codec_get_u32(d);
    a->rdev = reader_varint(&d->r);
    a->size = reader_varint(&d->r);
    a->atime_ns = reader_varint(&d->r);
    a->mtime_ns = reader_varint(&d->r);
    a->ctime_ns = reader_varint(&d->r);
    a->btime_ns = reader_varint(&d->r);
    a->data_version = reader_varint(&d->r);
    a->meta_version = reader_varint(&d->r);
    a->has_xattr = codec_get_bool(d);
}

void codec_get_object(struct codec_reader *d, struct meta_object *o)
{
    o->id = reader_varint(&d->r);
    o->state = codec_get_bits(d, META_OBJECT_GARBAGE);
    o->foreign = codec_get_bool(d);
    codec_get_text(d, o->key, sizeof(o->key));
    o->size = reader_varint(&d->r);
    o->mtime_ns = reader_varint(&d->r);
    codec_get_text(d, o->etag, sizeof(o->etag));
    o->cid = reader_varint(&d->r);
    o->refs = codec_get_u32(d);
}

void codec_get_extent(struct codec_reader *d, struct meta_extent *e)
{
    e->kind = reader_u8(&d->r);
    e->offset = reader_varint(&d->r);
    if (e->kind == META_EXTENT_INLINE) {
        size_t len = 0;
        e->data = reader_bytes(&d->r, UINT32_MAX, &len);
        e->length = len;
    } else if (e->kind == META_EXTENT_OBJECT || e->kind == META_EXTENT_HOLE) {
        e->length = reader_varint(&d->r);
        e->object = reader_varint(&d->r);
        e->object_offset = reader_varint(&d->r);
    } else {
        d->r.failed = true;
    }
}

static void get_entry(struct codec_reader *d, struct meta_entry *e)
{
    struct meta_name name = {0};
    get_name(d, &name);
    e->name = name.bytes;
    e->name_len = name.len;
    e->ino = reader_varint(&d->r);
    uint8_t bits = codec_get_bits(d, 3);
    e->is_dir = bits & 1;
    e->has_attr = bits & 2;
    e->mtime_ns = reader_varint(&d->r);
    e->size = reader_varint(&d->r);
    codec_get_text(d, e->etag, sizeof(e->etag));
    if (e->has_attr)
        codec_get_attr(d, &e->attr);
}

static void get_settle(struct codec_reader *d, struct meta_op *op)
{
    struct meta_settle *s = arena_alloc(&d->arena, sizeof(*s));
    if (!s) {
        d->no_memory = d->r.failed = true;
        return;
    }
    memset(s, 0, sizeof(*s));
    s->action = codec_get_bits(d, META_SETTLE_JOIN);
    s->ino = reader_varint(&d->r);
    s->data_version = reader_varint(&d->r);
    s->size = reader_varint(&d->r);
    codec_get_object(d, &s->target);
    uint8_t bits = codec_get_bits(d, 3);
    s->target_is_natural = bits & 1;
    s->replaces = bits & 2;
    codec_get_text(d, s->old_etag, sizeof(s->old_etag));
    codec_get_attr(d, &s->attr);
    op->settle = s;
}

static void get_volume(struct codec_reader *d, struct meta_op *op)
{
    size_t len = 0;
    const uint8_t *bytes = reader_bytes(&d->r, reader_left(&d->r), &len);
    struct meta_volume *volume = arena_alloc(&d->arena, sizeof(*volume));
    if (!volume)
        d->no_memory = d->r.failed = true;
    else if (!bytes || record_volume_decode(bytes, len, volume) < 0)
        d->r.failed = true;
    op->volume = volume;
}

static void get_lists(struct codec_reader *d, struct meta_op *op, uint32_t parts)
{
    if (parts & PART_INOS) {
        uint64_t *inos = codec_get_list(d, sizeof(*inos), 1, &op->ino_count);
        for (size_t i = 0; i < op->ino_count; i++)
            inos[i] = reader_varint(&d->r);
        op->inos = inos;
    }
    if (parts & PART_OBJECT)
        op->object = reader_varint(&d->r);
    if (parts & PART_OBJECTS) {
        struct meta_object *objects = codec_get_list(d, sizeof(*objects), 9, &op->object_count);
        for (size_t i = 0; i < op->object_count; i++)
            codec_get_object(d, &objects[i]);
        op->objects = objects;
    }
    if (parts & PART_EXTENTS) {
        struct meta_extent *extents = codec_get_list(d, sizeof(*extents), 3, &op->extent_count);
        for (size_t i = 0; i < op->extent_count; i++)
            codec_get_extent(d, &extents[i]);
        op->extents = extents;
    }
    if (parts & PART_ENTRIES) {
        struct meta_entry *entries = codec_get_list(d, sizeof(*entries), 6, &op->entry_count);
        for (size_t i = 0; i < op->entry_count; i++)
            get_entry(d, &entries[i]);
        op->entries = entries;
    }
    if (parts & PART_SETTLE)
        get_settle(d, op);
    if (parts & PART_VOLUME)
        get_volume(d, op);
    if (parts & PART_SESSION) {
        op->session = reader_varint(&d->r);
        op->request = reader_varint(&d->r);
        op->retry = codec_get_bool(d);
    }
}

static void get_op(struct codec_reader *d, struct meta_op *op)
{
    if (reader_u8(&d->r) != VERSION)
        d->r.failed = true;
    op->kind = reader_u8(&d->r);
    op->time_ns = reader_u64(&d->r);
    uint32_t parts = codec_get_u32(d);
    if (parts & ~(uint32_t)PART_ALL)
        d->r.failed = true;
    if (parts & PART_INO)
        op->ino = reader_varint(&d->r);
    if (parts & PART_PARENT)
        op->parent = reader_varint(&d->r);
    if (parts & PART_NEW_PARENT)
        op->new_parent = reader_varint(&d->r);
    if (parts & PART_NEW_INO)
        op->new_ino = reader_varint(&d->r);
    if (parts & PART_NAME)
        get_name(d, &op->name);
    if (parts & PART_NEW_NAME)
        get_name(d, &op->new_name);
    if (parts & PART_RANGE) {
        op->offset = reader_varint(&d->r);
        op->length = reader_varint(&d->r);
        op->new_offset = reader_varint(&d->r);
    }
    if (parts & PART_FLAGS) {
        op->flags = codec_get_u32(d);
        op->valid = codec_get_u32(d);
        op->count = codec_get_u32(d);
        op->plus = codec_get_bool(d);
    }
    if (parts & PART_ATTR)
        codec_get_attr(d, &op->attr);
    if (parts & PART_DATA)
        op->data = reader_bytes(&d->r, reader_left(&d->r), &op->data_len);
    get_lists(d, op, parts);
}

int meta_codec_op_get(const void *data, size_t len, struct meta_decoded_op *out)
{
    struct codec_reader d = {0};
    memset(out, 0, sizeof(*out));
    reader_init(&d.r, data, len);
    get_op(&d, &out->op);
    out->arena = d.arena.head;
    int rc = d.no_memory ? -ENOMEM : reader_end(&d.r);
    if (rc < 0)
        meta_codec_op_done(out);
    return rc;
}

void meta_codec_op_done(struct meta_decoded_op *op)
{
    struct arena arena = {.head = op->arena};
    arena_done(&arena);
    memset(op, 0, sizeof(*op));
}
