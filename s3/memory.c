/*
 * A store in memory: Amazon S3's rules to the letter, for tests. Everything runs on the loop
 * thread and ends inside submit, so there are no locks and nothing to cancel.
 *
 * A test sets store->caps.part_min to have EntityTooSmall with small parts.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/hash.h"
#include "s3/backend.h"

#define GIB (1024ull * 1024 * 1024)
#define MD5_LEN 16
#define HEX_LEN (2 * MD5_LEN)

struct content {
    uint8_t *data; /* owned */
    size_t len;
};

struct object {
    char *key; /* owned */
    struct content content;
    struct store_info info;
    struct store_meta *meta; /* owned, with its strings */
    unsigned meta_count;
};

struct part {
    uint32_t number;
    struct content content;
    uint8_t md5[MD5_LEN];
    UT_hash_handle hh;
};

struct upload {
    char id[HEX_LEN + 1];
    uint64_t created_ns;
    struct object *object; /* what it becomes, without content */
    struct part *parts;
    UT_hash_handle hh;
};

struct memory_store {
    struct store store;
    struct object **objects; /* sorted by key */
    size_t count, cap;
    struct upload *uploads;
};

/* Objects */

static void meta_free(struct store_meta *meta, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        free((char *)meta[i].name);
        free((char *)meta[i].value);
    }
    free(meta);
}

static void object_free(struct object *o)
{
    if (!o)
        return;
    meta_free(o->meta, o->meta_count);
    free(o->content.data);
    free(o->key);
    free(o);
}

static void free_object(struct object **o)
{
    object_free(*o);
}

static uint64_t now_ns(void)
{
    return clock_wall_ns() / NS_PER_S * NS_PER_S;
}

/* An object with the key, metadata and class of a request. */
static struct object *object_new(const struct store_op *op)
{
    struct object *o = calloc(1, sizeof(*o));
    if (!o)
        return NULL;
    o->key = strdup(op->key);
    o->meta = calloc(op->meta_count + 1, sizeof(*o->meta));
    if (!o->key || !o->meta)
        goto fail;
    for (; o->meta_count < op->meta_count; o->meta_count++) {
        struct store_meta *m = &o->meta[o->meta_count];
        m->name = strdup(op->meta[o->meta_count].name);
        m->value = strdup(op->meta[o->meta_count].value);
        if (!m->name || !m->value) {
            o->meta_count++;
            goto fail;
        }
    }
    snprintf(o->info.storage_class, sizeof(o->info.storage_class), "%s",
             op->storage_class ? op->storage_class : "STANDARD");
    return o;
fail:
    object_free(o);
    return NULL;
}

static void object_describe(struct object *o)
{
    o->info.size = o->content.len;
    o->info.mtime_ns = now_ns();
}

static void object_etag(struct object *o)
{
    uint8_t md5[MD5_LEN];
    hash_md5(o->content.data, o->content.len, md5);
    hash_hex(md5, sizeof(md5), o->info.etag);
}

