/*
 * Names on disk. Every path is resolved by openat2 below the root without following symbolic
 * links, or step by step with O_NOFOLLOW. Directories come and go with the objects in them, so
 * whoever makes a name must expect that its directory was just removed: he sees ENOENT and begins
 * again.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/hash.h"
#include "file.h"

#define DIRS_LOCK (FILE_LOCKS + 1) /* a byte of `lock`; the one before is that of opening */
#define MAX_TRIES 1000             /* each means that another request removed a directory */

int file_key_parse(const char *key, struct file_key *out)
{
    size_t len = strlen(key);
    if (len > STORE_KEY_MAX)
        return -ENAMETOOLONG;
    out->key = key;
    out->marker = len > 1 && key[len - 1] == '/';
    memcpy(out->path, key, len + 1);
    if (out->marker)
        out->path[len - 1] = 0;
    for (const char *part = out->path;; part++) {
        size_t n = strcspn(part, "/");
        if (!n || (n == 1 && part[0] == '.') || (n == 2 && part[0] == '.' && part[1] == '.'))
            return -EINVAL;
        if (n > NAME_MAX)
            return -ENAMETOOLONG;
        if (part == out->path && n == strlen(FILE_PRIVATE) && !memcmp(part, FILE_PRIVATE, n))
            return -EINVAL;
        out->base = part;
        part += n;
        if (!*part)
            break;
    }
    if (out->base == out->path) {
        strcpy(out->parent, ".");
    } else {
        size_t n = (size_t)(out->base - out->path) - 1;
        memcpy(out->parent, out->path, n);
        out->parent[n] = 0;
    }
    return 0;
}

int file_open(const struct file_store *f, const char *path, int flags)
{
    struct open_how how = {
        .flags = (uint64_t)(flags | O_CLOEXEC | (flags & O_PATH ? 0 : O_NOCTTY)),
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
    };
    for (int tries = 0;; tries++) {
        long fd = syscall(SYS_openat2, f->root, path, &how, sizeof(how));
        if (fd >= 0)
            return (int)fd;
        if (errno != EINTR && (errno != EAGAIN || tries == MAX_TRIES))
            return -errno;
    }
}

/* One level: opens `name` in `dir`, and makes it if it is not there. */
static int open_or_make(int dir, const char *name, unsigned *made)
{
    for (int tries = 0; tries < MAX_TRIES; tries++) {
        int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd >= 0 || errno != ENOENT)
            return fd >= 0 ? fd : -errno;
        if (!mkdirat(dir, name, 0755))
            ++*made;
        else if (errno != EEXIST)
            return -errno; /* ENOENT: `dir` itself is gone */
    }
    return -ENOENT;
}

