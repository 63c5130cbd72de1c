#include "base/metrics.h"

#include <pthread.h>

#include "test.h"

static char *text_of(struct metrics *m)
{
    struct buf b;
    buf_init(&b, 0);
    metrics_print(m, &b);
    buf_put_u8(&b, 0);
    check_int(buf_error(&b), 0);
    size_t len;
    return (char *)buf_take(&b, &len);
}

static int64_t read_int(void *arg)
{
    return *(int *)arg;
}

TEST(metrics_print, sorts_and_groups_by_name)
{
    struct metrics *m;
    check_int(metrics_new(&m), 0);
    int asked = -5;
    metric_add(metrics_counter(m, "sluice_z_total", "op=\"put\"", "Requests."), 2);
    metric_set(metrics_gauge(m, "sluice_open_files", "", "Open files."), 7);
    metric_add(metrics_counter(m, "sluice_z_total", "op=\"get\"", "Requests."), 3);
    metrics_callback(m, "sluice_asked", "", "A \\ and a\nline.", read_int, &asked);
    char *text = text_of(m);
    check_str(text, "# HELP sluice_asked A \\\\ and a\\nline.\n"
                    "# TYPE sluice_asked gauge\n"
                    "sluice_asked -5\n"
                    "# HELP sluice_open_files Open files.\n"
                    "# TYPE sluice_open_files gauge\n"
                    "sluice_open_files 7\n"
                    "# HELP sluice_z_total Requests.\n"
                    "# TYPE sluice_z_total counter\n"
                    "sluice_z_total{op=\"get\"} 3\n"
                    "sluice_z_total{op=\"put\"} 2\n");
    free(text);
    check_int(metrics_sum(m, "sluice_z_total"), 5);
    check_int(metrics_sum(m, "sluice_asked"), -5);
    check_int(metrics_sum(m, "sluice_nothing"), 0);
    metrics_free(m);
}

TEST(metrics_counter, same_name_and_labels_give_the_same_metric)
{
    struct metrics *m;
    check_int(metrics_new(&m), 0);
    struct metric *first = metrics_counter(m, "a_total", "x=\"1\"", "h");
    check(first != NULL);
    check(metrics_counter(m, "a_total", "x=\"2\"", "h") != first);
    for (int i = 0; i < 300; i++) { /* the table grows, metrics stay where they are */
        char name[32];
        snprintf(name, sizeof(name), "m%d_total", i * 7919 % 1000);
        check(metrics_counter(m, name, "", "h") != NULL);
    }
    check(metrics_counter(m, "a_total", "x=\"1\"", "h") == first);
    metrics_free(m);
}

TEST(metric_move, gauges_go_up_and_down)
{
    struct metrics *m;
    check_int(metrics_new(&m), 0);
    struct metric *g = metrics_gauge(m, "g", "", "h");
    metric_move(g, 5);
    metric_move(g, -8);
    check_int(metric_value(g), -3);
    metric_set(g, 4);
    check_int(metric_value(g), 4);
    metrics_free(m);
}

TEST(metric_observe_ns, counts_in_buckets_of_a_factor_two)
{
    static const struct {
        uint64_t ns;
        const char *le; /* the first bucket that counts it */
        const char *below;
    } cases[] = {
        {0, "0.000001", NULL},
        {1000, "0.000001", NULL},
        {1001, "0.000002", "0.000001"},
        {2000, "0.000002", "0.000001"},
        {2001, "0.000004", "0.000002"},
        {1000000, "0.001024", "0.000512"},
        {67108864000ull, "67.108864", "33.554432"},
        {67108864001ull, "+Inf", "67.108864"},
        {10000000000000ull, "+Inf", "67.108864"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct metrics *m;
        char line[64];
        check_int(metrics_new(&m), 0);
        metric_observe_ns(metrics_histogram(m, "h", "", "Time."), cases[i].ns);
        char *text = text_of(m);
        snprintf(line, sizeof(line), "h_bucket{le=\"%s\"} 1\n", cases[i].le);
        check(strstr(text, line) != NULL);
        if (cases[i].below) {
            snprintf(line, sizeof(line), "h_bucket{le=\"%s\"} 0\n", cases[i].below);
            check(strstr(text, line) != NULL);
        }
        check(strstr(text, "h_bucket{le=\"+Inf\"} 1\n") != NULL);
        free(text);
        metrics_free(m);
    }
}

TEST(metric_observe_ns, prints_sum_and_count_with_labels)
{
    struct metrics *m;
    check_int(metrics_new(&m), 0);
    struct metric *h = metrics_histogram(m, "h", "op=\"get\"", "Time.");
    metric_observe_ns(h, 1500000000);
    metric_observe_ns(h, 5);
    check_int(metric_value(h), 2);
    char *text = text_of(m);
    check(strstr(text, "# TYPE h histogram\n") != NULL);
    check(strstr(text, "h_bucket{op=\"get\",le=\"1.048576\"} 1\n") != NULL);
    check(strstr(text, "h_bucket{op=\"get\",le=\"2.097152\"} 2\n") != NULL);
    check(strstr(text, "h_sum{op=\"get\"} 1.500000005\n") != NULL);
    check(strstr(text, "h_count{op=\"get\"} 2\n") != NULL);
    free(text);
    metrics_free(m);
}

TEST(metrics, everything_accepts_null)
{
    struct buf b;
    buf_init(&b, 0);
    check(metrics_counter(NULL, "a", "", "h") == NULL);
    check(metrics_gauge(NULL, "a", "", "h") == NULL);
    check(metrics_histogram(NULL, "a", "", "h") == NULL);
    metrics_callback(NULL, "a", "", "h", read_int, NULL);
    metric_add(NULL, 1);
    metric_set(NULL, 1);
    metric_move(NULL, 1);
    metric_observe_ns(NULL, 1);
    check_int(metric_value(NULL), 0);
    metrics_print(NULL, &b);
    check_uint(b.len, 0);
    check_int(metrics_sum(NULL, "a"), 0);
    metrics_free(NULL);
}

enum { THREADS = 4, ROUNDS = 5000 };

static void *update(void *arg)
{
    struct metrics *m = arg;
    struct metric *c = metrics_counter(m, "c_total", "", "h");
    struct metric *h = metrics_histogram(m, "h", "", "h");
    for (unsigned i = 0; i < ROUNDS; i++) {
        metric_add(c, 1);
        metric_observe_ns(h, i);
    }
    return NULL;
}

TEST(metrics, many_threads_lose_no_update)
{
    struct metrics *m;
    check_int(metrics_new(&m), 0);
    pthread_t thread[THREADS];
    for (int i = 0; i < THREADS; i++)
        check_int(pthread_create(&thread[i], NULL, update, m), 0);
    for (int i = 0; i < 20; i++)
        free(text_of(m));
    for (int i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    check_int(metrics_sum(m, "c_total"), THREADS * ROUNDS);
    check_int(metrics_sum(m, "h"), THREADS * ROUNDS);
    metrics_free(m);
}
