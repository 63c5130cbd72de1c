/* What of a bucket becomes names, and when. */
#include <errno.h>
#include <jansson.h>
#include <sys/stat.h>

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

static void check_list(uint64_t dir, const char *expected)
{
    int rc = 0;
    cleanup(free_ptr) char *names = name_list(&v, dir, &rc);
    check_int(rc, 0);
    check_str(names, expected);
}

static uint64_t seen(enum store_kind kind)
{
    return store_fault_seen(v.store, kind);
}

TEST(import, lists_a_bucket_that_was_there, .init = init, .fini = fini)
{
    bucket_put(&v, "a", "1");
    bucket_put(&v, "dir/b", "22");
    bucket_put(&v, "dir/sub/c", "333");
    volume_open(&v);
    check_list(META_ROOT_INO, "a,dir/");
    uint64_t dir = name_ino(&v, META_ROOT_INO, "dir");
    check_list(dir, "b,sub/");
    struct meta_attr attr;
    check_int(name_lookup(&v, dir, "b", &attr), 0);
    check_uint(attr.size, 2);
    check(S_ISREG(attr.mode));
    cleanup(free_ptr) char *text = file_read(&v, attr.ino, NULL);
    check_str(text, "22");
}

TEST(import, respects_the_prefix, .init = init, .fini = fini)
{
    bucket_put(&v, "p/a", "1");
    bucket_put(&v, "q", "2");
    v.config.prefix = "p/";
    volume_open(&v);
    check_list(META_ROOT_INO, "a");
}

/* 6,000 files, with directories among them whose names are the beginnings of files' names. */
static void put_large(const char *prefix)
{
    char key[64];
    for (unsigned i = 0; i < 6000; i++) {
        snprintf(key, sizeof(key), "%sf%05u", prefix, i);
        bucket_put(&v, key, "");
        if (i % 50 == 0) {
            snprintf(key, sizeof(key), "%sf%05u-/x", prefix, i);
            bucket_put(&v, key, "");
        }
        if (i % 50 == 1) {
            snprintf(key, sizeof(key), "%sf%04u/x", prefix, i);
            bucket_put(&v, key, "");
        }
    }
}

static unsigned count_names(uint64_t dir)
{
    int rc = 0;
    cleanup(free_ptr) char *names = name_list(&v, dir, &rc);
    check_int(rc, 0);
    unsigned count = 0;
    for (char *save = NULL, *at = strtok_r(names, ",", &save); at; at = strtok_r(NULL, ",", &save))
        count++;
    return count;
}

TEST(import, a_large_directory_by_several_streams, .init = init, .fini = fini)
{
    put_large("big/");
    volume_open(&v);
    uint64_t dir = name_ino(&v, META_ROOT_INO, "big"), lists = seen(STORE_LIST);
    check_uint(count_names(dir), 6240);
    check(seen(STORE_LIST) - lists <= 11); /* seven pages */
    /* Once more, with changes of others: what is the same stays, what is gone goes. */
    uint64_t same = name_ino(&v, dir, "f03000");
    bucket_delete(&v, "big/f04321");
    bucket_delete(&v, "big/f00050-/x");
    bucket_put(&v, "big/f04322+", "new");
    check_int(volume_refresh_now(&v, dir), 0);
    check_int(volume_refresh_now(&v, dir), 0);
    check_uint(count_names(dir), 6239);
    check_uint(name_ino(&v, dir, "f03000"), same);
    check_int(name_lookup(&v, dir, "f04321", NULL), -ENOENT);
    check_int(name_lookup(&v, dir, "f04322+", NULL), 0);
}

TEST(import, lookup_asks_for_one_key_only, .init = init, .fini = fini)
{
    bucket_put(&v, "dir/file", "1");
    bucket_put(&v, "dir/other", "1");
    volume_open(&v);
    uint64_t lists = seen(STORE_LIST);
    uint64_t dir = name_ino(&v, META_ROOT_INO, "dir");
    name_ino(&v, dir, "file");
    check_uint(seen(STORE_LIST) - lists, 2);
    /* Known now: no request. */
    uint64_t heads = seen(STORE_HEAD);
    name_ino(&v, dir, "file");
    check_uint(seen(STORE_HEAD), heads);
    check_list(dir, "file,other");
}

