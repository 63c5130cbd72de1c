#include "base/hash.h"

#include <errno.h>

#include "test.h"

static const char *hex_of(const uint8_t *data, size_t len)
{
    static char text[2 * 64 + 1];
    hash_hex(data, len, text);
    return text;
}

TEST(hash_crc32c, gives_the_published_values)
{
    /* RFC 3720 B.4, and the check value of the parameter model. */
    uint8_t bytes[32];
    check_uint(hash_crc32c(0, "123456789", 9), 0xe3069283);
    memset(bytes, 0, sizeof(bytes));
    check_uint(hash_crc32c(0, bytes, 32), 0x8a9136aa);
    memset(bytes, 0xff, sizeof(bytes));
    check_uint(hash_crc32c(0, bytes, 32), 0x62a8ab43);
    for (unsigned i = 0; i < 32; i++)
        bytes[i] = (uint8_t)i;
    check_uint(hash_crc32c(0, bytes, 32), 0x46dd794e);
    check_uint(hash_crc32c(0, "", 0), 0);
}

TEST(hash_crc32c, goes_on_where_a_call_ended)
{
    uint8_t bytes[1000];
    for (unsigned i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i * 7);
    uint32_t whole = hash_crc32c(0, bytes, sizeof(bytes));
    for (size_t cut = 0; cut <= sizeof(bytes); cut += 37)
        check_uint(hash_crc32c(hash_crc32c(0, bytes, cut), bytes + cut, sizeof(bytes) - cut),
                   whole);
}

TEST(hash_crc32c_join, is_the_sum_of_the_bytes_that_were_not_read)
{
    static uint8_t bytes[3 * HASH_BLOCK];
    for (unsigned i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i * 7 + i / 253);
    uint32_t joined = 0;
    for (unsigned i = 0; i < 3; i++)
        joined = hash_crc32c_join(joined, hash_crc32c(0, bytes + i * HASH_BLOCK, HASH_BLOCK));
    check_uint(joined, hash_crc32c(0, bytes, sizeof(bytes)));
    for (uint32_t seed = 1; seed; seed <<= 1)
        check_uint(hash_crc32c_join(seed, hash_crc32c(0, bytes, HASH_BLOCK)),
                   hash_crc32c(seed, bytes, HASH_BLOCK));
}

