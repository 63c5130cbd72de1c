/*
 * A staging file that the kernel lets programs write by themselves (passthrough): nobody says here
 * what was written, or when. So all that the file holds counts as dirty, each time it is looked at
 * (staging_take); what it holds are its data segments, and how long the file is says the disk. The
 * header of the log says that it is so (STAGING_SHARED), for the next process.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "staging_impl.h"

/* A file with more of them counts as one without holes. */
#define SEGMENTS_MAX 4096

int staging_share(struct staging *staging)
{
    int rc = staging->file ? 0 : staging_file_create(staging);
    if (rc)
        return rc;
    staging_file_trim(staging);
    if (staging->trims.count)
        return -EBUSY; /* old bytes lie in its holes */
    if (ftruncate(staging->file->fd, (off_t)staging->size))
        return -errno;
    part_sums_done(&staging->sums);
    staging->sums.part_bytes = 0;
    page_sums_done(&staging->pages);
    staging->sums_pages = false;
    return staging_set_flags(staging, staging->flags | STAGING_SHARED);
}

int staging_unshare(struct staging *staging)
{
    return staging_set_flags(staging, staging->flags & ~(uint32_t)STAGING_SHARED);
}

int staging_view_look(const struct staging_view *view, bool time, struct staging_look *out)
{
    struct statx st;
    unsigned wanted = STATX_SIZE | STATX_BLOCKS | (time ? STATX_MTIME : 0);
    if (statx(view->fd, "", AT_EMPTY_PATH, wanted, &st))
        return -errno;
    out->size = st.stx_size;
    out->allocated = st.stx_blocks * 512;
    out->mtime_ns = time ? (uint64_t)st.stx_mtime.tv_sec * NS_PER_S + st.stx_mtime.tv_nsec : 0;
    return 0;
}

/* The data segments of the file. -E2BIG: too many. */
static int find_segments(const struct staging *staging, uint64_t size, struct ranges *out)
{
    int fd = staging->file->fd;
    for (off_t at = 0; (uint64_t)at < size;) {
        off_t from = lseek(fd, at, SEEK_DATA);
        if (from < 0)
            return errno == ENXIO ? 0 : -errno;
        off_t to = lseek(fd, from, SEEK_HOLE);
        if (to < 0)
            return -errno;
        uint64_t end = MIN((uint64_t)to, size);
        if (out->count == SEGMENTS_MAX)
            return -E2BIG;
        int rc = (uint64_t)from < end
                     ? ranges_set(out, (uint64_t)from, end - (uint64_t)from, staging->epoch, false)
                     : 0;
        if (rc)
            return rc;
        at = to;
    }
    return 0;
}

static bool same_ranges(const struct ranges *a, const struct ranges *b)
{
    bool same = a->count == b->count;
    for (size_t i = 0; same && i < a->count; i++)
        same = a->items[i].offset == b->items[i].offset &&
               a->items[i].length == b->items[i].length && a->items[i].hole == b->items[i].hole;
    return same;
}

int staging_take(struct staging *staging, uint64_t mtime_ns, bool time_dirty)
{
    struct staging_look look;
    int rc = staging_view_look(staging->file, false, &look);
    if (rc)
        return rc;
    uint64_t size = look.size;
    struct ranges found = {0};
    rc = -E2BIG;
    if (look.allocated < size)
        rc = find_segments(staging, size, &found);
    if (rc == -E2BIG) {
        ranges_done(&found);
        rc = size ? ranges_set(&found, 0, size, staging->epoch, false) : 0;
    }
    if (rc) {
        ranges_done(&found);
        return rc;
    }
    bool logged = size == staging->size && time_dirty == staging->time_dirty &&
                  same_ranges(&found, &staging->ranges);
    ranges_done(&staging->ranges);
    staging->ranges = found;
    staging->size = size;
    staging->mtime_ns = mtime_ns;
    staging->time_dirty = time_dirty;
    if (!logged) {
        const struct staging_range *first = found.items;
        rc = found.count == 1 ? staging_file_append(staging, first->offset, first->length, false)
                              : staging_file_rewrite(staging);
    }
    staging_charge(staging);
    return rc;
}

