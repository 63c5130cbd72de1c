/* Where the names of a directory come from: the prefix that it was imported from, and the claim
 * that keeps others from taking it. */
#include <errno.h>
#include <string.h>

#include "engine_impl.h"

static int origin_get(struct engine_txn *t, uint64_t ino, struct record_origin *out)
{
    struct record_key key;
    const uint8_t *value;
    size_t value_len;
    record_key_u64(&key, ino);
    int rc = engine_txn_get(t, TABLE_ORIGIN, &key, &value, &value_len);
    if (rc < 0)
        return rc == -ENOENT ? -EIO : rc;
    return record_origin_decode(value, value_len, out) < 0 ? -EIO : 0;
}

static int origin_put(struct engine_txn *t, uint64_t ino, const struct record_origin *origin)
{
    struct record_key key;
    struct buf *b = engine_txn_scratch(t);
    record_origin_encode(b, origin);
    record_key_u64(&key, ino);
    return buf_error(b) ? -ENOMEM : engine_txn_put(t, TABLE_ORIGIN, &key, b->data, b->len);
}

int engine_origin_set(struct engine_txn *t, struct engine_node *dir, const char *prefix, size_t len)
{
    struct record_key key;
    uint8_t value[9] = {1};
    uint64_t be = __builtin_bswap64(dir->ino);
    struct record_origin origin = {.prefix = prefix, .prefix_len = len};
    int rc = origin_put(t, dir->ino, &origin);
    if (rc < 0)
        return rc;
    memcpy(value + 1, &be, sizeof(be));
    record_key_store(&key, prefix, len);
    dir->now.flags |= RECORD_ORIGIN;
    dir->dirty = true;
    return engine_txn_put(t, TABLE_CLAIM, &key, value, sizeof(value));
}

int engine_origin_prefix(struct engine_txn *t, uint64_t ino, const char **prefix, size_t *len)
{
    struct record_origin origin;
    int rc = origin_get(t, ino, &origin);
    if (rc < 0)
        return rc;
    *prefix = origin.prefix;
    *len = origin.prefix_len;
    return 0;
}

int engine_origin_drop(struct engine_txn *t, struct engine_node *dir)
{
    const char *prefix;
    size_t len;
    struct record_key key;
    uint64_t owner = 0;
    if (!(dir->now.flags & RECORD_ORIGIN))
        return 0;
    int rc = engine_origin_prefix(t, dir->ino, &prefix, &len);
    if (rc == 0)
        rc = engine_claim_get(t, prefix, len, &owner);
    if (rc == 0 && owner == dir->ino) {
        record_key_store(&key, prefix, len);
        rc = engine_txn_delete(t, TABLE_CLAIM, &key);
    }
    if (rc == 0) {
        record_key_u64(&key, dir->ino);
        rc = engine_txn_delete(t, TABLE_ORIGIN, &key);
    }
    dir->now.flags &= ~(uint32_t)RECORD_ORIGIN;
    dir->now.listed_ns = 0;
    dir->dirty = true;
    return rc;
}

int engine_origin_marker(struct engine_txn *t, struct engine_node *dir,
                         const struct meta_object *seen)
{
    struct record_origin origin;
    int rc = origin_get(t, dir->ino, &origin);
    if (rc < 0)
        return rc;
    /* The marker of a whole store is nobody's to delete; without ETag and time it cannot be told
     * from one that was put again. */
    if (seen && (!seen->etag[0] || !seen->mtime_ns || seen->size ||
                 origin.prefix_len == engine_key_base(t->engine, origin.prefix, origin.prefix_len)))
        seen = NULL;
    size_t etag_len = seen ? strnlen(seen->etag, META_ETAG_MAX - 1) : 0;
    if (etag_len == origin.marker_etag_len &&
        (!seen || (!memcmp(seen->etag, origin.marker_etag, etag_len) &&
                   seen->mtime_ns == origin.marker_mtime_ns)))
        return 0;
    struct record_origin next = {.prefix = origin.prefix, .prefix_len = origin.prefix_len};
    if (seen) {
        next.marker_etag = seen->etag;
        next.marker_etag_len = etag_len;
        next.marker_mtime_ns = seen->mtime_ns;
        t->counters.markers = true;
    }
    return origin_put(t, dir->ino, &next);
}

int engine_origin_marker_discard(struct engine_txn *t, struct engine_node *dir)
{
    struct record_origin origin;
    struct record_object object;
    uint64_t owner, id;
    if (!(dir->now.flags & RECORD_ORIGIN))
        return 0;
    int rc = origin_get(t, dir->ino, &origin);
    if (rc < 0 || !origin.marker_etag_len)
        return rc;
    rc = engine_claim_get(t, origin.prefix, origin.prefix_len, &owner);
    if (rc < 0 || owner != dir->ino)
        return rc;
    rc = engine_key_holder(t, origin.prefix, origin.prefix_len, &id);
    if (rc < 0)
        return rc;
    if (id) {
        /* One before it waits for gc: it was put again since. */
        rc = engine_object_get(t, id, &object);
        object.mtime_ns = origin.marker_mtime_ns;
        object.etag = origin.marker_etag;
        object.etag_len = origin.marker_etag_len;
        return rc < 0 ? rc : engine_object_put(t, id, &object);
    }
    id = t->counters.next_object++;
    object = (struct record_object){.state = META_OBJECT_LIVE,
                                    .foreign = true,
                                    .natural = true,
                                    .mtime_ns = origin.marker_mtime_ns,
                                    .cid = id,
                                    .ino = dir->ino,
                                    .key = origin.prefix,
                                    .key_len = origin.prefix_len,
                                    .etag = origin.marker_etag,
                                    .etag_len = origin.marker_etag_len};
    rc = engine_key_put(t, object.key, object.key_len, id);
    return rc < 0 ? rc : engine_object_discard(t, id, &object);
}

int engine_origin_at_home(struct engine_txn *t, struct engine_node *dir)
{
    char key[META_KEY_MAX + 1];
    size_t len;
    uint64_t owner;
    int rc = engine_key_natural(t, dir, key, &len);
    if (rc <= 0 || len >= META_KEY_MAX)
        return rc < 0 ? rc : 0;
    key[len++] = '/';
    rc = engine_claim_get(t, key, len, &owner);
    if (rc < 0 || (owner && owner != dir->ino))
        return rc;
    rc = engine_origin_set(t, dir, arena_copy(&t->arena, key, len), len);
    return rc < 0 ? rc : 1;
}
