/*
 * A staging in files: one with the bytes, each at its own offset, sparse; and the log: 4 KiB of
 * header, then two halves of records. The header names the file of the bytes. It is made before the
 * log, and removed after it: without a log its bytes count for nothing.
 *
 * But for a new file of the class local, while nothing but writes happens to it: its bytes stand
 * where they belong, and there is nothing else to say. It has no log, and a number that says so
 * (STAGING_ALONE), until an upload reads it, or it is changed in another way.
 *
 * The log is a sequence of records of 64 bytes; each carries the size and times of the file too. A
 * sequential write rewrites the last record. When a half is full, or a commit has cleaned ranges,
 * the state is written as a new log to the other half, and then the header is pointed at it: a
 * record counts only if it has the generation of the header. Bytes are written before their record,
 * and dropped only after a log without them stands.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "staging_impl.h"
#include "staging_log.h"

#define FILE_LOG_START (1ull << 20)
#define FILE_LOG_HALF (31ull << 20)
#define LOG_RECORDS (FILE_LOG_HALF / sizeof(struct staging_record))

static void log_name(uint64_t ino, char name[STAGING_NAME_MAX])
{
    snprintf(name, STAGING_NAME_MAX, "%016llx", (unsigned long long)ino);
}

void staging_data_name(uint64_t ino, uint64_t number, char name[STAGING_NAME_MAX])
{
    snprintf(name, STAGING_NAME_MAX, "%016llx-%016llx", (unsigned long long)ino,
             (unsigned long long)number);
}

static int write_all(int fd, const void *data, size_t len, uint64_t offset)
{
    const char *p = data;
    while (len) {
        ssize_t n = pwrite(fd, p, len, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -ENOSPC;
        p += n;
        len -= (size_t)n;
        offset += (size_t)n;
    }
    return 0;
}

static uint64_t record_offset(uint64_t generation, uint32_t index)
{
    return FILE_LOG_START + (generation & 1) * FILE_LOG_HALF +
           index * sizeof(struct staging_record);
}

static int log_append(struct staging *staging, enum staging_record_kind kind, uint64_t offset,
                      uint64_t length)
{
    struct staging_record record;
    if (staging->log_fd < 0) {
        staging->log_changes++;
        return staging->alone ? 0 : staging_file_need_log(staging); /* memory has it already */
    }
    uint32_t at = staging->log_count;
    uint64_t start = offset;
    bool longer = kind == LOG_WRITE && staging->log_last_write && staging->log_last_end == offset;
    if (longer) {
        at--;
        start = staging->log_last_offset;
        length += offset - start;
    } else if (at >= LOG_RECORDS - (kind != LOG_SYNC)) {
        return staging_file_rewrite(staging); /* memory has the new range already */
    }
    staging_record_fill(&record, staging, kind, start, length);
    int rc = write_all(staging->log_fd, &record, sizeof(record),
                       record_offset(staging->log_generation, at));
    if (rc)
        return rc;
    staging->log_count = at + 1;
    staging->log_changes += kind != LOG_SYNC;
    staging->log_last_write = kind == LOG_WRITE;
    staging->log_last_offset = start;
    staging->log_last_end = start + length;
    return 0;
}

int staging_file_append(struct staging *staging, uint64_t offset, uint64_t length, bool zero)
{
    return log_append(staging, zero ? LOG_ZERO : LOG_WRITE, offset, length);
}

int staging_file_state(struct staging *staging)
{
    return log_append(staging, LOG_STATE, 0, 0);
}

int staging_file_append_sync(struct staging *staging, uint32_t count)
{
    if (staging->log_count == LOG_RECORDS)
        return -EAGAIN;
    int rc = log_append(staging, LOG_SYNC, count, 0);
    staging->power_safe |= !rc;
    return rc;
}

bool staging_file_is_synced(const struct staging *staging)
{
    return staging->synced_generation == staging->log_generation &&
           staging->synced_changes == staging->log_changes;
}

static int header_write(struct staging *staging)
{
    struct staging_header header;
    staging_header_fill(&header, staging, staging->area->boot_id);
    return write_all(staging->log_fd, &header, sizeof(header), 0);
}

