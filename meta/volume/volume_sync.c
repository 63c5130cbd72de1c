/*
 * Group commit: one thread at a time syncs the write-ahead log for all who wait. While it does so,
 * the next ones gather; so the more there are, the fewer syncs each costs. Who was applied before a
 * sync began is answered with it, even if he came to wait later.
 *
 * The thread is that of a caller who may wait (may_wait) and finds nobody at it, which saves two
 * changes of threads; he goes on for those who came meanwhile, for some rounds. Else, and for what
 * nobody waits for, it is the syncer's own.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/blocking.h"
#include "base/clock.h"
#include "base/log.h"
#include "volume.h"

#define QUICK_NS (2 * NS_PER_MS)
#define LEAD_ROUNDS 16u /* a caller's thread syncs so often before it goes back to its own work */

struct syncer {
    struct engine *engine;
    uint64_t interval_ns;
    void (*synced)(void *arg);
    void *arg;
    struct metric *duration, *waited;
    pthread_t thread;
    _Atomic uint64_t interval_end_ns; /* what is dirty then is synced */

    /* Set after an apply, cleared before a sync: so a sync that begins after the flag was cleared
     * covers every apply whose setting it cleared. Sequentially consistent, as `asleep`: who sets
     * `dirty` and finds nobody asleep is seen before the thread goes to sleep. */
    _Atomic bool dirty;
    _Atomic bool asleep;        /* the thread waits without an end: somebody must wake it */
    _Atomic uint64_t took_ns;   /* the last sync */
    _Atomic uint64_t synced_to; /* the engine's sequence up to which all survives a power loss */
    _Atomic uint64_t synced_ns; /* the time of a change up to which all does; 0: not known */

    pthread_mutex_t lock;
    pthread_cond_t wake; /* monotonic clock */
    /* Under lock. */
    bool syncing; /* somebody is at it: looks for more when he has the lock again */
    struct meta_request *requests, **requests_end;
    struct meta_task *tasks, **tasks_end;
    bool stop;
};

static bool somebody_waits(const struct syncer *syncer)
{
    return syncer->requests || syncer->tasks;
}

/* The syncer's thread has something to do. */
static bool must_go(const struct syncer *syncer)
{
    return !syncer->syncing && (somebody_waits(syncer) || syncer->stop);
}

static void begin_interval(struct syncer *syncer)
{
    syncer->interval_end_ns = clock_monotonic_ns() + syncer->interval_ns;
}

static void wait_interval(struct syncer *syncer)
{
    uint64_t end;
    int rc;
    do { /* each sync moves the end */
        end = syncer->interval_end_ns;
        struct timespec until = {.tv_sec = (time_t)(end / NS_PER_S),
                                 .tv_nsec = (long)(end % NS_PER_S)};
        rc = pthread_cond_timedwait(&syncer->wake, &syncer->lock, &until);
    } while (!must_go(syncer) && (rc != ETIMEDOUT || syncer->interval_end_ns != end));
}

/* Until there is something to sync. False: the end. The interval is waited for also when nothing is
 * dirty yet, so that a change need not wake this thread: it is asleep only when nothing was changed
 * for an interval. */
static bool wait_for_work(struct syncer *syncer)
{
    while (!must_go(syncer)) {
        wait_interval(syncer);
        if (must_go(syncer) || (syncer->dirty && !syncer->syncing))
            break;
        if (syncer->syncing) {
            begin_interval(syncer);
            continue;
        }
        syncer->asleep = true;
        while (!must_go(syncer) && !syncer->dirty)
            pthread_cond_wait(&syncer->wake, &syncer->lock);
        syncer->asleep = false;
        begin_interval(syncer);
    }
    return somebody_waits(syncer) || !syncer->stop;
}

static int sync_now(struct syncer *syncer)
{
    static struct log_limit limit = LOG_LIMIT(1, 60000);
    uint64_t start = clock_monotonic_ns();
    syncer->dirty = false;
    uint64_t last_ns = engine_last_ns(syncer->engine); /* before the sequence */
    uint64_t sequence = engine_sequence(syncer->engine);
    int rc = engine_sync(syncer->engine);
    uint64_t end = clock_monotonic_ns();
    syncer->interval_end_ns = end + syncer->interval_ns;
    syncer->took_ns = end - start;
    metric_observe_ns(syncer->duration, end - start);
    if (rc)
        log_limited(&limit, LOG_ERROR, "metadata sync failed", "error=%d", -rc);
    if (!rc) {
        syncer->synced_to = sequence;
        syncer->synced_ns = last_ns;
    }
    return rc;
}

static void answer(struct syncer *syncer, struct meta_request *requests, struct meta_task *tasks,
                   int rc)
{
    for (struct meta_request *r = requests, *next; r; r = next) {
        next = r->next;
        r->next = NULL;
        metric_add(syncer->waited, 1);
        if (rc && !r->result)
            r->result = rc;
        r->done(r);
    }
    for (struct meta_task *t = tasks, *next; t; t = next) {
        next = t->next;
        t->next = NULL;
        if (!t->result)
            t->result = rc;
        if (rc && !t->error.code)
            error_set(&t->error, rc, "the metadata database cannot be synced: %s", strerror(-rc));
        t->done(t);
    }
}

struct waiters {
    struct meta_request *requests, **requests_end;
    struct meta_task *tasks, **tasks_end;
};

static void waiters_init(struct waiters *w)
{
    *w = (struct waiters){0};
    w->requests_end = &w->requests;
    w->tasks_end = &w->tasks;
}

