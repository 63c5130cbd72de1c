/* sluice bench-store: what a bucket and our client of it can do. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "bench/store.h"
#include "bench_print.h"
#include "cli.h"
#include "mount_options.h"
#include "progress.h"

#define SIZES_MAX 16

struct store_command {
    struct mount_options store; /* must be first: its options are the first ones */
    char *ops, *sizes, *parallel;
    unsigned count;
    uint32_t time_ms;
    uint64_t bytes_max;
    bool no_hedge, no_probe, json, json_lines;
    json_t *rows, *probe;
    atomic_bool *stop;
    bool failed;
    unsigned unanswered; /* rows in a row of which every request failed */
};

/* Conditional writes or copies alone may be what a store lacks. */
#define UNANSWERED_MAX 2
#define AT(field) offsetof(struct store_command, field)

static const struct option_spec own_specs[] = {
    {"ops", 0, OPTION_STRING, AT(ops), "LIST",
     "put,put_new,head,get,copy,list,parts,range,delete: in this order and as often as named "
     "(all). "
     "head, get, copy and delete use what put made, range what parts made"},
    {"sizes", 0, OPTION_STRING, AT(sizes), "LIST", "Bytes of objects and parts (4K,128K,1M,8M)"},
    {"parallel", 0, OPTION_STRING, AT(parallel), "LIST", "Requests at once (1,16)"},
    {"count", 0, OPTION_UINT, AT(count), "N", "Requests of a row, at most (500)", .min = 1,
     .max = 1000000},
    {"time", 0, OPTION_DURATION, AT(time_ms), "TIME", "No row begins a request later (5s)",
     .min = 10},
    {"bytes-max", 0, OPTION_SIZE, AT(bytes_max), "SIZE",
     "Bytes that a row writes, at most, but for one object (512M)", .min = 1},
    {"no-hedge", 0, OPTION_FLAG, AT(no_hedge), NULL, "Never ask a slow GET a second time"},
    {"no-probe", 0, OPTION_FLAG, AT(no_probe), NULL, "Do not look what the bucket supports"},
    {"json", 0, OPTION_FLAG, AT(json), NULL, "One JSON object at the end"},
    {"json-lines", 0, OPTION_FLAG, AT(json_lines), NULL,
     "One JSON object for each row, as it ends"},
};

#define SPECS_MAX 64

static const char doc[] =
    "Measures a bucket without a filesystem: latency and rate of requests by size and number at "
    "once, and what the bucket supports (conditional writes, copies, multipart). Its keys are "
    "below sluice-bench-… in the given prefix and are removed at the end."
    "\vExamples:\n"
    "  sluice bench-store s3://BUCKET/PREFIX\n"
    "  sluice bench-store file:///srv/bucket --sizes 8M --ops parts,range\n"
    "  sluice bench-store s3://BUCKET --json > bucket.json\n\n"
    "CPU is this process's processor time: for each request, and for each GiB of a row with "
    "bytes.\n"
    "Ends with 0, 1 if it or a request failed, 2 for a wrong call.";

/* "4K,128K" → bytes; "1,16" likewise. -EINVAL for anything else. */
static int parse_list(const char *text, uint64_t *out, unsigned *count, uint64_t max)
{
    cleanup(free_ptr) char *copy = strdup(text);
    char *rest = copy;
    *count = 0;
    for (char *item; copy && (item = strsep(&rest, ","));) {
        uint64_t value;
        if (*count == SIZES_MAX || options_parse_size(item, &value) < 0 || value == 0 ||
            value > max)
            return -EINVAL;
        out[(*count)++] = value;
    }
    return *count ? 0 : -EINVAL;
}

static json_t *row_json(const struct store_bench_row *row)
{
    double gib = (double)row->size * (double)row->latency.count / (1u << 30);
    json_t *out = json_pack(
        "{s:s, s:I, s:i, s:i, s:i, s:f, s:f, s:f, s:f, s:f, s:o}", "op", store_bench_name(row->op),
        "bytes", (json_int_t)row->size, "parallel", (int)row->parallel, "requests",
        (int)row->requests, "failed", (int)row->failed, "seconds", row->seconds, "per_second",
        row->seconds > 0 ? (double)row->latency.count / row->seconds : 0, "mib_per_second",
        row->seconds > 0 ? gib * 1024 / row->seconds : 0, "cpu_us",
        row->requests ? row->cpu_s * 1e6 / row->requests : 0, "cpu_s_gib",
        gib > 0 ? row->cpu_s / gib : 0, "latency", bench_print_latency(&row->latency));
    if (row->failed)
        json_object_set_new(out, "error", json_string(error_text(&row->error)));
    return out;
}

