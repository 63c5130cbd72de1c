/*
 * The steps of a flush: reserve an object, send its bytes (upload_stream.c), commit its extents,
 * clean the staged ranges. A flush of few bytes is the commit alone, with the bytes inline.
 *
 * What fails leaves the data staged and dirty: the reserved object is abandoned, who waits gets the
 * error, the next flush tries again; so does the mount by itself, less and less often. A natural
 * key that somebody else has taken meanwhile is no failure: the object goes to an internal key.
 */
#include "upload.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/crash.h"
#include "base/log.h"
#include "durability.h"
#include "passthrough.h"
#include "staging.h"
#include "upload_impl.h"
#include "written.h"

#define KEY_CONFLICTS_MAX 3
#define RETRY_FIRST_NS NS_PER_S
#define RETRY_MAX_NS (60 * NS_PER_S)

struct upload *upload_new_locked(struct file *file)
{
    assert(!file->upload);
    struct upload *upload = calloc(1, sizeof(*upload));
    if (!upload)
        return NULL;
    struct data *data = file->data;
    upload->file = file_ref(file);
    upload->data = data;
    upload->truncated_since = UINT64_MAX;
    file->upload = upload;
    pthread_mutex_lock(&data->wait_lock);
    data->uploads++;
    pthread_mutex_unlock(&data->wait_lock);
    return upload;
}

/* No locks held. NULL is allowed. */
static void upload_free(struct upload *upload)
{
    if (!upload)
        return;
    struct data *data = upload->data;
    meta_reply_done(&upload->meta.reply);
    store_op_reset(&upload->op);
    upload_plan_done(upload);
    file_put(upload->file);
    free(upload);
    if (staging_area_bytes(data->area) >= staging_area_max(data->area) / 2)
        data_tend(data);
    pthread_mutex_lock(&data->wait_lock);
    data->uploads--;
    bool waiting = data->waiting != NULL;
    bool more = atomic_load(&data->local_files) && !atomic_load(&data->stopping) &&
                data->uploads <= data->config.upload_parallel / 2;
    /* What is waited for at the end may free `data`: only after the unlock, and then nothing of it
     * is touched any more. */
    if (waiting || more)
        data_tend(data);
    if (!waiting && data->uploads == 0)
        pthread_cond_broadcast(&data->uploads_ended);
    pthread_mutex_unlock(&data->wait_lock);
}

static void answer(struct data_request *waiters, int result)
{
    while (waiters) {
        struct data_request *request = waiters;
        LL_DELETE(waiters, request);
        request->result = result;
        request->done(request);
    }
}

/* Begins a flush of what is dirty now, for those in flush_wanted. With *error set nothing has
 * changed, and the upload (NULL without memory) is to be freed without the lock. */
static struct upload *flush_new_locked(struct file *file, int *error)
{
    struct upload *upload = upload_new_locked(file);
    if (!upload) {
        *error = -ENOMEM;
        return NULL;
    }
    int taken = pass_take_locked(file); /* what was over a quota is there all the same */
    *error = taken == -EDQUOT || taken == 0 ? upload_plan(upload) : taken;
    if (!*error && upload->total) {
        upload->single = upload->total <= upload->data->config.part_bytes;
        unsigned count = 0;
        while (upload_part_offset(upload->data, count) < upload->total)
            count++;
        *error = upload_parts_grow(upload, count);
    }
    if (*error)
        file->upload = NULL;
    else
        upload->waiters = TAKE_PTR(file->flush_wanted);
    return upload;
}

/* The error of a store or of the metadata, as the application sees it. */
static int error_for_application(int result)
{
    return result == -ENOSPC || result == -EDQUOT || result == -EFBIG || result == -EROFS ? result
                                                                                          : -EIO;
}