TEST(import, absence_is_believed_for_its_time, .init = init, .fini = fini)
{
    v.config.negative_ttl_ms = 100000;
    volume_open(&v);
    check_int(name_lookup(&v, META_ROOT_INO, "late", NULL), -ENOENT);
    uint64_t heads = seen(STORE_HEAD);
    bucket_put(&v, "late", "x");
    check_int(name_lookup(&v, META_ROOT_INO, "late", NULL), -ENOENT);
    check_uint(seen(STORE_HEAD), heads);
    volume_close(&v);
    v.config.negative_ttl_ms = 0;
    volume_open(&v);
    check_int(name_lookup(&v, META_ROOT_INO, "later", NULL), -ENOENT);
    bucket_put(&v, "later", "x");
    check_int(name_lookup(&v, META_ROOT_INO, "later", NULL), 0);
}

TEST(import, found_name_is_believed_for_its_time, .init = init, .fini = fini)
{
    bucket_put(&v, "dir/a", "1");
    v.config.import_ttl_ms = 100000;
    volume_open(&v);
    uint64_t dir = name_ino(&v, META_ROOT_INO, "dir");
    struct meta_attr attr;
    check_int(name_lookup(&v, dir, "a", &attr), 0);
    bucket_put(&v, "dir/a", "22");
    check_int(name_lookup(&v, dir, "a", &attr), 0);
    check_uint(attr.size, 1);
    volume_close(&v);
    v.config.import_ttl_ms = 1;
    volume_open(&v);
    check_int(volume_refresh_now(&v, name_ino(&v, META_ROOT_INO, "dir")), 0);
    bucket_put(&v, "dir/a", "333");
    bucket_put(&v, "other/b", "1");
    uint64_t other = name_ino(&v, META_ROOT_INO, "other");
    check_int(name_lookup(&v, other, "b", &attr), 0);
    bucket_put(&v, "other/b", "4444");
    sleep_ms(5);
    check_int(name_lookup(&v, dir, "a", &attr), 0);
    check_uint(attr.size, 3);
    check_int(name_lookup(&v, other, "b", &attr), 0);
    check_uint(attr.size, 4);
    bucket_delete(&v, "other/b");
    sleep_ms(5);
    check_int(name_lookup(&v, other, "b", &attr), -ENOENT);
}

TEST(import, listing_is_believed_for_its_time, .init = init, .fini = fini)
{
    bucket_put(&v, "a", "1");
    v.config.import_ttl_ms = 100000;
    volume_open(&v);
    check_list(META_ROOT_INO, "a");
    bucket_put(&v, "b", "1");
    check_list(META_ROOT_INO, "a");
    volume_close(&v);
    v.config.import_ttl_ms = 1;
    volume_open(&v);
    sleep_ms(5);
    check_list(META_ROOT_INO, "a,b");
    bucket_delete(&v, "a");
    sleep_ms(5);
    check_list(META_ROOT_INO, "b");
    sleep_ms(5);
    check_int(name_lookup(&v, META_ROOT_INO, "a", NULL), -ENOENT);
}

TEST(import, refresh_finds_what_changed, .init = init, .fini = fini)
{
    bucket_put(&v, "same", "1");
    bucket_put(&v, "changed", "1");
    bucket_put(&v, "gone", "1");
    bucket_put(&v, "dir/gone", "1");
    bucket_put(&v, "dir/kept", "1");
    volume_open(&v);
    check_list(META_ROOT_INO, "changed,dir/,gone,same");
    uint64_t dir = name_ino(&v, META_ROOT_INO, "dir");
    check_list(dir, "gone,kept");
    uint64_t same = name_ino(&v, META_ROOT_INO, "same");
    bucket_put(&v, "changed", "22");
    bucket_put(&v, "new", "1");
    bucket_delete(&v, "gone");
    bucket_delete(&v, "dir/gone");
    events_clear(&v);
    check_int(volume_refresh_now(&v, META_ROOT_INO), 0);
    check_list(META_ROOT_INO, "changed,dir/,new,same");
    check_list(dir, "kept");
    check(event_seen(&v, "entry 1 gone;"));
    check(event_seen(&v, "entry 1 new;"));
    check(!event_seen(&v, "same"));
    check_uint(name_ino(&v, META_ROOT_INO, "same"), same);
    struct meta_attr attr;
    check_int(name_lookup(&v, META_ROOT_INO, "changed", &attr), 0);
    check_uint(attr.size, 2);
    cleanup(free_ptr) char *text = file_read(&v, attr.ino, NULL);
    check_str(text, "22");
}

