/*
 * Who may begin a connection (docs/security.md): how many may be there that have not proved who
 * they are, in all and of one address, and how often an address may fail. A pure policy: addresses
 * and times in, answers out. One thread.
 *
 * An address is 16 bytes: IPv4 in its first four, IPv6 by its first eight, which is what one host
 * can choose from. An address that fails gets a debt of one for each failure, which goes down with
 * time; with `debt_max` it is refused before anything is read of it.
 */
#ifndef SLUICE_META_GATE_H
#define SLUICE_META_GATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define GATE_KEY_LEN 16

struct gate_limits {
    unsigned pending_max;         /* connections that have not said hello; default 4,096 */
    unsigned address_pending_max; /* of one address; default 1,024 */
    unsigned debt_max;            /* failures of one address, at once; default 100 */
    uint32_t forget_ms;           /* one failure is forgotten so much later; default 1,000 */
    unsigned addresses_max;       /* that are remembered; default 65,536 */
};
void gate_limits_init(struct gate_limits *limits);

enum gate_answer {
    GATE_OPEN,         /* counted: gate_leave must follow */
    GATE_FULL,         /* too many are pending */
    GATE_ADDRESS_FULL, /* too many of this address are pending */
    GATE_ADDRESS_BAD,  /* this address has failed too often */
};

struct gate;
struct gate *gate_new(const struct gate_limits *limits); /* NULL without memory */
void gate_free(struct gate *gate);

void gate_key(const struct sockaddr *address, uint8_t out[GATE_KEY_LEN]);
enum gate_answer gate_enter(struct gate *gate, const uint8_t key[GATE_KEY_LEN], uint64_t now_ms);
/* It is known now, or gone; `failed`: for a reason that is its own fault. */
void gate_leave(struct gate *gate, const uint8_t key[GATE_KEY_LEN], bool failed, uint64_t now_ms);
unsigned gate_pending(const struct gate *gate);

#endif
