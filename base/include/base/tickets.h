/*
 * A budget of bytes that many requests share: back-pressure in place of running out of memory. Who
 * cannot have what he asks for waits in order; a waiter is called back when its bytes are there. A
 * request for more than the whole budget is granted when nothing else is out.
 */
#ifndef SLUICE_BASE_TICKETS_H
#define SLUICE_BASE_TICKETS_H

#include <stdbool.h>
#include <stdint.h>

struct tickets;

struct ticket_wait {
    uint64_t bytes;
    /* Called without locks, on the thread that returned bytes (or cancelled a wait in front); the
     * bytes belong to the waiter then. Short: it should post the work, not do it. */
    void (*granted)(struct ticket_wait *wait);
    struct ticket_wait *next, *prev; /* the budget's, while waiting */
    bool waiting;
};

int tickets_new(struct tickets **out, uint64_t budget_bytes);
void tickets_free(struct tickets *t); /* nothing may be out or waiting */
/* Any thread. True: `bytes` are the caller's. False: not available now (or others wait in front);
 * nothing changed. */
bool tickets_try(struct tickets *t, uint64_t bytes);
/* Any thread. 0: granted now, no call back. -EINPROGRESS: wait->granted is called exactly once,
 * later, unless tickets_cancel came first. */
int tickets_take(struct tickets *t, struct ticket_wait *wait);
/* True: it was waiting, and granted will not be called. False: it was or is being granted. */
bool tickets_cancel(struct tickets *t, struct ticket_wait *wait);
void tickets_return(struct tickets *t, uint64_t bytes);
uint64_t tickets_used(struct tickets *t);
uint64_t tickets_peak(struct tickets *t);
uint64_t tickets_budget(const struct tickets *t);

#endif
