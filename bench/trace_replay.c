/* The calls of a trace once more, in another directory. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "bench/trace.h"
#include "bench_impl.h"
#include "trace_tree.h"

#define PROGRESS_NS (200 * NS_PER_MS)

struct replay {
    const struct trace *trace;
    const struct trace_replay_options *options;
    int directory;
    uint64_t start_ns;
    size_t *after;    /* call i begins when the first after[i] of `by_end` have ended */
    size_t *end_rank; /* of call i in the order of their ends */
    size_t *next;     /* the call after i of the same thread; `count`: none */
    _Atomic int *fds; /* by handle */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* under lock */
    bool *ended;        /* by rank */
    size_t ended_first; /* so many, without a gap from the first */
    size_t ended_all;
    uint64_t shown_ns;
};

struct player {
    struct replay *replay;
    pthread_t thread;
    size_t first; /* call */
    char *buf;
    struct trace_result *result; /* its own */
};

static uint64_t end_of(const struct trace_event *e)
{
    return e->start_ns + e->took_ns;
}

static int compare_end(const void *a, const void *b, void *arg)
{
    const struct trace *trace = arg;
    size_t i = *(const size_t *)a, k = *(const size_t *)b;
    uint64_t x = end_of(&trace->events[i]), y = end_of(&trace->events[k]);
    return x < y ? -1 : x > y ? 1 : i < k ? -1 : i > k;
}

/* A call waits for those whose end is not after its start. Those all began before it, so nobody
 * waits in a circle. */
static int make_order(struct replay *r)
{
    const struct trace *trace = r->trace;
    cleanup(free_ptr) size_t *by_end = calloc(trace->count, sizeof(*by_end));
    r->after = calloc(trace->count, sizeof(*r->after));
    r->end_rank = calloc(trace->count, sizeof(*r->end_rank));
    r->next = calloc(trace->count, sizeof(*r->next));
    r->ended = calloc(trace->count, sizeof(*r->ended));
    r->fds = calloc(trace->handles ? trace->handles : 1, sizeof(*r->fds));
    if (!by_end || !r->after || !r->end_rank || !r->next || !r->ended || !r->fds)
        return -ENOMEM;
    for (size_t i = 0; i < trace->count; i++)
        by_end[i] = i;
    qsort_r(by_end, trace->count, sizeof(*by_end), compare_end, (void *)trace);
    size_t rank = 0;
    for (size_t i = 0; i < trace->count; i++) {
        r->end_rank[by_end[i]] = i;
        while (rank < trace->count && by_end[rank] != i &&
               end_of(&trace->events[by_end[rank]]) <= trace->events[i].start_ns)
            rank++;
        r->after[i] = rank;
    }
    for (uint32_t h = 0; h < trace->handles; h++)
        atomic_store(&r->fds[h], -1);
    return 0;
}

static bool stopped(const struct replay *r)
{
    return r->options->stop && atomic_load_explicit(r->options->stop, memory_order_relaxed);
}

static void wait_for_turn(struct replay *r, size_t i)
{
    pthread_mutex_lock(&r->lock);
    while (r->ended_first < r->after[i] && !stopped(r))
        pthread_cond_wait(&r->changed, &r->lock);
    pthread_mutex_unlock(&r->lock);
    if (r->options->speed <= 0)
        return;
    uint64_t at =
        r->start_ns + (uint64_t)((double)r->trace->events[i].start_ns / r->options->speed);
    uint64_t now;
    while ((now = clock_monotonic_ns()) < at && !stopped(r)) {
        uint64_t left = MIN(at - now, PROGRESS_NS);
        struct timespec pause = {(time_t)(left / NS_PER_S), (long)(left % NS_PER_S)};
        nanosleep(&pause, NULL);
    }
}

static void mark_ended(struct replay *r, size_t i)
{
    uint64_t done = 0;
    pthread_mutex_lock(&r->lock);
    r->ended[r->end_rank[i]] = true;
    size_t before = r->ended_first;
    while (r->ended_first < r->trace->count && r->ended[r->ended_first])
        r->ended_first++;
    r->ended_all++;
    uint64_t now = clock_monotonic_ns();
    if (r->options->progress && now - r->shown_ns > PROGRESS_NS) {
        r->shown_ns = now;
        done = r->ended_all;
    }
    if (before != r->ended_first || stopped(r))
        pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
    if (done)
        r->options->progress(r->options->arg, done, r->trace->count);
}

static const char *at(const char *path)
{
    return *path ? path : ".";
}

