/* The places of a volume in its stores, for checks that walk them one after the other. */
#ifndef SLUICE_META_CHECK_STORES_H
#define SLUICE_META_CHECK_STORES_H

#include "meta/check.h"

#define CHECK_BASE_MAX (META_KEY_MAX + 8)

struct check_place {
    unsigned number;           /* 0: the volume's own store */
    char base[CHECK_BASE_MAX]; /* what its keys begin with: route and prefix */
    bool read_only;
};

/* The volume's own, first, and if `store` is a mux those of the others. Returns their number, or
 * -errno; the caller frees *out. */
int check_places(struct engine *engine, struct store *store, struct check_place **out);

#endif
