/*
 * The bytes of one object on their way to the store: one PUT, or parts of a multipart upload, each
 * sent when its turn comes. A part that was written in order has its sum already and is sent from
 * the page cache of the staging file, where it may be overwritten meanwhile: then the store refuses
 * it, and it goes again from a copy. All others are copied to a buffer of the upload budget first.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/crash.h"
#include "base/hash.h"
#include "buffers.h"
#include "part_sums.h"
#include "staging.h"
#include "upload_impl.h"

struct part_job {
    struct upload *upload; /* stays: upload->in_flight counts this */
    unsigned index;
    uint64_t offset, length; /* in the object */
    enum store_priority priority;
    struct buffers_wait wait;
    uint64_t granted;
    struct block *block;
    struct staging_map map; /* in place of the block; holds the view */
    struct staging_view *view;
    uint32_t crc32c; /* of the map */
    struct pool_task task;
    struct iovec iov;
    struct store_op op;
};

void upload_tags(struct upload *upload)
{
    struct meta_attr attr = upload->file->attr;
    attr.mtime_ns = upload->mtime_ns ? upload->mtime_ns : upload->file->mtime_ns;
    upload->tag_count =
        meta_object_tags(meta_volume(upload->data->meta), &upload->object, &attr, &upload->tags);
}

/* A statistic: no order with other memory is needed. */
void upload_sent_locked(struct upload *upload, int64_t change)
{
    upload->sent += (uint64_t)change;
    atomic_fetch_add_explicit(&upload->data->sent_bytes, (uint64_t)change, memory_order_relaxed);
}

void upload_parts_redo(struct upload *upload)
{
    struct staging *staging = upload->file->staging;
    for (unsigned i = 0; i < upload->part_count; i++) {
        struct upload_part *part = &upload->parts[i];
        uint64_t offset = upload_part_offset(upload->data, i);
        if (part->epoch == 0 || !staging_newer(staging, offset, part->length, part->epoch))
            continue;
        if (part->state == PART_SENT) {
            part->state = PART_WAITS;
            upload->next_part = MIN(upload->next_part, i);
            upload_sent_locked(upload, -(int64_t)part->length);
        } else if (part->state == PART_BUSY) {
            part->redo = true;
        }
    }
}

static void part_end(struct part_job *job, int result)
{
    struct upload *upload = job->upload;
    struct file *file = file_ref(upload->file);
    pthread_mutex_lock(&file->lock);
    struct upload_part *part = &upload->parts[job->index];
    part->state = PART_SENT;
    if (result == -EBADMSG && job->view && !upload->error) {
        /* Written while it was on its way: its sum was that of before. */
        part->redo = false;
        part->changed = true;
        part->state = PART_WAITS;
        upload->next_part = MIN(upload->next_part, job->index);
    } else if (result) {
        upload_fail_locked(upload, result, &job->op.error);
    } else {
        part->length = job->length;
        part->got = upload->single ? (struct store_part){.number = 1} : job->op.out_part;
        if (upload->single)
            memcpy(upload->object.etag, job->op.info.etag,
                   MIN(sizeof(upload->object.etag), sizeof(job->op.info.etag)));
        if (part->redo) {
            part->redo = false;
            part->state = PART_WAITS;
            upload->next_part = MIN(upload->next_part, job->index);
        } else {
            upload_sent_locked(upload, (int64_t)job->length);
        }
    }
    upload->in_flight--;
    pthread_mutex_unlock(&file->lock);
    store_op_reset(&job->op);
    buffers_put(job->block);
    staging_unmap(&job->map);
    staging_view_put(job->view);
    if (job->granted)
        buffers_return(file->data->upload_buffers, job->granted);
    free(job);
    crash_point("stream.part");
    upload_next(file);
    file_put(file);
}

static void part_sent(struct store_op *op)
{
    part_end(op->arg, op->result);
}

/* The pieces of the snapshot that make up a range of the object. A stream without a snapshot yet is
 * the file from 0 on. */
static int read_pieces(const struct upload *upload, struct staging *staging,
                       const struct staging_view *view, uint64_t offset, uint64_t length, char *to)
{
    if (upload->stream)
        return view ? staging_view_read(view, offset, length, to)
                    : staging_read(staging, offset, length, to);
    uint64_t end = offset + length;
    for (size_t i = 0; i < upload->segment_count; i++) {
        const struct upload_segment *s = &upload->segments[i];
        uint64_t from = MAX(s->object_offset, offset);
        uint64_t until = MIN(s->object_offset + s->length, end);
        if (s->kind != META_EXTENT_OBJECT || from >= until)
            continue;
        uint64_t at = s->offset + (from - s->object_offset);
        int rc = view ? staging_view_read(view, at, until - from, to + (from - offset))
                      : staging_read(staging, at, until - from, to + (from - offset));
        if (rc)
            return rc;
    }
    return 0;
}

