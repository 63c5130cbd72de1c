/* Every record against the others. Slow and thorough: for fsck and tests, beside no apply. */
#include <errno.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "engine_impl.h"

struct check {
    struct engine *engine;
    void (*report)(void *arg, const char *text);
    void *arg;
    int found;
    struct buf refs; /* object ids, one for each extent */
    struct record_counters counted, recorded;
};

__attribute__((format(printf, 2, 3))) static void bad(struct check *c, const char *fmt, ...)
{
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    c->found++;
    if (c->report)
        c->report(c->arg, text);
}

/* A record as a copy in the arena; false (and *rc) if it is absent or unreadable. */
static bool get(struct check *c, enum engine_table table, const struct record_key *key,
                struct arena *arena, const uint8_t **value, size_t *len)
{
    return engine_db_copy(c->engine, NULL, table, key, arena, value, len) == 0;
}

static const struct record_hot *hot_of(const struct check *c, uint64_t ino)
{
    for (size_t i = 0; i < c->recorded.hot_count; i++) {
        if (c->recorded.hot[i].ino == ino)
            return &c->recorded.hot[i];
    }
    return NULL;
}

static bool get_inode(struct check *c, uint64_t ino, struct arena *arena, struct record_inode *out)
{
    struct record_key key;
    const uint8_t *value;
    size_t len;
    const struct record_hot *hot = hot_of(c, ino);
    if (hot)
        return record_inode_decode(hot->bytes, hot->len, out) == 0;
    record_key_u64(&key, ino);
    return get(c, TABLE_INODE, &key, arena, &value, &len) &&
           record_inode_decode(value, len, out) == 0;
}

static bool get_object(struct check *c, uint64_t id, struct arena *arena, struct record_object *out)
{
    struct record_key key;
    const uint8_t *value;
    size_t len;
    record_key_u64(&key, id);
    return get(c, TABLE_OBJECT, &key, arena, &value, &len) &&
           record_object_decode(value, len, out) == 0;
}

static bool is_there(struct check *c, enum engine_table table, const struct record_key *key)
{
    struct arena arena = {0};
    const uint8_t *value;
    size_t len;
    bool there = get(c, table, key, &arena, &value, &len);
    arena_done(&arena);
    return there;
}

/* Calls each(c, key, value) for all records of a table that begin with `prefix` (NULL: all). The
 * arena is emptied after each. */
typedef void (*each_fn)(struct check *c, const uint8_t *k, size_t k_len, const uint8_t *v,
                        size_t v_len, struct arena *arena, void *arg);

static int walk(struct check *c, enum engine_table table, const struct record_key *prefix,
                each_fn each, void *arg)
{
    static const struct record_key first = {.len = 0};
    struct engine_iter iter;
    struct arena arena = {0};
    const uint8_t *k, *v;
    size_t k_len, v_len;
    int rc;
    engine_iter_init(&iter, c->engine, NULL, table, prefix ? prefix : &first, NULL,
                     prefix ? prefix->len : 0);
    while ((rc = engine_iter_get(&iter, &k, &k_len, &v, &v_len)) > 0) {
        each(c, k, k_len, v, v_len, &arena, arg);
        arena_reset(&arena);
        engine_iter_next(&iter);
    }
    engine_iter_done(&iter);
    arena_done(&arena);
    return rc;
}

struct dir_sum {
    uint64_t ino, children, subdirs;
    struct meta_usage usage;
};

static void sum_name(struct check *c, const uint8_t *k, size_t k_len, const uint8_t *v,
                     size_t v_len, struct arena *arena, void *arg)
{
    struct dir_sum *sum = arg;
    struct record_dentry dentry;
    struct record_inode inode;
    struct meta_usage usage;
    struct record_key key;
    if (k_len <= 8 || record_dentry_decode(v, v_len, &dentry) < 0) {
        bad(c, "directory %" PRIu64 ": unreadable name", sum->ino);
        return;
    }
    int name_len = (int)k_len - 8;
    const char *name = (const char *)k + 8;
    sum->children++;
    if (!get_inode(c, dentry.ino, arena, &inode)) {
        bad(c, "name %.*s in %" PRIu64 ": inode %" PRIu64 " is missing", name_len, name, sum->ino,
            dentry.ino);
        return;
    }
    if ((inode.mode & S_IFMT) != dentry.type)
        bad(c, "name %.*s in %" PRIu64 ": type differs from inode %" PRIu64, name_len, name,
            sum->ino, dentry.ino);
    record_key_link(&key, dentry.ino, sum->ino, k + 8, k_len - 8);
    bool first = inode.parent == sum->ino && inode.name_len == k_len - 8 &&
                 memcmp(inode.name, k + 8, k_len - 8) == 0;
    if (first == is_there(c, TABLE_LINK, &key))
        bad(c, "name %.*s in %" PRIu64 ": inode %" PRIu64 " %s", name_len, name, sum->ino,
            dentry.ino, first ? "has it twice" : "does not know it");
    engine_usage_of(&inode, &usage);
    sum->usage.bytes += usage.bytes;
    sum->usage.files += usage.files;
    sum->usage.directories += usage.directories;
    sum->subdirs += S_ISDIR(inode.mode);
}

