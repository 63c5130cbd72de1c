/* The control file's `rename`, which never replaces: Java and the shell have no call for it. */
#include <errno.h>
#include <linux/fs.h>
#include <string.h>

#include "front_control.h"

/* A name of a directory. True: where the kernel has the name it takes it that the directory has
 * changed, too; otherwise it must be told. `only_old`: it need not let it go, as what runs in a
 * directory could not say any more where it is. */
static bool forget_name(struct fs *fs, uint64_t parent, struct meta_name name, bool only_old)
{
    struct fuse_session *se = fs->session;
    int result = only_old && fs->capabilities & FUSE_CAP_EXPIRE_ONLY
                     ? fuse_lowlevel_notify_expire_entry(se, parent, name.bytes, name.len)
                     : fuse_lowlevel_notify_inval_entry(se, parent, name.bytes, name.len);
    return result == 0;
}

/* The kernel did not see this rename. It asks again for both names, and for the attributes of who
 * took part. A file's old name goes: it would keep the file when that is removed, until the kernel
 * has no room. Not a FUSE thread and not a volume's: it may wait here for the kernel's locks. */
static void tell_kernel(struct fs *fs, const struct meta_op *op, const struct meta_attr *moved)
{
    bool one = op->parent == op->new_parent;
    bool from = forget_name(fs, op->parent, op->name, S_ISDIR(moved->mode));
    bool to = forget_name(fs, op->new_parent, op->new_name, true);
    if (!from && !(one && to))
        fuse_lowlevel_notify_inval_inode(fs->session, op->parent, 0, 0);
    if (!to && !one)
        fuse_lowlevel_notify_inval_inode(fs->session, op->new_parent, 0, 0);
    fuse_lowlevel_notify_inval_inode(fs->session, moved->ino, -1, 0);
}

/* Finds who takes part, with the caller's rights: `op` gets both directories, `attr` is what moves.
 */
static int find(struct control_handle *h, struct meta_op *op, struct meta_attr *attr)
{
    struct control_text parent_path, new_parent_path;
    struct meta_attr parent, new_parent;
    control_path_split(&h->request.path, &parent_path, &op->name);
    control_path_split(&h->request.to, &new_parent_path, &op->new_name);
    if (op->name.len == 0 || op->new_name.len == 0)
        return -EBUSY; /* the root */
    if (h->fs->config.read_only)
        return -EROFS;
    int result = control_walk(h, &parent_path, &parent);
    if (result == 0 && parent_path.len == new_parent_path.len &&
        memcmp(parent_path.bytes, new_parent_path.bytes, parent_path.len) == 0)
        new_parent = parent;
    else if (result == 0)
        result = control_walk(h, &new_parent_path, &new_parent);
    if (result == 0)
        result = control_step(h, &parent, op->name, attr);
    if (result == 0)
        result = control_may_remove(h, &parent, attr);
    if (result < 0)
        return result;
    if (!S_ISDIR(new_parent.mode))
        return -ENOTDIR;
    if (!control_may(&h->caller, &new_parent, CONTROL_MAY_EXEC | CONTROL_MAY_WRITE))
        return -EACCES;
    if (S_ISDIR(attr->mode) && parent.ino != new_parent.ino &&
        !control_may(&h->caller, attr, CONTROL_MAY_WRITE))
        return -EACCES;
    if (new_parent.ino == META_ROOT_INO && op->new_name.len == strlen(FRONT_CONTROL_DIR) &&
        memcmp(op->new_name.bytes, FRONT_CONTROL_DIR, op->new_name.len) == 0)
        return -EPERM;
    op->parent = parent.ino;
    op->new_parent = new_parent.ino;
    return 0;
}

void control_run_rename(struct control_handle *h)
{
    /* This thread may sync itself, for others too: that saves the way over another one and back. */
    struct meta_request request = {.op = {.kind = META_RENAME, .flags = RENAME_NOREPLACE},
                                   .may_wait = true};
    struct meta_attr attr;
    int result = find(h, &request.op, &attr);
    if (result == 0) {
        result = meta_call(h->fs->meta, &request);
        meta_reply_done(&request.reply);
    }
    if (result < 0) {
        control_fail(h, result, NULL);
        return;
    }
    tell_kernel(h->fs, &request.op, &attr);
    data_renamed(h->fs->data, S_ISREG(attr.mode) ? attr.ino : 0, NULL);
    control_put_json(&h->reply, json_pack("{s:b}", "ok", 1));
}
