/*
 * Tries again what may succeed later, within a deadline.
 *
 * A failed try may have been carried out: its reply was lost. Before a conditional PUT or a
 * COMPLETE is sent again, and when such a second try says that the key is taken or the upload gone,
 * the object at the key is compared with what was sent; if it is ours, the request succeeded. So
 * the caller gets -EEXIST only if another writer was first.
 *
 * A store that does not honour a condition (see store_probe) gets a HEAD before such a request, and
 * then the request without it (some refuse what they do not know): a race that is lost in between
 * is not noticed then, and the probe says so. One whose answer to COMPLETE has another
 * ETag than the object gets a HEAD behind it.
 */
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
/* A try whose bytes still move at the deadline goes on until none has moved for so long: a slow
 * line is no failure. What a peer acknowledges is looked at once a second. */
#define MOVING_MS 3000u
/* Objects of this size or less are read back to be recognised. */
#define COMPARE_MAX (1u << 20)

enum step {
    STEP_ASK,     /* does the condition hold? (HEAD; a store that does not look at it) */
    STEP_REQUEST, /* the request itself */
    STEP_ETAG,    /* what ETag has it got? (HEAD; a store that does not tell) */
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
    uint64_t moved_ms; /* when bytes of `sub` moved last */
    bool in_flight, timed_out, cancelled;
    bool waits_for_turn; /* prepared, held back by the rate or the bandwidth */
    bool uncertain;      /* a failed try may have been carried out */
    bool tried_at_once;
    struct error conflict; /* what a second try said; code 0: nothing yet */
    struct error last;     /* of the last failed try */
    int last_result;
    uint64_t seen_size; /* of the object at the key */
    char seen_etag[STORE_ETAG_MAX];
    void *compare_buf; /* owned */
    struct job *next;
};

