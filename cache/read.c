/* Reads: from the question what is cached to the bytes. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "read_op.h"

uint32_t disk_now_s(void)
{
    return (uint32_t)(clock_monotonic_ms() / 1000);
}

/* Where a byte of a content is. */
static struct index_segment *segment_at(const struct index_content *content, uint64_t offset)
{
    struct index_segment *segment = index_segment(content, (uint32_t)(offset / CACHE_SEGMENT));
    return segment && !segment->going ? segment : NULL;
}

static bool block_there(const struct index_content *content, uint64_t offset)
{
    const struct index_segment *segment = segment_at(content, offset);
    uint64_t in_segment = offset % CACHE_SEGMENT;
    return segment && segment->pages[in_segment / CACHE_PAGE].valid >>
                              (in_segment % CACHE_PAGE / CACHE_BLOCK) &
                          1;
}

bool disk_query(struct disk *disk, uint64_t cid, uint64_t offset, uint64_t length, bool count,
                uint64_t *run_offset, uint64_t *run_length)
{
    bool found = false;
    pthread_mutex_lock(&disk->lock);
    struct index_content *content = index_find(&disk->index, cid);
    if (content && content->cached > 0 && !content->doomed && !disk->closing &&
        offset < content->size && health_usable(&disk->health, clock_monotonic_ms())) {
        uint64_t end = MIN(content->size - offset, length) + offset;
        uint64_t at = offset / CACHE_BLOCK * CACHE_BLOCK;
        while (at < end && !block_there(content, at))
            at += segment_at(content, at) ? CACHE_BLOCK : CACHE_SEGMENT - at % CACHE_SEGMENT;
        uint64_t begin = at;
        while (at < end && block_there(content, at))
            at += CACHE_BLOCK;
        found = at > begin;
        if (found) {
            *run_offset = MAX(begin, offset);
            *run_length = MIN(at, end) - *run_offset;
        }
    }
    bool hit = found && *run_offset == offset;
    if (count && hit)
        disk->stats.hit_bytes += *run_length;
    else if (count)
        disk->stats.miss_bytes += found ? *run_offset - offset : length;
    pthread_mutex_unlock(&disk->lock);
    return found;
}

void read_op_free_locked(struct read_op *op)
{
    for (unsigned i = 0; i < op->io_count; i++) {
        struct disk_io *io = &op->ios[i];
        if (io->heap)
            free(io->slot);
        else if (io->slot)
            slots_put(&op->disk->slots, io->slot);
    }
    free(op);
}

/* Finds the pages of a range; -ENOENT if a block of it is not there. */
static int prepare_locked(struct disk *disk, struct read_op *op)
{
    const struct cache_read *read = op->read;
    struct index_content *content = index_find(&disk->index, read->cid);
    if (!content || content->doomed || read->offset + read->length > content->size)
        return -ENOENT;
    uint64_t at = read->offset, end = read->offset + read->length;
    for (unsigned i = 0; i < op->io_count; i++) {
        struct disk_io *io = &op->ios[i];
        struct index_segment *segment = segment_at(content, at);
        if (!segment)
            return -ENOENT;
        io->disk = disk;
        io->read = op;
        io->content = content;
        io->segment = segment;
        io->page = (unsigned)(at % CACHE_SEGMENT / CACHE_PAGE);
        io->begin = at % CACHE_PAGE;
        io->length = MIN(end - at, CACHE_PAGE - io->begin);
        io->valid = segment->pages[io->page].valid;
        io->crc = segment->pages[io->page].crc;
        if (index_mask(io->begin, io->begin + io->length) & ~io->valid)
            return -ENOENT;
        io->check = !(segment->verified >> io->page & 1);
        at += io->length;
    }
    return 0;
}

