#include "frame.h"

#include <errno.h>

#include "busy.h"

int frame_enter(struct csi *csi, struct csi_call *call, const char *volume_id)
{
    if (busy_enter(csi->busy, volume_id))
        return CSI_OK;
    return csi_fail(call, CSI_ABORTED, "another call for this volume is in work; call again");
}

void frame_leave(struct csi *csi, const char *volume_id)
{
    busy_leave(csi->busy, volume_id);
}

int frame_end(struct csi_call *call, int code, const ProtobufCMessage *reply)
{
    return code == CSI_OK ? csi_reply(call, reply) : code;
}

int frame_fail_io(struct csi_call *call, const struct error *error)
{
    int code = error->code == -EBUSY || error->code == -ELOOP     ? CSI_FAILED_PRECONDITION
               : error->code == -ENOENT                           ? CSI_NOT_FOUND
               : error->code == -ENOSPC || error->code == -EDQUOT ? CSI_RESOURCE_EXHAUSTED
                                                                  : CSI_INTERNAL;
    return csi_fail(call, code, "%s", error_text(error));
}
