#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "s3_impl.h"
#include "xml.h"

/* An error's document is short; what is longer is cut, and then it is no XML. */
#define ERROR_REPLY_MAX (256u << 10)
#define RETRY_AFTER_MAX_S 300u
/* Signatures are good for a quarter of an hour; a smaller difference is not the reason. */
#define SKEW_MIN_S 240

/* ---- headers ---- */

static void copy_unquoted(char *out, size_t cap, const char *value)
{
    size_t len = strlen(value);
    if (len >= 2 && value[0] == '"' && value[len - 1] == '"') {
        value++;
        len -= 2;
    }
    snprintf(out, cap, "%.*s", (int)MIN(len, cap - 1), value);
}

/* "bytes 0-9/100" */
static void parse_content_range(struct s3_headers *h, const char *value)
{
    char *end;
    if (strncmp(value, "bytes ", 6) != 0)
        return;
    h->range_first = strtoull(value + 6, &end, 10);
    if (*end != '-')
        return;
    strtoull(end + 1, &end, 10); /* its end follows from the body */
    if (*end != '/')
        return;
    value = end + 1;
    h->total = strtoull(value, &end, 10);
    h->has_range = end != value && *end == '\0';
}

static void parse_retry_after(struct s3_headers *h, const char *value)
{
    char *end;
    unsigned long long seconds = strtoull(value, &end, 10);
    if (end == value) {
        time_t when = curl_getdate(value, NULL);
        time_t now = (time_t)(clock_wall_ns() / NS_PER_S);
        seconds = when > now ? (unsigned long long)(when - now) : 0;
    }
    h->retry_after_ms = 1000 * (uint32_t)MIN(seconds, RETRY_AFTER_MAX_S);
}

static void amazon_header(struct s3_request *request, const char *name, const char *value)
{
    struct s3_headers *h = &request->headers;
    if (strncasecmp(name, "meta-", 5) == 0) {
        const struct store_op *op = request->op;
        if ((op->kind != STORE_HEAD && op->kind != STORE_GET) || request->http.status >= 300)
            return;
        char lower[256];
        size_t len = strlen(name + 5);
        if (len == 0 || len >= sizeof(lower))
            return;
        for (size_t i = 0; i <= len; i++) {
            char c = name[5 + i];
            lower[i] = (char)(c >= 'A' && c <= 'Z' ? c | 0x20 : c);
        }
        if (store_op_add_meta(request->op, lower, value))
            request->add_rc = -ENOMEM;
    } else if (strcasecmp(name, "request-id") == 0) {
        copy_unquoted(h->request_id, sizeof(h->request_id), value);
    } else if (strcasecmp(name, "storage-class") == 0) {
        copy_unquoted(h->storage_class, sizeof(h->storage_class), value);
    } else if (strcasecmp(name, "bucket-region") == 0) {
        copy_unquoted(h->region, sizeof(h->region), value);
    } else if (strcasecmp(name, "checksum-crc32c") == 0) {
        copy_unquoted(h->crc32c, sizeof(h->crc32c), value);
    } else if (strcasecmp(name, "checksum-type") == 0) {
        h->crc_composite = strcasecmp(value, "FULL_OBJECT") != 0;
    }
}

void s3_reply_header(struct http_request *http, const char *name, const char *value)
{
    struct s3_request *request = container_of(http, struct s3_request, http);
    struct s3_headers *h = &request->headers;
    if (strncasecmp(name, "x-amz-", 6) == 0) {
        amazon_header(request, name + 6, value);
    } else if (strcasecmp(name, "content-length") == 0) {
        h->has_length = true;
        h->length = strtoull(value, NULL, 10);
    } else if (strcasecmp(name, "content-range") == 0) {
        parse_content_range(h, value);
    } else if (strcasecmp(name, "content-type") == 0) {
        h->is_html = strncasecmp(value, "text/html", 9) == 0;
    } else if (strcasecmp(name, "etag") == 0) {
        xml_copy_etag(h->etag, value);
    } else if (strcasecmp(name, "last-modified") == 0) {
        time_t t = curl_getdate(value, NULL);
        h->mtime_ns = t > 0 ? (uint64_t)t * NS_PER_S : 0;
    } else if (strcasecmp(name, "date") == 0) {
        h->date_s = (int64_t)curl_getdate(value, NULL);
    } else if (strcasecmp(name, "retry-after") == 0) {
        parse_retry_after(h, value);
    }
}

