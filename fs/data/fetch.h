/*
 * Fetches: one range GET of one object into one block of pooled memory, shared by all who want
 * those bytes. A fetch lives as long as somebody uses it: a read that waits for it or answers from
 * it (struct fetch_slice), or an owner that keeps it for later (read-ahead). When nobody does, it
 * is cancelled or its memory goes back to the pool. Every GET carries the object's ETag.
 *
 * Fetches of one object in the table do not overlap. A failed fetch leaves the table at once, so
 * that the next who wants the bytes asks again.
 *
 * With a cache (fetch_table_cache), what it has is not fetched, and what was fetched is put into
 * it: by a thread of the table's own, after those who wait for the bytes were told.
 *
 * Locks: the table's lock; below it only those of the pool. Callbacks come without it. Functions
 * may be called by any thread unless said.
 */
#ifndef SLUICE_FS_FETCH_H
#define SLUICE_FS_FETCH_H

#include "base/metrics.h"
#include "buffers.h"
#include "cache/cache.h"
#include "s3/store.h"

struct fetch;
struct fetch_table;
struct fetch_keep;

/* What to read: an object as the metadata has it. Strings are copied. */
struct fetch_source {
    uint64_t object;
    const char *key, *etag;
    uint64_t size;
    uint64_t cid;    /* names its bytes in the cache; 0: the cache is not asked and gets nothing */
    bool past_cache; /* the cache is not asked, but gets what was fetched */
    bool forwards;   /* the page of a small read is fetched from there on only */
};

#define FETCH_STREAMS_MAX 32 /* of one owner */

/* Who keeps fetches: the streams of one handle. Zeroed, or as left by fetch_owner_done. Its fields
 * are under the table's lock. */
struct fetch_owner {
    struct fetch_keep *keeps;
    unsigned kept[FETCH_STREAMS_MAX]; /* of them, for each stream, what is passed some time */
};

/* Bytes [offset, offset + length) of an object, all inside one fetch; holds a use of it. Without a
 * fetch: the cache had them when it was asked, and the caller reads them there (at most
 * CACHE_READ_MAX). */
struct fetch_slice {
    struct fetch *fetch;
    uint64_t offset, length;
    uint64_t cid; /* without a fetch */
};

struct fetch_wait {
    /* Loop thread, without locks. */
    void (*done)(struct fetch_wait *wait);
    struct fetch_wait *next;
};

#define FETCH_SLICES_MAX 64 /* that fetch_get makes of one range */

int fetch_table_new(struct store *store, struct buffers *buffers, struct metrics *metrics,
                    struct fetch_table **out);
/* Before the first use. `cache` is borrowed. */
int fetch_table_cache(struct fetch_table *table, struct cache *cache, struct metrics *metrics);
/* Waits until cancelled fetches have ended. No slice and no keep is left. Not on the loop thread.
 */
void fetch_table_free(struct fetch_table *table);

/* Finds or starts what covers a range that lies inside the object, as slices in order. Drops idle
 * read-ahead for it if memory is short. Returns their number; -EAGAIN: no memory within the budget
 * (wait for it, then fetch_get_granted), -ENOMEM; then nothing is held. Does not wait for the
 * bytes. With an owner, bytes
 * that he keeps are counted as used, and what is used up is kept no longer. */
int fetch_get(struct fetch_table *table, struct fetch_owner *owner,
              const struct fetch_source *source, uint64_t offset, uint64_t length,
              struct fetch_slice out[FETCH_SLICES_MAX]);
/* What fetch_get_granted takes for one range at most. */
uint64_t fetch_charge(uint64_t length);
/* The same with memory that was waited for (`*granted` is lowered): a fetch of the caller's own,
 * that is shared with nobody. 1 or -ENOMEM. */
int fetch_get_granted(struct fetch_table *table, uint64_t *granted,
                      const struct fetch_source *source, uint64_t offset, uint64_t length,
                      struct fetch_slice *out);
/* From here to fetch_data: of slices that have a fetch.
 * 0: it has ended. -EINPROGRESS: wait->done comes. */
int fetch_wait(const struct fetch_slice *slice, struct fetch_wait *wait);
/* After its end: 0 or -errno of the GET (-EIO also if the object is shorter than it should be). */
int fetch_result(const struct fetch_slice *slice);
/* It was started as read-ahead: who wants its bytes after it failed should ask again himself. */
bool fetch_was_ahead(const struct fetch_slice *slice);
uint64_t fetch_object(const struct fetch_slice *slice);
/* The bytes, after a good end; valid while the slice is held. */
const void *fetch_data(const struct fetch_slice *slice);
void fetch_release(struct fetch_slice *slice); /* no-op without a fetch */

/* Starts what is missing of a range (in memory and in the cache), for an owner who keeps all of it.
 * `stream` and `file_end` say when it is passed; UINT64_MAX: it is kept after it was used, too.
 * `waited_for`: somebody will wait for some of it at once. Returns the bytes from `offset` that are
 * there or under way: less than length when memory is short. */
uint64_t fetch_ahead(struct fetch_table *table, struct fetch_owner *owner, unsigned stream,
                     uint64_t file_end, bool waited_for, const struct fetch_source *source,
                     uint64_t offset, uint64_t length);
/* The memory that each stream may fill ahead of its reader, so that all that do so now have the
 * same; `*sharing` is their number, at least 1. */
uint64_t fetch_ahead_share(struct fetch_table *table, unsigned *sharing);
/* Bytes of a stream that end at or before a position of the file will not be read any more. */
void fetch_owner_passed(struct fetch_table *table, struct fetch_owner *owner, unsigned stream,
                        uint64_t position);
/* Nothing of the streams in the mask (bit i: stream i) is wanted any more. */
void fetch_owner_forget(struct fetch_table *table, struct fetch_owner *owner, uint32_t streams);
void fetch_owner_done(struct fetch_table *table, struct fetch_owner *owner);

/* Drops kept fetches that nobody reads, least recently used first, until `bytes` of memory are free
 * or will be when their GETs have been cancelled. Returns the bytes dropped. */
uint64_t fetch_drop_ahead(struct fetch_table *table, uint64_t bytes);
/* Drops what was kept and not touched since `before_ns` (monotonic). */
void fetch_drop_idle(struct fetch_table *table, uint64_t before_ns);

#endif
