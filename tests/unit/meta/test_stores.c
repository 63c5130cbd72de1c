/*
 * Other stores of a volume: attached at a directory, and as the place that files move to. The
 * volume's bucket is in memory, the others are directories.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "meta/stores.h"
#include "s3/mux.h"
#include "volume_lib.h"

static struct volume v;
static char other[5000], third[5000];
static struct error error;

static void put(const char *dir, const char *path, const char *text)
{
    char name[6000];
    snprintf(name, sizeof(name), "%s/%s", dir, path);
    FILE *file = fopen(name, "w");
    check(file != NULL);
    fputs(text, file);
    fclose(file);
}

static bool has(const char *dir, const char *path)
{
    char name[6000];
    struct stat st;
    snprintf(name, sizeof(name), "%s/%s", dir, path);
    return stat(name, &st) == 0 && S_ISREG(st.st_mode);
}

static void make_dirs(void)
{
    char sub[6000];
    snprintf(other, sizeof(other), "%s/other", v.dir);
    snprintf(third, sizeof(third), "%s/third", v.dir);
    snprintf(sub, sizeof(sub), "%s/d", other);
    check_int(mkdir(other, 0700), 0);
    check_int(mkdir(third, 0700), 0);
    check_int(mkdir(sub, 0700), 0);
    put(other, "a", "theirs");
    put(other, "d/b", "below");
}

static void begin(void)
{
    error = (struct error){0};
    volume_begin(&v);
    check_int(store_mux_new(v.store, &v.config.store), 0);
    v.store = v.config.store;
    make_dirs();
    volume_open(&v);
}

static void end(void)
{
    volume_end(&v);
}

static int attach(const char *dir, const char *name, uint64_t ino, bool read_only)
{
    char url[6000];
    snprintf(url, sizeof(url), "file://%s", dir);
    struct meta_store_request request = {
        .url = url, .name = name, .read_only = read_only, .ino = ino};
    return meta_store_attach(v.meta, &request, &error);
}

static uint64_t attached(bool read_only)
{
    uint64_t ino;
    check_int(name_mkdir(&v, META_ROOT_INO, "at", &ino), 0);
    int rc = attach(other, "other", ino, read_only);
    if (rc)
        test_fail("attach: %d %s", rc, error.message);
    return ino;
}

static void read_is(uint64_t ino, const char *text)
{
    size_t len;
    cleanup(free_ptr) char *got = file_read(&v, ino, &len);
    check(got != NULL);
    check_str(got, text);
}

static void key_is(uint64_t ino, const char *expected)
{
    char key[META_KEY_MAX + 1];
    file_key(&v, ino, key);
    check_str(key, expected);
}

static void settle(uint64_t ino)
{
    int rc = volume_settle(&v, ino, &error);
    if (rc)
        test_fail("settle: %d %s", rc, error.message);
}

TEST(stores, attached_one_is_listed_and_read, .init = begin, .fini = end)
{
    uint64_t at = attached(false);
    int rc;
    cleanup(free_ptr) char *names = name_list(&v, at, &rc);
    check_str(names, "a,d/");
    uint64_t d = name_ino(&v, at, "d");
    read_is(name_ino(&v, at, "a"), "theirs");
    read_is(name_ino(&v, d, "b"), "below");
    key_is(name_ino(&v, d, "b"), "/1/d/b");
}

TEST(stores, new_files_below_are_written_there, .init = begin, .fini = end)
{
    uint64_t at = attached(false);
    uint64_t ino = file_object(&v, at, "new", "bytes", 5, false);
    key_is(ino, "/1/new");
    uint64_t small = file_inline(&v, at, "small", "inline");
    settle(at);
    check(has(other, "new"));
    check(has(other, "small"));
    check_uint(bucket_count(&v, "at/"), 0);
    read_is(small, "inline");
}

TEST(stores, rename_across_is_metadata_until_settle, .init = begin, .fini = end)
{
    uint64_t at = attached(false);
    uint64_t out = name_ino(&v, at, "a");
    uint64_t in = file_object(&v, META_ROOT_INO, "mine", "ours", 4, false);
    check_int(name_rename(&v, at, "a", META_ROOT_INO, "a"), 0);
    check_int(name_rename(&v, META_ROOT_INO, "mine", at, "mine"), 0);
    settle(META_ROOT_INO);
    key_is(out, "a");
    key_is(in, "/1/mine");
    read_is(out, "theirs");
    read_is(in, "ours");
    eventually(!has(other, "a") && !bucket_has(&v, "mine"));
    check(bucket_has(&v, "a"));
    check(has(other, "mine"));
}

TEST(stores, directory_renamed_across_follows, .init = begin, .fini = end)
{
    uint64_t at = attached(false);
    uint64_t b = name_ino(&v, name_ino(&v, at, "d"), "b");
    check_int(name_rename(&v, at, "d", META_ROOT_INO, "dir"), 0);
    settle(META_ROOT_INO);
    key_is(b, "dir/b");
    read_is(b, "below");
    eventually(!has(other, "d/b"));
}

TEST(stores, large_file_crosses_in_parts, .init = begin, .fini = end)
{
    static char big[20 << 20];
    for (size_t i = 0; i < sizeof(big); i++)
        big[i] = (char)('a' + i * 7 % 23 + i / 4096 % 3);
    uint64_t at = attached(false), ino;
    check_int(name_create(&v, META_ROOT_INO, "big", &ino), 0);
    check_int(file_write_object(&v, ino, 0, big, sizeof(big), false, true, NULL), 0);
    check_int(name_rename(&v, META_ROOT_INO, "big", at, "big"), 0);
    settle(at);
    key_is(ino, "/1/big");
    size_t len;
    cleanup(free_ptr) char *got = file_read(&v, ino, &len);
    check_uint(len, sizeof(big));
    check(memcmp(got, big, len) == 0);
}

TEST(stores, beside_a_foreign_object_there_both_are_kept, .init = begin, .fini = end)
{
    uint64_t at = attached(false);
    uint64_t ino = file_object(&v, META_ROOT_INO, "x", "ours", 4, false);
    check_int(name_rename(&v, META_ROOT_INO, "x", at, "x"), 0);
    put(other, "x", "somebody else's");
    settle(at);
    read_is(ino, "ours");
    read_is(name_ino(&v, at, "x"), "somebody else's");
    char path[6000];
    struct stat st;
    snprintf(path, sizeof(path), "%s/x", other);
    check_int(stat(path, &st), 0);
    check_uint(st.st_size, strlen("somebody else's"));
}

TEST(stores, read_only_one_is_never_changed, .init = begin, .fini = end)
{
    uint64_t at = attached(true), new_ino = file_inline(&v, at, "new", "here");
    uint64_t a = name_ino(&v, at, "a"), d = name_ino(&v, at, "d");
    uint64_t b = name_ino(&v, d, "b");
    check_int(file_write_inline(&v, b, "changed"), 0);
    check_int(name_rename(&v, at, "a", META_ROOT_INO, "taken"), 0);
    settle(META_ROOT_INO);
    key_is(a, "taken");
    check_int(name_unlink(&v, META_ROOT_INO, "taken"), 0);
    settle(META_ROOT_INO);
    check_int(volume_refresh_now(&v, at), 0);
    int rc;
    cleanup(free_ptr) char *names = name_list(&v, at, &rc);
    check_str(names, "d/,new");
    read_is(b, "changed");
    read_is(new_ino, "here");
    check(has(other, "a"));
    check(has(other, "d/b"));
    check(!has(other, "new"));
    check(!has(other, ".sluice/volume"));
}

TEST(stores, known_again_after_a_restart, .init = begin, .fini = end)
{
    uint64_t at = attached(false);
    uint64_t ino = file_object(&v, at, "kept", "kept", 4, false);
    settle(at);
    volume_again(&v);
    read_is(ino, "kept");
    read_is(name_ino(&v, at, "a"), "theirs");
    key_is(file_object(&v, at, "more", "m", 1, false), "/1/more");
}

TEST(stores, unreachable_one_does_not_stop_the_open, .init = begin, .fini = end)
{
    uint64_t at = attached(true);
    char moved[6000];
    uint64_t a = name_ino(&v, at, "a"), own = file_inline(&v, META_ROOT_INO, "own", "fine");
    snprintf(moved, sizeof(moved), "%s.away", other);
    volume_close(&v);
    check_int(rename(other, moved), 0);
    volume_open(&v);
    size_t len;
    cleanup(free_ptr) char *got = file_read(&v, a, &len);
    check(!got);
    read_is(own, "fine");
    json_t *list = meta_stores_json(v.meta);
    cleanup(free_ptr) char *text = json_dumps(list, 0);
    json_decref(list);
    check(strstr(text, "\"connected\": false") != NULL);
    check_int(rename(moved, other), 0);
    volume_again(&v);
    read_is(a, "theirs");
}

TEST(stores, owner_is_kept_in_each, .init = begin, .fini = end)
{
    attached(false);
    check(has(other, ".sluice/volume"));
    /* Another volume is refused. */
    static struct volume second;
    volume_begin(&second);
    check_int(store_mux_new(second.store, &second.config.store), 0);
    second.store = second.config.store;
    volume_open(&second);
    char url[6000];
    snprintf(url, sizeof(url), "file://%s", other);
    struct meta_store_request request = {.url = url, .name = "again"};
    check_int(meta_store_attach(second.meta, &request, &error), -EBUSY);
    check(strstr(error.message, "belongs to volume") != NULL);
    volume_end(&second);
    /* Nor may this volume have it twice. */
    check_int(attach(other, "twice", 0, false), -EBUSY);
}

