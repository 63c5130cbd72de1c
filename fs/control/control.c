#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "front/caller.h"
#include "front/front_dir.h"
#include "front_control.h"

/* As many renames share one sync of the disk, and long requests leave room for short ones. */
#define POOL_THREADS 8

struct control {
    struct fs *fs;
    struct pool *pool;
    pthread_mutex_t lock;
    pthread_cond_t idle;
    /* under lock */
    unsigned running;
    bool closing;
};

/* --- The nodes */
static void control_attr(struct fs *fs, uint64_t ino, struct meta_attr *attr)
{
    bool dir = ino == FRONT_CONTROL_DIR_INO;
    *attr = (struct meta_attr){
        .ino = ino,
        /* The kernel lets writes run beside each other only below the end of the file. */
        .size = dir ? 0 : CONTROL_TEXT_MAX,
        .mode = dir ? S_IFDIR | 0555 : S_IFREG | 0666,
        .nlink = dir ? 2 : 1,
        .uid = fs->owner,
        .atime_ns = fs->started_ns,
        .mtime_ns = fs->started_ns,
        .ctime_ns = fs->started_ns,
    };
}

static void control_entry(struct fs *fs, uint64_t ino, struct fuse_entry_param *e)
{
    struct meta_attr attr;
    control_attr(fs, ino, &attr);
    *e = (struct fuse_entry_param){
        .ino = ino,
        .generation = 1,
        .attr_timeout = fs->long_timeout_s,
        .entry_timeout = fs->long_timeout_s,
    };
    front_stat(fs, &attr, &e->attr);
}

void control_lookup(fuse_req_t req, uint64_t parent, const char *name)
{
    uint64_t ino = 0;
    if (strcmp(name, ".") == 0)
        ino = parent;
    else if (parent == FRONT_CONTROL_FILE_INO && strcmp(name, "..") == 0)
        ino = FRONT_CONTROL_DIR_INO;
    else if (parent == META_ROOT_INO)
        ino = FRONT_CONTROL_DIR_INO;
    else if (parent == FRONT_CONTROL_DIR_INO && strcmp(name, FRONT_CONTROL_FILE) == 0)
        ino = FRONT_CONTROL_FILE_INO;
    if (ino == 0) {
        fuse_reply_err(req, ENOENT);
        return;
    }
    struct fuse_entry_param e;
    control_entry(front_fs(req), ino, &e);
    fuse_reply_entry(req, &e);
}

void control_getattr(fuse_req_t req, uint64_t ino)
{
    struct fs *fs = front_fs(req);
    struct meta_attr attr;
    struct stat st;
    control_attr(fs, ino, &attr);
    front_stat(fs, &attr, &st);
    fuse_reply_attr(req, &st, fs->long_timeout_s);
}

void control_setattr(fuse_req_t req, uint64_t ino, int to_set)
{
    /* "echo … > ctl" cuts the file first. */
    if (to_set & ~(FUSE_SET_ATTR_SIZE | FUSE_SET_ATTR_KILL_SUID))
        fuse_reply_err(req, EPERM);
    else
        control_getattr(req, ino);
}

void control_readdir(fuse_req_t req, size_t size, off_t off, bool plus)
{
    static const struct {
        const char *name;
        uint64_t ino;
    } entries[] = {
        {".", FRONT_CONTROL_DIR_INO},
        {"..", META_ROOT_INO},
        {FRONT_CONTROL_FILE, FRONT_CONTROL_FILE_INO},
    };
    char bytes[1024];
    size_t used = 0;
    for (size_t i = (size_t)off; off >= 0 && i < ARRAY_LEN(entries); i++) {
        size_t left = MIN(size, sizeof(bytes)) - used;
        struct fuse_entry_param e;
        control_entry(front_fs(req), entries[i].ino, &e);
        if (i < 2)
            e.ino = 0; /* not looked up */
        size_t len = plus ? fuse_add_direntry_plus(req, bytes + used, left, entries[i].name, &e,
                                                   (off_t)i + 1)
                          : fuse_add_direntry(req, bytes + used, left, entries[i].name, &e.attr,
                                              (off_t)i + 1);
        if (len > left)
            break;
        used += len;
    }
    fuse_reply_buf(req, bytes, used);
}

/* --- Handles */
static struct control_handle *handle_of(const struct fuse_file_info *fi)
{
    return (struct control_handle *)(uintptr_t)fi->fh;
}

void control_handle_ref(struct control_handle *h)
{
    atomic_fetch_add(&h->refs, 1);
}

void control_handle_unref(struct control_handle *h)
{
    if (atomic_fetch_sub(&h->refs, 1) > 1)
        return;
    if (h->has_checkpoint)
        meta_checkpoint_drop(h->fs->meta);
    pthread_mutex_destroy(&h->lock);
    buf_done(&h->reply);
    control_request_done(&h->request);
    free(h->caller.groups);
    free(h);
}

