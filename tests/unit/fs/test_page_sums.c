/* Checksums of pages while a file is written, against those of the bytes. */
#include "data/page_sums.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/hash.h"
#include "test.h"

#define SIZE (6 * CACHE_PAGE + 777)

static uint8_t bytes[7 * CACHE_PAGE];

static void fill_bytes(void)
{
    for (size_t i = 0; i < SIZE; i++)
        bytes[i] = (uint8_t)(i * 7 + i / 251);
}

static unsigned known_and_right(const struct page_sums *sums)
{
    unsigned known = 0;
    for (uint64_t i = 0; i < sums->count; i++) {
        if (!sums->pages[i].known)
            continue;
        size_t length = MIN(SIZE - i * CACHE_PAGE, (size_t)CACHE_PAGE);
        check_uint(sums->pages[i].crc, cache_page_crc(bytes + i * CACHE_PAGE, length));
        known++;
    }
    return known;
}

TEST(page_sums, in_order_all_are_known, .init = fill_bytes)
{
    static const size_t pieces[] = {100, 4096, 10000, CACHE_PAGE, 300000, SIZE};
    for (size_t i = 0; i < ARRAY_LEN(pieces); i++) {
        struct page_sums sums = {0};
        for (size_t at = 0; at < SIZE; at += MIN(pieces[i], SIZE - at))
            page_sums_write(&sums, at, bytes + at, MIN(pieces[i], SIZE - at), NULL);
        page_sums_end(&sums, SIZE);
        check_uint(sums.count, 7);
        check_uint(known_and_right(&sums), 7);
        page_sums_done(&sums);
    }
}

TEST(page_sums, sums_of_blocks_do_for_their_bytes, .init = fill_bytes)
{
    static const size_t pieces[] = {4096, 12288, CACHE_PAGE, 3 * CACHE_PAGE + 4096, SIZE};
    static uint32_t blocks[SIZE / HASH_BLOCK];
    for (size_t i = 0; i < ARRAY_LEN(blocks); i++)
        blocks[i] = hash_crc32c(0, bytes + i * HASH_BLOCK, HASH_BLOCK);
    for (size_t i = 0; i < ARRAY_LEN(pieces); i++) {
        struct page_sums sums = {0};
        for (size_t at = 0; at < SIZE; at += MIN(pieces[i], SIZE - at))
            page_sums_write(&sums, at, bytes + at, MIN(pieces[i], SIZE - at),
                            blocks + at / HASH_BLOCK);
        page_sums_end(&sums, SIZE);
        check_uint(known_and_right(&sums), 7);
        page_sums_done(&sums);
    }
}

TEST(page_sums, what_was_changed_is_not_known, .init = fill_bytes)
{
    struct page_sums sums = {0};
    page_sums_write(&sums, 0, bytes, SIZE, NULL);
    bytes[CACHE_PAGE + 5] ^= 1;
    page_sums_write(&sums, CACHE_PAGE + 5, bytes + CACHE_PAGE + 5, 1, NULL);
    page_sums_forget(&sums, 3 * CACHE_PAGE - 1, 2);
    page_sums_end(&sums, SIZE);
    check_uint(known_and_right(&sums), 4);
    /* Written again from its beginning. */
    page_sums_write(&sums, CACHE_PAGE, bytes + CACHE_PAGE, CACHE_PAGE, NULL);
    check_uint(known_and_right(&sums), 5);
    page_sums_forget(&sums, 0, UINT64_MAX);
    check_uint(known_and_right(&sums), 0);
    page_sums_done(&sums);
}

TEST(page_sums, a_last_page_that_was_cut_or_grew_otherwise_is_not_known, .init = fill_bytes)
{
    struct page_sums sums = {0};
    page_sums_write(&sums, 0, bytes, SIZE, NULL);
    page_sums_end(&sums, SIZE - 1);
    check_uint(known_and_right(&sums), 6);
    page_sums_done(&sums);
    page_sums_write(&sums, 0, bytes, 1000, NULL);
    page_sums_write(&sums, 1500, bytes + 1500, 500, NULL);
    page_sums_write(&sums, 1000, bytes + 1000, 500, NULL);
    page_sums_end(&sums, 2000);
    check_uint(known_and_right(&sums), 0);
    page_sums_done(&sums);
}

/* One page at the end of a sparse file of 8 TiB would have 512 MiB of sums before it. */
TEST(page_sums, a_page_behind_holes_takes_no_memory, .init = fill_bytes)
{
    struct page_sums sums = {0};
    page_sums_write(&sums, (8ull << 40) - CACHE_PAGE, bytes, CACHE_PAGE, NULL);
    check_uint(sums.cap, 0);
    page_sums_write(&sums, 0, bytes, 3 * CACHE_PAGE, NULL);
    page_sums_end(&sums, 8ull << 40);
    check_uint(known_and_right(&sums), 3);
    page_sums_done(&sums);
}
