/* The beginning and the end of the data path of a mount, and what a process that died left. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "data/buffers.h"
#include "data/durability.h"
#include "data/inlined.h"
#include "data/passthrough.h"
#include "data/staging.h"
#include "data/tend.h"
#include "data/upload.h"
#include "data/written.h"

#define BUFFER_MIN (32ull << 20)
#define DATA_THREADS 4
#define CLOSE_WAIT_S 30

void data_config_init(struct data_config *config)
{
    *config = (struct data_config){
        .buffer_bytes = 128ull << 20,
        .staging_max = 16ull << 30,
        .part_bytes = 8u << 20,
        .upload_parallel = 8,
        .readahead_bytes = 32u << 20,
        .flush_age_ms = 5000,
        .upload_delay_ms = 1000,
        .backlog_age_ms = 3600000,
    };
}

static int config_check(const struct data_config *config, struct error *error)
{
    if (!config->meta || !config->store || !config->loop)
        return error_set(error, -EINVAL, "data path: no volume, store or loop");
    if (config->buffer_bytes < BUFFER_MIN)
        return error_set(error, -EINVAL, "buffers of %llu bytes: at least 32 MiB are needed",
                         (unsigned long long)config->buffer_bytes);
    if (config->part_bytes == 0 || config->part_bytes > 64u << 20 || config->upload_parallel == 0)
        return error_set(error, -EINVAL,
                         "upload parts must be of 1 byte to 64 MiB, and at least "
                         "one at a time");
    if (!config->read_only && (!config->staging_dir || config->staging_max == 0))
        return error_set(error, -EINVAL, "a staging directory and its size are needed");
    return 0;
}

static void make_metrics(struct data *data)
{
    struct metrics *m = data->config.metrics;
    data->metrics = (struct data_metrics){
        .flushes = metrics_counter(m, "sluice_data_flushes_total", "",
                                   "Flushes of dirty files that were committed"),
        .failures = metrics_counter(m, "sluice_data_flush_failures_total", "",
                                    "Flushes that failed; the data stays staged"),
        .inline_commits =
            metrics_counter(m, "sluice_data_inline_commits_total", "", "Flushes without an object"),
        .objects =
            metrics_counter(m, "sluice_data_objects_total", "", "Objects written by flushes"),
        .uploaded_bytes = metrics_counter(m, "sluice_data_uploaded_bytes_total", "",
                                          "Bytes of objects written by flushes"),
        .waits = metrics_counter(m, "sluice_data_write_waits_total", "",
                                 "Writes that waited for room in the staging area"),
    };
}

/* All but the read side. */
static void data_free(struct data *data)
{
    durability_close(data);
    pass_apply_close(data);
    inlined_free(data->inlined);
    file_extents_unref(data->ahead);
    written_close(data->written);
    pool_free(data->pool);
    buffers_free(data->upload_buffers);
    staging_area_close(data->area);
    tickets_free(data->upload_tickets);
    tickets_free(data->read_tickets);
    free(data->kept);
    pthread_cond_destroy(&data->uploads_ended);
    pthread_cond_destroy(&data->files_gone);
    pthread_mutex_destroy(&data->wait_lock);
    pthread_mutex_destroy(&data->lock);
    free(data);
}

/* ---- recovery ---- */

struct recovery {
    struct data *data;
    unsigned files, gone, scratch;
    uint64_t bytes;
};

static int adopt(struct recovery *recovery, const struct meta_attr *attr,
                 const struct staging_found *found)
{
    struct file *file;
    int rc = file_make(recovery->data, attr, &file);
    if (rc)
        return rc;
    pthread_mutex_lock(&file->lock);
    bool second = file->staging != NULL;
    if (!second) {
        file->staging = found->staging;
        file->durability = found->flags & STAGING_LOCAL ? DATA_LOCAL : DATA_STORE;
        file->held = file->durability == DATA_LOCAL && attr->size == 0;
        file->size = found->size;
        file->truncated_to = found->truncated_to;
        file->time_dirty = found->time_dirty;
        if (found->time_dirty)
            file->mtime_ns = file->ctime_ns = found->mtime_ns;
        file->cache_stale = true;
        file->dirty_since_ns = clock_monotonic_ns();
        file_quota_update_locked(file);
    }
    pthread_mutex_unlock(&file->lock);
    if (second) {
        staging_free(found->staging);
    } else {
        recovery->files++;
        recovery->bytes += staging_dirty_bytes(found->staging);
        file_dirty_update(file);
    }
    file_put(file);
    return 0;
}

