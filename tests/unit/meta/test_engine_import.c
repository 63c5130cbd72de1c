#include "engine_test.h"

#define NO_RANGE ""

/* A page: "name" a file of 10 bytes with ETag "1", "name:etag:size", "name/" a prefix. */
static int import_page(struct world *w, uint64_t dir, const char *after, const char *until,
                       bool last, const char *page)
{
    struct meta_entry entries[32];
    char text[1024];
    size_t count = 0;
    memset(entries, 0, sizeof(entries));
    snprintf(text, sizeof(text), "%s", page);
    for (char *save, *p = strtok_r(text, " ", &save); p; p = strtok_r(NULL, " ", &save)) {
        struct meta_entry *e = &entries[count++];
        char etag[32] = "1";
        unsigned size = 10;
        char *colon = strchr(p, ':');
        if (colon) {
            *colon++ = '\0';
            size_t len = strcspn(colon, ":");
            check(len > 0 && len < sizeof(etag));
            snprintf(etag, sizeof(etag), "%.*s", (int)len, colon);
            if (colon[len])
                size = (unsigned)strtoul(colon + len + 1, NULL, 10);
        }
        e->name = p;
        e->name_len = strlen(p);
        e->is_dir = p[e->name_len - 1] == '/';
        e->name_len -= e->is_dir;
        e->size = e->is_dir ? 0 : size;
        e->mtime_ns = w->now - SECOND;
        snprintf(e->etag, sizeof(e->etag), "%s", etag);
    }
    struct meta_op op = {.kind = META_IMPORT_DIR,
                         .ino = dir,
                         .entries = entries,
                         .entry_count = count,
                         .name = name_of(after),
                         .new_name = name_of(until),
                         .flags = last ? META_IMPORT_LAST : 0};
    return world_apply(w, &op);
}

static void import_dir(struct world *w, uint64_t dir, const char *page)
{
    check_int(import_page(w, dir, NO_RANGE, NO_RANGE, true, page), 0);
}

static int import_one(struct world *w, uint64_t dir, const char *name, const char *etag,
                      uint64_t size, bool is_dir)
{
    struct meta_entry e = {.size = size, .is_dir = is_dir, .mtime_ns = w->now};
    struct meta_op op = {.kind = META_IMPORT_ONE,
                         .parent = dir,
                         .name = name_of(name),
                         .entries = &e,
                         .entry_count = etag ? 1 : 0};
    snprintf(e.etag, sizeof(e.etag), "%s", etag ? etag : "");
    return world_apply(w, &op);
}

/* More than there may be hard links of a file: buckets have such prefixes. */
TEST(engine_import, shows_all_directories_of_one)
{
    enum { MANY = 70000 };
    struct world w;
    world_init(&w);
    struct meta_entry *entries = calloc(MANY, sizeof(*entries));
    char(*text)[12] = calloc(MANY, sizeof(*text));
    check(entries && text);
    for (int i = 0; i < MANY; i++) {
        snprintf(text[i], sizeof(text[i]), "d%06d", i);
        entries[i] = (struct meta_entry){.name = text[i], .name_len = 7, .is_dir = true};
    }
    struct meta_op op = {.kind = META_IMPORT_DIR,
                         .ino = META_ROOT_INO,
                         .entries = entries,
                         .entry_count = MANY,
                         .flags = META_IMPORT_LAST};
    check_int(world_apply(&w, &op), 0);
    check_uint(usage_of(&w, META_ROOT_INO).directories, MANY);
    check_uint(attr_of(&w, META_ROOT_INO).nlink, MANY + 2);
    int64_t last = lookup(&w, META_ROOT_INO, "d069999");
    check(last > 0);
    check(make(&w, META_ROOT_INO, "one-more", S_IFDIR | 0755) > 0);
    check(make(&w, (uint64_t)last, "in", S_IFDIR | 0755) > 0);
    check_int(rename_at(&w, (uint64_t)last, "in", META_ROOT_INO, "another", 0), 0);
    free(entries);
    free(text);
    world_done(&w);
}

/* The names of a directory, separated by spaces; directories end in '/'. */
static const char *names(struct world *w, uint64_t dir)
{
    static char text[2048];
    struct meta_op op = {.kind = META_READDIR, .ino = dir, .count = 100};
    check_int(world_read(w, &op), 0);
    text[0] = '\0';
    for (size_t i = 0; i < w->reply.entry_count; i++) {
        const struct meta_entry *e = &w->reply.entries[i];
        snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%s%s", i ? " " : "", e->name,
                 e->is_dir ? "/" : "");
    }
    return text;
}

