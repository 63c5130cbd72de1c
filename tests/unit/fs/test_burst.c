/* How many bytes go to the metadata at once, and after that. */
#include "data/burst.h"

#include "base/clock.h"
#include "test.h"

static struct burst burst;

static void begin(void)
{
    burst_init(&burst, 5 * NS_PER_S);
}

TEST(burst, takes_so_many_bytes_at_once, .init = begin)
{
    check(burst_take(&burst, BURST_BYTES - 10, 5 * NS_PER_S));
    check(!burst_take(&burst, 11, 5 * NS_PER_S));
    check(burst_take(&burst, 10, 5 * NS_PER_S));
    check(!burst_take(&burst, 1, 5 * NS_PER_S));
}

TEST(burst, has_room_again_with_time, .init = begin)
{
    check(burst_take(&burst, BURST_BYTES, 5 * NS_PER_S));
    check(!burst_take(&burst, BURST_PER_SECOND / 2 + 1, 5 * NS_PER_S + NS_PER_S / 2));
    check(burst_take(&burst, BURST_PER_SECOND / 2, 5 * NS_PER_S + NS_PER_S / 2));
    check(!burst_take(&burst, 1, 5 * NS_PER_S + NS_PER_S / 2));
}

TEST(burst, is_never_more_than_full, .init = begin)
{
    check(burst_take(&burst, 1, 6 * NS_PER_S));
    check(!burst_take(&burst, BURST_BYTES + 1, UINT64_MAX));
    check(burst_take(&burst, BURST_BYTES, UINT64_MAX));
}

TEST(burst, a_time_of_before_gives_nothing, .init = begin)
{
    check(burst_take(&burst, BURST_BYTES, 9 * NS_PER_S));
    check(!burst_take(&burst, 1, 2 * NS_PER_S));
    check(!burst_take(&burst, BURST_PER_SECOND + 1, 10 * NS_PER_S));
    check(burst_take(&burst, BURST_PER_SECOND, 10 * NS_PER_S));
}
