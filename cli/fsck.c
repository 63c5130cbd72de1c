/* sluice fsck: checks the metadata of a volume, every record against the others, and against the
 * bucket. */
#include "cli.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "bucket_command.h"
#include "control_client.h"
#include "meta/check.h"
#include "progress.h"

#define LISTED_MAX 1000  /* findings that --json names */
#define SNAPSHOT_TRIES 5 /* of a living mount */

struct fsck_options {
    struct bucket_options bucket;
    bool with_bucket, deep, repair;
};

static const struct option_spec specs[] = {
    {"bucket", 0, OPTION_FLAG, offsetof(struct fsck_options, with_bucket), NULL,
     "Also compare with the bucket: is each object there, with its size and ETag"},
    {"deep", 0, OPTION_FLAG, offsetof(struct fsck_options, deep), NULL,
     "Also read every object, and compare the MD5 where the ETag is one (means --bucket)"},
    {"repair", 0, OPTION_FLAG, offsetof(struct fsck_options, repair), NULL,
     "Let the names follow the bucket: the file of a missing object goes, the one of a changed "
     "object has what is there now; says each (means --bucket)"},
};

static const char *const mount_rows[] = {"take-over", NULL};

static const struct bucket_command command = {
    .name = "sluice fsck",
    .usage = "URL|MOUNTPOINT",
    .doc = "Checks the metadata of a volume: names, inodes, extents, objects, keys and usage "
           "against each other; with --bucket also against the bucket. With a URL the volume must "
           "not be mounted; with a mount point a snapshot of its records is checked, on the same "
           "host, and the mount itself looks at the bucket while it is used. Changes nothing "
           "without --repair."
           "\vEnds with 0 if all is consistent, 1 if not (one line for each violation) or if it "
           "cannot be checked, 2 for a wrong call.",
    .own = specs,
    .own_count = ARRAY_LEN(specs),
    .mount = mount_rows,
};

struct fsck {
    const struct fsck_options *options;
    json_t *records, *findings; /* arrays */
    uint64_t record_count, finding_count;
    struct progress progress;
};

static void append(json_t *list, json_t *item)
{
    if (item && json_array_size(list) < LISTED_MAX)
        json_array_append(list, item);
    json_decref(item);
}

static json_t *text_of(const char *text)
{
    json_t *out = json_string(text);
    return out ? out : json_string("(not UTF-8)");
}

static void take_violation(void *arg, const char *text)
{
    struct fsck *f = arg;
    append(f->records, text_of(text));
    if (!f->options->bucket.json)
        printf("%s\n", text);
}

static void take_finding(void *arg, const struct check_finding *finding)
{
    struct fsck *f = arg;
    f->finding_count++;
    append(f->findings, check_finding_json(finding));
    if (f->options->bucket.json)
        return;
    progress_end(&f->progress);
    printf("%s: %s: %s%s%s\n", check_kind_name(finding->kind), finding->key, finding->text,
           finding->repaired ? "; " : "", finding->repaired ? finding->repaired : "");
}

static void show(void *arg, const struct check_counts *counts)
{
    struct fsck *f = arg;
    char amount[32];
    if (!f->progress.on)
        return;
    fprintf(stderr, "\r%" PRIu64 " keys, %" PRIu64 " objects, %s read\033[K", counts->keys,
            counts->objects, progress_bytes(counts->bytes, amount));
    fflush(stderr);
    f->progress.shown = true;
}

/* Records */

static int check_records(struct fsck *f, struct engine *engine, const char *place,
                         struct error *error)
{
    int found = engine_check(engine, take_violation, f);
    if (found < 0)
        return error_set(error, found, "%s: the check ended early: %s", place, strerror(-found));
    f->record_count = (uint64_t)found;
    return 0;
}

static void ignore_violation(void *arg, const char *text)
{
    (void)arg;
    (void)text;
}

/* A database that a mount changes meanwhile: what is opened is a moment of it, but files may go
 * while it is being opened. */
