#include "append.h"

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/pool.h"

struct append_wait {
    struct meta_request meta;
    struct pool_task task;
    uint64_t drops; /* file->extents_drops when it was asked */
    struct data_handle *handle;
    struct fuse_bufvec *in;
    uint64_t offset;
    struct data_request *request;
};

uint64_t append_at_locked(struct data_handle *handle, uint64_t offset)
{
    uint64_t end = handle->file->size;
    if (end != offset)
        atomic_store(&handle->displaced, true);
    return end;
}

bool data_handle_displaced(struct data_handle *handle)
{
    return atomic_load_explicit(&handle->displaced, memory_order_relaxed) &&
           atomic_exchange(&handle->displaced, false);
}

static void run_again(struct pool_task *task)
{
    struct append_wait *wait = container_of(task, struct append_wait, task);
    struct data_request *request = wait->request;
    int rc = data_write(wait->handle, wait->in, wait->offset, true, request);
    free(wait);
    if (rc == -EINPROGRESS)
        return;
    request->result = rc;
    request->done(request);
}

static void asked(struct meta_request *meta)
{
    struct append_wait *wait = container_of(meta, struct append_wait, meta);
    struct file *file = wait->handle->file;
    struct data_request *request = wait->request;
    int rc = meta->result;
    if (rc == 0) {
        pthread_mutex_lock(&file->lock);
        bool newest = wait->drops == file->extents_drops;
        file_refresh_locked(file, &meta->reply.attr);
        if (newest)
            file->size_in_doubt = false; /* else it is asked again */
        pthread_mutex_unlock(&file->lock);
    }
    meta_reply_done(&meta->reply);
    if (rc == 0) {
        pool_submit(file->data->pool, &wait->task);
        return;
    }
    free(wait);
    request->result = rc;
    request->done(request);
}

static int ask(struct data_handle *handle, struct fuse_bufvec *in, uint64_t offset,
               struct data_request *request)
{
    struct file *file = handle->file;
    struct append_wait *wait = calloc(1, sizeof(*wait));
    if (!wait)
        return -ENOMEM;
    *wait = (struct append_wait){
        .task.run = run_again, .handle = handle, .in = in, .offset = offset, .request = request};
    wait->meta.op = (struct meta_op){.kind = META_GETATTR, .ino = file->ino};
    wait->meta.done = asked;
    pthread_mutex_lock(&file->lock);
    wait->drops = file->extents_drops;
    pthread_mutex_unlock(&file->lock);
    request->may_wait = false; /* it goes on in another thread */
    if (meta_submit(file->data->meta, &wait->meta) != -EINPROGRESS)
        asked(&wait->meta);
    return -EINPROGRESS;
}

int append_wait_or_quota(struct data_handle *handle, struct fuse_bufvec *in, uint64_t offset,
                         bool append, struct data_request *request)
{
    pthread_mutex_lock(&handle->file->lock);
    bool doubt = append && handle->file->size_in_doubt;
    pthread_mutex_unlock(&handle->file->lock);
    return doubt ? ask(handle, in, offset, request)
                 : quota_wait_write(handle, in, offset, append, request);
}
