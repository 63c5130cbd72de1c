/*
 * Each request of each background step, with each way a store can fail it: the step comes to its
 * end all the same, files have their bytes, and what others put stays. The table of docs/testing.md
 * ("Store faults by step") says the same in words.
 *
 * What is injected is what the steps see: behind retries, and behind the translation of answers,
 * which tests/integration/test_s3_faults.py tests.
 */
#include <errno.h>
#include <inttypes.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "meta/rebuild.h"
#include "meta/stores.h"
#include "s3/mux.h"
#include "volume_lib.h"

#define THEIRS "somebody's"
#define COLD "STANDARD_IA"
#define SUBJECTS_MAX 64

struct fault {
    const char *name;
    int result;
    bool after;       /* it was carried out */
    bool conditional; /* of requests with a condition only */
    int kind;         /* of this kind only, if not -1 */
    bool older;       /* tells of the object that was there before */
};

static const struct fault faults[] = {
    {"412", -EEXIST, .conditional = true, .kind = -1},
    {"503, or 200 with an error in the body", -EIO, .kind = -1},
    {"lost reply", -EIO, .after = true, .kind = -1},
    {"timeout", -ETIMEDOUT, .kind = -1},
    {"timeout of what was carried out", -ETIMEDOUT, .after = true, .kind = -1},
    {"HEAD lag: not there yet", -ENOENT, .kind = STORE_HEAD},
    {"HEAD lag: an older object", 0, .kind = STORE_HEAD, .older = true},
};

/* A directory of its own for each fault. */
struct subject {
    char name[16], file[64]; /* the directory, and the file's natural key */
    char theirs[64];         /* what others have there */
    char older[64];          /* an object of ours with other bytes */
    char source[META_KEY_MAX + 1];
    uint64_t dir, ino;
    bool lags; /* its fault is of what HEAD tells */
};

enum where { FILE_KEY, SOURCE_KEY, OBJECTS };

struct request {
    enum store_kind kind;
    enum where where;
    bool conditional;
    bool first; /* made for the first object of a mount */
};

struct row {
    void (*make)(struct subject *s);
    void (*work)(struct subject *s);
    void (*is)(struct subject *s);
    struct request requests[8];
    unsigned count;
};

static struct volume v;
static struct store *fault_store;
static struct subject subjects[SUBJECTS_MAX];
static unsigned subject_count;
static char big[600 << 10];
static struct error error;

static void begin(void)
{
    volume_begin(&v);
    fault_store = v.store;
    subject_count = 0;
    for (size_t i = 0; i + 1 < sizeof(big); i++)
        big[i] = (char)('a' + i % 26 + i / 1000 % 3);
}

static void end(void)
{
    volume_end(&v);
}

static bool is_clean(void)
{
    cleanup(free_ptr) char *status = volume_status(&v);
    return strstr(status, "\"garbage_objects\":0") && !bucket_uploads(&v);
}

/* Of the whole volume: what is gone is below no directory. */
static void settle(void)
{
    eventually(volume_settle(&v, META_ROOT_INO, &error) == 0);
}

static bool is_read(const struct request *r)
{
    return r->kind == STORE_HEAD || r->kind == STORE_GET || r->kind == STORE_LIST ||
           r->kind == STORE_MPU_LIST;
}

static bool can_be(const struct fault *f, const struct request *r)
{
    if (f->kind >= 0)
        return f->kind == (int)r->kind;
    return !(f->conditional && !r->conditional) && !(f->after && is_read(r));
}

static struct store_fault_rule rule_of(const struct fault *f, const struct request *r,
                                       const struct subject *s)
{
    const char *const keys[] = {s->file, s->source, ".sluice/o/"};
    return (struct store_fault_rule){.kind = (int)r->kind,
                                     .key_part = keys[r->where],
                                     .count = 1,
                                     .result = f->result,
                                     .after = f->after,
                                     .instead = f->older ? s->older : NULL};
}

