/* The driver: rounds, groups, threads, progress, and the removal of what was made. */
#include "bench/bench.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "bench_impl.h"

#define PROGRESS_MS 200
#define MARGIN (64ull << 20) /* bytes that stay free */

/* The machine first: its rows say how far all others may be believed. */
static const struct group_spec *const groups[] = {&bench_machine_group, &bench_meta_group,
                                                  &bench_small_group, &bench_data_group,
                                                  &bench_tree_group};

void bench_options_init(struct bench_options *options)
{
    *options = (struct bench_options){.threads = {1, 4},
                                      .private_directories = true,
                                      .shared_directory = true,
                                      .rounds = 5,
                                      .files = 2000,
                                      .size = 1ull << 30,
                                      .time_ms = 10000};
}

void bench_list(void (*line)(void *arg, const char *group, const char *name, const char *title),
                void *arg)
{
    for (size_t g = 0; g < ARRAY_LEN(groups); g++)
        for (unsigned r = 0; r < groups[g]->row_count; r++)
            line(arg, groups[g]->name, groups[g]->rows[r].name, groups[g]->rows[r].title);
}

uint64_t bench_random(struct worker *w)
{
    /* xorshift64: the same sequence in each run. */
    w->random ^= w->random << 13;
    w->random ^= w->random >> 7;
    w->random ^= w->random << 17;
    return w->random;
}

int bench_remove_tree(int parent, const char *name)
{
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : -errno;
    DIR *dir = fdopendir(fd);
    if (!dir) {
        close(fd);
        return -ENOMEM;
    }
    int result = 0;
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        int r = 0;
        if (unlinkat(fd, entry->d_name, 0) < 0)
            r = errno == EISDIR || errno == EPERM ? bench_remove_tree(fd, entry->d_name) : -errno;
        if (r < 0 && result == 0)
            result = r;
    }
    closedir(dir);
    if (unlinkat(parent, name, AT_REMOVEDIR) < 0 && result == 0)
        result = -errno;
    return result;
}

/* Whether a list of names holds one of them. */
static bool is_wanted(const char *only, const char *group, const char *row)
{
    if (!only)
        return true;
    for (const char *at = only; *at;) {
        size_t len = strcspn(at, ",");
        if ((strlen(group) == len && memcmp(at, group, len) == 0) ||
            (strlen(row) == len && memcmp(at, row, len) == 0))
            return true;
        at += len + (at[len] == ',');
    }
    return false;
}

static bool group_wanted(const struct bench *bench, const struct group_spec *group)
{
    if (group->always && bench->options->rounds > 1)
        return true;
    for (unsigned r = 0; r < group->row_count; r++)
        if (is_wanted(bench->options->only, group->name, group->rows[r].name))
            return true;
    return false;
}

static int check_names(const char *only, struct error *error)
{
    for (const char *at = only; at && *at;) {
        size_t len = strcspn(at, ",");
        bool known = false;
        for (size_t g = 0; g < ARRAY_LEN(groups); g++) {
            known |= strlen(groups[g]->name) == len && memcmp(at, groups[g]->name, len) == 0;
            for (unsigned r = 0; r < groups[g]->row_count; r++) {
                const char *name = groups[g]->rows[r].name;
                known |= strlen(name) == len && memcmp(at, name, len) == 0;
            }
        }
        if (!known)
            return error_set(error, -EINVAL, "there is no row or group '%.*s'; --list shows them",
                             (int)len, at);
        at += len + (at[len] == ',');
    }
    return 0;
}

static bool stopped(const struct bench *bench)
{
    return bench->options->stop && atomic_load_explicit(bench->options->stop, memory_order_relaxed);
}

static void fail(struct worker *w, int result, const char *what)
{
    if (result < 0 && w->result == 0) {
        w->result = result;
        w->failure = what;
    }
}

static void show_progress(const struct bench *bench, const struct bench_row *row,
                          const struct worker *workers)
{
    if (!bench->options->progress || !row->name)
        return;
    uint64_t done = 0, total = 0;
    for (unsigned i = 0; i < bench->threads; i++) {
        done += atomic_load_explicit(&workers[i].done, memory_order_relaxed);
        total += workers[i].limit;
    }
    bench->options->progress(bench->options->arg, row, done, total);
}