/* What is read of the page: all blocks that are there, to check them, or those that are wanted. */
static void set_range(struct disk_io *io)
{
    uint64_t begin = io->check ? 0 : io->begin / CACHE_BLOCK * CACHE_BLOCK;
    uint64_t end = io->check
                       ? (uint64_t)(32 - __builtin_clz(io->valid)) * CACHE_BLOCK
                       : (io->begin + io->length + CACHE_BLOCK - 1) / CACHE_BLOCK * CACHE_BLOCK;
    io->ring.len = (uint32_t)(end - begin);
    io->ring.offset =
        (uint64_t)io->segment->number * CACHE_SEGMENT + (uint64_t)io->page * CACHE_PAGE + begin;
}

void disk_read_check_page(struct disk_io *io)
{
    io->check = true;
    set_range(io);
}

static int take_memory_locked(struct disk *disk, struct disk_io *io)
{
    /* The file may turn out to be another one when it is opened: then the whole page is checked. */
    const struct disk_file *file = io->content->open;
    size_t len = file && file->state == FILE_OPEN ? io->ring.len : CACHE_PAGE;
    io->slot = slots_take(&disk->slots, len, false);
    if (!io->slot) {
        io->heap = true;
        if (posix_memalign(&io->slot, CACHE_BLOCK, CACHE_PAGE) != 0) {
            io->slot = NULL;
            return -ENOMEM;
        }
    }
    io->ring.buf = io->slot;
    return 0;
}

static void count_locked(struct disk *disk, struct read_op *op, uint64_t now_ms)
{
    for (unsigned i = 0; i < op->io_count; i++) {
        struct disk_io *io = &op->ios[i];
        io->segment->busy++;
        io->content->busy++;
        unsigned last = (unsigned)((io->begin + io->length - 1) / CACHE_PAGE);
        policy_touch(&io->segment->item, io->page + last, 1, (uint32_t)(now_ms / 1000));
    }
    disk->io_in_flight += op->io_count;
    op->pending = op->io_count;
    op->start_ms = disk->last_read_ms = disk->last_io_ms = now_ms;
    DL_APPEND(disk->reads, op);
}

static int start_locked(struct disk *disk, struct read_op *op)
{
    uint64_t now_ms = clock_monotonic_ms();
    if (disk->closing)
        return -EAGAIN;
    int rc = prepare_locked(disk, op);
    if (rc == 0 && !health_usable(&disk->health, now_ms))
        rc = -EAGAIN;
    for (unsigned i = 0; rc == 0 && i < op->io_count; i++) {
        set_range(&op->ios[i]);
        rc = take_memory_locked(disk, &op->ios[i]);
    }
    if (rc == 0 && !health_allows(&disk->health, now_ms, &op->trial))
        rc = -EAGAIN;
    if (rc == 0)
        count_locked(disk, op, now_ms);
    return rc;
}

int disk_read(struct disk *disk, struct cache_read *read)
{
    unsigned count =
        (unsigned)((read->offset + read->length - 1) / CACHE_PAGE - read->offset / CACHE_PAGE + 1);
    struct read_op *op =
        calloc(1, sizeof(*op) + count * (sizeof(struct disk_io) + sizeof(struct iovec)));
    if (!op)
        return -ENOMEM;
    op->read = read;
    op->disk = disk;
    op->io_count = count;
    op->iov = (struct iovec *)&op->ios[count];
    bool here = read->may_wait;
    pthread_mutex_lock(&disk->lock);
    int rc = start_locked(disk, op);
    if (rc < 0)
        read_op_free_locked(op);
    pthread_mutex_unlock(&disk->lock);
    if (rc < 0)
        return rc;
    struct disk_io *ios[DISK_READ_IOS_MAX];
    for (unsigned i = 0; i < count; i++)
        ios[i] = &op->ios[i];
    disk_io_start(disk, ios, count, here);
    return -EINPROGRESS;
}

