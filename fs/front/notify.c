#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "front.h"
#include "front_inodes.h"

#define QUEUE_MAX 65536
#define DROP_BATCH 256
#define DROP_WAIT_NS (20 * NS_PER_MS) /* for more of them to come */
#define NAME_WAIT_NS (2 * NS_PER_MS)  /* for the lock of a directory in the kernel */
#define NAMES_LOOKED_AT 64
#define INODE_TRIES 20 /* of 0.5 ms each: it is on its way into the kernel's table */

struct item {
    struct item *next;
    uint64_t ino; /* the inode, or the parent of a name */
    bool data;
    uint16_t name_len; /* 0: the inode itself */
    char name[];
};

/*
 * Taking a name out of the kernel's cache needs its directory's lock, which a program may hold that
 * waits for an answer; and with a volume that others change, that answer may wait for us. So a
 * thread of its own does it, and if that takes long, a new epoch, which needs no lock, makes every
 * name be asked for again.
 */
struct names {
    pthread_t thread;
    pthread_cond_t wake, done; /* monotonic */
    /* under notify->lock */
    bool started, busy;
    uint64_t parent;
    size_t len;
    char name[META_NAME_MAX + 1];
};

struct notify {
    struct fs *fs;
    struct names names; /* of a shared volume */
    struct meta_told *told, **told_end;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    /* under lock */
    struct item *first, **last;
    const struct item *sending; /* what the thread is at */
    size_t queued;
    uint64_t names_queued, names_doubted; /* so many; a new epoch came when there were so many */
    bool all; /* the queue overflowed: everything the kernel has is in doubt */
    uint64_t *drops;
    size_t drop_count, drop_cap;
    bool sending_all, started, running, stopping;
    uint64_t rounds_begun, rounds_ended; /* of the thread's */
    pthread_cond_t round_ended;
};

int notify_new(struct fs *fs, struct notify **out)
{
    struct notify *n = calloc(1, sizeof(*n));
    if (!n)
        return -ENOMEM;
    n->fs = fs;
    n->last = &n->first;
    n->told_end = &n->told;
    pthread_mutex_init(&n->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&n->wake, &monotonic);
    pthread_cond_init(&n->names.wake, &monotonic);
    pthread_cond_init(&n->names.done, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_cond_init(&n->round_ended, NULL);
    *out = n;
    return 0;
}

static void free_items(struct item *item)
{
    while (item) {
        struct item *next = item->next;
        free(item);
        item = next;
    }
}

void notify_free(struct notify *n)
{
    if (!n)
        return;
    free_items(n->first);
    free(n->drops);
    pthread_cond_destroy(&n->round_ended);
    pthread_cond_destroy(&n->names.done);
    pthread_cond_destroy(&n->names.wake);
    pthread_cond_destroy(&n->wake);
    pthread_mutex_destroy(&n->lock);
    free(n);
}

static void overflow_locked(struct notify *n)
{
    n->all = true;
    n->names_queued++;
    free_items(n->first);
    n->first = NULL;
    n->last = &n->first;
    n->queued = 0;
    pthread_cond_signal(&n->wake);
}

static void queue(struct notify *n, uint64_t ino, bool data, const char *name, size_t len)
{
    struct item *item = malloc(sizeof(*item) + len);
    if (item) {
        *item = (struct item){.ino = ino, .data = data, .name_len = (uint16_t)len};
        memcpy(item->name, name, len);
    }
    pthread_mutex_lock(&n->lock);
    if (!n->running || n->stopping || n->all) {
        free(item);
    } else if (!item || n->queued >= QUEUE_MAX) {
        free(item);
        overflow_locked(n);
    } else {
        *n->last = item;
        n->last = &item->next;
        n->names_queued += len > 0;
        if (n->queued++ == 0)
            pthread_cond_signal(&n->wake);
    }
    pthread_mutex_unlock(&n->lock);
}

/* The kernel has nothing of what it does not know. */
static bool is_known(struct notify *n, uint64_t ino)
{
    return ino == META_ROOT_INO || inodes_known(n->fs->inodes, ino);
}

void notify_entry(struct notify *n, uint64_t parent, const char *name, size_t len)
{
    if (len > 0 && len <= META_NAME_MAX && is_known(n, parent))
        queue(n, parent, false, name, len);
}

void notify_inode(struct notify *n, uint64_t ino, bool data)
{
    if (is_known(n, ino))
        queue(n, ino, data, "", 0);
}

void notify_all(struct notify *n)
{
    pthread_mutex_lock(&n->lock);
    if (n->running && !n->stopping)
        overflow_locked(n);
    pthread_mutex_unlock(&n->lock);
}

static bool names_directory(const struct item *items, uint64_t parent, uint64_t new_parent)
{
    unsigned looked = 0;
    for (; items; items = items->next) {
        bool same = items->ino == parent || items->ino == new_parent;
        if (items->name_len > 0 && (same || ++looked > NAMES_LOOKED_AT))
            return true;
    }
    return false;
}

/* The thread may have to wait for the lock of a directory; a new epoch does not. */
void notify_names_shown(struct notify *n, uint64_t parent, uint64_t new_parent)
{
    pthread_mutex_lock(&n->lock);
    bool doubt = n->running && n->names_doubted < n->names_queued &&
                 (n->all || n->sending_all || names_directory(n->sending, parent, new_parent) ||
                  names_directory(n->first, parent, new_parent));
    if (doubt)
        n->names_doubted = n->names_queued;
    pthread_mutex_unlock(&n->lock);
    if (doubt && fuse_lowlevel_notify_increment_epoch(n->fs->session) < 0)
        log_debug("no epoch in this kernel", "");
}

void notify_told(struct notify *n, struct meta_told *told)
{
    pthread_mutex_lock(&n->lock);
    bool queued = n->running && !n->stopping;
    if (queued) {
        told->next = NULL;
        *n->told_end = told;
        n->told_end = &told->next;
        pthread_cond_signal(&n->wake);
    }
    pthread_mutex_unlock(&n->lock);
    if (!queued)
        told->done(told);
}

void notify_drop(struct notify *n, uint64_t ino)
{
    pthread_mutex_lock(&n->lock);
    if (n->drop_count == n->drop_cap) {
        size_t cap = n->drop_cap ? n->drop_cap * 2 : DROP_BATCH;
        uint64_t *drops = realloc(n->drops, cap * sizeof(*drops));
        if (drops) {
            n->drops = drops;
            n->drop_cap = cap;
        }
    }
    /* What cannot be noted is dropped when the volume is opened next. */
    if (n->drop_count < n->drop_cap)
        n->drops[n->drop_count++] = ino;
    if (n->drop_count == 1 || n->drop_count == DROP_BATCH)
        pthread_cond_signal(&n->wake);
    pthread_mutex_unlock(&n->lock);
}

void notify_wait(struct notify *n)
{
    pthread_mutex_lock(&n->lock);
    /* What is queued goes with the next round; what a round has taken ends with it. */
    uint64_t round = n->rounds_begun + (n->first || n->all ? 1 : 0);
    while (n->running && n->rounds_ended < round)
        pthread_cond_wait(&n->round_ended, &n->lock);
    pthread_mutex_unlock(&n->lock);
}

/* --- The threads */
static struct timespec later(uint64_t ns)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += (long)ns;
    if (until.tv_nsec >= (long)NS_PER_S) {
        until.tv_nsec -= (long)NS_PER_S;
        until.tv_sec++;
    }
    return until;
}

