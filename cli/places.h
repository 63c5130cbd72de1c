/* Where a mount keeps its local state, by default. */
#ifndef SLUICE_CLI_PLACES_H
#define SLUICE_CLI_PLACES_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"
#include "s3/open.h"

/* A directory of this volume under /var/lib/sluice (root) or $XDG_STATE_HOME/sluice: named after
 * the URL, with a digest of URL and endpoint. New string. */
char *places_default(const struct store_url *url, const char *endpoint);
/* Makes a directory and its parents. Those it makes are 0700. */
int places_make(const char *path, struct error *error);
/* What was made, so that it can be taken away again. Zero: nothing. */
struct places_made {
    char *paths[64]; /* owned, from the outermost on; more are not noted */
    unsigned count;
};
int places_make_noted(const char *path, struct places_made *made, struct error *error);
bool places_made_it(const struct places_made *made, const char *path);
/* Removes what was made and is empty; may be called again. */
void places_undo(const struct places_made *made);
void places_made_done(struct places_made *made);
/* With all that is in it. */
void places_remove(const char *path);
/* How many names a directory has; 0 if it is not there. */
unsigned places_count(const char *path);

/* A file:// bucket that held the metadata, or its own mount point, would serve itself: -EINVAL with
 * a sentence if the path lies inside. */
int places_outside_bucket(const struct store_url *url, const char *path, struct error *error);

#endif
