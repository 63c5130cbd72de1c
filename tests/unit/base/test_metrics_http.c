#include "base/metrics_http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "test.h"

TEST(metrics_http, takes_numeric_addresses_only)
{
    static const struct {
        const char *text;
        int rc, family;
    } cases[] = {
        {"127.0.0.1:9180", 0, AF_INET},
        {"0.0.0.0:0", 0, AF_INET},
        {"[::1]:9180", 0, AF_INET6},
        {"", -EINVAL, 0},
        {"9180", -EINVAL, 0},
        {":9180", -EINVAL, 0},
        {"127.0.0.1", -EINVAL, 0},
        {"127.0.0.1:", -EINVAL, 0},
        {"127.0.0.1:65536", -EINVAL, 0},
        {"127.0.0.1:80x", -EINVAL, 0},
        {"localhost:9180", -EINVAL, 0},
        {"::1:9180", -EINVAL, 0},
        {"127.0.0.1:-1", -EINVAL, 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct sockaddr_storage address;
        uint32_t len;
        struct error error = {0};
        check_int(metrics_http_parse(cases[i].text, &address, &len, &error), cases[i].rc);
        if (cases[i].rc == 0)
            check_int(address.ss_family, cases[i].family);
        else
            check(error.message[0]);
    }
}

static bool is_ready(void *arg, char *why, size_t len)
{
    snprintf(why, len, "still waking up");
    return atomic_load((atomic_bool *)arg);
}

/* The whole answer to one request. */
static void ask(uint16_t port, const char *request, char *out, size_t cap)
{
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    cleanup(close_fd) int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    check_int(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    check_int(write(fd, request, strlen(request)), (int)strlen(request));
    size_t len = 0;
    ssize_t n;
    while (len + 1 < cap && (n = read(fd, out + len, cap - 1 - len)) > 0)
        len += (size_t)n;
    out[len] = '\0';
}

#define ASK(method, path) method " " path " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

TEST(metrics_http, serves_metrics_and_probes)
{
    struct metrics *metrics;
    struct metrics_http *server = NULL;
    struct error error = {0};
    atomic_bool ready = false;
    char text[65536];
    check_int(metrics_new(&metrics), 0);
    metric_add(metrics_counter(metrics, "sluice_test_total", "", "For a test."), 7);
    struct metrics_http_config config = {
        .address = "127.0.0.1:0", .metrics = metrics, .ready = is_ready, .arg = &ready};
    check_int(metrics_http_start(&config, &server, &error), 0);
    uint16_t port = metrics_http_port(server);
    check(port > 0);
    ask(port, ASK("GET", "/metrics"), text, sizeof(text));
    check(strncmp(text, "HTTP/1.1 200 ", 13) == 0);
    check(strstr(text, "version=0.0.4") != NULL);
    check(strstr(text, "# TYPE sluice_test_total counter\nsluice_test_total 7\n") != NULL);
    ask(port, ASK("HEAD", "/metrics"), text, sizeof(text));
    check(strncmp(text, "HTTP/1.1 200 ", 13) == 0);
    check(strstr(text, "# TYPE") == NULL);
    ask(port, ASK("GET", "/healthz"), text, sizeof(text));
    check(strncmp(text, "HTTP/1.1 200 ", 13) == 0);
    ask(port, ASK("GET", "/readyz"), text, sizeof(text));
    check(strncmp(text, "HTTP/1.1 503 ", 13) == 0);
    check(strstr(text, "still waking up\n") != NULL);
    ready = true;
    ask(port, ASK("GET", "/readyz"), text, sizeof(text));
    check(strncmp(text, "HTTP/1.1 200 ", 13) == 0);
    ask(port, ASK("GET", "/etc/passwd"), text, sizeof(text));
    check(strncmp(text, "HTTP/1.1 404 ", 13) == 0);
    ask(port,
        "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc",
        text, sizeof(text));
    check(strncmp(text, "HTTP/1.1 405 ", 13) == 0);
    /* The address is taken. */
    char again[32];
    struct metrics_http *second = NULL;
    snprintf(again, sizeof(again), "127.0.0.1:%u", port);
    config.address = again;
    check(metrics_http_start(&config, &second, &error) < 0);
    check(second == NULL);
    metrics_http_stop(server);
    metrics_http_stop(NULL);
    metrics_free(metrics);
}
