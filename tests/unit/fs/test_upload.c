/*
 * Flushes: what goes to the store when, what happens when the store fails or somebody else has the
 * key, and what the data path does without being asked.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "data_lib.h"

#define KIB 1024u
#define PART (64 * KIB)

static struct data_test t;
static uint8_t bytes[1024 * KIB];

static void begin(void)
{
    data_begin(&t);
    random_seed(7);
    random_fill(bytes, sizeof(bytes));
}

static void end(void)
{
    data_end(&t);
}

static uint64_t seen(enum store_kind kind)
{
    return store_fault_seen(t.v.store, kind);
}

static struct data_stats stats_now(void)
{
    struct data_stats stats;
    data_stats(t.data, &stats);
    return stats;
}

static void write_pieces(struct data_handle *h, uint64_t offset, uint64_t end_offset)
{
    while (offset < end_offset) {
        uint64_t length = MIN(end_offset - offset, 16 * KIB);
        check_int(data_test_write(h, bytes + offset, offset, length), (int)length);
        offset += length;
    }
}

TEST(upload, a_new_file_is_sent_while_it_is_written, .init = begin, .fini = end)
{
    uint64_t ino;
    struct data_handle *h = data_test_create(&t, "stream", &ino);
    write_pieces(h, 0, 5 * PART + 100);
    eventually(seen(STORE_MPU_PART) == 5);
    data_test_check(&t, ino, bytes, 5 * PART + 100);
    check_int(data_test_flush(h), 0);
    check_uint(seen(STORE_MPU_CREATE), 1);
    check_uint(seen(STORE_MPU_PART), 6);
    check_uint(seen(STORE_PUT), 1); /* the volume's own mark */
    check(bucket_has(&t.v, "stream"));
    check_str(data_test_extents(&t, ino), "object 0+327780;");
    data_test_check_committed(&t, ino, bytes, 5 * PART + 100);
    check_uint(stats_now().staged_bytes, 0);
    data_file_release(h);
}

TEST(upload, a_part_that_was_written_again_is_sent_again, .init = begin, .fini = end)
{
    uint64_t ino;
    struct data_handle *h = data_test_create(&t, "stream", &ino);
    write_pieces(h, 0, 4 * PART);
    eventually(seen(STORE_MPU_PART) == 4);
    bytes[PART + 5] ^= 0xff;
    check_int(data_test_write(h, bytes + PART + 5, PART + 5, 1), 1);
    check_int(data_test_flush(h), 0);
    check_uint(seen(STORE_MPU_PART), 5);
    data_test_check_committed(&t, ino, bytes, 4 * PART);
    data_test_check(&t, ino, bytes, 4 * PART);
    data_file_release(h);
}

/* Parts go to the store from where the file's bytes lie. One that is changed on its way does not
 * fit its sum: the store refuses it, and it goes again from a copy. */
TEST(upload, a_part_that_is_written_on_its_way_is_sent_again, .init = begin, .fini = end)
{
    uint64_t ino;
    struct data_handle *h = data_test_create(&t, "stream", &ino);
    struct store_fault_rule slow = {.kind = STORE_MPU_PART, .delay_ms = 300};
    store_fault_set(t.v.store, &slow, 1);
    write_pieces(h, 0, 3 * PART);
    eventually(seen(STORE_MPU_PART) == 3);
    for (unsigned part = 0; part < 3; part++) {
        bytes[part * PART + 77] ^= 0xff;
        check_int(data_test_write(h, bytes + part * PART + 77, part * PART + 77, 1), 1);
    }
    eventually(seen(STORE_MPU_PART) >= 6);
    store_fault_set(t.v.store, NULL, 0);
    check_int(data_test_flush(h), 0);
    data_test_check_committed(&t, ino, bytes, 3 * PART);
    data_test_check(&t, ino, bytes, 3 * PART);
    check(bucket_has(&t.v, "stream"));
    data_file_release(h);
}

