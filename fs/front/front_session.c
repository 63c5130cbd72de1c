/* The life of a mount: fs_new, fs_run, fs_stop, fs_free. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse_opt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "control/front_control.h"
#include "crew.h"
#include "front.h"
#include "front_dir.h"
#include "front_inodes.h"
#include "leave.h"
#include "processors.h"

#define DAY_MS (24u * 3600 * 1000)
#define THREADS_LEAST 4
#define THREADS_MOST 10

const char *const front_op_names[FRONT_OP_COUNT] = {
    [FRONT_LOOKUP] = "lookup",
    [FRONT_GETATTR] = "getattr",
    [FRONT_SETATTR] = "setattr",
    [FRONT_READLINK] = "readlink",
    [FRONT_MKNOD] = "mknod",
    [FRONT_MKDIR] = "mkdir",
    [FRONT_SYMLINK] = "symlink",
    [FRONT_LINK] = "link",
    [FRONT_UNLINK] = "unlink",
    [FRONT_RMDIR] = "rmdir",
    [FRONT_RENAME] = "rename",
    [FRONT_CREATE] = "create",
    [FRONT_OPEN] = "open",
    [FRONT_READ] = "read",
    [FRONT_WRITE] = "write",
    [FRONT_FLUSH] = "flush",
    [FRONT_FSYNC] = "fsync",
    [FRONT_FALLOCATE] = "fallocate",
    [FRONT_COPY] = "copy_file_range",
    [FRONT_LSEEK] = "lseek",
    [FRONT_OPENDIR] = "opendir",
    [FRONT_READDIR] = "readdir",
    [FRONT_FSYNCDIR] = "fsyncdir",
    [FRONT_STATFS] = "statfs",
    [FRONT_XATTR] = "xattr",
    [FRONT_LOCK] = "lock",
};

/* Each that waits for a request is woken in turn; with more than can run, each request finds one
 * that has slept. Two beside the processors, for those that wait for the disk. */
static unsigned default_threads(void)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    return (unsigned)MAX(THREADS_LEAST, MIN(processors + 2, THREADS_MOST));
}

void fs_config_init(struct fs_config *config)
{
    *config = (struct fs_config){
        .busy_poll_us = CREW_POLL_NS / 1000,
        .cache_timeout_ms = DAY_MS,
        .import_ttl_ms = 60000,
        .negative_ttl_ms = 1000,
        .capacity_bytes = 1ull << 50,
    };
}

/* --- fs_new, fs_free */
static int64_t read_known(void *arg)
{
    return (int64_t)inodes_count(((struct fs *)arg)->inodes);
}

static int64_t read_in_flight(void *arg)
{
    return atomic_load(&((struct fs *)arg)->in_flight);
}

static void make_metrics(struct fs *fs)
{
    struct metrics *m = fs->config.metrics;
    for (int op = 0; op < FRONT_OP_COUNT; op++) {
        char labels[64];
        snprintf(labels, sizeof(labels), "op=\"%s\"", front_op_names[op]);
        fs->seconds[op] = metrics_histogram(m, "sluice_fs_request_seconds", labels,
                                            "Time from the kernel's request to the reply");
    }
    fs->errors = metrics_counter(m, "sluice_fs_failures_total", "",
                                 "Requests answered with an error of the storage");
    metrics_callback(m, "sluice_fs_known_inodes", "", "Inodes that the kernel has in its cache",
                     read_known, fs);
    metrics_callback(m, "sluice_fs_requests_in_flight", "", "Requests that are not answered yet",
                     read_in_flight, fs);
}

static int copy_text(const char **text)
{
    if (!*text)
        return 0;
    *text = strdup(*text);
    return *text ? 0 : -ENOMEM;
}

