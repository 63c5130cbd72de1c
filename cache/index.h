/*
 * What one directory of the cache holds: contents, their segments, and which blocks of each page
 * are there with what checksum. In memory; and its records, of which log and checkpoint consist
 * (docs/cache.md). Pure: no disk, no time. The caller locks.
 *
 * The checksum of a page is the XOR of the CRC-32C of its blocks that are there, each begun with
 * the number of the block in the page: so a block can be added without reading the others.
 */
#ifndef SLUICE_CACHE_INDEX_H
#define SLUICE_CACHE_INDEX_H

#include <uthash.h>

#include "base/buf.h"
#include "cache/cache.h"
#include "policy.h"

#define INDEX_SEGMENT_PAGES (CACHE_SEGMENT / CACHE_PAGE)
#define INDEX_PAGE_BLOCKS (CACHE_PAGE / CACHE_BLOCK)
#define INDEX_SIZE_MAX (1ull << 43) /* of a content: more than a store takes */

struct index_page {
    uint32_t valid; /* bit i: block i is there */
    uint32_t crc;
};

struct index_content;

struct index_segment {
    struct policy_item item; /* in a queue of the policy while anything is valid */
    struct index_content *content;
    uint32_t number;    /* of the segment in its content */
    uint32_t busy;      /* I/O under way: must stay */
    uint32_t verified;  /* bit i: page i was written or checked by this process */
    uint8_t page_count; /* of pages: less than INDEX_SEGMENT_PAGES in the last segment */
    bool going;         /* being evicted: nothing may be read or filled */
    struct index_page pages[];
};

struct index_content {
    uint64_t cid;
    uint64_t size;   /* 0: only pinned so far */
    uint64_t cached; /* bytes: whole blocks */
    uint32_t segment_count;
    uint32_t busy;    /* I/O under way, or waiting for the file to be opened */
    uint32_t backing; /* descriptors given out for passthrough */
    bool pinned;
    bool doomed;    /* forgotten: goes when nothing uses it */
    bool unwanted;  /* goes when its backing file is put */
    bool verifying; /* queued for, or in, a check of all pages */
    bool punching;  /* a segment of it is being evicted */
    bool adopting;  /* a file is being taken for it: no fills */
    bool detached;  /* doomed, and its file may be written by somebody else */
    uint64_t owner; /* it was lent to, as far as this process knows; 0: nobody */
    void *open;     /* the disk's: its open file */
    int backing_fd; /* valid with backing > 0 */
    struct index_content *doomed_prev, *doomed_next;
    struct index_segment **segments; /* NULL: nothing cached */
    UT_hash_handle hh;
};

struct index {
    struct index_content *contents;
    struct policy *policy; /* borrowed */
    uint64_t content_count, segment_count, pages, bytes;
    uint64_t memory; /* bytes, about */
};

void index_init(struct index *index, struct policy *policy);
void index_done(struct index *index);

struct index_content *index_find(const struct index *index, uint64_t cid);
/* Found or made. NULL without memory, or with another or an impossible size (but 0 fits any, and
 * one that had 0 gets the size). */
struct index_content *index_make(struct index *index, uint64_t cid, uint64_t size);
/* Frees it with all segments. */
void index_remove(struct index *index, struct index_content *content);
bool index_complete(const struct index_content *content);
bool index_verified(const struct index_content *content); /* all pages that are there */

/* NULL: nothing there. */
struct index_segment *index_segment(const struct index_content *content, uint32_t number);
struct index_segment *index_segment_make(struct index *index, struct index_content *content,
                                         uint32_t number);
void index_segment_free(struct index *index, struct index_segment *segment);
/* Sets a page; takes the segment into the policy when it is the first, out when it was the last. */
void index_set_page(struct index *index, struct index_segment *segment, unsigned page,
                    uint32_t valid, uint32_t crc, uint32_t now_s);
/* Blocks of a page of the content: bits from first to last of the bytes [begin, end) in the page.
 */
uint32_t index_mask(uint64_t begin, uint64_t end);
/* All blocks that a page of the content has. */
uint32_t index_full_mask(const struct index_content *content, uint32_t segment, unsigned page);
uint32_t index_block_crc(unsigned block, const void *data);

/* Records. A file of them is a sequence of batches: magic, length, CRC-32C, records. */
#define INDEX_BATCH_MAX (4u << 20)
#define INDEX_BATCH_HEADER 12

void index_put_content(struct buf *out, const struct index_content *content);
void index_put_segment(struct buf *out, const struct index_segment *segment, uint32_t now_s);
void index_put_page(struct buf *out, const struct index_segment *segment, unsigned page);
void index_put_evict(struct buf *out, const struct index_segment *segment);
void index_put_drop(struct buf *out, uint64_t cid);
void index_put_pin(struct buf *out, uint64_t cid, bool pinned);
void index_put_end(struct buf *out); /* of a checkpoint */
/* Fills in the header of a batch whose first INDEX_BATCH_HEADER bytes were left free. */
void index_seal_batch(struct buf *batch);

/* Applies the batches of a file, as far as they are whole. now_s: of this process, for ages.
 * *ended: an end record was the last. Returns the bytes that were good, or -ENOMEM. */
int64_t index_replay(struct index *index, const void *data, size_t len, uint32_t now_s,
                     bool *ended);
/* After all was replayed: forgets contents of which nothing is left, puts the segments into the
 * policy's order, oldest first. -ENOMEM. */
int index_settle(struct index *index);

#endif
