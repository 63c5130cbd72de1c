/*
 * Whether a disk is used: a pure function of what its I/O said. A disk that fails or is slow is
 * left alone for a while, which doubles; then one request at a time tries it, and when that went
 * well it is used again. Times: ms, monotonic.
 */
#ifndef SLUICE_CACHE_HEALTH_H
#define SLUICE_CACHE_HEALTH_H

#include <stdbool.h>
#include <stdint.h>

#include "cache/cache.h"

#define HEALTH_WINDOW_MS 10000 /* failures are counted within */
#define HEALTH_STRIKES 3       /* failures that are too many */
#define HEALTH_PAUSE_MIN_MS 1000
#define HEALTH_PAUSE_MAX_MS 60000
#define HEALTH_FULL_MS 1000 /* no fills for so long after ENOSPC */

struct health {
    enum cache_health state; /* GOOD, SLOW or FAILED; FULL is besides */
    uint32_t slow_ms;
    uint64_t window_start;
    unsigned strikes;
    uint64_t pause_ms, retry_at;
    bool trying; /* one request is out to see */
    uint64_t try_started;
    uint64_t full_until;
};

void health_init(struct health *health, uint32_t slow_ms);
/* May I/O be sent now? *trial: this one is to see; it must be reported by health_report. */
bool health_allows(struct health *health, uint64_t now, bool *trial);
/* As health_allows, without sending: for queries. */
bool health_usable(const struct health *health, uint64_t now);
/* What became of an I/O: 0 or -errno, -ETIMEDOUT as soon as it was given up. True: the state
 * changed. */
bool health_report(struct health *health, uint64_t now, int result, uint64_t latency_ms,
                   bool trial);
bool health_full(const struct health *health, uint64_t now);

#endif
