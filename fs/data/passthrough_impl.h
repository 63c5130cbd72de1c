/* Inside passthrough: passthrough.c (files of the cache, who opens how, the end), pass_apply.c
 * (what other mounts wrote), pass_staged.c (staging files). All state is under file->lock. */
#ifndef SLUICE_FS_PASSTHROUGH_IMPL_H
#define SLUICE_FS_PASSTHROUGH_IMPL_H

#include <time.h>

#include "passthrough.h"

struct staging_view;

struct pass {
    struct file *file;
    struct staging_view *view; /* of the file's staging; NULL: a file of the cache */
    uint64_t cid;              /* 0: detached, or a staging */
    int fd; /* the cache's; detached: our own, for reading and writing; a staging: the view's */
    int id; /* the kernel's; 0: lingers */
    uint64_t size; /* when it was begun */
    unsigned handles;
    bool stale;    /* the file has another content now */
    bool rdwr;     /* there is or was a handle that can map and write */
    bool behind;   /* another mount wrote it since */
    bool applying; /* is being brought to what is now; that counts as a handle */
    struct file_extents
        *base; /* what the file of the cache had at first, or was brought to since */
    /* detached: what the pages should hold, as far as it is known */
    struct cache_page_sum *sums;
    uint64_t page_count;
    struct timespec changed; /* ctime after our own last change */
    bool suspicious;         /* somebody else has changed it since it was looked at */
    /* a staging */
    uint64_t seen_ns; /* its mtime when it was last looked at */
    bool committed;   /* whole, inline: so many bytes with this checksum */
    uint64_t committed_size;
    uint32_t committed_crc;
    /* lingers: under data->lock */
    struct pass *prev, *next;
    bool checking;
    uint64_t round; /* of pass_settle */
    struct pool_task task;
};

/* With the backing file detached: these bytes of the content, and over them what is staged. 0, or
 * -errno: then it is stale. */
int pass_write_locked(struct file *file, const void *bytes, uint64_t offset, uint64_t length);
/* A handle, or what counts as one, goes. No locks held. */
void pass_put(struct file *file, struct pass *pass);

/* A handle that writes a new file which stays on this disk: it may begin. */
bool pass_staged_eligible_locked(const struct data_handle *handle);
/* False: it is not to be had now. *new: as write_need_staging_locked. */
bool pass_staged_begin_locked(struct data_handle *handle, bool *new);
/* Nobody else can write to it any more. */
bool pass_staged_is_over_locked(struct pass *pass);
/* The file is staged the usual way from here on, or not at all if all of it is committed. `alone`:
 * as pass_staged_is_over_locked has said; else it goes on in a file of its own, which blocks. */
void pass_staged_end_locked(struct file *file, bool alone);

#endif
