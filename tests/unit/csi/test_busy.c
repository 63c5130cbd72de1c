#include "busy.h"

#include "test.h"

TEST(busy_enter, gives_a_volume_to_one_caller_at_a_time)
{
    struct busy *busy = busy_new();
    check(busy_enter(busy, "a"));
    check(!busy_enter(busy, "a"));
    check(busy_enter(busy, "b"));
    busy_leave(busy, "a");
    check(busy_enter(busy, "a"));
    busy_leave(busy, "a");
    busy_leave(busy, "b");
    busy_free(busy);
}
