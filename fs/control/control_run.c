#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/hash.h"
#include "front/front_inodes.h"
#include "front_control.h"

void control_put_json(struct buf *out, json_t *json)
{
    char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;
    if (text)
        buf_printf(out, "%s\n", text);
    else
        out->failed = true;
    free(text);
    json_decref(json);
}

void control_put_error(struct buf *out, int result, const char *text)
{
    const char *name = strerrorname_np(-result);
    json_t *message = json_string(text ? text : strerror(-result));
    control_put_json(
        out,
        json_pack("{s:b,s:i,s:s,s:o}", "ok", 0, "errno", -result, "error", name ? name : "EIO",
                  "message", message ? message : json_string("an error with an unreadable text")));
}

void control_fail(struct control_handle *h, int result, const char *text)
{
    h->result = result;
    control_put_error(&h->reply, result, text);
}

void control_set_name(json_t *object, const char *key, const char *bytes, size_t len)
{
    json_t *text = json_stringn(bytes, len);
    if (text) {
        json_object_set_new(object, key, text);
        return;
    }
    char key64[16];
    char *coded = malloc(4 * ((len + 2) / 3) + 1);
    if (!coded)
        return;
    hash_base64(bytes, len, coded);
    snprintf(key64, sizeof(key64), "%s64", key);
    json_object_set_new(object, key64, json_string(coded));
    free(coded);
}

/* --- Paths, with the caller's rights */
static int lookup(struct fs *fs, uint64_t parent, struct meta_name name, struct meta_attr *attr)
{
    struct meta_request request = {.op = {.kind = META_LOOKUP, .parent = parent, .name = name}};
    int result = meta_call(fs->meta, &request);
    if (result == 0)
        *attr = request.reply.attr;
    meta_reply_done(&request.reply);
    return result;
}

static int get_attr(struct fs *fs, uint64_t ino, struct meta_attr *attr)
{
    struct meta_request request = {.op = {.kind = META_GETATTR, .ino = ino}};
    int result = meta_call(fs->meta, &request);
    if (result == 0)
        *attr = request.reply.attr;
    meta_reply_done(&request.reply);
    return result;
}

int control_step(struct control_handle *h, const struct meta_attr *dir, struct meta_name name,
                 struct meta_attr *attr)
{
    if (!S_ISDIR(dir->mode))
        return -ENOTDIR;
    if (!control_may(&h->caller, dir, CONTROL_MAY_EXEC))
        return -EACCES;
    return lookup(h->fs, dir->ino, name, attr);
}

int control_walk(struct control_handle *h, const struct control_text *path, struct meta_attr *attr)
{
    int result = get_attr(h->fs, META_ROOT_INO, attr);
    const char *at = path->bytes;
    const char *end = path->bytes + path->len;
    while (result == 0 && at < end) {
        struct meta_name name = control_path_next(&at);
        result = control_step(h, attr, name, attr);
    }
    return result;
}

int control_walk_readable(struct control_handle *h, struct meta_attr *attr)
{
    int result = control_walk(h, &h->request.path, attr);
    if (result < 0)
        return result;
    unsigned need = CONTROL_MAY_READ | (S_ISDIR(attr->mode) ? CONTROL_MAY_EXEC : 0);
    return control_may(&h->caller, attr, need) ? 0 : -EACCES;
}

/* --- status, metrics */
static json_t *data_json(struct fs *fs)
{
    struct data_stats d;
    data_stats(fs->data, &d);
    json_t *backlog = json_pack("{s:I,s:I,s:I,s:b}", "files", (json_int_t)d.backlog_files, "bytes",
                                (json_int_t)d.backlog_bytes, "age_ms", (json_int_t)d.backlog_age_ms,
                                "writers_wait", (int)d.backlog_late);
    json_t *scratch = json_pack("{s:I,s:I}", "files", (json_int_t)d.scratch_files, "bytes",
                                (json_int_t)d.scratch_bytes);
    return json_pack("{s:o,s:o,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "backlog", backlog, "scratch",
                     scratch, "open_files", (json_int_t)d.open_files, "dirty_files",
                     (json_int_t)d.dirty_files, "dirty_bytes", (json_int_t)d.dirty_bytes,
                     "unsent_bytes", (json_int_t)d.unsent_bytes, "staged_bytes",
                     (json_int_t)d.staged_bytes, "buffer_bytes", (json_int_t)d.buffer_bytes,
                     "buffer_peak_bytes", (json_int_t)d.buffer_peak_bytes);
}