static void print_row(const struct store_bench_row *row)
{
    char size[32], rate[32], mean[24], middle[24], high[24], cpu[24];
    double gib = (double)row->size * (double)row->latency.count / (1u << 30);
    printf("%-9s %10s %5u ", store_bench_name(row->op),
           row->size ? progress_bytes(row->size, size) : "", row->parallel);
    if (row->failed) {
        printf("%u of %u FAILED: %s\n", row->failed, row->requests, error_text(&row->error));
        return;
    }
    printf("%10s %9.1f %10s %10s %10s", bench_print_count(row->requests / row->seconds, rate),
           gib * 1024 / row->seconds, bench_print_time(histogram_mean_ns(&row->latency), mean),
           bench_print_time((double)histogram_percentile(&row->latency, 50), middle),
           bench_print_time((double)histogram_percentile(&row->latency, 99), high));
    printf(" %10s", bench_print_time(row->cpu_s * 1e9 / row->requests, cpu));
    if (gib > 0.01)
        printf(" %6.2f s", row->cpu_s / gib);
    putchar('\n');
    fflush(stdout);
}

static void take_row(struct store_command *command, const struct store_bench_row *row)
{
    command->failed |= row->failed > 0;
    if (!command->json && !command->json_lines) {
        print_row(row);
        return;
    }
    bench_print_row(command->rows, row_json(row), command->json_lines);
}

static int run_one(struct store_command *command, struct store_bench *bench, enum store_bench_op op,
                   uint64_t size, unsigned parallel, struct error *error)
{
    uint64_t of_bytes = MAX(command->bytes_max / size, 1u);
    unsigned count = (unsigned)MIN((uint64_t)command->count, of_bytes);
    if (op == STORE_BENCH_PARTS || op == STORE_BENCH_RANGE)
        count = MIN(count, 10000u);
    cleanup(free_ptr) struct store_bench_row *rows = calloc(2, sizeof(*rows));
    if (!rows)
        return error_set(error, -ENOMEM, "no memory");
    int r = store_bench_run(bench, op, size, count, parallel, command->time_ms, rows, error);
    if (atomic_load(command->stop))
        return error_set(error, -ECANCELED, "interrupted");
    if (r < 0)
        return r;
    take_row(command, &rows[0]);
    if (rows[1].requests)
        take_row(command, &rows[1]);
    bool none = rows[0].requests && rows[0].failed == rows[0].requests;
    command->unanswered = none ? command->unanswered + 1 : 0;
    if (command->unanswered >= UNANSWERED_MAX)
        return error_set(error, -EIO, "all requests of %d rows failed, the last one so: %s",
                         UNANSWERED_MAX, error_text(&rows[0].error));
    return 0;
}

/* The rows for one size: those of objects, and from 5 MiB on those of parts. */
static int run_size(struct store_command *command, struct store_bench *bench, uint64_t size,
                    const uint64_t *parallel, unsigned parallel_count, struct error *error)
{
    static const char all[] = "put,put_new,head,get,copy,list,parts,range,delete";
    cleanup(free_ptr) char *ops = strdup(command->ops ? command->ops : all);
    int r = ops ? 0 : -ENOMEM;
    for (unsigned p = 0; r == 0 && p < parallel_count; p++) {
        cleanup(free_ptr) char *copy = strdup(ops);
        char *rest = copy;
        for (char *name; r == 0 && copy && (name = strsep(&rest, ","));) {
            int op = store_bench_find(name);
            bool parts = op == STORE_BENCH_PARTS || op == STORE_BENCH_RANGE;
            /* S3 refuses an upload of smaller parts at its end. */
            if (parts && !command->ops && size < 5u << 20)
                continue;
            r = run_one(command, bench, (enum store_bench_op)op, size, (unsigned)parallel[p],
                        error);
        }
    }
    return r;
}

static void take_finding(void *arg, const char *what, bool good, const char *text)
{
    struct store_command *command = arg;
    if (command->probe)
        json_array_append_new(
            command->probe, json_pack("{s:s, s:b, s:s}", "what", what, "good", good, "text", text));
    else
        printf("%-4s %-24s %s\n", good ? "ok" : "note", what, text);
}

static int check_ops(const char *ops, struct error *error)
{
    cleanup(free_ptr) char *copy = ops ? strdup(ops) : NULL;
    char *rest = copy;
    for (char *name; copy && (name = strsep(&rest, ","));) {
        int op = store_bench_find(name);
        if (op < 0 || op == STORE_BENCH_COMPLETE)
            return error_set(error, -EINVAL, "--ops: there is no '%s'", name);
    }
    return 0;
}