static int copy_config(struct fs *fs, const struct fs_config *config)
{
    struct fs_config *c = &fs->config;
    *c = *config;
    int mountpoint = copy_text(&c->mountpoint);
    int name = copy_text(&c->volume_name);
    int options = copy_text(&c->fuse_options);
    if (c->max_threads == 0)
        c->max_threads = default_threads();
    fs->long_timeout_s = c->cache_timeout_ms / 1000.0;
    fs->import_timeout_s =
        c->import_ttl_ms ? c->import_ttl_ms / 1000.0 : c->cache_timeout_ms / 1000.0;
    fs->negative_timeout_s = c->negative_ttl_ms / 1000.0;
    return mountpoint || name || options ? -ENOMEM : 0;
}

int fs_new(const struct fs_config *config, struct fs **out, struct error *error)
{
    assert(config->mountpoint && config->volume_name);
    struct fs *fs = aligned_alloc(64, (sizeof(*fs) + 63) / 64 * 64);
    if (!fs)
        return error_set(error, -ENOMEM, "no memory");
    memset(fs, 0, sizeof(*fs));
    fs->owner = getuid();
    fs->started_ns = clock_wall_ns();
    pthread_mutex_init(&fs->opened_lock, NULL);
    pthread_mutex_init(&fs->idle_lock, NULL);
    pthread_cond_init(&fs->idle, NULL);
    pthread_rwlock_init(&fs->users_lock, NULL);
    sem_init(&fs->stop, 0, 0);
    for (size_t i = 0; i < FRONT_POOLS; i++)
        pthread_mutex_init(&fs->pools[i].lock, NULL);
    int result = copy_config(fs, config);
    if (result == 0)
        result = inodes_new(&fs->inodes);
    if (result == 0)
        result = notify_new(fs, &fs->notify);
    if (result == 0)
        result = dir_kept_new(&fs->listings);
    if (result < 0) {
        fs_free(fs);
        return error_set(error, result, "no memory");
    }
    make_metrics(fs);
    *out = fs;
    return 0;
}

void fs_free(struct fs *fs)
{
    if (!fs)
        return;
    crew_free(fs->crew);
    if (fs->session)
        fuse_session_destroy(fs->session);
    front_pool_done(fs);
    dir_kept_free(fs->listings);
    notify_free(fs->notify);
    inodes_free(fs->inodes);
    sem_destroy(&fs->stop);
    pthread_rwlock_destroy(&fs->users_lock);
    pthread_cond_destroy(&fs->idle);
    pthread_mutex_destroy(&fs->idle_lock);
    pthread_mutex_destroy(&fs->opened_lock);
    free((char *)fs->config.mountpoint);
    free((char *)fs->config.volume_name);
    free((char *)fs->config.fuse_options);
    free(fs);
}

/* --- Events from the volume and the data path */
static void tell_data(struct fs *fs, uint64_t ino, bool outside)
{
    pthread_rwlock_rdlock(&fs->users_lock);
    if (fs->data)
        data_extents_changed(fs->data, ino, outside);
    pthread_rwlock_unlock(&fs->users_lock);
}

static void on_entry(void *arg, uint64_t parent, const char *name, size_t len)
{
    notify_entry(((struct fs *)arg)->notify, parent, name, len);
}

static void on_names_shown(void *arg, uint64_t parent, uint64_t new_parent)
{
    notify_names_shown(((struct fs *)arg)->notify, parent, new_parent);
}

static void on_inode(void *arg, uint64_t ino, bool data)
{
    struct fs *fs = arg;
    if (data)
        tell_data(fs, ino, true);
    notify_inode(fs->notify, ino, data);
}

static void on_extents(void *arg, uint64_t ino)
{
    tell_data(arg, ino, false);
}

static void on_contents_gone(void *arg, const uint64_t *cids, size_t count)
{
    struct fs *fs = arg;
    pthread_rwlock_rdlock(&fs->users_lock);
    if (fs->data)
        data_contents_gone(fs->data, cids, count);
    pthread_rwlock_unlock(&fs->users_lock);
}

