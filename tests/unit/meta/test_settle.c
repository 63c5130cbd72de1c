/* Files become one plain object at their own key. */
#include <errno.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "late_store.h"
#include "volume/volume.h"
#include "volume_lib.h"

static struct volume v;
static char big[300 * 1024];

static void init(void)
{
    volume_begin(&v);
    v.config.no_settle = true;
    for (size_t i = 0; i < sizeof(big); i++)
        big[i] = (char)('a' + i % 26 + i / 1000 % 3);
}

static void fini(void)
{
    volume_end(&v);
}

static void settle_all(void)
{
    struct error error = {0};
    int rc = volume_settle(&v, META_ROOT_INO, &error);
    if (rc)
        test_fail("settle: %d %s", rc, error.message);
}

static void check_object(const char *key, const void *data, size_t len)
{
    cleanup(free_ptr) char *text = bucket_get(&v, key);
    check(text != NULL);
    check_uint(strlen(text), len);
    check_mem(text, data, len);
}

static void check_file(uint64_t ino, const void *data, size_t len)
{
    size_t got = 0;
    cleanup(free_ptr) char *text = file_read(&v, ino, &got);
    check(text != NULL);
    check_uint(got, len);
    check_mem(text, data, len);
}

static void check_keys(const char *expected)
{
    cleanup(free_ptr) char *keys = bucket_keys(&v, "");
    check_str(keys, expected);
}

TEST(settle, inline_files_become_objects, .init = init, .fini = fini)
{
    volume_open(&v);
    uint64_t dir, ino = file_inline(&v, META_ROOT_INO, "a", "hello");
    check_int(name_mkdir(&v, META_ROOT_INO, "d", &dir), 0);
    file_inline(&v, dir, "b", "world");
    file_inline(&v, dir, "empty", "");
    settle_all();
    check_keys("a,d/b,d/empty");
    check_object("a", "hello", 5);
    check_object("d/empty", "", 0);
    check_file(ino, "hello", 5);
    char event[64];
    snprintf(event, sizeof(event), "extents %llu;", (unsigned long long)ino);
    check(event_seen(&v, event));
}

TEST(settle, runs_by_itself, .init = init, .fini = fini)
{
    v.config.no_settle = false;
    volume_open(&v);
    file_inline(&v, META_ROOT_INO, "a", "hello");
    eventually(bucket_has(&v, "a"));
}

/* Somebody asks for something all the time. */
static bool beside_operations(bool reached)
{
    for (int i = 0; i < 50; i++) /* enough for one of two stretches of time */
        name_ino(&v, META_ROOT_INO, "a");
    return reached;
}

static bool is_held_back(void)
{
    cleanup(free_ptr) char *status = volume_status(&v);
    return strstr(status, "\"held_back\":true") != NULL;
}

TEST(settle, waits_for_a_pause_but_not_for_ever, .init = init, .fini = fini)
{
    v.config.no_settle = false;
    v.format.settle_delay_ms = 100;
    volume_open(&v);
    file_inline(&v, META_ROOT_INO, "a", "hello");
    eventually(beside_operations(is_held_back()));
    eventually(beside_operations(bucket_has(&v, "a")));
    check_object("a", "hello", 5);
}

TEST(settle, who_waits_is_not_held_back, .init = init, .fini = fini)
{
    v.config.no_settle = false;
    v.format.settle_delay_ms = 3600 * 1000; /* so the pace would hold it for ten hours */
    volume_open(&v);
    file_inline(&v, META_ROOT_INO, "a", "hello");
    settle_all();
    check_object("a", "hello", 5);
}

TEST(settle, objects_are_copied_by_the_store, .init = init, .fini = fini)
{
    volume_open(&v);
    uint64_t ino = file_object(&v, META_ROOT_INO, "a", big, sizeof(big), true);
    uint64_t gets = store_fault_seen(v.store, STORE_GET);
    settle_all();
    check_uint(store_fault_seen(v.store, STORE_GET), gets);
    check_uint(store_fault_seen(v.store, STORE_MPU_PART_COPY), 1);
    check_object("a", big, sizeof(big));
    check_file(ino, big, sizeof(big));
}

