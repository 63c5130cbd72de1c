#include "settle_pace.h"

#include "base/clock.h"
#include "test.h"

#define START (1000 * NS_PER_S)
#define BOUND (50 * NS_PER_S)
#define PARALLEL 8

TEST(settle_pace, goes_on_when_nobody_is_there)
{
    struct settle_pace pace = {0};
    uint64_t wait = 1;
    check_uint(settle_pace(&pace, START, START - SETTLE_PACE_QUIET_NS, BOUND, PARALLEL, &wait),
               PARALLEL);
    check_uint(wait, 0);
    check_uint(pace.held_ns, 0);
    check_uint(settle_pace(&pace, START, 0, BOUND, PARALLEL, &wait), PARALLEL);
}

TEST(settle_load, few_operations_are_not_busy_and_many_are)
{
    struct settle_load load = {0};
    uint64_t now = START;
    for (int i = 0; i < 100; i++, now += 10 * NS_PER_MS) /* somebody looks ten times in 100 ms */
        settle_load_operation(&load, now);
    check_uint(load.busy_ns, 0);
    for (int i = 0; i < 100; i++, now += NS_PER_MS)
        settle_load_operation(&load, now);
    check_uint(load.busy_ns, now - NS_PER_MS);
}

TEST(settle_pace, begins_nothing_beside_operations)
{
    struct settle_pace pace = {0};
    uint64_t wait = 0;
    check_uint(settle_pace(&pace, START, START - 30 * NS_PER_MS, BOUND, PARALLEL, &wait), 0);
    check_uint(wait, SETTLE_PACE_QUIET_NS - 30 * NS_PER_MS);
    /* An operation after `now` was taken. */
    check_uint(settle_pace(&pace, START, START + 5, BOUND, PARALLEL, &wait), 0);
    check_uint(wait, SETTLE_PACE_QUIET_NS);
    check_uint(pace.held_ns, START);
}

TEST(settle_pace, goes_on_after_the_bound_with_more_and_more)
{
    struct settle_pace pace = {0};
    uint64_t wait = 0, now = START;
    unsigned last = 0;
    for (; now < START + 20 * BOUND; now += 7 * NS_PER_MS) {
        unsigned allowed = settle_pace(&pace, now, now, BOUND, PARALLEL, &wait);
        uint64_t held = now - START;
        check_uint(allowed, held / BOUND < PARALLEL ? held / BOUND : PARALLEL);
        check(allowed >= last);
        check(!allowed == (wait > 0));
        check(wait <= BOUND - held || allowed);
        last = allowed;
    }
    check_uint(last, PARALLEL);
    /* Quiet ends it. */
    check_uint(settle_pace(&pace, now, now - SETTLE_PACE_QUIET_NS, BOUND, PARALLEL, &wait),
               PARALLEL);
    check_uint(settle_pace(&pace, now + 1, now, BOUND, PARALLEL, &wait), 0);
}

TEST(settle_pace, has_no_pace_without_a_bound)
{
    struct settle_pace pace = {0};
    uint64_t wait = 0;
    check_uint(settle_pace(&pace, START, START, 0, PARALLEL, &wait), PARALLEL);
}