/* They have no origin: nothing asks the bucket for what is below them by itself. */
TEST(import, refresh_of_a_directory_that_was_made_here, .init = init, .fini = fini)
{
    uint64_t dir, below, empty;
    volume_open(&v);
    check_list(META_ROOT_INO, "");
    check_int(name_mkdir(&v, META_ROOT_INO, "dir", &dir), 0);
    check_int(name_mkdir(&v, dir, "below", &below), 0);
    check_int(name_mkdir(&v, META_ROOT_INO, "empty", &empty), 0);
    uint64_t ours = file_inline(&v, below, "ours", "1");
    check_int(volume_settle(&v, META_ROOT_INO, NULL), 0);
    bucket_put(&v, "dir/below/theirs", "22");
    bucket_put(&v, "dir/below/deep/theirs", "22");
    check_int(volume_refresh_now(&v, below), 0);
    check_list(below, "deep/,ours,theirs");
    check(event_seen(&v, "theirs;"));
    check_uint(name_ino(&v, below, "ours"), ours);
    check_list(name_ino(&v, below, "deep"), "theirs");
    /* Where the bucket has nothing it stays so: no request is ever needed. */
    check_int(volume_refresh_now(&v, empty), 0);
    uint64_t lists = seen(STORE_LIST), heads = seen(STORE_HEAD);
    check_list(empty, "");
    check_int(name_lookup(&v, empty, "x", NULL), -ENOENT);
    check_uint(seen(STORE_LIST), lists);
    check_uint(seen(STORE_HEAD), heads);
    check_int(name_rmdir(&v, META_ROOT_INO, "empty"), 0);
}

TEST(import, refresh_of_a_file_below_directories_that_were_made_here, .init = init, .fini = fini)
{
    uint64_t dir, below;
    struct meta_attr attr;
    volume_open(&v);
    check_int(name_mkdir(&v, META_ROOT_INO, "dir", &dir), 0);
    check_int(name_mkdir(&v, dir, "below", &below), 0);
    uint64_t file = file_inline(&v, below, "file", "1");
    check_int(volume_settle(&v, META_ROOT_INO, NULL), 0);
    bucket_put(&v, "dir/below/file", "4444");
    check_int(volume_refresh_now(&v, file), 0);
    check_int(name_lookup(&v, below, "file", &attr), 0);
    check_uint(attr.size, 4);
}

TEST(import, refresh_of_one_file_asks_for_its_key, .init = init, .fini = fini)
{
    bucket_put(&v, "dir/a", "1");
    volume_open(&v);
    uint64_t dir = name_ino(&v, META_ROOT_INO, "dir"), a = name_ino(&v, dir, "a");
    bucket_put(&v, "dir/a", "4444");
    check_int(volume_refresh_now(&v, a), 0);
    struct meta_attr attr;
    check_int(name_lookup(&v, dir, "a", &attr), 0);
    check_uint(attr.size, 4);
}

/* Names that order differently from their keys, over several pages. */
TEST(import, pages_and_directories_in_between, .init = init, .fini = fini)
{
    static char big[64 * 1024];
    for (int i = 0; i < 2500; i++) {
        char key[64];
        snprintf(key, sizeof(key), "part-%05d", i);
        bucket_put(&v, key, "x");
    }
    bucket_put(&v, "part/inside", "x");
    bucket_put(&v, "part-00000/inside", "x");
    volume_open(&v);
    for (int round = 0; round < 3; round++) {
        int rc = 0;
        cleanup(free_ptr) char *names = name_list(&v, META_ROOT_INO, &rc);
        check_int(rc, 0);
        snprintf(big, sizeof(big), "%s", names);
        unsigned count = 1;
        for (const char *p = big; *p; p++)
            count += *p == ',';
        check_uint(count, 2501);
        check(strstr(big, "part/,part-00000/,part-00001") != NULL);
        check(strstr(big, ",part-02499") != NULL);
        uint64_t dir = name_ino(&v, META_ROOT_INO, "part");
        check_list(dir, "inside");
        if (round == 1)
            events_clear(&v);
        check_int(volume_refresh_now(&v, META_ROOT_INO), 0);
        /* The directory has not been taken away and made again. */
        check_uint(name_ino(&v, META_ROOT_INO, "part"), dir);
        if (round == 1)
            check_uint(v.events.len, 0);
    }
    bucket_delete(&v, "part/inside");
    bucket_delete(&v, "part-01234");
    check_int(volume_refresh_now(&v, META_ROOT_INO), 0);
    check_int(name_lookup(&v, META_ROOT_INO, "part", NULL), -ENOENT);
    check_int(name_lookup(&v, META_ROOT_INO, "part-01234", NULL), -ENOENT);
    check_int(name_lookup(&v, META_ROOT_INO, "part-01235", NULL), 0);
}

