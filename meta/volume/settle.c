/*
 * Settle: makes every quiet file one plain object at its own key. Here: which files, how many at
 * once, who waits for them. The steps of one file: settle_job.c. docs/open-layout.md.
 */
#include "settle.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "import/import.h"
#include "pacer.h"

#define DUE_STEP 256
#define SUBTREE_STEP 256
#define FAILURES_MAX 4096
#define HOLD_NS (50 * NS_PER_MS) /* for what is due and yet has nothing to do */
#define HOLD_ERROR_NS (5 * NS_PER_S)
#define WAIT_LOOK_NS (10 * NS_PER_MS) /* while somebody waits */
#define LOOK_NS (50 * NS_PER_MS)
#define GAUGES_NS NS_PER_S
#define AGE_LOOK_MAX_NS (3600 * (uint64_t)NS_PER_S)
#define IDLE_MAX 20 /* looks, of HOLD_NS each: then a file waits for one that cannot move */
#define MEMORY_MAX (48ull << 20)

static void pump(struct settler *settler);
static void pump_soon(struct settler *settler);

/* Failures */

static struct settle_failure *failure_find(struct settler *settler, uint64_t ino)
{
    struct settle_failure *f;
    HASH_FIND(hh, settler->failures, &ino, sizeof(ino), f);
    return f;
}

static void failure_forget(struct settler *settler, struct settle_failure *f)
{
    HASH_DEL(settler->failures, f);
    free(f);
}

static struct settle_failure *failure_get(struct settler *settler, uint64_t ino)
{
    struct settle_failure *f = failure_find(settler, ino);
    if (f)
        return f;
    if (HASH_COUNT(settler->failures) >= FAILURES_MAX)
        failure_forget(settler, settler->failures);
    f = calloc(1, sizeof(*f));
    if (!f)
        return NULL;
    f->ino = ino;
    HASH_ADD(hh, settler->failures, ino, sizeof(f->ino), f);
    return f;
}

/* Waiters */

static void wait_end(struct settler *settler, struct meta_task *task, int rc, const char *reason)
{
    LL_DELETE(settler->waits, task);
    task->next = NULL;
    task->result = rc;
    if (rc)
        error_set(&task->error, rc, "%s", reason);
    task->done(task);
}

static int hurry(struct settler *settler, uint64_t ino)
{
    struct meta_op op = {.kind = META_SETTLE_HURRY, .ino = ino};
    struct meta_reply reply;
    int rc = volume_apply(settler->meta, &op, &reply);
    meta_reply_done(&reply);
    return rc;
}

static void path_of(struct meta *meta, uint64_t ino, char *out, size_t cap)
{
    struct meta_op op = {.kind = META_PATH, .ino = ino};
    struct meta_reply reply;
    if (!volume_read(meta, &op, &reply))
        snprintf(out, cap, "%.*s", (int)reply.data_len, (const char *)reply.data);
    else
        snprintf(out, cap, "inode %llu", (unsigned long long)ino);
    meta_reply_done(&reply);
}

/* What the waiter's time of asking was: failures after it are his. */
static uint64_t asked_ns(const struct meta_task *task)
{
    return (uint64_t)(uintptr_t)task->impl;
}

/* Why the wait for `ino`, the first that is not settled, will not end: it failed, or it has waited
 * for a while, surely for another file, and one failed. NULL: it may still come. */
static const struct settle_failure *failed_for(struct settler *settler,
                                               const struct meta_task *task, uint64_t ino)
{
    const struct settle_failure *f = failure_find(settler, ino);
    if (f && f->attempts)
        return f->time_ns >= asked_ns(task) ? f : NULL;
    if (!f || f->idle < IDLE_MAX)
        return NULL;
    for (f = settler->failures; f; f = f->hh.next)
        if (f->attempts && f->time_ns >= asked_ns(task) &&
            engine_below(settler->meta->engine, f->ino, task->ino) > 0)
            return f;
    return NULL;
}

