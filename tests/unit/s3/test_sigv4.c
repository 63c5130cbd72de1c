/* Against Amazon's published test suite of Signature Version 4, and the worked examples of the S3
 * API reference ("Signature Calculations for the Authorization Header"). */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/hash.h"
#include "sigv4.h"
#include "test.h"

#define SUITE_DATE "20150830T123600Z"
#define S3_DATE "20130524T000000Z"

struct vector {
    const char *name, *method, *path, *query;
    struct sigv4_pair headers[8]; /* without x-amz-date */
    const char *body;
    const char *signature;
};

static const char *signature_of(struct buf *out)
{
    const char *at = strstr((const char *)out->data, "Signature=");
    return at ? at + strlen("Signature=") : "";
}

static int compare_pairs(const void *a, const void *b)
{
    return strcmp(((const struct sigv4_pair *)a)->name, ((const struct sigv4_pair *)b)->name);
}

static void check_vector(const struct vector *v, struct sigv4_request request, bool hash_header)
{
    struct sigv4_pair headers[12];
    unsigned count = 0;
    for (; v->headers[count].name; count++)
        headers[count] = v->headers[count];
    uint8_t digest[32];
    char payload[65];
    hash_sha256(v->body ? v->body : "", v->body ? strlen(v->body) : 0, digest);
    hash_hex(digest, sizeof(digest), payload);
    headers[count++] = (struct sigv4_pair){"x-amz-date", request.time};
    if (hash_header)
        headers[count++] = (struct sigv4_pair){"x-amz-content-sha256", payload};
    qsort(headers, count, sizeof(headers[0]), compare_pairs);
    request.method = v->method;
    request.path = v->path;
    request.query = v->query;
    request.headers = headers;
    request.header_count = count;
    request.payload = payload;
    struct sigv4_key key = {{0}};
    struct buf out;
    buf_init(&out, 0);
    check_int(sigv4_sign(&request, &key, &out), 0);
    if (strcmp(signature_of(&out), v->signature) != 0)
        test_fail("%s: signature is %s", v->name, signature_of(&out));
    /* Once more, with the key that is kept. */
    buf_reset(&out);
    check_int(sigv4_sign(&request, &key, &out), 0);
    check_str(signature_of(&out), v->signature);
    buf_done(&out);
}

