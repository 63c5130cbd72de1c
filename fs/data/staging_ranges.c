#include "staging_ranges.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void ranges_done(struct ranges *set)
{
    free(set->items);
    *set = (struct ranges){0};
}

int ranges_copy(const struct ranges *set, struct ranges *out)
{
    *out = (struct ranges){0};
    if (set->count == 0)
        return 0;
    struct staging_range *items = reallocarray(NULL, set->count, sizeof(*items));
    if (!items)
        return -ENOMEM;
    memcpy(items, set->items, set->count * sizeof(*items));
    *out = (struct ranges){
        .items = items, .count = set->count, .cap = set->count, .bytes = set->bytes};
    return 0;
}

size_t ranges_find(const struct ranges *set, uint64_t offset)
{
    size_t low = 0, high = set->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct staging_range *r = &set->items[middle];
        if (r->offset + r->length > offset)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static int reserve(struct ranges *set, size_t more)
{
    if (set->count + more <= set->cap)
        return 0;
    size_t cap = set->cap ? set->cap * 2 : 4;
    while (cap < set->count + more)
        cap *= 2;
    struct staging_range *items = realloc(set->items, cap * sizeof(*items));
    if (!items)
        return -ENOMEM;
    set->items = items;
    set->cap = cap;
    return 0;
}

static void insert_at(struct ranges *set, size_t at, struct staging_range range)
{
    memmove(&set->items[at + 1], &set->items[at], (set->count - at) * sizeof(range));
    set->items[at] = range;
    set->count++;
}

static void account(struct ranges *set, const struct staging_range *r, uint64_t removed)
{
    if (!r->hole)
        set->bytes -= removed;
}

/* Removes [offset, end) from the ranges of up to max_epoch. Each range that is touched leaves at
 * most one piece, but for one that reaches over both ends: it becomes two (room for it is there).
 */
static void clear_reserved(struct ranges *set, uint64_t offset, uint64_t end, uint64_t max_epoch)
{
    size_t first = ranges_find(set, offset);
    if (first < set->count) {
        struct staging_range *r = &set->items[first];
        if (r->offset < offset && r->offset + r->length > end) {
            if (r->epoch > max_epoch)
                return;
            struct staging_range right = *r;
            right.offset = end;
            right.length = r->offset + r->length - end;
            account(set, r, end - offset);
            r->length = offset - r->offset;
            insert_at(set, first + 1, right);
            return;
        }
    }
    size_t to = first, from = first;
    for (; from < set->count && set->items[from].offset < end; from++) {
        struct staging_range r = set->items[from];
        if (r.epoch > max_epoch) {
            set->items[to++] = r;
            continue;
        }
        uint64_t r_end = r.offset + r.length;
        if (r.offset < offset) {
            account(set, &r, r_end - offset);
            r.length = offset - r.offset;
            set->items[to++] = r;
        } else if (r_end > end) {
            account(set, &r, end - r.offset);
            r.offset = end;
            r.length = r_end - end;
            set->items[to++] = r;
        } else {
            account(set, &r, r.length);
        }
    }
    if (to != from) {
        memmove(&set->items[to], &set->items[from], (set->count - from) * sizeof(set->items[0]));
        set->count -= from - to;
    }
}

int ranges_clear(struct ranges *set, uint64_t offset, uint64_t length, uint64_t max_epoch)
{
    if (length == 0 || set->count == 0)
        return 0;
    if (reserve(set, 1))
        return -ENOMEM;
    clear_reserved(set, offset, offset + length, max_epoch);
    return 0;
}

static bool joins(const struct staging_range *a, const struct staging_range *b)
{
    return a->offset + a->length == b->offset && a->epoch == b->epoch && a->hole == b->hole;
}

int ranges_set(struct ranges *set, uint64_t offset, uint64_t length, uint64_t epoch, bool hole)
{
    if (length == 0)
        return 0;
    struct staging_range range = {.offset = offset, .length = length, .epoch = epoch, .hole = hole};
    /* Sequential writing only makes the last range longer. */
    if (set->count) {
        struct staging_range *last = &set->items[set->count - 1];
        if (joins(last, &range)) {
            last->length += length;
            if (!hole)
                set->bytes += length;
            return 0;
        }
    }
    if (reserve(set, 2))
        return -ENOMEM;
    clear_reserved(set, offset, offset + length, UINT64_MAX);
    size_t at = ranges_find(set, offset);
    if (!hole)
        set->bytes += length;
    bool left = at > 0 && joins(&set->items[at - 1], &range);
    bool right = at < set->count && joins(&range, &set->items[at]);
    if (left && right) {
        set->items[at - 1].length += length + set->items[at].length;
        memmove(&set->items[at], &set->items[at + 1],
                (set->count - at - 1) * sizeof(set->items[0]));
        set->count--;
    } else if (left) {
        set->items[at - 1].length += length;
    } else if (right) {
        set->items[at].offset = offset;
        set->items[at].length += length;
    } else {
        insert_at(set, at, range);
    }
    return 0;
}