TEST(stores, bad_input_changes_nothing, .init = begin, .fini = end)
{
    uint64_t at, full;
    check_int(name_mkdir(&v, META_ROOT_INO, "at", &at), 0);
    check_int(name_mkdir(&v, META_ROOT_INO, "full", &full), 0);
    uint64_t file = file_inline(&v, full, "f", "f");
    check_int(attach(other, "bad name", at, false), -EINVAL);
    check_int(attach(other, "main", at, false), -EINVAL);
    check_int(attach(other, "x", full, false), -ENOTEMPTY);
    check_int(attach(other, "x", file, false), -ENOTDIR);
    struct meta_store_request request = {.url = "ftp://x", .name = "x", .ino = at};
    check_int(meta_store_attach(v.meta, &request, &error), -EINVAL);
    request.url = "s3://bucket-x";
    request.options = "{\"secret-key\": \"s\"}";
    check_int(meta_store_attach(v.meta, &request, &error), -EINVAL);
    check(strstr(error.message, "not recorded") != NULL);
    check_int(meta_store_detach(v.meta, "x", &error), -ENOENT);
    check_int(meta_migrate(v.meta, at, META_MIGRATE_TO, "x", NULL, 0, &error), -ENOENT);
    check_int(meta_migrate(v.meta, at, META_MIGRATE_PAUSE, NULL, NULL, 0, &error), -ENODATA);
    check_int(meta_migrate(v.meta, file, META_MIGRATE_TO, "main", NULL, 0, &error), -ENOTDIR);
    check(!has(other, ".sluice/volume"));
    check_int(attach(other, "x", at, false), 0);
    check_int(attach(third, "x", 0, false), -EEXIST);
    check_int(name_rmdir(&v, META_ROOT_INO, "at"), -EBUSY);
    check_int(meta_migrate(v.meta, full, META_MIGRATE_TO, "x", NULL, 0, &error), -EXDEV);
}