/* ---- the body ---- */

static bool wants_crc(const struct s3_request *request)
{
    const struct s3_headers *h = &request->headers;
    return request->op->offset == 0 && h->crc32c[0] && !h->crc_composite && !strchr(h->crc32c, '-');
}

int s3_reply_body(struct http_request *http, const void *data, size_t len)
{
    struct s3_request *request = container_of(http, struct s3_request, http);
    struct store_op *op = request->op;
    bool good = http->status == 200 || http->status == 206;
    if (good && s3_request_fills_buffer(op)) {
        if (len > op->length - op->got)
            return error_set(&op->error, -EIO, "the server sent more than the %llu bytes asked for",
                             (unsigned long long)op->length);
        memcpy((char *)op->buf + op->got, data, len);
        if (wants_crc(request))
            request->crc = hash_crc32c(request->crc, data, len);
        op->got += len;
        return 0;
    }
    size_t max = good ? XML_REPLY_MAX : ERROR_REPLY_MAX;
    if (request->reply.len + len > max) {
        if (good)
            return error_set(&op->error, -EIO, "the server's reply is longer than %zu bytes", max);
        return 0;
    }
    buf_put(&request->reply, data, len);
    return buf_error(&request->reply);
}

/* ---- failures ---- */

/* Puts the request and where it went before the message. */
static int describe(struct s3_request *request, int result)
{
    struct store_op *op = request->op;
    const char *what = op->key ? op->key : op->prefix ? op->prefix : "";
    struct error *e = &op->error;
    int status = request->http.status;
    char code[sizeof(e->store_code)], id[sizeof(e->request_id)];
    memcpy(code, e->store_code, sizeof(code));
    snprintf(id, sizeof(id), "%s", request->headers.request_id);
    char text[sizeof(e->message)];
    snprintf(text, sizeof(text), "%s", e->message);
    error_set(e, result, "%s s3://%s/%.200s: %s", store_kind_name(op->kind), request->s3->bucket,
              what, text);
    e->http_status = status;
    memcpy(e->store_code, code, sizeof(code));
    memcpy(e->request_id, id, sizeof(id));
    return result;
}

static int fail(struct s3_request *request, int result, enum store_retry retry, const char *text)
{
    request->op->retry = retry;
    error_set(&request->op->error, result, "%s", text);
    return describe(request, result);
}

/* The reply is there and says something that no S3 server says. Another try may be luckier: a proxy
 * on the way may have failed. */
static int fail_reply(struct s3_request *request, const char *text)
{
    return fail(request, -EIO, STORE_RETRY_AGAIN, text);
}

static int fail_transport(struct s3_request *request)
{
    struct http_request *http = &request->http;
    struct store_op *op = request->op;
    switch (http->end) {
    case HTTP_CANCELLED:
        return fail(request, -ECANCELED, STORE_RETRY_NEVER, "cancelled");
    case HTTP_REFUSED:
        /* start or on_body left the reason in op->error. */
        if (op->error.code == 0)
            error_set(&op->error, -EIO, "%s",
                      http->message[0] ? http->message : "the reply's headers are too long");
        op->retry = op->error.code == -EIO      ? STORE_RETRY_AGAIN
                    : op->error.code == -EACCES ? STORE_RETRY_AGAIN
                                                : STORE_RETRY_NEVER;
        return describe(request, op->error.code);
    case HTTP_LOST:
        return fail(request, -EIO, STORE_RETRY_NOW, http->message);
    case HTTP_FATAL:
        return fail(request, -EIO, STORE_RETRY_NEVER, http->message);
    case HTTP_TIMED_OUT:
        return fail(request, -ETIMEDOUT, STORE_RETRY_AGAIN, http->message);
    default:
        return fail(request, -EIO, STORE_RETRY_AGAIN, http->message);
    }
}

/* True: the server's clock is another one than the request was signed by. It is followed from now
 * on; another request may have learned it first. */
