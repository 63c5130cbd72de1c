#include "health.h"

#include <errno.h>

#include "base/cleanup.h"

void health_init(struct health *health, uint32_t slow_ms)
{
    *health = (struct health){.state = CACHE_GOOD, .slow_ms = slow_ms};
}

/* A trial whose result never came does not keep the disk out for ever. */
static bool trial_due(const struct health *health, uint64_t now)
{
    return now >= health->retry_at &&
           (!health->trying || now >= health->try_started + HEALTH_PAUSE_MAX_MS);
}

bool health_usable(const struct health *health, uint64_t now)
{
    return health->state == CACHE_GOOD || trial_due(health, now);
}

bool health_allows(struct health *health, uint64_t now, bool *trial)
{
    *trial = false;
    if (health->state == CACHE_GOOD)
        return true;
    if (!trial_due(health, now))
        return false;
    health->trying = *trial = true;
    health->try_started = now;
    return true;
}

static void leave_alone(struct health *health, uint64_t now, enum cache_health state)
{
    health->pause_ms = health->pause_ms ? MIN(health->pause_ms * 2, (uint64_t)HEALTH_PAUSE_MAX_MS)
                                        : HEALTH_PAUSE_MIN_MS;
    health->state = state;
    health->retry_at = now + health->pause_ms;
    health->strikes = 0;
    health->trying = false;
}

/* Errors after which the next request will not go better. */
static bool hopeless(int result)
{
    return result == -EROFS || result == -ENODEV || result == -ENXIO || result == -ESHUTDOWN;
}

bool health_report(struct health *health, uint64_t now, int result, uint64_t latency_ms, bool trial)
{
    enum cache_health before = health->state;
    if (result == -ENOSPC || result == -EDQUOT) {
        health->full_until = now + HEALTH_FULL_MS;
        result = 0;
    }
    bool slow = result == -ETIMEDOUT || latency_ms > health->slow_ms;
    bool bad = slow || (result < 0 && result != -ECANCELED && result != -ENOENT);
    enum cache_health state = slow ? CACHE_SLOW : CACHE_FAILED;
    if (!bad) {
        if (trial) {
            health->state = CACHE_GOOD;
            health->pause_ms = 0;
            health->trying = false;
        }
    } else if (trial || (health->state == CACHE_GOOD && hopeless(result))) {
        leave_alone(health, now, state);
    } else if (health->state == CACHE_GOOD) {
        if (now > health->window_start + HEALTH_WINDOW_MS) {
            health->window_start = now;
            health->strikes = 0;
        }
        if (++health->strikes >= HEALTH_STRIKES)
            leave_alone(health, now, state);
    }
    return health->state != before;
}

bool health_full(const struct health *health, uint64_t now)
{
    return now < health->full_until;
}
