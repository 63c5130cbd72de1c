/* See server_locks.h. */
#include "server_locks.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "server_subtree.h"

#define LOCKS_MAX 65536 /* of a session: ranges that it holds, and requests that wait */

/* A request without an answer. */
struct locker {
    struct session *session;
    uint64_t id;
    enum wire_lock_how how;
    bool parked; /* until the sessions of before a restart are back */
    struct lock_waiter waiter;
    struct locker *prev, *next; /* volume->parked */
    UT_hash_handle hh;          /* session->lockers */
};

int server_locks_new(struct server_volume *volume)
{
    return locks_new(LOCKS_MAX, &volume->locks);
}

void server_locks_free(struct server_volume *volume)
{
    locks_free(volume->locks);
}

static void answer(struct session *session, uint64_t id, int result, const struct lock *conflict)
{
    struct wire_lock_done done = {
        .id = id, .result = result, .conflict = {.type = LOCKS_NONE, .end = UINT64_MAX}};
    if (conflict) {
        done.conflict = *conflict;
        /* Another host's processes are not those of this one. */
        if (conflict->owner.session != session->id)
            done.conflict.pid = 0;
    }
    if (session->conn)
        wire_put_lock_done(conn_out(session->conn), &done);
}

static void locker_free(struct locker *locker)
{
    struct session *session = locker->session;
    if (locker->parked)
        DL_DELETE(session->volume->parked, locker);
    HASH_DEL(session->lockers, locker);
    free(locker);
}

static void on_granted(struct lock_waiter *waiter)
{
    struct locker *locker = container_of(waiter, struct locker, waiter);
    answer(locker->session, locker->id, 0, NULL);
    locker_free(locker);
}

/* `locker` is answered and freed, but for one that waits. */
static void serve(struct locker *locker)
{
    struct session *session = locker->session;
    struct locks *locks = session->volume->locks;
    struct lock *lock = &locker->waiter.lock;
    struct lock conflict = {0};
    int rc = 0;
    switch (locker->how) {
    case WIRE_LOCK_TEST:
        rc = locks_test(locks, lock, &conflict);
        answer(session, locker->id, 0, rc ? &conflict : NULL);
        break;
    case WIRE_LOCK_TRY:
        rc = locks_try(locks, lock, &conflict);
        answer(session, locker->id, rc, rc == -EAGAIN ? &conflict : NULL);
        break;
    case WIRE_LOCK_WAIT:
        rc = locks_wait(locks, &locker->waiter);
        if (rc == -EINPROGRESS)
            return;
        answer(session, locker->id, rc, NULL);
        break;
    }
    locker_free(locker);
}

void lock_take(struct session *session, const struct wire_lock *m)
{
    struct server_volume *volume = session->volume;
    struct locker *locker;
    struct lock lock = m->lock;
    HASH_FIND(hh, session->lockers, &m->id, sizeof(m->id), locker);
    if (locker)
        return; /* sent again, and it still waits */
    metric_add(volume->server->requests, 1);
    int rc = subtree_take_ino(session, &lock.ino);
    /* What is given up needs no look: it may be out of reach by now. */
    if (rc < 0 && lock.type != LOCKS_NONE) {
        answer(session, m->id, rc, NULL);
        return;
    }
    locker = HASH_COUNT(session->lockers) < LOCKS_MAX ? calloc(1, sizeof(*locker)) : NULL;
    if (!locker) {
        answer(session, m->id, -ENOLCK, NULL);
        return;
    }
    lock.owner.session = session->id;
    locker->session = session;
    locker->id = m->id;
    locker->how = m->how;
    locker->waiter.lock = lock;
    locker->waiter.granted = on_granted;
    HASH_ADD(hh, session->lockers, id, sizeof(locker->id), locker);
    locker->parked = volume->restored && lock.type != LOCKS_NONE;
    if (locker->parked)
        DL_APPEND(volume->parked, locker);
    else
        serve(locker);
}

void lock_cancel(struct session *session, uint64_t id)
{
    struct locker *locker;
    HASH_FIND(hh, session->lockers, &id, sizeof(id), locker);
    if (!locker)
        return; /* its answer is under way */
    if (!locker->parked)
        locks_cancel(session->volume->locks, &locker->waiter);
    answer(session, id, -EINTR, NULL);
    locker_free(locker);
}

struct claim {
    struct session *session;
    unsigned refused;
};

static void each_claim(void *arg, const struct lock *held)
{
    struct claim *claim = arg;
    struct session *session = claim->session;
    struct lock lock = *held;
    lock.owner.session = session->id;
    if (subtree_take_ino(session, &lock.ino) == 0 &&
        locks_try(session->volume->locks, &lock, NULL) < 0)
        claim->refused++;
}

int lock_claims_take(struct session *session, const uint8_t *data, size_t len)
{
    struct claim claim = {.session = session};
    if (!session->claiming)
        return -EBADMSG;
    int rc = wire_get_lock_claim(data, len, each_claim, &claim);
    /* Never a silent loss: who believes to have what it has not may not go on. */
    if (rc == 0 && claim.refused)
        session_end(session, "locks that it had cannot be had again");
    return rc;
}

void session_locks_over(struct session *session)
{
    struct locker *locker;
    /* Each that goes may let another of this session have its lock, which frees it. */
    while ((locker = session->lockers)) {
        if (!locker->parked)
            locks_cancel(session->volume->locks, &locker->waiter);
        locker_free(locker);
    }
    locks_session_over(session->volume->locks, session->id);
}

void volume_locks_recovered(struct server_volume *volume)
{
    while (volume->parked && !volume->restored) {
        struct locker *locker = volume->parked;
        DL_DELETE(volume->parked, locker);
        locker->parked = false;
        serve(locker);
    }
}
