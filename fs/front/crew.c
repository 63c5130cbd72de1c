#include "crew.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/blocking.h"
#include "base/cleanup.h"
#include "base/clock.h"

#define TICK_NS (1 * NS_PER_MS)      /* how often the guard looks, while requests come */
#define QUIET_TICKS 20u              /* without a request: it sleeps */
#define CROWD_NS (2 * NS_PER_MS)     /* so long after a request of another thread there are two */
#define LARGE (64u << 10)            /* bytes: to copy them takes longer than to wake a thread */
#define SLEEP_COSTS 4u               /* a wait in sleep may take so much longer than one awake */
#define BACKLOG 8u                   /* requests without a wait between them: others may help */
#define HANDLING ((uint32_t)1 << 31) /* the leader handles a request; others may take the seat */

struct member {
    struct blocking_hook hook;
    struct crew *crew;
    pthread_t thread;
    uint32_t number; /* from 1 */
    struct fuse_buf buf;
    bool crowded; /* others ask, too: as of the request that it handles */

    /* Under crew->lock. */
    struct member *next; /* that waits, too */
    pthread_cond_t wake;
    bool called;
    bool helps;    /* called to take requests beside the leader */
    uint32_t seat; /* as it was found by who called: to be taken from its owner */
};

/* What the leader alone uses. */
struct lead {
    uint64_t budget_ns; /* looks so long before it sleeps */
    uint64_t other_ns;  /* when the thread that asks was last another one */
    uint32_t asker;
    unsigned at_once; /* requests that were there when it looked first, in a row */
};

struct crew {
    struct fuse_session *session;
    int fd, stop_fd;
    unsigned threads, helpers_most;
    uint64_t poll_ns;
    struct member *members;
    pthread_t guard;
    bool has_guard;

    /* Number of the leader, with HANDLING; 0: nobody leads. Only the leader sets and takes away
     * HANDLING; with it anybody may take the seat over by compare and exchange. */
    _Alignas(64) _Atomic uint32_t seat;
    _Atomic uint64_t requests, polled, slept, handed, missed;
    struct lead lead;
    _Atomic unsigned helpers;

    _Alignas(64) _Atomic bool guard_sleeps;
    _Atomic bool stopping;
    _Atomic int error;
    pthread_mutex_t lock;
    pthread_cond_t guard_wake;
    struct member *waiting; /* the last one first: its caches are warm */
};

/* --- Who leads */

static void call_locked(struct crew *crew, bool helps, uint32_t seat)
{
    struct member *m = crew->waiting;
    if (!m)
        return;
    crew->waiting = m->next;
    m->called = true;
    m->helps = helps;
    m->seat = seat;
    pthread_cond_signal(&m->wake);
}

/* The seat is free already; or another one than the leader is to help. */
static void call(struct crew *crew, bool helps)
{
    pthread_mutex_lock(&crew->lock);
    call_locked(crew, helps, 0);
    pthread_mutex_unlock(&crew->lock);
}

static void before_blocking(struct blocking_hook *hook)
{
    struct member *m = container_of(hook, struct member, hook);
    uint32_t mine = m->number | HANDLING;
    if (!m->crowded || !atomic_compare_exchange_strong(&m->crew->seat, &mine, 0))
        return;
    atomic_fetch_add_explicit(&m->crew->handed, 1, memory_order_relaxed);
    call(m->crew, false);
}

static bool take_seat(struct member *m)
{
    uint32_t own = m->number | HANDLING, nobody = 0;
    uint32_t found = m->seat;
    m->seat = 0;
    return atomic_compare_exchange_strong(&m->crew->seat, &own, m->number) ||
           atomic_compare_exchange_strong(&m->crew->seat, &nobody, m->number) ||
           (found && atomic_compare_exchange_strong(&m->crew->seat, &found, m->number));
}

