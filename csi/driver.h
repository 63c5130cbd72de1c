/* The driver's inside: what its handlers share. */
#ifndef SLUICE_CSI_DRIVER_H
#define SLUICE_CSI_DRIVER_H

#include <pthread.h>

#include "call.h"
#include "csi/csi.h"

struct server;
struct busy;
struct registry;
struct scrape;

struct csi {
    struct csi_config config; /* immutable */
    char *socket;             /* path of the endpoint */
    struct server *server;
    struct busy *busy;
    struct scrape *scrape;     /* NULL: nobody asked for metrics */
    struct registry *registry; /* of a controller */
    pthread_t cleaner;         /* stage_clean_up */
    bool cleaning;             /* it runs: a mount does not answer */
    char *cgroups[16];         /* cgroup.procs files that mounts move to; NULL-ended */
};

extern const struct csi_method csi_identity_methods[], csi_controller_methods[], csi_node_methods[],
    csi_registration_methods[]; /* each ended by name NULL */

#define CSI_METHOD(service_, method_, handler_)                                                    \
    {                                                                                              \
        .service = &(service_), .name = (method_), .run = (handler_)                               \
    }

#endif
