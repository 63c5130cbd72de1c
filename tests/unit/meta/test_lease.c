#include "wire/lease.h"

#include "test.h"

#define HORIZON 100

static enum lease_answer change(struct lease *lease, uint64_t ino, bool name, uint64_t now,
                                uint64_t batch, uint64_t confirmed, uint64_t *sequence)
{
    return lease_change(lease, ino, name ? LEASE_NAMES | LEASE_ABSENT : 0, now, batch, confirmed,
                        sequence);
}

TEST(lease, knows_nothing_at_first)
{
    struct lease lease;
    uint64_t sequence;
    lease_init(&lease, 100, HORIZON);
    check_int(change(&lease, 5, true, 0, 1, 0, &sequence), LEASE_NOTHING);
    check(!lease_knows(&lease, 5));
    lease_done(&lease);
}

TEST(lease, pushes_once_and_then_waits)
{
    struct lease lease;
    uint64_t sequence;
    lease_init(&lease, 100, HORIZON);
    check(lease_note(&lease, 5, LEASE_SELF, 0));
    check_int(change(&lease, 5, false, 0, 3, 0, &sequence), LEASE_PUSH);
    check_uint(sequence, 3);
    /* Somebody else's change must not be answered before that push is confirmed. */
    check_int(change(&lease, 5, false, 0, 4, 0, &sequence), LEASE_WAIT);
    check_uint(sequence, 3);
    check_uint(lease_pending(&lease, 5, 2), 3);
    check_int(change(&lease, 5, false, 0, 4, 3, &sequence), LEASE_NOTHING);
    check_uint(lease_pending(&lease, 5, 3), 0);
    check(lease_knows(&lease, 5));
    lease_done(&lease);
}

TEST(lease, keeps_names_until_the_horizon)
{
    struct lease lease;
    uint64_t sequence;
    lease_init(&lease, 100, HORIZON);
    check(lease_note(&lease, 5, LEASE_NAMES, 1000));
    check_int(change(&lease, 5, false, 1000, 1, 0, &sequence), LEASE_NOTHING);
    /* Another name in it may be cached still. */
    check_int(change(&lease, 5, true, 1000, 1, 0, &sequence), LEASE_PUSH);
    check_int(change(&lease, 5, true, 1000 + HORIZON - 1, 2, 1, &sequence), LEASE_PUSH);
    check_int(change(&lease, 5, true, 1000 + HORIZON, 3, 2, &sequence), LEASE_NOTHING);
    lease_done(&lease);
}

TEST(lease, says_when_there_are_too_many)
{
    struct lease lease;
    uint64_t sequence;
    lease_init(&lease, 200, HORIZON);
    for (uint64_t i = 1; i <= 200; i++)
        check(lease_note(&lease, i, LEASE_SELF, 0));
    check(lease_note(&lease, 200, LEASE_SELF, 0));
    check(!lease_note(&lease, 201, LEASE_SELF, 0));
    lease_clear(&lease, 9);
    check_int(change(&lease, 1, false, 0, 10, 8, &sequence), LEASE_WAIT);
    check_uint(sequence, 9);
    check_int(change(&lease, 1, false, 0, 10, 9, &sequence), LEASE_NOTHING);
    check(lease_knows(&lease, 77777));
    check(lease_note(&lease, 201, LEASE_SELF, 0));
    lease_done(&lease);
}

TEST(lease_change, tells_of_names_those_who_have_them_otherwise)
{
    struct lease lease;
    uint64_t sequence;
    lease_init(&lease, 100, 5000);
    check(lease_note(&lease, 5, LEASE_NAMES, 1000));
    check_int(lease_change(&lease, 5, LEASE_ABSENT, 1000, 1, 0, &sequence), LEASE_NOTHING);
    check_int(lease_change(&lease, 5, LEASE_NAMES, 1000, 1, 0, &sequence), LEASE_PUSH);
    check(lease_note(&lease, 6, LEASE_ABSENT, 1000));
    check_int(lease_change(&lease, 6, LEASE_NAMES, 1000, 1, 1, &sequence), LEASE_NOTHING);
    check_int(lease_change(&lease, 6, LEASE_ABSENT, 1000, 2, 1, &sequence), LEASE_PUSH);
    check_int(lease_change(&lease, 6, LEASE_ABSENT, 6000, 3, 2, &sequence), LEASE_NOTHING);
    lease_done(&lease);
}
