/*
 * Writing the object of a settle step, in the one way that is allowed for its key (I2):
 *
 *   internal key, bytes small or inline     PUT
 *   internal key, one object                CopyObject, if it is in the same store
 *   natural key                             PUT or CompleteMultipartUpload with If-None-Match: *,
 * or with If-Match of our own unreferenced object there natural key, no conditional writes HEAD,
 * then the same without a condition
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/crash.h"
#include "base/hash.h"
#include "s3/mux.h"
#include "settle.h"

#define PART_UNIT (8ull << 20)
/* Up to this size a copy is cheaper as GET and PUT than as a multipart upload. */
#define SMALL_COPY (256ull << 10)

static const struct store_caps *caps_of(const struct settle_job *job)
{
    return store_caps_at(job->meta->store, job->plan.target.key);
}

static bool needs_condition(const struct settle_job *job)
{
    return job->plan.target_is_natural;
}

/* What is to be replaced has no ETag that a condition could name. */
static bool replaces_weak(const struct settle_job *job)
{
    return job->plan.replaces && store_etag_is_weak(job->plan.old_etag);
}

/* NULL: the store's. */
static const char *class_of(const struct settle_job *job)
{
    return job->plan.storage_class[0] ? job->plan.storage_class : NULL;
}

/* The store copies by itself only what a condition can name. */
static bool sources_have_etags(const struct settle_job *job)
{
    for (size_t i = 0; i < job->body.object_count; i++)
        if (store_etag_is_weak(job->body.objects[i].etag))
            return false;
    return true;
}

/* Sets the condition of the write that makes the object, if the store honours it. */
static void set_condition(struct settle_job *job, struct store_op *op, bool if_match,
                          bool if_none_match)
{
    if (!needs_condition(job) || (replaces_weak(job) && !job->absent_before))
        return;
    if (!job->plan.replaces || job->absent_before)
        op->if_none_match = if_none_match;
    else if (if_match)
        op->if_match = job->plan.old_etag;
}

/* The result of the write that makes the object. True: it is done. */
static bool check_written(struct settle_job *job, void (*again)(struct settle_job *job))
{
    const struct store_op *op = &job->op.op;
    if (!op->result) {
        memcpy(job->etag, op->info.etag, sizeof(job->etag));
        return true;
    }
    bool no_upload = !strcmp(op->error.store_code, "NoSuchUpload");
    if (op->result == -ENOENT && job->plan.change && !no_upload) {
        settle_job_source_changed(job, job->plan.target.id);
    } else if (op->result == -ENOENT && op->if_match && !no_upload) {
        /* What it should replace is gone: the key is free. */
        job->absent_before = true;
        again(job);
    } else if (op->result == -EEXIST || (op->result == -ENOENT && no_upload)) {
        settle_job_taken(job);
    } else {
        settle_job_fail_op(job);
    }
    return false;
}

/* Bytes of a part, collected in the buffer one source at a time */

static void fill(struct settle_job *job);

static void filled_from_object(struct work_op *work)
{
    struct settle_job *job = work->arg;
    struct store_op *op = &work->op;
    uint64_t wanted = op->length;
    if (op->result == -EEXIST || op->result == -ENOENT || op->result == -ERANGE) {
        settle_job_source_changed(job, job->source);
        return;
    }
    if (op->result) {
        settle_job_fail_op(job);
        return;
    }
    if (op->got != wanted) {
        settle_job_source_changed(job, job->source);
        return;
    }
    job->filled += wanted;
    store_op_reset(op);
    fill(job);
}

/* The extent at a file offset, or the first behind it. */
static const struct meta_extent *extent_at(const struct settle_job *job, uint64_t offset)
{
    const struct meta_extent *extents = job->body.extents;
    size_t low = 0, high = job->body.extent_count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (extents[mid].offset + extents[mid].length <= offset)
            low = mid + 1;
        else
            high = mid;
    }
    return low < job->body.extent_count ? &extents[low] : NULL;
}

static void fetch(struct settle_job *job, const struct meta_extent *e, uint64_t at, uint64_t len)
{
    const struct meta_object *object = settle_job_object(job, e->object);
    if (!object) {
        settle_job_fail(job, NS_PER_S, "an extent's object is not known");
        return;
    }
    job->source = object->id;
    job->op.op = (struct store_op){.kind = STORE_GET,
                                   .key = object->key,
                                   .if_match = object->etag,
                                   .offset = e->object_offset + (at - e->offset),
                                   .length = len,
                                   .buf = job->buffer + job->filled,
                                   .buf_len = len};
    settle_job_submit(job, filled_from_object);
}

