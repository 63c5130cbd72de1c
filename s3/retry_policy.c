#include "retry_policy.h"

#include <errno.h>

#include "base/cleanup.h"
#include "base/clock.h"

#define BASE_MS 50u
#define SLOW_BASE_MS 400u
#define BOUND_MS 5000u

#define RATE_MIN 5.0
#define RATE_DROP 0.6
#define RATE_REGAIN 1.5       /* per second, up to what was sent before */
#define RATE_GROWTH 1.15      /* beyond that */
#define RATE_SINGLE_MS 5000u  /* a refusal with none so long before is a single one */
#define RATE_STEADY_MS 500u   /* refusals within this time are one event */
#define RATE_FORGET_MS 60000u /* without a refusal for so long there is no limit */

static uint64_t next_random(uint64_t *state)
{
    /* xorshift64: a spread of waiting times needs no better one */
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

uint32_t retry_backoff_ms(unsigned failed, enum store_retry kind, uint32_t retry_after_ms,
                          uint64_t *random)
{
    uint32_t bound = kind == STORE_RETRY_SLOWLY ? SLOW_BASE_MS : BASE_MS;
    for (unsigned i = 1; i < failed && bound < BOUND_MS; i++)
        bound *= 2;
    bound = MIN(bound, BOUND_MS);
    uint32_t delay = (uint32_t)(next_random(random) % (bound + 1));
    return MAX(delay, retry_after_ms);
}

enum store_retry retry_kind(const struct store_op *failed)
{
    if (failed->retry != STORE_RETRY_DEFAULT)
        return failed->retry;
    switch (failed->result) {
    case -EIO:
    case -EAGAIN:
    case -ETIMEDOUT:
    case -EBUSY:
        return STORE_RETRY_AGAIN;
    default:
        return STORE_RETRY_NEVER;
    }
}

static void count(struct retry_rate *rate, uint64_t now_ms)
{
    uint64_t age = now_ms - rate->window_ms;
    if (age >= 1000) {
        double per_second = age < 2000 ? rate->count : 0;
        rate->seen = rate->seen * 0.5 + per_second * 0.5;
        rate->window_ms = now_ms;
        rate->count = 0;
    }
    rate->count++;
}

static void grow(struct retry_rate *rate, uint64_t now_ms)
{
    if (now_ms - rate->slowed_ms > RATE_FORGET_MS) {
        rate->limit = 0;
        return;
    }
    if (now_ms - rate->slowed_ms < 1000 || now_ms - rate->grown_ms < 1000)
        return;
    rate->limit *= rate->limit < rate->before ? RATE_REGAIN : RATE_GROWTH;
    rate->grown_ms = now_ms;
}

uint32_t retry_rate_delay(struct retry_rate *rate, uint64_t now_ms)
{
    count(rate, now_ms);
    if (rate->limit <= 0)
        return 0;
    grow(rate, now_ms);
    if (rate->limit <= 0)
        return 0;
    double start = MAX((double)now_ms, rate->next_ms);
    rate->next_ms = start + 1000.0 / rate->limit;
    return (uint32_t)(start - (double)now_ms);
}

void retry_rate_slow(struct retry_rate *rate, uint64_t now_ms)
{
    bool single = !rate->refused_ms || now_ms - rate->refused_ms > RATE_SINGLE_MS;
    rate->refused_ms = now_ms;
    if (single || (rate->limit > 0 && now_ms - rate->slowed_ms < RATE_STEADY_MS))
        return;
    double from = rate->limit > 0 ? rate->limit : MAX(rate->seen, (double)rate->count);
    rate->before = MAX(rate->before * 0.5, from);
    rate->limit = MAX(RATE_MIN, from * RATE_DROP);
    rate->slowed_ms = rate->grown_ms = now_ms;
    rate->next_ms = (double)now_ms;
}

/* Sizes are below 2^43 (5 TiB): seconds and rest apart, so that nothing overflows. */
static uint64_t cost_ns(const struct retry_bandwidth *bandwidth, uint64_t bytes)
{
    uint64_t rate = bandwidth->bytes_per_s;
    return bytes / rate * NS_PER_S +
           (uint64_t)((double)(bytes % rate) / (double)rate * (double)NS_PER_S);
}

uint64_t retry_bandwidth_delay(struct retry_bandwidth *bandwidth, uint64_t now_ns, uint64_t bytes)
{
    if (!bandwidth->bytes_per_s || !bytes)
        return 0;
    uint64_t start = MAX(bandwidth->free_ns, now_ns);
    bandwidth->free_ns = start + cost_ns(bandwidth, bytes);
    return start - now_ns;
}

void retry_bandwidth_return(struct retry_bandwidth *bandwidth, uint64_t bytes)
{
    if (bandwidth->bytes_per_s)
        bandwidth->free_ns -= MIN(bandwidth->free_ns, cost_ns(bandwidth, bytes));
}
