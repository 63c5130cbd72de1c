/*
 * The door of a volume: requests come in, changes are applied in order, durable ones are handed to
 * the syncer, those that need a listing to the importer. Opening and closing: volume_open.c.
 */
#include "volume.h"
#include "meta/stores.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "remote/remote_impl.h"
#include "remote/remote_quota.h"

/* More imports than this for one request mean that engine and importer do not agree. */
#define IMPORTS_MAX 64
#define KICK_PACE_MS 100u

/* What is left when threads overtake each other is no clock that was set back. */
#define SET_BACK_NS (20 * NS_PER_MS)

/* After the clock was set back, the time goes on at half its speed until the clock has come up to
 * it: times never go back, and whatever waits for a time still gets there. */
static uint64_t time_behind(struct meta *meta, uint64_t now, uint64_t last)
{
    uint64_t half = clock_monotonic_ns() / 2;
    now = MAX(now, atomic_load(&meta->ahead_ns) + half);
    if (now + SET_BACK_NS < last)
        atomic_store(&meta->ahead_ns, last - half);
    return now;
}

uint64_t meta_time_ns(struct meta *meta)
{
    uint64_t now = clock_wall_ns() + (uint64_t)meta->clock_offset_ns;
    uint64_t last = atomic_load(&meta->last_time_ns);
    if (now < last)
        now = time_behind(meta, now, last);
    while (now > last)
        if (atomic_compare_exchange_weak(&meta->last_time_ns, &last, now))
            return now;
    return last;
}

bool meta_refuses_changes(struct meta *meta)
{
    return !meta->config.read_only && atomic_load(&meta->refuse) != 0;
}

bool meta_quota_active(struct meta *meta)
{
    return meta->remote ? remote_quota_active(meta->remote) : engine_quota_active(meta->engine);
}

int meta_quota_reserve(struct meta *meta, uint64_t ino, uint64_t size, bool force)
{
    return meta->remote ? remote_quota_reserve(meta->remote, ino, size, force)
                        : engine_quota_reserve(meta->engine, ino, size, force);
}

void meta_quota_release(struct meta *meta, uint64_t ino)
{
    if (meta->remote)
        remote_quota_release(meta->remote, ino);
    else
        engine_quota_release(meta->engine, ino);
}

uint32_t meta_cache_ms(const struct meta *meta)
{
    return meta->remote ? remote_cache_ms(meta->remote) : UINT32_MAX;
}

const struct meta_volume *meta_volume(const struct meta *meta)
{
    return &meta->format;
}

void meta_contents(const struct meta *meta, struct meta_contents *out)
{
    if (meta->remote)
        *out = meta->remote->contents;
    else
        engine_contents(meta->engine, out);
}

/* The time is taken under the lock, and each change has one of its own: an inode's ctime says
 * whether its last change was before a sync. */
static int apply(struct meta *meta, struct meta_op *op, struct meta_reply *reply,
                 uint64_t *sequence)
{
    pthread_mutex_lock(&meta->write_lock);
    op->time_ns = MAX(meta_time_ns(meta), engine_last_ns(meta->engine) + 1);
    cleanup(free_ptr) uint64_t *gone = NULL;
    unsigned gone_count = 0;
    int rc = engine_apply(meta->engine, op, reply);
    if (!rc && meta->config.events.contents_gone)
        gone_count = engine_gone(meta->engine, &gone);
    *sequence = engine_sequence(meta->engine);
    pthread_mutex_unlock(&meta->write_lock);
    if (!rc)
        atomic_store(&meta->changed, true);
    if (gone_count)
        meta->config.events.contents_gone(meta->config.events.arg, gone, gone_count);
    return rc;
}

int volume_apply(struct meta *meta, struct meta_op *op, struct meta_reply *reply)
{
    uint64_t sequence;
    meta_reply_init(reply);
    int rc = apply(meta, op, reply, &sequence);
    if (!rc)
        syncer_note(meta->syncer);
    return rc;
}

int volume_read(struct meta *meta, struct meta_op *op, struct meta_reply *reply)
{
    meta_reply_init(reply);
    op->time_ns = meta_time_ns(meta);
    return engine_read(meta->engine, op, 0, reply);
}

static bool is_durable(const struct meta *meta, const struct meta_request *request)
{
    return request->durable || request->op.kind == META_RENAME ||
           meta->config.sync == META_SYNC_ALWAYS;
}

static uintptr_t imports_done(const struct meta_request *request)
{
    return (uintptr_t)request->impl;
}

