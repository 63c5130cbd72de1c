/*
 * What to read ahead for one open file: a pure function of the reads that were seen. Knows nothing
 * of objects, memory or time.
 *
 * A handle has several streams: a stream is a place where reads go on, forwards without gaps or by
 * equal steps (also backwards). A read that continues no stream begins one; it becomes established,
 * and something is fetched ahead of it, when a second read (third, for steps) follows. So random
 * reads fetch what was asked and nothing else. Reads of the kernel may come a little out of order.
 *
 * A file whose first read is at its end has its index there: its readers pick columns, runs of some
 * hundred KiB to some MiB, and stop. Their streams have to be long before anything is fetched
 * ahead, and then it is a small part of what they have read; equal steps forwards are chance.
 */
#ifndef SLUICE_FS_STREAM_H
#define SLUICE_FS_STREAM_H

#include <stdbool.h>
#include <stdint.h>

#define STREAM_COUNT 16
#define STREAM_AHEAD_MAX 40            /* ranges that one read can ask for */
#define STREAM_WINDOW_MIN (256u << 10) /* first window */
#define STREAM_REQUEST_MIN (1u << 20)  /* one GET, once the window is that large */
#define STREAM_REQUEST_MAX (8u << 20)
/* GETs that fill the windows of all streams together, and at least of each one. A store works as
 * long for a request as for some MiB: not more of them than keep it busy. */
#define STREAM_REQUESTS 8u
#define STREAM_REQUESTS_EACH 2u
#define STREAM_SLACK (1u << 20)           /* how far reads of an established stream may stray */
#define STREAM_START_LENGTH (128u << 10)  /* a first read at 0 of this length begins a window */
#define STREAM_FOOTER (128u << 10)        /* fetched with a first read that touches the end */
#define STREAM_FOOTER_FILE_MIN (1u << 20) /* in files of at least this size */
#define STREAM_PICK_SHARE 8 /* of what a stream has read, in a file that is read by pieces */
/* Files whose first read fetches all of them, by one request: from any place, from the start. */
#define STREAM_WHOLE_ANY (128u << 10)
#define STREAM_WHOLE_START (1u << 20)

struct stream {
    unsigned hits;     /* reads that belong to it; 0: unused */
    int64_t stride;    /* 0: forwards without gaps; else from one read's offset to the next */
    uint64_t position; /* where the next read is expected */
    uint64_t length;   /* of one read, with a stride */
    uint64_t window;   /* bytes to have ahead of position; 0: none yet */
    uint64_t read;     /* bytes that it went on, without a stride */
    uint64_t ahead;    /* what lies before (with a stride: nearer) was asked for */
    uint64_t last_use;
    bool ended; /* a stride has come to an end of the file: nothing more to ask for */
};

struct stream_set {
    struct stream streams[STREAM_COUNT];
    uint64_t window_max; /* of each stream; the caller may change it before any read */
    unsigned sharing;    /* streams, of all handles, that the memory is for; likewise */
    uint64_t uses;
    uint64_t lone[2]; /* offsets of the last two reads that continued nothing, newest first */
    unsigned lone_count;
    bool footer_seen, whole_seen;
    bool picks; /* readers pick pieces of this file: learned here, or said by the caller */
};

struct stream_range {
    uint64_t offset, length;
};

struct stream_plan {
    struct stream_range demand; /* fetch at least this; holds what was asked */
    bool keep; /* keep the fetched bytes for later reads of this handle (footer, whole file) */
    unsigned stream;   /* that the read belongs to */
    uint64_t position; /* of that stream now: what lies STREAM_SLACK before it was passed;
                          0 with a stride */
    uint32_t forget;   /* bit i: what was fetched ahead for stream i is not wanted */
    struct stream_range ahead[STREAM_AHEAD_MAX];
    unsigned ahead_count;
};

/* window_max: bytes, at least STREAM_WINDOW_MIN; 0: never read ahead. */
void stream_init(struct stream_set *set, uint64_t window_max);
/* A read of 1 or more bytes that lies within the file. */
void stream_read(struct stream_set *set, uint64_t offset, uint64_t length, uint64_t file_size,
                 struct stream_plan *plan);
/* What was planned ahead for a stream could not be had from `offset` on (no memory, or it failed):
 * it is asked for again later, with half the window. */
void stream_missed(struct stream_set *set, unsigned stream, uint64_t offset);

#endif
