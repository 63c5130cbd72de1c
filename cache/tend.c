/* The tender of a disk: gives up slow reads, writes the index, makes room, removes what is not
 * wanted any more. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "read_op.h"

#define ROUND_BUSY_MS 25
#define ROUND_IDLE_MS 250
#define SPACE_EVERY_MS 250
#define EXPIRE_STEPS 1000
#define SLOTS_IDLE_MS 10000 /* memory that no read or fill needed for so long goes back */

void disk_doom_locked(struct disk *disk, struct index_content *content)
{
    if (content->doomed)
        return;
    for (uint32_t i = 0; i < content->segment_count; i++) {
        struct index_segment *segment = content->segments[i];
        if (!segment)
            continue;
        segment->going = true;
        policy_remove(&disk->policy, &segment->item);
    }
    content->doomed = true;
    index_put_drop(&disk->batch, content->cid);
    DL_APPEND2(disk->doomed, content, doomed_prev, doomed_next);
    pthread_cond_signal(&disk->tend);
}

/* Removes files of doomed contents that nobody uses. Returns the bytes. With the lock held on entry
 * and exit. */
static uint64_t reap_locked(struct disk *disk)
{
    uint64_t bytes = 0;
    struct index_content *content = disk->doomed, *next;
    for (; content; content = next) {
        struct disk_file *file = content->open;
        if (content->busy > 0 || content->backing > 0 || content->verifying ||
            (file && file->state == FILE_OPENING)) {
            next = content->doomed_next;
            continue;
        }
        int fd = disk_file_detach_locked(disk, content);
        char name[DISK_NAME_MAX];
        disk_file_name(content->cid, name);
        pthread_mutex_unlock(&disk->lock);
        if (fd >= 0)
            close(fd);
        unlinkat(disk->files_fd, name, 0);
        pthread_mutex_lock(&disk->lock);
        bytes += content->cached;
        disk->stats.evicted_bytes += content->cached;
        DL_DELETE2(disk->doomed, content, doomed_prev, doomed_next);
        index_remove(&disk->index, content);
        next = disk->doomed; /* the list may have changed meanwhile */
        pthread_cond_broadcast(&disk->settled);
    }
    return bytes;
}

static bool busy(const struct policy_item *item)
{
    const struct index_segment *segment = container_of(item, const struct index_segment, item);
    const struct index_content *content = segment->content;
    return segment->busy > 0 || content->backing > 0 || content->pinned || content->verifying;
}

static bool only_segment(const struct index_segment *segment)
{
    return segment->content->cached == segment->item.bytes;
}

/* -EBUSY: it may be mapped by somebody, who must not see a hole. */
static int punch(struct disk *disk, uint64_t cid, uint64_t offset)
{
    char name[DISK_NAME_MAX];
    disk_file_name(cid, name);
    cleanup(close_fd) int fd = openat(disk->files_fd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return -errno;
    if (disk_file_was_lent(fd))
        return -EBUSY;
    return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, CACHE_SEGMENT) <
                   0
               ? -errno
               : 0;
}

/* Frees what a segment has on the disk. With the lock on entry and exit. Returns the bytes. */
static uint64_t evict_locked(struct disk *disk, struct index_segment *segment)
{
    struct index_content *content = segment->content;
    if (only_segment(segment) && content->busy == 0 && !content->pinned && content->backing == 0) {
        disk_doom_locked(disk, content);
        return reap_locked(disk);
    }
    segment->going = true;
    index_put_evict(&disk->batch, segment);
    uint64_t bytes = segment->item.bytes;
    /* Nobody frees a content that is busy. */
    content->busy++;
    content->punching = true;
    pthread_mutex_unlock(&disk->lock);
    int rc = punch(disk, content->cid, (uint64_t)segment->number * CACHE_SEGMENT);
    pthread_mutex_lock(&disk->lock);
    content->busy--;
    content->punching = false;
    if (rc == -EBUSY) {
        disk_doom_locked(disk, content);
        return reap_locked(disk);
    }
    if (rc < 0)
        disk_health_report(disk, rc, 0, false);
    disk->stats.evicted_bytes += bytes;
    index_segment_free(&disk->index, segment);
    disk_tidy_locked(disk, content, NULL);
    return bytes;
}

