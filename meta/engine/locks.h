/*
 * Private to meta: locks on files, POSIX byte ranges and flock, as a table without I/O, clock or
 * threads: the caller serialises. The service has one for each volume; a mount keeps one of its own
 * locks, to claim them from a service that was restarted. docs/locks.md.
 *
 * Invariants: held locks of one class and file conflict only within one owner, never; ranges of one
 * owner do not overlap, and neighbours of one type are one range. A waiter conflicts with a held
 * lock, or with a waiter that came before it and does not wait for this one's owner.
 */
#ifndef SLUICE_META_LOCKS_H
#define SLUICE_META_LOCKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uthash.h>

enum lock_class { LOCKS_POSIX = 1, LOCKS_FLOCK };
enum lock_type { LOCKS_READ = 1, LOCKS_WRITE, LOCKS_NONE };

/* Who holds: a process (POSIX) or an open file (flock, OFD) of a session. No padding: hashed. */
struct lock_owner {
    uint64_t session, id;
};

struct lock {
    enum lock_class class;
    enum lock_type type;
    uint64_t ino;
    struct lock_owner owner;
    uint32_t pid;        /* shown to others */
    uint64_t start, end; /* bytes, both included; UINT64_MAX: to the end, however long */
    uint64_t tag;        /* the holder's own; when ranges become one, the newest's */
};

/* A request that waits, in the caller's memory. */
struct lock_waiter {
    struct lock lock;
    /* Not within locks_wait of the same waiter; the table forgot it before. Must not come back to
     * the table. */
    void (*granted)(struct lock_waiter *waiter);
    /* The table's from here. */
    struct lock_file *file;
    struct lock_holder *holder;
    unsigned mark;
    struct lock_waiter *prev, *next;               /* of the file, in the order of arrival */
    struct lock_waiter *holder_prev, *holder_next; /* of its owner */
    struct lock_waiter *work;
};

struct locks;
/* At most `max` held ranges for a session; a waiter counts as one. */
int locks_new(size_t max, struct locks **out);
void locks_free(struct locks *locks);  /* nobody waits */
void locks_clear(struct locks *locks); /* the same without its end */

/* Sets (or with LOCKS_NONE takes away) the range now: 0; -EAGAIN: somebody has it, see `conflict`
 * (may be NULL); -ENOLCK: too many; -ENOMEM. A flock of another type is given up first, even if the
 * new one is not had. Waiters are granted before it returns. */
int locks_try(struct locks *locks, const struct lock *lock, struct lock *conflict);
/* The same, but waits its turn: 0: has it; -EINPROGRESS: `granted` comes, or locks_cancel;
 * -EDEADLK: it would wait for one that waits for it (POSIX only); -ENOLCK, -ENOMEM. */
int locks_wait(struct locks *locks, struct lock_waiter *waiter);
void locks_cancel(struct locks *locks, struct lock_waiter *waiter);
/* Whether a lock could be had: 0; 1 and whose it is. */
int locks_test(const struct locks *locks, const struct lock *lock, struct lock *conflict);
/* All of a session is released. None of it may wait. */
void locks_session_over(struct locks *locks, uint64_t session);

/* Held ranges, in no order. `each` must not come back. */
void locks_each(const struct locks *locks, void (*each)(void *arg, const struct lock *lock),
                void *arg);
/* The same of one file and class. */
void locks_each_of(const struct locks *locks, uint64_t ino, enum lock_class class,
                   void (*each)(void *arg, const struct lock *lock), void *arg);
size_t locks_count(const struct locks *locks);
size_t locks_waiting(const struct locks *locks);

#endif
