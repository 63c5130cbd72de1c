/*
 * Inside the data path: one struct file for each inode that is open or dirty. Users of the data
 * path include fs/data.h only.
 *
 * Lock order: data->lock (table) → file->lock → leaf locks (staging accounting, buffers, waiting
 * writers; the lock of the metadata's quotas). No lock is held across a store or metadata request,
 * nor a callback.
 */
#ifndef SLUICE_FS_FILE_H
#define SLUICE_FS_FILE_H

#include <pthread.h>
#include <stdatomic.h>
#include <uthash.h>

#include "base/pool.h"
#include "base/tickets.h"
#include "burst.h"
#include "fs/data.h"

struct staging; /* staging.h: the dirty bytes of one file and which ranges they are */
struct staging_area;
struct upload;     /* upload.h: flush of one file in progress */
struct data_reads; /* the read side's own */
struct buffers;    /* buffers.h */
struct write_wait;
struct written;
struct inlined;          /* inlined.h */
struct durability_rules; /* durability.c */
struct pass;             /* passthrough.h: the kernel reads the file by itself */

/* What was last known of the content of files that are not open any more, and what of it the
 * kernel's page cache has: a bounded, direct-mapped memory. Two files that share a slot drive each
 * other out of the page cache: so there is one for each of as many files as are used in turn. 1.5
 * MiB, of which only what is used takes memory. Who has the index at the file's end from there does
 * not read it again: so how the file is read is remembered with it. */
#define DATA_KEPT_SLOTS 65536
struct data_kept {
    uint64_t ino, data_version; /* when it was last open: an answer with an older one came late */
    bool pages;                 /* the kernel's pages are of that version, if it has any; */
    bool read;                  /* they were when it was last open: it may be read again */
    bool picks;                 /* file->picks */
};

/* See data->inline_max. */
#define DATA_INLINE_ALWAYS (128u << 10)

struct data {
    /* immutable after data_open */
    struct data_config config; /* staging_dir is not valid any more */
    struct meta *meta;
    struct store *store;
    struct loop *loop;
    struct pool *pool; /* threads that read staged bytes from the local disk */
    struct tickets *read_tickets, *upload_tickets; /* config.buffer_bytes, one half each, so that
                                                      neither starves the other */
    struct staging_area *area;                     /* NULL: read_only */
    struct buffers *upload_buffers;
    struct data_reads *reads;       /* made by reads_open */
    struct written *written;        /* written.h; NULL: no cache */
    struct pool *sync_pool;         /* threads that wait for the local disk */
    struct durability_rules *rules; /* NULL: none */
    struct inlined *inlined;        /* NULL: not a volume of a service */
    uint32_t inline_max;  /* a file of at most so many bytes goes to the metadata, always */
    uint32_t inline_most; /* so many: while data->burst has room (DATA_STORE). >= inline_max */
    struct data_metrics {
        struct metric *flushes, *failures, *inline_commits, *objects, *uploaded_bytes, *waits;
    } metrics;

    /* under lock */
    pthread_mutex_t lock;
    struct file *files;        /* by ino */
    struct file *dirty;        /* a reference each */
    pthread_cond_t files_gone; /* `files` is empty */
    struct data_kept *kept;
    struct file_extents *ahead; /* of ahead_ino, asked for when `changes` was ahead_since */
    uint64_t ahead_ino, ahead_since;

    struct data_passthrough passthrough; /* immutable once passthrough_on was set */
    _Atomic bool passthrough_on, staged_pass_on;
    bool direct_new;         /* data_direct_set; immutable once there are handles */
    struct pass *lingering;  /* under lock */
    struct pool *apply_pool; /* pass_apply.c; NULL: nobody else writes */
    _Atomic uint64_t pass_rounds;

    _Atomic uint64_t file_count; /* of `files`: so that data_overlay needs no lock when it is 0 */
    _Atomic uint64_t dirty_files;
    _Atomic uint64_t changes;                    /* data_changes */
    _Atomic uint64_t local_files, scratch_files; /* of dirty_files, as they came to the list */
    _Atomic bool backlog_late, stopping, keep;
    _Atomic unsigned reclass_wanted;
    struct pool_task reclass_task;
    _Atomic unsigned syncs_in_place; /* durability.c */
    _Atomic uint64_t sent_bytes;     /* parts in the store of uploads in progress: a statistic */

    /* under wait_lock (a leaf) */
    pthread_mutex_t wait_lock;
    struct write_wait *waiting, **waiting_end; /* writes that wait for room in the staging area */
    struct data_request *reclass_waiters;      /* renames that wait for a reclass_task */
    unsigned uploads;                          /* in progress */
    pthread_cond_t uploads_ended;              /* uploads is 0, or timer_closed */
    struct burst burst;
    unsigned applying;      /* backing files that are behind (pass_apply.c) */
    struct meta_told *told; /* wait for these */
    void (*told_then)(void *arg, struct meta_told *told);
    void *told_arg;