void disk_look_at_space(struct disk *disk)
{
    struct statvfs st;
    if (fstatvfs(disk->dir_fd, &st) < 0)
        return;
    pthread_mutex_lock(&disk->lock);
    disk->disk_size = (uint64_t)st.f_blocks * st.f_frsize;
    disk->disk_free = (uint64_t)st.f_bavail * st.f_frsize;
    if (disk->fault.free_percent >= 0)
        disk->disk_free = disk->disk_size / 100 * (unsigned)disk->fault.free_percent;
    disk->no_room = disk->disk_free < disk->disk_size / 100 * disk->free_low;
    pthread_mutex_unlock(&disk->lock);
}

/* Bytes that should go now. */
static uint64_t excess_locked(const struct disk *disk)
{
    uint64_t excess = 0;
    if (disk->capacity > 0) {
        uint64_t used = disk->index.bytes + disk->fill_bytes;
        if (used > disk->capacity - disk->capacity / 64)
            excess = used - (disk->capacity - disk->capacity / 32);
    }
    if (disk->no_room || health_full(&disk->health, clock_monotonic_ms())) {
        uint64_t wanted = disk->disk_size / 100 * disk->free_high;
        if (wanted > disk->disk_free)
            excess = MAX(excess, wanted - disk->disk_free);
        if (health_full(&disk->health, clock_monotonic_ms()))
            excess = MAX(excess, (uint64_t)CACHE_SEGMENT);
    }
    return excess;
}

static void make_room(struct disk *disk)
{
    pthread_mutex_lock(&disk->lock);
    uint64_t excess = excess_locked(disk);
    while (excess > 0 && !disk->closing) {
        struct policy_item *item = policy_victim(&disk->policy, busy);
        if (!item)
            break;
        uint64_t bytes = evict_locked(disk, container_of(item, struct index_segment, item));
        excess -= MIN(bytes, excess);
    }
    for (struct policy_item *item;
         disk->ttl_s > 0 && !disk->closing &&
         (item = policy_expired(&disk->policy, disk_now_s(), disk->ttl_s, EXPIRE_STEPS, busy));)
        evict_locked(disk, container_of(item, struct index_segment, item));
    pthread_mutex_unlock(&disk->lock);
}

/* The journal */

static void flush_batch(struct disk *disk)
{
    struct buf batch, empty;
    journal_batch_init(&empty);
    pthread_mutex_lock(&disk->lock);
    batch = disk->batch;
    disk->batch = empty;
    pthread_mutex_unlock(&disk->lock);
    if (batch.failed) {
        /* Records are lost: only a checkpoint makes it whole again. */
        disk->journal.failed = true;
    } else if (journal_append(&disk->journal, &batch) < 0 && batch.len > INDEX_BATCH_HEADER) {
        log_warn("cache index cannot be written", "path=%s", disk->path);
    }
    buf_done(&batch);
}

static int put_content(struct disk *disk, struct journal_checkpoint *checkpoint, struct buf *batch,
                       uint64_t cid)
{
    bool done = false;
    int rc = 0;
    uint32_t next = 0;
    while (!done && rc == 0) {
        pthread_mutex_lock(&disk->lock);
        struct index_content *content = index_find(&disk->index, cid);
        if (content && !content->doomed)
            index_put_content(batch, content);
        else
            content = NULL;
        uint32_t count = content ? content->segment_count : 0;
        for (; next < count && batch->len < INDEX_BATCH_MAX / 4; next++) {
            struct index_segment *segment = content->segments[next];
            if (segment && !segment->going && segment->item.bytes > 0)
                index_put_segment(batch, segment, disk_now_s());
        }
        done = next >= count;
        pthread_mutex_unlock(&disk->lock);
        if (batch->len >= INDEX_BATCH_MAX / 4)
            rc = journal_checkpoint_put(checkpoint, batch);
    }
    return rc;
}

static uint64_t *all_cids(struct disk *disk, uint64_t *count)
{
    pthread_mutex_lock(&disk->lock);
    uint64_t *cids = calloc(disk->index.content_count + 1, sizeof(*cids));
    *count = 0;
    struct index_content *content, *tmp;
    if (cids)
        HASH_ITER(hh, disk->index.contents, content, tmp)
        {
            cids[(*count)++] = content->cid;
        }
    pthread_mutex_unlock(&disk->lock);
    return cids;
}