TEST(upload, a_flush_in_the_middle_ends_the_object, .init = begin, .fini = end)
{
    uint64_t ino;
    struct data_handle *h = data_test_create(&t, "stream", &ino);
    write_pieces(h, 0, 3 * PART + 10);
    check_int(data_test_flush(h), 0);
    data_test_check_committed(&t, ino, bytes, 3 * PART + 10);
    write_pieces(h, 3 * PART + 10, 6 * PART);
    check_int(data_test_flush(h), 0);
    data_test_check_committed(&t, ino, bytes, 6 * PART);
    check_str(data_test_extents(&t, ino), "object 0+196618;object 196618+196598;");
    data_file_release(h);
}

TEST(upload, a_stream_that_is_cut_begins_anew, .init = begin, .fini = end)
{
    uint64_t ino;
    struct data_handle *h = data_test_create(&t, "stream", &ino);
    write_pieces(h, 0, 4 * PART);
    eventually(seen(STORE_MPU_PART) >= 2);
    check_int(data_test_truncate(&t, ino, PART), 0);
    check_int(data_test_flush(h), 0);
    data_test_check_committed(&t, ino, bytes, PART);
    eventually(bucket_uploads(&t.v) == 0);
    data_file_release(h);
}

TEST(upload, a_stream_with_a_gap_is_packed, .init = begin, .fini = end)
{
    uint64_t ino;
    struct data_handle *h = data_test_create(&t, "stream", &ino);
    write_pieces(h, 0, 4 * PART);
    eventually(seen(STORE_MPU_PART) >= 2);
    check_int(data_test_write(h, "x", 8 * PART, 1), 1);
    memset(bytes + 4 * PART, 0, 4 * PART);
    bytes[8 * PART] = 'x';
    check_int(data_test_flush(h), 0);
    data_test_check_committed(&t, ino, bytes, 8 * PART + 1);
    eventually(bucket_uploads(&t.v) == 0);
    data_file_release(h);
}

TEST(upload, unlinking_ends_a_stream, .init = begin, .fini = end)
{
    uint64_t ino;
    struct data_handle *h = data_test_create(&t, "stream", &ino);
    write_pieces(h, 0, 4 * PART);
    eventually(seen(STORE_MPU_PART) >= 2);
    data_unlinked(t.data, ino);
    eventually(bucket_uploads(&t.v) == 0);
    data_test_check(&t, ino, bytes, 4 * PART);
    data_file_release(h);
    eventually(stats_now().open_files == 0);
    check_uint(stats_now().staged_bytes, 0);
    check(!bucket_has(&t.v, "stream"));
}

TEST(upload, a_key_that_is_taken_is_left_alone, .init = begin, .fini = end)
{
    uint64_t small, large;
    struct data_handle *s = data_test_create(&t, "small", &small);
    struct data_handle *l = data_test_create(&t, "large", &large);
    write_pieces(s, 0, 50 * KIB);
    write_pieces(l, 0, 4 * PART);
    bucket_put(&t.v, "small", "theirs");
    bucket_put(&t.v, "large", "theirs too");
    check_int(data_test_flush(s), 0);
    check_int(data_test_flush(l), 0);
    data_test_check_committed(&t, small, bytes, 50 * KIB);
    data_test_check_committed(&t, large, bytes, 4 * PART);
    cleanup(free_ptr) char *theirs = bucket_get(&t.v, "small");
    check_str(theirs, "theirs");
    cleanup(free_ptr) char *too = bucket_get(&t.v, "large");
    check_str(too, "theirs too");
    data_file_release(s);
    data_file_release(l);
}

TEST(upload, a_store_without_conditions_is_asked_before, .init = begin, .fini = end)
{
    uint64_t ino;
    struct store_caps caps = t.v.store->caps;
    t.v.store->caps.put_if_none_match = t.v.store->caps.complete_if_none_match = false;
    struct data_handle *h = data_test_create(&t, "f", &ino);
    write_pieces(h, 0, 50 * KIB);
    bucket_put(&t.v, "f", "theirs");
    check_int(data_test_flush(h), 0);
    data_test_check_committed(&t, ino, bytes, 50 * KIB);
    cleanup(free_ptr) char *theirs = bucket_get(&t.v, "f");
    check_str(theirs, "theirs");
    t.v.store->caps = caps;
    data_file_release(h);
}

