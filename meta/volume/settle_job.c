/*
 * The steps of one file: begin (recorded), read where its bytes are, write the object
 * (settle_write.c), verify, swap. Whatever fails is recorded with the time of the next try; what
 * was written by then is garbage, and gc finds it by its record.
 */
#include <errno.h>
#include <openssl/evp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "base/crash.h"
#include "base/hash.h"
#include "import/import.h"
#include "s3/mux.h"
#include "settle.h"

#define TELL_MAX (512u << 10) /* bytes of a file that events tell */
#define DELAY_FIRST_NS NS_PER_S
#define DELAY_MAX_NS (300 * NS_PER_S)
#define WAIT_NS (200 * NS_PER_MS)
#define DELAY_TAKEN_NS (600 * NS_PER_S) /* the key is somebody else's */

void settle_job_submit(struct settle_job *job, void (*done)(struct work_op *work))
{
    job->op.op.priority = STORE_BACKGROUND;
    job->op.done = done;
    job->op.arg = job;
    settle_job_pace(job);
}

const struct meta_object *settle_job_object(const struct settle_job *job, uint64_t id)
{
    for (size_t i = 0; i < job->body.object_count; i++)
        if (job->body.objects[i].id == id)
            return &job->body.objects[i];
    return NULL;
}

static void ticket_back(struct settle_job *job)
{
    if (job->has_ticket)
        tickets_return(job->settler->memory, job->ticket.bytes);
    job->has_ticket = false;
}

void settle_job_clear(struct settle_job *job)
{
    store_op_reset(&job->op.op);
    meta_reply_done(&job->call.request.reply);
    if (job->has_body)
        meta_reply_done(&job->body);
    settle_parts_done(&job->parts);
    free(TAKE_PTR(job->done_parts));
    free(TAKE_PTR(job->upload_id));
    free(TAKE_PTR(job->buffer));
    ticket_back(job);
}

static void call(struct settle_job *job, const struct meta_op *op, bool durable,
                 void (*done)(struct work_call *call))
{
    meta_reply_done(&job->call.request.reply);
    job->call.request.op = *op;
    job->call.request.durable = durable;
    job->call.done = done;
    job->call.arg = job;
    work_call_submit(job->meta, &job->call);
}

/* Failing */

static void retry_recorded(struct work_call *done)
{
    struct settle_job *job = done->arg;
    job->hold = done->request.result != 0;
    settle_job_ended(job, job->changed && !job->hold ? SETTLE_END_SUPERSEDED : SETTLE_END_FAILED);
}

/* The next try gets another object: the record of this one leads gc to what is left of it. */
static void abandon_target(struct settle_job *job)
{
    struct meta_op op = {.kind = META_ABANDON,
                         .object = job->plan.change ? job->plan.change : job->plan.target.id};
    struct meta_reply reply;
    volume_apply(job->meta, &op, &reply);
    meta_reply_done(&reply);
}

static void record_retry(struct settle_job *job);

static void parted(struct work_call *done)
{
    struct settle_job *job = done->arg;
    const struct meta_request *request = &done->request;
    crash_point("settle.parted");
    if (request->result || !request->reply.end) {
        job->changed = !request->result;
        record_retry(job);
        return;
    }
    importer_key_changed(job->meta->importer, job->plan.target.key, true);
    settler_conflict(job->settler, job->plan.target.key, &request->reply);
    settle_job_ended(job, SETTLE_END_SUPERSEDED);
}

/* Theirs gets the name, ours one beside it. */
static void part(struct settle_job *job)
{
    struct meta_entry theirs = {.size = job->theirs.size,
                                .mtime_ns = job->theirs.mtime_ns,
                                .has_attr = job->entry.has_attr,
                                .attr = job->entry.attr};
    struct meta_op op = {.kind = META_CONFLICT,
                         .ino = job->ino,
                         .object = job->plan.target.id,
                         .entries = &job->entry,
                         .entry_count = 1};
    memcpy(theirs.etag, job->theirs.etag, sizeof(theirs.etag));
    job->entry = theirs;
    job->conflict = false;
    crash_point("settle.parting");
    call(job, &op, true, parted);
}

