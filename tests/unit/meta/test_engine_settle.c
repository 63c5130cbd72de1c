#include "engine_test.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h> /* RENAME_ */
#include <unistd.h>

static struct meta_settle begin(struct world *w, uint64_t ino)
{
    struct meta_op op = {.kind = META_SETTLE_BEGIN, .ino = ino};
    check_int(world_apply(w, &op), 0);
    check_uint(w->reply.settle.ino, ino);
    return w->reply.settle;
}

static bool done(struct world *w, const struct meta_settle *step)
{
    struct meta_object object = step->target;
    object.size = step->size;
    snprintf(object.etag, sizeof(object.etag), "etag-%ju", (uintmax_t)object.id);
    struct meta_op op = {
        .kind = META_SETTLE_DONE, .settle = step, .objects = &object, .object_count = 1};
    check_int(world_apply(w, &op), 0);
    return w->reply.end;
}

static void pass(struct world *w, unsigned seconds)
{
    w->now += seconds * SECOND;
}

static uint64_t file_with(struct world *w, uint64_t dir, const char *name, const char *text)
{
    int64_t ino = make(w, dir, name, S_IFREG | 0644);
    check(ino > 0);
    if (*text)
        check_int(write_inline(w, (uint64_t)ino, 0, text, strlen(text)), 0);
    return (uint64_t)ino;
}

/* Works on the queue until all is settled; the number of steps. gc never runs. */
static int settle_all(struct world *w)
{
    int steps = 0;
    for (int i = 0; i < 300; i++) {
        struct engine_work work[64];
        uint64_t next;
        int n = engine_settle_due(w->engine, w->now, work, 64, &next);
        check(n >= 0);
        if (n == 0 && next == 0)
            return steps;
        for (int j = 0; j < n; j++) {
            struct meta_op op = {.kind = META_SETTLE_SUBTREE, .ino = work[j].id, .count = 3};
            if (work[j].subtree) {
                check_int(world_apply(w, &op), 0);
                continue;
            }
            struct meta_settle step = begin(w, work[j].id);
            if (step.action != META_SETTLE_NOTHING) {
                check(done(w, &step));
                steps++;
            }
        }
        w->now += SECOND / 4;
    }
    test_fail("does not settle");
    return -1;
}

static void check_key(struct world *w, const char *path, const char *key)
{
    int64_t ino = walk(w, path);
    check(ino > 0);
    struct meta_object object = object_of(w, (uint64_t)ino);
    check_str(object.key, key);
}

static struct meta_drift drift(struct world *w)
{
    struct meta_op op = {.kind = META_DRIFT, .ino = META_ROOT_INO};
    check_int(world_read(w, &op), 0);
    return w->reply.drift;
}

TEST(engine_settle, waits_until_a_file_is_quiet)
{
    struct world w;
    world_init(&w);
    uint64_t ino = file_with(&w, 1, "f", "hello");
    check_uint(begin(&w, ino).action, META_SETTLE_NOTHING);
    struct engine_work work[2];
    uint64_t next;
    check_int(engine_settle_due(w.engine, w.now, work, 2, &next), 0);
    check(next > w.now && next <= w.now + 5 * SECOND);
    pass(&w, 4);
    check_int(write_inline(&w, ino, 0, "HELLO", 5), 0);
    pass(&w, 4);
    check_uint(begin(&w, ino).action, META_SETTLE_NOTHING); /* changed 4 s ago */
    check_uint(engine_unsettled_below(w.engine, 1), ino);
    pass(&w, 2);
    struct meta_settle step = begin(&w, ino);
    check_uint(step.action, META_SETTLE_UPLOAD);
    check_str(step.target.key, "p/f");
    check(step.target_is_natural && !step.replaces);
    check_uint(step.size, 5);
    check_uint(step.attr.ino, ino);
    check(done(&w, &step));
    check_key(&w, "f", "p/f");
    check_uint(engine_unsettled_below(w.engine, 1), 0);
    check_uint(drift(&w).files, 0);
    world_done(&w);
}

