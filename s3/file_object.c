/*
 * Objects as files. A write goes to a temporary file, is synced, and then gets its name at once
 * (file_publish), so a reader or a crash sees the old object or the new one.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/crash.h"
#include "file.h"

#define META_PREFIX "user.sluice.m."
#define META_PREFIX_LEN (sizeof(META_PREFIX) - 1)
#define MARK_NAME "user.sluice.mark"
#define VALUE_MAX 2048
#define MAX_TRIES 1000
#define READ_TRIES 3

/* What an object is */

void file_info(const struct stat *st, struct store_info *info)
{
    *info = (struct store_info){
        .size = (uint64_t)st->st_size,
        .mtime_ns = (uint64_t)st->st_mtim.tv_sec * NS_PER_S + (uint64_t)st->st_mtim.tv_nsec,
        .storage_class = "STANDARD",
    };
    snprintf(info->etag, sizeof(info->etag), "%llx-%llx-%llx", (unsigned long long)info->size,
             (unsigned long long)info->mtime_ns, (unsigned long long)st->st_ino);
}

bool file_is_etag(const struct stat *st, const char *etag)
{
    struct store_info info;
    file_info(st, &info);
    return !strcmp(info.etag, etag);
}

uint64_t file_mark_ns(int dir)
{
    char text[32];
    ssize_t len = fgetxattr(dir, MARK_NAME, text, sizeof(text) - 1);
    if (len <= 0)
        return 0;
    text[len] = 0;
    uint64_t ns = strtoull(text, NULL, 10);
    return ns ? ns : 1;
}

/* As if the marker were an empty file that was written when the directory was marked. */
static void marker_stat(struct stat *st, uint64_t mark_ns)
{
    st->st_size = 0;
    st->st_mtim.tv_sec = (time_t)(mark_ns / NS_PER_S);
    st->st_mtim.tv_nsec = (long)(mark_ns % NS_PER_S);
}

int file_set_meta(struct store_op *op, int fd, const struct store_meta *meta, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        char name[XATTR_NAME_MAX + 1];
        if (strlen(meta[i].name) + META_PREFIX_LEN > XATTR_NAME_MAX)
            return file_fail(op, -EINVAL, "MetadataTooLarge", "a metadata name is too long");
        snprintf(name, sizeof(name), META_PREFIX "%s", meta[i].name);
        if (fsetxattr(fd, name, meta[i].value, strlen(meta[i].value), 0) < 0)
            return file_error(op, errno, "setting metadata");
    }
    return 0;
}

/* Calls `each` for every metadata attribute with its full name. */
static int
for_each_meta(struct store_op *op, int fd,
              int (*each)(struct store_op *op, int to, const char *name, const char *value), int to)
{
    ssize_t len = flistxattr(fd, NULL, 0);
    if (len <= 0)
        return !len || errno == ENOTSUP ? 0 : file_error(op, errno, "listing metadata");
    /* A little more, should there be new ones since. */
    size_t cap = (size_t)len + 256;
    cleanup(free_ptr) char *names = malloc(cap);
    if (!names)
        return -ENOMEM;
    len = flistxattr(fd, names, cap);
    if (len < 0)
        return file_error(op, errno, "listing metadata");
    for (const char *name = names; name < names + len; name += strlen(name) + 1) {
        char value[VALUE_MAX + 1];
        if (strncmp(name, META_PREFIX, META_PREFIX_LEN))
            continue;
        ssize_t n = fgetxattr(fd, name, value, VALUE_MAX);
        if (n < 0 && (errno == ENODATA || errno == ERANGE))
            continue; /* removed since; or set by another program, too long for S3 */
        if (n < 0)
            return file_error(op, errno, "reading metadata");
        value[n] = 0;
        int rc = each(op, to, name, value);
        if (rc)
            return rc;
    }
    return 0;
}

static int add_meta(struct store_op *op, int to, const char *name, const char *value)
{
    return store_op_add_meta(op, name + META_PREFIX_LEN, value);
}

static int set_meta(struct store_op *op, int to, const char *name, const char *value)
{
    return fsetxattr(to, name, value, strlen(value), 0) < 0
               ? file_error(op, errno, "setting metadata")
               : 0;
}

