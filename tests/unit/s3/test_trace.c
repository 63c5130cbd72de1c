#include <errno.h>

#include "base/log.h"
#include "conformance.h"
#include "conformance_lib.h"
#include "s3/backend.h"
#include "test.h"

static struct loop *loop;
static struct store *store, *fault;
static struct metrics *metrics;
static struct run r;

static void open_trace(void)
{
    struct store *memory;
    check_int(loop_new(&loop, "test"), 0);
    check_int(metrics_new(&metrics), 0);
    check_int(store_memory_new(loop, &memory), 0);
    memory->caps.part_min = 8;
    check_int(store_fault_new(memory, &fault), 0);
    check_int(store_trace_new(fault, metrics, &store), 0);
    r = (struct run){.store = store, .caps = store_caps(store), .prefix = ""};
}

static void close_trace(void)
{
    run_end(&r);
    store_free(store);
    metrics_free(metrics);
    loop_free(loop);
}

static int64_t count(const char *name, const char *labels)
{
    return metric_value(metrics_counter(metrics, name, labels, ""));
}

TEST(trace_store, conforms, .init = open_trace, .fini = close_trace)
{
    check_uint(conformance_run(store, "c/", NULL, false, stdout).failed, 0);
    check_int(metrics_sum(metrics, "sluice_store_in_flight"), 0);
}

TEST(trace_store, conforms_without_metrics)
{
    struct store *memory;
    check_int(loop_new(&loop, "test"), 0);
    check_int(store_memory_new(loop, &memory), 0);
    check_int(store_trace_new(memory, NULL, &store), 0);
    check_uint(conformance_run(store, "c/", "put", false, stdout).failed, 0);
    store_free(store);
    loop_free(loop);
}

TEST(trace_store, counts_requests_bytes_and_errors, .init = open_trace, .fini = close_trace)
{
    const struct store_fault_rule rule = {.kind = STORE_PUT, .key_part = "bad", .result = -EIO};
    store_fault_set(fault, &rule, 1);
    check_int(run_put(&r, "k", "12345"), 0);
    check_int(run_put(&r, "bad", "123"), -EIO);
    check_int(run_get(&r, "k", 1, 3), 0);
    check_int(run_head(&r, "none"), -ENOENT);
    check_int(count("sluice_store_requests_total", "kind=\"put\""), 2);
    check_int(count("sluice_store_requests_total", "kind=\"get\""), 1);
    check_int(count("sluice_store_errors_total", "kind=\"put\""), 1);
    check_int(count("sluice_store_errors_total", "kind=\"head\""), 0); /* an answer */
    check_int(count("sluice_store_read_bytes_total", ""), 3);
    check_int(count("sluice_store_written_bytes_total", ""), 5);
    check_int(metric_value(metrics_histogram(metrics, "sluice_store_seconds", "kind=\"put\"", "")),
              2);
}

static char *read_log(const char *path)
{
    static char text[65536];
    FILE *file = fopen(path, "r");
    check(file != NULL);
    text[fread(text, 1, sizeof(text) - 1, file)] = 0;
    fclose(file);
    return text;
}

TEST(trace_store, logs_failures_once_and_seldom, .init = open_trace, .fini = close_trace)
{
    char dir[4096], path[4200];
    test_dir_make(dir);
    snprintf(path, sizeof(path), "%s/log", dir);
    check_int(log_init(LOG_WARN, path), 0);
    const struct store_fault_rule rule = {.kind = STORE_PUT, .result = -EIO};
    store_fault_set(fault, &rule, 1);
    check_int(run_put(&r, "the key", "x"), -EIO);
    check_int(run_head(&r, "none"), -ENOENT);
    char *text = read_log(path);
    check(strstr(text, "store request failed") != NULL);
    check(strstr(text, "kind=put key=\"the key\" result=-5") != NULL);
    check(strchr(text, '\n') == strrchr(text, '\n')); /* one line */
    for (int i = 0; i < 1000; i++)
        check_int(run_put(&r, "k", "x"), -EIO);
    unsigned lines = 0;
    for (text = read_log(path); *text; text++)
        lines += *text == '\n';
    check(lines < 200);
    check_int(log_init(LOG_INFO, NULL), 0);
    test_dir_remove(dir);
}