/* The whole state as a log in the half that is not used now, then the header. */
static int log_write_whole(struct staging *staging, bool durable)
{
    const struct ranges *set = &staging->ranges;
    if (set->count + 1 > LOG_RECORDS)
        return -ENOSPC;
    /* The other half has the only log that survives a power loss. */
    if (staging->power_safe && staging->synced_generation + 1 == staging->log_generation) {
        int rc = staging_sync_now(staging);
        if (rc)
            return rc;
    }
    struct staging_record *records = malloc((set->count + 1) * sizeof(*records));
    if (!records)
        return -ENOMEM;
    uint64_t before = staging->log_generation++;
    uint32_t n = 0;
    staging_record_fill(&records[n++], staging, LOG_STATE, 0, 0);
    for (size_t i = 0; i < set->count; i++) {
        const struct staging_range *r = &set->items[i];
        staging_record_fill(&records[n++], staging, r->hole ? LOG_ZERO : LOG_WRITE, r->offset,
                            r->length);
    }
    int rc = write_all(staging->log_fd, records, n * sizeof(*records),
                       record_offset(staging->log_generation, 0));
    free(records);
    if (!rc && durable && fdatasync(staging->log_fd))
        rc = -errno;
    if (!rc)
        rc = header_write(staging);
    if (rc) {
        staging->log_generation = before;
        return rc;
    }
    staging->log_count = n;
    staging->log_changes++;
    staging->log_last_write = false;
    return 0;
}

int staging_file_rewrite(struct staging *staging)
{
    if (staging->log_fd >= 0)
        return log_write_whole(staging, false);
    staging->log_changes++;
    return staging->alone ? 0 : staging_file_need_log(staging);
}

int staging_file_flags(struct staging *staging)
{
    if (staging->log_fd >= 0)
        return header_write(staging);
    return staging->alone ? 0 : staging_file_need_log(staging);
}

static int copy_slot(struct staging *staging, int fd)
{
    const uint8_t *bytes = small_bytes(staging->area->small, staging->slot);
    for (size_t i = 0; i < staging->ranges.count; i++) {
        const struct staging_range *r = &staging->ranges.items[i];
        if (r->hole || r->offset + r->length > small_capacity(staging->area->small))
            continue; /* the range that did not fit; its bytes follow */
        int rc = write_all(fd, bytes + r->offset, r->length, r->offset);
        if (rc)
            return rc;
    }
    return 0;
}

/* A new file of the name that `name` says after it. */
static int create(struct staging_area *area, const char *name)
{
    int flags = O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC;
    int fd = openat(area->dir_fd, name, flags, 0600);
    if (fd < 0 && errno == EEXIST) {
        unlinkat(area->dir_fd, name, 0);
        fd = openat(area->dir_fd, name, flags, 0600);
    }
    return fd < 0 ? -errno : fd;
}

static int create_log(struct staging *staging)
{
    char name[STAGING_NAME_MAX];
    log_name(staging->ino, name);
    int fd = create(staging->area, name);
    if (fd < 0)
        return fd;
    staging->log_fd = fd;
    int rc = log_write_whole(staging, false);
    if (rc) {
        unlinkat(staging->area->dir_fd, name, 0);
        close(staging->log_fd);
        staging->log_fd = -1;
    }
    return rc;
}

int staging_file_need_log(struct staging *staging)
{
    if (staging->log_fd >= 0)
        return 0;
    int rc = create_log(staging);
    if (!rc && staging->file)
        staging->file->log_fd = staging->log_fd;
    return rc;
}

void staging_file_end_alone(struct staging *staging)
{
    staging->fresh = false;
    if (!staging->alone)
        return;
    staging->alone = false;
    staging->log_changes++;
    int rc = staging_file_need_log(staging);
    if (rc)
        log_warn("the log of a staging cannot be written", "ino=%llu error=%s",
                 (unsigned long long)staging->ino, strerror(-rc));
}

/* The bytes say all there is to say. */
static bool can_be_alone(const struct staging *staging)
{
    const struct ranges *set = &staging->ranges;
    const struct staging_range *last = set->count ? &set->items[set->count - 1] : NULL;
    return staging->fresh && staging->flags == STAGING_LOCAL &&
           staging->truncated_to == UINT64_MAX &&
           staging->size == (last ? last->offset + last->length : 0);
}

int staging_file_make_data(struct staging *staging, bool alone)
{
    char name[STAGING_NAME_MAX];
    staging->data_number = atomic_fetch_add(&staging->area->next_number, 1);
    staging->data_number |= alone ? STAGING_ALONE : 0;
    staging_data_name(staging->ino, staging->data_number, name);
    return create(staging->area, name);
}

