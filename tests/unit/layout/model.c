#include "model.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/hash.h"
#include "bucket.h"
#include "meta/engine.h"
#include "sim.h"

#define FILES_MAX 256
#define SEEN_MAX 256
#define LONG_AGO ((uint64_t)1 << 62)

struct file {
    uint64_t ino;
    uint8_t *data; /* owned */
    size_t len;
    bool disturbed;      /* somebody else changed or removed an object that it uses */
    bool lagging;        /* HEAD showed what was there before somebody else's object */
    uint64_t extents;    /* a hash of them */
    uint64_t checked_at; /* of the bucket's changes */
};

struct model_reader {
    uint64_t ino, seen[SEEN_MAX];
    unsigned count;
    struct model_reader *next;
};

static struct {
    struct engine *engine;
    struct file files[FILES_MAX];
    unsigned count;
    struct model_reader *readers;
    uint64_t changes; /* of the bucket */
    bool dead;
    enum model_mutant mutant;
} m;

int __real_engine_apply(struct engine *engine, const struct meta_op *op, struct meta_reply *reply);
int __wrap_engine_apply(struct engine *engine, const struct meta_op *op, struct meta_reply *reply);

/* Files */

static struct file *find(uint64_t ino)
{
    for (unsigned i = 0; i < m.count; i++)
        if (m.files[i].ino == ino)
            return &m.files[i];
    return NULL;
}

static uint64_t hash_of(const void *data, size_t len)
{
    return hash_bytes64(data ? data : "", len, len);
}

/* The readers of the file may see this content, too. */
static void tell_readers(const struct file *f)
{
    for (struct model_reader *r = m.readers; r; r = r->next)
        if (r->ino == f->ino && r->count < SEEN_MAX)
            r->seen[r->count++] = hash_of(f->data, f->len);
}

static void set_content(struct file *f, const void *data, size_t len)
{
    uint8_t *copy = malloc(len + 1);
    assert(copy);
    if (len)
        memcpy(copy, data, len);
    free(f->data);
    f->data = copy;
    f->len = len;
    tell_readers(f);
}

static struct file *add(uint64_t ino)
{
    if (m.count == FILES_MAX)
        sim_violation("more than %d files", FILES_MAX);
    struct file *f = &m.files[m.count++];
    *f = (struct file){.ino = ino};
    set_content(f, NULL, 0);
    return f;
}

static void drop(struct file *f)
{
    free(f->data);
    *f = m.files[--m.count];
}

static void resize(struct file *f, size_t len)
{
    if (len > f->len) {
        f->data = realloc(f->data, len + 1);
        memset(f->data + f->len, 0, len - f->len);
    }
    f->len = len;
}

/* A user did something to the file: what it was imported from is his. */
static void release(uint64_t ino)
{
    for (struct bucket_object *o = bucket_all(); o; o = o->hh.next)
        if (o->adopter == ino)
            o->released = true;
}

/* Looks at the tables */

static int extents_of(uint64_t ino, struct meta_reply *reply)
{
    struct meta_op op = {.kind = META_EXTENTS, .ino = ino, .length = LONG_AGO, .time_ns = LONG_AGO};
    meta_reply_init(reply);
    return engine_read(m.engine, &op, 0, reply);
}

static const struct meta_object *object_of(const struct meta_reply *reply, uint64_t id)
{
    for (size_t i = 0; i < reply->object_count; i++)
        if (reply->objects[i].id == id)
            return &reply->objects[i];
    return NULL;
}

static uint64_t fingerprint(const struct meta_reply *reply)
{
    uint64_t hash = reply->attr.size;
    for (size_t i = 0; i < reply->extent_count; i++) {
        const struct meta_extent *e = &reply->extents[i];
        uint64_t row[4] = {e->offset, e->length, e->object, e->object_offset};
        hash = hash_bytes64(row, sizeof(row), hash);
        if (e->kind == META_EXTENT_INLINE)
            hash = hash_bytes64(e->data, e->length, hash);
    }
    return hash;
}

static bool is_same(const struct bucket_object *o, const struct meta_object *object)
{
    if (o && object->changing && o->change >= object->changing && o->id == object->id)
        return true; /* its copy in another class, which nobody has noticed yet */
    return o && !strcmp(o->etag, object->etag) &&
           (object->foreign || o->foreign || o->id == object->id);
}

