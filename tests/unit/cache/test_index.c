/* The index in memory, and its records: what a torn or damaged file leaves of it. */
#include "base/hash.h"
#include "index.h"
#include "test.h"

#define PAGE_FULL UINT32_MAX

static struct policy policy;
static struct index idx;
static struct buf batch;

static void begin(void)
{
    check_int(policy_init(&policy, 1024), 0);
    index_init(&idx, &policy);
    buf_init(&batch, INDEX_BATCH_MAX);
    buf_extend(&batch, INDEX_BATCH_HEADER);
}

static void end(void)
{
    index_done(&idx);
    check_uint(idx.bytes + idx.pages + idx.content_count + idx.segment_count + idx.memory, 0);
    check_uint(policy.small.bytes + policy.main.bytes, 0);
    policy_done(&policy);
    buf_done(&batch);
}

static struct index_segment *segment_of(uint64_t cid, uint64_t size, uint32_t number)
{
    struct index_content *content = index_make(&idx, cid, size);
    check(content != NULL);
    struct index_segment *segment = index_segment_make(&idx, content, number);
    check(segment != NULL);
    return segment;
}

static void reopen(void)
{
    index_done(&idx);
    index_init(&idx, &policy);
}

static int64_t replay(const void *data, size_t len, bool *ended)
{
    int64_t good = index_replay(&idx, data, len, 1000, ended);
    check_int(index_settle(&idx), 0);
    return good;
}

TEST(index_mask, blocks_of_a_page, .init = begin, .fini = end)
{
    check_uint(index_mask(0, 1), 1);
    check_uint(index_mask(0, 4096), 1);
    check_uint(index_mask(0, 4097), 3);
    check_uint(index_mask(4095, 4097), 3);
    check_uint(index_mask(0, CACHE_PAGE), UINT32_MAX);
    check_uint(index_mask(CACHE_PAGE - 1, CACHE_PAGE), 1u << 31);
}

TEST(index_set_page, counts_bytes_and_completeness, .init = begin, .fini = end)
{
    uint64_t size = CACHE_SEGMENT + CACHE_PAGE + 5000;
    struct index_segment *last = segment_of(7, size, 1);
    check_uint(last->page_count, 2);
    struct index_content *content = last->content;
    struct index_segment *first = segment_of(7, size, 0);
    for (unsigned page = 0; page < INDEX_SEGMENT_PAGES; page++)
        index_set_page(&idx, first, page, PAGE_FULL, page, 1);
    index_set_page(&idx, last, 0, PAGE_FULL, 1, 1);
    check(!index_complete(content));
    check_uint(index_full_mask(content, 1, 1), 3);
    index_set_page(&idx, last, 1, 3, 1, 1);
    check(index_complete(content));
    check_uint(idx.pages, INDEX_SEGMENT_PAGES + 2);
    check_uint(idx.bytes, size / 4096 * 4096 + 4096);
    check_uint(policy.small.bytes, idx.bytes);
    index_set_page(&idx, last, 1, 0, 0, 1);
    check(!index_complete(content));
    check_uint(idx.pages, INDEX_SEGMENT_PAGES + 1);
}

TEST(index_make, one_size_for_ever, .init = begin, .fini = end)
{
    check(index_make(&idx, 1, 5000) != NULL);
    check(index_make(&idx, 1, 5001) == NULL);
    check(index_make(&idx, 1, 0) != NULL);
    check(index_make(&idx, 2, 0) != NULL);
    check(index_make(&idx, 2, 77) != NULL);
    check(index_make(&idx, 3, INDEX_SIZE_MAX + 1) == NULL);
}

/* Three contents: as a checkpoint and as a log. */
static void fill_index(void)
{
    for (uint64_t cid = 1; cid <= 3; cid++) {
        struct index_segment *segment = segment_of(cid, 10 * CACHE_SEGMENT, (uint32_t)cid);
        for (unsigned page = 0; page < 8; page++)
            index_set_page(&idx, segment, page, (uint32_t)cid * 0x01010101u, page + 1, 500);
    }
    index_find(&idx, 2)->pinned = true;
}

static void put_checkpoint(void)
{
    for (uint64_t cid = 1; cid <= 3; cid++) {
        struct index_content *content = index_find(&idx, cid);
        index_put_content(&batch, content);
        index_put_segment(&batch, content->segments[cid], 900);
    }
    index_put_end(&batch);
    index_seal_batch(&batch);
}

