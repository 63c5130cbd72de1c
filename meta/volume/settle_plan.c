#include "settle_plan.h"

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"

struct planner {
    const struct settle_limits *limits;
    uint64_t unit;
    struct settle_parts *out;
    size_t cap;
    uint64_t size;
    uint64_t pending, pending_len; /* bytes of the file that will be sent together */
    int rc;
};

void settle_parts_done(struct settle_parts *parts)
{
    free(parts->parts);
    *parts = (struct settle_parts){0};
}

static void add(struct planner *p, const struct settle_part *part)
{
    if (p->rc)
        return;
    if (p->out->count == p->limits->count_max) {
        p->rc = -EFBIG;
        return;
    }
    if (p->out->count == p->cap) {
        size_t cap = p->cap ? 2 * p->cap : 16;
        struct settle_part *grown = reallocarray(p->out->parts, cap, sizeof(*grown));
        if (!grown) {
            p->rc = -ENOMEM;
            return;
        }
        p->out->parts = grown;
        p->cap = cap;
    }
    p->out->parts[p->out->count++] = *part;
}

static void flush(struct planner *p)
{
    if (!p->pending_len)
        return;
    struct settle_part part = {.offset = p->pending, .length = p->pending_len};
    add(p, &part);
    p->pending_len = 0;
}

/* `length` bytes more to be sent, in parts of one unit. */
static void send(struct planner *p, uint64_t offset, uint64_t length)
{
    while (length && !p->rc) {
        uint64_t len = MIN(length, p->unit - p->pending_len);
        if (!p->pending_len)
            p->pending = offset;
        p->pending_len += len;
        offset += len;
        length -= len;
        if (p->pending_len == p->unit)
            flush(p);
    }
}

static void copy(struct planner *p, const struct meta_extent *extent, uint64_t skip)
{
    uint64_t left = extent->length - skip;
    uint64_t pieces = (left + p->limits->copy_max - 1) / p->limits->copy_max;
    struct settle_part part = {.copy = true,
                               .offset = extent->offset + skip,
                               .object = extent->object,
                               .object_offset = extent->object_offset + skip};
    for (; pieces && !p->rc; pieces--) {
        part.length = left / pieces;
        add(p, &part);
        part.offset += part.length;
        part.object_offset += part.length;
        left -= part.length;
    }
}

static void take_extent(struct planner *p, const struct meta_extent *extent)
{
    /* What was collected must become a whole part before a copied one can follow. */
    uint64_t fill = p->pending_len ? p->unit - p->pending_len : 0;
    bool last = extent->offset + extent->length == p->size;
    bool copies = extent->kind == META_EXTENT_OBJECT && p->limits->copy_max &&
                  extent->length > fill && (last || extent->length - fill >= p->unit);
    if (!copies) {
        send(p, extent->offset, extent->length);
        return;
    }
    send(p, extent->offset, fill);
    copy(p, extent, fill);
}

static int plan(const struct meta_extent *extents, size_t count, uint64_t size,
                const struct settle_limits *limits, uint64_t unit, struct settle_parts *out)
{
    struct planner p = {.limits = limits, .unit = unit, .out = out, .size = size};
    uint64_t at = 0;
    for (size_t i = 0; i < count && !p.rc; i++) {
        if (extents[i].offset > at)
            send(&p, at, extents[i].offset - at);
        take_extent(&p, &extents[i]);
        at = extents[i].offset + extents[i].length;
    }
    if (at < size)
        send(&p, at, size - at);
    flush(&p);
    return p.rc;
}

int settle_plan(const struct meta_extent *extents, size_t count, uint64_t size,
                const struct settle_limits *limits, struct settle_parts *out)
{
    uint64_t unit = MAX(limits->part_min, limits->part_unit);
    for (;; unit *= 2) {
        *out = (struct settle_parts){0};
        int rc = plan(extents, count, size, limits, unit, out);
        if (!rc)
            return 0;
        settle_parts_done(out);
        if (rc != -EFBIG || unit >= size)
            return rc;
    }
}
