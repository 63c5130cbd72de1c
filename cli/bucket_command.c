#include "bucket_command.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "places.h"
#include "s3/mux.h"

const char *const bucket_format_options[] = {
    "take-over", "settle-delay", "gc-delay", "inline-max", "staging-patterns", NULL,
};

static const struct option_spec *mount_row(const char *name)
{
    for (size_t i = 0; i < mount_option_set.count; i++)
        if (strcmp(mount_option_set.specs[i].name, name) == 0)
            return &mount_option_set.specs[i];
    return NULL;
}

int bucket_options_parse(struct bucket_options *options, const struct bucket_command *command,
                         int argc, char **argv, struct option_result *result)
{
    static const struct option_spec shared[] = {
        {"meta-dir", 0, OPTION_STRING, offsetof(struct mount_options, meta_dir), "DIR",
         "Metadata of the volume (as `sluice mount` chooses it for this URL)"},
        {"json", 0, OPTION_FLAG, offsetof(struct bucket_options, json), NULL,
         "Print the result as JSON"},
    };
    static const char *const none[] = {NULL};
    size_t count = 0;
    mount_options_init(&options->mount);
    for (size_t i = 0; i < command->own_count; i++)
        options->specs[count++] = command->own[i];
    for (size_t i = 0; i < ARRAY_LEN(shared); i++)
        options->specs[count++] = shared[i];
    for (const char *const *name = command->mount ? command->mount : none; *name; name++) {
        const struct option_spec *row = mount_row(*name);
        if (row)
            options->specs[count++] = *row;
    }
    for (size_t i = 0; i < store_option_set.count && count < BUCKET_SPECS_MAX; i++)
        options->specs[count++] = store_option_set.specs[i];
    options->set = (struct option_set){.specs = options->specs,
                                       .count = count,
                                       .groups = store_option_set.groups,
                                       .usage = command->usage,
                                       .doc = command->doc,
                                       .args_min = 1,
                                       .args_max = 1,
                                       .reads_config = true};
    return options_parse(&options->set, command->name, argc, argv, options, result);
}

void bucket_options_free(struct bucket_options *options)
{
    options_free(&options->set, options);
}

int bucket_init(struct bucket *bucket, const struct bucket_options *options, const char *url,
                struct error *error)
{
    const struct mount_options *mount = &options->mount;
    char host[256] = "";
    int rc = store_url_parse(url, &bucket->url, error);
    if (rc < 0)
        return rc;
    cleanup(free_ptr) char *here = getcwd(NULL, 0);
    if (mount->meta_dir && mount->meta_dir[0] != '/') {
        if (!here || asprintf(&bucket->meta_dir, "%s/%s", here, mount->meta_dir) < 0)
            bucket->meta_dir = NULL;
    } else {
        bucket->meta_dir = mount->meta_dir ? strdup(mount->meta_dir)
                                           : places_default(&bucket->url, mount->endpoint);
    }
    gethostname(host, sizeof(host) - 1);
    snprintf(bucket->owner, sizeof(bucket->owner), "%s (process %d)", host, (int)getpid());
    if (!bucket->meta_dir)
        return error_set(error, -ENOMEM, "out of memory");
    return places_outside_bucket(&bucket->url, bucket->meta_dir, error);
}

void bucket_volume(const struct bucket *bucket, const struct bucket_options *options,
                   struct meta_config *out)
{
    meta_config_init(out);
    out->directory = bucket->meta_dir;
    out->store = bucket->store;
    out->prefix = bucket->url.prefix;
    out->take_over = options->mount.take_over;
    out->owner_text = bucket->owner;
}

int bucket_open_volume(const struct bucket *bucket, const struct bucket_options *options,
                       struct meta **out, struct error *error)
{
    struct meta_config config;
    bucket_volume(bucket, options, &config);
    config.no_settle = true;
    config.must_exist = true;
    return meta_open(&config, out, error);
}

int bucket_has_metadata(const struct bucket *bucket, struct error *error)
{
    cleanup(free_ptr) char *current = NULL;
    if (asprintf(&current, "%s/db/CURRENT", bucket->meta_dir) < 0)
        return error_set(error, -ENOMEM, "out of memory");
    if (access(current, F_OK) < 0)
        return error_set(error, -ENOENT, "there is no metadata in %s (--meta-dir?)",
                         bucket->meta_dir);
    return 0;
}

int bucket_open(struct bucket *bucket, const struct bucket_options *options, bool probe,
                struct error *error)
{
    struct store_options store;
    const struct store_url *url = &bucket->url;
    if (strcmp(url->scheme, "file") == 0 && access(url->bucket, F_OK) < 0)
        return error_set(error, -errno, "%s: %s", url->bucket, strerror(errno));
    mount_options_store(&options->mount, &store);
    store.read_only = !probe;
    int rc = loop_new(&bucket->loop, "store");
    if (rc < 0)
        return error_set(error, rc, "cannot start: %s", strerror(-rc));
    log_set_level(LOG_ERROR); /* that a request failed is what the command itself says then */
    rc = store_open(&bucket->url, &store, bucket->loop, NULL, &bucket->store, error);
    if (rc == 0 && probe)
        rc = store_probe(bucket->store, bucket->url.prefix, NULL, NULL, error);
    log_set_level(LOG_INFO);
    if (rc < 0)
        return rc;
    /* The volume may have others. */
    struct store *own = bucket->store;
    rc = store_mux_new(own, &bucket->store);
    return rc < 0 ? error_set(error, rc, "cannot start: %s", strerror(-rc)) : 0;
}

void bucket_close(struct bucket *bucket)
{
    store_free(bucket->store);
    loop_free(bucket->loop);
    store_url_done(&bucket->url);
    free(bucket->meta_dir);
    places_undo(&bucket->made);
    places_made_done(&bucket->made);
}

void bucket_print_json(json_t *root)
{
    json_dumpf(root, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(root);
}
