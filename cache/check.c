/* Checks what is on the disk against the checksums of the index. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "disk.h"

struct check_page {
    unsigned page;
    uint32_t valid, crc;
};

/* The pages of a segment that are to be checked; the segment is busy then. */
static unsigned pages_of(struct disk *disk, struct index_content *content, uint32_t number,
                         bool only_new, struct check_page out[INDEX_SEGMENT_PAGES],
                         struct index_segment **segment_out)
{
    unsigned count = 0;
    pthread_mutex_lock(&disk->lock);
    struct index_segment *segment = index_segment(content, number);
    for (unsigned page = 0;
         segment && !segment->going && !disk->closing && page < segment->page_count; page++) {
        if (segment->pages[page].valid && !(only_new && (segment->verified >> page & 1)))
            out[count++] =
                (struct check_page){page, segment->pages[page].valid, segment->pages[page].crc};
    }
    if (count > 0) {
        segment->busy++;
        *segment_out = segment;
    }
    pthread_mutex_unlock(&disk->lock);
    return count;
}

/* 0 good, -EBADMSG, or what the disk said. */
static int check_page(const struct disk *disk, int fd, uint64_t size, uint32_t number,
                      const struct check_page *page, char *buffer)
{
    uint64_t offset = (uint64_t)number * CACHE_SEGMENT + (uint64_t)page->page * CACHE_PAGE;
    size_t len = (size_t)(32 - __builtin_clz(page->valid)) * CACHE_BLOCK, got = 0;
    while (got < len) {
        ssize_t n = pread(fd, buffer + got, len - got, (off_t)(offset + got));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        got += (size_t)n;
        if (n == 0 || got % CACHE_BLOCK != 0)
            break; /* the end of the file */
    }
    if (got < MIN(len, size - offset))
        return -EBADMSG;
    memset(buffer + got, 0, len - got);
    uint32_t crc = 0;
    for (unsigned block = 0; block < INDEX_PAGE_BLOCKS; block++)
        if (page->valid >> block & 1)
            crc ^= index_block_crc(block, buffer + (size_t)block * CACHE_BLOCK);
    return crc == page->crc ? 0 : -EBADMSG;
}

static void judge_page(struct disk *disk, struct index_segment *segment,
                       const struct check_page *page, int rc, struct cache_verify_result *result)
{
    pthread_mutex_lock(&disk->lock);
    struct index_page *now = &segment->pages[page->page];
    bool same = now->valid == page->valid && now->crc == page->crc;
    result->pages++;
    result->bytes += (uint64_t)__builtin_popcount(page->valid) * CACHE_BLOCK;
    if (rc == 0 && (now->valid & page->valid) == page->valid)
        segment->verified |= 1u << page->page;
    if (rc < 0 && same) {
        if (rc == -EBADMSG) {
            disk->stats.corrupt_pages++;
            result->corrupt_pages++;
        } else {
            disk->stats.read_errors++;
            result->unreadable_pages++;
            disk_health_report(disk, rc, 0, false);
        }
        disk_page_drop_locked(disk, segment, page->page);
    }
    pthread_mutex_unlock(&disk->lock);
}

void disk_check(struct disk *disk, struct index_content *content, bool only_new,
                struct cache_verify_result *result)
{
    char name[DISK_NAME_MAX];
    disk_file_name(content->cid, name);
    cleanup(close_fd) int fd = openat(
        disk->files_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | (disk->direct ? O_DIRECT : 0));
    int open_error = fd < 0 ? -errno : 0;
    cleanup(free_ptr) void *buffer = NULL;
    if (posix_memalign(&buffer, CACHE_BLOCK, CACHE_PAGE) != 0)
        return;
    for (uint32_t number = 0; number < content->segment_count; number++) {
        struct check_page pages[INDEX_SEGMENT_PAGES];
        struct index_segment *segment;
        unsigned count = pages_of(disk, content, number, only_new, pages, &segment);
        for (unsigned i = 0; i < count; i++) {
            /* A file that is gone holds nothing of what it should. */
            int rc = open_error == -ENOENT ? -EBADMSG : open_error;
            if (rc == 0)
                rc = check_page(disk, fd, content->size, number, &pages[i], buffer);
            judge_page(disk, segment, &pages[i], rc, result);
        }
        if (count > 0) {
            pthread_mutex_lock(&disk->lock);
            segment->busy--;
            disk_tidy_locked(disk, content, segment);
            pthread_mutex_unlock(&disk->lock);
        }
    }
}

struct check_task {
    struct pool_task task;
    struct disk *disk;
    struct index_content *content;
};

static void run_check(struct pool_task *task)
{
    struct check_task *check = container_of(task, struct check_task, task);
    struct disk *disk = check->disk;
    struct cache_verify_result result = {0};
    disk_check(disk, check->content, true, &result);
    pthread_mutex_lock(&disk->lock);
    check->content->verifying = false;
    check->content->busy--;
    disk_tidy_locked(disk, check->content, NULL);
    disk->checks--;
    pthread_cond_signal(&disk->tend);
    pthread_cond_broadcast(&disk->settled);
    pthread_mutex_unlock(&disk->lock);
    free(check);
}

void disk_check_later_locked(struct disk *disk, struct index_content *content)
{
    struct check_task *check = content->verifying ? NULL : calloc(1, sizeof(*check));
    if (!check)
        return;
    *check = (struct check_task){.task.run = run_check, .disk = disk, .content = content};
    content->verifying = true;
    content->busy++;
    disk->checks++;
    pool_submit(disk->checkers, &check->task);
}
