/*
 * Operations of clients: submitted to the volume on this thread; what they changed is told to the
 * other sessions, what they read is noted as cached; then they are answered, at once or when the
 * others have confirmed.
 */
#include <errno.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "server_quota.h"
#include "server_subtree.h"

#define READ_HELD_MS 100

/* Jobs */

static struct job *job_new(struct session *session, uint64_t id)
{
    struct job *job;
    struct server *server = session->volume->server;
    HASH_FIND(hh, session->jobs, &id, sizeof(id), job);
    if (job)
        return NULL; /* sent again by a new connection, and still at work: its answer will come */
    job = malloc(sizeof(*job));
    if (!job) {
        session_end(session, "no memory");
        return NULL;
    }
    memset(job, 0, offsetof(struct job, decoded));
    job->held_ms = 0;
    job->since_ms = clock_monotonic_ms();
    change_init(&job->change, session->volume, job);
    job->session = session;
    job->id = id;
    job->conn = session->conn;
    job->conn->busy++;
    job->posted = false;
    session->refs++;
    server->jobs++;
    HASH_ADD(hh, session->jobs, id, sizeof(job->id), job);
    metric_add(server->requests, 1);
    return job;
}

static void job_free(struct job *job)
{
    struct session *session = job->session;
    struct conn *conn = job->conn;
    HASH_DEL(session->jobs, job);
    session->volume->server->jobs--;
    if (job->held_ms)
        DL_DELETE2(session->volume->server->reading, job, reading_prev, reading_next);
    if (!job->is_task) {
        meta_codec_op_done(&job->decoded);
        meta_reply_done(&job->request.reply);
    }
    free(job->bytes);
    free(job);
    session_unref(session);
    if (conn)
        conn_request_done(conn);
}

/* The client's log has the same session and request. */
static void tell_of(const struct job *job)
{
    static struct log_limit limit = LOG_LIMIT(10, 10000);
    const struct session *session = job->session;
    uint64_t ms = clock_monotonic_ms() - job->since_ms;
    if (job->is_task || (ms < META_SLOW_MS && job->result != -EIO))
        return;
    log_limited(&limit, LOG_WARN, "request slow or failed",
                "volume=%s session=%" PRIu64 " request=%" PRIu64 " op=%s ms=%" PRIu64 " result=%s",
                session->volume->name, session->id, job->id,
                job->decoded.op.kind ? meta_kind_name(job->decoded.op.kind) : "?", ms,
                job->result < 0 ? strerrorname_np(-job->result) : "ok");
}

void job_answer(struct job *job)
{
    struct conn *conn = job->session->conn;
    if (conn && job->is_task) {
        struct wire_task_done done = {
            .id = job->id,
            .remaining = job->task.remaining,
            .result = MIN(job->result, 0),
            .text = {job->task.error.message, strlen(job->task.error.message)},
        };
        wire_put_task_done(conn_out(conn), &done);
    } else if (conn) {
        if (job->result == 0)
            job->result = subtree_give(job->session, &job->request.op, &job->request.reply);
        if (job->result == 0)
            auth_reply(job->session, &job->request.reply);
        wire_put_reply(conn_out(conn), job->id, MIN(job->result, 0), &job->request.reply);
    }
    audit_job(job);
    tell_of(job);
    job_free(job);
}

/* What a read tells the session, and whose unconfirmed changes it would show to it. */

static void saw(struct job *job, uint64_t ino)
{
    change_saw(&job->change, job->session, ino);
}

/* The client is told all names of the directory, and each change that others make is pushed to it,
 * as it was noted: so it need not ask for names that are not there. Not where the bucket may have
 * some that nobody has asked for. */
static void give_names(struct job *job)
{
    job->request.reply.whole = job->session->version >= WIRE_VERSION_NAMES;
}

static bool comes_from_bucket(const struct job *job, uint64_t ino)
{
    char prefix[META_KEY_MAX + 1];
    uint64_t listed_ns;
    return engine_origin(job->session->volume->meta->engine, ino, prefix, &listed_ns) != -ENODATA;
}