static bool note_clock(struct s3_request *request)
{
    struct s3_store *s3 = request->s3;
    if (request->headers.date_s <= 0)
        return false;
    int64_t skew_s = request->headers.date_s - (int64_t)(clock_wall_ns() / NS_PER_S);
    if (llabs(skew_s - request->skew_s) < SKEW_MIN_S)
        return false;
    if (llabs(skew_s - s3->skew_s) >= SKEW_MIN_S)
        log_warn("clock differs from the store's", "skew_s=%lld", (long long)skew_s);
    s3->skew_s = skew_s;
    return true;
}

/* What the refusal of a signature teaches us: then one more try is worth it. */
static enum store_retry learn(struct s3_request *request, const char *code, enum store_retry retry)
{
    struct s3_store *s3 = request->s3;
    int status = request->http.status;
    bool no_code = !code[0]; /* HEAD */
    if (!s3->credentials)
        return retry;
    if (strcmp(code, "RequestTimeTooSkewed") == 0 || (no_code && status == 403))
        return note_clock(request) ? STORE_RETRY_AGAIN : retry;
    if (strcmp(code, "ExpiredToken") == 0 || strcmp(code, "TokenRefreshRequired") == 0)
        return credentials_reject(s3->credentials) ? STORE_RETRY_AGAIN : STORE_RETRY_NEVER;
    if (no_code && status == 400)
        return credentials_reject(s3->credentials) ? STORE_RETRY_NOW : retry;
    return retry;
}

/* Some servers do not ignore what they do not know, they refuse the request: 501 NotImplemented, or
 * 400 with the header's name in the message. True: it goes without that header from now on. */
static bool learn_refused_header(struct s3_request *request, const struct xml_failure *f)
{
    struct s3_store *s3 = request->s3;
    bool refused = request->http.status == 501 || strcmp(f->code, "NotImplemented") == 0;
    bool named = strcasestr(f->message, "x-amz-checksum") &&
                 (refused || strcasestr(f->message, "unsupported"));
    if (request->has_checksum_header && (named || (refused && !s3->takes_checksums))) {
        if (!s3->no_checksums)
            log_info("store refuses checksums", "store=%s fallback=md5", s3->store.name);
        s3->no_checksums = true;
        return true;
    }
    if (request->has_delete_condition && refused) {
        s3->no_delete_condition = true;
        return true;
    }
    return false;
}

/* A 301, or a signature refused for its region. */
static int fail_region(struct s3_request *request, const struct xml_failure *f)
{
    struct store_op *op = request->op;
    const char *region = request->headers.region[0] ? request->headers.region : f->region;
    op->retry = STORE_RETRY_NEVER;
    if (region[0] && strcmp(region, request->s3->region) != 0)
        error_set(&op->error, -EINVAL, "the bucket is in region %s, not in %s", region,
                  request->s3->region);
    else
        error_set(&op->error, -EINVAL, "the server redirects (HTTP %d %s): wrong endpoint? %s",
                  request->http.status, f->code, f->message);
    snprintf(op->error.store_code, sizeof(op->error.store_code), "%s", f->code);
    return describe(request, -EINVAL);
}

static int fail_s3(struct s3_request *request, const struct xml_failure *f)
{
    struct store_op *op = request->op;
    struct s3_store *s3 = request->s3;
    int status = request->http.status;
    bool is_region = f->region[0] && (strcmp(f->code, "AuthorizationHeaderMalformed") == 0 ||
                                      strcmp(f->code, "IncorrectEndpoint") == 0);
    const char *elsewhere = request->headers.region; /* all that HEAD says of it */
    is_region |= status == 400 && !f->code[0] && elsewhere[0] && strcmp(elsewhere, s3->region) != 0;
    if ((status >= 300 && status < 400) || is_region)
        return fail_region(request, f);
    struct s3_verdict verdict = s3_error_verdict(f->code, status);
    if (strcmp(f->code, "XAmzContentSHA256Mismatch") == 0)
        s3->sign_payload = true;
    if (learn_refused_header(request, f))
        verdict = (struct s3_verdict){-EIO, STORE_RETRY_NOW};
    else
        verdict.retry = learn(request, f->code, verdict.retry);
    if (op->has_crc32c &&
        (strcmp(f->code, "BadDigest") == 0 || strcmp(f->code, "XAmzContentChecksumMismatch") == 0))
        verdict = (struct s3_verdict){-EBADMSG, STORE_RETRY_NEVER};
    op->retry = verdict.retry;
    op->retry_after_ms = request->headers.retry_after_ms;
    error_set(&op->error, verdict.result, "HTTP %d%s%s%s%s", status, f->code[0] ? " " : "", f->code,
              f->message[0] ? ": " : "", f->message);
    snprintf(op->error.store_code, sizeof(op->error.store_code), "%s", f->code);
    if (f->request_id[0] && !request->headers.request_id[0])
        snprintf(request->headers.request_id, sizeof(request->headers.request_id), "%s",
                 f->request_id);
    return describe(request, verdict.result);
}

