/*
 * The engine alone, without FUSE and network: operations per second and CPU microseconds for each,
 * one applying thread. Usage: engine_bench [directory [count]]
 */
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "meta/engine.h"

struct bench {
    struct engine *engine;
    uint64_t now_ns, count;
    uint64_t *inos;
    uint64_t dir;
};

static void fail(const char *what, int rc)
{
    fprintf(stderr, "engine_bench: %s: %s\n", what, strerror(-rc));
    exit(1);
}

static double cpu_seconds(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void apply(struct bench *b, struct meta_op *op, struct meta_reply *reply)
{
    meta_reply_init(reply);
    op->time_ns = b->now_ns += 1000;
    int rc = engine_apply(b->engine, op, reply);
    if (rc < 0)
        fail(meta_kind_name(op->kind), rc);
}

static void look(struct bench *b, struct meta_op *op, struct meta_reply *reply)
{
    meta_reply_init(reply);
    op->time_ns = b->now_ns;
    int rc = engine_read(b->engine, op, 0, reply);
    if (rc < 0)
        fail(meta_kind_name(op->kind), rc);
}

static struct meta_name name_of(char room[32], uint64_t i)
{
    int len = snprintf(room, 32, "file-%08ju", (uintmax_t)i);
    return (struct meta_name){.bytes = room, .len = (size_t)len};
}

static void bench_create(struct bench *b, uint64_t i)
{
    char room[32];
    struct meta_reply reply;
    struct meta_op op = {.kind = META_MKNOD,
                         .parent = b->dir,
                         .name = name_of(room, i),
                         .attr = {.mode = S_IFREG | 0644}};
    apply(b, &op, &reply);
    b->inos[i] = reply.attr.ino;
    meta_reply_done(&reply);
}

static void bench_lookup(struct bench *b, uint64_t i)
{
    char room[32];
    struct meta_reply reply;
    struct meta_op op = {
        .kind = META_LOOKUP, .parent = b->dir, .name = name_of(room, i * 7919 % b->count)};
    look(b, &op, &reply);
    meta_reply_done(&reply);
}

static void bench_lookup_again(struct bench *b, uint64_t i)
{
    char room[32];
    struct meta_reply reply;
    struct meta_op op = {.kind = META_LOOKUP, .parent = b->dir, .name = name_of(room, i % 1000)};
    look(b, &op, &reply);
    meta_reply_done(&reply);
}

static void bench_commit(struct bench *b, uint64_t i)
{
    static const char bytes[4096];
    struct meta_reply reply;
    struct meta_extent e = {.kind = META_EXTENT_INLINE, .length = sizeof(bytes), .data = bytes};
    struct meta_op op = {.kind = META_COMMIT, .ino = b->inos[i], .extents = &e, .extent_count = 1};
    apply(b, &op, &reply);
    meta_reply_done(&reply);
}

static void bench_extents(struct bench *b, uint64_t i)
{
    struct meta_reply reply;
    struct meta_op op = {.kind = META_EXTENTS, .ino = b->inos[i]};
    look(b, &op, &reply);
    meta_reply_done(&reply);
}

static void bench_chmod(struct bench *b, uint64_t i)
{
    struct meta_reply reply;
    struct meta_op op = {
        .kind = META_SETATTR, .ino = b->inos[i], .valid = META_SET_MODE, .attr = {.mode = 0600}};
    apply(b, &op, &reply);
    meta_reply_done(&reply);
}

static void bench_rename(struct bench *b, uint64_t i)
{
    char one[32], two[40];
    struct meta_reply reply;
    struct meta_op op = {
        .kind = META_RENAME, .parent = b->dir, .name = name_of(one, i), .new_parent = b->dir};
    int len = snprintf(two, sizeof(two), "x%s", one);
    op.new_name = (struct meta_name){.bytes = two, .len = (size_t)len};
    apply(b, &op, &reply);
    meta_reply_done(&reply);
    op.new_name = op.name;
    op.name = (struct meta_name){.bytes = two, .len = (size_t)len};
    apply(b, &op, &reply);
    meta_reply_done(&reply);
}

static void bench_unlink(struct bench *b, uint64_t i)
{
    char room[32];
    struct meta_reply reply;
    struct meta_op op = {.kind = META_UNLINK, .parent = b->dir, .name = name_of(room, i)};
    apply(b, &op, &reply);
    meta_reply_done(&reply);
}

static void bench_drop(struct bench *b, uint64_t i)
{
    struct meta_reply reply;
    struct meta_op op = {.kind = META_DROP, .inos = &b->inos[i], .ino_count = 1};
    apply(b, &op, &reply);
    meta_reply_done(&reply);
}

static void report(const char *name, uint64_t count, double wall, double cpu)
{
    printf("%-28s %10.0f /s   %8.2f us wall %8.2f us cpu\n", name, (double)count / wall,
           wall * 1e6 / (double)count, cpu * 1e6 / (double)count);
    fflush(stdout);
}

static void run(struct bench *b, const char *name, unsigned per,
                void (*one)(struct bench *, uint64_t))
{
    double cpu = cpu_seconds();
    uint64_t start = clock_monotonic_ns();
    for (uint64_t i = 0; i < b->count; i++)
        one(b, i);
    double wall = (double)(clock_monotonic_ns() - start) / 1e9;
    report(name, b->count * per, wall, cpu_seconds() - cpu);
}

static void list_all(struct bench *b, uint64_t ino, bool plus, const char *name)
{
    char after[256] = "";
    size_t after_len = 0;
    uint64_t seen = 0;
    double cpu = cpu_seconds();
    uint64_t start = clock_monotonic_ns();
    for (bool end = false; !end;) {
        struct meta_reply reply;
        struct meta_op op = {.kind = META_READDIR,
                             .ino = ino,
                             .name = {after, after_len},
                             .count = 500,
                             .plus = plus};
        look(b, &op, &reply);
        seen += reply.entry_count;
        end = reply.end || reply.entry_count == 0;
        if (!end) {
            const struct meta_entry *last = &reply.entries[reply.entry_count - 1];
            after_len = last->name_len;
            memcpy(after, last->name, after_len);
        }
        meta_reply_done(&reply);
    }
    double wall = (double)(clock_monotonic_ns() - start) / 1e9;
    report(name, seen ? seen : 1, wall, cpu_seconds() - cpu);
}

static uint64_t make_dir(struct bench *b, uint64_t parent, const char *name)
{
    struct meta_reply reply;
    struct meta_op op = {.kind = META_MKNOD,
                         .parent = parent,
                         .name = {name, strlen(name)},
                         .attr = {.mode = S_IFDIR | 0755}};
    apply(b, &op, &reply);
    uint64_t ino = reply.attr.ino;
    meta_reply_done(&reply);
    return ino;
}

/* Pages of 1,000 keys, as a listing gives them. */
static void import_all(struct bench *b, const char *label)
{
    static struct meta_entry entries[1000];
    static char names[1000][32];
    struct meta_reply reply;
    uint64_t pages = b->count / 1000;
    double cpu = cpu_seconds();
    uint64_t start = clock_monotonic_ns();
    char last[32] = "";
    for (uint64_t page = 0; page < pages; page++) {
        for (uint64_t i = 0; i < 1000; i++) {
            int len = snprintf(names[i], sizeof(names[i]), "part-%09ju.parquet",
                               (uintmax_t)(page * 1000 + i));
            entries[i] = (struct meta_entry){.name = names[i],
                                             .name_len = (size_t)len,
                                             .size = 12345,
                                             .mtime_ns = 1700000000000000000ull};
            snprintf(entries[i].etag, sizeof(entries[i].etag), "%032ju", (uintmax_t)i);
        }
        struct meta_op op = {.kind = META_IMPORT_DIR,
                             .ino = b->dir,
                             .name = {last, strlen(last)},
                             .new_name = {names[999], strlen(names[999])},
                             .entries = entries,
                             .entry_count = 1000};
        if (page + 1 == pages) {
            op.flags = META_IMPORT_LAST;
            op.new_name.len = 0;
        }
        apply(b, &op, &reply);
        meta_reply_done(&reply);
        snprintf(last, sizeof(last), "%s", names[999]);
    }
    double wall = (double)(clock_monotonic_ns() - start) / 1e9;
    report(label, pages * 1000, wall, cpu_seconds() - cpu);
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static uint64_t resident_kib(void)
{
    char line[128] = "", *end = line;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f && fgets(line, sizeof(line), f))
        strtoul(line, &end, 10);
    if (f)
        fclose(f);
    return strtoul(end, NULL, 10) * 4; /* the second number: resident pages of 4 KiB */
}

int main(int argc, char **argv)
{
    char template[4096];
    struct error error = {0};
    struct bench b = {.now_ns = 1700000000000000000ull, .count = 100000};
    snprintf(template, sizeof(template), "%s/engine-bench-XXXXXX", argc > 1 ? argv[1] : "/tmp");
    if (argc > 2)
        b.count = strtoull(argv[2], NULL, 10) / 1000 * 1000;
    if (b.count == 0 || !mkdtemp(template)) {
        fprintf(stderr, "usage: engine_bench [directory [count]]\n");
        return 2;
    }
    b.inos = calloc(b.count, sizeof(*b.inos));
    char path[4200];
    snprintf(path, sizeof(path), "%s/db", template);
    struct engine_options options = {.path = path};
    int rc = engine_open(&options, &b.engine, &error);
    if (rc < 0) {
        fprintf(stderr, "engine_bench: %s\n", error_text(&error));
        return 1;
    }
    struct meta_volume volume = {.id = "bench", .root_mode = 0755, .settle_delay_ms = 5000};
    struct meta_op format = {.kind = META_FORMAT, .volume = &volume};
    struct meta_reply reply;
    apply(&b, &format, &reply);
    meta_reply_done(&reply);
    b.dir = make_dir(&b, make_dir(&b, make_dir(&b, META_ROOT_INO, "a"), "b"), "c");

    printf("%ju files in a directory at depth 3\n", (uintmax_t)b.count);
    run(&b, "create", 1, bench_create);
    run(&b, "lookup, 1,000 names", 1, bench_lookup_again);
    run(&b, "lookup, all names", 1, bench_lookup);
    run(&b, "commit 4 KiB inline", 1, bench_commit);
    run(&b, "extents", 1, bench_extents);
    run(&b, "chmod", 1, bench_chmod);
    run(&b, "rename", 2, bench_rename);
    list_all(&b, b.dir, false, "readdir");
    list_all(&b, b.dir, true, "readdir with attributes");
    run(&b, "unlink", 1, bench_unlink);
    run(&b, "drop", 1, bench_drop);
    list_all(&b, b.dir, false, "readdir, emptied");
    b.dir = META_ROOT_INO;
    import_all(&b, "import");
    import_all(&b, "import again, unchanged");
    struct engine_stats stats;
    engine_stats(b.engine, &stats);
    printf("engine memory %ju KiB, resident %ju KiB, disk %ju KiB\n",
           (uintmax_t)stats.memory_bytes >> 10, (uintmax_t)resident_kib(),
           (uintmax_t)stats.disk_bytes >> 10);
    engine_close(b.engine);
    nftw(template, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(b.inos);
    return 0;
}
