/* Open files: the data path does the work, here are its handles and the kernel's flags. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utlist.h>

#include "base/blocking.h"
#include "base/cleanup.h"
#include "control/front_control.h"
#include "front.h"

#define COPY_MAX (1u << 30) /* bytes of one copy_file_range; callers go on where it ended */

static struct front_file *file_of(const struct fuse_file_info *fi)
{
    return (struct front_file *)(uintptr_t)fi->fh;
}

/* --- open, release */
static void set_mode(struct front_request *r)
{
    bool direct;
    r->fi.backing_id = data_handle_passthrough(r->file->handle, &direct);
    r->fi.direct_io = direct;
    if (!r->fi.backing_id)
        return;
    r->fi.keep_cache = false; /* the kernel refuses both */
    if (r->file->writable && !direct)
        atomic_store(&r->file->written, true); /* or not: nobody will say */
}

/* Locks of a process end with its close, and only a flush tells of that (docs/locks.md). Until the
 * first lock nobody needs to be told. */
static void set_flush(struct front_request *r)
{
    struct fs *fs = r->fs;
    bool locks = fs->config.shared && atomic_load(&fs->ranges_locked);
    r->fi.noflush = !r->file->writable && !locks;
}

int front_file_open(struct front_request *r, const struct meta_attr *attr, bool created)
{
    struct fs *fs = r->fs;
    struct front_file *file = calloc(1, sizeof(*file));
    if (!file)
        return -ENOMEM;
    file->opened.kind = FRONT_FILE;
    file->ino = attr->ino;
    /* O_TRUNC is a change by whoever may write the file, even of a handle that only reads. */
    file->writable = (r->fi.flags & O_ACCMODE) != O_RDONLY || (r->fi.flags & O_TRUNC);
    file->created = created;
    file->synced = created && r->meta.durable;
    file->sequence = r->meta.sequence;
    atomic_store(&file->may_have_caps, file->writable && attr->has_xattr);
    /* With the kernel's write-back cache any handle may be asked for what it has to fill a page
     * with. */
    int result = data_file_open(fs->data, attr, file->writable, &file->handle);
    if (result == -EAGAIN && created) /* nobody had it before: its number was used in a lost past */
        result = data_file_open(fs->data, attr, file->writable, &file->handle);
    if (result < 0) {
        free(file);
        return result;
    }
    if (created)
        result = data_handle_mode(file->handle, r->fi.flags, NULL);
    if (result < 0) {
        front_file_free(file);
        return result;
    }
    front_opened_add(fs, &file->opened);
    r->file = file;
    r->fi.fh = (uintptr_t)file;
    r->fi.keep_cache = created || data_handle_keep_cache(file->handle);
    set_flush(r);
    if (created)
        set_mode(r);
    return 0;
}

void front_file_close(struct fs *fs, struct front_file *file)
{
    front_opened_remove(fs, &file->opened);
    front_file_free(file);
}

void front_file_free(struct front_file *file)
{
    data_file_release(file->handle);
    free(file);
}

static void open_reply(struct front_request *r)
{
    if (r->result < 0) {
        front_file_close(r->fs, r->file);
        front_reply_result(r, r->result);
        return;
    }
    if (fuse_reply_open(r->req, &r->fi) < 0)
        front_file_close(r->fs, r->file);
    front_end(r);
}

static void open_truncated(struct front_request *r)
{
    if (r->result < 0 || !r->fi.kill_suidgid) {
        open_reply(r);
        return;
    }
    struct meta_op *op = front_meta_again(r, META_SETATTR);
    op->ino = r->ino;
    op->valid = META_KILL_SUID;
    front_meta(r, open_reply);
}

static void open_decided(struct front_request *r)
{
    if (r->result < 0) {
        open_reply(r);
        return;
    }
    set_mode(r);
    if (r->fi.flags & O_TRUNC) {
        atomic_store(&r->file->written, true);
        front_data_result(
            r, data_truncate(r->fs->data, r->ino, 0, front_data_prepare(r, open_truncated)));
    } else {
        open_reply(r);
    }
}

static void open_ask(struct front_request *r);

static void open_found(struct front_request *r)
{
    int result = r->result;
    if (result == 0)
        result = front_file_open(r, &r->meta.reply.attr, false);
    if (result == -EAGAIN && r->result == 0) {
        open_ask(r); /* somebody has closed it since, with newer bytes */
        return;
    }
    if (result == 0 && r->meta.op.kind == META_EXTENTS)
        data_handle_extents(r->file->handle, &r->meta.reply, r->offset);
    else if (result == 0 && r->meta.op.flags & META_OPENING)
        data_handle_kept(r->file->handle, r->offset);
    if (result < 0)
        front_reply_result(r, result);
    else
        front_data_result(
            r, data_handle_mode(r->file->handle, r->fi.flags, front_data_prepare(r, open_decided)));
}

