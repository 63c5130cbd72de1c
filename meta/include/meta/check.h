/*
 * The tables of a volume against its bucket: what is missing or changed (fsck), and what nothing in
 * the tables owns (gc). Blocking; not on a store's loop thread. docs/fsck.md.
 */
#ifndef SLUICE_META_CHECK_H
#define SLUICE_META_CHECK_H

#include <jansson.h>

#include "meta/engine.h"
#include "meta/meta.h"

/* Opens the volume's other stores (docs/stores.md) in the mux, to read only. For an engine without
 * an open volume, which does it by itself. */
int meta_check_connect(struct engine *engine, struct store *mux, struct error *error);

/* --- fsck */

enum check_kind {
    CHECK_MISSING, /* an object in use is not in the bucket */
    CHECK_CHANGED, /* another size or ETag */
    CHECK_CONTENT, /* deep: the bytes do not have the MD5 that the ETag says */
    CHECK_READ,    /* deep: it cannot be read whole */
    CHECK_KIND_COUNT
};
const char *check_kind_name(enum check_kind kind);

struct check_finding {
    enum check_kind kind;
    const char *key;
    const char *text;     /* one line: what was expected and what is there */
    const char *repaired; /* what was done about it, or why nothing; NULL: nothing was asked */
};

struct check_counts {
    uint64_t objects; /* in use, compared */
    uint64_t keys;    /* in the bucket below the prefix, the volume's own included */
    uint64_t unknown; /* keys that the tables do not know: not imported yet, or see gc */
    uint64_t bytes;   /* deep: read */
    uint64_t by_md5;  /* deep: objects whose MD5 was compared */
    uint64_t found[CHECK_KIND_COUNT];
    uint64_t repaired;
};

struct check_config {
    struct engine *engine; /* may be a living one */
    struct store *store;
    struct meta *repair; /* whose engine it is; NULL: changes nothing */
    bool deep;
    unsigned parallel; /* deep: objects at once; default 8 */
    void (*report)(void *arg, const struct check_finding *finding);
    void (*progress)(void *arg, const struct check_counts *counts); /* may be NULL */
    bool (*stop)(void *arg); /* asked now and then: ends early with -ECANCELED; may be NULL */
    void *arg;
};
/* Of all stores if `store` is a mux, else of the volume's own. 0, also with findings; -errno if it
 * could not be done to the end. */
int meta_check_bucket(const struct check_config *config, struct check_counts *counts,
                      struct error *error);
/* As the commands and the control file show it; `findings` is an array, its reference is taken. */
json_t *check_finding_json(const struct check_finding *finding);
json_t *check_counts_json(const struct check_counts *counts, json_t *findings);
void check_counts_from_json(const json_t *from, struct check_counts *out);

/* --- gc */

enum orphan_kind {
    ORPHAN_OBJECT, /* an internal key of this volume that no record has */
    ORPHAN_ENTRY,  /* an entry of an inode that has none, or is gone */
    ORPHAN_STRAY,  /* a key outside of .sluice/ with this volume's tags that no record has: a write
                      that came too late */
    ORPHAN_UPLOAD, /* an unfinished upload to an internal key of this volume without a record */
    ORPHAN_FORMER, /* internal keys and entries of another volume that had this prefix before */
    ORPHAN_KIND_COUNT
};
const char *orphan_kind_name(enum orphan_kind kind);

struct orphan {
    enum orphan_kind kind;
    const char *key;
    uint64_t size, age_s;
    bool young; /* left alone, whatever was asked */
};

struct orphan_counts {
    uint64_t keys, uploads; /* looked at */
    uint64_t found[ORPHAN_KIND_COUNT], bytes[ORPHAN_KIND_COUNT];
    uint64_t young; /* not in found */
    uint64_t deleted, deleted_bytes, failed;
    uint64_t foreign_uploads; /* to keys that are not the volume's own: never touched */
};

struct orphan_config {
    struct engine *engine;
    struct store *store;
    uint64_t older_than_ns; /* younger ones are only counted */
    uint64_t now_ns;        /* wall clock */
    bool remove;            /* deletes what is found; the engine is that of an open volume */
    bool strays;            /* asks for the tags of every unknown key outside of .sluice/ */
    bool former;            /* deletes those of former volumes too */
    bool living;            /* the volume is in use: entries are only counted, as one may be written
                               anew at any time */
    unsigned parallel;
    void (*report)(void *arg, const struct orphan *orphan);          /* may be NULL */
    void (*progress)(void *arg, const struct orphan_counts *counts); /* may be NULL */
    bool (*stop)(void *arg);                                         /* as of a check */
    void *arg;
};
/* Of all stores that are written, as above. */
int meta_find_orphans(const struct orphan_config *config, struct orphan_counts *counts,
                      struct error *error);

json_t *orphan_json(const struct orphan *orphan);
json_t *orphan_counts_json(const struct orphan_counts *counts, json_t *list);
void orphan_counts_from_json(const json_t *from, struct orphan_counts *out);

/* --- These, and the import of an inventory, for a volume in use */

struct meta_examine {
    const char *inventory;   /* URL of a manifest, or an absolute path where the volume is open: its
                                names are imported (meta/inventory.h) */
    const char *filter;      /* of the inventory, or NULL */
    const char *options;     /* JSON: how its store is reached, as of meta_store_attach, or NULL */
    bool gc;                 /* meta_find_orphans; else meta_check_bucket */
    bool deep;               /* check */
    bool remove, strays;     /* gc */
    uint64_t older_than_ms;  /* gc */
    bool (*stop)(void *arg); /* asked now and then: ends early with -ECANCELED */
    void *arg;
};
/* *out: what the commands show, with the first 1,000 findings. The volume of a service is examined
 * by the service (server_examine.c): -EACCES without the right for it, -EBUSY while it examines the
 * volume for somebody else. */
int meta_examine(struct meta *meta, const struct meta_examine *what, json_t **out,
                 struct error *error);

/* Of an open volume. NULL: it is at a service. */
struct engine *meta_engine(struct meta *meta);

#endif
