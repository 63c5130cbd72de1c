/* A disk that fails, is slow or full: never an error that a reader must know of, never wrong bytes.
 */
#include <sys/stat.h>

#include "cache_lib.h"

static enum cache_health health_now(void)
{
    return status_now().directories[0].health;
}

static void set_fault(struct disk_fault fault)
{
    cache_fault_set(cache, &fault);
}

TEST(cache_read, failing_disk_is_left_alone_and_comes_back, .init = begin, .fini = end)
{
    fill(1, MIB, 0, MIB);
    cache_drain(cache);
    set_fault((struct disk_fault){.read_result = -EIO, .free_percent = -1});
    for (int i = 0; i < 3; i++)
        check_int(read_result(1, 0, 4096), -EIO);
    check_int(health_now(), CACHE_FAILED);
    uint64_t offset, length;
    check(!cache_query(cache, 1, 0, MIB, &offset, &length));
    check_int(read_result(1, 0, 4096), -EAGAIN);
    set_fault((struct disk_fault){.free_percent = -1});
    wait_until(read_result(1, 0, 4096) == 0);
    check_int(health_now(), CACHE_GOOD);
    check_int(read_result(1, 0, MIB), 0);
}

static void begin_slow(void)
{
    test_dir_make(cache_dir);
    check_int(try_open(0, 100), 0);
}

TEST(cache_read, slow_disk_is_given_up_and_comes_back, .init = begin_slow, .fini = end)
{
    fill(1, MIB, 0, MIB);
    cache_drain(cache);
    set_fault((struct disk_fault){.delay_ms = 800, .free_percent = -1});
    /* A read that a disk holds up for long is given up; after some the disk is not asked at all. */
    wait_until(read_result(1, 0, 4096) == -EAGAIN);
    check_int(health_now(), CACHE_SLOW);
    check(status_now().timeouts > 0);
    set_fault((struct disk_fault){.free_percent = -1});
    wait_until(read_result(1, 0, 4096) == 0);
    wait_until(health_now() == CACHE_GOOD);
}

/* His thread is held up as long as the disk holds it up; his read is not. */
TEST(cache_read, slow_disk_ends_the_read_of_a_waiting_reader_in_time, .init = begin_slow,
     .fini = end)
{
    fill(1, MIB, 0, MIB);
    cache_drain(cache);
    wait_until(read_result(1, 0, 4096) == 0);
    set_fault((struct disk_fault){.delay_ms = 1500, .free_percent = -1});
    read_may_wait = true;
    wait_until(read_result(1, 0, 4096) == -ETIMEDOUT);
    check(!read_was_here);
    wait_until(read_result(1, 0, 4096) == -EAGAIN);
    set_fault((struct disk_fault){.free_percent = -1});
    wait_until(read_result(1, 0, 4096) == 0);
    check(read_was_here);
    read_may_wait = false;
}

TEST(cache_fill, failing_writes_cache_nothing, .init = begin, .fini = end)
{
    set_fault((struct disk_fault){.write_result = -EIO, .free_percent = -1});
    uint8_t *bytes = bytes_of(1, 0, MIB);
    for (uint64_t at = 0; at < MIB; at += CACHE_PAGE)
        cache_fill(cache, 1, MIB, at, bytes + at, CACHE_PAGE, true);
    cache_drain(cache);
    check(status_now().write_errors > 0);
    check_uint(status_now().pages, 0);
    check_int(health_now(), CACHE_FAILED);
    set_fault((struct disk_fault){.free_percent = -1});
    wait_until(cache_fill(cache, 2, MIB, 0, bytes, CACHE_PAGE, true) == 0);
    wait_until(status_now().pages == 1);
    free(bytes);
}

TEST(cache_fill_lent, gives_the_memory_back_when_writes_fail, .init = begin, .fini = end)
{
    set_fault((struct disk_fault){.write_result = -EIO, .free_percent = -1});
    check_int(fill_lent(1, 9 * MIB, 0, 9 * MIB), -EINPROGRESS);
    check(status_now().write_errors > 0);
    check_uint(status_now().pages, 0);
    wait_until(health_now() == CACHE_FAILED);
    check_int(fill_lent(1, 9 * MIB, 0, 9 * MIB), -EAGAIN);
    check(status_now().fills_dropped > 0);
    set_fault((struct disk_fault){.free_percent = -1});
    wait_until(fill_lent(1, 9 * MIB, 0, MIB) == -EINPROGRESS && status_now().pages > 0);
    check_int(read_result(1, 0, MIB), 0);
}

