/*
 * Hot directories. A change of a name changes its directory, and the usage of all directories above
 * it: the deeper the tree, the more records, and a record costs an insert into RocksDB's memtable,
 * which is most of an operation. So the records of the few directories that changed last are
 * written inside of the record of the counters, which every operation writes anyway. What is in
 * their own table is older then. The directory that did not change for the longest time goes back
 * there when there are too many, and when it did not change for some operations: each byte that is
 * written costs a checksum.
 *
 * A record is read from the cache, or from here, or from its table, in this order. Which
 * directories are hot depends on the operations only, so that the same operations give the same
 * database.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "engine_impl.h"

/* After so many operations without a change a directory is hot no more. */
#define STAYS_HOT 256

/* A removed directory does not change any more. */
static bool may_be_hot(const struct engine_node *node)
{
    return node->dirty && node->existed && node->exists && S_ISDIR(node->now.mode) &&
           node->now.nlink > 0 && node->len <= RECORD_HOT_LEN;
}

static size_t count_new(const struct engine_txn *t)
{
    size_t count = 0;
    for (size_t i = 0; i < t->nodes.cap; i++) {
        const struct engine_node *node = t->nodes.slots[i];
        count += node && may_be_hot(node);
    }
    return count;
}

static void remove_at(struct record_counters *c, size_t at)
{
    memmove(&c->hot[at], &c->hot[at + 1], (c->hot_count - at - 1) * sizeof(c->hot[0]));
    c->hot_count--;
}

static size_t find_oldest(const struct record_counters *c)
{
    size_t oldest = 0;
    for (size_t i = 1; i < c->hot_count; i++) {
        if (c->hot[i].applied <= c->hot[oldest].applied)
            oldest = i; /* of those of one operation the one with the greatest number */
    }
    return oldest;
}

static void leave(struct engine_txn *t, size_t at)
{
    struct record_counters *c = &t->counters;
    struct record_key key;
    record_key_u64(&key, c->hot[at].ino);
    rocksdb_writebatch_put_cf(t->batch, t->engine->tables[TABLE_INODE], (const char *)key.bytes,
                              key.len, (const char *)c->hot[at].bytes, c->hot[at].len);
    remove_at(c, at);
}

static void insert(struct record_counters *c, const struct engine_node *node)
{
    size_t at = 0;
    while (at < c->hot_count && c->hot[at].ino < node->ino)
        at++;
    memmove(&c->hot[at + 1], &c->hot[at], (c->hot_count - at) * sizeof(c->hot[0]));
    struct record_hot *hot = &c->hot[at];
    hot->ino = node->ino;
    hot->applied = c->applied;
    hot->len = node->len;
    memcpy(hot->bytes, node->bytes, node->len);
    c->hot_count++;
}

void engine_hot_choose(struct engine_txn *t)
{
    struct record_counters *c = &t->counters;
    for (size_t i = c->hot_count; i-- > 0;) {
        const struct engine_node *node = engine_txn_loaded(t, c->hot[i].ino);
        if (node && node->dirty)
            remove_at(c, i);
    }
    size_t oldest = find_oldest(c), count = count_new(t);
    if (c->hot_count > 0 && c->applied - c->hot[oldest].applied > STAYS_HOT)
        leave(t, oldest);
    if (count > RECORD_HOT_MAX)
        return; /* which of them would be by chance */
    while (c->hot_count + count > RECORD_HOT_MAX)
        leave(t, find_oldest(c));
    for (size_t i = 0; i < t->nodes.cap; i++) {
        struct engine_node *node = t->nodes.slots[i];
        if (!node || !may_be_hot(node))
            continue;
        insert(c, node);
        node->hot = true;
    }
}

void engine_hot_begin(struct engine *engine)
{
    pthread_mutex_lock(&engine->hot_lock);
    engine->hot_writing = true;
    pthread_mutex_unlock(&engine->hot_lock);
}

void engine_hot_end(struct engine_txn *t, bool written)
{
    pthread_mutex_lock(&t->engine->hot_lock);
    if (written)
        t->engine->counters = t->counters;
    t->engine->hot_writing = false;
    pthread_mutex_unlock(&t->engine->hot_lock);
}

static int find(const struct record_counters *c, uint64_t ino, uint8_t value[RECORD_HOT_LEN])
{
    for (size_t i = 0; i < c->hot_count; i++) {
        if (c->hot[i].ino != ino)
            continue;
        memcpy(value, c->hot[i].bytes, c->hot[i].len);
        return (int)c->hot[i].len;
    }
    return -ENOENT;
}

/* From the database: as new as what is in the other tables. */
static int find_written(struct engine *engine, uint64_t ino, uint8_t value[RECORD_HOT_LEN])
{
    struct record_counters counters;
    struct arena arena = {0};
    struct record_key key;
    const uint8_t *bytes;
    size_t len;
    record_key_text(&key, "counters");
    int rc = engine_db_copy(engine, NULL, TABLE_SYSTEM, &key, &arena, &bytes, &len);
    if (rc == 0)
        rc = record_counters_decode(bytes, len, &counters) < 0 ? -EIO : find(&counters, ino, value);
    arena_done(&arena);
    return rc;
}

int engine_hot_get(struct engine *engine, uint64_t ino, uint8_t value[RECORD_HOT_LEN])
{
    pthread_mutex_lock(&engine->hot_lock);
    bool writing = engine->hot_writing;
    int rc = writing ? 0 : find(&engine->counters, ino, value);
    pthread_mutex_unlock(&engine->hot_lock);
    return writing ? find_written(engine, ino, value) : rc;
}
