/*
 * I4: a process that dies at any named point of settle and gc. A child process works on a directory
 * as the bucket and is killed there; the next one must find every file whole, finish the work, and
 * leave nothing behind.
 */
#include <sys/stat.h>

#include "base/cleanup.h"
#include "volume_lib.h"

static char dir[4096];
static char big[300 * 1024];

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

static void configure(struct volume *v)
{
    volume_begin_file(v, dir);
    v->store->caps.part_min = 1024;
    v->config.settle_parallel = 2;
}

/* All kinds of steps: upload, copy, join, replace, rename, delete of natural and internal keys. */
static void work(void)
{
    static struct volume v;
    configure(&v);
    volume_open(&v);
    uint64_t ino;
    file_inline(&v, META_ROOT_INO, "inline", "first");
    file_object(&v, META_ROOT_INO, "copied", big, sizeof(big), true);
    check_int(name_create(&v, META_ROOT_INO, "joined", &ino), 0);
    size_t half = sizeof(big) / 2;
    check_int(file_write_object(&v, ino, 0, big, half, true, false, NULL), 0);
    check_int(file_write_object(&v, ino, half, big + half, half, true, false, NULL), 0);
    file_inline(&v, META_ROOT_INO, "renamed", "moves");
    file_inline(&v, META_ROOT_INO, "deleted", "goes");
    file_object(&v, META_ROOT_INO, "left", big, sizeof(big), true);
    file_object(&v, META_ROOT_INO, "right", big, sizeof(big), true);
    check_int(volume_settle(&v, META_ROOT_INO, NULL), 0);
    check_int(name_rename(&v, META_ROOT_INO, "renamed", META_ROOT_INO, "moved"), 0);
    check_int(name_unlink(&v, META_ROOT_INO, "deleted"), 0);
    check_int(file_write_inline(&v, name_ino(&v, META_ROOT_INO, "inline"), "second"), 0);
    /* Rename is durable, and all before it: so a power loss would not undo what is checked. */
    check_int(name_rename(&v, META_ROOT_INO, "joined", META_ROOT_INO, "whole"), 0);
    check_int(volume_settle(&v, META_ROOT_INO, NULL), 0);
    /* One of a ring leaves for an internal key: a copy of the whole object. */
    struct meta_request exchange = {.op = {.kind = META_RENAME,
                                           .parent = META_ROOT_INO,
                                           .name = {"left", 4},
                                           .new_parent = META_ROOT_INO,
                                           .new_name = {"right", 5},
                                           .flags = RENAME_EXCHANGE}};
    check_int(meta_call(v.meta, &exchange), 0);
    meta_reply_done(&exchange.reply);
    check_int(volume_settle(&v, META_ROOT_INO, NULL), 0);
    /* Others write the keys of a changed file and of a new one, before they are settled. */
    v.config.no_settle = true;
    volume_again(&v);
    check_int(file_write_inline(&v, name_ino(&v, META_ROOT_INO, "moved"), "moves"), 0);
    file_object(&v, META_ROOT_INO, "new", big, sizeof(big), true);
    bucket_put(&v, "moved", "theirs");
    bucket_put(&v, "new", "theirs");
    check_int(volume_settle(&v, META_ROOT_INO, NULL), 0);
    volume_leave(&v);
}

static bool file_is(struct volume *v, const char *name, const void *data, size_t len)
{
    struct meta_attr attr;
    size_t got = 0;
    if (name_lookup(v, META_ROOT_INO, name, &attr))
        return false;
    cleanup(free_ptr) char *text = file_read(v, attr.ino, &got);
    return text && got == len && !memcmp(text, data, len);
}

/* Whatever exists is whole: its content is one that was acknowledged. */
static void check_whole(struct volume *v)
{
    static const char *const names[] = {"copied",  "joined", "whole",   "left",  "right",
                                        "renamed", "moved",  "deleted", "inline"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct meta_attr attr;
        if (name_lookup(v, META_ROOT_INO, names[i], &attr) || !attr.size)
            continue;
        bool whole;
        if (i < 5)
            whole = file_is(v, names[i], big, sizeof(big)) ||
                    file_is(v, names[i], big, sizeof(big) / 2);
        else if (i < 7)
            whole = file_is(v, names[i], "moves", 5) || file_is(v, names[i], "theirs", 6);
        else if (i == 7)
            whole = file_is(v, names[i], "goes", 4);
        else
            whole = file_is(v, names[i], "first", 5) || file_is(v, names[i], "second", 6);
        if (!whole)
            test_fail("%s is not whole", names[i]);
    }
}

