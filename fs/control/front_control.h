/*
 * The control file, `.sluice/ctl` at the root of a mount (docs/control.md): its nodes and handles
 * (control.c), the requests' text (control_parse.c), and what they do (control_run.c).
 *
 * A handle holds one request at a time. It runs on a small pool, where waiting is allowed; a read
 * that comes before the reply waits without a thread.
 */
#ifndef SLUICE_FS_FRONT_CONTROL_H
#define SLUICE_FS_FRONT_CONTROL_H

#include <jansson.h>

#include "base/buf.h"
#include "front/front.h"
#include "front_control_parse.h"

/* --- A handle */
enum control_state { CONTROL_IDLE, CONTROL_RUNNING, CONTROL_READY };

enum control_task { CONTROL_TASK_NONE, CONTROL_TASK_STARTS, CONTROL_TASK_RUNS };

struct control_handle {
    struct front_opened opened;
    struct fs *fs;                /* immutable */
    struct control_caller caller; /* immutable */
    atomic_uint refs;             /* the kernel's handle, and the request that runs */
    bool stop_on_release;         /* set by the request that runs */
    bool has_checkpoint;          /* the same; dropped with the handle */
    atomic_bool waits;            /* set by `wait`: a rename's write is answered at its end */

    pthread_mutex_t lock;
    /* under lock */
    enum control_state state;
    struct buf reply;
    size_t read;       /* bytes of the reply that were read */
    fuse_req_t parked; /* a read that waits for the reply */
    size_t parked_size;
    bool closed;
    bool cancel; /* as soon as there is a task */
    enum control_task task_state;

    /* the request's that runs */
    struct control_request request;
    int result;           /* an error that it ended with */
    fuse_req_t write_req; /* its write, if that waits for the end */
    size_t write_size;
    struct pool_task pool_task;
    struct meta_task task;
    struct data_request flush;
};

/* control_run.c: what stands at the path, with the caller's rights. Symbolic links are not
 * followed: a caller has the real path. On a thread of the pool. */
int control_walk(struct control_handle *h, const struct control_text *path, struct meta_attr *attr);
/* One name further: what `name` is in the directory `dir`. `attr` may be `dir`. */
int control_step(struct control_handle *h, const struct meta_attr *dir, struct meta_name name,
                 struct meta_attr *attr);
/* h->request.path, which the caller may read, and search if it is a directory. */
int control_walk_readable(struct control_handle *h, struct meta_attr *attr);
/* Whether the caller may take `attr`'s inode out of its directory `parent`: 0, -EACCES, -EPERM. */
int control_may_remove(struct control_handle *h, const struct meta_attr *parent,
                       const struct meta_attr *attr);

/* control_remove.c: takes away h->request.path with all below it. Ends early with -ECANCELED when
 * the handle is closed; what was removed until then, or until an error, stays removed. On a thread
 * of the pool. */
struct control_removed {
    uint64_t files, directories;
};
int control_remove(struct control_handle *h, struct control_removed *removed);

/* control_run.c: on a thread of the pool. Ends with control_finish, now or later. */
void control_run(struct control_handle *handle);
/* What the requests share, on a thread of the pool. The reply says an error, and so does a write
 * that waits. */
void control_fail(struct control_handle *handle, int result, const char *text);
/* Takes the reference. */
void control_put_json(struct buf *out, json_t *json);
/* A name as `key`, or where it is not UTF-8 as `key`64. */
void control_set_name(json_t *object, const char *key, const char *bytes, size_t len);
/* control_list.c */
void control_run_list(struct control_handle *handle);
/* control_rename.c */
void control_run_rename(struct control_handle *handle);
/* control_cache.c */
void control_run_cached(struct control_handle *handle);
void control_run_cache(struct control_handle *handle);
/* control_acl.c */
void control_run_acl(struct control_handle *handle);
/* control_quota.c */
void control_run_quota_set(struct control_handle *handle);
void control_run_quota(struct control_handle *handle);
/* control_stores.c */
void control_run_store(struct control_handle *handle);
void control_run_migrate(struct control_handle *handle);
/* control_check.c */
void control_run_check(struct control_handle *handle);
/* control_backup.c */
void control_run_checkpoint(struct control_handle *handle);
/* Runs handle->pool_task on the pool. */
void control_submit(struct control_handle *handle);
/* The reply is in handle->reply: wakes the reader. Gives the request's reference up. */
void control_finish(struct control_handle *handle);
void control_handle_ref(struct control_handle *handle);
void control_handle_unref(struct control_handle *handle);
void control_cancel_locked(struct control_handle *handle);
/* Appends {"ok":false,…}. */
void control_put_error(struct buf *out, int result, const char *text);

/* control_cache.c: what `status` says of the cache; null without one. */
json_t *control_cache_json(struct fs *fs);

/* --- Handlers, called by the ops_ files for the control nodes */
void control_lookup(fuse_req_t req, uint64_t parent, const char *name);
void control_getattr(fuse_req_t req, uint64_t ino);
void control_setattr(fuse_req_t req, uint64_t ino, int to_set);
void control_open(fuse_req_t req, uint64_t ino, struct fuse_file_info *fi);
void control_read(fuse_req_t req, struct fuse_file_info *fi, size_t size);
void control_write(fuse_req_t req, struct fuse_file_info *fi, struct fuse_bufvec *in);
void control_release(fuse_req_t req, struct fuse_file_info *fi);
void control_readdir(fuse_req_t req, size_t size, off_t off, bool plus);

/* --- For fs_run */
int control_new(struct fs *fs, struct control **out);
/* Cancels and ends what runs; no request is taken after it. While the session still serves, or when
 * the kernel has ended the connection. Twice is allowed. */
void control_stop(struct control *control);
void control_free(struct control *control);
void control_handle_free(struct front_opened *opened); /* a handle that the kernel left */

#endif
