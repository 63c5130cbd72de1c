/*
 * The working set of one apply. Operations read through it and change records in it; nothing is
 * written before engine_txn_commit, which puts each changed record once into one batch. So an
 * operation that fails half-way has changed nothing, and records that it touches many times (a
 * parent, the counters) cost one put.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/hash.h"
#include "engine_impl.h"

#define MAP_FIRST 64
#define MAP_KEEP 1024 /* slots of a map that are kept for the next apply */
#define BATCH_KEEP (256u << 10)

static int map_init(struct engine_map *map, size_t cap)
{
    void **slots = calloc(cap, sizeof(*slots));
    if (!slots)
        return -ENOMEM;
    *map = (struct engine_map){.slots = slots, .cap = cap};
    return 0;
}

static void map_clear(struct engine_map *map)
{
    if (map->cap > MAP_KEEP) {
        struct engine_map small;
        if (map_init(&small, MAP_FIRST) == 0) {
            free(map->slots);
            *map = small;
            return;
        }
    }
    if (map->count)
        memset(map->slots, 0, map->cap * sizeof(*map->slots));
    map->count = 0;
}

int engine_txn_init(struct engine_txn *t, struct engine *engine)
{
    memset(t, 0, sizeof(*t));
    t->engine = engine;
    buf_init(&t->scratch, 0);
    t->batch = rocksdb_writebatch_create();
    int rc = map_init(&t->nodes, MAP_FIRST);
    return rc ? rc : map_init(&t->cells, MAP_FIRST);
}

void engine_txn_done(struct engine_txn *t)
{
    arena_done(&t->arena);
    free(t->gone);
    free(t->nodes.slots);
    free(t->cells.slots);
    buf_done(&t->scratch);
    if (t->batch)
        rocksdb_writebatch_destroy(t->batch);
}

void engine_txn_begin(struct engine_txn *t, uint64_t time_ns)
{
    t->time_ns = time_ns;
    t->raw = false;
    t->gone_count = 0;
    t->kept_cid = 0;
    for (int i = 0; i < ENGINE_QUEUE_COUNT; i++)
        t->queued_ns[i] = UINT64_MAX;
    arena_reset(&t->arena);
    map_clear(&t->nodes);
    map_clear(&t->cells);
    t->counters = t->engine->counters;
    size_t bytes;
    rocksdb_writebatch_data(t->batch, &bytes);
    if (bytes > BATCH_KEEP) {
        rocksdb_writebatch_destroy(t->batch);
        t->batch = rocksdb_writebatch_create();
    } else {
        rocksdb_writebatch_clear(t->batch);
    }
}

struct buf *engine_txn_scratch(struct engine_txn *t)
{
    buf_reset(&t->scratch);
    return &t->scratch;
}

static uint64_t node_hash(const void *p)
{
    return hash_u64(((const struct engine_node *)p)->ino);
}

static uint64_t cell_hash(const void *p)
{
    return ((const struct engine_cell *)p)->hash;
}

/* Room for one more, so that the next put cannot fail. */
static int map_grow(struct engine_map *map, uint64_t (*hash)(const void *))
{
    if (map->count * 2 < map->cap)
        return 0;
    struct engine_map bigger;
    if (map_init(&bigger, map->cap * 2) < 0)
        return -ENOMEM;
    for (size_t i = 0; i < map->cap; i++) {
        if (!map->slots[i])
            continue;
        size_t at = hash(map->slots[i]) & (bigger.cap - 1);
        while (bigger.slots[at])
            at = (at + 1) & (bigger.cap - 1);
        bigger.slots[at] = map->slots[i];
    }
    bigger.count = map->count;
    free(map->slots);
    *map = bigger;
    return 0;
}

static struct engine_node **find_node(struct engine_txn *t, uint64_t ino)
{
    size_t at = hash_u64(ino) & (t->nodes.cap - 1);
    for (;; at = (at + 1) & (t->nodes.cap - 1)) {
        struct engine_node *node = t->nodes.slots[at];
        if (!node || node->ino == ino)
            return (struct engine_node **)&t->nodes.slots[at];
    }
}

