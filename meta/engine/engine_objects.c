/*
 * Objects, their keys, and the right to write a key.
 *
 * The key table says which object of ours a key of the bucket belongs to: from the moment it is
 * reserved until gc has deleted it. So a natural key is ours to write if no object of ours holds it
 * and no directory that was imported from there and has moved away still owns what is below that
 * prefix; what a foreigner put there since is left to the conditional request (I2).
 */
#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "engine_impl.h"

#define DEPTH_MAX (META_KEY_MAX / 2 + 1)

int engine_object_get(struct engine_txn *t, uint64_t id, struct record_object *out)
{
    struct record_key key;
    const uint8_t *value;
    size_t len;
    record_key_u64(&key, id);
    int rc = engine_txn_get(t, TABLE_OBJECT, &key, &value, &len);
    if (rc < 0)
        return rc;
    return record_object_decode(value, len, out) < 0 ? -EIO : 0;
}

int engine_object_put(struct engine_txn *t, uint64_t id, const struct record_object *object)
{
    struct record_key key;
    record_key_u64(&key, id);
    struct buf *b = engine_txn_scratch(t);
    record_object_encode(b, object);
    return buf_error(b) ? -ENOMEM : engine_txn_put(t, TABLE_OBJECT, &key, b->data, b->len);
}

void engine_object_export(uint64_t id, const struct record_object *object, struct meta_object *out)
{
    memset(out, 0, sizeof(*out));
    out->id = id;
    out->state = object->state;
    out->foreign = object->foreign;
    memcpy(out->key, object->key, object->key_len);
    memcpy(out->etag, object->etag, object->etag_len);
    out->size = object->size;
    out->mtime_ns = object->mtime_ns;
    out->cid = object->cid;
    out->refs = object->refs;
    out->changing = object->changing;
}

int engine_key_holder(struct engine_txn *t, const char *key, size_t len, uint64_t *id)
{
    struct record_key k;
    const uint8_t *value;
    size_t value_len;
    record_key_store(&k, key, len);
    int rc = engine_txn_get(t, TABLE_KEY, &k, &value, &value_len);
    *id = 0;
    if (rc == -ENOENT)
        return 0;
    if (rc == 0 && value_len != 9)
        rc = -EIO;
    if (rc == 0)
        *id = record_get_u64(value + 1);
    return rc;
}

int engine_key_put(struct engine_txn *t, const char *key, size_t len, uint64_t id)
{
    struct record_key k;
    uint8_t value[9] = {1};
    uint64_t be = __builtin_bswap64(id);
    memcpy(value + 1, &be, sizeof(be));
    record_key_store(&k, key, len);
    return engine_txn_put(t, TABLE_KEY, &k, value, sizeof(value));
}

int engine_key_delete(struct engine_txn *t, const char *key, size_t len)
{
    struct record_key k;
    record_key_store(&k, key, len);
    return engine_txn_delete(t, TABLE_KEY, &k);
}

static int reserved_row(struct engine_txn *t, uint64_t id, bool put)
{
    struct record_key key;
    record_key_work(&key, RECORD_WORK_RESERVED, id);
    return put ? engine_txn_put(t, TABLE_WORK, &key, "\x01", 1)
               : engine_txn_delete(t, TABLE_WORK, &key);
}

/* Moves an object in the gc queue; due_ns 0: out of it. The record is the caller's to put. */
static int gc_move(struct engine_txn *t, uint64_t id, struct record_object *object, uint64_t due_ns)
{
    struct record_key key;
    int rc = 0;
    if (object->due_ns) {
        record_key_work2(&key, RECORD_WORK_GC, object->due_ns, id);
        rc = engine_txn_delete(t, TABLE_WORK, &key);
    }
    object->due_ns = due_ns;
    if (rc == 0 && due_ns) {
        record_key_work2(&key, RECORD_WORK_GC, due_ns, id);
        t->queued_ns[ENGINE_QUEUE_GC] = MIN(t->queued_ns[ENGINE_QUEUE_GC], due_ns);
        rc = engine_txn_put(t, TABLE_WORK, &key, "\x01", 1);
    }
    return rc;
}

