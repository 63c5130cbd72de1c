/* The cache as its users see it: finds the disk of a content, passes on. */
#include "cache/cache.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "fault.h"
#include "read_op.h"

#define FILL_PAUSE_MS 2 /* between two tries of a fill that may wait */

struct cache {
    struct disk *disks[CACHE_DIRECTORIES_MAX];
    uint64_t keys[CACHE_DIRECTORIES_MAX]; /* by name, so that their order does not matter */
    unsigned disk_count;
};

void cache_config_init(struct cache_config *config)
{
    *config = (struct cache_config){
        .free_low_percent = 10,
        .free_high_percent = 12,
        .slow_ms = 200,
        .buffer_bytes = 16u << 20,
        .workers = 1,
    };
}

static int check_config(const struct cache_config *config, struct error *error)
{
    if (config->directory_count == 0 || config->directory_count > CACHE_DIRECTORIES_MAX)
        return error_set(error, -EINVAL, "1 to %d cache directories, not %u", CACHE_DIRECTORIES_MAX,
                         config->directory_count);
    size_t len = config->volume ? strlen(config->volume) : 0;
    bool good = len >= 1 && len <= 64 && config->volume[0] != '.';
    for (size_t i = 0; good && i < len; i++)
        good = isalnum((unsigned char)config->volume[i]) || strchr("._-", config->volume[i]);
    if (!good)
        return error_set(error, -EINVAL, "bad volume name for the cache");
    if (config->buffer_bytes < 2u << 20)
        return error_set(error, -EINVAL, "cache buffers are at least 2 MiB");
    if (config->capacity_bytes > 0 && config->capacity_bytes < 4 * CACHE_SEGMENT)
        return error_set(error, -EINVAL, "a cache directory holds at least 16 MiB");
    if (config->free_low_percent > 99 || config->free_high_percent > 99)
        return error_set(error, -EINVAL, "free space is 0 to 99 percent");
    return 0;
}

int cache_open(const struct cache_config *config, struct cache **out, struct error *error)
{
    struct error ignored = {0};
    if (!error)
        error = &ignored;
    int rc = check_config(config, error);
    if (rc < 0)
        return rc;
    struct cache *cache = calloc(1, sizeof(*cache));
    if (!cache)
        return error_set(error, -ENOMEM, "no memory");
    rc = -ENOENT;
    for (unsigned i = 0; i < config->directory_count; i++) {
        const char *directory = config->directories[i];
        struct error why = {0};
        int opened = disk_open(config, directory, &cache->disks[cache->disk_count], &why);
        if (opened < 0) {
            log_warn("cache directory cannot be used", "path=%s code=%d why=\"%s\"", directory,
                     opened, error_text(&why));
            *error = why;
            rc = opened;
            continue;
        }
        cache->keys[cache->disk_count++] = hash_bytes64(directory, strlen(directory), 0);
    }
    if (cache->disk_count == 0) {
        free(cache);
        return rc;
    }
    error_clear(error);
    *out = cache;
    return 0;
}

void cache_close(struct cache *cache)
{
    if (!cache)
        return;
    for (unsigned i = 0; i < cache->disk_count; i++)
        disk_close(cache->disks[i]);
    free(cache);
}

struct disk *cache_disk_of(const struct cache *cache, uint64_t cid)
{
    unsigned best = 0;
    uint64_t best_score = 0;
    for (unsigned i = 0; i < cache->disk_count && cache->disk_count > 1; i++) {
        uint64_t score = hash_u64(cid ^ cache->keys[i]);
        if (score >= best_score) {
            best = i;
            best_score = score;
        }
    }
    return cache->disks[best];
}

bool cache_query(struct cache *cache, uint64_t cid, uint64_t offset, uint64_t length,
                 uint64_t *run_offset, uint64_t *run_length)
{
    return length > 0 &&
           disk_query(cache_disk_of(cache, cid), cid, offset, length, true, run_offset, run_length);
}

bool cache_peek(struct cache *cache, uint64_t cid, uint64_t offset, uint64_t length,
                uint64_t *run_offset, uint64_t *run_length)
{
    return length > 0 && disk_query(cache_disk_of(cache, cid), cid, offset, length, false,
                                    run_offset, run_length);
}

int cache_read(struct cache *cache, struct cache_read *read)
{
    if (read->length == 0 || read->length > CACHE_READ_MAX || read->offset > INDEX_SIZE_MAX)
        return -EINVAL;
    return disk_read(cache_disk_of(cache, read->cid), read);
}

void cache_read_put(struct cache_read *read)
{
    struct read_op *op = TAKE_PTR(read->impl);
    struct disk *disk = op->disk;
    pthread_mutex_lock(&disk->lock);
    read_op_free_locked(op);
    pthread_mutex_unlock(&disk->lock);
    read->iov = NULL;
    read->iov_count = 0;
}

