#include "disk.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"

#define GHOST_SLOTS (1u << 17)
#define OPENERS 2

void disk_health_report(struct disk *disk, int result, uint64_t latency_ms, bool trial)
{
    if (!health_report(&disk->health, clock_monotonic_ms(), result, latency_ms, trial))
        return;
    enum cache_health state = disk->health.state;
    log_write(state == CACHE_GOOD ? LOG_INFO : LOG_WARN, "cache disk changed",
              "path=%s state=%s pause_ms=%llu", disk->path, cache_health_name(state),
              (unsigned long long)disk->health.pause_ms);
}

static int make_directory(int at, const char *path)
{
    return mkdirat(at, path, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

static int open_directory(int at, const char *path)
{
    int rc = make_directory(at, path);
    if (rc < 0)
        return rc;
    int fd = openat(at, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static int lock_directory(struct disk *disk, struct error *error)
{
    disk->lock_fd = openat(disk->dir_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (disk->lock_fd < 0)
        return error_set(error, -errno, "%s/lock: %s", disk->path, strerror(errno));
    if (flock(disk->lock_fd, LOCK_EX | LOCK_NB) < 0)
        return errno == EWOULDBLOCK
                   ? error_set(error, -EBUSY, "%s is in use by another process", disk->path)
                   : error_set(error, -errno, "%s/lock: %s", disk->path, strerror(errno));
    return 0;
}

/* Whether files can be written and read past the page cache here. */
static bool try_direct(int dir_fd)
{
    static const char name[] = "probe";
    int fd = openat(dir_fd, name, O_RDWR | O_CREAT | O_TRUNC | O_DIRECT | O_CLOEXEC, 0600);
    if (fd < 0)
        return false;
    cleanup(free_ptr) void *block = NULL;
    bool good = posix_memalign(&block, CACHE_BLOCK, CACHE_BLOCK) == 0;
    if (good) {
        memset(block, 0, CACHE_BLOCK);
        good = pwrite(fd, block, CACHE_BLOCK, 0) == CACHE_BLOCK;
    }
    close(fd);
    unlinkat(dir_fd, name, 0);
    return good;
}

static int open_paths(struct disk *disk, const struct cache_config *config, const char *directory,
                      struct error *error)
{
    int n = snprintf(disk->path, sizeof(disk->path), "%s/%s", directory, config->volume);
    if (n < 0 || (size_t)n >= sizeof(disk->path))
        return error_set(error, -ENAMETOOLONG, "the cache directory's name is too long: %s",
                         directory);
    int rc = make_directory(AT_FDCWD, directory);
    if (rc == 0)
        rc = disk->dir_fd = open_directory(AT_FDCWD, disk->path);
    if (rc < 0)
        return error_set(error, rc, "%s: %s", disk->path, strerror(-rc));
    rc = lock_directory(disk, error);
    if (rc < 0)
        return rc;
    rc = disk->files_fd = open_directory(disk->dir_fd, "files");
    if (rc < 0)
        return error_set(error, rc, "%s/files: %s", disk->path, strerror(-rc));
    disk->direct = try_direct(disk->dir_fd);
    return 0;
}

static int open_index(struct disk *disk, struct error *error)
{
    int rc = policy_init(&disk->policy, GHOST_SLOTS);
    if (rc < 0)
        return rc;
    index_init(&disk->index, &disk->policy);
    uint64_t start = clock_monotonic_ms();
    rc = journal_open(&disk->journal, disk->dir_fd, &disk->index, disk_now_s());
    if (rc < 0)
        return error_set(error, rc, "the cache index in %s: %s", disk->path, strerror(-rc));
    log_info("cache opened", "path=%s contents=%llu pages=%llu load_ms=%llu direct=%d", disk->path,
             (unsigned long long)disk->index.content_count, (unsigned long long)disk->index.pages,
             (unsigned long long)(clock_monotonic_ms() - start), disk->direct);
    return 0;
}

static void run_sweep(struct pool_task *task)
{
    disk_sweep(container_of(task, struct disk, sweep));
}

static int start_threads(struct disk *disk, unsigned workers)
{
    workers = MIN(MAX(workers, 1u), DISK_RINGS_MAX);
    int rc = 0;
    while (rc == 0 && disk->ring_count < workers) {
        rc = ring_new("cache-ring", &disk->rings[disk->ring_count]);
        disk->ring_count += rc == 0;
    }
    if (rc == 0)
        rc = pool_new(&disk->openers, "cache-open", OPENERS);
    if (rc == 0)
        rc = pool_new(&disk->checkers, "cache-check", 1);
    if (rc < 0)
        return rc;
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    rc = -pthread_create(&disk->tender, NULL, disk_tend, disk);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc == 0) {
        pthread_setname_np(disk->tender, "cache-tend");
        disk->sweep.run = run_sweep;
        pool_submit(disk->checkers, &disk->sweep);
    }
    return rc;
}

static void disk_free(struct disk *disk)
{
    for (unsigned i = 0; i < disk->ring_count; i++)
        ring_free(disk->rings[i]);
    for (unsigned i = 0; i < DISK_FILES; i++)
        if (disk->files[i].fd >= 0)
            close(disk->files[i].fd);
    index_done(&disk->index);
    policy_done(&disk->policy);
    journal_close(&disk->journal);
    slots_done(&disk->slots);
    buf_done(&disk->batch);
    pthread_cond_destroy(&disk->tend);
    pthread_cond_destroy(&disk->settled);
    pthread_mutex_destroy(&disk->lock);
    close_fd(&disk->files_fd);
    close_fd(&disk->dir_fd);
    close_fd(&disk->lock_fd);
    free(disk);
}

static void init_locks(struct disk *disk)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&disk->tend, &monotonic);
    pthread_cond_init(&disk->settled, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&disk->lock, NULL);
}

int disk_open(const struct cache_config *config, const char *directory, struct disk **out,
              struct error *error)
{
    struct disk *disk = calloc(1, sizeof(*disk));
    if (!disk)
        return error_set(error, -ENOMEM, "no memory");
    disk->dir_fd = disk->files_fd = disk->lock_fd = disk->journal.fd = -1;
    for (unsigned i = 0; i < DISK_FILES; i++)
        disk->files[i].fd = disk->files[i].index = -1;
    disk->capacity = config->capacity_bytes;
    disk->free_low = config->free_low_percent;
    disk->free_high = MAX(config->free_high_percent, config->free_low_percent);
    disk->ttl_s = config->ttl_s;
    disk->slow_ms = config->slow_ms;
    disk->fault.free_percent = -1;
    init_locks(disk);
    health_init(&disk->health, config->slow_ms);
    journal_batch_init(&disk->batch);
    int rc = open_paths(disk, config, directory, error);
    if (rc == 0) {
        disk_look_at_space(disk);
        rc = open_index(disk, error);
    }
    if (rc == 0)
        rc = slots_init(&disk->slots, config->buffer_bytes);
    if (rc == 0) {
        disk_metrics_init(disk, config->metrics);
        rc = start_threads(disk, config->workers);
    }
    if (rc < 0) {
        if (error && error->code == 0)
            error_set(error, rc, "%s: %s", directory, strerror(-rc));
        pool_free(disk->openers);
        pool_free(disk->checkers);
        disk_free(disk);
        return rc;
    }
    *out = disk;
    return 0;
}

void disk_close(struct disk *disk)
{
    pthread_mutex_lock(&disk->lock);
    disk->closing = true;
    pthread_cond_signal(&disk->tend);
    pthread_mutex_unlock(&disk->lock);
    pool_free(disk->checkers);
    pthread_join(disk->tender, NULL);
    pool_free(disk->openers);
    disk_free(disk);
}
