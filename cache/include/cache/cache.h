/*
 * The SSD cache: bytes of immutable contents on local disks. Knows content ids (cid), not paths: a
 * cid names one sequence of bytes of one size for ever; the caller makes sure of it.
 *
 * Each content is one sparse file on one of the directories (each meant to be a disk of its own),
 * with a map of pages of 128 KiB, in which each block of 4 KiB is there or not. So a complete file
 * can be read by anybody who has its descriptor (kernel passthrough). Every page has a CRC-32C; it
 * is checked on the first use in this process, before passthrough, and by cache_verify. What does
 * not match is dropped and counted, never served.
 *
 * The cache never makes a caller fail: it can lose anything at any time (evicted, corrupt, disk
 * full, slow, gone), and then says that it does not have the bytes. The index is a log and a
 * checkpoint beside the files (docs/cache.md).
 *
 * Threads: calls come from any thread and do not wait for a disk, unless said. Completions come on
 * a thread of the cache, without locks, and must be short.
 */
#ifndef SLUICE_CACHE_CACHE_H
#define SLUICE_CACHE_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/error.h"
#include "base/metrics.h"

struct cache;

#define CACHE_PAGE (128u << 10)
#define CACHE_BLOCK 4096u
#define CACHE_SEGMENT (4u << 20) /* what is evicted at once */
#define CACHE_DIRECTORIES_MAX 16
#define CACHE_READ_MAX (8u << 20)

struct cache_config {
    const char *const *directories; /* made if absent; one process at a time for each volume */
    unsigned directory_count;
    const char *volume;        /* names the volume's part of each directory: [0-9A-Za-z._-]{1,64} */
    uint64_t capacity_bytes;   /* of each directory; 0: only the free space counts */
    unsigned free_low_percent; /* of the disk: below it is evicted; default 10 */
    unsigned free_high_percent; /* until so much is free; default 12 */
    uint32_t ttl_s;             /* not read for so long: dropped; 0: never */
    uint32_t slow_ms; /* a read that takes longer is given up (-ETIMEDOUT), a disk that keeps on
                         like that is left alone for a while; default 200 */
    uint64_t buffer_bytes; /* memory of each directory for reads and fills, held only while it is
                              used; default 16 MiB, at least 2 MiB */
    unsigned workers;      /* rings with a thread each, of each directory; default 1 */
    struct metrics *metrics;
};
void cache_config_init(struct cache_config *config);

/* Blocking. Directories that cannot be used are left out, with a warning; if none is left: the last
 * one's error (-EBUSY: another process has it). */
int cache_open(const struct cache_config *config, struct cache **out, struct error *error);
/* Blocking. Nothing is being read, no backing file is out. Fills under way are ended. NULL is
 * allowed. */
void cache_close(struct cache *cache);

/* The first run of cached bytes of a range, in whole blocks clipped to the content: *run_offset,
 * *run_length. False: none is there (or its disk is left alone for now). What lies before the run,
 * or the run if the range begins with it, counts as asked for: the caller goes on behind it. */
bool cache_query(struct cache *cache, uint64_t cid, uint64_t offset, uint64_t length,
                 uint64_t *run_offset, uint64_t *run_length);
/* The same, and nothing is counted: for who looks ahead. */
bool cache_peek(struct cache *cache, uint64_t cid, uint64_t offset, uint64_t length,
                uint64_t *run_offset, uint64_t *run_length);

/* One read, embedded in the caller's request. */
struct cache_read {
    uint64_t cid, offset, length; /* length 1..CACHE_READ_MAX, inside the content */
    bool may_wait; /* the caller's thread may wait for the disk: where it can it reads itself, which
                      costs least, and `done` comes from inside cache_read. If the disk is slow
                      `done` comes in time from another thread, but cache_read returns only when the
                      disk has answered */
    void (*done)(struct cache_read *read);
    void *arg;
    int result;        /* 0; -ENOENT it went meanwhile; -EBADMSG corrupt (dropped); -EIO;
                          -ETIMEDOUT the disk is slow. In all cases: ask the store */
    struct iovec *iov; /* after result 0: the bytes, until cache_read_put */
    unsigned iov_count;
    void *impl; /* the cache's */
};
/* -EINPROGRESS: `done` comes. -ENOENT: not all of it is cached. -EAGAIN: the disk is left alone for
 * now, or has too much to do. -ENOMEM. */
