#include "engine_test.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h> /* RENAME_ */
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "engine/engine_impl.h"

#define DIR_MODE (S_IFDIR | 0755)
#define FILE_MODE (S_IFREG | 0644)

static int set_quota(struct world *w, uint64_t ino, uint64_t bytes, uint64_t inodes)
{
    struct meta_op op = {.kind = META_QUOTA_SET,
                         .ino = ino,
                         .valid = META_QUOTA_BYTES | META_QUOTA_INODES,
                         .offset = bytes,
                         .length = inodes};
    return world_apply(w, &op);
}

static struct meta_quota quota_of(struct world *w, uint64_t ino)
{
    struct meta_op op = {.kind = META_QUOTA, .ino = ino};
    struct meta_quota none = {0};
    check_int(world_read(w, &op), 0);
    return w->reply.quota_count ? w->reply.quotas[0] : none;
}

/* A file of `size` bytes without content. */
static uint64_t file_of(struct world *w, uint64_t parent, const char *name, uint64_t size)
{
    int64_t ino = make(w, parent, name, FILE_MODE);
    check(ino > 0);
    check_int(truncate_to(w, (uint64_t)ino, size), 0);
    return (uint64_t)ino;
}

TEST(engine_quota, holds_to_the_byte_for_each_operation)
{
    struct world w;
    world_init(&w);
    uint64_t dir = (uint64_t)make(&w, 1, "dir", DIR_MODE);
    uint64_t sub = (uint64_t)make(&w, dir, "sub", DIR_MODE);
    uint64_t in = file_of(&w, sub, "in", 60);
    uint64_t out = file_of(&w, 1, "out", 41);
    check_int(set_quota(&w, dir, 100, META_QUOTA_NONE), 0);
    check_int(truncate_to(&w, in, 101), -EDQUOT);
    check_int(truncate_to(&w, in, 60), 0);
    check_int(rename_at(&w, 1, "out", sub, "moved", 0), -EDQUOT);
    check_int(lookup(&w, 1, "out"), (int64_t)out);
    check_int(link_at(&w, out, dir, "linked"), -EDQUOT);
    char bytes[64] = {0};
    check_int(write_inline(&w, in, 41, bytes, 60), -EDQUOT);
    check_int(write_inline(&w, in, 40, bytes, 60), 0);
    check_uint(usage_of(&w, dir).bytes, 100);
    check_int(truncate_to(&w, in, 59), 0);
    check_int(rename_at(&w, 1, "out", sub, "moved", 0), 0);
    check_uint(usage_of(&w, dir).bytes, 100);
    struct meta_op clone = {.kind = META_CLONE, .ino = in, .new_ino = out, .length = 59};
    check_int(world_apply(&w, &clone), -EDQUOT);
    struct meta_op punch = {
        .kind = META_PUNCH, .ino = in, .valid = META_SET_SIZE, .attr = {.size = 60}};
    check_int(world_apply(&w, &punch), -EDQUOT);
    /* What was accepted before counts, and is never lost. */
    struct meta_extent e = {.kind = META_EXTENT_INLINE, .offset = 0, .length = 60, .data = bytes};
    struct meta_op commit = {.kind = META_COMMIT, .ino = in, .extents = &e, .extent_count = 1};
    check_int(world_apply(&w, &commit), -EDQUOT);
    commit.flags = META_ACCEPTED;
    check_int(world_apply(&w, &commit), 0);
    check_uint(usage_of(&w, dir).bytes, 101);
    check_int(unlink_at(&w, sub, "moved", 0), 0);
    check_uint(quota_of(&w, dir).usage.bytes, 60);
    world_done(&w);
}

TEST(engine_quota, counts_inodes)
{
    struct world w;
    world_init(&w);
    uint64_t dir = (uint64_t)make(&w, 1, "dir", DIR_MODE);
    uint64_t sub = (uint64_t)make(&w, dir, "sub", DIR_MODE);
    check_int(set_quota(&w, dir, META_QUOTA_NONE, 3), 0);
    uint64_t file = (uint64_t)make(&w, sub, "a", FILE_MODE);
    check(make(&w, sub, "b", S_IFIFO | 0600) > 0);
    check_int(make(&w, dir, "c", FILE_MODE), -EDQUOT);
    check_int(make(&w, sub, "c", DIR_MODE), -EDQUOT);
    check_int(link_at(&w, file, dir, "c"), -EDQUOT);
    check_int(rename_at(&w, sub, "a", dir, "c", 0), 0);
    check_int(unlink_at(&w, sub, "b", 0), 0);
    check_int(link_at(&w, file, dir, "d"), 0);
    world_done(&w);
}

