#include "inventory_live.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "meta/inventory.h"
#include "volume/stores.h"
#include "volume/volume.h"

#define S3 "s3://"

json_t *inventory_counts_json(const struct inventory_counts *counts, json_t *hidden)
{
    const struct {
        const char *name;
        uint64_t value;
    } numbers[] = {
        {"rows", counts->rows},
        {"keys", counts->names.keys},
        {"files", counts->names.files},
        {"directories", counts->names.directories},
        {"bytes", counts->names.bytes},
        {"skipped", counts->skipped},
        {"listed_directories", counts->listed},
    };
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
        json_object_set_new(hidden, numbers[i].name, json_integer((json_int_t)numbers[i].value));
    return hidden;
}

struct live {
    struct meta *meta;
    const struct meta_examine *what;
};

static void show(void *arg, const struct inventory_counts *counts)
{
    const struct live *live = arg;
    atomic_store(&live->meta->inventory_bytes, counts->bytes);
    atomic_store(&live->meta->inventory_all_bytes, counts->all_bytes);
}

static bool is_stopped(void *arg)
{
    const struct live *live = arg;
    return live->what->stop && live->what->stop(live->what->arg);
}

/* The bucket of the inventory, and the manifest's key in it; of a local file nothing. */
static int open_place(struct meta *meta, const struct meta_examine *what, struct store **out,
                      const char **key, struct error *error)
{
    const char *place = what->inventory;
    *out = NULL;
    *key = place;
    if (place[0] == '/')
        return 0;
    const char *slash = strncmp(place, S3, strlen(S3)) ? NULL : strchr(place + strlen(S3), '/');
    cleanup(free_ptr) struct meta_store *info = calloc(1, sizeof(*info));
    if (!info)
        return -ENOMEM;
    if (!slash || !slash[1] || (size_t)(slash - place) >= sizeof(info->url))
        return error_set(error, -EINVAL, "%.200s: s3://BUCKET/KEY of a manifest.json is wanted",
                         place);
    snprintf(info->url, sizeof(info->url), "%.*s", (int)(slash - place), place);
    snprintf(info->options, sizeof(info->options), "%s", what->options ? what->options : "{}");
    info->read_only = true;
    *key = slash + 1;
    return store_config_connect(info, store_loop(meta->store), out, error);
}

static int import(struct meta *meta, const struct meta_examine *what, json_t *counted,
                  struct error *error)
{
    struct live live = {meta, what};
    struct inventory_counts counts;
    const char *name = strrchr(meta->format.store, '/');
    struct inventory_config config = {.living = meta,
                                      .bucket = name ? name + 1 : meta->format.store,
                                      .filter = what->filter ? what->filter : "",
                                      .progress = show,
                                      .stop = is_stopped,
                                      .arg = &live};
    int rc = open_place(meta, what, &config.store, &config.manifest, error);
    if (rc == 0)
        rc = meta_import_inventory(&config, &counts, counted, error);
    if (rc == 0)
        inventory_counts_json(&counts, counted);
    store_free(config.store);
    return rc;
}

int inventory_import_live(struct meta *meta, const struct meta_examine *what, json_t **out,
                          struct error *error)
{
    if (meta->config.read_only || atomic_load(&meta->refuse))
        return error_set(error, -EROFS, "the volume is read-only");
    if (atomic_exchange(&meta->inventory_runs, true))
        return error_set(error, -EBUSY, "an inventory is being imported");
    atomic_store(&meta->inventory_bytes, 0);
    atomic_store(&meta->inventory_all_bytes, 0);
    json_t *counted = json_object();
    int rc = import(meta, what, counted, error);
    atomic_store(&meta->inventory_runs, false);
    if (rc == 0)
        *out = json_incref(counted);
    json_decref(counted);
    return rc;
}
