/* For tests: what I/O of the cache does, in place of what the disk does. Any thread. */
#ifndef SLUICE_CACHE_FAULT_H
#define SLUICE_CACHE_FAULT_H

#include "cache/cache.h"
#include "disk.h"

void cache_fault_set(struct cache *cache, const struct disk_fault *fault);

#endif
