/* The extents of a file as the metadata has them, asked for once and kept until something changes
 * them. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "file.h"
#include "inlined.h"

struct file_extents *file_extents_ref(struct file_extents *extents)
{
    if (extents)
        atomic_fetch_add_explicit(&extents->refs, 1, memory_order_relaxed);
    return extents;
}

void file_extents_unref(struct file_extents *extents)
{
    if (!extents || atomic_fetch_sub_explicit(&extents->refs, 1, memory_order_acq_rel) != 1)
        return;
    meta_reply_done(&extents->reply);
    free(extents);
}

void file_extents_drop_locked(struct file *file)
{
    file->extents_drops++;
    file_extents_unref(TAKE_PTR(file->extents));
}

struct extents_ask {
    struct meta_request request;
    struct file *file; /* a reference */
    uint64_t drops;    /* file->extents_drops when it was asked */
};

struct file_extents *file_extents_from(struct meta_reply *reply)
{
    struct file_extents *extents = calloc(1, sizeof(*extents));
    if (!extents)
        return NULL;
    atomic_init(&extents->refs, 1);
    extents->data_version = reply->attr.data_version;
    extents->size = reply->attr.size;
    extents->reply = *reply; /* moves the arena */
    meta_reply_init(reply);
    return extents;
}

uint64_t data_changes(struct data *data)
{
    return atomic_load(&data->changes);
}

void data_handle_extents(struct data_handle *handle, struct meta_reply *reply, uint64_t since)
{
    struct file *file = handle->file;
    pthread_mutex_lock(&file->lock);
    bool wanted = !file->extents && !file->extents_asked && !file->upload &&
                  reply->attr.data_version == file->data_version &&
                  atomic_load(&file->data->changes) == since;
    if (wanted)
        file->extents = file_extents_from(reply);
    pthread_mutex_unlock(&file->lock);
}

void data_handle_kept(struct data_handle *handle, uint64_t since)
{
    struct file *file = handle->file;
    struct data *data = file->data;
    pthread_mutex_lock(&file->lock);
    /* What was pushed since the attributes were looked at found no open file. */
    if (!file->extents && !file->extents_asked && !file->upload &&
        atomic_load(&data->changes) == since)
        file->extents = inlined_get(data->inlined, file->ino, file->data_version);
    pthread_mutex_unlock(&file->lock);
}

void file_extents_committed_locked(struct file *file, const struct meta_attr *attr,
                                   const void *bytes, uint64_t length, uint64_t since)
{
    struct data *data = file->data;
    if (!data->inlined || length == 0 || attr->size != length ||
        attr->data_version != file->data_version || atomic_load(&data->changes) != since)
        return;
    struct meta_reply reply;
    meta_reply_init(&reply);
    reply.attr = *attr;
    reply.extents = meta_reply_alloc(&reply, sizeof(*reply.extents));
    void *copy = meta_reply_alloc(&reply, length);
    if (reply.extents && copy) {
        memcpy(copy, bytes, length);
        reply.extents[0] =
            (struct meta_extent){.kind = META_EXTENT_INLINE, .length = length, .data = copy};
        reply.extent_count = 1;
        file->extents = file_extents_from(&reply);
    }
    meta_reply_done(&reply);
}

void data_extents_ahead(struct data *data, struct meta_reply *reply, uint64_t since)
{
    uint64_t ino = reply->attr.ino;
    struct file_extents *extents = file_extents_from(reply);
    pthread_mutex_lock(&data->lock);
    struct file_extents *old = data->ahead;
    data->ahead = extents;
    data->ahead_ino = ino;
    data->ahead_since = since;
    pthread_mutex_unlock(&data->lock);
    file_extents_unref(old);
}

struct file_extents *file_extents_take_ahead_locked(struct data *data, const struct meta_attr *attr)
{
    const struct file_extents *ahead = data->ahead;
    if (!ahead || data->ahead_ino != attr->ino || ahead->data_version != attr->data_version ||
        data->ahead_since != atomic_load(&data->changes))
        return NULL;
    return TAKE_PTR(data->ahead);
}

/* Passes the result to all who wait, a reference each, but for `except`. */
static void answer_all(struct file_extents_wait *waiters, struct file_extents *extents, int result,
                       struct file_extents_wait *except)
{
    while (waiters) {
        struct file_extents_wait *wait = waiters;
        LL_DELETE(waiters, wait);
        wait->result = result;
        wait->extents = file_extents_ref(extents);
        if (wait != except)
            wait->done(wait);
    }
}

/* True: all who waited were answered. False: the answer is older than a commit, and must not be
 * used with the staging of after it. */
static bool ask_answered(struct extents_ask *ask, struct file_extents_wait *except)
{
    struct file *file = ask->file;
    int result = ask->request.result;
    struct file_extents *extents = NULL;
    if (!result) {
        extents = file_extents_from(&ask->request.reply);
        if (!extents)
            result = -ENOMEM;
    }
    meta_reply_done(&ask->request.reply);

    pthread_mutex_lock(&file->lock);
    bool outdated = !result && ask->drops != file->extents_drops;
    struct file_extents_wait *waiters = NULL;
    if (outdated) {
        ask->drops = file->extents_drops;
    } else {
        file->extents_asked = false;
        waiters = TAKE_PTR(file->extents_waiters);
        file_extents_unref(file->extents);
        file->extents = file_extents_ref(extents);
    }
    pthread_mutex_unlock(&file->lock);
    answer_all(waiters, extents, result, except);
    file_extents_unref(extents);
    if (outdated)
        return false;
    file_put(file);
    free(ask);
    return true;
}

static int ask_submit(struct extents_ask *ask);

static void ask_done(struct meta_request *request)
{
    struct extents_ask *ask = container_of(request, struct extents_ask, request);
    while (!ask_answered(ask, NULL))
        if (ask_submit(ask) == -EINPROGRESS)
            return;
}

static int ask_submit(struct extents_ask *ask)
{
    ask->request.op =
        (struct meta_op){.kind = META_EXTENTS, .ino = ask->file->ino, .length = UINT64_MAX};
    ask->request.done = ask_done;
    return meta_submit(ask->file->data->meta, &ask->request);
}

int file_extents_get(struct file *file, struct file_extents_wait *wait)
{
    struct extents_ask *ask = NULL;
    pthread_mutex_lock(&file->lock);
    if (file->extents) {
        wait->extents = file_extents_ref(file->extents);
        wait->result = 0;
        pthread_mutex_unlock(&file->lock);
        return 0;
    }
    if (!file->extents_asked) {
        ask = calloc(1, sizeof(*ask));
        if (!ask) {
            pthread_mutex_unlock(&file->lock);
            return -ENOMEM;
        }
        ask->file = file_ref(file);
        ask->drops = file->extents_drops;
        file->extents_asked = true;
    }
    LL_APPEND(file->extents_waiters, wait);
    pthread_mutex_unlock(&file->lock);
    if (!ask)
        return -EINPROGRESS;
    do {
        if (ask_submit(ask) == -EINPROGRESS)
            return -EINPROGRESS;
    } while (!ask_answered(ask, wait));
    return wait->result;
}
