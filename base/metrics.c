#include "base/metrics.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

enum kind { COUNTER, GAUGE, HISTOGRAM, CALLBACK };

#define BUCKETS                                                                                    \
    27 /* upper bounds 1 µs << i; the last is 67 s; what is above counts in +Inf only             \
        */

struct histogram {
    _Atomic uint64_t bucket[BUCKETS]; /* not cumulative here */
    _Atomic uint64_t sum_ns;
};

/* All but the numbers is immutable once the metric is in its registry. Numbers are relaxed
 * everywhere: each stands for itself, no other memory hangs on it. */
struct metric {
    enum kind kind;
    char *name, *labels, *help;
    int64_t (*read)(void *arg);
    void *arg;
    struct histogram *histogram;
    /* on a line of its own: threads that update neighbours do not disturb each other */
    _Atomic int64_t value __attribute__((aligned(64)));
};

struct metrics {
    pthread_mutex_t lock;
    /* under lock; sorted by name, then labels */
    struct metric **sorted;
    size_t len, cap;
};

int metrics_new(struct metrics **out)
{
    struct metrics *m = calloc(1, sizeof(*m));
    if (!m)
        return -ENOMEM;
    pthread_mutex_init(&m->lock, NULL);
    *out = m;
    return 0;
}

static void metric_free(struct metric *metric)
{
    if (!metric)
        return;
    free(metric->name);
    free(metric->labels);
    free(metric->help);
    free(metric->histogram);
    free(metric);
}

void metrics_free(struct metrics *m)
{
    if (!m)
        return;
    for (size_t i = 0; i < m->len; i++)
        metric_free(m->sorted[i]);
    free(m->sorted);
    pthread_mutex_destroy(&m->lock);
    free(m);
}

static int compare(const struct metric *metric, const char *name, const char *labels)
{
    int c = strcmp(metric->name, name);
    return c ? c : strcmp(metric->labels, labels);
}

