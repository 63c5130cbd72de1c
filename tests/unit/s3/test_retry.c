/* The retry decorator over a store that fails when it is told to. */
#include <errno.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "conformance.h"
#include "conformance_lib.h"
#include "retry_policy.h"
#include "retry_verify.h"
#include "s3/backend.h"
#include "test.h"

static struct loop *loop;
static struct store *fault, *store;
static struct run r;

static void open_stack(void)
{
    struct store *memory;
    struct store_options options;
    store_options_init(&options);
    check_int(loop_new(&loop, "test"), 0);
    check_int(store_memory_new(loop, &memory), 0);
    memory->caps.part_min = 8;
    check_int(store_fault_new(memory, &fault), 0);
    check_int(store_retry_new(fault, &options, NULL, &store), 0);
    r = (struct run){.store = store, .caps = store_caps(store), .prefix = ""};
}

static void close_stack(void)
{
    run_end(&r);
    store_free(store);
    loop_free(loop);
}

static void set(struct store_fault_rule rule)
{
    store_fault_set(fault, &rule, 1);
}

static void lose_reply(enum store_kind kind)
{
    set((struct store_fault_rule){.kind = (int)kind, .count = 1, .result = -EIO, .after = true});
}

#define RETRY_TEST(suite, name) TEST(suite, name, .init = open_stack, .fini = close_stack)

RETRY_TEST(retry_store, conforms)
{
    check_uint(conformance_run(store, "c/", NULL, false, stdout).failed, 0);
}

RETRY_TEST(retry_store, tries_again_until_it_succeeds)
{
    check_int(run_put(&r, "k", "text"), 0);
    set((struct store_fault_rule){.kind = STORE_GET, .count = 3, .result = -EIO});
    check_int(run_get(&r, "k", 0, 4), 0);
    check_mem(r.op.buf, "text", 4);
    check_uint(store_fault_seen(fault, STORE_GET), 4);
}

RETRY_TEST(retry_store, believes_a_clear_no)
{
    check_int(run_head(&r, "nothing"), -ENOENT);
    check_uint(store_fault_seen(fault, STORE_HEAD), 1);
    set((struct store_fault_rule){.kind = STORE_HEAD, .result = -EACCES});
    check_int(run_head(&r, "nothing"), -EACCES);
    check_uint(store_fault_seen(fault, STORE_HEAD), 2);
}

RETRY_TEST(retry_store, gives_up_at_the_deadline_and_says_why)
{
    set((struct store_fault_rule){.kind = STORE_HEAD, .result = -EIO});
    struct store_op *op = run_begin(&r, STORE_HEAD, "k");
    op->timeout_ms = 300;
    check_int(run_do(&r), -EIO);
    check(strstr(r.op.error.message, "injected fault") != NULL);
    check(strstr(r.op.error.message, "tries in") != NULL);
    check(store_fault_seen(fault, STORE_HEAD) > 1);
}

RETRY_TEST(retry_store, gives_up_a_try_that_hangs)
{
    set((struct store_fault_rule){.kind = STORE_HEAD, .delay_ms = 600000});
    struct store_op *op = run_begin(&r, STORE_HEAD, "k");
    op->timeout_ms = 50;
    check_int(run_do(&r), -ETIMEDOUT);
    check(strstr(r.op.error.message, "no answer within 50 ms") != NULL);
}

RETRY_TEST(retry_store, ends_a_conflict_that_is_never_decided_as_one)
{
    set((struct store_fault_rule){.kind = STORE_PUT, .result = -EAGAIN});
    struct store_op *op = run_begin(&r, STORE_PUT, "k");
    op->timeout_ms = 100;
    check_int(run_do(&r), -EEXIST);
}

/* Cancelled from the loop thread while it pauses or hangs. */
static void cancel(void *arg)
{
    store_cancel(arg);
}

struct ended {
    uv_sem_t sem;
};

static void on_ended(struct store_op *op)
{
    uv_sem_post(&((struct ended *)op->arg)->sem);
}

