/*
 * Inside the FUSE front: one struct front_request for each request of the kernel that needs more
 * than its handler's stack, and what the ops_*.c files share.
 *
 * A request is a chain of steps: front_meta and front_data_result hand on to the next step when the
 * answer is there, on the handler's thread or on the thread that completes it. The last step
 * replies, and front_end gives the request back. Exactly one reply and one front_end for each
 * front_begin.
 */
#ifndef SLUICE_FS_FRONT_H
#define SLUICE_FS_FRONT_H

#include <fuse_lowlevel.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "base/pool.h"
#include "fs/fs.h"

/* Node ids of the control directory and its file: no inode of a volume is so large. */
#define FRONT_CONTROL_DIR_INO ((1ull << 63) | 1)
#define FRONT_CONTROL_FILE_INO ((1ull << 63) | 2)
#define FRONT_CONTROL_DIR ".sluice"
#define FRONT_CONTROL_FILE "ctl"

#define FRONT_QUOTAS 64 /* above one inode, for statfs */
#define FRONT_MAX_IO (1024 * 1024)
#define FRONT_WAITING_MAX (32u << 20) /* bytes of writes that wait for room, copied */
#define FRONT_BLOCK_SIZE 65536        /* st_blksize: the buffer that stdio takes */

enum front_op {
    FRONT_LOOKUP,
    FRONT_GETATTR,
    FRONT_SETATTR,
    FRONT_READLINK,
    FRONT_MKNOD,
    FRONT_MKDIR,
    FRONT_SYMLINK,
    FRONT_LINK,
    FRONT_UNLINK,
    FRONT_RMDIR,
    FRONT_RENAME,
    FRONT_CREATE,
    FRONT_OPEN,
    FRONT_READ,
    FRONT_WRITE,
    FRONT_FLUSH,
    FRONT_FSYNC,
    FRONT_FALLOCATE,
    FRONT_COPY,
    FRONT_LSEEK,
    FRONT_OPENDIR,
    FRONT_READDIR,
    FRONT_FSYNCDIR,
    FRONT_STATFS,
    FRONT_XATTR,
    FRONT_LOCK,
    FRONT_OP_COUNT
};
extern const char *const front_op_names[FRONT_OP_COUNT];

struct inodes;
struct notify;
struct dir_kept;
struct control;
struct front_opened;
struct leave;

/* Requests that are not in use, in several lists so that threads do not meet. */
#define FRONT_POOLS 8
struct front_pool {
    pthread_mutex_t lock;
    struct front_request *free; /* under lock */
    unsigned count;             /* under lock */
} __attribute__((aligned(64)));

struct fs {
    /* immutable after fs_new */
    struct fs_config config; /* its strings are copies */
    struct inodes *inodes;
    struct notify *notify;
    struct dir_kept *listings; /* front_dir.h */
    struct metric *seconds[FRONT_OP_COUNT];
    struct metric *errors;
    double long_timeout_s, import_timeout_s, negative_timeout_s;
    bool names_cached; /* false: a shared volume, and a kernel without epochs. Set before serving */
    uid_t owner;       /* who mounted */
    uint64_t started_ns;
    struct front_pool pools[FRONT_POOLS];

    /* immutable while fs_run serves; event callbacks, which also come before and after it, read
     * meta and data under users_lock */
    pthread_rwlock_t users_lock;
    struct meta *meta;
    struct data *data;
    struct fuse_session *session;
    struct crew *crew; /* takes requests; NULL: over io_uring */
    struct control *control;
    uint64_t capabilities; /* FUSE_CAP_ that were agreed on */

    pthread_mutex_t opened_lock;
    struct front_opened *opened; /* under opened_lock */

    atomic_uint in_flight;        /* requests between begin and end */
    atomic_size_t waiting_bytes;  /* copies of writes that wait for room */
    atomic_uint reading;          /* threads that may be waiting for the local disk */
    atomic_ullong failed_renames; /* of the kernel: some programs copy then */
    atomic_uint empty_closes;     /* in a row, of files that were just made (front_op_create) */
    atomic_bool ranges_locked;    /* somebody has asked for a lock on a range (set_flush) */
    pthread_mutex_t idle_lock;
    pthread_cond_t idle; /* in_flight is 0 while draining */
    atomic_bool draining;

    sem_t stop;
    atomic_uint stops; /* calls of fs_stop */
    atomic_bool serving;
    atomic_bool connected; /* the kernel takes backing files */
    atomic_bool ran;       /* the loop is over: the stopper may end */
    atomic_bool left;      /* its own mount is gone: nothing is reached by the mount point */
    unsigned major, minor; /* of the mount's device; 0:0 before it is known */
    struct leave *leave;   /* under opened_lock */
};

