#include "bench/bench.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "test.h"

#define ROWS_MAX 128

struct seen {
    struct bench_row rows[ROWS_MAX];
    unsigned count;
    atomic_bool *stop; /* set when `stop_at` begins */
    const char *stop_at;
};

static void row_began(void *arg, const struct bench_row *row)
{
    struct seen *seen = arg;
    if (seen->stop_at && strcmp(row->name, seen->stop_at) == 0)
        atomic_store(seen->stop, true);
}

static void row_ended(void *arg, const struct bench_row *row)
{
    struct seen *seen = arg;
    if (seen->count < ROWS_MAX)
        seen->rows[seen->count++] = *row;
}

static void small_options(struct bench_options *options, const char *path, struct seen *seen)
{
    bench_options_init(options);
    options->path = path;
    options->threads[0] = 1;
    options->threads[1] = 3;
    options->rounds = 1;
    options->files = 50;
    options->size = 6 << 20;
    options->time_ms = 60000;
    options->began = row_began;
    options->ended = row_ended;
    options->arg = seen;
}

static const struct bench_row *find(const struct seen *seen, const char *name, unsigned threads,
                                    bool shared)
{
    for (unsigned i = 0; i < seen->count; i++)
        if (strcmp(seen->rows[i].name, name) == 0 && seen->rows[i].threads == threads &&
            seen->rows[i].shared == shared)
            return &seen->rows[i];
    return NULL;
}

static unsigned entries_in(const char *path)
{
    unsigned count = 0;
    DIR *dir = opendir(path);
    check(dir != NULL);
    while (readdir(dir))
        count++;
    closedir(dir);
    return count - 2;
}

static void count_name(void *arg, const char *group, const char *name, const char *title)
{
    check(*group && *name && *title);
    (*(unsigned *)arg)++;
}

TEST(bench_run, every_row_does_its_work_and_nothing_is_left)
{
    static struct seen seen;
    struct bench_options options;
    struct error error = {0};
    char path[4096];
    test_dir_make(path);
    small_options(&options, path, &seen);
    options.only =
        "metadata,small,tree,seq_write,seq_read_cold,seq_read_warm,random_read_128k_cold,"
        "append_fsync,large_unlink";
    check_int(bench_run(&options, &error), 0);
    for (unsigned i = 0; i < seen.count; i++) {
        const struct bench_row *row = &seen.rows[i];
        if (row->result != 0 || row->operations == 0 || row->latency.count != row->operations)
            test_fail("%s, %u threads: result %d, %ju operations", row->name, row->threads,
                      row->result, (uintmax_t)row->operations);
    }
    check_uint(find(&seen, "create", 1, false)->operations, 50);
    check_uint(find(&seen, "create", 3, true)->operations, 150);
    check_uint(find(&seen, "small_replace", 3, false)->operations, 75);
    check_uint(find(&seen, "small_unlink", 3, false)->operations, 75);
    check_uint(find(&seen, "small", 1, false)->bytes, 50 * 4096);
    check_uint(find(&seen, "seq_write", 3, false)->bytes, 6 << 20);
    check_uint(find(&seen, "seq_read_warm", 1, false)->bytes, 6 << 20);
    check_uint(find(&seen, "tree_remove", 1, false)->operations, 50);
    check(find(&seen, "random_write_4k", 1, false) == NULL);
    check_uint(entries_in(path), 0);
    test_dir_remove(path);
}

/* Which row began, one after the other. */
static char order[4096];

static void note_order(void *arg, const struct bench_row *row)
{
    (void)arg;
    size_t len = strlen(order);
    snprintf(order + len, sizeof(order) - len, "%s ", row->name);
}

TEST(bench_run, rounds_go_over_all_rows_and_not_row_after_row)
{
    static struct seen seen;
    struct bench_options options;
    char path[4096];
    test_dir_make(path);
    small_options(&options, path, &seen);
    options.threads[1] = 0;
    options.rounds = 3;
    options.only = "create,unlink";
    options.began = note_order;
    order[0] = 0;
    check_int(bench_run(&options, NULL), 0);
#define ROUND "machine_processor machine_memory machine_calls create unlink "
    check_str(order, ROUND ROUND ROUND);
    check_uint(seen.count, 5);
    const struct bench_row *row = find(&seen, "create", 1, false);
    check_uint(row->rounds, 3);
    check_uint(row->operations, 150);
    check_uint(row->latency.count, 150);
    check(row->rate.low <= row->rate.median && row->rate.median <= row->rate.high);
    check_uint(entries_in(path), 0);
    test_dir_remove(path);
}

static unsigned unlinks;

static void stop_in_second_round(void *arg, const struct bench_row *row)
{
    struct seen *seen = arg;
    if (strcmp(row->name, "unlink") == 0 && ++unlinks == 2)
        atomic_store(seen->stop, true);
}

