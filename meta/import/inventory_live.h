/* Import from an inventory into a volume that is in use. */
#ifndef SLUICE_META_INVENTORY_LIVE_H
#define SLUICE_META_INVENTORY_LIVE_H

#include "meta/check.h"

/* As meta_examine with an inventory, of an open volume: one at a time (-EBUSY). Blocking. */
int inventory_import_live(struct meta *meta, const struct meta_examine *what, json_t **out,
                          struct error *error);

#endif
