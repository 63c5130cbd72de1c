#include <errno.h>

#include "meta/token.h"
#include "test.h"

static void add(struct token_set *set, char text[TOKEN_LEN + 1], const char *path, uint64_t expires)
{
    struct token token;
    token_make(&token, text);
    check_uint(strlen(text), TOKEN_LEN);
    token.rights = TOKEN_WRITE;
    token.path = path ? strdup(path) : NULL;
    token.expires_s = expires;
    check_int(token_set_add(set, &token), 0);
}

TEST(token, only_the_right_one_is_good)
{
    struct token_set set = {0}, none = {0};
    char a[TOKEN_LEN + 1], b[TOKEN_LEN + 1];
    const struct token *found = NULL;
    add(&set, a, NULL, 0);
    add(&set, b, "x/y", 100);
    check_int(token_check(&set, a, TOKEN_LEN, 1000, &found), TOKEN_GOOD);
    check(found == &set.tokens[0]);
    check_int(token_check(&set, b, TOKEN_LEN, 99, &found), TOKEN_GOOD);
    check(found == &set.tokens[1]);
    check_int(token_check(&set, b, TOKEN_LEN, 100, &found), TOKEN_EXPIRED);
    check_int(token_check(&none, a, TOKEN_LEN, 1000, &found), TOKEN_WRONG);
    check_int(token_check(&set, a, TOKEN_LEN - 1, 1000, &found), TOKEN_WRONG);
    check_int(token_check(&set, "", 0, 1000, &found), TOKEN_WRONG);
    for (size_t i = 0; i < TOKEN_LEN; i++) {
        char other[TOKEN_LEN + 1];
        memcpy(other, a, sizeof(other));
        other[i] = other[i] == '0' ? '1' : '0';
        check_int(token_check(&set, other, TOKEN_LEN, 1000, &found), TOKEN_WRONG);
    }
    /* The secret of one with the name of another. */
    memcpy(a + TOKEN_LEN - TOKEN_SECRET_LEN, b + TOKEN_LEN - TOKEN_SECRET_LEN, TOKEN_SECRET_LEN);
    check_int(token_check(&set, a, TOKEN_LEN, 1, &found), TOKEN_WRONG);
    token_set_done(&set);
}

TEST(token, the_file_has_no_secret_and_comes_back_the_same)
{
    struct token_set set = {0}, again;
    struct error error = {0};
    char a[TOKEN_LEN + 1], b[TOKEN_LEN + 1];
    const struct token *found = NULL;
    add(&set, a, NULL, 0);
    add(&set, b, "x/\xc3\xa9", 1234567890123);
    set.tokens[1].rights = TOKEN_READ;
    set.tokens[1].ids.squash = TOKEN_SQUASH_ROOT;
    check_int(
        token_map_parse("1000:5000:3,7:8", set.tokens[1].ids.uids, &set.tokens[1].ids.uid_count),
        0);
    char *text = token_set_print(&set);
    check(text != NULL);
    check(!strstr(text, a + TOKEN_LEN - TOKEN_SECRET_LEN));
    check(!strstr(text, b + TOKEN_LEN - TOKEN_SECRET_LEN));
    check_int(token_set_parse(text, strlen(text), &again, &error), 0);
    check_uint(again.count, 2);
    check_int(token_check(&again, b, TOKEN_LEN, 1000, &found), TOKEN_GOOD);
    check_int(found->rights, TOKEN_READ);
    check_str(found->path, "x/\xc3\xa9");
    check_uint(found->expires_s, 1234567890123);
    check_int(found->ids.squash, TOKEN_SQUASH_ROOT);
    check_uint(token_uid_in(&found->ids, 1002), 5002);
    char *second = token_set_print(&again);
    check_str(second, text);
    check(token_set_remove(&again, found->id));
    check(!token_set_remove(&again, "0000000000000000"));
    check_uint(again.count, 1);
    check_int(token_check(&again, b, TOKEN_LEN, 1000, &found), TOKEN_WRONG);
    check_int(token_check(&again, a, TOKEN_LEN, 1000, &found), TOKEN_GOOD);
    free(text);
    free(second);
    token_set_done(&set);
    token_set_done(&again);
}

