/*
 * null_fuse MOUNTPOINT [--threads=N] [--timeout=SECONDS] [--busy-poll=MICROSECONDS]
 * [--libfuse-loop] [--uring] [--clone-fd]: a file system that
 * answers from memory and does nothing else: names in a hash table, written bytes are thrown away,
 * reads give zeros. What the kernel and libfuse cost without a file system behind them: the
 * reference that Sluice is measured against. Runs in the foreground until it is unmounted.
 */
#include <errno.h>
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <uthash.h>

#include "front/crew.h"

#define MAX_IO (1024 * 1024)

struct node {
    uint64_t ino;
    uint64_t lookups;
    struct stat st;
    UT_hash_handle hh;
};

struct name {
    struct node *node;
    UT_hash_handle hh;
    size_t key_len;
    struct {
        uint64_t parent;
        char text[256];
    } key;
};

struct null {
    pthread_mutex_t lock;
    /* under lock */
    struct node *nodes;
    struct name *names;
    uint64_t next_ino;
    /* immutable */
    double timeout;
    char *zeros;
};

static struct null *null_of(fuse_req_t req)
{
    return fuse_req_userdata(req);
}

static struct node *find_node(struct null *n, uint64_t ino)
{
    struct node *node;
    HASH_FIND(hh, n->nodes, &ino, sizeof(ino), node);
    return node;
}

static void set_key(struct name *name, uint64_t parent, const char *text)
{
    memset(&name->key, 0, sizeof(name->key));
    name->key.parent = parent;
    snprintf(name->key.text, sizeof(name->key.text), "%s", text);
    name->key_len =
        offsetof(struct name, key.text) - offsetof(struct name, key) + strlen(name->key.text);
}

static struct name *find_name(struct null *n, uint64_t parent, const char *text)
{
    struct name key;
    struct name *name;
    set_key(&key, parent, text);
    HASH_FIND(hh, n->names, &key.key, key.key_len, name);
    return name;
}

static void add_name(struct null *n, struct name *name)
{
    HASH_ADD_KEYPTR(hh, n->names, &name->key, name->key_len, name);
}

static struct node *add_node(struct null *n, mode_t mode)
{
    struct node *node = calloc(1, sizeof(*node));
    if (!node)
        abort();
    node->ino = ++n->next_ino;
    node->st.st_ino = node->ino;
    node->st.st_mode = mode;
    node->st.st_nlink = S_ISDIR(mode) ? 2 : 1;
    node->st.st_uid = getuid();
    node->st.st_gid = getgid();
    clock_gettime(CLOCK_REALTIME_COARSE, &node->st.st_mtim);
    node->st.st_atim = node->st.st_ctim = node->st.st_mtim;
    HASH_ADD(hh, n->nodes, ino, sizeof(node->ino), node);
    return node;
}

static void forget_node(struct null *n, uint64_t ino, uint64_t count)
{
    struct node *node = find_node(n, ino);
    if (!node || ino == FUSE_ROOT_ID)
        return;
    node->lookups -= count < node->lookups ? count : node->lookups;
    if (node->lookups == 0 && node->st.st_nlink == 0) {
        HASH_DELETE(hh, n->nodes, node);
        free(node);
    }
}

static void fill(struct null *n, struct node *node, struct fuse_entry_param *e)
{
    node->lookups++;
    *e = (struct fuse_entry_param){
        .ino = node->ino,
        .generation = 1,
        .attr = node->st,
        .attr_timeout = n->timeout,
        .entry_timeout = n->timeout,
    };
}

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
    static const uint64_t wanted[] = {
        FUSE_CAP_ASYNC_READ,          FUSE_CAP_ASYNC_DIO,        FUSE_CAP_ATOMIC_O_TRUNC,
        FUSE_CAP_PARALLEL_DIROPS,     FUSE_CAP_READDIRPLUS_AUTO, FUSE_CAP_HANDLE_KILLPRIV_V2,
        FUSE_CAP_EXPLICIT_INVAL_DATA,
    };
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++)
        fuse_set_feature_flag(conn, wanted[i]);
    fuse_unset_feature_flag(conn, FUSE_CAP_AUTO_INVAL_DATA);
    fuse_unset_feature_flag(conn, FUSE_CAP_SPLICE_READ);
    conn->max_write = MAX_IO;
    conn->max_readahead = MAX_IO;
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *text)
{
    struct null *n = null_of(req);
    struct fuse_entry_param e = {.entry_timeout = 1};
    pthread_mutex_lock(&n->lock);
    struct name *name = find_name(n, parent, text);
    if (name)
        fill(n, name->node, &e);
    pthread_mutex_unlock(&n->lock);
    fuse_reply_entry(req, &e);
}

static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count)
{
    struct null *n = null_of(req);
    pthread_mutex_lock(&n->lock);
    forget_node(n, ino, count);
    pthread_mutex_unlock(&n->lock);
    fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
    struct null *n = null_of(req);
    pthread_mutex_lock(&n->lock);
    for (size_t i = 0; i < count; i++)
        forget_node(n, forgets[i].ino, forgets[i].nlookup);
    pthread_mutex_unlock(&n->lock);
    fuse_reply_none(req);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct null *n = null_of(req);
    struct stat st = {0};
    pthread_mutex_lock(&n->lock);
    struct node *node = find_node(n, ino);
    if (node)
        st = node->st;
    pthread_mutex_unlock(&n->lock);
    if (node)
        fuse_reply_attr(req, &st, n->timeout);
    else
        fuse_reply_err(req, ENOENT);
}

