/*
 * Calls of a remote volume: each is listed until it is answered, so that it can be sent again over
 * the next connection. Changes are numbered; the service applies each number once.
 */
#include "remote_impl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "meta/codec.h"

#define CALLS_MAX 65536
/* For a new token, in place of one that is refused: the next connection reads it. */
#define REFUSED_PATIENCE_MS 5000u

static void run_flush(struct loop_task *task)
{
    struct remote *remote = container_of(task, struct remote, flush_task);
    struct buf out;
    buf_init(&out, 0);
    pthread_mutex_lock(&remote->lock);
    remote->posted = false;
    if (remote->online) {
        out = remote->out;
        buf_init(&remote->out, 0);
    }
    pthread_mutex_unlock(&remote->lock);
    remote_link_send(remote, &out); /* also what is left of before */
    buf_done(&out);
}

void remote_post_flush_locked(struct remote *remote)
{
    if (remote->posted || !remote->online || remote->closing)
        return;
    remote->posted = true;
    remote->flush_task.run = run_flush;
    loop_post(remote->loop, &remote->flush_task);
}

/* The oldest change without an answer says how far the numbers may go: the service keeps so many
 * answers. */
static bool window_open_locked(const struct remote *remote)
{
    const struct remote_call *call;
    DL_FOREACH(remote->order, call)
    {
        if (call->change)
            return remote->next_change - call->change < remote->window;
    }
    return true;
}

static void put_request_locked(struct remote *remote, struct remote_call *call, bool retry)
{
    struct wire_request head = {
        .id = call->id,
        .change = call->change,
        .durable = call->request->durable,
        .retry = retry && call->change,
    };
    wire_put_request(&remote->out, &head, &call->request->op);
}

/* False: it has to wait. */
static bool send_locked(struct remote *remote, struct remote_call *call)
{
    bool again = call->sent;
    if (!remote->online)
        return false;
    switch (call->kind) {
    case REMOTE_REQUEST:
        if (!call->change && meta_kind_changes(call->request->op.kind)) {
            if (!window_open_locked(remote))
                return false;
            call->change = remote->next_change++;
        }
        put_request_locked(remote, call, again);
        break;
    case REMOTE_TASK: {
        struct wire_task task = {.id = call->id,
                                 .kind = call->task_kind,
                                 .ino = call->task->ino,
                                 .object = call->object};
        wire_put_task(&remote->out, &task);
        if (call->cancel)
            wire_put_number(&remote->out, WIRE_TASK_CANCEL, call->id);
        break;
    }
    case REMOTE_STATUS:
        wire_put_number(&remote->out, WIRE_STATUS, call->id);
        break;
    case REMOTE_KEYS:
        wire_put_number(&remote->out, WIRE_KEYS, call->id);
        break;
    case REMOTE_STORES:
        /* Sent again it only asks how things are, so that the answer is not left out. */
        call->lost |= again && call->once;
        wire_put_text(&remote->out, WIRE_STORES, call->id, call->lost ? "{}" : call->text,
                      call->lost ? 2 : strlen(call->text));
        break;
    case REMOTE_LOCK:
        remote_lock_put(remote, call);
        break;
    }
    call->sent = true;
    metric_add(remote->requests, 1);
    return true;
}

/* What this client knows already, and what the change will make of that. */
static void note_asked_locked(struct remote *remote, struct remote_call *call)
{
    struct meta_attr attr;
    const struct meta_op *op = &call->request->op;
    if (op->kind == META_RENAME)
        call->moved = remote_names_find(&remote->names, op->parent, &op->name);
    if (call->moved && !remote_attrs_find(&remote->attrs, call->moved, &attr))
        call->moved = 0;
    remote_attrs_asked(&remote->attrs, op);
    call->touches = remote->attrs.touches;
    call->names = remote_names_asked(&remote->names, op);
}

