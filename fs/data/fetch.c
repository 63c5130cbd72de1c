/*
 * Life of a fetch: made with `users` ≥ 1 and put into the table, submitted → the GET ends: the
 * waiters are told; it stays in the table for others while it has users → the last user goes: out
 * of the table, memory back. If the last user goes while the GET is under way, it leaves the table,
 * is cancelled on the loop thread, and freed when the GET has ended.
 *
 * `refs` counts what may still touch the struct: the users together (one), the GET under way (one),
 * the posted cancel (one). The fill of the cache is a user.
 */
#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "fetch_impl.h"

#define ROUND CACHE_BLOCK /* GETs begin and end at multiples of it, as far as the object goes */
/* A read of less than this fetches whole pages, if there is a cache to keep them. */
#define SMALL (32u << 10)

int fetch_table_new(struct store *store, struct buffers *buffers, struct metrics *metrics,
                    struct fetch_table **out)
{
    struct fetch_table *table = calloc(1, sizeof(*table));
    if (!table)
        return -ENOMEM;
    table->store = store;
    table->buffers = buffers;
    table->gets = metrics_counter(metrics, "sluice_fetch_requests_total", "",
                                  "Range GETs that reads and read-ahead made.");
    table->bytes = metrics_counter(metrics, "sluice_fetch_bytes_total", "",
                                   "Bytes fetched from the store for reads and read-ahead.");
    table->ahead_bytes = metrics_counter(metrics, "sluice_fetch_ahead_bytes_total", "",
                                         "Of these, bytes fetched ahead of a reader.");
    table->ahead_unused = metrics_counter(metrics, "sluice_fetch_ahead_unused_bytes_total", "",
                                          "Bytes fetched ahead that were given up unread.");
    table->ahead_dropped =
        metrics_counter(metrics, "sluice_fetch_ahead_dropped_total", "",
                        "Fetches ahead that were dropped because memory was short.");
    table->joined = metrics_counter(metrics, "sluice_fetch_joined_total", "",
                                    "Reads that used a fetch which somebody else had begun.");
    pthread_mutex_init(&table->lock, NULL);
    pthread_cond_init(&table->ended, NULL);
    *out = table;
    return 0;
}

int fetch_table_cache(struct fetch_table *table, struct cache *cache, struct metrics *metrics)
{
    int rc = fetch_fills_new(table, metrics, &table->fills);
    if (rc == 0)
        table->cache = cache;
    return rc;
}

void fetch_table_free(struct fetch_table *table)
{
    if (!table)
        return;
    if (table->fills)
        fetch_fills_hurry(table->fills);
    pthread_mutex_lock(&table->lock);
    assert(!table->keeps);
    while (table->fetch_count > 0)
        pthread_cond_wait(&table->ended, &table->lock);
    pthread_mutex_unlock(&table->lock);
    fetch_fills_free(table->fills);
    pthread_cond_destroy(&table->ended);
    pthread_mutex_destroy(&table->lock);
    free(table);
}

/* The table */

static void unlist_locked(struct fetch *fetch)
{
    if (!fetch->listed)
        return;
    struct fetch_object *object = fetch->object;
    DL_DELETE(object->fetches, fetch);
    fetch->listed = false;
    if (!object->fetches) {
        HASH_DEL(fetch->table->objects, object);
        free(object);
    }
}

static int by_offset(struct fetch *a, struct fetch *b)
{
    return a->offset < b->offset ? -1 : a->offset > b->offset;
}

static int list_locked(struct fetch *fetch)
{
    struct fetch_table *table = fetch->table;
    struct fetch_object *object;
    HASH_FIND(hh, table->objects, &fetch->object_id, sizeof(fetch->object_id), object);
    if (!object) {
        object = calloc(1, sizeof(*object));
        if (!object)
            return -ENOMEM;
        object->id = fetch->object_id;
        HASH_ADD(hh, table->objects, id, sizeof(object->id), object);
    }
    DL_INSERT_INORDER(object->fetches, fetch, by_offset);
    fetch->object = object;
    fetch->listed = true;
    return 0;
}

