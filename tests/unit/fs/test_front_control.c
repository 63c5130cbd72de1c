/* Requests of the control file: what is understood, what is refused, and who may do what. */
#include <errno.h>
#include <sys/stat.h>

#include "base/error.h"
#include "control/front_control_parse.h"
#include "meta/acl.h"
#include "test.h"

static int parse(const char *text, struct control_request *out, struct error *error)
{
    return control_parse(text, strlen(text), out, error);
}

TEST(control_parse, understands_each_request)
{
    static const struct {
        const char *text;
        enum control_op op;
        const char *path, *to;
    } cases[] = {
        {"{\"op\":\"status\"}", CONTROL_STATUS, NULL, NULL},
        {"{\"op\":\"metrics\"}", CONTROL_METRICS, NULL, NULL},
        {"{\"op\":\"stop\"}\n", CONTROL_STOP, NULL, NULL},
        {"{\"op\":\"wait\"}", CONTROL_WAIT, NULL, NULL},
        {"{\"op\":\"flush\"}", CONTROL_FLUSH, NULL, NULL},
        {"{\"op\":\"checkpoint\"}", CONTROL_CHECKPOINT, NULL, NULL},
        {"{\"op\":\"refresh\"}", CONTROL_REFRESH, "", NULL},
        {"{\"op\":\"refresh\",\"path\":\"/\"}", CONTROL_REFRESH, "", NULL},
        {"{\"op\":\"settle\",\"path\":\"/a/b\"}", CONTROL_SETTLE, "a/b", NULL},
        {"{\"op\":\"usage\",\"path\":\"a//b///\"}", CONTROL_USAGE, "a/b", NULL},
        {"{\"op\":\"usage\",\"path64\":\"L2Ev/2I=\"}", CONTROL_USAGE,
         "a/\xff"
         "b",
         NULL},
        {"{\"op\":\"drift\",\"path\":\"\\u00e9\"}", CONTROL_DRIFT, "\xc3\xa9", NULL},
        {"{\"op\":\"rename\",\"path\":\"a\",\"to\":\"/b/c\"}", CONTROL_RENAME, "a", "b/c"},
        {"{\"op\":\"remove\",\"path\":\"/a/b\"}", CONTROL_REMOVE, "a/b", NULL},
        {"{\"op\":\"path\",\"ino\":7}", CONTROL_PATH, NULL, NULL},
        {"{\"op\":\"quota-set\",\"path\":\"d\",\"max_bytes\":0}", CONTROL_QUOTA_SET, "d", NULL},
        {"{\"op\":\"quota-get\",\"path\":\"d\"}", CONTROL_QUOTA_GET, "d", NULL},
        {"{\"op\":\"quota-list\"}", CONTROL_QUOTA_LIST, "", NULL},
        {"{\"op\":\"list\",\"path\":\"d\",\"after\":\"x\",\"limit\":10}", CONTROL_LIST, "d", NULL},
        {"{\"op\":\"store-attach\",\"url\":\"s3://b\",\"path\":\"d\"}", CONTROL_STORE_ATTACH, "d",
         NULL},
        {"{\"op\":\"store-detach\",\"name\":\"n\"}", CONTROL_STORE_DETACH, NULL, NULL},
        {"{\"op\":\"store-list\"}", CONTROL_STORE_LIST, NULL, NULL},
        {"{\"op\":\"migrate\",\"path\":\"d\",\"to\":\"n\"}", CONTROL_MIGRATE, "d", NULL},
        {"{\"op\":\"migrate\",\"path\":\"d\",\"do\":\"pause\"}", CONTROL_MIGRATE, "d", NULL},
        {"{\"op\":\"migrate\",\"path\":\"d\",\"to\":\"n\",\"age\":5}", CONTROL_MIGRATE, "d", NULL},
        {"{\"op\":\"migrate\",\"path\":\"d\",\"class\":\"C\",\"age\":5}", CONTROL_MIGRATE, "d",
         NULL},
        {"{\"op\":\"acl-get\",\"path\":\"d\"}", CONTROL_ACL_GET, "d", NULL},
        {"{\"op\":\"acl-set\",\"path\":\"d\",\"entries\":[]}", CONTROL_ACL_SET, "d", NULL},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct control_request request = {0};
        struct error error = {0};
        check_int(parse(cases[i].text, &request, &error), 0);
        check_int(request.op, cases[i].op);
        check_str(request.path.bytes, cases[i].path);
        check_str(request.to.bytes, cases[i].to);
        if (request.op == CONTROL_PATH)
            check_uint(request.ino, 7);
        if (request.op == CONTROL_LIST) {
            check_uint(request.limit, 10);
            check_uint(request.after_len, 1);
        }
        control_request_done(&request);
    }
}

