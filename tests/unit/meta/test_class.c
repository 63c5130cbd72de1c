/* Objects get the storage class of their directory where they are: nothing else changes. */
#include <errno.h>

#include "base/cleanup.h"
#include "late_store.h"
#include "meta/check.h"
#include "meta/stores.h"
#include "volume_lib.h"

#define COLD "STANDARD_IA"
#define BIG_SIZE (600u << 10) /* copied by the store: its ETag is another one then */

static struct volume v;
static char big[BIG_SIZE];

static void init(void)
{
    for (size_t i = 0; i < sizeof(big); i++)
        big[i] = (char)('a' + i % 26 + i / 1000 % 3);
    volume_begin(&v);
}

static void fini(void)
{
    volume_end(&v);
}

static void rule(uint64_t dir, const char *class, uint64_t after_s)
{
    struct error error = {0};
    int rc = meta_migrate(v.meta, dir, META_MIGRATE_TO, NULL, class, after_s, &error);
    if (rc)
        test_fail("rule: %d %s", rc, error.message);
}

static void class_is(const char *key, const char *class)
{
    struct store_op head = {.kind = STORE_HEAD, .key = key};
    check_int(store_wait(v.store, &head), 0);
    check_str(head.info.storage_class, class);
    store_op_reset(&head);
}

static void object_of(uint64_t ino, struct meta_object *out)
{
    struct meta_request request = {.op = {.kind = META_EXTENTS, .ino = ino, .length = UINT64_MAX}};
    check_int(meta_call(v.meta, &request), 0);
    check_uint(request.reply.object_count, 1);
    *out = request.reply.objects[0];
    meta_reply_done(&request.reply);
}

static void file_is(uint64_t ino, const char *data, size_t len)
{
    size_t got = 0;
    cleanup(free_ptr) char *text = file_read(&v, ino, &got);
    if (!text || got != len || memcmp(text, data, len) != 0)
        test_fail("file %llu is not what was written", (unsigned long long)ino);
}

static void settle(void)
{
    struct error error = {0};
    int rc = volume_settle(&v, META_ROOT_INO, &error);
    if (rc)
        test_fail("settle: %d %s", rc, error.message);
}

/* Whoever waits is told what failed meanwhile, and it is tried again. */
static void settle_at_last(void)
{
    eventually(volume_settle(&v, META_ROOT_INO, NULL) == 0);
}

static bool is_clean(void)
{
    cleanup(free_ptr) char *status = volume_status(&v);
    return strstr(status, "\"garbage_objects\":0") != NULL;
}

/* A settled file of many bytes in `dir`. */
static uint64_t make_big(const char *dir, uint64_t *dir_ino, struct meta_object *object)
{
    check_int(name_mkdir(&v, META_ROOT_INO, dir, dir_ino), 0);
    uint64_t ino = file_object(&v, *dir_ino, "big", big, sizeof(big), false);
    settle();
    object_of(ino, object);
    return ino;
}

TEST(class, is_given_where_the_object_is, .init = init, .fini = fini)
{
    struct meta_object before, after;
    uint64_t dir, other;
    bucket_put(&v, "data/theirs", "foreign");
    bucket_put(&v, "beside", "foreign");
    volume_open(&v);
    dir = name_ino(&v, META_ROOT_INO, "data");
    uint64_t ino = file_object(&v, dir, "big", big, sizeof(big), false);
    uint64_t small = file_inline(&v, dir, "small", "few"), empty;
    check_int(name_create(&v, dir, "empty", &empty), 0);
    uint64_t theirs = name_ino(&v, dir, "theirs");
    name_ino(&v, META_ROOT_INO, "beside");
    check_int(name_mkdir(&v, META_ROOT_INO, "other", &other), 0);
    file_inline(&v, other, "file", "x");
    settle();
    object_of(ino, &before);
    rule(dir, COLD, 0);
    settle();
    static const char *const keys[] = {"data/big", "data/small", "data/empty", "data/theirs"};
    for (size_t i = 0; i < ARRAY_LEN(keys); i++)
        class_is(keys[i], COLD);
    class_is("beside", "STANDARD");
    class_is("other/file", "STANDARD");
    object_of(ino, &after);
    check_uint(after.id, before.id);
    check_uint(after.cid, before.cid);
    check(strcmp(after.etag, before.etag) != 0);
    file_is(ino, big, sizeof(big));
    file_is(small, "few", 3);
    file_is(theirs, "foreign", 7);
    eventually(is_clean());
    check_uint(bucket_uploads(&v), 0);
    /* Once: what has it is left alone. */
    volume_again(&v);
    uint64_t puts = store_fault_seen(v.store, STORE_PUT);
    uint64_t uploads = store_fault_seen(v.store, STORE_MPU_CREATE);
    rule(dir, COLD, 0);
    settle();
    check_uint(store_fault_seen(v.store, STORE_PUT), puts);
    check_uint(store_fault_seen(v.store, STORE_MPU_CREATE), uploads);
    /* It is ours like any other: deleted, and gone. */
    check_int(name_unlink(&v, dir, "theirs"), 0);
    check_int(name_unlink(&v, dir, "big"), 0);
    eventually(!bucket_has(&v, "data/theirs") && !bucket_has(&v, "data/big"));
}

