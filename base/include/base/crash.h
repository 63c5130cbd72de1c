/*
 * Named crash points: places where a test kills the process (SIGKILL to itself) to prove that what
 * comes after can be repeated. Costs one load and a predicted branch when off. Names are
 * "part.step", each used at one place, registered by crash_point's call itself.
 *
 * SLUICE_CRASH_AT=name[:n]  dies at the n-th passing (from 1) of that point.
 * SLUICE_CRASH_LIST=path    appends the name of each point the first time it is passed (so that a
 * test can enumerate what a workload reaches).
 */
#ifndef SLUICE_BASE_CRASH_H
#define SLUICE_BASE_CRASH_H

#include <stdbool.h>

extern bool crash_armed; /* set once, before main, by the environment */
void crash_hit(const char *name);

/* What the two variables do before main, for tests of this part: NULL or "" where a variable is not
 * set; list_path must stay valid. -EINVAL for a bad `at`. Before threads start. */
int crash_setup(const char *at, const char *list_path);

#define crash_point(name)                                                                          \
    do {                                                                                           \
        if (__builtin_expect(crash_armed, 0))                                                      \
            crash_hit(name);                                                                       \
    } while (0)

#endif