static void note_failure_locked(struct file *file, int result, const struct error *cause)
{
    metric_add(file->data->metrics.failures, 1);
    uint64_t delay = RETRY_FIRST_NS << MIN(file->failures, 6u);
    file->failures++;
    file->retry_after_ns = clock_monotonic_ns() + MIN(delay, RETRY_MAX_NS);
    if (file->logged_error)
        return;
    file->logged_error = true;
    char text[400];
    log_error("flush failed", "ino=%llu error=%s cause=%s", (unsigned long long)file->ino,
              strerror(-result), log_quote(error_text(cause), text, sizeof(text)));
}

/* The upload is over: who waits is answered, or waits for the next one, which begins if it is
 * wanted. `again`: the same flush begins anew. */
static void upload_end(struct upload *upload, int result, bool again)
{
    struct file *file = upload->file;
    struct data_request *waiters = NULL, *failed = NULL;
    struct upload *next = NULL;
    int next_error = 0;
    pthread_mutex_lock(&file->lock);
    file->upload = NULL;
    upload_sent_locked(upload, -(int64_t)upload->sent);
    if (result)
        note_failure_locked(file, result, &upload->cause);
    if (file->giving_up) {
        result = -ESTALE;
        again = false;
    }
    if (again) {
        LL_CONCAT(upload->waiters, file->flush_wanted);
        file->flush_wanted = TAKE_PTR(upload->waiters);
    }
    waiters = TAKE_PTR(upload->waiters);
    if (file->giving_up)
        file_give_up_locked(file);
    if (!file->staging || file->unlinked) {
        /* What was wanted meanwhile is there, or is not wanted any more. */
        LL_CONCAT(waiters, file->flush_wanted);
        file->flush_wanted = NULL;
    } else if (file->flush_wanted || (again && upload->finishing) ||
               (!result && upload->finishing && file->writers == 0 &&
                !pass_is_staged_locked(file))) {
        next = flush_new_locked(file, &next_error);
        if (next_error)
            failed = TAKE_PTR(file->flush_wanted);
    }
    bool drop = file->unlinked && file->handles == 0 && file->staging && !file->upload;
    if (drop)
        staging_free(TAKE_PTR(file->staging));
    bool hold = result && !next && file->staging && file->durability == DATA_LOCAL &&
                file->committed_size == 0 && !file->unlinked;
    file->held |= hold;
    file_quota_update_locked(file);
    pthread_mutex_unlock(&file->lock);

    if (hold)
        durability_hold(upload->data, file->ino, true);
    file_dirty_update(file);
    answer(waiters, result ? error_for_application(result) : 0);
    answer(failed, error_for_application(next_error));
    if (next && !next_error)
        upload_begin(next);
    else
        upload_free(next);
    upload_free(upload);
}

/* ---- undo ---- */

static void undo_end(struct upload *upload)
{
    bool again = !upload->error && (upload->taken || upload->stopped);
    upload_end(upload, upload->error, again);
}

static void abandon_done(struct meta_request *request)
{
    struct upload *upload = request->arg;
    if (request->result)
        log_warn("a reserved object could not be given back", "object=%llu error=%s",
                 (unsigned long long)upload->object.id, strerror(-request->result));
    undo_end(upload);
}

static void abandon(struct upload *upload)
{
    meta_reply_done(&upload->meta.reply);
    upload->meta = (struct meta_request){
        .op = {.kind = META_ABANDON,
               .ino = upload->file->ino,
               .object = upload->object.id,
               .flags = upload->unsure ? 0 : META_NOT_WRITTEN},
        .done = abandon_done,
        .arg = upload,
    };
    if (meta_submit(upload->data->meta, &upload->meta) != -EINPROGRESS)
        abandon_done(&upload->meta);
}

static void abort_done(struct store_op *op)
{
    struct upload *upload = op->arg;
    if (op->result)
        upload->unsure = true;
    store_op_reset(op);
    abandon(upload);
}