static int check_dir(struct check *c, uint64_t ino, const struct record_inode *inode,
                     struct arena *arena)
{
    struct dir_sum sum = {.ino = ino};
    struct record_key key;
    const uint8_t *value;
    size_t len;
    record_key_u64(&key, ino);
    int rc = walk(c, TABLE_DENTRY, &key, sum_name, &sum);
    if (sum.children != inode->children)
        bad(c, "directory %" PRIu64 ": %" PRIu64 " names, %" PRIu64 " recorded", ino, sum.children,
            inode->children);
    if (inode->nlink && inode->nlink != sum.subdirs + 2)
        bad(c, "directory %" PRIu64 ": nlink %u, %" PRIu64 " directories", ino, inode->nlink,
            sum.subdirs);
    if (memcmp(&sum.usage, &inode->usage, sizeof(sum.usage)) != 0)
        bad(c,
            "directory %" PRIu64 ": usage %" PRIu64 "/%" PRIu64 "/%" PRIu64 " recorded, %" PRIu64
            "/%" PRIu64 "/%" PRIu64 " found",
            ino, inode->usage.bytes, inode->usage.files, inode->usage.directories, sum.usage.bytes,
            sum.usage.files, sum.usage.directories);
    struct record_key quota;
    record_key_quota(&quota, ino);
    if (is_there(c, TABLE_SYSTEM, &quota) != !!(inode->flags & RECORD_QUOTA))
        bad(c, "directory %" PRIu64 ": quota record and flag differ", ino);
    record_key_place(&quota, ino);
    if (is_there(c, TABLE_SYSTEM, &quota) != !!(inode->flags & RECORD_PLACE))
        bad(c, "directory %" PRIu64 ": place record and flag differ", ino);
    bool origin = get(c, TABLE_ORIGIN, &key, arena, &value, &len);
    if (origin != !!(inode->flags & RECORD_ORIGIN))
        bad(c, "directory %" PRIu64 ": origin record and flag differ", ino);
    return rc;
}

struct extent_sum {
    const struct record_inode *inode;
    uint64_t ino, count, end;
};

static void sum_extent(struct check *c, const uint8_t *k, size_t k_len, const uint8_t *v,
                       size_t v_len, struct arena *arena, void *arg)
{
    struct extent_sum *sum = arg;
    struct meta_extent e;
    if (k_len != 16 || record_extent_decode(v, v_len, &e) < 0) {
        bad(c, "file %" PRIu64 ": unreadable extent", sum->ino);
        return;
    }
    e.offset = record_get_u64(k + 8);
    if (e.offset < sum->end || e.length == 0)
        bad(c, "file %" PRIu64 ": extent at %" PRIu64 " overlaps", sum->ino, e.offset);
    sum->end = e.offset + e.length;
    sum->count++;
    if (e.kind == META_EXTENT_OBJECT)
        buf_put(&c->refs, &e.object, sizeof(e.object));
}

static int check_file(struct check *c, uint64_t ino, const struct record_inode *inode)
{
    struct extent_sum sum = {.inode = inode, .ino = ino};
    struct record_key key;
    record_key_u64(&key, ino);
    int rc = walk(c, TABLE_EXTENT, &key, sum_extent, &sum);
    if (sum.count != inode->extents)
        bad(c, "file %" PRIu64 ": %" PRIu64 " extents, %" PRIu64 " recorded", ino, sum.count,
            inode->extents);
    bool rows = inode->body == RECORD_BODY_INLINE || inode->body == RECORD_BODY_MANY;
    if (rows != (sum.count > 0))
        bad(c, "file %" PRIu64 ": body %d with %" PRIu64 " extents", ino, (int)inode->body,
            sum.count);
    if (inode->body == RECORD_BODY_OBJECT) {
        buf_put(&c->refs, &inode->object, sizeof(inode->object));
        sum.end = inode->object_length;
    }
    if (sum.end > inode->size)
        bad(c, "file %" PRIu64 ": extents reach %" PRIu64 ", size %" PRIu64, ino, sum.end,
            inode->size);
    return rc;
}

