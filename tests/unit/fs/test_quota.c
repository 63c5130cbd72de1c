/* Quotas and written bytes: refused when they are accepted, never lost when they are committed. */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <pthread.h>

#include "data_lib.h"

#define KIB 1024u

static struct data_test t;

static void begin(void)
{
    data_begin(&t);
}

static void end(void)
{
    data_end(&t);
}

static void set_limit(uint64_t bytes)
{
    struct meta_request request = {.op = {.kind = META_QUOTA_SET,
                                          .ino = META_ROOT_INO,
                                          .valid = META_QUOTA_BYTES,
                                          .offset = bytes}};
    bool first = !meta_quota_active(t.v.meta);
    check_int(meta_call(t.v.meta, &request), 0);
    meta_reply_done(&request.reply);
    if (first)
        check_int(data_quota_begin(t.data), 0);
}

static struct meta_quota quota_now(void)
{
    struct meta_request request = {.op = {.kind = META_QUOTA, .ino = META_ROOT_INO}};
    struct meta_quota out = {0};
    check_int(meta_call(t.v.meta, &request), 0);
    check_uint(request.reply.quota_count, 1);
    if (request.reply.quota_count)
        out = request.reply.quotas[0];
    meta_reply_done(&request.reply);
    return out;
}

TEST(quota, writes_are_refused_at_the_byte_and_nothing_is_lost, .init = begin, .fini = end)
{
    static uint8_t bytes[100 * KIB];
    uint64_t a, b;
    random_fill(bytes, sizeof(bytes));
    set_limit(150 * KIB);
    struct data_handle *ha = data_test_create(&t, "a", &a), *hb = data_test_create(&t, "b", &b);
    check_int(data_test_write(ha, bytes, 0, 100 * KIB), 100 * KIB);
    check_uint(quota_now().reserved_bytes, 100 * KIB);
    check_int(data_test_write(hb, bytes, 0, 50 * KIB + 1), -EDQUOT);
    check_int(data_test_write(hb, bytes, 0, 50 * KIB), 50 * KIB);
    check_int(data_test_append(ha, "x", 1), -EDQUOT);
    /* What does not grow is no matter of quotas. */
    check_int(data_test_write(ha, "y", 0, 1), 1);
    bytes[0] = 'y';
    check_int(data_test_truncate(&t, b, 50 * KIB + 1), -EDQUOT);
    check_int(data_test_fallocate(hb, 0, 0, 50 * KIB + 1), -EDQUOT);
    check_int(data_test_fallocate(hb, FALLOC_FL_KEEP_SIZE, 0, 500 * KIB), 0);
    check_int(data_test_flush(ha), 0);
    check_int(data_test_flush(hb), 0);
    check_uint(quota_now().reserved_bytes, 0);
    check_uint(quota_now().usage.bytes, 150 * KIB);
    data_test_check_committed(&t, a, bytes, 100 * KIB);
    check_int(data_test_append(hb, "x", 1), -EDQUOT);
    check_int(data_test_truncate(&t, a, 100 * KIB - 1), 0);
    check_int(data_test_append(hb, "x", 1), -EDQUOT); /* the cut is not committed yet */
    check_int(data_test_flush(ha), 0);
    check_int(data_test_append(hb, "x", 1), 1);
    data_file_release(ha);
    data_file_release(hb);
}

TEST(quota, what_was_taken_back_is_free_again, .init = begin, .fini = end)
{
    static uint8_t bytes[64 * KIB];
    uint64_t a, b;
    set_limit(64 * KIB);
    struct data_handle *ha = data_test_create(&t, "a", &a), *hb = data_test_create(&t, "b", &b);
    check_int(data_test_write(ha, bytes, 0, 40 * KIB), 40 * KIB);
    check_int(data_test_truncate(&t, a, 10 * KIB), 0);
    check_uint(quota_now().reserved_bytes, 10 * KIB);
    check_int(data_test_write(hb, bytes, 0, 54 * KIB), 54 * KIB);
    data_file_release(ha);
    data_file_release(hb);
    check_int(data_test_flush_all(&t), 0);
    eventually(quota_now().reserved_bytes == 0);
    check_uint(quota_now().usage.bytes, 64 * KIB);
}

