/*
 * See locks.h. Who waits for whom is found when it is needed: a waiter waits for the owners of held
 * locks that conflict with it, and for waiters before it that conflict with it (its turn). A circle
 * of the first kind alone is a deadlock. One that needs a turn is none: turns are only kept for
 * fairness, so who waits for nothing but its turn in such a circle goes first.
 */
#include "locks.h"

#include <errno.h>
#include <stdlib.h>
#include <utlist.h>

#include "base/cleanup.h"

struct held {
    struct lock lock;
    struct lock_holder *holder;
    struct held *prev, *next;
};

struct lock_holder {
    struct lock_owner owner;
    size_t held;
    struct lock_waiter *waiters;
    unsigned mark;
    UT_hash_handle hh;
};

struct lock_file {
    uint64_t ino;
    enum lock_class class;
    uint32_t pad;
    struct held *held;           /* by start */
    struct lock_waiter *waiters; /* by arrival */
    UT_hash_handle hh;
};

struct session_count {
    uint64_t session;
    size_t count; /* held and waiting */
    UT_hash_handle hh;
};

struct locks {
    size_t max, held, waiting;
    unsigned mark;
    struct lock_file *files;
    struct lock_holder *holders;
    struct session_count *sessions;
};

#define FILE_KEY_LEN (offsetof(struct lock_file, pad) - offsetof(struct lock_file, ino))

int locks_new(size_t max, struct locks **out)
{
    struct locks *locks = calloc(1, sizeof(*locks));
    if (!locks)
        return -ENOMEM;
    locks->max = max;
    *out = locks;
    return 0;
}

static bool same_owner(const struct lock_owner *a, const struct lock_owner *b)
{
    return a->session == b->session && a->id == b->id;
}

static bool conflicts(const struct lock *a, const struct lock *b)
{
    return a->start <= b->end && b->start <= a->end && !same_owner(&a->owner, &b->owner) &&
           (a->type == LOCKS_WRITE || b->type == LOCKS_WRITE);
}

/* The small tables */

static struct lock_file *file_find(const struct locks *locks, uint64_t ino, enum lock_class class)
{
    struct lock_file *file, key = {.ino = ino, .class = class};
    HASH_FIND(hh, locks->files, &key.ino, FILE_KEY_LEN, file);
    return file;
}

static struct lock_file *file_need(struct locks *locks, const struct lock *lock)
{
    struct lock_file *file = file_find(locks, lock->ino, lock->class);
    if (file)
        return file;
    file = calloc(1, sizeof(*file));
    if (!file)
        return NULL;
    file->ino = lock->ino;
    file->class = lock->class;
    HASH_ADD(hh, locks->files, ino, FILE_KEY_LEN, file);
    return file;
}

static void file_tidy(struct locks *locks, struct lock_file *file)
{
    if (file->held || file->waiters)
        return;
    HASH_DEL(locks->files, file);
    free(file);
}

static struct lock_holder *holder_find(const struct locks *locks, const struct lock_owner *owner)
{
    struct lock_holder *holder;
    HASH_FIND(hh, locks->holders, owner, sizeof(*owner), holder);
    return holder;
}

static struct lock_holder *holder_need(struct locks *locks, const struct lock_owner *owner)
{
    struct lock_holder *holder = holder_find(locks, owner);
    if (holder)
        return holder;
    holder = calloc(1, sizeof(*holder));
    if (!holder)
        return NULL;
    holder->owner = *owner;
    HASH_ADD(hh, locks->holders, owner, sizeof(holder->owner), holder);
    return holder;
}

static void holder_tidy(struct locks *locks, struct lock_holder *holder)
{
    if (holder->held || holder->waiters)
        return;
    HASH_DEL(locks->holders, holder);
    free(holder);
}

/* One more for a session: 0, -ENOLCK (not with `force`) or -ENOMEM. */
static int count_one(struct locks *locks, uint64_t session, bool force)
{
    struct session_count *c;
    HASH_FIND(hh, locks->sessions, &session, sizeof(session), c);
    if (!c) {
        c = calloc(1, sizeof(*c));
        if (!c)
            return -ENOMEM;
        c->session = session;
        HASH_ADD(hh, locks->sessions, session, sizeof(c->session), c);
    }
    if (c->count >= locks->max && !force)
        return -ENOLCK;
    c->count++;
    return 0;
}