int staging_file_create(struct staging *staging)
{
    struct staging_area *area = staging->area;
    struct staging_view *file = calloc(1, sizeof(*file));
    if (!file)
        return -ENOMEM;
    bool alone = can_be_alone(staging);
    cleanup(close_fd) int fd = staging_file_make_data(staging, alone);
    int rc = fd < 0 ? fd : 0;
    if (!rc && staging->slot >= 0)
        rc = copy_slot(staging, fd);
    if (!rc && !alone)
        rc = create_log(staging);
    if (rc) {
        char name[STAGING_NAME_MAX];
        staging_data_name(staging->ino, staging->data_number, name);
        if (fd >= 0)
            unlinkat(area->dir_fd, name, 0);
        free(file);
        return rc;
    }
    *file = (struct staging_view){
        .area = area, .fd = TAKE_FD(fd), .log_fd = staging->log_fd, .refs = 1};
    staging->file = file;
    atomic_fetch_add_explicit(&area->files, 1, memory_order_relaxed);
    staging->alone = alone;
    if (staging->slot >= 0)
        small_put(area->small, staging->slot);
    staging->slot = -1;
    return 0;
}

void staging_file_remove(struct staging *staging, bool data)
{
    struct staging_area *area = staging->area;
    char log[STAGING_NAME_MAX], name[STAGING_NAME_MAX];
    log_name(staging->ino, log);
    staging_data_name(staging->ino, staging->data_number, name);
    /* What would count without a log goes before it. */
    bool first = data && staging->data_number & STAGING_ALONE;
    if (first)
        unlinkat(area->dir_fd, name, 0);
    if (staging->log_fd >= 0)
        unlinkat(area->dir_fd, log, 0);
    if (data && !first)
        unlinkat(area->dir_fd, name, 0);
    if (staging->power_safe)
        atomic_fetch_add(&area->logs_removed, 1);
}

/* Gives back to the disk what is neither dirty nor looked at. Gaps between dirty ranges are punched
 * whole: one call for many small ranges. Failing to is no harm. */
void staging_file_trim(struct staging *staging)
{
    struct ranges *trims = &staging->trims;
    if (trims->count == 0 || atomic_load(&staging->file->refs) > 1)
        return;
    /* After a power loss an older log may count. */
    if (staging_needs_sync(staging))
        return;
    size_t dirty = 0, at = 0;
    uint64_t gap = 0;
    for (;;) {
        const struct staging_range *r =
            dirty < staging->ranges.count ? &staging->ranges.items[dirty++] : NULL;
        uint64_t gap_end = r ? r->offset : UINT64_MAX >> 1;
        while (at < trims->count && trims->items[at].offset + trims->items[at].length <= gap)
            at++;
        if (at == trims->count)
            break;
        if (trims->items[at].offset < gap_end && gap < gap_end)
            fallocate(staging->file->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)gap,
                      (off_t)MIN(gap_end - gap, trims->items[trims->count - 1].offset +
                                                    trims->items[trims->count - 1].length - gap));
        if (!r)
            break;
        gap = r->offset + r->length;
    }
    ranges_done(trims);
}

/* Goes through the good records of the log, at most `max`: with `apply` they become the state.
 * *synced: what the last sync record says, *base its version. */
static int log_walk(struct staging *staging, uint32_t max, bool apply, uint32_t *synced,
                    uint64_t *base)
{
    enum { BATCH = 1024 };
    struct staging_record *records = malloc(BATCH * sizeof(*records));
    if (!records)
        return -ENOMEM;
    int rc = 0;
    bool end = false;
    uint32_t at = 0;
    while (!rc && !end && at < max) {
        ssize_t n = pread(staging->log_fd, records, BATCH * sizeof(*records),
                          (off_t)record_offset(staging->log_generation, at));
        if (n < 0) {
            rc = -errno;
            break;
        }
        size_t count = (size_t)n / sizeof(*records);
        end = count < BATCH;
        for (size_t i = 0; i < count && !rc && at < max; i++) {
            const struct staging_record *record = &records[i];
            if (!staging_record_good(record, staging->log_generation)) {
                end = true;
                break;
            }
            if (record->kind == LOG_SYNC && record->offset <= at) {
                *synced = (uint32_t)record->offset;
                *base = record->base_version;
            }
            if (apply)
                rc = staging_record_replay(staging, record);
            at++;
        }
    }
    free(records);
    if (apply)
        staging->log_count = at;
    return rc;
}

