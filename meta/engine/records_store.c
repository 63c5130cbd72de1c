/* The records of other stores than the volume's own. */
#include <string.h>

#include "records.h"

#define VERSION 1

enum { FLAG_READ_ONLY = 1, FLAG_BESIDE = 2, FLAG_DETACHING = 4 };
enum { FLAG_ATTACHED = 1, FLAG_PAUSED = 2, FLAG_AFTER = 4, FLAG_CLASS = 8 };

static void put_text(struct buf *b, const char *text)
{
    buf_put_bytes(b, text, strlen(text));
}

/* Text of at most cap - 1 bytes, without NUL. */
static void get_text(struct reader *r, char *out, size_t cap)
{
    size_t len = 0;
    const uint8_t *bytes = reader_bytes(r, cap - 1, &len);
    if (r->failed || memchr(bytes, 0, len)) {
        r->failed = true;
        return;
    }
    memcpy(out, bytes, len);
    out[len] = '\0';
}

void record_store_encode(struct buf *b, const struct meta_store *store)
{
    buf_put_u8(b, VERSION);
    buf_put_u8(b, (uint8_t)((store->read_only ? FLAG_READ_ONLY : 0) |
                            (store->file_beside_directory ? FLAG_BESIDE : 0) |
                            (store->detaching ? FLAG_DETACHING : 0)));
    buf_put_varint(b, store->number);
    buf_put_varint(b, store->root);
    put_text(b, store->name);
    put_text(b, store->url);
    put_text(b, store->options);
    put_text(b, store->prefix);
}

int record_store_decode(const void *data, size_t len, struct meta_store *out)
{
    struct reader r;
    memset(out, 0, sizeof(*out));
    reader_init(&r, data, len);
    if (reader_u8(&r) != VERSION)
        r.failed = true;
    uint8_t flags = reader_u8(&r);
    uint64_t number = reader_varint(&r);
    out->root = reader_varint(&r);
    get_text(&r, out->name, sizeof(out->name));
    get_text(&r, out->url, sizeof(out->url));
    get_text(&r, out->options, sizeof(out->options));
    get_text(&r, out->prefix, sizeof(out->prefix));
    if (number == 0 || number > META_STORES_MAX)
        r.failed = true;
    out->number = (uint32_t)number;
    out->read_only = flags & FLAG_READ_ONLY;
    out->file_beside_directory = flags & FLAG_BESIDE;
    out->detaching = flags & FLAG_DETACHING;
    return reader_end(&r);
}

void record_place_encode(struct buf *b, const struct record_place *place)
{
    buf_put_u8(b, VERSION);
    buf_put_u8(b,
               (uint8_t)((place->attached ? FLAG_ATTACHED : 0) | (place->paused ? FLAG_PAUSED : 0) |
                         (place->after_s ? FLAG_AFTER : 0) | (place->class[0] ? FLAG_CLASS : 0)));
    buf_put_varint(b, place->store);
    if (place->after_s)
        buf_put_varint(b, place->after_s);
    if (place->class[0])
        put_text(b, place->class);
}

int record_place_decode(const void *data, size_t len, struct record_place *out)
{
    struct reader r;
    reader_init(&r, data, len);
    if (reader_u8(&r) != VERSION)
        r.failed = true;
    uint8_t flags = reader_u8(&r);
    out->attached = flags & FLAG_ATTACHED;
    out->paused = flags & FLAG_PAUSED;
    out->store = reader_varint(&r);
    out->after_s = flags & FLAG_AFTER ? reader_varint(&r) : 0;
    out->class[0] = '\0';
    if (flags & FLAG_CLASS)
        get_text(&r, out->class, sizeof(out->class));
    if (flags & FLAG_CLASS && (!out->class[0] || out->store || out->attached))
        r.failed = true;
    if (out->store > META_STORES_MAX || out->after_s > RECORD_AFTER_MAX ||
        (flags & FLAG_AFTER && (!out->after_s || out->attached)))
        r.failed = true;
    return reader_end(&r);
}
