/* The tables against the bucket. */
#include <errno.h>

#include "base/cleanup.h"
#include "late_store.h"
#include "meta/check.h"
#include "volume_lib.h"

static struct volume v;
static struct check_counts counts;
static struct buf said;

static void init(void)
{
    volume_begin(&v);
    v.config.no_settle = true;
    buf_init(&said, 0);
    volume_open(&v);
}

static void fini(void)
{
    buf_done(&said);
    volume_end(&v);
}

static void note(void *arg, const struct check_finding *finding)
{
    buf_printf(&said, "%s %s;", check_kind_name(finding->kind), finding->key);
}

static void check_bucket(bool deep, bool repair, const char *expected)
{
    struct check_config config = {.engine = meta_engine(v.meta),
                                  .store = v.store,
                                  .repair = repair ? v.meta : NULL,
                                  .deep = deep,
                                  .parallel = 2,
                                  .report = note};
    struct error error = {0};
    buf_reset(&said);
    if (meta_check_bucket(&config, &counts, &error))
        test_fail("check: %s", error_text(&error));
    buf_put_u8(&said, 0);
    check_str((const char *)said.data, expected);
}

TEST(bucket_check, finds_what_is_missing_or_changed, .init = init, .fini = fini)
{
    static const char *const names[] = {"a", "b", "c", "d", "e"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        file_inline(&v, META_ROOT_INO, names[i], "text");
    uint64_t internal = file_object(&v, META_ROOT_INO, "_temporary", "i", 1, true);
    check_int(volume_settle(&v, META_ROOT_INO, NULL), 0);
    file_inline(&v, META_ROOT_INO, "unsettled", "not in the bucket");
    bucket_put(&v, "foreign", "not imported");
    check_bucket(true, false, "");
    check_uint(counts.objects, 6);
    check_uint(counts.unknown, 1);
    check_uint(counts.by_md5, 6);

    bucket_delete(&v, "b");
    bucket_put(&v, "d", "texT");
    bucket_put(&v, "e", "longer text");
    check_bucket(false, false, "missing b;changed d;changed e;");
    check_bucket(true, true, "missing b;changed d;changed e;");
    check_uint(counts.repaired, 3);
    check_bucket(true, false, "");
    check_int(name_lookup(&v, META_ROOT_INO, "b", NULL), -ENOENT);
    size_t len;
    cleanup(free_ptr) char *text = file_read(&v, name_ino(&v, META_ROOT_INO, "d"), &len);
    check_str(text, "texT");

    /* Not a file of its own: nothing can take its place. */
    char key[META_KEY_MAX + 1], expected[META_KEY_MAX + 32];
    file_key(&v, internal, key);
    bucket_delete(&v, key);
    snprintf(expected, sizeof(expected), "missing %s;", key);
    check_bucket(false, true, expected);
    check_uint(counts.repaired, 0);
}

static void *check_in_thread(void *arg)
{
    check_bucket(false, false, "");
    return NULL;
}

/* Of a living volume: what the tables say of an object may be over when the store is asked for it.
 */
TEST(bucket_check, a_file_that_goes_meanwhile_is_not_missing, .init = init, .fini = fini)
{
    pthread_t thread;
    file_inline(&v, META_ROOT_INO, "a", "text");
    check_int(volume_settle(&v, META_ROOT_INO, NULL), 0);
    bucket_delete(&v, "a");
    late_store_hold_requests(v.late, STORE_HEAD);
    check_int(pthread_create(&thread, NULL, check_in_thread, NULL), 0);
    eventually(late_store_held(v.late) == 1);
    check_int(name_unlink(&v, META_ROOT_INO, "a"), 0);
    late_store_release(v.late);
    pthread_join(thread, NULL);
}

static bool stop_now(void *arg)
{
    return true;
}

TEST(bucket_check, ends_when_it_is_told_to, .init = init, .fini = fini)
{
    bucket_put(&v, "a", "text");
    struct check_config check = {
        .engine = meta_engine(v.meta), .store = v.store, .report = note, .stop = stop_now};
    struct orphan_config gc = {.engine = meta_engine(v.meta), .store = v.store, .stop = stop_now};
    struct orphan_counts orphans;
    check_int(meta_check_bucket(&check, &counts, NULL), -ECANCELED);
    check_int(meta_find_orphans(&gc, &orphans, NULL), -ECANCELED);
}

TEST(bucket_check, many_pages, .init = init, .fini = fini)
{
    char name[32];
    for (int i = 0; i < 2200; i++) {
        snprintf(name, sizeof(name), "f%04d", i);
        bucket_put(&v, name, "x");
    }
    int rc;
    free(name_list(&v, META_ROOT_INO, &rc));
    check_bucket(false, false, "");
    check_uint(counts.objects, 2200);
    bucket_delete(&v, "f0000");
    bucket_delete(&v, "f1000");
    bucket_delete(&v, "f2199");
    check_bucket(false, false, "missing f0000;missing f1000;missing f2199;");
}

TEST(bucket_check, bytes_that_changed_under_the_same_etag, .init = init, .fini = fini)
{
    file_inline(&v, META_ROOT_INO, "good", "text");
    file_inline(&v, META_ROOT_INO, "rotten", "text");
    check_int(volume_settle(&v, META_ROOT_INO, NULL), 0);
    volume_fault(
        &v, (struct store_fault_rule){.kind = STORE_GET, .key_part = "rotten", .corrupt = true});
    check_bucket(false, false, "");
    check_bucket(true, false, "content rotten;");
    volume_no_fault(&v);
    volume_fault(
        &v, (struct store_fault_rule){.kind = STORE_GET, .key_part = "rotten", .result = -EIO});
    check_bucket(true, false, "unreadable rotten;");
    volume_no_fault(&v);
}