uint64_t model_user_of(const struct bucket_object *object)
{
    uint64_t user = 0;
    for (unsigned i = 0; i < m.count && m.engine && !user; i++) {
        struct meta_reply reply;
        if (!extents_of(m.files[i].ino, &reply))
            for (size_t j = 0; j < reply.object_count; j++)
                if (!strcmp(reply.objects[j].key, object->key) &&
                    is_same(object, &reply.objects[j]))
                    user = m.files[i].ino;
        meta_reply_done(&reply);
    }
    return user;
}

unsigned model_home(uint64_t ino)
{
    struct engine_place *places = NULL;
    int count = engine_places(m.engine, &places);
    unsigned home = 0;
    for (int i = 0; i < count; i++) {
        bool top = places[i].ino == META_ROOT_INO, other = places[i].class[0];
        if (other || (ino != places[i].ino && engine_below(m.engine, ino, places[i].ino) <= 0))
            continue;
        home = places[i].store;
        if (!top)
            break;
    }
    free(places);
    return home;
}

/* Its directory was renamed or migrated before it was imported: then it is to follow. */
bool model_is_elsewhere(uint64_t ino, const char *key)
{
    if (bucket_store_of(key, &key) != model_home(ino))
        return true;
    struct meta_op op = {.kind = META_PATH, .ino = ino, .time_ns = LONG_AGO};
    struct meta_reply reply;
    meta_reply_init(&reply);
    bool elsewhere = engine_read(m.engine, &op, 0, &reply) != 0 || reply.data_len != strlen(key) ||
                     memcmp(reply.data, key, strlen(key)) != 0;
    meta_reply_done(&reply);
    return elsewhere;
}

static void mark_used(const struct meta_object *object, struct file *f)
{
    uint64_t ino = f->ino;
    struct bucket_object *o = (struct bucket_object *)bucket_find(object->key);
    if (!is_same(o, object))
        return;
    o->referenced_seq = engine_sequence(m.engine);
    f->lagging |= o->foreign && o->lagging;
    if (o->foreign && !o->released && !find(o->adopter)) {
        o->adopter = ino;
        o->released = model_is_elsewhere(ino, object->key);
    }
}

/* The content of a file that was imported anew. */
static void adopt(struct file *f, const struct meta_reply *reply, const char *why)
{
    const struct meta_object *object = reply->object_count == 1 ? &reply->objects[0] : NULL;
    size_t len = 0;
    const uint8_t *data =
        object && object->foreign ? bucket_history(object->key, object->etag, &len) : NULL;
    if (!data)
        sim_violation("%s: file %llu was imported from what nobody else ever put (%s)", why,
                      (unsigned long long)f->ino, object ? object->key : "no object");
    set_content(f, data, len);
    f->disturbed = !is_same(bucket_find(object->key), object);
    mark_used(object, f);
}

static void compare_range(struct file *f, uint64_t at, const void *bytes, uint64_t len,
                          const char *why)
{
    if (at + len > f->len || memcmp(f->data + at, bytes, len) != 0)
        sim_violation(
            "I1/I3: after %s, file %llu has other bytes in [%llu, %llu) than were written", why,
            (unsigned long long)f->ino, (unsigned long long)at, (unsigned long long)at + len);
}

static void compare_zeros(struct file *f, uint64_t from, uint64_t to, const char *why)
{
    for (uint64_t at = from; at < to && at < f->len; at++)
        if (f->data[at])
            sim_violation("I3: after %s, file %llu has lost byte %llu", why,
                          (unsigned long long)f->ino, (unsigned long long)at);
}

static void compare(struct file *f, const struct meta_reply *reply, const char *why)
{
    uint64_t at = 0;
    bool whole = true;
    if (reply->attr.size != f->len)
        sim_violation("after %s, file %llu has %llu bytes, %zu were written", why,
                      (unsigned long long)f->ino, (unsigned long long)reply->attr.size, f->len);
    for (size_t i = 0; i < reply->extent_count; i++) {
        const struct meta_extent *e = &reply->extents[i];
        compare_zeros(f, at, e->offset, why);
        at = e->offset + e->length;
        if (e->kind == META_EXTENT_INLINE) {
            compare_range(f, e->offset, e->data, e->length, why);
            continue;
        }
        const struct meta_object *object = object_of(reply, e->object);
        const struct bucket_object *o = object ? bucket_find(object->key) : NULL;
        if (!object || !is_same(o, object)) {
            whole = false;
            f->disturbed |= object && bucket_taken_by_others(object->key, object->etag);
            if (!f->disturbed)
                sim_violation("I1: after %s, object %llu (%s) of file %llu is not in the bucket",
                              why, (unsigned long long)e->object, object ? object->key : "unknown",
                              (unsigned long long)f->ino);
            continue;
        }
        if (e->object_offset + e->length > o->len)
            sim_violation("an extent ends behind its object %s", object->key);
        compare_range(f, e->offset, o->data + e->object_offset, e->length, why);
    }
    compare_zeros(f, at, f->len, why);
    if (whole)
        f->disturbed = false;
}

