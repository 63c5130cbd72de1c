#include "records.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "s3/mux.h"

#define VERSION 1
#define VERSION_HOT 2                           /* with hot directories */
#define VERSION_MARKERS RECORD_COUNTERS_VERSION /* and origins with markers */
#define VERSION_MARKER 2                        /* an origin with a marker */

static void key_put(struct record_key *key, const void *bytes, size_t len)
{
    assert(key->len + len <= sizeof(key->bytes));
    if (len)
        memcpy(key->bytes + key->len, bytes, len);
    key->len += len;
}

static void key_put_u64(struct record_key *key, uint64_t v)
{
    uint64_t be = __builtin_bswap64(v);
    key_put(key, &be, sizeof(be));
}

void record_key_u64(struct record_key *key, uint64_t a)
{
    key->len = 0;
    key_put_u64(key, a);
}

void record_key_u64x2(struct record_key *key, uint64_t a, uint64_t b)
{
    record_key_u64(key, a);
    key_put_u64(key, b);
}

void record_key_named(struct record_key *key, uint64_t a, const void *name, size_t len)
{
    record_key_u64(key, a);
    key_put(key, name, len);
}

void record_key_link(struct record_key *key, uint64_t ino, uint64_t parent, const void *name,
                     size_t len)
{
    record_key_u64x2(key, ino, parent);
    key_put(key, name, len);
}

void record_key_store(struct record_key *key, const void *bytes, size_t len)
{
    size_t skip;
    unsigned number = store_route(bytes, len, &skip);
    uint8_t id[2] = {(uint8_t)(number >> 8), (uint8_t)number};
    key->len = 0;
    key_put(key, id, sizeof(id));
    key_put(key, (const char *)bytes + skip, len - skip);
}

void record_key_late(struct record_key *key, const void *bytes, size_t len)
{
    record_key_store(key, bytes, len);
    memmove(key->bytes + 1, key->bytes, key->len);
    key->bytes[0] = RECORD_WORK_LATE_KEY;
    key->len++;
}

void record_key_work(struct record_key *key, uint8_t kind, uint64_t a)
{
    key->len = 0;
    key_put(key, &kind, 1);
    key_put_u64(key, a);
}

void record_key_work2(struct record_key *key, uint8_t kind, uint64_t a, uint64_t b)
{
    record_key_work(key, kind, a);
    key_put_u64(key, b);
}

void record_key_text(struct record_key *key, const char *text)
{
    key->len = 0;
    key_put(key, text, strlen(text));
}

void record_key_quota(struct record_key *key, uint64_t ino)
{
    record_key_text(key, RECORD_QUOTA_PREFIX);
    key_put_u64(key, ino);
}

void record_key_store_row(struct record_key *key, uint64_t number)
{
    record_key_text(key, RECORD_STORE_PREFIX);
    key_put_u64(key, number);
}

void record_key_place(struct record_key *key, uint64_t ino)
{
    record_key_text(key, RECORD_PLACE_PREFIX);
    key_put_u64(key, ino);
}

int record_key_next_prefix(struct record_key *key)
{
    while (key->len > 0 && key->bytes[key->len - 1] == 0xff)
        key->len--;
    if (key->len == 0)
        return -ENOENT;
    key->bytes[key->len - 1]++;
    return 0;
}

uint64_t record_get_u64(const uint8_t *bytes)
{
    uint64_t be;
    memcpy(&be, bytes, sizeof(be));
    return __builtin_bswap64(be);
}

static void version_check(struct reader *r)
{
    if (reader_u8(r) != VERSION)
        r->failed = true;
}