static int make_dirs_once(const struct file_store *f, const char *path, unsigned *made)
{
    cleanup(close_fd) int dir = openat(f->root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return -errno;
    *made = 0;
    while (*path) {
        char name[NAME_MAX + 1];
        size_t n = strcspn(path, "/");
        memcpy(name, path, n);
        name[n] = 0;
        int next = open_or_make(dir, name, made);
        if (next < 0)
            return next;
        close(dir);
        dir = next;
        path += n + (path[n] == '/');
    }
    return TAKE_FD(dir);
}

int file_make_dirs(const struct file_store *f, const char *path, unsigned *made)
{
    *made = 0;
    int fd = file_open(f, path, O_RDONLY | O_DIRECTORY);
    for (int tries = 0; fd == -ENOENT && tries < MAX_TRIES; tries++)
        fd = make_dirs_once(f, path, made);
    return fd;
}

int file_sync_dirs(const struct file_store *f, int dir, const char *path, unsigned made)
{
    if (fsync(dir) < 0)
        return -errno;
    char above[STORE_KEY_MAX + 1];
    snprintf(above, sizeof(above), "%s", path);
    for (; made; made--) {
        char *slash = strrchr(above, '/');
        if (slash)
            *slash = 0;
        else
            strcpy(above, ".");
        cleanup(close_fd) int fd = file_open(f, above, O_RDONLY | O_DIRECTORY);
        /* Not there any more: it was removed, and who did so syncs that. */
        if (fd < 0 && fd != -ENOENT)
            return fd;
        if (fd >= 0 && fsync(fd) < 0)
            return -errno;
        if (!slash)
            break;
    }
    return 0;
}

int file_remove_empty(struct file_store *f, int parent, const char *name)
{
    file_dirs_lock(f);
    int rc = 0;
    cleanup(close_fd) int dir =
        openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (dir < 0)
        rc = -errno;
    else if (file_mark_ns(dir))
        rc = -ENOTEMPTY;
    else if (unlinkat(parent, name, AT_REMOVEDIR) < 0)
        rc = -errno;
    file_dirs_unlock(f);
    return rc;
}

int file_prune(struct file_store *f, const char *path)
{
    char at[STORE_KEY_MAX + 1];
    snprintf(at, sizeof(at), "%s", path);
    while (strcmp(at, ".")) {
        char *slash = strrchr(at, '/');
        const char *name = slash ? slash + 1 : at;
        if (slash)
            *slash = 0;
        cleanup(close_fd) int parent = file_open(f, slash ? at : ".", O_RDONLY | O_DIRECTORY);
        int rc = parent < 0 ? parent : file_remove_empty(f, parent, name);
        if (rc == -ENOENT)
            rc = 0; /* somebody else removed it; go on above */
        if (rc) {
            if (slash)
                *slash = '/';
            break; /* in use, or not ours to remove */
        }
        if (!slash)
            strcpy(at, ".");
    }
    for (;;) {
        cleanup(close_fd) int dir = file_open(f, at, O_RDONLY | O_DIRECTORY);
        if (dir >= 0)
            return fsync(dir) < 0 ? -errno : 0;
        if (dir != -ENOENT && dir != -ENOTDIR && dir != -ELOOP)
            return dir;
        char *slash = strrchr(at, '/');
        if (slash)
            *slash = 0;
        else
            strcpy(at, ".");
    }
}

/* Locks of an open file description do not exclude threads that share it, hence the mutex; the
 * mutex does not exclude other processes, hence the lock. */
static unsigned stripe(const char *key)
{
    /* Not hash_bytes64: other processes may be of another version. */
    return hash_crc32c(0, key, strlen(key)) % FILE_LOCKS;
}

static void set_lock(const struct file_store *f, unsigned at, short type)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = at, .l_len = 1};
    while (fcntl(f->locks, F_OFD_SETLKW, &lock) < 0 && errno == EINTR)
        ;
}

void file_key_lock(struct file_store *f, const char *key)
{
    unsigned at = stripe(key);
    pthread_mutex_lock(&f->key_locks[at]);
    set_lock(f, at, F_WRLCK);
}

void file_key_unlock(struct file_store *f, const char *key)
{
    unsigned at = stripe(key);
    set_lock(f, at, F_UNLCK);
    pthread_mutex_unlock(&f->key_locks[at]);
}

void file_dirs_lock(struct file_store *f)
{
    pthread_mutex_lock(&f->dirs_mutex);
    set_lock(f, DIRS_LOCK, F_WRLCK);
}

void file_dirs_unlock(struct file_store *f)
{
    set_lock(f, DIRS_LOCK, F_UNLCK);
    pthread_mutex_unlock(&f->dirs_mutex);
}

void file_temp_name(struct file_store *f, char name[FILE_NAME_SIZE])
{
    uint64_t n = atomic_fetch_add_explicit(&f->name_count, 1, memory_order_relaxed);
    snprintf(name, FILE_NAME_SIZE, "t%llx", (unsigned long long)n);
}

int file_temp_open(struct file_store *f, int dir, char name[FILE_NAME_SIZE])
{
    file_temp_name(f, name);
    int fd = openat(dir, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    return fd < 0 ? -errno : fd;
}

void file_remove_tree(int dir, const char *name)
{
    int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d) {
        if (fd >= 0)
            close(fd);
        unlinkat(dir, name, 0);
        return;
    }
    for (struct dirent *e; (e = readdir(d));)
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..")) {
            if (e->d_type == DT_DIR)
                file_remove_tree(dirfd(d), e->d_name);
            else if (unlinkat(dirfd(d), e->d_name, 0) < 0 && errno == EISDIR)
                file_remove_tree(dirfd(d), e->d_name);
        }
    closedir(d);
    unlinkat(dir, name, AT_REMOVEDIR);
}
