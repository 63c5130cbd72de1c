#include "wire_keys.h"

#include <errno.h>
#include <string.h>

#define ERRNO_MAX 4095
#define DAY_LEN 8

static void put_string(struct buf *b, const char *text)
{
    buf_put_bytes(b, text, strlen(text));
}

void wire_put_keys(struct buf *b, uint64_t id, const struct store_keys *keys)
{
    size_t start = wire_begin(b, WIRE_KEYS_REPLY);
    buf_put_varint(b, id);
    buf_put_varint(b, 0);
    buf_put_varint(b, keys->valid_s);
    put_string(b, keys->access_key);
    put_string(b, keys->session_token ? keys->session_token : "");
    put_string(b, keys->region);
    buf_put_u8(b, (uint8_t)keys->day_count);
    for (unsigned i = 0; i < keys->day_count; i++) {
        buf_put(b, keys->days[i].day, DAY_LEN);
        buf_put(b, keys->days[i].key, STORE_KEY_LEN);
    }
    wire_end(b, start);
}

void wire_put_no_keys(struct buf *b, uint64_t id, int code, const char *text)
{
    size_t start = wire_begin(b, WIRE_KEYS_REPLY);
    buf_put_varint(b, id);
    buf_put_varint(b, (uint64_t)-code);
    buf_put_bytes(b, text, MIN(strlen(text), (size_t)WIRE_TEXT_MAX));
    wire_end(b, start);
}

static bool is_printable(const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (bytes[i] <= ' ' || bytes[i] > '~')
            return false;
    }
    return true;
}

/* They go into headers of requests. */
static char *get_string(struct reader *r, size_t max, size_t min)
{
    size_t len = 0;
    const uint8_t *bytes = reader_bytes(r, max, &len);
    if (!bytes || len < min || !is_printable(bytes, len)) {
        r->failed = r->failed || len < min || (bytes && len);
        return NULL;
    }
    char *text = len ? strndup((const char *)bytes, len) : NULL;
    r->failed = r->failed || (len && !text);
    return text;
}

static bool is_day(const char *day)
{
    return strspn(day, "0123456789") == DAY_LEN;
}

static void get_days(struct reader *r, struct store_keys *keys)
{
    uint8_t count = reader_u8(r);
    if (count == 0 || count > STORE_KEY_DAYS) {
        r->failed = true;
        return;
    }
    for (; keys->day_count < count && !r->failed; keys->day_count++) {
        struct store_day_key *day = &keys->days[keys->day_count];
        const uint8_t *name = reader_raw(r, DAY_LEN), *key = reader_raw(r, STORE_KEY_LEN);
        if (!name || !key)
            return;
        memcpy(day->day, name, DAY_LEN);
        memcpy(day->key, key, STORE_KEY_LEN);
        r->failed = !is_day(day->day);
    }
}

int wire_get_keys(const void *data, size_t len, struct wire_keys *out)
{
    struct reader r;
    reader_init(&r, data, len);
    *out = (struct wire_keys){.id = reader_varint(&r)};
    uint64_t code = reader_varint(&r);
    if (code > ERRNO_MAX)
        return -EBADMSG;
    out->result = -(int)code;
    if (out->result) {
        out->text.bytes = (const char *)reader_bytes(&r, WIRE_TEXT_MAX, &out->text.len);
        return reader_end(&r);
    }
    uint64_t valid = reader_varint(&r);
    out->keys.valid_s = (uint32_t)MIN(valid, (uint64_t)UINT32_MAX);
    out->keys.access_key = get_string(&r, STORE_KEY_TEXT_MAX, 1);
    out->keys.session_token = get_string(&r, STORE_KEY_TOKEN_MAX, 0);
    out->keys.region = get_string(&r, STORE_KEY_TEXT_MAX, 1);
    get_days(&r, &out->keys);
    int rc = valid == 0 || valid > UINT32_MAX ? -EBADMSG : reader_end(&r);
    if (rc == 0 && (!out->keys.access_key || !out->keys.region))
        rc = -ENOMEM;
    if (rc < 0)
        store_keys_done(&out->keys);
    return rc;
}
