/*
 * Where the parts of an upload begin, and the checksums of those that were written in order.
 *
 * Bytes are summed when the application writes them, while they are warm in the processor's cache.
 * A part that was written from its beginning to its end is then sent as it lies in the staging
 * file, without reading it before; and what the store checks is what the application wrote. A part
 * that was written otherwise has no sum here. Pure memory; the caller's lock.
 */
#ifndef SLUICE_FS_PART_SUMS_H
#define SLUICE_FS_PART_SUMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Parts of one object; a larger file becomes several objects, which settle joins. */
#define PARTS_MAX 9000u

/* Offset and length of part `index` (from 0) in an object of any size. */
uint64_t part_offset(uint32_t part_bytes, unsigned index);
uint64_t part_size(uint32_t part_bytes, unsigned index);
/* The part that has the byte at `offset`. */
unsigned part_index(uint32_t part_bytes, uint64_t offset);

struct part_sum {
    uint32_t crc32c;
    bool known;
};

struct part_sums {
    uint32_t part_bytes;
    struct part_sum *parts; /* owned */
    unsigned count;
    /* The part that grows: the bytes from its beginning on, as far as they were written in order.
     */
    bool grows;
    unsigned growing;
    uint64_t grown;
    uint32_t crc32c;
};

void part_sums_init(struct part_sums *sums, uint32_t part_bytes);
void part_sums_done(struct part_sums *sums);
/* Bytes were written at this offset of the file. blocks: NULL, or, at an offset that is a multiple
 * of HASH_BLOCK, the CRC-32C of each whole block of them: then these are not read again. */
void part_sums_write(struct part_sums *sums, uint64_t offset, const void *data, size_t len,
                     const uint32_t *blocks);
/* The range was changed in another way (UINT64_MAX: to the end): its parts have no sum any more. */
void part_sums_forget(struct part_sums *sums, uint64_t offset, uint64_t length);
/* The sum of the first `length` bytes of a part; false: not known. */
bool part_sums_get(const struct part_sums *sums, unsigned index, uint64_t length, uint32_t *crc32c);

#endif