/* Until it is called, the seat is free, or the end. */
static void wait_turn(struct member *m)
{
    struct crew *crew = m->crew;
    pthread_mutex_lock(&crew->lock);
    /* Who frees the seat looks for waiting ones after that, under the lock. */
    if (atomic_load(&crew->seat) != 0 && !atomic_load(&crew->stopping)) {
        m->next = crew->waiting;
        crew->waiting = m;
        while (!m->called && !atomic_load(&crew->stopping))
            pthread_cond_wait(&m->wake, &crew->lock);
    }
    m->called = false;
    pthread_mutex_unlock(&crew->lock);
}

/* --- The guard */

static void sleep_guard(struct crew *crew, uint64_t requests)
{
    atomic_store(&crew->guard_sleeps, true);
    /* Who took a request looks whether the guard sleeps after it has counted it. */
    while (atomic_load(&crew->requests) == requests && !atomic_load(&crew->stopping))
        pthread_cond_wait(&crew->guard_wake, &crew->lock);
    atomic_store(&crew->guard_sleeps, false);
}

static void wait_tick(struct crew *crew)
{
    uint64_t end = clock_monotonic_ns() + TICK_NS;
    struct timespec until = {.tv_sec = (time_t)(end / NS_PER_S), .tv_nsec = (long)(end % NS_PER_S)};
    if (!atomic_load(&crew->stopping))
        pthread_cond_timedwait(&crew->guard_wake, &crew->lock, &until);
}

static void *run_guard(void *arg)
{
    struct crew *crew = arg;
    uint64_t before = 0;
    uint32_t was = 0;
    unsigned quiet = 0;
    pthread_setname_np(pthread_self(), "fuse-guard");
    pthread_mutex_lock(&crew->lock);
    while (!atomic_load(&crew->stopping)) {
        wait_tick(crew);
        uint64_t requests = atomic_load(&crew->requests);
        uint32_t seat = atomic_load(&crew->seat);
        bool same = requests == before && seat == was;
        if (same && (seat == 0 || (seat & HANDLING)) && crew->waiting) {
            atomic_fetch_add_explicit(&crew->missed, 1, memory_order_relaxed);
            call_locked(crew, false, seat);
        }
        quiet = same && !(seat & HANDLING) ? quiet + 1 : 0;
        if (quiet > QUIET_TICKS)
            sleep_guard(crew, requests);
        before = requests;
        was = seat;
    }
    pthread_mutex_unlock(&crew->lock);
    return NULL;
}

static void wake_guard(struct crew *crew)
{
    pthread_mutex_lock(&crew->lock);
    pthread_cond_signal(&crew->guard_wake);
    pthread_mutex_unlock(&crew->lock);
}

/* --- Requests */

static bool is_over(const struct crew *crew)
{
    return atomic_load_explicit(&crew->stopping, memory_order_relaxed) ||
           fuse_session_exited(crew->session);
}

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    for (int i = 0; i < 10; i++)
        __builtin_ia32_pause();
#endif
    sched_yield();
}

/* -EAGAIN: nothing came. */
static int look(struct member *m, uint64_t start_ns)
{
    struct crew *crew = m->crew;
    int rc = -EAGAIN;
    while (rc == -EAGAIN && !is_over(crew) &&
           clock_monotonic_ns() - start_ns < crew->lead.budget_ns) {
        relax();
        rc = fuse_session_receive_buf(crew->session, &m->buf);
    }
    return rc;
}

/* As KVM does: what would have been met by looking longer, looks longer the next time. A wait in
 * sleep is longer than the same one awake, by the time that waking takes. */
static void set_budget(struct crew *crew, uint64_t waited_ns)
{
    struct lead *lead = &crew->lead;
    if (waited_ns <= crew->poll_ns * SLEEP_COSTS)
        lead->budget_ns = crew->poll_ns;
    else
        lead->budget_ns = lead->budget_ns > crew->poll_ns / 8 ? lead->budget_ns / 2 : 0;
}