int engine_object_requeue(struct engine_txn *t, uint64_t id, struct record_object *object,
                          uint64_t due_ns)
{
    int rc = gc_move(t, id, object, due_ns);
    return rc < 0 ? rc : engine_object_put(t, id, object);
}

int engine_object_discard(struct engine_txn *t, uint64_t id, struct record_object *object)
{
    /* Nothing in the store is this object's. */
    if (object->lost)
        return engine_object_forget(t, id, object);
    const struct meta_store *store = engine_key_store(t->engine, object->key, object->key_len);
    if (store && store->detaching)
        return engine_object_forget(t, id, object);
    int rc = object->state == META_OBJECT_RESERVED ? reserved_row(t, id, false) : 0;
    if (rc < 0)
        return rc;
    object->state = META_OBJECT_GARBAGE;
    t->counters.garbage_objects++;
    t->counters.garbage_bytes += object->size;
    /* What must not be deleted is kept as known, so that no listing brings the name back. */
    if (store && store->read_only)
        return engine_object_requeue(t, id, object, 0);
    uint64_t delay_ns = (uint64_t)t->engine->volume.gc_delay_ms * 1000000;
    return engine_object_requeue(t, id, object, t->time_ns + delay_ns);
}

/* Rows (object, ino) of a shared object. */
static int share_rows_drop(struct engine_txn *t, uint64_t id)
{
    struct record_key key;
    struct engine_iter iter;
    const uint8_t *k;
    size_t k_len;
    int rc;
    record_key_u64(&key, id);
    engine_iter_init(&iter, t->engine, NULL, TABLE_OBJECT, &key, NULL, key.len);
    while ((rc = engine_iter_get(&iter, &k, &k_len, NULL, NULL)) > 0) {
        if (k_len == 16) {
            record_key_u64x2(&key, id, record_get_u64(k + 8));
            rc = engine_txn_delete(t, TABLE_OBJECT, &key);
            if (rc < 0)
                break;
        }
        engine_iter_next(&iter);
    }
    engine_iter_done(&iter);
    return rc;
}

int engine_object_forget(struct engine_txn *t, uint64_t id, const struct record_object *object)
{
    struct record_object gone = *object;
    struct record_key key;
    uint64_t holder;
    int rc = gc_move(t, id, &gone, 0);
    if (rc == 0 && object->state == META_OBJECT_RESERVED)
        rc = reserved_row(t, id, false);
    if (rc == 0)
        rc = engine_key_holder(t, object->key, object->key_len, &holder);
    if (rc == 0 && holder == id)
        rc = engine_key_delete(t, object->key, object->key_len);
    if (rc == 0 && object->shared)
        rc = share_rows_drop(t, id);
    if (rc == 0)
        rc = engine_late_note(t, id, object);
    if (rc < 0)
        return rc;
    if (object->state == META_OBJECT_GARBAGE) {
        t->counters.garbage_objects--;
        t->counters.garbage_bytes -= object->size;
    }
    record_key_u64(&key, id);
    rc = engine_txn_delete(t, TABLE_OBJECT, &key);
    if (rc < 0 || !object->replaces)
        return rc;
    /* The garbage that was to be overwritten is collected by itself after all. */
    struct record_object old;
    rc = engine_object_get(t, object->replaces, &old);
    if (rc == 0 && old.state == META_OBJECT_GARBAGE && !old.due_ns)
        rc = engine_object_requeue(t, object->replaces, &old, t->time_ns);
    return rc == -ENOENT ? 0 : rc;
}

int engine_object_written(struct engine_txn *t, const struct meta_object *written, uint64_t ino,
                          struct record_object *object)
{
    size_t etag_len = strnlen(written->etag, META_ETAG_MAX);
    if (etag_len >= META_ETAG_MAX)
        return -EINVAL;
    object->state = META_OBJECT_LIVE;
    object->size = written->size;
    object->etag = written->etag;
    object->etag_len = etag_len;
    object->mtime_ns = t->time_ns;
    object->ino = ino;
    if (!object->cid)
        object->cid = written->id;
    int rc = reserved_row(t, written->id, false);
    return rc < 0 ? rc : engine_object_put(t, written->id, object);
}