static int submit_and_cancel(struct store_op *op)
{
    struct ended ended;
    uv_sem_init(&ended.sem, 0);
    op->done = on_ended;
    op->arg = &ended;
    uint64_t before = store_fault_seen(fault, op->kind);
    store_submit(store, op);
    while (store_fault_seen(fault, op->kind) == before)
        usleep(1000);
    loop_call(loop, cancel, op);
    uv_sem_wait(&ended.sem);
    uv_sem_destroy(&ended.sem);
    int result = op->result;
    store_op_reset(op);
    return result;
}

RETRY_TEST(store_cancel, ends_a_request_that_hangs)
{
    set((struct store_fault_rule){.kind = STORE_HEAD, .delay_ms = 600000});
    struct store_op op = {.kind = STORE_HEAD, .key = "k"};
    check_int(submit_and_cancel(&op), -ECANCELED);
}

RETRY_TEST(store_cancel, ends_a_request_that_pauses)
{
    set((struct store_fault_rule){.kind = STORE_HEAD, .result = -EIO});
    struct store_op op = {.kind = STORE_HEAD, .key = "k", .timeout_ms = 600000};
    check_int(submit_and_cancel(&op), -ECANCELED);
}

/* ---- replies that get lost ---- */

static const struct store_meta ours = {"writer", "we"};
static const struct store_meta theirs = {"writer", "they"};

static int put_if_free(const char *key, const char *text, const struct store_meta *meta)
{
    struct store_op *op = run_begin(&r, STORE_PUT, key);
    run_body(&r, op, text, strlen(text));
    op->if_none_match = true;
    op->meta = meta;
    op->meta_count = meta ? 1 : 0;
    return run_do(&r);
}

static int put_if_match(const char *key, const char *text, const char *etag)
{
    struct store_op *op = run_begin(&r, STORE_PUT, key);
    run_body(&r, op, text, strlen(text));
    op->if_match = etag;
    return run_do(&r);
}

RETRY_TEST(lost_reply, of_a_conditional_put_is_recognised)
{
    lose_reply(STORE_PUT);
    check_int(put_if_free("k", "text", &ours), 0);
    check(r.op.info.etag[0] != '\0');
    check_uint(store_fault_seen(fault, STORE_PUT), 1);
    run_want_object(&r, "k", "text", 4);
    check_str(r.failure, "");
}

RETRY_TEST(lost_reply, of_a_put_without_metadata_is_recognised_by_the_bytes)
{
    lose_reply(STORE_PUT);
    check_int(put_if_free("k", "text", NULL), 0);
}

RETRY_TEST(lost_reply, does_not_claim_what_others_wrote)
{
    check_int(put_if_free("k", "text", &theirs), 0);
    set((struct store_fault_rule){.kind = STORE_PUT, .count = 1, .result = -EIO});
    check_int(put_if_free("k", "text", &ours), -EEXIST);
    set((struct store_fault_rule){.kind = STORE_PUT, .count = 1, .result = -EIO});
    check_int(put_if_free("k", "tex!", NULL), -EEXIST);
    run_want_object(&r, "k", "text", 4);
    check_str(r.failure, "");
}

RETRY_TEST(lost_reply, of_an_empty_put_without_metadata_is_not_claimed)
{
    lose_reply(STORE_PUT);
    check_int(put_if_free("k", "", NULL), -EEXIST);
}

RETRY_TEST(lost_reply, of_a_replacement_is_recognised)
{
    check_int(run_put(&r, "k", "old"), 0);
    char etag[STORE_ETAG_MAX];
    memcpy(etag, r.op.info.etag, sizeof(etag));
    lose_reply(STORE_PUT);
    struct store_op *op = run_begin(&r, STORE_PUT, "k");
    run_body(&r, op, "new", 3);
    op->if_match = etag;
    check_int(run_do(&r), 0);
    run_want_object(&r, "k", "new", 3);
    check_str(r.failure, "");
}

