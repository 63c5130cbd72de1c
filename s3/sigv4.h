/*
 * AWS Signature Version 4: signs one request (header form). Pure but for the clock, which is given.
 */
#ifndef SLUICE_S3_SIGV4_H
#define SLUICE_S3_SIGV4_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

#define SIGV4_UNSIGNED "UNSIGNED-PAYLOAD"
#define SIGV4_EMPTY_SHA256 "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define SIGV4_TIME_LEN 16 /* 20150830T123600Z */

struct sigv4_pair {
    const char *name;  /* lower case */
    const char *value; /* as sent; surrounding and repeated spaces do not count in the signature */
};

/* The key of a day, region and service; made anew when one of them or the secret changes. Owned by
 * one thread. Zero it first. */
struct sigv4_key {
    char day[9];
    char region[64], service[16];
    char secret_tag[65]; /* hex SHA-256 of the secret: tells that it changed */
    uint8_t key[32];
};

struct sigv4_request {
    const char *method;
    const char *path;                 /* encoded as it is sent */
    const char *query;                /* encoded and sorted by name, without '?'; "" if none */
    const struct sigv4_pair *headers; /* all that are to be signed, sorted by name */
    unsigned header_count;
    const char *payload; /* hex SHA-256 of the body, or SIGV4_UNSIGNED */
    const char *time;    /* ISO basic, SIGV4_TIME_LEN characters; also the value of x-amz-date */
    const char *region, *service;
    const char *access_key, *secret_key;
    const uint8_t *day_key; /* of the day of `time`, region and service; NULL: from secret_key */
};

/* Appends the value of the Authorization header (with a NUL behind). 0, -ENOMEM, or -EINVAL (region
 * or service too long). */
int sigv4_sign(const struct sigv4_request *request, struct sigv4_key *cache, struct buf *out);
/* The key of the day of `time`, into `key`. Region and service as sigv4_sign allows them. */
void sigv4_derive(const char *time, const char *region, const char *service, const char *secret,
                  struct sigv4_key *key);
/* The text that is hashed and signed; for tests and for messages about a signature that is refused.
 */
void sigv4_canonical(const struct sigv4_request *request, struct buf *out);
/* Seconds since 1970 → 20150830T123600Z. */
void sigv4_time(int64_t unix_s, char out[SIGV4_TIME_LEN + 1]);
/* Percent-encodes all but A-Z a-z 0-9 - . _ ~ (and '/' if keep_slash). */
void sigv4_encode(struct buf *out, const char *text, size_t len, int keep_slash);

#endif
