/* Cache files that are lent out for kernel passthrough. Who they are lent to stands in an extended
 * attribute of the file: mappings may outlive this process, too. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "disk.h"

#define LENT_NAME "user.sluice.lent"

bool disk_file_was_lent(int fd)
{
    uint64_t owner;
    return fgetxattr(fd, LENT_NAME, &owner, sizeof(owner)) >= 0 || errno == ERANGE;
}

static int note_owner(int fd, uint64_t owner)
{
    uint64_t noted = 0;
    ssize_t n = fgetxattr(fd, LENT_NAME, &noted, sizeof(noted));
    if (n >= 0)
        return n == sizeof(noted) && noted == owner ? 0 : -EBUSY;
    if (errno == ENODATA && fsetxattr(fd, LENT_NAME, &owner, sizeof(owner), XATTR_CREATE) == 0)
        return 0;
    return errno == EEXIST ? -EBUSY : -EOPNOTSUPP;
}

static int open_lent(struct disk *disk, uint64_t cid, uint64_t owner)
{
    char name[DISK_NAME_MAX];
    disk_file_name(cid, name);
    int fd = openat(disk->files_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return -ENOENT;
    int rc = note_owner(fd, owner);
    if (rc < 0)
        close(fd);
    return rc < 0 ? rc : fd;
}

int cache_backing_get(struct cache *cache, uint64_t cid, uint64_t owner)
{
    struct disk *disk = cache_disk_of(cache, cid);
    int rc = -ENOENT, fd = -1;
    pthread_mutex_lock(&disk->lock);
    struct index_content *content = index_find(&disk->index, cid);
    if (content && !content->doomed && !content->punching && !disk->closing &&
        index_complete(content) && health_usable(&disk->health, clock_monotonic_ms()))
        rc = index_verified(content) ? 0 : -EAGAIN;
    if (rc == 0 && content->owner != 0 && content->owner != owner)
        rc = -EBUSY;
    if (rc == -EAGAIN)
        disk_check_later_locked(disk, content);
    if (rc == 0 && content->backing++ > 0)
        fd = content->backing_fd > 0 ? content->backing_fd : -1;
    pthread_mutex_unlock(&disk->lock);
    if (rc < 0 || fd >= 0)
        return rc < 0 ? rc : fd;
    int opened = open_lent(disk, cid, owner);
    pthread_mutex_lock(&disk->lock);
    if (opened < 0) {
        content->backing--;
    } else if (content->backing_fd > 0) {
        /* Another opener was faster. */
        close(opened);
        opened = content->backing_fd;
    } else {
        content->backing_fd = opened;
        content->owner = owner;
    }
    pthread_mutex_unlock(&disk->lock);
    return opened;
}

void cache_backing_put(struct cache *cache, uint64_t cid)
{
    struct disk *disk = cache_disk_of(cache, cid);
    int fd = -1;
    pthread_mutex_lock(&disk->lock);
    struct index_content *content = index_find(&disk->index, cid);
    if (content && content->backing > 0 && --content->backing == 0) {
        fd = content->backing_fd;
        content->backing_fd = 0;
        if (content->unwanted)
            disk_doom_locked(disk, content);
        pthread_cond_signal(&disk->tend);
    }
    pthread_mutex_unlock(&disk->lock);
    if (fd > 0)
        close(fd);
}

/* NULL without memory. */
static struct cache_page_sum *sums_locked(const struct index_content *content)
{
    uint64_t pages = (content->size + CACHE_PAGE - 1) / CACHE_PAGE;
    struct cache_page_sum *sums = calloc(pages, sizeof(*sums));
    for (uint64_t i = 0; sums && i < pages; i++) {
        uint32_t number = (uint32_t)(i / INDEX_SEGMENT_PAGES);
        unsigned page = (unsigned)(i % INDEX_SEGMENT_PAGES);
        const struct index_segment *segment = index_segment(content, number);
        if (segment && segment->pages[page].valid == index_full_mask(content, number, page))
            sums[i] = (struct cache_page_sum){segment->pages[page].crc, true};
    }
    return sums;
}

int cache_backing_detach(struct cache *cache, uint64_t cid, struct cache_page_sum **sums)
{
    struct disk *disk = cache_disk_of(cache, cid);
    struct cache_page_sum *found = NULL;
    int reader = -1, fd = -EBUSY;
    pthread_mutex_lock(&disk->lock);
    struct index_content *content = index_find(&disk->index, cid);
    if (content && content->backing == 1 && !content->doomed)
        fd = (found = sums_locked(content)) ? 0 : -ENOMEM;
    if (fd == 0) {
        /* By its descriptor: the name may be gone. Cheap, and nobody may be faster. */
        char path[64];
        snprintf(path, sizeof(path), "/proc/self/fd/%d", content->backing_fd);
        fd = open(path, O_RDWR | O_CLOEXEC);
        fd = fd < 0 ? -errno : fd;
    }
    if (fd > 0) {
        /* What is being read of it may be changed from now on: such reads fail when they end. */
        content->detached = true;
        content->backing = 0;
        reader = content->backing_fd;
        content->backing_fd = 0;
        disk_doom_locked(disk, content);
    }
    pthread_mutex_unlock(&disk->lock);
    if (reader > 0)
        close(reader);
    if (fd > 0)
        *sums = found;
    else
        free(found);
    return fd;
}

uint32_t cache_page_crc(const void *page, size_t length)
{
    uint32_t crc = 0;
    for (unsigned block = 0; block < (length + CACHE_BLOCK - 1) / CACHE_BLOCK; block++)
        crc ^= index_block_crc(block, (const char *)page + (size_t)block * CACHE_BLOCK);
    return crc;
}
