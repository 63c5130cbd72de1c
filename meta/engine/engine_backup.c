/* What backup and restore need of the engine. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "engine_impl.h"

/* Numbers that a restored database does not give out again: what the volume did after the backup
 * used numbers that the backup does not know, and objects in the bucket, cached bytes and staged
 * files still carry them. */
#define NUMBERS_SKIPPED ((uint64_t)1 << 32)

int engine_checkpoint(struct engine *engine, const char *directory, struct error *error)
{
    char *message = NULL;
    pthread_rwlock_rdlock(&engine->gate);
    int rc = engine->db ? 0 : -EIO;
    rocksdb_checkpoint_t *checkpoint =
        rc ? NULL : rocksdb_checkpoint_object_create(engine->db, &message);
    if (checkpoint) {
        rocksdb_checkpoint_create(checkpoint, directory, 0, &message);
        rocksdb_checkpoint_object_destroy(checkpoint);
    }
    pthread_rwlock_unlock(&engine->gate);
    if (message) {
        error_set(error, -EIO, "cannot make a checkpoint in %s: %s", directory, message);
        rocksdb_free(message);
        return -EIO;
    }
    return rc ? error_set(error, rc, "the database is not open") : 0;
}

int engine_each_object(struct engine *engine,
                       int (*each)(void *arg, const struct engine_object *object), void *arg)
{
    struct record_key first;
    struct engine_iter iter;
    struct arena arena = {0};
    const uint8_t *k, *v, *value;
    size_t k_len, v_len, len;
    int rc;
    record_key_store(&first, NULL, 0);
    engine_iter_init(&iter, engine, NULL, TABLE_KEY, &first, NULL, first.len);
    while ((rc = engine_iter_get(&iter, &k, &k_len, &v, &v_len)) > 0) {
        struct record_object object = {0};
        struct record_key key;
        arena_reset(&arena);
        rc = k_len > 2 && v_len == 9 ? 0 : -EIO;
        if (rc == 0) {
            record_key_u64(&key, record_get_u64(v + 1));
            rc = engine_db_copy(engine, NULL, TABLE_OBJECT, &key, &arena, &value, &len);
        }
        if (rc == 0 && record_object_decode(value, len, &object) < 0)
            rc = -EIO;
        if (rc == 0 && object.state == META_OBJECT_LIVE)
            rc = each(arg, &(struct engine_object){.key = object.key,
                                                   .key_len = object.key_len,
                                                   .etag = object.etag,
                                                   .etag_len = object.etag_len,
                                                   .size = object.size,
                                                   .ino = object.ino});
        if (rc != 0)
            break;
        engine_iter_next(&iter);
    }
    engine_iter_done(&iter);
    arena_done(&arena);
    return rc;
}

/* A reserved object may have become a file after the backup: nothing may be deleted on its account.
 * What is at its key, if anything, is found by import. */
static int forget_reserved(struct engine_txn *t, uint64_t id)
{
    struct record_object object;
    int rc = engine_object_get(t, id, &object);
    if (rc == 0 && object.state == META_OBJECT_RESERVED)
        rc = engine_object_forget(t, id, &object);
    return rc == -ENOENT ? 0 : rc;
}

static int drop_step(struct engine_txn *t, uint64_t ino)
{
    struct engine_node *node;
    struct record_step step;
    int rc = engine_txn_inode(t, ino, &node);
    if (rc == 0)
        rc = engine_step_get(t, node, &step);
    if (rc == 0)
        rc = forget_reserved(t, step.target);
    return rc < 0 ? rc : engine_step_drop(t, node);
}

static int each_row(struct engine_txn *t, enum record_work kind,
                    int (*each)(struct engine_txn *t, uint64_t id))
{
    struct record_key prefix = {.len = 1, .bytes = {(uint8_t)kind}};
    struct engine_iter iter;
    const uint8_t *k;
    size_t k_len;
    int rc;
    engine_iter_init(&iter, t->engine, NULL, TABLE_WORK, &prefix, NULL, 1);
    while ((rc = engine_iter_get(&iter, &k, &k_len, NULL, NULL)) > 0) {
        rc = k_len == 9 ? each(t, record_get_u64(k + 1)) : -EIO;
        if (rc < 0)
            break;
        engine_iter_next(&iter);
    }
    engine_iter_done(&iter);
    return rc;
}

int engine_restored(struct engine *engine)
{
    struct engine_txn *t = &engine->txn;
    engine_txn_begin(t, engine->counters.last_ns);
    int rc = each_row(t, RECORD_WORK_STEP, drop_step);
    if (rc == 0)
        rc = each_row(t, RECORD_WORK_RESERVED, forget_reserved);
    t->counters.next_ino += NUMBERS_SKIPPED;
    /* On a boundary, so that each number tells whether it is of before: engine_is_earlier. */
    t->counters.next_object = (t->counters.next_object / NUMBERS_SKIPPED + 2) * NUMBERS_SKIPPED;
    if (rc == 0)
        rc = engine_txn_commit(t);
    return rc < 0 ? rc : engine_sync(engine);
}

bool engine_is_earlier(const struct engine *engine, uint64_t object)
{
    return object / NUMBERS_SKIPPED < engine->contents.next / NUMBERS_SKIPPED;
}