TEST(hash_sha256, gives_the_published_values)
{
    uint8_t out[32];
    hash_sha256("abc", 3, out);
    check_str(hex_of(out, 32), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    hash_sha256("", 0, out);
    check_str(hex_of(out, 32), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

TEST(hash_md5, gives_the_published_values)
{
    uint8_t out[16];
    hash_md5("message digest", 14, out);
    check_str(hex_of(out, 16), "f96b697d7cb7938d525a2f31aaf161d0");
}

TEST(hash_hmac_sha256, gives_the_published_values)
{
    /* RFC 4231, cases 2 and 6. */
    uint8_t out[32];
    hash_hmac_sha256("Jefe", 4, "what do ya want for nothing?", 28, out);
    check_str(hex_of(out, 32), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    uint8_t key[131];
    memset(key, 0xaa, sizeof(key));
    const char *text = "Test Using Larger Than Block-Size Key - Hash Key First";
    hash_hmac_sha256(key, sizeof(key), text, strlen(text), out);
    check_str(hex_of(out, 32), "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

TEST(hash_hmac_sha256, takes_an_empty_key)
{
    uint8_t out[32];
    hash_hmac_sha256(NULL, 0, "", 0, out);
    check_str(hex_of(out, 32), "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad");
}

TEST(hash_unhex, reads_both_cases_and_refuses_the_rest)
{
    uint8_t out[4] = {9, 9, 9, 9};
    check_int(hash_unhex("00fFA1", 6, out, 3), 0);
    check_mem(out, "\x00\xff\xa1\x09", 4);
    check_int(hash_unhex("", 0, out, 0), 0);
    static const char *const bad[] = {"0", "000", "00000", "0g00", "00 0", "-100", "0x00"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (hash_unhex(bad[i], strlen(bad[i]), out, 2) != -EINVAL)
            test_fail("accepted: %s", bad[i]);
    }
    check_mem(out, "\x00\xff\xa1\x09", 4); /* refused input writes nothing */
    check_int(hash_unhex("0000", 4, out, 1), -EINVAL);
}

TEST(hash_base64, gives_the_published_values)
{
    /* RFC 4648, section 10. */
    static const char *const cases[][2] = {
        {"", ""},
        {"f", "Zg=="},
        {"fo", "Zm8="},
        {"foo", "Zm9v"},
        {"foob", "Zm9vYg=="},
        {"fooba", "Zm9vYmE="},
        {"foobar", "Zm9vYmFy"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[16];
        uint8_t bytes[16];
        size_t len = strlen(cases[i][0]);
        check_uint(hash_base64(cases[i][0], len, text), strlen(cases[i][1]));
        check_str(text, cases[i][1]);
        check_int(hash_unbase64(text, strlen(text), bytes, sizeof(bytes)), len);
        check_mem(bytes, cases[i][0], len);
    }
}

TEST(hash_base64, large_input_has_no_padding_inside)
{
    size_t len = (7u << 20) + 1;
    uint8_t *data = malloc(len);
    char *text = malloc(4 * ((len + 2) / 3) + 1);
    uint8_t *again = malloc(4 * ((len + 2) / 3));
    check(data && text && again);
    for (size_t i = 0; i < len; i++)
        data[i] = (uint8_t)(i * 31 >> 3);
    size_t text_len = hash_base64(data, len, text);
    check_uint(text_len, 4 * ((len + 2) / 3));
    check_int(hash_unbase64(text, text_len, again, text_len), len);
    check_mem(again, data, len);
    free(again);
    free(text);
    free(data);
}

TEST(hash_unbase64, refuses_bad_input)
{
    static const char *const bad[] = {
        "Zg", "Zg=", "Z===", "====", "Zg==Zg==", "Z\nAA", " Zg=", "Zg= ", "Z-_A", "=Zg="};
    uint8_t out[16];
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (hash_unbase64(bad[i], strlen(bad[i]), out, sizeof(out)) != -EINVAL)
            test_fail("accepted: %s", bad[i]);
    }
    check_int(hash_unbase64("Zm9v", 4, out, 2), -EINVAL); /* no room */
}

TEST(hash_bytes64, differs_for_near_inputs)
{
    /* Not a proof, but a broken mix shows here: all prefixes, and all single bits of 16 bytes. */
    enum { INPUTS = 17 + 128 };
    uint64_t seen[INPUTS];
    uint8_t bytes[16] = {0};
    size_t n = 0;
    for (size_t len = 0; len <= 16; len++)
        seen[n++] = hash_bytes64(bytes, len, 1);
    for (unsigned bit = 0; bit < 128; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        seen[n++] = hash_bytes64(bytes, 16, 1);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < i; k++)
            check(seen[i] != seen[k]);
    }
    check(hash_bytes64("x", 1, 1) != hash_bytes64("x", 1, 2));
    check_uint(hash_bytes64("same", 4, 9), hash_bytes64("same", 4, 9));
}

TEST(hash_u64, spreads_counting_numbers_over_low_bits)
{
    /* 64 Ki numbers into 64 Ki slots: a random function leaves 1/e of them empty (24109). */
    enum { SLOTS = 1 << 16 };
    static uint8_t used[SLOTS];
    memset(used, 0, sizeof(used));
    for (uint64_t i = 0; i < SLOTS; i++)
        used[hash_u64(i) % SLOTS] = 1;
    unsigned empty = 0;
    for (size_t i = 0; i < SLOTS; i++)
        empty += !used[i];
    check(empty < 26000);
}

TEST(hash_random, fills_all_and_does_not_repeat)
{
    uint8_t a[600] = {0};
    uint8_t b[600] = {0};
    hash_random(a, sizeof(a));
    hash_random(b, sizeof(b));
    check(memcmp(a, b, sizeof(a)) != 0);
    static const uint8_t zeros[16];
    for (size_t i = 0; i + 16 <= sizeof(a); i++)
        check(memcmp(a + i, zeros, 16) != 0);
}
