#include "engine_cache.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/hash.h"

#define SHARDS 16
#define FIRST_BUCKETS 256
#define ABSENT UINT32_MAX
#define ENTRY_MAX 1024 /* longer records (long symlinks) are not worth the room */

struct entry {
    struct entry *chain;       /* in the bucket */
    struct entry *prev, *next; /* in order of age */
    uint64_t hash;
    uint32_t value_len; /* ABSENT */
    uint16_t key_len;
    uint8_t table;
    bool used;   /* since the clock's hand passed */
    bool hidden; /* between begin and end: it is not here for readers */
    uint8_t bytes[];
};

struct shard {
    pthread_mutex_t lock;
    /* Under the lock: */
    struct entry **buckets;
    size_t bucket_count; /* a power of two */
    size_t count;
    struct entry *newest, *oldest;
    uint64_t bytes;
    uint64_t generation; /* steps with each write */
    uint32_t writing;    /* records between begin and end */
};

struct engine_cache {
    uint64_t shard_max;
    struct shard shards[SHARDS];
};

static size_t entry_size(const struct entry *e)
{
    /* 16: what malloc adds. */
    return sizeof(*e) + e->key_len + (e->value_len == ABSENT ? 0 : e->value_len) + 16;
}

int engine_cache_new(struct engine_cache **out, uint64_t max_bytes)
{
    struct engine_cache *cache = calloc(1, sizeof(*cache));
    if (!cache)
        return -ENOMEM;
    cache->shard_max = max_bytes / SHARDS;
    for (int i = 0; i < SHARDS; i++) {
        struct shard *s = &cache->shards[i];
        pthread_mutex_init(&s->lock, NULL);
        s->buckets = calloc(FIRST_BUCKETS, sizeof(*s->buckets));
        s->bucket_count = FIRST_BUCKETS;
        if (!s->buckets) {
            engine_cache_free(cache);
            return -ENOMEM;
        }
    }
    *out = cache;
    return 0;
}

static void shard_clear(struct shard *s)
{
    while (s->newest) {
        struct entry *e = s->newest;
        s->newest = e->next;
        free(e);
    }
    s->oldest = NULL;
    s->count = 0;
    s->bytes = 0;
    if (s->buckets)
        memset(s->buckets, 0, s->bucket_count * sizeof(*s->buckets));
}

void engine_cache_clear(struct engine_cache *cache)
{
    for (int i = 0; i < SHARDS; i++) {
        struct shard *s = &cache->shards[i];
        pthread_mutex_lock(&s->lock);
        shard_clear(s);
        s->generation++;
        pthread_mutex_unlock(&s->lock);
    }
}

void engine_cache_free(struct engine_cache *cache)
{
    if (!cache)
        return;
    for (int i = 0; i < SHARDS; i++) {
        shard_clear(&cache->shards[i]);
        free(cache->shards[i].buckets);
        pthread_mutex_destroy(&cache->shards[i].lock);
    }
    free(cache);
}

static struct entry **find(struct shard *s, uint64_t hash, uint8_t table, const void *key,
                           size_t key_len)
{
    struct entry **at = &s->buckets[(hash >> 8) & (s->bucket_count - 1)];
    for (; *at; at = &(*at)->chain) {
        struct entry *e = *at;
        if (e->hash == hash && e->table == table && e->key_len == key_len &&
            memcmp(e->bytes, key, key_len) == 0)
            return at;
    }
    return at;
}

static void list_remove(struct shard *s, struct entry *e)
{
    *(e->prev ? &e->prev->next : &s->newest) = e->next;
    *(e->next ? &e->next->prev : &s->oldest) = e->prev;
}

static void list_push(struct shard *s, struct entry *e)
{
    e->prev = NULL;
    e->next = s->newest;
    *(e->next ? &e->next->prev : &s->oldest) = e;
    s->newest = e;
}

static void drop(struct shard *s, struct entry **at)
{
    struct entry *e = *at;
    *at = e->chain;
    list_remove(s, e);
    s->bytes -= entry_size(e);
    s->count--;
    free(e);
}

/* A failed allocation leaves longer chains, no more. */
static void grow(struct shard *s)
{
    size_t count = s->bucket_count * 2;
    struct entry **buckets = calloc(count, sizeof(*buckets));
    if (!buckets)
        return;
    for (size_t i = 0; i < s->bucket_count; i++) {
        while (s->buckets[i]) {
            struct entry *e = s->buckets[i];
            s->buckets[i] = e->chain;
            struct entry **at = &buckets[(e->hash >> 8) & (count - 1)];
            e->chain = *at;
            *at = e;
        }
    }
    free(s->buckets);
    s->buckets = buckets;
    s->bucket_count = count;
}

