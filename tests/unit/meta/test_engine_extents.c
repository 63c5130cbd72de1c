#include "engine_test.h"

/* The file's bytes; inline as they are, objects as 'A' + id - first. */
static void picture(struct world *w, uint64_t ino, char out[64])
{
    check_int(extents(w, ino, 0, 0), 0);
    check(w->reply.attr.size < 64);
    memset(out, '.', 64);
    out[w->reply.attr.size] = '\0';
    uint64_t end = 0;
    for (size_t i = 0; i < w->reply.extent_count; i++) {
        const struct meta_extent *e = &w->reply.extents[i];
        check(e->offset >= end);
        end = e->offset + e->length;
        for (uint64_t j = 0; j < e->length; j++)
            out[e->offset + j] = e->kind == META_EXTENT_INLINE
                                     ? ((const char *)e->data)[j]
                                     : (char)('A' + (e->object_offset + j) % 26);
    }
}

static int put_object(struct world *w, uint64_t ino, uint64_t offset, uint64_t length)
{
    struct meta_op op = {.kind = META_RESERVE, .ino = ino, .flags = META_INTERNAL_KEY};
    check_int(world_apply(w, &op), 0);
    struct meta_object object = w->reply.objects[0];
    object.size = length;
    snprintf(object.etag, sizeof(object.etag), "e");
    struct meta_extent e = {
        .kind = META_EXTENT_OBJECT, .offset = offset, .length = length, .object = object.id};
    op = (struct meta_op){.kind = META_COMMIT,
                          .ino = ino,
                          .objects = &object,
                          .object_count = 1,
                          .extents = &e,
                          .extent_count = 1};
    return world_apply(w, &op);
}