TEST(engine_settle, counts_drift)
{
    struct world w;
    world_init(&w);
    uint64_t dir = (uint64_t)make(&w, 1, "d", S_IFDIR | 0755);
    file_with(&w, 1, "a", "12345");
    uint64_t since = w.now;
    file_with(&w, dir, "b", "123");
    struct meta_drift d = drift(&w);
    check_uint(d.files, 2);
    check_uint(d.bytes, 8);
    check(d.oldest_ns <= since);
    struct meta_op op = {.kind = META_DRIFT, .ino = dir};
    check_int(world_read(&w, &op), 0);
    check_uint(w.reply.drift.files, 1);
    check_uint(w.reply.drift.bytes, 3);
    check_int(unlink_at(&w, dir, "b", 0), 0);
    check_uint(drift(&w).files, 1);
    check_uint(engine_unsettled_below(w.engine, dir), 0);
    settle_all(&w);
    check_uint(drift(&w).files + drift(&w).bytes, 0);
    world_done(&w);
}

TEST(engine_settle, written_in_place_needs_no_step)
{
    struct world w;
    world_init(&w);
    uint64_t ino = (uint64_t)make(&w, 1, "f", S_IFREG | 0644);
    check(write_object(&w, ino, 1000, 0) > 0);
    check_uint(engine_unsettled_below(w.engine, 1), 0);
    check_int(settle_all(&w), 0);
    world_done(&w);
}

TEST(engine_settle, empty_files_are_empty_objects)
{
    struct world w;
    world_init(&w);
    uint64_t ino = file_with(&w, 1, "_SUCCESS", "");
    pass(&w, 6);
    struct meta_settle step = begin(&w, ino);
    check_uint(step.action, META_SETTLE_UPLOAD);
    check_uint(step.size, 0);
    check(done(&w, &step));
    check_key(&w, "_SUCCESS", "p/_SUCCESS");
    check_int(extents(&w, ino, 0, 0), 0);
    check_uint(w.reply.extent_count, 0);
    check_int(write_inline(&w, ino, 0, "x", 1), 0);
    settle_all(&w);
    check_key(&w, "_SUCCESS", "p/_SUCCESS");
    world_done(&w);
}

TEST(engine_settle, deleted_before_its_time_costs_nothing)
{
    struct world w;
    world_init(&w);
    uint64_t ino = file_with(&w, 1, "f", "hello");
    check_int(unlink_at(&w, 1, "f", 0), 0);
    pass(&w, 6);
    check_uint(begin(&w, ino).action, META_SETTLE_NOTHING);
    check_int(settle_all(&w), 0);
    check_int(drop(&w, ino), 0);
    check_uint(drift(&w).garbage_objects, 0);
    world_done(&w);
}

TEST(engine_settle, staged_files_settle_where_they_are_renamed_to)
{
    struct world w;
    world_init(&w);
    uint64_t t = (uint64_t)make(&w, 1, "_temporary", S_IFDIR | 0755);
    uint64_t small = file_with(&w, t, "small", "hello");
    uint64_t big = (uint64_t)make(&w, t, "big", S_IFREG | 0644);
    check(write_object(&w, big, 100000, 0) > 0);
    check_int(settle_all(&w), 0); /* neither leaves the staging */
    check_int(rename_at(&w, t, "small", 1, "small", 0), 0);
    check_int(rename_at(&w, t, "big", 1, "big", 0), 0);
    pass(&w, 6);
    struct meta_settle one = begin(&w, small), two = begin(&w, big);
    check_uint(one.action, META_SETTLE_UPLOAD);
    check_uint(two.action, META_SETTLE_COPY);
    uint64_t cid = object_of(&w, big).cid;
    check(done(&w, &two));
    check_uint(object_of(&w, big).cid, cid); /* survives the copy */
    check(object_of(&w, big).id != cid);
    check(done(&w, &one));
    check_key(&w, "small", "p/small");
    check_key(&w, "big", "p/big");
    check_uint(drift(&w).garbage_objects, 1);
    world_done(&w);
}

TEST(engine_settle, a_step_is_repeated_after_a_crash)
{
    struct world w;
    world_init(&w);
    uint64_t ino = file_with(&w, 1, "f", "hello");
    pass(&w, 6);
    struct meta_settle first = begin(&w, ino);
    world_reopen(&w);
    struct meta_settle second = begin(&w, ino);
    check(!first.resumed && second.resumed);
    second.resumed = false;
    check_mem(&first, &second, sizeof(first));
    /* Written to: the step is not the right one any more, its object is garbage. */
    check_int(write_inline(&w, ino, 0, "other", 5), 0);
    pass(&w, 6);
    check(!done(&w, &first));
    check_uint(drift(&w).garbage_objects, 1);
    struct meta_op op = {.kind = META_GC_DONE, .inos = &first.target.id, .ino_count = 1};
    check_int(world_apply(&w, &op), 0);
    settle_all(&w);
    check_key(&w, "f", "p/f");
    world_done(&w);
}

