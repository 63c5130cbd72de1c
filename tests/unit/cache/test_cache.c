/* The cache on a real directory: what was filled is read, across restarts, evictions and damage. */
#include <fcntl.h>
#include <glob.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "cache_lib.h"

TEST(cache_read, gives_what_was_filled, .init = begin, .fini = end)
{
    uint64_t size = 5 * MIB + 1234;
    fill(1, size, 0, size);
    cache_drain(cache);
    static const uint64_t ranges[][2] = {{0, 1},         {0, 4096},         {4095, 2},
                                         {131071, 2},    {100000, 1000000}, {4194303, 5},
                                         {5242880, 1234}};
    for (size_t i = 0; i < ARRAY_LEN(ranges); i++)
        check_int(read_result(1, ranges[i][0], ranges[i][1]), 0);
    check_int(read_result(1, 0, size), 0);
    struct cache_content content;
    check_int(cache_content(cache, 1, &content), 0);
    check(content.complete);
    check_uint(content.cached_bytes, size);
}

TEST(cache_fill_lent, writes_the_bytes_where_they_are, .init = begin, .fini = end)
{
    uint64_t size = 9 * MIB + 1234;
    check_int(fill_lent(1, size, 0, size), -EINPROGRESS);
    check_int(fill_lent(2, size, 3 * MIB + 4096, 2 * MIB), -EINPROGRESS);
    for (int restarted = 0; restarted < 2; restarted++) {
        check_int(read_result(1, 0, 8 * MIB), 0);
        check_int(read_result(1, 2 * MIB, size - 2 * MIB), 0);
        check_int(read_result(2, 3 * MIB + 4096, 2 * MIB), 0);
        check_int(read_result(2, 3 * MIB, 4096), -ENOENT);
        check_int(read_result(2, 5 * MIB + 4096, 1), -ENOENT);
        struct cache_content content;
        check_int(cache_content(cache, 1, &content), 0);
        check(content.complete);
        cache_drain(cache);
        reopen();
    }
    check_uint(status_now().fills_dropped, 0);
}

TEST(cache_fill_lent, takes_only_what_is_missing, .init = begin, .fini = end)
{
    fill(1, 8 * MIB, 4096, 200 * KIB);
    cache_drain(cache);
    check_int(fill_lent(1, 8 * MIB, 8192, 64 * KIB), 0);
    uint64_t filled = status_now().filled_bytes;
    check_int(fill_lent(1, 8 * MIB, 0, 5 * MIB), -EINPROGRESS);
    check(status_now().filled_bytes > filled);
    check_int(read_result(1, 0, 5 * MIB), 0);
    check_int(fill_lent(1, 8 * MIB, 0, 5 * MIB), 0);
    reopen();
    check_int(read_result(1, 0, 5 * MIB), 0);
    /* What does not fit the content. */
    check_int(fill_lent(1, 8 * MIB, 100, 4096), -EINVAL);
    check_int(fill_lent(1, 8 * MIB, 7 * MIB, 2 * MIB), -EINVAL);
    check_int(fill_lent(1, 8 * MIB, 0, 5000), -EINVAL);
    check_int(fill_lent(1, 7 * MIB, 0, 4096), -EINVAL);
}

/* Pages that lie one behind the other, pages with holes that are checked first, the file's end. */
TEST(cache_read, waiting_reader_reads_the_disk_himself, .init = begin, .fini = end)
{
    uint64_t size = 9 * MIB + 1234;
    fill(1, size, 0, size);
    fill(2, size, 0, 64 * KIB);
    fill(2, size, 128 * KIB, 200 * KIB);
    cache_drain(cache);
    for (int restarted = 0; restarted < 2; restarted++) {
        /* The first read opens the file, and comes by way of another thread. */
        check_int(read_result(1, 0, 1), 0);
        check_int(read_result(2, 0, 1), 0);
        read_may_wait = true;
        check_int(read_result(1, 100000, 8 * MIB), 0);
        check(read_was_here);
        check_int(read_result(1, size - 1, 1), 0);
        check_int(read_result(1, 131071, 2), 0);
        check_int(read_result(2, 130 * KIB, 198 * KIB), 0);
        check_int(read_result(2, 4096, 60 * KIB), 0);
        check_int(read_result(2, 0, 65 * KIB), -ENOENT);
        check(read_was_here);
        read_may_wait = false;
        check_int(read_result(1, 4096, MIB), 0);
        check(!read_was_here);
        reopen();
    }
}

