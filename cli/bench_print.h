/* Rows of `sluice bench` and `sluice bench-store` for people and for programs. */
#ifndef SLUICE_CLI_BENCH_PRINT_H
#define SLUICE_CLI_BENCH_PRINT_H

#include <jansson.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "bench/histogram.h"

/* {"count", "mean_us", "p50_us", "p95_us", "p99_us", "p999_us", "max_us"} of it. New. */
json_t *bench_print_latency(const struct histogram *h);
/* "1.23 ms": room has 24 bytes. Returns it. */
const char *bench_print_time(double ns, char *room);
/* "12,345": room has 32 bytes. Returns it. */
const char *bench_print_count(double value, char *room);

/* Appends a row, which it takes, to the array; with `lines` prints it, too, on a line of its own.
 */
void bench_print_row(json_t *rows, json_t *row, bool lines);

/* From now on SIGINT and SIGTERM set this, which stays false before. A second one ends the process
 * as usual. */
atomic_bool *bench_print_stop_signals(void);

#endif
