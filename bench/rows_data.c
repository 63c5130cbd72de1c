/* Rows on large files: each thread has one. "Cold" is without the kernel's pages; what the
 * filesystem itself keeps on a local disk it keeps. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "bench_impl.h"

static const char *name_of(char room[BENCH_NAME_MAX], const struct worker *w)
{
    snprintf(room, BENCH_NAME_MAX, "large%u", w->index);
    return room;
}

static int close_file(struct worker *w)
{
    int result = w->fd >= 0 && close(w->fd) < 0 ? -errno : 0;
    w->fd = -1;
    return result;
}

static int open_file(struct worker *w, int flags)
{
    char name[BENCH_NAME_MAX];
    w->fd = openat(w->directory, name_of(name, w), flags | O_CLOEXEC, 0644);
    return w->fd < 0 ? -errno : 0;
}

static int drop_kernel_caches(void)
{
    int fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int result = write(fd, "3", 1) == 1 ? 0 : -errno;
    close(fd);
    return result;
}

static int open_cold(struct worker *w)
{
    int result = open_file(w, O_RDONLY);
    if (result == 0)
        result = -posix_fadvise(w->fd, 0, 0, POSIX_FADV_DONTNEED);
    if (result == 0 && w->bench->options->drop_caches && w->index == 0)
        result = drop_kernel_caches();
    return result;
}

static int open_read(struct worker *w)
{
    return open_file(w, O_RDONLY);
}

static int open_direct(struct worker *w)
{
    int result = open_file(w, O_RDONLY | O_DIRECT);
    return result == -EINVAL ? -EOPNOTSUPP : result;
}

static int open_new(struct worker *w)
{
    char name[BENCH_NAME_MAX];
    w->written = 0;
    if (unlinkat(w->directory, name_of(name, w), 0) < 0 && errno != ENOENT)
        return -errno;
    return open_file(w, O_WRONLY | O_CREAT | O_EXCL);
}

static int open_write(struct worker *w)
{
    return open_file(w, O_WRONLY);
}

static int open_append(struct worker *w)
{
    char name[BENCH_NAME_MAX];
    snprintf(name, sizeof(name), "append%u", w->index);
    w->fd = openat(w->directory, name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    return w->fd < 0 ? -errno : 0;
}

static uint64_t limit_size(const struct worker *w)
{
    return w->bench->large_size / BENCH_BLOCK;
}

static uint64_t limit_written(const struct worker *w)
{
    return w->written / BENCH_BLOCK;
}

/* Random rows end by their time. */
static uint64_t limit_random(const struct worker *w)
{
    return w->written >= BENCH_BLOCK ? 10000000 : 0;
}

static uint64_t limit_middle(const struct worker *w)
{
    return w->written / BENCH_MIDDLE / 4;
}

static uint64_t limit_overwrites(const struct worker *w)
{
    return w->written >= BENCH_BLOCK ? 10000 : 0;
}

static uint64_t limit_appends(const struct worker *w)
{
    return MIN(w->bench->options->files, 500u);
}

/* Blocks differ, so that nothing that stores equal ones once looks quicker than it is. */
static void mark(struct worker *w, uint64_t i)
{
    uint64_t text[2] = {i, w->index};
    memcpy(w->buf, text, sizeof(text));
}

static int done(struct worker *w, ssize_t n, size_t expected)
{
    if (n != (ssize_t)expected)
        return n < 0 ? -errno : -EIO;
    w->bytes += expected;
    return 0;
}

static int op_write(struct worker *w, uint64_t i)
{
    mark(w, i);
    int result = done(w, pwrite(w->fd, w->buf, BENCH_BLOCK, (off_t)(i * BENCH_BLOCK)), BENCH_BLOCK);
    if (result == 0)
        w->written = (i + 1) * BENCH_BLOCK;
    return result;
}

static int op_read(struct worker *w, uint64_t i)
{
    return done(w, pread(w->fd, w->buf, BENCH_BLOCK, (off_t)(i * BENCH_BLOCK)), BENCH_BLOCK);
}

static off_t random_offset(struct worker *w, size_t len)
{
    return (off_t)(bench_random(w) % (w->written / len) * len);
}

static int op_random_small(struct worker *w, uint64_t i)
{
    (void)i;
    return done(w, pread(w->fd, w->buf, BENCH_SMALL, random_offset(w, BENCH_SMALL)), BENCH_SMALL);
}

static int op_random_middle(struct worker *w, uint64_t i)
{
    (void)i;
    return done(w, pread(w->fd, w->buf, BENCH_MIDDLE, random_offset(w, BENCH_MIDDLE)),
                BENCH_MIDDLE);
}

static int op_overwrite(struct worker *w, uint64_t i)
{
    mark(w, i);
    return done(w, pwrite(w->fd, w->buf, BENCH_SMALL, random_offset(w, BENCH_SMALL)), BENCH_SMALL);
}

static int op_append(struct worker *w, uint64_t i)
{
    mark(w, i);
    int result = done(w, write(w->fd, w->buf, BENCH_SMALL), BENCH_SMALL);
    return result == 0 && fsync(w->fd) < 0 ? -errno : result;
}

static int sync_file(struct worker *w)
{
    return fsync(w->fd) < 0 ? -errno : 0;
}

static int op_unlink(struct worker *w, uint64_t i)
{
    (void)i;
    char name[BENCH_NAME_MAX];
    return unlinkat(w->directory, name_of(name, w), 0) < 0 ? -errno : 0;
}

static uint64_t limit_one(const struct worker *w)
{
    return w->written ? 1 : 0;
}

static const struct row_spec data_rows[] = {
    {"seq_write", "write in 1 MiB, then fsync", true, true, open_new, limit_size, op_write,
     sync_file, close_file},
    {"seq_read_cold", "read in 1 MiB, first time", true, false, open_cold, limit_written, op_read,
     NULL, close_file},
    {"seq_read_warm", "read in 1 MiB, again", true, false, open_read, limit_written, op_read, NULL,
     close_file},
    {"seq_read_direct", "read in 1 MiB, O_DIRECT", true, false, open_direct, limit_written, op_read,
     NULL, close_file},
    {"random_read_4k_direct", "read 4 KiB anywhere, O_DIRECT", false, false, open_direct,
     limit_random, op_random_small, NULL, close_file},
    {"random_read_4k", "read 4 KiB anywhere", false, false, open_read, limit_random,
     op_random_small, NULL, close_file},
    {"random_read_128k_cold", "read 128 KiB anywhere, first time", false, false, open_cold,
     limit_middle, op_random_middle, NULL, close_file},
    {"random_write_4k", "overwrite 4 KiB anywhere, fsync at the end", false, false, open_write,
     limit_overwrites, op_overwrite, sync_file, close_file},
    {"append_fsync", "append 4 KiB and fsync", false, false, open_append, limit_appends, op_append,
     NULL, close_file},
    {"large_unlink", "remove the large file", false, false, NULL, limit_one, op_unlink, NULL, NULL},
};

const struct group_spec bench_data_group = {
    .name = "data", .rows = data_rows, .row_count = ARRAY_LEN(data_rows), .needs_size = true};
