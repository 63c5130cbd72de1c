#include "wire/wire.h"

#include <errno.h>

#include "meta/codec.h"
#include "test.h"
#include "wire/wire_keys.h"

static struct wire_text text_of(const char *text)
{
    return (struct wire_text){text, strlen(text)};
}

/* The one frame that `b` holds. */
static void frame(const struct buf *b, enum wire_type type, const uint8_t **data, size_t *len)
{
    check_int(buf_error(b), 0);
    check(b->len >= WIRE_HEAD);
    check_uint((uint32_t)b->data[0] << 24 | b->data[1] << 16 | b->data[2] << 8 | b->data[3],
               b->len - 4);
    check_uint(b->data[4], type);
    *data = b->data + WIRE_HEAD;
    *len = b->len - WIRE_HEAD;
}

TEST(wire, hello_round_trip)
{
    struct buf b;
    const uint8_t *data;
    size_t len;
    struct wire_hello got, hello = {.version_min = 1,
                                    .version_max = 3,
                                    .volume = text_of("v"),
                                    .token = text_of("t"),
                                    .text = text_of("host:/mnt"),
                                    .key = {1, 2, 3},
                                    .session = 77,
                                    .read_only = true};
    buf_init(&b, 0);
    wire_put_hello(&b, &hello);
    frame(&b, WIRE_HELLO, &data, &len);
    check_int(wire_get_hello(data, len, &got), 0);
    check_uint(got.version_max, 3);
    check_uint(got.session, 77);
    check(got.read_only);
    check_mem(got.volume.bytes, "v", 1);
    check_mem(got.key, hello.key, sizeof(hello.key));
    for (size_t n = 0; n < len; n++)
        check_int(wire_get_hello(data, n, &got), -EBADMSG);
    buf_done(&b);
}

TEST(wire, welcome_round_trip)
{
    struct buf b;
    const uint8_t *data;
    size_t len;
    struct wire_welcome got, welcome = {.version = 1,
                                        .session = 5,
                                        .restarted = true,
                                        .lease_ms = 10000,
                                        .window = 512,
                                        .time_ns = 123456789,
                                        .url = text_of("s3://b/p"),
                                        .options = text_of("{}"),
                                        .volume = {.id = "id", .prefix = "p/", .inline_max = 9},
                                        .contents = {.database = "db", .next = 44}};
    buf_init(&b, 0);
    wire_put_welcome(&b, &welcome);
    frame(&b, WIRE_WELCOME, &data, &len);
    check_int(wire_get_welcome(data, len, &got), 0);
    check_uint(got.lease_ms, 10000);
    check_uint(got.volume.inline_max, 9);
    check_str(got.contents.database, "db");
    check_uint(got.contents.next, 44);
    for (size_t n = 0; n < len; n++)
        check_int(wire_get_welcome(data, n, &got), -EBADMSG);
    buf_done(&b);
}

TEST(wire, request_and_reply_round_trip)
{
    struct buf b;
    const uint8_t *data;
    size_t len;
    struct wire_request request = {.id = 9, .change = 4, .durable = true, .retry = true}, got;
    struct meta_op op = {.kind = META_MKNOD, .parent = 1, .name = {"n", 1}};
    struct meta_decoded_op decoded;
    buf_init(&b, 0);
    wire_put_request(&b, &request, &op);
    frame(&b, WIRE_REQUEST, &data, &len);
    check_int(wire_get_request(data, len, &got), 0);
    check_uint(got.change, 4);
    check(got.durable && got.retry);
    check_int(meta_codec_op_get(got.op, got.op_len, &decoded), 0);
    check_uint(decoded.op.kind, META_MKNOD);
    meta_codec_op_done(&decoded);

    struct wire_reply reply;
    struct meta_entry entries[] = {
        {.name = "a", .name_len = 1, .ino = 3, .attr = {.mode = 0100000}},
        {.name = "b", .name_len = 1, .ino = 4, .attr = {.ino = 4}}};
    struct meta_extent extents[] = {
        {.kind = META_EXTENT_INLINE, .length = 3, .data = "abc"},
        {.kind = META_EXTENT_OBJECT, .offset = 3, .length = 9, .object = 7}};
    struct meta_object objects[] = {{.id = 7, .state = META_OBJECT_LIVE, .key = "k", .etag = "e"}};
    struct meta_quota quotas[] = {{.ino = 5, .max_bytes = META_QUOTA_NONE, .max_inodes = 6}};
    struct meta_reply answer = {.attr = {.ino = 2, .size = 12},
                                .entries = entries,
                                .entry_count = 2,
                                .extents = extents,
                                .extent_count = 2,
                                .objects = objects,
                                .object_count = 1,
                                .quotas = quotas,
                                .quota_count = 1,
                                .data = "xyz",
                                .data_len = 3,
                                .usage = {.bytes = 1},
                                .drift = {.files = 2, .garbage_bytes = 5},
                                .end = true},
                      back;
    buf_reset(&b);
    wire_put_reply(&b, 9, 0, &answer);
    frame(&b, WIRE_REPLY, &data, &len);
    check_int(wire_get_reply(data, len, &reply), 0);
    check_int(meta_codec_reply_get(reply.reply, reply.reply_len, &back), 0);
    buf_reset(&b); /* the answer owns what it points to */
    memset(b.data, 0xff, b.cap);
    check_uint(back.attr.size, 12);
    check_uint(back.entry_count, 2);
    check_mem(back.entries[1].name, "b", 1);
    check_uint(back.entries[0].attr.mode, 0100000);
    check_uint(back.entries[1].attr.ino, 4);
    check_mem(back.extents[0].data, "abc", 3);
    check_uint(back.extents[1].object, 7);
    check_mem(&back.objects[0], &objects[0], sizeof(objects[0]));
    check_uint(back.quotas[0].max_inodes, 6);
    check_mem(back.data, "xyz", 3);
    check_uint(back.drift.garbage_bytes, 5);
    check(back.end);
    meta_reply_done(&back);
    buf_done(&b);
}