TEST(cache_read, waiting_reader_of_a_cut_file_gets_no_wrong_byte, .init = begin, .fini = end)
{
    fill(1, MIB, 0, MIB);
    cache_drain(cache);
    check_int(read_result(1, 0, 4096), 0);
    char path[4300];
    content_path(1, path);
    check_int(truncate(path, 300 * 1024), 0);
    read_may_wait = true;
    check_int(read_result(1, 0, MIB), -EBADMSG);
    check(read_was_here);
    check_int(read_result(1, 0, 256 * KIB), 0);
    read_may_wait = false;
}

TEST(cache_read, has_not_what_was_not_filled, .init = begin, .fini = end)
{
    fill(1, 10 * MIB, MIB, 256 * KIB);
    cache_drain(cache);
    check_int(read_result(1, MIB, 256 * KIB), 0);
    check_int(read_result(1, MIB - 1, 2), -ENOENT);
    check_int(read_result(1, MIB + 256 * KIB - 1, 2), -ENOENT);
    check_int(read_result(1, 8 * MIB, 1), -ENOENT);
    check_int(read_result(2, 0, 1), -ENOENT);
    check_int(read_result(1, 10 * MIB, 1), -ENOENT);
}

TEST(cache_query, finds_the_first_run, .init = begin, .fini = end)
{
    fill(1, 10 * MIB, 64 * KIB, 8 * KIB);
    fill(1, 10 * MIB, MIB, 300 * KIB);
    cache_drain(cache);
    uint64_t offset, length;
    check(cache_query(cache, 1, 0, 10 * MIB, &offset, &length));
    check_uint(offset, 64 * KIB);
    check_uint(length, 8 * KIB);
    check(cache_query(cache, 1, 72 * KIB, 5 * MIB, &offset, &length));
    check_uint(offset, MIB);
    check_uint(length, 300 * KIB);
    check(cache_query(cache, 1, MIB + 10, 100, &offset, &length));
    check_uint(offset, MIB + 10);
    check_uint(length, 100);
    check(!cache_query(cache, 1, 2 * MIB, 8 * MIB, &offset, &length));
    check(!cache_query(cache, 9, 0, MIB, &offset, &length));
}

TEST(cache_fill, blocks_of_a_page_come_in_any_order, .init = begin, .fini = end)
{
    uint64_t size = 256 * KIB;
    for (uint64_t i = 0; i < 64; i++)
        fill(3, size, i * 29 % 64 * 4096, 4096);
    cache_drain(cache);
    check_int(read_result(3, 0, size), 0);
    reopen();
    check_int(read_result(3, 0, size), 0);
    check_uint(status_now().corrupt_pages, 0);
}

TEST(cache_fill, refuses_what_is_not_aligned, .init = begin, .fini = end)
{
    static uint8_t data[8192];
    check_int(cache_fill(cache, 1, MIB, 1, data, 4096, true), -EINVAL);
    check_int(cache_fill(cache, 1, MIB, 0, data, 4095, true), -EINVAL);
    check_int(cache_fill(cache, 1, 4096, 4096, data, 4096, true), -EINVAL);
    check_int(cache_fill(cache, 1, 0, 0, data, 0, true), -EINVAL);
    check_int(cache_fill(cache, 1, 4095, 0, data, 4095, true), 0);
    check_int(cache_fill(cache, 1, 4096, 0, data, 4096, true), -EINVAL);
    cache_drain(cache);
}

