/*
 * Staging: dirty ranges and their bytes, against plain arrays; what a process that died leaves.
 */
#include "data/staging.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cache/cache.h"
#include "data/staging_impl.h"
#include "data/staging_ranges.h"
#include "staging_lib.h"
#include "test.h"

#define INLINE_MAX 32768u
#define MODEL_SIZE (200u << 10)
#define INO 77u

/* xorshift: the same numbers on every machine. */
static uint64_t random_state;

static uint64_t random_next(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static uint64_t random_below(uint64_t n)
{
    return random_next() % n;
}

static char directory[4096];

static void make_directory(void)
{
    test_dir_make(directory);
}

static void remove_directory(void)
{
    test_dir_remove(directory);
}

static struct staging_area *open_area(uint64_t max)
{
    struct staging_area *area = NULL;
    struct error error = {0};
    check_int(staging_area_open(directory, max, INLINE_MAX, &area, &error), 0);
    return area;
}

/* What staging should hold, byte by byte. */
struct model {
    uint8_t bytes[MODEL_SIZE];
    uint8_t kind[MODEL_SIZE]; /* 0 clean, 1 bytes, 2 hole */
    uint64_t epoch[MODEL_SIZE];
    uint64_t now, size, truncated_to;
};

static void model_check(const struct model *model, struct staging *staging)
{
    uint64_t dirty = 0, at = 0;
    static uint8_t buf[MODEL_SIZE];
    for (struct staging_range r; staging_next(staging, at, &r); at = r.offset + r.length) {
        for (; at < r.offset; at++)
            check_uint(model->kind[at], 0);
        check(r.offset + r.length <= MODEL_SIZE);
        for (uint64_t i = r.offset; i < r.offset + r.length; i++)
            check_uint(model->kind[i], r.hole ? 2 : 1);
        check_int(staging_read(staging, r.offset, r.length, buf), 0);
        check_mem(buf, model->bytes + r.offset, r.length);
        dirty += r.hole ? 0 : r.length;
    }
    for (; at < MODEL_SIZE; at++)
        check_uint(model->kind[at], 0);
    check_uint(staging_dirty_bytes(staging), dirty);
}

static void model_cut(struct model *model, uint64_t size)
{
    for (uint64_t i = size; i < MODEL_SIZE; i++)
        model->kind[i] = 0;
    if (size < model->size)
        model->truncated_to = size < model->truncated_to ? size : model->truncated_to;
    model->size = size;
}

static void model_write(struct model *model, struct staging *staging, uint64_t offset,
                        uint64_t length)
{
    for (uint64_t i = offset; i < offset + length; i++) {
        model->bytes[i] = (uint8_t)random_next();
        model->kind[i] = 1;
        model->epoch[i] = model->now;
    }
    if (offset + length > model->size)
        model->size = offset + length;
    check_int(staging_write_bytes(staging, model->bytes + offset, offset, length, 5), 0);
}

static void model_zero(struct model *model, struct staging *staging, uint64_t offset,
                       uint64_t length)
{
    if (offset + length > model->size)
        return;
    memset(model->bytes + offset, 0, length);
    memset(model->kind + offset, 2, length);
    for (uint64_t i = offset; i < offset + length; i++)
        model->epoch[i] = model->now;
    check_int(staging_zero(staging, offset, length, 6), 0);
}

static void model_clean(struct model *model, struct staging *staging, uint64_t offset,
                        uint64_t length, uint64_t epoch)
{
    for (uint64_t i = offset; i < offset + length; i++)
        if (model->kind[i] && model->epoch[i] <= epoch)
            model->kind[i] = 0;
    staging_clean(staging, offset, length, epoch);
    check_int(staging_committed(staging, model->truncated_to, true), 0);
}

static void model_step(struct model *model, struct staging *staging, uint64_t reach)
{
    uint64_t offset = random_below(reach - 1);
    uint64_t length = 1 + random_below(reach - offset < 9000 ? reach - offset : 9000);
    switch (random_below(12)) {
    case 0:
        model_zero(model, staging, offset, length);
        break;
    case 1:
        model_cut(model, offset);
        check_int(staging_set_size(staging, offset, 7), 0);
        break;
    case 2:
        check_uint(staging_freeze(staging), model->now);
        model->now++;
        break;
    case 3:
        model_clean(model, staging, offset, length, model->now - random_below(3));
        break;
    case 4:
        check(!staging_newer(staging, 0, MODEL_SIZE, model->now));
        break;
    default:
        model_write(model, staging, offset, length);
    }
}

static struct model *model_new(void)
{
    struct model *model = calloc(1, sizeof(*model));
    check(model != NULL);
    model->now = 1;
    model->truncated_to = UINT64_MAX;
    return model;
}

TEST(staging, random_changes_match_a_plain_buffer, .init = make_directory, .fini = remove_directory)
{
    for (uint64_t seed = 1; seed <= 12; seed++) {
        random_state = seed * 0x9e3779b97f4a7c15ull;
        struct staging_area *area = open_area(1ull << 30);
        struct model *model = model_new();
        struct staging *staging;
        check_int(staging_new(area, INO, 0, &staging), 0);
        /* Half of the runs begin as small files. */
        for (int i = 0; i < 400; i++) {
            model_step(model, staging, i < 100 && seed % 2 ? 20000 : MODEL_SIZE);
            if (i % 5 == 0)
                model_check(model, staging);
        }
        staging_free(staging);
        check_uint(staging_area_bytes(area), 0);
        staging_area_close(area);
        free(model);
    }
}

struct recovered {
    unsigned count;
    struct staging_found found;
};

static int note_found(void *arg, const struct staging_found *found)
{
    struct recovered *recovered = arg;
    recovered->found = *found;
    recovered->count++;
    return 0;
}

static int refuse_found(void *arg, const struct staging_found *found)
{
    (void)arg;
    staging_leave(found->staging);
    return -EIO;
}

#ifndef TEST_PLAIN_RUNNER /* a fork of a process with threads */
/* A process makes changes and dies without a word; the same changes are made to the model. */
static void die_after_changes(struct model *model, uint64_t seed, int steps, uint64_t reach,
                              uint32_t flags)
{
    pid_t child = fork();
    check(child >= 0);
    random_state = seed;
    if (child == 0) {
        struct staging_area *area;
        struct staging *staging;
        if (staging_area_open(directory, 1ull << 30, INLINE_MAX, &area, NULL) ||
            staging_new_class(area, INO, 0, flags, 1, &staging))
            _exit(1);
        for (int i = 0; i < steps; i++)
            model_step(model, staging, reach);
        _exit(0);
    }
    int status;
    check_int(waitpid(child, &status, 0), child);
    check_int(status, 0);
}

TEST(staging, what_a_killed_process_left_is_found_again, .init = make_directory,
     .fini = remove_directory)
{
    for (uint64_t seed = 1; seed <= 16; seed++) {
        struct model *model = model_new();
        uint32_t flags = seed % 2 ? STAGING_LOCAL | STAGING_FRESH : 0;
        uint64_t start = seed * 0x9e3779b97f4a7c15ull, reach = seed % 3 ? MODEL_SIZE : 20000;
        int steps = (int)(seed * 37 % 200);
        die_after_changes(model, start, steps, reach, flags);
        /* The same steps on a staging of this process, only to move the model. */
        char kept[4096];
        snprintf(kept, sizeof(kept), "%s", directory);
        test_dir_make(directory);
        struct staging_area *area = open_area(1ull << 30);
        struct staging *staging;
        check_int(staging_new(area, INO, 0, &staging), 0);
        random_state = start;
        for (int i = 0; i < steps; i++)
            model_step(model, staging, reach);
        staging_free(staging);
        staging_area_close(area);
        test_dir_remove(directory);
        snprintf(directory, sizeof(directory), "%s", kept);

        area = open_area(1ull << 30);
        struct recovered recovered = {0};
        uint64_t discarded = 1;
        check_int(staging_recover(area, note_found, &recovered, &discarded), 0);
        check_uint(discarded, 0);
        if (recovered.count) {
            check_uint(recovered.count, 1);
            check_uint(recovered.found.ino, INO);
            check_uint(recovered.found.size, model->size);
            check_uint(recovered.found.truncated_to, model->truncated_to);
            model_check(model, recovered.found.staging);
            check(staging_area_bytes(area) == staging_dirty_bytes(recovered.found.staging));
            staging_free(recovered.found.staging);
        } else {
            check_uint(model->size, 0);
        }
        /* Nothing is left for the next one. */
        staging_area_close(area);
        area = open_area(1ull << 30);
        recovered.count = 0;
        check_int(staging_recover(area, note_found, &recovered, &discarded), 0);
        check_uint(recovered.count, 0);
        staging_area_close(area);
        free(model);
    }
}
#endif

TEST(staging, what_was_left_on_purpose_stays, .init = make_directory, .fini = remove_directory)
{
    uint64_t discarded;
    for (int big = 0; big < 2; big++) {
        struct staging_area *area = open_area(1ull << 30);
        struct staging *staging;
        check_int(staging_new(area, INO, 0, &staging), 0);
        uint64_t offset = big ? 5ull << 32 : 10;
        check_int(staging_write_bytes(staging, "hello", offset, 5, 42), 0);
        staging_leave(staging);
        check_uint(staging_area_bytes(area), 0);
        staging_area_close(area);

        struct recovered recovered = {0};
        area = open_area(1ull << 30);
        check_int(staging_recover(area, refuse_found, NULL, &discarded), -EIO);
        staging_area_close(area);

        area = open_area(1ull << 30);
        check_int(staging_recover(area, note_found, &recovered, &discarded), 0);
        check_uint(recovered.count, 1);
        check_uint(recovered.found.size, offset + 5);
        check_uint(recovered.found.mtime_ns, 42);
        check(recovered.found.time_dirty);
        char text[6] = "";
        check_int(staging_read(recovered.found.staging, offset, 5, text), 0);
        check_str(text, "hello");
        staging_free(recovered.found.staging);
        staging_area_close(area);
    }
}

TEST(staging, what_another_boot_left_is_discarded, .init = make_directory, .fini = remove_directory)
{
    struct staging_area *area = open_area(1ull << 30);
    struct staging *small;
    check_int(staging_new(area, INO, 0, &small), 0);
    check_int(staging_write_bytes(small, "hello", 0, 5, 1), 0);
    staging_leave(small);
    staging_area_close(area);

    staging_lib_change_boot(directory, INO);
    area = open_area(1ull << 30);
    struct recovered recovered = {0};
    uint64_t discarded = 0;
    check_int(staging_recover(area, note_found, &recovered, &discarded), 0);
    check_uint(recovered.count, 0);
    check_uint(discarded, 5);
    staging_area_close(area);
}

TEST(staging, damaged_files_are_removed, .init = make_directory, .fini = remove_directory)
{
    struct staging_area *area = open_area(1ull << 30);
    struct staging *staging;
    check_int(staging_new(area, INO, 0, &staging), 0);
    check_int(staging_write_bytes(staging, "hello", 1 << 20, 5, 1), 0);
    staging_leave(staging);
    staging_area_close(area);

    char path[5000];
    snprintf(path, sizeof(path), "%s/%016x", directory, INO);
    int fd = open(path, O_RDWR);
    check(fd >= 0);
    check_int(pwrite(fd, "x", 1, 9), 1);
    close(fd);
    snprintf(path, sizeof(path), "%s/%016x", directory, 99);
    fd = open(path, O_RDWR | O_CREAT, 0600);
    check(fd >= 0);
    close(fd);

    area = open_area(1ull << 30);
    struct recovered recovered = {0};
    uint64_t discarded = 0;
    check_int(staging_recover(area, note_found, &recovered, &discarded), 0);
    check_uint(recovered.count, 0);
    check_int(access(path, F_OK), -1);
    staging_area_close(area);
}

TEST(staging, a_view_keeps_bytes_that_are_cleaned_and_freed, .init = make_directory,
     .fini = remove_directory)
{
    struct staging_area *area = open_area(1ull << 30);
    struct staging *staging;
    static uint8_t bytes[100000], got[100000];
    memset(bytes, 7, sizeof(bytes));
    check_int(staging_new(area, INO, 0, &staging), 0);
    check(staging_view_get(staging) == NULL);
    check_int(staging_write_bytes(staging, bytes, 0, sizeof(bytes), 1), 0);
    struct staging_view *view = staging_view_get(staging);
    check(view != NULL);
    staging_clean(staging, 0, 50000, staging_freeze(staging));
    check_int(staging_committed(staging, UINT64_MAX, true), 0);
    check_int(staging_view_read(view, 0, sizeof(bytes), got), 0);
    check_mem(got, bytes, sizeof(bytes));
    staging_free(staging);
    check_int(pread(staging_view_fd(view), got, sizeof(bytes), 0), sizeof(bytes));
    check_mem(got, bytes, sizeof(bytes));
    staging_view_put(view);
    staging_area_close(area);
}

TEST(staging, its_file_is_given_away_with_its_sums, .init = make_directory,
     .fini = remove_directory)
{
    struct staging_area *area = open_area(1ull << 30);
    struct staging *staging;
    static uint8_t bytes[300000], got[300000];
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i / 3);
    check_int(staging_new(area, INO, 0, &staging), 0);
    staging_sum_pages(staging);
    for (size_t at = 0; at < sizeof(bytes); at += 1000)
        check_int(staging_write_bytes(staging, bytes + at, at, 1000, 1), 0);
    staging_clean(staging, 0, sizeof(bytes), staging_freeze(staging));
    struct staging_gift gift;
    staging_give(staging, sizeof(bytes), &gift);
    check(gift.alone);
    check_uint(gift.sum_count, 3);
    for (uint64_t i = 0; i < 3; i++) {
        check(gift.sums[i].known);
        size_t length = i < 2 ? CACHE_PAGE : sizeof(bytes) - 2 * CACHE_PAGE;
        memset(got, 0, sizeof(got));
        memcpy(got, bytes + i * CACHE_PAGE, length);
        check_uint(gift.sums[i].crc, cache_page_crc(got, length));
    }
    /* Killed now: the bytes count for nothing any more. A new staging is another file. */
    check_int(faccessat(gift.dir_fd, gift.name, F_OK, 0), 0);
    check_int(staging_new(area, INO, sizeof(bytes), &staging), 0);
    check_int(staging_write_bytes(staging, bytes, 100000, 100000, 1), 0);
    check_int(staging_view_read(gift.view, 0, sizeof(bytes), got), 0);
    check_mem(got, bytes, sizeof(bytes));
    char name[40];
    int dir_fd = gift.dir_fd;
    memcpy(name, gift.name, sizeof(name));
    staging_view_put(gift.view);
    free(gift.sums);
    staging_leave(staging);
    struct recovered recovered = {0};
    uint64_t discarded = 0;
    check_int(staging_recover(area, note_found, &recovered, &discarded), 0);
    check_uint(recovered.count, 1);
    check_int(faccessat(dir_fd, name, F_OK, 0), -1);
    staging_free(recovered.found.staging);
    staging_area_close(area);
}

