/*
 * The work thread's ways to the store and to the engine: results come back as posts to its loop, so
 * that all state of import, settle, gc and ownership is touched by one thread only.
 */
#include <assert.h>
#include <errno.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "pacer.h"
#include "volume.h"

void work_begin(struct meta *meta)
{
    meta->busy++;
}

void work_end(struct meta *meta)
{
    assert(meta->busy > 0);
    if (--meta->busy == 0 && meta->closing)
        sem_post(&meta->idle);
}

/* Store requests */

static void op_back(struct loop_task *task)
{
    struct work_op *work = container_of(task, struct work_op, back);
    struct meta *meta = work->meta;
    DL_DELETE(meta->ops, work);
    if (work->paced)
        pacer_ended(meta, work);
    work->done(work);
    work_end(meta);
}

static void op_done(struct store_op *op)
{
    struct work_op *work = op->arg;
    work->ended = true;
    loop_post(work->meta->work, &work->back);
}

void work_op_submit(struct meta *meta, struct work_op *work)
{
    assert(loop_on_thread(meta->work));
    work->meta = meta;
    work->ended = false;
    work->back.run = op_back;
    work->op.done = op_done;
    work->op.arg = work;
    DL_APPEND(meta->ops, work);
    work_begin(meta);
    store_submit(meta->store, &work->op);
}

/* Store loop, while the work thread waits: the list stays as it is. An op that has not ended here
 * is between submit and done, as store_cancel wants it. */
static void cancel_ops(void *arg)
{
    struct meta *meta = arg;
    struct work_op *work;
    DL_FOREACH(meta->ops, work)
    {
        if (!work->ended)
            store_cancel(&work->op);
    }
}

void work_cancel_all(struct meta *meta)
{
    assert(loop_on_thread(meta->work));
    if (meta->ops)
        loop_call(store_loop(meta->store), cancel_ops, meta);
}

/* Metadata requests */

static void call_back(struct loop_task *task)
{
    struct work_call *call = container_of(task, struct work_call, back);
    struct meta *meta = call->meta;
    call->done(call);
    work_end(meta);
}

static void call_done(struct meta_request *request)
{
    struct work_call *call = request->arg;
    loop_post(call->meta->work, &call->back);
}

void work_call_submit(struct meta *meta, struct work_call *call)
{
    assert(loop_on_thread(meta->work));
    call->meta = meta;
    call->back.run = call_back;
    call->request.done = call_done;
    call->request.arg = call;
    work_begin(meta);
    int rc = volume_submit(meta, &call->request, true);
    if (rc != -EINPROGRESS)
        loop_post(meta->work, &call->back);
}
