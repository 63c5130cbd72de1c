/* What a disk of the cache counts, as metrics. */
#include <stdio.h>

#include "base/cleanup.h"
#include "disk.h"

static const struct {
    const char *name, *help;
    size_t offset; /* of a counter in struct cache_status */
} counters[] = {
    {"sluice_cache_hit_bytes_total", "Bytes asked of the cache that were there.",
     offsetof(struct cache_status, hit_bytes)},
    {"sluice_cache_miss_bytes_total", "Bytes asked of the cache that were not there.",
     offsetof(struct cache_status, miss_bytes)},
    {"sluice_cache_read_bytes_total", "Bytes read from the cache.",
     offsetof(struct cache_status, read_bytes)},
    {"sluice_cache_filled_bytes_total", "Bytes written to the cache.",
     offsetof(struct cache_status, filled_bytes)},
    {"sluice_cache_evicted_bytes_total", "Bytes that left the cache.",
     offsetof(struct cache_status, evicted_bytes)},
    {"sluice_cache_fills_dropped_total", "Pages that were not cached: no memory, room or disk.",
     offsetof(struct cache_status, fills_dropped)},
    {"sluice_cache_corrupt_pages_total", "Pages that did not match their checksum.",
     offsetof(struct cache_status, corrupt_pages)},
    {"sluice_cache_read_errors_total", "Reads that the disk failed.",
     offsetof(struct cache_status, read_errors)},
    {"sluice_cache_write_errors_total", "Writes that the disk failed.",
     offsetof(struct cache_status, write_errors)},
    {"sluice_cache_timeouts_total", "Reads that were given up because the disk was slow.",
     offsetof(struct cache_status, timeouts)},
};

enum { GAUGE_BYTES = ARRAY_LEN(counters), GAUGE_PAGES, GAUGE_HEALTH, GAUGE_COUNT };
_Static_assert(GAUGE_COUNT <= DISK_METRICS_MAX, "room for all metrics");

void disk_metrics_init(struct disk *disk, struct metrics *metrics)
{
    char labels[300];
    snprintf(labels, sizeof(labels), "directory=\"%s\"", disk->path);
    for (char *p = labels + sizeof("directory=\"") - 1; p[0] && p[1]; p++)
        if (*p == '"' || *p == '\\' || *p == '\n')
            *p = '_';
    for (size_t i = 0; i < ARRAY_LEN(counters); i++)
        disk->metrics[i] = metrics_counter(metrics, counters[i].name, labels, counters[i].help);
    disk->metrics[GAUGE_BYTES] =
        metrics_gauge(metrics, "sluice_cache_bytes", labels, "Bytes in the cache.");
    disk->metrics[GAUGE_PAGES] =
        metrics_gauge(metrics, "sluice_cache_pages", labels, "Pages in the cache.");
    disk->metrics[GAUGE_HEALTH] =
        metrics_gauge(metrics, "sluice_cache_health", labels,
                      "State of the disk: 0 good, 1 full, 2 slow, 3 failed.");
}

static uint64_t counter(const struct cache_status *status, size_t i)
{
    return *(const uint64_t *)((const char *)status + counters[i].offset);
}

void disk_metrics_update(struct disk *disk)
{
    pthread_mutex_lock(&disk->lock);
    struct cache_status now = disk->stats;
    uint64_t bytes = disk->index.bytes, pages = disk->index.pages;
    enum cache_health health = disk->health.state;
    if (health == CACHE_GOOD && disk->no_room)
        health = CACHE_FULL;
    pthread_mutex_unlock(&disk->lock);
    for (size_t i = 0; i < ARRAY_LEN(counters); i++)
        metric_add(disk->metrics[i], counter(&now, i) - counter(&disk->counted, i));
    disk->counted = now;
    metric_set(disk->metrics[GAUGE_BYTES], (int64_t)bytes);
    metric_set(disk->metrics[GAUGE_PAGES], (int64_t)pages);
    metric_set(disk->metrics[GAUGE_HEALTH], health);
}
