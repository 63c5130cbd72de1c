/* What is read ahead for which reads: tables of reads and plans, no store, no disk. */
#include "base/cleanup.h"
#include "data/stream.h"
#include "test.h"

#define KIB 1024ull
#define MIB (1024ull * 1024)
#define GIB (1024ull * MIB)

static struct stream_set set;
static struct stream_plan plan;

static void begin(void)
{
    stream_init(&set, 32 * MIB);
}

static void read_at(uint64_t offset, uint64_t length, uint64_t size)
{
    stream_read(&set, offset, length, size, &plan);
    check(plan.demand.offset <= offset);
    check(plan.demand.offset + plan.demand.length >= offset + length);
    for (unsigned i = 0; i < plan.ahead_count; i++) {
        check(plan.ahead[i].length > 0);
        check(plan.ahead[i].offset + plan.ahead[i].length <= size);
    }
}

static uint64_t ahead_bytes(void)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < plan.ahead_count; i++)
        sum += plan.ahead[i].length;
    return sum;
}

TEST(stream_read, single_read_fetches_only_itself, .init = begin)
{
    read_at(77 * MIB, 4096, GIB);
    check_uint(plan.ahead_count, 0);
    check_uint(plan.demand.length, 4096);
}

TEST(stream_read, second_adjacent_read_opens_a_small_window, .init = begin)
{
    read_at(MIB, 64 * KIB, GIB);
    read_at(MIB + 64 * KIB, 64 * KIB, GIB);
    check_uint(plan.ahead_count, 1);
    check_uint(plan.ahead[0].offset, MIB + 128 * KIB);
    check_uint(plan.ahead[0].length, STREAM_WINDOW_MIN);
}

TEST(stream_read, large_first_read_at_the_start_opens_a_window, .init = begin)
{
    read_at(0, 128 * KIB, GIB);
    check_uint(plan.ahead_count, 1);
    check_uint(plan.ahead[0].offset, 128 * KIB);
}

TEST(stream_read, small_first_read_at_the_start_does_not, .init = begin)
{
    read_at(0, 16 * KIB, GIB);
    check_uint(plan.ahead_count, 0);
}

TEST(stream_read, window_doubles_up_to_its_maximum_and_covers_without_gap, .init = begin)
{
    uint64_t ahead = 128 * KIB, largest = 0, max_out = 0;
    for (uint64_t offset = 0; offset < GIB; offset += 128 * KIB) {
        read_at(offset, 128 * KIB, GIB);
        for (unsigned i = 0; i < plan.ahead_count; i++) {
            check_uint(plan.ahead[i].offset, ahead);
            ahead += plan.ahead[i].length;
            if (plan.ahead[i].length > largest)
                largest = plan.ahead[i].length;
        }
        check(ahead >= offset + 128 * KIB);
        if (ahead - (offset + 128 * KIB) > max_out)
            max_out = ahead - (offset + 128 * KIB);
    }
    check_uint(ahead, GIB);
    check_uint(largest, 4 * MIB);
    check(max_out <= 32 * MIB && max_out >= 28 * MIB);
}

TEST(stream_read, first_window_holds_two_reads, .init = begin)
{
    read_at(10 * MIB, MIB, GIB);
    read_at(11 * MIB, MIB, GIB);
    check_uint(ahead_bytes(), 2 * MIB);
    check_uint(plan.ahead[0].length, MIB);
}

/* Each of `sharing` streams has its part of the memory: the longest request that it makes. */
static uint64_t longest_request(uint64_t window, unsigned sharing)
{
    uint64_t longest = 0;
    stream_init(&set, window);
    set.sharing = sharing;
    for (uint64_t offset = 0; offset < 256 * MIB; offset += 128 * KIB) {
        read_at(offset, 128 * KIB, GIB);
        for (unsigned i = 0; i < plan.ahead_count; i++)
            longest = MAX(longest, plan.ahead[i].length);
        check(set.streams[plan.stream].ahead - (offset + 128 * KIB) <= window);
    }
    return longest;
}

TEST(stream_read, requests_are_as_many_for_one_stream_as_for_several_together)
{
    check_uint(longest_request(32 * MIB, 1), 4 * MIB);
    check_uint(longest_request(16 * MIB, 2), 4 * MIB);
    check_uint(longest_request(32 * MIB / 3, 3), 4 * MIB);
    check_uint(longest_request(8 * MIB, 4), 4 * MIB);
    check_uint(longest_request(4 * MIB, 8), 2 * MIB);
    check_uint(longest_request(32 * MIB, 8), 8 * MIB);
    check_uint(longest_request(300 * KIB, 100), 256 * KIB);
}

