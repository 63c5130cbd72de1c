/*
 * Random operations against a simple model: a tree in memory with each file's bytes, and a bucket
 * that refuses what a store with conditional requests refuses. After all of it everything is
 * settled, and the bucket must hold exactly the files that have natural keys. The same operations
 * applied to a second database must give the same keys and values.
 */
#include "engine_test.h"

#include <stdio.h> /* RENAME_ */

#include "meta/codec.h"

#define NODES 400
#define ENTRIES 2000
#define SIZE_MAX_ 3000
#define OBJECTS 20000

struct entry {
    int parent, node; /* -1: free */
    char name[12];
};

struct node {
    bool used;
    uint64_t ino;
    uint32_t mode, nlink;
    bool held; /* unlinked, not dropped */
    size_t size;
    uint8_t bytes[SIZE_MAX_];
};

/* What the store has at an object's key. */
struct stored {
    bool there, written;
    size_t size;
    uint8_t *bytes;
    char key[META_KEY_MAX + 1];
};

struct model {
    struct world w;
    uint64_t random;
    struct node nodes[NODES];
    struct entry entries[ENTRIES];
    struct stored objects[OBJECTS];
    struct buf log;
    unsigned steps_done, steps_lost;
};

static uint64_t pick(struct model *m, uint64_t n)
{
    m->random ^= m->random << 13;
    m->random ^= m->random >> 7;
    m->random ^= m->random << 17;
    return m->random % n;
}

static int apply(struct model *m, struct meta_op *op)
{
    int rc = world_apply(&m->w, op);
    if (rc == 0) {
        struct buf one;
        buf_init(&one, 0);
        meta_codec_op_put(&one, op);
        buf_put_bytes(&m->log, one.data, one.len);
        buf_done(&one);
    }
    return rc;
}

static int find(struct model *m, int parent, const char *name)
{
    for (int i = 0; i < ENTRIES; i++) {
        if (m->entries[i].node >= 0 && m->entries[i].parent == parent &&
            strcmp(m->entries[i].name, name) == 0)
            return i;
    }
    return -1;
}

static bool is_empty(struct model *m, int dir)
{
    for (int i = 0; i < ENTRIES; i++) {
        if (m->entries[i].node >= 0 && m->entries[i].parent == dir)
            return false;
    }
    return true;
}

static void entry_add(struct model *m, int parent, const char *name, int node)
{
    int i = 0;
    while (m->entries[i].node >= 0)
        check(++i < ENTRIES);
    m->entries[i] = (struct entry){.parent = parent, .node = node};
    snprintf(m->entries[i].name, sizeof(m->entries[i].name), "%s", name);
}

static bool is_dir(struct model *m, int node)
{
    return S_ISDIR(m->nodes[node].mode);
}

static int node_free(struct model *m)
{
    for (int i = 1; i < NODES; i++) {
        if (!m->nodes[i].used)
            return i;
    }
    return -1;
}

static int any(struct model *m, bool (*fits)(struct model *, int))
{
    int start = (int)pick(m, NODES);
    for (int i = 0; i < NODES; i++) {
        int at = (start + i) % NODES;
        if (m->nodes[at].used && fits(m, at))
            return at;
    }
    return -1;
}

static bool live_dir(struct model *m, int node)
{
    return is_dir(m, node) && !m->nodes[node].held;
}

static bool any_file(struct model *m, int node)
{
    return S_ISREG(m->nodes[node].mode);
}

static bool held(struct model *m, int node)
{
    return m->nodes[node].held;
}

static const char *name_pick(struct model *m)
{
    static const char *const names[] = {"a", "b", "c", "d", "e", "_temporary", "g", "h"};
    return names[pick(m, sizeof(names) / sizeof(names[0]))];
}

static void step_mknod(struct model *m)
{
    static const uint32_t modes[] = {S_IFREG | 0644, S_IFREG | 0600, S_IFDIR | 0755,
                                     S_IFLNK | 0777};
    int parent = any(m, live_dir), node = node_free(m);
    const char *name = name_pick(m);
    uint32_t mode = modes[pick(m, 4)];
    if (node < 0)
        return;
    struct meta_op op = {.kind = META_MKNOD,
                         .parent = m->nodes[parent].ino,
                         .name = name_of(name),
                         .attr = {.mode = mode},
                         .data = "t",
                         .data_len = 1};
    int rc = apply(m, &op);
    if (find(m, parent, name) >= 0) {
        check_int(rc, -EEXIST);
        return;
    }
    check_int(rc, 0);
    memset(&m->nodes[node], 0, sizeof(m->nodes[node]));
    m->nodes[node] = (struct node){.used = true,
                                   .ino = m->w.reply.attr.ino,
                                   .mode = mode,
                                   .nlink = S_ISDIR(mode) ? 2 : 1,
                                   .size = S_ISLNK(mode) ? 1 : 0};
    entry_add(m, parent, name, node);
}

