/*
 * The files ~/.aws/config and ~/.aws/credentials: sections of `name = value` lines. Bounded; lines
 * that are no such thing are skipped, as other tools do.
 */
#ifndef SLUICE_S3_PROFILE_H
#define SLUICE_S3_PROFILE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

struct profile_entry {
    char *name, *value; /* owned; name in lower case */
    struct profile_entry *next;
};

struct profile {
    char *name; /* owned */
    struct profile_entry *entries;
    struct profile *next;
};

struct profiles {
    struct profile *list; /* owned */
};

#define PROFILE_FILE_MAX (1u << 20)

/* Adds what a file holds; an entry that is there already stays. `is_config`: sections are called
 * [profile NAME], but for [default]. -ENOMEM or -E2BIG. */
int profiles_parse(struct profiles *profiles, const char *data, size_t len, bool is_config);
/* Reads AWS_SHARED_CREDENTIALS_FILE and AWS_CONFIG_FILE or their defaults below HOME. Files that
 * are not there count as empty. */
int profiles_read(struct profiles *profiles, struct error *error);
void profiles_done(struct profiles *profiles);
/* NULL: no such profile, or no such entry in it. */
const struct profile *profiles_find(const struct profiles *profiles, const char *name);
const char *profile_get(const struct profile *profile, const char *name);

#endif
