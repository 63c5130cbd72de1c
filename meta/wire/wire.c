#include "wire.h"

#include <errno.h>
#include <string.h>

#include "engine/records.h"
#include "meta/codec.h"

#define MAGIC "sluice"
#define MAGIC_LEN 6
#define ERRNO_MAX 4095
#define OPTIONS_MAX 65536
#define ROOM (64u << 10) /* of one read */

size_t wire_begin(struct buf *b, enum wire_type type)
{
    size_t start = b->len;
    buf_put_u32(b, 0);
    buf_put_u8(b, (uint8_t)type);
    return start;
}

void wire_end(struct buf *b, size_t start)
{
    if (b->failed)
        return;
    uint32_t len = (uint32_t)(b->len - start - 4);
    b->data[start] = (uint8_t)(len >> 24);
    b->data[start + 1] = (uint8_t)(len >> 16);
    b->data[start + 2] = (uint8_t)(len >> 8);
    b->data[start + 3] = (uint8_t)len;
}

static void put_text(struct buf *b, const struct wire_text *text)
{
    buf_put_bytes(b, text->bytes, text->len);
}

static void get_text(struct reader *r, size_t max, struct wire_text *out)
{
    size_t len = 0;
    out->bytes = (const char *)reader_bytes(r, max, &len);
    out->len = len;
    if (out->bytes && len && memchr(out->bytes, 0, len))
        r->failed = true;
}

static uint32_t get_u32(struct reader *r)
{
    uint64_t v = reader_varint(r);
    if (v > UINT32_MAX)
        r->failed = true;
    return (uint32_t)v;
}

static bool get_bool(struct reader *r)
{
    uint8_t v = reader_u8(r);
    if (v > 1)
        r->failed = true;
    return v;
}

static int get_result(struct reader *r)
{
    uint64_t v = reader_varint(r);
    if (v > ERRNO_MAX)
        r->failed = true;
    return -(int)(v & ERRNO_MAX);
}

void wire_put_hello(struct buf *b, const struct wire_hello *m)
{
    size_t start = wire_begin(b, WIRE_HELLO);
    buf_put(b, MAGIC, MAGIC_LEN);
    buf_put_varint(b, m->version_min);
    buf_put_varint(b, m->version_max);
    put_text(b, &m->volume);
    put_text(b, &m->token);
    put_text(b, &m->text);
    buf_put(b, m->key, sizeof(m->key));
    buf_put_varint(b, m->session);
    buf_put_u8(b, m->read_only);
    wire_end(b, start);
}

int wire_get_hello(const void *data, size_t len, struct wire_hello *out)
{
    struct reader r;
    reader_init(&r, data, len);
    const uint8_t *magic = reader_raw(&r, MAGIC_LEN);
    if (!magic || memcmp(magic, MAGIC, MAGIC_LEN) != 0)
        return -EBADMSG;
    out->version_min = get_u32(&r);
    out->version_max = get_u32(&r);
    get_text(&r, WIRE_VOLUME_MAX, &out->volume);
    get_text(&r, WIRE_TOKEN_MAX, &out->token);
    get_text(&r, WIRE_TEXT_MAX, &out->text);
    const uint8_t *key = reader_raw(&r, WIRE_KEY_LEN);
    if (key)
        memcpy(out->key, key, WIRE_KEY_LEN);
    out->session = reader_varint(&r);
    out->read_only = get_bool(&r);
    return reader_end(&r);
}

void wire_put_welcome(struct buf *b, const struct wire_welcome *m)
{
    struct buf volume;
    size_t start = wire_begin(b, WIRE_WELCOME);
    buf_put_varint(b, m->version);
    buf_put_varint(b, m->session);
    buf_put_u8(b, m->restarted);
    buf_put_varint(b, m->lease_ms);
    buf_put_varint(b, m->window);
    buf_put_u64(b, m->time_ns);
    put_text(b, &m->url);
    put_text(b, &m->options);
    buf_init(&volume, 0);
    record_volume_encode(&volume, &m->volume);
    buf_put_bytes(b, volume.data, volume.len);
    b->failed = b->failed || volume.failed;
    buf_done(&volume);
    buf_put_str(b, m->contents.database);
    buf_put_varint(b, m->contents.next);
    wire_end(b, start);
}

int wire_get_welcome(const void *data, size_t len, struct wire_welcome *out)
{
    struct reader r;
    size_t volume_len = 0;
    reader_init(&r, data, len);
    out->version = get_u32(&r);
    out->session = reader_varint(&r);
    out->restarted = get_bool(&r);
    out->lease_ms = get_u32(&r);
    out->window = get_u32(&r);
    out->time_ns = reader_u64(&r);
    get_text(&r, WIRE_TEXT_MAX + META_KEY_MAX, &out->url);
    get_text(&r, OPTIONS_MAX, &out->options);
    const uint8_t *volume = reader_bytes(&r, reader_left(&r), &volume_len);
    if (!volume || record_volume_decode(volume, volume_len, &out->volume) < 0 || !out->session ||
        !out->lease_ms || !out->window)
        return -EBADMSG;
    struct wire_text database;
    get_text(&r, sizeof(out->contents.database) - 1, &database);
    memset(&out->contents, 0, sizeof(out->contents));
    if (database.bytes)
        memcpy(out->contents.database, database.bytes, database.len);
    out->contents.next = reader_varint(&r);
    return reader_end(&r);
}