    bool timer_closed; /* under wait_lock */

    struct loop_timer timer;      /* loop thread */
    _Atomic unsigned tend_wanted; /* calls of data_tend that were not served yet */
    struct pool_task tend_task;
};

/* The extents of a file as the metadata had them at one version: immutable, counted. Holds copies
 * of the objects' keys and ETags. */
struct file_extents {
    _Atomic unsigned refs;
    uint64_t data_version, size;
    struct meta_reply reply; /* extents, objects */
};
struct file_extents *file_extents_ref(struct file_extents *extents);
void file_extents_unref(struct file_extents *extents);

struct file {
    struct data *data;
    uint64_t ino;          /* immutable */
    _Atomic unsigned refs; /* handles, uploads, reads in flight, the dirty list; the last one goes
                              under data->lock */
    UT_hash_handle hh;     /* data->files */

    pthread_mutex_t lock;
    /* under lock */
    unsigned handles, writers;
    struct meta_attr attr;             /* as last seen: mode and owner for the object's tags */
    uint64_t size, mtime_ns, ctime_ns; /* as the application sees them */
    uint64_t committed_size;           /* of the metadata, as last seen */
    bool size_in_doubt; /* another mount has written it: what it appends goes behind that */
    bool time_dirty;    /* mtime_ns is not in the metadata yet */
    bool unlinked;
    enum data_durability durability; /* of what is staged */
    bool held;                       /* durability_hold, until an upload begins */
    bool sync_failed; /* of what is staged: the local disk says so once only, and is not asked again
                       */
    uint64_t data_version;    /* of the metadata, as last seen */
    uint64_t outside_changes; /* counts changes from outside; a handle opened at another count reads
                                 -ESTALE */
    uint64_t lost;  /* counts sessions that ended; a handle of an earlier one ends with -ESTALE */
    bool giving_up; /* when its upload has ended, what is staged goes: it is of a lost session */
    uint64_t truncated_to; /* committed extents count only below this offset (a truncate that is not
                              committed yet); UINT64_MAX: all */
    struct file_extents *extents; /* NULL: must be asked for (file_extents_get) */
    uint64_t extents_drops;       /* counts file_extents_drop_locked: an answer that was asked for
                                     before a drop is not kept */
    struct file_extents_wait *extents_waiters;
    bool extents_asked;
    struct staging *staging;           /* NULL: nothing dirty, no change of size that waits */
    struct upload *upload;             /* NULL: none in progress */
    struct data_request *flush_wanted; /* wait for a flush that begins after now */
    uint64_t dirty_since_ns, last_write_ns, retry_after_ns; /* monotonic */
    unsigned failures;                                      /* flushes that failed in a row */
    uint64_t inline_bytes;  /* committed as small inline patches since the last whole object */
    bool avoid_natural;     /* the natural key is taken by somebody outside */
    unsigned key_conflicts; /* in a row, at internal keys */
    bool logged_error;
    uint64_t quota_size;     /* as reserved: quota.c */
    uint64_t quota_wanted;   /* the service is to be asked for this size */
    bool cache_stale;        /* the kernel's pages of this inode may be of other content */
    uint64_t cut_page;       /* the last page that a write ended in the middle of */
    unsigned cut_pages;      /* how many there were since the file was last without writers */
    bool picks;              /* a reader began at its end (stream.h) */
    struct pass *pass;       /* NULL: none */
    unsigned cached_handles; /* that the kernel gives no backing file */
    unsigned
        direct_writers; /* of these, that write past its pages: all later ones read past them */

    /* under data->lock */
    bool in_dirty;
    enum data_durability dirty_as; /* counted so */
    struct file *dirty_prev, *dirty_next;
};

enum data_handle_mode { HANDLE_UNDECIDED, HANDLE_CACHED, HANDLE_PASS };

/* The file of a handle, and back. */
struct data_handle {
    struct file *file;
    bool writable;
    bool keep_cache;
    enum data_handle_mode mode;
    bool direct; /* its reads and writes come to us, past the kernel's pages */
    bool rdwr;
    _Atomic bool displaced;   /* append.h: bytes went elsewhere than where the kernel has them */
    uint64_t outside_changes; /* at open */
    uint64_t lost;            /* at open */
    struct read_streams
        *streams; /* read.c: sequential streams of this handle; NULL until the first read */
};

