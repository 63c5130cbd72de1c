/*
 * The small-file area: one mapped file of equal slots, so that a small file's write costs a copy
 * and no system call. A slot is two copies of its state, then the bytes. The state that counts is
 * the valid copy with the higher sequence; it is stored after the bytes, its sequence last. So at
 * whatever store the process is killed, the slot says what was acknowledged.
 *
 * The file is allocated in full at the start: a store to a page of a file that the disk has no
 * block for would end the process.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "staging_impl.h"
#include "staging_log.h"

#define SMALL_NAME "small"
#define SMALL_MAGIC 0x31534c53554c5344ull
#define SMALL_PAGE 4096u
#define SMALL_SLOTS 512u
#define SMALL_AREA_MAX (32u << 20)

struct small_header {
    uint64_t magic;
    uint32_t slot_size, slot_count;
    char boot_id[STAGING_BOOT_ID];
};

struct small_slot {
    struct slot_state state[2];
    uint8_t bytes[];
};

struct small_area {
    /* immutable */
    uint8_t *map;
    size_t map_len;
    uint32_t slot_size, slot_count;
    /* under lock (a leaf) */
    pthread_mutex_t lock;
    uint32_t free_count;
    uint32_t free[]; /* the last one given back is taken first: few pages stay resident */
};

static struct small_slot *slot_at(const struct small_area *small, int slot)
{
    return (struct small_slot *)(small->map + SMALL_PAGE + (size_t)slot * small->slot_size);
}

uint8_t *small_bytes(struct small_area *small, int slot)
{
    return slot_at(small, slot)->bytes;
}

uint32_t small_capacity(const struct small_area *small)
{
    return small->slot_size - (uint32_t)sizeof(struct small_slot);
}

int small_take(struct small_area *small)
{
    int slot = -1;
    pthread_mutex_lock(&small->lock);
    if (small->free_count)
        slot = (int)small->free[--small->free_count];
    pthread_mutex_unlock(&small->lock);
    return slot;
}

/* The older copy is ended first: the newer one is the truth till the end. */
static void slot_clear(struct small_slot *s)
{
    int newer = atomic_load_explicit(&s->state[1].sequence, memory_order_relaxed) >
                atomic_load_explicit(&s->state[0].sequence, memory_order_relaxed);
    atomic_store_explicit(&s->state[!newer].sequence, 0, memory_order_release);
    atomic_store_explicit(&s->state[newer].sequence, 0, memory_order_release);
}

void small_put(struct small_area *small, int slot)
{
    slot_clear(slot_at(small, slot));
    pthread_mutex_lock(&small->lock);
    small->free[small->free_count++] = (uint32_t)slot;
    pthread_mutex_unlock(&small->lock);
}

bool small_store(struct staging *staging)
{
    struct small_area *small = staging->area->small;
    struct slot_state state;
    if (!staging_slot_fill(&state, staging, small_capacity(small)))
        return false;
    struct small_slot *s = slot_at(small, staging->slot);
    struct slot_state *to = &s->state[++staging->slot_sequence & 1];
    /* A release store orders what was stored before it; the process is killed between two stores,
     * never with the order changed. */
    atomic_store_explicit(&to->sequence, 0, memory_order_relaxed);
    atomic_signal_fence(memory_order_seq_cst);
    memcpy((char *)to + sizeof(uint64_t), (const char *)&state + sizeof(uint64_t),
           sizeof(state) - sizeof(uint64_t));
    atomic_store_explicit(&to->sequence, staging->slot_sequence, memory_order_release);
    return true;
}

static int map_area(struct small_area *small, int fd)
{
    small->map = mmap(NULL, small->map_len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (small->map == MAP_FAILED) {
        small->map = NULL;
        return -errno;
    }
    return 0;
}

static int area_alloc(uint32_t slot_size, uint32_t slot_count, struct small_area **out)
{
    struct small_area *small = calloc(1, sizeof(*small) + slot_count * sizeof(small->free[0]));
    if (!small)
        return -ENOMEM;
    small->slot_size = slot_size;
    small->slot_count = slot_count;
    small->map_len = SMALL_PAGE + (size_t)slot_size * slot_count;
    pthread_mutex_init(&small->lock, NULL);
    *out = small;
    return 0;
}

void small_area_close(struct small_area *small)
{
    if (!small)
        return;
    if (small->map)
        munmap(small->map, small->map_len);
    pthread_mutex_destroy(&small->lock);
    free(small);
}

/* The state that counts, or NULL if the slot is free. */
static const struct slot_state *slot_state(const struct small_slot *s)
{
    uint64_t a = atomic_load_explicit(&s->state[0].sequence, memory_order_acquire);
    uint64_t b = atomic_load_explicit(&s->state[1].sequence, memory_order_acquire);
    if (!a && !b)
        return NULL;
    return &s->state[b > a];
}

static uint64_t bytes_left(const struct small_area *small)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < small->slot_count; i++) {
        const struct slot_state *state = slot_state(slot_at(small, (int)i));
        for (uint32_t k = 0; state && k < MIN(state->range_count, SLOT_RANGES); k++)
            bytes += state->ranges[k].length;
    }
    return bytes;
}