static void settle_step(struct world *w, uint64_t ino)
{
    w->now += 6 * SECOND;
    struct meta_op op = {.kind = META_SETTLE_BEGIN, .ino = ino};
    check_int(world_apply(w, &op), 0);
    struct meta_settle step = w->reply.settle;
    check(step.action != META_SETTLE_NOTHING);
    struct meta_object object = step.target;
    object.size = step.size;
    snprintf(object.etag, sizeof(object.etag), "ours");
    op = (struct meta_op){
        .kind = META_SETTLE_DONE, .settle = &step, .objects = &object, .object_count = 1};
    check_int(world_apply(w, &op), 0);
    check(w->reply.end);
}

static void collect(struct world *w)
{
    struct meta_object garbage[16];
    uint64_t next;
    w->now += 100 * SECOND;
    int n = engine_gc_due(w->engine, w->now, garbage, 16, &next);
    for (int i = 0; i < n; i++) {
        struct meta_op op = {.kind = META_GC_DONE, .inos = &garbage[i].id, .ino_count = 1};
        check_int(world_apply(w, &op), 0);
    }
}

TEST(engine_import, all_that_went_at_once_is_told_to_caches)
{
    enum { PAGES = 100, NAMES = 25 };
    struct world w;
    world_init_raw(&w);
    check_int(world_format(&w), 0);
    char after[8] = "", until[8] = "";
    for (unsigned page = 0; page < PAGES; page++) {
        char text[NAMES * 6 + 1];
        for (unsigned i = 0; i < NAMES; i++)
            snprintf(text + i * 6, 7, "f%04u ", page * NAMES + i);
        snprintf(until, sizeof(until), "f%04u", page * NAMES + NAMES - 1);
        check_int(import_page(&w, 1, after, until, page + 1 == PAGES, text), 0);
        snprintf(after, sizeof(after), "%s", until);
    }
    uint64_t *cids, inos[PAGES * NAMES];
    for (unsigned i = 0; i < PAGES * NAMES; i++) {
        snprintf(until, sizeof(until), "f%04u", i);
        inos[i] = (uint64_t)lookup(&w, 1, until);
    }
    import_dir(&w, 1, "");
    check_uint(engine_gone(w.engine, &cids), 0); /* somebody may have them open */
    struct meta_op op = {.kind = META_DROP, .inos = inos, .ino_count = PAGES * NAMES};
    check_int(world_apply(&w, &op), 0);
    check_uint(engine_gone(w.engine, &cids), PAGES * NAMES);
    free(cids);
    check_uint(engine_gone(w.engine, &cids), 0);
    world_done(&w);
}

TEST(engine_import, a_listing_becomes_names)
{
    struct world w;
    world_init_raw(&w);
    check_int(world_format(&w), 0);
    check_int(lookup(&w, 1, "a"), -EAGAIN);
    check(w.reply.need_import);
    struct meta_op list = {.kind = META_READDIR, .ino = 1};
    check_int(world_read(&w, &list), -EAGAIN);
    check(w.reply.need_import);
    import_dir(&w, 1, "a b:e2:20 d/");
    check_str(names(&w, 1), "a b d/");
    check_int(lookup(&w, 1, "x"), -ENOENT);
    int64_t b = lookup(&w, 1, "b");
    check(b > 1);
    check_uint(w.reply.attr.size, 20);
    check_uint(w.reply.attr.mode, S_IFREG | 0644);
    struct meta_object o = object_of(&w, (uint64_t)b);
    check_str(o.key, "p/b");
    check_str(o.etag, "e2");
    check(o.foreign);
    int64_t d = lookup(&w, 1, "d");
    check_int(lookup(&w, (uint64_t)d, "x"), -EAGAIN);
    char prefix[META_KEY_MAX + 1];
    uint64_t listed;
    check_int(engine_origin(w.engine, (uint64_t)d, prefix, &listed), 0);
    check_str(prefix, "p/d/");
    check_uint(listed, 0);
    import_dir(&w, (uint64_t)d, "x sub/");
    check_int(engine_origin(w.engine, (uint64_t)d, prefix, &listed), 0);
    check_uint(listed, w.now);
    struct meta_usage u = usage_of(&w, 1);
    check_uint(u.files, 3);
    check_uint(u.bytes, 40);
    check_uint(u.directories, 2);
    check_uint(engine_unsettled_below(w.engine, 1), 0);
    world_done(&w);
}

