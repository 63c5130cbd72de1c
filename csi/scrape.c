#include "scrape.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/metrics_http.h"
#include "control.h"
#include "exposition.h"
#include "mounts.h"
#include "records.h"

#define ANSWER_S 5       /* a scraper waits for 10 s */
#define ASKING_AT_ONCE 8 /* threads of one scrape */
#define ASKING_MAX 64    /* threads, with those that a mount does not answer */
#define MOUNTS_MAX 10000
#define TEXT_MAX (14u << 20) /* what metrics_http lets through is 16 MiB */

struct ask {
    char *volume, *staging;
    json_t *reply; /* NULL: none (yet) */
    bool done;
};

/* What one scrape asks. Shared with its threads: one that hangs in a mount outlives the scrape. */
struct round {
    struct scrape *scrape;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* under lock */
    struct ask *asks;
    unsigned count, next, done, refs;
};

struct waiting {
    char *staging;
    struct waiting *next;
};

struct scrape {
    const char *state_dir; /* immutable */
    struct metrics *metrics;
    struct metrics_http *http;
    pthread_mutex_t lock;
    struct waiting *waiting; /* under lock: mounts that are being asked */
    unsigned threads;        /* under lock */
};

static void round_unref(struct round *r)
{
    pthread_mutex_lock(&r->lock);
    bool last = --r->refs == 0;
    pthread_mutex_unlock(&r->lock);
    if (!last)
        return;
    for (unsigned i = 0; i < r->count; i++) {
        free(r->asks[i].volume);
        free(r->asks[i].staging);
        json_decref(r->asks[i].reply);
    }
    free(r->asks);
    pthread_cond_destroy(&r->changed);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

static bool is_waiting(struct scrape *s, const char *staging)
{
    struct waiting *w;
    pthread_mutex_lock(&s->lock);
    LL_FOREACH(s->waiting, w)
    if (strcmp(w->staging, staging) == 0)
        break;
    pthread_mutex_unlock(&s->lock);
    return w != NULL;
}

static json_t *ask(struct scrape *s, char *staging)
{
    struct waiting self = {.staging = staging};
    pthread_mutex_lock(&s->lock);
    LL_PREPEND(s->waiting, &self);
    pthread_mutex_unlock(&s->lock);
    json_t *reply = control_ask(staging, "{\"op\":\"metrics\"}");
    pthread_mutex_lock(&s->lock);
    LL_DELETE(s->waiting, &self);
    pthread_mutex_unlock(&s->lock);
    return reply;
}

static void *run_asks(void *arg)
{
    struct round *r = arg;
    struct scrape *s = r->scrape;
    pthread_mutex_lock(&r->lock);
    while (r->next < r->count) {
        struct ask *a = &r->asks[r->next++];
        pthread_mutex_unlock(&r->lock);
        json_t *reply = ask(s, a->staging);
        pthread_mutex_lock(&r->lock);
        a->reply = reply;
        a->done = true;
        r->done++;
        pthread_cond_signal(&r->changed);
    }
    pthread_mutex_unlock(&r->lock);
    round_unref(r);
    pthread_mutex_lock(&s->lock);
    s->threads--;
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

struct listing {
    struct round *round;
    struct mount_table table;
};

static void list_mount(void *arg, const char *dir, struct record *record)
{
    struct listing *l = arg;
    struct round *r = l->round;
    (void)dir;
    if (!record->staging || !record->volume_id || r->count == MOUNTS_MAX ||
        !mounts_is_sluice(mounts_at(&l->table, record->staging)))
        return;
    struct ask *more = realloc(r->asks, (r->count + 1) * sizeof(*more));
    if (!more)
        return;
    r->asks = more;
    more[r->count] = (struct ask){.volume = record->volume_id, .staging = record->staging};
    record->volume_id = record->staging = NULL;
    /* Somebody waits for it already, since an earlier scrape. */
    more[r->count].done = is_waiting(r->scrape, more[r->count].staging);
    r->count++;
}

/* Those who are to be asked first. */
static int compare_asks(const void *a, const void *b)
{
    const struct ask *x = a, *y = b;
    return x->done != y->done ? y->done - x->done : strcmp(x->volume, y->volume);
}

static struct round *round_new(struct scrape *s)
{
    struct round *r = calloc(1, sizeof(*r));
    struct listing listing = {.round = r};
    if (!r || mounts_read(&listing.table) < 0) {
        free(r);
        return NULL;
    }
    r->scrape = s;
    r->refs = 1;
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->changed, NULL);
    records_each(s->state_dir, list_mount, &listing);
    mounts_done(&listing.table);
    if (r->count)
        qsort(r->asks, r->count, sizeof(*r->asks), compare_asks);
    while (r->next < r->count && r->asks[r->next].done)
        r->done = ++r->next;
    return r;
}

/* A thread of its own, which nobody waits for longer than for its answers. */
static bool start_thread(struct round *r)
{
    struct scrape *s = r->scrape;
    pthread_attr_t attr;
    pthread_t thread;
    pthread_mutex_lock(&s->lock);
    bool may = s->threads < ASKING_MAX;
    s->threads += may;
    pthread_mutex_unlock(&s->lock);
    if (!may)
        return false;
    pthread_mutex_lock(&r->lock);
    r->refs++;
    pthread_mutex_unlock(&r->lock);
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, 128 << 10);
    bool started = pthread_create(&thread, &attr, run_asks, r) == 0;
    pthread_attr_destroy(&attr);
    if (started)
        return true;
    round_unref(r);
    pthread_mutex_lock(&s->lock);
    s->threads--;
    pthread_mutex_unlock(&s->lock);
    return false;
}