/* All that was logged: the process died, the host did not. */
static int log_replay(struct staging *staging)
{
    uint32_t synced = 0;
    uint64_t base = 0;
    int rc = log_walk(staging, LOG_RECORDS, true, &synced, &base);
    if (staging->flags & STAGING_LOCAL) {
        /* Whatever of it may be on the disk: the next sync makes it sure. */
        staging->power_safe = true;
        staging->synced_generation = staging->log_generation - 1;
        staging->log_changes = 1;
    }
    return rc;
}

/* After a power loss: as far as it was synced, in the newer half that has a sync. -ESTALE: never.
 */
static int log_replay_synced(struct staging *staging)
{
    uint64_t newest = staging->log_generation;
    for (unsigned back = 0; back < 2 && newest >= back + 1; back++) {
        uint32_t synced = 0;
        uint64_t base = 0;
        staging->log_generation = newest - back;
        int rc = log_walk(staging, LOG_RECORDS, false, &synced, &base);
        if (!rc && synced)
            rc = log_walk(staging, synced, true, &synced, &base);
        if (!rc && !synced)
            continue;
        staging->base_version = base;
        return rc;
    }
    return -ESTALE;
}

/* -EBADMSG: not finished when its process died: its slot, if any, still counts. -ESTALE: of another
 * boot. */
static int log_check(struct staging_area *area, int fd, const char *name,
                     struct staging_header *header)
{
    char expected[STAGING_NAME_MAX];
    if (pread(fd, header, sizeof(*header), 0) != (ssize_t)sizeof(*header) ||
        !staging_header_good(header))
        return -EBADMSG;
    log_name(header->ino, expected);
    if (strcmp(expected, name) != 0)
        return -EBADMSG;
    return memcmp(header->boot_id, area->boot_id, STAGING_BOOT_ID) ? -ESTALE : 0;
}

/* The log and the bytes. -EBADMSG, -ESTALE as log_check; -ENOENT: without bytes. */
static int open_left(struct staging_area *area, const char *name, struct staging_header *header,
                     int *log_fd, int *data_fd)
{
    char data_name[STAGING_NAME_MAX];
    int flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW;
    *log_fd = openat(area->dir_fd, name, flags);
    if (*log_fd < 0)
        return -errno;
    int rc = log_check(area, *log_fd, name, header);
    if (rc == -EBADMSG)
        return rc;
    staging_data_name(header->ino, header->data_number, data_name);
    *data_fd = openat(area->dir_fd, data_name, flags);
    if (*data_fd < 0)
        return errno == ENOENT ? -EBADMSG : -errno;
    return rc;
}

/* The state that survived becomes one of this boot. The half that it is in stays until the other
 * one is on the disk. */
static int take_over(struct staging *staging, uint64_t newest)
{
    uint64_t from = staging->log_generation;
    /* The next number of the other half, after all that were used. */
    staging->log_generation = newest + ((newest ^ from) & 1);
    int rc = log_write_whole(staging, true);
    return rc ? rc : staging_sync_now(staging);
}

int staging_file_recover(struct staging_area *area, const char *name,
                         int (*found)(void *arg, const struct staging_found *found), void *arg)
{
    struct staging_header header;
    cleanup(close_fd) int log_fd = -1;
    cleanup(close_fd) int fd = -1;
    int rc = open_left(area, name, &header, &log_fd, &fd);
    if (rc == -EBADMSG)
        return unlinkat(area->dir_fd, name, 0) ? -errno : 0;
    if (rc && rc != -ESTALE)
        return rc;
    bool other_boot = rc == -ESTALE;
    struct staging *staging = staging_alloc(area, header.ino);
    struct staging_view *file = calloc(1, sizeof(*file));
    if (!staging || !file) {
        staging_leave(staging);
        free(file);
        return -ENOMEM;
    }
    staging->log_fd = TAKE_FD(log_fd);
    *file = (struct staging_view){
        .area = area, .fd = TAKE_FD(fd), .log_fd = staging->log_fd, .refs = 1};
    staging->file = file;
    atomic_fetch_add_explicit(&area->files, 1, memory_order_relaxed);
    staging->data_number = header.data_number;
    staging->log_generation = header.generation;
    staging->flags = header.flags;
    if (header.flags & STAGING_SCRATCH) /* goes, whatever it holds */
        return staging_call_found(staging, staging->base_version, found, arg);
    rc = other_boot ? log_replay_synced(staging) : log_replay(staging);
    if (!rc && header.flags & STAGING_SHARED)
        rc = staging_take_left(staging, other_boot);
    if (!rc && other_boot)
        rc = take_over(staging, header.generation);
    if (rc == -ESTALE && header.data_number & STAGING_ALONE) {
        /* What its bytes say by themselves was all that was promised. */
        staging_leave(staging);
        return unlinkat(area->dir_fd, name, 0) ? -errno : 0;
    }
    if (rc == -ESTALE) {
        staging->log_generation = header.generation;
        log_replay(staging);
        area->discarded += staging->ranges.bytes;
        staging_free(staging);
        return 0;
    }
    if (rc) {
        staging_leave(staging);
        return rc;
    }
    staging->other_boot = other_boot;
    return staging_call_found(staging, staging->base_version, found, arg);
}

