#include "settle_rate.h"

#include "base/cleanup.h"
#include "base/clock.h"

/* Sizes are below 2^43 (5 TiB): seconds and rest apart, so that nothing overflows. */
static uint64_t cost_ns(uint64_t amount, uint64_t per_s)
{
    return amount / per_s * NS_PER_S +
           (uint64_t)((double)(amount % per_s) / (double)per_s * (double)NS_PER_S);
}

uint64_t settle_rate_turn(struct settle_rate *rate, uint64_t now_ns, uint64_t bytes)
{
    uint64_t start = now_ns;
    if (rate->requests_per_s)
        start = MAX(start, rate->request_ns);
    if (rate->bytes_per_s && bytes)
        start = MAX(start, rate->byte_ns);
    if (rate->requests_per_s)
        rate->request_ns = start + cost_ns(1, rate->requests_per_s);
    if (rate->bytes_per_s && bytes)
        rate->byte_ns = start + cost_ns(bytes, rate->bytes_per_s);
    rate->waited_ns += start - now_ns;
    return start - now_ns;
}
