/*
 * Backups of the metadata in an object store, and their way back (docs/backup.md).
 *
 * A backup is a RocksDB checkpoint: its files, named by their SHA-256 so that a file which is there
 * already is not sent again, and a manifest, written last and conditionally. Below a base key:
 *
 *     <base>files/<sha256>
 *     <base><time>/manifest.json        time: 20261121T161100.123Z
 *
 * All calls block; not on a store's loop thread. One backup of a base at a time: who holds the
 * volume's checkpoint.
 */
#ifndef SLUICE_META_BACKUP_H
#define SLUICE_META_BACKUP_H

#include <stdatomic.h>

#include "meta/meta.h"

#define BACKUP_TIME_LEN 20 /* without NUL */
#define BACKUP_NAME_MAX 128
#define BACKUP_MANIFEST_MAX (64u << 20) /* bytes */

struct backup_file {
    char name[BACKUP_NAME_MAX];
    uint64_t size;
    char sha256[65];
};

struct backup_manifest {
    char volume[33];
    char store[512], prefix[META_KEY_MAX + 1]; /* of the volume */
    uint64_t time_ns, applied;
    struct backup_file *files;
    size_t count;
};
/* Any bytes: 0, -EBADMSG for what is no manifest, -EPROTO for one of a newer version, -ENOMEM. */
int backup_manifest_parse(const void *data, size_t len, struct backup_manifest *out);
/* JSON; owned by the caller; NULL without memory. */
char *backup_manifest_print(const struct backup_manifest *manifest);
void backup_manifest_done(struct backup_manifest *manifest);

struct backup_place {
    struct store *store;
    const char *base; /* "" or ends in '/' */
};
/* The base inside a volume's own bucket; out has META_KEY_MAX + 1 bytes. */
void backup_base(const char *volume_prefix, char *out);

struct backup_config {
    struct backup_place place;
    const char *directory; /* of a checkpoint that nobody changes */
    const struct meta_volume *volume;
    uint64_t applied;
    unsigned keep;                                /* the newest so many backups stay; 0: all */
    const atomic_bool *stop;                      /* ends early with -ECANCELED; NULL: never */
    void (*sent)(void *arg, uint64_t bytes_left); /* NULL: nobody wants to know */
    void *arg;
};
struct backup_result {
    char time[BACKUP_TIME_LEN + 1];
    uint64_t files, bytes, sent_files, sent_bytes;
    unsigned removed; /* backups that were older than what is kept */
};
/* -EEXIST: there are backups of another volume · errors of disk and store. */
int backup_run(const struct backup_config *config, struct backup_result *result,
               struct error *error);

/* Calls each(arg, time) for every complete backup, oldest first. The result of `each` if it is not
 * 0; -errno. */
int backup_list(const struct backup_place *place, int (*each)(void *arg, const char *time),
                void *arg, struct error *error);

struct restore_config {
    struct backup_place place;
    struct store *store;   /* the volume's */
    const char *prefix;    /* of the volume in it */
    const char *at;        /* the newest backup up to this time ("2026-11-21T16:11", or less of it);
                              NULL: the newest of all */
    const char *directory; /* exists, and holds no database */
    bool take_over;        /* even if another mount seems to hold the prefix */
    /* A file that is not as it was: its object has changed or is gone. May be NULL. */
    void (*differs)(void *arg, const char *path, const char *key, bool gone);
    void *arg;
};
struct restore_result {
    char time[BACKUP_TIME_LEN + 1];
    uint64_t files, bytes;              /* of the database */
    uint64_t objects, changed, missing; /* of the volume */
};
/* Fetches and checks every file, opens the database, checks it, and compares it with the bucket. On
 * failure the directory is as it was. -ENOENT: no such backup · -EEXIST: there is a database ·
 * -EBUSY: the prefix is in use · -EBADMSG: damaged · -EINVAL: of another volume. */
int backup_restore(const struct restore_config *config, struct restore_result *result,
                   struct error *error);

#endif
