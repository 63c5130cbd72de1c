/*
 * What all stores share: the way of a request from store_submit to its `done`, and the memory of
 * its outputs.
 *
 * Where a request stands is kept in op->task.run, touched by the loop thread only once the request
 * arrived there: run_submit (posted by another thread) → in_backend (inside backend->submit or
 * ->cancel: store_complete must not call `done` under the backend's feet) → NULL (in flight:
 * store_complete calls `done` directly) → run_done (ended, `done` is posted).
 */
#include "s3/store.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "s3/backend.h"
#include "store_check.h"

#define CHUNK_SIZE 4096

struct chunk {
    struct chunk *next;
    size_t used, cap;
    max_align_t data[];
};

/* Owner of an op's outputs. */
struct arena {
    struct chunk *chunks;        /* newest first */
    struct store_meta *meta;     /* op->out_meta */
    struct store_entry *entries; /* op->out_list.entries */
    size_t meta_cap, entries_cap;
};

static const char *const kind_names[STORE_KIND_COUNT] = {
    [STORE_HEAD] = "head",
    [STORE_GET] = "get",
    [STORE_PUT] = "put",
    [STORE_DELETE] = "delete",
    [STORE_DELETE_MANY] = "delete_many",
    [STORE_COPY] = "copy",
    [STORE_LIST] = "list",
    [STORE_MPU_CREATE] = "mpu_create",
    [STORE_MPU_PART] = "mpu_part",
    [STORE_MPU_PART_COPY] = "mpu_part_copy",
    [STORE_MPU_COMPLETE] = "mpu_complete",
    [STORE_MPU_ABORT] = "mpu_abort",
    [STORE_MPU_LIST] = "mpu_list",
};

const char *store_kind_name(enum store_kind kind)
{
    return (unsigned)kind < STORE_KIND_COUNT ? kind_names[kind] : "unknown";
}

/* Outputs */

static void arena_free(struct arena *arena)
{
    if (!arena)
        return;
    for (struct chunk *c = arena->chunks, *next; c; c = next) {
        next = c->next;
        free(c);
    }
    free(arena->meta);
    free(arena->entries);
    free(arena);
}

static struct arena *arena_of(struct store_op *op)
{
    if (!op->arena)
        op->arena = calloc(1, sizeof(struct arena));
    return op->arena;
}

void *store_op_alloc(struct store_op *op, size_t len)
{
    struct arena *arena = arena_of(op);
    if (!arena || len > SIZE_MAX / 2)
        return NULL;
    size_t unit = sizeof(max_align_t);
    len = (len + unit - 1) / unit * unit;
    struct chunk *c = arena->chunks;
    if (!c || c->cap - c->used < len) {
        size_t cap = MAX(len, (size_t)CHUNK_SIZE);
        c = malloc(sizeof(*c) + cap);
        if (!c)
            return NULL;
        c->cap = cap;
        c->used = 0;
        c->next = arena->chunks;
        arena->chunks = c;
    }
    void *p = (char *)c->data + c->used;
    c->used += len;
    return p;
}

char *store_op_strdup(struct store_op *op, const char *text)
{
    size_t len = strlen(text) + 1;
    char *copy = store_op_alloc(op, len);
    if (copy)
        memcpy(copy, text, len);
    return copy;
}