void upload_undo(struct upload *upload)
{
    if (!upload->object.id) {
        undo_end(upload);
        return;
    }
    if (!upload->upload_id) {
        abandon(upload);
        return;
    }
    store_op_reset(&upload->op);
    upload->op = (struct store_op){
        .kind = STORE_MPU_ABORT,
        .priority = STORE_NORMAL,
        .key = upload->object.key,
        .upload_id = upload->upload_id,
        .done = abort_done,
        .arg = upload,
    };
    store_submit(upload->data->store, &upload->op);
}

/* The store will not have this key: somebody else has it, or it cannot stand beside others. */
static bool key_refused(const struct upload *upload, int result)
{
    if (result == -EEXIST)
        return true;
    return !upload->internal && (result == -ENOTDIR || result == -EISDIR ||
                                 result == -ENAMETOOLONG || result == -EINVAL);
}

void upload_fail_locked(struct upload *upload, int result, const struct error *error)
{
    struct file *file = upload->file;
    bool refused = key_refused(upload, result);
    if (refused && upload->internal && ++file->key_conflicts > KEY_CONFLICTS_MAX)
        refused = false;
    if (refused) {
        upload->taken = true;
        upload->unsure = false;
        file->avoid_natural = true;
    } else if (!upload->error) {
        upload->error = result;
        if (error)
            upload->cause = *error;
    }
}

/* ---- commit ---- */

/* Cleans what the object holds: each part with the epoch at which it was read. A part may hold
 * bytes that were written after a cut that came after the snapshot; behind the cut nothing of this
 * commit counts, so they stay dirty. */
static void clean_object_locked(struct upload *upload)
{
    struct staging *staging = upload->file->staging;
    size_t s = 0;
    for (unsigned i = 0; i < upload->part_count; i++) {
        uint64_t at = upload->single ? 0 : upload_part_offset(upload->data, i);
        uint64_t end = at + upload->parts[i].length;
        while (at < end && s < upload->segment_count) {
            const struct upload_segment *segment = &upload->segments[s];
            uint64_t segment_end = segment->object_offset + segment->length;
            if (segment->kind != META_EXTENT_OBJECT || segment_end <= at) {
                s++;
                continue;
            }
            uint64_t length = MIN(end, segment_end) - at;
            uint64_t offset = segment->offset + (at - segment->object_offset);
            if (offset < upload->truncated_since)
                staging_clean(staging, offset, MIN(length, upload->truncated_since - offset),
                              upload->parts[i].epoch);
            at += length;
        }
    }
}

static void clean_locked(struct upload *upload)
{
    struct staging *staging = upload->file->staging;
    if (upload->total)
        clean_object_locked(upload);
    if ((upload->flags & META_REPLACE) && !upload->total) {
        /* Holes of the old content are dropped with it. */
        staging_clean(staging, 0, upload->size, upload->epoch);
        return;
    }
    for (size_t i = 0; i < upload->segment_count; i++) {
        const struct upload_segment *segment = &upload->segments[i];
        if (segment->kind != META_EXTENT_OBJECT)
            staging_clean(staging, segment->offset, segment->length, upload->epoch);
    }
    if (upload->flags & META_REPLACE) {
        /* Hole ranges have no segment with REPLACE. */
        struct staging_range r;
        for (uint64_t at = 0; staging_next(staging, at, &r); at = r.offset + r.length)
            if (r.hole && r.epoch <= upload->epoch)
                staging_clean(staging, r.offset, r.length, upload->epoch);
    }
}

struct repair {
    struct meta_request request;
};

static void repair_done(struct meta_request *request)
{
    meta_reply_done(&request->reply);
    free(container_of(request, struct repair, request));
}