/* A directory of which nothing is known yet comes on a later page than its name's place. */
TEST(import, directory_on_a_later_page_keeps_its_inode, .init = init, .fini = fini)
{
    for (int i = 0; i < 1500; i++) {
        char key[64];
        snprintf(key, sizeof(key), "part-%05d", i);
        bucket_put(&v, key, "x");
    }
    bucket_put(&v, "part/inside", "x");
    volume_open(&v);
    check_int(volume_refresh_now(&v, META_ROOT_INO), 0);
    uint64_t dir = name_ino(&v, META_ROOT_INO, "part");
    events_clear(&v);
    check_int(volume_refresh_now(&v, META_ROOT_INO), 0);
    check_uint(name_ino(&v, META_ROOT_INO, "part"), dir);
    check(!event_seen(&v, "part"));
    bucket_delete(&v, "part/inside");
    check_int(volume_refresh_now(&v, META_ROOT_INO), 0);
    check_int(name_lookup(&v, META_ROOT_INO, "part", NULL), -ENOENT);
}

TEST(import, keys_that_are_no_paths_are_counted, .init = init, .fini = fini)
{
    char name[400];
    memset(name, 'n', sizeof(name));
    name[300] = '\0';
    bucket_put(&v, "good", "1");
    bucket_put(&v, "a//b", "1");
    bucket_put(&v, "../up", "1");
    bucket_put(&v, "./here", "1");
    bucket_put(&v, "dir/", "data");
    bucket_put(&v, "empty/", "");
    bucket_put(&v, "x", "file");
    bucket_put(&v, "x/y", "below");
    bucket_put(&v, name, "1");
    volume_open(&v);
    check_list(META_ROOT_INO, "a/,dir/,empty/,good,x/");
    check_list(name_ino(&v, META_ROOT_INO, "a"), "");
    check_list(name_ino(&v, META_ROOT_INO, "dir"), "");
    check_list(name_ino(&v, META_ROOT_INO, "empty"), "");
    check_list(name_ino(&v, META_ROOT_INO, "x"), "y");
    cleanup(free_ptr) char *status = volume_status(&v);
    json_t *root = json_loads(status, 0, NULL);
    json_t *import = json_object_get(root, "import");
    check_int(json_integer_value(json_object_get(import, "hidden_keys")), 6);
    json_decref(root);
    static const char *const hidden[] = {"\"a//\"", "\"../\"", "\"./\"", "\"dir/\"", "\"x\""};
    for (size_t i = 0; i < ARRAY_LEN(hidden); i++)
        check(strstr(status, hidden[i]) != NULL);
}

TEST(import, own_keys_are_no_files, .init = init, .fini = fini)
{
    bucket_put(&v, "a", "1");
    volume_open(&v);
    check_list(META_ROOT_INO, "a");
    check_int(name_lookup(&v, META_ROOT_INO, ".sluice", NULL), -ENOENT);
}

TEST(import, mode_and_time_of_our_objects_come_back, .init = init, .fini = fini)
{
    struct meta_volume volume = {.id = "0123456789abcdef0123456789abcdef"};
    struct meta_object object = {.id = 5};
    struct meta_attr attr = {
        .mode = S_IFREG | 04751, .uid = 12, .gid = 34, .mtime_ns = 1234567890123456789};
    struct meta_object_tags tags;
    struct iovec iov = {.iov_base = (char *)"x", .iov_len = 1};
    struct store_op put = {.kind = STORE_PUT,
                           .key = "tagged",
                           .iov = &iov,
                           .iov_count = 1,
                           .meta = tags.pairs,
                           .meta_count = meta_object_tags(&volume, &object, &attr, &tags)};
    check_int(store_wait(v.store, &put), 0);
    store_op_reset(&put);
    volume_open(&v);
    struct meta_attr found;
    check_int(name_lookup(&v, META_ROOT_INO, "tagged", &found), 0);
    check_uint(found.mode, S_IFREG | 04751);
    check_uint(found.uid, 12);
    check_uint(found.gid, 34);
    check_uint(found.mtime_ns, 1234567890123456789);
}

