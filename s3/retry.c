/*
 * Tries again what may succeed later, within a deadline.
 *
 * A failed try may have been carried out: its reply was lost. Where the next try then says that the
 * key is taken, or that the upload is gone, the object at the key is compared with what was sent;
 * if it is ours, the request succeeded. So a caller of a conditional PUT or COMPLETE gets -EEXIST
 * only if another writer was first.
 *
 * A store that does not honour If-None-Match (see store_probe) gets a HEAD before such a request:
 * a race that is lost in between is not noticed then, and the probe says so.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "retry_policy.h"
#include "retry_verify.h"
#include "s3/backend.h"

#define DEADLINE_MS 60000u
/* Objects of this size or less are read back to be recognised. */
#define COMPARE_MAX (1u << 20)

enum step {
    STEP_ASK,     /* is the key free? (HEAD; a store without If-None-Match) */
    STEP_REQUEST, /* the request itself */
    STEP_LOOK,    /* is the object at the key ours? (HEAD) */
    STEP_COMPARE, /* … does it hold our bytes? (GET) */
};

/* A request on its way. Kept for the next one: opening and closing a timer for each costs more. */
struct job {
    struct retry_store *retry;
    struct store_op *op; /* the caller's; NULL: not in use */
    struct store_op sub;
    struct loop_timer timer; /* the deadline while `sub` is out, the pause while it is not */
    enum step step;
    unsigned failed;
    uint64_t start_ms, deadline_ms;
    bool in_flight, timed_out, cancelled;
    bool waits_for_turn; /* prepared, held back by the rate */
    bool uncertain;      /* a failed try may have been carried out */
    bool tried_at_once;
    struct error conflict; /* STEP_LOOK: what the request itself said */
    struct error last;     /* of the last failed try */
    int last_result;
    void *compare_buf; /* owned */
    uint64_t compare_size;
    char compare_etag[STORE_ETAG_MAX];
    struct job *next;
};

struct retry_store {
    struct store store;
    /* immutable */
    uint32_t default_deadline_ms;
    struct metric *retries, *limit;
    /* owned by the loop thread */
    struct job *unused;
    struct retry_rate rate;
    uint64_t random;
    unsigned closing;
    uv_sem_t closed;
};

static void proceed(struct job *job);
static void on_timer(struct loop_timer *timer);

/* ---- jobs ---- */

static struct job *job_get(struct retry_store *retry)
{
    struct job *job = retry->unused;
    if (job) {
        retry->unused = job->next;
        return job;
    }
    job = calloc(1, sizeof(*job));
    if (!job)
        return NULL;
    job->retry = retry;
    loop_timer_init(retry->store.loop, &job->timer, on_timer);
    return job;
}

static void job_put(struct job *job)
{
    loop_timer_stop(&job->timer);
    store_op_reset(&job->sub);
    free(TAKE_PTR(job->compare_buf));
    job->op = NULL;
    job->next = job->retry->unused;
    job->retry->unused = job;
}

/* Ends the caller's request with what the last sub-request gave. */
static void finish(struct job *job, int result)
{
    struct store_op *op = job->op;
    store_op_move_result(op, &job->sub);
    job_put(job);
    store_complete(op, result);
}

static void finish_with(struct job *job, int result, const struct error *error)
{
    struct store_op *op = job->op;
    op->error = *error;
    op->error.code = result;
    job_put(job);
    store_complete(op, result);
}

static void finish_failed(struct job *job)
{
    struct error error = job->last;
    int result = job->last_result;
    /* 409 of a concurrent conditional write that never became a decision. */
    if (result == -EAGAIN)
        result = -EEXIST;
    if (job->failed > 1) {
        size_t len = strlen(error.message);
        snprintf(error.message + len, sizeof(error.message) - len, " (%u tries in %llu ms)",
                 job->failed, (unsigned long long)(clock_monotonic_ms() - job->start_ms));
    }
    finish_with(job, result, &error);
}

static void finish_late(struct job *job)
{
    struct error error = {0};
    unsigned long long after = job->deadline_ms - job->start_ms;
    error_set(&error, -ETIMEDOUT, "%s %s: no answer within %llu ms%s%.300s",
              store_kind_name(job->op->kind), job->op->key ? job->op->key : "", after,
              job->last.message[0] ? "; before: " : "", job->last.message);
    error.http_status = job->last.http_status;
    memcpy(error.store_code, job->last.store_code, sizeof(error.store_code));
    finish_with(job, -ETIMEDOUT, &error);
}

static void finish_cancelled(struct job *job)
{
    struct error error = {0};
    error_set(&error, -ECANCELED, "%s %s: cancelled", store_kind_name(job->op->kind),
              job->op->key ? job->op->key : "");
    finish_with(job, -ECANCELED, &error);
}

/* ---- what a try said ---- */

static enum step first_step(const struct retry_store *retry, const struct store_op *op)
{
    if (!op->if_none_match)
        return STEP_REQUEST;
    const struct store_caps *caps = &retry->store.caps;
    bool honoured = op->kind == STORE_PUT            ? caps->put_if_none_match
                    : op->kind == STORE_MPU_COMPLETE ? caps->complete_if_none_match
                                                     : true;
    return honoured ? STEP_REQUEST : STEP_ASK;
}

