#include <errno.h>

#include "test.h"
#include "volume/settle_plan.h"

#define MIB (1ull << 20)

static const struct settle_limits limits = {
    .part_min = 5 * MIB, .part_unit = 8 * MIB, .copy_max = 5120 * MIB, .count_max = 10000};

static struct meta_extent object(uint64_t offset, uint64_t length, uint64_t id)
{
    return (struct meta_extent){
        .kind = META_EXTENT_OBJECT, .offset = offset, .length = length, .object = id};
}

/* What holds for every plan: covers the file, in order, no part but the last too small. */
static void check_plan(const struct settle_parts *parts, uint64_t size,
                       const struct settle_limits *l)
{
    uint64_t at = 0;
    for (size_t i = 0; i < parts->count; i++) {
        const struct settle_part *p = &parts->parts[i];
        check_uint(p->offset, at);
        check(p->length > 0);
        check(i + 1 == parts->count || p->length >= l->part_min);
        check(!p->copy || p->length <= l->copy_max);
        at += p->length;
    }
    check_uint(at, size);
    check(parts->count <= l->count_max);
}

TEST(settle_plan, one_whole_object_is_one_copied_part)
{
    struct meta_extent e = object(0, 100, 1);
    struct settle_parts parts;
    check_int(settle_plan(&e, 1, 100, &limits, &parts), 0);
    check_plan(&parts, 100, &limits);
    check_uint(parts.count, 1);
    check(parts.parts[0].copy);
    settle_parts_done(&parts);
}

TEST(settle_plan, huge_object_is_copied_in_pieces)
{
    uint64_t size = 5ull << 40;
    struct meta_extent e = object(0, size, 1);
    struct settle_parts parts;
    check_int(settle_plan(&e, 1, size, &limits, &parts), 0);
    check_plan(&parts, size, &limits);
    check_uint(parts.count, 1024);
    settle_parts_done(&parts);
}

TEST(settle_plan, small_extents_are_sent_large_ones_copied)
{
    struct meta_extent e[] = {object(0, MIB, 1), object(MIB, 64 * MIB, 2), object(65 * MIB, 10, 3)};
    struct settle_parts parts;
    check_int(settle_plan(e, 3, 65 * MIB + 10, &limits, &parts), 0);
    check_plan(&parts, 65 * MIB + 10, &limits);
    check_uint(parts.count, 3);
    check(!parts.parts[0].copy && parts.parts[1].copy && parts.parts[2].copy);
    check_uint(parts.parts[0].length, 8 * MIB);
    check_uint(parts.parts[1].object_offset, 7 * MIB);
    settle_parts_done(&parts);
}

TEST(settle_plan, holes_are_sent)
{
    struct meta_extent e = object(20 * MIB, 20 * MIB, 1);
    struct settle_parts parts;
    check_int(settle_plan(&e, 1, 50 * MIB, &limits, &parts), 0);
    check_plan(&parts, 50 * MIB, &limits);
    check(!parts.parts[0].copy);
    check(!parts.parts[parts.count - 1].copy);
    settle_parts_done(&parts);
}

TEST(settle_plan, never_more_parts_than_allowed)
{
    struct settle_limits few = limits;
    few.count_max = 10;
    struct meta_extent e[200];
    for (int i = 0; i < 200; i++)
        e[i] = object((uint64_t)i * 6 * MIB, 6 * MIB, (uint64_t)i + 1);
    struct settle_parts parts;
    check_int(settle_plan(e, 200, 1200 * MIB, &few, &parts), 0);
    check_plan(&parts, 1200 * MIB, &few);
    settle_parts_done(&parts);
}

TEST(settle_plan, a_store_that_cannot_copy_gets_the_bytes)
{
    struct settle_limits none = limits;
    none.copy_max = 0;
    struct meta_extent e = object(0, 100 * MIB, 1);
    struct settle_parts parts;
    check_int(settle_plan(&e, 1, 100 * MIB, &none, &parts), 0);
    check_plan(&parts, 100 * MIB, &none);
    for (size_t i = 0; i < parts.count; i++)
        check(!parts.parts[i].copy);
    settle_parts_done(&parts);
}

TEST(settle_plan, many_shapes_are_all_covered)
{
    uint64_t seed = 1;
    struct settle_limits small = {.part_min = 8, .part_unit = 16, .copy_max = 64, .count_max = 64};
    for (int round = 0; round < 2000; round++) {
        struct meta_extent e[20];
        uint64_t at = 0;
        size_t count = 0;
        for (; count < 20; count++) {
            seed = seed * 6364136223846793005ull + 1442695040888963407ull;
            uint64_t gap = seed >> 60 > 11 ? seed >> 40 & 31 : 0, len = 1 + (seed >> 33 & 127);
            e[count] = object(at + gap, len, count + 1);
            if (seed >> 59 & 1)
                e[count].kind = META_EXTENT_INLINE;
            at += gap + len;
        }
        uint64_t size = at + (seed >> 20 & 15);
        struct settle_parts parts;
        check_int(settle_plan(e, count, size, &small, &parts), 0);
        check_plan(&parts, size, &small);
        settle_parts_done(&parts);
    }
}
