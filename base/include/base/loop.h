/*
 * An event loop (libuv) that runs on a thread of its own. All that is "owned by the loop thread" in
 * Sluice is touched only from callbacks of that loop. Only loop_post and loop_on_thread may be
 * called from other threads.
 */
#ifndef SLUICE_BASE_LOOP_H
#define SLUICE_BASE_LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct loop;

/* One piece of work for the loop thread, embedded in the caller's request. Must stay valid until
 * `run` was called; `run` may free it. */
struct loop_task {
    void (*run)(struct loop_task *task);
    struct loop_task *next; /* the loop's, while posted */
};

/* Starts the thread. `name` (at most 15 characters) is the thread's name. 0 or -errno. */
int loop_new(struct loop **out, const char *name);
/* Stops the loop after the tasks that were posted before; waits for the thread; frees. Every handle
 * that was opened on loop_uv must have been closed by its owner before. NULL is allowed. Not from
 * the loop thread. */
void loop_free(struct loop *loop);

/* Any thread: runs task->run on the loop thread, in the order of posting (per posting thread).
 * Never blocks, never fails. One wake-up serves many posts. */
void loop_post(struct loop *loop, struct loop_task *task);
/* Any thread: runs fn(arg) on the loop thread and waits for its end. Directly if called on the loop
 * thread. */
void loop_call(struct loop *loop, void (*fn)(void *arg), void *arg);
bool loop_on_thread(const struct loop *loop);
/* The loop, for libuv calls on the loop thread. */
uv_loop_t *loop_uv(struct loop *loop);

/* A timer owned by its creator, loop thread only. */
struct loop_timer {
    uv_timer_t uv;
    void (*fire)(struct loop_timer *timer);
    void (*closed)(struct loop_timer *timer);
};
void loop_timer_init(struct loop *loop, struct loop_timer *timer,
                     void (*fire)(struct loop_timer *timer));
/* Fires once after delay_ms; replaces an earlier start. */
void loop_timer_start(struct loop_timer *timer, uint64_t delay_ms);
void loop_timer_stop(struct loop_timer *timer);
/* Asynchronous: the memory is free to go when `closed` was called (closed may be NULL if the memory
 * outlives the loop). */
void loop_timer_close(struct loop_timer *timer, void (*closed)(struct loop_timer *timer));

#endif