TEST(stream_read, reads_a_little_out_of_order_stay_one_stream, .init = begin)
{
    uint64_t asked = 0;
    for (uint64_t offset = 0; offset < 64 * MIB; offset += 256 * KIB) {
        /* The second half of each 256 KiB comes first. */
        read_at(offset + 128 * KIB, 128 * KIB, GIB);
        asked += ahead_bytes();
        read_at(offset, 128 * KIB, GIB);
        asked += ahead_bytes();
    }
    check(asked <= 64 * MIB + 34 * MIB);
}

TEST(stream_read, random_reads_fetch_hardly_more_than_asked, .init = begin)
{
    uint64_t state = 12345, asked = 0, fetched = 0, size = 4 * GIB;
    for (int i = 0; i < 200; i++) {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        uint64_t offset = (state >> 33) % (size / (128 * KIB)) * 128 * KIB;
        read_at(offset, 128 * KIB, size);
        asked += 128 * KIB;
        fetched += plan.demand.length + ahead_bytes();
    }
    check(fetched * 100 <= asked * 110);
}

TEST(stream_read, several_streams_of_one_handle_each_have_a_window, .init = begin)
{
    uint64_t asked[8] = {0};
    for (int round = 0; round < 32; round++) {
        for (uint64_t s = 0; s < 8; s++) {
            read_at(s * 128 * MIB + (uint64_t)round * 128 * KIB, 128 * KIB, GIB);
            asked[s] += ahead_bytes();
        }
    }
    for (int s = 0; s < 8; s++)
        check(asked[s] >= 4 * MIB);
}

TEST(stream_read, random_reads_do_not_push_out_established_streams, .init = begin)
{
    read_at(0, 128 * KIB, GIB);
    read_at(128 * KIB, 128 * KIB, GIB);
    unsigned stream = plan.stream;
    for (uint64_t i = 1; i < 100; i++) {
        read_at(i * i * 97 * KIB + 100 * MIB, 4096, 4 * GIB);
        check_uint(plan.forget >> stream & 1, 0);
    }
    read_at(256 * KIB, 128 * KIB, GIB);
    check_uint(plan.stream, stream);
}

TEST(stream_read, equal_steps_fetch_just_what_will_be_read, .init = begin)
{
    uint64_t asked = 0, next_expected = 0;
    for (uint64_t i = 0; i < 64; i++) {
        read_at(i * MIB + 10 * MIB, 64 * KIB, GIB);
        for (unsigned k = 0; k < plan.ahead_count; k++) {
            check_uint(plan.ahead[k].offset % MIB, 0);
            check_uint(plan.ahead[k].length, 64 * KIB);
            if (next_expected)
                check_uint(plan.ahead[k].offset, next_expected);
            next_expected = plan.ahead[k].offset + MIB;
        }
        asked += ahead_bytes();
    }
    check(asked > 61 * 64 * KIB && asked <= (64 + 32) * 64 * KIB);
}

TEST(stream_read, backward_reads_are_steps_and_end_at_the_start, .init = begin)
{
    uint64_t size = 64 * MIB, asked = 0;
    for (uint64_t offset = size - MIB; offset > 0; offset -= 128 * KIB) {
        read_at(offset - 128 * KIB, 128 * KIB, size);
        for (unsigned k = 0; k < plan.ahead_count; k++)
            check(plan.ahead[k].offset < offset - 128 * KIB);
        asked += ahead_bytes();
    }
    check(asked >= size - 2 * MIB && asked <= size);
}

TEST(stream_read, first_read_near_the_end_fetches_the_footer_once, .init = begin)
{
    uint64_t size = 100 * MIB + 7;
    read_at(size - 8, 8, size);
    check_uint(plan.demand.offset, size - STREAM_FOOTER);
    check_uint(plan.demand.length, STREAM_FOOTER);
    check(plan.keep);
    read_at(size - 50000, 4096, size);
    check(!plan.keep);
    check_uint(plan.demand.length, 4096);
}