TEST(class, new_files_are_written_with_it, .init = init, .fini = fini)
{
    uint64_t dir;
    volume_open(&v);
    check_int(name_mkdir(&v, META_ROOT_INO, "data", &dir), 0);
    rule(dir, COLD, 0);
    settle();
    uint64_t puts = store_fault_seen(v.store, STORE_PUT);
    file_inline(&v, dir, "small", "few");
    settle();
    class_is("data/small", COLD);
    check_uint(store_fault_seen(v.store, STORE_PUT), puts + 1);
}

TEST(class, by_age_paused_and_cancelled, .init = init, .fini = fini)
{
    struct error error = {0};
    uint64_t dir;
    volume_open(&v);
    check_int(name_mkdir(&v, META_ROOT_INO, "data", &dir), 0);
    uint64_t old = file_inline(&v, dir, "old", "1"), later = file_inline(&v, dir, "later", "2");
    file_inline(&v, dir, "young", "3");
    settle();
    file_set_mtime(&v, old, 1000000000);
    rule(dir, COLD, 86400);
    settle();
    class_is("data/old", COLD);
    class_is("data/later", "STANDARD");
    check_int(meta_migrate(v.meta, dir, META_MIGRATE_PAUSE, NULL, NULL, 0, &error), 0);
    file_set_mtime(&v, later, 1000000000);
    settle();
    class_is("data/later", "STANDARD");
    volume_again(&v);
    check_int(meta_migrate(v.meta, dir, META_MIGRATE_RESUME, NULL, NULL, 0, &error), 0);
    settle();
    class_is("data/later", COLD);
    class_is("data/young", "STANDARD");
    check_int(meta_migrate(v.meta, dir, META_MIGRATE_CANCEL, NULL, NULL, 0, &error), 0);
    settle();
    class_is("data/old", COLD);
}

TEST(class, bad_rules_are_refused, .init = init, .fini = fini)
{
    static const char *const bad[] = {"", "standard", "A B",
                                      "A_NAME_OF_MORE_THAN_THIRTY_ONE_BYTES"};
    struct error error = {0};
    volume_open(&v);
    uint64_t file = file_inline(&v, META_ROOT_INO, "file", "x");
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        check_int(meta_migrate(v.meta, META_ROOT_INO, META_MIGRATE_TO, NULL, bad[i], 0, &error),
                  -EINVAL);
    check_int(meta_migrate(v.meta, file, META_MIGRATE_TO, NULL, COLD, 0, &error), -ENOTDIR);
}

static void count_finding(void *arg, const struct check_finding *finding)
{
    ++*(unsigned *)arg;
}

static unsigned findings(void)
{
    unsigned count = 0;
    struct check_config config = {
        .engine = meta_engine(v.meta), .store = v.store, .report = count_finding, .arg = &count};
    struct check_counts counts;
    check_int(meta_check_bucket(&config, &counts, NULL), 0);
    return count;
}

/* The object is replaced, and that is not recorded yet: who reads, lists or checks meanwhile finds
 * the copy, and knows it. */
TEST(class, readers_know_the_copy, .init = init, .fini = fini)
{
    struct meta_object before, after;
    uint64_t dir;
    volume_open(&v);
    uint64_t ino = make_big("data", &dir, &before);
    late_store_hold_answers(v.late, STORE_MPU_COMPLETE);
    rule(dir, COLD, 0);
    eventually(late_store_held(v.late) == 1);
    class_is("data/big", COLD);
    unsigned found = findings();
    check_int(volume_refresh_now(&v, META_ROOT_INO), 0);
    check_int(volume_refresh_now(&v, dir), 0);
    check_int(volume_refresh_now(&v, ino), 0);
    object_of(ino, &after);
    check_uint(after.id, before.id);
    check_str(after.etag, before.etag);
    check(!file_read(&v, ino, NULL)); /* its reader asks … */
    check_int(volume_object_changed(&v, ino, before.id), 0);
    file_is(ino, big, sizeof(big)); /* … and has it */
    late_store_release(v.late);
    settle();
    check_uint(found, 0);
    check_uint(findings(), 0);
    object_of(ino, &after);
    check_uint(after.id, before.id);
    check_uint(name_ino(&v, dir, "big"), ino);
    eventually(is_clean());
}