void wire_put_refused(struct buf *b, int code, const char *text)
{
    size_t start = wire_begin(b, WIRE_REFUSED);
    buf_put_varint(b, (uint64_t)-code);
    buf_put_bytes(b, text, strnlen(text, WIRE_TEXT_MAX));
    wire_end(b, start);
}

int wire_get_refused(const void *data, size_t len, struct wire_refused *out)
{
    struct reader r;
    reader_init(&r, data, len);
    out->code = get_result(&r);
    get_text(&r, WIRE_TEXT_MAX, &out->text);
    if (out->code == 0)
        r.failed = true;
    return reader_end(&r);
}

void wire_put_request(struct buf *b, const struct wire_request *m, const struct meta_op *op)
{
    size_t start = wire_begin(b, WIRE_REQUEST);
    buf_put_varint(b, m->id);
    buf_put_varint(b, m->change);
    buf_put_u8(b, (uint8_t)(m->durable | m->retry << 1));
    meta_codec_op_put(b, op);
    wire_end(b, start);
}

int wire_get_request(const void *data, size_t len, struct wire_request *out)
{
    struct reader r;
    reader_init(&r, data, len);
    out->id = reader_varint(&r);
    out->change = reader_varint(&r);
    uint8_t bits = reader_u8(&r);
    if (bits > 3)
        r.failed = true;
    out->durable = bits & 1;
    out->retry = bits & 2;
    out->op_len = reader_left(&r);
    out->op = reader_raw(&r, out->op_len);
    return reader_end(&r);
}

void wire_put_reply(struct buf *b, uint64_t id, int result, const struct meta_reply *reply)
{
    size_t start = wire_begin(b, WIRE_REPLY);
    buf_put_varint(b, id);
    buf_put_varint(b, (uint64_t)-result);
    if (result == 0 && reply)
        meta_codec_reply_put(b, reply);
    wire_end(b, start);
}

int wire_get_reply(const void *data, size_t len, struct wire_reply *out)
{
    struct reader r;
    reader_init(&r, data, len);
    out->id = reader_varint(&r);
    out->result = get_result(&r);
    out->reply_len = reader_left(&r);
    out->reply = reader_raw(&r, out->reply_len);
    if (out->result && out->reply_len)
        r.failed = true;
    if (!out->reply_len)
        out->reply = NULL;
    return reader_end(&r);
}

void wire_put_task(struct buf *b, const struct wire_task *m)
{
    size_t start = wire_begin(b, WIRE_TASK);
    buf_put_varint(b, m->id);
    buf_put_u8(b, (uint8_t)m->kind);
    buf_put_varint(b, m->ino);
    buf_put_varint(b, m->object);
    wire_end(b, start);
}

int wire_get_task(const void *data, size_t len, struct wire_task *out)
{
    struct reader r;
    reader_init(&r, data, len);
    out->id = reader_varint(&r);
    uint8_t kind = reader_u8(&r);
    if (kind < WIRE_TASK_SYNC || kind > WIRE_TASK_RESERVED)
        r.failed = true;
    out->kind = kind;
    out->ino = reader_varint(&r);
    out->object = reader_varint(&r);
    return reader_end(&r);
}

void wire_put_task_done(struct buf *b, const struct wire_task_done *m)
{
    size_t start = wire_begin(b, WIRE_TASK_DONE);
    buf_put_varint(b, m->id);
    buf_put_varint(b, m->remaining);
    buf_put_varint(b, (uint64_t)-m->result);
    put_text(b, &m->text);
    wire_end(b, start);
}

int wire_get_task_done(const void *data, size_t len, struct wire_task_done *out)
{
    struct reader r;
    reader_init(&r, data, len);
    out->id = reader_varint(&r);
    out->remaining = reader_varint(&r);
    out->result = get_result(&r);
    get_text(&r, WIRE_TEXT_MAX, &out->text);
    return reader_end(&r);
}

void wire_put_number(struct buf *b, enum wire_type type, uint64_t number)
{
    size_t start = wire_begin(b, type);
    buf_put_varint(b, number);
    wire_end(b, start);
}

int wire_get_number(const void *data, size_t len, uint64_t *out)
{
    struct reader r;
    reader_init(&r, data, len);
    *out = reader_varint(&r);
    return reader_end(&r);
}

void wire_put_progress(struct buf *b, uint64_t id, uint64_t remaining)
{
    size_t start = wire_begin(b, WIRE_TASK_PROGRESS);
    buf_put_varint(b, id);
    buf_put_varint(b, remaining);
    wire_end(b, start);
}

int wire_get_progress(const void *data, size_t len, uint64_t *id, uint64_t *remaining)
{
    struct reader r;
    reader_init(&r, data, len);
    *id = reader_varint(&r);
    *remaining = reader_varint(&r);
    return reader_end(&r);
}

