/* The table of locks, and their messages. */
#include "engine/locks.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "test.h"
#include "wire/wire_locks.h"

#define ALL UINT64_MAX

struct waiter {
    struct lock_waiter w;
    unsigned granted; /* when, from 1 */
};

static unsigned turns;

static void on_granted(struct lock_waiter *w)
{
    container_of(w, struct waiter, w)->granted = ++turns;
}

static struct lock lock(uint64_t ino, uint64_t owner, enum lock_type type, uint64_t start,
                        uint64_t end)
{
    return (struct lock){.class = LOCKS_POSIX,
                         .type = type,
                         .ino = ino,
                         .owner = {owner / 100, owner},
                         .start = start,
                         .end = end};
}

static struct lock flock_of(uint64_t ino, uint64_t owner, enum lock_type type)
{
    struct lock l = lock(ino, owner, type, 0, ALL);
    l.class = LOCKS_FLOCK;
    return l;
}

static int try(struct locks *locks, struct lock l)
{
    return locks_try(locks, &l, NULL);
}

static int wait(struct locks *locks, struct waiter *waiter, struct lock l)
{
    *waiter = (struct waiter){.w = {.lock = l, .granted = on_granted}};
    return locks_wait(locks, &waiter->w);
}

static struct locks *make(void)
{
    struct locks *locks = NULL;
    check_int(locks_new(1000, &locks), 0);
    turns = 0;
    return locks;
}

TEST(locks, who_may_have_what)
{
    struct locks *locks = make();
    struct lock conflict, wanted;
    check_int(try(locks, lock(1, 1, LOCKS_READ, 0, 9)), 0);
    check_int(try(locks, lock(1, 2, LOCKS_READ, 5, 14)), 0);
    check_int(try(locks, lock(1, 3, LOCKS_WRITE, 14, 20)), -EAGAIN);
    check_int(try(locks, lock(1, 3, LOCKS_WRITE, 15, ALL)), 0);
    check_int(try(locks, lock(2, 3, LOCKS_WRITE, 0, ALL)), 0);
    wanted = lock(1, 4, LOCKS_READ, 10, ALL);
    check_int(locks_test(locks, &wanted, &conflict), 1);
    check_uint(conflict.owner.id, 3);
    check_uint(conflict.start, 15);
    check_int(try(locks, flock_of(1, 4, LOCKS_WRITE)), 0); /* of the other kind */
    locks_free(locks);
}

TEST(locks, turns_are_kept)
{
    struct locks *locks = make();
    struct waiter w, r, r2;
    check_int(try(locks, lock(1, 1, LOCKS_READ, 0, ALL)), 0);
    check_int(wait(locks, &w, lock(1, 2, LOCKS_WRITE, 0, ALL)), -EINPROGRESS);
    check_int(wait(locks, &r, lock(1, 3, LOCKS_READ, 0, ALL)), -EINPROGRESS); /* behind it */
    check_int(wait(locks, &r2, lock(1, 4, LOCKS_READ, 0, ALL)), -EINPROGRESS);
    check_int(try(locks, lock(1, 5, LOCKS_READ, 0, 0)), 0); /* who does not wait has no turn */
    check_int(try(locks, lock(1, 5, LOCKS_NONE, 0, ALL)), 0);
    check_uint(w.granted, 0);
    check_int(try(locks, lock(1, 1, LOCKS_NONE, 0, ALL)), 0);
    check_uint(w.granted, 1);
    check_uint(r.granted, 0);
    check_int(try(locks, lock(1, 2, LOCKS_READ, 0, ALL)), 0);
    check_uint(r.granted, 2);
    check_uint(r2.granted, 3);
    check_uint(locks_waiting(locks), 0);
    locks_free(locks);
}

