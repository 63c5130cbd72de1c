/*
 * A read. Happy path: under one hold of file->lock the range is cut into pieces (staged bytes,
 * committed bytes of objects, inline bytes, zeros), the GETs that are missing are begun or joined,
 * and the streams say what to fetch ahead → all GETs have ended → the pieces become the iovecs of
 * the answer, over the memory that the GETs filled.
 *
 * Failure modes. The extents are not known: they are asked for, and all begins again. No memory
 * within the budget: all is let go, the memory for the whole read is waited for at once, and the
 * read then has GETs of its own; so a waiting read holds nothing that another one waits for. An
 * object is not as the metadata says (412, 404): the metadata finds out; if the same bytes are in
 * other objects now, all begins again with fresh extents, else the reader gets -ESTALE. A failed
 * read-ahead: its reader asks himself. Pieces of one read always come from one list of extents, and
 * every GET names its object's ETag: so bytes of before and after a change never mix.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "passthrough.h"
#include "read_op.h"

#define TRIES_MAX 8

static void read_resume(struct read_op *op, int rc);
static void read_complete(struct read_op *op, int rc);

/* GETs */

static int get_piece(struct read_op *op, struct piece *piece)
{
    struct data_reads *reads = op->reads;
    struct fetch_source source = read_source(reads, piece->object);
    source.past_cache = op->no_cache;
    source.forwards = op->forwards;
    struct fetch_slice got[FETCH_SLICES_MAX];
    int count;
    if (op->granted > 0)
        count = op->granted < fetch_charge(piece->length)
                    ? -EAGAIN
                    : fetch_get_granted(reads->fetches, &op->granted, &source, piece->object_offset,
                                        piece->length, got);
    else
        count = fetch_get(reads->fetches,
                          op->handle && op->handle->streams ? &op->handle->streams->owner : NULL,
                          &source, piece->object_offset, piece->length, got);
    if (count < 0)
        return count;
    if (op->slice_count + (unsigned)count > op->slice_cap) {
        unsigned cap = MAX(2 * op->slice_cap, op->slice_count + (unsigned)count);
        struct fetch_slice *grown = reallocarray(op->slices, cap, sizeof(*grown));
        if (!grown) {
            for (int i = 0; i < count; i++)
                fetch_release(&got[i]);
            return -ENOMEM;
        }
        op->slices = grown;
        op->slice_cap = cap;
    }
    memcpy(&op->slices[op->slice_count], got, (unsigned)count * sizeof(got[0]));
    piece->first_slice = op->slice_count;
    piece->slice_count = (unsigned)count;
    op->slice_count += (unsigned)count;
    return 0;
}

/* -EAGAIN: not enough memory within the budget. */
static int get_pieces(struct read_op *op)
{
    int rc = 0;
    for (unsigned i = 0; i < op->piece_count && rc == 0; i++)
        if (op->pieces[i].kind == PIECE_OBJECT)
            rc = get_piece(op, &op->pieces[i]);
    return rc;
}

/* Ends the operation: the op is gone, or belongs to the answer. Returns the result. */
static int read_end(struct read_op *op, int rc)
{
    struct data_request *request = op->request;
    request->result = rc;
    if (rc == 0 && !op->into)
        request->buffer = &op->buffer;
    else
        read_op_free(op);
    return rc;
}

/* Steps */

static void object_found_out(struct meta_task *task)
{
    struct read_op *op = task->arg;
    int rc = task->result;
    if (rc == 0) {
        /* Others may have dropped them already. */
        struct file *file = op->file;
        pthread_mutex_lock(&file->lock);
        if (file->extents == op->extents)
            file_extents_drop_locked(file);
        pthread_mutex_unlock(&file->lock);
    } else if (rc != -ESTALE && rc != -ENOMEM) {
        rc = -EIO;
    }
    read_resume(op, rc);
}

/* All GETs have ended. 0 with all bytes there; -EAGAIN: begin again; -EINPROGRESS: the metadata
 * looks what happened to an object. */
