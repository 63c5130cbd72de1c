/*
 * Injects faults, for tests: delays, errors with or without the effect, wrong bytes. See struct
 * store_fault_rule.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "s3/backend.h"

struct rule {
    struct store_fault_rule rule; /* key_part and instead are owned */
    unsigned skipped, acted;
};

struct fault_store {
    struct store store;
    _Atomic uint64_t seen[STORE_KIND_COUNT];
    pthread_mutex_t lock;
    /* under lock */
    struct rule *rules;
    unsigned count, acted;
};

struct call {
    struct fault_store *fault;
    struct store_op *op; /* the caller's */
    struct store_op sub;
    struct store_fault_rule rule; /* its strings are not to be used; all zero: none */
    struct iovec *iov;            /* owned; a body that is cut */
    char *key;                    /* owned; of what is told in place of it */
    struct loop_timer timer;
    bool has_timer, delayed, below;
};

static void rules_free(struct rule *rules, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        free((char *)rules[i].rule.key_part);
        free((char *)rules[i].rule.instead);
    }
    free(rules);
}

static bool matches(const struct store_fault_rule *rule, const struct store_op *op)
{
    if (rule->kind >= 0 && rule->kind != (int)op->kind)
        return false;
    if (!rule->key_part)
        return true;
    if (op->kind == STORE_DELETE_MANY) {
        for (unsigned i = 0; i < op->key_count; i++)
            if (strstr(op->keys[i], rule->key_part))
                return true;
        return false;
    }
    const char *text = op->key ? op->key : op->prefix ? op->prefix : "";
    return strstr(text, rule->key_part);
}

static void take_rule(struct fault_store *f, const struct store_op *op, struct call *call)
{
    pthread_mutex_lock(&f->lock);
    for (unsigned i = 0; i < f->count; i++) {
        struct rule *r = &f->rules[i];
        if (!matches(&r->rule, op))
            continue;
        if (r->skipped < r->rule.skip) {
            r->skipped++;
            continue;
        }
        if (r->rule.count && r->acted == r->rule.count)
            continue;
        r->acted++;
        f->acted++;
        call->rule = r->rule;
        if (r->rule.instead && op->kind == STORE_HEAD && (call->key = strdup(r->rule.instead)))
            call->sub.key = call->key;
        break;
    }
    pthread_mutex_unlock(&f->lock);
}

static void call_free(struct call *call)
{
    free(call->iov);
    free(call->key);
    free(call);
}

static void timer_closed(struct loop_timer *timer)
{
    call_free(container_of(timer, struct call, timer));
}

static void finish(struct call *call, int result)
{
    struct store_op *op = call->op;
    op->impl = NULL;
    if (call->has_timer)
        loop_timer_close(&call->timer, timer_closed);
    else
        call_free(call);
    store_complete(op, result);
}

static int inject(struct call *call)
{
    struct store_op *op = call->op;
    return error_set(&op->error, call->rule.result, "%s %s: injected fault%s",
                     store_kind_name(op->kind), op->key ? op->key : "",
                     call->rule.after ? " after the request was carried out" : "");
}

static void below_done(struct store_op *sub)
{
    struct call *call = container_of(sub, struct call, sub);
    if (call->rule.result) {
        store_op_reset(sub);
        finish(call, inject(call));
        return;
    }
    if (call->rule.corrupt && sub->kind == STORE_GET && sub->got)
        ((uint8_t *)sub->buf)[sub->got / 2] ^= 1;
    if (call->rule.corrupt)
        sub->checked = false; /* a store that cuts what it gets has compared nothing */
    store_op_move_result(call->op, sub);
    finish(call, call->op->result);
}

/* The body without its last byte. */
static int cut_body(struct call *call)
{
    struct store_op *sub = &call->sub;
    if (!sub->iov_count)
        return 0;
    call->iov = malloc(sub->iov_count * sizeof(*call->iov));
    if (!call->iov)
        return -ENOMEM;
    memcpy(call->iov, sub->iov, sub->iov_count * sizeof(*call->iov));
    sub->iov = call->iov;
    for (unsigned i = sub->iov_count; i > 0; i--)
        if (call->iov[i - 1].iov_len) {
            call->iov[i - 1].iov_len--;
            break;
        }
    return 0;
}