/* 0, or why it cannot be: then the call is freed. */
int remote_call(struct remote *remote, struct remote_call *call)
{
    pthread_mutex_lock(&remote->lock);
    int rc = atomic_load(&remote->fenced); /* under the lock: what comes later is not ended by it */
    if (!rc && call->request && call->request->era && call->request->era != remote->era)
        rc = -ESTALE;
    if (!rc && remote->closing)
        rc = -ECANCELED;
    if (!rc && call->lock && call->lock->cancelled)
        rc = -EINTR;
    if (!rc && HASH_COUNT(remote->calls) >= CALLS_MAX)
        rc = -EBUSY;
    if (rc) {
        pthread_mutex_unlock(&remote->lock);
        free(call);
        return rc;
    }
    call->id = remote->next_id++;
    call->since_ms = clock_monotonic_ms();
    if (call->request)
        note_asked_locked(remote, call);
    HASH_ADD(hh, remote->calls, id, sizeof(call->id), call);
    DL_APPEND(remote->order, call);
    bool sent = !remote->unsent && send_locked(remote, call);
    /* Many go together: one call of the system, and one sync of the service, for all of them. */
    bool alone = HASH_COUNT(remote->calls) == 1;
    if (!sent)
        remote->unsent++;
    else if (!alone)
        remote_post_flush_locked(remote);
    pthread_mutex_unlock(&remote->lock);
    if (sent && alone)
        remote_send(remote);
    return 0;
}

/* A name that this client knows not to be there, or whose it is, with the attributes. */
static bool is_known(struct remote *remote, struct meta_request *request)
{
    struct meta_attr attr;
    const struct meta_op *op = &request->op;
    pthread_mutex_lock(&remote->lock);
    bool absent = remote->online && remote_names_absent(&remote->names, op->parent, &op->name);
    uint64_t ino = remote->online ? remote_names_find(&remote->names, op->parent, &op->name) : 0;
    bool found = ino && remote_attrs_find(&remote->attrs, ino, &attr);
    pthread_mutex_unlock(&remote->lock);
    if (found)
        request->reply.attr = attr;
    else if (absent)
        request->reply.whole = true;
    request->result = absent ? -ENOENT : 0;
    return absent || found;
}

/* From what the service gave before, if it may still be used. */
static bool is_answered_here(struct remote *remote, struct meta_request *request)
{
    struct meta_attr attr;
    if (request->op.kind == META_LOOKUP)
        return !atomic_load(&remote->fenced) && remote_cache_ms(remote) &&
               is_known(remote, request);
    bool attributes = request->op.kind == META_GETATTR;
    if (!attributes &&
        (request->op.kind != META_GETXATTR || engine_xattr_is_virtual(&request->op.name)))
        return false;
    if (atomic_load(&remote->fenced) || !remote_cache_ms(remote))
        return false;
    pthread_mutex_lock(&remote->lock);
    bool found = remote->online && remote_attrs_find(&remote->attrs, request->op.ino, &attr);
    pthread_mutex_unlock(&remote->lock);
    if (!found || (!attributes && attr.has_xattr))
        return false;
    if (attributes)
        request->reply.attr = attr;
    request->result = attributes ? 0 : -ENODATA;
    return true;
}

int remote_submit(struct remote *remote, struct meta_request *request)
{
    meta_reply_init(&request->reply);
    request->impl = NULL;
    request->next = NULL;
    request->sequence = 0;
    if (request->op.kind > META_QUOTA_SET)
        return request->result = -EINVAL;
    if (remote->config.read_only && meta_kind_changes(request->op.kind))
        return request->result = request->op.kind == META_DROP ? 0 : -EROFS;
    if (is_answered_here(remote, request))
        return request->result;
    if (request->op.kind == META_GETATTR && request->op.flags & META_OPENING) {
        request->op.kind = META_EXTENTS;
        request->op.length = UINT64_MAX;
    }
    struct remote_call *call = calloc(1, sizeof(*call));
    if (!call)
        return request->result = -ENOMEM;
    call->kind = REMOTE_REQUEST;
    call->request = request;
    int rc = remote_call(remote, call);
    return rc ? (request->result = rc) : -EINPROGRESS;
}