static int result_of(ssize_t n)
{
    return n < 0 ? -errno : (int)n;
}

static int list(struct replay *r, const char *path)
{
    int fd = openat(r->directory, at(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir)
        return -errno;
    while (readdir(dir))
        ;
    closedir(dir);
    return 0;
}

static int open_file(struct replay *r, const struct trace_event *e)
{
    int flags = e->flags & (O_ACCMODE | O_TRUNC | O_APPEND | O_SYNC | O_DSYNC);
    int fd = openat(r->directory, at(e->path),
                    flags | (e->op == TRACE_CREATE ? O_CREAT : 0) | O_NOFOLLOW | O_CLOEXEC,
                    e->mode | 0600);
    if (fd < 0)
        return -errno;
    int old = atomic_exchange(&r->fds[e->handle], fd);
    if (old >= 0)
        close(old);
    return 0;
}

static int truncate_file(struct replay *r, const struct trace_event *e)
{
    int fd = openat(r->directory, at(e->path), O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int result = result_of(ftruncate(fd, (off_t)e->len));
    close(fd);
    return result;
}

static int on_handle(struct replay *r, const struct trace_event *e, char *buf)
{
    int fd = e->op == TRACE_CLOSE ? atomic_exchange(&r->fds[e->handle], -1)
                                  : atomic_load(&r->fds[e->handle]);
    if (fd < 0)
        return -EBADF;
    switch (e->op) {
    case TRACE_READ:
        return result_of(pread(fd, buf, e->len, (off_t)e->offset));
    case TRACE_WRITE:
        return result_of(pwrite(fd, buf, e->len, (off_t)e->offset));
    case TRACE_FSYNC:
        return result_of(fsync(fd));
    default:
        return result_of(close(fd));
    }
}

static int do_call(struct replay *r, const struct trace_event *e, char *buf)
{
    char text[TRACE_PATH_MAX + 1];
    struct stat st;
    int d = r->directory;
    switch (e->op) {
    case TRACE_STAT:
        return result_of(fstatat(d, at(e->path), &st, AT_SYMLINK_NOFOLLOW));
    case TRACE_READLINK:
        return readlinkat(d, at(e->path), text, sizeof(text)) < 0 ? -errno : 0;
    case TRACE_LIST:
        return list(r, e->path);
    case TRACE_MKDIR:
        return result_of(mkdirat(d, at(e->path), e->mode | 0700));
    case TRACE_RMDIR:
        return result_of(unlinkat(d, at(e->path), AT_REMOVEDIR));
    case TRACE_UNLINK:
        return result_of(unlinkat(d, at(e->path), 0));
    case TRACE_RENAME:
        return result_of(renameat2(d, at(e->path), d, at(e->to), (unsigned)e->flags));
    case TRACE_LINK:
        return result_of(linkat(d, at(e->path), d, at(e->to), 0));
    case TRACE_SYMLINK:
        return result_of(symlinkat(e->to, d, at(e->path)));
    case TRACE_CHMOD:
        return result_of(fchmodat(d, at(e->path), e->mode, 0));
    case TRACE_UTIMES:
        return result_of(utimensat(d, at(e->path), NULL, AT_SYMLINK_NOFOLLOW));
    case TRACE_TRUNCATE:
        return truncate_file(r, e);
    case TRACE_CREATE:
    case TRACE_OPEN:
        return open_file(r, e);
    default:
        return on_handle(r, e, buf);
    }
}

static void *play(void *arg)
{
    struct player *p = arg;
    struct replay *r = p->replay;
    for (size_t i = p->first; i < r->trace->count && !stopped(r); i = r->next[i]) {
        const struct trace_event *e = &r->trace->events[i];
        wait_for_turn(r, i);
        if (stopped(r))
            break;
        uint64_t start = clock_monotonic_ns();
        int result = do_call(r, e, p->buf);
        uint64_t took = clock_monotonic_ns() - start;
        histogram_add(&p->result->ops[e->op].replayed, took);
        histogram_add(&p->result->ops[e->op].recorded, e->took_ns);
        if (result > 0)
            p->result->ops[e->op].bytes += (uint64_t)result;
        p->result->calls++;
        p->result->differing += (result < 0) != (e->result < 0) ||
                                (result < 0 && result != e->result) ||
                                (e->op == TRACE_WRITE && result != e->result);
        mark_ended(r, i);
    }
    /* Those that wait must see a stop. */
    pthread_mutex_lock(&r->lock);
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
    return NULL;
}

static void add_up(struct trace_result *into, const struct trace_result *from)
{
    into->calls += from->calls;
    into->differing += from->differing;
    for (unsigned i = 0; i < TRACE_OP_COUNT; i++) {
        histogram_merge(&into->ops[i].recorded, &from->ops[i].recorded);
        histogram_merge(&into->ops[i].replayed, &from->ops[i].replayed);
        into->ops[i].bytes += from->ops[i].bytes;
    }
}

static int make_players(struct replay *r, struct player *players)
{
    for (uint32_t i = 0; i < r->trace->threads; i++) {
        players[i].replay = r;
        players[i].first = r->trace->count;
        players[i].buf = malloc(TRACE_IO_MAX);
        players[i].result = calloc(1, sizeof(*players[i].result));
        if (!players[i].buf || !players[i].result)
            return -ENOMEM;
    }
    for (size_t i = r->trace->count; i-- > 0;) {
        struct player *p = &players[r->trace->events[i].thread];
        r->next[i] = p->first;
        p->first = i;
    }
    return 0;
}

static int run_players(struct replay *r, struct trace_result *out, struct error *error)
{
    uint32_t threads = r->trace->threads, started = 0;
    struct player *players = calloc(threads, sizeof(*players));
    int result = players ? make_players(r, players) : -ENOMEM;
    r->start_ns = r->shown_ns = clock_monotonic_ns();
    while (result == 0 && started < threads) {
        if (pthread_create(&players[started].thread, NULL, play, &players[started]) != 0)
            abort(); /* the others would wait for its calls for ever */
        started++;
    }
    for (uint32_t i = 0; i < started; i++)
        pthread_join(players[i].thread, NULL);
    out->replayed_s = (double)(clock_monotonic_ns() - r->start_ns) / (double)NS_PER_S;
    for (uint32_t i = 0; players && i < threads; i++) {
        if (players[i].result)
            add_up(out, players[i].result);
        free(players[i].result);
        free(players[i].buf);
    }
    free(players);
    if (result < 0)
        return error_set(error, result, "no memory for %u threads", threads);
    return stopped(r) ? error_set(error, -ECANCELED, "interrupted") : 0;
}

static int replay_in(const struct trace *trace, const struct trace_replay_options *options,
                     int directory, struct trace_result *out, struct error *error)
{
    struct replay r = {.trace = trace, .options = options, .directory = directory};
    pthread_mutex_init(&r.lock, NULL);
    pthread_cond_init(&r.changed, NULL);
    int result = trace_tree_make(trace, directory, error);
    if (result == 0 && make_order(&r) < 0)
        result = error_set(error, -ENOMEM, "no memory for %zu calls", trace->count);
    if (result == 0)
        result = run_players(&r, out, error);
    for (uint32_t h = 0; r.fds && h < trace->handles; h++) {
        int fd = atomic_load(&r.fds[h]);
        if (fd >= 0)
            close(fd);
    }
    free(r.fds);
    free(r.after);
    free(r.end_rank);
    free(r.next);
    free(r.ended);
    pthread_cond_destroy(&r.changed);
    pthread_mutex_destroy(&r.lock);
    return result;
}

int trace_replay(const struct trace *trace, const struct trace_replay_options *options,
                 struct trace_result *out, struct error *error)
{
    cleanup(free_ptr) char *path = NULL;
    cleanup(close_fd) int parent = open(options->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (parent < 0)
        return error_set(error, -errno, "%s: %s", options->path, strerror(errno));
    if (asprintf(&path, "%s/sluice-replay.XXXXXX", options->path) < 0) {
        path = NULL;
        return error_set(error, -ENOMEM, "no memory");
    }
    if (!mkdtemp(path))
        return error_set(error, -errno, "cannot make a directory in %s: %s", options->path,
                         strerror(errno));
    *out = (struct trace_result){0};
    for (size_t i = 0; i < trace->count; i++)
        out->recorded_s =
            MAX(out->recorded_s, (double)end_of(&trace->events[i]) / (double)NS_PER_S);
    int directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int result = directory < 0 ? error_set(error, -errno, "%s: %s", path, strerror(errno))
                               : replay_in(trace, options, directory, out, error);
    if (directory >= 0)
        close(directory);
    int removed = bench_remove_tree(parent, strrchr(path, '/') + 1);
    if (removed < 0 && result == 0)
        result = error_set(error, removed, "cannot remove %s: %s", path, strerror(-removed));
    return result;
}