static void run_status(struct control_handle *h)
{
    struct fs *fs = h->fs;
    json_t *mount = json_pack("{s:s,s:i,s:b,s:I,s:I,s:I,s:o,s:o}", "version", SLUICE_VERSION, "pid",
                              (int)getpid(), "read_only", (int)fs->config.read_only, "uptime_s",
                              (json_int_t)((clock_wall_ns() - fs->started_ns) / NS_PER_S),
                              "known_inodes", (json_int_t)inodes_count(fs->inodes),
                              "failed_renames", (json_int_t)atomic_load(&fs->failed_renames),
                              "data", data_json(fs), "cache", control_cache_json(fs));
    if (mount) {
        control_set_name(mount, "mountpoint", fs->config.mountpoint, strlen(fs->config.mountpoint));
        control_set_name(mount, "source", fs->config.volume_name, strlen(fs->config.volume_name));
    }
    char *text = mount ? json_dumps(mount, JSON_COMPACT) : NULL;
    if (text) {
        buf_printf(&h->reply, "{\"ok\":true,\"mount\":%s,\"volume\":", text);
        meta_status_json(fs->meta, &h->reply);
        buf_printf(&h->reply, "}\n");
    } else {
        h->reply.failed = true;
    }
    free(text);
    json_decref(mount);
}

static void run_metrics(struct control_handle *h)
{
    struct buf text;
    buf_init(&text, 0);
    if (h->fs->config.metrics)
        metrics_print(h->fs->config.metrics, &text);
    control_put_json(&h->reply, json_pack("{s:b,s:s%}", "ok", 1, "text",
                                          text.len ? (const char *)text.data : "", text.len));
    buf_done(&text);
}

/* --- usage, drift, path */
static void run_usage(struct control_handle *h)
{
    struct meta_attr attr;
    struct meta_usage usage = {.files = 1};
    int result = control_walk(h, &h->request.path, &attr);
    if (result == 0 && S_ISDIR(attr.mode)) {
        result = control_may(&h->caller, &attr, CONTROL_MAY_READ | CONTROL_MAY_EXEC) ? 0 : -EACCES;
        struct meta_request request = {.op = {.kind = META_USAGE, .ino = attr.ino}};
        if (result == 0) {
            result = meta_call(h->fs->meta, &request);
            usage = request.reply.usage;
            meta_reply_done(&request.reply);
        }
    } else if (result == 0) {
        if (S_ISREG(attr.mode))
            data_overlay(h->fs->data, &attr);
        usage.bytes = attr.size;
    }
    if (result < 0) {
        control_fail(h, result, NULL);
        return;
    }
    control_put_json(&h->reply, json_pack("{s:b,s:I,s:I,s:I}", "ok", 1, "bytes",
                                          (json_int_t)usage.bytes, "files", (json_int_t)usage.files,
                                          "directories", (json_int_t)usage.directories));
}

static void run_drift(struct control_handle *h)
{
    struct meta_attr attr;
    int result = control_walk_readable(h, &attr);
    struct meta_request request = {.op = {.kind = META_DRIFT, .ino = attr.ino}};
    if (result == 0) {
        result = meta_call(h->fs->meta, &request);
        if (result == 0) {
            const struct meta_drift *d = &request.reply.drift;
            control_put_json(&h->reply,
                             json_pack("{s:b,s:I,s:I,s:I,s:I,s:I}", "ok", 1, "files",
                                       (json_int_t)d->files, "bytes", (json_int_t)d->bytes,
                                       "oldest_ns", (json_int_t)d->oldest_ns, "garbage_objects",
                                       (json_int_t)d->garbage_objects, "garbage_bytes",
                                       (json_int_t)d->garbage_bytes));
        }
        meta_reply_done(&request.reply);
    }
    if (result < 0)
        control_fail(h, result, NULL);
}

static void run_path(struct control_handle *h)
{
    struct meta_request request = {.op = {.kind = META_PATH, .ino = h->request.ino}};
    int result = meta_call(h->fs->meta, &request);
    if (result == 0) {
        struct control_text path = {.bytes = strndup(request.reply.data, request.reply.data_len),
                                    .len = request.reply.data_len};
        struct meta_attr attr;
        result = path.bytes ? control_walk(h, &path, &attr) : -ENOMEM;
        json_t *reply = json_pack("{s:b}", "ok", 1);
        if (result == 0 && reply)
            control_set_name(reply, "path", path.bytes, path.len);
        if (result == 0)
            control_put_json(&h->reply, reply);
        else
            json_decref(reply);
        free(path.bytes);
    }
    meta_reply_done(&request.reply);
    if (result < 0)
        control_fail(h, result, NULL);
}

