/* Names from an inventory in place of listings: what they are worth, and what is refused. */
#include <errno.h>
#include <openssl/evp.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "import/inventory_format.h"
#include "meta/inventory.h"
#include "volume_lib.h"

#define HEAD                                                                                       \
    "{\"sourceBucket\":\"data\",\"creationTimestamp\":\"%llu\",\"fileFormat\":\"%s\","             \
    "\"fileSchema\":\"%s\",\"files\":[{\"key\":\"all/data/"                                        \
    "1.csv\",\"size\":%zu,\"MD5checksum\":\"%s\"}]}"

#define CSV_SCHEMA "Bucket, Key, IsLatest, IsDeleteMarker, Size, LastModifiedDate, ETag"
#define PARQUET_SCHEMA                                                                             \
    "message s3.inventory { required binary bucket (UTF8); required binary key (UTF8); "           \
    "optional boolean is_latest; optional int64 size; optional binary e_tag (UTF8); "              \
    "optional int64 last_modified_date (TIMESTAMP_MILLIS); }"
#define ORC_SCHEMA                                                                                 \
    "struct<key:string,size:bigint,last_modified_date:timestamp,e_tag:string,is_latest:boolean>"

static struct volume v;
static struct buf rows;
static struct inventory_counts counts;
static struct error error;
static char manifest[4400], data[4400], path_before[4096];

static void init(void)
{
    volume_begin(&v);
    mkdir(v.database, 0700);
    v.config.import_ttl_ms = 1000 * 3600 * 24;
    snprintf(manifest, sizeof(manifest), "%s/manifest.json", v.dir);
    snprintf(data, sizeof(data), "%s/1.csv", v.dir);
    buf_init(&rows, 0);
    snprintf(path_before, sizeof(path_before), "%s", getenv("PATH"));
}

static void fini(void)
{
    setenv("PATH", path_before, 1);
    buf_done(&rows);
    volume_end(&v);
}

static void write_text(const char *path, const char *text, size_t len)
{
    FILE *f = fopen(path, "w");
    check(f != NULL);
    check_uint(len ? fwrite(text, 1, len, f) : 0, len);
    fclose(f);
}

static char *read_text(const char *path)
{
    FILE *f = fopen(path, "r");
    char *text = calloc(1, 20000);
    check(f && text);
    fread(text, 1, 19999, f);
    fclose(f);
    return text;
}

/* A row about a key that is in the bucket now, or not. `as` = the key as it is encoded. */
static void row(const char *as, const char *key)
{
    struct store_op op = {.kind = STORE_HEAD, .key = key};
    bool there = store_wait(v.memory, &op) == 0;
    buf_printf(&rows,
               "\"data\",\"%s\",\"true\",\"false\",\"%llu\",\"2026-11-20T10:11:12.000Z\",\"%s\"\n",
               as, there ? (unsigned long long)op.info.size : 1ULL, there ? op.info.etag : "gone");
    store_op_reset(&op);
}

static void write_manifest_of(const char *format, const char *schema, uint64_t created_ms)
{
    uint8_t raw[EVP_MAX_MD_SIZE];
    char md5[33], text[1024];
    EVP_Digest(rows.data, rows.len, raw, NULL, EVP_md5(), NULL);
    for (unsigned i = 0; i < 16; i++)
        snprintf(md5 + 2 * i, 3, "%02x", raw[i]);
    int len = snprintf(text, sizeof(text), HEAD, (unsigned long long)created_ms, format, schema,
                       rows.len, md5);
    write_text(data, (const char *)rows.data, rows.len);
    write_text(manifest, text, (size_t)len);
}

static void write_manifest(const char *format, uint64_t created_ms)
{
    write_manifest_of(format, CSV_SCHEMA, created_ms);
}

static int run(const char *filter)
{
    struct inventory_config config = {
        .volume = v.config, .bucket = "data", .manifest = manifest, .filter = filter};
    error_clear(&error);
    return meta_import_inventory(&config, &counts, NULL, &error);
}

static void import_now(void)
{
    write_manifest("CSV", clock_wall_ns() / NS_PER_MS);
    if (run(""))
        test_fail("import: %s", error_text(&error));
}

static void check_names(uint64_t dir, const char *expected)
{
    int rc;
    cleanup(free_ptr) char *names = name_list(&v, dir, &rc);
    check_int(rc, 0);
    check_str(names, expected);
}