void wire_put_text(struct buf *b, enum wire_type type, uint64_t id, const void *text, size_t len)
{
    size_t start = wire_begin(b, type);
    buf_put_varint(b, id);
    buf_put_bytes(b, text, len);
    wire_end(b, start);
}

int wire_get_text(const void *data, size_t len, uint64_t *id, struct wire_text *out)
{
    struct reader r;
    reader_init(&r, data, len);
    *id = reader_varint(&r);
    get_text(&r, WIRE_FRAME_MAX, out);
    return reader_end(&r);
}

void wire_put_item(struct buf *b, const struct wire_item *item)
{
    buf_put_u8(b, (uint8_t)item->kind);
    buf_put_varint(b, item->ino);
    if (item->kind == WIRE_ITEM_ENTRY)
        buf_put_bytes(b, item->name.bytes, item->name.len);
}

static void get_item(struct reader *r, struct wire_item *out)
{
    size_t len = 0;
    uint8_t kind = reader_u8(r);
    if (kind < WIRE_ITEM_ENTRY || kind > WIRE_ITEM_ALL)
        r->failed = true;
    *out = (struct wire_item){.kind = kind, .ino = reader_varint(r)};
    if (kind != WIRE_ITEM_ENTRY)
        return;
    out->name.bytes = (const char *)reader_bytes(r, META_NAME_MAX, &len);
    out->name.len = len;
    if (!len)
        r->failed = true;
}

int wire_get_items(const void *data, size_t len, uint64_t *sequence,
                   void (*each)(void *arg, const struct wire_item *item), void *arg)
{
    for (int pass = 0; pass < 2; pass++) {
        struct reader r;
        struct wire_item item;
        reader_init(&r, data, len);
        *sequence = reader_u64(&r);
        uint32_t count = reader_u32(&r);
        if (count > WIRE_ITEMS_MAX)
            return -EBADMSG;
        for (uint32_t i = 0; i < count && !r.failed; i++) {
            get_item(&r, &item);
            if (pass == 1)
                each(arg, &item);
        }
        if (reader_end(&r) < 0)
            return -EBADMSG;
    }
    return 0;
}

void wire_put_claim(struct buf *b, const uint64_t *objects, size_t count)
{
    size_t start = wire_begin(b, WIRE_CLAIM);
    buf_put_varint(b, count);
    for (size_t i = 0; i < count; i++)
        buf_put_varint(b, objects[i]);
    wire_end(b, start);
}

int wire_get_claim(const void *data, size_t len, void (*each)(void *arg, uint64_t object),
                   void *arg)
{
    for (int pass = 0; pass < 2; pass++) {
        struct reader r;
        reader_init(&r, data, len);
        uint64_t count = reader_varint(&r);
        if (count > reader_left(&r))
            return -EBADMSG;
        for (uint64_t i = 0; i < count && !r.failed; i++) {
            uint64_t object = reader_varint(&r);
            if (pass == 1)
                each(arg, object);
        }
        if (reader_end(&r) < 0)
            return -EBADMSG;
    }
    return 0;
}

/* Input */

void wire_input_init(struct wire_input *in, uint32_t max)
{
    *in = (struct wire_input){.max = max};
    buf_init(&in->bytes, 0);
}

void wire_input_done(struct wire_input *in)
{
    buf_done(&in->bytes);
}

uint8_t *wire_input_room(struct wire_input *in, size_t *len)
{
    if (in->pos == in->bytes.len) {
        /* A long message's memory is not kept for ever. */
        if (in->bytes.cap > 16 * (size_t)ROOM)
            buf_done(&in->bytes);
        buf_reset(&in->bytes);
        in->pos = 0;
    } else if (in->pos > ROOM) {
        memmove(in->bytes.data, in->bytes.data + in->pos, in->bytes.len - in->pos);
        in->bytes.len -= in->pos;
        in->pos = 0;
    }
    uint8_t *room = buf_extend(&in->bytes, ROOM);
    if (!room)
        return NULL;
    in->bytes.len -= ROOM;
    *len = ROOM;
    return room;
}

void wire_input_add(struct wire_input *in, size_t len)
{
    in->bytes.len += len;
}

int wire_input_next(struct wire_input *in, enum wire_type *type, const uint8_t **data, size_t *len)
{
    struct reader r;
    if (in->pos == in->bytes.len)
        return 0;
    reader_init(&r, in->bytes.data + in->pos, in->bytes.len - in->pos);
    if (reader_left(&r) < WIRE_HEAD)
        return 0;
    uint32_t length = reader_u32(&r);
    uint8_t kind = reader_u8(&r);
    if (length == 0 || length > in->max || kind == 0 || kind >= WIRE_TYPES)
        return -EBADMSG;
    if (reader_left(&r) < length - 1)
        return 0;
    *type = kind;
    *data = in->bytes.data + in->pos + WIRE_HEAD;
    *len = length - 1;
    in->pos += (size_t)length + 4;
    return 1;
}