int engine_object_lost(struct engine_txn *t, uint64_t id)
{
    struct record_object object;
    uint64_t holder;
    int rc = engine_object_get(t, id, &object);
    if (rc == 0)
        rc = engine_key_holder(t, object.key, object.key_len, &holder);
    if (rc == 0 && holder == id)
        rc = engine_key_delete(t, object.key, object.key_len);
    object.lost = true;
    return rc < 0 ? rc : engine_object_put(t, id, &object);
}

/* Notes that nobody has these bytes any more: nor another object, where settle has copied them. */
static int note_gone(struct engine_txn *t, uint64_t id, const struct record_object *object)
{
    struct record_object first;
    if (!object->cid || object->cid == t->kept_cid || t->gone_count == META_GONE_MAX)
        return 0;
    if ((t->gone_count & (t->gone_count - 1)) == 0) {
        uint64_t *more = realloc(t->gone, MAX(2 * t->gone_count, 1u) * sizeof(*more));
        if (!more)
            return 0;
        t->gone = more;
    }
    int rc = object->cid == id ? -ENOENT : engine_object_get(t, object->cid, &first);
    if (rc == 0 && first.state == META_OBJECT_LIVE)
        return 0;
    if (rc < 0 && rc != -ENOENT)
        return rc;
    t->gone[t->gone_count++] = object->cid;
    return 0;
}

int engine_object_ref(struct engine_txn *t, uint64_t id, int64_t delta, uint64_t ino)
{
    struct record_object object;
    int rc = engine_object_get(t, id, &object);
    if (rc < 0)
        return rc == -ENOENT ? -EIO : rc;
    int64_t refs = (int64_t)object.refs + delta;
    if (refs < 0 || refs > UINT32_MAX || object.state == META_OBJECT_RESERVED)
        return -EIO;
    object.refs = (uint32_t)refs;
    if (refs > 0 || object.state != META_OBJECT_LIVE)
        return engine_object_put(t, id, &object);
    rc = note_gone(t, id, &object);
    return rc < 0 ? rc : engine_object_discard(t, id, &object);
}

int engine_object_share(struct engine_txn *t, uint64_t id, uint64_t ino)
{
    struct record_object object;
    struct record_key key;
    int rc = engine_object_get(t, id, &object);
    if (rc < 0 || object.ino == ino)
        return rc;
    object.shared = true;
    rc = engine_object_put(t, id, &object);
    record_key_u64x2(&key, id, ino);
    return rc < 0 ? rc : engine_txn_put(t, TABLE_OBJECT, &key, "\x01", 1);
}

static bool utf8_continues(const uint8_t *p, const uint8_t *end, int more)
{
    if (end - p < more)
        return false;
    for (int i = 0; i < more; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return false;
    }
    return true;
}

/* A name that every store and XML listing can carry: UTF-8 without control characters. */
static bool name_can_be_key(const uint8_t *p, size_t len)
{
    const uint8_t *end = p + len;
    while (p < end) {
        uint8_t c = *p++;
        if (c >= 0x20 && c < 0x7f)
            continue;
        uint32_t code;
        int more;
        if (c >= 0xc2 && c <= 0xdf) {
            more = 1;
            code = c & 0x1f;
        } else if (c >= 0xe0 && c <= 0xef) {
            more = 2;
            code = c & 0x0f;
        } else if (c >= 0xf0 && c <= 0xf4) {
            more = 3;
            code = c & 0x07;
        } else {
            return false;
        }
        if (!utf8_continues(p, end, more))
            return false;
        for (int i = 0; i < more; i++)
            code = code << 6 | (*p++ & 0x3f);
        static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
        if (code < least[more] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000) ||
            code < 0xa0 || (code & 0xfffe) == 0xfffe)
            return false;
    }
    return true;
}