/* data.c */
struct file *file_get(struct data *data, uint64_t ino); /* NULL if not open or dirty; a reference */
/* Found or made; a reference. */
int file_make(struct data *data, const struct meta_attr *attr, struct file **out);
struct file *file_ref(struct file *file); /* of one who has a reference; any thread, any lock */
void file_put(struct file *file);         /* any thread, no locks held */
/* A file that is not open was changed here: attributes of before come too late (data_file_open). */
void file_note_version(struct data *data, uint64_t ino, uint64_t data_version);
/* What the metadata says now of a file that is known already. */
void file_refresh_locked(struct file *file, const struct meta_attr *attr);
/* With bytes staged: the metadata had the size `before`, and has `size` now. Another mount changed
 * it; the file ends there, or behind what is staged or was grown here. One that was cut here keeps
 * its size, as does one of an embedded volume, which nobody else changes. */
void file_other_size_locked(struct file *file, uint64_t before, uint64_t size);
/* Puts the file on the dirty list or takes it off, as file->staging says. No locks held. */
void file_dirty_update(struct file *file);
/* quota.c. Before the file grows to `size`: 0, or -EDQUOT; or -EAGAIN: the service must be asked
 * first. Then the whole call is done again, by one of those below. */
int file_quota_grow_locked(struct file *file, uint64_t size);
/* A write, truncate or fallocate that got -EAGAIN goes on when the service has answered:
 * -EINPROGRESS (request->done comes), or -ENOMEM. No locks held. */
int quota_wait_write(struct data_handle *handle, struct fuse_bufvec *in, uint64_t offset,
                     bool append, struct data_request *request);
int quota_wait_truncate(struct file *file, uint64_t size, struct data_request *request);
int quota_wait_fallocate(struct data_handle *handle, int mode, uint64_t offset, uint64_t length,
                         struct data_request *request);
/* After it shrank, lost its staging, or a flush ended. */
void file_quota_update_locked(struct file *file);
/* flush.c. As data_flush_all; FLUSH_OTHERS: without DATA_LOCAL. */
enum flush_what { FLUSH_ALL, FLUSH_BACKLOG, FLUSH_OTHERS };
int flush_dirty(struct data *data, enum flush_what what, struct data_request *request);
/* lost.c. What is staged goes; no upload is in progress. */
void file_give_up_locked(struct file *file);
/* Queues the work of tend.c: old and many dirty files are flushed, waiting writes go on. */
void data_tend(struct data *data);

/* Asks the metadata for all extents of the file (once, however many ask); result by `done` with a
 * reference in wait->extents, without locks. -EINPROGRESS, or the result now. No locks held. */
struct file_extents_wait {
    struct file_extents *extents;
    int result;
    void (*done)(struct file_extents_wait *wait);
    void *arg;
    struct file_extents_wait *next;
};
int file_extents_get(struct file *file, struct file_extents_wait *wait);
/* Takes them out of an answer; NULL without memory. */
struct file_extents *file_extents_from(struct meta_reply *reply);
/* Forgets them (after a commit, a settle, an outside change). With file->lock held. */
void file_extents_drop_locked(struct file *file);
/* A commit of ours, submitted when data->changes was `since`, has made these bytes the whole
 * content: they need not be asked for. The extents were dropped; with file->lock held. */
void file_extents_committed_locked(struct file *file, const struct meta_attr *attr,
                                   const void *bytes, uint64_t length, uint64_t since);
/* What data_extents_ahead has of this file, if it is what the file has now. Under data->lock. */
struct file_extents *file_extents_take_ahead_locked(struct data *data,
                                                    const struct meta_attr *attr);

/*
 * How a read sees a file, under one hold of file->lock: file->size; the dirty ranges of
 * file->staging (staging_next; those with `hole` are zeros), taken by staging_view or
 * staging_read; below them file->extents, but nothing of them at or beyond truncated_to; zeros
 * elsewhere. If file->extents is NULL (and the range is not all dirty): unlock,
 * file_extents_get, begin again. Ranges stay dirty until the commit that holds their bytes was
 * answered, and the extents are dropped in the same hold of the lock; so staging and extents that
 * were taken together fit together.
 */

/* write.c, with file->lock held: as data_write. *new: file_dirty_update must follow. */
int write_bytes_locked(struct file *file, const void *bytes, uint64_t offset, uint64_t length,
                       bool *new);
/* Makes file->staging. *new: it was made, and is on no list yet. */
int write_need_staging_locked(struct file *file, bool *new);

/* read.c. Bytes of the committed extents, holes as zeros, into `buf`; not those that are staged.
 * Ends by `done` on the loop thread. Used for reads (through the streams), and by the write side
 * where it needs old bytes. */
int read_range(struct file *file, uint64_t offset, uint64_t length, void *buf,
               struct data_request *request);
void read_streams_free(struct read_streams *streams);
/* What the read side keeps for the whole mount (data->reads; may stay NULL). Called by data_open
 * when all but `area` is there, and by data_close last. */
int reads_open(struct data *data);
void reads_close(struct data *data);

#endif