static int take_caller(fuse_req_t req, struct control_caller *caller)
{
    const struct fuse_ctx *ctx = fuse_req_ctx(req);
    gid_t groups[CALLER_GROUPS_MAX];
    /* If they cannot be seen, his own group counts. */
    size_t count = ctx->uid == 0 ? 0 : (size_t)caller_groups(req, groups);
    caller->uid = ctx->uid;
    caller->gid = ctx->gid;
    caller->group_count = count;
    caller->groups = malloc(caller->group_count * sizeof(gid_t) + 1);
    if (!caller->groups)
        return -ENOMEM;
    memcpy(caller->groups, groups, caller->group_count * sizeof(gid_t));
    return 0;
}

void control_open(fuse_req_t req, uint64_t ino, struct fuse_file_info *fi)
{
    struct fs *fs = front_fs(req);
    struct control_handle *h = calloc(1, sizeof(*h));
    if (!h || take_caller(req, &h->caller) < 0) {
        free(h);
        fuse_reply_err(req, ENOMEM);
        return;
    }
    h->opened.kind = FRONT_CONTROL;
    h->fs = fs;
    atomic_store(&h->refs, 1);
    pthread_mutex_init(&h->lock, NULL);
    buf_init(&h->reply, 0);
    front_opened_add(fs, &h->opened);
    fi->fh = (uintptr_t)h;
    fi->direct_io = 1;              /* what is written and what is read are not one content */
    fi->parallel_direct_writes = 1; /* one that waits holds no other up */
    fi->noflush = 1;
    if (fuse_reply_open(req, fi) < 0) {
        front_opened_remove(fs, &h->opened);
        control_handle_unref(h);
    }
}

void control_cancel_locked(struct control_handle *h)
{
    if (h->task_state == CONTROL_TASK_RUNS)
        meta_task_cancel(h->fs->meta, &h->task);
    h->cancel = true;
}

/* Takes the read that waits, if there is one (or this very one). */
static fuse_req_t unpark(struct control_handle *h, fuse_req_t only)
{
    pthread_mutex_lock(&h->lock);
    fuse_req_t req = h->parked;
    if (only && req != only)
        req = NULL;
    if (req)
        h->parked = NULL;
    pthread_mutex_unlock(&h->lock);
    return req;
}

void control_release(fuse_req_t req, struct fuse_file_info *fi)
{
    struct fs *fs = front_fs(req);
    struct control_handle *h = handle_of(fi);
    front_opened_remove(fs, &h->opened);
    pthread_mutex_lock(&h->lock);
    h->closed = true;
    control_cancel_locked(h);
    bool stop = h->stop_on_release && h->state == CONTROL_READY;
    pthread_mutex_unlock(&h->lock);
    control_handle_unref(h);
    fuse_reply_err(req, 0);
    if (stop)
        fs_stop(fs);
}

void control_handle_free(struct front_opened *opened)
{
    control_handle_unref(container_of(opened, struct control_handle, opened));
}

/* --- Reading the reply */
static void reply_read(struct control_handle *h, fuse_req_t req, size_t size)
{
    /* The reply does not change between its end and the next request, which needs a write: one that
     * runs beside this read would be the caller's own error, and is kept out by the lock. */
    pthread_mutex_lock(&h->lock);
    size_t len = MIN(h->reply.len - h->read, size);
    fuse_reply_buf(req, len ? (const char *)h->reply.data + h->read : NULL, len);
    h->read += len;
    pthread_mutex_unlock(&h->lock);
}

static void interrupted(fuse_req_t req, void *data)
{
    if (unpark(data, req))
        fuse_reply_err(req, EINTR);
}

void control_read(fuse_req_t req, struct fuse_file_info *fi, size_t size)
{
    struct control_handle *h = handle_of(fi);
    pthread_mutex_lock(&h->lock);
    bool wait = h->state == CONTROL_RUNNING;
    bool busy = wait && h->parked;
    pthread_mutex_unlock(&h->lock);
    if (busy) {
        fuse_reply_err(req, EBUSY);
        return;
    }
    if (!wait) {
        reply_read(h, req, size);
        return;
    }
    /* Without h->lock: an interrupt that is there already calls back at once. */
    fuse_req_interrupt_func(req, interrupted, h);
    pthread_mutex_lock(&h->lock);
    bool parked = h->state == CONTROL_RUNNING && !h->parked;
    bool gone = parked && fuse_req_interrupted(req);
    if (parked && !gone) {
        h->parked = req;
        h->parked_size = size;
    }
    pthread_mutex_unlock(&h->lock);
    if (gone)
        fuse_reply_err(req, EINTR);
    else if (!parked)
        reply_read(h, req, size);
}

/* --- Writing a request */
static bool begin_job(struct control *c)
{
    pthread_mutex_lock(&c->lock);
    bool begun = !c->closing;
    if (begun)
        c->running++;
    pthread_mutex_unlock(&c->lock);
    return begun;
}

static void end_job(struct control *c)
{
    pthread_mutex_lock(&c->lock);
    if (--c->running == 0)
        pthread_cond_broadcast(&c->idle);
    pthread_mutex_unlock(&c->lock);
}

