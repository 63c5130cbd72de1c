#include "engine_test.h"

#include <stdio.h> /* RENAME_ */

TEST(engine_mknod, makes_each_type)
{
    static const struct {
        const char *name;
        uint32_t mode, nlink;
        uint64_t size;
    } cases[] = {
        {"file", S_IFREG | 0644, 1, 0},    {"dir", S_IFDIR | 0755, 2, 0},
        {"link", S_IFLNK | 0777, 1, 6},    {"fifo", S_IFIFO | 0600, 1, 0},
        {"socket", S_IFSOCK | 0600, 1, 0}, {"null", S_IFCHR | 0666, 1, 0},
        {"disk", S_IFBLK | 0660, 1, 0},
    };
    struct world w;
    world_init(&w);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int64_t ino = make(&w, 1, cases[i].name, cases[i].mode);
        check(ino > 1);
        struct meta_attr made = w.reply.attr;
        check_int(lookup(&w, 1, cases[i].name), ino);
        check_mem(&made, &w.reply.attr, sizeof(made));
        check_uint(made.mode, cases[i].mode);
        check_uint(made.nlink, cases[i].nlink);
        check_uint(made.size, cases[i].size);
        check_uint(made.uid, 1000);
        check_uint(made.gid, 100);
        check_uint(made.btime_ns, w.now);
    }
    struct meta_attr root = attr_of(&w, 1);
    check_uint(root.nlink, 3);
    check_uint(root.mtime_ns, w.now);
    struct meta_usage usage = usage_of(&w, 1);
    check_uint(usage.files, 6);
    check_uint(usage.directories, 1);
    check_uint(usage.bytes, 0);
    world_done(&w);
}

TEST(engine_mknod, refuses)
{
    struct world w;
    world_init(&w);
    char longest[257];
    memset(longest, 'n', 256);
    longest[256] = '\0';
    int64_t file = make(&w, 1, "file", S_IFREG | 0644);
    check(file > 0);
    check_int(make(&w, 1, "file", S_IFREG | 0644), -EEXIST);
    check_int(make(&w, 1, "file", S_IFDIR | 0755), -EEXIST);
    check_int(make(&w, 1, longest, S_IFREG | 0644), -ENAMETOOLONG);
    check_int(make(&w, 1, "", S_IFREG | 0644), -ENOENT);
    check_int(make(&w, 1, ".", S_IFREG | 0644), -EINVAL);
    check_int(make(&w, 1, "..", S_IFREG | 0644), -EINVAL);
    check_int(make(&w, 1, "a/b", S_IFREG | 0644), -EINVAL);
    check_int(make(&w, (uint64_t)file, "x", S_IFREG | 0644), -ENOTDIR);
    check_int(make(&w, 99, "x", S_IFREG | 0644), -ENOENT);
    check_int(make(&w, 1, "bad", S_IFMT | 0644), -EINVAL);
    check(make(&w, 1, longest + 1, S_IFREG | 0644) > 0);
    check_uint(usage_of(&w, 1).files, 2);
    world_done(&w);
}

TEST(engine_mknod, inherits_group_from_a_setgid_directory)
{
    struct world w;
    world_init(&w);
    int64_t dir = make(&w, 1, "shared", S_IFDIR | S_ISGID | 0775);
    struct meta_op op = {
        .kind = META_SETATTR, .ino = (uint64_t)dir, .valid = META_SET_GID, .attr = {.gid = 7}};
    check_int(world_apply(&w, &op), 0);
    check(make(&w, (uint64_t)dir, "file", S_IFREG | 0644) > 0);
    check_uint(w.reply.attr.gid, 7);
    check_uint(w.reply.attr.mode, S_IFREG | 0644);
    check(make(&w, (uint64_t)dir, "sub", S_IFDIR | 0755) > 0);
    check_uint(w.reply.attr.gid, 7);
    check_uint(w.reply.attr.mode, S_IFDIR | S_ISGID | 0755);
    world_done(&w);
}