static void count_row(struct check *c, const uint8_t *k, size_t k_len, const uint8_t *v,
                      size_t v_len, struct arena *arena, void *arg)
{
    ++*(uint64_t *)arg;
}

static void check_inode(struct check *c, const uint8_t *k, size_t k_len, const uint8_t *v,
                        size_t v_len, struct arena *arena, void *arg)
{
    struct record_inode inode, parent;
    struct record_key key;
    uint64_t links = 0, xattrs = 0, ino = k_len == 8 ? record_get_u64(k) : 0;
    const struct record_hot *hot = hot_of(c, ino);
    if (hot) {
        v = hot->bytes;
        v_len = hot->len;
    }
    if (!ino || record_inode_decode(v, v_len, &inode) < 0) {
        bad(c, "inode %" PRIu64 ": unreadable", ino);
        return;
    }
    c->counted.inodes++;
    if (ino >= c->recorded.next_ino)
        bad(c, "inode %" PRIu64 ": not yet given out", ino);
    record_key_u64(&key, ino);
    bool sustained = is_there(c, TABLE_SUSTAINED, &key);
    if (sustained != (inode.nlink == 0) || sustained != !!(inode.flags & RECORD_SUSTAINED))
        bad(c, "inode %" PRIu64 ": nlink %u, %ssustained", ino, inode.nlink,
            sustained ? "" : "not ");
    walk(c, TABLE_LINK, &key, count_row, &links);
    walk(c, TABLE_XATTR, &key, count_row, &xattrs);
    if (xattrs != inode.xattrs)
        bad(c, "inode %" PRIu64 ": %" PRIu64 " xattrs, %u recorded", ino, xattrs, inode.xattrs);
    if (!S_ISDIR(inode.mode) && inode.nlink && inode.nlink != links + 1)
        bad(c, "inode %" PRIu64 ": nlink %u, %" PRIu64 " links", ino, inode.nlink, links + 1);
    if (inode.parent) {
        struct record_dentry dentry = {0};
        const uint8_t *value;
        size_t len;
        record_key_named(&key, inode.parent, inode.name, inode.name_len);
        if (!get(c, TABLE_DENTRY, &key, arena, &value, &len) ||
            record_dentry_decode(value, len, &dentry) < 0 || dentry.ino != ino)
            bad(c, "inode %" PRIu64 ": its name in %" PRIu64 " is missing", ino, inode.parent);
        if (!get_inode(c, inode.parent, arena, &parent) || !S_ISDIR(parent.mode))
            bad(c, "inode %" PRIu64 ": its directory %" PRIu64 " is missing", ino, inode.parent);
    } else if (ino != META_ROOT_INO && inode.nlink) {
        bad(c, "inode %" PRIu64 ": has links, but no name", ino);
    }
    if (inode.due_ns) {
        record_key_work2(&key, RECORD_WORK_SETTLE, inode.due_ns, ino);
        if (!is_there(c, TABLE_WORK, &key))
            bad(c, "inode %" PRIu64 ": not in the settle queue", ino);
        c->counted.queued_subtrees += S_ISDIR(inode.mode);
        c->counted.queued_files += !S_ISDIR(inode.mode);
        c->counted.queued_bytes += S_ISDIR(inode.mode) ? 0 : inode.size;
    }
    record_key_work(&key, RECORD_WORK_STEP, ino);
    if (is_there(c, TABLE_WORK, &key) != !!(inode.flags & RECORD_HAS_STEP))
        bad(c, "inode %" PRIu64 ": step record and flag differ", ino);
    record_key_work(&key, RECORD_WORK_CARRY, ino);
    if (is_there(c, TABLE_WORK, &key) != !!(inode.flags & RECORD_CARRY_DUE))
        bad(c, "inode %" PRIu64 ": row of its entry and flag differ", ino);
    if (S_ISDIR(inode.mode))
        check_dir(c, ino, &inode, arena);
    else if (S_ISREG(inode.mode))
        check_file(c, ino, &inode);
}

