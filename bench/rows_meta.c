/* Rows on names and on small files: each thread has `made` files in its directory. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "bench_impl.h"

static const char *name_of(char room[BENCH_NAME_MAX], const struct worker *w, char kind, uint64_t i)
{
    snprintf(room, BENCH_NAME_MAX, "%c%u-%07llu", kind, w->index, (unsigned long long)i);
    return room;
}

static uint64_t limit_made(const struct worker *w)
{
    return w->made;
}

static uint64_t limit_listings(const struct worker *w)
{
    return w->made ? 10 : 0;
}

static int make(struct worker *w, char kind, uint64_t i, bool fill)
{
    char name[BENCH_NAME_MAX];
    int fd = openat(w->directory, name_of(name, w, kind, i),
                    O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
    if (fd < 0)
        return -errno;
    w->made = (unsigned)i + 1;
    int result = 0;
    if (fill) {
        ssize_t n = write(fd, w->buf, BENCH_SMALL);
        if (n != (ssize_t)BENCH_SMALL)
            result = n < 0 ? -errno : -EIO;
        w->bytes += BENCH_SMALL;
    }
    if (close(fd) < 0 && result == 0)
        result = -errno;
    return result;
}

static int none_made(struct worker *w)
{
    w->made = 0;
    w->renamed = 0;
    w->at = 0;
    return 0;
}

static int op_create(struct worker *w, uint64_t i)
{
    return make(w, 'f', i, false);
}

static int op_small(struct worker *w, uint64_t i)
{
    return make(w, 's', i, true);
}

static int op_stat(struct worker *w, uint64_t i)
{
    char name[BENCH_NAME_MAX];
    struct stat st;
    return fstatat(w->directory, name_of(name, w, 'f', i), &st, 0) < 0 ? -errno : 0;
}

static int op_stat_sync(struct worker *w, uint64_t i)
{
    char name[BENCH_NAME_MAX];
    struct statx st;
    return statx(w->directory, name_of(name, w, 'f', i), AT_STATX_FORCE_SYNC, STATX_BASIC_STATS,
                 &st) < 0
               ? -errno
               : 0;
}

static int op_absent(struct worker *w, uint64_t i)
{
    char name[BENCH_NAME_MAX];
    struct stat st;
    if (fstatat(w->directory, name_of(name, w, 'a', i), &st, 0) == 0)
        return -EEXIST;
    return errno == ENOENT ? 0 : -errno;
}

static int open_read(struct worker *w, char kind, uint64_t i, size_t expected)
{
    char name[BENCH_NAME_MAX];
    int fd = openat(w->directory, name_of(name, w, kind, i), O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t n = read(fd, w->buf, BENCH_SMALL);
    int result = n < 0 ? -errno : (size_t)n != expected ? -EIO : 0;
    close(fd);
    w->bytes += expected;
    return result;
}

static int op_open_read(struct worker *w, uint64_t i)
{
    return open_read(w, 'f', i, 0);
}

static int op_small_read(struct worker *w, uint64_t i)
{
    /* Not in the order in which they were made: 7,919 is a prime, so all are read once. */
    return open_read(w, 's', w->made % 7919 ? i * 7919 % w->made : i, BENCH_SMALL);
}

static int op_list(struct worker *w, uint64_t i)
{
    (void)i;
    int fd = openat(w->directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir) {
        int result = -errno;
        if (fd >= 0)
            close(fd);
        return result;
    }
    uint64_t entries = 0;
    errno = 0;
    while (readdir(dir))
        entries++;
    int result = errno ? -errno : entries < w->made ? -EIO : 0;
    closedir(dir);
    return result;
}

static int op_rename(struct worker *w, uint64_t i)
{
    char from[BENCH_NAME_MAX], to[BENCH_NAME_MAX];
    if (renameat(w->directory, name_of(from, w, 'f', i), w->directory, name_of(to, w, 'g', i)) < 0)
        return -errno;
    w->renamed = (unsigned)i + 1;
    return 0;
}

/* Of each pair the first one replaces the second one. */
static int op_replace(struct worker *w, uint64_t i)
{
    w->at = (unsigned)i + 1;
    char from[BENCH_NAME_MAX], to[BENCH_NAME_MAX];
    return renameat(w->directory, name_of(from, w, 's', 2 * i), w->directory,
                    name_of(to, w, 's', 2 * i + 1)) < 0
               ? -errno
               : 0;
}

static uint64_t limit_pairs(const struct worker *w)
{
    return w->made / 2;
}

/* The row before may have ended by its time, or not have run. */
static int op_unlink(struct worker *w, uint64_t i)
{
    char name[BENCH_NAME_MAX];
    return unlinkat(w->directory, name_of(name, w, i < w->renamed ? 'g' : 'f', i), 0) < 0 ? -errno
                                                                                          : 0;
}

static int op_small_unlink(struct worker *w, uint64_t i)
{
    char name[BENCH_NAME_MAX];
    uint64_t file = i < w->at ? 2 * i + 1 : i + w->at;
    return unlinkat(w->directory, name_of(name, w, 's', file), 0) < 0 ? -errno : 0;
}

/* Without those that replaced another one: the first of each of `at` pairs. */
static uint64_t limit_left(const struct worker *w)
{
    return w->made - w->at;
}

static const struct row_spec meta_rows[] = {
    {"create", "create and close an empty file", .makes = true, .prepare = none_made,
     .op = op_create},
    {"stat", "stat, from the kernel's cache where it may be", .limit = limit_made, .op = op_stat},
    {"stat_sync", "stat that asks the filesystem", .limit = limit_made, .op = op_stat_sync},
    {"absent", "stat of a name that does not exist", .op = op_absent},
    {"open_read", "open, read, close of an empty file", .limit = limit_made, .op = op_open_read},
    {"list", "list the whole directory", .limit = limit_listings, .op = op_list},
    {"rename", "rename a file", .limit = limit_made, .op = op_rename},
    {"unlink", "remove a file", .limit = limit_made, .op = op_unlink},
};

const struct group_spec bench_meta_group = {.name = "metadata",
                                            .rows = meta_rows,
                                            .row_count = ARRAY_LEN(meta_rows),
                                            .in_directories = true};

static const struct row_spec small_rows[] = {
    {"small", "create, write 4 KiB, close", .makes = true, .prepare = none_made, .op = op_small},
    {"small_read", "open, read 4 KiB, close, shuffled", .limit = limit_made, .op = op_small_read},
    {"small_replace", "rename over another small file", .limit = limit_pairs, .op = op_replace},
    {"small_unlink", "remove a small file", .limit = limit_left, .op = op_small_unlink},
};

const struct group_spec bench_small_group = {
    .name = "small", .rows = small_rows, .row_count = ARRAY_LEN(small_rows)};
