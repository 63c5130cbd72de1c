/* Fills: bytes from the store, on their way to the disk. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "disk.h"

#define FILL_PAGES_MAX 64 /* of one call that are started together */

void disk_tidy_locked(struct disk *disk, struct index_content *content,
                      struct index_segment *segment)
{
    if (segment && segment->busy == 0 && segment->item.bytes == 0 && !segment->going)
        index_segment_free(&disk->index, segment);
    /* Its file may have been made already. */
    if (content->cached == 0 && content->busy == 0 && !content->pinned && !content->doomed)
        disk_doom_locked(disk, content);
}

static bool room_locked(struct disk *disk, uint64_t length, uint64_t now_ms)
{
    uint64_t used = disk->index.bytes + disk->fill_bytes;
    if (!disk->no_room && !health_full(&disk->health, now_ms) &&
        (disk->capacity == 0 || used + length <= disk->capacity))
        return true;
    pthread_cond_signal(&disk->tend);
    return false;
}

/* An I/O for one page, or NULL with *dropped set, or NULL because nothing is missing. */
static struct disk_io *page_locked(struct disk *disk, struct index_content *content,
                                   uint64_t offset, uint64_t length, bool read, bool *dropped)
{
    uint32_t number = (uint32_t)(offset / CACHE_SEGMENT);
    unsigned page = (unsigned)(offset % CACHE_SEGMENT / CACHE_PAGE);
    struct index_segment *segment = index_segment_make(&disk->index, content, number);
    *dropped = true;
    if (!segment || segment->going)
        return NULL;
    uint64_t begin = offset % CACHE_PAGE;
    uint32_t mask = index_mask(begin, begin + length);
    if ((mask & ~segment->pages[page].valid) == 0) {
        *dropped = false;
        return NULL;
    }
    uint32_t len = (uint32_t)((length + CACHE_BLOCK - 1) / CACHE_BLOCK * CACHE_BLOCK);
    struct disk_io *io = calloc(1, sizeof(*io));
    void *slot = io ? slots_take(&disk->slots, len, true) : NULL;
    if (!slot) {
        free(io);
        disk_tidy_locked(disk, content, segment);
        return NULL;
    }
    *io = (struct disk_io){
        .ring = {.write = true, .buf = slot, .len = len, .offset = offset},
        .disk = disk,
        .content = content,
        .segment = segment,
        .page = page,
        .touch = read,
        .begin = begin,
        .length = length,
        .slot = slot,
    };
    segment->busy++;
    content->busy++;
    disk->io_in_flight++;
    disk->fills++;
    disk->fill_bytes += len;
    *dropped = false;
    return io;
}

/* Takes the pages of a range, at most FILL_PAGES_MAX. Returns how far it came; *dropped counts. */
static uint64_t pages_locked(struct disk *disk, struct index_content *content, uint64_t offset,
                             uint64_t end, bool read, struct disk_io **ios, unsigned *count,
                             unsigned *dropped)
{
    while (offset < end && *count < FILL_PAGES_MAX) {
        uint64_t length = MIN(end - offset, CACHE_PAGE - offset % CACHE_PAGE);
        bool lost;
        struct disk_io *io = page_locked(disk, content, offset, length, read, &lost);
        if (io)
            ios[(*count)++] = io;
        *dropped += lost;
        if (lost && content->doomed)
            return end;
        offset += length;
    }
    return offset;
}

/* NULL with *rc if nothing can be taken now. */
static struct index_content *content_locked(struct disk *disk, uint64_t cid, uint64_t size,
                                            uint64_t length, bool *trial, int *rc)
{
    uint64_t now_ms = clock_monotonic_ms();
    *rc = -EAGAIN;
    if (disk->closing || !health_usable(&disk->health, now_ms))
        return NULL;
    *rc = -ENOSPC;
    if (!room_locked(disk, length, now_ms))
        return NULL;
    struct index_content *content = index_make(&disk->index, cid, size);
    *rc = content ? -EAGAIN : -EINVAL;
    if (!content || content->doomed || content->adopting ||
        !health_allows(&disk->health, now_ms, trial))
        return NULL;
    disk->last_io_ms = now_ms;
    return content;
}

