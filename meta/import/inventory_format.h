/* The text of an inventory: manifest.json, and rows of CSV. Anybody may have written it. */
#ifndef SLUICE_META_INVENTORY_FORMAT_H
#define SLUICE_META_INVENTORY_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "s3/store.h"

#define INVENTORY_MANIFEST_MAX (64u << 20)
#define INVENTORY_ROW_MAX 16384 /* bytes */
#define INVENTORY_COLUMNS_MAX 64

enum inventory_format { INVENTORY_CSV, INVENTORY_PARQUET, INVENTORY_ORC };

struct inventory_file {
    char *key; /* owned */
    uint64_t size;
    char md5[33];
};

struct inventory_manifest {
    char *bucket; /* that the inventory is of; owned */
    uint64_t created_ns;
    enum inventory_format format;
    bool has_bucket, has_latest, has_deleted; /* not CSV: of the fields that may be missing */
    struct inventory_file *files;             /* owned */
    size_t file_count;
    /* Column of each field; -1: there is none. Not CSV: those of inventory_convert.c. */
    int key, size, modified, etag, latest, deleted, of_bucket;
    int columns;
};

struct inventory_row {
    char key[STORE_KEY_MAX + 1];
    char bucket[64];
    uint64_t size, mtime_ns;
    char etag[STORE_ETAG_MAX];
    bool skip; /* not the latest version, or a delete marker */
};

/* 0, with what inventory_manifest_done frees · -EBADMSG · -EOPNOTSUPP: another format; with a
 * sentence. */
int inventory_manifest_parse(const void *data, size_t len, struct inventory_manifest *out,
                             struct error *error);
void inventory_manifest_done(struct inventory_manifest *m);
/* One row without its line end; `text` is changed. 0 or -EBADMSG with a sentence. */
int inventory_row_parse(const struct inventory_manifest *m, char *text, struct inventory_row *out,
                        struct error *error);
/* Whether a row that ends in a line end goes on, as one of its fields has one. */
bool inventory_row_goes_on(const char *text);

#endif
