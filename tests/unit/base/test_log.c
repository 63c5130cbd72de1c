#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <regex.h>
#include <unistd.h>

#include "test.h"

static char dir[4096], path[4200], other[4200];

static void begin(void)
{
    test_dir_make(dir);
    snprintf(path, sizeof(path), "%s/log", dir);
    snprintf(other, sizeof(other), "%s/log.1", dir);
}

static void end(void)
{
    log_init(LOG_INFO, NULL);
    test_dir_remove(dir);
}

/* The file as text; free(). */
static char *contents(const char *file)
{
    FILE *f = fopen(file, "re");
    check(f != NULL);
    char *text = calloc(1, 1 << 20);
    check(text != NULL);
    size_t len = fread(text, 1, (1 << 20) - 1, f);
    text[len] = '\0';
    fclose(f);
    return text;
}

static bool matches(const char *text, const char *pattern)
{
    regex_t regex;
    check_int(regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB), 0);
    int rc = regexec(&regex, text, 0, NULL, 0);
    regfree(&regex);
    return rc == 0;
}

static void check_matches(const char *text, const char *pattern)
{
    if (!matches(text, pattern))
        test_fail("'%s' does not match '%s'", text, pattern);
}

TEST(log_write, is_one_line_with_time_level_event_and_fields, .init = begin, .fini = end)
{
    check_int(log_init(LOG_INFO, path), 0);
    log_error("store request failed", "op=%s status=%d", "get", 503);
    log_info("ready");
    char *text = contents(path);
    check_matches(text, "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\\.[0-9]{3}Z error store request "
                        "failed op=get status=503\n"
                        "[^\n]+Z info ready\n$");
    free(text);
}

TEST(log_write, leaves_out_what_is_below_the_level, .init = begin, .fini = end)
{
    check_int(log_init(LOG_WARN, path), 0);
    log_info("no");
    log_debug("no");
    log_warn("first");
    log_set_level(LOG_DEBUG);
    check(log_enabled(LOG_DEBUG));
    log_debug("second", "n=%d", 1);
    char *text = contents(path);
    check_matches(text, "^[^\n]+ warn first\n[^\n]+ debug second n=1\n$");
    free(text);
}

TEST(log_write, stays_one_line_whatever_the_value, .init = begin, .fini = end)
{
    check_int(log_init(LOG_INFO, path), 0);
    log_warn("bad name", "name=%s", "a\nb\x1b[0m");
    char *text = contents(path);
    check_matches(text, "^[^\n]+ warn bad name name=a b \\[0m\n$");
    free(text);
}

TEST(log_write, cuts_long_records_and_says_so, .init = begin, .fini = end)
{
    char value[10000];
    memset(value, 'x', sizeof(value) - 1);
    value[sizeof(value) - 1] = '\0';
    check_int(log_init(LOG_INFO, path), 0);
    log_warn("long", "value=%s", value);
    log_warn("next");
    char *text = contents(path);
    check_matches(text, "^[^\n]+ warn long value=x+ cut=true\n[^\n]+ warn next\n$");
    check(strlen(text) < 5000);
    free(text);
}

TEST(log_write, keeps_errno, .init = begin, .fini = end)
{
    check_int(log_init(LOG_INFO, path), 0);
    errno = ENOTDIR;
    log_info("anything", "x=%d", 1);
    check_int(errno, ENOTDIR);
}

TEST(log_init, refuses_a_path_that_cannot_be_opened_and_changes_nothing, .init = begin, .fini = end)
{
    char bad[4300];
    snprintf(bad, sizeof(bad), "%s/no/such", dir);
    check_int(log_init(LOG_INFO, path), 0);
    check_int(log_init(LOG_DEBUG, bad), -ENOENT);
    check(!log_enabled(LOG_DEBUG));
    log_info("still here");
    char *text = contents(path);
    check_matches(text, " info still here\n$");
    free(text);
}

TEST(log_init, appends, .init = begin, .fini = end)
{
    check_int(log_init(LOG_INFO, path), 0);
    log_info("one");
    check_int(log_init(LOG_INFO, path), 0);
    log_info("two");
    char *text = contents(path);
    check_matches(text, "^[^\n]+ info one\n[^\n]+ info two\n$");
    free(text);
}

TEST(log_reopen, goes_on_in_a_new_file, .init = begin, .fini = end)
{
    check_int(log_init(LOG_INFO, path), 0);
    log_info("old");
    check_int(rename(path, other), 0);
    log_info("still old");
    check_int(log_reopen(), 0);
    log_info("new");
    char *text = contents(other);
    check_matches(text, "^[^\n]+ info old\n[^\n]+ info still old\n$");
    free(text);
    text = contents(path);
    check_matches(text, "^[^\n]+ info new\n$");
    free(text);
}