static int recover_one(void *arg, const struct staging_found *found)
{
    struct recovery *recovery = arg;
    struct meta_request request = {.op = {.kind = META_GETATTR, .ino = found->ino}};
    int rc = 0;
    if (found->flags & STAGING_SCRATCH) {
        durability_drop_scratch(recovery->data, found->ino);
        staging_free(found->staging);
        recovery->scratch++;
        return 0;
    }
    rc = meta_call(recovery->data->meta, &request);
    /* What was synced before a power loss, but was committed and changed again since. */
    bool superseded =
        !rc && found->other_boot && request.reply.attr.data_version > found->base_version + 1;
    if (superseded)
        rc = -ESTALE;
    if (rc == -ENOENT || rc == -ESTALE || (!rc && request.reply.attr.nlink == 0)) {
        recovery->gone++;
        staging_free(found->staging);
        rc = 0;
    } else if (!rc) {
        rc = adopt(recovery, &request.reply.attr, found);
    }
    if (rc)
        staging_leave(found->staging);
    meta_reply_done(&request.reply);
    return rc;
}

struct waiter {
    struct data_request request;
    pthread_mutex_t lock;
    pthread_cond_t ended;
    bool done;
};

static void waiter_done(struct data_request *request)
{
    struct waiter *waiter = request->arg;
    pthread_mutex_lock(&waiter->lock);
    waiter->done = true;
    pthread_cond_broadcast(&waiter->ended);
    pthread_mutex_unlock(&waiter->lock);
}

static int flush_wait(struct data *data, enum flush_what what)
{
    struct waiter waiter = {.request = {.done = waiter_done, .arg = &waiter},
                            .lock = PTHREAD_MUTEX_INITIALIZER,
                            .ended = PTHREAD_COND_INITIALIZER};
    int rc = flush_dirty(data, what, &waiter.request);
    if (rc != -EINPROGRESS)
        return rc;
    pthread_mutex_lock(&waiter.lock);
    while (!waiter.done)
        pthread_cond_wait(&waiter.ended, &waiter.lock);
    pthread_mutex_unlock(&waiter.lock);
    return waiter.request.result;
}

/* Tells the front of each recovered file, when its content is committed. */
static void tell_changed(struct data *data, const uint64_t *inos, size_t count)
{
    for (size_t i = 0; i < count && data->config.changed; i++)
        data->config.changed(data->config.arg, inos[i]);
}

static uint64_t *list_recovered(struct data *data, size_t *count)
{
    uint64_t *inos = calloc(atomic_load(&data->dirty_files) + 1, sizeof(*inos));
    *count = 0;
    if (!inos)
        return NULL;
    pthread_mutex_lock(&data->lock);
    for (struct file *file = data->dirty; file; file = file->dirty_next)
        inos[(*count)++] = file->ino;
    pthread_mutex_unlock(&data->lock);
    return inos;
}

static int recover(struct data *data, struct error *error)
{
    struct recovery recovery = {.data = data};
    uint64_t discarded = 0;
    int rc = staging_recover(data->area, recover_one, &recovery, &discarded);
    if (rc)
        return error_set(error, rc, "recovery of staged writes: %s", strerror(-rc));
    if (discarded)
        log_warn("staged writes from before a restart of the host discarded", "bytes=%llu",
                 (unsigned long long)discarded);
    if (recovery.scratch)
        log_info("scratch files of the last mount removed", "files=%u", recovery.scratch);
    if (recovery.files == 0 && recovery.gone == 0)
        return 0;
    log_info("staged writes recovered", "files=%u bytes=%llu removed=%u", recovery.files,
             (unsigned long long)recovery.bytes, recovery.gone);
    size_t count;
    uint64_t *inos = list_recovered(data, &count);
    /* What close has promised to upload later is uploaded later. */
    rc = flush_wait(data, FLUSH_OTHERS);
    if (rc)
        log_error("recovered writes could not be uploaded yet", "error=%s", strerror(-rc));
    tell_changed(data, inos, inos ? count : 0);
    free(inos);
    return 0;
}

/* ---- open and close ---- */

static int open_parts(struct data *data, struct error *error)
{
    const struct data_config *config = &data->config;
    int rc = tickets_new(&data->read_tickets, config->buffer_bytes / 2);
    if (!rc)
        rc = tickets_new(&data->upload_tickets, config->buffer_bytes / 2);
    if (!rc)
        rc = buffers_new(data->upload_tickets, &data->upload_buffers);
    if (!rc)
        rc = pool_new(&data->pool, "data", DATA_THREADS);
    data->kept = calloc(DATA_KEPT_SLOTS, sizeof(*data->kept));
    if (!rc && !data->kept)
        rc = -ENOMEM;
    if (!rc && meta_era(config->meta))
        rc = inlined_new(&data->inlined);
    if (!rc)
        rc = reads_open(data);
    if (!rc)
        rc = pass_apply_open(data);
    if (!rc && config->cache && !config->read_only)
        rc = written_open(data);
    if (rc)
        return error_set(error, rc, "data path: %s", strerror(-rc));
    rc = durability_open(data, error);
    if (rc || config->read_only)
        return rc;
    return staging_area_open(config->staging_dir, config->staging_max, data->inline_most,
                             &data->area, error);
}

