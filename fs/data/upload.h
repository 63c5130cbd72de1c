/*
 * Flush of one file: from staged bytes to objects in the store and extents in the metadata.
 *
 * At most one upload of a file is in progress (file->upload). It has a snapshot, taken when the
 * flush was asked for: size, times, ranges and the staging's epoch. Writers go on meanwhile; what
 * they write stays dirty, because only bytes of the epoch that was read are cleaned. What an object
 * holds is what was read from staging when its part was sent.
 *
 * A stream is an upload that begins before anybody asks for a flush: a new file that is written
 * from its start on is sent part by part while it is written, and gets its snapshot when a flush is
 * asked for.
 */
#ifndef SLUICE_FS_UPLOAD_H
#define SLUICE_FS_UPLOAD_H

#include "file.h"

/* Waits for a flush of all that is dirty now. With request NULL: only begins one. 0: nothing is
 * dirty; -EINPROGRESS; -errno. No locks held. */
int upload_flush(struct file *file, struct data_request *request);
/* After a write: begins a stream, or sends its next parts, where there is enough. `end` = end of
 * what was written. Cheap when there is nothing to do. No locks held. */
void upload_written(struct file *file, uint64_t offset, uint64_t end);
/* The file was cut to `size`, or (size 0) unlinked: a stream that has sent more is given up. With
 * file->lock; upload_stopped follows without it. */
void upload_stop_locked(struct file *file, uint64_t size);
void upload_stopped(struct file *file);
/* A flush now would send nothing to the store: the bytes go to the metadata. With file->lock. */
bool upload_is_inline(const struct file *file);
/* It has its snapshot. With file->lock held. */
bool upload_is_finishing(const struct upload *upload);
/* The application set the time: an upload in progress does not set it, or repairs it. With
 * file->lock held. */
void upload_times_set_locked(struct file *file);
/* A truncate while an upload is in progress. With file->lock held. */
void upload_truncated_locked(struct file *file, uint64_t size);

#endif