void record_inode_encode(struct buf *b, const struct record_inode *i)
{
    buf_put_u8(b, VERSION);
    buf_put_u32(b, i->mode);
    buf_put_u32(b, i->uid);
    buf_put_u32(b, i->gid);
    buf_put_u32(b, i->nlink);
    buf_put_u64(b, i->size);
    buf_put_u64(b, i->atime_ns);
    buf_put_u64(b, i->mtime_ns);
    buf_put_u64(b, i->ctime_ns);
    buf_put_u64(b, i->btime_ns);
    buf_put_varint(b, i->data_version);
    buf_put_varint(b, i->meta_version);
    buf_put_varint(b, i->flags);
    buf_put_varint(b, i->xattrs);
    buf_put_varint(b, i->due_ns);
    buf_put_varint(b, i->changed_ns);
    buf_put_varint(b, i->parent);
    buf_put_bytes(b, i->name, i->name_len);
    switch (i->mode & S_IFMT) {
    case S_IFREG:
        buf_put_u8(b, (uint8_t)i->body);
        buf_put_varint(b, i->extents);
        if (i->body == RECORD_BODY_OBJECT) {
            buf_put_varint(b, i->object);
            buf_put_varint(b, i->object_offset);
            buf_put_varint(b, i->object_length);
        }
        break;
    case S_IFDIR:
        buf_put_varint(b, i->children);
        buf_put_varint(b, i->listed_ns);
        buf_put_varint(b, i->usage.bytes);
        buf_put_varint(b, i->usage.files);
        buf_put_varint(b, i->usage.directories);
        break;
    case S_IFLNK:
        buf_put_bytes(b, i->target, i->target_len);
        break;
    default:
        buf_put_varint(b, i->rdev);
    }
}

static void inode_decode_type(struct reader *r, struct record_inode *out)
{
    size_t len = 0;
    switch (out->mode & S_IFMT) {
    case S_IFREG:
        out->body = reader_u8(r);
        if (out->body > RECORD_BODY_MANY)
            r->failed = true;
        out->extents = reader_varint(r);
        if (out->body == RECORD_BODY_OBJECT) {
            out->object = reader_varint(r);
            out->object_offset = reader_varint(r);
            out->object_length = reader_varint(r);
        }
        break;
    case S_IFDIR:
        out->children = reader_varint(r);
        out->listed_ns = reader_varint(r);
        out->usage.bytes = reader_varint(r);
        out->usage.files = reader_varint(r);
        out->usage.directories = reader_varint(r);
        break;
    case S_IFLNK:
        out->target = reader_bytes(r, META_SYMLINK_MAX, &len);
        out->target_len = (uint16_t)len;
        break;
    case S_IFIFO:
    case S_IFSOCK:
    case S_IFCHR:
    case S_IFBLK:
        out->rdev = reader_varint(r);
        break;
    default:
        r->failed = true;
    }
}

static uint32_t varint_u32(struct reader *r)
{
    uint64_t v = reader_varint(r);
    if (v > UINT32_MAX)
        r->failed = true;
    return (uint32_t)v;
}

int record_inode_decode(const void *data, size_t len, struct record_inode *out)
{
    struct reader r;
    reader_init(&r, data, len);
    memset(out, 0, sizeof(*out));
    version_check(&r);
    out->mode = reader_u32(&r);
    out->uid = reader_u32(&r);
    out->gid = reader_u32(&r);
    out->nlink = reader_u32(&r);
    out->size = reader_u64(&r);
    out->atime_ns = reader_u64(&r);
    out->mtime_ns = reader_u64(&r);
    out->ctime_ns = reader_u64(&r);
    out->btime_ns = reader_u64(&r);
    out->data_version = reader_varint(&r);
    out->meta_version = reader_varint(&r);
    out->flags = varint_u32(&r);
    out->xattrs = varint_u32(&r);
    out->due_ns = reader_varint(&r);
    out->changed_ns = reader_varint(&r);
    out->parent = reader_varint(&r);
    size_t name_len = 0;
    const uint8_t *name = reader_bytes(&r, META_NAME_MAX, &name_len);
    if (name && name_len)
        memcpy(out->name, name, name_len);
    out->name_len = (uint16_t)name_len;
    inode_decode_type(&r, out);
    return reader_end(&r);
}

void record_dentry_encode(uint8_t out[RECORD_DENTRY_LEN], const struct record_dentry *dentry)
{
    uint64_t be = __builtin_bswap64(dentry->ino);
    out[0] = VERSION;
    out[1] = (uint8_t)((dentry->type & S_IFMT) >> 12);
    memcpy(out + 2, &be, sizeof(be));
}

int record_dentry_decode(const void *data, size_t len, struct record_dentry *out)
{
    const uint8_t *bytes = data;
    if (len != RECORD_DENTRY_LEN || bytes[0] != VERSION)
        return -EBADMSG;
    out->type = (uint32_t)bytes[1] << 12;
    out->ino = record_get_u64(bytes + 2);
    return 0;
}

