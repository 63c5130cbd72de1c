/* What is referenced by nothing is deleted, and nothing else. */
#include <errno.h>

#include "base/cleanup.h"
#include "late_store.h"
#include "volume_lib.h"

static struct volume v;

static void init(void)
{
    volume_begin(&v);
}

static void fini(void)
{
    volume_end(&v);
}

static bool status_has(const char *text)
{
    cleanup(free_ptr) char *status = volume_status(&v);
    return strstr(status, text) != NULL;
}

static bool nothing_left(void)
{
    return status_has("\"garbage_objects\":0");
}

TEST(gc, deletes_what_was_unlinked, .init = init, .fini = fini)
{
    bucket_put(&v, "foreign", "1");
    volume_open(&v);
    file_inline(&v, META_ROOT_INO, "settled", "22");
    file_object(&v, META_ROOT_INO, "natural", "333", 3, false);
    file_object(&v, META_ROOT_INO, "internal", "333", 3, true);
    name_ino(&v, META_ROOT_INO, "foreign");
    check_int(volume_settle(&v, META_ROOT_INO, NULL), 0);
    static const char *const names[] = {"foreign", "settled", "natural", "internal"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        check(bucket_has(&v, names[i]));
        check_int(name_unlink(&v, META_ROOT_INO, names[i]), 0);
    }
    eventually(bucket_count(&v, "") == 1); /* the owner's record */
    eventually(nothing_left());
}

TEST(gc, internal_objects_go_in_batches, .init = init, .fini = fini)
{
    v.config.no_settle = true;
    volume_open(&v);
    char name[16];
    for (int i = 0; i < 50; i++) {
        snprintf(name, sizeof(name), "f%d", i);
        file_object(&v, META_ROOT_INO, name, "x", 1, true);
        check_int(name_unlink(&v, META_ROOT_INO, name), 0);
    }
    check_uint(bucket_count(&v, ".sluice/o/"), 50);
    v.config.no_settle = false;
    uint64_t singles = store_fault_seen(v.store, STORE_DELETE);
    volume_again(&v);
    eventually(bucket_count(&v, ".sluice/o/") == 0);
    check_uint(store_fault_seen(v.store, STORE_DELETE), singles);
}

TEST(gc, what_is_referenced_stays, .init = init, .fini = fini)
{
    volume_open(&v);
    uint64_t one = file_object(&v, META_ROOT_INO, "one", "shared", 6, true), two;
    check_int(name_create(&v, META_ROOT_INO, "two", &two), 0);
    struct meta_request clone = {
        .op = {.kind = META_CLONE, .ino = one, .length = 6, .new_ino = two}};
    check_int(meta_call(v.meta, &clone), 0);
    meta_reply_done(&clone.reply);
    check_int(name_unlink(&v, META_ROOT_INO, "one"), 0);
    check_int(volume_settle(&v, META_ROOT_INO, NULL), 0);
    eventually(nothing_left());
    cleanup(free_ptr) char *text = file_read(&v, two, NULL);
    check_str(text, "shared");
}

/* I1: the key was written by somebody else meanwhile. */
TEST(gc, foreign_object_that_changed_stays, .init = init, .fini = fini)
{
    v.config.no_settle = true;
    bucket_put(&v, "a", "first");
    bucket_put(&v, "same", "first");
    volume_open(&v);
    name_ino(&v, META_ROOT_INO, "a");
    name_ino(&v, META_ROOT_INO, "same");
    check_int(name_unlink(&v, META_ROOT_INO, "a"), 0);
    check_int(name_unlink(&v, META_ROOT_INO, "same"), 0);
    bucket_put(&v, "a", "others");
    v.config.no_settle = false;
    volume_again(&v);
    eventually(nothing_left());
    check(bucket_has(&v, "a"));
    check(!bucket_has(&v, "same"));
    check(status_has("\"left_to_others\":1"));
    /* And it is a file again. */
    check_int(volume_refresh_now(&v, META_ROOT_INO), 0);
    cleanup(free_ptr) char *text = file_read(&v, name_ino(&v, META_ROOT_INO, "a"), NULL);
    check_str(text, "others");
}

TEST(gc, own_key_that_others_wrote_stays, .init = init, .fini = fini)
{
    v.config.no_settle = true;
    volume_open(&v);
    file_inline(&v, META_ROOT_INO, "a", "mine");
    check_int(volume_settle(&v, META_ROOT_INO, NULL), 0);
    check_int(name_unlink(&v, META_ROOT_INO, "a"), 0);
    bucket_put(&v, "a", "mine"); /* the same bytes, but without our tags */
    v.config.no_settle = false;
    volume_again(&v);
    eventually(nothing_left());
    check(bucket_has(&v, "a"));
}

/* It changes between the look and the delete: the condition keeps it. */
TEST(gc, delete_is_conditional, .init = init, .fini = fini)
{
    v.config.no_settle = true;
    bucket_put(&v, "a", "first");
    volume_open(&v);
    name_ino(&v, META_ROOT_INO, "a");
    check_int(name_unlink(&v, META_ROOT_INO, "a"), 0);
    volume_close(&v);
    v.config.no_settle = false;
    late_store_hold_requests(v.late, STORE_DELETE);
    volume_open(&v);
    eventually(late_store_held(v.late) == 1);
    bucket_put(&v, "a", "others");
    late_store_release(v.late);
    eventually(status_has("\"failed\":1"));
    check(bucket_has(&v, "a"));
}

