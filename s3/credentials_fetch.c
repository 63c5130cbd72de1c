#include "credentials_fetch.h"

#include <curl/curl.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "sigv4.h"
#include "xml.h"

#define REPLY_MAX (256u << 10)
#define METADATA_TIMEOUT_MS 2000L
#define STS_TIMEOUT_MS 15000L

void credential_set_done(struct credential_set *set)
{
    free(set->access_key);
    free(set->secret_key);
    free(set->session_token);
    free(set->region);
    explicit_bzero(set->days, sizeof(set->days));
    *set = (struct credential_set){0};
}

void credential_source_done(struct credential_source *source)
{
    free(source->command);
    free(source->role_arn);
    free(source->session_name);
    free(source->token_file);
    free(source->sts_endpoint);
    free(source->url);
    free(source->authorization);
    free(source->authorization_file);
    *source = (struct credential_source){0};
}

/* Keys and tokens go into headers. */
static bool is_printable(const char *text)
{
    for (; *text; text++) {
        if (*text <= ' ' || *text > '~')
            return false;
    }
    return true;
}

/* Two digits, and *text behind them; 0 if there are none. */
static unsigned two_digits(const char **text)
{
    const char *t = *text;
    if (t[0] < '0' || t[0] > '9' || t[1] < '0' || t[1] > '9')
        return 0;
    *text += 2;
    return (unsigned)(t[0] - '0') * 10 + (unsigned)(t[1] - '0');
}

/* Seconds since 1970 of a time in ISO 8601, which may be that of a place ("…+02:00"). 0: none. */
static int64_t expiry_s(const char *text)
{
    int64_t at_s = text ? (int64_t)(xml_parse_time(text) / NS_PER_S) : 0;
    const char *clock = at_s ? strchr(text, 'T') : NULL;
    const char *zone = clock ? strpbrk(clock, "+-") : NULL;
    if (!zone)
        return at_s;
    const char *digits = zone + 1;
    int64_t ahead_s = 3600 * (int64_t)two_digits(&digits);
    digits += *digits == ':';
    ahead_s += 60 * (int64_t)two_digits(&digits);
    return *zone == '+' ? at_s - ahead_s : at_s + ahead_s;
}

static int take_set(struct credential_set *out, const char *access_key, const char *secret_key,
                    const char *token, const char *expires, struct error *error)
{
    if (!access_key || !*access_key || !secret_key || !*secret_key || !is_printable(access_key) ||
        !is_printable(secret_key) || (token && !is_printable(token)))
        return error_set(error, -EACCES, "the answer has no usable access key");
    *out = (struct credential_set){
        .access_key = strdup(access_key),
        .secret_key = strdup(secret_key),
        .session_token = token && *token ? strdup(token) : NULL,
        .expires_s = expiry_s(expires),
    };
    if (!out->access_key || !out->secret_key || (token && *token && !out->session_token)) {
        credential_set_done(out);
        return error_set(error, -ENOMEM, "no memory");
    }
    return 0;
}

static const char *json_text(const json_t *root, const char *name)
{
    return json_string_value(json_object_get(root, name));
}

int credential_parse_json(const char *text, size_t len, const char *token_name,
                          struct credential_set *out, struct error *error)
{
    json_error_t why;
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);
    if (!root)
        return error_set(error, -EACCES, "the answer is not JSON: line %d: %.100s", why.line,
                         why.text);
    int rc = take_set(out, json_text(root, "AccessKeyId"), json_text(root, "SecretAccessKey"),
                      json_text(root, token_name), json_text(root, "Expiration"), error);
    json_decref(root);
    return rc;
}

/* ---- a program ---- */

static int fetch_process(const struct credential_source *source, struct credential_set *out,
                         struct error *error)
{
    FILE *pipe = popen(source->command, "re");
    if (!pipe)
        return error_set(error, -EIO, "credential_process does not start: %s", strerror(errno));
    cleanup(free_ptr) char *text = malloc(REPLY_MAX);
    size_t len = text ? fread(text, 1, REPLY_MAX, pipe) : 0;
    int status = pclose(pipe);
    if (!text)
        return error_set(error, -ENOMEM, "no memory");
    if (status == -1 || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return error_set(error, -EACCES, "credential_process failed (status %d)",
                         WIFEXITED(status) ? WEXITSTATUS(status) : -1);
    int rc = credential_parse_json(text, len, "SessionToken", out, error);
    if (rc)
        error_prefix(error, "credential_process");
    return rc;
}

/* ---- HTTP ---- */

struct call {
    const char *url, *method, *body;
    struct curl_slist *headers; /* taken */
    long timeout_ms;
    bool direct; /* never through a proxy: the address is a link-local one */
};

static size_t on_data(char *data, size_t size, size_t count, void *arg)
{
    struct buf *reply = arg;
    buf_put(reply, data, size * count);
    return buf_error(reply) ? 0 : size * count;
}

static int http_call(const struct call *call, struct buf *reply, long *status, struct error *error)
{
    CURL *easy = curl_easy_init();
    if (!easy) {
        curl_slist_free_all(call->headers);
        return error_set(error, -ENOMEM, "no memory");
    }
    char text[CURL_ERROR_SIZE] = "";
    curl_easy_setopt(easy, CURLOPT_URL, call->url);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, call->timeout_ms);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, text);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_data);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, reply);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, call->headers);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "sluice/" SLUICE_VERSION);
    if (call->direct)
        curl_easy_setopt(easy, CURLOPT_NOPROXY, "*");
    const char *bundle = getenv("AWS_CA_BUNDLE");
    if (bundle && *bundle)
        curl_easy_setopt(easy, CURLOPT_CAINFO, bundle);
    if (call->body)
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, call->body);
    if (call->method)
        curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, call->method);
    CURLcode code = curl_easy_perform(easy);
    *status = 0;
    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, status);
    curl_easy_cleanup(easy);
    curl_slist_free_all(call->headers);
    if (code != CURLE_OK)
        return error_set(error, -EIO, "%.200s: %s", call->url,
                         text[0] ? text : curl_easy_strerror(code));
    buf_printf(reply, "%s", "");
    return buf_error(reply) ? error_set(error, -ENOMEM, "no memory") : 0;
}

