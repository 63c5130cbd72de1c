/*
 * How the extents of a file become the parts of one multipart upload. Pure.
 */
#ifndef SLUICE_META_SETTLE_PLAN_H
#define SLUICE_META_SETTLE_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "meta/op.h"

struct settle_limits {
    uint64_t part_min;  /* of every part but the last */
    uint64_t part_unit; /* wished for parts whose bytes go through us; at least part_min */
    uint64_t copy_max;  /* of one copied part; 0: the store cannot copy */
    uint32_t count_max;
};

struct settle_part {
    bool copy; /* of a range of `object`; else bytes [offset, offset + length) of the file are sent
                */
    uint64_t offset, length;
    uint64_t object, object_offset;
};

struct settle_parts {
    struct settle_part *parts; /* owned: settle_parts_done */
    size_t count;
};

/* Covers [0, size), size > 0, without gaps, in order. `extents` ascending, inside [0, size); gaps
 * read as zeros. -EFBIG if count_max parts cannot hold it, -ENOMEM. */
int settle_plan(const struct meta_extent *extents, size_t count, uint64_t size,
                const struct settle_limits *limits, struct settle_parts *out);
void settle_parts_done(struct settle_parts *parts);

#endif