static bool is_staging(const struct meta_volume *volume, const uint8_t *name, size_t len)
{
    char text[META_NAME_MAX + 1];
    memcpy(text, name, len);
    text[len] = '\0';
    for (const char *p = volume->staging; *p;) {
        const char *end = strchrnul(p, ':');
        size_t n = (size_t)(end - p);
        char pattern[sizeof(volume->staging)];
        /* Most patterns begin with a letter that most names do not begin with. */
        if (n > 0 && (p[0] == text[0] || strchr("*?[\\", p[0]))) {
            memcpy(pattern, p, n);
            pattern[n] = '\0';
            if (fnmatch(pattern, text, 0) == 0)
                return true;
        }
        p = *end ? end + 1 : end;
    }
    return false;
}

/* The names from the directory that stands for a store's prefix down to the node, joined by '/', at
 * the end of `room`: where they begin; 0 if they cannot be a key. *place: what was found on the way
 * up. `class`: what the nearest that is about the class says. */
static int join_names(struct engine_txn *t, struct engine_node *node, char room[META_KEY_MAX],
                      size_t *begin, struct record_place *place, char class[META_CLASS_MAX + 1])
{
    const struct meta_volume *volume = &t->engine->volume;
    size_t at = META_KEY_MAX;
    const struct engine_node *self = node;
    bool placed = false;
    *place = (struct record_place){0};
    class[0] = '\0';
    *begin = at;
    for (;;) {
        if (node->now.flags & RECORD_PLACE) {
            struct record_place found;
            int rc = engine_place_get(t, node, &found);
            if (rc < 0)
                return rc;
            bool binds = engine_place_binds(t, &found, self);
            if (binds && !found.class[0] && !placed) {
                *place = found;
                placed = true;
            } else if (binds && found.class[0] && !found.paused && !placed && !class[0]) {
                strcpy(class, found.class);
            }
        }
        if (node->ino == META_ROOT_INO || (placed && place->attached))
            break;
        const struct record_inode *inode = &node->now;
        size_t slash = at < META_KEY_MAX;
        if (inode->parent == 0 || inode->name_len + slash > at ||
            is_staging(volume, inode->name, inode->name_len) ||
            !name_can_be_key(inode->name, inode->name_len))
            return 0;
        if (slash)
            room[--at] = '/';
        at -= inode->name_len;
        memcpy(room + at, inode->name, inode->name_len);
        int rc = engine_txn_inode(t, inode->parent, &node);
        if (rc < 0)
            return rc == -ENOENT ? -EIO : rc;
    }
    *begin = at;
    return at < META_KEY_MAX;
}

int engine_key_natural(struct engine_txn *t, struct engine_node *node, char *key, size_t *len)
{
    char class[META_CLASS_MAX + 1];
    return engine_key_and_class(t, node, key, len, class);
}

int engine_key_and_class(struct engine_txn *t, struct engine_node *node, char *key, size_t *len,
                         char class[META_CLASS_MAX + 1])
{
    static const char internal[] = ".sluice";
    char room[META_KEY_MAX], base[META_KEY_MAX + 8];
    struct record_place place;
    size_t begin;
    if (node->now.flags & RECORD_HELD)
        return 0;
    int rc = join_names(t, node, room, &begin, &place, class);
    if (rc <= 0)
        return rc;
    size_t path_len = META_KEY_MAX - begin, own = sizeof(internal) - 1;
    if (path_len >= own && memcmp(room + begin, internal, own) == 0 &&
        (path_len == own || room[begin + own] == '/'))
        return 0;
    const struct meta_store *store = t->engine->stores.known[place.store];
    if (store && (store->read_only || store->detaching))
        return 0;
    int base_len = engine_store_base(t->engine, (unsigned)place.store, base);
    if (base_len < 0 || (size_t)base_len + path_len > META_KEY_MAX)
        return 0;
    memcpy(key, base, (size_t)base_len);
    memcpy(key + base_len, room + begin, path_len);
    *len = (size_t)base_len + path_len;
    key[*len] = '\0';
    return 1;
}