TEST(engine_import, pages_merge_by_range)
{
    struct world w;
    world_init_raw(&w);
    check_int(world_format(&w), 0);
    check_int(import_page(&w, 1, "", "c", false, "a b c"), 0);
    check_int(lookup(&w, 1, "zz"), -EAGAIN); /* not complete */
    check_int(import_page(&w, 1, "c", "", true, "d e"), 0);
    check_str(names(&w, 1), "a b c d e");
    /* Again: c and d are gone, bb is new. Names outside a page's range stay. */
    check_int(import_page(&w, 1, "", "b", false, "b a"), 0);
    check_str(names(&w, 1), "a b c d e");
    check_int(import_page(&w, 1, "b", "", true, "bb e"), 0);
    check_str(names(&w, 1), "a b bb e");
    check_int(import_page(&w, 1, "", "", true, "a a"), -EINVAL);
    check_int(import_page(&w, 1, "", "", true, "a .."), -EINVAL);
    world_done(&w);
}

TEST(engine_import, unchanged_keys_change_nothing)
{
    struct world w;
    world_init_raw(&w);
    check_int(world_format(&w), 0);
    import_dir(&w, 1, "a b");
    struct meta_attr before = attr_of(&w, (uint64_t)lookup(&w, 1, "a"));
    import_dir(&w, 1, "a b");
    struct meta_attr after = attr_of(&w, (uint64_t)lookup(&w, 1, "a"));
    check_mem(&before, &after, sizeof(before));
    world_done(&w);
}

TEST(engine_import, follows_outside_changes)
{
    struct world w;
    world_init_raw(&w);
    check_int(world_format(&w), 0);
    import_dir(&w, 1, "a b c");
    uint64_t a = (uint64_t)lookup(&w, 1, "a"), b = (uint64_t)lookup(&w, 1, "b");
    uint64_t old = object_of(&w, a).id;
    struct meta_attr before = attr_of(&w, a);
    import_dir(&w, 1, "a:2:30 b:1:11");
    check_str(names(&w, 1), "a b");
    struct meta_attr after = attr_of(&w, a);
    check_uint(after.size, 30);
    check_uint(after.data_version, before.data_version + 1);
    check(object_of(&w, a).id != old);
    check_str(object_of(&w, a).etag, "2");
    check_uint(attr_of(&w, b).size, 11);
    check_uint(usage_of(&w, 1).bytes, 41);
    /* The old object is simply not there any more: nothing to be deleted at that key. */
    struct meta_object garbage[4];
    uint64_t next;
    check_int(engine_gc_due(w.engine, UINT64_MAX, garbage, 4, &next), 0);
    world_done(&w);
}

TEST(engine_import, removed_files_stay_readable_while_they_are_used)
{
    struct world w;
    world_init_raw(&w);
    check_int(world_format(&w), 0);
    import_dir(&w, 1, "a");
    uint64_t a = (uint64_t)lookup(&w, 1, "a");
    check_int(import_page(&w, 1, "", "", true, ""), 0);
    check_uint(w.reply.entry_count, 1);
    check_uint(w.reply.entries[0].ino, a);
    check_uint(w.reply.entries[0].attr.nlink, 0);
    check_uint(attr_of(&w, a).nlink, 0);
    check_int(drop(&w, a), 0);
    struct meta_object garbage[4];
    uint64_t next;
    check_int(engine_gc_due(w.engine, UINT64_MAX, garbage, 4, &next), 0);
    world_done(&w);
}

TEST(engine_import, what_was_made_here_wins)
{
    struct world w;
    world_init_raw(&w);
    check_int(world_format(&w), 0);
    import_dir(&w, 1, "a b");
    uint64_t a = (uint64_t)lookup(&w, 1, "a"), b = (uint64_t)lookup(&w, 1, "b");
    check_int(write_inline(&w, a, 0, "X", 1), 0);
    check_int(rename_at(&w, 1, "b", 1, "c", 0), 0);
    int64_t n = make(&w, 1, "new", S_IFREG | 0644);
    int64_t dir = make(&w, 1, "dir", S_IFDIR | 0755);
    import_dir(&w, 1, "a:2:99 b new:3:7 dir:4:4");
    check_str(names(&w, 1), "a c dir/ new"); /* b's key is c's object: no file of that name */
    check_uint(attr_of(&w, a).size, 10);
    check_uint(attr_of(&w, (uint64_t)n).size, 0);
    check(S_ISDIR(attr_of(&w, (uint64_t)dir).mode));
    check_uint(object_of(&w, b).foreign, 1);
    import_dir(&w, 1, "");
    check_str(names(&w, 1), "a c dir/ new");
    world_done(&w);
}

