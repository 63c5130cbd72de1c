#include "front_dir.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

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
