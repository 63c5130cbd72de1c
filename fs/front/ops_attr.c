/* Attributes of inodes, and of the file system. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "control/front_control.h"
#include "front.h"

#define STATFS_BLOCK 4096
#define STATFS_FILES (1ull << 40)

static void attr_done(struct front_request *r)
{
    struct meta_attr attr = r->meta.reply.attr;
    if (r->result == 0 && r->meta.op.kind == META_EXTENTS)
        data_extents_ahead(r->fs->data, &r->meta.reply, r->offset);
    if (r->result < 0)
        front_reply_result(r, r->result);
    else
        front_reply_attr(r, &attr);
}

static void get_attr(struct front_request *r)
{
    struct meta_op *op = front_meta_again(r, META_GETATTR);
    op->ino = r->ino;
    /* The kernel asks before it opens what another mount has changed. */
    if (r->fs->config.shared && data_was_read(r->fs->data, r->ino)) {
        op->flags = META_OPENING;
        r->offset = data_changes(r->fs->data);
    }
    front_meta(r, attr_done);
}

void front_op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    if (front_is_control(ino)) {
        control_getattr(req, ino);
        return;
    }
    struct front_request *r = front_begin(front_fs(req), req, FRONT_GETATTR);
    if (!r)
        return;
    r->ino = ino;
    get_attr(r);
}

/* --- statx: what stat does not have is the time of birth */
static struct statx_timestamp statx_time(uint64_t ns)
{
    return (struct statx_timestamp){.tv_sec = (int64_t)(ns / NS_PER_S),
                                    .tv_nsec = (uint32_t)(ns % NS_PER_S)};
}

static void statx_done(struct front_request *r)
{
    if (r->result < 0) {
        front_reply_result(r, r->result);
        return;
    }
    struct meta_attr *attr = &r->meta.reply.attr;
    if (S_ISREG(attr->mode))
        data_overlay(r->fs->data, attr);
    struct statx out = {
        .stx_mask = STATX_BASIC_STATS | STATX_BTIME,
        .stx_blksize = FRONT_BLOCK_SIZE,
        .stx_nlink = attr->nlink,
        .stx_uid = attr->uid,
        .stx_gid = attr->gid,
        .stx_mode = (uint16_t)attr->mode,
        .stx_ino = attr->ino,
        .stx_size = attr->size,
        .stx_blocks = (attr->size + 511) / 512,
        .stx_atime = statx_time(attr->atime_ns),
        .stx_btime = statx_time(attr->btime_ns),
        .stx_ctime = statx_time(attr->ctime_ns),
        .stx_mtime = statx_time(attr->mtime_ns),
        .stx_rdev_major = major(attr->rdev),
        .stx_rdev_minor = minor(attr->rdev),
    };
    fuse_reply_statx(r->req, 0, &out, front_timeout(r->fs, r->fs->long_timeout_s));
    front_end(r);
}

void front_op_statx(fuse_req_t req, fuse_ino_t ino, int flags, int mask, struct fuse_file_info *fi)
{
    if (front_is_control(ino)) {
        /* ENOSYS would end statx for the whole mount. */
        fuse_reply_err(req, EOPNOTSUPP);
        return;
    }
    struct front_request *r = front_begin(front_fs(req), req, FRONT_GETATTR);
    if (!r)
        return;
    r->ino = r->meta.op.ino = ino;
    r->meta.op.kind = META_GETATTR;
    front_meta(r, statx_done);
}

