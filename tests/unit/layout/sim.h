/*
 * A volume in virtual time: this replaces base/loop.h, base/clock.h and the syncer of meta/ by ones
 * that do nothing by themselves. One thing happens at a time, and which is next is drawn from the
 * seed: a task or timer of a loop, an answer of the store, a sync, a step of an actor. So a seed
 * always gives the same run.
 *
 * Actors are threads of which one runs at a time: between two waits (sem_wait, which the volume's
 * blocking calls come down to, or sim_sleep_ms) nothing else happens.
 */
#ifndef SLUICE_TESTS_SIM_H
#define SLUICE_TESTS_SIM_H

#include <stdbool.h>
#include <stdint.h>

#define SIM_VIOLATED 42 /* exit code of the process */

/* What else may be next: `ready` things, of which run(arg, i) does one. */
struct sim_source {
    unsigned (*ready)(void *arg);
    void (*run)(void *arg, unsigned which);
    void *arg;
};

void sim_init(uint64_t seed);
/* The volume's invariants do not hold: says seed and step, and ends the process. */
void sim_violation(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));
/* Says what happens, with SLUICE_LAYOUT_TRACE in the environment. */
void sim_trace(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
uint64_t sim_random(void);
unsigned sim_below(unsigned limit); /* 0 … limit - 1 */
void sim_source_add(const struct sim_source *source);
void sim_step(void);
uint64_t sim_steps(void);
void sim_actor_start(const char *name, void (*run)(void));
/* The name of one that has not ended; NULL: all have. */
const char *sim_actor_left(void);
/* Of an actor. */
void sim_sleep_ms(unsigned ms);
/* All changes up to this sequence survive a power loss. */
uint64_t sim_synced_to(void);
/* Syncs answer without having been done. */
void sim_forget_syncs(void);

struct loop;
struct loop *sim_loop_enter(struct loop *loop); /* code of this loop runs: the one before */
/* What is posted to `loop` meanwhile runs at the end, not by sim_step. */
void sim_capture_begin(struct loop *loop);
void sim_capture_end(void);

#endif
