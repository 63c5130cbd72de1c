/* Operations on names: each is one operation on the namespace. */
#include <errno.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>

#include "control/front_control.h"
#include "front.h"
#include "front_inodes.h"

/* The least that the kernel counts: one tick. */
#define CREATED_TIMEOUT_S 0.001

/* The control directory's name at the root is not the volume's. */
static bool is_reserved(fuse_ino_t parent, const char *name)
{
    return front_is_control(parent) ||
           (parent == META_ROOT_INO && strcmp(name, FRONT_CONTROL_DIR) == 0);
}

/* Begins an operation that changes `name` in `parent`: NULL if it was answered already. */
static struct front_request *begin_change(fuse_req_t req, enum front_op op, enum meta_kind kind,
                                          fuse_ino_t parent, const char *name)
{
    struct fs *fs = front_fs(req);
    if (fs->config.read_only || is_reserved(parent, name)) {
        fuse_reply_err(req, fs->config.read_only ? EROFS : EPERM);
        return NULL;
    }
    struct front_request *r = front_begin(fs, req, op);
    if (!r)
        return NULL;
    r->parent = parent;
    r->meta.op.kind = kind;
    r->meta.op.parent = parent;
    return front_name(r, 0, name, &r->meta.op.name) ? r : NULL;
}

static void entry_done(struct front_request *r)
{
    if (r->result < 0)
        front_reply_result(r, r->result);
    else
        front_reply_entry(r, &r->meta.reply.attr);
}

/* --- lookup, forget */
static void lookup_done(struct front_request *r)
{
    if (r->result == -ENOENT && r->fs->negative_timeout_s > 0 && r->fs->names_cached &&
        !r->meta.reply.whole) {
        struct fuse_entry_param none = {.entry_timeout =
                                            front_timeout(r->fs, r->fs->negative_timeout_s)};
        fuse_reply_entry(r->req, &none);
        front_end(r);
        return;
    }
    entry_done(r);
}

/* Lookups by file handle (name_to_handle_at, NFS): "." is the inode itself. ".." is found by the
 * directory's path, name after name from the root. r->heap: the path of the parent; r->offset: how
 * much of it was walked. */
static void parent_walk(struct front_request *r)
{
    if (r->result < 0) {
        front_reply_result(r, r->result == -ENOENT ? -ESTALE : r->result);
        return;
    }
    const char *at = (const char *)r->heap + r->offset;
    if (*at == 0) {
        front_reply_entry(r, &r->meta.reply.attr);
        return;
    }
    uint64_t parent = r->meta.reply.attr.ino;
    struct meta_name name = control_path_next(&at);
    r->offset = (uint64_t)(at - (const char *)r->heap);
    struct meta_op *op = front_meta_again(r, META_LOOKUP);
    op->parent = parent;
    op->name = name;
    front_meta(r, parent_walk);
}

static void parent_path(struct front_request *r)
{
    char *path = r->result == 0 ? strndup(r->meta.reply.data, r->meta.reply.data_len) : NULL;
    if (!path) {
        front_reply_result(r, r->result < 0 ? -ESTALE : -ENOMEM);
        return;
    }
    char *slash = strrchr(path, '/');
    *(slash ? slash : path) = 0;
    r->heap = path;
    front_meta_again(r, META_GETATTR)->ino = META_ROOT_INO;
    front_meta(r, parent_walk);
}

static void lookup_handle(struct front_request *r, fuse_ino_t ino, bool parent)
{
    r->meta.op.kind = parent ? META_PATH : META_GETATTR;
    r->meta.op.ino = ino;
    front_meta(r, parent ? parent_path : entry_done);
}

void front_op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fs *fs = front_fs(req);
    if (is_reserved(parent, name)) {
        control_lookup(req, parent, name);
        return;
    }
    struct front_request *r = front_begin(fs, req, FRONT_LOOKUP);
    if (!r)
        return;
    r->parent = parent;
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
        lookup_handle(r, parent, name[1] == '.');
        return;
    }
    r->meta.op.kind = META_LOOKUP;
    r->meta.op.parent = parent;
    if (front_name(r, 0, name, &r->meta.op.name))
        front_meta(r, lookup_done);
}

static void forget(struct fs *fs, fuse_ino_t ino, uint64_t count)
{
    if (!front_is_control(ino) && inodes_forget(fs->inodes, ino, count))
        notify_drop(fs->notify, ino);
}

void front_op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup)
{
    forget(front_fs(req), ino, nlookup);
    fuse_reply_none(req);
}

