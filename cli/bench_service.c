/* sluice bench-service: what a metadata service can do, without mounts. */
#include "bench/service.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench_print.h"
#include "cli.h"
#include "options.h"

struct service_command {
    unsigned connections, depth, count;
    uint32_t idle_ms;
    bool json, json_lines;
    json_t *rows;
    bool failed;
    bool headed; /* the line above the rows was printed */
};

#define AT(field) offsetof(struct service_command, field)

static const struct option_spec specs[] = {
    {"connections", 0, OPTION_UINT, AT(connections), "N", "Sessions at once (64)", .min = 1,
     .max = SERVICE_BENCH_CONNECTIONS_MAX},
    {"depth", 0, OPTION_UINT, AT(depth), "N", "Requests in flight on each (16)", .min = 1,
     .max = SERVICE_BENCH_DEPTH_MAX},
    {"count", 0, OPTION_UINT, AT(count), "N", "Operations of each connection in each row (1000)",
     .min = 1, .max = 1000000},
    {"idle", 0, OPTION_DURATION, AT(idle_ms), "TIME",
     "In place of the rows: sessions that do nothing but keep their leases, for so long", .min = 1},
    {"json", 0, OPTION_FLAG, AT(json), NULL, "One JSON object at the end"},
    {"json-lines", 0, OPTION_FLAG, AT(json_lines), NULL,
     "One JSON object for each row, as it ends"},
};

static const struct option_set option_set = {
    .specs = specs,
    .count = sizeof(specs) / sizeof(specs[0]),
    .usage = "URL",
    .doc =
        "Measures a metadata service (`sluice serve`) without mounts: many connections, each with "
        "several requests in flight. Its names are in a new directory sluice-bench.… at the root "
        "of the volume, which is removed at the end and after Ctrl-C."
        "\vExamples:\n"
        "  sluice bench-service sluice://127.0.0.1:7700/logs\n"
        "  sluice bench-service sluice+unix:///run/sluice.sock:logs --depth 1\n"
        "  sluice bench-service sluice://127.0.0.1:7700/logs --idle 60s\n\n"
        "create-shared: all connections in one directory; the others: each in one of its own. "
        "Creates and renames are durable: the answer comes when they are on the disk. CPU is this "
        "process's processor time, told the invalidations that were pushed to it, for each "
        "operation. A token comes from the environment (SLUICE_TOKEN).\n"
        "Ends with 0, 1 if it or an operation failed, 2 for a wrong call.",
    .args_min = 1,
    .args_max = 1,
};

static json_t *row_json(const struct service_bench_row *row)
{
    double count = row->operations ? (double)row->operations : 1;
    json_t *out = json_pack(
        "{s:s, s:i, s:i, s:I, s:I, s:f, s:f, s:f, s:f, s:o}", "op", service_bench_name(row->op),
        "connections", (int)row->connections, "depth", (int)row->depth, "operations",
        (json_int_t)row->operations, "failed", (json_int_t)row->failed, "seconds", row->seconds,
        "per_second", row->seconds > 0 ? (double)row->operations / row->seconds : 0, "cpu_us",
        row->cpu_s * 1e6 / count, "told", (double)row->told / count, "latency",
        bench_print_latency(&row->latency));
    if (row->failed)
        json_object_set_new(out, "error", json_string(strerror(-row->error)));
    return out;
}

static void print_row(const struct service_bench_row *row)
{
    char rate[32], middle[24], high[24], most[24], cpu[24];
    double count = row->operations ? (double)row->operations : 1;
    printf("%-14s %10s %10s %10s %10s %10s %8.1f", service_bench_name(row->op),
           bench_print_count((double)row->operations / row->seconds, rate),
           bench_print_time((double)histogram_percentile(&row->latency, 50), middle),
           bench_print_time((double)histogram_percentile(&row->latency, 99), high),
           bench_print_time((double)row->latency.max_ns, most),
           bench_print_time(row->cpu_s * 1e9 / count, cpu), (double)row->told / count);
    if (row->failed)
        printf("  %ju of %ju FAILED: %s", (uintmax_t)row->failed, (uintmax_t)row->operations,
               strerror(-row->error));
    putchar('\n');
    fflush(stdout);
}

static void row_ended(void *arg, const struct service_bench_row *row)
{
    struct service_command *command = arg;
    command->failed |= row->failed > 0;
    bool people = !command->json && !command->json_lines;
    if (people && !command->headed)
        printf("%-14s %10s %10s %10s %10s %10s %8s\n", "operation", "per s", "median", "99 %",
               "longest", "CPU each", "told");
    command->headed = true;
    if (people)
        print_row(row);
    else
        bench_print_row(command->rows, row_json(row), command->json_lines);
}

static void idle_ready(void *arg)
{
    const struct service_command *command = arg;
    printf("%u sessions are there\n", command->connections);
    fflush(stdout);
}

static int run(struct service_command *command, const char *url)
{
    struct error error = {0};
    struct service_bench_options options = {
        .url = url,
        .token = getenv("SLUICE_TOKEN"),
        .connections = command->connections,
        .depth = command->depth,
        .count = command->count,
        .stop = bench_print_stop_signals(),
        .ended = row_ended,
        .arg = command,
    };
    command->rows = json_array();
    int r = command->idle_ms ? service_bench_idle(&options, command->idle_ms, idle_ready, &error)
                             : service_bench_run(&options, &error);
    if (r == 0 && command->json && !command->idle_ms) {
        json_t *all = json_pack("{s:s, s:s, s:O}", "schema", "sluice-bench-service/1", "url", url,
                                "rows", command->rows);
        json_dumpf(all, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
        putchar('\n');
        json_decref(all);
    }
    json_decref(command->rows);
    if (r == -EINVAL) {
        cli_fail("bench-service", &error);
        return 2;
    }
    return r < 0 ? cli_fail("bench-service", &error) : command->failed;
}

int cli_bench_service(int argc, char **argv)
{
    struct service_command command = {.connections = 64, .depth = 16, .count = 1000};
    struct option_result result;
    int r = options_parse(&option_set, "sluice bench-service", argc, argv, &command, &result);
    if (r > 0)
        return r - 1;
    r = run(&command, result.args[0]);
    options_free(&option_set, &command);
    return r;
}