TEST(locks, a_write_lock_given_up_by_waiting_lets_one_before_pass)
{
    struct locks *locks = make();
    struct waiter reader, grown;
    check_int(try(locks, lock(1, 1, LOCKS_WRITE, 0, 10)), 0);
    check_int(try(locks, lock(1, 2, LOCKS_WRITE, 50, 60)), 0);
    check_int(wait(locks, &reader, lock(1, 3, LOCKS_READ, 0, 10)), -EINPROGRESS);
    check_int(wait(locks, &grown, lock(1, 1, LOCKS_READ, 0, 100)), -EINPROGRESS);
    check_int(try(locks, lock(1, 2, LOCKS_NONE, 0, ALL)), 0);
    check_uint(grown.granted, 1);
    check_uint(reader.granted, 2);
    check_uint(locks_waiting(locks), 0);
    locks_free(locks);
}

TEST(locks, cancelled_wait_lets_others_pass)
{
    struct locks *locks = make();
    struct waiter w, r;
    check_int(try(locks, lock(1, 1, LOCKS_READ, 0, ALL)), 0);
    check_int(wait(locks, &w, lock(1, 2, LOCKS_WRITE, 0, ALL)), -EINPROGRESS);
    check_int(wait(locks, &r, lock(1, 3, LOCKS_READ, 0, ALL)), -EINPROGRESS);
    locks_cancel(locks, &w.w);
    check_uint(r.granted, 1);
    check_uint(w.granted, 0);
    check_uint(locks_count(locks), 2);
    locks_free(locks);
}

TEST(locks, deadlock_of_three)
{
    struct locks *locks = make();
    struct waiter a, b, c;
    for (uint64_t i = 1; i <= 3; i++)
        check_int(try(locks, lock(i, i, LOCKS_WRITE, 0, ALL)), 0);
    check_int(wait(locks, &a, lock(2, 1, LOCKS_WRITE, 5, 5)), -EINPROGRESS);
    check_int(wait(locks, &b, lock(3, 2, LOCKS_WRITE, 5, 5)), -EINPROGRESS);
    check_int(wait(locks, &c, lock(1, 3, LOCKS_WRITE, 5, 5)), -EDEADLK);
    check_uint(locks_waiting(locks), 2);
    check_int(try(locks, lock(3, 3, LOCKS_NONE, 0, ALL)), 0);
    check_uint(b.granted, 1);
    check_int(try(locks, lock(2, 2, LOCKS_NONE, 0, ALL)), 0);
    check_uint(a.granted, 2);
    locks_free(locks);
}

TEST(locks, two_upgrades_are_a_deadlock_one_is_not)
{
    struct locks *locks = make();
    struct waiter a, b;
    check_int(try(locks, lock(1, 1, LOCKS_READ, 0, ALL)), 0);
    check_int(try(locks, lock(1, 2, LOCKS_READ, 0, ALL)), 0);
    check_int(wait(locks, &a, lock(1, 1, LOCKS_WRITE, 0, ALL)), -EINPROGRESS);
    check_int(wait(locks, &b, lock(1, 2, LOCKS_WRITE, 0, ALL)), -EDEADLK);
    check_int(try(locks, lock(1, 2, LOCKS_NONE, 0, ALL)), 0);
    check_uint(a.granted, 1);
    locks_free(locks);
}

/* A turn that would make a circle is not kept: nobody would go on, and nothing forbids it. */
TEST(locks, turns_make_no_deadlock)
{
    struct locks *locks = make();
    struct waiter w, x, r;
    check_int(try(locks, lock(1, 1, LOCKS_READ, 0, ALL)), 0);  /* R */
    check_int(try(locks, lock(2, 3, LOCKS_WRITE, 0, ALL)), 0); /* X */
    check_int(wait(locks, &w, lock(1, 2, LOCKS_WRITE, 0, ALL)), -EINPROGRESS);
    check_int(wait(locks, &x, lock(1, 3, LOCKS_READ, 0, ALL)), -EINPROGRESS); /* behind W */
    /* R waits for X, X for its turn behind W, W for R. */
    check_int(wait(locks, &r, lock(2, 1, LOCKS_WRITE, 0, ALL)), -EINPROGRESS);
    check_uint(x.granted, 1);
    check_int(try(locks, lock(2, 3, LOCKS_NONE, 0, ALL)), 0);
    check_uint(r.granted, 2);
    /* And one that is asked for last: it holds what W waits for. */
    check_int(wait(locks, &x, lock(1, 1, LOCKS_READ, 0, 5)), 0);
    locks_cancel(locks, &w.w);
    locks_free(locks);
}

