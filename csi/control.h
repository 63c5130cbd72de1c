/* Asking a mount through its control file (docs/control.md). Blocks while the mount does. */
#ifndef SLUICE_CSI_CONTROL_H
#define SLUICE_CSI_CONTROL_H

#include <jansson.h>
#include <stdint.h>

/* One request, as JSON text. The reply, to be released; NULL if there was none, or a refusal. */
json_t *control_ask(const char *mountpoint, const char *request);
/* Limits the whole volume to so many bytes. 0, or -EIO if the mount refused. */
int control_set_quota(const char *mountpoint, int64_t bytes);

#endif
