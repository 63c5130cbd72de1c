/* Directories whose newest record is among the counters. Opening again empties the cache, so that
 * what is read then comes from the records. */
#include "engine_test.h"

#include <pthread.h>
#include <stdatomic.h>

#include "base/buf.h"
#include "engine/records.h"

#define DIRS (2 * RECORD_HOT_MAX + 3)

static void name_number(char out[16], const char *what, int i)
{
    snprintf(out, 16, "%s%d", what, i);
}

TEST(engine_hot, more_directories_change_than_are_hot)
{
    struct world w;
    uint64_t dirs[DIRS], versions[DIRS];
    int files[DIRS] = {0}, all = 0;
    char name[16];
    world_init(&w);
    uint64_t top = (uint64_t)make(&w, 1, "top", S_IFDIR | 0755);
    for (int i = 0; i < DIRS; i++) {
        name_number(name, "d", i);
        dirs[i] = (uint64_t)make(&w, top, name, S_IFDIR | 0755);
    }
    for (int i = 0; i < 5 * DIRS; i++) {
        int at = i * i % DIRS; /* some more often than others, some not at all */
        name_number(name, "f", i);
        check(make(&w, dirs[at], name, S_IFREG | 0644) > 0);
        files[at]++;
        all++;
    }
    for (int i = 0; i < DIRS; i++)
        versions[i] = attr_of(&w, dirs[i]).data_version;
    check_int(engine_check(w.engine, NULL, NULL), 0);
    world_reopen(&w);
    for (int i = 0; i < DIRS; i++) {
        check_uint(usage_of(&w, dirs[i]).files, files[i]);
        check_uint(attr_of(&w, dirs[i]).data_version, versions[i]);
    }
    check_uint(usage_of(&w, top).files, all);
    check_uint(usage_of(&w, 1).files, all);
    check_uint(usage_of(&w, 1).directories, DIRS + 1);
    world_done(&w);
}

TEST(engine_hot, quiet_directories_leave)
{
    struct world w;
    world_init(&w);
    uint64_t dir = (uint64_t)make(&w, 1, "d", S_IFDIR | 0755);
    uint64_t file = (uint64_t)make(&w, dir, "f", S_IFREG | 0644);
    struct meta_attr before = attr_of(&w, dir);
    for (unsigned i = 0; i < 600; i++) {
        struct meta_op op = {
            .kind = META_SETATTR, .ino = file, .valid = META_SET_MODE, .attr = {.mode = i % 8}};
        check_int(world_apply(&w, &op), 0);
    }
    check_int(engine_check(w.engine, NULL, NULL), 0);
    world_reopen(&w);
    check_uint(attr_of(&w, dir).data_version, before.data_version);
    check_uint(usage_of(&w, dir).files, 1);
    check(make(&w, dir, "g", S_IFREG | 0644) > 0);
    check_uint(usage_of(&w, dir).files, 2);
    world_done(&w);
}

TEST(engine_hot, a_path_is_deeper_than_their_number)
{
    struct world w;
    uint64_t at = 1;
    world_init(&w);
    for (int i = 0; i < DIRS; i++) {
        at = (uint64_t)make(&w, at, "d", S_IFDIR | 0755);
        check(make(&w, at, "f", S_IFREG | 0644) > 0);
    }
    check_uint(usage_of(&w, 1).files, DIRS);
    check_int(engine_check(w.engine, NULL, NULL), 0);
    world_reopen(&w);
    check_uint(usage_of(&w, 1).files, DIRS);
    check_uint(usage_of(&w, at).files, 1);
    world_done(&w);
}

TEST(engine_hot, a_listing_gives_the_newest_attributes)
{
    struct world w;
    uint64_t dirs[4];
    char name[16];
    world_init(&w);
    for (int i = 0; i < 4; i++) {
        name_number(name, "d", i);
        dirs[i] = (uint64_t)make(&w, 1, name, S_IFDIR | 0755);
    }
    for (int i = 0; i < 4; i++)
        check(make(&w, dirs[i], "sub", S_IFDIR | 0755) > 0);
    world_reopen(&w);
    struct meta_op op = {.kind = META_READDIR, .ino = 1, .count = 10, .plus = true};
    check_int(world_read(&w, &op), 0);
    check_uint(w.reply.entry_count, 4);
    for (int i = 0; i < 4; i++) {
        check_uint(w.reply.entries[i].ino, dirs[i]);
        check_uint(w.reply.entries[i].attr.nlink, 3);
    }
    world_done(&w);
}