TEST(settle, renamed_file_moves_to_its_new_key, .init = init, .fini = fini)
{
    volume_open(&v);
    uint64_t ino = file_inline(&v, META_ROOT_INO, "a", "hello");
    settle_all();
    check_int(name_rename(&v, META_ROOT_INO, "a", META_ROOT_INO, "b"), 0);
    settle_all();
    check_object("b", "hello", 5);
    check_file(ino, "hello", 5);
    v.config.no_settle = false; /* gc, too: it worked while somebody waited only */
    volume_again(&v);
    eventually(!bucket_has(&v, "a"));
}

TEST(settle, renamed_foreign_directory_moves_whole, .init = init, .fini = fini)
{
    bucket_put(&v, "d/one", "1");
    bucket_put(&v, "d/sub/two", "22");
    volume_open(&v);
    name_ino(&v, META_ROOT_INO, "d");
    check_int(name_rename(&v, META_ROOT_INO, "d", META_ROOT_INO, "e"), 0);
    settle_all();
    v.config.no_settle = false;
    volume_again(&v);
    eventually(({
        char *keys = bucket_keys(&v, "");
        bool done = !strcmp(keys, "e/one,e/sub/two");
        free(keys);
        done;
    }));
}

TEST(settle, exchanged_files_change_places, .init = init, .fini = fini)
{
    volume_open(&v);
    file_inline(&v, META_ROOT_INO, "a", "was a");
    file_inline(&v, META_ROOT_INO, "b", "was b");
    settle_all();
    check_int(name_rename(&v, META_ROOT_INO, "a", META_ROOT_INO, "t"), 0);
    check_int(name_rename(&v, META_ROOT_INO, "b", META_ROOT_INO, "a"), 0);
    check_int(name_rename(&v, META_ROOT_INO, "t", META_ROOT_INO, "b"), 0);
    settle_all();
    check_object("a", "was b", 5);
    check_object("b", "was a", 5);
}

TEST(settle, rewritten_file_replaces_its_object, .init = init, .fini = fini)
{
    volume_open(&v);
    uint64_t ino = file_inline(&v, META_ROOT_INO, "a", "first");
    settle_all();
    check_int(file_write_inline(&v, ino, "second"), 0);
    settle_all();
    check_object("a", "second", 6);
    check_int(file_write_object(&v, ino, 0, big, sizeof(big), true, true, NULL), 0);
    settle_all();
    check_object("a", big, sizeof(big));
    check_file(ino, big, sizeof(big));
}

TEST(settle, many_pieces_are_joined, .init = init, .fini = fini)
{
    volume_open(&v);
    uint64_t ino;
    check_int(name_create(&v, META_ROOT_INO, "a", &ino), 0);
    size_t piece = sizeof(big) / 10;
    for (size_t i = 0; i < 10; i++)
        check_int(file_write_object(&v, ino, i * piece, big + i * piece, piece, true, false, NULL),
                  0);
    settle_all();
    check_object("a", big, piece * 10);
    check_file(ino, big, piece * 10);
}

TEST(settle, staging_names_stay_internal, .init = init, .fini = fini)
{
    volume_open(&v);
    uint64_t dir, ino;
    check_int(name_mkdir(&v, META_ROOT_INO, "_temporary", &dir), 0);
    ino = file_inline(&v, dir, "part", "bytes");
    settle_all();
    check_keys("");
    check_file(ino, "bytes", 5);
    check_int(name_rename(&v, dir, "part", META_ROOT_INO, "part"), 0);
    settle_all();
    check_keys("part");
}

TEST(settle, objects_carry_what_posix_knows, .init = init, .fini = fini)
{
    volume_open(&v);
    uint64_t ino = file_inline(&v, META_ROOT_INO, "a", "hello");
    struct meta_request request = {
        .op = {.kind = META_SETATTR,
               .ino = ino,
               .valid = META_SET_MODE | META_SET_UID | META_SET_MTIME,
               .attr = {.mode = 0751, .uid = 7, .mtime_ns = 1234567890000000001}}};
    check_int(meta_call(v.meta, &request), 0);
    meta_reply_done(&request.reply);
    settle_all();
    struct store_op head = {.kind = STORE_HEAD, .key = "a"};
    check_int(store_wait(v.store, &head), 0);
    check_str(store_op_meta(&head, "sluice-volume"), meta_volume(v.meta)->id);
    check(store_op_meta(&head, "sluice-object") != NULL);
    check_str(store_op_meta(&head, "sluice-mode"), "751");
    check_str(store_op_meta(&head, "sluice-uid"), "7");
    check_str(store_op_meta(&head, "sluice-mtime"), "1234567890.000000001");
    store_op_reset(&head);
}

