/* The driver as a whole: its table of methods, start and end. */
#include "driver.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "busy.h"
#include "launch.h"
#include "records.h"
#include "registry.h"
#include "scrape.h"
#include "server.h"
#include "stage.h"

#define THREADS 32
#define CALLS 64
#define CLEAN_UP_S 5

static const struct {
    unsigned roles;
    const struct csi_method *methods;
} services[] = {
    {CSI_ALL, csi_identity_methods},
    {CSI_CONTROLLER, csi_controller_methods},
    {CSI_NODE, csi_node_methods},
    {CSI_NODE, csi_registration_methods},
};

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
    for (size_t s = 0; s < ARRAY_LEN(services); s++)
        for (const struct csi_method *m = services[s].methods; m->name; m++)
            if ((services[s].roles & r->csi.config.role) && count < ARRAY_LEN(r->methods))
                r->methods[count++] = *m;
    return count;
}

/* In every hierarchy of cgroup v1, or in the one of v2: a group of our own beside the containers',
 * so that a mount is not killed with the container that started it. */
static void add_cgroup(struct csi *csi, const char *hierarchy, unsigned *count)
{
    static const char *const copied[] = {"cpuset.cpus",
                                         "cpuset.mems"}; /* empty in a new v1 group */
    char path[4096], from[4096], value[1024];
    snprintf(path, sizeof(path), "%s/%s", hierarchy, csi->config.cgroup);
    if (*count + 1 >= ARRAY_LEN(csi->cgroups) || (mkdir(path, 0755) < 0 && errno != EEXIST))
        return;
    for (size_t i = 0; i < ARRAY_LEN(copied); i++) {
        snprintf(from, sizeof(from), "%.2000s/%s", hierarchy, copied[i]);
        snprintf(path, sizeof(path), "%.2000s/%.1000s/%s", hierarchy, csi->config.cgroup,
                 copied[i]);
        cleanup(close_fd) int in = open(from, O_RDONLY | O_CLOEXEC);
        cleanup(close_fd) int out = in < 0 ? -1 : open(path, O_WRONLY | O_CLOEXEC);
        ssize_t n = out < 0 ? 0 : read(in, value, sizeof(value));
        if (n > 0 && write(out, value, (size_t)n) < 0)
            log_warn("a cgroup could not be set up", "path=%s", path);
    }
    if (asprintf(&csi->cgroups[*count], "%s/%s/cgroup.procs", hierarchy, csi->config.cgroup) < 0)
        csi->cgroups[*count] = NULL;
    else
        ++*count;
}

static int make_cgroups(struct csi *csi, struct error *error)
{
    char path[4096];
    unsigned count = 0;
    const char *root = csi->config.cgroup_root;
    if (!csi->config.cgroup)
        return 0;
    snprintf(path, sizeof(path), "%s/cgroup.procs", root);
    if (access(path, F_OK) == 0)
        add_cgroup(csi, root, &count);
    DIR *list = count ? NULL : opendir(root);
    for (struct dirent *e; list && (e = readdir(list));) {
        snprintf(path, sizeof(path), "%.2000s/%s", root, e->d_name);
        if (e->d_name[0] != '.' && e->d_type == DT_DIR)
            add_cgroup(csi, path, &count);
    }
    if (list)
        closedir(list);
    return count
               ? 0
               : error_set(error, -ENOENT, "%s is no cgroup filesystem that can be written", root);
}

static void *clean_up(void *arg)
{
    stage_clean_up(arg);
    return NULL;
}

/* Before the first call, but not for long: a mount that hangs must not keep all the others waiting.
 */
static int start_clean_up(struct csi *csi, struct error *error)
{
    struct timespec end;
    int r = -pthread_create(&csi->cleaner, NULL, clean_up, csi);
    if (r < 0)
        return error_set(error, r, "cannot start a thread: %s", strerror(-r));
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += CLEAN_UP_S;
    csi->cleaning = pthread_timedjoin_np(csi->cleaner, NULL, &end) != 0;
    if (csi->cleaning)
        log_warn("a mount does not answer; the rest of the clean-up goes on beside the calls");
    return 0;
}

static int make_state(struct csi *csi, struct error *error)
{
    int r = records_make(csi->config.state_dir, error);
    if (r < 0)
        return r;
    launch_clean_up(csi->config.state_dir);
    if (csi->config.role & CSI_CONTROLLER) {
        csi->registry = registry_open(csi->config.state_dir);
        if (!csi->registry)
            return error_set(error, -ENOMEM, "out of memory");
    }
    if (!(csi->config.role & CSI_NODE))
        return 0;
    r = make_cgroups(csi, error);
    return r < 0 ? r : start_clean_up(csi, error);
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
    result = make_state(csi, error);
    if (result < 0)
        return result;
    if (csi->config.metrics_address) {
        result =
            scrape_start(csi->config.metrics_address, csi->config.state_dir, &csi->scrape, error);
        if (result < 0)
            return result;
    }
    struct server_config config = {
        .sockets = r->sockets,
        .methods = r->methods,
        .method_count = collect_methods(r),
        .csi = csi,
        .scrape = csi->scrape,
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
    scrape_stop(csi->scrape);
    if (csi->cleaning && pthread_tryjoin_np(csi->cleaner, NULL) != 0)
        return; /* it still hangs in a mount and uses all this; the process ends anyway */
    busy_free(csi->busy);
    registry_close(csi->registry);
    for (size_t i = 0; i < ARRAY_LEN(csi->cgroups); i++)
        free(csi->cgroups[i]);
    free(csi->socket);
    free(r);
}