/* One waiter, when nothing is being settled (idle) or after a step. */
static void wait_check(struct settler *settler, struct meta_task *task, bool idle)
{
    if (task->cancel || settler->stopped) {
        wait_end(settler, task, -ECANCELED, "settle: given up");
        return;
    }
    uint64_t ino = engine_unsettled_below(settler->meta->engine, task->ino);
    if (!ino) {
        char reason[256] = "its entries cannot be read";
        int left =
            carrier_wait(settler->meta->carrier, task->ino, asked_ns(task), reason, sizeof(reason));
        __atomic_store_n(&task->remaining, left > 0, __ATOMIC_RELAXED);
        if (left <= 0)
            wait_end(settler, task, left, left ? reason : NULL);
        return;
    }
    struct meta_op op = {.kind = META_DRIFT, .ino = task->ino};
    struct meta_reply reply;
    if (!volume_read(settler->meta, &op, &reply))
        __atomic_store_n(&task->remaining, reply.drift.files, __ATOMIC_RELAXED);
    meta_reply_done(&reply);
    if (!idle)
        return;
    const struct settle_failure *f = failed_for(settler, task, ino);
    if (f) {
        char path[256], text[512];
        path_of(settler->meta, f->ino, path, sizeof(path));
        snprintf(text, sizeof(text), "%s: %s", path, f->reason);
        wait_end(settler, task, -EIO, text);
        return;
    }
    int rc = hurry(settler, task->ino);
    if (rc)
        wait_end(settler, task, rc, strerror(-rc));
}

/* A look goes through the whole queue: while there is work, it may take a tenth of the time. */
static void check_waits(struct settler *settler, bool idle)
{
    struct meta_task *task, *next;
    uint64_t start = clock_monotonic_ns();
    if (!settler->waits || (!idle && start < settler->next_look_ns))
        return;
    LL_FOREACH_SAFE(settler->waits, task, next)
    {
        wait_check(settler, task, idle);
    }
    uint64_t end = clock_monotonic_ns();
    settler->next_look_ns = end + MAX(10 * (end - start), LOOK_NS);
}

/* The queue */

static void hold(struct settler *settler, uint64_t ino, uint64_t ns)
{
    struct settle_failure *f = failure_get(settler, ino);
    if (f)
        f->hold_until_ns = clock_monotonic_ns() + ns;
}

struct subtree_wait {
    struct import_wait wait;
    struct settler *settler;
    uint64_t ino;
};

static void subtree_listed(struct import_wait *wait, int rc, const struct error *error)
{
    struct subtree_wait *w = container_of(wait, struct subtree_wait, wait);
    struct settler *settler = w->settler;
    hold(settler, w->ino, rc ? HOLD_ERROR_NS : 0);
    free(w);
    if (!settler->stopped)
        pump_soon(settler);
}

/* The directory was renamed before it was ever listed. */
static void list_subtree(struct settler *settler, uint64_t ino, uint64_t dir)
{
    struct subtree_wait *w = calloc(1, sizeof(*w));
    hold(settler, ino, w ? UINT32_MAX * NS_PER_S : HOLD_ERROR_NS);
    if (!w)
        return;
    w->settler = settler;
    w->ino = ino;
    w->wait.done = subtree_listed;
    listing_join(settler->meta->importer, dir, &w->wait);
}

static void subtree_step(struct settler *settler, uint64_t ino)
{
    static struct log_limit limit = LOG_LIMIT(1, 60000);
    struct meta_op op = {.kind = META_SETTLE_SUBTREE, .ino = ino, .count = SUBTREE_STEP};
    struct meta_reply reply;
    int rc = volume_apply(settler->meta, &op, &reply);
    bool need_import = rc == -EAGAIN && reply.need_import;
    uint64_t dir = reply.attr.ino ? reply.attr.ino : ino;
    meta_reply_done(&reply);
    if (need_import) {
        list_subtree(settler, ino, dir);
    } else if (rc) {
        log_limited(&limit, LOG_ERROR, "renamed directory not queued", "ino=%llu error=%d",
                    (unsigned long long)ino, -rc);
        hold(settler, ino, HOLD_ERROR_NS);
    }
}

