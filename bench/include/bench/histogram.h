/*
 * Durations in buckets: each power of two is cut into 32, so a percentile is at most 3 % above what
 * was measured. Adding is a few instructions and never allocates. Not for several threads at once:
 * each has its own, and they are merged at the end.
 */
#ifndef SLUICE_BENCH_HISTOGRAM_H
#define SLUICE_BENCH_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_STEPS 32                       /* in each power of two */
#define HISTOGRAM_BUCKETS (HISTOGRAM_STEPS * 38) /* up to 2^42 ns, more than an hour */

struct histogram {
    uint64_t count, sum_ns, min_ns, max_ns; /* min_ns is 0 while count is */
    uint32_t buckets[HISTOGRAM_BUCKETS];
};

void histogram_add(struct histogram *h, uint64_t ns);
void histogram_merge(struct histogram *into, const struct histogram *from);
/* The duration that `percent` (0..100) of the durations do not exceed; 0 if there are none. */
uint64_t histogram_percentile(const struct histogram *h, double percent);
double histogram_mean_ns(const struct histogram *h);

#endif