TEST(cache_fill, full_disk_takes_no_more_but_serves_what_it_has, .init = begin, .fini = end)
{
    fill(1, MIB, 0, MIB);
    cache_drain(cache);
    set_fault((struct disk_fault){.write_result = -ENOSPC, .free_percent = -1});
    uint8_t *bytes = bytes_of(2, 0, MIB);
    cache_fill(cache, 2, MIB, 0, bytes, CACHE_PAGE, true);
    wait_until(health_now() == CACHE_FULL);
    wait_until(cache_fill(cache, 2, MIB, 0, bytes, CACHE_PAGE, true) == -ENOSPC);
    int rc = read_result(1, 0, 4096);
    check(rc == 0 || rc == -ENOENT);
    set_fault((struct disk_fault){.free_percent = -1});
    wait_until(cache_fill(cache, 2, MIB, 0, bytes, CACHE_PAGE, true) == 0);
    cache_drain(cache);
    check_int(read_result(2, 0, CACHE_PAGE), 0);
    free(bytes);
}

static void begin_watermark(void)
{
    test_dir_make(cache_dir);
    const char *directories[] = {cache_dir};
    struct cache_config config;
    cache_config_init(&config);
    config.directories = directories;
    config.directory_count = 1;
    config.volume = "test";
    config.free_low_percent = 1;
    config.free_high_percent = 1;
    config.slow_ms = NEVER_SLOW;
    check_int(cache_open(&config, &cache, NULL), 0);
    set_fault((struct disk_fault){.free_percent = 50});
}

TEST(cache, others_who_fill_the_disk_push_the_cache_out, .init = begin_watermark, .fini = end)
{
    wait_until(health_now() == CACHE_GOOD);
    for (uint64_t cid = 1; cid <= 4; cid++)
        fill(cid, 6 * MIB, 0, 6 * MIB);
    cache_drain(cache);
    check(status_now().bytes >= 20 * MIB);
    set_fault((struct disk_fault){.free_percent = 0});
    wait_until(status_now().bytes == 0);
    uint8_t *bytes = bytes_of(1, 0, CACHE_PAGE);
    check_int(cache_fill(cache, 1, 6 * MIB, 0, bytes, CACHE_PAGE, true), -ENOSPC);
    check_int(health_now(), CACHE_FULL);
    set_fault((struct disk_fault){.free_percent = 50});
    wait_until(cache_fill(cache, 1, 6 * MIB, 0, bytes, CACHE_PAGE, true) == 0);
    free(bytes);
}

TEST(cache_fill, what_there_is_no_memory_for_is_dropped_and_counted, .init = begin, .fini = end)
{
    set_fault((struct disk_fault){.delay_ms = 50, .free_percent = -1});
    uint8_t *bytes = bytes_of(1, 0, 16 * MIB);
    unsigned dropped = 0;
    for (uint64_t at = 0; at < 16 * MIB; at += CACHE_PAGE)
        dropped += cache_fill(cache, 1, 16 * MIB, at, bytes + at, CACHE_PAGE, true) < 0;
    check(dropped > 0);
    check(status_now().fills_dropped >= dropped);
    set_fault((struct disk_fault){.free_percent = -1});
    cache_drain(cache);
    uint64_t good = 0;
    for (uint64_t at = 0; at < 16 * MIB; at += CACHE_PAGE)
        good += read_result(1, at, CACHE_PAGE) == 0;
    check_uint(good + dropped, 16 * MIB / CACHE_PAGE);
    free(bytes);
}

/* Five of them, more than a disk may fail. */
static void fill_pages(uint64_t cid)
{
    uint8_t *bytes = bytes_of(cid, 0, MIB);
    for (uint64_t at = 0; at < 5 * CACHE_PAGE; at += CACHE_PAGE) {
        cache_fill(cache, cid, MIB, at, bytes + at, CACHE_PAGE, true);
        cache_drain(cache);
    }
    free(bytes);
}

TEST(cache_fill, a_name_that_others_have_is_no_fault_of_the_disk, .init = begin, .fini = end)
{
    char path[4300];
    fill(1, MIB, 0, MIB);
    content_path(2, path);
    *strrchr(path, '/') = '\0';
    check_int(mkdir(path, 0700), 0);
    content_path(2, path);
    check_int(mkdir(path, 0700), 0);
    fill_pages(2);
    check_int(health_now(), CACHE_GOOD);
    check_int(read_result(2, 0, 4096), -ENOENT);
    check_int(read_result(1, 0, MIB), 0);
}

TEST(cache_fill, a_directory_that_was_removed_is_left_alone, .init = begin, .fini = end)
{
    char path[4300];
    snprintf(path, sizeof(path), "%s/test/files", cache_dir);
    check_int(rmdir(path), 0);
    fill_pages(1);
    check_int(health_now(), CACHE_FAILED);
    check(read_result(1, 0, 4096) < 0);
}
