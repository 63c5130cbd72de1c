#include "write_wait.h"

#include <errno.h>
#include <stdlib.h>

#include "append.h"
#include "base/log.h"
#include "durability.h"
#include "staging.h"

struct write_wait {
    struct data_handle *handle;
    struct fuse_bufvec *in; /* the caller's until done */
    uint64_t offset;
    bool append;
    struct data_request *request;
    struct write_wait *next;
};

bool write_must_wait(struct data *data)
{
    if (staging_area_full(data->area))
        return true;
    pthread_mutex_lock(&data->wait_lock);
    bool waiting = data->waiting != NULL;
    pthread_mutex_unlock(&data->wait_lock);
    return waiting;
}

int write_wait_add(struct data_handle *handle, struct fuse_bufvec *in, uint64_t offset, bool append,
                   struct data_request *request)
{
    struct data *data = handle->file->data;
    struct write_wait *wait = calloc(1, sizeof(*wait));
    if (!wait)
        return -ENOMEM;
    *wait = (struct write_wait){
        .handle = handle, .in = in, .offset = offset, .append = append, .request = request};
    metric_add(data->metrics.waits, 1);
    pthread_mutex_lock(&data->wait_lock);
    *data->waiting_end = wait;
    data->waiting_end = &wait->next;
    pthread_mutex_unlock(&data->wait_lock);
    data_tend(data);
    return -EINPROGRESS;
}

static void take_first(struct data *data)
{
    pthread_mutex_lock(&data->wait_lock);
    data->waiting = data->waiting->next;
    if (!data->waiting)
        data->waiting_end = &data->waiting;
    pthread_mutex_unlock(&data->wait_lock);
}

void write_wait_run(struct data *data, bool begun)
{
    static struct log_limit limit = LOG_LIMIT(3, 60000);
    for (;;) {
        /* Before the try: an upload that ends during it calls for another run. So does one that
         * was begun and has ended already, whether it made room or not. And a write that came
         * after others went on was not looked for: what they wrote can be flushed. */
        pthread_mutex_lock(&data->wait_lock);
        struct write_wait *wait = data->waiting;
        bool hope = begun || data->uploads > 0;
        pthread_mutex_unlock(&data->wait_lock);
        if (!wait)
            return;
        int64_t n = -ENOSPC;
        struct file *file = wait->handle->file;
        hope |= durability_has_hope(file);
        if (!staging_area_full(data->area) &&
            (!durability_must_wait(file) || atomic_load(&data->stopping)))
            n = write_apply(wait->handle, wait->in, wait->offset, wait->append);
        if (n == -ENOSPC && hope)
            return;
        if (n == -ENOSPC)
            log_limited(&limit, LOG_ERROR, "no room for written data",
                        "ino=%llu staged=%llu limit=%llu",
                        (unsigned long long)wait->handle->file->ino,
                        (unsigned long long)staging_area_bytes(data->area),
                        (unsigned long long)staging_area_max(data->area));
        take_first(data);
        struct data_request *request = wait->request;
        if (n == -EAGAIN)
            n = append_wait_or_quota(wait->handle, wait->in, wait->offset, wait->append, request);
        free(wait);
        if (n == -EINPROGRESS)
            continue;
        request->result = (int)n;
        request->done(request);
        begun |= n >= 0;
    }
}