/* The first object whose key is not less. */
static size_t position(const struct memory_store *m, const char *key)
{
    size_t low = 0, high = m->count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (strcmp(m->objects[mid]->key, key) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static struct object *find(const struct memory_store *m, const char *key)
{
    size_t at = position(m, key);
    return at < m->count && !strcmp(m->objects[at]->key, key) ? m->objects[at] : NULL;
}

/* Takes `o`, in place of what has its key. */
static int insert(struct memory_store *m, struct object *o)
{
    size_t at = position(m, o->key);
    if (at < m->count && !strcmp(m->objects[at]->key, o->key)) {
        object_free(m->objects[at]);
        m->objects[at] = o;
        return 0;
    }
    if (m->count == m->cap) {
        size_t cap = m->cap ? 2 * m->cap : 64;
        struct object **grown = reallocarray(m->objects, cap, sizeof(struct object *));
        if (!grown)
            return -ENOMEM;
        m->objects = grown;
        m->cap = cap;
    }
    memmove(m->objects + at + 1, m->objects + at, (m->count - at) * sizeof(struct object *));
    m->objects[at] = o;
    m->count++;
    return 0;
}

static void forget(struct memory_store *m, const char *key)
{
    size_t at = position(m, key);
    if (at == m->count || strcmp(m->objects[at]->key, key))
        return;
    object_free(m->objects[at]);
    m->count--;
    memmove(m->objects + at, m->objects + at + 1, (m->count - at) * sizeof(struct object *));
}

/* Results */

static int fail(struct store_op *op, int code, int status, const char *store_code)
{
    const char *key = op->key ? op->key : "";
    error_set(&op->error, code, "%s %s: %s", store_kind_name(op->kind), key, store_code);
    op->error.http_status = status;
    snprintf(op->error.store_code, sizeof(op->error.store_code), "%s", store_code);
    return code;
}

static int no_key(struct store_op *op)
{
    return fail(op, -ENOENT, 404, "NoSuchKey");
}

static int failed_condition(struct store_op *op)
{
    return fail(op, -EEXIST, 412, "PreconditionFailed");
}

/* Conditions of a write, on what has the key now. */
static int check_write(const struct memory_store *m, struct store_op *op)
{
    const struct object *o = find(m, op->key);
    if (op->if_none_match && o)
        return failed_condition(op);
    if (op->if_match && !o)
        return no_key(op);
    if (op->if_match && strcmp(o->info.etag, op->if_match))
        return failed_condition(op);
    return 0;
}

static int gather(const struct store_op *op, struct content *out)
{
    size_t len = 0;
    for (unsigned i = 0; i < op->iov_count; i++)
        len += op->iov[i].iov_len;
    uint8_t *data = malloc(len + 1);
    if (!data)
        return -ENOMEM;
    *out = (struct content){.data = data, .len = len};
    for (unsigned i = 0; i < op->iov_count; i++) {
        if (op->iov[i].iov_len)
            memcpy(data, op->iov[i].iov_base, op->iov[i].iov_len);
        data += op->iov[i].iov_len;
    }
    return 0;
}

static int slice(const struct content *from, uint64_t offset, uint64_t length, struct content *out)
{
    uint8_t *data = malloc(length + 1);
    if (!data)
        return -ENOMEM;
    if (length)
        memcpy(data, from->data + offset, length);
    *out = (struct content){.data = data, .len = length};
    return 0;
}

/* Requests for one object */

static int describe(struct store_op *op, const struct object *o)
{
    for (unsigned i = 0; i < o->meta_count; i++) {
        int rc = store_op_add_meta(op, o->meta[i].name, o->meta[i].value);
        if (rc)
            return rc;
    }
    op->info = o->info;
    return 0;
}

static int do_head(struct memory_store *m, struct store_op *op)
{
    const struct object *o = find(m, op->key);
    return o ? describe(op, o) : no_key(op);
}

static int do_get(struct memory_store *m, struct store_op *op)
{
    const struct object *o = find(m, op->key);
    if (!o)
        return no_key(op);
    if (op->if_match && strcmp(o->info.etag, op->if_match))
        return failed_condition(op);
    if (op->length) {
        if (op->offset >= o->content.len)
            return fail(op, -ERANGE, 416, "InvalidRange");
        op->got = MIN(op->length, o->content.len - op->offset);
        memcpy(op->buf, o->content.data + op->offset, op->got);
    }
    return describe(op, o);
}

static int do_put(struct memory_store *m, struct store_op *op)
{
    int rc = check_write(m, op);
    if (rc)
        return rc;
    cleanup(free_object) struct object *o = object_new(op);
    if (!o || gather(op, &o->content))
        return -ENOMEM;
    object_describe(o);
    object_etag(o);
    rc = insert(m, o);
    if (rc)
        return rc;
    op->info = TAKE_PTR(o)->info;
    op->checked = true;
    return 0;
}

static int do_delete(struct memory_store *m, struct store_op *op)
{
    const struct object *o = find(m, op->key);
    if (o && op->if_match && strcmp(o->info.etag, op->if_match))
        return failed_condition(op);
    forget(m, op->key);
    return 0;
}

static int do_delete_many(struct memory_store *m, struct store_op *op)
{
    for (unsigned i = 0; i < op->key_count; i++)
        forget(m, op->keys[i]);
    return 0;
}

static int find_source(struct memory_store *m, struct store_op *op, const struct object **out)
{
    *out = find(m, op->source_key);
    if (!*out)
        return no_key(op);
    if (op->source_if_match && strcmp((*out)->info.etag, op->source_if_match))
        return failed_condition(op);
    return 0;
}

static int do_copy(struct memory_store *m, struct store_op *op)
{
    const struct object *source;
    int rc = find_source(m, op, &source);
    if (rc)
        return rc;
    if (source->content.len > m->store.caps.copy_max)
        return fail(op, -EFBIG, 400, "InvalidRequest");
    cleanup(free_object) struct object *o = object_new(op);
    if (!o || slice(&source->content, 0, source->content.len, &o->content))
        return -ENOMEM;
    object_describe(o);
    object_etag(o);
    rc = insert(m, o);
    if (rc)
        return rc;
    op->info = TAKE_PTR(o)->info;
    return 0;
}

/* List */

/* A token is 'k' + the last key, or 'p' + the last common prefix that the page before had. */
static size_t list_start(const struct memory_store *m, const struct store_op *op)
{
    const char *prefix = op->prefix ? op->prefix : "";
    size_t at = position(m, prefix);
    const char *after = op->token ? op->token + 1 : op->start_after;
    if (!after)
        return at;
    size_t next = position(m, after);
    if (op->token && op->token[0] == 'p') {
        size_t len = strlen(after);
        while (next < m->count && !strncmp(m->objects[next]->key, after, len))
            next++;
    } else if (next < m->count && !strcmp(m->objects[next]->key, after)) {
        next++;
    }
    return MAX(at, next);
}

/* The length of the common prefix that `key` belongs to; 0 if it is listed itself. */
static size_t group_len(const struct store_op *op, const char *key)
{
    if (!op->delimiter)
        return 0;
    const char *rest = key + (op->prefix ? strlen(op->prefix) : 0);
    const char *end = strstr(rest, op->delimiter);
    return end ? (size_t)(end - key) + strlen(op->delimiter) : 0;
}

static int do_list(struct memory_store *m, struct store_op *op)
{
    if (op->token && op->token[0] != 'k' && op->token[0] != 'p')
        return fail(op, -EINVAL, 400, "InvalidArgument");
    const char *prefix = op->prefix ? op->prefix : "";
    size_t prefix_len = strlen(prefix);
    size_t max = MIN(op->max_keys ? op->max_keys : STORE_LIST_MAX, STORE_LIST_MAX);
    for (size_t i = list_start(m, op); i < m->count;) {
        const struct object *o = m->objects[i];
        if (strncmp(o->key, prefix, prefix_len))
            break;
        if (op->out_list.count == max) {
            const struct store_entry *last = &op->out_list.entries[max - 1];
            op->out_list.next_token = store_op_alloc(op, strlen(last->name) + 2);
            if (!op->out_list.next_token)
                return -ENOMEM;
            op->out_list.next_token[0] = last->is_prefix ? 'p' : 'k';
            strcpy(op->out_list.next_token + 1, last->name);
            break;
        }
        size_t group = group_len(op, o->key);
        int rc;
        if (group) {
            cleanup(free_ptr) char *name = strndup(o->key, group);
            rc = name ? store_op_add_entry(op, name, 0, 0, NULL, true) : -ENOMEM;
            while (i < m->count && !strncmp(m->objects[i]->key, o->key, group))
                i++;
        } else {
            rc =
                store_op_add_entry(op, o->key, o->info.size, o->info.mtime_ns, o->info.etag, false);
            i++;
        }
        if (rc)
            return rc;
    }
    return 0;
}

/* Multipart uploads */

static void part_free(struct upload *u, struct part *p)
{
    HASH_DEL(u->parts, p);
    free(p->content.data);
    free(p);
}

static void upload_free(struct memory_store *m, struct upload *u)
{
    HASH_DEL(m->uploads, u);
    for (struct part *p = u->parts, *next; p; p = next) {
        next = p->hh.next;
        part_free(u, p);
    }
    object_free(u->object);
    free(u);
}

static struct upload *find_upload(const struct memory_store *m, const struct store_op *op)
{
    struct upload *u;
    HASH_FIND_STR(m->uploads, op->upload_id, u);
    return u && !strcmp(u->object->key, op->key) ? u : NULL;
}

static int no_upload(struct store_op *op)
{
    return fail(op, -ENOENT, 404, "NoSuchUpload");
}

static int do_mpu_create(struct memory_store *m, struct store_op *op)
{
    struct upload *u = calloc(1, sizeof(*u));
    if (!u)
        return -ENOMEM;
    u->object = object_new(op);
    if (!u->object) {
        free(u);
        return -ENOMEM;
    }
    u->created_ns = now_ns();
    uint8_t id[MD5_LEN];
    hash_random(id, sizeof(id));
    hash_hex(id, sizeof(id), u->id);
    HASH_ADD_STR(m->uploads, id, u);
    op->out_upload_id = store_op_strdup(op, u->id);
    return op->out_upload_id ? 0 : -ENOMEM;
}

/* Takes the content, in place of an earlier one of the same number. */
static int add_part(struct upload *u, struct store_op *op, struct content *content, bool sum)
{
    uint32_t number = op->part_number;
    struct part *p;
    HASH_FIND(hh, u->parts, &number, sizeof(number), p);
    if (p)
        part_free(u, p);
    p = calloc(1, sizeof(*p));
    if (!p) {
        free(content->data);
        return -ENOMEM;
    }
    p->number = number;
    p->content = *content;
    hash_md5(content->data, content->len, p->md5);
    HASH_ADD(hh, u->parts, number, sizeof(p->number), p);
    op->out_part.number = number;
    hash_hex(p->md5, sizeof(p->md5), op->out_part.etag);
    if (sum) {
        uint32_t crc = __builtin_bswap32(hash_crc32c(0, content->data, content->len));
        hash_base64(&crc, sizeof(crc), op->out_part.crc32c);
    }
    return 0;
}

static int do_mpu_part(struct memory_store *m, struct store_op *op)
{
    struct upload *u = find_upload(m, op);
    if (!u)
        return no_upload(op);
    struct content content;
    int rc = gather(op, &content);
    if (rc)
        return rc;
    if (op->has_crc32c && hash_crc32c(0, content.data, content.len) != op->crc32c) {
        free(content.data);
        return fail(op, -EBADMSG, 400, "BadDigest");
    }
    return add_part(u, op, &content, true);
}

static int do_mpu_part_copy(struct memory_store *m, struct store_op *op)
{
    struct upload *u = find_upload(m, op);
    if (!u)
        return no_upload(op);
    const struct object *source;
    int rc = find_source(m, op, &source);
    if (rc)
        return rc;
    uint64_t length = op->length ? op->length : source->content.len;
    if (op->offset + length > source->content.len)
        return fail(op, -ERANGE, 416, "InvalidRange");
    if (length > m->store.caps.copy_max)
        return fail(op, -EFBIG, 400, "InvalidRequest");
    struct content content;
    rc = slice(&source->content, op->offset, length, &content);
    return rc ? rc : add_part(u, op, &content, false);
}

/* The parts that the request names, checked, joined into the object; its ETag. */
static int join_parts(const struct memory_store *m, const struct upload *u, struct store_op *op,
                      struct object *o)
{
    size_t len = 0;
    for (unsigned i = 0; i < op->part_count; i++) {
        struct part *p;
        char etag[HEX_LEN + 1];
        HASH_FIND(hh, u->parts, &op->parts[i].number, sizeof(p->number), p);
        if (p)
            hash_hex(p->md5, sizeof(p->md5), etag);
        if (!p || strcmp(etag, op->parts[i].etag))
            return fail(op, -EINVAL, 400, "InvalidPart");
        if (i + 1 < op->part_count && p->content.len < m->store.caps.part_min)
            return fail(op, -EINVAL, 400, "EntityTooSmall");
        len += p->content.len;
    }
    cleanup(free_ptr) uint8_t *sums = malloc((size_t)op->part_count * MD5_LEN);
    uint8_t *data = malloc(len + 1);
    if (!sums || !data) {
        free(data);
        return -ENOMEM;
    }
    o->content = (struct content){.data = data, .len = len};
    for (unsigned i = 0; i < op->part_count; i++) {
        struct part *p;
        HASH_FIND(hh, u->parts, &op->parts[i].number, sizeof(p->number), p);
        memcpy(data, p->content.data, p->content.len);
        data += p->content.len;
        memcpy(sums + (size_t)i * MD5_LEN, p->md5, MD5_LEN);
    }
    uint8_t md5[MD5_LEN];
    hash_md5(sums, (size_t)op->part_count * MD5_LEN, md5);
    hash_hex(md5, sizeof(md5), o->info.etag);
    snprintf(o->info.etag + HEX_LEN, sizeof(o->info.etag) - HEX_LEN, "-%u", op->part_count);
    return 0;
}

static int do_mpu_complete(struct memory_store *m, struct store_op *op)
{
    struct upload *u = find_upload(m, op);
    if (!u)
        return no_upload(op);
    int rc = check_write(m, op);
    if (!rc)
        rc = join_parts(m, u, op, u->object);
    if (rc)
        return rc;
    object_describe(u->object);
    rc = insert(m, u->object);
    if (rc) {
        free(u->object->content.data);
        u->object->content = (struct content){0};
        return rc;
    }
    op->info = TAKE_PTR(u->object)->info;
    upload_free(m, u);
    return 0;
}

static int do_mpu_abort(struct memory_store *m, struct store_op *op)
{
    struct upload *u = find_upload(m, op);
    if (u)
        upload_free(m, u);
    return 0;
}

static int by_key_and_time(const struct upload *a, const struct upload *b)
{
    int order = strcmp(a->object->key, b->object->key);
    return order ? order : (a->created_ns > b->created_ns) - (a->created_ns < b->created_ns);
}

/* All on one page: a test has few. */
static int do_mpu_list(struct memory_store *m, struct store_op *op)
{
    const char *prefix = op->prefix ? op->prefix : "";
    HASH_SORT(m->uploads, by_key_and_time);
    for (struct upload *u = m->uploads; u; u = u->hh.next) {
        if (strncmp(u->object->key, prefix, strlen(prefix)))
            continue;
        int rc = store_op_add_entry(op, u->object->key, 0, u->created_ns, u->id, false);
        if (rc)
            return rc;
    }
    return 0;
}

/* The store */

static int (*const handlers[STORE_KIND_COUNT])(struct memory_store *m, struct store_op *op) = {
    [STORE_HEAD] = do_head,
    [STORE_GET] = do_get,
    [STORE_PUT] = do_put,
    [STORE_DELETE] = do_delete,
    [STORE_DELETE_MANY] = do_delete_many,
    [STORE_COPY] = do_copy,
    [STORE_LIST] = do_list,
    [STORE_MPU_CREATE] = do_mpu_create,
    [STORE_MPU_PART] = do_mpu_part,
    [STORE_MPU_PART_COPY] = do_mpu_part_copy,
    [STORE_MPU_COMPLETE] = do_mpu_complete,
    [STORE_MPU_ABORT] = do_mpu_abort,
    [STORE_MPU_LIST] = do_mpu_list,
};

static void memory_submit(struct store *store, struct store_op *op)
{
    struct memory_store *m = container_of(store, struct memory_store, store);
    store_complete(op, handlers[op->kind](m, op));
}

static void memory_cancel(struct store *store, struct store_op *op)
{
}

static void memory_free(struct store *store)
{
    struct memory_store *m = container_of(store, struct memory_store, store);
    while (m->uploads)
        upload_free(m, m->uploads);
    for (size_t i = 0; i < m->count; i++)
        object_free(m->objects[i]);
    free(m->objects);
    store_done(store);
    free(m);
}

static const struct store_backend backend = {
    .kind = "memory",
    .submit = memory_submit,
    .cancel = memory_cancel,
    .free = memory_free,
};

int store_memory_new(struct loop *loop, struct store **out)
{
    struct memory_store *m = calloc(1, sizeof(*m));
    if (!m)
        return -ENOMEM;
    store_init(&m->store, &backend, loop, NULL, "memory://");
    m->store.caps = (struct store_caps){
        .put_if_none_match = true,
        .put_if_match = true,
        .complete_if_none_match = true,
        .complete_if_match = true,
        .complete_etag = true,
        .copy_if_match = true,
        .file_beside_directory = true,
        .server_copy = true,
        .lists_at_once = true,
        .part_min = 5 * 1024 * 1024,
        .part_max = 5 * GIB,
        .part_count_max = 10000,
        .put_max = 5 * GIB,
        .copy_max = 5 * GIB,
    };
    *out = &m->store;
    return 0;
}