/* The name that a file got beside `name`, the first of those; "" if there is none. */
static void beside(uint64_t dir, const char *name, char out[META_NAME_MAX + 1])
{
    char start[META_NAME_MAX + 1];
    cleanup(free_ptr) char *list = name_list(&v, dir, NULL);
    snprintf(start, sizeof(start), "%s" META_CONFLICT_SUFFIX, name);
    char *at = strstr(list, start);
    snprintf(out, META_NAME_MAX + 1, "%.*s", at ? (int)strcspn(at, ",") : 0, at ? at : "");
}

static void check_beside(const char *name, uint64_t ino, const void *data, size_t len)
{
    char ours[META_NAME_MAX + 1];
    beside(META_ROOT_INO, name, ours);
    check(ours[0] != '\0');
    check_uint(name_ino(&v, META_ROOT_INO, ours), ino);
    check_file(ino, data, len);
    check_object(ours, data, len);
}

/* I1, I2: what others put at the key is not overwritten. Both are kept, and the user is told. */
TEST(settle, a_foreign_object_at_the_key_gets_the_name, .init = init, .fini = fini)
{
    volume_open(&v);
    uint64_t ino = file_inline(&v, META_ROOT_INO, "a", "mine");
    uint64_t large = file_object(&v, META_ROOT_INO, "b", big, sizeof(big), true);
    bucket_put(&v, "a", "somebody's");
    bucket_put(&v, "b", "somebody's");
    settle_all();
    check_object("a", "somebody's", 10);
    check_object("b", "somebody's", 10);
    check_file(name_ino(&v, META_ROOT_INO, "a"), "somebody's", 10);
    check_file(name_ino(&v, META_ROOT_INO, "b"), "somebody's", 10);
    check_beside("a", ino, "mine", 4);
    check_beside("b", large, big, sizeof(big));
    check_uint(bucket_uploads(&v), 0);
    check(event_seen(&v, "entry 1 a;"));
    check(event_seen(&v, "entry 1 a" META_CONFLICT_SUFFIX));
    cleanup(free_ptr) char *status = volume_status(&v);
    check(strstr(status, "\"conflicts\":2") != NULL);
    check(strstr(status, "\"a" META_CONFLICT_SUFFIX) != NULL);
    check(strstr(status, "\"failing\":[]") != NULL);
}

/* The same on a store that ignores conditions: HEAD comes first. */
TEST(settle, both_are_kept_without_conditional_writes, .init = init, .fini = fini)
{
    v.store->caps.put_if_none_match = v.store->caps.complete_if_none_match = false;
    volume_open(&v);
    uint64_t ino = file_inline(&v, META_ROOT_INO, "a", "mine");
    file_inline(&v, META_ROOT_INO, "c", "free");
    bucket_put(&v, "a", "somebody's");
    settle_all();
    check_object("a", "somebody's", 10);
    check_object("c", "free", 4);
    check_beside("a", ino, "mine", 4);
}

/* I2: our own object is replaced only if it is still what we wrote. */
TEST(settle, a_changed_file_replaced_by_others_is_kept, .init = init, .fini = fini)
{
    volume_open(&v);
    uint64_t ino = file_inline(&v, META_ROOT_INO, "a", "first");
    settle_all();
    bucket_put(&v, "a", "somebody's");
    check_int(file_write_inline(&v, ino, "second"), 0);
    settle_all();
    check_object("a", "somebody's", 10);
    check_file(name_ino(&v, META_ROOT_INO, "a"), "somebody's", 10);
    check_beside("a", ino, "second", 6);
}