TEST(engine_import, our_own_keys_do_not_come_back)
{
    struct world w;
    world_init_raw(&w);
    check_int(world_format(&w), 0);
    import_dir(&w, 1, "gone moved d/");
    uint64_t gone = (uint64_t)lookup(&w, 1, "gone"), moved = (uint64_t)lookup(&w, 1, "moved");
    check_int(unlink_at(&w, 1, "gone", 0), 0);
    import_dir(&w, 1, "gone moved d/"); /* still open */
    check_int(lookup(&w, 1, "gone"), -ENOENT);
    check_int(drop(&w, gone), 0);
    import_dir(&w, 1, "gone moved d/"); /* waits for gc */
    check_int(lookup(&w, 1, "gone"), -ENOENT);
    check_int(rename_at(&w, 1, "moved", 1, "x", 0), 0);
    import_dir(&w, 1, "gone moved d/");
    check_int(lookup(&w, 1, "moved"), -ENOENT);
    settle_step(&w, moved);
    import_dir(&w, 1, "gone moved d/ x:ours"); /* copied, the old one waits for gc */
    check_str(names(&w, 1), "d/ x");
    collect(&w);
    import_dir(&w, 1, "d/ x:ours");
    check_str(names(&w, 1), "d/ x");
    import_dir(&w, 1, "d/ moved:9 x:ours"); /* somebody put a new one there */
    check_str(names(&w, 1), "d/ moved x");
    world_done(&w);
}

TEST(engine_import, a_missing_file_of_ours_stays_and_the_rest_of_the_page_counts)
{
    struct world w;
    world_init(&w);
    int64_t ino = make(&w, 1, "f", S_IFREG | 0644);
    check(write_object(&w, (uint64_t)ino, 10, 0) > 0);
    import_dir(&w, 1, "a g h");
    check_str(names(&w, 1), "a f g h");
    world_done(&w);
}

/* An answer of the bucket about one name: there is none, or (`etag`) one of 10 bytes. */
static int answer_one(struct world *w, const char *prefix, uint64_t asked_ns, const char *etag)
{
    struct meta_entry e = {.size = 10, .mtime_ns = w->now};
    struct meta_op op = {.kind = META_IMPORT_ONE,
                         .parent = 1,
                         .name = name_of("f"),
                         .data = prefix,
                         .data_len = strlen(prefix),
                         .attr.mtime_ns = asked_ns,
                         .entries = &e,
                         .entry_count = etag ? 1 : 0};
    snprintf(e.etag, sizeof(e.etag), "%s", etag ? etag : "");
    return world_apply(w, &op);
}

TEST(engine_import, an_answer_from_before_our_write_takes_nothing_away)
{
    struct world w;
    world_init_raw(&w);
    check_int(world_format(&w), 0);
    import_dir(&w, 1, "d/");
    uint64_t asked_ns = w.now;
    uint64_t f = (uint64_t)make(&w, 1, "f", S_IFREG | 0644);
    check(write_object(&w, f, 10, 0) > 0);
    struct meta_object ours = object_of(&w, f);
    check_str(ours.key, "p/f");
    check_int(answer_one(&w, "p/", asked_ns, NULL), 0);
    check_int(lookup(&w, 1, "f"), (int64_t)f);
    check_int(answer_one(&w, "p/", asked_ns, "old"), 0);
    check_uint(object_of(&w, f).id, ours.id);
    /* Later ones count. */
    w.now += SECOND;
    check_int(answer_one(&w, "p/", w.now, "theirs"), 0);
    check(object_of(&w, f).id != ours.id);
    /* Nor does one from before what we follow. */
    check_int(answer_one(&w, "p/", asked_ns, NULL), 0);
    check_int(lookup(&w, 1, "f"), (int64_t)f);
    check_int(answer_one(&w, "p/", w.now, NULL), 0);
    check_int(lookup(&w, 1, "f"), -ENOENT);
    world_done(&w);
}

TEST(engine_import, an_answer_about_another_prefix_changes_nothing)
{
    struct world w;
    world_init_raw(&w);
    check_int(world_format(&w), 0);
    import_dir(&w, 1, "f");
    uint64_t f = (uint64_t)lookup(&w, 1, "f"), before = object_of(&w, f).id;
    check_int(answer_one(&w, "p/e/", w.now, NULL), -ESTALE);
    check_int(answer_one(&w, "p/e/", w.now, "other"), -ESTALE);
    struct meta_op page = {
        .kind = META_IMPORT_DIR, .ino = 1, .data = "p", .data_len = 1, .flags = META_IMPORT_LAST};
    check_int(world_apply(&w, &page), -ESTALE);
    check_int(lookup(&w, 1, "f"), (int64_t)f);
    check_uint(object_of(&w, f).id, before);
    check_int(answer_one(&w, "p/", w.now, NULL), 0);
    check_int(lookup(&w, 1, "f"), -ENOENT);
    world_done(&w);
}

