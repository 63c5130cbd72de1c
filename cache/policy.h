/*
 * Which segment goes when room is needed: S3-FIFO. New segments queue in `small` (a tenth of the
 * bytes); what is read again there moves to `main`, the rest goes out and is remembered for a while
 * (ghost); who comes back soon enters `main` at once. `main` gives a further round to what was read
 * again. So one pass over data larger than the cache pushes out only other new data.
 *
 * A pure module: events and time in, decisions out; no lock, no disk. Items are embedded in the
 * caller's segments.
 *
 * "Read again" is counted by segment, from page touches: a pass over the pages of a segment,
 * however many reads it takes, counts nothing the first time and one each later time.
 */
#ifndef SLUICE_CACHE_POLICY_H
#define SLUICE_CACHE_POLICY_H

#include <stdbool.h>
#include <stdint.h>

enum policy_queue { POLICY_NONE, POLICY_SMALL, POLICY_MAIN };

struct policy_item {
    struct policy_item *prev, *next;
    uint64_t key;      /* names the segment, also after it went */
    uint32_t bytes;    /* cached of it */
    uint32_t touched;  /* pages read in this pass */
    uint32_t last_s;   /* last touch */
    uint8_t last_page; /* of that */
    uint8_t queue;     /* enum policy_queue */
    uint8_t freq;      /* passes, 0..POLICY_FREQ_MAX */
};

#define POLICY_FREQ_MAX 3
#define POLICY_PAGES 32 /* of a segment */

struct policy_list {
    struct policy_item *items; /* newest first */
    uint64_t bytes, count;
};

struct policy_ghost {
    uint32_t mark, when;
};

struct policy {
    struct policy_list small, main;
    struct policy_ghost *ghosts;
    uint32_t ghost_slots;     /* power of two */
    uint32_t ghost_clock;     /* counts what became a ghost */
    struct policy_item *hand; /* of policy_expired */
    enum policy_queue hand_queue;
};

/* ghost_slots: how many segments that went can be remembered; rounded up to a power of two.
 * 0 or -ENOMEM. */
int policy_init(struct policy *policy, uint32_t ghost_slots);
void policy_done(struct policy *policy);

/* A segment that begins to be cached: key is set, bytes may be 0. */
void policy_insert(struct policy *policy, struct policy_item *item, uint32_t now_s);
/* As it was when the process before ended; call in order, oldest first. */
void policy_restore(struct policy *policy, struct policy_item *item, enum policy_queue queue,
                    uint8_t freq, uint32_t now_s);
/* More (or less) of it is cached now. */
void policy_resize(struct policy *policy, struct policy_item *item, uint32_t bytes);
/* Somebody read pages [first, first + count) of it. */
void policy_touch(struct policy_item *item, unsigned first, unsigned count, uint32_t now_s);
/* Out of the queues, without becoming a ghost. No-op if it is in none. */
void policy_remove(struct policy *policy, struct policy_item *item);
/* Takes the next to go out of the queues; NULL if `busy` says of all that they must stay. */
struct policy_item *policy_victim(struct policy *policy,
                                  bool (*busy)(const struct policy_item *item));
/* Looks at up to `steps` items, going round; takes the first one that was not touched for ttl_s. */
struct policy_item *policy_expired(struct policy *policy, uint32_t now_s, uint32_t ttl_s,
                                   unsigned steps, bool (*busy)(const struct policy_item *item));

#endif