static void unref_locked(struct fetch *fetch)
{
    assert(fetch->refs > 0);
    if (--fetch->refs > 0)
        return;
    struct fetch_table *table = fetch->table;
    assert(!fetch->listed && !fetch->keeps && !fetch->waiters);
    buffers_put(fetch->block);
    free(fetch->key);
    free(fetch);
    if (--table->fetch_count == 0)
        pthread_cond_broadcast(&table->ended);
}

static void run_cancel(struct loop_task *task)
{
    struct fetch *fetch = container_of(task, struct fetch, cancel);
    struct fetch_table *table = fetch->table;
    pthread_mutex_lock(&table->lock);
    bool under_way = fetch->state == FETCH_UNDER_WAY;
    pthread_mutex_unlock(&table->lock);
    /* Only this thread ends it, so it still is, or is not. The reference of the GET is given back
     * in store_cancel's callback at the earliest. */
    if (under_way)
        store_cancel(&fetch->op);
    pthread_mutex_lock(&table->lock);
    unref_locked(fetch);
    pthread_mutex_unlock(&table->lock);
}

void fetch_unuse_locked(struct fetch *fetch)
{
    assert(fetch->users > 0);
    if (--fetch->users > 0)
        return;
    unlist_locked(fetch);
    if (fetch->state == FETCH_UNDER_WAY) {
        fetch->refs++;
        fetch->cancel.run = run_cancel;
        loop_post(store_loop(fetch->table->store), &fetch->cancel);
    }
    unref_locked(fetch);
}

/* Keeping */

static void count_keep_locked(const struct fetch_keep *keep)
{
    if (keep->file_end != UINT64_MAX && keep->owner->kept[keep->stream]++ == 0)
        keep->fetch->table->ahead_streams++;
}

static void uncount_keep_locked(const struct fetch_keep *keep)
{
    if (keep->file_end != UINT64_MAX && --keep->owner->kept[keep->stream] == 0)
        keep->fetch->table->ahead_streams--;
}

uint64_t fetch_ahead_share(struct fetch_table *table, unsigned *sharing)
{
    pthread_mutex_lock(&table->lock);
    *sharing = MAX(table->ahead_streams, 1u);
    pthread_mutex_unlock(&table->lock);
    /* A quarter is for demand, a quarter for what is on its way into the cache. */
    return buffers_budget(table->buffers) / 2 / *sharing;
}

static void keep_drop_locked(struct fetch_keep *keep)
{
    struct fetch *fetch = keep->fetch;
    struct fetch_table *table = fetch->table;
    uncount_keep_locked(keep);
    DL_DELETE2(fetch->keeps, keep, fetch_prev, fetch_next);
    DL_DELETE2(keep->owner->keeps, keep, owner_prev, owner_next);
    DL_DELETE(table->keeps, keep);
    if (fetch->ahead && keep->used == 0 && fetch->state == FETCH_ENDED)
        metric_add(table->ahead_unused, fetch->length);
    free(keep);
    fetch_unuse_locked(fetch);
}

static struct fetch_keep *keep_find_locked(struct fetch *fetch, const struct fetch_owner *owner)
{
    struct fetch_keep *keep;
    DL_FOREACH2(fetch->keeps, keep, fetch_next)
    {
        if (keep->owner == owner)
            return keep;
    }
    return NULL;
}

static void keep_touch_locked(struct fetch_keep *keep)
{
    struct fetch_table *table = keep->fetch->table;
    keep->touched_ns = clock_monotonic_ns();
    DL_DELETE(table->keeps, keep);
    DL_APPEND(table->keeps, keep);
}

/* Without memory it is not kept. */
static void keep_add_locked(struct fetch *fetch, struct fetch_owner *owner, unsigned stream,
                            uint64_t file_end)
{
    struct fetch_keep *keep = keep_find_locked(fetch, owner);
    if (keep) {
        uncount_keep_locked(keep);
        keep->stream = stream;
        keep->file_end = MAX(keep->file_end, file_end);
        count_keep_locked(keep);
        keep_touch_locked(keep);
        return;
    }
    keep = calloc(1, sizeof(*keep));
    if (!keep)
        return;
    *keep = (struct fetch_keep){.fetch = fetch,
                                .owner = owner,
                                .stream = stream,
                                .file_end = file_end,
                                .touched_ns = clock_monotonic_ns()};
    fetch->users++;
    count_keep_locked(keep);
    DL_APPEND2(fetch->keeps, keep, fetch_prev, fetch_next);
    DL_APPEND2(owner->keeps, keep, owner_prev, owner_next);
    DL_APPEND(fetch->table->keeps, keep);
}