static void note_entries(struct job *job)
{
    const struct meta_reply *reply = &job->request.reply;
    struct session *session = job->session;
    const struct meta_op *op = &job->request.op;
    session_note(session, op->ino, LEASE_SELF | (op->plus ? LEASE_NAMES : 0));
    saw(job, op->ino);
    for (size_t i = 0; op->plus && i < reply->entry_count; i++) {
        session_note(session, reply->entries[i].ino, LEASE_SELF);
        saw(job, reply->entries[i].ino);
    }
    if (op->name.len == 0 && reply->end && !comes_from_bucket(job, op->ino))
        give_names(job);
}

static void note_read(struct job *job)
{
    const struct meta_op *op = &job->request.op;
    struct session *session = job->session;
    switch (op->kind) {
    case META_LOOKUP:
        session_note(session, op->parent, job->result == 0 ? LEASE_NAMES : LEASE_ABSENT);
        saw(job, op->parent);
        if (job->result == 0) {
            session_note(session, job->request.reply.attr.ino, LEASE_SELF);
            saw(job, job->request.reply.attr.ino);
        }
        break;
    case META_READDIR:
        note_entries(job);
        break;
    case META_USAGE:
    case META_DRIFT:
    case META_OBJECT:
    case META_QUOTA:
        break;
    default:
        session_note(session, op->ino, LEASE_SELF);
        if (op->kind != META_EXTENTS || !(op->flags & META_APPLYING))
            saw(job, op->ino);
        break;
    }
}

/* What a change means to the others. */

static void tell(struct job *job, enum wire_item_kind kind, uint64_t ino)
{
    volume_tell(job->session->volume, job->session, &job->change, kind, ino, NULL, 0);
}

/* `names`: what was true of it before. */
static bool tell_name(struct job *job, uint64_t parent, const struct meta_name *name,
                      unsigned names)
{
    return volume_tell(job->session->volume, job->session, &job->change, WIRE_ITEM_ENTRY, parent,
                       name, names);
}

/* The client's kernel will ask for the directory's attributes next. A directory that others look at
 * too would have to be taken back with their next change. */
static void give_parent(struct job *job, bool told)
{
    struct meta_op op = {.kind = META_GETATTR, .ino = job->request.op.parent};
    struct meta_reply reply;
    if (told || job->session->ended)
        return;
    if (volume_read(job->session->volume->meta, &op, &reply) == 0) {
        job->request.reply.parent = reply.attr;
        session_note(job->session, op.ino, LEASE_SELF);
    }
    meta_reply_done(&reply);
}

/* An inode that lost a name. */
static void tell_unlinked(struct job *job, const struct meta_attr *attr, uint64_t parent,
                          const struct meta_name *name)
{
    tell(job, WIRE_ITEM_ATTR, attr->ino);
    if (attr->nlink != 0)
        return;
    volume_name_gone(job->session->volume, job->session, parent, name);
    volume_gone(job->session->volume, job->session, attr->ino);
}

static void tell_rename(struct job *job)
{
    const struct meta_op *op = &job->request.op;
    const struct meta_reply *reply = &job->request.reply;
    bool told = tell_name(job, op->parent, &op->name, LEASE_NAMES);
    told |=
        tell_name(job, op->new_parent, &op->new_name,
                  reply->replaced.ino || op->flags & RENAME_EXCHANGE ? LEASE_NAMES : LEASE_ABSENT);
    tell(job, WIRE_ITEM_ATTR, reply->attr.ino);
    give_parent(job, told);
    session_note(job->session, op->new_parent, LEASE_NAMES);
    if (op->flags & RENAME_EXCHANGE)
        session_note(job->session, op->parent, LEASE_NAMES);
    if (reply->replaced.ino)
        tell_unlinked(job, &reply->replaced, op->new_parent, &op->new_name);
}

