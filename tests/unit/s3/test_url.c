#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "s3/open.h"
#include "test.h"

static const struct {
    const char *text, *scheme, *bucket, *prefix;
} good[] = {
    {"s3://bucket", "s3", "bucket", ""},
    {"s3://bucket/", "s3", "bucket", ""},
    {"s3://bucket/a/b", "s3", "bucket", "a/b/"},
    {"s3://bucket/a/b/", "s3", "bucket", "a/b/"},
    {"s3://my.bucket-1/\xc3\xbc x?y#z%20", "s3", "my.bucket-1", "\xc3\xbc x?y#z%20/"},
    {"file:///srv/data", "file", "/srv/data", ""},
    {"file:///srv/data//", "file", "/srv/data", ""},
    {"file:///a", "file", "/a", ""},
};

TEST(store_url_parse, takes_what_names_a_store)
{
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        struct store_url url;
        struct error error = {0};
        if (store_url_parse(good[i].text, &url, &error))
            test_fail("%s: %s", good[i].text, error_text(&error));
        check_str(url.scheme, good[i].scheme);
        check_str(url.bucket, good[i].bucket);
        check_str(url.prefix, good[i].prefix);
        store_url_done(&url);
    }
}

static const struct {
    const char *text, *says;
} bad[] = {
    {"", "no store URL"},
    {"bucket", "no store URL"},
    {"S3://bucket", "no store URL"},
    {"http://bucket", "no store URL"},
    {"s3://", "3 to 63"},
    {"s3:///key", "3 to 63"},
    {"s3://ab", "3 to 63"},
    {"s3://Bucket", "lower-case"},
    {"s3://buck_et", "lower-case"},
    {"s3://user@bucket", "lower-case"},
    {"s3://-bucket", "begin and end"},
    {"s3://bucket.", "begin and end"},
    {"s3://buc..ket", "IP address"},
    {"s3://192.168.1.10", "IP address"},
    {"s3://bucket//a", "empty component"},
    {"s3://bucket/a//b", "empty component"},
    {"s3://bucket/a/../b", "component \"..\""},
    {"s3://bucket/./b", "component \".\""},
    {"s3://bucket/a\nb", "control character"},
    {"file://dir", "three slashes"},
    {"file://", "three slashes"},
    {"file:///", "other than /"},
    {"file:///a/../b", "component \"..\""},
    {"file:///a//b", "empty component"},
};

TEST(store_url_parse, says_what_is_wrong)
{
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct store_url url = {{0}};
        struct error error = {0};
        if (store_url_parse(bad[i].text, &url, &error) != -EINVAL)
            test_fail("\"%s\" was taken", bad[i].text);
        if (!strstr(error.message, bad[i].says))
            test_fail("\"%s\": \"%s\" does not say \"%s\"", bad[i].text, error.message,
                      bad[i].says);
        check(url.bucket == NULL);
    }
}

TEST(store_url_parse, bounds_lengths)
{
    char text[8192];
    struct store_url url;
    memset(text, 'a', sizeof(text));
    memcpy(text, "s3://bucket/", 12);
    text[12 + 512] = '\0';
    check_int(store_url_parse(text, &url, NULL), 0);
    store_url_done(&url);
    text[12 + 512] = 'a';
    text[12 + 513] = '\0';
    check_int(store_url_parse(text, &url, NULL), -EINVAL);
    memset(text, 'a', sizeof(text));
    memcpy(text, "file:///", 8);
    text[sizeof(text) - 1] = '\0';
    check_int(store_url_parse(text, &url, NULL), -EINVAL);
}
