/* copy_file_range, by sharing extents, and SEEK_DATA/SEEK_HOLE. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "passthrough.h"
#include "staging.h"
#include "upload.h"

/* ---- copy ---- */

/* The steps: what is dirty of the source is committed, then what is dirty of the target (it may lie
 * under the copy), then the extents are shared. */
struct copy {
    struct data_request flush;
    struct meta_request meta;
    struct file *from, *to; /* a reference each */
    uint64_t from_offset, to_offset, length;
    struct data_request *caller;
    unsigned step;
};

static int copy_run(struct copy *copy);

static void copy_answer(struct copy *copy, int result)
{
    struct data_request *caller = copy->caller;
    meta_reply_done(&copy->meta.reply);
    file_put(copy->from);
    file_put(copy->to);
    free(copy);
    caller->result = result;
    caller->done(caller);
}

static void copy_go_on(struct copy *copy, int result)
{
    if (!result)
        result = copy_run(copy);
    if (result != -EINPROGRESS)
        copy_answer(copy, result);
}

static void copy_flushed(struct data_request *request)
{
    copy_go_on(container_of(request, struct copy, flush), request->result);
}

static int copy_apply(struct copy *copy)
{
    int rc = copy->meta.result;
    if (rc)
        return rc;
    struct file *to = copy->to;
    const struct meta_attr *attr = &copy->meta.reply.attr;
    pthread_mutex_lock(&to->lock);
    file_extents_drop_locked(to);
    to->data_version = MAX(to->data_version, attr->data_version);
    to->committed_size = MAX(to->committed_size, attr->size);
    if (!to->staging) {
        to->mtime_ns = attr->mtime_ns;
        to->ctime_ns = attr->ctime_ns;
        to->committed_size = to->size = attr->size;
    } else if (to->truncated_to == UINT64_MAX && to->size < attr->size) {
        if (staging_set_size(to->staging, attr->size, to->mtime_ns) == 0)
            to->size = attr->size;
    }
    pthread_mutex_unlock(&to->lock);
    return (int)copy->length;
}

static void copy_cloned(struct meta_request *request)
{
    struct copy *copy = container_of(request, struct copy, meta);
    copy_answer(copy, copy_apply(copy));
}

static bool is_dirty(struct file *file)
{
    pthread_mutex_lock(&file->lock);
    bool dirty = file->staging != NULL && !file->unlinked;
    pthread_mutex_unlock(&file->lock);
    return dirty;
}

/* From the present step on, as far as it goes without waiting. */
static int copy_run(struct copy *copy)
{
    while (copy->step < 2) {
        struct file *file = copy->step == 0 ? copy->from : copy->to;
        copy->step++;
        if (!is_dirty(file))
            continue;
        int rc = upload_flush(file, &copy->flush);
        if (rc)
            return rc;
    }
    copy->meta.op = (struct meta_op){
        .kind = META_CLONE,
        .ino = copy->from->ino,
        .offset = copy->from_offset,
        .length = copy->length,
        .new_ino = copy->to->ino,
        .new_offset = copy->to_offset,
    };
    copy->meta.done = copy_cloned;
    if (meta_submit(copy->to->data->meta, &copy->meta) == -EINPROGRESS)
        return -EINPROGRESS;
    return copy_apply(copy);
}

static bool stays_staged_locked(const struct file *file)
{
    return file->staging && file->durability != DATA_STORE;
}

int data_copy(struct data_handle *from, uint64_t from_offset, struct data_handle *to,
              uint64_t to_offset, uint64_t length, struct data_request *request)
{
    struct data *data = to->file->data;
    if (data->config.read_only)
        return -EROFS;
    if (!to->writable)
        return -EBADF;
    uint64_t era = meta_era(data->meta); /* first: see meta_era */
    if (data_handle_lost(from) || data_handle_lost(to))
        return -ESTALE;
    pthread_mutex_lock(&from->file->lock);
    pass_look_locked(from->file);
    uint64_t size = from->file->size;
    bool unlinked = from->file->unlinked, staged = stays_staged_locked(from->file);
    pthread_mutex_unlock(&from->file->lock);
    if (from_offset >= size)
        return 0;
    length = MIN(MIN(length, size - from_offset), 1u << 30);
    if (to_offset > INT64_MAX - (1ull << 33))
        return -EFBIG;
    if (from->file == to->file && from_offset < to_offset + length &&
        to_offset < from_offset + length)
        return -EINVAL;
    pthread_mutex_lock(&to->file->lock);
    bool passed = to->file->pass != NULL;
    staged |= stays_staged_locked(to->file);
    pthread_mutex_unlock(&to->file->lock);
    /* What is unlinked, or need not be in the store yet, is not committed, and a backing file needs
     * the bytes: the caller copies them. */
    if (unlinked || passed || staged)
        return -EOPNOTSUPP;
    struct copy *copy = calloc(1, sizeof(*copy));
    if (!copy)
        return -ENOMEM;
    *copy = (struct copy){.from = file_ref(from->file),
                          .to = file_ref(to->file),
                          .from_offset = from_offset,
                          .to_offset = to_offset,
                          .length = length,
                          .meta.era = era,
                          .caller = request};
    copy->flush.done = copy_flushed;
    int rc = copy_run(copy);
    if (rc == -EINPROGRESS)
        return rc;
    meta_reply_done(&copy->meta.reply);
    file_put(copy->from);
    file_put(copy->to);
    free(copy);
    return rc;
}