/* A row that belongs to an inode. */
static void check_owner(struct check *c, const uint8_t *k, size_t k_len, const uint8_t *v,
                        size_t v_len, struct arena *arena, void *arg)
{
    struct record_inode inode;
    uint64_t ino = k_len >= 8 ? record_get_u64(k) : 0;
    if (!get_inode(c, ino, arena, &inode))
        bad(c, "%s of inode %" PRIu64 ", which is missing", (const char *)arg, ino);
}

/* Whether a row's key is that of a text with its store. */
static bool is_at(const char *text, size_t len, const uint8_t *k, size_t k_len)
{
    struct record_key key;
    record_key_store(&key, text, len);
    return key.len == k_len && memcmp(key.bytes, k, k_len) == 0;
}

static void check_claim(struct check *c, const uint8_t *k, size_t k_len, const uint8_t *v,
                        size_t v_len, struct arena *arena, void *arg)
{
    struct record_key key;
    struct record_origin origin;
    const uint8_t *value;
    size_t len;
    uint64_t ino = v_len == 9 ? record_get_u64(v + 1) : 0;
    record_key_u64(&key, ino);
    if (!get(c, TABLE_ORIGIN, &key, arena, &value, &len) ||
        record_origin_decode(value, len, &origin) < 0 ||
        !is_at(origin.prefix, origin.prefix_len, k, k_len))
        bad(c, "claim of %.*s: not the origin of directory %" PRIu64, (int)k_len - 2, k + 2, ino);
}

static int ref_order(const void *a, const void *b)
{
    uint64_t x, y;
    memcpy(&x, a, sizeof(x));
    memcpy(&y, b, sizeof(y));
    return x < y ? -1 : x > y;
}

/* How often an object is referenced; the list is sorted. */
static uint64_t count_refs(const struct check *c, uint64_t id)
{
    size_t n = c->refs.len / sizeof(id), from = 0, to = n;
    uint64_t at, count = 0;
    while (from < to) {
        size_t middle = from + (to - from) / 2;
        memcpy(&at, c->refs.data + middle * sizeof(at), sizeof(at));
        if (at < id)
            from = middle + 1;
        else
            to = middle;
    }
    for (; from < n; from++, count++) {
        memcpy(&at, c->refs.data + from * sizeof(at), sizeof(at));
        if (at != id)
            break;
    }
    return count;
}

static uint64_t key_owner(struct check *c, const char *text, size_t text_len, struct arena *arena)
{
    struct record_key key;
    const uint8_t *value;
    size_t len;
    record_key_store(&key, text, text_len);
    return get(c, TABLE_KEY, &key, arena, &value, &len) && len == 9 ? record_get_u64(value + 1) : 0;
}

static void check_object(struct check *c, const uint8_t *k, size_t k_len, const uint8_t *v,
                         size_t v_len, struct arena *arena, void *arg)
{
    struct record_object o;
    struct record_key key;
    uint64_t id = k_len >= 8 ? record_get_u64(k) : 0;
    if (k_len == 16) {
        if (!get_object(c, id, arena, &o) || !o.shared)
            bad(c, "object %" PRIu64 ": sharing row without object", id);
        return;
    }
    if (k_len != 8 || record_object_decode(v, v_len, &o) < 0) {
        bad(c, "object %" PRIu64 ": unreadable", id);
        return;
    }
    uint64_t refs = count_refs(c, id), holder = key_owner(c, o.key, o.key_len, arena);
    if (id >= c->recorded.next_object)
        bad(c, "object %" PRIu64 ": not yet given out", id);
    if (refs != o.refs)
        bad(c, "object %" PRIu64 ": %" PRIu64 " references, %u recorded", id, refs, o.refs);
    if ((o.state == META_OBJECT_LIVE) != (refs > 0))
        bad(c, "object %" PRIu64 ": state %d with %" PRIu64 " references", id, (int)o.state, refs);
    record_key_work(&key, RECORD_WORK_RESERVED, id);
    if (is_there(c, TABLE_WORK, &key) != (o.state == META_OBJECT_RESERVED))
        bad(c, "object %" PRIu64 ": reserved row and state differ", id);
    record_key_work2(&key, RECORD_WORK_GC, o.due_ns, id);
    if (o.due_ns && !is_there(c, TABLE_WORK, &key))
        bad(c, "object %" PRIu64 ": not in the gc queue", id);
    if (o.due_ns && o.state != META_OBJECT_GARBAGE)
        bad(c, "object %" PRIu64 ": in the gc queue with state %d", id, (int)o.state);
    if (o.state == META_OBJECT_GARBAGE) {
        c->counted.garbage_objects++;
        c->counted.garbage_bytes += o.size;
    }
    /* While settle replaces garbage, the key is still the garbage's. */
    if (o.lost ? holder == id : holder != id && !(o.replaces && holder == o.replaces))
        bad(c, "object %" PRIu64 ": its key %.*s belongs to %" PRIu64, id, (int)o.key_len, o.key,
            holder);
}

