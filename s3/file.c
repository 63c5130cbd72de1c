/*
 * file://, a local directory as the bucket: opening and closing, and the way of a request to a pool
 * thread and back.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "file.h"

/* Two pools, so that copies in the background never stand before a reader. Mostly they wait for the
 * disk, and syncs that wait together are one for the filesystem. */
#define POOL_THREADS 8
#define BACKGROUND_THREADS 8
#define GIB (1024ull * 1024 * 1024)
#define OPEN_LOCK FILE_LOCKS /* the byte of `lock` that is held while a store is opened */

struct job {
    struct file_store *f;
    struct store_op *op;
    struct pool_task there;
    struct loop_task back;
    _Atomic bool cancelled;
    int result;
};

/* Results */

int file_fail(struct store_op *op, int code, const char *store_code, const char *why)
{
    const char *key = op->key ? op->key : op->prefix ? op->prefix : "";
    error_set(&op->error, code, "%s %s/%s: %s", store_kind_name(op->kind), store_name(op->store),
              key, why);
    snprintf(op->error.store_code, sizeof(op->error.store_code), "%s", store_code);
    return code;
}

int file_no_key(struct store_op *op)
{
    return file_fail(op, -ENOENT, "NoSuchKey", "no such key");
}

int file_no_upload(struct store_op *op)
{
    return file_fail(op, -ENOENT, "NoSuchUpload", "no such upload");
}

int file_failed_condition(struct store_op *op)
{
    return file_fail(op, -EEXIST, "PreconditionFailed", "the condition does not hold");
}

int file_error(struct store_op *op, int err, const char *what)
{
    static const struct {
        int err, code;
    } known[] = {
        {EACCES, EACCES},
        {EPERM, EACCES},
        {EROFS, EACCES},
        {ELOOP, EACCES},
        {ENOSPC, ENOSPC},
        {EDQUOT, ENOSPC},
        {EFBIG, EFBIG},
        {ENOMEM, ENOMEM},
        {EISDIR, EISDIR},
        {ENOTDIR, ENOTDIR},
        {ENAMETOOLONG, ENAMETOOLONG},
    };
    /* -ENOENT among them: a missing key or upload is told by the callers who mean it. */
    int code = EIO;
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (known[i].err == err)
            code = known[i].code;
    char why[160];
    snprintf(why, sizeof(why), "%s: %s", what, strerror(err));
    return file_fail(op, -code, "", why);
}

/* Requests */

static int (*const handlers[STORE_KIND_COUNT])(struct file_store *f, struct store_op *op) = {
    [STORE_HEAD] = file_do_head,
    [STORE_GET] = file_do_get,
    [STORE_PUT] = file_do_put,
    [STORE_DELETE] = file_do_delete,
    [STORE_DELETE_MANY] = file_do_delete_many,
    [STORE_COPY] = file_do_copy,
    [STORE_LIST] = file_do_list,
    [STORE_MPU_CREATE] = file_do_mpu_create,
    [STORE_MPU_PART] = file_do_mpu_part,
    [STORE_MPU_PART_COPY] = file_do_mpu_part_copy,
    [STORE_MPU_COMPLETE] = file_do_mpu_complete,
    [STORE_MPU_ABORT] = file_do_mpu_abort,
    [STORE_MPU_LIST] = file_do_mpu_list,
};

static bool is_write(enum store_kind kind)
{
    return kind != STORE_HEAD && kind != STORE_GET && kind != STORE_LIST && kind != STORE_MPU_LIST;
}

bool file_cancelled(const struct store_op *op)
{
    const struct job *job = op->impl;
    return atomic_load_explicit(&job->cancelled, memory_order_relaxed);
}

uint64_t file_unique_ns(struct file_store *f)
{
    uint64_t last = atomic_load_explicit(&f->last_ns, memory_order_relaxed), next;
    do {
        next = MAX(clock_wall_ns(), last + 1);
    } while (!atomic_compare_exchange_weak_explicit(&f->last_ns, &last, next, memory_order_relaxed,
                                                    memory_order_relaxed));
    return next;
}

