/* What is agreed on with the kernel when the mount begins. Each choice is explained in
 * docs/fuse.md. */
#include <errno.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "front.h"

const struct fuse_lowlevel_ops front_ops = {
    .init = front_conn_init,
    .lookup = front_op_lookup,
    .forget = front_op_forget,
    .forget_multi = front_op_forget_multi,
    .getattr = front_op_getattr,
    .statx = front_op_statx,
    .setattr = front_op_setattr,
    .readlink = front_op_readlink,
    .mknod = front_op_mknod,
    .mkdir = front_op_mkdir,
    .symlink = front_op_symlink,
    .link = front_op_link,
    .unlink = front_op_unlink,
    .rmdir = front_op_rmdir,
    .rename = front_op_rename,
    .create = front_op_create,
    .tmpfile = front_op_tmpfile,
    .open = front_op_open,
    .read = front_op_read,
    .write_buf = front_op_write_buf,
    .flush = front_op_flush,
    .release = front_op_release,
    .fsync = front_op_fsync,
    .fallocate = front_op_fallocate,
    .copy_file_range = front_op_copy,
    .lseek = front_op_lseek,
    .opendir = front_op_opendir,
    .readdir = front_op_readdir,
    .readdirplus = front_op_readdirplus,
    .releasedir = front_op_releasedir,
    .fsyncdir = front_op_fsyncdir,
    .statfs = front_op_statfs,
    .setxattr = front_op_setxattr,
    .getxattr = front_op_getxattr,
    .listxattr = front_op_listxattr,
    .removexattr = front_op_removexattr,
    .getlk = front_op_getlk,
    .setlk = front_op_setlk,
    .flock = front_op_flock,
    /* access: default_permissions */
};

static void want(struct fuse_conn_info *conn, uint64_t capability, bool wanted)
{
    if (wanted)
        fuse_set_feature_flag(conn, capability); /* ignored where the kernel has not got it */
    else
        fuse_unset_feature_flag(conn, capability);
}

/* The protocol from which on all names can be put in doubt at once, without a lock. */
#define EPOCH_MINOR 44

void front_conn_init(void *userdata, struct fuse_conn_info *conn)
{
    struct fs *fs = userdata;
    static const uint64_t wanted[] = {
        FUSE_CAP_ASYNC_READ,          FUSE_CAP_ASYNC_DIO,       FUSE_CAP_ATOMIC_O_TRUNC,
        FUSE_CAP_EXPORT_SUPPORT,      FUSE_CAP_PARALLEL_DIROPS, FUSE_CAP_READDIRPLUS,
        FUSE_CAP_READDIRPLUS_AUTO,    FUSE_CAP_CACHE_SYMLINKS,  FUSE_CAP_HANDLE_KILLPRIV_V2,
        FUSE_CAP_EXPLICIT_INVAL_DATA, FUSE_CAP_EXPIRE_ONLY,
    };
    for (size_t i = 0; i < ARRAY_LEN(wanted); i++)
        want(conn, wanted[i], true);
    /* The page cache is dropped when we say so (notify.c), not whenever an mtime moves: our own
     * writes move it. */
    want(conn, FUSE_CAP_AUTO_INVAL_DATA, fs->config.shared);
    if (fs->config.shared)
        want(conn, FUSE_CAP_EXPLICIT_INVAL_DATA, false);
    /* While this mount is the volume's only one, the kernel's own locks are the volume's. */
    want(conn, FUSE_CAP_POSIX_LOCKS, fs->config.shared);
    want(conn, FUSE_CAP_FLOCK_LOCKS, fs->config.shared);
    /* The kernel checks access control lists; who inherits what is decided by the state machine,
     * which needs the mode without the umask for it. */
    want(conn, FUSE_CAP_POSIX_ACL, fs->config.posix_acl);
    want(conn, FUSE_CAP_DONT_MASK, fs->config.posix_acl);
    want(conn, FUSE_CAP_WRITEBACK_CACHE, fs->config.writeback);
    /* Written bytes are copied once, from the request into the staging file's page cache; through a
     * pipe that costs more system calls. */
    want(conn, FUSE_CAP_SPLICE_READ, false);
    want(conn, FUSE_CAP_SPLICE_WRITE, true);
    want(conn, FUSE_CAP_SPLICE_MOVE, true);
    /* The kernel's write-back cache and passthrough exclude each other. */
    bool passthrough = !fs->config.writeback && !fs->config.no_passthrough &&
                       (data_cache(fs->data) || data_stages_locally(fs->data));
    want(conn, FUSE_CAP_PASSTHROUGH, passthrough);
    /* Capabilities that another mount gives a file would not be seen by a handle that is direct. */
    bool direct = conn->capable_ext & FUSE_CAP_DIRECT_IO_ALLOW_MMAP && !fs->config.writeback &&
                  !fs->config.shared;
    want(conn, FUSE_CAP_DIRECT_IO_ALLOW_MMAP, direct);
    if (direct)
        data_direct_set(fs->data);
    conn->max_backing_stack_depth = 1;
    conn->max_write = FRONT_MAX_IO;
    conn->max_readahead = FRONT_MAX_IO;
    conn->max_background = 64;
    conn->congestion_threshold = 48;
    conn->time_gran = 1;
    fs->capabilities = conn->want_ext;
    fs->names_cached = !fs->config.shared || conn->proto_minor >= EPOCH_MINOR;
    log_info("kernel connected", "protocol=%u.%u capable=%#llx wanted=%#llx", conn->proto_major,
             conn->proto_minor, (unsigned long long)conn->capable_ext,
             (unsigned long long)conn->want_ext);
    if (conn->want_ext & FUSE_CAP_PASSTHROUGH)
        front_backing_offer(fs);
    if (fs->config.ready)
        fs->config.ready(fs->config.arg);
}