/* Takes all who wait: those whose changes survive already, and the others. */
static void take_locked(struct syncer *syncer, struct waiters *synced, struct waiters *others)
{
    uint64_t to = syncer->synced_to;
    waiters_init(synced);
    waiters_init(others);
    for (struct meta_request *r = syncer->requests, *next; r; r = next) {
        struct waiters *w = r->sequence <= to ? synced : others;
        next = r->next;
        r->next = NULL;
        *w->requests_end = r;
        w->requests_end = &r->next;
    }
    for (struct meta_task *t = syncer->tasks, *next; t; t = next) {
        struct waiters *w = t->sequence <= to ? synced : others;
        next = t->next;
        t->next = NULL;
        *w->tasks_end = t;
        w->tasks_end = &t->next;
    }
    syncer->requests = NULL;
    syncer->requests_end = &syncer->requests;
    syncer->tasks = NULL;
    syncer->tasks_end = &syncer->tasks;
}

/* One round, under the lock but for the time in which it syncs and answers: those whose changes
 * survive already, then one sync for the others. `idle`: it is the end of an interval if nobody
 * waits. */
static void round_locked(struct syncer *syncer, bool idle)
{
    struct waiters synced, others;
    take_locked(syncer, &synced, &others);
    syncer->syncing = true;
    pthread_mutex_unlock(&syncer->lock);
    answer(syncer, synced.requests, synced.tasks, 0);
    idle = idle && !synced.requests && !synced.tasks;
    if (others.requests || others.tasks || idle) {
        blocking_begin();
        int rc = sync_now(syncer);
        answer(syncer, others.requests, others.tasks, rc);
        if (syncer->synced)
            syncer->synced(syncer->arg);
    }
    pthread_mutex_lock(&syncer->lock);
    syncer->syncing = false;
}

static void *run(void *arg)
{
    struct syncer *syncer = arg;
    begin_interval(syncer);
    pthread_mutex_lock(&syncer->lock);
    while (wait_for_work(syncer))
        round_locked(syncer, true);
    pthread_mutex_unlock(&syncer->lock);
    return NULL;
}

/* Somebody waits since now; the lock is had, and let go. */
static void go_locked(struct syncer *syncer, bool may_wait)
{
    bool wake = !syncer->syncing;
    if (wake && may_wait) {
        for (unsigned i = 0; i < LEAD_ROUNDS && somebody_waits(syncer); i++)
            round_locked(syncer, false);
        wake = must_go(syncer);
    }
    /* Who is at it looks again before he stops. */
    pthread_mutex_unlock(&syncer->lock);
    if (wake)
        pthread_cond_signal(
            &syncer->wake); /* after the unlock: it would wake only to wait for it */
}

void syncer_note(struct syncer *syncer)
{
    if (atomic_exchange(&syncer->dirty, true) || !syncer->asleep)
        return;
    /* The first after a while: the interval begins. */
    pthread_mutex_lock(&syncer->lock);
    pthread_mutex_unlock(&syncer->lock);
    pthread_cond_signal(&syncer->wake);
}

bool syncer_is_synced(const struct syncer *syncer, uint64_t sequence)
{
    return (sequence ? sequence : engine_sequence(syncer->engine)) <= syncer->synced_to;
}

bool syncer_is_synced_at(const struct syncer *syncer, uint64_t ctime_ns)
{
    return ctime_ns <= syncer->synced_ns;
}

bool syncer_is_quick(const struct syncer *syncer)
{
    return syncer->took_ns < QUICK_NS;
}

void syncer_request(struct syncer *syncer, struct meta_request *request)
{
    pthread_mutex_lock(&syncer->lock);
    request->next = NULL;
    *syncer->requests_end = request;
    syncer->requests_end = &request->next;
    go_locked(syncer, request->may_wait);
}

void syncer_task(struct syncer *syncer, struct meta_task *task)
{
    if (!task->sequence)
        task->sequence = engine_sequence(syncer->engine);
    pthread_mutex_lock(&syncer->lock);
    task->next = NULL;
    *syncer->tasks_end = task;
    syncer->tasks_end = &task->next;
    go_locked(syncer, task->may_wait);
}

int syncer_new(struct engine *engine, uint32_t interval_ms, struct metrics *metrics,
               void (*synced)(void *arg), void *arg, struct syncer **out)
{
    struct syncer *syncer = calloc(1, sizeof(*syncer));
    if (!syncer)
        return -ENOMEM;
    syncer->engine = engine;
    syncer->interval_ns = interval_ms * NS_PER_MS;
    syncer->synced = synced;
    syncer->arg = arg;
    syncer->requests_end = &syncer->requests;
    syncer->tasks_end = &syncer->tasks;
    syncer->duration = metrics_histogram(metrics, "sluice_meta_sync_seconds", "",
                                         "Duration of a sync of the metadata log.");
    syncer->waited = metrics_counter(metrics, "sluice_meta_sync_requests_total", "",
                                     "Metadata requests that waited for a sync.");
    pthread_mutex_init(&syncer->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&syncer->wake, &attr);
    pthread_condattr_destroy(&attr);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for the main thread */
    int rc = pthread_create(&syncer->thread, NULL, run, syncer);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc) {
        pthread_cond_destroy(&syncer->wake);
        pthread_mutex_destroy(&syncer->lock);
        free(syncer);
        return -rc;
    }
    pthread_setname_np(syncer->thread, "meta-sync");
    *out = syncer;
    return 0;
}

int syncer_free(struct syncer *syncer)
{
    if (!syncer)
        return 0;
    pthread_mutex_lock(&syncer->lock);
    syncer->stop = true; /* a caller who is at it wakes the thread when he has ended */
    pthread_cond_signal(&syncer->wake);
    pthread_mutex_unlock(&syncer->lock);
    pthread_join(syncer->thread, NULL);
    int rc = sync_now(syncer);
    pthread_cond_destroy(&syncer->wake);
    pthread_mutex_destroy(&syncer->lock);
    free(syncer);
    return rc;
}
