#include "written.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/pool.h"
#include "cache/cache.h"

#define FILES_MAX 64 /* that wait */
#define CHUNK (1u << 20)
#define WAIT_MS 1000 /* for memory of the cache */

struct written {
    struct cache *cache;
    struct pool *pool;
    struct metric *adopted, *skipped;
    _Atomic unsigned waiting;
    _Atomic bool closing;
};

struct written_file {
    struct pool_task task;
    struct written *written;
    struct staging_gift gift;
    uint64_t cid;
};

int written_open(struct data *data)
{
    struct written *written = calloc(1, sizeof(*written));
    if (!written)
        return -ENOMEM;
    written->cache = data->config.cache;
    written->adopted = metrics_counter(data->config.metrics, "sluice_data_written_adopted_total",
                                       "", "Written files that became cached files as they are");
    written->skipped = metrics_counter(data->config.metrics, "sluice_data_written_uncached_total",
                                       "", "Written files not cached because others still were");
    int rc = pool_new(&written->pool, "written", 1);
    if (rc < 0) {
        free(written);
        return rc;
    }
    data->written = written;
    return 0;
}

void written_close(struct written *written)
{
    if (!written)
        return;
    atomic_store(&written->closing, true);
    pool_free(written->pool);
    free(written);
}

static void gift_done(struct staging_gift *gift, bool named)
{
    if (named)
        unlinkat(gift->dir_fd, gift->name, 0);
    staging_view_put(gift->view);
    free(gift->sums);
}

/* 0, or as cache_adopt. */
static int adopt(struct written *written, const struct staging_gift *gift, uint64_t cid)
{
    const struct cache_gift to = {
        .cid = cid,
        .size = gift->size,
        .dir_fd = gift->dir_fd,
        .name = gift->name,
        .fd = staging_view_fd(gift->view),
        .sums = gift->sums,
        .sum_count = gift->sum_count,
    };
    return cache_adopt(written->cache, &to);
}

static void copy(struct written *written, const struct staging_gift *gift, uint64_t cid)
{
    void *chunk = malloc(CHUNK);
    int rc = chunk ? 0 : -ENOMEM;
    for (uint64_t at = 0; rc == 0 && at < gift->size && !atomic_load(&written->closing);
         at += CHUNK) {
        uint64_t length = MIN(gift->size - at, CHUNK);
        rc = staging_view_read(gift->view, at, length, chunk);
        if (rc == 0)
            rc =
                cache_fill_wait(written->cache, cid, gift->size, at, chunk, length, false, WAIT_MS);
    }
    free(chunk);
}

static void run(struct pool_task *task)
{
    struct written_file *file = container_of(task, struct written_file, task);
    struct written *written = file->written;
    copy(written, &file->gift, file->cid);
    gift_done(&file->gift, false);
    free(file);
    atomic_fetch_sub(&written->waiting, 1);
}

/* A file that a read looks at still is not given away: the cache may punch holes into it. */
void written_put(struct written *written, struct staging_gift *gift, uint64_t cid)
{
    int rc = gift->alone ? adopt(written, gift, cid) : -EXDEV;
    if (rc == 0)
        metric_add(written->adopted, 1);
    if (rc != -EXDEV) {
        gift_done(gift, rc < 0);
        return;
    }
    unlinkat(gift->dir_fd, gift->name, 0);
    struct written_file *file = NULL;
    if (atomic_fetch_add(&written->waiting, 1) < FILES_MAX)
        file = malloc(sizeof(*file));
    if (!file) {
        atomic_fetch_sub(&written->waiting, 1);
        metric_add(written->skipped, 1);
        gift_done(gift, false);
        return;
    }
    *file = (struct written_file){.task.run = run, .written = written, .gift = *gift, .cid = cid};
    pool_submit(written->pool, &file->task);
}