TEST(cache_open, keeps_all_across_restarts_and_checks_it_once, .init = begin, .fini = end)
{
    for (uint64_t cid = 1; cid <= 20; cid++)
        fill(cid, cid * 100 * KIB + cid, 0, cid * 100 * KIB + cid);
    for (int round = 0; round < 3; round++) {
        reopen();
        for (uint64_t cid = 1; cid <= 20; cid++)
            check_int(read_result(cid, 0, cid * 100 * KIB + cid), 0);
    }
    check_uint(status_now().contents, 20);
}

TEST(cache_open, knows_the_free_space_at_once, .init = begin, .fini = end)
{
    struct cache_directory_status directory = status_now().directories[0];
    check(directory.disk_size > 0);
    check(directory.disk_free > 0);
}

TEST(cache_open, one_process_at_a_time, .init = begin, .fini = end)
{
    struct cache *first = cache;
    check_int(try_open(0, NEVER_SLOW), -EBUSY);
    cache = first;
}

TEST(cache_open, refuses_bad_settings)
{
    const char *directories[] = {"/nonexistent-directory/cache"};
    struct cache_config config;
    struct cache *none;
    struct error error;
    cache_config_init(&config);
    check_int(cache_open(&config, &none, &error), -EINVAL);
    config.directories = directories;
    config.directory_count = 1;
    config.volume = "../x";
    check_int(cache_open(&config, &none, &error), -EINVAL);
    config.volume = "x";
    check_int(cache_open(&config, &none, &error), -ENOENT);
}

static void damage(uint64_t cid, off_t offset)
{
    char path[4300];
    content_path(cid, path);
    int fd = open(path, O_RDWR);
    check(fd >= 0);
    uint8_t byte;
    check(pread(fd, &byte, 1, offset) == 1);
    byte ^= 0x40;
    check(pwrite(fd, &byte, 1, offset) == 1);
    check_int(fsync(fd), 0);
    close(fd);
}

TEST(cache_read, corrupt_page_is_dropped_and_counted, .init = begin, .fini = end)
{
    fill(1, MIB, 0, MIB);
    cache_close(cache);
    damage(1, 200 * 1024);
    open_cache(0);
    check_int(read_result(1, 0, 128 * KIB), 0);
    /* Another block of the same page. */
    check_int(read_result(1, 140 * KIB, 4096), -EBADMSG);
    check_int(read_result(1, 140 * KIB, 4096), -ENOENT);
    check_int(read_result(1, 256 * KIB, 512 * KIB), 0);
    check_uint(status_now().corrupt_pages, 1);
    fill(1, MIB, 128 * KIB, 128 * KIB);
    cache_drain(cache);
    check_int(read_result(1, 0, MIB), 0);
}

TEST(cache_read, cut_or_missing_file_gives_no_wrong_byte, .init = begin, .fini = end)
{
    for (uint64_t cid = 1; cid <= 3; cid++)
        fill(cid, MIB, 0, MIB);
    cache_close(cache);
    char path[4300];
    content_path(1, path);
    check_int(truncate(path, 300 * 1024), 0);
    content_path(2, path);
    check_int(unlink(path), 0);
    open_cache(0);
    check_int(read_result(1, 0, 128 * KIB), 0);
    check_int(read_result(1, 512 * KIB, 128 * KIB), -EBADMSG);
    check_int(read_result(2, 0, 4096), -EBADMSG);
    check_int(read_result(3, 0, MIB), 0);
}