/* One try. -EINPROGRESS: an answer will come by `done`. */
static int serve(struct meta *meta, struct meta_request *request)
{
    int rc;
    bool offline = importer_offline(meta->importer);
    meta_reply_init(&request->reply);
    if (meta_kind_changes(request->op.kind)) {
        rc = apply(meta, &request->op, &request->reply, &request->sequence);
    } else {
        /* What was imported for this request is new enough for it, however short the TTL. */
        uint64_t ttl = imports_done(request) || offline ? 0 : meta->import_ttl_ns;
        request->op.time_ns = meta_time_ns(meta);
        rc = engine_read(meta->engine, &request->op, ttl, &request->reply);
        if (!rc && offline)
            importer_probe(meta->importer, &request->op);
        if (!rc && request->op.kind == META_LOOKUP && !imports_done(request) && !offline &&
            importer_is_old(meta->importer, request->op.parent, &request->op.name)) {
            rc = -EAGAIN;
            request->reply.need_import = true;
        }
    }
    if (rc == -EAGAIN && request->reply.need_import && request->op.kind == META_LOOKUP &&
        importer_is_absent(meta->importer, request->op.parent, &request->op.name,
                           imports_done(request) > 0))
        return request->result = -ENOENT;
    if (rc == -EAGAIN && request->reply.need_import) {
        if (imports_done(request) && offline)
            return request->result = -EIO; /* it failed already */
        if (imports_done(request) >= IMPORTS_MAX) {
            log_error("import does not end", "kind=%s", meta_kind_name(request->op.kind));
            return request->result = -EIO;
        }
        request->impl = (void *)(imports_done(request) + 1);
        importer_wait(meta, request);
        return -EINPROGRESS;
    }
    request->result = rc;
    if (rc || !meta_kind_changes(request->op.kind))
        return rc;
    request->applied = true;
    if (is_durable(meta, request)) {
        syncer_request(meta->syncer, request);
        return -EINPROGRESS;
    }
    syncer_note(meta->syncer);
    return 0;
}

static int submit(struct meta *meta, struct meta_request *request, bool internal,
                  void (*again)(struct meta_request *request))
{
    bool change = meta_kind_changes(request->op.kind);
    /* Dropping what nobody uses is no change that anybody sees. */
    int refuse =
        change && !internal && request->op.kind != META_DROP ? atomic_load(&meta->refuse) : 0;
    request->impl = NULL;
    request->next = NULL;
    request->again = again;
    request->applied = false;
    if (!internal && (unsigned)request->op.kind < META_FORMAT)
        metric_add(meta->requests[request->op.kind], 1);
    if (!internal)
        settle_load_operation(&meta->load, clock_monotonic_ns(), 0);
    if (!internal && request->op.kind > META_QUOTA_SET)
        refuse = -EINVAL;
    if (refuse) {
        meta_reply_init(&request->reply);
        return request->result = refuse;
    }
    return serve(meta, request);
}

int volume_submit(struct meta *meta, struct meta_request *request, bool internal)
{
    return submit(meta, request, internal, NULL);
}

void meta_use_begin(struct meta *meta, uint64_t now_ns, uint64_t bytes)
{
    atomic_fetch_add_explicit(&meta->load.waiting, 1, memory_order_relaxed);
    settle_load_operation(&meta->load, now_ns, bytes);
}

void meta_use_end(struct meta *meta)
{
    atomic_fetch_sub_explicit(&meta->load.waiting, 1, memory_order_relaxed);
}

int volume_submit_here(struct meta *meta, struct meta_request *request,
                       void (*again)(struct meta_request *request))
{
    return submit(meta, request, false, again);
}

int volume_serve_here(struct meta *meta, struct meta_request *request)
{
    return serve(meta, request);
}

uint64_t meta_era(const struct meta *meta)
{
    return meta->remote ? remote_era(meta->remote) : 0;
}

int meta_submit(struct meta *meta, struct meta_request *request)
{
    return meta->remote ? remote_submit(meta->remote, request)
                        : volume_submit(meta, request, false);
}

void volume_resume(struct meta *meta, struct meta_request *request, int result)
{
    if (result) {
        request->result = result;
    } else {
        meta_reply_done(&request->reply);
        if (request->again) {
            request->again(request);
            return;
        }
        if (serve(meta, request) == -EINPROGRESS)
            return;
    }
    request->done(request);
}

static void wake_caller(struct meta_request *request)
{
    sem_post(request->arg);
}

int meta_call(struct meta *meta, struct meta_request *request)
{
    sem_t answered;
    void *arg = request->arg;
    sem_init(&answered, 0, 0);
    request->done = wake_caller;
    request->arg = &answered;
    if (meta_submit(meta, request) == -EINPROGRESS)
        while (sem_wait(&answered) < 0 && errno == EINTR)
            ;
    request->arg = arg;
    sem_destroy(&answered);
    return request->result;
}

void volume_refuse(struct meta *meta, const char *why)
{
    int expected = 0;
    if (atomic_compare_exchange_strong(&meta->refuse, &expected, -EROFS))
        log_error("volume is read-only now", "volume=%s reason=\"%s\"", meta->format.id, why);
}

