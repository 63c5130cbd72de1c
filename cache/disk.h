/*
 * One directory of the cache. Private to the cache.
 *
 * Threads: callers; the rings' threads, which end I/O; the tender, which gives up slow reads,
 * writes the index, makes room, removes files; a pool that opens files, and one that checks them.
 *
 * One lock, `lock`, for all that is not immutable. It is never held across a system call on the
 * disk, nor a callback. A segment or content with `busy` > 0 is not freed; one that is `going` or
 * `doomed` gets no new I/O.
 */
#ifndef SLUICE_CACHE_DISK_H
#define SLUICE_CACHE_DISK_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/metrics.h"
#include "base/pool.h"
#include "cache/cache.h"
#include "health.h"
#include "index.h"
#include "journal.h"
#include "policy.h"
#include "ring.h"
#include "slots.h"

#define DISK_RINGS_MAX 8
#define DISK_FILES RING_FILES
#define DISK_METRICS_MAX 16
#define DISK_READ_IOS_MAX (CACHE_READ_MAX / CACHE_PAGE + 1) /* of one read */

struct disk_io;
struct read_op;

enum disk_file_state { FILE_FREE, FILE_OPENING, FILE_OPEN };

/* An open file. Its content points to it; it changes hands only while its content is not busy. */
struct disk_file {
    struct disk *disk;
    enum disk_file_state state;
    int fd;
    int index; /* registered under; -1 */
    struct index_content *content;
    uint64_t last_use;
    struct disk_io *waiting; /* for the file to be open */
    struct pool_task task;
    uint64_t cid, size; /* copies for the task */
};

/* One page of a read or a fill, or what a lent fill has of one segment: several pages. */
struct disk_io {
    struct ring_io ring;
    struct disk *disk;
    struct index_content *content;
    struct index_segment *segment;
    unsigned page;       /* the first */
    uint32_t valid, crc; /* read: the page as it was; the whole of it is read if `check` */
    bool check;
    bool touch;             /* fill: a reader has the bytes already */
    uint64_t begin, length; /* bytes wanted: begin in the page */
    void *slot;
    bool heap;                  /* the slot is malloced */
    struct cache_fill *lent_by; /* the slot is his */
    bool trial;
    uint64_t start_ms;
    struct read_op *read; /* NULL: a fill */
    struct disk_io *next; /* in disk_file.waiting */
};

struct disk_fault {
    int read_result, write_result; /* 0: none */
    uint32_t delay_ms;             /* of every I/O */
    int free_percent;              /* -1: as it is */
};

struct disk {
    /* immutable */
    char path[256];
    int dir_fd, files_fd, lock_fd;
    uint64_t capacity;
    unsigned free_low, free_high;
    uint32_t ttl_s, slow_ms;
    bool direct; /* O_DIRECT works here */
    struct ring *rings[DISK_RINGS_MAX];
    unsigned ring_count;
    struct pool *openers, *checkers;
    pthread_t tender;
    _Atomic unsigned next_ring;
    _Atomic bool faulty; /* a test has set `fault` */

    pthread_mutex_t lock;
    pthread_cond_t tend;    /* the tender has something to do */
    pthread_cond_t settled; /* something ended that somebody may wait for */
    /* under lock */
    struct index index;
    struct policy policy;
    struct health health;
    struct slots slots;
    struct disk_file files[DISK_FILES];
    uint64_t file_uses;
    struct read_op *reads; /* in flight and not given up, oldest first */
    unsigned io_in_flight; /* reads and fills, given up ones too */
    unsigned fills;
    uint64_t fill_bytes;
    unsigned checks; /* of whole contents, queued or running */
    struct index_content *doomed;
    struct buf batch; /* of the journal */
    bool closing;
    uint64_t tended;                   /* rounds of the tender that ended */
    uint64_t last_read_ms, last_io_ms; /* last_io_ms: a read or a fill */
    uint64_t disk_free, disk_size;
    bool no_room; /* too little is free, though nothing is left to evict */
    struct disk_fault fault;
    struct cache_status stats; /* counters only */