static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
                       struct fuse_file_info *fi)
{
    struct null *n = null_of(req);
    pthread_mutex_lock(&n->lock);
    struct node *node = find_node(n, ino);
    if (node && (to_set & FUSE_SET_ATTR_MODE))
        node->st.st_mode = (node->st.st_mode & S_IFMT) | (attr->st_mode & ~(mode_t)S_IFMT);
    if (node && (to_set & FUSE_SET_ATTR_SIZE))
        node->st.st_size = attr->st_size;
    if (node && (to_set & FUSE_SET_ATTR_MTIME))
        node->st.st_mtim = attr->st_mtim;
    pthread_mutex_unlock(&n->lock);
    op_getattr(req, ino, fi);
}

static int make(struct null *n, fuse_ino_t parent, const char *text, mode_t mode,
                struct fuse_entry_param *e)
{
    struct name *name = calloc(1, sizeof(*name));
    if (!name)
        return ENOMEM;
    set_key(name, parent, text);
    pthread_mutex_lock(&n->lock);
    int result = find_name(n, parent, text) ? EEXIST : 0;
    if (result == 0) {
        name->node = add_node(n, mode);
        add_name(n, name);
        fill(n, name->node, e);
    } else {
        free(name);
    }
    pthread_mutex_unlock(&n->lock);
    return result;
}

static void reply_made(fuse_req_t req, int result, const struct fuse_entry_param *e)
{
    if (result)
        fuse_reply_err(req, result);
    else
        fuse_reply_entry(req, e);
}

static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *text, mode_t mode, dev_t rdev)
{
    struct fuse_entry_param e;
    reply_made(req, make(null_of(req), parent, text, mode, &e), &e);
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *text, mode_t mode)
{
    struct fuse_entry_param e;
    reply_made(req, make(null_of(req), parent, text, S_IFDIR | mode, &e), &e);
}

static void op_create(fuse_req_t req, fuse_ino_t parent, const char *text, mode_t mode,
                      struct fuse_file_info *fi)
{
    struct fuse_entry_param e;
    int result = make(null_of(req), parent, text, S_IFREG | (mode & 07777), &e);
    fi->keep_cache = 1;
    if (result)
        fuse_reply_err(req, result);
    else
        fuse_reply_create(req, &e, fi);
}

static void remove_name(struct null *n, struct name *name)
{
    struct node *node = name->node;
    HASH_DELETE(hh, n->names, name);
    free(name);
    node->st.st_nlink = 0;
    forget_node(n, node->ino, 0);
}

static void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *text)
{
    struct null *n = null_of(req);
    pthread_mutex_lock(&n->lock);
    struct name *name = find_name(n, parent, text);
    if (name)
        remove_name(n, name);
    pthread_mutex_unlock(&n->lock);
    fuse_reply_err(req, name ? 0 : ENOENT);
}

static void op_rename(fuse_req_t req, fuse_ino_t parent, const char *text, fuse_ino_t new_parent,
                      const char *new_text, unsigned flags)
{
    struct null *n = null_of(req);
    pthread_mutex_lock(&n->lock);
    struct name *name = find_name(n, parent, text);
    struct name *replaced = find_name(n, new_parent, new_text);
    if (name) {
        if (replaced)
            remove_name(n, replaced);
        HASH_DELETE(hh, n->names, name);
        set_key(name, new_parent, new_text);
        add_name(n, name);
    }
    pthread_mutex_unlock(&n->lock);
    fuse_reply_err(req, name ? 0 : ENOENT);
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    fi->keep_cache = 1;
    fi->noflush = (fi->flags & O_ACCMODE) == O_RDONLY;
    fuse_reply_open(req, fi);
}

static void op_done(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    fuse_reply_err(req, 0);
}

static void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
    fuse_reply_err(req, 0);
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
                    struct fuse_file_info *fi)
{
    struct null *n = null_of(req);
    pthread_mutex_lock(&n->lock);
    struct node *node = find_node(n, ino);
    size_t end = node ? (size_t)node->st.st_size : 0;
    pthread_mutex_unlock(&n->lock);
    size_t left = (size_t)off < end ? end - (size_t)off : 0;
    fuse_reply_buf(req, n->zeros, left < size ? left : size);
}

static void op_write(fuse_req_t req, fuse_ino_t ino, struct fuse_bufvec *in, off_t off,
                     struct fuse_file_info *fi)
{
    struct null *n = null_of(req);
    size_t size = fuse_buf_size(in);
    pthread_mutex_lock(&n->lock);
    struct node *node = find_node(n, ino);
    if (node && node->st.st_size < off + (off_t)size)
        node->st.st_size = off + (off_t)size;
    pthread_mutex_unlock(&n->lock);
    fuse_reply_write(req, size);
}

