/*
 * Keys for others to sign with, in place of the secret: those that SigV4 derives from it for one
 * day, region and service (docs/security.md, "Keys of the bucket"). Who has one can sign requests
 * of that day only, and cannot compute the secret or the key of another day.
 */
#ifndef SLUICE_S3_KEYS_H
#define SLUICE_S3_KEYS_H

#include <stdint.h>

#include "base/error.h"
#include "base/loop.h"

#define STORE_KEY_LEN 32
#define STORE_KEY_DAYS 2
#define STORE_KEY_TEXT_MAX 128    /* of an access key's id, or a region */
#define STORE_KEY_TOKEN_MAX 16384 /* of a session token */

struct store_day_key {
    char day[9]; /* 20130524, UTC */
    uint8_t key[STORE_KEY_LEN];
};

/* All owned. */
struct store_keys {
    char *access_key, *region;
    char *session_token; /* NULL: none */
    uint32_t valid_s;    /* from now; new ones are to be asked for before */
    unsigned day_count;
    struct store_day_key days[STORE_KEY_DAYS];
};
void store_keys_done(struct store_keys *keys);

/* Who has a secret and makes such keys. */
struct store_options;
struct store_signer;
/* Finds credentials as store_open does. Blocking, not on the loop thread. */
int store_signer_new(struct store_signer **out, struct loop *loop,
                     const struct store_options *options, struct error *error);
/* NULL is allowed. Not on the loop thread. */
void store_signer_free(struct store_signer *signer);
/* Loop thread. `now_s`: since 1970. Keys that are to be used for `lifetime_s` at most: of today,
 * and shortly before its end of tomorrow, too. -EACCES: there are no credentials just now. */
int store_signer_keys(struct store_signer *signer, int64_t now_s, uint32_t lifetime_s,
                      struct store_keys *out, struct error *error);
/* The region that they are for. */
const char *store_signer_region(const struct store_signer *signer);

/* Who gets them from somebody else: `fetch` is called on a thread that may block, and not any more
 * when the store was freed. */
struct store_keys_source {
    int (*fetch)(void *arg, struct store_keys *out, struct error *error);
    void *arg;
};

#endif
