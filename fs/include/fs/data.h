/*
 * The data path of a mount: what read, write, flush, fsync, truncate, fallocate and copy_file_range
 * do.
 *
 * Written bytes go first to a staging file on the local disk (its page cache: no copy of dirty data
 * is kept in the process), small files to a slot of one mapped file. Both survive a kill -9 of the
 * process; they are recovered at the next mount (docs/data-path.md). From there they are uploaded:
 * streamed as multipart parts while the application still writes, packed when scattered, inline in
 * the metadata when small. flush and fsync answer when objects and extents are durable.
 *
 * Threads: calls come from any FUSE thread and never block on network or disk sync. A call with a
 * struct data_request returns its result, or -EINPROGRESS and then calls `done` exactly once, on
 * the loop thread, a volume's thread or one of its own, without locks; it must not block. Store
 * completions run on the loop thread.
 */
#ifndef SLUICE_FS_DATA_H
#define SLUICE_FS_DATA_H

#include "base/error.h"
#include "base/loop.h"
#include "base/metrics.h"
#include "meta/meta.h"
#include "s3/store.h"

struct data;
struct data_handle; /* one open(2) */
struct fuse_bufvec;
struct cache;

/* When close and fsync return: docs/durability.md. */
enum data_durability {
    DATA_STORE,  /* the data is in the object store, or in the metadata */
    DATA_LOCAL,  /* it is on this disk, and survives a power loss; it is uploaded later */
    DATA_SCRATCH /* at once: it is never uploaded, and gone with the mount */
};
int data_durability_parse(const char *name, enum data_durability *out); /* 0 or -EINVAL */
/* Rules "PATTERN=store|local|scratch:…": 0, or -EINVAL with a sentence. */
int data_durability_check(const char *rules, struct error *error);

struct data_config {
    struct meta *meta;
    struct store *store;
    struct loop *loop; /* of the store */
    struct metrics *metrics;
    const char *staging_dir; /* made if absent; one process at a time (locked) */
    uint64_t
        buffer_bytes; /* read-ahead and upload buffers together; default 128 MiB, at least 32 MiB */
    uint64_t staging_max; /* bytes of dirty data on the local disk; writers wait beyond; default 16
                             GiB */
    uint32_t part_bytes;  /* of multipart uploads; grows for huge files; default 8 MiB */
    unsigned upload_parallel; /* parts in flight for all files; default 8 */
    uint32_t readahead_bytes; /* largest window of one stream; default 32 MiB */
    uint32_t flush_age_ms; /* dirty data older than this is committed without being asked; default
                              5,000 */
    enum data_durability durability;
    const char *durability_for; /* rules for files with a path component that fits a pattern
                                   (fnmatch); the first that fits counts. NULL: none. Copied */
    uint32_t upload_delay_ms;   /* a closed file of DATA_LOCAL waits so long for its upload, so that
                                   what is deleted soon costs no request; default 1,000 */
    uint32_t backlog_age_ms;    /* when the oldest one waits for longer, writers wait; default
                                   one hour */
    bool read_only;
    bool whole_pages;    /* the kernel collects writes: it has all of each page that it writes */
    struct cache *cache; /* borrowed; NULL: none */
    bool cache_by_name; /* the metadata's ids mean nothing the next time (read-only mounts): what is
                           cached is found by key, size and ETag */
    /* Content or size of an inode changed by other hands than the kernel's own requests (recovery,
     * outside change): the front drops the kernel's cache. Any thread. */
    void (*changed)(void *arg, uint64_t ino);
    void *arg;
};
void data_config_init(struct data_config *config);

/* Recovers staged writes of a process that died (uploads them; blocking, bounded by the store's
 * deadline: what cannot be uploaded now stays staged and is served from there). */
int data_open(const struct data_config *config, struct data **out, struct error *error);
/* Flushes all dirty files, waits, frees. Files that could not be uploaded stay staged (and are
 * counted in the log). All handles were released. */
int data_close(struct data *data);
/* data_close leaves what is acknowledged as DATA_LOCAL to the next data_open. Any thread. */
void data_keep_backlog(struct data *data);
/* Writes that wait for room are answered now, one way or the other. Any thread. */
void data_stop_waiting(struct data *data);
struct data_request {
    int result; /* as the call says */
    void (*done)(struct data_request *request);
    void *arg;
    bool may_wait;              /* read, flush: this thread may wait for the local disk; then `done`
                                   may come from inside the call */
    struct data_buffer *buffer; /* read: the answer */
    struct data_request *next;  /* the data path's own from here */
    struct loop_task task;
    void *impl;
    uint64_t offset, length;
};

