#include <sys/mman.h>

#include "slots.h"
#include "test.h"

TEST(slots_take, every_slot_once_and_aligned)
{
    struct slots slots;
    check_int(slots_init(&slots, 2 << 20), 0);
    unsigned large = slots.count[0], taken = 0;
    void *all[64];
    for (void *slot; (slot = slots_take(&slots, SLOTS_LARGE, false));) {
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
    unsigned taken = 0;
    while (slots_take(&slots, SLOTS_LARGE, true))
        taken++;
    check(taken <= (slots.count[0] + 1) / 2);
    check(slots_take(&slots, SLOTS_LARGE, false) != NULL);
    slots_done(&slots);
}

TEST(slots_take, small_reads_use_small_slots_first)
{
    struct slots slots;
    check_int(slots_init(&slots, 2 << 20), 0);
    void *slot = slots_take(&slots, 4096, false);
    check_uint(slots.free_count[1], slots.count[1] - 1);
    check(slots_put(&slots, slot));
    slots_done(&slots);
}

TEST(slots_trim, memory_is_held_only_while_it_is_used)
{
    struct slots slots;
    check_int(slots_init(&slots, 4 << 20), 0);
    check(!slots_idle(&slots));
    void *a = slots_take(&slots, SLOTS_LARGE, false), *b = slots_take(&slots, 4096, false);
    memset(a, 1, SLOTS_LARGE);
    memset(b, 1, 4096);
    slots_put(&slots, a);
    check(!slots_idle(&slots));
    slots_put(&slots, b);
    check(slots_idle(&slots));
    slots_trim(&slots);
    check(!slots_idle(&slots));
    size_t held = 0;
    unsigned char there[1024];
    for (unsigned r = 0; r < SLOTS_REGIONS; r++) {
        check_int(mincore(slots.region[r], slots.region_len[r], there), 0);
        for (size_t i = 0; i < slots.region_len[r] / 4096; i++)
            held += there[i] & 1;
    }
    check_uint(held, 0);
    /* All of them can be had again, each once. */
    unsigned taken = 0;
    while (slots_take(&slots, SLOTS_LARGE, false))
        taken++;
    check_uint(taken, slots.count[0]);
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
