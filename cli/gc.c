/* sluice gc: finds, and deletes when told to, what is in the bucket as this volume's own and is in
 * no table. */
#include "cli.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "bucket_command.h"
#include "control_client.h"
#include "meta/check.h"
#include "progress.h"

#define LISTED_MAX 1000
#define DAY_MS 86400000u

struct gc_options {
    struct bucket_options bucket;
    bool remove, strays, former;
    uint32_t older_than_ms;
};

static const struct option_spec specs[] = {
    {"delete", 0, OPTION_FLAG, offsetof(struct gc_options, remove), NULL,
     "Delete what is found; without it everything is only counted", .cli_only = true},
    {"older-than", 0, OPTION_DURATION, offsetof(struct gc_options, older_than_ms), "TIME",
     "Leave alone what was written later than so long ago (1d)", .cli_only = true},
    {"strays", 0, OPTION_FLAG, offsetof(struct gc_options, strays), NULL,
     "Also ask each key that the metadata does not know whether this volume wrote it: one request "
     "for each such key"},
    {"former", 0, OPTION_FLAG, offsetof(struct gc_options, former), NULL,
     "With --delete: also what volumes left below .sluice/ that had this prefix before. What was "
     "not settled when their metadata was lost is only there",
     .cli_only = true},
};

static const char *const mount_rows[] = {"take-over", NULL};

static const struct bucket_command command = {
    .name = "sluice gc",
    .usage = "URL|MOUNTPOINT",
    .doc =
        "Finds objects and unfinished uploads of this volume that nothing in its metadata owns: "
        "left by a crash, a lost disk, or a write that came too late. A mount deletes by itself "
        "what it knows of; this is for what it does not know of. With a URL the volume must not be "
        "mounted; with a mount point the mount does it while it is used. "
        "Foreign objects are never touched."
        "\vExample:\n"
        "  sluice gc s3://data\n"
        "  sluice gc s3://data --delete --older-than 2d\n"
        "  sluice gc /mnt --delete\n\n"
        "Ends with 0 if it was done to the end, 1 if not, 2 for a wrong call.",
    .own = specs,
    .own_count = ARRAY_LEN(specs),
    .mount = mount_rows,
};

struct gc {
    const struct gc_options *options;
    json_t *list;
    struct progress progress;
};

static void take_orphan(void *arg, const struct orphan *orphan)
{
    struct gc *g = arg;
    if (json_array_size(g->list) >= LISTED_MAX)
        return;
    json_t *item = orphan_json(orphan);
    if (item)
        json_array_append_new(g->list, item);
}

static void show(void *arg, const struct orphan_counts *counts)
{
    struct gc *g = arg;
    if (!g->progress.on)
        return;
    fprintf(stderr, "\r%" PRIu64 " keys\033[K", counts->keys);
    fflush(stderr);
    g->progress.shown = true;
}

static void print_text(const struct gc *g, const struct orphan_counts *c)
{
    static const char *const what[] = {"objects without a record", "entries without an inode",
                                       "stray objects at natural keys", "unfinished uploads",
                                       "objects and entries of former volumes"};
    char amount[32];
    uint64_t all = 0;
    for (int i = 0; i < ORPHAN_KIND_COUNT; i++) {
        all += c->found[i];
        if (c->found[i])
            printf("%" PRIu64 " %s, %s\n", c->found[i], what[i],
                   progress_bytes(c->bytes[i], amount));
    }
    if (!all)
        printf("nothing found in %" PRIu64 " keys and %" PRIu64 " uploads\n", c->keys, c->uploads);
    if (c->young)
        printf("%" PRIu64 " more are too young (--older-than)\n", c->young);
    if (c->foreign_uploads)
        printf("%" PRIu64 " unfinished uploads are to keys that others may be writing\n",
               c->foreign_uploads);
    if (g->options->remove)
        printf("deleted %" PRIu64 ", %s; %" PRIu64 " failed\n", c->deleted,
               progress_bytes(c->deleted_bytes, amount), c->failed);
    else if (all)
        printf("nothing was deleted; --delete does\n");
}

