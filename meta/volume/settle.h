/*
 * Between settle.c (which files, how many at once, who waits) and settle_job.c (the steps of one
 * file). Owned by the work thread.
 */
#ifndef SLUICE_META_SETTLE_H
#define SLUICE_META_SETTLE_H

#include <uthash.h>

#include "base/tickets.h"
#include "settle_plan.h"
#include "settle_rate.h"
#include "volume.h"

#define SETTLE_REASON_MAX 200
#define SETTLE_CONFLICTS 20 /* that status shows */

/* A file that could not be settled, until it is. */
struct settle_failure {
    uint64_t ino;
    unsigned attempts;
    unsigned idle;                   /* looks in a row that found nothing to do for it */
    uint64_t time_ns, hold_until_ns; /* monotonic */
    char reason[SETTLE_REASON_MAX];
    UT_hash_handle hh;
};

struct settler {
    struct meta *meta;
    struct settle_job *jobs; /* by ino */
    unsigned active;
    struct settle_failure *failures;
    struct meta_task *waits;
    uint64_t next_look_ns; /* for those who wait */
    struct loop_timer timer;
    struct loop_task again; /* pump soon */
    bool again_posted, stopped;
    struct settle_rate rate;
    struct metric *paced_total;
    struct tickets *memory; /* bytes of parts that go through us */
    uint64_t tagged;        /* stores, as bits, that were seen to keep our tags */
    uint64_t settled, failed, superseded, conflicts;
    char *beside[SETTLE_CONFLICTS]; /* owned: the last names that files got; [conflicts % …] is next
                                     */
    struct metric *done_total, *failed_total, *bytes_total, *conflicts_total;
    struct metric *drift_files, *drift_bytes, *drift_oldest, *garbage;
    uint64_t next_gauges_ns;
    _Atomic uint64_t next_age_ns; /* 0: now */
};

enum settle_end {
    SETTLE_END_NOTHING, /* there was nothing to do */
    SETTLE_END_SWAPPED,
    SETTLE_END_SUPERSEDED, /* the file changed meanwhile, or has another name now */
    SETTLE_END_FAILED,     /* will be tried again */
};

struct settle_job {
    struct settler *settler;
    struct meta *meta;
    uint64_t ino;
    UT_hash_handle hh;

    struct work_call call;
    struct work_op op;
    struct loop_task unblocked; /* a key that gc was at is free */
    struct meta_settle plan;
    struct meta_object_tags tags;
    unsigned tag_count;
    struct meta_reply body; /* extents and objects */
    bool has_body;
    bool absent_before;        /* replaces, but what it should replace is gone */
    bool begun;                /* to be written */
    uint64_t change_done;      /* which change has made what stands at the key (plan.change) */
    char etag[STORE_ETAG_MAX]; /* of what we wrote */

    /* Multipart. */
    char *upload_id; /* owned; NULL: none */
    struct settle_parts parts;
    struct store_part *done_parts; /* owned */
    size_t part;                   /* the one in work */
    uint64_t source;               /* the object that is read or copied */

    /* The bytes of one part. */
    uint8_t *buffer; /* owned */
    struct iovec iov;
    uint64_t buffer_at, buffer_len; /* range of the file */
    uint64_t filled;
    struct ticket_wait ticket;
    struct loop_task granted;
    bool has_ticket;
    void (*after_fill)(struct settle_job *job);

    /* Why it failed. */
    bool stray;    /* an upload to its key may be left: gc sees to it before the next try */
    bool conflict; /* somebody else's object is at its key: `theirs`. Both are kept */
    struct store_info theirs;
    struct meta_entry entry; /* the same, for the operation */
    bool changed;            /* the file was changed meanwhile: no failure */
    bool hold;               /* it could not be recorded: wait in memory */
    uint64_t delay_ns;
    char reason[SETTLE_REASON_MAX];
};

/* settle_job.c: begins the steps of a file; settle_job_ended comes later. */
void settle_job_start(struct settle_job *job);
/* Frees what the job has, not the job. */
void settle_job_clear(struct settle_job *job);

/* settle_write.c */
void settle_write_start(struct settle_job *job); /* the body is there */

/* settle_job.c, for settle_write.c */
void settle_job_fail(struct settle_job *job, uint64_t delay_ns, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* By the result of job->op, which wrote nothing. */
void settle_job_fail_op(struct settle_job *job);
/* The source object of a copy or read is not what it was. */
void settle_job_source_changed(struct settle_job *job, uint64_t object);
void settle_job_verify(struct settle_job *job);
/* The same without a look at it, where that says no more than the answer (`known`: it said that the
 * store has the bytes, under job->etag): what others wrote since was refused by the condition, and
 * the store keeps tags. */
void settle_job_written(struct settle_job *job, bool known);
/* A conditional write was refused: finds out by whom. */
void settle_job_taken(struct settle_job *job);
void settle_job_submit(struct settle_job *job, void (*done)(struct work_op *work));
const struct meta_object *settle_job_object(const struct settle_job *job, uint64_t id);

/* settle.c */

/* Submits job->op when it is its turn (settle_rate.h). */
void settle_job_pace(struct settle_job *job);
void settle_job_ended(struct settle_job *job, enum settle_end end);

#endif
