/* A bucket prefix as a volume: its record in the bucket, and its end. */
#ifndef SLUICE_CLI_PREFIX_H
#define SLUICE_CLI_PREFIX_H

#include <jansson.h>

#include "base/error.h"
#include "s3/store.h"

#define PREFIX_RECORD ".sluice/csi"
#define PREFIX_OWNER ".sluice/volume"

struct prefix {
    struct store *store;
    const char *path; /* "" or "a/b/" */
};

/* All block, and return 0 or -errno with a sentence; *out is new on success. */

/* The JSON object at path + name; NULL if there is none. `etag` may be NULL. */
int prefix_read(struct prefix *prefix, const char *name, char etag[STORE_ETAG_MAX], json_t **out,
                struct error *error);
/* {"record": …, "created": bool}. -EEXIST: a volume with another name or size, or objects, are
 * there. Again with the same values succeeds. */
int prefix_create(struct prefix *prefix, const char *name, uint64_t size, const char *on_delete,
                  json_t **out, struct error *error);
/* Whether a record is of a volume that was made with these values: 0 or -EEXIST. Pure. */
int prefix_compare(json_t *record, const char *name, uint64_t size, const char *on_delete,
                   struct error *error);
/* {"record": …}. Never smaller. -ENOENT: it is no volume. */
int prefix_resize(struct prefix *prefix, uint64_t size, json_t **out, struct error *error);
/* {"deleted": n, "left": n}. Of the data only objects that Sluice wrote (their tags say so) and
 * that belong to no volume further down; the record goes last, so that a deletion that was
 * interrupted can be repeated. -EBUSY: a mount holds the volume. What is no volume succeeds. */
int prefix_delete(struct prefix *prefix, json_t **out, struct error *error);

#endif
