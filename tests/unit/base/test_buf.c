#include "base/buf.h"

#include <errno.h>

#include "test.h"

TEST(buf_put, integers_are_big_endian)
{
    static const uint8_t expected[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    struct buf b;
    buf_init(&b, 0);
    buf_put_u8(&b, 1);
    buf_put_u16(&b, 0x0203);
    buf_put_u32(&b, 0x04050607);
    buf_put_u64(&b, 0x08090a0b0c0d0e0full);
    check_uint(b.len, sizeof(expected));
    check_mem(b.data, expected, sizeof(expected));
    check_int(buf_error(&b), 0);
    buf_done(&b);
    check(b.data == NULL && b.len == 0);
}

TEST(buf_put, reader_gives_back_what_was_put)
{
    struct buf b;
    buf_init(&b, 0);
    buf_put_u8(&b, 0xff);
    buf_put_u16(&b, 0xfffe);
    buf_put_u32(&b, 0xfffefdfc);
    buf_put_u64(&b, 0xfffefdfcfbfaf9f8ull);
    buf_put_str(&b, "name");
    buf_put_bytes(&b, "\0x", 2);
    struct reader r;
    reader_init(&r, b.data, b.len);
    check_uint(reader_u8(&r), 0xff);
    check_uint(reader_u16(&r), 0xfffe);
    check_uint(reader_u32(&r), 0xfffefdfc);
    check_uint(reader_u64(&r), 0xfffefdfcfbfaf9f8ull);
    char *name = reader_str(&r, 4);
    check_str(name, "name");
    size_t len;
    const uint8_t *bytes = reader_bytes(&r, 2, &len);
    check_uint(len, 2);
    check_mem(bytes, "\0x", 2);
    check_int(reader_end(&r), 0);
    free(name);
    buf_done(&b);
}

TEST(buf_put, past_max_fails_and_keeps_what_was_there)
{
    struct buf b;
    buf_init(&b, 6);
    buf_put_u32(&b, 0x61626364);
    buf_put_u32(&b, 0);
    buf_put_u8(&b, 0); /* would fit, but the buffer has failed */
    check_int(buf_error(&b), -E2BIG);
    check_uint(b.len, 4);
    check_mem(b.data, "abcd", 4);
    check(buf_extend(&b, 1) == NULL);
    buf_reset(&b);
    check_int(buf_error(&b), 0);
    buf_put(&b, "123456", 6);
    check_int(buf_error(&b), 0);
    buf_put_u8(&b, 7);
    check_int(buf_error(&b), -E2BIG);
    buf_done(&b);
}

TEST(buf_extend, refuses_lengths_that_overflow)
{
    struct buf b;
    buf_init(&b, 0);
    buf_put_u8(&b, 1);
    check(buf_extend(&b, SIZE_MAX) == NULL);
    check_int(buf_error(&b), -E2BIG);
    buf_done(&b);
}

TEST(buf_extend, of_nothing_is_not_null)
{
    struct buf b;
    buf_init(&b, 0);
    check(buf_extend(&b, 0) != NULL);
    check_uint(b.len, 0);
    buf_done(&b);
}

TEST(buf_put_varint, round_trips_at_every_length)
{
    for (unsigned shift = 0; shift <= 64; shift++) {
        uint64_t edge = shift == 64 ? 0 : 1ull << shift;
        for (int delta = -1; delta <= 1; delta++) {
            uint64_t v = edge + (uint64_t)delta;
            struct buf b;
            buf_init(&b, 0);
            buf_put_varint(&b, v);
            struct reader r;
            reader_init(&r, b.data, b.len);
            check_uint(reader_varint(&r), v);
            check_int(reader_end(&r), 0);
            buf_done(&b);
        }
    }
}

TEST(buf_printf, appends_and_ends_with_nul)
{
    struct buf b;
    buf_init(&b, 0);
    for (int i = 0; i < 1000; i++)
        buf_printf(&b, "%d,", i % 10);
    check_uint(b.len, 2000);
    check_uint(strlen((char *)b.data), 2000);
    check_mem(b.data + 1980, "0,1,2,3,4,5,6,7,8,9,", 20);
    buf_printf(&b, "%s", "");
    check_uint(b.len, 2000);
    buf_done(&b);
}

TEST(buf_printf, longer_than_the_room_is_whole)
{
    char text[3000];
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    for (size_t skip = 0; skip < sizeof(text); skip += 61) {
        struct buf b;
        buf_init(&b, 0);
        buf_put_u8(&b, '<');
        buf_printf(&b, "%s>", text + skip);
        check_uint(b.len, strlen(text + skip) + 2);
        check(b.data[b.len - 1] == '>' && b.data[b.len] == '\0');
        buf_done(&b);
    }
}

TEST(buf_printf, past_max_fails)
{
    struct buf b;
    buf_init(&b, 4);
    buf_printf(&b, "%s", "1234");
    check_int(buf_error(&b), 0);
    buf_printf(&b, "%s", "5");
    check_int(buf_error(&b), -E2BIG);
    check_str((char *)b.data, "1234");
    buf_done(&b);
}

TEST(buf_take, moves_the_bytes_out)
{
    struct buf b;
    buf_init(&b, 100);
    buf_put(&b, "bytes", 5);
    size_t len;
    uint8_t *data = buf_take(&b, &len);
    check_uint(len, 5);
    check_mem(data, "bytes", 5);
    check(b.data == NULL && b.len == 0 && b.max == 100);
    free(data);
    check(buf_take(&b, &len) == NULL);
    check_uint(len, 0);
}

TEST(buf_take, of_a_failed_buffer_is_null)
{
    struct buf b;
    buf_init(&b, 4);
    buf_put_u32(&b, 1);
    buf_put_u32(&b, 1);
    size_t len;
    check(buf_take(&b, &len) == NULL);
    check_uint(len, 0);
    check_int(buf_error(&b), 0);
}

TEST(reader, past_the_end_fails_and_yields_zeros)
{
    static const uint8_t data[] = {0xff, 0xff, 0xff};
    struct reader r;
    reader_init(&r, data, sizeof(data));
    check_uint(reader_u32(&r), 0);
    check_int(reader_error(&r), -EBADMSG);
    check_uint(reader_u8(&r), 0); /* there is a byte, but the reader has failed */
    check_uint(reader_left(&r), 0);
    check(reader_raw(&r, 0) == NULL);
    check_int(reader_end(&r), -EBADMSG);
}

TEST(reader, of_nothing_ends_at_once)
{
    struct reader r;
    reader_init(&r, NULL, 0);
    check_int(reader_end(&r), 0);
    check(reader_raw(&r, 0) != NULL);
    check_uint(reader_varint(&r), 0);
    check_int(reader_error(&r), -EBADMSG);
}

TEST(reader_end, refuses_bytes_left_over)
{
    struct reader r;
    reader_init(&r, "ab", 2);
    check_uint(reader_u8(&r), 'a');
    check_int(reader_error(&r), 0);
    check_uint(reader_left(&r), 1);
    check_int(reader_end(&r), -EBADMSG);
}

TEST(reader_varint, refuses_bad_forms)
{
    static const struct {
        const char *what;
        uint8_t bytes[12];
        size_t len;
    } cases[] = {
        {"cut off", {0x80}, 1},
        {"longer than needed", {0x80, 0x00}, 2},
        {"65 bits", {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02}, 10},
        {"no end", {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, 12},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct reader r;
        reader_init(&r, cases[i].bytes, cases[i].len);
        uint64_t v = reader_varint(&r);
        if (v != 0 || reader_error(&r) != -EBADMSG)
            test_fail("accepted: %s", cases[i].what);
    }
}

TEST(reader_bytes, refuses_more_than_max_and_more_than_there_is)
{
    struct reader r;
    size_t len = 77;
    reader_init(&r, "\5hello", 6);
    check(reader_bytes(&r, 4, &len) == NULL);
    check_uint(len, 0);
    reader_init(&r, "\6hello", 6);
    check(reader_bytes(&r, 100, &len) == NULL);
    check_int(reader_error(&r), -EBADMSG);
    static const uint8_t huge[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01};
    reader_init(&r, huge, sizeof(huge));
    check(reader_bytes(&r, SIZE_MAX, &len) == NULL);
    check_int(reader_error(&r), -EBADMSG);
}

TEST(reader_str, refuses_an_embedded_nul)
{
    struct reader r;
    reader_init(&r, "\3a\0b", 4);
    check(reader_str(&r, 10) == NULL);
    check_int(reader_error(&r), -EBADMSG);
    reader_init(&r, "\0", 1);
    char *empty = reader_str(&r, 10);
    check_str(empty, "");
    free(empty);
}