static int get_ok(const struct call *call, struct buf *reply, struct error *error)
{
    long status;
    int rc = http_call(call, reply, &status, error);
    if (rc)
        return rc;
    if (status != 200)
        return error_set(error, -EACCES, "%.200s: HTTP %ld", call->url, status);
    return 0;
}

static struct curl_slist *header(const char *name, const char *value)
{
    cleanup(free_ptr) char *line = NULL;
    if (asprintf(&line, "%s: %s", name, value) < 0) {
        line = NULL;
        return NULL;
    }
    return curl_slist_append(NULL, line);
}

/* The text of a small file, without the newline at its end. */
static char *read_text(const char *path, struct error *error)
{
    FILE *file = fopen(path, "re");
    if (!file) {
        error_set(error, -EACCES, "cannot read %s: %s", path, strerror(errno));
        return NULL;
    }
    char *text = malloc(REPLY_MAX + 1);
    size_t len = text ? fread(text, 1, REPLY_MAX, file) : 0;
    fclose(file);
    if (!text) {
        error_set(error, -ENOMEM, "no memory");
        return NULL;
    }
    while (len > 0 && strchr("\r\n \t", text[len - 1]))
        len--;
    text[len] = '\0';
    return text;
}

/* ---- the sources on the network ---- */

static int fetch_container(const struct credential_source *source, struct credential_set *out,
                           struct error *error)
{
    cleanup(free_ptr) char *from_file = NULL;
    const char *authorization = source->authorization;
    if (source->authorization_file) {
        from_file = read_text(source->authorization_file, error);
        if (!from_file)
            return -EACCES;
        authorization = from_file;
    }
    if (authorization && strpbrk(authorization, "\r\n"))
        return error_set(error, -EACCES, "the container's authorization token is not one line");
    cleanup(buf_done) struct buf reply;
    buf_init(&reply, REPLY_MAX);
    struct call call = {
        .url = source->url,
        .headers = authorization ? header("Authorization", authorization) : NULL,
        .timeout_ms = METADATA_TIMEOUT_MS,
        .direct = true,
    };
    int rc = get_ok(&call, &reply, error);
    if (rc == 0)
        rc = credential_parse_json((const char *)reply.data, reply.len, "Token", out, error);
    if (rc)
        error_prefix(error, "container credentials");
    return rc;
}

static int metadata_get(const struct credential_source *source, const char *token, const char *path,
                        const char *name, struct buf *reply, struct error *error)
{
    cleanup(free_ptr) char *url = NULL;
    if (asprintf(&url, "%s%s%s", source->url, path, name) < 0) {
        url = NULL;
        return error_set(error, -ENOMEM, "no memory");
    }
    struct call call = {
        .url = url,
        .headers = header("X-aws-ec2-metadata-token", token),
        .timeout_ms = METADATA_TIMEOUT_MS,
        .direct = true,
    };
    return get_ok(&call, reply, error);
}

