#include "remote/remote_names.h"

#include <errno.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "test.h"

static struct meta_name name(const char *text)
{
    return (struct meta_name){text, strlen(text)};
}

static bool absent(struct remote_names *names, uint64_t ino, const char *text)
{
    struct meta_name of = name(text);
    return remote_names_absent(names, ino, &of);
}

/* Asked and answered. */
static void done(struct remote_names *names, const struct meta_op *op, int result,
                 const struct meta_reply *reply)
{
    remote_names_answered(names, op, result, reply, remote_names_asked(names, op));
}

static const struct meta_reply file = {.attr = {.ino = 50, .mode = S_IFREG, .nlink = 1}};
static const struct meta_reply made = {.attr = {.ino = 9, .mode = S_IFDIR}, .whole = true};
static const struct meta_op make_dir = {.kind = META_MKNOD, .parent = 2};

TEST(remote_names, knows_only_what_it_was_told_whole)
{
    struct remote_names names = {0};
    struct meta_reply part = made;
    part.whole = false;
    done(&names, &make_dir, 0, &part);
    check(!absent(&names, 9, "a"));
    done(&names, &make_dir, 0, &made);
    check(absent(&names, 9, "a"));
    check(!absent(&names, 2, "a"));

    struct meta_entry entries[] = {{.name = "one", .name_len = 3}, {.name = "two", .name_len = 3}};
    struct meta_op list = {.kind = META_READDIR, .ino = 12};
    struct meta_reply listed = {.entries = entries, .entry_count = 2, .whole = true};
    done(&names, &list, 0, &listed);
    check(!absent(&names, 12, "one") && !absent(&names, 12, "two"));
    check(absent(&names, 12, "on") && absent(&names, 12, "three"));

    remote_names_drop(&names, 12);
    check(!absent(&names, 12, "three") && absent(&names, 9, "a"));
    remote_names_drop_all(&names);
    check(!absent(&names, 9, "a"));
    check_uint(names.count, 0);
    /* Nothing is kept of a subtree's root: what is pushed names it by another number. */
    list.ino = META_ROOT_INO;
    done(&names, &list, 0, &listed);
    check(!absent(&names, META_ROOT_INO, "three"));
}

TEST(remote_names, follows_its_own_changes)
{
    struct remote_names names = {0};
    struct meta_op create = {.kind = META_MKNOD, .parent = 9, .name = name("a")};
    struct meta_op unlink = {.kind = META_UNLINK, .parent = 9, .name = name("a")};
    struct meta_op rename = {.kind = META_RENAME,
                             .parent = 9,
                             .name = name("a"),
                             .new_parent = 9,
                             .new_name = name("b")};
    done(&names, &make_dir, 0, &made);
    done(&names, &create, 0, &file);
    check(!absent(&names, 9, "a"));
    done(&names, &create, -EEXIST, NULL); /* it changed nothing */
    done(&names, &unlink, 0, &file);
    check(absent(&names, 9, "a"));

    done(&names, &create, 0, &file);
    done(&names, &rename, 0, &file);
    check(absent(&names, 9, "a") && !absent(&names, 9, "b"));
    struct meta_reply over = file;
    over.replaced.ino = 51;
    done(&names, &create, 0, &file);
    done(&names, &rename, 0, &over);
    check(absent(&names, 9, "a") && !absent(&names, 9, "b"));
    done(&names, &create, 0, &file);
    done(&names, &rename, -ENOTEMPTY, NULL);
    check(!absent(&names, 9, "a") && !absent(&names, 9, "b"));
    rename.flags = RENAME_EXCHANGE;
    done(&names, &rename, 0, &over);
    check(!absent(&names, 9, "a") && !absent(&names, 9, "b"));
    done(&names, &unlink, 0, &file);
    unlink.name = name("b");
    done(&names, &unlink, 0, &file);
    check(absent(&names, 9, "a") && absent(&names, 9, "b"));
    check_uint(names.count, 0);
    remote_names_drop_all(&names);
}