/* `imports`: files may follow the bucket where that was changed by others. */
static void check_file(struct file *f, bool imports, const char *why)
{
    struct meta_reply reply;
    int rc = extents_of(f->ino, &reply);
    if (rc || !reply.attr.nlink) {
        if (!imports || (!f->disturbed && !f->lagging && f->len))
            sim_violation("after %s, file %llu is gone", why, (unsigned long long)f->ino);
        drop(f);
        meta_reply_done(&reply);
        return;
    }
    uint64_t extents = fingerprint(&reply);
    if (!f->len)
        f->disturbed = true; /* of an empty file it cannot be seen which object it has */
    for (size_t i = 0; i < reply.object_count; i++)
        mark_used(&reply.objects[i], f);
    if (extents != f->extents && imports) {
        if (!f->disturbed && !f->lagging)
            sim_violation("%s changed file %llu, which nobody else has touched", why,
                          (unsigned long long)f->ino);
        adopt(f, &reply, why);
        f->extents = 0;
    }
    if (extents != f->extents || f->checked_at != m.changes)
        compare(f, &reply, why);
    f->lagging = f->lagging && extents == f->extents;
    f->extents = extents;
    f->checked_at = m.changes;
    meta_reply_done(&reply);
}

static void check_all(bool imports, const char *why)
{
    for (unsigned i = m.count; i > 0; i--)
        check_file(&m.files[i - 1], imports, why);
}

void model_check(const char *why)
{
    m.changes++;
    if (m.engine)
        check_all(false, why);
}

/* What an import brought. */
static void take_new(const struct meta_attr *attr, const char *why)
{
    struct meta_reply body;
    if (!S_ISREG(attr->mode) || !attr->ino || find(attr->ino))
        return;
    if (!extents_of(attr->ino, &body)) {
        struct file *f = add(attr->ino);
        adopt(f, &body, why);
        f->extents = fingerprint(&body);
    }
    meta_reply_done(&body);
}

static void scan(uint64_t dir, const char *why)
{
    struct meta_op op = {
        .kind = META_READDIR, .ino = dir, .count = 1000, .plus = true, .time_ns = LONG_AGO};
    struct meta_reply reply;
    meta_reply_init(&reply);
    int rc = engine_read(m.engine, &op, 0, &reply);
    for (size_t i = 0; (rc == 0 || rc == -EAGAIN) && i < reply.entry_count; i++)
        take_new(&reply.entries[i].attr, why);
    meta_reply_done(&reply);
}

void model_engine(struct engine *engine)
{
    m.engine = engine;
}

void model_disturb(const struct bucket_object *object)
{
    for (unsigned i = 0; i < m.count && m.engine; i++) {
        struct meta_reply reply;
        if (!extents_of(m.files[i].ino, &reply))
            for (size_t j = 0; j < reply.object_count; j++)
                if (!strcmp(reply.objects[j].key, object->key) &&
                    is_same(object, &reply.objects[j]))
                    m.files[i].disturbed = true;
        meta_reply_done(&reply);
    }
    m.changes++;
}

unsigned model_files(void)
{
    return m.count;
}

uint64_t model_disturbed(void)
{
    for (unsigned i = 0; i < m.count; i++)
        if (m.files[i].disturbed && m.files[i].len)
            return m.files[i].ino;
    return 0;
}

uint64_t model_any_file(void)
{
    return m.count ? m.files[sim_below(m.count)].ino : 0;
}

uint64_t model_size(uint64_t ino)
{
    const struct file *f = find(ino);
    return f ? f->len : 0;
}

/* Readers */

struct model_reader *model_reader_begin(uint64_t ino)
{
    struct model_reader *r = calloc(1, sizeof(*r));
    const struct file *f = find(ino);
    r->ino = ino;
    r->next = m.readers;
    m.readers = r;
    if (f)
        r->seen[r->count++] = hash_of(f->data, f->len);
    return r;
}