int control_may_remove(struct control_handle *h, const struct meta_attr *parent,
                       const struct meta_attr *attr)
{
    uid_t uid = h->caller.uid;
    if (!control_may(&h->caller, parent, CONTROL_MAY_EXEC | CONTROL_MAY_WRITE))
        return -EACCES;
    if ((parent->mode & S_ISVTX) && uid != 0 && uid != parent->uid && uid != attr->uid)
        return -EPERM;
    return 0;
}

static void run_remove(struct control_handle *h)
{
    struct control_removed removed = {0};
    int result = control_remove(h, &removed);
    if (result < 0)
        control_fail(h, result, NULL);
    else
        control_put_json(&h->reply,
                         json_pack("{s:b,s:I,s:I}", "ok", 1, "files", (json_int_t)removed.files,
                                   "directories", (json_int_t)removed.directories));
}

/* --- refresh, settle: the volume's background work */

/* On the pool again: the kernel forgets what was found to be changed before the caller hears of it.
 */
static void task_ended(struct pool_task *task)
{
    struct control_handle *h = container_of(task, struct control_handle, pool_task);
    notify_wait(h->fs->notify);
    if (h->task.result < 0)
        control_fail(h, h->task.result, h->task.error.message[0] ? h->task.error.message : NULL);
    else
        control_put_json(&h->reply, json_pack("{s:b}", "ok", 1));
    control_finish(h);
}

static void task_done(struct meta_task *task)
{
    struct control_handle *h = task->arg;
    pthread_mutex_lock(&h->lock);
    h->task_state = CONTROL_TASK_NONE;
    pthread_mutex_unlock(&h->lock);
    h->pool_task.run = task_ended;
    control_submit(h);
}

static void start_notice(struct meta *meta, struct meta_task *task)
{
    struct control_handle *h = task->arg;
    meta_notice(meta, task, h->request.path.bytes);
}

/* True: it runs, and the reply comes by task_ended. */
static bool run_task(struct control_handle *h, void (*start)(struct meta *, struct meta_task *))
{
    struct meta_attr attr = {0};
    int result = 0;
    bool owner = h->caller.uid == 0 || h->caller.uid == h->fs->owner;
    if (h->request.op == CONTROL_NOTIFY)
        result = owner ? 0 : -EPERM; /* the path need not be there */
    else
        result = h->request.op == CONTROL_REFRESH ? control_walk_readable(h, &attr)
                                                  : control_walk(h, &h->request.path, &attr);
    if (result < 0) {
        control_fail(h, result, NULL);
        return false;
    }
    h->task = (struct meta_task){.ino = attr.ino, .done = task_done, .arg = h};
    h->task_state = CONTROL_TASK_STARTS;
    control_handle_ref(h);
    start(h->fs->meta, &h->task);
    /* It may be over already. Only now it may be cancelled. */
    pthread_mutex_lock(&h->lock);
    if (h->task_state == CONTROL_TASK_STARTS) {
        h->task_state = CONTROL_TASK_RUNS;
        if (h->cancel)
            control_cancel_locked(h);
    }
    pthread_mutex_unlock(&h->lock);
    control_handle_unref(h);
    return true;
}

/* --- flush: all that was written is durable */
static void flush_ended(struct pool_task *task)
{
    struct control_handle *h = container_of(task, struct control_handle, pool_task);
    if (h->flush.result < 0)
        control_fail(h, h->flush.result, "not all data could be sent; it is kept and tried again");
    else
        control_put_json(&h->reply, json_pack("{s:b}", "ok", 1));
    control_finish(h);
}

static void flush_done(struct data_request *request)
{
    struct control_handle *h = request->arg;
    h->pool_task.run = flush_ended;
    control_submit(h);
}

/* The reply comes by flush_ended. */
static void run_flush(struct control_handle *h)
{
    h->flush = (struct data_request){.done = flush_done, .arg = h};
    int result = data_flush_all(h->fs->data, &h->flush);
    if (result == -EINPROGRESS)
        return;
    h->flush.result = result;
    flush_done(&h->flush);
}

/* --- settle: what was acknowledged by the local disk only, first */
static void backlog_ended(struct pool_task *task)
{
    struct control_handle *h = container_of(task, struct control_handle, pool_task);
    if (h->flush.result < 0)
        control_fail(h, h->flush.result, "not all data could be sent; it is kept and tried again");
    else if (run_task(h, meta_settle_wait))
        return;
    control_finish(h);
}

static void backlog_flushed(struct data_request *request)
{
    struct control_handle *h = request->arg;
    h->pool_task.run = backlog_ended;
    control_submit(h);
}

/* True: the reply comes later. */
static bool run_settle(struct control_handle *h)
{
    h->flush = (struct data_request){.done = backlog_flushed, .arg = h};
    int result = data_flush_backlog(h->fs->data, &h->flush);
    if (result == -EINPROGRESS)
        return true;
    if (result == 0)
        return run_task(h, meta_settle_wait);
    control_fail(h, result, "not all data could be sent; it is kept and tried again");
    return false;
}

