/* sluice prefix: a bucket prefix, or a directory of the service, as a volume with a name and a
 * size, as the CSI driver makes them (docs/csi.md). The record of a prefix is one object,
 * <prefix>.sluice/csi. */
#include "cli.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "bucket_command.h"
#include "meta/remote.h"
#include "places.h"
#include "prefix.h"
#include "prefix_service.h"

struct prefix_options {
    struct bucket_options bucket;
    char *create, *on_delete;
    uint64_t size;
    bool resize, delete;
};

#define AT(field) offsetof(struct prefix_options, field)

static const struct option_spec specs[] = {
    {"create", 0, OPTION_STRING, AT(create), "NAME",
     "Make it a volume of this name, with --size. The prefix must be empty, or be that volume",
     .cli_only = true},
    {"size", 0, OPTION_SIZE, AT(size), "SIZE", "Size of the volume", .cli_only = true},
    {"on-delete", 0, OPTION_CHOICE, AT(on_delete), "WHAT",
     "With --create: what --delete will do with the data: retain it (default), or delete it",
     .choices = "retain|delete", .cli_only = true},
    {"resize", 0, OPTION_FLAG, AT(resize), NULL, "Raise the size to --size", .cli_only = true},
    {"delete", 0, OPTION_FLAG, AT(delete), NULL,
     "End the volume. With --on-delete=delete at its creation every object that Sluice wrote there "
     "goes; what others put there stays",
     .cli_only = true},
};

static const char *const of_mount[] = {"tls-ca", "tls-cert", "tls-key", "tls-server-name", NULL};

static const struct bucket_command command = {
    .name = "sluice prefix",
    .usage = "URL",
    .doc = "Shows a bucket prefix, or a directory of a volume of the metadata service "
           "(sluice://HOST:PORT/VOLUME/DIRECTORY), as a volume: its record, and who owns it. With "
           "an option: makes it a volume, raises its size, or ends it. For the CSI driver, and to "
           "look at what it made."
           "\vEnds with 0 if that could be done, 1 if not, 2 for a wrong call.",
    .own = specs,
    .own_count = ARRAY_LEN(specs),
    .mount = of_mount,
};

/* Opens the store for writing, without the probe of its abilities. */
static int open_store(struct bucket *bucket, const struct prefix_options *options,
                      struct error *error)
{
    struct store_options store;
    mount_options_store(&options->bucket.mount, &store);
    if (strcmp(bucket->url.scheme, "file") == 0) {
        store.read_only = !options->create;
        int r = options->create ? places_make(bucket->url.bucket, error) : 0;
        if (r < 0)
            return r;
    }
    int r = loop_new(&bucket->loop, "store");
    if (r < 0)
        return error_set(error, r, "cannot start: %s", strerror(-r));
    return store_open(&bucket->url, &store, bucket->loop, NULL, &bucket->store, error);
}

static int show(struct prefix *prefix, json_t **out, struct error *error)
{
    json_t *record = NULL, *owner = NULL;
    int r = prefix_read(prefix, PREFIX_RECORD, NULL, &record, error);
    if (r == 0)
        r = prefix_read(prefix, PREFIX_OWNER, NULL, &owner, error);
    if (r == 0)
        *out = json_pack("{s:o,s:o}", "record", record ? json_incref(record) : json_null(), "owner",
                         owner ? json_incref(owner) : json_null());
    json_decref(record);
    json_decref(owner);
    return r;
}

static int check(const struct prefix_request *q, struct error *error)
{
    if (!!q->create + q->resize + q->delete > 1)
        return error_set(error, -EINVAL, "only one of --create, --resize and --delete");
    if ((q->create || q->resize) && !q->size)
        return error_set(error, -EINVAL, "--size is missing");
    return 0;
}

static int work(struct prefix *prefix, const struct prefix_request *q, json_t **out,
                struct error *error)
{
    if (q->create)
        return prefix_create(prefix, q->create, q->size, q->on_delete, out, error);
    if (q->resize)
        return prefix_resize(prefix, q->size, out, error);
    return q->delete ? prefix_delete(prefix, out, error) : show(prefix, out, error);
}

static int run_bucket(const struct prefix_options *options, const struct prefix_request *request,
                      const char *url, json_t **out, struct error *error)
{
    struct bucket bucket = {0};
    int r = bucket_init(&bucket, &options->bucket, url, error);
    if (r == 0)
        r = open_store(&bucket, options, error);
    if (r == 0) {
        struct prefix prefix = {bucket.store, bucket.url.prefix};
        r = work(&prefix, request, out, error);
    }
    /* A directory that is not there is a volume that is not there. */
    if (r == -ENOENT && strcmp(bucket.url.scheme, "file") == 0 && !request->resize) {
        r = 0;
        *out = json_pack("{s:n,s:n}", "record", "owner");
    }
    bucket_close(&bucket);
    return r;
}

/* The driver reads refusals too, so with --json they are JSON. */
static int print(bool json, int r, json_t *reply, const struct error *error)
{
    if (r < 0 && !json)
        return cli_fail("prefix", error);
    if (r < 0)
        reply = json_pack("{s:b,s:i,s:s}", "ok", false, "errno", -r, "message", error_text(error));
    else
        json_object_set_new(reply, "ok", json_true());
    bucket_print_json(reply);
    return r < 0;
}

int cli_prefix(int argc, char **argv)
{
    struct prefix_options options = {0};
    struct option_result result;
    struct error error = {0};
    json_t *reply = NULL;
    int r = bucket_options_parse(&options.bucket, &command, argc, argv, &result);
    if (r) {
        bucket_options_free(&options.bucket);
        return r - 1;
    }
    const struct prefix_request request = {.create = options.create,
                                           .on_delete =
                                               options.on_delete ? options.on_delete : "retain",
                                           .size = options.size,
                                           .resize = options.resize,
                                           .delete = options.delete,
                                           .tls_ca = options.bucket.mount.tls_ca,
                                           .tls_cert = options.bucket.mount.tls_cert,
                                           .tls_key = options.bucket.mount.tls_key,
                                           .tls_name = options.bucket.mount.tls_server_name};
    const char *url = result.args[0];
    r = check(&request, &error);
    if (r == 0)
        r = meta_remote_is_url(url) ? prefix_service_run(url, &request, &reply, &error)
                                    : run_bucket(&options, &request, url, &reply, &error);
    r = print(options.bucket.json, r, reply, &error);
    bucket_options_free(&options.bucket);
    return r;
}
