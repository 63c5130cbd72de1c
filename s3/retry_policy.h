/* When to try again: pure functions of what happened and the time. For s3/retry.c. */
#ifndef SLUICE_S3_RETRY_POLICY_H
#define SLUICE_S3_RETRY_POLICY_H

#include <stdbool.h>
#include <stdint.h>

#include "s3/store.h"

/* Full jitter: evenly between 0 and a bound that doubles with each failed try (50 ms to 5 s; from
 * 400 ms if the server asks for fewer requests), and not before `retry_after_ms`. `failed`: tries
 * so far, from 1. *random is the state of the generator, never 0. */
uint32_t retry_backoff_ms(unsigned failed, enum store_retry kind, uint32_t retry_after_ms,
                          uint64_t *random);

/* What a failed try means, with STORE_RETRY_DEFAULT resolved by the result. */
enum store_retry retry_kind(const struct store_op *failed);

/* A limit of requests per second that exists only while the server says that it is too many. Zero
 * it first. */
struct retry_rate {
    double limit;        /* per second; 0: none */
    double before;       /* what was sent when it was imposed: regained fast */
    double next_ms;      /* when the next request may go */
    double seen;         /* requests per second, smoothed */
    uint64_t window_ms;  /* start of the second that is being counted */
    uint32_t count;      /* in that second */
    uint64_t refused_ms; /* the last refusal */
    uint64_t slowed_ms;  /* the limit was lowered last */
    uint64_t grown_ms;   /* and raised */
};

/* A request wants to go now: how many ms it should wait. */
uint32_t retry_rate_delay(struct retry_rate *rate, uint64_t now_ms);
/* The server asked for fewer requests. A single refusal limits nothing. */
void retry_rate_slow(struct retry_rate *rate, uint64_t now_ms);

/* A limit of bytes per second. Requests get their turns one after another, each after the time that
 * the bytes before it take; one request itself goes at the speed of the line. Zero it and set
 * bytes_per_s. */
struct retry_bandwidth {
    uint64_t bytes_per_s; /* 0: no limit */
    uint64_t free_ns;     /* when all that had a turn is paid for */
};

/* A request of so many bytes wants to go now: how many ns it should wait. */
uint64_t retry_bandwidth_delay(struct retry_bandwidth *bandwidth, uint64_t now_ns, uint64_t bytes);
/* One that waited did not go. */
void retry_bandwidth_return(struct retry_bandwidth *bandwidth, uint64_t bytes);

#endif