/* Kicks: the first change is looked at at once, those after it at the end of the pace. */

static void look(struct meta *meta)
{
    settler_kick(meta->settler);
    collector_kick(meta->collector);
    carrier_kick(meta->carrier);
    loop_timer_start(&meta->kick_timer, meta->kick_pace_ms);
}

static void run_kick(struct loop_task *task)
{
    struct meta *meta = container_of(task, struct meta, kick_task);
    if (!meta->closing)
        look(meta);
}

static void kick_pace_over(struct loop_timer *timer)
{
    struct meta *meta = container_of(timer, struct meta, kick_timer);
    if (meta->closing)
        return;
    if (atomic_exchange(&meta->kick_again, false)) {
        look(meta);
        return;
    }
    atomic_store(&meta->kick_posted, false);
    /* A kick that came in between found it posted. */
    if (atomic_exchange(&meta->kick_again, false))
        volume_kick(meta);
}

void volume_kick(struct meta *meta)
{
    if (atomic_exchange(&meta->kick_posted, true)) {
        atomic_store(&meta->kick_again, true);
        return;
    }
    meta->kick_task.run = run_kick;
    loop_post(meta->work, &meta->kick_task);
}

void volume_kick_init(struct meta *meta)
{
    /* Nothing that a change queues is due before these delays are over. */
    meta->kick_pace_ms =
        MIN(KICK_PACE_MS, MIN(meta->format.settle_delay_ms, meta->format.gc_delay_ms));
    loop_timer_init(meta->work, &meta->kick_timer, kick_pace_over);
}

/* Events */

void volume_entry_changed(struct meta *meta, uint64_t parent, const char *name, size_t len)
{
    const struct meta_events *events = &meta->config.events;
    if (events->entry_changed)
        events->entry_changed(events->arg, parent, name, len);
}

void volume_inode_changed(struct meta *meta, uint64_t ino, bool data)
{
    const struct meta_events *events = &meta->config.events;
    if (events->inode_changed)
        events->inode_changed(events->arg, ino, data);
}

void volume_extents_changed(struct meta *meta, uint64_t ino)
{
    const struct meta_events *events = &meta->config.events;
    if (events->extents_changed)
        events->extents_changed(events->arg, ino);
}

void volume_conflict(struct meta *meta, const struct meta_reply *reply)
{
    for (size_t i = 0; i < reply->entry_count; i++)
        volume_entry_changed(meta, reply->parent.ino, reply->entries[i].name,
                             reply->entries[i].name_len);
    volume_inode_changed(meta, reply->attr.ino, false);
    volume_inode_changed(meta, reply->parent.ino, true);
}

static void drop_inode(struct meta *meta, uint64_t ino)
{
    struct meta_op op = {.kind = META_DROP, .inos = &ino, .ino_count = 1};
    struct meta_reply reply;
    volume_apply(meta, &op, &reply);
    meta_reply_done(&reply);
}

void volume_names_gone(struct meta *meta, const struct meta_reply *reply)
{
    const struct meta_events *events = &meta->config.events;
    for (size_t i = 0; i < reply->entry_count; i++) {
        const struct meta_entry *e = &reply->entries[i];
        if (e->attr.nlink || !e->ino)
            continue;
        if (events->inode_gone)
            events->inode_gone(events->arg, e->ino);
        else
            drop_inode(meta, e->ino);
    }
}

/* Tasks */

static void init_task(struct meta_task *task)
{
    task->result = 0;
    task->remaining = 0;
    error_clear(&task->error);
    task->next = NULL;
    task->cancel = false;
    task->impl = NULL;
}

bool meta_is_synced(struct meta *meta, uint64_t sequence)
{
    return !meta->remote && syncer_is_synced(meta->syncer, sequence);
}

bool meta_is_synced_at(struct meta *meta, uint64_t ctime_ns)
{
    return !meta->remote && syncer_is_synced_at(meta->syncer, ctime_ns);
}

void meta_sync(struct meta *meta, struct meta_task *task)
{
    init_task(task);
    if (meta->remote)
        remote_task(meta->remote, task, WIRE_TASK_SYNC, 0);
    else
        syncer_task(meta->syncer, task);
}

void meta_refresh(struct meta *meta, struct meta_task *task)
{
    init_task(task);
    if (meta->remote)
        remote_task(meta->remote, task, WIRE_TASK_REFRESH, 0);
    else
        importer_refresh(meta, task);
}

void meta_notice(struct meta *meta, struct meta_task *task, const char *path)
{
    init_task(task);
    if (!meta->remote) {
        importer_notice(meta, task, path);
        return;
    }
    task->result = error_set(&task->error, -EOPNOTSUPP,
                             "the service looks at the bucket, its mounts take no notifications");
    task->done(task);
}

