#include "mount_metrics.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/metrics_http.h"

#define SNAPSHOT_NS (NS_PER_S / 2) /* one reading serves all gauges of a scrape */

enum {
    VOLUME_BYTES,
    VOLUME_FILES,
    VOLUME_DIRECTORIES,
    UNSETTLED_FILES,
    UNSETTLED_BYTES,
    UNSETTLED_AGE,
    GARBAGE_OBJECTS,
    GARBAGE_BYTES,
    OPEN_FILES,
    DIRTY_FILES,
    STAGED_BYTES,
    STAGING_LIMIT,
    BACKLOG_FILES,
    BACKLOG_BYTES,
    BACKLOG_AGE,
    SCRATCH_BYTES,
    BUFFER_BYTES,
    REFUSES,
    READY,
    RESIDENT_BYTES,
    OPEN_FDS,
    GAUGE_COUNT
};

static const struct {
    const char *name, *help;
} gauges[GAUGE_COUNT] = {
    [VOLUME_BYTES] = {"sluice_volume_bytes", "Bytes of all files of the volume."},
    [VOLUME_FILES] = {"sluice_volume_files", "Names of files in the volume."},
    [VOLUME_DIRECTORIES] = {"sluice_volume_directories", "Directories of the volume."},
    [UNSETTLED_FILES] = {"sluice_volume_unsettled_files",
                         "Files that are not one object at their own key yet."},
    [UNSETTLED_BYTES] = {"sluice_volume_unsettled_bytes", "Bytes of unsettled files."},
    [UNSETTLED_AGE] = {"sluice_volume_unsettled_age_seconds",
                       "For how long the oldest unsettled file has been so."},
    [GARBAGE_OBJECTS] = {"sluice_volume_garbage_objects", "Objects that wait to be deleted."},
    [GARBAGE_BYTES] = {"sluice_volume_garbage_bytes", "Bytes of objects that wait to be deleted."},
    [OPEN_FILES] = {"sluice_data_open_files", "Files that are open or have unsent data."},
    [DIRTY_FILES] = {"sluice_data_dirty_files", "Files with data that is not committed."},
    [STAGED_BYTES] = {"sluice_data_staged_bytes", "Written bytes on the local disk."},
    [STAGING_LIMIT] = {"sluice_data_staging_limit_bytes",
                       "Staged bytes beyond which writers wait."},
    [BACKLOG_FILES] = {"sluice_data_backlog_files",
                       "Files acknowledged by the local disk that are not uploaded yet."},
    [BACKLOG_BYTES] = {"sluice_data_backlog_bytes", "Bytes of such files."},
    [BACKLOG_AGE] = {"sluice_data_backlog_age_seconds",
                     "For how long the oldest of them has been so."},
    [SCRATCH_BYTES] = {"sluice_data_scratch_bytes",
                       "Bytes of scratch files, which are never uploaded."},
    [BUFFER_BYTES] = {"sluice_data_buffer_bytes", "Memory of read-ahead and uploads."},
    [REFUSES] =
        {"sluice_volume_refuses_changes",
         "1 if the volume takes no changes any more (the prefix was lost to another owner)."},
    [READY] = {"sluice_mount_ready", "1 while the mount can be used."},
    [RESIDENT_BYTES] = {"process_resident_memory_bytes", "Resident memory size in bytes."},
    [OPEN_FDS] = {"process_open_fds", "Number of open file descriptors."},
};

struct gauge {
    struct mount_metrics *owner;
    int which;
};

struct mount_metrics {
    struct metrics_http *http;
    struct gauge gauges[GAUGE_COUNT];

    pthread_mutex_t lock;
    /* under lock */
    struct meta *meta; /* NULL: not open */
    struct data *data;
    uint64_t staging_max;
    bool ready;
    uint64_t read_ns; /* when `values` were read; 0: never */
    int64_t values[GAUGE_COUNT];
};

static void read_volume(struct mount_metrics *m)
{
    struct meta_request usage = {.op = {.kind = META_USAGE, .ino = META_ROOT_INO}};
    struct meta_request drift = {.op = {.kind = META_DRIFT, .ino = META_ROOT_INO}};
    if (meta_call(m->meta, &usage) == 0) {
        m->values[VOLUME_BYTES] = (int64_t)usage.reply.usage.bytes;
        m->values[VOLUME_FILES] = (int64_t)usage.reply.usage.files;
        m->values[VOLUME_DIRECTORIES] = (int64_t)usage.reply.usage.directories;
    }
    meta_reply_done(&usage.reply);
    if (meta_call(m->meta, &drift) == 0) {
        const struct meta_drift *d = &drift.reply.drift;
        uint64_t now = clock_wall_ns();
        m->values[UNSETTLED_FILES] = (int64_t)d->files;
        m->values[UNSETTLED_BYTES] = (int64_t)d->bytes;
        m->values[UNSETTLED_AGE] =
            d->oldest_ns && now > d->oldest_ns ? (int64_t)((now - d->oldest_ns) / NS_PER_S) : 0;
        m->values[GARBAGE_OBJECTS] = (int64_t)d->garbage_objects;
        m->values[GARBAGE_BYTES] = (int64_t)d->garbage_bytes;
    }
    meta_reply_done(&drift.reply);
    m->values[REFUSES] = meta_refuses_changes(m->meta);
}