TEST(import, store_errors_reach_the_caller, .init = init, .fini = fini)
{
    volume_open(&v);
    volume_fault(&v, (struct store_fault_rule){.kind = STORE_LIST, .result = -EACCES});
    int rc = 0;
    check(name_list(&v, META_ROOT_INO, &rc) == NULL);
    check_int(rc, -EACCES);
    check_int(name_lookup(&v, META_ROOT_INO, "x", NULL), -EACCES);
    volume_no_fault(&v);
    check_list(META_ROOT_INO, "");
}

TEST(import, error_on_a_later_page_is_no_listing, .init = init, .fini = fini)
{
    for (int i = 0; i < 2100; i++) {
        char key[64];
        snprintf(key, sizeof(key), "k%05d", i);
        bucket_put(&v, key, "x");
    }
    volume_open(&v);
    volume_fault(
        &v, (struct store_fault_rule){.kind = STORE_LIST, .skip = 1, .count = 1, .result = -EIO});
    int rc = 0;
    check(name_list(&v, META_ROOT_INO, &rc) == NULL);
    check_int(rc, -EIO);
    volume_no_fault(&v);
    cleanup(free_ptr) char *names = name_list(&v, META_ROOT_INO, &rc);
    check_int(rc, 0);
    check(strstr(names, "k02099") != NULL);
}

static bool is_collected(void)
{
    cleanup(free_ptr) char *status = volume_status(&v);
    return strstr(status, "\"garbage_objects\":0") != NULL;
}

static void ignore(struct meta_task *task)
{
}

#define ASKERS 8

static void *list_root(void *arg)
{
    int rc = 0;
    char *names = name_list(&v, META_ROOT_INO, &rc);
    free(names);
    return (void *)(intptr_t)rc;
}

TEST(import, askers_share_one_listing, .init = init, .fini = fini)
{
    bucket_put(&v, "a", "1");
    volume_open(&v);
    uint64_t lists = seen(STORE_LIST);
    late_store_hold_answers(v.late, STORE_LIST);
    pthread_t threads[ASKERS];
    for (int i = 0; i < ASKERS; i++)
        pthread_create(&threads[i], NULL, list_root, NULL);
    eventually(late_store_held(v.late) == 1);
    sleep_ms(50);
    late_store_release(v.late);
    void *rc = NULL;
    for (int i = 0; i < ASKERS; i++) {
        pthread_join(threads[i], &rc);
        check(!rc);
    }
    check_uint(seen(STORE_LIST) - lists, 1);
}

/* Some pages are listed before, some after we write, and the range of each is applied once. */
TEST(import, what_we_write_while_many_pages_are_on_their_way, .init = init, .fini = fini)
{
    char name[32];
    put_large("");
    v.config.negative_ttl_ms = 1000000;
    volume_open(&v);
    for (unsigned i = 500; i < 6000; i += 1100) { /* so that creating them asks for nothing */
        snprintf(name, sizeof(name), "f%05ux", i);
        check_int(name_lookup(&v, META_ROOT_INO, name, NULL), -ENOENT);
    }
    uint64_t lists = seen(STORE_LIST);
    volume_fault(&v, (struct store_fault_rule){.kind = STORE_LIST, .delay_ms = 20});
    pthread_t thread;
    pthread_create(&thread, NULL, list_root, NULL);
    eventually(seen(STORE_LIST) - lists >= 2);
    late_store_hold_answers(v.late, STORE_LIST);
    eventually(late_store_held(v.late) >= 1);
    for (unsigned i = 500; i < 6000; i += 1100) {
        snprintf(name, sizeof(name), "f%05ux", i);
        file_object(&v, META_ROOT_INO, name, name, strlen(name), false);
    }
    late_store_release(v.late);
    void *rc = NULL;
    pthread_join(thread, &rc);
    check(!rc);
    check_uint(count_names(META_ROOT_INO), 6240 + 5);
}

TEST(import, close_ends_what_waits, .init = init, .fini = fini)
{
    volume_open(&v);
    volume_fault(&v, (struct store_fault_rule){.kind = STORE_LIST, .delay_ms = 200});
    pthread_t thread;
    uint64_t lists = seen(STORE_LIST);
    pthread_create(&thread, NULL, list_root, NULL);
    eventually(seen(STORE_LIST) > lists);
    volume_close(&v);
    void *rc = NULL;
    pthread_join(thread, &rc);
    check((intptr_t)rc == -EIO || (intptr_t)rc == 0);
}

