#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "credentials.h"
#include "credentials_fetch.h"
#include "profile.h"
#include "s3/keys.h"
#include "test.h"

/* ---- files ---- */

static const char *value(const struct profiles *p, const char *profile, const char *name)
{
    return profile_get(profiles_find(p, profile), name);
}

static int parse(struct profiles *p, const char *text, bool is_config)
{
    return profiles_parse(p, text, strlen(text), is_config);
}

TEST(profiles_parse, reads_a_credentials_file)
{
    struct profiles p = {NULL};
    check_int(parse(&p,
                    "# a comment\n\n[default]\naws_access_key_id = AK1\n"
                    "AWS_SECRET_ACCESS_KEY=sec=ret/+\r\n; another\n"
                    "[ work ]\naws_access_key_id=AK2\n  nested = no\nno equals sign\n= no name\n",
                    false),
              0);
    check_str(value(&p, "default", "aws_access_key_id"), "AK1");
    check_str(value(&p, "default", "aws_secret_access_key"), "sec=ret/+");
    check_str(value(&p, "work", "aws_access_key_id"), "AK2");
    check_str(value(&p, "work", "nested"), NULL);
    check_str(value(&p, "nobody", "aws_access_key_id"), NULL);
    profiles_done(&p);
}

TEST(profiles_parse, knows_the_section_names_of_a_config_file)
{
    struct profiles p = {NULL};
    check_int(parse(&p,
                    "[default]\nregion=r1\n[profile work]\nregion=r2\n[work]\nregion=r3\n"
                    "[sso-session x]\nregion=r4\n[profile\tt]\nregion=r5\n[open\nregion=r6\n",
                    true),
              0);
    check_str(value(&p, "default", "region"), "r1");
    check_str(value(&p, "work", "region"), "r2");
    check_str(value(&p, "t", "region"), "r5");
    check_str(value(&p, "sso-session x", "region"), NULL);
    profiles_done(&p);
}

TEST(profiles_parse, keeps_what_came_first)
{
    struct profiles p = {NULL};
    check_int(parse(&p, "[a]\nregion=first\n", false), 0);
    check_int(parse(&p, "[profile a]\nregion=second\noutput=json\n", true), 0);
    check_str(value(&p, "a", "region"), "first");
    check_str(value(&p, "a", "output"), "json");
    profiles_done(&p);
}

TEST(profiles_parse, is_bounded)
{
    struct profiles p = {NULL};
    size_t cap = 64 * 1024, len = 0;
    char *text = malloc(cap);
    check(text != NULL);
    for (unsigned i = 0; i < 1100; i++)
        len += (size_t)snprintf(text + len, cap - len, "[p%u]\n", i);
    check_int(profiles_parse(&p, text, len, false), -E2BIG);
    profiles_done(&p);
    len = (size_t)snprintf(text, cap, "[p]\n");
    for (unsigned i = 0; i < 300; i++)
        len += (size_t)snprintf(text + len, cap - len, "k%u=v\n", i);
    check_int(profiles_parse(&p, text, len, false), -E2BIG);
    profiles_done(&p);
    free(text);
}

/* ---- the chain ---- */

static const char *const names[] = {
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_EC2_METADATA_DISABLED",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_CONFIG_FILE",
};

static char directory[4096], credentials_path[4200], config_path[4200];

static void clear(void)
{
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        unsetenv(names[i]);
}

/* An environment without credentials, and with profile files of our own. */
static void set_up(void)
{
    clear();
    test_dir_make(directory);
    snprintf(credentials_path, sizeof(credentials_path), "%s/credentials", directory);
    snprintf(config_path, sizeof(config_path), "%s/config", directory);
    setenv("AWS_SHARED_CREDENTIALS_FILE", credentials_path, 1);
    setenv("AWS_CONFIG_FILE", config_path, 1);
    setenv("AWS_EC2_METADATA_DISABLED", "true", 1);
}

