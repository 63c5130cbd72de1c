/* Files that are given to the cache as they are. */
#include <fcntl.h>
#include <sys/stat.h>

#include "cache_lib.h"

struct giver {
    struct cache_gift gift;
    int dir_fd, fd;
};

/* A file beside the cache with the bytes of the content. */
static struct giver make_gift(uint64_t cid, uint64_t size, uint64_t longer)
{
    struct giver giver = {.dir_fd = open(cache_dir, O_RDONLY | O_DIRECTORY)};
    check(giver.dir_fd >= 0);
    giver.fd = openat(giver.dir_fd, "gift", O_RDWR | O_CREAT | O_TRUNC, 0600);
    check(giver.fd >= 0);
    uint8_t *bytes = bytes_of(cid, 0, size + longer);
    check_int(pwrite(giver.fd, bytes, size + longer, 0), (int)(size + longer));
    free(bytes);
    giver.gift = (struct cache_gift){
        .cid = cid, .size = size, .dir_fd = giver.dir_fd, .name = "gift", .fd = giver.fd};
    return giver;
}

static void giver_done(struct giver *giver)
{
    close(giver->dir_fd);
    close(giver->fd);
}

static bool has_name(const struct giver *giver)
{
    return faccessat(giver->dir_fd, "gift", F_OK, 0) == 0;
}

/* The sums of the first pages, taken in pieces of `piece` bytes. */
static struct cache_page_sum *sums_of(uint64_t cid, uint64_t size, uint64_t pages, size_t piece)
{
    struct cache_page_sum *sums = calloc(pages, sizeof(*sums));
    uint8_t *bytes = bytes_of(cid, 0, size);
    for (uint64_t i = 0; i < pages; i++) {
        struct cache_page_hash hash = {0};
        uint64_t at = i * CACHE_PAGE, until = MIN(at + CACHE_PAGE, size);
        for (; at < until; at += MIN(piece, until - at))
            cache_page_hash_add(&hash, bytes + at, MIN(piece, until - at));
        sums[i] = (struct cache_page_sum){cache_page_hash_get(&hash), true};
    }
    free(bytes);
    return sums;
}

TEST(cache_page_hash, is_the_same_in_any_pieces)
{
    static const size_t lengths[] = {1, 4095, 4096, 4097, 70000, CACHE_PAGE};
    static const size_t pieces[] = {1, 15, 4096, 5000, CACHE_PAGE};
    for (size_t i = 0; i < ARRAY_LEN(lengths); i++) {
        uint8_t *bytes = calloc(1, CACHE_PAGE);
        uint8_t *filled = bytes_of(9, 0, lengths[i]);
        memcpy(bytes, filled, lengths[i]);
        uint32_t expected = cache_page_crc(bytes, lengths[i]);
        for (size_t k = 0; k < ARRAY_LEN(pieces); k++) {
            struct cache_page_hash hash = {0};
            for (size_t at = 0; at < lengths[i]; at += MIN(pieces[k], lengths[i] - at))
                cache_page_hash_add(&hash, bytes + at, MIN(pieces[k], lengths[i] - at));
            check_uint(cache_page_hash_get(&hash), expected);
        }
        free(filled);
        free(bytes);
    }
}

