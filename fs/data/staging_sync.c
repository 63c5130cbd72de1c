/*
 * Staged bytes that survive a power loss: first the bytes go to the disk, then a record that says
 * how far the log was when that began, and the log with it. What is not known to be on the disk
 * counts for nothing after a power loss. A file whose log has not changed since needs its bytes
 * only; so does one that has no log, since its bytes say all (STAGING_ALONE).
 */
#include <errno.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "staging_impl.h"

int staging_sync_begin(struct staging *staging, struct staging_sync *sync)
{
    int rc = staging->file ? 0 : staging_file_create(staging);
    if (!rc && !staging->alone)
        rc = staging_file_need_log(staging);
    if (rc)
        return rc;
    struct staging_area *area = staging->area;
    uint64_t removed = atomic_load(&area->logs_removed);
    /* A log of before must not come back, and count in place of bytes that have none. */
    bool stale_logs = staging->alone && removed > atomic_load(&area->logs_gone);
    /* A write that goes on where the last one ended must not change the record that counts. */
    staging->log_last_write = false;
    *sync = (struct staging_sync){.view = staging_view_get(staging),
                                  .number = staging->data_number,
                                  .generation = staging->log_generation,
                                  .changes = staging->log_changes,
                                  .count = staging->log_count,
                                  .removed = removed,
                                  .alone = staging->alone,
                                  .log = !staging->alone && !staging_file_is_synced(staging),
                                  .dir = stale_logs ||
                                         (!staging->dir_synced && !area->names_with_data)};
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
    if (sync->alone)
        return staging->alone ? 0 : -EAGAIN; /* now the log says what counts */
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

static void logs_are_gone(struct staging_area *area, uint64_t removed)
{
    uint64_t gone = atomic_load(&area->logs_gone);
    while (gone < removed && !atomic_compare_exchange_weak(&area->logs_gone, &gone, removed))
        ;
}

void staging_sync_end(struct staging *staging, struct staging_sync *sync)
{
    if (!is_same(staging, sync))
        return;
    staging->dir_synced |= sync->dir;
    if (sync->dir)
        logs_are_gone(staging->area, sync->removed);
    if (sync->alone && staging->alone) {
        staging->alone_synced = true;
        staging->synced_changes = MAX(staging->synced_changes, sync->changes);
    }
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
    return (staging->power_safe || staging->alone_synced) && !staging_file_is_synced(staging);
}

/* ext2 has the magic of ext4: its driver must be asked for. */
static bool is_ext4(dev_t device)
{
    FILE *mounts = fopen("/proc/self/mountinfo", "re");
    char line[8192], wanted[64];
    bool found = false;
    snprintf(wanted, sizeof(wanted), " %u:%u ", major(device), minor(device));
    while (mounts && !found && fgets(line, sizeof(line), mounts)) {
        const char *at = strstr(line, wanted), *type = strstr(line, " - ");
        found = at && type && at < type &&
                (strncmp(type + 3, "ext4 ", 5) == 0 || strncmp(type + 3, "ext3 ", 5) == 0);
    }
    if (mounts)
        fclose(mounts);
    return found;
}

bool staging_names_come_with_data(int dir_fd)
{
    struct statfs fs;
    struct stat st;
    if (fstatfs(dir_fd, &fs) || fstat(dir_fd, &st))
        return false;
    return fs.f_type == EXT4_SUPER_MAGIC && is_ext4(st.st_dev);
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
