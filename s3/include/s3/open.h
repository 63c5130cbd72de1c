/*
 * Opening a store by its URL: s3://bucket[/prefix] or file:///dir[/…]. The result is the whole
 * stack that a mount uses: trace (metrics, one log line for each failure at the edge) over retry
 * over hedge over the backend.
 */
#ifndef SLUICE_S3_OPEN_H
#define SLUICE_S3_OPEN_H

#include "base/metrics.h"
#include "s3/keys.h"
#include "s3/store.h"

struct store_url {
    char scheme[8]; /* "s3", "file" */
    char *bucket;   /* s3: bucket name; file: absolute directory without trailing slash */
    char *
        prefix; /* "" or "a/b/" (always ends in '/'); file:// has none: the directory is the root */
};

/* Parses and checks (bucket naming rules of S3; no ".." and no empty component in a prefix). 0 or
 * -EINVAL with a sentence that says what is wrong. */
int store_url_parse(const char *text, struct store_url *out, struct error *error);
void store_url_done(struct store_url *url);

/* All strings are borrowed for the call. NULL or 0: from the environment and profile files (AWS_*
 * names), or the default. */
struct store_options {
    const char *endpoint; /* http[s]://host[:port]; default AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL,
                             else Amazon's for the region */
    const char *region;   /* default AWS_REGION, AWS_DEFAULT_REGION, profile, us-east-1 */
    const char *profile;
    const char *access_key, *secret_key, *session_token; /* default: the credentials chain */
    /* In their place, and asked again before they end: keys that somebody else derives. */
    const struct store_keys_source *keys;
    bool anonymous; /* no signature */
    int path_style; /* 1 yes, 0 no, -1 (set by store_options_init) automatic: yes with a custom
                       endpoint or a bucket name with dots */
    const char *ca_file;
    bool no_verify_tls;
    const char *client; /* who asks, for the server's access log: behind our name in User-Agent */
    const char *storage_class;
    const char *sse;     /* "AES256", "aws:kms", "SSE-C" */
    const char *sse_key; /* KMS key id, or base64 of the 32-byte SSE-C key */
    bool request_payer;
    unsigned connections;        /* at most this many at once; default 64 */
    uint32_t connect_timeout_ms; /* default 5,000 */
    uint32_t
        stall_timeout_ms;    /* a try that moves no byte for so long is given up; default 10,000 */
    uint32_t deadline_ms;    /* all tries of one request; default 60,000 */
    uint32_t hedge_after_ms; /* a GET slower than this (and than the recent p99) is asked twice;
                                default 500; UINT32_MAX: never */
    uint64_t upload_limit, download_limit; /* bytes per second; 0: none */
    bool read_only; /* file://: the directory must exist and is not written */
    /* Told of each try that failed and will be made again, on the loop thread. NULL: nobody. */
    void (*again)(void *arg, const struct error *why);
    void *again_arg;
};
void store_options_init(struct store_options *options);

/* Checks options, finds credentials (may use the network for web identity, container and instance
 * metadata), does not touch the bucket otherwise. `metrics` may be NULL. Blocking; not on the loop
 * thread. */
int store_open(const struct store_url *url, const struct store_options *options, struct loop *loop,
               struct metrics *metrics, struct store **out, struct error *error);

/* The endpoint that was chosen, as it was written; NULL: Amazon's for the region. */
const char *store_endpoint(const struct store_options *options);

/* The first look of who only reads: may the prefix be listed? Blocking. Errors say what to do. */
int store_look(struct store *store, const char *prefix, struct error *error);

/* Finds what the store honours with objects of its own under `<prefix>.sluice/probe/`, which it
 * removes, and sets the caps of the stack. Blocking. `report` (may be NULL) is called for each
 * finding with a short name, whether it is as it should be, and a sentence. Used by mount and
 * `sluice doctor`. */
int store_probe(struct store *store, const char *prefix,
                void (*report)(void *arg, const char *what, bool good, const char *text), void *arg,
                struct error *error);

#endif
