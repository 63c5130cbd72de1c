/*
 * The dirty bytes of one file: a set of ranges, and the bytes in a local file at the same offsets
 * (or, while small, in a slot of the mapped small-file area). A log beside it says which ranges are
 * dirty and how long the file is, so that a process that was killed can be recovered by the next
 * one on the same boot. After another boot (power loss) what was not committed is discarded: the
 * page cache is gone, the ranges cannot be trusted.
 *
 * Ranges are byte-exact. All calls with file->lock held unless said; none blocks on more than the
 * local file system.
 */
#ifndef SLUICE_FS_STAGING_H
#define SLUICE_FS_STAGING_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "meta/op.h"

struct staging;
struct staging_area; /* one directory, shared by all files of a mount */
struct fuse_bufvec;

struct staging_range {
    uint64_t offset, length;
};

/* Makes the directory, locks it (-EBUSY). */
int staging_area_open(const char *path, uint64_t max_bytes, struct staging_area **out,
                      struct error *error);
void staging_area_close(struct staging_area *area);
uint64_t staging_area_bytes(struct staging_area *area); /* any thread */
bool staging_area_full(
    struct staging_area *area); /* any thread: writers should wait and flushes be hurried */

/* What a dead process left: calls back for each inode with a staging that holds its ranges; the
 * callee owns it. `size` = size of the file as its last writer saw it. Before any other use. */
int staging_recover(struct staging_area *area,
                    int (*found)(void *arg, uint64_t ino, struct staging *staging, uint64_t size,
                                 uint64_t mtime_ns),
                    void *arg);

int staging_new(struct staging_area *area, uint64_t ino, struct staging **out);
/* Removes the files. Ranges being read by buffers keep the open file until they are put. */
void staging_free(struct staging *staging);

/* Copies from the FUSE buffers. Bytes taken (all), or -errno and then the range is not dirty (old
 * dirty bytes of the range may have been overwritten: it stays dirty if it was). */
int64_t staging_write(struct staging *staging, struct fuse_bufvec *in, uint64_t offset,
                      uint64_t length);
int staging_write_bytes(struct staging *staging, const void *bytes, uint64_t offset,
                        uint64_t length);
/* Makes a range dirty zeros. */
int staging_zero(struct staging *staging, uint64_t offset, uint64_t length);
/* Records the size of the file; cuts dirty ranges beyond it. */
int staging_set_size(struct staging *staging, uint64_t size, uint64_t mtime_ns);
/* The range is committed: no longer dirty. The bytes are dropped from the local disk. */
int staging_clean(struct staging *staging, uint64_t offset, uint64_t length);

/* The first dirty range that ends after `offset`; false if none. */
bool staging_next(const struct staging *staging, uint64_t offset, struct staging_range *out);
unsigned staging_count(const struct staging *staging); /* of ranges */
uint64_t staging_dirty_bytes(const struct staging *staging);
bool staging_covers(const struct staging *staging, uint64_t offset, uint64_t length);
/* Bytes of a dirty range. `staging_read` without lock is allowed for ranges that nobody writes
 * (upload of a frozen range). */
int staging_read(struct staging *staging, uint64_t offset, uint64_t length, void *buf);
/* The open file and that it is one (not a slot): for replies by splice; -1 for a slot. */
int staging_fd(const struct staging *staging);

#endif
