#include "settle_pace.h"

#include "base/cleanup.h"

#define WHOLE 16 /* of settle_pace_share: one request after the other */
#define LOOKED_NS (10 * SETTLE_PACE_QUIET_NS)

void settle_load_operation(struct settle_load *load, uint64_t now_ns, uint64_t bytes)
{
    uint64_t stretch = now_ns / SETTLE_PACE_QUIET_NS, count = 1 + bytes / SETTLE_PACE_BYTES;
    if (atomic_load_explicit(&load->stretch, memory_order_relaxed) == stretch) {
        atomic_fetch_add_explicit(&load->count, count, memory_order_relaxed);
    } else {
        atomic_store_explicit(&load->stretch, stretch, memory_order_relaxed);
        atomic_store_explicit(&load->count, count, memory_order_relaxed);
    }
    if (atomic_load_explicit(&load->count, memory_order_relaxed) >= SETTLE_PACE_BUSY)
        atomic_store_explicit(&load->busy_ns, now_ns, memory_order_relaxed);
}

uint64_t settle_load_busy_ns(const struct settle_load *load, uint64_t now_ns)
{
    if (atomic_load_explicit(&load->waiting, memory_order_relaxed))
        return now_ns;
    return atomic_load_explicit(&load->busy_ns, memory_order_relaxed);
}

void settle_pace_look(struct settle_pace *pace, uint64_t now_ns, uint64_t busy_ns)
{
    /* Who has work looks more often than once in LOOKED_NS. */
    uint64_t past_ns = pace->seen_ns ? MIN(now_ns - pace->seen_ns, LOOKED_NS) : 0;
    if (pace->held)
        pace->held_ns += past_ns;
    else
        pace->held_ns -= MIN(pace->held_ns, SETTLE_PACE_FREE * past_ns);
    pace->seen_ns = now_ns;
    /* The other clock reading may be newer than ours. */
    pace->quiet_ns = MIN(busy_ns, now_ns) + SETTLE_PACE_QUIET_NS;
    pace->held = pace->bound_ns && pace->quiet_ns > now_ns;
}

void settle_pace_idle(struct settle_pace *pace)
{
    pace->held_ns = pace->seen_ns = 0;
    pace->held = false;
}

/* 1, 2, 4, 8 and 16 after 1, 2, 4, 8 and 16 bounds, then as many as there were bounds. */
unsigned settle_pace_share(const struct settle_pace *pace)
{
    uint64_t bounds = pace->bound_ns ? pace->held_ns / pace->bound_ns : 0;
    unsigned share = 1;
    if (bounds >= WHOLE)
        return (unsigned)MIN(bounds, (uint64_t)UINT16_MAX);
    while (2 * share <= bounds)
        share *= 2;
    return share;
}

unsigned settle_pace_files(const struct settle_pace *pace, uint64_t now_ns, unsigned parallel,
                           uint64_t *wait_ns)
{
    *wait_ns = 0;
    if (!pace->held)
        return parallel;
    uint64_t from_ns = pace->next_ns;
    if (pace->held_ns < pace->bound_ns)
        from_ns = MAX(from_ns, now_ns + (pace->bound_ns - pace->held_ns));
    if (from_ns > now_ns) {
        *wait_ns = MIN(from_ns, pace->quiet_ns) - now_ns;
        return 0;
    }
    return MIN(MAX(settle_pace_share(pace) / WHOLE, 1u), parallel);
}

bool settle_pace_may_send(const struct settle_pace *pace, uint64_t now_ns, uint64_t *wait_ns)
{
    *wait_ns = 0;
    if (!pace->held)
        return true;
    bool full = pace->flying >= MAX(settle_pace_share(pace) / WHOLE, 1u);
    if (!full && pace->next_ns <= now_ns)
        return true;
    *wait_ns = (full ? pace->quiet_ns : MIN(pace->next_ns, pace->quiet_ns)) - now_ns;
    return false;
}

void settle_pace_sent(struct settle_pace *pace)
{
    pace->flying++;
}

void settle_pace_ended(struct settle_pace *pace, uint64_t now_ns, uint64_t took_ns)
{
    unsigned share = MIN(settle_pace_share(pace), (unsigned)WHOLE);
    pace->flying--;
    if (pace->held)
        pace->next_ns = now_ns + took_ns * (WHOLE - share) / share;
}