static struct subject *subject_new(void)
{
    check(subject_count < SUBJECTS_MAX);
    unsigned n = subject_count++;
    struct subject *s = &subjects[n];
    *s = (struct subject){0};
    snprintf(s->name, sizeof(s->name), "s%02u", n);
    snprintf(s->file, sizeof(s->file), "s%02u/file", n);
    snprintf(s->theirs, sizeof(s->theirs), "s%02u/theirs", n);
    snprintf(s->older, sizeof(s->older), "older-s%02u", n);
    struct meta_object other = {.id = 1 << 30};
    snprintf(other.key, sizeof(other.key), "%s", s->older);
    check_int(name_mkdir(&v, META_ROOT_INO, s->name, &s->dir), 0);
    bucket_put(&v, s->theirs, THEIRS);
    bucket_put_tagged(&v, v.store, &other, "then"); /* as long as "text" */
    return s;
}

static void object_is(const char *key, const char *text)
{
    cleanup(free_ptr) char *got = bucket_get(&v, key);
    if (!got || strcmp(got, text) != 0)
        test_fail("%s is not what it must be", key);
}

static void read_is(const struct subject *s, const char *text)
{
    size_t len = 0;
    cleanup(free_ptr) char *got = file_read(&v, s->ino, &len);
    if (!got || len != strlen(text) || strcmp(got, text) != 0)
        test_fail("%s has other bytes", s->file);
}

static void run_one(const struct row *row, const struct request *r, const struct fault *f)
{
    if (r->first)
        volume_again(&v);
    struct subject *s = subject_new();
    row->make(s);
    struct store_fault_rule rule = rule_of(f, r, s);
    store_fault_set(fault_store, &rule, 1);
    row->work(s);
    settle();
    if (!store_fault_acted(fault_store))
        test_fail("%s: %s was not met", store_kind_name(r->kind), f->name);
    store_fault_set(fault_store, NULL, 0);
    row->is(s);
}

/* Nothing of uploads and copies is asked for that the row does not name. */
static void check_requests(const struct row *row)
{
    static const enum store_kind kinds[] = {STORE_COPY, STORE_MPU_CREATE, STORE_MPU_PART,
                                            STORE_MPU_PART_COPY, STORE_MPU_COMPLETE};
    uint64_t before[STORE_KIND_COUNT];
    struct subject *s = subject_new();
    row->make(s);
    for (unsigned i = 0; i < ARRAY_LEN(kinds); i++)
        before[kinds[i]] = store_fault_seen(fault_store, kinds[i]);
    row->work(s);
    settle();
    for (unsigned i = 0; i < ARRAY_LEN(kinds); i++) {
        bool named = false;
        for (unsigned j = 0; j < row->count; j++)
            named |= row->requests[j].kind == kinds[i];
        if (!named && store_fault_seen(fault_store, kinds[i]) != before[kinds[i]])
            test_fail("%s is made and not in the row", store_kind_name(kinds[i]));
    }
    row->is(s);
}

static void run(const struct row *row)
{
    v.config.no_settle = true; /* but when asked */
    volume_open(&v);
    check_requests(row);
    for (unsigned i = 0; i < row->count; i++)
        for (unsigned j = 0; j < ARRAY_LEN(faults); j++)
            if (can_be(&faults[j], &row->requests[i]))
                run_one(row, &row->requests[i], &faults[j]);
    v.config.no_settle = false;
    volume_again(&v);
    eventually(is_clean());
    for (unsigned i = 0; i < subject_count; i++) {
        row->is(&subjects[i]);
        object_is(subjects[i].theirs, THEIRS);
    }
}

/* Settle */

static void is_settled_big(struct subject *s)
{
    read_is(s, big);
    object_is(s->file, big);
}

static void make_empty(struct subject *s)
{
    check_int(name_create(&v, s->dir, "file", &s->ino), 0);
}

static void write_text(struct subject *s)
{
    check_int(file_write_inline(&v, s->ino, "text"), 0);
}

static void is_text(struct subject *s)
{
    read_is(s, "text");
    object_is(s->file, "text");
}

TEST(store_faults, settle_uploads, .init = begin, .fini = end)
{
    run(&(struct row){
        make_empty,
        write_text,
        is_text,
        {{STORE_PUT, FILE_KEY, .conditional = true}, {STORE_HEAD, FILE_KEY, .first = true}},
        2});
}

static void make_settled(struct subject *s)
{
    s->ino = file_inline(&v, s->dir, "file", "before");
    settle();
}

TEST(store_faults, settle_replaces_its_own, .init = begin, .fini = end)
{
    run(&(struct row){
        make_settled, write_text, is_text, {{STORE_PUT, FILE_KEY, .conditional = true}}, 1});
}