/* Smaller ones cost more to map than to copy. */
#define MAP_MIN (64u << 10)

/* The object is the file from 0 on: parts stand where they were summed. */
static bool is_in_place(const struct upload *upload)
{
    const struct upload_segment *first = upload->segments;
    return upload->stream || (first && upload->segment_count == 1 && first->offset == 0);
}

/* A part of a multipart upload whose sum is known goes as it lies in the page cache. */
static bool part_may_map(const struct part_job *job, const struct staging *staging)
{
    const struct upload *upload = job->upload;
    return is_in_place(upload) && !upload->single && job->length >= MAP_MIN &&
           staging_in_file(staging) && !upload->parts[job->index].changed;
}

static bool part_unwanted(const struct upload *upload)
{
    return upload->stopped || upload->error || upload->taken;
}

/* From here on every write is newer than what is sent. */
static void part_freeze_locked(struct part_job *job)
{
    struct upload *upload = job->upload;
    upload->parts[job->index].epoch = staging_freeze(upload->file->staging);
    job->priority = upload->waiters ? STORE_DEMAND : STORE_NORMAL;
}

/* False: it must be copied (or is not wanted any more). */
static bool part_map(struct part_job *job)
{
    struct upload *upload = job->upload;
    struct file *file = upload->file;
    pthread_mutex_lock(&file->lock);
    bool may = !part_unwanted(upload) && part_may_map(job, file->staging) &&
               staging_part_sum(file->staging, job->index, job->length, &job->crc32c);
    if (may) {
        part_freeze_locked(job);
        job->view = staging_view_get(file->staging);
    }
    pthread_mutex_unlock(&file->lock);
    if (may && staging_view_map(job->view, job->offset, job->length, &job->map))
        staging_view_put(TAKE_PTR(job->view));
    return job->view != NULL;
}

static bool known_sum_locked(const struct part_job *job, uint32_t *crc32c)
{
    const struct upload *upload = job->upload;
    return is_in_place(upload) &&
           staging_part_sum(upload->file->staging, job->index, job->length, crc32c);
}

/* Bytes whose sum was known when they were read: if they do not fit, and nobody has written there
 * since, the local disk has lost what it took. That must not become the file. */
static int part_check(struct part_job *job, uint32_t known)
{
    struct file *file = job->upload->file;
    uint32_t now;
    if (hash_crc32c(0, job->block->data, job->length) == known)
        return 0;
    pthread_mutex_lock(&file->lock);
    bool lost = known_sum_locked(job, &now) && now == known &&
                !staging_newer(file->staging, job->offset, job->length,
                               job->upload->parts[job->index].epoch);
    pthread_mutex_unlock(&file->lock);
    return lost ? error_set(&job->op.error, -EIO,
                            "the local disk does not have the bytes that were written at %llu",
                            (unsigned long long)job->offset)
                : 0;
}

/* -ECANCELED: not wanted any more. */
static int part_copy(struct part_job *job)
{
    struct upload *upload = job->upload;
    struct file *file = upload->file;
    job->block = buffers_take_granted(upload->data->upload_buffers, job->length, &job->granted);
    if (!job->block)
        return -ENOMEM;
    pthread_mutex_lock(&file->lock);
    if (part_unwanted(upload)) {
        pthread_mutex_unlock(&file->lock);
        return -ECANCELED;
    }
    uint32_t sum;
    bool known = known_sum_locked(job, &sum);
    part_freeze_locked(job);
    struct staging_view *view = staging_view_get(file->staging);
    int rc = 0;
    if (!view)
        rc = read_pieces(upload, file->staging, NULL, job->offset, job->length, job->block->data);
    pthread_mutex_unlock(&file->lock);
    if (view)
        rc = read_pieces(upload, NULL, view, job->offset, job->length, job->block->data);
    staging_view_put(view);
    return rc == 0 && known ? part_check(job, sum) : rc;
}

static void part_run(struct pool_task *task)
{
    struct part_job *job = container_of(task, struct part_job, task);
    struct upload *upload = job->upload;
    int rc = part_map(job) ? 0 : part_copy(job);
    if (rc) {
        part_end(job, rc);
        return;
    }
    job->iov = (struct iovec){.iov_base = job->view ? job->map.data : job->block->data,
                              .iov_len = job->length};
    job->op = (struct store_op){
        .kind = upload->single ? STORE_PUT : STORE_MPU_PART,
        .priority = job->priority,
        .key = upload->object.key,
        .iov = &job->iov,
        .iov_count = 1,
        .has_crc32c = job->view != NULL,
        .crc32c = job->crc32c,
        .upload_id = upload->single ? NULL : upload->upload_id,
        .part_number = upload->single ? 0 : job->index + 1,
        .if_none_match = upload->single &&
                         store_caps_at(upload->data->store, upload->object.key)->put_if_none_match,
        .meta = upload->single ? upload->tags.pairs : NULL,
        .meta_count = upload->single ? upload->tag_count : 0,
        .done = part_sent,
        .arg = job,
    };
    store_submit(upload->data->store, &job->op);
}