/* Counts what changes extents by other hands: before an answer with extents is asked for. */
uint64_t data_changes(struct data *data);
/* An answer to META_EXTENTS of the whole file, which was asked for when data_changes was `since`:
 * kept (and the answer empty then) if it is what the file has now, so that reads need not ask. */
void data_handle_extents(struct data_handle *handle, struct meta_reply *reply, uint64_t since);
/* The handle was just opened with attributes that the mount had itself: then reads need not ask for
 * the bytes of a small file either, if they are kept. `since` as above. */
void data_handle_kept(struct data_handle *handle, uint64_t since);
/* The same for a file that will perhaps be opened next: one is kept. */
void data_extents_ahead(struct data *data, struct meta_reply *reply, uint64_t since);
/* The file was open some time ago, and is not now. */
bool data_was_read(struct data *data, uint64_t ino);

/* `attr` as the metadata says now. Never waits. Errors: -ENOMEM, -EMFILE; -EAGAIN: they are older
 * than what was known of the file already, and are to be asked for again. */
int data_file_open(struct data *data, const struct meta_attr *attr, bool writable,
                   struct data_handle **out);
/* Dirty data that no flush has committed is committed in the background. */
void data_file_release(struct data_handle *handle);
/* The kernel's passthrough of reads to files of the cache. Both quick, called with locks held. */
struct data_passthrough {
    int (*open)(void *arg, int fd); /* names a backing file: its id > 0, or -errno */
    void (*close)(void *arg, int id);
    void *arg;
};
/* New files may stay on this disk for a while: passthrough is of use without a cache, too. */
bool data_stages_locally(const struct data *data);
/* The kernel offers it. Before the first handle. */
void data_passthrough_set(struct data *data, const struct data_passthrough *kernel);
/* It can map files whose handles say direct: with a cache, whose files have pages of their own,
 * what only writes to a new file is direct. Before the first handle. */
void data_direct_set(struct data *data);
/* How the kernel is to treat the handle; once for each, between data_file_open and its answer.
 * `flags` of open(2), with O_CREAT if the file is new. 0 or -errno; may be -EINPROGRESS, not
 * without a request. */
int data_handle_mode(struct data_handle *handle, int flags, struct data_request *request);
/* After it: the backing file's id, 0 for none. *direct: reads and writes of the handle come here in
 * spite of it. */
int data_handle_passthrough(const struct data_handle *handle, bool *direct);
/* After a write: it went past the kernel's pages, and others, who may have mapped some, have the
 * file open. Older kernels keep a page that was read meanwhile. */
bool data_handle_left_pages(const struct data_handle *handle);
/* A name of `ino` moved (0: of any, or of a directory): what was scratch may be so no more. After
 * it what left the scratch places survives this process. 0, or -EINPROGRESS; without a request it
 * blocks. Any thread. */
int data_renamed(struct data *data, uint64_t ino, struct data_request *request);
/* What was flushed is on this disk, and its name must be so, too: the metadata is to be synced. */
bool data_handle_is_local(const struct data_handle *handle);
uint64_t data_handle_ino(const struct data_handle *handle);
/* True if the kernel's cached pages of this inode are still right (same content as at the last
 * open): FOPEN_KEEP_CACHE. */
bool data_handle_keep_cache(const struct data_handle *handle);

/* The application set mtime (utimens), and META_SETATTR was answered: dirty data that was written
 * before does not change it any more. */
void data_times_set(struct data *data, uint64_t ino, uint64_t mtime_ns, uint64_t ctime_ns);
/* Size, mtime and ctime as the dirty data makes them, laid over an attribute that came from the
 * metadata. Cheap when the file is not open. */
void data_overlay(struct data *data, struct meta_attr *attr);
/* The last name of the file is gone: its dirty data need not be uploaded any more. Undone by
 * data_linked. */
void data_unlinked(struct data *data, uint64_t ino);
void data_linked(struct data *data, uint64_t ino);
/* It is open, and data_unlinked was called for it: its data is not on the way to the store. */
bool data_is_unlinked(struct data *data, uint64_t ino);
/* The metadata moved the same bytes to other objects, or (outside = true) the content was changed
 * from outside: handles that read the old content get -ESTALE. */
void data_extents_changed(struct data *data, uint64_t ino, bool outside);
/* A content that was just put into the store, and need not be fetched from there. Does not wait. */
void data_settled(struct data *data, uint64_t cid, const void *bytes, size_t len);
/* Contents that no file has any more leave the cache: room for what is read. Does not wait. */
void data_contents_gone(struct data *data, const uint64_t *cids, size_t count);
/* Another mount wrote the file: readers, those who have it open too, see its bytes from now on. */
void data_content_changed(struct data *data, uint64_t ino);
/* then(arg, told), when all that these calls said before is in the files that the kernel reads by
 * itself, too: now, or later on a thread of the data path. Does not wait. */
