/* Fetches: shared GETs, memory within the budget, read-ahead that gives way, cancel, failure. */
#include <semaphore.h>

#include "base/cleanup.h"
#include "cache/cache.h"
#include "data/fetch.h"
#include "gate_store.h"

#define KIB 1024ull
#define MIB (1024ull * 1024)

static struct loop *loop;
static struct gate_store *gate;
static struct tickets *tickets;
static struct buffers *buffers;
static struct fetch_table *table;
static struct fetch_owner owner;
static const struct fetch_source object = {
    .object = 42, .key = "k42", .etag = GATE_ETAG, .size = 64 * MIB + 100};

static void drop(void *arg, uint64_t bytes)
{
    fetch_drop_ahead(table, bytes);
}

static void open_with(uint64_t budget)
{
    owner = (struct fetch_owner){0};
    check_int(loop_new(&loop, "test"), 0);
    gate = gate_new(loop);
    check_int(tickets_new(&tickets, budget), 0);
    check_int(buffers_new(tickets, &buffers), 0);
    check_int(fetch_table_new(&gate->store, buffers, NULL, &table), 0);
    buffers_on_pressure(buffers, drop, NULL);
}

static void begin(void)
{
    open_with(16 * MIB);
}

static void begin_small(void)
{
    open_with(1 * MIB);
}

static void end(void)
{
    fetch_owner_done(table, &owner);
    fetch_table_free(table);
    struct buffers_stats stats;
    buffers_stats(buffers, &stats);
    check_uint(stats.used, 0);
    check_uint(stats.ahead, 0);
    buffers_free(buffers);
    tickets_free(tickets);
    store_free(&gate->store);
    loop_free(loop);
}

struct waiter {
    struct fetch_wait wait;
    sem_t ended;
};

static void waiter_done(struct fetch_wait *wait)
{
    sem_post(&container_of(wait, struct waiter, wait)->ended);
}

static int wait_result(const struct fetch_slice *slice)
{
    struct waiter waiter = {.wait.done = waiter_done};
    sem_init(&waiter.ended, 0, 0);
    if (fetch_wait(slice, &waiter.wait) == -EINPROGRESS)
        while (sem_wait(&waiter.ended) < 0 && errno == EINTR)
            ;
    sem_destroy(&waiter.ended);
    return fetch_result(slice);
}

static void check_bytes(const struct fetch_slice *slice)
{
    const uint8_t *data = fetch_data(slice);
    for (uint64_t i = 0; i < slice->length; i++)
        if (data[i] != gate_byte("k42", slice->offset + i))
            test_fail("byte %ju is wrong", (uintmax_t)(slice->offset + i));
}

TEST(fetch_get, gets_what_was_asked_rounded_to_pages, .init = begin, .fini = end)
{
    struct fetch_slice slices[FETCH_SLICES_MAX];
    check_int(fetch_get(table, NULL, &object, 5000, 100, slices), 1);
    check_int(wait_result(&slices[0]), 0);
    check_bytes(&slices[0]);
    check_uint(atomic_load(&gate->bytes), 4096);
    fetch_release(&slices[0]);
}

TEST(fetch_get, ends_at_the_end_of_the_object, .init = begin, .fini = end)
{
    struct fetch_slice slices[FETCH_SLICES_MAX];
    check_int(fetch_get(table, NULL, &object, 64 * MIB, 100, slices), 1);
    check_int(wait_result(&slices[0]), 0);
    check_bytes(&slices[0]);
    check_uint(atomic_load(&gate->bytes), 100);
    fetch_release(&slices[0]);
}

TEST(fetch_get, readers_of_the_same_bytes_share_one_get, .init = begin, .fini = end)
{
    struct fetch_slice slices[8][FETCH_SLICES_MAX];
    gate_close(gate);
    for (int i = 0; i < 8; i++)
        check_int(fetch_get(table, NULL, &object, MIB, 128 * KIB, slices[i]), 1);
    gate_open(gate);
    for (int i = 0; i < 8; i++) {
        check_int(wait_result(&slices[i][0]), 0);
        check_bytes(&slices[i][0]);
        fetch_release(&slices[i][0]);
    }
    check_uint(atomic_load(&gate->gets), 1);
}

