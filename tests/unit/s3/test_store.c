#include <errno.h>
#include <stdatomic.h>

#include "base/cleanup.h"
#include "conformance_lib.h"
#include "s3/backend.h"
#include "test.h"

static struct loop *loop;
static struct store *store;
static struct run r;

static void open_memory(void)
{
    check_int(loop_new(&loop, "test"), 0);
    check_int(store_memory_new(loop, &store), 0);
    r = (struct run){.store = store, .caps = store_caps(store), .prefix = ""};
}

static void close_memory(void)
{
    run_end(&r);
    store_free(store);
    loop_free(loop);
}

TEST(store_kind_name, names_every_kind)
{
    for (int kind = 0; kind < STORE_KIND_COUNT; kind++) {
        check(store_kind_name((enum store_kind)kind) != NULL);
        for (int other = 0; other < kind; other++)
            check(strcmp(store_kind_name((enum store_kind)kind),
                         store_kind_name((enum store_kind)other)) != 0);
    }
    check_str(store_kind_name(STORE_MPU_PART_COPY), "mpu_part_copy");
    check_str(store_kind_name(STORE_KIND_COUNT), "unknown");
}

struct inside {
    struct store_op op;
    _Atomic int done;
    bool done_inside;
};

static void count_done(struct store_op *op)
{
    atomic_fetch_add(&container_of(op, struct inside, op)->done, 1);
}

static void submit_inside(void *arg)
{
    struct inside *in = arg;
    store_submit(store, &in->op);
    in->done_inside = atomic_load(&in->done);
}

static void nothing(void *arg)
{
}

TEST(store_submit, never_calls_done_inside, .init = open_memory, .fini = close_memory)
{
    const char *const keys[] = {"k", ""}; /* one that is checked, one that is refused */
    for (int i = 0; i < 2; i++) {
        struct inside in = {.op = {.kind = STORE_HEAD, .key = keys[i], .done = count_done}};
        loop_call(loop, submit_inside, &in);
        check(!in.done_inside);
        loop_call(loop, nothing, NULL);
        check_int(atomic_load(&in.done), 1);
        check_int(in.op.result, i ? -EINVAL : -ENOENT);
        store_op_reset(&in.op);
    }
}

TEST(store_submit, takes_an_op_again, .init = open_memory, .fini = close_memory)
{
    check_int(run_put(&r, "k", "abc"), 0);
    struct store_op *op = run_begin(&r, STORE_HEAD, "k");
    for (int i = 0; i < 3; i++) {
        check_int(store_wait(store, op), 0);
        check_uint(op->info.size, 3);
    }
    check_int(run_delete(&r, "k"), 0);
    op = run_begin(&r, STORE_HEAD, "k");
    check_int(store_wait(store, op), -ENOENT);
    check_uint(op->info.size, 0);
}

static void submit_and_cancel(void *arg)
{
    struct inside *in = arg;
    if (in->op.store)
        store_cancel(&in->op); /* posted, not run yet: the loop thread is here */
}

struct hold {
    struct loop_task task;
    _Atomic int step; /* 1: the loop thread is held, 2: let go */
    struct inside *in;
};

static void hold_loop(struct loop_task *task)
{
    struct hold *hold = container_of(task, struct hold, task);
    atomic_store(&hold->step, 1);
    while (atomic_load(&hold->step) == 1)
        usleep(100);
    submit_and_cancel(hold->in);
}

TEST(store_cancel, ends_what_has_not_arrived, .init = open_memory, .fini = close_memory)
{
    struct inside in = {.op = {.kind = STORE_PUT, .key = "k", .done = count_done}};
    struct hold hold = {.task.run = hold_loop, .in = &in};
    loop_post(loop, &hold.task);
    while (!atomic_load(&hold.step))
        usleep(100);
    store_submit(store, &in.op);
    atomic_store(&hold.step, 2);
    for (int i = 0; i < 3; i++)
        loop_call(loop, nothing, NULL);
    check_int(atomic_load(&in.done), 1);
    check_int(in.op.result, -ECANCELED);
    check_int(run_head(&r, "k"), -ENOENT);
    store_op_reset(&in.op);
}