static void job_back(struct loop_task *task)
{
    struct job *job = container_of(task, struct job, back);
    struct store_op *op = job->op;
    int result = job->result;
    op->impl = NULL;
    free(job);
    store_complete(op, result);
}

static void job_run(struct pool_task *task)
{
    struct job *job = container_of(task, struct job, there);
    struct file_store *f = job->f;
    if (file_cancelled(job->op))
        job->result = -ECANCELED;
    else if (f->read_only && is_write(job->op->kind))
        job->result = file_fail(job->op, -EACCES, "AccessDenied", "the store is read-only");
    else
        job->result = handlers[job->op->kind](f, job->op);
    job->back.run = job_back;
    loop_post(f->store.loop, &job->back);
}

static void file_submit(struct store *store, struct store_op *op)
{
    struct file_store *f = container_of(store, struct file_store, store);
    struct job *job = calloc(1, sizeof(*job));
    if (!job) {
        store_complete(op, -ENOMEM);
        return;
    }
    job->f = f;
    job->op = op;
    job->there.run = job_run;
    op->impl = job;
    pool_submit(op->priority == STORE_BACKGROUND ? f->background : f->pool, &job->there);
}

static void file_cancel(struct store *store, struct store_op *op)
{
    struct job *job = op->impl;
    atomic_store_explicit(&job->cancelled, true, memory_order_relaxed);
}

/* Opening and closing */

static int open_dir(int at, const char *name)
{
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static int make_and_open(int at, const char *name)
{
    if (mkdirat(at, name, 0700) < 0 && errno != EEXIST)
        return -errno;
    return open_dir(at, name);
}

/* A work directory whose owner lives is locked by him. */
static void clean_work(struct file_store *f)
{
    int fd = open_dir(f->private, ".");
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d)
        return;
    for (struct dirent *e; (e = readdir(d));) {
        if (strncmp(e->d_name, "w-", 2))
            continue;
        cleanup(close_fd) int work = open_dir(f->private, e->d_name);
        if (work >= 0 && !flock(work, LOCK_EX | LOCK_NB))
            file_remove_tree(f->private, e->d_name);
    }
    closedir(d);
}

static int make_work(struct file_store *f)
{
    uint64_t id;
    hash_random(&id, sizeof(id));
    snprintf(f->work_name, sizeof(f->work_name), "w-%016llx", (unsigned long long)id);
    f->work = make_and_open(f->private, f->work_name);
    if (f->work < 0)
        return f->work;
    return flock(f->work, LOCK_EX | LOCK_NB) < 0 ? -errno : 0;
}

/* What objects need of the filesystem. */
static int check_filesystem(struct file_store *f, const char *directory, struct error *error)
{
    if (fsetxattr(f->work, "user.sluice.probe", "1", 1, 0) < 0)
        return error_set(error, errno == ENOTSUP ? -EOPNOTSUPP : -errno,
                         "%s: the filesystem does not take extended attributes (user.*), which "
                         "hold the metadata of objects: %s",
                         directory, strerror(errno));
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 1, .tv_nsec = 123456789}};
    struct stat st;
    if (futimens(f->work, times) < 0 || fstat(f->work, &st) < 0)
        return error_set(error, -errno, "%s: setting times: %s", directory, strerror(errno));
    if (st.st_mtim.tv_nsec != 123456789)
        log_warn("file store times are coarse",
                 "directory=%s effect=\"two writes of one size within a tick may have one ETag\"",
                 directory);
    return 0;
}

static int open_private_locked(struct file_store *f, const char *directory, struct error *error)
{
    f->uploads = make_and_open(f->private, "u");
    if (f->uploads < 0)
        return error_set(error, f->uploads, "%s/" FILE_PRIVATE "/u: %s", directory,
                         strerror(-f->uploads));
    clean_work(f);
    file_uploads_clean(f);
    int rc = make_work(f);
    if (rc)
        return error_set(error, rc, "%s/" FILE_PRIVATE "/%s: %s", directory, f->work_name,
                         strerror(-rc));
    return check_filesystem(f, directory, error);
}

