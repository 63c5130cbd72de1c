#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/hash.h"
#include "s3_impl.h"

#define HEADERS_MAX 256

/* The headers of one request while it is built: texts one behind the other, and where they are. */
struct header_list {
    struct buf text;
    struct {
        size_t name, value; /* offsets */
    } at[HEADERS_MAX];
    unsigned count;
    bool full;
};

static void put_text(struct buf *out, const char *text)
{
    buf_put(out, text, strlen(text));
}

static void add_header(struct header_list *list, const char *name, const char *value)
{
    if (list->count == HEADERS_MAX) {
        list->full = true;
        return;
    }
    list->at[list->count].name = list->text.len;
    buf_put(&list->text, name, strlen(name) + 1);
    list->at[list->count].value = list->text.len;
    buf_put(&list->text, value, strlen(value) + 1);
    list->count++;
}

static void add_quoted(struct header_list *list, const char *name, const char *etag)
{
    char quoted[STORE_ETAG_MAX + 3];
    snprintf(quoted, sizeof(quoted), "\"%s\"", etag);
    add_header(list, name, quoted);
}

/* ---- what is asked: method, URL ---- */

bool s3_request_fills_buffer(const struct store_op *op)
{
    return op->kind == STORE_GET && op->length > 0;
}

static const char *method_of(const struct store_op *op)
{
    switch (op->kind) {
    case STORE_HEAD:
        return "HEAD";
    case STORE_GET:
        return op->length > 0 ? "GET" : "HEAD";
    case STORE_LIST:
    case STORE_MPU_LIST:
        return "GET";
    case STORE_DELETE:
    case STORE_MPU_ABORT:
        return "DELETE";
    case STORE_DELETE_MANY:
    case STORE_MPU_CREATE:
    case STORE_MPU_COMPLETE:
        return "POST";
    default:
        return "PUT";
    }
}

static void add_query(struct buf *query, const char *name, const char *value)
{
    if (query->len > 0)
        put_text(query, "&");
    put_text(query, name);
    put_text(query, "=");
    sigv4_encode(query, value, strlen(value), 0);
}

static void add_query_number(struct buf *query, const char *name, uint64_t value)
{
    char text[24];
    snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
    add_query(query, name, text);
}

/* The token of an upload listing: both markers, encoded, with a slash between. */
static void add_upload_marker(struct buf *query, const char *name, const char *text, size_t len)
{
    put_text(query, query->len > 0 ? "&" : "");
    put_text(query, name);
    put_text(query, "=");
    buf_put(query, text, len);
}

/* In order of names, as the signature wants them. */
static void build_query(struct buf *query, const struct store_op *op)
{
    const char *slash = op->token ? strchr(op->token, '/') : NULL;
    switch (op->kind) {
    case STORE_LIST:
        if (op->token)
            add_query(query, "continuation-token", op->token);
        if (op->delimiter)
            add_query(query, "delimiter", op->delimiter);
        add_query(query, "encoding-type", "url");
        add_query(query, "list-type", "2");
        if (op->max_keys)
            add_query_number(query, "max-keys", op->max_keys);
        add_query(query, "prefix", op->prefix ? op->prefix : "");
        if (op->start_after && !op->token)
            add_query(query, "start-after", op->start_after);
        break;
    case STORE_MPU_LIST:
        add_query(query, "encoding-type", "url");
        if (slash)
            add_upload_marker(query, "key-marker", op->token, (size_t)(slash - op->token));
        if (op->max_keys)
            add_query_number(query, "max-uploads", op->max_keys);
        add_query(query, "prefix", op->prefix ? op->prefix : "");
        if (slash && slash[1])
            add_upload_marker(query, "upload-id-marker", slash + 1, strlen(slash + 1));
        add_query(query, "uploads", "");
        break;
    case STORE_MPU_CREATE:
        add_query(query, "uploads", "");
        break;
    case STORE_MPU_PART:
    case STORE_MPU_PART_COPY:
        add_query_number(query, "partNumber", op->part_number);
        add_query(query, "uploadId", op->upload_id);
        break;
    case STORE_MPU_COMPLETE:
    case STORE_MPU_ABORT:
        add_query(query, "uploadId", op->upload_id);
        break;
    case STORE_DELETE_MANY:
        add_query(query, "delete", "");
        break;
    default:
        break;
    }
}

/* ---- bodies ---- */

