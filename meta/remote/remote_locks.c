/*
 * Locks of a remote volume. Calls like the others, but that they wait for ever: whether a lock was
 * had must not be left open. What is held is kept here too, to be claimed from a service that was
 * restarted, and so that the close of a file without locks costs no round trip.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/param.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "remote_impl.h"

static struct lock lock_of(const struct meta_lock *lock)
{
    return (struct lock){
        .class = lock->flock ? LOCKS_FLOCK : LOCKS_POSIX,
        .type = (enum lock_type)lock->type,
        .ino = lock->ino,
        .owner = {.id = lock->owner},
        .pid = lock->pid,
        .start = lock->start,
        .end = lock->end,
        .tag = lock->tag,
    };
}

static int call(struct remote *remote, const struct lock *lock, enum meta_lock_how how,
                struct meta_lock *caller, bool closing)
{
    struct remote_call *c = calloc(1, sizeof(*c));
    if (!c)
        return -ENOMEM;
    c->kind = REMOTE_LOCK;
    c->lock_message.how = (enum wire_lock_how)how;
    c->lock_message.lock = *lock;
    c->lock = caller;
    c->closing = closing;
    return remote_call(remote, c);
}

int meta_lock(struct meta *meta, struct meta_lock *lock)
{
    struct lock wanted = lock_of(lock);
    if (!meta->remote)
        return -ENOSYS;
    int rc = call(meta->remote, &wanted, lock->how, lock, false);
    return rc ? rc : -EINPROGRESS;
}

void remote_lock_put(struct remote *remote, const struct remote_call *c)
{
    struct wire_lock m = c->lock_message;
    m.id = c->id;
    wire_put_lock(&remote->out, &m);
    if (c->cancel)
        wire_put_number(&remote->out, WIRE_LOCK_CANCEL, c->id);
}

/* Cancelling */

/* Those that the service has not seen. */
static void run_cancels(struct loop_task *task)
{
    struct remote *remote = container_of(task, struct remote, cancel_task);
    struct remote_call *c, *next, *ended = NULL;
    pthread_mutex_lock(&remote->lock);
    remote->cancel_posted = false;
    DL_FOREACH_SAFE(remote->order, c, next)
    {
        if (c->kind != REMOTE_LOCK || !c->cancel || c->sent)
            continue;
        remote_remove_locked(remote, c);
        DL_APPEND(ended, c);
    }
    pthread_mutex_unlock(&remote->lock);
    DL_FOREACH_SAFE(ended, c, next)
    {
        DL_DELETE(ended, c);
        c->lock->result = -EINTR;
        c->lock->done(c->lock);
        free(c);
    }
}

void meta_lock_cancel(struct meta *meta, struct meta_lock *lock)
{
    struct remote *remote = meta->remote;
    struct remote_call *c;
    if (!remote)
        return;
    pthread_mutex_lock(&remote->lock);
    lock->cancelled = true;
    DL_FOREACH(remote->order, c)
    {
        if (c->kind != REMOTE_LOCK || c->lock != lock || c->cancel)
            continue;
        c->cancel = true;
        if (c->sent && remote->online) {
            wire_put_number(&remote->out, WIRE_LOCK_CANCEL, c->id);
            remote_post_flush_locked(remote);
        } else if (!c->sent && !remote->cancel_posted && !remote->closing) {
            remote->cancel_posted = true;
            remote->cancel_task.run = run_cancels;
            loop_post(remote->loop, &remote->cancel_task);
        }
        break;
    }
    pthread_mutex_unlock(&remote->lock);
}

/* Closing */

struct find {
    uint64_t owner, tag;
    bool found;
};

static void find_owner(void *arg, const struct lock *lock)
{
    struct find *find = arg;
    find->found |= lock->owner.id == find->owner;
}

static void find_tag(void *arg, const struct lock *lock)
{
    struct find *find = arg;
    if (lock->tag == find->tag && !find->found) {
        find->found = true;
        find->owner = lock->owner.id;
    }
}

int meta_lock_flush(struct meta *meta, struct meta_lock *lock)
{
    struct remote *remote = meta->remote;
    struct find find = {.owner = lock->owner};
    if (!remote)
        return 0;
    pthread_mutex_lock(&remote->lock);
    locks_each_of(remote->locks, lock->ino, LOCKS_POSIX, find_owner, &find);
    pthread_mutex_unlock(&remote->lock);
    if (!find.found)
        return 0;
    lock->how = META_LOCK_TRY;
    lock->type = META_LOCK_NONE;
    lock->flock = false;
    lock->start = 0;
    lock->end = UINT64_MAX;
    struct lock wanted = lock_of(lock);
    int rc = call(remote, &wanted, lock->how, lock, true);
    return rc ? rc : -EINPROGRESS;
}

/* One owner of what was had by the open file, if any is left. It is forgotten here: a service that
 * is restarted before it hears of that is not told of it either. */
