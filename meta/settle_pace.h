/*
 * How fast settle may go beside its users: it sends and copies what they have just made, on the
 * same processors, disk and store. So no file is begun while many operations come in; but what has
 * waited for long is begun all the same, one at a time at first, then more. Who waits for settle (a
 * job commit) is not paced. Pure; times are monotonic, in ns.
 */
#ifndef SLUICE_META_SETTLE_PACE_H
#define SLUICE_META_SETTLE_PACE_H

#include <stdatomic.h>
#include <stdint.h>

#define SETTLE_PACE_QUIET_NS 100000000ull /* not busy for so long: nobody is there */
#define SETTLE_PACE_BUSY 20   /* operations within that make busy; settle does not disturb fewer */
#define SETTLE_PACE_DELAYS 10 /* bound_ns in settle delays */

/* Any thread. Zero at the beginning. Two threads at once may count one operation too few. */
struct settle_load {
    _Atomic uint64_t stretch; /* of SETTLE_PACE_QUIET_NS, since the clock began */
    _Atomic unsigned count;   /* operations in it */
    _Atomic uint64_t busy_ns; /* of the last operation that made it busy */
};

void settle_load_operation(struct settle_load *load, uint64_t now_ns);

struct settle_pace {
    uint64_t held_ns; /* since when something due was not begun at once; 0: nothing is */
};

/* How many files may be in work, of at most `parallel`. 0: none may be begun, and *wait_ns says
 * when to ask again. busy_ns: when it was busy last; bound_ns: from which time on it goes on all
 * the same, and after which it may take one file more each time (0: no pace). */
unsigned settle_pace(struct settle_pace *pace, uint64_t now_ns, uint64_t busy_ns, uint64_t bound_ns,
                     unsigned parallel, uint64_t *wait_ns);

#endif