TEST(stores, detach_takes_names_and_leaves_objects, .init = begin, .fini = end)
{
    uint64_t at = attached(false);
    file_object(&v, at, "new", "bytes", 5, false);
    settle(at);
    check_int(meta_store_detach(v.meta, "other", &error), 0);
    int rc;
    cleanup(free_ptr) char *names = name_list(&v, at, &rc);
    check_str(names, "");
    check(has(other, "a"));
    check(has(other, "d/b"));
    check(has(other, "new"));
    /* The directory is an ordinary one. */
    uint64_t ino = file_object(&v, at, "after", "x", 1, false);
    key_is(ino, "at/after");
    volume_again(&v);
    check_int(attach(other, "other", 0, false), 0);
}

/* All names of a file go in one step. */
TEST(stores, detach_takes_each_name_of_a_file, .init = begin, .fini = end)
{
    uint64_t at = attached(false);
    uint64_t ino = file_object(&v, at, "l1", "bytes", 5, false);
    static const char *const more[] = {"l2", "l3", "l4"};
    for (size_t i = 0; i < ARRAY_LEN(more); i++) {
        struct meta_request link = {
            .op = {.kind = META_LINK, .ino = ino, .parent = at, .name = {more[i], 2}}};
        check_int(meta_call(v.meta, &link), 0);
        meta_reply_done(&link.reply);
    }
    settle(at);
    struct meta_attr attr;
    check_int(name_lookup(&v, at, "l4", &attr), 0);
    check_uint(attr.nlink, 4);
    check_int(meta_store_detach(v.meta, "other", &error), 0);
    int rc;
    cleanup(free_ptr) char *names = name_list(&v, at, &rc);
    check_str(names, "");
    check(has(other, "l1"));
    volume_close(&v);
    volume_check(v.database);
    volume_open(&v);
}

