/* sluice backup: the metadata of a volume, mounted or not, to a bucket. */
#include <errno.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "bucket_command.h"
#include "cli.h"
#include "control_client.h"
#include "meta/backup.h"
#include "meta/engine.h"
#include "progress.h"

struct backup_options {
    struct bucket_options bucket;
    char *to;
    unsigned keep;
};

static const struct option_spec specs[] = {
    {"to", 0, OPTION_STRING, offsetof(struct backup_options, to), "URL",
     "Put it there (PREFIX.sluice/backup/ in the volume's own bucket)"},
    {"keep", 0, OPTION_UINT, offsetof(struct backup_options, keep), "N",
     "Remove all but the newest N backups (0: keep all)", .max = 100000},
};

static const struct bucket_command command = {
    .name = "sluice backup",
    .usage = "MOUNTPOINT|URL",
    .doc =
        "Copies the metadata of a volume to a bucket: of a mount, while it works, or of a volume "
        "that is not mounted (by its URL, with --meta-dir if the mount has that). What is there "
        "from an earlier backup is not sent again."
        "\vThe mount makes the checkpoint, this command sends it: run it on the mount's host, "
        "with the mount's store options (endpoint, credentials). `sluice mount "
        "--backup-interval 1h` does the same by itself.\n\nExamples:\n"
        "  sluice backup /mnt --keep 24\n"
        "  sluice backup s3://data --to s3://vault/sluice/data\n"
        "  sluice restore s3://data\n\n"
        "Ends with 0 when the backup is complete, 1 if not, 2 for a wrong call.",
    .own = specs,
    .own_count = ARRAY_LEN(specs),
};

/* Where the checkpoint comes from. */
struct source {
    struct control_client client; /* of a mount; fd -1: none */
    struct engine *engine;        /* of a volume that is not mounted */
    struct meta_volume volume;
    uint64_t applied;
    char *url, *directory;
};

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    return remove(path);
}

static int take_text(json_t *reply, const char *key, char *out, size_t cap, struct error *error)
{
    const char *text = json_string_value(json_object_get(reply, key));
    if (!text || strlen(text) >= cap)
        return error_set(error, -EBADMSG, "the mount's answer has no %s", key);
    memcpy(out, text, strlen(text) + 1);
    return 0;
}

static int ask_mount(struct source *s, const char *path, struct error *error)
{
    json_t *reply = NULL;
    int r = control_client_open(path, &s->client, error);
    if (r == 0)
        r = control_client_call(&s->client, json_pack("{s:s}", "op", "status"), &reply, error);
    if (r == 0) {
        const char *url =
            json_string_value(json_object_get(json_object_get(reply, "mount"), "source"));
        s->url = url ? strdup(url) : NULL;
        r = s->url ? 0 : error_set(error, -EBADMSG, "the mount's answer has no source");
    }
    json_decref(reply);
    reply = NULL;
    if (r == 0)
        r = control_client_call(&s->client, json_pack("{s:s}", "op", "checkpoint"), &reply, error);
    if (r == 0)
        r = take_text(reply, "volume", s->volume.id, sizeof(s->volume.id), error);
    if (r == 0)
        r = take_text(reply, "store", s->volume.store, sizeof(s->volume.store), error);
    if (r == 0)
        r = take_text(reply, "prefix", s->volume.prefix, sizeof(s->volume.prefix), error);
    if (r == 0) {
        const char *directory = json_string_value(json_object_get(reply, "directory"));
        s->directory = directory ? strdup(directory) : NULL;
        s->applied = (uint64_t)json_integer_value(json_object_get(reply, "applied"));
        r = s->directory ? 0 : error_set(error, -EBADMSG, "the mount's answer has no directory");
    }
    json_decref(reply);
    return r;
}

