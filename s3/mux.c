/*
 * Requests to the own store pass as they are. One to another store is copied with the store's own
 * key, and what comes back (names of a listing) gets the route in front again.
 */
#include "s3/mux.h"

#include <errno.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "s3/backend.h"

/* What a slot has, or had: kept until the mux goes, since any thread may look at the abilities. */
struct seat {
    struct store_caps caps;
    struct seat *older;
};

struct slot {
    _Atomic(struct seat *) seat; /* NULL: there was never a store */

    /* Loop thread. */
    struct store *store; /* owned; NULL: not there */
    char *name, *why;    /* owned */
    unsigned in_flight;  /* to `store` */
    sem_t *drained;      /* posted once, when in_flight is 0 */
};

struct mux {
    struct store store;
    struct slot slots[STORE_MUX_MAX + 1]; /* 0 is not used */
    atomic_bool held, releasing;
    struct loop_task release; /* posted while releasing */
    struct call *waiting;     /* loop thread: while it is held, in order */
};

struct call {
    struct mux *mux;
    struct slot *slot;        /* NULL: waits */
    struct call *prev, *next; /* mux->waiting */
    unsigned number;
    struct store_op *op; /* the caller's */
    struct store_op sub;
    const char **keys; /* owned */
};

unsigned store_route(const char *key, size_t len, size_t *skip)
{
    unsigned number = 0;
    *skip = 0;
    if (len < 3 || key[0] != '/' || key[1] < '1' || key[1] > '9')
        return 0;
    size_t i = 1;
    for (; i < len && i < STORE_ROUTE_MAX && key[i] >= '0' && key[i] <= '9'; i++)
        number = number * 10 + (unsigned)(key[i] - '0');
    if (i == len || key[i] != '/' || number > STORE_MUX_MAX)
        return 0;
    *skip = i + 1;
    return number;
}

size_t store_route_print(unsigned number, char out[STORE_ROUTE_MAX + 1])
{
    size_t len = 0;
    out[0] = '\0';
    if (number == 0 || number > STORE_MUX_MAX)
        return 0;
    out[len++] = '/';
    if (number >= 10)
        out[len++] = (char)('0' + number / 10);
    out[len++] = (char)('0' + number % 10);
    out[len++] = '/';
    out[len] = '\0';
    return len;
}

static const char *text_of(const struct store_op *op)
{
    if (op->kind == STORE_DELETE_MANY)
        return op->key_count ? op->keys[0] : "";
    return op->key ? op->key : op->prefix ? op->prefix : "";
}

static unsigned number_of(const char *text)
{
    size_t skip;
    return store_route(text, strlen(text), &skip);
}

/* All that the request names is in one store. */
static bool is_one_store(const struct store_op *op, unsigned number)
{
    if (op->source_key && number_of(op->source_key) != number)
        return false;
    /* One before all keys of the store is as none. */
    if (number && op->start_after && number_of(op->start_after) != number &&
        strcmp(op->start_after, text_of(op)) > 0)
        return false;
    for (unsigned i = 0; op->kind == STORE_DELETE_MANY && i < op->key_count; i++)
        if (number_of(op->keys[i]) != number)
            return false;
    return true;
}

static const char *strip(const char *text)
{
    size_t skip;
    if (text)
        store_route(text, strlen(text), &skip);
    return text ? text + skip : NULL;
}

static int add_route(struct store_op *op, unsigned number)
{
    char route[STORE_ROUTE_MAX + 1];
    size_t len = store_route_print(number, route);
    for (size_t i = 0; i < op->out_list.count; i++) {
        struct store_entry *e = &op->out_list.entries[i];
        size_t name_len = strlen(e->name);
        char *name = store_op_alloc(op, len + name_len + 1);
        if (!name)
            return -ENOMEM;
        memcpy(name, route, len);
        memcpy(name + len, e->name, name_len + 1);
        e->name = name;
    }
    return 0;
}

static void below_done(struct store_op *sub)
{
    struct call *call = container_of(sub, struct call, sub);
    struct store_op *op = call->op;
    struct slot *slot = call->slot;
    store_op_move_result(op, sub);
    int result = op->result ? op->result : add_route(op, call->number);
    op->impl = NULL;
    free(call->keys);
    free(call);
    if (--slot->in_flight == 0 && slot->drained)
        sem_post(TAKE_PTR(slot->drained));
    store_complete(op, result);
}

static int make_sub(struct call *call)
{
    struct store_op *sub = &call->sub;
    store_op_copy_request(sub, call->op);
    sub->done = below_done;
    sub->key = strip(sub->key);
    sub->source_key = strip(sub->source_key);
    sub->prefix = strip(sub->prefix);
    if (sub->start_after && number_of(sub->start_after) != call->number)
        sub->start_after = NULL;
    sub->start_after = strip(sub->start_after);
    if (sub->kind != STORE_DELETE_MANY || !sub->key_count)
        return 0;
    call->keys = calloc(sub->key_count, sizeof(*call->keys));
    if (!call->keys)
        return -ENOMEM;
    for (unsigned i = 0; i < sub->key_count; i++)
        call->keys[i] = strip(sub->keys[i]);
    sub->keys = call->keys;
    return 0;
}

/* It was not sent. */
static void give_up(struct call *call, int rc)
{
    struct store_op *op = call->op;
    if (call->prev)
        DL_DELETE(call->mux->waiting, call);
    op->impl = NULL;
    free(call->keys);
    free(call);
    store_complete(op, rc);
}