/* What is asked for, before the bucket is opened: a directory would be made. */
struct plan {
    uint64_t sizes[SIZES_MAX], parallel[SIZES_MAX];
    unsigned size_count, parallel_count;
};

static int make_plan(const struct store_command *command, struct plan *plan, struct error *error)
{
    if (parse_list(command->sizes ? command->sizes : "4K,128K,1M,8M", plan->sizes,
                   &plan->size_count, 1ull << 30) < 0)
        return error_set(error, -EINVAL, "--sizes %s: give sizes up to 1G, as in 4K,1M",
                         command->sizes);
    if (parse_list(command->parallel ? command->parallel : "1,16", plan->parallel,
                   &plan->parallel_count, 1024) < 0)
        return error_set(error, -EINVAL, "--parallel %s: give numbers up to 1024, as in 1,16",
                         command->parallel);
    return check_ops(command->ops, error);
}

static int run_all(struct store_command *command, const struct plan *plan, struct store *store,
                   const char *prefix, struct error *error)
{
    struct store_bench *bench = NULL;
    bool people = !command->json && !command->json_lines;
    int r = command->no_probe || command->json_lines
                ? 0
                : store_probe(store, prefix, take_finding, command, error);
    if (r < 0)
        return r;
    if (people)
        printf("%s%-9s %10s %5s %10s %9s %10s %10s %10s %10s %8s\n", command->no_probe ? "" : "\n",
               "request", "size", "wide", "per s", "MiB/s", "mean", "median", "99 %", "CPU each",
               "CPU/GiB");
    r = store_bench_new(store, prefix, command->stop, &bench);
    for (unsigned s = 0; r == 0 && s < plan->size_count; s++)
        r = run_size(command, bench, plan->sizes[s], plan->parallel, plan->parallel_count, error);
    unsigned left = store_bench_done(bench);
    if (left)
        fprintf(stderr,
                "sluice bench-store: %u objects could not be removed: %s/%ssluice-bench-*\n", left,
                store_name(store), prefix);
    return r;
}

static int run(struct store_command *command, const char *text)
{
    struct store_url url = {0};
    struct error error = {0};
    struct store_options options;
    struct loop *loop = NULL;
    struct store *store = NULL;
    struct plan plan;
    mount_options_store(&command->store, &options);
    if (command->no_hedge)
        options.hedge_after_ms = UINT32_MAX;
    if (store_url_parse(text, &url, &error) < 0 || make_plan(command, &plan, &error) < 0) {
        store_url_done(&url);
        cli_fail("bench-store", &error);
        return 2;
    }
    command->stop = bench_print_stop_signals();
    command->rows = json_array();
    if (command->json)
        command->probe = json_array();
    log_set_level(LOG_ERROR); /* a request that failed is in the report */
    int r = loop_new(&loop, "store");
    if (r < 0)
        error_set(&error, r, "event loop: %s", strerror(-r));
    if (r == 0)
        r = store_open(&url, &options, loop, NULL, &store, &error);
    if (r == 0)
        r = run_all(command, &plan, store, url.prefix, &error);
    if (r == 0 && command->json) {
        json_t *all =
            json_pack("{s:s, s:s, s:O, s:O}", "schema", "sluice-bench-store/1", "store",
                      store_name(store), "supports", command->probe, "rows", command->rows);
        json_dumpf(all, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
        putchar('\n');
        json_decref(all);
    }
    store_free(store);
    loop_free(loop);
    store_url_done(&url);
    json_decref(command->rows);
    json_decref(command->probe);
    if (r == -EINVAL) {
        cli_fail("bench-store", &error);
        return 2;
    }
    return r < 0 ? cli_fail("bench-store", &error) : command->failed;
}

int cli_bench_store(int argc, char **argv)
{
    struct option_spec specs[SPECS_MAX];
    size_t count = store_option_set.count;
    memcpy(specs, store_option_set.specs, count * sizeof(specs[0]));
    memcpy(specs + count, own_specs, sizeof(own_specs));
    struct option_set set = {
        .specs = specs,
        .count = count + ARRAY_LEN(own_specs),
        .groups = store_option_set.groups,
        .usage = "URL",
        .doc = doc,
        .args_min = 1,
        .args_max = 1,
        .reads_config = true,
    };
    struct store_command command = {.count = 500, .time_ms = 5000, .bytes_max = 512ull << 20};
    struct option_result result;
    mount_options_init(&command.store);
    int r = options_parse(&set, "sluice bench-store", argc, argv, &command, &result);
    r = r ? r - 1 : run(&command, result.args[0]);
    options_free(&set, &command);
    return r;
}
