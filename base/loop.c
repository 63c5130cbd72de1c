#include "base/loop.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "thread.h"

struct loop {
    /* any thread: a stack of posted tasks, newest first */
    _Atomic(struct loop_task *) posted;

    /* immutable once loop_new returned */
    pthread_t thread;

    /* owned by the loop thread */
    uv_loop_t uv;
    uv_async_t wake;
    bool stopping;

    /* loop_new waits on it until the thread knows its own id; then loop_free's is not needed */
    sem_t started;
    struct loop_task stop;
};

static struct loop_task *reversed(struct loop_task *list)
{
    struct loop_task *head = NULL;
    while (list) {
        struct loop_task *next = list->next;
        list->next = head;
        head = list;
        list = next;
    }
    return head;
}

/* Runs what is posted now; what these tasks post waits for the next turn, so that sockets and
 * timers have theirs in between. */
static bool run_posted(struct loop *loop)
{
    /* acquire: pairs with the release in loop_post, the poster's writes to its task are seen */
    struct loop_task *list = atomic_exchange_explicit(&loop->posted, NULL, memory_order_acquire);
    if (!list)
        return false;
    for (struct loop_task *task = reversed(list), *next; task; task = next) {
        next = task->next;
        task->run(task);
    }
    return true;
}

static void on_wake(uv_async_t *wake)
{
    struct loop *loop = wake->data;
    run_posted(loop);
    if (loop->stopping && !atomic_load_explicit(&loop->posted, memory_order_relaxed) &&
        !uv_is_closing((uv_handle_t *)wake))
        uv_close((uv_handle_t *)wake, NULL);
}

static void on_stop(struct loop_task *task)
{
    container_of(task, struct loop, stop)->stopping = true;
}

static void *loop_thread(void *arg)
{
    struct loop *loop = arg;
    loop->thread = pthread_self();
    sem_post(&loop->started);
    /* Handles that are still closing may post once more while the wake-up is already closed. */
    do {
        uv_run(&loop->uv, UV_RUN_DEFAULT);
    } while (run_posted(loop));
    return NULL;
}

static void wait_sem(sem_t *sem)
{
    while (sem_wait(sem) < 0 && errno == EINTR)
        ;
}

int loop_new(struct loop **out, const char *name)
{
    struct loop *loop = calloc(1, sizeof(*loop));
    if (!loop)
        return -ENOMEM;
    int rc = uv_loop_init(&loop->uv);
    if (rc)
        goto no_loop;
    rc = uv_async_init(&loop->uv, &loop->wake, on_wake);
    if (rc)
        goto no_wake;
    loop->wake.data = loop;
    loop->stop.run = on_stop;
    sem_init(&loop->started, 0, 0);
    pthread_t thread;
    rc = thread_start(&thread, name, loop_thread, loop);
    if (rc)
        goto no_thread;
    wait_sem(&loop->started);
    *out = loop;
    return 0;

no_thread:
    sem_destroy(&loop->started);
    uv_close((uv_handle_t *)&loop->wake, NULL);
    uv_run(&loop->uv, UV_RUN_DEFAULT);
no_wake:
    uv_loop_close(&loop->uv);
no_loop:
    free(loop);
    return rc;
}

void loop_free(struct loop *loop)
{
    if (!loop)
        return;
    assert(!loop_on_thread(loop));
    loop_post(loop, &loop->stop);
    pthread_join(loop->thread, NULL);
    int rc = uv_loop_close(&loop->uv);
    assert(rc == 0);
    (void)rc;
    sem_destroy(&loop->started);
    free(loop);
}

void loop_post(struct loop *loop, struct loop_task *task)
{
    struct loop_task *top = atomic_load_explicit(&loop->posted, memory_order_relaxed);
    do {
        task->next = top;
        /* release: pairs with the acquire in run_posted */
    } while (!atomic_compare_exchange_weak_explicit(&loop->posted, &top, task, memory_order_release,
                                                    memory_order_relaxed));
    /* Not empty before: the wake-up of the first one is still on its way. `task` may be gone
     * already, so it is `top` that tells. */
    if (!top && !(loop_on_thread(loop) && uv_is_closing((uv_handle_t *)&loop->wake)))
        uv_async_send(&loop->wake);
}

struct call {
    struct loop_task task;
    void (*fn)(void *arg);
    void *arg;
    sem_t done;
};

static void run_call(struct loop_task *task)
{
    struct call *call = container_of(task, struct call, task);
    call->fn(call->arg);
    sem_post(&call->done);
}

void loop_call(struct loop *loop, void (*fn)(void *arg), void *arg)
{
    if (loop_on_thread(loop)) {
        fn(arg);
        return;
    }
    struct call call = {.task = {.run = run_call}, .fn = fn, .arg = arg};
    sem_init(&call.done, 0, 0);
    loop_post(loop, &call.task);
    wait_sem(&call.done);
    sem_destroy(&call.done);
}

bool loop_on_thread(const struct loop *loop)
{
    return pthread_equal(loop->thread, pthread_self());
}

uv_loop_t *loop_uv(struct loop *loop)
{
    return &loop->uv;
}

static void on_timer(uv_timer_t *uv)
{
    struct loop_timer *timer = container_of(uv, struct loop_timer, uv);
    timer->fire(timer);
}

void loop_timer_init(struct loop *loop, struct loop_timer *timer,
                     void (*fire)(struct loop_timer *timer))
{
    timer->fire = fire;
    timer->closed = NULL;
    uv_timer_init(&loop->uv, &timer->uv);
}

void loop_timer_start(struct loop_timer *timer, uint64_t delay_ms)
{
    /* libuv counts from the start of this turn of the loop, which may be long ago. */
    uv_update_time(timer->uv.loop);
    uv_timer_start(&timer->uv, on_timer, delay_ms, 0);
}

void loop_timer_stop(struct loop_timer *timer)
{
    uv_timer_stop(&timer->uv);
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct loop_timer *timer = container_of((uv_timer_t *)handle, struct loop_timer, uv);
    if (timer->closed)
        timer->closed(timer);
}

void loop_timer_close(struct loop_timer *timer, void (*closed)(struct loop_timer *timer))
{
    timer->closed = closed;
    uv_close((uv_handle_t *)&timer->uv, on_timer_closed);
}