static bool linkable(struct model *m, int node)
{
    return !is_dir(m, node);
}

static void step_link(struct model *m)
{
    int node = any(m, linkable), parent = any(m, live_dir);
    const char *name = name_pick(m);
    if (node < 0)
        return;
    struct meta_op op = {.kind = META_LINK,
                         .ino = m->nodes[node].ino,
                         .parent = m->nodes[parent].ino,
                         .name = name_of(name)};
    int rc = apply(m, &op);
    if (m->nodes[node].held) {
        check_int(rc, -ENOENT);
    } else if (find(m, parent, name) >= 0) {
        check_int(rc, -EEXIST);
    } else {
        check_int(rc, 0);
        m->nodes[node].nlink++;
        entry_add(m, parent, name, node);
    }
}

static void name_lost(struct model *m, int entry)
{
    int node = m->entries[entry].node;
    m->entries[entry].node = -1;
    m->nodes[node].nlink = is_dir(m, node) ? 0 : m->nodes[node].nlink - 1;
    m->nodes[node].held = m->nodes[node].nlink == 0;
}

static void step_unlink(struct model *m)
{
    int parent = any(m, live_dir);
    const char *name = name_pick(m);
    bool rmdir = pick(m, 2);
    int rc, entry = find(m, parent, name);
    struct meta_op op = {.kind = META_UNLINK,
                         .parent = m->nodes[parent].ino,
                         .name = name_of(name),
                         .flags = rmdir ? META_RMDIR : 0};
    rc = apply(m, &op);
    if (entry < 0) {
        check_int(rc, -ENOENT);
        return;
    }
    int node = m->entries[entry].node;
    if (is_dir(m, node) != rmdir) {
        check_int(rc, rmdir ? -ENOTDIR : -EISDIR);
    } else if (rmdir && !is_empty(m, node)) {
        check_int(rc, -ENOTEMPTY);
    } else {
        check_int(rc, 0);
        name_lost(m, entry);
        check_uint(m->w.reply.attr.nlink, m->nodes[node].nlink);
    }
}

/* Is `node` `top` or below it? */
static bool below(struct model *m, int node, int top)
{
    while (node != top && node != 0) {
        int i = 0;
        while (m->entries[i].node != node)
            check(++i < ENTRIES);
        node = m->entries[i].parent;
    }
    return node == top;
}

static int rename_expected(struct model *m, int from, int to, int parent, int new_parent,
                           uint32_t flags)
{
    if (from < 0)
        return -ENOENT;
    int node = m->entries[from].node, other = to < 0 ? -1 : m->entries[to].node;
    if (to < 0 && flags & RENAME_EXCHANGE)
        return -ENOENT;
    if (to >= 0 && flags & RENAME_NOREPLACE)
        return -EEXIST;
    if (node == other)
        return 0;
    if (is_dir(m, node) && below(m, new_parent, node))
        return -EINVAL;
    if (other >= 0 && flags & RENAME_EXCHANGE)
        return is_dir(m, other) && below(m, parent, other) ? -EINVAL : 0;
    if (other >= 0 && is_dir(m, node) != is_dir(m, other))
        return is_dir(m, node) ? -ENOTDIR : -EISDIR;
    if (other >= 0 && is_dir(m, other) && !is_empty(m, other))
        return -ENOTEMPTY;
    return 0;
}

static void step_rename(struct model *m)
{
    static const uint32_t all_flags[] = {0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE};
    int parent = any(m, live_dir), new_parent = any(m, live_dir);
    const char *name = name_pick(m), *new_name = name_pick(m);
    uint32_t flags = all_flags[pick(m, 5)];
    int from = find(m, parent, name), to = find(m, new_parent, new_name);
    int expected = rename_expected(m, from, to, parent, new_parent, flags);
    struct meta_op op = {.kind = META_RENAME,
                         .parent = m->nodes[parent].ino,
                         .name = name_of(name),
                         .new_parent = m->nodes[new_parent].ino,
                         .new_name = name_of(new_name),
                         .flags = flags};
    check_int(apply(m, &op), expected);
    if (expected < 0)
        return;
    int node = m->entries[from].node, other = to < 0 ? -1 : m->entries[to].node;
    if (node == other)
        return;
    if (other >= 0 && flags & RENAME_EXCHANGE) {
        m->entries[from].node = other;
        m->entries[to].node = node;
        return;
    }
    if (to >= 0)
        name_lost(m, to);
    m->entries[from].node = -1;
    entry_add(m, new_parent, new_name, node);
}

