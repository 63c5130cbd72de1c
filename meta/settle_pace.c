#include "settle_pace.h"

#include "base/cleanup.h"

void settle_load_operation(struct settle_load *load, uint64_t now_ns)
{
    uint64_t stretch = now_ns / SETTLE_PACE_QUIET_NS;
    unsigned count = 1;
    if (atomic_load_explicit(&load->stretch, memory_order_relaxed) == stretch) {
        count += atomic_fetch_add_explicit(&load->count, 1, memory_order_relaxed);
    } else {
        atomic_store_explicit(&load->stretch, stretch, memory_order_relaxed);
        atomic_store_explicit(&load->count, 1, memory_order_relaxed);
    }
    if (count >= SETTLE_PACE_BUSY)
        atomic_store_explicit(&load->busy_ns, now_ns, memory_order_relaxed);
}

unsigned settle_pace(struct settle_pace *pace, uint64_t now_ns, uint64_t busy_ns, uint64_t bound_ns,
                     unsigned parallel, uint64_t *wait_ns)
{
    /* The other clock reading may be newer than ours. */
    uint64_t quiet_ns = now_ns > busy_ns ? now_ns - busy_ns : 0;
    *wait_ns = 0;
    if (quiet_ns >= SETTLE_PACE_QUIET_NS || bound_ns == 0) {
        pace->held_ns = 0;
        return parallel;
    }
    if (pace->held_ns == 0)
        pace->held_ns = now_ns;
    uint64_t held_ns = now_ns - pace->held_ns;
    if (held_ns >= bound_ns)
        return (unsigned)MIN(held_ns / bound_ns, (uint64_t)parallel);
    *wait_ns = MIN(SETTLE_PACE_QUIET_NS - quiet_ns, bound_ns - held_ns);
    return 0;
}
