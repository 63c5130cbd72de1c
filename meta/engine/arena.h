/*
 * Memory that is freed all at once: what a reply points to, what one apply works with. Not
 * thread-safe.
 */
#ifndef SLUICE_META_ARENA_H
#define SLUICE_META_ARENA_H

#include <stddef.h>

/* Replies are kept by the ten thousands (small files that were closed), and most are small. */
#define META_REPLY_CHUNK ((size_t)256)

struct arena_chunk;

struct arena {
    struct arena_chunk *head; /* the one that is being filled, then the older ones */
    size_t first;             /* bytes of the first chunk; 0: 4 KiB */
};

/* Aligned for any type, not cleared; NULL without memory. */
void *arena_alloc(struct arena *arena, size_t len);
/* A copy with a NUL behind it. */
void *arena_copy(struct arena *arena, const void *data, size_t len);
/* Everything is gone, but the oldest (first) chunk's memory is kept for use. */
void arena_reset(struct arena *arena);
/* Bytes of memory that it takes. */
size_t arena_memory(const struct arena *arena);
void arena_done(struct arena *arena);

#endif