/* --- stop: when the caller has read the reply and closes */
static void run_stop(struct control_handle *h)
{
    if (h->caller.uid != 0 && h->caller.uid != h->fs->owner) {
        control_fail(h, -EPERM, "only root and who mounted may stop it");
        return;
    }
    h->stop_on_release = true;
    control_put_json(&h->reply, json_pack("{s:b,s:i}", "ok", 1, "pid", (int)getpid()));
}

/* --- keep: the end of the mount does not wait for the backlog */
static void run_keep(struct control_handle *h)
{
    if (h->caller.uid != 0 && h->caller.uid != h->fs->owner) {
        control_fail(h, -EPERM, "only root and who mounted may say so");
        return;
    }
    data_keep_backlog(h->fs->data);
    control_put_json(&h->reply, json_pack("{s:b}", "ok", 1));
}

/* --- leave: it ends when its own mount is gone, whoever has a copy; stay: it does not */
static void run_leave(struct control_handle *h)
{
    if (h->caller.uid != 0 && h->caller.uid != h->fs->owner) {
        control_fail(h, -EPERM, "only root and who mounted may say so");
        return;
    }
    int result = front_leave(h->fs, h->request.op == CONTROL_LEAVE);
    if (result < 0)
        control_fail(h, result, "its mount cannot be seen from its process");
    else
        control_put_json(&h->reply, json_pack("{s:b}", "ok", 1));
}

/* --- wait: one round trip in place of two for a rename */
static void run_wait(struct control_handle *h)
{
    /* Where the kernel lets no two writes of a file run beside each other, who waits would hold up
     * all who write here. Those that have this capability, which is a little younger, do. */
    if (!(h->fs->capabilities & FUSE_CAP_EXPIRE_ONLY)) {
        control_fail(h, -EOPNOTSUPP, "the kernel lets only one write to the control file run");
        return;
    }
    atomic_store(&h->waits, true);
    control_put_json(&h->reply, json_pack("{s:b}", "ok", 1));
}

void control_run(struct control_handle *h)
{
    bool later = false;
    switch (h->request.op) {
    case CONTROL_STATUS:
        run_status(h);
        break;
    case CONTROL_METRICS:
        run_metrics(h);
        break;
    case CONTROL_REFRESH:
        later = run_task(h, meta_refresh);
        break;
    case CONTROL_NOTIFY:
        later = run_task(h, start_notice);
        break;
    case CONTROL_SETTLE:
        later = run_settle(h);
        break;
    case CONTROL_USAGE:
        run_usage(h);
        break;
    case CONTROL_RENAME:
        control_run_rename(h);
        break;
    case CONTROL_REMOVE:
        run_remove(h);
        break;
    case CONTROL_LIST:
        control_run_list(h);
        break;
    case CONTROL_DRIFT:
        run_drift(h);
        break;
    case CONTROL_PATH:
        run_path(h);
        break;
    case CONTROL_QUOTA_SET:
        control_run_quota_set(h);
        break;
    case CONTROL_QUOTA_GET:
    case CONTROL_QUOTA_LIST:
        control_run_quota(h);
        break;
    case CONTROL_FLUSH:
        run_flush(h);
        later = true;
        break;
    case CONTROL_CHECKPOINT:
        control_run_checkpoint(h);
        break;
    case CONTROL_CHECK:
    case CONTROL_GC:
    case CONTROL_IMPORT:
        control_run_check(h);
        break;
    case CONTROL_CACHED:
    case CONTROL_EVICT:
    case CONTROL_PIN:
    case CONTROL_UNPIN:
        control_run_cached(h);
        break;
    case CONTROL_CACHE_VERIFY:
    case CONTROL_CACHE_CLEAR:
        control_run_cache(h);
        break;
    case CONTROL_STORE_ATTACH:
    case CONTROL_STORE_DETACH:
    case CONTROL_STORE_LIST:
        control_run_store(h);
        break;
    case CONTROL_MIGRATE:
        control_run_migrate(h);
        break;
    case CONTROL_ACL_GET:
    case CONTROL_ACL_SET:
        control_run_acl(h);
        break;
    case CONTROL_KEEP:
        run_keep(h);
        break;
    case CONTROL_LEAVE:
    case CONTROL_STAY:
        run_leave(h);
        break;
    case CONTROL_STOP:
        run_stop(h);
        break;
    case CONTROL_WAIT:
        run_wait(h);
        break;
    }
    if (!later)
        control_finish(h);
}