/* Tasks */

struct failed_task {
    struct loop_task task;
    struct meta_task *meta_task;
};

static void run_failed_task(struct loop_task *task)
{
    struct failed_task *failed = container_of(task, struct failed_task, task);
    failed->meta_task->done(failed->meta_task);
    free(failed);
}

/* `done` is promised, and never inside the call that submits. */
static void fail_task(struct remote *remote, struct meta_task *task, int rc)
{
    error_set(&task->error, rc, "the metadata service: %s", strerror(-rc));
    task->result = rc;
    struct failed_task *failed = calloc(1, sizeof(*failed));
    if (!failed) {
        task->done(task);
        return;
    }
    failed->meta_task = task;
    failed->task.run = run_failed_task;
    loop_post(remote->loop, &failed->task);
}

void remote_task(struct remote *remote, struct meta_task *task, enum wire_task_kind kind,
                 uint64_t object)
{
    task->result = 0;
    task->remaining = 0;
    error_clear(&task->error);
    task->cancel = false;
    struct remote_call *call = calloc(1, sizeof(*call));
    int rc = call ? 0 : -ENOMEM;
    if (!rc) {
        call->kind = REMOTE_TASK;
        call->task = task;
        call->task_kind = kind;
        call->object = object;
        rc = remote_call(remote, call);
    }
    if (rc)
        fail_task(remote, task, rc);
}

void remote_task_cancel(struct remote *remote, struct meta_task *task)
{
    struct remote_call *call;
    pthread_mutex_lock(&remote->lock);
    DL_FOREACH(remote->order, call)
    {
        if (call->kind != REMOTE_TASK || call->task != task)
            continue;
        call->cancel = true;
        if (call->sent && remote->online)
            wire_put_number(&remote->out, WIRE_TASK_CANCEL, call->id);
        remote_post_flush_locked(remote);
        break;
    }
    pthread_mutex_unlock(&remote->lock);
}

void remote_status(struct remote *remote, struct buf *out)
{
    sem_t answered;
    size_t before = out->len;
    struct remote_call *call = calloc(1, sizeof(*call));
    sem_init(&answered, 0, 0);
    if (call) {
        call->kind = REMOTE_STATUS;
        call->status = out;
        call->answered = &answered;
        if (remote_call(remote, call) == 0)
            while (sem_wait(&answered) < 0 && errno == EINTR)
                ;
    }
    sem_destroy(&answered);
    if (out->len == before)
        buf_put(out, "{}", 2);
}

int remote_ask_stores(struct remote *remote, const char *text, bool once, struct buf *out)
{
    sem_t answered;
    int result = 0;
    struct remote_call *call = calloc(1, sizeof(*call));
    if (!call)
        return -ENOMEM;
    sem_init(&answered, 0, 0);
    call->kind = REMOTE_STORES;
    call->status = out;
    call->answered = &answered;
    call->text = text;
    call->result = &result;
    call->once = once;
    int rc = remote_call(remote, call);
    while (rc == 0 && sem_wait(&answered) < 0 && errno == EINTR)
        ;
    sem_destroy(&answered);
    return rc ? rc : result;
}

/* Ends */

void remote_remove_locked(struct remote *remote, struct remote_call *call)
{
    HASH_DEL(remote->calls, call);
    DL_DELETE(remote->order, call);
    if (!call->sent)
        remote->unsent--;
}

struct remote_call *remote_take(struct remote *remote, uint64_t id, enum remote_call_kind kind)
{
    struct remote_call *call;
    pthread_mutex_lock(&remote->lock);
    HASH_FIND(hh, remote->calls, &id, sizeof(id), call);
    if (call && (call->kind != kind || !call->sent))
        call = NULL;
    if (call)
        remote_remove_locked(remote, call);
    pthread_mutex_unlock(&remote->lock);
    return call;
}