void record_extent_encode(struct buf *b, const struct meta_extent *e)
{
    buf_put_u8(b, VERSION);
    buf_put_u8(b, (uint8_t)e->kind);
    if (e->kind == META_EXTENT_OBJECT) {
        buf_put_varint(b, e->length);
        buf_put_varint(b, e->object);
        buf_put_varint(b, e->object_offset);
    } else {
        buf_put_bytes(b, e->data, e->length);
    }
}

int record_extent_decode(const void *data, size_t len, struct meta_extent *out)
{
    struct reader r;
    reader_init(&r, data, len);
    memset(out, 0, sizeof(*out));
    version_check(&r);
    out->kind = reader_u8(&r);
    if (out->kind == META_EXTENT_OBJECT) {
        out->length = reader_varint(&r);
        out->object = reader_varint(&r);
        out->object_offset = reader_varint(&r);
    } else if (out->kind == META_EXTENT_INLINE) {
        size_t n = 0;
        out->data = reader_bytes(&r, UINT32_MAX, &n);
        out->length = n;
    } else {
        r.failed = true;
    }
    return reader_end(&r);
}

void record_object_encode(struct buf *b, const struct record_object *o)
{
    buf_put_u8(b, VERSION);
    buf_put_u8(b, (uint8_t)o->state);
    bool has_class = o->changing || o->class_len;
    buf_put_u8(b, (uint8_t)(o->foreign | o->natural << 1 | o->shared << 2 | o->lost << 3 |
                            has_class << 4));
    buf_put_varint(b, o->refs);
    buf_put_varint(b, o->size);
    buf_put_varint(b, o->mtime_ns);
    buf_put_varint(b, o->cid);
    buf_put_varint(b, o->ino);
    buf_put_varint(b, o->due_ns);
    buf_put_varint(b, o->replaces);
    buf_put_bytes(b, o->key, o->key_len);
    buf_put_bytes(b, o->etag, o->etag_len);
    if (!has_class)
        return;
    buf_put_varint(b, o->changing);
    buf_put_bytes(b, o->class, o->class_len);
    buf_put_bytes(b, o->next_class, o->next_class_len);
}

int record_object_decode(const void *data, size_t len, struct record_object *out)
{
    struct reader r;
    reader_init(&r, data, len);
    memset(out, 0, sizeof(*out));
    version_check(&r);
    out->state = reader_u8(&r);
    if (out->state < META_OBJECT_RESERVED || out->state > META_OBJECT_GARBAGE)
        r.failed = true;
    uint8_t bits = reader_u8(&r);
    out->foreign = bits & 1;
    out->natural = bits & 2;
    out->shared = bits & 4;
    out->lost = bits & 8;
    out->refs = varint_u32(&r);
    out->size = reader_varint(&r);
    out->mtime_ns = reader_varint(&r);
    out->cid = reader_varint(&r);
    out->ino = reader_varint(&r);
    out->due_ns = reader_varint(&r);
    out->replaces = reader_varint(&r);
    out->key = (const char *)reader_bytes(&r, META_KEY_MAX, &out->key_len);
    out->etag = (const char *)reader_bytes(&r, META_ETAG_MAX - 1, &out->etag_len);
    if (bits & 16) {
        out->changing = reader_varint(&r);
        out->class = (const char *)reader_bytes(&r, META_CLASS_MAX, &out->class_len);
        out->next_class = (const char *)reader_bytes(&r, META_CLASS_MAX, &out->next_class_len);
        if (!out->changing && !out->class_len)
            r.failed = true;
    }
    return reader_end(&r);
}

void record_origin_encode(struct buf *b, const struct record_origin *origin)
{
    bool marker = origin->marker_etag_len > 0;
    buf_put_u8(b, marker ? VERSION_MARKER : VERSION);
    buf_put_bytes(b, origin->prefix, origin->prefix_len);
    if (!marker)
        return;
    buf_put_bytes(b, origin->marker_etag, origin->marker_etag_len);
    buf_put_varint(b, origin->marker_mtime_ns);
}

