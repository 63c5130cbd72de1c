/*
 * Files of the caller that become cached files: the way of what was just written into the cache,
 * without a copy.
 *
 * The content is in the index, empty and busy, before the file gets its name here: so the sweep of
 * unknown files leaves it alone. Pages follow when it has its name. Who is killed before the index
 * was written down leaves a file that the next sweep removes.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/crash.h"
#include "base/hash.h"
#include "disk.h"

#define SEGMENTS_AT_ONCE 64 /* under one hold of the lock */

/* --- Checksums of pages in pieces */

void cache_page_hash_add(struct cache_page_hash *hash, const void *data, size_t length)
{
    const char *bytes = data;
    while (length > 0) {
        uint32_t in_block = hash->length % CACHE_BLOCK;
        size_t piece = MIN(length, (size_t)(CACHE_BLOCK - in_block));
        uint32_t begin = in_block ? hash->block : hash->length / CACHE_BLOCK + 1;
        hash->block = hash_crc32c(begin, bytes, piece);
        hash->length += (uint32_t)piece;
        if (hash->length % CACHE_BLOCK == 0)
            hash->blocks ^= hash->block;
        bytes += piece;
        length -= piece;
    }
}

void cache_page_hash_add_blocks(struct cache_page_hash *hash, const uint32_t *crcs, size_t count)
{
    static_assert(HASH_BLOCK == CACHE_BLOCK, "a block is a block");
    assert(hash->length % CACHE_BLOCK == 0);
    for (size_t i = 0; i < count; i++) {
        hash->block = hash_crc32c_join(hash->length / CACHE_BLOCK + 1, crcs[i]);
        hash->blocks ^= hash->block;
        hash->length += CACHE_BLOCK;
    }
}

uint32_t cache_page_hash_get(const struct cache_page_hash *hash)
{
    static const char zeros[CACHE_BLOCK];
    uint32_t in_block = hash->length % CACHE_BLOCK;
    if (in_block == 0)
        return hash->blocks;
    return hash->blocks ^ hash_crc32c(hash->block, zeros, CACHE_BLOCK - in_block);
}

/* --- Sums */

static int sum_page(int fd, uint64_t offset, size_t length, char *page, uint32_t *crc)
{
    for (size_t got = 0; got < length;) {
        ssize_t n = pread(fd, page + got, length - got, (off_t)(offset + got));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        got += (size_t)n;
    }
    struct cache_page_hash hash = {0};
    cache_page_hash_add(&hash, page, length);
    *crc = cache_page_hash_get(&hash);
    return 0;
}

/* The sums of all pages; what the giver does not know is read. */
static int all_sums(const struct cache_gift *gift, uint64_t count, uint32_t **out)
{
    cleanup(free_ptr) uint32_t *sums = malloc(count * sizeof(*sums));
    cleanup(free_ptr) char *page = NULL;
    if (!sums)
        return -ENOMEM;
    for (uint64_t i = 0; i < count; i++) {
        if (i < gift->sum_count && gift->sums[i].known) {
            sums[i] = gift->sums[i].crc;
            continue;
        }
        if (!page && !(page = malloc(CACHE_PAGE)))
            return -ENOMEM;
        uint64_t offset = i * CACHE_PAGE;
        size_t length = (size_t)MIN(gift->size - offset, (uint64_t)CACHE_PAGE);
        int rc = sum_page(gift->fd, offset, length, page, &sums[i]);
        if (rc < 0)
            return rc;
    }
    *out = TAKE_PTR(sums);
    return 0;
}

/* --- Taking the file */

/* The content, empty, busy and closed to fills; NULL with *rc. */
static struct index_content *begin(struct disk *disk, const struct cache_gift *gift, int *rc)
{
    pthread_mutex_lock(&disk->lock);
    struct index_content *content = index_find(&disk->index, gift->cid);
    uint64_t now_ms = clock_monotonic_ms();
    *rc = 0;
    if (disk->closing || disk->fault.write_result < 0 || !health_usable(&disk->health, now_ms))
        *rc = -EAGAIN;
    else if (disk->no_room || health_full(&disk->health, now_ms) ||
             (disk->capacity > 0 && gift->size > disk->capacity))
        *rc = -ENOSPC;
    else if (content && (content->size > 0 || content->doomed || content->busy > 0))
        *rc = -EEXIST;
    else if (!(content = index_make(&disk->index, gift->cid, gift->size)))
        *rc = -ENOMEM;
    if (*rc == 0) {
        content->busy++;
        content->adopting = true;
    }
    pthread_mutex_unlock(&disk->lock);
    return *rc == 0 ? content : NULL;
}