/* Twice within a second, and a name that is as long as names may be. */
TEST(settle, names_beside_are_free_and_short_enough, .init = init, .fini = fini)
{
    char name[META_NAME_MAX + 1], ours[META_NAME_MAX + 1];
    memset(name, 'n', META_NAME_MAX - 2);
    memcpy(name + META_NAME_MAX - 2, "\xc3\xa9", 3); /* one character, cut as a whole */
    volume_open(&v);
    uint64_t ino[3];
    for (unsigned i = 0; i < ARRAY_LEN(ino); i++) {
        ino[i] = file_inline(&v, META_ROOT_INO, i ? "a" : name, i == 2 ? "2" : "1");
        bucket_put(&v, i ? "a" : name, i == 2 ? "theirs 2" : "theirs");
        settle_all();
        bucket_delete(&v, "a");
        check_int(volume_refresh_now(&v, META_ROOT_INO), 0);
    }
    name[META_NAME_MAX - 60] = '\0';
    cleanup(free_ptr) char *list = name_list(&v, META_ROOT_INO, NULL);
    check(strstr(list, name) != NULL);
    check_file(ino[0], "1", 1);
    check_file(ino[1], "1", 1);
    check_file(ino[2], "2", 1);
    beside(META_ROOT_INO, "a", ours);
    check_object(ours, "1", 1);
    cleanup(free_ptr) char *keys = bucket_keys(&v, "a" META_CONFLICT_SUFFIX);
    check(strchr(keys, ',') != NULL);
}

/* A file of which a part was changed here, the rest is what somebody else has overwritten. What was
 * written here is kept beside; the lost rest fails to be read, and is not read from theirs. */
TEST(settle, a_partly_changed_file_keeps_its_changes, .init = init, .fini = fini)
{
    volume_open(&v);
    uint64_t ino = file_object(&v, META_ROOT_INO, "a", big, sizeof(big), false);
    settle_all();
    check_int(file_write_object(&v, ino, sizeof(big) - 4, "HERE", 4, true, false, NULL), 0);
    bucket_put(&v, "a", "somebody's");
    check_int(volume_settle(&v, META_ROOT_INO, NULL), -EIO);
    eventually(event_seen(&v, "entry 1 a" META_CONFLICT_SUFFIX));
    char ours[META_NAME_MAX + 1];
    beside(META_ROOT_INO, "a", ours);
    check_uint(name_ino(&v, META_ROOT_INO, ours), ino);
    check_file(name_ino(&v, META_ROOT_INO, "a"), "somebody's", 10);
    size_t len;
    check(file_read(&v, ino, &len) == NULL);
    /* What is written over the rest is whole again. */
    check_int(file_write_object(&v, ino, 0, big, sizeof(big), true, true, NULL), 0);
    settle_all();
    check_object(ours, big, sizeof(big));
    check_object("a", "somebody's", 10);
}

/* The bytes are lost, but the key is not ours any more: what others put there later is seen. */
TEST(settle, a_lost_object_does_not_hide_others, .init = init, .fini = fini)
{
    volume_open(&v);
    uint64_t ino = file_object(&v, META_ROOT_INO, "a", big, sizeof(big), false);
    settle_all();
    bucket_put(&v, "a", "somebody's");
    check_int(name_rename(&v, META_ROOT_INO, "a", META_ROOT_INO, "b"), 0);
    check_int(volume_settle(&v, META_ROOT_INO, NULL), -EIO);
    eventually(({
        volume_refresh_now(&v, META_ROOT_INO);
        name_lookup(&v, META_ROOT_INO, "a", NULL) == 0;
    }));
    check_file(name_ino(&v, META_ROOT_INO, "a"), "somebody's", 10);
    check_uint(name_ino(&v, META_ROOT_INO, "b"), ino);
}

/* Others delete the object of a file with changes: the changes stay. */
TEST(settle, a_changed_file_deleted_by_others_stays, .init = init, .fini = fini)
{
    volume_open(&v);
    uint64_t ino = file_object(&v, META_ROOT_INO, "a", big, sizeof(big), false);
    settle_all();
    check_int(file_write_object(&v, ino, sizeof(big) - 4, "HERE", 4, true, false, NULL), 0);
    bucket_delete(&v, "a");
    check_int(volume_refresh_now(&v, META_ROOT_INO), 0);
    check_int(volume_settle(&v, META_ROOT_INO, NULL), -EIO);
    check_int(volume_refresh_now(&v, META_ROOT_INO), 0);
    check_uint(name_ino(&v, META_ROOT_INO, "a"), ino);
    check_int(file_write_object(&v, ino, 0, big, sizeof(big), true, true, NULL), 0);
    settle_all();
    check_object("a", big, sizeof(big));
}