/* --- setattr: the size by the data path, then the rest by the namespace */
static uint32_t valid_of(int to_set)
{
    static const struct {
        int fuse;
        uint32_t meta;
    } map[] = {
        {FUSE_SET_ATTR_MODE, META_SET_MODE},
        {FUSE_SET_ATTR_UID, META_SET_UID},
        {FUSE_SET_ATTR_GID, META_SET_GID},
        {FUSE_SET_ATTR_CTIME, META_SET_CTIME},
        {FUSE_SET_ATTR_KILL_SUID, META_KILL_SUID},
        {FUSE_SET_ATTR_KILL_SGID, META_KILL_SUID},
        {FUSE_SET_ATTR_ATIME, META_SET_ATIME},
        {FUSE_SET_ATTR_ATIME_NOW, META_SET_ATIME | META_ATIME_NOW},
        {FUSE_SET_ATTR_MTIME, META_SET_MTIME},
        {FUSE_SET_ATTR_MTIME_NOW, META_SET_MTIME | META_MTIME_NOW},
    };
    uint32_t valid = 0;
    for (size_t i = 0; i < sizeof(map) / sizeof(map[0]); i++)
        if (to_set & map[i].fuse)
            valid |= map[i].meta;
    return valid;
}

/* Times before 1970 cannot be kept. */
static uint64_t ns_of(const struct timespec *t)
{
    if (t->tv_sec < 0)
        return 0;
    /* The last second that 64 bits of nanoseconds know is in the year 2554. */
    uint64_t seconds = MIN((uint64_t)t->tv_sec, UINT64_MAX / NS_PER_S - 1);
    return seconds * NS_PER_S + (uint64_t)t->tv_nsec;
}

static void setattr_done(struct front_request *r)
{
    if (r->result < 0) {
        front_reply_result(r, r->result);
        return;
    }
    struct meta_attr attr = r->meta.reply.attr;
    if (S_ISREG(attr.mode) && (r->to_set & (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW)))
        data_times_set(r->fs->data, attr.ino, attr.mtime_ns, attr.ctime_ns);
    if (S_ISREG(attr.mode) && attr.has_xattr &&
        (r->to_set & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID | FUSE_SET_ATTR_SIZE))) {
        /* File capabilities do not survive a new owner or new content. The kernel leaves it to us
         * (HANDLE_KILLPRIV_V2). */
        struct meta_op *op = front_meta_again(r, META_REMOVEXATTR);
        op->ino = r->ino;
        op->name = (struct meta_name){.bytes = "security.capability", .len = 19};
        r->to_set = 0;
        front_meta(r, get_attr);
        return;
    }
    front_reply_attr(r, &r->meta.reply.attr);
}

static void set_attr(struct front_request *r)
{
    if (r->result < 0) {
        front_reply_result(r, r->result);
        return;
    }
    uint32_t valid = valid_of(r->to_set);
    /* A request that sets nothing (with writeback: but its ctime) is how the kernel tells of what
     * takes away setuid and setgid, but is no write of data: fallocate, chown(-1, -1). */
    if (!(r->to_set & ~FUSE_SET_ATTR_CTIME))
        valid |= META_KILL_SUID;
    struct meta_op *op = front_meta_again(r, valid ? META_SETATTR : META_GETATTR);
    op->ino = r->ino;
    op->valid = valid;
    op->attr.mode = r->stat.st_mode;
    op->attr.uid = r->stat.st_uid;
    op->attr.gid = r->stat.st_gid;
    op->attr.atime_ns = ns_of(&r->stat.st_atim);
    op->attr.mtime_ns = ns_of(&r->stat.st_mtim);
    op->attr.ctime_ns = ns_of(&r->stat.st_ctim);
    front_meta(r, setattr_done);
}

/* By name there is no close after which other mounts would see it. */
static void commit_size(struct front_request *r)
{
    if (r->result < 0)
        front_reply_result(r, r->result);
    else
        front_data_result(r, data_flush_ino(r->fs->data, r->ino, front_data_prepare(r, set_attr)));
}

void front_op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
                      struct fuse_file_info *fi)
{
    if (front_is_control(ino)) {
        control_setattr(req, ino, to_set);
        return;
    }
    struct fs *fs = front_fs(req);
    if (fs->config.read_only) {
        fuse_reply_err(req, EROFS);
        return;
    }
    struct front_request *r = front_begin(fs, req, FRONT_SETATTR);
    if (!r)
        return;
    r->ino = ino;
    r->stat = *attr;
    r->to_set = to_set;
    bool by_name = fs->config.shared && !fi;
    if (to_set & FUSE_SET_ATTR_SIZE)
        front_data_result(r,
                          data_truncate(fs->data, ino, (uint64_t)attr->st_size,
                                        front_data_prepare(r, by_name ? commit_size : set_attr)));
    else
        set_attr(r);
}

