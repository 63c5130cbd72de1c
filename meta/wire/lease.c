#include "lease.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

#define FIRST_SLOTS 64

void lease_init(struct lease *lease, size_t max, uint64_t horizon_ms)
{
    *lease = (struct lease){.max = max, .horizon_ms = horizon_ms};
}

void lease_done(struct lease *lease)
{
    free(lease->slots);
    lease->slots = NULL;
    lease->cap = lease->used = 0;
}

/* The slot of ino, or the free one where it would stand. The table has a free slot. */
static struct lease_slot *find(const struct lease *lease, uint64_t ino)
{
    size_t i = hash_u64(ino) & (lease->cap - 1);
    while (lease->slots[i].ino != 0 && lease->slots[i].ino != ino)
        i = (i + 1) & (lease->cap - 1);
    return &lease->slots[i];
}

static struct lease_slot *find_used(const struct lease *lease, uint64_t ino)
{
    struct lease_slot *slot = lease->cap ? find(lease, ino) : NULL;
    return slot && slot->ino ? slot : NULL;
}

static bool grow(struct lease *lease)
{
    struct lease bigger = *lease;
    bigger.cap = lease->cap ? lease->cap * 2 : FIRST_SLOTS;
    bigger.slots = calloc(bigger.cap, sizeof(*bigger.slots));
    if (!bigger.slots)
        return false;
    for (size_t i = 0; i < lease->cap; i++)
        if (lease->slots[i].ino)
            *find(&bigger, lease->slots[i].ino) = lease->slots[i];
    free(lease->slots);
    *lease = bigger;
    return true;
}

bool lease_note(struct lease *lease, uint64_t ino, unsigned what, uint64_t now_ms)
{
    struct lease_slot *slot = find_used(lease, ino);
    if (!slot) {
        bool full = lease->used >= lease->max;
        if (full || (lease->used + 1 > lease->cap / 4 * 3 && !grow(lease)))
            return false;
        slot = find(lease, ino);
        *slot = (struct lease_slot){.ino = ino};
        lease->used++;
    }
    if (what & LEASE_SELF)
        slot->self = true;
    if (what & LEASE_NAMES)
        slot->names_until_ms = now_ms + lease->horizon_ms;
    if (what & LEASE_ABSENT)
        slot->absent_until_ms = now_ms + lease->horizon_ms;
    return true;
}

enum lease_answer lease_change(struct lease *lease, uint64_t ino, unsigned names, uint64_t now_ms,
                               uint64_t batch, uint64_t confirmed, uint64_t *sequence)
{
    struct lease_slot *slot = find_used(lease, ino);
    if (slot && (slot->self || (names & LEASE_NAMES && now_ms < slot->names_until_ms) ||
                 (names & LEASE_ABSENT && now_ms < slot->absent_until_ms))) {
        slot->self = false;
        slot->sequence = batch;
        *sequence = batch;
        return LEASE_PUSH;
    }
    *sequence = lease_pending(lease, ino, confirmed);
    return *sequence ? LEASE_WAIT : LEASE_NOTHING;
}

uint64_t lease_pending(const struct lease *lease, uint64_t ino, uint64_t confirmed)
{
    const struct lease_slot *slot = find_used(lease, ino);
    uint64_t last = slot && slot->sequence > lease->floor ? slot->sequence : lease->floor;
    return last > confirmed ? last : 0;
}

bool lease_knows(const struct lease *lease, uint64_t ino)
{
    return lease->knows_all || find_used(lease, ino);
}

void lease_clear(struct lease *lease, uint64_t batch)
{
    lease_done(lease);
    lease->floor = batch;
    lease->knows_all = true;
}
