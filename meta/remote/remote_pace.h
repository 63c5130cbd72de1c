/*
 * How long a mount waits for its service before it tries something else. Pure.
 *
 * A packet that the network ate is sent again by TCP after pauses that double: when the network is
 * there again, the next try may be a lease away. A new connection asks at once. So a connection
 * that is silent for half of a lease is given up, and no try of a new one takes more than a part of
 * it.
 */
#ifndef SLUICE_META_REMOTE_PACE_H
#define SLUICE_META_REMOTE_PACE_H

#include <stdint.h>

#define REMOTE_PINGS_PER_LEASE 4
#define REMOTE_PAUSE_FIRST_MS 20

/* For a connection to be made. lease_ms 0: not known yet. */
uint64_t remote_pace_connect_ms(uint64_t lease_ms);
/* For the answer to a ping, or anything else. */
uint64_t remote_pace_silence_ms(uint64_t lease_ms);
/* Before try number `tries`, from 0; `spread` is random. */
uint64_t remote_pace_retry_ms(unsigned tries, uint8_t spread);

#endif