/* Of the leader. Its size; 0 or an error: the end. */
static int receive(struct member *m)
{
    struct crew *crew = m->crew;
    struct lead *lead = &crew->lead;
    struct pollfd fds[] = {{.fd = crew->fd, .events = POLLIN},
                           {.fd = crew->stop_fd, .events = POLLIN}};
    int rc = fuse_session_receive_buf(crew->session, &m->buf);
    if (rc != -EAGAIN) {
        lead->at_once++;
        return rc;
    }
    lead->at_once = 0;
    uint64_t start = clock_monotonic_ns();
    if (lead->budget_ns > 0) {
        rc = look(m, start);
        if (rc > 0)
            atomic_fetch_add_explicit(&crew->polled, 1, memory_order_relaxed);
    }
    while (rc == -EAGAIN) {
        if (is_over(crew))
            return 0;
        if (poll(fds, ARRAY_LEN(fds), -1) < 0 && errno != EINTR)
            return -errno;
        rc = fuse_session_receive_buf(crew->session, &m->buf);
        if (rc != -EAGAIN) {
            set_budget(crew, clock_monotonic_ns() - start);
            atomic_fetch_add_explicit(&crew->slept, 1, memory_order_relaxed);
        }
    }
    return rc;
}

/* Directories are read in large replies, too. */
static bool is_large(const struct fuse_buf *buf)
{
    const struct fuse_in_header *in = buf->mem;
    if (buf->size >= LARGE || in->opcode == FUSE_READDIR || in->opcode == FUSE_READDIRPLUS)
        return true;
    const struct fuse_read_in *read = (const void *)(in + 1);
    return in->opcode == FUSE_READ && buf->size >= sizeof(*in) + sizeof(*read) &&
           read->size >= LARGE;
}

/* The leader has a request: who asks, and does the crew keep up? */
static void note_request(struct member *m)
{
    struct crew *crew = m->crew;
    struct lead *lead = &crew->lead;
    const struct fuse_in_header *in = m->buf.mem;
    /* 0: somebody of another PID namespace, or the kernel. */
    if (in->pid && in->pid != lead->asker) {
        lead->asker = in->pid;
        lead->other_ns = clock_monotonic_ns();
    }
    m->crowded = !in->pid || lead->at_once > 0 || clock_monotonic_ns() - lead->other_ns < CROWD_NS;
    bool help = lead->at_once >= BACKLOG && atomic_load(&crew->helpers) < crew->helpers_most;
    if (help)
        lead->at_once = 0;
    atomic_fetch_add(&crew->requests, 1);
    if (atomic_load(&crew->guard_sleeps))
        wake_guard(crew);
    atomic_store(&crew->seat, m->number | HANDLING);
    if (help)
        call(crew, true);
    else if (m->crowded && is_large(&m->buf))
        before_blocking(&m->hook);
}

static void end(struct crew *crew, int rc)
{
    int none = 0;
    if (rc < 0)
        atomic_compare_exchange_strong(&crew->error, &none, rc);
    crew_stop(crew);
}

/* Takes what is there beside the leader. */
static void help(struct member *m)
{
    struct crew *crew = m->crew;
    int rc;
    m->helps = false;
    m->crowded = false; /* it has no seat to leave */
    atomic_fetch_add(&crew->helpers, 1);
    while ((rc = fuse_session_receive_buf(crew->session, &m->buf)) > 0) {
        atomic_fetch_add_explicit(&crew->requests, 1, memory_order_relaxed);
        fuse_session_process_buf(crew->session, &m->buf);
    }
    atomic_fetch_sub(&crew->helpers, 1);
    if (rc != -EAGAIN && rc != -EINTR)
        end(crew, rc);
}

static void *run_member(void *arg)
{
    struct member *m = arg;
    struct crew *crew = m->crew;
    pthread_setname_np(pthread_self(), "fuse_worker");
    blocking_set(&m->hook);
    while (!is_over(crew)) {
        if (m->helps) {
            help(m);
        } else if (!take_seat(m)) {
            wait_turn(m);
        } else {
            int rc = receive(m);
            if (rc > 0) {
                note_request(m);
                fuse_session_process_buf(crew->session, &m->buf);
            } else if (rc == -EINTR) {
                atomic_store(&crew->seat, m->number | HANDLING);
            } else {
                end(crew, rc);
            }
        }
    }
    blocking_set(NULL);
    crew_stop(crew); /* the session may have been ended without */
    return NULL;
}