/* Each request of an upload fails once; the data stays, and the next flush succeeds. */
static void fail_once(const char *name, enum store_kind kind, bool after, int result, uint64_t size)
{
    uint64_t ino;
    struct data_handle *h = data_test_create(&t, name, &ino);
    volume_fault(&t.v, (struct store_fault_rule){
                           .kind = (int)kind, .count = 1, .result = result, .after = after});
    write_pieces(h, 0, size);
    int rc = data_test_flush(h);
    /* What fails while the file is written is made good by the flush. */
    check(rc == (result == -ENOSPC ? -ENOSPC : -EIO) || rc == 0);
    data_test_check(&t, ino, bytes, size);
    volume_no_fault(&t.v);
    check_int(data_test_flush(h), 0);
    data_test_check(&t, ino, bytes, size);
    data_test_check_committed(&t, ino, bytes, size);
    data_file_release(h);
}

TEST(upload, a_failure_leaves_the_data_staged, .init = begin, .fini = end)
{
    fail_once("put", STORE_PUT, false, -EIO, 50 * KIB);
    fail_once("put-after", STORE_PUT, true, -EIO, 50 * KIB);
    fail_once("put-full", STORE_PUT, false, -ENOSPC, 50 * KIB);
    fail_once("put-denied", STORE_PUT, false, -EACCES, 50 * KIB);
    fail_once("create", STORE_MPU_CREATE, false, -EIO, 4 * PART);
    fail_once("part", STORE_MPU_PART, false, -EIO, 4 * PART);
    fail_once("complete", STORE_MPU_COMPLETE, false, -EIO, 4 * PART);
    fail_once("complete-after", STORE_MPU_COMPLETE, true, -EIO, 4 * PART);
    fail_once("part-late", STORE_MPU_PART, true, -ETIMEDOUT, 4 * PART);
    eventually(stats_now().dirty_files == 0);
}

TEST(upload, two_flushes_at_once_are_one, .init = begin, .fini = end)
{
    uint64_t ino;
    struct data_handle *h = data_test_create(&t, "f", &ino);
    volume_fault(&t.v, (struct store_fault_rule){.kind = STORE_PUT, .delay_ms = 50});
    write_pieces(h, 0, 50 * KIB);
    data_file_release(data_test_handle(&t, ino));
    struct data_handle *second = data_test_handle(&t, ino);
    uint64_t puts = seen(STORE_PUT);
    data_file_release(h); /* begins nothing: there is another writer */
    check_int(data_test_flush(second), 0);
    check_int(data_test_flush(second), 0);
    check_uint(seen(STORE_PUT), puts + 1);
    volume_no_fault(&t.v);
    data_file_release(second);
}

TEST(upload, closing_flushes_without_being_asked, .init = begin, .fini = end)
{
    uint64_t ino;
    struct data_handle *h = data_test_create(&t, "f", &ino);
    write_pieces(h, 0, 50 * KIB);
    data_file_release(h);
    eventually(stats_now().open_files == 0);
    data_test_check_committed(&t, ino, bytes, 50 * KIB);
}

TEST(upload, old_data_is_committed_without_being_asked)
{
    memset(&t, 0, sizeof(t));
    char dir[4096];
    test_dir_make(dir);
    data_begin_file(&t, dir);
    t.config.flush_age_ms = 20;
    data_test_open(&t);
    uint64_t ino;
    struct data_handle *h = data_test_create(&t, "f", &ino);
    write_pieces(h, 0, 50 * KIB);
    eventually(stats_now().dirty_files == 0);
    data_test_check_committed(&t, ino, bytes, 50 * KIB);
    check_int(data_test_truncate(&t, ino, 5), 0);
    eventually(stats_now().dirty_files == 0);
    data_test_check_committed(&t, ino, bytes, 5);
    data_file_release(h);
    data_end(&t);
}

