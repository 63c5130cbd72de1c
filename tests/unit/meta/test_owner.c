/* I9: one prefix, one volume. */
#include <errno.h>
#include <jansson.h>

#include "base/cleanup.h"
#include "volume_lib.h"

static struct volume v;
static char other_database[4300];

static void init(void)
{
    volume_begin(&v);
    snprintf(other_database, sizeof(other_database), "%s/other", v.dir);
}

static void fini(void)
{
    volume_end(&v);
}

static json_t *record(void)
{
    cleanup(free_ptr) char *text = bucket_get(&v, ".sluice/volume");
    return text ? json_loads(text, 0, NULL) : NULL;
}

static void check_held(bool held)
{
    json_t *root = record();
    check(root != NULL);
    check_int(json_is_true(json_object_get(root, "held")), held);
    json_decref(root);
}

/* What a process that was killed leaves in the bucket: as it is now, after an orderly close. */
static void close_like_killed(void)
{
    cleanup(free_ptr) char *text = bucket_get(&v, ".sluice/volume");
    volume_close(&v);
    bucket_put(&v, ".sluice/volume", text);
    check_held(true);
}

static struct meta *open_other(int expected, struct error *error)
{
    struct meta_config config = v.config;
    struct meta *meta = NULL;
    config.directory = other_database;
    config.owner_text = "second:/mnt";
    check_int(meta_open(&config, &meta, error), expected);
    return meta;
}

TEST(owner, is_taken_and_given_back, .init = init, .fini = fini)
{
    volume_open(&v);
    check_held(true);
    json_t *root = record();
    check_str(json_string_value(json_object_get(root, "volume")), meta_volume(v.meta)->id);
    check_str(json_string_value(json_object_get(root, "owner")), "test:/mnt");
    json_decref(root);
    volume_close(&v);
    check_held(false);
}

TEST(owner, second_volume_is_refused_with_the_name, .init = init, .fini = fini)
{
    struct error error = {0};
    volume_open(&v);
    open_other(-EBUSY, &error);
    check(strstr(error.message, "test:/mnt") != NULL);
    check(strstr(error.message, "--take-over") != NULL);
}

TEST(owner, second_volume_is_refused_although_the_first_died, .init = init, .fini = fini)
{
    struct error error = {0};
    volume_open(&v);
    close_like_killed();
    open_other(-EBUSY, &error);
}

TEST(owner, is_free_after_it_was_given_back, .init = init, .fini = fini)
{
    struct error error = {0};
    volume_open(&v);
    volume_close(&v);
    meta_close(open_other(0, &error));
}

TEST(owner, same_volume_takes_it_again_after_a_kill, .init = init, .fini = fini)
{
    volume_open(&v);
    close_like_killed();
    volume_open(&v);
    json_t *root = record();
    check_int(json_integer_value(json_object_get(root, "epoch")), 2);
    json_decref(root);
}

TEST(owner, same_volume_on_another_host_is_refused, .init = init, .fini = fini)
{
    volume_open(&v);
    json_t *root = record();
    volume_close(&v);
    json_object_set_new(root, "host", json_string("elsewhere"));
    cleanup(free_ptr) char *text = json_dumps(root, 0);
    json_decref(root);
    bucket_put(&v, ".sluice/volume", text);
    struct error error = {0};
    check_int(volume_try_open(&v, &error), -EBUSY);
}

TEST(owner, damaged_record_is_refused, .init = init, .fini = fini)
{
    struct error error = {0};
    static const char *const texts[] = {"", "{", "[]", "{\"held\":false}", "\xff\xfe"};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        bucket_put(&v, ".sluice/volume", texts[i]);
        check_int(volume_try_open(&v, &error), -EBUSY);
    }
    v.config.take_over = true;
    volume_open(&v);
}

TEST(owner, take_over_makes_the_former_read_only, .init = init, .fini = fini)
{
    struct error error = {0};
    v.config.owner_renew_ms = 20;
    volume_open(&v);
    check_int(name_mkdir(&v, META_ROOT_INO, "before", NULL), 0);
    v.config.take_over = true;
    struct meta *other = open_other(0, &error);
    v.config.take_over = false;
    static int n;
    char name[32];
    eventually(snprintf(name, sizeof(name), "d%d", n++) > 0 &&
               name_mkdir(&v, META_ROOT_INO, name, NULL) == -EROFS);
    volume_close(&v);
    /* The former has not touched what is the other's now. */
    check_held(true);
    meta_close(other);
}

TEST(owner, renewal_with_a_lost_reply_is_recognised, .init = init, .fini = fini)
{
    v.config.owner_renew_ms = 5;
    volume_open(&v);
    json_t *root = record();
    json_int_t first = json_integer_value(json_object_get(root, "renewed_ns"));
    json_decref(root);
    volume_fault(&v, (struct store_fault_rule){.kind = STORE_PUT,
                                               .key_part = ".sluice/volume",
                                               .count = 1,
                                               .result = -EEXIST,
                                               .after = true});
    /* Several renewals later it is still ours. */
    json_int_t renewed = first;
    for (int i = 0; i < 4; i++) {
        json_int_t before = renewed;
        eventually((root = record(),
                    renewed = json_integer_value(json_object_get(root, "renewed_ns")),
                    json_decref(root), renewed != before));
    }
    check_int(name_mkdir(&v, META_ROOT_INO, "d", NULL), 0);
}

TEST(owner, deleted_record_is_written_again, .init = init, .fini = fini)
{
    v.config.owner_renew_ms = 10;
    volume_open(&v);
    bucket_delete(&v, ".sluice/volume");
    eventually(bucket_has(&v, ".sluice/volume"));
    check_int(name_mkdir(&v, META_ROOT_INO, "d", NULL), 0);
}

TEST(owner, works_without_conditional_writes, .init = init, .fini = fini)
{
    struct error error = {0};
    v.memory->caps.put_if_none_match = false;
    v.store->caps.put_if_none_match = false;
    volume_open(&v);
    check_held(true);
    open_other(-EBUSY, &error);
    volume_close(&v);
    check_held(false);
}

TEST(owner, store_error_is_told, .init = init, .fini = fini)
{
    struct error error = {0};
    volume_fault(&v, (struct store_fault_rule){.kind = STORE_GET, .result = -EACCES});
    check_int(volume_try_open(&v, &error), -EACCES);
    check(strstr(error.message, "owns the prefix") != NULL);
}