static void tear_down(void)
{
    test_dir_remove(directory);
    clear();
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "we");
    check(file != NULL);
    check(fputs(text, file) >= 0);
    check_int(fclose(file), 0);
}

/* What the loop thread sees. */
struct seen {
    struct credentials *c;
    char access_key[64], secret_key[64], token[64], source[96];
    int64_t expires_s;
    int rc;
};

static void look(void *arg)
{
    struct seen *seen = arg;
    const struct credential_set *set = NULL;
    seen->rc = credentials_get(seen->c, &set, NULL);
    if (seen->rc)
        return;
    snprintf(seen->access_key, sizeof(seen->access_key), "%s", set->access_key);
    snprintf(seen->secret_key, sizeof(seen->secret_key), "%s", set->secret_key);
    snprintf(seen->token, sizeof(seen->token), "%s", set->session_token ? set->session_token : "");
    snprintf(seen->source, sizeof(seen->source), "%s", credentials_source(seen->c));
    seen->expires_s = set->expires_s;
}

static int find(const struct store_options *options, struct seen *seen, struct error *error)
{
    struct loop *loop;
    memset(seen, 0, sizeof(*seen));
    check_int(loop_new(&loop, "test"), 0);
    int rc = credentials_new(&seen->c, loop, options, "us-east-1", error);
    if (rc == 0) {
        loop_call(loop, look, seen);
        credentials_free(seen->c);
        rc = seen->rc;
    }
    loop_free(loop);
    return rc;
}

#define CREDENTIALS_TEST(name) TEST(credentials_new, name, .init = set_up, .fini = tear_down)

CREDENTIALS_TEST(prefers_options_to_everything)
{
    struct store_options options;
    store_options_init(&options);
    options.access_key = "AKOPTION";
    options.secret_key = "s";
    options.session_token = "t";
    setenv("AWS_ACCESS_KEY_ID", "AKENV", 1);
    setenv("AWS_SECRET_ACCESS_KEY", "s", 1);
    struct seen seen;
    check_int(find(&options, &seen, NULL), 0);
    check_str(seen.access_key, "AKOPTION");
    check_str(seen.token, "t");
    check_str(seen.source, "options");
}

CREDENTIALS_TEST(prefers_the_environment_to_profiles)
{
    struct store_options options;
    store_options_init(&options);
    write_file(credentials_path, "[default]\naws_access_key_id=AKFILE\naws_secret_access_key=f\n");
    struct seen seen;
    check_int(find(&options, &seen, NULL), 0);
    check_str(seen.access_key, "AKFILE");
    check_str(seen.source, "profile default");
    setenv("AWS_ACCESS_KEY_ID", "AKENV", 1);
    setenv("AWS_SECRET_ACCESS_KEY", "envsecret", 1);
    check_int(find(&options, &seen, NULL), 0);
    check_str(seen.access_key, "AKENV");
    check_str(seen.secret_key, "envsecret");
    check_str(seen.source, "environment");
    /* … but a profile that was named is meant. */
    options.profile = "default";
    check_int(find(&options, &seen, NULL), 0);
    check_str(seen.access_key, "AKFILE");
}

CREDENTIALS_TEST(runs_a_program_for_a_profile)
{
    struct store_options options;
    store_options_init(&options);
    setenv("AWS_PROFILE", "tool", 1);
    write_file(config_path,
               "[profile tool]\n"
               "credential_process = echo '{\"Version\": 1, \"AccessKeyId\": \"AKTOOL\","
               "\"SecretAccessKey\": \"s\", \"SessionToken\": \"tok\","
               "\"Expiration\": \"2500-01-01T00:00:00Z\"}'\n");
    struct seen seen;
    check_int(find(&options, &seen, NULL), 0);
    check_str(seen.access_key, "AKTOOL");
    check_str(seen.token, "tok");
    check(seen.expires_s == 16725225600);
    check_str(seen.source, "profile tool");
}

