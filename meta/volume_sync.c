/*
 * Group commit: one thread syncs the write-ahead log for all who wait. While it does so, the next
 * ones gather; so the more there are, the fewer syncs each costs.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "volume.h"

struct syncer {
    struct engine *engine;
    uint64_t interval_ns;
    void (*synced)(void *arg);
    void *arg;
    struct metric *duration, *waited;
    pthread_t thread;

    /* Set after an apply, cleared before a sync: so a sync that begins after the flag was cleared
     * covers every apply whose setting it cleared. Sequentially consistent. */
    _Atomic bool dirty;

    pthread_mutex_t lock;
    pthread_cond_t wake; /* monotonic clock */
    /* Under lock. */
    struct meta_request *requests, **requests_end;
    struct meta_task *tasks, **tasks_end;
    bool stop;
};

static bool somebody_waits(const struct syncer *syncer)
{
    return syncer->requests || syncer->tasks;
}

/* Until there is something to sync. False: the end. */
static bool wait_for_work(struct syncer *syncer)
{
    while (!somebody_waits(syncer) && !syncer->stop) {
        if (!syncer->dirty) {
            pthread_cond_wait(&syncer->wake, &syncer->lock);
            continue;
        }
        uint64_t end = clock_monotonic_ns() + syncer->interval_ns;
        struct timespec until = {.tv_sec = (time_t)(end / NS_PER_S),
                                 .tv_nsec = (long)(end % NS_PER_S)};
        int rc = 0;
        while (!somebody_waits(syncer) && !syncer->stop && rc != ETIMEDOUT)
            rc = pthread_cond_timedwait(&syncer->wake, &syncer->lock, &until);
        return true;
    }
    return somebody_waits(syncer);
}

static int sync_now(struct syncer *syncer)
{
    static struct log_limit limit = LOG_LIMIT(1, 60000);
    uint64_t start = clock_monotonic_ns();
    syncer->dirty = false;
    int rc = engine_sync(syncer->engine);
    metric_observe_ns(syncer->duration, clock_monotonic_ns() - start);
    if (rc)
        log_limited(&limit, LOG_ERROR, "metadata sync failed", "error=%d", -rc);
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

static void *run(void *arg)
{
    struct syncer *syncer = arg;
    pthread_mutex_lock(&syncer->lock);
    while (wait_for_work(syncer)) {
        struct meta_request *requests = syncer->requests;
        struct meta_task *tasks = syncer->tasks;
        syncer->requests = NULL;
        syncer->requests_end = &syncer->requests;
        syncer->tasks = NULL;
        syncer->tasks_end = &syncer->tasks;
        pthread_mutex_unlock(&syncer->lock);
        int rc = sync_now(syncer);
        answer(syncer, requests, tasks, rc);
        if (syncer->synced)
            syncer->synced(syncer->arg);
        pthread_mutex_lock(&syncer->lock);
    }
    pthread_mutex_unlock(&syncer->lock);
    return NULL;
}

void syncer_note(struct syncer *syncer)
{
    if (atomic_exchange(&syncer->dirty, true))
        return;
    /* The first since the last sync: the interval begins. */
    pthread_mutex_lock(&syncer->lock);
    pthread_cond_signal(&syncer->wake);
    pthread_mutex_unlock(&syncer->lock);
}

void syncer_request(struct syncer *syncer, struct meta_request *request)
{
    pthread_mutex_lock(&syncer->lock);
    request->next = NULL;
    *syncer->requests_end = request;
    syncer->requests_end = &request->next;
    pthread_cond_signal(&syncer->wake);
    pthread_mutex_unlock(&syncer->lock);
}

void syncer_task(struct syncer *syncer, struct meta_task *task)
{
    pthread_mutex_lock(&syncer->lock);
    task->next = NULL;
    *syncer->tasks_end = task;
    syncer->tasks_end = &task->next;
    pthread_cond_signal(&syncer->wake);
    pthread_mutex_unlock(&syncer->lock);
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
    syncer->stop = true;
    pthread_cond_signal(&syncer->wake);
    pthread_mutex_unlock(&syncer->lock);
    pthread_join(syncer->thread, NULL);
    int rc = sync_now(syncer);
    pthread_cond_destroy(&syncer->wake);
    pthread_mutex_destroy(&syncer->lock);
    free(syncer);
    return rc;
}