static int check_living(struct fsck *f, const char *place, struct error *error)
{
    int rc = 0;
    for (int i = 0; i < SNAPSHOT_TRIES; i++) {
        struct engine *engine = NULL;
        struct engine_options options = {.path = place, .read_only = true};
        bool last = i + 1 == SNAPSHOT_TRIES;
        rc = engine_open(&options, &engine, error);
        if (rc < 0)
            continue;
        int found = engine_check(engine, ignore_violation, NULL);
        if (found == 0 || last)
            rc = check_records(f, engine, place, error);
        engine_close(engine);
        if (found == 0 || last)
            return rc;
    }
    return rc;
}

static char *database_of(const char *mountpoint, struct error *error)
{
    json_t *reply = NULL;
    char *out = NULL;
    if (control_client_simple(mountpoint, "status", &reply, error) < 0)
        return NULL;
    const char *database = json_string_value(
        json_object_get(json_object_get(json_object_get(reply, "volume"), "volume"), "database"));
    if (database)
        out = strdup(database);
    else
        error_set(error, -ENOTSUP,
                  "%s: its metadata is at a service: --bucket checks the bucket from here; the "
                  "records are checked "
                  "on its host, while it is stopped, by fsck URL --meta-dir DATA-DIR/VOLUME/meta",
                  mountpoint);
    json_decref(reply);
    return out;
}

/* The bucket */

static int check_store(const struct bucket *bucket, struct engine *engine, struct error *error)
{
    struct meta_volume volume;
    int rc = engine_volume(engine, &volume);
    if (rc < 0)
        return error_set(error, rc, "%s: there is no volume in it", bucket->meta_dir);
    if (!strcmp(volume.store, store_name(bucket->store)) &&
        !strcmp(volume.prefix, bucket->url.prefix))
        return 0;
    return error_set(error, -EINVAL, "the metadata in %s belongs to %s with prefix \"%s\"",
                     bucket->meta_dir, volume.store, volume.prefix);
}

static int check_bucket(struct fsck *f, const struct bucket *bucket, struct engine *engine,
                        struct meta *meta, struct check_counts *counts, struct error *error)
{
    struct check_config config = {.engine = engine,
                                  .store = bucket->store,
                                  .repair = meta,
                                  .deep = f->options->deep,
                                  .report = take_finding,
                                  .progress = show,
                                  .arg = f};
    int rc = check_store(bucket, engine, error);
    if (rc < 0)
        return rc;
    progress_init(&f->progress, "checking", false);
    rc = meta_check_bucket(&config, counts, error);
    progress_end(&f->progress);
    return rc;
}

static void print_result(const struct fsck *f, const char *place, const struct check_counts *c,
                         bool with_bucket)
{
    if (f->options->bucket.json) {
        json_t *root = json_pack("{s:s, s:I, s:O}", "metadata", place, "violations",
                                 (json_int_t)f->record_count, "records", f->records);
        if (with_bucket)
            json_object_set_new(root, "bucket", check_counts_json(c, json_incref(f->findings)));
        bucket_print_json(root);
        return;
    }
    if (f->record_count)
        printf("%" PRIu64 " violations in %s\n", f->record_count, place);
    else
        printf("%s is consistent\n", place);
    if (!with_bucket)
        return;
    printf("%" PRIu64 " objects in use, %" PRIu64 " keys in the bucket, %" PRIu64
           " of them not known (yet)\n",
           c->objects, c->keys, c->unknown);
    for (int i = 0; i < CHECK_KIND_COUNT; i++)
        if (c->found[i])
            printf("%s: %" PRIu64 "\n", check_kind_name(i), c->found[i]);
    if (c->repaired)
        printf("repaired: %" PRIu64 "\n", c->repaired);
}

