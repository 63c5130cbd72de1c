/*
 * Passthrough onto a staging file (docs/durability.md): who writes a new file that stays on this
 * disk writes it without the mount. So the mount learns late what was written: of size and time
 * when somebody asks (pass_look_locked), of the bytes at fsync, close and once a second
 * (pass_take_locked), and all of them are dirty then.
 *
 * What was committed meanwhile stays dirty, too: nobody knows what was written since. But for a
 * file that is committed inline: its bytes are compared.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "durability.h"
#include "passthrough_impl.h"
#include "staging.h"

/* Who writes past the mount cannot be made to wait: so only while there is much room. */
#define ROOM_SHARE 2

static struct pass *staged(const struct file *file)
{
    return file->pass && file->pass->view ? file->pass : NULL;
}

bool pass_is_staged_locked(const struct file *file)
{
    return staged(file) != NULL;
}

/* Such writes do not take set-user-ID bits and capabilities away. */
bool pass_staged_eligible_locked(const struct data_handle *handle)
{
    const struct file *file = handle->file;
    struct data *data = file->data;
    return atomic_load(&data->staged_pass_on) && handle->writable && !file->pass &&
           file->durability != DATA_STORE && file->cached_handles == 0 && file->writers == 1 &&
           !file->upload && !file->unlinked && !file->giving_up && file->committed_size == 0 &&
           !(file->attr.mode & (S_ISUID | S_ISGID)) && !file->attr.has_xattr &&
           !meta_quota_active(data->meta) && !durability_must_wait(file) &&
           !staging_area_is_crowded(data->area) &&
           staging_area_bytes(data->area) < staging_area_max(data->area) / ROOM_SHARE;
}

bool pass_staged_begin_locked(struct data_handle *handle, bool *new)
{
    struct file *file = handle->file;
    struct data *data = file->data;
    struct pass *pass = calloc(1, sizeof(*pass));
    if (!pass || write_need_staging_locked(file, new)) {
        free(pass);
        return false;
    }
    int id = staging_share(file->staging);
    struct staging_view *view = id == 0 ? staging_view_get(file->staging) : NULL;
    if (view) {
        id = data->passthrough.open(data->passthrough.arg, staging_view_fd(view));
        if (id < 0 && atomic_exchange(&data->staged_pass_on, false))
            log_warn("new files are not passed through", "reason=\"%s\"", strerror(-id));
    }
    if (id <= 0) {
        staging_unshare(file->staging);
        staging_view_put(view);
        free(pass);
        return false;
    }
    *pass = (struct pass){
        .file = file, .view = view, .fd = staging_view_fd(view), .id = id, .size = file->size};
    struct staging_look look;
    if (staging_view_look(view, true, &look) == 0)
        pass->seen_ns = look.mtime_ns;
    file->pass = pass;
    return true;
}

/* --- What was written meanwhile */

void pass_look_locked(struct file *file)
{
    struct pass *pass = staged(file);
    struct staging_look look;
    if (!pass || staging_view_look(pass->view, true, &look))
        return;
    if (look.mtime_ns == pass->seen_ns && look.size == file->size)
        return;
    pass->seen_ns = look.mtime_ns;
    file->size = look.size;
    file->mtime_ns = file->ctime_ns = look.mtime_ns;
    file->time_dirty = true;
    file->last_write_ns = clock_monotonic_ns();
}

static int take(struct file *file)
{
    if (!staged(file) || !file->staging)
        return 0;
    /* A quota that came while the file was open. */
    int rc = file->size > file->quota_size ? file_quota_grow_locked(file, file->size) : 0;
    int taken = staging_take(file->staging, file->mtime_ns, file->time_dirty);
    return taken ? taken : rc;
}

int pass_take_locked(struct file *file)
{
    pass_look_locked(file);
    return take(file);
}

int pass_take_bytes_locked(struct file *file)
{
    struct pass *pass = staged(file);
    struct staging_look look;
    if (pass && (!file->time_dirty || staging_view_look(pass->view, false, &look) ||
                 look.size != file->size))
        pass_look_locked(file);
    return take(file);
}

/* The checksum of the file's bytes; false if they cannot be read. */
static bool sum_bytes(const struct pass *pass, uint64_t size, uint32_t *crc)
{
    cleanup(free_ptr) char *bytes = malloc(size ? size : 1);
    if (!bytes || staging_view_read(pass->view, 0, size, bytes))
        return false;
    *crc = hash_crc32c(0, bytes, size);
    return true;
}

void pass_committed_locked(struct file *file, const void *bytes, uint64_t size)
{
    struct pass *pass = staged(file);
    if (!pass)
        return;
    pass->committed = true;
    pass->committed_size = size;
    pass->committed_crc = hash_crc32c(0, bytes, size);
}

bool pass_was_committed_locked(const struct file *file)
{
    return staged(file) && file->pass->committed;
}

bool pass_is_clean_locked(const struct file *file)
{
    const struct pass *pass = staged(file);
    if (!pass || !file->staging || file->durability == DATA_SCRATCH || file->time_dirty ||
        file->upload || file->truncated_to != UINT64_MAX || file->size != file->committed_size)
        return false;
    uint32_t crc;
    if (staging_count(file->staging) == 0)
        return true;
    return pass->committed && pass->committed_size == file->size &&
           sum_bytes(pass, file->size, &crc) && crc == pass->committed_crc;
}

/* --- The end */

bool pass_staged_is_over_locked(struct pass *pass)
{
    return staging_view_is_alone(pass->view);
}

static void keep_staged_locked(struct file *file, bool alone)
{
    int rc = alone ? 0 : staging_part_from_others(file->staging);
    if (!rc)
        rc = staging_unshare(file->staging);
    if (rc)
        log_error("a staging that was written by passthrough cannot be ended", "ino=%llu error=%s",
                  (unsigned long long)file->ino, strerror(-rc));
}

void pass_staged_end_locked(struct file *file, bool alone)
{
    int rc = pass_take_locked(file);
    if (rc)
        log_error("what was written by passthrough is not all noted", "ino=%llu error=%s",
                  (unsigned long long)file->ino, strerror(-rc));
    bool clean = alone && pass_is_clean_locked(file);
    if (clean) {
        staging_free(TAKE_PTR(file->staging));
        file_quota_update_locked(file);
    } else if (file->staging) {
        keep_staged_locked(file, alone);
    }
    struct pass *pass = TAKE_PTR(file->pass);
    if (pass->id)
        file->data->passthrough.close(file->data->passthrough.arg, pass->id);
    staging_view_put(pass->view);
    /* The kernel has no pages of this inode that are of these bytes. */
    file->cache_stale = true;
    free(pass);
}
