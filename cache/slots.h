/*
 * Aligned memory for I/O in two sizes, in regions that can be registered with io_uring. Free lists;
 * the caller locks.
 */
#ifndef SLUICE_CACHE_SLOTS_H
#define SLUICE_CACHE_SLOTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define SLOTS_SMALL 4096u
#define SLOTS_LARGE (128u << 10)
#define SLOTS_REGIONS 2

struct slots {
    void *region[SLOTS_REGIONS]; /* 0: large ones, 1: small ones */
    size_t region_len[SLOTS_REGIONS];
    void *free[SLOTS_REGIONS]; /* a list through the first bytes */
    unsigned free_count[SLOTS_REGIONS], count[SLOTS_REGIONS];
};

/* bytes: of both regions together. 0 or -ENOMEM. */
int slots_init(struct slots *slots, uint64_t bytes);
void slots_done(struct slots *slots);
void slots_iovecs(const struct slots *slots, struct iovec out[SLOTS_REGIONS]);
/* For len bytes (at most SLOTS_LARGE); NULL if there is none. A fill leaves half of the large ones
 * to readers. *region: that it is of. */
void *slots_take(struct slots *slots, size_t len, bool fill, int *region);
/* Memory that is of no region is not its own: false. */
bool slots_put(struct slots *slots, void *slot);

#endif