TEST(store_faults, settle_without_conditions, .init = begin, .fini = end)
{
    v.store->caps.put_if_none_match = v.store->caps.complete_if_none_match = false;
    run(&(struct row){
        make_settled, write_text, is_text, {{STORE_HEAD, FILE_KEY}, {STORE_PUT, FILE_KEY}}, 2});
}

static void make_internal(struct subject *s)
{
    s->ino = file_object(&v, s->dir, "file", big, strlen(big), true);
    file_key(&v, s->ino, s->source);
}

static void nothing(struct subject *s)
{
}

TEST(store_faults, settle_copies, .init = begin, .fini = end)
{
    run(&(struct row){make_internal,
                      nothing,
                      is_settled_big,
                      {{STORE_MPU_CREATE, FILE_KEY},
                       {STORE_MPU_PART_COPY, FILE_KEY, .conditional = true},
                       {STORE_MPU_COMPLETE, FILE_KEY, .conditional = true},
                       {STORE_HEAD, FILE_KEY, .first = true}},
                      4});
}

static void make_pieces(struct subject *s)
{
    size_t half = strlen(big) / 2;
    make_empty(s);
    check_int(file_write_object(&v, s->ino, 0, big, half, true, false, NULL), 0);
    file_key(&v, s->ino, s->source);
    check_int(
        file_write_object(&v, s->ino, half, big + half, strlen(big) - half, true, false, NULL), 0);
}

TEST(store_faults, settle_joins_pieces, .init = begin, .fini = end)
{
    run(&(struct row){make_pieces,
                      nothing,
                      is_settled_big,
                      {{STORE_GET, SOURCE_KEY, .conditional = true},
                       {STORE_MPU_CREATE, FILE_KEY},
                       {STORE_MPU_PART, FILE_KEY},
                       {STORE_MPU_COMPLETE, FILE_KEY, .conditional = true},
                       {STORE_HEAD, FILE_KEY}},
                      5});
}

static void make_big(struct subject *s)
{
    s->ino = file_object(&v, s->dir, "file", big, strlen(big), false);
    settle();
}

static void to_staging(struct subject *s)
{
    uint64_t staging;
    check_int(name_mkdir(&v, s->dir, "_temporary", &staging), 0);
    check_int(name_rename(&v, s->dir, "file", staging, "file"), 0);
}

static void is_internal_big(struct subject *s)
{
    char key[META_KEY_MAX + 1];
    read_is(s, big);
    file_key(&v, s->ino, key);
    check(strstr(key, ".sluice/o/") != NULL);
}

TEST(store_faults, settle_copies_to_an_internal_key, .init = begin, .fini = end)
{
    run(&(struct row){make_big,
                      to_staging,
                      is_internal_big,
                      {{STORE_COPY, OBJECTS, .conditional = true}, {STORE_HEAD, OBJECTS}},
                      2});
}

/* The class of an object where it is */

static void give_class(struct subject *s)
{
    check_int(meta_migrate(v.meta, s->dir, META_MIGRATE_TO, NULL, COLD, 0, &error), 0);
}

static void has_class(const struct subject *s)
{
    struct store_op head = {.kind = STORE_HEAD, .key = s->file};
    check_int(store_wait(v.store, &head), 0);
    check_str(head.info.storage_class, COLD);
    store_op_reset(&head);
}

static void is_cold_text(struct subject *s)
{
    read_is(s, "before");
    object_is(s->file, "before");
    has_class(s);
}

static void is_cold_big(struct subject *s)
{
    is_settled_big(s);
    has_class(s);
}

TEST(store_faults, class_of_a_small_object, .init = begin, .fini = end)
{
    run(&(struct row){
        make_settled,
        give_class,
        is_cold_text,
        {{STORE_GET, FILE_KEY, .conditional = true}, {STORE_PUT, FILE_KEY, .conditional = true}},
        2});
}

TEST(store_faults, class_of_a_large_object, .init = begin, .fini = end)
{
    run(&(struct row){make_big,
                      give_class,
                      is_cold_big,
                      {{STORE_MPU_CREATE, FILE_KEY},
                       {STORE_MPU_PART_COPY, FILE_KEY, .conditional = true},
                       {STORE_MPU_COMPLETE, FILE_KEY, .conditional = true},
                       {STORE_HEAD, FILE_KEY, .first = true}},
                      4});
}

