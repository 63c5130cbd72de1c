/*
 * How fast the background work of a volume (settle, gc, entries) may go beside its users: it sends
 * and copies what they have just made, on the same processors, disk and store. So while many
 * operations or bytes come in no file is begun, and of what was begun one request goes at a time,
 * with pauses. What is held back for long gets more: at first a sixteenth of the time, in the end
 * all that it has when it is alone. Who waits for settle (a job commit) is not paced. Pure; times
 * are monotonic, in ns.
 */
#ifndef SLUICE_META_SETTLE_PACE_H
#define SLUICE_META_SETTLE_PACE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define SETTLE_PACE_QUIET_NS 100000000ull /* not busy for so long: nobody is there */
#define SETTLE_PACE_BUSY 20 /* operations within that make busy; settle does not disturb fewer */
#define SETTLE_PACE_BYTES (64u << 10) /* that a user reads or writes are one operation more */
#define SETTLE_PACE_DELAYS 10         /* the bound, in settle delays */
#define SETTLE_PACE_FREE 8            /* time without users counts so often against being held */

/* Any thread. Zero at the beginning. Two threads at once may count one operation too few. */
struct settle_load {
    _Atomic uint64_t stretch; /* of SETTLE_PACE_QUIET_NS, since the clock began */
    _Atomic uint64_t count;   /* operations in it */
    _Atomic uint64_t busy_ns; /* of the last operation that made it busy */
    _Atomic unsigned waiting; /* users whose read, write or close is not answered yet */
};

/* One operation of a user, who reads or writes so many bytes by it. */
void settle_load_operation(struct settle_load *load, uint64_t now_ns, uint64_t bytes);
/* When it was busy last. */
uint64_t settle_load_busy_ns(const struct settle_load *load, uint64_t now_ns);

/* Zero at the beginning, but for the bound. */
struct settle_pace {
    uint64_t bound_ns; /* so long no file is begun at all; 0: no pace */
    uint64_t held_ns;  /* how long work was held back, less SETTLE_PACE_FREE times how long not */
    uint64_t seen_ns;  /* up to when held_ns says it; 0: there was nothing to do */
    uint64_t quiet_ns; /* held: when users will have been away for long enough */
    uint64_t next_ns;  /* the end of a pause */
    unsigned flying;   /* requests */
    bool held;
};

/* To be called before each question below. */
void settle_pace_look(struct settle_pace *pace, uint64_t now_ns, uint64_t busy_ns);
/* Nothing is left to do. */
void settle_pace_idle(struct settle_pace *pace);
/* How many files may be in work, of at most `parallel`. 0: none may be begun, and *wait_ns says
 * when to ask again. */
unsigned settle_pace_files(const struct settle_pace *pace, uint64_t now_ns, unsigned parallel,
                           uint64_t *wait_ns);
/* Whether a request may be sent; if not, when to ask again, though not before one has ended. */
bool settle_pace_may_send(const struct settle_pace *pace, uint64_t now_ns, uint64_t *wait_ns);
void settle_pace_sent(struct settle_pace *pace);
void settle_pace_ended(struct settle_pace *pace, uint64_t now_ns, uint64_t took_ns);
/* Of what it has alone, in sixteenths: 16 and more is without pauses, one request for each 16. */
unsigned settle_pace_share(const struct settle_pace *pace);

#endif
