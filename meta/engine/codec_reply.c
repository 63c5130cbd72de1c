/* Answers as bytes: docs/protocol.md, "Answers". */
#include <errno.h>
#include <string.h>

#include "codec_parts.h"
#include "meta/codec.h"

#define VERSION 1

/* Which parts of an answer follow, in this order. */
enum part {
    PART_ATTR = 1 << 0,
    PART_REPLACED = 1 << 1,
    PART_ENTRIES = 1 << 2,
    PART_EXTENTS = 1 << 3,
    PART_OBJECTS = 1 << 4,
    PART_DATA = 1 << 5,
    PART_USAGE = 1 << 6,
    PART_DRIFT = 1 << 7,
    PART_END = 1 << 8, /* no bytes: reply->end is true */
    PART_QUOTAS = 1 << 9,
    PART_PARENT = 1 << 10,
    PART_WHOLE = 1 << 11, /* no bytes: reply->whole */
    PART_ALL = (1 << 12) - 1,
};

static uint32_t parts_of(const struct meta_reply *r)
{
    uint32_t parts = 0;
    parts |= r->attr.ino ? PART_ATTR : 0;
    parts |= r->replaced.ino ? PART_REPLACED : 0;
    parts |= r->parent.ino ? PART_PARENT : 0;
    parts |= r->entry_count ? PART_ENTRIES : 0;
    parts |= r->extent_count ? PART_EXTENTS : 0;
    parts |= r->object_count ? PART_OBJECTS : 0;
    parts |= r->data_len ? PART_DATA : 0;
    parts |= r->usage.bytes || r->usage.files || r->usage.directories ? PART_USAGE : 0;
    parts |= r->end ? PART_END : 0;
    parts |= r->whole ? PART_WHOLE : 0;
    parts |= r->quota_count ? PART_QUOTAS : 0;
    const struct meta_drift *drift = &r->drift;
    parts |= drift->files || drift->bytes || drift->garbage_objects ? PART_DRIFT : 0;
    return parts;
}

/* A name of a listing: with all attributes (`plus`), or with the type only. */
static void put_entry(struct buf *b, const struct meta_entry *e)
{
    bool plus = e->attr.ino != 0;
    buf_put_bytes(b, e->name, e->name_len);
    buf_put_varint(b, e->ino);
    buf_put_u8(b, plus);
    if (plus)
        codec_put_attr(b, &e->attr);
    else
        buf_put_varint(b, e->attr.mode);
}

static void put_quota(struct buf *b, const struct meta_quota *q)
{
    buf_put_varint(b, q->ino);
    buf_put_varint(b, q->max_bytes);
    buf_put_varint(b, q->max_inodes);
    buf_put_varint(b, q->usage.bytes);
    buf_put_varint(b, q->usage.files);
    buf_put_varint(b, q->usage.directories);
    buf_put_varint(b, q->reserved_bytes);
}

static void get_quota(struct codec_reader *d, struct meta_quota *q)
{
    q->ino = reader_varint(&d->r);
    q->max_bytes = reader_varint(&d->r);
    q->max_inodes = reader_varint(&d->r);
    q->usage.bytes = reader_varint(&d->r);
    q->usage.files = reader_varint(&d->r);
    q->usage.directories = reader_varint(&d->r);
    q->reserved_bytes = reader_varint(&d->r);
}

void meta_codec_reply_put(struct buf *b, const struct meta_reply *r)
{
    uint32_t parts = parts_of(r);
    buf_put_u8(b, VERSION);
    buf_put_varint(b, parts);
    if (parts & PART_ATTR)
        codec_put_attr(b, &r->attr);
    if (parts & PART_REPLACED)
        codec_put_attr(b, &r->replaced);
    if (parts & PART_ENTRIES)
        buf_put_varint(b, r->entry_count);
    for (size_t i = 0; i < r->entry_count; i++)
        put_entry(b, &r->entries[i]);
    if (parts & PART_EXTENTS)
        buf_put_varint(b, r->extent_count);
    for (size_t i = 0; i < r->extent_count; i++)
        codec_put_extent(b, &r->extents[i]);
    if (parts & PART_OBJECTS)
        buf_put_varint(b, r->object_count);
    for (size_t i = 0; i < r->object_count; i++)
        codec_put_object(b, &r->objects[i]);
    if (parts & PART_DATA)
        buf_put_bytes(b, r->data, r->data_len);
    if (parts & PART_USAGE) {
        buf_put_varint(b, r->usage.bytes);
        buf_put_varint(b, r->usage.files);
        buf_put_varint(b, r->usage.directories);
    }
    if (parts & PART_DRIFT) {
        buf_put_varint(b, r->drift.files);
        buf_put_varint(b, r->drift.bytes);
        buf_put_varint(b, r->drift.oldest_ns);
        buf_put_varint(b, r->drift.garbage_objects);
        buf_put_varint(b, r->drift.garbage_bytes);
    }
    if (parts & PART_QUOTAS)
        buf_put_varint(b, r->quota_count);
    for (size_t i = 0; i < r->quota_count; i++)
        put_quota(b, &r->quotas[i]);
    if (parts & PART_PARENT)
        codec_put_attr(b, &r->parent);
}

