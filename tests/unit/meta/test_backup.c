/* Backups of an engine's checkpoint to a store in memory, and the way back. */
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "engine_test.h"
#include "meta/backup.h"
#include "s3/backend.h"

#define GOOD_FILE                                                                                  \
    "{\"name\":\"000012.sst\",\"size\":7,"                                                         \
    "\"sha256\":\"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"}"
#define HEAD                                                                                       \
    "\"volume\":\"v\",\"store\":\"s\",\"prefix\":\"p/\",\"time_ns\":5,\"applied\":9,\"files\":"

static int parse(const char *text)
{
    struct backup_manifest m;
    int rc = backup_manifest_parse(text, strlen(text), &m);
    if (rc == 0)
        backup_manifest_done(&m);
    return rc;
}

TEST(backup_manifest, reads_what_it_prints)
{
    struct backup_manifest m;
    const char *text = "{\"version\":1," HEAD "[" GOOD_FILE "]}";
    check_int(backup_manifest_parse(text, strlen(text), &m), 0);
    check_str(m.volume, "v");
    check_str(m.prefix, "p/");
    check_uint(m.applied, 9);
    check_uint(m.count, 1);
    check_uint(m.files[0].size, 7);
    char *again = backup_manifest_print(&m);
    check_int(parse(again), 0);
    free(again);
    backup_manifest_done(&m);
}

TEST(backup_manifest, refuses)
{
    static const struct {
        const char *text;
        int rc;
    } cases[] = {
        {"", -EBADMSG},
        {"[]", -EBADMSG},
        {"{\"version\":2}", -EPROTO},
        {"{\"version\":\"1\"," HEAD "[" GOOD_FILE "]}", -EBADMSG},
        {"{\"version\":1," HEAD "[]}", -EBADMSG},
        {"{\"version\":1," HEAD "{}}", -EBADMSG},
        {"{\"version\":1," HEAD "[7]}", -EBADMSG},
        {"{\"version\":1," HEAD "[{\"name\":\"../x\",\"size\":7,"
         "\"sha256\":\"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"}]}",
         -EBADMSG},
        {"{\"version\":1," HEAD "[{\"name\":\".x\",\"size\":7,"
         "\"sha256\":\"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"}]}",
         -EBADMSG},
        {"{\"version\":1," HEAD "[{\"name\":\"x\",\"size\":-7,"
         "\"sha256\":\"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"}]}",
         -EBADMSG},
        {"{\"version\":1," HEAD "[{\"name\":\"x\",\"size\":7,\"sha256\":\"../../../etc\"}]}",
         -EBADMSG},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        check_int(parse(cases[i].text), cases[i].rc);
}

struct backup_test {
    struct world w;
    struct loop *loop;
    struct store *store;
    unsigned changed, missing;
    char last[64];
};

static void begin(struct backup_test *t)
{
    memset(t, 0, sizeof(*t));
    check_int(loop_new(&t->loop, "store"), 0);
    check_int(store_memory_new(t->loop, &t->store), 0);
    world_init_raw(&t->w);
    snprintf(t->w.volume.store, sizeof(t->w.volume.store), "%s", store_name(t->store));
    check_int(world_format(&t->w), 0);
    struct meta_op op = {.kind = META_IMPORT_DIR, .ino = META_ROOT_INO, .flags = META_IMPORT_LAST};
    check_int(world_apply(&t->w, &op), 0);
}

static void end(struct backup_test *t)
{
    world_done(&t->w);
    store_free(t->store);
    loop_free(t->loop);
}

static struct backup_place place_of(struct backup_test *t)
{
    return (struct backup_place){.store = t->store, .base = "p/.sluice/backup/"};
}

static int back_up(struct backup_test *t, unsigned keep, struct backup_result *result)
{
    char directory[4300];
    struct error error = {0};
    struct meta_volume volume;
    static int number;
    snprintf(directory, sizeof(directory), "%s/checkpoint%d", t->w.dir, number++);
    check_int(engine_volume(t->w.engine, &volume), 0);
    check_int(engine_checkpoint(t->w.engine, directory, &error), 0);
    struct backup_config config = {.place = place_of(t),
                                   .directory = directory,
                                   .volume = &volume,
                                   .applied = engine_sequence(t->w.engine),
                                   .keep = keep};
    return backup_run(&config, result, &error);
}

static void differs(void *arg, const char *path, const char *key, bool gone)
{
    struct backup_test *t = arg;
    (void)key;
    t->missing += gone;
    t->changed += !gone;
    snprintf(t->last, sizeof(t->last), "%s", path);
}

