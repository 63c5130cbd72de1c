#include "policy.h"

#include <errno.h>
#include <stdlib.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "base/hash.h"

int policy_init(struct policy *policy, uint32_t ghost_slots)
{
    uint32_t slots = 1024;
    while (slots < ghost_slots && slots < 1u << 24)
        slots *= 2;
    *policy = (struct policy){.ghost_slots = slots};
    policy->ghosts = calloc(slots, sizeof(*policy->ghosts));
    return policy->ghosts ? 0 : -ENOMEM;
}

void policy_done(struct policy *policy)
{
    free(TAKE_PTR(policy->ghosts));
}

static struct policy_list *list_of(struct policy *policy, unsigned queue)
{
    return queue == POLICY_SMALL ? &policy->small : &policy->main;
}

static void link_item(struct policy *policy, struct policy_item *item, enum policy_queue queue)
{
    struct policy_list *list = list_of(policy, queue);
    item->queue = (uint8_t)queue;
    DL_PREPEND(list->items, item);
    list->bytes += item->bytes;
    list->count++;
}

static void unlink_item(struct policy *policy, struct policy_item *item)
{
    struct policy_list *list = list_of(policy, item->queue);
    if (policy->hand == item)
        policy->hand = item == list->items ? NULL : item->prev;
    DL_DELETE(list->items, item);
    list->bytes -= item->bytes;
    list->count--;
    item->queue = POLICY_NONE;
    item->prev = item->next = NULL;
}

/* Ghosts: a table without chains; a slot that is taken by a newer one is simply forgotten. */

static struct policy_ghost *ghost_slot(struct policy *policy, uint64_t key, uint32_t *mark)
{
    uint64_t h = hash_u64(key);
    *mark = (uint32_t)(h >> 32) | 1;
    return &policy->ghosts[h & (policy->ghost_slots - 1)];
}

static void ghost_add(struct policy *policy, uint64_t key)
{
    uint32_t mark;
    struct policy_ghost *ghost = ghost_slot(policy, key, &mark);
    *ghost = (struct policy_ghost){mark, ++policy->ghost_clock};
}

/* True if the key went out not longer ago than as many others as there is room for. */
static bool ghost_take(struct policy *policy, uint64_t key)
{
    uint32_t mark;
    struct policy_ghost *ghost = ghost_slot(policy, key, &mark);
    if (ghost->mark != mark)
        return false;
    ghost->mark = 0;
    uint64_t limit = MAX(policy->small.count + policy->main.count, 64);
    return policy->ghost_clock - ghost->when <= limit;
}

void policy_insert(struct policy *policy, struct policy_item *item, uint32_t now_s)
{
    item->freq = 0;
    item->touched = 0;
    item->last_s = now_s;
    item->last_page = UINT8_MAX;
    link_item(policy, item, ghost_take(policy, item->key) ? POLICY_MAIN : POLICY_SMALL);
}

void policy_restore(struct policy *policy, struct policy_item *item, enum policy_queue queue,
                    uint8_t freq, uint32_t now_s)
{
    item->freq = MIN(freq, POLICY_FREQ_MAX);
    item->touched = 0;
    item->last_s = now_s;
    item->last_page = UINT8_MAX;
    link_item(policy, item, queue == POLICY_MAIN ? POLICY_MAIN : POLICY_SMALL);
}

void policy_resize(struct policy *policy, struct policy_item *item, uint32_t bytes)
{
    if (item->queue != POLICY_NONE) {
        struct policy_list *list = list_of(policy, item->queue);
        list->bytes = list->bytes - item->bytes + bytes;
    }
    item->bytes = bytes;
}

static uint32_t page_mask(unsigned first, unsigned count)
{
    return (count >= POLICY_PAGES ? UINT32_MAX : (1u << count) - 1) << first;
}

void policy_touch(struct policy_item *item, unsigned first, unsigned count, uint32_t now_s)
{
    uint32_t mask = page_mask(first, count);
    /* Small reads that go through one page touch it many times, one after the other. */
    bool going_on = item->last_page == first && item->last_s == now_s;
    uint32_t again = item->touched & mask;
    if (going_on)
        again &= ~(1u << first);
    if (again) {
        item->freq = MIN(item->freq + 1, POLICY_FREQ_MAX);
        item->touched = mask;
    } else {
        item->touched |= mask;
    }
    item->last_s = now_s;
    item->last_page = (uint8_t)(first + count - 1);
}

void policy_remove(struct policy *policy, struct policy_item *item)
{
    if (item->queue != POLICY_NONE)
        unlink_item(policy, item);
}

static void move(struct policy *policy, struct policy_item *item, enum policy_queue queue)
{
    unlink_item(policy, item);
    link_item(policy, item, queue);
}

struct policy_item *policy_victim(struct policy *policy,
                                  bool (*busy)(const struct policy_item *item))
{
    /* Every item is moved at most once from small, and freq + 1 times round main, before one goes;
     * busy ones only cost a turn. */
    uint64_t turns = policy->small.count + (POLICY_FREQ_MAX + 2) * (policy->main.count + 1) +
                     policy->small.count * (POLICY_FREQ_MAX + 1);
    uint64_t small_busy = 0;
    while (turns-- > 0) {
        uint64_t total = policy->small.bytes + policy->main.bytes;
        bool small = policy->small.items && small_busy < policy->small.count &&
                     (policy->small.bytes > total / 10 || !policy->main.items);
        struct policy_list *list = small ? &policy->small : &policy->main;
        if (!list->items)
            list = &policy->small;
        if (!list->items)
            return NULL;
        struct policy_item *item = list->items->prev;
        bool from_small = list == &policy->small;
        if (busy(item)) {
            small_busy += from_small;
            move(policy, item, item->queue);
        } else if (from_small && item->freq > 0) {
            item->freq = 0;
            move(policy, item, POLICY_MAIN);
        } else if (!from_small && item->freq > 0) {
            item->freq--;
            move(policy, item, POLICY_MAIN);
        } else {
            unlink_item(policy, item);
            if (from_small)
                ghost_add(policy, item->key);
            return item;
        }
    }
    return NULL;
}

struct policy_item *policy_expired(struct policy *policy, uint32_t now_s, uint32_t ttl_s,
                                   unsigned steps, bool (*busy)(const struct policy_item *item))
{
    while (steps-- > 0) {
        if (!policy->hand) {
            policy->hand_queue = policy->hand_queue == POLICY_SMALL ? POLICY_MAIN : POLICY_SMALL;
            struct policy_list *list = list_of(policy, policy->hand_queue);
            policy->hand = list->items ? list->items->prev : NULL;
            continue;
        }
        struct policy_item *item = policy->hand;
        struct policy_list *list = list_of(policy, item->queue);
        policy->hand = item == list->items ? NULL : item->prev;
        if (now_s >= item->last_s && now_s - item->last_s >= ttl_s && !busy(item)) {
            unlink_item(policy, item);
            return item;
        }
    }
    return NULL;
}