TEST(gc, waits_for_readers, .init = init, .fini = fini)
{
    v.format.gc_delay_ms = 3600 * 1000;
    volume_open(&v);
    file_object(&v, META_ROOT_INO, "a", "x", 1, false);
    check_int(name_unlink(&v, META_ROOT_INO, "a"), 0);
    check_int(volume_settle(&v, META_ROOT_INO, NULL), 0);
    check(bucket_has(&v, "a"));
    check(status_has("\"garbage_objects\":1"));
}

TEST(gc, failed_delete_is_told, .init = init, .fini = fini)
{
    volume_open(&v);
    volume_fault(&v, (struct store_fault_rule){.kind = STORE_DELETE_MANY, .result = -EACCES});
    file_object(&v, META_ROOT_INO, "_temporary", "x", 1, true);
    check_int(name_unlink(&v, META_ROOT_INO, "_temporary"), 0);
    eventually(status_has("\"failed\":1"));
    check_uint(bucket_count(&v, ".sluice/o/"), 1);
}

/* I4: what a crash left reserved. */
static uint64_t reserve(bool internal, struct meta_object *out)
{
    uint64_t ino;
    check_int(name_create(&v, META_ROOT_INO, internal ? "i" : "n", &ino), 0);
    struct meta_request request = {
        .op = {.kind = META_RESERVE, .ino = ino, .flags = internal ? META_INTERNAL_KEY : 0},
        .durable = true};
    check_int(meta_call(v.meta, &request), 0);
    *out = request.reply.objects[0];
    meta_reply_done(&request.reply);
    return ino;
}

TEST(gc, reserved_objects_of_a_crash_are_cleared, .init = init, .fini = fini)
{
    v.config.no_settle = true;
    volume_open(&v);
    struct meta_object internal, natural;
    reserve(true, &internal);
    reserve(false, &natural);
    check_str(natural.key, "n");
    bucket_put_tagged(&v, v.store, &internal, "left");
    bucket_put_tagged(&v, v.store, &natural, "left");
    /* All uploads at the key go; one at a key that begins alike is somebody else's. */
    const char *const uploads[] = {natural.key, "nn", natural.key, natural.key};
    for (size_t i = 0; i < ARRAY_LEN(uploads); i++) {
        struct store_op create = {.kind = STORE_MPU_CREATE, .key = uploads[i]};
        check_int(store_wait(v.store, &create), 0);
        store_op_reset(&create);
    }
    v.config.no_settle = false;
    volume_again(&v);
    eventually(!bucket_has(&v, internal.key));
    eventually(nothing_left());
    check_uint(bucket_uploads(&v), 1);
    /* The key is the file's again. */
    check_int(file_write_inline(&v, name_ino(&v, META_ROOT_INO, "n"), "new"), 0);
    check_int(volume_settle(&v, META_ROOT_INO, NULL), 0);
    cleanup(free_ptr) char *text = bucket_get(&v, "n");
    check_str(text, "new");
}

TEST(gc, foreign_object_at_a_reserved_key_stays, .init = init, .fini = fini)
{
    v.config.no_settle = true;
    volume_open(&v);
    struct meta_object natural;
    reserve(false, &natural);
    bucket_put(&v, natural.key, "somebody's");
    v.config.no_settle = false;
    volume_again(&v);
    eventually(nothing_left());
    check(bucket_has(&v, natural.key));
}

TEST(gc, sustained_files_of_a_crash_are_dropped, .init = init, .fini = fini)
{
    v.config.no_settle = true;
    volume_open(&v);
    file_object(&v, META_ROOT_INO, "a", "x", 1, true);
    struct meta_request unlink = {
        .op = {.kind = META_UNLINK, .parent = META_ROOT_INO, .name = {"a", 1}}, .durable = true};
    check_int(meta_call(v.meta, &unlink), 0);
    meta_reply_done(&unlink.reply);
    check_uint(bucket_count(&v, ".sluice/o/"), 1);
    v.config.no_settle = false;
    volume_again(&v);
    eventually(bucket_count(&v, ".sluice/o/") == 0);
}

/* Equal bytes have equal ETags: a condition cannot tell the new object from the old one. */
TEST(gc, same_bytes_written_again_stay, .init = init, .fini = fini)
{
    v.config.no_settle = true;
    volume_open(&v);
    file_inline(&v, META_ROOT_INO, "a", "same");
    check_int(volume_settle(&v, META_ROOT_INO, NULL), 0);
    volume_close(&v);
    v.config.no_settle = false;
    volume_open(&v);
    late_store_hold_requests(v.late, STORE_DELETE);
    check_int(name_unlink(&v, META_ROOT_INO, "a"), 0);
    eventually(late_store_held(v.late) == 1);
    uint64_t ino = file_inline(&v, META_ROOT_INO, "a", "same");
    sleep_ms(200); /* for settle, were it not to wait */
    late_store_release(v.late);
    eventually(status_has("\"gc\":{\"running\":0"));
    check_int(volume_settle(&v, META_ROOT_INO, NULL), 0);
    eventually(nothing_left());
    cleanup(free_ptr) char *text = file_read(&v, ino, NULL);
    check_str(text, "same");
    check(bucket_has(&v, "a"));
}