/* Second chance: an entry that was used since the hand last passed goes round once more. */
static void make_room(struct shard *s, uint64_t max)
{
    while (s->bytes > max && s->oldest) {
        struct entry *e = s->oldest;
        if (e->used) {
            e->used = false;
            list_remove(s, e);
            list_push(s, e);
            continue;
        }
        drop(s, find(s, e->hash, e->table, e->bytes, e->key_len));
    }
}

static void insert(struct engine_cache *cache, struct shard *s, uint64_t hash, uint8_t table,
                   const void *key, size_t key_len, const void *value, size_t len)
{
    if (key_len + (value ? len : 0) > ENTRY_MAX)
        return;
    struct entry *e = malloc(sizeof(*e) + key_len + (value ? len : 0));
    if (!e)
        return;
    *e = (struct entry){.hash = hash,
                        .value_len = value ? (uint32_t)len : ABSENT,
                        .key_len = (uint16_t)key_len,
                        .table = table};
    memcpy(e->bytes, key, key_len);
    if (value && len)
        memcpy(e->bytes + key_len, value, len);
    if (s->count >= s->bucket_count)
        grow(s);
    struct entry **at = &s->buckets[(hash >> 8) & (s->bucket_count - 1)];
    e->chain = *at;
    *at = e;
    list_push(s, e);
    s->count++;
    s->bytes += entry_size(e);
    make_room(s, cache->shard_max);
}

static struct shard *shard_of(struct engine_cache *cache, uint64_t hash)
{
    return &cache->shards[hash % SHARDS];
}

int engine_cache_get(struct engine_cache *cache, uint8_t table, const void *key, size_t key_len,
                     void *out, size_t cap, uint64_t *ticket)
{
    uint64_t hash = hash_bytes64(key, key_len, table);
    struct shard *s = shard_of(cache, hash);
    int result = -EAGAIN;
    pthread_mutex_lock(&s->lock);
    struct entry *e = *find(s, hash, table, key, key_len);
    if (e && !e->hidden && e->value_len == ABSENT) {
        e->used = true;
        result = -ENOENT;
    } else if (e && !e->hidden && e->value_len <= cap) {
        e->used = true;
        memcpy(out, e->bytes + key_len, e->value_len);
        result = (int)e->value_len;
    }
    *ticket = s->generation;
    pthread_mutex_unlock(&s->lock);
    return result;
}

void engine_cache_fill(struct engine_cache *cache, uint8_t table, const void *key, size_t key_len,
                       const void *value, size_t len, uint64_t ticket)
{
    uint64_t hash = hash_bytes64(key, key_len, table);
    struct shard *s = shard_of(cache, hash);
    pthread_mutex_lock(&s->lock);
    if (s->writing == 0 && s->generation == ticket && !*find(s, hash, table, key, key_len))
        insert(cache, s, hash, table, key, key_len, value, len);
    pthread_mutex_unlock(&s->lock);
}

void engine_cache_begin(struct engine_cache *cache, uint8_t table, const void *key, size_t key_len)
{
    uint64_t hash = hash_bytes64(key, key_len, table);
    struct shard *s = shard_of(cache, hash);
    pthread_mutex_lock(&s->lock);
    struct entry *e = *find(s, hash, table, key, key_len);
    if (e)
        e->hidden = true;
    s->writing++;
    s->generation++;
    pthread_mutex_unlock(&s->lock);
}

void engine_cache_end(struct engine_cache *cache, uint8_t table, const void *key, size_t key_len,
                      enum engine_cache_end what, const void *value, size_t len)
{
    uint64_t hash = hash_bytes64(key, key_len, table);
    struct shard *s = shard_of(cache, hash);
    pthread_mutex_lock(&s->lock);
    assert(s->writing > 0);
    s->writing--;
    s->generation++;
    const void *now = what == ENGINE_CACHE_PUT ? value : NULL;
    struct entry **at = find(s, hash, table, key, key_len);
    if (*at && what != ENGINE_CACHE_FORGET && (*at)->value_len == (now ? len : ABSENT)) {
        /* As long as before: what most changes of an inode leave. */
        if (now && len)
            memcpy((*at)->bytes + key_len, now, len);
        (*at)->hidden = false;
    } else {
        if (*at)
            drop(s, at);
        if (what != ENGINE_CACHE_FORGET)
            insert(cache, s, hash, table, key, key_len, now, len);
    }
    pthread_mutex_unlock(&s->lock);
}

uint64_t engine_cache_bytes(struct engine_cache *cache)
{
    uint64_t bytes = 0;
    for (int i = 0; i < SHARDS; i++) {
        struct shard *s = &cache->shards[i];
        pthread_mutex_lock(&s->lock);
        bytes += s->bytes + s->bucket_count * sizeof(*s->buckets);
        pthread_mutex_unlock(&s->lock);
    }
    return bytes;
}
