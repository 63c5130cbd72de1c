/* The volumes of `sluice prefix`. */
#include "prefix.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/pool.h"

#define RECORD_MAX (16 << 10)
#define LEASE_MS 90000 /* an owner that has not renewed for so long is gone */
#define NESTED_MAX 10000
#define THREADS 16

static int fail_store(struct error *error, const struct store_op *op, const char *what)
{
    *error = op->error;
    if (!error->code)
        error_set(error, op->result, "%s", strerror(-op->result));
    error_prefix(error, "%s", what);
    return op->result;
}

static int key_of(const struct prefix *prefix, const char *name, char key[STORE_KEY_MAX + 1],
                  struct error *error)
{
    int n = snprintf(key, STORE_KEY_MAX + 1, "%s%s", prefix->path, name);
    return n > STORE_KEY_MAX ? error_set(error, -ENAMETOOLONG, "the prefix is too long") : 0;
}

int prefix_read(struct prefix *prefix, const char *name, char etag[STORE_ETAG_MAX], json_t **out,
                struct error *error)
{
    char key[STORE_KEY_MAX + 1], bytes[RECORD_MAX];
    struct store_op op = {
        .kind = STORE_GET, .buf = bytes, .buf_len = sizeof(bytes), .length = sizeof(bytes)};
    int r = key_of(prefix, name, key, error);
    if (r < 0)
        return r;
    *out = NULL;
    op.key = key;
    r = store_wait(prefix->store, &op);
    if (r == -ENOENT && strcmp(op.error.store_code, "NoSuchBucket") != 0)
        r = 0;
    else if (r < 0)
        fail_store(error, &op, "reading the volume's record");
    else if (!(*out = json_loadb(bytes, op.got, 0, NULL)) || !json_is_object(*out))
        r = error_set(error, -EBADMSG, "%s is not a record of Sluice", key);
    if (r == 0 && *out && etag)
        snprintf(etag, STORE_ETAG_MAX, "%s", op.info.etag);
    if (r < 0) {
        json_decref(*out);
        *out = NULL;
    }
    store_op_reset(&op);
    return r;
}

/* With `etag` only over that object, without only if nothing is there. */
static int write_record(struct prefix *prefix, json_t *record, const char *etag,
                        struct error *error)
{
    char key[STORE_KEY_MAX + 1];
    int r = key_of(prefix, PREFIX_RECORD, key, error);
    if (r < 0)
        return r;
    cleanup(free_ptr) char *text = json_dumps(record, JSON_COMPACT);
    if (!text)
        return error_set(error, -ENOMEM, "out of memory");
    struct iovec body = {text, strlen(text)};
    struct store_op op = {.kind = STORE_PUT,
                          .key = key,
                          .iov = &body,
                          .iov_count = 1,
                          .if_match = etag,
                          .if_none_match = !etag,
                          .content_type = "application/json"};
    r = store_wait(prefix->store, &op);
    if (r < 0)
        fail_store(error, &op, "writing the volume's record");
    store_op_reset(&op);
    return r;
}

int prefix_compare(json_t *record, const char *name, uint64_t size, const char *on_delete,
                   struct error *error)
{
    const char *its_name = json_string_value(json_object_get(record, "name"));
    const char *its_end = json_string_value(json_object_get(record, "on_delete"));
    uint64_t its_size = (uint64_t)json_integer_value(json_object_get(record, "size"));
    if (!its_name || strcmp(its_name, name) != 0)
        return error_set(error, -EEXIST, "the volume '%s' is there", its_name ? its_name : "");
    if (its_size != size)
        return error_set(error, -EEXIST, "the volume is there with %" PRIu64 " bytes, not %" PRIu64,
                         its_size, size);
    if (!its_end || strcmp(its_end, on_delete) != 0)
        return error_set(error, -EEXIST, "the volume is there with onDelete: %s",
                         its_end ? its_end : "");
    return 0;
}

static int check_empty(struct prefix *prefix, struct error *error)
{
    struct store_op op = {.kind = STORE_LIST, .prefix = prefix->path, .max_keys = 1};
    int r = store_wait(prefix->store, &op);
    if (r < 0)
        fail_store(error, &op, "looking whether the prefix is empty");
    else if (op.out_list.count)
        r = error_set(error, -EEXIST, "there are objects at the prefix, such as %.200s",
                      op.out_list.entries[0].name);
    store_op_reset(&op);
    return r;
}

