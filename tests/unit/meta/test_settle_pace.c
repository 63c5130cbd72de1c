#include "volume/settle_pace.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "test.h"

#define START (1000 * NS_PER_S)
#define BOUND (50 * NS_PER_S)
#define STEP (10 * NS_PER_MS)
#define PARALLEL 8

static struct settle_pace pace;
static uint64_t now, wait_ns;

/* For so long, users are at work, or not. */
static void pass(uint64_t ns, bool busy)
{
    for (uint64_t end = now + ns; now < end; now += STEP)
        settle_pace_look(&pace, now, busy ? now : now - SETTLE_PACE_QUIET_NS);
    settle_pace_look(&pace, now, busy ? now : now - SETTLE_PACE_QUIET_NS);
}

static void init(void)
{
    pace = (struct settle_pace){.bound_ns = BOUND};
    now = START;
}

static unsigned files(void)
{
    return settle_pace_files(&pace, now, PARALLEL, &wait_ns);
}

/* Sends a request that takes so long: whether it may. */
static bool request(uint64_t took_ns)
{
    if (!settle_pace_may_send(&pace, now, &wait_ns))
        return false;
    settle_pace_sent(&pace);
    now += took_ns;
    settle_pace_ended(&pace, now, took_ns);
    return true;
}

TEST(settle_load, few_operations_are_not_busy_and_many_are)
{
    struct settle_load load = {0};
    uint64_t at = START;
    for (int i = 0; i < 100; i++, at += 10 * NS_PER_MS) /* somebody looks ten times in 100 ms */
        settle_load_operation(&load, at, 4096);
    check_uint(settle_load_busy_ns(&load, at), 0);
    for (int i = 0; i < 100; i++, at += NS_PER_MS)
        settle_load_operation(&load, at, 0);
    check_uint(settle_load_busy_ns(&load, at), at - NS_PER_MS);
}

TEST(settle_load, bytes_are_busy_too)
{
    struct settle_load load = {0};
    settle_load_operation(&load, START, 512 << 10);
    check_uint(settle_load_busy_ns(&load, START), 0);
    settle_load_operation(&load, START + 2, 1 << 20);
    check_uint(settle_load_busy_ns(&load, START + 5), START + 2);
}

TEST(settle_load, who_waits_is_at_work_as_long_as_he_does)
{
    struct settle_load load = {0};
    atomic_fetch_add(&load.waiting, 1);
    check_uint(settle_load_busy_ns(&load, START), START);
    check_uint(settle_load_busy_ns(&load, START + 5 * NS_PER_S), START + 5 * NS_PER_S);
    atomic_fetch_sub(&load.waiting, 1);
    check_uint(settle_load_busy_ns(&load, START + 6 * NS_PER_S), 0);
}

TEST(settle_pace, goes_on_when_nobody_is_there, .init = init)
{
    pass(0, false);
    check_uint(files(), PARALLEL);
    check_uint(wait_ns, 0);
    for (int i = 0; i < PARALLEL; i++) {
        check(settle_pace_may_send(&pace, now, &wait_ns));
        settle_pace_sent(&pace);
    }
    settle_pace_ended(&pace, now, NS_PER_S);
    check(settle_pace_may_send(&pace, now, &wait_ns));
}

TEST(settle_pace, begins_nothing_beside_users, .init = init)
{
    settle_pace_look(&pace, now, now - 30 * NS_PER_MS);
    check_uint(files(), 0);
    check_uint(wait_ns, SETTLE_PACE_QUIET_NS - 30 * NS_PER_MS);
    /* An operation after `now` was taken. */
    settle_pace_look(&pace, now, now + 5);
    check_uint(files(), 0);
    check_uint(wait_ns, SETTLE_PACE_QUIET_NS);
    pass(BOUND - STEP, true);
    check_uint(files(), 0);
    check_uint(wait_ns, STEP);
    pass(STEP, true);
    check_uint(files(), 1);
    check_uint(wait_ns, 0);
    /* Quiet ends it. */
    pass(0, false);
    check_uint(files(), PARALLEL);
}

TEST(settle_pace, what_was_begun_goes_on_with_pauses, .init = init)
{
    pass(0, true);
    check(request(20 * NS_PER_MS));
    pass(0, true);
    check(!request(1));
    check_uint(wait_ns, SETTLE_PACE_QUIET_NS); /* users may be gone by then */
    pass(200 * NS_PER_MS, true);
    check(!request(1));
    check_uint(wait_ns, 100 * NS_PER_MS);
    pass(100 * NS_PER_MS, true);
    check(request(1));
}

TEST(settle_pace, sends_one_request_at_a_time, .init = init)
{
    pass(0, true);
    settle_pace_sent(&pace);
    check(!settle_pace_may_send(&pace, now, &wait_ns));
    pass(BOUND * 16 - STEP, true);
    check(!settle_pace_may_send(&pace, now, &wait_ns));
    /* Then two. */
    pass(BOUND * 16 + STEP, true);
    check(settle_pace_may_send(&pace, now, &wait_ns));
    settle_pace_sent(&pace);
    check(!settle_pace_may_send(&pace, now, &wait_ns));
    /* What was sent while nobody was there ends first. */
    pass(0, false);
    check(settle_pace_may_send(&pace, now, &wait_ns));
    settle_pace_sent(&pace);
    pass(0, true);
    settle_pace_ended(&pace, now, 1);
    check(!settle_pace_may_send(&pace, now, &wait_ns));
}

/* The promise: how much of the time it has after how many bounds of users who never stop. */
TEST(settle_pace, gets_more_the_longer_it_is_held_back, .init = init)
{
    static const struct {
        unsigned bounds, share, files;
    } cases[] = {{0, 1, 0},   {1, 1, 1},   {2, 2, 1},   {4, 4, 1},   {8, 8, 1},
                 {16, 16, 1}, {31, 31, 1}, {32, 32, 2}, {64, 64, 4}, {128, 128, PARALLEL}};
    for (unsigned i = 0, at = 0; i < ARRAY_LEN(cases); at = cases[i++].bounds) {
        pass(BOUND * (cases[i].bounds - at), true);
        check_uint(settle_pace_share(&pace), cases[i].share);
        check_uint(files(), cases[i].files);
        uint64_t began = now;
        check(request(NS_PER_MS));
        while (pass(0, true), !settle_pace_may_send(&pace, now, &wait_ns))
            now += NS_PER_MS / 100;
        check_uint((now - began) / NS_PER_MS, cases[i].share >= 16 ? 1 : 16 / cases[i].share);
    }
    pass(1000 * BOUND, true);
    check_uint(files(), PARALLEL);
}

TEST(settle_pace, time_without_users_counts_against_it, .init = init)
{
    pass(16 * BOUND, true);
    pass(BOUND / 2, false);
    pass(0, true);
    check_uint(settle_pace_share(&pace), 8);
    pass(2 * BOUND, false);
    pass(0, true);
    check_uint(settle_pace_share(&pace), 1);
    check_uint(files(), 0);
}

TEST(settle_pace, begins_anew_after_nothing_was_to_do, .init = init)
{
    pass(16 * BOUND, true);
    settle_pace_idle(&pace);
    check(!pace.held);
    now += 3600 * NS_PER_S;
    pass(0, true);
    check_uint(settle_pace_share(&pace), 1);
    check_uint(files(), 0);
}

TEST(settle_pace, has_no_pace_without_a_bound, .init = init)
{
    pace.bound_ns = 0;
    pass(NS_PER_S, true);
    check_uint(files(), PARALLEL);
    settle_pace_sent(&pace);
    check(settle_pace_may_send(&pace, now, &wait_ns));
}
