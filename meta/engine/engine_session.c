/*
 * Sessions: who may apply changes, and the answers of the last changes of each, so that one which
 * is sent again, after a lost connection or a restart, is not applied again. docs/protocol.md,
 * "Exactly once".
 *
 * In the system table: 1, session → its record; 2, session, slot → number of the change, answer.
 * A session has META_SESSION_WINDOW slots, used in turn: nothing has to be deleted before its end.
 */
#include <errno.h>
#include <string.h>
#include <uthash.h>

#include "engine_impl.h"
#include "meta/codec.h"

enum { KEY_SESSION = 1, KEY_ANSWER = 2 };

struct engine_session {
    uint64_t id;
    UT_hash_handle hh;
};

static void session_key(struct record_key *key, uint64_t session)
{
    record_key_work(key, KEY_SESSION, session);
}

static void answer_key(struct record_key *key, uint64_t session, uint64_t request)
{
    record_key_work2(key, KEY_ANSWER, session, request % META_SESSION_WINDOW);
}

static struct engine_session *find(struct engine *engine, uint64_t id)
{
    struct engine_session *session;
    HASH_FIND(hh, engine->sessions, &id, sizeof(id), session);
    return session;
}

static int add(struct engine *engine, uint64_t id)
{
    if (find(engine, id))
        return 0;
    struct engine_session *session = calloc(1, sizeof(*session));
    if (!session)
        return -ENOMEM;
    session->id = id;
    HASH_ADD(hh, engine->sessions, id, sizeof(session->id), session);
    return 0;
}

static void forget(struct engine *engine, struct engine_session *session)
{
    HASH_DEL(engine->sessions, session);
    free(session);
}

int engine_sessions(struct engine *engine,
                    int (*each)(void *arg, uint64_t session, const void *record, size_t len),
                    void *arg)
{
    struct record_key lower, upper;
    struct engine_iter iter;
    const uint8_t *key, *value;
    size_t key_len, len;
    int rc;
    session_key(&lower, 0);
    record_key_work(&upper, KEY_SESSION + 1, 0);
    pthread_rwlock_rdlock(&engine->gate);
    if (!engine->db) {
        pthread_rwlock_unlock(&engine->gate);
        return -EIO;
    }
    engine_iter_init(&iter, engine, NULL, TABLE_SYSTEM, &lower, &upper, 0);
    while ((rc = engine_iter_get(&iter, &key, &key_len, &value, &len)) > 0) {
        rc = key_len == 9 ? each(arg, record_get_u64(key + 1), value, len) : -EIO;
        if (rc != 0)
            break;
        engine_iter_next(&iter);
    }
    engine_iter_done(&iter);
    pthread_rwlock_unlock(&engine->gate);
    return rc;
}

static int load_one(void *arg, uint64_t session, const void *record, size_t len)
{
    return add(arg, session);
}

int engine_sessions_load(struct engine *engine)
{
    return engine_sessions(engine, load_one, engine);
}

void engine_sessions_free(struct engine *engine)
{
    struct engine_session *session, *next;
    HASH_ITER(hh, engine->sessions, session, next)
    {
        forget(engine, session);
    }
}

/* Under the gate nothing else opens the database; the applying thread is the one that would. */
static int kept_answer(struct engine *engine, const struct meta_op *op, struct meta_reply *reply)
{
    struct record_key key;
    struct arena arena = {0};
    struct reader r;
    const uint8_t *value;
    size_t len;
    answer_key(&key, op->session, op->request);
    int rc = engine_db_copy(engine, NULL, TABLE_SYSTEM, &key, &arena, &value, &len);
    if (rc == 0) {
        reader_init(&r, value, len);
        uint64_t request = reader_u64(&r);
        if (r.failed)
            rc = -EIO;
        else if (request > op->request)
            rc = -ESTALE; /* so old that its answer is gone: it must not be applied again */
        else if (request == op->request)
            rc = meta_codec_reply_get(value + r.pos, len - r.pos, reply) < 0 ? -EIO : 1;
    }
    arena_done(&arena);
    return rc == -ENOENT ? 0 : rc;
}

int engine_session_check(struct engine *engine, const struct meta_op *op, struct meta_reply *reply)
{
    if (!op->session || op->kind == META_SESSION_BEGIN)
        return 0;
    if (!find(engine, op->session))
        return -ESTALE;
    if (!op->request || !op->retry)
        return 0;
    return kept_answer(engine, op, reply);
}

int engine_session_keep(struct engine_txn *t, const struct meta_op *op,
                        const struct meta_reply *reply)
{
    struct record_key key;
    answer_key(&key, op->session, op->request);
    struct buf *b = engine_txn_scratch(t);
    buf_put_u64(b, op->request);
    meta_codec_reply_put(b, reply);
    int rc = buf_error(b);
    if (rc == 0)
        engine_txn_put_raw(t, TABLE_SYSTEM, &key, b->data, b->len);
    return rc;
}

void engine_session_note(struct engine *engine, const struct meta_op *op)
{
    struct engine_session *session;
    if (op->kind == META_SESSION_END && (session = find(engine, op->session)))
        forget(engine, session);
}

int engine_apply_session_begin(struct engine_txn *t, const struct meta_op *op)
{
    struct record_key key;
    if (!op->session || op->data_len > META_SESSION_RECORD_MAX)
        return -EINVAL;
    /* Known before it is written: if the write fails it is refused at the next open only. */
    int rc = add(t->engine, op->session);
    if (rc < 0)
        return rc;
    session_key(&key, op->session);
    return engine_txn_put(t, TABLE_SYSTEM, &key, op->data, op->data_len);
}

int engine_apply_session_end(struct engine_txn *t, const struct meta_op *op)
{
    struct record_key lower, upper;
    struct engine_iter iter;
    const uint8_t *k;
    size_t k_len;
    int rc;
    record_key_work2(&lower, KEY_ANSWER, op->session, 0);
    record_key_work2(&upper, KEY_ANSWER, op->session, META_SESSION_WINDOW);
    engine_iter_init(&iter, t->engine, NULL, TABLE_SYSTEM, &lower, &upper, 0);
    while ((rc = engine_iter_get(&iter, &k, &k_len, NULL, NULL)) > 0) {
        struct record_key key = {.len = k_len};
        if (k_len > sizeof(key.bytes)) {
            rc = -EIO;
            break;
        }
        memcpy(key.bytes, k, k_len);
        rc = engine_txn_delete(t, TABLE_SYSTEM, &key);
        if (rc < 0)
            break;
        engine_iter_next(&iter);
    }
    engine_iter_done(&iter);
    session_key(&lower, op->session);
    return rc < 0 ? rc : engine_txn_delete(t, TABLE_SYSTEM, &lower);
}
