/*
 * A process that dies at any named point while it brings entries below .sluice/e/ up to date: the
 * next one finishes, and the bucket has the entries that the tables call for, no more.
 */
#include "volume_lib.h"

static char dir[4096];

static void init(void)
{
    test_dir_make(dir);
}

static void fini(void)
{
    test_dir_remove(dir);
}

static void set_mode(struct volume *v, const char *name, uint32_t mode)
{
    struct meta_request r = {.op = {.kind = META_SETATTR,
                                    .ino = name_ino(v, META_ROOT_INO, name),
                                    .valid = META_SET_MODE,
                                    .attr = {.mode = mode}}};
    check_int(meta_call(v->meta, &r), 0);
    meta_reply_done(&r.reply);
}

static void make(struct volume *v, const char *name)
{
    struct meta_attr attr;
    if (name_lookup(v, META_ROOT_INO, name, &attr))
        check_int(name_mkdir(v, META_ROOT_INO, name, NULL), 0);
}

/* Entries come (an empty directory, a mode that no object tells), change and go. */
static void to_the_end(struct volume *v)
{
    struct meta_attr attr;
    make(v, "stays");
    make(v, "goes");
    if (name_lookup(v, META_ROOT_INO, "file", &attr))
        file_object(v, META_ROOT_INO, "file", "text", 4, false);
    check_int(volume_settle(v, META_ROOT_INO, NULL), 0);
    set_mode(v, "file", 0600);
    set_mode(v, "stays", 0700);
    check_int(volume_settle(v, META_ROOT_INO, NULL), 0);
    check_int(name_rmdir(v, META_ROOT_INO, "goes"), 0);
    check_int(volume_settle(v, META_ROOT_INO, NULL), 0);
}

static void work(void)
{
    static struct volume v;
    volume_begin_file(&v, dir);
    volume_open(&v);
    to_the_end(&v);
    volume_leave(&v);
}

static void check_point(const char *point)
{
    static struct volume v;
    volume_dies_at(point, NULL, work);
    volume_begin_file(&v, dir);
    volume_open(&v);
    to_the_end(&v);
    check_uint(bucket_count(&v, ".sluice/e/"), 2);
    check_uint(name_ino(&v, META_ROOT_INO, "file") != 0, 1);
    volume_leave(&v);
    volume_check(v.database);
}

#define CRASH_TEST(name_, point_)                                                                  \
    TEST(carry_crash, name_, .init = init, .fini = fini)                                           \
    {                                                                                              \
        check_point(point_);                                                                       \
    }

CRASH_TEST(begun, "carry.begun")
CRASH_TEST(begun_later, "carry.begun:3")
CRASH_TEST(written, "carry.written")
CRASH_TEST(written_later, "carry.written:3")
CRASH_TEST(removing, "carry.removing")
CRASH_TEST(done, "carry.done")
CRASH_TEST(done_later, "carry.done:4")