int data_open(const struct data_config *config, struct data **out, struct error *error)
{
    int rc = config_check(config, error);
    if (rc)
        return rc;
    struct data *data = calloc(1, sizeof(*data));
    if (!data)
        return error_set(error, -ENOMEM, "data path: no memory");
    data->config = *config;
    data->meta = config->meta;
    data->store = config->store;
    data->loop = config->loop;
    data->inline_most = meta_volume(config->meta)->inline_max;
    data->inline_max = MIN(data->inline_most, DATA_INLINE_ALWAYS);
    burst_init(&data->burst, clock_monotonic_ns());
    data->waiting_end = &data->waiting;
    pthread_mutex_init(&data->lock, NULL);
    pthread_mutex_init(&data->wait_lock, NULL);
    pthread_cond_init(&data->uploads_ended, NULL);
    pthread_cond_init(&data->files_gone, NULL);
    make_metrics(data);
    rc = open_parts(data, error);
    data->config.staging_dir = NULL;
    if (rc) {
        if (data->reads)
            reads_close(data);
        data_free(data);
        return rc;
    }
    tend_start(data);
    if (data->area)
        rc = recover(data, error);
    if (rc) {
        data_close(data);
        return rc;
    }
    *out = data;
    return 0;
}

static void wait_for_uploads(struct data *data)
{
    pthread_mutex_lock(&data->wait_lock);
    while (data->uploads)
        pthread_cond_wait(&data->uploads_ended, &data->wait_lock);
    pthread_mutex_unlock(&data->wait_lock);
}

/* Frees the files that are left: those that could not be uploaded stay on the disk. */
static unsigned leave_dirty(struct data *data)
{
    unsigned left = 0;
    for (;;) {
        pthread_mutex_lock(&data->lock);
        struct file *file = data->dirty ? file_ref(data->dirty) : NULL;
        pthread_mutex_unlock(&data->lock);
        if (!file)
            return left;
        pthread_mutex_lock(&file->lock);
        struct staging *staging = file->staging;
        file->staging = NULL;
        if (file->unlinked)
            staging_free(staging);
        else
            staging_leave(staging);
        left += !file->unlinked;
        pthread_mutex_unlock(&file->lock);
        file_dirty_update(file);
        file_put(file);
    }
}

/* What was in progress may hold a reference for a moment longer. False: somebody has a handle. */
static bool wait_for_files(struct data *data)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += CLOSE_WAIT_S;
    int rc = 0;
    pthread_mutex_lock(&data->lock);
    while (data->files && rc == 0)
        rc = pthread_cond_timedwait(&data->files_gone, &data->lock, &until);
    bool gone = data->files == NULL;
    pthread_mutex_unlock(&data->lock);
    return gone;
}

/* What stays for the next mount. */
static void sync_backlog(struct data *data)
{
    pthread_mutex_lock(&data->lock);
    size_t count = 0;
    struct file **files = calloc(atomic_load(&data->dirty_files) + 1, sizeof(struct file *));
    for (struct file *file = data->dirty; files && file; file = file->dirty_next)
        files[count++] = file_ref(file);
    pthread_mutex_unlock(&data->lock);
    for (size_t i = 0; i < count; i++) {
        int rc = durability_sync(files[i]);
        if (rc)
            log_error("staged data not synced", "ino=%llu error=%s",
                      (unsigned long long)files[i]->ino, strerror(-rc));
        file_put(files[i]);
    }
    free(files);
}

int data_close(struct data *data)
{
    bool keep = atomic_load(&data->keep);
    atomic_store(&data->stopping, true);
    pass_apply_close(data);
    pass_close(data);
    if (data->area)
        durability_drop_all(data);
    int rc = data->area ? flush_wait(data, keep ? FLUSH_OTHERS : FLUSH_ALL) : 0;
    tend_stop(data);
    wait_for_uploads(data);
    if (data->area && atomic_load(&data->local_files))
        sync_backlog(data);
    unsigned left = leave_dirty(data);
    if (left && keep && rc == 0)
        log_info("files wait for the next mount to be uploaded", "files=%u", left);
    else if (left)
        log_error("dirty files stay staged", "files=%u", left);
    written_close(TAKE_PTR(data->written));
    if (data->reads)
        reads_close(data);
    if (wait_for_files(data))
        data_free(data);
    else
        log_error("files are still open at the end", "files=%llu",
                  (unsigned long long)atomic_load(&data->file_count));
    return rc;
}
