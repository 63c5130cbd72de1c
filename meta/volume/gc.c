/*
 * Deletes objects that nothing references any more, a round at a time:
 *
 *   internal keys      belong to one object for ever: deleted in batches
 *   natural keys       looked at first. Only what is still the object of the record is deleted, on
 *                      condition of its ETag; what else stands there is somebody else's, and stays
 *   never committed    an upload that was not finished at the key is aborted first
 *
 * Before a round deletes anything, all that was applied is synced: after a power loss no extent may
 * come back that references what was deleted (I3).
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "base/crash.h"
#include "base/log.h"
#include "pacer.h"
#include "s3/mux.h"
#include "volume.h"

#define ROUND_MAX STORE_DELETE_MANY_MAX
#define LOOKERS 16 /* natural keys at once */
#define RETRY_FIRST_NS NS_PER_S
#define RETRY_MAX_NS (64 * NS_PER_S)
#define RETRIES_MAX 1024 /* that are remembered */
#define BUSY_NS NS_PER_S

enum item_state {
    ITEM_WAITING,
    ITEM_WORKING,
    ITEM_GONE,  /* not in the store, or not ours */
    ITEM_RETRY, /* failed */
    ITEM_ENDED, /* and the database knows */
};

struct item {
    struct collector *collector;
    struct meta_object object;
    bool internal;
    enum item_state state;
    struct work_op op;
    char etag[STORE_ETAG_MAX]; /* of what is to be deleted */
    char *upload_id;           /* owned */
    struct loop_task *waits;   /* who waits for the key */
};

/* An object that could not be deleted, until it is. */
struct retry {
    uint64_t object;
    unsigned attempts;
    UT_hash_handle hh;
};

struct collector {
    struct meta *meta;
    struct loop_timer timer;
    bool stopped, running;
    struct meta_task sync; /* before a round */
    struct loop_task synced;
    /* One round. */
    struct item *items; /* owned */
    size_t count, next, working;
    struct work_op batch;
    const char **keys; /* owned */
    struct item **batch_items;
    unsigned batch_count;
    struct retry *retries;
    uint64_t deleted, left, failed;
    char last_error[256];
    struct metric *deleted_total, *failed_total;
};

static void pump(struct collector *c);
static void advance(struct collector *c);

static bool is_internal(const struct collector *c, const char *key)
{
    return engine_key_is_internal(c->meta->engine, key);
}

/* One item ends */

static struct retry *retry_find(struct collector *c, uint64_t object)
{
    struct retry *r;
    HASH_FIND(hh, c->retries, &object, sizeof(object), r);
    return r;
}

static void retry_forget(struct collector *c, struct retry *r)
{
    HASH_DEL(c->retries, r);
    free(r);
}

static void record_gone(struct collector *c, const uint64_t *ids, size_t count)
{
    struct meta_op op = {.kind = META_GC_DONE, .inos = ids, .ino_count = count};
    struct meta_reply reply;
    int rc = volume_apply(c->meta, &op, &reply);
    meta_reply_done(&reply);
    crash_point("gc.done");
    for (size_t i = 0; i < count && c->retries; i++) {
        struct retry *r = retry_find(c, ids[i]);
        if (r)
            retry_forget(c, r);
    }
    if (rc)
        snprintf(c->last_error, sizeof(c->last_error), "cannot record: %s", strerror(-rc));
}

/* Soon at first: a file may wait for its key. Whoever refuses for long is asked once a minute. */
static uint64_t retry_delay_ns(struct collector *c, uint64_t object)
{
    struct retry *r = retry_find(c, object);
    if (!r && HASH_COUNT(c->retries) >= RETRIES_MAX)
        retry_forget(c, c->retries);
    if (!r && (r = calloc(1, sizeof(*r)))) {
        r->object = object;
        HASH_ADD(hh, c->retries, object, sizeof(r->object), r);
    }
    if (!r)
        return RETRY_MAX_NS;
    unsigned attempts = r->attempts++;
    return MIN(RETRY_FIRST_NS << MIN(attempts, 6u), RETRY_MAX_NS);
}

