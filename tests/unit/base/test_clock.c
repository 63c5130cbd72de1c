#include "base/clock.h"

#include <time.h>

#include "test.h"

TEST(clock_monotonic_ns, does_not_step_back)
{
    uint64_t last = clock_monotonic_ns();
    for (int i = 0; i < 10000; i++) {
        uint64_t now = clock_monotonic_ns();
        check(now >= last);
        last = now;
    }
    check(clock_monotonic_ms() >= last / NS_PER_MS);
}

TEST(clock_wall_ns, is_between_two_calls_of_time)
{
    /* time() may lag behind by a tick of the kernel's coarse clock: a second is allowed. */
    uint64_t before = (uint64_t)time(NULL);
    uint64_t now = clock_wall_ns() / NS_PER_S;
    uint64_t after = (uint64_t)time(NULL);
    check(before <= now && now <= after + 1);
}
