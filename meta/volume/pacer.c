/*
 * The requests of settle, gc and the entries to the store: each goes when its own limit says so,
 * and, beside users who are at work, when the pace does (settle_pace.h). Work thread.
 */
#include <errno.h>
#include <stdlib.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "pacer.h"

struct pacer {
    struct meta *meta;
    struct settle_pace pace;
    struct work_op *waiting; /* in order */
    unsigned count;          /* of these */
    struct loop_timer timer;
    bool stopped;
    struct metric *held, *waits_total;
};

static bool is_free(const struct pacer *pacer)
{
    struct meta *meta = pacer->meta;
    return pacer->stopped || settler_is_wanted(meta->settler);
}

static void look(struct pacer *pacer, uint64_t now_ns)
{
    settle_pace_look(&pacer->pace, now_ns,
                     is_free(pacer) ? 0 : settle_load_busy_ns(&pacer->meta->load, now_ns));
    metric_set(pacer->held, pacer->pace.held);
}

static void send_one(struct pacer *pacer, struct work_op *work, uint64_t now_ns)
{
    settle_pace_sent(&pacer->pace);
    work->sent_ns = now_ns;
    work->paced = true;
    work_op_submit(pacer->meta, work);
}

static void send_due(struct pacer *pacer)
{
    uint64_t now = clock_monotonic_ns(), next = UINT64_MAX, wait_ns;
    struct work_op *work, *tmp;
    look(pacer, now);
    DL_FOREACH_SAFE(pacer->waiting, work, tmp)
    {
        if (work->not_before_ns > now && !pacer->stopped) {
            next = MIN(next, work->not_before_ns);
            continue;
        }
        if (!settle_pace_may_send(&pacer->pace, now, &wait_ns)) {
            next = MIN(next, now + wait_ns);
            break;
        }
        DL_DELETE(pacer->waiting, work);
        pacer->count--;
        send_one(pacer, work, now);
        work_end(pacer->meta);
    }
    if (pacer->waiting)
        loop_timer_start(&pacer->timer, (next - now) / NS_PER_MS + 1);
}

static void run_timer(struct loop_timer *timer)
{
    send_due(container_of(timer, struct pacer, timer));
}

void pacer_submit(struct meta *meta, struct work_op *work, uint64_t not_before_ns)
{
    struct pacer *pacer = meta->pacer;
    uint64_t now = clock_monotonic_ns(), wait_ns;
    work->not_before_ns = not_before_ns;
    look(pacer, now);
    bool may = pacer->stopped || settle_pace_may_send(&pacer->pace, now, &wait_ns);
    if (may && (pacer->stopped || (not_before_ns <= now && !pacer->waiting))) {
        send_one(pacer, work, now);
        return;
    }
    metric_add(pacer->waits_total, !may);
    work_begin(meta);
    DL_APPEND(pacer->waiting, work);
    pacer->count++;
    send_due(pacer);
}

void pacer_ended(struct meta *meta, struct work_op *work)
{
    struct pacer *pacer = meta->pacer;
    uint64_t now = clock_monotonic_ns();
    work->paced = false;
    settle_pace_ended(&pacer->pace, now, now - work->sent_ns);
    if (pacer->waiting)
        send_due(pacer);
}

unsigned pacer_files(struct pacer *pacer, unsigned parallel, uint64_t *wait_ns)
{
    uint64_t now = clock_monotonic_ns();
    look(pacer, now);
    return settle_pace_files(&pacer->pace, now, parallel, wait_ns);
}

void pacer_idle(struct pacer *pacer)
{
    if (pacer->waiting)
        return;
    settle_pace_idle(&pacer->pace);
    metric_set(pacer->held, 0);
}

void pacer_kick(struct pacer *pacer)
{
    send_due(pacer);
}

void pacer_status(const struct pacer *pacer, json_t *out)
{
    const struct settle_pace *pace = &pacer->pace;
    bool begins = pace->held_ns >= pace->bound_ns;
    json_object_set_new(out, "held_back", json_boolean(pace->held));
    json_object_set_new(out, "held_back_ms", json_integer((json_int_t)(pace->held_ns / NS_PER_MS)));
    json_object_set_new(out, "share_16ths",
                        json_integer(pace->held && begins ? settle_pace_share(pace) : 0));
    json_object_set_new(out, "paced_requests", json_integer(pacer->count));
}

/* Life */

static void init_timer(void *arg)
{
    struct pacer *pacer = arg;
    loop_timer_init(pacer->meta->work, &pacer->timer, run_timer);
}

int pacer_new(struct meta *meta, struct pacer **out)
{
    struct pacer *pacer = calloc(1, sizeof(*pacer));
    struct metrics *metrics = meta->config.metrics;
    if (!pacer)
        return -ENOMEM;
    pacer->meta = meta;
    pacer->pace.bound_ns = SETTLE_PACE_DELAYS * (uint64_t)meta->format.settle_delay_ms * NS_PER_MS;
    pacer->held = metrics_gauge(metrics, "sluice_meta_background_held", "",
                                "1 while settle and gc are held back, because users are at work.");
    pacer->waits_total =
        metrics_counter(metrics, "sluice_meta_background_waits_total", "",
                        "Requests of settle and gc that waited, because users were at work.");
    loop_call(meta->work, init_timer, pacer);
    *out = pacer;
    return 0;
}

void pacer_stop(struct pacer *pacer)
{
    pacer->stopped = true;
    send_due(pacer); /* to be cancelled like the others */
    loop_timer_close(&pacer->timer, NULL);
}

void pacer_free(struct pacer *pacer)
{
    free(pacer);
}