static void start_job(struct settler *settler, uint64_t ino)
{
    struct settle_job *job = calloc(1, sizeof(*job));
    if (!job)
        return;
    job->settler = settler;
    job->meta = settler->meta;
    job->ino = ino;
    HASH_ADD(hh, settler->jobs, ino, sizeof(job->ino), job);
    settler->active++;
    work_begin(settler->meta);
    settle_job_start(job);
}

/* Starts what is due and not held. Sets when to look again (ns from now, 0: not before a kick).
 * True: a subtree was worked on, look again at once. */
static bool start_due(struct settler *settler, uint64_t *look_again_ns)
{
    struct meta *meta = settler->meta;
    struct engine_work due[DUE_STEP];
    uint64_t now = meta_time_ns(meta), next_due = 0, monotonic = clock_monotonic_ns();
    *look_again_ns = 0;
    if (settler->active >= meta->config.settle_parallel)
        return false; /* the end of a job looks again */
    /* Those at work and those that are held stand in front. */
    unsigned want = meta->config.settle_parallel + settler->active + HASH_COUNT(settler->failures);
    int count =
        engine_settle_due(meta->engine, now, due, (int)MIN(want, (unsigned)DUE_STEP), &next_due);
    *look_again_ns = next_due > now ? next_due - now : 0;
    bool waiting = false; /* for something that may be begun */
    for (int i = 0; i < count && settler->active < meta->config.settle_parallel; i++) {
        struct settle_job *job;
        HASH_FIND(hh, settler->jobs, &due[i].id, sizeof(due[i].id), job);
        if (job)
            continue;
        struct settle_failure *f = failure_find(settler, due[i].id);
        if (f && f->hold_until_ns > monotonic) {
            uint64_t left = f->hold_until_ns - monotonic;
            if (!*look_again_ns || left < *look_again_ns)
                *look_again_ns = left;
            continue;
        }
        uint64_t wait_ns = 0;
        waiting = true;
        if (settler->active >= pacer_files(meta->pacer, meta->config.settle_parallel, &wait_ns)) {
            if (wait_ns && (!*look_again_ns || wait_ns < *look_again_ns))
                *look_again_ns = wait_ns;
            break;
        }
        if (due[i].subtree) {
            subtree_step(settler, due[i].id);
            return true;
        }
        start_job(settler, due[i].id);
    }
    if (!waiting)
        pacer_idle(meta->pacer);
    return false;
}

static void run_again(struct loop_task *task)
{
    struct settler *settler = container_of(task, struct settler, again);
    settler->again_posted = false;
    pump(settler);
}

static void pump_soon(struct settler *settler)
{
    if (settler->again_posted)
        return;
    settler->again_posted = true;
    settler->again.run = run_again;
    loop_post(settler->meta->work, &settler->again);
}

/* False: too early, look again. */
static bool set_gauges(struct settler *settler)
{
    struct meta_op op = {.kind = META_DRIFT, .ino = META_ROOT_INO};
    struct meta_reply reply;
    uint64_t now = clock_monotonic_ns();
    if (now < settler->next_gauges_ns)
        return false;
    settler->next_gauges_ns = now + GAUGES_NS;
    if (!volume_read(settler->meta, &op, &reply)) {
        const struct meta_drift *d = &reply.drift;
        metric_set(settler->drift_files, (int64_t)d->files);
        metric_set(settler->drift_bytes, (int64_t)d->bytes);
        metric_set(settler->drift_oldest, (int64_t)(d->files ? d->oldest_ns / NS_PER_S : 0));
        metric_set(settler->garbage, (int64_t)d->garbage_objects);
    }
    meta_reply_done(&reply);
    return true;
}

/* Files below directories with a place by age may have become old enough: their names are looked
 * through again, a sixteenth of the age later at the earliest. When the next time is. */
