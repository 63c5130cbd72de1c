#include "remote_quota.h"

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "remote_impl.h"

struct remote_quota_file {
    uint64_t ino;
    uint64_t used, granted; /* sizes; used is never larger */
    UT_hash_handle hh;
};

bool remote_quota_active(struct remote *remote)
{
    return atomic_load(&remote->quota_on);
}

static struct remote_quota_file *find_locked(struct remote *remote, uint64_t ino)
{
    struct remote_quota_file *file;
    HASH_FIND(hh, remote->quota_files, &ino, sizeof(ino), file);
    return file;
}

static struct remote_quota_file *need_locked(struct remote *remote, uint64_t ino)
{
    struct remote_quota_file *file = find_locked(remote, ino);
    if (file)
        return file;
    file = calloc(1, sizeof(*file));
    if (!file)
        return NULL;
    file->ino = ino;
    HASH_ADD(hh, remote->quota_files, ino, sizeof(file->ino), file);
    return file;
}

/* Telling: nobody waits for the answer */

static void told(struct meta_task *task)
{
    static struct log_limit limit = LOG_LIMIT(3, 60000);
    if (task->result < 0 && task->result != -ESTALE)
        log_limited(&limit, LOG_WARN, "the service was not told of a reserved size",
                    "ino=%llu error=%s", (unsigned long long)task->ino,
                    strerrorname_np(-task->result));
    free(task);
}

/* Without memory the service believes the last size, until the next round. */
static void tell(struct remote *remote, uint64_t ino, uint64_t size)
{
    struct meta_task *task = calloc(1, sizeof(*task));
    if (!task)
        return;
    task->ino = ino;
    task->done = told;
    remote_task(remote, task, WIRE_TASK_RESERVED, size);
}

int remote_quota_reserve(struct remote *remote, uint64_t ino, uint64_t size, bool force)
{
    int rc = 0;
    bool tells = false;
    if (!remote_quota_active(remote))
        return 0;
    pthread_mutex_lock(&remote->lock);
    struct remote_quota_file *file = find_locked(remote, ino);
    bool enough = file && size <= file->granted;
    if (!enough && !force)
        rc = -EAGAIN;
    else if (!file && !(file = need_locked(remote, ino)))
        rc = -ENOMEM;
    if (rc == 0) {
        file->used = size;
        if (!enough)
            file->granted = size;
        tells = !enough;
    }
    pthread_mutex_unlock(&remote->lock);
    if (tells)
        tell(remote, ino, size);
    return rc;
}

void remote_quota_release(struct remote *remote, uint64_t ino)
{
    pthread_mutex_lock(&remote->lock);
    struct remote_quota_file *file = find_locked(remote, ino);
    if (file)
        HASH_DEL(remote->quota_files, file);
    pthread_mutex_unlock(&remote->lock);
    if (file)
        tell(remote, ino, 0);
    free(file);
}

/* Asking */

static void answered(struct meta_task *task)
{
    struct meta_quota_ask *ask = task->arg;
    struct remote *remote = ask->impl;
    ask->result = task->result;
    if (task->result == 0) {
        pthread_mutex_lock(&remote->lock);
        struct remote_quota_file *file = need_locked(remote, ask->ino);
        if (file) {
            /* Used, so that it is not given back before it can be. */
            file->used = MAX(file->used, ask->size);
            file->granted = MAX(file->granted, MAX(task->remaining, ask->size));
        } else {
            ask->result = -ENOMEM;
        }
        pthread_mutex_unlock(&remote->lock);
    }
    ask->done(ask);
}

void meta_quota_ask(struct meta *meta, struct meta_quota_ask *ask)
{
    ask->impl = meta->remote;
    ask->task = (struct meta_task){.ino = ask->ino, .done = answered, .arg = ask};
    remote_task(meta->remote, &ask->task, WIRE_TASK_RESERVE, ask->size);
}

/* What the service asks for */

void remote_quota_round(struct remote *remote, uint64_t number)
{
    const struct meta_events *events = &remote->config.events;
    bool all = number & 1, was = atomic_exchange(&remote->quota_on, true);
    size_t count = 0;
    pthread_mutex_lock(&remote->lock);
    struct remote_quota_file *file, *list = NULL;
    list = calloc(HASH_COUNT(remote->quota_files) + 1, sizeof(*list));
    for (file = remote->quota_files; file && list; file = file->hh.next) {
        if (!all && file->granted == file->used)
            continue;
        file->granted = file->used;
        list[count++] = *file;
    }
    pthread_mutex_unlock(&remote->lock);
    for (size_t i = 0; i < count; i++)
        tell(remote, list[i].ino, list[i].used);
    free(list);
    if (!was && events->quota_begins)
        events->quota_begins(events->arg);
    if (number >> 1)
        tell(remote, 0, number >> 1);
}

void remote_quota_forget(struct remote *remote)
{
    struct remote_quota_file *file, *next;
    atomic_store(&remote->quota_on, false);
    pthread_mutex_lock(&remote->lock);
    HASH_ITER(hh, remote->quota_files, file, next)
    {
        HASH_DEL(remote->quota_files, file);
        free(file);
    }
    pthread_mutex_unlock(&remote->lock);
}
