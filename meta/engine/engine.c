#include "meta/engine.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/hash.h"
#include "base/log.h"
#include "engine_impl.h"

#define MEMORY_DEFAULT ((uint64_t)48 << 20)
#define MEMORY_LEAST ((uint64_t)16 << 20)

/* RocksDB gives each new database an identity of its own. One that cannot be read is like none that
 * ever was. */
static void note_contents(struct engine *engine)
{
    char path[4096], text[256];
    uint64_t hash;
    size_t len = 0;
    if (snprintf(path, sizeof(path), "%s/db/IDENTITY", engine->path) < (int)sizeof(path)) {
        FILE *file = fopen(path, "re");
        len = file ? fread(text, 1, sizeof(text), file) : 0;
        if (file)
            fclose(file);
    }
    if (len > 0)
        hash = hash_bytes64(text, len, 0);
    else
        hash_random(&hash, sizeof(hash));
    snprintf(engine->contents.database, sizeof(engine->contents.database), "%016" PRIx64, hash);
    engine->contents.next = MAX(engine->counters.next_object, (uint64_t)1);
}

void engine_contents(const struct engine *engine, struct meta_contents *out)
{
    *out = engine->contents;
}

int engine_open(const struct engine_options *options, struct engine **out, struct error *error)
{
    struct engine *engine = calloc(1, sizeof(*engine));
    if (!engine)
        return error_set(error, -ENOMEM, "no memory");
    pthread_rwlock_init(&engine->gate, NULL);
    for (int i = 0; i < ENGINE_QUEUE_COUNT; i++)
        pthread_mutex_init(&engine->queues[i].lock, NULL);
    pthread_mutex_init(&engine->stores.lock, NULL);
    pthread_mutex_init(&engine->hot_lock, NULL);
    engine->synced_fd = -1;
    engine->read_only = options->read_only;
    engine->no_reserve = options->rebuild_note;
    engine->memory_bytes =
        MAX(options->memory_bytes ? options->memory_bytes : MEMORY_DEFAULT, MEMORY_LEAST);
    engine->path = strdup(options->path);
    int rc = engine->path ? engine_txn_init(&engine->txn, engine) : -ENOMEM;
    if (rc == 0)
        rc = engine_cache_new(&engine->cache, engine->memory_bytes / 4);
    if (rc == 0)
        rc = engine_quota_new(&engine->quota);
    if (rc < 0)
        error_set(error, rc, "no memory");
    else
        rc = engine_db_open(engine, error);
    if (rc == 0) {
        rc = engine_sessions_load(engine);
        if (rc < 0)
            error_set(error, rc, "cannot read the sessions in %s: %s", options->path,
                      strerror(-rc));
    }
    if (rc < 0) {
        engine_close(engine);
        return rc;
    }
    note_contents(engine);
    engine->newest_ns = engine->counters.last_ns;
    *out = engine;
    return 0;
}

void engine_close(struct engine *engine)
{
    if (!engine)
        return;
    engine_db_close(engine);
    engine_sessions_free(engine);
    engine_txn_done(&engine->txn);
    engine_cache_free(engine->cache);
    engine_quota_free(engine->quota);
    engine_stores_free(engine);
    free(engine->store_new);
    pthread_mutex_destroy(&engine->stores.lock);
    pthread_mutex_destroy(&engine->hot_lock);
    pthread_rwlock_destroy(&engine->gate);
    for (int i = 0; i < ENGINE_QUEUE_COUNT; i++)
        pthread_mutex_destroy(&engine->queues[i].lock);
    free(engine->path);
    free(engine);
}

int engine_volume(struct engine *engine, struct meta_volume *out)
{
    if (!atomic_load(&engine->formatted))
        return -ENOENT;
    *out = engine->volume;
    return 0;
}

/* What is accepted while the disk is nearly full: what makes room, what ends work that was begun,
 * and what a mount needs to ask for that. */
static bool makes_room(enum meta_kind kind)
{
    switch (kind) {
    case META_UNLINK:
    case META_DROP:
    case META_PUNCH:
    case META_REMOVEXATTR:
    case META_ABANDON:
    case META_SETTLE_DONE:
    case META_SETTLE_RETRY:
    case META_CARRY_DONE:
    case META_GC_DONE:
    case META_GC_RETRY:
    case META_STORE_DROP:
    case META_STORE_EMPTY:
    case META_SESSION_BEGIN:
    case META_SESSION_END:
        return true;
    default:
        return false;
    }
}

