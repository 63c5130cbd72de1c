/* What the bucket carries besides files: entries below .sluice/e/. */
#include <errno.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "volume/carry_entry.h"
#include "volume_lib.h"

static struct volume v;

static void init(void)
{
    volume_begin(&v);
    v.config.no_settle = true; /* but when asked */
}

static void fini(void)
{
    volume_end(&v);
}

static unsigned entries(void)
{
    return bucket_count(&v, ".sluice/e/");
}

static void set_mode(uint64_t ino, uint32_t mode)
{
    struct meta_request r = {
        .op = {.kind = META_SETATTR, .ino = ino, .valid = META_SET_MODE, .attr = {.mode = mode}}};
    check_int(meta_call(v.meta, &r), 0);
    meta_reply_done(&r.reply);
}

TEST(carry, directories_have_one_while_they_need_it, .init = init, .fini = fini)
{
    uint64_t d;
    volume_open(&v);
    check_int(name_mkdir(&v, META_ROOT_INO, "d", &d), 0);
    check_int(volume_settle(&v, META_ROOT_INO, NULL), 0);
    check_uint(entries(), 1);
    file_inline(&v, d, "f", "text");
    set_mode(d, 0755); /* any change of it: with a file in it, it is in the bucket by itself */
    check_int(volume_settle(&v, META_ROOT_INO, NULL), 0);
    check_uint(entries(), 0);
    set_mode(d, 0700);
    check_int(volume_settle(&v, META_ROOT_INO, NULL), 0);
    check_uint(entries(), 1);
    check_int(name_unlink(&v, d, "f"), 0);
    check_int(name_rmdir(&v, META_ROOT_INO, "d"), 0);
    check_int(volume_settle(&v, META_ROOT_INO, NULL), 0);
    check_uint(entries(), 0);
}

TEST(carry, files_have_one_if_their_object_says_something_else, .init = init, .fini = fini)
{
    volume_open(&v);
    uint64_t small = file_inline(&v, META_ROOT_INO, "small", "text");
    uint64_t large = file_object(&v, META_ROOT_INO, "large", "large", 5, false);
    set_mode(small, 0600); /* before its object is written */
    check_int(volume_settle(&v, META_ROOT_INO, NULL), 0);
    check_uint(entries(), 0);
    set_mode(large, 0600);
    set_mode(small, 0640);
    check_int(volume_settle(&v, META_ROOT_INO, NULL), 0);
    check_uint(entries(), 2);
    set_mode(small, 0600); /* as its object says */
    check_int(file_write_inline(&v, large, "new bytes, new object"), 0);
    check_int(volume_settle(&v, META_ROOT_INO, NULL), 0);
    check_uint(entries(), 0);
}

/* Its tags were made before the mode was changed, and its bytes stood in the metadata then. */
TEST(carry, a_mode_changed_while_the_first_object_was_written, .init = init, .fini = fini)
{
    volume_open(&v);
    uint64_t f = file_inline(&v, META_ROOT_INO, "f", "text");
    set_mode(f, 0600);
    check_int(file_write_object(&v, f, 0, "other text", 10, false, true, NULL), 0);
    check_int(volume_settle(&v, META_ROOT_INO, NULL), 0);
    check_uint(entries(), 1);
}

/* Theirs has no metadata of ours: mode and owner are the file's, and now the entry's alone. */
TEST(carry, a_file_whose_object_others_replaced, .init = init, .fini = fini)
{
    struct meta_attr attr;
    volume_open(&v);
    uint64_t plain = file_inline(&v, META_ROOT_INO, "plain", "text");
    uint64_t secret = file_inline(&v, META_ROOT_INO, "secret", "text");
    set_mode(plain, 0644);
    set_mode(secret, 0600);
    check_int(volume_settle(&v, META_ROOT_INO, NULL), 0);
    check_uint(entries(), 0);
    bucket_put(&v, "plain", "other");
    bucket_put(&v, "secret", "other");
    check_int(volume_refresh_now(&v, META_ROOT_INO), 0);
    check_int(name_lookup(&v, META_ROOT_INO, "secret", &attr), 0);
    check_uint(attr.ino, secret);
    check_uint(attr.size, 5);
    check_uint(attr.mode & 07777, 0600);
    check_int(volume_settle(&v, META_ROOT_INO, NULL), 0);
    check_uint(entries(), 1);
}