static void end_call(struct remote_call *call, int result)
{
    switch (call->kind) {
    case REMOTE_REQUEST:
        call->request->result = result;
        call->request->done(call->request);
        break;
    case REMOTE_TASK:
        call->task->result = result;
        if (result && !call->task->error.code)
            error_set(&call->task->error, result, "the metadata service: %s", strerror(-result));
        call->task->done(call->task);
        break;
    case REMOTE_STORES:
        *call->result = call->lost ? -ECONNRESET : result;
        sem_post(call->answered);
        break;
    case REMOTE_STATUS:
        sem_post(call->answered);
        break;
    case REMOTE_KEYS:
        call->keys->result = result;
        sem_post(&call->keys->answered);
        break;
    case REMOTE_LOCK:
        if (call->lock) {
            call->lock->result = result;
            call->lock->done(call->lock);
        }
        break;
    }
    free(call);
}

void remote_end_calls(struct remote *remote, int result, bool all)
{
    struct remote_call *call, *next, *ended = NULL;
    uint64_t now = clock_monotonic_ms();
    uint32_t patience_ms = remote->refused ? REFUSED_PATIENCE_MS : remote->config.patience_ms;
    pthread_mutex_lock(&remote->lock);
    DL_FOREACH_SAFE(remote->order, call, next)
    {
        /* Whether a lock was had is not left open. */
        if (!all && (call->kind == REMOTE_LOCK || now - call->since_ms < patience_ms))
            continue;
        remote_remove_locked(remote, call);
        DL_APPEND(ended, call);
    }
    pthread_mutex_unlock(&remote->lock);
    DL_FOREACH_SAFE(ended, call, next)
    {
        DL_DELETE(ended, call);
        end_call(call, result);
    }
}

void remote_resume(struct remote *remote)
{
    struct remote_call *call;
    pthread_mutex_lock(&remote->lock);
    remote->online = true;
    remote->unsent = 0;
    DL_FOREACH(remote->order, call)
    {
        if (!send_locked(remote, call))
            remote->unsent++;
    }
    remote_post_flush_locked(remote);
    pthread_mutex_unlock(&remote->lock);
}

void remote_offline(struct remote *remote)
{
    struct remote_call *call;
    uint64_t now = clock_monotonic_ms();
    pthread_mutex_lock(&remote->lock);
    if (remote->online)
        DL_FOREACH(remote->order, call)
        {
            call->since_ms = now;
        }
    remote->online = false;
    remote_attrs_touch_all(&remote->attrs);
    remote_names_drop_all(&remote->names);
    buf_reset(&remote->out);
    pthread_mutex_unlock(&remote->lock);
    remote_lock_offline(remote);
}

/* Those that waited for the window, after an answer. */
static void send_unsent(struct remote *remote)
{
    struct remote_call *call;
    pthread_mutex_lock(&remote->lock);
    if (remote->unsent && remote->online) {
        DL_FOREACH(remote->order, call)
        {
            if (call->sent)
                continue;
            if (!send_locked(remote, call))
                break;
            remote->unsent--;
        }
        remote_post_flush_locked(remote);
    }
    pthread_mutex_unlock(&remote->lock);
}

uint32_t remote_cache_ms(const struct remote *remote)
{
    uint64_t now = clock_monotonic_ns(), end = atomic_load(&remote->lease_end_ns);
    return now < end ? (uint32_t)((end - now) / NS_PER_MS) : 0;
}

/* Reserved objects: a restarted service is told of them. */

static void object_add(struct remote *remote, uint64_t id)
{
    struct remote_object *object = calloc(1, sizeof(*object));
    if (!object)
        return; /* after a restart of the service its commit may be refused */
    object->id = id;
    pthread_mutex_lock(&remote->lock);
    HASH_ADD(hh, remote->objects, id, sizeof(object->id), object);
    remote->newest_object = MAX(remote->newest_object, id);
    pthread_mutex_unlock(&remote->lock);
}