TEST(engine_quota, nested_limits_bind_each_for_itself)
{
    struct world w;
    world_init(&w);
    uint64_t a = (uint64_t)make(&w, 1, "a", DIR_MODE);
    uint64_t b = (uint64_t)make(&w, a, "b", DIR_MODE);
    uint64_t c = (uint64_t)make(&w, a, "c", DIR_MODE);
    check_int(set_quota(&w, a, 100, META_QUOTA_NONE), 0);
    check_int(set_quota(&w, b, 80, META_QUOTA_NONE), 0);
    uint64_t in_b = file_of(&w, b, "f", 80);
    check_int(truncate_to(&w, in_b, 81), -EDQUOT);
    uint64_t in_c = file_of(&w, c, "f", 20);
    check_int(truncate_to(&w, in_c, 21), -EDQUOT);
    /* Within a: nothing grows there, but b would. */
    check_int(rename_at(&w, c, "f", b, "g", 0), -EDQUOT);
    check_int(rename_at(&w, b, "f", c, "g", 0), 0);
    check_int(rename_at(&w, c, "g", b, "f", 0), 0);
    check_int(rename_at(&w, b, "f", c, "f", RENAME_EXCHANGE), 0);
    struct meta_op below = {.kind = META_QUOTA, .ino = 1, .flags = META_QUOTA_BELOW};
    check_int(world_read(&w, &below), 0);
    check_uint(w.reply.quota_count, 2);
    check_uint(w.reply.quotas[0].ino, a);
    check_uint(w.reply.quotas[1].usage.bytes, 20);
    struct meta_op above = {.kind = META_QUOTA, .ino = in_c, .flags = META_QUOTA_ABOVE};
    check_int(world_read(&w, &above), 0);
    check_uint(w.reply.quota_count, 2);
    check_uint(w.reply.quotas[0].ino, b);
    world_done(&w);
}

TEST(engine_quota, lower_than_usage_stops_growth_only)
{
    struct world w;
    world_init(&w);
    uint64_t dir = (uint64_t)make(&w, 1, "dir", DIR_MODE);
    uint64_t file = file_of(&w, dir, "f", 100);
    check_int(set_quota(&w, dir, 10, 0), 0);
    check_int(truncate_to(&w, file, 101), -EDQUOT);
    check_int(truncate_to(&w, file, 50), 0);
    check_int(rename_at(&w, dir, "f", dir, "g", 0), 0);
    check_int(rename_at(&w, dir, "g", 1, "g", 0), 0);
    check_int(rename_at(&w, 1, "g", dir, "g", 0), -EDQUOT);
    world_done(&w);
}

TEST(engine_quota, import_counts_and_is_not_refused)
{
    struct world w;
    world_init_raw(&w);
    check_int(world_format(&w), 0);
    check_int(set_quota(&w, 1, 5, 0), 0);
    struct meta_entry entry = {.name = "big", .name_len = 3, .size = 1000, .etag = "e"};
    struct meta_op op = {.kind = META_IMPORT_DIR,
                         .ino = 1,
                         .flags = META_IMPORT_LAST,
                         .entries = &entry,
                         .entry_count = 1};
    check_int(world_apply(&w, &op), 0);
    check_uint(usage_of(&w, 1).bytes, 1000);
    check_int(make(&w, 1, "more", FILE_MODE), -EDQUOT);
    world_done(&w);
}

