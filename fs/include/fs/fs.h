/*
 * The FUSE front of a mount: turns the kernel's requests into operations on the namespace
 * (meta/meta.h) and the data path (fs/data.h), and tells the kernel what changed by other hands.
 *
 * Order of a mount, and back:
 *
 *     fs_new → meta_open (events from fs_events) → data_open (changed = fs_data_changed)
 *            → fs_run … returns → data_close → meta_close → fs_free
 *
 * What the front does with each request: docs/fuse.md. The control file: docs/control.md.
 */
#ifndef SLUICE_FS_FS_H
#define SLUICE_FS_FS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/metrics.h"
#include "fs/data.h"
#include "meta/meta.h"

struct fs;

enum fs_transport {
    FS_TRANSPORT_AUTO,    /* io_uring where the kernel offers it, else classic */
    FS_TRANSPORT_CLASSIC, /* read and write on /dev/fuse */
    FS_TRANSPORT_URING,   /* FUSE over io_uring, where the kernel offers it; else classic */
};

struct fs_config {
    const char *mountpoint;      /* an existing directory */
    const char *volume_name;     /* what mount and df show, e.g. "s3://bucket/prefix" */
    const char *fuse_options;    /* more mount options for the kernel, "nodev,noexec"; NULL: none */
    const char *selinux_context; /* of all files, NULL: what the policy says */
    bool allow_other;            /* other users than the one who mounts may use it */
    bool read_only;              /* every change is answered EROFS; the control file works */
    bool shared;    /* other mounts change the volume too: the kernel looks at a file's times
                       before it believes the pages it has */
    bool writeback; /* the kernel collects small writes (FUSE_WRITEBACK_CACHE) */
    bool posix_acl; /* access control lists; the kernel asks for one attribute more of each file
                       that somebody else than its owner uses */
    bool no_passthrough; /* every read comes to the mount */
    enum fs_transport transport;
    unsigned
        busy_poll_us; /* classic transport: look for requests so long before sleeping. 0: never */
    unsigned max_threads;      /* that serve requests; 0: processors + 2, between 4 and 10 */
    uint32_t cache_timeout_ms; /* attributes live so long in the kernel; default one day */
    uint32_t import_ttl_ms;   /* names live so long, since others can change the bucket; as given to
                                 meta_open; 0: cache_timeout_ms. Default 60,000 */
    uint32_t negative_ttl_ms; /* that a name does not exist; default 1,000 */
    uint64_t capacity_bytes;  /* statfs: size shown by df; default 1 PiB */
    struct metrics *metrics;  /* NULL: none are kept */
    /* The kernel has answered: the mount can be used. On a thread of the front's. NULL: nobody
     * waits. */
    void (*ready)(void *arg);
    void *arg;
};
void fs_config_init(struct fs_config *config);

enum fs_exit {
    FS_EXIT_UNMOUNTED, /* somebody unmounted it (umount, fusermount3 -u, or the kernel's abort) */
    FS_EXIT_STOPPED,   /* fs_stop, or `stop` by the control file */
    FS_EXIT_ERROR,     /* not mounted, or the connection broke */
};

/* Copies what it needs of the configuration. Nothing is mounted yet. */
int fs_new(const struct fs_config *config, struct fs **out, struct error *error);

/* What meta_open is to be given. Events that come before fs_run or after it are dropped: the kernel
 * caches nothing then. Valid until fs_free. */
struct meta_events fs_events(struct fs *fs);
/* For data_config.changed; arg: the fs. */
void fs_data_changed(void *arg, uint64_t ino);

/* Mounts, serves, and returns when it is over: 0, or -errno with `error` (exit is FS_EXIT_ERROR
 * then). When it returns nothing is mounted any more, every request was answered and every handle
 * of `data` was released. Blocks; once for each fs. The calling thread's signal mask is inherited
 * by the threads that serve. */
int fs_run(struct fs *fs, struct meta *meta, struct data *data, enum fs_exit *exit,
           struct error *error);

/* Ends fs_run soon: what the kernel still holds as dirty pages is written first. A second call ends
 * it without waiting for that. Any thread, and signal handlers. */
void fs_stop(struct fs *fs);

/* After meta_close (events may come until then). NULL is allowed. */
void fs_free(struct fs *fs);

/* A file like /proc/PID/mountinfo names a mount of that device. */
bool fs_device_is_mounted(const char *mountinfo, unsigned major, unsigned minor);

#endif
