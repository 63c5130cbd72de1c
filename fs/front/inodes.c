#include "front_inodes.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

/*
 * Open addressing with linear probing, deletion by shifting back. A generic hash table with a
 * header for each element would take three times the memory, and there is one element for each
 * inode in the kernel's cache.
 */
#define SHARD_BITS 6
#define SHARDS (1u << SHARD_BITS)
#define FIRST_SLOTS 64u
#define UNLINKED (1ull << 63)

struct slot {
    uint64_t ino;   /* 0: free */
    uint64_t count; /* lookups, and UNLINKED */
};

struct shard {
    pthread_mutex_t lock;
    /* under lock */
    struct slot *slots;
    size_t cap, used; /* cap: a power of two */
} __attribute__((aligned(64)));

struct inodes {
    struct shard shards[SHARDS];
};

int inodes_new(struct inodes **out)
{
    struct inodes *t = aligned_alloc(64, sizeof(*t));
    if (!t)
        return -ENOMEM;
    memset(t, 0, sizeof(*t));
    for (size_t i = 0; i < SHARDS; i++)
        pthread_mutex_init(&t->shards[i].lock, NULL);
    *out = t;
    return 0;
}

void inodes_free(struct inodes *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < SHARDS; i++) {
        pthread_mutex_destroy(&t->shards[i].lock);
        free(t->shards[i].slots);
    }
    free(t);
}

/* The shard is chosen by the hash's upper bits, the slot by its lower ones. */
static struct shard *shard_of(struct inodes *t, uint64_t hash)
{
    return &t->shards[hash >> (64 - SHARD_BITS)];
}

/* The slot of ino, or the free one where it would stand. The table has a free slot. */
static size_t find_locked(const struct shard *s, uint64_t hash, uint64_t ino)
{
    size_t i = hash & (s->cap - 1);
    while (s->slots[i].ino != 0 && s->slots[i].ino != ino)
        i = (i + 1) & (s->cap - 1);
    return i;
}

static int resize_locked(struct shard *s, size_t cap)
{
    struct slot *slots = calloc(cap, sizeof(*slots));
    if (!slots)
        return -ENOMEM;
    struct shard bigger = {.slots = slots, .cap = cap};
    for (size_t i = 0; i < s->cap; i++)
        if (s->slots[i].ino != 0)
            slots[find_locked(&bigger, hash_u64(s->slots[i].ino), s->slots[i].ino)] = s->slots[i];
    free(s->slots);
    s->slots = slots;
    s->cap = cap;
    return 0;
}

static void remove_locked(struct shard *s, size_t hole)
{
    size_t mask = s->cap - 1;
    for (size_t i = (hole + 1) & mask; s->slots[i].ino != 0; i = (i + 1) & mask) {
        size_t home = hash_u64(s->slots[i].ino) & mask;
        /* It may move into the hole unless its home lies behind the hole. */
        if (((i - home) & mask) >= ((i - hole) & mask)) {
            s->slots[hole] = s->slots[i];
            hole = i;
        }
    }
    s->slots[hole].ino = 0;
    s->used--;
    /* Memory follows the kernel's cache down; a failure to shrink harms nobody. */
    if (s->cap > FIRST_SLOTS && s->used < s->cap / 8)
        resize_locked(s, s->cap / 2);
}

int inodes_add(struct inodes *t, uint64_t ino, uint64_t count)
{
    assert(ino != 0);
    uint64_t hash = hash_u64(ino);
    struct shard *s = shard_of(t, hash);
    int result = 0;
    pthread_mutex_lock(&s->lock);
    if (s->used + 1 > s->cap / 4 * 3)
        result = resize_locked(s, s->cap ? s->cap * 2 : FIRST_SLOTS);
    if (result == 0) {
        struct slot *slot = &s->slots[find_locked(s, hash, ino)];
        if (slot->ino == 0) {
            *slot = (struct slot){.ino = ino};
            s->used++;
        }
        slot->count += count;
    }
    pthread_mutex_unlock(&s->lock);
    return result;
}

bool inodes_forget(struct inodes *t, uint64_t ino, uint64_t count)
{
    uint64_t hash = hash_u64(ino);
    struct shard *s = shard_of(t, hash);
    bool drop = false;
    pthread_mutex_lock(&s->lock);
    if (s->used > 0 && ino != 0) {
        size_t i = find_locked(s, hash, ino);
        struct slot *slot = &s->slots[i];
        if (slot->ino != 0) {
            uint64_t lookups = slot->count & ~UNLINKED;
            if (count < lookups) {
                slot->count -= count;
            } else {
                drop = slot->count & UNLINKED;
                remove_locked(s, i);
            }
        }
    }
    pthread_mutex_unlock(&s->lock);
    return drop;
}

/* Sets or clears UNLINKED; false if the inode is not there. */
static bool mark(struct inodes *t, uint64_t ino, bool unlinked)
{
    uint64_t hash = hash_u64(ino);
    struct shard *s = shard_of(t, hash);
    bool known = false;
    pthread_mutex_lock(&s->lock);
    if (s->used > 0 && ino != 0) {
        struct slot *slot = &s->slots[find_locked(s, hash, ino)];
        known = slot->ino != 0;
        if (known)
            slot->count = (slot->count & ~UNLINKED) | (unlinked ? UNLINKED : 0);
    }
    pthread_mutex_unlock(&s->lock);
    return known;
}

bool inodes_unlinked(struct inodes *t, uint64_t ino)
{
    return !mark(t, ino, true);
}

void inodes_linked(struct inodes *t, uint64_t ino)
{
    mark(t, ino, false);
}

bool inodes_known(struct inodes *t, uint64_t ino)
{
    uint64_t hash = hash_u64(ino);
    struct shard *s = shard_of(t, hash);
    pthread_mutex_lock(&s->lock);
    bool known = s->used > 0 && ino != 0 && s->slots[find_locked(s, hash, ino)].ino != 0;
    pthread_mutex_unlock(&s->lock);
    return known;
}

uint64_t inodes_count(struct inodes *t)
{
    uint64_t count = 0;
    for (size_t i = 0; i < SHARDS; i++) {
        struct shard *s = &t->shards[i];
        pthread_mutex_lock(&s->lock);
        count += s->used;
        pthread_mutex_unlock(&s->lock);
    }
    return count;
}

void inodes_each(struct inodes *t, void (*fn)(void *arg, uint64_t ino), void *arg)
{
    for (size_t i = 0; i < SHARDS; i++) {
        struct shard *s = &t->shards[i];
        pthread_mutex_lock(&s->lock);
        size_t count = 0;
        uint64_t *inos = malloc(s->used * sizeof(*inos) + 1);
        for (size_t j = 0; inos && j < s->cap; j++)
            if (s->slots[j].ino != 0)
                inos[count++] = s->slots[j].ino;
        pthread_mutex_unlock(&s->lock);
        for (size_t j = 0; j < count; j++)
            fn(arg, inos[j]);
        free(inos);
    }
}
