/* The hedging decorator over a store that is slow when it is told to be. */
#include <errno.h>

#include "conformance.h"
#include "conformance_lib.h"
#include "hedge_policy.h"
#include "s3/backend.h"
#include "test.h"

static struct loop *loop;
static struct store *fault, *store;
static struct run r;

static void open_stack(void)
{
    struct store *memory;
    struct store_options options;
    store_options_init(&options);
    options.hedge_after_ms = 50;
    check_int(loop_new(&loop, "test"), 0);
    check_int(store_memory_new(loop, &memory), 0);
    memory->caps.part_min = 8;
    check_int(store_fault_new(memory, &fault), 0);
    check_int(store_hedge_new(fault, &options, NULL, &store), 0);
    r = (struct run){.store = store, .caps = store_caps(store), .prefix = ""};
}

static void close_stack(void)
{
    run_end(&r);
    store_free(store);
    loop_free(loop);
}

#define HEDGE_TEST(name) TEST(hedge_store, name, .init = open_stack, .fini = close_stack)

/* Ten requests earn the right to a second try; on a busy machine some may be spent at once. */
static void earn(void)
{
    check_int(run_put(&r, "k", "text"), 0);
    for (unsigned i = 0; i < 50; i++)
        check_int(run_get(&r, "k", 0, 4), 0);
}

HEDGE_TEST(conforms)
{
    check_uint(conformance_run(store, "c/", NULL, false, stdout).failed, 0);
}

HEDGE_TEST(asks_again_when_the_first_hangs)
{
    earn();
    uint64_t before = store_fault_seen(fault, STORE_GET);
    struct store_fault_rule rule = {.kind = STORE_GET, .count = 1, .delay_ms = 600000};
    store_fault_set(fault, &rule, 1);
    check_int(run_get(&r, "k", 1, 3), 0);
    check_uint(r.op.got, 3);
    check_mem(r.op.buf, "ext", 3);
    check_uint(store_fault_seen(fault, STORE_GET), before + 2);
}

HEDGE_TEST(takes_the_first_if_the_second_fails)
{
    earn();
    struct store_fault_rule rules[] = {
        {.kind = STORE_GET, .count = 1, .delay_ms = 500},
        {.kind = STORE_GET, .count = 1, .result = -EIO},
    };
    store_fault_set(fault, rules, 2);
    check_int(run_get(&r, "k", 0, 4), 0);
    check_mem(r.op.buf, "text", 4);
}

HEDGE_TEST(reports_the_failure_of_both)
{
    earn();
    struct store_fault_rule rules[] = {
        {.kind = STORE_GET, .count = 1, .delay_ms = 200, .result = -EIO},
        {.kind = STORE_GET, .count = 1, .result = -EIO},
    };
    store_fault_set(fault, rules, 2);
    check_int(run_get(&r, "k", 0, 4), -EIO);
    check(strstr(r.op.error.message, "injected") != NULL);
}

HEDGE_TEST(does_not_ask_twice_for_other_requests)
{
    earn();
    struct store_fault_rule rule = {.kind = STORE_HEAD, .count = 1, .delay_ms = 100};
    store_fault_set(fault, &rule, 1);
    uint64_t before = store_fault_seen(fault, STORE_HEAD);
    check_int(run_head(&r, "k"), 0);
    check_uint(store_fault_seen(fault, STORE_HEAD), before + 1);
}

HEDGE_TEST(bounds_second_tries)
{
    check_int(run_put(&r, "k", "text"), 0);
    struct store_fault_rule rule = {.kind = STORE_GET, .delay_ms = 80};
    store_fault_set(fault, &rule, 1);
    for (unsigned i = 0; i < 12; i++)
        check_int(run_get(&r, "k", 0, 4), 0);
    /* A tenth at most: the store is slow, not one request. */
    check(store_fault_seen(fault, STORE_GET) <= 13);
}

TEST(hedge_policy, knows_what_is_slow_for_a_size)
{
    struct hedge_policy policy = {0};
    check_uint(hedge_policy_slow_ms(&policy, 4096), 0);
    for (unsigned i = 0; i < 1000; i++)
        hedge_policy_note(&policy, 4096, i % 100 == 0 ? 900 : 3);
    for (unsigned i = 0; i < 1000; i++)
        hedge_policy_note(&policy, 8u << 20, 700);
    uint64_t small = hedge_policy_slow_ms(&policy, 4096);
    check(small >= 3 && small <= 8);
    check(hedge_policy_slow_ms(&policy, 8u << 20) >= 700);
}

TEST(hedge_policy, forgets)
{
    struct hedge_policy policy = {0};
    for (unsigned i = 0; i < 1000; i++)
        hedge_policy_note(&policy, 4096, 5000);
    for (unsigned i = 0; i < 20000; i++)
        hedge_policy_note(&policy, 4096, 1);
    check(hedge_policy_slow_ms(&policy, 4096) <= 4);
}

TEST(hedge_policy, credit_is_earned_and_bounded)
{
    struct hedge_policy policy = {0};
    check(!hedge_policy_spend(&policy));
    for (unsigned i = 0; i < 10; i++)
        hedge_policy_earn(&policy);
    check(hedge_policy_spend(&policy));
    check(!hedge_policy_spend(&policy));
    for (unsigned i = 0; i < 100000; i++)
        hedge_policy_earn(&policy);
    unsigned spent = 0;
    while (hedge_policy_spend(&policy))
        spent++;
    check_uint(spent, 10);
}