RETRY_TEST(lost_reply, before_anything_was_done_repeats_the_replacement)
{
    check_int(run_put(&r, "k", "old"), 0);
    char etag[STORE_ETAG_MAX];
    memcpy(etag, r.op.info.etag, sizeof(etag));
    set((struct store_fault_rule){.kind = STORE_PUT, .count = 1, .result = -EIO});
    struct store_op *op = run_begin(&r, STORE_PUT, "k");
    run_body(&r, op, "new", 3);
    op->if_match = etag;
    check_int(run_do(&r), 0);
    run_want_object(&r, "k", "new", 3);
    check_str(r.failure, "");
}

static int complete(const char *key, const struct store_meta *meta, bool if_free)
{
    struct store_op *op = run_begin(&r, STORE_MPU_CREATE, key);
    op->meta = meta;
    op->meta_count = 1;
    if (run_do(&r))
        return r.op.result;
    const char *id = run_keep(&r, r.op.out_upload_id);
    struct store_part part;
    int rc = run_part(&r, key, id, 1, "0123456789", 10, &part);
    if (rc)
        return rc;
    op = run_begin(&r, STORE_MPU_COMPLETE, key);
    op->upload_id = id;
    op->parts = &part;
    op->part_count = 1;
    op->meta = meta;
    op->meta_count = 1;
    op->if_none_match = if_free;
    return run_do(&r);
}

RETRY_TEST(lost_reply, of_a_complete_is_recognised)
{
    lose_reply(STORE_MPU_COMPLETE);
    check_int(complete("k", &ours, true), 0);
    lose_reply(STORE_MPU_COMPLETE);
    check_int(complete("l", &ours, false), 0);
    check_uint(store_fault_seen(fault, STORE_MPU_COMPLETE), 2);
}

RETRY_TEST(lost_reply, of_a_complete_does_not_claim_what_others_wrote)
{
    check_int(run_put(&r, "k", "theirs"), 0);
    set((struct store_fault_rule){.kind = STORE_MPU_COMPLETE, .count = 1, .result = -EIO});
    check_int(complete("k", &ours, true), -EEXIST);
    run_want_object(&r, "k", "theirs", 6);
    check_str(r.failure, "");
}

RETRY_TEST(lost_reply, survives_failures_of_the_look)
{
    struct store_fault_rule rules[] = {
        {.kind = STORE_PUT, .count = 1, .result = -EIO, .after = true},
        {.kind = STORE_HEAD, .count = 2, .result = -EIO},
        {.kind = STORE_GET, .count = 2, .result = -EIO},
    };
    store_fault_set(fault, rules, ARRAY_LEN(rules));
    check_int(put_if_free("k", "text", &ours), 0);
    check_uint(store_fault_seen(fault, STORE_PUT), 1);
}

/* ---- stores without conditions ---- */

RETRY_TEST(without_if_none_match, asks_by_head_first)
{
    store->caps.put_if_none_match = false;
    store->caps.complete_if_none_match = false;
    check_int(put_if_free("k", "text", &ours), 0);
    check_int(put_if_free("k", "other", &theirs), -EEXIST);
    check_uint(store_fault_seen(fault, STORE_PUT), 1);
    check_int(complete("k", &theirs, true), -EEXIST);
    check_uint(store_fault_seen(fault, STORE_MPU_COMPLETE), 0);
    check_int(complete("l", &theirs, true), 0);
    lose_reply(STORE_PUT);
    check_int(put_if_free("m", "text", &ours), 0);
    check_uint(store_fault_seen(fault, STORE_PUT), 2);
}

RETRY_TEST(without_if_match, asks_by_head_first)
{
    store->caps.put_if_match = false;
    check_int(run_put(&r, "k", "old"), 0);
    check_int(run_head(&r, "k"), 0);
    char etag[STORE_ETAG_MAX];
    memcpy(etag, r.op.info.etag, sizeof(etag));
    uint64_t puts = store_fault_seen(fault, STORE_PUT);
    check_int(put_if_match("k", "new", etag), 0);
    check_int(put_if_match("k", "newer", etag), -EEXIST);
    check_int(put_if_match("gone", "text", etag), -ENOENT);
    check_uint(store_fault_seen(fault, STORE_PUT), puts + 1);
    run_want_object(&r, "k", "new", 3);
    check_str(r.failure, "");
}