TEST(locks, a_turn_is_dropped_when_its_reason_is_gone)
{
    struct locks *locks = make();
    struct waiter w, x, r;
    check_int(try(locks, lock(1, 1, LOCKS_READ, 0, ALL)), 0);
    check_int(try(locks, lock(1, 4, LOCKS_WRITE, 0, ALL)), -EAGAIN);
    check_int(try(locks, lock(2, 3, LOCKS_WRITE, 0, ALL)), 0);
    check_int(wait(locks, &w, lock(1, 2, LOCKS_WRITE, 0, 9)), -EINPROGRESS);
    /* X waits for a held lock and for its turn; R for X. */
    check_int(try(locks, lock(1, 5, LOCKS_WRITE, 20, 29)), -EAGAIN);
    check_int(wait(locks, &x, lock(1, 3, LOCKS_WRITE, 0, 29)), -EINPROGRESS);
    check_int(wait(locks, &r, lock(2, 1, LOCKS_WRITE, 0, ALL)), -EDEADLK);
    check_int(try(locks, lock(1, 1, LOCKS_NONE, 0, ALL)), 0);
    check_uint(w.granted, 1);
    check_int(try(locks, lock(1, 2, LOCKS_NONE, 0, ALL)), 0);
    check_uint(x.granted, 2);
    locks_free(locks);
}

TEST(locks, flock_converts_by_giving_up)
{
    struct locks *locks = make();
    struct waiter a;
    check_int(try(locks, flock_of(1, 1, LOCKS_READ)), 0);
    check_int(try(locks, flock_of(1, 2, LOCKS_READ)), 0);
    check_int(wait(locks, &a, flock_of(1, 1, LOCKS_WRITE)), -EINPROGRESS);
    /* Both at once: no deadlock, as nobody holds while it waits. */
    check_int(try(locks, flock_of(1, 2, LOCKS_WRITE)), 0);
    check_int(try(locks, flock_of(1, 2, LOCKS_NONE)), 0);
    check_uint(a.granted, 1);
    locks_free(locks);
}

TEST(locks, session_end_releases_its_own_only)
{
    struct locks *locks = make();
    struct waiter a;
    check_int(try(locks, lock(1, 101, LOCKS_WRITE, 0, 9)), 0);
    check_int(try(locks, lock(1, 201, LOCKS_WRITE, 10, 19)), 0);
    check_int(try(locks, flock_of(1, 102, LOCKS_READ)), 0);
    check_int(wait(locks, &a, lock(1, 202, LOCKS_WRITE, 5, 5)), -EINPROGRESS);
    locks_session_over(locks, 1);
    check_uint(a.granted, 1);
    check_uint(locks_count(locks), 2);
    check_int(try(locks, lock(1, 301, LOCKS_WRITE, 10, 10)), -EAGAIN);
    locks_free(locks);
}

TEST(locks, a_session_has_a_maximum)
{
    struct locks *locks = NULL;
    struct waiter w;
    check_int(locks_new(3, &locks), 0);
    check_int(try(locks, lock(1, 1, LOCKS_WRITE, 0, 9)), 0);
    check_int(try(locks, lock(1, 100, LOCKS_WRITE, 10, 19)), 0);
    check_int(try(locks, lock(2, 1, LOCKS_WRITE, 0, 0)), 0);
    check_int(try(locks, lock(1, 1, LOCKS_NONE, 4, 4)), 0); /* giving up is never refused */
    check_int(try(locks, lock(3, 1, LOCKS_WRITE, 0, 0)), -ENOLCK);
    check_int(wait(locks, &w, lock(1, 1, LOCKS_WRITE, 10, 10)), -ENOLCK);
    check_int(try(locks, lock(3, 100, LOCKS_WRITE, 0, 0)), 0);
    check_uint(locks_waiting(locks), 0);
    locks_free(locks);
}