TEST(stores, read_only_one_is_detached_with_its_deleted_names, .init = begin, .fini = end)
{
    uint64_t at = attached(true);
    name_ino(&v, at, "a");
    check_int(name_unlink(&v, at, "a"), 0);
    check_int(meta_store_detach(v.meta, "other", &error), 0);
    check(has(other, "a"));
    check_int(attach(other, "other", at, true), 0);
    read_is(name_ino(&v, at, "a"), "theirs");
}

TEST(stores, detach_is_refused_while_needed, .init = begin, .fini = end)
{
    uint64_t at = attached(false);
    uint64_t a = name_ino(&v, at, "a");
    v.config.no_settle = true;
    volume_again(&v);
    uint64_t fresh = file_inline(&v, at, "fresh", "unsettled");
    check_int(meta_store_detach(v.meta, "other", &error), -EBUSY);
    read_is(fresh, "unsettled");
    read_is(a, "theirs");
    settle(at);
    check_int(meta_store_detach(v.meta, "other", &error), 0);
    check(has(other, "fresh"));
}

TEST(stores, refused_detach_brings_the_names_back, .init = begin, .fini = end)
{
    uint64_t at = attached(false), ino;
    name_ino(&v, at, "a");
    uint64_t d = name_ino(&v, at, "d");
    name_ino(&v, d, "b");
    /* A link elsewhere needs the object, which is found out only at the end. */
    struct meta_name name = {"link", 4};
    struct meta_request link = {
        .op = {
            .kind = META_LINK, .ino = name_ino(&v, d, "b"), .parent = META_ROOT_INO, .name = name}};
    check_int(meta_call(v.meta, &link), 0);
    meta_reply_done(&link.reply);
    settle(META_ROOT_INO);
    v.config.no_settle = true;
    volume_again(&v);
    /* A pipe is in no store. */
    struct meta_name fifo = {"fifo", 4};
    struct meta_request pipe = {
        .op = {.kind = META_MKNOD, .parent = d, .name = fifo, .attr = {.mode = S_IFIFO | 0644}}};
    check_int(meta_call(v.meta, &pipe), 0);
    meta_reply_done(&pipe.reply);
    check_int(meta_store_detach(v.meta, "other", &error), -EBUSY);
    int rc;
    cleanup(free_ptr) char *names = name_list(&v, at, &rc);
    check_str(names, "a,d/");
    read_is(name_ino(&v, d, "b"), "below");
    read_is(name_ino(&v, META_ROOT_INO, "link"), "below");
    ino = name_ino(&v, at, "a");
    read_is(ino, "theirs");
}

