#include "bench/store.h"

#include <errno.h>

#include "s3/backend.h"
#include "test.h"

struct fixture {
    struct loop *loop;
    struct store *store;
    struct store_bench *bench;
};

static void begin(struct fixture *f, atomic_bool *stop)
{
    check_int(loop_new(&f->loop, "store"), 0);
    check_int(store_memory_new(f->loop, &f->store), 0);
    check_int(store_bench_new(f->store, "some/prefix/", stop, &f->bench), 0);
}

/* Objects in the store, and unfinished uploads. */
static size_t left(struct fixture *f)
{
    struct store_op list = {.kind = STORE_LIST, .prefix = ""};
    struct store_op uploads = {.kind = STORE_MPU_LIST, .prefix = ""};
    check_int(store_wait(f->store, &list), 0);
    check_int(store_wait(f->store, &uploads), 0);
    size_t count = list.out_list.count + uploads.out_list.count;
    store_op_reset(&list);
    store_op_reset(&uploads);
    return count;
}

static void end(struct fixture *f)
{
    check_uint(store_bench_done(f->bench), 0);
    check_uint(left(f), 0);
    store_free(f->store);
    loop_free(f->loop);
}

static int run(struct fixture *f, enum store_bench_op op, size_t size, struct store_bench_row *rows)
{
    return store_bench_run(f->bench, op, size, 40, 7, 60000, rows, NULL);
}

TEST(store_bench_run, every_request_does_its_work_and_nothing_is_left)
{
    static const enum store_bench_op ops[] = {
        STORE_BENCH_PUT,     STORE_BENCH_PUT_NEW, STORE_BENCH_HEAD,
        STORE_BENCH_GET,     STORE_BENCH_COPY,    STORE_BENCH_LIST,
        STORE_BENCH_PUT_NEW, STORE_BENCH_COPY,    STORE_BENCH_DELETE,
    };
    struct fixture f;
    static struct store_bench_row rows[2];
    begin(&f, NULL);
    for (unsigned i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
        check_int(run(&f, ops[i], 1000, rows), 0);
        if (rows[0].requests != 40 || rows[0].failed || rows[0].latency.count != 40)
            test_fail("%s: %u requests, %u failed: %s", store_bench_name(ops[i]), rows[0].requests,
                      rows[0].failed, error_text(&rows[0].error));
        check_uint(rows[1].requests, 0);
    }
    check_uint(left(&f), 0);
    check_int(run(&f, STORE_BENCH_PUT, 10, rows), 0);
    check_uint(left(&f), 40);
    end(&f);
}

TEST(store_bench_run, parts_are_completed_and_read)
{
    struct fixture f;
    static struct store_bench_row rows[2];
    begin(&f, NULL);
    check_int(run(&f, STORE_BENCH_PARTS, 5 << 20, rows), 0);
    check_uint(rows[0].requests, 40);
    check_int(rows[1].op, STORE_BENCH_COMPLETE);
    check_uint(rows[1].requests, 1);
    check_uint(rows[1].failed, 0);
    check_int(run(&f, STORE_BENCH_RANGE, 0, rows), 0);
    check_uint(rows[0].failed, 0);
    check_uint(rows[0].size, 5 << 20);
    end(&f);
}

TEST(store_bench_run, says_what_is_missing)
{
    struct fixture f;
    struct error error = {0};
    static struct store_bench_row rows[2];
    begin(&f, NULL);
    check_int(store_bench_run(f.bench, STORE_BENCH_GET, 1, 1, 1, 1000, rows, &error), -ENOENT);
    check(strstr(error_text(&error), "put") != NULL);
    check_int(store_bench_run(f.bench, STORE_BENCH_RANGE, 1, 1, 1, 1000, rows, &error), -ENOENT);
    check_int(store_bench_run(f.bench, STORE_BENCH_PUT, 1, 0, 1, 1000, rows, &error), -EINVAL);
    end(&f);
}

TEST(store_bench_run, stop_ends_a_row)
{
    struct fixture f;
    static struct store_bench_row rows[2];
    atomic_bool stop = true;
    begin(&f, &stop);
    check_int(run(&f, STORE_BENCH_PUT, 10, rows), 0);
    check_uint(rows[0].requests, 0);
    end(&f);
}

/* It takes each request a minute to fail then. */
TEST(store_bench_done, gives_up_on_a_store_that_does_not_answer)
{
    struct fixture f;
    struct store *fault;
    struct store_fault_rule rule = {.kind = -1, .result = -ETIMEDOUT};
    static struct store_bench_row rows[2];
    check_int(loop_new(&f.loop, "store"), 0);
    check_int(store_memory_new(f.loop, &f.store), 0);
    check_int(store_fault_new(f.store, &fault), 0);
    f.store = fault;
    check_int(store_bench_new(f.store, "some/prefix/", NULL, &f.bench), 0);
    check_int(run(&f, STORE_BENCH_PUT, 10, rows), 0);
    store_fault_set(fault, &rule, 1);
    check_uint(store_bench_done(f.bench), 40);
    check(store_fault_acted(fault) < 10);
    store_fault_set(fault, NULL, 0);
    check_uint(left(&f), 40);
    store_free(f.store);
    loop_free(f.loop);
}

TEST(store_bench_find, knows_all_names)
{
    for (int i = 0; i < STORE_BENCH_OP_COUNT; i++)
        check_int(store_bench_find(store_bench_name((enum store_bench_op)i)), i);
    check_int(store_bench_find("other"), -1);
}