TEST(engine_hot, removed_directories_leave)
{
    struct world w;
    world_init(&w);
    uint64_t dir = (uint64_t)make(&w, 1, "d", S_IFDIR | 0755);
    check(make(&w, dir, "f", S_IFREG | 0644) > 0);
    check_int(unlink_at(&w, dir, "f", 0), 0);
    check_int(drop(&w, w.reply.attr.ino), 0);
    check_int(unlink_at(&w, 1, "d", META_RMDIR), 0);
    check_int(drop(&w, dir), 0);
    world_reopen(&w);
    struct meta_op op = {.kind = META_GETATTR, .ino = dir};
    check_int(world_read(&w, &op), -ENOENT);
    check_int(lookup(&w, 1, "d"), -ENOENT);
    check_uint(usage_of(&w, 1).directories, 0);
    world_done(&w);
}

/* The database goes on from the records, not from what the process knew. */
TEST(engine_hot, opening_again_changes_no_record)
{
    struct world one, two;
    uint8_t a[32], b[32];
    char name[16];
    struct world *worlds[] = {&one, &two};
    for (int k = 0; k < 2; k++) {
        struct world *w = worlds[k];
        uint64_t dirs[DIRS];
        world_init(w);
        for (int i = 0; i < DIRS; i++) {
            name_number(name, "d", i);
            dirs[i] = (uint64_t)make(w, 1, name, S_IFDIR | 0755);
        }
        for (int i = 0; i < 3 * DIRS; i++) {
            name_number(name, "f", i);
            check(make(w, dirs[i * 7 % DIRS], name, S_IFREG | 0644) > 0);
            if (k == 1 && i % 10 == 0)
                world_reopen(w);
        }
    }
    check_int(engine_digest(one.engine, a), 0);
    check_int(engine_digest(two.engine, b), 0);
    check_mem(a, b, 32);
    world_done(&one);
    world_done(&two);
}

#define NAMES 2000

struct watcher {
    struct engine *engine;
    uint64_t dir;
    atomic_bool stop;
    int wrong, seen;
};

/* Who saw a name sees its directory's change, too. Looks for one name after the other. */
static void *watch(void *arg)
{
    struct watcher *r = arg;
    char name[16];
    while (r->seen < NAMES) {
        struct meta_reply reply;
        bool last = atomic_load(&r->stop);
        name_number(name, "f", r->seen);
        meta_reply_init(&reply);
        struct meta_op op = {.kind = META_LOOKUP, .parent = r->dir, .name = name_of(name)};
        int rc = engine_read(r->engine, &op, 0, &reply);
        if (rc == 0) {
            op = (struct meta_op){.kind = META_USAGE, .ino = r->dir};
            r->seen++;
            r->wrong += engine_read(r->engine, &op, 0, &reply) != 0 ||
                        reply.usage.files < (uint64_t)r->seen;
        }
        meta_reply_done(&reply);
        if (rc != 0 && (rc != -ENOENT || last))
            break;
    }
    return NULL;
}

TEST(engine_hot, readers_see_no_older_directory_than_its_names)
{
    struct world w;
    struct watcher watcher = {0};
    pthread_t thread;
    char name[16];
    world_init(&w);
    watcher.engine = w.engine;
    watcher.dir = (uint64_t)make(&w, 1, "d", S_IFDIR | 0755);
    check_int(pthread_create(&thread, NULL, watch, &watcher), 0);
    for (int i = 0; i < NAMES; i++) {
        name_number(name, "f", i);
        check(make(&w, watcher.dir, name, S_IFREG | 0644) > 0);
    }
    atomic_store(&watcher.stop, true);
    pthread_join(thread, NULL);
    check_int(watcher.wrong, 0);
    check_int(watcher.seen, NAMES);
    world_done(&w);
}

static int decode(const struct record_counters *counters)
{
    struct record_counters out;
    struct buf b;
    buf_init(&b, 0);
    record_counters_encode(&b, counters);
    int rc = record_counters_decode(b.data, b.len, &out);
    if (rc == 0)
        check_uint(out.hot_count, counters->hot_count);
    for (size_t i = 0; rc == 0 && i < out.hot_count; i++) {
        check_uint(out.hot[i].ino, counters->hot[i].ino);
        check_uint(out.hot[i].applied, counters->hot[i].applied);
        check_uint(out.hot[i].len, counters->hot[i].len);
        check_mem(out.hot[i].bytes, counters->hot[i].bytes, out.hot[i].len);
    }
    for (size_t i = 0; rc == 0 && i < b.len; i++)
        check(record_counters_decode(b.data, i, &out) < 0);
    buf_done(&b);
    return rc;
}

TEST(record_counters, refuses_directories_out_of_order)
{
    struct record_counters c = {.next_ino = 9, .applied = 1000};
    check_int(decode(&c), 0);
    c.hot_count = RECORD_HOT_MAX;
    for (size_t i = 0; i < c.hot_count; i++) {
        c.hot[i] = (struct record_hot){.ino = 10 + i, .applied = 900 + i, .len = 200};
        memset(c.hot[i].bytes, (int)i, c.hot[i].len);
    }
    check_int(decode(&c), 0);
    c.hot[3].ino = c.hot[2].ino;
    check(decode(&c) < 0);
    c.hot[3].ino = 5;
    check(decode(&c) < 0);
}