int record_origin_decode(const void *data, size_t len, struct record_origin *out)
{
    struct reader r;
    reader_init(&r, data, len);
    memset(out, 0, sizeof(*out));
    uint8_t version = reader_u8(&r);
    out->prefix = (const char *)reader_bytes(&r, META_KEY_MAX, &out->prefix_len);
    if (version == VERSION_MARKER) {
        out->marker_etag = (const char *)reader_bytes(&r, META_ETAG_MAX - 1, &out->marker_etag_len);
        out->marker_mtime_ns = reader_varint(&r);
    }
    if (version != VERSION && (version != VERSION_MARKER || !out->marker_etag_len))
        r.failed = true;
    return reader_end(&r);
}

void record_late_encode(struct buf *b, const struct record_late *late)
{
    buf_put_u8(b, VERSION);
    buf_put_varint(b, late->object);
    buf_put_varint(b, late->until_ns);
    buf_put_bytes(b, late->key, late->key_len);
}

int record_late_decode(const void *data, size_t len, struct record_late *out)
{
    struct reader r;
    reader_init(&r, data, len);
    version_check(&r);
    out->object = reader_varint(&r);
    out->until_ns = reader_varint(&r);
    out->key = (const char *)reader_bytes(&r, META_KEY_MAX, &out->key_len);
    return reader_end(&r);
}

void record_queue_encode(struct buf *b, const struct record_queue *queue)
{
    buf_put_u8(b, VERSION);
    buf_put_u8(b, queue->subtree);
    buf_put_varint(b, queue->since_ns);
    buf_put_bytes(b, queue->reason, MIN(queue->reason_len, RECORD_REASON_MAX));
}

int record_queue_decode(const void *data, size_t len, struct record_queue *out)
{
    struct reader r;
    reader_init(&r, data, len);
    version_check(&r);
    out->subtree = reader_u8(&r);
    out->since_ns = reader_varint(&r);
    out->reason = (const char *)reader_bytes(&r, RECORD_REASON_MAX, &out->reason_len);
    return reader_end(&r);
}

void record_step_encode(struct buf *b, const struct record_step *step)
{
    buf_put_u8(b, VERSION);
    buf_put_u8(b, (uint8_t)step->action);
    buf_put_u8(b, (uint8_t)(step->natural | step->replaces << 1));
    buf_put_varint(b, step->data_version);
    buf_put_varint(b, step->target);
    buf_put_varint(b, step->old_object);
    buf_put_bytes(b, step->old_etag, step->old_etag_len);
}

int record_step_decode(const void *data, size_t len, struct record_step *out)
{
    struct reader r;
    reader_init(&r, data, len);
    version_check(&r);
    out->action = reader_u8(&r);
    if (out->action > META_SETTLE_CLASS)
        r.failed = true;
    uint8_t bits = reader_u8(&r);
    out->natural = bits & 1;
    out->replaces = bits & 2;
    out->data_version = reader_varint(&r);
    out->target = reader_varint(&r);
    out->old_object = reader_varint(&r);
    out->old_etag = (const char *)reader_bytes(&r, META_ETAG_MAX - 1, &out->old_etag_len);
    return reader_end(&r);
}

void record_quota_encode(struct buf *b, const struct record_quota *quota)
{
    buf_put_u8(b, VERSION);
    buf_put_varint(b, quota->max_bytes);
    buf_put_varint(b, quota->max_inodes);
}

int record_quota_decode(const void *data, size_t len, struct record_quota *out)
{
    struct reader r;
    reader_init(&r, data, len);
    version_check(&r);
    out->max_bytes = reader_varint(&r);
    out->max_inodes = reader_varint(&r);
    return reader_end(&r);
}

void record_carry_encode(struct buf *b, const struct record_carry *c)
{
    buf_put_u8(b, VERSION);
    buf_put_varint(b, c->stamp);
    buf_put_varint(b, c->time_ns);
}

int record_carry_decode(const void *data, size_t len, struct record_carry *out)
{
    struct reader r;
    reader_init(&r, data, len);
    version_check(&r);
    out->stamp = reader_varint(&r);
    out->time_ns = reader_varint(&r);
    return reader_end(&r);
}