TEST(settle, deleted_by_others_meanwhile_is_written, .init = init, .fini = fini)
{
    volume_open(&v);
    uint64_t ino = file_inline(&v, META_ROOT_INO, "a", "first");
    settle_all();
    bucket_delete(&v, "a");
    check_int(file_write_inline(&v, ino, "second"), 0);
    settle_all();
    check_object("a", "second", 6);
}

/* The write was done, its reply lost, and the retry finds the key taken: by us. */
TEST(settle, lost_reply_is_recognised, .init = init, .fini = fini)
{
    volume_open(&v);
    uint64_t ino = file_inline(&v, META_ROOT_INO, "a", "hello");
    const struct store_fault_rule rules[] = {
        {.kind = STORE_PUT, .key_part = "a", .count = 1, .result = -EEXIST, .after = true},
        {.kind = STORE_MPU_COMPLETE, .count = 1, .result = -EEXIST, .after = true},
    };
    file_object(&v, META_ROOT_INO, "b", big, sizeof(big), true);
    store_fault_set(v.store, rules, 2);
    settle_all();
    check_object("a", "hello", 5);
    check_object("b", big, sizeof(big));
    check_file(ino, "hello", 5);
}

/* I3: what is written must be verified before it takes the file's place. */
TEST(settle, cut_object_is_not_taken, .init = init, .fini = fini)
{
    struct error error = {0};
    volume_open(&v);
    uint64_t ino = file_inline(&v, META_ROOT_INO, "a", "hello");
    volume_fault(&v, (struct store_fault_rule){
                         .kind = STORE_PUT, .key_part = "a", .count = 1, .corrupt = true});
    check_int(volume_settle(&v, META_ROOT_INO, &error), -EIO);
    check(strstr(error.message, "not what was written") != NULL);
    check_file(ino, "hello", 5);
}

/* The first object shows that the store keeps our tags. */
static void open_tagged(void)
{
    volume_open(&v);
    file_inline(&v, META_ROOT_INO, "first", "");
    settle_all();
}

/* A file written once costs one PUT: its answer says that the store has the bytes. */
TEST(settle, an_uploaded_file_costs_one_put, .init = init, .fini = fini)
{
    open_tagged();
    uint64_t heads = store_fault_seen(v.store, STORE_HEAD);
    uint64_t puts = store_fault_seen(v.store, STORE_PUT), ino[4];
    char name[2] = "a";
    for (unsigned i = 0; i < ARRAY_LEN(ino); i++, name[0]++)
        ino[i] = file_inline(&v, META_ROOT_INO, name, "hello");
    settle_all();
    check_uint(store_fault_seen(v.store, STORE_HEAD), heads);
    check_uint(store_fault_seen(v.store, STORE_PUT), puts + ARRAY_LEN(ino));
    check_keys("a,b,c,d,first");
    check_file(ino[3], "hello", 5);
}

/* A copy whose ETags are MD5s is known by them, too. */
TEST(settle, a_copied_file_costs_one_copy, .init = init, .fini = fini)
{
    open_tagged();
    uint64_t ino = file_object(&v, META_ROOT_INO, "a", big, sizeof(big), true);
    uint64_t heads = store_fault_seen(v.store, STORE_HEAD);
    settle_all();
    check_uint(store_fault_seen(v.store, STORE_HEAD), heads);
    check_uint(store_fault_seen(v.store, STORE_MPU_PART_COPY), 1);
    check_object("a", big, sizeof(big));
    check_file(ino, big, sizeof(big));
}

/* One that has compared nothing is asked. */
TEST(settle, an_unchecked_upload_is_looked_at, .init = init, .fini = fini)
{
    open_tagged();
    uint64_t heads = store_fault_seen(v.store, STORE_HEAD);
    uint64_t ino = file_inline(&v, META_ROOT_INO, "a", "");
    volume_fault(&v, (struct store_fault_rule){
                         .kind = STORE_PUT, .key_part = "a", .count = 1, .corrupt = true});
    settle_all();
    check_uint(store_fault_seen(v.store, STORE_HEAD), heads + 1);
    check_file(ino, "", 0);
}