static void put_xml(struct buf *out, const char *text)
{
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if (*p == '&' || *p == '<' || *p == '>' || *p == '"' || *p < 0x20)
            buf_printf(out, "&#%u;", *p);
        else
            buf_put_u8(out, *p);
    }
}

bool s3_request_is_xml(const char *key)
{
    for (const unsigned char *p = (const unsigned char *)key; *p; p++) {
        if (*p < 0x20 && *p != '\t' && *p != '\n' && *p != '\r')
            return false;
    }
    return true;
}

static void build_delete(struct buf *body, const struct store_op *op)
{
    put_text(body, "<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Quiet>true</Quiet>");
    for (unsigned i = 0; i < op->key_count; i++) {
        if (!s3_request_is_xml(op->keys[i]))
            continue;
        put_text(body, "<Object><Key>");
        put_xml(body, op->keys[i]);
        put_text(body, "</Key></Object>");
    }
    put_text(body, "</Delete>");
}

static void build_complete(struct buf *body, const struct store_op *op)
{
    bool all_have_crc = true;
    for (unsigned i = 0; i < op->part_count; i++)
        all_have_crc &= op->parts[i].crc32c[0] != '\0';
    put_text(body, "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    for (unsigned i = 0; i < op->part_count; i++) {
        buf_printf(body, "<Part><PartNumber>%u</PartNumber><ETag>&#34;", op->parts[i].number);
        put_xml(body, op->parts[i].etag);
        put_text(body, "&#34;</ETag>");
        if (all_have_crc) {
            put_text(body, "<ChecksumCRC32C>");
            put_xml(body, op->parts[i].crc32c);
            put_text(body, "</ChecksumCRC32C>");
        }
        put_text(body, "</Part>");
    }
    put_text(body, "</CompleteMultipartUpload>");
}

static bool has_payload(const struct store_op *op)
{
    return op->kind == STORE_PUT || op->kind == STORE_MPU_PART;
}

static void body_crc32c(const struct s3_request *request, char out[12])
{
    const struct http_request *http = &request->http;
    uint32_t crc = request->op->has_crc32c ? request->op->crc32c : 0;
    for (unsigned i = 0; i < http->body_count && !request->op->has_crc32c; i++)
        crc = hash_crc32c(crc, http->body[i].iov_base, http->body[i].iov_len);
    uint8_t bytes[4] = {(uint8_t)(crc >> 24), (uint8_t)(crc >> 16), (uint8_t)(crc >> 8),
                        (uint8_t)crc};
    hash_base64(bytes, sizeof(bytes), out);
}

static int build_body(struct s3_request *request)
{
    const struct store_op *op = request->op;
    struct http_request *http = &request->http;
    buf_reset(&request->body);
    http->body = NULL;
    http->body_count = 0;
    if (has_payload(op)) {
        http->body = op->iov;
        http->body_count = op->iov_count;
    } else if (op->kind == STORE_DELETE_MANY || op->kind == STORE_MPU_COMPLETE) {
        if (op->kind == STORE_DELETE_MANY)
            build_delete(&request->body, op);
        else
            build_complete(&request->body, op);
        if (buf_error(&request->body))
            return buf_error(&request->body);
        request->body_iov = (struct iovec){request->body.data, request->body.len};
        http->body = &request->body_iov;
        http->body_count = 1;
    }
    http->body_len = 0;
    for (unsigned i = 0; i < http->body_count; i++)
        http->body_len += http->body[i].iov_len;
    return 0;
}

/* ---- headers ---- */

static void add_conditions(struct header_list *list, struct s3_request *request)
{
    const struct store_op *op = request->op;
    bool left_out = op->kind == STORE_DELETE && request->s3->no_delete_condition;
    /* What is read is compared with a weak one when it is there (s3_reply.c). */
    bool wanted = op->if_match && !store_etag_is_weak(op->if_match) && !left_out;
    if (wanted)
        add_quoted(list, "if-match", op->if_match);
    request->has_delete_condition = wanted && op->kind == STORE_DELETE;
    if (op->if_none_match)
        add_header(list, "if-none-match", "*");
}

