/* Where a mount is to be. */
#ifndef SLUICE_CLI_MOUNT_POINT_H
#define SLUICE_CLI_MOUNT_POINT_H

#include "base/error.h"

/* Its real path, a new string: a directory, and no mount of ours yet. 0, or -errno. */
int mount_point_find(const char *path, char **out, struct error *error);

#endif