RETRY_TEST(without_the_etag_of_a_complete, asks_by_head_behind)
{
    store->caps.complete_etag = false;
    uint64_t heads = store_fault_seen(fault, STORE_HEAD);
    check_int(complete("k", &ours, true), 0);
    check_uint(store_fault_seen(fault, STORE_HEAD), heads + 1);
    char etag[STORE_ETAG_MAX];
    memcpy(etag, r.op.info.etag, sizeof(etag));
    check_int(run_head(&r, "k"), 0);
    check_str(r.op.info.etag, etag);
    /* The look fails: the upload is not sent again. */
    set((struct store_fault_rule){.kind = STORE_HEAD, .count = 2, .result = -EIO});
    check_int(complete("l", &ours, true), 0);
    check_uint(store_fault_seen(fault, STORE_MPU_COMPLETE), 2);
}

/* ---- policies ---- */

TEST(retry_backoff_ms, doubles_up_to_a_bound)
{
    uint64_t random = 1;
    uint32_t most[12] = {0};
    for (unsigned failed = 1; failed <= 12; failed++) {
        for (unsigned i = 0; i < 2000; i++) {
            uint32_t ms = retry_backoff_ms(failed, STORE_RETRY_AGAIN, 0, &random);
            most[failed - 1] = MAX(most[failed - 1], ms);
        }
    }
    check(most[0] > 40 && most[0] <= 50);
    check(most[1] > 80 && most[1] <= 100);
    check(most[11] > 4500 && most[11] <= 5000);
    check_uint(retry_backoff_ms(1, STORE_RETRY_SLOWLY, 7000, &random), 7000);
}

TEST(retry_rate, has_no_limit_before_a_refusal)
{
    struct retry_rate rate = {0};
    for (unsigned i = 0; i < 10000; i++)
        check_uint(retry_rate_delay(&rate, 1000 + i / 100), 0);
}

TEST(retry_rate, spreads_requests_after_a_refusal_and_grows_again)
{
    struct retry_rate rate = {0};
    uint64_t now = 10000;
    /* 100 per second for three seconds */
    for (unsigned i = 0; i < 300; i++)
        retry_rate_delay(&rate, now + i * 10);
    now += 3000;
    retry_rate_slow(&rate, now);
    check(rate.limit == 0); /* it may have been an accident */
    retry_rate_slow(&rate, now);
    double limit = rate.limit;
    check(limit >= 30 && limit <= 90);
    retry_rate_slow(&rate, now + 10);
    check(rate.limit == limit);
    check_uint(retry_rate_delay(&rate, now), 0);
    uint32_t first = retry_rate_delay(&rate, now), second = retry_rate_delay(&rate, now);
    check(first > 0 && second > first);
    for (unsigned s = 1; s < 20; s++)
        retry_rate_delay(&rate, now + s * 1000);
    check(rate.limit > 2 * limit);
    retry_rate_delay(&rate, now + 61001);
    check(rate.limit == 0);
}

TEST(retry_bandwidth, without_a_limit_nobody_waits)
{
    struct retry_bandwidth bandwidth = {0};
    for (unsigned i = 0; i < 100; i++)
        check_uint(retry_bandwidth_delay(&bandwidth, 1000, UINT32_MAX), 0);
    retry_bandwidth_return(&bandwidth, 100);
}

