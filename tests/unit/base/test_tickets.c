#include "base/tickets.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>

#include "test.h"

/* Waiters note the order in which they were granted. */
struct waiter {
    struct ticket_wait wait;
    int *order;
    int granted; /* 0: not yet, else its place, from 1 */
};

static void on_granted(struct ticket_wait *wait)
{
    struct waiter *w = (struct waiter *)wait;
    w->granted = ++*w->order;
}

static struct waiter waiter(uint64_t bytes, int *order)
{
    return (struct waiter){.wait = {.bytes = bytes, .granted = on_granted}, .order = order};
}

TEST(tickets_try, grants_up_to_the_budget)
{
    struct tickets *t;
    check_int(tickets_new(&t, 100), 0);
    check_uint(tickets_budget(t), 100);
    check(tickets_try(t, 60));
    check(tickets_try(t, 40));
    check(!tickets_try(t, 1));
    check_uint(tickets_used(t), 100);
    tickets_return(t, 60);
    check(tickets_try(t, 1));
    check_uint(tickets_peak(t), 100);
    tickets_return(t, 41);
    check_uint(tickets_used(t), 0);
    tickets_free(t);
}

TEST(tickets_try, grants_more_than_the_budget_when_nothing_is_out)
{
    struct tickets *t;
    check_int(tickets_new(&t, 100), 0);
    check(tickets_try(t, 1));
    check(!tickets_try(t, 1000));
    tickets_return(t, 1);
    check(tickets_try(t, 1000));
    check(!tickets_try(t, 1));
    check(!tickets_try(t, UINT64_MAX)); /* no overflow of the sum */
    tickets_return(t, 1000);
    tickets_free(t);
}

TEST(tickets_take, grants_in_order_and_lets_nobody_pass)
{
    struct tickets *t;
    int order = 0;
    struct waiter large = waiter(80, &order);
    struct waiter small = waiter(10, &order);
    check_int(tickets_new(&t, 100), 0);
    check(tickets_try(t, 50));
    check_int(tickets_take(t, &large.wait), -EINPROGRESS);
    check_int(tickets_take(t, &small.wait), -EINPROGRESS); /* fits, but somebody is in front */
    check(!tickets_try(t, 1));
    check_int(order, 0);
    tickets_return(t, 50);
    check_int(large.granted, 1);
    check_int(small.granted, 2);
    check_uint(tickets_used(t), 90);
    tickets_return(t, 90);
    tickets_free(t);
}

TEST(tickets_take, grants_at_once_without_a_call)
{
    struct tickets *t;
    int order = 0;
    struct waiter w = waiter(100, &order);
    check_int(tickets_new(&t, 100), 0);
    check_int(tickets_take(t, &w.wait), 0);
    check_int(order, 0);
    check(!tickets_cancel(t, &w.wait));
    tickets_return(t, 100);
    tickets_free(t);
}

TEST(tickets_take, larger_than_the_budget_waits_for_all)
{
    struct tickets *t;
    int order = 0;
    struct waiter huge = waiter(1000, &order);
    check_int(tickets_new(&t, 100), 0);
    check(tickets_try(t, 2));
    check_int(tickets_take(t, &huge.wait), -EINPROGRESS);
    tickets_return(t, 1);
    check_int(huge.granted, 0);
    tickets_return(t, 1);
    check_int(huge.granted, 1);
    tickets_return(t, 1000);
    tickets_free(t);
}

TEST(tickets_cancel, takes_out_and_lets_those_behind_pass)
{
    struct tickets *t;
    int order = 0;
    struct waiter large = waiter(80, &order);
    struct waiter small = waiter(10, &order);
    check_int(tickets_new(&t, 100), 0);
    check(tickets_try(t, 50));
    check_int(tickets_take(t, &large.wait), -EINPROGRESS);
    check_int(tickets_take(t, &small.wait), -EINPROGRESS);
    check(tickets_cancel(t, &large.wait));
    check_int(large.granted, 0);
    check_int(small.granted, 1);
    check(!tickets_cancel(t, &large.wait));
    check(!tickets_cancel(t, &small.wait));
    tickets_return(t, 60);
    tickets_free(t);
}

enum { THREADS = 4, ROUNDS = 2000 };

struct taker {
    struct ticket_wait wait;
    struct tickets *t;
    sem_t granted;
    unsigned seed;
    bool over;
};

static void post_granted(struct ticket_wait *wait)
{
    sem_post(&((struct taker *)wait)->granted);
}

static void *take_and_return(void *arg)
{
    struct taker *taker = arg;
    for (int i = 0; i < ROUNDS; i++) {
        taker->wait.bytes = (uint64_t)rand_r(&taker->seed) % 60 + 1;
        bool mine = tickets_take(taker->t, &taker->wait) == 0;
        if (!mine && i % 7 == 0 && tickets_cancel(taker->t, &taker->wait))
            continue;
        if (!mine)
            sem_wait(&taker->granted);
        if (tickets_used(taker->t) > 100)
            taker->over = true;
        tickets_return(taker->t, taker->wait.bytes);
    }
    return NULL;
}

TEST(tickets_take, many_threads_stay_in_the_budget_and_all_are_served, .timeout = 120)
{
    struct tickets *t;
    check_int(tickets_new(&t, 100), 0);
    struct taker taker[THREADS];
    pthread_t thread[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        taker[i] = (struct taker){.wait = {.granted = post_granted}, .t = t, .seed = i};
        sem_init(&taker[i].granted, 0, 0);
        check_int(pthread_create(&thread[i], NULL, take_and_return, &taker[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(thread[i], NULL);
        check(!taker[i].over);
        sem_destroy(&taker[i].granted);
    }
    check_uint(tickets_used(t), 0);
    check(tickets_peak(t) <= 100);
    tickets_free(t);
}

TEST(tickets_free, accepts_null)
{
    tickets_free(NULL);
}