/* ---- seek ---- */

/* Where the first byte of the wanted kind is, at or after offset; size if none. Extents and staged
 * ranges are both ascending. With file->lock held. */
static uint64_t seek_locked(const struct file *file, const struct file_extents *extents,
                            uint64_t offset, bool data)
{
    uint64_t at = offset;
    size_t e = 0;
    while (at < file->size) {
        struct staging_range r = {.offset = UINT64_MAX};
        bool staged = file->staging && staging_next(file->staging, at, &r);
        bool is_data;
        uint64_t end; /* of what is alike from `at` */
        if (staged && r.offset <= at) {
            is_data = !r.hole;
            end = r.offset + r.length;
        } else {
            uint64_t visible = MIN(file->size, file->truncated_to);
            const struct meta_extent *list = extents->reply.extents;
            while (e < extents->reply.extent_count && list[e].offset + list[e].length <= at)
                e++;
            bool some = e < extents->reply.extent_count && at < visible;
            is_data = some && list[e].offset <= at && list[e].kind != META_EXTENT_HOLE;
            end = !some                 ? file->size
                  : list[e].offset > at ? list[e].offset
                                        : MIN(list[e].offset + list[e].length, visible);
            end = MIN(end, r.offset);
        }
        if (is_data == data)
            return at;
        at = MAX(end, at + 1);
    }
    return file->size;
}

static int seek_answer(struct file *file, const struct file_extents *extents, uint64_t offset,
                       int whence, struct data_request *request)
{
    int rc = 0;
    pthread_mutex_lock(&file->lock);
    pass_take_locked(file);
    uint64_t size = file->size;
    uint64_t at = offset < size ? seek_locked(file, extents, offset, whence == SEEK_DATA) : size;
    pthread_mutex_unlock(&file->lock);
    if (offset >= size || (whence == SEEK_DATA && at >= size))
        rc = -ENXIO;
    else
        request->offset = at; /* SEEK_HOLE: the end of the file is a hole */
    return rc;
}

struct seek {
    struct file_extents_wait wait;
    struct file *file; /* a reference */
    uint64_t offset;
    int whence;
    struct data_request *caller;
};

static void seek_extents(struct file_extents_wait *wait)
{
    struct seek *seek = container_of(wait, struct seek, wait);
    struct data_request *caller = seek->caller;
    int rc = wait->result;
    if (!rc)
        rc = seek_answer(seek->file, wait->extents, seek->offset, seek->whence, caller);
    file_extents_unref(wait->extents);
    file_put(seek->file);
    free(seek);
    caller->result = rc;
    caller->done(caller);
}

int data_seek(struct data_handle *handle, uint64_t offset, int whence, struct data_request *request)
{
    if (whence != SEEK_DATA && whence != SEEK_HOLE)
        return -EINVAL;
    if (data_handle_lost(handle))
        return -ESTALE;
    struct seek *seek = calloc(1, sizeof(*seek));
    if (!seek)
        return -ENOMEM;
    *seek = (struct seek){
        .file = file_ref(handle->file), .offset = offset, .whence = whence, .caller = request};
    seek->wait.done = seek_extents;
    int rc = file_extents_get(seek->file, &seek->wait);
    if (rc == -EINPROGRESS)
        return rc;
    if (!rc)
        rc = seek_answer(seek->file, seek->wait.extents, offset, whence, request);
    file_extents_unref(seek->wait.extents);
    file_put(seek->file);
    free(seek);
    return rc;
}