/* Migration: the volume's own store fails, the other is a directory */

static void begin_stores(void)
{
    char url[5000];
    begin();
    check_int(store_mux_new(v.store, &v.config.store), 0);
    v.store = v.config.store;
    volume_open(&v);
    snprintf(url, sizeof(url), "file://%s/new", v.dir);
    check_int(mkdir(url + strlen("file://"), 0700), 0);
    struct meta_store_request request = {.url = url, .name = "new"};
    check_int(meta_store_attach(v.meta, &request, &error), 0);
    volume_close(&v);
}

static void move_away(struct subject *s)
{
    check_int(meta_migrate(v.meta, s->dir, META_MIGRATE_TO, "new", NULL, 0, &error), 0);
}

static void move_home(struct subject *s)
{
    check_int(meta_migrate(v.meta, s->dir, META_MIGRATE_CANCEL, NULL, NULL, 0, &error), 0);
}

static void is_away(struct subject *s)
{
    char key[META_KEY_MAX + 1], expected[80];
    snprintf(expected, sizeof(expected), "/1/%s", s->file);
    read_is(s, "before");
    file_key(&v, s->ino, key);
    check_str(key, expected);
}

static void make_away(struct subject *s)
{
    move_away(s);
    make_settled(s);
    is_away(s);
}

static void is_home(struct subject *s)
{
    read_is(s, "before");
    object_is(s->file, "before");
}

TEST(store_faults, migrate_away, .init = begin_stores, .fini = end)
{
    run(&(struct row){
        make_settled, move_away, is_away, {{STORE_GET, FILE_KEY, .conditional = true}}, 1});
}

TEST(store_faults, migrate_home, .init = begin_stores, .fini = end)
{
    run(&(struct row){
        make_away,
        move_home,
        is_home,
        {{STORE_PUT, FILE_KEY, .conditional = true}, {STORE_HEAD, FILE_KEY, .first = true}},
        2});
}

/* Entries */

static void name_entry(struct subject *s, uint64_t ino)
{
    snprintf(s->source, sizeof(s->source), ".sluice/e/%.8s/%016" PRIx64, meta_volume(v.meta)->id,
             ino);
}

static void make_to_carry(struct subject *s)
{
    make_settled(s);
    name_entry(s, s->ino);
}

static void change_mode(struct subject *s)
{
    struct meta_request r = {
        .op = {
            .kind = META_SETATTR, .ino = s->ino, .valid = META_SET_MODE, .attr = {.mode = 0600}}};
    check_int(meta_call(v.meta, &r), 0);
    meta_reply_done(&r.reply);
}

static void has_entry(struct subject *s)
{
    cleanup(free_ptr) char *text = bucket_get(&v, s->source);
    check(text != NULL);
    check(strstr(text, "600") != NULL);
    object_is(s->file, "before");
}

TEST(store_faults, carry_writes, .init = begin, .fini = end)
{
    run(&(struct row){make_to_carry,
                      change_mode,
                      has_entry,
                      {{STORE_HEAD, FILE_KEY}, {STORE_PUT, SOURCE_KEY}},
                      2});
}

static void make_empty_directory(struct subject *s)
{
    uint64_t ino;
    check_int(name_mkdir(&v, s->dir, "empty", &ino), 0);
    settle();
    name_entry(s, ino);
    check(bucket_has(&v, s->source));
}

static void remove_directory(struct subject *s)
{
    check_int(name_rmdir(&v, s->dir, "empty"), 0);
}

static void has_no_entry(struct subject *s)
{
    check(!bucket_has(&v, s->source));
}

TEST(store_faults, carry_removes, .init = begin, .fini = end)
{
    run(&(struct row){
        make_empty_directory, remove_directory, has_no_entry, {{STORE_DELETE, SOURCE_KEY}}, 1});
}

/* gc, of all subjects at once: what failed is tried again a second later */

