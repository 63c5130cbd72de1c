/*
 * A write of ours that the store carries out after gc has looked for it: no file of somebody else,
 * and it does not stay.
 */
#include <errno.h>

#include "base/cleanup.h"
#include "late_store.h"
#include "volume_lib.h"

static struct volume v;

static void init(void)
{
    volume_begin(&v);
    volume_open(&v);
}

static void fini(void)
{
    volume_end(&v);
}

static bool is_clean(void)
{
    cleanup(free_ptr) char *status = volume_status(&v);
    return strstr(status, "\"garbage_objects\":0") != NULL;
}

/* The writer of a new file gave up; gc has looked, and found nothing. */
static void give_up(const char *name, uint64_t parent, struct meta_object *object)
{
    uint64_t ino;
    check_int(name_create(&v, parent, name, &ino), 0);
    struct meta_request reserve = {.op = {.kind = META_RESERVE, .ino = ino}, .durable = true};
    check_int(meta_call(v.meta, &reserve), 0);
    *object = reserve.reply.objects[0];
    meta_reply_done(&reserve.reply);
    struct meta_request abandon = {.op = {.kind = META_ABANDON, .object = object->id}};
    check_int(meta_call(v.meta, &abandon), 0);
    meta_reply_done(&abandon.reply);
    check_int(name_unlink(&v, parent, name), 0);
    eventually(is_clean());
}

static void put_late(const struct meta_object *object, const char *text)
{
    bucket_put_tagged(&v, v.store, object, text);
}

TEST(late, is_no_file_when_its_directory_is_listed, .init = init, .fini = fini)
{
    struct meta_object object;
    give_up("a", META_ROOT_INO, &object);
    put_late(&object, "late");
    bucket_put(&v, "b", "theirs");
    int rc;
    cleanup(free_ptr) char *names = name_list(&v, META_ROOT_INO, &rc);
    check_str(names, "b");
    eventually(!bucket_has(&v, "a"));
    eventually(is_clean());
    check(bucket_has(&v, "b"));
}

TEST(late, is_no_file_when_its_name_is_asked_for, .init = init, .fini = fini)
{
    struct meta_object object;
    give_up("a", META_ROOT_INO, &object);
    put_late(&object, "late");
    check_int(name_lookup(&v, META_ROOT_INO, "a", NULL), -ENOENT);
    eventually(!bucket_has(&v, "a"));
}

TEST(late, is_remembered_over_a_restart, .init = init, .fini = fini)
{
    struct meta_object object;
    give_up("a", META_ROOT_INO, &object);
    volume_again(&v);
    put_late(&object, "late");
    int rc;
    cleanup(free_ptr) char *names = name_list(&v, META_ROOT_INO, &rc);
    check_str(names, "");
    eventually(!bucket_has(&v, "a"));
}

/* What others put at such a key is a file at once. */
TEST(late, what_others_put_there_is_shown, .init = init, .fini = fini)
{
    struct meta_object object;
    int rc;
    give_up("a", META_ROOT_INO, &object);
    bucket_put(&v, "a", "theirs");
    cleanup(free_ptr) char *names = name_list(&v, META_ROOT_INO, &rc);
    check_str(names, "a");
    uint64_t ino = name_ino(&v, META_ROOT_INO, "a");
    cleanup(free_ptr) char *text = file_read(&v, ino, NULL);
    check_str(text, "theirs");
    /* Ours comes to the free key after all, in place of theirs. */
    bucket_delete(&v, "a");
    put_late(&object, "later");
    check_int(volume_refresh_now(&v, META_ROOT_INO), 0);
    check_int(name_lookup(&v, META_ROOT_INO, "a", NULL), -ENOENT);
    check_int(volume_refresh_now(&v, META_ROOT_INO), 0);
    eventually(!bucket_has(&v, "a"));
}

TEST(late, a_reader_of_theirs_does_not_get_it, .init = init, .fini = fini)
{
    struct meta_object object, read;
    give_up("a", META_ROOT_INO, &object);
    bucket_put(&v, "a", "theirs");
    uint64_t ino = name_ino(&v, META_ROOT_INO, "a");
    struct meta_request extents = {.op = {.kind = META_EXTENTS, .ino = ino, .length = UINT64_MAX}};
    check_int(meta_call(v.meta, &extents), 0);
    read = extents.reply.objects[0];
    meta_reply_done(&extents.reply);
    bucket_delete(&v, "a");
    put_late(&object, "later");
    check(!file_read(&v, ino, NULL));
    check_int(volume_object_changed(&v, ino, read.id), -ESTALE);
    check_int(name_lookup(&v, META_ROOT_INO, "a", NULL), -ENOENT);
}

TEST(late, settle_meets_it_at_the_key, .init = init, .fini = fini)
{
    struct meta_object object;
    give_up("a", META_ROOT_INO, &object);
    late_store_hold_requests(v.late, STORE_PUT);
    uint64_t ino = file_inline(&v, META_ROOT_INO, "a", "new");
    eventually(late_store_held(v.late) == 1); /* its key was free */
    bucket_put_tagged(&v, v.memory, &object, "late");
    late_store_release(v.late);
    eventually(volume_settle(&v, META_ROOT_INO, NULL) == 0);
    cleanup(free_ptr) char *text = bucket_get(&v, "a");
    check_str(text, "new");
    check_uint(name_ino(&v, META_ROOT_INO, "a"), ino);
    eventually(is_clean());
}
