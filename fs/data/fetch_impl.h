/* The insides of the table of fetches, for fetch.c and fetch_fill.c. */
#ifndef SLUICE_FS_FETCH_IMPL_H
#define SLUICE_FS_FETCH_IMPL_H

#include <pthread.h>
#include <uthash.h>

#include "base/pool.h"
#include "cache/cache.h"
#include "fetch.h"
#include "s3/store.h"

struct fetch_fills;

enum fetch_state { FETCH_UNDER_WAY, FETCH_ENDED };

struct fetch {
    /* immutable once it is in the table */
    struct fetch_table *table;
    struct fetch_object *object; /* NULL: shared with nobody. Valid while `listed` */
    uint64_t object_id;
    uint64_t offset, length; /* in the object */
    struct block *block;
    bool ahead;
    uint64_t cid, size; /* of the whole object */
    char *key;
    char etag[STORE_ETAG_MAX];
    /* under the table's lock */
    enum fetch_state state;
    int result;
    bool listed; /* in object->fetches */
    unsigned users, refs;
    struct fetch_wait *waiters;
    struct fetch_keep *keeps;  /* of all owners */
    struct fetch *prev, *next; /* object->fetches, by offset */
    /* the loop thread's */
    struct store_op op;
    struct loop_task cancel;
    /* its way into the cache (fetch_fill.c) */
    struct fetch *fill_next;
    struct pool_task fill;
    struct cache_fill filling;
};

struct fetch_object {
    uint64_t id;
    struct fetch *fetches; /* never empty */
    UT_hash_handle hh;
};

/* One owner keeps one fetch. A use of it. */
struct fetch_keep {
    struct fetch *fetch;
    struct fetch_owner *owner;
    unsigned stream;
    uint64_t file_end; /* UINT64_MAX: is not passed */
    uint64_t used;     /* bytes that the owner has read */
    uint64_t touched_ns;
    struct fetch_keep *fetch_prev, *fetch_next; /* fetch->keeps */
    struct fetch_keep *owner_prev, *owner_next; /* owner->keeps, oldest first */
    struct fetch_keep *prev, *next;             /* table->keeps, least recently used first */
};

struct fetch_table {
    /* immutable */
    struct store *store;
    struct buffers *buffers;
    struct cache *cache; /* NULL: none */
    struct fetch_fills *fills;
    struct metric *gets, *bytes, *ahead_bytes, *ahead_unused, *ahead_dropped, *joined;
    /* under lock */
    pthread_mutex_t lock;
    pthread_cond_t ended; /* fetch_count became 0 */
    struct fetch_object *objects;
    struct fetch_keep *keeps;
    unsigned fetch_count;
    unsigned ahead_streams; /* of all owners: those with something in `kept` */
};

/* One user less; the last one's memory goes back. */
void fetch_unuse_locked(struct fetch *fetch);

/* --- fetch_fill.c: what was fetched, on its way into the cache */

/* Not on the loop thread. table->cache is set. */
int fetch_fills_new(struct fetch_table *table, struct metrics *metrics, struct fetch_fills **out);
/* What still waits goes to the cache now, and what comes later at once. Not on the loop thread. */
void fetch_fills_hurry(struct fetch_fills *fills);
/* No fetch is left. NULL is allowed. */
void fetch_fills_free(struct fetch_fills *fills);
/* A GET has ended well: true if its bytes go into the cache, by a use of their own. Then, on the
 * loop thread and without the lock, fetch_fill_start. */
bool fetch_fill_locked(struct fetch *fetch);
void fetch_fill_start(struct fetch *fetch);

#endif
