/*
 * I1 to I4 across stores: a process that dies at any named point while a directory migrates, and
 * while a store is attached or detached. The next one must find every file whole, finish the work,
 * and leave nothing behind in the store that files came from.
 */
#include <errno.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "meta/stores.h"
#include "s3/mux.h"
#include "volume_lib.h"

#define BIG_SIZE (9u << 20) /* more than one part that goes through us */

static char dir[4096], third[4200];
static char big[BIG_SIZE];

static void init(void)
{
    test_dir_make(dir);
    snprintf(third, sizeof(third), "%s/third", dir);
    check_int(mkdir(third, 0700), 0);
    for (size_t i = 0; i < sizeof(big); i++)
        big[i] = (char)('a' + i % 26 + i / 1000 % 3);
}

static void fini(void)
{
    test_dir_remove(dir);
}

static void configure(struct volume *v)
{
    struct store *mux;
    volume_begin_file(v, dir);
    v->config.settle_parallel = 2;
    check_int(store_mux_new(v->store, &mux), 0);
    v->config.store = v->store = mux;
}

static int attach(struct volume *v, uint64_t ino, struct error *error)
{
    char url[5000];
    snprintf(url, sizeof(url), "file://%s", third);
    struct meta_store_request request = {.url = url, .name = "third", .ino = ino};
    return meta_store_attach(v->meta, &request, error);
}

/* What is there before anything may die. */
static void prepare(void)
{
    static struct volume v;
    uint64_t data, sub, at;
    configure(&v);
    volume_open(&v);
    check_int(name_mkdir(&v, META_ROOT_INO, "data", &data), 0);
    check_int(name_mkdir(&v, META_ROOT_INO, "at", &at), 0);
    check_int(name_mkdir(&v, data, "sub", &sub), 0);
    file_object(&v, data, "big", big, sizeof(big), false);
    file_inline(&v, sub, "small", "few bytes");
    /* One that is at an internal key for ever. */
    file_object(&v, data, "_temporary", "staged", 6, false);
    check_int(volume_settle(&v, META_ROOT_INO, NULL), 0);
    volume_leave(&v);
}

static void migrate(struct volume *v)
{
    struct error error = {0};
    uint64_t data = name_ino(v, META_ROOT_INO, "data");
    int rc = attach(v, 0, &error);
    if (rc && rc != -EEXIST)
        test_fail("attach: %s", error.message);
    check_int(meta_migrate(v->meta, data, META_MIGRATE_TO, "third", NULL, 0, &error), 0);
    rc = volume_settle(v, META_ROOT_INO, &error);
    if (rc)
        test_fail("settle: %s", error.message);
}

static bool is_clean(struct volume *v)
{
    cleanup(free_ptr) char *status = volume_status(v);
    return strstr(status, "\"garbage_objects\":0") != NULL;
}

static void work_migrate(void)
{
    static struct volume v;
    configure(&v);
    volume_open(&v);
    migrate(&v);
    eventually(is_clean(&v));
    volume_leave(&v);
}

static void work_detach(void)
{
    static struct volume v;
    struct error error = {0};
    configure(&v);
    volume_open(&v);
    uint64_t at = name_ino(&v, META_ROOT_INO, "at");
    int rc = attach(&v, at, &error);
    if (rc && rc != -EEXIST)
        test_fail("attach: %s", error.message);
    struct meta_attr attr;
    if (name_lookup(&v, at, "in", &attr))
        file_object(&v, at, "in", "side", 4, false);
    check_int(volume_settle(&v, META_ROOT_INO, NULL), 0);
    rc = meta_store_detach(v.meta, "third", &error);
    if (rc)
        test_fail("detach: %s", error.message);
    volume_leave(&v);
}

static void file_is(struct volume *v, uint64_t parent, const char *name, const char *data,
                    size_t len)
{
    size_t got = 0;
    cleanup(free_ptr) char *text = file_read(v, name_ino(v, parent, name), &got);
    if (!text || got != len || memcmp(text, data, len) != 0)
        test_fail("%s is not whole", name);
}

