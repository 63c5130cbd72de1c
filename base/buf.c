#include "base/buf.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

void buf_init(struct buf *b, size_t max)
{
    *b = (struct buf){.max = max};
}

void buf_done(struct buf *b)
{
    free(b->data);
    buf_init(b, b->max);
}

void buf_reset(struct buf *b)
{
    b->len = 0;
    b->failed = false;
    b->over_max = false;
}

/* Room for `len` more bytes and a NUL behind them. */
static bool reserve(struct buf *b, size_t len)
{
    if (b->failed)
        return false;
    if (len > SIZE_MAX / 4 - b->len || (b->max && b->len + len > b->max)) {
        b->failed = true;
        b->over_max = true;
        return false;
    }
    size_t need = b->len + len + 1;
    if (need <= b->cap)
        return true;
    size_t cap = MAX(need, b->cap + b->cap / 2);
    cap = MAX(cap, 64);
    uint8_t *data = realloc(b->data, cap);
    if (!data) {
        b->failed = true;
        return false;
    }
    b->data = data;
    b->cap = cap;
    return true;
}

uint8_t *buf_extend(struct buf *b, size_t len)
{
    if (!reserve(b, len))
        return NULL;
    uint8_t *room = b->data + b->len;
    b->len += len;
    return room;
}

void buf_put(struct buf *b, const void *data, size_t len)
{
    uint8_t *room = buf_extend(b, len);
    if (room && len)
        memcpy(room, data, len);
}

static void put_be(struct buf *b, uint64_t v, size_t len)
{
    uint8_t *room = buf_extend(b, len);
    if (!room)
        return;
    for (size_t i = len; i-- > 0; v >>= 8)
        room[i] = (uint8_t)v;
}

void buf_put_u8(struct buf *b, uint8_t v)
{
    put_be(b, v, 1);
}

void buf_put_u16(struct buf *b, uint16_t v)
{
    put_be(b, v, 2);
}

void buf_put_u32(struct buf *b, uint32_t v)
{
    put_be(b, v, 4);
}

void buf_put_u64(struct buf *b, uint64_t v)
{
    put_be(b, v, 8);
}

void buf_put_varint(struct buf *b, uint64_t v)
{
    uint8_t bytes[10];
    size_t n = 0;
    for (; v >= 0x80; v >>= 7)
        bytes[n++] = (uint8_t)(v | 0x80);
    bytes[n++] = (uint8_t)v;
    buf_put(b, bytes, n);
}

void buf_put_bytes(struct buf *b, const void *data, size_t len)
{
    buf_put_varint(b, len);
    buf_put(b, data, len);
}

void buf_put_str(struct buf *b, const char *s)
{
    buf_put_bytes(b, s, strlen(s));
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
    if (!reserve(b, 0))
        return;
    va_list ap;
    va_start(ap, fmt);
    va_list again;
    va_copy(again, ap);
    size_t room = b->cap - b->len;
    int n = vsnprintf((char *)b->data + b->len, room, fmt, ap);
    va_end(ap);
    if (n < 0) {
        b->failed = true;
    } else if (reserve(b, (size_t)n)) {
        if ((size_t)n >= room)
            vsnprintf((char *)b->data + b->len, (size_t)n + 1, fmt, again);
        b->len += (size_t)n;
    } else {
        b->data[b->len] = '\0'; /* the first try may have written behind the end */
    }
    va_end(again);
}

int buf_error(const struct buf *b)
{
    if (!b->failed)
        return 0;
    return b->over_max ? -E2BIG : -ENOMEM;
}

uint8_t *buf_take(struct buf *b, size_t *len)
{
    if (b->failed || b->len == 0)
        buf_done(b);
    uint8_t *data = b->data;
    if (len)
        *len = b->len;
    buf_init(b, b->max);
    return data;
}

void reader_init(struct reader *r, const void *data, size_t len)
{
    *r = (struct reader){.data = data, .len = len};
}

size_t reader_left(const struct reader *r)
{
    return r->failed ? 0 : r->len - r->pos;
}

const uint8_t *reader_raw(struct reader *r, size_t len)
{
    static const uint8_t nothing[1];
    if (r->failed || len > r->len - r->pos) {
        r->failed = true;
        return NULL;
    }
    if (len == 0)
        return r->data ? r->data + r->pos : nothing;
    const uint8_t *p = r->data + r->pos;
    r->pos += len;
    return p;
}

static uint64_t read_be(struct reader *r, size_t len)
{
    const uint8_t *p = reader_raw(r, len);
    uint64_t v = 0;
    for (size_t i = 0; p && i < len; i++)
        v = v << 8 | p[i];
    return v;
}

uint8_t reader_u8(struct reader *r)
{
    return (uint8_t)read_be(r, 1);
}

uint16_t reader_u16(struct reader *r)
{
    return (uint16_t)read_be(r, 2);
}

uint32_t reader_u32(struct reader *r)
{
    return (uint32_t)read_be(r, 4);
}

uint64_t reader_u64(struct reader *r)
{
    return read_be(r, 8);
}

uint64_t reader_varint(struct reader *r)
{
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        uint8_t byte = reader_u8(r);
        if (r->failed)
            return 0;
        /* The tenth byte has one bit of the value left; a zero at the end says nothing, so that
         * each value has one form only. */
        if ((shift == 63 && byte > 1) || (shift > 0 && byte == 0))
            break;
        v |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80))
            return v;
    }
    r->failed = true;
    return 0;
}

const uint8_t *reader_bytes(struct reader *r, size_t max, size_t *len)
{
    uint64_t n = reader_varint(r);
    if (n > max)
        r->failed = true;
    const uint8_t *p = r->failed ? NULL : reader_raw(r, (size_t)n);
    *len = p ? (size_t)n : 0;
    return p;
}

char *reader_str(struct reader *r, size_t max)
{
    size_t len;
    const uint8_t *p = reader_bytes(r, max, &len);
    if (!p)
        return NULL;
    char *s = memchr(p, '\0', len) ? NULL : malloc(len + 1);
    if (!s) {
        r->failed = true;
        return NULL;
    }
    memcpy(s, p, len);
    s[len] = '\0';
    return s;
}

int reader_error(const struct reader *r)
{
    return r->failed ? -EBADMSG : 0;
}

int reader_end(const struct reader *r)
{
    return r->failed || r->pos != r->len ? -EBADMSG : 0;
}
