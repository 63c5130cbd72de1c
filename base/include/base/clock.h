/* Time. Nanoseconds, 64 bits. State machines and policies are given the time and never call this.
 * Any thread. */
#ifndef SLUICE_BASE_CLOCK_H
#define SLUICE_BASE_CLOCK_H

#include <stdint.h>

#define NS_PER_MS 1000000ull
#define NS_PER_S 1000000000ull

uint64_t clock_wall_ns(void);      /* since 1970, CLOCK_REALTIME: time stamps of files */
uint64_t clock_monotonic_ns(void); /* never steps back: delays and deadlines */
uint64_t clock_monotonic_ms(void);

#endif