static void count_item(void *arg, const struct wire_item *item)
{
    unsigned *counts = arg;
    counts[item->kind]++;
}

TEST(wire, keys_round_trip)
{
    struct buf b;
    const uint8_t *data;
    size_t len;
    struct wire_keys got;
    struct store_keys keys = {.access_key = (char *)"AK",
                              .region = (char *)"r",
                              .valid_s = 3600,
                              .day_count = 2,
                              .days = {{"20130524", {1}}, {"20130525", {2}}}};
    buf_init(&b, 0);
    wire_put_keys(&b, 5, &keys);
    frame(&b, WIRE_KEYS_REPLY, &data, &len);
    for (size_t short_len = 0; short_len < len; short_len++)
        check_int(wire_get_keys(data, short_len, &got), -EBADMSG);
    check_int(wire_get_keys(data, len, &got), 0);
    check_uint(got.id, 5);
    check_int(got.result, 0);
    check_uint(got.keys.valid_s, 3600);
    check_str(got.keys.access_key, "AK");
    check_str(got.keys.session_token, NULL);
    check_str(got.keys.region, "r");
    check_uint(got.keys.day_count, 2);
    check_str(got.keys.days[1].day, "20130525");
    check_int(got.keys.days[1].key[0], 2);
    store_keys_done(&got.keys);
    buf_reset(&b);
    keys.access_key = (char *)"A\r\nhost: x"; /* it goes into a header */
    wire_put_keys(&b, 5, &keys);
    check_int(wire_get_keys(b.data + WIRE_HEAD, b.len - WIRE_HEAD, &got), -EBADMSG);
    buf_reset(&b);
    wire_put_no_keys(&b, 6, -EACCES, "no");
    check_int(wire_get_keys(b.data + WIRE_HEAD, b.len - WIRE_HEAD, &got), 0);
    check_int(got.result, -EACCES);
    check_uint(got.text.len, 2);
    buf_done(&b);
}

TEST(wire, items_are_taken_all_or_none)
{
    struct buf b;
    const uint8_t *data;
    size_t len;
    uint64_t sequence;
    unsigned counts[WIRE_ITEM_ALL + 1] = {0};
    struct wire_item entry = {.kind = WIRE_ITEM_ENTRY, .ino = 1, .name = text_of("n")};
    struct wire_item all = {.kind = WIRE_ITEM_ALL};
    buf_init(&b, 0);
    size_t start = wire_begin(&b, WIRE_INVALIDATE);
    buf_put_u64(&b, 6);
    buf_put_u32(&b, 2);
    wire_put_item(&b, &entry);
    wire_put_item(&b, &all);
    wire_end(&b, start);
    frame(&b, WIRE_INVALIDATE, &data, &len);
    check_int(wire_get_items(data, len - 1, &sequence, count_item, counts), -EBADMSG);
    check_uint(counts[WIRE_ITEM_ENTRY], 0);
    check_int(wire_get_items(data, len, &sequence, count_item, counts), 0);
    check_uint(sequence, 6);
    check_uint(counts[WIRE_ITEM_ENTRY], 1);
    check_uint(counts[WIRE_ITEM_ALL], 1);
    buf_done(&b);
}

static void feed(struct wire_input *in, const void *bytes, size_t len)
{
    size_t room_len;
    uint8_t *room = wire_input_room(in, &room_len);
    check(room && room_len >= len);
    memcpy(room, bytes, len);
    wire_input_add(in, len);
}

TEST(wire, input_cuts_frames_however_they_come)
{
    struct wire_input in;
    struct buf b;
    enum wire_type type;
    const uint8_t *data;
    size_t len;
    uint64_t number = 0;
    buf_init(&b, 0);
    for (uint64_t i = 0; i < 3; i++)
        wire_put_number(&b, WIRE_PING, 1000 + i);
    for (size_t step = 1; step <= b.len; step++) {
        uint64_t expected = 1000;
        wire_input_init(&in, 64);
        check_int(wire_input_next(&in, &type, &data, &len), 0);
        for (size_t at = 0; at < b.len; at += step) {
            feed(&in, b.data + at, at + step < b.len ? step : b.len - at);
            while (wire_input_next(&in, &type, &data, &len) > 0) {
                check_uint(type, WIRE_PING);
                check_int(wire_get_number(data, len, &number), 0);
                check_uint(number, expected++);
            }
        }
        check_uint(expected, 1003);
        wire_input_done(&in);
    }
    buf_done(&b);
}

TEST(wire, input_refuses_what_is_too_long_or_unknown)
{
    static const uint8_t bad[][WIRE_HEAD] = {{0, 0, 0, 0, WIRE_PING},
                                             {0, 0, 1, 0, WIRE_PING},
                                             {255, 255, 255, 255, WIRE_PING},
                                             {0, 0, 0, 2, 0},
                                             {0, 0, 0, 2, 200}};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct wire_input in;
        enum wire_type type;
        const uint8_t *data;
        size_t len;
        wire_input_init(&in, 64);
        feed(&in, bad[i], WIRE_HEAD);
        check_int(wire_input_next(&in, &type, &data, &len), -EBADMSG);
        wire_input_done(&in);
    }
}
