/* Connections that are kept between requests, with a server that the test itself plays. */
#include "http.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "test.h"

#define WAIT_S 120
#define LOOKS 200

static struct loop *loop;
static struct metrics *metrics;
static struct http *http;
static int listener;
static char url[64];

static uv_prepare_t rounds_handle;
static _Atomic unsigned rounds; /* of the loop */
static uv_sem_t rounds_closed;

struct call {
    struct http_request request;
    uv_sem_t ended;
};

static void on_round(uv_prepare_t *handle)
{
    atomic_fetch_add(&rounds, 1);
}

static void on_rounds_closed(uv_handle_t *handle)
{
    uv_sem_post(&rounds_closed);
}

static void count_rounds(void *arg)
{
    uv_prepare_init(loop_uv(loop), &rounds_handle);
    uv_prepare_start(&rounds_handle, on_round);
}

static void count_no_more(void *arg)
{
    uv_close((uv_handle_t *)&rounds_handle, on_rounds_closed);
}

static void nothing(void *arg)
{
}

static void bear_no_silence(int fd)
{
    struct timeval limit = {.tv_sec = WAIT_S};
    check_int(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)), 0);
}

static void open_all(void)
{
    struct error error;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    check(listener >= 0);
    bear_no_silence(listener);
    check_int(bind(listener, (struct sockaddr *)&address, len), 0);
    check_int(listen(listener, 4), 0);
    check_int(getsockname(listener, (struct sockaddr *)&address, &len), 0);
    snprintf(url, sizeof(url), "http://127.0.0.1:%d/", ntohs(address.sin_port));
    check_int(loop_new(&loop, "test"), 0);
    check_int(metrics_new(&metrics), 0);
    struct http_options options = {
        .connections = 4, .connect_timeout_ms = WAIT_S * 1000, .stall_timeout_ms = WAIT_S * 1000};
    check_int(http_new(&http, loop, &options, metrics, &error), 0);
    uv_sem_init(&rounds_closed, 0);
    loop_call(loop, count_rounds, NULL);
}

static void close_all(void)
{
    http_free(http);
    loop_call(loop, count_no_more, NULL);
    uv_sem_wait(&rounds_closed);
    uv_sem_destroy(&rounds_closed);
    loop_free(loop);
    metrics_free(metrics);
    close(listener);
}

static int start(struct http_request *request)
{
    request->method = "GET";
    request->url = url;
    return 0;
}

static void ended(struct http_request *request)
{
    uv_sem_post(&container_of(request, struct call, request)->ended);
}

static void submit(void *arg)
{
    http_submit(http, arg);
}

static void hear(int connection)
{
    char text[4096];
    size_t len = 0;
    while (len < 4 || memcmp(text + len - 4, "\r\n\r\n", 4) != 0) {
        ssize_t n = recv(connection, text + len, sizeof(text) - len, 0);
        check(n > 0);
        len += (size_t)n;
    }
}