    /* the tender's */
    struct journal journal;
    struct metric *metrics[DISK_METRICS_MAX];
    struct cache_status counted; /* as the metrics were updated last */

    struct pool_task sweep;
};

uint32_t disk_now_s(void);

/* cache.c. The disk with the highest score for a content: when a disk comes or goes, only its own
 * share moves. */
struct disk *cache_disk_of(const struct cache *cache, uint64_t cid);
/* backing.c. The file was lent at some time, to whomever. */
bool disk_file_was_lent(int fd);

/* disk.c. 0 or -errno. */
int disk_open(const struct cache_config *config, const char *directory, struct disk **out,
              struct error *error);
void disk_close(struct disk *disk);
/* Name of a content's file below files_fd: room for DISK_NAME_MAX. */
#define DISK_NAME_MAX 24
void disk_file_name(uint64_t cid, char name[DISK_NAME_MAX]);
/* With the lock: what an I/O says of the disk. */
void disk_health_report(struct disk *disk, int result, uint64_t latency_ms, bool trial);

/* metrics.c; the tender's. `metrics` may be NULL. */
void disk_metrics_init(struct disk *disk, struct metrics *metrics);
void disk_metrics_update(struct disk *disk);

/* io.c: the way of an I/O to the ring. Takes ios that are counted (busy, io_in_flight) already.
 * `here`: reads, which this thread does itself if the file is open. */
void disk_io_start(struct disk *disk, struct disk_io *const *ios, unsigned count, bool here);
/* With the lock: not busy any more; the slot goes back unless it is kept. */
void disk_io_end_locked(struct disk_io *io, bool keep_slot);
/* With the lock: what a fill that failed leaves empty goes. */
void disk_tidy_locked(struct disk *disk, struct index_content *content,
                      struct index_segment *segment);
/* With the lock: a page is not what it should be. */
void disk_page_drop_locked(struct disk *disk, struct index_segment *segment, unsigned page);
/* With the lock: closes the file of a content that is not busy. Returns the descriptor, -1: none.
 */
int disk_file_detach_locked(struct disk *disk, struct index_content *content);

/* read.c, fill.c */
bool disk_query(struct disk *disk, uint64_t cid, uint64_t offset, uint64_t length, bool count,
                uint64_t *run_offset, uint64_t *run_length);
int disk_read(struct disk *disk, struct cache_read *read);
void disk_read_ended(struct disk_io *io);
/* Before it is submitted, of a read that waited for its file: the whole page is to be checked. */
void disk_read_check_page(struct disk_io *io);
/* With the lock held on entry and exit: gives up reads that take too long. */
void disk_reads_give_up_locked(struct disk *disk, uint64_t now_ms);
/* last: what is dropped because there is no memory now counts as dropped. */
int disk_fill(struct disk *disk, uint64_t cid, uint64_t size, uint64_t offset, const void *data,
              size_t length, bool read, bool last);
int disk_fill_lent(struct disk *disk, struct cache_fill *fill);
void disk_fill_ended(struct disk_io *io);

/* tend.c */
void *disk_tend(void *arg);
/* How much of the disk is free. Blocking. */
void disk_look_at_space(struct disk *disk);
/* With the lock: forgets a content as soon as nothing uses it. */
void disk_doom_locked(struct disk *disk, struct index_content *content);
/* Removes what of the directory's files the index does not know. */
void disk_sweep(struct disk *disk);

/* check.c */
/* With the lock: checks all pages of a content in the background. */
void disk_check_later_locked(struct disk *disk, struct index_content *content);
/* Checks now; on a thread that may block. The content is busy, by the caller, who holds no lock.
 * only_new: pages that this process has not checked yet. */
void disk_check(struct disk *disk, struct index_content *content, bool only_new,
                struct cache_verify_result *result);

#endif