static void record_retry(struct collector *c, uint64_t object)
{
    struct meta_op op = {.kind = META_GC_RETRY, .object = object};
    struct meta_reply reply;
    op.attr.mtime_ns = meta_time_ns(c->meta) + retry_delay_ns(c, object);
    volume_apply(c->meta, &op, &reply);
    meta_reply_done(&reply);
    c->failed++;
    metric_add(c->failed_total, 1);
}

static void wake_waits(struct item *item)
{
    struct loop_task *wait = TAKE_PTR(item->waits);
    for (struct loop_task *next; wait; wait = next) {
        next = wait->next;
        loop_post(item->collector->meta->work, wait);
    }
}

static void item_end(struct item *item, enum item_state state)
{
    struct collector *c = item->collector;
    store_op_reset(&item->op.op);
    free(TAKE_PTR(item->upload_id));
    if (state == ITEM_RETRY) {
        record_retry(c, item->object.id);
    } else if (state == ITEM_GONE) {
        /* The listing must know before the key's record goes. */
        importer_key_changed(c->meta->importer, item->object.key, false);
        record_gone(c, &item->object.id, 1);
    }
    item->state = ITEM_ENDED;
    wake_waits(item);
    c->working--;
    advance(c);
}

static void item_fail(struct item *item)
{
    static struct log_limit limit = LOG_LIMIT(5, 60000);
    struct collector *c = item->collector;
    const char *text = error_text(&item->op.op.error);
    if (!c->stopped)
        log_limited(&limit, LOG_WARN, "object not deleted", "key=%s error=\"%s\"", item->object.key,
                    text);
    snprintf(c->last_error, sizeof(c->last_error), "%s", text);
    item_end(item, ITEM_RETRY);
}

static void submit(struct item *item, void (*done)(struct work_op *work))
{
    item->op.op.priority = STORE_BACKGROUND;
    item->op.done = done;
    item->op.arg = item;
    pacer_submit(item->collector->meta, &item->op, 0);
}

/* A natural key: look, compare, delete */

static void item_deleted(struct work_op *work)
{
    struct item *item = work->arg;
    struct collector *c = item->collector;
    int rc = work->op.result;
    crash_point("gc.deleted");
    if (rc && rc != -ENOENT) {
        item_fail(item);
        return;
    }
    c->deleted++;
    metric_add(c->deleted_total, 1);
    item_end(item, ITEM_GONE);
}

/* All markers of directories have the same bytes, none: one that was put again is newer. (A store
 * may tell other fractions of a second here than in a listing.) */
static bool is_same_marker(const struct meta_object *object, const struct store_info *info)
{
    return store_etag_fits(info, object->etag) && info->size == 0 &&
           info->mtime_ns <= object->mtime_ns + NS_PER_S;
}

/* Whether what stands at the key is the object of the record. */
static bool is_same(const struct item *item, const struct store_op *head)
{
    const struct meta_object *object = &item->object;
    if (object->key[strlen(object->key) - 1] == '/')
        return is_same_marker(object, &head->info);
    /* (A foreign one that was given another class has our tags from then on.) */
    if (object->foreign && store_etag_fits(&head->info, object->etag) &&
        head->info.size == object->size)
        return true;
    return tags_compare(head, &item->collector->meta->format, object->id, NULL) == TAGS_SAME;
}

static void item_looked(struct work_op *work)
{
    struct item *item = work->arg;
    struct collector *c = item->collector;
    struct store_op *op = &work->op;
    if (op->result == -ENOENT || op->result == -ENOTDIR || op->result == -EISDIR) {
        item_end(item, ITEM_GONE);
        return;
    }
    if (op->result) {
        item_fail(item);
        return;
    }
    if (!is_same(item, op)) {
        c->left++;
        item_end(item, ITEM_GONE);
        return;
    }
    memcpy(item->etag, op->info.etag, sizeof(item->etag));
    store_op_reset(op);
    crash_point("gc.begun");
    *op = (struct store_op){.kind = STORE_DELETE, .key = item->object.key, .if_match = item->etag};
    submit(item, item_deleted);
}