TEST(control_parse, takes_what_gc_may_do)
{
    struct control_request request = {0};
    check_int(parse("{\"op\":\"gc\"}", &request, NULL), 0);
    check(!request.remove && !request.strays);
    check_uint(request.older_than_ms, 86400000);
    check_int(parse("{\"op\":\"gc\",\"delete\":true,\"strays\":true,\"older_than_ms\":7}", &request,
                    NULL),
              0);
    check(request.remove && request.strays);
    check_uint(request.older_than_ms, 7);
    check_int(parse("{\"op\":\"check\",\"deep\":true}", &request, NULL), 0);
    check(request.deep);
    check_int(parse("{\"op\":\"gc\",\"delete\":1}", &request, NULL), -EINVAL);
    check_int(parse("{\"op\":\"gc\",\"older_than_ms\":-1}", &request, NULL), -EINVAL);
}

TEST(control_parse, import)
{
    struct control_request request;
    check_int(parse("{\"op\":\"import\",\"inventory\":\"s3://r/m\",\"filter\":\"a/\","
                    "\"options\":{\"region\":\"x\"}}",
                    &request, NULL),
              0);
    check_str(request.url, "s3://r/m");
    check_str(request.filter, "a/");
    check_str(request.options, "{\"region\":\"x\"}");
    control_request_done(&request);
    check_int(parse("{\"op\":\"import\"}", &request, NULL), -EINVAL);
    check_int(parse("{\"op\":\"import\",\"inventory\":\"\"}", &request, NULL), -EINVAL);
    check_int(parse("{\"op\":\"import\",\"inventory\":\"/m\",\"filter\":1}", &request, NULL),
              -EINVAL);
    check_int(parse("{\"op\":\"import\",\"inventory\":\"/m\",\"options\":\"x\"}", &request, NULL),
              -EINVAL);
}

TEST(control_parse, takes_limits_and_their_absence)
{
    struct control_request request = {0};
    check_int(parse("{\"op\":\"quota-set\",\"path\":\"d\",\"max_bytes\":5}", &request, NULL), 0);
    check_uint(request.quota_valid, META_QUOTA_BYTES);
    check_uint(request.max_bytes, 5);
    control_request_done(&request);
    check_int(parse("{\"op\":\"quota-set\",\"path\":\"d\",\"max_bytes\":null,\"max_inodes\":0}",
                    &request, NULL),
              0);
    check_uint(request.quota_valid, META_QUOTA_BYTES | META_QUOTA_INODES);
    check_uint(request.max_bytes, META_QUOTA_NONE);
    check_uint(request.max_inodes, 0);
    control_request_done(&request);
}

TEST(control_parse, takes_entries_of_access_control_lists)
{
    struct control_request request = {0};
    check_int(parse("{\"op\":\"acl-set\",\"path\":\"d\",\"entries\":[\"user::rwx\","
                    "\"default:user:a b:r-x\",\"group:7:-w-\",\"mask::---\"]}",
                    &request, NULL),
              0);
    static const struct {
        bool is_default;
        uint16_t tag, perm;
        const char *name;
    } wanted[] = {{false, ACL_OWNER, 7, NULL},
                  {true, ACL_USER, 5, "a b"},
                  {false, ACL_NAMED_GROUP, 2, "7"},
                  {false, ACL_MASK, 0, NULL}};
    check_uint(request.acl_count, 4);
    for (size_t i = 0; i < 4; i++) {
        check_int(request.acl[i].is_default, wanted[i].is_default);
        check_uint(request.acl[i].tag, wanted[i].tag);
        check_uint(request.acl[i].perm, wanted[i].perm);
        check_str(request.acl[i].name, wanted[i].name);
    }
    control_request_done(&request);
}

