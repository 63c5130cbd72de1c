#include <errno.h>
#include <sched.h>
#include <stdatomic.h>

#include "conformance.h"
#include "conformance_lib.h"
#include "s3/backend.h"
#include "s3/mux.h"
#include "test.h"

static struct loop *loop;
static struct store *own, *other, *mux;
static struct run r;

static void memory_new(struct store **out)
{
    check_int(store_memory_new(loop, out), 0);
    (*out)->caps.part_min = 8;
}

static void open_mux(void)
{
    check_int(loop_new(&loop, "test"), 0);
    memory_new(&own);
    memory_new(&other);
    check_int(store_mux_new(own, &mux), 0);
    check_int(store_mux_set(mux, 2, "other", other, NULL), 0);
    r = (struct run){.store = mux, .caps = store_caps(mux), .prefix = ""};
}

static void close_mux(void)
{
    run_end(&r);
    store_free(mux);
    loop_free(loop);
}

TEST(mux_store, conforms_in_both, .init = open_mux, .fini = close_mux)
{
    check_uint(conformance_run(mux, "c/", NULL, false, stdout).failed, 0);
    check_uint(conformance_run(mux, "/2/c/", NULL, false, stdout).failed, 0);
}

TEST(mux_store, keys_are_routed, .init = open_mux, .fini = close_mux)
{
    struct store_op head = {.kind = STORE_HEAD, .key = "a"};
    check_int(run_put(&r, "/2/a", "x"), 0);
    check_int(store_wait(other, &head), 0);
    store_op_reset(&head);
    check_int(store_wait(own, &head), -ENOENT);
    store_op_reset(&head);
    check_int(run_head(&r, "/2/a"), 0);
    check_int(run_head(&r, "a"), -ENOENT);
}

TEST(mux_store, listing_has_the_route, .init = open_mux, .fini = close_mux)
{
    check_int(run_put(&r, "/2/d/a", "x"), 0);
    check_int(run_put(&r, "d/b", "x"), 0);
    struct store_op list = {.kind = STORE_LIST, .prefix = "/2/d/", .delimiter = "/"};
    check_int(store_wait(mux, &list), 0);
    check_uint(list.out_list.count, 1);
    check_str(list.out_list.entries[0].name, "/2/d/a");
    store_op_reset(&list);
}

TEST(mux_store, one_request_stays_in_one_store, .init = open_mux, .fini = close_mux)
{
    const char *keys[] = {"/2/a", "b"};
    check_int(run_put(&r, "b", "x"), 0);
    struct store_op copy = {.kind = STORE_COPY, .key = "/2/a", .source_key = "b"};
    check_int(store_wait(mux, &copy), -EXDEV);
    store_op_reset(&copy);
    struct store_op many = {.kind = STORE_DELETE_MANY, .keys = keys, .key_count = 2};
    check_int(store_wait(mux, &many), -EXDEV);
    store_op_reset(&many);
    check_int(run_head(&r, "b"), 0);
}

TEST(mux_store, absent_store_says_why, .init = open_mux, .fini = close_mux)
{
    check_int(run_head(&r, "/3/a"), -EIO);
    check_int(run_put(&r, "/2/a", "x"), 0);
    check_int(store_mux_set(mux, 2, "other", NULL, "the cable is out"), 0);
    check_int(run_head(&r, "/2/a"), -EIO);
    check(strstr(r.op.error.message, "store other is not connected: the cable is out") != NULL);
    check_int(run_put(&r, "own", "x"), 0);
}

TEST(mux_store, abilities_are_the_stores, .init = open_mux, .fini = close_mux)
{
    struct store *third;
    memory_new(&third);
    third->caps.put_if_none_match = false;
    check_int(store_mux_set(mux, 63, "third", third, NULL), 0);
    check(store_caps_at(mux, "a")->put_if_none_match);
    check(!store_caps_at(mux, "/63/a")->put_if_none_match);
}

TEST(mux_store, route_of_any_text)
{
    static const struct {
        const char *key;
        unsigned number;
        size_t skip;
    } cases[] = {
        {"", 0, 0},       {"/", 0, 0},   {"//", 0, 0},   {"/0/a", 0, 0},   {"/01/a", 0, 0},
        {"/1", 0, 0},     {"/1/", 1, 3}, {"/1/a", 1, 3}, {"/63/a", 63, 4}, {"/64/a", 0, 0},
        {"/100/a", 0, 0}, {"1/a", 0, 0}, {"/1a/", 0, 0}, {"/x/a", 0, 0},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        size_t skip;
        check_uint(store_route(cases[i].key, strlen(cases[i].key), &skip), cases[i].number);
        check_uint(skip, cases[i].skip);
    }
    for (unsigned i = 1; i <= STORE_MUX_MAX; i++) {
        char text[STORE_ROUTE_MAX + 1];
        size_t skip, len = store_route_print(i, text);
        check_uint(store_route(text, len, &skip), i);
        check_uint(skip, len);
    }
}

static void note_end(struct store_op *op)
{
    atomic_fetch_add((atomic_int *)op->arg, 1);
}

static void cancel(void *arg)
{
    store_cancel(arg);
}

TEST(mux_store, held_requests_go_where_the_number_leads_then, .init = open_mux, .fini = close_mux)
{
    struct store *third;
    atomic_int ended = 0;
    struct store_op head = {.kind = STORE_HEAD, .key = "/2/a", .done = note_end, .arg = &ended};
    struct store_op gone = head;
    check_int(run_put(&r, "/2/a", "x"), 0);
    memory_new(&third);
    store_mux_hold(mux, true);
    store_submit(mux, &head);
    store_submit(mux, &gone);
    check_int(run_put(&r, "own", "x"), 0);
    loop_call(loop, cancel, &gone);
    while (atomic_load(&ended) < 1)
        sched_yield();
    check_int(gone.result, -ECANCELED);
    check_int(store_mux_set(mux, 2, "third", third, NULL), 0);
    store_mux_hold(mux, false);
    while (atomic_load(&ended) < 2)
        sched_yield();
    check_int(head.result, -ENOENT);
    store_op_reset(&gone);
    store_op_reset(&head);
}