CREDENTIALS_TEST(says_what_is_wrong)
{
    struct store_options options;
    struct seen seen;
    struct error error = {0};
    store_options_init(&options);
    check_int(find(&options, &seen, &error), -EACCES);
    check(strstr(error.message, "no credentials") != NULL);
    options.profile = "nobody";
    check_int(find(&options, &seen, &error), -EINVAL);
    check(strstr(error.message, "no profile \"nobody\"") != NULL);
    write_file(config_path, "[profile role]\nrole_arn=arn:aws:iam::1:role/x\nsource_profile=y\n"
                            "[profile broken]\ncredential_process=exit 3\n"
                            "[profile nonsense]\ncredential_process=echo hello\n"
                            "[profile half]\naws_access_key_id=AK\n");
    options.profile = "role";
    check_int(find(&options, &seen, &error), -EINVAL);
    check(strstr(error.message, "credential_process") != NULL);
    options.profile = "broken";
    check_int(find(&options, &seen, &error), -EACCES);
    check(strstr(error.message, "status 3") != NULL);
    options.profile = "nonsense";
    check_int(find(&options, &seen, &error), -EACCES);
    check(strstr(error.message, "not JSON") != NULL);
    options.profile = "half";
    check_int(find(&options, &seen, &error), -EINVAL);
    check(strstr(error.message, "without its secret key") != NULL);
    options.profile = NULL;
    options.secret_key = "s";
    check_int(find(&options, &seen, &error), -EINVAL);
}

static int region(const struct store_options *options, char **out)
{
    struct error error = {0};
    free(*out);
    *out = NULL;
    return credentials_region(options, out, &error);
}

TEST(credentials_region, comes_from_options_environment_profile, .init = set_up, .fini = tear_down)
{
    struct store_options options;
    char *name = NULL;
    store_options_init(&options);
    check_int(region(&options, &name), 0);
    check_str(name, "us-east-1");
    write_file(config_path, "[default]\nregion = eu-north-1\n");
    check_int(region(&options, &name), 0);
    check_str(name, "eu-north-1");
    setenv("AWS_DEFAULT_REGION", "eu-west-1", 1);
    check_int(region(&options, &name), 0);
    check_str(name, "eu-west-1");
    setenv("AWS_REGION", "eu-west-2", 1);
    check_int(region(&options, &name), 0);
    check_str(name, "eu-west-2");
    options.region = "eu-west-3";
    check_int(region(&options, &name), 0);
    check_str(name, "eu-west-3");
    options.region = "not a region/";
    check_int(region(&options, &name), -EINVAL);
    free(name);
}

/* ---- sets that end ---- */

static void write_expires(const char *expires)
{
    char path[4200];
    snprintf(path, sizeof(path), "%s/expires", directory);
    write_file(path, expires);
}

/* A program that gives another key each time. */
static void write_counting_tool(void)
{
    char text[18000];
    snprintf(text, sizeof(text),
             "[default]\ncredential_process = cd %s; echo x >> calls; echo '{\"Version\":1,"
             "\"AccessKeyId\":\"AK'$(grep -c x calls)'\",\"SecretAccessKey\":\"s\","
             "\"Expiration\":\"'$(cat expires)'\"}'\n",
             directory);
    write_file(config_path, text);
}

static void reject(void *arg)
{
    struct seen *seen = arg;
    credentials_reject(seen->c);
}

/* Waits until the loop thread is given another key than `old`. */
static void wait_for_other(struct loop *loop, struct seen *seen, const char *old)
{
    for (unsigned i = 0; i < 12000; i++) {
        loop_call(loop, look, seen);
        if (seen->rc == 0 && strcmp(seen->access_key, old) != 0)
            return;
        usleep(10000);
    }
    test_fail("the credentials are never replaced");
}