int disk_fill(struct disk *disk, uint64_t cid, uint64_t size, uint64_t offset, const void *data,
              size_t length, bool read, bool last)
{
    uint64_t end = offset + length, at = offset;
    unsigned dropped = 0;
    int rc = 0;
    while (at < end && rc == 0) {
        struct disk_io *ios[FILL_PAGES_MAX];
        unsigned count = 0;
        bool trial = false;
        pthread_mutex_lock(&disk->lock);
        struct index_content *content = content_locked(disk, cid, size, end - at, &trial, &rc);
        if (content) {
            rc = 0;
            at = pages_locked(disk, content, at, end, read, ios, &count, &dropped);
            if (count == 0 && trial)
                disk->health.trying = false;
            if (count == 0)
                disk_tidy_locked(disk, content, NULL);
        }
        pthread_mutex_unlock(&disk->lock);
        for (unsigned i = 0; i < count; i++) {
            struct disk_io *io = ios[i];
            io->trial = trial && i == 0;
            io->start_ms = clock_monotonic_ms();
            memcpy(io->slot, (const char *)data + (io->ring.offset - offset), io->length);
            memset((char *)io->slot + io->length, 0, io->ring.len - io->length);
        }
        if (count > 0)
            disk_io_start(disk, ios, count, false);
    }
    pthread_mutex_lock(&disk->lock);
    if (last || (rc < 0 && rc != -EAGAIN))
        disk->stats.fills_dropped += dropped + (rc < 0);
    pthread_mutex_unlock(&disk->lock);
    return rc < 0 ? rc : dropped > 0 ? -EAGAIN : 0;
}

/* A write that reached the last block made the file longer than the content. */
static int cut_tail(const struct disk_io *io)
{
    uint64_t size = io->content->size;
    if (io->ring.offset + io->ring.len <= size)
        return 0;
    return ftruncate(io->ring.fd, (off_t)size) < 0 ? -errno : 0;
}

static void add_blocks_locked(struct disk *disk, struct disk_io *io, const uint32_t *crcs)
{
    struct index_segment *segment = io->segment;
    if (segment->going || io->content->doomed)
        return;
    struct index_page *page = &segment->pages[io->page];
    uint32_t mask = index_mask(io->begin, io->begin + io->length);
    uint32_t fresh = mask & ~page->valid, crc = page->crc;
    unsigned first = (unsigned)(io->begin / CACHE_BLOCK);
    for (unsigned i = 0; i < io->ring.len / CACHE_BLOCK; i++)
        if (fresh >> (first + i) & 1)
            crc ^= crcs[i];
    if (!fresh)
        return;
    if (page->valid == 0)
        segment->verified |= 1u << io->page;
    uint32_t now_s = disk_now_s();
    index_set_page(&disk->index, segment, io->page, page->valid | fresh, crc, now_s);
    index_put_page(&disk->batch, segment, io->page);
    if (io->touch)
        policy_touch(&segment->item, io->page, 1, now_s);
    disk->stats.filled_bytes += io->length;
}

void disk_fill_ended(struct disk_io *io)
{
    struct disk *disk = io->disk;
    uint32_t crcs[INDEX_PAGE_BLOCKS];
    int result = io->ring.result;
    if (result >= 0 && (uint32_t)result != io->ring.len)
        result = -EIO;
    if (result >= 0)
        result = cut_tail(io);
    unsigned first = (unsigned)(io->begin / CACHE_BLOCK);
    for (unsigned i = 0; result == 0 && i < io->ring.len / CACHE_BLOCK; i++)
        crcs[i] = index_block_crc(first + i, (const char *)io->slot + (size_t)i * CACHE_BLOCK);

    pthread_mutex_lock(&disk->lock);
    if (result == 0)
        add_blocks_locked(disk, io, crcs);
    else if (result == -EAGAIN)
        disk->stats.fills_dropped++;
    else
        disk->stats.write_errors++;
    /* A burst of writes takes long on any disk: only what is far too long counts as slow. */
    disk_health_report(disk, result == -EAGAIN ? 0 : result,
                       (clock_monotonic_ms() - io->start_ms) / 8, io->trial);
    disk->fills--;
    disk->fill_bytes -= io->ring.len;
    struct index_content *content = io->content;
    struct index_segment *segment = io->segment;
    disk_io_end_locked(io, false);
    disk_tidy_locked(disk, content, segment);
    if (disk->fills == 0)
        pthread_cond_broadcast(&disk->settled);
    if (disk->batch.len > INDEX_BATCH_MAX / 2 ||
        (disk->capacity > 0 && disk->index.bytes > disk->capacity - disk->capacity / 64))
        pthread_cond_signal(&disk->tend);
    pthread_mutex_unlock(&disk->lock);
    free(io);
}
