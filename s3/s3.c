/* The S3 backend: its life, and the way of one request through it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/hash.h"
#include "s3_impl.h"

#define MIB (1024ull * 1024)
#define GIB (1024 * MIB)

static void request_free(struct s3_request *request)
{
    buf_done(&request->url);
    buf_done(&request->body);
    buf_done(&request->reply);
    free(request);
}

static int on_start(struct http_request *http)
{
    struct s3_request *request = container_of(http, struct s3_request, http);
    int rc = s3_request_build(request);
    if (rc && request->op->error.code == 0)
        error_set(&request->op->error, rc, "the request cannot be built: %s", strerror(-rc));
    return rc;
}

static void on_moved(struct http_request *http)
{
    uint64_t *moved_ms = container_of(http, struct s3_request, http)->op->moved_ms;
    if (moved_ms)
        *moved_ms = clock_monotonic_ms();
}

static void on_done(struct http_request *http)
{
    struct s3_request *request = container_of(http, struct s3_request, http);
    struct store_op *op = request->op;
    int rc = s3_reply_result(request);
    op->impl = NULL;
    request_free(request);
    store_complete(op, rc);
}

static bool nothing_to_send(const struct store_op *op)
{
    if (op->kind != STORE_DELETE_MANY)
        return false;
    for (unsigned i = 0; i < op->key_count; i++) {
        if (s3_request_is_xml(op->keys[i]))
            return false;
    }
    return true;
}

static void s3_submit(struct store *store, struct store_op *op)
{
    struct s3_store *s3 = container_of(store, struct s3_store, store);
    if (nothing_to_send(op)) {
        store_complete(op, s3_reply_add_unsent(op));
        return;
    }
    struct s3_request *request = calloc(1, sizeof(*request));
    if (!request) {
        store_complete(op, -ENOMEM);
        return;
    }
    request->s3 = s3;
    request->op = op;
    request->http.priority = (unsigned)op->priority;
    request->http.start = on_start;
    request->http.on_header = s3_reply_header;
    request->http.on_body = s3_reply_body;
    request->http.on_moved = on_moved;
    request->http.done = on_done;
    op->impl = request;
    http_submit(s3->http, &request->http);
}

static void s3_cancel(struct store *store, struct store_op *op)
{
    struct s3_request *request = op->impl;
    if (request)
        http_cancel(&request->http);
}

static void s3_free(struct store *store)
{
    struct s3_store *s3 = container_of(store, struct s3_store, store);
    http_free(s3->http);
    credentials_free(s3->credentials);
    free(s3->endpoint.origin);
    free(s3->endpoint.host);
    free(s3->endpoint.path);
    free(s3->bucket);
    free(s3->region);
    free(s3->storage_class);
    free(s3->sse);
    free(s3->sse_key);
    store_done(store);
    free(s3);
}

static const struct store_backend s3_backend = {
    .kind = "s3",
    .submit = s3_submit,
    .cancel = s3_cancel,
    .free = s3_free,
};

static const struct store_caps s3_caps = {
    .put_if_none_match = true,
    .put_if_match = true,
    .complete_if_none_match = true,
    .complete_if_match = true,
    .complete_etag = true,
    .copy_if_match = true,
    .file_beside_directory = true,
    .server_copy = true,
    .lists_at_once = true,
    .part_min = 5 * MIB,
    .part_max = 5 * GIB,
    .part_count_max = 10000,
    .put_max = 5 * GIB,
    .copy_max = 5 * GIB,
};

/* ---- where requests go ---- */

static const char *from_environment(const char *first, const char *second)
{
    const char *value = getenv(first);
    if (value && *value)
        return value;
    value = second ? getenv(second) : NULL;
    return value && *value ? value : NULL;
}

struct parsed_url {
    char *scheme, *host, *port, *path;
};

static void parsed_url_done(struct parsed_url *p)
{
    curl_free(p->scheme);
    curl_free(p->host);
    curl_free(p->port);
    curl_free(p->path);
}

static int parse_endpoint(const char *text, struct parsed_url *out, struct error *error)
{
    CURLU *url = curl_url();
    if (!url)
        return error_set(error, -ENOMEM, "no memory");
    int rc = 0;
    char *user = NULL, *query = NULL;
    if (curl_url_set(url, CURLUPART_URL, text, 0) ||
        curl_url_get(url, CURLUPART_SCHEME, &out->scheme, 0) ||
        curl_url_get(url, CURLUPART_HOST, &out->host, 0) ||
        curl_url_get(url, CURLUPART_PATH, &out->path, 0) ||
        (strcmp(out->scheme, "http") != 0 && strcmp(out->scheme, "https") != 0))
        rc = error_set(error, -EINVAL, "endpoint \"%.200s\" is no http[s]://HOST[:PORT]", text);
    curl_url_get(url, CURLUPART_PORT, &out->port, 0);
    if (rc == 0 && (curl_url_get(url, CURLUPART_USER, &user, 0) == CURLUE_OK ||
                    curl_url_get(url, CURLUPART_QUERY, &query, 0) == CURLUE_OK))
        rc = error_set(error, -EINVAL, "endpoint \"%.200s\" has a user or a query", text);
    curl_free(user);
    curl_free(query);
    curl_url_cleanup(url);
    return rc;
}

static bool is_address(const char *host)
{
    return host[0] == '[' || strspn(host, "0123456789.") == strlen(host);
}

static char *default_endpoint(const char *region)
{
    char *out;
    const char *suffix = strncmp(region, "cn-", 3) == 0 ? ".cn" : "";
    return asprintf(&out, "https://s3.%s.amazonaws.com%s", region, suffix) < 0 ? NULL : out;
}

