/*
 * The insides of the file:// backend, shared by s3/file*.c only. See docs/file-store.md.
 *
 * Functions with a struct store_op run on a pool thread, may block, and return 0 or a negative
 * errno of store.h's list with the reason in op->error.
 */
#ifndef SLUICE_S3_FILE_H
#define SLUICE_S3_FILE_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "base/pool.h"
#include "s3/backend.h"

#define FILE_PRIVATE ".sluice-tmp" /* in the root: nothing in it is an object */
#define FILE_LOCKS 256
#define FILE_NAME_SIZE 64     /* of our own files in FILE_PRIVATE */
#define FILE_CHUNK (8u << 20) /* between two looks at a cancellation */

struct file_cursor;

struct file_store {
    struct store store;

    /* Immutable after store_file_new. */
    int root;
    bool read_only;
    int private;                    /* FILE_PRIVATE; -1, like those below, if read-only */
    int work;                       /* w-…: temporary files, flock'ed while we live */
    int uploads;                    /* u: unfinished multipart uploads */
    int locks;                      /* lock: see file_key_lock */
    char work_name[FILE_NAME_SIZE]; /* in FILE_PRIVATE */
    struct pool *pool, *background;

    _Atomic uint64_t last_ns, name_count;

    /* See file_key_lock and file_dirs_lock; in this order. */
    pthread_mutex_t key_locks[FILE_LOCKS];
    pthread_mutex_t dirs_mutex;

    /* Listings that may go on, see file_list.c. Under cursors_lock, the timer: loop thread. */
    pthread_mutex_t cursors_lock;
    struct file_cursor *cursors;
    size_t cursors_bytes;
    struct loop_timer cursors_timer;
    struct loop_task cursors_task;
    bool cursors_timed;
};

/* A key as a path below the root. */
struct file_key {
    const char *key;
    bool marker;                    /* "a/b/": the directory itself is the object */
    char path[STORE_KEY_MAX + 1];   /* "a/b" */
    char parent[STORE_KEY_MAX + 1]; /* "a", or "." */
    const char *base;               /* "b", in path */
};

/* Results (file.c) */

/* Translates an errno of a system call; `what` says what was done. */
int file_error(struct store_op *op, int err, const char *what);
int file_fail(struct store_op *op, int code, const char *store_code, const char *why);
int file_no_key(struct store_op *op);
int file_no_upload(struct store_op *op);
int file_failed_condition(struct store_op *op);
/* True: the caller of a long request does not want it any more. */
bool file_cancelled(const struct store_op *op);
/* A wall-clock time that this store gives out once: see file_info. */
uint64_t file_unique_ns(struct file_store *f);

/* Paths and names (file_path.c). They return 0 or a descriptor, or -errno of the system call. */

/* -EINVAL or -ENAMETOOLONG: this cannot be a path. */
int file_key_parse(const char *key, struct file_key *out);
/* Below the root, through no symbolic link (-ELOOP). */
int file_open(const struct file_store *f, const char *path, int flags);
/* The directory, made with its parents where it is missing; *made counts those that were. */
int file_make_dirs(const struct file_store *f, const char *path, unsigned *made);
/* Makes the name and `made` directories above it durable. */
int file_sync_dirs(const struct file_store *f, int dir, const char *path, unsigned made);
/* Removes the directory and its parents as long as they are empty and unmarked; then makes the
 * last change durable. */
int file_prune(struct file_store *f, const char *path);
/* As file_prune for one directory inside `parent`, without syncing. */
int file_remove_empty(struct file_store *f, int parent, const char *name);
/* All writers of a key hold its lock while they look at its name and change it; other processes,
 * too. */
void file_key_lock(struct file_store *f, const char *key);
void file_key_unlock(struct file_store *f, const char *key);
/* Held while a directory is marked, or removed because it is empty and has no mark. */
void file_dirs_lock(struct file_store *f);
void file_dirs_unlock(struct file_store *f);
void file_temp_name(struct file_store *f, char name[FILE_NAME_SIZE]);
/* A new file in `dir` with a name of its own. */
int file_temp_open(struct file_store *f, int dir, char name[FILE_NAME_SIZE]);
/* A directory of ours with all in it. Errors are left: what stays is removed at the next open. */
void file_remove_tree(int dir, const char *name);

/* Objects (file_object.c) */

/* Size, time and ETag. The ETag is made of size, mtime and inode: it costs no read, and changes
 * with every write of other programs. Our own objects have an mtime that was never used before
 * (file_unique_ns), so it is unique even if the inode is used again. */
void file_info(const struct stat *st, struct store_info *info);
bool file_is_etag(const struct stat *st, const char *etag);
int file_set_meta(struct store_op *op, int fd, const struct store_meta *meta, unsigned count);
int file_copy_meta(struct store_op *op, int from, int to);
/* The mark of a directory that is an object: its time, or 0. */
uint64_t file_mark_ns(int dir);
/* Stamps and syncs a file that is complete, then gives it the op's key under the op's conditions.
 * -ESTALE: the file `name` in `dir` is not there. On success op->info is set. */
int file_publish(struct file_store *f, struct store_op *op, const struct file_key *key, int fd,
                 int dir, const char *name);
/* Opens the source of a copy and checks its condition. *fd is -1 for an empty directory object. */
int file_open_source(struct file_store *f, struct store_op *op, int *fd, struct stat *st);
int file_write_body(struct store_op *op, int fd, uint64_t offset, uint64_t *len);
int file_copy_range(struct store_op *op, int from, uint64_t from_offset, int to, uint64_t to_offset,
                    uint64_t length);

int file_do_head(struct file_store *f, struct store_op *op);
int file_do_get(struct file_store *f, struct store_op *op);
int file_do_put(struct file_store *f, struct store_op *op);
int file_do_delete(struct file_store *f, struct store_op *op);
int file_do_delete_many(struct file_store *f, struct store_op *op);
int file_do_copy(struct file_store *f, struct store_op *op);

/* Listing (file_list.c) */

int file_do_list(struct file_store *f, struct store_op *op);
void file_cursors_init(struct file_store *f);
void file_cursors_done(struct file_store *f);

/* Multipart uploads (file_upload.c) */

int file_do_mpu_create(struct file_store *f, struct store_op *op);
int file_do_mpu_part(struct file_store *f, struct store_op *op);
int file_do_mpu_part_copy(struct file_store *f, struct store_op *op);
int file_do_mpu_complete(struct file_store *f, struct store_op *op);
int file_do_mpu_abort(struct file_store *f, struct store_op *op);
int file_do_mpu_list(struct file_store *f, struct store_op *op);
/* Removes what a crash left of uploads that ended. */
void file_uploads_clean(struct file_store *f);

#endif