TEST(fetch_get, gets_only_what_is_missing, .init = begin, .fini = end)
{
    struct fetch_slice a[FETCH_SLICES_MAX], b[FETCH_SLICES_MAX];
    check_int(fetch_get(table, NULL, &object, MIB, 128 * KIB, a), 1);
    int count = fetch_get(table, NULL, &object, MIB - 64 * KIB, 256 * KIB, b);
    check_int(count, 3);
    check_uint(b[0].length + b[1].length + b[2].length, 256 * KIB);
    for (int i = 0; i < count; i++) {
        check_int(wait_result(&b[i]), 0);
        check_bytes(&b[i]);
        fetch_release(&b[i]);
    }
    fetch_release(&a[0]);
    check_uint(atomic_load(&gate->bytes), 256 * KIB);
}

TEST(fetch_get, another_etag_is_another_object, .init = begin, .fini = end)
{
    struct fetch_slice a[FETCH_SLICES_MAX], b[FETCH_SLICES_MAX];
    struct fetch_source changed = object;
    changed.etag = "etag-2";
    check_int(fetch_get(table, NULL, &object, 0, 4096, a), 1);
    check_int(wait_result(&a[0]), 0);
    check_int(fetch_get(table, NULL, &changed, 0, 4096, b), 1);
    check(a[0].fetch != b[0].fetch);
    check_int(wait_result(&b[0]), -EEXIST);
    fetch_release(&a[0]);
    fetch_release(&b[0]);
}

static void set_failure(void *arg)
{
    gate->fail = -EIO;
    gate->fail_count = 1;
}

TEST(fetch_get, failure_reaches_all_waiters_and_the_next_asks_again, .init = begin, .fini = end)
{
    struct fetch_slice a[FETCH_SLICES_MAX], b[FETCH_SLICES_MAX];
    loop_call(loop, set_failure, NULL);
    gate_close(gate);
    check_int(fetch_get(table, NULL, &object, 0, 4096, a), 1);
    check_int(fetch_get(table, NULL, &object, 0, 4096, b), 1);
    gate_open(gate);
    check_int(wait_result(&a[0]), -EIO);
    check_int(wait_result(&b[0]), -EIO);
    fetch_release(&a[0]);
    fetch_release(&b[0]);
    check_int(fetch_get(table, NULL, &object, 0, 4096, a), 1);
    check_int(wait_result(&a[0]), 0);
    check_bytes(&a[0]);
    fetch_release(&a[0]);
}

TEST(fetch_release, last_reader_who_goes_cancels_the_get, .init = begin, .fini = end)
{
    struct fetch_slice slices[FETCH_SLICES_MAX];
    gate_close(gate);
    check_int(fetch_get(table, NULL, &object, 0, 4096, slices), 1);
    wait_until(atomic_load(&gate->waiting_count) == 1);
    fetch_release(&slices[0]);
    wait_until(atomic_load(&gate->cancels) == 1);
}

/* What was fetched is on its way into the cache for a while, and never asked for again meanwhile.
 */
