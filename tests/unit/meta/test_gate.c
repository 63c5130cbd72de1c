#include <arpa/inet.h>
#include <netinet/in.h>

#include "service/gate.h"
#include "test.h"

static void key_of(const char *text, uint8_t out[GATE_KEY_LEN])
{
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    if (inet_pton(AF_INET, text, &v4.sin_addr) == 1) {
        gate_key((struct sockaddr *)&v4, out);
    } else {
        check_int(inet_pton(AF_INET6, text, &v6.sin6_addr), 1);
        gate_key((struct sockaddr *)&v6, out);
    }
}

static struct gate *make(unsigned pending, unsigned of_address, unsigned debt, unsigned addresses)
{
    struct gate_limits limits = {.pending_max = pending,
                                 .address_pending_max = of_address,
                                 .debt_max = debt,
                                 .forget_ms = 1000,
                                 .addresses_max = addresses};
    struct gate *gate = gate_new(&limits);
    check(gate != NULL);
    return gate;
}

TEST(gate, counts_those_that_are_not_known)
{
    uint8_t a[GATE_KEY_LEN], b[GATE_KEY_LEN];
    struct gate *gate = make(3, 2, 10, 100);
    key_of("10.0.0.1", a);
    key_of("10.0.0.2", b);
    check_int(gate_enter(gate, a, 0), GATE_OPEN);
    check_int(gate_enter(gate, a, 0), GATE_OPEN);
    check_int(gate_enter(gate, a, 0), GATE_ADDRESS_FULL);
    check_int(gate_enter(gate, b, 0), GATE_OPEN);
    check_int(gate_enter(gate, b, 0), GATE_FULL);
    check_uint(gate_pending(gate), 3);
    gate_leave(gate, a, false, 0);
    check_int(gate_enter(gate, b, 0), GATE_OPEN);
    gate_leave(gate, a, false, 0);
    gate_leave(gate, b, false, 0);
    gate_leave(gate, b, false, 0);
    check_uint(gate_pending(gate), 0);
    gate_free(gate);
}

static void fail(struct gate *gate, const uint8_t *key, uint64_t now)
{
    check_int(gate_enter(gate, key, now), GATE_OPEN);
    gate_leave(gate, key, true, now);
}

TEST(gate, refuses_who_failed_too_often_until_it_is_forgotten)
{
    uint8_t a[GATE_KEY_LEN], b[GATE_KEY_LEN];
    struct gate *gate = make(100, 100, 3, 100);
    key_of("10.0.0.1", a);
    key_of("10.0.0.2", b);
    for (int i = 0; i < 3; i++)
        fail(gate, a, 500);
    check_int(gate_enter(gate, a, 500), GATE_ADDRESS_BAD);
    check_int(gate_enter(gate, a, 1499), GATE_ADDRESS_BAD);
    fail(gate, b, 500);
    /* One is forgotten each second, and asking in vain does not keep them. */
    fail(gate, a, 1500);
    check_int(gate_enter(gate, a, 1500), GATE_ADDRESS_BAD);
    check_int(gate_enter(gate, a, 1000000), GATE_OPEN);
    gate_leave(gate, a, false, 1000000);
    check_int(gate_enter(gate, a, 1000000), GATE_OPEN);
    gate_leave(gate, a, false, 1000000);
    gate_free(gate);
}

TEST(gate, success_is_no_failure)
{
    uint8_t a[GATE_KEY_LEN];
    struct gate *gate = make(100, 100, 2, 100);
    key_of("10.0.0.1", a);
    for (int i = 0; i < 50; i++) {
        check_int(gate_enter(gate, a, 7), GATE_OPEN);
        gate_leave(gate, a, false, 7);
    }
    gate_free(gate);
}

TEST(gate, addresses_are_hosts)
{
    uint8_t a[GATE_KEY_LEN], b[GATE_KEY_LEN];
    key_of("10.0.0.1", a);
    key_of("::ffff:10.0.0.1", b);
    check(memcmp(a, b, sizeof(a)) == 0);
    key_of("2001:db8:1:2:3::4", a);
    key_of("2001:db8:1:2:ffff::5", b);
    check(memcmp(a, b, sizeof(a)) == 0);
    key_of("2001:db8:1:3::4", b);
    check(memcmp(a, b, sizeof(a)) != 0);
    key_of("10.0.0.2", b);
    check(memcmp(a, b, sizeof(a)) != 0);
}

TEST(gate, remembers_a_bounded_number)
{
    struct gate *gate = make(1000, 10, 2, 4);
    uint8_t bad[GATE_KEY_LEN], key[GATE_KEY_LEN], pending[GATE_KEY_LEN];
    char text[32];
    key_of("10.0.0.1", bad);
    key_of("10.0.0.2", pending);
    check_int(gate_enter(gate, pending, 0), GATE_OPEN);
    fail(gate, bad, 0);
    fail(gate, bad, 0);
    for (int i = 0; i < 100; i++) {
        /* Who comes again is not the oldest. */
        check_int(gate_enter(gate, bad, 0), GATE_ADDRESS_BAD);
        snprintf(text, sizeof(text), "10.1.%d.1", i);
        key_of(text, key);
        check_int(gate_enter(gate, key, 0), GATE_OPEN);
        gate_leave(gate, key, false, 0);
    }
    for (int i = 0; i < 5; i++) {
        snprintf(text, sizeof(text), "10.2.%d.1", i);
        key_of(text, key);
        check_int(gate_enter(gate, key, 0), GATE_OPEN);
        gate_leave(gate, key, false, 0);
    }
    check_int(gate_enter(gate, bad, 0), GATE_OPEN); /* forgotten at last */
    gate_leave(gate, bad, false, 0);
    gate_leave(gate, pending, false, 0); /* never forgotten while it is pending */
    check_uint(gate_pending(gate), 0);
    gate_free(gate);
}
