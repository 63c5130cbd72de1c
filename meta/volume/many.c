#include "many.h"

#include <errno.h>
#include <semaphore.h>
#include <string.h>

#include "base/cleanup.h"

struct many {
    struct store *store;
    struct store_op *ops;
    size_t count, next;
    unsigned parallel, pending;
    sem_t done;
};

static void one_done(struct store_op *op);

/* Store loop. */
static void submit_next(struct many *many)
{
    while (many->next < many->count) {
        struct store_op *op = &many->ops[many->next++];
        if (!op->key)
            continue;
        op->done = one_done;
        op->arg = many;
        store_submit(many->store, op);
        return;
    }
    if (!--many->pending)
        sem_post(&many->done);
}

static void one_done(struct store_op *op)
{
    submit_next(op->arg);
}

static void start(void *arg)
{
    struct many *many = arg;
    many->pending = many->parallel;
    for (unsigned i = 0; i < many->parallel; i++)
        submit_next(many);
}

static void end(void *arg)
{
    struct many *many = arg;
    sem_destroy(&many->done);
}

void many_run(struct store *store, struct store_op *ops, size_t count, unsigned parallel)
{
    struct many many = {.store = store, .ops = ops, .count = count, .parallel = parallel};
    sem_init(&many.done, 0, 0);
    loop_call(store_loop(store), start, &many);
    while (sem_wait(&many.done) < 0 && errno == EINTR)
        ;
    /* The last one_done has returned. */
    loop_call(store_loop(store), end, &many);
}

int many_delete(struct store *store, const char *const *keys, size_t count, uint64_t *failed,
                struct error *error)
{
    for (size_t at = 0; at < count; at += STORE_DELETE_MANY_MAX) {
        struct store_op op = {.kind = STORE_DELETE_MANY,
                              .keys = keys + at,
                              .key_count = (unsigned)MIN(count - at, STORE_DELETE_MANY_MAX)};
        int rc = store_wait(store, &op);
        if (rc && error)
            *error = op.error;
        *failed += op.out_list.count;
        store_op_reset(&op);
        if (rc)
            return rc;
    }
    return 0;
}