static void sync_all(struct staging *staging)
{
    struct staging_sync sync;
    check_int(staging_sync_begin(staging, &sync), 0);
    check_int(staging_sync_data(&sync), 0);
    check_int(staging_sync_note(staging, &sync), 0);
    check_int(staging_sync_log(&sync), 0);
    staging_sync_end(staging, &sync);
    staging_sync_done(&sync);
}

static struct staging *power_loss(struct staging_area **area, uint64_t *discarded)
{
    staging_area_close(*area);
    staging_lib_change_boot(directory, INO);
    *area = open_area(1ull << 30);
    struct recovered recovered = {0};
    check_int(staging_recover(*area, note_found, &recovered, discarded), 0);
    if (recovered.count == 0)
        return NULL;
    check_uint(recovered.count, 1);
    check(recovered.found.other_boot);
    check_uint(recovered.found.flags, STAGING_LOCAL);
    return recovered.found.staging;
}

static void check_dirty(struct staging *staging, uint64_t offset, const uint8_t *bytes,
                        uint64_t length)
{
    static uint8_t got[200000];
    check(staging_covers(staging, offset, length));
    check_int(staging_read(staging, offset, length, got), 0);
    check_mem(got, bytes, length);
}

TEST(staging_sync, what_was_synced_survives_a_power_loss, .init = make_directory,
     .fini = remove_directory)
{
    struct staging_area *area = open_area(1ull << 30);
    struct staging *staging;
    static uint8_t a[100000], b[50000];
    memset(a, 'a', sizeof(a));
    memset(b, 'b', sizeof(b));
    uint64_t discarded = 0;
    check_int(staging_new_class(area, INO, 0, STAGING_LOCAL, 7, &staging), 0);
    check_int(staging_write_bytes(staging, a, 0, sizeof(a), 1), 0);
    staging_leave(staging);
    check(power_loss(&area, &discarded) == NULL);
    check_uint(discarded, sizeof(a));

    check_int(staging_new_class(area, INO, 0, STAGING_LOCAL, 7, &staging), 0);
    check_int(staging_write_bytes(staging, a, 0, sizeof(a), 1), 0);
    sync_all(staging);
    check(!staging_needs_sync(staging));
    check_int(staging_write_bytes(staging, b, 100000, sizeof(b), 1), 0);
    check(staging_needs_sync(staging));
    staging_leave(staging);
    for (int turn = 0; turn < 3; turn++) {
        staging = power_loss(&area, &discarded);
        check(staging != NULL);
        check_uint(staging->base_version, 7);
        check_uint(staging->size, sizeof(a));
        check_uint(staging_dirty_bytes(staging), sizeof(a));
        check_dirty(staging, 0, a, sizeof(a));
        if (turn == 2)
            break;
        staging_leave(staging);
    }
    /* A write into what the log has already needs no record. */
    uint64_t changes = staging->log_changes;
    check_int(staging_write_bytes(staging, b, 1000, 5000, 1), 0);
    check_uint(staging->log_changes, changes);
    check(!staging_needs_sync(staging));
    staging_free(staging);
    staging_area_close(area);
}

