/*
 * Inside a read: one struct read_op from data_read or read_range to its answer. What happens when:
 * read.c.
 */
#ifndef SLUICE_FS_READ_OP_H
#define SLUICE_FS_READ_OP_H

#include <semaphore.h>

#include "buffers.h"
#include "fetch.h"
#include "file.h"
#include "staging.h"
#include "stream.h"

struct data_reads {
    struct data *data;
    struct buffers *buffers;
    struct fetch_table *fetches;
    struct cache *cache; /* NULL: none */
    bool cache_by_name;
    struct loop *loop;
    /* the loop thread's */
    struct loop_timer timer;
    struct loop_task tick;
    _Atomic bool ticking; /* the timer runs, or its start is posted */
    sem_t closed;
};

/* All under file->lock, but `owner`, which is the fetch table's. */
struct read_streams {
    struct data_reads *reads;
    struct stream_set set;
    struct fetch_owner owner;
};

enum piece_kind { PIECE_ZERO, PIECE_MEMORY, PIECE_VIEW, PIECE_OBJECT };

struct piece {
    enum piece_kind kind;
    uint64_t offset, length;          /* in the file */
    const void *data;                 /* MEMORY */
    const struct meta_object *object; /* OBJECT */
    uint64_t object_offset;
    unsigned first_slice, slice_count;
};

/* Of one slice: for its fetch, or its read of the cache. */
struct slice_wait {
    struct read_op *op;
    struct fetch_wait wait;
    struct cache_read cached;
};

struct read_op {
    struct data_buffer buffer; /* the answer owns the rest, once it is given */
    struct data_reads *reads;
    struct file *file;
    struct data_handle *handle; /* NULL: read_range */
    struct data_request *request;
    uint64_t offset, length;
    void *into; /* read_range */
    bool planned;
    bool no_cache; /* it failed once */
    bool forwards; /* of the page of a small read nothing before it is wanted */
    bool may_wait; /* while it is on the caller's thread, who allows it */
    unsigned tries;
    /* one try */
    uint64_t end; /* of what is read: offset + length, or the end of the file */
    struct file_extents *extents;
    struct piece *pieces;
    unsigned piece_count, piece_cap;
    struct fetch_slice *slices;
    unsigned slice_count, slice_cap;
    struct slice_wait *waits; /* one for each slice; NULL until all slices are there */
    _Atomic unsigned pending;
    struct staging_view *view;
    char *memory; /* end - offset bytes: for staged bytes; NULL until needed */
    /* waits */
    struct file_extents_wait extents_wait;
    struct buffers_wait memory_wait;
    uint64_t granted; /* bytes of the budget that belong to this read */
    struct loop_task resume;
    struct meta_task changed;
};

/* read_pieces.c */

/* Lets go of all that the try holds. */
void read_try_reset(struct read_op *op);
void read_op_free(struct read_op *op);
/* With file->lock held: cuts the range into pieces. -EAGAIN: the extents must be asked for first.
 */
int read_collect_locked(struct read_op *op);
/* Calls back for each run of committed bytes of a range, in order; extent NULL: zeros. Nothing of
 * the extents counts at or beyond `limit`. */
int read_walk(const struct file_extents *extents, uint64_t limit, uint64_t offset, uint64_t end,
              int (*run)(void *arg, const struct meta_extent *extent, uint64_t offset,
                         uint64_t length),
              void *arg);
struct fetch_source read_source(const struct data_reads *reads, const struct meta_object *object);
/* The name of an object's bytes in the cache; 0: it has none. */
uint64_t read_cid(const struct data_reads *reads, const struct meta_object *object);
/* NULL: the metadata's reply does not have it. */
const struct meta_object *read_find_object(const struct file_extents *extents, uint64_t id);
/* All bytes are there: fills op->buffer, or op->into. */
int read_answer(struct read_op *op);

/* read_ahead.c, with file->lock held */

/* Asks the streams of the handle what to do; starts what must come before the read's own GETs. */
void read_plan_locked(struct read_op *op, struct stream_plan *plan);
void read_ahead_locked(struct read_op *op, const struct stream_plan *plan);

/* reads.c */

/* Something may have to be given back later: the clock runs. Any thread. */
void reads_tick(struct data_reads *reads);

#endif
