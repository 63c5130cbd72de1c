/*
 * What changes a file's content: write, truncate, fallocate. All of it is staged, under the file's
 * lock, and answered at once; but for writes that find no room, which wait until flushes have made
 * some.
 */
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <linux/falloc.h>
#include <stdlib.h>

#include "append.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "durability.h"
#include "passthrough.h"
#include "staging.h"
#include "upload.h"
#include "write_wait.h"

/* Staging keeps a log before the bytes; and a file that large could never be settled. */
#define FILE_SIZE_MAX ((uint64_t)INT64_MAX - (1ull << 32))
/* So many ranges are flushed without being asked. */
#define RANGES_MANY 8192
/* Of the kernel's cache; larger ones are cut as well where these are. */
#define KERNEL_PAGE 4096
/* Scratch never goes to the store: it may have this part of the room. */
#define SCRATCH_SHARE 2
/* A file's time moves in steps of this at most, as those of local file systems do. */
#define TIME_TICK_NS (10 * NS_PER_MS)

int write_need_staging_locked(struct file *file, bool *new)
{
    static const uint32_t flags[] = {0, STAGING_LOCAL, STAGING_SCRATCH};
    *new = false;
    if (file->staging)
        return 0;
    bool fresh = file->committed_size == 0 && file->truncated_to == UINT64_MAX;
    int rc = staging_new_class(file->data->area, file->ino, file->size,
                               flags[file->durability] | (fresh ? STAGING_FRESH : 0),
                               file->data_version, &file->staging);
    if (rc)
        return rc;
    *new = true;
    file->sync_failed = false;
    staging_sum_parts(file->staging, file->data->config.part_bytes);
    if (file->data->written)
        staging_sum_pages(file->staging);
    file->dirty_since_ns = clock_monotonic_ns();
    return 0;
}

/* After a failed change: a staging that was made for it is not wanted. */
static void change_failed_locked(struct file *file, bool new)
{
    if (new)
        staging_free(TAKE_PTR(file->staging));
    file_quota_update_locked(file);
}

/* Of a shared volume the kernel drops the pages of a file whose time has moved, its own too. With
 * the time that it was told when the file was made it keeps what is written at once. */
static uint64_t time_of_write_locked(const struct file *file, uint64_t now_ns)
{
    bool same_tick =
        now_ns + TIME_TICK_NS > file->mtime_ns && now_ns < file->mtime_ns + TIME_TICK_NS;
    return file->data->inlined && same_tick ? file->mtime_ns : now_ns;
}

static void touched_locked(struct file *file, uint64_t now_ns)
{
    file->mtime_ns = file->ctime_ns = now_ns;
    file->time_dirty = true;
    file->last_write_ns = clock_monotonic_ns();
}

/* The kernel has a page that it got in pieces for no page, and asks for it alone when it is read.
 */
static void note_page_locked(struct file *file, uint64_t end)
{
    uint64_t page = end / KERNEL_PAGE;
    if (end % KERNEL_PAGE == 0 || (file->cut_pages && file->cut_page == page))
        return;
    file->cut_page = page;
    file->cut_pages++;
}

int64_t write_apply(struct data_handle *handle, struct fuse_bufvec *in, uint64_t offset,
                    bool append)
{
    struct file *file = handle->file;
    struct data *data = file->data;
    uint64_t length = fuse_buf_size(in), now = meta_time_ns(data->meta);
    size_t idx = in->idx, off = in->off;
    bool new = false;
    pthread_mutex_lock(&file->lock);
    now = time_of_write_locked(file, now);
    if (append && file->size_in_doubt) {
        pthread_mutex_unlock(&file->lock);
        return -EAGAIN;
    }
    if (append)
        offset = append_at_locked(handle, offset);
    if (length > FILE_SIZE_MAX || offset > FILE_SIZE_MAX - length) {
        pthread_mutex_unlock(&file->lock);
        return -EFBIG;
    }
    int refused = handle->lost != file->lost ? -ESTALE : pass_before_change_locked(file);
    if (!refused && file->durability == DATA_SCRATCH &&
        staging_area_scratch(data->area) + length > staging_area_max(data->area) / SCRATCH_SHARE)
        refused = -ENOSPC;
    if (!refused && offset + length > file->size)
        refused = file_quota_grow_locked(file, offset + length);
    if (refused) {
        pthread_mutex_unlock(&file->lock);
        return refused;
    }
    int64_t n = write_need_staging_locked(file, &new);
    if (n == 0) {
        n = staging_write(file->staging, in, offset, now);
        if (n < 0)
            change_failed_locked(file, new);
    }
    /* A quota of the local disk is no quota of the volume: it is no room. */
    if (n == -EDQUOT)
        n = -ENOSPC;
    if (n >= 0) {
        file->size = MAX(file->size, offset + length);
        touched_locked(file, now);
        note_page_locked(file, offset + length);
        pass_changed_locked(file, offset, length);
    } else {
        new = false;
        in->idx = idx; /* may be tried again */
        in->off = off;
    }
    bool many = file->staging && staging_count(file->staging) >= RANGES_MANY;
    pthread_mutex_unlock(&file->lock);
    if (new)
        file_dirty_update(file);
    if (n > 0)
        upload_written(file, offset, offset + length);
    if (many)
        upload_flush(file, NULL);
    return n;
}