TEST(engine_quota, is_kept_removed_and_goes_with_its_directory)
{
    struct world w;
    world_init(&w);
    uint64_t dir = (uint64_t)make(&w, 1, "dir", DIR_MODE);
    uint64_t file = (uint64_t)make(&w, 1, "file", FILE_MODE);
    check_int(set_quota(&w, file, 1, 1), -ENOTDIR);
    check_int(set_quota(&w, 99, 1, 1), -ENOENT);
    struct meta_op nothing = {.kind = META_QUOTA_SET, .ino = dir};
    check_int(world_apply(&w, &nothing), -EINVAL);
    check_int(set_quota(&w, dir, 7, 1), 0);
    struct meta_op bytes = {
        .kind = META_QUOTA_SET, .ino = dir, .valid = META_QUOTA_BYTES, .offset = 8};
    check_int(world_apply(&w, &bytes), 0);
    world_reopen(&w);
    check_uint(quota_of(&w, dir).max_bytes, 8);
    check_uint(quota_of(&w, dir).max_inodes, 1);
    check(make(&w, dir, "f", FILE_MODE) > 0);
    check_int(make(&w, dir, "g", FILE_MODE), -EDQUOT);
    check_int(unlink_at(&w, dir, "f", 0), 0);
    check_int(unlink_at(&w, 1, "dir", META_RMDIR), 0);
    check(!engine_quota_active(w.engine));
    check_int(drop(&w, dir), 0);
    uint64_t turns = engine_quota_turns(w.engine);
    uint64_t again = (uint64_t)make(&w, 1, "dir", DIR_MODE);
    check_int(set_quota(&w, again, 0, 0), 0);
    /* A first limit again, even if nobody looked between: what was reserved is forgotten. */
    check_uint(engine_quota_turns(w.engine), turns + 1);
    check_int(set_quota(&w, 1, META_QUOTA_NONE, 100), 0);
    check_int(set_quota(&w, 1, META_QUOTA_NONE, META_QUOTA_NONE), 0);
    check_uint(engine_quota_turns(w.engine), turns + 1);
    check_int(make(&w, again, "f", FILE_MODE), -EDQUOT);
    check_int(set_quota(&w, again, META_QUOTA_NONE, META_QUOTA_NONE), 0);
    check(make(&w, again, "f", FILE_MODE) > 0);
    check(!engine_quota_active(w.engine));
    world_done(&w);
}

TEST(engine_quota, reserved_bytes_count_until_committed_or_released)
{
    struct world w;
    world_init(&w);
    uint64_t dir = (uint64_t)make(&w, 1, "dir", DIR_MODE);
    uint64_t a = (uint64_t)make(&w, dir, "a", FILE_MODE);
    uint64_t b = (uint64_t)make(&w, dir, "b", FILE_MODE);
    check_int(engine_quota_reserve(w.engine, a, 1000, false), 0);
    check_int(set_quota(&w, dir, 100, META_QUOTA_NONE), 0);
    check_uint(quota_of(&w, dir).reserved_bytes, 0);
    check_int(engine_quota_reserve(w.engine, a, 101, false), -EDQUOT);
    check_int(engine_quota_reserve(w.engine, a, 60, false), 0);
    check_int(engine_quota_reserve(w.engine, b, 41, false), -EDQUOT);
    check_int(engine_quota_reserve(w.engine, b, 40, false), 0);
    check_uint(quota_of(&w, dir).reserved_bytes, 100);
    check_int(truncate_to(&w, b, 41), -EDQUOT);
    /* The commit of what was reserved fits, though nothing is free. */
    char bytes[60] = {0};
    check_int(write_inline(&w, a, 0, bytes, 60), 0);
    check_uint(quota_of(&w, dir).reserved_bytes, 40);
    check_uint(quota_of(&w, dir).usage.bytes, 60);
    /* Shrunk in the metadata, still this large for the application. */
    check_int(truncate_to(&w, a, 10), 0);
    check_uint(quota_of(&w, dir).reserved_bytes, 90);
    engine_quota_release(w.engine, a);
    check_uint(quota_of(&w, dir).reserved_bytes, 40);
    check_int(engine_quota_reserve(w.engine, b, 1000, true), 0);
    check_uint(quota_of(&w, dir).reserved_bytes, 1000);
    check_int(engine_quota_reserve(w.engine, b, 10, false), 0);
    engine_quota_release(w.engine, b);
    check_uint(quota_of(&w, dir).reserved_bytes, 0);
    world_done(&w);
}

