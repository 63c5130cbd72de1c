/* What the handlers of a volume's calls have in common: one call for a volume at a time, and their
 * end. */
#ifndef SLUICE_CSI_FRAME_H
#define SLUICE_CSI_FRAME_H

#include "base/error.h"
#include "driver.h"

/* CSI_OK: the volume is the caller's until frame_leave. ABORTED: another call has it. */
int frame_enter(struct csi *csi, struct csi_call *call, const char *volume_id);
void frame_leave(struct csi *csi, const char *volume_id);
/* Packs the reply if the code is CSI_OK. */
int frame_end(struct csi_call *call, int code, const ProtobufCMessage *reply);
/* The failure for what the host's filesystems and mounts refused. */
int frame_fail_io(struct csi_call *call, const struct error *error);

#endif