/* Nobody reads it now. */
static bool only_kept_locked(const struct fetch *fetch)
{
    unsigned count = 0;
    const struct fetch_keep *keep;
    DL_FOREACH2(fetch->keeps, keep, fetch_next)
    {
        count++;
    }
    return fetch->users == count;
}

/* Drops a keep; returns the memory that comes free by it. */
static uint64_t drop_locked(struct fetch_keep *keep)
{
    struct fetch *fetch = keep->fetch;
    uint64_t bytes = fetch->users == 1 ? fetch->block->size : 0;
    metric_add(fetch->table->ahead_dropped, 1);
    keep_drop_locked(keep);
    return bytes;
}

/* First what its owner has not touched for a while; then the newest, because it will be needed
 * last. */
static uint64_t drop_ahead_locked(struct fetch_table *table, uint64_t bytes)
{
    uint64_t dropped = 0, old = clock_monotonic_ns() - NS_PER_S;
    struct fetch_keep *keep, *other;
    for (keep = table->keeps; keep && keep->touched_ns < old && dropped < bytes; keep = other) {
        other = keep->next;
        if (only_kept_locked(keep->fetch))
            dropped += drop_locked(keep);
    }
    if (!table->keeps)
        return dropped;
    for (keep = table->keeps->prev; keep && dropped < bytes; keep = other) {
        other = keep == table->keeps ? NULL : keep->prev;
        if (only_kept_locked(keep->fetch))
            dropped += drop_locked(keep);
    }
    return dropped;
}

uint64_t fetch_drop_ahead(struct fetch_table *table, uint64_t bytes)
{
    pthread_mutex_lock(&table->lock);
    uint64_t dropped = drop_ahead_locked(table, bytes);
    pthread_mutex_unlock(&table->lock);
    return dropped;
}

void fetch_drop_idle(struct fetch_table *table, uint64_t before_ns)
{
    pthread_mutex_lock(&table->lock);
    while (table->keeps && table->keeps->touched_ns < before_ns)
        keep_drop_locked(table->keeps);
    pthread_mutex_unlock(&table->lock);
}

void fetch_owner_passed(struct fetch_table *table, struct fetch_owner *owner, unsigned stream,
                        uint64_t position)
{
    pthread_mutex_lock(&table->lock);
    struct fetch_keep *keep, *tmp;
    DL_FOREACH_SAFE2(owner->keeps, keep, tmp, owner_next)
    {
        if (keep->stream == stream && keep->file_end <= position)
            keep_drop_locked(keep);
    }
    pthread_mutex_unlock(&table->lock);
}

void fetch_owner_forget(struct fetch_table *table, struct fetch_owner *owner, uint32_t streams)
{
    if (streams == 0)
        return;
    pthread_mutex_lock(&table->lock);
    struct fetch_keep *keep, *tmp;
    DL_FOREACH_SAFE2(owner->keeps, keep, tmp, owner_next)
    {
        if (streams >> keep->stream & 1)
            keep_drop_locked(keep);
    }
    pthread_mutex_unlock(&table->lock);
}

void fetch_owner_done(struct fetch_table *table, struct fetch_owner *owner)
{
    pthread_mutex_lock(&table->lock);
    while (owner->keeps)
        keep_drop_locked(owner->keeps);
    pthread_mutex_unlock(&table->lock);
}

/* The GET */