TEST(engine_commit, overlaps_replace_what_was_there)
{
    static const struct {
        const char *writes; /* "offset:text" inline, "offset=length" an object */
        const char *expected;
    } cases[] = {
        {"0:hello", "hello"},
        {"3:lo", "...lo"},
        {"0:hello 1:ipp", "hippo"},
        {"0:abc 3:def", "abcdef"},
        {"0:aaaaaaaaaa 2:bb 6:cc", "aabbaaccaa"},
        {"0=10", "ABCDEFGHIJ"},
        {"0=10 3:xyz", "ABCxyzGHIJ"},
        {"0=10 0:xyz", "xyzDEFGHIJ"},
        {"0=10 8:xyz", "ABCDEFGHxyz"},
        {"0=4 2=4 4=4", "ABABABCD"},
        {"0=3 6=3 2:zzzzz", "ABzzzzzBC"},
        {"5:x 0:y", "y....x"},
        {"0:abcdef 0=6", "ABCDEF"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct world w;
        char seen[64];
        world_init(&w);
        uint64_t ino = (uint64_t)make(&w, 1, "f", S_IFREG | 0644);
        for (const char *p = cases[i].writes; *p;) {
            char *end;
            uint64_t offset = strtoull(p, &end, 10);
            const char *text = end + 1;
            size_t len = strcspn(text, " ");
            if (*end == ':')
                check_int(write_inline(&w, ino, offset, text, len), 0);
            else
                check_int(put_object(&w, ino, offset, strtoull(text, NULL, 10)), 0);
            p = text + len + (text[len] == ' ');
        }
        picture(&w, ino, seen);
        check_str(seen, cases[i].expected);
        check_uint(usage_of(&w, 1).bytes, strlen(cases[i].expected));
        world_done(&w);
    }
}

TEST(engine_commit, small_appends_become_one_extent)
{
    struct world w;
    world_init(&w);
    uint64_t ino = (uint64_t)make(&w, 1, "f", S_IFREG | 0644);
    for (uint64_t i = 0; i < 50; i++)
        check_int(write_inline(&w, ino, i * 10, "0123456789", 10), 0);
    check_int(extents(&w, ino, 0, 0), 0);
    check_uint(w.reply.extent_count, 1);
    check_uint(w.reply.extents[0].length, 500);
    world_done(&w);
}

TEST(engine_commit, many_extents_are_edited_in_place)
{
    struct world w;
    world_init(&w);
    uint64_t ino = (uint64_t)make(&w, 1, "f", S_IFREG | 0644);
    for (uint64_t i = 0; i < 200; i++)
        check_int(put_object(&w, ino, i * 100, 50), 0);
    check_int(extents(&w, ino, 0, 0), 0);
    check_uint(w.reply.extent_count, 200);
    /* Three ranges of one commit in any order: inside one extent, over two, in a gap. */
    struct meta_extent e[3] = {
        {.kind = META_EXTENT_INLINE, .offset = 10020, .length = 3, .data = "abc"},
        {.kind = META_EXTENT_INLINE, .offset = 570, .length = 2, .data = "de"},
        {.kind = META_EXTENT_INLINE, .offset = 7040, .length = 70, .data = w.dir},
    };
    struct meta_op op = {.kind = META_COMMIT, .ino = ino, .extents = e, .extent_count = 3};
    check_int(world_apply(&w, &op), 0);
    check_int(extents(&w, ino, 10000, 50), 0);
    check_uint(w.reply.extent_count, 3);
    check_uint(w.reply.extents[0].length, 20);
    check_uint(w.reply.extents[2].object_offset, 23);
    check_int(extents(&w, ino, 7000, 200), 0);
    check_uint(w.reply.extent_count, 3);
    check_uint(w.reply.extents[2].offset, 7110);
    check_int(truncate_to(&w, ino, 5025), 0);
    check_int(extents(&w, ino, 0, 0), 0);
    check_uint(w.reply.extent_count, 52);
    check_int(truncate_to(&w, ino, 0), 0);
    check_int(extents(&w, ino, 0, 0), 0);
    check_uint(w.reply.extent_count, 0);
    world_done(&w);
}

TEST(engine_commit, refuses)
{
    struct world w;
    world_init(&w);
    uint64_t ino = (uint64_t)make(&w, 1, "f", S_IFREG | 0644);
    int64_t id = write_object(&w, ino, 10, 0);
    check(id > 0);
    struct meta_object object = {.id = (uint64_t)id, .size = 10};
    struct meta_op op = {.kind = META_COMMIT, .ino = ino, .objects = &object, .object_count = 1};
    check_int(world_apply(&w, &op), -ESTALE); /* not reserved */
    object.id = 999;
    check_int(world_apply(&w, &op), -ESTALE);
    static const struct {
        struct meta_extent e;
        int result;
    } cases[] = {
        {{.kind = META_EXTENT_OBJECT, .length = 11}, -EINVAL}, /* past the object's end */
        {{.kind = META_EXTENT_OBJECT, .length = 5, .object_offset = 6}, -EINVAL},
        {{.kind = META_EXTENT_OBJECT, .length = 0}, -EINVAL},
        {{.kind = META_EXTENT_INLINE, .length = 5}, -EINVAL}, /* no bytes */
        {{.kind = META_EXTENT_HOLE, .offset = INT64_MAX, .length = 5}, -EFBIG},
        {{.kind = 9, .length = 5}, -EINVAL},
        {{.kind = META_EXTENT_OBJECT, .length = 10, .offset = 20}, 0},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct meta_extent e = cases[i].e;
        e.object = (uint64_t)id;
        op = (struct meta_op){.kind = META_COMMIT, .ino = ino, .extents = &e, .extent_count = 1};
        check_int(world_apply(&w, &op), cases[i].result);
    }
    struct meta_extent two[2] = {
        {.kind = META_EXTENT_INLINE, .offset = 4, .length = 4, .data = "aaaa"},
        {.kind = META_EXTENT_INLINE, .offset = 0, .length = 5, .data = "bbbbb"}};
    op = (struct meta_op){.kind = META_COMMIT, .ino = ino, .extents = two, .extent_count = 2};
    check_int(world_apply(&w, &op), -EINVAL); /* they overlap */
    op.ino = 1;
    check_int(world_apply(&w, &op), -EISDIR);
    check_uint(attr_of(&w, ino).size, 30);
    world_done(&w);
}

TEST(engine_commit, counts_references_and_collects)
{
    struct world w;
    struct meta_object garbage[4];
    uint64_t next;
    world_init(&w);
    uint64_t ino = (uint64_t)make(&w, 1, "f", S_IFREG | 0644);
    int64_t first = write_object(&w, ino, 100, 0);
    check_str(object_of(&w, ino).key, "p/f");
    check_int(write_inline(&w, ino, 40, "x", 1), 0); /* splits it */
    check_int(extents(&w, ino, 0, 0), 0);
    check_uint(w.reply.objects[0].refs, 2);
    check_uint(w.reply.extent_count, 3);
    int64_t second = write_object(&w, ino, 50, 0);
    struct meta_object o = object_of(&w, ino);
    check_uint(o.id, (uint64_t)second);
    check(strncmp(o.key, "p/.sluice/o/", 12) == 0); /* the natural key still has the old one */
    check_int(engine_gc_due(w.engine, w.now, garbage, 4, &next), 0);
    check(next > w.now);
    check_int(engine_gc_due(w.engine, w.now + 60 * SECOND, garbage, 4, &next), 1);
    check_uint(garbage[0].id, (uint64_t)first);
    check_str(garbage[0].key, "p/f");
    check_uint(garbage[0].state, META_OBJECT_GARBAGE);
    struct meta_op op = {.kind = META_GC_RETRY,
                         .object = (uint64_t)first,
                         .attr = {.mtime_ns = w.now + 500 * SECOND}};
    check_int(world_apply(&w, &op), 0);
    check_int(engine_gc_due(w.engine, w.now + 60 * SECOND, garbage, 4, &next), 0);
    uint64_t ids[2] = {(uint64_t)first, (uint64_t)second};
    op = (struct meta_op){.kind = META_GC_DONE, .inos = ids, .ino_count = 2};
    check_int(world_apply(&w, &op), 0);
    check_uint(object_of(&w, ino).id, (uint64_t)second); /* in use: left alone */
    op = (struct meta_op){.kind = META_OBJECT, .object = (uint64_t)first};
    check_int(world_read(&w, &op), -ENOENT);
    world_done(&w);
}

TEST(engine_abandon, gives_the_object_to_gc_or_forgets_it)
{
    struct world w;
    struct meta_object reserved[4];
    world_init(&w);
    uint64_t ino = (uint64_t)make(&w, 1, "f", S_IFREG | 0644);
    struct meta_op reserve = {.kind = META_RESERVE, .ino = ino};
    check_int(world_apply(&w, &reserve), 0);
    struct meta_object one = w.reply.objects[0];
    check_str(one.key, "p/f");
    check_uint(one.state, META_OBJECT_RESERVED);
    check_int(engine_reserved(w.engine, 0, reserved, 4), 1);
    check_uint(reserved[0].id, one.id);
    struct meta_op abandon = {.kind = META_ABANDON, .object = one.id, .flags = META_NOT_WRITTEN};
    check_int(world_apply(&w, &abandon), 0);
    check_int(world_apply(&w, &abandon), -ENOENT);
    check_int(world_apply(&w, &reserve), 0);
    one = w.reply.objects[0];
    check_str(one.key, "p/f"); /* free again */
    abandon = (struct meta_op){.kind = META_ABANDON, .object = one.id};
    check_int(world_apply(&w, &abandon), 0);
    check_int(world_apply(&w, &abandon), -EINVAL);
    check_int(engine_reserved(w.engine, 0, reserved, 4), 0);
    check_int(world_apply(&w, &reserve), 0);
    check(strncmp(w.reply.objects[0].key, "p/.sluice/o/", 12) == 0); /* waits for gc */
    abandon.object = w.reply.objects[0].id;
    check_int(world_apply(&w, &abandon), 0);
    world_done(&w);
}

static void gc_done(struct world *w, uint64_t object)
{
    struct meta_op op = {.kind = META_GC_DONE, .inos = &object, .ino_count = 1};
    check_int(world_apply(w, &op), 0);
}

/* An object with these tags is at the key: it is one of ours, come late. */
static bool is_late(struct world *w, uint64_t object)
{
    struct meta_op op = {.kind = META_LATE, .object = object, .data = "p/f", .data_len = 3};
    check_int(world_apply(w, &op), 0);
    bool late = w->reply.end;
    if (late)
        gc_done(w, object);
    return late;
}

TEST(engine_late, is_remembered_for_a_while)
{
    struct world w;
    world_init(&w);
    uint64_t ino = (uint64_t)make(&w, 1, "f", S_IFREG | 0644);
    struct meta_op op = {.kind = META_RESERVE, .ino = ino};
    check_int(world_apply(&w, &op), 0);
    uint64_t given_up = w.reply.objects[0].id;
    op = (struct meta_op){.kind = META_ABANDON, .object = given_up};
    check_int(world_apply(&w, &op), 0);
    check(!is_late(&w, given_up)); /* it has a record */
    gc_done(&w, given_up);
    w.now += 1800 * SECOND;
    check(is_late(&w, given_up));
    w.now += 1799 * SECOND;
    check(is_late(&w, given_up));
    w.now += 2 * SECOND; /* from the first time on */
    check(!is_late(&w, given_up));
    /* What was in use, others may have copied and may put back. */
    int64_t used = write_object(&w, ino, 10, 0);
    check(used > 0);
    check_int(unlink_at(&w, 1, "f", 0), 0);
    check_int(drop(&w, ino), 0);
    gc_done(&w, (uint64_t)used);
    w.now += 119 * SECOND;
    check(is_late(&w, (uint64_t)used));
    w.now += 2 * SECOND;
    check(!is_late(&w, (uint64_t)used));
    world_done(&w);
}

TEST(engine_reserve, gives_natural_keys_where_they_can_be)
{
    static const struct {
        const char *dirs[3], *name;
        bool beside;
        const char *key; /* NULL: an internal one */
    } cases[] = {
        {{NULL}, "f", false, "p/f"},
        {{"a", "b"}, "f", false, "p/a/b/f"},
        {{"_temporary"}, "f", false, NULL},
        {{"a", "_temporary-1", "b"}, "f", false, NULL},
        {{"a"}, ".hive-staging_x", false, NULL},
        {{"a"}, "x_temporary", false, "p/a/x_temporary"},
        {{"a"}, "bad\xff", false, NULL},
        {{"a"}, "bell\a", false, NULL},
        {{"a"},
         "h\xc3\xa4user \xe2\x82\xac \xf0\x9f\x98\x80",
         false,
         "p/a/h\xc3\xa4user \xe2\x82\xac \xf0\x9f\x98\x80"},
        {{"a"}, "surrogate\xed\xa0\x80", false, NULL},
        {{"a"}, "overlong\xc0\xaf", false, NULL},
        {{"a"}, "cut\xe2\x82", false, NULL},
        {{".sluice"}, "f", false, NULL},
        {{"a", ".sluice"}, "f", false, "p/a/.sluice/f"},
        {{"taken"}, "f", false, NULL}, /* a key stands at p/taken */
        {{"taken"}, "f", true, "p/taken/f"},
        {{NULL}, "above", false, NULL}, /* a key stands at p/above/x */
        {{NULL}, "above", true, "p/above"},
        {{NULL}, "held", false, NULL},
        {{NULL}, "held", true, NULL},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct world w;
        world_init_raw(&w);
        w.volume.file_beside_directory = cases[i].beside;
        check_int(world_format(&w), 0);
        /* Files that moved away from p/taken, p/above/x and p/held with their objects. */
        static const char *const old[][2] = {{"taken", "t"}, {"held", "h"}};
        for (int j = 0; j < 2; j++) {
            uint64_t ino = (uint64_t)make(&w, 1, old[j][0], S_IFREG | 0644);
            check(write_object(&w, ino, 1, 0) > 0);
            check_int(rename_at(&w, 1, old[j][0], 1, old[j][1], 0), 0);
        }
        uint64_t above = (uint64_t)make(&w, 1, "above", S_IFDIR | 0755);
        uint64_t x = (uint64_t)make(&w, above, "x", S_IFREG | 0644);
        check(write_object(&w, x, 1, 0) > 0);
        check_int(rename_at(&w, above, "x", 1, "x", 0), 0);
        check_int(unlink_at(&w, 1, "above", META_RMDIR), 0);
        uint64_t dir = 1;
        for (int j = 0; j < 3 && cases[i].dirs[j]; j++)
            dir = (uint64_t)make(&w, dir, cases[i].dirs[j], S_IFDIR | 0755);
        uint64_t ino = (uint64_t)make(&w, dir, cases[i].name, S_IFREG | 0644);
        struct meta_op op = {.kind = META_RESERVE, .ino = ino};
        check_int(world_apply(&w, &op), 0);
        if (cases[i].key)
            check_str(w.reply.objects[0].key, cases[i].key);
        else
            check(strncmp(w.reply.objects[0].key, "p/.sluice/o/", 12) == 0);
        world_done(&w);
    }
}

TEST(engine_reserve, long_paths_get_internal_keys)
{
    struct world w;
    world_init(&w);
    char name[201];
    memset(name, 'n', 200);
    name[200] = '\0';
    uint64_t dir = 1;
    for (int depth = 1; depth <= 6; depth++) {
        uint64_t ino = (uint64_t)make(&w, dir, "f", S_IFREG | 0644);
        struct meta_op op = {.kind = META_RESERVE, .ino = ino};
        check_int(world_apply(&w, &op), 0);
        size_t natural = 2 + (size_t)(depth - 1) * 201 + 1;
        if (natural <= META_KEY_MAX)
            check_uint(strlen(w.reply.objects[0].key), natural);
        else
            check(strncmp(w.reply.objects[0].key, "p/.sluice/o/", 12) == 0);
        dir = (uint64_t)make(&w, dir, name, S_IFDIR | 0755);
    }
    world_done(&w);
}

TEST(engine_clone, shares_objects)
{
    struct world w;
    char seen[64];
    world_init(&w);
    uint64_t a = (uint64_t)make(&w, 1, "a", S_IFREG | 0644);
    uint64_t b = (uint64_t)make(&w, 1, "b", S_IFREG | 0644);
    int64_t object = write_object(&w, a, 20, 0);
    check_int(write_inline(&w, a, 5, "in", 2), 0);
    check_int(write_inline(&w, b, 0, "bbbbbbbbbb", 10), 0);
    struct meta_op op = {
        .kind = META_CLONE, .ino = a, .offset = 3, .length = 8, .new_ino = b, .new_offset = 1};
    check_int(world_apply(&w, &op), 0);
    picture(&w, b, seen);
    check_str(seen, "bDEinHIJKb");
    op = (struct meta_op){.kind = META_OBJECT, .object = (uint64_t)object};
    check_int(world_read(&w, &op), 0);
    check_uint(w.reply.objects[0].refs, 4);
    check_int(unlink_at(&w, 1, "a", 0), 0);
    check_int(drop(&w, a), 0);
    check_int(world_read(&w, &op), 0);
    check_uint(w.reply.objects[0].refs, 2);
    check_uint(w.reply.objects[0].state, META_OBJECT_LIVE);
    op = (struct meta_op){
        .kind = META_CLONE, .ino = b, .offset = 0, .length = 5, .new_ino = b, .new_offset = 3};
    check_int(world_apply(&w, &op), -EINVAL);
    op.new_offset = 20;
    check_int(world_apply(&w, &op), 0);
    picture(&w, b, seen);
    check_str(seen, "bDEinHIJKb..........bDEin");
    op.offset = 100;
    check_int(world_apply(&w, &op), 0); /* nothing there */
    check_uint(attr_of(&w, b).size, 25);
    world_done(&w);
}

TEST(engine_punch, makes_a_hole)
{
    struct world w;
    char seen[64];
    world_init(&w);
    uint64_t ino = (uint64_t)make(&w, 1, "f", S_IFREG | 0644);
    check(write_object(&w, ino, 10, 0) > 0);
    struct meta_op op = {.kind = META_PUNCH, .ino = ino, .offset = 3, .length = 4};
    check_int(world_apply(&w, &op), 0);
    picture(&w, ino, seen);
    check_str(seen, "ABC....HIJ");
    op.offset = 0;
    op.length = 100;
    check_int(world_apply(&w, &op), 0);
    picture(&w, ino, seen);
    check_str(seen, "..........");
    op.valid = META_SET_SIZE;
    op.attr.size = 4;
    check_int(world_apply(&w, &op), 0);
    check_uint(attr_of(&w, ino).size, 4);
    world_done(&w);
}

TEST(engine_truncate, cuts_and_extends)
{
    struct world w;
    char seen[64];
    world_init(&w);
    uint64_t ino = (uint64_t)make(&w, 1, "f", S_IFREG | 0644);
    check(write_object(&w, ino, 10, 0) > 0);
    uint64_t version = attr_of(&w, ino).data_version;
    check_int(truncate_to(&w, ino, 4), 0);
    check_int(truncate_to(&w, ino, 8), 0);
    picture(&w, ino, seen);
    check_str(seen, "ABCD....");
    check_uint(attr_of(&w, ino).data_version, version + 2);
    check_uint(usage_of(&w, 1).bytes, 8);
    check_int(truncate_to(&w, ino, 0), 0);
    check_int(extents(&w, ino, 0, 0), 0);
    check_uint(w.reply.extent_count, 0);
    world_done(&w);
}