/* A restriction that is not understood must not become none. */
TEST(token, a_file_that_makes_no_sense_is_refused)
{
#define HASH "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define REST                                                                                       \
    "\"created\":1,\"expires\":0,\"squash\":\"none\",\"anonymous_uid\":1,\"anonymous_gid\":1,"     \
    "\"uid_map\":\"\",\"gid_map\":\"\"}"
#define ONE(id, rights, path)                                                                      \
    "{\"id\":\"" id "\",\"sha256\":\"" HASH "\",\"rights\":\"" rights "\",\"path\":" path "," REST
#define FILE_OF(list) "{\"version\":1,\"tokens\":[" list "]}"
    static const struct {
        const char *text;
        int rc;
    } cases[] = {
        {FILE_OF(ONE("0123456789abcdef", "read", "null")), 0},
        {FILE_OF(ONE("0123456789abcdef", "read", "\"a/b\"")), 0},
        {FILE_OF(""), 0},
        {"", -EINVAL},
        {"[]", -EINVAL},
        {"{\"version\":2,\"tokens\":[]}", -EPROTO},
        {FILE_OF(ONE("0123456789abcdef", "root", "null")), -EINVAL},
        {FILE_OF(ONE("0123456789ABCDEF", "read", "null")), -EINVAL},
        {FILE_OF(ONE("0123", "read", "null")), -EINVAL},
        {FILE_OF(ONE("0123456789abcdef", "read", "7")), -EINVAL},
        {FILE_OF(ONE("0123456789abcdef", "read", "\"\"")), -EINVAL},
        {FILE_OF(ONE("0123456789abcdef", "read", "\"a/../b\"")), -EINVAL},
        {FILE_OF("{" REST), -EINVAL},
        {FILE_OF(
             ONE("0123456789abcdef", "read", "null") "," ONE("0123456789abcdef", "read", "null")),
         -EEXIST},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct token_set set = {0};
        struct error error = {0};
        int rc = token_set_parse(cases[i].text, strlen(cases[i].text), &set, &error);
        if (rc != cases[i].rc || (rc < 0 && !error.message[0]))
            test_fail("case %zu gives %d: %s", i, rc, error.message);
        token_set_done(&set);
    }
}

TEST(token, paths)
{
    static const struct {
        const char *text, *path;
    } good[] = {{"/a/b/", "a/b"}, {"a", "a"}, {"//a///b", "a/b"},
                {"/", NULL},      {"", NULL}, {"...", "..."}};
    static const char *const bad[] = {"..", "/a/../b", "./a", "a/."};
    char *path;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        check_int(token_path(good[i].text, &path), 0);
        check(good[i].path ? path && strcmp(path, good[i].path) == 0 : !path);
        free(path);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        check_int(token_path(bad[i], &path), -EINVAL);
    check(token_path_below("a/b", 3, NULL));
    check(token_path_below("a/b", 3, "a/b"));
    check(token_path_below("a/b/c", 5, "a/b"));
    check(!token_path_below("a/bc", 4, "a/b"));
    check(!token_path_below("a", 1, "a/b"));
    check(!token_path_below("", 0, "a"));
}

TEST(token, maps)
{
    struct token_ids ids = {.anonymous_uid = 65534, .anonymous_gid = 65533};
    static const char *const bad[] = {"1",
                                      "1:",
                                      ":1",
                                      "1:2:0",
                                      "a:b",
                                      "1:2,1:3",
                                      "1:2,3:2",
                                      "1:2;3:4",
                                      "0:4294967295",
                                      "-1:2",
                                      "1:2:3:4",
                                      "4294967000:1:1000",
                                      "99999999999999999999:1"};
    check(token_ids_plain(&ids));
    check_uint(token_uid_in(&ids, 7), 7);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (token_map_parse(bad[i], ids.uids, &ids.uid_count) != -EINVAL)
            test_fail("'%s' was accepted", bad[i]);
    check_uint(ids.uid_count, 0);
    check_int(token_map_parse("0:100:10,1000:1000", ids.uids, &ids.uid_count), 0);
    check_uint(token_uid_in(&ids, 0), 100);
    check_uint(token_uid_in(&ids, 9), 109);
    check_uint(token_uid_in(&ids, 10), 65534);
    check_uint(token_uid_in(&ids, 1000), 1000);
    check_uint(token_uid_out(&ids, 109), 9);
    check_uint(token_uid_out(&ids, 0), 65534);
    check_uint(token_gid_in(&ids, 0), 0);
    ids.squash = TOKEN_SQUASH_ROOT;
    check_uint(token_uid_in(&ids, 0), 65534);
    check_uint(token_uid_in(&ids, 1), 101);
    check_uint(token_gid_in(&ids, 0), 65533);
    check_uint(token_gid_in(&ids, 5), 5);
    ids.squash = TOKEN_SQUASH_ALL;
    check_uint(token_uid_in(&ids, 1), 65534);
    check_uint(token_gid_in(&ids, 5), 65533);
    check_uint(token_gid_out(&ids, 5), 5);
}

TEST(token, a_volume_has_a_bounded_number)
{
    struct token_set set = {0};
    struct token token;
    char text[TOKEN_LEN + 1];
    for (int i = 0; i < TOKENS_MAX; i++)
        add(&set, text, NULL, 0);
    token_make(&token, text);
    check_int(token_set_add(&set, &token), -ENOSPC);
    token_done(&token);
    token_set_done(&set);
}