static bool is_clean(struct volume *v)
{
    cleanup(free_ptr) char *status = volume_status(v);
    return strstr(status, "\"garbage_objects\":0") && !bucket_count(v, ".sluice/o/") &&
           !bucket_uploads(v);
}

/* Every key of the bucket is a file, and every file one object. */
static void check_bucket(struct volume *v)
{
    int rc = 0;
    cleanup(free_ptr) char *names = name_list(v, META_ROOT_INO, &rc);
    cleanup(free_ptr) char *keys = bucket_keys(v, "");
    check_int(rc, 0);
    check_str(keys, names);
}

/* What others wrote has its name and is as they wrote it; ours is beside it. */
static bool is_parted(struct volume *v, const char *name, const void *data, size_t len)
{
    char start[64], ours[META_NAME_MAX + 1];
    cleanup(free_ptr) char *list = name_list(v, META_ROOT_INO, NULL);
    snprintf(start, sizeof(start), "%s" META_CONFLICT_SUFFIX, name);
    const char *at = strstr(list, start);
    snprintf(ours, sizeof(ours), "%.*s", at ? (int)strcspn(at, ",") : 0, at ? at : "");
    return at && file_is(v, name, "theirs", 6) && file_is(v, ours, data, len);
}

static void check_parted(const char *point)
{
    static struct volume v;
    volume_dies_at(point, NULL, work);
    configure(&v);
    volume_open(&v);
    check_int(volume_settle(&v, META_ROOT_INO, NULL), 0);
    eventually(is_clean(&v));
    check(is_parted(&v, "moved", "moves", 5));
    check(is_parted(&v, "new", big, sizeof(big)));
    check_bucket(&v);
    volume_leave(&v);
    volume_check(v.database);
}

static void check_point(const char *point)
{
    static struct volume v;
    volume_dies_at(point, NULL, work);
    configure(&v);
    volume_open(&v);
    check_whole(&v);
    struct error error = {0};
    if (volume_settle(&v, META_ROOT_INO, &error))
        test_fail("%s: %s", point, error.message);
    eventually(is_clean(&v));
    check_whole(&v);
    check_bucket(&v);
    volume_leave(&v);
    volume_check(v.database);
}

#define CRASH_TEST(name_, point_)                                                                  \
    TEST(settle_crash, name_, .init = init, .fini = fini)                                          \
    {                                                                                              \
        check_point(point_);                                                                       \
    }

#define PARTED_TEST(name_, point_)                                                                 \
    TEST(settle_crash, name_, .init = init, .fini = fini)                                          \
    {                                                                                              \
        check_parted(point_);                                                                      \
    }

PARTED_TEST(parting, "settle.parting")
PARTED_TEST(parting_second, "settle.parting:2")
PARTED_TEST(parted, "settle.parted")
PARTED_TEST(parted_second, "settle.parted:2")
CRASH_TEST(begun, "settle.begun")
CRASH_TEST(begun_later, "settle.begun:7")
CRASH_TEST(putting, "settle.putting")
CRASH_TEST(putting_later, "settle.putting:4")
CRASH_TEST(created, "settle.created")
CRASH_TEST(copying, "settle.copying")
CRASH_TEST(copied, "settle.copied")
CRASH_TEST(copied_later, "settle.copied:2")
CRASH_TEST(completing, "settle.completing")
CRASH_TEST(completed, "settle.completed")
CRASH_TEST(completed_later, "settle.completed:6")
CRASH_TEST(verified, "settle.verified")
CRASH_TEST(verified_later, "settle.verified:7")
CRASH_TEST(swapped, "settle.swapped")
CRASH_TEST(swapped_later, "settle.swapped:6")
CRASH_TEST(gc_begun, "gc.begun")
CRASH_TEST(gc_deleted, "gc.deleted")
CRASH_TEST(gc_done, "gc.done")
CRASH_TEST(gc_batch_begun, "gc.batch_begun")
CRASH_TEST(gc_batch_deleted, "gc.batch_deleted")
