/*
 * What one session may have in its caches: a pure policy, no clock, no I/O. docs/service.md,
 * "Coherence".
 *
 * The service notes what it told a session. A change asks whether that session must hear of it:
 * nothing, a push (an invalidation with the number of the batch that is being filled), or a wait
 * for a push that was sent before and is not confirmed. What was pushed is not noted any more until
 * the session asks again, so an idle session costs one push for each thing and not one for each
 * change.
 *
 * Names are noted by their directory only, and for a time: the kernel keeps none longer than
 * `horizon_ms` after the answer. Bounded: when there are too many, the session must be told to drop
 * everything.
 */
#ifndef SLUICE_META_LEASE_H
#define SLUICE_META_LEASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum lease_what {
    LEASE_SELF = 1 << 0,   /* attributes, content, listing of an inode */
    LEASE_NAMES = 1 << 1,  /* names in it */
    LEASE_ABSENT = 1 << 2, /* that it has no such name */
};

struct lease_slot {
    uint64_t ino;      /* 0: free */
    uint64_t sequence; /* of the last push */
    uint64_t names_until_ms, absent_until_ms;
    bool self;
};

struct lease {
    struct lease_slot *slots;
    size_t cap, used, max; /* cap: a power of two */
    uint64_t horizon_ms;
    uint64_t floor; /* the batch that told it to drop everything */
    bool knows_all; /* it may use any inode */
};

enum lease_answer { LEASE_NOTHING, LEASE_WAIT, LEASE_PUSH };

void lease_init(struct lease *lease, size_t max, uint64_t horizon_ms);
void lease_done(struct lease *lease);
/* The session was told of it. False: there are too many (or no memory): tell it to drop all. */
bool lease_note(struct lease *lease, uint64_t ino, unsigned what, uint64_t now_ms);
/* `ino` changes; `names` not 0: one of its names, that was there (LEASE_NAMES), was not
 * (LEASE_ABSENT), or nobody knows (both). `batch`: the number of the batch that is being filled;
 * `confirmed`: all batches up to it are. *sequence: what to wait for, with WAIT and PUSH. */
enum lease_answer lease_change(struct lease *lease, uint64_t ino, unsigned names, uint64_t now_ms,
                               uint64_t batch, uint64_t confirmed, uint64_t *sequence);
/* The batch that must be confirmed before others may see `ino` as it is now; 0: none. */
uint64_t lease_pending(const struct lease *lease, uint64_t ino, uint64_t confirmed);
/* The session may use the inode, and must be told when it is gone. */
bool lease_knows(const struct lease *lease, uint64_t ino);
/* It is told to drop everything, with this batch. */
void lease_clear(struct lease *lease, uint64_t batch);

#endif
