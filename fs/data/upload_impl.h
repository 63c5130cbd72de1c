/* Inside upload: upload.c (states and metadata), upload_plan.c (what goes where), upload_stream.c
 * (parts to the store). */
#ifndef SLUICE_FS_UPLOAD_IMPL_H
#define SLUICE_FS_UPLOAD_IMPL_H

#include "upload.h"

enum upload_state {
    UPLOAD_RESERVE = 1, /* META_RESERVE is asked */
    UPLOAD_CREATE,      /* MPU_CREATE (or the HEAD before it) */
    UPLOAD_PARTS,       /* parts, or the one PUT, are sent as they are ready */
    UPLOAD_COMPLETE,    /* MPU_COMPLETE */
    UPLOAD_COMMIT,      /* META_COMMIT, durable */
    UPLOAD_UNDO,        /* MPU_ABORT, META_ABANDON */
};

/* A piece of the snapshot: bytes of the object, or a hole, or inline bytes. */
struct upload_segment {
    enum meta_extent_kind kind;
    uint64_t offset, length; /* in the file */
    uint64_t object_offset;  /* in the object, or in `inlined` */
};

enum part_state { PART_WAITS, PART_BUSY, PART_SENT };

struct upload_part {
    enum part_state state;
    bool redo;       /* written again while it was on its way */
    bool changed;    /* … so that what was sent did not fit its sum: next time from a copy */
    uint64_t epoch;  /* of the bytes that were read; 0: none yet */
    uint64_t length; /* sent */
    struct store_part got; /* number, ETag, checksum */
};

struct upload {
    struct file *file; /* a reference */
    struct data *data;

    /* under file->lock */
    enum upload_state state;
    bool finishing; /* has its snapshot: will be committed */
    bool stream;
    bool stopped;   /* a stream that cannot be finished */
    bool single;    /* one PUT */
    bool partial;   /* the snapshot does not hold all that was dirty */
    bool times_set; /* the application set the time since the snapshot */
    bool taken;     /* the natural key is taken by somebody else */
    int error;
    struct error cause;
    unsigned in_flight;
    uint64_t sent;                            /* counted in data->sent_bytes */
    unsigned part_count, part_cap, next_part; /* those before next_part do not wait */
    struct upload_part *parts;
    struct data_request *waiters;
    uint64_t truncated_since; /* the snapshot; UINT64_MAX: not cut */

    /* The snapshot: immutable once `finishing` is set. */
    uint64_t epoch, size, mtime_ns, truncated_to;
    uint32_t valid, flags; /* of META_COMMIT */
    struct upload_segment *segments;
    size_t segment_count;
    uint64_t total;   /* bytes of the object */
    uint8_t *inlined; /* bytes of inline segments */
    uint64_t inline_total;

    /* The step in progress. */
    bool internal;  /* asked for an internal key */
    bool unsure;    /* something may be at the key in the store */
    bool head_done; /* the natural key was looked at, for a store without conditions */
    struct meta_object object;
    char *upload_id;
    struct meta_request meta;
    uint64_t changes; /* data_changes, when the commit was submitted */
    struct store_op op;
    struct meta_object_tags tags;
    unsigned tag_count;
    struct store_part *complete_parts;
    struct meta_extent *extents;
    struct pool_task finish_task;
};

/* upload_plan.c. With file->lock held. */
/* Takes the snapshot: 0, or -ENOMEM, -EIO of the local disk. The plan is in the fields: total > 0:
 * an object is written. */
int upload_plan(struct upload *upload);
/* Gives a stream its snapshot. False: it cannot be finished as one object. */
bool upload_plan_stream(struct upload *upload);
void upload_plan_done(struct upload *upload);
/* Offset and length of part `index` (from 0) in an object of any size. */
uint64_t upload_part_offset(const struct data *data, unsigned index);
uint64_t upload_part_size(const struct data *data, unsigned index);
uint64_t upload_object_max(const struct data *data);
/* The file's bytes from 0 on are all dirty, and nothing committed is below them. */
bool upload_is_new(const struct file *file);
int upload_parts_grow(struct upload *upload, unsigned count);

/* upload_stream.c */
/* Begins what the upload of the file, if any, allows now in the state UPLOAD_PARTS: sends parts, or
 * goes on to the next state. No locks held; the caller has a reference of the file. */
void upload_next(struct file *file);
void upload_create(struct upload *upload);
void upload_complete(struct upload *upload);
void upload_tags(struct upload *upload);
/* Counts bytes that are in the store (or, negative, not any more). With file->lock held. */
void upload_sent_locked(struct upload *upload, int64_t change);
/* Marks the parts of a finishing stream that were written again. With file->lock held. */
void upload_parts_redo(struct upload *upload);

/* upload.c: steps; each is called by who set the state it belongs to. */
void upload_commit(struct upload *upload);
void upload_undo(struct upload *upload);
void upload_begin(struct upload *upload);
/* Makes the upload fail, or begin again at another key if this one was refused. With file->lock. */
void upload_fail_locked(struct upload *upload, int result, const struct error *error);
/* A new upload of the file (file->upload is NULL), in no state yet; NULL without memory. With
 * file->lock held. */
struct upload *upload_new_locked(struct file *file);

#endif
