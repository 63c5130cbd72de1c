/*
 * The session with the metadata service is over: others may have changed what was open here, and
 * got its locks. So nothing that was begun in it lands any more: what was written and not committed
 * is given up, and handles of before end with -ESTALE. New ones are as good as ever.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "file.h"
#include "passthrough.h"
#include "staging.h"
#include "upload.h"
#include "upload_impl.h"

bool data_handle_lost(struct data_handle *handle)
{
    struct file *file = handle->file;
    pthread_mutex_lock(&file->lock);
    bool lost = handle->lost != file->lost;
    pthread_mutex_unlock(&file->lock);
    return lost;
}

void file_give_up_locked(struct file *file)
{
    staging_free(TAKE_PTR(file->staging));
    file->giving_up = false;
    file->size = file->committed_size;
    file->truncated_to = UINT64_MAX;
    file->time_dirty = false;
    file->failures = 0;
    file->logged_error = false;
    file_extents_drop_locked(file);
    file_quota_update_locked(file);
}

struct lost {
    unsigned open, dirty;
    uint64_t bytes;
};

static void lose(struct file *file, struct lost *lost)
{
    static struct log_limit limit = LOG_LIMIT(20, 10000);
    pthread_mutex_lock(&file->lock);
    file->lost++;
    file->cache_stale = true;
    lost->open += file->handles > 0;
    file_extents_drop_locked(file);
    pass_stale_locked(file);
    uint64_t bytes = file->staging ? staging_dirty_bytes(file->staging) : 0;
    /* What the local disk acknowledged is not given up: it lands when it can. */
    bool keep = file->durability != DATA_STORE;
    bool dirty = file->staging != NULL && !keep;
    if (file->upload) {
        file->giving_up = !keep; /* when it has ended */
        if (!file->upload->error)
            file->upload->error = -ESTALE;
    } else if (dirty) {
        file_give_up_locked(file);
    }
    pthread_mutex_unlock(&file->lock);
    if (dirty) {
        lost->dirty++;
        lost->bytes += bytes;
        log_limited(&limit, LOG_ERROR, "written bytes given up",
                    "ino=%llu bytes=%llu reason=\"the session with the metadata service ended "
                    "before they were committed\"",
                    (unsigned long long)file->ino, (unsigned long long)bytes);
    }
    upload_stopped(file);
    file_dirty_update(file);
}

void data_session_lost(struct data *data)
{
    struct lost lost = {0};
    size_t count = 0;
    pthread_mutex_lock(&data->lock);
    struct file **list = calloc(HASH_COUNT(data->files) + 1, sizeof(struct file *));
    for (struct file *file = data->files; list && file; file = file->hh.next)
        list[count++] = file_ref(file);
    pthread_mutex_unlock(&data->lock);
    for (size_t i = 0; i < count; i++) {
        lose(list[i], &lost);
        file_put(list[i]);
    }
    free(list);
    log_error("open files are lost with their session",
              "files=%u dirty=%u bytes=%llu effect=\"their descriptors end with ESTALE: open them "
              "again\"",
              lost.open, lost.dirty, (unsigned long long)lost.bytes);
}