static void get_done(struct store_op *op)
{
    struct fetch *fetch = op->arg;
    struct fetch_table *table = fetch->table;
    int result = op->result;
    if (result == 0 && op->got != fetch->length)
        result = -EIO;
    if (result == 0) {
        metric_add(table->bytes, fetch->length);
        if (fetch->ahead)
            metric_add(table->ahead_bytes, fetch->length);
    }
    store_op_reset(op);
    pthread_mutex_lock(&table->lock);
    fetch->state = FETCH_ENDED;
    fetch->result = result;
    struct fetch_wait *waiters = TAKE_PTR(fetch->waiters);
    bool fill = result == 0 && fetch_fill_locked(fetch);
    if (result < 0) {
        unlist_locked(fetch);
        /* Nobody wants to keep a failure. The GET's own reference holds the fetch. */
        while (fetch->keeps)
            keep_drop_locked(fetch->keeps);
    }
    unref_locked(fetch);
    pthread_mutex_unlock(&table->lock);
    while (waiters) {
        struct fetch_wait *wait = waiters;
        waiters = wait->next;
        wait->done(wait);
    }
    if (fill)
        fetch_fill_start(fetch);
}

/* A fetch with one user, not submitted. Takes the block in any case. */
static struct fetch *fetch_new(struct fetch_table *table, const struct fetch_source *source,
                               uint64_t offset, uint64_t length, struct block *block)
{
    struct fetch *fetch = calloc(1, sizeof(*fetch));
    char *key = strdup(source->key);
    if (!fetch || !key) {
        free(fetch);
        free(key);
        buffers_put(block);
        return NULL;
    }
    fetch->table = table;
    fetch->object_id = source->object;
    fetch->offset = offset;
    fetch->length = length;
    fetch->block = block;
    fetch->ahead = block->ahead;
    fetch->cid = source->cid;
    fetch->size = source->size;
    fetch->key = key;
    strncpy(fetch->etag, source->etag, sizeof(fetch->etag) - 1);
    fetch->users = fetch->refs = 1;
    return fetch;
}

static void submit_locked(struct fetch *fetch, enum store_priority priority)
{
    struct fetch_table *table = fetch->table;
    fetch->refs++;
    fetch->op = (struct store_op){
        .kind = STORE_GET,
        .priority = priority,
        .key = fetch->key,
        .if_match = fetch->etag[0] ? fetch->etag : NULL,
        .offset = fetch->offset,
        .length = fetch->length,
        .buf = fetch->block->data,
        .buf_len = fetch->length,
        .done = get_done,
        .arg = fetch,
    };
    metric_add(table->gets, 1);
    table->fetch_count++;
    /* Under the lock, so that a cancel of the same fetch is posted later. */
    store_submit(table->store, &fetch->op);
}

/* The place of an offset among an object's fetches: what covers it, or how far the gap reaches. */
static struct fetch *find_locked(struct fetch_table *table, const struct fetch_source *source,
                                 uint64_t offset, uint64_t *gap_begin, uint64_t *gap_end)
{
    *gap_begin = 0;
    *gap_end = source->size;
    struct fetch_object *object;
    HASH_FIND(hh, table->objects, &source->object, sizeof(source->object), object);
    struct fetch *fetch;
    DL_FOREACH(object ? object->fetches : NULL, fetch)
    {
        if (fetch->offset > offset) {
            *gap_end = MIN(*gap_end, fetch->offset);
            break;
        }
        if (offset < fetch->offset + fetch->length)
            return fetch;
        *gap_begin = fetch->offset + fetch->length;
    }
    return NULL;
}

/* What to GET for a gap: rounded, inside the gap. */
static void round_range(uint64_t *offset, uint64_t *end, uint64_t gap_begin, uint64_t gap_end,
                        uint64_t round)
{
    *offset = MAX(*offset / round * round, gap_begin);
    *end = MIN((*end + round - 1) / round * round, gap_end);
}

static uint64_t round_of(const struct fetch_table *table, const struct fetch_source *source,
                         uint64_t length)
{
    return table->cache && source->cid && length < SMALL ? CACHE_PAGE : ROUND;
}

static bool ask_cache(const struct fetch_table *table, const struct fetch_source *source)
{
    return table->cache && source->cid && !source->past_cache;
}

static struct block *block_for_demand_locked(struct fetch_table *table, uint64_t length)
{
    struct block *block = buffers_try(table->buffers, length, false);
    if (!block && drop_ahead_locked(table, buffers_charge(length)) > 0)
        block = buffers_try(table->buffers, length, false);
    return block;
}