static struct engine_node *node_add(struct engine_txn *t, uint64_t ino)
{
    if (map_grow(&t->nodes, node_hash) < 0)
        return NULL;
    struct engine_node *node = arena_alloc(&t->arena, sizeof(*node));
    if (!node)
        return NULL;
    node->ino = ino;
    node->dirty = false;
    node->existed = false;
    node->exists = false;
    node->hot = false;
    node->reserved = 0;
    *find_node(t, ino) = node;
    t->nodes.count++;
    return node;
}

struct engine_node *engine_txn_loaded(struct engine_txn *t, uint64_t ino)
{
    return *find_node(t, ino);
}

int engine_txn_inode(struct engine_txn *t, uint64_t ino, struct engine_node **out)
{
    struct engine_node *node = *find_node(t, ino);
    if (!node) {
        uint8_t value[ENGINE_RECORD_MAX];
        struct record_key key;
        record_key_u64(&key, ino);
        int rc = engine_db_get(t->engine, TABLE_INODE, key.bytes, key.len, value);
        if (rc < 0)
            return rc;
        node = node_add(t, ino);
        if (!node)
            return -ENOMEM;
        node->read_len = (size_t)rc;
        node->read = arena_copy(&t->arena, value, node->read_len);
        if (!node->read)
            return -ENOMEM;
        if (record_inode_decode(node->read, node->read_len, &node->now) < 0)
            return -EIO;
        node->before = node->now;
        node->existed = node->exists = true;
    }
    if (!node->exists)
        return -ENOENT;
    *out = node;
    return 0;
}

int engine_txn_inode_new(struct engine_txn *t, struct engine_node **out)
{
    struct engine_node *node = node_add(t, t->counters.next_ino);
    if (!node)
        return -ENOMEM;
    t->counters.next_ino++;
    memset(&node->now, 0, sizeof(node->now));
    node->before = node->now;
    node->exists = node->dirty = true;
    *out = node;
    return 0;
}

static struct engine_cell **find_cell(struct engine_txn *t, uint64_t hash, enum engine_table table,
                                      const struct record_key *key)
{
    size_t at = hash & (t->cells.cap - 1);
    for (;; at = (at + 1) & (t->cells.cap - 1)) {
        struct engine_cell *cell = t->cells.slots[at];
        if (!cell || (cell->hash == hash && cell->table == table && cell->key_len == key->len &&
                      memcmp(cell->key, key->bytes, key->len) == 0))
            return (struct engine_cell **)&t->cells.slots[at];
    }
}

/* The cell of a key, new (absent) if it was not there. */
static int cell_get(struct engine_txn *t, enum engine_table table, const struct record_key *key,
                    struct engine_cell **out, bool *fresh)
{
    assert(table != TABLE_INODE);
    if (map_grow(&t->cells, cell_hash) < 0)
        return -ENOMEM;
    uint64_t hash = hash_bytes64(key->bytes, key->len, table);
    struct engine_cell **at = find_cell(t, hash, table, key);
    *fresh = !*at;
    if (!*at) {
        struct engine_cell *cell = arena_alloc(&t->arena, sizeof(*cell));
        const uint8_t *copy = arena_copy(&t->arena, key->bytes, key->len);
        if (!cell || !copy)
            return -ENOMEM;
        *cell = (struct engine_cell){
            .hash = hash, .table = (uint8_t)table, .key = copy, .key_len = (uint16_t)key->len};
        *at = cell;
        t->cells.count++;
    }
    *out = *at;
    return 0;
}

static bool is_cached(enum engine_table table)
{
    return table == TABLE_INODE || table == TABLE_DENTRY || table == TABLE_OBJECT;
}

int engine_txn_get(struct engine_txn *t, enum engine_table table, const struct record_key *key,
                   const uint8_t **value, size_t *len)
{
    uint64_t hash = hash_bytes64(key->bytes, key->len, table);
    struct engine_cell *cell = *find_cell(t, hash, table, key);
    if (cell) {
        if (!cell->present)
            return -ENOENT;
        *value = cell->value;
        *len = cell->len;
        return 0;
    }
    if (!is_cached(table))
        return engine_db_copy(t->engine, NULL, table, key, &t->arena, value, len);
    uint8_t room[ENGINE_RECORD_MAX];
    int rc = engine_db_get(t->engine, table, key->bytes, key->len, room);
    if (rc < 0)
        return rc;
    *value = arena_copy(&t->arena, room, (size_t)rc);
    *len = (size_t)rc;
    return *value ? 0 : -ENOMEM;
}