TEST(credentials_get, replaces_a_set_that_the_server_rejected, .init = set_up, .fini = tear_down)
{
    struct store_options options;
    struct seen seen = {0};
    struct loop *loop;
    store_options_init(&options);
    write_counting_tool();
    write_expires("2500-01-01T00:00:00Z");
    check_int(loop_new(&loop, "test"), 0);
    check_int(credentials_new(&seen.c, loop, &options, "us-east-1", NULL), 0);
    loop_call(loop, look, &seen);
    check_str(seen.access_key, "AK1");
    loop_call(loop, reject, &seen);
    wait_for_other(loop, &seen, "AK1");
    check_str(seen.access_key, "AK2");
    credentials_free(seen.c);
    loop_free(loop);
}

TEST(credentials_get, replaces_a_set_before_it_expires, .init = set_up, .fini = tear_down)
{
    struct store_options options;
    struct seen seen = {0};
    struct loop *loop;
    char expires[32];
    store_options_init(&options);
    /* It is asked for again at half of its life: after a second. */
    time_t end = time(NULL) + 3;
    struct tm tm;
    gmtime_r(&end, &tm);
    strftime(expires, sizeof(expires), "%Y-%m-%dT%H:%M:%SZ", &tm);
    write_counting_tool();
    write_expires(expires);
    check_int(loop_new(&loop, "test"), 0);
    check_int(credentials_new(&seen.c, loop, &options, "us-east-1", NULL), 0);
    write_expires("2500-01-01T00:00:00Z");
    wait_for_other(loop, &seen, "AK1");
    loop_call(loop, look, &seen);
    check(seen.expires_s > time(NULL) + 1000);
    credentials_free(seen.c);
    loop_free(loop);
}

TEST(credential_parse_json, takes_only_what_can_go_into_a_header)
{
    static const char *const wrong[] = {
        "[]",
        "{}",
        "{\"AccessKeyId\":\"a\"}",
        "{\"AccessKeyId\":\"\",\"SecretAccessKey\":\"s\"}",
        "{\"AccessKeyId\":\"a\\nb\",\"SecretAccessKey\":\"s\"}",
        "{\"AccessKeyId\":\"a\",\"SecretAccessKey\":\"s\",\"Token\":\"t t\"}",
        "{\"AccessKeyId\":1,\"SecretAccessKey\":\"s\"}",
        "{\"AccessKeyId\":\"a\",\"AccessKeyId\":\"b\",\"SecretAccessKey\":\"s\"}",
        "{\"AccessKeyId\":\"a\"",
    };
    struct credential_set set = {0};
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        if (credential_parse_json(wrong[i], strlen(wrong[i]), "Token", &set, NULL) != -EACCES)
            test_fail("taken: %s", wrong[i]);
    }
    static const char good[] = "{\"AccessKeyId\":\"a\",\"SecretAccessKey\":\"s\",\"Token\":\"t\","
                               "\"Expiration\":\"1970-01-01T00:01:00Z\",\"Other\":{}}";
    check_int(credential_parse_json(good, strlen(good), "Token", &set, NULL), 0);
    check_str(set.session_token, "t");
    check_int(set.expires_s, 60);
    credential_set_done(&set);
}

