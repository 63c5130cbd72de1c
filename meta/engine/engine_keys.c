/* The key table in order, for checks against a listing. Any thread. */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine_impl.h"
#include "s3/mux.h"

static int export(struct engine *engine, uint64_t id, struct meta_object *out)
{
    struct arena arena = {0};
    struct record_object object;
    struct record_key key;
    const uint8_t *value;
    size_t len;
    record_key_u64(&key, id);
    int rc = engine_db_copy(engine, NULL, TABLE_OBJECT, &key, &arena, &value, &len);
    if (rc == 0 && record_object_decode(value, len, &object) < 0)
        rc = -EIO;
    if (rc == 0)
        engine_object_export(id, &object, out);
    arena_done(&arena);
    return rc;
}

int engine_keys(struct engine *engine, const char *after, struct meta_object *out, int max)
{
    struct record_key lower, upper;
    struct engine_iter iter;
    const uint8_t *k, *v;
    size_t k_len, v_len, after_len = after ? strlen(after) : 0;
    size_t route = 0;
    int count = 0, rc = 0;
    if (after)
        store_route(after, after_len, &route);
    record_key_store(&lower, after, after_len);
    if (after)
        lower.bytes[lower.len++] = 0; /* the first behind it */
    record_key_store(&upper, after, route);
    if (record_key_next_prefix(&upper) < 0)
        return -EINVAL;
    pthread_rwlock_rdlock(&engine->gate);
    if (!engine->db) {
        pthread_rwlock_unlock(&engine->gate);
        return -EIO;
    }
    engine_iter_init(&iter, engine, NULL, TABLE_KEY, &lower, &upper, 0);
    while (count < max && (rc = engine_iter_get(&iter, &k, &k_len, &v, &v_len)) > 0) {
        rc = v_len == 9 ? export(engine, record_get_u64(v + 1), &out[count]) : -EIO;
        if (rc == 0)
            count++;
        else if (rc != -ENOENT)
            break;
        engine_iter_next(&iter);
    }
    engine_iter_done(&iter);
    pthread_rwlock_unlock(&engine->gate);
    return rc < 0 && rc != -ENOENT ? rc : count;
}

int engine_key_object(struct engine *engine, const char *key, struct meta_object *out)
{
    struct arena arena = {0};
    struct record_key k;
    const uint8_t *value;
    size_t len;
    record_key_store(&k, key, strlen(key));
    pthread_rwlock_rdlock(&engine->gate);
    int rc = engine->db ? engine_db_copy(engine, NULL, TABLE_KEY, &k, &arena, &value, &len) : -EIO;
    if (rc == 0 && out)
        rc = len == 9 ? export(engine, record_get_u64(value + 1), out) : -EIO;
    pthread_rwlock_unlock(&engine->gate);
    arena_done(&arena);
    return rc == 0 ? 1 : rc == -ENOENT ? 0 : rc;
}

int engine_key_known(struct engine *engine, const char *key)
{
    return engine_key_object(engine, key, NULL);
}
