#include "buffers.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "base/clock.h"

#define PAGE_SHIFT 12
#define HUGE_PAGE (2u << 20)
#define CLASS_COUNT 36 /* 4 KiB << 35: more than any budget */

struct buffers {
    /* immutable */
    struct tickets *tickets;
    uint64_t budget, ahead_max;
    void (*drop)(void *arg, uint64_t bytes);
    void *arg;
    _Atomic uint64_t ahead;  /* bytes charged to read-ahead */
    _Atomic uint64_t wanted; /* bytes waited for */
    /* under lock, which is a leaf */
    pthread_mutex_t lock;
    struct block *idle[CLASS_COUNT]; /* newest first */
    uint64_t idle_bytes;
};

static unsigned class_of(size_t len)
{
    if (len <= (size_t)1 << PAGE_SHIFT)
        return 0;
    return 64 - (unsigned)__builtin_clzll((len - 1) >> PAGE_SHIFT);
}

size_t buffers_charge(size_t len)
{
    return (size_t)1 << (class_of(len) + PAGE_SHIFT);
}

int buffers_new(struct tickets *tickets, struct buffers **out)
{
    struct buffers *buffers = calloc(1, sizeof(*buffers));
    if (!buffers)
        return -ENOMEM;
    buffers->tickets = tickets;
    buffers->budget = tickets_budget(tickets);
    /* The rest is only for who cannot do without. */
    buffers->ahead_max = buffers->budget - buffers->budget / 4;
    pthread_mutex_init(&buffers->lock, NULL);
    *out = buffers;
    return 0;
}

static void block_unmap(struct block *block)
{
    munmap(block->data, block->size);
    free(block);
}

/* Frees a list of blocks that nobody sees any more. */
static void unmap_all(struct block *list)
{
    struct block *block, *tmp;
    DL_FOREACH_SAFE(list, block, tmp)
    {
        block_unmap(block);
    }
}

void buffers_free(struct buffers *buffers)
{
    if (!buffers)
        return;
    for (unsigned i = 0; i < CLASS_COUNT; i++)
        unmap_all(buffers->idle[i]);
    pthread_mutex_destroy(&buffers->lock);
    free(buffers);
}

uint64_t buffers_budget(const struct buffers *buffers)
{
    return buffers->budget;
}

void buffers_on_pressure(struct buffers *buffers, void (*drop)(void *arg, uint64_t bytes),
                         void *arg)
{
    buffers->drop = drop;
    buffers->arg = arg;
}

/* Moves the oldest idle blocks to `out` until `room` bytes are left for idle ones. The newest of a
 * class is at its head, so a class's oldest is its tail; the largest class goes first. */
static void shrink_idle_locked(struct buffers *buffers, uint64_t room, struct block **out)
{
    for (unsigned i = CLASS_COUNT; i-- > 0 && buffers->idle_bytes > room;) {
        while (buffers->idle[i] && buffers->idle_bytes > room) {
            struct block *block = buffers->idle[i]->prev;
            DL_DELETE(buffers->idle[i], block);
            buffers->idle_bytes -= block->size;
            DL_APPEND(*out, block);
        }
    }
}

static struct block *block_map(struct buffers *buffers, size_t size)
{
    struct block *block = calloc(1, sizeof(*block));
    if (!block)
        return NULL;
    block->data = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (block->data == MAP_FAILED) {
        free(block);
        return NULL;
    }
    /* Fewer faults while it is filled, fewer pages to look up while it is sent. */
    if (size >= HUGE_PAGE)
        madvise(block->data, size, MADV_HUGEPAGE);
    block->size = size;
    block->buffers = buffers;
    return block;
}

/* A block whose charge was taken already. */
static struct block *block_get(struct buffers *buffers, size_t len)
{
    unsigned class = class_of(len);
    if (class >= CLASS_COUNT)
        return NULL;
    struct block *excess = NULL;
    pthread_mutex_lock(&buffers->lock);
    struct block *block = buffers->idle[class];
    if (block) {
        DL_DELETE(buffers->idle[class], block);
        buffers->idle_bytes -= block->size;
        block->next = block->prev = NULL;
    } else {
        uint64_t used = tickets_used(buffers->tickets);
        shrink_idle_locked(buffers, used < buffers->budget ? buffers->budget - used : 0, &excess);
    }
    pthread_mutex_unlock(&buffers->lock);
    unmap_all(excess);
    if (!block)
        block = block_map(buffers, buffers_charge(len));
    if (block)
        block->ahead = false;
    return block;
}

