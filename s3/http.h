/*
 * HTTP requests in flight on a loop: libcurl's multi interface driven by libuv, a pool of
 * kept-alive connections, and a queue in front of it that is ordered by priority. Knows nothing of
 * S3.
 *
 * Everything runs on the loop thread, except http_new and http_free. A request is embedded in the
 * caller's own; `done` comes exactly once, never from inside http_submit. A request is sent once:
 * where libcurl would send it again by itself (a kept-alive connection that the server closed), it
 * ends with `lost` set instead, because only the caller knows whether it may be repeated.
 */
#ifndef SLUICE_S3_HTTP_H
#define SLUICE_S3_HTTP_H

#include <curl/curl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/error.h"
#include "base/loop.h"
#include "base/metrics.h"

struct http;
struct http_slot;

#define HTTP_PRIORITIES 3

struct http_options {
    unsigned connections;        /* requests at once; the rest waits */
    uint32_t connect_timeout_ms; /* name, TCP and TLS together */
    uint32_t stall_timeout_ms;   /* no byte moved for so long */
    const char *ca_file;         /* PEM; NULL: the system's */
    const char *client;          /* behind our name in User-Agent; NULL: nothing. Copied */
    bool no_verify_tls;
};

/* How a request ended, apart from the reply. */
enum http_end {
    HTTP_OK,        /* a whole reply came; see status */
    HTTP_CANCELLED, /* http_cancel */
    HTTP_LOST, /* sent on a kept-alive connection that turned out to be closed; no byte of a reply
                */
    HTTP_TIMED_OUT, /* stalled */
    HTTP_REFUSED,   /* on_header or on_body said no, or `start` failed */
    HTTP_FATAL,     /* another try would end alike: certificate not trusted, bad URL */
    HTTP_FAILED,    /* everything else: connect, reset, short body */
};

struct http_request {
    unsigned priority; /* 0 first */
    /* A connection is free: fills the fields below. 0, or -errno to end it (HTTP_REFUSED). */
    int (*start)(struct http_request *request);
    const char *method;         /* GET, HEAD, PUT, POST, DELETE */
    const char *url;            /* until done */
    struct curl_slist *headers; /* becomes http's */
    const struct iovec *body;   /* until done; may be read again */
    unsigned body_count;
    uint64_t body_len;
    bool slow_reply; /* the server may work for long before the first byte of the reply: not taken
                        for a stall */
    /* A header line of the reply: name in the server's case, value trimmed, both NUL-terminated.
     * May be NULL. */
    void (*on_header)(struct http_request *request, const char *name, const char *value);
    /* Bytes of the reply's body. 0 or -errno to end it. */
    int (*on_body)(struct http_request *request, const void *data, size_t len);
    /* Bytes have moved, either way. May be NULL. */
    void (*on_moved)(struct http_request *request);
    void (*done)(struct http_request *request);

    /* What came of it. */
    enum http_end end;
    int status;        /* 0: no status line came */
    char message[256]; /* for end > HTTP_CANCELLED: what happened, one line */
    uint64_t queue_ns, first_byte_ns, total_ns; /* waiting; then from sending on */

    /* http's own. */
    struct http_request *next, *prev;
    struct http_slot *slot;
    struct loop_task task;
    struct http *http;
    bool queued, starting;
    uint64_t submit_ns;
};

/* 0 or -errno with a sentence (a CA file that cannot be read, no memory). Not on the loop thread.
 */
int http_new(struct http **out, struct loop *loop, const struct http_options *options,
             struct metrics *metrics, struct error *error);
/* Nothing may be in flight. NULL is allowed. Not on the loop thread. */
void http_free(struct http *http);
void http_submit(struct http *http, struct http_request *request);
/* Ends a request early: done comes from inside, with HTTP_CANCELLED. Not from start, on_header or
 * on_body. */
void http_cancel(struct http_request *request);

#endif
