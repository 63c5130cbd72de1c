/*
 * Who signs: finds keys by the usual chain (options, environment, web identity, profile files with
 * credential_process, container, instance metadata) and gets new ones before they expire.
 */
#ifndef SLUICE_S3_CREDENTIALS_H
#define SLUICE_S3_CREDENTIALS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/loop.h"
#include "s3/open.h"

struct credentials;

/* All owned. */
struct credential_set {
    char *access_key, *secret_key, *session_token; /* token: NULL if none */
    int64_t expires_s;                             /* since 1970; 0: never */
    /* In place of secret_key, which is NULL then. */
    char *region;
    unsigned day_count;
    struct store_day_key days[STORE_KEY_DAYS];
};
void credential_set_done(struct credential_set *set);

/* The region by options, environment and profile; us-east-1 if none says. *out is the caller's. */
int credentials_region(const struct store_options *options, char **out, struct error *error);

/* Finds a first set. -EACCES and a sentence that lists what was tried if there is none; -EINVAL for
 * a profile that is wrong. Blocking; not on the loop thread. */
int credentials_new(struct credentials **out, struct loop *loop,
                    const struct store_options *options, const char *region, struct error *error);
/* Waits for a running refresh. NULL is allowed. Not on the loop thread. */
void credentials_free(struct credentials *c);

/* Loop thread. The set to sign with now, valid until the next call; begins a refresh in the
 * background if it expires soon. -EACCES if it has expired and no new one is there yet. */
int credentials_get(struct credentials *c, const struct credential_set **out, struct error *error);
/* Loop thread: the server says that the set has expired. False: there is no other to be had. */
bool credentials_reject(struct credentials *c);
/* The key of the day of `time` (sigv4.h); NULL: there is none. */
const uint8_t *credential_day_key(const struct credential_set *set, const char *time);
/* Where the set came from: "environment", "profile default", … */
const char *credentials_source(const struct credentials *c);

#endif