static void check_filled(void)
{
    check_uint(idx.content_count, 3);
    check_uint(idx.pages, 24);
    for (uint64_t cid = 1; cid <= 3; cid++) {
        struct index_content *content = index_find(&idx, cid);
        check(content != NULL);
        check_uint(content->size, 10 * CACHE_SEGMENT);
        check(content->pinned == (cid == 2));
        struct index_segment *segment = index_segment(content, (uint32_t)cid);
        check(segment != NULL);
        check_uint(segment->verified, 0);
        check_uint(segment->item.queue, POLICY_SMALL);
        for (unsigned page = 0; page < 8; page++) {
            check_uint(segment->pages[page].valid, (uint32_t)cid * 0x01010101u);
            check_uint(segment->pages[page].crc, page + 1);
        }
    }
}

TEST(index_replay, checkpoint_gives_back_what_was_there, .init = begin, .fini = end)
{
    fill_index();
    put_checkpoint();
    reopen();
    bool ended;
    check_int(replay(batch.data, batch.len, &ended), (int64_t)batch.len);
    check(ended);
    check_filled();
    check_uint(index_segment(index_find(&idx, 1), 1)->item.last_s, 600);
}

TEST(index_replay, log_gives_back_what_was_there, .init = begin, .fini = end)
{
    fill_index();
    for (uint64_t cid = 1; cid <= 3; cid++)
        for (unsigned page = 0; page < 8; page++)
            index_put_page(&batch, index_segment(index_find(&idx, cid), (uint32_t)cid), page);
    index_put_pin(&batch, 2, true);
    index_seal_batch(&batch);
    reopen();
    bool ended;
    check_int(replay(batch.data, batch.len, &ended), (int64_t)batch.len);
    check(!ended);
    check_filled();
}

TEST(index_replay, evicted_and_dropped_is_gone, .init = begin, .fini = end)
{
    fill_index();
    put_checkpoint();
    struct buf more;
    buf_init(&more, INDEX_BATCH_MAX);
    buf_extend(&more, INDEX_BATCH_HEADER);
    index_put_evict(&more, index_segment(index_find(&idx, 1), 1));
    index_put_drop(&more, 3);
    index_seal_batch(&more);
    reopen();
    bool ended;
    index_replay(&idx, batch.data, batch.len, 1000, &ended);
    replay(more.data, more.len, &ended);
    check(index_find(&idx, 1) == NULL);
    check(index_find(&idx, 3) == NULL);
    check_uint(idx.pages, 8);
    buf_done(&more);
}

TEST(index_replay, torn_at_any_byte_gives_whole_batches_only, .init = begin, .fini = end)
{
    fill_index();
    struct buf file;
    buf_init(&file, 0);
    size_t ends[3];
    for (uint64_t cid = 1; cid <= 3; cid++) {
        buf_reset(&batch);
        buf_extend(&batch, INDEX_BATCH_HEADER);
        for (unsigned page = 0; page < 8; page++)
            index_put_page(&batch, index_segment(index_find(&idx, cid), (uint32_t)cid), page);
        index_seal_batch(&batch);
        buf_put(&file, batch.data, batch.len);
        ends[cid - 1] = file.len;
    }
    for (size_t len = 0; len <= file.len; len++) {
        reopen();
        bool ended;
        uint8_t *copy = malloc(len + 1);
        memcpy(copy, file.data, len);
        int64_t good = replay(copy, len, &ended);
        free(copy);
        uint64_t whole = 0;
        for (int i = 0; i < 3; i++)
            whole += len >= ends[i];
        check_uint(idx.pages, whole * 8);
        check_int(good, whole ? (int64_t)ends[whole - 1] : 0);
    }
    buf_done(&file);
}

TEST(index_replay, flipped_bits_never_give_a_wrong_page, .init = begin, .fini = end)
{
    fill_index();
    put_checkpoint();
    for (size_t i = 0; i < batch.len; i++) {
        reopen();
        batch.data[i] ^= 0x10;
        bool ended;
        check_int(replay(batch.data, batch.len, &ended), 0);
        check_uint(idx.pages, 0);
        batch.data[i] ^= 0x10;
    }
}

static uint64_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005ull + 1442695040888963407ull;
    return *state >> 33;
}

TEST(index_replay, survives_records_that_make_no_sense, .init = begin, .fini = end)
{
    uint64_t state = 99;
    for (int round = 0; round < 3000; round++) {
        buf_reset(&batch);
        buf_extend(&batch, INDEX_BATCH_HEADER);
        for (int i = 0; i < 100; i++)
            buf_put_u8(&batch, (uint8_t)(next_random(&state) % (round % 2 ? 256 : 9)));
        index_seal_batch(&batch);
        bool ended;
        index_replay(&idx, batch.data, batch.len, 1000, &ended);
        if (round % 50 == 0) {
            check_int(index_settle(&idx), 0);
            reopen();
        }
    }
    check_int(index_settle(&idx), 0);
}

TEST(index_block_crc, place_matters)
{
    uint8_t block[CACHE_BLOCK] = {1};
    check(index_block_crc(0, block) != index_block_crc(1, block));
}