TEST(engine_import, a_renamed_directory_leaves_no_ghost)
{
    struct world w;
    world_init_raw(&w);
    check_int(world_format(&w), 0);
    import_dir(&w, 1, "d/");
    uint64_t d = (uint64_t)lookup(&w, 1, "d");
    check_int(rename_at(&w, 1, "d", 1, "e", 0), 0);
    import_dir(&w, 1, "d/"); /* claimed by e */
    check_str(names(&w, 1), "e/");
    /* A new directory of that name must not write over what e has not listed yet. */
    uint64_t again = (uint64_t)make(&w, 1, "d", S_IFDIR | 0755);
    uint64_t f = (uint64_t)make(&w, again, "f", S_IFREG | 0644);
    struct meta_op op = {.kind = META_RESERVE, .ino = f};
    check_int(world_apply(&w, &op), 0);
    check(strncmp(w.reply.objects[0].key, "p/.sluice/o/", 12) == 0);
    op = (struct meta_op){
        .kind = META_ABANDON, .object = w.reply.objects[0].id, .flags = META_NOT_WRITTEN};
    check_int(world_apply(&w, &op), 0);
    /* e's subtree: its listing is asked for first. */
    w.now += 6 * SECOND;
    struct meta_op subtree = {.kind = META_SETTLE_SUBTREE, .ino = d};
    check_int(world_apply(&w, &subtree), -EAGAIN);
    check(w.reply.need_import);
    check_uint(w.reply.attr.ino, d);
    import_dir(&w, d, "f g");
    check_int(world_apply(&w, &subtree), 0);
    check(w.reply.end);
    char prefix[META_KEY_MAX + 1];
    uint64_t listed;
    check_int(engine_origin(w.engine, d, prefix, &listed), -ENODATA);
    import_dir(&w, 1, "d/");
    check_str(names(&w, 1), "d/ e/");
    settle_step(&w, (uint64_t)walk(&w, "e/f"));
    settle_step(&w, (uint64_t)walk(&w, "e/g"));
    collect(&w);
    import_dir(&w, 1, "e/");
    check_str(names(&w, 1), "d/ e/");
    check_int(unlink_at(&w, again, "f", 0), 0);
    check_int(unlink_at(&w, 1, "d", META_RMDIR), 0);
    import_dir(&w, 1, "e/");
    check_str(names(&w, 1), "e/");
    world_done(&w);
}

TEST(engine_import, directories_follow_the_bucket_only_untouched)
{
    struct world w;
    world_init_raw(&w);
    check_int(world_format(&w), 0);
    import_dir(&w, 1, "a/ b/ c/");
    uint64_t a = (uint64_t)lookup(&w, 1, "a"), b = (uint64_t)lookup(&w, 1, "b");
    import_dir(&w, a, "x");
    import_dir(&w, b, "y");
    check_int(unlink_at(&w, b, "y", 0), 0); /* emptied here: the directory stays */
    import_dir(&w, 1, "");
    check_str(names(&w, 1), "a/ b/"); /* a is not empty yet */
    import_dir(&w, a, "");
    import_dir(&w, 1, "");
    check_str(names(&w, 1), "b/");
    check_uint(usage_of(&w, 1).directories, 1);
    world_done(&w);
}

TEST(engine_import, rmdir_and_replacing_need_the_listing)
{
    struct world w;
    world_init_raw(&w);
    check_int(world_format(&w), 0);
    import_dir(&w, 1, "d/ e/");
    check_int(unlink_at(&w, 1, "d", META_RMDIR), -EAGAIN);
    check(w.reply.need_import);
    uint64_t d = (uint64_t)lookup(&w, 1, "d");
    import_dir(&w, d, "x");
    check_int(unlink_at(&w, 1, "d", META_RMDIR), -ENOTEMPTY);
    check_int(rename_at(&w, 1, "d", 1, "e", 0), -EAGAIN);
    check(w.reply.need_import);
    import_dir(&w, (uint64_t)lookup(&w, 1, "e"), "");
    check_int(rename_at(&w, 1, "d", 1, "e", 0), 0);
    check_str(names(&w, 1), "e/");
    check_str(names(&w, d), "x");
    world_done(&w);
}

TEST(engine_import, one_name)
{
    struct world w;
    world_init_raw(&w);
    check_int(world_format(&w), 0);
    check_int(import_one(&w, 1, "f", "7", 70, false), 0);
    uint64_t f = w.reply.attr.ino;
    check(f > 1);
    check_uint(w.reply.attr.size, 70);
    check_int(lookup(&w, 1, "f"), (int64_t)f);
    check_int(import_one(&w, 1, "none", NULL, 0, false), 0);
    check_uint(w.reply.attr.ino, 0);
    check_int(lookup(&w, 1, "none"), -EAGAIN); /* the directory is not listed */
    check_int(import_one(&w, 1, "f", "8", 71, false), 0);
    check_uint(w.reply.attr.ino, f);
    check_uint(w.reply.attr.size, 71);
    check_int(import_one(&w, 1, "d", "", 0, true), 0);
    check(S_ISDIR(w.reply.attr.mode));
    check_int(import_one(&w, 1, "f", NULL, 0, false), 0);
    check_uint(w.reply.attr.ino, 0);
    check_int(lookup(&w, 1, "f"), -EAGAIN);
    check_int(import_one(&w, 1, "../f", "1", 1, false), -EINVAL);
    import_dir(&w, 1, "d/");
    check_int(lookup(&w, 1, "f"), -ENOENT);
    world_done(&w);
}

