/* What the service listens on: addresses that it binds, and sockets that it was started with. */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "server_impl.h"

#define BACKLOG 1024

struct listen_call {
    struct server *server;
    const char *address;
    char *bound;
    struct error *error;
    int rc;
};

static void on_listener_closed(uv_handle_t *handle)
{
    struct listener *listener = handle->data;
    free(listener->path);
    free(listener);
}

static void init_handle(struct listener *listener, bool is_unix)
{
    if (is_unix)
        uv_pipe_init(loop_uv(listener->server->loop), &listener->u.pipe, 0);
    else
        uv_tcp_init(loop_uv(listener->server->loop), &listener->u.tcp);
    listener->u.handle.data = listener;
}

static int listen_tcp(struct listener *listener, const char *text, struct error *error)
{
    cleanup(free_ptr) char *host = strdup(text);
    char *colon = host ? strrchr(host, ':') : NULL;
    struct sockaddr_storage address;
    char *end = NULL;
    unsigned long port = colon ? strtoul(colon + 1, &end, 10) : 0;
    init_handle(listener, false);
    if (!colon || !colon[1] || *end || port > 65535)
        return error_set(error, -EINVAL, "tcp://%s: ADDRESS:PORT is needed", text);
    *colon = 0;
    char *name = host;
    size_t len = strlen(name);
    if (name[0] == '[' && len > 1 && name[len - 1] == ']') {
        name[len - 1] = 0;
        name++;
    }
    int rc = uv_ip4_addr(name, (int)port, (struct sockaddr_in *)&address);
    if (rc < 0)
        rc = uv_ip6_addr(name, (int)port, (struct sockaddr_in6 *)&address);
    if (rc < 0)
        return error_set(error, -EINVAL, "tcp://%s: this is no address", text);
    rc = uv_tcp_bind(&listener->u.tcp, (struct sockaddr *)&address, 0);
    return rc < 0 ? error_set(error, rc, "tcp://%s: %s", text, uv_strerror(rc)) : 0;
}

/* A socket file that nobody listens on is what a killed process left. */
static bool is_dead(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct stat st;
    if (lstat(path, &st) < 0 || !S_ISSOCK(st.st_mode) || strlen(path) >= sizeof(address.sun_path))
        return false;
    memcpy(address.sun_path, path, strlen(path));
    cleanup(close_fd) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    return fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0 &&
           errno == ECONNREFUSED;
}

static int listen_unix(struct listener *listener, const char *path, struct error *error)
{
    init_handle(listener, true);
    if (path[0] != '/')
        return error_set(error, -EINVAL, "unix://%s: an absolute path is needed", path);
    if (is_dead(path))
        unlink(path);
    int rc = uv_pipe_bind(&listener->u.pipe, path);
    if (rc == 0) {
        listener->path = strdup(path);
        if (!listener->path)
            rc = UV_ENOMEM;
        else if (chmod(path, 0660) < 0)
            rc = -errno;
    }
    return rc < 0 ? error_set(error, rc, "unix://%s: %s", path, uv_strerror(rc)) : 0;
}

static int check_inherited(int fd, struct sockaddr_storage *name)
{
    int type = 0, listening = 0;
    socklen_t len = sizeof(type);
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0)
        return -errno;
    len = sizeof(listening);
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) < 0)
        return -errno;
    len = sizeof(*name);
    if (getsockname(fd, (struct sockaddr *)name, &len) < 0)
        return -errno;
    bool known =
        name->ss_family == AF_INET || name->ss_family == AF_INET6 || name->ss_family == AF_UNIX;
    return type == SOCK_STREAM && listening && known ? 0 : -EPROTONOSUPPORT;
}

/* Its rights, and its file if it has one, are those of who made it. */
static int listen_inherited(struct listener *listener, const char *text, struct error *error)
{
    struct sockaddr_storage name = {0};
    char *end;
    long fd = strtol(text, &end, 10);
    int rc =
        *text && !*end && fd >= 0 && fd <= INT32_MAX ? check_inherited((int)fd, &name) : -EINVAL;
    bool is_unix = name.ss_family == AF_UNIX;
    init_handle(listener, is_unix);
    if (rc < 0)
        return error_set(error, rc, "fd://%s: no stream socket of TCP or Unix that listens", text);
    if (is_unix && !(listener->path = strdup(((struct sockaddr_un *)&name)->sun_path)))
        return error_set(error, -ENOMEM, "out of memory");
    fcntl((int)fd, F_SETFD, FD_CLOEXEC);
    rc = is_unix ? uv_pipe_open(&listener->u.pipe, (uv_file)fd)
                 : uv_tcp_open(&listener->u.tcp, (uv_os_sock_t)fd);
    return rc < 0 ? error_set(error, rc, "fd://%s: %s", text, uv_strerror(rc)) : 0;
}

static void tell_bound(const struct listener *listener, char *out)
{
    struct sockaddr_storage name;
    int len = sizeof(name);
    char host[64] = "";
    if (listener->path) {
        snprintf(out, SERVER_ADDRESS_MAX, "unix://%s", listener->path);
        return;
    }
    uv_tcp_getsockname(&listener->u.tcp, (struct sockaddr *)&name, &len);
    uv_ip_name((struct sockaddr *)&name, host, sizeof(host));
    unsigned port = ntohs(name.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&name)->sin6_port
                                                     : ((struct sockaddr_in *)&name)->sin_port);
    snprintf(out, SERVER_ADDRESS_MAX, name.ss_family == AF_INET6 ? "tcp://[%s]:%u" : "tcp://%s:%u",
             host, port);
}

static int open_address(struct listener *listener, const char *address, struct error *error)
{
    if (strncmp(address, "unix://", 7) == 0)
        return listen_unix(listener, address + 7, error);
    if (strncmp(address, "tcp://", 6) == 0)
        return listen_tcp(listener, address + 6, error);
    if (strncmp(address, "fd://", 5) == 0)
        return listen_inherited(listener, address + 5, error);
    init_handle(listener, false);
    return error_set(error, -EINVAL, "%s: tcp://ADDRESS:PORT or unix:///PATH is needed", address);
}

static void listen_on_loop(void *arg)
{
    struct listen_call *call = arg;
    struct listener *listener = calloc(1, sizeof(*listener));
    if (!listener) {
        call->rc = error_set(call->error, -ENOMEM, "out of memory");
        return;
    }
    listener->server = call->server;
    call->rc = open_address(listener, call->address, call->error);
    if (call->rc == 0) {
        int rc = uv_listen(&listener->u.stream, BACKLOG, server_on_connection);
        if (rc < 0)
            call->rc = error_set(call->error, rc, "%s: %s", call->address, uv_strerror(rc));
    }
    if (call->rc < 0) {
        uv_close(&listener->u.handle, on_listener_closed);
        return;
    }
    DL_APPEND(call->server->listeners, listener);
    if (call->bound)
        tell_bound(listener, call->bound);
}

int meta_server_listen(struct server *server, const char *address, char *bound, struct error *error)
{
    struct listen_call call = {
        .server = server, .address = address, .bound = bound, .error = error};
    loop_call(server->loop, listen_on_loop, &call);
    return call.rc;
}

void server_listen_end(struct server *server)
{
    struct listener *listener, *next;
    DL_FOREACH_SAFE(server->listeners, listener, next)
    {
        DL_DELETE(server->listeners, listener);
        uv_close(&listener->u.handle, on_listener_closed);
    }
}
