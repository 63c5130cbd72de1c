/*
 * How many bytes of files of medium size may go to the metadata: a burst of them is committed with
 * one sync each where an object would cost its writer a round trip to the store; what comes for
 * longer goes to the store at once, since the metadata writes each byte several times. A bucket of
 * tokens: full at the start, filled again with time. Pure: no clock, no lock.
 */
#ifndef SLUICE_FS_BURST_H
#define SLUICE_FS_BURST_H

#include <stdbool.h>
#include <stdint.h>

#define BURST_BYTES (64u << 20)     /* at once */
#define BURST_PER_SECOND (8u << 20) /* bytes that may follow */

struct burst {
    uint64_t left;    /* bytes */
    uint64_t seen_ns; /* when `left` was right; monotonic */
};

void burst_init(struct burst *burst, uint64_t now_ns);
/* True: `bytes` may go, and are counted. */
bool burst_take(struct burst *burst, uint64_t bytes, uint64_t now_ns);

#endif
