#include "backup_job.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "meta/backup.h"

struct backup_job {
    /* immutable */
    struct meta *meta;
    struct store *store, *own_store; /* own_store: of backup_to; else NULL */
    struct store_url url;            /* of backup_to */
    char base[META_KEY_MAX + 1];
    uint32_t interval_ms;
    unsigned keep;
    struct metric *done, *failed, *sent, *last;
    pthread_t thread;

    pthread_mutex_t lock;
    pthread_cond_t wake;
    atomic_bool stop; /* set under lock */
};

static int run_once(struct backup_job *job, struct backup_result *result, struct error *error)
{
    const char *directory;
    uint64_t applied;
    int rc = meta_checkpoint(job->meta, &directory, &applied, error);
    if (rc < 0)
        return rc;
    struct backup_config config = {
        .place = {.store = job->store, .base = job->base},
        .directory = directory,
        .volume = meta_volume(job->meta),
        .applied = applied,
        .keep = job->keep,
        .stop = &job->stop,
    };
    rc = backup_run(&config, result, error);
    meta_checkpoint_drop(job->meta);
    return rc;
}

static void backup(struct backup_job *job)
{
    struct backup_result result = {0};
    struct error error = {0};
    int rc = run_once(job, &result, &error);
    if (rc == -ECANCELED)
        return;
    metric_add(rc < 0 ? job->failed : job->done, 1);
    if (rc < 0) {
        log_error("backup failed", "error=%s detail=\"%s\"", strerror(-rc), error_text(&error));
        return;
    }
    metric_add(job->sent, result.sent_bytes);
    metric_set(job->last, (int64_t)(clock_wall_ns() / NS_PER_S));
    log_info("backup complete", "time=%s bytes=%llu sent_bytes=%llu removed=%u", result.time,
             (unsigned long long)result.bytes, (unsigned long long)result.sent_bytes,
             result.removed);
}

/* Waits for the interval; false: the job ends. */
static bool wait_for_next(struct backup_job *job)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += job->interval_ms / 1000;
    until.tv_nsec += (long)(job->interval_ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    int rc = 0;
    pthread_mutex_lock(&job->lock);
    while (!atomic_load(&job->stop) && rc != ETIMEDOUT)
        rc = pthread_cond_timedwait(&job->wake, &job->lock, &until);
    bool go_on = !atomic_load(&job->stop);
    pthread_mutex_unlock(&job->lock);
    return go_on;
}

static void *serve(void *arg)
{
    struct backup_job *job = arg;
    while (wait_for_next(job))
        backup(job);
    return NULL;
}

static int open_place(struct backup_job *job, const struct mount_options *options,
                      struct loop *loop, struct error *error)
{
    struct store_options store;
    if (!options->backup_to) {
        backup_base(meta_volume(job->meta)->prefix, job->base);
        return 0;
    }
    int rc = store_url_parse(options->backup_to, &job->url, error);
    if (rc < 0)
        return error_prefix(error, "--backup-to");
    mount_options_store(options, &store);
    rc = store_open(&job->url, &store, loop, NULL, &job->own_store, error);
    if (rc == 0)
        rc = store_probe(job->own_store, job->url.prefix, NULL, NULL, error);
    if (rc < 0)
        return error_prefix(error, "--backup-to");
    job->store = job->own_store;
    snprintf(job->base, sizeof(job->base), "%s", job->url.prefix);
    return 0;
}

static void free_job(struct backup_job *job)
{
    store_free(job->own_store);
    store_url_done(&job->url);
    pthread_cond_destroy(&job->wake);
    pthread_mutex_destroy(&job->lock);
    free(job);
}

static void make_metrics(struct backup_job *job, const struct backup_job_config *config)
{
    char complete[160], failed[160], volume[128] = "";
    if (config->volume)
        snprintf(volume, sizeof(volume), "volume=\"%s\"", config->volume);
    const char *comma = config->volume ? "," : "";
    snprintf(complete, sizeof(complete), "result=\"complete\"%s%s", comma, volume);
    snprintf(failed, sizeof(failed), "result=\"failed\"%s%s", comma, volume);
    job->done = metrics_counter(config->metrics, "sluice_backups_total", complete,
                                "Backups of the metadata by result.");
    job->failed = metrics_counter(config->metrics, "sluice_backups_total", failed,
                                  "Backups of the metadata by result.");
    job->sent = metrics_counter(config->metrics, "sluice_backup_sent_bytes_total", volume,
                                "Bytes of backups that were sent.");
    job->last =
        metrics_gauge(config->metrics, "sluice_backup_last_success_timestamp_seconds", volume,
                      "When the last backup of this process was complete; 0: none yet.");
}

int backup_job_start(const struct backup_job_config *config, struct backup_job **out,
                     struct error *error)
{
    const struct mount_options *options = config->options;
    *out = NULL;
    if (!options->backup_interval_ms || options->read_only)
        return 0;
    struct backup_job *job = calloc(1, sizeof(*job));
    if (!job)
        return error_set(error, -ENOMEM, "out of memory");
    *job = (struct backup_job){.meta = config->meta,
                               .store = config->store,
                               .interval_ms = options->backup_interval_ms,
                               .keep = options->backup_keep};
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&job->wake, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&job->lock, NULL);
    make_metrics(job, config);
    int rc = open_place(job, options, config->loop, error);
    if (rc == 0 && (rc = -pthread_create(&job->thread, NULL, serve, job)) < 0)
        error_set(error, rc, "cannot start a thread: %s", strerror(-rc));
    if (rc < 0)
        free_job(job);
    else
        *out = job;
    return rc;
}

void backup_job_free(struct backup_job *job)
{
    if (!job)
        return;
    pthread_mutex_lock(&job->lock);
    atomic_store(&job->stop, true);
    pthread_cond_signal(&job->wake);
    pthread_mutex_unlock(&job->lock);
    pthread_join(job->thread, NULL);
    free_job(job);
}