static void *run_worker(void *arg)
{
    struct worker *w = arg;
    const struct bench *bench = w->bench;
    const struct row_spec *spec = w->spec;
    if (spec->prepare)
        fail(w, spec->prepare(w), "preparing");
    w->limit = w->result ? 0 : spec->limit ? spec->limit(w) : bench->options->files;
    pthread_barrier_wait(w->start);
    w->began_ns = clock_monotonic_ns();
    uint64_t now = w->began_ns;
    uint64_t until = now + bench->options->time_ms * NS_PER_MS / bench->options->rounds;
    uint64_t i = 0;
    uint64_t look = w->alone ? now + PROGRESS_MS * NS_PER_MS : UINT64_MAX;
    while (i < w->limit && now < until && !stopped(bench)) {
        int result = spec->op(w, i);
        uint64_t end = clock_monotonic_ns();
        if (result < 0) {
            fail(w, result, spec->name);
            break;
        }
        histogram_add(&w->latency, end - now);
        now = end;
        atomic_store_explicit(&w->done, ++i, memory_order_relaxed);
        if (now >= look) {
            look = now + PROGRESS_MS * NS_PER_MS;
            show_progress(bench, w->alone, w);
        }
    }
    if (spec->finish && w->limit && w->result == 0)
        fail(w, spec->finish(w), "fsync");
    w->ended_ns = clock_monotonic_ns();
    if (spec->after)
        fail(w, spec->after(w), "closing");
    return NULL;
}

/* Joins, with a look at how far they are from time to time. */
static void wait_for(const struct bench *bench, const struct bench_row *row, struct worker *workers,
                     unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        for (;;) {
            struct timespec at;
            clock_gettime(CLOCK_REALTIME, &at);
            at.tv_nsec += PROGRESS_MS * (long)NS_PER_MS;
            at.tv_sec += at.tv_nsec / (long)NS_PER_S;
            at.tv_nsec %= (long)NS_PER_S;
            if (pthread_timedjoin_np(workers[i].thread, NULL, &at) != ETIMEDOUT)
                break;
            show_progress(bench, row, workers);
        }
    }
}

/* One round of the row is over. */
static void add_up(struct bench_row *row, const struct worker *workers, unsigned count)
{
    uint64_t began = UINT64_MAX, ended = 0, operations = row->operations, bytes = row->bytes;
    for (unsigned i = 0; i < count; i++) {
        const struct worker *w = &workers[i];
        row->operations += atomic_load(&w->done);
        row->bytes += w->bytes;
        histogram_merge(&row->latency, &w->latency);
        began = MIN(began, w->began_ns);
        ended = MAX(ended, w->ended_ns);
        if (w->result && row->result == 0) {
            row->result = w->result;
            row->failure = w->failure;
        }
    }
    double seconds = (double)(ended - began) / (double)NS_PER_S;
    double done =
        row->per_byte ? (double)(row->bytes - bytes) : (double)(row->operations - operations);
    row->seconds += seconds;
    row->rates[row->rounds++] = seconds > 0 ? done / seconds : 0;
}

/* The accumulator of the row whose turn it is; rows come in the same order in each round. */
static struct bench_row *next_row(struct bench *bench, const struct group_spec *group,
                                  const struct row_spec *spec, bool shared)
{
    if (bench->at == bench->row_count) {
        struct bench_row *row = calloc(1, sizeof(*row));
        struct bench_row **grown =
            row ? realloc(bench->rows, (bench->row_count + 1) * sizeof(struct bench_row *)) : NULL;
        if (!grown) {
            free(row);
            return NULL;
        }
        *row = (struct bench_row){.name = spec->name,
                                  .group = group->name,
                                  .title = spec->title,
                                  .threads = bench->threads,
                                  .shared = shared,
                                  .per_byte = spec->per_byte};
        bench->rows = grown;
        bench->rows[bench->row_count++] = row;
    }
    return bench->rows[bench->at++];
}

/* A row has had its last round. */
static void report(struct bench *bench, struct bench_row *row)
{
    if (row->rounds == 0)
        return;
    if (strcmp(row->group, bench_machine_group.name) == 0)
        bench->machine = MAX(bench->machine, spread_deviation(row->rates, row->rounds));
    row->rate = spread_of(row->rates, row->rounds, bench->machine);
    if (bench->options->ended)
        bench->options->ended(bench->options->arg, row);
}

