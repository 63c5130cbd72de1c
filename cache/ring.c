#include "ring.h"

#include <assert.h>
#include <errno.h>
#include <liburing.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/log.h"

#define ENTRIES 256u
#define IN_FLIGHT_MAX 512u
#define FALLBACK_THREADS 4

struct ring {
    /* immutable */
    bool uring, files;
    struct pool *pool; /* where there is no io_uring */
    pthread_t thread;
    _Atomic unsigned in_flight;
    _Atomic unsigned handed; /* batches given to the kernel */
    /* submission side: under lock; completion side: the thread's */
    pthread_mutex_t lock;
    struct io_uring io;
};

static void *reap(void *arg)
{
    struct ring *ring = arg;
    for (;;) {
        struct io_uring_cqe *cqe;
        int rc = io_uring_wait_cqe(&ring->io, &cqe);
        if (rc == -EINTR)
            continue;
        if (rc < 0) {
            log_error("cache ring broke", "code=%d", rc);
            return NULL;
        }
        struct ring_io *io = io_uring_cqe_get_data(cqe);
        int result = cqe->res;
        io_uring_cqe_seen(&ring->io, cqe);
        if (!io)
            return NULL;
        (void)atomic_load_explicit(&ring->handed, memory_order_acquire);
        atomic_fetch_sub(&ring->in_flight, 1);
        io->result = result;
        io->done(io);
    }
}

static int thread_start_blocked(struct ring *ring, const char *name)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = pthread_create(&ring->thread, NULL, reap, ring);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc == 0)
        pthread_setname_np(ring->thread, name);
    return -rc;
}

static int uring_start(struct ring *ring, const char *name)
{
    struct io_uring_params params = {.flags = IORING_SETUP_CLAMP | IORING_SETUP_CQSIZE,
                                     .cq_entries = 2 * IN_FLIGHT_MAX};
    int rc = io_uring_queue_init_params(ENTRIES, &ring->io, &params);
    if (rc < 0)
        return rc;
    /* Only a faster way, which older kernels do not have. */
    ring->files = io_uring_register_files_sparse(&ring->io, RING_FILES) == 0;
    rc = thread_start_blocked(ring, name);
    if (rc < 0)
        io_uring_queue_exit(&ring->io);
    return rc;
}

int ring_new(const char *name, struct ring **out)
{
    struct ring *ring = calloc(1, sizeof(*ring));
    if (!ring)
        return -ENOMEM;
    pthread_mutex_init(&ring->lock, NULL);
    ring->uring = uring_start(ring, name) == 0;
    int rc = ring->uring ? 0 : pool_new(&ring->pool, name, FALLBACK_THREADS);
    if (rc < 0) {
        pthread_mutex_destroy(&ring->lock);
        free(ring);
        return rc;
    }
    *out = ring;
    return 0;
}

void ring_free(struct ring *ring)
{
    if (!ring)
        return;
    assert(atomic_load(&ring->in_flight) == 0);
    if (ring->uring) {
        pthread_mutex_lock(&ring->lock);
        struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->io);
        io_uring_prep_nop(sqe);
        io_uring_sqe_set_data(sqe, NULL);
        io_uring_submit(&ring->io);
        pthread_mutex_unlock(&ring->lock);
        pthread_join(ring->thread, NULL);
        io_uring_queue_exit(&ring->io);
    } else {
        pool_free(ring->pool);
    }
    pthread_mutex_destroy(&ring->lock);
    free(ring);
}

static void run_blocking(struct pool_task *task)
{
    struct ring_io *io = container_of(task, struct ring_io, task);
    ssize_t n;
    do
        n = io->write ? pwrite(io->fd, io->buf, io->len, (off_t)io->offset)
                      : pread(io->fd, io->buf, io->len, (off_t)io->offset);
    while (n < 0 && errno == EINTR);
    io->result = n < 0 ? -errno : (int)n;
    atomic_fetch_sub(&io->ring->in_flight, 1);
    io->done(io);
}

static void prepare(struct ring *ring, struct io_uring_sqe *sqe, const struct ring_io *io)
{
    bool registered = ring->files && io->file >= 0;
    int fd = registered ? io->file : io->fd;
    if (io->write)
        io_uring_prep_write(sqe, fd, io->buf, io->len, io->offset);
    else
        io_uring_prep_read(sqe, fd, io->buf, io->len, io->offset);
    if (registered)
        io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
    io_uring_sqe_set_data(sqe, (void *)(uintptr_t)io);
}

int ring_submit(struct ring *ring, struct ring_io *const *ios, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        ios[i]->ring = ring;
    if (atomic_fetch_add(&ring->in_flight, count) + count > IN_FLIGHT_MAX) {
        atomic_fetch_sub(&ring->in_flight, count);
        return -EAGAIN;
    }
    if (!ring->uring) {
        for (unsigned i = 0; i < count; i++) {
            ios[i]->task.run = run_blocking;
            pool_submit(ring->pool, &ios[i]->task);
        }
        return 0;
    }
    pthread_mutex_lock(&ring->lock);
    for (unsigned i = 0; i < count; i++) {
        struct io_uring_sqe *sqe;
        while (!(sqe = io_uring_get_sqe(&ring->io)))
            io_uring_submit(&ring->io);
        prepare(ring, sqe, ios[i]);
    }
    /* release: pairs with the acquire in reap; what was done to the requests comes before their
     * end, which the kernel's way does not tell the compiler (nor the thread sanitizer). */
    atomic_fetch_add_explicit(&ring->handed, 1, memory_order_release);
    /* What the kernel does not take now (out of memory) stays queued, and goes with the next. */
    int rc;
    do
        rc = io_uring_submit(&ring->io);
    while (rc == -EINTR || rc == -EAGAIN || rc == -EBUSY);
    pthread_mutex_unlock(&ring->lock);
    return 0;
}

bool ring_set_file(struct ring *ring, int index, int fd)
{
    if (!ring->uring || !ring->files)
        return false;
    pthread_mutex_lock(&ring->lock);
    int rc = io_uring_register_files_update(&ring->io, (unsigned)index, &fd, 1);
    pthread_mutex_unlock(&ring->lock);
    return rc == 1;
}

bool ring_is_uring(const struct ring *ring)
{
    return ring->uring;
}
