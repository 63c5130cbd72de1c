#include "check_stores.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "s3/mux.h"
#include "stores.h"

int check_places(struct engine *engine, struct store *store, struct check_place **out)
{
    struct meta_volume volume;
    int rc = engine_volume(engine, &volume);
    if (rc < 0)
        return rc;
    cleanup(free_ptr) struct meta_store *known = calloc(META_STORES_MAX, sizeof(*known));
    struct check_place *places = known ? calloc(META_STORES_MAX + 1, sizeof(*places)) : NULL;
    if (!places)
        return -ENOMEM;
    strcpy(places[0].base, volume.prefix);
    int count = store_is_mux(store) ? engine_stores(engine, known, META_STORES_MAX) : 0;
    for (int i = 0; i < count; i++) {
        struct check_place *place = &places[i + 1];
        place->number = known[i].number;
        place->read_only = known[i].read_only;
        strcpy(place->base + store_route_print(place->number, place->base), known[i].prefix);
    }
    *out = places;
    return count + 1;
}

int meta_check_connect(struct engine *engine, struct store *mux, struct error *error)
{
    cleanup(free_ptr) struct meta_store *known = calloc(META_STORES_MAX, sizeof(*known));
    int count = known ? engine_stores(engine, known, META_STORES_MAX) : -ENOMEM;
    for (int i = 0; i < count; i++) {
        struct store *store = NULL;
        struct error why = {0};
        known[i].read_only = true;
        int rc = store_config_open(&known[i], store_loop(mux), &store, &why);
        if (rc == 0)
            rc = store_mux_set(mux, known[i].number, known[i].name, store, NULL);
        if (rc < 0)
            return error_set(error, rc, "store %s: %s", known[i].name,
                             why.code ? error_text(&why) : strerror(-rc));
    }
    return count < 0 ? count : 0;
}