static int start_locked(struct fetch_table *table, const struct fetch_source *source,
                        uint64_t offset, uint64_t end, enum store_priority priority,
                        struct block *block, struct fetch **out)
{
    struct fetch *fetch = fetch_new(table, source, offset, end - offset, block);
    if (!fetch)
        return -ENOMEM;
    if (list_locked(fetch) < 0) {
        buffers_put(fetch->block);
        free(fetch->key);
        free(fetch);
        return -ENOMEM;
    }
    submit_locked(fetch, priority);
    *out = fetch;
    return 0;
}

/* An object's ETag changed under the same id: the old bytes are for nobody any more. */
static bool stale(const struct fetch *fetch, const struct fetch_source *source)
{
    return strncmp(fetch->etag, source->etag, sizeof(fetch->etag) - 1) != 0;
}

static void use_locked(struct fetch *fetch, struct fetch_owner *owner, uint64_t bytes)
{
    metric_add(fetch->table->joined, 1);
    struct fetch_keep *keep = owner ? keep_find_locked(fetch, owner) : NULL;
    if (!keep)
        return;
    keep->used += bytes;
    if (keep->used >= fetch->length && keep->file_end != UINT64_MAX)
        keep_drop_locked(keep);
    else
        keep_touch_locked(keep);
}

static void release_all(struct fetch_slice *slices, int count)
{
    for (int i = 0; i < count; i++)
        fetch_release(&slices[i]);
}

int fetch_get(struct fetch_table *table, struct fetch_owner *owner,
              const struct fetch_source *source, uint64_t offset, uint64_t length,
              struct fetch_slice out[FETCH_SLICES_MAX])
{
    int count = 0, rc = 0;
    uint64_t end = offset + length, round = round_of(table, source, length);
    assert(length > 0 && end <= source->size);
    pthread_mutex_lock(&table->lock);
    while (offset < end && rc == 0) {
        uint64_t gap_begin, gap_end;
        struct fetch *fetch = find_locked(table, source, offset, &gap_begin, &gap_end);
        if (fetch && stale(fetch, source)) {
            unlist_locked(fetch);
            continue;
        }
        uint64_t slice_end;
        if (fetch) {
            slice_end = MIN(end, fetch->offset + fetch->length);
            fetch->users++;
            use_locked(fetch, owner, slice_end - offset);
        } else {
            slice_end = MIN(end, gap_end);
            uint64_t run, run_length;
            bool cached =
                ask_cache(table, source) && cache_query(table->cache, source->cid, offset,
                                                        slice_end - offset, &run, &run_length);
            if (cached && run == offset) {
                run_length = MIN(run_length, CACHE_READ_MAX);
                out[count++] = (struct fetch_slice){NULL, offset, run_length, source->cid};
                offset += run_length;
                if (count == FETCH_SLICES_MAX && offset < end)
                    rc = -EAGAIN;
                continue;
            }
            if (cached)
                slice_end = gap_end = run;
            if (source->forwards)
                gap_begin = MAX(gap_begin, offset / ROUND * ROUND);
            uint64_t from = offset, to = slice_end;
            round_range(&from, &to, gap_begin, gap_end, round);
            struct block *block = block_for_demand_locked(table, to - from);
            rc = block ? start_locked(table, source, from, to, STORE_DEMAND, block, &fetch)
                       : -EAGAIN;
            if (rc < 0)
                break;
        }
        out[count++] =
            (struct fetch_slice){.fetch = fetch, .offset = offset, .length = slice_end - offset};
        offset = slice_end;
        if (count == FETCH_SLICES_MAX && offset < end)
            rc = -EAGAIN; /* too many pieces: one GET of the caller's own is better */
    }
    pthread_mutex_unlock(&table->lock);
    if (rc < 0) {
        release_all(out, count);
        return rc;
    }
    return count;
}

uint64_t fetch_charge(uint64_t length)
{
    return buffers_charge(length + 2 * ROUND);
}