static void add_object_headers(struct header_list *list, const struct s3_store *s3,
                               const struct store_op *op)
{
    add_header(list, "content-type",
               op->content_type ? op->content_type : "application/octet-stream");
    for (unsigned i = 0; i < op->meta_count; i++) {
        char name[2100];
        snprintf(name, sizeof(name), "x-amz-meta-%s", op->meta[i].name);
        add_header(list, name, op->meta[i].value);
    }
    const char *class = op->storage_class ? op->storage_class : s3->storage_class;
    if (class)
        add_header(list, "x-amz-storage-class", class);
    if (s3->sse && strcmp(s3->sse, "SSE-C") != 0) {
        add_header(list, "x-amz-server-side-encryption", s3->sse);
        if (s3->sse_key)
            add_header(list, "x-amz-server-side-encryption-aws-kms-key-id", s3->sse_key);
    }
}

/* The customer's key goes with everything that reads or writes content. */
static void add_customer_key(struct header_list *list, const struct s3_store *s3,
                             const struct store_op *op)
{
    static const enum store_kind with_key[] = {
        STORE_HEAD,       STORE_GET,      STORE_PUT,           STORE_COPY,
        STORE_MPU_CREATE, STORE_MPU_PART, STORE_MPU_PART_COPY, STORE_MPU_COMPLETE};
    bool wanted = false;
    for (size_t i = 0; i < ARRAY_LEN(with_key); i++)
        wanted |= op->kind == with_key[i];
    if (!wanted || !s3->sse || strcmp(s3->sse, "SSE-C") != 0)
        return;
    add_header(list, "x-amz-server-side-encryption-customer-algorithm", "AES256");
    add_header(list, "x-amz-server-side-encryption-customer-key", s3->sse_key);
    add_header(list, "x-amz-server-side-encryption-customer-key-md5", s3->sse_key_md5);
    if (!op->source_key)
        return;
    add_header(list, "x-amz-copy-source-server-side-encryption-customer-algorithm", "AES256");
    add_header(list, "x-amz-copy-source-server-side-encryption-customer-key", s3->sse_key);
    add_header(list, "x-amz-copy-source-server-side-encryption-customer-key-md5", s3->sse_key_md5);
}

static int add_copy_source(struct header_list *list, const struct s3_store *s3,
                           const struct store_op *op)
{
    cleanup(buf_done) struct buf source;
    buf_init(&source, 0);
    buf_printf(&source, "/%s/", s3->bucket);
    sigv4_encode(&source, op->source_key, strlen(op->source_key), 1);
    buf_printf(&source, "%s", "");
    if (buf_error(&source))
        return buf_error(&source);
    add_header(list, "x-amz-copy-source", (const char *)source.data);
    if (op->source_if_match)
        add_quoted(list, "x-amz-copy-source-if-match", op->source_if_match);
    return 0;
}

static void add_range(struct header_list *list, const char *name, const struct store_op *op)
{
    char range[64];
    snprintf(range, sizeof(range), "bytes=%llu-%llu", (unsigned long long)op->offset,
             (unsigned long long)(op->offset + op->length - 1));
    add_header(list, name, range);
}

static void add_md5(struct header_list *list, struct s3_request *request)
{
    const struct http_request *http = &request->http;
    cleanup(buf_done) struct buf joined;
    buf_init(&joined, 0);
    const void *data = http->body_count == 1 ? http->body[0].iov_base : NULL;
    if (http->body_count > 1) {
        for (unsigned i = 0; i < http->body_count; i++)
            buf_put(&joined, http->body[i].iov_base, http->body[i].iov_len);
        data = joined.data;
    }
    if (buf_error(&joined)) {
        list->full = true;
        return;
    }
    uint8_t digest[16];
    hash_md5(data ? data : "", http->body_len, digest);
    hash_base64(digest, sizeof(digest), request->upload_md5);
    add_header(list, "content-md5", request->upload_md5);
}

/* Some servers refuse each request with a checksum (s3_reply.c learns it). */
static void add_checksum(struct header_list *list, struct s3_request *request, const char *name,
                         const char *value)
{
    if (request->s3->no_checksums)
        return;
    add_header(list, name, value);
    request->has_checksum_header = true;
}

/* A server that does not confirm the CRC may not have looked at it: it gets an MD5, which all
 * understand. Parts beside copied ones must have no checksum of their own (see store.h). Over TLS
 * the line itself is checked. */