TEST(stores, migrate_moves_all_below, .init = begin, .fini = end)
{
    uint64_t data, sub;
    check_int(name_mkdir(&v, META_ROOT_INO, "data", &data), 0);
    check_int(name_mkdir(&v, data, "sub", &sub), 0);
    uint64_t one = file_object(&v, data, "one", "first", 5, false);
    uint64_t two = file_inline(&v, sub, "two", "second");
    uint64_t stays = file_inline(&v, META_ROOT_INO, "stays", "here");
    settle(META_ROOT_INO);
    check_int(attach(third, "new", 0, false), 0);
    check_int(meta_migrate(v.meta, data, META_MIGRATE_TO, "new", NULL, 0, &error), 0);
    settle(META_ROOT_INO);
    key_is(one, "/1/data/one");
    key_is(two, "/1/data/sub/two");
    key_is(stays, "stays");
    read_is(one, "first");
    read_is(two, "second");
    eventually(bucket_count(&v, "data/") == 0);
    check(has(third, "data/one"));
    check(has(third, "data/sub/two"));
    /* What is made later goes there at once; a rename is followed. */
    key_is(file_object(&v, sub, "later", "x", 1, false), "/1/data/sub/later");
    check_int(name_rename(&v, META_ROOT_INO, "data", META_ROOT_INO, "named"), 0);
    settle(META_ROOT_INO);
    key_is(two, "/1/named/sub/two");
    check_int(meta_store_detach(v.meta, "new", &error), -EBUSY);
    /* And back. */
    check_int(meta_migrate(v.meta, data, META_MIGRATE_CANCEL, NULL, NULL, 0, &error), 0);
    settle(META_ROOT_INO);
    key_is(two, "named/sub/two");
    read_is(two, "second");
    check_int(meta_store_detach(v.meta, "new", &error), 0);
}

TEST(stores, a_place_by_age_is_of_old_files_only, .init = begin, .fini = end)
{
    uint64_t data, sub;
    const uint64_t long_ago = 1000000000;
    check_int(name_mkdir(&v, META_ROOT_INO, "data", &data), 0);
    check_int(name_mkdir(&v, data, "sub", &sub), 0);
    uint64_t old = file_object(&v, sub, "old", "first", 5, false);
    uint64_t young = file_object(&v, sub, "young", "second", 6, false);
    uint64_t beside = file_object(&v, META_ROOT_INO, "beside", "third", 5, false);
    file_set_mtime(&v, old, long_ago);
    file_set_mtime(&v, beside, long_ago);
    check_int(attach(third, "cold", 0, false), 0);
    check_int(meta_migrate(v.meta, data, META_MIGRATE_TO, "cold", NULL, 86400, &error), 0);
    settle(META_ROOT_INO);
    key_is(old, "/1/data/sub/old");
    key_is(young, "data/sub/young");
    key_is(beside, "beside");
    read_is(old, "first");
    /* The volume moves elsewhere: the nearest rule that a file is of counts. */
    check_int(attach(other, "new", 0, false), 0);
    check_int(meta_migrate(v.meta, META_ROOT_INO, META_MIGRATE_TO, "new", NULL, 0, &error), 0);
    settle(META_ROOT_INO);
    key_is(old, "/1/data/sub/old");
    key_is(young, "/2/data/sub/young");
    key_is(beside, "/2/beside");
    volume_again(&v);
    check_int(meta_migrate(v.meta, data, META_MIGRATE_PAUSE, NULL, NULL, 0, &error), 0);
    file_set_mtime(&v, young, long_ago);
    settle(META_ROOT_INO);
    key_is(young, "/2/data/sub/young");
    check_int(meta_migrate(v.meta, data, META_MIGRATE_RESUME, NULL, NULL, 0, &error), 0);
    settle(META_ROOT_INO);
    key_is(young, "/1/data/sub/young");
    check_int(meta_migrate(v.meta, data, META_MIGRATE_CANCEL, NULL, NULL, 0, &error), 0);
    settle(META_ROOT_INO);
    key_is(old, "/2/data/sub/old");
    read_is(young, "second");
}