TEST(engine_import, user_metadata_gives_attributes)
{
    struct world w;
    world_init_raw(&w);
    check_int(world_format(&w), 0);
    struct meta_entry e = {.name = "f",
                           .name_len = 1,
                           .size = 1,
                           .mtime_ns = 5,
                           .has_attr = true,
                           .attr = {.mode = S_IFREG | 0750, .uid = 3, .gid = 4, .mtime_ns = 6}};
    struct meta_op op = {.kind = META_IMPORT_DIR,
                         .ino = 1,
                         .entries = &e,
                         .entry_count = 1,
                         .flags = META_IMPORT_LAST};
    check_int(world_apply(&w, &op), 0);
    lookup(&w, 1, "f");
    check_uint(w.reply.attr.mode, S_IFREG | 0750);
    check_uint(w.reply.attr.uid, 3);
    check_uint(w.reply.attr.gid, 4);
    check_uint(w.reply.attr.mtime_ns, 6);
    world_done(&w);
}

TEST(engine_outside, a_changed_object_becomes_the_file)
{
    struct world w;
    world_init_raw(&w);
    check_int(world_format(&w), 0);
    import_dir(&w, 1, "a b c");
    uint64_t a = (uint64_t)lookup(&w, 1, "a");
    struct meta_object o = object_of(&w, a);
    struct meta_entry e = {.name = "a", .name_len = 1, .size = 10, .etag = "1"};
    struct meta_op op = {.kind = META_OUTSIDE, .object = o.id, .entries = &e, .entry_count = 1};
    struct meta_attr before = attr_of(&w, a);
    check_int(world_apply(&w, &op), 0); /* the same as before */
    check_uint(w.reply.attr.data_version, before.data_version);
    e.etag[0] = '2';
    e.size = 55;
    check_int(world_apply(&w, &op), 0);
    check_uint(w.reply.attr.ino, a);
    check_uint(w.reply.attr.size, 55);
    check_int(world_apply(&w, &op), -ENOENT); /* that object is no more */
    /* Deleted. */
    uint64_t b = (uint64_t)lookup(&w, 1, "b");
    op = (struct meta_op){.kind = META_OUTSIDE, .object = object_of(&w, b).id};
    check_int(world_apply(&w, &op), 0);
    check_uint(w.reply.attr.nlink, 0);
    check_str(names(&w, 1), "a c");
    /* The file has moved on, and its bytes are lost: it stays, but the key is not its any more. */
    uint64_t c = (uint64_t)lookup(&w, 1, "c");
    check_int(rename_at(&w, 1, "c", 1, "d", 0), 0);
    op = (struct meta_op){.kind = META_OUTSIDE, .object = object_of(&w, c).id};
    check_int(import_one(&w, 1, "c", "theirs", 3, false), 0);
    check_str(names(&w, 1), "a d");
    check_int(world_apply(&w, &op), 0);
    check(!w.reply.end);
    check_int(world_apply(&w, &op), -ESTALE); /* it is known */
    check_str(names(&w, 1), "a d");
    check_int(import_one(&w, 1, "c", "theirs", 3, false), 0);
    check_str(names(&w, 1), "a c d");
    /* Named so again it does not take what stands there: that is deleted with the file it was. */
    int64_t theirs = lookup(&w, 1, "c");
    check_int(unlink_at(&w, 1, "c", 0), 0);
    check_int(drop(&w, (uint64_t)theirs), 0);
    check_int(rename_at(&w, 1, "d", 1, "c", 0), 0);
    e = (struct meta_entry){.name = "c", .name_len = 1, .size = 3, .etag = "theirs"};
    op = (struct meta_op){
        .kind = META_OUTSIDE, .object = object_of(&w, c).id, .entries = &e, .entry_count = 1};
    check_int(world_apply(&w, &op), -ESTALE);
    check_uint(attr_of(&w, c).size, 10);
    world_done(&w);
}