TEST(bench_run, stop_reports_the_rounds_that_are_over)
{
    static struct seen seen;
    static atomic_bool stop;
    struct bench_options options;
    char path[4096];
    test_dir_make(path);
    small_options(&options, path, &seen);
    options.threads[1] = 0;
    options.rounds = 3;
    options.only = "create,unlink";
    options.began = stop_in_second_round;
    options.stop = seen.stop = &stop;
    unlinks = 0;
    atomic_store(&stop, false);
    check_int(bench_run(&options, NULL), -ECANCELED);
    check_uint(find(&seen, "create", 1, false)->rounds, 2);
    check_uint(find(&seen, "unlink", 1, false)->rounds, 1);
    check_uint(find(&seen, "unlink", 1, false)->operations, 50);
    check_uint(entries_in(path), 0);
    test_dir_remove(path);
}

TEST(bench_run, time_ends_a_row)
{
    static struct seen seen;
    struct bench_options options;
    char path[4096];
    test_dir_make(path);
    small_options(&options, path, &seen);
    options.threads[1] = 0;
    options.files = 10000000; /* would take minutes */
    options.time_ms = 30;
    options.only = "metadata";
    check_int(bench_run(&options, NULL), 0);
    uint64_t made = find(&seen, "create", 1, false)->operations;
    check(made > 0 && made < options.files);
    check(find(&seen, "stat", 1, false)->operations <= made);
    check_uint(entries_in(path), 0);
    test_dir_remove(path);
}

TEST(bench_run, stop_ends_early_and_removes_what_was_made)
{
    static struct seen seen;
    static atomic_bool stop;
    struct bench_options options;
    struct error error = {0};
    char path[4096];
    test_dir_make(path);
    small_options(&options, path, &seen);
    options.stop = seen.stop = &stop;
    seen.stop_at = "rename";
    atomic_store(&stop, false);
    check_int(bench_run(&options, &error), -ECANCELED);
    check(find(&seen, "small", 1, false) == NULL);
    check_uint(entries_in(path), 0);
    test_dir_remove(path);
}

TEST(bench_run, leaves_alone_what_it_did_not_make)
{
    static struct seen seen;
    struct bench_options options;
    struct stat st;
    char path[4096], file[5000];
    test_dir_make(path);
    snprintf(file, sizeof(file), "%s/work0", path);
    check_int(mkdir(file, 0755), 0);
    snprintf(file, sizeof(file), "%s/large0", path);
    check(close(open(file, O_CREAT | O_WRONLY, 0600)) == 0);
    small_options(&options, path, &seen);
    options.only = "small";
    check_int(bench_run(&options, NULL), 0);
    check_int(stat(file, &st), 0);
    check_uint(entries_in(path), 2);
    test_dir_remove(path);
}

TEST(bench_run, refuses_bad_input_before_it_makes_anything)
{
    static struct seen seen;
    struct bench_options options;
    struct error error = {0};
    char path[4096], file[5000];
    test_dir_make(path);
    small_options(&options, path, &seen);
    options.only = "metadata,nonsense";
    check_int(bench_run(&options, &error), -EINVAL);
    check(strstr(error_text(&error), "nonsense") != NULL);
    options.only = NULL;
    options.size = 1ull << 60;
    check_int(bench_run(&options, &error), -ENOSPC);
    options.size = 6 << 20;
    options.threads[0] = 0;
    check_int(bench_run(&options, &error), -EINVAL);
    options.threads[0] = BENCH_THREADS_MAX + 1;
    check_int(bench_run(&options, &error), -EINVAL);
    options.threads[0] = 1;
    snprintf(file, sizeof(file), "%s/nothing", path);
    options.path = file;
    check_int(bench_run(&options, &error), -ENOENT);
    check(close(open(file, O_CREAT | O_WRONLY, 0600)) == 0);
    check_int(bench_run(&options, &error), -ENOTDIR);
    check_uint(entries_in(path), 1);
    check_uint(seen.count, 0);
    test_dir_remove(path);
}

TEST(bench_run, what_is_not_asked_for_is_not_done)
{
    static struct seen seen;
    struct bench_options options;
    char path[4096];
    test_dir_make(path);
    small_options(&options, path, &seen);
    options.threads[1] = 0;
    /* The rows before it would take a minute each, but for the one that makes the file. */
    options.only = "append_fsync,tree_remove";
    check_int(bench_run(&options, NULL), 0);
    check_uint(seen.count, 2);
    check_uint(find(&seen, "append_fsync", 1, false)->operations, 50);
    check_uint(find(&seen, "tree_remove", 1, false)->operations, 50);
    check_uint(entries_in(path), 0);
    test_dir_remove(path);
}

TEST(bench_list, names_are_those_that_only_takes)
{
    unsigned count = 0;
    bench_list(count_name, &count);
    check(count > 20);
}