int fetch_get_granted(struct fetch_table *table, uint64_t *granted,
                      const struct fetch_source *source, uint64_t offset, uint64_t length,
                      struct fetch_slice *out)
{
    uint64_t from = offset, to = offset + length;
    assert(length > 0 && to <= source->size);
    round_range(&from, &to, 0, source->size, ROUND);
    struct block *block = buffers_take_granted(table->buffers, to - from, granted);
    if (!block)
        return -ENOMEM;
    struct fetch *fetch = fetch_new(table, source, from, to - from, block);
    if (!fetch)
        return -ENOMEM;
    pthread_mutex_lock(&table->lock);
    submit_locked(fetch, STORE_DEMAND);
    pthread_mutex_unlock(&table->lock);
    *out = (struct fetch_slice){.fetch = fetch, .offset = offset, .length = length};
    return 1;
}

uint64_t fetch_ahead(struct fetch_table *table, struct fetch_owner *owner, unsigned stream,
                     uint64_t file_end, bool waited_for, const struct fetch_source *source,
                     uint64_t offset, uint64_t length)
{
    enum store_priority priority = waited_for ? STORE_DEMAND : STORE_NORMAL;
    uint64_t begin = offset, end = offset + length;
    assert(length > 0 && end <= source->size && stream < FETCH_STREAMS_MAX);
    pthread_mutex_lock(&table->lock);
    while (offset < end) {
        uint64_t gap_begin, gap_end;
        struct fetch *fetch = find_locked(table, source, offset, &gap_begin, &gap_end);
        if (fetch && stale(fetch, source)) {
            unlist_locked(fetch);
            continue;
        }
        uint64_t run, run_length;
        bool cached = !fetch && ask_cache(table, source) &&
                      cache_peek(table->cache, source->cid, offset, MIN(end, gap_end) - offset,
                                 &run, &run_length);
        if (cached && run == offset) {
            offset += run_length;
            continue;
        }
        if (cached)
            gap_end = run;
        if (!fetch) {
            uint64_t from = offset, to = MIN(end, gap_end);
            round_range(&from, &to, gap_begin, gap_end, ROUND);
            struct block *block = buffers_try(table->buffers, to - from, true);
            if (!block || start_locked(table, source, from, to, priority, block, &fetch) < 0)
                break;
        } else {
            fetch->users++;
        }
        uint64_t fetch_end = fetch->offset + fetch->length;
        keep_add_locked(fetch, owner, stream,
                        file_end == UINT64_MAX ? UINT64_MAX
                                               : file_end - (end - MIN(end, fetch_end)));
        fetch_unuse_locked(fetch);
        offset = fetch_end;
    }
    pthread_mutex_unlock(&table->lock);
    return MIN(offset, end) - begin;
}

/* Slices */

int fetch_wait(const struct fetch_slice *slice, struct fetch_wait *wait)
{
    struct fetch *fetch = slice->fetch;
    int rc = 0;
    pthread_mutex_lock(&fetch->table->lock);
    if (fetch->state == FETCH_UNDER_WAY) {
        LL_PREPEND(fetch->waiters, wait);
        rc = -EINPROGRESS;
    }
    pthread_mutex_unlock(&fetch->table->lock);
    return rc;
}

int fetch_result(const struct fetch_slice *slice)
{
    struct fetch *fetch = slice->fetch;
    pthread_mutex_lock(&fetch->table->lock);
    int result = fetch->state == FETCH_ENDED ? fetch->result : -EINPROGRESS;
    pthread_mutex_unlock(&fetch->table->lock);
    return result;
}

bool fetch_was_ahead(const struct fetch_slice *slice)
{
    return slice->fetch->ahead;
}

uint64_t fetch_object(const struct fetch_slice *slice)
{
    return slice->fetch->object_id;
}

const void *fetch_data(const struct fetch_slice *slice)
{
    return (const char *)slice->fetch->block->data + (slice->offset - slice->fetch->offset);
}

void fetch_release(struct fetch_slice *slice)
{
    struct fetch *fetch = TAKE_PTR(slice->fetch);
    if (!fetch)
        return;
    struct fetch_table *table = fetch->table;
    pthread_mutex_lock(&table->lock);
    fetch_unuse_locked(fetch);
    /* What is now only kept may be what somebody waits for: he could not drop it while it was read.
     */
    uint64_t wanted = buffers_wanted(table->buffers);
    if (wanted > 0)
        drop_ahead_locked(table, wanted);
    pthread_mutex_unlock(&table->lock);
}