void model_reader_end(struct model_reader *r, const void *data, size_t len)
{
    struct model_reader **at = &m.readers;
    while (*at != r)
        at = &(*at)->next;
    *at = r->next;
    uint64_t hash = data ? hash_of(data, len) : 0;
    bool seen = !data || r->count == SEEN_MAX;
    for (unsigned i = 0; i < r->count && !seen; i++)
        seen = r->seen[i] == hash;
    if (!seen)
        sim_violation("I5: a reader of file %llu got %zu bytes that it never had",
                      (unsigned long long)r->ino, len);
    free(r);
}

/* What was applied */

static void commit(struct file *f, const struct meta_op *op)
{
    if (op->flags & META_REPLACE)
        resize(f, 0);
    for (size_t i = 0; i < op->extent_count; i++) {
        const struct meta_extent *e = &op->extents[i];
        size_t len = 0;
        const uint8_t *from = e->data;
        if (e->kind == META_EXTENT_OBJECT) {
            from = bucket_written(e->object, &len);
            if (!from || e->object_offset + e->length > len)
                sim_violation("a test committed an object that it had not written");
            from += e->object_offset;
        }
        if (e->offset + e->length > f->len)
            resize(f, e->offset + e->length);
        memcpy(f->data + e->offset, from, e->length);
    }
    if (op->valid & META_SET_SIZE)
        resize(f, op->attr.size);
    tell_readers(f);
}

static void release_below(struct engine *engine, uint64_t top)
{
    for (unsigned i = 0; i < m.count; i++)
        if (m.files[i].ino == top || engine_below(engine, m.files[i].ino, top) > 0)
            release(m.files[i].ino);
}

static void follow(struct engine *engine, const struct meta_op *op, const struct meta_reply *reply)
{
    struct file *f = find(op->ino);
    switch (op->kind) {
    case META_MKNOD:
        if (S_ISREG(op->attr.mode))
            add(reply->attr.ino)->extents = 0;
        break;
    case META_COMMIT:
        release(op->ino);
        if (f)
            commit(f, op);
        break;
    case META_SETATTR:
        if (f && op->valid & META_SET_SIZE) {
            release(op->ino);
            resize(f, op->attr.size);
            tell_readers(f);
        }
        break;
    case META_UNLINK:
        f = find(reply->attr.ino);
        release(reply->attr.ino);
        if (f)
            drop(f);
        break;
    case META_RENAME:
        release_below(engine, reply->attr.ino);
        if (reply->replaced.ino)
            release_below(engine, reply->replaced.ino);
        f = find(reply->replaced.ino);
        if (f && !reply->replaced.nlink)
            drop(f);
        break;
    case META_STORE_PLACE: /* of a class, too: it takes the place of another rule */
        release_below(engine, op->ino);
        break;
    default:
        break;
    }
}

static bool is_import(enum meta_kind kind)
{
    return kind == META_IMPORT_DIR || kind == META_IMPORT_ONE || kind == META_OUTSIDE;
}

void model_mutate(enum model_mutant mutant)
{
    m.mutant = mutant;
}

static bool is_left_out(enum meta_kind kind)
{
    return (m.mutant == MODEL_NO_CONFLICT && kind == META_CONFLICT) ||
           (m.mutant == MODEL_NO_ENTRY && kind == META_CARRY_BEGIN) ||
           (m.mutant == MODEL_NO_LATE && kind == META_LATE);
}

void model_dead(bool dead)
{
    m.dead = dead;
}

int __wrap_engine_apply(struct engine *engine, const struct meta_op *op, struct meta_reply *reply)
{
    if (m.dead)
        return -EIO;
    if (is_left_out(op->kind))
        return 0;
    int rc = __real_engine_apply(engine, op, reply);
    if (rc || engine != m.engine)
        return rc;
    const char *why = meta_kind_name(op->kind);
    sim_trace("%s ino %llu/%llu name %.*s object %llu", why, (unsigned long long)op->ino,
              (unsigned long long)reply->attr.ino, (int)op->name.len, op->name.bytes,
              (unsigned long long)op->object);
    follow(engine, op, reply);
    if (op->kind == META_RESERVE)
        bucket_recorded(reply->objects[0].id, engine_sequence(engine));
    if (op->kind == META_SETTLE_BEGIN && reply->settle.action != META_SETTLE_NOTHING)
        bucket_recorded(reply->settle.change ? reply->settle.change : reply->settle.target.id,
                        engine_sequence(engine));
    check_all(is_import(op->kind), why);
    if (op->kind == META_IMPORT_ONE)
        take_new(&reply->attr, why);
    if (op->kind == META_CONFLICT || op->kind == META_OUTSIDE)
        take_new(&reply->replaced, why);
    if (op->kind == META_IMPORT_DIR)
        scan(op->ino, why);
    return rc;
}