/* The answer outlives the frame that it came in. */
static const void *keep(struct codec_reader *d, const void *bytes, size_t len)
{
    if (!bytes || !len || d->r.failed)
        return NULL;
    void *copy = arena_copy(&d->arena, bytes, len);
    if (!copy)
        d->no_memory = d->r.failed = true;
    return copy;
}

static void get_entry(struct codec_reader *d, struct meta_entry *e)
{
    size_t len = 0;
    const void *name = reader_bytes(&d->r, META_NAME_MAX, &len);
    e->name = keep(d, name, len);
    e->name_len = len;
    if (!len)
        d->r.failed = true;
    e->ino = reader_varint(&d->r);
    if (codec_get_bool(d)) {
        codec_get_attr(d, &e->attr);
        if (!e->attr.ino)
            d->r.failed = true;
    } else {
        e->attr.mode = codec_get_u32(d);
    }
}

static void get_lists(struct codec_reader *d, struct meta_reply *r, uint32_t parts)
{
    if (parts & PART_ENTRIES)
        r->entries = codec_get_list(d, sizeof(*r->entries), 4, &r->entry_count);
    for (size_t i = 0; i < r->entry_count && !d->r.failed; i++)
        get_entry(d, &r->entries[i]);
    if (parts & PART_EXTENTS)
        r->extents = codec_get_list(d, sizeof(*r->extents), 3, &r->extent_count);
    for (size_t i = 0; i < r->extent_count && !d->r.failed; i++) {
        codec_get_extent(d, &r->extents[i]);
        if (r->extents[i].kind == META_EXTENT_INLINE)
            r->extents[i].data = keep(d, r->extents[i].data, r->extents[i].length);
    }
    if (parts & PART_OBJECTS)
        r->objects = codec_get_list(d, sizeof(*r->objects), 9, &r->object_count);
    for (size_t i = 0; i < r->object_count && !d->r.failed; i++)
        codec_get_object(d, &r->objects[i]);
}

int meta_codec_reply_get(const void *data, size_t len, struct meta_reply *out)
{
    struct codec_reader d = {.arena.first = META_REPLY_CHUNK};
    meta_reply_init(out);
    reader_init(&d.r, data, len);
    if (reader_u8(&d.r) != VERSION)
        d.r.failed = true;
    uint32_t parts = codec_get_u32(&d);
    if (parts & ~(uint32_t)PART_ALL)
        d.r.failed = true;
    if (parts & PART_ATTR)
        codec_get_attr(&d, &out->attr);
    if (parts & PART_REPLACED)
        codec_get_attr(&d, &out->replaced);
    get_lists(&d, out, parts);
    if (parts & PART_DATA) {
        const void *bytes = reader_bytes(&d.r, reader_left(&d.r), &out->data_len);
        out->data = keep(&d, bytes, out->data_len);
    }
    if (parts & PART_USAGE) {
        out->usage.bytes = reader_varint(&d.r);
        out->usage.files = reader_varint(&d.r);
        out->usage.directories = reader_varint(&d.r);
    }
    if (parts & PART_DRIFT) {
        out->drift.files = reader_varint(&d.r);
        out->drift.bytes = reader_varint(&d.r);
        out->drift.oldest_ns = reader_varint(&d.r);
        out->drift.garbage_objects = reader_varint(&d.r);
        out->drift.garbage_bytes = reader_varint(&d.r);
    }
    if (parts & PART_QUOTAS)
        out->quotas = codec_get_list(&d, sizeof(*out->quotas), 7, &out->quota_count);
    for (size_t i = 0; i < out->quota_count && !d.r.failed; i++)
        get_quota(&d, &out->quotas[i]);
    if (parts & PART_PARENT)
        codec_get_attr(&d, &out->parent);
    out->end = parts & PART_END;
    out->whole = parts & PART_WHOLE;
    out->arena = d.arena.head;
    int rc = d.no_memory ? -ENOMEM : reader_end(&d.r);
    if (rc < 0)
        meta_reply_done(out);
    return rc;
}