static void run_job(struct pool_task *task)
{
    control_run(container_of(task, struct control_handle, pool_task));
}

void control_submit(struct control_handle *h)
{
    pool_submit(h->fs->control->pool, &h->pool_task);
}

static void reply_write(fuse_req_t req, int result, size_t size)
{
    if (result < 0)
        fuse_reply_err(req, -result);
    else
        fuse_reply_write(req, size);
}

void control_finish(struct control_handle *h)
{
    struct control *c = h->fs->control;
    pthread_mutex_lock(&h->lock);
    if (buf_error(&h->reply) < 0) {
        buf_reset(&h->reply);
        control_put_error(&h->reply, -ENOMEM, "no memory");
    }
    h->state = CONTROL_READY;
    bool stop = h->stop_on_release && h->closed;
    fuse_req_t req = h->parked, write_req = h->write_req;
    size_t size = h->parked_size, write_size = h->write_size;
    int result = h->result;
    h->parked = h->write_req = NULL;
    pthread_mutex_unlock(&h->lock);
    if (write_req)
        reply_write(write_req, result, write_size);
    if (req)
        reply_read(h, req, size);
    if (stop)
        fs_stop(h->fs);
    control_handle_unref(h);
    end_job(c);
}

/* 0: taken and answered or running; -EINPROGRESS: the write is answered at its end. */
static int take_request(struct control_handle *h, fuse_req_t req, const char *text, size_t len)
{
    struct control_request request;
    struct error error = {0};
    int result = control_parse(text, len, &request, &error);
    pthread_mutex_lock(&h->lock);
    if (h->state == CONTROL_RUNNING || (result == 0 && !begin_job(h->fs->control))) {
        int refused = h->state == CONTROL_RUNNING ? -EBUSY : -ESHUTDOWN;
        pthread_mutex_unlock(&h->lock);
        if (result == 0)
            control_request_done(&request);
        return refused;
    }
    buf_reset(&h->reply);
    h->read = 0;
    if (result < 0) {
        control_put_error(&h->reply, result, error_text(&error));
        h->state = CONTROL_READY;
        pthread_mutex_unlock(&h->lock);
        return atomic_load(&h->waits) ? result : 0;
    }
    bool waits = request.op == CONTROL_RENAME && atomic_load(&h->waits);
    control_request_done(&h->request);
    h->request = request;
    h->result = 0;
    h->write_req = waits ? req : NULL;
    h->write_size = len;
    h->state = CONTROL_RUNNING;
    control_handle_ref(h);
    pthread_mutex_unlock(&h->lock);
    h->pool_task.run = run_job;
    control_submit(h);
    return waits ? -EINPROGRESS : 0;
}

void control_write(fuse_req_t req, struct fuse_file_info *fi, struct fuse_bufvec *in)
{
    size_t size = fuse_buf_size(in);
    if (size > CONTROL_TEXT_MAX) {
        fuse_reply_err(req, EMSGSIZE);
        return;
    }
    cleanup(free_ptr) char *text = malloc(size + 1);
    struct fuse_bufvec out = FUSE_BUFVEC_INIT(size);
    out.buf[0].mem = text;
    ssize_t got = text ? fuse_buf_copy(&out, in, 0) : -ENOMEM;
    if (got < 0 || (size_t)got != size) {
        fuse_reply_err(req, got < 0 ? (int)-got : EIO);
        return;
    }
    int result = take_request(handle_of(fi), req, text, size);
    if (result != -EINPROGRESS)
        reply_write(req, result, size);
}

/* --- The whole */
int control_new(struct fs *fs, struct control **out)
{
    struct control *c = calloc(1, sizeof(*c));
    if (!c)
        return -ENOMEM;
    c->fs = fs;
    int result = pool_new(&c->pool, "fs-control", POOL_THREADS);
    if (result < 0) {
        free(c);
        return result;
    }
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->idle, NULL);
    *out = c;
    return 0;
}

void control_stop(struct control *c)
{
    pthread_mutex_lock(&c->lock);
    c->closing = true;
    pthread_mutex_unlock(&c->lock);

    struct fs *fs = c->fs;
    struct front_opened *opened;
    pthread_mutex_lock(&fs->opened_lock);
    DL_FOREACH(fs->opened, opened)
    {
        if (opened->kind != FRONT_CONTROL)
            continue;
        struct control_handle *h = container_of(opened, struct control_handle, opened);
        pthread_mutex_lock(&h->lock);
        control_cancel_locked(h);
        pthread_mutex_unlock(&h->lock);
    }
    pthread_mutex_unlock(&fs->opened_lock);

    pthread_mutex_lock(&c->lock);
    while (c->running > 0)
        pthread_cond_wait(&c->idle, &c->lock);
    pthread_mutex_unlock(&c->lock);
}

void control_free(struct control *c)
{
    if (!c)
        return;
    pool_free(c->pool);
    pthread_cond_destroy(&c->idle);
    pthread_mutex_destroy(&c->lock);
    free(c);
}