TEST(staging_sync, what_a_commit_cleaned_stays_until_the_next_sync, .init = make_directory,
     .fini = remove_directory)
{
    struct staging_area *area = open_area(1ull << 30);
    struct staging *staging;
    static uint8_t a[100000], b[50000];
    memset(a, 'a', sizeof(a));
    memset(b, 'b', sizeof(b));
    uint64_t discarded = 0;
    check_int(staging_new_class(area, INO, 0, STAGING_LOCAL, 7, &staging), 0);
    check_int(staging_write_bytes(staging, a, 0, sizeof(a), 1), 0);
    sync_all(staging);
    staging_clean(staging, 0, sizeof(a), staging_freeze(staging));
    staging_set_base(staging, 8);
    check_int(staging_committed(staging, UINT64_MAX, true), 0);
    check(staging_needs_sync(staging));
    staging_leave(staging);
    staging = power_loss(&area, &discarded);
    check(staging != NULL);
    check_uint(staging->base_version, 7);
    check_dirty(staging, 0, a, sizeof(a));
    staging_free(staging);

    check_int(staging_new_class(area, INO, 0, STAGING_LOCAL, 7, &staging), 0);
    check_int(staging_write_bytes(staging, a, 0, sizeof(a), 1), 0);
    sync_all(staging);
    uint64_t epoch = staging_freeze(staging);
    check_int(staging_write_bytes(staging, b, 100000, sizeof(b), 1), 0);
    staging_clean(staging, 0, sizeof(a), epoch);
    /* The log is written anew more often than it has halves. */
    for (uint64_t version = 8; version < 13; version++) {
        staging_set_base(staging, version);
        check_int(staging_committed(staging, UINT64_MAX, true), 0);
    }
    staging_leave(staging);
    staging = power_loss(&area, &discarded);
    check(staging != NULL);
    /* The first half was kept until a sync had to be made for the next one. */
    check(staging->base_version == 7 || staging_covers(staging, 100000, sizeof(b)));
    if (staging_covers(staging, 0, 1))
        check_dirty(staging, 0, a, sizeof(a));
    if (staging_covers(staging, 100000, 1))
        check_dirty(staging, 100000, b, sizeof(b));
    staging_free(staging);

    check_int(staging_new_class(area, INO, 0, STAGING_LOCAL, 7, &staging), 0);
    check_int(staging_write_bytes(staging, a, 0, sizeof(a), 1), 0);
    sync_all(staging);
    epoch = staging_freeze(staging);
    check_int(staging_write_bytes(staging, b, 100000, sizeof(b), 1), 0);
    staging_clean(staging, 0, sizeof(a), epoch);
    staging_set_base(staging, 8);
    check_int(staging_committed(staging, UINT64_MAX, true), 0);
    sync_all(staging);
    staging_leave(staging);
    staging = power_loss(&area, &discarded);
    check(staging != NULL);
    check_uint(staging->base_version, 8);
    check(!staging_covers(staging, 0, 1));
    check_dirty(staging, 100000, b, sizeof(b));
    staging_free(staging);
    staging_area_close(area);
}

