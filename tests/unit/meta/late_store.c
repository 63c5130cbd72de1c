#include "late_store.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/cleanup.h"

struct late_call {
    struct store_op sub;
    struct store_op *op;
    bool asked; /* the store below has answered */
    struct late_call *next;
};

struct late_store {
    struct store store;
    atomic_int requests, answers; /* kinds; -1: none */
    atomic_uint count;
    struct late_call *held; /* loop thread */
};

static void answer(struct late_call *call)
{
    struct store_op *op = call->op;
    store_op_move_result(op, &call->sub);
    free(call);
    store_complete(op, op->result);
}

static void hold(struct late_store *late, struct late_call *call)
{
    call->next = late->held;
    late->held = call;
    atomic_fetch_add(&late->count, 1);
}

static void below_done(struct store_op *sub)
{
    struct late_call *call = container_of(sub, struct late_call, sub);
    struct late_store *late = sub->arg;
    call->asked = true;
    if (atomic_load(&late->answers) == (int)sub->kind)
        hold(late, call);
    else
        answer(call);
}

static void late_submit(struct store *store, struct store_op *op)
{
    struct late_store *late = container_of(store, struct late_store, store);
    struct late_call *call = calloc(1, sizeof(*call));
    if (!call) {
        store_complete(op, -ENOMEM);
        return;
    }
    call->op = op;
    store_op_copy_request(&call->sub, op);
    call->sub.done = below_done;
    call->sub.arg = late;
    if (atomic_load(&late->requests) == (int)op->kind)
        hold(late, call);
    else
        store_submit(store->below, &call->sub);
}

static void late_cancel(struct store *store, struct store_op *op)
{
}

static void late_free(struct store *store)
{
    struct late_store *late = container_of(store, struct late_store, store);
    store_done(store);
    free(late);
}

static const struct store_backend backend = {
    .kind = "late",
    .submit = late_submit,
    .cancel = late_cancel,
    .free = late_free,
};

int late_store_new(struct store *below, struct store **out)
{
    struct late_store *late = calloc(1, sizeof(*late));
    if (!late)
        return -ENOMEM;
    store_init(&late->store, &backend, store_loop(below), below, NULL);
    atomic_init(&late->requests, -1);
    atomic_init(&late->answers, -1);
    *out = &late->store;
    return 0;
}

void late_store_hold_requests(struct store *store, enum store_kind kind)
{
    struct late_store *late = container_of(store, struct late_store, store);
    atomic_store(&late->requests, (int)kind);
}

void late_store_hold_answers(struct store *store, enum store_kind kind)
{
    struct late_store *late = container_of(store, struct late_store, store);
    atomic_store(&late->answers, (int)kind);
}

unsigned late_store_held(struct store *store)
{
    return atomic_load(&container_of(store, struct late_store, store)->count);
}

static void release(void *arg)
{
    struct late_store *late = arg;
    struct late_call *call = TAKE_PTR(late->held);
    atomic_store(&late->requests, -1);
    atomic_store(&late->answers, -1);
    atomic_store(&late->count, 0);
    for (struct late_call *next; call; call = next) {
        next = call->next;
        if (call->asked)
            answer(call);
        else
            store_submit(late->store.below, &call->sub);
    }
}

void late_store_release(struct store *store)
{
    loop_call(store->loop, release, container_of(store, struct late_store, store));
}