/* The commit has set the time that was current before the application set another. */
static void repair_time(struct data *data, uint64_t ino, uint64_t mtime_ns)
{
    struct repair *repair = calloc(1, sizeof(*repair));
    if (!repair)
        return;
    repair->request.op = (struct meta_op){
        .kind = META_SETATTR, .ino = ino, .valid = META_SET_MTIME, .attr = {.mtime_ns = mtime_ns}};
    repair->request.done = repair_done;
    if (meta_submit(data->meta, &repair->request) != -EINPROGRESS)
        repair_done(&repair->request);
}

/* The object is all that was staged, at its own offsets, in a file. */
static bool whole_locked(const struct upload *upload)
{
    const struct upload_segment *segment = upload->segments;
    return upload->data->written && upload->object.etag[0] && upload->segment_count == 1 &&
           segment->kind == META_EXTENT_OBJECT && segment->offset == 0 &&
           segment->object_offset == 0 && segment->length == upload->size &&
           upload->total == upload->size && staging_in_file(upload->file->staging);
}

static void commit_finish(struct upload *upload)
{
    struct file *file = upload->file;
    struct data *data = upload->data;
    const struct meta_attr *attr = &upload->meta.reply.attr;
    crash_point("flush.committed");
    pthread_mutex_lock(&file->lock);
    file_extents_drop_locked(file);
    struct staging_gift gift = {0}; /* what is staged, if it is still what the object holds */
    bool whole = whole_locked(upload), sync = false;
    if (!pass_is_staged_locked(file))
        clean_locked(upload);
    else if ((upload->flags & META_REPLACE) && !upload->total)
        pass_committed_locked(file, upload->inlined, upload->inline_total);
    uint64_t before = file->committed_size;
    file->committed_size = attr->size;
    file->data_version = MAX(file->data_version, attr->data_version);
    if (upload->segment_count == 1 && upload->segments->kind == META_EXTENT_INLINE &&
        upload->segments->offset == 0)
        file_extents_committed_locked(file, attr, upload->inlined, upload->inline_total,
                                      upload->changes);
    file->truncated_to = upload->truncated_since;
    if (!(upload->valid & META_SET_SIZE))
        file_other_size_locked(file, before, attr->size);
    if (file->mtime_ns == upload->mtime_ns)
        file->time_dirty = false;
    bool repair = upload->times_set;
    uint64_t mtime_ns = file->mtime_ns;
    if (upload->flags & META_REPLACE)
        file->inline_bytes = 0;
    else
        file->inline_bytes += upload->inline_total;
    if (staging_count(file->staging) == 0 && file->size == file->committed_size &&
        file->truncated_to == UINT64_MAX && !file->time_dirty && !pass_is_staged_locked(file)) {
        if (whole)
            staging_give(TAKE_PTR(file->staging), upload->total, &gift);
        else
            staging_free(TAKE_PTR(file->staging));
    } else {
        staging_set_base(file->staging, file->data_version);
        int rc = staging_committed(file->staging, file->truncated_to, file->time_dirty);
        if (rc)
            log_warn("staging log not rewritten", "ino=%llu error=%s",
                     (unsigned long long)file->ino, strerror(-rc));
        file->dirty_since_ns = clock_monotonic_ns();
        sync = staging_needs_sync(file->staging);
    }
    file->failures = file->key_conflicts = 0;
    file->retry_after_ns = 0;
    file->logged_error = false;
    pthread_mutex_unlock(&file->lock);
    /* After a power loss the log of before would count, and commit old bytes once more. */
    if (sync && durability_sync(file))
        log_warn("staging not synced", "ino=%llu", (unsigned long long)file->ino);
    if (repair)
        repair_time(data, file->ino, mtime_ns);
    metric_add(data->metrics.flushes, 1);
    metric_add(upload->total ? data->metrics.objects : data->metrics.inline_commits, 1);
    metric_add(data->metrics.uploaded_bytes, upload->total);
    if (gift.view) {
        crash_point("flush.given");
        written_put(data->written, &gift,
                    upload->object.cid ? upload->object.cid : upload->object.id);
    }
    upload_end(upload, 0, upload->partial);
}

