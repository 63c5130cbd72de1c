/*
 * A process that dies at any named point while objects get another storage class: the next one
 * knows its own copy, takes nothing of it for somebody else's, and finishes.
 */
#include <string.h>

#include "base/cleanup.h"
#include "volume/volume.h"
#include "volume_lib.h"

#define BIG_SIZE (9u << 20)

static char dir[4096], big[BIG_SIZE];

static void init(void)
{
    test_dir_make(dir);
    for (size_t i = 0; i < sizeof(big); i++)
        big[i] = (char)('a' + i % 26 + i / 1000 % 3);
}

static void fini(void)
{
    test_dir_remove(dir);
}

static void prepare(void)
{
    static struct volume v;
    uint64_t data;
    volume_begin_file(&v, dir);
    bucket_put(&v, "data/theirs", "foreign");
    volume_open(&v);
    data = name_ino(&v, META_ROOT_INO, "data");
    file_object(&v, data, "big", big, sizeof(big), false);
    name_ino(&v, data, "theirs");
    check_int(volume_settle(&v, META_ROOT_INO, NULL), 0);
    volume_leave(&v);
}

static bool is_clean(struct volume *v)
{
    cleanup(free_ptr) char *status = volume_status(v);
    return strstr(status, "\"garbage_objects\":0") != NULL;
}

/* A directory as the bucket (what is there outlives the process) has no classes, so users cannot
 * ask for one; all else is as anywhere. */
static void change(struct volume *v)
{
    struct meta_op op = {.kind = META_STORE_PLACE,
                         .ino = name_ino(v, META_ROOT_INO, "data"),
                         .data = "COLD",
                         .data_len = 4};
    struct meta_reply reply;
    check_int(volume_apply(v->meta, &op, &reply), 0);
    meta_reply_done(&reply);
    eventually(volume_settle(v, META_ROOT_INO, NULL) == 0);
}

static void work(void)
{
    static struct volume v;
    volume_begin_file(&v, dir);
    v.config.settle_parallel = 1;
    volume_open(&v);
    change(&v);
    eventually(is_clean(&v));
    volume_leave(&v);
}

static void file_is(struct volume *v, const char *name, const char *data, size_t len)
{
    size_t got = 0;
    uint64_t ino = name_ino(v, name_ino(v, META_ROOT_INO, "data"), name);
    cleanup(free_ptr) char *text = file_read(v, ino, &got);
    if (!text || got != len || memcmp(text, data, len) != 0)
        test_fail("%s is not whole", name);
}

static void has_tag(struct volume *v, const char *key)
{
    struct store_op head = {.kind = STORE_HEAD, .key = key};
    check_int(store_wait(v->store, &head), 0);
    if (!store_op_meta(&head, "sluice-change"))
        test_fail("%s was not given the class", key);
    store_op_reset(&head);
}

static uint64_t object_of(struct volume *v, const char *name)
{
    uint64_t ino = name_ino(v, name_ino(v, META_ROOT_INO, "data"), name);
    struct meta_request request = {.op = {.kind = META_EXTENTS, .ino = ino, .length = UINT64_MAX}};
    check_int(meta_call(v->meta, &request), 0);
    uint64_t id = request.reply.object_count == 1 ? request.reply.objects[0].id : 0;
    meta_reply_done(&request.reply);
    return id;
}

static void check_crash(const char *point)
{
    static struct volume v;
    uint64_t before[2];
    volume_dies_at(point, prepare, work);
    volume_begin_file(&v, dir);
    v.config.no_settle = true;
    volume_open(&v);
    before[0] = object_of(&v, "big");
    before[1] = object_of(&v, "theirs");
    /* Whoever looks first, by a listing or as a reader, finds no other file. */
    check_int(volume_refresh_now(&v, META_ROOT_INO), 0);
    uint64_t data = name_ino(&v, META_ROOT_INO, "data");
    check_int(volume_object_changed(&v, name_ino(&v, data, "big"), before[0]), 0);
    check_int(volume_object_changed(&v, name_ino(&v, data, "theirs"), before[1]), 0);
    file_is(&v, "big", big, sizeof(big));
    file_is(&v, "theirs", "foreign", 7);
    v.config.no_settle = false;
    volume_again(&v);
    change(&v);
    eventually(is_clean(&v));
    file_is(&v, "big", big, sizeof(big));
    file_is(&v, "theirs", "foreign", 7);
    check_uint(object_of(&v, "big"), before[0]);
    check_uint(object_of(&v, "theirs"), before[1]);
    has_tag(&v, "data/big");
    has_tag(&v, "data/theirs");
    check_uint(bucket_uploads(&v), 0);
    check_uint(bucket_count(&v, ".sluice/o/"), 0);
    volume_leave(&v);
    volume_check(v.database);
}

#define CRASH_TEST(name_, point_)                                                                  \
    TEST(class_crash, name_, .init = init, .fini = fini)                                           \
    {                                                                                              \
        check_crash(point_);                                                                       \
    }

CRASH_TEST(begun, "settle.begun")
CRASH_TEST(begun_later, "settle.begun:2")
CRASH_TEST(putting, "settle.putting")
CRASH_TEST(created, "settle.created")
CRASH_TEST(part, "settle.copied")
CRASH_TEST(completing, "settle.completing")
CRASH_TEST(written, "settle.completed")
CRASH_TEST(written_later, "settle.completed:2")
CRASH_TEST(verified, "settle.verified")
CRASH_TEST(verified_later, "settle.verified:2")
CRASH_TEST(swapped, "settle.swapped")
CRASH_TEST(swapped_later, "settle.swapped:2")
