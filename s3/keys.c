#include "s3/keys.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "credentials.h"
#include "sigv4.h"

#define DAY_S 86400
/* So long before midnight the keys of the next day are handed out too: longer before than new ones
 * are asked for (credentials.c), and more than a clock may be wrong. */
#define DAY_LEAD_S 900

struct store_signer {
    struct credentials *credentials;
    char *region;
    struct sigv4_key keys[STORE_KEY_DAYS]; /* owned by the loop thread */
};

void store_keys_done(struct store_keys *keys)
{
    free(keys->access_key);
    free(keys->region);
    free(keys->session_token);
    explicit_bzero(keys, sizeof(*keys));
}

int store_signer_new(struct store_signer **out, struct loop *loop,
                     const struct store_options *options, struct error *error)
{
    struct store_signer *signer = calloc(1, sizeof(*signer));
    if (!signer)
        return error_set(error, -ENOMEM, "no memory");
    int rc = credentials_region(options, &signer->region, error);
    if (rc == 0)
        rc = credentials_new(&signer->credentials, loop, options, signer->region, error);
    if (rc) {
        store_signer_free(signer);
        return rc;
    }
    *out = signer;
    return 0;
}

void store_signer_free(struct store_signer *signer)
{
    if (!signer)
        return;
    credentials_free(signer->credentials);
    free(signer->region);
    explicit_bzero(signer->keys, sizeof(signer->keys));
    free(signer);
}

const char *store_signer_region(const struct store_signer *signer)
{
    return signer->region;
}

int store_signer_keys(struct store_signer *signer, int64_t now_s, uint32_t lifetime_s,
                      struct store_keys *out, struct error *error)
{
    const struct credential_set *set;
    *out = (struct store_keys){0};
    int rc = credentials_get(signer->credentials, &set, error);
    if (rc)
        return rc;
    int64_t midnight = (now_s / DAY_S + 1) * DAY_S;
    int64_t end = midnight - now_s <= DAY_LEAD_S ? midnight + DAY_S : midnight;
    end = MIN(end, now_s + lifetime_s);
    if (set->expires_s)
        end = MIN(end, MAX(set->expires_s, now_s + 1));
    out->valid_s = (uint32_t)(end - now_s);
    for (int64_t at = now_s; out->day_count < STORE_KEY_DAYS && at < midnight + DAY_S;
         at += DAY_S) {
        if (at > now_s && midnight - now_s > DAY_LEAD_S)
            break;
        char time[SIGV4_TIME_LEN + 1];
        struct store_day_key *day = &out->days[out->day_count];
        struct sigv4_key *cache = &signer->keys[out->day_count++];
        sigv4_time(at, time);
        sigv4_derive(time, signer->region, "s3", set->secret_key, cache);
        memcpy(day->day, cache->day, sizeof(day->day));
        memcpy(day->key, cache->key, sizeof(day->key));
    }
    out->access_key = strdup(set->access_key);
    out->region = strdup(signer->region);
    out->session_token = set->session_token ? strdup(set->session_token) : NULL;
    if (!out->access_key || !out->region || (set->session_token && !out->session_token)) {
        store_keys_done(out);
        return error_set(error, -ENOMEM, "no memory");
    }
    return 0;
}
