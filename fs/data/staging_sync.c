/*
 * Staged bytes that survive a power loss: first the bytes go to the disk, then a record that says
 * how far the log was when that began, and the log with it. What is not known to be on the disk
 * counts for nothing after a power loss. A file whose log has not changed since needs its bytes
 * only.
 */
#include <errno.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "staging_impl.h"

int staging_sync_begin(struct staging *staging, struct staging_sync *sync)
{
    int rc = staging->file ? 0 : staging_file_create(staging);
    if (rc)
        return rc;
    /* A write that goes on where the last one ended must not change the record that counts. */
    staging->log_last_write = false;
    *sync = (struct staging_sync){.view = staging_view_get(staging),
                                  .number = staging->data_number,
                                  .generation = staging->log_generation,
                                  .changes = staging->log_changes,
                                  .count = staging->log_count,
                                  .log = !staging_file_is_synced(staging),
                                  .dir = !staging->dir_synced};
    return 0;
}

int staging_sync_data(const struct staging_sync *sync)
{
    return fdatasync(sync->view->fd) ? -errno : 0;
}

static bool is_same(const struct staging *staging, const struct staging_sync *sync)
{
    return staging && staging->file && staging->data_number == sync->number;
}

int staging_sync_note(struct staging *staging, struct staging_sync *sync)
{
    if (!is_same(staging, sync)) {
        sync->log = sync->dir = false;
        return 0;
    }
    if (!sync->log)
        return 0;
    if (staging->log_generation != sync->generation)
        return -EAGAIN;
    return staging_file_append_sync(staging, sync->count);
}

int staging_sync_log(const struct staging_sync *sync)
{
    if (sync->log && fdatasync(sync->view->log_fd))
        return -errno;
    return sync->dir && fsync(sync->view->area->dir_fd) ? -errno : 0;
}

void staging_sync_end(struct staging *staging, struct staging_sync *sync)
{
    if (!is_same(staging, sync))
        return;
    staging->dir_synced |= sync->dir;
    if (!sync->log)
        return;
    staging->synced_generation = MAX(staging->synced_generation, sync->generation);
    if (staging->log_generation == sync->generation)
        staging->synced_changes = MAX(staging->synced_changes, sync->changes);
    if (!staging_needs_sync(staging))
        staging_file_trim(staging);
}

bool staging_needs_sync(const struct staging *staging)
{
    return staging->power_safe && !staging_file_is_synced(staging);
}

void staging_sync_done(struct staging_sync *sync)
{
    staging_view_put(TAKE_PTR(sync->view));
}

int staging_sync_now(struct staging *staging)
{
    struct staging_sync sync;
    int rc = staging_sync_begin(staging, &sync);
    if (rc)
        return rc;
    rc = staging_sync_data(&sync);
    if (!rc)
        rc = staging_sync_note(staging, &sync);
    if (!rc)
        rc = staging_sync_log(&sync);
    if (!rc)
        staging_sync_end(staging, &sync);
    staging_sync_done(&sync);
    return rc;
}