static void fill(struct settle_job *job)
{
    if (job->settler->stopped) {
        settle_job_fail(job, 0, "the volume is being closed");
        return;
    }
    while (job->filled < job->buffer_len) {
        uint64_t at = job->buffer_at + job->filled, left = job->buffer_len - job->filled;
        const struct meta_extent *e = extent_at(job, at);
        if (!e || e->offset > at) {
            uint64_t len = e ? MIN(left, e->offset - at) : left;
            memset(job->buffer + job->filled, 0, len);
            job->filled += len;
            continue;
        }
        uint64_t len = MIN(left, e->offset + e->length - at);
        if (e->kind == META_EXTENT_OBJECT) {
            fetch(job, e, at, len);
            return;
        }
        memcpy(job->buffer + job->filled, (const uint8_t *)e->data + (at - e->offset), len);
        job->filled += len;
    }
    job->iov = (struct iovec){.iov_base = job->buffer, .iov_len = job->buffer_len};
    job->after_fill(job);
}

static void run_granted(struct loop_task *task)
{
    struct settle_job *job = container_of(task, struct settle_job, granted);
    struct meta *meta = job->meta;
    job->has_ticket = true;
    job->buffer = malloc(job->buffer_len + 1);
    job->filled = 0;
    if (job->buffer)
        fill(job);
    else
        settle_job_fail(job, NS_PER_S, "out of memory");
    work_end(meta);
}

static void granted(struct ticket_wait *wait)
{
    struct settle_job *job = container_of(wait, struct settle_job, ticket);
    job->granted.run = run_granted;
    loop_post(job->meta->work, &job->granted);
}

/* Collects bytes [at, at + len) of the file in the buffer, then calls `after`. */
static void collect(struct settle_job *job, uint64_t at, uint64_t len,
                    void (*after)(struct settle_job *job))
{
    job->buffer_at = at;
    job->buffer_len = len;
    job->after_fill = after;
    job->ticket.bytes = MAX(len, 1);
    job->ticket.granted = granted;
    work_begin(job->meta);
    if (!tickets_take(job->settler->memory, &job->ticket))
        granted(&job->ticket);
}

static void release_buffer(struct settle_job *job)
{
    free(TAKE_PTR(job->buffer));
    if (job->has_ticket)
        tickets_return(job->settler->memory, job->ticket.bytes);
    job->has_ticket = false;
}

/* One PUT */

static void put(struct settle_job *job);

static void put_done(struct work_op *work)
{
    struct settle_job *job = work->arg;
    if (check_written(job, put))
        settle_job_written(job, work->op.checked);
}

static void put(struct settle_job *job)
{
    store_op_reset(&job->op.op);
    job->op.op = (struct store_op){.kind = STORE_PUT,
                                   .key = job->plan.target.key,
                                   .iov = &job->iov,
                                   .iov_count = 1,
                                   .meta = job->tags.pairs,
                                   .meta_count = job->tag_count,
                                   .storage_class = class_of(job)};
    const struct store_caps *caps = caps_of(job);
    set_condition(job, &job->op.op, caps->put_if_match, caps->put_if_none_match);
    crash_point("settle.putting");
    settle_job_submit(job, put_done);
}

/* One CopyObject, onto an internal key */

static void copy_done(struct work_op *work)
{
    struct settle_job *job = work->arg;
    int rc = work->op.result;
    if (rc == -EEXIST || rc == -ENOENT) {
        settle_job_source_changed(job, job->source);
    } else if (rc) {
        settle_job_fail_op(job);
    } else {
        memcpy(job->etag, work->op.info.etag, sizeof(job->etag));
        settle_job_verify(job);
    }
}

static void copy_whole(struct settle_job *job, const struct meta_object *source)
{
    job->source = source->id;
    job->op.op = (struct store_op){.kind = STORE_COPY,
                                   .key = job->plan.target.key,
                                   .source_key = source->key,
                                   .source_if_match = source->etag,
                                   .meta = job->tags.pairs,
                                   .meta_count = job->tag_count};
    crash_point("settle.copying");
    settle_job_submit(job, copy_done);
}

/* Multipart */

