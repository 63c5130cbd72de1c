/* A FUSE filesystem that passes every call on to a directory and notes it. Nothing is cached by the
 * kernel but the pages of a file while it is open, so what a program asks is seen. */
#define FUSE_USE_VERSION 318
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "bench/trace.h"

#define THREADS_MAX 4096u /* with numbers of their own; the rest share the last one */

struct recorder {
    int source;
    bool is_root;
    uint64_t start_ns;
    void (*ready)(void *arg);
    void *arg;
    pthread_mutex_t lock;
    /* under lock */
    FILE *to;
    uint64_t events;
    uint32_t next_handle;
    pid_t threads[THREADS_MAX];
    unsigned thread_count;
    int error;
};

struct handle {
    int fd;
    uint32_t number;
};

struct listing {
    DIR *dir;
    char *path;
};

static struct recorder *recorder(void)
{
    return fuse_get_context()->private_data;
}

static struct handle *handle_of(struct fuse_file_info *fi)
{
    return (struct handle *)(uintptr_t)fi->fh;
}

/* Paths of libfuse begin with '/'. */
static const char *below(const char *path)
{
    return path && path[1] ? path + 1 : "";
}

static const char *at(const char *path)
{
    return path && path[1] ? path + 1 : ".";
}

static uint32_t thread_number(struct recorder *r, pid_t pid)
{
    for (unsigned i = 0; i < r->thread_count; i++)
        if (r->threads[i] == pid)
            return i;
    if (r->thread_count < THREADS_MAX)
        r->threads[r->thread_count++] = pid;
    return r->thread_count - 1;
}

static uint64_t began(void)
{
    return clock_monotonic_ns();
}

/* Notes a call that began then; returns its result. */
static int note(uint64_t began_ns, struct trace_event event)
{
    struct recorder *r = recorder();
    uint64_t now = clock_monotonic_ns();
    event.start_ns = began_ns - r->start_ns;
    event.took_ns = now - began_ns;
    pthread_mutex_lock(&r->lock);
    event.thread = thread_number(r, fuse_get_context()->pid);
    if (trace_write(r->to, &event) < 0)
        r->error = -EIO;
    r->events++;
    pthread_mutex_unlock(&r->lock);
    return event.result;
}

static int result_of(int r)
{
    return r < 0 ? -errno : r;
}

/* What root makes for another user is that user's. */
static void give(const char *path)
{
    struct recorder *r = recorder();
    struct fuse_context *context = fuse_get_context();
    if (r->is_root &&
        fchownat(r->source, at(path), context->uid, context->gid, AT_SYMLINK_NOFOLLOW) < 0)
        r->error = -errno;
}

static int do_getattr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
    uint64_t t = began();
    int result = result_of(fi ? fstat(handle_of(fi)->fd, st)
                              : fstatat(recorder()->source, at(path), st, AT_SYMLINK_NOFOLLOW));
    if (!path)
        return result; /* open and unlinked: it has no name to replay it by */
    return note(t, (struct trace_event){.op = TRACE_STAT,
                                        .path = below(path),
                                        .mode = result < 0 ? 0 : st->st_mode,
                                        .len = result < 0 ? 0 : (uint64_t)st->st_size,
                                        .result = result});
}

static int do_readlink(const char *path, char *out, size_t size)
{
    uint64_t t = began();
    ssize_t n = readlinkat(recorder()->source, at(path), out, size - 1);
    int result = n < 0 ? -errno : 0;
    if (n >= 0)
        out[n] = 0;
    return note(t,
                (struct trace_event){.op = TRACE_READLINK, .path = below(path), .result = result});
}

