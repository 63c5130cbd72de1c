/*
 * Reads and writes of local files in the background: an io_uring with a thread that takes
 * completions, or a few threads where the kernel has no io_uring for us. Requests are submitted by
 * the caller's own thread.
 */
#ifndef SLUICE_CACHE_RING_H
#define SLUICE_CACHE_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/pool.h"

struct ring;

#define RING_FILES 256 /* registered files: indices 0..255 */

/* Embedded in the caller's request; stays until `done`. */
struct ring_io {
    bool write;
    int fd;
    int file; /* index of the same file if it is registered; -1 */
    void *buf;
    uint32_t len;
    uint64_t offset;
    void (*done)(struct ring_io *io); /* on a thread of the ring */
    int result;                       /* bytes, or -errno */
    struct ring *ring;                /* the ring's */
    struct pool_task task;
};

/* `name`: of its thread, at most 12 characters. 0 or -errno. */
int ring_new(const char *name, struct ring **out);
/* Nothing is in flight. NULL is allowed. Not on a thread of the ring. */
void ring_free(struct ring *ring);
/* Any thread. All of them or none: -EAGAIN too many are in flight. */
int ring_submit(struct ring *ring, struct ring_io *const *ios, unsigned count);
/* Registers fd (-1: none) under an index. Failure is harmless and reported as false: the file is
 * then used by its descriptor. */
bool ring_set_file(struct ring *ring, int index, int fd);
bool ring_is_uring(const struct ring *ring);

#endif