static void check_key(struct check *c, const uint8_t *k, size_t k_len, const uint8_t *v,
                      size_t v_len, struct arena *arena, void *arg)
{
    struct record_object o;
    uint64_t id = v_len == 9 ? record_get_u64(v + 1) : 0;
    if (k_len < 2 || !get_object(c, id, arena, &o) || !is_at(o.key, o.key_len, k, k_len))
        bad(c, "key %.*s: object %" PRIu64 " is not there", (int)k_len - 2, k + 2, id);
}

static void check_quota(struct check *c, const uint8_t *k, size_t k_len, const uint8_t *v,
                        size_t v_len, struct arena *arena, void *arg)
{
    struct record_inode inode;
    struct record_quota quota;
    const struct record_key *prefix = arg;
    uint64_t ino = k_len == prefix->len + 8 ? record_get_u64(k + prefix->len) : 0;
    if (!ino || record_quota_decode(v, v_len, &quota) < 0)
        bad(c, "quota of %" PRIu64 ": unreadable", ino);
    else if (!get_inode(c, ino, arena, &inode) || !S_ISDIR(inode.mode) ||
             !(inode.flags & RECORD_QUOTA))
        bad(c, "quota of %" PRIu64 ": no directory that knows of it", ino);
}

static void check_work(struct check *c, const uint8_t *k, size_t k_len, const uint8_t *v,
                       size_t v_len, struct arena *arena, void *arg)
{
    struct record_inode inode;
    struct record_object o;
    struct record_step step;
    uint64_t a = k_len >= 9 ? record_get_u64(k + 1) : 0;
    uint64_t b = k_len >= 17 ? record_get_u64(k + 9) : 0;
    bool good = false;
    struct record_late late;
    if (k_len && k[0] == RECORD_WORK_LATE_KEY) {
        if (record_late_decode(v, v_len, &late) < 0)
            bad(c, "late object at %.*s: unreadable", (int)k_len - 1, k + 1);
        return;
    }
    switch (k_len >= 9 ? k[0] : 0) {
    case RECORD_WORK_SETTLE:
        good = get_inode(c, b, arena, &inode) && inode.due_ns == a && inode.nlink + b > 0;
        break;
    case RECORD_WORK_GC:
        good = get_object(c, b, arena, &o) && o.due_ns == a;
        break;
    case RECORD_WORK_RESERVED:
        good = get_object(c, a, arena, &o) && o.state == META_OBJECT_RESERVED;
        break;
    case RECORD_WORK_STEP:
        good = get_inode(c, a, arena, &inode) && inode.flags & RECORD_HAS_STEP &&
               record_step_decode(v, v_len, &step) == 0;
        break;
    case RECORD_WORK_CARRY: {
        /* Of an inode that is gone, the entry is still to be deleted. */
        struct record_carry carry;
        good = record_carry_decode(v, v_len, &carry) == 0 &&
               (!get_inode(c, a, arena, &inode) || inode.flags & RECORD_CARRY_DUE);
        break;
    }
    case RECORD_WORK_LATE:
        good = record_late_decode(v, v_len, &late) == 0 && late.key_len > 0;
        break;
    case RECORD_WORK_CURSOR:
        good = get_inode(c, a, arena, &inode) && S_ISDIR(inode.mode) && inode.due_ns;
        break;
    }
    if (!good)
        bad(c, "work row %c %" PRIu64 " %" PRIu64 ": nothing fits", k_len ? k[0] : '?', a, b);
}