/* Random requests against one array of bytes for each owner. */

enum { BYTES = 24, OWNERS = 4 };

struct model {
    enum lock_type have[OWNERS][BYTES + 1]; /* the last: all from there on */
    size_t ranges;
};

static void see(void *arg, const struct lock *l)
{
    struct model *m = arg;
    m->ranges++;
    for (uint64_t i = l->start; i <= BYTES && i <= l->end; i++) {
        check(m->have[l->owner.id][i] == 0); /* ranges do not overlap */
        m->have[l->owner.id][i] = l->type;
    }
}

TEST(locks, ranges_agree_with_bytes)
{
    struct locks *locks = make();
    struct model model = {0};
    unsigned seed = 7;
    for (int round = 0; round < 20000; round++) {
        uint64_t owner = (uint64_t)rand_r(&seed) % OWNERS;
        uint64_t start = (uint64_t)rand_r(&seed) % BYTES;
        uint64_t end = start + (uint64_t)rand_r(&seed) % (BYTES - start);
        enum lock_type type = LOCKS_READ + (unsigned)rand_r(&seed) % 3;
        if (rand_r(&seed) % 8 == 0)
            end = ALL;
        int expect = 0;
        for (uint64_t o = 0; o < OWNERS; o++)
            for (uint64_t i = start; type != LOCKS_NONE && i <= BYTES && i <= end; i++)
                if (o != owner && model.have[o][i] &&
                    (type == LOCKS_WRITE || model.have[o][i] == LOCKS_WRITE))
                    expect = -EAGAIN;
        check_int(try(locks, lock(1, owner, type, start, end)), expect);
        for (uint64_t i = start; expect == 0 && i <= BYTES && i <= end; i++)
            model.have[owner][i] = type == LOCKS_NONE ? 0 : type;
        struct model now = {0};
        locks_each(locks, see, &now);
        check(memcmp(now.have, model.have, sizeof(now.have)) == 0);
        size_t least = 0; /* neighbours of one type are one range */
        for (int o = 0; o < OWNERS; o++)
            for (int i = 0; i <= BYTES; i++)
                least += now.have[o][i] && (i == 0 || now.have[o][i] != now.have[o][i - 1]);
        check_uint(now.ranges, least);
        check_uint(locks_count(locks), least);
    }
    locks_free(locks);
}

/* Random waits of many owners on a few files: in the end all got theirs or were refused. */
TEST(locks, nobody_waits_for_ever)
{
    enum { MANY = 40, FILES = 3 };
    struct locks *locks = make();
    struct waiter waiters[MANY] = {0};
    bool waits[MANY] = {0};
    unsigned seed = 3;
    for (int round = 0; round < 20000; round++) {
        unsigned i = (unsigned)rand_r(&seed) % MANY;
        uint64_t ino = 1 + (uint64_t)rand_r(&seed) % FILES, at = (uint64_t)rand_r(&seed) % 4;
        enum lock_type type = LOCKS_READ + (unsigned)rand_r(&seed) % 2;
        if (waits[i] && waiters[i].granted)
            waits[i] = false;
        if (waits[i]) {
            if (rand_r(&seed) % 4 == 0) {
                locks_cancel(locks, &waiters[i].w);
                waits[i] = false;
            }
        } else if (rand_r(&seed) % 2) {
            for (ino = 1; ino <= FILES; ino++)
                try(locks, lock(ino, i, LOCKS_NONE, 0, ALL));
        } else {
            waits[i] = wait(locks, &waiters[i], lock(ino, i, type, at, at + 1)) == -EINPROGRESS;
        }
    }
    /* Who does not wait gives up what it has: nobody of the others may stay. */
    for (unsigned left = MANY, before = 0; left != before;) {
        before = left;
        left = 0;
        for (unsigned i = 0; i < MANY; i++) {
            if (waits[i] && !waiters[i].granted) {
                left++;
                continue;
            }
            for (uint64_t ino = 1; ino <= FILES; ino++)
                try(locks, lock(ino, i, LOCKS_NONE, 0, ALL));
        }
    }
    check_uint(locks_waiting(locks), 0);
    check_uint(locks_count(locks), 0);
    locks_free(locks);
}