static int check_fill(uint64_t size, uint64_t offset, size_t length)
{
    return length == 0 || size == 0 || size > INDEX_SIZE_MAX || offset % CACHE_BLOCK != 0 ||
                   offset > size || length > size - offset ||
                   (length % CACHE_BLOCK != 0 && offset + length != size)
               ? -EINVAL
               : 0;
}

int cache_fill(struct cache *cache, uint64_t cid, uint64_t size, uint64_t offset, const void *data,
               size_t length, bool read)
{
    int rc = check_fill(size, offset, length);
    if (rc < 0)
        return rc;
    return disk_fill(cache_disk_of(cache, cid), cid, size, offset, data, length, read, true);
}

int cache_fill_wait(struct cache *cache, uint64_t cid, uint64_t size, uint64_t offset,
                    const void *data, size_t length, bool read, unsigned wait_ms)
{
    uint64_t until = clock_monotonic_ms() + wait_ms;
    struct disk *disk = cache_disk_of(cache, cid);
    int rc = check_fill(size, offset, length);
    bool last = false;
    while (rc == 0) {
        last = clock_monotonic_ms() >= until;
        rc = disk_fill(disk, cid, size, offset, data, length, read, last);
        if (rc != -EAGAIN || last)
            break;
        rc = 0;
        nanosleep(&(struct timespec){.tv_nsec = FILL_PAUSE_MS * 1000000L}, NULL);
    }
    return rc;
}

int cache_fill_lent(struct cache *cache, struct cache_fill *fill)
{
    int rc = check_fill(fill->size, fill->offset, fill->length);
    if (rc < 0 || fill->length > CACHE_FILL_MAX || (uintptr_t)fill->data % CACHE_BLOCK != 0)
        return -EINVAL;
    return disk_fill_lent(cache_disk_of(cache, fill->cid), fill);
}

int cache_pin(struct cache *cache, uint64_t cid, bool pinned)
{
    struct disk *disk = cache_disk_of(cache, cid);
    int rc = 0;
    pthread_mutex_lock(&disk->lock);
    struct index_content *content =
        pinned ? index_make(&disk->index, cid, 0) : index_find(&disk->index, cid);
    if (content && content->doomed)
        rc = -EAGAIN;
    else if (content) {
        content->pinned = pinned;
        index_put_pin(&disk->batch, cid, pinned);
        disk_tidy_locked(disk, content, NULL);
    } else if (pinned) {
        rc = -ENOMEM;
    }
    pthread_mutex_unlock(&disk->lock);
    return rc;
}

bool cache_evict(struct cache *cache, uint64_t cid)
{
    struct disk *disk = cache_disk_of(cache, cid);
    pthread_mutex_lock(&disk->lock);
    struct index_content *content = index_find(&disk->index, cid);
    bool evicted = content && content->backing == 0 && !content->doomed;
    if (evicted)
        disk_doom_locked(disk, content);
    pthread_mutex_unlock(&disk->lock);
    return evicted;
}

void cache_drop(struct cache *cache, uint64_t cid)
{
    struct disk *disk = cache_disk_of(cache, cid);
    pthread_mutex_lock(&disk->lock);
    struct index_content *content = index_find(&disk->index, cid);
    if (content && content->backing > 0)
        content->unwanted = true;
    else if (content)
        disk_doom_locked(disk, content);
    pthread_mutex_unlock(&disk->lock);
}

static void clear_disk(struct disk *disk)
{
    pthread_mutex_lock(&disk->lock);
    struct index_content *content, *tmp;
    HASH_ITER(hh, disk->index.contents, content, tmp)
    {
        if (content->backing == 0)
            disk_doom_locked(disk, content);
    }
    while (disk->doomed) {
        pthread_cond_signal(&disk->tend);
        pthread_cond_wait(&disk->settled, &disk->lock);
    }
    pthread_mutex_unlock(&disk->lock);
}

void cache_clear(struct cache *cache)
{
    for (unsigned i = 0; i < cache->disk_count; i++)
        clear_disk(cache->disks[i]);
}

void cache_forget_from(struct cache *cache, uint64_t first)
{
    for (unsigned i = 0; i < cache->disk_count; i++) {
        struct disk *disk = cache->disks[i];
        struct index_content *content, *tmp;
        pthread_mutex_lock(&disk->lock);
        HASH_ITER(hh, disk->index.contents, content, tmp)
        {
            if (content->cid >= first)
                disk_doom_locked(disk, content);
        }
        pthread_mutex_unlock(&disk->lock);
    }
}

int cache_content(struct cache *cache, uint64_t cid, struct cache_content *out)
{
    struct disk *disk = cache_disk_of(cache, cid);
    int rc = -ENOENT;
    pthread_mutex_lock(&disk->lock);
    const struct index_content *content = index_find(&disk->index, cid);
    if (content && !content->doomed) {
        *out = (struct cache_content){.size = content->size,
                                      .cached_bytes = MIN(content->cached, content->size),
                                      .complete = index_complete(content),
                                      .pinned = content->pinned};
        rc = 0;
    }
    pthread_mutex_unlock(&disk->lock);
    return rc;
}

