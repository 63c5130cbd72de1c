/* The mount processes of this host, found in /proc by their command line. The driver keeps no
 * process ids: they would be stale after a restart. Needs the host's process namespace. */
#ifndef SLUICE_CSI_DAEMONS_H
#define SLUICE_CSI_DAEMONS_H

#include <stdbool.h>

#include "call.h"

#define DAEMONS_MAX 8 /* of one mount point: one, and what is ending */

struct daemons {
    int pidfds[DAEMONS_MAX];
    unsigned count;
};

/* `sluice mount URL STAGING …` processes. Release with daemons_done. */
void daemons_find(const char *staging, struct daemons *out);
void daemons_done(struct daemons *d);
void daemons_signal(const struct daemons *d, int number);
/* True: all have ended. False: `timeout_ms` or the call's time ran out. */
bool daemons_wait(const struct daemons *d, int timeout_ms, const struct csi_call *call);
/* Each one with a --meta-dir: where it is mounted, and that directory. */
void daemons_each(void (*fn)(void *arg, const char *staging, const char *meta_dir), void *arg);

#endif
