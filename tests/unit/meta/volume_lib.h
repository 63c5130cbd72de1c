/*
 * A volume over a store in memory (with faults) or a directory, for tests. Waiting is polling with
 * a generous deadline.
 */
#ifndef SLUICE_TESTS_VOLUME_LIB_H
#define SLUICE_TESTS_VOLUME_LIB_H

#include <pthread.h>

#include "base/buf.h"
#include "base/loop.h"
#include "meta/meta.h"
#include "s3/backend.h"
#include "test.h"

#define VOLUME_DEADLINE_MS 120000

struct volume {
    char dir[4096], database[4200];
    struct loop *loop;
    /* Below the faults; NULL with a directory as the bucket. */
    struct store *memory, *late;
    struct store *store;
    struct meta_config config;
    struct meta_volume format;
    struct meta *meta;
    /* What the events said, under lock: "entry 1 name;inode 5 data;extents 7;" */
    pthread_mutex_t lock;
    struct buf events;
};

/* Directory, loop, stores, configuration (settle_delay 0, gc_delay 0, no import TTL); not opened.
 */
void volume_begin(struct volume *v);
/* The same with `<dir>/bucket` as the bucket. */
void volume_begin_file(struct volume *v, const char *dir);
void volume_open(struct volume *v);
/* The result, with the message in *error. */
int volume_try_open(struct volume *v, struct error *error);
void volume_close(struct volume *v);
/* Closes, and opens again. */
void volume_again(struct volume *v);
/* The records of a database that nobody has open fit together. */
void volume_check(const char *database);
/* Closes what is open, checks the database and removes the directory. */
void volume_end(struct volume *v);
/* Without removing the directory. */
void volume_leave(struct volume *v);

/* The bucket, as others see it. */
void bucket_put(struct volume *v, const char *key, const char *text);
/* What the volume itself would write as this object. */
void bucket_put_tagged(struct volume *v, struct store *store, const struct meta_object *object,
                       const char *text);
void bucket_put_size(struct volume *v, const char *key, size_t size);
void bucket_delete(struct volume *v, const char *key);
bool bucket_has(struct volume *v, const char *key);
/* Owned by the caller; NULL if there is none. */
char *bucket_get(struct volume *v, const char *key);
/* All keys that begin with prefix, without those below .sluice/, joined by ','. Owned. */
char *bucket_keys(struct volume *v, const char *prefix);
/* The number of keys that begin with prefix, all. */
unsigned bucket_count(struct volume *v, const char *prefix);
/* Unfinished uploads. */
unsigned bucket_uploads(struct volume *v);

/* The namespace. Results as meta_call; the inode or attributes by pointers that may be NULL. */
int name_lookup(struct volume *v, uint64_t parent, const char *name, struct meta_attr *attr);
uint64_t name_ino(struct volume *v, uint64_t parent, const char *name); /* must be there */
int name_mkdir(struct volume *v, uint64_t parent, const char *name, uint64_t *ino);
int name_create(struct volume *v, uint64_t parent, const char *name, uint64_t *ino);
int name_unlink(struct volume *v, uint64_t parent, const char *name); /* and drops it */
int name_rmdir(struct volume *v, uint64_t parent, const char *name);
int name_rename(struct volume *v, uint64_t parent, const char *name, uint64_t to,
                const char *new_name);
/* Names joined by ','; directories end in '/'. Owned. NULL with *rc set if it fails. */
char *name_list(struct volume *v, uint64_t dir, int *rc);
/* A file with inline bytes. */
uint64_t file_inline(struct volume *v, uint64_t parent, const char *name, const char *text);
int file_write_inline(struct volume *v, uint64_t ino, const char *text);
/* A file (new, or replaced) whose bytes are one object written by the volume. */
uint64_t file_object(struct volume *v, uint64_t parent, const char *name, const void *data,
                     size_t len, bool internal_key);
int file_write_object(struct volume *v, uint64_t ino, uint64_t offset, const void *data, size_t len,
                      bool internal_key, bool replace, struct meta_object *out);
/* Reads through the extents, with If-Match. Owned, len bytes and a NUL; NULL if it fails. */
char *file_read(struct volume *v, uint64_t ino, size_t *len);
/* The key of the first object of a file; "" if there is none. */
void file_key(struct volume *v, uint64_t ino, char key[META_KEY_MAX + 1]);

int volume_settle(struct volume *v, uint64_t ino, struct error *error);
int volume_refresh_now(struct volume *v, uint64_t ino);
int volume_object_changed(struct volume *v, uint64_t ino, uint64_t object);
/* Status as text. Owned. */
char *volume_status(struct volume *v);
/* Whether an event has been seen; events_clear forgets all. */
bool event_seen(struct volume *v, const char *text);
void events_clear(struct volume *v);
void volume_fault(struct volume *v, struct store_fault_rule rule);
void volume_no_fault(struct volume *v);

void sleep_ms(unsigned ms);

/* In a child process: `before` (may be NULL), then `work`, which must be killed at the crash point
 * ("name" or "name:n"), or the test fails. */
void volume_dies_at(const char *point, void (*before)(void), void (*work)(void));

/* Until the condition holds, or the deadline has passed (the test fails). */
#define eventually(condition)                                                                      \
    do {                                                                                           \
        unsigned waited_ = 0;                                                                      \
        while (!(condition)) {                                                                     \
            if (waited_ > VOLUME_DEADLINE_MS)                                                      \
                test_fail("never: %s", #condition);                                                \
            sleep_ms(2);                                                                           \
            waited_ += 2;                                                                          \
        }                                                                                          \
    } while (0)

void file_set_mtime(struct volume *v, uint64_t ino, uint64_t mtime_ns);

#endif
