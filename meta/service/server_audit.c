/* What the service tells the audit log: sessions, refusals, and operations when they are answered.
 */
#include <string.h>

#include "server_impl.h"

static struct audit_record record_of(const struct session *session, const char *event)
{
    return (struct audit_record){
        .event = event,
        .volume = session->volume->name,
        .session = session->id,
        .peer = session->peer,
        .token = session->grant.token,
        .client = session->text,
    };
}

void audit_session(const struct session *session, const char *event, const char *reason)
{
    struct audit_record record = record_of(session, event);
    record.reason = reason;
    audit_put(session->volume->server->audit, &record);
}

void audit_refused(const struct conn *conn, int code, const char *reason)
{
    struct audit_record record = {
        .event = "refused",
        .peer = conn->peer,
        .token = conn->session ? conn->session->grant.token : conn->grant.token,
        .volume = conn->session ? conn->session->volume->name : NULL,
        .session = conn->session ? conn->session->id : 0,
        .reason = reason,
        .result = code,
    };
    audit_put(conn->server->audit, &record);
}

/* What a mount does for itself: room for an object, and giving it back. */
static bool is_inner(enum meta_kind kind)
{
    return kind == META_RESERVE || kind == META_ABANDON || kind == META_DROP;
}

static const char *task_name(enum wire_task_kind kind)
{
    static const char *const names[] = {[WIRE_TASK_SYNC] = "sync",
                                        [WIRE_TASK_REFRESH] = "refresh",
                                        [WIRE_TASK_SETTLE] = "settle",
                                        [WIRE_TASK_OBJECT_CHANGED] = "object_changed"};
    return names[kind];
}

static bool is_wanted(const struct server *server, const struct job *job)
{
    enum meta_kind kind = job->decoded.op.kind;
    if (job->is_task)
        return job->task_kind == WIRE_TASK_SETTLE || job->task_kind == WIRE_TASK_REFRESH;
    /* What it may not have is always said. */
    if (job->result == -EACCES || job->result == -EROFS || job->result == -EPERM)
        return true;
    return !is_inner(kind) && (server->config.audit_reads || meta_kind_changes(kind));
}

void audit_job(const struct job *job)
{
    const struct server *server = job->session->volume->server;
    if (!server->audit || !is_wanted(server, job))
        return;
    struct audit_record record = record_of(job->session, "op");
    record.request = job->id;
    record.result = MIN(job->result, 0);
    if (job->is_task) {
        record.op = task_name(job->task_kind);
        record.ino = job->task.ino;
    } else {
        const struct meta_op *op = &job->decoded.op;
        record.op = op->kind ? meta_kind_name(op->kind) : NULL;
        /* What was made has its number in the answer. */
        record.ino = op->ino || job->result < 0 ? op->ino : job->request.reply.attr.ino;
        record.parent = op->parent;
        record.new_parent = op->new_parent;
        record.name = op->name;
        record.new_name = op->new_name;
    }
    audit_put(server->audit, &record);
}
