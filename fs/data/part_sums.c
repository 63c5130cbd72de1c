#include "part_sums.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/hash.h"

#define PART_MAX (64ull << 20)

/* Equal parts for the first 16 GiB: a local store joins them without a copy; then larger ones. */
static const struct {
    unsigned first, factor;
} steps[] = {{0, 1}, {2000, 4}, {4000, 8}};

static uint64_t step_size(uint32_t part_bytes, size_t step)
{
    uint64_t size = part_bytes;
    return MAX(size, MIN(size * steps[step].factor, PART_MAX));
}

uint64_t part_size(uint32_t part_bytes, unsigned index)
{
    size_t step = ARRAY_LEN(steps) - 1;
    while (index < steps[step].first)
        step--;
    return step_size(part_bytes, step);
}

uint64_t part_offset(uint32_t part_bytes, unsigned index)
{
    uint64_t offset = 0;
    for (size_t i = 0; i < ARRAY_LEN(steps) && index > steps[i].first; i++) {
        unsigned end = i + 1 < ARRAY_LEN(steps) ? MIN(index, steps[i + 1].first) : index;
        offset += (end - steps[i].first) * step_size(part_bytes, i);
    }
    return offset;
}

unsigned part_index(uint32_t part_bytes, uint64_t offset)
{
    size_t step = ARRAY_LEN(steps) - 1;
    while (step > 0 && offset < part_offset(part_bytes, steps[step].first))
        step--;
    uint64_t inside = offset - part_offset(part_bytes, steps[step].first);
    uint64_t index = steps[step].first + inside / step_size(part_bytes, step);
    return (unsigned)MIN(index, PARTS_MAX);
}

void part_sums_init(struct part_sums *sums, uint32_t part_bytes)
{
    *sums = (struct part_sums){.part_bytes = part_bytes};
}

void part_sums_done(struct part_sums *sums)
{
    free(sums->parts);
    *sums = (struct part_sums){.part_bytes = sums->part_bytes};
}

/* Without memory the part has no sum: it is read when it is sent. */
static void note_part(struct part_sums *sums, unsigned index, uint32_t crc32c)
{
    if (index >= sums->count) {
        unsigned count = MAX(index + 1, MIN(sums->count * 2, PARTS_MAX));
        struct part_sum *parts = realloc(sums->parts, count * sizeof(*parts));
        if (!parts)
            return;
        memset(parts + sums->count, 0, (count - sums->count) * sizeof(*parts));
        sums->parts = parts;
        sums->count = count;
    }
    sums->parts[index] = (struct part_sum){.crc32c = crc32c, .known = true};
}

static void forget_part(struct part_sums *sums, unsigned index)
{
    if (index < sums->count)
        sums->parts[index].known = false;
}

static uint32_t sum(uint32_t crc, const char *bytes, size_t len, const uint32_t *blocks)
{
    size_t summed = blocks ? len / HASH_BLOCK : 0;
    for (size_t i = 0; i < summed; i++)
        crc = hash_crc32c_join(crc, blocks[i]);
    return hash_crc32c(crc, bytes + summed * HASH_BLOCK, len - summed * HASH_BLOCK);
}

void part_sums_write(struct part_sums *sums, uint64_t offset, const void *data, size_t len,
                     const uint32_t *blocks)
{
    const char *bytes = data;
    if (sums->part_bytes % HASH_BLOCK)
        blocks = NULL; /* parts begin inside of blocks */
    while (len > 0) {
        unsigned index = part_index(sums->part_bytes, offset);
        if (index >= PARTS_MAX)
            return;
        uint64_t start = part_offset(sums->part_bytes, index);
        uint64_t size = part_size(sums->part_bytes, index);
        size_t piece = (size_t)MIN((uint64_t)len, start + size - offset);
        if (offset == start) {
            sums->grows = true;
            sums->growing = index;
            sums->grown = 0;
            sums->crc32c = 0;
        }
        bool in_order = sums->grows && sums->growing == index && offset == start + sums->grown;
        forget_part(sums, index);
        if (in_order) {
            sums->crc32c = sum(sums->crc32c, bytes, piece, blocks);
            sums->grown += piece;
            if (sums->grown == size) {
                note_part(sums, index, sums->crc32c);
                sums->grows = false;
            }
        } else if (sums->grows && sums->growing == index) {
            sums->grows = false;
        }
        if (blocks)
            blocks += piece / HASH_BLOCK;
        bytes += piece;
        offset += piece;
        len -= piece;
    }
}

void part_sums_forget(struct part_sums *sums, uint64_t offset, uint64_t length)
{
    if (length == 0)
        return;
    uint64_t last = length > UINT64_MAX - offset ? UINT64_MAX : offset + length - 1;
    unsigned from = part_index(sums->part_bytes, offset), to = part_index(sums->part_bytes, last);
    for (unsigned i = from; i <= to && i < sums->count; i++)
        sums->parts[i].known = false;
    if (sums->grows && sums->growing >= from && sums->growing <= to)
        sums->grows = false;
}

bool part_sums_get(const struct part_sums *sums, unsigned index, uint64_t length, uint32_t *crc32c)
{
    if (sums->grows && sums->growing == index && sums->grown == length) {
        *crc32c = sums->crc32c;
        return true;
    }
    if (index >= sums->count || !sums->parts[index].known ||
        length != part_size(sums->part_bytes, index))
        return false;
    *crc32c = sums->parts[index].crc32c;
    return true;
}