static void item_look(struct item *item)
{
    store_op_reset(&item->op.op);
    item->op.op = (struct store_op){.kind = STORE_HEAD, .key = item->object.key};
    submit(item, item_looked);
}

/* Unfinished uploads at the key of an object that was never committed */

static void item_uploads(struct item *item);

static void item_aborted(struct work_op *work)
{
    struct item *item = work->arg;
    if (work->op.result && work->op.result != -ENOENT) {
        item_fail(item);
        return;
    }
    free(TAKE_PTR(item->upload_id));
    item_uploads(item); /* until there is none */
}

static void item_uploads_listed(struct work_op *work)
{
    struct item *item = work->arg;
    struct store_op *op = &work->op;
    if (op->result == -EOPNOTSUPP) {
        item_look(item);
        return;
    }
    if (op->result) {
        item_fail(item);
        return;
    }
    for (size_t i = 0; i < op->out_list.count && !item->upload_id; i++) {
        const struct store_entry *e = &op->out_list.entries[i];
        if (!strcmp(e->name, item->object.key))
            item->upload_id = strdup(e->upload_id ? e->upload_id : e->etag);
    }
    store_op_reset(op);
    if (!item->upload_id) {
        item_look(item);
        return;
    }
    *op = (struct store_op){
        .kind = STORE_MPU_ABORT, .key = item->object.key, .upload_id = item->upload_id};
    submit(item, item_aborted);
}

static void item_uploads(struct item *item)
{
    store_op_reset(&item->op.op);
    item->op.op = (struct store_op){.kind = STORE_MPU_LIST, .prefix = item->object.key};
    submit(item, item_uploads_listed);
}

/* The record may be gone, or settle may have taken the key over since the round began. */
static bool still_garbage(struct item *item)
{
    struct meta_op op = {.kind = META_OBJECT, .object = item->object.id};
    struct meta_reply reply;
    int rc = volume_read(item->collector->meta, &op, &reply);
    bool garbage = !rc && reply.object_count && reply.objects[0].state == META_OBJECT_GARBAGE;
    meta_reply_done(&reply);
    return garbage && !settler_uses_key(item->collector->meta->settler, item->object.key);
}

static void item_start(struct item *item)
{
    struct collector *c = item->collector;
    c->working++;
    item->state = ITEM_WORKING;
    if (!item->internal && !still_garbage(item))
        item_end(item, ITEM_ENDED);
    else if (!item->object.etag[0])
        item_uploads(item);
    else
        item_look(item);
}

/* Internal keys */

static void batch_deleted(struct work_op *work)
{
    struct collector *c = work->arg;
    struct store_op *op = &work->op;
    uint64_t ids[ROUND_MAX];
    size_t count = 0;
    crash_point("gc.batch_deleted");
    for (unsigned i = 0; i < c->batch_count; i++) {
        struct item *item = c->batch_items[i];
        bool failed = op->result != 0;
        for (size_t j = 0; !failed && j < op->out_list.count; j++)
            failed = !strcmp(op->out_list.entries[j].name, item->object.key);
        item->state = ITEM_ENDED;
        if (failed)
            record_retry(c, item->object.id);
        else
            ids[count++] = item->object.id;
    }
    if (op->result)
        snprintf(c->last_error, sizeof(c->last_error), "%s", error_text(&op->error));
    c->deleted += count;
    metric_add(c->deleted_total, count);
    store_op_reset(op);
    if (count)
        record_gone(c, ids, count);
    c->working--;
    advance(c);
}

static unsigned store_of(const struct item *item)
{
    size_t skip;
    return store_route(item->object.key, strlen(item->object.key), &skip);
}

