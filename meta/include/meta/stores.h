/*
 * Other stores of a volume: each mounts at a directory (attached), or is a place to move files to.
 * Rules and life: docs/stores.md. All calls block (network and disk); none on a volume's thread or
 * a store's loop. On a mount of a service they are the service's (remote_stores.h).
 */
#ifndef SLUICE_META_STORES_H
#define SLUICE_META_STORES_H

#include <jansson.h>

#include "meta/meta.h"

#define META_STORE_OWN "main" /* the name of the volume's own store */

struct meta_store_request {
    const char *url;     /* s3://bucket[/prefix], file:///dir */
    const char *name;    /* NULL: the bucket's */
    const char *options; /* JSON object as docs/stores.md says; NULL: none. Secrets are refused */
    bool read_only;
    uint64_t ino; /* an empty directory; 0: attached nowhere, files come by meta_migrate only */
};
/* Opens the store, takes its prefix (I9), records it. Nothing is changed if it fails. */
int meta_store_attach(struct meta *meta, const struct meta_store_request *request,
                      struct error *error);
/* The names below its directory go, the objects stay. -EBUSY with what is in the way: something
 * unsettled, files elsewhere that use its objects, a directory that migrates there. */
int meta_store_detach(struct meta *meta, const char *name, struct error *error);

enum meta_migrate { META_MIGRATE_TO, META_MIGRATE_PAUSE, META_MIGRATE_RESUME, META_MIGRATE_CANCEL };
/* Files below a directory belong to store `to` from now on: settle moves them. Or, with `class` in
 * its place, they stay where they are, and their objects get this storage class. PAUSE and RESUME:
 * of what was asked for that directory before. CANCEL: they belong where those of the directory
 * above do, and go back there; a class that was given stays. `after_s` (0: all): TO is of files
 * only that were not changed for so many seconds; those that become as old later follow. */
int meta_migrate(struct meta *meta, uint64_t ino, enum meta_migrate what, const char *to,
                 const char *class, uint64_t after_s, struct error *error);

/* {"stores": […], "migrations": […]}; a new reference, or NULL. */
json_t *meta_stores_json(struct meta *meta);

#endif