/* Without conditional writes somebody else may have written in between: a look behind. */
TEST(settle, an_unconditional_upload_is_looked_at, .init = init, .fini = fini)
{
    v.store->caps.put_if_none_match = v.store->caps.complete_if_none_match = false;
    open_tagged();
    uint64_t heads = store_fault_seen(v.store, STORE_HEAD);
    file_inline(&v, META_ROOT_INO, "a", "hello");
    settle_all();
    check_uint(store_fault_seen(v.store, STORE_HEAD), heads + 2);
}

/* I3: the file is changed between the copy and the swap. */
TEST(settle, change_during_the_step_wins, .init = init, .fini = fini)
{
    v.config.no_settle = false;
    volume_open(&v);
    late_store_hold_requests(v.late, STORE_PUT);
    uint64_t ino = file_inline(&v, META_ROOT_INO, "a", "first");
    eventually(late_store_held(v.late) == 1);
    check_int(file_write_inline(&v, ino, "second"), 0);
    late_store_release(v.late);
    eventually(bucket_has(&v, "a"));
    check_file(ino, "second", 6);
    settle_all();
    check_object("a", "second", 6);
    check_file(ino, "second", 6);
}

/* The old content's object is deleted under the copy: that is no failure that anybody waits for. */
TEST(settle, a_source_that_went_with_the_old_content_is_no_failure, .init = init, .fini = fini)
{
    char key[META_KEY_MAX + 1];
    v.config.no_settle = false;
    volume_open(&v);
    late_store_hold_requests(v.late, STORE_MPU_PART_COPY);
    uint64_t ino = file_object(&v, META_ROOT_INO, "a", big, sizeof(big), true);
    eventually(late_store_held(v.late) == 1);
    file_key(&v, ino, key);
    check(bucket_has(&v, key));
    check_int(file_write_inline(&v, ino, "second"), 0);
    eventually(!bucket_has(&v, key)); /* gc was there */
    late_store_release(v.late);
    settle_all();
    check_object("a", "second", 6);
    cleanup(free_ptr) char *status = volume_status(&v);
    check(strstr(status, "\"failed_tries\":0,") != NULL);
    check(strstr(status, "\"changed_meanwhile\":0,") == NULL);
}

TEST(settle, unlinked_during_the_step, .init = init, .fini = fini)
{
    v.config.no_settle = false;
    volume_open(&v);
    late_store_hold_requests(v.late, STORE_PUT);
    file_inline(&v, META_ROOT_INO, "a", "first");
    eventually(late_store_held(v.late) == 1);
    check_int(name_unlink(&v, META_ROOT_INO, "a"), 0);
    late_store_release(v.late);
    eventually(({
        char *keys = bucket_keys(&v, "");
        bool empty = !*keys;
        free(keys);
        char *status = volume_status(&v);
        bool collected = strstr(status, "\"garbage_objects\":0") != NULL;
        free(status);
        empty &&collected;
    }));
}

TEST(settle, errors_of_the_store_are_retried, .init = init, .fini = fini)
{
    v.config.no_settle = false;
    volume_open(&v);
    volume_fault(&v, (struct store_fault_rule){
                         .kind = STORE_PUT, .key_part = "a", .count = 2, .result = -EIO});
    file_inline(&v, META_ROOT_INO, "a", "hello");
    eventually(bucket_has(&v, "a"));
}

TEST(settle, failed_upload_is_aborted, .init = init, .fini = fini)
{
    struct error error = {0};
    volume_open(&v);
    file_object(&v, META_ROOT_INO, "a", big, sizeof(big), true);
    volume_fault(&v, (struct store_fault_rule){.kind = STORE_MPU_PART_COPY, .result = -EIO});
    check_int(volume_settle(&v, META_ROOT_INO, &error), -EIO);
    check_uint(bucket_uploads(&v), 0);
    check(!bucket_has(&v, "a"));
    volume_no_fault(&v);
    settle_all();
    check_object("a", big, sizeof(big));
}

/* Its reply was lost, and the look at it failed: the next try finds the object, not its own upload.
 */
