/*
 * Memory for bytes that are read: page-aligned blocks under one hard budget. Blocks are reused;
 * what lies idle goes back to the operating system.
 *
 * Who takes: demand reads (they wait for their turn), and read-ahead (never waits, may use
 * only a part of the budget, and is dropped first when somebody waits).
 */
#ifndef SLUICE_FS_BUFFERS_H
#define SLUICE_FS_BUFFERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/tickets.h"

struct buffers;

struct block {
    void *data;  /* page-aligned, `size` bytes, not cleared */
    size_t size; /* bytes charged to the budget: a power of two, at least what was asked */
    struct buffers *buffers; /* the pool's from here */
    bool ahead;
    uint64_t idle_since_ns;
    struct block *next, *prev;
};

/* `tickets` (borrowed) is the budget. 0 or -ENOMEM. */
int buffers_new(struct tickets *tickets, struct buffers **out);
void buffers_free(struct buffers *buffers); /* every block was put. NULL is allowed */

uint64_t buffers_budget(const struct buffers *buffers);
/* What a block for `len` bytes is charged. */
size_t buffers_charge(size_t len);
/* Any thread. A block now, or NULL: the budget is used up, others wait, or no memory. `ahead`: for
 * read-ahead. */
struct block *buffers_try(struct buffers *buffers, size_t len, bool ahead);

/* A wait for budget, embedded in the caller's request. */
struct buffers_wait {
    uint64_t bytes; /* sum of buffers_charge of what will be taken */
    /* The bytes are the caller's: to be used with buffers_take_granted, the rest given back by
     * buffers_return. Any thread, maybe under locks of who put a block: only post. */
    void (*granted)(struct buffers_wait *wait);
    struct ticket_wait ticket; /* the pool's from here */
    struct buffers *buffers;
};
/* Any thread, without locks of the read side (read-ahead may be dropped from inside). 0: granted
 * now, no call back. -EINPROGRESS: `granted` comes, unless buffers_cancel came first. */
int buffers_wait(struct buffers *buffers, struct buffers_wait *wait);
/* True: granted will not be called. False: it was or is being called. */
bool buffers_cancel(struct buffers *buffers, struct buffers_wait *wait);
/* Bytes that somebody waits for now: what read-ahead holds should go. */
uint64_t buffers_wanted(const struct buffers *buffers);
/* A block out of granted bytes: `*granted` is lowered by its charge. NULL without memory (then not
 * lowered) or if the charge is more than that. */
struct block *buffers_take_granted(struct buffers *buffers, size_t len, uint64_t *granted);
void buffers_return(struct buffers *buffers, uint64_t bytes);

/* Any thread. NULL is allowed. */
void buffers_put(struct block *block);

/* Called, without locks, when somebody has to wait for `bytes`: drops read-ahead. Set before the
 * first use. */
void buffers_on_pressure(struct buffers *buffers, void (*drop)(void *arg, uint64_t bytes),
                         void *arg);
/* Gives idle memory that was last used before now_ns - idle_ns back; true if some is left. */
bool buffers_trim(struct buffers *buffers, uint64_t now_ns, uint64_t idle_ns);

struct buffers_stats {
    uint64_t used, peak, ahead; /* bytes charged */
    uint64_t idle;              /* kept for reuse; used + idle never passes the budget */
};
void buffers_stats(struct buffers *buffers, struct buffers_stats *out);

#endif