static int drop_meta(struct store_op *op, int to, const char *name, const char *value)
{
    return fremovexattr(to, name) < 0 && errno != ENODATA
               ? file_error(op, errno, "removing metadata")
               : 0;
}

int file_copy_meta(struct store_op *op, int from, int to)
{
    return for_each_meta(op, from, set_meta, to);
}

/* Opens what a key names. -ENOENT for everything that is no object. */
static int open_object(struct file_store *f, const char *key, struct stat *st)
{
    struct file_key k;
    /* What cannot be a path here does not exist. */
    if (file_key_parse(key, &k))
        return -ENOENT;
    /* O_NONBLOCK: a fifo would make us wait. */
    cleanup(close_fd) int fd = file_open(f, k.path, O_RDONLY | O_NONBLOCK);
    if (fd < 0)
        return fd == -ENOTDIR || fd == -ELOOP || fd == -ENXIO || fd == -ENODEV ? -ENOENT : fd;
    if (fstat(fd, st) < 0)
        return -errno;
    if (k.marker) {
        uint64_t mark_ns = S_ISDIR(st->st_mode) ? file_mark_ns(fd) : 0;
        if (!mark_ns)
            return -ENOENT;
        marker_stat(st, mark_ns);
    } else if (!S_ISREG(st->st_mode)) {
        return -ENOENT;
    }
    return TAKE_FD(fd);
}

/* Reading */

int file_do_head(struct file_store *f, struct store_op *op)
{
    struct stat st;
    cleanup(close_fd) int fd = open_object(f, op->key, &st);
    if (fd == -ENOENT)
        return file_no_key(op);
    if (fd < 0)
        return file_error(op, -fd, "opening");
    file_info(&st, &op->info);
    return for_each_meta(op, fd, add_meta, -1);
}

static int read_range(struct store_op *op, int fd)
{
    uint8_t *buf = op->buf;
    op->got = 0;
    while (op->got < op->length) {
        size_t want = MIN(op->length - op->got, (uint64_t)FILE_CHUNK);
        ssize_t n = pread(fd, buf + op->got, want, (off_t)(op->offset + op->got));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return file_error(op, errno, "reading");
        if (!n)
            break;
        op->got += (size_t)n;
        if (file_cancelled(op))
            return -ECANCELED;
    }
    return 0;
}

int file_do_get(struct file_store *f, struct store_op *op)
{
    for (int tries = 0; tries < READ_TRIES; tries++) {
        struct stat st, after;
        cleanup(close_fd) int fd = open_object(f, op->key, &st);
        if (fd == -ENOENT)
            return file_no_key(op);
        if (fd < 0)
            return file_error(op, -fd, "opening");
        if (op->if_match && !file_is_etag(&st, op->if_match))
            return file_failed_condition(op);
        if (op->length && op->offset >= (uint64_t)st.st_size)
            return file_fail(op, -ERANGE, "InvalidRange", "the range begins past the end");
        int rc = op->length ? read_range(op, fd) : 0;
        if (rc)
            return rc;
        if (S_ISREG(st.st_mode)) {
            /* Another program may write into the file while we read. */
            if (fstat(fd, &after) < 0)
                return file_error(op, errno, "stat");
            if (after.st_size != st.st_size || after.st_mtim.tv_sec != st.st_mtim.tv_sec ||
                after.st_mtim.tv_nsec != st.st_mtim.tv_nsec)
                continue;
            uint64_t there = (uint64_t)st.st_size - op->offset;
            if (op->length && op->got != MIN(op->length, there))
                return file_fail(op, -EIO, "", "the file ended early");
        }
        file_info(&st, &op->info);
        return for_each_meta(op, fd, add_meta, -1);
    }
    return file_fail(op, -EIO, "", "another program keeps writing into the file");
}

/* Writing */