TEST(engine_settle, swaps_only_what_did_not_change)
{
    struct world w;
    world_init(&w);
    uint64_t ino = file_with(&w, 1, "f", "hello");
    pass(&w, 6);
    struct meta_settle step = begin(&w, ino);
    check_int(truncate_to(&w, ino, 3), 0);
    check(!done(&w, &step));
    check_int(extents(&w, ino, 0, 0), 0);
    check_uint(w.reply.extents[0].kind, META_EXTENT_INLINE);
    check(!done(&w, &step)); /* again: nothing happens */
    check_uint(drift(&w).garbage_objects, 1);
    world_done(&w);
}

TEST(engine_settle, overwritten_file_replaces_its_old_object)
{
    struct world w;
    world_init(&w);
    uint64_t ino = (uint64_t)make(&w, 1, "f", S_IFREG | 0644);
    int64_t old = write_object(&w, ino, 10, 0);
    check(write_object(&w, ino, 20, 0) > old);
    pass(&w, 6);
    struct meta_settle step = begin(&w, ino);
    check_uint(step.action, META_SETTLE_COPY);
    check_str(step.target.key, "p/f");
    check(step.replaces && step.target_is_natural);
    char etag[32];
    snprintf(etag, sizeof(etag), "etag-%jd", (intmax_t)old);
    check_str(step.old_etag, etag);
    /* gc must keep away from the key now. */
    struct meta_object garbage[4];
    uint64_t next;
    check_int(engine_gc_due(w.engine, w.now + 1000 * SECOND, garbage, 4, &next), 0);
    check(done(&w, &step));
    struct meta_op op = {.kind = META_OBJECT, .object = (uint64_t)old};
    check_int(world_read(&w, &op), -ENOENT);
    check_key(&w, "f", "p/f");
    check_int(engine_gc_due(w.engine, w.now + 1000 * SECOND, garbage, 4, &next), 1);
    check(strncmp(garbage[0].key, "p/.sluice/o/", 12) == 0);
    world_done(&w);
}

TEST(engine_settle, an_abandoned_replacement_gives_the_old_object_back_to_gc)
{
    struct world w;
    struct meta_object garbage[4];
    uint64_t next;
    world_init(&w);
    uint64_t ino = (uint64_t)make(&w, 1, "f", S_IFREG | 0644);
    int64_t old = write_object(&w, ino, 10, 0);
    check(write_object(&w, ino, 20, 0) > old);
    pass(&w, 6);
    struct meta_settle step = begin(&w, ino);
    check(step.replaces);
    check_int(truncate_to(&w, ino, 5), 0);
    pass(&w, 6);
    check_uint(begin(&w, ino).action, META_SETTLE_NOTHING); /* what is at the key is not known */
    pass(&w, 100);
    /* First the one that may have been written, then what it was to replace. */
    check_int(engine_gc_due(w.engine, w.now, garbage, 4, &next), 1);
    check_uint(garbage[0].id, step.target.id);
    struct meta_op op = {.kind = META_GC_DONE, .inos = &step.target.id, .ino_count = 1};
    check_int(world_apply(&w, &op), 0);
    check_int(engine_gc_due(w.engine, w.now + SECOND, garbage, 4, &next), 1);
    check_uint(garbage[0].id, (uint64_t)old);
    settle_all(&w);
    check_key(&w, "f", "p/f");
    world_done(&w);
}

TEST(engine_settle, changed_inside_goes_by_an_internal_key)
{
    struct world w;
    world_init(&w);
    uint64_t ino = (uint64_t)make(&w, 1, "f", S_IFREG | 0644);
    check(write_object(&w, ino, 100, 0) > 0);
    check_int(write_inline(&w, ino, 50, "x", 1), 0);
    pass(&w, 6);
    struct meta_settle step = begin(&w, ino);
    check_uint(step.action, META_SETTLE_JOIN);
    check(!step.target_is_natural);
    check(done(&w, &step));
    pass(&w, 1);
    step = begin(&w, ino);
    check_uint(step.action, META_SETTLE_COPY);
    check(step.replaces);
    check(done(&w, &step));
    check_key(&w, "f", "p/f");
    check_uint(engine_unsettled_below(w.engine, 1), 0);
    world_done(&w);
}

