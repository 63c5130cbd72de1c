#include "front_dir.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>
#include <utlist.h>

#include "base/buf.h"
#include "base/cleanup.h"

#define CHUNK_NAMES 256

void dir_positions_init(struct dir_positions *p)
{
    memset(p, 0, sizeof(*p));
    p->next = DIR_COOKIE_FIRST;
}

void dir_positions_rewind(struct dir_positions *p)
{
    for (size_t i = 0; i < p->count; i++)
        buf_done(&p->chunks[i]);
    p->count = 0;
    p->next = DIR_COOKIE_FIRST;
    p->last_len = 0;
}

void dir_positions_done(struct dir_positions *p)
{
    dir_positions_rewind(p);
    free(p->chunks);
    dir_positions_init(p);
}

static struct buf *new_chunk(struct dir_positions *p)
{
    if (p->count == p->cap) {
        size_t cap = p->cap ? p->cap * 2 : 4;
        struct buf *chunks = realloc(p->chunks, cap * sizeof(*chunks));
        if (!chunks)
            return NULL;
        p->chunks = chunks;
        p->cap = cap;
    }
    struct buf *chunk = &p->chunks[p->count++];
    buf_init(chunk, 0);
    return chunk;
}

uint64_t dir_positions_add(struct dir_positions *p, const char *name, size_t len)
{
    assert(len > 0 && len <= DIR_NAME_MAX);
    bool first = (p->next - DIR_COOKIE_FIRST) % CHUNK_NAMES == 0;
    struct buf *chunk = first ? new_chunk(p) : &p->chunks[p->count - 1];
    if (!chunk)
        return 0;
    size_t shared = 0;
    while (!first && shared < len && shared < p->last_len && name[shared] == p->last[shared])
        shared++;
    size_t before = chunk->len;
    buf_put_u8(chunk, (uint8_t)shared);
    buf_put_u8(chunk, (uint8_t)(len - shared));
    buf_put(chunk, name + shared, len - shared);
    if (buf_error(chunk) < 0) {
        chunk->len = before;
        chunk->failed = false;
        if (first)
            buf_done(&p->chunks[--p->count]);
        return 0;
    }
    memcpy(p->last, name, len);
    p->last_len = len;
    return p->next++;
}

int dir_positions_find(const struct dir_positions *p, uint64_t cookie, char name[DIR_NAME_MAX],
                       size_t *len)
{
    if (cookie < DIR_COOKIE_FIRST) {
        *len = 0;
        return 0;
    }
    if (cookie >= p->next)
        return -EINVAL;
    if (cookie == p->next - 1) {
        memcpy(name, p->last, p->last_len);
        *len = p->last_len;
        return 0;
    }
    uint64_t index = cookie - DIR_COOKIE_FIRST;
    const struct buf *chunk = &p->chunks[index / CHUNK_NAMES];
    struct reader r;
    reader_init(&r, chunk->data, chunk->len);
    for (size_t i = 0; i <= index % CHUNK_NAMES; i++) {
        size_t shared = reader_u8(&r);
        size_t rest = reader_u8(&r);
        const uint8_t *bytes = reader_raw(&r, rest);
        assert(bytes || rest == 0);
        memcpy(name + shared, bytes, rest);
        *len = shared + rest;
    }
    return 0;
}

/* What goes with the kernel's listings */

struct dir_kept_one {
    uint64_t ino;
    struct dir_positions positions;
    bool taken;
    struct dir_kept_one *prev, *next; /* kept->idle, when not taken */
    UT_hash_handle hh;
};

struct dir_kept {
    pthread_mutex_t lock;
    /* under lock */
    struct dir_kept_one *all;
    struct dir_kept_one *idle; /* those of longest ago first */
    size_t idle_count, idle_names;
};

static size_t names_of(const struct dir_kept_one *one)
{
    return one->positions.next - DIR_COOKIE_FIRST;
}

int dir_kept_new(struct dir_kept **out)
{
    struct dir_kept *kept = calloc(1, sizeof(*kept));
    if (!kept)
        return -ENOMEM;
    pthread_mutex_init(&kept->lock, NULL);
    *out = kept;
    return 0;
}

static void unlist_locked(struct dir_kept *kept, struct dir_kept_one *one)
{
    DL_DELETE(kept->idle, one);
    kept->idle_count--;
    kept->idle_names -= names_of(one);
}

static void forget_locked(struct dir_kept *kept, struct dir_kept_one *one)
{
    unlist_locked(kept, one);
    HASH_DEL(kept->all, one);
    dir_positions_done(&one->positions);
    free(one);
}

void dir_kept_free(struct dir_kept *kept)
{
    if (!kept)
        return;
    while (kept->idle)
        forget_locked(kept, kept->idle);
    pthread_mutex_destroy(&kept->lock);
    free(kept);
}

struct dir_positions *dir_kept_take(struct dir_kept *kept, uint64_t ino, bool *known)
{
    struct dir_kept_one *one;
    pthread_mutex_lock(&kept->lock);
    HASH_FIND(hh, kept->all, &ino, sizeof(ino), one);
    *known = one;
    if (one && one->taken) {
        one = NULL;
    } else if (one) {
        unlist_locked(kept, one);
    } else if ((one = calloc(1, sizeof(*one)))) {
        one->ino = ino;
        dir_positions_init(&one->positions);
        HASH_ADD(hh, kept->all, ino, sizeof(one->ino), one);
    }
    if (one)
        one->taken = true;
    pthread_mutex_unlock(&kept->lock);
    return one ? &one->positions : NULL;
}

void dir_kept_give(struct dir_kept *kept, struct dir_positions *positions)
{
    struct dir_kept_one *one = container_of(positions, struct dir_kept_one, positions);
    pthread_mutex_lock(&kept->lock);
    one->taken = false;
    DL_APPEND(kept->idle, one);
    kept->idle_count++;
    kept->idle_names += names_of(one);
    while (kept->idle_count > DIR_KEPT_DIRECTORIES || kept->idle_names > DIR_KEPT_NAMES)
        forget_locked(kept, kept->idle);
    pthread_mutex_unlock(&kept->lock);
}
