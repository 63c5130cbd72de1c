#include "bench_print.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

static atomic_bool stop; /* only for the signal handler, which has no argument */

static void on_signal(int number)
{
    (void)number;
    atomic_store_explicit(&stop, true, memory_order_relaxed);
}

atomic_bool *bench_print_stop_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND | SA_RESTART};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    /* Nobody reads any more (`| head`): it ends, and removes what it made. */
    action.sa_flags = SA_RESTART;
    sigaction(SIGPIPE, &action, NULL);
    return &stop;
}

void bench_print_row(json_t *rows, json_t *row, bool lines)
{
    if (lines) {
        json_dumpf(row, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
        putchar('\n');
        fflush(stdout);
    }
    json_array_append_new(rows, row);
}

json_t *bench_print_latency(const struct histogram *h)
{
    return json_pack(
        "{s:I, s:f, s:f, s:f, s:f, s:f, s:f}", "count", (json_int_t)h->count, "mean_us",
        histogram_mean_ns(h) / 1e3, "p50_us", (double)histogram_percentile(h, 50) / 1e3, "p95_us",
        (double)histogram_percentile(h, 95) / 1e3, "p99_us",
        (double)histogram_percentile(h, 99) / 1e3, "p999_us",
        (double)histogram_percentile(h, 99.9) / 1e3, "max_us", (double)h->max_ns / 1e3);
}

const char *bench_print_time(double ns, char *room)
{
    if (ns < 1e6)
        snprintf(room, 24, "%.1f us", ns / 1e3);
    else if (ns < 1e9)
        snprintf(room, 24, "%.2f ms", ns / 1e6);
    else
        snprintf(room, 24, "%.2f s", ns / 1e9);
    return room;
}

const char *bench_print_count(double value, char *room)
{
    char digits[32];
    if (value < 100) {
        snprintf(room, 32, "%.1f", value);
        return room;
    }
    snprintf(digits, sizeof(digits), "%.0f", value);
    size_t len = strlen(digits), at = 0;
    for (size_t i = 0; i < len && at + 2 < 32; i++) {
        if (i && (len - i) % 3 == 0)
            room[at++] = ',';
        room[at++] = digits[i];
    }
    room[at] = 0;
    return room;
}
