/* Which inodes the kernel knows: counted lookups, unlinked inodes, many of them, many threads. */
#include <pthread.h>

#include "front/front_inodes.h"
#include "test.h"

#define MANY 200000u
#define THREADS 4

TEST(inodes, are_known_until_all_lookups_are_given_back)
{
    struct inodes *t;
    check_int(inodes_new(&t), 0);
    check(!inodes_known(t, 7));
    check_int(inodes_add(t, 7, 1), 0);
    check_int(inodes_add(t, 7, 2), 0);
    check(!inodes_forget(t, 7, 2));
    check(inodes_known(t, 7));
    check_uint(inodes_count(t), 1);
    check(!inodes_forget(t, 7, 1));
    check(!inodes_known(t, 7));
    check_uint(inodes_count(t), 0);
    inodes_free(t);
}

TEST(inodes, are_dropped_when_unlinked_and_forgotten)
{
    struct inodes *t;
    check_int(inodes_new(&t), 0);
    check_int(inodes_add(t, 7, 2), 0);
    check(!inodes_unlinked(t, 7));
    check(!inodes_forget(t, 7, 1));
    check(inodes_forget(t, 7, 1));
    check(!inodes_known(t, 7));
    inodes_free(t);
}

TEST(inodes, are_kept_when_linked_again)
{
    struct inodes *t;
    check_int(inodes_new(&t), 0);
    check_int(inodes_add(t, 7, 1), 0);
    check(!inodes_unlinked(t, 7));
    inodes_linked(t, 7);
    check(!inodes_forget(t, 7, 1));
    inodes_free(t);
}

TEST(inodes, are_dropped_at_once_when_the_kernel_does_not_know_them)
{
    struct inodes *t;
    check_int(inodes_new(&t), 0);
    check(inodes_unlinked(t, 7));
    check_int(inodes_add(t, 8, 1), 0);
    check(inodes_unlinked(t, 7));
    check(!inodes_forget(t, 7, 1));
    check_uint(inodes_count(t), 1);
    inodes_free(t);
}

TEST(inodes, count_more_given_back_than_given_as_all)
{
    struct inodes *t;
    check_int(inodes_new(&t), 0);
    check_int(inodes_add(t, 7, 1), 0);
    check(!inodes_forget(t, 7, 100));
    check(!inodes_known(t, 7));
    inodes_free(t);
}

static void count_one(void *arg, uint64_t ino)
{
    uint64_t *sum = arg;
    *sum += ino;
}

/* Slots are shifted when one is removed: none may be lost by that. */
TEST(inodes, survive_growth_and_removal_of_their_neighbours)
{
    struct inodes *t;
    check_int(inodes_new(&t), 0);
    for (uint64_t i = 1; i <= MANY; i++)
        check_int(inodes_add(t, i, i % 3 + 1), 0);
    check_uint(inodes_count(t), MANY);
    for (uint64_t i = 1; i <= MANY; i++)
        if (i % 2 == 0)
            check(!inodes_forget(t, i, i % 3 + 1));
    check_uint(inodes_count(t), MANY / 2);
    for (uint64_t i = 1; i <= MANY; i++)
        check(inodes_known(t, i) == (i % 2 == 1));
    uint64_t sum = 0;
    inodes_each(t, count_one, &sum);
    check_uint(sum, (uint64_t)(MANY / 2) * (MANY / 2));
    for (uint64_t i = 1; i <= MANY; i += 2) {
        check(!inodes_unlinked(t, i));
        check(inodes_forget(t, i, i % 3 + 1));
    }
    check_uint(inodes_count(t), 0);
    inodes_free(t);
}

struct thread {
    pthread_t id;
    struct inodes *t;
    unsigned dropped, failed;
};

/* All threads look the same inodes up and forget them: each is dropped by exactly one. */
static void *look_and_forget(void *arg)
{
    struct thread *me = arg;
    for (uint64_t i = 1; i <= 20000; i++)
        me->dropped += inodes_forget(me->t, i, 1);
    return NULL;
}

TEST(inodes, are_dropped_by_one_of_many_threads)
{
    struct inodes *t;
    struct thread threads[THREADS] = {0};
    check_int(inodes_new(&t), 0);
    for (uint64_t i = 1; i <= 20000; i++) {
        check_int(inodes_add(t, i, THREADS), 0);
        check(!inodes_unlinked(t, i));
    }
    for (unsigned i = 0; i < THREADS; i++) {
        threads[i].t = t;
        check_int(pthread_create(&threads[i].id, NULL, look_and_forget, &threads[i]), 0);
    }
    unsigned dropped = 0;
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(threads[i].id, NULL);
        dropped += threads[i].dropped;
    }
    check_uint(dropped, 20000);
    check_uint(inodes_count(t), 0);
    inodes_free(t);
}