int prefix_create(struct prefix *prefix, const char *name, uint64_t size, const char *on_delete,
                  json_t **out, struct error *error)
{
    json_t *record = NULL;
    bool created = false;
    int r = prefix_read(prefix, PREFIX_RECORD, NULL, &record, error);
    if (r == 0 && !record) {
        r = check_empty(prefix, error);
        record = json_pack("{s:i,s:s,s:I,s:s}", "format", 1, "name", name, "size", (json_int_t)size,
                           "on_delete", on_delete);
        if (r == 0)
            r = write_record(prefix, record, NULL, error);
        created = r == 0;
        if (r == -EEXIST) { /* somebody else was quicker, perhaps with the same */
            json_t *there = NULL;
            if (prefix_read(prefix, PREFIX_RECORD, NULL, &there, NULL) == 0 && there) {
                json_decref(record);
                record = there;
                r = 0;
            }
        }
    }
    if (r == 0 && !created)
        r = prefix_compare(record, name, size, on_delete, error);
    if (r == 0)
        *out = json_pack("{s:O,s:b}", "record", record, "created", created);
    json_decref(record);
    return r;
}

int prefix_resize(struct prefix *prefix, uint64_t size, json_t **out, struct error *error)
{
    char etag[STORE_ETAG_MAX];
    json_t *record = NULL;
    int r = prefix_read(prefix, PREFIX_RECORD, etag, &record, error);
    if (r == 0 && !record)
        r = error_set(error, -ENOENT, "there is no volume at this prefix");
    if (r == 0 && (uint64_t)json_integer_value(json_object_get(record, "size")) < size) {
        json_object_set_new(record, "size", json_integer((json_int_t)size));
        r = write_record(prefix, record, etag, error);
    }
    if (r == 0)
        *out = json_pack("{s:O}", "record", record);
    json_decref(record);
    return r;
}

/* Volumes further down: "a/b/" for each a/b/.sluice/. */
struct nested {
    char *list[NESTED_MAX];
    size_t count;
};

struct removal {
    struct prefix *prefix;
    struct nested *nested;
    struct pool *pool;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t idle;
    size_t running;
    uint64_t deleted, left;
    struct error error; /* the first one */
};

struct victim {
    struct pool_task task;
    struct removal *removal;
    char key[STORE_KEY_MAX + 1];
};

static bool is_nested(const struct nested *nested, const char *key)
{
    for (size_t i = 0; i < nested->count; i++)
        if (strncmp(key, nested->list[i], strlen(nested->list[i])) == 0)
            return true;
    return false;
}

/* Its own internal objects need no tag: the place is Sluice's. */
static bool is_internal(const struct prefix *prefix, const char *key)
{
    return strncmp(key + strlen(prefix->path), ".sluice/", 8) == 0;
}

static bool is_record(const struct prefix *prefix, const char *key)
{
    return strcmp(key + strlen(prefix->path), PREFIX_RECORD) == 0;
}

static int delete_key(struct store *store, const char *key, const char *etag, struct error *error)
{
    struct store_op op = {.kind = STORE_DELETE, .key = key, .if_match = etag};
    int r = store_wait(store, &op);
    if (r < 0)
        fail_store(error, &op, key);
    store_op_reset(&op);
    return r;
}

/* 1: deleted, 0: left. */
static int delete_if_ours(const struct removal *removal, const char *key, struct error *error)
{
    struct store *store = removal->prefix->store;
    if (is_internal(removal->prefix, key)) {
        int r = delete_key(store, key, NULL, error);
        return r < 0 ? r : 1;
    }
    struct store_op op = {.kind = STORE_HEAD, .key = key};
    int r = store_wait(store, &op);
    bool ours =
        r == 0 && store_op_meta(&op, "sluice-volume") && store_op_meta(&op, "sluice-object");
    char etag[STORE_ETAG_MAX];
    snprintf(etag, sizeof(etag), "%s", op.info.etag);
    if (r < 0 && r != -ENOENT)
        fail_store(error, &op, key);
    store_op_reset(&op);
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    if (!ours)
        return 0;
    r = delete_key(store, key, etag, error);
    return r == -EEXIST ? 0 : r < 0 ? r : 1; /* it has just become somebody else's */
}

static void run_victim(struct pool_task *task)
{
    struct victim *v = container_of(task, struct victim, task);
    struct removal *removal = v->removal;
    struct error error = {0};
    int r = delete_if_ours(removal, v->key, &error);
    pthread_mutex_lock(&removal->lock);
    if (r < 0 && !removal->error.code)
        removal->error = error;
    removal->deleted += r > 0;
    removal->left += r == 0;
    if (!--removal->running)
        pthread_cond_signal(&removal->idle);
    pthread_mutex_unlock(&removal->lock);
    free(v);
}

static int submit(struct removal *removal, const char *key)
{
    struct victim *v = calloc(1, sizeof(*v));
    if (!v)
        return -ENOMEM;
    v->removal = removal;
    v->task.run = run_victim;
    snprintf(v->key, sizeof(v->key), "%s", key);
    pthread_mutex_lock(&removal->lock);
    removal->running++;
    pthread_mutex_unlock(&removal->lock);
    pool_submit(removal->pool, &v->task);
    return 0;
}

