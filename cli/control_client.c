#include "control_client.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/hash.h"

#define REPLY_MAX (64u << 20) /* bytes of one reply */

/* The real path; with `may_miss` also of something that is not there itself, a symbolic link to
 * nothing always. */
static char *resolve(const char *path, bool may_miss)
{
    struct stat st;
    char *real = realpath(path, NULL);
    if (real || errno != ENOENT || (!may_miss && lstat(path, &st) < 0))
        return real;
    cleanup(free_ptr) char *copy = strdup(path);
    if (!copy)
        return NULL;
    char *slash = strrchr(copy, '/');
    const char *name = slash ? slash + 1 : path;
    if (slash)
        *slash = 0;
    cleanup(free_ptr) char *directory = realpath(slash ? (*copy ? copy : "/") : ".", NULL);
    if (!directory ||
        asprintf(&real, "%s/%s", strcmp(directory, "/") == 0 ? "" : directory, name) < 0)
        return NULL;
    return real;
}

/* Goes up from `path` until a directory has a control file. */
static int find_control(struct control_client *client, char *path, struct error *error,
                        const char *shown)
{
    size_t len = strlen(path);
    for (size_t end = len;;) {
        cleanup(free_ptr) char *control = NULL;
        if (asprintf(&control, "%.*s/.sluice/ctl", (int)end, path) < 0)
            return error_set(error, -ENOMEM, "out of memory");
        client->fd = open(control, O_RDWR | O_CLOEXEC);
        if (client->fd >= 0) {
            client->inside = strdup(end < len ? path + end : "/");
            client->mountpoint = strndup(end ? path : "/", end ? end : 1);
            return client->inside && client->mountpoint
                       ? 0
                       : error_set(error, -ENOMEM, "out of memory");
        }
        if (errno == EACCES || errno == ENOTCONN || errno == EIO || errno == ESTALE)
            return error_set(error, -errno, "%s: %s", control, strerror(errno));
        if (end == 0)
            break;
        while (end > 0 && path[--end] != '/')
            ;
    }
    return error_set(error, -ENODEV, "%s is not in a mount of sluice (`sluice mount` makes one)",
                     shown);
}

static int open_client(const char *path, bool may_miss, struct control_client *out,
                       struct error *error)
{
    *out = (struct control_client){.fd = -1};
    cleanup(free_ptr) char *real = resolve(path, may_miss);
    if (!real)
        return error_set(error, -errno, "%s: %s", *path ? path : "''", strerror(errno));
    if (strcmp(real, "/") == 0)
        real[0] = 0;
    int r = find_control(out, real, error, path);
    if (r < 0)
        control_client_close(out);
    return r;
}

int control_client_open(const char *path, struct control_client *out, struct error *error)
{
    return open_client(path, false, out, error);
}

void control_client_close(struct control_client *client)
{
    free(client->mountpoint);
    free(client->inside);
    if (client->fd >= 0)
        close(client->fd);
    *client = (struct control_client){.fd = -1};
}

static int read_reply(int fd, struct buf *reply, struct error *error)
{
    for (;;) {
        uint8_t room[65536];
        ssize_t n = read(fd, room, sizeof(room));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_set(error, -errno, "the mount's control file: %s", strerror(errno));
        if (n == 0)
            break;
        buf_put(reply, room, (size_t)n);
    }
    return buf_error(reply) < 0 ? error_set(error, -E2BIG, "the mount's reply is too large") : 0;
}

static int parse_reply(const struct buf *reply, json_t **out, struct error *error)
{
    json_t *root = json_loadb((const char *)reply->data, reply->len, 0, NULL);
    if (!json_is_object(root)) {
        json_decref(root);
        return error_set(error, -EBADMSG, "the mount's reply is not JSON");
    }
    if (json_is_true(json_object_get(root, "ok"))) {
        *out = root;
        return 0;
    }
    const char *text = json_string_value(json_object_get(root, "message"));
    int code = (int)json_integer_value(json_object_get(root, "errno"));
    error_set(error, code > 0 ? -code : -EIO, "%s",
              text ? text : "the mount refused without a reason");
    json_decref(root);
    return error->code;
}

int control_client_call(struct control_client *client, json_t *request, json_t **reply,
                        struct error *error)
{
    cleanup(free_ptr) char *text = request ? json_dumps(request, JSON_COMPACT) : NULL;
    json_decref(request);
    if (!text)
        return error_set(error, -ENOMEM, "out of memory");
    ssize_t n = write(client->fd, text, strlen(text));
    if (n != (ssize_t)strlen(text))
        return error_set(error, n < 0 ? -errno : -EIO, "the mount's control file: %s",
                         strerror(n < 0 ? errno : EIO));
    struct buf answer;
    buf_init(&answer, REPLY_MAX);
    int r = read_reply(client->fd, &answer, error);
    if (r == 0)
        r = parse_reply(&answer, reply, error);
    buf_done(&answer);
    return r;
}

void control_client_set_path(const struct control_client *client, json_t *request)
{
    json_t *path = json_string(client->inside);
    if (path) {
        json_object_set_new(request, "path", path);
        return;
    }
    /* Not UTF-8: the bytes go in base64. */
    size_t len = strlen(client->inside);
    cleanup(free_ptr) char *coded = malloc(4 * ((len + 2) / 3) + 1);
    if (!coded)
        return;
    hash_base64(client->inside, len, coded);
    json_object_set_new(request, "path64", json_string(coded));
}

int control_client_call_at(struct control_client *client, const char *path, json_t *request,
                           json_t **reply, struct error *error)
{
    if (request)
        control_client_set_path(client, request);
    int r = control_client_call(client, request, reply, error);
    if (r < 0 && error && strcmp(error_text(error), strerror(-r)) == 0)
        error_prefix(error, "%s", path);
    return r;
}

int control_client_simple(const char *path, const char *op, json_t **reply, struct error *error)
{
    struct control_client client;
    /* Others may have just made it in the bucket. */
    int r = open_client(path, strcmp(op, "refresh") == 0, &client, error);
    if (r < 0)
        return r;
    r = control_client_call_at(&client, path, json_pack("{s:s}", "op", op), reply, error);
    control_client_close(&client);
    return r;
}