/* The checksum of the page's blocks that were there when the read began. */
static bool page_good(const struct disk_io *io)
{
    uint32_t crc = 0;
    for (unsigned block = 0; block < INDEX_PAGE_BLOCKS; block++)
        if (io->valid >> block & 1)
            crc ^= index_block_crc(block, (const char *)io->slot + (size_t)block * CACHE_BLOCK);
    return crc == io->crc;
}

/* 0, or why the bytes cannot be used. */
static int judge(struct disk_io *io)
{
    int got = io->ring.result;
    if (got < 0)
        return got;
    uint64_t left = io->content->size - MIN(io->content->size, io->ring.offset);
    if ((uint64_t)got < MIN(io->ring.len, left))
        return -EBADMSG; /* the file was cut */
    memset((char *)io->slot + got, 0, io->ring.len - (uint32_t)got);
    return io->check && !page_good(io) ? -EBADMSG : 0;
}

static void set_iov(struct read_op *op)
{
    for (unsigned i = 0; i < op->io_count; i++) {
        struct disk_io *io = &op->ios[i];
        uint64_t at = io->check ? io->begin : io->begin % CACHE_BLOCK;
        op->iov[i] = (struct iovec){(char *)io->slot + at, io->length};
    }
}

/* The op's last I/O has ended. Returns the caller's read, if he still waits. */
static struct cache_read *finish_locked(struct read_op *op)
{
    struct disk *disk = op->disk;
    struct cache_read *read = op->read;
    if (!read) {
        read_op_free_locked(op);
        return NULL;
    }
    DL_DELETE(disk->reads, op);
    disk_health_report(disk, op->result == -EBADMSG || op->result == -EAGAIN ? 0 : op->result,
                       clock_monotonic_ms() - op->start_ms, op->trial);
    read->result = op->result;
    if (op->result < 0) {
        read->iov = NULL;
        read->iov_count = 0;
        read_op_free_locked(op);
        return read;
    }
    set_iov(op);
    read->iov = op->iov;
    read->iov_count = op->io_count;
    read->impl = op;
    disk->stats.read_bytes += read->length;
    return read;
}

void disk_read_ended(struct disk_io *io)
{
    struct disk *disk = io->disk;
    struct read_op *op = io->read;
    int result = judge(io);
    pthread_mutex_lock(&disk->lock);
    if (io->content->detached)
        result = -EAGAIN;
    struct index_page *page = &io->segment->pages[io->page];
    if (result == -EBADMSG && page->valid == io->valid && page->crc == io->crc) {
        disk->stats.corrupt_pages++;
        disk_page_drop_locked(disk, io->segment, io->page);
    } else if (result == 0 && io->check && (page->valid & io->valid) == io->valid) {
        io->segment->verified |= 1u << io->page;
    } else if (result < 0 && result != -EAGAIN && result != -EBADMSG) {
        disk->stats.read_errors++;
    }
    if (result < 0 && op->result == 0)
        op->result = result;
    struct index_content *content = io->content;
    struct index_segment *segment = io->segment;
    disk_io_end_locked(io, true);
    disk_tidy_locked(disk, content, segment);
    struct cache_read *read = --op->pending == 0 ? finish_locked(op) : NULL;
    pthread_mutex_unlock(&disk->lock);
    if (read)
        read->done(read);
}

void disk_reads_give_up_locked(struct disk *disk, uint64_t now_ms)
{
    while (disk->reads && now_ms > disk->reads->start_ms + disk->slow_ms) {
        struct read_op *op = disk->reads;
        struct cache_read *read = TAKE_PTR(op->read);
        DL_DELETE(disk->reads, op);
        disk->stats.timeouts++;
        disk_health_report(disk, -ETIMEDOUT, now_ms - op->start_ms, op->trial);
        read->result = -ETIMEDOUT;
        read->iov = NULL;
        read->iov_count = 0;
        pthread_mutex_unlock(&disk->lock);
        read->done(read);
        pthread_mutex_lock(&disk->lock);
    }
}
