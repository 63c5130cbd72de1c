/* Open directories and their listing. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "control/front_control.h"
#include "front.h"
#include "front_dir.h"

#define LIST_MAX 4096

/* --- An open directory. The kernel reads one position after the other through one handle. */
struct directory {
    struct front_opened opened;
    struct dir_kept *kept;
    bool keeps; /* the positions are those of the kernel's listing; else `own` */
    pthread_mutex_t lock;
    /* under lock */
    struct dir_positions *positions, own;
    uint64_t end; /* the cookie after which there was nothing more; 0: not known */
};

static struct directory *directory_of(const struct fuse_file_info *fi)
{
    return (struct directory *)(uintptr_t)fi->fh;
}

/* The kernel may keep the listing if it learns of each change: it makes them itself, or is told
 * (notify.c). What is in the bucket changes without a word. */
static void use_listing(struct directory *d, struct front_request *r)
{
    struct fs *fs = r->fs;
    bool known = false;
    d->kept = fs->listings;
    if (fs->names_cached && (fs->config.shared || !r->meta.reply.attr.listed))
        d->positions = dir_kept_take(d->kept, r->ino, &known);
    d->keeps = d->positions;
    r->fi.cache_readdir = d->keeps;
    r->fi.keep_cache = known; /* or it is another handle's */
    dir_positions_init(&d->own);
    if (!d->keeps)
        d->positions = &d->own;
}

static void opendir_done(struct front_request *r)
{
    struct fs *fs = r->fs;
    struct directory *d = r->result == 0 ? calloc(1, sizeof(*d)) : NULL;
    if (!d) {
        front_reply_result(r, r->result < 0 ? r->result : -ENOMEM);
        return;
    }
    d->opened.kind = FRONT_DIRECTORY;
    pthread_mutex_init(&d->lock, NULL);
    use_listing(d, r);
    front_opened_add(fs, &d->opened);
    r->fi.fh = (uintptr_t)d;
    if (fuse_reply_open(r->req, &r->fi) < 0) {
        front_opened_remove(fs, &d->opened);
        front_directory_free(&d->opened);
    }
    front_end(r);
}

void front_op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct fs *fs = front_fs(req);
    struct front_request *r = front_begin(fs, req, FRONT_OPENDIR);
    if (!r)
        return;
    r->ino = ino;
    r->fi = *fi;
    if (fs->config.shared || front_is_control(ino)) {
        r->meta.reply.attr.listed = front_is_control(ino);
        opendir_done(r);
        return;
    }
    r->meta.op.kind = META_GETATTR;
    r->meta.op.ino = ino;
    front_meta(r, opendir_done);
}

void front_directory_free(struct front_opened *opened)
{
    struct directory *d = container_of(opened, struct directory, opened);
    if (d->keeps)
        dir_kept_give(d->kept, d->positions);
    dir_positions_done(&d->own);
    pthread_mutex_destroy(&d->lock);
    free(d);
}

void front_op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct directory *d = directory_of(fi);
    front_opened_remove(front_fs(req), &d->opened);
    front_directory_free(&d->opened);
    fuse_reply_err(req, 0);
}

/* --- readdir */

/* A reply that is being filled; `bytes` has r->size bytes. */
struct fill {
    struct front_request *r;
    char *bytes;
    size_t used;
    uint64_t last; /* cookie of what was added last */
};

/* False: no room, nothing was added. */
static bool fill_entry(struct fill *f, const char *name, const struct fuse_entry_param *e,
                       uint64_t cookie)
{
    struct front_request *r = f->r;
    char *at = f->bytes + f->used;
    size_t left = r->size - f->used;
    size_t len = r->plus ? fuse_add_direntry_plus(r->req, at, left, name, e, (off_t)cookie)
                         : fuse_add_direntry(r->req, at, left, name, &e->attr, (off_t)cookie);
    if (len > left)
        return false;
    f->used += len;
    f->last = cookie;
    return true;
}

/* "." and ".." are not looked up by the kernel: no lookup is counted, and ino 0 says so. */
static bool fill_dots(struct fill *f)
{
    static const char *const names[] = {".", ".."};
    for (uint64_t cookie = f->r->offset + 1; cookie < DIR_COOKIE_FIRST; cookie++) {
        struct fuse_entry_param e = {.attr = {.st_mode = S_IFDIR, .st_ino = f->r->ino}};
        if (!fill_entry(f, names[cookie - 1], &e, cookie))
            return false;
    }
    return true;
}

static size_t entry_size(const struct front_request *r, size_t name_len)
{
    return r->plus ? fuse_add_direntry_plus(NULL, NULL, 0, "", NULL, 0) + ((name_len + 7) & ~7ul)
                   : fuse_add_direntry(NULL, NULL, 0, "", NULL, 0) + ((name_len + 7) & ~7ul);
}