/* The index of the first that is not before (name, labels). */
static size_t find_locked(const struct metrics *m, const char *name, const char *labels)
{
    size_t low = 0;
    size_t high = m->len;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare(m->sorted[middle], name, labels) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct metric *metric_new(const struct metric *like)
{
    struct metric *metric = aligned_alloc(_Alignof(struct metric), sizeof(*metric));
    if (!metric)
        return NULL;
    memset(metric, 0, sizeof(*metric));
    metric->kind = like->kind;
    metric->read = like->read;
    metric->arg = like->arg;
    metric->name = strdup(like->name);
    metric->labels = strdup(like->labels);
    metric->help = strdup(like->help);
    bool ok = metric->name && metric->labels && metric->help;
    if (like->kind == HISTOGRAM) {
        metric->histogram = calloc(1, sizeof(*metric->histogram));
        ok = ok && metric->histogram;
    }
    if (!ok) {
        metric_free(metric);
        return NULL;
    }
    return metric;
}

static struct metric *insert_locked(struct metrics *m, size_t at, const struct metric *like)
{
    if (m->len == m->cap) {
        size_t cap = m->cap ? 2 * m->cap : 64;
        struct metric **sorted = realloc(m->sorted, cap * sizeof(*sorted));
        if (!sorted)
            return NULL;
        m->sorted = sorted;
        m->cap = cap;
    }
    struct metric *metric = metric_new(like);
    if (!metric)
        return NULL;
    memmove(m->sorted + at + 1, m->sorted + at, (m->len - at) * sizeof(*m->sorted));
    m->sorted[at] = metric;
    m->len++;
    return metric;
}

static struct metric *find_or_add(struct metrics *m, const struct metric *like)
{
    if (!m)
        return NULL;
    pthread_mutex_lock(&m->lock);
    size_t at = find_locked(m, like->name, like->labels);
    struct metric *metric;
    if (at < m->len && compare(m->sorted[at], like->name, like->labels) == 0)
        metric = m->sorted[at];
    else
        metric = insert_locked(m, at, like);
    pthread_mutex_unlock(&m->lock);
    assert(!metric || metric->kind == like->kind);
    return metric;
}

struct metric *metrics_counter(struct metrics *m, const char *name, const char *labels,
                               const char *help)
{
    return find_or_add(m, &(struct metric){.kind = COUNTER,
                                           .name = (char *)name,
                                           .labels = (char *)labels,
                                           .help = (char *)help});
}

struct metric *metrics_gauge(struct metrics *m, const char *name, const char *labels,
                             const char *help)
{
    return find_or_add(m, &(struct metric){.kind = GAUGE,
                                           .name = (char *)name,
                                           .labels = (char *)labels,
                                           .help = (char *)help});
}

struct metric *metrics_histogram(struct metrics *m, const char *name, const char *labels,
                                 const char *help)
{
    return find_or_add(m, &(struct metric){.kind = HISTOGRAM,
                                           .name = (char *)name,
                                           .labels = (char *)labels,
                                           .help = (char *)help});
}

void metrics_callback(struct metrics *m, const char *name, const char *labels, const char *help,
                      int64_t (*read)(void *arg), void *arg)
{
    find_or_add(m, &(struct metric){.kind = CALLBACK,
                                    .name = (char *)name,
                                    .labels = (char *)labels,
                                    .help = (char *)help,
                                    .read = read,
                                    .arg = arg});
}

void metric_add(struct metric *c, uint64_t n)
{
    if (c)
        atomic_fetch_add_explicit(&c->value, (int64_t)n, memory_order_relaxed);
}

void metric_set(struct metric *g, int64_t v)
{
    if (g)
        atomic_store_explicit(&g->value, v, memory_order_relaxed);
}

void metric_move(struct metric *g, int64_t delta)
{
    if (g)
        atomic_fetch_add_explicit(&g->value, delta, memory_order_relaxed);
}

/* The first i with ns <= 1 µs << i; BUCKETS if there is none. */
static unsigned bucket_of(uint64_t ns)
{
    uint64_t us = ns / 1000 + (ns % 1000 != 0);
    if (us <= 1)
        return 0;
    unsigned i = 64 - (unsigned)__builtin_clzll(us - 1);
    return i < BUCKETS ? i : BUCKETS;
}

void metric_observe_ns(struct metric *h, uint64_t ns)
{
    if (!h)
        return;
    unsigned i = bucket_of(ns);
    if (i < BUCKETS)
        atomic_fetch_add_explicit(&h->histogram->bucket[i], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&h->histogram->sum_ns, ns, memory_order_relaxed);
    atomic_fetch_add_explicit(&h->value, 1, memory_order_relaxed);
}

int64_t metric_value(const struct metric *m)
{
    if (!m)
        return 0;
    if (m->kind == CALLBACK)
        return m->read(m->arg);
    return atomic_load_explicit(&m->value, memory_order_relaxed);
}

static void print_family(const struct metric *metric, struct buf *out)
{
    static const char *const types[] = {"counter", "gauge", "histogram", "gauge"};
    buf_printf(out, "# HELP %s ", metric->name);
    for (const char *p = metric->help; *p; p++) {
        if (*p == '\\' || *p == '\n')
            buf_put_u8(out, '\\');
        buf_put_u8(out, (uint8_t)(*p == '\n' ? 'n' : *p));
    }
    buf_printf(out, "\n# TYPE %s %s\n", metric->name, types[metric->kind]);
}

static void print_histogram(const struct metric *metric, struct buf *out)
{
    const char *labels = metric->labels;
    const char *comma = *labels ? "," : "";
    uint64_t total = (uint64_t)metric_value(metric);
    uint64_t below = 0;
    for (unsigned i = 0; i < BUCKETS; i++) {
        below += atomic_load_explicit(&metric->histogram->bucket[i], memory_order_relaxed);
        uint64_t us = 1ull << i;
        buf_printf(out, "%s_bucket{%s%sle=\"%llu.%06llu\"} %llu\n", metric->name, labels, comma,
                   (unsigned long long)(us / 1000000), (unsigned long long)(us % 1000000),
                   (unsigned long long)below);
    }
    /* An observation between the two reads must not make the last bucket the smaller one. */
    if (total < below)
        total = below;
    uint64_t sum = atomic_load_explicit(&metric->histogram->sum_ns, memory_order_relaxed);
    const char *open = *labels ? "{" : "";
    const char *close = *labels ? "}" : "";
    buf_printf(out, "%s_bucket{%s%sle=\"+Inf\"} %llu\n", metric->name, labels, comma,
               (unsigned long long)total);
    buf_printf(out, "%s_sum%s%s%s %llu.%09llu\n", metric->name, open, labels, close,
               (unsigned long long)(sum / NS_PER_S), (unsigned long long)(sum % NS_PER_S));
    buf_printf(out, "%s_count%s%s%s %llu\n", metric->name, open, labels, close,
               (unsigned long long)total);
}

static void print_metric(const struct metric *metric, struct buf *out)
{
    if (metric->kind == HISTOGRAM)
        print_histogram(metric, out);
    else if (*metric->labels)
        buf_printf(out, "%s{%s} %lld\n", metric->name, metric->labels,
                   (long long)metric_value(metric));
    else
        buf_printf(out, "%s %lld\n", metric->name, (long long)metric_value(metric));
}

/* A copy of the table: metrics live as long as the registry, and no lock is held while callbacks
 * run. NULL if there are none or no memory. free(). */
static struct metric **snapshot(struct metrics *m, size_t *len)
{
    pthread_mutex_lock(&m->lock);
    struct metric **copy = m->len ? malloc(m->len * sizeof(struct metric *)) : NULL;
    *len = copy ? m->len : 0;
    if (copy)
        memcpy(copy, m->sorted, m->len * sizeof(struct metric *));
    pthread_mutex_unlock(&m->lock);
    return copy;
}

void metrics_print(struct metrics *m, struct buf *out)
{
    if (!m)
        return;
    size_t len;
    struct metric **all = snapshot(m, &len);
    for (size_t i = 0; i < len; i++) {
        if (i == 0 || strcmp(all[i - 1]->name, all[i]->name) != 0)
            print_family(all[i], out);
        print_metric(all[i], out);
    }
    free(all);
}

int64_t metrics_sum(struct metrics *m, const char *name)
{
    if (!m)
        return 0;
    size_t len;
    struct metric **all = snapshot(m, &len);
    int64_t sum = 0;
    for (size_t i = 0; i < len; i++) {
        if (!strcmp(all[i]->name, name))
            sum += metric_value(all[i]);
    }
    free(all);
    return sum;
}
