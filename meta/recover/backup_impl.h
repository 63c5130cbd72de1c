/* What backup.c and backup_restore.c share. */
#ifndef SLUICE_META_BACKUP_IMPL_H
#define SLUICE_META_BACKUP_IMPL_H

#include "meta/backup.h"

#define BACKUP_MANIFEST "manifest.json"
#define BACKUP_FILES "files/"

/* base + parts, in room for a key: 0, -ENAMETOOLONG. */
int backup_key(const struct backup_place *place, char out[META_KEY_MAX + 1], const char *a,
               const char *b, const char *c);
/* All keys below base + `below`, in order; each returns 0 to go on. delimiter NULL: all levels. */
int backup_walk(const struct backup_place *place, const char *below, const char *delimiter,
                int (*each)(void *arg, const struct store_entry *entry), void *arg,
                struct error *error);
/* The manifest of one backup. -ENOENT: it is not complete. */
int backup_manifest_read(const struct backup_place *place, const char *time,
                         struct backup_manifest *out, struct error *error);
/* "20261121T161100.123Z" */
bool backup_is_time(const char *text, size_t len);

#endif