/* "data/big" is about to be replaced; its directory. */
static uint64_t hold_replacement(void)
{
    struct meta_object before;
    uint64_t dir;
    volume_open(&v);
    make_big("data", &dir, &before);
    late_store_hold_requests(v.late, STORE_MPU_COMPLETE);
    rule(dir, COLD, 0);
    eventually(late_store_held(v.late) == 1);
    return dir;
}

TEST(class, others_write_it_first, .init = init, .fini = fini)
{
    uint64_t dir = hold_replacement();
    bucket_put(&v, "data/big", "theirs");
    late_store_release(v.late);
    settle_at_last();
    cleanup(free_ptr) char *text = bucket_get(&v, "data/big");
    check_str(text, "theirs");
    int rc;
    cleanup(free_ptr) char *names = name_list(&v, dir, &rc);
    check_str(names, "big"); /* nothing was changed here: it follows, there is no conflict */
    file_is(name_ino(&v, dir, "big"), "theirs", 6);
    class_is("data/big", COLD); /* and gets it like any other */
    eventually(is_clean());
    check_uint(bucket_uploads(&v), 0);
}

TEST(class, others_delete_it_first, .init = init, .fini = fini)
{
    uint64_t dir = hold_replacement();
    bucket_delete(&v, "data/big");
    late_store_release(v.late);
    settle_at_last();
    check(!bucket_has(&v, "data/big"));
    check_int(name_lookup(&v, dir, "big", NULL), -ENOENT);
    eventually(is_clean());
    check_uint(bucket_uploads(&v), 0);
}

/* Whatever else uses the object is not concerned: it stays the same one. */
TEST(class, shared_and_renamed_meanwhile, .init = init, .fini = fini)
{
    struct meta_object before;
    uint64_t dir, two;
    volume_open(&v);
    uint64_t ino = make_big("data", &dir, &before);
    late_store_hold_answers(v.late, STORE_MPU_COMPLETE);
    rule(dir, COLD, 0);
    eventually(late_store_held(v.late) == 1);
    check_int(name_create(&v, META_ROOT_INO, "two", &two), 0);
    struct meta_request clone = {
        .op = {.kind = META_CLONE, .ino = ino, .length = sizeof(big), .new_ino = two}};
    check_int(meta_call(v.meta, &clone), 0);
    meta_reply_done(&clone.reply);
    check_int(name_rename(&v, dir, "big", META_ROOT_INO, "moved"), 0);
    late_store_release(v.late);
    /* What is copied from it finds the copy in its place, and comes again. */
    settle_at_last();
    file_is(ino, big, sizeof(big));
    file_is(two, big, sizeof(big));
    check(bucket_has(&v, "moved") && bucket_has(&v, "two"));
    eventually(is_clean());
    check(!bucket_has(&v, "data/big"));
}

/* What an earlier change has left in the object's tags says nothing of this one, tried again. */
TEST(class, a_second_change_fails_at_first, .init = init, .fini = fini)
{
    struct meta_object before;
    uint64_t dir;
    volume_open(&v);
    uint64_t ino = make_big("data", &dir, &before);
    rule(dir, COLD, 0);
    settle();
    volume_fault(&v,
                 (struct store_fault_rule){.kind = STORE_MPU_COMPLETE, .count = 1, .result = -EIO});
    rule(dir, "STANDARD", 0);
    settle_at_last();
    class_is("data/big", "STANDARD");
    file_is(ino, big, sizeof(big));
    eventually(is_clean());
    check_uint(bucket_uploads(&v), 0);
}

/* The store has done it, and said it has not. */
TEST(class, a_lost_reply, .init = init, .fini = fini)
{
    struct meta_object before, after;
    uint64_t dir;
    volume_open(&v);
    uint64_t ino = make_big("data", &dir, &before);
    volume_fault(&v, (struct store_fault_rule){
                         .kind = STORE_MPU_COMPLETE, .count = 1, .result = -EIO, .after = true});
    rule(dir, COLD, 0);
    settle_at_last();
    class_is("data/big", COLD);
    object_of(ino, &after);
    check_uint(after.id, before.id);
    file_is(ino, big, sizeof(big));
    eventually(is_clean());
    check_uint(bucket_uploads(&v), 0);
}