static void add_integrity(struct header_list *list, struct s3_request *request)
{
    const struct store_op *op = request->op;
    const struct s3_store *s3 = request->s3;
    bool may_crc = !s3->no_checksums && (op->kind == STORE_PUT || !op->copied_parts);
    request->crc32c[0] = request->upload_md5[0] = '\0';
    if (may_crc) {
        body_crc32c(request, request->crc32c);
        add_checksum(list, request, "x-amz-checksum-crc32c", request->crc32c);
    }
    if (!s3->endpoint.https && (!may_crc || s3->no_crc_echo))
        add_md5(list, request);
}

static int add_kind_headers(struct header_list *list, struct s3_request *request)
{
    struct s3_store *s3 = request->s3;
    const struct store_op *op = request->op;
    int rc = 0;
    switch (op->kind) {
    case STORE_GET:
        if (op->length > 0) {
            add_range(list, "range", op);
            if (op->offset == 0)
                add_checksum(list, request, "x-amz-checksum-mode", "ENABLED");
        }
        break;
    case STORE_PUT:
        add_object_headers(list, s3, op);
        add_integrity(list, request);
        break;
    case STORE_MPU_PART:
        add_header(list, "content-type", "application/octet-stream");
        add_integrity(list, request);
        break;
    case STORE_MPU_CREATE:
        add_object_headers(list, s3, op);
        if (!op->copied_parts)
            add_checksum(list, request, "x-amz-checksum-algorithm", "CRC32C");
        break;
    case STORE_COPY:
        add_object_headers(list, s3, op);
        add_header(list, "x-amz-metadata-directive", "REPLACE");
        rc = add_copy_source(list, s3, op);
        break;
    case STORE_MPU_PART_COPY:
        rc = add_copy_source(list, s3, op);
        if (op->length > 0)
            add_range(list, "x-amz-copy-source-range", op);
        break;
    case STORE_DELETE_MANY:
        add_header(list, "content-type", "application/xml");
        add_md5(list, request);
        break;
    case STORE_MPU_COMPLETE:
        add_header(list, "content-type", "application/xml");
        break;
    default:
        break;
    }
    return rc;
}

/* Conditions and ranges stay out of the signature, so that a proxy that must change them can. */
static bool is_signed(const char *name)
{
    return strncmp(name, "x-amz-", 6) == 0 || strcmp(name, "host") == 0 ||
           strcmp(name, "content-md5") == 0 || strcmp(name, "content-type") == 0;
}

static int compare_pairs(const void *a, const void *b)
{
    return strcmp(((const struct sigv4_pair *)a)->name, ((const struct sigv4_pair *)b)->name);
}

static void payload_digest(const struct s3_request *request, char out[65])
{
    const struct http_request *http = &request->http;
    if (http->body_len == 0) {
        snprintf(out, 65, "%s", SIGV4_EMPTY_SHA256);
        return;
    }
    if (has_payload(request->op) && !request->s3->sign_payload) {
        snprintf(out, 65, "%s", SIGV4_UNSIGNED);
        return;
    }
    cleanup(buf_done) struct buf joined;
    buf_init(&joined, 0);
    const void *data = http->body[0].iov_base;
    if (http->body_count > 1) {
        for (unsigned i = 0; i < http->body_count; i++)
            buf_put(&joined, http->body[i].iov_base, http->body[i].iov_len);
        data = joined.data;
    }
    uint8_t digest[32];
    /* Without memory the digest is of nothing: the server refuses the request. */
    hash_sha256(data ? data : "", data ? http->body_len : 0, digest);
    hash_hex(digest, sizeof(digest), out);
}