static void start_batch(struct collector *c)
{
    unsigned store = 0;
    for (size_t i = 0; i < c->count; i++) {
        struct item *item = &c->items[i];
        if (!item->internal || !item->object.etag[0])
            continue;
        /* One request goes to one store: what is in others is looked at one by one. */
        if (!c->batch_count)
            store = store_of(item);
        else if (store_of(item) != store)
            continue;
        item->state = ITEM_WORKING;
        c->keys[c->batch_count] = item->object.key;
        c->batch_items[c->batch_count++] = item;
    }
    if (!c->batch_count)
        return;
    crash_point("gc.batch_begun");
    c->working++;
    c->batch.op = (struct store_op){.kind = STORE_DELETE_MANY,
                                    .priority = STORE_BACKGROUND,
                                    .keys = c->keys,
                                    .key_count = c->batch_count};
    c->batch.done = batch_deleted;
    c->batch.arg = c;
    pacer_submit(c->meta, &c->batch, 0);
}

/* Rounds */

static void end_round(struct collector *c)
{
    free(TAKE_PTR(c->items));
    free(TAKE_PTR(c->keys));
    free(TAKE_PTR(c->batch_items));
    c->count = c->next = 0;
    c->batch_count = 0;
    c->running = false;
}

static void advance(struct collector *c)
{
    while (c->next < c->count && c->working < LOOKERS && !c->stopped) {
        struct item *item = &c->items[c->next++];
        if (item->state == ITEM_WAITING)
            item_start(item);
    }
    if (c->working || (c->next < c->count && !c->stopped) || !c->running)
        return;
    bool full = c->count == ROUND_MAX;
    end_round(c);
    if (!c->stopped)
        loop_timer_start(&c->timer, full ? 1 : BUSY_NS / NS_PER_MS);
    work_end(c->meta);
}

static void run_synced(struct loop_task *task)
{
    struct collector *c = container_of(task, struct collector, synced);
    if (c->sync.result)
        c->stopped = true; /* the database is broken: delete nothing any more */
    c->working = 1;        /* holds the round while it is being started */
    if (!c->stopped)
        start_batch(c);
    c->working--;
    advance(c);
}

static void sync_done(struct meta_task *task)
{
    struct collector *c = container_of(task, struct collector, sync);
    loop_post(c->meta->work, &c->synced);
}

static int collect_due(struct collector *c, uint64_t *next_due_ns)
{
    struct meta *meta = c->meta;
    cleanup(free_ptr) struct meta_object *due = calloc(ROUND_MAX, sizeof(*due));
    if (!due)
        return -ENOMEM;
    int count = engine_gc_due(meta->engine, meta_time_ns(meta), due, ROUND_MAX, next_due_ns);
    if (count <= 0)
        return count;
    c->items = calloc((size_t)count, sizeof(*c->items));
    c->keys = calloc((size_t)count, sizeof(*c->keys));
    c->batch_items = calloc((size_t)count, sizeof(struct item *));
    if (!c->items || !c->keys || !c->batch_items) {
        end_round(c);
        return -ENOMEM;
    }
    for (int i = 0; i < count; i++) {
        c->items[i].collector = c;
        c->items[i].object = due[i];
        c->items[i].internal = is_internal(c, due[i].key);
    }
    return count;
}

static void pump(struct collector *c)
{
    struct meta *meta = c->meta;
    if (c->running || c->stopped || meta->config.read_only || atomic_load(&meta->refuse) ||
        (meta->config.no_settle && !settler_is_wanted(meta->settler)))
        return;
    uint64_t next_due_ns = 0, now = meta_time_ns(meta);
    int count = collect_due(c, &next_due_ns);
    if (count <= 0) {
        if (next_due_ns > now)
            loop_timer_start(&c->timer, (next_due_ns - now) / NS_PER_MS + 1);
        return;
    }
    c->count = (size_t)count;
    c->next = 0;
    c->running = true;
    work_begin(meta);
    c->synced.run = run_synced;
    c->sync = (struct meta_task){.done = sync_done};
    syncer_task(meta->syncer, &c->sync);
}

