/* sluice bench: measures any directory. */
#include "bench/bench.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "bench_print.h"
#include "cli.h"
#include "options.h"
#include "progress.h"

struct bench_command {
    char *only, *threads, *directories;
    unsigned files, rounds;
    uint64_t size;
    uint32_t time_ms;
    bool drop_caches, json, json_lines, list;
    bool failed; /* a row, for another reason than that the filesystem lacks a call */
    const struct bench_options *head; /* is still to be printed: rows of these options follow */
    json_t *rows;
    struct progress progress;
    char what[64];
};

#define AT(field) offsetof(struct bench_command, field)

static const struct option_spec specs[] = {
    {"only", 0, OPTION_STRING, AT(only), "NAMES",
     "Groups and rows, separated by commas (all; --list shows them)"},
    {"threads", 't', OPTION_STRING, AT(threads), "LIST",
     "Each row runs with each of these numbers of threads (1,4)"},
    {"rounds", 'r', OPTION_UINT, AT(rounds), "N",
     "Times that it goes over all rows; fewer than 5 say little of the next run (5)", .min = 1,
     .max = SPREAD_VALUES_MAX},
    {"files", 'n', OPTION_UINT, AT(files), "N", "Files of each thread, at most (2000)", .min = 1,
     .max = 10000000},
    {"size", 's', OPTION_SIZE, AT(size), "SIZE", "Bytes of the large files of a row (1G)",
     .min = 1 << 20},
    {"time", 0, OPTION_DURATION, AT(time_ms), "TIME",
     "Of a row, all rounds together: it begins no operation later (10s)", .min = 10},
    {"directories", 0, OPTION_CHOICE, AT(directories), "KIND",
     "Where threads make files: private (each in its own), shared (all in one), both",
     .choices = "private|shared|both"},
    {"drop-caches", 0, OPTION_FLAG, AT(drop_caches), NULL,
     "Before a cold row drop the caches of the whole kernel (root), not only the file's pages"},
    {"json", 0, OPTION_FLAG, AT(json), NULL, "One JSON object at the end"},
    {"json-lines", 0, OPTION_FLAG, AT(json_lines), NULL,
     "One JSON object for each row, as it ends"},
    {"list", 0, OPTION_FLAG, AT(list), NULL, "Show the groups and rows, and do nothing"},
};

static const struct option_set bench_option_set = {
    .specs = specs,
    .count = ARRAY_LEN(specs),
    .usage = "[DIRECTORY]",
    .doc =
        "Measures a directory of any filesystem: names, small files, large files, a tree of files. "
        "Works in one new directory below it, which it removes at the end, also after Ctrl-C. It "
        "goes over all rows several times. A rate is the median of these rounds, and beside it is "
        "how far from it the next run's may be: if another run differs by less than both say, it "
        "is no difference."
        "\vExamples:\n"
        "  sluice bench /mnt\n"
        "  sluice bench --only metadata,small --threads 1,8,16 /mnt\n"
        "  sluice bench --only data --size 8G --drop-caches --json /mnt > mnt.json\n\n"
        "Read \"first time\" as: without the kernel's pages of that file. What the filesystem "
        "itself keeps (on a local disk, in memory) it keeps; remount it to be rid of that.\n"
        "Ends with 0, 1 if it or a row failed, 2 for a wrong call.",
    .args_min = 0,
    .args_max = 1,
};

static void print_name(void *arg, const char *group, const char *name, const char *title)
{
    (void)arg;
    printf("%-9s %-22s %s\n", group, name, title);
}

static int parse_threads(const char *text, struct bench_options *options)
{
    unsigned count = 0;
    for (const char *at = text; *at;) {
        char *end = NULL;
        unsigned long n = strtoul(at, &end, 10);
        if (end == at || (*end && *end != ',') || n == 0 || n > BENCH_THREADS_MAX ||
            count == BENCH_THREAD_COUNTS_MAX)
            return -EINVAL;
        options->threads[count++] = (unsigned)n;
        at = *end ? end + 1 : end;
    }
    if (count == 0)
        return -EINVAL;
    if (count < BENCH_THREAD_COUNTS_MAX)
        options->threads[count] = 0;
    return 0;
}