/* A good log names it. */
static bool is_named(struct staging_area *area, uint64_t ino, const char *name)
{
    struct staging_header header = {0};
    char log[STAGING_NAME_MAX], expected[STAGING_NAME_MAX];
    log_name(ino, log);
    cleanup(close_fd) int fd = openat(area->dir_fd, log, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || log_check(area, fd, log, &header) == -EBADMSG)
        return false;
    staging_data_name(header.ino, header.data_number, expected);
    return strcmp(expected, name) == 0;
}

static bool has_log(struct staging_area *area, uint64_t ino)
{
    char name[STAGING_NAME_MAX];
    log_name(ino, name);
    return faccessat(area->dir_fd, name, F_OK, 0) == 0;
}

/* The staging of bytes without a log; NULL with *result 0: nothing is in them. */
static struct staging *alone_staging(struct staging_area *area, const char *name, uint64_t ino,
                                     uint64_t number, int *result)
{
    cleanup(close_fd) int fd = openat(area->dir_fd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    *result = fd < 0 ? -errno : -ENOMEM;
    if (fd < 0)
        return NULL;
    struct staging *staging = staging_alloc(area, ino);
    struct staging_view *file = calloc(1, sizeof(*file));
    if (!staging || !file) {
        staging_leave(staging);
        free(file);
        return NULL;
    }
    *file = (struct staging_view){.area = area, .fd = TAKE_FD(fd), .log_fd = -1, .refs = 1};
    staging->file = file;
    atomic_fetch_add_explicit(&area->files, 1, memory_order_relaxed);
    staging->data_number = number;
    staging->flags = STAGING_LOCAL;
    staging->base_version = STAGING_FIRST_VERSION;
    staging->fresh = staging->alone = staging->alone_synced = staging->other_boot = true;
    *result = staging_take_alone(staging);
    if (*result) {
        staging_leave(staging);
        return NULL;
    }
    if (staging->size > 0)
        return staging;
    staging_free(staging);
    return NULL;
}

int staging_file_recover_data(struct staging_area *area, const char *name,
                              int (*found)(void *arg, const struct staging_found *found), void *arg)
{
    uint64_t ino = strtoull(name, NULL, 16), number = strtoull(name + 17, NULL, 16);
    if (is_named(area, ino, name))
        return 0;
    /* A log that is left counts, and names other bytes. */
    if (!(number & STAGING_ALONE) || has_log(area, ino))
        return unlinkat(area->dir_fd, name, 0) ? -errno : 0;
    int rc;
    struct staging *staging = alone_staging(area, name, ino, number, &rc);
    /* Whatever was committed since was all of it. */
    return staging ? staging_call_found(staging, STAGING_FIRST_VERSION - 1, found, arg) : rc;
}

int staging_view_fd(const struct staging_view *view)
{
    return view->fd;
}

int staging_view_map(const struct staging_view *view, uint64_t offset, uint64_t length,
                     struct staging_map *out)
{
    uint64_t before = offset % (uint64_t)sysconf(_SC_PAGESIZE);
    struct staging_map map = {.length = length, .mapped_length = before + length};
    map.base =
        mmap(NULL, map.mapped_length, PROT_READ, MAP_SHARED, view->fd, (off_t)(offset - before));
    if (map.base == MAP_FAILED)
        return -errno;
    map.data = (char *)map.base + before;
    *out = map;
    return 0;
}

void staging_unmap(struct staging_map *map)
{
    if (map->base)
        munmap(map->base, map->mapped_length);
    *map = (struct staging_map){0};
}

int staging_view_read(const struct staging_view *view, uint64_t offset, uint64_t length, void *buf)
{
    char *p = buf;
    while (length) {
        ssize_t n = pread(view->fd, p, length, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0) {
            /* Cut by a truncate meanwhile. */
            memset(p, 0, length);
            return 0;
        }
        p += n;
        length -= (uint64_t)n;
        offset += (uint64_t)n;
    }
    return 0;
}