TEST(cache_adopt, a_file_becomes_the_cached_file, .init = begin, .fini = end)
{
    static const uint64_t sizes[] = {1, 4096, 200000, 7 * MIB + 17};
    for (uint64_t i = 0; i < ARRAY_LEN(sizes); i++) {
        uint64_t cid = 10 + i, size = sizes[i], pages = (size + CACHE_PAGE - 1) / CACHE_PAGE;
        struct giver giver = make_gift(cid, size, i % 2 ? 5000 : 0);
        /* The last page's sum is not known. */
        struct cache_page_sum *sums = sums_of(cid, size, pages, 1000);
        sums[pages - 1].known = false;
        giver.gift.sums = sums;
        giver.gift.sum_count = pages;
        struct stat before, after;
        check_int(fstat(giver.fd, &before), 0);
        check_int(cache_adopt(cache, &giver.gift), 0);
        check(!has_name(&giver));
        char path[4300];
        content_path(cid, path);
        check_int(stat(path, &after), 0);
        check(before.st_ino == after.st_ino);
        check_uint((uint64_t)after.st_size, size);
        check_int(read_result(cid, 0, size), 0);
        /* Passed through at once: nothing is to be checked before. */
        check(cache_backing_get(cache, cid, 5) > 0);
        cache_backing_put(cache, cid);
        giver_done(&giver);
        free(sums);
    }
    reopen();
    for (uint64_t i = 0; i < ARRAY_LEN(sizes); i++)
        check_int(read_result(10 + i, 0, sizes[i]), 0);
    check_uint(status_now().corrupt_pages, 0);
}

TEST(cache_adopt, a_wrong_sum_is_found_after_a_restart, .init = begin, .fini = end)
{
    struct giver giver = make_gift(1, MIB, 0);
    struct cache_page_sum *sums = sums_of(1, MIB, 8, CACHE_PAGE);
    sums[3].crc ^= 1;
    giver.gift.sums = sums;
    giver.gift.sum_count = 8;
    check_int(cache_adopt(cache, &giver.gift), 0);
    free(sums);
    giver_done(&giver);
    reopen();
    check_int(read_result(1, 0, 384 * KIB), 0);
    check_int(read_result(1, 384 * KIB, 128 * KIB), -EBADMSG);
    check_int(read_result(1, 512 * KIB, 512 * KIB), 0);
}

TEST(cache_adopt, refuses_and_leaves_the_name, .init = begin, .fini = end)
{
    cache_close(cache);
    open_cache(32 * MIB);
    fill(1, MIB, 0, 4096);
    cache_drain(cache);
    struct giver giver = make_gift(1, MIB, 0);
    check_int(cache_adopt(cache, &giver.gift), -EEXIST);
    giver.gift.cid = 2;
    giver.gift.size = 2 * MIB; /* longer than the file */
    check(cache_adopt(cache, &giver.gift) < 0);
    giver.gift.size = 0;
    check_int(cache_adopt(cache, &giver.gift), -EINVAL);
    check(has_name(&giver));
    giver_done(&giver);
    giver = make_gift(3, 40 * MIB, 0);
    check_int(cache_adopt(cache, &giver.gift), -ENOSPC);
    check(has_name(&giver));
    giver_done(&giver);
    struct cache_content content;
    check_int(cache_content(cache, 2, &content), -ENOENT);
    check_int(read_result(1, 0, 4096), 0);
}

TEST(cache_adopt, capacity_is_kept, .init = begin, .fini = end)
{
    cache_close(cache);
    open_cache(16 * MIB);
    for (uint64_t cid = 1; cid <= 12; cid++) {
        struct giver giver = make_gift(cid, 4 * MIB, 0);
        check_int(cache_adopt(cache, &giver.gift), 0);
        giver_done(&giver);
    }
    wait_until(status_now().bytes <= 16 * MIB);
    check(status_now().bytes >= 8 * MIB);
}

TEST(cache_adopt, what_the_index_did_not_hear_of_goes, .init = begin, .fini = end)
{
    struct giver giver = make_gift(7, 200000, 0);
    char path[4300];
    content_path(7, path);
    fill(0x107, 4096, 0, 4096); /* makes the directory */
    cache_drain(cache);
    cache_close(cache);
    check_int(renameat(giver.dir_fd, "gift", AT_FDCWD, path), 0);
    giver_done(&giver);
    open_cache(0);
    wait_until(access(path, F_OK) != 0);
    check_int(read_result(7, 0, 1), -ENOENT);
    check_int(read_result(0x107, 0, 4096), 0);
}