const char *store_endpoint(const struct store_options *options)
{
    return options->endpoint ? options->endpoint
                             : from_environment("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL");
}

static int find_endpoint(struct s3_store *s3, const struct store_options *options,
                         struct error *error)
{
    const char *custom = store_endpoint(options);
    cleanup(free_ptr) char *text = custom ? strdup(custom) : default_endpoint(s3->region);
    if (!text)
        return error_set(error, -ENOMEM, "no memory");
    cleanup(parsed_url_done) struct parsed_url url = {0};
    int rc = parse_endpoint(text, &url, error);
    if (rc)
        return rc;
    bool path_style = options->path_style == 1 ||
                      (options->path_style < 0 && (custom || strchr(s3->bucket, '.')));
    if (is_address(url.host))
        path_style = true;
    struct s3_endpoint *e = &s3->endpoint;
    e->https = strcmp(url.scheme, "https") == 0;
    bool default_port = !url.port || strcmp(url.port, e->https ? "443" : "80") == 0;
    size_t path_len = strlen(url.path);
    while (path_len > 0 && url.path[path_len - 1] == '/')
        path_len--;
    if (asprintf(&e->host, "%s%s%s%s%s", path_style ? "" : s3->bucket, path_style ? "" : ".",
                 url.host, default_port ? "" : ":", default_port ? "" : url.port) < 0)
        e->host = NULL;
    if (!e->host || asprintf(&e->origin, "%s://%s", url.scheme, e->host) < 0)
        e->origin = NULL;
    if (asprintf(&e->path, "%.*s%s%s", (int)path_len, url.path, path_style ? "/" : "",
                 path_style ? s3->bucket : "") < 0)
        e->path = NULL;
    return e->host && e->origin && e->path ? 0 : error_set(error, -ENOMEM, "no memory");
}

/* ---- options ---- */

static int copy_text(char **out, const char *text, struct error *error)
{
    if (!text)
        return 0;
    for (const char *p = text; *p; p++) {
        if (*p < ' ' || *p > '~')
            return error_set(error, -EINVAL, "a store option has a character that is not ASCII");
    }
    *out = strdup(text);
    return *out ? 0 : error_set(error, -ENOMEM, "no memory");
}

static int check_sse(struct s3_store *s3, const struct store_options *options, struct error *error)
{
    const char *sse = options->sse;
    if (!sse)
        return options->sse_key ? error_set(error, -EINVAL,
                                            "an encryption key needs a kind: AES256, "
                                            "aws:kms, aws:kms:dsse or SSE-C")
                                : 0;
    bool customer = strcmp(sse, "SSE-C") == 0;
    if (!customer && strcmp(sse, "AES256") != 0 && strncmp(sse, "aws:kms", 7) != 0)
        return error_set(error, -EINVAL,
                         "encryption \"%.40s\" is none of AES256, aws:kms, aws:kms:dsse, SSE-C",
                         sse);
    if (!customer)
        return 0;
    uint8_t key[48], digest[16];
    const char *text = options->sse_key ? options->sse_key : "";
    if (strlen(text) != 44 || hash_unbase64(text, 44, key, sizeof(key)) != 32)
        return error_set(error, -EINVAL, "SSE-C needs a key of 32 bytes in base64");
    if (!s3->endpoint.https)
        return error_set(error, -EINVAL,
                         "SSE-C needs an https endpoint: the key goes with requests");
    hash_md5(key, 32, digest);
    hash_base64(digest, sizeof(digest), s3->sse_key_md5);
    return 0;
}

static int take_options(struct s3_store *s3, const struct store_url *url,
                        const struct store_options *options, struct error *error)
{
    int rc = copy_text(&s3->bucket, url->bucket, error);
    if (rc == 0)
        rc = credentials_region(options, &s3->region, error);
    if (rc == 0)
        rc = find_endpoint(s3, options, error);
    if (rc == 0)
        rc = copy_text(&s3->storage_class, options->storage_class, error);
    if (rc == 0)
        rc = copy_text(&s3->sse, options->sse, error);
    if (rc == 0)
        rc = copy_text(&s3->sse_key, options->sse_key, error);
    if (rc == 0)
        rc = check_sse(s3, options, error);
    s3->request_payer = options->request_payer;
    return rc;
}

int store_s3_new(const struct store_url *url, const struct store_options *options,
                 struct loop *loop, struct metrics *metrics, struct store **out,
                 struct error *error)
{
    struct s3_store *s3 = calloc(1, sizeof(*s3));
    char name[80];
    snprintf(name, sizeof(name), "s3://%s", url->bucket);
    if (!s3)
        return error_set(error, -ENOMEM, "no memory");
    store_init(&s3->store, &s3_backend, loop, NULL, name);
    s3->store.caps = s3_caps;
    struct http_options http = {
        .connections = options->connections ? options->connections : 64,
        .connect_timeout_ms = options->connect_timeout_ms ? options->connect_timeout_ms : 5000,
        .stall_timeout_ms = options->stall_timeout_ms ? options->stall_timeout_ms : 10000,
        .client = options->client,
        .ca_file = options->ca_file ? options->ca_file : from_environment("AWS_CA_BUNDLE", NULL),
        .no_verify_tls = options->no_verify_tls,
    };
    int rc = take_options(s3, url, options, error);
    if (rc == 0 && !options->anonymous)
        rc = credentials_new(&s3->credentials, loop, options, s3->region, error);
    if (rc == 0)
        rc = http_new(&s3->http, loop, &http, metrics, error);
    if (rc) {
        s3_free(&s3->store);
        return rc;
    }
    *out = &s3->store;
    return 0;
}
