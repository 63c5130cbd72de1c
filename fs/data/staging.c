#include "staging.h"

#include <assert.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "staging_impl.h"

/* A flush is asked for long before; this only bounds memory. */
#define STAGING_RANGES_MAX 200000u
/* Free space on the local disk: looked at so often, and so much of it is left to others. */
#define MEASURE_MS 50
#define RESERVE_SHARE 4
#define RESERVE_MAX (1ull << 30)
/* On a disk with less than that so much is tried all the same: it fails with ENOSPC, or not. */
#define ROOM_MIN (16ull << 20)
#define SUMS_AT_ONCE 256 /* blocks */
#define DESCRIPTORS_OTHERS 1024

static int read_boot_id(char id[STAGING_BOOT_ID + 1])
{
    cleanup(close_fd) int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (read(fd, id, STAGING_BOOT_ID) != STAGING_BOOT_ID)
        return -EIO;
    id[STAGING_BOOT_ID] = 0;
    return 0;
}

static int make_path(const char *path)
{
    char *copy = strdup(path);
    if (!copy)
        return -ENOMEM;
    int rc = 0;
    for (char *p = copy + 1;; p++) {
        if (*p && *p != '/')
            continue;
        char end = *p;
        *p = 0;
        if (mkdir(copy, 0700) && errno != EEXIST) {
            rc = -errno;
            break;
        }
        if (!end)
            break;
        *p = end;
    }
    free(copy);
    return rc;
}

/* The rest is for the store, the database and the cache, which a flush needs: without them nothing
 * would ever give a descriptor back. */
static uint64_t files_max(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur == RLIM_INFINITY)
        return UINT64_MAX;
    uint64_t others = MIN((uint64_t)limit.rlim_cur / 2, (uint64_t)DESCRIPTORS_OTHERS);
    return MAX((limit.rlim_cur - others) / 2, (uint64_t)1);
}

