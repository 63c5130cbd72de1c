/*
 * Reads that the kernel serves from a cache file, without the mount (docs/cache.md, Passthrough),
 * and new files that it writes and reads in their staging file (docs/durability.md).
 *
 * The kernel's rules: while an inode has a handle with passthrough, each further one must name the
 * same backing file; while it has one without, none can have it. So who opens a file first decides.
 * Passthrough is for readers of a file that is one whole, cached, verified object. A writer that
 * comes while they read gets the same backing file, with its I/O sent to the mount all the same;
 * before that the file is detached from the cache: it belongs to this inode then, has no name, and
 * each change is made in it, too, right after it was staged. So readers and mappings see it.
 *
 * A handle that may read and write can map the backing file and change it behind our back. So a
 * flush by such a handle compares the file with the checksums that its pages should have, and
 * stages what differs; and when the last handle is gone, the file is kept (it lingers) as long as
 * anybody has it open for writing, that is mapped, and compared a last time.
 *
 * Locks: all state is under file->lock.
 */
#ifndef SLUICE_FS_PASSTHROUGH_H
#define SLUICE_FS_PASSTHROUGH_H

#include "file.h"

/* With file->lock held. Before a change of content or size: detaches the backing file if there is
 * one. 0, or -errno: the change must not be made. */
int pass_before_change_locked(struct file *file);
/* After it: the bytes of the range are staged (or zeros). */
void pass_changed_locked(struct file *file, uint64_t offset, uint64_t length);
/* After it: file->size is new. */
void pass_resized_locked(struct file *file);
/* Staging files (pass_staged.c); all of these do nothing, or say no, for other files.
 * Size and time as they are now, however they became so. */
void pass_look_locked(struct file *file);
/* The same, and what was written is dirty. 0; -EDQUOT: it is, but there is no quota for it; or what
 * the local disk said. */
int pass_take_locked(struct file *file);
/* For a sync: as pass_take_locked, but the time is asked for only if nobody knows yet that it
 * changed, or the size did (staging_view_look says why). The next pass_take_locked has it. */
int pass_take_bytes_locked(struct file *file);
bool pass_is_staged_locked(const struct file *file);
/* A commit has these bytes as the whole content. */
void pass_committed_locked(struct file *file, const void *bytes, uint64_t size);
bool pass_was_committed_locked(const struct file *file);
/* After one of them: nothing is there that was not committed. May read up to inline_max. */
bool pass_is_clean_locked(const struct file *file);

/* The content is not what it was, by other hands: who has it open keeps what he sees. */
void pass_stale_locked(struct file *file);
/* Another mount has written it (pass_apply.c): the backing file is brought to the content of now.
 * Where that cannot be, pass_stale_locked. */
void pass_rewritten_locked(struct file *file);
/* The same bytes are in other objects. */
void pass_moved_locked(struct file *file);
int pass_apply_open(struct data *data); /* 0, or -errno */
void pass_apply_close(struct data *data);

/* The answer to a read by a handle of a backing file that is written: from that file. False: the
 * read goes the usual way. */
bool pass_read(struct data_handle *handle, uint64_t offset, uint64_t length,
               struct data_request *request);
/* True: the flush comes after what was changed by mappings was staged, and ends by request->done.
 */
bool pass_flush(struct data_handle *handle, struct data_request *request);
/* The handle goes. No locks held. */
void pass_release(struct data_handle *handle);

/* Once a second, on the loop thread: looks after backing files that linger. True: there are some.
 */
bool pass_tick(struct data *data);
/* Staging files whose handles are closed are staged the usual way now, unless they are mapped.
 * Blocking, not for long. */
void pass_settle(struct data *data);
/* No handle is left: what lingers is staged, and gone. Blocking. */
void pass_close(struct data *data);

#endif