struct block *buffers_try(struct buffers *buffers, size_t len, bool ahead)
{
    size_t charge = buffers_charge(len);
    if (ahead && atomic_fetch_add(&buffers->ahead, charge) + charge > buffers->ahead_max) {
        atomic_fetch_sub(&buffers->ahead, charge);
        return NULL;
    }
    struct block *block = NULL;
    if (tickets_try(buffers->tickets, charge)) {
        block = block_get(buffers, len);
        if (!block)
            tickets_return(buffers->tickets, charge);
    }
    if (block)
        block->ahead = ahead;
    else if (ahead)
        atomic_fetch_sub(&buffers->ahead, charge);
    return block;
}

static void wait_granted(struct ticket_wait *ticket)
{
    struct buffers_wait *wait = container_of(ticket, struct buffers_wait, ticket);
    atomic_fetch_sub(&wait->buffers->wanted, ticket->bytes);
    wait->granted(wait);
}

int buffers_wait(struct buffers *buffers, struct buffers_wait *wait)
{
    uint64_t bytes = wait->bytes;
    wait->buffers = buffers;
    wait->ticket = (struct ticket_wait){.bytes = bytes, .granted = wait_granted};
    atomic_fetch_add(&buffers->wanted, bytes);
    int rc = tickets_take(buffers->tickets, &wait->ticket);
    /* *wait may be gone from here: it may have been granted on another thread. */
    if (rc == 0)
        atomic_fetch_sub(&buffers->wanted, bytes);
    else if (buffers->drop)
        buffers->drop(buffers->arg, bytes);
    return rc;
}

bool buffers_cancel(struct buffers *buffers, struct buffers_wait *wait)
{
    bool cancelled = tickets_cancel(buffers->tickets, &wait->ticket);
    if (cancelled)
        atomic_fetch_sub(&buffers->wanted, wait->bytes);
    return cancelled;
}

uint64_t buffers_wanted(const struct buffers *buffers)
{
    return atomic_load(&buffers->wanted);
}

struct block *buffers_take_granted(struct buffers *buffers, size_t len, uint64_t *granted)
{
    size_t charge = buffers_charge(len);
    if (charge > *granted)
        return NULL;
    struct block *block = block_get(buffers, len);
    if (block)
        *granted -= charge;
    return block;
}

void buffers_return(struct buffers *buffers, uint64_t bytes)
{
    if (bytes > 0)
        tickets_return(buffers->tickets, bytes);
}

void buffers_put(struct block *block)
{
    if (!block)
        return;
    struct buffers *buffers = block->buffers;
    size_t charge = block->size;
    if (block->ahead)
        atomic_fetch_sub(&buffers->ahead, charge);
    block->idle_since_ns = clock_monotonic_ns();
    struct block *excess = NULL;
    pthread_mutex_lock(&buffers->lock);
    DL_PREPEND(buffers->idle[class_of(charge)], block);
    buffers->idle_bytes += charge;
    /* A request larger than the whole budget leaves nothing behind. */
    shrink_idle_locked(buffers, buffers->budget, &excess);
    pthread_mutex_unlock(&buffers->lock);
    unmap_all(excess);
    tickets_return(buffers->tickets, charge);
}

bool buffers_trim(struct buffers *buffers, uint64_t now_ns, uint64_t idle_ns)
{
    struct block *old = NULL;
    pthread_mutex_lock(&buffers->lock);
    for (unsigned i = 0; i < CLASS_COUNT; i++) {
        while (buffers->idle[i]) {
            struct block *block = buffers->idle[i]->prev;
            if (block->idle_since_ns + idle_ns > now_ns)
                break;
            DL_DELETE(buffers->idle[i], block);
            buffers->idle_bytes -= block->size;
            DL_APPEND(old, block);
        }
    }
    bool left = buffers->idle_bytes > 0;
    pthread_mutex_unlock(&buffers->lock);
    unmap_all(old);
    return left;
}

void buffers_stats(struct buffers *buffers, struct buffers_stats *out)
{
    out->used = tickets_used(buffers->tickets);
    out->peak = tickets_peak(buffers->tickets);
    out->ahead = atomic_load(&buffers->ahead);
    pthread_mutex_lock(&buffers->lock);
    out->idle = buffers->idle_bytes;
    pthread_mutex_unlock(&buffers->lock);
}