TEST(cache_verify, finds_all_damage, .init = begin, .fini = end)
{
    for (uint64_t cid = 1; cid <= 4; cid++)
        fill(cid, MIB + 5, 0, MIB + 5);
    cache_drain(cache);
    damage(2, 0);
    damage(4, 1024 * 1024 + 4);
    struct cache_verify_result result;
    check_int(cache_verify(cache, NULL, NULL, &result), 0);
    check_uint(result.pages, 36);
    check_uint(result.corrupt_pages, 2);
    check_int(read_result(2, 0, 4096), -ENOENT);
    check_int(read_result(2, 128 * KIB, 4096), 0);
    check_int(cache_verify(cache, NULL, NULL, &result), 0);
    check_uint(result.pages, 34);
    check_uint(result.corrupt_pages, 0);
}

TEST(cache_backing_get, complete_file_has_exactly_its_bytes, .init = begin, .fini = end)
{
    uint64_t size = 300 * KIB + 77;
    fill(1, size, 0, 256 * KIB);
    cache_drain(cache);
    check_int(cache_backing_get(cache, 1, 77), -ENOENT);
    fill(1, size, 256 * KIB, size - 256 * KIB);
    cache_drain(cache);
    int fd = cache_backing_get(cache, 1, 77);
    check(fd > 0);
    check_int(cache_backing_get(cache, 1, 77), fd);
    struct stat st;
    check_int(fstat(fd, &st), 0);
    check_uint((uint64_t)st.st_size, size);
    uint8_t *got = malloc(size), *expected = bytes_of(1, 0, size);
    check(pread(fd, got, size, 0) == (ssize_t)size);
    check_mem(got, expected, size);
    check(!cache_evict(cache, 1));
    cache_backing_put(cache, 1);
    cache_backing_put(cache, 1);
    check(cache_evict(cache, 1));
    free(got);
    free(expected);
}

TEST(cache_backing_get, lends_to_one_owner_for_ever, .init = begin, .fini = end)
{
    fill(1, MIB, 0, MIB);
    cache_drain(cache);
    check(cache_backing_get(cache, 1, 77) > 0);
    check_int(cache_backing_get(cache, 1, 78), -EBUSY);
    cache_backing_put(cache, 1);
    check_int(cache_backing_get(cache, 1, 78), -EBUSY);
    cache_close(cache);
    open_cache(0);
    check_int(cache_backing_get(cache, 1, 78), -EAGAIN);
    cache_drain(cache);
    check_int(cache_backing_get(cache, 1, 78), -EBUSY);
    check(cache_backing_get(cache, 1, 77) > 0);
    cache_backing_put(cache, 1);
}

TEST(cache_backing_get, what_was_lent_is_evicted_as_a_whole, .init = begin, .fini = end)
{
    cache_close(cache);
    open_cache(32 * MIB);
    fill(1, 12 * MIB, 0, 12 * MIB);
    cache_drain(cache);
    int fd = cache_backing_get(cache, 1, 77);
    check(fd > 0);
    uint8_t *mapped = mmap(NULL, 12 * MIB, PROT_READ, MAP_SHARED, fd, 0);
    check(mapped != MAP_FAILED);
    cache_backing_put(cache, 1);
    struct cache_content content;
    for (uint64_t cid = 2; cid < 20 && cache_content(cache, 1, &content) == 0; cid++) {
        check_uint(content.cached_bytes, 12 * MIB);
        fill(cid, 4 * MIB, 0, 4 * MIB);
        cache_drain(cache);
    }
    check_int(cache_content(cache, 1, &content), -ENOENT);
    uint8_t *expected = bytes_of(1, 0, 12 * MIB);
    check_mem(mapped, expected, 12 * MIB);
    check_int(munmap(mapped, 12 * MIB), 0);
    free(expected);
}

