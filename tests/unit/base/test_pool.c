#include "base/pool.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>

#include "base/cleanup.h"
#include "test.h"

struct numbered {
    struct pool_task task;
    int number;
    int *log;
    int *log_len;
};

static void note_number(struct pool_task *task)
{
    struct numbered *n = container_of(task, struct numbered, task);
    n->log[(*n->log_len)++] = n->number;
}

TEST(pool_submit, one_thread_runs_in_order)
{
    enum { TASKS = 1000 };
    static int log[TASKS];
    static struct numbered tasks[TASKS];
    int len = 0;
    struct pool *pool;
    check_int(pool_new(&pool, "test", 1), 0);
    for (int i = 0; i < TASKS; i++) {
        tasks[i] = (struct numbered){{.run = note_number}, i, log, &len};
        pool_submit(pool, &tasks[i].task);
    }
    pool_free(pool); /* runs what was submitted */
    check_int(len, TASKS);
    for (int i = 0; i < TASKS; i++)
        check_int(log[i], i);
}

struct meeting {
    struct pool_task task;
    pthread_barrier_t *barrier;
};

static void meet(struct pool_task *task)
{
    pthread_barrier_wait(container_of(task, struct meeting, task)->barrier);
}

TEST(pool_submit, uses_all_threads_at_once, .timeout = 120)
{
    enum { THREADS = 4 };
    pthread_barrier_t barrier;
    pthread_barrier_init(&barrier, NULL, THREADS);
    struct meeting tasks[THREADS];
    struct pool *pool;
    check_int(pool_new(&pool, "test", THREADS), 0);
    for (int i = 0; i < THREADS; i++) {
        tasks[i] = (struct meeting){{.run = meet}, &barrier};
        pool_submit(pool, &tasks[i].task);
    }
    pool_free(pool); /* comes back only if the four met */
    pthread_barrier_destroy(&barrier);
}

struct chain {
    struct pool_task task;
    struct pool *pool;
    _Atomic int *runs;
    int left;
};

static void run_chain(struct pool_task *task)
{
    struct chain *chain = container_of(task, struct chain, task);
    atomic_fetch_add(chain->runs, 1);
    if (chain->left-- > 0)
        pool_submit(chain->pool, &chain->task);
    else
        free(chain);
}

TEST(pool_free, runs_what_tasks_submit_too)
{
    _Atomic int runs = 0;
    struct pool *pool;
    check_int(pool_new(&pool, "test", 3), 0);
    for (int i = 0; i < 10; i++) {
        struct chain *chain = calloc(1, sizeof(*chain));
        check(chain != NULL);
        *chain = (struct chain){{.run = run_chain}, pool, &runs, 99};
        pool_submit(pool, &chain->task);
    }
    pool_free(pool);
    check_int(runs, 1000);
}

static sigset_t seen_mask;

static void note_mask(struct pool_task *task)
{
    pthread_sigmask(SIG_SETMASK, NULL, &seen_mask);
}

TEST(pool_new, threads_take_no_signals)
{
    struct pool_task task = {.run = note_mask};
    struct pool *pool;
    check_int(pool_new(&pool, "test", 1), 0);
    pool_submit(pool, &task);
    pool_free(pool);
    check(sigismember(&seen_mask, SIGTERM) == 1 && sigismember(&seen_mask, SIGHUP) == 1);
    sigset_t own;
    pthread_sigmask(SIG_SETMASK, NULL, &own);
    check(sigismember(&own, SIGTERM) == 0);
}

TEST(pool_new, refuses_bad_numbers_of_threads)
{
    struct pool *pool = NULL;
    check_int(pool_new(&pool, "test", 0), -EINVAL);
    check_int(pool_new(&pool, "test", 257), -EINVAL);
    check(pool == NULL);
    pool_free(NULL);
}