static bool is_conditional(const struct store_op *op)
{
    return op->if_none_match || op->if_match;
}

/* A reply that the request itself may have caused, had an earlier try been carried out. */
static bool may_be_our_doing(const struct job *job)
{
    const struct store_op *op = job->op;
    int result = job->sub.result;
    if (!job->uncertain)
        return false;
    if (op->kind == STORE_PUT)
        return is_conditional(op) && (result == -EEXIST || (result == -ENOENT && op->if_match));
    return op->kind == STORE_MPU_COMPLETE && (result == -EEXIST || result == -ENOENT);
}

static void pause_job(struct job *job)
{
    struct retry_store *retry = job->retry;
    uint64_t now = clock_monotonic_ms();
    enum store_retry kind = retry_kind(&job->sub);
    job->failed++;
    job->last = job->sub.error;
    job->last_result = job->sub.result;
    if (job->step == STEP_REQUEST) {
        job->uncertain = true;
        job->step = first_step(retry, job->op);
    }
    if (kind == STORE_RETRY_SLOWLY)
        retry_rate_slow(&retry->rate, now);
    uint32_t delay = retry_backoff_ms(job->failed, kind, job->sub.retry_after_ms, &retry->random);
    if (kind == STORE_RETRY_NOW && !job->tried_at_once) {
        job->tried_at_once = true;
        delay = 0;
    }
    if (now + delay >= job->deadline_ms) {
        finish_failed(job);
        return;
    }
    metric_add(retry->retries, 1);
    char quoted[400];
    log_debug("store request tried again", "op=%s tries=%u delay_ms=%u error=%s",
              store_kind_name(job->op->kind), job->failed, delay,
              log_quote(job->last.message, quoted, sizeof(quoted)));
    loop_timer_start(&job->timer, delay);
}

static void look_at_key(struct job *job)
{
    job->conflict = job->sub.error;
    job->conflict.code = job->sub.result;
    job->step = STEP_LOOK;
    proceed(job);
}

static void on_request(struct job *job)
{
    if (may_be_our_doing(job))
        look_at_key(job);
    else
        finish(job, job->sub.result);
}

/* The answer to "is the key free?". */
static void on_asked(struct job *job)
{
    if (job->sub.result == -ENOENT) {
        job->step = STEP_REQUEST;
        proceed(job);
        return;
    }
    if (job->sub.result) {
        finish(job, job->sub.result);
        return;
    }
    struct error *e = &job->sub.error;
    error_set(e, -EEXIST, "%s %s: the key is taken", store_kind_name(job->op->kind), job->op->key);
    e->http_status = 412;
    snprintf(e->store_code, sizeof(e->store_code), "PreconditionFailed");
    if (job->uncertain) {
        job->conflict = *e;
        job->step = STEP_LOOK;
        proceed(job);
        return;
    }
    finish(job, -EEXIST);
}

static void not_ours(struct job *job)
{
    struct error conflict = job->conflict;
    finish_with(job, conflict.code, &conflict);
}

static void on_looked(struct job *job)
{
    if (job->sub.result == -ENOENT) {
        not_ours(job);
        return;
    }
    if (job->sub.result) {
        finish(job, job->sub.result);
        return;
    }
    switch (retry_verify(job->op, &job->sub, COMPARE_MAX)) {
    case VERIFY_OURS:
        finish(job, 0);
        break;
    case VERIFY_FOREIGN:
        not_ours(job);
        break;
    case VERIFY_COMPARE:
        job->step = STEP_COMPARE;
        job->compare_size = job->sub.info.size;
        memcpy(job->compare_etag, job->sub.info.etag, sizeof(job->compare_etag));
        proceed(job);
        break;
    }
}

static void on_compared(struct job *job)
{
    if (job->sub.result) {
        /* Replaced since the look at it, or gone: what the request said stands. */
        not_ours(job);
        return;
    }
    if (retry_verify_bytes(job->op, job->compare_buf, job->sub.got))
        finish(job, 0);
    else
        not_ours(job);
}

static void on_sub_done(struct store_op *sub)
{
    struct job *job = sub->arg;
    job->in_flight = false;
    loop_timer_stop(&job->timer);
    if (sub->result && job->cancelled)
        finish_cancelled(job);
    else if (sub->result && job->timed_out)
        finish_late(job);
    else if (sub->result && retry_kind(sub) != STORE_RETRY_NEVER)
        pause_job(job);
    else if (job->step == STEP_ASK)
        on_asked(job);
    else if (job->step == STEP_REQUEST)
        on_request(job);
    else if (job->step == STEP_LOOK)
        on_looked(job);
    else
        on_compared(job);
}

/* ---- sending ---- */

