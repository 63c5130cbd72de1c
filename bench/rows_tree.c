/* Rows on a tree as a source tree has it: one thread makes it, walks it, copies it, renames it and
 * removes it. An operation is one entry, or one rename of the whole. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "bench_impl.h"

#define FILES_IN_DIRECTORY 24 /* and one directory for each of them: 25 entries */
#define ENTRIES (FILES_IN_DIRECTORY + 1)
#define RENAMES 100

/* Entry i is directory i / 25, or one of its files. Sizes repeat: 100 B to 32 KiB, 8 KiB mean. */
static void path_of(char room[BENCH_NAME_MAX], const char *tree, uint64_t i)
{
    if (i % ENTRIES == 0)
        snprintf(room, BENCH_NAME_MAX, "%s/d%05llu", tree, (unsigned long long)(i / ENTRIES));
    else
        snprintf(room, BENCH_NAME_MAX, "%s/d%05llu/f%02llu", tree,
                 (unsigned long long)(i / ENTRIES), (unsigned long long)(i % ENTRIES));
}

static size_t size_of(uint64_t i)
{
    static const size_t sizes[] = {100, 1500, 3000, 6000, 8000, 12000, 32768, 700};
    return sizes[i % ARRAY_LEN(sizes)];
}

static uint64_t limit_entries(const struct worker *w)
{
    return (w->bench->options->files + ENTRIES - 1) / ENTRIES * ENTRIES;
}

static uint64_t limit_made(const struct worker *w)
{
    return w->made;
}

static uint64_t limit_renames(const struct worker *w)
{
    return w->made ? RENAMES : 0;
}

static int make_root(struct worker *w, const char *name)
{
    return mkdirat(w->directory, name, 0755) < 0 ? -errno : 0;
}

static int prepare_make(struct worker *w)
{
    w->made = 0;
    return make_root(w, "tree");
}

static int prepare_copy(struct worker *w)
{
    return make_root(w, "copy");
}

static int write_file(struct worker *w, const char *path, size_t len)
{
    int fd = openat(w->directory, path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
    if (fd < 0)
        return -errno;
    ssize_t n = write(fd, w->buf, len);
    int result = n < 0 ? -errno : (size_t)n != len ? -EIO : 0;
    if (close(fd) < 0 && result == 0)
        result = -errno;
    w->bytes += len;
    return result;
}

static int op_make(struct worker *w, uint64_t i)
{
    char path[BENCH_NAME_MAX];
    path_of(path, "tree", i);
    int result = i % ENTRIES == 0 ? make_root(w, path) : write_file(w, path, size_of(i));
    if (result == 0)
        w->made = (unsigned)i + 1;
    return result;
}

static int op_walk(struct worker *w, uint64_t i)
{
    char path[BENCH_NAME_MAX];
    struct stat st;
    path_of(path, "tree", i);
    if (fstatat(w->directory, path, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    if (i % ENTRIES != 0)
        return (size_t)st.st_size == size_of(i) ? 0 : -EIO;
    int fd = openat(w->directory, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir)
        return -errno;
    while (readdir(dir))
        ;
    closedir(dir);
    return 0;
}

static int op_copy(struct worker *w, uint64_t i)
{
    char from[BENCH_NAME_MAX], to[BENCH_NAME_MAX];
    path_of(from, "tree", i);
    path_of(to, "copy", i);
    if (i % ENTRIES == 0)
        return make_root(w, to);
    int fd = openat(w->directory, from, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t n = read(fd, w->buf, BENCH_BLOCK);
    int result = n < 0 ? -errno : (size_t)n != size_of(i) ? -EIO : 0;
    close(fd);
    return result ? result : write_file(w, to, (size_t)n);
}

static int op_rename(struct worker *w, uint64_t i)
{
    static const char *const names[] = {"tree", "tree renamed"};
    return renameat(w->directory, names[i % 2], w->directory, names[(i + 1) % 2]) < 0 ? -errno : 0;
}

/* The row may have ended by its time while the tree had its other name. */
static int after_rename(struct worker *w)
{
    if (renameat(w->directory, "tree renamed", w->directory, "tree") < 0 && errno != ENOENT)
        return -errno;
    return 0;
}

/* From the last entry to the first, so that each directory is empty when its turn comes. */
static int op_remove(struct worker *w, uint64_t i)
{
    char path[BENCH_NAME_MAX];
    uint64_t entry = w->made - 1 - i;
    path_of(path, "tree", entry);
    return unlinkat(w->directory, path, entry % ENTRIES == 0 ? AT_REMOVEDIR : 0) < 0 ? -errno : 0;
}

static const struct row_spec tree_rows[] = {
    {"tree_make", "make a tree of small files", .makes = true, .prepare = prepare_make,
     .limit = limit_entries, .op = op_make},
    {"tree_walk", "list and stat the tree", .limit = limit_made, .op = op_walk},
    {"tree_copy", "copy the tree", .prepare = prepare_copy, .limit = limit_made, .op = op_copy},
    {"tree_rename", "rename the tree's directory", .limit = limit_renames, .op = op_rename,
     .after = after_rename},
    {"tree_remove", "remove the tree", .limit = limit_made, .op = op_remove},
};

const struct group_spec bench_tree_group = {
    .name = "tree", .rows = tree_rows, .row_count = ARRAY_LEN(tree_rows), .one_thread = true};
