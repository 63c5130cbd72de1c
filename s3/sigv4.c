#include "sigv4.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/hash.h"

void sigv4_time(int64_t unix_s, char out[SIGV4_TIME_LEN + 1])
{
    time_t t = (time_t)unix_s;
    struct tm tm;
    gmtime_r(&t, &tm);
    strftime(out, SIGV4_TIME_LEN + 1, "%Y%m%dT%H%M%SZ", &tm);
}

static bool is_unreserved(unsigned char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == '_' || c == '~';
}

void sigv4_encode(struct buf *out, const char *text, size_t len, int keep_slash)
{
    static const char digits[] = "0123456789ABCDEF";
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (is_unreserved(c) || (c == '/' && keep_slash)) {
            buf_put_u8(out, c);
        } else {
            char code[3] = {'%', digits[c >> 4], digits[c & 15]};
            buf_put(out, code, sizeof(code));
        }
    }
}

static void put_text(struct buf *out, const char *text)
{
    buf_put(out, text, strlen(text));
}

/* Without surrounding space, and with one space for each run of them. */
static void put_trimmed(struct buf *out, const char *value)
{
    value += strspn(value, " \t");
    size_t len = strlen(value);
    while (len > 0 && (value[len - 1] == ' ' || value[len - 1] == '\t'))
        len--;
    for (size_t i = 0; i < len; i++) {
        if (value[i] != ' ' || value[i + 1] != ' ')
            buf_put_u8(out, (uint8_t)value[i]);
    }
}

/* A name may come twice: the values are joined then. */
static void put_headers(struct buf *out, const struct sigv4_request *r)
{
    for (unsigned i = 0; i < r->header_count; i++) {
        bool again = i > 0 && strcmp(r->headers[i].name, r->headers[i - 1].name) == 0;
        if (again) {
            out->len -= out->len > 0; /* the newline */
            put_text(out, ",");
        } else {
            put_text(out, r->headers[i].name);
            put_text(out, ":");
        }
        put_trimmed(out, r->headers[i].value);
        put_text(out, "\n");
    }
}

static void put_names(struct buf *out, const struct sigv4_request *r)
{
    for (unsigned i = 0; i < r->header_count; i++) {
        if (i > 0 && strcmp(r->headers[i].name, r->headers[i - 1].name) == 0)
            continue;
        if (i > 0)
            put_text(out, ";");
        put_text(out, r->headers[i].name);
    }
}

void sigv4_canonical(const struct sigv4_request *r, struct buf *out)
{
    put_text(out, r->method);
    put_text(out, "\n");
    put_text(out, r->path);
    put_text(out, "\n");
    put_text(out, r->query);
    put_text(out, "\n");
    put_headers(out, r);
    put_text(out, "\n");
    put_names(out, r);
    put_text(out, "\n");
    put_text(out, r->payload);
}

static void chain(uint8_t key[32], const char *text)
{
    uint8_t next[32];
    hash_hmac_sha256(key, 32, text, strlen(text), next);
    memcpy(key, next, sizeof(next));
}

void sigv4_derive(const char *time, const char *region, const char *service, const char *secret,
                  struct sigv4_key *key)
{
    char day[9], tag[65];
    snprintf(day, sizeof(day), "%.8s", time);
    uint8_t digest[32];
    hash_sha256(secret, strlen(secret), digest);
    hash_hex(digest, sizeof(digest), tag);
    if (strcmp(key->day, day) == 0 && strcmp(key->region, region) == 0 &&
        strcmp(key->service, service) == 0 && strcmp(key->secret_tag, tag) == 0)
        return;
    struct buf first;
    buf_init(&first, 0);
    put_text(&first, "AWS4");
    put_text(&first, secret);
    hash_hmac_sha256(first.data, first.len, day, strlen(day), key->key);
    buf_done(&first);
    chain(key->key, region);
    chain(key->key, service);
    chain(key->key, "aws4_request");
    memcpy(key->day, day, sizeof(day));
    memcpy(key->secret_tag, tag, sizeof(tag));
    snprintf(key->region, sizeof(key->region), "%s", region);
    snprintf(key->service, sizeof(key->service), "%s", service);
}

int sigv4_sign(const struct sigv4_request *r, struct sigv4_key *cache, struct buf *out)
{
    if (strlen(r->region) >= sizeof(cache->region) || strlen(r->service) >= sizeof(cache->service))
        return -EINVAL;
    cleanup(buf_done) struct buf text;
    buf_init(&text, 0);
    sigv4_canonical(r, &text);
    if (buf_error(&text))
        return buf_error(&text);
    uint8_t digest[32];
    char hex[65];
    hash_sha256(text.data, text.len, digest);
    hash_hex(digest, sizeof(digest), hex);

    buf_reset(&text);
    buf_printf(&text, "AWS4-HMAC-SHA256\n%s\n%.8s/%s/%s/aws4_request\n%s", r->time, r->time,
               r->region, r->service, hex);
    if (buf_error(&text))
        return buf_error(&text);
    if (!r->day_key)
        sigv4_derive(r->time, r->region, r->service, r->secret_key, cache);
    hash_hmac_sha256(r->day_key ? r->day_key : cache->key, sizeof(cache->key), text.data, text.len,
                     digest);
    hash_hex(digest, sizeof(digest), hex);

    buf_printf(out, "AWS4-HMAC-SHA256 Credential=%s/%.8s/%s/%s/aws4_request, SignedHeaders=",
               r->access_key, r->time, r->region, r->service);
    put_names(out, r);
    buf_printf(out, ", Signature=%s", hex);
    return buf_error(out);
}