static void part_granted(struct buffers_wait *wait)
{
    struct part_job *job = container_of(wait, struct part_job, wait);
    pool_submit(job->upload->data->pool, &job->task);
}

/* The part is BUSY and counted in in_flight. */
static void part_start(struct upload *upload, unsigned index, uint64_t length)
{
    struct part_job *job = calloc(1, sizeof(*job));
    if (!job) {
        struct file *file = file_ref(upload->file);
        pthread_mutex_lock(&file->lock);
        upload_fail_locked(upload, -ENOMEM, NULL);
        upload->in_flight--;
        pthread_mutex_unlock(&file->lock);
        upload_next(file);
        file_put(file);
        return;
    }
    job->upload = upload;
    job->index = index;
    job->offset = upload_part_offset(upload->data, index);
    job->length = length;
    job->task.run = part_run;
    job->wait.bytes = job->granted = buffers_charge(job->length);
    job->wait.granted = part_granted;
    if (buffers_wait(upload->data->upload_buffers, &job->wait) != -EINPROGRESS)
        part_granted(&job->wait);
}

/* ---- states ---- */

static void create_done(struct store_op *op)
{
    struct upload *upload = op->arg;
    struct file *file = file_ref(upload->file);
    int rc = op->result;
    char *id = rc ? NULL : strdup(op->out_upload_id);
    if (!rc && !id)
        rc = -ENOMEM;
    pthread_mutex_lock(&file->lock);
    upload->upload_id = id;
    upload->state = UPLOAD_PARTS;
    if (rc)
        upload_fail_locked(upload, rc, &op->error);
    pthread_mutex_unlock(&file->lock);
    upload_next(file);
    file_put(file);
}

static void head_done(struct store_op *op)
{
    struct upload *upload = op->arg;
    int rc = op->result;
    if (rc == -ENOENT) {
        upload->head_done = true;
        upload_create(upload);
        return;
    }
    struct file *file = file_ref(upload->file);
    pthread_mutex_lock(&file->lock);
    upload->state = UPLOAD_PARTS;
    upload_fail_locked(upload, rc ? rc : -EEXIST, &op->error);
    pthread_mutex_unlock(&file->lock);
    upload_next(file);
    file_put(file);
}

/* The natural key is written only if it is free: by a condition with the PUT or COMPLETE; where the
 * store has none, by looking before. */
void upload_create(struct upload *upload)
{
    struct file *file = file_ref(upload->file);
    const struct store_caps *caps = store_caps_at(upload->data->store, upload->object.key);
    bool head = !upload->head_done &&
                !(upload->single ? caps->put_if_none_match : caps->complete_if_none_match);
    pthread_mutex_lock(&file->lock);
    upload_tags(upload);
    bool parts = upload->single && !head;
    if (parts)
        upload->state = UPLOAD_PARTS;
    pthread_mutex_unlock(&file->lock);
    if (parts) {
        upload_next(file);
        file_put(file);
        return;
    }
    file_put(file);
    store_op_reset(&upload->op);
    upload->op = (struct store_op){
        .kind = head ? STORE_HEAD : STORE_MPU_CREATE,
        .priority = STORE_NORMAL,
        .key = upload->object.key,
        .meta = head ? NULL : upload->tags.pairs,
        .meta_count = head ? 0 : upload->tag_count,
        .done = head ? head_done : create_done,
        .arg = upload,
    };
    store_submit(upload->data->store, &upload->op);
}

static void complete_done(struct store_op *op)
{
    struct upload *upload = op->arg;
    struct file *file = upload->file;
    pthread_mutex_lock(&file->lock);
    if (op->result) {
        upload_fail_locked(upload, op->result, &op->error);
        upload->state = UPLOAD_UNDO;
    } else {
        memcpy(upload->object.etag, op->info.etag,
               MIN(sizeof(upload->object.etag), sizeof(op->info.etag)));
        upload->state = UPLOAD_COMMIT;
    }
    bool failed = op->result != 0;
    pthread_mutex_unlock(&file->lock);
    if (failed)
        upload_undo(upload);
    else
        upload_commit(upload);
}