TEST(fetch_fill, what_was_fetched_is_in_memory_until_the_cache_has_it, .init = begin)
{
    static char directory[4096];
    test_dir_make(directory);
    const char *directories[] = {directory};
    struct cache_config config;
    cache_config_init(&config);
    config.directories = directories;
    config.directory_count = 1;
    config.volume = "test";
    config.free_low_percent = config.free_high_percent = 0;
    struct cache *cache;
    struct error error = {0};
    if (cache_open(&config, &cache, &error) < 0)
        test_fail("cache_open: %s", error_text(&error));
    check_int(fetch_table_cache(table, cache, NULL), 0);

    struct fetch_source source = object;
    source.cid = 7;
    /* Fewer bytes than make a batch by themselves, then more; each asked for many times. */
    uint64_t count = 0;
    for (uint64_t i = 0; i < 40; i++, count++) {
        for (int again = 0; again < 20; again++) {
            struct fetch_slice slices[FETCH_SLICES_MAX];
            check_int(fetch_get(table, NULL, &source, i * 128 * KIB, 128 * KIB, slices), 1);
            if (!slices[0].fetch)
                continue; /* the cache has it */
            check_int(wait_result(&slices[0]), 0);
            check_bytes(&slices[0]);
            fetch_release(&slices[0]);
        }
    }
    check_uint(atomic_load(&gate->gets), count);

    fetch_owner_done(table, &owner);
    fetch_table_free(table);
    uint64_t run, length;
    check(cache_peek(cache, 7, 0, count * 128 * KIB, &run, &length));
    check_uint(run, 0);
    check_uint(length, count * 128 * KIB);
    struct buffers_stats stats;
    buffers_stats(buffers, &stats);
    check_uint(stats.used, 0);
    cache_close(cache);
    buffers_free(buffers);
    tickets_free(tickets);
    store_free(&gate->store);
    loop_free(loop);
    test_dir_remove(directory);
}

TEST(fetch_ahead, bytes_are_there_for_the_reader_and_go_when_used, .init = begin, .fini = end)
{
    struct fetch_slice slices[FETCH_SLICES_MAX];
    check_uint(fetch_ahead(table, &owner, 0, 2 * MIB, false, &object, MIB, MIB), MIB);
    for (uint64_t offset = MIB; offset < 2 * MIB; offset += 128 * KIB) {
        check(owner.keeps != NULL);
        check_int(fetch_get(table, &owner, &object, offset, 128 * KIB, slices), 1);
        check_int(wait_result(&slices[0]), 0);
        check_bytes(&slices[0]);
        fetch_release(&slices[0]);
    }
    check(owner.keeps == NULL);
    check_uint(atomic_load(&gate->gets), 1);
    check_uint(atomic_load(&gate->demand_gets), 0);
}

TEST(fetch_ahead, what_is_under_way_is_not_asked_twice, .init = begin, .fini = end)
{
    gate_close(gate);
    check_uint(fetch_ahead(table, &owner, 0, MIB, false, &object, 0, MIB), MIB);
    check_uint(fetch_ahead(table, &owner, 0, 3 * MIB, false, &object, 512 * KIB, MIB), MIB);
    gate_open(gate);
    check_uint(atomic_load(&gate->bytes), MIB + 512 * KIB);
}

TEST(fetch_ahead, takes_only_a_part_of_the_budget, .init = begin, .fini = end)
{
    check_uint(fetch_ahead(table, &owner, 0, 8 * MIB, false, &object, 0, 8 * MIB), 8 * MIB);
    check_uint(fetch_ahead(table, &owner, 0, 16 * MIB, false, &object, 8 * MIB, 8 * MIB), 0);
}

TEST(fetch_ahead_share, is_the_same_for_all_who_have_something_ahead, .init = begin, .fini = end)
{
    struct fetch_owner other = {0};
    unsigned sharing;
    check_uint(fetch_ahead_share(table, &sharing), 8 * MIB);
    check_uint(sharing, 1);
    fetch_ahead(table, &owner, 0, MIB, false, &object, 0, MIB);
    fetch_ahead(table, &owner, 0, 2 * MIB, false, &object, MIB, MIB);
    check_uint(fetch_ahead_share(table, &sharing), 8 * MIB);
    /* Another stream of the handle, another handle; what is kept for ever is no stream. */
    fetch_ahead(table, &owner, 1, 4 * MIB, false, &object, 3 * MIB, MIB);
    fetch_ahead(table, &other, 0, 6 * MIB, false, &object, 5 * MIB, MIB);
    fetch_ahead(table, &other, 0, UINT64_MAX, false, &object, 8 * MIB, 128 * KIB);
    fetch_ahead(table, &other, 1, UINT64_MAX, false, &object, 9 * MIB, 128 * KIB);
    check_uint(fetch_ahead_share(table, &sharing), 8 * MIB / 3);
    check_uint(sharing, 3);
    fetch_owner_passed(table, &owner, 1, 4 * MIB);
    check_uint(fetch_ahead_share(table, &sharing), 4 * MIB);
    fetch_owner_done(table, &other);
    check_uint(fetch_ahead_share(table, &sharing), 8 * MIB);
}