TEST(remote_names, a_rename_between_two_names_of_a_file_takes_none_away)
{
    struct remote_names names = {0};
    struct meta_op create = {.kind = META_MKNOD, .parent = 9, .name = name("a")};
    struct meta_op link = {.kind = META_LINK, .parent = 9, .ino = 50, .name = name("b")};
    struct meta_op rename = {.kind = META_RENAME,
                             .parent = 9,
                             .name = name("a"),
                             .new_parent = 9,
                             .new_name = name("b")};
    struct meta_reply two = file;
    two.attr.nlink = 2;
    done(&names, &make_dir, 0, &made);
    done(&names, &create, 0, &file);
    done(&names, &link, 0, &two);
    done(&names, &rename, 0, &two);
    check(!absent(&names, 9, "a") && !absent(&names, 9, "b"));
    remote_names_drop_all(&names);
}

TEST(remote_names, changes_in_flight_count_from_their_asking)
{
    struct remote_names names = {0};
    struct meta_op create = {.kind = META_MKNOD, .parent = 9, .name = name("a")};
    struct meta_op unlink = {.kind = META_UNLINK, .parent = 9, .name = name("a")};
    done(&names, &make_dir, 0, &made);
    struct names_mark first = remote_names_asked(&names, &create);
    check(!absent(&names, 9, "a"));
    remote_names_answered(&names, &create, 0, &file, first);
    /* One thread takes it away, another makes it again: whatever is answered first, it is there. */
    struct names_mark gone = remote_names_asked(&names, &unlink);
    struct names_mark again = remote_names_asked(&names, &create);
    remote_names_answered(&names, &create, 0, &file, again);
    remote_names_answered(&names, &unlink, 0, &file, gone);
    check(!absent(&names, 9, "a"));
    remote_names_drop_all(&names);
}

TEST(remote_names, an_answer_of_before_a_listing_takes_nothing_from_it)
{
    struct remote_names names = {0};
    struct meta_op create = {.kind = META_MKNOD, .parent = 9, .name = name("a")};
    struct meta_op unlink = {.kind = META_UNLINK, .parent = 9, .name = name("a")};
    done(&names, &make_dir, 0, &made);
    struct names_mark gone = remote_names_asked(&names, &unlink);
    struct names_mark failed = remote_names_asked(&names, &create);
    struct meta_entry entry = {.name = "a", .name_len = 1};
    struct meta_op list = {.kind = META_READDIR, .ino = 9};
    struct meta_reply listed = {.entries = &entry, .entry_count = 1, .whole = true};
    done(&names, &list, 0, &listed);
    remote_names_answered(&names, &unlink, 0, &file, gone);
    remote_names_answered(&names, &create, -EEXIST, NULL, failed);
    check(!absent(&names, 9, "a"));
    check(absent(&names, 9, "b"));
    remote_names_drop_all(&names);
}

static uint64_t whose(struct remote_names *names, const char *text)
{
    struct meta_name of = name(text);
    return remote_names_find(names, 9, &of);
}