static void check_whole(struct volume *v)
{
    uint64_t data = name_ino(v, META_ROOT_INO, "data");
    file_is(v, data, "big", big, sizeof(big));
    file_is(v, data, "_temporary", "staged", 6);
    file_is(v, name_ino(v, data, "sub"), "small", "few bytes", 9);
}

/* Nothing moves while it is looked at first: without a delay gc waits for no reader. */
static void open_whole(struct volume *v)
{
    configure(v);
    v->config.no_settle = true;
    volume_open(v);
    check_whole(v);
    v->config.no_settle = false;
    volume_again(v);
}

static bool is_there(const char *path)
{
    char name[5000];
    struct stat st;
    snprintf(name, sizeof(name), "%s/%s", third, path);
    return stat(name, &st) == 0 && S_ISREG(st.st_mode);
}

static void check_migrate(const char *point)
{
    static struct volume v;
    volume_dies_at(point, prepare, work_migrate);
    open_whole(&v);
    migrate(&v);
    eventually(is_clean(&v));
    check_whole(&v);
    check_uint(bucket_count(&v, "data"), 0);
    check_uint(bucket_count(&v, ".sluice/o/"), 0);
    check_uint(bucket_uploads(&v), 0);
    check_uint(bucket_count(&v, "/1/data/"), 2);
    check_uint(bucket_count(&v, "/1/.sluice/o/"), 1);
    check(is_there("data/big"));
    check(is_there("data/sub/small"));
    volume_leave(&v);
    volume_check(v.database);
}

static void check_detach(const char *point)
{
    static struct volume v;
    struct error error = {0};
    volume_dies_at(point, prepare, work_detach);
    open_whole(&v);
    int rc = meta_store_detach(v.meta, "third", &error);
    if (rc && rc != -ENOENT)
        test_fail("detach: %s", error.message);
    check_whole(&v);
    cleanup(free_ptr) char *names = name_list(&v, name_ino(&v, META_ROOT_INO, "at"), &rc);
    check_str(names, "");
    check(is_there("in") || strcmp(point, "store.attached") == 0);
    volume_leave(&v);
    volume_check(v.database);
    /* And all over again. */
    work_detach();
    check(is_there("in"));
}

#define CRASH_TEST(name_, check_, point_)                                                          \
    TEST(stores_crash, name_, .init = init, .fini = fini)                                          \
    {                                                                                              \
        check_(point_);                                                                            \
    }

CRASH_TEST(attached, check_migrate, "store.attached")
CRASH_TEST(asked, check_migrate, "migrate.begun")
CRASH_TEST(begun, check_migrate, "settle.begun")
CRASH_TEST(begun_later, check_migrate, "settle.begun:3")
CRASH_TEST(putting, check_migrate, "settle.putting")
CRASH_TEST(created, check_migrate, "settle.created")
CRASH_TEST(part, check_migrate, "settle.copied")
CRASH_TEST(all_parts, check_migrate, "settle.completing")
CRASH_TEST(written, check_migrate, "settle.completed")
CRASH_TEST(written_later, check_migrate, "settle.completed:3")
CRASH_TEST(verified, check_migrate, "settle.verified")
CRASH_TEST(verified_later, check_migrate, "settle.verified:3")
CRASH_TEST(swapped, check_migrate, "settle.swapped")
CRASH_TEST(swapped_later, check_migrate, "settle.swapped:3")
CRASH_TEST(gc_begun, check_migrate, "gc.begun")
CRASH_TEST(gc_deleted, check_migrate, "gc.deleted")
CRASH_TEST(gc_done, check_migrate, "gc.done:2")
CRASH_TEST(gc_batch_begun, check_migrate, "gc.batch_begun")
CRASH_TEST(gc_batch_deleted, check_migrate, "gc.batch_deleted")
CRASH_TEST(attached_at, check_detach, "store.attached")
CRASH_TEST(emptied, check_detach, "store.emptied")
CRASH_TEST(dropped, check_detach, "store.dropped")
