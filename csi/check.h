/* Checks of what a request says, before anything is done. Each returns CSI_OK, or a code with a
 * sentence in the call. Pure but for csi_fail. */
#ifndef SLUICE_CSI_CHECK_H
#define SLUICE_CSI_CHECK_H

#include <stdbool.h>

#include "call.h"
#include "csi.pb-c.h"

#define CHECK_ID_MAX 256   /* of ids that are given to us */
#define CHECK_NAME_MAX 128 /* of names and of ids that we make: the specification's limit */

/* Not empty, at most CHECK_ID_MAX bytes. */
int check_id(struct csi_call *call, const char *field, const char *value);
/* Absolute, at most 4,095 bytes, no component "." or "..", no "//", no "/" at the end, not "/". */
int check_path(struct csi_call *call, const char *field, const char *value);
/* There is one, it has an access mode, and it is for a filesystem. */
int check_capability(struct csi_call *call, const Csi__V1__VolumeCapability *capability);
/* At least one, and each as above. */
int check_capabilities(struct csi_call *call, size_t count,
                       Csi__V1__VolumeCapability *const *capabilities);
/* The size to give: required, at least 1 byte, default_size if nothing is asked; within the limit.
 * *out is written on success. */
int check_capacity(struct csi_call *call, const Csi__V1__CapacityRange *range, int64_t default_size,
                   int64_t *out);

bool mode_is_read_only(const Csi__V1__VolumeCapability *capability);
/* Several nodes, at least one of which writes. */
bool mode_is_shared(const Csi__V1__VolumeCapability *capability);

/* The last value of a key, or NULL. Empty values count as none. */
const char *pair_value(size_t count, Csi__V1__Pair *const *pairs, const char *key);

#endif