TEST(credential_parse_json, reads_times_of_any_place)
{
    static const struct {
        const char *text;
        int64_t expires_s;
    } cases[] = {
        {"1970-01-02T00:00:00Z", 86400},         {"1970-01-02T00:00:00+00:00", 86400},
        {"1970-01-02T02:30:00.5+02:30", 86400},  {"1970-01-01T19:00:00-05:00", 86400},
        {"1970-01-01T19:00:00.000-0500", 86400}, {"1970-01-01T19:00:00-05", 86400},
        {"1970-01-02T00:00:00", 86400},          {"tomorrow", 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct credential_set set = {0};
        char text[160];
        int len =
            snprintf(text, sizeof(text),
                     "{\"AccessKeyId\":\"a\",\"SecretAccessKey\":\"s\",\"Expiration\":\"%s\"}",
                     cases[i].text);
        check_int(credential_parse_json(text, (size_t)len, "Token", &set, NULL), 0);
        check_int(set.expires_s, cases[i].expires_s);
        credential_set_done(&set);
    }
}

/* ---- keys of a day ---- */

static int give_keys(void *arg, struct store_keys *out, struct error *error)
{
    int *calls = arg;
    ++*calls;
    *out = (struct store_keys){
        .access_key = strdup("AK"),
        .region = strdup("r"),
        .valid_s = 3600,
        .day_count = 2,
        .days = {{.day = "20130524", .key = {1}}, {.day = "20130525", .key = {2}}},
    };
    return 0;
}

TEST(credentials_new, takes_keys_of_somebody_else_and_nothing_of_its_own)
{
    int calls = 0;
    struct loop *loop;
    struct error error = {0};
    struct credentials *c = NULL;
    struct store_options options;
    const struct credential_set *set = NULL;
    const struct store_keys_source source = {.fetch = give_keys, .arg = &calls};
    check_int(loop_new(&loop, "test"), 0);
    store_options_init(&options);
    setenv("AWS_ACCESS_KEY_ID", "other", 1);
    setenv("AWS_SECRET_ACCESS_KEY", "other", 1);
    options.keys = &source;
    check_int(credentials_new(&c, loop, &options, "r", &error), 0);
    check_int(credentials_get(c, &set, &error), 0);
    check_str(set->access_key, "AK");
    check_str(set->secret_key, NULL);
    check_int(calls, 1);
    check_int(credential_day_key(set, "20130524T235959Z")[0], 1);
    check_int(credential_day_key(set, "20130525T000000Z")[0], 2);
    check(credential_day_key(set, "20130526T000000Z") == NULL);
    credentials_free(c);
    loop_free(loop);
    unsetenv("AWS_ACCESS_KEY_ID");
    unsetenv("AWS_SECRET_ACCESS_KEY");
}

#define MIDNIGHT 1369353600 /* 2013-05-24 00:00 UTC */

struct ask {
    struct store_signer *signer;
    int64_t now_s;
    uint32_t lifetime_s;
    struct store_keys keys;
    int rc;
};

static void ask_on_loop(void *arg)
{
    struct ask *ask = arg;
    ask->rc = store_signer_keys(ask->signer, ask->now_s, ask->lifetime_s, &ask->keys, NULL);
}

static void check_keys(struct loop *loop, struct store_signer *signer, int64_t now_s,
                       uint32_t lifetime_s, uint32_t valid_s, const char *days)
{
    struct ask ask = {.signer = signer, .now_s = now_s, .lifetime_s = lifetime_s};
    char got[64] = "";
    loop_call(loop, ask_on_loop, &ask);
    check_int(ask.rc, 0);
    check_int(ask.keys.valid_s, valid_s);
    for (unsigned i = 0; i < ask.keys.day_count; i++)
        snprintf(got + strlen(got), sizeof(got) - strlen(got), "%s ", ask.keys.days[i].day);
    check_str(got, days);
    check_str(ask.keys.access_key, "AK");
    check_str(ask.keys.session_token, "token");
    store_keys_done(&ask.keys);
}

TEST(store_signer_keys, end_with_the_day_and_begin_before_the_next)
{
    struct loop *loop;
    struct store_signer *signer = NULL;
    struct store_options options;
    check_int(loop_new(&loop, "test"), 0);
    store_options_init(&options);
    options.access_key = "AK";
    options.secret_key = "secret";
    options.session_token = "token";
    options.region = "r";
    check_int(store_signer_new(&signer, loop, &options, NULL), 0);
    check_str(store_signer_region(signer), "r");
    check_keys(loop, signer, MIDNIGHT - 7200, 3600, 3600, "20130523 ");
    check_keys(loop, signer, MIDNIGHT - 1000, 3600, 1000, "20130523 ");
    check_keys(loop, signer, MIDNIGHT - 900, 3600, 3600, "20130523 20130524 ");
    check_keys(loop, signer, MIDNIGHT - 1, 200000, 86401, "20130523 20130524 ");
    check_keys(loop, signer, MIDNIGHT, 3600, 3600, "20130524 ");
    store_signer_free(signer);
    loop_free(loop);
}