static void print_head(const struct bench_options *options)
{
    char size[32];
    printf("%s: %u round%s of %u files a thread, %s of large files, at most %g s a row\n",
           options->path, options->rounds, options->rounds > 1 ? "s" : "", options->files,
           progress_bytes(options->size, size), options->time_ms / 1000.0);
    if (options->rounds > 1)
        printf("(rows are shown when the last round has come to them)\n");
    printf("\n%-46s %-9s %10s %-5s %7s %10s %10s %10s %10s\n", "what", "threads", "rate", "",
           options->rounds > 1 ? "next" : "", "mean", "median", "99 %", "longest");
    fflush(stdout);
}

static void row_began(void *arg, const struct bench_row *row)
{
    struct bench_command *command = arg;
    if (command->head)
        print_head(command->head);
    command->head = NULL;
    snprintf(command->what, sizeof(command->what), "%u of %u: %s, %u thread%s", row->rounds + 1,
             command->rounds, row->name, row->threads, row->threads > 1 ? "s" : "");
    progress_init(&command->progress, command->what, false);
}

static void row_progress(void *arg, const struct bench_row *row, uint64_t done, uint64_t total)
{
    struct bench_command *command = arg;
    (void)row;
    progress_show(&command->progress, total - MIN(done, total));
}

static json_t *row_json(const struct bench_row *row)
{
    json_t *out = json_pack("{s:s, s:s, s:s, s:i, s:s, s:I, s:I, s:f, s:o}", "row", row->name,
                            "group", row->group, "title", row->title, "threads", (int)row->threads,
                            "directories", row->shared ? "shared" : "private", "operations",
                            (json_int_t)row->operations, "bytes", (json_int_t)row->bytes, "seconds",
                            row->seconds, "latency", bench_print_latency(&row->latency));
    json_object_set_new(out, "unit", json_string(row->per_byte ? "bytes/s" : "operations/s"));
    json_t *rates = json_array();
    for (unsigned i = 0; i < row->rounds; i++)
        json_array_append_new(rates, json_real(row->rates[i]));
    json_object_set_new(out, "rates", rates);
    if (row->rate.high > 0)
        json_object_set_new(out, "next_run", json_pack("[f, f]", row->rate.low, row->rate.high));
    if (row->operations > 0) {
        double of_each = (double)row->bytes / (double)row->operations;
        double per_second = row->per_byte ? row->rate.median / of_each : row->rate.median;
        json_object_set_new(out, "per_second", json_real(per_second));
        json_object_set_new(out, "mib_per_second", json_real(per_second * of_each / (1 << 20)));
    }
    if (row->result < 0)
        json_object_set_new(out, "error",
                            json_sprintf("%s: %s", row->failure, strerror(-row->result)));
    return out;
}

/* "±7 %": where the next run's rate may be. Empty if there were too few rounds to know. */
static const char *spread_text(const struct spread *rate, char room[16])
{
    room[0] = 0;
    if (rate->high > 0 && rate->median > 0) {
        double percent = (rate->high / rate->median - 1) * 100;
        snprintf(room, 16, percent < 99.5 ? "±%.0f %%" : ">±99 %%", percent);
    }
    return room;
}

static void print_row(const struct bench_row *row)
{
    char rate[32], around[16], mean[24], middle[24], high[24], max[24], threads[24];
    snprintf(threads, sizeof(threads), "%u%s", row->threads, row->shared ? " shared" : "");
    printf("%-46s %-9s ", row->title, threads);
    if (row->result == -EOPNOTSUPP) {
        printf("this filesystem has no such call\n");
    } else if (row->result < 0) {
        printf("FAILED: %s: %s\n", row->failure, strerror(-row->result));
    } else if (row->operations == 0) {
        printf("nothing to do: a row before made nothing\n");
    } else {
        spread_text(&row->rate, around);
        printf("%10s %-5s %*s %10s %10s %10s %10s\n",
               bench_print_count(row->rate.median / (row->per_byte ? 1 << 20 : 1), rate),
               row->per_byte ? "MiB/s" : "/s", 7 + (around[0] != 0), around,
               bench_print_time(histogram_mean_ns(&row->latency), mean),
               bench_print_time((double)histogram_percentile(&row->latency, 50), middle),
               bench_print_time((double)histogram_percentile(&row->latency, 99), high),
               bench_print_time((double)row->latency.max_ns, max));
    }
    fflush(stdout);
}

