/* Extended attributes. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "caller.h"
#include "front.h"
#include "meta/acl.h"

static bool starts_with(const char *text, const char *start)
{
    return strncmp(text, start, strlen(start)) == 0;
}

/* "Not supported" rather than "not there": programs remember that for the whole file system and do
 * not ask for each file. */
static bool is_unsupported(const struct fs *fs, const char *name)
{
    if (fs->config.posix_acl && starts_with(name, "system.posix_acl_"))
        return false;
    return starts_with(name, "system.") || strcmp(name, "security.selinux") == 0;
}

static struct front_request *begin_xattr(fuse_req_t req, enum meta_kind kind, fuse_ino_t ino,
                                         const char *name)
{
    struct fs *fs = front_fs(req);
    int refused = 0;
    if (name && is_unsupported(fs, name))
        refused = EOPNOTSUPP;
    else if (front_is_control(ino))
        /* The kernel asks for a list before it decides, and takes another error for its answer. */
        refused = kind == META_GETXATTR ? ENODATA : EOPNOTSUPP;
    else if (meta_kind_changes(kind) && fs->config.read_only)
        refused = EROFS;
    else if (name && strnlen(name, META_XATTR_NAME_MAX + 1) > META_XATTR_NAME_MAX)
        refused = ERANGE;
    if (refused) {
        fuse_reply_err(req, refused);
        return NULL;
    }
    struct front_request *r = front_begin(fs, req, FRONT_XATTR);
    if (!r)
        return NULL;
    r->ino = ino;
    r->meta.op.kind = kind;
    r->meta.op.ino = ino;
    if (name && !front_name(r, 0, name, &r->meta.op.name))
        return NULL;
    return r;
}

static void change_done(struct front_request *r)
{
    if (r->result == 0 && r->meta.op.kind == META_SETXATTR &&
        strcmp(r->names[0], "security.capability") == 0)
        front_has_caps(r->fs, r->ino);
    front_reply_result(r, r->result);
}

/* As chmod: who is not in the file's group does not get its set-group-ID bit past a change. The
 * kernel asks for that too, in a flag that libfuse does not hand on. */
static void set_list(struct front_request *r)
{
    if (r->result < 0) {
        front_reply_result(r, r->result);
        return;
    }
    struct meta_attr attr = r->meta.reply.attr;
    struct meta_op *op = front_meta_again(r, META_SETXATTR);
    op->ino = r->ino;
    op->name = (struct meta_name){.bytes = r->names[0], .len = strlen(r->names[0])};
    op->data = r->heap;
    op->data_len = r->size;
    if (attr.mode & S_ISGID && !caller_keeps_setgid(r->req, attr.gid))
        op->valid = META_KILL_SGID;
    front_meta(r, change_done);
}

void front_op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value,
                       size_t size, int flags)
{
    struct front_request *r = begin_xattr(req, META_SETXATTR, ino, name);
    if (!r)
        return;
    if (size > META_XATTR_VALUE_MAX) {
        front_reply_result(r, -E2BIG);
        return;
    }
    r->heap = malloc(size + 1);
    if (!r->heap) {
        front_reply_result(r, -ENOMEM);
        return;
    }
    memcpy(r->heap, value, size);
    if (strcmp(name, ACL_ACCESS) == 0) {
        r->size = size;
        front_meta_again(r, META_GETATTR)->ino = ino;
        front_meta(r, set_list);
        return;
    }
    r->meta.op.data = r->heap;
    r->meta.op.data_len = size;
    r->meta.op.flags = (uint32_t)flags;
    front_meta(r, change_done);
}

void front_op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
    struct front_request *r = begin_xattr(req, META_REMOVEXATTR, ino, name);
    if (r)
        front_meta(r, change_done);
}

/* size 0 asks for the length. */
static void value_done(struct front_request *r)
{
    size_t len = r->meta.reply.data_len;
    if (r->result < 0)
        front_reply_result(r, r->result);
    else if (r->size > 0 && len > r->size)
        front_reply_result(r, -ERANGE);
    else {
        if (r->size == 0)
            fuse_reply_xattr(r->req, len);
        else
            fuse_reply_buf(r->req, r->meta.reply.data, len);
        front_end(r);
    }
}

void front_op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
    struct front_request *r = begin_xattr(req, META_GETXATTR, ino, name);
    if (!r)
        return;
    r->size = size;
    front_meta(r, value_done);
}

void front_op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
    struct front_request *r = begin_xattr(req, META_LISTXATTR, ino, NULL);
    if (!r)
        return;
    r->size = size;
    front_meta(r, value_done);
}