static int open_private(struct file_store *f, const char *directory, struct error *error)
{
    f->private = make_and_open(f->root, FILE_PRIVATE);
    if (f->private < 0)
        return error_set(error, f->private, "%s/" FILE_PRIVATE ": %s", directory,
                         strerror(-f->private));
    f->locks = openat(f->private, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (f->locks < 0)
        return error_set(error, -errno, "%s/" FILE_PRIVATE "/lock: %s", directory, strerror(errno));
    /* Nobody may take a new work directory, not yet locked, for one that was left. */
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = OPEN_LOCK, .l_len = 1};
    while (fcntl(f->locks, F_OFD_SETLKW, &lock) < 0)
        if (errno != EINTR)
            return error_set(error, -errno, "%s: the filesystem does not lock: %s", directory,
                             strerror(errno));
    int rc = open_private_locked(f, directory, error);
    lock.l_type = F_UNLCK;
    fcntl(f->locks, F_OFD_SETLK, &lock);
    return rc;
}

static int open_root(struct file_store *f, const char *directory, bool read_only,
                     struct error *error)
{
    if (!read_only && mkdir(directory, 0700) < 0 && errno != EEXIST)
        return error_set(error, -errno, "%s: making the directory: %s", directory, strerror(errno));
    f->root = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (f->root < 0)
        return error_set(error, -errno, "%s: %s", directory, strerror(errno));
    int fd = file_open(f, ".", O_PATH | O_DIRECTORY);
    if (fd < 0)
        return error_set(error, fd, "%s: openat2: %s (Linux 5.6 is needed)", directory,
                         strerror(-fd));
    close(fd);
    return read_only ? 0 : open_private(f, directory, error);
}

static void file_free(struct store *store)
{
    struct file_store *f = container_of(store, struct file_store, store);
    pool_free(f->pool);
    pool_free(f->background);
    file_cursors_done(f);
    if (f->work >= 0)
        file_remove_tree(f->private, f->work_name);
    int fds[] = {f->locks, f->work, f->uploads, f->private, f->root};
    for (size_t i = 0; i < ARRAY_LEN(fds); i++)
        if (fds[i] >= 0)
            close(fds[i]);
    for (unsigned i = 0; i < FILE_LOCKS; i++)
        pthread_mutex_destroy(&f->key_locks[i]);
    pthread_mutex_destroy(&f->dirs_mutex);
    store_done(store);
    free(f);
}

static const struct store_backend backend = {
    .kind = "file",
    .submit = file_submit,
    .cancel = file_cancel,
    .free = file_free,
};

int store_file_new(const char *directory, bool read_only, struct loop *loop, struct store **out,
                   struct error *error)
{
    error_clear(error);
    struct file_store *f = calloc(1, sizeof(*f));
    if (!f)
        return error_set(error, -ENOMEM, "no memory");
    f->root = f->private = f->work = f->uploads = f->locks = -1;
    f->read_only = read_only;
    for (unsigned i = 0; i < FILE_LOCKS; i++)
        pthread_mutex_init(&f->key_locks[i], NULL);
    pthread_mutex_init(&f->dirs_mutex, NULL);
    char name[4096];
    snprintf(name, sizeof(name), "file://%s", directory);
    store_init(&f->store, &backend, loop, NULL, name);
    f->store.caps = (struct store_caps){
        .put_if_none_match = true,
        .put_if_match = true,
        .complete_if_none_match = true,
        .complete_if_match = true,
        .complete_etag = true,
        .copy_if_match = true,
        .server_copy = true,
        .part_min = 1,
        .part_max = 5 * GIB,
        .part_count_max = 10000,
        .put_max = 5 * GIB,
        .copy_max = 5 * GIB,
    };
    file_cursors_init(f);
    int rc = open_root(f, directory, read_only, error);
    if (!rc)
        rc = pool_new(&f->pool, "file", POOL_THREADS);
    if (!rc)
        rc = pool_new(&f->background, "file-bg", BACKGROUND_THREADS);
    if (rc) {
        if (error && !error->code)
            error_set(error, rc, "%s: starting threads: %s", directory, strerror(-rc));
        file_free(&f->store);
        return rc;
    }
    *out = &f->store;
    return 0;
}
