#include "hedge_policy.h"

#define FADE_AT 1024u
#define KNOWN_MIN 50u
#define EARN 10u
#define COST 100u
#define CREDIT_MAX 1000u

static unsigned class_of(uint64_t len)
{
    return len <= 256u << 10 ? 0 : len <= 1u << 20 ? 1 : len <= 4u << 20 ? 2 : 3;
}

void hedge_policy_note(struct hedge_policy *p, uint64_t len, uint64_t ms)
{
    unsigned class = class_of(len), bucket = 0;
    while (bucket + 1 < HEDGE_BUCKETS && ms >= 1ull << bucket)
        bucket++;
    p->seen[class].count[bucket]++;
    if (++p->seen[class].sum < FADE_AT)
        return;
    p->seen[class].sum = 0;
    for (unsigned i = 0; i < HEDGE_BUCKETS; i++) {
        p->seen[class].count[i] /= 2;
        p->seen[class].sum += p->seen[class].count[i];
    }
}

uint64_t hedge_policy_slow_ms(const struct hedge_policy *p, uint64_t len)
{
    unsigned class = class_of(len);
    uint32_t sum = p->seen[class].sum, below = 0;
    if (sum < KNOWN_MIN)
        return 0;
    for (unsigned i = 0; i < HEDGE_BUCKETS; i++) {
        below += p->seen[class].count[i];
        if (below >= sum - sum / 100)
            return 1ull << i;
    }
    return 1ull << (HEDGE_BUCKETS - 1);
}

void hedge_policy_earn(struct hedge_policy *p)
{
    p->credit += EARN;
    if (p->credit > CREDIT_MAX)
        p->credit = CREDIT_MAX;
}

bool hedge_policy_spend(struct hedge_policy *p)
{
    if (p->credit < COST)
        return false;
    p->credit -= COST;
    return true;
}
