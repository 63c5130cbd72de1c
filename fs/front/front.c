#include "front.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "front_inodes.h"

#define POOL_MAX 64 /* requests kept for reuse in each list */

static struct front_pool *pool_of(struct fs *fs, const void *key)
{
    /* Any spread does; the kernel's request objects are spread over the threads. */
    return &fs->pools[((uintptr_t)key >> 8) % FRONT_POOLS];
}

static struct front_request *pool_get(struct front_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    struct front_request *r = pool->free;
    if (r) {
        pool->free = r->next;
        pool->count--;
    }
    pthread_mutex_unlock(&pool->lock);
    return r ? r : malloc(sizeof(*r));
}

static void pool_put(struct front_pool *pool, struct front_request *r)
{
    pthread_mutex_lock(&pool->lock);
    bool keep = pool->count < POOL_MAX;
    if (keep) {
        r->next = pool->free;
        pool->free = r;
        pool->count++;
    }
    pthread_mutex_unlock(&pool->lock);
    if (!keep)
        free(r);
}

void front_pool_done(struct fs *fs)
{
    for (size_t i = 0; i < FRONT_POOLS; i++) {
        struct front_pool *pool = &fs->pools[i];
        while (pool->free) {
            struct front_request *r = pool->free;
            pool->free = r->next;
            free(r);
        }
        pthread_mutex_destroy(&pool->lock);
    }
}

static void meta_done(struct meta_request *request)
{
    struct front_request *r = container_of(request, struct front_request, meta);
    r->result = request->result;
    r->step(r);
}

static void data_done(struct data_request *request)
{
    struct front_request *r = container_of(request, struct front_request, data);
    r->result = request->result;
    r->step(r);
}

static void task_done(struct meta_task *task)
{
    struct front_request *r = container_of(task, struct front_request, task);
    r->result = task->result;
    r->step(r);
}

struct front_request *front_begin(struct fs *fs, fuse_req_t req, enum front_op op)
{
    struct front_request *r = pool_get(pool_of(fs, req));
    if (!r) {
        fuse_reply_err(req, ENOMEM);
        return NULL;
    }
    memset(r, 0, offsetof(struct front_request, names));
    memset(&r->meta, 0, offsetof(struct meta_request, reply));
    r->fs = fs;
    r->req = req;
    r->op = op;
    r->meta.done = meta_done;
    r->thread = pthread_self();
    r->start_ns = clock_monotonic_ns();
    atomic_fetch_add(&fs->in_flight, 1);
    return r;
}

void front_count(struct front_request *r)
{
    if (!r->counted)
        metric_observe_ns(r->fs->seconds[r->op], clock_monotonic_ns() - r->start_ns);
    r->counted = true;
}

void front_use(struct front_request *r, size_t bytes)
{
    r->used = true;
    meta_use_begin(r->fs->meta, r->start_ns, bytes);
}

void front_end(struct front_request *r)
{
    struct fs *fs = r->fs;
    front_count(r);
    if (r->used)
        meta_use_end(fs->meta);
    if (r->has_reply)
        meta_reply_done(&r->meta.reply);
    free(r->heap);
    pool_put(pool_of(fs, r->req), r);
    if (atomic_fetch_sub(&fs->in_flight, 1) == 1 && atomic_load(&fs->draining)) {
        pthread_mutex_lock(&fs->idle_lock);
        pthread_cond_broadcast(&fs->idle);
        pthread_mutex_unlock(&fs->idle_lock);
    }
}

/* What a user can see as a failure of the storage is said once in the log. */
static void note_failure(struct front_request *r, int result)
{
    static struct log_limit limit = LOG_LIMIT(10, 1000);
    switch (result) {
    case -EIO:
    case -ENOSPC:
    case -ESTALE:
    case -ETIMEDOUT:
    case -ENOMEM:
    case -EILSEQ:
        metric_add(r->fs->errors, 1);
        log_limited(&limit, LOG_WARN, "request failed", "op=%s ino=%llu parent=%llu error=%s",
                    front_op_names[r->op], (unsigned long long)r->ino,
                    (unsigned long long)r->parent, strerrorname_np(-result));
        break;
    default:
        break;
    }
}

void front_reply_result(struct front_request *r, int result)
{
    if (result < 0)
        note_failure(r, result);
    fuse_reply_err(r->req, result < 0 ? -result : 0);
    front_end(r);
}

bool front_may_wait(const struct front_request *r)
{
    return pthread_equal(r->thread, pthread_self()) && r->fs->config.max_threads > 2 &&
           !fuse_req_is_uring(r->req);
}

void front_meta(struct front_request *r, void (*step)(struct front_request *r))
{
    r->step = step;
    r->has_reply = true;
    r->meta.arg = r;
    r->meta.may_wait = front_may_wait(r);
    int result = meta_submit(r->fs->meta, &r->meta);
    if (result == -EINPROGRESS)
        return;
    r->result = result;
    step(r);
}

struct meta_op *front_meta_again(struct front_request *r, enum meta_kind kind)
{
    if (r->has_reply)
        meta_reply_done(&r->meta.reply);
    r->has_reply = false;
    memset(&r->meta, 0, offsetof(struct meta_request, reply));
    r->meta.done = meta_done;
    r->meta.op.kind = kind;
    return &r->meta.op;
}

struct data_request *front_data_prepare(struct front_request *r,
                                        void (*step)(struct front_request *r))
{
    memset(&r->data, 0, sizeof(r->data));
    r->data.done = data_done;
    r->data.arg = r;
    r->step = step;
    return &r->data;
}