bool staging_view_is_alone(struct staging_view *view)
{
    /* A lease for writing is given to the only one who has the file open, ... */
    if (fcntl(view->fd, F_SETLEASE, F_WRLCK) == 0) {
        fcntl(view->fd, F_SETLEASE, F_UNLCK);
        return true;
    }
    /* ... and one for reading, while nobody has it open for writing: we must not, either. */
    char path[64];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", view->fd);
    cleanup(close_fd) int reader = open(path, O_RDONLY | O_CLOEXEC);
    if (reader < 0 || dup3(reader, view->fd, O_CLOEXEC) < 0)
        return false;
    bool alone = fcntl(reader, F_SETLEASE, F_RDLCK) == 0;
    if (alone)
        fcntl(reader, F_SETLEASE, F_UNLCK);
    cleanup(close_fd) int writer = open(path, O_RDWR | O_CLOEXEC);
    return writer >= 0 && dup3(writer, view->fd, O_CLOEXEC) >= 0 && alone;
}

static int copy_range(int from, int to, uint64_t offset, uint64_t length)
{
    off_t in = (off_t)offset, out = (off_t)offset;
    while (length > 0) {
        ssize_t n = copy_file_range(from, &in, to, &out, length, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            return 0; /* it was cut meanwhile */
        length -= (uint64_t)n;
    }
    return 0;
}

int staging_part_from_others(struct staging *staging)
{
    char old_name[STAGING_NAME_MAX];
    staging_data_name(staging->ino, staging->data_number, old_name);
    uint64_t old_number = staging->data_number;
    /* The log says which of the two counts, also after a power loss. */
    bool safe = staging->flags & STAGING_LOCAL;
    staging_file_end_alone(staging);
    int rc = safe ? staging_sync_now(staging) : staging_file_need_log(staging);
    if (rc)
        return rc;
    cleanup(close_fd) int fd = staging_file_make_data(staging, false);
    rc = fd < 0 ? fd : 0;
    for (size_t i = 0; !rc && i < staging->ranges.count; i++)
        rc = copy_range(staging->file->fd, fd, staging->ranges.items[i].offset,
                        staging->ranges.items[i].length);
    if (!rc && ftruncate(fd, (off_t)staging->size))
        rc = -errno;
    if (!rc && safe && fdatasync(fd))
        rc = -errno;
    /* The header names the new file from here on. */
    if (!rc)
        rc = staging_set_flags(staging, staging->flags);
    if (!rc && safe && fdatasync(staging->log_fd))
        rc = -errno;
    if (rc) {
        char name[STAGING_NAME_MAX];
        staging_data_name(staging->ino, staging->data_number, name);
        staging->data_number = old_number;
        staging_set_flags(staging, staging->flags);
        unlinkat(staging->area->dir_fd, name, 0);
        return rc;
    }
    unlinkat(staging->area->dir_fd, old_name, 0);
    return dup3(fd, staging->file->fd, O_CLOEXEC) < 0 ? -errno : 0;
}

int staging_take_alone(struct staging *staging)
{
    struct staging_look look;
    int rc = staging_view_look(staging->file, true, &look);
    if (!rc && look.size > 0)
        rc = staging_take(staging, look.mtime_ns, true);
    /* Programs that outlived their mount may write on. */
    if (!rc && staging->size > 0 && !staging_view_is_alone(staging->file))
        rc = staging_part_from_others(staging);
    return rc;
}

int staging_take_left(struct staging *staging, bool other_boot)
{
    struct staging_look look;
    int rc = staging_view_look(staging->file, true, &look);
    if (rc)
        return rc;
    uint64_t size = look.size;
    if (other_boot) {
        /* What was synced counts, but not what was cut since. */
        if (size < staging->size) {
            rc = ranges_clear(&staging->ranges, size, UINT64_MAX - size, UINT64_MAX);
            staging->size = size;
        }
        staging->flags &= ~(uint32_t)STAGING_SHARED;
        return rc;
    }
    bool newer = size != staging->size || look.mtime_ns > staging->mtime_ns;
    rc = staging_take(staging, newer ? look.mtime_ns : staging->mtime_ns,
                      newer || staging->time_dirty);
    /* Programs that outlived their mount may write on. */
    if (!rc && !staging_view_is_alone(staging->file))
        rc = staging_part_from_others(staging);
    return rc ? rc : staging_unshare(staging);
}
