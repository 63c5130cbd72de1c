/* sluice rebuild: new metadata from a bucket alone. */
#include "cli.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "bucket_command.h"
#include "meta/rebuild.h"
#include "places.h"
#include "progress.h"

struct rebuild_options {
    struct bucket_options bucket;
    bool no_attributes;
};

static const struct option_spec specs[] = {
    {"no-attributes", 0, OPTION_FLAG, offsetof(struct rebuild_options, no_attributes), NULL,
     "Names, sizes and content only: one request for 1,000 files in place of one for each"},
};

static const char doc[] =
    "Makes the metadata of a volume anew from what is in the bucket: every settled file with its "
    "mode, owner and time. For when the metadata directory is lost. The bucket's files are not "
    "changed."
    "\vWhat was not settled when the metadata was lost is not in the bucket under its own name. If "
    "the rebuild is interrupted, the same command goes on where it was.\n\nExample:\n"
    "  sluice rebuild s3://data\n"
    "  sluice mount s3://data /mnt\n\n"
    "Ends with 0 if all was recorded, 1 if not, 2 for a wrong call.";

static const struct bucket_command command = {
    .name = "sluice rebuild",
    .usage = "URL",
    .doc = doc,
    .own = specs,
    .own_count = ARRAY_LEN(specs),
    .mount = bucket_format_options,
};

static void show(void *arg, const struct rebuild_counts *counts)
{
    struct progress *progress = arg;
    if (!progress->on)
        return;
    fprintf(stderr, "\r%" PRIu64 " keys, %" PRIu64 " directories\033[K", counts->keys,
            counts->directories);
    fflush(stderr);
    progress->shown = true;
}

static void print_counts(const struct rebuild_counts *c, json_t *hidden, const char *place,
                         bool json)
{
    char amount[32];
    if (json) {
        json_object_set_new(hidden, "keys", json_integer((json_int_t)c->keys));
        json_object_set_new(hidden, "files", json_integer((json_int_t)c->files));
        json_object_set_new(hidden, "directories", json_integer((json_int_t)c->directories));
        json_object_set_new(hidden, "bytes", json_integer((json_int_t)c->bytes));
        json_object_set_new(hidden, "with_attributes",
                            json_integer((json_int_t)c->with_attributes));
        json_object_set_new(hidden, "entries", json_integer((json_int_t)c->entries));
        json_object_set_new(hidden, "metadata", json_string(place));
        bucket_print_json(json_incref(hidden));
        return;
    }
    printf("%" PRIu64 " files (%s) and %" PRIu64 " directories are in %s; %" PRIu64
           " files with their mode, owner and time\n",
           c->files, progress_bytes(c->bytes, amount), c->directories, place, c->with_attributes);
    if (c->hidden)
        printf("%" PRIu64 " keys are no paths and have no names; --json lists the first of them\n",
               c->hidden);
}

static int rebuild(const struct rebuild_options *options, struct bucket *bucket,
                   struct error *error)
{
    struct progress progress;
    struct meta_volume format;
    struct rebuild_counts counts = {0};
    struct rebuild_config config = {
        .no_attributes = options->no_attributes, .progress = show, .arg = &progress};
    int rc = places_make_noted(bucket->meta_dir, &bucket->made, error);
    if (rc == 0)
        rc = mount_options_format(&options->bucket.mount, &format, error);
    if (rc < 0)
        return rc;
    bucket_volume(bucket, &options->bucket, &config.volume);
    config.volume.format = &format;
    json_t *hidden = json_object();
    progress_init(&progress, "rebuilding", false);
    rc = meta_rebuild(&config, &counts, hidden, error);
    progress_end(&progress);
    if (!rc)
        print_counts(&counts, hidden, bucket->meta_dir, options->bucket.json);
    json_decref(hidden);
    return rc;
}

int cli_rebuild(int argc, char **argv)
{
    struct rebuild_options options = {0};
    struct option_result result;
    struct bucket bucket = {0};
    struct error error = {0};
    int r = bucket_options_parse(&options.bucket, &command, argc, argv, &result);
    if (r) {
        bucket_options_free(&options.bucket);
        return r - 1;
    }
    r = bucket_init(&bucket, &options.bucket, result.args[0], &error);
    if (r == 0)
        r = bucket_open(&bucket, &options.bucket, true, &error);
    if (r == 0)
        r = rebuild(&options, &bucket, &error);
    if (r < 0)
        r = cli_fail("rebuild", &error);
    bucket_close(&bucket);
    bucket_options_free(&options.bucket);
    return r;
}