uint64_t remote_newest_object(struct remote *remote)
{
    pthread_mutex_lock(&remote->lock);
    uint64_t id = remote->newest_object;
    pthread_mutex_unlock(&remote->lock);
    return id;
}

static void object_remove(struct remote *remote, uint64_t id)
{
    struct remote_object *object;
    pthread_mutex_lock(&remote->lock);
    HASH_FIND(hh, remote->objects, &id, sizeof(id), object);
    if (object)
        HASH_DEL(remote->objects, object);
    pthread_mutex_unlock(&remote->lock);
    free(object);
}

void remote_forget(struct remote *remote)
{
    struct remote_object *object, *next;
    pthread_mutex_lock(&remote->lock);
    HASH_ITER(hh, remote->objects, object, next)
    {
        HASH_DEL(remote->objects, object);
        free(object);
    }
    locks_clear(remote->locks);
    remote->next_change = 1;
    pthread_mutex_unlock(&remote->lock);
}

void remote_put_objects(struct remote *remote, struct buf *b)
{
    struct remote_object *object, *next;
    size_t n = 0;
    pthread_mutex_lock(&remote->lock);
    uint64_t *ids = calloc(HASH_COUNT(remote->objects) + 1, sizeof(*ids));
    if (ids)
        HASH_ITER(hh, remote->objects, object, next)
        {
            ids[n++] = object->id;
        }
    pthread_mutex_unlock(&remote->lock);
    wire_put_claim(b, ids, n);
    free(ids);
}

static void note_objects(struct remote *remote, const struct meta_request *request)
{
    const struct meta_op *op = &request->op;
    if (op->kind == META_RESERVE && request->result == 0 && request->reply.object_count)
        object_add(remote, request->reply.objects[0].id);
    if (op->kind == META_ABANDON)
        object_remove(remote, op->object);
    if (op->kind == META_COMMIT && request->result == 0)
        for (size_t i = 0; i < op->object_count; i++)
            object_remove(remote, op->objects[i].id);
}

/* Answers */

/* The service's log has the same session and request, if it was there that it took so long. */
static void tell_of(const struct remote *remote, const struct remote_call *call, int result)
{
    static struct log_limit limit = LOG_LIMIT(10, 10000);
    uint64_t ms = clock_monotonic_ms() - call->since_ms;
    if (ms < META_SLOW_MS && result != -EIO)
        return;
    log_limited(&limit, LOG_WARN, "metadata request slow or failed",
                "session=%" PRIu64 " request=%" PRIu64 " op=%s ms=%" PRIu64 " result=%s",
                remote->session, call->id, meta_kind_name(call->request->op.kind), ms,
                result ? strerrorname_np(-result) : "ok");
}

/* Who sees by it what another mount did must not find another name as it was before. */
static void show_names(const struct remote *remote, const struct meta_op *op)
{
    const struct meta_events *events = &remote->config.events;
    uint64_t directory = op->kind == META_READDIR ? op->ino : op->parent;
    if (directory && events->names_shown)
        events->names_shown(events->arg, directory, op->new_parent);
}

/* What the answer says of the names of directories. */
static void answer_names_locked(struct remote *remote, struct remote_call *call)
{
    struct meta_request *request = call->request;
    uint64_t directory =
        request->op.kind == META_READDIR ? request->op.ino : request->reply.attr.ino;
    /* Others, or this client itself, may have changed it since that answer was made. */
    if (request->reply.whole && remote_attrs_touched(&remote->attrs, directory, call->touches))
        request->reply.whole = false;
    remote_names_answered(&remote->names, &request->op, request->result, &request->reply,
                          call->names);
    const struct meta_op *op = &request->op;
    if (op->kind == META_LOOKUP && request->result == 0 &&
        !remote_attrs_touched(&remote->attrs, op->parent, call->touches))
        remote_names_found(&remote->names, op->parent, &op->name, request->reply.attr.ino);
}

