/* Where the names of a directory come from: the prefix that it was imported from, and the claim
 * that keeps others from taking it. */
#include <errno.h>
#include <string.h>

#include "engine_impl.h"

int engine_origin_set(struct engine_txn *t, struct engine_node *dir, const char *prefix, size_t len)
{
    struct record_key key;
    uint8_t value[9] = {1};
    uint64_t be = __builtin_bswap64(dir->ino);
    struct record_origin origin = {.prefix = prefix, .prefix_len = len};
    struct buf *b = engine_txn_scratch(t);
    record_origin_encode(b, &origin);
    record_key_u64(&key, dir->ino);
    int rc = buf_error(b) ? -ENOMEM : engine_txn_put(t, TABLE_ORIGIN, &key, b->data, b->len);
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
    struct record_key key;
    struct record_origin origin;
    const uint8_t *value;
    size_t value_len;
    record_key_u64(&key, ino);
    int rc = engine_txn_get(t, TABLE_ORIGIN, &key, &value, &value_len);
    if (rc < 0)
        return rc == -ENOENT ? -EIO : rc;
    if (record_origin_decode(value, value_len, &origin) < 0)
        return -EIO;
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
