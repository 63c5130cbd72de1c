#include "rebuild_state.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

#define FORMAT 1
#define REBUILD "rebuild"
#define SIZE_MAX_BYTES 65536

/* The counts by their names in the file. */
static const struct {
    const char *name;
    size_t offset;
} numbers[] = {
    {"keys", offsetof(struct rebuild_counts, keys)},
    {"files", offsetof(struct rebuild_counts, files)},
    {"directories", offsetof(struct rebuild_counts, directories)},
    {"bytes", offsetof(struct rebuild_counts, bytes)},
    {"with_attributes", offsetof(struct rebuild_counts, with_attributes)},
    {"entries", offsetof(struct rebuild_counts, entries)},
    {"hidden", offsetof(struct rebuild_counts, hidden)},
};

static uint64_t *number_at(struct rebuild_counts *counts, size_t i)
{
    return (uint64_t *)((char *)counts + numbers[i].offset);
}

int rebuild_state_parse(const void *data, size_t len, struct rebuild_state *out)
{
    json_t *root = len ? json_loadb(data, len, JSON_REJECT_DUPLICATES, NULL) : NULL;
    const char *after = json_string_value(json_object_get(root, "after"));
    json_t *counts = json_object_get(root, "counts");
    memset(out, 0, sizeof(*out));
    bool good = json_integer_value(json_object_get(root, "format")) == FORMAT && after &&
                strlen(after) <= META_KEY_MAX && json_is_object(counts);
    for (size_t i = 0; good && i < ARRAY_LEN(numbers); i++) {
        json_int_t value = json_integer_value(json_object_get(counts, numbers[i].name));
        good = value >= 0;
        *number_at(&out->counts, i) = (uint64_t)value;
    }
    if (good)
        memcpy(out->after, after, strlen(after) + 1);
    json_decref(root);
    return good ? 0 : -EBADMSG;
}

static int path_of(const char *directory, const char *name, char out[PATH_MAX])
{
    return snprintf(out, PATH_MAX, "%s/%s", directory, name) < PATH_MAX ? 0 : -ENAMETOOLONG;
}

static int sync_directory(const char *directory)
{
    cleanup(close_fd) int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

static int write_whole(const char *path, const char *text)
{
    cleanup(close_fd) int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    size_t len = strlen(text), done = 0;
    while (fd >= 0 && done < len) {
        ssize_t n = write(fd, text + done, len - done);
        if (n < 0 && errno != EINTR)
            return -errno;
        done += n > 0 ? (size_t)n : 0;
    }
    return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

int rebuild_state_save(const char *directory, const char *name, const struct rebuild_state *state,
                       struct error *error)
{
    char path[PATH_MAX], fresh[PATH_MAX];
    struct rebuild_state copy = *state;
    json_t *counts = json_object();
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
        json_object_set_new(counts, numbers[i].name,
                            json_integer((json_int_t)*number_at(&copy.counts, i)));
    json_t *root =
        json_pack("{s:i, s:s, s:o}", "format", FORMAT, "after", state->after, "counts", counts);
    cleanup(free_ptr) char *text = root ? json_dumps(root, JSON_INDENT(1)) : NULL;
    json_decref(root);
    /* A key that no JSON can carry: the place saved before it serves as well. */
    if (!text)
        return 0;
    char new_name[64];
    snprintf(new_name, sizeof(new_name), "%s.new", name);
    int rc = path_of(directory, name, path);
    if (!rc)
        rc = path_of(directory, new_name, fresh);
    if (!rc)
        rc = write_whole(fresh, text);
    if (!rc && rename(fresh, path) < 0)
        rc = -errno;
    if (!rc)
        rc = sync_directory(directory);
    return rc ? error_set(error, rc, "cannot write %s/%s: %s", directory, name, strerror(-rc)) : 0;
}

/* -ENOENT: there is none. */
static int load(const char *path, struct rebuild_state *out)
{
    cleanup(free_ptr) char *text = malloc(SIZE_MAX_BYTES);
    cleanup(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t len = text ? read(fd, text, SIZE_MAX_BYTES) : -1;
    if (len < 0)
        return text ? -errno : -ENOMEM;
    return rebuild_state_parse(text, (size_t)len, out);
}

int rebuild_state_load(const char *directory, const char *name, struct rebuild_state *out)
{
    char path[PATH_MAX];
    int rc = path_of(directory, name, path);
    return rc ? rc : load(path, out);
}

int rebuild_state_begin(const char *directory, struct rebuild_state *out, struct error *error)
{
    char path[PATH_MAX], database[PATH_MAX];
    struct stat st;
    int rc = path_of(directory, REBUILD, path);
    if (!rc)
        rc = path_of(directory, "db", database);
    if (rc)
        return error_set(error, rc, "the path of the database is too long");
    memset(out, 0, sizeof(*out));
    rc = load(path, out);
    if (!rc)
        return 0;
    if (rc == -EBADMSG)
        return error_set(
            error, rc, "%s cannot be read; remove the directory and begin the rebuild anew", path);
    if (rc != -ENOENT)
        return error_set(error, rc, "%s: %s", path, strerror(-rc));
    if (!stat(database, &st))
        return error_set(error, -EEXIST,
                         "there is metadata in %s; `sluice fsck` checks it. To rebuild it from the "
                         "bucket, move it away first: what is not settled is known to it alone",
                         directory);
    return rebuild_state_save(directory, REBUILD, out, error);
}

void rebuild_state_drop(const char *directory)
{
    char database[PATH_MAX];
    if (!path_of(directory, "db", database) && access(database, F_OK) < 0)
        rebuild_state_end(directory, REBUILD, NULL);
}

int rebuild_state_end(const char *directory, const char *name, struct error *error)
{
    char path[PATH_MAX];
    int rc = path_of(directory, name, path);
    if (!rc && unlink(path) < 0 && errno != ENOENT)
        rc = -errno;
    if (!rc)
        rc = sync_directory(directory);
    return rc ? error_set(error, rc, "cannot remove %s: %s", path, strerror(-rc)) : 0;
}
