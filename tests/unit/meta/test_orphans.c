/* What nothing in the tables owns is found and deleted; all else stays. */
#include <errno.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "meta/check.h"
#include "volume_lib.h"

static struct volume v;
static struct orphan_counts counts;

static void init(void)
{
    volume_begin(&v);
    v.config.no_settle = true;
    volume_open(&v);
}

static void fini(void)
{
    volume_end(&v);
}

static void hunt(bool remove, bool former, uint64_t older_than_ns)
{
    struct orphan_config config = {.engine = meta_engine(v.meta),
                                   .store = v.store,
                                   .older_than_ns = older_than_ns,
                                   .now_ns = clock_wall_ns() + 10 * NS_PER_S,
                                   .remove = remove,
                                   .strays = true,
                                   .former = former,
                                   .parallel = 3};
    struct error error = {0};
    if (meta_find_orphans(&config, &counts, &error))
        test_fail("orphans: %s", error_text(&error));
}

/* As this volume writes it, but without a record. */
static void put_tagged(const char *key, const char *volume, const char *object)
{
    struct store_meta meta[] = {{"sluice-volume", volume}, {"sluice-object", object}};
    struct iovec iov = {.iov_base = (char *)"late", .iov_len = 4};
    struct store_op op = {
        .kind = STORE_PUT, .key = key, .iov = &iov, .iov_count = 1, .meta = meta, .meta_count = 2};
    check_int(store_wait(v.store, &op), 0);
    store_op_reset(&op);
}

static void begin_upload(const char *key)
{
    struct store_op op = {.kind = STORE_MPU_CREATE, .key = key};
    check_int(store_wait(v.store, &op), 0);
    store_op_reset(&op);
}

static void own_key(char *key, size_t cap, const char *rest)
{
    snprintf(key, cap, ".sluice/%c/%.8s/%s", rest[0], meta_volume(v.meta)->id, rest + 2);
}

TEST(orphans, are_found_and_deleted_and_nothing_else_is, .init = init, .fini = fini)
{
    char lost[128], entry[128], upload[128];
    uint64_t d;
    own_key(lost, sizeof(lost), "o/12/0000000000001234");
    own_key(entry, sizeof(entry), "e/0000000000009999");
    own_key(upload, sizeof(upload), "o/13/0000000000001235");
    /* In use, or not ours. */
    file_object(&v, META_ROOT_INO, "natural", "n", 1, false);
    file_object(&v, META_ROOT_INO, "internal", "i", 1, true);
    check_int(name_mkdir(&v, META_ROOT_INO, "empty", &d), 0);
    check_int(volume_settle(&v, META_ROOT_INO, NULL), 0);
    file_object(&v, META_ROOT_INO, "unsettled", "i", 1, true);
    bucket_put(&v, "foreign", "f");
    put_tagged("another volume's", "0123456789abcdef0123456789abcdef", "5");
    begin_upload("others are writing");
    bucket_put(&v, ".sluice/backup/x", "not mine to judge");
    unsigned before = bucket_count(&v, "");
    /* Orphans. */
    bucket_put(&v, lost, "12345");
    bucket_put(&v, entry, "{}");
    bucket_put(&v, ".sluice/o/00000000/12/0000000000001234", "of a former volume");
    put_tagged("stray", meta_volume(v.meta)->id, "4711");
    begin_upload(upload);

    hunt(false, false, 0);
    check_uint(counts.found[ORPHAN_OBJECT], 1);
    check_uint(counts.bytes[ORPHAN_OBJECT], 5);
    check_uint(counts.found[ORPHAN_ENTRY], 1);
    check_uint(counts.found[ORPHAN_FORMER], 1);
    check_uint(counts.found[ORPHAN_STRAY], 1);
    check_uint(counts.found[ORPHAN_UPLOAD], 1);
    check_uint(counts.foreign_uploads, 1);
    check_uint(bucket_count(&v, ""), before + 4);

    hunt(true, false, NS_PER_S * 3600);
    check_uint(counts.young, 5);
    check_uint(counts.deleted, 0);
    check_uint(bucket_count(&v, ""), before + 4);

    hunt(true, false, 0);
    check_uint(counts.deleted, 4);
    check_uint(counts.failed, 0);
    check_uint(bucket_count(&v, ""), before + 1); /* the former volume's stays */
    check_uint(bucket_uploads(&v), 1);
    hunt(true, true, 0);
    check_uint(counts.deleted, 1);
    check_uint(bucket_count(&v, ""), before);
    hunt(true, true, 0);
    check_uint(counts.deleted, 0);
}
