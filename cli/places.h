/* Where a mount keeps its local state, by default. */
#ifndef SLUICE_CLI_PLACES_H
#define SLUICE_CLI_PLACES_H

#include <sys/types.h>

#include "base/error.h"
#include "s3/open.h"

/* A directory of this volume under /var/lib/sluice (root) or $XDG_STATE_HOME/sluice: named after
 * the URL, with a digest of URL and endpoint. New string. */
char *places_default(const struct store_url *url, const char *endpoint);
/* Makes a directory and its parents. Those it makes are 0700. */
int places_make(const char *path, struct error *error);
/* A file:// bucket that held the metadata, or its own mount point, would serve itself: -EINVAL with
 * a sentence if the path lies inside. */
int places_outside_bucket(const struct store_url *url, const char *path, struct error *error);

#endif
