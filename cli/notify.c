/* sluice notify: what a bucket tells of changes by others becomes refreshes of exactly these keys
 * in a mount. */
#include "cli.h"

#include <errno.h>
#include <inttypes.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/metrics_http.h"
#include "control_client.h"
#include "notify_event.h"
#include "options.h"

#define CONNECTIONS_MAX 16
#define TIMEOUT_S 30

struct notify_options {
    char *listen;
};

struct notify {
    struct control_client mount;
    char *store, *prefix; /* of the volume; owned */
    pthread_mutex_t lock;
    /* under lock */
    uint64_t taken, skipped;
};

/* One key, in the mount */

static int refresh_key(struct notify *n, const char *path, struct error *error)
{
    json_t *reply = NULL;
    int rc = control_client_call(&n->mount, json_pack("{s:s, s:s}", "op", "notify", "path", path),
                                 &reply, error);
    json_decref(reply);
    return rc;
}

struct batch {
    struct notify *notify;
    struct error *error;
};

static bool is_ours(const struct notify *n, const struct notify_event *event)
{
    const char *bucket = strncmp(n->store, "s3://", 5) == 0 ? n->store + 5 : NULL;
    size_t len = strlen(n->prefix);
    return (!bucket || strcmp(bucket, event->bucket) == 0) &&
           strncmp(event->key, n->prefix, len) == 0 && event->key[len] &&
           strncmp(event->key + len, ".sluice/", 8) != 0;
}

static int take_event(void *arg, const struct notify_event *event)
{
    struct batch *batch = arg;
    struct notify *n = batch->notify;
    if (!is_ours(n, event)) {
        n->skipped++;
        return 0;
    }
    int rc = refresh_key(n, event->key + strlen(n->prefix), batch->error);
    if (rc == -EINVAL) { /* a key that can be no path: `a//b`, `a/../b` */
        n->skipped++;
        return 0;
    }
    n->taken += rc >= 0;
    return rc < 0 ? error_prefix(batch->error, "%s", event->key) : 0;
}

/* One document. -EINVAL: it is none (nothing was done); other: the mount did not take it. */
static int take_text(struct notify *n, const char *text, size_t len, bool *more,
                     struct error *error)
{
    struct batch batch = {.notify = n, .error = error};
    pthread_mutex_lock(&n->lock);
    int rc = notify_events_parse(text, len, take_event, &batch, more, error);
    pthread_mutex_unlock(&n->lock);
    return rc;
}

/* Standard input: documents one after another, each from the beginning of a line */

static int read_input(struct notify *n, struct error *error)
{
    cleanup(free_ptr) char *text = NULL, *line = NULL;
    size_t len = 0, cap = 0, documents = 0;
    ssize_t got;
    while ((got = getline(&line, &cap, stdin)) >= 0) {
        bool more = false;
        if (!len && strspn(line, " \t\r\n") == (size_t)got)
            continue;
        if (len + (size_t)got > NOTIFY_TEXT_MAX)
            return error_set(error, -EINVAL, "notification %zu has more than %u bytes",
                             documents + 1, NOTIFY_TEXT_MAX);
        char *grown = realloc(text, len + (size_t)got + 1);
        if (!grown)
            return error_set(error, -ENOMEM, "out of memory");
        text = grown;
        memcpy(text + len, line, (size_t)got);
        len += (size_t)got;
        int rc = take_text(n, text, len, &more, error);
        if (rc < 0 && more)
            continue;
        if (rc < 0)
            return error_prefix(error, "notification %zu", documents + 1);
        documents++;
        len = 0;
        error_clear(error);
    }
    return len ? error_set(error, -EINVAL, "notification %zu is cut short", documents + 1) : 0;
}

/* HTTP: one document in the body of a POST */

struct upload {
    char *text; /* owned */
    size_t len;
    bool too_large;
};

