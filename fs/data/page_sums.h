/*
 * The checksums that the cache keeps of the pages of a file, taken while the file is written in
 * order: so the file can become a cached file without being read again. A page that was written
 * otherwise has no sum here. Pure memory; the caller's lock.
 */
#ifndef SLUICE_FS_PAGE_SUMS_H
#define SLUICE_FS_PAGE_SUMS_H

#include "cache/cache.h"

struct page_sums {
    struct cache_page_sum *pages; /* owned */
    uint64_t count, cap;
    /* The page that grows from its beginning on. */
    bool grows;
    uint64_t growing;
    struct cache_page_hash hash;
};

void page_sums_done(struct page_sums *sums);
/* Bytes were written at this offset of the file. blocks: their CRC-32Cs, as part_sums_write. */
void page_sums_write(struct page_sums *sums, uint64_t offset, const void *data, size_t len,
                     const uint32_t *blocks);
/* The range was changed in another way (UINT64_MAX: to the end): its pages have no sum any more. */
void page_sums_forget(struct page_sums *sums, uint64_t offset, uint64_t length);
/* The file ends at `size`: the last page, if it was written in order so far, is whole. */
void page_sums_end(struct page_sums *sums, uint64_t size);

#endif