TEST(engine_quota, reserved_bytes_move_with_names)
{
    struct world w;
    world_init(&w);
    uint64_t a = (uint64_t)make(&w, 1, "a", DIR_MODE), b = (uint64_t)make(&w, 1, "b", DIR_MODE);
    uint64_t deep = (uint64_t)make(&w, a, "deep", DIR_MODE);
    uint64_t f = (uint64_t)make(&w, deep, "f", FILE_MODE);
    check_int(set_quota(&w, a, 100, META_QUOTA_NONE), 0);
    check_int(set_quota(&w, b, 79, META_QUOTA_NONE), 0);
    check_int(engine_quota_reserve(w.engine, f, 80, false), 0);
    check_int(rename_at(&w, a, "deep", b, "deep", 0), -EDQUOT);
    check_uint(quota_of(&w, a).reserved_bytes, 80);
    check_int(link_at(&w, f, a, "second"), -EDQUOT);
    check_int(set_quota(&w, b, 80, META_QUOTA_NONE), 0);
    check_int(rename_at(&w, a, "deep", b, "deep", 0), 0);
    check_uint(quota_of(&w, a).reserved_bytes, 0);
    check_uint(quota_of(&w, b).reserved_bytes, 80);
    check_int(engine_quota_reserve(w.engine, f, 81, false), -EDQUOT);
    check_int(link_at(&w, f, a, "second"), 0);
    check_uint(quota_of(&w, a).reserved_bytes, 80);
    /* Refused by the second name: nothing of the growth stays at the first. */
    check_int(set_quota(&w, b, 200, META_QUOTA_NONE), 0);
    check_int(engine_quota_reserve(w.engine, f, 101, false), -EDQUOT);
    check_uint(quota_of(&w, b).reserved_bytes, 80);
    check_uint(quota_of(&w, a).reserved_bytes, 80);
    check_int(unlink_at(&w, deep, "f", 0), 0);
    check_uint(quota_of(&w, b).reserved_bytes, 0);
    check_int(truncate_to(&w, f, 80), 0);
    check_uint(quota_of(&w, a).reserved_bytes, 0);
    check_uint(quota_of(&w, a).usage.bytes, 80);
    check_int(unlink_at(&w, a, "second", 0), 0);
    check_int(drop(&w, f), 0);
    engine_quota_release(w.engine, f);
    check_uint(quota_of(&w, a).usage.bytes, 0);
    check_uint(quota_of(&w, a).reserved_bytes, 0);
    world_done(&w);
}

#define THREADS 4
struct grower {
    struct engine *engine;
    uint64_t ino, got;
};

static void *grow(void *arg)
{
    struct grower *g = arg;
    while (engine_quota_reserve(g->engine, g->ino, g->got + 7, false) == 0)
        g->got += 7;
    while (engine_quota_reserve(g->engine, g->ino, g->got + 1, false) == 0)
        g->got++;
    return NULL;
}

/* Renames go on beside: the sum must be the limit, to the byte, at the end. */
TEST(engine_quota, is_exact_under_concurrency)
{
    struct world w;
    world_init(&w);
    uint64_t top = (uint64_t)make(&w, 1, "top", DIR_MODE);
    uint64_t x = (uint64_t)make(&w, top, "x", DIR_MODE), y = (uint64_t)make(&w, top, "y", DIR_MODE);
    uint64_t moved = (uint64_t)make(&w, x, "moved", DIR_MODE);
    struct grower growers[THREADS];
    pthread_t threads[THREADS];
    const uint64_t limit = 1000003;
    for (int i = 0; i < THREADS; i++) {
        char name[8];
        snprintf(name, sizeof(name), "f%d", i);
        int64_t ino = make(&w, i % 2 ? moved : x, name, FILE_MODE);
        growers[i] = (struct grower){.engine = w.engine, .ino = (uint64_t)ino};
    }
    check_int(set_quota(&w, top, limit, META_QUOTA_NONE), 0);
    check_int(set_quota(&w, y, META_QUOTA_NONE, 100), 0);
    for (int i = 0; i < THREADS; i++)
        check_int(pthread_create(&threads[i], NULL, grow, &growers[i]), 0);
    for (int i = 0; i < 200; i++)
        check_int(rename_at(&w, i % 2 ? y : x, "moved", i % 2 ? x : y, "moved", 0), 0);
    uint64_t sum = 0, there = 0;
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        sum += growers[i].got;
        there += i % 2 ? growers[i].got : 0;
    }
    check_uint(sum, limit);
    check_uint(quota_of(&w, top).reserved_bytes, limit);
    check_int(rename_at(&w, x, "moved", y, "moved", 0), 0);
    check_uint(quota_of(&w, y).reserved_bytes, there);
    for (int i = 0; i < THREADS; i++)
        check_int(truncate_to(&w, growers[i].ino, growers[i].got), 0);
    check_uint(quota_of(&w, top).usage.bytes, limit);
    check_uint(quota_of(&w, top).reserved_bytes, 0);
    world_done(&w);
}

