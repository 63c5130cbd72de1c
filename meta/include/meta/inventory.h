/*
 * Names from an inventory of a bucket (S3 Inventory: manifest.json and files of CSV, or of Parquet
 * or ORC, which a program on PATH converts) in place of listings. docs/import.md tells what such a
 * name is worth.
 */
#ifndef SLUICE_META_INVENTORY_H
#define SLUICE_META_INVENTORY_H

#include "meta/rebuild.h"

struct inventory_counts {
    struct rebuild_counts names; /* keys: rows that were taken; with_attributes, entries: 0 */
    uint64_t rows;               /* of the files */
    uint64_t skipped;            /* older versions, delete markers, other prefixes, our own keys */
    uint64_t listed;             /* directories that are as if listed when the inventory was made */
    uint64_t bytes, all_bytes;   /* of the inventory's files: read, and all */
};

struct inventory_config {
    struct meta_config volume; /* as of struct rebuild_config; its database may exist */
    struct meta *living;       /* the volume is open and in use: `volume` is not used */
    const char *bucket;        /* the volume's: rows of another one are refused */
    struct store *store;       /* where the inventory is; NULL: in local files */
    const char *manifest;      /* its key, or path */
    const char *filter;        /* of the inventory: it has only keys that begin so; "" = all */
    void (*progress)(void *arg, const struct inventory_counts *counts); /* may be NULL */
    bool (*stop)(void *arg); /* asked now and then: ends early with -ECANCELED; may be NULL */
    void *arg;
};

/* Blocking; not on a store's loop thread. -EBADMSG: the inventory is damaged · -EOPNOTSUPP: its
 * format is another, or nothing on PATH converts it · errors of meta_open, the stores and the disk.
 * After an error, or the death of the process, the same call goes on. */
int meta_import_inventory(const struct inventory_config *config, struct inventory_counts *counts,
                          json_t *hidden, struct error *error);

/* As the commands and the control file show them; `hidden` is an object that they are added to. */
json_t *inventory_counts_json(const struct inventory_counts *counts, json_t *hidden);

#endif