static void uncount_one(struct locks *locks, uint64_t session)
{
    struct session_count *c;
    HASH_FIND(hh, locks->sessions, &session, sizeof(session), c);
    if (--c->count)
        return;
    HASH_DEL(locks->sessions, c);
    free(c);
}

/* Held ranges */

static int by_start(const struct held *a, const struct held *b)
{
    return a->lock.start < b->lock.start ? -1 : a->lock.start > b->lock.start;
}

/* NULL without memory. It is counted for the session already. */
static struct held *held_new(struct locks *locks, const struct lock *lock)
{
    struct held *held = calloc(1, sizeof(*held));
    if (!held)
        return NULL;
    held->holder = holder_need(locks, &lock->owner);
    if (!held->holder) {
        free(held);
        return NULL;
    }
    held->holder->held++;
    held->lock = *lock;
    locks->held++;
    return held;
}

static void held_free(struct locks *locks, struct held *held)
{
    held->holder->held--;
    holder_tidy(locks, held->holder);
    uncount_one(locks, held->lock.owner.session);
    locks->held--;
    free(held);
}

static void held_insert(struct lock_file *file, struct held *held)
{
    DL_INSERT_INORDER(file->held, held, by_start);
}

static void held_remove(struct locks *locks, struct lock_file *file, struct held *held)
{
    DL_DELETE(file->held, held);
    held_free(locks, held);
}

/* What a change may need: the new range, and the second half of one that it cuts in two. */
struct spare {
    struct held *new, *half;
};

static void spare_free(struct locks *locks, struct spare *spare)
{
    if (spare->new)
        held_free(locks, spare->new);
    if (spare->half)
        held_free(locks, spare->half);
    *spare = (struct spare){0};
}

static struct held *spare_one(struct locks *locks, const struct lock *lock, bool force, int *rc)
{
    *rc = count_one(locks, lock->owner.session, force);
    if (*rc < 0)
        return NULL;
    struct held *held = held_new(locks, lock);
    if (!held) {
        uncount_one(locks, lock->owner.session);
        *rc = -ENOMEM;
    }
    return held;
}

static bool is_cut(const struct lock_file *file, const struct lock *lock)
{
    const struct held *h;
    DL_FOREACH(file->held, h)
    {
        if (same_owner(&h->lock.owner, &lock->owner) && h->lock.type != lock->type &&
            h->lock.start < lock->start && h->lock.end > lock->end)
            return true;
    }
    return false;
}

static int spare_make(struct locks *locks, struct lock_file *file, const struct lock *lock,
                      bool force, struct spare *spare)
{
    int rc = 0;
    *spare = (struct spare){0};
    if (lock->type != LOCKS_NONE)
        spare->new = spare_one(locks, lock, force, &rc);
    if (rc == 0 && is_cut(file, lock))
        spare->half = spare_one(locks, lock, force, &rc);
    if (rc < 0)
        spare_free(locks, spare);
    return rc;
}

/* Puts the range in, in place of what its owner had there. Cannot fail. */
static void place(struct locks *locks, struct lock_file *file, const struct lock *lock,
                  struct spare *spare)
{
    struct held *h, *next;
    uint64_t start = lock->start, end = lock->end;
    DL_FOREACH_SAFE(file->held, h, next)
    {
        struct lock *old = &h->lock;
        if (!same_owner(&old->owner, &lock->owner))
            continue;
        if (old->type == lock->type) {
            bool before = old->end < start && old->end != start - 1;
            bool after = old->start > end && (end == UINT64_MAX || old->start != end + 1);
            if (before || after)
                continue;
            start = MIN(start, old->start);
            end = MAX(end, old->end);
            held_remove(locks, file, h);
            continue;
        }
        if (old->end < lock->start || old->start > lock->end)
            continue;
        if (old->start < lock->start && old->end > lock->end) {
            struct held *half = TAKE_PTR(spare->half);
            half->lock = *old;
            half->lock.start = lock->end + 1;
            old->end = lock->start - 1;
            held_insert(file, half);
        } else if (old->start < lock->start) {
            old->end = lock->start - 1;
        } else if (old->end > lock->end) {
            old->start = lock->end + 1;
            DL_DELETE(file->held, h);
            held_insert(file, h);
        } else {
            held_remove(locks, file, h);
        }
    }
    if (spare->new) {
        struct held *new = TAKE_PTR(spare->new);
        new->lock.start = start;
        new->lock.end = end;
        held_insert(file, new);
    }
    spare_free(locks, spare);
}