/* An error status: with S3's document, without a body (HEAD, some gateways), or with something
 * else. "Not found" counts only if S3 says it: a page of a proxy must not make files disappear. */
static int fail_status(struct s3_request *request)
{
    struct xml_failure failure = {{0}};
    struct error ignored;
    int status = request->http.status;
    if (request->reply.len > 0 &&
        xml_parse_failure(request->reply.data, request->reply.len, &failure, &ignored) != 0) {
        memset(&failure, 0, sizeof(failure));
        bool html = request->headers.is_html;
        snprintf(failure.message, sizeof(failure.message), "%s",
                 html ? "the server answered a web page: is the endpoint an S3 server?"
                      : "the server's error is not S3's XML");
        if (status == 404 || status == 412 || status == 416) {
            request->op->retry_after_ms = request->headers.retry_after_ms;
            char text[384];
            snprintf(text, sizeof(text), "HTTP %d: %s", status, failure.message);
            return fail_reply(request, text);
        }
    }
    return fail_s3(request, &failure);
}

/* ---- successes ---- */

static void take_info(struct s3_request *request, uint64_t size)
{
    const struct s3_headers *h = &request->headers;
    struct store_info *info = &request->op->info;
    info->size = size;
    info->mtime_ns = h->mtime_ns;
    if (h->etag[0])
        memcpy(info->etag, h->etag, sizeof(info->etag));
    else
        store_etag_weak(info->size, info->mtime_ns, info->etag);
    snprintf(info->storage_class, sizeof(info->storage_class), "%s",
             h->storage_class[0] ? h->storage_class : "STANDARD");
}

/* An object without ETag is known by its size and time. */
static int check_etag(struct s3_request *request, uint64_t size)
{
    const char *wanted = request->op->if_match;
    if (!request->headers.etag[0] && !request->headers.mtime_ns)
        return fail_reply(request,
                          "the reply has neither ETag nor time: is the endpoint an S3 server?");
    take_info(request, size);
    /* A store that ignores If-Match, or a header that was damaged on the way: one more try tells.
     */
    if (wanted && !store_etag_fits(&request->op->info, wanted))
        return fail(request, -EEXIST, STORE_RETRY_NOW,
                    "the reply has another ETag than the one asked for");
    return 0;
}

static int head_result(struct s3_request *request)
{
    if (!request->headers.has_length)
        return fail_reply(request, "the reply has no Content-Length");
    int rc = check_etag(request, request->headers.length);
    if (rc)
        return rc;
    if (request->add_rc)
        return fail(request, -ENOMEM, STORE_RETRY_NEVER, "no memory");
    return 0;
}

static int get_result(struct s3_request *request)
{
    struct store_op *op = request->op;
    struct s3_headers *h = &request->headers;
    int rc = check_etag(request, request->http.status == 200 ? h->length : h->total);
    if (rc)
        return rc;
    if (request->http.status == 200) {
        /* Range was ignored: right only if the whole object was meant. */
        if (op->offset != 0 || !h->has_length)
            return fail_reply(request, "the server ignored the range");
        h->range_first = 0;
        h->total = h->length;
    } else if (!h->has_range) {
        return fail_reply(request, "the reply has no Content-Range");
    }
    uint64_t expected = h->total > op->offset ? MIN(op->length, h->total - op->offset) : 0;
    if (h->range_first != op->offset || op->got != expected)
        return fail_reply(request, "the reply has another range than the one asked for");
    if (wants_crc(request) && op->got == h->total) {
        uint8_t bytes[4] = {(uint8_t)(request->crc >> 24), (uint8_t)(request->crc >> 16),
                            (uint8_t)(request->crc >> 8), (uint8_t)request->crc};
        char text[12];
        hash_base64(bytes, sizeof(bytes), text);
        if (strcmp(text, h->crc32c) != 0)
            return fail_reply(request, "the checksum of the data is not the one stored with them");
    }
    if (request->add_rc)
        return fail(request, -ENOMEM, STORE_RETRY_NEVER, "no memory");
    take_info(request, h->total);
    return 0;
}

