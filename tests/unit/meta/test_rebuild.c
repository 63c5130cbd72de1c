/* A database from a bucket alone: the same names as a listing by directory gives. */
#include <errno.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "meta/rebuild.h"
#include "recover/rebuild_state.h"
#include "volume_lib.h"

static struct volume v;
static struct rebuild_counts counts;

static void init(void)
{
    volume_begin(&v);
    mkdir(v.database, 0700);
}

static void fini(void)
{
    volume_end(&v);
}

static int rebuild(json_t *hidden)
{
    struct rebuild_config config = {.volume = v.config, .parallel = 7};
    struct error error = {0};
    int rc = meta_rebuild(&config, &counts, hidden, &error);
    if (rc && rc != -EEXIST)
        test_fail("rebuild: %s", error_text(&error));
    return rc;
}

static void check_names(uint64_t dir, const char *expected)
{
    int rc;
    cleanup(free_ptr) char *names = name_list(&v, dir, &rc);
    check_int(rc, 0);
    check_str(names, expected);
}

TEST(rebuild, directories_and_files_that_stand_between_them, .init = init, .fini = fini)
{
    static const char *const keys[] = {"a-b", "a-b/x", "a.c",  "a/1",    "a/2/3",
                                       "a0",  "b/",    "c//d", "c/../e", "e/f/g/h"};
    for (size_t i = 0; i < ARRAY_LEN(keys); i++)
        bucket_put(&v, keys[i], "text");
    bucket_put(&v, "a", "hidden by the directory");
    bucket_delete(&v, "b/");
    bucket_put(&v, "b/", "");
    json_t *hidden = json_object();
    check_int(rebuild(hidden), 0);
    check_uint(counts.hidden, 4); /* a, a-b, c//d, c/../e */
    check_uint(json_array_size(json_object_get(hidden, "hidden")), 4);
    json_decref(hidden);
    check_uint(counts.files, 6);
    volume_open(&v);
    check_names(META_ROOT_INO, "a/,a-b/,a.c,a0,b/,c/,e/");
    check_names(name_ino(&v, META_ROOT_INO, "a"), "1,2/");
    check_names(name_ino(&v, META_ROOT_INO, "b"), "");
    /* What a listing says is no news. */
    check_int(volume_refresh_now(&v, META_ROOT_INO), 0);
    check_names(META_ROOT_INO, "a/,a-b/,a.c,a0,b/,c/,e/");
}

TEST(rebuild, many_pages_and_many_internal_keys, .init = init, .fini = fini)
{
    char key[64];
    for (int i = 0; i < 2500; i++) {
        snprintf(key, sizeof(key), ".sluice/o/00000000/%02x/%016x", i % 256, i);
        bucket_put(&v, key, "o");
        snprintf(key, sizeof(key), "d%d/f%d", i % 3, i);
        bucket_put(&v, key, "xy");
    }
    bucket_put(&v, ".sluice0", "a file");
    bucket_put(&v, ".slu", "before");
    check_int(rebuild(NULL), 0);
    check_uint(counts.files, 2502);
    check_uint(counts.bytes, 2 * 2500 + 12);
    check_uint(counts.directories, 3);
    volume_open(&v);
    check_names(META_ROOT_INO, ".slu,.sluice0,d0/,d1/,d2/");
    check_int(name_lookup(&v, name_ino(&v, META_ROOT_INO, "d1"), "f2500", NULL), -ENOENT);
    check_int(name_lookup(&v, name_ino(&v, META_ROOT_INO, "d1"), "f2497", NULL), 0);
}

TEST(rebuild, attributes_of_settled_files, .init = init, .fini = fini)
{
    struct meta_attr attr;
    volume_open(&v);
    uint64_t ino = file_inline(&v, META_ROOT_INO, "f", "text");
    struct meta_request r = {.op = {.kind = META_SETATTR,
                                    .ino = ino,
                                    .valid = META_SET_MODE | META_SET_UID | META_SET_MTIME,
                                    .attr = {.mode = 0640, .uid = 77, .mtime_ns = 12345678901}}};
    check_int(meta_call(v.meta, &r), 0);
    meta_reply_done(&r.reply);
    check_int(volume_settle(&v, META_ROOT_INO, NULL), 0);
    volume_close(&v);
    check_int(rebuild(NULL), -EEXIST);
    strcat(v.database, "-new");
    mkdir(v.database, 0700);
    v.config.directory = v.database;
    check_int(rebuild(NULL), 0);
    check_uint(counts.with_attributes, 1);
    volume_open(&v);
    check_int(name_lookup(&v, META_ROOT_INO, "f", &attr), 0);
    check_uint(attr.mode, S_IFREG | 0640);
    check_uint(attr.uid, 77);
    check_uint(attr.mtime_ns, 12345678901);
}

TEST(rebuild, state_is_read_or_refused)
{
    struct rebuild_state state;
    static const char good[] = "{\"format\": 1, \"after\": \"a/b\", \"counts\": {\"keys\": 5}}";
    check_int(rebuild_state_parse(good, strlen(good), &state), 0);
    check_str(state.after, "a/b");
    check_uint(state.counts.keys, 5);
    static const char *const bad[] = {
        "",
        "{",
        "[]",
        "{\"format\": 2, \"after\": \"\", \"counts\": {}}",
        "{\"format\": 1, \"after\": 5, \"counts\": {}}",
        "{\"format\": 1, \"after\": \"\"}",
        "{\"format\": 1, \"after\": \"\", \"counts\": {\"files\": -1}}",
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        check_int(rebuild_state_parse(bad[i], strlen(bad[i]), &state), -EBADMSG);
}