int engine_txn_put(struct engine_txn *t, enum engine_table table, const struct record_key *key,
                   const void *value, size_t len)
{
    struct engine_cell *cell;
    bool fresh;
    const uint8_t *copy = arena_copy(&t->arena, value, len);
    int rc = copy ? cell_get(t, table, key, &cell, &fresh) : -ENOMEM;
    if (rc < 0)
        return rc;
    cell->present = cell->dirty = true;
    cell->value = copy;
    cell->len = len;
    return 0;
}

int engine_txn_delete(struct engine_txn *t, enum engine_table table, const struct record_key *key)
{
    struct engine_cell *cell;
    bool fresh;
    int rc = cell_get(t, table, key, &cell, &fresh);
    if (rc < 0)
        return rc;
    cell->present = false;
    cell->dirty = true;
    return 0;
}

void engine_txn_put_raw(struct engine_txn *t, enum engine_table table, const struct record_key *key,
                        const void *value, size_t len)
{
    assert(table != TABLE_DENTRY);
    rocksdb_writebatch_put_cf(t->batch, t->engine->tables[table], (const char *)key->bytes,
                              key->len, value, len);
    t->raw = true;
}

/* How an inode counts in the settle queue. */
static void queue_count(struct record_counters *c, const struct record_inode *inode, bool there,
                        int sign)
{
    if (!there || !inode->due_ns)
        return;
    if (S_ISDIR(inode->mode)) {
        c->queued_subtrees += (uint64_t)sign;
    } else {
        c->queued_files += (uint64_t)sign;
        c->queued_bytes += (uint64_t)sign * inode->size;
    }
}

/* A directory above both ends of a rename: its usage was taken away and given back. */
static bool is_as_before(const struct engine_node *node)
{
    return node->existed && node->exists && S_ISDIR(node->now.mode) &&
           node->len == node->read_len && memcmp(node->bytes, node->read, node->len) == 0;
}

static int encode_nodes(struct engine_txn *t)
{
    for (size_t i = 0; i < t->nodes.cap; i++) {
        struct engine_node *node = t->nodes.slots[i];
        if (!node || !node->dirty)
            continue;
        node->len = 0;
        if (node->exists) {
            struct buf *b = engine_txn_scratch(t);
            record_inode_encode(b, &node->now);
            node->len = b->len;
            node->bytes = buf_error(b) < 0 ? NULL : arena_copy(&t->arena, b->data, b->len);
            if (!node->bytes)
                return -ENOMEM;
        }
        if (is_as_before(node)) {
            node->dirty = false;
            continue;
        }
        queue_count(&t->counters, &node->before, node->existed, -1);
        queue_count(&t->counters, &node->now, node->exists, 1);
        t->counters.inodes += (uint64_t)node->exists - (uint64_t)node->existed;
    }
    return 0;
}

static void batch_nodes(struct engine_txn *t)
{
    rocksdb_column_family_handle_t *table = t->engine->tables[TABLE_INODE];
    for (size_t i = 0; i < t->nodes.cap; i++) {
        struct engine_node *node = t->nodes.slots[i];
        if (!node || !node->dirty || node->hot)
            continue;
        struct record_key key;
        record_key_u64(&key, node->ino);
        if (node->exists)
            rocksdb_writebatch_put_cf(t->batch, table, (const char *)key.bytes, key.len,
                                      (const char *)node->bytes, node->len);
        else if (node->existed)
            rocksdb_writebatch_delete_cf(t->batch, table, (const char *)key.bytes, key.len);
    }
}