static int check_slices(struct read_op *op)
{
    int rc = 0;
    uint64_t changed = 0;
    bool again = false;
    for (unsigned i = 0; i < op->slice_count; i++) {
        if (!op->slices[i].fetch) {
            /* It went, is corrupt, or the disk does not work: the store has it. */
            op->no_cache |= op->waits[i].cached.result < 0;
            again |= op->waits[i].cached.result < 0;
            continue;
        }
        int result = fetch_result(&op->slices[i]);
        if (result == 0)
            continue;
        /* A shorter one may have no such range (-ERANGE), where conditions are not looked at. */
        if (result == -EEXIST || result == -ENOENT || result == -ERANGE)
            changed = fetch_object(&op->slices[i]);
        else if (fetch_was_ahead(&op->slices[i]))
            again = true;
        else
            rc = result == -ENOMEM ? -ENOMEM : -EIO;
    }
    if (rc < 0 || (changed == 0 && !again))
        return rc;
    if (++op->tries > TRIES_MAX)
        return -EIO;
    if (changed == 0)
        return -EAGAIN;
    op->changed = (struct meta_task){.ino = op->file->ino, .done = object_found_out, .arg = op};
    meta_object_changed(op->file->data->meta, &op->changed, changed);
    return -EINPROGRESS;
}

static int after_slices(struct read_op *op)
{
    int rc = check_slices(op);
    return rc == 0 ? read_answer(op) : rc;
}

static void slice_ended(struct read_op *op)
{
    if (atomic_fetch_sub(&op->pending, 1) > 1)
        return;
    int rc = after_slices(op);
    if (rc == -EAGAIN)
        read_resume(op, 0);
    else if (rc != -EINPROGRESS)
        read_complete(op, rc);
}

static void fetch_ended(struct fetch_wait *wait)
{
    slice_ended(container_of(wait, struct slice_wait, wait)->op);
}

static void cached_ended(struct cache_read *read)
{
    slice_ended(container_of(read, struct slice_wait, cached)->op);
}

/* True: its end comes by a callback. */
static bool slice_start(struct read_op *op, unsigned i)
{
    struct slice_wait *wait = &op->waits[i];
    const struct fetch_slice *slice = &op->slices[i];
    *wait = (struct slice_wait){.op = op, .wait.done = fetch_ended};
    if (slice->fetch)
        return fetch_wait(slice, &wait->wait) == -EINPROGRESS;
    wait->cached = (struct cache_read){.cid = slice->cid,
                                       .offset = slice->offset,
                                       .length = slice->length,
                                       .may_wait = op->may_wait && op->slice_count == 1,
                                       .done = cached_ended};
    int rc = cache_read(op->reads->cache, &wait->cached);
    if (rc == -EINPROGRESS)
        return true;
    wait->cached.result = rc;
    return false;
}

static int wait_slices(struct read_op *op)
{
    if (op->slice_count == 0)
        return read_answer(op);
    op->waits = calloc(op->slice_count, sizeof(*op->waits));
    if (!op->waits)
        return -ENOMEM;
    unsigned count = op->slice_count;
    if (count == 1) {
        /* Nothing is held while this thread waits: if the disk is slow, another one ends the read.
         */
        atomic_store(&op->pending, 1);
        return slice_start(op, 0) ? -EINPROGRESS : after_slices(op);
    }
    atomic_store(&op->pending, count + 1);
    for (unsigned i = 0; i < count; i++)
        if (!slice_start(op, i))
            atomic_fetch_sub(&op->pending, 1);
    return atomic_fetch_sub(&op->pending, 1) == 1 ? after_slices(op) : -EINPROGRESS;
}

static void extents_there(struct file_extents_wait *wait)
{
    struct read_op *op = wait->arg;
    if (wait->result == 0)
        file_extents_unref(TAKE_PTR(wait->extents));
    read_resume(op, wait->result);
}

/* -EAGAIN: they are there now. */
static int ask_extents(struct read_op *op)
{
    op->extents_wait = (struct file_extents_wait){.done = extents_there, .arg = op};
    int rc = file_extents_get(op->file, &op->extents_wait);
    if (rc < 0)
        return rc;
    file_extents_unref(TAKE_PTR(op->extents_wait.extents));
    return -EAGAIN;
}

static void resume_task(struct loop_task *task)
{
    read_resume(container_of(task, struct read_op, resume), 0);
}