static int sign(struct header_list *list, struct s3_request *request, const char *path,
                const char *query)
{
    struct s3_store *s3 = request->s3;
    const struct credential_set *keys;
    int rc = credentials_get(s3->credentials, &keys, &request->op->error);
    if (rc)
        return rc;
    char time_text[SIGV4_TIME_LEN + 1], payload[65];
    request->skew_s = s3->skew_s;
    sigv4_time((int64_t)(clock_wall_ns() / NS_PER_S) + request->skew_s, time_text);
    const uint8_t *day_key = credential_day_key(keys, time_text);
    if (keys->day_count && !day_key) {
        credentials_reject(s3->credentials); /* new ones may be for that day */
        return error_set(&request->op->error, -EACCES, "there is no key for %.8s", time_text);
    }
    payload_digest(request, payload);
    add_header(list, "x-amz-date", time_text);
    add_header(list, "x-amz-content-sha256", payload);
    if (keys->session_token)
        add_header(list, "x-amz-security-token", keys->session_token);
    if (buf_error(&list->text))
        return buf_error(&list->text);

    struct sigv4_pair pairs[HEADERS_MAX];
    unsigned count = 0;
    for (unsigned i = 0; i < list->count; i++) {
        const char *name = (const char *)list->text.data + list->at[i].name;
        if (is_signed(name))
            pairs[count++] =
                (struct sigv4_pair){name, (const char *)list->text.data + list->at[i].value};
    }
    qsort(pairs, count, sizeof(pairs[0]), compare_pairs);
    struct sigv4_request to_sign = {
        .method = request->http.method,
        .path = path,
        .query = query,
        .headers = pairs,
        .header_count = count,
        .payload = payload,
        .time = time_text,
        .region = keys->region ? keys->region : s3->region,
        .service = "s3",
        .access_key = keys->access_key,
        .secret_key = keys->secret_key,
        .day_key = day_key,
    };
    cleanup(buf_done) struct buf authorization;
    buf_init(&authorization, 0);
    rc = sigv4_sign(&to_sign, &s3->key, &authorization);
    if (rc == 0)
        add_header(list, "authorization", (const char *)authorization.data);
    return rc;
}

static int hand_over_headers(const struct header_list *list, struct http_request *http)
{
    if (list->full || buf_error(&list->text))
        return list->full ? -E2BIG : buf_error(&list->text);
    struct curl_slist *out = NULL;
    cleanup(buf_done) struct buf line;
    buf_init(&line, 0);
    for (unsigned i = 0; i < list->count; i++) {
        const char *name = (const char *)list->text.data + list->at[i].name;
        const char *value = (const char *)list->text.data + list->at[i].value;
        buf_reset(&line);
        /* libcurl leaves a header without value out, unless it ends in a semicolon. */
        if (*value)
            buf_printf(&line, "%s: %s", name, value);
        else
            buf_printf(&line, "%s;", name);
        struct curl_slist *longer =
            buf_error(&line) ? NULL : curl_slist_append(out, (const char *)line.data);
        if (!longer) {
            curl_slist_free_all(out);
            return -ENOMEM;
        }
        out = longer;
    }
    http->headers = out;
    return 0;
}

static int build_headers(struct header_list *list, struct s3_request *request, const char *path,
                         const char *query)
{
    struct s3_store *s3 = request->s3;
    request->has_checksum_header = false;
    add_header(list, "host", s3->endpoint.host);
    if (request->op->kind != STORE_MPU_CREATE && request->op->kind != STORE_COPY)
        add_conditions(list, request);
    int rc = add_kind_headers(list, request);
    if (rc)
        return rc;
    add_customer_key(list, s3, request->op);
    if (s3->request_payer)
        add_header(list, "x-amz-request-payer", "requester");
    if (s3->credentials)
        rc = sign(list, request, path, query);
    return rc ? rc : hand_over_headers(list, &request->http);
}

int s3_request_build(struct s3_request *request)
{
    const struct s3_store *s3 = request->s3;
    const struct store_op *op = request->op;
    struct http_request *http = &request->http;
    cleanup(buf_done) struct buf path, query;
    buf_init(&path, 0);
    buf_init(&query, 0);
    put_text(&path, s3->endpoint.path);
    if (op->key) {
        put_text(&path, "/");
        sigv4_encode(&path, op->key, strlen(op->key), 1);
    } else if (path.len == 0) {
        put_text(&path, "/");
    }
    buf_printf(&path, "%s", "");
    build_query(&query, op);
    buf_printf(&query, "%s", "");
    buf_reset(&request->url);
    if (buf_error(&path) || buf_error(&query))
        return -ENOMEM;
    buf_printf(&request->url, "%s%s%s%s", s3->endpoint.origin, (const char *)path.data,
               query.len > 0 ? "?" : "", (const char *)query.data);
    int rc = buf_error(&request->url);
    if (rc == 0)
        rc = build_body(request);
    if (rc)
        return rc;
    http->method = method_of(op);
    http->url = (const char *)request->url.data;
    http->slow_reply =
        op->kind == STORE_COPY || op->kind == STORE_MPU_PART_COPY || op->kind == STORE_MPU_COMPLETE;

    struct header_list list = {.count = 0};
    buf_init(&list.text, 0);
    rc = build_headers(&list, request, (const char *)path.data, (const char *)query.data);
    buf_done(&list.text);
    return rc;
}