TEST(engine_unlink, removes_and_sustains)
{
    struct world w;
    world_init(&w);
    int64_t file = make(&w, 1, "file", S_IFREG | 0644), dir = make(&w, 1, "dir", S_IFDIR | 0755);
    check_int(unlink_at(&w, 1, "dir", 0), -EISDIR);
    check_int(unlink_at(&w, 1, "file", META_RMDIR), -ENOTDIR);
    check_int(unlink_at(&w, 1, "none", 0), -ENOENT);
    check_int(unlink_at(&w, 1, "file", 0), 0);
    check_uint(w.reply.attr.nlink, 0);
    check_uint(w.reply.attr.ino, (uint64_t)file);
    check_int(lookup(&w, 1, "file"), -ENOENT);
    check_uint(attr_of(&w, (uint64_t)file).nlink, 0);
    uint64_t found[4];
    check_int(engine_sustained(w.engine, 0, found, 4), 1);
    check_uint(found[0], (uint64_t)file);
    check_int(write_inline(&w, (uint64_t)file, 0, "late", 4), 0);
    check_int(drop(&w, (uint64_t)file), 0);
    struct meta_op op = {.kind = META_GETATTR, .ino = (uint64_t)file};
    check_int(world_read(&w, &op), -ENOENT);
    check_int(engine_sustained(w.engine, 0, found, 4), 0);

    check(make(&w, (uint64_t)dir, "in", S_IFREG | 0644) > 0);
    check_int(unlink_at(&w, 1, "dir", META_RMDIR), -ENOTEMPTY);
    check_int(unlink_at(&w, (uint64_t)dir, "in", 0), 0);
    check_int(unlink_at(&w, 1, "dir", META_RMDIR), 0);
    check_uint(attr_of(&w, 1).nlink, 2);
    check_int(make(&w, (uint64_t)dir, "in", S_IFREG | 0644), -ENOENT);
    struct meta_usage usage = usage_of(&w, 1);
    check_uint(usage.files + usage.directories + usage.bytes, 0);
    world_done(&w);
}

/* O_TMPFILE */
static int64_t make_nameless(struct world *w, uint32_t mode)
{
    struct meta_op op = {
        .kind = META_MKNOD, .parent = 1, .flags = META_NAMELESS, .attr = {.mode = mode}};
    int rc = world_apply(w, &op);
    return rc ? rc : (int64_t)w->reply.attr.ino;
}

TEST(engine_mknod, nameless_file_may_get_a_name)
{
    struct world w;
    world_init(&w);
    check_int(make_nameless(&w, S_IFDIR | 0755), -EINVAL);
    int64_t file = make_nameless(&w, S_IFREG | 0640);
    check(file > 0);
    check_uint(w.reply.attr.nlink, 0);
    check_uint(w.reply.attr.mode, S_IFREG | 0640);
    check_uint(usage_of(&w, 1).files, 0);
    uint64_t found[4];
    check_int(engine_sustained(w.engine, 0, found, 4), 1);
    check(write_object(&w, (uint64_t)file, 100, 0) > 0);
    /* Its key is an internal one: it has no path. */
    check(strstr(object_of(&w, (uint64_t)file).key, ".sluice/o/") != NULL);
    world_reopen(&w);
    check_int(link_at(&w, (uint64_t)file, 1, "named"), 0);
    check_uint(w.reply.attr.nlink, 1);
    check_int(lookup(&w, 1, "named"), file);
    check_uint(usage_of(&w, 1).files, 1);
    check_uint(usage_of(&w, 1).bytes, 100);
    check_int(engine_sustained(w.engine, 0, found, 4), 0);
    check_int(link_at(&w, (uint64_t)file, 1, "second"), 0);
    check_int(unlink_at(&w, 1, "named", 0), 0);
    check_int(unlink_at(&w, 1, "second", 0), 0);
    /* Now it was unlinked: that is not undone. */
    check_int(link_at(&w, (uint64_t)file, 1, "again"), -ENOENT);
    check_int(drop(&w, (uint64_t)file), 0);

    file = make_nameless(&w, S_IFREG | 0600);
    check_int(drop(&w, (uint64_t)file), 0);
    check_int(link_at(&w, (uint64_t)file, 1, "gone"), -ENOENT);
    world_done(&w);
}