/* From now on RocksDB's log has no space, until it is opened again. */
static void log_is_full(const struct world *w)
{
    char link[300], target[PATH_MAX];
    int full = open("/dev/full", O_RDWR | O_CLOEXEC);
    DIR *list = opendir("/proc/self/fd");
    check(full >= 0 && list);
    for (struct dirent *e; (e = readdir(list));) {
        snprintf(link, sizeof(link), "/proc/self/fd/%s", e->d_name);
        ssize_t len = readlink(link, target, sizeof(target) - 1);
        target[MAX(len, 0)] = '\0';
        if (strncmp(target, w->db, strlen(w->db)) == 0 && strstr(target, ".log"))
            check(dup2(full, (int)strtol(e->d_name, NULL, 10)) >= 0);
    }
    closedir(list);
    close(full);
}

TEST(engine_quota, reserved_bytes_are_right_after_a_write_without_space)
{
    struct world w;
    world_init(&w);
    uint64_t a = (uint64_t)make(&w, 1, "a", DIR_MODE), b = (uint64_t)make(&w, 1, "b", DIR_MODE);
    uint64_t f = (uint64_t)make(&w, a, "f", FILE_MODE);
    check_int(set_quota(&w, a, 100, META_QUOTA_NONE), 0);
    check_int(engine_quota_reserve(w.engine, f, 80, false), 0);
    log_is_full(&w);
    check_int(rename_at(&w, a, "f", b, "f", 0), -ENOSPC);
    check_int(lookup(&w, a, "f"), (int64_t)f);
    check_uint(quota_of(&w, a).reserved_bytes, 80);
    check_int(engine_quota_reserve(w.engine, f, 101, false), -EDQUOT);
    check_int(rename_at(&w, a, "f", b, "f", 0), 0);
    check_uint(quota_of(&w, a).reserved_bytes, 0);
    engine_quota_release(w.engine, f);
    world_done(&w);
}

TEST(engine_quota, check_finds_a_record_without_directory)
{
    struct world w;
    world_init(&w);
    uint64_t dir = (uint64_t)make(&w, 1, "dir", DIR_MODE);
    check_int(set_quota(&w, dir, 1, 1), 0);
    check_int(engine_check(w.engine, NULL, NULL), 0);
    struct engine_txn *t = &w.engine->txn;
    struct record_key key;
    struct buf *b = NULL;
    engine_txn_begin(t, w.now);
    b = engine_txn_scratch(t);
    record_quota_encode(b, &(struct record_quota){1, 1});
    record_key_quota(&key, 77);
    check_int(engine_txn_put(t, TABLE_SYSTEM, &key, b->data, b->len), 0);
    check_int(engine_txn_commit(t), 0);
    check_int(engine_check(w.engine, NULL, NULL), 1);
    engine_txn_begin(t, w.now);
    check_int(engine_txn_delete(t, TABLE_SYSTEM, &key), 0);
    record_key_quota(&key, dir);
    check_int(engine_txn_delete(t, TABLE_SYSTEM, &key), 0);
    check_int(engine_txn_commit(t), 0);
    check_int(engine_check(w.engine, NULL, NULL), 1);
    engine_txn_begin(t, w.now);
    check_int(engine_txn_put(t, TABLE_SYSTEM, &key, "\x01\x01\x01", 3), 0);
    check_int(engine_txn_commit(t), 0);
    world_done(&w);
}