static void memory_there(struct buffers_wait *wait)
{
    struct read_op *op = container_of(wait, struct read_op, memory_wait);
    op->granted = wait->bytes;
    op->resume.run = resume_task;
    loop_post(op->reads->loop, &op->resume);
}

/* Waits for what the whole read needs, holding nothing. -EAGAIN: it is there now. */
static int ask_memory(struct read_op *op)
{
    uint64_t bytes = 0;
    for (unsigned i = 0; i < op->piece_count; i++)
        if (op->pieces[i].kind == PIECE_OBJECT)
            bytes += fetch_charge(op->pieces[i].length);
    read_try_reset(op);
    buffers_return(op->reads->buffers, op->granted);
    op->granted = 0;
    op->memory_wait = (struct buffers_wait){.bytes = bytes, .granted = memory_there};
    int rc = buffers_wait(op->reads->buffers, &op->memory_wait);
    if (rc < 0)
        return rc;
    op->granted = bytes;
    return -EAGAIN;
}

/* One try. -EAGAIN: begin again; -EINPROGRESS: goes on by read_resume or slice_ended; else the
 * result. */
static int read_try(struct read_op *op)
{
    struct file *file = op->file;
    struct stream_plan plan;
    read_try_reset(op);
    pthread_mutex_lock(&file->lock);
    op->end = op->offset + op->length;
    int rc = 0;
    if (op->handle) {
        op->end = MAX(op->offset, MIN(op->end, file->size));
        if (op->handle->outside_changes != file->outside_changes || op->handle->lost != file->lost)
            rc = -ESTALE;
    }
    bool no_extents = false;
    if (rc == 0) {
        rc = read_collect_locked(op);
        no_extents = rc == -EAGAIN;
    }
    if (rc == 0 && op->end > op->offset) {
        read_plan_locked(op, &plan);
        rc = get_pieces(op);
        if (rc == 0)
            read_ahead_locked(op, &plan);
    }
    pthread_mutex_unlock(&file->lock);
    if (no_extents)
        return ask_extents(op);
    if (rc == -EAGAIN)
        return ask_memory(op);
    if (rc < 0)
        return rc;
    buffers_return(op->reads->buffers, op->granted);
    op->granted = 0;
    return wait_slices(op);
}

static int read_run(struct read_op *op)
{
    int rc;
    do
        rc = read_try(op);
    while (rc == -EAGAIN);
    return rc;
}

static void request_done(struct loop_task *task)
{
    struct data_request *request = container_of(task, struct data_request, task);
    request->done(request);
}

static void read_complete(struct read_op *op, int rc)
{
    struct data_request *request = op->request;
    struct loop *loop = op->reads->loop;
    bool on_loop = op->into != NULL;
    read_end(op, rc);
    if (on_loop && !loop_on_thread(loop)) {
        request->task.run = request_done;
        loop_post(loop, &request->task);
    } else {
        request->done(request);
    }
}

static void read_resume(struct read_op *op, int rc)
{
    op->may_wait = false;
    if (rc == 0)
        rc = read_run(op);
    if (rc != -EINPROGRESS)
        read_complete(op, rc);
}

static int read_start(struct file *file, struct data_handle *handle, uint64_t offset,
                      uint64_t length, void *into, struct data_request *request)
{
    struct data_reads *reads = file->data->reads;
    request->buffer = NULL;
    if (offset + length < offset || offset + length > INT64_MAX)
        return request->result = -EINVAL;
    struct read_op *op = calloc(1, sizeof(*op));
    if (!op)
        return request->result = -ENOMEM;
    op->reads = reads;
    op->file = file;
    op->handle = handle;
    op->request = request;
    op->offset = offset;
    op->length = length;
    op->into = into;
    op->may_wait = request->may_wait;
    reads_tick(reads);
    int rc = read_run(op);
    return rc == -EINPROGRESS ? rc : read_end(op, rc);
}

int data_read(struct data_handle *handle, uint64_t offset, uint64_t length,
              struct data_request *request)
{
    if (pass_read(handle, offset, length, request))
        return 0;
    return read_start(handle->file, handle, offset, length, NULL, request);
}

int read_range(struct file *file, uint64_t offset, uint64_t length, void *buf,
               struct data_request *request)
{
    return read_start(file, NULL, offset, length, buf, request);
}