static void record_retry(struct settle_job *job)
{
    /* Nobody would look for an upload that an earlier try has left: first gc does. */
    job->stray |= job->conflict && job->plan.resumed;
    if (job->conflict && !job->stray) {
        part(job);
        return;
    }
    if (job->stray)
        abandon_target(job);
    if (job->conflict)
        job->delay_ns = WAIT_NS; /* both are kept as soon as gc has looked */
    struct meta_op op = {.kind = META_SETTLE_RETRY,
                         .ino = job->ino,
                         .data = job->reason,
                         .data_len = strlen(job->reason)};
    op.attr.mtime_ns = meta_time_ns(job->meta) + job->delay_ns;
    call(job, &op, false, retry_recorded);
}

static void aborted(struct work_op *work)
{
    struct settle_job *job = work->arg;
    job->stray |= work->op.result && work->op.result != -ENOENT;
    store_op_reset(&work->op);
    free(TAKE_PTR(job->upload_id));
    record_retry(job);
}

/* Ends the try: an upload that was begun is given up first. */
static void give_up(struct settle_job *job)
{
    ticket_back(job);
    free(TAKE_PTR(job->buffer));
    store_op_reset(&job->op.op);
    if (!job->upload_id) {
        record_retry(job);
        return;
    }
    job->op.op = (struct store_op){.kind = STORE_MPU_ABORT,
                                   .key = job->plan.target.key,
                                   .upload_id = job->upload_id,
                                   .timeout_ms = job->settler->stopped ? 5000 : 0};
    settle_job_submit(job, aborted);
}

void settle_job_fail(struct settle_job *job, uint64_t delay_ns, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(job->reason, sizeof(job->reason), fmt, ap);
    va_end(ap);
    job->delay_ns = delay_ns;
    give_up(job);
}

static uint64_t backoff(struct settle_job *job)
{
    struct settle_failure *f;
    HASH_FIND(hh, job->settler->failures, &job->ino, sizeof(job->ino), f);
    unsigned attempts = f ? MIN(f->attempts, 16u) : 0;
    return MIN((uint64_t)DELAY_FIRST_NS << attempts, (uint64_t)DELAY_MAX_NS);
}

void settle_job_fail_op(struct settle_job *job)
{
    const struct store_op *op = &job->op.op;
    if (op->result == -ENOTDIR || op->result == -EISDIR || op->result == -ENAMETOOLONG)
        settle_job_fail(job, DELAY_TAKEN_NS, "the store cannot have this key: %s",
                        error_text(&op->error));
    else
        settle_job_fail(job, backoff(job), "%s", error_text(&op->error));
}

static void source_task_done(struct meta_task *task)
{
    free(task);
}

static const char source_changed[] = "its content was changed from outside";

static void key_looked(struct work_op *work)
{
    struct settle_job *job = work->arg;
    uint64_t found;
    if (!work->op.result &&
        tags_compare(&work->op, &job->meta->format, job->plan.target.id, &found) == TAGS_NONE) {
        job->conflict = true;
        job->theirs = work->op.info;
    }
    settle_job_fail(job, backoff(job), source_changed);
}

static void changed_meanwhile(struct settle_job *job, uint64_t delay_ns, const char *reason)
{
    job->changed = true;
    settle_job_fail(job, delay_ns, "%s", reason);
}

/* Its content is what it was when the step was planned. */
static bool is_current(const struct settle_job *job)
{
    struct meta_op op = {.kind = META_GETATTR, .ino = job->ino};
    struct meta_reply reply;
    bool same = volume_read(job->meta, &op, &reply) == 0 &&
                reply.attr.data_version == job->plan.data_version;
    meta_reply_done(&reply);
    return same;
}

void settle_job_source_changed(struct settle_job *job, uint64_t object)
{
    if (!is_current(job)) {
        /* The object went with the content that it was of, as settle took so long. */
        changed_meanwhile(job, WAIT_NS, "it was changed meanwhile");
        return;
    }
    struct meta_task *task = calloc(1, sizeof(*task));
    if (task) {
        task->ino = job->ino;
        task->done = source_task_done;
        importer_object_changed(job->meta, task, object);
    }
    /* It may never be settled: its own garbage at the key is not to wait for that. */
    job->stray |= job->plan.replaces;
    if (!job->plan.target_is_natural || job->plan.change) {
        settle_job_fail(job, backoff(job), source_changed);
        return;
    }
    /* It may never be settled: if somebody else has written its key as well, that is not to be
     * hidden behind it. */
    store_op_reset(&job->op.op);
    job->op.op = (struct store_op){.kind = STORE_HEAD, .key = job->plan.target.key};
    settle_job_submit(job, key_looked);
}

