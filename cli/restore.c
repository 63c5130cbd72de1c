/* sluice restore: the metadata of a volume from a backup. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "bucket_command.h"
#include "cli.h"
#include "meta/backup.h"
#include "places.h"
#include "progress.h"

struct restore_options {
    struct bucket_options bucket;
    char *from, *at;
    bool list;
};

static const struct option_spec specs[] = {
    {"from", 0, OPTION_STRING, offsetof(struct restore_options, from), "URL",
     "Where the backups are (PREFIX.sluice/backup/ in the volume's own bucket)"},
    {"at", 0, OPTION_STRING, offsetof(struct restore_options, at), "TIME",
     "The newest backup up to this time, 2026-11-21T16:11 in UTC (the newest of all)"},
    {"list", 0, OPTION_FLAG, offsetof(struct restore_options, list), NULL,
     "Only list the backups that are there"},
};

static const char *const mount_rows[] = {"take-over", NULL};

static const struct bucket_command command = {
    .name = "sluice restore",
    .usage = "URL",
    .doc = "Brings the metadata of the volume at URL back from a backup into its metadata "
           "directory, which must hold none. Every file of the backup is checked by its SHA-256, "
           "the database record by record, and then its objects against the bucket: files whose "
           "object has changed since or is gone are listed."
           "\vWhat was done after the backup is not in it: files that were made since are in the "
           "bucket and appear under their paths; reading a file that was changed or deleted since "
           "shows what the bucket has.\n\nExamples:\n"
           "  sluice restore s3://data\n"
           "  sluice restore s3://data --at 2026-11-21T16 --meta-dir /ssd/data\n"
           "  sluice mount s3://data /mnt\n\n"
           "Ends with 0 when the metadata is restored, 1 if not, 2 for a wrong call.",
    .own = specs,
    .own_count = ARRAY_LEN(specs),
    .mount = mount_rows,
};

struct report {
    json_t *list; /* --json; else NULL */
};

static void note_difference(void *arg, const char *path, const char *key, bool gone)
{
    struct report *report = arg;
    if (!report->list) {
        printf("%s: its object %s %s\n", path, key, gone ? "is gone" : "has changed");
        return;
    }
    json_t *row = json_pack("{s:s+,s:b}", "path", "/", path, "gone", (int)gone);
    if (row)
        json_array_append_new(report->list, row);
}

/* `arg`: a list for JSON, or NULL. */
static int take_time(void *arg, const char *time)
{
    if (arg)
        json_array_append_new(arg, json_string(time));
    else
        printf("%s\n", time);
    return 0;
}

static void print_result(const struct restore_result *result, struct report *report,
                         const char *directory)
{
    char bytes[32];
    if (report->list) {
        bucket_print_json(json_pack("{s:s,s:I,s:I,s:I,s:I,s:I,s:O}", "time", result->time, "files",
                                    (json_int_t)result->files, "bytes", (json_int_t)result->bytes,
                                    "objects", (json_int_t)result->objects, "changed",
                                    (json_int_t)result->changed, "missing",
                                    (json_int_t)result->missing, "differences", report->list));
        return;
    }
    printf("backup %s (%s in %" PRIu64 " files) is restored in %s; of %" PRIu64 " objects %" PRIu64
           " have changed since, %" PRIu64 " are gone\n",
           result->time, progress_bytes(result->bytes, bytes), result->files, directory,
           result->objects, result->changed, result->missing);
}

static int restore(const struct restore_options *options, struct bucket *own, struct bucket *from,
                   struct error *error)
{
    char base[META_KEY_MAX + 1];
    struct report report = {.list = options->bucket.json ? json_array() : NULL};
    struct restore_result result;
    backup_base(own->url.prefix, base);
    struct restore_config config = {
        .place = {.store = options->from ? from->store : own->store,
                  .base = options->from ? from->url.prefix : base},
        .store = own->store,
        .prefix = own->url.prefix,
        .at = options->at,
        .directory = own->meta_dir,
        .take_over = options->bucket.mount.take_over,
        .differs = note_difference,
        .arg = &report,
    };
    int r = 0;
    if (options->list) {
        r = backup_list(&config.place, take_time, report.list, error);
        if (r >= 0 && report.list)
            bucket_print_json(json_pack("{s:O}", "backups", report.list));
    } else {
        r = places_make_noted(own->meta_dir, &own->made, error);
        if (r == 0)
            r = backup_restore(&config, &result, error);
        if (r == 0)
            print_result(&result, &report, own->meta_dir);
    }
    json_decref(report.list);
    return r;
}

int cli_restore(int argc, char **argv)
{
    struct restore_options options = {0};
    struct option_result result;
    struct bucket own = {0}, from = {0};
    struct error error = {0};
    int r = bucket_options_parse(&options.bucket, &command, argc, argv, &result);
    if (r) {
        bucket_options_free(&options.bucket);
        return r - 1;
    }
    r = bucket_init(&own, &options.bucket, result.args[0], &error);
    if (r == 0)
        r = bucket_open(&own, &options.bucket, false, &error);
    if (r == 0 && options.from)
        r = bucket_init(&from, &options.bucket, options.from, &error);
    if (r == 0 && options.from)
        r = bucket_open(&from, &options.bucket, false, &error);
    if (r == 0)
        r = restore(&options, &own, &from, &error);
    if (r < 0)
        r = cli_fail("restore", &error);
    bucket_close(&from);
    bucket_close(&own);
    bucket_options_free(&options.bucket);
    return r;
}