TEST(log_reopen, of_stderr_does_nothing)
{
    check_int(log_reopen(), 0);
}

enum { WRITERS = 4, RECORDS = 200 };

static void *write_many(void *arg)
{
    for (int i = 0; i < RECORDS; i++)
        log_info("record", "writer=%s number=%d end", (const char *)arg, i);
    return NULL;
}

TEST(log_write, records_of_many_threads_do_not_mix, .init = begin, .fini = end)
{
    static const char *const names[WRITERS] = {"aaaaaaaaaaaa", "bbbbbbbbbbbb", "cccccccccccc",
                                               "dddddddddddd"};
    check_int(log_init(LOG_INFO, path), 0);
    pthread_t thread[WRITERS];
    for (int i = 0; i < WRITERS; i++)
        check_int(pthread_create(&thread[i], NULL, write_many, (void *)names[i]), 0);
    for (int i = 0; i < 20; i++)
        check_int(log_reopen(), 0);
    for (int i = 0; i < WRITERS; i++)
        pthread_join(thread[i], NULL);
    char *text = contents(path);
    int lines = 0;
    char *rest = text;
    for (char *line; (line = strsep(&rest, "\n")) && *line; lines++)
        check_matches(line, "Z info record writer=(a{12}|b{12}|c{12}|d{12}) number=[0-9]+ end$");
    check_int(lines, WRITERS * RECORDS);
    free(text);
}

TEST(log_limited, lets_the_burst_through_and_counts_the_rest, .init = begin, .fini = end)
{
    /* A period that does not end while the test runs, then one that has ended always. */
    struct log_limit limit = LOG_LIMIT(3, 1u << 30);
    check_int(log_init(LOG_INFO, path), 0);
    for (int i = 0; i < 10; i++)
        log_limited(&limit, LOG_WARN, "again", "n=%d", i);
    limit.period_ms = 0;
    log_limited(&limit, LOG_WARN, "again", "n=%d", 10);
    log_limited(&limit, LOG_WARN, "again", "n=%d", 11);
    char *text = contents(path);
    check_matches(text, "^[^\n]+ again n=0\n[^\n]+ again n=1\n[^\n]+ again n=2\n"
                        "[^\n]+ again suppressed=7 n=10\n[^\n]+ again n=11\n$");
    free(text);
}

TEST(log_level_parse, knows_the_four_levels)
{
    enum log_level level = LOG_DEBUG;
    check_int(log_level_parse("error", &level), 0);
    check_int(level, LOG_ERROR);
    check_int(log_level_parse("debug", &level), 0);
    check_int(level, LOG_DEBUG);
    check_int(log_level_parse("ERROR", &level), -EINVAL);
    check_int(log_level_parse("", &level), -EINVAL);
    check_int(level, LOG_DEBUG);
}

TEST(log_quote, quotes_what_needs_it)
{
    static const char *const cases[][2] = {
        {"plain", "plain"},
        {"a/b-c.d", "a/b-c.d"},
        {"", "\"\""},
        {"two words", "\"two words\""},
        {"key=value", "\"key=value\""},
        {"say \"x\"", "\"say \\\"x\\\"\""},
        {"back\\slash", "\"back\\\\slash\""},
        {"line\nline\x01", "\"line\\nline\\x01\""},
        {"h\xc3\xa9", "h\xc3\xa9"},
    };
    char buf[64];
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        check_str(log_quote(cases[i][0], buf, sizeof(buf)), cases[i][1]);
    check_str(log_quote(NULL, buf, sizeof(buf)), "\"\"");
}

TEST(log_quote, cuts_at_the_buffer_and_closes_the_quote)
{
    char buf[8];
    for (size_t len = 1; len <= sizeof(buf); len++) {
        memset(buf, '#', sizeof(buf));
        log_quote("a\nb\nc\nd\ne", buf, len);
        check(memchr(buf, '\0', len) != NULL);
        for (size_t i = len; i < sizeof(buf); i++)
            check(buf[i] == '#');
    }
    check_str(log_quote("a\nb\nc\nd\ne", buf, sizeof(buf)), "\"a\\nb\"");
    check_str(log_quote("p q", buf, 4), "\"p\"");
    check_str(log_quote("plaintextlong", buf, 4), "pla");
}
