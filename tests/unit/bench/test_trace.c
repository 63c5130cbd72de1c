#include "bench/trace.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "test.h"

static char room[TRACE_LINE_MAX];

static int parse(const char *line, struct trace_event *out, struct error *error)
{
    return trace_parse(line, strlen(line), room, out, error);
}

/* Writes lines behind a head to a file and loads it. */
static int load(const char *lines, struct trace *out, struct error *error)
{
    char path[4096], file[5000];
    test_dir_make(path);
    snprintf(file, sizeof(file), "%s/trace", path);
    FILE *to = fopen(file, "w");
    check(to != NULL);
    fprintf(to, "{\"schema\":\"" TRACE_SCHEMA "\"}\n%s", lines);
    check_int(fclose(to), 0);
    int r = trace_load(file, out, error);
    test_dir_remove(path);
    return r;
}

static void replay(const char *lines, struct trace_result *result)
{
    struct trace trace;
    struct error error = {0};
    char path[4096];
    test_dir_make(path);
    struct trace_replay_options options = {.path = path};
    if (load(lines, &trace, &error) < 0)
        test_fail("%s", error_text(&error));
    if (trace_replay(&trace, &options, result, &error) < 0)
        test_fail("%s", error_text(&error));
    check_uint(result->calls, trace.count);
    trace_done(&trace);
    check_int(rmdir(path), 0); /* nothing is left in it */
}

TEST(trace_write, what_is_written_is_read_again)
{
    struct trace_event in = {.op = TRACE_RENAME,
                             .start_ns = 1234567890123,
                             .took_ns = 77,
                             .thread = 5,
                             .path = "a b/\xff\"\\%\n",
                             .to = "\xc3\xa4/c",
                             .flags = 1,
                             .result = -EEXIST};
    struct trace_event out;
    struct error error = {0};
    char *text = NULL;
    size_t len = 0;
    FILE *to = open_memstream(&text, &len);
    check_int(trace_write(to, &in), 0);
    check_int(fclose(to), 0);
    if (trace_parse(text, len, room, &out, &error) < 0)
        test_fail("%s: %s", text, error_text(&error));
    check_int(out.op, TRACE_RENAME);
    check_uint(out.start_ns, in.start_ns);
    check_uint(out.took_ns, 77);
    check_uint(out.thread, 5);
    check_str(out.path, in.path);
    check_str(out.to, in.to);
    check_int(out.flags, 1);
    check_int(out.result, -EEXIST);
    free(text);
}

TEST(trace_parse, refuses_what_is_no_call)
{
    static const char *const bad[] = {
        "",
        "[]",
        "{",
        "{\"op\":\"format\",\"path\":\"x\",\"result\":0}",
        "{\"op\":\"stat\",\"result\":0}",
        "{\"op\":\"stat\",\"path\":\"x\"}",
        "{\"op\":\"stat\",\"path\":\"../x\",\"result\":0}",
        "{\"op\":\"stat\",\"path\":\"/etc\",\"result\":0}",
        "{\"op\":\"stat\",\"path\":\"a//b\",\"result\":0}",
        "{\"op\":\"stat\",\"path\":\"a/.\",\"result\":0}",
        "{\"op\":\"stat\",\"path\":\"%2E%2E/x\",\"result\":0}",
        "{\"op\":\"stat\",\"path\":\"x%00\",\"result\":0}",
        "{\"op\":\"stat\",\"path\":\"x%4\",\"result\":0}",
        "{\"op\":\"rename\",\"path\":\"x\",\"result\":0}",
        "{\"op\":\"rename\",\"path\":\"x\",\"to\":\"../y\",\"result\":0}",
        "{\"op\":\"read\",\"handle\":1,\"len\":99999999999,\"result\":0}",
        "{\"op\":\"read\",\"handle\":-1,\"result\":0}",
        "{\"op\":\"read\",\"handle\":99999999,\"result\":0}",
        "{\"op\":\"read\",\"result\":0}",
        "{\"op\":\"open\",\"path\":\"x\",\"result\":0}",
        "{\"op\":\"stat\",\"path\":\"x\",\"thread\":1.5,\"result\":0}",
        "{\"op\":\"stat\",\"path\":\"x\",\"result\":-99999}",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct trace_event out;
        struct error error = {0};
        if (parse(bad[i], &out, &error) != -EINVAL || !error.message[0])
            test_fail("taken: %s", bad[i]);
    }
}

TEST(trace_load, says_which_line_is_bad)
{
    struct trace trace;
    struct error error = {0};
    check_int(load("{\"op\":\"stat\",\"path\":\"\",\"result\":0}\nrubbish\n", &trace, &error),
              -EINVAL);
    check(strstr(error_text(&error), "line 3") != NULL);
    check_int(load("", &trace, &error), -EINVAL);
    check_int(trace_load("/nonexistent/trace", &trace, &error), -ENOENT);
}