TEST(cache_backing_detach, the_file_is_the_callers_and_the_content_is_forgotten, .init = begin,
     .fini = end)
{
    uint64_t size = 300 * KIB + 77;
    fill(1, size, 0, size);
    cache_drain(cache);
    struct cache_page_sum *sums;
    check_int(cache_backing_detach(cache, 1, &sums), -EBUSY);
    check(cache_backing_get(cache, 1, 77) > 0);
    check(cache_backing_get(cache, 1, 77) > 0);
    check_int(cache_backing_detach(cache, 1, &sums), -EBUSY);
    cache_backing_put(cache, 1);
    int fd = cache_backing_detach(cache, 1, &sums);
    check(fd > 0);
    uint8_t *got = calloc(1, 4 * CACHE_PAGE), *expected = bytes_of(1, 0, size);
    check(pread(fd, got, size, 0) == (ssize_t)size);
    check_mem(got, expected, size);
    for (unsigned i = 0; i < 3; i++)
        check_uint(
            cache_page_crc(got + (size_t)i * CACHE_PAGE, MIN(size - i * CACHE_PAGE, CACHE_PAGE)),
            sums[i].crc);
    check(pwrite(fd, "x", 1, 5) == 1);
    uint64_t at, length;
    check(!cache_query(cache, 1, 0, size, &at, &length));
    struct stat st;
    check_int(fstat(fd, &st), 0);
    cache_drain(cache);
    check_int(fstat(fd, &st), 0);
    check_uint((uint64_t)st.st_nlink, 0);
    fill(1, size, 0, size);
    cache_drain(cache);
    check(cache_query(cache, 1, 0, size, &at, &length));
    close(fd);
    free(sums);
    free(got);
    free(expected);
}

TEST(cache_backing_get, is_verified_first_after_a_restart, .init = begin, .fini = end)
{
    fill(1, MIB, 0, MIB);
    fill(2, MIB, 0, MIB);
    cache_close(cache);
    damage(2, 1000);
    open_cache(0);
    check_int(cache_backing_get(cache, 1, 77), -EAGAIN);
    check_int(cache_backing_get(cache, 2, 77), -EAGAIN);
    cache_drain(cache);
    check(cache_backing_get(cache, 1, 77) > 0);
    check_int(cache_backing_get(cache, 2, 77), -ENOENT);
    cache_backing_put(cache, 1);
}

TEST(cache_fill, capacity_holds_and_what_is_left_is_right, .init = begin, .fini = end)
{
    cache_close(cache);
    open_cache(16 * MIB);
    for (uint64_t cid = 1; cid <= 16; cid++) {
        uint8_t *bytes = bytes_of(cid, 0, 4 * MIB);
        for (uint64_t at = 0; at < 4 * MIB; at += CACHE_PAGE) {
            int rc;
            /* Room is made in the background. */
            while ((rc = cache_fill(cache, cid, 4 * MIB, at, bytes + at, CACHE_PAGE, true)) < 0) {
                check(rc == -ENOSPC || rc == -EAGAIN);
                nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
            }
            check(status_now().bytes <= 16 * MIB);
        }
        free(bytes);
    }
    cache_drain(cache);
    struct cache_status status = status_now();
    check(status.evicted_bytes >= 40 * MIB);
    check(status.bytes <= 16 * MIB);
    uint64_t good = 0;
    for (uint64_t cid = 1; cid <= 16; cid++) {
        for (uint64_t at = 0; at < 4 * MIB; at += CACHE_PAGE) {
            int rc = read_result(cid, at, CACHE_PAGE);
            check(rc == 0 || rc == -ENOENT);
            good += rc == 0;
        }
    }
    check(good * CACHE_PAGE >= 8 * MIB);
}

TEST(cache_pin, pinned_stays_when_room_is_made, .init = begin, .fini = end)
{
    cache_close(cache);
    open_cache(16 * MIB);
    check_int(cache_pin(cache, 1, true), 0);
    fill(1, 4 * MIB, 0, 4 * MIB);
    for (uint64_t cid = 2; cid <= 10; cid++) {
        uint8_t *bytes = bytes_of(cid, 0, 4 * MIB);
        for (uint64_t at = 0; at < 4 * MIB; at += CACHE_PAGE)
            while (cache_fill(cache, cid, 4 * MIB, at, bytes + at, CACHE_PAGE, true) < 0)
                nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        free(bytes);
    }
    cache_drain(cache);
    check_int(read_result(1, 0, 4 * MIB), 0);
    reopen();
    struct cache_content content;
    check_int(cache_content(cache, 1, &content), 0);
    check(content.pinned && content.complete);
}