static void pass_on(struct call *call)
{
    struct slot *slot = &call->mux->slots[call->number];
    call->prev = call->next = NULL;
    if (!slot->store) {
        give_up(call, error_set(&call->op->error, -EIO, "store %s is not connected: %s",
                                slot->name ? slot->name : "of another volume",
                                slot->why ? slot->why : "it is not attached"));
        return;
    }
    int rc = make_sub(call);
    if (rc) {
        give_up(call, rc);
        return;
    }
    call->slot = slot;
    slot->in_flight++;
    store_submit(slot->store, &call->sub);
}

static void mux_submit(struct store *store, struct store_op *op)
{
    struct mux *mux = container_of(store, struct mux, store);
    unsigned number = number_of(text_of(op));
    if (!is_one_store(op, number)) {
        store_complete(op, error_set(&op->error, -EXDEV, "%s %s: a request stays in one store",
                                     store_kind_name(op->kind), text_of(op)));
        return;
    }
    if (number == 0) {
        op->store = store->below;
        store->below->backend->submit(store->below, op);
        return;
    }
    struct call *call = calloc(1, sizeof(*call));
    if (!call) {
        store_complete(op, -ENOMEM);
        return;
    }
    *call = (struct call){.mux = mux, .number = number, .op = op};
    op->impl = call;
    if (atomic_load(&mux->held))
        DL_APPEND(mux->waiting, call);
    else
        pass_on(call);
}

static void mux_cancel(struct store *store, struct store_op *op)
{
    struct call *call = op->impl;
    if (call->slot)
        store_cancel(&call->sub);
    else
        give_up(call, -ECANCELED);
}

static void send_waiting(void *arg)
{
    struct mux *mux = arg;
    while (mux->waiting && !atomic_load(&mux->held)) {
        struct call *call = mux->waiting;
        DL_DELETE(mux->waiting, call);
        pass_on(call);
    }
}

static void run_release(struct loop_task *task)
{
    struct mux *mux = container_of(task, struct mux, release);
    atomic_store(&mux->releasing, false);
    send_waiting(mux);
}

static const struct store_caps *mux_caps(const struct store *store, const char *key)
{
    const struct mux *mux = container_of(store, struct mux, store);
    unsigned number = number_of(key);
    const struct seat *seat = number ? atomic_load(&mux->slots[number].seat) : NULL;
    return seat ? &seat->caps : &store->caps;
}

static void mux_free(struct store *store)
{
    struct mux *mux = container_of(store, struct mux, store);
    loop_call(store->loop, send_waiting, mux); /* after what was posted */
    for (unsigned i = 1; i <= STORE_MUX_MAX; i++) {
        struct slot *slot = &mux->slots[i];
        for (struct seat *seat = slot->seat, *older; seat; seat = older) {
            older = seat->older;
            free(seat);
        }
        store_free(slot->store);
        free(slot->name);
        free(slot->why);
    }
    store_done(store);
    free(mux);
}

static const struct store_backend backend = {
    .kind = "mux",
    .submit = mux_submit,
    .cancel = mux_cancel,
    .caps = mux_caps,
    .free = mux_free,
};

bool store_is_mux(const struct store *store)
{
    return store->backend == &backend;
}

int store_mux_new(struct store *own, struct store **out)
{
    struct mux *mux = calloc(1, sizeof(*mux));
    if (!mux)
        return -ENOMEM;
    mux->release.run = run_release;
    store_init(&mux->store, &backend, store_loop(own), own, NULL);
    *out = &mux->store;
    return 0;
}

void store_mux_hold(struct store *mux, bool hold)
{
    struct mux *m = container_of(mux, struct mux, store);
    atomic_store(&m->held, hold);
    if (!hold && !atomic_exchange(&m->releasing, true))
        loop_post(mux->loop, &m->release);
}

struct change {
    struct slot *slot;
    struct store *store, *former;
    char *name, *why;
    sem_t drained;
    bool waits;
};

static void run_change(void *arg)
{
    struct change *change = arg;
    struct slot *slot = change->slot;
    char *name = slot->name, *why = slot->why;
    change->former = slot->store;
    slot->store = change->store;
    slot->name = change->name;
    slot->why = change->why;
    change->name = name;
    change->why = why;
    change->waits = slot->in_flight > 0;
    if (change->waits)
        slot->drained = &change->drained;
}

int store_mux_set(struct store *mux, unsigned number, const char *name, struct store *store,
                  const char *why)
{
    struct change change = {.slot = &container_of(mux, struct mux, store)->slots[number],
                            .store = store};
    struct seat *seat = store ? calloc(1, sizeof(*seat)) : NULL;
    change.name = strdup(name);
    change.why = why ? strdup(why) : NULL;
    if ((store && !seat) || !change.name || (why && !change.why)) {
        free(seat);
        free(change.name);
        free(change.why);
        return -ENOMEM;
    }
    if (seat) {
        seat->caps = store->caps;
        seat->older = atomic_load(&change.slot->seat);
        atomic_store(&change.slot->seat, seat);
    }
    sem_init(&change.drained, 0, 0);
    loop_call(mux->loop, run_change, &change);
    while (change.waits && sem_wait(&change.drained) < 0 && errno == EINTR)
        ;
    sem_destroy(&change.drained);
    store_free(change.former);
    free(change.name);
    free(change.why);
    return 0;
}