static int fetch_instance(const struct credential_source *source, struct credential_set *out,
                          struct error *error)
{
    static const char path[] = "/latest/meta-data/iam/security-credentials/";
    cleanup(buf_done) struct buf token, role, reply;
    buf_init(&token, 4096);
    buf_init(&role, 4096);
    buf_init(&reply, REPLY_MAX);
    cleanup(free_ptr) char *url = NULL;
    if (asprintf(&url, "%s/latest/api/token", source->url) < 0) {
        url = NULL;
        return error_set(error, -ENOMEM, "no memory");
    }
    struct call call = {
        .url = url,
        .method = "PUT",
        .headers = header("X-aws-ec2-metadata-token-ttl-seconds", "21600"),
        .timeout_ms = METADATA_TIMEOUT_MS,
        .direct = true,
    };
    int rc = get_ok(&call, &token, error);
    if (rc == 0 && !is_printable((const char *)token.data))
        rc = error_set(error, -EACCES, "the session token is not one line");
    if (rc == 0)
        rc = metadata_get(source, (const char *)token.data, path, "", &role, error);
    if (rc == 0) {
        char *name = (char *)role.data;
        name[strcspn(name, "\r\n")] = '\0';
        if (!*name || !is_printable(name) || strchr(name, '/'))
            rc = error_set(error, -EACCES, "the instance has no role");
        else
            rc = metadata_get(source, (const char *)token.data, path, name, &reply, error);
    }
    if (rc == 0)
        rc = credential_parse_json((const char *)reply.data, reply.len, "Token", out, error);
    if (rc)
        error_prefix(error, "instance metadata");
    return rc;
}

static void put_field(struct buf *body, const char *name, const char *value)
{
    buf_printf(body, "%s%s=", body->len > 0 ? "&" : "", name);
    sigv4_encode(body, value, strlen(value), 0);
}

static int parse_sts(const struct buf *reply, long status, struct credential_set *out,
                     struct error *error)
{
    char access_key[256] = "", secret_key[256] = "", token[3072] = "", expires[64] = "";
    char code[64] = "", message[200] = "";
    struct xml_text good[] = {{"AccessKeyId", access_key, sizeof(access_key)},
                              {"SecretAccessKey", secret_key, sizeof(secret_key)},
                              {"SessionToken", token, sizeof(token)},
                              {"Expiration", expires, sizeof(expires)}};
    struct xml_text bad[] = {{"Code", code, sizeof(code)}, {"Message", message, sizeof(message)}};
    struct xml_failure failure;
    if (status != 200) {
        struct error ignored;
        xml_parse_texts(reply->data, reply->len, "ErrorResponse", bad, ARRAY_LEN(bad), &failure,
                        &ignored);
        return error_set(error, status >= 500 ? -EIO : -EACCES, "HTTP %ld %s %s", status, code,
                         message);
    }
    int rc = xml_parse_texts(reply->data, reply->len, "AssumeRoleWithWebIdentityResponse", good,
                             ARRAY_LEN(good), &failure, error);
    return rc ? -EACCES : take_set(out, access_key, secret_key, token, expires, error);
}

static int fetch_web_identity(const struct credential_source *source, struct credential_set *out,
                              struct error *error)
{
    cleanup(free_ptr) char *token = read_text(source->token_file, error);
    if (!token)
        return -EACCES;
    cleanup(buf_done) struct buf body, reply;
    buf_init(&body, 0);
    buf_init(&reply, REPLY_MAX);
    put_field(&body, "Action", "AssumeRoleWithWebIdentity");
    put_field(&body, "Version", "2011-06-15");
    put_field(&body, "RoleArn", source->role_arn);
    put_field(&body, "RoleSessionName", source->session_name);
    put_field(&body, "WebIdentityToken", token);
    buf_printf(&body, "%s", "");
    if (buf_error(&body))
        return error_set(error, -ENOMEM, "no memory");
    struct call call = {
        .url = source->sts_endpoint,
        .body = (const char *)body.data,
        .timeout_ms = STS_TIMEOUT_MS,
    };
    long status;
    int rc = http_call(&call, &reply, &status, error);
    if (rc == 0)
        rc = parse_sts(&reply, status, out, error);
    if (rc)
        error_prefix(error, "web identity");
    return rc;
}

static int fetch_keys(const struct credential_source *source, struct credential_set *out,
                      struct error *error)
{
    struct store_keys keys = {0};
    int rc = source->keys.fetch(source->keys.arg, &keys, error);
    if (rc)
        return rc;
    *out = (struct credential_set){
        .access_key = TAKE_PTR(keys.access_key),
        .session_token = TAKE_PTR(keys.session_token),
        .region = TAKE_PTR(keys.region),
        .expires_s = (int64_t)(clock_wall_ns() / NS_PER_S) + keys.valid_s,
        .day_count = keys.day_count,
    };
    memcpy(out->days, keys.days, sizeof(out->days));
    store_keys_done(&keys);
    return 0;
}

int credential_source_fetch(const struct credential_source *source, struct credential_set *out,
                            struct error *error)
{
    switch (source->kind) {
    case CREDENTIALS_PROCESS:
        return fetch_process(source, out, error);
    case CREDENTIALS_WEB_IDENTITY:
        return fetch_web_identity(source, out, error);
    case CREDENTIALS_CONTAINER:
        return fetch_container(source, out, error);
    case CREDENTIALS_INSTANCE:
        return fetch_instance(source, out, error);
    case CREDENTIALS_KEYS:
        return fetch_keys(source, out, error);
    case CREDENTIALS_STATIC:
        break;
    }
    return error_set(error, -EACCES, "fixed credentials cannot be asked for again");
}