void record_counters_encode(struct buf *b, const struct record_counters *c)
{
    uint8_t version = c->markers ? VERSION_MARKERS : c->hot_count ? VERSION_HOT : VERSION;
    buf_put_u8(b, version);
    buf_put_varint(b, c->next_ino);
    buf_put_varint(b, c->next_object);
    buf_put_varint(b, c->applied);
    buf_put_varint(b, c->inodes);
    buf_put_varint(b, c->queued_files);
    buf_put_varint(b, c->queued_bytes);
    buf_put_varint(b, c->queued_subtrees);
    buf_put_varint(b, c->garbage_objects);
    buf_put_varint(b, c->garbage_bytes);
    buf_put_varint(b, c->last_ns);
    if (version != VERSION)
        buf_put_varint(b, c->hot_count);
    for (size_t i = 0; i < c->hot_count; i++) {
        buf_put_varint(b, c->hot[i].ino);
        buf_put_varint(b, c->hot[i].applied);
        buf_put_bytes(b, c->hot[i].bytes, c->hot[i].len);
    }
}

static void hot_decode(struct reader *r, struct record_counters *out)
{
    uint64_t count = reader_varint(r);
    if ((count == 0 && !out->markers) || count > RECORD_HOT_MAX)
        r->failed = true;
    for (uint64_t i = 0; !r->failed && i < count; i++) {
        struct record_hot *hot = &out->hot[i];
        hot->ino = reader_varint(r);
        hot->applied = reader_varint(r);
        const uint8_t *bytes = reader_bytes(r, RECORD_HOT_LEN, &hot->len);
        if (!bytes || (i > 0 && hot->ino <= hot[-1].ino))
            r->failed = true;
        else
            memcpy(hot->bytes, bytes, hot->len);
    }
    out->hot_count = r->failed ? 0 : (size_t)count;
}

int record_counters_decode(const void *data, size_t len, struct record_counters *out)
{
    struct reader r;
    reader_init(&r, data, len);
    uint8_t version = reader_u8(&r);
    if (version < VERSION || version > VERSION_MARKERS)
        r.failed = true;
    out->markers = version == VERSION_MARKERS;
    out->hot_count = 0;
    out->next_ino = reader_varint(&r);
    out->next_object = reader_varint(&r);
    out->applied = reader_varint(&r);
    out->inodes = reader_varint(&r);
    out->queued_files = reader_varint(&r);
    out->queued_bytes = reader_varint(&r);
    out->queued_subtrees = reader_varint(&r);
    out->garbage_objects = reader_varint(&r);
    out->garbage_bytes = reader_varint(&r);
    out->last_ns = reader_varint(&r);
    if (version != VERSION)
        hot_decode(&r, out);
    return reader_end(&r);
}

void record_volume_encode(struct buf *b, const struct meta_volume *v)
{
    buf_put_u8(b, VERSION);
    buf_put_str(b, v->id);
    buf_put_str(b, v->store);
    buf_put_str(b, v->prefix);
    buf_put_u32(b, v->inline_max);
    buf_put_u32(b, v->settle_delay_ms);
    buf_put_u32(b, v->gc_delay_ms);
    buf_put_u32(b, v->root_mode);
    buf_put_u32(b, v->root_uid);
    buf_put_u32(b, v->root_gid);
    buf_put_u8(b, v->file_beside_directory);
    buf_put_str(b, v->staging);
}

static void read_text(struct reader *r, char *out, size_t cap)
{
    size_t len = 0;
    const uint8_t *text = reader_bytes(r, cap - 1, &len);
    if (!text || memchr(text, 0, len)) {
        r->failed = true;
        len = 0;
    }
    if (len)
        memcpy(out, text, len);
    out[len] = '\0';
}

int record_volume_decode(const void *data, size_t len, struct meta_volume *out)
{
    struct reader r;
    reader_init(&r, data, len);
    memset(out, 0, sizeof(*out));
    version_check(&r);
    read_text(&r, out->id, sizeof(out->id));
    read_text(&r, out->store, sizeof(out->store));
    read_text(&r, out->prefix, sizeof(out->prefix));
    out->inline_max = reader_u32(&r);
    out->settle_delay_ms = reader_u32(&r);
    out->gc_delay_ms = reader_u32(&r);
    out->root_mode = reader_u32(&r);
    out->root_uid = reader_u32(&r);
    out->root_gid = reader_u32(&r);
    out->file_beside_directory = reader_u8(&r);
    read_text(&r, out->staging, sizeof(out->staging));
    return reader_end(&r);
}
