/*
 * Quotas bind when bytes are accepted: a file's size is reserved in the metadata before it grows
 * (meta_quota_reserve), and given back when nothing of it waits for a commit any more. A
 * reservation does not shrink while a flush is in progress, whose commit may still bring the larger
 * size.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/pool.h"
#include "file.h"

int file_quota_grow_locked(struct file *file, uint64_t size)
{
    struct meta *meta = file->data->meta;
    if (!meta_quota_active(meta) || file->unlinked)
        return 0;
    if (file->upload)
        size = MAX(size, file->quota_size);
    int rc = meta_quota_reserve(meta, file->ino, size, false);
    if (rc == 0)
        file->quota_size = size;
    if (rc == -EAGAIN)
        file->quota_wanted = size;
    return rc;
}

/* ---- a volume of a service ---- */

/* A call that is done again when the service has answered. */
struct quota_wait {
    struct meta_quota_ask ask;
    struct pool_task task;
    struct data *data;
    int (*again)(struct quota_wait *wait);
    struct data_request *request;
    struct data_handle *handle; /* write, fallocate: it stays until the request is answered */
    struct fuse_bufvec *in;     /* write */
    bool append;
    int mode; /* fallocate */
    uint64_t offset, length;
};

static void wait_over(struct quota_wait *wait, int result)
{
    struct data_request *request = wait->request;
    free(wait);
    if (result == -EINPROGRESS)
        return;
    request->result = result;
    request->done(request);
}

static void run_again(struct pool_task *task)
{
    struct quota_wait *wait = container_of(task, struct quota_wait, task);
    wait_over(wait, wait->again(wait));
}

static void asked(struct meta_quota_ask *ask)
{
    struct quota_wait *wait = container_of(ask, struct quota_wait, ask);
    if (ask->result < 0)
        wait_over(wait, ask->result);
    else
        pool_submit(wait->data->pool, &wait->task);
}

static int wait_begin(struct file *file, const struct quota_wait *what)
{
    struct quota_wait *wait = malloc(sizeof(*wait));
    if (!wait)
        return -ENOMEM;
    *wait = *what;
    wait->data = file->data;
    wait->task.run = run_again;
    wait->ask.done = asked;
    wait->ask.ino = file->ino;
    pthread_mutex_lock(&file->lock);
    wait->ask.size = file->quota_wanted;
    pthread_mutex_unlock(&file->lock);
    wait->request->may_wait = false; /* it goes on in another thread */
    meta_quota_ask(file->data->meta, &wait->ask);
    return -EINPROGRESS;
}

static int write_again(struct quota_wait *wait)
{
    return data_write(wait->handle, wait->in, wait->offset, wait->append, wait->request);
}

int quota_wait_write(struct data_handle *handle, struct fuse_bufvec *in, uint64_t offset,
                     bool append, struct data_request *request)
{
    struct quota_wait wait = {.again = write_again,
                              .handle = handle,
                              .in = in,
                              .offset = offset,
                              .append = append,
                              .request = request};
    return wait_begin(handle->file, &wait);
}

static int truncate_again(struct quota_wait *wait)
{
    return data_truncate(wait->data, wait->ask.ino, wait->length, wait->request);
}

int quota_wait_truncate(struct file *file, uint64_t size, struct data_request *request)
{
    struct quota_wait wait = {.again = truncate_again, .length = size, .request = request};
    return wait_begin(file, &wait);
}

static int fallocate_again(struct quota_wait *wait)
{
    return data_fallocate(wait->handle, wait->mode, wait->offset, wait->length, wait->request);
}

int quota_wait_fallocate(struct data_handle *handle, int mode, uint64_t offset, uint64_t length,
                         struct data_request *request)
{
    struct quota_wait wait = {.again = fallocate_again,
                              .handle = handle,
                              .mode = mode,
                              .offset = offset,
                              .length = length,
                              .request = request};
    return wait_begin(handle->file, &wait);
}

void file_quota_update_locked(struct file *file)
{
    struct meta *meta = file->data->meta;
    uint64_t was = file->quota_size;
    file->quota_size = 0;
    if (!meta_quota_active(meta))
        return;
    if (!file->staging || file->unlinked) {
        if (was)
            meta_quota_release(meta, file->ino);
        return;
    }
    uint64_t size = file->upload ? MAX(file->size, was) : file->size;
    if (meta_quota_reserve(meta, file->ino, size, true) == 0)
        file->quota_size = size;
}

int data_quota_begin(struct data *data)
{
    size_t count = 0;
    pthread_mutex_lock(&data->lock);
    struct file **list = calloc(HASH_COUNT(data->files) + 1, sizeof(struct file *));
    for (struct file *file = data->files; list && file; file = file->hh.next)
        list[count++] = file_ref(file);
    pthread_mutex_unlock(&data->lock);
    if (!list)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++) {
        pthread_mutex_lock(&list[i]->lock);
        file_quota_update_locked(list[i]);
        pthread_mutex_unlock(&list[i]->lock);
        file_put(list[i]);
    }
    free(list);
    return 0;
}
