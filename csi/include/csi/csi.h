/*
 * The CSI driver: gRPC on a unix socket (docs/csi.md). It changes nothing by itself: volumes are
 * mounts of `sluice mount`, which it starts and which outlive it; buckets are touched by `sluice
 * prefix`, which it runs.
 */
#ifndef SLUICE_CSI_CSI_H
#define SLUICE_CSI_CSI_H

#include <stdbool.h>

#include "base/error.h"

enum csi_role { CSI_CONTROLLER = 1, CSI_NODE = 2, CSI_ALL = 3 };

/* All strings are borrowed until csi_stop. */
struct csi_config {
    enum csi_role role;
    const char *name;         /* of the driver: csi.sluice.dev */
    const char *endpoint;     /* unix:///path */
    const char *registration; /* path of the socket for the kubelet; NULL: none */
    const char
        *kubelet_endpoint; /* path of the endpoint as the kubelet sees it; NULL: the endpoint's */
    const char *node_id;
    const char *state_dir;   /* absolute; on the host, survives the driver: records, metadata */
    const char *cache_dir;   /* data on its way to the store; NULL: in state_dir */
    const char *sluice;      /* the binary that is started for mounts and helpers, absolute */
    const char *cgroup;      /* mounts leave the driver's cgroup for this one; NULL: they stay */
    const char *cgroup_root; /* where the cgroup filesystem of the host is: /sys/fs/cgroup */
    const char *metrics_address; /* HOST:PORT; NULL: no metrics */
    bool allow_file;             /* file:// volumes: a directory of the host in place of a bucket */
    unsigned max_volumes;        /* on one node; 0 = no limit */
    unsigned timeout_ms;         /* the longest a call may take */
};

struct csi;
/* Cleans up what died before, listens, serves. 0, or -errno with a sentence. */
int csi_start(const struct csi_config *config, struct csi **out, struct error *error);
/* Ends the server; mounts stay. NULL is allowed. */
void csi_stop(struct csi *csi);

/* The checks of names that are given on the command line too. */
bool csi_driver_name_valid(const char *name);

#endif