static void *run_names(void *arg)
{
    struct notify *n = arg;
    struct names *names = &n->names;
    pthread_setname_np(pthread_self(), "fs-names");
    pthread_mutex_lock(&n->lock);
    for (;;) {
        while (!names->busy && names->started)
            pthread_cond_wait(&names->wake, &n->lock);
        if (!names->busy)
            break;
        pthread_mutex_unlock(&n->lock);
        fuse_lowlevel_notify_inval_entry(n->fs->session, names->parent, names->name, names->len);
        pthread_mutex_lock(&n->lock);
        names->busy = false;
        pthread_cond_signal(&names->done);
    }
    pthread_mutex_unlock(&n->lock);
    return NULL;
}

static void names_stop(struct notify *n)
{
    pthread_mutex_lock(&n->lock);
    bool join = n->names.started;
    n->names.started = false;
    pthread_cond_signal(&n->names.wake);
    pthread_mutex_unlock(&n->lock);
    if (join)
        pthread_join(n->names.thread, NULL);
}

/* False: the kernel is not done with it. */
static bool try_name(struct notify *n, const struct item *item)
{
    struct names *names = &n->names;
    pthread_mutex_lock(&n->lock);
    bool free = !names->busy && names->started;
    if (free) {
        names->parent = item->ino;
        names->len = item->name_len;
        memcpy(names->name, item->name, item->name_len);
        names->name[item->name_len] = 0;
        names->busy = true;
        pthread_cond_signal(&names->wake);
        struct timespec until = later(NAME_WAIT_NS);
        while (names->busy)
            if (pthread_cond_timedwait(&names->done, &n->lock, &until) == ETIMEDOUT)
                break;
    }
    bool done = free && !names->busy;
    pthread_mutex_unlock(&n->lock);
    return done;
}

/* Every name is to be asked for again. Kernels without epochs cache no names of a shared volume.
 * With its write-back cache the kernel believes in its own size of a file for as long as it has the
 * inode: until it has no name for it, and nobody has it open. */
static void send_epoch(struct notify *n)
{
    if (fuse_lowlevel_notify_increment_epoch(n->fs->session) < 0)
        log_debug("no epoch in this kernel", "");
}

static void send_name(struct notify *n, const struct item *item)
{
    if (!n->fs->config.shared)
        fuse_lowlevel_notify_inval_entry(n->fs->session, item->ino, item->name, item->name_len);
    else if (!try_name(n, item))
        send_epoch(n);
}