TEST(staging, sequential_writes_are_one_range_per_epoch, .init = make_directory,
     .fini = remove_directory)
{
    struct staging_area *area = open_area(1ull << 30);
    struct staging *staging;
    static uint8_t bytes[4096];
    check_int(staging_new(area, INO, 0, &staging), 0);
    for (uint64_t i = 0; i < 100; i++)
        check_int(staging_write_bytes(staging, bytes, i * sizeof(bytes), sizeof(bytes), 1), 0);
    check_uint(staging_count(staging), 1);
    uint64_t epoch = staging_freeze(staging);
    check_int(staging_write_bytes(staging, bytes, 8192, sizeof(bytes), 1), 0);
    check_uint(staging_count(staging), 3);
    check(staging_newer(staging, 8191, 2, epoch));
    check(!staging_newer(staging, 0, 8192, epoch));
    check_uint(staging_reach(staging, 0), 100 * sizeof(bytes));
    staging_clean(staging, 0, 100 * sizeof(bytes), epoch);
    check_uint(staging_dirty_bytes(staging), sizeof(bytes));
    check(staging_covers(staging, 8192, sizeof(bytes)));
    check(!staging_covers(staging, 8191, 2));
    staging_free(staging);
    staging_area_close(area);
}

TEST(staging, a_directory_serves_one_process, .init = make_directory, .fini = remove_directory)
{
    struct staging_area *area = open_area(1 << 20), *second;
    struct error error = {0};
    check_int(staging_area_open(directory, 1 << 20, INLINE_MAX, &second, &error), -EBUSY);
    check(strstr(error.message, directory) != NULL);
    check(!staging_area_full(area));
    struct staging *staging;
    static uint8_t bytes[1 << 20];
    check_int(staging_new(area, INO, 0, &staging), 0);
    check_int(staging_write_bytes(staging, bytes, 0, sizeof(bytes), 1), 0);
    check(staging_area_full(area));
    check_int(staging_zero(staging, 0, 4096, 1), 0);
    check(!staging_area_full(area));
    staging_free(staging);
    staging_area_close(area);
}