TEST(cache_evict, forgets_one_and_frees_its_space, .init = begin, .fini = end)
{
    fill(1, MIB, 0, MIB);
    fill(2, MIB, 0, MIB);
    cache_drain(cache);
    check(cache_evict(cache, 1));
    check(!cache_evict(cache, 3));
    check_int(read_result(1, 0, 4096), -ENOENT);
    check_int(read_result(2, 0, MIB), 0);
    char path[4300];
    content_path(1, path);
    wait_until(access(path, F_OK) < 0);
    fill(1, MIB, 0, MIB);
    cache_drain(cache);
    check_int(read_result(1, 0, MIB), 0);
}

TEST(cache_drop, forgets_one_though_it_is_read_by_passthrough, .init = begin, .fini = end)
{
    fill(1, MIB, 0, MIB);
    fill(2, MIB, 0, MIB);
    cache_drain(cache);
    int fd = cache_backing_get(cache, 1, 77);
    check(fd > 0);
    check_int(cache_backing_get(cache, 1, 77), fd);
    cache_drop(cache, 1);
    cache_drop(cache, 2);
    cache_drop(cache, 3);
    check_int(read_result(2, 0, 4096), -ENOENT);
    cache_backing_put(cache, 1);
    cache_clear(cache); /* does not wait for who reads */
    check_uint(status_now().contents, 1);
    char byte;
    check_int(pread(fd, &byte, 1, MIB - 1), 1);
    cache_backing_put(cache, 1);
    wait_until(status_now().contents == 0);
    check_uint(status_now().bytes, 0);
}

TEST(cache_clear, forgets_all_but_what_is_in_use, .init = begin, .fini = end)
{
    for (uint64_t cid = 1; cid <= 5; cid++)
        fill(cid, MIB, 0, MIB);
    cache_drain(cache);
    check(cache_backing_get(cache, 3, 77) > 0);
    cache_clear(cache);
    check_uint(status_now().contents, 1);
    check_int(read_result(3, 0, MIB), 0);
    cache_backing_put(cache, 3);
    cache_clear(cache);
    check_uint(status_now().contents, 0);
    check_uint(status_now().bytes, 0);
}

/* All that is there is right; the number of pages. */
static uint64_t check_contents(uint64_t contents, uint64_t size)
{
    uint64_t good = 0;
    for (uint64_t cid = 1; cid <= contents; cid++) {
        for (uint64_t at = 0; at < size; at += CACHE_PAGE) {
            int rc = read_result(cid, at, MIN(CACHE_PAGE, size - at));
            if (rc > 0)
                test_fail("wrong bytes in content %ju at %ju", (uintmax_t)cid, (uintmax_t)at);
            good += rc == 0;
        }
    }
    return good;
}

TEST(cache_open, torn_index_loses_pages_but_serves_no_wrong_byte, .init = begin, .fini = end)
{
    for (uint64_t cid = 1; cid <= 8; cid++)
        fill(cid, MIB, 0, MIB);
    cache_close(cache);
    glob_t found;
    char pattern[4300];
    snprintf(pattern, sizeof(pattern), "%s/test/index-*", cache_dir);
    check_int(glob(pattern, 0, NULL, &found), 0);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        struct stat st;
        check_int(stat(found.gl_pathv[i], &st), 0);
        check_int(truncate(found.gl_pathv[i], st.st_size / 2), 0);
    }
    globfree(&found);
    open_cache(0);
    check_contents(8, MIB);
    for (uint64_t cid = 1; cid <= 8; cid++)
        fill(cid, MIB, 0, MIB);
    cache_drain(cache);
    check_uint(check_contents(8, MIB), 64);
}

