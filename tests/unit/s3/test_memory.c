#include <errno.h>

#include "base/hash.h"
#include "conformance.h"
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
    store->caps.part_min = 8;
    r = (struct run){.store = store, .caps = store_caps(store), .prefix = ""};
}

static void close_memory(void)
{
    run_end(&r);
    store_free(store);
    loop_free(loop);
}

TEST(memory_store, conforms, .init = open_memory, .fini = close_memory)
{
    struct conformance_result result = conformance_run(store, "c/", NULL, false, stdout);
    check_uint(result.failed, 0);
    check_uint(result.different, 1); /* it may have `a` beside `a/b` */
    check(result.passed >= 70);
}

static void md5_hex(const void *data, size_t len, char out[33])
{
    uint8_t md5[16];
    hash_md5(data, len, md5);
    hash_hex(md5, sizeof(md5), out);
}

TEST(memory_store, etag_is_the_md5, .init = open_memory, .fini = close_memory)
{
    check_int(run_put(&r, "k", "hello"), 0);
    check_str(r.op.info.etag, "5d41402abc4b2a76b9719d911017c592");
    check_int(run_copy(&r, "k", "copy"), 0);
    check_str(r.op.info.etag, "5d41402abc4b2a76b9719d911017c592");
}

TEST(memory_store, etag_of_an_upload_is_the_md5_of_md5s, .init = open_memory, .fini = close_memory)
{
    struct store_part parts[2];
    uint8_t sums[32];
    char expected[40];
    const char *id = run_create(&r, "k");
    check_int(run_part(&r, "k", id, 1, "12345678", 8, &parts[0]), 0);
    check_int(run_part(&r, "k", id, 2, "9", 1, &parts[1]), 0);
    md5_hex("9", 1, expected);
    check_str(parts[1].etag, expected);
    check_int(run_complete(&r, "k", id, parts, 2), 0);
    hash_md5("12345678", 8, sums);
    hash_md5("9", 1, sums + 16);
    md5_hex(sums, 32, expected);
    strcat(expected, "-2");
    check_str(r.op.info.etag, expected);
}

TEST(memory_store, too_small_part_names_its_code, .init = open_memory, .fini = close_memory)
{
    struct store_part parts[2];
    const char *id = run_create(&r, "k");
    check_int(run_part(&r, "k", id, 1, "1234567", 7, &parts[0]), 0);
    check_int(run_part(&r, "k", id, 2, "8", 1, &parts[1]), 0);
    check_int(run_complete(&r, "k", id, parts, 2), -EINVAL);
    check_str(r.op.error.store_code, "EntityTooSmall");
    check_int(r.op.error.http_status, 400);
}

TEST(memory_store, wrong_token_is_refused, .init = open_memory, .fini = close_memory)
{
    run_begin(&r, STORE_LIST, NULL)->token = "x";
    check_int(run_do(&r), -EINVAL);
}

TEST(memory_store, conditions_have_their_status, .init = open_memory, .fini = close_memory)
{
    check_int(run_put(&r, "k", "x"), 0);
    run_begin(&r, STORE_PUT, "k")->if_none_match = true;
    check_int(run_do(&r), -EEXIST);
    check_int(r.op.error.http_status, 412);
    check_str(r.op.error.store_code, "PreconditionFailed");
}