/* --- statfs: an object store has no size, a file system must show one: the tightest quota above
 * the inode, or what the configuration says */
static void reply_statfs(struct front_request *r, uint64_t bytes, uint64_t free_bytes,
                         uint64_t inodes, uint64_t free_inodes)
{
    struct statvfs out = {
        .f_bsize = STATFS_BLOCK,
        .f_frsize = STATFS_BLOCK,
        .f_blocks = bytes / STATFS_BLOCK,
        .f_bfree = free_bytes / STATFS_BLOCK,
        .f_bavail = free_bytes / STATFS_BLOCK,
        .f_files = inodes,
        .f_ffree = free_inodes,
        .f_favail = free_inodes,
        .f_namemax = META_NAME_MAX,
    };
    fuse_reply_statfs(r->req, &out);
    front_end(r);
}

static uint64_t left(uint64_t most, uint64_t used)
{
    return used < most ? most - used : 0;
}

static void statfs_done(struct front_request *r)
{
    if (r->result < 0) {
        front_reply_result(r, r->result);
        return;
    }
    const struct meta_usage *usage = &r->meta.reply.usage;
    uint64_t bytes = r->fs->config.capacity_bytes, inodes = STATFS_FILES;
    uint64_t free_bytes = left(bytes, usage->bytes);
    uint64_t free_inodes = left(inodes, usage->files + usage->directories + 1);
    for (size_t i = 0; i < r->quota_count; i++) {
        const struct meta_quota *q = &r->quotas[i];
        uint64_t free_here = left(q->max_bytes, q->usage.bytes + q->reserved_bytes);
        if (q->max_bytes != META_QUOTA_NONE && free_here < free_bytes) {
            bytes = q->max_bytes;
            free_bytes = free_here;
        }
        free_here = left(q->max_inodes, q->usage.files + q->usage.directories);
        if (q->max_inodes != META_QUOTA_NONE && free_here < free_inodes) {
            inodes = q->max_inodes;
            free_inodes = free_here;
        }
    }
    reply_statfs(r, bytes, free_bytes, inodes, free_inodes);
}

static void statfs_usage(struct front_request *r)
{
    /* No more than these are told apart; the nearest come first. */
    if (r->result == 0 && r->meta.reply.quota_count) {
        r->quota_count = MIN(r->meta.reply.quota_count, FRONT_QUOTAS);
        r->heap = malloc(r->quota_count * sizeof(*r->quotas));
        r->quotas = r->heap;
        if (!r->heap) {
            front_reply_result(r, -ENOMEM);
            return;
        }
        memcpy(r->heap, r->meta.reply.quotas, r->quota_count * sizeof(*r->quotas));
    }
    struct meta_op *op = front_meta_again(r, META_USAGE);
    op->ino = META_ROOT_INO;
    front_meta(r, statfs_done);
}

void front_op_statfs(fuse_req_t req, fuse_ino_t ino)
{
    struct front_request *r = front_begin(front_fs(req), req, FRONT_STATFS);
    if (!r)
        return;
    r->ino = ino;
    /* Whether a service has quotas is known to it alone. */
    if ((meta_quota_active(r->fs->meta) || r->fs->config.shared) && !front_is_control(ino)) {
        r->meta.op.kind = META_QUOTA;
        r->meta.op.ino = ino;
        r->meta.op.flags = META_QUOTA_ABOVE;
        front_meta(r, statfs_usage);
        return;
    }
    r->meta.op.kind = META_USAGE;
    r->meta.op.ino = META_ROOT_INO;
    front_meta(r, statfs_done);
}