static void run_gc(const struct row *row)
{
    struct store_fault_rule rules[SUBJECTS_MAX];
    unsigned count = 0;
    v.config.no_settle = true;
    volume_open(&v);
    for (unsigned i = 0; i < row->count; i++)
        for (unsigned j = 0; j < ARRAY_LEN(faults); j++)
            if (can_be(&faults[j], &row->requests[i])) {
                struct subject *s = subject_new();
                s->lags = faults[j].kind == STORE_HEAD;
                row->make(s);
                rules[count++] = rule_of(&faults[j], &row->requests[i], s);
            }
    v.config.no_settle = false;
    store_fault_set(fault_store, rules, count);
    volume_again(&v); /* what was not finished is gc's then */
    for (unsigned i = 0; i < count; i++)
        row->work(&subjects[i]);
    eventually(store_fault_acted(fault_store) == count);
    eventually(is_clean());
    store_fault_set(fault_store, NULL, 0);
    for (unsigned i = 0; i < count; i++) {
        /* A HEAD that lagged left it: whoever lists finds what it is. */
        check(subjects[i].lags || !bucket_has(&v, subjects[i].file));
        check_int(volume_refresh_now(&v, subjects[i].dir), 0);
        eventually(!bucket_has(&v, subjects[i].file));
        object_is(subjects[i].theirs, THEIRS);
    }
    eventually(is_clean());
}

static void unlink_file(struct subject *s)
{
    check_int(name_unlink(&v, s->dir, "file"), 0);
}

TEST(store_faults, gc_of_natural_keys, .init = begin, .fini = end)
{
    run_gc(&(struct row){make_settled,
                         unlink_file,
                         NULL,
                         {{STORE_HEAD, FILE_KEY}, {STORE_DELETE, FILE_KEY, .conditional = true}},
                         2});
}

static void make_unfinished(struct subject *s)
{
    make_empty(s);
    struct meta_request reserve = {.op = {.kind = META_RESERVE, .ino = s->ino}, .durable = true};
    check_int(meta_call(v.meta, &reserve), 0);
    struct meta_object object = reserve.reply.objects[0];
    meta_reply_done(&reserve.reply);
    check_str(object.key, s->file);
    struct store_op create = {.kind = STORE_MPU_CREATE, .key = object.key};
    check_int(store_wait(v.store, &create), 0);
    store_op_reset(&create);
    bucket_put_tagged(&v, v.store, &object, "came too late");
}

TEST(store_faults, gc_of_unfinished_uploads, .init = begin, .fini = end)
{
    run_gc(&(struct row){
        make_unfinished,
        nothing,
        NULL,
        {{STORE_MPU_LIST, FILE_KEY}, {STORE_MPU_ABORT, FILE_KEY}, {STORE_HEAD, FILE_KEY}},
        3});
}

TEST(store_faults, gc_of_internal_keys, .init = begin, .fini = end)
{
    const struct request request = {STORE_DELETE_MANY, OBJECTS};
    volume_open(&v);
    for (unsigned j = 0; j < ARRAY_LEN(faults); j++) {
        if (!can_be(&faults[j], &request))
            continue;
        struct subject *s = subject_new();
        s->ino = file_object(&v, s->dir, "_temporary", "text", 4, true);
        file_key(&v, s->ino, s->source);
        struct store_fault_rule rule = rule_of(&faults[j], &request, s);
        store_fault_set(fault_store, &rule, 1);
        check_int(name_unlink(&v, s->dir, "_temporary"), 0);
        eventually(store_fault_acted(fault_store) == 1);
        eventually(is_clean());
        check(!bucket_has(&v, s->source));
        object_is(s->theirs, THEIRS);
    }
}

/* Import: an error is told, and is never taken for an empty directory */

static void check_lists(const char *name)
{
    int rc;
    cleanup(free_ptr) char *names = name_list(&v, name_ino(&v, META_ROOT_INO, name), &rc);
    check_int(rc, 0);
    check_str(names, "a,b");
}

static void check_finds(const char *name)
{
    check_int(name_lookup(&v, name_ino(&v, META_ROOT_INO, name), "a", NULL), 0);
}