static void run_timer(struct loop_timer *timer)
{
    pump(container_of(timer, struct collector, timer));
}

void collector_kick(struct collector *c)
{
    pump(c);
}

bool collector_uses_key(struct collector *c, const char *key, struct loop_task *wait)
{
    for (size_t i = 0; i < c->count; i++) {
        struct item *item = &c->items[i];
        if (item->state != ITEM_WORKING || item->internal || strcmp(item->object.key, key))
            continue;
        if (wait)
            LL_PREPEND(item->waits, wait);
        return true;
    }
    return false;
}

/* Life */

static void init_timer(void *arg)
{
    struct collector *c = arg;
    loop_timer_init(c->meta->work, &c->timer, run_timer);
}

int collector_new(struct meta *meta, struct collector **out)
{
    struct collector *c = calloc(1, sizeof(*c));
    if (!c)
        return -ENOMEM;
    c->meta = meta;
    c->deleted_total = metrics_counter(meta->config.metrics, "sluice_meta_gc_objects_total", "",
                                       "Objects deleted because nothing references them.");
    c->failed_total = metrics_counter(meta->config.metrics, "sluice_meta_gc_failures_total", "",
                                      "Deletes of objects that failed and are tried again.");
    loop_call(meta->work, init_timer, c);
    *out = c;
    return 0;
}

void collector_stop(struct collector *c)
{
    c->stopped = true;
    loop_timer_close(&c->timer, NULL);
}

void collector_free(struct collector *c)
{
    if (!c)
        return;
    assert(!c->running);
    while (c->retries)
        retry_forget(c, c->retries);
    free(c);
}

void collector_status(struct collector *c, json_t *out)
{
    json_object_set_new(out, "running", json_integer((json_int_t)c->count));
    json_object_set_new(out, "deleted", json_integer((json_int_t)c->deleted));
    json_object_set_new(out, "left_to_others", json_integer((json_int_t)c->left));
    json_object_set_new(out, "failed", json_integer((json_int_t)c->failed));
    json_object_set_new(out, "last_error", json_string(c->last_error));
}

/* What a crash left */

#define RECOVER_STEP 256

static int drop_sustained(struct meta *meta)
{
    uint64_t inos[RECOVER_STEP], after = 0;
    for (;;) {
        int count = engine_sustained(meta->engine, after, inos, RECOVER_STEP);
        if (count <= 0)
            return count;
        after = inos[count - 1];
        struct meta_op op = {.kind = META_DROP, .inos = inos, .ino_count = (size_t)count};
        struct meta_reply reply;
        int rc = volume_apply(meta, &op, &reply);
        meta_reply_done(&reply);
        if (rc)
            return rc;
    }
}

/* Nobody writes to them any more: gc looks what there is of them. */
static int abandon_reserved(struct meta *meta)
{
    cleanup(free_ptr) struct meta_object *objects = calloc(RECOVER_STEP, sizeof(*objects));
    uint64_t after = 0;
    if (!objects)
        return -ENOMEM;
    for (;;) {
        int count = engine_reserved(meta->engine, after, objects, RECOVER_STEP);
        if (count <= 0)
            return count;
        after = objects[count - 1].id;
        for (int i = 0; i < count; i++) {
            struct meta_op op = {.kind = META_ABANDON, .object = objects[i].id};
            struct meta_reply reply;
            int rc = volume_apply(meta, &op, &reply);
            meta_reply_done(&reply);
            if (rc && rc != -ENOENT && rc != -EINVAL)
                return rc;
        }
    }
}

int collector_recover(struct meta *meta, struct error *error)
{
    int rc = drop_sustained(meta);
    if (!rc)
        rc = abandon_reserved(meta);
    return rc ? error_set(error, rc, "cannot tidy up after a crash: %s", strerror(-rc)) : 0;
}