static void finish_run(struct pool_task *task)
{
    commit_finish(container_of(task, struct upload, finish_task));
}

/* The inode is gone: nobody wants the bytes. */
static void commit_gone(struct upload *upload)
{
    struct file *file = upload->file;
    pthread_mutex_lock(&file->lock);
    file->unlinked = true;
    pthread_mutex_unlock(&file->lock);
    upload_end(upload, 0, false);
}

static void commit_done(struct meta_request *request)
{
    struct upload *upload = request->arg;
    struct file *file = upload->file;
    if (request->result == 0) {
        pthread_mutex_lock(&file->lock);
        bool in_file = staging_in_file(file->staging);
        pthread_mutex_unlock(&file->lock);
        /* A staging file is unlinked or punched: not on the volume's thread. */
        upload->finish_task.run = finish_run;
        if (in_file)
            pool_submit(upload->data->pool, &upload->finish_task);
        else
            commit_finish(upload);
        return;
    }
    if (request->result == -ENOENT && !upload->object.id) {
        commit_gone(upload);
        return;
    }
    pthread_mutex_lock(&file->lock);
    struct error error = {0};
    error_set(&error, request->result, "commit to the metadata: %s", strerror(-request->result));
    if (request->result == -ENOENT)
        file->unlinked = true;
    else
        upload_fail_locked(upload, request->result == -EEXIST ? -EIO : request->result, &error);
    upload->unsure = true;
    free(upload->upload_id);
    upload->upload_id = NULL;
    upload->state = UPLOAD_UNDO;
    pthread_mutex_unlock(&file->lock);
    upload_undo(upload);
}

static int build_extents(struct upload *upload)
{
    size_t count = upload->segment_count;
    upload->extents = calloc(count ? count : 1, sizeof(*upload->extents));
    if (!upload->extents)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++) {
        const struct upload_segment *s = &upload->segments[i];
        struct meta_extent *e = &upload->extents[i];
        *e = (struct meta_extent){.kind = s->kind, .offset = s->offset, .length = s->length};
        if (s->kind == META_EXTENT_OBJECT) {
            e->object = upload->object.id;
            e->object_offset = s->object_offset;
        } else if (s->kind == META_EXTENT_INLINE) {
            e->data = upload->inlined + s->object_offset;
        }
    }
    return 0;
}

static void commit(struct upload *upload, bool may_wait)
{
    struct file *file = upload->file;
    crash_point("flush.completed");
    meta_reply_done(&upload->meta.reply);
    upload->meta = (struct meta_request){
        .durable = true, .may_wait = may_wait, .done = commit_done, .arg = upload};
    int rc = build_extents(upload);
    upload->changes = data_changes(upload->data);
    pthread_mutex_lock(&file->lock);
    if (upload->times_set)
        upload->mtime_ns = file->mtime_ns;
    upload->times_set = false;
    upload->meta.era = file->durability == DATA_STORE ? meta_era(upload->data->meta) : 0;
    if (!rc && file->giving_up)
        rc = upload->error; /* of a session that is over */
    pthread_mutex_unlock(&file->lock);
    upload->meta.op = (struct meta_op){
        .kind = META_COMMIT,
        .ino = file->ino,
        .valid = upload->valid,
        .flags = upload->flags | META_ACCEPTED,
        .attr = {.size = upload->size, .mtime_ns = upload->mtime_ns},
        .objects = upload->total ? &upload->object : NULL,
        .object_count = upload->total ? 1 : 0,
        .extents = upload->extents,
        .extent_count = upload->segment_count,
    };
    if (rc)
        upload->meta.result = rc;
    else
        rc = meta_submit(upload->data->meta, &upload->meta);
    if (rc != -EINPROGRESS)
        commit_done(&upload->meta);
}

void upload_commit(struct upload *upload)
{
    commit(upload, false);
}

/* ---- begin ---- */

