/*
 * A thread that serves others says that it is going to wait: for a disk, mostly. Who lends the
 * thread can put another one in its place meanwhile (fs/front/crew.c). Where nobody asked for it,
 * nothing happens.
 */
#ifndef SLUICE_BASE_BLOCKING_H
#define SLUICE_BASE_BLOCKING_H

struct blocking_hook {
    void (*before)(struct blocking_hook *hook);
};

/* Of the calling thread. Borrowed until the next call; NULL: none. */
void blocking_set(struct blocking_hook *hook);

/* The calling thread may sleep after this, or compute for more than some 20 microseconds. Costs
 * nothing to speak of. Need not be said where it is rare: the thread is missed after some
 * milliseconds at most. */
void blocking_begin(void);

#endif
