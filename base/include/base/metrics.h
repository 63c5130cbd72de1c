/*
 * Counters, gauges and histograms, and their text in the Prometheus exposition format 0.0.4.
 *
 * A registry owns its metrics; a metric is found or made by name and labels at set-up time (takes a
 * lock), then updated lock-free by any thread. Names follow Prometheus:
 * `sluice_<part>_<what>_<unit>`, counters end in _total.
 */
#ifndef SLUICE_BASE_METRICS_H
#define SLUICE_BASE_METRICS_H

#include <stdint.h>

#include "base/buf.h"

struct metrics;
struct metric;

int metrics_new(struct metrics **out);
void metrics_free(struct metrics *m);

/* `labels`: "op=\"get\",code=\"200\"" or "". The same name and labels give the same metric. NULL
 * only without memory; every update function accepts NULL and then does nothing, and so do these
 * with m == NULL. One name has one kind (asserted). */
struct metric *metrics_counter(struct metrics *m, const char *name, const char *labels,
                               const char *help);
struct metric *metrics_gauge(struct metrics *m, const char *name, const char *labels,
                             const char *help);
/* Seconds, buckets of a factor 2 from 1 µs to 67 s; observe takes nanoseconds. */
struct metric *metrics_histogram(struct metrics *m, const char *name, const char *labels,
                                 const char *help);
/* A gauge whose value is asked for at print time, without locks; `read` must be callable by any
 * thread until metrics_free. With a name and labels that are there already the first one stays. */
void metrics_callback(struct metrics *m, const char *name, const char *labels, const char *help,
                      int64_t (*read)(void *arg), void *arg);

void metric_add(struct metric *c, uint64_t n);
void metric_set(struct metric *g, int64_t v);
void metric_move(struct metric *g, int64_t delta);
void metric_observe_ns(struct metric *h, uint64_t ns);
/* Counter or gauge value; a histogram's count. */
int64_t metric_value(const struct metric *m);

/* All metrics as text, sorted by name. Any thread. */
void metrics_print(struct metrics *m, struct buf *out);
/* Sum over all labels of a counter or gauge; 0 if there is none. For status pages and tests. */
int64_t metrics_sum(struct metrics *m, const char *name);

#endif