int engine_key_below(struct engine_txn *t, const char *prefix, size_t len, uint64_t *id)
{
    struct record_key key;
    struct engine_iter iter;
    const uint8_t *k, *v;
    size_t k_len, v_len;
    record_key_store(&key, prefix, len);
    engine_iter_init(&iter, t->engine, NULL, TABLE_KEY, &key, NULL, key.len);
    int rc = engine_iter_get(&iter, &k, &k_len, &v, &v_len);
    if (rc > 0 && v_len != 9)
        rc = -EIO;
    if (rc > 0)
        *id = record_get_u64(v + 1);
    engine_iter_done(&iter);
    return rc;
}

int engine_claim_get(struct engine_txn *t, const char *prefix, size_t len, uint64_t *ino)
{
    struct record_key key;
    const uint8_t *value;
    size_t value_len;
    record_key_store(&key, prefix, len);
    int rc = engine_txn_get(t, TABLE_CLAIM, &key, &value, &value_len);
    *ino = 0;
    if (rc == -ENOENT)
        return 0;
    if (rc == 0 && value_len != 9)
        rc = -EIO;
    if (rc == 0)
        *ino = record_get_u64(value + 1);
    return rc;
}

/* The directories above a node, the root first. */
static int chain_of(struct engine_txn *t, const struct engine_node *node, uint64_t chain[DEPTH_MAX],
                    size_t *depth)
{
    size_t n = 0;
    for (uint64_t dir = node->now.parent; dir != 0;) {
        struct engine_node *up;
        int rc = n < DEPTH_MAX ? engine_txn_inode(t, dir, &up) : -ENAMETOOLONG;
        if (rc < 0)
            return rc;
        chain[n++] = dir;
        dir = up->now.parent;
    }
    for (size_t i = 0; i < n / 2; i++) {
        uint64_t swap = chain[i];
        chain[i] = chain[n - 1 - i];
        chain[n - 1 - i] = swap;
    }
    *depth = n;
    return 0;
}

int engine_key_claimed(struct engine_txn *t, struct engine_node *node, const char *key, size_t len)
{
    uint64_t chain[DEPTH_MAX], owner;
    size_t depth;
    int rc = chain_of(t, node, chain, &depth);
    if (rc < 0)
        return rc;
    struct engine_home home;
    size_t i = engine_key_base(t->engine, key, len), level = 0;
    rc = engine_home(t, node, &home);
    if (rc < 0)
        return rc;
    while (level < depth && chain[level] != home.top)
        level++;
    for (;; level++) {
        /* key[0, i) is the natural prefix of chain[level]. */
        rc = engine_claim_get(t, key, i, &owner);
        if (rc < 0 || (owner && (level >= depth || owner != chain[level])))
            return rc < 0 ? rc : 1;
        const char *slash = memchr(key + i, '/', len - i);
        if (!slash)
            return 0;
        i = (size_t)(slash - key) + 1;
    }
}

int engine_key_neighbour(struct engine_txn *t, const char *key, size_t len, uint64_t *id)
{
    *id = 0;
    if (engine_beside(t->engine, key, len))
        return 0;
    for (size_t i = engine_key_base(t->engine, key, len); i < len; i++) {
        if (key[i] != '/')
            continue;
        int rc = engine_key_holder(t, key, i, id);
        if (rc < 0 || *id)
            return rc < 0 ? rc : 1;
    }
    char below[META_KEY_MAX + 2];
    memcpy(below, key, len);
    below[len] = '/';
    return engine_key_below(t, below, len + 1, id);
}

int engine_key_free(struct engine_txn *t, struct engine_node *node, const char *key, size_t len)
{
    uint64_t id;
    int rc = engine_key_claimed(t, node, key, len);
    if (rc == 0)
        rc = engine_key_neighbour(t, key, len, &id);
    return rc < 0 ? rc : !rc;
}