static void on_settled(void *arg, uint64_t cid, const void *bytes, size_t len)
{
    struct fs *fs = arg;
    pthread_rwlock_rdlock(&fs->users_lock);
    if (fs->data)
        data_settled(fs->data, cid, bytes, len);
    pthread_rwlock_unlock(&fs->users_lock);
}

static void on_content(void *arg, uint64_t ino)
{
    struct fs *fs = arg;
    pthread_rwlock_rdlock(&fs->users_lock);
    if (fs->data)
        data_content_changed(fs->data, ino);
    pthread_rwlock_unlock(&fs->users_lock);
    notify_inode(fs->notify, ino, true);
}

static void content_of(void *arg, uint64_t ino)
{
    struct fs *fs = arg;
    if (fs->data)
        data_content_changed(fs->data, ino);
}

static void told_applied(void *arg, struct meta_told *told)
{
    notify_told(((struct fs *)arg)->notify, told);
}

static void on_told(void *arg, struct meta_told *told)
{
    struct fs *fs = arg;
    pthread_rwlock_rdlock(&fs->users_lock);
    if (fs->data)
        data_when_applied(fs->data, told, told_applied, fs);
    else
        told_applied(fs, told);
    pthread_rwlock_unlock(&fs->users_lock);
}

static void on_all(void *arg)
{
    struct fs *fs = arg;
    pthread_rwlock_rdlock(&fs->users_lock);
    inodes_each(fs->inodes, content_of, fs);
    pthread_rwlock_unlock(&fs->users_lock);
    notify_all(fs->notify);
}

static void on_quota(void *arg)
{
    struct fs *fs = arg;
    pthread_rwlock_rdlock(&fs->users_lock);
    if (fs->data)
        data_quota_begin(fs->data);
    pthread_rwlock_unlock(&fs->users_lock);
}

static void on_session_lost(void *arg)
{
    struct fs *fs = arg;
    pthread_rwlock_rdlock(&fs->users_lock);
    if (fs->data)
        data_session_lost(fs->data);
    pthread_rwlock_unlock(&fs->users_lock);
    on_all(arg);
}

static void on_gone(void *arg, uint64_t ino)
{
    struct fs *fs = arg;
    pthread_rwlock_rdlock(&fs->users_lock);
    if (fs->data)
        data_unlinked(fs->data, ino);
    pthread_rwlock_unlock(&fs->users_lock);
    if (inodes_unlinked(fs->inodes, ino))
        notify_drop(fs->notify, ino);
}

struct meta_events fs_events(struct fs *fs)
{
    return (struct meta_events){
        .entry_changed = on_entry,
        .names_shown = on_names_shown,
        .inode_changed = on_inode,
        .extents_changed = on_extents,
        .settled = on_settled,
        .contents_gone = on_contents_gone,
        .inode_gone = on_gone,
        .content_changed = on_content,
        .all_changed = on_all,
        .session_lost = on_session_lost,
        .quota_begins = on_quota,
        .when_dropped = on_told,
        .arg = fs,
    };
}

void fs_data_changed(void *arg, uint64_t ino)
{
    notify_inode(((struct fs *)arg)->notify, ino, true);
}

static void set_users(struct fs *fs, struct meta *meta, struct data *data)
{
    pthread_rwlock_wrlock(&fs->users_lock);
    fs->meta = meta;
    fs->data = data;
    pthread_rwlock_unlock(&fs->users_lock);
}

/* --- Mounting */

/* libfuse says what went wrong only in words; the last of them is kept for the caller's error. */
static _Thread_local char fuse_words[256];

static void log_fuse(enum fuse_log_level level, const char *fmt, va_list ap)
{
    char text[256];
    char quoted[512];
    vsnprintf(text, sizeof(text), fmt, ap);
    text[strcspn(text, "\n")] = 0;
    if (level <= FUSE_LOG_ERR)
        memcpy(fuse_words, text, sizeof(text));
    log_write(level <= FUSE_LOG_WARNING ? LOG_WARN : LOG_DEBUG, "libfuse", "text=%s",
              log_quote(text, quoted, sizeof(quoted)));
}

