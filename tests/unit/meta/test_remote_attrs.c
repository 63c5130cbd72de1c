#include "remote/remote_attrs.h"

#include <stdlib.h>

#include "test.h"

static struct remote_attrs *make(void)
{
    return calloc(1, sizeof(struct remote_attrs));
}

static bool has(const struct remote_attrs *attrs, uint64_t ino, uint64_t size)
{
    struct meta_attr found;
    return remote_attrs_find(attrs, ino, &found) && found.ino == ino && found.size == size;
}

TEST(remote_attrs, keeps_what_was_answered_and_drops_what_was_touched)
{
    struct remote_attrs *attrs = make();
    struct meta_op op = {.kind = META_GETATTR, .ino = 5};
    struct meta_reply reply = {.attr = {.ino = 5, .size = 7}};
    check(!has(attrs, 5, 7));
    remote_attrs_asked(attrs, &op);
    remote_attrs_answered(attrs, &op, &reply, attrs->touches);
    check(has(attrs, 5, 7));
    remote_attrs_touch(attrs, 5);
    check(!has(attrs, 5, 7));
    remote_attrs_answered(attrs, &op, &reply, attrs->touches);
    remote_attrs_touch_all(attrs);
    check(!has(attrs, 5, 7));
    free(attrs);
}

TEST(remote_attrs, takes_no_answer_that_may_be_older_than_a_push)
{
    struct remote_attrs *attrs = make();
    struct meta_op op = {.kind = META_GETATTR, .ino = 5};
    struct meta_reply reply = {.attr = {.ino = 5, .size = 7}};
    uint64_t since = attrs->touches;
    remote_attrs_touch(attrs, 5);
    remote_attrs_answered(attrs, &op, &reply, since);
    check(!has(attrs, 5, 7));
    since = attrs->touches;
    remote_attrs_touch_all(attrs);
    remote_attrs_answered(attrs, &op, &reply, since);
    check(!has(attrs, 5, 7));
    free(attrs);
}

TEST(remote_attrs, a_change_brings_the_new_directory_and_drops_the_old)
{
    struct remote_attrs *attrs = make();
    struct meta_op get = {.kind = META_GETATTR, .ino = 9};
    struct meta_op make_name = {.kind = META_MKNOD, .parent = 9};
    struct meta_op unlink_name = {.kind = META_UNLINK, .parent = 9};
    struct meta_reply directory = {.attr = {.ino = 9, .size = 1}};
    struct meta_reply made = {.attr = {.ino = 10, .size = 0}, .parent = {.ino = 77, .size = 2}};
    struct meta_reply gone = {.attr = {.ino = 10}};
    remote_attrs_answered(attrs, &get, &directory, attrs->touches);
    remote_attrs_asked(attrs, &make_name);
    check(!has(attrs, 9, 1));
    uint64_t since = attrs->touches;
    remote_attrs_answered(attrs, &make_name, &made, since);
    /* The service knows the directory by another number: it is a subtree's root. */
    check(has(attrs, 9, 2));
    check(has(attrs, 10, 0));
    remote_attrs_asked(attrs, &unlink_name);
    check(!has(attrs, 9, 2));
    remote_attrs_answered(attrs, &unlink_name, &gone, attrs->touches);
    check(!has(attrs, 10, 0));
    free(attrs);
}

TEST(remote_attrs, the_service_does_not_note_what_has_no_name)
{
    struct remote_attrs *attrs = make();
    struct meta_op op = {.kind = META_MKNOD, .parent = 9, .flags = META_NAMELESS};
    struct meta_reply reply = {.attr = {.ino = 10, .size = 3}};
    remote_attrs_asked(attrs, &op);
    remote_attrs_answered(attrs, &op, &reply, attrs->touches);
    check(!has(attrs, 10, 3));
    free(attrs);
}

/* Files of one directory that are looked at one after the other must not push each other out. */
TEST(remote_attrs, a_tenth_of_its_room_is_nearly_all_kept)
{
    struct remote_attrs *attrs = make();
    unsigned kept = 0, count = REMOTE_ATTRS / 10;
    for (uint64_t ino = 1; ino <= count; ino++)
        remote_attrs_keep(attrs, &(struct meta_attr){.ino = ino, .size = ino}, attrs->touches);
    for (uint64_t ino = 1; ino <= count; ino++)
        kept += has(attrs, ino, ino);
    check(kept > count - count / 500);
    free(attrs);
}

TEST(remote_attrs, what_shares_a_row_is_touched_alone)
{
    struct remote_attrs *attrs = make();
    unsigned kept = 0;
    for (uint64_t ino = 1; ino <= REMOTE_ATTRS; ino++)
        remote_attrs_keep(attrs, &(struct meta_attr){.ino = ino, .size = ino}, attrs->touches);
    for (uint64_t ino = 1; ino <= REMOTE_ATTRS; ino++)
        kept += has(attrs, ino, ino);
    bool had = has(attrs, REMOTE_ATTRS, REMOTE_ATTRS);
    check(had);
    remote_attrs_touch(attrs, REMOTE_ATTRS);
    check(!has(attrs, REMOTE_ATTRS, REMOTE_ATTRS));
    for (uint64_t ino = 1; ino <= REMOTE_ATTRS; ino++)
        kept -= has(attrs, ino, ino);
    check(kept == 1);
    free(attrs);
}