TEST(trace_replay, has_the_outcomes_of_the_record)
{
    static struct trace_result result;
    replay(
        "{\"op\":\"mkdir\",\"start_ns\":1,\"took_ns\":1,\"path\":\"d\",\"mode\":493,\"result\":0}\n"
        "{\"op\":\"mkdir\",\"start_ns\":3,\"took_ns\":1,\"path\":\"d\",\"mode\":493,\"result\":-17}"
        "\n"
        "{\"op\":\"create\",\"start_ns\":5,\"took_ns\":1,\"thread\":1,\"handle\":1,\"path\":\"d/"
        "f\","
        "\"flags\":1,\"mode\":420,\"result\":0}\n"
        "{\"op\":\"write\",\"start_ns\":7,\"took_ns\":1,\"handle\":1,\"len\":1000,\"result\":1000}"
        "\n"
        "{\"op\":\"fsync\",\"start_ns\":9,\"took_ns\":1,\"thread\":1,\"handle\":1,\"result\":0}\n"
        "{\"op\":\"close\",\"start_ns\":11,\"took_ns\":1,\"handle\":1,\"result\":0}\n"
        "{\"op\":\"rename\",\"start_ns\":13,\"took_ns\":1,\"thread\":2,\"path\":\"d\",\"to\":\"e\","
        "\"result\":0}\n"
        "{\"op\":\"stat\",\"start_ns\":15,\"took_ns\":1,\"thread\":1,\"path\":\"e/"
        "f\",\"mode\":33188,"
        "\"len\":1000,\"result\":0}\n"
        "{\"op\":\"unlink\",\"start_ns\":17,\"took_ns\":1,\"thread\":2,\"path\":\"e/"
        "f\",\"result\":0}\n"
        "{\"op\":\"rmdir\",\"start_ns\":19,\"took_ns\":1,\"path\":\"e\",\"result\":0}\n",
        &result);
    check_uint(result.differing, 0);
    check_uint(result.calls, 10);
    check_uint(result.ops[TRACE_WRITE].bytes, 1000);
}

TEST(trace_replay, counts_other_outcomes)
{
    static struct trace_result result;
    replay("{\"op\":\"rmdir\",\"start_ns\":1,\"took_ns\":1,\"path\":\"absent\",\"result\":-20}\n"
           "{\"op\":\"mkdir\",\"start_ns\":3,\"took_ns\":1,\"path\":\"d\",\"mode\":493,\"result\":-"
           "28}\n"
           "{\"op\":\"stat\",\"start_ns\":5,\"took_ns\":1,\"path\":\"absent\",\"result\":-2}\n",
           &result);
    check_uint(result.differing, 2);
}

TEST(trace_replay, what_was_there_is_made_before)
{
    static struct trace_result result;
    /* A directory that is renamed first and looked into after; a file below it; a link; a file that
     * was removed and made anew. */
    replay(
        "{\"op\":\"rename\",\"start_ns\":1,\"took_ns\":1,\"path\":\"old\",\"to\":\"new\","
        "\"result\":0}\n"
        "{\"op\":\"open\",\"start_ns\":3,\"took_ns\":1,\"handle\":1,\"path\":\"new/sub/"
        "f\",\"len\":5000,"
        "\"result\":0}\n"
        "{\"op\":\"read\",\"start_ns\":5,\"took_ns\":1,\"handle\":1,\"offset\":4000,\"len\":4096,"
        "\"result\":1000}\n"
        "{\"op\":\"close\",\"start_ns\":7,\"took_ns\":1,\"handle\":1,\"result\":0}\n"
        "{\"op\":\"readlink\",\"start_ns\":9,\"took_ns\":1,\"path\":\"new/link\",\"result\":0}\n"
        "{\"op\":\"list\",\"start_ns\":11,\"took_ns\":1,\"path\":\"other\",\"result\":0}\n"
        "{\"op\":\"unlink\",\"start_ns\":13,\"took_ns\":1,\"path\":\"other/x\",\"result\":0}\n"
        "{\"op\":\"create\",\"start_ns\":15,\"took_ns\":1,\"handle\":2,\"path\":\"other/"
        "x\",\"flags\":1,"
        "\"result\":0}\n"
        "{\"op\":\"link\",\"start_ns\":17,\"took_ns\":1,\"path\":\"new/sub/f\",\"to\":\"hard\","
        "\"result\":0}\n"
        "{\"op\":\"truncate\",\"start_ns\":19,\"took_ns\":1,\"path\":\"hard\",\"len\":10,"
        "\"result\":0}\n",
        &result);
    check_uint(result.differing, 0);
    check_uint(result.ops[TRACE_READ].bytes, 1000);
}

TEST(trace_replay, many_threads_keep_the_order)
{
    /* One file handed from thread to thread: any other order has other outcomes. */
    static struct trace_result result;
    char *lines = NULL;
    size_t len = 0;
    FILE *to = open_memstream(&lines, &len);
    char names[2][32] = {"f0"};
    unsigned t = 1;
    fprintf(to, "{\"op\":\"mkdir\",\"start_ns\":0,\"took_ns\":1,\"path\":\"f0\",\"result\":0}\n");
    for (unsigned i = 1; i <= 400; i++, t += 2) {
        snprintf(names[i % 2], sizeof(names[0]), "f%u", i);
        fprintf(to,
                "{\"op\":\"rename\",\"start_ns\":%u,\"took_ns\":1,\"thread\":%u,\"path\":\"%s\","
                "\"to\":\"%s\",\"result\":0}\n",
                t, i % 8, names[(i + 1) % 2], names[i % 2]);
    }
    check_int(fclose(to), 0);
    replay(lines, &result);
    check_uint(result.differing, 0);
    free(lines);
}

TEST(trace_replay, stop_ends_it)
{
    static struct trace_result result;
    struct trace trace;
    struct error error = {0};
    atomic_bool stop = true;
    char path[4096];
    test_dir_make(path);
    struct trace_replay_options options = {.path = path, .stop = &stop};
    check_int(load("{\"op\":\"stat\",\"path\":\"\",\"result\":0}\n", &trace, &error), 0);
    check_int(trace_replay(&trace, &options, &result, &error), -ECANCELED);
    trace_done(&trace);
    check_int(rmdir(path), 0);
}