TEST(inventory, names_come_without_a_listing, .init = init, .fini = fini)
{
    static const char *const keys[] = {"a/x", "a/y z", "b", "c//d", "a/deep/er/f"};
    for (size_t i = 0; i < ARRAY_LEN(keys); i++)
        bucket_put(&v, keys[i], keys[i]);
    row("a/x", "a/x");
    row("b", "b");
    row("a%2Fdeep/er/f", "a/deep/er/f");
    row("c//d", "c//d");
    row("a/y+z", "a/y z");
    row("a/x", "a/x"); /* twice */
    row(".sluice/o/1", "");
    buf_printf(&rows, "\"data\",\"old\",\"false\",\"false\",\"1\",\"\",\"\"\n"
                      "\"data\",\"deleted\",\"true\",\"true\",\"\",\"\",\"\"\r\n");
    import_now();
    check_uint(counts.rows, 9);
    check_uint(counts.skipped, 3);
    check_uint(counts.names.hidden, 1);
    check_uint(counts.listed, 5);
    volume_open(&v);
    uint64_t lists = store_fault_seen(v.store, STORE_LIST);
    check_names(META_ROOT_INO, "a/,b,c/");
    uint64_t a = name_ino(&v, META_ROOT_INO, "a");
    check_names(a, "deep/,x,y z");
    check_uint(store_fault_seen(v.store, STORE_LIST), lists);
    cleanup(free_ptr) char *text = file_read(&v, name_ino(&v, a, "y z"), NULL);
    check_str(text, "a/y z");
    check_uint(store_fault_seen(v.store, STORE_LIST), lists);
}

TEST(inventory, what_changed_since_is_noticed, .init = init, .fini = fini)
{
    bucket_put(&v, "d/f", "first");
    bucket_put(&v, "d/gone", "x");
    row("d/f", "d/f");
    row("d/gone", "d/gone");
    bucket_put(&v, "d/f", "second!");
    bucket_put(&v, "d/later", "x");
    bucket_delete(&v, "d/gone");
    import_now();
    volume_open(&v);
    uint64_t d = name_ino(&v, META_ROOT_INO, "d"), f = name_ino(&v, d, "f");
    check_names(d, "f,gone");
    check(file_read(&v, f, NULL) == NULL); /* If-Match */
    check_int(volume_refresh_now(&v, d), 0);
    check_names(d, "f,later");
    cleanup(free_ptr) char *text = file_read(&v, name_ino(&v, d, "f"), NULL);
    check_str(text, "second!");
}

static bool is_collected(void)
{
    cleanup(free_ptr) char *status = volume_status(&v);
    return strstr(status, "\"garbage_objects\":0") != NULL;
}

TEST(inventory, what_is_known_already_stays, .init = init, .fini = fini)
{
    uint64_t before = clock_wall_ns() / NS_PER_MS - 1000;
    bucket_put(&v, "d/f", "1");
    bucket_put(&v, "d/g", "1");
    bucket_put(&v, "e/h", "1");
    row("d/f", "d/f");
    row("d/g", "d/g");
    row("e/h", "e/h");
    volume_open(&v);
    uint64_t d = name_ino(&v, META_ROOT_INO, "d"), e = name_ino(&v, META_ROOT_INO, "e");
    check_names(d, "f,g");
    file_inline(&v, d, "mine", "m");
    check_int(name_lookup(&v, e, "h", NULL), 0);
    check_int(name_unlink(&v, e, "h"), 0);
    check_int(name_unlink(&v, d, "g"), 0);
    eventually(is_collected()); /* their keys are free again */
    volume_close(&v);
    write_manifest("CSV", before);
    check_int(run(""), 0);
    volume_open(&v);
    check_names(d, "f,mine");
    check_int(volume_refresh_now(&v, e), 0);
    check_int(name_lookup(&v, e, "h", NULL), -ENOENT);
}

TEST(inventory, directories_hide_files_in_any_order, .init = init, .fini = fini)
{
    bucket_put(&v, "a", "file");
    bucket_put(&v, "a/x", "1");
    bucket_put(&v, "z/y/x", "1");
    bucket_put(&v, "z/y", "file");
    row("a", "a");
    row("z/y/x", "z/y/x");
    row("a/x", "a/x");
    row("z/y", "z/y");
    import_now();
    volume_open(&v);
    check_names(META_ROOT_INO, "a/,z/");
    check_names(name_ino(&v, META_ROOT_INO, "a"), "x");
    check_names(name_ino(&v, META_ROOT_INO, "z"), "y/");
}