static void open_ask(struct front_request *r)
{
    struct fs *fs = r->fs;
    struct meta_op *op = front_meta_again(r, META_GETATTR);
    op->ino = r->ino;
    if (fs->config.shared && (r->fi.flags & O_ACCMODE) == O_RDONLY && !(r->fi.flags & O_TRUNC)) {
        op->flags = META_OPENING;
        r->offset = data_changes(fs->data);
    }
    front_meta(r, open_found);
}

void front_op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct fs *fs = front_fs(req);
    if (front_is_control(ino)) {
        control_open(req, ino, fi);
        return;
    }
    if (fs->config.read_only && ((fi->flags & O_ACCMODE) != O_RDONLY || (fi->flags & O_TRUNC))) {
        fuse_reply_err(req, EROFS);
        return;
    }
    struct front_request *r = front_begin(fs, req, FRONT_OPEN);
    if (!r)
        return;
    r->fi = *fi;
    r->ino = ino;
    open_ask(r);
}

void front_op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    if (front_is_control(ino)) {
        control_release(req, fi);
        return;
    }
    front_lock_release(front_fs(req), file_of(fi));
    /* Before the reply: the kernel may forget the inode after it. */
    front_file_close(front_fs(req), file_of(fi));
    fuse_reply_err(req, 0);
}

/* --- read */
static void read_done(struct front_request *r)
{
    if (r->result < 0) {
        front_reply_result(r, r->result);
        return;
    }
    struct data_buffer *buffer = r->data.buffer;
    front_count(r);
    if (buffer->fd >= 0) {
        struct fuse_bufvec out = FUSE_BUFVEC_INIT(buffer->length);
        out.buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK | FUSE_BUF_FD_RETRY;
        out.buf[0].fd = buffer->fd;
        out.buf[0].pos = (off_t)buffer->fd_offset;
        fuse_reply_data(r->req, &out, FUSE_BUF_SPLICE_MOVE);
    } else if (buffer->iov_count == 1) {
        fuse_reply_buf(r->req, buffer->iov[0].iov_base, buffer->iov[0].iov_len);
    } else {
        fuse_reply_iov(r->req, buffer->iov, (int)buffer->iov_count);
    }
    data_buffer_put(buffer);
    front_end(r);
}

void front_op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
                   struct fuse_file_info *fi)
{
    if (front_is_control(ino)) {
        control_read(req, fi, size);
        return;
    }
    struct front_request *r = front_begin(front_fs(req), req, FRONT_READ);
    if (!r)
        return;
    front_use(r, size);
    r->ino = ino;
    struct fs *fs = r->fs;
    struct data_request *data = front_data_prepare(r, read_done);
    /* A thread of the classic transport that reads the cache's disk itself saves the way over
     * another one. Some of them stay for the rest, also when a disk does not answer. */
    bool spare = atomic_fetch_add(&fs->reading, 1) < fs->config.max_threads * 4 / 5;
    data->may_wait = spare && !fuse_req_is_uring(req);
    front_data_result(r, data_read(file_of(fi)->handle, (uint64_t)off, size, data));
    atomic_fetch_sub(&fs->reading, 1);
}

/* --- write */
static void write_done(struct front_request *r)
{
    if (r->result < 0) {
        front_reply_result(r, r->result);
        return;
    }
    if (data_handle_left_pages(r->file->handle) || data_handle_displaced(r->file->handle))
        notify_inode(r->fs->notify, r->ino, true);
    fuse_reply_write(r->req, (size_t)r->result);
    front_end(r);
}

/* File capabilities do not survive a write (HANDLE_KILLPRIV_V2 leaves that to us): removed once for
 * each handle that found extended attributes, and once after they were set. */
static void caps_removed(struct front_request *r)
{
    r->result = (int)r->size;
    write_done(r);
}

void front_has_caps(struct fs *fs, uint64_t ino)
{
    struct front_opened *opened;
    pthread_mutex_lock(&fs->opened_lock);
    DL_FOREACH(fs->opened, opened)
    {
        struct front_file *file =
            opened->kind == FRONT_FILE ? container_of(opened, struct front_file, opened) : NULL;
        if (file && file->ino == ino && file->writable)
            atomic_store(&file->may_have_caps, true);
    }
    pthread_mutex_unlock(&fs->opened_lock);
}

static void remove_caps(struct front_request *r)
{
    if (r->result < 0) {
        front_reply_result(r, r->result);
        return;
    }
    r->size = (size_t)r->result;
    struct meta_op *op = front_meta_again(r, META_REMOVEXATTR);
    op->ino = r->ino;
    op->name = (struct meta_name){.bytes = "security.capability", .len = 19};
    front_meta(r, caps_removed);
}

