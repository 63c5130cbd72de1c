/* Eviction, without disks: what stays and what goes for which reads. */
#include "base/cleanup.h"
#include "policy.h"
#include "test.h"

#define SEGMENT (4u << 20)
#define UNIVERSE 4096

/* A cache of `room` segments over the policy. */
struct sim {
    struct policy policy;
    struct policy_item items[UNIVERSE];
    unsigned room, cached;
    uint64_t hits, misses;
};

static struct sim sim;
static uint64_t busy_key;

static bool is_busy(const struct policy_item *item)
{
    return item->key == busy_key;
}

static void begin(void)
{
    memset(&sim, 0, sizeof(sim));
    sim.room = 100;
    busy_key = UINT64_MAX;
    check_int(policy_init(&sim.policy, 4096), 0);
}

static void end(void)
{
    policy_done(&sim.policy);
}

static bool cached(unsigned i)
{
    return sim.items[i].queue != POLICY_NONE;
}

/* Reads all pages of a segment, four at a time. */
static void sim_read(unsigned i, uint32_t now)
{
    struct policy_item *item = &sim.items[i];
    if (cached(i)) {
        sim.hits++;
    } else {
        sim.misses++;
        while (sim.cached >= sim.room) {
            check(policy_victim(&sim.policy, is_busy) != NULL);
            sim.cached--;
        }
        item->key = i;
        policy_insert(&sim.policy, item, now);
        policy_resize(&sim.policy, item, SEGMENT);
        sim.cached++;
    }
    for (unsigned page = 0; page < POLICY_PAGES; page += 4)
        policy_touch(item, page, 4, now);
}

TEST(policy_victim, scan_of_four_times_the_cache_leaves_the_hot_set, .init = begin, .fini = end)
{
    uint32_t now = 1;
    for (int round = 0; round < 4; round++)
        for (unsigned i = 0; i < 60; i++)
            sim_read(i, now++);
    sim.hits = sim.misses = 0;
    /* The hot set is read throughout the scan. */
    for (unsigned scan = 0; scan < 4 * sim.room; scan++) {
        sim_read(1000 + scan, now++);
        sim_read(scan % 60, now++);
    }
    check(sim.hits >= 4 * sim.room * 98 / 100);
}

TEST(policy_victim, one_pass_is_no_reason_to_stay, .init = begin, .fini = end)
{
    for (unsigned i = 0; i < 100; i++)
        sim_read(i, 1);
    for (unsigned i = 0; i < 100; i++)
        check_uint(sim.items[i].freq, 0);
    sim_read(200, 2);
    check(!cached(0));
    check(cached(1));
}

TEST(policy_touch, small_reads_through_a_page_are_one_pass, .init = begin, .fini = end)
{
    sim_read(7, 1);
    sim.items[7].touched = 0;
    for (unsigned page = 0; page < POLICY_PAGES; page++)
        for (int block = 0; block < 32; block++)
            policy_touch(&sim.items[7], page, 1, 1);
    check_uint(sim.items[7].freq, 0);
    for (unsigned page = 0; page < POLICY_PAGES; page++)
        for (int block = 0; block < 32; block++)
            policy_touch(&sim.items[7], page, 1, 2);
    check_uint(sim.items[7].freq, 1);
}

TEST(policy_touch, one_page_read_again_later_counts, .init = begin, .fini = end)
{
    sim_read(7, 1);
    sim.items[7].touched = 0;
    policy_touch(&sim.items[7], 0, 1, 10);
    policy_touch(&sim.items[7], 0, 1, 10);
    check_uint(sim.items[7].freq, 0);
    policy_touch(&sim.items[7], 0, 1, 20);
    check_uint(sim.items[7].freq, 1);
    for (uint32_t now = 30; now < 100; now++)
        policy_touch(&sim.items[7], 0, 1, now);
    check_uint(sim.items[7].freq, POLICY_FREQ_MAX);
}

TEST(policy_insert, who_comes_back_soon_enters_the_main_queue, .init = begin, .fini = end)
{
    for (unsigned i = 0; i < 101; i++)
        sim_read(i, 1);
    check(!cached(0));
    sim_read(0, 2);
    check_uint(sim.items[0].queue, POLICY_MAIN);
    sim_read(2000, 2);
    check_uint(sim.items[2000].queue, POLICY_SMALL);
}

TEST(policy_insert, who_comes_back_late_does_not, .init = begin, .fini = end)
{
    for (unsigned i = 0; i < 2000; i++)
        sim_read(i, 1);
    sim_read(0, 2);
    check_uint(sim.items[0].queue, POLICY_SMALL);
}

TEST(policy_victim, busy_ones_stay, .init = begin, .fini = end)
{
    for (unsigned i = 0; i < 100; i++)
        sim_read(i, 1);
    busy_key = 0;
    for (unsigned i = 100; i < 400; i++)
        sim_read(i, 1);
    check(cached(0));
}

static bool all_busy(const struct policy_item *item)
{
    return true;
}

TEST(policy_victim, ends_when_all_are_busy, .init = begin, .fini = end)
{
    for (unsigned i = 0; i < 100; i++)
        sim_read(i, 1);
    check(policy_victim(&sim.policy, all_busy) == NULL);
    check_uint(sim.policy.small.count + sim.policy.main.count, 100);
}

TEST(policy_victim, empty_has_none, .init = begin, .fini = end)
{
    check(policy_victim(&sim.policy, is_busy) == NULL);
}

TEST(policy_remove, accounts_bytes, .init = begin, .fini = end)
{
    for (unsigned i = 0; i < 50; i++)
        sim_read(i, 1);
    policy_resize(&sim.policy, &sim.items[3], 4096);
    check_uint(sim.policy.small.bytes, 49ull * SEGMENT + 4096);
    for (unsigned i = 0; i < 50; i++)
        policy_remove(&sim.policy, &sim.items[i]);
    policy_remove(&sim.policy, &sim.items[0]);
    check_uint(sim.policy.small.bytes + sim.policy.main.bytes, 0);
    check_uint(sim.policy.small.count + sim.policy.main.count, 0);
}

TEST(policy_expired, finds_all_that_nobody_read_for_long, .init = begin, .fini = end)
{
    for (unsigned i = 0; i < 50; i++)
        sim_read(i, 100 + i);
    unsigned found = 0;
    for (int i = 0; i < 100; i++)
        found += policy_expired(&sim.policy, 1124, 1000, 10, is_busy) != NULL;
    check_uint(found, 25);
    for (unsigned i = 0; i < 50; i++)
        check(cached(i) == (i >= 25));
}

TEST(policy_restore, keeps_queue_and_order, .init = begin, .fini = end)
{
    for (unsigned i = 0; i < 10; i++) {
        sim.items[i].key = i;
        policy_restore(&sim.policy, &sim.items[i], i % 2 ? POLICY_MAIN : POLICY_SMALL, 0, 1);
        policy_resize(&sim.policy, &sim.items[i], SEGMENT);
    }
    check_uint(policy_victim(&sim.policy, is_busy)->key, 0);
    check_uint(policy_victim(&sim.policy, is_busy)->key, 2);
}