static void reserve_done(struct meta_request *request)
{
    struct upload *upload = request->arg;
    struct file *file = upload->file;
    int rc = request->result;
    if (!rc && request->reply.object_count == 0)
        rc = -EIO;
    pthread_mutex_lock(&file->lock);
    if (rc) {
        upload->error = rc;
        error_set(&upload->cause, rc, "reserving an object: %s", strerror(-rc));
        if (rc == -ENOENT) {
            /* Unlinked, and forgotten by the metadata. */
            file->unlinked = true;
            upload->error = 0;
        }
        upload->state = UPLOAD_UNDO;
    } else {
        upload->object = request->reply.objects[0];
        upload->state = UPLOAD_CREATE;
    }
    pthread_mutex_unlock(&file->lock);
    crash_point("flush.reserved");
    if (rc)
        upload_undo(upload);
    else
        upload_create(upload);
}

/* may_wait: the calling thread may wait for the disk. */
static void begin_upload(struct upload *upload, bool may_wait)
{
    struct file *file = upload->file;
    bool object = upload->stream || upload->total;
    pthread_mutex_lock(&file->lock);
    upload->state = object ? UPLOAD_RESERVE : UPLOAD_COMMIT;
    bool held = file->held;
    file->held = false;
    pthread_mutex_unlock(&file->lock);
    if (held)
        durability_hold(upload->data, file->ino, false);
    if (!object) {
        commit(upload, may_wait);
        return;
    }
    upload->meta = (struct meta_request){
        .op = {.kind = META_RESERVE,
               .ino = file->ino,
               .flags = upload->internal ? META_INTERNAL_KEY : 0},
        .done = reserve_done,
        .arg = upload,
    };
    if (meta_submit(upload->data->meta, &upload->meta) != -EINPROGRESS)
        reserve_done(&upload->meta);
}

void upload_begin(struct upload *upload)
{
    begin_upload(upload, false);
}

int upload_flush(struct file *file, struct data_request *request)
{
    bool may_wait = request && request->may_wait;
    struct upload *begin = NULL, *failed = NULL;
    int rc = request ? -EINPROGRESS : 0;
    pthread_mutex_lock(&file->lock);
    if (!file->staging || file->unlinked || file->durability == DATA_SCRATCH) {
        pthread_mutex_unlock(&file->lock);
        return 0;
    }
    if (request) {
        request->next = NULL;
        LL_APPEND(file->flush_wanted, request);
    }
    if (!file->upload) {
        int error;
        begin = flush_new_locked(file, &error);
        if (error) {
            if (request)
                LL_DELETE(file->flush_wanted, request);
            failed = TAKE_PTR(begin);
            rc = error_for_application(error);
        }
    } else if (file->upload->stream && !file->upload->finishing) {
        file->upload->waiters = TAKE_PTR(file->flush_wanted);
        if (!upload_plan_stream(file->upload))
            file->upload->stopped = true;
    }
    pthread_mutex_unlock(&file->lock);
    upload_free(failed);
    if (begin)
        begin_upload(begin, may_wait);
    else
        upload_next(file);
    return rc;
}

bool upload_is_finishing(const struct upload *upload)
{
    return upload->finishing;
}

void upload_times_set_locked(struct file *file)
{
    if (file->upload)
        file->upload->times_set = true;
}

void upload_truncated_locked(struct file *file, uint64_t size)
{
    struct upload *upload = file->upload;
    if (upload && upload->finishing)
        upload->truncated_since = MIN(upload->truncated_since, size);
    upload_stop_locked(file, size);
}

void upload_stop_locked(struct file *file, uint64_t size)
{
    struct upload *upload = file->upload;
    if (upload && upload->stream && !upload->finishing &&
        (size == 0 || size < upload_part_offset(upload->data, upload->part_count)))
        upload->stopped = true;
}

void upload_stopped(struct file *file)
{
    upload_next(file);
}
