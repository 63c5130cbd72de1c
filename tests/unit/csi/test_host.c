/* What is kept on the host: records, the list of volumes, and the table of mounts. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mounts.h"
#include "records.h"
#include "registry.h"
#include "test.h"

TEST(mounts_parse_line, reads_escapes_and_optional_fields)
{
    struct mount_entry e;
    check_int(mounts_parse_line("36 35 0:40 / /a\\040b rw,nosuid shared:1 master:2 - fuse.sluice "
                                "s3://b/x\\011 rw,user_id=0\n",
                                &e),
              0);
    check_str(e.mountpoint, "/a b");
    check_str(e.type, "fuse.sluice");
    check_str(e.source, "s3://b/x\t");
    check_str(e.device, "0:40");
    check(mounts_is_sluice(&e) && !e.read_only);
    free(e.mountpoint);
    free(e.type);
    free(e.source);
    check_int(mounts_parse_line("36 35 0:40 / /a ro - t s rw", &e), 0);
    check(e.read_only);
    free(e.mountpoint);
    free(e.type);
    free(e.source);
    check_int(mounts_parse_line("36 35 0:40 / /a rw", &e), -EBADMSG);
    check_int(mounts_parse_line("", &e), -EBADMSG);
}

TEST(mounts_make_target, follows_no_link)
{
    char dir[4096], path[4200], link[4200];
    struct error error = {0};
    test_dir_make(dir);
    snprintf(path, sizeof(path), "%s/a", dir);
    snprintf(link, sizeof(link), "%s/link", dir);
    check_int(mounts_make_target(path, &error), 0);
    check_int(mounts_make_target(path, &error), 0);
    check_int(symlink(path, link), 0);
    check_int(mounts_make_target(link, &error), -ELOOP);
    snprintf(path, sizeof(path), "%s/link/x", dir);
    check_int(mounts_make_target(path, &error), -ELOOP);
    check_int(mounts_remove_target(path, &error), -ELOOP);
    snprintf(path, sizeof(path), "%s/none/x", dir);
    check_int(mounts_make_target(path, &error), -ENOENT);
    check_int(mounts_remove_target(path, &error), 0);
    check_int(mounts_unmount(path, false, &error), 0);
    test_dir_remove(dir);
}

static void count_record(void *arg, const char *dir, struct record *record)
{
    check(strstr(dir, "/volumes/") != NULL);
    check_str(record->volume_id, "the id");
    ++*(int *)arg;
}

TEST(record_save, is_loaded_again)
{
    char base[4096];
    struct record r = {.volume_id = strdup("the id"),
                       .staging = strdup("/s"),
                       .clean = true,
                       .unstaged_s = 7},
                  again;
    int seen = 0;
    test_dir_make(base);
    char *dir = records_dir(base, "the id");
    check_int(records_make(dir, NULL), 0);
    check_int(record_load(dir, &again), -ENOENT);
    check_int(record_save(dir, &r, NULL), 0);
    check_int(record_load(dir, &again), 0);
    check_str(again.volume_id, "the id");
    check_str(again.staging, "/s");
    check_str(again.owner, NULL);
    check(again.clean);
    check_int(again.unstaged_s, 7);
    records_each(base, count_record, &seen);
    check_int(seen, 1);
    char path[4300];
    snprintf(path, sizeof(path), "%s/volume.json", dir);
    FILE *file = fopen(path, "w");
    fputs("{\"volume\":", file); /* cut off */
    fclose(file);
    record_done(&again);
    check_int(record_load(dir, &again), -EBADMSG);
    check_int(records_remove(dir), 0);
    check_int(records_remove(dir), 0);
    free(dir);
    record_done(&r);
    test_dir_remove(base);
}

TEST(registry_page, goes_on_behind_the_token)
{
    char base[4096];
    struct registry_page page;
    test_dir_make(base);
    struct registry *r = registry_open(base);
    registry_put(r, "s3://b/2", 2);
    registry_put(r, "s3://b/1", 1);
    registry_put(r, "s3://b/3", 3);
    check(!registry_page(r, "nonsense", 0, &page));
    check(registry_page(r, "", 2, &page));
    check_uint(page.count, 2);
    check_str(page.entries[0].id, "s3://b/1");
    check_str(page.next, "s3://b/2");
    registry_remove(r, "s3://b/2"); /* a token may have gone */
    struct registry_page rest;
    check(registry_page(r, page.next, 2, &rest));
    check_uint(rest.count, 1);
    check_int(rest.entries[0].size, 3);
    check(rest.next == NULL);
    registry_page_done(&page);
    registry_page_done(&rest);
    registry_close(r);
    r = registry_open(base);
    check(registry_page(r, "", 0, &page));
    check_uint(page.count, 2);
    registry_page_done(&page);
    registry_close(r);
    test_dir_remove(base);
}
