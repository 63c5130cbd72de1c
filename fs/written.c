#include "written.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/pool.h"
#include "cache/cache.h"

#define FILES_MAX 64 /* that wait */
#define CHUNK (1u << 20)
#define WAIT_MS 1000 /* for memory of the cache */

struct written {
    struct cache *cache;
    struct pool *pool;
    struct metric *skipped;
    _Atomic unsigned waiting;
    _Atomic bool closing;
};

struct written_file {
    struct pool_task task;
    struct written *written;
    struct staging_view *view;
    uint64_t cid, size;
};

int written_open(struct data *data)
{
    struct written *written = calloc(1, sizeof(*written));
    if (!written)
        return -ENOMEM;
    written->cache = data->config.cache;
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

static void run(struct pool_task *task)
{
    struct written_file *file = container_of(task, struct written_file, task);
    struct written *written = file->written;
    void *chunk = malloc(CHUNK);
    int rc = chunk ? 0 : -ENOMEM;
    for (uint64_t at = 0; rc == 0 && at < file->size && !atomic_load(&written->closing);
         at += CHUNK) {
        uint64_t length = MIN(file->size - at, CHUNK);
        rc = staging_view_read(file->view, at, length, chunk);
        if (rc == 0)
            rc = cache_fill_wait(written->cache, file->cid, file->size, at, chunk, length, false,
                                 WAIT_MS);
    }
    free(chunk);
    staging_view_put(file->view);
    free(file);
    atomic_fetch_sub(&written->waiting, 1);
}

void written_put(struct written *written, struct staging_view *view, uint64_t cid, uint64_t size)
{
    struct written_file *file = NULL;
    if (atomic_fetch_add(&written->waiting, 1) < FILES_MAX)
        file = malloc(sizeof(*file));
    if (!file) {
        atomic_fetch_sub(&written->waiting, 1);
        metric_add(written->skipped, 1);
        staging_view_put(view);
        return;
    }
    *file = (struct written_file){
        .task.run = run, .written = written, .view = view, .cid = cid, .size = size};
    pool_submit(written->pool, &file->task);
}