static int dispatch(struct engine_txn *t, const struct meta_op *op, struct meta_reply *reply)
{
    switch (op->kind) {
    case META_MKNOD:
        return engine_apply_mknod(t, op, reply);
    case META_LINK:
        return engine_apply_link(t, op, reply);
    case META_UNLINK:
        return engine_apply_unlink(t, op, reply);
    case META_RENAME:
        return engine_apply_rename(t, op, reply);
    case META_SETATTR:
        return engine_apply_setattr(t, op, reply);
    case META_SETXATTR:
        return engine_apply_setxattr(t, op, reply);
    case META_REMOVEXATTR:
        return engine_apply_removexattr(t, op, reply);
    case META_DROP:
        return engine_apply_drop(t, op, reply);
    case META_RESERVE:
        return engine_apply_reserve(t, op, reply);
    case META_ABANDON:
        return engine_apply_abandon(t, op, reply);
    case META_COMMIT:
        return engine_apply_commit(t, op, reply);
    case META_CLONE:
        return engine_apply_clone(t, op, reply);
    case META_PUNCH:
        return engine_apply_punch(t, op, reply);
    case META_QUOTA_SET:
        return engine_apply_quota_set(t, op, reply);
    case META_FORMAT:
        return engine_apply_format(t, op, reply);
    case META_IMPORT_DIR:
        return engine_apply_import_dir(t, op, reply);
    case META_IMPORT_ONE:
        return engine_apply_import_one(t, op, reply);
    case META_OUTSIDE:
        return engine_apply_outside(t, op, reply);
    case META_CONFLICT:
        return engine_apply_conflict(t, op, reply);
    case META_SETTLE_BEGIN:
        return engine_apply_settle_begin(t, op, reply);
    case META_SETTLE_DONE:
        return engine_apply_settle_done(t, op, reply);
    case META_LATE:
        return engine_apply_late(t, op, reply);
    case META_CLASS_DONE:
        return engine_apply_class_done(t, op, reply);
    case META_SETTLE_RETRY:
        return engine_apply_settle_retry(t, op, reply);
    case META_SETTLE_SUBTREE:
        return engine_apply_settle_subtree(t, op, reply);
    case META_SETTLE_HURRY:
        return engine_apply_settle_hurry(t, op, reply);
    case META_CARRY_BEGIN:
        return engine_apply_carry_begin(t, op, reply);
    case META_CARRY_DONE:
        return engine_apply_carry_done(t, op, reply);
    case META_GC_DONE:
        return engine_apply_gc_done(t, op, reply);
    case META_GC_RETRY:
        return engine_apply_gc_retry(t, op, reply);
    case META_STORE_SET:
        return engine_apply_store_set(t, op, reply);
    case META_STORE_DROP:
        return engine_apply_store_drop(t, op, reply);
    case META_STORE_PLACE:
        return engine_apply_store_place(t, op, reply);
    case META_STORE_EMPTY:
        return engine_apply_store_empty(t, op, reply);
    case META_SESSION_BEGIN:
        return engine_apply_session_begin(t, op);
    case META_SESSION_END:
        return engine_apply_session_end(t, op);
    default:
        return -EINVAL;
    }
}

int engine_apply(struct engine *engine, const struct meta_op *op, struct meta_reply *reply)
{
    if (op->kind != META_FORMAT && !atomic_load(&engine->formatted))
        return -ENOENT;
    int rc = engine_db_ready(engine, makes_room(op->kind));
    if (rc < 0)
        return rc;
    rc = engine_session_check(engine, op, reply);
    if (rc != 0)
        return MIN(rc, 0);
    engine_txn_begin(&engine->txn, op->time_ns);
    engine_quota_begin(&engine->txn, op);
    rc = dispatch(&engine->txn, op, reply);
    if (rc == 0 && op->request)
        rc = engine_session_keep(&engine->txn, op, reply);
    if (rc == 0)
        rc = engine_quota_check(&engine->txn, op);
    if (rc == 0)
        rc = engine_txn_commit(&engine->txn);
    engine_quota_end(&engine->txn, op, rc == 0);
    if (rc == 0)
        engine_session_note(engine, op);
    if (rc == 0)
        engine_stores_note(engine, op);
    if (rc == 0 && op->kind == META_FORMAT) {
        engine->volume = *op->volume;
        atomic_store(&engine->formatted, true);
    }
    return rc;
}

