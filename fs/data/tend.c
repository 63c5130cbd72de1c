/*
 * What the data path does without being asked: old dirty data is committed; when much is staged the
 * largest files are flushed; writes that wait go on; idle buffers are given back.
 */
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "buffers.h"
#include "passthrough.h"
#include "staging.h"
#include "tend.h"
#include "upload.h"
#include "write_wait.h"

#define TICK_MS_MAX 1000u
#define BUFFER_IDLE_NS (5 * NS_PER_S)
#define HURRY_FILES 8
/* Data that is written on and on is committed after so many times flush_age. */
#define BUSY_FACTOR 12
#define STREAM_QUIET_FACTOR 6

struct candidate {
    struct file *file; /* a reference */
    uint64_t bytes;
};

/* Acknowledged by the local disk, and complete. With file->lock held. */
static bool is_backlog_locked(const struct file *file)
{
    return file->durability == DATA_LOCAL && file->writers == 0;
}

/* Old enough, or (hurry) any that can free something. With file->lock held. */
static bool is_due_locked(const struct file *file, uint64_t now, bool hurry)
{
    const struct data *data = file->data;
    /* One that is written past the mount could not be cleaned, and gives no room back. */
    if (!file->staging || file->unlinked || now < file->retry_after_ns ||
        file->durability == DATA_SCRATCH || pass_is_staged_locked(file))
        return false;
    bool finishing = file->upload && upload_is_finishing(file->upload);
    if (finishing)
        return false;
    if (hurry)
        return staging_dirty_bytes(file->staging) > 0;
    if (is_backlog_locked(file))
        return now - file->last_write_ns >= data->config.upload_delay_ms * NS_PER_MS;
    uint64_t age = data->config.flush_age_ms * NS_PER_MS;
    if (file->durability == DATA_LOCAL) /* open, and safe: its writer is not to be disturbed */
        return now - file->dirty_since_ns >=
               MAX(BUSY_FACTOR * age, data->config.upload_delay_ms * NS_PER_MS);
    if (now - file->dirty_since_ns < age)
        return false;
    /* A file that is streamed while it is written ends as one object, if it is left alone; its
     * writer may be held up by a busy disk for some time. */
    uint64_t quiet = file->upload ? STREAM_QUIET_FACTOR * age : age;
    return file->writers == 0 || now - file->last_write_ns >= quiet ||
           (!file->upload && now - file->dirty_since_ns >= BUSY_FACTOR * age);
}

static int by_bytes(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    return x->bytes < y->bytes ? 1 : x->bytes > y->bytes ? -1 : 0;
}

/* How many uploads of the backlog may begin now: they are begun in their order, few at once. */
static unsigned backlog_room(struct data *data)
{
    pthread_mutex_lock(&data->wait_lock);
    unsigned uploads = data->uploads;
    pthread_mutex_unlock(&data->wait_lock);
    return data->config.upload_parallel - MIN(uploads, data->config.upload_parallel);
}

static size_t find_due(struct data *data, bool hurry, struct candidate **out)
{
    struct candidate *found = NULL;
    size_t count = 0, cap = 0;
    unsigned room = backlog_room(data);
    uint64_t now = clock_monotonic_ns(), oldest = now;
    pthread_mutex_lock(&data->lock);
    for (struct file *file = data->dirty; file; file = file->dirty_next) {
        pthread_mutex_lock(&file->lock);
        bool backlog = !hurry && is_backlog_locked(file);
        bool passed = pass_is_staged_locked(file);
        if (passed)
            pass_take_locked(file); /* so that its bytes are counted */
        if (file->staging && file->durability == DATA_LOCAL && !passed)
            oldest = MIN(oldest, file->dirty_since_ns);
        bool due = (!backlog || room > 0) && is_due_locked(file, now, hurry);
        room -= backlog && due;
        uint64_t bytes = due ? staging_dirty_bytes(file->staging) : 0;
        pthread_mutex_unlock(&file->lock);
        if (!due)
            continue;
        if (count == cap) {
            cap = cap ? cap * 2 : 16;
            struct candidate *more = realloc(found, cap * sizeof(*more));
            if (!more)
                break;
            found = more;
        }
        found[count++] = (struct candidate){.file = file_ref(file), .bytes = bytes};
    }
    pthread_mutex_unlock(&data->lock);
    atomic_store(&data->backlog_late, now - oldest > data->config.backlog_age_ms * NS_PER_MS);
    *out = found;
    return count;
}

/* True: something was begun. */
static bool flush_due(struct data *data, bool hurry)
{
    struct candidate *found;
    if (atomic_load(&data->stopping))
        return false;
    size_t count = find_due(data, hurry, &found);
    if (hurry && count)
        qsort(found, count, sizeof(*found), by_bytes);
    for (size_t i = 0; i < count; i++) {
        if (!hurry || i < HURRY_FILES)
            upload_flush(found[i].file, NULL);
        file_put(found[i].file);
    }
    free(found);
    return count > 0;
}

static bool has_waiting(struct data *data)
{
    pthread_mutex_lock(&data->wait_lock);
    bool waiting = data->waiting != NULL;
    pthread_mutex_unlock(&data->wait_lock);
    return waiting;
}

static void tend_once(struct data *data)
{
    bool begun = flush_due(data, false);
    bool waiting = has_waiting(data);
    if (waiting || staging_area_bytes(data->area) >= staging_area_max(data->area) / 2 ||
        staging_area_is_crowded(data->area))
        begun |= flush_due(data, true);
    if (waiting)
        write_wait_run(data, begun);
}

static void tend_run(struct pool_task *task)
{
    struct data *data = container_of(task, struct data, tend_task);
    unsigned wanted = atomic_load(&data->tend_wanted);
    do {
        tend_once(data);
        /* What was wanted meanwhile is done in another round, by this same thread. */
    } while (!atomic_compare_exchange_strong(&data->tend_wanted, &wanted, 0));
}

void data_tend(struct data *data)
{
    if (atomic_fetch_add(&data->tend_wanted, 1) == 0)
        pool_submit(data->pool, &data->tend_task);
}

static void tick(struct loop_timer *timer)
{
    struct data *data = container_of(timer, struct data, timer);
    buffers_trim(data->upload_buffers, clock_monotonic_ns(), BUFFER_IDLE_NS);
    if (data->area && (atomic_load(&data->dirty_files) || has_waiting(data)))
        data_tend(data);
    loop_timer_start(timer, MIN(MAX(data->config.flush_age_ms / 4, 1u), TICK_MS_MAX));
}

static void start_on_loop(void *arg)
{
    struct data *data = arg;
    loop_timer_init(data->loop, &data->timer, tick);
    loop_timer_start(&data->timer, TICK_MS_MAX);
}

void tend_start(struct data *data)
{
    data->tend_task.run = tend_run;
    loop_call(data->loop, start_on_loop, data);
}

static void timer_closed(struct loop_timer *timer)
{
    struct data *data = container_of(timer, struct data, timer);
    pthread_mutex_lock(&data->wait_lock);
    data->timer_closed = true;
    pthread_cond_broadcast(&data->uploads_ended);
    pthread_mutex_unlock(&data->wait_lock);
}

static void stop_on_loop(void *arg)
{
    struct data *data = arg;
    loop_timer_close(&data->timer, timer_closed);
}

void tend_stop(struct data *data)
{
    loop_call(data->loop, stop_on_loop, data);
    pthread_mutex_lock(&data->wait_lock);
    while (!data->timer_closed)
        pthread_cond_wait(&data->uploads_ended, &data->wait_lock);
    pthread_mutex_unlock(&data->wait_lock);
}
