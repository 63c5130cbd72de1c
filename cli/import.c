/* sluice import: names from an inventory of the bucket. */
#include "cli.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "bucket_command.h"
#include "meta/inventory.h"
#include "places.h"
#include "progress.h"

#define S3 "s3://"

struct import_options {
    struct bucket_options bucket;
    const char *inventory, *filter;
};

static const struct option_spec specs[] = {
    {"inventory", 0, OPTION_STRING, offsetof(struct import_options, inventory), "MANIFEST",
     "manifest.json of an S3 Inventory (CSV, Parquet, ORC): s3://BUCKET/KEY, or a local file"},
    {"filter", 0, OPTION_STRING, offsetof(struct import_options, filter), "PREFIX",
     "The inventory has only keys that begin so: other directories are listed as always"},
};

static const char doc[] =
    "Reads the names of a large bucket from its inventory, so that a mount need not list it. The "
    "volume must not be mounted. The bucket is not changed."
    "\vA name that came so is looked at when it is read: what has changed since the inventory was "
    "made shows its new content, what is gone goes. Names that came later show up when their "
    "directory is listed anew: after --import-ttl (give the mount a long one), or `sluice "
    "refresh`. What is known already stays as it is. If it is interrupted, the same command goes "
    "on where it was.\n\nExample:\n"
    "  sluice import s3://data --inventory s3://reports/data/all/2026-11-20T00-00Z/manifest.json\n"
    "  sluice mount s3://data /mnt --import-ttl 7d\n\n"
    "Ends with 0 if all was recorded, 1 if not, 2 for a wrong call.";

static const struct bucket_command command = {
    .name = "sluice import",
    .usage = "URL",
    .doc = doc,
    .own = specs,
    .own_count = ARRAY_LEN(specs),
    .mount = bucket_format_options,
};

static void show(void *arg, const struct inventory_counts *counts)
{
    progress_show(arg, counts->all_bytes - MIN(counts->bytes, counts->all_bytes));
}

static void print_counts(const struct inventory_counts *c, json_t *hidden, const char *place,
                         bool json)
{
    char amount[32];
    const struct {
        const char *name;
        uint64_t value;
    } numbers[] = {
        {"rows", c->rows},
        {"keys", c->names.keys},
        {"files", c->names.files},
        {"directories", c->names.directories},
        {"bytes", c->names.bytes},
        {"skipped", c->skipped},
        {"listed_directories", c->listed},
    };
    if (json) {
        for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
            json_object_set_new(hidden, numbers[i].name,
                                json_integer((json_int_t)numbers[i].value));
        json_object_set_new(hidden, "metadata", json_string(place));
        bucket_print_json(json_incref(hidden));
        return;
    }
    printf("%" PRIu64 " files (%s) of the inventory are in %s; %" PRIu64
           " directories need not be listed\n",
           c->names.files, progress_bytes(c->names.bytes, amount), place, c->listed);
    if (c->names.hidden)
        printf("%" PRIu64 " keys are no paths and have no names; --json lists the first of them\n",
               c->names.hidden);
}

/* Another store, for the bucket of the inventory. *key points into `place`. */
static int open_inventory(const struct import_options *options, struct bucket *bucket,
                          struct store **out, const char **key, struct error *error)
{
    const char *place = options->inventory;
    struct store_options store;
    struct store_url url;
    char text[128];
    *out = NULL;
    *key = place;
    if (strncmp(place, S3, strlen(S3)) != 0)
        return 0;
    const char *slash = strchr(place + strlen(S3), '/');
    if (!slash || !slash[1] || (size_t)(slash - place) >= sizeof(text))
        return error_set(error, -EINVAL, "%s: s3://BUCKET/KEY of a manifest.json is wanted", place);
    snprintf(text, sizeof(text), "%.*s", (int)(slash - place), place);
    int rc = store_url_parse(text, &url, error);
    if (rc < 0)
        return rc;
    mount_options_store(&options->bucket.mount, &store);
    store.read_only = true;
    rc = store_open(&url, &store, bucket->loop, NULL, out, error);
    store_url_done(&url);
    *key = slash + 1;
    return rc;
}

static int import(const struct import_options *options, struct bucket *bucket, struct error *error)
{
    struct progress progress;
    struct meta_volume format;
    struct inventory_counts counts;
    const char *slash = strrchr(bucket->url.bucket, '/');
    struct inventory_config config = {.bucket = slash ? slash + 1 : bucket->url.bucket,
                                      .filter = options->filter ? options->filter : "",
                                      .progress = show,
                                      .arg = &progress};
    int rc = open_inventory(options, bucket, &config.store, &config.manifest, error);
    if (rc == 0)
        rc = places_make(bucket->meta_dir, error);
    if (rc == 0)
        rc = mount_options_format(&options->bucket.mount, &format, error);
    if (rc == 0) {
        bucket_volume(bucket, &options->bucket, &config.volume);
        config.volume.format = &format;
        json_t *hidden = json_object();
        progress_init(&progress, "importing", true);
        rc = meta_import_inventory(&config, &counts, hidden, error);
        progress_end(&progress);
        if (!rc)
            print_counts(&counts, hidden, bucket->meta_dir, options->bucket.json);
        json_decref(hidden);
    }
    store_free(config.store);
    return rc;
}

int cli_import(int argc, char **argv)
{
    struct import_options options = {0};
    struct option_result result;
    struct bucket bucket = {0};
    struct error error = {0};
    int r = bucket_options_parse(&options.bucket, &command, argc, argv, &result);
    if (r) {
        bucket_options_free(&options.bucket);
        return r - 1;
    }
    if (!options.inventory)
        r = error_set(&error, -EINVAL, "--inventory MANIFEST is missing");
    if (r == 0)
        r = bucket_init(&bucket, &options.bucket, result.args[0], &error);
    if (r == 0)
        r = bucket_open(&bucket, &options.bucket, true, &error);
    if (r == 0)
        r = import(&options, &bucket, &error);
    if (r < 0)
        r = cli_fail("import", &error);
    bucket_close(&bucket);
    bucket_options_free(&options.bucket);
    return r;
}
