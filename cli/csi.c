/* sluice csi: the CSI driver (docs/csi.md). */
#include "cli.h"

#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "csi/csi.h"
#include "options.h"

struct csi_options {
    char *role, *endpoint, *registration, *kubelet_endpoint, *name, *node_id, *log_level;
    char *state_dir, *cache_dir, *sluice, *cgroup, *cgroup_root, *metrics_address;
    bool allow_file;
    unsigned max_volumes;
    uint32_t timeout_ms;
};

#define AT(field) offsetof(struct csi_options, field)

static const struct option_spec specs[] = {
    {"role", 0, OPTION_CHOICE, AT(role), "ROLE",
     "controller (makes and deletes volumes), node (mounts them), or all (default)",
     .choices = "controller|node|all"},
    {"endpoint", 0, OPTION_STRING, AT(endpoint), "URL",
     "Socket to serve: unix:///PATH (unix:///csi/csi.sock)"},
    {"registration", 0, OPTION_STRING, AT(registration), "PATH",
     "Also serve the kubelet's plugin registration on this socket, in the kubelet's "
     "plugins_registry: no registrar is needed beside the driver"},
    {"kubelet-endpoint", 0, OPTION_STRING, AT(kubelet_endpoint), "PATH",
     "The endpoint's socket as the kubelet sees it (the same path)"},
    {"driver-name", 0, OPTION_STRING, AT(name), "NAME",
     "Name of the driver, as in StorageClass and CSIDriver (csi.sluice.dev)"},
    {"node-id", 0, OPTION_STRING, AT(node_id), "NAME", "Name of this node (the host's name)"},
    {"state-dir", 0, OPTION_STRING, AT(state_dir), "DIR",
     "Records and metadata of volumes. Must be on the host's own disk and outlive the driver "
     "(/var/lib/sluice/csi)"},
    {"cache-dir", 0, OPTION_STRING, AT(cache_dir), "DIR",
     "Written data on its way to the store (beside the metadata)"},
    {"sluice", 0, OPTION_STRING, AT(sluice), "FILE",
     "The program to start for mounts (this one). In a container: a copy on the host, so that a "
     "mount does not need the image any more"},
    {"cgroup", 0, OPTION_STRING, AT(cgroup), "NAME",
     "Put mounts into this cgroup of the host, so that they are not ended with the driver's "
     "container"},
    {"cgroup-root", 0, OPTION_STRING, AT(cgroup_root), "DIR",
     "Where the host's cgroup filesystem is (/sys/fs/cgroup)"},
    {"allow-file", 0, OPTION_FLAG, AT(allow_file), NULL,
     "Allow file:// volumes, directories of the host: who makes a volume then reaches every file"},
    {"max-volumes", 0, OPTION_UINT, AT(max_volumes), "N", "Volumes on one node (0: no limit)"},
    {"timeout", 0, OPTION_DURATION, AT(timeout_ms), "TIME",
     "The longest that a call may take, whatever its client allows (10m)", .min = 1000,
     .max = 3600000},
    {"metrics-address", 0, OPTION_STRING, AT(metrics_address), "HOST:PORT",
     "Serve metrics of the driver and of all its mounts there, by HTTP (docs/metrics.md)"},
    {"log-level", 0, OPTION_CHOICE, AT(log_level), "LEVEL", "error, warn, info or debug (info)",
     .choices = "error|warn|info|debug"},
};

static const struct option_set csi_option_set = {
    .specs = specs,
    .count = ARRAY_LEN(specs),
    .usage = "",
    .doc = "Serves the Container Storage Interface on a unix socket. Logs to stderr; ends with "
           "SIGTERM. Mounts go on without it."
           "\vExample:\n"
           "  sluice csi --role node --node-id node7 --endpoint unix:///csi/csi.sock\n\n"
           "Ends with 0 after SIGTERM, 1 if it could not start, 2 for a wrong call.",
    .reads_config = true,
};

static int serve(struct csi_options *o, const sigset_t *mask)
{
    struct error error = {0};
    struct csi *csi = NULL;
    char host[256] = "", own[PATH_MAX] = "";
    if (readlink("/proc/self/exe", own, sizeof(own) - 1) < 0)
        own[0] = 0;
    gethostname(host, sizeof(host) - 1);
    struct csi_config config = {
        .role = CSI_ALL,
        .name = o->name ? o->name : "csi.sluice.dev",
        .endpoint = o->endpoint ? o->endpoint : "unix:///csi/csi.sock",
        .registration = o->registration,
        .kubelet_endpoint = o->kubelet_endpoint,
        .node_id = o->node_id ? o->node_id : host,
        .state_dir = o->state_dir ? o->state_dir : "/var/lib/sluice/csi",
        .cache_dir = o->cache_dir,
        .sluice = o->sluice ? o->sluice : own,
        .cgroup = o->cgroup,
        .cgroup_root = o->cgroup_root ? o->cgroup_root : "/sys/fs/cgroup",
        .metrics_address = o->metrics_address,
        .allow_file = o->allow_file,
        .max_volumes = o->max_volumes,
        .timeout_ms = o->timeout_ms,
    };
    if (config.state_dir[0] != '/' || (o->sluice && o->sluice[0] != '/') ||
        (o->cache_dir && o->cache_dir[0] != '/')) {
        fputs("sluice csi: --state-dir, --cache-dir and --sluice must be absolute paths\n", stderr);
        return 2;
    }
    if (o->role && strcmp(o->role, "all") != 0)
        config.role = strcmp(o->role, "node") == 0 ? CSI_NODE : CSI_CONTROLLER;
    if (csi_start(&config, &csi, &error) < 0)
        return cli_fail("csi", &error);
    int number = 0;
    sigwait(mask, &number);
    log_info("asked to stop", "signal=%d", number);
    csi_stop(csi);
    return 0;
}

int cli_csi(int argc, char **argv)
{
    struct csi_options options = {.timeout_ms = 600000};
    struct option_result result;
    int r = options_parse(&csi_option_set, "sluice csi", argc, argv, &options, &result);
    if (r) {
        options_free(&csi_option_set, &options);
        return r - 1;
    }
    if (options.name && !csi_driver_name_valid(options.name)) {
        fprintf(stderr, "sluice csi: --driver-name '%s' is no domain name in lower case\n",
                options.name);
        options_free(&csi_option_set, &options);
        return 2;
    }
    enum log_level level = LOG_INFO;
    if (options.log_level)
        log_level_parse(options.log_level, &level);
    log_init(level, NULL);
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGTERM);
    sigaddset(&mask, SIGINT);
    pthread_sigmask(SIG_BLOCK, &mask, NULL);
    signal(SIGPIPE, SIG_IGN);
    r = serve(&options, &mask);
    options_free(&csi_option_set, &options);
    return r;
}