/* Opens the file that a process on this boot left, whatever the size of its slots. */
static int open_left(struct staging_area *area, struct small_area **out)
{
    cleanup(close_fd) int fd = openat(area->dir_fd, SMALL_NAME, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    struct small_header header;
    struct stat st;
    if (pread(fd, &header, sizeof(header), 0) != (ssize_t)sizeof(header) || fstat(fd, &st))
        return -EBADMSG;
    if (header.magic != SMALL_MAGIC || header.slot_count == 0 ||
        header.slot_count > SMALL_AREA_MAX / 1024 || header.slot_size < sizeof(struct small_slot) ||
        header.slot_size > SMALL_AREA_MAX)
        return -EBADMSG;
    struct small_area *small;
    int rc = area_alloc(header.slot_size, header.slot_count, &small);
    if (rc)
        return rc;
    rc = (uint64_t)st.st_size < small->map_len ? -EBADMSG : map_area(small, fd);
    if (!rc && memcmp(header.boot_id, area->boot_id, STAGING_BOOT_ID) != 0) {
        area->discarded += bytes_left(small);
        rc = -ESTALE;
    }
    if (rc) {
        small_area_close(small);
        return rc;
    }
    *out = small;
    return 0;
}

static int make_new(struct staging_area *area, uint32_t slot_size, uint32_t slot_count,
                    struct small_area **out)
{
    if (unlinkat(area->dir_fd, SMALL_NAME, 0) && errno != ENOENT)
        return -errno;
    cleanup(close_fd) int fd =
        openat(area->dir_fd, SMALL_NAME, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    struct small_area *small;
    int rc = area_alloc(slot_size, slot_count, &small);
    if (rc)
        return rc;
    rc = -posix_fallocate(fd, 0, (off_t)small->map_len);
    if (!rc)
        rc = map_area(small, fd);
    if (rc) {
        small_area_close(small);
        unlinkat(area->dir_fd, SMALL_NAME, 0);
        return rc;
    }
    struct small_header header = {
        .magic = SMALL_MAGIC, .slot_size = slot_size, .slot_count = slot_count};
    memcpy(header.boot_id, area->boot_id, STAGING_BOOT_ID);
    memcpy(small->map, &header, sizeof(header));
    *out = small;
    return 0;
}

static void free_slots_init(struct small_area *small)
{
    for (uint32_t i = small->slot_count; i-- > 0;)
        if (!slot_state(slot_at(small, (int)i)))
            small->free[small->free_count++] = i;
}

int small_area_open(struct staging_area *area, uint32_t inline_max, struct small_area **out)
{
    uint32_t slot_size = (uint32_t)sizeof(struct small_slot) + ((inline_max + 63u) & ~63u);
    uint32_t slot_count = MIN(SMALL_SLOTS, SMALL_AREA_MAX / slot_size);
    if (slot_count == 0)
        return -EFBIG;
    int rc = open_left(area, out);
    if (rc)
        rc = make_new(area, slot_size, slot_count, out);
    if (!rc)
        free_slots_init(*out);
    return rc;
}

static int slot_adopt(struct staging_area *area, int slot, const struct slot_state *state,
                      int (*found)(void *arg, const struct staging_found *found), void *arg)
{
    struct staging *staging = staging_alloc(area, state->ino);
    if (!staging)
        return -ENOMEM;
    staging->slot = slot;
    staging->slot_sequence = atomic_load_explicit(&state->sequence, memory_order_relaxed);
    if (staging_slot_replay(staging, state, small_capacity(area->small))) {
        staging_leave(staging);
        return -ENOMEM;
    }
    return staging_call_found(staging, staging->base_version, found, arg);
}

int small_area_recover(struct staging_area *area,
                       int (*found)(void *arg, const struct staging_found *found), void *arg)
{
    struct small_area *small = area->small;
    for (uint32_t i = 0; small && i < small->slot_count; i++) {
        const struct slot_state *state = slot_state(slot_at(small, (int)i));
        if (!state)
            continue;
        int rc = slot_adopt(area, (int)i, state, found, arg);
        if (rc)
            return rc;
    }
    /* Looking has mapped every page of the file: the mapping lets go of them, the file does not. */
    if (small)
        madvise(small->map, small->map_len, MADV_DONTNEED);
    return 0;
}
