#include <errno.h>

#include "conformance.h"
#include "conformance_lib.h"
#include "s3/backend.h"
#include "test.h"

static struct loop *loop;
static struct store *store;
static struct run r;

static void open_fault(void)
{
    struct store *memory;
    check_int(loop_new(&loop, "test"), 0);
    check_int(store_memory_new(loop, &memory), 0);
    memory->caps.part_min = 8;
    check_int(store_fault_new(memory, &store), 0);
    r = (struct run){.store = store, .caps = store_caps(store), .prefix = ""};
}

static void close_fault(void)
{
    run_end(&r);
    store_free(store);
    loop_free(loop);
}

static void set(struct store_fault_rule rule)
{
    store_fault_set(store, &rule, 1);
}

TEST(fault_store, conforms_without_rules, .init = open_fault, .fini = close_fault)
{
    check_uint(conformance_run(store, "c/", NULL, false, stdout).failed, 0);
}

TEST(fault_store, conforms_when_all_is_delayed, .init = open_fault, .fini = close_fault)
{
    set((struct store_fault_rule){.kind = -1, .delay_ms = 1});
    check_uint(conformance_run(store, "c/", "put", false, stdout).failed, 0);
    check_uint(conformance_run(store, "c/", "cancel", false, stdout).failed, 0);
}

TEST(fault_store, error_has_no_effect, .init = open_fault, .fini = close_fault)
{
    set((struct store_fault_rule){.kind = STORE_PUT, .count = 1, .result = -EIO});
    check_int(run_put(&r, "k", "x"), -EIO);
    check(strstr(r.op.error.message, "injected") != NULL);
    check_int(run_head(&r, "k"), -ENOENT);
    check_int(run_put(&r, "k", "x"), 0);
}

TEST(fault_store, lost_reply_has_the_effect, .init = open_fault, .fini = close_fault)
{
    set((struct store_fault_rule){.kind = STORE_PUT, .count = 1, .result = -EIO, .after = true});
    check_int(run_put(&r, "k", "x"), -EIO);
    check_int(run_head(&r, "k"), 0);
}

TEST(fault_store, rules_choose_by_kind_key_skip_and_count, .init = open_fault, .fini = close_fault)
{
    const struct store_fault_rule rules[] = {
        {.kind = STORE_PUT, .key_part = "special", .skip = 1, .count = 2, .result = -EACCES},
        {.kind = -1, .key_part = "never", .result = -ENOSPC},
    };
    store_fault_set(store, rules, 2);
    check_int(run_put(&r, "a/special", "x"), 0);
    check_int(run_put(&r, "other", "x"), 0);
    check_int(run_put(&r, "special/b", "x"), -EACCES);
    check_int(run_head(&r, "a/special"), 0);
    check_int(run_put(&r, "a/special", "x"), -EACCES);
    check_int(run_put(&r, "a/special", "x"), 0);
    check_int(run_head(&r, "never"), -ENOSPC);
    check_int(run_delete(&r, "never"), -ENOSPC);
    check_int(run_list(&r, "never", NULL), -ENOSPC);
    store_fault_set(store, NULL, 0);
    check_int(run_list(&r, "never", NULL), 0);
    check_uint(store_fault_seen(store, STORE_PUT), 5);
    check_uint(store_fault_seen(store, STORE_LIST), 2);
    check_uint(store_fault_seen(store, STORE_COPY), 0);
}

TEST(fault_store, corrupts_what_is_read, .init = open_fault, .fini = close_fault)
{
    check_int(run_put(&r, "k", "abcdef"), 0);
    set((struct store_fault_rule){.kind = STORE_GET, .count = 1, .corrupt = true});
    check_int(run_get(&r, "k", 0, 6), 0);
    unsigned different = 0;
    for (unsigned i = 0; i < 6; i++)
        different += ((char *)r.op.buf)[i] != "abcdef"[i];
    check_uint(different, 1);
    check_int(run_get(&r, "k", 0, 6), 0);
    check_mem(r.op.buf, "abcdef", 6);
}

TEST(fault_store, cuts_what_is_written, .init = open_fault, .fini = close_fault)
{
    set((struct store_fault_rule){.kind = STORE_PUT, .corrupt = true});
    char body[] = "abcd";
    struct iovec iov[3] = {{body, 2}, {body + 2, 2}, {NULL, 0}};
    struct store_op *op = run_begin(&r, STORE_PUT, "k");
    op->iov = iov;
    op->iov_count = 3;
    check_int(run_do(&r), 0);
    check_uint(iov[1].iov_len, 2);
    check_int(run_get(&r, "k", 0, 10), 0);
    check_uint(r.op.got, 3);
    check_mem(r.op.buf, "abc", 3);
}

TEST(fault_store, a_head_that_lags_tells_of_another_object, .init = open_fault, .fini = close_fault)
{
    check_int(run_put(&r, "old", "older"), 0);
    check_int(run_put(&r, "k", "x"), 0);
    set((struct store_fault_rule){
        .kind = STORE_HEAD, .key_part = "k", .count = 1, .instead = "old"});
    check_uint(store_fault_acted(store), 0);
    check_int(run_head(&r, "k"), 0);
    check_uint(r.op.info.size, 5);
    check_uint(store_fault_acted(store), 1);
    check_int(run_head(&r, "k"), 0);
    check_uint(r.op.info.size, 1);
    check_uint(store_fault_acted(store), 1);
}