int cache_read(struct cache *cache, struct cache_read *read);
/* Gives the memory of a read with result 0 back. */
void cache_read_put(struct cache_read *read);

/* Bytes that came from the store, or were just written: copied at once, written in the background.
 * `size`: of the whole content. offset is a multiple of CACHE_BLOCK, and so is length, unless it
 * reaches the end of the content. `read`: a reader has these bytes (false: fetched ahead of him).
 * 0: taken, or there already. Negative: dropped, and counted: -EAGAIN no memory for it now, or the
 * disk is left alone; -ENOSPC; -EINVAL. */
int cache_fill(struct cache *cache, uint64_t cid, uint64_t size, uint64_t offset, const void *data,
               size_t length, bool read);

/* The same, for a thread that may wait up to wait_ms for memory. */
int cache_fill_wait(struct cache *cache, uint64_t cid, uint64_t size, uint64_t offset,
                    const void *data, size_t length, bool read, unsigned wait_ms);

/* The same without a copy, embedded in the caller's request. */
#define CACHE_FILL_MAX (32u << 20)
struct cache_fill {
    uint64_t cid, size, offset; /* as cache_fill */
    void *data;    /* at a multiple of CACHE_BLOCK, lent until `done`. Has room for whole
                      blocks; what lies behind `length` is set to zeros */
    size_t length; /* 1..CACHE_FILL_MAX */
    bool read;
    void (*done)(struct cache_fill *fill); /* on the disk, or dropped and counted */
    unsigned pending;                      /* the cache's */
};
/* -EINPROGRESS: `done` comes. 0: there already. Negative: dropped, and counted, as cache_fill. */
int cache_fill_lent(struct cache *cache, struct cache_fill *fill);

/* The file of a content that is wholly cached, for kernel passthrough: an open descriptor for
 * reading, the cache's own, valid until cache_backing_put; the file is not evicted meanwhile.
 * `owner` (not 0) is who shows it as a file of his own; a content is lent to one owner only, for
 * ever, since mappings of it can outlive the descriptor: it may be changed in his name
 * (cache_backing_detach), and no part of it is punched out any more (evicted it is as a whole).
 * -ENOENT: not complete. -EAGAIN: complete, but not all of it was verified in this process; that
 * was begun now, in the background. -EBUSY: lent to another owner. -EOPNOTSUPP: this disk cannot
 * note the owner. May touch the disk's metadata: not for threads that must never wait. */
int cache_backing_get(struct cache *cache, uint64_t cid, uint64_t owner);
void cache_backing_put(struct cache *cache, uint64_t cid);
/* In place of the only cache_backing_put: the file leaves the cache, which forgets the content, and
 * is the caller's, to read and write; it has no name any more. Returns a new descriptor. *sums: a
 * new array, what its pages hold, as far as they are good. -EBUSY: it is out more than once. After
 * an error nothing has changed. */
struct cache_page_sum {
    uint32_t crc; /* as cache_page_crc */
    bool known;
};
int cache_backing_detach(struct cache *cache, uint64_t cid, struct cache_page_sum **sums);
/* The checksum of a page of `length` bytes, 1..CACHE_PAGE, that is there as a whole. The memory has
 * room for whole blocks, and zeros after `length`. */
uint32_t cache_page_crc(const void *page, size_t length);

/* The checksum of a page whose bytes come one after another, in pieces of any length. Begins as all
 * zero; at most CACHE_PAGE bytes. */