/* What one request on this connection needs from a server. */
static void serve(int connection)
{
    static const char reply[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    hear(connection);
    check_int(send(connection, reply, sizeof(reply) - 1, 0), sizeof(reply) - 1);
}

/* A request that is answered on `connection`; -1: on a new one. The connection. */
static int ask(int connection)
{
    struct call call = {.request = {.start = start, .done = ended}};
    uv_sem_init(&call.ended, 0);
    loop_call(loop, submit, &call.request);
    if (connection < 0) {
        connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        check(connection >= 0);
        bear_no_silence(connection);
    }
    serve(connection);
    uv_sem_wait(&call.ended);
    uv_sem_destroy(&call.ended);
    check_str(call.request.message, "");
    check_int(call.request.end, HTTP_OK);
    check_int(call.request.status, 200);
    return connection;
}

/* Rounds of the loop while it is asked for nothing, LOOKS times. Each look is one or two. */
static unsigned idle_rounds(void)
{
    unsigned before = atomic_load(&rounds);
    for (unsigned i = 0; i < LOOKS; i++) {
        usleep(100);
        loop_call(loop, nothing, NULL);
    }
    return atomic_load(&rounds) - before;
}

/* The server says that it sends no more; when it returns, the client's side knows that. */
static void say_goodbye(int connection)
{
    check_int(shutdown(connection, SHUT_WR), 0);
    for (unsigned i = 0; i < WAIT_S * 1000; i++) {
        struct tcp_info info;
        socklen_t len = sizeof(info);
        check_int(getsockopt(connection, IPPROTO_TCP, TCP_INFO, &info, &len), 0);
        if (info.tcpi_state != TCP_FIN_WAIT1)
            return;
        usleep(1000);
    }
    test_fail("%s", "the client's side does not acknowledge");
}

#define HTTP_TEST(name) TEST(http, name, .init = open_all, .fini = close_all, .timeout = WAIT_S)

HTTP_TEST(a_connection_serves_request_after_request)
{
    int connection = ask(-1);
    for (unsigned i = 0; i < 20; i++)
        check_int(ask(connection), connection);
    check(idle_rounds() < 4 * LOOKS);
    close(connection);
}

HTTP_TEST(a_connection_that_the_server_closes_costs_nothing_and_is_replaced)
{
    int connection = ask(-1);
    check_int(ask(connection), connection);
    say_goodbye(connection);
    check(idle_rounds() < 4 * LOOKS);
    int next = ask(-1);
    check_int(ask(next), next);
    check(idle_rounds() < 4 * LOOKS);
    close(connection);
    close(next);
}

HTTP_TEST(connections_side_by_side)
{
    struct call first = {.request = {.start = start, .done = ended}};
    uv_sem_init(&first.ended, 0);
    loop_call(loop, submit, &first.request);
    int one = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    check(one >= 0);
    bear_no_silence(one);
    int other = ask(-1);
    serve(one);
    uv_sem_wait(&first.ended);
    uv_sem_destroy(&first.ended);
    check_int(first.request.status, 200);
    say_goodbye(one);
    check_int(ask(other), other);
    close(one);
    close(other);
}

/* A server that is at work may say so; who may be slow to reply stays free to be. */
HTTP_TEST(a_word_before_the_reply_is_none)
{
    static const char word[] = "HTTP/1.1 102 Processing\r\n\r\n",
                      reply[] = "HTTP/1.1 204 No\r\n\r\n";
    struct call call = {.request = {.start = start, .done = ended}};
    uv_sem_init(&call.ended, 0);
    loop_call(loop, submit, &call.request);
    int connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    check(connection >= 0);
    bear_no_silence(connection);
    hear(connection);
    check_int(send(connection, word, sizeof(word) - 1, 0), sizeof(word) - 1);
    usleep(100000);
    check_int(send(connection, reply, sizeof(reply) - 1, 0), sizeof(reply) - 1);
    uv_sem_wait(&call.ended);
    uv_sem_destroy(&call.ended);
    check_int(call.request.status, 204);
    check(call.request.first_byte_ns >= 100 * NS_PER_MS);
    close(connection);
}

static int start_elsewhere(struct http_request *request)
{
    request->method = "GET";
    request->url = "http://nosuch.invalid/";
    return 0;
}

/* libcurl's own sockets, by which a thread of its says that it has looked up a name, are closed
 * without a word: the numbers are the next connections'. */
HTTP_TEST(a_name_that_is_not_known_leaves_nothing_behind)
{
    for (unsigned i = 0; i < 3; i++) {
        struct call call = {.request = {.start = start_elsewhere, .done = ended}};
        uv_sem_init(&call.ended, 0);
        loop_call(loop, submit, &call.request);
        uv_sem_wait(&call.ended);
        uv_sem_destroy(&call.ended);
        check_int(call.request.end, HTTP_FAILED);
        int connection = ask(-1);
        check_int(ask(connection), connection);
        say_goodbye(connection);
        close(connection);
    }
}