void upload_complete(struct upload *upload)
{
    crash_point("flush.sent");
    upload->unsure = true;
    upload->complete_parts = calloc(upload->part_count, sizeof(*upload->complete_parts));
    store_op_reset(&upload->op);
    for (unsigned i = 0; upload->complete_parts && i < upload->part_count; i++) {
        upload->complete_parts[i] = upload->parts[i].got;
        upload->complete_parts[i].number = i + 1;
    }
    upload->op = (struct store_op){
        .kind = STORE_MPU_COMPLETE,
        .priority = upload->waiters ? STORE_DEMAND : STORE_NORMAL,
        .key = upload->object.key,
        .upload_id = upload->upload_id,
        .parts = upload->complete_parts,
        .part_count = upload->part_count,
        .if_none_match =
            store_caps_at(upload->data->store, upload->object.key)->complete_if_none_match,
        .meta = upload->tags.pairs,
        .meta_count = upload->tag_count,
        .done = complete_done,
        .arg = upload,
    };
    if (!upload->complete_parts) {
        upload->op.result = -ENOMEM;
        complete_done(&upload->op);
        return;
    }
    store_submit(upload->data->store, &upload->op);
}

/* A stream gets the parts that are written in full. */
static void grow_stream_locked(struct upload *upload)
{
    struct data *data = upload->data;
    uint64_t reach = staging_reach(upload->file->staging, 0);
    unsigned count = upload->part_count;
    while (count < PARTS_MAX && upload_part_offset(data, count + 1) <= reach)
        count++;
    if (upload_parts_grow(upload, count))
        upload->stopped = true;
    if (count == PARTS_MAX && !upload_plan_stream(upload))
        upload->stopped = true;
}

enum { START_MAX = 16 };

struct part_starts {
    unsigned count;
    struct {
        unsigned index;
        uint64_t length;
    } part[START_MAX];
};

static void start_part_locked(struct upload *upload, unsigned index, struct part_starts *starts)
{
    struct upload_part *part = &upload->parts[index];
    part->length = upload_part_size(upload->data, index);
    if (upload->finishing)
        part->length = MIN(part->length, upload->total - upload_part_offset(upload->data, index));
    part->state = PART_BUSY;
    part->epoch = 0;
    upload->in_flight++;
    upload->unsure |= upload->single;
    starts->part[starts->count].index = index;
    starts->part[starts->count++].length = part->length;
}

typedef void (*upload_step)(struct upload *);

static upload_step give_up_locked(struct upload *upload)
{
    if (upload->in_flight)
        return NULL;
    upload->state = UPLOAD_UNDO;
    return upload_undo;
}

/* What to do now, under the lock: parts to start, and the step to take (which then is the
 * caller's alone). */
static upload_step decide_locked(struct upload *upload, struct part_starts *starts)
{
    if (upload->state != UPLOAD_PARTS)
        return NULL;
    if (!upload->finishing && !upload->stopped && !upload->error)
        grow_stream_locked(upload);
    if (part_unwanted(upload))
        return give_up_locked(upload);
    unsigned i = upload->next_part;
    for (; i < upload->part_count && upload->in_flight < upload->data->config.upload_parallel &&
           starts->count < START_MAX;
         i++)
        if (upload->parts[i].state == PART_WAITS)
            start_part_locked(upload, i, starts);
    upload->next_part = i;
    if (!upload->finishing || upload->in_flight || i < upload->part_count)
        return NULL;
    upload->object.size = upload->total;
    upload->state = upload->single ? UPLOAD_COMMIT : UPLOAD_COMPLETE;
    return upload->single ? upload_commit : upload_complete;
}

void upload_next(struct file *file)
{
    struct part_starts starts = {0};
    upload_step step = NULL;
    pthread_mutex_lock(&file->lock);
    struct upload *upload = file->upload;
    if (upload)
        step = decide_locked(upload, &starts);
    pthread_mutex_unlock(&file->lock);
    for (unsigned i = 0; i < starts.count; i++)
        part_start(upload, starts.part[i].index, starts.part[i].length);
    if (step)
        step(upload);
}

void upload_written(struct file *file, uint64_t offset, uint64_t end)
{
    struct data *data = file->data;
    uint64_t part = data->config.part_bytes;
    if (offset / part == end / part || end < 2 * part)
        return;
    struct upload *begin = NULL;
    pthread_mutex_lock(&file->lock);
    bool streams = file->upload && file->upload->stream;
    uint64_t old = MIN(file->committed_size, file->truncated_to);
    if (!file->upload && file->staging && !file->unlinked && old == 0 &&
        file->durability == DATA_STORE && clock_monotonic_ns() >= file->retry_after_ns &&
        staging_reach(file->staging, 0) >= 2 * part) {
        begin = upload_new_locked(file);
        if (begin) {
            begin->stream = true;
            begin->internal = file->avoid_natural;
        }
    }
    pthread_mutex_unlock(&file->lock);
    if (begin)
        upload_begin(begin);
    else if (streams)
        upload_next(file);
}
