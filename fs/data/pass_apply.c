/*
 * What another mount has written to a file that programs here read with passthrough: the kernel
 * goes on reading the backing file, so that file is brought to the new content before the change is
 * confirmed. It leaves the cache first; no cached content ever changes.
 *
 * What differs is fetched whole before anything of it is written. So if it cannot be fetched, or is
 * too much to wait for, readers of before keep the old content, as a whole, and new handles read
 * the new one through the mount.
 */
#include <errno.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/pool.h"
#include "extents_diff.h"
#include "passthrough_impl.h"

#define APPLY_THREADS 2
#define APPLY_MAX (32ull << 20) /* bytes that differ */
#define TRIES_MAX 16            /* while it is changed again and again */

struct range {
    uint64_t offset, length;
};

struct apply {
    struct pool_task task;
    struct file *file; /* a reference */
    struct pass *pass; /* counts as a handle of it */
    /* one try */
    uint64_t drops; /* file->extents_drops: another number, and it begins again */
    struct file_extents *is;
    struct range *ranges;
    size_t count, cap;
    uint64_t length; /* of all ranges */
    char *bytes;
};

static void reset(struct apply *a)
{
    file_extents_unref(TAKE_PTR(a->is));
    free(TAKE_PTR(a->ranges));
    free(TAKE_PTR(a->bytes));
    a->count = a->cap = 0;
    a->length = 0;
}

/* What the content is now; the file's attributes, too. */
static int ask(struct apply *a)
{
    struct file *file = a->file;
    struct meta_request request = {
        .op = {
            .kind = META_EXTENTS, .ino = file->ino, .length = UINT64_MAX, .flags = META_APPLYING}};
    pthread_mutex_lock(&file->lock);
    uint64_t drops = file->extents_drops;
    pthread_mutex_unlock(&file->lock);
    int rc = meta_call(file->data->meta, &request);
    a->is = rc == 0 ? file_extents_from(&request.reply) : NULL;
    meta_reply_done(&request.reply);
    if (rc < 0 || !a->is)
        return rc < 0 ? rc : -ENOMEM;
    pthread_mutex_lock(&file->lock);
    rc = drops == file->extents_drops ? 0 : -EAGAIN;
    if (rc == 0 && !file->upload)
        file_refresh_locked(file, &a->is->reply.attr);
    if (rc == 0 && !file->extents && !file->extents_asked && !file->upload &&
        file->data_version == a->is->data_version)
        file->extents = file_extents_ref(a->is);
    a->drops = file->extents_drops;
    pthread_mutex_unlock(&file->lock);
    return rc;
}

static int add_range(void *arg, uint64_t offset, uint64_t length)
{
    struct apply *a = arg;
    a->length += length;
    if (a->length > APPLY_MAX)
        return -EFBIG;
    struct range *last = a->count ? &a->ranges[a->count - 1] : NULL;
    if (last && last->offset + last->length == offset) {
        last->length += length;
        return 0;
    }
    if (a->count == a->cap) {
        size_t cap = a->cap ? a->cap * 2 : 16;
        struct range *ranges = realloc(a->ranges, cap * sizeof(*ranges));
        if (!ranges)
            return -ENOMEM;
        a->ranges = ranges;
        a->cap = cap;
    }
    a->ranges[a->count++] = (struct range){offset, length};
    return 0;
}

static void fetched(struct data_request *request)
{
    sem_post(request->arg);
}

static int fetch(struct apply *a)
{
    size_t at = 0;
    sem_t done;
    a->bytes = malloc(MAX(a->length, 1u));
    if (!a->bytes)
        return -ENOMEM;
    sem_init(&done, 0, 0);
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < a->count; i++) {
        struct data_request request = {.done = fetched, .arg = &done};
        rc = read_range(a->file, a->ranges[i].offset, a->ranges[i].length, a->bytes + at, &request);
        if (rc == -EINPROGRESS) {
            while (sem_wait(&done) < 0 && errno == EINTR)
                ;
            rc = request.result;
        }
        rc = MIN(rc, 0);
        at += a->ranges[i].length;
    }
    sem_destroy(&done);
    return rc;
}

/* Local writes are never lost by it: what is staged is laid over. */
static int write_locked(struct apply *a)
{
    struct file *file = a->file;
    size_t at = 0;
    int rc = pass_before_change_locked(file);
    for (size_t i = 0; rc == 0 && i < a->count; i++) {
        uint64_t offset = a->ranges[i].offset;
        /* A cut of ours that is not committed yet. */
        uint64_t end = MIN(offset + a->ranges[i].length, MIN(file->size, file->truncated_to));
        if (offset < end)
            rc = pass_write_locked(file, a->bytes + at, offset, end - offset);
        at += a->ranges[i].length;
    }
    if (rc == 0)
        pass_resized_locked(file);
    return rc < 0 ? rc : a->pass->stale ? -EIO : 0;
}

