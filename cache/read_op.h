/* One cache_read under way. Private to the cache. */
#ifndef SLUICE_CACHE_READ_OP_H
#define SLUICE_CACHE_READ_OP_H

#include "disk.h"

struct read_op {
    struct cache_read *read; /* NULL: given up, the caller has gone on */
    struct disk *disk;
    unsigned pending;
    int result;
    bool trial;
    uint64_t start_ms;
    struct read_op *prev, *next; /* disk->reads, while read is set */
    unsigned io_count;
    struct iovec *iov; /* io_count of them, behind ios */
    struct disk_io ios[];
};

/* Takes the memory of an op back. With the disk's lock. */
void read_op_free_locked(struct read_op *op);

#endif