TEST(import, rename_keeps_the_origin, .init = init, .fini = fini)
{
    bucket_put(&v, "dir/a", "1");
    bucket_put(&v, "dir/b", "2");
    volume_open(&v);
    uint64_t dir = name_ino(&v, META_ROOT_INO, "dir");
    check_int(name_rename(&v, META_ROOT_INO, "dir", META_ROOT_INO, "moved"), 0);
    check_list(dir, "a,b");
    check_int(name_lookup(&v, META_ROOT_INO, "dir", NULL), -ENOENT);
    check_int(volume_refresh_now(&v, META_ROOT_INO), 0);
    check_list(META_ROOT_INO, "moved/");
    uint64_t b = name_ino(&v, dir, "b");
    cleanup(free_ptr) char *text = file_read(&v, b, NULL);
    check_str(text, "2");
}

TEST(import, rmdir_looks_whether_it_is_empty, .init = init, .fini = fini)
{
    bucket_put(&v, "full/a", "1");
    bucket_put(&v, "empty/", "");
    volume_open(&v);
    name_ino(&v, META_ROOT_INO, "full");
    name_ino(&v, META_ROOT_INO, "empty");
    check_int(name_rmdir(&v, META_ROOT_INO, "full"), -ENOTEMPTY);
    check_int(name_rmdir(&v, META_ROOT_INO, "empty"), 0);
}

/* I5: a reader that finds the object changed. */
TEST(import, changed_object_is_noticed, .init = init, .fini = fini)
{
    bucket_put(&v, "f", "first");
    volume_open(&v);
    uint64_t ino = name_ino(&v, META_ROOT_INO, "f");
    struct meta_request request = {.op = {.kind = META_EXTENTS, .ino = ino}};
    check_int(meta_call(v.meta, &request), 0);
    uint64_t object = request.reply.objects[0].id;
    meta_reply_done(&request.reply);
    check_int(volume_object_changed(&v, ino, object), 0);
    bucket_put(&v, "f", "second!");
    check(file_read(&v, ino, NULL) == NULL);
    check_int(volume_object_changed(&v, ino, object), -ESTALE);
    cleanup(free_ptr) char *text = file_read(&v, ino, NULL);
    check_str(text, "second!");
    check(event_seen(&v, "data"));
}

TEST(import, deleted_object_is_noticed, .init = init, .fini = fini)
{
    bucket_put(&v, "f", "first");
    volume_open(&v);
    uint64_t ino = name_ino(&v, META_ROOT_INO, "f");
    struct meta_request request = {.op = {.kind = META_EXTENTS, .ino = ino}};
    check_int(meta_call(v.meta, &request), 0);
    uint64_t object = request.reply.objects[0].id;
    meta_reply_done(&request.reply);
    bucket_delete(&v, "f");
    check_int(volume_object_changed(&v, ino, object), -ESTALE);
    check(event_seen(&v, "entry 1 f;"));
    check_int(name_lookup(&v, META_ROOT_INO, "f", NULL), -ENOENT);
}

/* What was deleted here does not come back by a listing that was asked for before. */
TEST(import, deleted_file_does_not_come_back, .init = init, .fini = fini)
{
    bucket_put(&v, "f", "1");
    bucket_put(&v, "g", "1");
    volume_open(&v);
    check_int(name_lookup(&v, META_ROOT_INO, "f", NULL), 0);
    late_store_hold_answers(v.late, STORE_LIST);
    pthread_t thread;
    pthread_create(&thread, NULL, list_root, NULL);
    eventually(late_store_held(v.late) == 1);
    check_int(name_unlink(&v, META_ROOT_INO, "f"), 0);
    eventually(is_collected());
    late_store_release(v.late);
    pthread_join(thread, NULL);
    check_list(META_ROOT_INO, "g");
}

TEST(import, deleted_file_does_not_come_back_by_its_name, .init = init, .fini = fini)
{
    bucket_put(&v, "d/f", "1");
    volume_open(&v);
    uint64_t dir = name_ino(&v, META_ROOT_INO, "d");
    check_int(name_lookup(&v, dir, "f", NULL), 0);
    check_int(volume_refresh_now(&v, dir), 0);
    uint64_t f = name_ino(&v, dir, "f");
    late_store_hold_answers(v.late, STORE_HEAD);
    struct meta_task task = {.ino = f, .done = ignore};
    meta_refresh(v.meta, &task);
    eventually(late_store_held(v.late) == 1);
    check_int(name_unlink(&v, dir, "f"), 0);
    late_store_release(v.late);
    eventually(is_collected());
    check_int(name_lookup(&v, dir, "f", NULL), -ENOENT);
    volume_close(&v);
}
