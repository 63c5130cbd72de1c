#include "inlined.h"

#include <errno.h>
#include <stdlib.h>
#include <utlist.h>

#include "base/cleanup.h"

struct entry {
    uint64_t ino;
    size_t cost;
    struct file_extents *extents;
    UT_hash_handle hh;
    struct entry *prev, *next;
};

struct inlined {
    pthread_mutex_t lock;          /* a leaf */
    struct entry *entries, *order; /* by inode; the one used last is last */
    size_t cost;
};

int inlined_new(struct inlined **out)
{
    struct inlined *inlined = calloc(1, sizeof(*inlined));
    if (!inlined)
        return -ENOMEM;
    pthread_mutex_init(&inlined->lock, NULL);
    *out = inlined;
    return 0;
}

/* Its extents are the caller's to give back. */
static struct file_extents *remove_locked(struct inlined *inlined, struct entry *entry)
{
    struct file_extents *extents = entry->extents;
    HASH_DEL(inlined->entries, entry);
    DL_DELETE(inlined->order, entry);
    inlined->cost -= entry->cost;
    free(entry);
    return extents;
}

void inlined_free(struct inlined *inlined)
{
    if (!inlined)
        return;
    while (inlined->order)
        file_extents_unref(remove_locked(inlined, inlined->order));
    pthread_mutex_destroy(&inlined->lock);
    free(inlined);
}

/* 0: not to be kept. */
static size_t cost_of(const struct file_extents *extents)
{
    if (!extents || extents->reply.extent_count == 0 || extents->reply.object_count > 1)
        return 0;
    size_t cost = sizeof(struct entry) + sizeof(*extents) + meta_reply_memory(&extents->reply);
    return cost <= INLINED_BYTES_MAX / 8 ? cost : 0;
}

static struct entry *find_locked(struct inlined *inlined, uint64_t ino)
{
    struct entry *entry;
    HASH_FIND(hh, inlined->entries, &ino, sizeof(ino), entry);
    return entry;
}

void inlined_put(struct inlined *inlined, uint64_t ino, struct file_extents *extents)
{
    size_t cost = inlined ? cost_of(extents) : 0;
    struct entry *entry = cost ? calloc(1, sizeof(*entry)) : NULL;
    if (!entry)
        return;
    *entry = (struct entry){.ino = ino, .cost = cost, .extents = file_extents_ref(extents)};
    pthread_mutex_lock(&inlined->lock);
    struct entry *old = find_locked(inlined, ino);
    if (old)
        file_extents_unref(remove_locked(inlined, old));
    while (inlined->cost + cost > INLINED_BYTES_MAX)
        file_extents_unref(remove_locked(inlined, inlined->order));
    HASH_ADD(hh, inlined->entries, ino, sizeof(entry->ino), entry);
    DL_APPEND(inlined->order, entry);
    inlined->cost += cost;
    pthread_mutex_unlock(&inlined->lock);
}

static void drop(struct inlined *inlined, uint64_t ino, bool all)
{
    if (!inlined)
        return;
    pthread_mutex_lock(&inlined->lock);
    struct entry *entry = find_locked(inlined, ino);
    if (entry && (all || entry->extents->reply.object_count > 0))
        file_extents_unref(remove_locked(inlined, entry));
    pthread_mutex_unlock(&inlined->lock);
}

void inlined_moved(struct inlined *inlined, uint64_t ino)
{
    drop(inlined, ino, false);
}

void inlined_gone(struct inlined *inlined, uint64_t ino)
{
    drop(inlined, ino, true);
}

struct file_extents *inlined_get(struct inlined *inlined, uint64_t ino, uint64_t data_version)
{
    struct file_extents *extents = NULL;
    if (!inlined)
        return NULL;
    pthread_mutex_lock(&inlined->lock);
    struct entry *entry = find_locked(inlined, ino);
    if (entry && entry->extents->data_version == data_version) {
        extents = file_extents_ref(entry->extents);
        DL_DELETE(inlined->order, entry);
        DL_APPEND(inlined->order, entry);
    }
    pthread_mutex_unlock(&inlined->lock);
    return extents;
}
