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

static uint64_t whole_blocks(uint64_t length)
{
    return (length + CACHE_BLOCK - 1) / CACHE_BLOCK * CACHE_BLOCK;
}

static void begin_locked(struct disk_io *io)
{
    struct disk *disk = io->disk;
    io->segment->busy++;
    io->content->busy++;
    disk->io_in_flight++;
    disk->fills++;
    disk->fill_bytes += io->ring.len;
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
    uint32_t len = (uint32_t)whole_blocks(length);
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
    begin_locked(io);
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

/* The part of a run that lies in one page: *begin in the page, and its length. `done`: bytes of the
 * run before it. */
static uint64_t page_part(uint64_t run_begin, uint64_t run_length, uint64_t done, unsigned *page,
                          uint64_t *begin)
{
    *page = (unsigned)((run_begin + done) / CACHE_PAGE);
    *begin = (run_begin + done) % CACHE_PAGE;
    return MIN(CACHE_PAGE - *begin, run_length - done);
}

static bool all_there(const struct index_segment *segment, uint64_t begin, uint64_t length)
{
    for (uint64_t done = 0; done < length;) {
        unsigned page;
        uint64_t at, part = page_part(begin, length, done, &page, &at);
        if (index_mask(at, at + part) & ~segment->pages[page].valid)
            return false;
        done += part;
    }
    return true;
}

/* An I/O for what a lent fill has of one segment; as page_locked. */
static struct disk_io *run_locked(struct disk *disk, struct index_content *content,
                                  struct cache_fill *fill, uint64_t offset, uint64_t length,
                                  bool *dropped)
{
    struct index_segment *segment =
        index_segment_make(&disk->index, content, (uint32_t)(offset / CACHE_SEGMENT));
    uint64_t begin = offset % CACHE_SEGMENT;
    *dropped = !segment || segment->going;
    if (*dropped || all_there(segment, begin, length))
        return NULL;
    struct disk_io *io = calloc(1, sizeof(*io));
    if (!io) {
        *dropped = true;
        disk_tidy_locked(disk, content, segment);
        return NULL;
    }
    void *data = (char *)fill->data + (offset - fill->offset);
    *io = (struct disk_io){
        .ring = {.write = true,
                 .buf = data,
                 .len = (uint32_t)whole_blocks(length),
                 .offset = offset},
        .disk = disk,
        .content = content,
        .segment = segment,
        .page = (unsigned)(begin / CACHE_PAGE),
        .touch = fill->read,
        .begin = begin % CACHE_PAGE,
        .length = length,
        .slot = data,
        .lent_by = fill,
        .start_ms = clock_monotonic_ms(),
    };
    begin_locked(io);
    return io;
}

int disk_fill_lent(struct disk *disk, struct cache_fill *fill)
{
    struct disk_io *ios[CACHE_FILL_MAX / CACHE_SEGMENT + 1];
    unsigned count = 0, dropped = 0;
    bool trial = false;
    int rc;
    memset((char *)fill->data + fill->length, 0, whole_blocks(fill->length) - fill->length);
    pthread_mutex_lock(&disk->lock);
    struct index_content *content =
        content_locked(disk, fill->cid, fill->size, fill->length, &trial, &rc);
    uint64_t end = fill->offset + fill->length;
    for (uint64_t at = fill->offset; content && at < end && !content->doomed;) {
        uint64_t length = MIN(end - at, CACHE_SEGMENT - at % CACHE_SEGMENT);
        bool lost;
        struct disk_io *io = run_locked(disk, content, fill, at, length, &lost);
        if (io)
            ios[count++] = io;
        dropped += lost;
        at += length;
    }
    if (content) {
        rc = dropped > 0 ? -EAGAIN : 0;
        if (count == 0 && trial)
            disk->health.trying = false;
        if (count == 0)
            disk_tidy_locked(disk, content, NULL);
        else
            ios[0]->trial = trial;
    }
    disk->stats.fills_dropped += dropped + !content;
    fill->pending = count;
    pthread_mutex_unlock(&disk->lock);
    if (count == 0)
        return rc;
    disk_io_start(disk, ios, count, false);
    return -EINPROGRESS;
}

/* A write that reached the last block made the file longer than the content. */
static int cut_tail(const struct disk_io *io)
{
    uint64_t size = io->content->size;
    if (io->ring.offset + io->ring.len <= size)
        return 0;
    return ftruncate(io->ring.fd, (off_t)size) < 0 ? -errno : 0;
}

static void add_page_locked(struct disk_io *io, unsigned number, uint64_t begin, uint64_t length,
                            const uint32_t *crcs, uint32_t now_s)
{
    struct disk *disk = io->disk;
    struct index_segment *segment = io->segment;
    struct index_page *page = &segment->pages[number];
    uint32_t fresh = index_mask(begin, begin + length) & ~page->valid, crc = page->crc;
    unsigned first = (unsigned)(begin / CACHE_BLOCK);
    for (unsigned i = 0; i < whole_blocks(length) / CACHE_BLOCK; i++)
        if (fresh >> (first + i) & 1)
            crc ^= crcs[i];
    if (!fresh)
        return;
    if (page->valid == 0)
        segment->verified |= 1u << number;
    index_set_page(&disk->index, segment, number, page->valid | fresh, crc, now_s);
    index_put_page(&disk->batch, segment, number);
    if (io->touch)
        policy_touch(&segment->item, number, 1, now_s);
    disk->stats.filled_bytes += length;
}

static void add_blocks_locked(struct disk_io *io, const uint32_t *crcs)
{
    uint32_t now_s = disk_now_s();
    if (io->segment->going || io->content->doomed)
        return;
    for (uint64_t done = 0; done < io->length;) {
        unsigned page;
        uint64_t begin, part = page_part(io->begin, io->length, done, &page, &begin);
        add_page_locked(io, io->page + page, begin, part, &crcs[done / CACHE_BLOCK], now_s);
        done += part;
    }
}

void disk_fill_ended(struct disk_io *io)
{
    struct disk *disk = io->disk;
    uint32_t crcs[CACHE_SEGMENT / CACHE_BLOCK];
    int result = io->ring.result;
    if (result >= 0 && (uint32_t)result != io->ring.len)
        result = -EIO;
    if (result >= 0)
        result = cut_tail(io);
    unsigned first = (unsigned)(io->begin / CACHE_BLOCK);
    for (unsigned i = 0; result == 0 && i < io->ring.len / CACHE_BLOCK; i++)
        crcs[i] = index_block_crc((first + i) % INDEX_PAGE_BLOCKS,
                                  (const char *)io->slot + (size_t)i * CACHE_BLOCK);

    pthread_mutex_lock(&disk->lock);
    if (result == 0)
        add_blocks_locked(io, crcs);
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
    struct cache_fill *lent_by = io->lent_by;
    bool last = lent_by && --lent_by->pending == 0;
    disk_io_end_locked(io, lent_by != NULL);
    disk_tidy_locked(disk, content, segment);
    if (disk->fills == 0)
        pthread_cond_broadcast(&disk->settled);
    if (disk->batch.len > INDEX_BATCH_MAX / 2 ||
        (disk->capacity > 0 && disk->index.bytes > disk->capacity - disk->capacity / 64))
        pthread_cond_signal(&disk->tend);
    pthread_mutex_unlock(&disk->lock);
    free(io);
    if (last)
        lent_by->done(lent_by);
}