TEST(stores, the_whole_volume_moves, .init = begin, .fini = end)
{
    uint64_t dir;
    bucket_put(&v, "theirs", "foreign");
    check_int(name_mkdir(&v, META_ROOT_INO, "dir", &dir), 0);
    uint64_t one = file_object(&v, dir, "one", "first", 5, false);
    uint64_t foreign = name_ino(&v, META_ROOT_INO, "theirs");
    settle(META_ROOT_INO);
    check_int(attach(third, "new", 0, false), 0);
    check_int(meta_migrate(v.meta, META_ROOT_INO, META_MIGRATE_TO, "new", NULL, 0, &error), 0);
    settle(META_ROOT_INO);
    key_is(one, "/1/dir/one");
    key_is(foreign, "/1/theirs");
    read_is(foreign, "foreign");
    eventually(bucket_count(&v, "") == bucket_count(&v, ".sluice/"));
    check_uint(bucket_count(&v, ".sluice/o/"), 0);
    /* What others put there is seen. */
    put(third, "outside", "seen");
    check_int(volume_refresh_now(&v, META_ROOT_INO), 0);
    read_is(name_ino(&v, META_ROOT_INO, "outside"), "seen");
    volume_again(&v);
    read_is(one, "first");
    check_int(meta_migrate(v.meta, META_ROOT_INO, META_MIGRATE_CANCEL, NULL, NULL, 0, &error), 0);
    settle(META_ROOT_INO);
    key_is(one, "dir/one");
    key_is(foreign, "theirs");
    bucket_put(&v, "again", "here");
    check_int(volume_refresh_now(&v, META_ROOT_INO), 0);
    read_is(name_ino(&v, META_ROOT_INO, "again"), "here");
    check_int(meta_store_detach(v.meta, "new", &error), 0);
}

TEST(stores, attached_directory_moves_home, .init = begin, .fini = end)
{
    uint64_t at = attached(false);
    uint64_t b = name_ino(&v, name_ino(&v, at, "d"), "b");
    check_int(meta_migrate(v.meta, at, META_MIGRATE_TO, "main", NULL, 0, &error), 0);
    settle(META_ROOT_INO);
    key_is(b, "at/d/b");
    read_is(b, "below");
    read_is(name_ino(&v, at, "a"), "theirs");
    eventually(!has(other, "a"));
    check_int(meta_store_detach(v.meta, "other", &error), 0);
    read_is(b, "below");
}

TEST(stores, paused_migration_moves_nothing, .init = begin, .fini = end)
{
    uint64_t data;
    check_int(name_mkdir(&v, META_ROOT_INO, "data", &data), 0);
    uint64_t one = file_object(&v, data, "one", "first", 5, false);
    settle(META_ROOT_INO);
    check_int(attach(third, "new", 0, false), 0);
    v.config.no_settle = true;
    volume_again(&v);
    check_int(meta_migrate(v.meta, data, META_MIGRATE_TO, "new", NULL, 0, &error), 0);
    check_int(meta_migrate(v.meta, data, META_MIGRATE_PAUSE, NULL, NULL, 0, &error), 0);
    v.config.no_settle = false;
    volume_again(&v);
    settle(META_ROOT_INO);
    key_is(one, "data/one");
    check_int(meta_migrate(v.meta, data, META_MIGRATE_RESUME, NULL, NULL, 0, &error), 0);
    settle(META_ROOT_INO);
    key_is(one, "/1/data/one");
    read_is(one, "first");
}

TEST(stores, only_a_mux_can_open_such_a_volume, .init = begin, .fini = end)
{
    attached(false);
    volume_close(&v);
    struct meta_config config = v.config;
    config.store = v.memory;
    struct meta *meta;
    check_int(meta_open(&config, &meta, &error), -EOPNOTSUPP);
    check(strstr(error.message, "other store") != NULL);
    volume_open(&v);
}