static uint64_t look_for_old(struct settler *settler)
{
    struct meta *meta = settler->meta;
    uint64_t now = clock_monotonic_ns(), next_ns = UINT64_MAX;
    cleanup(free_ptr) struct engine_place *places = NULL;
    uint64_t planned = atomic_load(&settler->next_age_ns);
    if (now < planned)
        return planned;
    int count = engine_places(meta->engine, &places);
    for (int i = 0; i < count; i++) {
        struct meta_op op = {
            .kind = META_STORE_PLACE, .ino = places[i].ino, .flags = META_PLACE_LOOK};
        struct meta_reply reply;
        if (!places[i].after_s || places[i].paused)
            continue;
        uint64_t pause_ns = MAX(places[i].after_s / 16, (uint64_t)1) * NS_PER_S;
        next_ns = MIN(next_ns, now + MIN(pause_ns, AGE_LOOK_MAX_NS));
        if (places[i].queued)
            continue;
        volume_apply(meta, &op, &reply);
        meta_reply_done(&reply);
    }
    /* If a place changed meanwhile, it is looked at again at once. */
    return atomic_compare_exchange_strong(&settler->next_age_ns, &planned, next_ns) ? next_ns : now;
}

void settler_places_changed(struct settler *settler)
{
    atomic_store(&settler->next_age_ns, 0);
}

static void pump(struct settler *settler)
{
    struct meta *meta = settler->meta;
    if (settler->stopped || meta->config.read_only || atomic_load(&meta->refuse)) {
        check_waits(settler, settler->active == 0);
        return;
    }
    if (meta->config.no_settle && !settler->waits)
        return;
    uint64_t look_again_ns = 0;
    uint64_t age_ns = look_for_old(settler);
    bool more = start_due(settler, &look_again_ns);
    if (!more && settler->waits) {
        bool idle = settler->active == 0;
        check_waits(settler, idle);
        if (idle && settler->waits && (!look_again_ns || look_again_ns > WAIT_LOOK_NS))
            look_again_ns = WAIT_LOOK_NS;
    }
    if (!set_gauges(settler) && (!look_again_ns || look_again_ns > GAUGES_NS))
        look_again_ns = GAUGES_NS;
    if (age_ns != UINT64_MAX) {
        uint64_t now = clock_monotonic_ns(), left = age_ns > now ? age_ns - now : 1;
        look_again_ns = look_again_ns ? MIN(look_again_ns, left) : left;
    }
    if (more)
        pump_soon(settler);
    else if (look_again_ns)
        loop_timer_start(&settler->timer, look_again_ns / NS_PER_MS + 1);
}

static void run_timer(struct loop_timer *timer)
{
    pump(container_of(timer, struct settler, timer));
}

void settler_kick(struct settler *settler)
{
    pump(settler);
}

/* Limits */

static uint64_t bytes_of(const struct store_op *op)
{
    uint64_t bytes = op->kind == STORE_GET ? op->length : 0;
    for (unsigned i = 0; i < op->iov_count; i++)
        bytes += op->iov[i].iov_len;
    return bytes;
}

void settle_job_pace(struct settle_job *job)
{
    struct settler *settler = job->settler;
    uint64_t now = clock_monotonic_ns();
    uint64_t wait_ns =
        settler->stopped ? 0 : settle_rate_turn(&settler->rate, now, bytes_of(&job->op.op));
    if (wait_ns)
        metric_add(settler->paced_total, 1);
    pacer_submit(settler->meta, &job->op, now + wait_ns);
}

static void note_end(struct settle_job *job, enum settle_end end)
{
    static struct log_limit limit = LOG_LIMIT(10, 60000);
    struct settler *settler = job->settler;
    struct settle_failure *f = failure_find(settler, job->ino);
    switch (end) {
    case SETTLE_END_SWAPPED:
        settler->settled++;
        metric_add(settler->done_total, 1);
        metric_add(settler->bytes_total, job->plan.size);
        if (f)
            failure_forget(settler, f);
        break;
    case SETTLE_END_SUPERSEDED:
        settler->superseded++;
        break;
    case SETTLE_END_NOTHING:
        /* If it stays due all the same, do not ask again at once. */
        f = failure_get(settler, job->ino);
        if (f) {
            f->attempts = 0;
            f->idle++;
            f->hold_until_ns = clock_monotonic_ns() + HOLD_NS;
        }
        break;
    case SETTLE_END_FAILED:
        settler->failed++;
        metric_add(settler->failed_total, 1);
        f = failure_get(settler, job->ino);
        if (f) {
            f->attempts++;
            f->idle = 0;
            f->time_ns = clock_monotonic_ns();
            if (job->hold)
                f->hold_until_ns = f->time_ns + HOLD_ERROR_NS;
            snprintf(f->reason, sizeof(f->reason), "%s", job->reason);
        }
        if (!settler->stopped)
            log_limited(&limit, LOG_WARN, "file not settled", "ino=%llu key=%s reason=\"%s\"",
                        (unsigned long long)job->ino, job->plan.target.key, job->reason);
        break;
    }
}