/* 0: the backing file has what the metadata has, or nobody has it open; -EAGAIN: not any more. */
static int try_apply(struct apply *a)
{
    struct file *file = a->file;
    struct pass *pass = a->pass;
    pthread_mutex_lock(&file->lock);
    /* Nobody has it open any more: it ends now, and is no use to who comes until then. */
    pass->stale |= pass->handles == 1 && !pass->rdwr;
    bool over = pass->stale;
    pass->applying = !over;
    pthread_mutex_unlock(&file->lock);
    int rc = over ? 0 : ask(a);
    if (rc < 0 || over)
        return rc;
    rc = extents_diff(file->data->reads, pass->base, a->is, add_range, a);
    if (rc == 0)
        rc = fetch(a);
    if (rc < 0)
        return rc;
    pthread_mutex_lock(&file->lock);
    if (a->drops != file->extents_drops)
        rc = -EAGAIN;
    else if (!pass->stale && (a->count > 0 || pass->base->size != a->is->size))
        rc = write_locked(a);
    if (rc == 0) {
        file_extents_unref(pass->base);
        pass->base = TAKE_PTR(a->is);
        pass->applying = pass->behind = false;
    }
    pthread_mutex_unlock(&file->lock);
    return rc;
}

static void failed(struct apply *a, int rc)
{
    static struct log_limit limit = LOG_LIMIT(10, 10000);
    pthread_mutex_lock(&a->file->lock);
    bool behind = a->pass->behind;
    if (behind)
        pass_stale_locked(a->file);
    a->pass->applying = false;
    pthread_mutex_unlock(&a->file->lock);
    if (!behind)
        return;
    log_limited(&limit, LOG_WARN, "open files keep the content that another mount has replaced",
                "ino=%llu reason=\"%s\" effect=\"those that the kernel reads from the cache by "
                "itself; opened again they have the new one\"",
                (unsigned long long)a->file->ino,
                rc == -EFBIG ? "too much of it changed" : strerror(-rc));
}

/* Somebody waits for this until he tells the service. */
static void ended(struct data *data)
{
    struct meta_told *told = NULL;
    pthread_mutex_lock(&data->wait_lock);
    if (--data->applying == 0)
        told = TAKE_PTR(data->told);
    void (*then)(void *arg, struct meta_told *told) = data->told_then;
    void *arg = data->told_arg;
    pthread_mutex_unlock(&data->wait_lock);
    while (told) {
        struct meta_told *next = told->next;
        then(arg, told);
        told = next;
    }
}

static void run(struct pool_task *task)
{
    struct apply *a = container_of(task, struct apply, task);
    struct file *file = a->file;
    struct data *data = file->data;
    int rc = -EAGAIN;
    for (unsigned tries = 0; rc == -EAGAIN && tries < TRIES_MAX; tries++) {
        rc = try_apply(a);
        reset(a);
    }
    if (rc < 0)
        failed(a, rc);
    pass_put(file, a->pass);
    free(a);
    ended(data);
    file_put(file);
}

static void begin_locked(struct file *file)
{
    struct data *data = file->data;
    struct pass *pass = file->pass;
    struct apply *a = data->apply_pool ? calloc(1, sizeof(*a)) : NULL;
    if (!a) {
        if (pass->behind)
            pass_stale_locked(file);
        return;
    }
    a->task.run = run;
    a->file = file_ref(file);
    a->pass = pass;
    pass->handles++;
    pass->applying = true;
    pthread_mutex_lock(&data->wait_lock);
    data->applying++;
    pthread_mutex_unlock(&data->wait_lock);
    pool_submit(data->apply_pool, &a->task);
}

/* Without handles only mappings are left, whose changes are kept. */
static bool is_open_locked(const struct file *file)
{
    const struct pass *pass = file->pass;
    return pass && !pass->view && !pass->stale && pass->handles > 0;
}

void pass_rewritten_locked(struct file *file)
{
    if (!is_open_locked(file))
        return;
    file->pass->behind = true;
    if (!file->pass->applying)
        begin_locked(file);
}

void pass_moved_locked(struct file *file)
{
    if (is_open_locked(file) && !file->pass->applying)
        begin_locked(file);
}

void data_when_applied(struct data *data, struct meta_told *told,
                       void (*then)(void *arg, struct meta_told *told), void *arg)
{
    pthread_mutex_lock(&data->wait_lock);
    bool wait = data->applying > 0;
    if (wait) {
        struct meta_told **end = &data->told;
        while (*end)
            end = &(*end)->next;
        told->next = NULL;
        *end = told;
        data->told_then = then;
        data->told_arg = arg;
    }
    pthread_mutex_unlock(&data->wait_lock);
    if (!wait)
        then(arg, told);
}

int pass_apply_open(struct data *data)
{
    /* Only of a volume of a service others write. */
    if (!meta_era(data->meta) || !data->config.cache)
        return 0;
    return pool_new(&data->apply_pool, "apply", APPLY_THREADS);
}

void pass_apply_close(struct data *data)
{
    pool_free(TAKE_PTR(data->apply_pool));
}