TEST(cache_open, foreign_files_are_left_alone, .init = begin, .fini = end)
{
    fill(1, MIB, 0, MIB);
    cache_close(cache);
    char mine[4300], orphan[4300];
    snprintf(mine, sizeof(mine), "%s/test/files/01/notes.txt", cache_dir);
    content_path(0x101, orphan);
    close(open(mine, O_CREAT | O_WRONLY, 0600));
    close(open(orphan, O_CREAT | O_WRONLY, 0600));
    open_cache(0);
    wait_until(access(orphan, F_OK) < 0);
    check_int(access(mine, F_OK), 0);
    check_int(read_result(1, 0, MIB), 0);
}

static void fill_until_killed(void)
{
    if (try_open(0, NEVER_SLOW) < 0)
        _exit(1);
    for (uint64_t round = 0;; round++) {
        uint64_t cid = round % 8 + 1;
        uint8_t *bytes = bytes_of(cid, 0, MIB);
        for (uint64_t at = 0; at < MIB; at += 64 * KIB)
            cache_fill(cache, cid, MIB, at, bytes + at, 64 * KIB, true);
        free(bytes);
        if (round % 5 == 4)
            cache_evict(cache, (round * 7) % 8 + 1);
    }
}

TEST(cache_fill, killed_in_the_middle_serves_no_wrong_byte, .init = begin, .fini = end)
{
    for (int round = 0; round < 5; round++) {
        cache_close(cache);
        cache = NULL;
        pid_t child = fork();
        check(child >= 0);
        if (child == 0)
            fill_until_killed();
        nanosleep(&(struct timespec){.tv_nsec = 100000000L + round * 77000000L}, NULL);
        check_int(kill(child, SIGKILL), 0);
        int ignored;
        check(waitpid(child, &ignored, 0) == child);
        open_cache(0);
        check_contents(8, MIB);
    }
}

struct racer {
    pthread_t thread;
    uint64_t seed;
    int wrong;
};

static void *race(void *arg)
{
    struct racer *racer = arg;
    for (int i = 0; i < 400; i++) {
        racer->seed = racer->seed * 6364136223846793005ull + 1442695040888963407ull;
        uint64_t r = racer->seed >> 33, cid = r % 12 + 1, offset = r / 16 % 32 * 64 * KIB;
        if (r % 3 == 0) {
            uint8_t *bytes = bytes_of(cid, offset, 128 * KIB);
            if (offset + 128 * KIB <= 2 * MIB)
                cache_fill(cache, cid, 2 * MIB, offset, bytes, 128 * KIB, true);
            free(bytes);
        } else if (r % 41 == 0) {
            cache_evict(cache, cid);
        } else {
            int rc = read_result(cid, offset + r % 1000, 50000);
            racer->wrong += rc > 0;
            uint64_t at, length;
            cache_query(cache, cid, 0, 2 * MIB, &at, &length);
        }
        if (r % 97 == 0 && cache_backing_get(cache, cid, 77) > 0)
            cache_backing_put(cache, cid);
    }
    return NULL;
}

TEST(cache, threads_that_fill_read_and_evict_see_no_wrong_byte, .init = begin, .fini = end)
{
    cache_close(cache);
    open_cache(16 * MIB);
    struct racer racers[4];
    for (uint64_t i = 0; i < 4; i++) {
        racers[i] = (struct racer){.seed = i * 999 + 5};
        check_int(pthread_create(&racers[i].thread, NULL, race, &racers[i]), 0);
    }
    int wrong = 0;
    for (int i = 0; i < 4; i++) {
        pthread_join(racers[i].thread, NULL);
        wrong += racers[i].wrong;
    }
    check_int(wrong, 0);
    check_uint(status_now().corrupt_pages, 0);
}
