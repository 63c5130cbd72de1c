#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "options.h"
#include "test.h"

struct target {
    char *name, *kind;
    bool flag;
    uint64_t size;
    uint32_t wait;
    unsigned count;
};

static const struct option_spec specs[] = {
    {"name", 'n', OPTION_STRING, offsetof(struct target, name), "NAME", "a name"},
    {"kind", 0, OPTION_CHOICE, offsetof(struct target, kind), "KIND", "a kind",
     .choices = "one|two"},
    {"read-only", 0, OPTION_FLAG, offsetof(struct target, flag), NULL, "a flag"},
    {"size", 0, OPTION_SIZE, offsetof(struct target, size), "SIZE", "a size", .min = 1024,
     .max = 1 << 20},
    {"wait", 0, OPTION_DURATION, offsetof(struct target, wait), "TIME", "a time"},
    {"count", 0, OPTION_UINT, offsetof(struct target, count), "N", "a count", .cli_only = true},
};
static const struct option_set set = {
    .specs = specs, .count = ARRAY_LEN(specs), .usage = "", .reads_config = true};

TEST(options, sizes)
{
    static const struct {
        const char *text;
        uint64_t value;
    } good[] = {{"0", 0},        {"512", 512},         {"4K", 4096},       {"4k", 4096},
                {"1M", 1 << 20}, {"3GiB", 3ull << 30}, {"2T", 2ull << 40}, {"7B", 7}};
    static const char *const bad[] = {
        "", "K", "-1", "1X", "1 M", "1MM", "99999999999999999999", "999999999T", "1.5G", " 1"};
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        uint64_t value = 99;
        check_int(options_parse_size(good[i].text, &value), 0);
        check_uint(value, good[i].value);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        uint64_t value = 99;
        check_int(options_parse_size(bad[i], &value), -EINVAL);
        check_uint(value, 99);
    }
}

TEST(options, durations)
{
    static const struct {
        const char *text;
        uint32_t ms;
    } good[] = {{"5", 5000},     {"5s", 5000},      {"250ms", 250}, {"2m", 120000},
                {"1h", 3600000}, {"2d", 172800000}, {"0", 0}};
    static const char *const bad[] = {
        "", "s", "-1s", "1w", "1s ", "5000000s", "99999999999999999999ms"};
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        uint32_t ms = 9;
        check_int(options_parse_duration_ms(good[i].text, &ms), 0);
        check_uint(ms, good[i].ms);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        uint32_t ms = 9;
        check_int(options_parse_duration_ms(bad[i], &ms), -EINVAL);
        check_uint(ms, 9);
    }
}

TEST(options, bad_values_change_nothing_and_name_the_option)
{
    static const char *const bad[][2] = {
        {"kind", "three"}, {"kind", "on"},         {"size", "1"}, {"size", "2M"},  {"wait", "soon"},
        {"count", "x"},    {"read-only", "maybe"}, {"name", ""},  {"nothing", "1"}};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct target t = {0};
        struct error error = {0};
        check_int(options_set(&set, &t, bad[i][0], bad[i][1], &error), -EINVAL);
        check(strstr(error.message, bad[i][0]) != NULL);
        check(!t.name && !t.kind && !t.flag && !t.size && !t.wait && !t.count);
    }
}

TEST(options, mount_list)
{
    struct target t = {0};
    struct error error = {0};
    bool seen[ARRAY_LEN(specs)] = {false};
    check_int(options_from_mount_list(&set, &t,
                                      "rw,_netdev,name=x,size=64K,ro,x-systemd.automount,noatime",
                                      seen, &error),
              0);
    check_str(t.name, "x");
    check_uint(t.size, 65536);
    check(t.flag && seen[0] && seen[2] && seen[3] && !seen[1]);
    check_int(options_from_mount_list(&set, &t, "nonsense=1", seen, &error), -EINVAL);
    options_free(&set, &t);
    check(t.name == NULL);
}

TEST(options, json)
{
    struct target t = {0};
    struct error error = {0};
    bool seen[ARRAY_LEN(specs)] = {true};
    const char *text =
        "{\"name\": \"from file\", \"kind\": \"two\", \"read-only\": true, \"wait\": 3}";
    check_int(options_from_json(&set, &t, text, strlen(text), "f", seen, &error), 0);
    check(t.name == NULL); /* was given before */
    check_str(t.kind, "two");
    check(t.flag);
    check_uint(t.wait, 3000);
    options_free(&set, &t);
}

TEST(options, bad_json)
{
    static const char *const bad[] = {"",
                                      "[]",
                                      "{\"nothing\": 1}",
                                      "{\"kind\": []}",
                                      "{\"kind\": \"one\", \"kind\": \"two\"}",
                                      "{\"kind\": 7}",
                                      "{\"count\": 1}",
                                      "{\"kind\"",
                                      "{\"size\": -5000}",
                                      "nul"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct target t = {0};
        struct error error = {0};
        bool seen[ARRAY_LEN(specs)] = {false};
        check_int(options_from_json(&set, &t, bad[i], strlen(bad[i]), "the file", seen, &error),
                  -EINVAL);
        check(strstr(error.message, "the file") != NULL);
        options_free(&set, &t);
    }
}