static enum MHD_Result reply(struct MHD_Connection *connection, unsigned status, const char *text)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(strlen(text), (void *)text, MHD_RESPMEM_MUST_COPY);
    if (!response)
        return MHD_NO;
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, "text/plain");
    enum MHD_Result result = MHD_queue_response(connection, status, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result reply_upload(struct notify *n, struct MHD_Connection *connection,
                                    const struct upload *upload)
{
    struct error error = {0};
    char text[512];
    bool more;
    if (upload->too_large)
        return reply(connection, MHD_HTTP_CONTENT_TOO_LARGE, "a notification of more than 1 MiB\n");
    int rc = take_text(n, upload->text ? upload->text : "", upload->len, &more, &error);
    if (rc < 0)
        snprintf(text, sizeof(text), "%s\n", error_text(&error));
    else
        snprintf(text, sizeof(text), "%d records\n", rc);
    return reply(connection,
                 rc >= 0         ? MHD_HTTP_OK
                 : rc == -EINVAL ? MHD_HTTP_BAD_REQUEST
                                 : MHD_HTTP_SERVICE_UNAVAILABLE,
                 text);
}

static void add_body(struct upload *upload, const char *data, size_t len)
{
    char *grown = upload->len + len <= NOTIFY_TEXT_MAX && !upload->too_large
                      ? realloc(upload->text, upload->len + len)
                      : NULL;
    if (!grown) {
        upload->too_large = true;
        return;
    }
    memcpy(grown + upload->len, data, len);
    upload->text = grown;
    upload->len += len;
}

static enum MHD_Result answer(void *arg, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *data,
                              size_t *data_len, void **state)
{
    struct upload *upload = *state;
    (void)url;
    (void)version;
    if (!upload) {
        *state = calloc(1, sizeof(*upload));
        return *state ? MHD_YES : MHD_NO;
    }
    if (*data_len) {
        add_body(upload, data, *data_len);
        *data_len = 0;
        return MHD_YES;
    }
    if (strcmp(method, MHD_HTTP_METHOD_POST) == 0)
        return reply_upload(arg, connection, upload);
    if (strcmp(method, MHD_HTTP_METHOD_GET) == 0)
        return reply(connection, MHD_HTTP_OK, "POST notifications here\n");
    return reply(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "POST only\n");
}

static void forget_upload(void *arg, struct MHD_Connection *connection, void **state,
                          enum MHD_RequestTerminationCode code)
{
    struct upload *upload = *state;
    (void)arg;
    (void)connection;
    (void)code;
    if (upload)
        free(upload->text);
    free(upload);
    *state = NULL;
}

static int serve(struct notify *n, const char *address, struct error *error)
{
    struct sockaddr_storage at;
    uint32_t len;
    sigset_t mask;
    int number, rc = metrics_http_parse(address, &at, &len, error);
    if (rc < 0)
        return error_prefix(error, "--listen");
    sigemptyset(&mask);
    sigaddset(&mask, SIGTERM);
    sigaddset(&mask, SIGINT);
    pthread_sigmask(SIG_BLOCK, &mask, NULL);
    unsigned flags = MHD_USE_AUTO | MHD_USE_INTERNAL_POLLING_THREAD;
    if (at.ss_family == AF_INET6)
        flags |= MHD_USE_IPv6;
    errno = 0;
    struct MHD_Daemon *daemon = MHD_start_daemon(
        flags, 0, NULL, NULL, answer, n, MHD_OPTION_SOCK_ADDR, (struct sockaddr *)&at,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT,
        (unsigned)TIMEOUT_S, MHD_OPTION_NOTIFY_COMPLETED, forget_upload, NULL, MHD_OPTION_END);
    if (!daemon)
        return error_set(error, errno ? -errno : -EIO, "cannot listen at %s: %s", address,
                         strerror(errno ? errno : EIO));
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_BIND_PORT);
    printf("listening on port %u\n", info ? info->port : 0u);
    fflush(stdout);
    sigwait(&mask, &number);
    MHD_stop_daemon(daemon);
    return 0;
}

/* The command */

static int open_mount(struct notify *n, const char *path, struct error *error)
{
    json_t *status = NULL;
    int rc = control_client_simple(path, "status", &status, error);
    if (rc < 0)
        return rc;
    json_t *volume = json_object_get(json_object_get(status, "volume"), "volume");
    const char *store = json_string_value(json_object_get(volume, "store"));
    const char *prefix = json_string_value(json_object_get(volume, "prefix"));
    n->store = strdup(store ? store : "");
    n->prefix = strdup(prefix ? prefix : "");
    json_decref(status);
    if (!n->store || !n->prefix)
        return error_set(error, -ENOMEM, "out of memory");
    return control_client_open(path, &n->mount, error);
}

static const struct option_spec specs[] = {
    {"listen", 0, OPTION_STRING, offsetof(struct notify_options, listen), "ADDRESS",
     "Take notifications as HTTP POST there, as 127.0.0.1:9190, until SIGTERM (port 0: any)"},
};

static const struct option_set option_set = {
    .specs = specs,
    .count = ARRAY_LEN(specs),
    .usage = "MOUNTPOINT",
    .doc = "Takes the event notifications of a bucket (S3's JSON, one document after another on "
           "standard input, or by HTTP) and looks at exactly the keys that they name, so that the "
           "mount shows what others put, replaced or deleted without waiting for --import-ttl."
           "\vExamples:\n"
           "  sluice notify /mnt < events.json\n"
           "  sluice notify /mnt --listen 10.0.0.7:9190\n\n"
           "Notifications of other buckets, and of keys outside of the volume's prefix, are passed "
           "over. Whoever reaches the address can make the mount ask the bucket, no more.\n"
           "Ends with 0 when all was taken, 1 if not, 2 for a wrong call.",
    .args_min = 1,
    .args_max = 1,
};

int cli_notify(int argc, char **argv)
{
    struct notify_options options = {0};
    struct option_result result;
    struct notify n = {.mount = {.fd = -1}};
    struct error error = {0};
    int r = options_parse(&option_set, "sluice notify", argc, argv, &options, &result);
    if (r) {
        options_free(&option_set, &options);
        return r - 1;
    }
    pthread_mutex_init(&n.lock, NULL);
    r = open_mount(&n, result.args[0], &error);
    if (r == 0) {
        r = options.listen ? serve(&n, options.listen, &error) : read_input(&n, &error);
        if (r == 0 || n.taken || n.skipped)
            printf("%" PRIu64 " keys looked at, %" PRIu64 " passed over\n", n.taken, n.skipped);
        control_client_close(&n.mount);
    }
    if (r < 0)
        r = cli_fail("notify", &error);
    free(n.store);
    free(n.prefix);
    pthread_mutex_destroy(&n.lock);
    options_free(&option_set, &options);
    return r;
}