static int check_url(struct fsck *f, struct bucket *bucket, struct error *error)
{
    const struct fsck_options *o = f->options;
    bool with_bucket = o->with_bucket || o->deep || o->repair;
    struct check_counts counts = {0};
    struct engine *engine = NULL;
    struct meta *meta = NULL;
    struct engine_options options = {.path = bucket->meta_dir, .read_only = true};
    int rc = bucket_has_metadata(bucket, error);
    if (rc == 0)
        rc = engine_open(&options, &engine, error);
    if (rc == 0)
        rc = check_records(f, engine, bucket->meta_dir, error);
    if (rc == 0 && with_bucket)
        rc = bucket_open(bucket, &o->bucket, o->repair, error);
    if (rc == 0 && o->repair && f->record_count)
        rc = error_set(error, -EUCLEAN,
                       "the records themselves are damaged; repair changes nothing then");
    if (rc == 0 && o->repair) {
        engine_close(TAKE_PTR(engine));
        rc = bucket_open_volume(bucket, &o->bucket, &meta, error);
    } else if (rc == 0 && with_bucket)
        rc = meta_check_connect(engine, bucket->store, error);
    if (rc == 0 && with_bucket)
        rc = check_bucket(f, bucket, meta ? meta_engine(meta) : engine, meta, &counts, error);
    engine_close(engine);
    meta_close(meta);
    if (rc == 0)
        print_result(f, bucket->meta_dir, &counts, with_bucket);
    return rc < 0 ? rc : f->record_count || f->finding_count > counts.repaired;
}

static void print_findings(const struct fsck *f)
{
    size_t i;
    json_t *item;
    json_array_foreach(f->findings, i, item)
    {
        const char *kind, *key, *text;
        if (json_unpack(item, "{s:s, s:s, s:s}", "kind", &kind, "key", &key, "text", &text) == 0)
            printf("%s: %s: %s\n", kind, key, text);
    }
}

/* The mount compares its own tables with the bucket, while it works. */
static int ask_mount(struct fsck *f, const char *mountpoint, struct check_counts *counts,
                     struct error *error)
{
    struct control_client client;
    json_t *reply = NULL;
    int rc = control_client_open(mountpoint, &client, error);
    if (rc < 0)
        return rc;
    rc = control_client_call(&client,
                             json_pack("{s:s, s:b}", "op", "check", "deep", (int)f->options->deep),
                             &reply, error);
    control_client_close(&client);
    if (rc < 0)
        return rc;
    check_counts_from_json(reply, counts);
    json_array_extend(f->findings, json_object_get(reply, "findings"));
    json_decref(reply);
    for (int i = 0; i < CHECK_KIND_COUNT; i++)
        f->finding_count += counts->found[i];
    if (!f->options->bucket.json)
        print_findings(f);
    return 0;
}

static int check_mount(struct fsck *f, const char *mountpoint, struct error *error)
{
    struct check_counts counts = {0};
    bool with_bucket = f->options->with_bucket || f->options->deep;
    if (f->options->repair)
        return error_set(error, -EINVAL, "--repair needs the URL of a volume that is not mounted");
    cleanup(free_ptr) char *place = database_of(mountpoint, error);
    int rc = place ? check_living(f, place, error) : -EIO;
    if (rc == 0 && with_bucket)
        rc = ask_mount(f, mountpoint, &counts, error);
    if (rc == 0)
        print_result(f, place, &counts, with_bucket);
    return rc < 0 ? rc : f->record_count > 0 || f->finding_count > 0;
}

int cli_fsck(int argc, char **argv)
{
    struct fsck_options options = {0};
    struct fsck f = {.options = &options};
    struct option_result result;
    struct bucket bucket = {0};
    struct error error = {0};
    int r = bucket_options_parse(&options.bucket, &command, argc, argv, &result);
    if (r) {
        bucket_options_free(&options.bucket);
        return r - 1;
    }
    f.records = json_array();
    f.findings = json_array();
    if (!strstr(result.args[0], "://")) {
        r = check_mount(&f, result.args[0], &error);
    } else {
        r = bucket_init(&bucket, &options.bucket, result.args[0], &error);
        if (r == 0)
            r = check_url(&f, &bucket, &error);
    }
    if (r < 0)
        r = cli_fail("fsck", &error);
    json_decref(f.records);
    json_decref(f.findings);
    bucket_close(&bucket);
    bucket_options_free(&options.bucket);
    return r;
}