static int do_opendir(const char *path, struct fuse_file_info *fi)
{
    struct listing *listing = calloc(1, sizeof(*listing));
    int fd = openat(recorder()->source, at(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int result = fd < 0 ? -errno : 0;
    if (listing && fd >= 0) {
        listing->dir = fdopendir(fd);
        listing->path = strdup(below(path));
    }
    if (result == 0 && (!listing || !listing->dir || !listing->path))
        result = -ENOMEM;
    if (result == 0) {
        fi->fh = (uintptr_t)listing;
        return 0;
    }
    if (listing && listing->dir)
        closedir(listing->dir);
    else if (fd >= 0)
        close(fd);
    if (listing)
        free(listing->path);
    free(listing);
    return result;
}

static int do_readdir(const char *path, void *buf, fuse_fill_dir_t fill, off_t offset,
                      struct fuse_file_info *fi, enum fuse_readdir_flags flags)
{
    uint64_t t = began();
    struct listing *listing = (struct listing *)(uintptr_t)fi->fh;
    (void)path;
    (void)offset;
    (void)flags;
    rewinddir(listing->dir);
    for (struct dirent *entry; (entry = readdir(listing->dir));) {
        struct stat st = {.st_ino = entry->d_ino, .st_mode = (mode_t)entry->d_type << 12};
        if (fill(buf, entry->d_name, &st, 0, FUSE_FILL_DIR_DEFAULTS))
            break;
    }
    return note(t, (struct trace_event){.op = TRACE_LIST, .path = listing->path});
}

static int do_releasedir(const char *path, struct fuse_file_info *fi)
{
    struct listing *listing = (struct listing *)(uintptr_t)fi->fh;
    (void)path;
    closedir(listing->dir);
    free(listing->path);
    free(listing);
    return 0;
}

static int do_mkdir(const char *path, mode_t mode)
{
    uint64_t t = began();
    int result = result_of(mkdirat(recorder()->source, at(path), mode));
    if (result == 0)
        give(path);
    return note(
        t, (struct trace_event){
               .op = TRACE_MKDIR, .path = below(path), .mode = mode & 07777, .result = result});
}

static int do_unlink(const char *path)
{
    uint64_t t = began();
    int result = result_of(unlinkat(recorder()->source, at(path), 0));
    return note(t, (struct trace_event){.op = TRACE_UNLINK, .path = below(path), .result = result});
}

static int do_rmdir(const char *path)
{
    uint64_t t = began();
    int result = result_of(unlinkat(recorder()->source, at(path), AT_REMOVEDIR));
    return note(t, (struct trace_event){.op = TRACE_RMDIR, .path = below(path), .result = result});
}

static int do_symlink(const char *target, const char *path)
{
    uint64_t t = began();
    int result = result_of(symlinkat(target, recorder()->source, at(path)));
    if (result == 0)
        give(path);
    return note(t, (struct trace_event){
                       .op = TRACE_SYMLINK, .path = below(path), .to = target, .result = result});
}

static int do_rename(const char *from, const char *to, unsigned flags)
{
    uint64_t t = began();
    int source = recorder()->source;
    int result = result_of(renameat2(source, at(from), source, at(to), flags));
    return note(t, (struct trace_event){.op = TRACE_RENAME,
                                        .path = below(from),
                                        .to = below(to),
                                        .flags = (int)flags,
                                        .result = result});
}

static int do_link(const char *from, const char *to)
{
    uint64_t t = began();
    int source = recorder()->source;
    int result = result_of(linkat(source, at(from), source, at(to), 0));
    return note(t, (struct trace_event){
                       .op = TRACE_LINK, .path = below(from), .to = below(to), .result = result});
}

static int do_chmod(const char *path, mode_t mode, struct fuse_file_info *fi)
{
    uint64_t t = began();
    int result = result_of(fi ? fchmod(handle_of(fi)->fd, mode)
                              : fchmodat(recorder()->source, at(path), mode, 0));
    if (!path)
        return result;
    return note(
        t, (struct trace_event){
               .op = TRACE_CHMOD, .path = below(path), .mode = mode & 07777, .result = result});
}

/* Not noted: a replay has one owner. */
static int do_chown(const char *path, uid_t uid, gid_t gid, struct fuse_file_info *fi)
{
    return result_of(fi ? fchown(handle_of(fi)->fd, uid, gid)
                        : fchownat(recorder()->source, at(path), uid, gid, AT_SYMLINK_NOFOLLOW));
}

static int do_truncate(const char *path, off_t size, struct fuse_file_info *fi)
{
    uint64_t t = began();
    int result;
    if (fi) {
        result = result_of(ftruncate(handle_of(fi)->fd, size));
    } else {
        int fd = openat(recorder()->source, at(path), O_WRONLY | O_CLOEXEC);
        result = fd < 0 ? -errno : result_of(ftruncate(fd, size));
        if (fd >= 0)
            close(fd);
    }
    if (!path)
        return result;
    return note(
        t, (struct trace_event){
               .op = TRACE_TRUNCATE, .path = below(path), .len = (uint64_t)size, .result = result});
}

static int do_utimens(const char *path, const struct timespec times[2], struct fuse_file_info *fi)
{
    uint64_t t = began();
    int result =
        result_of(fi ? futimens(handle_of(fi)->fd, times)
                     : utimensat(recorder()->source, at(path), times, AT_SYMLINK_NOFOLLOW));
    if (!path)
        return result;
    return note(t, (struct trace_event){.op = TRACE_UTIMES, .path = below(path), .result = result});
}

static int open_file(const char *path, int flags, mode_t mode, struct fuse_file_info *fi,
                     enum trace_op op)
{
    uint64_t t = began();
    struct recorder *r = recorder();
    struct handle *handle = malloc(sizeof(*handle));
    struct stat st = {0};
    if (!handle)
        return -ENOMEM;
    /* The buffers of libfuse are not aligned for O_DIRECT. */
    handle->fd = openat(r->source, at(path), (flags & ~O_DIRECT) | O_CLOEXEC, mode);
    int result = handle->fd < 0 ? -errno : 0;
    if (result == 0) {
        if (op == TRACE_CREATE)
            give(path);
        else if (fstat(handle->fd, &st) < 0)
            st.st_size = 0;
        pthread_mutex_lock(&r->lock);
        handle->number = ++r->next_handle;
        pthread_mutex_unlock(&r->lock);
        fi->fh = (uintptr_t)handle;
    }
    uint32_t number = result == 0 ? handle->number : 0;
    if (result < 0)
        free(handle);
    return note(t, (struct trace_event){.op = op,
                                        .handle = number,
                                        .path = below(path),
                                        .len = (uint64_t)st.st_size,
                                        .flags = flags & ~(O_CREAT | O_EXCL | O_NOFOLLOW),
                                        .mode = mode & 07777,
                                        .result = result});
}

static int do_create(const char *path, mode_t mode, struct fuse_file_info *fi)
{
    return open_file(path, fi->flags | O_CREAT, mode, fi, TRACE_CREATE);
}

static int do_open(const char *path, struct fuse_file_info *fi)
{
    return open_file(path, fi->flags & ~(O_CREAT | O_EXCL), 0, fi, TRACE_OPEN);
}

static int do_read(const char *path, char *buf, size_t size, off_t offset,
                   struct fuse_file_info *fi)
{
    uint64_t t = began();
    (void)path;
    int result = result_of((int)pread(handle_of(fi)->fd, buf, size, offset));
    return note(t, (struct trace_event){.op = TRACE_READ,
                                        .handle = handle_of(fi)->number,
                                        .offset = (uint64_t)offset,
                                        .len = size,
                                        .result = result});
}

static int do_write(const char *path, const char *buf, size_t size, off_t offset,
                    struct fuse_file_info *fi)
{
    uint64_t t = began();
    (void)path;
    int result = result_of((int)pwrite(handle_of(fi)->fd, buf, size, offset));
    return note(t, (struct trace_event){.op = TRACE_WRITE,
                                        .handle = handle_of(fi)->number,
                                        .offset = (uint64_t)offset,
                                        .len = size,
                                        .result = result});
}

static int do_fsync(const char *path, int data_only, struct fuse_file_info *fi)
{
    uint64_t t = began();
    (void)path;
    int result = result_of(data_only ? fdatasync(handle_of(fi)->fd) : fsync(handle_of(fi)->fd));
    return note(t, (struct trace_event){
                       .op = TRACE_FSYNC, .handle = handle_of(fi)->number, .result = result});
}

static int do_release(const char *path, struct fuse_file_info *fi)
{
    uint64_t t = began();
    struct handle *handle = handle_of(fi);
    (void)path;
    uint32_t number = handle->number;
    int result = result_of(close(handle->fd));
    free(handle);
    note(t, (struct trace_event){.op = TRACE_CLOSE, .handle = number, .result = result});
    return 0;
}

static int do_statfs(const char *path, struct statvfs *out)
{
    (void)path;
    return result_of(fstatvfs(recorder()->source, out));
}

static void *do_init(struct fuse_conn_info *conn, struct fuse_config *config)
{
    struct recorder *r = recorder();
    (void)conn;
    config->use_ino = 1;
    config->hard_remove = 1;
    config->entry_timeout = config->attr_timeout = config->negative_timeout = 0;
    if (r->ready)
        r->ready(r->arg);
    return r;
}

static const struct fuse_operations operations = {
    .init = do_init,
    .getattr = do_getattr,
    .readlink = do_readlink,
    .opendir = do_opendir,
    .readdir = do_readdir,
    .releasedir = do_releasedir,
    .mkdir = do_mkdir,
    .unlink = do_unlink,
    .rmdir = do_rmdir,
    .symlink = do_symlink,
    .rename = do_rename,
    .link = do_link,
    .chmod = do_chmod,
    .chown = do_chown,
    .truncate = do_truncate,
    .utimens = do_utimens,
    .create = do_create,
    .open = do_open,
    .read = do_read,
    .write = do_write,
    .fsync = do_fsync,
    .release = do_release,
    .statfs = do_statfs,
};

static int serve(struct recorder *r, const char *mountpoint, struct error *error)
{
    char *arguments[] = {(char *)"sluice", (char *)"-o",
                         (char *)(r->is_root ? "fsname=sluice-trace,default_permissions,allow_other"
                                             : "fsname=sluice-trace,default_permissions"),
                         NULL};
    struct fuse_args args = FUSE_ARGS_INIT(3, arguments);
    struct fuse *fuse = fuse_new(&args, &operations, sizeof(operations), r);
    if (!fuse)
        return error_set(error, -EIO, "libfuse does not start");
    int result = 0;
    if (fuse_mount(fuse, mountpoint) < 0) {
        result = error_set(error, -EIO,
                           "cannot mount at %s: is it an empty directory, and may you "
                           "mount? `sluice doctor` tells",
                           mountpoint);
    } else {
        struct fuse_loop_config *config = fuse_loop_cfg_create();
        fuse_set_signal_handlers(fuse_get_session(fuse));
        int r2 = fuse_loop_mt(fuse, config);
        if (r2 < 0)
            result = error_set(error, r2, "the loop ended: %s", strerror(-r2));
        fuse_remove_signal_handlers(fuse_get_session(fuse));
        fuse_loop_cfg_destroy(config);
        fuse_unmount(fuse);
    }
    fuse_destroy(fuse);
    return result;
}

int trace_record(const char *source, const char *mountpoint, FILE *to, void (*ready)(void *arg),
                 void *arg, uint64_t *events, struct error *error)
{
    cleanup(free_ptr) struct recorder *r = calloc(1, sizeof(*r));
    if (!r)
        return error_set(error, -ENOMEM, "no memory");
    r->source = open(source, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (r->source < 0)
        return error_set(error, -errno, "%s: %s", source, strerror(errno));
    r->is_root = geteuid() == 0;
    r->start_ns = clock_monotonic_ns();
    r->ready = ready;
    r->arg = arg;
    r->to = to;
    pthread_mutex_init(&r->lock, NULL);
    /* Modes are those that the kernel gives, which has the caller's mask already. */
    mode_t mask = umask(0);
    int result = trace_write_head(to, source);
    if (result < 0)
        error_set(error, result, "the trace cannot be written");
    else
        result = serve(r, mountpoint, error);
    umask(mask);
    if (result == 0 && (r->error || fflush(to) != 0))
        result = error_set(error, r->error ? r->error : -EIO, "not all calls could be noted: %s",
                           strerror(r->error ? -r->error : EIO));
    *events = r->events;
    pthread_mutex_destroy(&r->lock);
    close(r->source);
    return result;
}
