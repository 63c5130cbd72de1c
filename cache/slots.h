/*
 * Aligned memory for I/O in two sizes. Memory that was never taken, or was given back, is not
 * there. Free lists; the caller locks.
 */
#ifndef SLUICE_CACHE_SLOTS_H
#define SLUICE_CACHE_SLOTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SLOTS_SMALL 4096u
#define SLOTS_LARGE (128u << 10)
#define SLOTS_REGIONS 2

struct slots {
    void *region[SLOTS_REGIONS]; /* 0: large ones, 1: small ones */
    size_t region_len[SLOTS_REGIONS];
    void *free[SLOTS_REGIONS]; /* a list through the first bytes, of those that were used before */
    unsigned fresh[SLOTS_REGIONS]; /* slots from this number on were never taken */
    unsigned free_count[SLOTS_REGIONS], count[SLOTS_REGIONS];
};

/* bytes: of both regions together. 0 or -ENOMEM. */
int slots_init(struct slots *slots, uint64_t bytes);
void slots_done(struct slots *slots);
/* For len bytes (at most SLOTS_LARGE); NULL if there is none. A fill leaves half of the large ones
 * to readers. */
void *slots_take(struct slots *slots, size_t len, bool fill);
/* Memory that is of no region is not its own: false. */
bool slots_put(struct slots *slots, void *slot);
/* Some memory is held that nobody uses, and none that somebody uses. */
bool slots_idle(const struct slots *slots);
/* While slots_idle: all of it goes back to the operating system. */
void slots_trim(struct slots *slots);

#endif