static void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    fuse_reply_open(req, fi);
}

/* Names in the order in which they were made; a cookie is a position in the table. Good enough for
 * a directory that nobody changes meanwhile. */
static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
                       struct fuse_file_info *fi)
{
    struct null *n = null_of(req);
    char *bytes = malloc(size);
    size_t used = 0;
    off_t at = 0;
    if (!bytes) {
        fuse_reply_err(req, ENOMEM);
        return;
    }
    pthread_mutex_lock(&n->lock);
    for (struct name *name = n->names; name; name = name->hh.next) {
        if (at++ < off || name->key.parent != ino)
            continue;
        size_t len =
            fuse_add_direntry(req, bytes + used, size - used, name->key.text, &name->node->st, at);
        if (len > size - used)
            break;
        used += len;
    }
    pthread_mutex_unlock(&n->lock);
    fuse_reply_buf(req, bytes, used);
    free(bytes);
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
    struct statvfs st = {.f_bsize = 4096,
                         .f_frsize = 4096,
                         .f_blocks = 1ull << 38,
                         .f_bfree = 1ull << 38,
                         .f_bavail = 1ull << 38,
                         .f_namemax = 255};
    fuse_reply_statfs(req, &st);
}

static const struct fuse_lowlevel_ops ops = {
    .init = op_init,
    .lookup = op_lookup,
    .forget = op_forget,
    .forget_multi = op_forget_multi,
    .getattr = op_getattr,
    .setattr = op_setattr,
    .mknod = op_mknod,
    .mkdir = op_mkdir,
    .create = op_create,
    .unlink = op_unlink,
    .rmdir = op_unlink,
    .rename = op_rename,
    .open = op_open,
    .flush = op_done,
    .release = op_done,
    .fsync = op_fsync,
    .read = op_read,
    .write_buf = op_write,
    .opendir = op_opendir,
    .readdir = op_readdir,
    .releasedir = op_done,
    .statfs = op_statfs,
};

/* By threads as those of a mount of Sluice. It ends when it is unmounted. */
static int serve(struct fuse_session *session, const struct crew_config *config)
{
    struct crew *crew;
    int result = crew_new(session, config, &crew);
    if (result < 0)
        return result;
    result = crew_run(crew);
    crew_free(crew);
    return result;
}

int main(int argc, char **argv)
{
    struct null n = {.lock = PTHREAD_MUTEX_INITIALIZER, .timeout = 86400};
    int clone_fd = 0;
    bool libfuse_loop = false;
    struct crew_config config = {.threads = 10, .poll_ns = CREW_POLL_NS};
    const char *mountpoint = NULL;
    const char *options = "fsname=null,default_permissions";
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "--threads=", 10) == 0)
            config.threads = (unsigned)strtoul(argv[i] + 10, NULL, 10);
        else if (strncmp(argv[i], "--busy-poll=", 12) == 0)
            config.poll_ns = strtoul(argv[i] + 12, NULL, 10) * 1000;
        else if (strncmp(argv[i], "--timeout=", 10) == 0)
            n.timeout = strtod(argv[i] + 10, NULL);
        else if (strcmp(argv[i], "--uring") == 0)
            libfuse_loop = true, options = "fsname=null,default_permissions,io_uring";
        else if (strcmp(argv[i], "--libfuse-loop") == 0)
            libfuse_loop = true;
        else if (strcmp(argv[i], "--clone-fd") == 0)
            libfuse_loop = true, clone_fd = 1;
        else
            mountpoint = argv[i];
    }
    n.zeros = calloc(1, MAX_IO);
    if (!mountpoint || config.threads == 0 || !n.zeros) {
        fprintf(stderr, "usage: null_fuse MOUNTPOINT [--threads=N] [--timeout=SECONDS] "
                        "[--busy-poll=MICROSECONDS] [--libfuse-loop] [--uring] [--clone-fd]\n");
        return 2;
    }
    add_node(&n, S_IFDIR | 0755); /* inode 1, the root */
    struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
    fuse_opt_add_arg(&args, "null_fuse");
    fuse_opt_add_arg(&args, "-o");
    fuse_opt_add_arg(&args, options);
    struct fuse_session *session = fuse_session_new(&args, &ops, sizeof(ops), &n);
    struct fuse_loop_config *loop = fuse_loop_cfg_create();
    if (!session || !loop || fuse_session_mount(session, mountpoint) != 0)
        return 1;
    if (libfuse_loop)
        fuse_set_signal_handlers(session);
    fuse_loop_cfg_set_max_threads(loop, config.threads);
    fuse_loop_cfg_set_clone_fd(loop, (unsigned)clone_fd);
    int result = libfuse_loop ? fuse_session_loop_mt(session, loop) : serve(session, &config);
    fuse_loop_cfg_destroy(loop);
    fuse_session_unmount(session);
    if (libfuse_loop)
        fuse_remove_signal_handlers(session);
    fuse_session_destroy(session);
    fuse_opt_free_args(&args);
    free(n.zeros);
    return result == 0 || result == SIGTERM || result == SIGINT ? 0 : 1;
}