TEST(carry, nothing_of_staging_paths, .init = init, .fini = fini)
{
    uint64_t d;
    volume_open(&v);
    check_int(name_mkdir(&v, META_ROOT_INO, "_temporary", &d), 0);
    check_int(name_mkdir(&v, d, "0", NULL), 0);
    check_int(volume_settle(&v, META_ROOT_INO, NULL), 0);
    check_uint(entries(), 0);
    check_int(name_rename(&v, d, "0", META_ROOT_INO, "out"), 0);
    check_int(volume_settle(&v, META_ROOT_INO, NULL), 0);
    check_uint(entries(), 1);
}

TEST(carry, a_failing_store_is_told_by_the_barrier, .init = init, .fini = fini)
{
    struct error error = {0};
    volume_open(&v);
    check_int(name_mkdir(&v, META_ROOT_INO, "d", NULL), 0);
    volume_fault(
        &v, (struct store_fault_rule){.kind = STORE_PUT, .key_part = ".sluice/e/", .result = -EIO});
    check_int(volume_settle(&v, META_ROOT_INO, &error), -EIO);
    volume_no_fault(&v);
    check_int(volume_settle(&v, META_ROOT_INO, &error), 0);
    check_uint(entries(), 1);
}

TEST(carry, entry_as_text)
{
    static const char *const bad[] = {
        "",
        "[]",
        "{\"format\": 1}",
        "{\"format\": 1, \"type\": \"directory\", \"path\": \"a/../b\", \"mode\": \"0755\", "
        "\"uid\": 0, \"gid\": 0, \"mtime_ns\": 1, \"written_ns\": 1}",
        "{\"format\": 1, \"type\": \"directory\", \"path\": \"a\", \"mode\": \"0899\", "
        "\"uid\": 0, \"gid\": 0, \"mtime_ns\": 1, \"written_ns\": 1}",
        "{\"format\": 1, \"type\": \"link\", \"path\": \"a\", \"mode\": \"0777\", "
        "\"uid\": 0, \"gid\": 0, \"mtime_ns\": 1, \"written_ns\": 1, \"target\": \"====\"}",
        "{\"format\": 1, \"type\": \"file\", \"path\": \"\", \"mode\": \"0644\", "
        "\"uid\": 0, \"gid\": 0, \"mtime_ns\": 1, \"written_ns\": 1, \"etag\": \"\", \"size\": 0}",
    };
    struct carry_entry entry;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        check_int(carry_entry_parse(bad[i], strlen(bad[i]), &entry), -EBADMSG);
        carry_entry_done(&entry);
    }
    char path[] = "a/b", target[] = "x\xff";
    struct carry_entry link = {.path = path,
                               .mode = S_IFLNK | 0777,
                               .uid = 3,
                               .mtime_ns = 12345678901,
                               .target = {target, 2}};
    cleanup(free_ptr) char *text = carry_entry_print(&link);
    check_int(carry_entry_parse(text, strlen(text), &entry), 0);
    check_str(entry.path, "a/b");
    check_uint(entry.mode, link.mode);
    check_uint(entry.mtime_ns, link.mtime_ns);
    check_str(entry.target.bytes, "x\xff");
    carry_entry_done(&entry);
}

TEST(carry_entry, keeps_what_has_a_time_after_2262)
{
    struct carry_entry entry;
    char path[] = "fifo";
    struct carry_entry late = {.path = path, .mode = S_IFIFO | 0644, .mtime_ns = UINT64_MAX};
    cleanup(free_ptr) char *text = carry_entry_print(&late);
    check_int(carry_entry_parse(text, strlen(text), &entry), 0);
    check_uint(entry.mtime_ns, INT64_MAX);
    carry_entry_done(&entry);
}
