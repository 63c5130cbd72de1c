/* Positions in a directory: cookies and the names they stand for. */
#include <errno.h>

#include "front/front_dir.h"
#include "test.h"

static size_t name_of(char out[DIR_NAME_MAX + 1], unsigned i)
{
    /* Long shared beginnings, none at all, one name the beginning of the next, and the longest. */
    switch (i % 4) {
    case 0:
        return (size_t)snprintf(out, DIR_NAME_MAX + 1, "part-%08u-of-a-long-name", i);
    case 1:
        return (size_t)snprintf(out, DIR_NAME_MAX + 1, "part-%08u-of-a-long-name.crc", i - 1);
    case 2:
        return (size_t)snprintf(out, DIR_NAME_MAX + 1, "%c", (int)('a' + i % 26));
    default:
        memset(out, 'x', DIR_NAME_MAX);
        snprintf(out + DIR_NAME_MAX - 10, 11, "%010u", i);
        return DIR_NAME_MAX;
    }
}

static void check_position(const struct dir_positions *p, uint64_t cookie, unsigned i)
{
    char expected[DIR_NAME_MAX + 1];
    char name[DIR_NAME_MAX];
    size_t len = 0;
    size_t expected_len = name_of(expected, i);
    check_int(dir_positions_find(p, cookie, name, &len), 0);
    check_uint(len, expected_len);
    check_mem(name, expected, len);
}

TEST(dir_positions, start_before_the_first_name)
{
    struct dir_positions p;
    char name[DIR_NAME_MAX];
    size_t len = 1;
    dir_positions_init(&p);
    for (uint64_t cookie = 0; cookie < DIR_COOKIE_FIRST; cookie++) {
        len = 1;
        check_int(dir_positions_find(&p, cookie, name, &len), 0);
        check_uint(len, 0);
    }
    check_int(dir_positions_find(&p, DIR_COOKIE_FIRST, name, &len), -EINVAL);
    check_int(dir_positions_find(&p, UINT64_MAX, name, &len), -EINVAL);
    dir_positions_done(&p);
}

TEST(dir_positions, find_every_name_that_was_given)
{
    enum { COUNT = 5000 };
    struct dir_positions p;
    char name[DIR_NAME_MAX + 1];
    dir_positions_init(&p);
    for (unsigned i = 0; i < COUNT; i++) {
        size_t len = name_of(name, i);
        check_uint(dir_positions_add(&p, name, len), DIR_COOKIE_FIRST + i);
    }
    for (unsigned i = 0; i < COUNT; i++)
        check_position(&p, DIR_COOKIE_FIRST + i, i);
    for (unsigned i = COUNT; i-- > 0;)
        check_position(&p, DIR_COOKIE_FIRST + i, i);
    dir_positions_done(&p);
}

/* A reader that jumps back is given new numbers; its old ones stay right. */
TEST(dir_positions, stay_right_after_a_jump_back)
{
    struct dir_positions p;
    char name[DIR_NAME_MAX + 1];
    dir_positions_init(&p);
    for (unsigned i = 0; i < 600; i++)
        dir_positions_add(&p, name, name_of(name, i));
    for (unsigned i = 100; i < 400; i++)
        check_uint(dir_positions_add(&p, name, name_of(name, i)), DIR_COOKIE_FIRST + 500 + i);
    for (unsigned i = 0; i < 600; i++)
        check_position(&p, DIR_COOKIE_FIRST + i, i);
    for (unsigned i = 100; i < 400; i++)
        check_position(&p, DIR_COOKIE_FIRST + 500 + i, i);
    dir_positions_done(&p);
}

TEST(dir_positions, are_forgotten_by_rewind)
{
    struct dir_positions p;
    char name[DIR_NAME_MAX + 1];
    size_t len;
    dir_positions_init(&p);
    for (unsigned i = 0; i < 300; i++)
        dir_positions_add(&p, name, name_of(name, i));
    dir_positions_rewind(&p);
    check_int(dir_positions_find(&p, DIR_COOKIE_FIRST, name, &len), -EINVAL);
    check_uint(dir_positions_add(&p, "again", 5), DIR_COOKIE_FIRST);
    check_int(dir_positions_find(&p, DIR_COOKIE_FIRST, name, &len), 0);
    check_uint(len, 5);
    check_mem(name, "again", 5);
    dir_positions_done(&p);
}

TEST(dir_kept, one_handle_at_a_time_has_what_the_last_one_had)
{
    struct dir_kept *kept;
    struct dir_positions *p;
    bool known = true;
    check_int(dir_kept_new(&kept), 0);
    p = dir_kept_take(kept, 7, &known);
    check(p != NULL);
    check(!known);
    check(dir_positions_add(p, "a", 1) == DIR_COOKIE_FIRST);
    check(dir_kept_take(kept, 7, &known) == NULL);
    check(known);
    dir_kept_give(kept, p);
    check(dir_kept_take(kept, 7, &known) == p);
    check(known);
    char name[DIR_NAME_MAX];
    size_t len = 0;
    check_int(dir_positions_find(p, DIR_COOKIE_FIRST, name, &len), 0);
    check_uint(len, 1);
    dir_kept_give(kept, p);
    dir_kept_free(kept);
}

TEST(dir_kept, those_of_longest_ago_are_forgotten)
{
    struct dir_kept *kept;
    bool known;
    check_int(dir_kept_new(&kept), 0);
    struct dir_positions *used = dir_kept_take(kept, 1, &known);
    for (uint64_t ino = 2; ino < DIR_KEPT_DIRECTORIES + 3; ino++)
        dir_kept_give(kept, dir_kept_take(kept, ino, &known));
    dir_kept_give(kept, dir_kept_take(kept, 2, &known));
    check(!known);
    dir_kept_give(kept, dir_kept_take(kept, DIR_KEPT_DIRECTORIES + 2, &known));
    check(known);
    /* One with more names than are kept in all. */
    for (unsigned i = 0; i <= DIR_KEPT_NAMES; i++)
        dir_positions_add(used, "name", 4);
    dir_kept_give(kept, used);
    dir_kept_give(kept, dir_kept_take(kept, 1, &known));
    check(!known);
    dir_kept_free(kept);
}