static void random_bytes(struct model *m, uint8_t *out, size_t len)
{
    for (size_t i = 0; i < len; i++)
        out[i] = (uint8_t)(1 + pick(m, 255));
}

static struct stored *stored_of(struct model *m, uint64_t object)
{
    check(object < OBJECTS);
    return &m->objects[object];
}

/* What the store does with a PUT: If-None-Match, or If-Match with `replaces`. */
static void store_put(struct model *m, const struct meta_object *object, bool replaces,
                      const char *old_etag, const uint8_t *bytes, size_t size)
{
    struct stored *mine = stored_of(m, object->id);
    for (int i = 0; i < OBJECTS; i++) {
        struct stored *s = &m->objects[i];
        if (!s->there || s == mine || strcmp(s->key, object->key) != 0)
            continue;
        char etag[32];
        snprintf(etag, sizeof(etag), "etag-%d", i);
        check(replaces);
        check_str(etag, old_etag);
        s->there = false;
    }
    check(!mine->written || mine->size == size);
    free(mine->bytes);
    mine->bytes = malloc(size + 1);
    memcpy(mine->bytes, bytes, size);
    mine->size = size;
    mine->there = mine->written = true;
    snprintf(mine->key, sizeof(mine->key), "%s", object->key);
}

static void set_etag(struct meta_object *object, size_t size)
{
    object->size = size;
    snprintf(object->etag, sizeof(object->etag), "etag-%ju", (uintmax_t)object->id);
}

/* One commit: up to three extents, inline or of one new object. */
static void step_commit(struct model *m)
{
    int node = any(m, any_file);
    if (node < 0)
        return;
    struct node *n = &m->nodes[node];
    uint8_t bytes[SIZE_MAX_];
    struct meta_extent e[3];
    struct meta_object object = {0};
    bool inline_ = pick(m, 2), replace = pick(m, 4) == 0;
    size_t count = 1 + pick(m, 3), used = 0, at = replace ? 0 : pick(m, 600);
    random_bytes(m, bytes, sizeof(bytes));
    if (!inline_) {
        struct meta_op op = {.kind = META_RESERVE, .ino = n->ino};
        check_int(apply(m, &op), 0);
        object = m->w.reply.objects[0];
    }
    if (replace) {
        memset(n->bytes, 0, sizeof(n->bytes));
        n->size = 0;
    }
    for (size_t i = 0; i < count; i++) {
        size_t len = 1 + pick(m, 300);
        e[i] = (struct meta_extent){
            .kind = inline_ ? META_EXTENT_INLINE : META_EXTENT_OBJECT,
            .offset = at,
            .length = len,
            .object = object.id,
            .object_offset = used,
            .data = inline_ ? bytes + used : NULL,
        };
        memcpy(n->bytes + at, bytes + used, len);
        n->size = at + len > n->size ? at + len : n->size;
        used += len;
        at += len + (pick(m, 2) ? 0 : pick(m, 200));
    }
    struct meta_op op = {.kind = META_COMMIT,
                         .ino = n->ino,
                         .extents = e,
                         .extent_count = count,
                         .objects = &object,
                         .object_count = inline_ ? 0 : 1,
                         .flags = replace ? META_REPLACE : 0};
    if (pick(m, 6) == 0) {
        op.valid = META_SET_SIZE;
        op.attr.size = pick(m, SIZE_MAX_);
        if (op.attr.size < n->size)
            memset(n->bytes + op.attr.size, 0, n->size - op.attr.size);
        n->size = op.attr.size;
    }
    if (!inline_) {
        store_put(m, &object, false, NULL, bytes, used);
        set_etag(&object, used);
    }
    check_int(apply(m, &op), 0);
    check_uint(m->w.reply.attr.size, n->size);
}

static void step_truncate(struct model *m)
{
    int node = any(m, any_file);
    if (node < 0)
        return;
    struct node *n = &m->nodes[node];
    size_t size = pick(m, 3) ? pick(m, SIZE_MAX_) : 0;
    struct meta_op op = {
        .kind = META_SETATTR, .ino = n->ino, .valid = META_SET_SIZE, .attr = {.size = size}};
    check_int(apply(m, &op), 0);
    if (size < n->size)
        memset(n->bytes + size, 0, n->size - size);
    n->size = size;
}