static void check_import(const struct request *request, void (*is_right)(const char *name))
{
    v.config.negative_ttl_ms = 0;
    volume_open(&v);
    for (unsigned j = 0; j < ARRAY_LEN(faults); j++) {
        char dir[8], part[8], a[16], b[16];
        if (!can_be(&faults[j], request) || faults[j].older)
            continue;
        snprintf(dir, sizeof(dir), "d%u", j);
        snprintf(part, sizeof(part), "d%u/", j);
        snprintf(a, sizeof(a), "d%u/a", j);
        snprintf(b, sizeof(b), "d%u/b", j);
        bucket_put(&v, a, THEIRS);
        bucket_put(&v, b, THEIRS);
        uint64_t ino = name_ino(&v, META_ROOT_INO, dir);
        struct store_fault_rule rule = {
            .kind = (int)request->kind, .key_part = part, .count = 1, .result = faults[j].result};
        store_fault_set(fault_store, &rule, 1);
        int rc = request->kind == STORE_HEAD ? name_lookup(&v, ino, "a", NULL) : 0;
        cleanup(free_ptr) char *names =
            request->kind == STORE_LIST ? name_list(&v, ino, &rc) : NULL;
        check(!names);
        check_int(rc, faults[j].kind == STORE_HEAD ? -ENOENT : -EIO);
        check_uint(store_fault_acted(fault_store), 1);
        store_fault_set(fault_store, NULL, 0);
        is_right(dir);
    }
}

TEST(store_faults, import_of_a_name, .init = begin, .fini = end)
{
    check_import(&(struct request){STORE_HEAD, FILE_KEY}, check_finds);
}

TEST(store_faults, import_of_a_listing, .init = begin, .fini = end)
{
    check_import(&(struct request){STORE_LIST, FILE_KEY}, check_lists);
}

/* Rebuild: it fails and says so, and the same command goes on */

static void make_bucket(void)
{
    uint64_t dir;
    volume_open(&v);
    check_int(name_mkdir(&v, META_ROOT_INO, "d", &dir), 0);
    file_inline(&v, dir, "a", "text");
    file_inline(&v, dir, "b", "text");
    check_int(name_mkdir(&v, META_ROOT_INO, "empty", NULL), 0);
    settle();
    volume_close(&v);
    check_uint(bucket_count(&v, ".sluice/e/"), 1);
}

static int rebuild(void)
{
    struct rebuild_config config = {.volume = v.config, .parallel = 4};
    struct rebuild_counts counts;
    return meta_rebuild(&config, &counts, NULL, &error);
}

static void check_rebuilt(void)
{
    int rc;
    volume_open(&v);
    cleanup(free_ptr) char *names = name_list(&v, META_ROOT_INO, &rc);
    check_str(names, "d/,empty/");
    uint64_t dir = name_ino(&v, META_ROOT_INO, "d");
    check_int(volume_refresh_now(&v, dir), 0); /* a HEAD that lagged left a file out */
    cleanup(free_ptr) char *below = name_list(&v, dir, &rc);
    check_str(below, "a,b");
    volume_close(&v);
    check_uint(bucket_count(&v, ".sluice/e/"), 1);
}

TEST(store_faults, rebuild, .init = begin, .fini = end)
{
    static const struct {
        struct request request;
        const char *key;
    } requests[] = {
        {{STORE_LIST, FILE_KEY}, NULL},
        {{STORE_HEAD, FILE_KEY}, "d/a"},
        {{STORE_GET, FILE_KEY}, ".sluice/e/"},
        {{STORE_PUT, FILE_KEY}, ".sluice/e/"},
        {{STORE_DELETE_MANY, FILE_KEY}, ".sluice/e/"},
    };
    unsigned number = 0;
    make_bucket();
    for (unsigned i = 0; i < ARRAY_LEN(requests); i++)
        for (unsigned j = 0; j < ARRAY_LEN(faults); j++) {
            if (!can_be(&faults[j], &requests[i].request) || faults[j].older)
                continue;
            snprintf(v.database, sizeof(v.database), "%.4090s/again-%u", v.dir, number++);
            check_int(mkdir(v.database, 0700), 0);
            struct store_fault_rule rule = {.kind = (int)requests[i].request.kind,
                                            .key_part = requests[i].key,
                                            .count = 1,
                                            .result = faults[j].result,
                                            .after = faults[j].after};
            store_fault_set(fault_store, &rule, 1);
            int rc = rebuild();
            check_uint(store_fault_acted(fault_store), 1);
            store_fault_set(fault_store, NULL, 0);
            check_int(rc, faults[j].kind == STORE_HEAD ? 0 : rc);
            if (rc)
                check_int(rebuild(), 0);
            check_rebuilt();
        }
}
