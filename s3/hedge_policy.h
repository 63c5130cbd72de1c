/* When a GET is slow enough to be asked for twice: pure functions of sizes and times. For
 * s3/hedge.c. */
#ifndef SLUICE_S3_HEDGE_POLICY_H
#define SLUICE_S3_HEDGE_POLICY_H

#include <stdbool.h>
#include <stdint.h>

#define HEDGE_CLASSES 4  /* of sizes: up to 256 KiB, 1 MiB, 4 MiB, more */
#define HEDGE_BUCKETS 20 /* of times: doubling from 1 ms */

/* Zero it first. */
struct hedge_policy {
    struct {
        uint32_t count[HEDGE_BUCKETS];
        uint32_t sum;
    } seen[HEDGE_CLASSES];
    unsigned credit; /* in hundredths of a second request */
};

/* A GET of `len` bytes took so long. Old ones fade. */
void hedge_policy_note(struct hedge_policy *p, uint64_t len, uint64_t ms);
/* Nearly all (99 of 100) recent GETs of such a size took less; 0 if too few are known. */
uint64_t hedge_policy_slow_ms(const struct hedge_policy *p, uint64_t len);
/* Each GET earns the right to a tenth of a second try, up to ten of them. */
void hedge_policy_earn(struct hedge_policy *p);
/* False: too many were slow lately; the store is, not one request. */
bool hedge_policy_spend(struct hedge_policy *p);

#endif