static void read_data(struct mount_metrics *m)
{
    struct data_stats stats;
    data_stats(m->data, &stats);
    m->values[OPEN_FILES] = (int64_t)stats.open_files;
    m->values[DIRTY_FILES] = (int64_t)stats.dirty_files;
    m->values[STAGED_BYTES] = (int64_t)stats.staged_bytes;
    m->values[BACKLOG_FILES] = (int64_t)stats.backlog_files;
    m->values[BACKLOG_BYTES] = (int64_t)stats.backlog_bytes;
    m->values[BACKLOG_AGE] = (int64_t)(stats.backlog_age_ms / 1000);
    m->values[SCRATCH_BYTES] = (int64_t)stats.scratch_bytes;
    m->values[BUFFER_BYTES] = (int64_t)stats.buffer_bytes;
    m->values[STAGING_LIMIT] = (int64_t)m->staging_max;
}

static int64_t resident_bytes(void)
{
    unsigned long long all, resident;
    char text[128];
    FILE *f = fopen("/proc/self/statm", "re");
    char *line = f ? fgets(text, sizeof(text), f) : NULL;
    if (f)
        fclose(f);
    if (!line)
        return 0;
    char *end;
    all = strtoull(line, &end, 10);
    resident = all ? strtoull(end, NULL, 10) : 0;
    return (int64_t)resident * sysconf(_SC_PAGESIZE);
}

static int64_t open_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int64_t count = 0;
    if (!dir)
        return 0;
    while (readdir(dir))
        count++;
    closedir(dir);
    return count > 3 ? count - 3 : 0; /* ".", ".." and the directory itself */
}

static int64_t read_gauge(void *arg)
{
    const struct gauge *gauge = arg;
    struct mount_metrics *m = gauge->owner;
    pthread_mutex_lock(&m->lock);
    uint64_t now = clock_monotonic_ns();
    if (!m->read_ns || now - m->read_ns > SNAPSHOT_NS) {
        if (m->meta) {
            read_volume(m);
            read_data(m);
        }
        m->values[READY] = m->ready;
        m->values[RESIDENT_BYTES] = resident_bytes();
        m->values[OPEN_FDS] = open_fds();
        m->read_ns = now;
    }
    int64_t value = m->values[gauge->which];
    pthread_mutex_unlock(&m->lock);
    return value;
}

static bool is_ready(void *arg, char *why, size_t len)
{
    struct mount_metrics *m = arg;
    pthread_mutex_lock(&m->lock);
    bool ready = m->ready && m->meta;
    bool refuses = ready && meta_refuses_changes(m->meta);
    pthread_mutex_unlock(&m->lock);
    if (refuses)
        snprintf(why, len, "the volume takes no changes any more; see the log");
    else if (!ready)
        snprintf(why, len, "not mounted");
    return ready && !refuses;
}

static void add_gauges(struct mount_metrics *m, struct metrics *metrics)
{
    for (int i = 0; i < GAUGE_COUNT; i++) {
        m->gauges[i] = (struct gauge){.owner = m, .which = i};
        metrics_callback(metrics, gauges[i].name, "", gauges[i].help, read_gauge, &m->gauges[i]);
    }
    metric_set(metrics_gauge(metrics, "process_start_time_seconds", "",
                             "Start time of the process since unix epoch in seconds."),
               (int64_t)(clock_wall_ns() / NS_PER_S));
    metric_set(metrics_gauge(metrics, "sluice_build_info", "version=\"" SLUICE_VERSION "\"",
                             "The version that runs; always 1."),
               1);
}

int mount_metrics_start(struct metrics *metrics, const char *address, struct mount_metrics **out,
                        struct error *error)
{
    struct mount_metrics *m = calloc(1, sizeof(*m));
    if (!m)
        return error_set(error, -ENOMEM, "out of memory");
    pthread_mutex_init(&m->lock, NULL);
    add_gauges(m, metrics);
    *out = m; /* the registry has its gauges: it stays, whatever comes */
    if (!address)
        return 0;
    struct metrics_http_config config = {
        .address = address, .metrics = metrics, .ready = is_ready, .arg = m};
    int rc = metrics_http_start(&config, &m->http, error);
    if (rc < 0)
        return error_prefix(error, "--metrics-address");
    log_info("metrics served", "address=%s port=%u", address, metrics_http_port(m->http));
    return 0;
}

void mount_metrics_open(struct mount_metrics *m, struct meta *meta, struct data *data,
                        uint64_t staging_max)
{
    pthread_mutex_lock(&m->lock);
    m->meta = meta;
    m->data = data;
    m->staging_max = staging_max;
    m->read_ns = 0;
    pthread_mutex_unlock(&m->lock);
}

void mount_metrics_ready(struct mount_metrics *m)
{
    pthread_mutex_lock(&m->lock);
    m->ready = true;
    m->read_ns = 0;
    pthread_mutex_unlock(&m->lock);
}

void mount_metrics_close(struct mount_metrics *m)
{
    if (!m)
        return;
    pthread_mutex_lock(&m->lock);
    m->meta = NULL;
    m->data = NULL;
    m->ready = false;
    pthread_mutex_unlock(&m->lock);
}

void mount_metrics_stop(struct mount_metrics *m)
{
    if (m)
        metrics_http_stop(TAKE_PTR(m->http));
}

void mount_metrics_free(struct mount_metrics *m)
{
    if (!m)
        return;
    pthread_mutex_destroy(&m->lock);
    free(m);
}
