/*
 * Asks a second time for what is slow: a GET that takes longer than hedge_after_ms, and than nearly
 * all recent ones of its size, is sent again on another connection; the first answer wins. The
 * second try has a buffer of its own, since both may be writing. At most one request in ten is
 * asked twice, and never more than a fixed number of bytes at a time.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "hedge_policy.h"
#include "s3/backend.h"

#define HEDGE_AFTER_MS 500u
#define HEDGE_BYTES_MAX (32ull << 20)

/* A GET on its way. Kept for the next one. */
struct hedged {
    struct hedge_store *hedge;
    struct store_op *op; /* the caller's; NULL once it has been answered */
    struct store_op first, second;
    bool first_out, second_out;
    bool second_won; /* waits for the first to let go of the caller's buffer */
    bool no_second;  /* it was tried already */
    struct loop_timer timer;
    uint64_t start_ms;
    struct hedged *next;
};

struct hedge_store {
    struct store store;
    uint32_t after_ms; /* immutable */
    struct metric *hedged, *won;
    /* owned by the loop thread */
    struct hedge_policy policy;
    struct hedged *unused;
    uint64_t bytes; /* of second tries that are out */
    unsigned out;   /* hedged in use, answered or not */
    unsigned closing;
    bool freeing;
    uv_sem_t closed;
};

static void on_timer(struct loop_timer *timer);

static struct hedged *hedged_get(struct hedge_store *hedge)
{
    struct hedged *h = hedge->unused;
    if (h) {
        hedge->unused = h->next;
    } else {
        h = calloc(1, sizeof(*h));
        if (!h)
            return NULL;
        h->hedge = hedge;
        loop_timer_init(hedge->store.loop, &h->timer, on_timer);
    }
    hedge->out++;
    return h;
}

static void on_closed(struct loop_timer *timer)
{
    struct hedged *h = container_of(timer, struct hedged, timer);
    struct hedge_store *hedge = h->hedge;
    free(h);
    if (--hedge->closing == 0)
        uv_sem_post(&hedge->closed);
}

static void close_unused(struct hedge_store *hedge)
{
    hedge->closing = 1;
    for (struct hedged *h = hedge->unused, *next; h; h = next) {
        next = h->next;
        hedge->closing++;
        loop_timer_close(&h->timer, on_closed);
    }
    if (--hedge->closing == 0)
        uv_sem_post(&hedge->closed);
}

/* Both tries are in: the memory may serve again. */
static void release_if_idle(struct hedged *h)
{
    struct hedge_store *hedge = h->hedge;
    if (h->op || h->first_out || h->second_out)
        return;
    loop_timer_stop(&h->timer);
    store_op_reset(&h->first);
    store_op_reset(&h->second);
    h->next = hedge->unused;
    hedge->unused = h;
    /* A loser may come in after the last request was answered and the store is being freed. */
    if (--hedge->out == 0 && hedge->freeing)
        close_unused(hedge);
}

static void answer(struct hedged *h, struct store_op *from)
{
    struct store_op *op = TAKE_PTR(h->op);
    int result = from->result;
    store_op_move_result(op, from);
    loop_timer_stop(&h->timer);
    release_if_idle(h);
    store_complete(op, result);
}

static void note_time(struct hedged *h)
{
    hedge_policy_note(&h->hedge->policy, h->op->length, clock_monotonic_ms() - h->start_ms);
}

static void drop_second_buffer(struct hedged *h)
{
    h->hedge->bytes -= h->second.buf_len;
    free(TAKE_PTR(h->second.buf));
}

static void take_second(struct hedged *h)
{
    if (h->second.got)
        memcpy(h->op->buf, h->second.buf, h->second.got);
    drop_second_buffer(h);
    metric_add(h->hedge->won, 1);
    note_time(h);
    answer(h, &h->second);
}

static void on_first(struct store_op *first)
{
    struct hedged *h = first->arg;
    h->first_out = false;
    if (h->second_won) {
        h->second_won = false;
        take_second(h);
        return;
    }
    if (first->result == 0) {
        note_time(h);
        if (h->second_out)
            store_cancel(&h->second);
        answer(h, first);
    } else if (!h->second_out) {
        answer(h, first);
    }
    /* else the second one may still bring it */
}

static void on_second(struct store_op *second)
{
    struct hedged *h = second->arg;
    h->second_out = false;
    if (h->op && second->result == 0) {
        if (!h->first_out) {
            take_second(h);
            return;
        }
        h->second_won = true;
        store_cancel(&h->first);
        return;
    }
    drop_second_buffer(h);
    if (h->op && !h->first_out)
        answer(h, &h->first);
    else
        release_if_idle(h);
}