static void read_body(struct settle_job *job);

static bool is_known(struct meta *meta, uint64_t object)
{
    struct meta_op op = {.kind = META_OBJECT, .object = object};
    struct meta_reply reply;
    int rc = volume_read(meta, &op, &reply);
    meta_reply_done(&reply);
    return !rc;
}

static void upload_dropped(struct work_op *work)
{
    struct settle_job *job = work->arg;
    if (work->op.result && work->op.result != -ENOENT) {
        settle_job_fail_op(job);
        return;
    }
    free(TAKE_PTR(job->upload_id));
    settle_job_verify(job);
}

/* The object may be from an upload of an earlier try: then this one's would be left for ever. */
static void drop_upload(struct settle_job *job)
{
    store_op_reset(&job->op.op);
    job->op.op = (struct store_op){
        .kind = STORE_MPU_ABORT, .key = job->plan.target.key, .upload_id = job->upload_id};
    settle_job_submit(job, upload_dropped);
}

static void late_dropped(struct work_op *work)
{
    changed_meanwhile(work->arg, WAIT_NS, "an object of ours came late to its key");
}

/* Nothing refers to it, and the key is this step's. */
static void drop_late(struct settle_job *job)
{
    memcpy(job->etag, job->op.op.info.etag, sizeof(job->etag));
    store_op_reset(&job->op.op);
    job->op.op =
        (struct store_op){.kind = STORE_DELETE, .key = job->plan.target.key, .if_match = job->etag};
    settle_job_submit(job, late_dropped);
}

/* What stands at the key of an object that is to get another class. */
static void class_looked(struct settle_job *job)
{
    const struct store_op *op = &job->op.op;
    uint64_t change = tags_change(op, &job->meta->format, job->plan.target.id);
    if (change && change >= job->plan.target.changing) {
        /* An earlier try has done it, only that was not recorded. (A lower number is of a change
         * before, which is over.) */
        memcpy(job->etag, op->info.etag, sizeof(job->etag));
        job->change_done = change;
        if (job->upload_id)
            drop_upload(job);
        else
            settle_job_verify(job);
    } else if (!job->begun && store_etag_fits(&op->info, job->plan.old_etag)) {
        store_op_reset(&job->op.op);
        read_body(job);
    } else {
        settle_job_source_changed(job, job->plan.target.id);
    }
}

/* The whole file is in the buffer, and so little that it may stay there until it is settled. */
static bool holds_small_file(const struct settle_job *job)
{
    return job->buffer && job->buffer_at == 0 && job->buffer_len == job->plan.size &&
           job->filled == job->plan.size && job->plan.size <= TELL_MAX;
}

/* By the MD5 that the ETag of a small object is. */
static bool is_same_content(const struct settle_job *job, const struct store_info *info)
{
    uint8_t sum[EVP_MAX_MD_SIZE];
    unsigned len;
    char hex[33];
    if (info->size != job->plan.size || !holds_small_file(job) ||
        EVP_Digest(job->buffer, job->buffer_len, sum, &len, EVP_md5(), NULL) != 1)
        return false;
    hash_hex(sum, 16, hex);
    return strcasecmp(hex, info->etag) == 0;
}

/* Written by this volume after the backup from which it was restored: it may be newer than what is
 * here, and what is here may be newer than it. */
static void earlier_looked(struct settle_job *job)
{
    const struct store_op *op = &job->op.op;
    if (is_same_content(job, &op->info)) {
        drop_late(job);
        return;
    }
    job->conflict = true;
    job->theirs = op->info;
    job->entry.has_attr = tags_parse(op, &job->entry.attr);
    settle_job_fail(job, DELAY_TAKEN_NS, "the key %s is taken by what was there after the backup",
                    job->plan.target.key);
}