static int prepare(struct job *job)
{
    struct store_op *sub = &job->sub;
    const struct store_op *op = job->op;
    store_op_reset(sub);
    if (job->step == STEP_COMPARE) {
        free(job->compare_buf);
        job->compare_buf = malloc(job->compare_size);
        if (!job->compare_buf)
            return -ENOMEM;
        *sub = (struct store_op){.kind = STORE_GET,
                                 .key = op->key,
                                 .priority = op->priority,
                                 .if_match = job->compare_etag,
                                 .buf = job->compare_buf,
                                 .buf_len = job->compare_size,
                                 .length = job->compare_size};
        return 0;
    }
    if (job->step == STEP_REQUEST)
        store_op_copy_request(sub, op);
    else
        *sub = (struct store_op){.kind = STORE_HEAD, .key = op->key, .priority = op->priority};
    return 0;
}

static void send_now(struct job *job)
{
    uint64_t now = clock_monotonic_ms();
    if (now >= job->deadline_ms) {
        finish_late(job);
        return;
    }
    loop_timer_start(&job->timer, job->deadline_ms - now);
    job->in_flight = true;
    job->waits_for_turn = false;
    store_submit(job->retry->store.below, &job->sub);
}

/* Sends what the step asks for, as soon as the rate allows. */
static void proceed(struct job *job)
{
    uint64_t now = clock_monotonic_ms();
    int rc = prepare(job);
    if (rc) {
        struct error error = {0};
        error_set(&error, rc, "no memory");
        finish_with(job, rc, &error);
        return;
    }
    job->sub.done = on_sub_done;
    job->sub.arg = job;
    uint32_t delay = retry_rate_delay(&job->retry->rate, now);
    metric_set(job->retry->limit, (int64_t)job->retry->rate.limit);
    if (delay > 0 && now + delay < job->deadline_ms) {
        loop_timer_start(&job->timer, delay);
        job->waits_for_turn = true;
        return;
    }
    send_now(job);
}

/* The end of a pause, of a wait for a turn, or the deadline. */
static void on_timer(struct loop_timer *timer)
{
    struct job *job = container_of(timer, struct job, timer);
    if (job->in_flight) {
        job->timed_out = true;
        store_cancel(&job->sub);
    } else if (job->waits_for_turn) {
        send_now(job);
    } else {
        proceed(job);
    }
}

static void retry_submit(struct store *store, struct store_op *op)
{
    struct retry_store *retry = container_of(store, struct retry_store, store);
    struct job *job = job_get(retry);
    if (!job) {
        store_complete(op, -ENOMEM);
        return;
    }
    job->op = op;
    job->step = first_step(retry, op);
    job->failed = 0;
    job->in_flight = job->timed_out = job->cancelled = job->waits_for_turn = false;
    job->uncertain = job->tried_at_once = false;
    error_clear(&job->last);
    job->last_result = 0;
    job->start_ms = clock_monotonic_ms();
    job->deadline_ms =
        job->start_ms + (op->timeout_ms ? op->timeout_ms : retry->default_deadline_ms);
    op->impl = job;
    proceed(job);
}

static void retry_cancel(struct store *store, struct store_op *op)
{
    struct job *job = op->impl;
    job->cancelled = true;
    if (job->in_flight)
        store_cancel(&job->sub);
    else
        finish_cancelled(job);
}

/* ---- life ---- */

static void on_job_closed(struct loop_timer *timer)
{
    struct job *job = container_of(timer, struct job, timer);
    struct retry_store *retry = job->retry;
    free(job);
    if (--retry->closing == 0)
        uv_sem_post(&retry->closed);
}

static void close_jobs(void *arg)
{
    struct retry_store *retry = arg;
    retry->closing = 1;
    for (struct job *job = retry->unused, *next; job; job = next) {
        next = job->next;
        retry->closing++;
        loop_timer_close(&job->timer, on_job_closed);
    }
    if (--retry->closing == 0)
        uv_sem_post(&retry->closed);
}

static void retry_free(struct store *store)
{
    struct retry_store *retry = container_of(store, struct retry_store, store);
    loop_call(store->loop, close_jobs, retry);
    uv_sem_wait(&retry->closed);
    uv_sem_destroy(&retry->closed);
    store_done(store);
    free(retry);
}

static const struct store_backend retry_backend = {
    .kind = "retry",
    .submit = retry_submit,
    .cancel = retry_cancel,
    .free = retry_free,
};

int store_retry_new(struct store *below, const struct store_options *options,
                    struct metrics *metrics, struct store **out)
{
    struct retry_store *retry = calloc(1, sizeof(*retry));
    if (!retry)
        return -ENOMEM;
    store_init(&retry->store, &retry_backend, below->loop, below, NULL);
    retry->default_deadline_ms = options->deadline_ms ? options->deadline_ms : DEADLINE_MS;
    retry->retries = metrics_counter(metrics, "sluice_store_retries_total", "",
                                     "Requests to the object store that were tried again.");
    retry->limit = metrics_gauge(metrics, "sluice_store_rate_limit", "",
                                 "Requests per second that the store's 503 leave us; 0: no limit.");
    hash_random(&retry->random, sizeof(retry->random));
    retry->random |= 1;
    uv_sem_init(&retry->closed, 0);
    *out = &retry->store;
    return 0;
}