TEST(upload, flushing_all_answers_when_all_are_committed, .init = begin, .fini = end)
{
    enum { FILES = 20 };
    struct data_handle *h[FILES];
    uint64_t ino[FILES];
    for (unsigned i = 0; i < FILES; i++) {
        char name[20];
        snprintf(name, sizeof(name), "f%u", i);
        h[i] = data_test_create(&t, name, &ino[i]);
        write_pieces(h[i], 0, 1 + i * 10 * KIB);
    }
    check_int(data_test_flush_all(&t), 0);
    for (unsigned i = 0; i < FILES; i++) {
        data_test_check_committed(&t, ino[i], bytes, 1 + i * 10 * KIB);
        data_file_release(h[i]);
    }
    check_int(data_test_flush_all(&t), 0);
}

static void begin_narrow(void)
{
    memset(&t, 0, sizeof(t));
    data_begin(&t);
    check_int(data_test_close(&t), 0);
    t.config.staging_max = 256 * KIB;
    data_test_open(&t);
    random_seed(7);
    random_fill(bytes, sizeof(bytes));
}

TEST(upload, writers_wait_for_room, .init = begin_narrow, .fini = end)
{
    uint64_t ino, other;
    struct data_handle *h = data_test_create(&t, "f", &ino);
    struct data_handle *o = data_test_create(&t, "g", &other);
    volume_fault(&t.v, (struct store_fault_rule){.kind = -1, .delay_ms = 3});
    for (uint64_t at = 0; at < sizeof(bytes); at += 128 * KIB) {
        write_pieces(h, at, at + 128 * KIB);
        write_pieces(o, at / 2, at / 2 + 64 * KIB);
    }
    check(stats_now().staged_bytes <= 256 * KIB + 16 * KIB);
    check_int(data_test_flush(h), 0);
    check_int(data_test_flush(o), 0);
    volume_no_fault(&t.v);
    data_test_check_committed(&t, ino, bytes, sizeof(bytes));
    data_test_check_committed(&t, other, bytes, sizeof(bytes) / 2);
    data_file_release(h);
    data_file_release(o);
}

TEST(upload, no_room_is_told_when_nothing_can_be_freed, .init = begin_narrow, .fini = end)
{
    uint64_t ino;
    struct data_handle *h = data_test_create(&t, "f", &ino);
    volume_fault(&t.v, (struct store_fault_rule){.kind = -1, .result = -EIO});
    uint64_t at = 0;
    int n;
    while ((n = data_test_write(h, bytes + at, at, 16 * KIB)) > 0)
        at += 16 * KIB;
    check_int(n, -ENOSPC);
    check(at >= 256 * KIB);
    volume_no_fault(&t.v);
    check_int(data_test_flush(h), 0);
    data_test_check_committed(&t, ino, bytes, at);
    check_int(data_test_write(h, bytes + at, at, 16 * KIB), 16 * KIB);
    data_file_release(h);
}

TEST(upload, what_could_not_be_uploaded_stays_for_the_next_mount)
{
    char dir[4096];
    test_dir_make(dir);
    random_seed(9);
    random_fill(bytes, sizeof(bytes));
    data_begin_file(&t, dir);
    struct store *file = t.v.store;
    check_int(store_fault_new(file, &t.v.store), 0);
    t.v.config.store = t.v.store;
    data_test_open(&t);
    uint64_t small, large, gone;
    struct data_handle *s = data_test_create(&t, "small", &small);
    struct data_handle *l = data_test_create(&t, "large", &large);
    struct data_handle *g = data_test_create(&t, "gone", &gone);
    write_pieces(s, 0, 50 * KIB);
    write_pieces(l, 0, 4 * PART);
    write_pieces(g, 0, 70 * KIB);
    data_file_release(g);
    eventually(stats_now().dirty_files == 2);
    volume_fault(&t.v, (struct store_fault_rule){.kind = -1, .result = -EIO});
    data_file_release(s);
    data_file_release(l);
    check_int(data_close(TAKE_PTR(t.data)), -EIO);
    volume_no_fault(&t.v);
    metrics_free(TAKE_PTR(t.metrics));
    volume_close(&t.v);
    data_test_open(&t);
    check_uint(stats_now().dirty_files, 0);
    check_uint(t.changed, 2);
    data_test_check_committed(&t, small, bytes, 50 * KIB);
    data_test_check_committed(&t, large, bytes, 4 * PART);
    data_end(&t);
}