TEST(engine_outside, a_settled_file_of_ours_follows_too)
{
    struct world w;
    world_init(&w);
    uint64_t f = (uint64_t)make(&w, 1, "f", S_IFREG | 0644);
    check(write_object(&w, f, 10, 0) > 0);
    import_dir(&w, 1, ""); /* a listing from before the write */
    check_str(names(&w, 1), "f");
    w.now += 10 * SECOND;
    import_dir(&w, 1, "f:theirs:20");
    check_uint(attr_of(&w, f).size, 20);
    struct meta_op op = {.kind = META_OUTSIDE, .object = object_of(&w, f).id};
    check_int(world_apply(&w, &op), 0);
    check_str(names(&w, 1), "");
    world_done(&w);
}

TEST(engine_import, old_listings_are_asked_for_again)
{
    struct world w;
    world_init_raw(&w);
    check_int(world_format(&w), 0);
    import_dir(&w, 1, "a");
    struct meta_op op = {
        .kind = META_LOOKUP, .parent = 1, .name = name_of("a"), .time_ns = w.now + SECOND};
    meta_reply_done(&w.reply);
    check_int(engine_read(w.engine, &op, 2 * SECOND, &w.reply), 0);
    meta_reply_done(&w.reply);
    check_int(engine_read(w.engine, &op, SECOND, &w.reply), -EAGAIN);
    check(w.reply.need_import);
    check(w.reply.attr.ino > 0); /* what is known */
    op = (struct meta_op){.kind = META_READDIR, .ino = 1, .time_ns = w.now + SECOND};
    meta_reply_done(&w.reply);
    check_int(engine_read(w.engine, &op, SECOND, &w.reply), -EAGAIN);
    op.name = name_of("a"); /* in the middle of a listing it goes on */
    meta_reply_done(&w.reply);
    check_int(engine_read(w.engine, &op, SECOND, &w.reply), 0);
    world_done(&w);
}

TEST(engine_import, a_directory_made_here_stays_when_others_leave_it)
{
    struct world w;
    world_init_raw(&w);
    check_int(world_format(&w), 0);
    import_dir(&w, 1, "");
    uint64_t d = (uint64_t)make(&w, 1, "d", S_IFDIR | 0755);
    import_dir(&w, 1, "d/");
    import_dir(&w, d, "x");
    import_dir(&w, d, "");
    import_dir(&w, 1, "");
    check_str(names(&w, 1), "d/");
    world_done(&w);
}

/* The whole listing of a directory: its names, and its marker, which was put at `mtime_ns`. */
static void import_marked(struct world *w, uint64_t dir, const char *name, uint64_t mtime_ns)
{
    struct meta_entry e = {
        .name = name, .name_len = strlen(name), .size = 10, .mtime_ns = w->now - SECOND};
    struct meta_object marker = {.mtime_ns = mtime_ns, .etag = "empty"};
    snprintf(e.etag, sizeof(e.etag), "1");
    struct meta_op op = {.kind = META_IMPORT_DIR,
                         .ino = dir,
                         .entries = &e,
                         .entry_count = *name != 0,
                         .objects = &marker,
                         .object_count = 1,
                         .flags = META_IMPORT_LAST};
    check_int(world_apply(w, &op), 0);
}

/* What gc is to look at later on; the number of it. */
static int garbage_of(struct world *w, struct meta_object *out, int max)
{
    uint64_t next;
    return engine_gc_due(w->engine, w->now + 100 * SECOND, out, max, &next);
}

static void check_marker_is_garbage(struct world *w, const char *key, uint64_t mtime_ns)
{
    struct meta_object garbage[4];
    check_int(garbage_of(w, garbage, 4), 1);
    check_str(garbage[0].key, key);
    check_str(garbage[0].etag, "empty");
    check(garbage[0].foreign);
    check_uint(garbage[0].size, 0);
    check_uint(garbage[0].mtime_ns, mtime_ns);
}

TEST(engine_marker, goes_with_its_directory)
{
    struct world w;
    struct meta_object garbage[4];
    world_init_raw(&w);
    check_int(world_format(&w), 0);
    uint64_t first = w.now - 5 * SECOND;
    import_dir(&w, 1, "d/");
    uint64_t d = (uint64_t)lookup(&w, 1, "d");
    import_marked(&w, d, "", first);
    check_int(garbage_of(&w, garbage, 4), 0);
    check_int(unlink_at(&w, 1, "d", META_RMDIR), 0);
    world_reopen(&w);
    check_marker_is_garbage(&w, "p/d/", first);
    import_dir(&w, 1, "d/"); /* it is still there */
    check_str(names(&w, 1), "");
    check_int(import_one(&w, 1, "d", "", 0, true), 0);
    check_str(names(&w, 1), "");
    collect(&w);
    import_dir(&w, 1, "d/"); /* put again */
    check_str(names(&w, 1), "d/");
    world_done(&w);
}