TEST(quota, a_new_quota_counts_what_was_written_before, .init = begin, .fini = end)
{
    static uint8_t bytes[64 * KIB];
    uint64_t a, b;
    struct data_handle *ha = data_test_create(&t, "a", &a), *hb = data_test_create(&t, "b", &b);
    check_int(data_test_write(ha, bytes, 0, 40 * KIB), 40 * KIB);
    set_limit(50 * KIB);
    check_uint(quota_now().reserved_bytes, 40 * KIB);
    check_int(data_test_write(hb, bytes, 0, 10 * KIB + 1), -EDQUOT);
    check_int(data_test_write(hb, bytes, 0, 10 * KIB), 10 * KIB);
    /* Below what is there: the accepted bytes are committed all the same. */
    set_limit(1);
    check_int(data_test_flush(ha), 0);
    check_int(data_test_flush(hb), 0);
    check_uint(quota_now().usage.bytes, 50 * KIB);
    data_file_release(ha);
    data_file_release(hb);
}

TEST(quota, bytes_of_an_unlinked_file_do_not_count, .init = begin, .fini = end)
{
    static uint8_t bytes[64 * KIB];
    uint64_t a;
    set_limit(64 * KIB);
    struct data_handle *ha = data_test_create(&t, "a", &a);
    check_int(data_test_write(ha, bytes, 0, 40 * KIB), 40 * KIB);
    struct meta_request request = {
        .op = {.kind = META_UNLINK, .parent = META_ROOT_INO, .name = {.bytes = "a", .len = 1}}};
    check_int(meta_call(t.v.meta, &request), 0);
    meta_reply_done(&request.reply);
    data_unlinked(t.data, a);
    check_uint(quota_now().reserved_bytes, 0);
    check_int(data_test_write(ha, bytes, 40 * KIB, 64 * KIB), 64 * KIB);
    check_uint(quota_now().reserved_bytes, 0);
    data_file_release(ha);
}

struct writer {
    struct data_handle *handle;
    uint64_t ino, wrote;
};

static void *fill(void *arg)
{
    static const uint8_t bytes[3000];
    struct writer *w = arg;
    for (uint64_t step = sizeof(bytes); step > 0; step = step == 1 ? 0 : 1) {
        int rc;
        while ((rc = data_test_append(w->handle, bytes, step)) == (int)step) {
            w->wrote += step;
            if (w->wrote % 7 == 0)
                check_int(data_test_flush(w->handle), 0);
        }
        check_int(rc, -EDQUOT);
    }
    return NULL;
}

/* Writers and flushes beside each other fill a directory to the last byte, and no further. */
TEST(quota, is_exact_with_many_writers, .init = begin, .fini = end)
{
    enum { WRITERS = 3 };
    struct writer writers[WRITERS];
    pthread_t threads[WRITERS];
    const uint64_t limit = 200 * KIB + 1;
    set_limit(limit);
    for (int i = 0; i < WRITERS; i++) {
        char name[8];
        snprintf(name, sizeof(name), "f%d", i);
        writers[i] = (struct writer){.handle = data_test_create(&t, name, &writers[i].ino)};
    }
    for (int i = 0; i < WRITERS; i++)
        check_int(pthread_create(&threads[i], NULL, fill, &writers[i]), 0);
    uint64_t sum = 0;
    for (int i = 0; i < WRITERS; i++) {
        pthread_join(threads[i], NULL);
        check_int(data_test_flush(writers[i].handle), 0);
        data_file_release(writers[i].handle);
        sum += writers[i].wrote;
    }
    check_uint(sum, limit);
    eventually(quota_now().reserved_bytes == 0);
    check_uint(quota_now().usage.bytes, limit);
}
