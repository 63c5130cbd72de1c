/*
 * The metrics of a node for Prometheus, on one port: the driver's own, and those of all its mounts,
 * with the label `volume`, the volume's id. Mounts are asked by their control files when somebody
 * scrapes. One that does not answer holds up nobody: it shows as sluice_csi_mount_up 0.
 */
#ifndef SLUICE_CSI_SCRAPE_H
#define SLUICE_CSI_SCRAPE_H

#include <stdint.h>

#include "base/error.h"

struct scrape;

/* Listens at `address` (HOST:PORT). 0, or -errno with a sentence. Both are borrowed until
 * scrape_stop. */
int scrape_start(const char *address, const char *state_dir, struct scrape **out,
                 struct error *error);
/* A call of the specification has ended. Any thread; NULL is allowed. */
void scrape_note_call(struct scrape *s, const char *method, const char *code, uint64_t ms);
/* NULL is allowed. */
void scrape_stop(struct scrape *s);

#endif