static bool take_tagged(struct remote *remote, enum lock_class class, uint64_t ino, uint64_t tag,
                        struct lock *none)
{
    struct find find = {.tag = tag};
    pthread_mutex_lock(&remote->lock);
    locks_each_of(remote->locks, ino, class, find_tag, &find);
    *none = (struct lock){.class = class,
                          .type = LOCKS_NONE,
                          .ino = ino,
                          .owner = {.id = find.owner},
                          .end = UINT64_MAX};
    if (find.found && locks_try(remote->locks, none, NULL) < 0)
        find.found = false;
    pthread_mutex_unlock(&remote->lock);
    return find.found;
}

void meta_lock_release(struct meta *meta, uint64_t ino, uint64_t tag)
{
    struct remote *remote = meta->remote;
    struct lock none;
    if (!remote)
        return;
    for (enum lock_class class = LOCKS_POSIX; class <= LOCKS_FLOCK; class ++)
        while (take_tagged(remote, class, ino, tag, &none))
            call(remote, &none, META_LOCK_TRY, NULL, true);
}

void remote_lock_offline(struct remote *remote)
{
    struct remote_call *c;
    struct meta_lock *lock;
    do {
        lock = NULL;
        pthread_mutex_lock(&remote->lock);
        DL_FOREACH(remote->order, c)
        {
            if (c->kind == REMOTE_LOCK && c->closing && c->lock) {
                lock = TAKE_PTR(c->lock);
                break;
            }
        }
        pthread_mutex_unlock(&remote->lock);
        if (lock) {
            lock->result = 0;
            lock->done(lock);
        }
    } while (lock);
}

/* Answers */

/* What is in the way of a lock that the service gave is no more: its owner waits for the answer of
 * an unlock or another type, or is converting its flock. */
static void note_given_up(struct remote *remote, const struct lock *lock,
                          const struct lock *conflict)
{
    struct lock none = *conflict;
    none.type = LOCKS_NONE;
    none.start = MAX(lock->start, conflict->start);
    none.end = MIN(lock->end, conflict->end);
    locks_try(remote->locks, &none, NULL);
}

static void note_locked(struct remote *remote, const struct remote_call *c)
{
    const struct lock *lock = &c->lock_message.lock;
    struct lock conflict;
    if (c->lock_message.how == WIRE_LOCK_TEST)
        return;
    int rc;
    size_t most = locks_count(remote->locks);
    while ((rc = locks_try(remote->locks, lock, &conflict)) == -EAGAIN && most--)
        note_given_up(remote, lock, &conflict);
    if (rc < 0)
        log_error("lock not noted", "ino=%llu error=%d effect=\"lost if the service restarts\"",
                  (unsigned long long)lock->ino, -rc);
}

/* A flock is converted by giving up the one that it has, whatever comes of it. How far that went is
 * not known, so it is done. */
static void flock_failed(struct remote *remote, const struct lock *lock)
{
    struct lock none = *lock;
    struct find find = {.owner = lock->owner.id};
    none.type = LOCKS_NONE;
    if (lock->class != LOCKS_FLOCK)
        return;
    pthread_mutex_lock(&remote->lock);
    locks_each_of(remote->locks, lock->ino, LOCKS_FLOCK, find_owner, &find);
    if (find.found)
        locks_try(remote->locks, &none, NULL);
    pthread_mutex_unlock(&remote->lock);
    if (find.found)
        call(remote, &none, META_LOCK_TRY, NULL, true);
}

int remote_lock_answer(struct remote *remote, const uint8_t *data, size_t len)
{
    struct wire_lock_done m;
    if (wire_get_lock_done(data, len, &m) < 0)
        return -EBADMSG;
    struct remote_call *c = remote_take(remote, m.id, REMOTE_LOCK);
    if (!c)
        return 0;
    if (m.result)
        flock_failed(remote, &c->lock_message.lock);
    pthread_mutex_lock(&remote->lock);
    if (m.result == 0)
        note_locked(remote, c);
    struct meta_lock *lock = c->lock;
    pthread_mutex_unlock(&remote->lock);
    if (lock) {
        lock->result = m.result;
        if (m.result == 0 && lock->how == META_LOCK_TEST) {
            lock->type = (enum meta_lock_type)m.conflict.type;
            lock->start = m.conflict.start;
            lock->end = m.conflict.end;
            lock->pid = m.conflict.pid;
        }
        lock->done(lock);
    }
    free(c);
    return 0;
}

static void put_claim(void *arg, const struct lock *lock)
{
    wire_put_lock_held(arg, lock);
}

void remote_lock_claims(struct remote *remote, struct buf *b)
{
    pthread_mutex_lock(&remote->lock);
    size_t count = locks_count(remote->locks);
    if (count) {
        size_t start = wire_begin(b, WIRE_LOCK_CLAIM);
        buf_put_varint(b, count);
        locks_each(remote->locks, put_claim, b);
        wire_end(b, start);
    }
    pthread_mutex_unlock(&remote->lock);
}