static int bring_back(struct backup_test *t, const char *at, const char *directory,
                      struct restore_result *result, struct error *error)
{
    struct restore_config config = {.place = place_of(t),
                                    .store = t->store,
                                    .prefix = "p/",
                                    .at = at,
                                    .directory = directory,
                                    .differs = differs,
                                    .arg = t};
    error_clear(error);
    return backup_restore(&config, result, error);
}

static int put_text(struct backup_test *t, const char *key, const char *text, char *etag)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)text, .iov_len = strlen(text)};
    struct store_op op = {.kind = STORE_PUT, .key = key, .iov = &iov, .iov_count = 1};
    int rc = store_wait(t->store, &op);
    if (rc == 0 && etag)
        memcpy(etag, op.info.etag, META_ETAG_MAX);
    store_op_reset(&op);
    return rc;
}

/* A file whose content is an object in the bucket at its natural key. */
static uint64_t stored_file(struct backup_test *t, const char *name)
{
    int64_t ino = make(&t->w, 1, name, S_IFREG | 0644);
    struct meta_op reserve = {.kind = META_RESERVE, .ino = (uint64_t)ino};
    check_int(world_apply(&t->w, &reserve), 0);
    struct meta_object object = t->w.reply.objects[0];
    object.size = 5;
    check_int(put_text(t, object.key, "12345", object.etag), 0);
    struct meta_extent e = {
        .kind = META_EXTENT_OBJECT, .offset = 0, .length = 5, .object = object.id};
    struct meta_op commit = {.kind = META_COMMIT,
                             .ino = (uint64_t)ino,
                             .objects = &object,
                             .object_count = 1,
                             .extents = &e,
                             .extent_count = 1};
    check_int(world_apply(&t->w, &commit), 0);
    return (uint64_t)ino;
}

static struct engine *open_at(const char *directory)
{
    struct engine_options options = {
        .path = directory, .memory_bytes = 16 << 20, .rebuild_note = true};
    struct engine *engine = NULL;
    struct error error = {0};
    check_int(engine_open(&options, &engine, &error), 0);
    return engine;
}

static unsigned count_keys(struct backup_test *t, const char *prefix)
{
    struct store_op op = {.kind = STORE_LIST, .prefix = prefix};
    check_int(store_wait(t->store, &op), 0);
    unsigned count = (unsigned)op.out_list.count;
    store_op_reset(&op);
    return count;
}

TEST(backup, comes_back_as_it_was_and_says_what_changed_since)
{
    struct backup_test t;
    struct backup_result made;
    struct restore_result back;
    struct error error = {0};
    char directory[4300];
    begin(&t);
    stored_file(&t, "same");
    stored_file(&t, "changed");
    stored_file(&t, "gone");
    /* Under way when the backup is made: its object may be a file by the time of the restore. */
    uint64_t late = (uint64_t)make(&t.w, 1, "late", S_IFREG | 0644);
    struct meta_op reserve = {.kind = META_RESERVE, .ino = late};
    check_int(world_apply(&t.w, &reserve), 0);
    uint64_t reserved = t.w.reply.objects[0].id;
    check_int(back_up(&t, 0, &made), 0);
    check(made.sent_files == made.files && made.files > 2);
    check_int(put_text(&t, "p/changed", "other", NULL), 0);
    struct store_op op = {.kind = STORE_DELETE, .key = "p/gone"};
    check_int(store_wait(t.store, &op), 0);
    store_op_reset(&op);

    snprintf(directory, sizeof(directory), "%s/back", t.w.dir);
    check_int(mkdir(directory, 0700), 0);
    check_int(bring_back(&t, NULL, directory, &back, &error), 0);
    check_str(back.time, made.time);
    check_uint(back.objects, 3);
    check_uint(back.changed, 1);
    check_uint(back.missing, 1);
    check_uint(t.changed, 1);
    check_uint(t.missing, 1);
    struct engine *engine = open_at(directory);
    struct meta_op lookup_op = {
        .kind = META_LOOKUP, .parent = 1, .name = name_of("same"), .time_ns = t.w.now};
    struct meta_reply reply;
    meta_reply_init(&reply);
    check_int(engine_read(engine, &lookup_op, 0, &reply), 0);
    check_uint(reply.attr.size, 5);
    meta_reply_done(&reply);
    /* What was reserved is forgotten, and its number is not given out again. */
    struct meta_object objects[4];
    check_int(engine_reserved(engine, 0, objects, 4), 0);
    uint64_t next_due;
    check_int(engine_gc_due(engine, UINT64_MAX, objects, 4, &next_due), 0);
    struct meta_op again = {.kind = META_RESERVE, .ino = late, .time_ns = t.w.now};
    check_int(engine_apply(engine, &again, &reply), 0);
    check(reply.objects[0].id > reserved + 1000000);
    meta_reply_done(&reply);
    check_int(engine_check(engine, NULL, NULL), 0);
    engine_close(engine);
    /* A database is never overwritten. */
    check_int(bring_back(&t, NULL, directory, &back, &error), -EEXIST);
    end(&t);
}