struct retry_store {
    struct store store;
    /* immutable */
    uint32_t default_deadline_ms;
    void (*again)(void *arg, const struct error *why);
    void *again_arg;
    struct metric *retries, *limit, *held;
    /* owned by the loop thread */
    struct job *unused;
    struct retry_rate rate;
    struct retry_bandwidth up, down;
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

/* The deadline came while a try was out. What an earlier one said is the better reason. */
static void finish_late(struct job *job)
{
    if (job->failed > 0) {
        job->failed++;
        finish_failed(job);
        return;
    }
    struct error error = {0};
    error_set(&error, -ETIMEDOUT, "%s %s: no answer within %llu ms", store_kind_name(job->op->kind),
              job->op->key ? job->op->key : "",
              (unsigned long long)(job->deadline_ms - job->start_ms));
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

static bool is_conditional(const struct store_op *op)
{
    return op->if_none_match || op->if_match;
}

/* Had an earlier try been carried out, this one would be refused. */
static bool refuses_a_second(const struct store_op *op)
{
    return op->kind == STORE_MPU_COMPLETE || (op->kind == STORE_PUT && is_conditional(op));
}

static bool is_honoured(const struct job *job)
{
    const struct store_op *op = job->op;
    const struct store_caps *caps = &job->retry->store.caps;
    if (op->kind == STORE_PUT)
        return op->if_none_match ? caps->put_if_none_match : !op->if_match || caps->put_if_match;
    if (op->kind == STORE_MPU_COMPLETE)
        return op->if_none_match ? caps->complete_if_none_match
                                 : !op->if_match || caps->complete_if_match;
    return true;
}

/* Where a try begins. */
static enum step first_step(const struct job *job)
{
    if (job->uncertain && refuses_a_second(job->op))
        return STEP_LOOK;
    return is_honoured(job) ? STEP_REQUEST : STEP_ASK;
}

/* A failure that another try may mend. What the server would have to see twice to believe is
 * believed after one more try. */
static enum store_retry kind_of_failure(const struct job *job)
{
    enum store_retry kind = retry_kind(&job->sub);
    if (kind != STORE_RETRY_NOW || !job->tried_at_once)
        return kind;
    int result = job->sub.result;
    return result == -EIO || result == -ETIMEDOUT ? STORE_RETRY_AGAIN : STORE_RETRY_NEVER;
}

static void pause_job(struct job *job)
{
    struct retry_store *retry = job->retry;
    uint64_t now = clock_monotonic_ms();
    enum store_retry kind = kind_of_failure(job);
    job->failed++;
    job->last = job->sub.error;
    job->last_result = job->sub.result;
    if (job->step == STEP_REQUEST) {
        job->uncertain = true;
        job->step = first_step(job);
    }
    if (kind == STORE_RETRY_SLOWLY)
        retry_rate_slow(&retry->rate, now);
    uint32_t delay = retry_backoff_ms(job->failed, kind, job->sub.retry_after_ms, &retry->random);
    if (kind == STORE_RETRY_NOW) {
        job->tried_at_once = true;
        delay = 0;
    }
    if (now + delay >= job->deadline_ms) {
        finish_failed(job);
        return;
    }
    metric_add(retry->retries, 1);
    if (retry->again)
        retry->again(retry->again_arg, &job->last);
    char quoted[400];
    log_debug("store request tried again", "op=%s tries=%u delay_ms=%u error=%s",
              store_kind_name(job->op->kind), job->failed, delay,
              log_quote(job->last.message, quoted, sizeof(quoted)));
    loop_timer_start(&job->timer, delay);
}

static void go_to(struct job *job, enum step step)
{
    job->step = step;
    proceed(job);
}

static void on_request(struct job *job)
{
    int result = job->sub.result;
    if (job->uncertain && refuses_a_second(job->op) && (result == -EEXIST || result == -ENOENT)) {
        job->conflict = job->sub.error;
        job->conflict.code = result;
        go_to(job, STEP_LOOK);
        return;
    }
    if (!result && job->op->kind == STORE_MPU_COMPLETE && !job->retry->store.caps.complete_etag) {
        go_to(job, STEP_ETAG);
        return;
    }
    finish(job, result);
}

static void finish_taken(struct job *job)
{
    struct error e = {0};
    error_set(&e, -EEXIST, "%s %s: another writer was first", store_kind_name(job->op->kind),
              job->op->key);
    e.http_status = 412;
    snprintf(e.store_code, sizeof(e.store_code), "PreconditionFailed");
    finish_with(job, -EEXIST, &e);
}

/* The answer to "does the condition hold?". */
static void on_asked(struct job *job)
{
    const char *wanted = job->op->if_match;
    if (wanted ? !job->sub.result && store_etag_fits(&job->sub.info, wanted)
               : job->sub.result == -ENOENT)
        go_to(job, STEP_REQUEST);
    else if (job->sub.result)
        finish(job, job->sub.result);
    else
        finish_taken(job);
}

/* The upload is done. Somebody else may have written the key since. */
static void on_etag(struct job *job)
{
    if (!job->sub.result && job->op->meta_count > 0 &&
        retry_verify(job->op, &job->sub, 0) == VERIFY_FOREIGN)
        finish_taken(job);
    else
        finish(job, job->sub.result);
}

/* What is at the key (`etag`; NULL: nothing) is not of an earlier try. */
static void on_foreign(struct job *job, const char *etag)
{
    const struct store_op *op = job->op;
    if (job->conflict.code) {
        struct error conflict = job->conflict;
        finish_with(job, conflict.code, &conflict);
    } else if (etag && (op->if_none_match || (op->if_match && strcmp(op->if_match, etag) != 0))) {
        finish_taken(job);
    } else {
        go_to(job, STEP_REQUEST);
    }
}

static void on_looked(struct job *job)
{
    if (job->sub.result == -ENOENT) {
        on_foreign(job, NULL);
        return;
    }
    if (job->sub.result) {
        finish(job, job->sub.result);
        return;
    }
    job->seen_size = job->sub.info.size;
    memcpy(job->seen_etag, job->sub.info.etag, sizeof(job->seen_etag));
    switch (retry_verify(job->op, &job->sub, COMPARE_MAX)) {
    case VERIFY_OURS:
        finish(job, 0);
        break;
    case VERIFY_FOREIGN:
        on_foreign(job, job->seen_etag);
        break;
    case VERIFY_COMPARE:
        go_to(job, STEP_COMPARE);
        break;
    }
}

static void on_compared(struct job *job)
{
    /* Replaced since the look at it, or gone: look again. */
    if (job->sub.result == -EEXIST || job->sub.result == -ENOENT)
        go_to(job, STEP_LOOK);
    else if (job->sub.result)
        finish(job, job->sub.result);
    else if (retry_verify_bytes(job->op, job->compare_buf, job->sub.got))
        finish(job, 0);
    else
        on_foreign(job, job->seen_etag);
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
    else if (sub->result && kind_of_failure(job) != STORE_RETRY_NEVER)
        pause_job(job);
    else if (job->step == STEP_ASK)
        on_asked(job);
    else if (job->step == STEP_REQUEST)
        on_request(job);
    else if (job->step == STEP_ETAG)
        on_etag(job);
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
        job->compare_buf = malloc(job->seen_size);
        if (!job->compare_buf)
            return -ENOMEM;
        *sub = (struct store_op){.kind = STORE_GET,
                                 .key = op->key,
                                 .priority = op->priority,
                                 .if_match = job->seen_etag,
                                 .buf = job->compare_buf,
                                 .buf_len = job->seen_size,
                                 .length = job->seen_size};
        return 0;
    }
    if (job->step == STEP_REQUEST) {
        store_op_copy_request(sub, op);
        if (!is_honoured(job)) {
            sub->if_match = NULL;
            sub->if_none_match = false;
        }
    } else {
        *sub = (struct store_op){.kind = STORE_HEAD, .key = op->key, .priority = op->priority};
    }
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
    job->moved_ms = 0;
    job->in_flight = true;
    job->waits_for_turn = false;
    store_submit(job->retry->store.below, &job->sub);
}

/* Which limit of bytes the prepared request is under, and with how many. */
static struct retry_bandwidth *bandwidth_of(struct job *job, uint64_t *bytes)
{
    const struct store_op *sub = &job->sub;
    *bytes = 0;
    if (sub->kind == STORE_GET) {
        *bytes = sub->length;
        return &job->retry->down;
    }
    if (sub->kind == STORE_PUT || sub->kind == STORE_MPU_PART)
        for (unsigned i = 0; i < sub->iov_count; i++)
            *bytes += sub->iov[i].iov_len;
    return &job->retry->up;
}

/* Waiting for the bandwidth that we were given is no fault of the store: the deadline moves. */
static uint32_t bandwidth_delay_ms(struct job *job)
{
    uint64_t bytes;
    struct retry_bandwidth *bandwidth = bandwidth_of(job, &bytes);
    uint64_t delay_ns = retry_bandwidth_delay(bandwidth, clock_monotonic_ns(), bytes);
    uint64_t delay_ms = MIN((delay_ns + NS_PER_MS - 1) / NS_PER_MS, (uint64_t)UINT32_MAX);
    if (delay_ms)
        metric_add(job->retry->held, 1);
    job->deadline_ms += delay_ms;
    return (uint32_t)delay_ms;
}

/* Sends what the step asks for, as soon as the rate and the bandwidth allow. */
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
    job->sub.moved_ms = &job->moved_ms;
    uint32_t delay = retry_rate_delay(&job->retry->rate, now);
    metric_set(job->retry->limit, (int64_t)job->retry->rate.limit);
    uint32_t turn = bandwidth_delay_ms(job);
    delay = MAX(delay, turn);
    if (delay > 0 && now + delay < job->deadline_ms) {
        loop_timer_start(&job->timer, delay);
        job->waits_for_turn = true;
        return;
    }
    send_now(job);
}