int engine_object_reserve(struct engine_txn *t, struct engine_node *node, const char *key,
                          size_t len, uint64_t *id, struct record_object *out)
{
    char internal[META_KEY_MAX + 64], base[META_KEY_MAX + 8];
    *id = t->counters.next_object++;
    *out = (struct record_object){.state = META_OBJECT_RESERVED, .ino = node->ino, .natural = key};
    if (!key) {
        struct engine_home home;
        int got = engine_home(t, node, &home);
        if (got == 0)
            got = engine_store_base(t->engine, home.writable ? home.store : 0, base);
        if (got < 0)
            return got;
        /* With a part of the volume's id: another volume had this prefix before, or will have. */
        int n = snprintf(internal, sizeof(internal), "%s.sluice/o/%.8s/%02x/%016llx", base,
                         t->engine->volume.id, (unsigned)(*id & 0xff), (unsigned long long)*id);
        key = internal;
        len = (size_t)n;
    }
    out->key = arena_copy(&t->arena, key, len);
    out->key_len = len;
    out->etag = "";
    if (!out->key)
        return -ENOMEM;
    int rc = engine_object_put(t, *id, out);
    return rc < 0 ? rc : reserved_row(t, *id, true);
}

int engine_apply_reserve(struct engine_txn *t, const struct meta_op *op, struct meta_reply *reply)
{
    struct engine_node *node;
    struct record_object object;
    char key[META_KEY_MAX + 1];
    size_t len = 0;
    uint64_t id;
    int rc = engine_txn_inode(t, op->ino, &node);
    if (rc < 0)
        return rc;
    if (!S_ISREG(node->now.mode))
        return S_ISDIR(node->now.mode) ? -EISDIR : -EINVAL;
    bool internal = op->flags & META_INTERNAL_KEY || node->now.nlink == 0;
    int natural = internal ? 0 : engine_key_natural(t, node, key, &len);
    if (natural > 0) {
        natural = engine_key_holder(t, key, len, &id);
        if (natural == 0)
            natural = id ? 0 : engine_key_free(t, node, key, len);
    }
    if (natural < 0)
        return natural;
    rc = engine_object_reserve(t, node, natural ? key : NULL, len, &id, &object);
    if (rc == 0)
        rc = engine_key_put(t, object.key, object.key_len, id);
    reply->objects = meta_reply_alloc(reply, sizeof(*reply->objects));
    if (rc < 0 || !reply->objects)
        return rc < 0 ? rc : -ENOMEM;
    reply->object_count = 1;
    engine_object_export(id, &object, reply->objects);
    return 0;
}

int engine_apply_abandon(struct engine_txn *t, const struct meta_op *op, struct meta_reply *reply)
{
    struct record_object object;
    int rc = engine_object_get(t, op->object, &object);
    if (rc < 0)
        return rc;
    if (object.state != META_OBJECT_RESERVED)
        return -EINVAL;
    return op->flags & META_NOT_WRITTEN ? engine_object_forget(t, op->object, &object)
                                        : engine_object_discard(t, op->object, &object);
}

int engine_apply_gc_done(struct engine_txn *t, const struct meta_op *op, struct meta_reply *reply)
{
    for (size_t i = 0; i < op->ino_count; i++) {
        struct record_object object;
        int rc = engine_object_get(t, op->inos[i], &object);
        if (rc == -ENOENT)
            continue;
        /* One that settle has meanwhile taken out of the queue, to write over it, goes with that
         * step: its key is the step's. */
        if (rc == 0 && object.state == META_OBJECT_GARBAGE && object.due_ns)
            rc = engine_object_forget(t, op->inos[i], &object);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int engine_apply_gc_retry(struct engine_txn *t, const struct meta_op *op, struct meta_reply *reply)
{
    struct record_object object;
    int rc = engine_object_get(t, op->object, &object);
    if (rc < 0)
        return rc;
    if (object.state != META_OBJECT_GARBAGE || !object.due_ns)
        return -EINVAL;
    return engine_object_requeue(t, op->object, &object, MAX(op->attr.mtime_ns, 1));
}
