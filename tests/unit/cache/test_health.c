/* When a disk is used and when it is left alone. */
#include <errno.h>

#include "health.h"
#include "test.h"

static struct health health;
static bool trial;

static void begin(void)
{
    health_init(&health, 200);
}

TEST(health_report, good_disk_stays_good, .init = begin)
{
    for (uint64_t now = 0; now < 100000; now += 100) {
        check(health_allows(&health, now, &trial) && !trial);
        check(!health_report(&health, now, 0, 5, trial));
    }
}

TEST(health_report, some_errors_are_borne_when_far_apart, .init = begin)
{
    for (uint64_t i = 0; i < 10; i++)
        check(!health_report(&health, i * 2 * HEALTH_WINDOW_MS + 1, -EIO, 1, false));
    check_int(health.state, CACHE_GOOD);
}

TEST(health_report, three_errors_in_a_row_are_too_many, .init = begin)
{
    check(!health_report(&health, 1, -EIO, 1, false));
    check(!health_report(&health, 2, -EIO, 1, false));
    check(health_report(&health, 3, -EIO, 1, false));
    check_int(health.state, CACHE_FAILED);
    check(!health_allows(&health, 4, &trial));
    check(!health_usable(&health, 4));
}

TEST(health_report, slow_disk_is_left_alone_and_comes_back, .init = begin)
{
    for (uint64_t now = 1; now <= 3; now++)
        health_report(&health, now, -ETIMEDOUT, 250, false);
    check_int(health.state, CACHE_SLOW);
    check(health_allows(&health, 3 + HEALTH_PAUSE_MIN_MS, &trial));
    check(trial);
    /* One at a time tries. */
    check(!health_allows(&health, 4 + HEALTH_PAUSE_MIN_MS, &trial));
    check(health_report(&health, 10 + HEALTH_PAUSE_MIN_MS, 0, 5, true));
    check_int(health.state, CACHE_GOOD);
    check(health_allows(&health, 11 + HEALTH_PAUSE_MIN_MS, &trial) && !trial);
}

TEST(health_report, pause_doubles_up_to_its_maximum, .init = begin)
{
    uint64_t now = 1, pause = HEALTH_PAUSE_MIN_MS;
    for (int i = 0; i < 3; i++)
        health_report(&health, now, -EIO, 1, false);
    for (int i = 0; i < 10; i++) {
        check_uint(health.pause_ms, pause);
        check(!health_allows(&health, now + pause - 1, &trial));
        now += pause;
        check(health_allows(&health, now, &trial) && trial);
        health_report(&health, now, -EIO, 1, true);
        pause = pause * 2 < HEALTH_PAUSE_MAX_MS ? pause * 2 : HEALTH_PAUSE_MAX_MS;
    }
}

TEST(health_report, read_only_disk_is_hopeless_at_once, .init = begin)
{
    check(health_report(&health, 1, -EROFS, 1, false));
    check_int(health.state, CACHE_FAILED);
}

TEST(health_report, full_disk_still_reads, .init = begin)
{
    check(!health_report(&health, 10, -ENOSPC, 1, false));
    check(health_full(&health, 11));
    check(health_allows(&health, 11, &trial) && !trial);
    check(!health_full(&health, 10 + HEALTH_FULL_MS));
}

TEST(health_allows, trial_that_never_ended_does_not_lock_the_disk_out, .init = begin)
{
    for (int i = 0; i < 3; i++)
        health_report(&health, 1, -EIO, 1, false);
    check(health_allows(&health, 5000, &trial) && trial);
    check(!health_allows(&health, 6000, &trial));
    check(health_allows(&health, 5000 + HEALTH_PAUSE_MAX_MS, &trial) && trial);
}