static void checkpoint(struct disk *disk)
{
    flush_batch(disk);
    struct journal_checkpoint checkpoint;
    int rc = journal_checkpoint_begin(&disk->journal, &checkpoint);
    if (rc == 0) {
        uint64_t count;
        uint64_t *cids = all_cids(disk, &count);
        struct buf batch;
        journal_batch_init(&batch);
        rc = cids ? 0 : -ENOMEM;
        for (uint64_t i = 0; i < count && rc == 0; i++)
            rc = put_content(disk, &checkpoint, &batch, cids[i]);
        if (rc == 0)
            rc = journal_checkpoint_put(&checkpoint, &batch);
        buf_done(&batch);
        free(cids);
        if (rc == 0)
            rc = journal_checkpoint_end(&checkpoint);
        else
            journal_checkpoint_abandon(&checkpoint);
    }
    if (rc < 0) {
        static struct log_limit limit = LOG_LIMIT(1, 60000);
        log_limited(&limit, LOG_WARN, "cache checkpoint failed", "path=%s code=%d", disk->path, rc);
    }
}

/* Rounds */

static void wait_round(struct disk *disk)
{
    pthread_mutex_lock(&disk->lock);
    uint64_t now = clock_monotonic_ms();
    bool active = disk->reads || now < disk->last_read_ms + 1000;
    uint64_t round_ms = active || disk->closing ? ROUND_BUSY_MS : ROUND_IDLE_MS;
    uint64_t until = clock_monotonic_ns() + round_ms * NS_PER_MS;
    struct timespec ts = {(time_t)(until / NS_PER_S), (long)(until % NS_PER_S)};
    disk->tended++;
    pthread_cond_broadcast(&disk->settled);
    if (!disk->closing || disk->io_in_flight > 0)
        pthread_cond_timedwait(&disk->tend, &disk->lock, &ts);
    disk_reads_give_up_locked(disk, clock_monotonic_ms());
    reap_locked(disk);
    if (clock_monotonic_ms() >= disk->last_io_ms + SLOTS_IDLE_MS && slots_idle(&disk->slots))
        slots_trim(&disk->slots);
    pthread_mutex_unlock(&disk->lock);
}

void *disk_tend(void *arg)
{
    struct disk *disk = arg;
    uint64_t last_space = 0, failed_at = 0;
    bool closing = false;
    while (!closing) {
        wait_round(disk);
        uint64_t now = clock_monotonic_ms();
        if (now >= last_space + SPACE_EVERY_MS) {
            disk_look_at_space(disk);
            last_space = now;
        }
        make_room(disk);
        flush_batch(disk);
        disk_metrics_update(disk);
        if (journal_wants_checkpoint(&disk->journal) && now >= failed_at + 10000) {
            checkpoint(disk);
            if (disk->journal.failed)
                failed_at = now;
        }
        pthread_mutex_lock(&disk->lock);
        closing = disk->closing && disk->io_in_flight == 0;
        pthread_mutex_unlock(&disk->lock);
    }
    checkpoint(disk);
    return NULL;
}

/* Files that the index does not know, of a process that was killed before it had written them down;
 * and names that are not ours, which are left alone. */

static bool wanted(struct disk *disk, uint64_t cid)
{
    pthread_mutex_lock(&disk->lock);
    bool found = index_find(&disk->index, cid) != NULL;
    pthread_mutex_unlock(&disk->lock);
    return found;
}

static unsigned sweep_directory(struct disk *disk, const char *sub)
{
    unsigned foreign = 0;
    int fd = openat(disk->files_fd, sub, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir) {
        if (fd >= 0)
            close(fd);
        return 0;
    }
    for (struct dirent *entry; (entry = readdir(dir));) {
        char name[DISK_NAME_MAX], full[DISK_NAME_MAX + sizeof(entry->d_name)];
        if (entry->d_name[0] == '.')
            continue;
        snprintf(full, sizeof(full), "%s/%s", sub, entry->d_name);
        uint64_t cid = strtoull(entry->d_name, NULL, 16);
        disk_file_name(cid, name);
        if (strcmp(name, full) != 0) {
            foreign++;
            continue;
        }
        pthread_mutex_lock(&disk->lock);
        bool closing = disk->closing;
        pthread_mutex_unlock(&disk->lock);
        if (closing)
            break;
        if (!wanted(disk, cid))
            unlinkat(disk->files_fd, full, 0);
    }
    closedir(dir);
    return foreign;
}

void disk_sweep(struct disk *disk)
{
    unsigned foreign = 0;
    for (unsigned i = 0; i < 256; i++) {
        char sub[8];
        snprintf(sub, sizeof(sub), "%02x", i);
        foreign += sweep_directory(disk, sub);
    }
    if (foreign > 0)
        log_warn("files in the cache that are not its own", "path=%s count=%u", disk->path,
                 foreign);
}