TEST(engine_drop, leaves_linked_inodes_alone)
{
    struct world w;
    world_init(&w);
    int64_t file = make(&w, 1, "file", S_IFREG | 0644);
    check_int(drop(&w, (uint64_t)file), 0);
    check_int(lookup(&w, 1, "file"), file);
    check_int(drop(&w, 12345), 0);
    world_done(&w);
}

TEST(engine_link, counts_names_and_usage)
{
    struct world w;
    world_init(&w);
    int64_t a = make(&w, 1, "a", S_IFDIR | 0755), b = make(&w, 1, "b", S_IFDIR | 0755);
    int64_t file = make(&w, (uint64_t)a, "file", S_IFREG | 0644);
    check_int(link_at(&w, (uint64_t)file, (uint64_t)b, "other"), 0);
    check_uint(w.reply.attr.nlink, 2);
    check_int(link_at(&w, (uint64_t)file, (uint64_t)b, "other"), -EEXIST);
    check_int(link_at(&w, (uint64_t)a, (uint64_t)b, "dir"), -EPERM);
    check_int(link_at(&w, 999, (uint64_t)b, "x"), -ENOENT);
    check_int(truncate_to(&w, (uint64_t)file, 100), 0);
    check_uint(usage_of(&w, (uint64_t)a).bytes, 100);
    check_uint(usage_of(&w, (uint64_t)b).bytes, 100);
    check_uint(usage_of(&w, 1).bytes, 200);
    check_uint(usage_of(&w, 1).files, 2);
    /* The first name goes: the path is the other one's. */
    check_int(unlink_at(&w, (uint64_t)a, "file", 0), 0);
    check_uint(w.reply.attr.nlink, 1);
    struct meta_op op = {.kind = META_PATH, .ino = (uint64_t)file};
    check_int(world_read(&w, &op), 0);
    check_str(w.reply.data, "b/other");
    check_int(truncate_to(&w, (uint64_t)file, 10), 0);
    check_uint(usage_of(&w, 1).bytes, 10);
    check_uint(usage_of(&w, (uint64_t)a).bytes, 0);
    check_int(unlink_at(&w, (uint64_t)b, "other", 0), 0);
    check_int(link_at(&w, (uint64_t)file, 1, "again"), -ENOENT);
    check_int(drop(&w, (uint64_t)file), 0);
    world_done(&w);
}

/* A tree for the renames: d1/f1 d1/sub/f2 d2/ f (file) g (file, other name h) e (empty dir) */
static void rename_tree(struct world *w)
{
    world_init(w);
    int64_t d1 = make(w, 1, "d1", S_IFDIR | 0755);
    check(make(w, (uint64_t)d1, "f1", S_IFREG | 0644) > 0);
    int64_t sub = make(w, (uint64_t)d1, "sub", S_IFDIR | 0755);
    int64_t f2 = make(w, (uint64_t)sub, "f2", S_IFREG | 0644);
    check_int(truncate_to(w, (uint64_t)f2, 1000), 0);
    check(make(w, 1, "d2", S_IFDIR | 0755) > 0);
    check(make(w, 1, "f", S_IFREG | 0644) > 0);
    int64_t g = make(w, 1, "g", S_IFREG | 0644);
    check_int(link_at(w, (uint64_t)g, 1, "h"), 0);
    check(make(w, 1, "e", S_IFDIR | 0755) > 0);
}

