/* The driver as a whole: its table of methods, start and end. */
#include "driver.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "busy.h"
#include "server.h"

#define THREADS 32
#define CALLS 64

static const struct csi_method *const all_methods[] = {csi_identity_methods,
                                                       csi_registration_methods};

struct running {
    struct csi csi;
    struct csi_method methods[32];
    const char *sockets[2];
};

bool csi_driver_name_valid(const char *name)
{
    size_t len = strlen(name);
    const char *plain = "abcdefghijklmnopqrstuvwxyz0123456789";
    if (!len || len > 63 || strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-.") != len)
        return false;
    return strchr(plain, name[0]) && strchr(plain, name[len - 1]);
}

static int socket_path(const char *endpoint, char **out, struct error *error)
{
    const char *path = NULL;
    if (strncmp(endpoint, "unix://", 7) == 0)
        path = endpoint + 7;
    else if (strncmp(endpoint, "unix:", 5) == 0)
        path = endpoint + 5;
    if (!path || path[0] != '/' || strlen(path) > 100)
        return error_set(error, -EINVAL,
                         "the endpoint must be unix:///PATH of at most 100 bytes, not '%s'",
                         endpoint);
    *out = strdup(path);
    return *out ? 0 : error_set(error, -ENOMEM, "out of memory");
}

static unsigned collect_methods(struct running *r)
{
    unsigned count = 0;
    for (size_t t = 0; t < ARRAY_LEN(all_methods); t++)
        for (const struct csi_method *m = all_methods[t]; m->name; m++)
            if (count < ARRAY_LEN(r->methods))
                r->methods[count++] = *m;
    return count;
}

static int start(struct running *r, struct error *error)
{
    struct csi *csi = &r->csi;
    int result = socket_path(csi->config.endpoint, &csi->socket, error);
    if (result < 0)
        return result;
    csi->busy = busy_new();
    if (!csi->busy)
        return error_set(error, -ENOMEM, "out of memory");
    struct server_config config = {
        .sockets = r->sockets,
        .methods = r->methods,
        .method_count = collect_methods(r),
        .csi = csi,
        .threads = THREADS,
        .calls = CALLS,
        .default_timeout_ms = csi->config.timeout_ms,
    };
    r->sockets[config.socket_count++] = csi->socket;
    if (csi->config.registration)
        r->sockets[config.socket_count++] = csi->config.registration;
    result = server_start(&config, &csi->server, error);
    if (result == 0)
        log_info("serving", "driver=%s endpoint=%s node=%s", csi->config.name, csi->socket,
                 csi->config.node_id ? csi->config.node_id : "");
    return result;
}

int csi_start(const struct csi_config *config, struct csi **out, struct error *error)
{
    struct running *r = calloc(1, sizeof(*r));
    if (!r)
        return error_set(error, -ENOMEM, "out of memory");
    r->csi.config = *config;
    int result = start(r, error);
    if (result < 0) {
        csi_stop(&r->csi);
        return result;
    }
    *out = &r->csi;
    return 0;
}

void csi_stop(struct csi *csi)
{
    if (!csi)
        return;
    struct running *r = container_of(csi, struct running, csi);
    server_free(csi->server);
    busy_free(csi->busy);
    free(csi->socket);
    free(r);
}
