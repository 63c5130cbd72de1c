/* What a mount tells scrapers besides the counters of its parts: --metrics-address. */
#ifndef SLUICE_CLI_MOUNT_METRICS_H
#define SLUICE_CLI_MOUNT_METRICS_H

#include "fs/data.h"
#include "meta/meta.h"

struct mount_metrics;

/* Registers the gauges, and with an address (may be NULL) serves all of them. */
int mount_metrics_start(struct metrics *metrics, const char *address, struct mount_metrics **out,
                        struct error *error);
/* The volume is open; it is read until mount_metrics_close. */
void mount_metrics_open(struct mount_metrics *m, struct meta *meta, struct data *data,
                        uint64_t staging_max);
void mount_metrics_ready(struct mount_metrics *m); /* the kernel has it */
void mount_metrics_close(struct mount_metrics *m); /* before data_close; NULL is allowed */
/* Ends the server: before anything goes away that the registry asks. NULL is allowed. */
void mount_metrics_stop(struct mount_metrics *m);
/* Before metrics_free, and nobody prints the registry between the two. */
void mount_metrics_free(struct mount_metrics *m);

#endif