void meta_settle_wait(struct meta *meta, struct meta_task *task)
{
    init_task(task);
    if (meta->remote)
        remote_task(meta->remote, task, WIRE_TASK_SETTLE, 0);
    else
        settler_wait(meta, task);
}

void meta_object_changed(struct meta *meta, struct meta_task *task, uint64_t object)
{
    init_task(task);
    if (meta->remote)
        remote_task(meta->remote, task, WIRE_TASK_OBJECT_CHANGED, object);
    else
        importer_object_changed(meta, task, object);
}

struct cancel {
    struct meta *meta;
    struct meta_task *task;
};

static void run_cancel(void *arg)
{
    struct cancel *cancel = arg;
    cancel->task->cancel = true;
    settler_kick(cancel->meta->settler);
}

void meta_task_cancel(struct meta *meta, struct meta_task *task)
{
    struct cancel cancel = {.meta = meta, .task = task};
    if (meta->remote)
        remote_task_cancel(meta->remote, task);
    else
        loop_call(meta->work, run_cancel, &cancel);
}

/* Status */

struct status {
    struct meta *meta;
    json_t *root;
};

static json_t *engine_status(struct meta *meta)
{
    struct engine_stats stats;
    engine_stats(meta->engine, &stats);
    return json_pack("{s:I, s:I, s:I, s:I}", "inodes", (json_int_t)stats.inodes, "memory_bytes",
                     (json_int_t)stats.memory_bytes, "disk_bytes", (json_int_t)stats.disk_bytes,
                     "applied", (json_int_t)stats.applied);
}

static json_t *usage_status(struct meta *meta)
{
    struct meta_op op = {.kind = META_USAGE, .ino = META_ROOT_INO};
    struct meta_reply reply;
    json_t *out = NULL;
    if (!volume_read(meta, &op, &reply))
        out = json_pack("{s:I, s:I, s:I}", "bytes", (json_int_t)reply.usage.bytes, "files",
                        (json_int_t)reply.usage.files, "directories",
                        (json_int_t)reply.usage.directories);
    meta_reply_done(&reply);
    return out;
}

static json_t *drift_status(struct meta *meta)
{
    struct meta_op op = {.kind = META_DRIFT, .ino = META_ROOT_INO};
    struct meta_reply reply;
    json_t *out = NULL;
    if (!volume_read(meta, &op, &reply))
        out =
            json_pack("{s:I, s:I, s:I, s:I, s:I}", "files", (json_int_t)reply.drift.files, "bytes",
                      (json_int_t)reply.drift.bytes, "oldest_ns", (json_int_t)reply.drift.oldest_ns,
                      "garbage_objects", (json_int_t)reply.drift.garbage_objects, "garbage_bytes",
                      (json_int_t)reply.drift.garbage_bytes);
    meta_reply_done(&reply);
    return out;
}

static json_t *volume_status(struct meta *meta)
{
    return json_pack("{s:s, s:s%, s:s%, s:s, s:b, s:b}", "id", meta->format.id, "store",
                     meta->format.store, strlen(meta->format.store), "prefix", meta->format.prefix,
                     strlen(meta->format.prefix), "database", meta->directory, "read_only",
                     meta->config.read_only, "refuses_changes", atomic_load(&meta->refuse) != 0);
}

static void fill_status(void *arg)
{
    struct status *status = arg;
    struct meta *meta = status->meta;
    json_t *root = status->root;
    json_object_set_new(root, "volume", volume_status(meta));
    json_object_set_new(root, "usage", usage_status(meta));
    json_object_set_new(root, "drift", drift_status(meta));
    json_object_set_new(root, "database", engine_status(meta));
    json_t *part = json_object();
    settler_status(meta->settler, part);
    json_object_set_new(root, "settle", part);
    part = json_object();
    collector_status(meta->collector, part);
    json_object_set_new(root, "gc", part);
    part = json_object();
    carrier_status(meta->carrier, part);
    json_object_set_new(root, "entries", part);
    part = json_object();
    importer_status(meta->importer, part);
    json_object_set_new(root, "import", part);
    part = meta_stores_json(meta);
    json_object_update_missing(root, part);
    json_decref(part);
    if (meta->owner) {
        part = json_object();
        owner_status(meta->owner, part);
        json_object_set_new(root, "owner", part);
    }
}

static int dump(const char *text, size_t len, void *arg)
{
    buf_put(arg, text, len);
    return 0;
}

void meta_status_json(struct meta *meta, struct buf *out)
{
    if (meta->remote) {
        remote_status(meta->remote, out);
        return;
    }
    struct status status = {.meta = meta, .root = json_object()};
    loop_call(meta->work, fill_status, &status);
    if (json_dump_callback(status.root, dump, out, JSON_COMPACT))
        buf_put(out, "{}", 2);
    json_decref(status.root);
}
