/*
 * Inside the data path: one struct file for each inode that is open or dirty. Users of the data
 * path include fs/data.h only.
 *
 * Lock order: table lock → file->lock → leaf locks (staging accounting, buffers). No lock is held
 * across a store or metadata request, nor a callback.
 */
#ifndef SLUICE_FS_FILE_H
#define SLUICE_FS_FILE_H

#include <pthread.h>

#include "fs/data.h"

struct staging; /* staging.h: the dirty bytes of one file and which ranges they are */
struct upload;  /* upload.h: flush of one file in progress */
struct buffers; /* buffers.h: the budget of memory for bytes on their way */
struct read_side;

/* The extents of a file as the metadata had them at one version: immutable, counted. Holds copies
 * of the objects' keys and ETags. */
struct file_extents {
    unsigned refs; /* atomic */
    uint64_t data_version, size;
    struct meta_reply reply; /* extents, objects */
};
struct file_extents *file_extents_ref(struct file_extents *extents);
void file_extents_unref(struct file_extents *extents);

struct file {
    struct data *data;
    uint64_t ino;  /* immutable */
    unsigned refs; /* under the table lock: handles, uploads, reads in flight */

    pthread_mutex_t lock;
    /* under lock */
    unsigned handles, writers;
    uint64_t size, mtime_ns, ctime_ns; /* as the application sees them */
    bool size_dirty, time_dirty;       /* differ from the metadata */
    bool unlinked;
    uint64_t data_version;    /* of the metadata, as last seen */
    uint64_t outside_changes; /* counts changes from outside; a handle opened at another count reads
                                 -ESTALE */
    uint64_t truncated_to; /* committed extents count only below this offset (a truncate that is not
                              committed yet); UINT64_MAX: all */
    struct file_extents *extents; /* NULL: must be asked for (file_extents_get) */
    struct staging *staging;      /* NULL: nothing dirty */
    struct upload *upload;        /* NULL: none in progress */
    uint64_t dirty_since_ns;
    uint64_t write_generation; /* steps with each write, truncate, punch */
    uint64_t kept_version;     /* data_version that the kernel's cached pages belong to */
    int error; /* of a background flush: reported by the next flush or fsync of each handle */

    struct file *next_dirty;
    void *hash_entry[8]; /* uthash handle room is in data.c */
};

/* The file of a handle, and back. */
struct data_handle {
    struct file *file;
    bool writable;
    bool keep_cache;
    uint64_t outside_changes; /* at open */
    int seen_error;
    struct read_streams
        *streams; /* read.c: sequential streams of this handle; NULL until the first read */
};

/* data.c */
struct file *file_get(struct data *data, uint64_t ino); /* NULL if not open or dirty; a reference */
int file_make(struct data *data, const struct meta_attr *attr,
              struct file **out); /* found or made; a reference */
void file_put(struct file *file); /* any thread, no locks held */

/* Asks the metadata for all extents of the file (once, however many ask); result by `done` with a
 * reference. -EINPROGRESS or now. */
struct file_extents_wait {
    struct file_extents *extents;
    int result;
    void (*done)(struct file_extents_wait *wait);
    struct file_extents_wait *next;
};
int file_extents_get(struct file *file, struct file_extents_wait *wait);
/* Forgets them (after a commit, a settle, an outside change). With file->lock held. A reader lays
 * the staged ranges over file->extents as both are under one hold of file->lock: so the hold that
 * forgets the old extents comes before, or is, the one that cleans the staged ranges. */
void file_extents_drop_locked(struct file *file);

/* data.c: what the read side needs of struct data. */
const struct data_config *data_config_of(const struct data *data);
struct read_side *data_read_side(const struct data *data);

/* read.c: the fetches in flight and the pool of buffers of one mount. Opened by data_open, closed
 * by data_close when no handle, read and upload buffer is left (waits for the store to end
 * cancelled read-ahead; not on the loop thread). */
int read_side_open(const struct data_config *config, struct read_side **out);
void read_side_close(struct read_side *side);
/* buffers.h: uploads take their buffers from it too. */
struct buffers *read_side_buffers(struct read_side *side);

/* read.c. Bytes of the committed extents, holes as zeros, into `buf`; not those that are staged.
 * Ends by `done` on the loop thread. Used for reads (through the streams), and by the write side
 * where it needs old bytes. */
int read_range(struct file *file, uint64_t offset, uint64_t length, void *buf,
               struct data_request *request);
void read_streams_free(struct read_streams *streams);

#endif