/* A file that is one whole object. */
static const struct meta_object *whole_object(const struct settle_job *job)
{
    if (job->body.extent_count != 1 || job->body.extents[0].kind != META_EXTENT_OBJECT)
        return NULL;
    const struct meta_extent *e = &job->body.extents[0];
    const struct meta_object *object = settle_job_object(job, e->object);
    bool whole = object && !e->offset && !e->object_offset && e->length == job->plan.size &&
                 object->size == job->plan.size;
    return whole ? object : NULL;
}

static void complete(struct settle_job *job);
static void next_part(struct settle_job *job);

/* The file is one object that was copied as one part, and the store's answers say so by its MD5:
 * the part has the source's ETag, and the object that of one such part. */
static bool is_known_copy(const struct settle_job *job)
{
    const struct meta_object *source = whole_object(job);
    uint8_t digest[16], whole[16];
    char etag[STORE_ETAG_MAX];
    if (!source || job->parts.count != 1 || !job->parts.parts[0].copy ||
        strlen(source->etag) != 32 || strcmp(source->etag, job->done_parts[0].etag) != 0 ||
        hash_unhex(source->etag, 32, digest, sizeof(digest)) != 0)
        return false;
    hash_md5(digest, sizeof(digest), whole);
    hash_hex(whole, sizeof(whole), etag);
    strcat(etag, "-1");
    return strcmp(etag, job->etag) == 0;
}

static void completed(struct work_op *work)
{
    struct settle_job *job = work->arg;
    if (!check_written(job, complete))
        return;
    free(TAKE_PTR(job->upload_id));
    settle_job_written(job, is_known_copy(job));
}

static void complete(struct settle_job *job)
{
    store_op_reset(&job->op.op);
    job->op.op = (struct store_op){.kind = STORE_MPU_COMPLETE,
                                   .key = job->plan.target.key,
                                   .upload_id = job->upload_id,
                                   .parts = job->done_parts,
                                   .part_count = (unsigned)job->parts.count,
                                   .meta = job->tags.pairs,
                                   .meta_count = job->tag_count};
    const struct store_caps *caps = caps_of(job);
    set_condition(job, &job->op.op, caps->complete_if_match, caps->complete_if_none_match);
    crash_point("settle.completing");
    settle_job_submit(job, completed);
}

static void part_done(struct work_op *work)
{
    struct settle_job *job = work->arg;
    struct store_op *op = &work->op;
    const struct settle_part *part = &job->parts.parts[job->part];
    bool source = op->result == -EEXIST ||
                  (op->result == -ENOENT && strcmp(op->error.store_code, "NoSuchUpload") != 0);
    if (part->copy && source) {
        settle_job_source_changed(job, part->object);
        return;
    }
    if (op->result) {
        settle_job_fail_op(job);
        return;
    }
    job->done_parts[job->part] = op->out_part;
    job->done_parts[job->part].number = (uint32_t)job->part + 1;
    job->part++;
    crash_point("settle.copied");
    store_op_reset(op);
    release_buffer(job);
    next_part(job);
}

static bool has_copies(const struct settle_job *job)
{
    for (size_t i = 0; i < job->parts.count; i++)
        if (job->parts.parts[i].copy)
            return true;
    return false;
}

static void send_part(struct settle_job *job)
{
    job->op.op = (struct store_op){.kind = STORE_MPU_PART,
                                   .key = job->plan.target.key,
                                   .upload_id = job->upload_id,
                                   .part_number = (uint32_t)job->part + 1,
                                   .iov = &job->iov,
                                   .iov_count = 1,
                                   .copied_parts = has_copies(job)};
    settle_job_submit(job, part_done);
}

static void copy_part(struct settle_job *job, const struct settle_part *part)
{
    const struct meta_object *source = settle_job_object(job, part->object);
    if (!source) {
        settle_job_fail(job, NS_PER_S, "an extent's object is not known");
        return;
    }
    bool whole = !part->object_offset && part->length == source->size;
    job->op.op = (struct store_op){.kind = STORE_MPU_PART_COPY,
                                   .key = job->plan.target.key,
                                   .upload_id = job->upload_id,
                                   .part_number = (uint32_t)job->part + 1,
                                   .source_key = source->key,
                                   .source_if_match = source->etag,
                                   .offset = part->object_offset,
                                   .length = whole ? 0 : part->length};
    settle_job_submit(job, part_done);
}

static void next_part(struct settle_job *job)
{
    if (job->settler->stopped) {
        settle_job_fail(job, 0, "the volume is being closed");
        return;
    }
    if (job->part == job->parts.count) {
        complete(job);
        return;
    }
    const struct settle_part *part = &job->parts.parts[job->part];
    if (part->copy)
        copy_part(job, part);
    else
        collect(job, part->offset, part->length, send_part);
}