TEST(inventory, a_filtered_one_says_nothing_of_other_directories, .init = init, .fini = fini)
{
    bucket_put(&v, "d/f", "1");
    bucket_put(&v, "other", "1");
    row("d/f", "d/f");
    write_manifest("CSV", clock_wall_ns() / NS_PER_MS);
    check_int(run("d/"), 0);
    check_uint(counts.listed, 1);
    volume_open(&v);
    check_names(META_ROOT_INO, "d/,other");
}

/* It keeps its prefix until it is settled; but its names are looked for under the old name. */
TEST(inventory, a_directory_that_was_moved_is_not_taken_for_listed, .init = init, .fini = fini)
{
    bucket_put(&v, "d/f", "1");
    row("d/f", "d/f");
    volume_open(&v);
    check(name_ino(&v, META_ROOT_INO, "d") != 0);
    check_int(name_rename(&v, META_ROOT_INO, "d", META_ROOT_INO, "e"), 0);
    volume_close(&v);
    import_now();
    volume_open(&v);
    check_names(name_ino(&v, META_ROOT_INO, "e"), "f");
}

TEST(inventory, damage_is_refused, .init = init, .fini = fini)
{
    row("f", "f");
    write_manifest("CSV", 1);
    write_text(data, "\"data\",\"g\"\n", 11);
    check_int(run(""), -EBADMSG);
    check(strstr(error_text(&error), "MD5"));
    buf_reset(&rows);
    buf_printf(&rows, "\"data\",\"f\",\"true\"\n");
    write_manifest("CSV", 1);
    check_int(run(""), -EBADMSG);
    check(strstr(error_text(&error), "columns"));
    write_manifest("Avro", 1);
    check_int(run(""), -EOPNOTSUPP);
    check(strstr(error_text(&error), "CSV, Parquet or ORC"));
    write_manifest("Parquet", 1);
    check_int(run(""), -EBADMSG);
    check(strstr(error_text(&error), "choose these fields"));
    buf_reset(&rows);
    buf_printf(&rows,
               "\"other\",\"f\",\"true\",\"false\",\"1\",\"2026-11-20T10:11:12.000Z\",\"e\"\n");
    write_manifest("CSV", 1);
    check_int(run(""), -EBADMSG);
    volume_open(&v);
    check_names(META_ROOT_INO, "");
}

/* A program on PATH, and nothing else of ours. Its arguments are in `said`. */
static void put_program(const char *name, const char *script)
{
    char path[4300], text[9000];
    snprintf(path, sizeof(path), "%s/bin", v.dir);
    mkdir(path, 0700);
    setenv("PATH", path, 1);
    snprintf(path, sizeof(path), "%s/bin/%s", v.dir, name);
    snprintf(text, sizeof(text),
             "#!/bin/sh\nprintf '%%s\\n' \"$@\" >>'%s/said'\n[ $# = 3 ] && exit 0\n%s\n", v.dir,
             script);
    write_text(path, text, strlen(text));
    check_int(chmod(path, 0700), 0);
}

#define PYTHON_ROWS                                                                                \
    "echo '\"\",\"d/f\",\"1\",\"2026-11-20T10:11:12.000Z\",\"e\",\"true\",\"\"'\n"                 \
    "echo '\"\",\"d/old\",\"1\",\"2026-11-20T10:11:12.000Z\",\"e\",\"false\",\"\"'"

TEST(inventory, orc_is_read_by_a_program, .init = init, .fini = fini)
{
    char said[4300], wanted[9000];
    put_program("python3", PYTHON_ROWS);
    row("not", "read as it is");
    write_manifest_of("ORC", ORC_SCHEMA, clock_wall_ns() / NS_PER_MS);
    if (run(""))
        test_fail("import: %s", error_text(&error));
    check_uint(counts.rows, 2);
    check_uint(counts.skipped, 1);
    snprintf(said, sizeof(said), "%s/said", v.dir);
    snprintf(wanted, sizeof(wanted), "\norc\n%s\n", data);
    cleanup(free_ptr) char *text = read_text(said);
    check(strstr(text, "importlib") != NULL); /* first it was asked whether it can */
    check(strlen(text) > strlen(wanted));
    check_str(text + strlen(text) - strlen(wanted), wanted);
    volume_open(&v);
    check_names(META_ROOT_INO, "d/");
    check_names(name_ino(&v, META_ROOT_INO, "d"), "f");
}