static int area_lock(struct staging_area *area, const char *path, struct error *error)
{
    area->dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (area->dir_fd < 0)
        return error_set(error, -errno, "staging directory %s: %s", path, strerror(errno));
    area->lock_fd = openat(area->dir_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (area->lock_fd < 0)
        return error_set(error, -errno, "staging directory %s: %s", path, strerror(errno));
    if (flock(area->lock_fd, LOCK_EX | LOCK_NB)) {
        int rc = errno == EWOULDBLOCK ? -EBUSY : -errno;
        return error_set(error, rc, "staging directory %s is used by another process", path);
    }
    return 0;
}

int staging_area_open(const char *path, uint64_t max_bytes, uint32_t inline_max,
                      struct staging_area **out, struct error *error)
{
    int rc = make_path(path);
    if (rc)
        return error_set(error, rc, "staging directory %s: %s", path, strerror(-rc));
    struct staging_area *area = calloc(1, sizeof(*area));
    if (!area)
        return error_set(error, -ENOMEM, "staging directory %s: no memory", path);
    area->dir_fd = area->lock_fd = -1;
    area->max_bytes = max_bytes;
    area->max_files = files_max();
    atomic_init(&area->next_number, clock_wall_ns());
    atomic_init(&area->limit, max_bytes);
    rc = area_lock(area, path, error);
    if (!rc && (rc = read_boot_id(area->boot_id)))
        error_set(error, rc, "boot id: %s", strerror(-rc));
    if (!rc && (rc = pool_new(&area->closer, "staging-close", 1)))
        error_set(error, rc, "staging thread: %s", strerror(-rc));
    if (rc) {
        staging_area_close(area);
        return rc;
    }
    area->names_with_data = staging_names_come_with_data(area->dir_fd);
    rc = small_area_open(area, inline_max, &area->small);
    if (rc)
        log_warn("no area for small files", "directory=%s error=%s", path, strerror(-rc));
    *out = area;
    return 0;
}

void staging_area_close(struct staging_area *area)
{
    if (!area)
        return;
    pool_free(area->closer);
    small_area_close(area->small);
    if (area->lock_fd >= 0)
        close(area->lock_fd);
    if (area->dir_fd >= 0)
        close(area->dir_fd);
    free(area);
}

uint64_t staging_area_bytes(struct staging_area *area)
{
    return atomic_load_explicit(&area->bytes, memory_order_relaxed);
}

uint64_t staging_area_scratch(struct staging_area *area)
{
    return atomic_load_explicit(&area->scratch_bytes, memory_order_relaxed);
}

uint64_t staging_area_max(struct staging_area *area)
{
    return atomic_load_explicit(&area->limit, memory_order_relaxed);
}

/* The database shares the disk, and a flush needs it to commit: so staging leaves it room. */
static void measure_room(struct staging_area *area, uint64_t bytes)
{
    struct statvfs st;
    uint64_t now = clock_monotonic_ms();
    uint64_t last = atomic_load_explicit(&area->measured_ms, memory_order_relaxed);
    /* Whoever wins the exchange measures; the others use what was measured before. */
    if (now - last < MEASURE_MS || !atomic_compare_exchange_strong(&area->measured_ms, &last, now))
        return;
    if (fstatvfs(area->dir_fd, &st) < 0)
        return;
    uint64_t total = (uint64_t)st.f_blocks * st.f_frsize;
    uint64_t available = (uint64_t)st.f_bavail * st.f_frsize;
    uint64_t reserve = MIN(total / RESERVE_SHARE, RESERVE_MAX);
    uint64_t room = available > reserve ? available - reserve : 0;
    uint64_t limit = MAX(bytes + room, ROOM_MIN);
    atomic_store_explicit(&area->limit, MIN(limit, area->max_bytes), memory_order_relaxed);
}

bool staging_area_full(struct staging_area *area)
{
    uint64_t bytes = staging_area_bytes(area);
    measure_room(area, bytes);
    return bytes >= atomic_load_explicit(&area->limit, memory_order_relaxed) ||
           atomic_load_explicit(&area->files, memory_order_relaxed) >= area->max_files;
}

bool staging_area_is_crowded(struct staging_area *area)
{
    return atomic_load_explicit(&area->files, memory_order_relaxed) >= area->max_files / 2;
}

struct staging *staging_alloc(struct staging_area *area, uint64_t ino)
{
    struct staging *staging = calloc(1, sizeof(*staging));
    if (!staging)
        return NULL;
    staging->area = area;
    staging->ino = ino;
    staging->epoch = 1;
    staging->truncated_to = UINT64_MAX;
    staging->slot = staging->log_fd = -1;
    return staging;
}

void staging_charge(struct staging *staging)
{
    /* Statistics and limits: no order with other memory is needed. */
    uint64_t change = staging->ranges.bytes - staging->charged;
    atomic_fetch_add_explicit(&staging->area->bytes, change, memory_order_relaxed);
    if (staging->flags & STAGING_SCRATCH)
        atomic_fetch_add_explicit(&staging->area->scratch_bytes, change, memory_order_relaxed);
    staging->charged = staging->ranges.bytes;
}

int staging_call_found(struct staging *staging, uint64_t base_version,
                       int (*found)(void *arg, const struct staging_found *found), void *arg)
{
    staging_charge(staging);
    struct staging_found call = {.ino = staging->ino,
                                 .staging = staging,
                                 .size = staging->size,
                                 .mtime_ns = staging->mtime_ns,
                                 .truncated_to = staging->truncated_to,
                                 .time_dirty = staging->time_dirty,
                                 .flags = staging->flags,
                                 .other_boot = staging->other_boot,
                                 .base_version = base_version};
    return found(arg, &call);
}

enum name_kind { NAME_OTHER, NAME_LOG, NAME_DATA };

static enum name_kind name_kind(const char *name)
{
    size_t len = 0;
    for (; name[len]; len++)
        if (len == 16 ? name[len] != '-'
                      : !isxdigit((unsigned char)name[len]) || isupper((unsigned char)name[len]))
            return NAME_OTHER;
    return len == 16 ? NAME_LOG : len == 33 ? NAME_DATA : NAME_OTHER;
}

static int list_area(const struct staging_area *area, DIR **out)
{
    int fd = openat(area->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    *out = fd < 0 ? NULL : fdopendir(fd);
    if (*out)
        return 0;
    int rc = -errno;
    if (fd >= 0)
        close(fd);
    return rc;
}

struct data_name {
    char name[STAGING_NAME_MAX];
};

static int newest_first(const void *a, const void *b)
{
    return strcmp(b, a);
}

static int list_data(struct staging_area *area, struct data_name **out, size_t *count)
{
    DIR *dir;
    size_t cap = 0;
    int rc = list_area(area, &dir);
    if (rc)
        return rc;
    for (struct dirent *entry; !rc && (entry = readdir(dir));) {
        if (name_kind(entry->d_name) != NAME_DATA)
            continue;
        if (*count == cap) {
            cap = cap ? cap * 2 : 64;
            struct data_name *more = realloc(*out, cap * sizeof(**out));
            rc = more ? 0 : -ENOMEM;
            *out = more ? more : *out;
        }
        if (!rc)
            memcpy((*out)[(*count)++].name, entry->d_name, strlen(entry->d_name) + 1);
    }
    closedir(dir);
    if (*count)
        qsort(*out, *count, sizeof(**out), newest_first);
    return rc;
}

/* Files of bytes without a log: those that say all by themselves, of an inode's the newest. */
static int recover_data(struct staging_area *area,
                        int (*found)(void *arg, const struct staging_found *found), void *arg)
{
    struct data_name *names = NULL;
    size_t count = 0;
    int rc = list_data(area, &names, &count);
    for (size_t i = 0; !rc && i < count; i++)
        rc = staging_file_recover_data(area, names[i].name, found, arg);
    free(names);
    return rc;
}

int staging_recover(struct staging_area *area,
                    int (*found)(void *arg, const struct staging_found *found), void *arg,
                    uint64_t *discarded)
{
    DIR *dir;
    int rc = list_area(area, &dir);
    if (rc)
        return rc;
    for (struct dirent *entry; !rc && (entry = readdir(dir));)
        if (name_kind(entry->d_name) == NAME_LOG)
            rc = staging_file_recover(area, entry->d_name, found, arg);
    closedir(dir);
    if (!rc)
        rc = small_area_recover(area, found, arg);
    /* After the slots: who died while one became a file has all in the slot. */
    if (!rc)
        rc = recover_data(area, found, arg);
    *discarded = area->discarded;
    return rc;
}

int staging_new(struct staging_area *area, uint64_t ino, uint64_t size, struct staging **out)
{
    return staging_new_class(area, ino, size, 0, 0, out);
}

int staging_new_class(struct staging_area *area, uint64_t ino, uint64_t size, uint32_t flags,
                      uint64_t base_version, struct staging **out)
{
    struct staging *staging = staging_alloc(area, ino);
    if (!staging)
        return -ENOMEM;
    bool fresh = flags & STAGING_FRESH;
    staging->size = size;
    staging->flags = flags & ~(uint32_t)STAGING_FRESH;
    staging->base_version = base_version;
    staging->fresh = fresh && base_version == STAGING_FIRST_VERSION && size == 0;
    if (area->small && !(flags & STAGING_SCRATCH))
        staging->slot = small_take(area->small);
    if (staging->slot < 0) {
        int rc = staging_file_create(staging);
        if (rc) {
            free(staging);
            return rc;
        }
    }
    *out = staging;
    return 0;
}

static void close_task_run(struct pool_task *task)
{
    struct staging_view *view = container_of(task, struct staging_view, close_task);
    close(view->fd);
    if (view->log_fd >= 0)
        close(view->log_fd);
    atomic_fetch_sub_explicit(&view->area->files, 1, memory_order_relaxed);
    free(view);
}

void staging_view_put(struct staging_view *view)
{
    if (!view || atomic_fetch_sub_explicit(&view->refs, 1, memory_order_acq_rel) != 1)
        return;
    view->close_task.run = close_task_run;
    pool_submit(view->area->closer, &view->close_task);
}

struct staging_view *staging_view_get(struct staging *staging)
{
    if (staging->file)
        atomic_fetch_add_explicit(&staging->file->refs, 1, memory_order_relaxed);
    return staging->file;
}

bool staging_in_file(const struct staging *staging)
{
    return staging->file != NULL;
}

void staging_sum_parts(struct staging *staging, uint32_t part_bytes)
{
    part_sums_init(&staging->sums, part_bytes);
}

void staging_set_base(struct staging *staging, uint64_t base_version)
{
    staging->base_version = base_version;
}

int staging_set_flags(struct staging *staging, uint32_t flags)
{
    int64_t scratch =
        (flags & STAGING_SCRATCH ? 1 : 0) - (staging->flags & STAGING_SCRATCH ? 1 : 0);
    atomic_fetch_add(&staging->area->scratch_bytes, (uint64_t)scratch * staging->charged);
    staging->flags = flags;
    if (!(flags & STAGING_LOCAL))
        staging_file_end_alone(staging);
    return staging->file ? staging_file_flags(staging) : 0;
}

void staging_sum_pages(struct staging *staging)
{
    staging->sums_pages = true;
}

bool staging_part_sum(const struct staging *staging, unsigned index, uint64_t length,
                      uint32_t *crc32c)
{
    return staging->sums.part_bytes && part_sums_get(&staging->sums, index, length, crc32c);
}

static void sums_forget(struct staging *staging, uint64_t offset, uint64_t length)
{
    if (staging->sums.part_bytes)
        part_sums_forget(&staging->sums, offset, length);
    if (staging->sums_pages)
        page_sums_forget(&staging->pages, offset, length);
}

void staging_leave(struct staging *staging)
{
    if (!staging)
        return;
    staging_view_put(staging->file);
    page_sums_done(&staging->pages);
    ranges_done(&staging->ranges);
    ranges_done(&staging->trims);
    part_sums_done(&staging->sums);
    staging_charge(staging);
    free(staging);
}

void staging_free(struct staging *staging)
{
    if (!staging)
        return;
    if (staging->file)
        staging_file_remove(staging, true);
    else if (staging->slot >= 0)
        small_put(staging->area->small, staging->slot);
    staging_leave(staging);
}

void staging_give(struct staging *staging, uint64_t size, struct staging_gift *out)
{
    assert(staging->file && staging->ranges.count == 0);
    *out = (struct staging_gift){.view = staging->file,
                                 .alone = atomic_load(&staging->file->refs) == 1,
                                 .dir_fd = staging->area->dir_fd,
                                 .size = size};
    staging_data_name(staging->ino, staging->data_number, out->name);
    page_sums_end(&staging->pages, size);
    out->sum_count = staging->pages.count;
    out->sums = TAKE_PTR(staging->pages.pages);
    staging_file_remove(staging, false);
    staging->file = NULL;
    staging_leave(staging);
}

/* A write past the slot, or a state that does not fit in one, moves to a file. */
static int leave_slot_for(struct staging *staging, uint64_t end)
{
    if (staging->slot < 0 || end <= small_capacity(staging->area->small))
        return 0;
    return staging_file_create(staging);
}

/* Memory has the new state; now the slot or the log. */
static int record_write(struct staging *staging, uint64_t offset, uint64_t length, bool zero)
{
    if (staging->slot >= 0) {
        if (small_store(staging))
            return 0;
        return staging_file_create(staging);
    }
    return staging_file_append(staging, offset, length, zero);
}

static int record_state(struct staging *staging)
{
    if (staging->slot >= 0) {
        if (small_store(staging))
            return 0;
        return staging_file_create(staging);
    }
    return staging_file_state(staging);
}

static int64_t copy_in(struct staging *staging, struct fuse_bufvec *in, uint64_t offset,
                       uint64_t length)
{
    struct fuse_bufvec to = FUSE_BUFVEC_INIT(length);
    if (staging->slot >= 0) {
        to.buf[0].mem = small_bytes(staging->area->small, staging->slot) + offset;
    } else {
        to.buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK | FUSE_BUF_FD_RETRY;
        to.buf[0].fd = staging->file->fd;
        to.buf[0].pos = (off_t)offset;
    }
    ssize_t n = fuse_buf_copy(&to, in, 0);
    if (n < 0)
        return n;
    return (uint64_t)n == length ? n : -ENOSPC;
}

/* Both kinds of sums, where they are kept, of one reading of the bytes. */
static void sum_written(struct staging *staging, uint64_t offset, const char *bytes,
                        uint64_t length)
{
    uint32_t sums[SUMS_AT_ONCE];
    bool parts = staging->sums.part_bytes, pages = staging->sums_pages;
    const uint32_t *blocks = parts && pages && offset % HASH_BLOCK == 0 ? sums : NULL;
    for (uint64_t step; length > 0 && (parts || pages); length -= step) {
        step = MIN(length, (uint64_t)SUMS_AT_ONCE * HASH_BLOCK);
        for (size_t i = 0; blocks && i < step / HASH_BLOCK; i++)
            sums[i] = hash_crc32c(0, bytes + i * HASH_BLOCK, HASH_BLOCK);
        if (parts)
            part_sums_write(&staging->sums, offset, bytes, step, blocks);
        if (pages)
            page_sums_write(&staging->pages, offset, bytes, step, blocks);
        bytes += step;
        offset += step;
    }
}

int64_t staging_write(struct staging *staging, struct fuse_bufvec *in, uint64_t offset,
                      uint64_t mtime_ns)
{
    uint64_t length = fuse_buf_size(in);
    if (length == 0)
        return 0;
    if (staging->ranges.count >= STAGING_RANGES_MAX)
        return -ENOSPC;
    int rc = leave_slot_for(staging, offset + length);
    if (rc)
        return rc;
    bool memory = in->count == 1 && !(in->buf[0].flags & FUSE_BUF_IS_FD);
    const char *bytes = memory ? (const char *)in->buf[0].mem + in->off : NULL;
    if (!memory)
        sums_forget(staging, offset, length);
    int64_t n = copy_in(staging, in, offset, length);
    if (n < 0) {
        sums_forget(staging, offset, length);
        /* What was written of it must not count by itself. */
        if (staging->alone && ftruncate(staging->file->fd, (off_t)staging->size))
            staging_file_end_alone(staging);
        return n;
    }
    if (memory)
        sum_written(staging, offset, bytes, length);
    uint64_t old_size = staging->size, old_mtime = staging->mtime_ns;
    /* The log says it already: then a sync needs the bytes only. (The time is that of the first
     * write, after a crash.) */
    bool logged = staging->flags & STAGING_LOCAL && staging->file && staging->time_dirty &&
                  offset + length <= staging->size &&
                  staging_reach(staging, offset) >= offset + length;
    rc = ranges_set(&staging->ranges, offset, length, staging->epoch, false);
    if (rc)
        return rc;
    staging->size = MAX(staging->size, offset + length);
    staging->mtime_ns = mtime_ns;
    staging->time_dirty = true;
    rc = logged ? 0 : record_write(staging, offset, length, false);
    if (rc) {
        staging->size = old_size;
        staging->mtime_ns = old_mtime;
        ranges_clear(&staging->ranges, old_size, UINT64_MAX - old_size, UINT64_MAX);
        n = rc;
    }
    staging_charge(staging);
    return n;
}

int staging_write_bytes(struct staging *staging, const void *bytes, uint64_t offset,
                        uint64_t length, uint64_t mtime_ns)
{
    struct fuse_bufvec in = FUSE_BUFVEC_INIT(length);
    in.buf[0].mem = (void *)(uintptr_t)bytes;
    int64_t n = staging_write(staging, &in, offset, mtime_ns);
    return n < 0 ? (int)n : 0;
}

int staging_zero(struct staging *staging, uint64_t offset, uint64_t length, uint64_t mtime_ns)
{
    if (length == 0)
        return 0;
    if (staging->ranges.count >= STAGING_RANGES_MAX)
        return -ENOSPC;
    /* Hole ranges live in files only: a slot is too short for more than a few ranges. */
    int rc = staging->slot >= 0 ? staging_file_create(staging) : 0;
    if (rc)
        return rc;
    staging_file_end_alone(staging);
    rc = ranges_set(&staging->ranges, offset, length, staging->epoch, true);
    if (rc)
        return rc;
    sums_forget(staging, offset, length);
    staging->mtime_ns = mtime_ns;
    staging->time_dirty = true;
    rc = staging_file_append(staging, offset, length, true);
    /* The bytes go after the log says that they are zeros. */
    if (!rc)
        fallocate(staging->file->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
                  (off_t)length);
    staging_charge(staging);
    return rc;
}

/* What a cut leaves, as memory and log have it; *before: what was, if it cannot be recorded. */
static int cut_ranges(struct staging *staging, uint64_t size, struct ranges *before)
{
    struct ranges left;
    int rc = ranges_copy(&staging->ranges, &left);
    if (!rc)
        rc = ranges_clear(&left, size, UINT64_MAX - size, UINT64_MAX);
    if (rc) {
        ranges_done(&left);
        return rc;
    }
    *before = staging->ranges;
    staging->ranges = left;
    staging->truncated_to = MIN(staging->truncated_to, size);
    sums_forget(staging, size, UINT64_MAX - size);
    return 0;
}

int staging_set_size(struct staging *staging, uint64_t size, uint64_t mtime_ns)
{
    uint64_t old_size = staging->size, old_mtime = staging->mtime_ns;
    uint64_t old_cut = staging->truncated_to;
    bool old_dirty = staging->time_dirty, cut = size < old_size;
    struct ranges before = {0};
    staging_file_end_alone(staging);
    int rc = cut ? cut_ranges(staging, size, &before) : 0;
    if (rc)
        return rc;
    staging->size = size;
    staging->mtime_ns = mtime_ns;
    staging->time_dirty = true;
    rc = record_state(staging);
    if (rc) {
        /* The cut did not happen: nothing that was acknowledged goes. */
        staging->size = old_size;
        staging->mtime_ns = old_mtime;
        staging->truncated_to = old_cut;
        staging->time_dirty = old_dirty;
        if (cut) {
            ranges_done(&staging->ranges);
            staging->ranges = before;
        }
        return rc;
    }
    ranges_done(&before);
    if (cut && staging->file)
        rc = ranges_set(&staging->trims, size, old_size - size, 0, false);
    if (staging->file)
        staging_file_trim(staging);
    staging_charge(staging);
    return rc;
}

int staging_set_time(struct staging *staging, uint64_t mtime_ns)
{
    staging_file_end_alone(staging);
    staging->mtime_ns = mtime_ns;
    staging->time_dirty = false;
    return record_state(staging);
}

uint64_t staging_freeze(struct staging *staging)
{
    staging_file_end_alone(staging);
    return staging->epoch++;
}

void staging_clean(struct staging *staging, uint64_t offset, uint64_t length, uint64_t epoch)
{
    staging_file_end_alone(staging);
    /* Without memory the range stays dirty and is committed again: no harm. */
    if (ranges_clear(&staging->ranges, offset, length, epoch) == 0 && staging->file)
        ranges_set(&staging->trims, offset, length, 0, false);
    staging_charge(staging);
}

int staging_committed(struct staging *staging, uint64_t truncated_to, bool time_dirty)
{
    staging_file_end_alone(staging);
    staging->truncated_to = truncated_to;
    staging->time_dirty = time_dirty;
    if (staging->slot >= 0)
        return record_state(staging);
    int rc = staging_file_rewrite(staging);
    if (!rc)
        staging_file_trim(staging);
    return rc;
}

bool staging_newer(const struct staging *staging, uint64_t offset, uint64_t length, uint64_t epoch)
{
    const struct ranges *set = &staging->ranges;
    for (size_t i = ranges_find(set, offset);
         i < set->count && set->items[i].offset < offset + length; i++)
        if (set->items[i].epoch > epoch)
            return true;
    return false;
}

bool staging_next(const struct staging *staging, uint64_t offset, struct staging_range *out)
{
    size_t i = ranges_find(&staging->ranges, offset);
    if (i == staging->ranges.count)
        return false;
    *out = staging->ranges.items[i];
    return true;
}

unsigned staging_count(const struct staging *staging)
{
    return (unsigned)staging->ranges.count;
}

uint64_t staging_dirty_bytes(const struct staging *staging)
{
    return staging->ranges.bytes;
}

bool staging_covers(const struct staging *staging, uint64_t offset, uint64_t length)
{
    const struct ranges *set = &staging->ranges;
    uint64_t end = offset + length;
    for (size_t i = ranges_find(set, offset); offset < end; i++) {
        if (i == set->count || set->items[i].offset > offset)
            return false;
        offset = set->items[i].offset + set->items[i].length;
    }
    return true;
}

uint64_t staging_reach(const struct staging *staging, uint64_t offset)
{
    const struct ranges *set = &staging->ranges;
    for (size_t i = ranges_find(set, offset);
         i < set->count && set->items[i].offset <= offset && !set->items[i].hole; i++)
        offset = set->items[i].offset + set->items[i].length;
    return offset;
}

int staging_read(struct staging *staging, uint64_t offset, uint64_t length, void *buf)
{
    if (staging->file)
        return staging_view_read(staging->file, offset, length, buf);
    uint32_t capacity = small_capacity(staging->area->small);
    assert(offset <= capacity && length <= capacity - offset);
    memcpy(buf, small_bytes(staging->area->small, staging->slot) + offset, length);
    return 0;
}