static void batch_cells(struct engine_txn *t)
{
    for (size_t i = 0; i < t->cells.cap; i++) {
        struct engine_cell *cell = t->cells.slots[i];
        if (!cell || !cell->dirty)
            continue;
        rocksdb_column_family_handle_t *table = t->engine->tables[cell->table];
        if (cell->present)
            rocksdb_writebatch_put_cf(t->batch, table, (const char *)cell->key, cell->key_len,
                                      (const char *)cell->value, cell->len);
        else
            rocksdb_writebatch_delete_cf(t->batch, table, (const char *)cell->key, cell->key_len);
    }
}

static void cache_begin(struct engine_txn *t)
{
    struct engine_cache *cache = t->engine->cache;
    struct record_key key;
    for (size_t i = 0; i < t->nodes.cap; i++) {
        struct engine_node *node = t->nodes.slots[i];
        if (!node || !node->dirty)
            continue;
        record_key_u64(&key, node->ino);
        engine_cache_begin(cache, TABLE_INODE, key.bytes, key.len);
    }
    for (size_t i = 0; i < t->cells.cap; i++) {
        struct engine_cell *cell = t->cells.slots[i];
        if (cell && cell->dirty && is_cached(cell->table))
            engine_cache_begin(cache, cell->table, cell->key, cell->key_len);
    }
}

/* written: the new state goes in; else all stays out. */
static void cache_end(struct engine_txn *t, bool written)
{
    struct engine_cache *cache = t->engine->cache;
    struct record_key key;
    for (size_t i = 0; i < t->nodes.cap; i++) {
        struct engine_node *node = t->nodes.slots[i];
        if (!node || !node->dirty)
            continue;
        record_key_u64(&key, node->ino);
        engine_cache_end(cache, TABLE_INODE, key.bytes, key.len,
                         written && node->exists ? ENGINE_CACHE_PUT : ENGINE_CACHE_FORGET,
                         node->bytes, node->len);
    }
    for (size_t i = 0; i < t->cells.cap; i++) {
        struct engine_cell *cell = t->cells.slots[i];
        if (!cell || !cell->dirty || !is_cached(cell->table))
            continue;
        enum engine_cache_end what = ENGINE_CACHE_FORGET;
        if (written && cell->present)
            what = ENGINE_CACHE_PUT;
        else if (written && cell->table == TABLE_DENTRY)
            what = ENGINE_CACHE_ABSENT;
        engine_cache_end(cache, cell->table, cell->key, cell->key_len, what, cell->value,
                         cell->len);
    }
}

/* After the write: a walk that begins now sees the rows. */
static void note_queued(const struct engine_txn *t)
{
    for (int i = 0; i < ENGINE_QUEUE_COUNT; i++) {
        struct engine_queue *queue = &t->engine->queues[i];
        if (t->queued_ns[i] == UINT64_MAX)
            continue;
        pthread_mutex_lock(&queue->lock);
        queue->added_ns = MIN(queue->added_ns, t->queued_ns[i]);
        pthread_mutex_unlock(&queue->lock);
    }
}

int engine_txn_commit(struct engine_txn *t)
{
    struct engine *engine = t->engine;
    int rc = encode_nodes(t);
    if (rc < 0)
        return rc;
    t->counters.applied++;
    engine_hot_choose(t);
    batch_nodes(t);
    batch_cells(t);
    t->counters.last_ns = MAX(t->counters.last_ns, t->time_ns);
    struct buf *b = engine_txn_scratch(t);
    record_counters_encode(b, &t->counters);
    if (buf_error(b) < 0)
        return -ENOMEM;
    static const char name[] = "counters";
    rocksdb_writebatch_put_cf(t->batch, engine->tables[TABLE_SYSTEM], name, sizeof(name) - 1,
                              (const char *)b->data, b->len);
    cache_begin(t);
    engine_hot_begin(engine);
    rc = engine_db_write(engine, t->batch);
    engine_hot_end(t, rc == 0);
    cache_end(t, rc == 0);
    if (rc < 0)
        return rc;
    note_queued(t);
    atomic_store(&engine->applied, t->counters.applied);
    atomic_store(&engine->applied_ns, t->time_ns);
    atomic_store(&engine->inodes, t->counters.inodes);
    return 0;
}