static void taken_looked(struct work_op *work)
{
    struct settle_job *job = work->arg;
    const struct store_op *op = &work->op;
    const char *key = job->plan.target.key;
    uint64_t found = 0;
    if (op->result == -ENOENT) {
        if (job->plan.change)
            settle_job_source_changed(job, job->plan.target.id);
        else
            changed_meanwhile(job, WAIT_NS, "its key was freed meanwhile");
        return;
    }
    if (op->result) {
        settle_job_fail_op(job);
        return;
    }
    if (job->plan.change) {
        class_looked(job);
        return;
    }
    switch (tags_compare(op, &job->meta->format, job->plan.target.id, &found)) {
    case TAGS_SAME:
        /* It was done, only the reply was lost. */
        memcpy(job->etag, op->info.etag, sizeof(job->etag));
        if (job->upload_id)
            drop_upload(job);
        else
            settle_job_verify(job);
        break;
    case TAGS_OTHER:
        if (is_known(job->meta, found))
            changed_meanwhile(job, WAIT_NS, "an older object at its key is to be deleted");
        else if (import_is_late(job->meta, op))
            drop_late(job);
        else if (engine_is_earlier(job->meta->engine, found))
            earlier_looked(job);
        else
            settle_job_fail(job, DELAY_TAKEN_NS,
                            "the key %s is taken by an object of this volume that its metadata "
                            "does not know",
                            key);
        break;
    case TAGS_NONE:
        job->conflict = true;
        job->theirs = op->info;
        settle_job_fail(job, DELAY_TAKEN_NS,
                        "the key %s is taken by an object that is not this volume's", key);
        break;
    }
}

void settle_job_taken(struct settle_job *job)
{
    store_op_reset(&job->op.op);
    job->op.op = (struct store_op){.kind = STORE_HEAD, .key = job->plan.target.key};
    settle_job_submit(job, taken_looked);
}

/* The end: verify and swap */

/* Who caches contents need not ask the store for what was here a moment ago. */
static void tell_bytes(struct settle_job *job)
{
    const struct meta_events *events = &job->meta->config.events;
    if (!events->settled || !holds_small_file(job) || job->plan.size == 0)
        return;
    struct meta_op op = {.kind = META_EXTENTS, .ino = job->ino, .length = UINT64_MAX};
    struct meta_reply now;
    int rc = volume_read(job->meta, &op, &now);
    if (!rc && now.extent_count == 1 && now.object_count == 1 &&
        now.objects[0].id == job->plan.target.id && now.objects[0].size == job->plan.size &&
        now.extents[0].kind == META_EXTENT_OBJECT && now.extents[0].offset == 0 &&
        now.extents[0].object_offset == 0 && now.extents[0].length == job->plan.size)
        events->settled(events->arg, now.objects[0].cid, job->buffer, job->buffer_len);
    meta_reply_done(&now);
}

static void swapped(struct work_call *done)
{
    struct settle_job *job = done->arg;
    struct meta *meta = job->meta;
    int rc = done->request.result;
    bool swap = !rc && done->request.reply.end;
    crash_point("settle.swapped");
    if (job->plan.target_is_natural)
        importer_key_changed(meta->importer, job->plan.target.key, true);
    if (rc) {
        settle_job_fail(job, backoff(job), "cannot record the new object: %s", strerror(-rc));
        return;
    }
    if (swap) {
        tell_bytes(job);
        volume_extents_changed(meta, job->ino);
    }
    settle_job_ended(job, swap ? SETTLE_END_SWAPPED : SETTLE_END_SUPERSEDED);
}

static uint64_t store_bit(const struct settle_job *job)
{
    size_t skip;
    const char *key = job->plan.target.key;
    return (uint64_t)1 << store_route(key, strlen(key), &skip) % 64;
}

/* The object is what stands at its key now. */
static void class_done(struct settle_job *job)
{
    const struct meta_object *target = &job->plan.target;
    job->entry = (struct meta_entry){.size = target->size};
    memcpy(job->entry.etag, target->etag, sizeof(job->entry.etag));
    struct meta_op op = {.kind = META_CLASS_DONE,
                         .ino = job->ino,
                         .object = target->id,
                         .new_ino = job->change_done,
                         .length = job->plan.change,
                         .entries = &job->entry,
                         .entry_count = 1};
    call(job, &op, true, swapped);
}

static void take_place(struct settle_job *job, const struct store_info *info)
{
    struct meta_object *target = &job->plan.target;
    target->size = info->size;
    target->mtime_ns = info->mtime_ns;
    memcpy(target->etag, info->etag, sizeof(target->etag));
    crash_point("settle.verified");
    if (job->plan.change) {
        class_done(job);
        return;
    }
    struct meta_op done = {.kind = META_SETTLE_DONE,
                           .ino = job->ino,
                           .settle = &job->plan,
                           .objects = target,
                           .object_count = 1};
    call(job, &done, true, swapped);
}