static int print(const struct gc *g, const struct orphan_counts *counts)
{
    if (g->options->bucket.json)
        bucket_print_json(orphan_counts_json(counts, json_incref(g->list)));
    else
        print_text(g, counts);
    return counts->failed > 0;
}

/* The mount does it, while it works. */
static int ask_mount(struct gc *g, const char *mountpoint, struct error *error)
{
    const struct gc_options *o = g->options;
    struct control_client client;
    struct orphan_counts counts;
    json_t *reply = NULL;
    if (o->former)
        return error_set(error, -EINVAL, "--former needs the URL of a volume that is not mounted");
    int rc = control_client_open(mountpoint, &client, error);
    if (rc < 0)
        return rc;
    json_t *request =
        json_pack("{s:s, s:b, s:b, s:I}", "op", "gc", "delete", (int)o->remove, "strays",
                  (int)o->strays, "older_than_ms", (json_int_t)o->older_than_ms);
    rc = control_client_call(&client, request, &reply, error);
    control_client_close(&client);
    if (rc < 0)
        return rc;
    orphan_counts_from_json(reply, &counts);
    json_array_extend(g->list, json_object_get(reply, "list"));
    json_decref(reply);
    return print(g, &counts);
}

static int hunt(struct gc *g, const struct bucket *bucket, struct engine *engine,
                struct error *error)
{
    const struct gc_options *o = g->options;
    struct orphan_counts counts;
    struct orphan_config config = {.engine = engine,
                                   .store = bucket->store,
                                   .older_than_ns = o->older_than_ms * NS_PER_MS,
                                   .now_ns = clock_wall_ns(),
                                   .remove = o->remove,
                                   .strays = o->strays,
                                   .former = o->former,
                                   .report = take_orphan,
                                   .progress = show,
                                   .arg = g};
    progress_init(&g->progress, "looking", false);
    int rc = meta_find_orphans(&config, &counts, error);
    progress_end(&g->progress);
    if (rc < 0)
        return rc;
    return print(g, &counts);
}

/* To look, a snapshot of the records will do; to delete, the volume is opened as its owner. */
static int run(struct gc *g, struct bucket *bucket, struct error *error)
{
    const struct gc_options *o = g->options;
    int rc = bucket_has_metadata(bucket, error);
    if (rc == 0)
        rc = bucket_open(bucket, &o->bucket, o->remove, error);
    if (rc == 0 && !o->remove) {
        struct engine *engine = NULL;
        struct engine_options options = {.path = bucket->meta_dir, .read_only = true};
        rc = engine_open(&options, &engine, error);
        if (rc == 0)
            rc = meta_check_connect(engine, bucket->store, error);
        if (rc == 0)
            rc = hunt(g, bucket, engine, error);
        engine_close(engine);
    } else if (rc == 0) {
        struct meta *meta = NULL;
        rc = bucket_open_volume(bucket, &o->bucket, &meta, error);
        if (rc == 0)
            rc = hunt(g, bucket, meta_engine(meta), error);
        meta_close(meta);
    }
    return rc;
}

int cli_gc(int argc, char **argv)
{
    struct gc_options options = {.older_than_ms = DAY_MS};
    struct gc g = {.options = &options};
    struct option_result result;
    struct bucket bucket = {0};
    struct error error = {0};
    int r = bucket_options_parse(&options.bucket, &command, argc, argv, &result);
    if (r) {
        bucket_options_free(&options.bucket);
        return r - 1;
    }
    g.list = json_array();
    if (!strstr(result.args[0], "://")) {
        r = ask_mount(&g, result.args[0], &error);
    } else {
        r = bucket_init(&bucket, &options.bucket, result.args[0], &error);
        if (r == 0)
            r = run(&g, &bucket, &error);
    }
    if (r < 0)
        r = cli_fail("gc", &error);
    json_decref(g.list);
    bucket_close(&bucket);
    bucket_options_free(&options.bucket);
    return r;
}
