/* Checksums and text encodings, over ISA-L and OpenSSL. Pure functions, any thread. */
#ifndef SLUICE_BASE_HASH_H
#define SLUICE_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

/* CRC-32C (Castagnoli, RFC 3720 appendix B.4). Start with crc = 0; the result of one call is the
 * start of the next. */
uint32_t hash_crc32c(uint32_t crc, const void *data, size_t len);
/* What hash_crc32c(crc, block, HASH_BLOCK) gives where hash_crc32c(0, block, HASH_BLOCK) is
 * block_crc: for several sums over the same bytes, which are read once. */
#define HASH_BLOCK 4096u
uint32_t hash_crc32c_join(uint32_t crc, uint32_t block_crc);

/* A 64-bit hash for tables in memory; not stable between versions, never stored. */
uint64_t hash_bytes64(const void *data, size_t len, uint64_t seed);
uint64_t hash_u64(uint64_t v);

void hash_sha256(const void *data, size_t len, uint8_t out[32]);
void hash_md5(const void *data, size_t len, uint8_t out[16]);
void hash_hmac_sha256(const void *key, size_t key_len, const void *data, size_t len,
                      uint8_t out[32]);

/* Lower-case; `out` has 2 * len + 1 bytes. */
void hash_hex(const void *data, size_t len, char *out);
/* Exactly 2 * len digits of either case; -EINVAL otherwise. */
int hash_unhex(const char *hex, size_t hex_len, uint8_t *out, size_t len);
/* RFC 4648 with padding; `out` has 4 * ((len + 2) / 3) + 1 bytes. Returns its length. */
size_t hash_base64(const void *data, size_t len, char *out);
/* Returns the number of bytes or -EINVAL; `out` has 3 * (text_len / 4) bytes at least. */
int hash_unbase64(const char *text, size_t text_len, uint8_t *out, size_t cap);
/* Fills with bytes of the operating system's generator. Aborts if there is none. */
void hash_random(void *out, size_t len);

#endif