TEST(staging, more_small_files_than_slots, .init = make_directory, .fini = remove_directory)
{
    enum { FILES = 600 };
    struct staging_area *area = open_area(1ull << 30);
    static struct staging *staging[FILES];
    for (unsigned i = 0; i < FILES; i++) {
        check_int(staging_new(area, i + 1, 0, &staging[i]), 0);
        check_int(staging_write_bytes(staging[i], &i, 0, sizeof(i), 1), 0);
    }
    for (unsigned i = 0; i < FILES; i++) {
        unsigned got;
        check_int(staging_read(staging[i], 0, sizeof(got), &got), 0);
        check_uint(got, i);
        staging_free(staging[i]);
    }
    check_uint(staging_area_bytes(area), 0);
    staging_area_close(area);
}

TEST(staging, a_full_log_is_written_anew, .init = make_directory, .fini = remove_directory)
{
    struct staging_area *area = open_area(1ull << 30);
    struct staging *staging;
    check_int(staging_new(area, INO, 0, &staging), 0);
    check_int(staging_write_bytes(staging, "a", 1 << 20, 1, 1), 0);
    /* More records than one half of the log holds; each changes the time only. */
    for (uint64_t i = 0; i < 520000; i++)
        check_int(staging_set_time(staging, i), 0);
    check_int(staging_write_bytes(staging, "b", 2 << 20, 1, 9), 0);
    staging_leave(staging);
    staging_area_close(area);
    area = open_area(1ull << 30);
    struct recovered recovered = {0};
    uint64_t discarded;
    check_int(staging_recover(area, note_found, &recovered, &discarded), 0);
    check_uint(recovered.count, 1);
    check_uint(staging_count(recovered.found.staging), 2);
    uint8_t c;
    check_int(staging_read(recovered.found.staging, 2 << 20, 1, &c), 0);
    check_uint(c, 'b');
    staging_free(recovered.found.staging);
    staging_area_close(area);
}