static void note_objects(struct job *job)
{
    const struct meta_op *op = &job->request.op;
    const struct meta_reply *reply = &job->request.reply;
    struct session *session = job->session;
    if (op->kind == META_RESERVE && reply->object_count)
        id_set_add(&session->reserved, reply->objects[0].id);
    if (op->kind == META_ABANDON)
        id_set_remove(&session->reserved, op->object);
    for (size_t i = 0; op->kind == META_COMMIT && i < op->object_count; i++)
        id_set_remove(&session->reserved, op->objects[i].id);
}

static void note_change(struct job *job)
{
    const struct meta_op *op = &job->request.op;
    const struct meta_reply *reply = &job->request.reply;
    struct session *session = job->session;
    switch (op->kind) {
    case META_MKNOD:
    case META_LINK:
        if (op->flags & META_NAMELESS) {
            volume_gone(session->volume, session, reply->attr.ino);
            break;
        }
        give_parent(job, tell_name(job, op->parent, &op->name, LEASE_ABSENT));
        if (op->kind == META_LINK) {
            tell(job, WIRE_ITEM_ATTR, op->ino);
            volume_named(session->volume, op->ino);
        }
        session_note(session, op->parent, LEASE_NAMES);
        session_note(session, reply->attr.ino, LEASE_SELF);
        /* The answer of a change that was sent again is as old as the change. */
        if (op->kind == META_MKNOD && S_ISDIR(reply->attr.mode) && !op->retry)
            give_names(job);
        break;
    case META_UNLINK:
        give_parent(job, tell_name(job, op->parent, &op->name, LEASE_NAMES));
        tell_unlinked(job, &reply->attr, op->parent, &op->name);
        break;
    case META_RENAME:
        tell_rename(job);
        break;
    case META_SETATTR:
        tell(job, op->valid & META_SET_SIZE ? WIRE_ITEM_CONTENT : WIRE_ITEM_ATTR, op->ino);
        session_note(session, op->ino, LEASE_SELF);
        break;
    case META_SETXATTR:
    case META_REMOVEXATTR:
        tell(job, WIRE_ITEM_ATTR, op->ino);
        break;
    case META_COMMIT:
    case META_PUNCH:
        tell(job, WIRE_ITEM_CONTENT, op->ino);
        session_note(session, op->ino, LEASE_SELF);
        break;
    case META_CLONE:
        tell(job, WIRE_ITEM_CONTENT, op->new_ino);
        session_note(session, op->new_ino, LEASE_SELF);
        break;
    default:
        break;
    }
    note_objects(job);
}

/* Inodes by which a change is seen, or by which it saw what others changed. All of a rename: who
 * sees the name where it is now must not find it where it was. */
static void note_inodes(struct job *job)
{
    const struct meta_op *op = &job->request.op;
    const struct meta_reply *reply = &job->request.reply;
    bool clone = op->kind == META_CLONE;
    uint64_t inos[] = {op->parent, op->kind == META_RENAME ? op->new_parent : 0,
                       clone ? op->new_ino : op->ino, job->result == 0 ? reply->attr.ino : 0,
                       job->result == 0 && op->kind == META_RENAME ? reply->replaced.ino : 0};
    for (size_t i = 0; i < sizeof(inos) / sizeof(inos[0]); i++) {
        if (inos[i])
            saw(job, inos[i]);
        if (job->result == 0)
            change_touch(&job->change, inos[i]);
    }
}

/* Applied, or looked up: others are told, and waited for, from this moment on. */
static void note(struct job *job, bool change)
{
    const struct meta_request *request = &job->request;
    job->result = request->applied ? 0 : request->result;
    if (change) {
        note_inodes(job);
        if (request->applied)
            note_change(job);
        change_publish(&job->change);
    } else if ((job->result == 0 || job->result == -ENOENT) && !job->session->ended) {
        note_read(job);
    }
}

void reads_let_go(struct loop_timer *timer)
{
    struct server *server = container_of(timer, struct server, reading_timer);
    struct job *job, *next;
    uint64_t now = clock_monotonic_ms();
    DL_FOREACH_SAFE2(server->reading, job, next, reading_next)
    {
        if (now < job->held_ms + READ_HELD_MS)
            break;
        if (job->session->sent > job->session->confirmed)
            change_let_go(&job->change);
    }
    if (server->reading)
        loop_timer_start(timer, READ_HELD_MS / 2);
}