static void step_punch(struct model *m)
{
    int node = any(m, any_file);
    if (node < 0)
        return;
    struct node *n = &m->nodes[node];
    size_t at = pick(m, 1000), len = 1 + pick(m, 500);
    struct meta_op op = {.kind = META_PUNCH, .ino = n->ino, .offset = at, .length = len};
    check_int(apply(m, &op), 0);
    memset(n->bytes + at, 0, len);
}

static void step_clone(struct model *m)
{
    int from = any(m, any_file), to = any(m, any_file);
    if (from < 0)
        return;
    struct node *a = &m->nodes[from], *b = &m->nodes[to];
    size_t at = pick(m, 800), len = 1 + pick(m, 800), new_at = pick(m, 800);
    size_t real = at < a->size ? (len < a->size - at ? len : a->size - at) : 0;
    struct meta_op op = {.kind = META_CLONE,
                         .ino = a->ino,
                         .offset = at,
                         .length = len,
                         .new_ino = b->ino,
                         .new_offset = new_at};
    int rc = apply(m, &op);
    if (a == b && at < new_at + real && new_at < at + real) {
        check_int(rc, -EINVAL);
        return;
    }
    check_int(rc, 0);
    memmove(b->bytes + new_at, a->bytes + at, real);
    if (real && new_at + real > b->size)
        b->size = new_at + real;
}

static void step_drop(struct model *m)
{
    int node = any(m, held);
    if (node < 0)
        return;
    struct meta_op op = {.kind = META_DROP, .inos = &m->nodes[node].ino, .ino_count = 1};
    check_int(apply(m, &op), 0);
    m->nodes[node].used = false;
}

/* The file as its extents and the store say. */
static size_t content(struct model *m, uint64_t ino, uint8_t out[SIZE_MAX_])
{
    check_int(extents(&m->w, ino, 0, 0), 0);
    memset(out, 0, SIZE_MAX_);
    for (size_t i = 0; i < m->w.reply.extent_count; i++) {
        const struct meta_extent *e = &m->w.reply.extents[i];
        check(e->offset + e->length <= SIZE_MAX_);
        if (e->kind == META_EXTENT_INLINE) {
            memcpy(out + e->offset, e->data, e->length);
            continue;
        }
        struct stored *s = stored_of(m, e->object);
        check(s->there);
        check(e->object_offset + e->length <= s->size);
        memcpy(out + e->offset, s->bytes + e->object_offset, e->length);
    }
    return m->w.reply.attr.size;
}

static void settle_one(struct model *m, uint64_t ino)
{
    uint8_t bytes[SIZE_MAX_];
    struct meta_op op = {.kind = META_SETTLE_BEGIN, .ino = ino};
    check_int(apply(m, &op), 0);
    struct meta_settle step = m->w.reply.settle;
    if (step.action == META_SETTLE_NOTHING)
        return;
    if (pick(m, 8) == 0)
        return; /* a crash: it is begun again later */
    size_t size = content(m, ino, bytes);
    check_uint(size, step.size);
    store_put(m, &step.target, step.replaces, step.old_etag, bytes, size);
    if (pick(m, 8) == 0)
        return; /* the same after the write */
    struct meta_object object = step.target;
    set_etag(&object, size);
    if (pick(m, 8) == 0) { /* a change in the middle */
        op = (struct meta_op){.kind = META_SETATTR,
                              .ino = ino,
                              .valid = META_SET_SIZE,
                              .attr = {.size = pick(m, SIZE_MAX_)}};
        check_int(apply(m, &op), 0);
        for (int i = 0; i < NODES; i++) {
            struct node *n = &m->nodes[i];
            if (!n->used || n->ino != ino)
                continue;
            if (op.attr.size < n->size)
                memset(n->bytes + op.attr.size, 0, n->size - op.attr.size);
            n->size = op.attr.size;
        }
    }
    op = (struct meta_op){
        .kind = META_SETTLE_DONE, .settle = &step, .objects = &object, .object_count = 1};
    check_int(apply(m, &op), 0);
    m->steps_done += m->w.reply.end;
    m->steps_lost += !m->w.reply.end;
}

