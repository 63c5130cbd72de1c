/*
 * Volumes of a service on its disk: DATA/NAME/volume.json says where the bucket is and with which
 * options of `sluice mount` it is opened; DATA/NAME/meta is the database. docs/service.md.
 */
#ifndef SLUICE_CLI_VOLUME_CONFIG_H
#define SLUICE_CLI_VOLUME_CONFIG_H

#include <jansson.h>

#include "mount_options.h"

struct volume_config {
    char *name, *url;
    json_t *options; /* an object of strings */
};

/* -EINVAL with a sentence. */
int volume_name_check(const char *name, struct error *error);
/* NAME=VALUE (empty: back to the default) into the options. */
int volume_config_set(struct volume_config *config, const char *word, struct error *error);
/* Fills options (initialised by the caller) with what a mount of this bucket would be given. */
int volume_config_options(const struct volume_config *config, struct mount_options *out,
                          struct error *error);
/* Whose credentials mounts use: docs/security.md, "Keys of the bucket". */
struct volume_keys {
    bool service;               /* those of the service: the rest is about them */
    const char *reader_profile; /* of the volume's options; NULL: none */
    uint32_t lifetime_s;
};
int volume_config_keys(const struct volume_config *config, struct volume_keys *out,
                       struct error *error);
/* Limits of the whole volume: META_QUOTA_NONE takes one away. */
struct volume_quota {
    bool has_bytes, has_inodes; /* else it stays as it is */
    uint64_t bytes, inodes;
};
int volume_config_quota(const struct volume_config *config, struct volume_quota *out,
                        struct error *error);
/* What clients need of them to reach the bucket, as JSON text; free(). `region` (NULL: none): if
 * the options do not say it. */
char *volume_config_for_clients(const struct volume_config *config, const char *region);
/* Takes over, from the text that the service sent, what the user of the mount did not say. */
int volume_options_adopt(struct mount_options *mine, const char *text, struct error *error);

int volume_config_load(const char *data_dir, const char *name, struct volume_config *out,
                       struct error *error);
/* Replaces the file, or (create) makes DATA/NAME with it: whole or not at all. */
int volume_config_save(const char *data_dir, const struct volume_config *config, bool create,
                       struct error *error);
void volume_config_done(struct volume_config *config);
/* Calls `each` with every name, in order, until it returns something else than 0. */
int volume_config_each(const char *data_dir, int (*each)(void *arg, const char *name), void *arg,
                       struct error *error);
int volume_remove(const char *data_dir, const char *name, struct error *error);
/* Files that are not in the bucket as one object each; or -errno. The service does not run. */
int64_t volume_unsettled(const char *data_dir, const char *name, struct error *error);
/* "/var/lib/sluice/serve", or below the user's home; free(). */
char *volume_default_dir(void);

#endif