static void note_held(struct job *job)
{
    struct server *server = job->session->volume->server;
    if (!server->reading)
        loop_timer_start(&server->reading_timer, READ_HELD_MS);
    job->held_ms = clock_monotonic_ms();
    DL_APPEND2(server->reading, job, reading_prev, reading_next);
}

static void finish(struct job *job);

void job_ended(struct job *job)
{
    if (job->is_task)
        finish(job);
    else
        change_made(&job->change);
}

/* Nothing but confirmations is waited for. */
static void finish(struct job *job)
{
    struct server_volume *volume = job->session->volume;
    /* No page is locked yet by who only opens. */
    if (!job->is_task && job->request.op.kind == META_EXTENTS &&
        !(job->request.op.flags & META_OPENING) && job->change.holds)
        note_held(job);
    job->result = job->is_task ? job->task.result : job->request.result;
    if (!job->is_task && job->request.applied && job->session->ended && volume->meta)
        volume_session_over(volume, job->session);
    quota_look(volume);
    if (!job->is_task && job->request.op.kind == META_QUOTA_SET && job->result == 0 &&
        quota_was_set(job))
        return;
    change_made(&job->change);
}

static void run_back(struct loop_task *task)
{
    finish(container_of(task, struct job, back));
}

/* Nobody else waits for this thread, and nothing that came with this request, which one sync would
 * do for: it may sync for the one who waits. */
static bool may_wait(const struct session *session)
{
    const struct wire_input *in = &session->conn->in;
    return session->volume->server->jobs == 1 && in->pos == in->bytes.len &&
           syncer_is_quick(session->volume->meta->syncer);
}

/* True: it is told to who submits. */
static bool note_ended(struct job *job)
{
    if (!loop_on_thread(job->session->volume->server->loop) || !job->trying)
        return false;
    return job->ended = true;
}

static void request_done(struct meta_request *request)
{
    struct job *job = container_of(request, struct job, request);
    if (note_ended(job))
        return;
    job->back.run = run_back;
    loop_post(job->session->volume->server->loop, &job->back);
}

static void task_done(struct meta_task *task)
{
    struct job *job = container_of(task, struct job, task);
    if (note_ended(job))
        return;
    job->back.run = run_back;
    loop_post(job->session->volume->server->loop, &job->back);
}

/* `rc`: how one try ended. */
static void tried(struct job *job, int rc)
{
    if (rc != -EINPROGRESS || job->request.applied)
        note(job, meta_kind_changes(job->request.op.kind));
    if (rc != -EINPROGRESS || job->ended)
        finish(job);
}

static void run_again(struct loop_task *task)
{
    struct job *job = container_of(task, struct job, back);
    struct meta *meta = job->session->volume->meta;
    if (meta) {
        tried(job, volume_serve_here(meta, &job->request));
        return;
    }
    job->request.result = -ECANCELED; /* the volume is being stopped */
    finish(job);
}

static void request_again(struct meta_request *request)
{
    struct job *job = container_of(request, struct job, request);
    job->back.run = run_again;
    loop_post(job->session->volume->server->loop, &job->back);
}

/* Taking them */

static int decode(struct job *job, const struct wire_request *m)
{
    job->bytes = malloc(m->op_len + 1);
    if (!job->bytes)
        return -ENOMEM;
    memcpy(job->bytes, m->op, m->op_len);
    return meta_codec_op_get(job->bytes, m->op_len, &job->decoded);
}

static bool is_refused(struct job *job, const struct wire_request *m, int *rc)
{
    struct meta_op *op = &job->decoded.op;
    bool change = meta_kind_changes(op->kind);
    op->retry = change && m->retry;
    if (op->kind == 0 || op->kind > META_QUOTA_SET || (change && !m->change)) {
        *rc = -EINVAL;
        return true;
    }
    if (op->kind == META_DROP) {
        volume_drop(job->session->volume, job->session, op->inos, op->ino_count);
        *rc = 0;
        return true;
    }
    *rc = change && job->session->read_only ? -EROFS : auth_op(job->session, op);
    if (*rc == 0)
        *rc = subtree_take(job->session, op);
    return *rc < 0;
}

