#include "base/hash.h"

#include <errno.h>
#include <isa-l/crc.h>
#include <limits.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/cleanup.h"

uint32_t hash_crc32c(uint32_t crc, const void *data, size_t len)
{
    /* ISA-L's function leaves out both inversions of RFC 3720, and its length is an int. */
    const uint8_t *p = data;
    crc = ~crc;
    while (len > 0) {
        size_t step = MIN(len, (size_t)1 << 30);
        crc = crc32_iscsi((unsigned char *)p, (int)step, crc);
        p += step;
        len -= step;
    }
    return ~crc;
}

/* What a CRC adds to that of the block after it: linear in its bits, so the sum over its bytes. */
static pthread_once_t shift_once = PTHREAD_ONCE_INIT;
static uint32_t shift[4][256];

static void make_shift(void)
{
    static const uint8_t zeros[HASH_BLOCK];
    uint32_t none = hash_crc32c(0, zeros, sizeof(zeros));
    for (unsigned byte = 0; byte < 4; byte++)
        for (uint32_t value = 1; value < 256; value++)
            shift[byte][value] = hash_crc32c(value << 8 * byte, zeros, sizeof(zeros)) ^ none;
}

uint32_t hash_crc32c_join(uint32_t crc, uint32_t block_crc)
{
    pthread_once(&shift_once, make_shift);
    return shift[0][crc & 255] ^ shift[1][crc >> 8 & 255] ^ shift[2][crc >> 16 & 255] ^
           shift[3][crc >> 24] ^ block_crc;
}

/* The product of 64 x 64 bits folded to 64: each bit of both sides has its say. */
static uint64_t fold(uint64_t a, uint64_t b)
{
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

#define ODD_1 0x9e3779b97f4a7c15ull /* 2^64 / golden ratio */
#define ODD_2 0xbf58476d1ce4e5b9ull

uint64_t hash_u64(uint64_t v)
{
    return fold(v ^ ODD_1, (v >> 32) ^ ODD_2) ^ fold(v + ODD_2, ODD_1);
}

uint64_t hash_bytes64(const void *data, size_t len, uint64_t seed)
{
    const uint8_t *p = data;
    uint64_t h = seed ^ fold(len ^ ODD_1, ODD_2);
    for (; len >= 8; p += 8, len -= 8) {
        uint64_t word;
        memcpy(&word, p, sizeof(word));
        h = fold(h ^ word ^ ODD_1, ODD_2 ^ (h >> 29));
    }
    uint64_t rest = 0;
    if (len)
        memcpy(&rest, p, len);
    return hash_u64(fold(h ^ rest ^ ODD_1, ODD_2));
}

/* Looked up once: the look-up costs more than the digest of a short text. Read-only after. */
static pthread_once_t digests_once = PTHREAD_ONCE_INIT;
static const EVP_MD *digest_sha256, *digest_md5;

static void must(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "sluice: %s failed\n", what);
        abort();
    }
}

static void find_digests(void)
{
    digest_sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    digest_md5 = EVP_MD_fetch(NULL, "MD5", NULL);
    must(digest_sha256 && digest_md5, "OpenSSL: SHA256 and MD5 not there");
}

void hash_sha256(const void *data, size_t len, uint8_t out[32])
{
    pthread_once(&digests_once, find_digests);
    must(EVP_Digest(data, len, out, NULL, digest_sha256, NULL) == 1, "SHA-256");
}

void hash_md5(const void *data, size_t len, uint8_t out[16])
{
    pthread_once(&digests_once, find_digests);
    must(EVP_Digest(data, len, out, NULL, digest_md5, NULL) == 1, "MD5");
}

void hash_hmac_sha256(const void *key, size_t key_len, const void *data, size_t len,
                      uint8_t out[32])
{
    pthread_once(&digests_once, find_digests);
    must(key_len <= INT_MAX, "HMAC with a key of this length");
    /* A NULL key means "the key of the call before" to OpenSSL. */
    must(HMAC(digest_sha256, key_len ? key : "", (int)key_len, data, len, out, NULL) != NULL,
         "HMAC-SHA-256");
}

void hash_hex(const void *data, size_t len, char *out)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *p = data;
    for (size_t i = 0; i < len; i++) {
        *out++ = digits[p[i] >> 4];
        *out++ = digits[p[i] & 15];
    }
    *out = '\0';
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

int hash_unhex(const char *hex, size_t hex_len, uint8_t *out, size_t len)
{
    if (hex_len % 2 || hex_len / 2 != len)
        return -EINVAL;
    for (size_t i = 0; i < hex_len; i++) {
        if (hex_value(hex[i]) < 0)
            return -EINVAL;
    }
    for (size_t i = 0; i < len; i++)
        out[i] =
            (uint8_t)((unsigned)hex_value(hex[2 * i]) << 4 | (unsigned)hex_value(hex[2 * i + 1]));
    return 0;
}

size_t hash_base64(const void *data, size_t len, char *out)
{
    /* In steps, for OpenSSL's int; a multiple of 3 makes no padding in the middle. */
    const size_t step = 3 << 20;
    const uint8_t *p = data;
    char *end = out;
    *end = '\0';
    for (size_t n; len > 0; p += n, len -= n) {
        n = MIN(len, step);
        end += EVP_EncodeBlock((unsigned char *)end, p, (int)n);
    }
    return (size_t)(end - out);
}

static bool is_base64(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '+' ||
           c == '/';
}

int hash_unbase64(const char *text, size_t text_len, uint8_t *out, size_t cap)
{
    if (text_len == 0)
        return 0;
    if (text_len % 4 || text_len > INT_MAX || text_len / 4 * 3 > cap)
        return -EINVAL;
    size_t padding = 0;
    while (padding < 2 && text[text_len - 1 - padding] == '=')
        padding++;
    for (size_t i = 0; i < text_len - padding; i++) {
        if (!is_base64(text[i]))
            return -EINVAL;
    }
    int n = EVP_DecodeBlock(out, (const unsigned char *)text, (int)text_len);
    return n < 0 ? -EINVAL : n - (int)padding;
}

void hash_random(void *out, size_t len)
{
    uint8_t *p = out;
    while (len > 0) {
        ssize_t n = getrandom(p, len, 0);
        if (n < 0 && errno == EINTR)
            continue;
        must(n > 0, "getrandom");
        p += n;
        len -= (size_t)n;
    }
}