unsigned engine_gone(struct engine *engine, uint64_t **cids)
{
    unsigned count = engine->txn.gone_count;
    engine->txn.gone_count = 0;
    *cids = count ? TAKE_PTR(engine->txn.gone) : NULL;
    return count;
}

/* Begins a use of the database: 0, or -EIO if it could not be opened again after a failure. */
static int enter(struct engine *engine)
{
    pthread_rwlock_rdlock(&engine->gate);
    if (engine->db)
        return 0;
    pthread_rwlock_unlock(&engine->gate);
    return -EIO;
}

static void leave(struct engine *engine)
{
    pthread_rwlock_unlock(&engine->gate);
}

int engine_read(struct engine *engine, const struct meta_op *op, uint64_t import_ttl_ns,
                struct meta_reply *reply)
{
    int rc = enter(engine);
    if (rc < 0)
        return rc;
    rc = engine_read_dispatch(engine, op, import_ttl_ns, reply);
    leave(engine);
    return rc;
}

uint64_t engine_sequence(struct engine *engine)
{
    return atomic_load(&engine->applied);
}

uint64_t engine_last_ns(struct engine *engine)
{
    return atomic_load(&engine->applied_ns);
}

uint64_t engine_newest_ns(const struct engine *engine)
{
    return engine->newest_ns;
}

int engine_sync(struct engine *engine)
{
    return engine->read_only ? 0 : engine_db_sync(engine);
}

int engine_origin(struct engine *engine, uint64_t ino, char *prefix, uint64_t *listed_ns)
{
    struct record_inode inode;
    struct record_origin origin;
    struct record_key key;
    struct arena arena = {0};
    uint8_t room[ENGINE_RECORD_MAX];
    const uint8_t *value;
    size_t len;
    int rc = enter(engine);
    if (rc < 0)
        return rc;
    rc = engine_read_inode(engine, ino, &inode, room);
    if (rc == 0 && !(S_ISDIR(inode.mode) && inode.flags & RECORD_ORIGIN))
        rc = -ENODATA;
    record_key_u64(&key, ino);
    if (rc == 0)
        rc = engine_db_copy(engine, NULL, TABLE_ORIGIN, &key, &arena, &value, &len);
    if (rc == 0 && record_origin_decode(value, len, &origin) < 0)
        rc = -EIO;
    leave(engine);
    if (rc == 0) {
        memcpy(prefix, origin.prefix, origin.prefix_len);
        prefix[origin.prefix_len] = '\0';
        *listed_ns = inode.listed_ns;
    }
    arena_done(&arena);
    return rc;
}

static struct engine_queue *queue_of(struct engine *engine, enum record_work kind)
{
    return &engine->queues[kind == RECORD_WORK_GC ? ENGINE_QUEUE_GC : ENGINE_QUEUE_SETTLE];
}

/* No row is due before the result. */
static uint64_t queue_begin(struct engine_queue *queue, uint64_t *walk)
{
    pthread_mutex_lock(&queue->lock);
    *walk = ++queue->walks;
    uint64_t start = queue->head_ns = MIN(queue->head_ns, queue->added_ns);
    queue->added_ns = UINT64_MAX;
    pthread_mutex_unlock(&queue->lock);
    return start;
}

/* A walk found that the first row is due at `first` (UINT64_MAX: there is none). */
static void queue_end(struct engine_queue *queue, uint64_t walk, uint64_t first)
{
    pthread_mutex_lock(&queue->lock);
    if (queue->walks == walk)
        queue->head_ns = first;
    pthread_mutex_unlock(&queue->lock);
}

/* Calls `each` for the rows of a work queue up to a time, until it returns something else than 0
 * (then that is the result). *next_due_ns: of the first row behind, or a time before it. */