/* How long the try may go on behind the deadline; 0: not. */
static uint64_t grace_ms(const struct job *job)
{
    uint64_t idle = clock_monotonic_ms() - job->moved_ms;
    return job->op->timeout_ms || idle >= MOVING_MS ? 0 : MOVING_MS - idle;
}

/* The end of a pause, of a wait for a turn, or the deadline. */
static void on_timer(struct loop_timer *timer)
{
    struct job *job = container_of(timer, struct job, timer);
    uint64_t grace = job->in_flight ? grace_ms(job) : 0;
    if (grace) {
        loop_timer_start(timer, grace);
    } else if (job->in_flight) {
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
    job->failed = 0;
    job->in_flight = job->timed_out = job->cancelled = job->waits_for_turn = false;
    job->uncertain = job->tried_at_once = false;
    error_clear(&job->last);
    error_clear(&job->conflict);
    job->last_result = 0;
    job->step = first_step(job);
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
    if (job->in_flight) {
        store_cancel(&job->sub);
        return;
    }
    if (job->waits_for_turn) {
        uint64_t bytes;
        struct retry_bandwidth *bandwidth = bandwidth_of(job, &bytes);
        retry_bandwidth_return(bandwidth, bytes);
    }
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
    retry->again = options->again;
    retry->again_arg = options->again_arg;
    retry->retries = metrics_counter(metrics, "sluice_store_retries_total", "",
                                     "Requests to the object store that were tried again.");
    retry->limit = metrics_gauge(metrics, "sluice_store_rate_limit", "",
                                 "Requests per second that the store's 503 leave us; 0: no limit.");
    retry->held = metrics_counter(metrics, "sluice_store_held_requests_total", "",
                                  "Requests that waited for the limits of upload or download.");
    retry->up.bytes_per_s = options->upload_limit;
    retry->down.bytes_per_s = options->download_limit;
    hash_random(&retry->random, sizeof(retry->random));
    retry->random |= 1;
    uv_sem_init(&retry->closed, 0);
    *out = &retry->store;
    return 0;
}