TEST(control_parse, lists_a_thousand_names_unless_told)
{
    struct control_request request = {0};
    check_int(parse("{\"op\":\"list\"}", &request, NULL), 0);
    check_uint(request.limit, CONTROL_LIST_DEFAULT);
    check_uint(request.after_len, 0);
    check(!request.rows && !request.cached);
    control_request_done(&request);
    check_int(parse("{\"op\":\"list\",\"rows\":true,\"cached\":false}", &request, NULL), 0);
    check(request.rows && !request.cached);
    control_request_done(&request);
}

TEST(control_parse, refuses_with_a_reason)
{
    static const struct {
        const char *text, *reason;
    } cases[] = {
        {"", "not JSON"},
        {"{", "not JSON"},
        {"hello", "not JSON"},
        {"[]", "member op"},
        {"{}", "member op"},
        {"{\"op\":1}", "member op"},
        {"{\"op\":\"format\"}", "unknown op format"},
        {"{\"op\":\"status\",\"op\":\"stop\"}", "not JSON"},
        {"{\"op\":\"rename\",\"path\":\"a\"}", "to is missing"},
        {"{\"op\":\"rename\",\"to\":\"a\"}", "path is missing"},
        {"{\"op\":\"remove\"}", "path is missing"},
        {"{\"op\":\"usage\",\"path\":7}", "path must be a string"},
        {"{\"op\":\"quota-set\",\"max_bytes\":1}", "path is missing"},
        {"{\"op\":\"quota-set\",\"path\":\"d\"}", "max_inodes is missing"},
        {"{\"op\":\"quota-set\",\"path\":\"d\",\"max_bytes\":-1}", "must be a number"},
        {"{\"op\":\"quota-set\",\"path\":\"d\",\"max_inodes\":\"9\"}", "must be a number"},
        {"{\"op\":\"usage\",\"path\":\"a/../b\"}", ". or .."},
        {"{\"op\":\"usage\",\"path\":\"./b\"}", ". or .."},
        {"{\"op\":\"usage\",\"path\":\"a\",\"path64\":\"YQ==\"}", "exclude each other"},
        {"{\"op\":\"usage\",\"path64\":\"Y\"}", "not base64"},
        {"{\"op\":\"usage\",\"path64\":\"YQBi\"}", "NUL"},
        {"{\"op\":\"path\"}", "ino is missing"},
        {"{\"op\":\"path\",\"ino\":0}", "ino must be a number"},
        {"{\"op\":\"path\",\"ino\":-1}", "ino must be a number"},
        {"{\"op\":\"path\",\"ino\":\"1\"}", "ino must be a number"},
        {"{\"op\":\"list\",\"limit\":0}", "limit must be a number"},
        {"{\"op\":\"list\",\"limit\":10001}", "limit must be a number"},
        {"{\"op\":\"list\",\"cached\":1}", "cached must be"},
        {"{\"op\":\"list\",\"rows\":\"yes\"}", "rows must be"},
        {"{\"op\":\"acl-get\"}", "path is missing"},
        {"{\"op\":\"acl-set\",\"path\":\"d\"}", "entries must be"},
        {"{\"op\":\"acl-set\",\"path\":\"d\",\"entries\":[1]}", "is no entry"},
        {"{\"op\":\"acl-set\",\"path\":\"d\",\"entries\":[\"user:rwx\"]}", "is no entry"},
        {"{\"op\":\"acl-set\",\"path\":\"d\",\"entries\":[\"user::rwxr\"]}", "is no entry"},
        {"{\"op\":\"acl-set\",\"path\":\"d\",\"entries\":[\"user::xwr\"]}", "is no entry"},
        {"{\"op\":\"acl-set\",\"path\":\"d\",\"entries\":[\"mask:x:rwx\"]}", "is no entry"},
        {"{\"op\":\"acl-set\",\"path\":\"d\",\"entries\":[\"use::rwx\"]}", "is no entry"},
        {"{\"op\":\"acl-set\",\"path\":\"d\",\"entries\":[\"user:a:rwx\",\"\"]}", "is no entry"},
        {"{\"op\":\"store-attach\"}", "url is missing"},
        {"{\"op\":\"store-attach\",\"url\":7}", "url must be a string"},
        {"{\"op\":\"store-attach\",\"url\":\"s3://b\",\"options\":[]}",
         "options must be an object"},
        {"{\"op\":\"store-attach\",\"url\":\"s3://b\",\"read_only\":1}", "read_only must be"},
        {"{\"op\":\"store-detach\"}", "name is missing"},
        {"{\"op\":\"migrate\",\"to\":\"n\"}", "path is missing"},
        {"{\"op\":\"migrate\",\"path\":\"d\"}", "one of to, class and do"},
        {"{\"op\":\"migrate\",\"path\":\"d\",\"to\":\"n\",\"class\":\"C\"}",
         "one of to, class and do"},
        {"{\"op\":\"migrate\",\"path\":\"d\",\"to\":\"n\",\"do\":\"pause\"}",
         "one of to, class and do"},
        {"{\"op\":\"migrate\",\"path\":\"d\",\"do\":\"stop\"}", "do is none of"},
        {"{\"op\":\"migrate\",\"path\":\"d\",\"do\":\"pause\",\"age\":5}", "beside to"},
        {"{\"op\":\"migrate\",\"path\":\"d\",\"to\":\"n\",\"age\":0}", "number of seconds"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct control_request request = {0};
        struct error error = {0};
        check_int(parse(cases[i].text, &request, &error), -EINVAL);
        if (!strstr(error.message, cases[i].reason))
            test_fail("\"%s\": \"%s\" does not say \"%s\"", cases[i].text, error.message,
                      cases[i].reason);
        check(!request.path.bytes && !request.to.bytes);
    }
}

TEST(control_parse, refuses_what_is_too_long)
{
    static char text[CONTROL_TEXT_MAX + 100];
    struct control_request request;
    int head = snprintf(text, sizeof(text), "{\"op\":\"usage\",\"path\":\"");
    memset(text + head, 'a', META_NAME_MAX + 1);
    strcpy(text + head + META_NAME_MAX + 1, "\"}");
    check_int(parse(text, &request, NULL), -EINVAL);

    for (int i = 0; i < CONTROL_PATH_MAX + 2; i++)
        text[head + i] = i % 2 ? '/' : 'a';
    strcpy(text + head + CONTROL_PATH_MAX + 2, "\"}");
    check_int(parse(text, &request, NULL), -EINVAL);

    memset(text, ' ', CONTROL_TEXT_MAX);
    strcpy(text + CONTROL_TEXT_MAX, "{\"op\":\"status\"}");
    check_int(parse(text, &request, NULL), -EINVAL);
}

TEST(control_path, is_taken_apart)
{
    char bytes[] = "a/bc/d";
    struct control_text path = {.bytes = bytes, .len = strlen(bytes)};
    struct control_text parent;
    struct meta_name name;
    control_path_split(&path, &parent, &name);
    check_uint(parent.len, 4);
    check_uint(name.len, 1);
    check_mem(name.bytes, "d", 1);

    const char *at = bytes;
    name = control_path_next(&at);
    check_uint(name.len, 1);
    name = control_path_next(&at);
    check_uint(name.len, 2);
    check_mem(name.bytes, "bc", 2);
    name = control_path_next(&at);
    check_uint(name.len, 1);
    name = control_path_next(&at);
    check_uint(name.len, 0);

    char root[] = "";
    path = (struct control_text){.bytes = root};
    control_path_split(&path, &parent, &name);
    check_uint(parent.len, 0);
    check_uint(name.len, 0);
}

TEST(control_may, judges_as_the_kernel_does)
{
    static const struct {
        uint32_t mode, uid, gid;
        unsigned mask;
        bool may;
    } cases[] = {
        {0700, 100, 1, 7, true},  {0077, 100, 1, 4, false}, /* the owner's bits, even if less */
        {0070, 1, 200, 7, true},  {0707, 1, 200, 4, false}, {0070, 1, 201, 6, true},
        {0007, 1, 2, 7, true},    {0770, 1, 2, 1, false},   {0750, 100, 1, 5, true},
        {0555, 100, 1, 2, false},
    };
    gid_t groups[] = {7, 201};
    struct control_caller caller = {.uid = 100, .gid = 200, .groups = groups, .group_count = 2};
    struct control_caller root = {.uid = 0};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct meta_attr attr = {
            .mode = S_IFDIR | cases[i].mode, .uid = cases[i].uid, .gid = cases[i].gid};
        if (control_may(&caller, &attr, cases[i].mask) != cases[i].may)
            test_fail("case %zu", i);
        check(control_may(&root, &attr, 7));
    }
}
