/* Which ranges of a file have other bytes, by its extents of before and now. */
#include "data/extents_diff.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "data/read_op.h"
#include "test.h"

static struct meta_object objects[] = {
    {.id = 1, .cid = 100, .size = 1000, .etag = "a"},
    {.id = 2, .cid = 200, .size = 1000, .etag = "b"},
    {.id = 3, .cid = 100, .size = 1000, .etag = "c"}, /* a copy of the first */
    {.id = 4, .cid = 400, .size = 1000},              /* nothing names its bytes */
};

static struct file_extents state(struct meta_extent *extents, size_t count, uint64_t size)
{
    return (struct file_extents){.size = size,
                                 .reply = {.extents = extents,
                                           .extent_count = count,
                                           .objects = objects,
                                           .object_count = sizeof(objects) / sizeof(objects[0])}};
}

static struct meta_extent at(uint64_t offset, uint64_t length, uint64_t object, uint64_t from)
{
    return (struct meta_extent){.kind = META_EXTENT_OBJECT,
                                .offset = offset,
                                .length = length,
                                .object = object,
                                .object_offset = from};
}

static struct meta_extent inlined(uint64_t offset, const char *text)
{
    return (struct meta_extent){
        .kind = META_EXTENT_INLINE, .offset = offset, .length = strlen(text), .data = text};
}

struct found {
    unsigned count, most;
    uint64_t offsets[8], lengths[8];
};

static int note(void *arg, uint64_t offset, uint64_t length)
{
    struct found *found = arg;
    if (found->count == found->most)
        return -EFBIG;
    found->offsets[found->count] = offset;
    found->lengths[found->count++] = length;
    return 0;
}

static struct found diff(const struct file_extents *was, const struct file_extents *is)
{
    struct found found = {.most = 8};
    struct data_reads reads = {.cache = (struct cache *)&found};
    check_int(extents_diff(&reads, was, is, note, &found), 0);
    return found;
}

static bool is_one(const struct found *found, uint64_t offset, uint64_t length)
{
    return found->count == 1 && found->offsets[0] == offset && found->lengths[0] == length;
}

TEST(extents_diff, finds_what_was_written_and_appended)
{
    struct meta_extent one[] = {at(0, 1000, 1, 0)};
    struct meta_extent patched[] = {at(0, 300, 1, 0), inlined(300, "new bytes"),
                                    at(309, 691, 1, 309)};
    struct meta_extent more[] = {at(0, 1000, 1, 0), inlined(1000, "line")};
    struct meta_extent other[] = {at(0, 1000, 2, 0)};
    struct file_extents was = state(one, 1, 1000);
    struct file_extents is = state(patched, 3, 1000);
    struct found found = diff(&was, &is);
    check(is_one(&found, 300, 9));
    is = state(more, 2, 1004);
    found = diff(&was, &is);
    check(is_one(&found, 1000, 4));
    is = state(other, 1, 1000);
    found = diff(&was, &is);
    check(is_one(&found, 0, 1000));
    /* Shorter: what is left is the same. */
    is = state(one, 1, 700);
    found = diff(&was, &is);
    check_uint(found.count, 0);
}

TEST(extents_diff, the_same_bytes_elsewhere_are_no_change)
{
    struct meta_extent one[] = {at(0, 1000, 1, 0)};
    struct meta_extent copied[] = {at(0, 400, 3, 0), at(400, 600, 1, 400)};
    struct meta_extent moved[] = {at(0, 500, 3, 500), at(500, 500, 3, 500)};
    struct file_extents was = state(one, 1, 1000);
    struct file_extents is = state(copied, 2, 1000);
    struct found found = diff(&was, &is);
    check_uint(found.count, 0);
    is = state(moved, 2, 1000); /* the same content, but other bytes of it */
    found = diff(&was, &is);
    check(is_one(&found, 0, 500));
    struct meta_extent inline_was[] = {inlined(0, "abc")}, inline_is[] = {inlined(0, "abd")};
    was = state(inline_was, 1, 3);
    is = state(inline_was, 1, 3);
    found = diff(&was, &is);
    check_uint(found.count, 0);
    is = state(inline_is, 1, 3);
    found = diff(&was, &is);
    check(is_one(&found, 0, 3));
    struct meta_extent unnamed[] = {at(0, 1000, 4, 0)};
    was = is = state(unnamed, 1, 1000);
    found = diff(&was, &is);
    check(is_one(&found, 0, 1000));
}

TEST(extents_diff, holes_are_zeros_and_an_empty_file_has_no_bytes)
{
    struct meta_extent one[] = {at(0, 1000, 1, 0)};
    struct meta_extent holed[] = {at(0, 100, 1, 0),
                                  {.kind = META_EXTENT_HOLE, .offset = 100, .length = 100},
                                  at(300, 700, 1, 300)};
    struct file_extents was = state(one, 1, 1000);
    struct file_extents is = state(holed, 3, 1000);
    struct found found = diff(&was, &is);
    check(found.count >= 1 && found.offsets[0] == 100);
    uint64_t length = 0;
    for (unsigned i = 0; i < found.count; i++)
        length += found.lengths[i];
    check_uint(length, 200);
    struct file_extents again = is;
    found = diff(&is, &again);
    check_uint(found.count, 0);
    /* Beyond the end of before there were zeros. */
    is = state(one, 1, 5000);
    found = diff(&was, &is);
    check_uint(found.count, 0);
    struct file_extents empty = state(NULL, 0, 0);
    found = diff(&was, &empty);
    check_uint(found.count, 0);
    found = diff(&empty, &was);
    check(is_one(&found, 0, 1000));
}

TEST(extents_diff, stops_where_the_caller_does)
{
    struct meta_extent one[] = {at(0, 1000, 1, 0)}, other[] = {at(0, 1000, 2, 0)};
    struct file_extents was = state(one, 1, 1000), is = state(other, 1, 1000);
    struct found none = {0};
    struct data_reads reads = {.cache = (struct cache *)&none};
    check_int(extents_diff(&reads, &was, &is, note, &none), -EFBIG);
}