static void check_counters(struct check *c)
{
    const struct record_counters *a = &c->recorded, *b = &c->counted;
    if (a->inodes != b->inodes)
        bad(c, "%" PRIu64 " inodes, %" PRIu64 " recorded", b->inodes, a->inodes);
    if (a->queued_files != b->queued_files || a->queued_bytes != b->queued_bytes ||
        a->queued_subtrees != b->queued_subtrees)
        bad(c,
            "settle queue: %" PRIu64 " files, %" PRIu64 " bytes, %" PRIu64 " subtrees; %" PRIu64
            ", %" PRIu64 ", %" PRIu64 " recorded",
            b->queued_files, b->queued_bytes, b->queued_subtrees, a->queued_files, a->queued_bytes,
            a->queued_subtrees);
    if (a->garbage_objects != b->garbage_objects || a->garbage_bytes != b->garbage_bytes)
        bad(c, "garbage: %" PRIu64 " objects, %" PRIu64 " bytes; %" PRIu64 ", %" PRIu64 " recorded",
            b->garbage_objects, b->garbage_bytes, a->garbage_objects, a->garbage_bytes);
}

static int load_counters(struct check *c)
{
    struct record_key key;
    struct arena arena = {0};
    const uint8_t *value;
    size_t len;
    record_key_text(&key, "counters");
    int rc = engine_db_copy(c->engine, NULL, TABLE_SYSTEM, &key, &arena, &value, &len);
    if (rc == 0 && record_counters_decode(value, len, &c->recorded) < 0)
        rc = -EIO;
    arena_done(&arena);
    return rc;
}

static int check_all(struct check *c)
{
    static const struct {
        enum engine_table table;
        each_fn each;
        const char *what;
    } passes[] = {
        {TABLE_INODE, check_inode, NULL},      {TABLE_DENTRY, check_owner, "name"},
        {TABLE_LINK, check_owner, "link"},     {TABLE_EXTENT, check_owner, "extent"},
        {TABLE_XATTR, check_owner, "xattr"},   {TABLE_SUSTAINED, check_owner, "sustained row"},
        {TABLE_ORIGIN, check_owner, "origin"}, {TABLE_CLAIM, check_claim, NULL},
        {TABLE_OBJECT, check_object, NULL},    {TABLE_KEY, check_key, NULL},
        {TABLE_WORK, check_work, NULL},
    };
    int rc = load_counters(c);
    for (size_t i = 0; rc == 0 && i < ARRAY_LEN(passes); i++) {
        rc = walk(c, passes[i].table, NULL, passes[i].each, (void *)(uintptr_t)passes[i].what);
        if (passes[i].table == TABLE_INODE && c->refs.len)
            qsort(c->refs.data, c->refs.len / 8, 8, ref_order);
    }
    struct record_key prefix;
    record_key_text(&prefix, RECORD_QUOTA_PREFIX);
    if (rc == 0)
        rc = walk(c, TABLE_SYSTEM, &prefix, check_quota, &prefix);
    if (rc == 0)
        check_counters(c);
    return rc == 0 && buf_error(&c->refs) ? -ENOMEM : rc;
}

int engine_check(struct engine *engine, void (*report)(void *arg, const char *text), void *arg)
{
    struct check c = {.engine = engine, .report = report, .arg = arg};
    if (!atomic_load(&engine->formatted))
        return 0;
    buf_init(&c.refs, 0);
    pthread_rwlock_rdlock(&engine->gate);
    int rc = engine->db ? check_all(&c) : -EIO;
    pthread_rwlock_unlock(&engine->gate);
    buf_done(&c.refs);
    return rc < 0 ? rc : c.found;
}

static void digest_one(struct check *c, const uint8_t *k, size_t k_len, const uint8_t *v,
                       size_t v_len, struct arena *arena, void *arg)
{
    uint64_t lens[2] = {__builtin_bswap64(k_len), __builtin_bswap64(v_len)};
    EVP_DigestUpdate(arg, lens, sizeof(lens));
    EVP_DigestUpdate(arg, k, k_len);
    EVP_DigestUpdate(arg, v, v_len);
}

int engine_digest(struct engine *engine, uint8_t out[32])
{
    struct check c = {.engine = engine};
    EVP_MD_CTX *sum = EVP_MD_CTX_new();
    if (!sum || EVP_DigestInit_ex(sum, EVP_sha256(), NULL) != 1) {
        EVP_MD_CTX_free(sum);
        return -ENOMEM;
    }
    pthread_rwlock_rdlock(&engine->gate);
    int rc = engine->db ? 0 : -EIO;
    for (int i = 0; rc == 0 && i < TABLE_COUNT; i++) {
        EVP_DigestUpdate(sum, &i, sizeof(i));
        rc = walk(&c, i, NULL, digest_one, sum);
    }
    pthread_rwlock_unlock(&engine->gate);
    EVP_DigestFinal_ex(sum, out, NULL);
    EVP_MD_CTX_free(sum);
    return rc;
}