static int add_option(struct fuse_args *args, const char *option, bool wanted)
{
    if (!wanted)
        return 0;
    return fuse_opt_add_arg(args, "-o") < 0 || fuse_opt_add_arg(args, option) < 0 ? -ENOMEM : 0;
}

/* What FS_TRANSPORT_AUTO means here: io_uring where the kernel offers it and the library takes
 * replies from every thread. */
static bool wants_uring(enum fs_transport transport)
{
#ifdef FRONT_URING_ANY_THREAD
    char value = 0;
    if (transport != FS_TRANSPORT_AUTO)
        return transport == FS_TRANSPORT_URING;
    cleanup(close_fd) int fd =
        open("/sys/module/fuse/parameters/enable_uring", O_RDONLY | O_CLOEXEC);
    return fd >= 0 && read(fd, &value, 1) == 1 && (value == 'Y' || value == '1');
#else
    if (transport == FS_TRANSPORT_URING)
        log_warn("this libfuse takes replies over io_uring from one thread only: classic is used",
                 "");
    return false;
#endif
}

/* context="…", which may have commas: libfuse takes the escapes away, the kernel the quotes. */
static int add_context(struct fuse_args *args, const char *context)
{
    cleanup(free_ptr) char *option = NULL;
    cleanup(free_ptr) char *escaped = NULL;
    if (!context)
        return 0;
    if (asprintf(&option, "context=\"%s\"", context) < 0 ||
        fuse_opt_add_opt_escaped(&escaped, option) < 0)
        return -ENOMEM;
    return add_option(args, escaped, true);
}

static int make_arguments(struct fs *fs, bool uring, struct fuse_args *args)
{
    const struct fs_config *c = &fs->config;
    char *name = NULL;
    cleanup(free_ptr) char *fsname = NULL;
    if (asprintf(&name, "fsname=%s", c->volume_name) < 0)
        return -ENOMEM;
    int result = fuse_opt_add_opt_escaped(&fsname, name); /* it may have a comma */
    free(name);
    result |= fuse_opt_add_arg(args, "sluice");
    if (result < 0)
        return -ENOMEM;
    result |= add_option(args, fsname, true);
    result |= add_option(args, "subtype=sluice", true);
    result |= add_option(args, "default_permissions", true);
    result |= add_option(args, "allow_other", c->allow_other);
    result |= add_option(args, "io_uring", uring);
    result |= add_context(args, c->selinux_context);
    result |= add_option(args, c->fuse_options, c->fuse_options && c->fuse_options[0]);
    return result < 0 ? -ENOMEM : 0;
}

static int check_mountpoint(const char *path, struct error *error)
{
    struct stat st;
    if (access("/dev/fuse", F_OK) < 0)
        return error_set(error, -errno,
                         "there is no /dev/fuse: load the kernel module (modprobe fuse), and give "
                         "containers the device");
    if (stat(path, &st) < 0) {
        if (errno == ENOTCONN)
            return error_set(error, -ENOTCONN,
                             "%s: a dead mount is still there; remove it with fusermount3 -u",
                             path);
        return error_set(error, -errno, "mount point %s: %s", path, strerror(errno));
    }
    if (!S_ISDIR(st.st_mode))
        return error_set(error, -ENOTDIR, "mount point %s is not a directory", path);
    return 0;
}

/* The kernel reads 128 KiB ahead unless it is told so; larger requests cost less each. Where it may
 * not be changed (no rights), that stays. The root's attributes are not asked for: nobody serves
 * them yet. */
static void set_readahead(struct fs *fs)
{
    struct statx st;
    char path[64], value[16];
    if (statx(AT_FDCWD, fs->config.mountpoint, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, 0, &st) < 0)
        return;
    fs->major = st.stx_dev_major;
    fs->minor = st.stx_dev_minor;
    snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb", st.stx_dev_major,
             st.stx_dev_minor);
    int len = snprintf(value, sizeof(value), "%d", FRONT_MAX_IO / 1024);
    cleanup(close_fd) int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, value, (size_t)len) != len)
        log_debug("read-ahead of the kernel stays", "path=%s", path);
}