static void row_ended(void *arg, const struct bench_row *row)
{
    struct bench_command *command = arg;
    progress_end(&command->progress);
    command->failed |= row->result < 0 && row->result != -EOPNOTSUPP;
    if (!command->json && !command->json_lines) {
        print_row(row);
        return;
    }
    bench_print_row(command->rows, row_json(row), command->json_lines);
}

/* Whoever was killed could not remove its directory, and nobody else may know that it is of no
 * use any more. */
static void note_leftovers(const char *path)
{
    DIR *dir = opendir(path);
    for (struct dirent *entry; dir && (entry = readdir(dir));)
        if (strncmp(entry->d_name, "sluice-bench.", 13) == 0)
            fprintf(stderr,
                    "note: %s/%s is of a run that is not over, or was killed; then remove it\n",
                    path, entry->d_name);
    if (dir)
        closedir(dir);
}

static int run(struct bench_command *command, const char *path)
{
    struct bench_options options;
    struct error error = {0};
    bench_options_init(&options);
    if (command->threads && parse_threads(command->threads, &options) < 0) {
        fprintf(stderr,
                "sluice bench: --threads %s: give at most %d numbers from 1 to %d, as in 1,4\n",
                command->threads, BENCH_THREAD_COUNTS_MAX, BENCH_THREADS_MAX);
        return 2;
    }
    options.path = path;
    options.only = command->only;
    options.rounds = command->rounds;
    options.files = command->files;
    options.size = command->size;
    options.time_ms = command->time_ms;
    options.drop_caches = command->drop_caches;
    options.private_directories =
        !command->directories || strcmp(command->directories, "shared") != 0;
    options.shared_directory =
        !command->directories || strcmp(command->directories, "private") != 0;
    options.stop = bench_print_stop_signals();
    options.began = row_began;
    options.progress = row_progress;
    options.ended = row_ended;
    options.arg = command;
    command->rows = json_array();
    command->head = command->json || command->json_lines ? NULL : &options;
    note_leftovers(path);
    int result = bench_run(&options, &error);
    progress_end(&command->progress);
    if (result == 0 && command->json) {
        json_t *all =
            json_pack("{s:s, s:s, s:i, s:i, s:I, s:O}", "schema", "sluice-bench-path/1", "path",
                      path, "rounds", (int)options.rounds, "files", (int)options.files, "size",
                      (json_int_t)options.size, "rows", command->rows);
        json_dumpf(all, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
        putchar('\n');
        json_decref(all);
    }
    json_decref(command->rows);
    return result < 0 ? cli_fail("bench", &error) : command->failed;
}

int cli_bench(int argc, char **argv)
{
    struct bench_options defaults;
    bench_options_init(&defaults);
    struct bench_command command = {.rounds = defaults.rounds,
                                    .files = defaults.files,
                                    .size = defaults.size,
                                    .time_ms = defaults.time_ms};
    struct option_result result;
    int r = options_parse(&bench_option_set, "sluice bench", argc, argv, &command, &result);
    if (r) {
        r -= 1;
    } else if (command.list) {
        bench_list(print_name, NULL);
    } else if (result.arg_count == 0) {
        fprintf(stderr, "sluice bench: which directory? `sluice bench --help` has examples\n");
        r = 2;
    } else {
        r = run(&command, result.args[0]);
    }
    options_free(&bench_option_set, &command);
    return r;
}