static struct held *find_conflict(const struct lock_file *file, const struct lock *lock)
{
    struct held *h;
    DL_FOREACH(file->held, h)
    {
        if (conflicts(&h->lock, lock))
            return h;
    }
    return NULL;
}

/* Who waits for whom */

/* Marks all that is waited for from `waiter` on; true if that leads back to its owner. `turns`: by
 * turns, too. *free: one on the way that waits for nothing but its turn. */
static bool leads_back(struct locks *locks, struct lock_waiter *waiter, bool turns,
                       struct lock_waiter **free_one)
{
    struct lock_waiter *work = waiter, *w, *other;
    unsigned mark = ++locks->mark;
    bool back = false;
    waiter->work = NULL;
    waiter->mark = mark;
    while (work) {
        w = work;
        work = w->work;
        bool blocked = false;
        struct held *h;
        DL_FOREACH(w->file->held, h)
        {
            if (!conflicts(&h->lock, &w->lock))
                continue;
            blocked = true;
            if (same_owner(&h->lock.owner, &waiter->lock.owner))
                back = true;
            if (h->holder->mark == mark)
                continue;
            h->holder->mark = mark;
            DL_FOREACH2(h->holder->waiters, other, holder_next)
            {
                if (other->mark == mark)
                    continue;
                other->mark = mark;
                other->work = work;
                work = other;
            }
        }
        if (!blocked && free_one)
            *free_one = w;
        if (!turns)
            continue;
        DL_FOREACH(w->file->waiters, other)
        {
            if (other == w)
                break;
            if (!conflicts(&other->lock, &w->lock) || other->mark == mark)
                continue;
            other->mark = mark;
            other->work = work;
            work = other;
        }
    }
    return back;
}

static bool has_turn(const struct lock_waiter *waiter)
{
    const struct lock_waiter *other;
    DL_FOREACH(waiter->file->waiters, other)
    {
        if (other == waiter)
            break;
        if (conflicts(&other->lock, &waiter->lock))
            return false;
    }
    return true;
}

static void leave(struct locks *locks, struct lock_waiter *waiter)
{
    DL_DELETE(waiter->file->waiters, waiter);
    DL_DELETE2(waiter->holder->waiters, waiter, holder_prev, holder_next);
    uncount_one(locks, waiter->lock.owner.session);
    locks->waiting--;
    holder_tidy(locks, waiter->holder);
}

/* False: no memory; it waits on. */
static bool grant(struct locks *locks, struct lock_waiter *waiter)
{
    struct lock_file *file = waiter->file;
    struct spare spare;
    /* Its own place is free for the range; a full session still gets what it waited for. */
    if (spare_make(locks, file, &waiter->lock, true, &spare) < 0)
        return false;
    leave(locks, waiter);
    place(locks, file, &waiter->lock, &spare);
    return true;
}

/* Something of the file is free: those that can go, go. */
static void scan(struct locks *locks, struct lock_file *file)
{
    struct lock_waiter *waiter, *next;
    bool again = true;
    while (again) {
        again = false;
        DL_FOREACH_SAFE(file->waiters, waiter, next)
        {
            if (find_conflict(file, &waiter->lock))
                continue;
            bool first =
                has_turn(waiter) || (waiter->holder->held && leads_back(locks, waiter, true, NULL));
            if (!first || !grant(locks, waiter))
                continue;
            /* It may have given up a write lock for this, for which one before it waits. */
            again = again || waiter->lock.type == LOCKS_READ;
            waiter->granted(waiter);
        }
    }
    file_tidy(locks, file);
}

/* The door */

/* A flock is converted by giving it up first. */
static void give_up_flock(struct locks *locks, struct lock_file *file, const struct lock *lock)
{
    struct lock none = *lock;
    struct spare spare = {0};
    const struct held *h;
    if (lock->class != LOCKS_FLOCK)
        return;
    DL_FOREACH(file->held, h)
    {
        if (same_owner(&h->lock.owner, &lock->owner) && h->lock.type != lock->type)
            break;
    }
    if (!h)
        return;
    none.type = LOCKS_NONE;
    place(locks, file, &none, &spare);
}

