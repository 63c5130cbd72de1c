#include "remote/remote_pace.h"

#include "test.h"

/* Whatever is tried when the network comes back in the first half of a lease is over, and tried
 * again, before the second half is. */
TEST(remote_pace, tries_fit_into_a_lease)
{
    static const uint64_t leases[] = {10000, 20000, 60000, 300000};
    for (size_t i = 0; i < sizeof(leases) / sizeof(leases[0]); i++) {
        uint64_t lease = leases[i];
        uint64_t found = lease / REMOTE_PINGS_PER_LEASE + remote_pace_silence_ms(lease);
        check_uint(remote_pace_silence_ms(lease), lease / 2);
        check(found + remote_pace_connect_ms(lease) <= lease);
        check(remote_pace_connect_ms(lease) >= 1000);
        check(remote_pace_connect_ms(lease) <= 5000);
    }
    check_uint(remote_pace_silence_ms(2000), 2000); /* a busy service is not a lost one */
    check_uint(remote_pace_silence_ms(1000), 1000);
    check_uint(remote_pace_connect_ms(0), 5000);
}

TEST(remote_pace, pauses_grow_to_a_bound)
{
    check_uint(remote_pace_retry_ms(0, 0), 10);
    check_uint(remote_pace_retry_ms(1, 0), 20);
    check(remote_pace_retry_ms(1, 255) < 40);
    check_uint(remote_pace_retry_ms(1000, 0), 1000);
    check(remote_pace_retry_ms(1000, 255) < 2000);
}
