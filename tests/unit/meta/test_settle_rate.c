#include "volume/settle_rate.h"

#include "base/clock.h"
#include "test.h"

#define START (1000 * NS_PER_S)

TEST(settle_rate, holds_nothing_without_a_limit)
{
    struct settle_rate rate = {0};
    for (int i = 0; i < 100; i++)
        check_uint(settle_rate_turn(&rate, START, 1 << 30), 0);
    check_uint(rate.waited_ns, 0);
}

TEST(settle_rate, spaces_requests)
{
    struct settle_rate rate = {.requests_per_s = 10};
    check_uint(settle_rate_turn(&rate, START, 0), 0);
    check_uint(settle_rate_turn(&rate, START, 5 << 20), NS_PER_S / 10);
    check_uint(settle_rate_turn(&rate, START, 0), NS_PER_S / 5);
    check_uint(rate.waited_ns, NS_PER_S / 10 * 3);
    /* What was not used is not saved up. */
    check_uint(settle_rate_turn(&rate, START + 60 * NS_PER_S, 0), 0);
    check_uint(settle_rate_turn(&rate, START + 60 * NS_PER_S, 0), NS_PER_S / 10);
}

TEST(settle_rate, spaces_bytes_but_not_requests_without)
{
    struct settle_rate rate = {.bytes_per_s = 1 << 20};
    check_uint(settle_rate_turn(&rate, START, 3 << 20), 0);
    check_uint(settle_rate_turn(&rate, START, 0), 0);
    check_uint(settle_rate_turn(&rate, START, 1), 3 * NS_PER_S);
    check_uint(settle_rate_turn(&rate, START + NS_PER_S, (uint64_t)5 << 40), 2 * NS_PER_S + 953);
}

TEST(settle_rate, the_tighter_limit_holds)
{
    struct settle_rate rate = {.requests_per_s = 1, .bytes_per_s = 1000};
    check_uint(settle_rate_turn(&rate, START, 100), 0);
    check_uint(settle_rate_turn(&rate, START, 3000), NS_PER_S);
    check_uint(settle_rate_turn(&rate, START, 1), 4 * NS_PER_S);
    check_uint(settle_rate_turn(&rate, START, 0), 5 * NS_PER_S);
}
