/*
 * A staging without a log: its bytes say all by themselves, until something else than a write
 * happens.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "data/staging.h"
#include "data/staging_impl.h"
#include "staging_lib.h"
#include "test.h"

#define INLINE_MAX 32768u
#define INO 77u
#define SIZE 100000u

static char directory[4096];
static uint8_t a[SIZE], b[SIZE];

static void make_directory(void)
{
    test_dir_make(directory);
    memset(a, 'a', sizeof(a));
    memset(b, 'b', sizeof(b));
}

static void remove_directory(void)
{
    test_dir_remove(directory);
}

static struct staging_area *open_area(void)
{
    struct staging_area *area = NULL;
    struct error error = {0};
    check_int(staging_area_open(directory, 1ull << 30, INLINE_MAX, &area, &error), 0);
    return area;
}

static struct staging *make_staging(struct staging_area *area, uint32_t flags)
{
    struct staging *staging;
    check_int(staging_new_class(area, INO, 0, flags, 1, &staging), 0);
    check_int(staging_write_bytes(staging, a, 0, sizeof(a), 1), 0);
    return staging;
}

static bool exists(const char *name)
{
    char path[5000];
    snprintf(path, sizeof(path), "%s/%s", directory, name);
    return access(path, F_OK) == 0;
}

static bool has_log(void)
{
    char name[64];
    snprintf(name, sizeof(name), "%016x", INO);
    return exists(name);
}

struct recovered {
    unsigned count;
    struct staging_found found;
};

static int note_found(void *arg, const struct staging_found *found)
{
    struct recovered *recovered = arg;
    if (recovered->count++)
        staging_free(found->staging);
    else
        recovered->found = *found;
    return 0;
}

/* Ends the process or the host; what the next one finds. */
static struct recovered next_process(struct staging_area **area, bool power_loss)
{
    struct recovered recovered = {0};
    uint64_t discarded;
    staging_area_close(*area);
    if (power_loss)
        staging_lib_change_boot(directory, INO);
    *area = open_area();
    check_int(staging_recover(*area, note_found, &recovered, &discarded), 0);
    return recovered;
}

static void check_bytes(struct staging *staging, const uint8_t *bytes, uint64_t length)
{
    static uint8_t got[SIZE];
    check(staging_covers(staging, 0, length));
    check_int(staging_read(staging, 0, length, got), 0);
    check_mem(got, bytes, length);
}

static int sync_all(struct staging *staging)
{
    struct staging_sync sync;
    check_int(staging_sync_begin(staging, &sync), 0);
    check_int(staging_sync_data(&sync), 0);
    int rc = staging_sync_note(staging, &sync);
    if (rc == 0)
        rc = staging_sync_log(&sync);
    if (rc == 0)
        staging_sync_end(staging, &sync);
    staging_sync_done(&sync);
    return rc;
}

static void cut(struct staging *staging)
{
    check_int(staging_set_size(staging, 1000, 2), 0);
}

static void zero(struct staging *staging)
{
    check_int(staging_zero(staging, 1000, 1000, 2), 0);
}

static void set_time(struct staging *staging)
{
    check_int(staging_set_time(staging, 2), 0);
}

static void freeze(struct staging *staging)
{
    staging_freeze(staging);
}

static void leave_class(struct staging *staging)
{
    check_int(staging_set_flags(staging, 0), 0);
}

TEST(staging_alone, writes_and_syncs_make_no_log, .init = make_directory, .fini = remove_directory)
{
    for (int power_loss = 0; power_loss < 2; power_loss++) {
        struct staging_area *area = open_area();
        struct staging *staging = make_staging(area, STAGING_LOCAL | STAGING_FRESH);
        check_int(sync_all(staging), 0);
        check(!staging_needs_sync(staging));
        check_int(staging_share(staging), 0);
        check_int(staging_take(staging, 5, true), 0);
        check_int(sync_all(staging), 0);
        check(!has_log());
        staging_leave(staging);
        struct recovered recovered = next_process(&area, power_loss);
        check_uint(recovered.count, 1);
        /* Nothing of it may be committed: that would have been all of it. */
        check(recovered.found.other_boot);
        check_uint(recovered.found.base_version, 0);
        check_uint(recovered.found.flags, STAGING_LOCAL);
        check_uint(recovered.found.size, SIZE);
        check_uint(recovered.found.truncated_to, UINT64_MAX);
        check(recovered.found.time_dirty);
        check_bytes(recovered.found.staging, a, SIZE);
        /* It is as it was: another loss, and another turn. */
        staging_leave(recovered.found.staging);
        recovered = next_process(&area, power_loss);
        check_uint(recovered.count, 1);
        check_bytes(recovered.found.staging, a, SIZE);
        staging_free(recovered.found.staging);
        check_uint(next_process(&area, false).count, 0);
        staging_area_close(area);
    }
}

