#include "volume/gather.h"

#include "test.h"

/* One that is alone: comes after each answer. */
TEST(gather, who_is_alone_does_not_wait)
{
    struct gather gather = {0};
    for (int i = 0; i < 100; i++) {
        check_uint(gather_begin(&gather, 1), 1);
        gather_synced(&gather, 1, 0);
    }
}

TEST(gather, waits_for_those_who_were_answered)
{
    struct gather gather = {0};
    check_uint(gather_begin(&gather, 1), 1);
    gather_synced(&gather, 1, 3); /* three came while it went on */
    check_uint(gather_begin(&gather, 3), 4);
    gather_end(&gather, true);
    gather_synced(&gather, 4, 0);
    check_uint(gather_begin(&gather, 1), 4);
    /* More came. */
    gather_end(&gather, true);
    gather_synced(&gather, 4, 2);
    check_uint(gather_begin(&gather, 7), 7);
}

/* A sync that nobody waited for answers nobody. */
TEST(gather, forgets_who_went_away)
{
    struct gather gather = {0};
    gather_synced(&gather, 1, 3);
    check_uint(gather_begin(&gather, 3), 4);
    gather_end(&gather, false);
    gather_synced(&gather, 3, 0);
    check_uint(gather_begin(&gather, 3), 3);
    gather_synced(&gather, 0, 0);
    check_uint(gather_begin(&gather, 1), 1);
}

static unsigned rounds_until_it_waits(struct gather *gather)
{
    unsigned rounds = 0;
    for (; gather_begin(gather, 1) == 1; rounds++)
        gather_synced(gather, 1, 3);
    return rounds;
}

/* Those who take long between two changes are waited for ever less. */
TEST(gather, waits_seldom_if_nobody_comes)
{
    struct gather gather = {0};
    gather_synced(&gather, 1, 3);
    check_uint(rounds_until_it_waits(&gather), 0);
    for (unsigned skipped = 2; skipped <= 64; skipped *= 2) {
        gather_end(&gather, false);
        check_uint(rounds_until_it_waits(&gather), skipped);
    }
    gather_end(&gather, false);
    check_uint(rounds_until_it_waits(&gather), 64);
    gather_end(&gather, true);
    check_uint(rounds_until_it_waits(&gather), 0);
}