void settler_conflict(struct settler *settler, const char *key, const struct meta_reply *reply)
{
    const struct meta_entry *e = &reply->entries[0];
    char path[512];
    settler->conflicts++;
    metric_add(settler->conflicts_total, 1);
    path_of(settler->meta, e->ino, path, sizeof(path));
    char **slot = &settler->beside[(settler->conflicts - 1) % SETTLE_CONFLICTS];
    free(*slot);
    *slot = strdup(path);
    log_warn("somebody else wrote the key of a changed file", "key=%s ours=\"%s\"", key, path);
    volume_conflict(settler->meta, reply);
}

void settle_job_ended(struct settle_job *job, enum settle_end end)
{
    struct settler *settler = job->settler;
    struct meta *meta = job->meta;
    note_end(job, end);
    HASH_DEL(settler->jobs, job);
    settler->active--;
    settle_job_clear(job);
    free(job);
    pump_soon(settler);
    work_end(meta);
}

/* Waiting */

struct wait_start {
    struct loop_task task;
    struct meta *meta;
    struct meta_task *wait;
};

static void run_wait(struct loop_task *task)
{
    struct wait_start *start = container_of(task, struct wait_start, task);
    struct settler *settler = start->meta->settler;
    struct meta_task *wait = start->wait;
    free(start);
    wait->impl = (void *)(uintptr_t)clock_monotonic_ns();
    LL_PREPEND(settler->waits, wait);
    pacer_kick(settler->meta->pacer);
    if (settler->stopped) {
        wait_end(settler, wait, -ECANCELED, "settle: the volume is being closed");
        return;
    }
    int rc = settler->meta->config.read_only ? -EROFS : hurry(settler, wait->ino);
    if (rc)
        wait_end(settler, wait, rc, strerror(-rc));
    else
        pump_soon(settler);
}

void settler_wait(struct meta *meta, struct meta_task *task)
{
    struct wait_start *start = malloc(sizeof(*start));
    if (!start) {
        task->result = error_set(&task->error, -ENOMEM, "settle: out of memory");
        syncer_task(meta->syncer, task);
        return;
    }
    start->meta = meta;
    start->wait = task;
    start->task.run = run_wait;
    loop_post(meta->work, &start->task);
}

/* Life */

static void init_timer(void *arg)
{
    struct settler *settler = arg;
    loop_timer_init(settler->meta->work, &settler->timer, run_timer);
}

int settler_new(struct meta *meta, struct settler **out)
{
    struct settler *settler = calloc(1, sizeof(*settler));
    if (!settler)
        return -ENOMEM;
    int rc = tickets_new(&settler->memory, MEMORY_MAX);
    if (rc) {
        free(settler);
        return rc;
    }
    struct metrics *metrics = meta->config.metrics;
    settler->meta = meta;
    settler->rate.requests_per_s = meta->config.settle_requests;
    settler->rate.bytes_per_s = meta->config.settle_bandwidth;
    settler->paced_total =
        metrics_counter(metrics, "sluice_meta_settle_paced_requests_total", "",
                        "Requests of settle that waited for --settle-requests or "
                        "--settle-bandwidth.");
    settler->done_total = metrics_counter(metrics, "sluice_meta_settled_files_total", "",
                                          "Files that became one object at their own key.");
    settler->failed_total = metrics_counter(metrics, "sluice_meta_settle_failures_total", "",
                                            "Tries to settle a file that failed.");
    settler->conflicts_total =
        metrics_counter(metrics, "sluice_meta_conflicts_total", "",
                        "Changed files whose key somebody else wrote: they got a name beside it.");
    settler->bytes_total =
        metrics_counter(metrics, "sluice_meta_settled_bytes_total", "", "Bytes of settled files.");
    settler->drift_files = metrics_gauge(metrics, "sluice_meta_drift_files", "",
                                         "Files that are not one object at their own key yet.");
    settler->drift_bytes =
        metrics_gauge(metrics, "sluice_meta_drift_bytes", "", "Bytes of these files.");
    settler->drift_oldest =
        metrics_gauge(metrics, "sluice_meta_drift_oldest_timestamp_seconds", "",
                      "Since when the oldest of them is not; 0: there is none.");
    settler->garbage = metrics_gauge(metrics, "sluice_meta_garbage_objects", "",
                                     "Objects that wait to be deleted.");
    loop_call(meta->work, init_timer, settler);
    *out = settler;
    return 0;
}