static int remove_page(struct removal *removal, const struct store_list *page)
{
    int r = 0;
    for (size_t i = 0; i < page->count && r == 0; i++) {
        const char *key = page->entries[i].name;
        if (is_nested(removal->nested, key))
            removal->left++;
        else if (!is_record(removal->prefix, key))
            r = submit(removal, key);
    }
    pthread_mutex_lock(&removal->lock);
    while (removal->running)
        pthread_cond_wait(&removal->idle, &removal->lock);
    if (r == 0)
        r = removal->error.code;
    pthread_mutex_unlock(&removal->lock);
    return r;
}

static int note_nested(struct removal *removal, const struct store_list *page)
{
    struct nested *nested = removal->nested;
    size_t skip = strlen(removal->prefix->path);
    for (size_t i = 0; i < page->count; i++) {
        const char *key = page->entries[i].name, *at = strstr(key + skip, "/.sluice/");
        if (!at || is_internal(removal->prefix, key) || is_nested(nested, key))
            continue;
        if (nested->count == NESTED_MAX)
            return -E2BIG;
        if (!(nested->list[nested->count] = strndup(key, (size_t)(at + 1 - key))))
            return -ENOMEM;
        nested->count++;
    }
    return 0;
}

/* Every page of the listing goes to `fn`. Keys that a page's work removes do not disturb the next
 * one: it begins behind the last key. */
static int each_page(struct removal *removal,
                     int (*fn)(struct removal *removal, const struct store_list *page),
                     struct error *error)
{
    char after[STORE_KEY_MAX + 1] = "";
    for (bool more = true; more;) {
        struct store_op op = {.kind = STORE_LIST,
                              .prefix = removal->prefix->path,
                              .start_after = after[0] ? after : NULL};
        int r = store_wait(removal->prefix->store, &op);
        if (r < 0)
            fail_store(error, &op, "listing the volume");
        else if ((r = fn(removal, &op.out_list)) < 0)
            *error = removal->error.code ? removal->error : *error;
        more = r == 0 && op.out_list.next_token && op.out_list.count;
        if (more)
            snprintf(after, sizeof(after), "%s", op.out_list.entries[op.out_list.count - 1].name);
        store_op_reset(&op);
        if (r < 0)
            return error->code ? r : error_set(error, r, "deleting: %s", strerror(-r));
    }
    return 0;
}

static int remove_data(struct removal *removal, struct error *error)
{
    int r = each_page(removal, note_nested, error);
    if (r == 0 && (r = pool_new(&removal->pool, "delete", THREADS)) < 0)
        error_set(error, r, "cannot start: %s", strerror(-r));
    if (r == 0)
        r = each_page(removal, remove_page, error);
    pool_free(removal->pool);
    return r;
}

static int check_unused(struct prefix *prefix, struct error *error)
{
    json_t *owner = NULL;
    int r = prefix_read(prefix, PREFIX_OWNER, NULL, &owner, error);
    if (r < 0)
        return r;
    uint64_t renewed_ms =
        (uint64_t)json_integer_value(json_object_get(owner, "renewed_ns")) / NS_PER_MS;
    const char *who = json_string_value(json_object_get(owner, "owner"));
    if (owner && json_is_true(json_object_get(owner, "held")) &&
        clock_wall_ns() / NS_PER_MS < renewed_ms + LEASE_MS)
        r = error_set(error, -EBUSY, "the volume is mounted by %s", who ? who : "another process");
    json_decref(owner);
    return r;
}

int prefix_delete(struct prefix *prefix, json_t **out, struct error *error)
{
    char key[STORE_KEY_MAX + 1];
    json_t *record = NULL;
    int r = prefix_read(prefix, PREFIX_RECORD, NULL, &record, error);
    if (r < 0)
        return r;
    const char *end = json_string_value(json_object_get(record, "on_delete"));
    bool with_data = end && strcmp(end, "delete") == 0, is_volume = record != NULL;
    json_decref(record);
    struct removal removal = {
        .prefix = prefix, .lock = PTHREAD_MUTEX_INITIALIZER, .idle = PTHREAD_COND_INITIALIZER};
    if (is_volume)
        r = check_unused(prefix, error);
    removal.nested = calloc(1, sizeof(*removal.nested));
    if (r == 0 && !removal.nested)
        r = error_set(error, -ENOMEM, "out of memory");
    if (r == 0 && with_data)
        r = remove_data(&removal, error);
    if (r == 0 && is_volume && (r = key_of(prefix, PREFIX_RECORD, key, error)) == 0)
        r = delete_key(prefix->store, key, NULL, error);
    for (size_t i = 0; removal.nested && i < removal.nested->count; i++)
        free(removal.nested->list[i]);
    free(removal.nested);
    if (r == 0)
        *out = json_pack("{s:I,s:I}", "deleted", (json_int_t)removal.deleted, "left",
                         (json_int_t)removal.left);
    return r;
}
