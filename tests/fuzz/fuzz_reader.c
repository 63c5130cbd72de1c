/* The bounded reader: the input's first part says which reads to make on the second. Every read
 * must stay inside the input, and what was read must be what an encoder makes of it again. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/hash.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_one(struct reader *r, uint8_t what, size_t max)
{
    size_t before = r->pos;
    size_t len = 0;
    const uint8_t *p = NULL;
    uint64_t v = 0;
    struct buf again;
    buf_init(&again, 0);
    switch (what % 8) {
    case 0:
        buf_put_u8(&again, reader_u8(r));
        break;
    case 1:
        buf_put_u16(&again, reader_u16(r));
        break;
    case 2:
        buf_put_u32(&again, reader_u32(r));
        break;
    case 3:
        buf_put_u64(&again, reader_u64(r));
        break;
    case 4:
        v = reader_varint(r);
        buf_put_varint(&again, v);
        break;
    case 5:
        p = reader_raw(r, max);
        if (p)
            buf_put(&again, p, max);
        break;
    case 6:
        p = reader_bytes(r, max, &len);
        assert(len <= max && (p || len == 0));
        if (p)
            buf_put_bytes(&again, p, len);
        break;
    default: {
        char *s = reader_str(r, max);
        assert(!s || strlen(s) <= max);
        if (s)
            buf_put_str(&again, s);
        free(s);
        break;
    }
    }
    assert(r->pos <= r->len && r->pos >= before);
    if (!r->failed) {
        assert(again.len == r->pos - before);
        assert(again.len == 0 || memcmp(again.data, r->data + before, again.len) == 0);
    } else {
        assert(v == 0 && !p && reader_left(r) == 0 && reader_end(r) == -EBADMSG);
    }
    buf_done(&again);
}

static void text_decoders(const char *text, size_t len)
{
    uint8_t *bytes = malloc(len + 1);
    char *again = malloc(len + 8);
    assert(bytes && again);
    int n = hash_unbase64(text, len, bytes, len);
    if (n >= 0)
        assert(hash_base64(bytes, (size_t)n, again) == len);
    if (hash_unhex(text, len, bytes, len / 2) == 0) {
        hash_hex(bytes, len / 2, again);
        assert(strncasecmp(again, text, len) == 0);
    }
    free(bytes);
    free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    text_decoders((const char *)data, size);
    if (size < 1)
        return 0;
    size_t script = data[0] % 32;
    if (size - 1 < script)
        return 0;
    /* A copy of its own size, so that the sanitizer sees a read past its end. */
    size_t len = size - 1 - script;
    uint8_t *input = malloc(len ? len : 1);
    assert(input);
    memcpy(input, data + 1 + script, len);
    struct reader r;
    reader_init(&r, input, len);
    for (size_t i = 0; i < script; i++)
        read_one(&r, data[1 + i] & 7, data[1 + i] >> 3);
    free(input);
    return 0;
}
