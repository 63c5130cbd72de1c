/*
 * A growing byte buffer, and a bounded reader of bytes that came from outside. Integers are
 * big-endian unless the name says otherwise.
 *
 * Encoders: a failed allocation or a passed limit sets `failed`, and later appends do nothing;
 * check once, at the end (buf_error). Decoders: a read past the end sets `failed` and yields zeros;
 * check once, at the end (reader_error). Neither ever reads or writes outside its bounds. Not
 * thread-safe.
 */
#ifndef SLUICE_BASE_BUF_H
#define SLUICE_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf {
    uint8_t *data; /* owned */
    size_t len, cap;
    size_t max; /* bytes; 0 = no limit but memory */
    bool failed;
    bool over_max; /* with failed: because of max, not of memory */
};

void buf_init(struct buf *b, size_t max);
void buf_done(struct buf *b);  /* frees; *b is as after buf_init */
void buf_reset(struct buf *b); /* len = 0, keeps the memory, clears failed */
/* Room for `len` more bytes at the end, to be filled by the caller; NULL on failure. len is added
 * at once. */
uint8_t *buf_extend(struct buf *b, size_t len);
void buf_put(struct buf *b, const void *data, size_t len);
void buf_put_u8(struct buf *b, uint8_t v);
void buf_put_u16(struct buf *b, uint16_t v);
void buf_put_u32(struct buf *b, uint32_t v);
void buf_put_u64(struct buf *b, uint64_t v);
void buf_put_varint(struct buf *b, uint64_t v);                  /* LEB128 */
void buf_put_bytes(struct buf *b, const void *data, size_t len); /* varint length, then the bytes */
void buf_put_str(struct buf *b, const char *s);                  /* buf_put_bytes of strlen(s) */
/* Appends text without a length and without its NUL; a NUL is kept behind the end (not counted), so
 * that data is a C string. */
void buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* 0, or -ENOMEM / -E2BIG (max passed). After -E2BIG the bytes before it are still there. */
int buf_error(const struct buf *b);
/* The bytes move to the caller (free()); *b is empty after, as by buf_done; `len` may be NULL. NULL
 * (and len 0) if failed or empty. */
uint8_t *buf_take(struct buf *b, size_t *len);

struct reader {
    const uint8_t *data; /* not owned */
    size_t len, pos;
    bool failed;
};

void reader_init(struct reader *r, const void *data, size_t len);
size_t reader_left(const struct reader *r);
uint8_t reader_u8(struct reader *r);
uint16_t reader_u16(struct reader *r);
uint32_t reader_u32(struct reader *r);
uint64_t reader_u64(struct reader *r);
/* LEB128 in its shortest form; a longer one, or more than 64 bits, fails. */
uint64_t reader_varint(struct reader *r);
/* A pointer to `len` bytes inside the input, or NULL (and failed). Valid while the input is. */
const uint8_t *reader_raw(struct reader *r, size_t len);
/* varint length + bytes; fails if longer than `max`. */
const uint8_t *reader_bytes(struct reader *r, size_t max, size_t *len);
/* The same as a new C string (free()); fails on an embedded NUL. NULL on failure. */
char *reader_str(struct reader *r, size_t max);
/* 0, or -EBADMSG if a read failed. reader_end also refuses bytes that are left over. */
int reader_error(const struct reader *r);
int reader_end(const struct reader *r);

#endif