/* --- The crew */

int crew_new(struct fuse_session *session, const struct crew_config *config, struct crew **out)
{
    struct crew *crew = aligned_alloc(64, (sizeof(*crew) + 63) / 64 * 64);
    if (!crew)
        return -ENOMEM;
    *crew = (struct crew){.session = session,
                          .fd = fuse_session_fd(session),
                          .threads = config->threads,
                          .poll_ns = config->poll_ns};
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    crew->helpers_most = processors > 2 ? (unsigned)processors - 2 : 0;
    crew->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    crew->members = calloc(config->threads, sizeof(*crew->members));
    if (crew->stop_fd < 0 || !crew->members) {
        int rc = crew->stop_fd < 0 ? -errno : -ENOMEM;
        if (crew->stop_fd >= 0)
            close(crew->stop_fd);
        free(crew->members);
        free(crew);
        return rc;
    }
    pthread_mutex_init(&crew->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&crew->guard_wake, &attr);
    pthread_condattr_destroy(&attr);
    for (uint32_t i = 0; i < config->threads; i++) {
        crew->members[i] =
            (struct member){.hook.before = before_blocking, .crew = crew, .number = i + 1};
        pthread_cond_init(&crew->members[i].wake, NULL);
    }
    *out = crew;
    return 0;
}

/* The kernel's first request says how large the others are, and so the buffers. */
static int greet(struct crew *crew)
{
    struct fuse_buf buf = {0};
    int rc;
    do {
        rc = fuse_session_receive_buf(crew->session, &buf);
    } while (rc == -EINTR && !is_over(crew));
    if (rc > 0)
        fuse_session_process_buf(crew->session, &buf);
    free(buf.mem);
    return rc < 0 ? rc : 0;
}

/* Members as far as they can be made; without a guard nobody would miss a leader, so none. */
static unsigned start(struct crew *crew)
{
    sigset_t all, before;
    unsigned started = 0;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for the main thread */
    int rc = -pthread_create(&crew->guard, NULL, run_guard, crew);
    crew->has_guard = rc == 0;
    while (rc == 0 && started < crew->threads) {
        struct member *m = &crew->members[started];
        rc = -pthread_create(&m->thread, NULL, run_member, m);
        started += rc == 0;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc < 0)
        end(crew, rc);
    return started;
}

int crew_run(struct crew *crew)
{
    int rc = greet(crew);
    int flags = fcntl(crew->fd, F_GETFL);
    if (rc == 0 && (flags < 0 || fcntl(crew->fd, F_SETFL, flags | O_NONBLOCK) < 0))
        rc = -errno;
    if (rc < 0)
        return rc;
    unsigned started = start(crew);
    for (unsigned i = 0; i < started; i++)
        pthread_join(crew->members[i].thread, NULL);
    if (crew->has_guard)
        pthread_join(crew->guard, NULL);
    return atomic_load(&crew->error);
}

void crew_stop(struct crew *crew)
{
    pthread_mutex_lock(&crew->lock);
    atomic_store(&crew->stopping, true);
    for (unsigned i = 0; i < crew->threads; i++)
        pthread_cond_signal(&crew->members[i].wake);
    pthread_cond_signal(&crew->guard_wake);
    pthread_mutex_unlock(&crew->lock);
    (void)eventfd_write(crew->stop_fd, 1);
}

void crew_count(const struct crew *crew, struct crew_counts *out)
{
    *out = (struct crew_counts){.requests = crew->requests,
                                .polled = crew->polled,
                                .slept = crew->slept,
                                .handed = crew->handed,
                                .missed = crew->missed};
}

void crew_free(struct crew *crew)
{
    if (!crew)
        return;
    for (unsigned i = 0; i < crew->threads; i++) {
        pthread_cond_destroy(&crew->members[i].wake);
        free(crew->members[i].buf.mem);
    }
    pthread_cond_destroy(&crew->guard_wake);
    pthread_mutex_destroy(&crew->lock);
    close(crew->stop_fd);
    free(crew->members);
    free(crew);
}
