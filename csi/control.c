#include "control.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"

#define REPLY_MAX (1 << 20)

json_t *control_ask(const char *mountpoint, const char *request)
{
    cleanup(free_ptr) char *path = NULL;
    struct buf reply;
    char bytes[8192];
    if (asprintf(&path, "%s/.sluice/ctl", mountpoint) < 0)
        return NULL;
    cleanup(close_fd) int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0 || write(fd, request, strlen(request)) < 0)
        return NULL;
    buf_init(&reply, REPLY_MAX);
    for (ssize_t n; (n = read(fd, bytes, sizeof(bytes))) > 0;)
        buf_put(&reply, bytes, (size_t)n);
    json_t *json = json_loadb((const char *)reply.data, reply.len, 0, NULL);
    buf_done(&reply);
    if (json_is_true(json_object_get(json, "ok")))
        return json;
    json_decref(json);
    return NULL;
}

int control_set_quota(const char *mountpoint, int64_t bytes)
{
    char request[128];
    snprintf(request, sizeof(request),
             "{\"op\":\"quota-set\",\"path\":\"/\",\"max_bytes\":%" PRId64 "}", bytes);
    json_t *reply = control_ask(mountpoint, request);
    int r = reply ? 0 : -EIO;
    json_decref(reply);
    return r;
}
