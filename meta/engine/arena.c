#include "arena.h"

#include <stdalign.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

#define FIRST_CHUNK ((size_t)4096)
#define LARGEST_STEP ((size_t)256 << 10)

struct arena_chunk {
    struct arena_chunk *next;
    size_t used, cap;
    alignas(max_align_t) uint8_t data[];
};

void *arena_alloc(struct arena *arena, size_t len)
{
    if (len > SIZE_MAX / 4)
        return NULL;
    size_t need = (len + alignof(max_align_t) - 1) & ~(alignof(max_align_t) - 1);
    struct arena_chunk *chunk = arena->head;
    size_t first = arena->first ? arena->first : FIRST_CHUNK;
    if (!chunk || chunk->cap - chunk->used < need) {
        size_t cap = chunk ? MIN(chunk->cap * 2, LARGEST_STEP) : first;
        cap = MAX(cap, need);
        chunk = malloc(sizeof(*chunk) + cap);
        if (!chunk)
            return NULL;
        *chunk = (struct arena_chunk){.next = arena->head, .cap = cap};
        arena->head = chunk;
    }
    void *room = chunk->data + chunk->used;
    chunk->used += need;
    return room;
}

void *arena_copy(struct arena *arena, const void *data, size_t len)
{
    uint8_t *copy = arena_alloc(arena, len + 1);
    if (!copy)
        return NULL;
    if (len)
        memcpy(copy, data, len);
    copy[len] = 0;
    return copy;
}

void arena_reset(struct arena *arena)
{
    while (arena->head && arena->head->next) {
        struct arena_chunk *chunk = arena->head;
        arena->head = chunk->next;
        free(chunk);
    }
    if (arena->head)
        arena->head->used = 0;
}

size_t arena_memory(const struct arena *arena)
{
    size_t bytes = 0;
    for (const struct arena_chunk *chunk = arena->head; chunk; chunk = chunk->next)
        bytes += sizeof(*chunk) + chunk->cap;
    return bytes;
}

void arena_done(struct arena *arena)
{
    while (arena->head) {
        struct arena_chunk *chunk = arena->head;
        arena->head = chunk->next;
        free(chunk);
    }
}