static void step_settle(struct model *m)
{
    struct engine_work work[8];
    uint64_t next;
    int count = engine_settle_due(m->w.engine, m->w.now, work, 8, &next);
    check(count >= 0);
    for (int i = 0; i < count; i++) {
        struct meta_op op = {.kind = META_SETTLE_SUBTREE, .ino = work[i].id, .count = 2};
        if (work[i].subtree)
            check_int(apply(m, &op), 0);
        else
            settle_one(m, work[i].id);
    }
}

static void step_gc(struct model *m)
{
    struct meta_object garbage[8];
    uint64_t next;
    int count = engine_gc_due(m->w.engine, m->w.now, garbage, 8, &next);
    check(count >= 0);
    for (int i = 0; i < count; i++) {
        struct stored *s = stored_of(m, garbage[i].id);
        s->there = false;
        struct meta_op op = {.kind = META_GC_DONE, .inos = &garbage[i].id, .ino_count = 1};
        check_int(apply(m, &op), 0);
    }
}

static void compare(struct model *m)
{
    uint8_t bytes[SIZE_MAX_];
    for (int i = 0; i < NODES; i++) {
        struct node *n = &m->nodes[i];
        if (!n->used)
            continue;
        struct meta_attr a = attr_of(&m->w, n->ino);
        check_uint(a.mode, n->mode);
        if (!is_dir(m, i)) {
            check_uint(a.nlink, n->nlink);
            check_uint(a.size, n->size);
        }
        if (S_ISREG(n->mode)) {
            check_uint(content(m, n->ino, bytes), n->size);
            check_mem(bytes, n->bytes, n->size);
        }
        if (!is_dir(m, i))
            continue;
        size_t names = 0;
        struct meta_op op = {.kind = META_READDIR, .ino = n->ino, .count = 1000};
        check_int(world_read(&m->w, &op), 0);
        check(m->w.reply.end);
        for (int j = 0; j < ENTRIES; j++)
            names += m->entries[j].node >= 0 && m->entries[j].parent == i;
        check_uint(m->w.reply.entry_count, names);
        for (size_t j = 0; j < names; j++) {
            int at = find(m, i, m->w.reply.entries[j].name);
            check(at >= 0);
            check_uint(m->w.reply.entries[j].ino, m->nodes[m->entries[at].node].ino);
        }
    }
}

static void check_report(void *arg, const char *text)
{
    fprintf(stderr, "seed %ju: %s\n", (uintmax_t) * (uint64_t *)arg, text);
}

static void check_all(struct model *m, uint64_t seed)
{
    compare(m);
    check_int(engine_check(m->w.engine, check_report, &seed), 0);
}

static const struct meta_object *w_object(const struct model *m)
{
    return &m->w.reply.objects[0];
}

/* Time passes until nothing is left to be done. */
static void finish(struct model *m)
{
    while (any(m, held) >= 0)
        step_drop(m);
    for (int i = 0; i < 4000; i++) {
        step_settle(m);
        step_gc(m);
        m->w.now += SECOND / 10;
        struct meta_op op = {.kind = META_DRIFT, .ino = META_ROOT_INO};
        check_int(world_read(&m->w, &op), 0);
        if (m->w.reply.drift.garbage_objects == 0 &&
            engine_unsettled_below(m->w.engine, META_ROOT_INO) == 0)
            return;
    }
    struct engine_work work[20];
    uint64_t next;
    int n = engine_settle_due(m->w.engine, UINT64_MAX, work, 20, &next);
    for (int i = 0; i < n; i++) {
        struct meta_op op = {.kind = META_PATH, .ino = work[i].id};
        int rc = world_read(&m->w, &op);
        fprintf(stderr, "unsettled: %ju %s\n", (uintmax_t)work[i].id,
                rc ? strerror(-rc) : (const char *)m->w.reply.data);
        if (extents(&m->w, work[i].id, 0, 0) == 0)
            for (size_t j = 0; j < m->w.reply.object_count; j++)
                fprintf(stderr, "  object %ju at %s\n", (uintmax_t)m->w.reply.objects[j].id,
                        m->w.reply.objects[j].key);
    }
    for (uint64_t i = 0; i < OBJECTS; i++) {
        struct meta_op op = {.kind = META_OBJECT, .object = i};
        if (world_read(&m->w, &op) == 0 && w_object(m)->state != META_OBJECT_LIVE)
            fprintf(stderr, "object %ju: state %d at %s\n", (uintmax_t)i, w_object(m)->state,
                    w_object(m)->key);
    }
    test_fail("not settled at the end: %d rows", n);
}

/* Every file without a staging name on its (first) path is one object at its path, and the bucket
 * has nothing else but internal objects. */