static int write_all(struct store_op *op, int fd, struct iovec *iov, int count, uint64_t offset)
{
    while (count) {
        ssize_t n = pwritev(fd, iov, MIN(count, IOV_MAX), (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return file_error(op, errno, "writing");
        offset += (uint64_t)n;
        while (count && (size_t)n >= iov->iov_len) {
            n -= (ssize_t)iov->iov_len;
            iov++;
            count--;
        }
        if (count) {
            iov->iov_base = (char *)iov->iov_base + n;
            iov->iov_len -= (size_t)n;
        }
        if (file_cancelled(op))
            return -ECANCELED;
    }
    return 0;
}

int file_write_body(struct store_op *op, int fd, uint64_t offset, uint64_t *len)
{
    *len = 0;
    for (unsigned i = 0; i < op->iov_count; i++)
        *len += op->iov[i].iov_len;
    if (!*len)
        return 0;
    /* write_all advances its vector, and the caller's must stay as it is. */
    cleanup(free_ptr) struct iovec *iov = malloc(op->iov_count * sizeof(*iov));
    if (!iov)
        return -ENOMEM;
    memcpy(iov, op->iov, op->iov_count * sizeof(*iov));
    return write_all(op, fd, iov, (int)op->iov_count, offset);
}

/* For filesystems that cannot copy in the kernel. */
static int copy_by_hand(struct store_op *op, int from, uint64_t from_offset, int to,
                        uint64_t to_offset, uint64_t length)
{
    size_t cap = 1 << 20;
    cleanup(free_ptr) char *buf = malloc(cap);
    if (!buf)
        return -ENOMEM;
    while (length) {
        ssize_t n = pread(from, buf, MIN(length, (uint64_t)cap), (off_t)from_offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n ? file_error(op, errno, "reading the source")
                     : file_fail(op, -EIO, "", "the source ended early");
        struct iovec iov = {.iov_base = buf, .iov_len = (size_t)n};
        int rc = write_all(op, to, &iov, 1, to_offset);
        if (rc)
            return rc;
        from_offset += (uint64_t)n;
        to_offset += (uint64_t)n;
        length -= (uint64_t)n;
    }
    return 0;
}

int file_copy_range(struct store_op *op, int from, uint64_t from_offset, int to, uint64_t to_offset,
                    uint64_t length)
{
    while (length) {
        off_t in = (off_t)from_offset, out = (off_t)to_offset;
        size_t want = MIN(length, (uint64_t)16 * FILE_CHUNK);
        ssize_t n = copy_file_range(from, &in, to, &out, want, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EXDEV || errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL))
            return copy_by_hand(op, from, from_offset, to, to_offset, length);
        if (n < 0)
            return file_error(op, errno, "copying");
        if (!n)
            return file_fail(op, -EIO, "", "the source ended early");
        from_offset += (uint64_t)n;
        to_offset += (uint64_t)n;
        length -= (uint64_t)n;
        if (file_cancelled(op))
            return -ECANCELED;
    }
    return 0;
}

/* The conditions of a write on what has the name now; under the key's lock. 1: begin again. */
static int check_target(struct file_store *f, struct store_op *op, const struct file_key *key,
                        int parent)
{
    struct stat st;
    if (fstatat(parent, key->base, &st, AT_SYMLINK_NOFOLLOW) < 0) {
        if (errno != ENOENT)
            return file_error(op, errno, "looking at the name");
        return op->if_match ? file_no_key(op) : 0;
    }
    if (S_ISDIR(st.st_mode)) {
        /* Left by another program, or about to be removed: then it is not in the way. */
        int rc = file_remove_empty(f, parent, key->base);
        if (!rc || rc == -ENOENT)
            return 1;
        return file_fail(op, -EISDIR, "ExistingObjectIsDirectory",
                         "there are keys below it: a directory cannot be a file, too");
    }
    if (op->if_none_match)
        return file_failed_condition(op);
    if (!S_ISREG(st.st_mode))
        return file_fail(op, -EACCES, "AccessDenied",
                         "a symbolic link or special file has this name; it is left alone");
    if (op->if_match && !file_is_etag(&st, op->if_match))
        return file_failed_condition(op);
    return 0;
}

/* Gives the file its name, once. 1: begin again. */
static int rename_once(struct file_store *f, struct store_op *op, const struct file_key *key,
                       int parent, int dir, const char *name)
{
    int rc = check_target(f, op, key, parent);
    if (rc)
        return rc;
    unsigned flags = op->if_none_match ? RENAME_NOREPLACE : 0;
    rc = renameat2(dir, name, parent, key->base, flags);
    if (rc < 0 && flags && errno == EINVAL) {
        /* The filesystem has no RENAME_NOREPLACE; a link never replaces either. */
        rc = linkat(dir, name, parent, key->base, 0);
        if (!rc)
            unlinkat(dir, name, 0);
    }
    if (!rc)
        return 0;
    if (errno == EEXIST || errno == EISDIR || errno == ENOTDIR)
        return 1; /* somebody was faster: look again at what it is */
    if (errno != ENOENT)
        return file_error(op, errno, "giving the name");
    struct stat st;
    return fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0 ? -ESTALE : 1;
}

int file_publish(struct file_store *f, struct store_op *op, const struct file_key *key, int fd,
                 int dir, const char *name)
{
    uint64_t now = file_unique_ns(f);
    struct timespec times[2] = {
        {.tv_nsec = UTIME_OMIT},
        {.tv_sec = (time_t)(now / NS_PER_S), .tv_nsec = (long)(now % NS_PER_S)},
    };
    struct stat st;
    if (futimens(fd, times) < 0 || fsync(fd) < 0 || fstat(fd, &st) < 0)
        return file_error(op, errno, "syncing");
    crash_point("file.synced");
    for (int tries = 0; tries < MAX_TRIES; tries++) {
        unsigned made;
        cleanup(close_fd) int parent = file_make_dirs(f, key->parent, &made);
        if (parent == -ENOTDIR)
            return file_fail(op, -ENOTDIR, "ObjectParentIsFile", "a part of its path is a file");
        if (parent < 0)
            return file_error(op, -parent, "making its directory");
        file_key_lock(f, key->key);
        int rc = rename_once(f, op, key, parent, dir, name);
        file_key_unlock(f, key->key);
        if (rc > 0)
            continue;
        if (rc < 0) {
            if (made)
                file_prune(f, key->parent);
            return rc;
        }
        crash_point("file.named");
        rc = file_sync_dirs(f, parent, key->parent, made);
        if (rc)
            return file_error(op, -rc, "syncing its directory");
        file_info(&st, &op->info);
        return 0;
    }
    return file_fail(op, -EIO, "", "its directory is removed again and again");
}

/* Under the key's lock and that of directories; `dir` is the directory. */
static int mark_locked(struct file_store *f, struct store_op *op, const struct file_key *key,
                       int dir)
{
    struct stat now, st;
    cleanup(close_fd) int again = file_open(f, key->path, O_PATH | O_DIRECTORY);
    if (again < 0 || fstat(again, &now) < 0 || fstat(dir, &st) < 0 || now.st_ino != st.st_ino)
        return 1; /* removed since */
    uint64_t mark_ns = file_mark_ns(dir);
    if (mark_ns && op->if_none_match)
        return file_failed_condition(op);
    if (!mark_ns && op->if_match)
        return file_no_key(op);
    marker_stat(&st, mark_ns);
    if (op->if_match && !file_is_etag(&st, op->if_match))
        return file_failed_condition(op);
    int rc = for_each_meta(op, dir, drop_meta, dir);
    if (!rc)
        rc = file_set_meta(op, dir, op->meta, op->meta_count);
    if (rc)
        return rc;
    char text[32];
    mark_ns = file_unique_ns(f);
    int len = snprintf(text, sizeof(text), "%llu", (unsigned long long)mark_ns);
    if (fsetxattr(dir, MARK_NAME, text, (size_t)len, 0) < 0)
        return file_error(op, errno, "marking the directory");
    marker_stat(&st, mark_ns);
    file_info(&st, &op->info);
    return 0;
}

static int put_marker(struct file_store *f, struct store_op *op, const struct file_key *key)
{
    for (int tries = 0; tries < MAX_TRIES; tries++) {
        unsigned made;
        cleanup(close_fd) int dir = file_make_dirs(f, key->path, &made);
        if (dir == -ENOTDIR)
            return file_fail(op, -ENOTDIR, "ObjectParentIsFile", "a part of its path is a file");
        if (dir < 0)
            return file_error(op, -dir, "making the directory");
        file_key_lock(f, key->key);
        file_dirs_lock(f);
        int rc = mark_locked(f, op, key, dir);
        file_dirs_unlock(f);
        file_key_unlock(f, key->key);
        if (rc > 0)
            continue;
        if (rc < 0) {
            file_prune(f, key->path);
            return rc;
        }
        rc = file_sync_dirs(f, dir, key->path, made);
        return rc ? file_error(op, -rc, "syncing the directory") : 0;
    }
    return file_fail(op, -EIO, "", "the directory is removed again and again");
}

static int bad_key(struct store_op *op, int code)
{
    return code == -ENAMETOOLONG
               ? file_fail(op, code, "KeyTooLongError", "a part of the key has over 255 bytes")
               : file_fail(op, code, "InvalidKey",
                           "the key has an empty part, '.' or '..', or is in " FILE_PRIVATE);
}

int file_do_put(struct file_store *f, struct store_op *op)
{
    struct file_key key;
    int rc = file_key_parse(op->key, &key);
    if (rc)
        return bad_key(op, rc);
    if (key.marker) {
        for (unsigned i = 0; i < op->iov_count; i++)
            if (op->iov[i].iov_len)
                return file_fail(op, -EINVAL, "DirectoryObjectContainsData",
                                 "a key that ends in '/' has no data here");
        return put_marker(f, op, &key);
    }
    char name[FILE_NAME_SIZE];
    cleanup(close_fd) int fd = file_temp_open(f, f->work, name);
    if (fd < 0)
        return file_error(op, -fd, "making a temporary file");
    uint64_t len;
    rc = file_write_body(op, fd, 0, &len);
    if (!rc)
        rc = file_set_meta(op, fd, op->meta, op->meta_count);
    if (!rc)
        rc = file_publish(f, op, &key, fd, f->work, name);
    if (rc)
        unlinkat(f->work, name, 0);
    return rc == -ESTALE ? file_fail(op, -EIO, "", "our temporary file was removed") : rc;
}

int file_open_source(struct file_store *f, struct store_op *op, int *fd, struct stat *st)
{
    *fd = open_object(f, op->source_key, st);
    if (*fd == -ENOENT)
        return file_no_key(op);
    if (*fd < 0)
        return file_error(op, -*fd, "opening the source");
    if (op->source_if_match && !file_is_etag(st, op->source_if_match)) {
        close(TAKE_FD(*fd));
        return file_failed_condition(op);
    }
    if (S_ISDIR(st->st_mode))
        close(TAKE_FD(*fd));
    return 0;
}

int file_do_copy(struct file_store *f, struct store_op *op)
{
    struct file_key key;
    int rc = file_key_parse(op->key, &key);
    if (rc)
        return bad_key(op, rc);
    struct stat st;
    cleanup(close_fd) int from = -1;
    rc = file_open_source(f, op, &from, &st);
    if (rc)
        return rc;
    uint64_t size = (uint64_t)st.st_size;
    if (size > f->store.caps.copy_max)
        return file_fail(op, -EFBIG, "InvalidRequest", "larger than 5 GiB: copy it in parts");
    if (key.marker)
        return size ? file_fail(op, -EINVAL, "DirectoryObjectContainsData",
                                "a key that ends in '/' has no data here")
                    : put_marker(f, op, &key);
    char name[FILE_NAME_SIZE];
    cleanup(close_fd) int fd = file_temp_open(f, f->work, name);
    if (fd < 0)
        return file_error(op, -fd, "making a temporary file");
    rc = file_copy_range(op, from, 0, fd, 0, size);
    struct stat after = st;
    if (!rc && from >= 0 && fstat(from, &after) < 0)
        rc = file_error(op, errno, "looking at the source");
    if (!rc && (after.st_size != st.st_size || after.st_mtim.tv_sec != st.st_mtim.tv_sec ||
                after.st_mtim.tv_nsec != st.st_mtim.tv_nsec))
        rc = file_fail(op, -EIO, "", "another program wrote into the source");
    if (!rc)
        rc = file_set_meta(op, fd, op->meta, op->meta_count);
    if (!rc)
        rc = file_publish(f, op, &key, fd, f->work, name);
    if (rc)
        unlinkat(f->work, name, 0);
    return rc == -ESTALE ? file_fail(op, -EIO, "", "our temporary file was removed") : rc;
}

/* Deleting */

static int delete_marker(struct file_store *f, struct store_op *op, const struct file_key *key)
{
    cleanup(close_fd) int dir = file_open(f, key->path, O_RDONLY | O_DIRECTORY);
    if (dir == -ENOENT || dir == -ENOTDIR || dir == -ELOOP)
        return 0;
    if (dir < 0)
        return file_error(op, -dir, "opening the directory");
    file_key_lock(f, key->key);
    file_dirs_lock(f);
    struct stat st;
    int rc = 0;
    uint64_t mark_ns = file_mark_ns(dir);
    if (mark_ns && fstat(dir, &st) < 0) {
        rc = file_error(op, errno, "stat");
    } else if (mark_ns) {
        marker_stat(&st, mark_ns);
        if (op->if_match && !file_is_etag(&st, op->if_match))
            rc = file_failed_condition(op);
        if (!rc)
            rc = for_each_meta(op, dir, drop_meta, dir);
        if (!rc && fremovexattr(dir, MARK_NAME) < 0 && errno != ENODATA)
            rc = file_error(op, errno, "removing the mark");
    }
    file_dirs_unlock(f);
    file_key_unlock(f, key->key);
    return rc;
}

/* Takes the name away, without syncing. What is no object is left alone. */
static int delete_name(struct file_store *f, struct store_op *op, const struct file_key *key)
{
    if (key->marker)
        return delete_marker(f, op, key);
    cleanup(close_fd) int parent = file_open(f, key->parent, O_PATH | O_DIRECTORY);
    if (parent == -ENOENT || parent == -ENOTDIR || parent == -ELOOP)
        return 0;
    if (parent < 0)
        return file_error(op, -parent, "opening the directory");
    file_key_lock(f, key->key);
    struct stat st;
    int rc = 0;
    if (fstatat(parent, key->base, &st, AT_SYMLINK_NOFOLLOW) < 0)
        rc = errno == ENOENT ? 0 : file_error(op, errno, "looking at the name");
    else if (S_ISREG(st.st_mode) && op->if_match && !file_is_etag(&st, op->if_match))
        rc = file_failed_condition(op);
    else if (S_ISREG(st.st_mode) && unlinkat(parent, key->base, 0) < 0 && errno != ENOENT)
        rc = file_error(op, errno, "unlinking");
    file_key_unlock(f, key->key);
    return rc;
}

/* The directory that may be empty after a key was deleted. */
static const char *emptied(const struct file_key *key)
{
    return key->marker ? key->path : key->parent;
}

int file_do_delete(struct file_store *f, struct store_op *op)
{
    struct file_key key;
    if (file_key_parse(op->key, &key))
        return 0; /* it cannot be there */
    int rc = delete_name(f, op, &key);
    if (rc)
        return rc;
    rc = file_prune(f, emptied(&key));
    return rc ? file_error(op, -rc, "syncing the directory") : 0;
}

/* One sync for neighbours in a directory. */
int file_do_delete_many(struct file_store *f, struct store_op *op)
{
    struct file_key key;
    char dir[STORE_KEY_MAX + 1] = "";
    for (unsigned i = 0; i < op->key_count; i++) {
        if (file_key_parse(op->keys[i], &key))
            continue;
        if (*dir && strcmp(dir, emptied(&key))) {
            int rc = file_prune(f, dir);
            if (rc)
                return file_error(op, -rc, "syncing a directory");
        }
        snprintf(dir, sizeof(dir), "%s", emptied(&key));
        int rc = delete_name(f, op, &key);
        if (rc == -ENOMEM)
            return rc;
        if (rc) {
            error_clear(&op->error);
            rc = store_op_add_entry(op, op->keys[i], (uint64_t)-rc, 0, NULL, false);
            if (rc)
                return rc;
        }
        if (file_cancelled(op))
            break;
    }
    int rc = *dir ? file_prune(f, dir) : 0;
    if (rc)
        return file_error(op, -rc, "syncing a directory");
    return file_cancelled(op) ? -ECANCELED : 0;
}