void front_op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
    struct fs *fs = front_fs(req);
    for (size_t i = 0; i < count; i++)
        forget(fs, forgets[i].ino, forgets[i].nlookup);
    fuse_reply_none(req);
}

/* --- mknod, mkdir, symlink, link, create */
static struct front_request *begin_make(fuse_req_t req, enum front_op op, fuse_ino_t parent,
                                        const char *name, mode_t mode, dev_t rdev)
{
    struct front_request *r = begin_change(req, op, META_MKNOD, parent, name);
    if (!r)
        return NULL;
    const struct fuse_ctx *ctx = fuse_req_ctx(req);
    r->meta.op.attr.mode = mode;
    r->meta.op.attr.uid = ctx->uid;
    r->meta.op.attr.gid = ctx->gid;
    r->meta.op.attr.rdev = rdev;
    r->meta.op.valid = r->fs->config.posix_acl ? ctx->umask : 0;
    return r;
}

void front_op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
    if ((mode & S_IFMT) == 0)
        mode |= S_IFREG;
    struct front_request *r = begin_make(req, FRONT_MKNOD, parent, name, mode, rdev);
    if (r)
        front_meta(r, entry_done);
}

void front_op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
    struct front_request *r =
        begin_make(req, FRONT_MKDIR, parent, name, (mode & ~S_IFMT) | S_IFDIR, 0);
    if (r)
        front_meta(r, entry_done);
}

void front_op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
    struct front_request *r = begin_make(req, FRONT_SYMLINK, parent, name, S_IFLNK | 0777, 0);
    if (!r)
        return;
    size_t len = strnlen(target, META_SYMLINK_MAX + 1);
    if (len > META_SYMLINK_MAX) {
        front_reply_result(r, -ENAMETOOLONG);
        return;
    }
    r->heap = strndup(target, len);
    if (!r->heap) {
        front_reply_result(r, -ENOMEM);
        return;
    }
    r->meta.op.data = r->heap;
    r->meta.op.data_len = len;
    front_meta(r, entry_done);
}

static void link_done(struct front_request *r)
{
    if (r->result == 0) {
        inodes_linked(r->fs->inodes, r->ino);
        data_linked(r->fs->data, r->ino);
    } else if (r->nameless) {
        data_unlinked(r->fs->data, r->ino);
    }
    entry_done(r);
}

/* A file without a name is not sent to the store. It gets its name when its bytes are durable: so
 * what was synced before is synced then. */
static void link_flushed(struct front_request *r)
{
    if (r->result < 0) {
        data_unlinked(r->fs->data, r->ino);
        front_reply_result(r, r->result);
    } else {
        front_meta(r, link_done);
    }
}

void front_op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
    if (front_is_control(ino)) {
        fuse_reply_err(req, EPERM);
        return;
    }
    struct front_request *r = begin_change(req, FRONT_LINK, META_LINK, parent, name);
    if (!r)
        return;
    r->ino = r->meta.op.ino = ino;
    r->nameless = data_is_unlinked(r->fs->data, ino);
    if (!r->nameless) {
        front_meta(r, link_done);
        return;
    }
    data_linked(r->fs->data, ino);
    front_data_result(r, data_flush_ino(r->fs->data, ino, front_data_prepare(r, link_flushed)));
}

static void create_done(struct front_request *r)
{
    /* The kernel believed that the name is free. ESTALE makes it look again, and open what is
     * there; only with O_EXCL is that the caller's error. */
    if (r->result == -EEXIST && !(r->fi.flags & O_EXCL))
        r->result = -ESTALE;
    if (r->result < 0) {
        fuse_reply_err(r->req, -r->result);
        front_end(r);
        return;
    }
    struct meta_attr *attr = &r->meta.reply.attr;
    int result = front_file_open(r, attr, true);
    struct fuse_entry_param e;
    if (result == 0) {
        result = front_entry(r->fs, attr, &e);
        /* As in front_reply_entry, but that the kernel looks at them once more in this very call:
         * without them it would ask. */
        if (r->fs->config.shared)
            e.attr_timeout = MIN(e.attr_timeout, CREATED_TIMEOUT_S);
        if (result < 0)
            front_file_close(r->fs, r->file);
    }
    if (result < 0) {
        front_reply_result(r, result);
        return;
    }
    if (r->nameless)
        front_unlinked(r->fs, attr->ino);
    if (fuse_reply_create(r->req, &e, &r->fi) < 0) {
        front_file_close(r->fs, r->file);
        front_entry_undo(r->fs, attr->ino);
    }
    front_end(r);
}