int write_bytes_locked(struct file *file, const void *bytes, uint64_t offset, uint64_t length,
                       bool *new)
{
    uint64_t now = meta_time_ns(file->data->meta);
    int rc = write_need_staging_locked(file, new);
    if (rc == 0) {
        rc = staging_write_bytes(file->staging, bytes, offset, length, now);
        if (rc)
            change_failed_locked(file, *new);
    }
    if (rc) {
        *new = false;
        return rc;
    }
    file->size = MAX(file->size, offset + length);
    touched_locked(file, now);
    return 0;
}

int data_write(struct data_handle *handle, struct fuse_bufvec *in, uint64_t offset, bool append,
               struct data_request *request)
{
    struct data *data = handle->file->data;
    if (data->config.read_only)
        return -EROFS;
    if (!handle->writable)
        return -EBADF;
    if (fuse_buf_size(in) == 0)
        return 0;
    if (!write_must_wait(data) && !durability_must_wait(handle->file)) {
        int64_t n = write_apply(handle, in, offset, append);
        if (n == -EAGAIN && request)
            return append_wait_or_quota(handle, in, offset, append, request);
        if (n != -ENOSPC)
            return (int)n;
        /* Bytes of a pipe may be gone by now: only memory can be tried again. */
        for (size_t i = 0; i < in->count; i++)
            if (in->buf[i].flags & FUSE_BUF_IS_FD)
                return (int)n;
    }
    return request ? write_wait_add(handle, in, offset, append, request) : -EAGAIN;
}

/* ---- truncate ---- */

struct truncate {
    struct meta_request request;
    struct data *data;
    uint64_t ino;
    struct data_request *caller;
};

/* A file that was opened meanwhile, with the attributes of before. */
static void truncate_note(const struct truncate *truncate, const struct meta_attr *attr)
{
    struct file *file = file_get(truncate->data, truncate->ino);
    if (!file) {
        file_note_version(truncate->data, truncate->ino, attr->data_version);
        return;
    }
    pthread_mutex_lock(&file->lock);
    if (attr->data_version > file->data_version) {
        file->data_version = attr->data_version;
        file->committed_size = attr->size;
        file_extents_drop_locked(file);
        if (!file->staging)
            file->size = attr->size;
    }
    pthread_mutex_unlock(&file->lock);
    file_put(file);
}

static int truncate_end(struct truncate *truncate)
{
    int result = truncate->request.result;
    if (!result)
        truncate_note(truncate, &truncate->request.reply.attr);
    meta_reply_done(&truncate->request.reply);
    free(truncate);
    return result;
}

static void truncate_done(struct meta_request *request)
{
    struct truncate *truncate = container_of(request, struct truncate, request);
    struct data_request *caller = truncate->caller;
    caller->result = truncate_end(truncate);
    caller->done(caller);
}

static int truncate_closed(struct data *data, uint64_t ino, uint64_t size,
                           struct data_request *request)
{
    struct truncate *truncate = calloc(1, sizeof(*truncate));
    if (!truncate)
        return -ENOMEM;
    truncate->data = data;
    truncate->ino = ino;
    truncate->caller = request;
    truncate->request.op = (struct meta_op){
        .kind = META_SETATTR,
        .ino = ino,
        .valid = META_SET_SIZE,
        .attr = {.size = size},
    };
    truncate->request.done = truncate_done;
    if (meta_submit(data->meta, &truncate->request) == -EINPROGRESS)
        return -EINPROGRESS;
    return truncate_end(truncate);
}