/* The disk takes no byte at or behind 512 KiB of a file: no record of the log, which begins later.
 */
static void limit_files(bool limited)
{
    struct rlimit limit;
    signal(SIGXFSZ, limited ? SIG_IGN : SIG_DFL);
    check_int(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = limited ? 512 << 10 : limit.rlim_max;
    check_int(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

TEST(staging, a_cut_that_cannot_be_recorded_changes_nothing, .init = make_directory,
     .fini = remove_directory)
{
    struct staging_area *area = open_area(1ull << 30);
    struct staging *staging;
    static uint8_t bytes[100000], got[sizeof(bytes)];
    memset(bytes, 'x', sizeof(bytes));
    check_int(staging_new(area, INO, 0, &staging), 0);
    check_int(staging_write_bytes(staging, bytes, 0, sizeof(bytes), 1), 0);
    limit_files(true);
    check_int(staging_set_size(staging, 10, 2), -EFBIG);
    check_int(staging_set_size(staging, 1 << 20, 2), -EFBIG);
    limit_files(false);
    check(staging_covers(staging, 0, sizeof(bytes)));
    check_int(staging_read(staging, 0, sizeof(bytes), got), 0);
    check_mem(got, bytes, sizeof(bytes));
    staging_leave(staging);
    staging_area_close(area);
    area = open_area(1ull << 30);
    struct recovered recovered = {0};
    uint64_t discarded;
    check_int(staging_recover(area, note_found, &recovered, &discarded), 0);
    check_uint(recovered.found.size, sizeof(bytes));
    check_uint(recovered.found.truncated_to, UINT64_MAX);
    check_uint(staging_dirty_bytes(recovered.found.staging), sizeof(bytes));
    staging_free(recovered.found.staging);
    staging_area_close(area);
}

/* --- Files that others write, too */

static int open_other(struct staging *staging, int flags)
{
    char path[64];
    struct staging_view *view = staging_view_get(staging);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", staging_view_fd(view));
    staging_view_put(view);
    int fd = open(path, flags | O_CLOEXEC);
    check(fd >= 0);
    return fd;
}

static struct staging *shared(struct staging_area *area, int *other)
{
    struct staging *staging;
    static uint8_t a[1000];
    memset(a, 'a', sizeof(a));
    check_int(staging_new_class(area, INO, 0, STAGING_LOCAL, 7, &staging), 0);
    check_int(staging_write_bytes(staging, a, 0, sizeof(a), 1), 0);
    check_int(staging_share(staging), 0);
    *other = open_other(staging, O_RDWR);
    return staging;
}

TEST(staging_share, what_others_write_is_dirty, .init = make_directory, .fini = remove_directory)
{
    struct staging_area *area = open_area(1ull << 30);
    static uint8_t b[50000], c[50000];
    memset(b, 'b', sizeof(b));
    int other;
    struct staging *staging = shared(area, &other);
    check_int(pwrite(other, b, sizeof(b), 200), sizeof(b));
    check_int(staging_take(staging, 9, true), 0);
    check_uint(staging->size, 50200);
    check_dirty(staging, 200, b, sizeof(b));
    check_uint(staging_area_bytes(area), 50200);
    /* A commit of what was there does not clean what is there. */
    uint64_t epoch = staging_freeze(staging);
    check_int(staging_take(staging, 9, true), 0);
    staging_clean(staging, 0, 50200, epoch);
    check_uint(staging_dirty_bytes(staging), 50200);
    /* Holes are none of it. */
    check_int(ftruncate(other, 1 << 30), 0);
    check_int(staging_take(staging, 9, true), 0);
    check_uint(staging->size, 1 << 30);
    check(staging_dirty_bytes(staging) < 1 << 20);

    struct staging_view *view = staging_view_get(staging);
    check(!staging_view_is_alone(view));
    check_int(staging_part_from_others(staging), 0);
    check_int(pwrite(other, c, sizeof(c), 200), sizeof(c));
    check_dirty(staging, 200, b, sizeof(b));
    close(other);
    check(staging_view_is_alone(view));
    /* Who only reads does not count. */
    int reader = open_other(staging, O_RDONLY);
    check(staging_view_is_alone(view));
    close(reader);
    check_int(staging_write_bytes(staging, b, 0, 100, 1), 0);
    staging_view_put(view);
    staging_free(staging);
    staging_area_close(area);
}

TEST(staging_share, what_is_left_is_what_the_file_holds, .init = make_directory,
     .fini = remove_directory)
{
    struct staging_area *area = open_area(1ull << 30);
    static uint8_t b[50000];
    memset(b, 'b', sizeof(b));
    int other;
    struct staging *staging = shared(area, &other);
    check_int(pwrite(other, b, sizeof(b), 500), sizeof(b));
    staging_leave(staging);
    staging_area_close(area);
    area = open_area(1ull << 30);
    struct recovered recovered = {0};
    uint64_t discarded = 0;
    check_int(staging_recover(area, note_found, &recovered, &discarded), 0);
    check_uint(recovered.count, 1);
    check_uint(recovered.found.size, 50500);
    check_uint(recovered.found.flags, STAGING_LOCAL);
    /* The other one writes for himself now. */
    check_int(pwrite(other, "x", 1, 500), 1);
    check_dirty(recovered.found.staging, 500, b, sizeof(b));
    close(other);
    staging_free(recovered.found.staging);

    staging = shared(area, &other);
    check_int(pwrite(other, b, sizeof(b), 1000), sizeof(b));
    check_int(staging_take(staging, 9, true), 0);
    sync_all(staging);
    check_int(pwrite(other, b, sizeof(b), 51000), sizeof(b));
    staging_leave(staging);
    staging = power_loss(&area, &discarded);
    check(staging != NULL);
    check_uint(staging->size, 51000);
    check_dirty(staging, 1000, b, sizeof(b));
    close(other);
    staging_free(staging);
    staging_area_close(area);
}
