#include "settle_pace.h"

#include "base/cleanup.h"

unsigned settle_pace(struct settle_pace *pace, uint64_t now_ns, uint64_t last_ns, uint64_t bound_ns,
                     unsigned parallel, uint64_t *wait_ns)
{
    /* The other clock reading may be newer than ours. */
    uint64_t quiet_ns = now_ns > last_ns ? now_ns - last_ns : 0;
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