/* Who looks for requests without sleeping takes a processor from those that make them, if there is
 * only one; or uses up what a control group allows. */
static int make_crew(struct fs *fs, struct error *error)
{
    bool spare = processors_allowed() >= 2;
    struct crew_config config = {.threads = fs->config.max_threads,
                                 .poll_ns = spare ? fs->config.busy_poll_us * 1000ull : 0};
    int rc = crew_new(fs->session, &config, &fs->crew);
    if (rc == 0)
        return 0;
    fuse_session_unmount(fs->session);
    return error_set(error, rc, "cannot serve the kernel: %s", strerror(-rc));
}

static int mount_session(struct fs *fs, struct error *error)
{
    const char *mountpoint = fs->config.mountpoint;
    int result = check_mountpoint(mountpoint, error);
    if (result < 0)
        return result;
    struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
    bool uring = wants_uring(fs->config.transport);
    result = make_arguments(fs, uring, &args);
    fuse_words[0] = 0;
    fuse_set_log_func(log_fuse);
    if (result == 0) {
        fs->session = fuse_session_new(&args, &front_ops, sizeof(front_ops), fs);
        if (!fs->session)
            result = error_set(error, -EINVAL, "libfuse: %s",
                               fuse_words[0] ? fuse_words : "unknown mount option");
    } else {
        error_set(error, result, "no memory");
    }
    fuse_opt_free_args(&args);
    if (result < 0)
        return result;
    if (fuse_session_mount(fs->session, mountpoint) != 0)
        return error_set(error, -EPERM, "cannot mount on %s: %s", mountpoint,
                         fuse_words[0] ? fuse_words : "fusermount3 refused");
    set_readahead(fs);
    return uring ? 0 : make_crew(fs, error);
}

/* --- The end of a mount */

/* Pages that programs wrote by mmap, or that the kernel collects, are in its cache only. */
static void write_back(const struct fs *fs)
{
    cleanup(close_fd) int fd = open(fs->config.mountpoint, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0 && syncfs(fd) < 0)
        log_warn("not all pages were written back", "error=%s", strerrorname_np(errno));
}

static void stop_serving(struct fs *fs)
{
    fuse_session_exit(fs->session);
    if (fs->crew)
        crew_stop(fs->crew);
}

/* Waits for fs_stop, or for the end of the loop. */
static void *run_stopper(void *arg)
{
    struct fs *fs = arg;
    pthread_setname_np(pthread_self(), "fs-stop");
    while (sem_wait(&fs->stop) < 0 && errno == EINTR)
        ;
    if (atomic_load(&fs->ran))
        return NULL;
    log_info("stopping", "mountpoint=%s", fs->config.mountpoint);
    data_stop_waiting(fs->data);
    if (!atomic_load(&fs->left))
        write_back(fs);
    /* Both may wait in the kernel for somebody whose request only the loop can answer. */
    control_stop(fs->control);
    notify_stop(fs->notify);
    stop_serving(fs);
    return NULL;
}

void fs_stop(struct fs *fs)
{
    if (atomic_fetch_add(&fs->stops, 1) > 0 && atomic_load(&fs->serving))
        stop_serving(fs);
    sem_post(&fs->stop);
}

int front_leave(struct fs *fs, bool wanted)
{
    struct leave *leave = NULL;
    int rc = wanted ? leave_start(fs, &leave) : 0;
    if (rc < 0)
        return rc;
    pthread_mutex_lock(&fs->opened_lock);
    struct leave *was = fs->leave;
    fs->leave = leave;
    pthread_mutex_unlock(&fs->opened_lock);
    leave_stop(was);
    return 0;
}