static int run_row(struct bench *bench, const struct group_spec *group, const struct row_spec *spec,
                   struct worker *workers, bool shared, struct error *error)
{
    const struct bench_options *options = bench->options;
    bool wanted = group->always || is_wanted(options->only, group->name, spec->name);
    if (!wanted && !spec->makes)
        return 0;
    struct bench_row unwanted = {.name = NULL}; /* only makes what others need */
    struct bench_row *row = wanted ? next_row(bench, group, spec, shared) : &unwanted;
    pthread_barrier_t start;
    if (!row)
        return error_set(error, -ENOMEM, "no memory");
    if (wanted && options->began)
        options->began(options->arg, row);
    pthread_barrier_init(&start, NULL, bench->threads);
    for (unsigned i = 0; i < bench->threads; i++) {
        struct worker *w = &workers[i];
        w->spec = spec;
        w->start = &start;
        w->bytes = 0;
        w->result = 0;
        w->failure = NULL;
        atomic_store(&w->done, 0);
        memset(&w->latency, 0, sizeof(w->latency));
        /* One worker needs no thread, and calls of a process with one thread cost less: its file
         * descriptors are not shared. */
        w->alone = bench->threads == 1 ? row : NULL;
        if (w->alone)
            run_worker(w);
        else if (pthread_create(&w->thread, NULL, run_worker, w) != 0)
            abort(); /* those before it wait at the barrier for ever */
    }
    if (bench->threads > 1)
        wait_for(bench, row, workers, bench->threads);
    pthread_barrier_destroy(&start);
    if (stopped(bench)) /* it was cut short: no round */
        return error_set(error, -ECANCELED, "interrupted");
    add_up(row, workers, bench->threads);
    if (wanted && row->rounds == options->rounds) {
        report(bench, row);
        bench->reported = bench->at;
    }
    return 0;
}

static void free_workers(struct worker *workers, unsigned count)
{
    for (unsigned i = 0; workers && i < count; i++) {
        if (workers[i].directory >= 0)
            close(workers[i].directory);
        free(workers[i].buf);
    }
    free(workers);
}