struct cache_page_hash {
    uint32_t blocks, block; /* of whole blocks, and of the one that grows */
    uint32_t length;        /* so far */
};
void cache_page_hash_add(struct cache_page_hash *hash, const void *data, size_t length);
/* The same for whole blocks of HASH_BLOCK bytes by their CRC-32Cs, after as many whole ones. */
void cache_page_hash_add_blocks(struct cache_page_hash *hash, const uint32_t *crcs, size_t count);
uint32_t cache_page_hash_get(const struct cache_page_hash *hash); /* as cache_page_crc */

/* A file of the caller that becomes the cached file of a content, without a copy. Its bytes are the
 * content, and nobody changes them any more, nor looks at them but through the cache. */
struct cache_gift {
    uint64_t cid, size;
    int dir_fd;                        /* where it has its name */
    const char *name;                  /* it loses it */
    int fd;                            /* open for reading and writing; stays the caller's */
    const struct cache_page_sum *sums; /* of its first pages; those not known are read */
    uint64_t sum_count;
};
/* Blocking: renames, and reads the pages without a sum. Killed at any moment, the file is the
 * cache's with all its sums, or goes at the next start. 0: it is cached and verified. Else it still
 * has its name: -EXDEV another file system; -EEXIST some of the content is cached already; -ENOSPC;
 * -EAGAIN the disk is left alone; -EINVAL; errors of the file. */
int cache_adopt(struct cache *cache, const struct cache_gift *gift);

/* Pinned contents are not evicted for room or age. May be called before anything is cached. */
int cache_pin(struct cache *cache, uint64_t cid, bool pinned);
/* Forgets one content (false: was not there, or a backing file is out). Frees its space soon. */
bool cache_evict(struct cache *cache, uint64_t cid);
/* Nobody will ask for this content again, but who reads its backing file: forgets it, or when the
 * last backing file of it is put. */
void cache_drop(struct cache *cache, uint64_t cid);
/* Forgets all that is not in use. Blocking. */
void cache_clear(struct cache *cache);
/* Forgets all contents whose cid is `first` or more: whoever gives cids out has begun there again.
 * Before the first use. */
void cache_forget_from(struct cache *cache, uint64_t first);

struct cache_content {
    uint64_t size, cached_bytes;
    bool complete, pinned;
};
/* -ENOENT if nothing of it is known. */
int cache_content(struct cache *cache, uint64_t cid, struct cache_content *out);

enum cache_health { CACHE_GOOD, CACHE_FULL, CACHE_SLOW, CACHE_FAILED };
const char *cache_health_name(enum cache_health health);

struct cache_directory_status {
    char path[256];
    enum cache_health health;
    uint64_t contents, pages, bytes; /* cached */
    uint64_t capacity_bytes;         /* as configured; 0: none */
    uint64_t disk_free, disk_size;
};
struct cache_status {
    struct cache_directory_status directories[CACHE_DIRECTORIES_MAX];
    unsigned directory_count;
    uint64_t contents, pages, bytes, memory_bytes;
    uint64_t hit_bytes, miss_bytes; /* asked by cache_query: there, and not there */
    uint64_t read_bytes, filled_bytes, evicted_bytes;
    uint64_t fills_dropped, corrupt_pages, read_errors, write_errors, timeouts;
};
void cache_status(struct cache *cache, struct cache_status *out);

struct cache_verify_result {
    uint64_t pages, bytes, corrupt_pages, unreadable_pages;
};
/* Reads and checks all that is cached; drops what is bad. Blocking. `progress` (may be NULL) is
 * called now and then on the caller's thread; false ends it early (-ECANCELED). */
int cache_verify(struct cache *cache, bool (*progress)(void *arg, uint64_t pages, uint64_t total),
                 void *arg, struct cache_verify_result *out);
/* All fills that were taken are on the disk or dropped, and the index is written. Blocking; for
 * tests and shutdown. */
void cache_drain(struct cache *cache);

#endif