static int queue_walk(struct engine *engine, enum record_work kind, uint64_t until_ns,
                      int (*each)(void *arg, uint64_t id, const uint8_t *value, size_t len),
                      void *arg, uint64_t *next_due_ns)
{
    struct engine_queue *queue = queue_of(engine, kind);
    struct record_key key;
    struct engine_iter iter;
    const uint8_t *k, *v;
    size_t k_len, v_len;
    int rc;
    uint64_t walk, start = queue_begin(queue, &walk), first = UINT64_MAX;
    if (next_due_ns)
        *next_due_ns = start > until_ns && start != UINT64_MAX ? start : 0;
    if (start > until_ns)
        return 0;
    record_key_work2(&key, (uint8_t)kind, start, 0);
    engine_iter_init(&iter, engine, NULL, TABLE_WORK, &key, NULL, 1);
    while ((rc = engine_iter_get(&iter, &k, &k_len, &v, &v_len)) > 0) {
        if (k_len != 17) {
            rc = -EIO;
            break;
        }
        uint64_t due = record_get_u64(k + 1);
        first = MIN(first, due);
        if (due > until_ns) {
            if (next_due_ns)
                *next_due_ns = due;
            rc = 0;
            break;
        }
        rc = each(arg, record_get_u64(k + 9), v, v_len);
        if (rc != 0)
            break;
        engine_iter_next(&iter);
    }
    engine_iter_done(&iter);
    if (rc >= 0)
        queue_end(queue, walk, first);
    return rc;
}

struct due_list {
    struct engine *engine;
    struct engine_work *work;
    struct meta_object *objects;
    int count, max;
};

static int due_settle(void *arg, uint64_t id, const uint8_t *value, size_t len)
{
    struct due_list *list = arg;
    struct record_queue row;
    if (list->count == list->max)
        return 1;
    if (record_queue_decode(value, len, &row) < 0)
        return -EIO;
    list->work[list->count++] = (struct engine_work){.id = id, .subtree = row.subtree};
    return 0;
}

int engine_settle_due(struct engine *engine, uint64_t now_ns, struct engine_work *out, int max,
                      uint64_t *next_due_ns)
{
    struct due_list list = {.engine = engine, .work = out, .max = max};
    int rc = enter(engine);
    if (rc < 0)
        return rc;
    rc = queue_walk(engine, RECORD_WORK_SETTLE, now_ns, due_settle, &list, next_due_ns);
    leave(engine);
    return rc < 0 ? rc : list.count;
}

static int object_export(struct engine *engine, uint64_t id, struct meta_object *out)
{
    struct record_key key;
    struct record_object object;
    uint8_t room[ENGINE_RECORD_MAX];
    record_key_u64(&key, id);
    int rc = engine_db_get(engine, TABLE_OBJECT, key.bytes, key.len, room);
    if (rc < 0)
        return rc;
    if (record_object_decode(room, (size_t)rc, &object) < 0)
        return -EIO;
    engine_object_export(id, &object, out);
    return 0;
}

static int due_gc(void *arg, uint64_t id, const uint8_t *value, size_t len)
{
    struct due_list *list = arg;
    if (list->count == list->max)
        return 1;
    int rc = object_export(list->engine, id, &list->objects[list->count]);
    if (rc == 0)
        list->count++;
    return rc == -ENOENT ? 0 : rc;
}

int engine_gc_due(struct engine *engine, uint64_t now_ns, struct meta_object *out, int max,
                  uint64_t *next_due_ns)
{
    struct due_list list = {.engine = engine, .objects = out, .max = max};
    int rc = enter(engine);
    if (rc < 0)
        return rc;
    rc = queue_walk(engine, RECORD_WORK_GC, now_ns, due_gc, &list, next_due_ns);
    leave(engine);
    return rc < 0 ? rc : list.count;
}

struct below {
    struct engine *engine;
    uint64_t top, found;
};

/* A renamed directory above `top` matters to it as well. */
static int unsettled_row(void *arg, uint64_t id, const uint8_t *value, size_t len)
{
    struct below *below = arg;
    struct record_queue row;
    if (record_queue_decode(value, len, &row) < 0)
        return -EIO;
    int rc = engine_read_below(below->engine, id, below->top);
    if (rc == 0 && row.subtree)
        rc = engine_read_below(below->engine, below->top, id);
    if (rc > 0)
        below->found = id;
    return rc;
}

uint64_t engine_unsettled_below(struct engine *engine, uint64_t ino)
{
    struct below below = {.engine = engine, .top = ino};
    int rc = enter(engine);
    if (rc < 0)
        return ino;
    rc = queue_walk(engine, RECORD_WORK_SETTLE, UINT64_MAX, unsettled_row, &below, NULL);
    leave(engine);
    return rc < 0 ? ino : below.found;
}