static uint64_t settled_file(struct world *w, uint64_t dir, const char *name)
{
    uint64_t ino = (uint64_t)make(w, dir, name, S_IFREG | 0644);
    check(write_object(w, ino, 10, 0) > 0);
    return ino;
}

TEST(engine_settle, two_files_change_places)
{
    struct world w;
    world_init(&w);
    settled_file(&w, 1, "a");
    settled_file(&w, 1, "b");
    check_int(rename_at(&w, 1, "a", 1, "b", RENAME_EXCHANGE), 0);
    check_int(settle_all(&w), 3); /* one of them goes aside */
    check_key(&w, "a", "p/a");
    check_key(&w, "b", "p/b");
    world_done(&w);
}

TEST(engine_settle, a_ring_of_three)
{
    struct world w;
    world_init(&w);
    settled_file(&w, 1, "a");
    settled_file(&w, 1, "b");
    settled_file(&w, 1, "c");
    check_int(rename_at(&w, 1, "a", 1, "t", 0), 0);
    check_int(rename_at(&w, 1, "c", 1, "a", 0), 0);
    check_int(rename_at(&w, 1, "b", 1, "c", 0), 0);
    check_int(rename_at(&w, 1, "t", 1, "b", 0), 0);
    check_int(settle_all(&w), 4);
    check_key(&w, "a", "p/a");
    check_key(&w, "b", "p/b");
    check_key(&w, "c", "p/c");
    world_done(&w);
}

TEST(engine_settle, a_chain_moves_from_its_end)
{
    struct world w;
    char from[24], to[24];
    world_init(&w);
    for (int i = 0; i < 10; i++) {
        snprintf(from, sizeof(from), "f%d", i);
        settled_file(&w, 1, from);
    }
    for (int i = 9; i >= 0; i--) {
        snprintf(from, sizeof(from), "f%d", i);
        snprintf(to, sizeof(to), "f%d", i + 1);
        check_int(rename_at(&w, 1, from, 1, to, 0), 0);
    }
    check_int(settle_all(&w), 10); /* no detours */
    for (int i = 1; i <= 10; i++) {
        snprintf(to, sizeof(to), "p/f%d", i);
        check_key(&w, to + 2, to);
    }
    world_done(&w);
}

TEST(engine_settle, an_open_deleted_file_gives_way)
{
    struct world w;
    world_init(&w);
    uint64_t old = settled_file(&w, 1, "f");
    check_int(unlink_at(&w, 1, "f", 0), 0); /* still open */
    file_with(&w, 1, "f", "new");
    settle_all(&w);
    check_key(&w, "f", "p/f");
    struct meta_object object = object_of(&w, old);
    check(strncmp(object.key, "p/.sluice/o/", 12) == 0);
    check_int(drop(&w, old), 0);
    world_done(&w);
}

TEST(engine_settle, a_clone_gives_way)
{
    struct world w;
    world_init(&w);
    uint64_t a = settled_file(&w, 1, "a");
    uint64_t b = (uint64_t)make(&w, 1, "b", S_IFREG | 0644);
    struct meta_op op = {.kind = META_CLONE, .ino = a, .length = 10, .new_ino = b};
    check_int(world_apply(&w, &op), 0);
    check(write_object(&w, a, 20, 0) > 0); /* only b holds the object at a's key now */
    settle_all(&w);
    check_key(&w, "a", "p/a");
    check_key(&w, "b", "p/b");
    world_done(&w);
}

/* The only content that the last change has left without a file; 0: none. */
static uint64_t gone(struct world *w)
{
    uint64_t *cids;
    unsigned count = engine_gone(w->engine, &cids);
    check(count <= 1);
    uint64_t cid = count ? cids[0] : 0;
    free(cids);
    return cid;
}