TEST(backup, sends_only_what_is_new_and_keeps_so_many)
{
    struct backup_test t;
    struct backup_result first, second, third;
    begin(&t);
    for (int i = 0; i < 200; i++) {
        char name[16];
        snprintf(name, sizeof(name), "f%d", i);
        check(make(&t.w, 1, name, S_IFREG | 0644) > 0);
    }
    check_int(back_up(&t, 2, &first), 0);
    check(make(&t.w, 1, "one more", S_IFREG | 0644) > 0);
    check_int(back_up(&t, 2, &second), 0);
    check(second.sent_files < second.files);
    check(strcmp(second.time, first.time) > 0);
    check_uint(second.removed, 0);
    check(make(&t.w, 1, "and one", S_IFREG | 0644) > 0);
    check_int(back_up(&t, 2, &third), 0);
    check_uint(third.removed, 1);
    /* What only the removed one used is gone; the two others are whole. */
    struct restore_result back;
    struct error error = {0};
    char directory[4300];
    snprintf(directory, sizeof(directory), "%s/back", t.w.dir);
    check_int(mkdir(directory, 0700), 0);
    check_int(bring_back(&t, first.time, directory, &back, &error), -ENOENT);
    check_int(bring_back(&t, second.time, directory, &back, &error), 0);
    check_str(back.time, second.time);
    check_int(back_up(&t, 1, &third), 0);
    check_uint(third.removed, 2);
    check_uint(count_keys(&t, "p/.sluice/backup/files/"), (unsigned)third.files);
    end(&t);
}

TEST(backup, damage_is_found_and_nothing_is_left)
{
    struct backup_test t;
    struct backup_result made;
    struct restore_result back;
    struct error error = {0};
    char directory[4300], key[META_KEY_MAX + 1];
    begin(&t);
    check_int(back_up(&t, 0, &made), 0);
    struct store_op op = {.kind = STORE_LIST, .prefix = "p/.sluice/backup/files/"};
    check_int(store_wait(t.store, &op), 0);
    size_t largest = 0;
    for (size_t i = 0; i < op.out_list.count; i++)
        if (op.out_list.entries[i].size > op.out_list.entries[largest].size)
            largest = i;
    snprintf(key, sizeof(key), "%s", op.out_list.entries[largest].name);
    size_t size = op.out_list.entries[largest].size;
    store_op_reset(&op);
    char *text = calloc(1, size + 1);
    memset(text, 'x', size);
    check_int(put_text(&t, key, text, NULL), 0);
    free(text);
    snprintf(directory, sizeof(directory), "%s/back", t.w.dir);
    check_int(mkdir(directory, 0700), 0);
    check_int(bring_back(&t, NULL, directory, &back, &error), -EBADMSG);
    check(strstr(error_text(&error), "not what it was") != NULL);
    check_int(rmdir(directory), 0); /* empty */
    check_int(mkdir(directory, 0700), 0);
    op = (struct store_op){.kind = STORE_DELETE, .key = key};
    check_int(store_wait(t.store, &op), 0);
    store_op_reset(&op);
    check_int(bring_back(&t, NULL, directory, &back, &error), -EBADMSG);
    check_int(rmdir(directory), 0);
    end(&t);
}

TEST(backup, refuses_the_place_of_another_volume_and_bad_times)
{
    struct backup_test t;
    struct backup_result made;
    struct restore_result back;
    struct error error = {0};
    begin(&t);
    const char *other = "{\"version\":1," HEAD "[" GOOD_FILE "]}";
    check_int(put_text(&t, "p/.sluice/backup/20260101T000000.000Z/manifest.json", other, NULL), 0);
    check_int(back_up(&t, 0, &made), -EEXIST);
    check_int(bring_back(&t, "yesterday", t.w.dir, &back, &error), -EEXIST);
    char directory[4300];
    snprintf(directory, sizeof(directory), "%s/back", t.w.dir);
    check_int(mkdir(directory, 0700), 0);
    check_int(bring_back(&t, "yesterday", directory, &back, &error), -EINVAL);
    check_int(bring_back(&t, "2025", directory, &back, &error), -ENOENT);
    /* Its files are not there. */
    check_int(bring_back(&t, "2026-01-01T00:00", directory, &back, &error), -EBADMSG);
    check_int(rmdir(directory), 0);
    end(&t);
}