static int set_size_locked(struct file *file, uint64_t size, uint64_t now, bool *new)
{
    *new = false;
    int rc = file->giving_up ? -ESTALE : pass_before_change_locked(file);
    if (rc == 0 && size > file->size)
        rc = file_quota_grow_locked(file, size);
    if (rc == 0)
        rc = write_need_staging_locked(file, new);
    if (rc)
        return rc;
    bool cut = size < file->size;
    rc = staging_set_size(file->staging, size, now);
    if (rc) {
        change_failed_locked(file, *new);
        *new = false;
        return rc;
    }
    if (cut) {
        file->truncated_to = MIN(file->truncated_to, size);
        upload_truncated_locked(file, size);
    }
    file->size = size;
    if (cut)
        file_quota_update_locked(file);
    touched_locked(file, now);
    pass_resized_locked(file);
    return 0;
}

int data_truncate(struct data *data, uint64_t ino, uint64_t size, struct data_request *request)
{
    if (data->config.read_only)
        return -EROFS;
    if (size > FILE_SIZE_MAX)
        return -EFBIG;
    struct file *file = file_get(data, ino);
    if (!file)
        return truncate_closed(data, ino, size, request);
    bool new = false;
    int rc = 0;
    pthread_mutex_lock(&file->lock);
    bool closed = file->handles == 0;
    bool clean = closed && !file->staging && !file->upload && !file->pass;
    if (!clean)
        rc = set_size_locked(file, size, meta_time_ns(data->meta), &new);
    pthread_mutex_unlock(&file->lock);
    if (new)
        file_dirty_update(file);
    if (clean) {
        rc = truncate_closed(data, ino, size, request);
    } else {
        upload_stopped(file);
        /* Nobody's close tells of the end of this change. */
        if (!rc)
            durability_written(file);
    }
    if (rc == -EAGAIN)
        rc = quota_wait_truncate(file, size, request);
    file_put(file);
    return rc;
}

/* ---- fallocate ---- */

static int zero_locked(struct file *file, uint64_t offset, uint64_t end, uint64_t now, bool *new)
{
    end = MIN(end, file->size);
    if (offset >= end)
        return 0;
    int rc = pass_before_change_locked(file);
    if (rc == 0)
        rc = write_need_staging_locked(file, new);
    if (rc)
        return rc;
    rc = staging_zero(file->staging, offset, end - offset, now);
    if (rc) {
        change_failed_locked(file, *new);
        *new = false;
        return rc;
    }
    touched_locked(file, now);
    pass_changed_locked(file, offset, end - offset);
    return 0;
}

int data_fallocate(struct data_handle *handle, int mode, uint64_t offset, uint64_t length,
                   struct data_request *request)
{
    struct file *file = handle->file;
    struct data *data = file->data;
    bool keep = mode & FALLOC_FL_KEEP_SIZE;
    int kind = mode & ~FALLOC_FL_KEEP_SIZE;
    if (data->config.read_only)
        return -EROFS;
    if (!handle->writable)
        return -EBADF;
    if (kind != 0 && kind != FALLOC_FL_ZERO_RANGE && (kind != FALLOC_FL_PUNCH_HOLE || !keep))
        return -EOPNOTSUPP;
    if (length == 0)
        return -EINVAL;
    if (length > FILE_SIZE_MAX || offset > FILE_SIZE_MAX - length)
        return -EFBIG;
    uint64_t now = meta_time_ns(data->meta);
    bool new = false, new_size = false;
    pthread_mutex_lock(&file->lock);
    int rc = handle->lost != file->lost ? -ESTALE : 0;
    pass_look_locked(file);
    if (!rc && kind)
        rc = zero_locked(file, offset, offset + length, now, &new);
    if (!rc && !keep && offset + length > file->size)
        rc = set_size_locked(file, offset + length, now, &new_size);
    pthread_mutex_unlock(&file->lock);
    if (new || new_size)
        file_dirty_update(file);
    return rc == -EAGAIN ? quota_wait_fallocate(handle, mode, offset, length, request) : rc;
}