/* An inode that was given to the kernel a moment ago may not be in its table yet, and would come
 * with the attributes of then. */
static void send_attributes(struct notify *n, uint64_t ino, bool data)
{
    const struct timespec pause = {.tv_nsec = 500000};
    for (int i = 0; i < INODE_TRIES; i++) {
        int rc = fuse_lowlevel_notify_inval_inode(n->fs->session, ino, data ? 0 : -1, 0);
        if (rc != -ENOENT || !n->fs->config.shared || !is_known(n, ino))
            return;
        nanosleep(&pause, NULL);
    }
}

static void send_items(struct notify *n, const struct item *items)
{
    for (const struct item *item = items; item; item = item->next) {
        if (item->name_len == 0) {
            send_attributes(n, item->ino, item->data);
            if (item->data && n->fs->config.writeback)
                send_epoch(n);
            continue;
        }
        send_name(n, item);
        /* The directory's own attributes and its listing, once for a row of its names. */
        const struct item *next = item->next;
        if (!next || next->name_len == 0 || next->ino != item->ino)
            send_attributes(n, item->ino, true);
    }
}

static void send_told(struct meta_told *told)
{
    while (told) {
        struct meta_told *next = told->next;
        told->done(told);
        told = next;
    }
}

static void send_inode(void *arg, uint64_t ino)
{
    fuse_lowlevel_notify_inval_inode(((struct notify *)arg)->fs->session, ino, 0, 0);
}

static void send_all(struct notify *n)
{
    log_warn("kernel caches dropped",
             "reason=\"more changes than the queue holds, or the service was away\"");
    send_epoch(n);
    send_inode(n, META_ROOT_INO);
    inodes_each(n->fs->inodes, send_inode, n);
}

static void drop(struct notify *n, const uint64_t *inos, size_t count)
{
    for (size_t done = 0; done < count; done += DROP_BATCH) {
        struct meta_request request = {
            .op = {.kind = META_DROP,
                   .inos = inos + done,
                   .ino_count = MIN(count - done, (size_t)DROP_BATCH)},
        };
        int result = meta_call(n->fs->meta, &request);
        if (result < 0)
            log_debug("unlinked files not dropped", "error=%s", strerrorname_np(-result));
        meta_reply_done(&request.reply);
    }
}

/* Waits for something to do; false: it is over. */
static bool wait_locked(struct notify *n)
{
    while (!n->first && !n->all && !n->told && n->drop_count == 0) {
        if (n->stopping)
            return false;
        pthread_cond_wait(&n->wake, &n->lock);
    }
    if (n->first || n->all || n->told || n->stopping)
        return true;
    struct timespec until = later(DROP_WAIT_NS);
    while (!n->first && !n->all && !n->told && !n->stopping && n->drop_count < DROP_BATCH)
        if (pthread_cond_timedwait(&n->wake, &n->lock, &until) == ETIMEDOUT)
            break;
    return true;
}

static void *run(void *arg)
{
    struct notify *n = arg;
    pthread_setname_np(pthread_self(), "fs-notify");
    pthread_mutex_lock(&n->lock);
    while (wait_locked(n)) {
        struct item *items = n->first;
        bool all = n->all;
        uint64_t *drops = n->drops;
        size_t drop_count = n->drop_count;
        n->first = NULL;
        n->last = &n->first;
        n->queued = 0;
        n->all = false;
        n->sending = items;
        n->sending_all = all;
        n->drops = NULL;
        n->drop_count = n->drop_cap = 0;
        n->rounds_begun++;
        struct meta_told *told = n->told;
        n->told = NULL;
        n->told_end = &n->told;
        pthread_mutex_unlock(&n->lock);

        if (all)
            send_all(n);
        send_items(n, items);
        pthread_mutex_lock(&n->lock);
        n->sending = NULL;
        n->sending_all = false;
        pthread_mutex_unlock(&n->lock);
        free_items(items);
        send_told(told);
        drop(n, drops, drop_count);
        free(drops);

        pthread_mutex_lock(&n->lock);
        n->rounds_ended++;
        pthread_cond_broadcast(&n->round_ended);
    }
    n->running = false;
    pthread_cond_broadcast(&n->round_ended);
    pthread_mutex_unlock(&n->lock);
    return NULL;
}

int notify_start(struct notify *n)
{
    pthread_mutex_lock(&n->lock);
    int error = pthread_create(&n->thread, NULL, run, n);
    n->started = n->running = error == 0;
    if (!error && n->fs->config.shared) {
        n->names.started = true;
        error = pthread_create(&n->names.thread, NULL, run_names, n);
        n->names.started = error == 0;
    }
    pthread_mutex_unlock(&n->lock);
    return -error;
}

void notify_stop(struct notify *n)
{
    pthread_mutex_lock(&n->lock);
    bool join = n->started && !n->stopping;
    n->stopping = true;
    pthread_cond_signal(&n->wake);
    pthread_mutex_unlock(&n->lock);
    if (join)
        pthread_join(n->thread, NULL);
    names_stop(n);
}
