/*
 * The bucket in virtual time: a memory store whose requests take effect, and are answered, when
 * sim_step says so; some fail, some are done and their answer is lost. What the volume does to it
 * is checked: nothing that is in use or somebody else's is overwritten or deleted (I1, I2), nothing
 * is written before it was recorded, or deleted before its last reference went for good (I4).
 */
#ifndef SLUICE_TESTS_BUCKET_H
#define SLUICE_TESTS_BUCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uthash.h>

#include "s3/backend.h"

/* What stands at a key. */
struct bucket_object {
    char *key; /* owned */
    char etag[STORE_ETAG_MAX];
    uint8_t *data; /* owned */
    size_t len;
    bool foreign;
    uint64_t id;     /* ours: of its tags */
    uint64_t change; /* ours: a copy of itself in another storage class */
    char storage_class[32];
    uint32_t mode;           /* as its tags say, or what a file has without tags */
    bool late;               /* ours: written after its process had died */
    bool lagging;            /* HEAD has shown what was there before */
    uint64_t adopter;        /* foreign: the file that was imported from it */
    bool released;           /* a user changed, moved or removed that file */
    uint64_t referenced_seq; /* a file was seen to use it, after this change */
    UT_hash_handle hh;
};

/* Guards that a test takes away, to see that it is noticed. */
enum bucket_fault {
    BUCKET_HEALTHY,
    BUCKET_NO_IF_NONE_MATCH,       /* the store ignores it */
    BUCKET_OTHER_NO_IF_NONE_MATCH, /* … where files are migrated to */
    BUCKET_NO_IF_MATCH,            /* on GET and copies */
    BUCKET_NO_IF_MATCH_WRITE,
    BUCKET_FAULT_COUNT
};

struct engine;

void bucket_init(const char *volume_id, enum bucket_fault fault);
/* What the volume talks to. */
struct store *bucket_store(void);
/* Of the volume that is open; NULL: none. */
void bucket_engine(struct engine *engine);
/* The process dies: what was sent takes effect now, or some time later, or never. */
void bucket_crash(void);
void bucket_alive(void);
/* No more faults and lost answers. */
void bucket_calm(bool calm);
bool bucket_idle(void);
/* HEAD always shows what was there before, for as long as it may. */
void bucket_lag(bool always);
/* Requests of this kind (a bit for each) are refused. */
void bucket_refuse(unsigned kinds);
/* How many were, and when the last one was (clock_monotonic_ns). */
unsigned bucket_refused(uint64_t *last_ns);

/* The store that a key is in: 0, or 1, the one that files are migrated to; *own: its key there. */
unsigned bucket_store_of(const char *key, const char **own);
bool bucket_is_internal(const char *key);
/* Who owns the prefix, and entries: not checked here. */
bool bucket_is_control(const char *key);
const struct bucket_object *bucket_find(const char *key);
struct bucket_object *bucket_all(void);
/* What others do, at once. */
void bucket_put_foreign(const char *key, const void *data, size_t len);
void bucket_delete_foreign(const char *key);
/* Every content that was ever put by others: NULL if it never was. */
const uint8_t *bucket_history(const char *key, const char *etag, size_t *len);
/* Whether others overwrote or deleted such an object. */
bool bucket_taken_by_others(const char *key, const char *etag);
/* What was last written as this object; NULL: not known any more. */
const uint8_t *bucket_written(uint64_t object, size_t *len);
unsigned bucket_uploads_open(void);
/* The record of an object, or of a change of its class, was made by this change of the tables. */
void bucket_recorded(uint64_t object, uint64_t sequence);

#endif
