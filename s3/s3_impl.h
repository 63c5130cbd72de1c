/* What the files of the S3 backend share: s3.c (its life), s3_request.c (from an op to HTTP),
 * s3_reply.c (from HTTP to a result). All on the loop thread but store_s3_new and free. */
#ifndef SLUICE_S3_IMPL_H
#define SLUICE_S3_IMPL_H

#include "base/buf.h"
#include "credentials.h"
#include "http.h"
#include "s3/backend.h"
#include "sigv4.h"

/* Where requests go. All strings owned. */
struct s3_endpoint {
    char *origin; /* "https://host[:port]", bucket's host in virtual-host style */
    char *host;   /* value of the Host header */
    char *path;   /* what comes before "/key": "/bucket" or "" (with the endpoint's own path) */
    bool https;
};

struct s3_store {
    struct store store;
    /* immutable */
    struct http *http;
    struct s3_endpoint endpoint;
    char *bucket, *region;
    char *storage_class, *sse, *sse_key; /* NULL: none */
    char sse_key_md5[32];                /* base64, for SSE-C */
    bool request_payer;
    struct credentials *credentials; /* NULL: anonymous */
    /* owned by the loop thread */
    struct sigv4_key key;
    int64_t skew_s;    /* server's clock minus ours, once it refused ours */
    bool sign_payload; /* the server refuses unsigned bodies */
    bool no_crc_echo;  /* the server does not confirm CRC32C: MD5 is sent in its place */
    bool takes_checksums, no_checksums; /* x-amz-checksum-*: not refused; refused, so not sent */
    bool no_delete_condition;           /* it refuses If-Match on DELETE */
};

/* What the reply's headers say. */
struct s3_headers {
    char etag[STORE_ETAG_MAX];
    char storage_class[32];
    char region[64], request_id[72];
    char crc32c[32]; /* base64; "…-N" for one of parts */
    bool crc_composite;
    bool has_length, has_range, is_html;
    uint64_t length, range_first, total;
    uint64_t mtime_ns;
    int64_t date_s;
    uint32_t retry_after_ms;
};

struct s3_request {
    struct http_request http;
    struct s3_store *s3;
    struct store_op *op;
    struct buf url;
    struct buf body; /* a body of our own (XML) */
    struct iovec body_iov;
    char crc32c[12];     /* of the body that is sent; base64 */
    char upload_md5[32]; /* Content-MD5 that was sent; base64 */
    bool has_checksum_header, has_delete_condition;
    int64_t skew_s; /* s3->skew_s when it was signed */
    /* the reply */
    struct s3_headers headers;
    struct buf reply; /* its body, unless that goes to op->buf */
    uint32_t crc;     /* of a body that goes to op->buf */
    int add_rc;       /* a header could not be kept: no memory */
};

/* Fills request->http before it is sent. 0 or -errno with op->error set. */
int s3_request_build(struct s3_request *request);
/* Range GETs put their bytes to op->buf. */
bool s3_request_fills_buffer(const struct store_op *op);

/* Can a key stand in a DeleteObjects request? XML has no characters below U+0020 but three. */
bool s3_request_is_xml(const char *key);

void s3_reply_header(struct http_request *http, const char *name, const char *value);
int s3_reply_body(struct http_request *http, const void *data, size_t len);
/* The result of a request that ended; fills the op's outputs, error and retry. */
int s3_reply_result(struct s3_request *request);

/* Lists the keys of a DELETE_MANY that cannot be sent as failed. */
int s3_reply_add_unsent(struct store_op *op);

/* s3_error.c: result and kind of retry for an S3 error code and HTTP status. */
struct s3_verdict {
    int result;
    enum store_retry retry;
};
struct s3_verdict s3_error_verdict(const char *code, int http_status);
/* For the keys of a DeleteObjects reply. */
int s3_error_errno(const char *code);

#endif