void front_op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
                     struct fuse_file_info *fi)
{
    struct front_request *r =
        begin_make(req, FRONT_CREATE, parent, name, (mode & ~S_IFMT) | S_IFREG, 0);
    if (!r)
        return;
    r->fi = *fi;
    /* The close of an empty file would ask the service to sync its name: that is one request with
     * this one. A file that is written then, in spite of what was closed before, costs a sync. */
    r->meta.durable =
        r->fs->config.shared && atomic_load(&r->fs->empty_closes) >= FRONT_EMPTY_CLOSES;
    front_meta(r, create_done);
}

void front_op_tmpfile(fuse_req_t req, fuse_ino_t parent, mode_t mode, struct fuse_file_info *fi)
{
    struct fs *fs = front_fs(req);
    if (fs->config.read_only || front_is_control(parent)) {
        fuse_reply_err(req, fs->config.read_only ? EROFS : EPERM);
        return;
    }
    struct front_request *r = front_begin(fs, req, FRONT_CREATE);
    if (!r)
        return;
    const struct fuse_ctx *ctx = fuse_req_ctx(req);
    r->fi = *fi;
    r->parent = parent;
    r->nameless = true;
    r->meta.op.kind = META_MKNOD;
    r->meta.op.flags = META_NAMELESS;
    r->meta.op.parent = parent;
    r->meta.op.attr.mode = (mode & ~S_IFMT) | S_IFREG;
    r->meta.op.attr.uid = ctx->uid;
    r->meta.op.attr.gid = ctx->gid;
    r->meta.op.valid = fs->config.posix_acl ? ctx->umask : 0;
    front_meta(r, create_done);
}

/* --- unlink, rmdir, rename */
static void unlink_done(struct front_request *r)
{
    if (r->result == 0 && r->meta.reply.attr.nlink == 0)
        front_unlinked(r->fs, r->meta.reply.attr.ino);
    front_reply_result(r, r->result);
}

void front_op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct front_request *r = begin_change(req, FRONT_UNLINK, META_UNLINK, parent, name);
    if (r)
        front_meta(r, unlink_done);
}

void front_op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct front_request *r = begin_change(req, FRONT_RMDIR, META_UNLINK, parent, name);
    if (!r)
        return;
    r->meta.op.flags = META_RMDIR;
    front_meta(r, unlink_done);
}

static void rename_noted(struct front_request *r)
{
    front_reply_result(r, r->result);
}

static void rename_done(struct front_request *r)
{
    if (r->result < 0)
        atomic_fetch_add(&r->fs->failed_renames, 1);
    const struct meta_attr *replaced = &r->meta.reply.replaced;
    if (r->result == 0 && replaced->ino != 0 && replaced->nlink == 0)
        front_unlinked(r->fs, replaced->ino);
    if (r->result < 0) {
        front_reply_result(r, r->result);
        return;
    }
    const struct meta_attr *moved = &r->meta.reply.attr;
    bool one = S_ISREG(moved->mode) && !(r->meta.op.flags & RENAME_EXCHANGE);
    front_data_result(
        r, data_renamed(r->fs->data, one ? moved->ino : 0, front_data_prepare(r, rename_noted)));
}

void front_op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
                     const char *new_name, unsigned flags)
{
    if (flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE)) {
        fuse_reply_err(req, EINVAL);
        return;
    }
    if (is_reserved(new_parent, new_name)) {
        fuse_reply_err(req, EPERM);
        return;
    }
    struct front_request *r = begin_change(req, FRONT_RENAME, META_RENAME, parent, name);
    if (!r || !front_name(r, 1, new_name, &r->meta.op.new_name))
        return;
    r->meta.op.new_parent = new_parent;
    r->meta.op.flags = flags;
    front_meta(r, rename_done);
}

/* --- readlink */
static void readlink_done(struct front_request *r)
{
    if (r->result < 0) {
        front_reply_result(r, r->result);
        return;
    }
    fuse_reply_buf(r->req, r->meta.reply.data, r->meta.reply.data_len);
    front_end(r);
}

void front_op_readlink(fuse_req_t req, fuse_ino_t ino)
{
    struct front_request *r = front_begin(front_fs(req), req, FRONT_READLINK);
    if (!r)
        return;
    r->ino = r->meta.op.ino = ino;
    r->meta.op.kind = META_READLINK;
    front_meta(r, readlink_done);
}