int engine_settle_hurry(struct engine *engine, uint64_t ino, uint64_t now_ns)
{
    struct meta_op op = {.kind = META_SETTLE_HURRY, .ino = ino, .time_ns = now_ns};
    struct meta_reply reply;
    meta_reply_init(&reply);
    int rc = engine_apply(engine, &op, &reply);
    meta_reply_done(&reply);
    return rc;
}

int engine_reserved(struct engine *engine, uint64_t after, struct meta_object *out, int max)
{
    struct record_key lower, upper;
    struct engine_iter iter;
    const uint8_t *k;
    size_t k_len;
    int count = 0, rc;
    record_key_work(&lower, RECORD_WORK_RESERVED, after + 1);
    record_key_work(&upper, RECORD_WORK_RESERVED + 1, 0);
    rc = enter(engine);
    if (rc < 0)
        return rc;
    engine_iter_init(&iter, engine, NULL, TABLE_WORK, &lower, &upper, 0);
    while (count < max && (rc = engine_iter_get(&iter, &k, &k_len, NULL, NULL)) > 0) {
        rc = k_len == 9 ? object_export(engine, record_get_u64(k + 1), &out[count]) : -EIO;
        if (rc < 0)
            break;
        count++;
        engine_iter_next(&iter);
    }
    engine_iter_done(&iter);
    leave(engine);
    return count < max && rc < 0 ? rc : count;
}

int engine_reserved_for(struct engine *engine, uint64_t object, uint64_t *ino)
{
    struct record_key key;
    struct record_object record;
    uint8_t room[ENGINE_RECORD_MAX];
    record_key_u64(&key, object);
    int rc = enter(engine);
    if (rc < 0)
        return rc;
    rc = engine_db_get(engine, TABLE_OBJECT, key.bytes, key.len, room);
    if (rc >= 0 && record_object_decode(room, (size_t)rc, &record) < 0)
        rc = -EIO;
    leave(engine);
    if (rc < 0)
        return rc;
    if (record.state != META_OBJECT_RESERVED)
        return -ENOENT;
    *ino = record.ino;
    return 0;
}

/* Inodes that a table has rows of. */
static int inos_in(struct engine *engine, enum engine_table table, uint64_t after, uint64_t *out,
                   int max)
{
    struct record_key lower, upper;
    struct engine_iter iter;
    const uint8_t *k;
    size_t k_len;
    int count = 0, rc = 0;
    record_key_u64(&lower, after + 1);
    record_key_u64(&upper, UINT64_MAX);
    rc = enter(engine);
    if (rc < 0)
        return rc;
    engine_iter_init(&iter, engine, NULL, table, &lower, &upper, 0);
    while (count < max && (rc = engine_iter_get(&iter, &k, &k_len, NULL, NULL)) > 0) {
        if (k_len != 8) {
            rc = -EIO;
            break;
        }
        out[count++] = record_get_u64(k);
        engine_iter_next(&iter);
    }
    engine_iter_done(&iter);
    leave(engine);
    return rc < 0 ? rc : count;
}

int engine_sustained(struct engine *engine, uint64_t after, uint64_t *out, int max)
{
    return inos_in(engine, TABLE_SUSTAINED, after, out, max);
}

int engine_origins(struct engine *engine, uint64_t after, uint64_t *out, int max)
{
    return inos_in(engine, TABLE_ORIGIN, after, out, max);
}

void engine_stats(struct engine *engine, struct engine_stats *out)
{
    *out = (struct engine_stats){.inodes = atomic_load(&engine->inodes),
                                 .applied = atomic_load(&engine->applied)};
    if (enter(engine) < 0)
        return;
    out->memory_bytes = engine_cache_bytes(engine->cache);
    out->memory_bytes += rocksdb_cache_get_usage(engine->block_cache);
    for (int i = 0; i < TABLE_COUNT; i++) {
        uint64_t value;
        if (rocksdb_property_int_cf(engine->db, engine->tables[i],
                                    "rocksdb.cur-size-all-mem-tables", &value) == 0)
            out->memory_bytes += value;
        if (rocksdb_property_int_cf(engine->db, engine->tables[i], "rocksdb.total-sst-files-size",
                                    &value) == 0)
            out->disk_bytes += value;
    }
    leave(engine);
}