TEST(fetch_ahead, failure_is_silent_and_kept_by_nobody, .init = begin, .fini = end)
{
    loop_call(loop, set_failure, NULL);
    check_uint(fetch_ahead(table, &owner, 0, MIB, false, &object, 0, MIB), MIB);
    struct fetch_slice slices[FETCH_SLICES_MAX];
    /* Joined the failing one, or found none any more. */
    check_int(fetch_get(table, &owner, &object, 0, 4096, slices), 1);
    if (wait_result(&slices[0]) < 0) {
        check(fetch_was_ahead(&slices[0]));
        fetch_release(&slices[0]);
        check_int(fetch_get(table, &owner, &object, 0, 4096, slices), 1);
        check_int(wait_result(&slices[0]), 0);
    }
    check_bytes(&slices[0]);
    fetch_release(&slices[0]);
}

TEST(fetch_owner_passed, drops_what_lies_behind, .init = begin, .fini = end)
{
    for (uint64_t i = 0; i < 4; i++)
        check_uint(fetch_ahead(table, &owner, 3, (i + 1) * MIB, false, &object, i * MIB, MIB), MIB);
    fetch_owner_passed(table, &owner, 3, 2 * MIB);
    struct fetch_slice slices[FETCH_SLICES_MAX];
    wait_until(atomic_load(&gate->gets) == 4);
    check_int(fetch_get(table, &owner, &object, 2 * MIB, 4096, slices), 1);
    fetch_release(&slices[0]);
    check_int(fetch_get(table, &owner, &object, 0, 4096, slices), 1);
    check_int(wait_result(&slices[0]), 0);
    fetch_release(&slices[0]);
    check_uint(atomic_load(&gate->gets), 5);
}

TEST(fetch_owner_forget, cancels_what_is_under_way, .init = begin, .fini = end)
{
    gate_close(gate);
    fetch_ahead(table, &owner, 1, MIB, false, &object, 0, MIB);
    fetch_ahead(table, &owner, 2, 2 * MIB, false, &object, MIB, MIB);
    wait_until(atomic_load(&gate->waiting_count) == 2);
    fetch_owner_forget(table, &owner, 1u << 1);
    wait_until(atomic_load(&gate->cancels) == 1);
    check_uint(atomic_load(&gate->waiting_count), 1);
    gate_open(gate);
}

TEST(fetch_get, demand_takes_the_memory_of_read_ahead, .init = begin_small, .fini = end)
{
    struct fetch_slice slices[FETCH_SLICES_MAX], more[FETCH_SLICES_MAX], none[FETCH_SLICES_MAX];
    /* 3/4 of 1 MiB are all that read-ahead gets. */
    check_uint(fetch_ahead(table, &owner, 0, 512 * KIB, false, &object, 0, 512 * KIB), 512 * KIB);
    check_uint(fetch_ahead(table, &owner, 0, MIB, false, &object, 512 * KIB, 256 * KIB), 256 * KIB);
    wait_until(atomic_load(&gate->gets) == 2);
    loop_call(loop, gate_open_call, gate);
    check_int(fetch_get(table, NULL, &object, 8 * MIB, 256 * KIB, slices), 1);
    check_int(fetch_get(table, NULL, &object, 16 * MIB, 512 * KIB, more), 1);
    check_int(wait_result(&slices[0]), 0);
    check_int(wait_result(&more[0]), 0);
    check_bytes(&more[0]);
    check_int(fetch_get(table, NULL, &object, 32 * MIB, MIB, none), -EAGAIN);
    fetch_release(&slices[0]);
    fetch_release(&more[0]);
}

struct memory_waiter {
    struct buffers_wait wait;
    _Atomic bool granted;
};

static void memory_granted(struct buffers_wait *wait)
{
    atomic_store(&container_of(wait, struct memory_waiter, wait)->granted, true);
}