static void created(struct work_op *work)
{
    struct settle_job *job = work->arg;
    if (work->op.result) {
        job->stray = true; /* the reply may have been lost */
        settle_job_fail_op(job);
        return;
    }
    job->upload_id = strdup(work->op.out_upload_id);
    store_op_reset(&work->op);
    crash_point("settle.created");
    if (job->upload_id)
        next_part(job);
    else
        settle_job_fail(job, NS_PER_S, "out of memory");
}

/* A store copies what it has itself. */
static bool is_in_one_store(const struct settle_job *job)
{
    size_t skip;
    const char *key = job->plan.target.key;
    unsigned store = store_route(key, strlen(key), &skip);
    for (size_t i = 0; i < job->body.object_count; i++) {
        key = job->body.objects[i].key;
        if (store_route(key, strlen(key), &skip) != store)
            return false;
    }
    return true;
}

static bool may_copy(const struct settle_job *job)
{
    const struct store_caps *caps = caps_of(job);
    return caps->server_copy && caps->copy_if_match && is_in_one_store(job) &&
           sources_have_etags(job);
}

/* Ranges of objects that are at least one part long are copied by the store. `unit`: of the parts
 * whose bytes go through us. */
static void multipart(struct settle_job *job, uint64_t unit)
{
    const struct store_caps *caps = caps_of(job);
    struct settle_limits limits = {
        .part_min = MAX(caps->part_min, 1),
        .part_unit = unit,
        .copy_max = may_copy(job) ? MIN(caps->copy_max, MAX(caps->part_max, 1)) : 0,
        .count_max = caps->part_count_max ? caps->part_count_max : 10000,
    };
    int rc = settle_plan(job->body.extents, job->body.extent_count, job->plan.size, &limits,
                         &job->parts);
    if (!rc) {
        job->done_parts = calloc(job->parts.count, sizeof(*job->done_parts));
        rc = job->done_parts ? 0 : -ENOMEM;
    }
    if (rc) {
        settle_job_fail(job, 60 * NS_PER_S, "cannot be made of parts: %s", strerror(-rc));
        return;
    }
    job->op.op = (struct store_op){.kind = STORE_MPU_CREATE,
                                   .key = job->plan.target.key,
                                   .meta = job->tags.pairs,
                                   .meta_count = job->tag_count,
                                   .storage_class = class_of(job),
                                   .copied_parts = has_copies(job)};
    settle_job_submit(job, created);
}

static bool has_objects(const struct settle_job *job)
{
    for (size_t i = 0; i < job->body.extent_count; i++)
        if (job->body.extents[i].kind == META_EXTENT_OBJECT)
            return true;
    return false;
}

static void write_object(struct settle_job *job)
{
    const struct store_caps *caps = caps_of(job);
    const struct meta_object *source = whole_object(job);
    bool copies = may_copy(job);
    if (job->plan.size <= SMALL_COPY ||
        ((!has_objects(job) || !copies) && job->plan.size <= PART_UNIT))
        collect(job, 0, job->plan.size, put);
    else if (source && copies && !needs_condition(job) && source->size <= caps->copy_max)
        copy_whole(job, source);
    else
        multipart(job, source && copies ? 0 : PART_UNIT);
}

/* Where a condition cannot be had: look, then write. */
static void looked(struct work_op *work)
{
    struct settle_job *job = work->arg;
    const struct store_op *op = &work->op;
    bool replaceable =
        !op->result && job->plan.replaces && store_etag_fits(&op->info, job->plan.old_etag);
    if (op->result == -ENOENT && job->plan.change) {
        settle_job_source_changed(job, job->plan.target.id);
    } else if (op->result == -ENOENT || replaceable) {
        job->absent_before = op->result == -ENOENT;
        store_op_reset(&work->op);
        write_object(job);
    } else if (!op->result) {
        settle_job_taken(job);
    } else {
        settle_job_fail_op(job);
    }
}

void settle_write_start(struct settle_job *job)
{
    const struct store_caps *caps = caps_of(job);
    bool honoured = caps->put_if_none_match && caps->complete_if_none_match &&
                    (!job->plan.replaces || (caps->put_if_match && caps->complete_if_match));
    if (!needs_condition(job) || (honoured && !replaces_weak(job))) {
        write_object(job);
        return;
    }
    job->op.op = (struct store_op){.kind = STORE_HEAD, .key = job->plan.target.key};
    settle_job_submit(job, looked);
}
