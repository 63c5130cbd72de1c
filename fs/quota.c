/*
 * Quotas bind when bytes are accepted: a file's size is reserved in the metadata before it grows
 * (meta_quota_reserve), and given back when nothing of it waits for a commit any more. A
 * reservation does not shrink while a flush is in progress, whose commit may still bring the larger
 * size.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
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
    return rc;
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
