#include "base/tickets.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <utlist.h>

struct tickets {
    /* immutable */
    uint64_t budget;
    /* under lock, which is a leaf: nothing is called while it is held */
    pthread_mutex_t lock;
    uint64_t used, peak;
    struct ticket_wait *waiting; /* first come, first served */
};

int tickets_new(struct tickets **out, uint64_t budget_bytes)
{
    struct tickets *t = calloc(1, sizeof(*t));
    if (!t)
        return -ENOMEM;
    t->budget = budget_bytes;
    pthread_mutex_init(&t->lock, NULL);
    *out = t;
    return 0;
}

void tickets_free(struct tickets *t)
{
    if (!t)
        return;
    assert(t->used == 0 && !t->waiting);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

static bool grant_locked(struct tickets *t, uint64_t bytes)
{
    /* used may be above the budget, by one request that was larger than it. */
    bool fits = t->used <= t->budget && bytes <= t->budget - t->used;
    if (!fits && t->used != 0)
        return false;
    t->used += bytes;
    if (t->used > t->peak)
        t->peak = t->used;
    return true;
}

/* Takes from the queue, in order, all that can be granted now. */
static struct ticket_wait *grant_waiting_locked(struct tickets *t)
{
    struct ticket_wait *ready = NULL;
    while (t->waiting && grant_locked(t, t->waiting->bytes)) {
        struct ticket_wait *wait = t->waiting;
        DL_DELETE(t->waiting, wait);
        wait->waiting = false;
        DL_APPEND(ready, wait);
    }
    return ready;
}

static void call_granted(struct ticket_wait *ready)
{
    while (ready) {
        struct ticket_wait *wait = ready;
        DL_DELETE(ready, wait);
        wait->granted(wait); /* may free it */
    }
}

bool tickets_try(struct tickets *t, uint64_t bytes)
{
    pthread_mutex_lock(&t->lock);
    bool granted = !t->waiting && grant_locked(t, bytes);
    pthread_mutex_unlock(&t->lock);
    return granted;
}

int tickets_take(struct tickets *t, struct ticket_wait *wait)
{
    int rc = 0;
    pthread_mutex_lock(&t->lock);
    if (!t->waiting && grant_locked(t, wait->bytes)) {
        wait->waiting = false;
    } else {
        wait->waiting = true;
        DL_APPEND(t->waiting, wait);
        rc = -EINPROGRESS;
    }
    pthread_mutex_unlock(&t->lock);
    return rc;
}

bool tickets_cancel(struct tickets *t, struct ticket_wait *wait)
{
    pthread_mutex_lock(&t->lock);
    bool was_waiting = wait->waiting;
    struct ticket_wait *ready = NULL;
    if (was_waiting) {
        DL_DELETE(t->waiting, wait);
        wait->waiting = false;
        /* It may have been the large one in front of small ones that fit. */
        ready = grant_waiting_locked(t);
    }
    pthread_mutex_unlock(&t->lock);
    call_granted(ready);
    return was_waiting;
}

void tickets_return(struct tickets *t, uint64_t bytes)
{
    pthread_mutex_lock(&t->lock);
    assert(bytes <= t->used);
    t->used -= bytes;
    struct ticket_wait *ready = grant_waiting_locked(t);
    pthread_mutex_unlock(&t->lock);
    call_granted(ready);
}

uint64_t tickets_used(struct tickets *t)
{
    pthread_mutex_lock(&t->lock);
    uint64_t used = t->used;
    pthread_mutex_unlock(&t->lock);
    return used;
}

uint64_t tickets_peak(struct tickets *t)
{
    pthread_mutex_lock(&t->lock);
    uint64_t peak = t->peak;
    pthread_mutex_unlock(&t->lock);
    return peak;
}

uint64_t tickets_budget(const struct tickets *t)
{
    return t->budget;
}
