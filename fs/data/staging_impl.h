/*
 * Inside staging: the two forms of a staging (slot of the small-file area, file) and what they
 * share. Formats: docs/data-path.md.
 */
#ifndef SLUICE_FS_STAGING_IMPL_H
#define SLUICE_FS_STAGING_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/pool.h"
#include "page_sums.h"
#include "part_sums.h"
#include "staging.h"
#include "staging_ranges.h"

#define STAGING_BOOT_ID 36

struct small_area;

struct staging_area {
    /* immutable */
    int dir_fd, lock_fd;
    uint64_t max_bytes, max_files;
    char boot_id[STAGING_BOOT_ID + 1];
    struct small_area *small; /* NULL: there was no room for it */
    struct pool *closer;      /* closing a large removed file takes long: not on a request's way */
    bool names_with_data;     /* a sync of a new file's bytes makes its name sure, too */

    uint64_t discarded;             /* bytes that another boot left */
    _Atomic uint64_t bytes;         /* dirty bytes of all stagings */
    _Atomic uint64_t scratch_bytes; /* of bytes: those with STAGING_SCRATCH */
    _Atomic uint64_t limit;         /* of bytes: max_bytes, less on a disk that gets full */
    _Atomic uint64_t measured_ms;
    _Atomic uint64_t files;       /* struct staging_view: two descriptors each */
    _Atomic uint64_t next_number; /* of a file of bytes */
    /* Synced logs that were removed, and how many of them are surely gone from the disk. */
    _Atomic uint64_t logs_removed, logs_gone;
};

/* In the number of a file of bytes that says all by itself, as long as it has no log: nothing is
 * committed of its inode, and nothing but writes has happened to it. */
#define STAGING_ALONE (1ull << 63)
/* data_version of an inode that nothing was committed of. */
#define STAGING_FIRST_VERSION 1

/* An open file of staged bytes. References: its staging, its views, a pending close. log_fd: -1
 * until there is a log; of the staging, with file->lock. */
struct staging_view {
    struct staging_area *area;
    int fd, log_fd;
    _Atomic unsigned refs;
    struct pool_task close_task;
};

struct staging {
    struct staging_area *area;
    uint64_t ino;
    struct ranges ranges;
    uint64_t epoch;
    uint64_t size, mtime_ns, truncated_to;
    bool time_dirty;
    uint64_t charged; /* of area->bytes */
    struct part_sums sums;
    bool sums_pages; /* `pages` is kept */
    struct page_sums pages;

    int slot; /* -1: file */
    uint64_t slot_sequence;

    struct staging_view *file; /* NULL: slot */
    uint64_t data_number;      /* of its name */
    int log_fd;                /* the view's; -1: none (yet) */
    bool fresh;                /* nothing of the inode is committed: may have no log */
    bool alone;                /* has no log, and needs none: STAGING_ALONE */
    bool alone_synced;         /* its bytes were synced so */
    uint32_t flags;
    uint64_t base_version;
    /* What survives a power loss: the log as it was after so many changes. */
    uint64_t log_changes, synced_changes;
    uint64_t synced_generation; /* whose last sync record is surely on the disk; 0: none */
    bool power_safe;            /* there is a sync record, perhaps on the disk */
    bool dir_synced;
    bool other_boot;         /* recovered from before a power loss */
    uint64_t log_generation; /* steps with each rewriting of the log */
    uint32_t log_count;      /* records in the present half */
    bool log_last_write;     /* the last record is a write of [log_last_offset, log_last_end) */
    uint64_t log_last_offset, log_last_end;
    struct ranges trims; /* cleaned, but still on the disk */
};

/* staging_small.c: slots in one mapped file. */
int small_area_open(struct staging_area *area, uint32_t inline_max, struct small_area **out);
void small_area_close(struct small_area *small);
/* Slots that a dead process left: calls back with a staging for each. */
int small_area_recover(struct staging_area *area,
                       int (*found)(void *arg, const struct staging_found *found), void *arg);
int small_take(struct small_area *small); /* a free slot, or -1 */
void small_put(struct small_area *small, int slot);
uint8_t *small_bytes(struct small_area *small, int slot);
uint32_t small_capacity(const struct small_area *small);
/* Writes the state of the staging (ranges, size, times) to its slot. False: it does not fit in one,
 * and the slot still says what it said. */
bool small_store(struct staging *staging);

/* staging_file.c: a file of bytes, and one with their log. */
/* Makes the file with the present state in its log, if it needs one; bytes of a slot are copied. */
int staging_file_create(struct staging *staging);
/* A file of bytes with a new number, which the staging gets; the descriptor, or -errno. */
int staging_file_make_data(struct staging *staging, bool alone);
/* The log, with the present state, if there is none. */
int staging_file_need_log(struct staging *staging);
/* From now on the log says what counts. If it cannot be written now, whoever needs it next says. */
void staging_file_end_alone(struct staging *staging);
int staging_file_append(struct staging *staging, uint64_t offset, uint64_t length, bool zero);
/* Records size, times, truncated_to; the ranges beyond size are cut in the log too. */
int staging_file_state(struct staging *staging);
/* What the first `count` records say is on the disk, bytes too. */
int staging_file_append_sync(struct staging *staging, uint32_t count);
/* The log is on the disk as it is: what it does not need may go. */
bool staging_file_is_synced(const struct staging *staging);
/* Rewrites the log from memory. */
int staging_file_rewrite(struct staging *staging);
int staging_file_flags(struct staging *staging); /* to the header */
void staging_file_trim(struct staging *staging);
/* The log; and the file of the bytes, too. */
void staging_file_remove(struct staging *staging, bool data);
int staging_file_recover(struct staging_area *area, const char *name,
                         int (*found)(void *arg, const struct staging_found *found), void *arg);
/* A file of bytes: one that no log names is found as far as it says all by itself, else removed. */
int staging_file_recover_data(struct staging_area *area, const char *name,
                              int (*found)(void *arg, const struct staging_found *found),
                              void *arg);
/* Name of the file of bytes. */
#define STAGING_NAME_MAX 40
void staging_data_name(uint64_t ino, uint64_t number, char name[STAGING_NAME_MAX]);

/* staging_shared.c: what a process left that shared the file; the ranges and the size are those of
 * the log. */
int staging_take_left(struct staging *staging, bool other_boot);
/* The same of one that had no log. */
int staging_take_alone(struct staging *staging);

/* staging_sync.c: all steps at once; blocking. For recovery, and before the last synced log would
 * be overwritten. */
int staging_sync_now(struct staging *staging);
/* On the file system of this directory fdatasync of a new file makes its name sure, too. */
bool staging_names_come_with_data(int dir_fd);

/* staging.c */
struct staging *staging_alloc(struct staging_area *area, uint64_t ino);
void staging_charge(struct staging *staging);
int staging_call_found(struct staging *staging, uint64_t base_version,
                       int (*found)(void *arg, const struct staging_found *found), void *arg);

#endif