/* Over plain HTTP and without the server's word on the CRC: its ETag is the MD5 of what it stored,
 * if it looks like one and nothing was encrypted. */
static int compare_md5(struct s3_request *request)
{
    struct s3_store *s3 = request->s3;
    struct store_op *op = request->op;
    uint8_t digest[16];
    if (!s3->no_crc_echo)
        log_info("store does not confirm CRC32C", "store=%s fallback=md5", s3->store.name);
    s3->no_crc_echo = true;
    if (s3->sse || op->iov_count > 1 || strlen(request->headers.etag) != 32 ||
        hash_unhex(request->headers.etag, 32, digest, sizeof(digest)) != 0)
        return 0;
    uint8_t ours[16];
    hash_md5(op->iov_count ? op->iov[0].iov_base : "", request->http.body_len, ours);
    if (memcmp(ours, digest, sizeof(ours)) != 0)
        return fail_reply(request, "the server's ETag is not the MD5 of what was sent");
    op->checked = true;
    return 0;
}

/* Whether the server had an MD5 to compare with, and its ETag is that MD5. */
static bool md5_confirmed(const struct s3_request *request)
{
    uint8_t digest[16];
    char text[32];
    const char *etag = request->headers.etag;
    if (!request->upload_md5[0] || strlen(etag) != 32 ||
        hash_unhex(etag, 32, digest, sizeof(digest)) != 0)
        return false;
    hash_base64(digest, sizeof(digest), text);
    return strcmp(text, request->upload_md5) == 0;
}

static int upload_result(struct s3_request *request)
{
    struct store_op *op = request->op;
    const struct s3_headers *h = &request->headers;
    op->checked = md5_confirmed(request);
    if (!h->etag[0])
        return fail_reply(request, "the reply has no ETag: is the endpoint an S3 server?");
    if (request->crc32c[0] && h->crc32c[0]) {
        if (strcmp(request->crc32c, h->crc32c) != 0)
            return op->has_crc32c
                       ? fail(request, -EBADMSG, STORE_RETRY_NEVER, "the body has another checksum")
                       : fail_reply(request, "the server stored data with another checksum");
        op->checked = true;
    } else if (request->crc32c[0] && !request->upload_md5[0] && !request->s3->endpoint.https) {
        int rc = compare_md5(request);
        if (rc)
            return rc;
    }
    take_info(request, request->http.body_len);
    if (op->kind == STORE_MPU_PART) {
        op->out_part.number = op->part_number;
        memcpy(op->out_part.etag, h->etag, sizeof(op->out_part.etag));
        if (h->crc32c[0])
            snprintf(op->out_part.crc32c, sizeof(op->out_part.crc32c), "%s", request->crc32c);
    }
    return 0;
}

/* Results of the parsers: 0, -EREMOTEIO (an <Error> with status 200), or what is wrong. */
static int parsed(struct s3_request *request, int rc, const struct xml_failure *failure)
{
    struct store_op *op = request->op;
    if (rc == 0)
        return 0;
    if (rc == -EREMOTEIO) {
        /* The status says that all is well: a code that is not known is taken for passing. */
        request->http.status = s3_error_verdict(failure->code, 500).result == -EIO ? 500 : 400;
        return fail_s3(request, failure);
    }
    if (rc == -ENOMEM)
        return fail(request, -ENOMEM, STORE_RETRY_NEVER, "no memory");
    op->retry = STORE_RETRY_AGAIN;
    return describe(request, -EIO);
}

