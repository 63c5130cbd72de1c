#include "slots.h"
#include "test.h"

TEST(slots_take, every_slot_once_and_aligned)
{
    struct slots slots;
    check_int(slots_init(&slots, 2 << 20), 0);
    unsigned large = slots.count[0], taken = 0;
    void *all[64];
    int region;
    for (void *slot; (slot = slots_take(&slots, SLOTS_LARGE, false, &region));) {
        check_int(region, 0);
        check_uint((uintptr_t)slot % 4096, 0);
        memset(slot, 0xff, SLOTS_LARGE);
        all[taken++] = slot;
    }
    check_uint(taken, large);
    while (taken > 0)
        check(slots_put(&slots, all[--taken]));
    check_uint(slots.free_count[0], large);
    slots_done(&slots);
}

TEST(slots_take, fills_leave_half_to_readers)
{
    struct slots slots;
    check_int(slots_init(&slots, 2 << 20), 0);
    int region;
    unsigned taken = 0;
    while (slots_take(&slots, SLOTS_LARGE, true, &region))
        taken++;
    check(taken <= (slots.count[0] + 1) / 2);
    check(slots_take(&slots, SLOTS_LARGE, false, &region) != NULL);
    slots_done(&slots);
}

TEST(slots_take, small_reads_use_small_slots_first)
{
    struct slots slots;
    check_int(slots_init(&slots, 2 << 20), 0);
    int region;
    void *slot = slots_take(&slots, 4096, false, &region);
    check_int(region, 1);
    check(slots_put(&slots, slot));
    slots_done(&slots);
}

TEST(slots_put, refuses_what_is_not_its_own)
{
    struct slots slots;
    check_int(slots_init(&slots, 2 << 20), 0);
    char other[16];
    check(!slots_put(&slots, other));
    slots_done(&slots);
}
