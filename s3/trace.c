/*
 * The edge of a store's stack: counts and times every request, and writes one line for each that
 * failed. What is below returns errors and does not log them.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "s3/backend.h"

#define LOG_BURST 20
#define LOG_PERIOD_MS 10000

struct trace_store {
    struct store store;
    struct metric *requests[STORE_KIND_COUNT], *errors[STORE_KIND_COUNT];
    struct metric *seconds[STORE_KIND_COUNT];
    struct metric *read, *written, *in_flight;
    struct log_limit limit;
};

struct call {
    struct trace_store *trace;
    struct store_op *op; /* the caller's */
    struct store_op sub;
    uint64_t start_ns;
};

static bool is_conditional(const struct store_op *op)
{
    return op->if_match || op->if_none_match || op->source_if_match;
}

/* Answers to a question rather than failures. */
static bool is_expected(const struct store_op *op)
{
    switch (op->result) {
    case 0:
    case -ECANCELED:
    case -ERANGE:
    case -ENOTDIR: /* a key that cannot be beside others: who writes it deals with that */
    case -EISDIR:
        return true;
    case -EBADMSG: /* a body that was written to on its way: it is sent again */
        return op->has_crc32c;
    case -ENOENT:
        return strcmp(op->error.store_code, "NoSuchBucket") != 0;
    case -EEXIST:
        return is_conditional(op);
    default:
        return false;
    }
}

static const char *subject(const struct store_op *op)
{
    if (op->key)
        return op->key;
    if (op->kind == STORE_DELETE_MANY && op->key_count)
        return op->keys[0];
    return op->prefix ? op->prefix : "";
}

static uint64_t body_bytes(const struct store_op *op)
{
    uint64_t sum = 0;
    if (op->kind == STORE_PUT || op->kind == STORE_MPU_PART)
        for (unsigned i = 0; i < op->iov_count; i++)
            sum += op->iov[i].iov_len;
    return sum;
}

static void log_call(struct trace_store *t, const struct store_op *op, uint64_t ns)
{
    char key[512], text[600];
    bool failed = !is_expected(op);
    if (!failed && !log_enabled(LOG_DEBUG))
        return;
    log_quote(subject(op), key, sizeof(key));
    log_quote(op->result ? error_text(&op->error) : "ok", text, sizeof(text));
    unsigned long long us = ns / 1000;
    if (failed)
        log_limited(&t->limit, LOG_WARN, "store request failed",
                    "kind=%s key=%s result=%d status=%d code=%s request=%s us=%llu cause=%s",
                    store_kind_name(op->kind), key, op->result, op->error.http_status,
                    *op->error.store_code ? op->error.store_code : "-",
                    *op->error.request_id ? op->error.request_id : "-", us, text);
    else
        log_debug("store request", "kind=%s key=%s result=%d bytes=%llu us=%llu text=%s",
                  store_kind_name(op->kind), key, op->result,
                  (unsigned long long)(op->kind == STORE_GET ? op->got : body_bytes(op)), us, text);
}

static void call_done(struct store_op *sub)
{
    struct call *call = container_of(sub, struct call, sub);
    struct trace_store *t = call->trace;
    struct store_op *op = call->op;
    uint64_t ns = clock_monotonic_ns() - call->start_ns;
    metric_move(t->in_flight, -1);
    metric_observe_ns(t->seconds[sub->kind], ns);
    if (!is_expected(sub))
        metric_add(t->errors[sub->kind], 1);
    if (!sub->result && sub->kind == STORE_GET)
        metric_add(t->read, sub->got);
    if (!sub->result)
        metric_add(t->written, body_bytes(sub));
    log_call(t, sub, ns);
    store_op_move_result(op, sub);
    op->impl = NULL;
    free(call);
    store_complete(op, op->result);
}

static void trace_submit(struct store *store, struct store_op *op)
{
    struct trace_store *t = container_of(store, struct trace_store, store);
    struct call *call = malloc(sizeof(*call));
    if (!call) {
        store_complete(op, -ENOMEM);
        return;
    }
    call->trace = t;
    call->op = op;
    call->start_ns = clock_monotonic_ns();
    store_op_copy_request(&call->sub, op);
    call->sub.done = call_done;
    op->impl = call;
    metric_move(t->in_flight, 1);
    metric_add(t->requests[op->kind], 1);
    store_submit(store->below, &call->sub);
}

static void trace_cancel(struct store *store, struct store_op *op)
{
    struct call *call = op->impl;
    store_cancel(&call->sub);
}

static void trace_free(struct store *store)
{
    store_done(store);
    free(container_of(store, struct trace_store, store));
}

static const struct store_backend backend = {
    .kind = "trace",
    .submit = trace_submit,
    .cancel = trace_cancel,
    .free = trace_free,
};

int store_trace_new(struct store *below, struct metrics *metrics, struct store **out)
{
    struct trace_store *t = calloc(1, sizeof(*t));
    if (!t)
        return -ENOMEM;
    store_init(&t->store, &backend, store_loop(below), below, NULL);
    t->limit.burst = LOG_BURST;
    t->limit.period_ms = LOG_PERIOD_MS;
    for (int kind = 0; kind < STORE_KIND_COUNT; kind++) {
        char labels[48];
        snprintf(labels, sizeof(labels), "kind=\"%s\"", store_kind_name((enum store_kind)kind));
        t->requests[kind] = metrics_counter(metrics, "sluice_store_requests_total", labels,
                                            "Requests to the object store, retries not counted.");
        t->errors[kind] = metrics_counter(
            metrics, "sluice_store_errors_total", labels,
            "Requests that failed after all retries; missing keys and conditions not counted.");
        t->seconds[kind] = metrics_histogram(metrics, "sluice_store_seconds", labels,
                                             "Time of a request with its retries.");
    }
    t->read = metrics_counter(metrics, "sluice_store_read_bytes_total", "",
                              "Bytes of objects read from the store.");
    t->written = metrics_counter(metrics, "sluice_store_written_bytes_total", "",
                                 "Bytes of objects and parts written to the store.");
    t->in_flight = metrics_gauge(metrics, "sluice_store_in_flight", "",
                                 "Requests to the object store that are under way.");
    *out = &t->store;
    return 0;
}