/* Messages */

static void see_held(void *arg, const struct lock *l)
{
    ((uint64_t *)arg)[0]++;
    ((uint64_t *)arg)[1] += l->start + l->owner.id;
}

TEST(locks, messages_round_trip)
{
    struct wire_lock got,
        m = {.id = 300, .how = WIRE_LOCK_WAIT, .lock = lock(9, 77, LOCKS_READ, 5, ALL)};
    struct wire_lock_done got_done,
        done = {.id = 300, .result = -EDEADLK, .conflict = lock(0, 0, LOCKS_NONE, 0, ALL)};
    struct buf b;
    uint64_t seen[2] = {0};
    m.lock.pid = 4711;
    buf_init(&b, 0);
    wire_put_lock(&b, &m);
    check_int(wire_get_lock(b.data + WIRE_HEAD, b.len - WIRE_HEAD, &got), 0);
    check_uint(got.id, 300);
    check(got.how == WIRE_LOCK_WAIT && got.lock.type == LOCKS_READ &&
          got.lock.class == LOCKS_POSIX);
    check(got.lock.ino == 9 && got.lock.owner.id == 77 && got.lock.end == ALL &&
          got.lock.pid == 4711);
    for (size_t n = 0; n < b.len - WIRE_HEAD; n++)
        check_int(wire_get_lock(b.data + WIRE_HEAD, n, &got), -EBADMSG);
    buf_reset(&b);
    m.lock.type = LOCKS_NONE; /* who gives up does not wait */
    wire_put_lock(&b, &m);
    check_int(wire_get_lock(b.data + WIRE_HEAD, b.len - WIRE_HEAD, &got), -EBADMSG);
    buf_reset(&b);
    m.lock = lock(9, 77, LOCKS_READ, 6, 5);
    wire_put_lock(&b, &m);
    check_int(wire_get_lock(b.data + WIRE_HEAD, b.len - WIRE_HEAD, &got), -EBADMSG);
    buf_reset(&b);
    wire_put_lock_done(&b, &done);
    check_int(wire_get_lock_done(b.data + WIRE_HEAD, b.len - WIRE_HEAD, &got_done), 0);
    check_int(got_done.result, -EDEADLK);
    for (size_t n = 0; n < b.len - WIRE_HEAD; n++)
        check_int(wire_get_lock_done(b.data + WIRE_HEAD, n, &got_done), -EBADMSG);
    buf_reset(&b);
    size_t start = wire_begin(&b, WIRE_LOCK_CLAIM);
    buf_put_varint(&b, 2);
    struct lock one = lock(1, 5, LOCKS_WRITE, 10, 20), two = flock_of(2, 6, LOCKS_READ);
    wire_put_lock_held(&b, &one);
    wire_put_lock_held(&b, &two);
    wire_end(&b, start);
    check_int(wire_get_lock_claim(b.data + WIRE_HEAD, b.len - WIRE_HEAD, see_held, seen), 0);
    check_uint(seen[0], 2);
    check_uint(seen[1], 21);
    for (size_t n = 0; n < b.len - WIRE_HEAD; n++)
        check_int(wire_get_lock_claim(b.data + WIRE_HEAD, n, see_held, seen), -EBADMSG);
    check_uint(seen[0], 2);
    buf_done(&b);
}
