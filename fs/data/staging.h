/*
 * The dirty bytes of one file: a set of ranges, and the bytes in a local file (or, while small, in
 * a slot of the mapped small-file area). A log in the same file says which ranges are dirty and how
 * long the file is, so that a process that was killed can be recovered by the next one on the same
 * boot. After another boot (power loss) what was not committed is discarded: the page cache is
 * gone, the ranges cannot be trusted. Formats: docs/data-path.md.
 *
 * Ranges are byte-exact. Each carries the epoch of its last write: staging_freeze ends an epoch,
 * and staging_clean cleans only what was not written since. So bytes may be overwritten while they
 * are uploaded: they stay dirty.
 *
 * All calls with file->lock held unless said; none blocks on more than the local file system.
 */
#ifndef SLUICE_FS_STAGING_H
#define SLUICE_FS_STAGING_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "meta/op.h"

struct staging;
struct staging_area; /* one directory, shared by all files of a mount */
struct staging_view;
struct fuse_bufvec;

struct staging_range {
    uint64_t offset, length;
    uint64_t epoch;
    bool hole; /* zeros, made by punching: no bytes to upload */
};

/* Makes the directory, locks it (-EBUSY). `inline_max`: size of a slot of the small-file area. */
int staging_area_open(const char *path, uint64_t max_bytes, uint32_t inline_max,
                      struct staging_area **out, struct error *error);
void staging_area_close(struct staging_area *area);       /* all stagings were freed or left */
uint64_t staging_area_bytes(struct staging_area *area);   /* any thread */
uint64_t staging_area_scratch(struct staging_area *area); /* any thread: those of scratch */
uint64_t staging_area_max(struct staging_area *area); /* any thread: as much as may be staged now */
/* Any thread: writers should wait and flushes be hurried. So many bytes, or so many files that the
 * process would run out of descriptors. */
bool staging_area_full(struct staging_area *area);
bool staging_area_is_crowded(struct staging_area *area); /* half as many files as may be */

/* What a dead process left. */
struct staging_found {
    uint64_t ino;
    struct staging *staging; /* the callee owns it */
    uint64_t size, mtime_ns; /* of the file as its last writer saw it */
    uint64_t truncated_to;   /* committed bytes from here on are cut; UINT64_MAX: none */
    bool time_dirty;
    uint32_t flags;
    /* A power loss was in between, or nobody can say: this is the state of its last staging_sync,
     * or a later one, made on top of `base_version` of the content. One of base_version + 2 or more
     * has it already. */
    bool other_boot;
    uint64_t base_version;
};
/* Calls back for each inode with a staging. Before any other use. What another boot left, and
 * was not synced, is removed; *discarded: its bytes. Of two stagings of one inode the first is the
 * newer; the second is to be freed. 0 or the callback's error. */
int staging_recover(struct staging_area *area,
                    int (*found)(void *arg, const struct staging_found *found), void *arg,
                    uint64_t *discarded);

/* `size`: of the file now. -ENOSPC, -ENOMEM, -EMFILE… */
int staging_new(struct staging_area *area, uint64_t ino, uint64_t size, struct staging **out);
/* The same, with what the next process is to know; base_version: of the content below, again after
 * each commit (before staging_committed). One that is scratch has a file from the start.
 * STAGING_FRESH: nothing of the file is committed, no cut either (this is not kept). */
enum { STAGING_LOCAL = 1, STAGING_SCRATCH = 2, STAGING_SHARED = 4, STAGING_FRESH = 8 };
int staging_new_class(struct staging_area *area, uint64_t ino, uint64_t size, uint32_t flags,
                      uint64_t base_version, struct staging **out);
void staging_set_base(struct staging *staging, uint64_t base_version);
/* Other flags than before. */
int staging_set_flags(struct staging *staging, uint32_t flags);
/* Right after staging_new: sums the parts of so many bytes that are written in order. */
void staging_sum_parts(struct staging *staging, uint32_t part_bytes);
/* Right after staging_new, too: takes the sums of the pages for staging_give. */
void staging_sum_pages(struct staging *staging);
/* Removes the files. Views keep the open file until they are put. NULL is allowed. */
void staging_free(struct staging *staging);
/* Frees it, all of which is committed (staging_in_file), and gives its file away: the first `size`
 * bytes are the content, which nobody changes any more. */
struct staging_gift {
    struct staging_view *view; /* the taker puts it */
    bool alone;                /* nobody else has a view */
    int dir_fd;                /* the area's */
    char name[40];             /* there; the taker removes it */
    uint64_t size;
    struct cache_page_sum *sums; /* of the first pages; the taker frees it */
    uint64_t sum_count;
};
void staging_give(struct staging *staging, uint64_t size, struct staging_gift *out);
/* Frees the memory, keeps the files for the next process. */
void staging_leave(struct staging *staging);

/* Copies from the FUSE buffers (all of them: fuse_buf_size). The size of the file becomes at least
 * offset + length. Bytes taken (all), or -errno and then the range is not dirty (old dirty bytes of
 * the range may have been overwritten: it stays dirty if it was). */
int64_t staging_write(struct staging *staging, struct fuse_bufvec *in, uint64_t offset,
                      uint64_t mtime_ns);
int staging_write_bytes(struct staging *staging, const void *bytes, uint64_t offset,
                        uint64_t length, uint64_t mtime_ns);