void settler_stop(struct settler *settler)
{
    settler->stopped = true;
    loop_timer_close(&settler->timer, NULL);
    check_waits(settler, true);
}

void settler_free(struct settler *settler)
{
    if (!settler)
        return;
    assert(!settler->jobs);
    while (settler->failures)
        failure_forget(settler, settler->failures);
    for (int i = 0; i < SETTLE_CONFLICTS; i++)
        free(settler->beside[i]);
    tickets_free(settler->memory);
    free(settler);
}

bool settler_is_wanted(const struct settler *settler)
{
    return settler->waits != NULL;
}

bool settler_uses_key(const struct settler *settler, const char *key)
{
    for (const struct settle_job *job = settler->jobs; job; job = job->hh.next)
        if (!strcmp(job->plan.target.key, key))
            return true;
    return false;
}

#define STATUS_FAILURES 20

/* The last ones, oldest first. */
static json_t *conflict_names(const struct settler *settler)
{
    json_t *list = json_array();
    for (int i = 0; i < SETTLE_CONFLICTS; i++) {
        const char *path = settler->beside[(settler->conflicts + (unsigned)i) % SETTLE_CONFLICTS];
        json_t *text = path ? json_string(path) : NULL;
        if (path)
            json_array_append_new(list, text ? text : json_string("(not UTF-8)"));
    }
    return list;
}

void settler_status(struct settler *settler, json_t *out)
{
    json_object_set_new(out, "running", json_integer(settler->active));
    json_object_set_new(out, "enabled", json_boolean(!settler->meta->config.no_settle));
    pacer_status(settler->meta->pacer, out);
    json_object_set_new(out, "requests_per_s",
                        json_integer((json_int_t)settler->rate.requests_per_s));
    json_object_set_new(out, "bytes_per_s", json_integer((json_int_t)settler->rate.bytes_per_s));
    json_object_set_new(out, "paced_ms",
                        json_integer((json_int_t)(settler->rate.waited_ns / NS_PER_MS)));
    json_object_set_new(out, "settled", json_integer((json_int_t)settler->settled));
    json_object_set_new(out, "changed_meanwhile", json_integer((json_int_t)settler->superseded));
    json_object_set_new(out, "failed_tries", json_integer((json_int_t)settler->failed));
    json_object_set_new(out, "conflicts", json_integer((json_int_t)settler->conflicts));
    json_object_set_new(out, "conflict_names", conflict_names(settler));
    json_t *list = json_array();
    for (struct settle_failure *f = settler->failures; f; f = f->hh.next) {
        if (!f->attempts || json_array_size(list) == STATUS_FAILURES)
            continue;
        char path[512];
        path_of(settler->meta, f->ino, path, sizeof(path));
        json_t *name = json_string(path);
        if (!name)
            name = json_string("(not UTF-8)");
        json_t *reason = json_string(f->reason);
        if (!reason)
            reason = json_string("(not UTF-8)");
        json_array_append_new(list, json_pack("{s:o, s:o, s:i}", "path", name, "reason", reason,
                                              "tries", (int)f->attempts));
    }
    json_object_set_new(out, "failing", list);
}