TEST(engine_rename, follows_posix)
{
    static const struct {
        const char *from, *to; /* a path is "dir/name" or "name" */
        uint32_t flags;
        int result;
        const char *gone, *there;
    } cases[] = {
        {"f", "x", 0, 0, "f", "x"},
        {"f", "d2/x", 0, 0, "f", "d2/x"},
        {"f", "g", 0, 0, "f", "g"},
        {"f", "g", RENAME_NOREPLACE, -EEXIST, NULL, "f"},
        {"f", "x", RENAME_NOREPLACE, 0, "f", "x"},
        {"f", "e", 0, -EISDIR, NULL, "f"},
        {"e", "f", 0, -ENOTDIR, NULL, "e"},
        {"e", "d2", 0, 0, "e", "d2"},
        {"e", "d1", 0, -ENOTEMPTY, NULL, "e"},
        {"d1", "e", 0, 0, "d1", "e/sub/f2"},
        {"d1", "d2/d", 0, 0, "d1", "d2/d/sub/f2"},
        {"d1", "d1/x", 0, -EINVAL, NULL, "d1"},
        {"d1", "d1/sub/x", 0, -EINVAL, NULL, "d1"},
        {"d1/sub", "d1", 0, -ENOTEMPTY, NULL, "d1/sub"},
        {"g", "h", 0, 0, NULL, "g"},
        {"g", "g", 0, 0, NULL, "g"},
        {"none", "x", 0, -ENOENT, NULL, "f"},
        {"f", "d1", RENAME_EXCHANGE, 0, NULL, "f/sub/f2"},
        {"d1/f1", "d2", RENAME_EXCHANGE, 0, NULL, "d1/f1"},
        {"d1", "d2", RENAME_EXCHANGE, 0, NULL, "d2/sub/f2"},
        {"d1", "d1/sub", RENAME_EXCHANGE, -EINVAL, NULL, "d1/sub"},
        {"d1/sub", "d1", RENAME_EXCHANGE, -EINVAL, NULL, "d1/sub"},
        {"f", "none", RENAME_EXCHANGE, -ENOENT, NULL, "f"},
        {"f", "g", RENAME_EXCHANGE | RENAME_NOREPLACE, -EINVAL, NULL, "f"},
        {"f", "g", RENAME_WHITEOUT, -EINVAL, NULL, "f"},
        {"d1/sub/f2", "d2/f2", 0, 0, "d1/sub/f2", "d2/f2"},
        {"h", "d2/h", 0, 0, "h", "d2/h"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct world w;
        rename_tree(&w);
        char dirs[2][64];
        const char *paths[2] = {cases[i].from, cases[i].to}, *names[2];
        int64_t parents[2];
        for (int j = 0; j < 2; j++) {
            snprintf(dirs[j], sizeof(dirs[j]), "%s", paths[j]);
            char *slash = strrchr(dirs[j], '/');
            names[j] = slash ? paths[j] + (slash - dirs[j]) + 1 : paths[j];
            *(slash ? slash : dirs[j]) = '\0';
            parents[j] = walk(&w, dirs[j]);
            check(parents[j] > 0);
        }
        int64_t from = walk(&w, cases[i].from), to = walk(&w, cases[i].to);
        int rc = rename_at(&w, (uint64_t)parents[0], names[0], (uint64_t)parents[1], names[1],
                           cases[i].flags);
        if (rc != cases[i].result)
            test_fail("%s to %s: %d", cases[i].from, cases[i].to, rc);
        if (rc == 0 && from != to) {
            check_uint(w.reply.attr.ino, (uint64_t)from);
            check_uint(w.reply.replaced.ino, to > 0 ? (uint64_t)to : 0);
            check_int(walk(&w, cases[i].to), from);
        }
        if (cases[i].gone)
            check_int(walk(&w, cases[i].gone), -ENOENT);
        check(walk(&w, cases[i].there) > 0);
        check(usage_of(&w, 1).bytes == 1000);
        world_done(&w);
    }
}

TEST(engine_rename, moves_usage)
{
    struct world w;
    rename_tree(&w);
    uint64_t d2 = (uint64_t)walk(&w, "d2"), d1 = (uint64_t)walk(&w, "d1");
    check_int(rename_at(&w, d1, "sub", d2, "sub", 0), 0);
    check_uint(usage_of(&w, d1).bytes, 0);
    check_uint(usage_of(&w, d1).directories, 0);
    check_uint(usage_of(&w, d2).bytes, 1000);
    check_uint(usage_of(&w, d2).directories, 1);
    check_uint(usage_of(&w, 1).bytes, 1000);
    check_uint(attr_of(&w, d1).nlink, 2);
    check_uint(attr_of(&w, d2).nlink, 3);
    world_done(&w);
}

TEST(engine_readdir, continues_after_a_name)
{
    struct world w;
    world_init(&w);
    char name[16];
    for (int i = 0; i < 100; i++) {
        snprintf(name, sizeof(name), "f%03d", i);
        check(make(&w, 1, name, S_IFREG | 0644) > 0);
    }
    int seen = 0;
    char after[16] = "";
    for (bool end = false; !end;) {
        struct meta_op op = {
            .kind = META_READDIR, .ino = 1, .name = name_of(after), .count = 7, .plus = true};
        check_int(world_read(&w, &op), 0);
        for (size_t i = 0; i < w.reply.entry_count; i++) {
            snprintf(name, sizeof(name), "f%03d", seen++);
            check_str(w.reply.entries[i].name, name);
            check_uint(w.reply.entries[i].attr.mode, S_IFREG | 0644);
            check_uint(w.reply.entries[i].attr.ino, w.reply.entries[i].ino);
        }
        end = w.reply.end;
        check(end || w.reply.entry_count == 7);
        snprintf(after, sizeof(after), "%s", name);
    }
    check_int(seen, 100);
    struct meta_op op = {.kind = META_READDIR, .ino = (uint64_t)lookup(&w, 1, "f000")};
    check_int(world_read(&w, &op), -ENOTDIR);
    world_done(&w);
}

TEST(engine_setattr, sets_what_is_valid)
{
    struct world w;
    world_init(&w);
    uint64_t ino = (uint64_t)make(&w, 1, "f", S_IFREG | 0644);
    struct meta_op op = {.kind = META_SETATTR,
                         .ino = ino,
                         .valid = META_SET_MODE | META_SET_UID | META_SET_ATIME | META_SET_MTIME,
                         .attr = {.mode = 06755, .uid = 5, .gid = 6, .atime_ns = 7, .mtime_ns = 8}};
    check_int(world_apply(&w, &op), 0);
    struct meta_attr a = attr_of(&w, ino);
    check_uint(a.mode, S_IFREG | 06755);
    check_uint(a.uid, 5);
    check_uint(a.gid, 100);
    check_uint(a.atime_ns, 7);
    check_uint(a.mtime_ns, 8);
    check_uint(a.ctime_ns, w.now);
    op = (struct meta_op){.kind = META_SETATTR,
                          .ino = ino,
                          .valid = META_KILL_SUID | META_SET_MTIME | META_MTIME_NOW};
    check_int(world_apply(&w, &op), 0);
    a = attr_of(&w, ino);
    check_uint(a.mode, S_IFREG | 0755);
    check_uint(a.mtime_ns, w.now);
    check_int(truncate_to(&w, 1, 5), -EISDIR);
    check_int(truncate_to(&w, ino, UINT64_MAX), -EFBIG);
    check_int(truncate_to(&w, 77, 0), -ENOENT);
    world_done(&w);
}

TEST(engine_xattr, round_trip)
{
    struct world w;
    world_init(&w);
    uint64_t ino = (uint64_t)make(&w, 1, "f", S_IFREG | 0644);
    struct meta_op set = {
        .kind = META_SETXATTR, .ino = ino, .name = name_of("user.a"), .data = "one", .data_len = 3};
    set.flags = 2; /* XATTR_REPLACE */
    check_int(world_apply(&w, &set), -ENODATA);
    set.flags = 1; /* XATTR_CREATE */
    check_int(world_apply(&w, &set), 0);
    check_int(world_apply(&w, &set), -EEXIST);
    set.flags = 0;
    set.data = "second";
    set.data_len = 6;
    check_int(world_apply(&w, &set), 0);
    set.name = name_of("user.b");
    set.data_len = 0;
    check_int(world_apply(&w, &set), 0);
    check(attr_of(&w, ino).has_xattr);
    struct meta_op get = {.kind = META_GETXATTR, .ino = ino, .name = name_of("user.a")};
    check_int(world_read(&w, &get), 0);
    check_uint(w.reply.data_len, 6);
    check_mem(w.reply.data, "second", 6);
    get.name = name_of("user.c");
    check_int(world_read(&w, &get), -ENODATA);
    get.kind = META_LISTXATTR;
    check_int(world_read(&w, &get), 0);
    check_uint(w.reply.data_len, 14);
    check_mem(w.reply.data, "user.a\0user.b", 14);
    struct meta_op remove = {.kind = META_REMOVEXATTR, .ino = ino, .name = name_of("user.a")};
    check_int(world_apply(&w, &remove), 0);
    check_int(world_apply(&w, &remove), -ENODATA);
    static char big[META_XATTR_VALUE_MAX + 1];
    set.data = big;
    set.data_len = sizeof(big);
    check_int(world_apply(&w, &set), -E2BIG);
    set.data_len--;
    check_int(world_apply(&w, &set), 0);
    check_int(unlink_at(&w, 1, "f", 0), 0);
    check_int(drop(&w, ino), 0);
    world_done(&w);
}

TEST(engine_readlink, gives_the_target)
{
    struct world w;
    world_init(&w);
    uint64_t ino = (uint64_t)make(&w, 1, "l", S_IFLNK | 0777);
    struct meta_op op = {.kind = META_READLINK, .ino = ino};
    check_int(world_read(&w, &op), 0);
    check_str(w.reply.data, "target");
    op.ino = 1;
    check_int(world_read(&w, &op), -EINVAL);
    world_done(&w);
}

TEST(engine_open, finds_all_after_reopening)
{
    struct world w;
    world_init(&w);
    uint64_t dir = (uint64_t)make(&w, 1, "dir", S_IFDIR | 0755);
    uint64_t file = (uint64_t)make(&w, dir, "file", S_IFREG | 0644);
    check_int(write_inline(&w, file, 0, "hello", 5), 0);
    uint8_t before[32], after[32];
    check_int(engine_digest(w.engine, before), 0);
    uint64_t applied = engine_sequence(w.engine);
    world_reopen(&w);
    check_uint(engine_sequence(w.engine), applied);
    check_int(engine_digest(w.engine, after), 0);
    check_mem(before, after, 32);
    check_int(walk(&w, "dir/file"), (int64_t)file);
    check(make(&w, dir, "next", S_IFREG | 0644) > (int64_t)file);
    struct meta_volume volume;
    check_int(engine_volume(w.engine, &volume), 0);
    check_mem(&volume, &w.volume, sizeof(volume));
    world_done(&w);
}

TEST(engine_open, refuses_a_second_opener)
{
    struct world w;
    world_init(&w);
    struct engine *second;
    struct error error = {0};
    struct engine_options options = {.path = w.db, .rebuild_note = true};
    check_int(engine_open(&options, &second, &error), -EBUSY);
    check(strstr(error.message, "in use") != NULL);
    world_done(&w);
}

/* The kernel asks for it with a chown that changes nothing, which anybody may call. */
TEST(engine_setattr, leaves_the_set_group_id_bit_of_a_directory)
{
    struct world w;
    world_init(&w);
    uint64_t dir = (uint64_t)make(&w, 1, "d", S_IFDIR | 06775);
    uint64_t file = (uint64_t)make(&w, 1, "f", S_IFREG | 06775);
    struct meta_op op = {.kind = META_SETATTR, .ino = dir, .valid = META_KILL_SUID};
    check_int(world_apply(&w, &op), 0);
    check_uint(attr_of(&w, dir).mode, S_IFDIR | 06775);
    op.ino = file;
    check_int(world_apply(&w, &op), 0);
    check_uint(attr_of(&w, file).mode, S_IFREG | 0775);
    world_done(&w);
}
