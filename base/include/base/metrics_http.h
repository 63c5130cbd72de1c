/*
 * A small HTTP server for scrapers and probes, over libmicrohttpd, on one thread of its own:
 *
 *     GET /metrics   all metrics of a registry, as text
 *     GET /healthz   200 while the process lives
 *     GET /readyz    200, or 503 with one line that says why not
 *
 * It has no authentication and no TLS: give it an address that only those who may read it can
 * reach.
 */
#ifndef SLUICE_BASE_METRICS_HTTP_H
#define SLUICE_BASE_METRICS_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/metrics.h"

struct metrics_http;

struct metrics_http_config {
    const char *address;     /* "127.0.0.1:9180", "[::1]:9180"; port 0: any */
    struct metrics *metrics; /* NULL with print */
    /* In place of a registry: on the server's thread, with the text of /metrics. NULL: none. */
    void (*print)(void *arg, struct buf *out);
    /* On the server's thread; must not block for long. false: fills `why`. NULL: always ready. */
    bool (*ready)(void *arg, char *why, size_t len);
    void *arg;
};

/* "HOST:PORT" with a numeric host. Out: a struct sockaddr of either family and its length. -EINVAL
 * with a sentence. */
struct sockaddr_storage;
int metrics_http_parse(const char *address, struct sockaddr_storage *out, uint32_t *len,
                       struct error *error);
/* The registry is borrowed until metrics_http_stop. */
int metrics_http_start(const struct metrics_http_config *config, struct metrics_http **out,
                       struct error *error);
uint16_t metrics_http_port(const struct metrics_http *server);
/* Ends what is being answered. NULL is allowed. */
void metrics_http_stop(struct metrics_http *server);

#endif