/* Makes a range zeros (`hole` ranges). Does not change the size. */
int staging_zero(struct staging *staging, uint64_t offset, uint64_t length, uint64_t mtime_ns);
/* Records the size of the file; cuts dirty ranges beyond it. A cut lowers truncated_to. */
int staging_set_size(struct staging *staging, uint64_t size, uint64_t mtime_ns);
/* The application set the time: what is staged does not change it any more. */
int staging_set_time(struct staging *staging, uint64_t mtime_ns);
/* A commit was answered: committed bytes count again below `truncated_to` (UINT64_MAX: all). */
int staging_committed(struct staging *staging, uint64_t truncated_to, bool time_dirty);
/* Ends the present epoch and returns its number: what is written from now on has a higher one. */
uint64_t staging_freeze(struct staging *staging);
/* What of the range was last written in `epoch` or before is committed: no longer dirty. Its bytes
 * are dropped from the local disk (later, while there are views). */
void staging_clean(struct staging *staging, uint64_t offset, uint64_t length, uint64_t epoch);
/* Some of the range was written after `epoch`. */
bool staging_newer(const struct staging *staging, uint64_t offset, uint64_t length, uint64_t epoch);

/* The CRC-32C of the first `length` bytes of part `index` (part_sums.h), all of them dirty; false
 * if they were not written in order. */
bool staging_part_sum(const struct staging *staging, unsigned index, uint64_t length,
                      uint32_t *crc32c);

/* Bytes, ranges and size as they are at staging_sync_begin survive a power loss when the steps are
 * over: begin and note and end with file->lock, data and log without it; they wait for the disk. A
 * staging that was freed in between has nothing to lose. -EAGAIN from note: begin again. */
struct staging_sync {
    struct staging_view *view;
    uint64_t number, generation, changes;
    uint64_t removed; /* area->logs_removed */
    uint32_t count;
    bool alone;    /* no log is needed */
    bool log, dir; /* to be written */
};
int staging_sync_begin(struct staging *staging, struct staging_sync *sync); /* moves to a file */
int staging_sync_data(const struct staging_sync *sync);
int staging_sync_note(struct staging *staging, struct staging_sync *sync); /* NULL is allowed */
int staging_sync_log(const struct staging_sync *sync);
void staging_sync_end(struct staging *staging, struct staging_sync *sync); /* NULL is allowed */
void staging_sync_done(struct staging_sync *sync); /* after begin, always; without locks */
/* It was synced, and what changed since was not: what a commit cleaned stays until it is. */
bool staging_needs_sync(const struct staging *staging);

/* Passthrough (staging_shared.c): programs write the file by themselves. It gets one, as long as
 * the content, which is all staged, zeros elsewhere. -EBUSY: not now. Views never see its holes
 * punched then. */
int staging_share(struct staging *staging);
int staging_unshare(struct staging *staging); /* nobody does any more */
/* All that a shared file holds is dirty from now on, as if it was written now; its size counts. */
int staging_take(struct staging *staging, uint64_t mtime_ns, bool time_dirty);
/* The bytes go on in a file of their own: who writes the present one writes it for himself.
 * Blocking. */
int staging_part_from_others(struct staging *staging);

/* The first dirty range that ends after `offset`; false if none. Ranges that touch but differ in
 * epoch or hole are separate. */
bool staging_next(const struct staging *staging, uint64_t offset, struct staging_range *out);
unsigned staging_count(const struct staging *staging);       /* of ranges */
uint64_t staging_dirty_bytes(const struct staging *staging); /* without holes */
bool staging_covers(const struct staging *staging, uint64_t offset, uint64_t length);
/* How far the bytes (no holes) reach without a gap from `offset`. */
uint64_t staging_reach(const struct staging *staging, uint64_t offset);
/* Copies bytes of a dirty range (holes give zeros). */
int staging_read(struct staging *staging, uint64_t offset, uint64_t length, void *buf);

/* The bytes as an open file, for reads without the lock: dirty ranges that were seen under the same
 * hold of the lock stay where they are (or are overwritten by later writes) until the view is put,
 * though they are cleaned or the staging is freed meanwhile. NULL: the bytes are in a slot (use
 * staging_read, at most inline_max bytes). Bytes stand at their own offset in it. Counted; get with
 * the lock, the others on any thread without locks. */
struct staging_view *staging_view_get(struct staging *staging);
bool staging_in_file(const struct staging *staging); /* staging_view_get would give one */
int staging_view_fd(const struct staging_view *view);
/* What the disk says of the file. Asking for its time makes the next write get a time of its own,
 * and change the inode: the fdatasync after it takes half as long again. */
struct staging_look {
    uint64_t size, allocated; /* bytes, bytes on the disk */
    uint64_t mtime_ns;        /* 0: not asked for */
};
int staging_view_look(const struct staging_view *view, bool time, struct staging_look *out);
/* Nobody else has it open for writing, or mapped so. Nobody writes by this view meanwhile. */
bool staging_view_is_alone(struct staging_view *view);
int staging_view_read(const struct staging_view *view, uint64_t offset, uint64_t length, void *buf);
/* The bytes where they lie, in the page cache: writers may change them while they are read. Goes
 * before the view. */
struct staging_map {
    void *data;
    size_t length;
    void *base; /* the map's own, as mapped_length */
    size_t mapped_length;
};
int staging_view_map(const struct staging_view *view, uint64_t offset, uint64_t length,
                     struct staging_map *out);
void staging_unmap(struct staging_map *map); /* one that is all zero is allowed */
void staging_view_put(struct staging_view *view);

#endif
