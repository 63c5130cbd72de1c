/* A volume's daemon on this node: started, looked at, ended. The caller holds the volume (busy.h).
 */
#ifndef SLUICE_CSI_STAGE_H
#define SLUICE_CSI_STAGE_H

#include "launch.h"

struct stage {
    const char *volume_id, *staging;
    struct launch launch;
    const char *group; /* volume_mount_group, "" for none */
};

/* Mounts the volume at `staging`, if it is not. Any code. */
int stage_up(struct csi *csi, struct csi_call *call, const struct stage *stage);
/* Brings all to the bucket, unmounts, waits for the daemon's end. What is not mounted succeeds.
 * `forget`: what is kept on the host goes too, if nothing is in it that the bucket lacks. */
int stage_down(struct csi *csi, struct csi_call *call, const char *volume_id, const char *staging,
               bool forget);
/* At the driver's start, beside calls if it takes long: records are made again for daemons that
 * have none, mounts whose daemon is gone are taken away, what was not used for long is removed. */
void stage_clean_up(struct csi *csi);

#endif