/* Columns: a header of one page, then the rest, about 1 MiB, of every fourth one. */
TEST(stream_read, pieces_of_a_file_that_is_read_from_its_end_bring_nothing_more, .init = begin)
{
    uint64_t size = GIB, column = 967 * KIB;
    read_at(size - 8, 8, size);
    for (uint64_t offset = 4; offset + column < size / 4; offset += 4 * column) {
        read_at(offset, 4096, size);
        check_uint(plan.ahead_count, 0);
        read_at(offset + 4096, column, size);
        check_uint(plan.ahead_count, 0);
    }
}

TEST(stream_read, long_stream_of_such_a_file_fetches_a_part_of_what_it_read, .init = begin)
{
    uint64_t size = GIB, ahead = 0;
    set.picks = true;
    for (uint64_t offset = 8 * MIB; offset < 512 * MIB; offset += MIB) {
        read_at(offset, MIB, size);
        ahead += ahead_bytes();
        check(plan.ahead_count == 0 ||
              plan.ahead[plan.ahead_count - 1].offset + plan.ahead[plan.ahead_count - 1].length <=
                  offset + MIB + (offset - 7 * MIB) / STREAM_PICK_SHARE);
    }
    check(ahead > 480 * MIB);
}

TEST(stream_read, only_the_first_read_says_how_the_file_is_read, .init = begin)
{
    uint64_t size = GIB;
    read_at(0, 4096, size);
    read_at(size - 8, 8, size);
    check(plan.keep && !set.picks);
}

TEST(stream_read, small_files_have_no_footer, .init = begin)
{
    read_at(500 * KIB, 4096, 512 * KIB);
    check(!plan.keep);
    check_uint(plan.demand.length, 4096);
}

TEST(stream_read, small_file_comes_whole_with_the_first_read, .init = begin)
{
    static const struct {
        uint64_t size, offset, length;
        bool whole;
    } cases[] = {
        {MIB, 0, 4096, true},
        {MIB, 0, 128 * KIB, true},
        {MIB, 4096, 4096, false},
        {MIB + 1, 0, 4096, false},
        {128 * KIB, 60 * KIB, 100, true},
        {128 * KIB + 1, 60 * KIB, 100, false},
        {100, 0, 100, false}, /* that is all of it */
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        begin();
        read_at(cases[i].offset, cases[i].length, cases[i].size);
        check_int(plan.keep, cases[i].whole);
        check_uint(plan.demand.length, cases[i].whole ? cases[i].size : cases[i].length);
        check_uint(plan.ahead_count, 0);
        if (!cases[i].whole)
            continue;
        /* What follows needs nothing more, and does not begin again. */
        uint64_t next = cases[i].offset + cases[i].length;
        read_at(next, 4096, cases[i].size);
        check(!plan.keep);
        check_uint(plan.ahead_count, 0);
        read_at(0, 4096, cases[i].size);
        check(!plan.keep);
    }
}

TEST(stream_read, window_zero_never_reads_ahead)
{
    stream_init(&set, 0);
    for (uint64_t offset = 0; offset < 4 * MIB; offset += 128 * KIB) {
        read_at(offset, 128 * KIB, 4 * MIB);
        check_uint(plan.ahead_count, 0);
        check(!plan.keep);
    }
}

TEST(stream_missed, asks_again_with_a_smaller_window, .init = begin)
{
    uint64_t offset = 0;
    for (; offset < 64 * MIB; offset += 128 * KIB)
        read_at(offset, 128 * KIB, GIB);
    uint64_t window = set.streams[plan.stream].window;
    stream_missed(&set, plan.stream, offset + MIB);
    check_uint(set.streams[plan.stream].window, window / 2);
    read_at(offset, 128 * KIB, GIB);
    check(plan.ahead_count > 0);
    check_uint(plan.ahead[0].offset, offset + MIB);
}

TEST(stream_read, streams_that_go_away_are_forgotten, .init = begin)
{
    uint32_t forgotten = 0;
    for (uint64_t i = 0; i < 2 * STREAM_COUNT; i++) {
        read_at(i * 40 * MIB, 128 * KIB, 4 * GIB);
        read_at(i * 40 * MIB + 128 * KIB, 128 * KIB, 4 * GIB);
        forgotten |= plan.forget;
    }
    for (uint64_t i = 0; i < STREAM_COUNT; i++) {
        read_at(i * 40 * MIB + 20 * MIB, 128 * KIB, 4 * GIB);
        forgotten |= plan.forget;
    }
    check(forgotten != 0);
}