static void act(struct call *call)
{
    struct store_op *sub = &call->sub;
    if (call->rule.result && !call->rule.after) {
        finish(call, inject(call));
        return;
    }
    if (call->rule.corrupt && (sub->kind == STORE_PUT || sub->kind == STORE_MPU_PART)) {
        int rc = cut_body(call);
        if (rc) {
            finish(call, rc);
            return;
        }
    }
    call->below = true;
    store_submit(call->fault->store.below, sub);
}

static void timer_fire(struct loop_timer *timer)
{
    struct call *call = container_of(timer, struct call, timer);
    call->delayed = false;
    act(call);
}

static void fault_submit(struct store *store, struct store_op *op)
{
    struct fault_store *f = container_of(store, struct fault_store, store);
    atomic_fetch_add_explicit(&f->seen[op->kind], 1, memory_order_relaxed);
    struct call *call = calloc(1, sizeof(*call));
    if (!call) {
        store_complete(op, -ENOMEM);
        return;
    }
    call->fault = f;
    call->op = op;
    store_op_copy_request(&call->sub, op);
    call->sub.done = below_done;
    op->impl = call;
    take_rule(f, op, call);
    if (!call->rule.delay_ms) {
        act(call);
        return;
    }
    loop_timer_init(store->loop, &call->timer, timer_fire);
    call->has_timer = true;
    call->delayed = true;
    loop_timer_start(&call->timer, call->rule.delay_ms);
}

static void fault_cancel(struct store *store, struct store_op *op)
{
    struct call *call = op->impl;
    if (call->delayed) {
        loop_timer_stop(&call->timer);
        finish(call, -ECANCELED);
    } else if (call->below) {
        store_cancel(&call->sub);
    }
}

static void fault_free(struct store *store)
{
    struct fault_store *f = container_of(store, struct fault_store, store);
    rules_free(f->rules, f->count);
    pthread_mutex_destroy(&f->lock);
    store_done(store);
    free(f);
}

static const struct store_backend backend = {
    .kind = "fault",
    .submit = fault_submit,
    .cancel = fault_cancel,
    .free = fault_free,
};

int store_fault_new(struct store *below, struct store **out)
{
    struct fault_store *f = calloc(1, sizeof(*f));
    if (!f)
        return -ENOMEM;
    store_init(&f->store, &backend, store_loop(below), below, NULL);
    pthread_mutex_init(&f->lock, NULL);
    *out = &f->store;
    return 0;
}

/* Puts a copy in the place of a string that may be NULL. False without memory. */
static bool keep(const char **text)
{
    const char *given = *text;
    *text = given ? strdup(given) : NULL;
    return !given || *text;
}

void store_fault_set(struct store *fault, const struct store_fault_rule *rules, unsigned count)
{
    struct fault_store *f = container_of(fault, struct fault_store, store);
    struct rule *copy = calloc(count + 1, sizeof(*copy));
    bool whole = copy;
    for (unsigned i = 0; whole && i < count; i++) {
        copy[i].rule = rules[i];
        whole = keep(&copy[i].rule.key_part) && keep(&copy[i].rule.instead);
    }
    /* A test without memory for its rules proves nothing. */
    if (!whole)
        abort();
    pthread_mutex_lock(&f->lock);
    struct rule *old = f->rules;
    unsigned old_count = f->count;
    f->rules = copy;
    f->count = count;
    f->acted = 0;
    pthread_mutex_unlock(&f->lock);
    rules_free(old, old_count);
}

unsigned store_fault_acted(struct store *fault)
{
    struct fault_store *f = container_of(fault, struct fault_store, store);
    pthread_mutex_lock(&f->lock);
    unsigned acted = f->acted;
    pthread_mutex_unlock(&f->lock);
    return acted;
}

uint64_t store_fault_seen(struct store *fault, enum store_kind kind)
{
    struct fault_store *f = container_of(fault, struct fault_store, store);
    return atomic_load_explicit(&f->seen[kind], memory_order_relaxed);
}