TEST(inventory, names_of_files_are_no_sql, .init = init, .fini = fini)
{
    char said[4300], wanted[9000], odd[4300];
    snprintf(odd, sizeof(odd), "%s/it's; x", v.dir);
    check_int(mkdir(odd, 0700), 0);
    snprintf(manifest, sizeof(manifest), "%s/manifest.json", odd);
    snprintf(data, sizeof(data), "%s/1.csv", odd);
    put_program("duckdb", "echo '\"data\",\"f\",\"1\",\"2026-11-20T10:11:12.0Z\",\"e\",,'");
    write_manifest_of("Parquet", PARQUET_SCHEMA, clock_wall_ns() / NS_PER_MS);
    if (run(""))
        test_fail("import: %s", error_text(&error));
    snprintf(said, sizeof(said), "%s/said", v.dir);
    snprintf(wanted, sizeof(wanted),
             "-init\n/dev/null\n-bail\n-c\nSET threads = 2; COPY (SELECT bucket, url_encode(key), "
             "size, strftime(last_modified_date, '%%Y-%%m-%%dT%%H:%%M:%%S.%%gZ'), e_tag, "
             "is_latest, NULL "
             "FROM read_parquet('%s/it''s; x/1.csv')) TO '/dev/stdout' (FORMAT csv, HEADER false, "
             "FORCE_QUOTE *)\n",
             v.dir);
    cleanup(free_ptr) char *text = read_text(said);
    check_str(text, wanted);
}

TEST(inventory, a_program_that_fails_is_an_error, .init = init, .fini = fini)
{
    row("f", "f");
    write_manifest_of("Parquet", PARQUET_SCHEMA, clock_wall_ns() / NS_PER_MS);
    put_program("duckdb", PYTHON_ROWS "\necho first >&2\necho 'it is broken' >&2\nexit 3");
    check_int(run(""), -EIO);
    check(strstr(error_text(&error), "ended with 3: it is broken"));
    put_program("duckdb", "while echo nonsense; do :; done"); /* it is ended */
    check_int(run(""), -EBADMSG);
    check(strstr(error_text(&error), "columns"));
    put_program("duckdb", "kill -9 $$");
    check_int(run(""), -EIO);
    check(strstr(error_text(&error), "signal 9"));
    setenv("PATH", "/nowhere", 1);
    check_int(run(""), -EOPNOTSUPP);
    check(strstr(error_text(&error), "pip install pyarrow"));
}

TEST(inventory, rows)
{
    static const struct {
        const char *text, *key; /* NULL: refused */
    } cases[] = {
        {"\"a%20b\",1,2026-11-20T10:11:12Z,e", "a b"},
        {"\"a%22\"\"\",\"1\",\"2026-11-20T10:11:12.5Z\",\"\"\"e\"\"\"", "a\"\""},
        {"a,1,2026-11-20T10:11:12Z,e", "a"},
        {"a,1,2026-11-20T10:11:12Z", NULL},
        {"a,1,2026-11-20T10:11:12Z,e,x", NULL},
        {"a,-1,2026-11-20T10:11:12Z,e", NULL},
        {"a,1,yesterday,e", NULL},
        {"a,1,2026-11-20T10:11:12Z,", NULL},
        {"a%0,1,2026-11-20T10:11:12Z,e", NULL},
        {"a%00b,1,2026-11-20T10:11:12Z,e", NULL},
        {",1,2026-11-20T10:11:12Z,e", NULL},
        {"\"a,1,2026-11-20T10:11:12Z,e", NULL},
        {"\"a\"x,1,2026-11-20T10:11:12Z,e", NULL},
        {"a,99999999999999999999,2026-11-20T10:11:12Z,e", NULL},
    };
    struct inventory_manifest m = {.key = 0, .size = 1, .modified = 2, .etag = 3, .columns = 4};
    m.latest = m.deleted = m.of_bucket = -1;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct inventory_row r;
        cleanup(free_ptr) char *text = strdup(cases[i].text);
        struct error why = {0};
        int rc = inventory_row_parse(&m, text, &r, &why);
        check_int(rc, cases[i].key ? 0 : -EBADMSG);
        if (cases[i].key)
            check_str(r.key, cases[i].key);
    }
}
