/* Layout of parts, and the sums of those that were written in order. */
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/hash.h"
#include "data/part_sums.h"
#include "test.h"

#define PART 4096u

static uint8_t bytes[8 * PART];
static struct part_sums sums;

static void begin(void)
{
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i * 131 + i / 251);
    part_sums_init(&sums, PART);
}

static void end(void)
{
    part_sums_done(&sums);
}

static void write_at(uint64_t offset, size_t length)
{
    part_sums_write(&sums, offset, bytes + offset, length, NULL);
}

static bool is_right(unsigned index, uint64_t length)
{
    uint32_t crc;
    return part_sums_get(&sums, index, length, &crc) &&
           crc == hash_crc32c(0, bytes + index * PART, length);
}

static bool is_known(unsigned index, uint64_t length)
{
    uint32_t crc;
    return part_sums_get(&sums, index, length, &crc);
}

TEST(part_offset, parts_follow_each_other_and_grow)
{
    uint32_t size = 8u << 20;
    uint64_t offset = 0;
    for (unsigned i = 0; i <= PARTS_MAX; i++) {
        check_uint(part_offset(size, i), offset);
        check_uint(part_index(size, offset), i);
        check_uint(part_index(size, offset + part_size(size, i) - 1), i);
        offset += part_size(size, i);
    }
    check_uint(part_size(size, 1999), size);
    check_uint(part_size(size, 2000), 4 * size);
    check_uint(part_size(size, 4000), 8 * size);
    check_uint(part_index(size, UINT64_MAX), PARTS_MAX);
}

TEST(part_sums, sums_of_blocks_do_for_their_bytes)
{
    static const struct {
        uint32_t part;
        size_t piece;
    } cases[] = {{4096, 4096}, {8192, 4096}, {8192, 12288}, {12288, 20000}, {5000, 4096}};
    begin();
    part_sums_done(&sums);
    for (size_t k = 0; k < ARRAY_LEN(cases); k++) {
        uint32_t blocks[sizeof(bytes) / HASH_BLOCK], crc;
        part_sums_init(&sums, cases[k].part);
        for (size_t at = 0, piece; at < sizeof(bytes); at += piece) {
            piece = MIN(cases[k].piece, sizeof(bytes) - at);
            for (size_t i = 0; i < piece / HASH_BLOCK; i++)
                blocks[i] = hash_crc32c(0, bytes + at + i * HASH_BLOCK, HASH_BLOCK);
            part_sums_write(&sums, at, bytes + at, piece, at % HASH_BLOCK ? NULL : blocks);
        }
        for (unsigned i = 0; (i + 1) * cases[k].part <= sizeof(bytes); i++) {
            check(part_sums_get(&sums, i, cases[k].part, &crc));
            check_uint(crc, hash_crc32c(0, bytes + (size_t)i * cases[k].part, cases[k].part));
        }
        end();
    }
}

TEST(part_sums, writing_in_order_sums_each_part, .init = begin, .fini = end)
{
    for (uint64_t at = 0; at < 3 * PART + 100; at += 700)
        write_at(at, MIN(700, 3 * PART + 100 - at));
    for (unsigned i = 0; i < 3; i++)
        check(is_right(i, PART));
    check(is_right(3, 100));
    check(!is_known(3, 99));
    check(!is_known(2, PART - 1));
    check(!is_known(4, PART));
}

TEST(part_sums, one_write_may_be_many_parts, .init = begin, .fini = end)
{
    write_at(0, 5 * PART + 1);
    for (unsigned i = 0; i < 5; i++)
        check(is_right(i, PART));
    check(is_right(5, 1));
}

TEST(part_sums, another_write_takes_the_sum_away, .init = begin, .fini = end)
{
    write_at(0, 3 * PART + 50);
    bytes[PART + 9] ^= 1;
    write_at(PART + 9, 1);
    check(is_right(0, PART));
    check(!is_known(1, PART));
    check(is_right(2, PART));
    check(is_right(3, 50));
    write_at(3 * PART + 20, 10);
    check(!is_known(3, 50));
    /* From its beginning again it has one. */
    write_at(PART, PART);
    check(is_right(1, PART));
}

TEST(part_sums, a_part_that_begins_anew_has_none_until_it_is_full, .init = begin, .fini = end)
{
    write_at(0, PART);
    write_at(0, 10);
    check(!is_known(0, PART));
    write_at(11, 5); /* a gap */
    check(!is_known(0, 10));
    check(!is_known(0, 16));
}

TEST(part_sums, changes_of_other_kinds_take_sums_away, .init = begin, .fini = end)
{
    write_at(0, 4 * PART + 10);
    part_sums_forget(&sums, 2 * PART - 1, 2);
    check(is_right(0, PART));
    check(!is_known(1, PART) && !is_known(2, PART));
    check(is_right(3, PART) && is_right(4, 10));
    part_sums_forget(&sums, 4 * PART + 5, UINT64_MAX - 4 * PART - 5);
    check(!is_known(4, 10) && !is_known(4, 5));
    part_sums_forget(&sums, 0, 0);
    check(is_right(0, PART));
}

/* Whatever is written in whatever order: a sum that is known is that of the bytes. */
TEST(part_sums, known_sums_are_right_after_random_changes, .init = begin, .fini = end)
{
    srandom(5);
    for (unsigned step = 0; step < 20000; step++) {
        uint64_t offset = (uint64_t)random() % sizeof(bytes);
        if (random() % 3)
            offset = offset / PART * PART;
        size_t wanted = (size_t)random() % (2 * PART) + 1;
        size_t length = MIN(wanted, sizeof(bytes) - offset);
        for (size_t i = 0; i < length; i += 97)
            bytes[offset + i]++;
        if (random() % 8)
            write_at(offset, length);
        else
            part_sums_forget(&sums, offset, length);
        for (unsigned i = 0; i < 8; i++)
            check(!is_known(i, PART) || is_right(i, PART));
        if (sums.grows)
            check(is_right(sums.growing, sums.grown));
    }
}
