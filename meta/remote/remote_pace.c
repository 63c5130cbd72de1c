#include "remote_pace.h"

#include "base/cleanup.h"

#define CONNECT_MIN_MS 1000
#define CONNECT_MAX_MS 5000
#define SILENCE_MIN_MS 2000 /* a busy service may take so long */
#define PAUSE_MAX_MS 2000

uint64_t remote_pace_connect_ms(uint64_t lease_ms)
{
    uint64_t part = lease_ms / REMOTE_PINGS_PER_LEASE;
    return lease_ms ? MIN(MAX(part, CONNECT_MIN_MS), CONNECT_MAX_MS) : CONNECT_MAX_MS;
}

uint64_t remote_pace_silence_ms(uint64_t lease_ms)
{
    return MIN(lease_ms, MAX(lease_ms / 2, SILENCE_MIN_MS));
}

uint64_t remote_pace_retry_ms(unsigned tries, uint8_t spread)
{
    uint64_t pause = (uint64_t)REMOTE_PAUSE_FIRST_MS << MIN(tries, 7u);
    pause = MIN(pause, PAUSE_MAX_MS);
    return pause / 2 + pause * spread / 512;
}
