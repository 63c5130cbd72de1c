#include "base/pool.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "thread.h"

struct pool {
    /* immutable after pool_new */
    unsigned threads;
    /* under lock */
    pthread_mutex_t lock;
    pthread_cond_t more; /* the queue is not empty, or stopping */
    struct pool_task *head, **tail;
    bool stopping;

    atomic_uint submitting; /* who wakes a thread, after his task may have ended already */
    pthread_t thread[];
};

static void *pool_thread(void *arg)
{
    struct pool *pool = arg;
    pthread_mutex_lock(&pool->lock);
    for (;;) {
        while (!pool->head && !pool->stopping)
            pthread_cond_wait(&pool->more, &pool->lock);
        struct pool_task *task = pool->head;
        if (!task)
            break; /* A task that still runs elsewhere may add more; its own thread will take it. */
        pool->head = task->next;
        if (!pool->head)
            pool->tail = &pool->head;
        pthread_mutex_unlock(&pool->lock);
        task->run(task);
        pthread_mutex_lock(&pool->lock);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

int pool_new(struct pool **out, const char *name, unsigned threads)
{
    if (threads < 1 || threads > 256)
        return -EINVAL;
    struct pool *pool = calloc(1, sizeof(*pool) + threads * sizeof(pool->thread[0]));
    if (!pool)
        return -ENOMEM;
    pool->tail = &pool->head;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->more, NULL);
    for (unsigned i = 0; i < threads; i++) {
        char thread_name[32];
        snprintf(thread_name, sizeof(thread_name), "%.12s%u", name, i);
        int rc = thread_start(&pool->thread[i], thread_name, pool_thread, pool);
        if (rc) {
            pool_free(pool);
            return rc;
        }
        pool->threads++;
    }
    *out = pool;
    return 0;
}

void pool_free(struct pool *pool)
{
    if (!pool)
        return;
    pthread_mutex_lock(&pool->lock);
    pool->stopping = true;
    pthread_cond_broadcast(&pool->more);
    pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 0; i < pool->threads; i++)
        pthread_join(pool->thread[i], NULL);
    while (atomic_load(&pool->submitting) > 0)
        sched_yield();
    pthread_cond_destroy(&pool->more);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

void pool_submit(struct pool *pool, struct pool_task *task)
{
    task->next = NULL;
    atomic_fetch_add(&pool->submitting, 1);
    pthread_mutex_lock(&pool->lock);
    *pool->tail = task;
    pool->tail = &task->next;
    pthread_mutex_unlock(&pool->lock);
    /* After the unlock: it would wake only to wait for it. */
    pthread_cond_signal(&pool->more);
    atomic_fetch_sub(&pool->submitting, 1);
}