TEST(settle, upload_of_a_repeated_step_is_not_left, .init = init, .fini = fini)
{
    struct error error = {0};
    const struct store_fault_rule rules[] = {
        {.kind = STORE_MPU_COMPLETE, .count = 1, .result = -EIO, .after = true},
        {.kind = STORE_HEAD, .key_part = "a", .count = 1, .result = -EIO},
    };
    volume_open(&v);
    uint64_t ino = file_object(&v, META_ROOT_INO, "a", big, sizeof(big), true);
    store_fault_set(v.store, rules, 2);
    check_int(volume_settle(&v, META_ROOT_INO, &error), -EIO);
    volume_no_fault(&v);
    settle_all();
    check_object("a", big, sizeof(big));
    check_file(ino, big, sizeof(big));
    check_uint(store_fault_seen(v.store, STORE_MPU_CREATE), 2);
    check_uint(bucket_uploads(&v), 0);
}

/* A file that can never be settled does not keep its key's old object from gc. */
TEST(settle, a_lost_source_leaves_no_garbage, .init = init, .fini = fini)
{
    struct error error = {0};
    v.config.no_settle = false;
    v.format.settle_delay_ms = 3600 * 1000;
    v.format.gc_delay_ms = 1000; /* the step begins before gc does */
    bucket_put(&v, "b", "theirs");
    volume_open(&v);
    name_ino(&v, META_ROOT_INO, "b");
    file_inline(&v, META_ROOT_INO, "a", "ours");
    settle_all();
    check_int(name_unlink(&v, META_ROOT_INO, "a"), 0);
    check_int(name_rename(&v, META_ROOT_INO, "b", META_ROOT_INO, "a"), 0);
    bucket_delete(&v, "b");
    check_int(volume_settle(&v, META_ROOT_INO, &error), -EIO);
    check(strstr(error.message, "changed from outside") != NULL);
    eventually(!bucket_has(&v, "a"));
}

/* I5 of settle's own reads. */
static void check_changed_source(size_t size)
{
    struct error error = {0};
    bucket_put_size(&v, "a", size);
    volume_open(&v);
    name_ino(&v, META_ROOT_INO, "a");
    big[size] = '\0';
    bucket_put(&v, "a", big);
    check_int(name_rename(&v, META_ROOT_INO, "a", META_ROOT_INO, "b"), 0);
    check_int(volume_settle(&v, META_ROOT_INO, &error), -EIO);
    check(strstr(error.message, "changed from outside") != NULL);
    check(!bucket_has(&v, "b"));
    check_object("a", big, size);
}

TEST(settle, changed_source_is_not_sent, .init = init, .fini = fini)
{
    check_changed_source(100);
}

TEST(settle, changed_source_is_not_copied, .init = init, .fini = fini)
{
    check_changed_source(sizeof(big) - 1);
}

TEST(settle, waits_only_for_what_is_below, .init = init, .fini = fini)
{
    struct error error = {0};
    volume_open(&v);
    uint64_t one, two;
    check_int(name_mkdir(&v, META_ROOT_INO, "one", &one), 0);
    check_int(name_mkdir(&v, META_ROOT_INO, "two", &two), 0);
    file_inline(&v, one, "a", "1");
    file_inline(&v, two, "b", "2");
    volume_fault(
        &v, (struct store_fault_rule){.kind = STORE_PUT, .key_part = "two/b", .result = -EACCES});
    check_int(volume_settle(&v, one, &error), 0);
    check_object("one/a", "1", 1);
    check_int(volume_settle(&v, two, &error), -EIO);
    check(strstr(error.message, "two/b") != NULL);
}

TEST(settle, close_in_the_middle_loses_nothing, .init = init, .fini = fini)
{
    v.config.no_settle = false;
    volume_open(&v);
    volume_fault(&v, (struct store_fault_rule){.kind = -1, .delay_ms = 30});
    char name[16];
    for (int i = 0; i < 20; i++) {
        snprintf(name, sizeof(name), "f%d", i);
        file_object(&v, META_ROOT_INO, name, big, sizeof(big), true);
    }
    volume_close(&v);
    volume_no_fault(&v);
    volume_open(&v);
    settle_all();
    for (int i = 0; i < 20; i++) {
        snprintf(name, sizeof(name), "f%d", i);
        check_object(name, big, sizeof(big));
        check_file(name_ino(&v, META_ROOT_INO, name), big, sizeof(big));
    }
    eventually(bucket_uploads(&v) == 0);
}