void request_take(struct session *session, const struct wire_request *m)
{
    int rc;
    struct job *job = job_new(session, m->id);
    if (!job)
        return;
    memset(&job->decoded, 0, sizeof(job->decoded));
    memset(&job->request, 0, offsetof(struct meta_request, reply));
    meta_reply_init(&job->request.reply);
    job->request.done = request_done;
    rc = decode(job, m);
    if (rc < 0 || is_refused(job, m, &rc)) {
        job->result = rc == -EBADMSG ? -EPROTO : rc;
        job_answer(job);
        return;
    }
    struct meta_op *op = &job->request.op;
    *op = job->decoded.op;
    op->session = session->id;
    op->request = meta_kind_changes(op->kind) ? m->change : 0;
    op->retry = op->request && m->retry;
    /* Bytes of other hosts are accepted when they are committed, so limits bind here. */
    op->flags &= ~(uint32_t)META_ACCEPTED;
    job->request.durable = m->durable;
    struct meta *meta = session->volume->meta;
    job->request.may_wait = may_wait(session);
    job->trying = true;
    rc = volume_submit_here(meta, &job->request, request_again);
    job->trying = false;
    tried(job, rc);
}

static void sync_now(struct job *job)
{
    job->task.may_wait = may_wait(job->session);
    job->trying = true;
    meta_sync(job->session->volume->meta, &job->task);
    job->trying = false;
    if (job->ended)
        finish(job);
}

void task_take(struct session *session, const struct wire_task *m)
{
    struct meta *meta = session->volume->meta;
    struct job *job = job_new(session, m->id);
    if (!job)
        return;
    job->is_task = true;
    job->reported = 0;
    memset(&job->task, 0, sizeof(job->task));
    job->task_kind = m->kind;
    job->quota_rounds = 0;
    job->task.ino = m->ino;
    job->task.done = task_done;
    if (m->kind == WIRE_TASK_RESERVED && m->ino == 0) {
        quota_answered(session, m->object);
        finish(job);
        return;
    }
    job->result = auth_task(session, m->kind);
    if (job->result < 0) {
        error_set(&job->task.error, job->result, "the token of this mount is for reading");
        job_answer(job);
        return;
    }
    job->result = subtree_take_ino(session, &job->task.ino);
    if (job->result < 0) {
        error_set(&job->task.error, job->result, "this is not below the root of the mount");
        job_answer(job);
        return;
    }
    switch (m->kind) {
    case WIRE_TASK_SYNC:
        sync_now(job);
        break;
    case WIRE_TASK_REFRESH:
        meta_refresh(meta, &job->task);
        break;
    case WIRE_TASK_SETTLE:
        meta_settle_wait(meta, &job->task);
        break;
    case WIRE_TASK_OBJECT_CHANGED:
        meta_object_changed(meta, &job->task, m->object);
        break;
    case WIRE_TASK_RESERVE:
    case WIRE_TASK_RESERVED:
        if (!quota_take(job, m->object))
            finish(job);
        break;
    }
}

void task_cancel(struct session *session, uint64_t id)
{
    struct job *job;
    HASH_FIND(hh, session->jobs, &id, sizeof(id), job);
    if (job && job->is_task)
        meta_task_cancel(session->volume->meta, &job->task);
}

void jobs_progress(struct session *session)
{
    for (struct job *job = session->jobs; job && session->conn; job = job->hh.next) {
        if (!job->is_task)
            continue;
        uint64_t remaining = __atomic_load_n(&job->task.remaining, __ATOMIC_RELAXED);
        if (remaining == job->reported)
            continue;
        job->reported = remaining;
        wire_put_progress(conn_out(session->conn), job->id, remaining);
    }
}