TEST(engine_marker, put_again_while_the_first_waits_for_gc)
{
    struct world w;
    world_init_raw(&w);
    check_int(world_format(&w), 0);
    uint64_t first = w.now - 5 * SECOND, second = w.now;
    import_dir(&w, 1, "d/");
    import_marked(&w, (uint64_t)lookup(&w, 1, "d"), "", first);
    check_int(unlink_at(&w, 1, "d", META_RMDIR), 0);
    check(make(&w, 1, "d", S_IFDIR | 0755) > 0);
    import_dir(&w, 1, "d/"); /* it gets the origin */
    import_marked(&w, (uint64_t)lookup(&w, 1, "d"), "", second);
    check_marker_is_garbage(&w, "p/d/", first);
    check_int(unlink_at(&w, 1, "d", META_RMDIR), 0);
    check_marker_is_garbage(&w, "p/d/", second);
    collect(&w);
    world_done(&w);
}

TEST(engine_marker, others_have_removed_it)
{
    struct world w;
    struct meta_object garbage[4];
    world_init_raw(&w);
    check_int(world_format(&w), 0);
    import_dir(&w, 1, "d/ e/");
    uint64_t d = (uint64_t)lookup(&w, 1, "d");
    import_marked(&w, d, "f", w.now);
    import_dir(&w, d, "f");
    check_int(unlink_at(&w, d, "f", 0), 0);
    check_int(drop(&w, w.reply.attr.ino), 0);
    collect(&w);
    check_int(unlink_at(&w, 1, "d", META_RMDIR), 0); /* its last listing showed none */
    import_marked(&w, (uint64_t)lookup(&w, 1, "e"), "", w.now);
    import_dir(&w, 1, ""); /* the directory goes with it */
    check_str(names(&w, 1), "");
    check_int(garbage_of(&w, garbage, 4), 0);
    world_done(&w);
}

TEST(engine_marker, goes_when_its_directory_has_left)
{
    struct world w;
    struct meta_object garbage[4];
    world_init_raw(&w);
    check_int(world_format(&w), 0);
    uint64_t put_ns = w.now - 5 * SECOND;
    import_dir(&w, 1, "d/");
    uint64_t d = (uint64_t)lookup(&w, 1, "d");
    import_dir(&w, d, "sub/");
    uint64_t sub = (uint64_t)lookup(&w, d, "sub");
    check_int(rename_at(&w, 1, "d", 1, "e", 0), 0);
    check_int(garbage_of(&w, garbage, 4), 0);
    w.now += 6 * SECOND;
    struct meta_op subtree = {.kind = META_SETTLE_SUBTREE, .ino = d};
    check_int(world_apply(&w, &subtree), 0);
    check_int(garbage_of(&w, garbage, 4), 0); /* d had none */
    /* That of the directory below shows when it is listed for its turn. */
    subtree.ino = sub;
    check_int(world_apply(&w, &subtree), -EAGAIN);
    import_marked(&w, sub, "", put_ns);
    check_int(world_apply(&w, &subtree), 0);
    check_marker_is_garbage(&w, "p/d/sub/", put_ns);
    import_dir(&w, 1, "d/ e/");
    check_str(names(&w, 1), "e/");
    collect(&w);
    import_dir(&w, 1, "d/ e/");
    check_str(names(&w, 1), "d/ e/");
    world_done(&w);
}

TEST(engine_marker, stays_if_the_directory_came_back)
{
    struct world w;
    struct meta_object garbage[4];
    world_init_raw(&w);
    check_int(world_format(&w), 0);
    import_dir(&w, 1, "d/");
    uint64_t d = (uint64_t)lookup(&w, 1, "d");
    import_marked(&w, d, "", w.now);
    check_int(rename_at(&w, 1, "d", 1, "e", 0), 0);
    check_int(rename_at(&w, 1, "e", 1, "d", 0), 0);
    w.now += 6 * SECOND;
    struct meta_op subtree = {.kind = META_SETTLE_SUBTREE, .ino = d};
    check_int(world_apply(&w, &subtree), 0);
    check_int(garbage_of(&w, garbage, 4), 0);
    check_int(unlink_at(&w, 1, "d", META_RMDIR), 0);
    check_int(garbage_of(&w, garbage, 4), 1);
    world_done(&w);
}

TEST(engine_marker, of_the_volume_stays)
{
    struct world w;
    struct meta_object garbage[4];
    char prefix[META_KEY_MAX + 1];
    uint64_t listed;
    world_init_raw(&w);
    check_int(world_format(&w), 0);
    import_marked(&w, 1, "f", w.now);
    check_int(engine_origin(w.engine, 1, prefix, &listed), 0);
    check_str(prefix, "p/");
    check_int(garbage_of(&w, garbage, 4), 0);
    world_done(&w);
}