struct front_request {
    struct fs *fs;
    fuse_req_t req;
    void (*step)(struct front_request *r);
    void (*after_sync)(struct front_request *r); /* front_sync_inode */
    enum front_op op;
    int result;
    uint64_t start_ns;
    pthread_t thread; /* of the handler */
    /* The operation's own. */
    uint64_t ino, parent;
    struct fuse_file_info fi;
    struct front_file *file;
    struct stat stat;
    int to_set;
    bool plus, has_reply, remove_caps, counted, used;
    bool nameless; /* O_TMPFILE */
    size_t size;
    uint64_t offset;
    void *heap;                      /* freed by front_end */
    struct fuse_bufvec vec;          /* write over io_uring */
    const struct meta_quota *quotas; /* statfs: in `heap` */
    size_t quota_count;
    struct data_request data;
    struct meta_task task;
    struct meta_lock lock;
    struct front_request *next; /* the pool's */
    char names[2][META_NAME_MAX + 1];
    struct meta_request meta;
};

/* --- front.c */
/* NULL: was answered with ENOMEM. Zeroes everything but names and meta.reply. */
struct front_request *front_begin(struct fs *fs, fuse_req_t req, enum front_op op);
void front_end(struct front_request *r); /* after the reply */
/* Until then a user is at work, who reads or writes so many bytes. Once, after front_begin. */
void front_use(struct front_request *r, size_t bytes);
/* Counts the request and its time now, where front_end would: who got the reply finds it counted.
 */
void front_count(struct front_request *r);
/* How long the kernel may believe an answer: `most` seconds, or what is left of the lease. */
double front_timeout(struct fs *fs, double most);
void front_pool_done(struct fs *fs);
/* Replies with r->result or another negative errno (or 0), and ends. */
void front_reply_result(struct front_request *r, int result);
/* Whether this is the thread that the kernel's request came to, and not the only one: it may wait
 * for the local disk, which saves the way over another one and back. A queue of io_uring has one
 * thread. */
bool front_may_wait(const struct front_request *r);
/* Submits r->meta; `step` runs when r->result is known. */
void front_meta(struct front_request *r, void (*step)(struct front_request *r));
/* For another operation after the first: releases the last reply, zeroes the operation. */
struct meta_op *front_meta_again(struct front_request *r, enum meta_kind kind);
/* Hands on what a data_ call returned: at once, or as its `done` says. front_data_prepare comes
 * before the call. */
struct data_request *front_data_prepare(struct front_request *r,
                                        void (*step)(struct front_request *r));
void front_data_result(struct front_request *r, int result);
/* All that was applied (up to a change's sequence; 0: all) is made to survive a power loss, if it
 * does not yet; then `step`. */
void front_sync(struct front_request *r, uint64_t sequence, void (*step)(struct front_request *r));
/* The same of r->ino alone: others' changes are not waited for. */
void front_sync_inode(struct front_request *r, void (*step)(struct front_request *r));
/* Copies a name into the request (which = 0 or 1). False: it was too long, and answered. */
bool front_name(struct front_request *r, unsigned which, const char *name, struct meta_name *out);

void front_stat(struct fs *fs, const struct meta_attr *attr, struct stat *out);
/* Lays dirty data over the attribute, fills `e`, and counts a lookup: front_entry_undo if the reply
 * was not taken. -ENOMEM: not counted. */
int front_entry(struct fs *fs, struct meta_attr *attr, struct fuse_entry_param *e);
void front_entry_undo(struct fs *fs, uint64_t ino);
void front_reply_entry(struct front_request *r, struct meta_attr *attr);
void front_reply_attr(struct front_request *r, struct meta_attr *attr);
/* The last name of an inode went (nlink 0): its data, and itself once the kernel forgets it. */
void front_unlinked(struct fs *fs, uint64_t ino);

/* --- front_init.c */
void front_conn_init(void *userdata, struct fuse_conn_info *conn);
extern const struct fuse_lowlevel_ops front_ops;

/* --- front_backing.c: the kernel has agreed on passthrough; fs->data may use it. */
void front_backing_offer(struct fs *fs);

/* --- What is open: files, directories, the control file. In a list, so that fs_run can release
 * what the kernel did not. */
enum front_opened_kind { FRONT_FILE, FRONT_DIRECTORY, FRONT_CONTROL };
struct front_opened {
    enum front_opened_kind kind;
    struct front_opened *prev, *next; /* under opened_lock */
};
void front_opened_add(struct fs *fs, struct front_opened *opened);
void front_opened_remove(struct fs *fs, struct front_opened *opened);

/* So many files that were made were closed empty, one after the other: the next one will be, too.
 */
#define FRONT_EMPTY_CLOSES 3

