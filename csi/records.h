/*
 * What the driver keeps on the host for each volume it has mounted: one directory
 * STATE/volumes/HASH, HASH from the volume's id, with
 *   volume.json  this record        meta/  the mount's metadata        log  its log
 * A record is written to a new file and renamed. Losing records loses nothing: they are made again
 * from the daemons that run (records_adopt).
 */
#ifndef SLUICE_CSI_RECORDS_H
#define SLUICE_CSI_RECORDS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct record {
    char *volume_id; /* NULL in one that was made again */
    char *staging;   /* where it is mounted, NULL: nowhere */
    char *owner;     /* id of the metadata in meta/, as the bucket's owner record has it; NULL: not
                        known */
    bool clean;      /* at the last unmount all was in the bucket */
    int64_t unstaged_s; /* time of it; 0: mounted, or never was */
};
void record_done(struct record *r);

/* The directory of a volume; owned by the caller, NULL without memory. Pure. */
char *records_dir(const char *state_dir, const char *volume_id);
/* Makes it, 0700. */
int records_make(const char *dir, struct error *error);
/* 0; -ENOENT: there is none; -EBADMSG: it cannot be read (it is then as if there were none). */
int record_load(const char *dir, struct record *out);
int record_save(const char *dir, const struct record *record, struct error *error);
/* The directory with all below it. Does not follow links. */
int records_remove(const char *dir);
/* Each directory, with its record (all NULL if it has none). */
void records_each(const char *state_dir, void (*fn)(void *arg, const char *dir, struct record *r),
                  void *arg);

#endif