int locks_try(struct locks *locks, const struct lock *lock, struct lock *conflict)
{
    struct spare spare;
    struct lock_file *file = lock->type == LOCKS_NONE ? file_find(locks, lock->ino, lock->class)
                                                      : file_need(locks, lock);
    if (!file)
        return lock->type == LOCKS_NONE ? 0 : -ENOMEM;
    give_up_flock(locks, file, lock);
    const struct held *other = lock->type == LOCKS_NONE ? NULL : find_conflict(file, lock);
    if (other && conflict)
        *conflict = other->lock;
    int rc = other ? -EAGAIN : spare_make(locks, file, lock, lock->type == LOCKS_NONE, &spare);
    if (rc == 0)
        place(locks, file, lock, &spare);
    scan(locks, file); /* of what was given up, or became a read lock */
    return rc;
}

int locks_wait(struct locks *locks, struct lock_waiter *waiter)
{
    const struct lock *lock = &waiter->lock;
    struct lock_file *file = file_need(locks, lock);
    if (!file)
        return -ENOMEM;
    give_up_flock(locks, file, lock);
    struct lock_holder *holder = holder_need(locks, &lock->owner);
    int rc = holder ? count_one(locks, lock->owner.session, false) : -ENOMEM;
    if (rc < 0) {
        if (holder)
            holder_tidy(locks, holder);
        scan(locks, file);
        return rc;
    }
    waiter->file = file;
    waiter->holder = holder;
    waiter->mark = 0;
    DL_APPEND(file->waiters, waiter);
    DL_APPEND2(holder->waiters, waiter, holder_prev, holder_next);
    locks->waiting++;
    bool all_turns = true;
    while (all_turns) {
        struct lock_waiter *free_one = NULL;
        bool blocked = find_conflict(file, lock);
        bool circle = holder->held && leads_back(locks, waiter, true, &free_one);
        if (!blocked && (circle || has_turn(waiter)) && grant(locks, waiter)) {
            scan(locks, file);
            return 0;
        }
        if (circle && lock->class == LOCKS_POSIX && leads_back(locks, waiter, false, NULL)) {
            locks_cancel(locks, waiter);
            return -EDEADLK;
        }
        all_turns = circle && free_one && free_one != waiter && grant(locks, free_one);
        if (all_turns)
            free_one->granted(free_one);
    }
    scan(locks, file);
    return -EINPROGRESS;
}

void locks_cancel(struct locks *locks, struct lock_waiter *waiter)
{
    struct lock_file *file = waiter->file;
    leave(locks, waiter);
    scan(locks, file);
}

int locks_test(const struct locks *locks, const struct lock *lock, struct lock *conflict)
{
    const struct lock_file *file = file_find(locks, lock->ino, lock->class);
    const struct held *other = file ? find_conflict(file, lock) : NULL;
    if (other)
        *conflict = other->lock;
    return other != NULL;
}

void locks_session_over(struct locks *locks, uint64_t session)
{
    struct lock_file *file, *next_file;
    struct held *h, *next;
    struct session_count *c;
    HASH_FIND(hh, locks->sessions, &session, sizeof(session), c);
    if (!c)
        return;
    HASH_ITER(hh, locks->files, file, next_file)
    {
        bool any = false;
        DL_FOREACH_SAFE(file->held, h, next)
        {
            if (h->lock.owner.session != session)
                continue;
            held_remove(locks, file, h);
            any = true;
        }
        if (any)
            scan(locks, file);
    }
}

static void each_of_file(const struct lock_file *file,
                         void (*each)(void *arg, const struct lock *lock), void *arg)
{
    const struct held *h;
    DL_FOREACH(file->held, h)
    {
        each(arg, &h->lock);
    }
}

void locks_each(const struct locks *locks, void (*each)(void *arg, const struct lock *lock),
                void *arg)
{
    for (const struct lock_file *file = locks->files; file; file = file->hh.next)
        each_of_file(file, each, arg);
}

void locks_each_of(const struct locks *locks, uint64_t ino, enum lock_class class,
                   void (*each)(void *arg, const struct lock *lock), void *arg)
{
    const struct lock_file *file = file_find(locks, ino, class);
    if (file)
        each_of_file(file, each, arg);
}

void locks_clear(struct locks *locks)
{
    struct lock_file *file, *next_file;
    HASH_ITER(hh, locks->files, file, next_file)
    {
        while (file->held)
            held_remove(locks, file, file->held);
        file_tidy(locks, file);
    }
}

void locks_free(struct locks *locks)
{
    if (!locks)
        return;
    locks_clear(locks);
    free(locks);
}

size_t locks_count(const struct locks *locks)
{
    return locks->held;
}

size_t locks_waiting(const struct locks *locks)
{
    return locks->waiting;
}