TEST(store_wait, keeps_the_callers_argument, .init = open_memory, .fini = close_memory)
{
    int mine;
    struct store_op op = {.kind = STORE_HEAD, .key = "k", .arg = &mine};
    check_int(store_wait(store, &op), -ENOENT);
    check(op.arg == &mine);
    check_int(op.error.code, -ENOENT);
    check(*op.error.message);
    store_op_reset(&op);
}

TEST(store_op_reset, may_be_repeated)
{
    struct store_op op = {.kind = STORE_GET, .key = "k", .length = 3};
    store_op_reset(&op);
    store_op_reset(&op);
    check_int(op.kind, STORE_GET);
    check_str(op.key, "k");
    check_uint(op.length, 3);
}

TEST(store_op_add_entry, keeps_many)
{
    struct store_op op = {0};
    char name[1000];
    for (unsigned i = 0; i < 3000; i++) {
        memset(name, 'a' + (int)(i % 26), i % 999);
        name[i % 999] = 0;
        check_int(store_op_add_entry(&op, name, i, i, i % 2 ? "etag" : NULL, !(i % 2)), 0);
        if (i < 100)
            check_int(store_op_add_meta(&op, name, "v"), 0);
    }
    check_uint(op.out_list.count, 3000);
    check_uint(op.out_meta_count, 100);
    for (unsigned i = 0; i < 3000; i++) {
        const struct store_entry *e = &op.out_list.entries[i];
        check_uint(strlen(e->name), i % 999);
        check(!*e->name || e->name[i % 999 - 1] == (char)('a' + i % 26));
        check_str(e->etag, i % 2 ? "etag" : "");
    }
    check_str(store_op_meta(&op, "bb") ? "there" : "not there", "not there");
    check_str(store_op_meta(&op, "b"), "v");
    store_op_reset(&op);
}

TEST(store_op_alloc, aligns_and_refuses_the_absurd)
{
    struct store_op op = {0};
    for (size_t len = 0; len < 100; len++)
        check_uint((uintptr_t)store_op_alloc(&op, len) % _Alignof(max_align_t), 0);
    char *large = store_op_alloc(&op, 1 << 20);
    memset(large, 1, 1 << 20);
    check(!store_op_alloc(&op, SIZE_MAX));
    store_op_reset(&op);
}

TEST(store_op_move_result, moves_outputs_with_their_memory, .init = open_memory,
     .fini = close_memory)
{
    struct store_op to = {.kind = STORE_LIST};
    check_int(run_put(&r, "a", "1"), 0);
    check_int(run_list(&r, "", NULL), 0);
    store_op_move_result(&to, &r.op);
    check_uint(to.out_list.count, 1);
    check_str(to.out_list.entries[0].name, "a");
    check_uint(r.op.out_list.count, 0);
    check(!r.op.arena);
    store_op_reset(&to);
}

TEST(store_op_copy_request, copies_inputs_only, .init = open_memory, .fini = close_memory)
{
    struct store_op to;
    check_int(run_put(&r, "a", "1"), 0);
    check_int(run_list(&r, "a", "/"), 0);
    store_op_copy_request(&to, &r.op);
    check_int(to.kind, STORE_LIST);
    check(to.prefix == r.op.prefix && to.delimiter == r.op.delimiter);
    check(!to.arena && !to.out_list.count && !to.done && !to.arg);
    store_op_reset(&to);
}

TEST(store_name, is_that_of_the_bottom)
{
    open_memory();
    struct store *fault, *trace;
    check_int(store_fault_new(store, &fault), 0);
    check_int(store_trace_new(fault, NULL, &trace), 0);
    check_str(store_name(trace), store_name(store));
    check_uint(store_caps(trace)->put_max, store_caps(store)->put_max);
    store_free(trace); /* frees those below */
    store_free(NULL);
    loop_free(loop);
}

TEST(store_etag_fits, weak_ones_by_size_and_time)
{
    char weak[STORE_ETAG_MAX];
    struct store_info info = {.size = 255, .mtime_ns = 16000000000ull, .etag = "abc"};
    store_etag_weak(255, 16999999999ull, weak);
    check_str(weak, "~ff-10");
    check(store_etag_is_weak(weak) && !store_etag_is_weak("abc"));
    check(store_etag_fits(&info, "abc") && store_etag_fits(&info, weak));
    check(!store_etag_fits(&info, "abd"));
    info.size++;
    check(!store_etag_fits(&info, weak));
    info.size--;
    info.mtime_ns += 1000000000;
    check(!store_etag_fits(&info, weak));
}