static void answer_attrs_locked(struct remote *remote, const struct remote_call *call)
{
    const struct meta_request *request = call->request;
    const struct meta_attr *attr = &request->reply.attr;
    /* The service still notes that they are known here. */
    bool moved = call->moved && call->moved == attr->ino &&
                 !remote_attrs_touched(&remote->attrs, attr->ino, call->touches);
    remote_attrs_answered(&remote->attrs, &request->op, &request->reply, call->touches);
    if (moved)
        remote_attrs_keep(&remote->attrs, attr, remote->attrs.touches);
}

static int answer_request(struct remote *remote, const uint8_t *data, size_t len)
{
    struct wire_reply reply;
    if (wire_get_reply(data, len, &reply) < 0)
        return -EBADMSG;
    struct remote_call *call = remote_take(remote, reply.id, REMOTE_REQUEST);
    if (!call)
        return 0; /* its patience was over */
    struct meta_request *request = call->request;
    request->result = reply.result;
    if (!reply.result && reply.reply) {
        int rc = meta_codec_reply_get(reply.reply, reply.reply_len, &request->reply);
        if (rc)
            request->result = rc == -ENOMEM ? rc : -EIO;
    }
    pthread_mutex_lock(&remote->lock);
    if (request->result == 0)
        answer_attrs_locked(remote, call);
    answer_names_locked(remote, call);
    pthread_mutex_unlock(&remote->lock);
    note_objects(remote, request);
    show_names(remote, &request->op);
    tell_of(remote, call, request->result);
    end_call(call, request->result);
    send_unsent(remote);
    return 0;
}

static int answer_task(struct remote *remote, const uint8_t *data, size_t len)
{
    struct wire_task_done done;
    if (wire_get_task_done(data, len, &done) < 0)
        return -EBADMSG;
    struct remote_call *call = remote_take(remote, done.id, REMOTE_TASK);
    if (!call)
        return 0;
    call->task->remaining = done.remaining;
    if (done.result && done.text.len)
        error_set(&call->task->error, done.result, "%.*s", (int)done.text.len, done.text.bytes);
    end_call(call, done.result);
    return 0;
}

static int answer_progress(struct remote *remote, const uint8_t *data, size_t len)
{
    uint64_t id, remaining;
    struct remote_call *call;
    if (wire_get_progress(data, len, &id, &remaining) < 0)
        return -EBADMSG;
    pthread_mutex_lock(&remote->lock);
    HASH_FIND(hh, remote->calls, &id, sizeof(id), call);
    if (call && call->kind == REMOTE_TASK)
        __atomic_store_n(&call->task->remaining, remaining, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&remote->lock);
    return 0;
}

static int answer_text(struct remote *remote, enum remote_call_kind kind, const uint8_t *data,
                       size_t len)
{
    uint64_t id;
    struct wire_text text;
    if (wire_get_text(data, len, &id, &text) < 0)
        return -EBADMSG;
    struct remote_call *call = remote_take(remote, id, kind);
    if (!call)
        return 0;
    buf_put(call->status, text.bytes, text.len);
    end_call(call, 0);
    return 0;
}

int remote_answer(struct remote *remote, enum wire_type type, const uint8_t *data, size_t len)
{
    switch (type) {
    case WIRE_REPLY:
        return answer_request(remote, data, len);
    case WIRE_TASK_DONE:
        return answer_task(remote, data, len);
    case WIRE_TASK_PROGRESS:
        return answer_progress(remote, data, len);
    case WIRE_STATUS_REPLY:
        return answer_text(remote, REMOTE_STATUS, data, len);
    case WIRE_STORES_REPLY:
        return answer_text(remote, REMOTE_STORES, data, len);
    case WIRE_LOCK_DONE:
        return remote_lock_answer(remote, data, len);
    case WIRE_KEYS_REPLY:
        return remote_keys_answer(remote, data, len);
    default:
        return -EBADMSG;
    }
}
