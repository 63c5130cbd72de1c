#include "burst.h"

#include "base/cleanup.h"
#include "base/clock.h"

/* Longer than an empty one needs to be full. */
#define FULL_NS ((BURST_BYTES / BURST_PER_SECOND + 1) * NS_PER_S)

void burst_init(struct burst *burst, uint64_t now_ns)
{
    *burst = (struct burst){.left = BURST_BYTES, .seen_ns = now_ns};
}

bool burst_take(struct burst *burst, uint64_t bytes, uint64_t now_ns)
{
    /* Times of several threads may come in another order. */
    if (now_ns > burst->seen_ns) {
        uint64_t passed_ns = MIN(now_ns - burst->seen_ns, FULL_NS);
        uint64_t more = passed_ns * BURST_PER_SECOND / NS_PER_S;
        burst->left = MIN(burst->left + more, BURST_BYTES);
        burst->seen_ns = now_ns;
    }
    if (bytes > burst->left)
        return false;
    burst->left -= bytes;
    return true;
}
