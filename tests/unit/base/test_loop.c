#include "base/loop.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "test.h"

struct numbered {
    struct loop_task task;
    int number;
    int *log;
    int *log_len;
};

static void note_number(struct loop_task *task)
{
    struct numbered *n = container_of(task, struct numbered, task);
    n->log[(*n->log_len)++] = n->number;
}

TEST(loop_post, runs_in_order_before_loop_free_returns)
{
    enum { TASKS = 5000 };
    static int log[TASKS];
    static struct numbered tasks[TASKS];
    int len = 0;
    struct loop *loop;
    check_int(loop_new(&loop, "test"), 0);
    for (int i = 0; i < TASKS; i++) {
        tasks[i] = (struct numbered){{.run = note_number}, i, log, &len};
        loop_post(loop, &tasks[i].task);
    }
    loop_free(loop);
    check_int(len, TASKS);
    for (int i = 0; i < TASKS; i++)
        check_int(log[i], i);
}

enum { POSTERS = 4, POSTS = 2000 };

struct poster {
    struct loop *loop;
    struct counted {
        struct loop_task task;
        struct poster *poster;
        int number;
    } tasks[POSTS];
    int next; /* loop thread: the number that comes next */
    bool disorder, wrong_thread;
};

static void count(struct loop_task *task)
{
    struct counted *c = container_of(task, struct counted, task);
    struct poster *p = c->poster;
    p->disorder |= c->number != p->next++;
    p->wrong_thread |= !loop_on_thread(p->loop);
}

static void *post_many(void *arg)
{
    struct poster *p = arg;
    for (int i = 0; i < POSTS; i++) {
        p->tasks[i] = (struct counted){{.run = count}, p, i};
        loop_post(p->loop, &p->tasks[i].task);
    }
    return NULL;
}

TEST(loop_post, many_threads_keep_their_own_order, .timeout = 120)
{
    static struct poster posters[POSTERS];
    memset(posters, 0, sizeof(posters));
    pthread_t thread[POSTERS];
    struct loop *loop;
    check_int(loop_new(&loop, "test"), 0);
    check(!loop_on_thread(loop));
    for (int i = 0; i < POSTERS; i++) {
        posters[i].loop = loop;
        check_int(pthread_create(&thread[i], NULL, post_many, &posters[i]), 0);
    }
    for (int i = 0; i < POSTERS; i++)
        pthread_join(thread[i], NULL);
    loop_free(loop);
    for (int i = 0; i < POSTERS; i++) {
        check_int(posters[i].next, POSTS);
        check(!posters[i].disorder && !posters[i].wrong_thread);
    }
}

struct chain {
    struct loop_task task;
    struct loop *loop;
    int *runs;
    int left;
};

static void run_chain(struct loop_task *task)
{
    struct chain *chain = container_of(task, struct chain, task);
    ++*chain->runs;
    if (chain->left-- > 0)
        loop_post(chain->loop, &chain->task);
    else
        free(chain);
}

TEST(loop_free, runs_what_tasks_post_too)
{
    int runs = 0;
    struct loop *loop;
    check_int(loop_new(&loop, "test"), 0);
    for (int i = 0; i < 3; i++) {
        struct chain *chain = calloc(1, sizeof(*chain));
        check(chain != NULL);
        *chain = (struct chain){{.run = run_chain}, loop, &runs, 99};
        loop_post(loop, &chain->task);
    }
    loop_free(loop);
    check_int(runs, 300);
}

struct called {
    struct loop *loop;
    int depth;
    bool on_thread;
};

static void call_again(void *arg)
{
    struct called *called = arg;
    called->on_thread = loop_on_thread(called->loop);
    if (++called->depth < 3)
        loop_call(called->loop, call_again, called); /* directly */
}

TEST(loop_call, waits_and_nests)
{
    struct called called = {0};
    check_int(loop_new(&called.loop, "test"), 0);
    loop_call(called.loop, call_again, &called);
    check_int(called.depth, 3);
    check(called.on_thread);
    loop_free(called.loop);
}

/* Each timer notes its letter when it fires. */
struct timers {
    struct loop *loop;
    struct loop_timer early, late, stopped, again;
    char order[8];
    int len;
    int closed;
    sem_t all_fired, all_closed;
};

static struct timers timers;

static void fired(struct loop_timer *timer)
{
    bool last = timer == &timers.late;
    timers.order[timers.len++] = last                     ? 'l'
                                 : timer == &timers.early ? 'e'
                                 : timer == &timers.again ? 'a'
                                                          : 's';
    if (last)
        sem_post(&timers.all_fired);
}

static void start_timers(void *arg)
{
    struct loop_timer *all[] = {&timers.early, &timers.late, &timers.stopped, &timers.again};
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        loop_timer_init(timers.loop, all[i], fired);
    loop_timer_start(&timers.early, 1);
    loop_timer_start(&timers.stopped, 1);
    loop_timer_stop(&timers.stopped);
    loop_timer_start(&timers.again, 3600 * 1000);
    loop_timer_start(&timers.again, 30); /* replaces the hour */
    /* The last one started, so that it is the last one due however long this function was held up.
     */
    loop_timer_start(&timers.late, 60);
}

static void on_closed(struct loop_timer *timer)
{
    if (++timers.closed == 3)
        sem_post(&timers.all_closed);
}

static void close_timers(void *arg)
{
    loop_timer_close(&timers.stopped, NULL);
    loop_timer_close(&timers.early, on_closed);
    loop_timer_close(&timers.late, on_closed);
    loop_timer_close(&timers.again, on_closed);
}

TEST(loop_timer, fires_in_order_of_time_unless_stopped, .timeout = 120)
{
    memset(&timers, 0, sizeof(timers));
    sem_init(&timers.all_fired, 0, 0);
    sem_init(&timers.all_closed, 0, 0);
    check_int(loop_new(&timers.loop, "test"), 0);
    loop_call(timers.loop, start_timers, NULL);
    sem_wait(&timers.all_fired);
    loop_call(timers.loop, close_timers, NULL);
    sem_wait(&timers.all_closed);
    loop_free(timers.loop);
    check_str(timers.order, "eal");
    sem_destroy(&timers.all_fired);
    sem_destroy(&timers.all_closed);
}

/* A handle that is closed right before loop_free, and posts from its closed callback. */
static struct loop *closing_loop;
static struct loop_timer closing_timer;
static int last_task_runs;

static void last_task(struct loop_task *task)
{
    last_task_runs++;
    free(task);
}

static void post_when_closed(struct loop_timer *timer)
{
    struct loop_task *task = calloc(1, sizeof(*task));
    if (!task)
        abort();
    task->run = last_task;
    loop_post(closing_loop, task);
}

static void never(struct loop_timer *timer)
{
    abort();
}

static void start_and_close(void *arg)
{
    loop_timer_init(closing_loop, &closing_timer, never);
    loop_timer_start(&closing_timer, 3600 * 1000);
    loop_timer_close(&closing_timer, post_when_closed);
}

TEST(loop_free, waits_for_handles_that_are_closing)
{
    for (int i = 0; i < 50; i++) {
        last_task_runs = 0;
        check_int(loop_new(&closing_loop, "test"), 0);
        loop_call(closing_loop, start_and_close, NULL);
        loop_free(closing_loop);
        check_int(last_task_runs, 1);
    }
}

TEST(loop_free, accepts_null)
{
    loop_free(NULL);
}