static void kill_suid(struct front_request *r)
{
    if (r->result < 0) {
        front_reply_result(r, r->result);
        return;
    }
    r->size = (size_t)r->result;
    struct meta_op *op = front_meta_again(r, META_SETATTR);
    op->ino = r->ino;
    op->valid = META_KILL_SUID;
    front_meta(r, caps_removed);
}

/* A write that must wait (back-pressure) needs its bytes after the handler has returned. Over
 * io_uring they are the request's until its reply. Otherwise they lie in the thread's own buffer: a
 * write that has to wait takes a copy with it, and holds no thread. Only when copies have reached
 * their maximum, the next one waits in its thread, until somebody else's wait is over. */
struct waiting_write {
    struct fuse_bufvec vec;
    size_t size;
    void (*then)(struct front_request *r);
    char bytes[];
};

struct blocked {
    sem_t done;
    struct data_request data;
};

static void blocked_done(struct data_request *request)
{
    sem_post(&((struct blocked *)request->arg)->done);
}

static int write_in_place(struct front_request *r, struct fuse_bufvec *in, uint64_t offset,
                          bool append)
{
    struct blocked blocked = {.data.done = blocked_done, .data.arg = &blocked};
    sem_init(&blocked.done, 0, 0);
    int result = data_write(r->file->handle, in, offset, append, &blocked.data);
    if (result == -EINPROGRESS) {
        blocking_begin();
        while (sem_wait(&blocked.done) < 0 && errno == EINTR)
            ;
        result = blocked.data.result;
    }
    sem_destroy(&blocked.done);
    return result;
}

static void write_waited(struct front_request *r)
{
    struct waiting_write *waiting = r->heap;
    atomic_fetch_sub(&r->fs->waiting_bytes, waiting->size);
    waiting->then(r);
}

static int write_later(struct front_request *r, struct fuse_bufvec *in, uint64_t offset,
                       bool append, void (*then)(struct front_request *r))
{
    size_t size = fuse_buf_size(in);
    struct waiting_write *waiting = NULL;
    if (atomic_fetch_add(&r->fs->waiting_bytes, size) + size <= FRONT_WAITING_MAX)
        waiting = malloc(sizeof(*waiting) + size);
    if (!waiting) {
        atomic_fetch_sub(&r->fs->waiting_bytes, size);
        return write_in_place(r, in, offset, append);
    }
    waiting->vec = FUSE_BUFVEC_INIT(size);
    waiting->vec.buf[0].mem = waiting->bytes;
    waiting->size = size;
    waiting->then = then;
    r->heap = waiting;
    struct data_request *request = front_data_prepare(r, write_waited);
    ssize_t got = fuse_buf_copy(&waiting->vec, in, 0);
    if (got < 0 || (size_t)got != size)
        return got < 0 ? (int)got : -EIO;
    waiting->vec.idx = 0;
    waiting->vec.off = 0;
    return data_write(r->file->handle, &waiting->vec, offset, append, request);
}

void front_op_write_buf(fuse_req_t req, fuse_ino_t ino, struct fuse_bufvec *in, off_t off,
                        struct fuse_file_info *fi)
{
    struct fs *fs = front_fs(req);
    if (front_is_control(ino)) {
        control_write(req, fi, in);
        return;
    }
    struct front_request *r = front_begin(fs, req, FRONT_WRITE);
    if (!r)
        return;
    front_use(r, fuse_buf_size(in));
    r->ino = ino;
    r->file = file_of(fi);
    if (!atomic_load_explicit(&r->file->written, memory_order_relaxed))
        atomic_store(&r->file->written, true);
    void (*step)(struct front_request *) = write_done;
    if (fi->kill_suidgid)
        step = kill_suid;
    else if (atomic_load_explicit(&r->file->may_have_caps, memory_order_relaxed) &&
             atomic_exchange(&r->file->may_have_caps, false))
        step = remove_caps;
    front_data_prepare(r, step);
    /* O_APPEND: the kernel holds the inode's lock; where it says is where its page cache has the
     * bytes, and it knows the size, but for what other mounts write. */
    bool append = fs->config.shared && (fi->flags & O_APPEND) && !fi->writepage;
    int result;
    if (fuse_req_is_uring(req)) {
        r->vec = *in;
        result = data_write(r->file->handle, &r->vec, (uint64_t)off, append, &r->data);
    } else {
        result = data_write(r->file->handle, in, (uint64_t)off, append, NULL);
        if (result == -EAGAIN)
            result = write_later(r, in, (uint64_t)off, append, step);
    }
    front_data_result(r, result);
}

/* --- flush, fsync */
static void synced(struct front_request *r)
{
    front_reply_result(r, r->result);
}

static void flush_synced(struct front_request *r)
{
    front_lock_flush(r);
}