static void drain(struct fs *fs)
{
    atomic_store(&fs->draining, true);
    pthread_mutex_lock(&fs->idle_lock);
    while (atomic_load(&fs->in_flight) > 0)
        pthread_cond_wait(&fs->idle, &fs->idle_lock);
    pthread_mutex_unlock(&fs->idle_lock);
}

/* Handles that the kernel still had when the loop ended. */
static void release_opened(struct fs *fs)
{
    struct front_opened *opened;
    struct front_opened *next;
    DL_FOREACH_SAFE(fs->opened, opened, next)
    {
        DL_DELETE(fs->opened, opened);
        if (opened->kind == FRONT_FILE)
            front_file_free(container_of(opened, struct front_file, opened));
        else if (opened->kind == FRONT_DIRECTORY)
            front_directory_free(opened);
        else
            control_handle_free(opened);
    }
}

/* Over io_uring libfuse has threads of its own, for each processor, and its loop stops them. */
static int serve_uring(struct fs *fs)
{
    struct fuse_loop_config *loop = fuse_loop_cfg_create();
    if (!loop)
        return -ENOMEM;
    /* Threads stay: making and ending them costs more than keeping them. */
    fuse_loop_cfg_set_max_threads(loop, fs->config.max_threads);
    fuse_loop_cfg_set_clone_fd(loop, 0);
    int result = fuse_session_loop_mt(fs->session, loop);
    fuse_loop_cfg_destroy(loop);
    return result;
}

static int serve_classic(struct fs *fs)
{
    struct crew_counts n;
    int result = crew_run(fs->crew);
    crew_count(fs->crew, &n);
    log_info("requests served", "count=%ju polled=%ju slept=%ju handed=%ju missed=%ju",
             (uintmax_t)n.requests, (uintmax_t)n.polled, (uintmax_t)n.slept, (uintmax_t)n.handed,
             (uintmax_t)n.missed);
    return result;
}

static int serve(struct fs *fs)
{
    atomic_store(&fs->serving, true);
    int result = fs->crew ? serve_classic(fs) : serve_uring(fs);
    atomic_store(&fs->serving, false);
    /* The end as it looks to a thread that was just fetching a request; to the others it is ENODEV.
     */
    return result == -ECONNABORTED ? 0 : result;
}

int fs_run(struct fs *fs, struct meta *meta, struct data *data, enum fs_exit *exit,
           struct error *error)
{
    *exit = FS_EXIT_ERROR;
    int result = mount_session(fs, error);
    if (result < 0)
        return result;
    set_users(fs, meta, data);
    pthread_t stopper;
    bool has_stopper = false;
    result = control_new(fs, &fs->control);
    if (result == 0)
        result = notify_start(fs->notify);
    if (result == 0) {
        result = -pthread_create(&stopper, NULL, run_stopper, fs);
        has_stopper = result == 0;
    }
    if (result == 0)
        result = serve(fs);
    else
        error_set(error, result, "cannot start threads: %s", strerror(-result));

    /* Answers first, while there is a connection; then its end, which frees who waits for it. */
    front_leave(fs, false);
    drain(fs);
    atomic_store(&fs->connected, false);
    fuse_session_unmount(fs->session);
    atomic_store(&fs->ran, true);
    sem_post(&fs->stop);
    if (has_stopper)
        pthread_join(stopper, NULL);
    if (fs->control)
        control_stop(fs->control);
    front_leave(fs, false); /* asked for since */
    notify_stop(fs->notify);
    drain(fs);
    release_opened(fs);
    control_free(fs->control);
    fs->control = NULL;
    set_users(fs, NULL, NULL);

    if (atomic_load(&fs->stops) > 0)
        *exit = FS_EXIT_STOPPED;
    else if (result == 0)
        *exit = FS_EXIT_UNMOUNTED;
    else if (has_stopper)
        error_set(error, result, "the connection to the kernel broke: %s", strerror(-result));
    return *exit == FS_EXIT_ERROR ? result : 0;
}
