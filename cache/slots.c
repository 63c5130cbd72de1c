#include "slots.h"

#include <errno.h>
#include <sys/mman.h>

#include "base/cleanup.h"

static const size_t slot_len[SLOTS_REGIONS] = {SLOTS_LARGE, SLOTS_SMALL};

static int region_init(struct slots *slots, unsigned r, size_t len)
{
    len = len / slot_len[r] * slot_len[r];
    void *region = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (region == MAP_FAILED)
        return -ENOMEM;
    /* Few pages for the kernel to look up for each request: that saves as much as registering the
     * memory with io_uring would, which holds all of it for ever. */
    if (r == 0)
        madvise(region, len, MADV_HUGEPAGE);
    slots->region[r] = region;
    slots->region_len[r] = len;
    slots->count[r] = slots->free_count[r] = (unsigned)(len / slot_len[r]);
    return 0;
}

int slots_init(struct slots *slots, uint64_t bytes)
{
    *slots = (struct slots){0};
    int rc = region_init(slots, 0, bytes - bytes / 8);
    if (rc == 0)
        rc = region_init(slots, 1, bytes / 8);
    if (rc < 0)
        slots_done(slots);
    return rc;
}

void slots_done(struct slots *slots)
{
    for (unsigned r = 0; r < SLOTS_REGIONS; r++)
        if (slots->region[r])
            munmap(TAKE_PTR(slots->region[r]), slots->region_len[r]);
}

static void *take(struct slots *slots, unsigned r)
{
    void *slot = slots->free[r];
    if (slot)
        slots->free[r] = *(void **)slot;
    else if (slots->fresh[r] < slots->count[r])
        slot = (char *)slots->region[r] + slots->fresh[r]++ * slot_len[r];
    if (slot)
        slots->free_count[r]--;
    return slot;
}

void *slots_take(struct slots *slots, size_t len, bool fill)
{
    void *slot = NULL;
    if (len <= SLOTS_SMALL && (!fill || slots->free_count[1] > slots->count[1] / 2))
        slot = take(slots, 1);
    if (!slot && (!fill || slots->free_count[0] > slots->count[0] / 2))
        slot = take(slots, 0);
    return slot;
}

bool slots_put(struct slots *slots, void *slot)
{
    for (unsigned r = 0; r < SLOTS_REGIONS; r++) {
        uintptr_t at = (uintptr_t)slot, begin = (uintptr_t)slots->region[r];
        if (at < begin || at >= begin + slots->region_len[r])
            continue;
        *(void **)slot = slots->free[r];
        slots->free[r] = slot;
        slots->free_count[r]++;
        return true;
    }
    return false;
}

bool slots_idle(const struct slots *slots)
{
    bool held = false;
    for (unsigned r = 0; r < SLOTS_REGIONS; r++) {
        if (slots->free_count[r] < slots->count[r])
            return false;
        held |= slots->fresh[r] > 0;
    }
    return held;
}

void slots_trim(struct slots *slots)
{
    for (unsigned r = 0; r < SLOTS_REGIONS; r++) {
        madvise(slots->region[r], slots->region_len[r], MADV_DONTNEED);
        slots->free[r] = NULL;
        slots->fresh[r] = 0;
    }
}
