/*
 * What was fetched, on its way into the cache. The disk takes the bytes from where the GET has put
 * them, and where readers have them from.
 *
 * A fill takes processors from the GET after it, for which somebody waits. So what was fetched for
 * a reader rests here for a moment, until there is more, and goes as one batch; read-ahead is a
 * batch by itself. What rests stays in the table: who reads it again has it from memory.
 */
#include <errno.h>
#include <semaphore.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "fetch_impl.h"

/* Bytes that are on their way into the cache, at most, beside a quarter of the memory; more are not
 * put there. */
#define FILL_MAX (32ull << 20)
#define FILL_THREADS 1
/* What rests: bytes, beside an eighth of the memory, and for how long. */
#define REST_MAX (2ull << 20)
#define REST_MS 20

struct fetch_fills {
    /* immutable */
    struct fetch_table *table;
    struct pool *filler;
    uint64_t max, rest_max;
    struct metric *skipped;
    /* under table->lock */
    uint64_t bytes; /* of blocks on their way */
    /* the loop thread's */
    struct loop_timer timer;
    bool timing, hurry;
    struct fetch *resting; /* newest first */
    uint64_t resting_bytes;
    sem_t closed;
};

static void filled(struct cache_fill *filling)
{
    struct fetch *fetch = container_of(filling, struct fetch, filling);
    struct fetch_table *table = fetch->table;
    pthread_mutex_lock(&table->lock);
    table->fills->bytes -= fetch->block->size;
    fetch_unuse_locked(fetch);
    pthread_mutex_unlock(&table->lock);
}

static void run_fill(struct pool_task *task)
{
    struct fetch *fetch = container_of(task, struct fetch, fill), *next;
    struct cache *cache = fetch->table->cache;
    for (; fetch; fetch = next) {
        next = fetch->fill_next; /* it may be gone after its end */
        fetch->filling = (struct cache_fill){.cid = fetch->cid,
                                             .size = fetch->size,
                                             .offset = fetch->offset,
                                             .data = fetch->block->data,
                                             .length = fetch->length,
                                             .read = !fetch->ahead,
                                             .done = filled};
        if (cache_fill_lent(cache, &fetch->filling) != -EINPROGRESS)
            filled(&fetch->filling);
    }
}

static void hand_over(struct fetch_fills *fills)
{
    struct fetch *batch = TAKE_PTR(fills->resting);
    fills->resting_bytes = 0;
    if (!batch)
        return;
    batch->fill.run = run_fill;
    pool_submit(fills->filler, &batch->fill);
}

static void on_rested(struct loop_timer *timer)
{
    struct fetch_fills *fills = container_of(timer, struct fetch_fills, timer);
    fills->timing = false;
    hand_over(fills);
}

bool fetch_fill_locked(struct fetch *fetch)
{
    struct fetch_table *table = fetch->table;
    if (!table->cache || fetch->cid == 0)
        return false;
    struct fetch_fills *fills = table->fills;
    if (fills->bytes + fetch->block->size > fills->max) {
        metric_add(fills->skipped, 1);
        return false;
    }
    fills->bytes += fetch->block->size;
    /* The users together have one reference: they may all be gone. */
    if (fetch->users++ == 0)
        fetch->refs++;
    return true;
}

void fetch_fill_start(struct fetch *fetch)
{
    struct fetch_table *table = fetch->table;
    struct fetch_fills *fills = table->fills;
    fetch->fill_next = fills->resting;
    fills->resting = fetch;
    fills->resting_bytes += fetch->block->size;
    if (fills->hurry || fetch->ahead || fills->resting_bytes > fills->rest_max ||
        buffers_wanted(table->buffers) > 0) {
        hand_over(fills);
    } else if (!fills->timing) {
        fills->timing = true;
        loop_timer_start(&fills->timer, REST_MS);
    }
}

static void timer_open(void *arg)
{
    struct fetch_fills *fills = arg;
    loop_timer_init(store_loop(fills->table->store), &fills->timer, on_rested);
}

int fetch_fills_new(struct fetch_table *table, struct metrics *metrics, struct fetch_fills **out)
{
    struct fetch_fills *fills = calloc(1, sizeof(*fills));
    if (!fills)
        return -ENOMEM;
    int rc = pool_new(&fills->filler, "fill", FILL_THREADS);
    if (rc) {
        free(fills);
        return rc;
    }
    uint64_t budget = buffers_budget(table->buffers);
    fills->table = table;
    fills->max = MIN(FILL_MAX, budget / 4);
    fills->rest_max = MIN(REST_MAX, budget / 8);
    fills->skipped =
        metrics_counter(metrics, "sluice_fetch_fills_skipped_total", "",
                        "Fetches not put into the cache because it could not keep up.");
    sem_init(&fills->closed, 0, 0);
    loop_call(store_loop(table->store), timer_open, fills);
    *out = fills;
    return 0;
}

static void run_hurry(void *arg)
{
    struct fetch_fills *fills = arg;
    fills->hurry = true;
    hand_over(fills);
}

void fetch_fills_hurry(struct fetch_fills *fills)
{
    loop_call(store_loop(fills->table->store), run_hurry, fills);
}

static void timer_closed(struct loop_timer *timer)
{
    sem_post(&container_of(timer, struct fetch_fills, timer)->closed);
}

static void timer_close(void *arg)
{
    struct fetch_fills *fills = arg;
    loop_timer_close(&fills->timer, timer_closed);
}

void fetch_fills_free(struct fetch_fills *fills)
{
    if (!fills)
        return;
    loop_call(store_loop(fills->table->store), timer_close, fills);
    while (sem_wait(&fills->closed) < 0 && errno == EINTR)
        ;
    sem_destroy(&fills->closed);
    pool_free(fills->filler);
    free(fills);
}