static int make_workers(struct bench *bench, bool shared, struct worker **out, struct error *error)
{
    struct worker *workers = calloc(bench->threads, sizeof(*workers));
    if (!workers)
        return error_set(error, -ENOMEM, "no memory");
    int result = 0;
    for (unsigned i = 0; i < bench->threads; i++) {
        struct worker *w = &workers[i];
        char name[BENCH_NAME_MAX];
        snprintf(name, sizeof(name), "work%u", shared ? 0 : i);
        w->bench = bench;
        w->index = i;
        w->fd = -1;
        w->directory = -1;
        w->random = 0x9e3779b97f4a7c15ull * (i + 1);
        w->buf = aligned_alloc(4096, BENCH_BLOCK);
        if (!w->buf)
            result = -ENOMEM;
        else if ((mkdirat(bench->directory, name, 0755) < 0 && errno != EEXIST) ||
                 (w->directory =
                      openat(bench->directory, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
            result = -errno;
        for (size_t at = 0; result == 0 && at < BENCH_BLOCK; at += 8) {
            uint64_t bytes = bench_random(w);
            memcpy(w->buf + at, &bytes, 8);
        }
    }
    if (result < 0) {
        free_workers(workers, bench->threads);
        return error_set(error, result, "cannot prepare %u threads: %s", bench->threads,
                         strerror(-result));
    }
    *out = workers;
    return 0;
}

static int run_group(struct bench *bench, const struct group_spec *group, bool shared,
                     struct error *error)
{
    struct worker *workers = NULL;
    int result = make_workers(bench, shared, &workers, error);
    for (unsigned r = 0; result == 0 && r < group->row_count; r++)
        result = run_row(bench, group, &group->rows[r], workers, shared, error);
    free_workers(workers, bench->threads);
    for (unsigned i = 0; i < bench->threads; i++) {
        char name[BENCH_NAME_MAX];
        snprintf(name, sizeof(name), "work%u", i);
        int removed = bench_remove_tree(bench->directory, name);
        if (removed < 0 && result == 0)
            result =
                error_set(error, removed, "cannot remove what was made: %s", strerror(-removed));
    }
    return result;
}

/* All rows with one number of threads. */
static int run_threads(struct bench *bench, bool first, struct error *error)
{
    const struct bench_options *options = bench->options;
    bench->large_size = options->size / bench->threads;
    int result = 0;
    for (size_t g = 0; result == 0 && g < ARRAY_LEN(groups); g++) {
        const struct group_spec *group = groups[g];
        if (!group_wanted(bench, group) || (group->one_thread && !first))
            continue;
        unsigned threads = bench->threads;
        if (group->one_thread)
            bench->threads = 1;
        if (!group->in_directories || options->private_directories || bench->threads == 1)
            result = run_group(bench, group, false, error);
        if (result == 0 && group->in_directories && options->shared_directory && bench->threads > 1)
            result = run_group(bench, group, true, error);
        bench->threads = threads;
    }
    return result;
}

static int check_options(const struct bench_options *options, struct error *error)
{
    struct statvfs space;
    if (check_names(options->only, error) < 0)
        return -EINVAL;
    for (unsigned i = 0; i < BENCH_THREAD_COUNTS_MAX && options->threads[i]; i++)
        if (options->threads[i] > BENCH_THREADS_MAX)
            return error_set(error, -EINVAL, "at most %d threads", BENCH_THREADS_MAX);
    if (options->threads[0] == 0 || options->files == 0 || options->time_ms == 0)
        return error_set(error, -EINVAL, "threads, files and time must not be 0");
    if (options->rounds == 0 || options->rounds > SPREAD_VALUES_MAX)
        return error_set(error, -EINVAL, "1 to %d rounds", SPREAD_VALUES_MAX);
    if (options->size < BENCH_BLOCK)
        return error_set(error, -EINVAL, "the size must be 1 MiB or more");
    if (statvfs(options->path, &space) < 0)
        return error_set(error, -errno, "%s: %s", options->path, strerror(errno));
    /* A filesystem that does not know its room says 0 blocks. */
    uint64_t left = (uint64_t)space.f_bavail * space.f_frsize;
    struct bench bench = {.options = options};
    uint64_t need = MARGIN + (group_wanted(&bench, &bench_data_group) ? options->size : 0);
    if (space.f_blocks && left < need)
        return error_set(error, -ENOSPC, "%s has %llu MiB left and %llu MiB are needed; see --size",
                         options->path, (unsigned long long)(left >> 20),
                         (unsigned long long)(need >> 20));
    return 0;
}

/* Rounds go over all rows, and not each row through its rounds: so each row sees the machine at as
 * many moments as the whole run has, and not at five that follow each other. */
static int run_rounds(struct bench *bench, struct error *error)
{
    const struct bench_options *options = bench->options;
    int result = 0;
    for (unsigned round = 0; result == 0 && round < options->rounds; round++) {
        bench->at = 0;
        for (unsigned i = 0; result == 0 && i < BENCH_THREAD_COUNTS_MAX && options->threads[i];
             i++) {
            bench->threads = options->threads[i];
            result = run_threads(bench, i == 0, error);
        }
    }
    /* After Ctrl-C: what was measured. */
    for (unsigned i = bench->reported; i < bench->row_count; i++)
        report(bench, bench->rows[i]);
    for (unsigned i = 0; i < bench->row_count; i++)
        free(bench->rows[i]);
    free(bench->rows);
    return result;
}

int bench_run(const struct bench_options *options, struct error *error)
{
    int result = check_options(options, error);
    if (result < 0)
        return result;
    cleanup(close_fd) int parent = open(options->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (parent < 0)
        return error_set(error, -errno, "%s: %s", options->path, strerror(errno));
    cleanup(free_ptr) char *path = NULL;
    if (asprintf(&path, "%s/sluice-bench.XXXXXX", options->path) < 0) {
        path = NULL;
        return error_set(error, -ENOMEM, "no memory");
    }
    if (!mkdtemp(path))
        return error_set(error, -errno, "cannot make a directory in %s: %s", options->path,
                         strerror(errno));
    struct bench bench = {.options = options, .directory = -1};
    bench.directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (bench.directory < 0)
        result = error_set(error, -errno, "%s: %s", path, strerror(errno));
    if (result == 0)
        result = run_rounds(&bench, error);
    if (bench.directory >= 0)
        close(bench.directory);
    int removed = bench_remove_tree(parent, strrchr(path, '/') + 1);
    if (removed < 0 && result == 0)
        result = error_set(error, removed, "cannot remove %s: %s", path, strerror(-removed));
    return result;
}