TEST(staging_alone, only_a_new_local_file_has_no_log, .init = make_directory,
     .fini = remove_directory)
{
    static const struct {
        uint32_t flags;
        uint64_t size, version;
    } others[] = {
        {STAGING_FRESH, 0, 1},
        {STAGING_SCRATCH | STAGING_FRESH, 0, 1},
        {STAGING_LOCAL, 0, 1},
        {STAGING_LOCAL | STAGING_FRESH, 0, 2},
        {STAGING_LOCAL | STAGING_FRESH, 10, 1},
    };
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        struct staging_area *area = open_area();
        struct staging *staging;
        check_int(staging_new_class(area, INO, others[i].size, others[i].flags, others[i].version,
                                    &staging),
                  0);
        check_int(staging_write_bytes(staging, a, 0, sizeof(a), 1), 0);
        check(has_log());
        staging_free(staging);
        staging_area_close(area);
    }
}

TEST(staging_alone, what_is_no_write_makes_a_log_that_counts_when_it_is_synced,
     .init = make_directory, .fini = remove_directory)
{
    void (*const changes[])(struct staging *) = {cut, zero, set_time, freeze};
    for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++)
        for (int synced = 0; synced < 2; synced++) {
            struct staging_area *area = open_area();
            struct staging *staging = make_staging(area, STAGING_LOCAL | STAGING_FRESH);
            check_int(sync_all(staging), 0);
            changes[i](staging);
            check(has_log());
            check(staging_needs_sync(staging));
            if (synced) {
                check_int(sync_all(staging), 0);
                check(!staging_needs_sync(staging));
            }
            staging_leave(staging);
            struct recovered recovered = next_process(&area, true);
            check_uint(recovered.count, 1);
            check_uint(recovered.found.base_version, synced);
            check_uint(recovered.found.size, synced && changes[i] == cut ? 1000 : SIZE);
            check_bytes(recovered.found.staging, a, 1000);
            /* A cut that was not synced has not taken the bytes beyond it. */
            if (!synced && changes[i] == cut)
                check_bytes(recovered.found.staging, a, SIZE);
            staging_free(recovered.found.staging);
            staging_area_close(area);
        }
}

TEST(staging_alone, a_sync_that_began_before_begins_again, .init = make_directory,
     .fini = remove_directory)
{
    struct staging_area *area = open_area();
    struct staging *staging = make_staging(area, STAGING_LOCAL | STAGING_FRESH);
    struct staging_sync sync;
    check_int(staging_sync_begin(staging, &sync), 0);
    check(!sync.log);
    check_int(staging_sync_data(&sync), 0);
    /* An upload reads the bytes: when it is committed they count for nothing. */
    staging_freeze(staging);
    check_int(staging_sync_note(staging, &sync), -EAGAIN);
    staging_sync_done(&sync);
    check_int(staging_sync_begin(staging, &sync), 0);
    check(sync.log);
    staging_sync_done(&sync);
    check_int(sync_all(staging), 0);
    staging_free(staging);
    staging_area_close(area);
}

TEST(staging_alone, another_class_is_not_kept, .init = make_directory, .fini = remove_directory)
{
    struct staging_area *area = open_area();
    struct staging *staging = make_staging(area, STAGING_LOCAL | STAGING_FRESH);
    leave_class(staging);
    check(has_log());
    staging_leave(staging);
    struct recovered recovered = next_process(&area, false);
    check_uint(recovered.count, 1);
    check_uint(recovered.found.flags, 0);
    staging_free(recovered.found.staging);
    staging_area_close(area);
}