const char *cache_health_name(enum cache_health health)
{
    static const char *const names[] = {"good", "full", "slow", "failed"};
    return names[health];
}

static void disk_status(struct disk *disk, struct cache_directory_status *out,
                        struct cache_status *sum)
{
    pthread_mutex_lock(&disk->lock);
    *out = (struct cache_directory_status){
        .health = disk->health.state,
        .contents = disk->index.content_count,
        .pages = disk->index.pages,
        .bytes = disk->index.bytes,
        .capacity_bytes = disk->capacity,
        .disk_free = disk->disk_free,
        .disk_size = disk->disk_size,
    };
    if (out->health == CACHE_GOOD &&
        (disk->no_room || health_full(&disk->health, clock_monotonic_ms())))
        out->health = CACHE_FULL;
    memcpy(out->path, disk->path, sizeof(out->path));
    const struct cache_status *s = &disk->stats;
    sum->contents += disk->index.content_count;
    sum->pages += disk->index.pages;
    sum->bytes += disk->index.bytes;
    sum->memory_bytes += disk->index.memory;
    sum->hit_bytes += s->hit_bytes;
    sum->miss_bytes += s->miss_bytes;
    sum->read_bytes += s->read_bytes;
    sum->filled_bytes += s->filled_bytes;
    sum->evicted_bytes += s->evicted_bytes;
    sum->fills_dropped += s->fills_dropped;
    sum->corrupt_pages += s->corrupt_pages;
    sum->read_errors += s->read_errors;
    sum->write_errors += s->write_errors;
    sum->timeouts += s->timeouts;
    pthread_mutex_unlock(&disk->lock);
}

void cache_status(struct cache *cache, struct cache_status *out)
{
    *out = (struct cache_status){.directory_count = cache->disk_count};
    for (unsigned i = 0; i < cache->disk_count; i++)
        disk_status(cache->disks[i], &out->directories[i], out);
}

static int verify_disk(struct disk *disk, bool (*progress)(void *arg, uint64_t, uint64_t),
                       void *arg, struct cache_verify_result *result, uint64_t total)
{
    pthread_mutex_lock(&disk->lock);
    uint64_t *cids = calloc(disk->index.content_count + 1, sizeof(*cids)), count = 0;
    struct index_content *content, *tmp;
    if (cids)
        HASH_ITER(hh, disk->index.contents, content, tmp)
        {
            cids[count++] = content->cid;
        }
    pthread_mutex_unlock(&disk->lock);
    int rc = cids ? 0 : -ENOMEM;
    for (uint64_t i = 0; i < count && rc == 0; i++) {
        pthread_mutex_lock(&disk->lock);
        content = index_find(&disk->index, cids[i]);
        if (content && !content->doomed)
            content->busy++;
        else
            content = NULL;
        pthread_mutex_unlock(&disk->lock);
        if (!content)
            continue;
        disk_check(disk, content, false, result);
        pthread_mutex_lock(&disk->lock);
        content->busy--;
        disk_tidy_locked(disk, content, NULL);
        pthread_cond_signal(&disk->tend);
        pthread_mutex_unlock(&disk->lock);
        if (progress && !progress(arg, result->pages, total))
            rc = -ECANCELED;
    }
    free(cids);
    return rc;
}

int cache_verify(struct cache *cache, bool (*progress)(void *arg, uint64_t pages, uint64_t total),
                 void *arg, struct cache_verify_result *out)
{
    struct cache_status status;
    cache_status(cache, &status);
    *out = (struct cache_verify_result){0};
    int rc = 0;
    for (unsigned i = 0; i < cache->disk_count && rc == 0; i++)
        rc = verify_disk(cache->disks[i], progress, arg, out, status.pages);
    return rc;
}

static void drain_disk(struct disk *disk)
{
    pthread_mutex_lock(&disk->lock);
    while (disk->fills > 0 || disk->checks > 0)
        pthread_cond_wait(&disk->settled, &disk->lock);
    /* Two more rounds of the tender: one that began after now has written the index. */
    uint64_t until = disk->tended + 2;
    while (disk->tended < until) {
        pthread_cond_signal(&disk->tend);
        pthread_cond_wait(&disk->settled, &disk->lock);
    }
    pthread_mutex_unlock(&disk->lock);
}

void cache_drain(struct cache *cache)
{
    for (unsigned i = 0; i < cache->disk_count; i++)
        drain_disk(cache->disks[i]);
}

void cache_fault_set(struct cache *cache, const struct disk_fault *fault)
{
    for (unsigned i = 0; i < cache->disk_count; i++) {
        pthread_mutex_lock(&cache->disks[i]->lock);
        cache->disks[i]->fault = *fault;
        atomic_store(&cache->disks[i]->faulty, true);
        pthread_mutex_unlock(&cache->disks[i]->lock);
    }
}