struct front_file {
    struct front_opened opened;
    struct data_handle *handle;
    uint64_t ino;
    bool writable;
    bool created;        /* by this open, */
    bool synced;         /* and that survives a power loss; */
    uint64_t sequence;   /* with this change */
    atomic_bool written; /* by this handle: its flush commits, with all that was before */
    atomic_bool may_have_caps;
    atomic_bool locked; /* somebody asked for a lock by it */
};
/* Opens the data of `attr`'s inode (created by r->meta, or found) for r->fi: sets r->file and
 * r->fi. 0 or -errno. Undone by front_file_close. */
int front_file_open(struct front_request *r, const struct meta_attr *attr, bool created);
void front_file_close(struct fs *fs, struct front_file *file);
/* The next write to the inode takes its file capabilities away, by whichever handle. */
void front_has_caps(struct fs *fs, uint64_t ino);
void front_file_free(struct front_file *file); /* not in the list any more */

/* --- Handlers (libfuse's types) */
/* ops_name.c */
void front_op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void front_op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup);
void front_op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets);
void front_op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev);
void front_op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void front_op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name);
void front_op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name);
void front_op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void front_op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void front_op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
                     const char *new_name, unsigned flags);
void front_op_tmpfile(fuse_req_t req, fuse_ino_t parent, mode_t mode, struct fuse_file_info *fi);
void front_op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
                     struct fuse_file_info *fi);
void front_op_readlink(fuse_req_t req, fuse_ino_t ino);
/* ops_attr.c */
void front_op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void front_op_statx(fuse_req_t req, fuse_ino_t ino, int flags, int mask, struct fuse_file_info *fi);
void front_op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
                      struct fuse_file_info *fi);
void front_op_statfs(fuse_req_t req, fuse_ino_t ino);
/* ops_xattr.c */
void front_op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value,
                       size_t size, int flags);
void front_op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void front_op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void front_op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name);
/* ops_data.c */
void front_op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void front_op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
                   struct fuse_file_info *fi);
void front_op_write_buf(fuse_req_t req, fuse_ino_t ino, struct fuse_bufvec *in, off_t off,
                        struct fuse_file_info *fi);
void front_op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void front_op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void front_op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
void front_op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
                        struct fuse_file_info *fi);
void front_op_copy(fuse_req_t req, fuse_ino_t ino_in, off_t off_in, struct fuse_file_info *fi_in,
                   fuse_ino_t ino_out, off_t off_out, struct fuse_file_info *fi_out, size_t len,
                   int flags);
void front_op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence,
                    struct fuse_file_info *fi);
/* ops_lock.c: between the mounts of a shared volume */
void front_op_getlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock);
void front_op_setlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock,
                    int sleep);
void front_op_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, int op);
/* Before the reply to a FLUSH: gives up the closing process's locks on the file, then answers with
 * r->result. */
void front_lock_flush(struct front_request *r);
/* The file is released. */
void front_lock_release(struct fs *fs, struct front_file *file);
/* dir.c */
void front_op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void front_op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
                      struct fuse_file_info *fi);
void front_op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
                          struct fuse_file_info *fi);
void front_op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void front_op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
void front_directory_free(struct front_opened *opened);

/* --- notify.c: what the kernel must be told, and unlinked inodes that nobody uses any more. A
 * thread of its own, because the kernel may make the caller wait for a lock whose holder waits for
 * us. */
int notify_new(struct fs *fs, struct notify **out);
/* Everything the kernel has is in doubt. */
void notify_all(struct notify *n);
/* told->done is called when all that was queued before has reached the kernel. */
void notify_told(struct notify *n, struct meta_told *told);
void notify_entry(struct notify *n, uint64_t parent, const char *name, size_t len);
void notify_inode(struct notify *n, uint64_t ino, bool data);
/* Names of these directories that are queued, or on their way, must not be used any more. */
void notify_names_shown(struct notify *n, uint64_t parent, uint64_t new_parent);
void notify_drop(struct notify *n, uint64_t ino);
/* Returns when the kernel was told all that was queued before. Blocks: for threads that no FUSE
 * request and no volume waits for. */
void notify_wait(struct notify *n);
int notify_start(struct notify *n); /* with fs->session; before the first request */
/* Sends what is queued, ends the thread. While the session still serves, or when the kernel has
 * ended the connection; nothing in between. Twice is allowed. */
void notify_stop(struct notify *n);
void notify_free(struct notify *n);

static inline struct fs *front_fs(fuse_req_t req)
{
    return fuse_req_userdata(req);
}
static inline bool front_is_control(uint64_t ino)
{
    return ino >> 63;
}

/* front_session.c: the mount ends when its own mount is gone, or (wanted false) not for that.
 * Blocking, not for long. */
int front_leave(struct fs *fs, bool wanted);

#endif
