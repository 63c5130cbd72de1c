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

struct item {
    struct item *next;
    uint64_t ino; /* the inode, or the parent of a name */
    bool data;
    uint16_t name_len; /* 0: the inode itself */
    char name[];
};

struct notify {
    struct fs *fs;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    /* under lock */
    struct item *first, **last;
    size_t queued;
    bool all; /* the queue overflowed: everything the kernel has is in doubt */
    uint64_t *drops;
    size_t drop_count, drop_cap;
    bool started, running, stopping;
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
    pthread_mutex_init(&n->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&n->wake, &monotonic);
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
    pthread_cond_destroy(&n->wake);
    pthread_mutex_destroy(&n->lock);
    free(n);
}

static void overflow_locked(struct notify *n)
{
    n->all = true;
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

/* --- The thread */
static void send_items(struct notify *n, const struct item *items)
{
    struct fuse_session *se = n->fs->session;
    for (const struct item *item = items; item; item = item->next) {
        if (item->name_len == 0) {
            fuse_lowlevel_notify_inval_inode(se, item->ino, item->data ? 0 : -1, 0);
            continue;
        }
        fuse_lowlevel_notify_inval_entry(se, item->ino, item->name, item->name_len);
        /* The directory's own attributes and its listing, once for a row of its names. */
        const struct item *next = item->next;
        if (!next || next->name_len == 0 || next->ino != item->ino)
            fuse_lowlevel_notify_inval_inode(se, item->ino, 0, 0);
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
    if (fuse_lowlevel_notify_increment_epoch(n->fs->session) < 0)
        log_debug("no epoch in this kernel", "");
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
    while (!n->first && !n->all && n->drop_count == 0) {
        if (n->stopping)
            return false;
        pthread_cond_wait(&n->wake, &n->lock);
    }
    if (n->first || n->all || n->stopping)
        return true;
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += (long)DROP_WAIT_NS;
    if (until.tv_nsec >= (long)NS_PER_S) {
        until.tv_nsec -= (long)NS_PER_S;
        until.tv_sec++;
    }
    while (!n->first && !n->all && !n->stopping && n->drop_count < DROP_BATCH)
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
        n->drops = NULL;
        n->drop_count = n->drop_cap = 0;
        n->rounds_begun++;
        pthread_mutex_unlock(&n->lock);

        if (all)
            send_all(n);
        send_items(n, items);
        free_items(items);
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
}
