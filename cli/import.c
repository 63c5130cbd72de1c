/* sluice import: names from an inventory of the bucket. */
#include "cli.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "bucket_command.h"
#include "control_client.h"
#include "control_wait.h"
#include "meta/inventory.h"
#include "places.h"
#include "progress.h"
#include "store_json.h"

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
    "Reads the names of a large bucket from its inventory, so that it need not be listed: into a "
    "volume that is not mounted (URL), or in use (MOUNTPOINT). The bucket is not changed."
    "\vA name that came so is looked at when it is read: what has changed since the inventory was "
    "made shows its new content, what is gone goes. Names that came later show up when their "
    "directory is listed anew: after --import-ttl (give the mount a long one), or `sluice "
    "refresh`. What is known already stays as it is. If it is interrupted, the same command goes "
    "on where it was.\n\nExample:\n"
    "  sluice import s3://data --inventory s3://reports/2026-11-20/manifest.json\n"
    "  sluice mount s3://data /mnt --import-ttl 7d\n"
    "  sluice import /mnt --inventory s3://reports/2026-11-20/manifest.json\n\n"
    "A mount reads the inventory by itself, with its own credentials; a mount of a service has the "
    "service read it, from a bucket. --endpoint, --region, --profile and the like say how the "
    "inventory's bucket is reached, if it is not as the mount's environment says.\n\n"
    "Ends with 0 if all was recorded, 1 if not, 2 for a wrong call.";

static const struct bucket_command command = {
    .name = "sluice import",
    .usage = "URL|MOUNTPOINT",
    .doc = doc,
    .own = specs,
    .own_count = ARRAY_LEN(specs),
    .mount = bucket_format_options,
};

static void show(void *arg, const struct inventory_counts *counts)
{
    progress_show(arg, counts->all_bytes - MIN(counts->bytes, counts->all_bytes));
}

static uint64_t number(json_t *object, const char *key)
{
    return (uint64_t)json_integer_value(json_object_get(object, key));
}

/* `reply`: inventory_counts_json; taken. */
static void print_counts(json_t *reply, const char *place, bool json)
{
    char amount[32];
    if (json) {
        json_object_set_new(reply, "metadata", json_string(place));
        bucket_print_json(reply);
        return;
    }
    printf("%" PRIu64 " files (%s) of the inventory are in %s; %" PRIu64
           " directories need not be listed\n",
           number(reply, "files"), progress_bytes(number(reply, "bytes"), amount), place,
           number(reply, "listed_directories"));
    if (number(reply, "hidden_keys"))
        printf("%" PRIu64 " keys are no paths and have no names; --json lists the first of them\n",
               number(reply, "hidden_keys"));
    json_decref(reply);
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
        rc = places_make_noted(bucket->meta_dir, &bucket->made, error);
    if (rc == 0)
        rc = mount_options_format(&options->bucket.mount, &format, error);
    if (rc == 0) {
        bucket_volume(bucket, &options->bucket, &config.volume);
        config.volume.format = &format;
        json_t *reply = json_object();
        progress_init(&progress, "importing", true);
        rc = meta_import_inventory(&config, &counts, reply, error);
        progress_end(&progress);
        if (!rc)
            print_counts(inventory_counts_json(&counts, json_incref(reply)), bucket->meta_dir,
                         options->bucket.json);
        json_decref(reply);
    }
    store_free(config.store);
    return rc;
}

static bool left_to_read(const char *path, uint64_t *out)
{
    json_t *reply = NULL;
    struct error error = {0};
    if (control_client_simple(path, "status", &reply, &error) < 0)
        return false;
    json_t *state = json_object_get(json_object_get(reply, "volume"), "import");
    uint64_t all = number(state, "inventory_all_bytes");
    *out = all - MIN(all, number(state, "inventory_bytes"));
    json_decref(reply);
    return all > 0;
}

/* The mount does it, while it works, or its service. */
static int ask_mount(const struct import_options *options, const char *mountpoint,
                     struct error *error)
{
    const char *place = options->inventory;
    char absolute[PATH_MAX];
    struct store_options store;
    json_t *reply = NULL;
    if (strncmp(place, S3, strlen(S3)) != 0) {
        if (!realpath(place, absolute))
            return error_set(error, -errno, "%s: %s", place, strerror(errno));
        place = absolute;
    }
    mount_options_store(&options->bucket.mount, &store);
    if (store.access_key || store.secret_key || store.session_token)
        return error_set(error, -EINVAL,
                         "a mount reads the inventory with its own credentials, or a --profile");
    store.connections = 0;
    json_t *request = json_pack("{s:s, s:s, s:o}", "op", "import", "inventory", place, "options",
                                store_json(&store));
    if (!request)
        return error_set(error, -EINVAL, "the arguments are not UTF-8");
    if (options->filter)
        json_object_set_new(request, "filter", json_string(options->filter));
    int rc = control_wait(mountpoint, request, "importing", true, left_to_read, &reply, error);
    if (rc == 0)
        print_counts(reply, mountpoint, options->bucket.json);
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
    if (r == 0 && !strstr(result.args[0], "://")) {
        r = ask_mount(&options, result.args[0], &error);
    } else if (r == 0) {
        r = bucket_init(&bucket, &options.bucket, result.args[0], &error);
        if (r == 0)
            r = bucket_open(&bucket, &options.bucket, true, &error);
        if (r == 0)
            r = import(&options, &bucket, &error);
    }
    if (r < 0)
        r = cli_fail("import", &error);
    bucket_close(&bucket);
    bucket_options_free(&options.bucket);
    return r;
}