void data_when_applied(struct data *data, struct meta_told *told,
                       void (*then)(void *arg, struct meta_told *told), void *arg);

/* The volume has its first quota: what was accepted before counts from now on. May read the
 * database for each open file; -ENOMEM. */
int data_quota_begin(struct data *data);

/* Bytes read: iovecs over memory that the buffer owns, or a range of a file. Give it back with
 * data_buffer_put, on any thread. */
struct data_buffer {
    struct iovec *iov;
    unsigned iov_count;
    int fd; /* -1: iov counts; else `length` bytes at fd_offset */
    uint64_t fd_offset;
    uint64_t length; /* shorter than asked only at the end of the file */
    void (*put)(struct data_buffer *buffer);
};
void data_buffer_put(struct data_buffer *buffer); /* NULL is allowed */

/* Result: 0 with request->buffer, or -errno. */
int data_read(struct data_handle *handle, uint64_t offset, uint64_t length,
              struct data_request *request);
/* Result: bytes taken (all of them), or -errno. With -EINPROGRESS (back-pressure) `in` must stay
 * valid until done. Without a request: -EAGAIN where it would have to wait. `append`: at the end of
 * the file as it is when the write is applied. Clearing setuid bits is the front's
 * (META_KILL_SUID). */
int data_write(struct data_handle *handle, struct fuse_bufvec *in, uint64_t offset, bool append,
               struct data_request *request);
/* What was appended last went elsewhere than where the kernel has it, which is to drop its pages.
 * Said once. */
bool data_handle_displaced(struct data_handle *handle);
/* The session with the metadata service ended: what was written and not committed is given up, said
 * in the log; all handles end with -ESTALE. Any thread; does not block. */
void data_session_lost(struct data *data);
bool data_handle_lost(struct data_handle *handle);
/* All that was written before, by any handle of the file, is durable: objects in the store (or
 * inline) and extents in the metadata. For fsync, and for flush (close) of handles that may write;
 * a reader's close should not call it, it would end the upload of a file that is being written. */
int data_flush(struct data_handle *handle, struct data_request *request);
int data_flush_ino(struct data *data, uint64_t ino,
                   struct data_request *request); /* 0 if the file is not open */
int data_flush_all(struct data *data, struct data_request *request);
/* What nobody writes any more goes to the store now, also what could wait. */
int data_flush_backlog(struct data *data, struct data_request *request);
/* Cuts or extends; also for files that are not open. Durable only after a flush if open, else as
 * SETATTR. request->result 0; the new attributes by META_GETATTR + overlay. */
int data_truncate(struct data *data, uint64_t ino, uint64_t size, struct data_request *request);
/* mode as fallocate(2): 0, KEEP_SIZE, PUNCH_HOLE|KEEP_SIZE, ZERO_RANGE[|KEEP_SIZE]; -EOPNOTSUPP for
 * others. Space is not reserved. */
int data_fallocate(struct data_handle *handle, int mode, uint64_t offset, uint64_t length,
                   struct data_request *request);
/* Shares extents where it can, copies dirty bytes. Result: bytes "copied". */
int data_copy(struct data_handle *from, uint64_t from_offset, struct data_handle *to,
              uint64_t to_offset, uint64_t length, struct data_request *request);
/* whence SEEK_DATA or SEEK_HOLE; result 0 and request->offset, or -ENXIO. */
int data_seek(struct data_handle *handle, uint64_t offset, int whence,
              struct data_request *request);

struct cache *data_cache(struct data *data); /* NULL: none */

/* What the cache has of a file, as far as it is committed; afterwards. Blocking. -EOPNOTSUPP: there
 * is no cache. */
enum data_cached_do { DATA_CACHED_LOOK, DATA_CACHED_EVICT, DATA_CACHED_PIN, DATA_CACHED_UNPIN };
struct data_cached {
    uint64_t size, cached_bytes; /* what needs no fetch, counts as cached */
    bool pinned;
};
int data_cached(struct data *data, uint64_t ino, enum data_cached_do what, struct data_cached *out);

struct data_stats {
    uint64_t open_files, dirty_files, dirty_bytes, staged_bytes, buffer_bytes, buffer_peak_bytes;
    uint64_t
        unsent_bytes; /* of dirty_bytes: not in the store yet, as parts of unfinished uploads */
    uint64_t backlog_files, backlog_bytes, backlog_age_ms; /* DATA_LOCAL, not uploaded yet */
    uint64_t scratch_files, scratch_bytes;
    bool backlog_late; /* writers wait because of its age */
};
void data_stats(struct data *data, struct data_stats *out);

#endif
