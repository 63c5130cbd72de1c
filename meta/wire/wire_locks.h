/* Private to meta: the messages about locks (docs/protocol.md, "Locks"). As those of wire.h. */
#ifndef SLUICE_META_WIRE_LOCKS_H
#define SLUICE_META_WIRE_LOCKS_H

#include "engine/locks.h"
#include "wire.h"

enum wire_lock_how { WIRE_LOCK_TEST = 1, WIRE_LOCK_TRY, WIRE_LOCK_WAIT };

struct wire_lock {
    uint64_t id;
    enum wire_lock_how how;
    struct lock lock; /* session and tag: not sent */
};

struct wire_lock_done {
    uint64_t id;
    int result;           /* 0 or -errno */
    struct lock conflict; /* TEST, TRY: type NONE: nobody's; only type, pid, start, end are sent */
};

void wire_put_lock(struct buf *b, const struct wire_lock *m);
void wire_put_lock_done(struct buf *b, const struct wire_lock_done *m);
/* LOCK_CLAIM: begin with wire_begin and the count (varint), then each. */
void wire_put_lock_held(struct buf *b, const struct lock *lock);

int wire_get_lock(const void *data, size_t len, struct wire_lock *out);
int wire_get_lock_done(const void *data, size_t len, struct wire_lock_done *out);
/* Calls `each` for every lock, after all of them were checked. */
int wire_get_lock_claim(const void *data, size_t len,
                        void (*each)(void *arg, const struct lock *lock), void *arg);

#endif