TEST(engine_settle, says_which_contents_nobody_has_any_more)
{
    struct world w;
    world_init(&w);
    uint64_t ino = (uint64_t)make(&w, 1, "f", S_IFREG | 0644);
    check(write_object(&w, ino, 10, 0) > 0);
    uint64_t first = object_of(&w, ino).cid;
    check(write_object(&w, ino, 20, 0) > 0);
    check_uint(gone(&w), first); /* overwritten */
    uint64_t second = object_of(&w, ino).cid;
    pass(&w, 6);
    struct meta_settle step = begin(&w, ino);
    check_uint(step.action, META_SETTLE_COPY);
    check_uint(gone(&w), 0);
    check(done(&w, &step));
    check_uint(gone(&w), 0); /* it is in another object now */
    check_uint(object_of(&w, ino).cid, second);
    check_int(unlink_at(&w, 1, "f", 0), 0);
    check_uint(gone(&w), 0); /* somebody may have it open */
    check_int(drop(&w, ino), 0);
    check_uint(gone(&w), second);
    world_done(&w);
}

TEST(engine_settle, a_content_that_a_clone_has_is_not_gone)
{
    struct world w;
    world_init(&w);
    uint64_t a = (uint64_t)make(&w, 1, "a", S_IFREG | 0644);
    uint64_t b = (uint64_t)make(&w, 1, "b", S_IFREG | 0644);
    check(write_object(&w, a, 10, 0) > 0);
    uint64_t cid = object_of(&w, a).cid;
    struct meta_op op = {.kind = META_CLONE, .ino = a, .length = 10, .new_ino = b};
    check_int(world_apply(&w, &op), 0);
    settle_all(&w); /* one of them has a copy now */
    check(object_of(&w, a).id != object_of(&w, b).id);
    uint64_t copy = object_of(&w, a).id == cid ? b : a;
    check_int(unlink_at(&w, 1, copy == a ? "a" : "b", 0), 0);
    check_int(drop(&w, copy), 0);
    check_uint(gone(&w), 0);
    check_int(unlink_at(&w, 1, copy == a ? "b" : "a", 0), 0);
    check_int(drop(&w, copy == a ? b : a), 0);
    check_uint(gone(&w), cid);
    world_done(&w);
}

TEST(engine_settle, a_file_becomes_a_directory_of_its_name)
{
    struct world w;
    world_init(&w);
    settled_file(&w, 1, "a");
    check_int(rename_at(&w, 1, "a", 1, "t", 0), 0);
    uint64_t dir = (uint64_t)make(&w, 1, "a", S_IFDIR | 0755);
    check_int(rename_at(&w, 1, "t", dir, "a", 0), 0); /* a/a: below its own key */
    for (int i = 0; i < 100 && engine_unsettled_below(w.engine, 1); i++) {
        struct meta_settle step = begin(&w, (uint64_t)walk(&w, "a/a"));
        if (step.action)
            check(done(&w, &step));
        struct meta_object garbage[4];
        uint64_t next;
        int n = engine_gc_due(w.engine, w.now, garbage, 4, &next);
        for (int j = 0; j < n; j++) {
            struct meta_op op = {.kind = META_GC_DONE, .inos = &garbage[j].id, .ino_count = 1};
            check_int(world_apply(&w, &op), 0);
        }
        pass(&w, 1);
    }
    check_key(&w, "a/a", "p/a/a");
    world_done(&w);
}

TEST(engine_settle, a_renamed_directory_is_queued_as_a_whole)
{
    struct world w;
    world_init(&w);
    uint64_t d = (uint64_t)make(&w, 1, "d", S_IFDIR | 0755);
    uint64_t sub = (uint64_t)make(&w, d, "sub", S_IFDIR | 0755);
    char name[16];
    for (int i = 0; i < 10; i++) {
        snprintf(name, sizeof(name), "f%d", i);
        settled_file(&w, i % 2 ? d : sub, name);
    }
    uint64_t before = engine_sequence(w.engine);
    check_int(rename_at(&w, 1, "d", 1, "e", 0), 0);
    check_uint(engine_sequence(w.engine), before + 1);
    check_uint(engine_unsettled_below(w.engine, d), d);
    check_uint(engine_unsettled_below(w.engine, sub), d); /* above it */
    check_uint(drift(&w).files, 10);
    /* A file that moves out before its directory's turn. */
    check_int(rename_at(&w, sub, "f0", 1, "out", 0), 0);
    settle_all(&w);
    check_key(&w, "out", "p/out");
    check_key(&w, "e/f1", "p/e/f1");
    check_key(&w, "e/sub/f8", "p/e/sub/f8");
    check_uint(engine_unsettled_below(w.engine, 1), 0);
    world_done(&w);
}

