#include "bench/histogram.h"

#include "base/cleanup.h"

/* Below HISTOGRAM_STEPS each ns has its bucket; above, the five bits after the leading one. */
static unsigned bucket_of(uint64_t ns)
{
    if (ns < HISTOGRAM_STEPS)
        return (unsigned)ns;
    unsigned power = 63 - (unsigned)__builtin_clzll(ns); /* 5 or more */
    unsigned step = (unsigned)(ns >> (power - 5)) - HISTOGRAM_STEPS;
    return MIN((power - 4) * HISTOGRAM_STEPS + step, HISTOGRAM_BUCKETS - 1u);
}

/* The longest duration that falls into a bucket. */
static uint64_t bucket_end(unsigned bucket)
{
    if (bucket < HISTOGRAM_STEPS)
        return bucket;
    unsigned power = bucket / HISTOGRAM_STEPS + 4;
    uint64_t step = bucket % HISTOGRAM_STEPS;
    return ((HISTOGRAM_STEPS + step + 1) << (power - 5)) - 1;
}

void histogram_add(struct histogram *h, uint64_t ns)
{
    if (h->count == 0 || ns < h->min_ns)
        h->min_ns = ns;
    h->max_ns = MAX(h->max_ns, ns);
    h->count++;
    h->sum_ns += ns;
    h->buckets[bucket_of(ns)]++;
}

void histogram_merge(struct histogram *into, const struct histogram *from)
{
    if (from->count == 0)
        return;
    if (into->count == 0 || from->min_ns < into->min_ns)
        into->min_ns = from->min_ns;
    into->max_ns = MAX(into->max_ns, from->max_ns);
    into->count += from->count;
    into->sum_ns += from->sum_ns;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        into->buckets[i] += from->buckets[i];
}

uint64_t histogram_percentile(const struct histogram *h, double percent)
{
    double wanted = (double)h->count * percent / 100;
    uint64_t seen = 0;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS && h->count; i++) {
        seen += h->buckets[i];
        if (h->buckets[i] && (double)seen >= wanted)
            return MIN(MAX(bucket_end(i), h->min_ns), h->max_ns);
    }
    return h->max_ns;
}

double histogram_mean_ns(const struct histogram *h)
{
    return h->count ? (double)h->sum_ns / (double)h->count : 0;
}
