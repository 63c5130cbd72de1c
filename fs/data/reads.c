/* The read side of a whole mount: its buffers, its fetches, and the clock that gives idle ones
 * back. */
#include <errno.h>
#include <semaphore.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "passthrough.h"
#include "read_op.h"

#define TICK_MS 1000
#define KEEP_IDLE_NS (10 * NS_PER_S) /* read-ahead that nobody came for */
#define BLOCK_IDLE_NS (2 * NS_PER_S)

static void run_tick_start(struct loop_task *task)
{
    loop_timer_start(&container_of(task, struct data_reads, tick)->timer, TICK_MS);
}

void reads_tick(struct data_reads *reads)
{
    if (atomic_load_explicit(&reads->ticking, memory_order_relaxed) ||
        atomic_exchange(&reads->ticking, true))
        return;
    reads->tick.run = run_tick_start;
    loop_post(reads->loop, &reads->tick);
}

static void on_tick(struct loop_timer *timer)
{
    struct data_reads *reads = container_of(timer, struct data_reads, timer);
    uint64_t now = clock_monotonic_ns();
    fetch_drop_idle(reads->fetches, now > KEEP_IDLE_NS ? now - KEEP_IDLE_NS : 0);
    bool idle_left = buffers_trim(reads->buffers, now, BLOCK_IDLE_NS);
    struct buffers_stats stats;
    buffers_stats(reads->buffers, &stats);
    bool lingering = pass_tick(reads->data);
    if (idle_left || lingering || stats.used > 0)
        loop_timer_start(timer, TICK_MS);
    else
        atomic_store(&reads->ticking, false);
}

void read_streams_free(struct read_streams *streams)
{
    if (!streams)
        return;
    fetch_owner_done(streams->reads->fetches, &streams->owner);
    free(streams);
}

static void drop_ahead(void *arg, uint64_t bytes)
{
    struct data_reads *reads = arg;
    fetch_drop_ahead(reads->fetches, bytes);
}

static void timer_open(void *arg)
{
    struct data_reads *reads = arg;
    loop_timer_init(reads->loop, &reads->timer, on_tick);
}

int reads_open(struct data *data)
{
    struct data_reads *reads = calloc(1, sizeof(*reads));
    if (!reads)
        return -ENOMEM;
    reads->data = data;
    reads->loop = data->loop;
    int rc = buffers_new(data->read_tickets, &reads->buffers);
    if (rc == 0)
        rc = fetch_table_new(data->store, reads->buffers, data->config.metrics, &reads->fetches);
    if (rc < 0) {
        buffers_free(reads->buffers);
        free(reads);
        return rc;
    }
    if (data->config.cache) {
        reads->cache = data->config.cache;
        reads->cache_by_name = data->config.cache_by_name;
        rc = fetch_table_cache(reads->fetches, reads->cache, data->config.metrics);
        if (rc < 0) {
            fetch_table_free(reads->fetches);
            buffers_free(reads->buffers);
            free(reads);
            return rc;
        }
    }
    buffers_on_pressure(reads->buffers, drop_ahead, reads);
    sem_init(&reads->closed, 0, 0);
    loop_call(reads->loop, timer_open, reads);
    data->reads = reads;
    return 0;
}

static void timer_closed(struct loop_timer *timer)
{
    sem_post(&container_of(timer, struct data_reads, timer)->closed);
}

static void timer_close(void *arg)
{
    struct data_reads *reads = arg;
    loop_timer_close(&reads->timer, timer_closed);
}

void reads_close(struct data *data)
{
    struct data_reads *reads = TAKE_PTR(data->reads);
    if (!reads)
        return;
    /* A start of the timer that was posted has run before this call. */
    loop_call(reads->loop, timer_close, reads);
    while (sem_wait(&reads->closed) < 0 && errno == EINTR)
        ;
    sem_destroy(&reads->closed);
    fetch_table_free(reads->fetches);
    buffers_free(reads->buffers);
    free(reads);
}