static void on_timer(struct loop_timer *timer)
{
    struct hedged *h = container_of(timer, struct hedged, timer);
    struct hedge_store *hedge = h->hedge;
    if (!h->op || !h->first_out || h->no_second)
        return;
    uint64_t waited = clock_monotonic_ms() - h->start_ms;
    uint64_t slow = MAX(hedge->after_ms, hedge_policy_slow_ms(&hedge->policy, h->op->length));
    if (waited < slow) {
        loop_timer_start(&h->timer, slow - waited);
        return;
    }
    h->no_second = true;
    size_t len = h->op->length;
    if (len > HEDGE_BYTES_MAX - MIN(hedge->bytes, HEDGE_BYTES_MAX) ||
        !hedge_policy_spend(&hedge->policy))
        return;
    void *buf = malloc(len);
    if (!buf)
        return;
    hedge->bytes += len;
    store_op_copy_request(&h->second, h->op);
    h->second.buf = buf;
    h->second.buf_len = len;
    h->second.done = on_second;
    h->second.arg = h;
    h->second_out = true;
    metric_add(hedge->hedged, 1);
    store_submit(hedge->store.below, &h->second);
}

/* ---- requests that are not hedged ---- */

struct passed {
    struct store_op sub;
    struct store_op *op;
};

static void on_passed(struct store_op *sub)
{
    struct passed *p = sub->arg;
    struct store_op *op = p->op;
    int result = sub->result;
    store_op_move_result(op, sub);
    store_op_reset(sub);
    free(p);
    store_complete(op, result);
}

static void pass(struct hedge_store *hedge, struct store_op *op)
{
    struct passed *p = calloc(1, sizeof(*p));
    if (!p) {
        store_complete(op, -ENOMEM);
        return;
    }
    p->op = op;
    store_op_copy_request(&p->sub, op);
    p->sub.done = on_passed;
    p->sub.arg = p;
    op->impl = p;
    store_submit(hedge->store.below, &p->sub);
}

static bool is_hedged(const struct store_op *op)
{
    return op->kind == STORE_GET && op->length > 0;
}

static void hedge_submit(struct store *store, struct store_op *op)
{
    struct hedge_store *hedge = container_of(store, struct hedge_store, store);
    if (!is_hedged(op)) {
        pass(hedge, op);
        return;
    }
    struct hedged *h = hedged_get(hedge);
    if (!h) {
        store_complete(op, -ENOMEM);
        return;
    }
    h->op = op;
    h->second_won = h->no_second = h->second_out = false;
    h->start_ms = clock_monotonic_ms();
    hedge_policy_earn(&hedge->policy);
    store_op_copy_request(&h->first, op);
    h->first.done = on_first;
    h->first.arg = h;
    h->first_out = true;
    op->impl = h;
    loop_timer_start(&h->timer, hedge->after_ms);
    store_submit(store->below, &h->first);
}

static void hedge_cancel(struct store *store, struct store_op *op)
{
    if (!is_hedged(op)) {
        struct passed *p = op->impl;
        store_cancel(&p->sub);
        return;
    }
    struct hedged *h = op->impl;
    h->no_second = true;
    if (h->second_out)
        store_cancel(&h->second);
    if (h->first_out)
        store_cancel(&h->first);
}

/* ---- life ---- */

static void begin_free(void *arg)
{
    struct hedge_store *hedge = arg;
    hedge->freeing = true;
    if (hedge->out == 0)
        close_unused(hedge);
}

static void hedge_free(struct store *store)
{
    struct hedge_store *hedge = container_of(store, struct hedge_store, store);
    loop_call(store->loop, begin_free, hedge);
    uv_sem_wait(&hedge->closed);
    uv_sem_destroy(&hedge->closed);
    store_done(store);
    free(hedge);
}

static const struct store_backend hedge_backend = {
    .kind = "hedge",
    .submit = hedge_submit,
    .cancel = hedge_cancel,
    .free = hedge_free,
};

int store_hedge_new(struct store *below, const struct store_options *options,
                    struct metrics *metrics, struct store **out)
{
    struct hedge_store *hedge = calloc(1, sizeof(*hedge));
    if (!hedge)
        return -ENOMEM;
    store_init(&hedge->store, &hedge_backend, below->loop, below, NULL);
    hedge->after_ms = options->hedge_after_ms ? options->hedge_after_ms : HEDGE_AFTER_MS;
    hedge->hedged = metrics_counter(metrics, "sluice_store_hedged_total", "",
                                    "Slow GETs that were asked for a second time.");
    hedge->won = metrics_counter(metrics, "sluice_store_hedges_won_total", "",
                                 "Slow GETs whose second request answered first.");
    uv_sem_init(&hedge->closed, 0);
    *out = &hedge->store;
    return 0;
}