static int etag_result(struct s3_request *request, const char *root)
{
    struct store_op *op = request->op;
    struct xml_failure failure;
    char text[STORE_ETAG_MAX + 2];
    int rc = parsed(request,
                    xml_parse_value(request->reply.data, request->reply.len, root, "ETag", text,
                                    sizeof(text), &failure, &op->error),
                    &failure);
    if (rc)
        return rc;
    xml_copy_etag(request->headers.etag, text);
    if (!request->headers.etag[0])
        return fail_reply(request, "the reply has no ETag");
    take_info(request, 0);
    if (op->kind == STORE_MPU_PART_COPY) {
        op->out_part.number = op->part_number;
        memcpy(op->out_part.etag, request->headers.etag, sizeof(op->out_part.etag));
    }
    return 0;
}

/* s3proxy names it as the copy of an object. */
static const char *part_copy_root(const struct s3_request *request)
{
    const struct buf *reply = &request->reply;
    bool other = reply->len && memmem(reply->data, reply->len, "<CopyObjectResult", 17);
    return other ? "CopyObjectResult" : "CopyPartResult";
}

static int create_result(struct s3_request *request)
{
    struct store_op *op = request->op;
    struct xml_failure failure;
    char id[STORE_UPLOAD_ID_MAX + 1];
    int rc = parsed(request,
                    xml_parse_value(request->reply.data, request->reply.len,
                                    "InitiateMultipartUploadResult", "UploadId", id, sizeof(id),
                                    &failure, &op->error),
                    &failure);
    if (rc)
        return rc;
    if (!id[0])
        return fail_reply(request, "the reply has no upload id");
    op->out_upload_id = store_op_strdup(op, id);
    return op->out_upload_id ? 0 : fail(request, -ENOMEM, STORE_RETRY_NEVER, "no memory");
}

int s3_reply_add_unsent(struct store_op *op)
{
    for (unsigned i = 0; i < op->key_count; i++) {
        if (s3_request_is_xml(op->keys[i]))
            continue;
        int rc = store_op_add_entry(op, op->keys[i], EINVAL, 0, NULL, false);
        if (rc)
            return rc;
    }
    return 0;
}

static int list_result(struct s3_request *request)
{
    struct store_op *op = request->op;
    struct xml_failure failure = {{0}};
    const void *data = request->reply.data;
    size_t len = request->reply.len;
    int rc;
    if (op->kind == STORE_LIST)
        rc = xml_parse_list(data, len, op, &failure, &op->error);
    else if (op->kind == STORE_MPU_LIST)
        rc = xml_parse_uploads(data, len, op, &failure, &op->error);
    else
        rc = xml_parse_delete(data, len, op, s3_error_errno, &failure, &op->error);
    rc = parsed(request, rc, &failure);
    if (rc == 0 && op->kind == STORE_DELETE_MANY && s3_reply_add_unsent(op))
        return fail(request, -ENOMEM, STORE_RETRY_NEVER, "no memory");
    return rc;
}

static int success(struct s3_request *request)
{
    switch (request->op->kind) {
    case STORE_HEAD:
        return head_result(request);
    case STORE_GET:
        return s3_request_fills_buffer(request->op) ? get_result(request) : head_result(request);
    case STORE_PUT:
    case STORE_MPU_PART:
        return upload_result(request);
    case STORE_COPY:
        return etag_result(request, "CopyObjectResult");
    case STORE_MPU_PART_COPY:
        return etag_result(request, part_copy_root(request));
    case STORE_MPU_COMPLETE:
        return etag_result(request, "CompleteMultipartUploadResult");
    case STORE_MPU_CREATE:
        return create_result(request);
    case STORE_LIST:
    case STORE_MPU_LIST:
    case STORE_DELETE_MANY:
        return list_result(request);
    default:
        return 0;
    }
}

int s3_reply_result(struct s3_request *request)
{
    struct store_op *op = request->op;
    int status = request->http.status;
    if (request->http.end != HTTP_OK)
        return fail_transport(request);
    if (status >= 200 && status < 300) {
        request->s3->takes_checksums |= request->has_checksum_header;
        return success(request);
    }
    int rc = fail_status(request);
    /* Aborting and deleting what is not there succeed; a missing bucket does not. */
    bool may_miss = op->kind == STORE_DELETE || op->kind == STORE_MPU_ABORT;
    if (rc == -ENOENT && may_miss && strcmp(op->error.store_code, "NoSuchBucket") != 0) {
        error_clear(&op->error);
        return 0;
    }
    return rc;
}