static int take_name(struct disk *disk, const struct cache_gift *gift)
{
    char name[DISK_NAME_MAX], sub[DISK_NAME_MAX];
    struct stat st;
    if (fstat(gift->fd, &st) < 0)
        return -errno;
    if ((uint64_t)st.st_size < gift->size)
        return -EINVAL;
    if ((uint64_t)st.st_size > gift->size && ftruncate(gift->fd, (off_t)gift->size) < 0)
        return -errno;
    disk_file_name(gift->cid, name);
    if (renameat(gift->dir_fd, gift->name, disk->files_fd, name) == 0)
        return 0;
    if (errno != ENOENT)
        return -errno;
    snprintf(sub, sizeof(sub), "%.2s", name);
    if (mkdirat(disk->files_fd, sub, 0700) < 0 && errno != EEXIST)
        return -errno;
    return renameat(gift->dir_fd, gift->name, disk->files_fd, name) < 0 ? -errno : 0;
}

static bool add_segment_locked(struct disk *disk, struct index_content *content, uint32_t number,
                               const uint32_t *sums, uint32_t now_s)
{
    struct index_segment *segment = index_segment_make(&disk->index, content, number);
    if (!segment)
        return false;
    for (unsigned page = 0; page < segment->page_count; page++) {
        index_set_page(&disk->index, segment, page, index_full_mask(content, number, page),
                       sums[(uint64_t)number * INDEX_SEGMENT_PAGES + page], now_s);
        segment->verified |= 1u << page;
    }
    index_put_segment(&disk->batch, segment, now_s);
    return true;
}

/* Waits until the tender has written down what there is. With the lock. */
static void batch_room_locked(struct disk *disk)
{
    while (disk->batch.len > INDEX_BATCH_MAX / 2 && !disk->closing) {
        pthread_cond_signal(&disk->tend);
        pthread_cond_wait(&disk->settled, &disk->lock);
    }
}

static int add_pages(struct disk *disk, struct index_content *content, const uint32_t *sums)
{
    uint32_t next = 0, count = content->segment_count;
    int rc = 0;
    while (next < count && rc == 0) {
        pthread_mutex_lock(&disk->lock);
        batch_room_locked(disk);
        if (content->doomed)
            rc = -ECANCELED;
        else
            index_put_content(&disk->batch, content);
        uint32_t now_s = disk_now_s(), end = MIN(count, next + SEGMENTS_AT_ONCE);
        for (; next < end && rc == 0; next++)
            rc = add_segment_locked(disk, content, next, sums, now_s) ? 0 : -ENOMEM;
        pthread_mutex_unlock(&disk->lock);
    }
    return rc;
}

static void end(struct disk *disk, struct index_content *content, uint64_t bytes, int rc)
{
    pthread_mutex_lock(&disk->lock);
    content->busy--;
    content->adopting = false;
    if (rc == 0)
        disk->stats.filled_bytes += bytes;
    disk_tidy_locked(disk, content, NULL);
    if (content->doomed ||
        (disk->capacity > 0 && disk->index.bytes > disk->capacity - disk->capacity / 64))
        pthread_cond_signal(&disk->tend);
    pthread_mutex_unlock(&disk->lock);
}

int cache_adopt(struct cache *cache, const struct cache_gift *gift)
{
    if (gift->size == 0 || gift->size > INDEX_SIZE_MAX || gift->cid == 0)
        return -EINVAL;
    struct disk *disk = cache_disk_of(cache, gift->cid);
    uint64_t pages = (gift->size + CACHE_PAGE - 1) / CACHE_PAGE;
    cleanup(free_ptr) uint32_t *sums = NULL;
    int rc = all_sums(gift, pages, &sums);
    if (rc < 0)
        return rc;
    struct index_content *content = begin(disk, gift, &rc);
    if (!content)
        return rc;
    rc = take_name(disk, gift);
    if (rc < 0) {
        end(disk, content, 0, rc);
        return rc;
    }
    crash_point("cache.adopted");
    /* It has lost its name: what cannot be noted is as if it were evicted at once. */
    rc = add_pages(disk, content, sums);
    end(disk, content, gift->size, rc);
    return 0;
}