void front_data_result(struct front_request *r, int result)
{
    if (result == -EINPROGRESS)
        return; /* r may be gone */
    r->result = result;
    r->step(r);
}

void front_sync(struct front_request *r, uint64_t sequence, void (*step)(struct front_request *r))
{
    if (meta_is_synced(r->fs->meta, sequence)) {
        r->result = 0;
        step(r);
        return;
    }
    memset(&r->task, 0, sizeof(r->task));
    r->task.sequence = sequence;
    r->task.may_wait = front_may_wait(r);
    r->task.done = task_done;
    r->task.arg = r;
    r->step = step;
    meta_sync(r->fs->meta, &r->task);
}

static void sync_if_changed(struct front_request *r)
{
    if (r->result == 0 && meta_is_synced_at(r->fs->meta, r->meta.reply.attr.ctime_ns))
        r->after_sync(r);
    else
        front_sync(r, 0, r->after_sync);
}

void front_sync_inode(struct front_request *r, void (*step)(struct front_request *r))
{
    /* With writeback the kernel sets times of change; those of a service's volume are its own. */
    bool own_times = !r->fs->config.writeback && !r->fs->config.shared;
    if (!own_times || meta_is_synced(r->fs->meta, 0)) {
        front_sync(r, 0, step);
        return;
    }
    r->after_sync = step;
    front_meta_again(r, META_GETATTR)->ino = r->ino;
    front_meta(r, sync_if_changed);
}

bool front_name(struct front_request *r, unsigned which, const char *name, struct meta_name *out)
{
    size_t len = strnlen(name, META_NAME_MAX + 1);
    if (len > META_NAME_MAX) {
        front_reply_result(r, -ENAMETOOLONG);
        return false;
    }
    memcpy(r->names[which], name, len + 1);
    *out = (struct meta_name){.bytes = r->names[which], .len = len};
    return true;
}

static struct timespec timespec_of(uint64_t ns)
{
    return (struct timespec){.tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S)};
}

void front_stat(struct fs *fs, const struct meta_attr *attr, struct stat *out)
{
    (void)fs;
    memset(out, 0, sizeof(*out));
    out->st_ino = attr->ino;
    out->st_mode = attr->mode;
    out->st_nlink = attr->nlink;
    out->st_uid = attr->uid;
    out->st_gid = attr->gid;
    out->st_rdev = attr->rdev;
    out->st_size = (off_t)attr->size;
    out->st_blksize = FRONT_BLOCK_SIZE;
    out->st_blocks = (blkcnt_t)((attr->size + 511) / 512);
    out->st_atim = timespec_of(attr->atime_ns);
    out->st_mtim = timespec_of(attr->mtime_ns);
    out->st_ctim = timespec_of(attr->ctime_ns);
}

double front_timeout(struct fs *fs, double most)
{
    return MIN(most, meta_cache_ms(fs->meta) / 1000.0);
}

int front_entry(struct fs *fs, struct meta_attr *attr, struct fuse_entry_param *e)
{
    if (S_ISREG(attr->mode))
        data_overlay(fs->data, attr);
    int result = inodes_add(fs->inodes, attr->ino, 1);
    if (result < 0)
        return result;
    memset(e, 0, sizeof(*e));
    e->ino = attr->ino;
    e->generation = 1; /* inode numbers are never used again */
    e->attr_timeout = front_timeout(fs, fs->long_timeout_s);
    e->entry_timeout = fs->names_cached ? front_timeout(fs, fs->import_timeout_s) : 0;
    front_stat(fs, attr, &e->attr);
    return 0;
}

void front_entry_undo(struct fs *fs, uint64_t ino)
{
    if (inodes_forget(fs->inodes, ino, 1))
        notify_drop(fs->notify, ino);
}

void front_reply_entry(struct front_request *r, struct meta_attr *attr)
{
    struct fuse_entry_param e;
    int result = front_entry(r->fs, attr, &e);
    /* A new inode gets into the kernel's table after this reply; what somebody else changes until
     * then would not reach it. */
    if (r->op != FRONT_LOOKUP && r->fs->config.shared)
        e.attr_timeout = 0;
    if (result < 0) {
        front_reply_result(r, result);
        return;
    }
    if (fuse_reply_entry(r->req, &e) < 0)
        front_entry_undo(r->fs, attr->ino);
    front_end(r);
}

void front_reply_attr(struct front_request *r, struct meta_attr *attr)
{
    if (S_ISREG(attr->mode))
        data_overlay(r->fs->data, attr);
    struct stat st;
    front_stat(r->fs, attr, &st);
    /* The kernel takes what it is told of its own change, even if it was told to forget it since.
     */
    bool own = r->op == FRONT_SETATTR && r->fs->config.shared;
    fuse_reply_attr(r->req, &st, own ? 0 : front_timeout(r->fs, r->fs->long_timeout_s));
    front_end(r);
}

void front_unlinked(struct fs *fs, uint64_t ino)
{
    data_unlinked(fs->data, ino);
    if (inodes_unlinked(fs->inodes, ino))
        notify_drop(fs->notify, ino);
}

void front_opened_add(struct fs *fs, struct front_opened *opened)
{
    pthread_mutex_lock(&fs->opened_lock);
    DL_APPEND(fs->opened, opened);
    pthread_mutex_unlock(&fs->opened_lock);
}

void front_opened_remove(struct fs *fs, struct front_opened *opened)
{
    pthread_mutex_lock(&fs->opened_lock);
    DL_DELETE(fs->opened, opened);
    pthread_mutex_unlock(&fs->opened_lock);
}
