/* What the commands share that work on a bucket and the metadata of an unmounted volume: the
 * store's options, --meta-dir, and opening both. */
#ifndef SLUICE_CLI_BUCKET_COMMAND_H
#define SLUICE_CLI_BUCKET_COMMAND_H

#include <jansson.h>

#include "mount_options.h"
#include "options.h"
#include "places.h"
#include "s3/open.h"

#define BUCKET_SPECS_MAX 32

/* First member of a command's own options. */
struct bucket_options {
    struct mount_options mount; /* the store's and meta_dir */
    bool json;
    /* Private. */
    struct option_spec specs[BUCKET_SPECS_MAX];
    struct option_set set;
};

struct bucket {
    struct store_url url;
    struct loop *loop;
    struct store *store;
    char *meta_dir;          /* absolute */
    struct places_made made; /* what stays empty goes with bucket_close */
    char owner[512];
};

struct bucket_command {
    const char *name; /* "sluice rebuild" */
    const char *usage, *doc;
    const struct option_spec
        *own; /* with offsets from the struct that begins with bucket_options */
    size_t own_count;
    const char *const *mount; /* names of options of `sluice mount` that it has, besides the store's
                                 and meta-dir; ended by NULL; may be NULL */
};

/* For `mount`: of commands that may make the volume, as a first mount does. */
extern const char *const bucket_format_options[];

/* Returns as options_parse; bucket_options_free in every case. */
int bucket_options_parse(struct bucket_options *options, const struct bucket_command *command,
                         int argc, char **argv, struct option_result *result);
void bucket_options_free(struct bucket_options *options);

/* URL and metadata directory; touches nothing. -EINVAL if the one lies inside the other. */
int bucket_init(struct bucket *bucket, const struct bucket_options *options, const char *url,
                struct error *error);
/* The store, which must exist. `probe`: finds what it honours, which writes below .sluice/probe/.
 */
int bucket_open(struct bucket *bucket, const struct bucket_options *options, bool probe,
                struct error *error);
void bucket_close(struct bucket *bucket);
/* The volume in it, opened by this process as its owner; everything is borrowed. */
void bucket_volume(const struct bucket *bucket, const struct bucket_options *options,
                   struct meta_config *out);
/* One that is there, which does not settle meanwhile. meta_close it. */
int bucket_open_volume(const struct bucket *bucket, const struct bucket_options *options,
                       struct meta **out, struct error *error);
/* -ENOENT with a sentence if no volume has its metadata there. */
int bucket_has_metadata(const struct bucket *bucket, struct error *error);

/* Prints JSON and a newline; takes the reference. */
void bucket_print_json(json_t *root);

#endif
