/* See gate.h. When no more addresses can be remembered, the one that was seen longest ago and has
 * nothing pending is forgotten. */
#include "gate.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>

struct visitor {
    uint8_t key[GATE_KEY_LEN];
    unsigned pending, debt;
    uint64_t debt_ms;  /* `debt` is as of this time */
    UT_hash_handle hh; /* in the order of the last visit */
};

struct gate {
    struct gate_limits limits;
    struct visitor *visitors;
    unsigned pending;
};

void gate_limits_init(struct gate_limits *limits)
{
    *limits = (struct gate_limits){
        .pending_max = 4096,
        .address_pending_max = 1024,
        .debt_max = 100,
        .forget_ms = 1000,
        .addresses_max = 65536,
    };
}

struct gate *gate_new(const struct gate_limits *limits)
{
    struct gate *gate = calloc(1, sizeof(*gate));
    if (gate)
        gate->limits = *limits;
    return gate;
}

void gate_free(struct gate *gate)
{
    struct visitor *visitor, *next;
    if (!gate)
        return;
    HASH_ITER(hh, gate->visitors, visitor, next)
    {
        HASH_DEL(gate->visitors, visitor);
        free(visitor);
    }
    free(gate);
}

void gate_key(const struct sockaddr *address, uint8_t out[GATE_KEY_LEN])
{
    memset(out, 0, GATE_KEY_LEN);
    if (address->sa_family == AF_INET) {
        memcpy(out, &((const struct sockaddr_in *)address)->sin_addr, 4);
        out[15] = 4;
    } else if (address->sa_family == AF_INET6) {
        const struct in6_addr *v6 = &((const struct sockaddr_in6 *)address)->sin6_addr;
        if (IN6_IS_ADDR_V4MAPPED(v6)) {
            memcpy(out, v6->s6_addr + 12, 4);
            out[15] = 4;
        } else {
            memcpy(out, v6, 8);
            out[15] = 6;
        }
    }
}

unsigned gate_pending(const struct gate *gate)
{
    return gate->pending;
}

static void forget_debt(const struct gate *gate, struct visitor *visitor, uint64_t now_ms)
{
    uint64_t paid = (now_ms - visitor->debt_ms) / gate->limits.forget_ms;
    if (paid >= visitor->debt) {
        visitor->debt = 0;
        visitor->debt_ms = now_ms;
    } else {
        visitor->debt -= (unsigned)paid;
        visitor->debt_ms += paid * gate->limits.forget_ms;
    }
}

static void make_room(struct gate *gate)
{
    struct visitor *visitor, *next;
    if (HASH_COUNT(gate->visitors) < gate->limits.addresses_max)
        return;
    HASH_ITER(hh, gate->visitors, visitor, next)
    {
        if (visitor->pending)
            continue;
        HASH_DEL(gate->visitors, visitor);
        free(visitor);
        return;
    }
}

/* Found or made, and the newest one now. */
static struct visitor *visit(struct gate *gate, const uint8_t *key, uint64_t now_ms)
{
    struct visitor *visitor;
    HASH_FIND(hh, gate->visitors, key, GATE_KEY_LEN, visitor);
    if (visitor) {
        HASH_DEL(gate->visitors, visitor);
        forget_debt(gate, visitor, now_ms);
    } else {
        make_room(gate);
        visitor = calloc(1, sizeof(*visitor));
        if (!visitor)
            return NULL;
        memcpy(visitor->key, key, GATE_KEY_LEN);
        visitor->debt_ms = now_ms;
    }
    HASH_ADD(hh, gate->visitors, key, GATE_KEY_LEN, visitor);
    return visitor;
}

enum gate_answer gate_enter(struct gate *gate, const uint8_t key[GATE_KEY_LEN], uint64_t now_ms)
{
    struct visitor *visitor = visit(gate, key, now_ms);
    if (visitor && visitor->debt >= gate->limits.debt_max)
        return GATE_ADDRESS_BAD;
    if (!visitor || gate->pending >= gate->limits.pending_max)
        return GATE_FULL;
    if (visitor->pending >= gate->limits.address_pending_max)
        return GATE_ADDRESS_FULL;
    visitor->pending++;
    gate->pending++;
    return GATE_OPEN;
}

void gate_leave(struct gate *gate, const uint8_t key[GATE_KEY_LEN], bool failed, uint64_t now_ms)
{
    struct visitor *visitor;
    HASH_FIND(hh, gate->visitors, key, GATE_KEY_LEN, visitor);
    if (!visitor)
        return; /* not possible: one that is pending is not forgotten */
    visitor->pending--;
    gate->pending--;
    forget_debt(gate, visitor, now_ms);
    if (failed && visitor->debt < gate->limits.debt_max)
        visitor->debt++;
}
