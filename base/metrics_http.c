#include "base/metrics_http.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"

#define CONNECTIONS_MAX 32
#define TIMEOUT_S 10
#define TEXT_MAX (16u << 20)

struct metrics_http {
    struct metrics_http_config config;
    struct MHD_Daemon *daemon;
};

static int parse_port(const char *text, uint16_t *out)
{
    char *end;
    errno = 0;
    unsigned long port = strtoul(text, &end, 10);
    if (!isdigit((unsigned char)text[0]) || *end || errno || port > UINT16_MAX)
        return -EINVAL;
    *out = (uint16_t)port;
    return 0;
}

int metrics_http_parse(const char *address, struct sockaddr_storage *out, uint32_t *len,
                       struct error *error)
{
    const char *colon = strrchr(address, ':');
    char host[64];
    uint16_t port;
    size_t n = colon ? (size_t)(colon - address) : 0;
    memset(out, 0, sizeof(*out));
    if (!colon || n >= sizeof(host) || parse_port(colon + 1, &port) < 0)
        return error_set(error, -EINVAL, "'%s' is no address like 127.0.0.1:9180", address);
    memcpy(host, address, n);
    host[n] = '\0';
    struct sockaddr_in *in = (struct sockaddr_in *)out;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)out;
    if (inet_pton(AF_INET, host, &in->sin_addr) == 1) {
        in->sin_family = AF_INET;
        in->sin_port = htons(port);
        *len = sizeof(*in);
        return 0;
    }
    if (n > 2 && host[0] == '[' && host[n - 1] == ']') {
        host[n - 1] = '\0';
        if (inet_pton(AF_INET6, host + 1, &in6->sin6_addr) == 1) {
            in6->sin6_family = AF_INET6;
            in6->sin6_port = htons(port);
            *len = sizeof(*in6);
            return 0;
        }
    }
    return error_set(error, -EINVAL, "'%s' does not begin with a numeric address", address);
}

/* Takes the text. */
static enum MHD_Result reply(struct MHD_Connection *connection, unsigned status, const char *type,
                             struct buf *text)
{
    if (buf_error(text) < 0) {
        buf_reset(text);
        status = MHD_HTTP_INTERNAL_SERVER_ERROR;
    }
    struct MHD_Response *response =
        MHD_create_response_from_buffer(text->len, text->data, MHD_RESPMEM_MUST_COPY);
    buf_done(text);
    if (!response)
        return MHD_NO;
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    enum MHD_Result result = MHD_queue_response(connection, status, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result reply_ready(struct metrics_http *server, struct MHD_Connection *connection,
                                   struct buf *text)
{
    char why[200] = "not ready";
    bool ready =
        !server->config.ready || server->config.ready(server->config.arg, why, sizeof(why));
    buf_printf(text, "%s\n", ready ? "ready" : why);
    return reply(connection, ready ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE, "text/plain",
                 text);
}

static enum MHD_Result answer(void *arg, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *upload,
                              size_t *upload_len, void **state)
{
    struct metrics_http *server = arg;
    struct buf text;
    (void)version;
    (void)upload;
    /* The first call comes with the headers, the next ones with a body: there is no use for one. */
    if (!*state) {
        *state = server;
        return MHD_YES;
    }
    if (*upload_len) {
        *upload_len = 0;
        return MHD_YES;
    }
    buf_init(&text, TEXT_MAX);
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0) {
        buf_printf(&text, "GET only\n");
        return reply(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "text/plain", &text);
    }
    if (strcmp(url, "/metrics") == 0) {
        if (server->config.print)
            server->config.print(server->config.arg, &text);
        else
            metrics_print(server->config.metrics, &text);
        return reply(connection, MHD_HTTP_OK, "text/plain; version=0.0.4; charset=utf-8", &text);
    }
    if (strcmp(url, "/healthz") == 0) {
        buf_printf(&text, "ok\n");
        return reply(connection, MHD_HTTP_OK, "text/plain", &text);
    }
    if (strcmp(url, "/readyz") == 0)
        return reply_ready(server, connection, &text);
    buf_printf(&text, "/metrics, /healthz or /readyz\n");
    return reply(connection, MHD_HTTP_NOT_FOUND, "text/plain", &text);
}

int metrics_http_start(const struct metrics_http_config *config, struct metrics_http **out,
                       struct error *error)
{
    struct sockaddr_storage address;
    uint32_t len;
    int rc = metrics_http_parse(config->address, &address, &len, error);
    if (rc < 0)
        return rc;
    struct metrics_http *server = calloc(1, sizeof(*server));
    if (!server)
        return error_set(error, -ENOMEM, "out of memory");
    server->config = *config;
    unsigned flags = MHD_USE_AUTO | MHD_USE_INTERNAL_POLLING_THREAD;
    if (address.ss_family == AF_INET6)
        flags |= MHD_USE_IPv6;
    errno = 0;
    server->daemon = MHD_start_daemon(flags, 0, NULL, NULL, answer, server, MHD_OPTION_SOCK_ADDR,
                                      (struct sockaddr *)&address, MHD_OPTION_CONNECTION_LIMIT,
                                      (unsigned)CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT,
                                      (unsigned)TIMEOUT_S, MHD_OPTION_END);
    if (!server->daemon) {
        int code = errno ? -errno : -EIO;
        free(server);
        return error_set(error, code, "cannot serve metrics at %s: %s", config->address,
                         strerror(-code));
    }
    *out = server;
    return 0;
}

uint16_t metrics_http_port(const struct metrics_http *server)
{
    const union MHD_DaemonInfo *info =
        MHD_get_daemon_info(server->daemon, MHD_DAEMON_INFO_BIND_PORT);
    return info ? info->port : 0;
}

void metrics_http_stop(struct metrics_http *server)
{
    if (!server)
        return;
    MHD_stop_daemon(server->daemon);
    free(server);
}