static bool is_paced(void)
{
    cleanup(free_ptr) char *status = volume_status(&v);
    return !strstr(status, "\"paced_requests\":0,");
}

TEST(settle, requests_wait_for_their_turn, .init = init, .fini = fini)
{
    v.config.settle_requests = 200;
    volume_open(&v);
    for (int i = 0; i < 5; i++) {
        char name[16];
        snprintf(name, sizeof(name), "f%d", i);
        file_inline(&v, META_ROOT_INO, name, "text");
    }
    settle_all();
    cleanup(free_ptr) char *status = volume_status(&v);
    check(strstr(status, "\"requests_per_s\":200,") != NULL);
    check(strstr(status, "\"paced_ms\":0,") == NULL); /* ten requests, two for each file */
}

TEST(settle, close_does_not_wait_for_turns, .init = init, .fini = fini)
{
    v.config.settle_bandwidth = 1; /* the second file would have its turn after four hours */
    v.config.no_settle = false;
    volume_open(&v);
    file_object(&v, META_ROOT_INO, "a", big, 16384, true);
    file_object(&v, META_ROOT_INO, "b", big, 16384, true);
    eventually(is_paced());
    volume_close(&v);
    v.config.settle_bandwidth = 0;
    volume_open(&v);
    settle_all();
    check_object("a", big, 16384);
    check_object("b", big, 16384);
}

/* A file whose key is held by one that cannot move: who waits is told, and does not wait for ever.
 */
TEST(settle, waiting_for_a_file_that_cannot_move_ends, .init = init, .fini = fini)
{
    struct error error = {0};
    volume_open(&v);
    file_inline(&v, META_ROOT_INO, "x", "first");
    settle_all();
    volume_fault(
        &v, (struct store_fault_rule){.kind = STORE_PUT, .key_part = "y", .result = -ENAMETOOLONG});
    check_int(name_rename(&v, META_ROOT_INO, "x", META_ROOT_INO, "y"), 0);
    file_inline(&v, META_ROOT_INO, "x", "second");
    check_int(volume_settle(&v, META_ROOT_INO, &error), -EIO);
    check(strstr(error.message, "y: the store cannot have this key") != NULL);
    /* Nobody waits: the one that cannot move is not tried again for the sake of the other. */
    uint64_t puts = store_fault_seen(v.store, STORE_PUT);
    v.config.no_settle = false;
    volume_again(&v);
    file_inline(&v, META_ROOT_INO, "z", "third");
    eventually(bucket_has(&v, "z"));
    sleep_ms(500);
    check(store_fault_seen(v.store, STORE_PUT) - puts < 8);
    /* A new name may be free: it does not wait for the time of the old one. */
    check_int(name_rename(&v, META_ROOT_INO, "y", META_ROOT_INO, "free"), 0);
    eventually(bucket_has(&v, "free") && bucket_has(&v, "x"));
}

/* --- The clock */

static void init_clock(void)
{
    volume_begin(&v);
    v.format.settle_delay_ms = 20;
}

static const int64_t HOUR_NS = 3600 * (int64_t)NS_PER_S;

TEST(settle, goes_on_after_the_clock_was_set_back, .init = init_clock, .fini = fini)
{
    volume_open(&v);
    v.meta->clock_offset_ns = HOUR_NS;
    file_inline(&v, META_ROOT_INO, "before", "1");
    v.meta->clock_offset_ns = 0;
    uint64_t then = meta_time_ns(v.meta);
    file_inline(&v, META_ROOT_INO, "after", "2");
    eventually(bucket_has(&v, "before") && bucket_has(&v, "after"));
    check(meta_time_ns(v.meta) > then);
}

TEST(settle, takes_what_is_due_by_a_clock_that_was_set_back, .init = init_clock, .fini = fini)
{
    v.config.no_settle = true;
    volume_open(&v);
    v.meta->clock_offset_ns = HOUR_NS;
    file_inline(&v, META_ROOT_INO, "before", "1");
    volume_close(&v);
    v.config.no_settle = false;
    volume_open(&v);
    eventually(bucket_has(&v, "before"));
}