TEST(retry_bandwidth, each_waits_for_the_bytes_before_it)
{
    struct retry_bandwidth bandwidth = {.bytes_per_s = 1000000};
    uint64_t now = 5 * NS_PER_S;
    check_uint(retry_bandwidth_delay(&bandwidth, now, 500000), 0);
    check_uint(retry_bandwidth_delay(&bandwidth, now, 2000000), NS_PER_S / 2);
    check_uint(retry_bandwidth_delay(&bandwidth, now, 0), 0);
    check_uint(retry_bandwidth_delay(&bandwidth, now + NS_PER_S, 1), 3 * NS_PER_S / 2);
    /* Time that nobody used is not saved up. */
    now += 100 * NS_PER_S;
    check_uint(retry_bandwidth_delay(&bandwidth, now, 1000000), 0);
    check_uint(retry_bandwidth_delay(&bandwidth, now, 1000000), NS_PER_S);
    retry_bandwidth_return(&bandwidth, 1000000);
    check_uint(retry_bandwidth_delay(&bandwidth, now, 1000000), NS_PER_S);
    /* The largest object at the smallest limit. */
    struct retry_bandwidth slow = {.bytes_per_s = 1};
    retry_bandwidth_delay(&slow, now, 5ull << 30);
    check_uint(retry_bandwidth_delay(&slow, now, 1), (5ull << 30) * NS_PER_S);
}

TEST(retry_bandwidth, requests_wait_for_their_turn)
{
    struct loop *own_loop;
    struct metrics *metrics;
    struct store *memory, *limited;
    struct store_options options;
    uint8_t *body = calloc(1, 200000);
    store_options_init(&options);
    options.upload_limit = 1000000;
    check_int(metrics_new(&metrics), 0);
    check_int(loop_new(&own_loop, "test"), 0);
    check_int(store_memory_new(own_loop, &memory), 0);
    check_int(store_retry_new(memory, &options, metrics, &limited), 0);
    struct run run = {.store = limited, .caps = store_caps(limited), .prefix = ""};
    struct store_op ops[3];
    char key[3][8];
    for (unsigned i = 0; i < 3; i++) {
        snprintf(key[i], sizeof(key[i]), "k%u", i);
        struct store_op *op = run_begin(&run, STORE_PUT, key[i]);
        run_body(&run, op, body, 200000);
        ops[i] = *op;
    }
    run_together(&run, ops, 3);
    for (unsigned i = 0; i < 3; i++) {
        check_int(ops[i].result, 0);
        store_op_reset(&ops[i]);
    }
    struct buf text;
    buf_init(&text, 0);
    metrics_print(metrics, &text);
    buf_put(&text, "", 1);
    /* One or two of the three, by how fast they were submitted: each has one turn. */
    check(strstr((const char *)text.data, "sluice_store_held_requests_total 1\n") != NULL ||
          strstr((const char *)text.data, "sluice_store_held_requests_total 2\n") != NULL);
    buf_done(&text);
    run_end(&run);
    store_free(limited);
    loop_free(own_loop);
    metrics_free(metrics);
    free(body);
}

TEST(retry_kind, follows_the_backend_or_the_result)
{
    struct store_op op = {.result = -EIO};
    check(retry_kind(&op) == STORE_RETRY_AGAIN);
    op.retry = STORE_RETRY_NEVER;
    check(retry_kind(&op) == STORE_RETRY_NEVER);
    op.result = -ENOENT;
    op.retry = STORE_RETRY_DEFAULT;
    check(retry_kind(&op) == STORE_RETRY_NEVER);
    op.retry = STORE_RETRY_SLOWLY;
    check(retry_kind(&op) == STORE_RETRY_SLOWLY);
}

TEST(retry_verify, knows_an_object_of_parts_by_its_etag)
{
    /* Two parts whose MD5s are those of "a" and "b". */
    struct store_part parts[] = {{1, "0cc175b9c0f1b6a831c399e269772661", ""},
                                 {2, "92eb5ffee6ae2fec3ad71c777531578f", ""}};
    struct store_op op = {.kind = STORE_MPU_COMPLETE, .parts = parts, .part_count = 2};
    struct store_op head = {.kind = STORE_HEAD};
    snprintf(head.info.etag, STORE_ETAG_MAX, "%s", "96e024ba2074fe77e8e965ba43a704be-2");
    check(retry_verify(&op, &head, 0) == VERIFY_OURS);
    snprintf(head.info.etag, STORE_ETAG_MAX, "%s", "06e024ba2074fe77e8e965ba43a704be-2");
    check(retry_verify(&op, &head, 0) == VERIFY_FOREIGN);
}