static void check_bucket(struct model *m)
{
    size_t natural = 0, found = 0;
    for (int i = 0; i < NODES; i++) {
        struct node *n = &m->nodes[i];
        if (!n->used || n->held || !S_ISREG(n->mode))
            continue;
        struct meta_op op = {.kind = META_PATH, .ino = n->ino};
        check_int(world_read(&m->w, &op), 0);
        char path[META_KEY_MAX + 1];
        snprintf(path, sizeof(path), "p/%s", (const char *)m->w.reply.data);
        if (strstr(path, "_temporary"))
            continue;
        struct meta_object object = object_of(&m->w, n->ino);
        check_str(object.key, path);
        check_uint(object.size, n->size);
        natural++;
    }
    for (int i = 0; i < OBJECTS; i++) {
        struct meta_op op = {.kind = META_OBJECT, .object = (uint64_t)i};
        if (!m->objects[i].there)
            continue;
        if (world_read(&m->w, &op) < 0)
            test_fail("object %d at %s is in the store, but not recorded", i, m->objects[i].key);
        found += strncmp(m->objects[i].key, "p/.sluice/", 10) != 0;
    }
    check_uint(found, natural);
}

static void replay(struct model *m)
{
    struct world second;
    uint8_t one[32], two[32];
    struct reader r;
    world_init_raw(&second);
    reader_init(&r, m->log.data, m->log.len);
    while (reader_left(&r) > 0) {
        size_t len = 0;
        const uint8_t *bytes = reader_bytes(&r, SIZE_MAX, &len);
        struct meta_decoded_op op;
        check(bytes != NULL);
        check_int(meta_codec_op_get(bytes, len, &op), 0);
        meta_reply_done(&second.reply);
        check_int(engine_apply(second.engine, &op.op, &second.reply), 0);
        meta_codec_op_done(&op);
    }
    check_int(engine_digest(m->w.engine, one), 0);
    check_int(engine_digest(second.engine, two), 0);
    check_mem(one, two, 32);
    world_done(&second);
}

static void run(uint64_t seed, int steps)
{
    static const struct {
        void (*step)(struct model *m);
        unsigned weight;
    } kinds[] = {
        {step_mknod, 20},  {step_link, 4},     {step_unlink, 10}, {step_rename, 20},
        {step_commit, 30}, {step_truncate, 5}, {step_punch, 4},   {step_clone, 6},
        {step_drop, 6},    {step_settle, 12},  {step_gc, 4},
    };
    struct model *m = calloc(1, sizeof(*m));
    unsigned total = 0;
    m->random = seed * 0x9e3779b97f4a7c15u + 1;
    buf_init(&m->log, 0);
    for (int i = 0; i < ENTRIES; i++)
        m->entries[i].node = -1;
    m->nodes[0] = (struct node){.used = true, .ino = META_ROOT_INO, .mode = S_IFDIR | 0755};
    world_init_raw(&m->w);
    m->w.volume.file_beside_directory = seed % 2;
    struct meta_op op = {.kind = META_FORMAT, .volume = &m->w.volume};
    check_int(apply(m, &op), 0);
    op = (struct meta_op){.kind = META_IMPORT_DIR, .ino = META_ROOT_INO, .flags = META_IMPORT_LAST};
    check_int(apply(m, &op), 0);
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        total += kinds[i].weight;
    for (int i = 0; i < steps; i++) {
        unsigned at = (unsigned)pick(m, total);
        size_t kind = 0;
        while (at >= kinds[kind].weight)
            at -= kinds[kind++].weight;
        kinds[kind].step(m);
        m->w.now += pick(m, SECOND / 2);
        if (i % 200 == 199)
            check_all(m, seed);
        if (i % 1000 == 999)
            world_reopen(&m->w);
    }
    finish(m);
    check_all(m, seed);
    check_bucket(m);
    check(m->steps_done > 0);
    replay(m);
    for (int i = 0; i < OBJECTS; i++)
        free(m->objects[i].bytes);
    buf_done(&m->log);
    world_done(&m->w);
    free(m);
}

TEST(engine_model, random_operations_seed_1, .timeout = 300)
{
    run(1, 3000);
}

TEST(engine_model, random_operations_seed_2, .timeout = 300)
{
    run(2, 3000);
}

TEST(engine_model, random_operations_seed_3, .timeout = 300)
{
    run(3, 3000);
}

TEST(engine_model, random_operations_seed_4, .timeout = 300)
{
    run(4, 3000);
}
