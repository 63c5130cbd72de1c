/* flush and fsync, of one file and of all. */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "durability.h"
#include "passthrough.h"
#include "upload.h"

int data_flush(struct data_handle *handle, struct data_request *request)
{
    if (data_handle_lost(handle))
        return -ESTALE;
    return pass_flush(handle, request) ? -EINPROGRESS : durability_flush(handle->file, request);
}

struct flush_ino {
    struct data_request request;
    struct file *file; /* a reference */
    struct data_request *caller;
};

static void flush_ino_done(struct data_request *request)
{
    struct flush_ino *flush = container_of(request, struct flush_ino, request);
    struct data_request *caller = flush->caller;
    caller->result = request->result;
    file_put(flush->file);
    free(flush);
    caller->done(caller);
}

int data_flush_ino(struct data *data, uint64_t ino, struct data_request *request)
{
    struct file *file = file_get(data, ino);
    if (!file)
        return 0;
    struct flush_ino *flush = calloc(1, sizeof(*flush));
    int rc = -ENOMEM;
    if (flush) {
        *flush = (struct flush_ino){.file = file, .caller = request};
        flush->request.done = flush_ino_done;
        rc = durability_flush(file, &flush->request);
    }
    if (rc != -EINPROGRESS) {
        free(flush);
        file_put(file);
    }
    return rc;
}

/* One for each dirty file, and the whole. */
struct flush_all {
    _Atomic unsigned pending;
    _Atomic int result;
    struct data_request *caller;
};

struct flush_one {
    struct data_request request;
    struct flush_all *all;
    struct file *file; /* a reference */
    struct flush_one *next;
};

/* The result when it was the last; -EINPROGRESS otherwise. */
static int flush_all_put(struct flush_all *all)
{
    if (atomic_fetch_sub(&all->pending, 1) != 1)
        return -EINPROGRESS;
    int result = atomic_load(&all->result);
    free(all);
    return result;
}

static void note_result(struct flush_all *all, int result)
{
    int none = 0;
    if (result)
        atomic_compare_exchange_strong(&all->result, &none, result);
}

static void flush_one_done(struct data_request *request)
{
    struct flush_one *one = container_of(request, struct flush_one, request);
    struct flush_all *all = one->all;
    struct data_request *caller = all->caller;
    note_result(all, request->result);
    file_put(one->file);
    free(one);
    int result = flush_all_put(all);
    if (result == -EINPROGRESS)
        return;
    caller->result = result;
    caller->done(caller);
}

static bool is_wanted(struct file *file, enum flush_what what)
{
    pthread_mutex_lock(&file->lock);
    bool local = file->durability == DATA_LOCAL;
    bool wanted = what == FLUSH_ALL || (what == FLUSH_BACKLOG ? file->writers == 0 : !local);
    pthread_mutex_unlock(&file->lock);
    return wanted;
}

static int list_dirty(struct data *data, enum flush_what what, struct flush_all *all,
                      struct flush_one **out)
{
    int rc = 0;
    pthread_mutex_lock(&data->lock);
    for (struct file *file = data->dirty; file; file = file->dirty_next) {
        if (!is_wanted(file, what))
            continue;
        struct flush_one *one = calloc(1, sizeof(*one));
        if (!one) {
            rc = -ENOMEM;
            break;
        }
        one->all = all;
        one->file = file_ref(file);
        one->request.done = flush_one_done;
        one->next = *out;
        *out = one;
    }
    pthread_mutex_unlock(&data->lock);
    return rc;
}

int data_flush_all(struct data *data, struct data_request *request)
{
    return flush_dirty(data, FLUSH_ALL, request);
}

int data_flush_backlog(struct data *data, struct data_request *request)
{
    return flush_dirty(data, FLUSH_BACKLOG, request);
}

int flush_dirty(struct data *data, enum flush_what what, struct data_request *request)
{
    struct flush_all *all = calloc(1, sizeof(*all));
    struct flush_one *list = NULL;
    if (!all)
        return -ENOMEM;
    pass_settle(data);
    all->caller = request;
    atomic_init(&all->pending, 1);
    note_result(all, list_dirty(data, what, all, &list));
    while (list) {
        struct flush_one *one = list;
        list = one->next;
        atomic_fetch_add(&all->pending, 1);
        int rc = upload_flush(one->file, &one->request);
        if (rc == -EINPROGRESS)
            continue;
        note_result(all, rc);
        atomic_fetch_sub(&all->pending, 1); /* never the last: this function has one */
        file_put(one->file);
        free(one);
    }
    return flush_all_put(all);
}