TEST(remote_names, knows_whose_a_name_is_after_its_own_changes)
{
    struct remote_names names = {0};
    struct meta_op create = {.kind = META_MKNOD, .parent = 9, .name = name("a")};
    struct meta_op rename = {.kind = META_RENAME,
                             .parent = 9,
                             .name = name("a"),
                             .new_parent = 9,
                             .new_name = name("b")};
    struct meta_op unlink = {.kind = META_UNLINK, .parent = 9, .name = name("b")};
    struct meta_entry entries[] = {{.name = "a", .name_len = 1, .ino = 41},
                                   {.name = "b", .name_len = 1, .ino = 42}};
    struct meta_op list = {.kind = META_READDIR, .ino = 9};
    struct meta_reply listed = {.entries = entries, .entry_count = 2, .whole = true};
    struct meta_reply over = {.attr = {.ino = 41, .mode = S_IFREG, .nlink = 1},
                              .replaced = {.ino = 42}};
    done(&names, &list, 0, &listed);
    check(whose(&names, "a") == 41 && whose(&names, "b") == 42 && whose(&names, "c") == 0);
    struct names_mark mark = remote_names_asked(&names, &rename);
    check(whose(&names, "a") == 0 && whose(&names, "b") == 0);
    remote_names_answered(&names, &rename, 0, &over, mark);
    check(absent(&names, 9, "a") && whose(&names, "b") == 41);
    done(&names, &unlink, -EBUSY, NULL); /* who has failed may ask again */
    check(!absent(&names, 9, "b") && whose(&names, "b") == 0);
    remote_names_found(&names, 9, &unlink.name, 41);
    check_uint(whose(&names, "b"), 41);
    done(&names, &create, 0, &file);
    check_uint(whose(&names, "a"), 50);
    remote_names_drop_all(&names);
}

TEST(remote_names, does_not_know_whose_a_name_is_after_changes_that_crossed)
{
    struct remote_names names = {0};
    struct meta_op first = {.kind = META_RENAME,
                            .parent = 9,
                            .name = name("a"),
                            .new_parent = 9,
                            .new_name = name("c")};
    struct meta_op second = first;
    second.name = name("b");
    struct meta_reply one = {.attr = {.ino = 41, .mode = S_IFREG, .nlink = 1}}, two = one;
    struct meta_entry entries[] = {{.name = "a", .name_len = 1, .ino = 41},
                                   {.name = "b", .name_len = 1, .ino = 42}};
    struct meta_op list = {.kind = META_READDIR, .ino = 9};
    struct meta_reply listed = {.entries = entries, .entry_count = 2, .whole = true};
    two.attr.ino = 42;
    two.replaced.ino = 41;
    done(&names, &list, 0, &listed);
    struct names_mark a = remote_names_asked(&names, &first);
    struct names_mark b = remote_names_asked(&names, &second);
    /* The answers may come in another order than the changes were made. */
    remote_names_answered(&names, &second, 0, &two, b);
    remote_names_found(&names, 9, &first.new_name, 42); /* one is under way */
    check_uint(whose(&names, "c"), 0);
    remote_names_answered(&names, &first, 0, &one, a);
    check(!absent(&names, 9, "c") && whose(&names, "c") == 0);
    /* Nor after one that was asked for before the directory was listed. */
    done(&names, &list, 0, &listed);
    a = remote_names_asked(&names, &first);
    done(&names, &list, 0, &listed);
    check_uint(whose(&names, "a"), 41);
    remote_names_answered(&names, &first, 0, &one, a);
    check_uint(whose(&names, "a"), 0);
    remote_names_drop_all(&names);
}

TEST(remote_names, is_bounded)
{
    struct remote_names names = {0};
    struct meta_op create = {.kind = META_MKNOD, .parent = 9};
    char text[16];
    done(&names, &make_dir, 0, &made);
    for (unsigned i = 0; i <= REMOTE_NAMES_MAX; i++) {
        snprintf(text, sizeof(text), "%u", i);
        create.name = name(text);
        check_uint(names.count, i);
        done(&names, &create, 0, &file);
    }
    /* One too many: nothing is known of it any more. */
    check_uint(names.count, 0);
    check(!absent(&names, 9, "x"));
    struct meta_reply reply = made;
    for (unsigned i = 0; i <= REMOTE_NAMES_DIRECTORIES; i++) {
        reply.attr.ino = 100 + i;
        done(&names, &make_dir, 0, &reply);
        check(i == 0 || i == REMOTE_NAMES_DIRECTORIES || absent(&names, 100, "x"));
    }
    /* The one that was used last stays. */
    check(!absent(&names, 101, "x"));
    check(absent(&names, 100 + REMOTE_NAMES_DIRECTORIES, "x"));
    remote_names_drop_all(&names);
}
