/* sluice trace record|replay: a user's own work as a benchmark. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "bench/trace.h"
#include "bench_print.h"
#include "cli.h"
#include "options.h"
#include "progress.h"

struct trace_command {
    char *to;
    char *speed;
    bool json;
    struct progress progress;
};

#define AT(field) offsetof(struct trace_command, field)

static const struct option_spec record_specs[] = {
    {"to", 'o', OPTION_STRING, AT(to), "FILE", "The trace; must not exist (sluice.trace)"},
};

static const struct option_set record_set = {
    .specs = record_specs,
    .count = ARRAY_LEN(record_specs),
    .usage = "DIRECTORY MOUNTPOINT",
    .doc = "Shows DIRECTORY at MOUNTPOINT too, and notes every call of programs that work there, "
           "until "
           "Ctrl-C or until it is unmounted. DIRECTORY may be on any filesystem. Names, sizes and "
           "times "
           "are in the trace, contents are not."
           "\vExample:\n"
           "  sluice trace record /data /mnt/seen --to job.trace      # in one terminal\n"
           "  my-job --input /mnt/seen                                # in another one\n"
           "  sluice trace replay job.trace /mnt/sluice               # later, anywhere",
    .args_min = 2,
    .args_max = 2,
};

static const struct option_spec replay_specs[] = {
    {"speed", 0, OPTION_STRING, AT(speed), "FACTOR",
     "max: each call as soon as those before it are done; 1: at the times of the record; 2: twice "
     "as quick (max)"},
    {"json", 0, OPTION_FLAG, AT(json), NULL, "One JSON object at the end"},
};

static const struct option_set replay_set = {
    .specs = replay_specs,
    .count = ARRAY_LEN(replay_specs),
    .usage = "FILE DIRECTORY",
    .doc =
        "Does the calls of a trace again in a new directory below DIRECTORY, which it removes at "
        "the "
        "end: with as many threads, and each call after those that had ended when it began. What "
        "the trace read it makes before, which is not timed."
        "\vPrints the latencies of the record beside those of the replay. Ends with 0, 1 if it "
        "failed or calls had another outcome than in the record, 2 for a wrong call.",
    .args_min = 2,
    .args_max = 2,
};

static void say_ready(void *arg)
{
    fprintf(stderr, "recording: let programs work below %s; Ctrl-C ends it\n", (const char *)arg);
}

static int record(int argc, char **argv)
{
    struct trace_command command = {0};
    struct option_result result;
    struct error error = {0};
    uint64_t events = 0;
    int r = options_parse(&record_set, "sluice trace record", argc, argv, &command, &result);
    if (r) {
        options_free(&record_set, &command);
        return r - 1;
    }
    const char *file = command.to ? command.to : "sluice.trace";
    int fd = open(file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    FILE *to = fd < 0 ? NULL : fdopen(fd, "w");
    if (!to) {
        r = error_set(&error, -errno, "%s: %s", file, strerror(errno));
    } else {
        r = trace_record(result.args[0], result.args[1], to, say_ready, result.args[1], &events,
                         &error);
        if (fclose(to) != 0 && r == 0)
            r = error_set(&error, -errno, "%s: %s", file, strerror(errno));
        if (r < 0 && events == 0)
            unlink(file);
        else
            fprintf(stderr, "%llu calls in %s\n", (unsigned long long)events, file);
    }
    options_free(&record_set, &command);
    return r < 0 ? cli_fail("trace record", &error) : 0;
}

static void show_progress(void *arg, uint64_t done, uint64_t total)
{
    progress_show(arg, total - done);
}

static void print_table(const struct trace_result *result)
{
    char a[24], b[24], c[24], d[24];
    printf("%-9s %10s %11s %11s %11s %11s %11s\n", "call", "times", "recorded", "replayed",
           "99 % then", "99 % now", "MiB");
    for (unsigned i = 0; i < TRACE_OP_COUNT; i++) {
        const struct histogram *then = &result->ops[i].recorded, *now = &result->ops[i].replayed;
        if (now->count == 0)
            continue;
        printf("%-9s %10llu %11s %11s %11s %11s", trace_op_name((enum trace_op)i),
               (unsigned long long)now->count, bench_print_time(histogram_mean_ns(then), a),
               bench_print_time(histogram_mean_ns(now), b),
               bench_print_time((double)histogram_percentile(then, 99), c),
               bench_print_time((double)histogram_percentile(now, 99), d));
        if (result->ops[i].bytes)
            printf(" %11.1f", (double)result->ops[i].bytes / (1 << 20));
        putchar('\n');
    }
    printf("\nrecorded in %.2f s, replayed in %.2f s, %llu calls", result->recorded_s,
           result->replayed_s, (unsigned long long)result->calls);
    if (result->differing)
        printf("; %llu of them with another outcome than in the record",
               (unsigned long long)result->differing);
    putchar('\n');
}

static void print_json(const struct trace_result *result)
{
    json_t *ops = json_object();
    for (unsigned i = 0; i < TRACE_OP_COUNT; i++)
        if (result->ops[i].replayed.count)
            json_object_set_new(ops, trace_op_name((enum trace_op)i),
                                json_pack("{s:I, s:o, s:o}", "bytes",
                                          (json_int_t)result->ops[i].bytes, "recorded",
                                          bench_print_latency(&result->ops[i].recorded), "replayed",
                                          bench_print_latency(&result->ops[i].replayed)));
    json_t *all = json_pack("{s:s, s:f, s:f, s:I, s:I, s:o}", "schema", "sluice-trace-replay/1",
                            "recorded_s", result->recorded_s, "replayed_s", result->replayed_s,
                            "calls", (json_int_t)result->calls, "differing",
                            (json_int_t)result->differing, "ops", ops);
    json_dumpf(all, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(all);
}

static int parse_speed(const char *text, double *out)
{
    *out = 0;
    if (!text || strcmp(text, "max") == 0)
        return 0;
    char *end = NULL;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= 0.001 && value <= 1e6))
        return -EINVAL;
    *out = value;
    return 0;
}

static int replay(int argc, char **argv)
{
    struct trace_command command = {0};
    struct option_result result;
    struct trace_replay_options options = {.progress = show_progress, .arg = &command.progress};
    struct trace trace;
    struct error error = {0};
    int r = options_parse(&replay_set, "sluice trace replay", argc, argv, &command, &result);
    if (r) {
        options_free(&replay_set, &command);
        return r - 1;
    }
    cleanup(free_ptr) struct trace_result *found = calloc(1, sizeof(*found));
    bool wrong = false;
    if (parse_speed(command.speed, &options.speed) < 0) {
        r = error_set(&error, -EINVAL, "--speed %s: give max, or a factor from 0.001 to 1000000",
                      command.speed);
        wrong = true;
    } else if (!found) {
        r = error_set(&error, -ENOMEM, "no memory");
    } else if ((r = trace_load(result.args[0], &trace, &error)) == 0) {
        options.path = result.args[1];
        options.stop = bench_print_stop_signals();
        progress_init(&command.progress, "replaying", false);
        r = trace_replay(&trace, &options, found, &error);
        progress_end(&command.progress);
        trace_done(&trace);
    }
    if (r == 0 && command.json)
        print_json(found);
    else if (r == 0)
        print_table(found);
    options_free(&replay_set, &command);
    if (r < 0) {
        cli_fail("trace replay", &error);
        return wrong ? 2 : 1;
    }
    return found->differing > 0;
}

int cli_trace(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "record") == 0)
        return record(argc - 1, argv + 1);
    if (argc > 1 && strcmp(argv[1], "replay") == 0)
        return replay(argc - 1, argv + 1);
    bool help = argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0);
    fputs(
        "Usage: sluice trace record DIRECTORY MOUNTPOINT [--to FILE]\n"
        "       sluice trace replay FILE DIRECTORY [--speed FACTOR]\n\n"
        "Records what programs ask of a directory, and does it again in another one, to see how a\n"
        "filesystem does with just that work. `sluice trace record --help` tells more.\n",
        help ? stdout : stderr);
    return help ? 0 : 2;
}
