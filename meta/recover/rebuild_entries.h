/* The second part of a rebuild: what entries below `.sluice/e/` say. */
#ifndef SLUICE_META_REBUILD_ENTRIES_H
#define SLUICE_META_REBUILD_ENTRIES_H

#include "volume/volume.h"

/* Applies all entries, writes them anew as this volume's own, and removes those of the volumes
 * before. Blocking. Can be repeated. */
int rebuild_entries(struct meta *meta, unsigned parallel, uint64_t *applied, struct error *error);

#endif