static int open_database(struct source *s, const struct bucket *bucket, struct error *error)
{
    const char *meta_dir = bucket->meta_dir;
    struct engine_options options = {.path = meta_dir};
    char *directory = NULL;
    if (asprintf(&directory, "%s/checkpoint", meta_dir) < 0)
        return error_set(error, -ENOMEM, "out of memory");
    s->directory = directory;
    int r = bucket_has_metadata(bucket, error);
    if (r == 0)
        r = engine_open(&options, &s->engine, error);
    if (r < 0)
        return r;
    if (engine_volume(s->engine, &s->volume) < 0)
        return error_set(error, -ENOENT, "there is no volume in %s", meta_dir);
    s->applied = engine_sequence(s->engine);
    nftw(directory, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    return engine_checkpoint(s->engine, directory, error);
}

static void source_close(struct source *s)
{
    if (s->engine)
        nftw(s->directory, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    engine_close(s->engine);
    if (s->client.fd >= 0)
        control_client_close(&s->client);
    free(s->url);
    free(s->directory);
}

static void show(void *arg, uint64_t files_left)
{
    progress_show(arg, files_left);
}

static void print_result(const struct backup_result *result, bool json)
{
    char all[32], sent[32];
    if (json) {
        bucket_print_json(json_pack(
            "{s:s,s:I,s:I,s:I,s:I,s:i}", "time", result->time, "files", (json_int_t)result->files,
            "bytes", (json_int_t)result->bytes, "sent_files", (json_int_t)result->sent_files,
            "sent_bytes", (json_int_t)result->sent_bytes, "removed", (int)result->removed));
        return;
    }
    printf("backup %s: %s in %" PRIu64 " files, %s in %" PRIu64 " files of it sent", result->time,
           progress_bytes(result->bytes, all), result->files,
           progress_bytes(result->sent_bytes, sent), result->sent_files);
    if (result->removed)
        printf("; %u older backups removed", result->removed);
    printf("\n");
}

static int send_backup(const struct backup_options *options, const struct source *source,
                       struct bucket *to, struct error *error)
{
    char base[META_KEY_MAX + 1];
    struct progress progress;
    struct backup_result result;
    backup_base(source->volume.prefix, base);
    struct backup_config config = {
        .place = {.store = to->store, .base = options->to ? to->url.prefix : base},
        .directory = source->directory,
        .volume = &source->volume,
        .applied = source->applied,
        .keep = options->keep,
        .sent = show,
        .arg = &progress,
    };
    progress_init(&progress, "sending", false);
    int r = backup_run(&config, &result, error);
    progress_end(&progress);
    if (r == 0)
        print_result(&result, options->bucket.json);
    return r;
}

static int backup(struct backup_options *options, const char *what, struct error *error)
{
    struct source source = {.client = {.fd = -1}};
    struct bucket own = {0}, to = {0};
    bool offline = strstr(what, "://") != NULL;
    int r = offline ? 0 : ask_mount(&source, what, error);
    if (r == 0)
        r = bucket_init(&own, &options->bucket, offline ? what : source.url, error);
    if (r == 0 && offline)
        r = open_database(&source, &own, error);
    if (r == 0)
        r = bucket_init(&to, &options->bucket,
                        options->to ? options->to : (offline ? what : source.url), error);
    if (r == 0)
        r = bucket_open(&to, &options->bucket, true, error);
    if (r == 0)
        r = send_backup(options, &source, &to, error);
    bucket_close(&to);
    bucket_close(&own);
    source_close(&source);
    return r;
}

int cli_backup(int argc, char **argv)
{
    struct backup_options options = {0};
    struct option_result result;
    struct error error = {0};
    int r = bucket_options_parse(&options.bucket, &command, argc, argv, &result);
    if (r) {
        bucket_options_free(&options.bucket);
        return r - 1;
    }
    r = backup(&options, result.args[0], &error);
    if (r < 0)
        r = cli_fail("backup", &error);
    bucket_options_free(&options.bucket);
    return r;
}