static void flushed(struct front_request *r)
{
    struct fs *fs = r->fs;
    bool empty = r->file->created && !atomic_load(&r->file->written);
    if (r->file->created && !empty)
        atomic_store(&fs->empty_closes, 0);
    else if (empty && atomic_load(&fs->empty_closes) < FRONT_EMPTY_CLOSES)
        atomic_fetch_add(&fs->empty_closes, 1);
    /* A new file that nothing was written to: its name must survive its close too. */
    bool unsynced = empty && !r->file->synced;
    /* Its bytes are on the disk; so its name has to be. */
    bool local = atomic_load(&r->file->written) && data_handle_is_local(r->file->handle);
    if (r->result == 0 && (unsynced || local)) {
        front_sync(r, local ? 0 : r->file->sequence, flush_synced);
    } else {
        front_lock_flush(r);
    }
}

static void flush(struct front_request *r, void (*step)(struct front_request *r))
{
    struct data_request *data = front_data_prepare(r, step);
    data->may_wait = front_may_wait(r);
    front_data_result(r, data_flush(r->file->handle, data));
}

void front_op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    if (front_is_control(ino) || (!file_of(fi)->writable && !front_fs(req)->config.shared)) {
        fuse_reply_err(req, 0);
        return;
    }
    struct front_request *r = front_begin(front_fs(req), req, FRONT_FLUSH);
    if (!r)
        return;
    front_use(r, 0);
    r->ino = ino;
    r->fi = *fi;
    r->file = file_of(fi);
    if (!r->file->writable) {
        front_lock_flush(r);
        return;
    }
    flush(r, flushed);
}

static void fsync_flushed(struct front_request *r)
{
    if (r->result < 0)
        front_reply_result(r, r->result);
    else if (data_handle_is_local(r->file->handle))
        front_sync(r, 0, synced);
    else
        front_sync_inode(r, synced);
}

void front_op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
    if (front_is_control(ino)) {
        fuse_reply_err(req, 0);
        return;
    }
    struct front_request *r = front_begin(front_fs(req), req, FRONT_FSYNC);
    if (!r)
        return;
    front_use(r, 0);
    r->ino = ino;
    r->file = file_of(fi);
    flush(r, fsync_flushed);
}

/* --- fallocate, copy_file_range, lseek */
static void fallocate_done(struct front_request *r)
{
    front_reply_result(r, r->result);
}

void front_op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
                        struct fuse_file_info *fi)
{
    if (front_is_control(ino)) {
        fuse_reply_err(req, EOPNOTSUPP);
        return;
    }
    struct front_request *r = front_begin(front_fs(req), req, FRONT_FALLOCATE);
    if (!r)
        return;
    r->ino = ino;
    r->file = file_of(fi);
    atomic_store(&r->file->written, true);
    front_data_result(r, data_fallocate(r->file->handle, mode, (uint64_t)offset, (uint64_t)length,
                                        front_data_prepare(r, fallocate_done)));
}

void front_op_copy(fuse_req_t req, fuse_ino_t ino_in, off_t off_in, struct fuse_file_info *fi_in,
                   fuse_ino_t ino_out, off_t off_out, struct fuse_file_info *fi_out, size_t len,
                   int flags)
{
    if (front_is_control(ino_in) || front_is_control(ino_out)) {
        fuse_reply_err(req, EXDEV); /* the kernel copies by read and write then */
        return;
    }
    struct front_request *r = front_begin(front_fs(req), req, FRONT_COPY);
    if (!r)
        return;
    front_use(r, len < COPY_MAX ? len : COPY_MAX);
    r->ino = ino_out;
    r->file = file_of(fi_out);
    atomic_store(&r->file->written, true);
    front_data_result(r, data_copy(file_of(fi_in)->handle, (uint64_t)off_in, r->file->handle,
                                   (uint64_t)off_out, len < COPY_MAX ? len : COPY_MAX,
                                   front_data_prepare(r, write_done)));
}

static void lseek_done(struct front_request *r)
{
    if (r->result < 0) {
        front_reply_result(r, r->result);
        return;
    }
    fuse_reply_lseek(r->req, (off_t)r->data.offset);
    front_end(r);
}

void front_op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence,
                    struct fuse_file_info *fi)
{
    if (front_is_control(ino)) {
        fuse_reply_err(req, ESPIPE);
        return;
    }
    if (front_fs(req)->config.writeback) {
        /* The kernel does not write back before it asks, so bytes that it still has would be a
         * hole. Without an answer it takes the whole file for data. */
        fuse_reply_err(req, ENOSYS);
        return;
    }
    struct front_request *r = front_begin(front_fs(req), req, FRONT_LSEEK);
    if (!r)
        return;
    r->ino = ino;
    front_data_result(r, data_seek(file_of(fi)->handle, (uint64_t)off, whence,
                                   front_data_prepare(r, lseek_done)));
}
