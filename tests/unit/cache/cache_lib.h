/* A cache on a directory of its own, and contents whose every byte is known. */
#ifndef SLUICE_TESTS_CACHE_LIB_H
#define SLUICE_TESTS_CACHE_LIB_H

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "cache/cache.h"
#include "fault.h"
#include "test.h"

#define KIB 1024ull
#define MIB (1024ull * 1024)

static char cache_dir[4096];
static struct cache *cache;

static inline uint8_t byte_of(uint64_t cid, uint64_t offset)
{
    return (uint8_t)(cid * 37 + offset % 251 + (offset >> 12) * 13);
}

static inline uint8_t *bytes_of(uint64_t cid, uint64_t offset, uint64_t length)
{
    uint8_t *bytes = malloc(length + 1);
    for (uint64_t i = 0; i < length; i++)
        bytes[i] = byte_of(cid, offset + i);
    return bytes;
}

static inline int try_open(uint64_t capacity, uint32_t slow_ms)
{
    const char *directories[] = {cache_dir};
    struct cache_config config;
    cache_config_init(&config);
    config.directories = directories;
    config.directory_count = 1;
    config.volume = "test";
    config.capacity_bytes = capacity;
    config.free_low_percent = config.free_high_percent = 0;
    config.buffer_bytes = 8 * MIB;
    config.slow_ms = slow_ms;
    return cache_open(&config, &cache, NULL);
}

/* A machine that is busy is not a slow disk: only tests of slow disks set a limit. */
#define NEVER_SLOW 600000

static inline void open_cache(uint64_t capacity)
{
    check_int(try_open(capacity, NEVER_SLOW), 0);
}

static inline void begin(void)
{
    test_dir_make(cache_dir);
    open_cache(0);
}

static inline void end(void)
{
    cache_close(cache);
    cache = NULL;
    test_dir_remove(cache_dir);
}

static inline void reopen(void)
{
    cache_close(cache);
    open_cache(0);
}

/* Fills, and tries again while the cache has too much to do. */
static inline void fill(uint64_t cid, uint64_t size, uint64_t offset, uint64_t length)
{
    uint8_t *bytes = bytes_of(cid, offset, length);
    for (uint64_t at = 0; at < length; at += CACHE_PAGE) {
        uint64_t n = MIN(length - at, CACHE_PAGE - (offset + at) % CACHE_PAGE);
        int rc;
        while ((rc = cache_fill(cache, cid, size, offset + at, bytes + at, n, true)) == -EAGAIN)
            nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
        check_int(rc, 0);
        at = at + n - CACHE_PAGE;
    }
    free(bytes);
}

struct reading {
    struct cache_read read;
    sem_t ended;
    pthread_t thread; /* that `done` came on */
};

static inline void reading_done(struct cache_read *read)
{
    struct reading *r = container_of(read, struct reading, read);
    r->thread = pthread_self();
    sem_post(&r->ended);
}

static bool read_may_wait;               /* how the reads below are asked for */
static _Thread_local bool read_was_here; /* the last one ended on the thread that asked */

/* 0 with the right bytes, the cache's error, or 1: the bytes are wrong. */
static inline int read_result(uint64_t cid, uint64_t offset, uint64_t length)
{
    struct reading r = {.read = {.cid = cid,
                                 .offset = offset,
                                 .length = length,
                                 .may_wait = read_may_wait,
                                 .done = reading_done},
                        .thread = pthread_self()};
    sem_init(&r.ended, 0, 0);
    int rc = cache_read(cache, &r.read);
    if (rc == -EINPROGRESS) {
        while (sem_wait(&r.ended) < 0 && errno == EINTR)
            ;
        rc = r.read.result;
    }
    sem_destroy(&r.ended);
    read_was_here = pthread_equal(r.thread, pthread_self());
    if (rc < 0)
        return rc;
    uint64_t at = offset;
    for (unsigned i = 0; i < r.read.iov_count; i++) {
        const uint8_t *data = r.read.iov[i].iov_base;
        for (size_t k = 0; k < r.read.iov[i].iov_len; k++, at++)
            if (data[k] != byte_of(cid, at))
                rc = 1;
    }
    if (at != offset + length)
        rc = 1;
    cache_read_put(&r.read);
    return rc;
}

struct filling {
    struct cache_fill fill;
    sem_t ended;
};

static inline void filling_done(struct cache_fill *fill)
{
    sem_post(&container_of(fill, struct filling, fill)->ended);
}

/* Lends the bytes and waits until they come back: what cache_fill_lent said. */
static inline int fill_lent(uint64_t cid, uint64_t size, uint64_t offset, uint64_t length)
{
    struct filling f = {.fill = {.cid = cid,
                                 .size = size,
                                 .offset = offset,
                                 .length = length,
                                 .read = true,
                                 .done = filling_done}};
    uint8_t *bytes = bytes_of(cid, offset, length);
    check_int(posix_memalign(&f.fill.data, CACHE_BLOCK, length + CACHE_BLOCK), 0);
    memset(f.fill.data, 0xee, length + CACHE_BLOCK);
    memcpy(f.fill.data, bytes, length);
    sem_init(&f.ended, 0, 0);
    int rc = cache_fill_lent(cache, &f.fill);
    while (rc == -EINPROGRESS && sem_wait(&f.ended) < 0)
        check_int(errno, EINTR);
    check_int(memcmp(f.fill.data, bytes, length), 0);
    sem_destroy(&f.ended);
    free(f.fill.data);
    free(bytes);
    return rc;
}

static inline struct cache_status status_now(void)
{
    struct cache_status status;
    cache_status(cache, &status);
    return status;
}

#define wait_until(condition)                                                                      \
    do {                                                                                           \
        uint64_t deadline_ = clock_monotonic_ms() + 120000;                                        \
        while (!(condition)) {                                                                     \
            check(clock_monotonic_ms() < deadline_);                                               \
            nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);                               \
        }                                                                                          \
    } while (0)

static inline void content_path(uint64_t cid, char path[4300])
{
    snprintf(path, 4300, "%s/test/files/%02x/%016jx", cache_dir, (unsigned)(cid & 0xff),
             (uintmax_t)cid);
}

#endif