static void wait_for_answers(struct round *r)
{
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += ANSWER_S;
    pthread_mutex_lock(&r->lock);
    while (r->done < r->count)
        if (pthread_cond_timedwait(&r->changed, &r->lock, &end) == ETIMEDOUT)
            break;
    r->next = r->count; /* nobody begins another one */
    pthread_mutex_unlock(&r->lock);
}

static void put_mounts(struct round *r, struct exposition *e)
{
    bool fits = true;
    struct buf up;
    buf_init(&up, 0);
    buf_printf(&up, "# HELP sluice_csi_mount_up 1: the mount of the volume answers.\n"
                    "# TYPE sluice_csi_mount_up gauge\n");
    pthread_mutex_lock(&r->lock);
    for (unsigned i = 0; i < r->count; i++) {
        const struct ask *a = &r->asks[i];
        cleanup(free_ptr) char *label = exposition_label("volume", a->volume);
        const char *text = json_string_value(json_object_get(a->reply, "text"));
        if (!label)
            continue;
        buf_printf(&up, "sluice_csi_mount_up{%s} %d\n", label, text != NULL);
        if (text && exposition_add(e, text, strlen(text), label) < 0)
            fits = false;
    }
    pthread_mutex_unlock(&r->lock);
    exposition_add(e, (const char *)up.data, up.len, NULL);
    buf_done(&up);
    if (!fits)
        log_warn("too many metrics for one answer: some are left out", "mounts=%u", r->count);
}

static void print(void *arg, struct buf *out)
{
    struct scrape *s = arg;
    struct buf own;
    struct exposition *e = exposition_new(TEXT_MAX);
    struct round *r = e ? round_new(s) : NULL;
    buf_init(&own, 0);
    metrics_print(s->metrics, &own);
    if (e)
        exposition_add(e, (const char *)own.data, own.len, NULL);
    buf_done(&own);
    if (r) {
        unsigned wanted = MIN(r->count - r->next, ASKING_AT_ONCE);
        for (unsigned i = 0; i < wanted && start_thread(r);)
            i++;
        wait_for_answers(r);
        put_mounts(r, e);
        round_unref(r);
    }
    if (e)
        exposition_print(e, out);
    exposition_free(e);
}

int scrape_start(const char *address, const char *state_dir, struct scrape **out,
                 struct error *error)
{
    struct scrape *s = calloc(1, sizeof(*s));
    if (!s || metrics_new(&s->metrics) < 0) {
        free(s);
        return error_set(error, -ENOMEM, "out of memory");
    }
    s->state_dir = state_dir;
    pthread_mutex_init(&s->lock, NULL);
    struct metrics_http_config config = {.address = address, .print = print, .arg = s};
    int r = metrics_http_start(&config, &s->http, error);
    if (r < 0) {
        scrape_stop(s);
        return error_prefix(error, "--metrics-address");
    }
    log_info("metrics served", "address=%s port=%u", address, metrics_http_port(s->http));
    *out = s;
    return 0;
}

void scrape_note_call(struct scrape *s, const char *method, const char *code, uint64_t ms)
{
    char labels[128];
    if (!s)
        return;
    snprintf(labels, sizeof(labels), "method=\"%s\",code=\"%s\"", method, code);
    metric_add(metrics_counter(s->metrics, "sluice_csi_calls_total", labels,
                               "Calls of the CSI specification that ended"),
               1);
    snprintf(labels, sizeof(labels), "method=\"%s\"", method);
    metric_observe_ns(metrics_histogram(s->metrics, "sluice_csi_call_seconds", labels,
                                        "Time from a call's begin to its answer"),
                      ms * NS_PER_MS);
}

void scrape_stop(struct scrape *s)
{
    if (!s)
        return;
    metrics_http_stop(s->http);
    pthread_mutex_lock(&s->lock);
    bool hangs = s->threads > 0;
    pthread_mutex_unlock(&s->lock);
    if (hangs)
        return; /* threads that wait for a mount use it; the process ends anyway */
    metrics_free(s->metrics);
    pthread_mutex_destroy(&s->lock);
    free(s);
}