TEST(fetch_get_granted, who_waited_has_a_get_of_his_own, .init = begin_small, .fini = end)
{
    struct fetch_slice held[FETCH_SLICES_MAX], own;
    check_int(fetch_get(table, NULL, &object, 0, MIB, held), 1);
    check_int(wait_result(&held[0]), 0);
    struct memory_waiter waiter = {
        .wait = {.bytes = fetch_charge(128 * KIB), .granted = memory_granted}};
    check_int(buffers_wait(buffers, &waiter.wait), -EINPROGRESS);
    check(buffers_wanted(buffers) > 0);
    fetch_release(&held[0]);
    check(atomic_load(&waiter.granted));
    check_uint(buffers_wanted(buffers), 0);
    uint64_t granted = waiter.wait.bytes;
    check_int(fetch_get_granted(table, &granted, &object, 100, 128 * KIB, &own), 1);
    check_int(wait_result(&own), 0);
    check_bytes(&own);
    fetch_release(&own);
    buffers_return(buffers, granted);
}

TEST(fetch_release, read_ahead_that_was_being_read_goes_when_somebody_waits, .init = begin_small,
     .fini = end)
{
    struct fetch_slice held[FETCH_SLICES_MAX];
    check_uint(fetch_ahead(table, &owner, 0, 512 * KIB, false, &object, 0, 512 * KIB), 512 * KIB);
    check_int(fetch_get(table, &owner, &object, 0, 4096, held), 1);
    check_int(wait_result(&held[0]), 0);
    struct memory_waiter waiter = {.wait = {.bytes = MIB, .granted = memory_granted}};
    check_int(buffers_wait(buffers, &waiter.wait), -EINPROGRESS);
    check(!atomic_load(&waiter.granted));
    fetch_release(&held[0]);
    check(atomic_load(&waiter.granted));
    buffers_return(buffers, MIB);
}

TEST(fetch_drop_idle, gives_back_what_nobody_came_for, .init = begin, .fini = end)
{
    fetch_ahead(table, &owner, 0, MIB, false, &object, 0, MIB);
    fetch_drop_idle(table, 0);
    check(owner.keeps != NULL);
    fetch_drop_idle(table, clock_monotonic_ns() + 1);
    check(owner.keeps == NULL);
    loop_call(loop, gate_open_call, gate);
    struct buffers_stats stats;
    wait_until((buffers_stats(buffers, &stats), stats.used == 0));
    while (buffers_trim(buffers, clock_monotonic_ns(), 0))
        ;
    buffers_stats(buffers, &stats);
    check_uint(stats.idle, 0);
}

struct racer {
    pthread_t thread;
    unsigned seed;
    bool good;
};

static void *race(void *arg)
{
    struct racer *racer = arg;
    struct fetch_owner mine = {0};
    racer->good = true;
    for (int i = 0; i < 300 && racer->good; i++) {
        racer->seed = racer->seed * 1103515245 + 12345;
        uint64_t offset = racer->seed / 65536 % 64 * 32 * KIB;
        struct fetch_slice slices[FETCH_SLICES_MAX];
        if (i % 7 == 0)
            fetch_ahead(table, &mine, 0, offset + 256 * KIB, false, &object, offset, 256 * KIB);
        int count = fetch_get(table, &mine, &object, offset + 100, 40 * KIB, slices);
        for (int k = 0; k < count; k++) {
            if (i % 5 != 0 && wait_result(&slices[k]) == 0)
                racer->good &=
                    *(const uint8_t *)fetch_data(&slices[k]) == gate_byte("k42", slices[k].offset);
            fetch_release(&slices[k]);
        }
        if (i % 31 == 0)
            fetch_owner_forget(table, &mine, ~0u);
    }
    fetch_owner_done(table, &mine);
    return NULL;
}

TEST(fetch_table, holds_under_many_threads, .init = begin_small, .fini = end)
{
    struct racer racers[4];
    for (unsigned i = 0; i < 4; i++) {
        racers[i] = (struct racer){.seed = i * 77 + 1};
        check_int(pthread_create(&racers[i].thread, NULL, race, &racers[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(racers[i].thread, NULL);
        check(racers[i].good);
    }
}