int store_op_add_meta(struct store_op *op, const char *name, const char *value)
{
    struct arena *arena = arena_of(op);
    if (!arena)
        return -ENOMEM;
    if (op->out_meta_count == arena->meta_cap) {
        size_t cap = arena->meta_cap ? 2 * arena->meta_cap : 8;
        struct store_meta *grown = reallocarray(arena->meta, cap, sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        arena->meta = grown;
        arena->meta_cap = cap;
    }
    op->out_meta = arena->meta;
    struct store_meta *m = &op->out_meta[op->out_meta_count];
    m->name = store_op_strdup(op, name);
    m->value = store_op_strdup(op, value);
    if (!m->name || !m->value)
        return -ENOMEM;
    op->out_meta_count++;
    return 0;
}

int store_op_add_entry(struct store_op *op, const char *name, uint64_t size, uint64_t mtime_ns,
                       const char *etag, bool is_prefix)
{
    struct arena *arena = arena_of(op);
    if (!arena)
        return -ENOMEM;
    struct store_list *list = &op->out_list;
    if (list->count == arena->entries_cap) {
        size_t cap = arena->entries_cap ? 2 * arena->entries_cap : 16;
        struct store_entry *grown = reallocarray(arena->entries, cap, sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        arena->entries = grown;
        arena->entries_cap = cap;
    }
    list->entries = arena->entries;
    char *copy = store_op_strdup(op, name);
    if (!copy)
        return -ENOMEM;
    struct store_entry *entry = &list->entries[list->count++];
    *entry = (struct store_entry){
        .name = copy, .size = size, .mtime_ns = mtime_ns, .is_prefix = is_prefix};
    if (etag)
        strncpy(entry->etag, etag, sizeof(entry->etag) - 1);
    return 0;
}

static void clear_outputs(struct store_op *op)
{
    op->result = 0;
    error_clear(&op->error);
    op->info = (struct store_info){0};
    op->got = 0;
    op->checked = false;
    op->out_meta = NULL;
    op->out_meta_count = 0;
    op->out_list = (struct store_list){0};
    op->out_upload_id = NULL;
    op->out_part = (struct store_part){0};
    op->retry = STORE_RETRY_DEFAULT;
    op->retry_after_ms = 0;
}

void store_op_reset(struct store_op *op)
{
    arena_free(op->arena);
    op->arena = NULL;
    clear_outputs(op);
}

void store_op_move_result(struct store_op *to, struct store_op *from)
{
    arena_free(to->arena);
    to->arena = TAKE_PTR(from->arena);
    to->result = from->result;
    to->error = from->error;
    to->info = from->info;
    to->got = from->got;
    to->checked = from->checked;
    to->out_meta = from->out_meta;
    to->out_meta_count = from->out_meta_count;
    to->out_list = from->out_list;
    to->out_upload_id = from->out_upload_id;
    to->out_part = from->out_part;
    to->retry = from->retry;
    to->retry_after_ms = from->retry_after_ms;
    clear_outputs(from);
}

void store_op_copy_request(struct store_op *to, const struct store_op *from)
{
    *to = *from;
    to->done = NULL;
    to->arg = NULL;
    to->store = NULL;
    to->impl = NULL;
    to->arena = NULL;
    to->task = (struct loop_task){0};
    to->cancelled = false;
    clear_outputs(to);
}

const char *store_op_meta(const struct store_op *op, const char *name)
{
    for (unsigned i = 0; i < op->out_meta_count; i++)
        if (!strcmp(op->out_meta[i].name, name))
            return op->out_meta[i].value;
    return NULL;
}

/* Weak ETags */

void store_etag_weak(uint64_t size, uint64_t mtime_ns, char out[STORE_ETAG_MAX])
{
    snprintf(out, STORE_ETAG_MAX, "%c%" PRIx64 "-%" PRIx64, STORE_ETAG_WEAK, size,
             (uint64_t)(mtime_ns / NS_PER_S));
}

bool store_etag_fits(const struct store_info *info, const char *etag)
{
    char weak[STORE_ETAG_MAX];
    if (!store_etag_is_weak(etag))
        return strcmp(info->etag, etag) == 0;
    store_etag_weak(info->size, info->mtime_ns, weak);
    return strcmp(weak, etag) == 0;
}

/* The way of a request */

/* A mark, never run. */
static void in_backend(struct loop_task *task)
{
}

static void run_done(struct loop_task *task)
{
    struct store_op *op = container_of(task, struct store_op, task);
    op->done(op);
}

void store_complete(struct store_op *op, int result)
{
    assert(result <= 0 && op->task.run != run_done && loop_on_thread(op->store->loop));
    op->result = result;
    if (!result) {
        error_clear(&op->error);
    } else if (!op->error.code) {
        const char *what = op->key ? op->key : op->prefix;
        /* An S3 backend may have left the status and the store's code without a message. */
        struct error known = op->error;
        error_set(&op->error, result, "%s%s%s: %s", store_kind_name(op->kind), what ? " " : "",
                  what ? what : "", strerror(-result));
        op->error.http_status = known.http_status;
        memcpy(op->error.store_code, known.store_code, sizeof(known.store_code));
        memcpy(op->error.request_id, known.request_id, sizeof(known.request_id));
    } else {
        op->error.code = result;
    }
    if (op->task.run) {
        op->task.run = run_done;
        loop_post(op->store->loop, &op->task);
    } else {
        op->done(op);
    }
}

/* What says in which of several stores it is. */
static const char *place_of(const struct store_op *op)
{
    if (op->kind == STORE_DELETE_MANY)
        return op->keys && op->key_count && op->keys[0] ? op->keys[0] : "";
    return op->key ? op->key : op->prefix ? op->prefix : "";
}

static void start(struct store_op *op)
{
    struct store *store = op->store;
    op->task.run = in_backend;
    int rc = op->cancelled ? -ECANCELED : store_check(store_caps_at(store, place_of(op)), op);
    if (rc)
        store_complete(op, rc);
    else
        store->backend->submit(store, op);
    /* `done` was at most posted, so the op is still there. */
    if (op->task.run == in_backend)
        op->task.run = NULL;
}

static void run_submit(struct loop_task *task)
{
    start(container_of(task, struct store_op, task));
}

void store_submit(struct store *store, struct store_op *op)
{
    assert(op->done);
    store_op_reset(op);
    op->store = store;
    op->impl = NULL;
    op->cancelled = false;
    if (loop_on_thread(store->loop)) {
        start(op);
    } else {
        op->task.run = run_submit;
        loop_post(store->loop, &op->task);
    }
}

void store_cancel(struct store_op *op)
{
    assert(loop_on_thread(op->store->loop));
    op->cancelled = true;
    /* Otherwise it has not come to the backend yet, or it has ended already. */
    if (op->task.run)
        return;
    op->task.run = in_backend;
    op->store->backend->cancel(op->store, op);
    if (op->task.run == in_backend)
        op->task.run = NULL;
}

struct waiter {
    sem_t ended;
};

static void wake_waiter(struct store_op *op)
{
    struct waiter *waiter = op->arg;
    sem_post(&waiter->ended);
}

int store_wait(struct store *store, struct store_op *op)
{
    assert(!loop_on_thread(store->loop));
    struct waiter waiter;
    sem_init(&waiter.ended, 0, 0);
    void *arg = op->arg;
    op->arg = &waiter;
    op->done = wake_waiter;
    store_submit(store, op);
    while (sem_wait(&waiter.ended) < 0 && errno == EINTR)
        ;
    sem_destroy(&waiter.ended);
    op->arg = arg;
    return op->result;
}

/* The store */

void store_init(struct store *store, const struct store_backend *backend, struct loop *loop,
                struct store *below, const char *name)
{
    store->backend = backend;
    store->loop = loop;
    store->below = below;
    if (below)
        store->caps = below->caps;
    store->name = name ? strdup(name) : NULL;
}

void store_done(struct store *store)
{
    store_free(TAKE_PTR(store->below));
    free(TAKE_PTR(store->name));
}

void store_free(struct store *store)
{
    if (store)
        store->backend->free(store);
}

const struct store_caps *store_caps(const struct store *store)
{
    return &store->caps;
}

const struct store_caps *store_caps_at(const struct store *store, const char *key)
{
    return store->backend->caps ? store->backend->caps(store, key) : &store->caps;
}

const char *store_name(const struct store *store)
{
    while (!store->name && store->below)
        store = store->below;
    return store->name ? store->name : store->backend->kind;
}

struct loop *store_loop(const struct store *store)
{
    return store->loop;
}