/* 1: added, 0: no room, or -errno. */
static int fill_name(struct fill *f, struct dir_positions *positions, struct meta_entry *entry)
{
    struct front_request *r = f->r;
    char name[META_NAME_MAX + 1];
    if (f->used + entry_size(r, entry->name_len) > r->size)
        return 0;
    memcpy(name, entry->name, entry->name_len);
    name[entry->name_len] = 0;
    struct fuse_entry_param e = {
        .attr = {.st_mode = entry->attr.mode, .st_ino = entry->ino},
    };
    if (r->plus) {
        int result = front_entry(r->fs, &entry->attr, &e);
        if (result < 0)
            return result;
    }
    uint64_t cookie = dir_positions_add(positions, entry->name, entry->name_len);
    if (cookie == 0 || !fill_entry(f, name, &e, cookie)) {
        if (r->plus)
            front_entry_undo(r->fs, entry->ino);
        return cookie == 0 ? -ENOMEM : 0;
    }
    return 1;
}

static void readdir_done(struct front_request *r)
{
    struct fill f = {.r = r, .bytes = r->heap};
    struct directory *d = directory_of(&r->fi);
    size_t given = 0;
    int result = r->result;
    if (result == 0 && fill_dots(&f)) {
        pthread_mutex_lock(&d->lock);
        for (; given < r->meta.reply.entry_count; given++) {
            result = fill_name(&f, d->positions, &r->meta.reply.entries[given]);
            if (result <= 0)
                break;
        }
        /* The kernel asks once more, and is told so then: nothing that came meanwhile. */
        if (r->meta.reply.end && given == r->meta.reply.entry_count)
            d->end = f.last;
        pthread_mutex_unlock(&d->lock);
    }
    if (result < 0 && f.used == 0) {
        front_reply_result(r, result);
        return;
    }
    if (fuse_reply_buf(r->req, f.bytes, f.used) < 0 && r->plus)
        for (size_t i = 0; i < given; i++)
            front_entry_undo(r->fs, r->meta.reply.entries[i].ino);
    front_end(r);
}

/* Of a listing that began before: a new one looks anew. */
static bool is_at_end(struct directory *d, uint64_t offset)
{
    pthread_mutex_lock(&d->lock);
    if (offset == 0)
        d->end = 0;
    bool end = offset && offset == d->end;
    pthread_mutex_unlock(&d->lock);
    return end;
}

static void read_directory(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
                           const struct fuse_file_info *fi, bool plus)
{
    struct fs *fs = front_fs(req);
    if (front_is_control(ino)) {
        control_readdir(req, size, off, plus);
        return;
    }
    struct directory *d = directory_of(fi);
    if (is_at_end(d, (uint64_t)off)) {
        fuse_reply_buf(req, NULL, 0);
        return;
    }
    struct front_request *r = front_begin(fs, req, FRONT_READDIR);
    if (!r)
        return;
    r->ino = ino;
    r->fi = *fi;
    r->plus = plus;
    r->size = size < FRONT_MAX_IO ? size : FRONT_MAX_IO;
    r->offset = (uint64_t)off;
    r->heap = malloc(r->size);
    struct meta_name *after = &r->meta.op.name;
    int result = r->heap ? 0 : -ENOMEM;
    if (result == 0) {
        after->bytes = r->names[0];
        pthread_mutex_lock(&d->lock);
        if (off == 0)
            dir_positions_rewind(d->positions);
        result = dir_positions_find(d->positions, r->offset, r->names[0], &after->len);
        pthread_mutex_unlock(&d->lock);
    }
    if (result < 0) {
        front_reply_result(r, result);
        return;
    }
    r->meta.op.kind = META_READDIR;
    r->meta.op.ino = ino;
    r->meta.op.plus = plus;
    /* As many as fit with names of 16 bytes: what is listed in vain costs, a shorter reply only
     * means one more. */
    size_t count = r->size / entry_size(r, 16) + 1;
    r->meta.op.count = (uint32_t)MIN(count, (size_t)LIST_MAX);
    front_meta(r, readdir_done);
}

void front_op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
                      struct fuse_file_info *fi)
{
    read_directory(req, ino, size, off, fi, false);
}

void front_op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
                          struct fuse_file_info *fi)
{
    read_directory(req, ino, size, off, fi, true);
}

/* --- fsyncdir */
static void fsyncdir_done(struct front_request *r)
{
    front_reply_result(r, r->result);
}

void front_op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
    if (front_is_control(ino)) {
        fuse_reply_err(req, 0);
        return;
    }
    struct front_request *r = front_begin(front_fs(req), req, FRONT_FSYNCDIR);
    if (!r)
        return;
    r->ino = ino;
    front_sync_inode(r, fsyncdir_done);
}