static void put_file(uint64_t number, const uint8_t *bytes)
{
    char path[5000], name[64];
    staging_data_name(INO, number, name);
    snprintf(path, sizeof(path), "%s/%s", directory, name);
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
    check(fd >= 0);
    check_int(write(fd, bytes, SIZE), SIZE);
    close(fd);
}

TEST(staging_alone, the_newest_bytes_count_and_none_beside_a_log, .init = make_directory,
     .fini = remove_directory)
{
    struct staging_area *area = open_area();
    put_file(STAGING_ALONE | 5, a);
    put_file(STAGING_ALONE | 16, b);
    put_file(99, a); /* never counts without a log */
    put_file(STAGING_ALONE | 6, a);
    struct recovered recovered = next_process(&area, false);
    check_uint(recovered.count, 3); /* the caller refuses all but the first */
    check_bytes(recovered.found.staging, b, SIZE);
    check_int(staging_set_size(recovered.found.staging, SIZE, 2), 0);
    check(has_log());
    staging_leave(recovered.found.staging);
    put_file(STAGING_ALONE | 1000, a);
    recovered = next_process(&area, false);
    check_uint(recovered.count, 1);
    check_bytes(recovered.found.staging, b, SIZE);
    staging_free(recovered.found.staging);
    char name[64];
    staging_data_name(INO, STAGING_ALONE | 1000, name);
    check(!exists(name));
    staging_area_close(area);
}

TEST(staging_alone, a_slot_counts_before_the_file_that_it_was_to_become, .init = make_directory,
     .fini = remove_directory)
{
    struct staging_area *area = open_area();
    struct staging *staging;
    check_int(staging_new_class(area, INO, 0, STAGING_LOCAL | STAGING_FRESH, 1, &staging), 0);
    check_int(staging_write_bytes(staging, a, 0, 1000, 1), 0);
    check(!staging_in_file(staging));
    staging_leave(staging);
    put_file(STAGING_ALONE | 5, b); /* killed while the bytes were copied */
    struct recovered recovered = next_process(&area, false);
    check_uint(recovered.count, 2);
    check_uint(recovered.found.size, 1000);
    check_bytes(recovered.found.staging, a, 1000);
    staging_free(recovered.found.staging);
    staging_area_close(area);
}

/* A synced log of before, whose removal may not be on the disk, would count in place of the bytes.
 */
TEST(staging_alone, the_directory_is_synced_after_a_synced_log_was_removed, .init = make_directory,
     .fini = remove_directory)
{
    struct staging_area *area = open_area();
    struct staging *staging = make_staging(area, STAGING_LOCAL | STAGING_FRESH);
    cut(staging);
    check_int(sync_all(staging), 0);
    staging_free(staging);
    struct staging_sync sync;
    staging = make_staging(area, STAGING_LOCAL | STAGING_FRESH);
    check_int(staging_sync_begin(staging, &sync), 0);
    check(sync.alone);
    check(sync.dir);
    staging_sync_done(&sync);
    check_int(sync_all(staging), 0);
    check_int(staging_sync_begin(staging, &sync), 0);
    check(!sync.dir);
    staging_sync_done(&sync);
    staging_free(staging);
    staging_area_close(area);
}

TEST(staging_alone, what_others_write_on_goes_to_a_copy_that_a_synced_log_names,
     .init = make_directory, .fini = remove_directory)
{
    struct staging_area *area = open_area();
    struct staging *staging = make_staging(area, STAGING_LOCAL | STAGING_FRESH);
    check_int(sync_all(staging), 0);
    check_int(staging_part_from_others(staging), 0);
    check(!(staging->data_number & STAGING_ALONE));
    staging_leave(staging);
    struct recovered recovered = next_process(&area, true);
    check_uint(recovered.count, 1);
    check_bytes(recovered.found.staging, a, SIZE);
    staging_free(recovered.found.staging);
    staging_area_close(area);
}