static void verified(struct work_op *work)
{
    struct settle_job *job = work->arg;
    const struct store_op *op = &work->op;
    const struct store_info *info = &op->info;
    if (op->result) {
        settle_job_fail_op(job);
        return;
    }
    bool ours = tags_compare(op, &job->meta->format, job->plan.target.id, NULL) == TAGS_SAME;
    if (job->plan.change)
        ours = tags_change(op, &job->meta->format, job->plan.target.id) == job->change_done;
    bool same = !job->etag[0] || !strcmp(job->etag, info->etag);
    if (!ours || !same || info->size != job->plan.size) {
        settle_job_fail(job, backoff(job),
                        "the object at %s is not what was written (%llu bytes, expected %llu)",
                        job->plan.target.key, (unsigned long long)info->size,
                        (unsigned long long)job->plan.size);
        return;
    }
    job->settler->tagged |= store_bit(job);
    take_place(job, info);
}

static void end_writing(struct settle_job *job)
{
    ticket_back(job);
    if (!holds_small_file(job))
        free(TAKE_PTR(job->buffer));
    store_op_reset(&job->op.op);
    crash_point("settle.completed");
}

void settle_job_written(struct settle_job *job, bool known)
{
    struct store_info info = {.size = job->plan.size, .mtime_ns = meta_time_ns(job->meta)};
    bool alone = !job->plan.target_is_natural || job->op.op.if_none_match || job->op.op.if_match;
    if (!known || !alone || !job->etag[0] || !(job->settler->tagged & store_bit(job))) {
        settle_job_verify(job);
        return;
    }
    memcpy(info.etag, job->etag, sizeof(info.etag));
    end_writing(job);
    take_place(job, &info);
}

void settle_job_verify(struct settle_job *job)
{
    end_writing(job);
    job->op.op = (struct store_op){.kind = STORE_HEAD, .key = job->plan.target.key};
    settle_job_submit(job, verified);
}

/* The beginning */

static void read_body(struct settle_job *job)
{
    job->begun = true;
    if (job->settler->stopped) {
        settle_job_fail(job, 0, "the volume is being closed");
        return;
    }
    struct meta_op op = {
        .kind = META_EXTENTS, .ino = job->ino, .offset = 0, .length = job->plan.size};
    int rc = volume_read(job->meta, &op, &job->body);
    job->has_body = true;
    if (rc == -ENOENT)
        changed_meanwhile(job, 0, "it was removed");
    else if (rc)
        settle_job_fail(job, backoff(job), "cannot read the extents: %s", strerror(-rc));
    else if (job->body.attr.data_version != job->plan.data_version)
        changed_meanwhile(job, 0, "it is being changed");
    else
        settle_write_start(job);
}

static void unblocked(struct loop_task *task)
{
    struct settle_job *job = container_of(task, struct settle_job, unblocked);
    if (collector_uses_key(job->meta->collector, job->plan.target.key, task))
        return;
    if (job->plan.change && job->plan.resumed)
        settle_job_taken(job); /* an earlier try may have done it */
    else
        read_body(job);
}

static void begun(struct work_call *done)
{
    struct settle_job *job = done->arg;
    int rc = done->request.result;
    if (rc) {
        snprintf(job->reason, sizeof(job->reason), "cannot begin: %s", strerror(-rc));
        job->hold = true;
        settle_job_ended(job, rc == -ENOENT ? SETTLE_END_NOTHING : SETTLE_END_FAILED);
        return;
    }
    job->plan = done->request.reply.settle;
    if (job->plan.action == META_SETTLE_NOTHING) {
        settle_job_ended(job, SETTLE_END_NOTHING);
        return;
    }
    crash_point("settle.begun");
    job->tag_count =
        meta_object_tags(&job->meta->format, &job->plan.target, &job->plan.attr, &job->tags);
    if (job->plan.change) {
        job->change_done = job->plan.change;
        job->tag_count = tags_add_change(&job->tags, job->tag_count, job->plan.change);
    }
    /* gc may be deleting what is to be replaced; identical bytes have an identical ETag, so that
     * If-Match would not keep it from deleting the new object. */
    job->unblocked.run = unblocked;
    unblocked(&job->unblocked);
}

void settle_job_start(struct settle_job *job)
{
    struct meta_op op = {.kind = META_SETTLE_BEGIN, .ino = job->ino};
    /* Durable: after a power loss, too, what stands at the key must be known as ours. */
    call(job, &op, true, begun);
}