TEST(engine_settle, renamed_there_and_back_needs_no_copy)
{
    struct world w;
    world_init(&w);
    uint64_t d = (uint64_t)make(&w, 1, "d", S_IFDIR | 0755);
    settled_file(&w, d, "f");
    settled_file(&w, 1, "g");
    check_int(rename_at(&w, 1, "d", 1, "e", 0), 0);
    check_int(rename_at(&w, 1, "e", 1, "d", 0), 0);
    check_int(rename_at(&w, 1, "g", 1, "h", 0), 0);
    check_int(rename_at(&w, 1, "h", 1, "g", 0), 0);
    check_int(settle_all(&w), 0);
    world_done(&w);
}

TEST(engine_settle, hurry_makes_all_below_due)
{
    struct world w;
    struct engine_work work[8];
    uint64_t next;
    world_init(&w);
    uint64_t d = (uint64_t)make(&w, 1, "d", S_IFDIR | 0755);
    uint64_t in = file_with(&w, d, "in", "1");
    file_with(&w, 1, "out", "2");
    check_int(engine_settle_hurry(w.engine, d, w.now), 0);
    check_int(engine_settle_due(w.engine, w.now, work, 8, &next), 1);
    check_uint(work[0].id, in);
    struct meta_settle step = begin(&w, in);
    check_uint(step.action, META_SETTLE_UPLOAD);
    check(done(&w, &step));
    check_uint(engine_unsettled_below(w.engine, d), 0);
    check(engine_unsettled_below(w.engine, 1) != 0);
    world_done(&w);
}

TEST(engine_settle, retry_moves_it_in_the_queue)
{
    struct world w;
    struct engine_work work[8];
    uint64_t next;
    world_init(&w);
    uint64_t ino = file_with(&w, 1, "f", "1");
    pass(&w, 6);
    struct meta_settle step = begin(&w, ino);
    struct meta_op op = {.kind = META_SETTLE_RETRY,
                         .ino = ino,
                         .attr = {.mtime_ns = w.now + 30 * SECOND},
                         .data = "a foreign object is there",
                         .data_len = 25};
    check_int(world_apply(&w, &op), 0);
    check_int(engine_settle_due(w.engine, w.now + 29 * SECOND, work, 8, &next), 0);
    check_uint(next, op.attr.mtime_ns);
    struct meta_settle again = begin(&w, ino);
    check_uint(again.target.id, step.target.id);
    check(done(&w, &again));
    world_done(&w);
}

TEST(engine_settle, the_second_name_of_a_file_takes_over)
{
    struct world w;
    world_init(&w);
    uint64_t ino = settled_file(&w, 1, "a");
    check_int(link_at(&w, ino, 1, "b"), 0);
    check_int(settle_all(&w), 0); /* settled at its first name */
    check_int(unlink_at(&w, 1, "a", 0), 0);
    check_int(settle_all(&w), 1);
    check_key(&w, "b", "p/b");
    world_done(&w);
}

struct walker {
    struct world *w;
    _Atomic bool stop;
};

static void *walk_always(void *arg)
{
    struct walker *walker = arg;
    while (!walker->stop)
        engine_unsettled_below(walker->w->engine, UINT64_MAX);
    return NULL;
}

/* Detaching a store looks at the queue while settle does. What waits for long makes it slow. */
TEST(engine_settle, who_looks_at_the_queue_beside_another_loses_no_row)
{
    struct world w;
    struct engine_work work[8];
    uint64_t next;
    pthread_t threads[2];
    world_init(&w);
    for (int i = 0; i < 500; i++) {
        char name[16];
        snprintf(name, sizeof(name), "f%d", i);
        struct meta_op later = {.kind = META_SETTLE_RETRY,
                                .ino = file_with(&w, 1, name, ""),
                                .attr = {.mtime_ns = w.now + 1000000 * SECOND}};
        check_int(world_apply(&w, &later), 0);
    }
    struct walker walker = {.w = &w};
    for (int i = 0; i < 2; i++)
        check_int(pthread_create(&threads[i], NULL, walk_always, &walker), 0);
    for (int i = 0; i < 500; i++) {
        uint64_t ino = file_with(&w, 1, "f", "");
        usleep(500);
        pass(&w, 6);
        if (engine_settle_due(w.engine, w.now, work, 8, &next) != 1)
            test_fail("forgotten in round %d", i);
        check_int(unlink_at(&w, 1, "f", 0), 0);
        check_int(drop(&w, ino), 0);
    }
    walker.stop = true;
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    world_done(&w);
}
