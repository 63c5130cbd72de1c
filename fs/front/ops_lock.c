/*
 * Locks between the mounts of a shared volume (docs/locks.md). They are the service's; here they
 * are asked for, without a thread that waits, and what was written under one is committed before it
 * is given up, so that the next holder reads it.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>

#include "front.h"

static void answered(struct meta_lock *lock)
{
    struct front_request *r = lock->arg;
    r->result = lock->result;
    r->step(r);
}

/* The kernel's word that the process was interrupted; libfuse holds the request until it has
 * returned. */
static void interrupted(fuse_req_t req, void *data)
{
    struct front_request *r = data;
    meta_lock_cancel(r->fs->meta, &r->lock);
}

static void lock_done(struct front_request *r)
{
    fuse_req_interrupt_func(r->req, NULL, NULL);
    front_reply_result(r, r->result);
}

static void ask(struct front_request *r, void (*step)(struct front_request *r))
{
    r->step = step;
    r->lock.done = answered;
    r->lock.arg = r;
    int result = meta_lock(r->fs->meta, &r->lock);
    if (result == -EINPROGRESS)
        return; /* r may be gone */
    r->result = result;
    step(r);
}

static struct front_request *begin(fuse_req_t req, fuse_ino_t ino, const struct fuse_file_info *fi)
{
    if (front_is_control(ino)) {
        fuse_reply_err(req, EINVAL);
        return NULL;
    }
    struct front_request *r = front_begin(front_fs(req), req, FRONT_LOCK);
    if (!r)
        return NULL;
    r->ino = ino;
    r->file = (struct front_file *)(uintptr_t)fi->fh;
    r->lock.ino = ino;
    r->lock.owner = fi->lock_owner;
    r->lock.tag = fi->fh;
    /* What it had is with the service no more. */
    if (data_handle_lost(r->file->handle)) {
        front_reply_result(r, -ESTALE);
        return NULL;
    }
    return r;
}

/* --- getlk */
static void get_done(struct front_request *r)
{
    static const int types[] = {
        [META_LOCK_READ] = F_RDLCK, [META_LOCK_WRITE] = F_WRLCK, [META_LOCK_NONE] = F_UNLCK};
    if (r->result < 0) {
        front_reply_result(r, r->result);
        return;
    }
    const struct meta_lock *found = &r->lock;
    bool to_end = found->end >= INT64_MAX;
    struct flock out = {.l_type = (short)types[found->type],
                        .l_whence = SEEK_SET,
                        .l_start = (off_t)found->start,
                        .l_len = to_end ? 0 : (off_t)(found->end - found->start + 1),
                        .l_pid = (pid_t)found->pid};
    fuse_reply_lock(r->req, &out);
    front_end(r);
}

static bool set_range(struct front_request *r, const struct flock *lock)
{
    switch (lock->l_type) {
    case F_RDLCK:
        r->lock.type = META_LOCK_READ;
        break;
    case F_WRLCK:
        r->lock.type = META_LOCK_WRITE;
        break;
    case F_UNLCK:
        r->lock.type = META_LOCK_NONE;
        break;
    default:
        return false;
    }
    r->lock.pid = (uint32_t)lock->l_pid;
    r->lock.start = (uint64_t)lock->l_start;
    r->lock.end =
        lock->l_len == 0 ? UINT64_MAX : (uint64_t)lock->l_start + (uint64_t)lock->l_len - 1;
    return lock->l_start >= 0 && lock->l_len >= 0;
}

void front_op_getlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock)
{
    struct front_request *r = begin(req, ino, fi);
    if (!r)
        return;
    r->lock.how = META_LOCK_TEST;
    if (set_range(r, lock) && r->lock.type != META_LOCK_NONE)
        ask(r, get_done);
    else
        front_reply_result(r, -EINVAL);
}

/* --- setlk, flock */
static void set(struct front_request *r)
{
    atomic_store(&r->file->locked, true);
    if (r->lock.how == META_LOCK_WAIT)
        fuse_req_interrupt_func(r->req, interrupted, r);
    ask(r, lock_done);
}

static void set_flushed(struct front_request *r)
{
    /* The lock stays: what others would read is not what was written under it. */
    if (r->result < 0)
        front_reply_result(r, r->result);
    else
        set(r);
}

static void begin_set(struct front_request *r, bool wait)
{
    bool less = r->lock.type != META_LOCK_WRITE;
    r->lock.how = wait && r->lock.type != META_LOCK_NONE ? META_LOCK_WAIT : META_LOCK_TRY;
    if (less && r->file->writable)
        front_data_result(r, data_flush(r->file->handle, front_data_prepare(r, set_flushed)));
    else
        set(r);
}

void front_op_setlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock,
                    int sleep)
{
    atomic_store(&front_fs(req)->ranges_locked, true);
    struct front_request *r = begin(req, ino, fi);
    if (!r)
        return;
    if (set_range(r, lock))
        begin_set(r, sleep);
    else
        front_reply_result(r, -EINVAL);
}

void front_op_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, int op)
{
    struct front_request *r = begin(req, ino, fi);
    if (!r)
        return;
    int kind = op & ~LOCK_NB;
    r->lock.flock = true;
    r->lock.end = UINT64_MAX;
    r->lock.type = kind == LOCK_SH   ? META_LOCK_READ
                   : kind == LOCK_EX ? META_LOCK_WRITE
                                     : META_LOCK_NONE;
    begin_set(r, !(op & LOCK_NB));
}

/* --- closes */
static void closed(struct front_request *r)
{
    front_reply_result(r, (int)(ssize_t)r->size);
}

void front_lock_flush(struct front_request *r)
{
    int result = r->result;
    if (!r->fs->config.shared || !r->fi.lock_owner) {
        front_reply_result(r, result);
        return;
    }
    r->size = (size_t)(ssize_t)result; /* of the data: the answer */
    r->step = closed;
    r->lock = (struct meta_lock){
        .ino = r->ino, .owner = r->fi.lock_owner, .tag = r->fi.fh, .done = answered, .arg = r};
    if (meta_lock_flush(r->fs->meta, &r->lock) != -EINPROGRESS)
        closed(r);
}

void front_lock_release(struct fs *fs, struct front_file *file)
{
    if (fs->config.shared && atomic_load(&file->locked))
        meta_lock_release(fs->meta, file->ino, (uint64_t)(uintptr_t)file);
}
