/*
 * How fast settle may ask the store: at most so many requests and so many bytes in a second. Pure;
 * times are monotonic. Bytes are those that go through this process: what the store copies by
 * itself costs a request only.
 */
#ifndef SLUICE_META_SETTLE_RATE_H
#define SLUICE_META_SETTLE_RATE_H

#include <stdint.h>

struct settle_rate {
    uint64_t requests_per_s, bytes_per_s; /* 0: no limit */
    /* When the next request, or the next byte, has its turn. */
    uint64_t request_ns, byte_ns;
    uint64_t waited_ns; /* by all requests together */
};

/* Takes the next turn for a request with so many bytes: it may go after this many ns. */
uint64_t settle_rate_turn(struct settle_rate *rate, uint64_t now_ns, uint64_t bytes);

#endif