static const struct vector suite[] = {
    {"get-vanilla",
     "GET",
     "/",
     "",
     {{"host", "example.amazonaws.com"}},
     NULL,
     "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
    {"get-vanilla-query-order-key-case",
     "GET",
     "/",
     "Param1=value1&Param2=value2",
     {{"host", "example.amazonaws.com"}},
     NULL,
     "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"},
    {"get-unreserved",
     "GET",
     "/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
     "",
     {{"host", "example.amazonaws.com"}},
     NULL,
     "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f"},
    {"get-utf8",
     "GET",
     "/%E1%88%B4",
     "",
     {{"host", "example.amazonaws.com"}},
     NULL,
     "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85"},
    {"get-header-value-trim",
     "GET",
     "/",
     "",
     {{"host", "example.amazonaws.com"},
      {"my-header1", " value1"},
      {"my-header2", " \"a   b   c\""}},
     NULL,
     "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736"},
    {"get-header-key-duplicate",
     "GET",
     "/",
     "",
     {{"host", "example.amazonaws.com"},
      {"my-header1", "value2"},
      {"my-header1", "value2"},
      {"my-header1", "value1"}},
     NULL,
     "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea"},
    {"post-vanilla",
     "POST",
     "/",
     "",
     {{"host", "example.amazonaws.com"}},
     NULL,
     "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"},
    {"post-x-www-form-urlencoded",
     "POST",
     "/",
     "",
     {{"content-type", "application/x-www-form-urlencoded"}, {"host", "example.amazonaws.com"}},
     "Param1=value1",
     "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"},
};

TEST(sigv4_sign, matches_the_published_suite)
{
    struct sigv4_request request = {
        .time = SUITE_DATE,
        .region = "us-east-1",
        .service = "service",
        .access_key = "AKIDEXAMPLE",
        .secret_key = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
    };
    for (size_t i = 0; i < ARRAY_LEN(suite); i++)
        check_vector(&suite[i], request, false);
}

static const struct vector s3_examples[] = {
    {"get object",
     "GET",
     "/test.txt",
     "",
     {{"host", "examplebucket.s3.amazonaws.com"}, {"range", "bytes=0-9"}},
     NULL,
     "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"},
    {"put object",
     "PUT",
     "/test%24file.text",
     "",
     {{"date", "Fri, 24 May 2013 00:00:00 GMT"},
      {"host", "examplebucket.s3.amazonaws.com"},
      {"x-amz-storage-class", "REDUCED_REDUNDANCY"}},
     "Welcome to Amazon S3.",
     "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"},
    {"get bucket lifecycle",
     "GET",
     "/",
     "lifecycle=",
     {{"host", "examplebucket.s3.amazonaws.com"}},
     NULL,
     "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"},
    {"list objects",
     "GET",
     "/",
     "max-keys=2&prefix=J",
     {{"host", "examplebucket.s3.amazonaws.com"}},
     NULL,
     "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"},
};

static const struct sigv4_request s3_request = {
    .time = S3_DATE,
    .region = "us-east-1",
    .service = "s3",
    .access_key = "AKIAIOSFODNN7EXAMPLE",
    .secret_key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
};

TEST(sigv4_sign, matches_the_examples_of_the_s3_reference)
{
    for (size_t i = 0; i < ARRAY_LEN(s3_examples); i++)
        check_vector(&s3_examples[i], s3_request, true);
}

TEST(sigv4_sign, notices_a_changed_secret_and_day)
{
    struct sigv4_pair host = {"host", "h"};
    struct sigv4_request request = s3_request;
    request.method = "GET";
    request.path = "/";
    request.query = "";
    request.headers = &host;
    request.header_count = 1;
    request.payload = SIGV4_UNSIGNED;
    struct sigv4_key key = {{0}}, fresh = {{0}};
    struct buf first, kept, anew;
    buf_init(&first, 0);
    buf_init(&kept, 0);
    buf_init(&anew, 0);
    check_int(sigv4_sign(&request, &key, &first), 0);
    request.secret_key = "another";
    request.time = "20130525T000000Z";
    check_int(sigv4_sign(&request, &key, &kept), 0);
    check_int(sigv4_sign(&request, &fresh, &anew), 0);
    check_str((char *)kept.data, (char *)anew.data);
    check(strcmp((char *)first.data, (char *)kept.data) != 0);
    buf_done(&first);
    buf_done(&kept);
    buf_done(&anew);
}

TEST(sigv4_derive, gives_what_signs_without_the_secret)
{
    struct sigv4_pair host = {"host", "examplebucket.s3.amazonaws.com"};
    struct sigv4_request request = s3_request;
    request.method = "GET";
    request.path = "/";
    request.query = "";
    request.headers = &host;
    request.header_count = 1;
    request.payload = SIGV4_UNSIGNED;
    struct sigv4_key key = {{0}}, derived = {{0}};
    struct buf with, without;
    buf_init(&with, 0);
    buf_init(&without, 0);
    check_int(sigv4_sign(&request, &key, &with), 0);
    sigv4_derive(request.time, request.region, request.service, request.secret_key, &derived);
    request.secret_key = NULL;
    request.day_key = derived.key;
    check_int(sigv4_sign(&request, &key, &without), 0);
    check_str((char *)without.data, (char *)with.data);
    buf_done(&with);
    buf_done(&without);
}

TEST(sigv4_sign, refuses_a_region_that_has_no_room)
{
    char region[200];
    memset(region, 'r', sizeof(region) - 1);
    region[sizeof(region) - 1] = '\0';
    struct sigv4_request request = s3_request;
    request.method = "GET";
    request.path = "/";
    request.query = "";
    request.payload = SIGV4_UNSIGNED;
    request.region = region;
    struct sigv4_key key = {{0}};
    struct buf out;
    buf_init(&out, 0);
    check_int(sigv4_sign(&request, &key, &out), -EINVAL);
    buf_done(&out);
}

TEST(sigv4_encode, keeps_only_what_is_unreserved)
{
    struct buf out;
    buf_init(&out, 0);
    static const char text[] = "a/b c+\xc3\xbc~%";
    sigv4_encode(&out, text, strlen(text), 1);
    buf_printf(&out, "%s", "");
    check_str((char *)out.data, "a/b%20c%2B%C3%BC~%25");
    buf_reset(&out);
    sigv4_encode(&out, "a/b", 3, 0);
    buf_printf(&out, "%s", "");
    check_str((char *)out.data, "a%2Fb");
    buf_done(&out);
}

TEST(sigv4_time, is_iso_basic)
{
    char text[SIGV4_TIME_LEN + 1];
    sigv4_time(1440938160, text);
    check_str(text, SUITE_DATE);
}
